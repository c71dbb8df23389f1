//! What holds for every kind in the registry: no kind needs a test of its own for these.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use keywheel::error::{Class, Code};
use keywheel::kinds::KINDS;
use serde_json::{Value, json};
use support::*;

fn example(kind: &dyn keywheel::kind::Kind) -> Value {
    serde_json::from_str(kind.example()).unwrap()
}

fn pending(world: &World) -> Value {
    serde_json::from_str(&world.value("AWSPENDING").unwrap()).unwrap()
}

#[tokio::test]
async fn create_changes_a_rotated_field_and_no_other() {
    // Kinds that ask a service first need that service: see their own tests.
    for kind in KINDS.iter().filter(|kind| kind.permissions().is_empty() && !kind.mints()) {
        let mut example = example(*kind);
        example["unknown"] = json!({"kept": [1, 2.50, null]});
        let world = World::new(&example.to_string());
        world.step("createSecret").await.unwrap();
        let made = pending(&world);
        let changed: Vec<&String> =
            example.as_object().unwrap().keys().filter(|name| made[name.as_str()] != example[name.as_str()]).collect();
        // Two users that take turns change places.
        let turns = |name: &str| name.starts_with("alternate_") || example.get(format!("alternate_{name}")).is_some();
        let changed: Vec<_> = changed.into_iter().filter(|name| !turns(name)).collect();
        assert_eq!(changed.len(), 1, "{changed:?}");
        assert_eq!(made.as_object().unwrap().len(), example.as_object().unwrap().len());
        let field = kind.fields().iter().find(|field| field.name == changed[0]).unwrap();
        assert!(field.required && field.mounted, "{}", field.name);
        // What the value ends in survives a second createSecret, and another rotation gets another value.
        world.step("createSecret").await.unwrap();
        assert_eq!(pending(&world), made);
        let other = World::new(&example.to_string());
        other.step("createSecret").await.unwrap();
        assert_ne!(pending(&other)[changed[0]], made[changed[0]]);
    }
}

#[tokio::test]
async fn a_required_field_that_is_missing_or_mistyped_is_named_with_an_example() {
    for kind in KINDS.iter() {
        for field in kind.fields().iter().filter(|field| field.required) {
            for (wrong, named) in [
                (Value::Null, format!("field \"{}\" is missing", field.name)),
                (json!(""), format!("field \"{}\" is empty", field.name)),
                (json!(["x"]), format!("field \"{}\" must be", field.name)),
            ] {
                let mut example = example(*kind);
                example[field.name] = wrong;
                let world = World::new(&example.to_string());
                let error = world.step("createSecret").await.unwrap_err();
                assert_eq!((error.class(), error.code()), (Class::Config, Code::Field), "{error}");
                assert!(error.to_string().contains(&named), "{error}");
                assert!(error.remedy().contains(kind.example()), "{error}");
                assert_eq!(world.value("AWSPENDING"), None);
                assert_eq!(world.labels(), ["AWSCURRENT=first", "AWSPENDING=second"]);
            }
        }
    }
}

#[tokio::test]
async fn numbers_are_checked_and_keep_their_type() {
    for kind in KINDS.iter() {
        for field in kind.fields().iter().filter(|field| field.number) {
            for wrong in [json!(-1), json!(1.5), json!(99_999_999), json!("many"), json!(true)] {
                let mut example = example(*kind);
                example[field.name] = wrong.clone();
                let error = World::new(&example.to_string()).step("createSecret").await.unwrap_err();
                assert_eq!(error.code(), Code::Field, "{wrong}");
                assert!(error.to_string().contains(&format!("field \"{}\"", field.name)), "{error}");
            }
            for right in
                [json!(443), json!("443")].into_iter().filter(|_| kind.permissions().is_empty() && !kind.mints())
            {
                let mut example = example(*kind);
                example[field.name] = right.clone();
                let world = World::new(&example.to_string());
                world.step("createSecret").await.unwrap();
                assert_eq!(pending(&world)[field.name], right);
            }
        }
    }
}

/// A secret as AWS's functions take it.
#[cfg(all(feature = "mysql", feature = "postgres"))]
fn login(engine: &str, user: &str) -> Value {
    json!({"engine": engine, "host": "localhost", "username": user, "password": "old"})
}

#[cfg(all(feature = "mysql", feature = "postgres"))]
#[tokio::test]
async fn new_passwords_leave_out_what_those_of_awss_functions_do() {
    for (engine, excluded) in [
        ("postgres", "\"'/:@\\"),
        ("aurora-postgresql", "\"'/:@\\"),
        ("redshift", "\"'/:@\\"),
        ("mysql", "\"'/@\\"),
        ("aurora-mysql", "\"'/@\\"),
        ("mariadb", "\"'/@\\"),
    ] {
        let mut world = World::new(&login(engine, "app").to_string());
        // So long that every character that may be there is.
        world.settings.passwords = keywheel::password::Environment::read(|variable| {
            (variable == "PASSWORD_LENGTH").then(|| "4096".to_owned())
        });
        world.step("createSecret").await.unwrap();
        let password = world.field("AWSPENDING", "password").unwrap();
        let left_out: String = ('!'..='~').filter(|it| !password.contains(*it)).collect();
        assert_eq!(left_out, excluded, "{engine}");
    }
}

#[cfg(all(feature = "mysql", feature = "postgres"))]
#[tokio::test]
async fn masterarn_chooses_alternating_users_unless_the_strategy_says_otherwise() {
    for engine in ["postgres", "redshift", "mysql", "mariadb"] {
        for (user, fields, tag, expected) in [
            ("app", json!({}), None, "app"),
            ("app", json!({"masterarn": "admin"}), None, "app_clone"),
            ("app_clone", json!({"masterarn": "admin"}), None, "app"),
            ("app", json!({"adminarn": "admin"}), None, "app_clone"),
            ("app", json!({"masterarn": "admin", "strategy": "single-user"}), None, "app"),
            ("app_clone", json!({"masterarn": "admin"}), Some("single-user"), "app_clone"),
        ] {
            let mut secret = login(engine, user);
            secret.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let world = World::new(&secret.to_string());
            if let Some(strategy) = tag {
                world.tag("keywheel:strategy", strategy);
            }
            world.step("createSecret").await.unwrap();
            assert_eq!(world.field("AWSPENDING", "username").unwrap(), expected, "{engine}: {secret}");
        }
    }
}

#[cfg(all(feature = "mysql", feature = "postgres"))]
#[tokio::test]
async fn a_clones_name_is_as_long_as_the_server_or_the_variable_allows() {
    for (engine, variable, limit) in [
        ("postgres", None, 63),
        ("redshift", None, 127),
        ("mariadb", None, 80),
        ("mysql", None, 32),
        ("mysql", Some("16"), 16),
        ("mariadb", Some("16"), 80),
    ] {
        for (length, fits) in [(limit - "_clone".len(), true), (limit - "_clone".len() + 1, false)] {
            let mut secret = login(engine, &"x".repeat(length));
            secret["masterarn"] = json!("admin");
            let mut world = World::new(&secret.to_string());
            world.settings.username_limit = variable.map(str::to_owned);
            let code = world.step("createSecret").await.err().map(|error| error.code());
            assert_eq!(code, (!fits).then_some(Code::Field), "{engine} {variable:?}: {length}");
        }
    }
    let mut secret = login("mysql", "app");
    secret["masterarn"] = json!("admin");
    let mut world = World::new(&secret.to_string());
    world.settings.username_limit = Some("many".to_owned());
    assert_eq!(world.step("createSecret").await.unwrap_err().code(), Code::Environment);
}

#[tokio::test]
async fn a_bare_string_is_refused_or_rotates() {
    for kind in KINDS.iter() {
        let world = World::new("a bare string");
        world.tag("keywheel:kind", kind.names()[0]);
        match world.step("createSecret").await {
            Ok(_) => assert!(kind.takes_bare() && world.value("AWSPENDING").unwrap() != "a bare string"),
            Err(error) => assert!(!kind.takes_bare() && error.code() == Code::Value, "{error}"),
        }
    }
}

#[tokio::test]
async fn the_settings_of_random() {
    type Check = fn(&str) -> bool;
    let token = |extra: Value| {
        let mut secret = json!({"kind": "random", "token": "old"});
        secret.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        secret
    };
    let cases: [(Value, Check); 6] = [
        (json!({}), |it| it.len() == 32),
        (json!({"length": 12}), |it| it.len() == 12),
        (json!({"encoding": "hex", "length": 16}), |it| it.len() == 32 && it.bytes().all(|it| it.is_ascii_hexdigit())),
        (json!({"encoding": "base64url"}), |it| it.len() == 43 && !it.contains(['+', '/', '='])),
        (json!({"prefix": "sk-", "length": "20"}), |it| it.starts_with("sk-") && it.len() == 23),
        (json!({"encoding": "password"}), |it| !it.contains(['/', '@', '"', '\'', '\\'])),
    ];
    for (settings, check) in cases {
        let world = World::new(&token(settings.clone()).to_string());
        world.rotate(TOKEN).await.unwrap();
        let new = world.field("AWSCURRENT", "token").unwrap();
        assert!(check(&new), "{settings}: {new}");
    }
    let world = World::new(&json!({"kind": "random", "field": "key", "key": "old", "previous": "old_key"}).to_string());
    world.rotate(TOKEN).await.unwrap();
    assert_eq!(world.field("AWSCURRENT", "old_key").unwrap(), "old");
    assert_ne!(world.field("AWSCURRENT", "key").unwrap(), "old");
    for wrong in [
        json!({"encoding": "rot13"}),
        json!({"previous": "token"}),
        json!({"encoding": "hex", "length": 8}),
        json!({"length": 0}),
        json!({"length": 3}),
        json!({"field": "missing"}),
    ] {
        let error = World::new(&token(wrong.clone()).to_string()).step("createSecret").await.unwrap_err();
        assert_eq!(error.code(), Code::Field, "{wrong}: {error}");
    }
}
