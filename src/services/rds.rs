//! Amazon RDS: where the databases are whose administrators it manages. The only file that knows its SDK.

use std::sync::OnceLock;

use aws_config::SdkConfig;
use aws_sdk_rds::Client;

use super::Endpoint;
use crate::error::{Code, Error, Result};
use crate::net::resolve;
use crate::store::aws::{Call, explain};

const INSTANCES: Call =
    Call { service: "RDS", name: "DescribeDBInstances", action: "rds:DescribeDBInstances", kms: None };
const CLUSTERS: Call = Call { service: "RDS", name: "DescribeDBClusters", action: "rds:DescribeDBClusters", kms: None };

/// The client, built when a rotation first needs it: few do.
pub(super) struct Rds {
    config: SdkConfig,
    client: OnceLock<Client>,
}

impl Rds {
    pub(super) fn new(config: SdkConfig) -> Self {
        Self { config, client: OnceLock::new() }
    }

    /// Asked by ARN, an answer has one database or none, so there is nothing to page.
    pub(super) async fn instance(&self, arn: &str) -> Result<Endpoint> {
        let client = self.client.get_or_init(|| Client::new(&self.config));
        let asked = client.describe_db_instances().db_instance_identifier(arn).send().await;
        let answer = asked.map_err(|error| explain(INSTANCES, arn, &error))?;
        let database = answer.db_instances.unwrap_or_default().into_iter().next();
        let found = database.and_then(|it| Some((it.endpoint?, it.engine?)));
        endpoint(arn, found.and_then(|(it, engine)| Some((it.address?, it.port?, engine))))
    }

    /// As [`instance`](Self::instance).
    pub(super) async fn cluster(&self, arn: &str) -> Result<Endpoint> {
        let client = self.client.get_or_init(|| Client::new(&self.config));
        let asked = client.describe_db_clusters().db_cluster_identifier(arn).send().await;
        let answer = asked.map_err(|error| explain(CLUSTERS, arn, &error))?;
        let database = answer.db_clusters.unwrap_or_default().into_iter().next();
        endpoint(arn, database.and_then(|it| Some((it.endpoint?, it.port?, it.engine?))))
    }

    /// Asks for every database of the account and Region: a name in a secret may be an alias, which leads to one of them only
    /// by its addresses.
    pub(super) async fn replicates(&self, replica: &str, source: &str) -> Result<bool> {
        let client = self.client.get_or_init(|| Client::new(&self.config));
        let mut members = Vec::new();
        let mut pages = client.describe_db_instances().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| explain(INSTANCES, "all databases", &error))?;
            members.extend(page.db_instances.unwrap_or_default().into_iter().filter_map(|it| {
                Some(Member {
                    host: it.endpoint?.address?,
                    names: [it.db_instance_identifier, it.db_instance_arn].into_iter().flatten().collect(),
                    cluster: it.db_cluster_identifier,
                    source: it.read_replica_source_db_instance_identifier,
                })
            }));
        }
        let mut pages = client.describe_db_clusters().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| explain(CLUSTERS, "all clusters", &error))?;
            for it in page.db_clusters.unwrap_or_default() {
                let hosts = [it.endpoint, it.reader_endpoint].into_iter().flatten();
                for host in hosts.chain(it.custom_endpoints.unwrap_or_default()) {
                    let cluster = it.db_cluster_identifier.clone();
                    members.push(Member { host, names: Vec::new(), cluster, source: None });
                }
            }
        }
        let (Some(replica), Some(source)) = (find(&members, replica).await, find(&members, source).await) else {
            return Ok(false);
        };
        let same_cluster = replica.cluster.is_some() && replica.cluster == source.cluster;
        Ok(same_cluster || replica.source.as_ref().is_some_and(|it| source.names.contains(it)))
    }
}

fn endpoint(arn: &str, found: Option<(String, i32, String)>) -> Result<Endpoint> {
    let found = found.and_then(|(host, port, engine)| Some(Endpoint { host, port: u16::try_from(port).ok()?, engine }));
    found.ok_or_else(|| {
        Error::config(Code::Admin, format!("RDS knows no endpoint of {arn}"))
            .hint("check that the database of the administrator's secret exists and is available")
    })
}

/// What answers at one host name of RDS.
struct Member {
    host: String,
    names: Vec<String>,
    cluster: Option<String>,
    /// The identifier or ARN of the instance that it replicates. One in another Region is not found: only this one is asked.
    source: Option<String>,
}

async fn find<'a>(members: &'a [Member], host: &str) -> Option<&'a Member> {
    if let Some(member) = members.iter().find(|it| it.host.eq_ignore_ascii_case(host)) {
        return Some(member);
    }
    let addresses = resolve(host, 0).await.ok()?;
    for member in members {
        if resolve(&member.host, 0).await.is_ok_and(|theirs| theirs.iter().any(|it| addresses.contains(it))) {
            return Some(member);
        }
    }
    None
}
