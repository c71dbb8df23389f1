//! Amazon Redshift: where the clusters and workgroups are whose administrators it manages.

use serde_json::{Value, json};

use super::Endpoint;
use super::signed::{Api, Place, Signed, text};
use crate::error::{Code, Error, Result};
use crate::store::aws::Call;

const CLUSTERS: Api = Api {
    call: Call { service: "Redshift", name: "DescribeClusters", action: "redshift:DescribeClusters", kms: None },
    prefix: "redshift",
    id: "Redshift",
};
const NAMESPACES: Api = serverless("ListNamespaces", "redshift-serverless:ListNamespaces");
const WORKGROUPS: Api = serverless("ListWorkgroups", "redshift-serverless:ListWorkgroups");

const fn serverless(name: &'static str, action: &'static str) -> Api {
    let call = Call { service: "Redshift Serverless", name, action, kms: None };
    Api { call, prefix: "redshift-serverless", id: "Redshift Serverless" }
}

/// The endpoint of the provisioned cluster with this ARN.
pub(super) async fn cluster(signed: &Signed, arn: &str) -> Result<Endpoint> {
    let name = arn.rsplit(':').next().unwrap_or(arn);
    let parameters = [("ClusterIdentifier", name)];
    let xml = signed.query(CLUSTERS, Place::of(arn)?, arn, "2012-12-01", &parameters).await?;
    let found = |field| text(&xml, &["DescribeClustersResult", "Clusters", "Cluster", "Endpoint", field]);
    let port = found("Port").and_then(|port| port.parse().ok());
    endpoint(arn, found("Address"), port)
}

/// The endpoint of the first workgroup of the Serverless namespace with this ARN.
pub(super) async fn namespace(signed: &Signed, arn: &str) -> Result<Endpoint> {
    let text = |value: &Value, field: &str| value.get(field)?.as_str().map(str::to_owned);
    let named = |it: &Value| (text(it, "namespaceArn")? == arn).then(|| text(it, "namespaceName"))?;
    let Some(name) = first(signed, NAMESPACES, arn, "namespaces", named).await? else {
        return endpoint(arn, None, None);
    };
    let located = |it: &Value| {
        let at = it.get("endpoint").filter(|_| text(it, "namespaceName").as_ref() == Some(&name))?;
        // The crate's numbers keep their digits, and are read as numbers all the same.
        Some((text(at, "address"), at.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())))
    };
    let found = first(signed, WORKGROUPS, arn, "workgroups", located).await?;
    let (host, port) = found.unwrap_or_default();
    endpoint(arn, host, port)
}

/// What `find` finds first in all pages of a list.
async fn first<T>(
    signed: &Signed,
    api: Api,
    arn: &str,
    list: &str,
    find: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>> {
    let mut request = json!({"maxResults": 100});
    loop {
        let page = signed.json(api, Place::of(arn)?, arn, "RedshiftServerless", &request).await?;
        let items = page.get(list).and_then(Value::as_array);
        if let Some(found) = items.into_iter().flatten().find_map(&find) {
            return Ok(Some(found));
        }
        match page.get("nextToken").and_then(Value::as_str).filter(|token| !token.is_empty()) {
            Some(token) => request["nextToken"] = json!(token),
            None => return Ok(None),
        }
    }
}

fn endpoint(arn: &str, host: Option<String>, port: Option<u16>) -> Result<Endpoint> {
    let (Some(host), Some(port)) = (host, port) else {
        return Err(Error::config(Code::Admin, format!("Redshift knows no endpoint of {arn}"))
            .hint("check that the cluster, or a workgroup of the namespace, exists and is available"));
    };
    Ok(Endpoint { host, port, engine: "redshift".to_owned() })
}
