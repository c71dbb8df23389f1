//! ACL users of real Redis servers: one, a master with its replica, and a cluster.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::Arc;

use keywheel::error::{Class, Code, Effect, Which};
use keywheel_dev::redis::{PASSWORD, Redis};
use keywheel_dev::server::free_port;
use serde_json::{Value, json};
use support::sql::{self, assert_error, failure, rotate_again, with, world, world_with_admin};
use support::*;

const OLD: &str = sql::OLD;
const ACLFILE: &str = "aclfile FOLDER/users.acl";
const USER: [&str; 5] = ["~*", "+@all", "-@admin", "-@dangerous", "on"];

fn add_user(redis: &Redis) {
    redis.run(&[["ACL", "SETUSER", "app", "reset", &format!(">{OLD}")].as_slice(), &USER].concat()).unwrap();
}

fn place(redis: &Redis) -> Value {
    let mode = if redis.root().is_some() { "verify-full" } else { "disable" };
    json!({"engine": "redis", "host": "localhost", "port": redis.port(), "sslmode": mode, "sslrootcert": redis.root()})
}

fn secret(redis: &Redis) -> Value {
    with(&place(redis), json!({"username": "app", "password": OLD, "masterarn": sql::ADMIN}))
}

fn admin(redis: &Redis) -> Value {
    with(&place(redis), json!({"username": "default", "password": PASSWORD}))
}

/// A server with the user, its secret and its administrator's.
fn server(tls: bool, lines: &[&str]) -> (Redis, World) {
    let redis = Redis::with(tls, lines).unwrap();
    add_user(&redis);
    let world = world_with_admin(&secret(&redis), &admin(&redis));
    (redis, world)
}

fn works(redis: &Redis, password: &str) -> bool {
    redis.run_as("app", password, &["PING"]).is_ok()
}

fn password(world: &World, label: &str) -> String {
    world.field(label, "password").unwrap()
}

#[tokio::test]
async fn two_passwords_live_and_no_command_holds_one() {
    for tls in [true, false] {
        let (mut redis, world) = server(tls, &[ACLFILE, "slowlog-log-slower-than 0", "slowlog-max-len 1000"]);
        let notes = world.rotate_with_notes(TOKEN).await.unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(world.store.calls().len(), 11);
        let first = password(&world, "AWSCURRENT");
        assert!(works(&redis, &first) && works(&redis, OLD));
        rotate_again(&world, THIRD).await.unwrap();
        let second = password(&world, "AWSCURRENT");
        assert!(works(&redis, &second) && works(&redis, &first) && !works(&redis, OLD));
        let slow = redis.run(&["SLOWLOG", "GET", "1000"]).unwrap();
        assert!(slow.contains("SETUSER") && slow.contains("GETUSER"), "{slow}");
        for secret in [OLD, &first, &second, PASSWORD] {
            assert!(!slow.contains(secret), "{slow}");
        }
        // What else the user may do is as it was.
        assert!(redis.run_as("app", &second, &["SET", "a", "b"]).is_ok());
        assert!(redis.run_as("app", &second, &["CONFIG", "GET", "port"]).is_err());
        redis.restart().unwrap();
        assert!(works(&redis, &second) && works(&redis, &first), "ACL SAVE");
    }
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_and_awscurrent_always_works() {
    let redis = Arc::new(Redis::with(true, &[ACLFILE]).unwrap());
    let mut crashes = 0;
    for step in STEPS {
        for point in 0.. {
            add_user(&redis);
            let world = world_with_admin(&secret(&redis), &admin(&redis));
            for earlier in STEPS.iter().take_while(|it| **it != step) {
                world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, world.step(step)).await.is_none();
            assert!(works(&redis, &password(&world, "AWSCURRENT")), "{step}, {point}");
            world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
            for label in ["AWSCURRENT", "AWSPREVIOUS"] {
                assert!(works(&redis, &password(&world, label)), "{step}, {point}: {label}");
            }
            if !stopped {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes}");
}

#[tokio::test]
async fn a_user_who_may_sets_its_own_password() {
    let redis = Redis::start(false).unwrap();
    let own = with(&admin(&redis), json!({"engine": "valkey"}));
    let world = world(&own);
    let notes = world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes[0].contains("without an `aclfile`"), "{notes:?}");
    let first = password(&world, "AWSCURRENT");
    for working in [&first, PASSWORD] {
        assert!(redis.run_as("default", working, &["PING"]).is_ok());
    }
    // After a crash the pending password may be the only one.
    world.service.begin_rotation(SECRET, THIRD).unwrap();
    world.step_for("createSecret", THIRD).await.unwrap();
    let pending = password(&world, "AWSPENDING");
    redis.run_as("default", &first, &["ACL", "SETUSER", "default", "resetpass", &format!(">{pending}")]).unwrap();
    world.rotate(THIRD).await.unwrap();
    assert!(redis.run_as("default", &pending, &["PING"]).is_ok());
    assert!(redis.run_as("default", &first, &["PING"]).is_err(), "what somebody took away stays away");

    // The usual user may not.
    let (redis, _) = server(false, &[]);
    let world = self::world(&with(&secret(&redis), json!({"masterarn": null})));
    let error = failure(&world, "setSecret").await;
    assert_error(&error, Class::Config, Code::Privilege, "does not allow ROLE");
}

#[tokio::test]
async fn every_replica_and_every_node_of_a_cluster_is_told() {
    let replicated = {
        let master = Redis::with(true, &[ACLFILE]).unwrap();
        let of = format!("replicaof 127.0.0.1 {}", master.port());
        let auth = format!("masterauth {PASSWORD}");
        let lines = [ACLFILE, "tls-replication yes", &of, &auth, "replica-announce-ip localhost"];
        let replica = master.beside(&lines).unwrap();
        let known = replica.port().to_string();
        master.wait_for(&["ROLE"], |answer| answer.contains(&known)).unwrap();
        vec![master, replica]
    };
    let cluster = {
        let lines = [ACLFILE, "cluster-enabled yes", "cluster-announce-hostname localhost"];
        let first = Redis::with(false, &lines).unwrap();
        let nodes = vec![Redis::with(false, &lines).unwrap(), Redis::with(false, &lines).unwrap()];
        for node in &nodes {
            first.run(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()]).unwrap();
        }
        let known = |answer: &str| {
            let known = |node: &Redis| answer.contains(&format!("{}@", node.port()));
            nodes.iter().all(known) && !answer.contains("handshake")
        };
        first.wait_for(&["CLUSTER", "NODES"], known).unwrap();
        let mut all = vec![first];
        all.extend(nodes);
        all
    };
    for nodes in [replicated, cluster] {
        nodes.iter().for_each(add_user);
        let world = world_with_admin(&secret(&nodes[0]), &admin(&nodes[0]));
        world.rotate(TOKEN).await.unwrap();
        for (index, node) in nodes.iter().enumerate() {
            for working in [&password(&world, "AWSCURRENT"), OLD] {
                let answer = node.run_as("app", working, &["PING"]);
                assert!(answer.is_ok(), "{index}: {answer:?}");
            }
        }
        // A node that lacks the user would not let its clients in.
        nodes[1].run(&["ACL", "DELUSER", "app"]).unwrap();
        world.service.begin_rotation(SECRET, THIRD).unwrap();
        world.step_for("createSecret", THIRD).await.unwrap();
        let error = world.step_for("setSecret", THIRD).await.unwrap_err();
        assert_error(&error, Class::Config, Code::Pair, &format!("localhost:{} has no user \"app\"", nodes[1].port()));
        add_user(&nodes[1]);
        world.rotate(THIRD).await.unwrap();
        assert!(works(&nodes[1], &password(&world, "AWSCURRENT")));
    }
}

#[tokio::test]
async fn what_cannot_be_rotated_is_told_apart() {
    let (redis, _) = server(true, &[]);
    let (secret, admin) = (secret(&redis), admin(&redis));
    let other = free_port().unwrap();
    let config = Class::Config;
    let transient = Class::Transient(Effect::None);
    for (changes, of_admin, class, code, named) in [
        (
            json!({}),
            json!({"password": "wrong"}),
            Class::Rejected(Which::Admin),
            Code::WrongPassword,
            "the administrator: ",
        ),
        (json!({}), json!({"port": other}), config, Code::Admin, "the administrator's secret is for localhost"),
        (json!({}), json!({"host": "127.0.0.2"}), config, Code::Admin, "the administrator's secret is for 127.0.0.2"),
        (json!({}), json!({"sslmode": "prefer"}), config, Code::Field, "the administrator's secret: "),
        (json!({"port": other}), json!({"port": other}), transient, Code::Refused, "nothing listens"),
        (json!({}), json!({"sslrootcert": null}), transient, Code::TlsTrust, "not signed by a trusted authority"),
        (json!({"username": "nobody"}), json!({}), config, Code::Pair, "has no user \"nobody\""),
    ] {
        let world = world_with_admin(&with(&secret, changes), &with(&admin, of_admin));
        let error = failure(&world, "setSecret").await;
        assert_error(&error, class, code, named);
    }
    for (state, named) in [("nopass", "with any password"), ("off", "is switched off")] {
        redis.run(&["ACL", "SETUSER", "app", state]).unwrap();
        let world = world_with_admin(&secret, &admin);
        assert_error(&failure(&world, "setSecret").await, config, Code::NotPermitted, named);
        add_user(&redis);
    }
    let mut world = world_with_admin(&secret, &admin);
    world.settings.admin_secrets = vec!["another".to_owned()];
    assert_error(&failure(&world, "setSecret").await, config, Code::Admin, "is not allowed");
    // Somebody sets other passwords between setSecret and testSecret.
    let world = world_with_admin(&secret, &admin);
    world.step("createSecret").await.unwrap();
    world.step("setSecret").await.unwrap();
    redis.run(&["ACL", "SETUSER", "app", "resetpass", ">another"]).unwrap();
    let error = failure(&world, "testSecret").await;
    assert_error(&error, Class::Rejected(Which::Pending), Code::WrongPassword, "refuses user \"app\"");

    let replica = Redis::with(false, &[&format!("replicaof 127.0.0.1 {other}")]).unwrap();
    let of_replica = |of: Value| with(&of, json!({"port": replica.port(), "sslmode": "disable"}));
    let world = world_with_admin(&of_replica(secret.clone()), &of_replica(admin.clone()));
    assert_error(&failure(&world, "setSecret").await, config, Code::ReadOnly, "is a replica of 127.0.0.1");
}
