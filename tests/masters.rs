//! Administrators whose passwords RDS and Redshift are told. moto has the APIs, without statuses or pending passwords; those
//! come from a stand-in, which gives the new password to a real PostgreSQL, so that a sign-in proves it.

#![cfg(all(feature = "postgres", feature = "rds"))]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "a test stops at the first surprise")]

mod support;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::join_all;
use keywheel::error::{Class, Code, Effect};
use keywheel::password::Environment;
use keywheel_dev::moto::Moto;
use keywheel_dev::postgres::{Options, Server};
use serde_json::{Value, json};
use support::aws::*;
use support::sql::*;
use support::*;
use tokio::time::Instant;

const USER: &str = "chief";
const DATABASE: &str = "arn:aws:rds:us-east-1:123456789012:db:db";
const WAREHOUSE: &str = "arn:aws:redshift:us-east-1:123456789012:cluster:wh";
const NAMESPACE: &str = "arn:aws:redshift-serverless:us-east-1:123456789012:namespace/0a1b-2c3d";

/// What a stand-in knows of its one database.
struct Database {
    /// The element that its answers have of it: `DBInstance`, `DBCluster`, `Cluster` or `namespace`.
    element: &'static str,
    engine: String,
    user: String,
    host: String,
    port: u16,
    /// Said from now on when asked, the last one for ever.
    statuses: Vec<&'static str>,
    /// So many answers after a change still have the password pending, the answer to the change among them.
    pending: usize,
    /// Before those, so many answers know nothing of a change.
    silent: usize,
    /// Whether pending passwords show as a status instead.
    as_status: bool,
    /// Further elements.
    extra: String,
    /// Answers to requests that change something, before it does what it is asked.
    refusals: Vec<Reply>,
    /// Whether answers to changes are lost.
    loses: bool,
    /// Passwords that it was told.
    passwords: Vec<String>,
    left: Option<(usize, usize)>,
    server: Option<Arc<Server>>,
}

impl Database {
    fn new(element: &'static str, engine: &str) -> Self {
        let (engine, user, host) = (engine.to_owned(), USER.to_owned(), "localhost".to_owned());
        Self {
            element,
            engine,
            user,
            host,
            port: 1,
            statuses: vec![if element == "namespace" { "AVAILABLE" } else { "available" }],
            pending: 1,
            silent: 0,
            as_status: false,
            extra: String::new(),
            refusals: Vec::new(),
            loses: false,
            passwords: Vec::new(),
            left: None,
            server: None,
        }
    }

    fn answer(&mut self, asked: &Asked) -> Reply {
        let action = asked.action();
        let new = asked.form("MasterUserPassword");
        let new = new.or_else(|| asked.json()["adminUserPassword"].as_str().map(str::to_owned));
        let changes = new.is_some();
        if changes && !self.refusals.is_empty() {
            return self.refusals.remove(0);
        }
        if let Some(new) = new {
            self.passwords.push(new);
            self.left = Some((self.silent, self.pending));
        }
        let mut status = self.statuses[0];
        if self.statuses.len() > 1 && !changes {
            self.statuses.remove(0);
        }
        let mut pending = "";
        match self.left {
            Some((0, 0)) => {
                self.left = None;
                self.apply();
            }
            Some((0, answers)) => {
                self.left = Some((0, answers - 1));
                match (self.element, self.as_status) {
                    ("namespace", _) => status = "MODIFYING",
                    (_, true) => status = "resetting-master-credentials",
                    _ => {
                        pending = "<PendingModifiedValues><MasterUserPassword>****</MasterUserPassword></PendingModifiedValues>";
                    }
                }
                if answers == 1 {
                    self.left = None;
                    self.apply();
                }
            }
            Some((silent, answers)) => self.left = Some((silent - 1, answers)),
            None => {}
        }
        if changes && self.loses {
            return Reply::Lose;
        }
        let Self { element, engine, user, host, port, extra, .. } = self;
        if *element == "namespace" {
            let mut namespace =
                json!({"namespaceName": "apps", "namespaceArn": NAMESPACE, "adminUsername": user, "status": status});
            if !extra.is_empty() {
                let more: Value = serde_json::from_str(extra).unwrap();
                namespace.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            }
            return Reply::ok(json!({"namespace": namespace}).to_string());
        }
        let (status_name, list) = match *element {
            "DBInstance" => ("DBInstanceStatus", "DBInstances"),
            "DBCluster" => ("Status", "DBClusters"),
            _ => ("ClusterStatus", "Clusters"),
        };
        let place = if *element == "DBCluster" {
            format!("<Endpoint>{host}</Endpoint><Port>{port}</Port>")
        } else {
            format!("<Endpoint><Address>{host}</Address><Port>{port}</Port></Endpoint>")
        };
        let mut body = format!(
            "<{element}><Engine>{engine}</Engine><{status_name}>{status}</{status_name}><MasterUsername>{user}</MasterUsername>{place}{pending}{extra}</{element}>"
        );
        if action.starts_with("Describe") {
            body = format!("<{list}>{body}</{list}>");
        }
        Reply::ok(format!(
            "<{action}Response xmlns=\"urn:x\"><{action}Result>{body}</{action}Result></{action}Response>"
        ))
    }

    /// The password comes into force.
    fn apply(&self) {
        if let (Some(server), Some(password)) = (&self.server, self.passwords.last()) {
            let statement = format!("ALTER ROLE {USER} PASSWORD '{password}'");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.execute(&statement)).unwrap();
        }
    }
}

/// A secret, AWS, and its database.
struct Master {
    world: World,
    aws: StandIn,
    database: Arc<Mutex<Database>>,
}

impl Master {
    fn start(secret: &Value, database: Database) -> Self {
        let aws = StandIn::start(None);
        let database = Arc::new(Mutex::new(database));
        let answering = Arc::clone(&database);
        aws.rule(move |asked| answering.lock().unwrap().answer(asked));
        let mut world = world(secret);
        world.services.other = Some(aws.services());
        Self { world, aws, database }
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap()
    }

    fn password(&self, label: &str) -> String {
        self.world.field(label, "password").unwrap()
    }
}

/// A server with the administrator, a database of RDS or Redshift that is there, and its secret.
async fn real(element: &'static str, engine: &str) -> (Arc<Server>, Database, Value) {
    let redshift = engine == "redshift";
    let (settings, method) =
        if redshift { (vec!["password_encryption = md5".to_owned()], "md5") } else { (vec![], "") };
    let options = Options { tls: true, settings, method: method.to_owned(), ..Options::default() };
    let server = Arc::new(Server::start(&options).unwrap());
    server.execute(&format!("CREATE ROLE {USER} LOGIN PASSWORD '{OLD}'")).await.unwrap();
    let mut database = Database::new(element, engine);
    database.port = server.port();
    database.server = Some(Arc::clone(&server));
    let secret = json!({
        "engine": engine, "host": "localhost", "port": server.port(), "dbname": "postgres",
        "username": USER, "password": OLD, "sslrootcert": server.root(), "note": [1.50],
    });
    (server, database, secret)
}

/// What the stand-in plays, its engine, and the fields that a secret needs for it.
const ENDPOINTS: [(&str, &str, &str); 3] = [
    ("DBInstance", "postgres", r#"{"kind": "rds-master", "dbInstanceIdentifier": "db"}"#),
    ("Cluster", "redshift", r#"{"kind": "redshift-admin", "dbClusterIdentifier": "wh"}"#),
    ("namespace", "redshift", r#"{"kind": "redshift-admin", "namespaceName": "apps"}"#),
];

fn plain() -> Value {
    json!({"kind": "rds-master", "dbInstanceIdentifier": "db", "username": USER, "password": OLD})
}

fn of_redshift() -> Value {
    json!({"kind": "redshift-admin", "dbClusterIdentifier": "wh", "username": USER, "password": OLD})
}

fn of_serverless() -> Value {
    json!({"kind": "redshift-admin", "namespaceName": "apps", "username": USER, "password": OLD})
}

#[tokio::test]
async fn the_password_that_rds_is_told_signs_in() {
    let (server, mut database, secret) = real("DBInstance", "postgres").await;
    database.pending = 3;
    // As the console makes it: nothing in the value names the kind.
    // Fields that mean something to the kind of its engine do not count here.
    let secret = with(&secret, json!({"dbInstanceIdentifier": "DB", "strategy": "alternating-users"}));
    let master = Master::start(&secret, database);
    master.world.tag("keywheel:kind", "rds-master");
    let notes = master.world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let new = master.password("AWSCURRENT");
    assert_eq!(new.len(), 32);
    server.connect(USER, &new).await.unwrap();
    assert!(server.connect(USER, OLD).await.is_err());
    let expected = with(&secret, json!({"password": new}));
    assert_eq!(serde_json::from_str::<Value>(&master.world.value("AWSCURRENT").unwrap()).unwrap(), expected);
    let log = master.aws.log();
    let changes: Vec<_> = log.iter().filter(|asked| asked.action() == "ModifyDBInstance").collect();
    let [change] = changes[..] else { panic!("{} changes", changes.len()) };
    for (name, value) in
        [("MasterUserPassword", new.as_str()), ("ApplyImmediately", "true"), ("DBInstanceIdentifier", "db")]
    {
        assert_eq!(change.form(name).as_deref(), Some(value), "{name}");
    }
    let asked: Vec<_> = log.iter().filter_map(|asked| asked.form("DBInstanceIdentifier")).collect();
    assert!(asked.iter().all(|it| it == "db" || it == DATABASE), "{asked:?}");
    // The second password goes the same way.
    rotate_again(&master.world, THIRD).await.unwrap();
    server.connect(USER, &master.password("AWSCURRENT")).await.unwrap();
}

#[tokio::test]
async fn a_cluster_without_a_host_in_its_secret_is_signed_in_to_where_rds_says() {
    let (server, mut database, secret) = real("DBCluster", "aurora-postgresql").await;
    database.as_status = true;
    let secret = json!({"kind": "rds-master", "dbarn": DATABASE.replace(":db:db", ":cluster:many"), "dbname": "postgres",
        "username": USER, "password": null, "sslrootcert": secret["sslrootcert"]});
    let master = Master::start(&secret, database);
    let notes = master.world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    server.connect(USER, &master.password("AWSCURRENT")).await.unwrap();
    assert_eq!(master.aws.asked("ModifyDBCluster"), 1);
    let change = master.aws.log().into_iter().find(|asked| asked.action() == "ModifyDBCluster").unwrap();
    assert_eq!(change.form("DBClusterIdentifier").as_deref(), Some("many"));
    assert_eq!(change.form("ApplyImmediately").as_deref(), Some("true"));
}

#[tokio::test]
async fn a_change_that_rds_does_not_show_at_once_is_waited_for() {
    let (server, mut database, secret) = real("DBInstance", "postgres").await;
    (database.silent, database.pending, database.as_status) = (2, 2, true);
    let master = Master::start(&with(&secret, json!({"kind": "rds-master", "dbInstanceIdentifier": "db"})), database);
    master.world.step("createSecret").await.unwrap();
    master.world.step("setSecret").await.unwrap();
    server.connect(USER, &master.password("AWSPENDING")).await.unwrap();
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_by_the_next_try() {
    for (element, engine, fields) in ENDPOINTS {
        let (server, database, secret) = real(element, engine).await;
        let secret = with(&secret, serde_json::from_str(fields).unwrap());
        let mut crashes = 0;
        for step in STEPS {
            for point in 0.. {
                server.execute(&format!("ALTER ROLE {USER} PASSWORD '{OLD}'")).await.unwrap();
                let mut copy = Database::new(element, engine);
                (copy.port, copy.server) = (database.port, database.server.clone());
                let mut master = Master::start(&secret, copy);
                for earlier in STEPS.iter().take_while(|it| **it != step) {
                    master.world.step(earlier).await.unwrap();
                }
                let stopped = CrashAt::new(point, master.world.step(step)).await.is_none();
                // The function's connections die with it. What was on its way arrives.
                master.world.services.other = None;
                master.aws.settle().await;
                master.world.services.other = Some(master.aws.services());
                master.world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{element}, {step}, {point}: {error}"));
                let current = master.password("AWSCURRENT");
                assert!(server.connect(USER, &current).await.is_ok(), "{element}, {step}, {point}: AWSCURRENT");
                assert!(master.database().passwords.iter().all(|it| *it == current), "{element}, {step}, {point}");
                if !stopped {
                    break;
                }
                crashes += 1;
            }
        }
        assert!(crashes > 20, "{element}: {crashes}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_told_and_healed_by_the_next_try() {
    for ((element, engine, fields), named) in ENDPOINTS.into_iter().zip([
        "ModifyDBInstance does not reach RDS",
        "ModifyCluster does not reach Redshift",
        "UpdateNamespace does not reach Redshift Serverless",
    ]) {
        let (server, mut database, secret) = real(element, engine).await;
        database.loses = true;
        let master = Master::start(&with(&secret, serde_json::from_str(fields).unwrap()), database);
        let error = failure(&master.world, "setSecret").await;
        assert_eq!(error.class(), Class::Transient(Effect::Unknown), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        master.database().loses = false;
        master.world.rotate(TOKEN).await.unwrap();
        server.connect(USER, &master.password("AWSCURRENT")).await.unwrap();
    }
}

#[tokio::test]
async fn somebody_elses_change_is_outwaited_and_other_statuses_too() {
    let mut database = Database::new("DBInstance", "oracle-se2");
    database.refusals = vec![Reply::refuse("InvalidDBInstanceState")];
    database.statuses = vec!["available", "modifying", "backing-up", "modifying", "available"];
    let master = Master::start(&plain(), database);
    let notes = master.world.rotate_with_notes(TOKEN).await.unwrap();
    assert_eq!(master.aws.asked("ModifyDBInstance"), 2);
    let password = master.password("AWSCURRENT");
    assert_eq!(master.database().passwords, std::slice::from_ref(&password));
    assert!(password.len() == 30 && !password.contains(['/', '@', '"', '\'', '&', ' ']), "{password}");
    assert_eq!(
        notes,
        vec![
            format!(
                "not signed in, but {DATABASE} is ready: the engine is \"oracle-se2\", for which there is no driver here"
            );
            2
        ]
    );
}

#[tokio::test]
async fn what_never_gets_ready_is_told_at_the_end_of_the_functions_time() {
    for (status, pending, named) in [
        ("modifying", 1, format!("waiting for {DATABASE} to be ready; it is `modifying`")),
        ("available", usize::MAX, "it is `available, with a new password pending`".to_owned()),
    ] {
        let mut database = Database::new("DBInstance", "postgres");
        (database.statuses, database.pending) = (vec![status], pending);
        let master = Master::start(&plain(), database);
        master.world.step("createSecret").await.unwrap();
        let event = json!({"Step": "setSecret", "SecretId": SECRET, "ClientRequestToken": TOKEN});
        let deadline = Instant::now() + Duration::from_millis(700);
        let World { settings, kinds, services, .. } = &master.world;
        let error = keywheel::handler::handle(event, "request", deadline, settings, kinds, services).await.unwrap_err();
        let effect = if pending == 1 { Effect::None } else { Effect::Unknown };
        assert_eq!((error.class(), error.code()), (Class::Transient(effect), Code::Deadline), "{error}");
        assert!(error.to_string().contains(&named), "{error}");
        assert_eq!(master.aws.asked("ModifyDBInstance"), usize::from(pending > 1));
    }
}

#[tokio::test]
async fn what_cannot_have_its_password_changed_is_refused_with_the_reason() {
    let managed = "<MasterUserSecret><SecretArn>arn:of:the:secret</SecretArn><SecretStatus>active</SecretStatus></MasterUserSecret>";
    let source = "<ReadReplicaSourceDBInstanceIdentifier>first</ReadReplicaSourceDBInstanceIdentifier>";
    let clusters = "<ReplicationSourceIdentifier>arn:first</ReplicationSourceIdentifier>";
    for (element, engine, extra, status, code, named) in [
        (
            "DBInstance",
            "postgres",
            managed,
            "available",
            Code::Field,
            "RDS manages itself, in the secret arn:of:the:secret",
        ),
        ("DBInstance", "mysql", source, "available", Code::Field, "replicates first and has its passwords"),
        ("DBCluster", "aurora-mysql", clusters, "available", Code::Field, "replicates arn:first"),
        ("DBCluster", "neptune", "", "available", Code::Field, "Neptune signs in by IAM alone"),
        ("DBInstance", "custom-oracle-ee", "", "available", Code::Field, "RDS Custom"),
        (
            "DBInstance",
            "oracle-se2-cdb",
            "<MultiTenant>true</MultiTenant>",
            "available",
            Code::Field,
            "tenant databases",
        ),
        ("DBInstance", "postgres", "", "stopped", Code::NotReady, "is `stopped`\nhint: start it"),
        ("DBInstance", "postgres", "", "deleting", Code::NotReady, "is `deleting`"),
        ("DBInstance", "postgres", "", "incompatible-network", Code::NotReady, "is `incompatible-network`"),
        ("DBCluster", "postgres", "", "inaccessible-encryption-credentials", Code::NotReady, "see RDS's events"),
    ] {
        let mut database = Database::new(element, engine);
        (database.extra, database.statuses) = (extra.to_owned(), vec![status]);
        let secret = if element == "DBCluster" {
            with(&plain(), json!({"dbClusterIdentifier": "many", "dbInstanceIdentifier": null}))
        } else {
            plain()
        };
        let master = Master::start(&secret, database);
        let error = failure(&master.world, "createSecret").await;
        assert_error(&error, Class::Config, code, named);
        assert_eq!(master.world.value("AWSPENDING"), None);
        assert_eq!(master.database().passwords.len(), 0);
    }
}

#[tokio::test]
async fn a_secret_that_names_another_database_is_refused() {
    let other_account = DATABASE.replace("123456789012", "210987654321");
    for (fields, code, named) in [
        (json!({"username": "app"}), Code::Field, "field \"username\" is \"app\", and the user of"),
        (
            json!({"host": "other.abc.us-east-1.rds.amazonaws.com"}),
            Code::Field,
            "no endpoint of arn:aws:rds:us-east-1:123456789012:db:db: that is at localhost",
        ),
        (json!({"host": "localhost", "port": 5432}), Code::Field, "field \"port\" is 5432, and"),
        (json!({"dbInstanceIdentifier": null}), Code::Field, "none of the fields"),
        (json!({"dbInstanceIdentifier": null, "host": "db.example.com"}), Code::Field, "does not say which database"),
        (
            json!({"dbInstanceIdentifier": null, "host": "db.abc.eu-central-1.rds.amazonaws.com"}),
            Code::Field,
            "is in eu-central-1",
        ),
        (
            json!({"dbInstanceIdentifier": null, "dbarn": other_account}),
            Code::Field,
            "not in the account of the secret",
        ),
        (
            json!({"dbInstanceIdentifier": null, "dbarn": DATABASE.replace("us-east-1", "eu-central-1")}),
            Code::Field,
            "not in the Region of the secret",
        ),
        (json!({"dbInstanceIdentifier": null, "dbarn": "db"}), Code::Field, "must be an ARN"),
        (json!({"dbInstanceIdentifier": other_account}), Code::Field, "not in the account of the secret"),
        (json!({"dbInstanceIdentifier": "*"}), Code::Field, "field \"dbInstanceIdentifier\" is no identifier"),
        (
            json!({"dbInstanceIdentifier": null, "dbarn": DATABASE.replace(":db:db", ":db:*")}),
            Code::Field,
            "\"dbarn\" is no identifier",
        ),
        (json!({"host": "localhost", "sslmode": "maybe"}), Code::Field, "sslmode"),
    ] {
        let master = Master::start(&with(&plain(), fields.clone()), Database::new("DBInstance", "postgres"));
        let error = failure(&master.world, "createSecret").await;
        assert_error(&error, Class::Config, code, named);
        assert!(master.aws.log().iter().all(|asked| asked.action() == "DescribeDBInstances"), "{fields}");
    }
    // Not asked again before the change, nothing would hold a host that was changed meanwhile.
    let master = Master::start(&with(&plain(), json!({"host": "localhost"})), Database::new("DBInstance", "postgres"));
    master.world.step("createSecret").await.unwrap();
    master.database().host = "elsewhere.invalid".to_owned();
    let error = failure(&master.world, "setSecret").await;
    assert_error(&error, Class::Config, Code::Field, "that is at elsewhere.invalid");
    assert_eq!(master.database().passwords.len(), 0);
}

#[tokio::test]
async fn refusals_of_the_service_name_what_is_missing() {
    for (reply, class, code, named) in [
        (Reply::refuse("AccessDenied"), Class::Config, Code::AccessDenied, "hint: allow rds:ModifyDBInstance on it"),
        (
            Reply::refuse("InvalidParameterCombination"),
            Class::Config,
            Code::Request,
            "InvalidParameterCombination: said so",
        ),
    ] {
        let mut database = Database::new("DBInstance", "postgres");
        database.refusals = vec![reply];
        let master = Master::start(&plain(), database);
        let error = failure(&master.world, "setSecret").await;
        assert_error(&error, class, code, named);
        assert!(error.to_string().contains(DATABASE), "{error}");
    }
    // A password that the service does not take ends this rotation, and the next one begins with another.
    let mut database = Database::new("DBInstance", "postgres");
    database.refusals = vec![Reply::refuse("InvalidParameterValue")];
    let master = Master::start(&plain(), database);
    master.world.step("createSecret").await.unwrap();
    let refused = master.password("AWSPENDING");
    let error = master.world.step("setSecret").await.unwrap_err();
    assert_error(&error, Class::Config, Code::PasswordPolicy, "AWSPENDING is taken away");
    assert!(!error.to_string().contains(&refused), "{error}");
    assert_eq!(master.world.value("AWSPENDING"), None);
    // A role that may not even look.
    let master = Master::start(&plain(), Database::new("DBInstance", "postgres"));
    master.aws.rule(|_| Reply::refuse("AccessDenied"));
    let error = failure(&master.world, "createSecret").await;
    assert_error(&error, Class::Config, Code::AccessDenied, "allow rds:DescribeDBInstances on it");
}

#[tokio::test]
async fn lengths_are_those_of_the_engine() {
    for (element, engine, longest) in [
        ("DBInstance", "mysql", 41),
        ("DBInstance", "mariadb", 41),
        ("DBInstance", "oracle-ee", 30),
        ("DBInstance", "postgres", 128),
        ("DBInstance", "sqlserver-ex", 128),
        ("DBInstance", "db2-se", 255),
        ("DBCluster", "aurora-postgresql", 41),
        ("DBCluster", "mysql", 41),
        ("DBCluster", "docdb", 100),
    ] {
        for (length, fits) in [(7, false), (8, true), (longest, true), (longest + 1, false)] {
            let secret = if element == "DBCluster" {
                with(&plain(), json!({"dbInstanceIdentifier": null, "dbClusterIdentifier": "db"}))
            } else {
                plain()
            };
            let mut master = Master::start(&secret, Database::new(element, engine));
            master.world.settings.passwords = Environment::read(|name| match name {
                "PASSWORD_LENGTH" => Some(length.to_string()),
                // Nothing but what the service refuses is left out.
                "EXCLUDE_CHARACTERS" => Some(String::new()),
                _ => None,
            });
            match master.world.step("createSecret").await {
                Ok(_) => {
                    let password = master.password("AWSPENDING");
                    assert!(fits && password.len() == length && !password.contains(['/', '"', '@', ' ']), "{engine}");
                    assert!(!engine.starts_with("oracle") || !password.contains(['&', '\'']), "{engine}");
                }
                Err(error) => {
                    assert!(!fits, "{engine}: {error}");
                    assert_error(&error, Class::Config, Code::Environment, &format!("PASSWORD_LENGTH is {length}"));
                    assert!(error.to_string().contains(&format!("from 8 to {longest} characters")), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_password_changed_by_others_is_told_by_the_sign_in() {
    let (server, database, secret) = real("DBInstance", "postgres").await;
    let master = Master::start(&with(&secret, json!({"kind": "rds-master", "dbInstanceIdentifier": "db"})), database);
    master.world.step("createSecret").await.unwrap();
    master.world.step("setSecret").await.unwrap();
    server.execute(&format!("ALTER ROLE {USER} PASSWORD 'another'")).await.unwrap();
    for step in ["testSecret", "finishSecret"] {
        let error = failure(&master.world, step).await;
        assert_eq!(error.code(), Code::WrongPassword, "{error}");
    }
}

/// moto tells of no change under way, so each rotation waits for one to show.
#[tokio::test]
async fn moto_takes_every_way_to_name_a_database() {
    let moto = Moto::start().await.unwrap();
    let made = moto.run("tests/moto/create_masters.py", &[]).unwrap();
    let host =
        |name: &str| made.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().to_owned();
    let aws = StandIn::start(Some(moto.url()));
    let secret =
        |fields: Value| with(&json!({"kind": "rds-master", "username": USER, "password": "A password 1"}), fields);
    let rotations = [
        (secret(json!({"dbInstanceIdentifier": "one"})), "ModifyDBInstance", "DBInstanceIdentifier", "one"),
        (secret(json!({"host": host("one"), "port": 5433})), "ModifyDBInstance", "DBInstanceIdentifier", "one"),
        (secret(json!({"dbInstanceIdentifier": "oracle"})), "ModifyDBInstance", "DBInstanceIdentifier", "oracle"),
        (
            secret(json!({"dbarn": "arn:aws:rds:us-east-1:123456789012:cluster:many"})),
            "ModifyDBCluster",
            "DBClusterIdentifier",
            "many",
        ),
        (secret(json!({"host": host("many")})), "ModifyDBCluster", "DBClusterIdentifier", "many"),
        (
            secret(json!({"dbInstanceIdentifier": "member", "host": host("member")})),
            "ModifyDBCluster",
            "DBClusterIdentifier",
            "many",
        ),
        (
            json!({"kind": "redshift-admin", "dbClusterIdentifier": "warehouse", "username": USER, "password": "A password 1"}),
            "ModifyCluster",
            "ClusterIdentifier",
            "warehouse",
        ),
    ];
    join_all(rotations.into_iter().map(async |(secret, action, field, name)| {
        let mut world = world(&secret);
        world.services.other = Some(aws.services());
        let notes = world.rotate_with_notes(TOKEN).await.unwrap();
        assert!(notes.len() == 2 && notes[0].contains("not signed in, but arn:aws:"), "{secret}: {notes:?}");
        let password = world.field("AWSCURRENT", "password");
        let change =
            aws.log().into_iter().find(|it| it.action() == action && it.form("MasterUserPassword") == password);
        assert_eq!(change.unwrap().form(field).as_deref(), Some(name), "{secret}");
    }))
    .await;
    for (fields, named) in [
        (json!({"dbInstanceIdentifier": "managed"}), "RDS manages itself, in the secret arn:aws:secretsmanager"),
        (json!({"dbInstanceIdentifier": "copy"}), "replicates one"),
        (json!({"dbClusterIdentifier": "graph"}), "Neptune"),
    ] {
        let mut world = world(&secret(fields));
        world.services.other = Some(aws.services());
        let error = world.step("createSecret").await.unwrap_err();
        assert_error(&error, Class::Config, Code::Field, named);
    }
    for (fields, code) in [
        (json!({"dbInstanceIdentifier": "gone"}), "DBInstanceNotFound"),
        (json!({"dbClusterIdentifier": "gone"}), "DBClusterNotFoundFault"),
    ] {
        let mut world = world(&secret(fields));
        world.services.other = Some(aws.services());
        let error = world.step("createSecret").await.unwrap_err();
        assert_error(&error, Class::Config, Code::Request, code);
        assert!(error.remedy().contains("exists in this account and Region"), "{error}");
    }
}

#[tokio::test]
async fn the_password_that_redshift_is_told_signs_in() {
    let (server, mut database, secret) = real("Cluster", "redshift").await;
    database.pending = 4;
    let master = Master::start(&with(&secret, json!({"dbClusterIdentifier": "wh"})), database);
    master.world.tag("keywheel:kind", "redshift-admin");
    let notes = master.world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let new = master.password("AWSCURRENT");
    server.connect(USER, &new).await.unwrap();
    let change = master.aws.log().into_iter().find(|asked| asked.action() == "ModifyCluster").unwrap();
    assert_eq!(change.form("ClusterIdentifier").as_deref(), Some("wh"));
    assert_eq!(change.form("MasterUserPassword"), Some(new.clone()));
    assert!(new.len() == 32 && !new.contains(['\'', '"', '\\', '/', '@', ' ']), "{new}");

    let (server, database, secret) = real("namespace", "redshift").await;
    let fields = json!({"kind": "redshift-admin", "namespaceName": "apps", "namespacearn": NAMESPACE});
    let master = Master::start(&with(&secret, fields), database);
    let notes = master.world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let new = master.password("AWSCURRENT");
    server.connect(USER, &new).await.unwrap();
    let change = master.aws.log().into_iter().find(|asked| asked.action() == "UpdateNamespace").unwrap();
    assert_eq!(change.json(), json!({"namespaceName": "apps", "adminUsername": USER, "adminUserPassword": new}));
    assert!(
        master.aws.log().iter().all(|asked| !asked.action().starts_with("List")),
        "lists know no narrower resource"
    );
}

#[allow(clippy::too_many_lines, reason = "one table of cases")]
#[tokio::test]
async fn redshifts_refusals_and_statuses() {
    let managed = "<MasterPasswordSecretArn>arn:of:the:secret</MasterPasswordSecretArn>";
    for (secret, element, extra, status, code, named) in [
        (
            of_redshift(),
            "Cluster",
            managed,
            "available",
            Code::Field,
            "Redshift manages itself, in the secret arn:of:the:secret",
        ),
        (
            of_serverless(),
            "namespace",
            r#"{"adminPasswordSecretArn":"arn:of:the:secret"}"#,
            "AVAILABLE",
            Code::Field,
            "arn:of:the:secret",
        ),
        (
            with(&of_redshift(), json!({"username": "app"})),
            "Cluster",
            "",
            "available",
            Code::Field,
            "field \"username\" is \"app\"",
        ),
        (
            with(&of_serverless(), json!({"username": "app"})),
            "namespace",
            "",
            "AVAILABLE",
            Code::Field,
            "field \"username\" is \"app\"",
        ),
        (of_redshift(), "Cluster", "", "paused", Code::NotReady, "hint: resume it"),
        (of_redshift(), "Cluster", "", "incompatible-network", Code::NotReady, "see Redshift's events"),
        (of_serverless(), "namespace", "", "DELETING", Code::NotReady, "is `DELETING`"),
        (
            with(&of_redshift(), json!({"host": "other.invalid"})),
            "Cluster",
            "",
            "available",
            Code::Field,
            "is at localhost, and field \"host\" is \"other.invalid\"",
        ),
        (
            with(&of_redshift(), json!({"dbClusterIdentifier": "a:b"})),
            "Cluster",
            "",
            "available",
            Code::Field,
            "is no name of Redshift",
        ),
        (
            with(&of_redshift(), json!({"dbClusterIdentifier": null})),
            "Cluster",
            "",
            "available",
            Code::Field,
            "none of the fields",
        ),
        (
            with(&of_redshift(), json!({"clusterarn": WAREHOUSE.replace("us-east-1", "eu-west-1")})),
            "Cluster",
            "",
            "available",
            Code::Field,
            "not in the Region",
        ),
        (
            with(&of_redshift(), json!({"clusterarn": WAREHOUSE.replace("123456789012", "210987654321")})),
            "Cluster",
            "",
            "available",
            Code::Field,
            "not in the account",
        ),
        (
            with(&of_serverless(), json!({"namespaceName": null, "namespacearn": NAMESPACE})),
            "namespace",
            "",
            "AVAILABLE",
            Code::Field,
            "field \"namespaceName\" is missing",
        ),
        (
            with(&of_serverless(), json!({"namespacearn": NAMESPACE.replace("0a1b", "ffff")})),
            "namespace",
            "",
            "AVAILABLE",
            Code::Field,
            "is not what field \"namespaceName\" names",
        ),
        (
            of_serverless(),
            "namespace",
            r#"{"namespaceArn":"arn:aws:redshift-serverless:us-east-1:210987654321:namespace/x"}"#,
            "AVAILABLE",
            Code::Field,
            "210987654321",
        ),
    ] {
        let mut database = Database::new(element, "redshift");
        (database.extra, database.statuses) = (extra.to_owned(), vec![status]);
        let master = Master::start(&secret, database);
        let error = failure(&master.world, "createSecret").await;
        assert_error(&error, Class::Config, code, named);
        assert_eq!(master.database().passwords.len(), 0);
    }
    // What is under way, here or by somebody else, is outwaited; without a way to sign in Redshift's word counts.
    for (secret, element, refusal, statuses, why) in [
        (
            with(&of_redshift(), json!({"clusterarn": WAREHOUSE})),
            "Cluster",
            Reply::refuse("InvalidClusterState"),
            vec!["available", "modifying", "available, prep-for-resize"],
            "nothing listens at localhost:1",
        ),
        (
            of_serverless(),
            "namespace",
            Reply::refuse_json(400, "ConflictException", "said so"),
            vec!["AVAILABLE", "MODIFYING", "AVAILABLE"],
            "the secret has no field \"host\"",
        ),
    ] {
        let mut database = Database::new(element, "redshift");
        (database.refusals, database.statuses) = (vec![refusal], statuses);
        let master = Master::start(&secret, database);
        let notes = master.world.rotate_with_notes(TOKEN).await.unwrap();
        assert!(notes.len() == 2 && notes[0].contains(why), "{notes:?}");
        assert_eq!(master.database().passwords, [master.password("AWSCURRENT")]);
    }
    for (secret, element, refusal) in [
        (of_redshift(), "Cluster", Reply::refuse("InvalidParameterValue")),
        (of_serverless(), "namespace", Reply::refuse_json(400, "ValidationException", "said so")),
    ] {
        let mut database = Database::new(element, "redshift");
        database.refusals = vec![refusal];
        let master = Master::start(&secret, database);
        let error = {
            master.world.step("createSecret").await.unwrap();
            master.world.step("setSecret").await.unwrap_err()
        };
        assert_error(&error, Class::Config, Code::PasswordPolicy, "AWSPENDING is taken away");
    }
    for (secret, element, action) in [
        (of_redshift(), "Cluster", "redshift:ModifyCluster"),
        (of_serverless(), "namespace", "redshift-serverless:UpdateNamespace"),
    ] {
        let mut database = Database::new(element, "redshift");
        let denied = if element == "namespace" {
            Reply::refuse_json(400, "AccessDeniedException", "said so")
        } else {
            Reply::refuse("AccessDenied")
        };
        database.refusals = vec![denied];
        let master = Master::start(&secret, database);
        let error = failure(&master.world, "setSecret").await;
        assert_error(&error, Class::Config, Code::AccessDenied, &format!("hint: allow {action} on it"));
    }
    for (length, fits) in [(7, false), (8, true), (64, true), (65, false)] {
        let mut master = Master::start(&of_redshift(), Database::new("Cluster", "redshift"));
        master.world.settings.passwords =
            Environment::read(|name| (name == "PASSWORD_LENGTH").then(|| length.to_string()));
        let code = master.world.step("createSecret").await.err().map(|error| error.code());
        assert_eq!(code, (!fits).then_some(Code::Environment), "{length}");
    }
}
