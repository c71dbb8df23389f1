//! Users of a real RabbitMQ, through its management API and AMQP, with TLS.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use keywheel::error::{Class, Code, Which};
use keywheel_dev::rabbitmq::{ADMIN, PASSWORD, RabbitMq};
use serde_json::{Value, json};
use support::sql::{self, OLD, assert_error, failure, rotate_again, with, world_with_admin};
use support::*;

/// One server for all tests that run together, because it takes ten seconds to start; each has users of its own. It stops
/// with the last of them.
fn server() -> Arc<RabbitMq> {
    static SERVER: Mutex<Weak<RabbitMq>> = Mutex::new(Weak::new());
    let mut running = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let server = Arc::new(RabbitMq::start(true).unwrap());
        *running = Arc::downgrade(&server);
        server
    })
}

static NUMBER: OnceLock<Mutex<u32>> = OnceLock::new();

/// Two names that no other test uses.
fn users() -> (String, String) {
    let mut number = NUMBER.get_or_init(Mutex::default).lock().unwrap();
    *number += 1;
    (format!("app{number}"), format!("app{number}_b"))
}

fn admin(server: &RabbitMq) -> Value {
    let url = format!("https://localhost:{}", server.management());
    json!({"url": url, "username": ADMIN, "password": PASSWORD})
}

fn secret(server: &RabbitMq, user: &str) -> Value {
    json!({
        "engine": "rabbitmq", "host": "localhost", "port": server.port(), "username": user, "password": OLD,
        "network": "private", "sslrootcert": server.root(), "masterarn": sql::ADMIN
    })
}

/// A user, and its secret: with tags, and what it may do in two virtual hosts.
fn world(server: &RabbitMq, user: &str, changes: Value) -> World {
    put(server, &format!("users/{user}"), &json!({"password": OLD, "tags": "monitoring,own-tag"}));
    put(server, "vhosts/a%2Fb", &json!({}));
    put(server, &format!("permissions/%2F/{user}"), &json!({"configure": "^a", "write": "^b", "read": ".*"}));
    put(server, &format!("permissions/a%2Fb/{user}"), &json!({"configure": "", "write": "", "read": "^c"}));
    put(
        server,
        &format!("topic-permissions/%2F/{user}"),
        &json!({"exchange": "amq.topic", "write": "^w", "read": "^r"}),
    );
    world_with_admin(&with(&secret(server, user), changes), &admin(server))
}

fn put(server: &RabbitMq, path: &str, body: &Value) {
    let (status, answer) = server.ask("PUT", path, body).unwrap();
    assert!(status < 300, "{path}: {status} {answer}");
}

fn works(server: &RabbitMq, user: &str, password: &str) -> bool {
    server.ask_as(user, password, "GET", "whoami", &Value::Null).unwrap().0 == 200
}

/// Tags and permissions.
fn rights(server: &RabbitMq, user: &str) -> Vec<Value> {
    let get = |path: String| server.ask("GET", &path, &Value::Null).unwrap().1;
    let mut rights = vec![get(format!("users/{user}"))["tags"].clone()];
    for sort in ["permissions", "topic-permissions"] {
        let mut all = get(format!("users/{user}/{sort}")).as_array().unwrap().clone();
        for it in &mut all {
            it["user"] = Value::Null;
        }
        all.sort_by_key(ToString::to_string);
        rights.extend(all);
    }
    rights
}

#[tokio::test]
async fn one_user_keeps_its_tags_and_permissions() {
    let server = server();
    let (user, _) = users();
    let world = world(&server, &user, json!({}));
    let before = rights(&server, &user);
    assert!(before[0].to_string().contains("own-tag") && before.len() == 4, "{before:?}");
    for token in [TOKEN, THIRD] {
        if token == TOKEN {
            world.rotate(token).await.unwrap();
        } else {
            rotate_again(&world, token).await.unwrap();
        }
        let password = world.field("AWSCURRENT", "password").unwrap();
        assert!(works(&server, &user, &password) && !works(&server, &user, OLD));
        assert_eq!(rights(&server, &user), before);
    }
}

#[tokio::test]
async fn two_users_take_turns_and_have_the_same_rights() {
    let server = server();
    let (user, other) = users();
    let world = world(&server, &user, json!({"alternate_username": other}));
    let before = rights(&server, &user);
    world.rotate(TOKEN).await.unwrap();
    assert_eq!(sql::login(&world, "AWSCURRENT").0, other);
    let first = world.field("AWSCURRENT", "password").unwrap();
    assert!(works(&server, &other, &first) && works(&server, &user, OLD), "the old one lives");
    assert_eq!(rights(&server, &other), before);
    // What is taken from the one in use is taken from the other, and what is given to it too.
    server.ask("DELETE", &format!("permissions/a%2Fb/{other}"), &Value::Null).unwrap();
    put(
        &server,
        &format!("topic-permissions/%2F/{other}"),
        &json!({"exchange": "amq.topic", "write": "^x", "read": "^r"}),
    );
    put(&server, &format!("users/{other}"), &json!({"password": first, "tags": "management"}));
    rotate_again(&world, THIRD).await.unwrap();
    assert_eq!(sql::login(&world, "AWSCURRENT").0, user);
    assert_eq!(rights(&server, &user), rights(&server, &other));
    assert_ne!(rights(&server, &user), before);
    let second = world.field("AWSCURRENT", "password").unwrap();
    assert!(works(&server, &user, &second) && works(&server, &other, &first) && !works(&server, &user, OLD));
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_and_awscurrent_always_works() {
    let server = server();
    let mut crashes = 0;
    for step in STEPS {
        for point in 0.. {
            let (user, other) = users();
            let world = world(&server, &user, json!({"alternate_username": other}));
            let before = rights(&server, &user);
            for earlier in STEPS.iter().take_while(|it| **it != step) {
                world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, world.step(step)).await.is_none();
            let (name, password) = sql::login(&world, "AWSCURRENT");
            assert!(works(&server, &name, &password), "{step}, {point}");
            world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
            let (name, password) = sql::login(&world, "AWSCURRENT");
            assert!(works(&server, &name, &password) && works(&server, &user, OLD), "{step}, {point}");
            assert_eq!(rights(&server, &name), before, "{step}, {point}");
            if !stopped {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 10, "{crashes}");
}

#[tokio::test]
async fn mistakes_are_told_apart() {
    let server = server();
    let (user, other) = users();
    let fresh = |changes: Value| {
        let secret = with(&with(&secret(&server, &user), json!({"alternate_username": other})), changes);
        world_with_admin(&secret, &admin(&server))
    };
    drop(world(&server, &user, json!({})));
    for (changes, step, class, code, named) in [
        (json!({"username": "nobody"}), "setSecret", Class::Config, Code::Field, "no user \"nobody\""),
        (json!({"masterarn": null}), "createSecret", Class::Config, Code::Field, "field \"adminarn\" is missing"),
        (json!({"network": "public"}), "setSecret", Class::Config, Code::Address, "is private"),
        (json!({"alternate_username": user}), "createSecret", Class::Config, Code::Field, "names the same one"),
    ] {
        let world = fresh(changes);
        assert_error(&failure(&world, step).await, class, code, named);
    }
    let world = fresh(json!({"vhost": "nowhere"}));
    let error = failure(&world, "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Pending), Code::NotPermitted, "virtual host \"nowhere\"");
    // The password that was set is not the one in the secret.
    let world = fresh(json!({}));
    world.step("createSecret").await.unwrap();
    let error = world.step("testSecret").await.unwrap_err();
    assert_error(&error, Class::Rejected(Which::Pending), Code::WrongPassword, "refuses user");
    // Another server's administrator.
    let elsewhere = with(&admin(&server), json!({"url": "https://192.0.2.1:15671"}));
    let world = world_with_admin(&secret(&server, &user), &elsewhere);
    assert_error(&failure(&world, "setSecret").await, Class::Config, Code::Admin, "is for 192.0.2.1, not localhost");
    let wrong = with(&admin(&server), json!({"password": "a wrong password"}));
    let world = world_with_admin(&secret(&server, &user), &wrong);
    let error = failure(&world, "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Admin), Code::WrongPassword, "refuses the administrator's credential");
}
