//! The kind `postgres` with alternating users, against a real PostgreSQL of its own.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test stops at the first surprise")]

mod support;

use keywheel::error::{Class, Code, Effect, Which};
use keywheel::services::Endpoint;
use keywheel::store::memory::Payload;
use keywheel_dev::postgres::{Options, SUPERUSER_PASSWORD, Server};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use support::sql::*;
use support::*;

/// A server with the login `app`, its secret, and the administrator's.
async fn server(options: Options) -> (Server, Value, Value) {
    let server = Server::start(&options).unwrap();
    server.execute(&format!("CREATE ROLE app LOGIN PASSWORD '{OLD}'")).await.unwrap();
    let secret = json!({"engine": "postgres", "host": "localhost", "port": server.port(), "username": "app",
        "password": OLD, "ssl": false, "masterarn": ADMIN});
    let admin = json!({"engine": "postgres", "host": "localhost", "port": server.port(), "username": "postgres",
        "password": SUPERUSER_PASSWORD, "ssl": false});
    (server, secret, admin)
}

async fn works(server: &Server, login: &(String, String)) -> bool {
    server.connect(&login.0, &login.1).await.is_ok()
}

#[tokio::test]
async fn both_logins_live_and_take_turns() {
    let settings = vec!["log_statement = all".to_owned()];
    let (server, secret, admin) = server(Options { settings, ..Options::default() }).await;
    let world = world_with_admin(&secret, &admin);
    let mut passwords = vec![OLD.to_owned()];
    let mut total = 0;
    for step in STEPS {
        world.step(step).await.unwrap();
        total += world.store.calls().len();
    }
    // And one for the administrator's secret, which is not the rotated one.
    assert_eq!(total, 11);
    assert_eq!(login(&world, "AWSCURRENT").0, "app_clone");
    assert_eq!(login(&world, "AWSPREVIOUS"), ("app".to_owned(), OLD.to_owned()));
    for label in ["AWSCURRENT", "AWSPREVIOUS"] {
        assert!(works(&server, &login(&world, label)).await, "{label}");
    }
    for (token, user) in [(THIRD, "app"), (FOURTH, "app_clone")] {
        passwords.push(login(&world, "AWSCURRENT").1);
        rotate_again(&world, token).await.unwrap();
        assert_eq!(login(&world, "AWSCURRENT").0, user);
        for label in ["AWSCURRENT", "AWSPREVIOUS"] {
            assert!(works(&server, &login(&world, label)).await, "{label} of {token}");
        }
    }
    assert!(server.connect("app", OLD).await.is_err());
    let log = server.log().unwrap();
    assert!(
        log.contains("CREATE ROLE \"app_clone\"")
            && !log.contains("password authentication failed for user \"app_clone")
    );
    for password in &passwords[1..] {
        assert!(!log.contains(password.as_str()), "the server's log has a password");
    }
}

#[tokio::test]
async fn the_clone_can_do_what_the_base_user_can_now_and_later() {
    let (server, secret, admin) = server(Options::default()).await;
    for sql in [
        "CREATE SCHEMA app AUTHORIZATION app",
        "CREATE SCHEMA \"Odd, name\"",
        "CREATE TABLE before (id int)",
        "GRANT SELECT ON before TO app",
        "ALTER ROLE app CREATEDB NOINHERIT CONNECTION LIMIT 7 VALID UNTIL '2099-01-02 03:04:05+00'",
        "ALTER ROLE app SET search_path TO app, \"Odd, name\", public",
        "ALTER ROLE app SET statement_timeout TO '7s'",
        "ALTER ROLE app IN DATABASE postgres SET work_mem TO '5MB'",
    ] {
        server.execute(sql).await.unwrap();
    }
    let world = world_with_admin(&secret, &admin);
    world.rotate(TOKEN).await.unwrap();
    let (user, password) = login(&world, "AWSCURRENT");
    let clone = server.connect(&user, &password).await.unwrap();
    let shown = |name: &'static str| {
        let clone = &clone;
        async move { clone.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get::<_, String>(0) }
    };
    assert_eq!(shown("search_path").await, "app, \"Odd, name\", public");
    assert_eq!(shown("statement_timeout").await, "7s");
    assert_eq!(shown("work_mem").await, "5MB");
    clone.batch_execute("SELECT * FROM before; CREATE TABLE app.made_by_clone (id int)").await.unwrap();

    // What the clone makes, the base user owns; what the base user is granted later, the clone has.
    let base = server.connect("app", OLD).await.unwrap();
    base.batch_execute("ALTER TABLE app.made_by_clone ADD more int; DROP TABLE app.made_by_clone").await.unwrap();
    server.execute("CREATE TABLE later (id int); GRANT SELECT ON later TO app").await.unwrap();
    clone.batch_execute("SELECT * FROM later").await.unwrap();
    server.execute("REVOKE SELECT ON later FROM app").await.unwrap();
    assert!(clone.batch_execute("SELECT * FROM later").await.is_err());

    let row = |name: &'static str| {
        let server = &server;
        async move {
            let client = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
            let sql = "SELECT rolcreatedb, rolconnlimit, rolvaliduntil::text FROM pg_roles WHERE rolname = $1";
            let row = client.query_one(sql, &[&name]).await.unwrap();
            (row.get::<_, bool>(0), row.get::<_, i32>(1), row.get::<_, Option<String>>(2))
        }
    };
    assert_eq!(row("app_clone").await, row("app").await);

    // What is taken from the base user goes from the clone at its next turn.
    server.execute("ALTER ROLE app NOCREATEDB CONNECTION LIMIT -1 VALID UNTIL 'infinity'").await.unwrap();
    server
        .execute("ALTER ROLE app RESET statement_timeout; ALTER ROLE app IN DATABASE postgres RESET ALL")
        .await
        .unwrap();
    rotate_again(&world, THIRD).await.unwrap();
    rotate_again(&world, FOURTH).await.unwrap();
    let (user, password) = login(&world, "AWSCURRENT");
    let clone = server.connect(&user, &password).await.unwrap();
    assert_eq!(clone.query_one("SHOW statement_timeout", &[]).await.unwrap().get::<_, String>(0), "0");
    assert_eq!(row("app_clone").await.0, row("app").await.0);
}

#[tokio::test]
async fn a_clone_made_by_awss_function_is_taken_over_and_keeps_what_it_owns() {
    let (server, secret, admin) = server(Options::default()).await;
    server.execute("CREATE ROLE app_clone LOGIN PASSWORD 'x'; GRANT app TO app_clone; CREATE SCHEMA s; GRANT ALL ON SCHEMA s TO app").await.unwrap();
    let clone = server.connect("app_clone", "x").await.unwrap();
    clone.batch_execute("CREATE TABLE s.owned_by_clone (id int)").await.unwrap();
    let world = world_with_admin(&secret, &admin);
    let notes = world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes.iter().any(|note| note.contains("REASSIGN OWNED BY \"app_clone\" TO \"app\"")), "{notes:?}");
    let (user, password) = login(&world, "AWSCURRENT");
    let clone = server.connect(&user, &password).await.unwrap();
    clone.batch_execute("INSERT INTO s.owned_by_clone VALUES (1)").await.unwrap();
    // Handed over by an administrator, it acts as the base user from its next turn on.
    server.execute("REASSIGN OWNED BY app_clone TO app").await.unwrap();
    rotate_again(&world, THIRD).await.unwrap();
    rotate_again(&world, FOURTH).await.unwrap();
    let (user, password) = login(&world, "AWSCURRENT");
    let clone = server.connect(&user, &password).await.unwrap();
    assert_eq!(clone.query_one("SELECT current_user::text", &[]).await.unwrap().get::<_, String>(0), "app");
}

#[tokio::test]
async fn wrong_administrators_and_users_are_refused() {
    let (server, secret, admin) = server(Options::default()).await;
    let (other, _, _) = self::server(Options::default()).await;
    for sql in [
        "CREATE ROLE other LOGIN PASSWORD 'x'",
        "CREATE ROLE other_clone LOGIN PASSWORD 'y'",
        "CREATE ROLE lonely_clone LOGIN PASSWORD 'x'",
        "CREATE ROLE helper LOGIN PASSWORD 'x'",
        "CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'x'",
        "CREATE ROLE base LOGIN PASSWORD 'y'",
        "CREATE ROLE base_clone LOGIN PASSWORD 'x'",
        "CREATE ROLE humble LOGIN PASSWORD 'x'",
        "CREATE ROLE humble_clone LOGIN SUPERUSER PASSWORD 'y'",
        "CREATE ROLE greedy LOGIN PASSWORD 'x'",
        "CREATE ROLE greedy_clone LOGIN PASSWORD 'y'",
    ] {
        server.execute(sql).await.unwrap();
    }
    // As up to PostgreSQL 14 every role may do by itself; from 16 on there is no such grant.
    let _ = server.execute("GRANT greedy TO greedy_clone GRANTED BY greedy").await;
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
        (
            json!({}),
            json!({"host": "no.invalid"}),
            config,
            Code::Admin,
            "the administrator's secret is for no.invalid:",
        ),
        (
            json!({}),
            json!({"host": null}),
            config,
            Code::Field,
            "the administrator's secret: field \"host\" is missing",
        ),
        (
            json!({}),
            json!({"username": "helper", "password": "x"}),
            config,
            Code::Pair,
            "may not make \"app_clone\" like \"app\"",
        ),
        (
            json!({"masterarn": "missing"}),
            json!({}),
            config,
            Code::Admin,
            "the administrator's secret missing does not exist",
        ),
        (json!({"password": "wrong"}), json!({}), Class::Rejected(Which::Current), Code::WrongPassword, "\"app\""),
        (json!({"username": "other", "password": "x"}), json!({}), config, Code::Pair, "is no member of \"other\""),
        (json!({"username": "base_clone", "password": "x"}), json!({}), config, Code::Pair, "is no member of \"base\""),
        (json!({"username": "humble", "password": "x"}), json!({}), config, Code::Pair, "is no member of \"humble\""),
        (
            json!({"username": "greedy", "password": "x"}),
            json!({}),
            config,
            Code::Pair,
            "only by a grant of one of the two",
        ),
        (json!({"username": "lonely_clone", "password": "x"}), json!({}), config, Code::Pair, "has no user \"lonely\""),
    ] {
        let world = world_with_admin(&with(&secret, user), &with(&admin, as_admin));
        let error = failure(&world, "setSecret").await;
        assert_error(&error, class, code, named);
    }
    for (user, password) in [
        ("other_clone", "y"),
        ("app", OLD),
        ("lonely_clone", "x"),
        ("base", "y"),
        ("humble_clone", "y"),
        ("greedy_clone", "y"),
    ] {
        assert!(server.connect(user, password).await.is_ok(), "{user} was changed");
    }
    // Before anything is staged.
    for (user, named) in [
        (json!({"adminarn": "another"}), "fields \"masterarn\" and \"adminarn\" differ"),
        (json!({"username": "x".repeat(60)}), "field \"username\" is too long"),
    ] {
        let world = world_with_admin(&with(&secret, user), &admin);
        let error = world.step("createSecret").await.unwrap_err();
        assert_error(&error, config, Code::Field, named);
    }
    let mut world = world_with_admin(&secret, &admin);
    world.settings.admin_secrets = vec!["another".to_owned()];
    assert_error(&failure(&world, "setSecret").await, config, Code::Admin, "is not allowed");
    // Another name of the same machine will do.
    let changed = with(&admin, json!({"host": "127.0.0.1"})).to_string();
    let version = "administrator-version-00000000000001";
    world.service.put(ADMIN, version, Payload::Text(changed), &[]).unwrap();
    world.settings.admin_secrets.push(ADMIN.to_owned());
    world.rotate(TOKEN).await.unwrap();
}

#[tokio::test]
async fn whoever_writes_awspending_does_not_choose_whose_password_is_set() {
    let (server, secret, admin) = server(Options::default()).await;
    server.execute("CREATE ROLE other LOGIN PASSWORD 'x'").await.unwrap();
    for user in ["app", "other", "other_clone"] {
        let world = world_with_admin(&secret, &admin);
        world.stage(&with(&secret, json!({"username": user, "password": "z"})).to_string());
        assert_eq!(world.step("setSecret").await.unwrap_err().code(), Code::Tampered, "{user}");
        assert!(server.connect(user, "z").await.is_err(), "{user}");
    }
}

#[tokio::test]
async fn an_administrator_whom_rds_manages_is_found_by_the_tags_of_its_secret() {
    let (server, secret, _) = server(Options { tls: true, ..Options::default() }).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server.root()).unwrap();
    let managed = json!({"username": "postgres", "password": SUPERUSER_PASSWORD});
    for tag in ["aws:rds:primaryDBInstanceArn", "aws:rds:primaryDBClusterArn"] {
        let mut world = world_with_admin(&with(&secret, json!({"username": "app", "dbname": "postgres"})), &managed);
        world.settings.trust = keywheel::tls::Trust::with_file(file.path().to_owned());
        let error = failure(&world, "setSecret").await;
        assert_error(&error, Class::Config, Code::Admin, "names no host");
        let arn = "arn:aws:rds:us-east-1:123456789012:db:one";
        world.service.edit(ADMIN, |record| record.tags.insert(tag.to_owned(), arn.to_owned())).unwrap();
        let endpoint = Endpoint { host: "localhost".to_owned(), port: server.port(), engine: "postgres".to_owned() };
        *world.services.database.lock().unwrap() = Some((arn.to_owned(), endpoint));
        world.rotate(TOKEN).await.unwrap();
        assert!(works(&server, &login(&world, "AWSCURRENT")).await);
    }
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_and_one_login_always_works() {
    let (server, secret, admin) = server(Options::default()).await;
    let mut number = 0;
    for back in [false, true] {
        for step in STEPS {
            for point in 0.. {
                number += 1;
                let user = format!("user_{number}");
                server.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD '{OLD}'")).await.unwrap();
                let world = world_with_admin(&with(&secret, json!({"username": user})), &admin);
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
                assert!(works(&server, &login(&world, "AWSCURRENT")).await, "{step} at {point}: AWSCURRENT is dead");
                world.rotate(token).await.unwrap_or_else(|error| panic!("{step} at {point}: {error:?}"));
                for label in ["AWSCURRENT", "AWSPREVIOUS"] {
                    assert!(works(&server, &login(&world, label)).await, "{step} at {point}: {label}");
                }
                // The rights are there, and not only a login.
                let (user, password) = login(&world, "AWSCURRENT");
                let client = server.connect(&user, &password).await.unwrap();
                let acts = client.query_one("SELECT current_user::text", &[]).await.unwrap().get::<_, String>(0);
                assert_eq!(acts, user.trim_end_matches("_clone"), "{step} at {point}");
                if !crashed {
                    break;
                }
            }
        }
    }
    assert!(number > 60, "{number}");
}

#[tokio::test]
async fn a_users_settings_cannot_speak_with_the_administrators_voice() {
    let (server, secret, admin) = server(Options::default()).await;
    // A user may give itself any setting, and this one is a valid list of one schema.
    let own = server.connect("app", OLD).await.unwrap();
    own.batch_execute(
        "SELECT set_config('search_path', 'x;ALTER/**/ROLE/**/app/**/SUPERUSER;--', false);
         ALTER ROLE app SET search_path FROM CURRENT",
    )
    .await
    .unwrap();
    let world = world_with_admin(&secret, &admin);
    world.rotate(TOKEN).await.unwrap();
    let client = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
    let row = client.query_one("SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname LIKE 'app%'", &[]).await.unwrap();
    assert!(!row.get::<_, bool>(0), "the user has made itself a superuser");
    assert!(works(&server, &login(&world, "AWSCURRENT")).await);
}

#[tokio::test]
async fn what_a_user_makes_is_not_taken_for_the_servers_own() {
    let (server, secret, admin) = server(Options::default()).await;
    // Who owns a database chooses where names are looked up in it, and what is there (CVE-2018-1058).
    server.execute("ALTER DATABASE postgres OWNER TO app").await.unwrap();
    let own = server.connect("app", OLD).await.unwrap();
    for arguments in ["text, oid, text", "text, text, text"] {
        own.batch_execute(&format!(
            "CREATE FUNCTION public.pg_has_role({arguments}) RETURNS bool LANGUAGE plpgsql
             AS 'BEGIN ALTER ROLE app SUPERUSER; RETURN true; END'"
        ))
        .await
        .unwrap();
    }
    for setup in [
        "SELECT 1",
        "CREATE SCHEMA evil; CREATE VIEW evil.pg_roles AS SELECT *, public.pg_has_role('a'::text, 1::oid, 'b'::text) FROM pg_catalog.pg_roles;
         GRANT USAGE ON SCHEMA evil TO PUBLIC; GRANT SELECT ON evil.pg_roles TO PUBLIC;
         ALTER DATABASE postgres SET search_path TO evil, public, pg_catalog",
    ] {
        own.batch_execute(setup).await.unwrap();
        let world = world_with_admin(&secret, &admin);
        for token in [TOKEN, THIRD, FOURTH] {
            let _ = world.service.begin_rotation(SECRET, token);
            world.rotate(token).await.unwrap();
        }
        let client = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
        let sql = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) 'app'";
        assert!(!client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0), "the user has made itself a superuser");
        server.execute(&format!("ALTER ROLE app PASSWORD '{OLD}'")).await.unwrap();
    }
}

#[tokio::test]
async fn the_clone_acts_as_the_role_that_the_base_user_acts_as() {
    let (server, secret, admin) = server(Options::default()).await;
    server.execute("CREATE ROLE team; GRANT team TO app; ALTER ROLE app SET role TO team").await.unwrap();
    let world = world_with_admin(&secret, &admin);
    for token in [TOKEN, THIRD, FOURTH] {
        let _ = world.service.begin_rotation(SECRET, token);
        world.rotate(token).await.unwrap();
        let (user, password) = login(&world, "AWSCURRENT");
        let client = server.connect(&user, &password).await.unwrap();
        let acts = client.query_one("SELECT current_user::text", &[]).await.unwrap().get::<_, String>(0);
        assert_eq!(acts, "team", "{user}");
    }
}

#[tokio::test]
async fn an_administrator_need_not_be_a_superuser() {
    let (server, secret, admin) = server(Options::default()).await;
    server.execute("CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'x'").await.unwrap();
    // Needed from PostgreSQL 16 on.
    server.execute("GRANT app TO maker WITH ADMIN OPTION; ALTER ROLE app SET statement_timeout TO '7s'").await.unwrap();
    // Its own database is of no interest.
    let changes = json!({"username": "maker", "password": "x", "dbname": "missing"});
    let world = world_with_admin(&secret, &with(&admin, changes));
    world.rotate(TOKEN).await.unwrap();
    rotate_again(&world, THIRD).await.unwrap();
    rotate_again(&world, FOURTH).await.unwrap();
    for label in ["AWSCURRENT", "AWSPREVIOUS"] {
        assert!(works(&server, &login(&world, label)).await, "{label}");
    }
}

#[tokio::test]
async fn two_secrets_with_one_administrator_rotate_at_once() {
    let (server, secret, admin) = server(Options::default()).await;
    server.execute(&format!("CREATE ROLE second LOGIN PASSWORD '{OLD}'")).await.unwrap();
    let left = world_with_admin(&secret, &admin);
    let right = world_with_admin(&with(&secret, json!({"username": "second"})), &admin);
    let (one, two) = tokio::join!(left.rotate(TOKEN), right.rotate(TOKEN));
    one.unwrap();
    two.unwrap();
    for world in [&left, &right] {
        assert!(works(&server, &login(world, "AWSCURRENT")).await);
    }
}

#[tokio::test]
async fn with_an_owner_role_nothing_belongs_to_a_user() {
    let (server, secret, admin) = server(Options::default()).await;
    let secret = with(&secret, json!({"ownerrole": "the owner"}));
    for (setup, named) in [
        ("SELECT 1", "does not exist"),
        ("CREATE ROLE \"the owner\" LOGIN", "can sign in by itself"),
        // Else whoever writes the secret could have any role.
        ("ALTER ROLE \"the owner\" NOLOGIN", "has not got \"app\" as a member"),
    ] {
        server.execute(setup).await.unwrap();
        let error = failure(&world_with_admin(&secret, &admin), "setSecret").await;
        assert_error(&error, Class::Config, Code::Pair, named);
    }
    for sql in [
        "GRANT \"the owner\" TO app",
        "CREATE SCHEMA s AUTHORIZATION \"the owner\"",
        "CREATE ROLE reader",
        "GRANT USAGE ON SCHEMA s TO reader",
        "ALTER DEFAULT PRIVILEGES FOR ROLE \"the owner\" IN SCHEMA s GRANT SELECT ON TABLES TO reader",
    ] {
        server.execute(sql).await.unwrap();
    }
    let world = world_with_admin(&secret, &admin);
    world.rotate(TOKEN).await.unwrap();
    for (number, token) in [THIRD, FOURTH].into_iter().enumerate() {
        let (user, password) = login(&world, "AWSCURRENT");
        let client = server.connect(&user, &password).await.unwrap();
        client.batch_execute(&format!("CREATE TABLE s.t{number} (id int)")).await.unwrap();
        rotate_again(&world, token).await.unwrap();
    }
    let sql = "SELECT bool_and(tableowner = 'the owner' AND has_table_privilege('reader', 's.' || tablename, 'SELECT')), count(*)
         FROM pg_tables WHERE schemaname = 's'";
    let client = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
    let row = client.query_one(sql, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, i64>(1) == 2);
    // A user that has been made to act as itself is mended at its next turn.
    server.execute("ALTER ROLE app_clone RESET role").await.unwrap();
    rotate_again(&world, "fifth-version-0000000000000000000000").await.unwrap();
    rotate_again(&world, "sixth-version-0000000000000000000000").await.unwrap();
    let (user, password) = login(&world, "AWSCURRENT");
    let client = server.connect(&user, &password).await.unwrap();
    assert_eq!(client.query_one("SELECT current_user::text", &[]).await.unwrap().get::<_, String>(0), "the owner");
}

#[tokio::test]
async fn extras_are_reported_and_revoked_on_request() {
    let (server, secret, admin) = server(Options::default()).await;
    for sql in [
        "CREATE TABLE shared (id int)",
        "CREATE TABLE \"Odd\" (id int, more int)",
        "CREATE SCHEMA extra",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE ROLE other",
        "GRANT SELECT ON shared TO app",
    ] {
        server.execute(sql).await.unwrap();
    }
    let extra =
        "GRANT other TO app_clone; GRANT SELECT ON shared TO app_clone; GRANT UPDATE (more) ON \"Odd\" TO app_clone;
         GRANT USAGE ON SCHEMA extra TO app_clone; GRANT EXECUTE ON FUNCTION f() TO app_clone";
    server.execute(&format!("CREATE ROLE app_clone LOGIN; GRANT app TO app_clone; {extra}")).await.unwrap();
    for (extras, left) in [("report", true), ("revoke", false)] {
        let world = world_with_admin(&with(&secret, json!({"extras": extras})), &admin);
        let notes = world.rotate_with_notes(TOKEN).await.unwrap();
        let told = [
            "membership of \"other\"",
            "rights on SCHEMA extra",
            "rights on TABLE public.\"Odd\"",
            "FUNCTION public.f()",
        ];
        assert_eq!(notes.iter().any(|note| told.iter().all(|it| note.contains(it))), left, "{notes:?}");
        assert!(!notes.iter().any(|note| note.contains("shared")), "what both have: {notes:?}");
        let client = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
        for sql in [
            "SELECT pg_has_role('app_clone', 'other', 'MEMBER')",
            "SELECT has_schema_privilege('app_clone', 'extra', 'USAGE')",
            "SELECT has_column_privilege('app_clone', '\"Odd\"', 'more', 'UPDATE')",
        ] {
            assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0), left, "{sql}");
        }
        let (user, password) = login(&world, "AWSCURRENT");
        server.connect(&user, &password).await.unwrap().batch_execute("SELECT * FROM shared").await.unwrap();
        if !left {
            // Not while it is the one that pods have.
            server.execute("GRANT other TO app_clone").await.unwrap();
            rotate_again(&world, THIRD).await.unwrap();
            let sql = "SELECT pg_has_role('app_clone', 'other', 'MEMBER')";
            assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
        }
    }
    let error = failure(&world_with_admin(&with(&secret, json!({"extras": "keep"})), &admin), "createSecret").await;
    assert_error(&error, Class::Config, Code::Field, "field \"extras\" is unknown");
}

#[tokio::test]
async fn a_replicas_secret_is_changed_at_its_source() {
    let (server, secret, admin) = server(Options::default()).await;
    let replica = server.replica().unwrap();
    // A name that has no address in common with the source's.
    let secret = with(&secret, json!({"host": "127.0.0.2", "port": replica.port()}));
    let error = failure(&world_with_admin(&secret, &admin), "setSecret").await;
    assert_error(&error, Class::Config, Code::Admin, "the administrator's secret is for localhost:");
    let world = world_with_admin(&secret, &admin);
    *world.services.replica.lock().unwrap() = Some(("127.0.0.2".to_owned(), "localhost".to_owned()));
    world.rotate(TOKEN).await.unwrap();
    for server in [&server, &replica] {
        for label in ["AWSCURRENT", "AWSPREVIOUS"] {
            assert!(works(server, &login(&world, label)).await, "{label}");
        }
    }
    // A replica that does not follow is told so; what was changed at its source is there for the next try.
    replica.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    world.service.begin_rotation(SECRET, THIRD).unwrap();
    world.step_for("createSecret", THIRD).await.unwrap();
    let error = world.step_for("setSecret", THIRD).await.unwrap_err();
    assert_error(&error, Class::Transient(Effect::Unknown), Code::NotVisible, "the replica 127.0.0.2");
    replica.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    world.rotate(THIRD).await.unwrap();
    assert!(works(&replica, &login(&world, "AWSCURRENT")).await);
}

#[tokio::test]
async fn names_of_all_sorts_and_any_password() {
    let (server, secret, admin) = server(Options::default()).await;
    let mut runner = TestRunner::deterministic();
    let names = proptest::string::string_regex("[ -~äß%'\"`\\\\]{1,28}").unwrap();
    let mut all: Vec<String> =
        ["50%s", "o'brien", "say \"hi\"", "back\\slash", "semi;colon--"].map(str::to_owned).to_vec();
    all.extend((0..10).map(|_| names.new_tree(&mut runner).unwrap().current()));
    all.push("x".repeat(57));
    for name in all {
        let quoted = name.replace('"', "\"\"");
        server.execute(&format!("CREATE ROLE \"{quoted}\" LOGIN PASSWORD '{OLD}'")).await.unwrap();
        let mut world = world_with_admin(&with(&secret, json!({"username": name})), &admin);
        world.settings.passwords = keywheel::password::Environment::read(|variable| match variable {
            "EXCLUDE_CHARACTERS" => Some(String::new()),
            "PASSWORD_LENGTH" => Some("100".to_owned()),
            _ => None,
        });
        world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        for label in ["AWSCURRENT", "AWSPREVIOUS"] {
            assert!(works(&server, &login(&world, label)).await, "{name}: {label}");
        }
    }
}

#[tokio::test]
async fn a_pair_that_aws_began_at_its_clone_goes_on() {
    let (server, secret, admin) = server(Options::default()).await;
    // AWS's function makes the other user a member of the one in the secret, whichever that is.
    let made = format!(
        "CREATE ROLE odd_clone LOGIN CREATEDB PASSWORD '{OLD}'; CREATE ROLE odd LOGIN PASSWORD 'x'; GRANT odd_clone TO odd"
    );
    server.execute(&made).await.unwrap();
    server.execute("CREATE TABLE t (id int); GRANT SELECT ON t TO odd_clone").await.unwrap();
    let world = world_with_admin(&with(&secret, json!({"username": "odd_clone"})), &admin);
    world.rotate(TOKEN).await.unwrap();
    for (token, user) in [(THIRD, "odd_clone"), (FOURTH, "odd")] {
        rotate_again(&world, token).await.unwrap();
        let current = login(&world, "AWSCURRENT");
        assert_eq!(current.0, user);
        let client = server.connect(&current.0, &current.1).await.unwrap();
        client.batch_execute("SELECT * FROM t").await.unwrap();
        for label in ["AWSCURRENT", "AWSPREVIOUS"] {
            assert!(works(&server, &login(&world, label)).await, "{token}: {label}");
        }
        let sql = "SELECT bool_and(rolcreatedb) FROM pg_roles WHERE rolname LIKE 'odd%'";
        let row = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap().query_one(sql, &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "the one that AWS began at is the model");
    }
}

#[tokio::test]
async fn a_login_without_the_rights_is_not_promoted() {
    let (server, secret, admin) = server(Options::default()).await;
    server.execute("CREATE ROLE \"the owner\"; GRANT \"the owner\" TO app").await.unwrap();
    for (fields, broken) in [
        (json!({}), "REVOKE app FROM app_clone"),
        (json!({}), "ALTER ROLE app_clone NOINHERIT; ALTER ROLE app_clone RESET role"),
        (json!({"ownerrole": "the owner"}), "ALTER ROLE app_clone RESET role"),
    ] {
        let world = world_with_admin(&with(&secret, fields), &admin);
        world.step("createSecret").await.unwrap();
        world.step("setSecret").await.unwrap();
        server.execute(broken).await.unwrap();
        // From PostgreSQL 16 on a grant keeps what it was made with, and can be told otherwise by itself.
        if broken.contains("NOINHERIT") {
            let _ = server.execute("GRANT app TO app_clone WITH INHERIT FALSE").await;
        }
        let error = failure(&world, "testSecret").await;
        assert_error(&error, Class::Rejected(Which::Pending), Code::Privilege, "has not the rights of");
        // The next try mends it, and lets in again whom somebody has kept out.
        let member = "SELECT FROM pg_auth_members WHERE roleid = 'app'::regrole AND member = 'app_clone'::regrole";
        let again = format!("DO $$ BEGIN IF NOT EXISTS ({member}) THEN GRANT app TO app_clone; END IF; END $$");
        server.execute(&again).await.unwrap();
        server.execute("ALTER ROLE app_clone NOLOGIN").await.unwrap();
        world.rotate(TOKEN).await.unwrap();
        assert!(works(&server, &login(&world, "AWSCURRENT")).await);
    }
}
