//! The rotation protocol on the in-memory store: guards, labels, repetition, and the rules that the engine promises.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keywheel::error::{Class, Code, Effect, Error};
use keywheel::rotate::Outcome;
use keywheel::store::memory::Payload;
use support::*;

const RANDOM: &str = r#"{"kind":"random","token":"old","note":"kept","port":5432}"#;

fn class_and_code(result: Result<Outcome, Error>) -> (String, Option<Code>) {
    match result {
        Ok(outcome) => (outcome.as_str().to_owned(), None),
        Err(error) => (error.class().error_type().to_owned(), Some(error.code())),
    }
}

/// The label state of the token, each with what every step answers.
#[tokio::test(start_paused = true)]
async fn each_label_state_meets_each_step_twice() {
    struct State {
        name: &'static str,
        prepare: fn(&World),
        /// What each step answers: its outcome, or the class and code of its error.
        answers: [(&'static str, Option<Code>); 4],
    }
    let refused = |code| [("Rotation.Stage", Some(code)); 4];
    let done = [("done", None); 4];
    let states = [
        State {
            name: "rotation is off",
            prepare: |world| world.service.edit(SECRET, |record| record.rotation_enabled = Some(false)).unwrap(),
            answers: refused(Code::RotationOff),
        },
        State {
            name: "the token is unknown",
            prepare: |world| world.service.edit(SECRET, |record| record.versions.retain(|it| it.id != TOKEN)).unwrap(),
            answers: refused(Code::Token),
        },
        State {
            name: "another version holds AWSPENDING",
            prepare: |world| {
                world.stage(r#"{"kind":"random","token":"new"}"#);
                world.service.update_stage(SECRET, "mine", Some(TOKEN), None).unwrap();
                let third = Payload::Text(RANDOM.to_owned());
                world.service.put(SECRET, THIRD, third, &["AWSPENDING".to_owned()]).unwrap();
            },
            answers: refused(Code::NotPending),
        },
        State {
            name: "the token is AWSCURRENT",
            prepare: |world| {
                world.stage(&RANDOM.replace("old", "new"));
                world.service.update_stage(SECRET, "AWSCURRENT", Some(TOKEN), Some(FIRST)).unwrap();
            },
            answers: [("already-current", None); 4],
        },
        // createSecret gives it a value for the steps after it.
        State { name: "pending, without a value", prepare: |_| (), answers: done },
        State {
            name: "pending, with a value",
            prepare: |world| world.stage(&RANDOM.replace("old", "new")),
            answers: done,
        },
        State {
            name: "rotation was never configured",
            prepare: |world| world.service.edit(SECRET, |record| record.rotation_enabled = None).unwrap(),
            answers: done,
        },
    ];
    for State { name: state, prepare, answers } in states {
        let world = World::new(RANDOM);
        prepare(&world);
        for (step, (class, code)) in STEPS.into_iter().zip(answers) {
            let first = class_and_code(world.step(step).await);
            assert_eq!(first, (class.to_owned(), code), "{state}: {step}");
            let labels = world.labels();
            let values = (world.value("AWSCURRENT"), world.value("AWSPENDING"));
            let again = class_and_code(world.step(step).await);
            let finished = step == "finishSecret" && class == "done";
            let expected = if finished { ("already-current".to_owned(), None) } else { first };
            assert_eq!(again, expected, "{state}: {step} again");
            assert_eq!(world.labels(), labels, "{state}: {step} again moves a label");
            assert_eq!((world.value("AWSCURRENT"), world.value("AWSPENDING")), values, "{state}: {step} again");
        }
        assert!(world.value("AWSCURRENT").is_some(), "{state}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_without_a_value_passes_no_step_but_the_test_of_what_is_current() {
    let world = World::new(RANDOM);
    assert_eq!(class_and_code(world.step("setSecret").await).1, Some(Code::NoValue));
    assert_eq!(world.step("testSecret").await.unwrap(), Outcome::TestedCurrent);
    assert_eq!(class_and_code(world.step("finishSecret").await).1, Some(Code::NoValue));
    assert_eq!(world.labels(), ["AWSCURRENT=first", "AWSPENDING=second"]);
}

#[tokio::test]
async fn a_whole_rotation_keeps_every_other_field_and_its_type() {
    let world = World::new(RANDOM);
    world.rotate(TOKEN).await.unwrap();
    let new = world.field("AWSCURRENT", "token").unwrap();
    assert_ne!(new, "old");
    let expected = serde_json::json!({"kind": "random", "token": new, "note": "kept", "port": 5432});
    assert_eq!(world.value("AWSCURRENT").unwrap(), expected.to_string());
    assert_eq!(world.value("AWSPREVIOUS").unwrap(), RANDOM);
    assert_eq!(world.labels(), ["AWSCURRENT=second", "AWSPENDING=second", "AWSPREVIOUS=first"]);
}

#[tokio::test]
async fn at_most_eleven_calls() {
    let world = World::new(RANDOM);
    let mut total = 0;
    for step in STEPS {
        world.step(step).await.unwrap();
        let calls = world.store.calls();
        println!("{step}: {} calls: {}", calls.len(), calls.join(", "));
        total += calls.len();
    }
    println!("whole rotation: {total} calls");
    assert_eq!(total, 11);
}

#[tokio::test]
async fn awspending_can_be_taken_away_at_the_end() {
    let mut world = World::new(RANDOM);
    world.settings.remove_pending = true;
    world.rotate(TOKEN).await.unwrap();
    assert_eq!(world.labels(), ["AWSCURRENT=second", "AWSPREVIOUS=first"]);
}

#[tokio::test(start_paused = true)]
async fn saving_a_schedule_without_rotating_tests_the_current_value() {
    // RotateImmediately=false: only testSecret runs, on a version that holds the current value.
    let world = World::new(RANDOM);
    world.stage(RANDOM);
    assert_eq!(world.step("testSecret").await.unwrap(), Outcome::Done);
    let (world, keys) = minted_world();
    world.stage(&world.value("AWSCURRENT").unwrap());
    assert_eq!(world.step("testSecret").await.unwrap(), Outcome::Done);
    keys.remove(|_| true);
    let error = world.step("testSecret").await.unwrap_err();
    assert_eq!(error.code(), Code::WrongPassword);
}

#[tokio::test]
async fn a_pending_value_that_was_tampered_with_goes_nowhere() {
    for (pending, code, field) in [
        (r#"{"kind":"random","token":"new","note":"changed","port":5432}"#, Code::Tampered, "\"note\""),
        (r#"{"kind":"random","token":"new","note":"kept","port":"5432"}"#, Code::Tampered, "\"port\""),
        (r#"{"kind":"random","token":"new","note":"kept","port":5432,"more":1}"#, Code::Tampered, "\"more\""),
        (r#"{"kind":"postgres","token":"new","note":"kept","port":5432}"#, Code::Tampered, "\"kind\""),
        (RANDOM, Code::Unchanged, "AWSPENDING holds the same credential"),
    ] {
        for step in ["createSecret", "setSecret"] {
            let world = World::new(RANDOM);
            world.stage(pending);
            let error = world.step(step).await.unwrap_err();
            assert_eq!((error.class(), error.code()), (Class::Config, code), "{step} {pending}");
            assert!(error.to_string().contains(field) && error.remedy().contains(TOKEN), "{error}");
            assert_eq!(world.value("AWSCURRENT").unwrap(), RANDOM);
        }
    }
}

#[tokio::test]
async fn values_that_cannot_be_read_are_told_apart() {
    for (value, code, expected) in [
        ("not json", Code::Value, "not a JSON object"),
        ("[1,2]", Code::Value, "not a JSON object"),
        ("{\"kind\": \"random\"", Code::Value, "not valid JSON at line 1 column 17"),
        (r#"{"kind":"random"}"#, Code::Field, "field \"token\" is missing"),
        (r#"{"kind":"random","token":7}"#, Code::Field, "field \"token\" must be a string, and is a number"),
        (r#"{"kind":"nothing","token":"x"}"#, Code::Kind, "field \"kind\" is \"nothing\""),
        (r#"{"token":"x"}"#, Code::Kind, "neither field \"kind\" nor field \"engine\""),
    ] {
        let world = World::new(value);
        let error = world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, code), "{value}");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(world.value("AWSCURRENT").unwrap(), value);
    }
    let world = World::new(RANDOM);
    world.service.put(SECRET, THIRD, Payload::Binary(vec![1, 2]), &["AWSCURRENT".to_owned()]).unwrap();
    let error = world.step("createSecret").await.unwrap_err();
    assert!(error.to_string().contains("binary (SecretBinary)"), "{error}");
}

#[tokio::test]
async fn a_bare_string_rotates_by_its_tag() {
    let world = World::new("bare old value");
    world.tag("keywheel:kind", "random").tag("keywheel:encoding", "hex").tag("keywheel:length", "20");
    world.rotate(TOKEN).await.unwrap();
    let value = world.value("AWSCURRENT").unwrap();
    assert!(value.len() == 40 && value.bytes().all(|it| it.is_ascii_hexdigit()), "{value}");
}

#[tokio::test]
async fn the_same_step_twice_at_once_ends_as_one() {
    for step in STEPS {
        let world = World::new(RANDOM);
        for earlier in STEPS.into_iter().take_while(|it| *it != step) {
            world.step(earlier).await.unwrap();
        }
        let (left, right) = tokio::join!(world.step(step), world.step(step));
        let (left, right) = (left.unwrap(), right.unwrap());
        assert!(left == Outcome::Done || right == Outcome::Done, "{step}: {left:?} {right:?}");
        world.rotate(TOKEN).await.unwrap();
        assert_eq!(world.labels(), ["AWSCURRENT=second", "AWSPENDING=second", "AWSPREVIOUS=first"], "{step}");
    }
}

#[tokio::test]
async fn a_lost_answer_to_the_promotion_is_no_failure() {
    let world = World::new(RANDOM);
    for step in &STEPS[..3] {
        world.step(step).await.unwrap();
    }
    world.store.fail("UpdateSecretVersionStage", Fault::AnswerLost);
    assert_eq!(world.step("finishSecret").await.unwrap(), Outcome::Done);
    assert_eq!(world.labels()[0], "AWSCURRENT=second");
}

#[tokio::test]
async fn a_step_says_whether_something_may_have_changed() {
    let world = World::new(RANDOM);
    world.store.fail("GetSecretValue(AWSCURRENT)", Fault::AnswerLost);
    let error = world.step("createSecret").await.unwrap_err();
    assert_eq!(error.class(), Class::Transient(Effect::None));
    assert!(error.to_string().contains("; nothing was changed\nhint: "), "{error}");
    world.store.fail("PutSecretValue", Fault::AnswerLost);
    let error = world.step("createSecret").await.unwrap_err();
    assert_eq!(error.class(), Class::Transient(Effect::Unknown));
    assert!(error.to_string().contains("something may have been changed"), "{error}");
    world.rotate(TOKEN).await.unwrap();
}

/// Stops a step at every point where it waits, tries the rotation again with the same token, and looks at the end.
async fn crash_everywhere(new_world: impl Fn() -> (World, Option<KeyService>)) -> usize {
    let mut crashes = 0;
    for step in STEPS {
        for point in 0.. {
            let (world, keys) = new_world();
            for earlier in STEPS.into_iter().take_while(|it| *it != step) {
                world.step(earlier).await.unwrap();
            }
            let crashed = CrashAt::new(point, world.step(step)).await.is_none();
            if let Some(keys) = &keys {
                let current = world.field("AWSCURRENT", "key").unwrap();
                assert!(keys.accepts(&current), "{step} at {point}: AWSCURRENT is dead after the crash");
            }
            world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step} at {point}: {error:?}"));
            assert_eq!(world.labels(), ["AWSCURRENT=second", "AWSPENDING=second", "AWSPREVIOUS=first"]);
            if let Some(keys) = &keys {
                for label in ["AWSCURRENT", "AWSPREVIOUS"] {
                    let key = world.field(label, "key").unwrap();
                    assert!(keys.accepts(&key), "{step} at {point}: {label} is dead");
                }
                assert_eq!(keys.count(), 2, "{step} at {point}: an orphan is left: {:?}", keys.keys);
            }
            if !crashed {
                break;
            }
            crashes += 1;
        }
    }
    crashes
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_is_healed_by_the_next_try() {
    let crashes = crash_everywhere(|| (World::new(RANDOM), None)).await;
    assert!(crashes >= 20, "{crashes}");
}

#[tokio::test(start_paused = true)]
async fn rule_1_orphans_of_an_earlier_try_are_removed() {
    let crashes = crash_everywhere(|| {
        let (world, keys) = minted_world();
        (world, Some(keys))
    })
    .await;
    assert!(crashes >= 25, "{crashes}");
}

#[tokio::test]
async fn rule_2_the_old_credential_lives_until_the_next_rotation() {
    let (world, keys) = minted_world();
    let first = world.field("AWSCURRENT", "key").unwrap();
    world.rotate(TOKEN).await.unwrap();
    let second = world.field("AWSCURRENT", "key").unwrap();
    assert!(keys.accepts(&first) && keys.accepts(&second));
    world.service.begin_rotation(SECRET, THIRD).unwrap();
    world.rotate(THIRD).await.unwrap();
    let third = world.field("AWSCURRENT", "key").unwrap();
    assert!(!keys.accepts(&first) && keys.accepts(&second) && keys.accepts(&third));
}

#[tokio::test]
async fn rule_3_a_version_that_shares_the_live_credential_is_never_withdrawn() {
    let (world, keys) = minted_world();
    // Somebody edits a note: AWSPREVIOUS and AWSCURRENT now hold the same key.
    let key = world.field("AWSCURRENT", "key").unwrap();
    let edited = serde_json::json!({"kind": "minted", "key": key, "note": "edited"}).to_string();
    world.service.put(SECRET, THIRD, Payload::Text(edited), &["AWSCURRENT".to_owned()]).unwrap();
    world.step("createSecret").await.unwrap();
    assert!(keys.accepts(&key));
}

#[tokio::test]
async fn rule_4_a_new_key_is_withdrawn_only_when_the_put_definitely_failed() {
    let (world, keys) = minted_world();
    world.store.fail("PutSecretValue", Fault::Refused);
    assert_eq!(world.step("createSecret").await.unwrap_err().code(), Code::AccessDenied);
    assert_eq!(keys.count(), 1);
    world.store.fail("PutSecretValue", Fault::AnswerLost);
    assert_eq!(world.step("createSecret").await.unwrap_err().code(), Code::Timeout);
    assert_eq!(keys.count(), 2);
    assert!(keys.accepts(&world.field("AWSPENDING", "key").unwrap()));
    world.rotate(TOKEN).await.unwrap();
    assert_eq!(keys.count(), 2);
}

#[tokio::test]
async fn rule_5_the_pending_value_is_read_by_token_and_label() {
    let world = World::new(RANDOM);
    world.rotate(TOKEN).await.unwrap();
    // A stale invocation of an older rotation must not touch what a newer one has staged.
    world.service.begin_rotation(SECRET, THIRD).unwrap();
    world.step_for("createSecret", THIRD).await.unwrap();
    for step in STEPS {
        assert_eq!(world.step_for(step, TOKEN).await.unwrap(), Outcome::AlreadyCurrent);
    }
    let labels = world.labels();
    assert_eq!(labels, ["AWSCURRENT=second", "AWSPENDING=third", "AWSPREVIOUS=first"]);
    assert_eq!(world.step_for("finishSecret", FIRST).await.unwrap_err().code(), Code::NotPending);
    assert_eq!(world.labels(), labels);
}

#[tokio::test]
async fn finish_does_not_promote_what_the_service_refuses() {
    let (world, keys) = minted_world();
    world.step("createSecret").await.unwrap();
    let pending = world.field("AWSPENDING", "key").unwrap();
    keys.remove(|key| key.value == pending);
    let error = world.step("finishSecret").await.unwrap_err();
    assert!(error.is_rejected() && error.to_string().contains("not promoted"), "{error}");
    assert_eq!(world.labels()[0], "AWSCURRENT=first");
}

#[tokio::test]
async fn finish_promotes_what_was_proven_when_the_service_does_not_answer() {
    let (world, keys) = minted_world();
    for step in &STEPS[..3] {
        world.step(step).await.unwrap();
    }
    *keys.down.lock().unwrap() = true;
    assert_eq!(world.step("finishSecret").await.unwrap(), Outcome::PromotedUnasked);
    assert_eq!(world.labels()[0], "AWSCURRENT=second");
}
