//! An Amazon Redshift login: drop-in for the secrets of AWS's `SecretsManagerRedshiftRotationSingleUser` and, if it names an
//! administrator, of `SecretsManagerRedshiftRotationMultiUser`. Provisioned clusters and Serverless.
//!
//! Redshift comes from PostgreSQL 8.0 and speaks its protocol, so the connection is that of `postgres`. The statements are
//! Redshift's own: it has users, groups and roles side by side.

mod alternating;
mod rights;

use async_trait::async_trait;
use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::md5;
use tokio_postgres::error::SqlState;

use super::postgres::connect::{Failure, Server, Session};
use super::postgres::{alter_error, run_probe};
use crate::error::{Code, Error, Result, Which};
use crate::kind::{Field, Rotation, Settings};
use crate::secret::Exposed;
use crate::sql::{self, Dual, Engine, Login, Pair, Profile};
use crate::tls::{Ask, Mode};

/// `engine` redshift.
pub(super) struct Redshift;

const PROFILE: Profile = Profile {
    names: &["redshift"],
    summary: "an Amazon Redshift login, single user or alternating users; provisioned and Serverless",
    example: r#"{"engine":"redshift","host":"wh.abc.eu-central-1.redshift.amazonaws.com","port":5439,"dbname":"app","username":"app","password":"…"}"#,
    fields: &[
        Field::optional("engine", "redshift", "`redshift`; without it, `kind` or a tag must name the kind"),
        Field::required("host", "name of the cluster's or workgroup's endpoint"),
        Field::optional("port", "5439", "a number, or text with digits").number(),
        Field::optional(
            "dbname",
            "dev",
            "the database to sign in to; alternating users: also the one in which rights are compared",
        ),
        sql::USERNAME,
        sql::PASSWORD,
        sql::MASTERARN,
        sql::STRATEGY,
        sql::EXTRAS,
        Field::setting("sslmode", "`verify-full` or `verify-ca`").default("verify-full"),
        Field::setting("ssl", "ignored, as by AWS's function; TLS is always verified"),
        sql::SSLROOTCERT,
        sql::SSLCERT,
        sql::SSLKEY,
        sql::PROBE,
    ],
    port: 5439,
    database: Some("dev"),
    excluded: ":/@\"'\\",
    dual: false,
    replicas: false,
};

#[async_trait]
impl Engine for Redshift {
    type Session = Session;

    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn check_fields(&self, fields: Exposed<'_>) -> Result<()> {
        fields.optional("probe").map(drop)
    }

    /// MD5, which signs users in, is no protection on a wire that anyone may answer on, so nothing less than a trusted
    /// authority will do. Every Redshift has a certificate of a public one.
    fn tls<'a>(&self, fields: Exposed<'a>) -> Result<Ask<'a>> {
        let mode = match fields.optional("sslmode")? {
            None | Some("verify-full") => Mode::VerifyFull,
            Some("verify-ca") => Mode::VerifyCa,
            Some(_) => {
                let message = "field \"sslmode\" allows less than Redshift can do";
                return Err(Error::config(Code::Field, message).hint(
                    "`verify-full`, or `verify-ca` for a host name that the certificate has not; or take it out",
                ));
            }
        };
        Ask::with(mode, fields)
    }

    /// What Redshift keeps of a name.
    fn name_limit(&self, _: &Settings) -> Result<(usize, &'static str)> {
        Ok((127, "bytes"))
    }

    async fn sign_in(&self, login: &Login<'_>, password: &str, which: Which) -> Result<Session> {
        Session::open(Server::Redshift, login, password, which).await
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
        let statement = set_password(user, login.password);
        rotation.changing();
        match session.change(&statement).await {
            Ok(()) => Ok(()),
            Err(Failure::Other(error)) => Err(error),
            Err(Failure::State(state)) => {
                rotation.unchanged();
                Err(password_error(&state, user, session.place()))
            }
        }
    }

    async fn prepare(&self, rotation: &Rotation<'_>, admin: &mut Session, pair: &Pair<'_>) -> Result<()> {
        alternating::prepare(self, rotation, admin, pair).await
    }

    async fn check(&self, session: &mut Session, login: &Login<'_>, _pair: Option<&str>) -> Result<()> {
        run_probe(session, login.fields.optional("probe")?).await
    }
}

fn set_password(user: &str, password: &str) -> String {
    format!("ALTER USER {} PASSWORD {}", escape_identifier(user), verifier(user, password))
}

/// What the server is told instead of the password, as a literal: its statement log and `STL_DDLTEXT` hold what it is told,
/// and the password policy looks at clear text only.
///
/// Redshift also takes `sha256|digest|salt`. Users with such a password sign in by a message of Redshift's own
/// (`AuthenticationDigest`, 13), which Amazon's newer drivers know and libpq, psycopg2 and the driver here do not; any driver
/// knows MD5. New passwords are random, so that there is nothing to guess back from a hash.
fn verifier(user: &str, password: &str) -> String {
    escape_literal(&md5(password.as_bytes(), user))
}

fn password_error(state: &SqlState, user: &str, place: &str) -> Error {
    match *state {
        SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::config(Code::Privilege, format!("{place} does not let user {user:?} change its own password"))
                .hint("an administrator can set it; alternating users (`masterarn`) need no such right")
        }
        _ => alter_error(state, user, place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn the_statement_is_redshifts_and_has_no_password() {
        assert_eq!(
            set_password("Odd \"name\"", "pass"),
            // md5 of `passOdd "name"`, by another program.
            "ALTER USER \"Odd \"\"name\"\"\" PASSWORD 'md53e0951fcdb6738ba87ab4462137d6116'"
        );
    }

    #[test]
    fn tls_is_always_verified() {
        for (fields, expected) in [
            ("{}", Some(Mode::VerifyFull)),
            (r#"{"ssl":false}"#, Some(Mode::VerifyFull)),
            (r#"{"ssl":"nonsense","sslmode":"verify-full"}"#, Some(Mode::VerifyFull)),
            (r#"{"ssl":true,"sslmode":"verify-ca"}"#, Some(Mode::VerifyCa)),
            (r#"{"sslmode":"require"}"#, None),
            (r#"{"sslmode":"disable","ssl":false}"#, None),
            (r#"{"sslmode":"prefer"}"#, None),
        ] {
            let secret = Secret::parse(fields.to_owned()).unwrap();
            match (Redshift.tls(secret.expose()), expected) {
                (Ok(ask), Some(mode)) => assert_eq!(ask.mode, mode, "{fields}"),
                (Err(error), None) => {
                    assert_eq!(error.code(), Code::Field, "{fields}");
                    assert!(error.to_string().contains("hint: `verify-full`"), "{error}");
                }
                (_, expected) => panic!("{fields}: not {expected:?}"),
            }
        }
    }
}
