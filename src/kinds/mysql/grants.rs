//! What an account may do, as `SHOW GRANTS` and `SHOW CREATE USER` tell it, compared and copied.
//!
//! Both answer in SQL. It is cut at its keywords, outside of quotes and brackets; names and objects are kept as they are
//! written, so that nothing of a name is ever interpreted.

use std::collections::BTreeSet;
use std::fmt;

/// One thing that an account may do, or with partial revokes may not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// A privilege, with its columns where it is granted so.
    Privilege { on: String, name: String, columns: Vec<String>, grantable: bool },
    /// A role.
    Role { name: String, grantable: bool },
    /// MySQL's partial revokes: a privilege that holds everywhere but here.
    Without { on: String, name: String },
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privilege { on, .. } => write!(f, "{} ON {on}", self.words()),
            Self::Role { name, .. } => write!(f, "role {name}"),
            Self::Without { on, name } => write!(f, "no {name} ON {on}"),
        }
    }
}

impl Right {
    fn grantable(&self) -> bool {
        matches!(self, Self::Privilege { grantable: true, .. } | Self::Role { grantable: true, .. })
    }

    fn plain(&self) -> Self {
        let mut plain = self.clone();
        match &mut plain {
            Self::Privilege { grantable, .. } | Self::Role { grantable, .. } => *grantable = false,
            Self::Without { .. } => {}
        }
        plain
    }

    /// The statement that gives it to `account`.
    pub(super) fn grant(&self, account: &str) -> String {
        match self {
            Self::Privilege { on, grantable, .. } => {
                format!("GRANT {} ON {on} TO {account}{}", self.words(), option(*grantable, " WITH GRANT OPTION"))
            }
            Self::Role { name, grantable } => {
                format!("GRANT {name} TO {account}{}", option(*grantable, " WITH ADMIN OPTION"))
            }
            Self::Without { on, name } => format!("REVOKE {name} ON {on} FROM {account}"),
        }
    }

    /// The statement that takes it from `account`; with `option_only`, that takes away passing it on.
    pub(super) fn revoke(&self, account: &str, option_only: bool) -> String {
        match self {
            Self::Privilege { on, .. } if option_only || self.is_usage() => {
                format!("REVOKE GRANT OPTION ON {on} FROM {account}")
            }
            Self::Privilege { on, .. } => format!("REVOKE {} ON {on} FROM {account}", self.words()),
            Self::Role { name, .. } if option_only => format!("REVOKE ADMIN OPTION FOR {name} FROM {account}"),
            Self::Role { name, .. } => format!("REVOKE {name} FROM {account}"),
            Self::Without { on, name } => format!("GRANT {name} ON {on} TO {account}"),
        }
    }

    fn is_usage(&self) -> bool {
        matches!(self, Self::Privilege { name, .. } if name == "USAGE")
    }

    fn words(&self) -> String {
        match self {
            Self::Privilege { name, columns, .. } if !columns.is_empty() => format!("{name} ({})", columns.join(", ")),
            Self::Privilege { name, .. } | Self::Role { name, .. } | Self::Without { name, .. } => name.clone(),
        }
    }

    /// One for each column, as [`Rights`] has them.
    pub(super) fn each(&self) -> Vec<Self> {
        let Self::Privilege { columns, .. } = self else { return vec![self.clone()] };
        if columns.is_empty() {
            return vec![self.clone()];
        }
        let one = |column: &String| {
            let mut one = self.clone();
            if let Self::Privilege { columns, .. } = &mut one {
                *columns = vec![column.clone()];
            }
            one
        };
        columns.iter().map(one).collect()
    }
}

/// Rights that differ in nothing but the column, as one: so many statements fewer.
pub(super) fn together(rights: Vec<Right>) -> Vec<Right> {
    let mut all: Vec<Right> = Vec::new();
    for right in rights {
        if let Some(Right::Privilege { on, name, columns, grantable }) = all.last_mut()
            && let Right::Privilege { on: same_on, name: same_name, columns: more, grantable: same } = &right
            && (&*on, &*name, *grantable) == (same_on, same_name, *same)
            && !columns.is_empty()
            && !more.is_empty()
        {
            columns.extend(more.iter().cloned());
        } else {
            all.push(right);
        }
    }
    all
}

fn option(yes: bool, text: &str) -> &str {
    if yes { text } else { "" }
}

/// Everything that an account may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    rights: BTreeSet<Right>,
    /// MariaDB's default role, as `SHOW GRANTS` writes it.
    pub(super) default_role: Option<String>,
}

impl Rights {
    /// Reads the rows of `SHOW GRANTS`. A row that is none of its forms is passed over.
    pub(super) fn read<'a>(rows: impl Iterator<Item = &'a str>) -> Self {
        let mut rights = Self::default();
        for row in rows {
            if let Some(rest) = row.strip_prefix("SET DEFAULT ROLE ") {
                rights.default_role = cut(rest, " FOR ").map(|(role, _)| role.to_owned());
            } else if let Some(rest) = row.strip_prefix("REVOKE ") {
                if let Some((names, (on, _))) =
                    cut(rest, " ON ").and_then(|(names, rest)| Some((names, cut(rest, " FROM ")?)))
                {
                    let without = |name: &str| Right::Without { on: on.to_owned(), name: name.to_owned() };
                    rights.rights.extend(split(names).map(without));
                }
            } else if let Some((what, rest)) = row.strip_prefix("GRANT ").and_then(|rest| cut(rest, " TO ")) {
                rights.granted(what, rest);
            }
        }
        rights
    }

    fn granted(&mut self, what: &str, rest: &str) {
        let Some((names, on)) = cut(what, " ON ") else {
            let grantable = cut(rest, " WITH ADMIN OPTION").is_some();
            self.rights.extend(split(what).map(|name| Right::Role { name: name.to_owned(), grantable }));
            return;
        };
        // The option stands among others in MariaDB: WITH GRANT OPTION MAX_USER_CONNECTIONS 3.
        let grantable = cut(rest, " GRANT OPTION").is_some();
        for item in split(names) {
            let (name, columns) = match item.split_once(" (") {
                Some((name, columns)) => (name, columns.strip_suffix(')').unwrap_or(columns)),
                None => (item, ""),
            };
            // USAGE is the word for nothing at all.
            if name == "USAGE" && !grantable {
                continue;
            }
            let columns = if columns.is_empty() { Vec::new() } else { split(columns).map(str::to_owned).collect() };
            let right = Right::Privilege { on: on.to_owned(), name: name.to_owned(), columns, grantable };
            self.rights.extend(right.each());
        }
    }

    /// What `model` has and this has not.
    pub(super) fn missing(&self, model: &Self) -> Vec<Right> {
        let mut missing: Vec<_> = model.rights.iter().filter(|right| !self.has(right)).cloned().collect();
        // A restriction of ours that the model has not is a right we lack.
        let lifted = self.rights.iter().filter(|it| matches!(it, Right::Without { .. }) && !model.rights.contains(it));
        missing.extend(lifted.map(|it| match it.clone() {
            Right::Without { on, name } => Right::Privilege { on, name, columns: Vec::new(), grantable: false },
            other => other,
        }));
        missing
    }

    /// Whether a right is there, alone or in a greater one: beside ALL PRIVILEGES, the servers tell of no other on the same
    /// object, and of USAGE only where there is nothing else.
    fn has(&self, right: &Right) -> bool {
        let there = |right: &Right| self.rights.contains(right) || self.rights.contains(&with_option(right));
        let Right::Privilege { on, grantable, .. } = right else { return there(right) };
        let (name, columns) = ("ALL PRIVILEGES".to_owned(), Vec::new());
        let all = Right::Privilege { on: on.clone(), name, columns, grantable: *grantable };
        let passes_on = |it: &Right| matches!(it, Right::Privilege { on: same, grantable: true, .. } if same == on);
        there(right) || there(&all) || (right.is_usage() && self.rights.iter().any(passes_on))
    }

    /// What this has and `model` has not, and whether it is only that it may be passed on.
    pub(super) fn extras(&self, model: &Self) -> Vec<(Right, bool)> {
        let ours = self.rights.iter().filter(|it| !matches!(it, Right::Without { .. }));
        ours.filter(|it| !model.has(it)).map(|it| (it.clone(), it.grantable() && model.has(&it.plain()))).collect()
    }
}

fn with_option(right: &Right) -> Right {
    let mut right = right.clone();
    match &mut right {
        Right::Privilege { grantable, .. } | Right::Role { grantable, .. } => *grantable = true,
        Right::Without { .. } => {}
    }
    right
}

/// How an account signs in and what limits it, as `SHOW CREATE USER` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// The plugin that takes its password; `None` when it signs in without one.
    pub(super) plugin: Option<String>,
    /// MariaDB: whether there are other ways to sign in beside.
    pub(super) several: bool,
    /// MySQL's default roles.
    pub(super) default_roles: Option<String>,
    /// TLS, limits, lock and expiry, in words that set every one of them.
    pub(super) limits: String,
}

/// The plugins that the driver can sign in by.
const PASSWORD_PLUGINS: [&str; 3] = ["caching_sha2_password", "ed25519", "mysql_native_password"];
/// The resource limits, each of which `ALTER USER` leaves as it is when it is not named.
const LIMITS: [&str; 4] =
    ["MAX_QUERIES_PER_HOUR", "MAX_UPDATES_PER_HOUR", "MAX_CONNECTIONS_PER_HOUR", "MAX_USER_CONNECTIONS"];

impl Account {
    /// Reads the row of `SHOW CREATE USER`. What certificates must say is no part of it: MySQL writes these texts without
    /// escaping their quotes, so they come as `mysql.user` has them. `None` is a row that is none of its forms.
    pub(super) fn read(row: &str, demands: &Demands) -> Option<Self> {
        let row = demands.without(row);
        // What follows the way to sign in, in whatever order.
        let ends = [" DEFAULT ROLE ", " REQUIRE ", " WITH MAX_", " ACCOUNT ", " PASSWORD EXPIRE"];
        let end = ends.iter().filter_map(|word| find(&row, word)).min().unwrap_or(row.len());
        let (head, rest) = row.split_at(end);
        let identified = cut(head, " IDENTIFIED ").map_or("", |(_, it)| it);
        let default_roles =
            rest.strip_prefix(" DEFAULT ROLE ").map(|rest| cut(rest, " REQUIRE ").map_or(rest, |(it, _)| it));
        Some(Self {
            plugin: plugin(identified).map(str::to_owned),
            several: cut(identified, " OR ").is_some(),
            default_roles: default_roles.map(str::to_owned),
            limits: format!("REQUIRE {} {}", demands.words(), limits(rest)?),
        })
    }
}

/// What a client must show, as `mysql.user` has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Demands {
    /// `''`, `ANY`, `X509` or `SPECIFIED`.
    pub(super) kind: String,
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) cipher: String,
}

impl Demands {
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = [("SUBJECT", &self.subject), ("ISSUER", &self.issuer), ("CIPHER", &self.cipher)];
        all.into_iter().map(|(word, text)| (word, text.as_str())).filter(|(_, text)| !text.is_empty())
    }

    fn words(&self) -> String {
        match self.kind.as_str() {
            "ANY" => "SSL".to_owned(),
            "X509" => "X509".to_owned(),
            "SPECIFIED" => {
                self.texts().map(|(word, text)| format!("{word} {}", literal(text))).collect::<Vec<_>>().join(" ")
            }
            _ => "NONE".to_owned(),
        }
    }

    /// The row without these texts, which MariaDB writes as literals.
    fn without(&self, row: &str) -> String {
        self.texts().fold(row.to_owned(), |row, (word, text)| {
            row.replacen(&format!(" {word} '{text}'"), "", 1).replacen(&format!(" {word} {}", literal(text)), "", 1)
        })
    }
}

/// The first plugin that takes a password: MySQL writes `WITH 'plugin' AS …`, MariaDB `VIA plugin USING … OR plugin …`, or
/// `BY PASSWORD '…'`.
fn plugin(identified: &str) -> Option<&str> {
    if identified.starts_with("BY PASSWORD") {
        return Some("mysql_native_password");
    }
    let plugins = identified.strip_prefix("WITH ").or_else(|| identified.strip_prefix("VIA "))?;
    let mut rest = plugins;
    loop {
        let (one, more) = cut(rest, " OR ").unwrap_or((rest, ""));
        let name = one.split(' ').next().unwrap_or_default().trim_matches(['\'', '`']);
        if PASSWORD_PLUGINS.contains(&name) {
            return Some(name);
        }
        if more.is_empty() {
            return None;
        }
        rest = more;
    }
}

/// Limits, lock and expiry in full. `None`, if there is anything but words and numbers: that would be said to the server.
fn limits(rest: &str) -> Option<String> {
    let mut text = "WITH".to_owned();
    for limit in LIMITS {
        let value = cut(rest, limit).map_or("", |(_, it)| it).trim_start();
        let digits = value.find(|it: char| !it.is_ascii_digit()).unwrap_or(value.len());
        text.extend([" ", limit, " ", if digits == 0 { "0" } else { &value[..digits] }]);
    }
    // From the first of these on, MySQL and MariaDB write whole clauses that they take back.
    let from = [" ACCOUNT ", " PASSWORD EXPIRE"].iter().filter_map(|word| find(rest, word)).min();
    let clauses = from.map_or("", |from| &rest[from..]);
    // A note is no limit.
    let note = [" ATTRIBUTE ", " COMMENT "].iter().filter_map(|word| find(clauses, word)).min();
    let clauses = &clauses[..note.unwrap_or(clauses.len())];
    if !clauses.chars().all(|it| it.is_ascii_alphanumeric() || " _".contains(it)) {
        return None;
    }
    if find(clauses, " ACCOUNT ").is_none() {
        text.push_str(" ACCOUNT UNLOCK");
    }
    // A password that has expired must be changed, and this one will be.
    let clauses = match cut(clauses, " PASSWORD EXPIRE") {
        Some((before, after)) if after.is_empty() || after.starts_with(" ACCOUNT") => {
            format!("{before} PASSWORD EXPIRE DEFAULT{after}")
        }
        Some(_) => clauses.to_owned(),
        None => format!("{clauses} PASSWORD EXPIRE DEFAULT"),
    };
    Some(text + &clauses)
}

/// A name or text as a literal, in a session whose `sql_mode` knows backslashes.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Splits at the first `word` that is outside of quotes and brackets.
fn cut<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let at = find(text, word)?;
    Some((&text[..at], &text[at + word.len()..]))
}

fn find(text: &str, word: &str) -> Option<usize> {
    outside(text).find(|at| text[*at..].starts_with(word))
}

/// The places of a text that are outside of quotes and brackets.
fn outside(text: &str) -> impl Iterator<Item = usize> {
    let (mut quote, mut depth, mut escaped) = (None, 0_usize, false);
    text.char_indices().filter_map(move |(at, letter)| {
        let free = quote.is_none() && depth == 0;
        match (quote, letter) {
            (Some(_), _) if escaped => escaped = false,
            // Only texts know backslashes, not names in backticks.
            (Some('\'' | '"'), '\\') => escaped = true,
            // A doubled quote closes and opens again.
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"' | '`') => quote = Some(letter),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        free.then_some(at)
    })
}

/// The items of a list with commas.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut ends: Vec<usize> = outside(list).filter(|at| list[*at..].starts_with(',')).collect();
    ends.push(list.len());
    let mut start = 0;
    ends.into_iter().map(move |end| {
        let item = &list[start..end];
        start = end + 1;
        item.trim()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(rows: &[&str]) -> Rights {
        Rights::read(rows.iter().copied())
    }

    fn texts(rights: &[Right]) -> Vec<String> {
        together(rights.to_vec()).iter().map(|it| it.grant("x")).collect()
    }

    #[test]
    fn what_is_missing_is_granted_as_it_was_written() {
        let model = rights(&[
            "GRANT USAGE ON *.* TO `app`@`%` IDENTIFIED BY PASSWORD '*AB' REQUIRE SSL WITH MAX_USER_CONNECTIONS 5",
            "GRANT SELECT, INSERT (`a`, `odd, (name`) ON `db`.`it TO `` that` TO `app`@`%` WITH GRANT OPTION",
            "GRANT EXECUTE ON PROCEDURE `db`.`p` TO `app`@`%`",
            "GRANT BACKUP_ADMIN,CLONE_ADMIN ON *.* TO `app`@`%`",
            "GRANT `r`@`%`,`s`@`%` TO `app`@`%` WITH ADMIN OPTION",
            "GRANT USAGE ON `only`.* TO 'app'@'%' WITH GRANT OPTION MAX_USER_CONNECTIONS 3",
            "GRANT PROXY ON ''@'' TO 'app'@'%'",
            "REVOKE SELECT ON `mysql`.* FROM `app`@`%`",
            "SET DEFAULT ROLE `r` FOR `app`@`%`",
        ]);
        assert_eq!(
            texts(&Rights::default().missing(&model)),
            [
                "GRANT PROXY ON ''@'' TO x",
                "GRANT BACKUP_ADMIN ON *.* TO x",
                "GRANT CLONE_ADMIN ON *.* TO x",
                "GRANT EXECUTE ON PROCEDURE `db`.`p` TO x",
                "GRANT INSERT (`a`, `odd, (name`) ON `db`.`it TO `` that` TO x WITH GRANT OPTION",
                "GRANT SELECT ON `db`.`it TO `` that` TO x WITH GRANT OPTION",
                "GRANT USAGE ON `only`.* TO x WITH GRANT OPTION",
                "GRANT `r`@`%` TO x WITH ADMIN OPTION",
                "GRANT `s`@`%` TO x WITH ADMIN OPTION",
                "REVOKE SELECT ON `mysql`.* FROM x",
            ]
        );
        assert_eq!(model.default_role.as_deref(), Some("`r`"));
        assert!(model.missing(&model).is_empty() && model.extras(&model).is_empty());
    }

    #[test]
    fn extras_and_options_are_told_apart() {
        let model = rights(&["GRANT SELECT, UPDATE ON `db`.* TO `app`@`%`", "GRANT `r` TO `app`@`%`"]);
        let more = rights(&[
            "GRANT SELECT, DELETE ON `db`.* TO `app_clone`@`%` WITH GRANT OPTION",
            "GRANT `r` TO `app_clone`@`%` WITH ADMIN OPTION",
            "GRANT USAGE ON `only`.* TO `app_clone`@`%` WITH GRANT OPTION",
            "REVOKE SELECT ON `mysql`.* FROM `app_clone`@`%`",
        ]);
        assert_eq!(texts(&more.missing(&model)), ["GRANT UPDATE ON `db`.* TO x", "GRANT SELECT ON `mysql`.* TO x"]);
        let revoked: Vec<_> = more.extras(&model).iter().map(|(it, option)| it.revoke("x", *option)).collect();
        assert_eq!(
            revoked,
            [
                "REVOKE DELETE ON `db`.* FROM x",
                "REVOKE GRANT OPTION ON `db`.* FROM x",
                "REVOKE GRANT OPTION ON `only`.* FROM x",
                "REVOKE ADMIN OPTION FOR `r` FROM x"
            ]
        );
    }

    #[test]
    fn greater_rights_have_the_smaller_ones_in_them() {
        let all = rights(&["GRANT ALL PRIVILEGES ON `db`.* TO `app_clone`@`%`"]);
        let passed_on = rights(&["GRANT DELETE ON `db`.* TO `app_clone`@`%` WITH GRANT OPTION"]);
        let some = rights(&["GRANT SELECT ON `db`.* TO `app`@`%`"]);
        let option = rights(&["GRANT USAGE ON `db`.* TO `app`@`%` WITH GRANT OPTION"]);
        assert!(all.missing(&some).is_empty() && passed_on.missing(&option).is_empty());
        assert_eq!(texts(&all.missing(&option)), ["GRANT USAGE ON `db`.* TO x WITH GRANT OPTION"]);
        assert_eq!(texts(&some.missing(&all)), ["GRANT ALL PRIVILEGES ON `db`.* TO x"]);
        assert_eq!(all.extras(&some).len(), 1);
        assert!(some.extras(&all).is_empty());
    }

    #[test]
    fn accounts_are_read_as_each_server_writes_them() {
        let none = "WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 MAX_USER_CONNECTIONS";
        for (row, kind, plugin, roles, limits) in [
            (
                "CREATE USER `app`@`%` IDENTIFIED WITH 'caching_sha2_password' AS '$A$005$x REQUIRE '' \\' y' DEFAULT ROLE `r`@`%`,`s`@`%` REQUIRE SSL WITH MAX_USER_CONNECTIONS 5 PASSWORD EXPIRE DEFAULT ACCOUNT UNLOCK PASSWORD HISTORY DEFAULT PASSWORD REUSE INTERVAL DEFAULT PASSWORD REQUIRE CURRENT DEFAULT ATTRIBUTE '{\"a\": 1}'",
                "ANY",
                Some("caching_sha2_password"),
                Some("`r`@`%`,`s`@`%`"),
                format!(
                    "REQUIRE SSL {none} 5 PASSWORD EXPIRE DEFAULT ACCOUNT UNLOCK PASSWORD HISTORY DEFAULT PASSWORD REUSE INTERVAL DEFAULT PASSWORD REQUIRE CURRENT DEFAULT"
                ),
            ),
            (
                "CREATE USER 'app'@'%' IDENTIFIED WITH 'mysql_native_password' AS '*AB' REQUIRE NONE PASSWORD EXPIRE ACCOUNT LOCK",
                "",
                Some("mysql_native_password"),
                None,
                format!("REQUIRE NONE {none} 0 PASSWORD EXPIRE DEFAULT ACCOUNT LOCK"),
            ),
            (
                "CREATE USER `app`@`%` IDENTIFIED BY PASSWORD '*AB'",
                "",
                Some("mysql_native_password"),
                None,
                format!("REQUIRE NONE {none} 0 ACCOUNT UNLOCK PASSWORD EXPIRE DEFAULT"),
            ),
            (
                "CREATE USER `app`@`%` IDENTIFIED VIA unix_socket OR ed25519 USING 'abc' REQUIRE ISSUER '/CN= WITH MAX_ ' WITH MAX_USER_CONNECTIONS 2 ACCOUNT LOCK PASSWORD EXPIRE",
                "SPECIFIED",
                Some("ed25519"),
                None,
                format!("REQUIRE ISSUER '/CN= WITH MAX_ ' {none} 2 ACCOUNT LOCK PASSWORD EXPIRE DEFAULT"),
            ),
            (
                "CREATE USER `app`@`%` IDENTIFIED VIA unix_socket",
                "",
                None,
                None,
                format!("REQUIRE NONE {none} 0 ACCOUNT UNLOCK PASSWORD EXPIRE DEFAULT"),
            ),
        ] {
            let issuer = if kind == "SPECIFIED" { "/CN= WITH MAX_ " } else { "" };
            let demands = Demands { kind: kind.to_owned(), issuer: issuer.to_owned(), ..Demands::default() };
            let account = Account::read(row, &demands).unwrap();
            assert_eq!(account.plugin.as_deref(), plugin, "{row}");
            assert_eq!(account.default_roles.as_deref(), roles, "{row}");
            assert_eq!(account.limits, limits, "{row}");
        }
    }
    #[test]
    fn what_certificates_must_say_is_never_taken_for_sql() {
        for text in ["it's", "x\\", "'; DROP DATABASE d; -- ", "' ACCOUNT LOCK", "a SUBJECT 'b' ISSUER '"] {
            let own = |text: &str| text.to_owned();
            let demands =
                Demands { kind: own("SPECIFIED"), subject: own(text), issuer: own(text), cipher: String::new() };
            let words = format!("SUBJECT {0} ISSUER {0}", literal(text));
            for written in [&words, &format!("SUBJECT '{text}' ISSUER '{text}'")] {
                let row = format!("CREATE USER `app`@`%` IDENTIFIED WITH 'x' AS 'y' REQUIRE {written} ACCOUNT UNLOCK");
                let account = Account::read(&row, &demands).unwrap();
                assert!(account.limits.starts_with(&format!("REQUIRE {words} WITH MAX_")), "{}", account.limits);
                assert!(account.limits.ends_with(" 0 ACCOUNT UNLOCK PASSWORD EXPIRE DEFAULT"), "{}", account.limits);
            }
        }
        let odd = "CREATE USER `app`@`%` REQUIRE ISSUER 'x' ACCOUNT UNLOCK; DROP DATABASE d; -- '";
        assert!(Account::read(odd, &Demands::default()).is_none());
    }
}
