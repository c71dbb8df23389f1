//! MySQL and MariaDB logins: drop-in for the secrets of AWS's rotation functions for RDS MySQL and RDS MariaDB, single user
//! and alternating users; and MySQL's dual passwords. What a server is shows when it is asked, not by `engine`.
//!
//! Where the server takes a verifier it never gets the password. A MySQL login that changes its own password must say it in
//! clear; MySQL keeps it out of its logs itself (`<secret>`), and writes the verifier to the binary log.

mod alternating;
mod connect;
mod grants;
mod verifier;

use async_trait::async_trait;

use self::connect::{Failure, Session};
use self::grants::{Account, Demands, literal};
use crate::error::{Class, Code, Error, Result, Which};
use crate::kind::{Field, Rotation, Settings};
use crate::secret::Exposed;
use crate::sql::{self, Dual, Engine, Login, Pair, Profile};

/// `engine` mysql, aurora-mysql and mariadb.
pub(super) struct MySql(pub(super) &'static Profile);

/// AWS's default for both: these break connection strings and option files.
const EXCLUDED: &str = "/@\"'\\";

const PORT: Field = Field::optional("port", "3306", "a number, or text with digits").number();
const DBNAME: Field = Field::optional("dbname", "", "the database to sign in to; none if it is absent or empty");

pub(super) const MYSQL: Profile = Profile {
    names: &["mysql", "aurora-mysql"],
    summary: "a MySQL login, single user, alternating users or dual password; RDS, Aurora and self-managed",
    example: r#"{"engine":"mysql","host":"db.example.com","port":3306,"dbname":"app","username":"app","password":"…"}"#,
    fields: &[
        Field::optional("engine", "mysql", "`mysql` or `aurora-mysql`; without it, `kind` or a tag must name the kind"),
        sql::HOST,
        PORT,
        DBNAME,
        sql::USERNAME,
        sql::PASSWORD,
        sql::MASTERARN,
        Field::setting(
            "strategy",
            "`single-user`, `alternating-users` or `dual-password`; without it `masterarn` chooses alternating users, and else the old password stays valid beside the new one where server and privileges allow it",
        ),
        sql::EXTRAS,
        sql::SSLMODE,
        sql::SSL,
        sql::SSLROOTCERT,
        sql::SSLCERT,
        sql::SSLKEY,
        sql::PROBE,
    ],
    port: 3306,
    database: None,
    excluded: EXCLUDED,
    dual: true,
    replicas: true,
};

pub(super) const MARIADB: Profile = Profile {
    names: &["mariadb"],
    summary: "a MariaDB login, single user or alternating users; RDS and self-managed",
    example: r#"{"engine":"mariadb","host":"db.example.com","port":3306,"dbname":"app","username":"app","password":"…"}"#,
    fields: &[
        Field::optional("engine", "mariadb", "`mariadb`; without it, `kind` or a tag must name the kind"),
        sql::HOST,
        PORT,
        DBNAME,
        sql::USERNAME,
        sql::PASSWORD,
        sql::MASTERARN,
        sql::STRATEGY,
        sql::EXTRAS,
        sql::SSLMODE,
        sql::SSL,
        sql::SSLROOTCERT,
        sql::SSLCERT,
        sql::SSLKEY,
        sql::PROBE,
    ],
    port: 3306,
    database: None,
    excluded: EXCLUDED,
    dual: false,
    replicas: true,
};

#[async_trait]
impl Engine for MySql {
    type Session = Session;

    fn profile(&self) -> &'static Profile {
        self.0
    }

    fn check_fields(&self, fields: Exposed<'_>) -> Result<()> {
        fields.optional("probe").map(drop)
    }

    /// MySQL's own limit, unless AWS's variable says another; AWS's function has 16 where it says nothing. MariaDB's is AWS's.
    fn name_limit(&self, settings: &Settings) -> Result<(usize, &'static str)> {
        let limit = match &settings.username_limit {
            _ if !self.0.dual => 80,
            None => 32,
            Some(text) => text.trim().parse().map_err(|_| {
                Error::config(Code::Environment, format!("USERNAME_CHARACTER_LIMIT is {text:?}, which is no number"))
            })?,
        };
        Ok((limit, "characters"))
    }

    fn name_length(&self, name: &str) -> usize {
        name.chars().count()
    }

    async fn sign_in(&self, login: &Login<'_>, password: &str, which: Which) -> Result<Session> {
        Session::open(login, password, which).await
    }

    async fn close(&self, session: Session) {
        session.close().await;
    }

    async fn renew(
        &self,
        rotation: &Rotation<'_>,
        session: &mut Session,
        login: &Login<'_>,
        old: &str,
        dual: Dual,
    ) -> Result<()> {
        let server = Server::of(session).await?;
        rotation.changing();
        let changed = if server.mariadb {
            set_own(session, login.password).await
        } else if server.version < (5, 7, 6) {
            session.run(&format!("SET PASSWORD = {}", literal(&verifier::native(login.password)))).await.map(drop)
        } else if server.version < (8, 0, 13) {
            session.run(&format!("ALTER USER USER() IDENTIFIED BY {}", literal(login.password))).await.map(drop)
        } else {
            self.replace(session, &server, login, old, dual).await
        };
        changed.map_err(|failure| match failure {
            Failure::Number(number) => {
                rotation.unchanged();
                change_error(number, login.target.user, session.place(), dual)
            }
            Failure::Other(error) => error,
        })
    }

    async fn prepare(&self, rotation: &Rotation<'_>, admin: &mut Session, pair: &Pair<'_>) -> Result<()> {
        alternating::prepare(self, rotation, admin, pair).await
    }

    async fn check(&self, session: &mut Session, login: &Login<'_>, _pair: Option<&str>) -> Result<()> {
        let Some(probe) = login.fields.optional("probe")? else { return session.ask("SELECT 1").await.map(drop) };
        session.ask("START TRANSACTION READ ONLY").await?;
        match session.run(probe).await {
            Ok(_) => Ok(()),
            Err(Failure::Other(error)) => Err(error.context("the probe")),
            Err(Failure::Number(1044 | 1142 | 1143 | 1227 | 1370)) => {
                let message = "the new credential signs in and may not run the statement in field \"probe\"";
                Err(Error::new(Class::Rejected(Which::Pending), Code::Privilege, message)
                    .hint("grant what the statement needs, or change it"))
            }
            Err(Failure::Number(number)) => {
                let message = format!("the statement in field \"probe\" fails with error {number}");
                Err(Error::config(Code::Field, message)
                    .hint("run it by hand as this user, inside START TRANSACTION READ ONLY"))
            }
        }
    }
}

impl MySql {
    /// MySQL from 8.0.13 on: the old password is named, so that the change fails when it is not the one in force but the
    /// second one that an earlier change has kept.
    async fn replace(
        &self,
        session: &mut Session,
        server: &Server,
        login: &Login<'_>,
        old: &str,
        dual: Dual,
    ) -> std::result::Result<(), Failure> {
        let change = format!("ALTER USER USER() IDENTIFIED BY {} REPLACE {}", literal(login.password), literal(old));
        let able = server.version >= (8, 0, 14);
        for again in [false, true] {
            let changed = if dual == Dual::Never || (dual == Dual::IfAble && !able) {
                session.run(&change).await
            } else {
                match session.run(&format!("{change} RETAIN CURRENT PASSWORD")).await {
                    // The privilege is missing (1227), the old password cannot be kept (3894, 3895), or this is no MySQL
                    // and does not know the words (1064).
                    Err(Failure::Number(1227 | 3894 | 3895 | 1064)) if dual == Dual::IfAble => {
                        session.run(&change).await
                    }
                    other => other,
                }
            };
            match changed {
                Err(Failure::Number(WRONG_OLD_PASSWORD)) if !again => {
                    // The old one is the second one. An earlier try has set the new one, or a rotation that was given up
                    // has set another: then the old one comes into force again first, so that at no moment it is refused.
                    match self.sign_in(login, login.password, Which::Pending).await {
                        Ok(session) => {
                            self.close(session).await;
                            return Ok(());
                        }
                        Err(error) if error.code() == Code::WrongPassword => {}
                        Err(error) => return Err(Failure::Other(error)),
                    }
                    session.run(&format!("ALTER USER USER() IDENTIFIED BY {}", literal(old))).await?;
                }
                other => return other.map(drop),
            }
        }
        Ok(())
    }
}

/// `ER_INCORRECT_CURRENT_PASSWORD`.
const WRONG_OLD_PASSWORD: u16 = 3891;
/// `ER_OPTION_PREVENTS_STATEMENT`: the server is read-only, or checks passwords and so wants to see them.
const OPTION_PREVENTS: u16 = 1290;

/// What a server is. Forks call themselves by MySQL's version, or put it before their own.
struct Server {
    mariadb: bool,
    version: (u16, u16, u16),
}

impl Server {
    /// Asks what the server is, and makes the session know backslashes in texts, whatever the server's default.
    async fn of(session: &mut Session) -> Result<Self> {
        let rows = session.ask("SELECT VERSION()").await?;
        let text = rows.first().and_then(|row| row.first()).and_then(Option::as_deref).unwrap_or_default();
        let server = Self::read(text);
        // Else GRANT would make accounts without a password that it does not find. MySQL 8 has neither word nor habit.
        let mode = if server.mariadb || server.version < (8, 0, 0) { "NO_AUTO_CREATE_USER" } else { "" };
        session.ask(&format!("SET SESSION sql_mode = '{mode}', sql_quote_show_create = 1")).await?;
        Ok(server)
    }

    fn read(text: &str) -> Self {
        let mariadb = text.to_ascii_lowercase().contains("mariadb");
        // For old replicas MariaDB used to put this first.
        let text = if mariadb { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        let mut numbers = text.split(|it: char| !it.is_ascii_digit()).map(|it| it.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self { mariadb, version: (next(), next(), next()) }
    }
}

/// MariaDB: gives the session's user a new password, as its plugin stores it.
async fn set_own(session: &mut Session, password: &str) -> std::result::Result<(), Failure> {
    let rows = session.run("SHOW CREATE USER").await?;
    let row = rows.first().and_then(|row| row.first()).and_then(Option::as_deref).unwrap_or_default();
    let account = Account::read(row, &Demands::default()).unwrap_or_default();
    set_password(session, "", account.plugin.as_deref(), password).await
}

/// MariaDB: `SET PASSWORD`, with `FOR account` in `whose` for another's.
async fn set_password(
    session: &mut Session,
    whose: &str,
    plugin: Option<&str>,
    password: &str,
) -> std::result::Result<(), Failure> {
    let in_clear = format!("SET PASSWORD{whose} = PASSWORD({})", literal(password));
    let hashed = match plugin {
        Some("mysql_native_password") => verifier::native(password),
        Some("ed25519") => verifier::ed25519(password),
        _ => return session.run(&in_clear).await.map(drop),
    };
    match session.run(&format!("SET PASSWORD{whose} = {}", literal(&hashed))).await {
        // With strict_password_validation the server wants to see what it checks.
        Err(Failure::Number(OPTION_PREVENTS)) => session.run(&in_clear).await.map(drop),
        other => other.map(drop),
    }
}

/// What the refusal of a change of password means.
fn change_error(number: u16, user: &str, place: &str, dual: Dual) -> Error {
    match number {
        OPTION_PREVENTS | 1836 => sql::read_only(place),
        1819 | 3638 => sql::policy(place, &format!("error {number}")),
        1227 | 3894 | 3895 if dual == Dual::Always => {
            let message =
                format!("user {user:?} at {place} may not keep its old password beside the new one (error {number})");
            Error::config(Code::Privilege, message).hint(format!(
                "`GRANT APPLICATION_PASSWORD_ADMIN ON *.* TO {}@…`, or take \"strategy\": \"dual-password\" out of the secret",
                literal(user)
            ))
        }
        1044 | 1131 | 1142 | 1227 | 3891 | 3892 => Error::config(
            Code::Privilege,
            format!("{place} does not let user {user:?} change its own password (error {number})"),
        )
        .hint("an administrator can set it; alternating users (`masterarn`) need no such right"),
        _ => connect::server_error(number, place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart() {
        for (text, mariadb, version) in [
            ("8.0.36", false, (8, 0, 36)),
            ("5.7.44-log", false, (5, 7, 44)),
            ("9.7.4-2", false, (9, 7, 4)),
            ("10.11.19-MariaDB-0+deb12u1", true, (10, 11, 19)),
            ("5.5.5-10.6.14-MariaDB-log", true, (10, 6, 14)),
            ("8.0.mysql_aurora.3.05.2", false, (8, 0, 0)),
        ] {
            let server = Server::read(text);
            assert_eq!((server.mariadb, server.version), (mariadb, version), "{text}");
        }
    }
}
