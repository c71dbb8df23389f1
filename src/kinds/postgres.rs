//! A PostgreSQL login: drop-in for the secrets of AWS's `SecretsManagerRDSPostgreSQLRotationSingleUser` and, if it names an
//! administrator, of `SecretsManagerRDSPostgreSQLRotationMultiUser`.
//!
//! The server gets a verifier (SCRAM-SHA-256, or MD5 where the fleet is set to it) and
//! never the password, so neither its log nor `pg_stat_statements` can hold it.

mod alternating;
pub(super) mod connect;

pub(super) use self::alternating::setting_value;

use async_trait::async_trait;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::{md5, scram_sha_256};
use serde_json::Value;
use tokio_postgres::error::SqlState;

use self::connect::{Failure, Server, Session, is_true, server_error, single};
use crate::error::{Class, Code, Error, Result, Which};
use crate::kind::{Field, Rotation, Settings};
use crate::secret::Exposed;
use crate::sql::{self, Dual, Engine, Login, Pair, Profile};

/// `engine` postgres and aurora-postgresql.
pub(super) struct Postgres;

const PROFILE: Profile = Profile {
    names: &["postgres", "aurora-postgresql"],
    summary: "a PostgreSQL login, single user or alternating users; RDS, Aurora and self-managed",
    example: r#"{"engine":"postgres","host":"db.example.com","port":5432,"dbname":"app","username":"app","password":"…"}"#,
    fields: &[
        Field::optional(
            "engine",
            "postgres",
            "`postgres` or `aurora-postgresql`; without it, `kind` or a tag must name the kind",
        ),
        sql::HOST,
        Field::optional("port", "5432", "a number, or text with digits").number(),
        Field::optional("dbname", "postgres", "the database to sign in to"),
        sql::USERNAME,
        sql::PASSWORD,
        sql::MASTERARN,
        sql::STRATEGY,
        Field::setting(
            "ownerrole",
            "alternating users: a NOLOGIN role that both users act as, so that it owns whatever they create. Without it they act as the base user",
        ),
        sql::EXTRAS,
        sql::SSLMODE,
        sql::SSL,
        sql::SSLROOTCERT,
        sql::SSLCERT,
        sql::SSLKEY,
        sql::PROBE,
        Field::setting(
            "privileges",
            "what testSecret checks, as a list such as `SELECT, INSERT ON app.orders`, `USAGE ON SCHEMA app`",
        ),
    ],
    port: 5432,
    database: Some("postgres"),
    excluded: ":/@\"'\\",
    dual: false,
    replicas: true,
};

#[async_trait]
impl Engine for Postgres {
    type Session = Session;

    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn check_fields(&self, fields: Exposed<'_>) -> Result<()> {
        fields.optional("probe")?;
        fields.optional("ownerrole")?;
        Privilege::read_all(fields).map(drop)
    }

    /// What PostgreSQL keeps of a name.
    fn name_limit(&self, _: &Settings) -> Result<(usize, &'static str)> {
        Ok((63, "bytes"))
    }

    async fn sign_in(&self, login: &Login<'_>, password: &str, which: Which) -> Result<Session> {
        Session::open(Server::Postgres, login, password, which).await
    }

    async fn close(&self, session: Session) {
        session.close().await;
    }

    async fn renew(
        &self,
        rotation: &Rotation<'_>,
        session: &mut Session,
        login: &Login<'_>,
        _old: &str,
        _dual: Dual,
    ) -> Result<()> {
        let user = login.target.user;
        // A role may act as another by default, which may not change this one's password.
        let encryption = session.ask("SET ROLE NONE; SELECT current_setting('password_encryption')").await?;
        let verifier = verifier(single(&encryption), user, login.password);
        let statement = format!("ALTER ROLE {} PASSWORD {}", escape_identifier(user), escape_literal(&verifier));
        rotation.changing();
        match session.change(&statement).await {
            Ok(()) => Ok(()),
            Err(Failure::Other(error)) => Err(error),
            Err(Failure::State(state)) => {
                rotation.unchanged();
                Err(alter_error(&state, user, session.place()))
            }
        }
    }

    async fn prepare(&self, rotation: &Rotation<'_>, admin: &mut Session, pair: &Pair<'_>) -> Result<()> {
        alternating::prepare(rotation, admin, pair).await
    }

    async fn check(&self, session: &mut Session, login: &Login<'_>, pair: Option<&str>) -> Result<()> {
        if let Some(base) = pair {
            alternating::check(session, login, base).await?;
        }
        run_probe(session, login.fields.optional("probe")?).await?;
        for privilege in Privilege::read_all(login.fields)? {
            privilege.check(session, login.target.user).await?;
        }
        Ok(())
    }
}

/// What the server stores instead of the password, by its setting `password_encryption`.
pub(super) fn verifier(encryption: Option<&str>, user: &str, password: &str) -> String {
    match encryption {
        // PostgreSQL 10 and older know no other hash; `off` there is for passwords that come in clear.
        Some("md5" | "on" | "off") => md5(password.as_bytes(), user),
        _ => scram_sha_256(password.as_bytes()),
    }
}

pub(super) fn alter_error(state: &SqlState, user: &str, place: &str) -> Error {
    match *state {
        SqlState::READ_ONLY_SQL_TRANSACTION => sql::read_only(place),
        SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::config(Code::Privilege, format!("{place} does not let user {user:?} change its own password"))
                .hint("with rds.restrict_password_commands, grant the role rds_password")
        }
        // passwordcheck and credcheck answer with these.
        SqlState::INVALID_PARAMETER_VALUE
        | SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        | SqlState::INVALID_PASSWORD
        | SqlState::FEATURE_NOT_SUPPORTED => sql::policy(place, &format!("SQLSTATE {}", state.code())),
        _ => server_error(state, place),
    }
}

pub(super) async fn run_probe(session: &Session, probe: Option<&str>) -> Result<()> {
    let Some(probe) = probe else {
        return session.ask("SELECT 1").await.map(drop);
    };
    session.ask("BEGIN READ ONLY").await?;
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

    async fn check(&self, session: &Session, user: &str) -> Result<()> {
        let Self { right, function, object } = self;
        let sql = format!("SELECT {function}({}, {})", escape_literal(object), escape_literal(right));
        match session.run(&sql).await {
            Ok(rows) if is_true(&rows) => Ok(()),
            Ok(_) => {
                let message = format!("user {user:?} lacks {right} on {object}");
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
