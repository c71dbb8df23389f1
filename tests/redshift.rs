//! The kind `redshift`. No Redshift runs here: its statements run against a real PostgreSQL as far as the two have them in
//! common, and the views that only Redshift has are stood in for by views over PostgreSQL's own catalogues. The words that
//! PostgreSQL does not know are held by the unit tests of the kind.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test stops at the first surprise")]

mod support;

use keywheel::error::{Class, Code, Effect, Which};
use keywheel::services::Endpoint;
use keywheel::store::memory::Payload;
use keywheel_dev::postgres::{Options, SUPERUSER_PASSWORD, Server};
use serde_json::{Value, json};
use support::sql::*;
use support::*;

/// What only Redshift has.
const VIEWS: &str = "
CREATE TABLE pg_external_schema (esoid oid);
CREATE VIEW pg_proc_info AS SELECT oid AS prooid, proname, pronamespace, proowner, proargtypes, prokind
  FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace;
CREATE VIEW svv_user_info AS SELECT rolname::text AS user_name,
  CASE WHEN rolconnlimit < 0 THEN 'UNLIMITED' ELSE rolconnlimit::text END AS connection_limit,
  'RESTRICTED'::text AS syslog_access, 0 AS session_timeout FROM pg_roles WHERE rolcanlogin;
CREATE TABLE svv_user_grants (user_name text, role_name text, admin_option boolean);
CREATE VIEW users AS SELECT oid, rolname::text AS identity_name, 'user'::text AS identity_type FROM pg_roles WHERE rolcanlogin;
CREATE VIEW svv_relation_privileges AS
  SELECT n.nspname::text AS namespace_name, c.relname::text AS relation_name, a.privilege_type, u.identity_name, u.identity_type
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a JOIN users u ON u.oid = a.grantee;
CREATE VIEW svv_column_privileges AS
  SELECT n.nspname::text AS namespace_name, c.relname::text AS relation_name, t.attname::text AS column_name,
  a.privilege_type, u.identity_name, u.identity_type
  FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
  aclexplode(t.attacl) a JOIN users u ON u.oid = a.grantee;
CREATE VIEW svv_function_privileges AS
  SELECT n.nspname::text AS namespace_name, p.proname::text AS function_name, oidvectortypes(p.proargtypes) AS argument_types,
  a.privilege_type, u.identity_name, u.identity_type
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname <> 'pg_catalog', aclexplode(p.proacl) a JOIN users u ON u.oid = a.grantee;
CREATE VIEW svv_schema_privileges AS
  SELECT n.nspname::text AS namespace_name, a.privilege_type, 'SCHEMA'::text AS privilege_scope, u.identity_name, u.identity_type
  FROM pg_namespace n, aclexplode(n.nspacl) a JOIN users u ON u.oid = a.grantee;
CREATE VIEW svv_database_privileges AS
  SELECT d.datname::text AS database_name, a.privilege_type, 'DATABASE'::text AS privilege_scope, u.identity_name, u.identity_type
  FROM pg_database d, aclexplode(d.datacl) a JOIN users u ON u.oid = a.grantee;
CREATE VIEW svv_default_privileges AS
  SELECT n.nspname::text AS schema_name, CASE d.defaclobjtype WHEN 'r' THEN 'RELATION' WHEN 'f' THEN 'FUNCTION' END AS object_type,
  o.rolname::text AS owner_name, a.privilege_type, u.identity_name AS grantee_name, u.identity_type AS grantee_type
  FROM pg_default_acl d JOIN pg_roles o ON o.oid = d.defaclrole LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace,
  aclexplode(d.defaclacl) a JOIN users u ON u.oid = a.grantee;
";

/// A server with the login `app`, its secret, and the administrator's.
async fn server(settings: &[&str]) -> (Server, Value, Value) {
    let mut settings: Vec<String> = settings.iter().map(|line| (*line).to_owned()).collect();
    settings.push("password_encryption = md5".to_owned());
    let server =
        Server::start(&Options { tls: true, settings, method: "md5".to_owned(), ..Options::default() }).unwrap();
    server.execute(VIEWS).await.unwrap();
    server.execute(&format!("CREATE ROLE app LOGIN PASSWORD '{OLD}'")).await.unwrap();
    // `ssl` says nothing to Redshift's function, and nothing here.
    let secret = json!({"engine": "redshift", "host": "localhost", "port": server.port(), "dbname": "postgres",
        "username": "app", "password": OLD, "ssl": false, "sslrootcert": server.root()});
    let admin = json!({"engine": "redshift", "host": "localhost", "port": server.port(), "username": "postgres",
        "password": SUPERUSER_PASSWORD, "sslrootcert": server.root()});
    (server, secret, admin)
}

fn alternating(secret: &Value, admin: &Value) -> World {
    world_with_admin(&with(secret, json!({"masterarn": ADMIN})), admin)
}

async fn works(server: &Server, login: &(String, String)) -> bool {
    server.connect(&login.0, &login.1).await.is_ok()
}

async fn may(server: &Server, login: &(String, String), sql: &str) -> bool {
    server.connect(&login.0, &login.1).await.unwrap().batch_execute(sql).await.is_ok()
}

#[tokio::test]
async fn a_login_changes_its_own_password() {
    let (server, secret, _) = server(&["log_statement = all"]).await;
    let world = world(&secret);
    let mut total = 0;
    for step in STEPS {
        world.step(step).await.unwrap();
        total += world.store.calls().len();
    }
    assert_eq!(total, 11);
    let new = login(&world, "AWSCURRENT");
    assert!(works(&server, &new).await && server.connect("app", OLD).await.is_err());
    let log = server.log().unwrap();
    assert!(log.contains("ALTER USER \"app\" PASSWORD 'md5") && !log.contains(&new.1), "{log}");
}

#[tokio::test]
async fn a_password_that_a_cancelled_rotation_left_in_force_is_found() {
    let (server, secret, _) = server(&[]).await;
    let world = world(&secret);
    world.step("createSecret").await.unwrap();
    world.step("setSecret").await.unwrap();
    world.service.cancel_rotation(SECRET).unwrap();
    world.service.update_stage(SECRET, "AWSPENDING", None, Some(TOKEN)).unwrap();
    rotate_again(&world, THIRD).await.unwrap();
    assert!(works(&server, &login(&world, "AWSCURRENT")).await);
}

#[tokio::test]
async fn a_refusal_in_redshifts_words_is_a_wrong_password() {
    // What PostgreSQL says of `reject` (28000) is what Redshift says of a wrong password.
    let options = Options { tls: true, method: "reject".to_owned(), ..Options::default() };
    let server = Server::start(&options).unwrap();
    let secret = json!({"engine": "redshift", "host": "localhost", "port": server.port(), "dbname": "postgres",
        "username": "app", "password": OLD, "sslrootcert": server.root()});
    let world = World::new(&secret.to_string());
    let error = failure(&world, "setSecret").await;
    assert_error(&error, Class::Rejected(Which::Current), Code::WrongPassword, "no known password works");
}

#[tokio::test]
async fn tls_is_verified_whatever_the_secret_says() {
    let (server, secret, _) = server(&[]).await;
    for (changes, step, class, code) in [
        (json!({"sslmode": "disable"}), "createSecret", Class::Config, Code::Field),
        (json!({"sslmode": "require"}), "createSecret", Class::Config, Code::Field),
        (json!({"sslrootcert": null, "ssl": false}), "setSecret", TRANSIENT, Code::TlsTrust),
        (json!({"sslrootcert": null, "sslmode": "verify-ca"}), "setSecret", TRANSIENT, Code::TlsTrust),
    ] {
        let world = World::new(&with(&secret, changes.clone()).to_string());
        if step == "setSecret" {
            world.step("createSecret").await.unwrap();
        }
        let error = world.step(step).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (class, code), "{changes}: {error}");
    }
    assert!(server.connect("app", OLD).await.is_ok());
}

const TRANSIENT: Class = Class::Transient(Effect::None);

#[tokio::test]
async fn both_logins_live_and_take_turns() {
    let (server, secret, admin) = server(&["log_statement = all"]).await;
    let world = alternating(&secret, &admin);
    let mut passwords = Vec::new();
    world.rotate(TOKEN).await.unwrap();
    assert_eq!(login(&world, "AWSCURRENT").0, "app_clone");
    assert_eq!(login(&world, "AWSPREVIOUS"), ("app".to_owned(), OLD.to_owned()));
    for (token, user) in [(THIRD, "app"), (FOURTH, "app_clone")] {
        passwords.push(login(&world, "AWSCURRENT").1);
        rotate_again(&world, token).await.unwrap();
        assert_eq!(login(&world, "AWSCURRENT").0, user);
        for label in ["AWSCURRENT", "AWSPREVIOUS"] {
            assert!(works(&server, &login(&world, label)).await, "{label} of {token}");
        }
    }
    let log = server.log().unwrap();
    assert!(server.connect("app", OLD).await.is_err());
    assert!(log.contains("CREATE USER \"app_clone\" PASSWORD 'md5") && !log.contains("password authentication failed"));
    for password in &passwords {
        assert!(!log.contains(password.as_str()), "the server's log has a password");
    }
}

#[tokio::test]
async fn the_clone_can_do_what_the_base_user_can_now_and_later() {
    let (server, secret, admin) = server(&[]).await;
    server
        .execute(
            "CREATE SCHEMA \"Odd, name\"; CREATE TABLE \"Odd, name\".\"A table\" (id int, secret int);
             CREATE SCHEMA empty; CREATE GROUP analysts; CREATE SCHEMA reports; CREATE TABLE reports.monthly (id int);
             CREATE ROLE loader LOGIN; CREATE SCHEMA mine AUTHORIZATION app;
             GRANT USAGE, CREATE ON SCHEMA empty TO app; GRANT USAGE ON SCHEMA \"Odd, name\" TO app;
             GRANT SELECT, INSERT ON \"Odd, name\".\"A table\" TO app;
             CREATE TABLE columns (id int, hidden int); GRANT SELECT (id) ON columns TO app;
             GRANT USAGE, CREATE ON SCHEMA reports TO GROUP analysts; GRANT SELECT ON reports.monthly TO GROUP analysts;
             ALTER GROUP analysts ADD USER app; GRANT CREATE ON DATABASE postgres TO app; GRANT CREATE ON SCHEMA public TO loader;
             ALTER DEFAULT PRIVILEGES FOR USER loader IN SCHEMA public GRANT SELECT ON TABLES TO app;
             CREATE FUNCTION f(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION f FROM PUBLIC;
             CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON PROCEDURE p FROM PUBLIC;
             GRANT EXECUTE ON FUNCTION f TO app; GRANT EXECUTE ON PROCEDURE p TO app;
             ALTER ROLE app CREATEDB CONNECTION LIMIT 7 VALID UNTIL '2099-01-02 03:04:05+00';
             ALTER ROLE app SET search_path TO \"Odd, name\", public; ALTER ROLE app SET statement_timeout TO '7s'",
        )
        .await
        .unwrap();
    let own = server.connect("app", OLD).await.unwrap();
    own.batch_execute("CREATE TABLE mine.before (id int)").await.unwrap();
    let world = alternating(&secret, &admin);
    assert!(world.rotate_with_notes(TOKEN).await.unwrap().is_empty());
    let clone = login(&world, "AWSCURRENT");
    assert_eq!(clone.0, "app_clone");
    for sql in [
        "INSERT INTO \"A table\" VALUES (1, 2)",
        "CREATE TABLE empty.by_clone (id int)",
        "SELECT id FROM columns",
        "SELECT * FROM reports.monthly",
        "SELECT f(1, 'a')",
        "CALL p()",
        "CREATE SCHEMA made_by_clone",
        "INSERT INTO mine.before VALUES (1)",
        "CREATE TABLE mine.by_clone (id int)",
    ] {
        assert!(may(&server, &clone, sql).await, "{sql}");
    }
    for sql in ["SELECT hidden FROM columns", "DELETE FROM \"A table\"", "INSERT INTO reports.monthly VALUES (1)"] {
        assert!(!may(&server, &clone, sql).await, "{sql}");
    }
    let admin_client = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
    let shown = |sql: &'static str| {
        let client = &admin_client;
        async move { client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) }
    };
    assert!(
        shown(
            "SELECT min(ARRAY[rolcreatedb, rolconnlimit = 7, rolvaliduntil = '2099-01-02 03:04:05+00'])
             = ARRAY[true, true, true] FROM pg_roles WHERE rolname = 'app_clone'"
        )
        .await
    );
    assert!(shown("SELECT (SELECT useconfig FROM pg_user WHERE usename = 'app') = (SELECT useconfig FROM pg_user WHERE usename = 'app_clone')").await);
    // What comes by a group has no grant of its own.
    assert!(!shown("SELECT relacl::text LIKE '%app_clone%' FROM pg_class WHERE relname = 'monthly'").await);
    // Each can use what the other makes, from the beginning.
    let base = ("app".to_owned(), OLD.to_owned());
    assert!(may(&server, &base, "SELECT * FROM mine.by_clone").await);
    assert!(may(&server, &base, "CREATE TABLE mine.by_base (id int)").await);
    assert!(may(&server, &clone, "INSERT INTO mine.by_base VALUES (1)").await);

    // Later: granted, taken, and made by others.
    server
        .execute(
            "GRANT DELETE ON \"Odd, name\".\"A table\" TO app; REVOKE SELECT ON \"Odd, name\".\"A table\" FROM app;
             CREATE GROUP later; CREATE TABLE of_group (id int); GRANT SELECT ON of_group TO GROUP later;
             ALTER GROUP later ADD USER app; ALTER GROUP analysts DROP USER app; ALTER ROLE app NOCREATEDB;
             ALTER ROLE app RESET statement_timeout; ALTER ROLE app VALID UNTIL 'infinity';
             SET SESSION AUTHORIZATION loader; CREATE TABLE by_loader (id int)",
        )
        .await
        .unwrap();
    assert!(may(&server, &clone, "SELECT * FROM by_loader").await);
    rotate_again(&world, THIRD).await.unwrap();
    assert!(may(&server, &login(&world, "AWSCURRENT"), "CREATE TABLE made_by_clone.by_base (id int)").await);
    world.service.begin_rotation(SECRET, FOURTH).unwrap();
    let note = world.rotate_with_notes(FOURTH).await.unwrap().join("\n");
    for named in ["group \"analysts\"", "SELECT ON TABLE \"Odd, name\".\"A table\""] {
        assert!(note.contains(named), "{note}");
    }
    // What is only the clone's own is none.
    assert!(!note.contains("by_clone"), "{note}");
    let clone = login(&world, "AWSCURRENT");
    for sql in ["DELETE FROM \"A table\"", "SELECT * FROM of_group"] {
        assert!(may(&server, &clone, sql).await, "{sql}");
    }
    assert!(
        shown("SELECT NOT rolcreatedb AND rolvaliduntil = 'infinity' FROM pg_roles WHERE rolname = 'app_clone'").await
    );
    assert!(!may(&server, &clone, "CREATE DATABASE another").await);
}

#[tokio::test]
async fn extras_are_reported_and_revoked_if_the_secret_says_so() {
    let (server, secret, admin) = server(&[]).await;
    let reporting = alternating(&secret, &admin);
    reporting.rotate(TOKEN).await.unwrap();
    server
        .execute(
            "CREATE TABLE t (id int, column_too int); GRANT SELECT, INSERT ON t TO app_clone; GRANT SELECT ON t TO app;
             GRANT UPDATE (column_too) ON t TO app_clone; CREATE GROUP g; ALTER GROUP g ADD USER app_clone;
             CREATE TABLE of_group (id int); GRANT SELECT ON of_group TO GROUP g; CREATE SCHEMA s;
             GRANT USAGE ON SCHEMA s TO app_clone; CREATE ROLE loader;
             ALTER DEFAULT PRIVILEGES FOR USER loader GRANT SELECT ON TABLES TO app_clone;
             CREATE TABLE own (id int); ALTER TABLE own OWNER TO app_clone; ALTER ROLE app_clone CREATEDB",
        )
        .await
        .unwrap();
    rotate_again(&reporting, THIRD).await.unwrap();
    reporting.service.begin_rotation(SECRET, FOURTH).unwrap();
    let note = reporting.rotate_with_notes(FOURTH).await.unwrap().join("\n");
    assert!(note.starts_with("user \"app_clone\" has more than \"app\": group \"g\", "), "{note}");
    for named in
        ["INSERT ON TABLE \"public\".\"t\"", "UPDATE (\"column_too\") ON", "USAGE ON SCHEMA \"s\"", "by default"]
    {
        assert!(note.contains(named), "{named}: {note}");
    }
    let clone = login(&reporting, "AWSCURRENT");
    assert!(may(&server, &clone, "INSERT INTO t VALUES (1)").await);
    // Two more turns, and now it is to be taken away.
    let secret = reporting.value("AWSCURRENT").unwrap();
    let revoking = alternating(&with(&serde_json::from_str(&secret).unwrap(), json!({"extras": "revoke"})), &admin);
    // The clone is current in this one, so its turn is the second.
    revoking
        .service
        .put(
            SECRET,
            "previous-version-0000000000000000000",
            Payload::Text(reporting.value("AWSPREVIOUS").unwrap()),
            &["AWSPREVIOUS".to_owned()],
        )
        .unwrap();
    revoking.rotate(TOKEN).await.unwrap();
    revoking.service.begin_rotation(SECRET, THIRD).unwrap();
    assert!(revoking.rotate_with_notes(THIRD).await.unwrap().is_empty());
    let clone = login(&revoking, "AWSCURRENT");
    assert_eq!(clone.0, "app_clone");
    for sql in
        ["INSERT INTO t VALUES (1)", "UPDATE t SET column_too = 1", "SELECT * FROM of_group", "CREATE DATABASE x"]
    {
        assert!(!may(&server, &clone, sql).await, "{sql}");
    }
    for sql in ["SELECT * FROM t", "SELECT * FROM own"] {
        assert!(may(&server, &clone, sql).await, "{sql}");
    }
    let client = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
    let row = client
        .query_one(
            "SELECT NOT has_schema_privilege('app_clone', 's', 'USAGE') AND NOT EXISTS (SELECT FROM svv_default_privileges
             WHERE owner_name = 'loader' AND grantee_name = 'app_clone')",
            &[],
        )
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0));
}

#[tokio::test]
async fn wrong_administrators_and_users_are_refused() {
    let (server, secret, admin) = server(&[]).await;
    let (other, _, _) = self::server(&[]).await;
    for sql in [
        "CREATE ROLE other LOGIN PASSWORD 'x'",
        "CREATE ROLE other_clone LOGIN PASSWORD 'y'",
        "CREATE ROLE lonely_clone LOGIN PASSWORD 'x'",
        "CREATE ROLE helper LOGIN PASSWORD 'x'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO helper",
        "CREATE ROLE maker LOGIN CREATEROLE PASSWORD 'x'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO maker",
        "CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO app",
    ] {
        server.execute(sql).await.unwrap();
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
        (
            json!({}),
            json!({"sslmode": "disable"}),
            config,
            Code::Field,
            "the administrator's secret: field \"sslmode\"",
        ),
        (json!({}), json!({"username": "helper", "password": "x"}), config, Code::Pair, "may not set its password"),
        (
            json!({}),
            json!({"username": "maker", "password": "x"}),
            config,
            Code::Pair,
            "may not make \"app_clone\" like \"app\": `GRANT USAGE ON SCHEMA \"s\" TO \"app_clone\"`",
        ),
        (json!({"password": "wrong"}), json!({}), Class::Rejected(Which::Current), Code::WrongPassword, "\"app\""),
        (json!({"username": "other", "password": "x"}), json!({}), config, Code::Pair, "no password of this secret"),
        (json!({"username": "other_clone", "password": "y"}), json!({}), config, Code::Pair, "user \"other\" exists"),
        (json!({"username": "lonely_clone", "password": "x"}), json!({}), config, Code::Pair, "has no user \"lonely\""),
    ] {
        let world = alternating(&with(&secret, user), &with(&admin, as_admin));
        let error = failure(&world, "setSecret").await;
        assert_error(&error, class, code, named);
    }
    for (user, password) in [("other", "x"), ("other_clone", "y"), ("app", OLD), ("lonely_clone", "x")] {
        assert!(server.connect(user, password).await.is_ok(), "{user} was changed");
    }
    assert!(server.connect("app_clone", "x").await.is_err());
    let error = alternating(&with(&secret, json!({"username": "x".repeat(122)})), &admin);
    let error = error.step("createSecret").await.unwrap_err();
    assert_error(&error, config, Code::Field, "field \"username\" is too long");
}

#[tokio::test]
async fn a_clone_whose_password_is_lost_is_known_by_what_it_may_do() {
    let (server, secret, admin) = server(&[]).await;
    server.execute("CREATE TABLE t (id int); GRANT SELECT ON t TO app").await.unwrap();
    server.execute("CREATE ROLE app_clone LOGIN PASSWORD 'lost'; GRANT SELECT ON t TO app_clone").await.unwrap();
    let world = alternating(&secret, &admin);
    world.rotate(TOKEN).await.unwrap();
    assert!(works(&server, &login(&world, "AWSCURRENT")).await);
}

#[tokio::test]
async fn a_superusers_clone_is_compared_in_nothing_else() {
    let (server, secret, admin) = server(&[]).await;
    // PostgreSQL has another word than CREATEUSER, so the clone is one before.
    server.execute("ALTER ROLE app SUPERUSER; CREATE ROLE app_clone SUPERUSER LOGIN PASSWORD 'x'; CREATE GROUP g; ALTER GROUP g ADD USER app, app_clone").await.unwrap();
    let world = alternating(&secret, &admin);
    world.rotate(TOKEN).await.unwrap();
    assert!(works(&server, &login(&world, "AWSCURRENT")).await);
}

#[tokio::test]
async fn rights_on_external_schemas_come_after_the_transaction() {
    let (server, secret, admin) = server(&["log_statement = all"]).await;
    server
        .execute("CREATE SCHEMA lake; GRANT USAGE ON SCHEMA lake TO app; INSERT INTO pg_external_schema SELECT 'lake'::regnamespace")
        .await
        .unwrap();
    let world = alternating(&secret, &admin);
    world.rotate(TOKEN).await.unwrap();
    let log = server.log().unwrap();
    let (commit, grant) =
        (log.rfind("; COMMIT"), log.rfind("statement: GRANT USAGE ON SCHEMA \"lake\" TO \"app_clone\""));
    assert!(commit.is_some() && grant > commit, "{log}");
}

#[tokio::test]
async fn an_administrator_whom_redshift_manages_is_found_by_the_tags_of_its_secret() {
    let (server, secret, _) = server(&[]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server.root()).unwrap();
    let managed = json!({"username": "postgres", "password": SUPERUSER_PASSWORD});
    for tag in ["aws:redshift:primaryClusterArn", "aws:redshift-serverless:namespaceArn"] {
        let mut world = alternating(&secret, &managed);
        world.settings.trust = keywheel::tls::Trust::with_file(file.path().to_owned());
        let error = failure(&world, "setSecret").await;
        assert_error(&error, Class::Config, Code::Admin, "names no host");
        let arn = "arn:aws:redshift:us-east-1:123456789012:cluster:one";
        world.service.edit(ADMIN, |record| record.tags.insert(tag.to_owned(), arn.to_owned())).unwrap();
        let endpoint = Endpoint { host: "localhost".to_owned(), port: server.port(), engine: "redshift".to_owned() };
        *world.services.database.lock().unwrap() = Some((arn.to_owned(), endpoint));
        world.rotate(TOKEN).await.unwrap();
        assert!(works(&server, &login(&world, "AWSCURRENT")).await);
        server.execute("DROP OWNED BY app_clone; DROP ROLE app_clone").await.unwrap();
        server.execute(&format!("ALTER ROLE app PASSWORD '{OLD}'")).await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_and_one_login_always_works() {
    let (server, secret, admin) = server(&[]).await;
    server.execute("CREATE TABLE t (id int); CREATE SCHEMA s; CREATE GROUP g").await.unwrap();
    let mut number = 0;
    for back in [false, true] {
        for step in STEPS {
            for point in 0.. {
                number += 1;
                let user = format!("user_{number}");
                server
                    .execute(&format!(
                        "CREATE ROLE {user} LOGIN PASSWORD '{OLD}'; GRANT SELECT ON t TO {user}; GRANT USAGE ON SCHEMA s TO {user};
                         ALTER GROUP g ADD USER {user}; ALTER ROLE {user} SET statement_timeout TO '7s'"
                    ))
                    .await
                    .unwrap();
                let world = alternating(&with(&secret, json!({"username": user})), &admin);
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
                    let login = login(&world, label);
                    // The rights are there, and not only a login.
                    assert!(may(&server, &login, "SELECT * FROM t").await, "{step} at {point}: {label}");
                }
                if !crashed {
                    break;
                }
            }
        }
    }
    assert!(number > 60, "{number}");
}

#[tokio::test]
async fn a_users_settings_and_names_cannot_speak_with_the_administrators_voice() {
    let (server, secret, admin) = server(&[]).await;
    let own = server.connect("app", OLD).await.unwrap();
    own.batch_execute(
        "SELECT set_config('search_path', 'x;ALTER/**/ROLE/**/app/**/SUPERUSER;--', false);
         ALTER ROLE app SET search_path FROM CURRENT",
    )
    .await
    .unwrap();
    server
        .execute("CREATE TABLE \"t\"\" TO app; ALTER ROLE app SUPERUSER; --\" (id int); ALTER TABLE \"t\"\" TO app; ALTER ROLE app SUPERUSER; --\" OWNER TO app")
        .await
        .unwrap();
    let world = alternating(&secret, &admin);
    world.rotate(TOKEN).await.unwrap();
    let client = server.connect("postgres", SUPERUSER_PASSWORD).await.unwrap();
    let row = client.query_one("SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname LIKE 'app%'", &[]).await.unwrap();
    assert!(!row.get::<_, bool>(0), "the user has made itself a superuser");
    assert!(works(&server, &login(&world, "AWSCURRENT")).await);
}

#[tokio::test]
async fn two_secrets_with_one_administrator_rotate_at_once() {
    let (server, secret, admin) = server(&[]).await;
    server
        .execute(&format!(
            "CREATE ROLE second LOGIN PASSWORD '{OLD}'; CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO app, second"
        ))
        .await
        .unwrap();
    let left = alternating(&secret, &admin);
    let right = alternating(&with(&secret, json!({"username": "second"})), &admin);
    let (one, two) = tokio::join!(left.rotate(TOKEN), right.rotate(TOKEN));
    one.unwrap();
    two.unwrap();
    for world in [&left, &right] {
        assert!(works(&server, &login(world, "AWSCURRENT")).await);
    }
}
