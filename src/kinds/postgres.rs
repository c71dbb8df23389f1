//! A PostgreSQL login: drop-in for the secrets of AWS's `SecretsManagerRDSPostgreSQLRotationSingleUser` and, if it names an
//! administrator, of `SecretsManagerRDSPostgreSQLRotationMultiUser`.
//!
//! The server gets a verifier (SCRAM-SHA-256, or MD5 where the fleet is set to it) and
//! never the password, so neither its log nor `pg_stat_statements` can hold it.

mod alternating;
mod connect;

use async_trait::async_trait;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::{md5, scram_sha_256};
use serde_json::Value;
use tokio_postgres::error::SqlState;

use self::connect::{Failure, Session, server_error};
use crate::admin;
use crate::error::{Class, Code, Error, Result, Which};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::secret::{Exposed, Secret, SecretText};
use crate::tls::Mode;

/// `engine` postgres and aurora-postgresql, single user.
pub(super) struct Postgres;

const FIELDS: &[Field] = &[
    Field::optional(
        "engine",
        "postgres",
        "`postgres` or `aurora-postgresql`; without it, `kind` or a tag must name the kind",
    ),
    Field::required("host", "name of the server; of the writer, in a cluster"),
    Field::optional("port", "5432", "a number, or text with digits").number(),
    Field::optional("dbname", "postgres", "the database to sign in to"),
    Field::required("username", "the login"),
    Field::required("password", "the password"),
    Field::setting(
        "masterarn",
        "ARN of the administrator's secret, for two users that alternate; also `adminarn`. Without it the login changes its own password",
    ),
    Field::setting("sslmode", "`verify-full`, `verify-ca`, `require` or `disable`").default("verify-full"),
    Field::setting("ssl", "as AWS's functions know it: `false` is `disable`; `true` or absent is `verify-full`"),
    Field::setting("sslrootcert", "certificates in PEM to trust beside the public ones and those of RDS"),
    Field::setting("probe", "a statement for testSecret, run in a read-only transaction").default("SELECT 1"),
    Field::setting(
        "privileges",
        "what testSecret checks, as a list such as `SELECT, INSERT ON app.orders`, `USAGE ON SCHEMA app`",
    ),
];

/// AWS's default for PostgreSQL: these break connection strings and password files.
const EXCLUDED: &str = ":/@\"'\\";

/// Where a sign-in goes, and as whom.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Target<'a> {
    host: &'a str,
    port: u16,
    database: &'a str,
    user: &'a str,
}

impl<'a> Target<'a> {
    fn read(fields: Exposed<'a>) -> Result<Self> {
        let port = fields.number("port", 1, 65_535)?.unwrap_or(5432);
        Ok(Self {
            host: fields.required("host")?,
            port: u16::try_from(port).unwrap_or(5432),
            database: fields.optional("dbname")?.filter(|name| !name.is_empty()).unwrap_or("postgres"),
            user: fields.required("username")?,
        })
    }

    fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A secret read in full: whatever is wrong with it shows before the first connection.
struct Login<'a> {
    target: Target<'a>,
    password: &'a str,
    tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    probe: Option<&'a str>,
    privileges: Vec<Privilege<'a>>,
}

impl<'a> Login<'a> {
    fn read(rotation: &Rotation<'_>, secret: &'a Secret) -> Result<Self> {
        let fields = secret.expose();
        let tls = rotation.settings.trust.client(Mode::of(fields)?, fields.optional("sslrootcert")?)?;
        Ok(Self {
            target: Target::read(fields)?,
            password: fields.required("password")?,
            tls,
            probe: fields.optional("probe")?,
            privileges: Privilege::read_all(fields)?,
        })
    }

    async fn sign_in(&self, password: &str, which: Which) -> Result<Session> {
        Session::open(&self.target, self.tls.clone(), password, which).await
    }
}

#[async_trait]
impl Kind for Postgres {
    fn names(&self) -> &'static [&'static str] {
        &["postgres", "aurora-postgresql"]
    }

    fn summary(&self) -> &'static str {
        "a PostgreSQL login, single user or alternating users; RDS, Aurora and self-managed"
    }

    fn example(&self) -> &'static str {
        r#"{"engine":"postgres","host":"db.example.com","port":5432,"dbname":"app","username":"app","password":"…"}"#
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn rotates(&self, _rotation: &Rotation<'_>, current: &Secret) -> Result<Vec<String>> {
        let mut fields = vec!["password".to_owned()];
        if admin::named(current)?.is_some() {
            fields.push("username".to_owned());
        }
        Ok(fields)
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        // Everything that set and test will need, so that a broken secret fails before anything is staged.
        let login = Login::read(rotation, current)?;
        let mut changes = vec![("password", rotation.settings.passwords.rules(EXCLUDED)?.generate()?)];
        if admin::named(current)?.is_some() {
            changes.push(("username", SecretText::from(alternating::other(login.target.user)?)));
        }
        Ok(current.with(changes))
    }

    /// Signs in with what is current first, so that the usual rotation has no refused sign-in at all.
    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        let pending = Login::read(rotation, versions.pending)?;
        if let Some(admin) = admin::named(versions.current)? {
            return alternating::set(rotation, &versions, &pending, admin).await;
        }
        let current = versions.current.expose().required("password")?;
        let refused = match pending.sign_in(current, Which::Current).await {
            Ok(session) => return set_password(rotation, session, &pending).await,
            Err(error) => only_wrong_password(error)?,
        };
        match pending.sign_in(pending.password, Which::Pending).await {
            // An earlier try has set it.
            Ok(session) => {
                session.close().await;
                return Ok(());
            }
            Err(error) => drop(only_wrong_password(error)?),
        }
        let mut tried = vec!["AWSCURRENT".to_owned(), "AWSPENDING".to_owned()];
        let mut passwords = vec![SecretText::from(current.to_owned()), SecretText::from(pending.password.to_owned())];
        let mut earlier = versions.earlier();
        while let Some((label, secret)) = earlier.next().await? {
            // The old password goes to the host of the new one, and only if it was for that host and user.
            let fields = secret.expose();
            let Ok(target) = Target::read(fields) else { continue };
            let Ok(password) = fields.required("password") else { continue };
            if (target.host, target.port, target.user)
                != (pending.target.host, pending.target.port, pending.target.user)
            {
                tried.push(format!("{label} (not tried: it is for another host, port or user)"));
                continue;
            }
            if passwords.iter().any(|it| it.expose() == password) {
                continue;
            }
            match pending.sign_in(password, Which::Current).await {
                Ok(session) => return set_password(rotation, session, &pending).await,
                Err(error) => drop(only_wrong_password(error)?),
            }
            tried.push(label);
            passwords.push(SecretText::from(password.to_owned()));
        }
        Err(refused.context(&format!("no known password works (tried {})", tried.join(", "))).hint(format!(
            "an administrator can set the password of user {:?} at {} to the one in AWSCURRENT; the next try goes on from there",
            pending.target.user,
            pending.target.place()
        )))
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        let login = Login::read(rotation, pending)?;
        let session = login.sign_in(login.password, Which::Pending).await?;
        let place = login.target.place();
        if admin::named(pending)?.is_some() {
            alternating::check(&session, &login.target).await?;
        }
        run_probe(&session, login.probe, &place).await?;
        for privilege in &login.privileges {
            privilege.check(&session, &login.target).await?;
        }
        session.close().await;
        Ok(())
    }
}

/// A wrong password lets the next candidate be tried; anything else ends the search, so that no lock is tripped.
fn only_wrong_password(error: Error) -> Result<Error> {
    if error.code() == Code::WrongPassword { Ok(error) } else { Err(error) }
}

/// Changes the session's own password to that of `login`.
async fn set_password(rotation: &Rotation<'_>, session: Session, login: &Login<'_>) -> Result<()> {
    let place = login.target.place();
    let user = login.target.user;
    // A role may act as another by default, which may not change this one's password.
    let settings = session
        .run("SET ROLE NONE; SELECT current_setting('password_encryption')")
        .await
        .map_err(|failure| plain(failure, &place))?;
    let encryption = settings.first().and_then(|row| row.first()).and_then(Option::as_deref);
    let verifier = verifier(encryption, user, login.password);
    let statement = format!("ALTER ROLE {} PASSWORD {}", escape_identifier(user), escape_literal(&verifier));
    rotation.changing();
    match session.run(&statement).await {
        Ok(_) => {
            session.close().await;
            Ok(())
        }
        Err(Failure::Other(error)) => Err(error),
        Err(Failure::State(state)) => {
            rotation.unchanged();
            Err(alter_error(&state, user, &place))
        }
    }
}

/// What the server stores instead of the password, by its setting `password_encryption`.
fn verifier(encryption: Option<&str>, user: &str, password: &str) -> String {
    match encryption {
        // `on` is how PostgreSQL 9 and 10 spell md5.
        Some("md5" | "on") => md5(password.as_bytes(), user),
        _ => scram_sha_256(password.as_bytes()),
    }
}

fn alter_error(state: &SqlState, user: &str, place: &str) -> Error {
    match *state {
        SqlState::READ_ONLY_SQL_TRANSACTION => {
            Error::config(Code::ReadOnly, format!("{place} is a read-only replica or in recovery"))
                .hint("put the name of the writer into `host`; after a failover the next try finds it")
        }
        SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::config(Code::Privilege, format!("{place} does not let user {user:?} change its own password"))
                .hint("with rds.restrict_password_commands, grant the role rds_password")
        }
        // passwordcheck and credcheck answer with these.
        SqlState::INVALID_PARAMETER_VALUE
        | SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        | SqlState::INVALID_PASSWORD
        | SqlState::FEATURE_NOT_SUPPORTED => Error::rejected(
            Which::Pending,
            Code::PasswordPolicy,
            format!("the password policy of {place} refuses the new password (SQLSTATE {})", state.code()),
        )
        .hint(
            "set PASSWORD_LENGTH and the EXCLUDE_… variables to what the policy wants, take AWSPENDING away with \
             `aws secretsmanager update-secret-version-stage`, and rotate anew",
        ),
        _ => server_error(state, place),
    }
}

fn plain(failure: Failure, place: &str) -> Error {
    match failure {
        Failure::State(state) => server_error(&state, place),
        Failure::Other(error) => error,
    }
}

async fn run_probe(session: &Session, probe: Option<&str>, place: &str) -> Result<()> {
    let Some(probe) = probe else {
        return session.run("SELECT 1").await.map(drop).map_err(|failure| plain(failure, place));
    };
    session.run("BEGIN READ ONLY").await.map_err(|failure| plain(failure, place))?;
    match session.run(probe).await {
        Ok(_) => Ok(()),
        Err(Failure::Other(error)) => Err(error.context("the probe")),
        Err(Failure::State(SqlState::INSUFFICIENT_PRIVILEGE)) => {
            let message = "the new credential signs in and may not run the statement in field \"probe\"";
            Err(Error::new(Class::Rejected(Which::Pending), Code::Privilege, message)
                .hint("grant what the statement needs, or change it"))
        }
        Err(Failure::State(state)) => {
            let message = format!("the statement in field \"probe\" fails with SQLSTATE {}", state.code());
            Err(Error::config(Code::Field, message).hint("run it by hand as this user, inside BEGIN READ ONLY"))
        }
    }
}

/// One privilege that testSecret asks for: `SELECT ON app.orders`, `USAGE ON SCHEMA app`.
struct Privilege<'a> {
    right: &'a str,
    function: &'static str,
    object: &'a str,
}

impl<'a> Privilege<'a> {
    fn read_all(fields: Exposed<'a>) -> Result<Vec<Self>> {
        let unusable = || {
            Error::config(Code::Field, "field \"privileges\" must be a list of texts such as \"SELECT ON app.orders\"")
                .hint("`PRIVILEGE[, …] ON [TABLE|SCHEMA|SEQUENCE|FUNCTION|DATABASE] name`")
        };
        let Some(value) = fields.value("privileges") else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for item in value.as_array().ok_or_else(unusable)? {
            let Value::String(text) = item else { return Err(unusable()) };
            let (rights, object) = text.split_once(" ON ").ok_or_else(unusable)?;
            let object = object.trim();
            let (function, object) = match object.split_once(' ') {
                Some(("TABLE", name)) => ("has_table_privilege", name),
                Some(("SCHEMA", name)) => ("has_schema_privilege", name),
                Some(("SEQUENCE", name)) => ("has_sequence_privilege", name),
                Some(("FUNCTION", name)) => ("has_function_privilege", name),
                Some(("DATABASE", name)) => ("has_database_privilege", name),
                _ => ("has_table_privilege", object),
            };
            let rights = rights.split(',').map(str::trim);
            found.extend(rights.map(|right| Self { right, function, object: object.trim() }));
        }
        if found.iter().any(|it| it.right.is_empty() || it.object.is_empty()) { Err(unusable()) } else { Ok(found) }
    }

    async fn check(&self, session: &Session, target: &Target<'_>) -> Result<()> {
        let Self { right, function, object } = self;
        let sql = format!("SELECT {function}({}, {})", escape_literal(object), escape_literal(right));
        match session.run(&sql).await {
            Ok(rows) if rows.first().and_then(|row| row.first()).is_some_and(|it| it.as_deref() == Some("t")) => Ok(()),
            Ok(_) => {
                let message = format!("user {:?} lacks {right} on {object}", target.user);
                Err(Error::rejected(Which::Pending, Code::Privilege, message)
                    .hint("grant it, or take it out of field \"privileges\""))
            }
            Err(Failure::Other(error)) => Err(error),
            Err(Failure::State(state)) => {
                let code = state.code();
                let message = format!("field \"privileges\": {right} on {object} cannot be checked (SQLSTATE {code})");
                Err(Error::config(Code::Field, message).hint("check that the object exists, and its spelling"))
            }
        }
    }
}
