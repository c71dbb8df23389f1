//! The kind `postgres` against real PostgreSQL servers of its own, with TLS on and off.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    reason = "a test stops at the first surprise"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keywheel::error::{Class, Code, Effect, Which};
use keywheel::rotate::Outcome;
use keywheel::store::memory::Payload;
use keywheel_dev::postgres::{Options, SUPERUSER_PASSWORD, Server, free_port};
use serde_json::{Value, json};
use support::sql::*;
use support::*;

/// A server with the login `app`, and its secret.
async fn server(options: Options) -> (Server, Value) {
    let server = Server::start(&options).unwrap();
    server.execute(&format!("CREATE ROLE app LOGIN PASSWORD '{OLD}'")).await.unwrap();
    let mut secret = json!({
        "engine": "postgres", "host": "localhost", "port": server.port(), "username": "app", "password": OLD,
    });
    if options.tls {
        secret["sslrootcert"] = json!(server.root());
    } else {
        secret["ssl"] = json!(false);
    }
    (server, secret)
}

async fn plain() -> (Server, Value) {
    server(Options::default()).await
}

async fn assert_current_works(world: &World, server: &Server) {
    let value: Value = serde_json::from_str(&world.value("AWSCURRENT").unwrap()).unwrap();
    let (user, password) = (value["username"].as_str().unwrap(), value["password"].as_str().unwrap());
    assert!(server.connect(user, password).await.is_ok(), "AWSCURRENT does not sign in");
}

const TRANSIENT: Class = Class::Transient(Effect::None);

#[tokio::test]
async fn rotates_and_keeps_the_password_from_the_servers_log() {
    let settings = vec!["log_statement = all".to_owned(), "log_min_duration_statement = 0".to_owned()];
    let (server, secret) = server(Options { settings, ..Options::default() }).await;
    let world = world(&with(&secret, json!({"note": ["kept", 1.50]})));
    world.rotate(TOKEN).await.unwrap();
    assert_current_works(&world, &server).await;
    assert!(server.connect("app", OLD).await.is_err(), "the old password still signs in");
    let new = world.field("AWSCURRENT", "password").unwrap();
    let expected = with(&secret, json!({"note": ["kept", 1.50], "password": new.clone()}));
    assert_eq!(serde_json::from_str::<Value>(&world.value("AWSCURRENT").unwrap()).unwrap(), expected);
    let log = server.log().unwrap();
    assert!(log.contains("ALTER ROLE \"app\" PASSWORD 'SCRAM-SHA-256$4096:"), "{log}");
    assert!(!log.contains(&new), "the server's log has the password");
}

#[tokio::test]
async fn the_usual_rotation_has_no_refused_sign_in_and_eleven_calls() {
    let (server, secret) = plain().await;
    let world = world(&secret);
    let mut total = 0;
    for step in STEPS {
        world.step(step).await.unwrap();
        let calls = world.store.calls();
        println!("{step}: {} calls", calls.len());
        total += calls.len();
    }
    assert_eq!(total, 11);
    assert!(!server.log().unwrap().contains("password authentication failed"));
}

#[tokio::test]
async fn tls_is_verified_as_the_secret_says() {
    let (server, secret) = server(Options { tls: true, ..Options::default() }).await;
    let mut untrusted = secret.clone();
    untrusted.as_object_mut().unwrap().remove("sslrootcert");
    for (secret, expected) in [
        (secret.clone(), Ok(())),
        (with(&secret, json!({"host": "127.0.0.1", "ssl": true})), Ok(())),
        (untrusted.clone(), Err((Code::TlsTrust, "is not signed by a trusted authority"))),
        (with(&untrusted, json!({"sslmode": "verify-ca"})), Err((Code::TlsTrust, "not signed by a trusted"))),
        (with(&untrusted, json!({"sslmode": "require"})), Ok(())),
    ] {
        let world = world(&secret);
        world.step("createSecret").await.unwrap();
        match expected {
            Ok(()) => assert_eq!(world.step("testSecret").await.unwrap_err().code(), Code::WrongPassword),
            Err((code, text)) => assert_error(&failure(&world, "setSecret").await, TRANSIENT, code, text),
        }
    }
    drop(server);
}

#[tokio::test]
async fn the_certificates_name_and_date_are_looked_at() {
    let names = vec!["db.example.com".to_owned()];
    let (other_name, secret) = server(Options { tls: true, names, ..Options::default() }).await;
    let error = failure(&world_created(&secret).await, "setSecret").await;
    assert_error(&error, TRANSIENT, Code::TlsName, "is not valid for that name");
    let world = world(&with(&secret, json!({"sslmode": "verify-ca"})));
    world.rotate(TOKEN).await.unwrap();
    assert_current_works(&world, &other_name).await;

    let (_expired, secret) = server(Options { tls: true, expired: true, ..Options::default() }).await;
    let error = failure(&world_created(&secret).await, "setSecret").await;
    assert_error(&error, TRANSIENT, Code::TlsExpired, "has expired or is not yet valid");
}

async fn world_created(secret: &Value) -> World {
    let world = world(secret);
    world.step("createSecret").await.unwrap();
    world
}

#[tokio::test]
async fn a_whole_rotation_over_tls() {
    let settings = vec!["log_connections = on".to_owned()];
    let (server, secret) = server(Options { tls: true, settings, ..Options::default() }).await;
    // Trusted by the function's file instead of the secret's field.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server.root()).unwrap();
    let mut secret = secret;
    secret.as_object_mut().unwrap().remove("sslrootcert");
    let mut world = world(&secret);
    world.settings.trust = keywheel::tls::Trust::with_file(file.path().to_owned());
    world.rotate(TOKEN).await.unwrap();
    assert_current_works(&world, &server).await;
    let log = server.log().unwrap();
    assert!(
        log.contains("connection authorized: user=app database=postgres application_name=keywheel SSL enabled"),
        "{log}"
    );
}

#[tokio::test]
async fn a_server_without_tls_never_sees_a_password_unless_the_secret_allows_it() {
    let settings = vec!["log_connections = on".to_owned()];
    let (server, mut secret) = server(Options { settings, ..Options::default() }).await;
    secret.as_object_mut().unwrap().remove("ssl");
    for value in [json!(null), json!("maybe"), json!("true")] {
        let world = world_created(&with(&secret, json!({"ssl": value}))).await;
        let error = failure(&world, "setSecret").await;
        assert_error(&error, TRANSIENT, Code::TlsOff, "offers no TLS");
    }
    let log = server.log().unwrap();
    assert!(!log.contains("user=app"), "it signed in all the same: {log}");
    for allowed in [json!({"ssl": "FALSE"}), json!({"sslmode": "disable"})] {
        let world = world_created(&with(&secret, allowed)).await;
        assert_eq!(world.step("testSecret").await.unwrap_err().code(), Code::WrongPassword);
    }
}

#[tokio::test]
async fn md5_fleets_stay_md5() {
    let settings = vec!["password_encryption = md5".to_owned(), "log_statement = all".to_owned()];
    let (server, secret) = server(Options { settings, method: "md5".to_owned(), ..Options::default() }).await;
    let world = world(&secret);
    world.rotate(TOKEN).await.unwrap();
    assert_current_works(&world, &server).await;
    let log = server.log().unwrap();
    assert!(log.contains("ALTER ROLE \"app\" PASSWORD 'md5"), "{log}");
    assert!(!log.contains(&world.field("AWSCURRENT", "password").unwrap()));
}

#[tokio::test]
async fn user_names_of_all_sorts() {
    let (server, secret) = plain().await;
    for name in ["50%s", "o'brien", "say \"hi\"", "Großer Name", "back\\slash", "semi;colon--", &"x".repeat(63)] {
        let quoted = name.replace('"', "\"\"");
        server.execute(&format!("CREATE ROLE \"{quoted}\" LOGIN PASSWORD '{OLD}'")).await.unwrap();
        let world = world(&with(&secret, json!({"username": name})));
        world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_current_works(&world, &server).await;
    }
}

#[tokio::test]
async fn any_password_that_the_environment_allows_works() {
    let (server, secret) = plain().await;
    let mut world = world(&secret);
    world.settings.passwords = keywheel::password::Environment::read(|name| match name {
        "EXCLUDE_CHARACTERS" => Some(String::new()),
        "PASSWORD_LENGTH" => Some("200".to_owned()),
        _ => None,
    });
    world.rotate(TOKEN).await.unwrap();
    assert_current_works(&world, &server).await;
}

#[tokio::test]
async fn a_role_that_acts_as_another_changes_its_own_password() {
    let (server, secret) = plain().await;
    server.execute("CREATE ROLE owner; GRANT owner TO app; ALTER ROLE app SET role = 'owner'").await.unwrap();
    let world = world(&secret);
    world.rotate(TOKEN).await.unwrap();
    assert_current_works(&world, &server).await;
}

#[tokio::test]
async fn heals_by_awsprevious() {
    // Somebody put a value by hand that the server does not know: AWSPREVIOUS still works.
    let (server, secret) = plain().await;
    let world = world(&secret);
    let wrong = with(&secret, json!({"password": "never set"}));
    world.service.put(SECRET, THIRD, Payload::Text(wrong.to_string()), &["AWSCURRENT".to_owned()]).unwrap();
    world.rotate(TOKEN).await.unwrap();
    assert_current_works(&world, &server).await;
}

#[tokio::test]
async fn awsprevious_for_another_target_is_never_sent_there() {
    let (_server, secret) = plain().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let (port, counter) = (elsewhere.local_addr().unwrap().port(), asked.clone());
    std::thread::spawn(move || {
        for _ in elsewhere.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    for other in [json!({"port": port}), json!({"host": "127.0.0.1"}), json!({"username": "postgres"})] {
        let world = world(&with(&secret, other));
        let wrong = with(&secret, json!({"password": "never set"}));
        world.service.put(SECRET, THIRD, Payload::Text(wrong.to_string()), &["AWSCURRENT".to_owned()]).unwrap();
        world.step("createSecret").await.unwrap();
        let error = world.step("setSecret").await.unwrap_err();
        let rejected = Class::Rejected(Which::Current);
        assert_error(
            &error,
            rejected,
            Code::WrongPassword,
            "AWSPREVIOUS (not tried: it is for another host, port or user)",
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn rule_7_a_password_that_an_abandoned_rotation_left_in_force_is_found() {
    // Cancelled after setSecret, and the label taken away: no label holds the password that is in force. Once, or again
    // and again, with versions that never came into force in between.
    for later in 0..3 {
        let (server, secret) = plain().await;
        let world = world(&secret);
        world.step("createSecret").await.unwrap();
        world.step("setSecret").await.unwrap();
        world.service.cancel_rotation(SECRET).unwrap();
        world.service.update_stage(SECRET, "AWSPENDING", None, Some(TOKEN)).unwrap();
        for number in 0..later {
            let token = format!("abandoned-{number}-000000000000000000000");
            world.service.begin_rotation(SECRET, &token).unwrap();
            world.step_for("createSecret", &token).await.unwrap();
            world.service.update_stage(SECRET, "AWSPENDING", None, Some(&token)).unwrap();
        }
        world.service.begin_rotation(SECRET, THIRD).unwrap();
        world.rotate(THIRD).await.unwrap_or_else(|error| panic!("{later}: {error}"));
        assert_current_works(&world, &server).await;
        let refused = server.log().unwrap().matches("password authentication failed").count();
        assert_eq!(refused, 2 + later, "refused sign-ins");
    }
}

#[tokio::test]
async fn when_nothing_works_the_search_is_bounded() {
    let (server, secret) = plain().await;
    let world = world(&with(&secret, json!({"password": "never set"})));
    for number in 0..20 {
        let value = with(&secret, json!({"password": format!("wrong {number}")}));
        let token = format!("unlabelled-{number:02}-00000000000000000000");
        world.service.put(SECRET, &token, Payload::Text(value.to_string()), &["x".to_owned()]).unwrap();
        world.service.update_stage(SECRET, "x", None, Some(&token)).unwrap();
    }
    world.step("createSecret").await.unwrap();
    let error = failure(&world, "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Current), Code::WrongPassword, "no known password works");
    assert!(!error.to_string().contains("wrong "), "{error}");
    assert_eq!(server.log().unwrap().matches("password authentication failed").count(), 6);
}

#[tokio::test]
async fn a_locked_login_is_asked_once() {
    let (server, secret) = plain().await;
    server.execute("ALTER ROLE app NOLOGIN").await.unwrap();
    let error = failure(&world_created(&secret).await, "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Current), Code::NotPermitted, "\"app\"");
    assert_eq!(server.log().unwrap().matches("FATAL:").count(), 1, "refused sign-ins");
}

#[tokio::test]
async fn a_change_that_the_server_refuses_has_changed_nothing() {
    let (server, secret) = plain().await;
    server.execute("ALTER ROLE app SET lock_timeout = '50ms'").await.unwrap();
    let world = world_created(&secret).await;
    // Sign-ins read the table of roles, a new password writes it.
    let lock = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
    lock.batch_execute("BEGIN; LOCK TABLE pg_authid IN EXCLUSIVE MODE").await.unwrap();
    let error = failure(&world, "setSecret").await;
    assert_error(&error, TRANSIENT, Code::Server, "SQLSTATE 55P03; nothing was changed");
    lock.batch_execute("ROLLBACK").await.unwrap();
    world.rotate(TOKEN).await.unwrap();
    assert_current_works(&world, &server).await;
}

#[tokio::test]
async fn failures_are_told_apart_by_code() {
    let (server, secret) = plain().await;
    for sql in [
        "CREATE ROLE locked NOLOGIN PASSWORD 'x'",
        "CREATE ROLE full_up LOGIN CONNECTION LIMIT 0 PASSWORD 'x'",
        "CREATE DATABASE closed",
        "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
        "CREATE ROLE replica LOGIN PASSWORD 'x'",
        "ALTER ROLE replica SET default_transaction_read_only = on",
    ] {
        server.execute(sql).await.unwrap();
    }
    let login = |name: &str| json!({"username": name, "password": "x"});
    let place = format!("localhost:{}", server.port());
    let free = free_port().unwrap();
    let current = Class::Rejected(Which::Current);
    for (changes, class, code, named) in [
        (
            json!({"host": "no-such-host.invalid"}),
            TRANSIENT,
            Code::Dns,
            "`no-such-host.invalid` does not resolve".to_owned(),
        ),
        (json!({"port": free}), TRANSIENT, Code::Refused, format!("nothing listens at localhost:{free}")),
        (json!({"password": "wrong"}), current, Code::WrongPassword, place.clone()),
        (login("nobody"), current, Code::WrongPassword, "\"nobody\"".to_owned()),
        (login("locked"), current, Code::NotPermitted, "\"locked\"".to_owned()),
        (login("full_up"), TRANSIENT, Code::TooManyConnections, "\"full_up\"".to_owned()),
        (login("replica"), Class::Config, Code::ReadOnly, place.clone()),
        (json!({"dbname": "missing"}), Class::Config, Code::Database, "\"missing\"".to_owned()),
        (json!({"dbname": "closed"}), current, Code::NotPermitted, "\"app\"".to_owned()),
    ] {
        let world = world_created(&with(&secret, changes)).await;
        assert_error(&failure(&world, "setSecret").await, class, code, &named);
    }
    // The others fail before anything is staged.
    for (changes, named) in [
        (json!({"host": null}), "field \"host\" is missing"),
        (json!({"host": ""}), "field \"host\" is empty"),
        (json!({"host": 7}), "field \"host\" must be a string"),
        (json!({"username": null}), "field \"username\" is missing"),
        (json!({"password": null}), "field \"password\" is missing"),
        (json!({"port": 70000}), "field \"port\" must be a whole number from 1 to 65535"),
        (json!({"port": "54 32"}), "field \"port\" must be a whole number"),
        (json!({"sslmode": "prefer"}), "field \"sslmode\" is unknown"),
        (json!({"sslmode": "verify-full", "ssl": false}), "contradict each other"),
        (
            json!({"sslmode": "verify-full", "ssl": null, "sslrootcert": "x"}),
            "field \"sslrootcert\" has no certificate",
        ),
        (json!({"privileges": "SELECT"}), "field \"privileges\" must be a list"),
        (json!({"privileges": ["SELECT"]}), "field \"privileges\" must be a list"),
    ] {
        let world = world(&with(&secret, changes));
        assert_error(&failure(&world, "createSecret").await, Class::Config, Code::Field, named);
        assert_eq!(world.value("AWSPENDING"), None);
    }
    assert!(server.connect("app", OLD).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_does_not_hold_the_step() {
    // Paused time jumps to the time-outs as soon as nothing else can happen.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let secret = json!({"engine": "postgres", "host": "127.0.0.1", "port": mute.local_addr().unwrap().port(),
        "username": "app", "password": OLD});
    for mode in ["verify-full", "disable"] {
        let world = world_created(&with(&secret, json!({"sslmode": mode}))).await;
        let started = tokio::time::Instant::now();
        assert_error(&failure(&world, "setSecret").await, TRANSIENT, Code::Timeout, "no answer from 127.0.0.1:");
        assert!(started.elapsed() < std::time::Duration::from_secs(6), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn what_is_no_postgresql_server_is_told_so() {
    for (answer, code) in [("", Code::Unreachable), ("HTTP/1.1 400 Bad Request\r\n\r\n", Code::Tls)] {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let secret = json!({"engine": "postgres", "host": "127.0.0.1", "port": other.local_addr().unwrap().port(),
            "username": "app", "password": OLD});
        std::thread::spawn(move || {
            let mut stream = other.accept().unwrap().0;
            stream.read_exact(&mut [0; 8]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let error = failure(&world_created(&secret).await, "setSecret").await;
        assert_error(&error, TRANSIENT, code, "127.0.0.1:");
    }
}

#[tokio::test]
async fn a_password_policy_is_told_from_a_wrong_password() {
    // passwordcheck sees through a verifier when the password is the user's name.
    let settings = vec!["shared_preload_libraries = 'passwordcheck'".to_owned()];
    let (server, secret) = server(Options { settings, ..Options::default() }).await;
    let world = world(&secret);
    world.stage(&with(&secret, json!({"password": "app"})).to_string());
    let error = failure(&world, "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Pending), Code::PasswordPolicy, "SQLSTATE 22023");
    assert_current_works(&world, &server).await;
}

#[tokio::test]
async fn the_probe_asks_for_what_the_application_needs() {
    let (server, secret) = plain().await;
    server
        .execute("CREATE SCHEMA app; CREATE TABLE app.orders (id int); GRANT USAGE ON SCHEMA app TO app")
        .await
        .unwrap();
    let pending = Class::Rejected(Which::Pending);
    for (changes, expected) in [
        (
            json!({"privileges": ["USAGE ON SCHEMA app", "CONNECT ON DATABASE postgres", "EXECUTE ON FUNCTION pg_catalog.now()"]}),
            None,
        ),
        (
            json!({"privileges": ["SELECT, INSERT ON app.orders"]}),
            Some((pending, Code::Privilege, "lacks SELECT on app.orders")),
        ),
        (json!({"privileges": ["SELECT ON TABLE app.missing"]}), Some((Class::Config, Code::Field, "42P01"))),
        (json!({"probe": "SELECT count(*) FROM app.orders"}), Some((pending, Code::Privilege, "field \"probe\""))),
        (json!({"probe": "SELEKT"}), Some((Class::Config, Code::Field, "42601"))),
        (json!({"probe": "CREATE TEMP TABLE x (y int); SELECT 1"}), Some((Class::Config, Code::Field, "25006"))),
        (json!({"probe": "SELECT 1"}), None),
    ] {
        let world = world(&with(&secret, changes));
        // As when a schedule is saved: testSecret alone, with the current value.
        world.stage(&world.value("AWSCURRENT").unwrap());
        match expected {
            None => assert_eq!(world.step("testSecret").await.unwrap(), Outcome::Done),
            Some((class, code, named)) => assert_error(&failure(&world, "testSecret").await, class, code, named),
        }
    }
}

/// Stops each step at each point where it waits, each time with a login of its own, and lets `recover` go on from there.
async fn stop_everywhere(recover: impl AsyncFn(&World)) {
    let (server, secret) = plain().await;
    let mut number = 0;
    for step in STEPS {
        for point in 0.. {
            number += 1;
            let user = format!("user_{number}");
            server.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD '{OLD}'")).await.unwrap();
            let world = world(&with(&secret, json!({"username": user})));
            for earlier in STEPS.into_iter().take_while(|it| *it != step) {
                world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, world.step(step)).await.is_none();
            println!("{step}, stopped at {point}");
            recover(&world).await;
            assert_current_works(&world, &server).await;
            if !stopped {
                break;
            }
        }
    }
    assert!(number > 30, "{number}");
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_by_the_next_try() {
    stop_everywhere(async |world| {
        // Secrets Manager tries again, from the first step and with the same token.
        world.rotate(TOKEN).await.unwrap();
        assert_eq!(world.labels(), ["AWSCURRENT=second", "AWSPENDING=second", "AWSPREVIOUS=first"]);
    })
    .await;
}

#[tokio::test]
async fn a_rotation_cancelled_at_any_point_is_healed_by_the_next_rotation() {
    stop_everywhere(async |world| {
        world.service.cancel_rotation(SECRET).unwrap();
        world.service.update_stage(SECRET, "AWSPENDING", None, Some(TOKEN)).unwrap();
        world.service.begin_rotation(SECRET, THIRD).unwrap();
        world.rotate(THIRD).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_same_step_twice_at_once_ends_as_one() {
    let (server, secret) = plain().await;
    let world = world(&secret);
    for step in STEPS {
        let (left, right) = tokio::join!(world.step(step), world.step(step));
        left.unwrap();
        right.unwrap();
    }
    assert_current_works(&world, &server).await;
    assert!(server.connect("app", OLD).await.is_err());
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_the_server_wants_one() {
    let (server, secret) = server(Options { tls: true, ..Options::default() }).await;
    let rules = "host all postgres 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n";
    std::fs::write(server.folder().join("data/pg_hba.conf"), rules).unwrap();
    server.execute("SELECT pg_reload_conf()").await.unwrap();
    let (certificate, key) = server.authority().unwrap().client("app").unwrap();
    let (_, other_key) = server.authority().unwrap().client("app").unwrap();
    for (changes, named) in [
        (json!({"sslcert": certificate}), "one of the fields \"sslcert\" and \"sslkey\" is missing"),
        (json!({"sslcert": "text", "sslkey": key}), "field \"sslcert\" has no certificate"),
        (json!({"sslcert": certificate, "sslkey": "text"}), "field \"sslkey\" is not the private key"),
        (json!({"sslcert": certificate, "sslkey": other_key}), "field \"sslkey\" is not the private key"),
    ] {
        let error = failure(&world(&with(&secret, changes)), "createSecret").await;
        assert_error(&error, Class::Config, Code::Field, named);
        assert!(!error.to_string().contains("PRIVATE KEY-----\n"), "{error}");
    }
    let error = failure(&world(&secret), "setSecret").await;
    assert_eq!(error.code(), Code::NotPermitted, "{error}");
    let world = world(&with(&secret, json!({"sslcert": certificate, "sslkey": key})));
    world.rotate(TOKEN).await.unwrap();
}
