//! The kinds of rotation: what each needs, and how to see that it has rotated.

use std::rc::Rc;

use keywheel::event::Step;
use keywheel::store::memory::{Payload, Refusal};
use keywheel_dev::emulator::Emulator;
use keywheel_dev::{mysql, postgres};
use serde_json::{Value, json};

use crate::{Result, check};

const FIRST_PASSWORD: &str = "the password before";
const FIRST_VERSION: &str = "11111111-0000-4000-8000-000000000000";

/// Whose password rotates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Users {
    /// The login changes its own.
    One,
    /// The login changes its own, and the old one stays valid until the next time.
    OneKeepingTheOld,
    /// Two take turns, with an administrator whose secret has everything.
    Two,
    /// Two take turns, with an administrator whom RDS manages: its secret has user name and password alone.
    TwoOfRds,
}

/// A server with logins.
pub(crate) enum Database {
    Postgres(postgres::Server),
    MariaDb(mysql::Server),
    MySql(mysql::Server),
}

impl Database {
    pub(crate) fn engine(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::MariaDb(_) => "mariadb",
            Self::MySql(_) => "mysql",
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Postgres(server) => server.port(),
            Self::MariaDb(server) | Self::MySql(server) => server.port(),
        }
    }

    /// The certificate of its authority.
    pub(crate) fn root(&self) -> &str {
        match self {
            Self::Postgres(server) => server.root(),
            Self::MariaDb(server) | Self::MySql(server) => server.root(),
        }
    }

    fn administrator(&self) -> (&'static str, &'static str) {
        match self {
            Self::Postgres(_) => ("postgres", postgres::SUPERUSER_PASSWORD),
            Self::MariaDb(_) | Self::MySql(_) => ("root", mysql::ROOT_PASSWORD),
        }
    }

    /// Makes a login with the rights of an application.
    async fn create(&self, user: &str, users: Users) -> Result<()> {
        match self {
            Self::Postgres(server) => {
                let create = format!("CREATE ROLE {user} LOGIN PASSWORD '{FIRST_PASSWORD}'");
                server.execute(&format!("{create}; CREATE SCHEMA {user} AUTHORIZATION {user}")).await?;
            }
            Self::MariaDb(server) | Self::MySql(server) => {
                let create = format!("CREATE USER {user} IDENTIFIED BY '{FIRST_PASSWORD}'");
                server.execute(&format!("{create}; CREATE DATABASE {user}; GRANT ALL ON {user}.* TO {user}")).await?;
                if users == Users::OneKeepingTheOld {
                    server.execute(&format!("GRANT APPLICATION_PASSWORD_ADMIN ON *.* TO {user}")).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether whoever `value` is for may sign in.
    async fn admits(&self, value: &Value) -> bool {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        let (user, password) = (text("username"), text("password"));
        match self {
            Self::Postgres(server) => server.connect(user, password).await.is_ok(),
            Self::MariaDb(server) | Self::MySql(server) => server.connect(user, password).await.is_ok(),
        }
    }
}

/// A secret, and what is known of it after each rotation.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    secret: String,
    login: Option<(Rc<Database>, Users)>,
    rotations: u32,
    /// What the secret held before.
    value: Value,
}

impl Scenario {
    /// Makes the secret in Secrets Manager, and on its server the login `user`; without a server, it is of a token.
    pub(crate) async fn new(
        emulator: &Emulator,
        name: &'static str,
        user: &str,
        login: Option<(&Rc<Database>, Users)>,
    ) -> Result<Self> {
        let secret = format!("keywheel/{user}");
        let value = match login {
            None => json!({"kind": "random", "token": "the token before"}),
            Some((database, users)) => {
                database.create(user, users).await?;
                let mut value = json!({"engine": database.engine(), "host": "localhost", "port": database.port(),
                    "dbname": if database.engine() == "postgres" { "postgres" } else { user },
                    "username": user, "password": FIRST_PASSWORD});
                match users {
                    // MySQL would keep the old password, where the login may.
                    Users::One if database.engine() == "mysql" => value["strategy"] = json!("single-user"),
                    Users::One => {}
                    Users::OneKeepingTheOld => value["strategy"] = json!("dual-password"),
                    Users::Two | Users::TwoOfRds => {
                        value["masterarn"] = json!(administrator(emulator, &secret, database, users)?);
                    }
                }
                value
            }
        };
        create(emulator, &secret, &value)?;
        let login = login.map(|(database, users)| (database.clone(), users));
        Ok(Self { name, secret, login, rotations: 0, value })
    }

    /// The most calls that are promised: to Secrets Manager, and to the rest of AWS.
    pub(crate) fn promised(&self) -> (usize, usize) {
        match self.login {
            None | Some((_, Users::One | Users::OneKeepingTheOld)) => (11, 0),
            // The administrator's secret is read.
            Some((_, Users::Two)) => (12, 0),
            // It is described too, and RDS is asked for the place.
            Some((_, Users::TwoOfRds)) => (13, 1),
        }
    }

    /// Begins a rotation; returns the events of its steps.
    pub(crate) fn begin(&mut self, emulator: &Emulator) -> Result<[Value; 4]> {
        self.rotations += 1;
        let token = self.token();
        emulator.begin_rotation(&self.secret, &token).map_err(explained)?;
        Ok(Step::ALL.map(|step| json!({"Step": step.as_str(), "SecretId": self.secret, "ClientRequestToken": token})))
    }

    /// Holds the rotation that has ended to what it is for.
    pub(crate) async fn check(&mut self, emulator: &Emulator) -> Result<()> {
        let (version, value, _) = emulator.service().get(&self.secret, None, Some("AWSCURRENT")).map_err(explained)?;
        let Payload::Text(value) = value else { return Err("the secret is binary".into()) };
        let value: Value = serde_json::from_str(&value)?;
        let check = |what: &str, holds| check(&format!("{}: {what}", self.name), holds);
        check("AWSCURRENT has moved", version == self.token())?;
        match &self.login {
            None => check("the token is new", value["token"].is_string() && value["token"] != self.value["token"])?,
            Some((database, users)) => {
                check("the new password signs in", database.admits(&value).await)?;
                let before = database.admits(&self.value).await;
                check("the old password works, if it is to be kept", before == (*users != Users::One))?;
                let other = value["username"] != self.value["username"];
                let alternate = matches!(users, Users::Two | Users::TwoOfRds);
                check("the user is another one, if users alternate", other == alternate)?;
            }
        }
        self.value = value;
        Ok(())
    }

    fn token(&self) -> String {
        format!("11111111-0000-4000-8000-{:012}", self.rotations)
    }
}

/// Makes the administrator's secret beside `secret`; returns its ARN.
fn administrator(emulator: &Emulator, secret: &str, database: &Database, users: Users) -> Result<String> {
    let (user, password) = database.administrator();
    let mut value = json!({"username": user, "password": password});
    if users == Users::Two {
        value["engine"] = json!(database.engine());
        value["host"] = json!("localhost");
        value["port"] = json!(database.port());
    }
    let arn = create(emulator, &format!("{secret}-administrator"), &value)?;
    if users == Users::TwoOfRds {
        let (tag, instance) = ("aws:rds:primaryDBInstanceArn", "arn:aws:rds:us-east-1:123456789012:db:one");
        let tagged = emulator.service().edit(&arn, |record| record.tags.insert(tag.to_owned(), instance.to_owned()));
        tagged.map_err(explained)?;
    }
    Ok(arn)
}

fn create(emulator: &Emulator, secret: &str, value: &Value) -> Result<String> {
    Ok(emulator.service().create(secret, FIRST_VERSION, Some(Payload::Text(value.to_string()))).map_err(explained)?)
}

fn explained(refusal: Refusal) -> String {
    refusal.message
}
