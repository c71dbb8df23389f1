//! The administrator's secret, by which a kind makes and repairs logins that cannot do it themselves.
//!
//! It is read when it is needed and never kept. The administrator signs in at the host of *its own* secret, so that the
//! author of another secret cannot send its password to a host of theirs.

use std::collections::BTreeMap;

use crate::error::{Code, Error, Result};
use crate::kind::Rotation;
use crate::secret::{Secret, SecretText};
use crate::services::Managed;
use crate::store::Version;

/// The fields by which a secret names its administrator's: AWS's, and its plain name.
const FIELDS: [&str; 2] = ["masterarn", "adminarn"];

/// The ARN of the administrator's secret, if the secret names one.
///
/// # Errors
/// Config, when both fields are there and differ, or one is no text.
pub(crate) fn named(secret: &Secret) -> Result<Option<&str>> {
    let fields = secret.expose();
    match (fields.optional(FIELDS[0])?, fields.optional(FIELDS[1])?) {
        (Some(left), Some(right)) if left != right => {
            Err(Error::config(Code::Field, "fields \"masterarn\" and \"adminarn\" differ").hint("remove one of them"))
        }
        (left, right) => Ok(left.or(right).filter(|arn| !arn.is_empty())),
    }
}

/// Reads the administrator's secret `arn`: its current value, as it is.
///
/// # Errors
/// Config, when the function does not allow it, or it has no value.
pub(crate) async fn value(rotation: &Rotation<'_>, arn: &str) -> Result<Secret> {
    let allowed = &rotation.settings.admin_secrets;
    if !allowed.is_empty() && !allowed.iter().any(|it| is(it, arn)) {
        return Err(Error::config(Code::Admin, format!("the administrator's secret {arn} is not allowed"))
            .hint("KEYWHEEL_ADMIN_SECRETS has the ones that are"));
    }
    let secret = rotation.services.secret(arn).get(Version::Current).await.map_err(about)?;
    secret.ok_or_else(|| {
        Error::config(Code::Admin, format!("the administrator's secret {arn} does not exist or has no value"))
    })
}

fn about(error: Error) -> Error {
    error.context("the administrator's secret")
}

/// Reads the administrator's secret `arn`: its current value, with host, port and engine looked up if AWS manages it.
///
/// # Errors
/// Config, when the function does not allow it, it has no value, or names no host.
pub(crate) async fn read(rotation: &Rotation<'_>, arn: &str) -> Result<Secret> {
    let secret = value(rotation, arn).await?;
    // AWS puts user name and password alone into the secrets that it manages, and says by tags whose they are.
    if secret.expose().names().any(|name| name == "host") {
        return Ok(secret);
    }
    let tags = rotation.services.secret(arn).describe().await.map_err(about)?.tags;
    let managed = managed(&tags).ok_or_else(|| {
        Error::config(Code::Admin, format!("the administrator's secret {arn} names no host"))
            .hint("add `host` and `port`; a secret that RDS or Redshift manages says by a tag whose it is")
    })?;
    let endpoint = rotation.services.endpoint(managed).await?;
    let text = |text: String| SecretText::from(text);
    Ok(secret.with(vec![
        ("engine", text(endpoint.engine)),
        ("host", text(endpoint.host)),
        ("port", text(endpoint.port.to_string())),
    ]))
}

/// Whether `id` means the secret with the ARN `arn`: Secrets Manager also takes its name, and either of them without the six
/// characters that it appended. A name in the place of the ARN has none appended: `db-master` is not `db`.
fn is(arn: &str, id: &str) -> bool {
    if !arn.starts_with("arn:") {
        return arn == id;
    }
    let name = arn.rsplit(':').next().unwrap_or(arn);
    let short =
        |text: &'_ str| text.rsplit_once('-').filter(|(_, end)| end.len() == 6).map(|(start, _)| start.to_owned());
    [Some(arn.to_owned()), Some(name.to_owned()), short(arn), short(name)].into_iter().flatten().any(|it| it == id)
}

/// What AWS's tags say; they are spelt in lower case, and AWS's functions take any.
fn managed(tags: &BTreeMap<String, String>) -> Option<Managed<'_>> {
    let tag = |name: &str| tags.iter().find(|(tag, _)| tag.eq_ignore_ascii_case(name)).map(|(_, arn)| arn.as_str());
    // An instance of a cluster may carry both: the cluster's endpoint follows the writer.
    tag("aws:rds:primarydbclusterarn")
        .map(Managed::Cluster)
        .or_else(|| tag("aws:rds:primarydbinstancearn").map(Managed::Instance))
        .or_else(|| tag("aws:redshift:primaryclusterarn").map(Managed::RedshiftCluster))
        .or_else(|| tag("aws:redshift-serverless:namespacearn").map(Managed::RedshiftNamespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_arn_and_by_name() {
        let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:team/admin-user-AbCdEf";
        for id in [
            arn,
            "arn:aws:secretsmanager:us-east-1:123456789012:secret:team/admin-user",
            "team/admin-user-AbCdEf",
            "team/admin-user",
        ] {
            assert!(is(arn, id), "{id}");
        }
        for id in
            ["admin-user", "team/admin", "arn:aws:secretsmanager:us-east-1:999999999999:secret:team/admin-user", ""]
        {
            assert!(!is(arn, id), "{id}");
        }
        assert!(is("team/admin", "team/admin"));
        assert!(!is("team/db-master", "team/db"));
        assert!(!is("arn:aws:secretsmanager:us-east-1:123456789012:secret:team/db-root", "team/db"));
    }
}
