//! What MySQL and MariaDB have in common, against a real server of either.

#![allow(dead_code, unreachable_pub, reason = "each server has its own list of cases")]

use keywheel::error::{Class, Code, Effect, Error, Which};
use keywheel::services::Endpoint;
use keywheel_dev::mysql::{Flavour, Options, ROOT_PASSWORD, Server};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::sql::*;
use crate::support::*;

pub const TRANSIENT: Class = Class::Transient(Effect::None);

/// A server of one flavour, and what a secret for it says.
pub struct Under {
    pub server: Server,
    pub secret: Value,
    pub admin: Value,
}

impl Under {
    /// Starts a server with the login `app` and nothing else.
    pub async fn start(engine: &str, options: Options) -> Self {
        let flavour = if engine == "mysql" { Flavour::MySql } else { Flavour::MariaDb };
        let options = Options { flavour, ..options };
        let server = Server::start(&options).unwrap();
        server.execute(&format!("CREATE USER app IDENTIFIED BY '{OLD}'")).await.unwrap();
        let mut secret = json!({"engine": engine, "host": "localhost", "port": server.port(), "username": "app",
            "password": OLD});
        let mut admin = json!({"engine": engine, "host": "localhost", "port": server.port(), "username": "root",
            "password": ROOT_PASSWORD});
        for secret in [&mut secret, &mut admin] {
            if options.tls {
                secret["sslrootcert"] = json!(server.root());
            } else {
                secret["ssl"] = json!(false);
            }
        }
        Self { server, secret, admin }
    }

    pub async fn plain(engine: &str) -> Self {
        Self::start(engine, Options::default()).await
    }

    /// A secret with an administrator.
    pub fn paired(&self) -> Value {
        with(&self.secret, json!({"masterarn": ADMIN}))
    }

    pub fn pair(&self) -> World {
        world_with_admin(&self.paired(), &self.admin)
    }

    pub async fn sign_in(&self, login: &(String, String)) -> Result<Conn, mysql_async::Error> {
        self.server.connect(&login.0, &login.1).await
    }

    pub async fn works(&self, login: &(String, String)) -> bool {
        self.sign_in(login).await.is_ok()
    }

    pub async fn all_work(&self, world: &World, labels: &[&str], when: &str) {
        for label in labels {
            assert!(self.works(&login(world, label)).await, "{when}: {label} is refused");
        }
    }

    pub fn log(&self) -> String {
        self.server.log().unwrap()
    }

    pub fn refused_sign_ins(&self) -> usize {
        self.log().matches("Access denied for user").count()
    }
}

const BOTH: [&str; 2] = ["AWSCURRENT", "AWSPREVIOUS"];

pub async fn single_user_rotates_in_eleven_calls_without_a_refused_sign_in(under: Under) {
    let world = world(&with(&under.secret, json!({"note": ["kept", 1.50], "strategy": "single-user"})));
    let mut total = 0;
    for step in STEPS {
        world.step(step).await.unwrap();
        total += world.store.calls().len();
    }
    assert_eq!(total, 11);
    assert_eq!(under.refused_sign_ins(), 0, "{}", under.log());
    under.all_work(&world, &["AWSCURRENT"], "after a rotation").await;
    assert!(!under.works(&login(&world, "AWSPREVIOUS")).await);
    assert!(!under.log().contains(&login(&world, "AWSCURRENT").1), "the log has the password");
    let value: Value = serde_json::from_str(&world.value("AWSCURRENT").unwrap()).unwrap();
    assert_eq!(value["note"], json!(["kept", 1.50]));
}

pub async fn any_name_and_password_works(under: Under) {
    let mut runner = TestRunner::deterministic();
    let names = proptest::string::string_regex("[ -~äß%'\"`\\\\]{1,32}").unwrap();
    let mut sample = || names.new_tree(&mut runner).unwrap().current();
    let mut all: Vec<String> =
        ["50%s", "o'brien", "say \"hi\"", "`", "back\\slash", "\\' OR 1", "Großer Name"].map(str::to_owned).to_vec();
    all.extend((0..12).map(|_| sample()));
    all.push("x".repeat(32));
    all.push("y".repeat(26));
    for name in all.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        let literal = name.replace('\\', "\\\\").replace('\'', "''");
        under.server.execute(&format!("CREATE USER '{literal}' IDENTIFIED BY '{OLD}'")).await.unwrap();
        let secret = with(&under.secret, json!({"username": name}));
        let paired = with(&under.paired(), json!({"username": name}));
        let mut worlds = vec![world(&secret)];
        if name.chars().count() <= 26 && !name.ends_with("_clone") {
            worlds.insert(0, world_with_admin(&paired, &under.admin));
        }
        for mut world in worlds {
            world.settings.passwords = keywheel::password::Environment::read(|variable| match variable {
                "EXCLUDE_CHARACTERS" => Some(String::new()),
                "PASSWORD_LENGTH" => Some("100".to_owned()),
                _ => None,
            });
            world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            under.all_work(&world, &["AWSCURRENT"], name).await;
        }
    }
}

pub async fn tls_is_verified_as_the_secret_says(engine: &str) {
    let under = Under::start(engine, Options { tls: true, ..Options::default() }).await;
    under.server.execute("ALTER USER app REQUIRE SSL").await.unwrap();
    let mut untrusted = under.secret.clone();
    untrusted.as_object_mut().unwrap().remove("sslrootcert");
    for (secret, expected) in [
        (under.secret.clone(), None),
        (with(&under.secret, json!({"ssl": "TRUE"})), None),
        (with(&under.secret, json!({"host": "127.0.0.1"})), None),
        (with(&under.secret, json!({"sslmode": "verify-ca"})), None),
        (with(&untrusted, json!({"sslmode": "require"})), None),
        (untrusted.clone(), Some((Code::TlsTrust, "is not signed by a trusted authority"))),
        (with(&untrusted, json!({"sslmode": "verify-ca"})), Some((Code::TlsTrust, "not signed by a trusted"))),
    ] {
        let world = world(&secret);
        world.step("createSecret").await.unwrap();
        match expected {
            None => assert_eq!(world.step("testSecret").await.unwrap_err().code(), Code::WrongPassword),
            Some((code, text)) => assert_error(&failure(&world, "setSecret").await, TRANSIENT, code, text),
        }
    }
    let first = world(&under.secret);
    first.rotate(TOKEN).await.unwrap();

    let (certificate, key) = under.server.authority().unwrap().client("app").unwrap();
    let current = login(&first, "AWSCURRENT").1;
    under.server.execute("ALTER USER app REQUIRE X509").await.unwrap();
    let secret = with(&under.secret, json!({"password": current}));
    let error = failure(&world(&secret), "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Current), Code::WrongPassword, "\"app\"");
    let error = failure(&world(&with(&secret, json!({"sslcert": certificate}))), "createSecret").await;
    assert_error(&error, Class::Config, Code::Field, "\"sslcert\" and \"sslkey\"");
    let with_certificate = with(&secret, json!({"sslcert": certificate, "sslkey": key}));
    world(&with_certificate).rotate(TOKEN).await.unwrap();

    for name in ["db.example.com", "*.example.com"] {
        let names = vec![name.to_owned()];
        let other = Under::start(engine, Options { tls: true, names, ..Options::default() }).await;
        let error = failure(&world(&other.secret), "setSecret").await;
        assert_error(&error, TRANSIENT, Code::TlsName, "is not valid for that name");
        world(&with(&other.secret, json!({"sslmode": "verify-ca"}))).rotate(TOKEN).await.unwrap();
    }
    let expired = Under::start(engine, Options { tls: true, expired: true, ..Options::default() }).await;
    let error = failure(&world(&expired.secret), "setSecret").await;
    assert_error(&error, TRANSIENT, Code::TlsExpired, "has expired or is not yet valid");
}

pub async fn a_server_without_tls_never_sees_a_password_unless_the_secret_allows_it(under: Under) {
    for value in [json!(null), json!("maybe"), json!(true)] {
        let error = failure(&world(&with(&under.secret, json!({"ssl": value}))), "setSecret").await;
        assert_error(&error, TRANSIENT, Code::TlsOff, "offers no TLS");
    }
    assert!(!under.log().contains("app@"), "it signed in all the same: {}", under.log());
    world(&with(&under.secret, json!({"ssl": "False"}))).rotate(TOKEN).await.unwrap();
}

pub async fn failures_are_told_apart_by_number(under: Under) {
    let rejected = Class::Rejected(Which::Current);
    for (setup, changes, class, code, named) in [
        ("", json!({"password": "wrong"}), rejected, Code::WrongPassword, "no known password works"),
        (
            "GRANT SELECT ON missing.* TO app",
            json!({"dbname": "missing"}),
            Class::Config,
            Code::Database,
            "no database \"missing\"",
        ),
        ("", json!({"dbname": "mysql"}), rejected, Code::NotPermitted, "use the database \"mysql\""),
        ("ALTER USER app ACCOUNT LOCK", json!({}), rejected, Code::NotPermitted, "does not let user \"app\" in"),
        (
            "ALTER USER app ACCOUNT UNLOCK; SET GLOBAL read_only = 1",
            json!({}),
            Class::Config,
            Code::ReadOnly,
            "read-only",
        ),
        (
            "SET GLOBAL read_only = 0; ALTER USER app WITH MAX_USER_CONNECTIONS 1",
            json!({}),
            TRANSIENT,
            Code::TooManyConnections,
            "no free connection for user \"app\"",
        ),
        (
            "ALTER USER app WITH MAX_USER_CONNECTIONS 0",
            json!({"host": "nowhere.invalid"}),
            TRANSIENT,
            Code::Dns,
            "`nowhere.invalid` does not resolve",
        ),
        ("", json!({"port": 1}), TRANSIENT, Code::Refused, "nothing listens at localhost:1"),
    ] {
        if !setup.is_empty() {
            under.server.execute(setup).await.unwrap();
        }
        let held = if code == Code::TooManyConnections { under.server.connect("app", OLD).await.ok() } else { None };
        let error = failure(&world(&with(&under.secret, changes)), "setSecret").await;
        assert_error(&error, class, code, named);
        drop(held);
    }
    // MySQL invents a plugin for a user that does not exist, so as not to tell.
    let error = failure(&world(&with(&under.secret, json!({"username": "nobody"}))), "setSecret").await;
    assert!(matches!(error.code(), Code::WrongPassword | Code::NotPermitted) && error.is_rejected(), "{error}");
    assert!(error.to_string().contains("\"nobody\""), "{error}");
    world(&under.secret).rotate(TOKEN).await.unwrap();
}

pub async fn the_probe_asks_for_what_the_application_needs(under: Under) {
    under.server.execute("CREATE DATABASE d; CREATE TABLE d.t (id INT); GRANT SELECT ON d.t TO app").await.unwrap();
    under.server.execute("CREATE TABLE d.written (id INT); GRANT INSERT ON d.written TO app").await.unwrap();
    for (probe, expected) in [
        ("SELECT * FROM d.t", Ok(())),
        ("INSERT INTO d.t VALUES (1)", Err((Class::Rejected(Which::Pending), Code::Privilege))),
        ("SELECT * FROM d.missing", Err((Class::Rejected(Which::Pending), Code::Privilege))),
        ("SELECT missing FROM d.t", Err((Class::Config, Code::Field))),
        ("INSERT INTO d.written VALUES (1)", Err((Class::Config, Code::Field))),
        ("SELEC", Err((Class::Config, Code::Field))),
    ] {
        under.server.execute(&format!("ALTER USER app IDENTIFIED BY '{OLD}'")).await.unwrap();
        let world = world(&with(&under.secret, json!({"probe": probe})));
        match (world.rotate(TOKEN).await, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err((class, code))) => assert_error(&error, class, code, "\"probe\""),
            (other, _) => panic!("{probe}: {other:?}"),
        }
    }
}

pub async fn a_crash_at_any_point_of_a_single_user_is_healed(under: Under) {
    let mut number = 0;
    for step in STEPS {
        for point in 0.. {
            number += 1;
            let user = format!("user_{number}");
            under.server.execute(&format!("CREATE USER {user} IDENTIFIED BY '{OLD}'")).await.unwrap();
            let world = world(&with(&under.secret, json!({"username": user})));
            for earlier in STEPS.into_iter().take_while(|it| *it != step) {
                world.step(earlier).await.unwrap();
            }
            let crashed = CrashAt::new(point, world.step(step)).await.is_none();
            world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step} at {point}: {error:?}"));
            under.all_work(&world, &["AWSCURRENT"], &format!("{step} at {point}")).await;
            if !crashed {
                break;
            }
        }
    }
    assert!(number > 30, "{number}");
}

pub async fn a_rotation_that_was_given_up_is_healed_by_the_next(under: Under) {
    let world = world(&under.secret);
    world.step("createSecret").await.unwrap();
    world.step("setSecret").await.unwrap();
    world.service.cancel_rotation(SECRET).unwrap();
    world.service.update_stage(SECRET, "AWSPENDING", None, Some(TOKEN)).unwrap();
    rotate_again(&world, THIRD).await.unwrap();
    under.all_work(&world, &["AWSCURRENT"], "after a cancelled rotation").await;
}

pub async fn both_logins_live_and_take_turns(under: Under) {
    let world = under.pair();
    let mut total = 0;
    for step in STEPS {
        world.step(step).await.unwrap();
        total += world.store.calls().len();
    }
    // And one for the administrator's secret, which is not the rotated one.
    assert_eq!(total, 11);
    assert_eq!(login(&world, "AWSCURRENT").0, "app_clone");
    assert_eq!(login(&world, "AWSPREVIOUS"), ("app".to_owned(), OLD.to_owned()));
    under.all_work(&world, &BOTH, "first").await;
    let mut passwords = vec![login(&world, "AWSCURRENT").1];
    for (token, user) in [(THIRD, "app"), (FOURTH, "app_clone")] {
        rotate_again(&world, token).await.unwrap();
        assert_eq!(login(&world, "AWSCURRENT").0, user);
        passwords.push(login(&world, "AWSCURRENT").1);
        under.all_work(&world, &BOTH, token).await;
    }
    assert_eq!(world.store.calls().len(), 22, "AWSPREVIOUS is read only when the two differ");
    assert_eq!(under.refused_sign_ins(), 0, "{}", under.log());
    for password in &passwords {
        assert!(!under.log().contains(password.as_str()), "the log has a password");
    }
}

/// What an account may do and what limits it, without its name and its password.
async fn shape(under: &Under, user: &str, host: &str) -> Vec<String> {
    let mut shape = Vec::new();
    for sql in [format!("SHOW GRANTS FOR '{user}'@'{host}'"), format!("SHOW CREATE USER '{user}'@'{host}'")] {
        for row in under.server.rows(&sql).await.unwrap() {
            let text = row[0].clone().unwrap_or_default();
            // The hash is the one thing that differs.
            let hash = regex_like(&text);
            shape.push(hash.replace(user, "USER"));
        }
    }
    shape.sort();
    shape
}

/// The text without what is between the quotes of a hash.
fn regex_like(text: &str) -> String {
    let mut text = text.to_owned();
    for start in ["PASSWORD '", "USING '", " AS '"] {
        if let Some(at) = text.find(start) {
            let from = at + start.len();
            let rest = &text[from..];
            // MySQL's hash may hold quotes; what follows it never begins so.
            let end =
                rest.find("' REQUIRE").or_else(|| rest.find("' DEFAULT ROLE")).or_else(|| rest.find('\'')).unwrap_or(0);
            text.replace_range(from..from + end, "…");
        }
    }
    text
}

pub const RIGHTS: &[&str] = &[
    "CREATE DATABASE d",
    "CREATE DATABASE `odd TO name`",
    "CREATE TABLE d.t (id INT, a INT, b INT)",
    "CREATE TABLE d.gone (id INT)",
    "CREATE TABLE `odd TO name`.`it``s` (id INT)",
    "CREATE PROCEDURE d.p() SELECT 1",
    "CREATE FUNCTION d.f() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE ROLE r",
    "CREATE ROLE s",
    "GRANT INSERT ON d.* TO r",
    "GRANT SELECT, UPDATE ON d.* TO app WITH GRANT OPTION",
    "GRANT SELECT (a, b), INSERT (a) ON d.t TO app",
    "GRANT SELECT ON d.gone TO app",
    "GRANT ALL PRIVILEGES ON `odd TO name`.* TO app",
    "GRANT DELETE ON `odd TO name`.`it``s` TO app",
    "GRANT SELECT ON `d\\_x`.* TO app",
    "GRANT EXECUTE ON PROCEDURE d.p TO app",
    "GRANT EXECUTE ON FUNCTION d.f TO app WITH GRANT OPTION",
    "GRANT PROCESS ON *.* TO app",
    "GRANT r TO app",
    "GRANT s TO app WITH ADMIN OPTION",
    "ALTER USER app WITH MAX_USER_CONNECTIONS 7 MAX_QUERIES_PER_HOUR 1000",
    "DROP TABLE d.gone",
];

pub async fn the_clone_can_do_what_the_base_user_can_now_and_later(under: Under, default_role: &str) {
    for sql in RIGHTS.iter().copied().chain([default_role]) {
        under.server.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    // More of the same login, for other machines.
    for host in ["127.0.0.%", "10.1.%"] {
        under.server.execute(&format!("CREATE USER app@'{host}' IDENTIFIED BY '{OLD}'")).await.unwrap();
        under.server.execute(&format!("GRANT SELECT ON d.* TO app@'{host}'")).await.unwrap();
    }
    let world = under.pair();
    world.rotate(TOKEN).await.unwrap();
    let mut model = shape(&under, "app", "%").await;
    model.retain(|row| !row.contains("gone"));
    assert_eq!(shape(&under, "app_clone", "%").await, model);
    for host in ["127.0.0.%", "10.1.%"] {
        assert_eq!(shape(&under, "app_clone", host).await, shape(&under, "app", host).await);
    }

    // Granted and limited while the clone is current: it has it at its next turn.
    under
        .server
        .execute("GRANT DELETE ON d.* TO app; ALTER USER app WITH MAX_USER_CONNECTIONS 0 MAX_QUERIES_PER_HOUR 0")
        .await
        .unwrap();
    under.server.execute("REVOKE PROCESS ON *.* FROM app; REVOKE r FROM app").await.unwrap();
    let before = shape(&under, "app_clone", "%").await;
    rotate_again(&world, THIRD).await.unwrap();
    assert_eq!(shape(&under, "app_clone", "%").await, before, "the user that pods have was changed");
    // What was taken from the base user does not come back to it from its clone.
    assert!(!shape(&under, "app", "%").await.iter().any(|row| row.contains("PROCESS") || row.contains("`r`")));
    rotate_again(&world, FOURTH).await.unwrap();
    let clone = shape(&under, "app_clone", "%").await;
    for row in shape(&under, "app", "%").await.iter().filter(|row| !row.contains("gone") && !row.contains(" ON *.* ")) {
        assert!(clone.contains(row), "{row} is missing in {clone:?}");
    }
    under.all_work(&world, &BOTH, "at the end").await;
}

pub async fn extras_are_reported_and_revoked_on_request(under: Under) {
    for sql in [
        "CREATE DATABASE d",
        "CREATE ROLE r",
        "GRANT SELECT ON d.* TO app",
        "CREATE USER app_clone IDENTIFIED BY 'x'",
        "GRANT SELECT, DELETE ON d.* TO app_clone WITH GRANT OPTION",
        "GRANT r TO app_clone",
        "CREATE DATABASE all_of_it",
        "GRANT SELECT ON all_of_it.* TO app",
        "GRANT ALL PRIVILEGES ON all_of_it.* TO app_clone",
        "CREATE USER app_clone@'10.9.%' IDENTIFIED BY 'x'",
    ] {
        under.server.execute(sql).await.unwrap();
    }
    for (extras, left) in [(json!(null), true), (json!("report"), true), (json!("revoke"), false)] {
        let secret = with(&under.paired(), json!({"extras": extras}));
        let world = world_with_admin(&secret, &under.admin);
        // The secret has held the clone's password before.
        let previous = with(&secret, json!({"username": "app_clone", "password": "x"}));
        world
            .service
            .put(
                SECRET,
                THIRD,
                keywheel::store::memory::Payload::Text(previous.to_string()),
                &["AWSPREVIOUS".to_owned()],
            )
            .unwrap();
        let notes = world.rotate_with_notes(TOKEN).await.unwrap();
        let told = notes
            .iter()
            .any(|note| note.contains("DELETE ON `d`.*") && note.contains("role ") && note.contains("10.9.%"));
        assert_eq!(told, left, "{notes:?}");
        let clone = shape(&under, "app_clone", "%").await.join("\n");
        assert_eq!(
            clone.contains("DELETE") && clone.contains("GRANT OPTION") && clone.contains("`r`"),
            left,
            "{clone}"
        );
        assert!(clone.contains("SELECT ON `d`.*") || clone.contains("SELECT, DELETE ON `d`.*"), "{clone}");
        assert_eq!(clone.contains("ALL PRIVILEGES ON `all_of_it`.*"), left, "{clone}");
        under.server.execute("SET PASSWORD FOR app_clone = 'x'").await.ok();
        under.server.execute("ALTER USER app_clone IDENTIFIED BY 'x'").await.unwrap();
    }
    assert!(under.server.rows("SELECT 1 FROM mysql.user WHERE host = '10.9.%'").await.unwrap().is_empty());
}

pub async fn wrong_administrators_and_users_are_refused(under: Under) {
    let other = Server::start(&Options::default()).unwrap();
    for sql in [
        "CREATE USER other IDENTIFIED BY 'x'",
        "CREATE USER other_clone IDENTIFIED BY 'y'",
        "CREATE USER lonely_clone IDENTIFIED BY 'x'",
        "CREATE USER helper IDENTIFIED BY 'x'",
        "CREATE USER base IDENTIFIED BY 'y'",
        "CREATE USER base_clone IDENTIFIED BY 'x'",
        "GRANT PROCESS ON *.* TO other_clone, base",
        "CREATE USER free IDENTIFIED BY 'x'",
        "CREATE USER free_clone IDENTIFIED BY 'y' WITH MAX_USER_CONNECTIONS 3",
    ] {
        under.server.execute(sql).await.unwrap();
    }
    let config = Class::Config;
    for (user, as_admin, class, code, named) in [
        (
            json!({}),
            json!({"password": "wrong"}),
            Class::Rejected(Which::Admin),
            Code::WrongPassword,
            "the administrator: ",
        ),
        (json!({}), json!({"port": other.port()}), config, Code::Admin, "the administrator's secret is for localhost:"),
        (json!({}), json!({"host": "127.0.0.2"}), config, Code::Admin, "the administrator's secret is for 127.0.0.2:"),
        (json!({}), json!({"username": "helper", "password": "x"}), config, Code::Pair, "may not make \"app_clone\""),
        (json!({"password": "wrong"}), json!({}), Class::Rejected(Which::Current), Code::WrongPassword, "\"app\""),
        (
            json!({"username": "other", "password": "x"}),
            json!({}),
            config,
            Code::Pair,
            "not known to be the other user",
        ),
        (
            json!({"username": "base_clone", "password": "x"}),
            json!({}),
            config,
            Code::Pair,
            "not known to be the other user",
        ),
        (json!({"username": "free", "password": "x"}), json!({}), config, Code::Pair, "not known to be the other user"),
        (json!({"username": "lonely_clone", "password": "x"}), json!({}), config, Code::Pair, "has no user \"lonely\""),
    ] {
        let secret = with(&under.paired(), user);
        let world = world_with_admin(&secret, &with(&under.admin, as_admin));
        // What opens another server is never tried on this one.
        let elsewhere = json!({"host": "127.0.0.1", "username": "other_clone", "password": "y"});
        let label = "AWSPREVIOUS".to_owned();
        let previous = keywheel::store::memory::Payload::Text(with(&secret, elsewhere).to_string());
        world.service.put(SECRET, THIRD, previous, &[label]).unwrap();
        assert_error(&failure(&world, "setSecret").await, class, code, named);
    }
    for (user, password) in
        [("other_clone", "y"), ("free_clone", "y"), ("app", OLD), ("lonely_clone", "x"), ("base", "y")]
    {
        assert!(under.server.connect(user, password).await.is_ok(), "{user} was changed");
    }
    // Before anything is staged.
    let world = world_with_admin(&with(&under.paired(), json!({"username": "x".repeat(90)})), &under.admin);
    let error = failure(&world, "createSecret").await;
    assert_error(&error, config, Code::Field, "field \"username\" is too long");
}

pub async fn what_a_certificate_must_say_is_copied_to_the_letter(under: Under) {
    let texts = ["/CN=O''Brien", "x\\\\''; CREATE DATABASE evil; -- ", "'' WITH MAX_USER_CONNECTIONS 3 ACCOUNT LOCK"];
    let hosts = ["10.1.%", "10.2.%", "10.3.%"];
    for (host, text) in hosts.into_iter().zip(texts) {
        let demand = format!("REQUIRE SUBJECT '{text}' AND ISSUER '{text}' WITH MAX_USER_CONNECTIONS 7");
        under.server.execute(&format!("CREATE USER app@'{host}' IDENTIFIED BY '{OLD}' {demand}")).await.unwrap();
    }
    let world = under.pair();
    for token in [TOKEN, THIRD, FOURTH] {
        let _ = world.service.begin_rotation(SECRET, token);
        world.rotate(token).await.unwrap();
    }
    for host in hosts {
        assert_eq!(shape(&under, "app_clone", host).await, shape(&under, "app", host).await);
    }
    assert!(under.server.rows("SHOW DATABASES LIKE 'evil'").await.unwrap().is_empty());
}

pub async fn the_administrators_server_is_asked_who_one_is(under: Under) {
    // Whoever writes a secret may have a server that takes any password, and lead the secret's host there.
    let theirs = Server::start(&Options::default()).unwrap();
    theirs.execute("CREATE USER victim IDENTIFIED BY 'x'; CREATE USER victim_clone IDENTIFIED BY 'x'").await.unwrap();
    for (ours, with_clone) in [("y", false), ("x", true)] {
        let sql = format!("DROP USER IF EXISTS victim; CREATE USER victim IDENTIFIED BY '{ours}'");
        under.server.execute(&sql).await.unwrap();
        if with_clone {
            let sql = "CREATE USER victim_clone IDENTIFIED BY 'y'; GRANT PROCESS ON *.* TO victim_clone";
            under.server.execute(sql).await.unwrap();
        }
        let at = json!({"host": "127.0.0.1", "port": theirs.port(), "username": "victim", "password": "x"});
        let secret = with(&under.paired(), at);
        let world = world_with_admin(&secret, &under.admin);
        *world.services.replica.lock().unwrap() = Some(("127.0.0.1".to_owned(), "localhost".to_owned()));
        let previous = with(&secret, json!({"username": "victim_clone"})).to_string();
        let label = "AWSPREVIOUS".to_owned();
        world.service.put(SECRET, THIRD, keywheel::store::memory::Payload::Text(previous), &[label]).unwrap();
        let error = failure(&world, "setSecret").await;
        let code = if with_clone { Code::Pair } else { Code::WrongPassword };
        assert_eq!(error.code(), code, "{error}");
    }
    assert!(under.works(&("victim_clone".to_owned(), "y".to_owned())).await);
}

pub async fn an_administrator_need_not_be_root_and_cannot_give_what_it_has_not(under: Under) {
    for sql in [
        "CREATE DATABASE d",
        "CREATE USER maker IDENTIFIED BY 'm'",
        "GRANT CREATE USER ON *.* TO maker",
        "GRANT SELECT ON mysql.* TO maker",
        "GRANT SELECT ON d.* TO app",
    ] {
        under.server.execute(sql).await.unwrap();
    }
    let admin = with(&under.admin, json!({"username": "maker", "password": "m"}));
    let world = world_with_admin(&under.paired(), &admin);
    let error = failure(&world, "setSecret").await;
    assert_error(&error, Class::Config, Code::Pair, "what \"app\" has: SELECT ON `d`.*");
    assert!(under.works(&("app".to_owned(), OLD.to_owned())).await);
    under.server.execute("GRANT SELECT ON d.* TO maker WITH GRANT OPTION").await.unwrap();
    world.rotate(TOKEN).await.unwrap();
    rotate_again(&world, THIRD).await.unwrap();
    under.all_work(&world, &BOTH, "by an administrator with few rights").await;
    // The password comes last: a clone that cannot be completed goes on with the one that it has.
    under.server.execute("GRANT PROCESS ON *.* TO app").await.unwrap();
    assert_eq!(rotate_again(&world, FOURTH).await.unwrap_err().code(), Code::Pair);
    under.all_work(&world, &BOTH, "after a turn that failed").await;
}

pub async fn an_administrator_whom_rds_manages(under: Under) {
    let managed = json!({"username": "root", "password": ROOT_PASSWORD});
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), under.server.root()).unwrap();
    let mut world = world_with_admin(&under.paired(), &managed);
    world.settings.trust = keywheel::tls::Trust::with_file(file.path().to_owned());
    let arn = "arn:aws:rds:us-east-1:123456789012:db:one";
    let tag = "aws:rds:primaryDBInstanceArn".to_owned();
    world.service.edit(ADMIN, |record| record.tags.insert(tag, arn.to_owned())).unwrap();
    let endpoint = Endpoint { host: "localhost".to_owned(), port: under.server.port(), engine: "mariadb".to_owned() };
    *world.services.database.lock().unwrap() = Some((arn.to_owned(), endpoint));
    world.rotate(TOKEN).await.unwrap();
    under.all_work(&world, &BOTH, "managed").await;
}

pub async fn a_crash_at_any_point_of_a_pair_is_healed_with_all_rights(under: Under) {
    under.server.execute("CREATE DATABASE d; CREATE TABLE d.t (id INT)").await.unwrap();
    let hosts = ["10.1.%", "127.0.0.%"];
    let mut number = 0;
    for back in [false, true] {
        for step in STEPS {
            for point in 0.. {
                number += 1;
                let user = format!("user_{number}");
                // The first of its accounts is not the one that lets the function in.
                for host in hosts {
                    under
                        .server
                        .execute(&format!(
                            "CREATE USER {user}@'{host}' IDENTIFIED BY '{OLD}'; GRANT SELECT, INSERT ON d.* TO {user}@'{host}';
                             GRANT PROCESS ON *.* TO {user}@'{host}'"
                        ))
                        .await
                        .unwrap();
                }
                let world = world_with_admin(&with(&under.paired(), json!({"username": user})), &under.admin);
                let mut token = TOKEN;
                if back {
                    world.rotate(TOKEN).await.unwrap();
                    token = THIRD;
                    world.service.begin_rotation(SECRET, token).unwrap();
                }
                for earlier in STEPS.into_iter().take_while(|it| *it != step) {
                    world.step_for(earlier, token).await.unwrap();
                }
                let crashed = CrashAt::new(point, world.step_for(step, token)).await.is_none();
                let when = format!("{step} at {point}, back: {back}");
                under.all_work(&world, &["AWSCURRENT"], &when).await;
                world.rotate(token).await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
                under.all_work(&world, &BOTH, &when).await;
                let mut connection = under.sign_in(&login(&world, "AWSCURRENT")).await.unwrap();
                connection.query_drop("INSERT INTO d.t VALUES (1)").await.unwrap();
                for host in hosts {
                    let clone = shape(&under, &format!("{user}_clone"), host).await;
                    assert_eq!(shape(&under, &user, host).await, clone, "{when}");
                }
                if !crashed {
                    break;
                }
            }
        }
    }
    assert!(number > 80, "{number}");
}

pub async fn two_secrets_with_one_administrator_rotate_at_once(under: Under) {
    under.server.execute(&format!("CREATE USER second IDENTIFIED BY '{OLD}'")).await.unwrap();
    let left = under.pair();
    let right = world_with_admin(&with(&under.paired(), json!({"username": "second"})), &under.admin);
    let (one, two) = tokio::join!(left.rotate(TOKEN), right.rotate(TOKEN));
    one.unwrap();
    two.unwrap();
    for world in [&left, &right] {
        under.all_work(world, &BOTH, "together").await;
    }
}

pub async fn a_mute_server_does_not_hold_the_step(engine: &str) -> Error {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let secret = json!({"engine": engine, "host": "127.0.0.1", "port": port, "username": "app", "password": OLD});
    let error = failure(&world(&secret), "setSecret").await;
    assert_error(&error, TRANSIENT, Code::Timeout, "no answer from 127.0.0.1");
    assert!(error.to_string().contains(" in 5 s"), "{error}");
    error
}

pub async fn a_pair_is_known_by_an_older_version_after_an_edit_by_hand(under: Under) {
    under.server.execute("CREATE DATABASE d").await.unwrap();
    let world = under.pair();
    world.rotate(TOKEN).await.unwrap();
    // Edited: the same login in a new version, so that AWSPREVIOUS is the same user's. And the two have become unlike.
    let value: Value = serde_json::from_str(&world.value("AWSCURRENT").unwrap()).unwrap();
    let edited = with(&value, json!({"note": "edited"})).to_string();
    let current = "AWSCURRENT".to_owned();
    world.service.update_stage(SECRET, "AWSPENDING", None, Some(TOKEN)).unwrap();
    world.service.put(SECRET, THIRD, keywheel::store::memory::Payload::Text(edited), &[current]).unwrap();
    under.server.execute("GRANT SELECT ON d.* TO app").await.unwrap();
    rotate_again(&world, FOURTH).await.unwrap();
    assert_eq!(login(&world, "AWSCURRENT").0, "app");
    under.all_work(&world, &BOTH, "after an edit").await;
}

/// One test for each case, each with a server of its own.
#[macro_export]
macro_rules! cases {
    ($start:expr; $($name:ident)*) => {
        $(#[tokio::test] async fn $name() { family::$name($start.await).await; })*
    };
}
