//! Amazon Redshift: where the clusters and workgroups are whose administrators it manages, and what else it is asked.

use serde_json::{Value, json};

use super::signed::Signed;
use super::{Endpoint, Input, Operation, Protocol, Request, Service};
use crate::error::{Code, Error, Result};

const REDSHIFT: Service = Service {
    name: "Redshift",
    prefix: "redshift",
    signs_as: None,
    id: "Redshift",
    protocol: Protocol::Query("2012-12-01"),
    global: false,
};
const SERVERLESS: Service = Service {
    name: "Redshift Serverless",
    prefix: "redshift-serverless",
    signs_as: None,
    id: "Redshift Serverless",
    protocol: Protocol::Json("RedshiftServerless"),
    global: false,
};
pub(crate) const CLUSTERS: Operation = asked(&REDSHIFT, "DescribeClusters", "redshift:DescribeClusters");
const NAMESPACES: Operation = asked(&SERVERLESS, "ListNamespaces", "redshift-serverless:ListNamespaces");
const WORKGROUPS: Operation = asked(&SERVERLESS, "ListWorkgroups", "redshift-serverless:ListWorkgroups");
/// These two change a password, which does no harm when it is done again.
pub(crate) const MODIFY_CLUSTER: Operation = asked(&REDSHIFT, "ModifyCluster", "redshift:ModifyCluster");
pub(crate) const UPDATE_NAMESPACE: Operation =
    asked(&SERVERLESS, "UpdateNamespace", "redshift-serverless:UpdateNamespace");
pub(crate) const GET_NAMESPACE: Operation = asked(&SERVERLESS, "GetNamespace", "redshift-serverless:GetNamespace");

const fn asked(service: &'static Service, name: &'static str, action: &'static str) -> Operation {
    Operation { name, action, service, repeatable: true }
}

/// The endpoint of the provisioned cluster with this ARN.
pub(super) async fn cluster(signed: &Signed, arn: &str) -> Result<Endpoint> {
    let name = arn.rsplit(':').next().unwrap_or(arn);
    let input = Input::Form(&[("ClusterIdentifier", name)]);
    let answer = signed.ask(&Request { operation: &CLUSTERS, of: arn, region: "", input, key: None }).await?;
    let found = |field| answer.text(&["DescribeClustersResult", "Clusters", "Cluster", "Endpoint", field]);
    let port = found("Port").and_then(|port| port.parse().ok());
    endpoint(arn, found("Address"), port)
}

/// The endpoint of the first workgroup of the Serverless namespace with this ARN.
pub(super) async fn namespace(signed: &Signed, arn: &str) -> Result<Endpoint> {
    let text = |value: &Value, field: &str| value.get(field)?.as_str().map(str::to_owned);
    let named = |it: &Value| (text(it, "namespaceArn")? == arn).then(|| text(it, "namespaceName"))?;
    let Some(name) = first(signed, &NAMESPACES, arn, "namespaces", named).await? else {
        return endpoint(arn, None, None);
    };
    let located = |it: &Value| {
        let at = it.get("endpoint").filter(|_| text(it, "namespaceName").as_ref() == Some(&name))?;
        // The crate's numbers keep their digits, and are read as numbers all the same.
        Some((text(at, "address"), at.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())))
    };
    let found = first(signed, &WORKGROUPS, arn, "workgroups", located).await?;
    let (host, port) = found.unwrap_or_default();
    endpoint(arn, host, port)
}

/// What `find` finds first in all pages of a list.
async fn first<T>(
    signed: &Signed,
    operation: &Operation,
    arn: &str,
    list: &str,
    find: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>> {
    let mut request = json!({"maxResults": 100});
    loop {
        let input = Input::Json(&request);
        let answer = signed.ask(&Request { operation, of: arn, region: "", input, key: None }).await?;
        let page = answer.json();
        let items = page.get(list).and_then(Value::as_array);
        if let Some(found) = items.into_iter().flatten().find_map(&find) {
            return Ok(Some(found));
        }
        match page.get("nextToken").and_then(Value::as_str).filter(|token| !token.is_empty()) {
            Some(token) => request = json!({"maxResults": 100, "nextToken": token}),
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
