//! Access keys of IAM users, against moto. It makes, limits and forgets keys as IAM does, accepts every signature and knows no
//! delay; refusals, delays and what is asked of AWS come from a stand-in, which passes the rest on to moto.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use keywheel::error::{Class, Code, Which};
use keywheel_dev::moto::Moto;
use serde_json::json;
use support::aws::Reply;
use support::iam::{ARN, Iam, USER};
use support::*;

#[tokio::test]
async fn three_rotations_keep_the_old_key_until_the_next() {
    let iam = Iam::start(json!({"credentials": "[other]\nx = 1\n[default]\naws_access_key_id=FIRST-ID\naws_secret_access_key=FIRST-KEY\n"})).await;
    let mut before = iam.first.0.clone();
    for (number, token) in [TOKEN, THIRD, "fourth-version-000000000000000000000"].into_iter().enumerate() {
        if number > 0 {
            iam.world.service.begin_rotation(SECRET, token).unwrap();
        }
        for step in STEPS {
            iam.world.step_for(step, token).await.unwrap();
            let keys = iam.keys().await;
            assert!(keys.len() <= 2 && keys.contains(&iam.id("AWSCURRENT")), "{step}: {keys:?}");
        }
        let now = iam.id("AWSCURRENT");
        assert_ne!(now, before);
        assert_eq!(iam.keys().await, [before.clone(), now.clone()]);
        let key = iam.world.field("AWSCURRENT", "AWS_SECRET_ACCESS_KEY").unwrap();
        assert_eq!(iam.owner(&now, &key).await, ARN);
        assert_eq!(
            iam.world.field("AWSCURRENT", "credentials").unwrap(),
            format!("[other]\nx = 1\n[default]\naws_access_key_id={now}\naws_secret_access_key={key}\n")
        );
        before = now;
    }
    assert_eq!(iam.asked("CreateAccessKey"), 3);
    // The first key was set Inactive before it was deleted.
    let log = iam.aws.log();
    let first = |action: &str| log.iter().position(|asked| asked.action() == action).unwrap();
    assert!(first("UpdateAccessKey") < first("DeleteAccessKey"));
    let update = &log[first("UpdateAccessKey")];
    assert_eq!((update.form("AccessKeyId"), update.form("Status")), (Some(iam.first.0), Some("Inactive".to_owned())));
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_by_the_next_try() {
    let mut crashes = 0;
    let moto = Arc::new(Moto::start().await.unwrap());
    for step in STEPS {
        for point in 0.. {
            let mut iam = Iam::on(Arc::clone(&moto), &json!({})).await;
            for earlier in STEPS.iter().take_while(|it| **it != step) {
                iam.world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, iam.world.step(step)).await.is_none();
            // The function's connections die with it. What was on its way arrives.
            iam.world.services.other = None;
            iam.aws.settle().await;
            iam.world.services.other = Some(iam.aws.services());
            iam.world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
            let mut keys = iam.keys().await;
            keys.sort();
            let mut expected = [iam.first.0.clone(), iam.id("AWSCURRENT")];
            expected.sort();
            assert_eq!(keys, expected, "{step}, {point}");
            iam.delete_user().await;
            if !stopped {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes}");
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_is_removed_by_the_next_try() {
    let iam = Iam::start(json!({})).await;
    iam.rule("CreateAccessKey", |_| Reply::Lose);
    let error = iam.world.step("createSecret").await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("something may have been changed"), "{error}");
    assert_eq!((iam.asked("CreateAccessKey"), iam.keys().await.len()), (1, 2));
    iam.aws.rule(|_| Reply::Pass);
    iam.world.rotate(TOKEN).await.unwrap();
    assert_eq!(iam.keys().await, [iam.first.0.clone(), iam.id("AWSCURRENT")]);
}

#[tokio::test]
async fn a_key_that_may_be_somebody_elses_is_never_deleted() {
    let moto = Arc::new(Moto::start().await.unwrap());
    for (used, named) in [(false, "older than the rotation"), (true, "it has been used")] {
        let iam = Iam::on(Arc::clone(&moto), &json!({})).await;
        let (id, _) = iam.new_key().await;
        if used {
            iam.rule("GetAccessKeyLastUsed", |_| {
                let used = "<LastUsedDate>2026-01-01T00:00:00Z</LastUsedDate>";
                let used = format!("<AccessKeyLastUsed>{used}</AccessKeyLastUsed>");
                Reply::ok(format!("<R><GetAccessKeyLastUsedResult>{used}</GetAccessKeyLastUsedResult></R>"))
            });
        } else {
            // IAM's dates have no fractions: the rotation must begin in a later second.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            iam.begin(THIRD);
        }
        let token = if used { TOKEN } else { THIRD };
        let error = iam.world.step_for("createSecret", token).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::KeyLimit), "{error}");
        assert!(error.to_string().contains(named) && error.to_string().contains(&id), "{error}");
        assert!(error.remedy().contains(&format!("--user-name {USER} --access-key-id {id}")), "{error}");
        assert_eq!(iam.keys().await, [iam.first.0.clone(), id.clone()]);
        assert_eq!(iam.asked("UpdateAccessKey") + iam.asked("DeleteAccessKey") + iam.asked("CreateAccessKey"), 0);
        iam.delete(&id).await;
        iam.world.rotate(token).await.unwrap();
        iam.delete_user().await;
    }
}

#[tokio::test]
async fn a_limit_reached_in_between_is_told() {
    let iam = Iam::start(json!({})).await;
    iam.rule("CreateAccessKey", |_| Reply::refuse("LimitExceeded"));
    let error = iam.world.step("createSecret").await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::KeyLimit), "{error}");
}

#[tokio::test]
async fn a_user_that_is_gone_and_a_key_deleted_by_hand() {
    let iam = Iam::start(json!({})).await;
    iam.delete(&iam.first.0).await;
    iam.world.rotate(TOKEN).await.unwrap();
    assert_eq!(iam.keys().await, [iam.id("AWSCURRENT")]);
    iam.delete_user().await;
    iam.world.service.begin_rotation(SECRET, THIRD).unwrap();
    let error = iam.world.step_for("createSecret", THIRD).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::Request), "{error}");
    assert!(error.to_string().contains("NoSuchEntity") && error.remedy().contains("the user exists"), "{error}");
}

#[tokio::test]
async fn a_key_is_waited_for_until_aws_knows_it_and_not_for_ever() {
    let iam = Iam::start(json!({})).await;
    iam.world.step("createSecret").await.unwrap();
    let mut left = 3;
    iam.rule("GetCallerIdentity", move |_| {
        if left == 0 {
            return Reply::Pass;
        }
        left -= 1;
        Reply::refuse("InvalidClientTokenId")
    });
    iam.world.step("setSecret").await.unwrap();
    assert_eq!(iam.asked("GetCallerIdentity"), 4);
    // A key that somebody sets Inactive is refused in the same words.
    for (code, steps) in [
        ("InvalidClientTokenId", ["testSecret", "finishSecret"]),
        ("SignatureDoesNotMatch", ["setSecret", "testSecret"]),
    ] {
        iam.aws.rule(move |_| Reply::refuse(code));
        for step in steps {
            let error = iam.world.step(step).await.unwrap_err();
            assert_eq!(
                (error.class(), error.code()),
                (Class::Rejected(Which::Pending), Code::WrongPassword),
                "{error}"
            );
            assert!(error.to_string().contains(&iam.id("AWSPENDING")), "{error}");
            let key = iam.world.field("AWSPENDING", "AWS_SECRET_ACCESS_KEY").unwrap();
            assert!(!error.to_string().contains(&key), "{error}");
        }
    }
    assert_eq!(iam.id("AWSCURRENT"), iam.first.0);
}

#[tokio::test]
async fn a_key_of_another_identity_is_refused() {
    let moto = Arc::new(Moto::start().await.unwrap());
    for (extra, arn) in [
        (json!({}), "arn:aws:iam::123456789012:user/apps/another"),
        (json!({}), "arn:aws:iam::210987654321:user/pipeline"),
        (json!({"userarn": "arn:aws:iam::123456789012:user/pipeline"}), "arn:aws:iam::123456789012:user/apps/pipeline"),
    ] {
        let iam = Iam::on(Arc::clone(&moto), &extra).await;
        iam.world.step("createSecret").await.unwrap();
        iam.aws.rule(move |_| {
            Reply::ok(format!("<R><GetCallerIdentityResult><Arn>{arn}</Arn></GetCallerIdentityResult></R>"))
        });
        let error = iam.world.step("setSecret").await.unwrap_err();
        assert_eq!(error.class(), Class::Rejected(Which::Pending), "{error}");
        assert!(error.to_string().contains(arn), "{error}");
        iam.delete_user().await;
    }
}

#[tokio::test]
async fn a_missing_permission_names_action_and_user() {
    let moto = Arc::new(Moto::start().await.unwrap());
    for action in ["ListAccessKeys", "CreateAccessKey"] {
        let iam = Iam::on(Arc::clone(&moto), &json!({})).await;
        iam.rule(action, |_| Reply::refuse("AccessDenied"));
        let error = iam.world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::AccessDenied), "{error}");
        assert!(error.to_string().contains(&format!("{action} of arn:aws:iam::123456789012:user/{USER} ")), "{error}");
        assert!(error.remedy().contains(&format!("allow iam:{action} on it")), "{error}");
        assert_eq!(iam.keys().await, std::slice::from_ref(&iam.first.0));
        iam.delete_user().await;
    }
}

#[tokio::test]
async fn fields_that_cannot_be_used_are_refused_before_anything_is_asked() {
    let moto = Arc::new(Moto::start().await.unwrap());
    for (extra, named) in [
        (json!({"userarn": "arn:aws:iam::210987654321:user/pipeline"}), "not in the account of the secret"),
        (json!({"userarn": "arn:aws:iam::123456789012:role/pipeline"}), "must be the ARN of an IAM user"),
        (json!({"userarn": "arn:aws:iam::123456789012:user/another"}), "name two users"),
        (json!({"userarn": "arn:aws-cn:iam::123456789012:user/pipeline"}), "not in the account of the secret"),
        (json!({"username": "a b"}), "is no name of an IAM user"),
        (json!({"username": "a".repeat(65)}), "is no name of an IAM user"),
        (json!({"credentials": "[default]\naws_access_key_id = FIRST-ID\n"}), "does not hold the key"),
        (json!({"username": null}), "field \"username\" is missing"),
        (json!({"credentials": "[default]"}), "does not hold the key"),
    ] {
        let iam = Iam::on(Arc::clone(&moto), &extra).await;
        let error = iam.world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::Field), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(iam.aws.log().is_empty());
        iam.delete_user().await;
    }
}

#[tokio::test]
async fn the_live_key_under_other_names_is_not_withdrawn() {
    let iam = Iam::start(json!({"AWS_ACCESS_KEY_ID": null, "AWS_SECRET_ACCESS_KEY": null, "accesskeyid": "FIRST-ID", "secretaccesskey": "FIRST-KEY"})).await;
    iam.world.rotate(TOKEN).await.unwrap();
    let now = iam.world.field("AWSCURRENT", "accesskeyid").unwrap();
    let key = iam.world.field("AWSCURRENT", "secretaccesskey").unwrap();
    assert_eq!((iam.world.field("AWSCURRENT", "AWS_ACCESS_KEY_ID"), iam.keys().await.len()), (None, 2));
    // Somebody renames the fields, and so makes AWSPREVIOUS hold the live key.
    let renamed =
        json!({"kind": "iam-access-key", "username": USER, "AWS_ACCESS_KEY_ID": now, "AWS_SECRET_ACCESS_KEY": key});
    let payload = keywheel::store::memory::Payload::Text(renamed.to_string());
    iam.world.service.put(SECRET, "renamed-version-00000000000000000000", payload, &["AWSCURRENT".to_owned()]).unwrap();
    iam.delete(&iam.first.0).await;
    iam.begin(THIRD);
    iam.world.rotate(THIRD).await.unwrap();
    assert_eq!(iam.keys().await, [now, iam.id("AWSCURRENT")]);
}
