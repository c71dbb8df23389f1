//! The administrator ("master") of a database of Amazon RDS: of an instance, of an Aurora or Multi-AZ cluster, and of a cluster of
//! `DocumentDB`, which has RDS's API. RDS is told the new password; where a driver is here, a sign-in proves it.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::api::{Api, Asking, PASSWORD, Profile, Proof, State, arn_in, login_at, missing, unless_unreachable};
use crate::error::{Code, Error, Result};
use crate::kind::{Field, Kind, Rotation};
use crate::net::same_machine;
use crate::password::Limits;
use crate::secret::Secret;
use crate::services::{Arn, Database, Endpoint, Refusal};
use crate::tls::SSLROOTCERT;

/// The kind.
pub(super) struct Master;

const CLUSTER: &str = "dbClusterIdentifier";
const INSTANCE: &str = "dbInstanceIdentifier";
const ARN: &str = "dbarn";

const PROFILE: Profile = Profile {
    names: &["rds-master"],
    summary: "the master password of an RDS instance, an Aurora or Multi-AZ cluster or a DocumentDB cluster, changed by RDS's API",
    example: r#"{"kind":"rds-master","engine":"postgres","host":"db.abc.eu-central-1.rds.amazonaws.com","port":5432,"dbInstanceIdentifier":"db","username":"postgres","password":"…"}"#,
    fields: &[
        Field::setting(CLUSTER, "the cluster's identifier"),
        Field::setting(INSTANCE, "the instance's identifier; a member leads to its cluster"),
        Field::setting(ARN, "ARN of the cluster or instance, instead of an identifier"),
        Field::optional("engine", "", "the engine, for pods; the function believes RDS alone"),
        Field::optional("host", "", "an endpoint of the database; it names the database where nothing else does"),
        Field::optional("port", "", "its port; it must be the one that RDS tells").number(),
        Field::optional("dbname", "", "the database to sign in to"),
        Field::required("username", "the administrator, as RDS knows it"),
        Field::optional("password", "", "the password; the first rotation makes one where there is none"),
        Field::setting("sslmode", "as `postgres`, `mysql` and `mariadb` have it, for the sign-in")
            .default("verify-full"),
        SSLROOTCERT,
    ],
    permissions: &["rds:DescribeDBInstances", "rds:ModifyDBInstance", "rds:DescribeDBClusters", "rds:ModifyDBCluster"],
    bad_password: &["InvalidParameterValue"],
    busy: &["InvalidDBInstanceState", "InvalidDBClusterStateFault", "InvalidDBClusterState"],
};

/// What RDS says while it lets a password be changed.
const READY: [&str; 5] =
    ["available", "backing-up", "storage-optimization", "storage-initialization", "configuring-enhanced-monitoring"];

/// RDS tells of a new password as pending at once, but not always at once enough: so long it is given to begin.
const BEGINS_WITHIN: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// What RDS calls applied has reached every node a moment later.
const APPLIED_WITHIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

#[async_trait]
impl Api for Master {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn resource(&self, rotation: &Rotation<'_>, secret: &Secret) -> Result<String> {
        let fields = secret.expose();
        fields.required("username")?;
        fields.number("port", 1, 65_535)?;
        let host = secret.expose().filled("host")?;
        for (field, kind) in [(CLUSTER, "cluster"), (INSTANCE, "db")] {
            match secret.expose().filled(field)? {
                Some(arn) if arn.starts_with("arn:") => {
                    return named(field, arn_in(rotation, secret, &[field], "rds", kind, false)?);
                }
                Some(name) => return named(field, &arn(rotation, kind, name)?),
                None => {}
            }
        }
        if let Some(said) = secret.expose().filled(ARN)? {
            let cluster = Arn::parse(said).is_some_and(|arn| arn.resource.starts_with("cluster"));
            let kind = if cluster { "cluster" } else { "db" };
            return named(ARN, arn_in(rotation, secret, &[ARN], "rds", kind, false)?);
        }
        let Some(host) = host else {
            return Err(Error::config(
                Code::Field,
                format!("none of the fields {CLUSTER:?}, {INSTANCE:?}, {ARN:?} and \"host\" is there"),
            )
            .hint("name the database in one of them"));
        };
        let Some((kind, name, region)) = resource_at(host) else {
            return Err(Error::config(
                Code::Field,
                format!("field \"host\" is {host:?}, which does not say which database of RDS it is"),
            )
            .hint(format!(
                "add {INSTANCE:?} or {CLUSTER:?}: an alias, a custom endpoint and a proxy have names of their own"
            )));
        };
        if region != rotation.arn()?.region {
            return Err(Error::config(
                Code::Field,
                format!("field \"host\" is in {region}, which is not the secret's Region"),
            )
            .hint("keep the secret, and the function, in the Region of the database"));
        }
        named("host", &arn(rotation, kind, &name)?)
    }

    async fn look(&self, asking: &Asking<'_>) -> Result<State> {
        let found = Found::by(asking).await.map_err(|refusal| {
            missing(refusal, &["DBInstanceNotFound", "DBClusterNotFoundFault"], &[INSTANCE, CLUSTER].join("\" or \""))
        })?;
        let Found { of, database } = &found;
        found.check()?;
        asking.check_user(database.user.as_deref())?;
        let busy = found.busy()?;
        if busy.is_none() {
            found.check_place(asking.secret).await?;
        }
        let endpoint = database.hosts.first().zip(database.port).map(|(host, port)| Endpoint {
            host: host.clone(),
            port,
            engine: database.engine.clone(),
        });
        let state = State { busy, limits: limits(&database.engine, of.contains(":cluster:")), endpoint };
        // What the sign-in could not use should not come out when the password is changed already.
        if let Some(login) = login(&database.engine)
            && asking.secret.expose().filled(PASSWORD)?.is_some()
        {
            login.create(asking.rotation, &login_at(asking.secret, state.endpoint.as_ref())).await?;
        }
        Ok(state)
    }

    async fn change(&self, asking: &Asking<'_>, _: Option<&str>, pending: &str) -> std::result::Result<(), Refusal> {
        let Found { of, .. } = Found::by(asking).await?;
        let services = asking.rotation.services;
        let mut now = services.set_password(&of, pending).await?;
        for pause in BEGINS_WITHIN {
            if now.password_pending || now.status != "available" {
                break;
            }
            sleep(pause).await;
            now = services.database(&of).await?;
        }
        Ok(())
    }

    async fn sign_in(&self, asking: &Asking<'_>, state: &State) -> Result<Proof> {
        let engine = state.endpoint.as_ref().map_or("", |it| it.engine.as_str());
        let Some(login) = login(engine) else {
            return Ok(Proof::Told(format!("the engine is {engine:?}, for which there is no driver here")));
        };
        let secret = login_at(asking.secret, state.endpoint.as_ref());
        for pause in APPLIED_WITHIN {
            match login.test(asking.rotation, &secret).await {
                Err(error) if error.code() == Code::WrongPassword => sleep(pause).await,
                other => return unless_unreachable(other),
            }
        }
        unless_unreachable(login.test(asking.rotation, &secret).await)
    }
}

/// The kind of logins that signs in to an engine.
fn login(engine: &str) -> Option<&'static dyn Kind> {
    match engine {
        #[cfg(feature = "postgres")]
        "postgres" | "aurora-postgresql" => Some(&crate::sql::Sql(super::postgres::Postgres)),
        #[cfg(feature = "mysql")]
        "mysql" | "aurora-mysql" | "aurora" => Some(&crate::sql::Sql(super::mysql::MySql(&super::mysql::MYSQL))),
        #[cfg(feature = "mysql")]
        "mariadb" => Some(&crate::sql::Sql(super::mysql::MySql(&super::mysql::MARIADB))),
        _ => None,
    }
}

/// The ARN of a database in the secret's account and Region.
fn arn(rotation: &Rotation<'_>, kind: &str, name: &str) -> Result<String> {
    let Arn { partition, region, account, .. } = rotation.arn()?;
    Ok(format!("arn:{partition}:rds:{region}:{account}:{kind}:{}", name.to_ascii_lowercase()))
}

/// The ARN, if it names one database.
fn named(field: &str, arn: &str) -> Result<String> {
    let name = arn.splitn(7, ':').nth(6).unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-') {
        return Err(Error::config(Code::Field, format!("field \"{field}\" is no identifier of a database"))
            .hint("letters, digits and hyphens, as RDS has them"));
    }
    Ok(arn.to_owned())
}

/// Kind, name and Region of the database with this endpoint: `name.hash.region.rds.amazonaws.com`, and with `cluster-` or
/// `cluster-ro-` before the hash of a cluster.
fn resource_at(host: &str) -> Option<(&'static str, String, String)> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let inner = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let labels: Vec<&str> = inner.split('.').collect();
    let [name, hash, third, fourth] = labels[..] else { return None };
    let service = |it: &str| matches!(it, "rds" | "docdb" | "neptune");
    // In China the two are the other way round.
    let region = if service(fourth) { third } else { Some(fourth).filter(|_| service(third))? };
    let of_cluster = hash.strip_prefix("cluster-ro-").or_else(|| hash.strip_prefix("cluster-"));
    // Other hyphens are of what has a name of its own: `cluster-custom-…`, `proxy-…`.
    if of_cluster.unwrap_or(hash).contains('-') {
        return None;
    }
    Some((if of_cluster.is_some() { "cluster" } else { "db" }, name.to_owned(), region.to_owned()))
}

/// What a password may be, by engine.
fn limits(engine: &str, cluster: bool) -> Limits {
    let (usual, longest, exclude, never) = match engine {
        "docdb" => (32, 100, ":/@\"'\\", "/@\" "),
        _ if cluster => (32, 41, ":/@\"'\\", "/@\" "),
        "postgres" => (32, 128, ":/@\"'\\", "/@\" "),
        _ if engine.starts_with("sqlserver") => (32, 128, ":/@\"'\\", "/@\" "),
        _ if engine.starts_with("db2") => (32, 255, ":/@\"'\\", "/@\" "),
        _ if engine.starts_with("oracle") => (30, 30, ":/@\"'\\&", "/@\" &'"),
        _ => (32, 41, ":/@\"'\\", "/@\" "),
    };
    Limits { usual, shortest: 8, longest, exclude, never }
}

/// What holds the password, and its ARN.
struct Found {
    of: String,
    database: Database,
}

impl Found {
    /// One Describe by name, or two: a member's password belongs to its cluster.
    async fn by(asking: &Asking<'_>) -> std::result::Result<Self, Refusal> {
        let services = asking.rotation.services;
        let database = services.database(&asking.of).await?;
        let Some((start, cluster)) = asking.of.split_once(":db:").map(|it| it.0).zip(database.cluster.as_ref()) else {
            return Ok(Self { of: asking.of.clone(), database });
        };
        let of = format!("{start}:cluster:{cluster}");
        let mut whole = services.database(&of).await?;
        whole.hosts.extend(database.hosts);
        Ok(Self { of, database: whole })
    }

    /// Its password must be one that the API changes.
    fn check(&self) -> Result<()> {
        let Self { of, database } = self;
        let refused = |why: String, hint: String| Err(Error::config(Code::Field, format!("{of} {why}")).hint(hint));
        if database.engine == "neptune" {
            return refused(
                "is a cluster of Neptune, whose users have no passwords".to_owned(),
                "end the rotation of this secret: Neptune signs in by IAM alone".to_owned(),
            );
        }
        if database.engine.starts_with("custom-") {
            return refused(
                "belongs to RDS Custom, whose API changes no password".to_owned(),
                "rotate the login by the kind of its engine".to_owned(),
            );
        }
        if let Some(secret) = &database.managed_in {
            return refused(
                format!("has a password that RDS manages itself, in the secret {secret}"),
                "use that secret, which RDS rotates; or turn it off with --no-manage-master-user-password".to_owned(),
            );
        }
        if let Some(source) = &database.source {
            return refused(
                format!("replicates {source} and has its passwords"),
                format!("name {source} in the secret"),
            );
        }
        if database.tenants {
            return refused(
                "holds tenant databases, each with an administrator of its own".to_owned(),
                "RDS changes their passwords by ModifyTenantDatabase, which is not done here".to_owned(),
            );
        }
        Ok(())
    }

    /// What it is doing, if no password can be changed meanwhile.
    fn busy(&self) -> Result<Option<String>> {
        let Self { of, database } = self;
        let status = database.status.as_str();
        let stuck = |hint: &str| Err(Error::config(Code::NotReady, format!("{of} is `{status}`")).hint(hint));
        match status {
            "stopped" | "stopping" => stuck("start it; a password can only be changed while it runs"),
            "deleting" | "delete-precheck" => stuck("end the rotation of this secret, or name another database"),
            _ if status.starts_with("incompatible-")
                || status.starts_with("inaccessible-")
                || status.ends_with("failed")
                || matches!(status, "restore-error" | "insufficient-capacity" | "storage-full") =>
            {
                stuck("see RDS's events for what it needs; no password can be changed before")
            }
            _ if database.password_pending => Ok(Some(format!("{status}, with a new password pending"))),
            _ if READY.contains(&status) => Ok(None),
            _ => Ok(Some(status.to_owned())),
        }
    }

    /// Host and port of the secret must be this database's, or the secret names two.
    async fn check_place(&self, secret: &Secret) -> Result<()> {
        let fields = secret.expose();
        let Self { of, database } = self;
        let first = database.hosts.first().map_or("nowhere", String::as_str);
        if let Some(host) = secret.expose().filled("host")?
            && !self.answers_at(host).await
        {
            let message = format!("field \"host\" is {host:?}, which is no endpoint of {of}: that is at {first}");
            return Err(Error::config(Code::Field, message)
                .hint("name the same database in both; or take the host of a proxy out of this secret"));
        }
        if let (Some(said), Some(port)) = (fields.number("port", 1, 65_535)?, database.port)
            && said != u32::from(port)
        {
            let message = format!("field \"port\" is {said}, and {of} listens on {port}");
            return Err(Error::config(Code::Field, message).hint("write the port that RDS tells"));
        }
        Ok(())
    }

    async fn answers_at(&self, host: &str) -> bool {
        let Database { hosts, members, .. } = &self.database;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_member = || {
            let (name, place) = host.split_once('.')?;
            let (_, of_cluster) = hosts.first()?.split_once('.')?;
            Some(members.iter().any(|it| it == name) && of_cluster.strip_prefix("cluster-") == Some(place))
        };
        if hosts.iter().any(|it| it.eq_ignore_ascii_case(&host)) || is_member() == Some(true) {
            return true;
        }
        for own in hosts {
            if same_machine(own, &host).await {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_says_which_database_it_is_of() {
        for (host, expected) in [
            ("db.c0abc.eu-central-1.rds.amazonaws.com", Some(("db", "db", "eu-central-1"))),
            ("DB.c0abc.eu-central-1.rds.amazonaws.com.", Some(("db", "db", "eu-central-1"))),
            ("db.c0abc.rds.cn-north-1.amazonaws.com.cn", Some(("db", "db", "cn-north-1"))),
            ("app.cluster-c0abc.us-east-1.rds.amazonaws.com", Some(("cluster", "app", "us-east-1"))),
            ("app.cluster-ro-c0abc.us-east-1.rds.amazonaws.com", Some(("cluster", "app", "us-east-1"))),
            ("app.cluster-c0abc.us-east-1.docdb.amazonaws.com", Some(("cluster", "app", "us-east-1"))),
            ("app.cluster-custom-c0abc.us-east-1.rds.amazonaws.com", None),
            ("app.proxy-c0abc.us-east-1.rds.amazonaws.com", None),
            ("app.global-c0abc.global.rds.amazonaws.com", None),
            ("db.c0abc.us-east-1.redshift.amazonaws.com", None),
            ("db.example.com", None),
            ("localhost", None),
        ] {
            let found = resource_at(host);
            let found = found.as_ref().map(|(kind, name, region)| (*kind, name.as_str(), region.as_str()));
            assert_eq!(found, expected, "{host}");
        }
    }

    #[tokio::test]
    async fn a_member_is_an_endpoint_of_its_cluster() {
        let database = Database {
            hosts: vec!["app.cluster-c0abc.us-east-1.rds.amazonaws.com".to_owned()],
            members: vec!["one".to_owned()],
            ..Database::default()
        };
        let found = Found { of: String::new(), database };
        for (host, expected) in [
            ("APP.cluster-c0abc.us-east-1.rds.amazonaws.com", true),
            ("one.c0abc.us-east-1.rds.amazonaws.com", true),
            ("two.c0abc.us-east-1.rds.amazonaws.com", false),
            ("one.c0def.us-east-1.rds.amazonaws.com", false),
        ] {
            assert_eq!(found.answers_at(host).await, expected, "{host}");
        }
    }
}
