//! The administrator of Amazon Redshift: of a provisioned cluster, or of a namespace of Serverless. Redshift's API is told the
//! new password; a sign-in proves it where the endpoint is known and can be reached.

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::api::{Api, Asking, Profile, Proof, State, arn_in, login_at, missing, unless_unreachable};
use crate::error::{Code, Error, Result};
use crate::kind::{Field, Kind, Rotation};
use crate::net::same_machine;
use crate::password::Limits;
use crate::secret::Secret;
use crate::services::redshift::{CLUSTERS, GET_NAMESPACE, MODIFY_CLUSTER, UPDATE_NAMESPACE};
use crate::services::{Answer, Arn, Endpoint, Input, Refusal};
use crate::tls::SSLROOTCERT;

/// The kind.
pub(super) struct Admin;

const CLUSTER_ARN: &str = "clusterarn";
const CLUSTER: &str = "dbClusterIdentifier";
const NAMESPACE_ARN: &str = "namespacearn";
const NAMESPACE: &str = "namespaceName";

const PROFILE: Profile = Profile {
    names: &["redshift-admin"],
    summary: "the administrator's password of an Amazon Redshift cluster or Serverless namespace, changed by Redshift's API",
    example: r#"{"kind":"redshift-admin","engine":"redshift","host":"wh.abc.eu-central-1.redshift.amazonaws.com","port":5439,"dbClusterIdentifier":"wh","username":"awsuser","password":"…"}"#,
    fields: &[
        Field::setting(CLUSTER, "the cluster's identifier"),
        Field::setting(CLUSTER_ARN, "ARN of the cluster, instead of its identifier"),
        Field::setting(NAMESPACE, "Serverless: the namespace's name"),
        Field::setting(NAMESPACE_ARN, "Serverless: the namespace's ARN as well, which it must then have"),
        Field::optional("engine", "redshift", "the engine, for pods"),
        Field::optional("host", "", "the endpoint; in Serverless each new password is only tried where it is there"),
        Field::optional("port", "5439", "its port").number(),
        Field::optional("dbname", "dev", "the database to sign in to"),
        Field::required("username", "the administrator, as Redshift knows it"),
        Field::optional("password", "", "the password; the first rotation makes one where there is none"),
        Field::setting("sslmode", "`verify-full` or `verify-ca`, for the sign-in").default("verify-full"),
        SSLROOTCERT,
    ],
    permissions: &[
        "redshift:DescribeClusters",
        "redshift:ModifyCluster",
        "redshift-serverless:GetNamespace",
        "redshift-serverless:UpdateNamespace",
    ],
    bad_password: &["InvalidParameterValue", "ValidationException"],
    busy: &["InvalidClusterState", "ConflictException"],
};

const LIMITS: Limits = Limits { usual: 32, shortest: 8, longest: 64, exclude: ":/@\"'\\", never: "'\"\\/@ " };

/// The kind of Redshift's logins, where this build has its driver.
const LOGIN: Option<&dyn Kind> = {
    #[cfg(feature = "postgres")]
    let login: Option<&dyn Kind> = Some(&crate::sql::Sql(super::redshift::Redshift));
    #[cfg(not(feature = "postgres"))]
    let login = None;
    login
};

/// What Redshift says of the administrator's password and of what it opens.
struct Found {
    status: String,
    user: Option<String>,
    managed_in: Option<String>,
    password_pending: bool,
    endpoint: Option<Endpoint>,
    /// In Serverless: the ARN, of which the secret may only have the name.
    arn: Option<String>,
}

#[async_trait]
impl Api for Admin {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn resource(&self, rotation: &Rotation<'_>, secret: &Secret) -> Result<String> {
        let fields = secret.expose();
        fields.required("username")?;
        fields.number("port", 1, 65_535)?;
        secret.expose().filled("host")?;
        let namespace = secret.expose().filled(NAMESPACE)?;
        if secret.expose().filled(CLUSTER_ARN)?.is_some() {
            let arn = arn_in(rotation, secret, &[CLUSTER_ARN], "redshift", "cluster", false)?;
            return named(CLUSTER_ARN, arn.splitn(7, ':').nth(6)).map(|_| arn.to_owned());
        }
        if secret.expose().filled(NAMESPACE_ARN)?.is_some() {
            let arn = arn_in(rotation, secret, &[NAMESPACE_ARN], "redshift-serverless", "namespace", false)?;
            if namespace.is_none() {
                return Err(Error::config(Code::Field, format!("field {NAMESPACE:?} is missing"))
                    .hint("add it: Redshift is asked by name, and the ARN of a namespace has its id"));
            }
            return named(NAMESPACE, namespace).map(|_| arn.to_owned());
        }
        let Arn { partition, region, account, .. } = rotation.arn()?;
        if namespace.is_some() {
            // Its real ARN has its id, which only Redshift knows.
            let name = named(NAMESPACE, namespace)?;
            return Ok(format!("arn:{partition}:redshift-serverless:{region}:{account}:namespace/{name}"));
        }
        let Some(cluster) = secret.expose().filled(CLUSTER)? else {
            let all = format!("{CLUSTER:?}, {CLUSTER_ARN:?} and {NAMESPACE:?}");
            return Err(Error::config(Code::Field, format!("none of the fields {all} is there"))
                .hint("name the cluster or the namespace in one of them"));
        };
        let name = named(CLUSTER, Some(cluster))?;
        Ok(format!("arn:{partition}:redshift:{region}:{account}:cluster:{name}"))
    }

    async fn look(&self, asking: &Asking<'_>) -> Result<State> {
        let of = &asking.of;
        let found = if is_namespace(of) { namespace(asking).await } else { cluster(asking).await }?;
        let refused = |why: String, hint: &str| Err(Error::config(Code::Field, format!("{of} {why}")).hint(hint));
        if let Some(secret) = &found.managed_in {
            return refused(
                format!("has a password that Redshift manages itself, in the secret {secret}"),
                "use that secret, which Redshift rotates; or turn it off with --no-manage-master-password, in Serverless --no-manage-admin-password",
            );
        }
        if let Some(arn) = &found.arn {
            let told = Arn::parse(arn);
            let own = asking.rotation.arn()?;
            let here = told.is_some_and(|it| (it.account, it.region) == (own.account, own.region));
            if !here || (asking.secret.expose().optional(NAMESPACE_ARN)?.is_some_and(|it| !it.is_empty()) && arn != of)
            {
                return refused(
                    format!("is not what field {NAMESPACE:?} names, which is {arn}"),
                    "name the same namespace in both fields, in the account and Region of the secret",
                );
            }
        }
        asking.check_user(found.user.as_deref())?;
        let status = found.status.as_str();
        let stuck = |hint: &str| Err(Error::config(Code::NotReady, format!("{of} is `{status}`")).hint(hint));
        if status == "paused" {
            return stuck("resume it; a password can only be changed while it runs");
        }
        if matches!(status, "deleting" | "DELETING" | "final-snapshot") {
            return stuck("end the rotation of this secret, or name another");
        }
        if status.starts_with("incompatible-") || matches!(status, "hardware-failure" | "storage-full") {
            return stuck("see Redshift's events for what it needs; no password can be changed before");
        }
        let ready = status == "AVAILABLE" || status.split(',').next() == Some("available");
        let busy = if found.password_pending {
            Some(format!("{status}, with a new password pending"))
        } else {
            Some(status.to_owned()).filter(|_| !ready)
        };
        if let (None, Some(endpoint), Some(host)) = (&busy, &found.endpoint, asking.secret.expose().filled("host")?)
            && !same_machine(&endpoint.host, host).await
        {
            return refused(
                format!("is at {}, and field \"host\" is {host:?}", endpoint.host),
                "name the same cluster in both fields",
            );
        }
        Ok(State { busy, limits: LIMITS, endpoint: found.endpoint })
    }

    async fn change(&self, asking: &Asking<'_>, _: Option<&str>, pending: &str) -> std::result::Result<(), Refusal> {
        if is_namespace(&asking.of) {
            let fields = asking.secret.expose();
            let (name, user) = (fields.required(NAMESPACE)?, fields.required("username")?);
            let input = json!({"namespaceName": name, "adminUsername": user, "adminUserPassword": pending});
            return asking.ask(&UPDATE_NAMESPACE, Input::Json(&input)).await.map(drop);
        }
        let form = [("ClusterIdentifier", asking.name()), ("MasterUserPassword", pending)];
        asking.ask(&MODIFY_CLUSTER, Input::Form(&form)).await.map(drop)
    }

    async fn sign_in(&self, asking: &Asking<'_>, state: &State) -> Result<Proof> {
        if state.endpoint.is_none() && asking.secret.expose().filled("host")?.is_none() {
            return Ok(Proof::Told("the secret has no field \"host\"".to_owned()));
        }
        let Some(login) = LOGIN else { return Ok(Proof::Told("this build has no driver for Redshift".to_owned())) };
        unless_unreachable(login.test(asking.rotation, &login_at(asking.secret, state.endpoint.as_ref())).await)
    }
}

fn is_namespace(arn: &str) -> bool {
    Arn::parse(arn).is_some_and(|it| it.service == "redshift-serverless")
}

/// A name that cannot be read as anything else in an ARN.
fn named<'s>(field: &str, name: Option<&'s str>) -> Result<&'s str> {
    let plain = |it: &&str| it.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-');
    name.filter(|it| !it.is_empty()).filter(plain).ok_or_else(|| {
        Error::config(Code::Field, format!("field {field:?} is no name of Redshift"))
            .hint("small letters, digits and hyphens, as Redshift has it")
    })
}

async fn cluster(asking: &Asking<'_>) -> Result<Found> {
    let asked = asking.ask(&CLUSTERS, Input::Form(&[("ClusterIdentifier", asking.name())])).await;
    let answer = asked.map_err(|refusal| missing(refusal, &["ClusterNotFound"], CLUSTER))?;
    let text = |path: &[&str]| answer.text(&[&["DescribeClustersResult", "Clusters", "Cluster"], path].concat());
    let Some(status) = text(&["ClusterStatus"]) else { return Err(unknown(asking)) };
    let port = text(&["Endpoint", "Port"]).and_then(|port| port.parse().ok());
    let place = text(&["Endpoint", "Address"]).zip(port);
    Ok(Found {
        status,
        user: text(&["MasterUsername"]),
        managed_in: text(&["MasterPasswordSecretArn"]).filter(|it| !it.is_empty()),
        password_pending: text(&["PendingModifiedValues", "MasterUserPassword"]).is_some(),
        endpoint: place.map(|(host, port)| Endpoint { host, port, engine: "redshift".to_owned() }),
        arn: None,
    })
}

async fn namespace(asking: &Asking<'_>) -> Result<Found> {
    let input = json!({"namespaceName": asking.secret.expose().required(NAMESPACE)?});
    let asked = asking.ask(&GET_NAMESPACE, Input::Json(&input)).await;
    let answer = asked.map_err(|refusal| missing(refusal, &["ResourceNotFoundException"], NAMESPACE))?;
    let text = |answer: &Answer, name: &str| {
        let value = answer.json().get("namespace")?.get(name).and_then(Value::as_str);
        value.filter(|it| !it.is_empty()).map(str::to_owned)
    };
    let (Some(status), Some(arn)) = (text(&answer, "status"), text(&answer, "namespaceArn")) else {
        return Err(unknown(asking));
    };
    Ok(Found {
        status,
        user: text(&answer, "adminUsername"),
        managed_in: text(&answer, "adminPasswordSecretArn"),
        password_pending: false,
        endpoint: None,
        arn: Some(arn),
    })
}

fn unknown(asking: &Asking<'_>) -> Error {
    Error::config(Code::Field, format!("Redshift knows no {}", asking.of))
        .hint("check that it exists in this account and Region")
}
