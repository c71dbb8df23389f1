//! The registry of kinds.

mod cache;
pub mod http;
mod iam;
#[cfg(feature = "mysql")]
mod mysql;
mod opensearch;
#[cfg(feature = "postgres")]
mod postgres;
mod random;
#[cfg(feature = "rds")]
mod rds_master;
mod redis;
#[cfg(feature = "postgres")]
mod redshift;
mod redshift_admin;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::error::{Code, Error, Result};
use crate::kind::Kind;
use crate::secret::Secret;

/// Every kind of this build, with those of the recipes. One entry makes a kind known to the function, the documentation, the
/// template's tests and the conformance tests.
pub static KINDS: LazyLock<Vec<&'static dyn Kind>> =
    LazyLock::new(|| NATIVE.iter().copied().chain(http::providers()).collect());

const NATIVE: &[&dyn Kind] = &[
    &random::Random,
    #[cfg(feature = "postgres")]
    &crate::sql::Sql(postgres::Postgres),
    #[cfg(feature = "postgres")]
    &crate::sql::Sql(redshift::Redshift),
    #[cfg(feature = "mysql")]
    &crate::sql::Sql(mysql::MySql(&mysql::MYSQL)),
    #[cfg(feature = "mysql")]
    &crate::sql::Sql(mysql::MySql(&mysql::MARIADB)),
    &redis::Redis,
    &http::RabbitMq,
    &iam::Iam(iam::AccessKey),
    &iam::Iam(iam::Bedrock),
    &iam::Iam(iam::Smtp),
    &crate::api::ByApi(cache::Cache(&cache::ELASTICACHE)),
    &crate::api::ByApi(cache::Cache(&cache::MEMORYDB)),
    &crate::api::ByApi(opensearch::Master),
    #[cfg(feature = "rds")]
    &crate::api::ByApi(rds_master::Master),
    &crate::api::ByApi(redshift_admin::Admin),
    &http::Own,
];

/// The tag that names the kind; it goes before the fields of the value.
pub const KIND_TAG: &str = "keywheel:kind";

/// The kind of a secret: by its tag `keywheel:kind`, else its field `kind`, else its field `engine`.
///
/// # Errors
/// Config, when nothing names a kind of `kinds`, or the value is a bare string and the kind takes none.
pub fn select<'k>(kinds: &[&'k dyn Kind], tags: &BTreeMap<String, String>, secret: &Secret) -> Result<&'k dyn Kind> {
    let fields = secret.expose();
    let find = |name: &str| kinds.iter().copied().find(|kind| kind.names().contains(&name));
    let kind = match tags.get(KIND_TAG) {
        Some(name) => find(name).ok_or_else(|| unknown(kinds, &format!("tag `{KIND_TAG}`"), name))?,
        None if fields.is_bare() => {
            return Err(Error::config(Code::Value, "the secret value is not a JSON object")
                .hint(format!("a secret that is a bare string needs the tag `{KIND_TAG}`: `random`")));
        }
        None => {
            let named = [("kind", fields.optional("kind")?), ("engine", fields.optional("engine")?)];
            let mut named = named.into_iter().filter_map(|(field, name)| Some((field, name?))).peekable();
            match (named.peek().copied(), named.find_map(|(_, name)| find(name))) {
                (_, Some(kind)) => kind,
                (Some((field, name)), None) => return Err(unknown(kinds, &format!("field \"{field}\""), name)),
                (None, None) => {
                    if let Some(kind) = kinds.iter().copied().find(|kind| kind.recognizes(fields)) {
                        return Ok(kind);
                    }
                    return Err(Error::config(Code::Kind, "neither field \"kind\" nor field \"engine\" is there")
                        .hint(format!("add `kind`, or the tag `{KIND_TAG}`: {}", all_names(kinds))));
                }
            }
        }
    };
    if fields.is_bare() && !kind.takes_bare() {
        return Err(Error::config(Code::Value, "the secret value is not a JSON object").hint(example(kind)));
    }
    Ok(kind)
}

/// The hint for a secret that is not as its kind wants it.
pub(crate) fn example(kind: &dyn Kind) -> String {
    format!("a secret of kind `{}` looks like {}", kind.names().first().unwrap_or(&""), kind.example())
}

fn unknown(kinds: &[&dyn Kind], place: &str, name: &str) -> Error {
    // Quoted and cut short: the text is the secret author's and ends up in a log line.
    let shown: String = name.chars().take(40).collect();
    Error::config(Code::Kind, format!("{place} is {shown:?}, which no kind of credential has as its name"))
        .hint(format!("one of {}", all_names(kinds)))
}

fn all_names(kinds: &[&dyn Kind]) -> String {
    kinds.iter().flat_map(|kind| kind.names()).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(tag: Option<&str>, value: &str) -> Result<&'static str> {
        let tags = tag.map(|tag| (KIND_TAG.to_owned(), tag.to_owned())).into_iter().collect();
        let secret = Secret::parse(value.to_owned())?;
        select(&KINDS, &tags, &secret).map(|kind| kind.names()[0])
    }

    #[test]
    fn tag_then_kind_then_engine() {
        for (tag, value, expected) in [
            (None, r#"{"engine":"postgres"}"#, "postgres"),
            (None, r#"{"engine":"aurora-postgresql"}"#, "postgres"),
            (None, r#"{"kind":"random","engine":"postgres"}"#, "random"),
            (None, r#"{"kind":"production","engine":"postgres"}"#, "postgres"),
            (Some("random"), r#"{"kind":"postgres"}"#, "random"),
            (Some("random"), "bare", "random"),
        ] {
            assert_eq!(selected(tag, value).unwrap(), expected, "{tag:?} {value}");
        }
    }

    #[test]
    fn what_selects_no_kind_is_named() {
        for (tag, value, code, expected) in [
            (None, "{}", Code::Kind, "neither field \"kind\" nor field \"engine\""),
            (None, r#"{"engine":"oracle"}"#, Code::Kind, "field \"engine\" is \"oracle\""),
            (None, r#"{"kind":"x","engine":"y"}"#, Code::Kind, "field \"kind\" is \"x\""),
            (None, r#"{"kind":7}"#, Code::Field, "field \"kind\" must be a string"),
            (Some("nope"), r#"{"engine":"postgres"}"#, Code::Kind, "tag `keywheel:kind` is \"nope\""),
            (None, "bare", Code::Value, "not a JSON object"),
            (None, "[1]", Code::Value, "not a JSON object"),
            (Some("postgres"), "bare", Code::Value, "not a JSON object"),
        ] {
            let error = selected(tag, value).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn names_are_unique_and_everything_is_documented() {
        let mut names: Vec<_> = KINDS.iter().flat_map(|kind| kind.names()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a name selects two kinds");
        for kind in KINDS.iter() {
            assert!(!kind.summary().is_empty());
            let example = Secret::parse(kind.example().to_owned()).unwrap();
            for field in kind.fields() {
                assert!(!field.doc.is_empty(), "{}", field.name);
                let shown = example.expose().value(field.name);
                assert!(!field.required || shown.is_some(), "the example lacks {}", field.name);
                assert!(shown.is_none_or(|value| value.is_number() == field.number), "{}", field.name);
            }
            for name in example.expose().names() {
                let known = kind.fields().iter().any(|field| field.name == name);
                assert!(known || name == "kind" || name == "engine", "{name} is undocumented");
            }
        }
    }
}
