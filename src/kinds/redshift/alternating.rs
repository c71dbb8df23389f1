//! How Redshift's alternating users are kept alike.
//!
//! A user cannot be a member of another here, so the two are compared at every turn: attributes, settings, groups, roles, and
//! what each can do with every database, and with every schema and table of the secret's database. What comes by PUBLIC, by
//! a group or a role that the clone has too needs no grant of its own, so it is asked what a user *can* do
//! (`HAS_…_PRIVILEGE`), in the transaction in which the clone has its groups and roles already. What these functions do not
//! know is read from the lists of what has been granted (`SVV_…_PRIVILEGES`).
//!
//! Nothing in Redshift marks a clone as ours. A pair is ours if a password of the secret opens the pending user, or if the
//! two may do the same and have something in common that not everybody has.
//!
//! Catalogues and `HAS_…_PRIVILEGE` answer on the leader node alone, and `SVV_…` views on all nodes: no statement may mix
//! them, so there are many, and they go in few messages.

use std::collections::BTreeSet;
use std::time::Duration;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::error::SqlState;

use super::rights::{Both, DATABASE, Right, SCHEMA, TABLE, TABLE_MORE, grants, revocations, schema, table};
use super::{Redshift, password_error, set_password, verifier};
use crate::error::{Code, Error, Result};
use crate::kind::Rotation;
use crate::kinds::postgres::connect::{Failure, Rows, Session, server_error};
use crate::kinds::postgres::setting_value;
use crate::sql::Pair;

/// Redshift compiles a query that it sees for the first time, which takes seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);
/// Two transactions that touch the same rights at the same time: the later one fails, and may try again.
const TRIES: usize = 3;

/// Everything goes in one transaction, with the password last: after a crash there is the user as it was, or as it is to be.
/// Only rights on external schemas cannot be granted in a transaction. They come after it, and the next try gives them if
/// this one cannot; until setSecret has succeeded nobody is told to use the new password.
pub(super) async fn prepare(
    engine: &Redshift,
    rotation: &Rotation<'_>,
    admin: &mut Session,
    pair: &Pair<'_>,
) -> Result<()> {
    admin.answer_within(ANSWER_WITHIN);
    let work = Work { engine, rotation, admin, pair };
    let mut tries = 1;
    let outside = loop {
        match work.transaction().await {
            Ok(outside) => break outside,
            Err(Failure::State(SqlState::T_R_SERIALIZATION_FAILURE | SqlState::INTERNAL_ERROR)) if tries < TRIES => {
                tries += 1;
                rotation.unchanged();
                admin.ask("ROLLBACK").await?;
            }
            Err(failure) => return Err(admin.plain(failure)),
        }
    };
    for statement in outside {
        let done = admin.run(&statement).await;
        done.map_err(|failure| match failure {
            Failure::State(state) => work.refused(&statement, &state),
            Failure::Other(error) => error,
        })?;
    }
    Ok(())
}

struct Work<'a> {
    engine: &'a Redshift,
    rotation: &'a Rotation<'a>,
    admin: &'a Session,
    pair: &'a Pair<'a>,
}

type Tried<T> = std::result::Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Work<'_> {
    /// Returns the statements that must run outside of it.
    async fn transaction(&self) -> Tried<Vec<String>> {
        let pair = self.pair;
        let known = self.known().await?;
        let base = known.base.as_ref().ok_or_else(|| pair.no_base())?;
        if known.clone.is_some() && !self.is_ours(&known).await? {
            return Err(Failure::Other(pair.unproven()));
        }
        let (mut statements, mut outside) = (Vec::new(), Vec::new());
        let mut until = None;
        if pair.is_clone() {
            let usual = User::default();
            let found = known.clone.as_ref().unwrap_or(&usual);
            until = (base.until != found.until).then_some(base.until.as_str());
            self.change(&self.identity(&known, base)).await?;
        }
        // A superuser may do everything, and so may its clone.
        if !base.superuser {
            let both = self.compared(&known).await?;
            if pair.is_clone() {
                statements.extend(self.revocations(&both));
                let missing = both.missing(pair.base, pair.clone, known.by_default());
                statements.extend(grants(missing.iter().filter(|right| !is_membership(right)), pair.clone));
            }
            statements.extend(grants(both.missing_in_base(pair.clone, known.by_default()).iter(), pair.base));
            let external = |statement: &String| known.external.iter().any(|schema| statement.contains(schema));
            (outside, statements) = statements.into_iter().partition(external);
        }
        let until = until.map(|until| format!(" VALID UNTIL {}", escape_literal(until))).unwrap_or_default();
        statements.push(format!("{}{until}", set_password(pair.user(), pair.pending.password)));
        statements.push("COMMIT".to_owned());
        self.change(&statements).await?;
        Ok(outside)
    }

    async fn is_ours(&self, known: &Known) -> Tried<bool> {
        if self.pair.opens(self.engine).await? {
            return Ok(true);
        }
        let superusers = |user: &Option<User>| user.as_ref().is_some_and(|user| user.superuser);
        if superusers(&known.base) != superusers(&known.clone) {
            return Ok(false);
        }
        Ok(self.compared(known).await?.are_alike(self.pair.base, self.pair.clone))
    }

    /// The statements for what is not about objects: the user itself, its attributes and settings, its groups and roles.
    fn identity(&self, known: &Known, base: &User) -> Vec<String> {
        let Pair { base: model, clone: name, .. } = *self.pair;
        let mut statements = Vec::new();
        let quoted = escape_identifier(name);
        if known.clone.is_none() {
            // With the pending password, because Redshift wants one.
            statements.push(format!("CREATE USER {quoted} PASSWORD {}", verifier(name, self.pair.pending.password)));
        }
        let usual = User::default();
        let changes = base.changes(known.clone.as_ref().unwrap_or(&usual));
        statements.extend(changes.into_iter().map(|change| format!("ALTER USER {quoted} {change}")));
        if self.pair.revoke_extras {
            let extras = known.both.extras(model, name);
            statements.extend(revocations(extras.iter().filter(|right| is_membership(right)), name));
        }
        let missing = known.both.missing(model, name, &[]);
        statements.extend(grants(missing.iter().filter(|right| is_membership(right)), name));
        statements
    }

    /// The statements that take away what only the clone has, if that is wanted; else the log is told of it.
    fn revocations(&self, both: &Both) -> Vec<String> {
        let Pair { base, clone, revoke_extras, .. } = *self.pair;
        let extras = both.extras(base, clone);
        if revoke_extras {
            // Groups and roles have gone before.
            return revocations(extras.iter().filter(|right| !is_membership(right)), clone);
        }
        if !extras.is_empty() {
            let words: Vec<_> = extras.iter().map(ToString::to_string).collect();
            self.rotation.note(format!("user {clone:?} has more than {base:?}: {}", words.join(", ")));
        }
        Vec::new()
    }

    async fn change(&self, statements: &[String]) -> Tried<()> {
        if statements.is_empty() {
            return Ok(());
        }
        self.rotation.changing();
        self.admin.run_all(statements).await.map_err(|(index, failure)| match failure {
            Failure::State(state @ (SqlState::T_R_SERIALIZATION_FAILURE | SqlState::INTERNAL_ERROR)) => {
                Failure::State(state)
            }
            Failure::State(state) => {
                // The connection ends with the step, and with it the transaction.
                self.rotation.unchanged();
                let statement = statements.get(index).map(String::as_str).unwrap_or_default();
                Failure::Other(self.refused(statement, &state))
            }
            other @ Failure::Other(_) => other,
        })
    }

    /// Begins the transaction, and asks for what must be known before anything is changed.
    async fn known(&self) -> Tried<Known> {
        let [base, clone] = [self.pair.base, self.pair.clone].map(escape_literal);
        let rows = self.ask(&format!("BEGIN; {}", questions(&format!("{base}, {clone}")).join("; "))).await?;
        Ok(Known::read(rows, self.pair.base, self.pair.clone))
    }

    async fn ask(&self, sql: &str) -> Tried<Rows> {
        self.admin.run(sql).await.map_err(|failure| match failure {
            Failure::State(SqlState::INSUFFICIENT_PRIVILEGE) => {
                Failure::Other(self.not_allowed("see what users may do"))
            }
            other => other,
        })
    }

    /// Adds what is found by asking what the two can do.
    async fn compared(&self, known: &Known) -> Tried<Both> {
        let [base, clone] = [self.pair.base, self.pair.clone].map(escape_literal);
        let rows = self.ask(&comparisons(&base, &clone).join("; ")).await?;
        Ok(known.compared(rows))
    }

    fn refused(&self, statement: &str, state: &SqlState) -> Error {
        let Pair { base, clone, place, .. } = self.pair;
        // Those that give a password are told without it.
        if statement.is_empty() || statement.contains(" PASSWORD ") {
            return match *state {
                SqlState::INSUFFICIENT_PRIVILEGE => self.not_allowed("set its password"),
                _ => password_error(state, self.pair.user(), place),
            };
        }
        match *state {
            SqlState::INSUFFICIENT_PRIVILEGE => {
                self.not_allowed(&format!("make {clone:?} like {base:?}: `{statement}`"))
            }
            _ => server_error(state, place).context(&format!("`{statement}`")),
        }
    }

    fn not_allowed(&self, what: &str) -> Error {
        let message = format!("the administrator at {} may not {what}", self.pair.place);
        Error::config(Code::Pair, message).hint(
            "it must be a superuser, or have CREATE USER and ALTER USER and own what it is to grant, or have it WITH GRANT OPTION",
        )
    }
}

fn is_membership(right: &Right) -> bool {
    !matches!(right, Right::Privilege(_))
}

/// A user as its attributes tell it.
#[derive(Debug, PartialEq, Eq)]
struct User {
    superuser: bool,
    creates_databases: bool,
    until: String,
    settings: Vec<(String, String)>,
    limits: Option<Limits>,
}

/// What only Redshift has, and shows of others to superusers alone.
#[derive(Debug, PartialEq, Eq)]
struct Limits {
    connections: String,
    system_log: String,
    idle_seconds: String,
}

/// As `CREATE USER` makes one.
impl Default for User {
    fn default() -> Self {
        let limits = ["UNLIMITED", "RESTRICTED", "0"].map(str::to_owned);
        let [connections, system_log, idle_seconds] = limits;
        Self {
            superuser: false,
            creates_databases: false,
            until: "infinity".to_owned(),
            settings: Vec::new(),
            limits: Some(Limits { connections, system_log, idle_seconds }),
        }
    }
}

impl User {
    /// What `ALTER USER` is to say to make `other` like this one, but for VALID UNTIL, which belongs to the password.
    fn changes(&self, other: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let mut choose = |wanted: bool, found: bool, on: &str, off: &str| {
            if wanted != found {
                changes.push(if wanted { on } else { off }.to_owned());
            }
        };
        choose(self.creates_databases, other.creates_databases, "CREATEDB", "NOCREATEDB");
        choose(self.superuser, other.superuser, "CREATEUSER", "NOCREATEUSER");
        if let (Some(wanted), Some(found)) = (&self.limits, &other.limits) {
            if wanted.connections != found.connections {
                let unlimited = !is_number(&wanted.connections);
                let limit = if unlimited { "UNLIMITED" } else { wanted.connections.as_str() };
                changes.push(format!("CONNECTION LIMIT {limit}"));
            }
            // A superuser sees everything anyway.
            if wanted.system_log != found.system_log && !self.superuser {
                let access = if wanted.system_log == "UNRESTRICTED" { "UNRESTRICTED" } else { "RESTRICTED" };
                changes.push(format!("SYSLOG ACCESS {access}"));
            }
            if wanted.idle_seconds != found.idle_seconds {
                let seconds = &wanted.idle_seconds;
                let unset = !is_number(seconds) || seconds == "0";
                changes.push(if unset {
                    "RESET SESSION TIMEOUT".to_owned()
                } else {
                    format!("SESSION TIMEOUT {seconds}")
                });
            }
        }
        for (name, value) in &self.settings {
            if !other.settings.iter().any(|it| (&it.0, &it.1) == (name, value)) {
                changes.push(format!("SET {} TO {}", escape_identifier(name), setting_value(name, value)));
            }
        }
        for (name, _) in &other.settings {
            if !self.settings.iter().any(|it| it.0 == *name) {
                changes.push(format!("RESET {}", escape_identifier(name)));
            }
        }
        changes
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is known before anything is changed.
#[derive(Default)]
struct Known {
    redshift: bool,
    base: Option<User>,
    clone: Option<User>,
    both: Both,
    /// External schemas, as statements about them name them.
    external: BTreeSet<String>,
}

impl Known {
    fn by_default(&self) -> &'static [&'static str] {
        const ALL: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "REFERENCES", "DROP"];
        if self.redshift { &ALL } else { &TABLE }
    }

    /// Adds the answers to [`comparisons`].
    fn compared(&self, rows: Rows) -> Both {
        let mut both = self.both.clone();
        for row in rows {
            let row: Vec<_> = row.into_iter().map(Option::unwrap_or_default).collect();
            let [kind, space, name, owner, base, clone] = row.as_slice() else { continue };
            let (on, privileges) = match kind.as_str() {
                "database" => (format!("ON DATABASE {}", escape_identifier(name)), &DATABASE[..]),
                "schema" => (schema(name), &SCHEMA[..]),
                _ => (table(space, name), &TABLE[..]),
            };
            for (index, privilege) in privileges.iter().enumerate() {
                for (flags, rights) in [(base, &mut both.base), (clone, &mut both.clone)] {
                    if flags.as_bytes().get(index) == Some(&b'y') {
                        rights.insert(Right::on(on.clone(), *privilege));
                    }
                }
            }
            let more = if self.redshift && kind == "r" { &TABLE_MORE[..] } else { &[] };
            let all = privileges.iter().chain(more).map(|privilege| Right::on(on.clone(), *privilege));
            match owner.as_str() {
                "base" => both.base.extend(all),
                "clone" => {
                    both.clone.extend(all);
                    both.clones_own.insert(on);
                }
                _ => {}
            }
        }
        both
    }

    /// Reads the answers to [`questions`], which are told apart by their first column.
    fn read(rows: Rows, base: &str, clone: &str) -> Self {
        let mut known = Self::default();
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|row| row.into_iter().map(|text| text.unwrap_or_default().trim().to_owned()).collect())
            .collect();
        let procedures: BTreeSet<_> =
            rows.iter().filter(|row| row[0] == "procedure").map(|row| (row[1].as_str(), row[2].as_str())).collect();
        for row in &rows {
            let row: Vec<&str> = row.iter().map(String::as_str).collect();
            match row[..] {
                ["server", version] => known.redshift = version.contains("Redshift"),
                ["external", name] => drop(known.external.insert(format!(" SCHEMA {} ", escape_identifier(name)))),
                ["user", name, superuser, creates, until, ref settings @ ..] => {
                    let user = User {
                        superuser: superuser == "t",
                        creates_databases: creates == "t",
                        until: if until.is_empty() { "infinity" } else { until }.to_owned(),
                        settings: settings.first().map(|text| elements(text)).unwrap_or_default(),
                        limits: None,
                    };
                    *(if name == base { &mut known.base } else { &mut known.clone }) = Some(user);
                }
                ["limits", name, connections, system_log, idle_seconds] => {
                    let user = if name == base { &mut known.base } else { &mut known.clone };
                    let [connections, system_log, idle_seconds] =
                        [connections, system_log, idle_seconds].map(str::to_owned);
                    if let Some(user) = user {
                        user.limits = Some(Limits { connections, system_log, idle_seconds });
                    }
                }
                ["owned function", name, space, function, arguments, ref kind @ ..] => {
                    let on = routine(space, function, arguments, kind.first() == Some(&"p"));
                    if name == clone {
                        known.both.clones_own.insert(on.clone());
                    }
                    known.both.of(name == base).insert(Right::on(on, "EXECUTE"));
                }
                ["function", name, space, function, arguments] => {
                    let on = routine(space, function, arguments, procedures.contains(&(space, function)));
                    known.both.of(name == base).insert(Right::on(on, "EXECUTE"));
                }
                ["table", name, space, relation, privilege] if TABLE.contains(&privilege) => {
                    let index = usize::from(name != base);
                    known.both.by_name[index].insert(Right::on(table(space, relation), privilege));
                }
                _ => {
                    if let Some((name, right)) = listed(&row) {
                        known.both.of(name == base).insert(right);
                    }
                }
            }
        }
        known
    }
}

impl Both {
    fn of(&mut self, base: bool) -> &mut BTreeSet<Right> {
        if base { &mut self.base } else { &mut self.clone }
    }
}

/// What a row of one of the lists of grants says: whose right, and which. Words that Redshift may come to know, and that are
/// not known here, are no rights.
fn listed<'a>(row: &[&'a str]) -> Option<(&'a str, Right)> {
    const PRIVILEGES: [&str; 12] = [
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "REFERENCES",
        "DROP",
        "ALTER",
        "TRUNCATE",
        "CREATE",
        "USAGE",
        "EXECUTE",
        "TEMPORARY",
    ];
    let known = |privilege: &str| PRIVILEGES.contains(&privilege);
    Some(match *row {
        ["group", name, group] => (name, Right::Group(group.to_owned())),
        ["role", name, role] => (name, Right::Role(role.to_owned())),
        ["role admin", name, role] => (name, Right::RoleAdmin(role.to_owned())),
        ["table", name, space, relation, privilege] if known(privilege) => {
            (name, Right::on(table(space, relation), privilege))
        }
        ["column", name, space, relation, column, privilege] if known(privilege) => {
            (name, Right::on(table(space, relation), format!("{privilege} ({})", escape_identifier(column))))
        }
        // Those on the schema or database itself; has_…_privilege tells of the usual ones.
        ["schema", name, space, privilege, "SCHEMA"] if known(privilege) && !SCHEMA.contains(&privilege) => {
            (name, Right::on(schema(space), privilege))
        }
        ["database", name, database, privilege @ ("USAGE" | "ALTER"), "DATABASE"] => {
            (name, Right::on(format!("ON DATABASE {}", escape_identifier(database)), privilege))
        }
        // Those on all that is in one.
        ["schema", name, space, privilege, scope @ ("TABLES" | "FUNCTIONS")] if known(privilege) => {
            (name, Right::on(format!("FOR {scope} IN SCHEMA {}", escape_identifier(space)), privilege))
        }
        ["database", name, database, privilege, scope @ ("SCHEMAS" | "TABLES" | "FUNCTIONS" | "LANGUAGES")]
            if known(privilege) =>
        {
            (name, Right::on(format!("FOR {scope} IN DATABASE {}", escape_identifier(database)), privilege))
        }
        ["default", name, owner, space, kind, privilege] if known(privilege) => {
            let kind = match kind {
                "RELATION" => "TABLES",
                "FUNCTION" => "FUNCTIONS",
                "PROCEDURE" => "PROCEDURES",
                _ => return None,
            };
            (name, Right::default(owner, space, kind, privilege))
        }
        _ => return None,
    })
}

fn routine(space: &str, name: &str, arguments: &str, is_procedure: bool) -> String {
    let kind = if is_procedure { "PROCEDURE" } else { "FUNCTION" };
    format!("ON {kind} {}.{}({arguments})", escape_identifier(space), escape_identifier(name))
}

/// The statements that tell what the users `names` (literals with commas between) are and have been given.
fn questions(names: &str) -> Vec<String> {
    let owned = "SELECT 'owned function', u.usename, n.nspname, p.proname, oidvectortypes(p.proargtypes), p.prokind \
         FROM pg_proc_info p, pg_namespace n, pg_user u WHERE n.oid = p.pronamespace AND u.usesysid = p.proowner";
    vec![
        "SELECT 'server', version()".to_owned(),
        "SELECT 'external', n.nspname FROM pg_external_schema e, pg_namespace n WHERE n.oid = e.esoid".to_owned(),
        "SELECT 'procedure', n.nspname, p.proname FROM pg_proc_info p, pg_namespace n \
         WHERE n.oid = p.pronamespace AND p.prokind = 'p'"
            .to_owned(),
        format!(
            "SELECT 'user', usename, usesuper, usecreatedb, valuntil, useconfig FROM pg_user WHERE usename IN ({names})"
        ),
        format!(
            "SELECT 'limits', user_name, connection_limit, syslog_access, session_timeout FROM svv_user_info \
             WHERE user_name IN ({names})"
        ),
        format!(
            "SELECT 'group', u.usename, g.groname FROM pg_group g, pg_user u \
             WHERE u.usesysid = ANY (g.grolist) AND u.usename IN ({names})"
        ),
        format!("SELECT 'role', user_name, role_name FROM svv_user_grants WHERE user_name IN ({names})"),
        format!(
            "SELECT 'role admin', user_name, role_name FROM svv_user_grants WHERE admin_option AND user_name IN ({names})"
        ),
        format!("{owned} AND u.usename IN ({names})"),
        granted("function", "namespace_name, function_name, argument_types", names),
        granted("table", "namespace_name, relation_name, privilege_type", names),
        granted("column", "namespace_name, relation_name, column_name, privilege_type", names),
        granted("schema", "namespace_name, privilege_type, privilege_scope", names),
        granted("database", "database_name, privilege_type, privilege_scope", names),
        format!(
            "SELECT 'default', grantee_name, owner_name, schema_name, object_type, privilege_type \
             FROM svv_default_privileges WHERE grantee_type = 'user' AND grantee_name IN ({names})"
        ),
    ]
}

/// One of the lists of what has been granted.
fn granted(kind: &str, columns: &str, names: &str) -> String {
    let view = if kind == "table" { "relation" } else { kind };
    format!(
        "SELECT '{kind}', identity_name, {columns} FROM svv_{view}_privileges \
         WHERE identity_type = 'user' AND identity_name IN ({names})"
    )
}

/// The statements that ask what the users `base` and `clone` (literals) can do with each object: kind, schema, name, owner,
/// and for each of the two a letter for each privilege. Only where they differ, or where one of them is the owner.
fn comparisons(base: &str, clone: &str) -> Vec<String> {
    let compare = |columns: &str, owner: &str, from: &str, letters: &dyn Fn(&str) -> String| {
        let (left, right) = (letters("b"), letters("k"));
        format!(
            "SELECT {columns}, CASE {owner} WHEN b.usesysid THEN 'base' WHEN k.usesysid THEN 'clone' ELSE '' END, \
             {left}, {right} FROM pg_user b, pg_user k, {from} b.usename = {base} AND k.usename = {clone} \
             AND ({owner} IN (b.usesysid, k.usesysid) OR {left} <> {right})"
        )
    };
    let letters = |function: &str, object: &str, user: &str, privileges: &[&str]| {
        let each = privileges.iter().map(|privilege| {
            format!("CASE WHEN {function}({user}.usename, {object}, '{privilege}') THEN 'y' ELSE 'n' END")
        });
        each.collect::<Vec<_>>().join(" || ")
    };
    vec![
        compare("'database', '', d.datname", "d.datdba", "pg_database d WHERE", &|user| {
            letters("has_database_privilege", "d.datname", user, &DATABASE)
        }),
        // Names that begin with pg_ are the server's own, and temporary schemas.
        compare(
            "'schema', '', n.nspname",
            "n.nspowner",
            "pg_namespace n WHERE substring(n.nspname, 1, 3) <> 'pg_' AND n.nspname <> 'information_schema' AND",
            &|user| letters("has_schema_privilege", "n.nspname", user, &SCHEMA),
        ),
        // What is behind a materialized view goes with the view.
        compare(
            "c.relkind, n.nspname, c.relname",
            "c.relowner",
            "pg_class c, pg_namespace n WHERE n.oid = c.relnamespace AND c.relkind IN ('r', 'v') \
             AND substring(n.nspname, 1, 3) <> 'pg_' AND n.nspname <> 'information_schema' \
             AND substring(c.relname, 1, 8) <> 'mv_tbl__' AND",
            &|user| letters("has_table_privilege", "c.oid", user, &TABLE),
        ),
    ]
}

/// The elements of `pg_user.useconfig`, `{name=value,"name=a value"}`.
fn elements(array: &str) -> Vec<(String, String)> {
    let mut elements = vec![String::new()];
    let Some(inner) = array.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return Vec::new() };
    let (mut quoted, mut letters) = (false, inner.chars());
    while let (Some(letter), Some(element)) = (letters.next(), elements.last_mut()) {
        match letter {
            '\\' => element.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(String::new()),
            _ => element.push(letter),
        }
    }
    let pair = |element: String| element.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    elements.into_iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(texts: &[&str]) -> Vec<Option<String>> {
        texts.iter().map(|text| Some((*text).to_owned())).collect()
    }

    #[test]
    fn attributes_are_compared_and_said_in_redshifts_words() {
        let limits = |connections: &str, system_log: &str, idle_seconds: &str| {
            let [connections, system_log, idle_seconds] = [connections, system_log, idle_seconds].map(str::to_owned);
            Some(Limits { connections, system_log, idle_seconds })
        };
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let base = User {
            creates_databases: true,
            limits: limits("7", "UNRESTRICTED", "600"),
            settings: vec![setting("search_path", "app, \"Odd, name\""), setting("statement_timeout", "7s")],
            ..User::default()
        };
        assert_eq!(
            base.changes(&User::default()),
            [
                "CREATEDB",
                "CONNECTION LIMIT 7",
                "SYSLOG ACCESS UNRESTRICTED",
                "SESSION TIMEOUT 600",
                "SET \"search_path\" TO 'app', 'Odd, name'",
                "SET \"statement_timeout\" TO '7s'",
            ]
        );
        assert_eq!(
            User::default().changes(&base),
            [
                "NOCREATEDB",
                "CONNECTION LIMIT UNLIMITED",
                "SYSLOG ACCESS RESTRICTED",
                "RESET SESSION TIMEOUT",
                "RESET \"search_path\"",
                "RESET \"statement_timeout\"",
            ]
        );
        let superuser = User { superuser: true, limits: limits("UNLIMITED", "UNRESTRICTED", "0"), ..User::default() };
        assert_eq!(superuser.changes(&User::default()), ["CREATEUSER"]);
        assert_eq!(User::default().changes(&superuser), ["NOCREATEUSER", "SYSLOG ACCESS RESTRICTED"]);
        // What an administrator cannot see is left alone.
        assert!(User { limits: None, ..User::default() }.changes(&superuser).iter().all(|it| it == "NOCREATEUSER"));
    }

    #[test]
    fn settings_of_a_user_are_read_from_an_array() {
        let read = elements(r#"{search_path=app,"search_path=app, \"Odd, \\\\ name\"","a=","none"}"#);
        let expected = [("search_path", "app"), ("search_path", r#"app, "Odd, \\ name""#), ("a", "")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(elements("").is_empty() && elements("{}").is_empty());
    }

    #[test]
    fn lists_of_grants_become_rights_of_redshift() {
        let rows = [
            row(&[
                "server",
                "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2, Redshift 1.0.76230",
            ]),
            row(&["external", "lake"]),
            row(&["procedure", "app", "load"]),
            row(&["user", "app", "f", "t", "", "{statement_timeout=7s}"]),
            row(&["limits", "app", "UNLIMITED", "RESTRICTED", "0"]),
            row(&["group", "app", "analysts  "]),
            row(&["role", "app", "sys:monitor"]),
            row(&["role admin", "app", "sys:monitor"]),
            row(&["function", "app", "app", "f", "integer, character varying"]),
            row(&["function", "app", "app", "load", ""]),
            row(&["table", "app", "app", "orders", "SELECT"]),
            row(&["table", "app", "app", "orders", "DROP"]),
            row(&["table", "app", "app", "orders", "RULE"]),
            row(&["column", "app", "app", "people", "name", "SELECT"]),
            row(&["schema", "app", "app", "USAGE", "SCHEMA"]),
            row(&["schema", "app", "app", "ALTER", "SCHEMA"]),
            row(&["schema", "app", "app", "SELECT", "TABLES"]),
            row(&["database", "app", "shared", "USAGE", "DATABASE"]),
            row(&["database", "app", "dev", "CREATE", "DATABASE"]),
            row(&["database", "app", "dev", "USAGE", "SCHEMAS"]),
            row(&["default", "app", "loader", "app", "RELATION", "SELECT"]),
            row(&["default", "app", "loader", "", "PROCEDURE", "EXECUTE"]),
            row(&["schema", "app", "app", "'; DROP USER x; --", "SCHEMA"]),
        ];
        let known = Known::read(rows.to_vec(), "app", "app_clone");
        assert!(known.redshift && known.clone.is_none() && known.external.contains(" SCHEMA \"lake\" "));
        let user = known.base.as_ref().unwrap();
        assert_eq!((user.superuser, user.creates_databases, user.until.as_str()), (false, true, "infinity"));
        assert_eq!(
            grants(known.both.missing("app", "app_clone", &[]).iter(), "app_clone"),
            [
                "ALTER GROUP \"analysts\" ADD USER \"app_clone\"",
                "GRANT ROLE \"sys:monitor\" TO \"app_clone\"",
                "GRANT ROLE \"sys:monitor\" TO \"app_clone\" WITH ADMIN OPTION",
                "GRANT USAGE FOR SCHEMAS IN DATABASE \"dev\" TO \"app_clone\"",
                "GRANT SELECT FOR TABLES IN SCHEMA \"app\" TO \"app_clone\"",
                "GRANT USAGE ON DATABASE \"shared\" TO \"app_clone\"",
                "GRANT EXECUTE ON FUNCTION \"app\".\"f\"(integer, character varying) TO \"app_clone\"",
                "GRANT EXECUTE ON PROCEDURE \"app\".\"load\"() TO \"app_clone\"",
                "GRANT ALTER ON SCHEMA \"app\" TO \"app_clone\"",
                "GRANT DROP ON TABLE \"app\".\"orders\" TO \"app_clone\"",
                "GRANT SELECT (\"name\") ON TABLE \"app\".\"people\" TO \"app_clone\"",
                "ALTER DEFAULT PRIVILEGES FOR USER \"loader\" GRANT EXECUTE ON PROCEDURES TO \"app_clone\"",
                "ALTER DEFAULT PRIVILEGES FOR USER \"loader\" IN SCHEMA \"app\" GRANT SELECT ON TABLES TO \"app_clone\"",
            ]
        );
        assert_eq!(known.by_default().last(), Some(&"DROP"));
    }

    #[test]
    fn what_one_owns_is_granted_to_the_other_as_far_as_redshift_can() {
        let rows = [
            row(&["database", "", "dev", "", "yy", "yn"]),
            row(&["schema", "", "app", "", "ny", "nn"]),
            row(&["r", "app", "orders", "base", "yyyyy", "ynnnn"]),
            row(&["v", "app", "recent", "base", "yyyyy", "nnnnn"]),
            row(&["r", "app", "by_clone", "clone", "nnnnn", "yyyyy"]),
            row(&["r", "app", "others", "", "nnnnn", "nynnn"]),
        ];
        let known = Known { redshift: true, ..Known::default() };
        let both = known.compared(rows.to_vec());
        assert_eq!(
            grants(both.missing("app", "app_clone", &[]).iter(), "app_clone"),
            [
                "GRANT TEMPORARY ON DATABASE \"dev\" TO \"app_clone\"",
                "GRANT USAGE ON SCHEMA \"app\" TO \"app_clone\"",
                "GRANT ALTER, DELETE, DROP, INSERT, REFERENCES, TRUNCATE, UPDATE ON TABLE \"app\".\"orders\" TO \"app_clone\"",
                "GRANT DELETE, INSERT, REFERENCES, SELECT, UPDATE ON TABLE \"app\".\"recent\" TO \"app_clone\"",
            ]
        );
        assert_eq!(
            grants(both.missing_in_base("app_clone", &[]).iter(), "app"),
            [
                "GRANT ALTER, DELETE, DROP, INSERT, REFERENCES, SELECT, TRUNCATE, UPDATE ON TABLE \"app\".\"by_clone\" TO \"app\""
            ]
        );
        assert_eq!(
            revocations(both.extras("app", "app_clone").iter(), "app_clone"),
            ["REVOKE INSERT ON TABLE \"app\".\"others\" FROM \"app_clone\""]
        );
    }

    #[test]
    fn no_statement_mixes_catalogues_with_views_of_all_nodes() {
        for statement in questions("'app', 'app_clone'").iter().chain(&comparisons("'app'", "'app_clone'")) {
            let catalogues = statement.contains("pg_") || statement.contains("has_");
            assert!(!(catalogues && statement.contains("svv_")), "{statement}");
        }
    }
}
