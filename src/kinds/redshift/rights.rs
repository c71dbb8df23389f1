//! What two users may do, compared, and the statements that give and take it.

use std::collections::BTreeSet;
use std::fmt;

use postgres_protocol::escape::escape_identifier;

/// What `HAS_TABLE_PRIVILEGE` knows on Redshift and on PostgreSQL.
pub(super) const TABLE: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "REFERENCES"];
/// What an owner of a table may do beside, and Redshift can grant.
pub(super) const TABLE_MORE: [&str; 3] = ["DROP", "ALTER", "TRUNCATE"];
pub(super) const SCHEMA: [&str; 2] = ["CREATE", "USAGE"];
pub(super) const DATABASE: [&str; 2] = ["CREATE", "TEMPORARY"];

/// One thing that a user may do. The order is that of granting; taking away goes backwards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    Group(String),
    Role(String),
    /// Passing a role on.
    RoleAdmin(String),
    Privilege(Privilege),
}

/// A privilege in the words of GRANT.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Privilege {
    /// The user for whose future objects it is a default, with the clause that says so.
    pub(super) default_of: Option<(String, String)>,
    /// What it is about, from `ON` or `FOR` on.
    pub(super) on: String,
    pub(super) name: String,
}

impl Right {
    pub(super) fn on(on: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Privilege(Privilege { default_of: None, on: on.into(), name: name.into() })
    }

    /// On all that `owner` will make, in one schema or in any.
    pub(super) fn default(owner: &str, schema: &str, kind: &str, name: impl Into<String>) -> Self {
        let mut clause = format!("ALTER DEFAULT PRIVILEGES FOR USER {}", escape_identifier(owner));
        if !schema.is_empty() {
            clause = format!("{clause} IN SCHEMA {}", escape_identifier(schema));
        }
        let default_of = Some((owner.to_owned(), clause));
        Self::Privilege(Privilege { default_of, on: format!("ON {kind}"), name: name.into() })
    }

    fn is_about_objects(&self) -> bool {
        matches!(self, Self::Privilege(_))
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => write!(f, "group {name:?}"),
            Self::Role(name) => write!(f, "role {name:?}"),
            Self::RoleAdmin(name) => write!(f, "ADMIN OPTION for role {name:?}"),
            Self::Privilege(Privilege { default_of: None, on, name }) => write!(f, "{name} {on}"),
            Self::Privilege(Privilege { default_of: Some((owner, _)), on, name }) => {
                write!(f, "{name} {on} of {owner:?} by default")
            }
        }
    }
}

pub(super) fn schema(name: &str) -> String {
    format!("ON SCHEMA {}", escape_identifier(name))
}

pub(super) fn table(schema: &str, name: &str) -> String {
    format!("ON TABLE {}.{}", escape_identifier(schema), escape_identifier(name))
}

/// The statements that give `rights` to `user`: one for each object.
pub(super) fn grants<'a>(rights: impl Iterator<Item = &'a Right>, user: &str) -> Vec<String> {
    let user = escape_identifier(user);
    statements(rights, "GRANT", |right| match right {
        Right::Group(name) => format!("ALTER GROUP {} ADD USER {user}", escape_identifier(name)),
        Right::Role(name) => format!("GRANT ROLE {} TO {user}", escape_identifier(name)),
        Right::RoleAdmin(name) => format!("GRANT ROLE {} TO {user} WITH ADMIN OPTION", escape_identifier(name)),
        Right::Privilege(_) => format!("TO {user}"),
    })
}

/// The statements that take `rights` from `user`.
pub(super) fn revocations<'a>(rights: impl DoubleEndedIterator<Item = &'a Right>, user: &str) -> Vec<String> {
    let user = escape_identifier(user);
    statements(rights.rev(), "REVOKE", |right| match right {
        Right::Group(name) => format!("ALTER GROUP {} DROP USER {user}", escape_identifier(name)),
        Right::Role(name) => format!("REVOKE ROLE {} FROM {user}", escape_identifier(name)),
        Right::RoleAdmin(name) => format!("REVOKE ADMIN OPTION FOR ROLE {} FROM {user}", escape_identifier(name)),
        Right::Privilege(_) => format!("FROM {user}"),
    })
}

fn statements<'a>(
    rights: impl Iterator<Item = &'a Right>,
    verb: &str,
    words: impl Fn(&Right) -> String,
) -> Vec<String> {
    let (mut statements, mut rights) = (Vec::new(), rights.peekable());
    while let Some(right) = rights.next() {
        let Right::Privilege(Privilege { default_of, on, name }) = right else {
            statements.push(words(right));
            continue;
        };
        let mut names = vec![name.as_str()];
        while let Some(Right::Privilege(next)) = rights.peek()
            && (&next.default_of, &next.on) == (default_of, on)
        {
            names.push(next.name.as_str());
            rights.next();
        }
        let clause = default_of.as_ref().map(|(_, clause)| format!("{clause} ")).unwrap_or_default();
        statements.push(format!("{clause}{verb} {} {on} {}", names.join(", "), words(right)));
    }
    statements
}

/// What the two users may do, as far as it was asked for: of privileges that both have, only some.
#[derive(Clone, Debug, Default)]
pub(super) struct Both {
    pub(super) base: BTreeSet<Right>,
    pub(super) clone: BTreeSet<Right>,
    /// What the clone owns, as privileges name it. It is not for it to be taken away.
    pub(super) clones_own: BTreeSet<String>,
    /// Privileges on tables that are granted to each of the two by name; they show nothing but that two users belong
    /// together.
    pub(super) by_name: [BTreeSet<Right>; 2],
}

impl Both {
    /// What the clone lacks.
    pub(super) fn missing(&self, base: &str, clone: &str, by_default: &[&str]) -> BTreeSet<Right> {
        let shared = by_default.iter().map(|name| Right::default(base, "", "TABLES", *name));
        let wanted = self.base.iter().filter(|right| !is_default_of(right, &[base, clone])).cloned().chain(shared);
        wanted.filter(|right| !self.clone.contains(right)).collect()
    }

    /// What the base user lacks of the clone's own objects: a table that the one has made is of no use if the other cannot
    /// read it.
    pub(super) fn missing_in_base(&self, clone: &str, by_default: &[&str]) -> BTreeSet<Right> {
        let shared = by_default.iter().map(|name| Right::default(clone, "", "TABLES", *name));
        let wanted = self.clone.iter().filter(|right| self.is_clones_own(right)).cloned().chain(shared);
        wanted.filter(|right| !self.base.contains(right)).collect()
    }

    /// What the clone has and the base user has not.
    pub(super) fn extras(&self, base: &str, clone: &str) -> BTreeSet<Right> {
        let extras = self.clone.difference(&self.base);
        extras.filter(|it| !self.is_clones_own(it) && !is_default_of(it, &[base, clone])).cloned().collect()
    }

    /// Whether they may do the same, and have something in common that not everybody has.
    pub(super) fn are_alike(&self, base: &str, clone: &str) -> bool {
        let by_membership = self.base.intersection(&self.clone).any(|right| !right.is_about_objects());
        let [left, right] = &self.by_name;
        (by_membership || left.intersection(right).next().is_some())
            && self.missing(base, clone, &[]).is_empty()
            && self.extras(base, clone).is_empty()
    }

    fn is_clones_own(&self, right: &Right) -> bool {
        matches!(right, Right::Privilege(Privilege { default_of: None, on, .. }) if self.clones_own.contains(on))
    }
}

/// Whether it is about what one of `owners` will make.
fn is_default_of(right: &Right, owners: &[&str]) -> bool {
    matches!(right, Right::Privilege(Privilege { default_of: Some((owner, _)), .. }) if owners.contains(&owner.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights() -> BTreeSet<Right> {
        let orders = table("app", "Odd \"orders\"");
        BTreeSet::from([
            Right::Group("analysts".to_owned()),
            Right::Role("sys:monitor".to_owned()),
            Right::RoleAdmin("sys:monitor".to_owned()),
            Right::on(orders.clone(), "ALTER"),
            Right::on(orders.clone(), "DROP"),
            Right::on(orders, "TRUNCATE"),
            Right::on(schema("app"), "USAGE"),
            Right::on("FOR TABLES IN SCHEMA \"app\"", "SELECT"),
            Right::default("loader", "app", "TABLES", "INSERT"),
            Right::default("loader", "app", "TABLES", "SELECT"),
            Right::default("loader", "", "PROCEDURES", "EXECUTE"),
        ])
    }

    #[test]
    fn rights_are_granted_in_redshifts_words() {
        assert_eq!(
            grants(rights().iter(), "app_clone"),
            [
                "ALTER GROUP \"analysts\" ADD USER \"app_clone\"",
                "GRANT ROLE \"sys:monitor\" TO \"app_clone\"",
                "GRANT ROLE \"sys:monitor\" TO \"app_clone\" WITH ADMIN OPTION",
                "GRANT SELECT FOR TABLES IN SCHEMA \"app\" TO \"app_clone\"",
                "GRANT USAGE ON SCHEMA \"app\" TO \"app_clone\"",
                "GRANT ALTER, DROP, TRUNCATE ON TABLE \"app\".\"Odd \"\"orders\"\"\" TO \"app_clone\"",
                "ALTER DEFAULT PRIVILEGES FOR USER \"loader\" GRANT EXECUTE ON PROCEDURES TO \"app_clone\"",
                "ALTER DEFAULT PRIVILEGES FOR USER \"loader\" IN SCHEMA \"app\" GRANT INSERT, SELECT ON TABLES TO \"app_clone\"",
            ]
        );
    }

    #[test]
    fn rights_are_revoked_backwards() {
        let revoked = revocations(rights().iter(), "app_clone");
        assert_eq!(
            revoked[0],
            "ALTER DEFAULT PRIVILEGES FOR USER \"loader\" IN SCHEMA \"app\" REVOKE SELECT, INSERT ON TABLES FROM \"app_clone\""
        );
        assert_eq!(
            revoked[revoked.len() - 3..],
            [
                "REVOKE ADMIN OPTION FOR ROLE \"sys:monitor\" FROM \"app_clone\"",
                "REVOKE ROLE \"sys:monitor\" FROM \"app_clone\"",
                "ALTER GROUP \"analysts\" DROP USER \"app_clone\"",
            ]
        );
    }

    #[test]
    fn what_one_owns_is_for_both_and_never_an_extra() {
        let own = table("app", "made_by_clone");
        let mut both = Both::default();
        both.clone.extend(["SELECT", "DROP"].map(|name| Right::on(own.clone(), name)));
        both.clones_own.insert(own.clone());
        assert!(both.extras("app", "app_clone").is_empty());
        let missing = both.missing_in_base("app_clone", &["SELECT"]);
        assert_eq!(
            grants(missing.iter(), "app"),
            [
                format!("GRANT DROP, SELECT {own} TO \"app\""),
                "ALTER DEFAULT PRIVILEGES FOR USER \"app_clone\" GRANT SELECT ON TABLES TO \"app\"".to_owned(),
            ]
        );
        assert_eq!(
            grants(both.missing("app", "app_clone", &["SELECT"]).iter(), "app_clone"),
            ["ALTER DEFAULT PRIVILEGES FOR USER \"app\" GRANT SELECT ON TABLES TO \"app_clone\""]
        );
        // Once they are there, nothing is left to do, and they are no extras.
        both.base.extend(missing);
        both.clone.insert(Right::default("app", "", "TABLES", "SELECT"));
        assert!(both.missing_in_base("app_clone", &["SELECT"]).is_empty());
        assert!(both.missing("app", "app_clone", &["SELECT"]).is_empty());
        assert!(both.extras("app", "app_clone").is_empty());
    }

    #[test]
    fn two_users_with_nothing_in_common_are_no_pair() {
        let mut both = Both::default();
        assert!(!both.are_alike("app", "app_clone"));
        for side in [&mut both.base, &mut both.clone] {
            side.insert(Right::on(schema("public"), "USAGE"));
        }
        assert!(!both.are_alike("app", "app_clone"), "everybody has that");
        for side in [&mut both.base, &mut both.clone] {
            side.insert(Right::Group("analysts".to_owned()));
        }
        assert!(both.are_alike("app", "app_clone"));
        both.clone.insert(Right::Role("other".to_owned()));
        assert!(!both.are_alike("app", "app_clone"));
    }
}
