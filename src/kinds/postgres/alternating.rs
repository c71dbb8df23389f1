//! Alternating users: an administrator keeps `app` and `app_clone` alike, and each rotation gives the other one a new
//! password, so that pods which still hold the old login go on.
//!
//! The clone is a member of the base user, as AWS's functions make it: what the base user may do, it may do, now and later.
//! Beyond that it has the base user's settings, limits and attributes, and acts as the base user from the moment it signs
//! in (`ALTER ROLE … SET role`), so that whatever it creates belongs to both. Membership is also how a clone is known as
//! ours: a login that merely ends in `_clone`, or merely lacks it, is left alone.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio::net::lookup_host;
use tokio_postgres::error::SqlState;

use super::connect::{Failure, Session, server_error};
use super::{Login, Target, plain, verifier};
use crate::admin;
use crate::error::{Code, Error, Result, Which};
use crate::kind::{Rotation, Versions};

/// AWS's, for every engine that has one.
const SUFFIX: &str = "_clone";
/// What PostgreSQL keeps of a name, in bytes.
const LONGEST_NAME: usize = 63;

/// The base user's name: what the two have in common.
fn base(user: &str) -> &str {
    user.strip_suffix(SUFFIX).filter(|base| !base.is_empty()).unwrap_or(user)
}

/// The other user of the pair.
///
/// # Errors
/// Config, when its name would be too long.
pub(super) fn other(user: &str) -> Result<String> {
    let base = base(user);
    if base != user {
        return Ok(base.to_owned());
    }
    let clone = format!("{user}{SUFFIX}");
    if clone.len() > LONGEST_NAME {
        let message =
            format!("field \"username\" is too long for alternating users: {clone:?} has {} bytes", clone.len());
        return Err(Error::config(Code::Field, message).hint(format!(
            "at most {} bytes, since the other user's name ends in {SUFFIX}",
            LONGEST_NAME - SUFFIX.len()
        )));
    }
    Ok(clone)
}

/// Gives the pending user its password and everything that the other one has. Run again it repairs, and changes nothing
/// that is right; so it never asks first whether the pending password works, and refused sign-ins cost no lock.
pub(super) async fn set(
    rotation: &Rotation<'_>,
    versions: &Versions<'_>,
    pending: &Login<'_>,
    admin_arn: &str,
) -> Result<()> {
    let current = Login::read(rotation, versions.current)?;
    if other(current.target.user)? != pending.target.user {
        let message =
            format!("AWSPENDING is for user {:?}, and the pair is {:?}", pending.target.user, current.target.user);
        return Err(Error::config(Code::Tampered, message));
    }
    // Who cannot sign in as one of the two has no business changing the other.
    current.sign_in(current.password, Which::Current).await?.close().await;
    let secret = admin::read(rotation, admin_arn).await?;
    let mut admin = Login::read(rotation, &secret).map_err(|error| error.context("the administrator's secret"))?;
    same_server(&current.target, &admin.target).await?;
    admin.target.database = current.target.database;
    let session =
        admin.sign_in(admin.password, Which::Admin).await.map_err(|error| error.context("the administrator"))?;
    let pair = Pair { user: pending.target.user, base: base(pending.target.user), place: admin.target.place() };
    pair.prepare(rotation, &session, pending.password).await?;
    session.close().await;
    Ok(())
}

/// The administrator's password must not change another server than the one the secret is for.
async fn same_server(of: &Target<'_>, admin: &Target<'_>) -> Result<()> {
    let error = || {
        let message =
            format!("the administrator's secret is for {}, and this secret for {}", admin.place(), of.place());
        Error::config(Code::Admin, message).hint("name the secret of this server's administrator in `masterarn`")
    };
    if of.port != admin.port {
        return Err(error());
    }
    if of.host.eq_ignore_ascii_case(admin.host) {
        return Ok(());
    }
    // Another name of the same machine will do.
    let (left, right) = tokio::join!(lookup_host((of.host, of.port)), lookup_host((admin.host, admin.port)));
    let (Ok(left), Ok(right)) = (left, right) else { return Err(error()) };
    let right: Vec<_> = right.collect();
    if left.into_iter().any(|address| right.contains(&address)) { Ok(()) } else { Err(error()) }
}

/// The user that gets a new password, and the one it is a clone of; itself, when it is the base.
struct Pair<'a> {
    user: &'a str,
    base: &'a str,
    place: String,
}

impl Pair<'_> {
    /// All statements go in one message, which makes them one transaction (PostgreSQL's simple query protocol): after a
    /// crash there is the clone as it was, or as it is to be.
    async fn prepare(&self, rotation: &Rotation<'_>, admin: &Session, password: &str) -> Result<()> {
        let encryption = self.ask(admin, "SELECT current_setting('password_encryption')").await?;
        let encryption = encryption.first().and_then(|row| row.first()).and_then(Option::as_deref);
        let mut statements = Vec::new();
        if self.user == self.base {
            self.check_base(admin).await?;
        } else {
            statements.extend(self.repairs(admin).await?);
        }
        let (user, verifier) = (escape_identifier(self.user), verifier(encryption, self.user, password));
        statements.push(format!("ALTER ROLE {user} LOGIN PASSWORD {}", escape_literal(&verifier)));
        rotation.changing();
        admin.run(&statements.join("; ")).await.map(drop).map_err(|failure| match failure {
            Failure::Other(error) => error,
            Failure::State(state) => {
                rotation.unchanged();
                self.refused(&state)
            }
        })
    }

    async fn check_base(&self, admin: &Session) -> Result<()> {
        let rows =
            self.ask(admin, &format!("SELECT 1 FROM pg_roles WHERE rolname = {}", escape_literal(self.base))).await?;
        if rows.is_empty() { Err(self.no_base()) } else { Ok(()) }
    }

    fn no_base(&self) -> Error {
        Error::config(Code::Pair, format!("{} has no user {:?}", self.place, self.base))
            .hint("create it, with what the application needs; its clone is made by itself")
    }

    /// The statements that make the clone what it is to be; none for what is right already.
    async fn repairs(&self, admin: &Session) -> Result<Vec<String>> {
        let (base, clone) = (escape_literal(self.base), escape_literal(self.user));
        let roles = self
            .ask(
                admin,
                &format!(
                    "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit, \
                     rolconnlimit, COALESCE(rolvaliduntil::text, 'infinity') FROM pg_roles WHERE rolname IN ({base}, {clone})"
                ),
            )
            .await?;
        let find = |name: &str| roles.iter().find(|row| row[0].as_deref() == Some(name));
        let model = find(self.base).ok_or_else(|| self.no_base())?;
        let quoted = escape_identifier(self.user);
        let mut statements = Vec::new();
        let existing = find(self.user);
        if existing.is_none() {
            statements.push(format!("CREATE ROLE {quoted} LOGIN"));
            statements.push(format!("GRANT {} TO {quoted}", escape_identifier(self.base)));
        } else {
            self.check_ours(admin).await?;
        }
        // INHERIT is what makes the grant count without SET ROLE.
        for (column, (on, off)) in ATTRIBUTES.iter().enumerate() {
            let wanted = model[column + 1].as_deref() == Some("t") || *on == "INHERIT";
            let found = existing.map_or(*on == "INHERIT", |row| row[column + 1].as_deref() == Some("t"));
            if wanted != found {
                statements.push(format!("ALTER ROLE {quoted} {}", if wanted { on } else { off }));
            }
        }
        let (limit, until) = (model[7].as_deref().unwrap_or("-1"), model[8].as_deref().unwrap_or("infinity"));
        if existing.map_or("-1", |row| row[7].as_deref().unwrap_or("-1")) != limit {
            statements.push(format!("ALTER ROLE {quoted} CONNECTION LIMIT {limit}"));
        }
        if existing.map_or("infinity", |row| row[8].as_deref().unwrap_or("infinity")) != until {
            statements.push(format!("ALTER ROLE {quoted} VALID UNTIL {}", escape_literal(until)));
        }
        statements.extend(self.settings(admin).await?);
        Ok(statements)
    }

    /// A login that has the clone's name and is no member of the base user is somebody else's.
    async fn check_ours(&self, admin: &Session) -> Result<()> {
        let (base, clone) = (escape_literal(self.base), escape_literal(self.user));
        if is_true(&self.ask(admin, &format!("SELECT pg_has_role({clone}, {base}, 'MEMBER')")).await?) {
            return Ok(());
        }
        let Self { user, base, place } = self;
        let message = format!(
            "user {user:?} exists at {place} and is no member of {base:?}, so it is not the other user of this pair"
        );
        let (base, user) = (escape_identifier(base), escape_identifier(user));
        Err(Error::config(Code::Pair, message)
            .hint(format!("if it is meant to be, `GRANT {base} TO {user}`; else rename one of them")))
    }

    /// The base user's settings (`ALTER ROLE … SET`), in all databases and in each, and that the clone acts as it.
    async fn settings(&self, admin: &Session) -> Result<Vec<String>> {
        let (base, clone) = (escape_literal(self.base), escape_literal(self.user));
        let rows = self
            .ask(
                admin,
                &format!(
                    "SELECT r.rolname, COALESCE(d.datname, ''), split_part(c, '=', 1), substr(c, strpos(c, '=') + 1) \
                     FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole \
                     LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c \
                     WHERE r.rolname IN ({base}, {clone})"
                ),
            )
            .await?;
        let of = |user: &str| -> Vec<[&str; 3]> {
            let own = rows.iter().filter(|row| row[0].as_deref() == Some(user));
            own.map(|row| [1, 2, 3].map(|column| row[column].as_deref().unwrap_or_default())).collect()
        };
        let found = of(self.user);
        let mut wanted = of(self.base);
        // A clone that owns things would lose them by acting as somebody else, so it goes on as before.
        let owned = self
            .ask(
                admin,
                &format!(
                    "SELECT EXISTS (SELECT 1 FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o' \
                     AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = {clone}))"
                ),
            )
            .await?;
        if !wanted.iter().any(|[_, name, _]| *name == "role") && !is_true(&owned) {
            wanted.push(["", "role", self.base]);
        }
        let statement = |database: &str, change: String| {
            let place = if database.is_empty() {
                String::new()
            } else {
                format!(" IN DATABASE {}", escape_identifier(database))
            };
            format!("ALTER ROLE {}{place} {change}", escape_identifier(self.user))
        };
        let mut statements = Vec::new();
        for setting in &wanted {
            if !found.contains(setting) {
                let [database, name, value] = setting;
                statements.push(statement(
                    database,
                    format!("SET {} TO {}", escape_identifier(name), setting_value(name, value)),
                ));
            }
        }
        for [database, name, _] in &found {
            if !wanted.iter().any(|[other, it, _]| other == database && it == name) {
                statements.push(statement(database, format!("RESET {}", escape_identifier(name))));
            }
        }
        Ok(statements)
    }

    async fn ask(&self, admin: &Session, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        admin.run(sql).await.map_err(|failure| plain(failure, &self.place))
    }

    fn refused(&self, state: &SqlState) -> Error {
        match *state {
            SqlState::INSUFFICIENT_PRIVILEGE => {
                let message =
                    format!("the administrator at {} may not make {:?} like {:?}", self.place, self.user, self.base);
                Error::config(Code::Pair, message).hint(format!(
                    "it needs CREATEROLE, and from PostgreSQL 16 on ADMIN OPTION: `GRANT {} TO <administrator> WITH ADMIN OPTION`; \
                     attributes such as CREATEDB it can give only if it has them",
                    escape_identifier(self.base)
                ))
            }
            _ => super::alter_error(state, self.user, &self.place),
        }
    }
}

/// The columns of `pg_roles` that [`Pair::repairs`] reads, as `ALTER ROLE` spells them.
const ATTRIBUTES: [(&str, &str); 6] = [
    ("SUPERUSER", "NOSUPERUSER"),
    ("CREATEDB", "NOCREATEDB"),
    ("CREATEROLE", "NOCREATEROLE"),
    ("REPLICATION", "NOREPLICATION"),
    ("BYPASSRLS", "NOBYPASSRLS"),
    ("INHERIT", "NOINHERIT"),
];

/// The value as a literal, or for settings that are lists of names, each of its elements as one: as a single literal they
/// would be one element. A user chooses its own settings, so that nothing of them may stand in a statement unquoted.
fn setting_value(name: &str, value: &str) -> String {
    const LISTS: [&str; 4] =
        ["search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"];
    let elements = if LISTS.iter().any(|it| it.eq_ignore_ascii_case(name)) { list(value) } else { Vec::new() };
    if elements.is_empty() {
        return escape_literal(value);
    }
    elements.iter().map(|element| escape_literal(element)).collect::<Vec<_>>().join(", ")
}

/// The elements of a list as `pg_db_role_setting` has it: with commas between, in double quotes where they need them.
fn list(value: &str) -> Vec<String> {
    let mut elements = vec![String::new()];
    let (mut quoted, mut letters) = (false, value.chars().peekable());
    while let (Some(letter), Some(element)) = (letters.next(), elements.last_mut()) {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => element.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(String::new()),
            _ if quoted || !letter.is_whitespace() => element.push(letter),
            _ => {}
        }
    }
    elements
}

fn is_true(rows: &[Vec<Option<String>>]) -> bool {
    rows.first().and_then(|row| row.first()).is_some_and(|value| value.as_deref() == Some("t"))
}

/// As the user that signed in: whether it has what the pair has in common.
pub(super) async fn check(session: &Session, target: &Target<'_>) -> Result<()> {
    let (user, base) = (target.user, base(target.user));
    if user == base {
        return Ok(());
    }
    let place = target.place();
    let sql = format!("SELECT pg_has_role(session_user, {}, 'USAGE')", escape_literal(base));
    match session.run(&sql).await {
        Ok(rows) if is_true(&rows) => Ok(()),
        // 42704: the base user is gone.
        Ok(_) | Err(Failure::State(SqlState::UNDEFINED_OBJECT)) => {
            let message = format!("user {user:?} at {place} has not the rights of {base:?}");
            Err(Error::rejected(Which::Pending, Code::Privilege, message)
                .hint("the next try repairs it; membership must not be NOINHERIT"))
        }
        Err(Failure::State(state)) => Err(server_error(&state, &place)),
        Err(Failure::Other(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_element_by_element() {
        for (name, value, expected) in [
            ("search_path", r#"app, "Odd, ""name""", "$user""#, r#"'app', 'Odd, "name"', '$user'"#),
            ("search_path", r#""""#, "''"),
            ("search_path", "x;DROP/**/ROLE/**/y;--", "'x;DROP/**/ROLE/**/y;--'"),
            ("search_path", "it's", "'it''s'"),
            ("DateStyle", "ISO, MDY", "'ISO, MDY'"),
            ("work_mem", "", "''"),
        ] {
            assert_eq!(setting_value(name, value), expected, "{name} {value}");
        }
    }

    #[test]
    fn pairs_are_those_of_aws() {
        for (user, expected) in
            [("app", "app_clone"), ("app_clone", "app"), ("App_CLONE", "App_CLONE_clone"), ("_clone", "_clone_clone")]
        {
            assert_eq!(other(user).unwrap(), expected);
        }
        assert_eq!(other(&"x".repeat(57)).unwrap().len(), 63);
        let error = other(&"x".repeat(58)).unwrap_err();
        assert!(error.to_string().contains("field \"username\" is too long"), "{error}");
    }
}
