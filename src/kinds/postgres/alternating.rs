//! How PostgreSQL's alternating users are kept alike.
//!
//! The clone is a member of the base user, as AWS's functions make it: what the base user may do, it may do, now and later.
//! Beyond that it has the base user's settings, limits and attributes, and acts as the base user from the moment it signs
//! in (`ALTER ROLE … SET role`), so that whatever it creates belongs to both, with the base user's default privileges. With
//! `ownerrole` both act as that role instead. Membership is also how a pair is known as ours: a login that merely ends in
//! `_clone`, or merely lacks it, is left alone.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::error::SqlState;

use super::connect::{Failure, Rows, Session, is_true, server_error, single};
use super::{alter_error, verifier};
use crate::error::{Code, Error, Result, Which};
use crate::kind::Rotation;
use crate::sql::{Login, Pair};

/// All statements go in one message, which makes them one transaction (PostgreSQL's simple query protocol): after a crash
/// there is the user as it was, or as it is to be.
pub(super) async fn prepare(rotation: &Rotation<'_>, admin: &Session, pair: &Pair<'_>) -> Result<()> {
    let (base, clone) = membership(admin, pair).await?;
    let mut work =
        Work { admin, pair, base, clone, owner: pair.pending.fields.optional("ownerrole")?, words: Vec::new() };
    let encryption = admin.ask("SELECT current_setting('password_encryption')").await?;
    let mut statements = work.repairs().await?;
    if work.is_clone() {
        let (extras, revocations) = work.extras().await?;
        if pair.revoke_extras {
            statements.extend(revocations);
        } else {
            work.words.extend(extras);
        }
        if !work.words.is_empty() {
            rotation.note(format!("user {clone:?} has more than {base:?}: {}", work.words.join(", ")));
        }
    }
    let (user, verifier) =
        (escape_identifier(pair.user()), verifier(single(&encryption), pair.user(), pair.pending.password));
    statements.push(format!("ALTER ROLE {user} LOGIN PASSWORD {}", escape_literal(&verifier)));
    rotation.changing();
    admin.change(&statements.join("; ")).await.map_err(|failure| match failure {
        Failure::Other(error) => error,
        Failure::State(state) => {
            rotation.unchanged();
            work.refused(&state)
        }
    })
}

/// The base user and its clone. Where AWS's function began with the one that has the suffix, the other one is the member.
async fn membership<'a>(admin: &Session, pair: &Pair<'a>) -> Result<(&'a str, &'a str)> {
    let (base, clone) = (pair.base, pair.clone);
    // The database is that of the secret. Its owner chooses where names are looked up, and whoever may make functions there may
    // make one that fits better than the server's own (CVE-2018-1058), which then runs as the administrator.
    let setting = "SET search_path TO pg_catalog";
    // Not by pg_has_role, to which a superuser is a member of every role; nor by the word of one of the two, because up to
    // PostgreSQL 14 every role may grant itself to any other.
    let rows = admin
        .ask(&format!(
            "{setting}; SELECT m.rolname FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member \
             WHERE (r.rolname, m.rolname) IN (({0}, {1}), ({1}, {0})) AND a.grantor NOT IN (r.oid, m.oid)",
            escape_literal(base),
            escape_literal(clone)
        ))
        .await?;
    match single(&rows) {
        Some(member) if member == clone => return Ok((base, clone)),
        Some(_) => return Ok((clone, base)),
        None => {}
    }
    // A login that has the name of the other one and is not of the same pair is somebody else's.
    let both = format!("SELECT 1 FROM pg_roles WHERE rolname IN ({}, {})", escape_literal(base), escape_literal(clone));
    if admin.ask(&both).await?.len() < 2 {
        return Ok((base, clone));
    }
    let (role, member) = (escape_identifier(base), escape_identifier(clone));
    Err(pair.not_ours(
        &format!("{clone:?} is no member of {base:?}, or only by a grant of one of the two"),
        format!("if they are a pair, as an administrator `REVOKE {role} FROM {member}; GRANT {role} TO {member}`; else rename one of them"),
    ))
}

struct Work<'a> {
    admin: &'a Session,
    pair: &'a Pair<'a>,
    base: &'a str,
    clone: &'a str,
    owner: Option<&'a str>,
    /// What the clone has beyond the base user, for the log.
    words: Vec<String>,
}

impl Work<'_> {
    fn is_clone(&self) -> bool {
        self.pair.user() == self.clone
    }

    /// The statements that make the pending user what it is to be; none for what is right already.
    async fn repairs(&mut self) -> Result<Vec<String>> {
        let pair = self.pair;
        let (base, clone) = (escape_literal(self.base), escape_literal(self.clone));
        let roles = self
            .admin
            .ask(&format!(
                "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolinherit, \
                 rolconnlimit, COALESCE(rolvaliduntil::text, 'infinity') FROM pg_roles WHERE rolname IN ({base}, {clone})"
            ))
            .await?;
        let find = |name: &str| roles.iter().find(|row| row[0].as_deref() == Some(name));
        let model = find(self.base).ok_or_else(|| pair.no_base())?;
        let existing = find(self.clone);
        let mut statements = Vec::new();
        let quoted = escape_identifier(pair.user());
        if let Some(owner) = self.owner {
            self.check_owner(owner).await?;
            if !self.is_clone() {
                statements.push(format!("ALTER ROLE {quoted} SET role TO {}", escape_literal(owner)));
            }
        }
        if !self.is_clone() {
            return Ok(statements);
        }
        if existing.is_none() {
            statements.push(format!("CREATE ROLE {quoted} LOGIN"));
            statements.push(format!("GRANT {} TO {quoted}", escape_identifier(self.base)));
        } else {
            // From PostgreSQL 16 on each grant says for itself whether it is inherited; before, there is no such column.
            let uninherited = format!(
                "SELECT bool_and(to_jsonb(m) ->> 'inherit_option' = 'false') FROM pg_auth_members m \
                 JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles c ON c.oid = m.member \
                 WHERE r.rolname = {base} AND c.rolname = {clone}"
            );
            if is_true(&self.admin.ask(&uninherited).await?) {
                statements.push(format!("GRANT {} TO {quoted} WITH INHERIT TRUE", escape_identifier(self.base)));
            }
        }
        // INHERIT is what makes the grant count without SET ROLE (up to PostgreSQL 15; later, what new grants begin with).
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
        statements.extend(self.settings().await?);
        Ok(statements)
    }

    /// Acting as a role takes away what a user may do by itself, so the role must be there with what is needed. And whoever
    /// writes the secret must not get a role by naming it: that the base user may have it, somebody else has decided.
    async fn check_owner(&self, owner: &str) -> Result<()> {
        let (role, base) = (escape_literal(owner), escape_literal(self.base));
        let sql =
            format!("SELECT rolcanlogin, pg_has_role({base}, oid, 'MEMBER') FROM pg_roles WHERE rolname = {role}");
        let rows = self.admin.ask(&sql).await?;
        let what = match rows.first().map(|row| (row[0].as_deref(), row[1].as_deref())) {
            Some((Some("f"), Some("t"))) => return Ok(()),
            Some((Some("f"), _)) => format!("has not got {:?} as a member", self.base),
            Some(_) => "can sign in by itself".to_owned(),
            None => "does not exist".to_owned(),
        };
        let (place, quoted) = (&self.pair.place, escape_identifier(owner));
        Err(Error::config(Code::Pair, format!("the role {owner:?} in field \"ownerrole\" {what} at {place}"))
            .hint(format!(
                "`CREATE ROLE {quoted} NOLOGIN`, grant it what the application needs, `GRANT {quoted} TO {0}`, and `REASSIGN OWNED BY {0} TO {quoted}`",
                escape_identifier(self.base)
            )))
    }

    /// What the clone has and the base user has not, in words, and the statements that take it away.
    async fn extras(&self) -> Result<(Vec<String>, Vec<String>)> {
        let (base, clone) = (self.base, self.clone);
        let (base, clone, quoted) = (escape_literal(base), escape_literal(clone), escape_identifier(clone));
        let roles = self
            .admin
            .ask(&format!(
                "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles c ON c.oid = m.member \
                 WHERE c.rolname = {clone} AND NOT pg_has_role({base}, r.oid, 'MEMBER')"
            ))
            .await?;
        // Kinds of objects by the catalogue that has their privileges, as REVOKE spells them.
        let objects = self
            .admin
            .ask(&format!(
                "SELECT k || ' ' || n FROM (\
                 SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END k, oid::regclass::text n, relacl acl FROM pg_class WHERE relacl IS NOT NULL \
                 UNION ALL SELECT 'SCHEMA', quote_ident(nspname), nspacl FROM pg_namespace \
                 UNION ALL SELECT 'FUNCTION', oid::regprocedure::text, proacl FROM pg_proc WHERE prokind <> 'p' AND proacl IS NOT NULL \
                 UNION ALL SELECT 'PROCEDURE', oid::regprocedure::text, proacl FROM pg_proc WHERE prokind = 'p' AND proacl IS NOT NULL \
                 UNION ALL SELECT 'DATABASE', quote_ident(datname), datacl FROM pg_database \
                 UNION ALL SELECT 'TABLE', attrelid::regclass::text, attacl FROM pg_attribute WHERE attacl IS NOT NULL) o \
                 WHERE EXISTS (SELECT 1 FROM aclexplode(acl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = {clone}) \
                 AND NOT EXISTS (SELECT 1 FROM aclexplode(acl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = {base}) GROUP BY 1"
            ))
            .await?;
        let names = |rows: Rows| rows.into_iter().filter_map(|mut row| row.pop().flatten()).collect::<Vec<_>>();
        let (roles, objects) = (names(roles), names(objects));
        let mut words: Vec<_> = roles.iter().map(|role| format!("membership of {role:?}")).collect();
        words.extend(objects.iter().map(|object| format!("rights on {object}")));
        let mut statements: Vec<_> =
            roles.iter().map(|role| format!("REVOKE {} FROM {quoted}", escape_identifier(role))).collect();
        statements.extend(objects.iter().map(|object| format!("REVOKE ALL ON {object} FROM {quoted}")));
        Ok((words, statements))
    }

    /// The base user's settings (`ALTER ROLE … SET`), in all databases and in each, and that the clone acts as it.
    async fn settings(&mut self) -> Result<Vec<String>> {
        let (model, name) = (self.base, self.clone);
        let (base, clone) = (escape_literal(model), escape_literal(name));
        let rows = self
            .admin
            .ask(&format!(
                "SELECT r.rolname, COALESCE(d.datname, ''), split_part(c, '=', 1), substr(c, strpos(c, '=') + 1) \
                     FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole \
                     LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c \
                     WHERE r.rolname IN ({base}, {clone})"
            ))
            .await?;
        let of = |user: &str| -> Vec<[&str; 3]> {
            let own = rows.iter().filter(|row| row[0].as_deref() == Some(user));
            own.map(|row| [1, 2, 3].map(|column| row[column].as_deref().unwrap_or_default())).collect()
        };
        let found = of(name);
        let mut wanted = of(model);
        // A clone that owns things (AWS's function let it) would lose them by acting as somebody else.
        let owned = self
            .admin
            .ask(&format!(
                "SELECT EXISTS (SELECT 1 FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o' \
                     AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = {clone}))"
            ))
            .await?;
        if let Some(owner) = self.owner {
            wanted.retain(|[database, name, _]| *name != "role" || !database.is_empty());
            wanted.push(["", "role", owner]);
        } else if is_true(&owned) {
            let (clone, base) = (escape_identifier(name), escape_identifier(model));
            self.words.push(format!(
                "objects of its own, so that it acts as itself until `REASSIGN OWNED BY {clone} TO {base}`"
            ));
        } else if !wanted.iter().any(|[_, name, _]| *name == "role") {
            wanted.push(["", "role", model]);
        }
        let statement = |database: &str, change: String| {
            let place = if database.is_empty() {
                String::new()
            } else {
                format!(" IN DATABASE {}", escape_identifier(database))
            };
            format!("ALTER ROLE {}{place} {change}", escape_identifier(name))
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

    fn refused(&self, state: &SqlState) -> Error {
        match *state {
            SqlState::INSUFFICIENT_PRIVILEGE => {
                let (base, place, user) = (self.base, &self.pair.place, self.pair.user());
                let message = format!("the administrator at {place} may not make {user:?} like {base:?}");
                Error::config(Code::Pair, message).hint(format!(
                    "it needs CREATEROLE, and from PostgreSQL 16 on ADMIN OPTION: `GRANT {} TO <administrator> WITH ADMIN OPTION`; \
                     attributes such as CREATEDB it can give only if it has them",
                    escape_identifier(base)
                ))
            }
            _ => alter_error(state, self.pair.user(), &self.pair.place),
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
pub(in crate::kinds) fn setting_value(name: &str, value: &str) -> String {
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

/// As the user that signed in: whether it has what the pair has in common, and acts as it should.
pub(super) async fn check(session: &Session, login: &Login<'_>, base: &str) -> Result<()> {
    let user = login.target.user;
    // Whichever of the two is the member.
    let base_literal = escape_literal(base);
    let shared = format!(
        "SELECT (pg_has_role(session_user, {base_literal}, 'USAGE') OR pg_has_role({base_literal}, session_user, 'USAGE'))"
    );
    let (mut sql, mut of) = (shared, base);
    if let Some(owner) = login.fields.optional("ownerrole")? {
        let owned = format!(" AND current_user = {}", escape_literal(owner));
        (sql, of) = (sql + &owned, owner);
    }
    let place = session.place();
    match session.run(&sql).await {
        Ok(rows) if is_true(&rows) => Ok(()),
        // 42704: the base user is gone.
        Ok(_) | Err(Failure::State(SqlState::UNDEFINED_OBJECT)) => {
            let message = format!("user {user:?} at {place} has not the rights of {of:?}");
            Err(Error::rejected(Which::Pending, Code::Privilege, message)
                .hint("the next try repairs it; membership must not be NOINHERIT"))
        }
        Err(Failure::State(state)) => Err(server_error(&state, place)),
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
}
