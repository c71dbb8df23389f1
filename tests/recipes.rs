//! Every recipe, against a stand-in that understands what its vendor documents and nothing else. None of these services has
//! ever been asked; what a recipe says of one is as good as the pages that it names.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::time::Duration;

use keywheel::error::{Class, Code, Which};
use keywheel::kinds::http::RECIPES;
use keywheel::store::memory::Payload;
use serde_json::{Value, json};
use support::vendor::{Fault, LiveKey, Vendor};
use support::*;

const ADMIN: &str = "the-admin";

/// A recipe, its stand-in, and how its secrets look.
struct Case {
    name: &'static str,
    recipe: Value,
    vendor: Vendor,
}

impl Case {
    fn of(name: &'static str, text: &str) -> Self {
        Self { name, recipe: toml::from_str(text).unwrap(), vendor: Vendor::start(text) }
    }

    fn all() -> impl Iterator<Item = Self> {
        // With its examples, which the program does not have.
        let file = |name: &str| format!("{}/src/kinds/http/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        RECIPES.iter().map(move |(name, ..)| Self::of(name, &std::fs::read_to_string(file(name)).unwrap()))
    }

    fn named(name: &str) -> Self {
        Self::all().find(|case| case.name == name).unwrap()
    }

    /// One that stands for all, where what is tested has nothing to do with the recipe.
    fn grafana() -> Self {
        Self::named("grafana")
    }

    /// Those of which this is true.
    fn with(wanted: impl Fn(&Self) -> bool) -> impl Iterator<Item = Self> {
        Self::all().filter(move |case| wanted(case))
    }

    fn class(&self) -> &str {
        self.recipe["class"].as_str().unwrap()
    }

    fn coexists(&self) -> bool {
        self.recipe["coexist"] == true
    }

    /// Whether the old key is valid until the next rotation.
    fn overlaps(&self) -> bool {
        self.class() == "minted" || self.coexists() || self.class() == "slots" || self.alternates()
    }

    fn alternates(&self) -> bool {
        self.recipe["alternate"].is_object()
            && (self.recipe["alternate"]["values"].is_array() || self.other_user().is_some())
    }

    fn other_user(&self) -> Option<String> {
        let field = format!("alternate_{}", self.recipe["alternate"]["field"].as_str()?);
        self.recipe["example"].get(&field).map(|_| field)
    }

    fn credential(&self) -> String {
        let fields = self.recipe["fields"].as_object().unwrap();
        fields.iter().find(|(_, field)| field["rotated"] == true).unwrap().0.clone()
    }

    fn world(&self) -> World {
        self.world_with(&json!({}))
    }

    /// With fields of the secret changed.
    fn world_with(&self, changes: &Value) -> World {
        self.vendor.reset();
        let mut secret = self.recipe["example"].clone();
        secret.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        secret["kind"] = self.name.into();
        secret["note"] = "kept".into();
        if self.recipe["admin"].is_object() {
            secret["adminarn"] = ADMIN.into();
        }
        let mut world = World::new(&secret.to_string());
        let admin = self.recipe["admin_example"].to_string();
        world.service.create(ADMIN, "admin-version-000000000000000000000", Some(Payload::Text(admin))).unwrap();
        world.settings.hosts = self.vendor.hosts();
        world.settings.trust = keywheel::tls::Trust::with_file(self.vendor.root());
        world.services.other = Some(support::aws::services("http://127.0.0.1:1"));
        world
    }

    fn value(world: &World, label: &str) -> Value {
        serde_json::from_str(&world.value(label).unwrap()).unwrap()
    }

    /// AWSCURRENT is valid, AWSPREVIOUS where the class says so, and nothing of ours is there beside them.
    fn check(&self, world: &World, place: &str) {
        let name = self.name;
        assert_eq!(self.vendor.mismatches(), [""; 0], "{name}, {place}");
        let current = Self::value(world, "AWSCURRENT");
        assert!(self.vendor.accepts(&current), "{name}, {place}: AWSCURRENT is not valid");
        assert_eq!(current["note"], "kept");
    }

    /// As it should be when a rotation has ended.
    fn check_end(&self, world: &World, place: &str) {
        self.check(world, place);
        let (name, previous) = (self.name, Self::value(world, "AWSPREVIOUS"));
        assert_ne!(Self::value(world, "AWSCURRENT")[self.credential()], previous[self.credential()], "{name}");
        assert_eq!(self.vendor.accepts(&previous), self.overlaps(), "{name}, {place}: AWSPREVIOUS");
        if self.class() == "minted" || self.coexists() {
            assert_eq!(self.vendor.keys().len(), 2, "{name}, {place}: {:?}", names(&self.vendor.keys()));
        }
    }
}

fn names(keys: &[LiveKey]) -> Vec<String> {
    keys.iter().map(|key| format!("{} {}", key.id, key.name)).collect()
}

const TOKENS: [&str; 3] = [TOKEN, THIRD, "fourth-version-000000000000000000000"];

#[tokio::test]
async fn three_rotations_keep_the_old_key_until_the_next() {
    for case in Case::with(|case| case.class() != "staged") {
        let world = case.world();
        for (number, token) in TOKENS.into_iter().enumerate() {
            if number > 0 {
                world.service.begin_rotation(SECRET, token).unwrap();
            }
            for step in STEPS {
                let result = world.step_for(step, token).await;
                result.unwrap_or_else(|error| {
                    panic!("{}, {step} of rotation {number}: {error}\n{:?}", case.name, case.vendor.mismatches())
                });
                // A service that replaces a key in place leaves none in between.
                if case.class() != "in-place" && (case.overlaps() || step != "setSecret" && step != "testSecret") {
                    case.check(&world, step);
                }
            }
            case.check_end(&world, &format!("rotation {number}"));
        }
        assert!(case.vendor.most() <= 2, "{}: {} keys at a time", case.name, case.vendor.most());
    }
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_by_the_next_try() {
    let mut crashes = 0;
    for case in Case::with(Case::overlaps) {
        for step in STEPS {
            for point in 0.. {
                let mut world = case.world();
                // The second rotation has something to withdraw.
                world.rotate(TOKEN).await.unwrap();
                world.service.begin_rotation(SECRET, THIRD).unwrap();
                for earlier in STEPS.iter().take_while(|it| **it != step) {
                    world.step_for(earlier, THIRD).await.unwrap();
                }
                let stopped = CrashAt::new(point, world.step_for(step, THIRD)).await.is_none();
                case.vendor.settle().await;
                let place = format!("crash in {step} at {point}");
                case.check(&world, &place);
                world.rotate(THIRD).await.unwrap_or_else(|error| panic!("{}, {place}: {error}", case.name));
                case.check_end(&world, &place);
                assert!(case.vendor.most() <= 3, "{}, {place}: {} keys at a time", case.name, case.vendor.most());
                world.services.other = None;
                if !stopped {
                    break;
                }
                crashes += 1;
            }
        }
    }
    assert!(crashes > 100, "{crashes}");
}

#[tokio::test]
async fn a_lost_answer_is_healed_by_the_next_try() {
    for case in Case::with(Case::overlaps) {
        for of in ["create", "list", "revoke", "set", "read", "verify", "oauth2"] {
            for fault in [Fault::LoseBefore, Fault::LoseAfter] {
                let world = case.world();
                world.rotate(TOKEN).await.unwrap();
                world.service.begin_rotation(SECRET, THIRD).unwrap();
                case.vendor.fault(of, fault.clone());
                let mut tries = 0;
                while let Err(error) = world.rotate(THIRD).await {
                    assert!(error.is_transient(), "{}, {of}, {fault:?}: {error}", case.name);
                    case.check(&world, of);
                    tries += 1;
                    assert!(tries < 3, "{}, {of}, {fault:?}: {error}", case.name);
                }
                case.check_end(&world, of);
                // Reading, deleting and setting are repeated in the same step.
                assert!(tries == 0 || matches!(of, "create" | "set" | "read" | "revoke" | "verify" | "oauth2"), "{of}");
            }
        }
    }
}

#[tokio::test]
async fn a_refused_administrator_is_told_as_such_and_nothing_is_changed() {
    for case in Case::with(|case| case.recipe["admin"].is_object() && case.class() != "staged") {
        let world = case.world();
        let credential = case.recipe["admin_example"].as_object().unwrap().clone();
        let wrong = credential.iter().map(|(name, value)| match value {
            Value::String(text) if !text.contains("://") => (name.clone(), json!(format!("{text}-wrong"))),
            other => (name.clone(), other.clone()),
        });
        let wrong = Value::Object(wrong.collect()).to_string();
        let version = "wrong-version-000000000000000000000";
        world.service.put(ADMIN, version, Payload::Text(wrong), &["AWSCURRENT".to_owned()]).unwrap();
        let error = world.rotate(TOKEN).await.unwrap_err();
        // Where the account or the organisation is part of the URL, the stand-in knows no such place.
        let elsewhere = error.code() == Code::Answer && !case.vendor.mismatches().is_empty();
        assert!(error.class() == Class::Rejected(Which::Admin) || elsewhere, "{}: {error}", case.name);
        assert!(case.vendor.accepts(&Case::value(&world, "AWSCURRENT")), "{}", case.name);
        assert!(!error.to_string().contains("-wrong"), "{}: {error}", case.name);
    }
}

#[tokio::test]
async fn a_new_key_that_is_refused_is_not_promoted() {
    let case = Case::grafana();
    let world = case.world();
    world.step("createSecret").await.unwrap();
    let pending = Case::value(&world, "AWSPENDING")[case.credential()].as_str().unwrap().to_owned();
    // Such bodies repeat the key.
    let body = json!({"error": {"message": format!("Incorrect API key provided: {pending}")}}).to_string();
    for _ in 0..20 {
        case.vendor.fault("verify", Fault::Say(401, Vec::new(), body.clone()));
    }
    for step in ["setSecret", "testSecret", "finishSecret"] {
        let error = world.step(step).await.unwrap_err();
        assert_eq!(error.class(), Class::Rejected(Which::Pending), "{error}");
        assert!(error.to_string().contains("Incorrect API key provided: …"), "{error}");
        assert!(!error.to_string().contains(&pending), "{error}");
        for _ in 0..20 {
            case.vendor.fault("verify", Fault::Say(401, Vec::new(), body.clone()));
        }
    }
    case.check(&world, "refused");
    assert_eq!(world.labels(), ["AWSCURRENT=first", "AWSPENDING=second"]);
}

#[tokio::test]
async fn answers_that_are_none_are_told_apart() {
    let case = Case::grafana();
    let location = vec![("location", "https://elsewhere.example.com/".to_owned())];
    let mib = "x".repeat((1 << 20) + 1);
    for (fault, code, expected) in [
        (Fault::Say(302, location, String::new()), Code::Answer, "a redirect (302), which is not followed"),
        (Fault::Body("<html>".to_owned()), Code::Answer, "is no JSON"),
        (Fault::Body("{}".to_owned()), Code::Answer, "has nothing for field"),
        (Fault::Body(mib), Code::Answer, "longer than a mebibyte"),
        (Fault::Say(418, vec![], r#"{"message":"no coffee"}"#.to_owned()), Code::Answer, "418: \"no coffee\""),
        (Fault::Say(500, vec![], String::new()), Code::Server, "answers 500"),
        (Fault::LoseAfter, Code::Unreachable, "the connection broke"),
    ] {
        let world = case.world();
        case.vendor.fault("create", fault.clone());
        let error = world.step("createSecret").await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        case.check(&world, expected);
        // What was made is found by its name.
        world.rotate(TOKEN).await.unwrap();
        case.check_end(&world, expected);
    }
}

#[tokio::test]
async fn a_service_that_asks_to_wait_is_waited_for_as_long_as_there_is_time() {
    let case = Case::grafana();
    let world = case.world();
    let limited = |after: &str| Fault::Say(429, vec![("retry-after", after.to_owned())], String::new());
    case.vendor.fault("create", limited("1"));
    case.vendor.fault("verify", Fault::Slow(Duration::from_millis(300)));
    let began = std::time::Instant::now();
    world.rotate(TOKEN).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1300));
    case.check_end(&world, "429");
    let world = case.world();
    case.vendor.fault("create", limited("3600"));
    let error = world.step("createSecret").await.unwrap_err();
    assert_eq!(error.code(), Code::Limited, "{error}");
    assert!(error.to_string().contains("for 3600 s") && error.to_string().contains("nothing was changed"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_gone_already_is_no_error() {
    for case in Case::with(|case| case.class() == "minted" || case.coexists()) {
        let world = case.world();
        for token in &TOKENS[..2] {
            if *token != TOKEN {
                world.service.begin_rotation(SECRET, token).unwrap();
                // Somebody has deleted it by hand.
                case.vendor.forget(&Case::value(&world, "AWSPREVIOUS"));
            }
            world.rotate(token).await.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
        case.check(&world, "gone");
    }
}

#[tokio::test]
async fn a_person_is_told_how_to_stage_a_key_until_one_is_there() {
    for case in Case::with(|case| case.class() == "staged") {
        let world = case.world();
        let error = world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::ByHand), "{}: {error}", case.name);
        for part in ["put-secret-value", "--version-stages AWSPENDING", TOKEN, case.recipe["by_hand"].as_str().unwrap()]
        {
            assert!(error.to_string().contains(part), "{}: {error}", case.name);
        }
        let old = Case::value(&world, "AWSCURRENT");
        for (number, token) in TOKENS[..2].iter().enumerate() {
            if number > 0 {
                world.service.begin_rotation(SECRET, token).unwrap();
                world.step_for("createSecret", token).await.unwrap_err();
            }
            let mut staged = Case::value(&world, "AWSCURRENT");
            let (key, id) = (format!("a-key-made-by-a-person-{number}"), format!("id-by-a-person-{number}"));
            staged[case.credential()] = key.clone().into();
            let revoke =
                if case.recipe["revoke"].is_array() { &case.recipe["revoke"][0] } else { &case.recipe["revoke"] };
            let fields = case.recipe["fields"].as_object().unwrap().iter().filter(|(_, it)| it["rotated"] == true);
            let second = fields.map(|(name, _)| name.clone()).nth(1);
            if let Some(field) = revoke["id"].as_str().map(str::to_owned).or(second) {
                staged[field] = id.clone().into();
            }
            let text = staged.to_string();
            world.service.put(SECRET, token, Payload::Text(text), &["AWSPENDING".to_owned()]).unwrap();
            // One that the service does not know is not promoted.
            if number == 0 {
                let error = world.rotate(token).await.unwrap_err();
                assert_eq!(error.class(), Class::Rejected(Which::Pending), "{}: {error}", case.name);
            }
            case.vendor.add_key(&key, &id);
            world.rotate(token).await.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            case.check(&world, "staged");
        }
        // The first one is out of use by now, where the service can be told.
        assert_eq!(
            case.vendor.accepts(&old),
            !case.recipe["revoke"].is_object() && !case.recipe["revoke"].is_array(),
            "{}",
            case.name
        );
    }
}

#[tokio::test]
async fn a_key_that_dies_with_its_replacement_is_never_used_again() {
    for case in Case::with(|case| case.class() == "in-place") {
        let world = case.world();
        case.vendor.fault("create", Fault::LoseAfter);
        let error = world.rotate(TOKEN).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("something may have been changed"), "{error}");
        let created = |log: Vec<String>| log.iter().filter(|it| *it == "create").count();
        assert_eq!(created(case.vendor.log()), 1);
        let error = world.rotate(TOKEN).await.unwrap_err();
        assert_eq!(error.class(), Class::Rejected(Which::Current), "{}: {error}", case.name);
        assert!(error.to_string().contains("make a key by hand"), "{error}");
        assert_eq!(created(case.vendor.log()), 1, "{}: a dead key was used to make another", case.name);
    }
}

#[tokio::test]
async fn a_key_that_another_try_has_made_at_once_is_removed() {
    let case = Case::grafana();
    let world = case.world();
    world.step("createSecret").await.unwrap();
    let ours = case.vendor.keys().into_iter().find(|key| key.name.contains(TOKEN)).unwrap();
    case.vendor.add_key("a-key-that-nobody-stored", "77");
    case.vendor.rename("77", &ours.name);
    world.step("createSecret").await.unwrap();
    assert_eq!(case.vendor.keys().iter().filter(|key| key.name == ours.name).collect::<Vec<_>>(), [&ours]);
    world.rotate(TOKEN).await.unwrap();
    case.check_end(&world, "two at once");
}

#[tokio::test]
async fn nothing_of_an_earlier_rotation_is_deleted_where_the_key_in_use_is_not_known() {
    let case = Case::grafana();
    let mut world = case.world();
    world.settings.remove_pending = true;
    world.rotate(TOKEN).await.unwrap();
    // Somebody has spoilt the id, so the live key looks like a leftover.
    let mut edited = Case::value(&world, "AWSCURRENT");
    edited["token_id"] = "99999".into();
    let version = "edited-version-000000000000000000000";
    world.service.put(SECRET, version, Payload::Text(edited.to_string()), &["AWSCURRENT".to_owned()]).unwrap();
    world.service.begin_rotation(SECRET, THIRD).unwrap();
    world.step_for("createSecret", THIRD).await.unwrap();
    case.check(&world, "a spoilt id");
}

#[tokio::test]
async fn the_slot_in_use_is_the_one_that_holds_the_key() {
    let case = Case::named("azure-openai");
    // The stand-in has the example's key in the other one.
    let world = case.world_with(&json!({"slot": "Key2"}));
    world.rotate(TOKEN).await.unwrap();
    assert!(case.vendor.accepts(&Case::value(&world, "AWSPREVIOUS")), "the key in use was made anew");
    assert!(case.vendor.accepts(&Case::value(&world, "AWSCURRENT")));
    // A key that neither has says nothing about which is free.
    let world = case.world_with(&json!({"key": "of-no-slot-at-all"}));
    let error = world.step("createSecret").await.unwrap_err();
    assert_eq!(error.class(), Class::Rejected(Which::Current), "{error}");
    assert!(!case.vendor.log().contains(&"create".to_owned()));
}

#[tokio::test]
async fn a_further_key_that_is_there_already_is_no_error() {
    let case = Case::named("langfuse");
    let world = case.world();
    world.step("createSecret").await.unwrap();
    world.step("setSecret").await.unwrap();
    case.vendor.fault("set", Fault::Say(409, vec![], r#"{"message":"exists"}"#.to_owned()));
    world.step("setSecret").await.unwrap();
    // The status alone is no proof.
    let world = case.world();
    world.step("createSecret").await.unwrap();
    case.vendor.fault("set", Fault::Say(409, vec![], r#"{"message":"exists"}"#.to_owned()));
    let error = world.step("setSecret").await.unwrap_err();
    assert_eq!(error.code(), Code::Answer, "{error}");
}
