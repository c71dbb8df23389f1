//! Amazon RDS: where the databases are whose administrators it manages, and the passwords of the others' administrators. The
//! only file that knows its SDK.

use std::sync::OnceLock;

use aws_config::SdkConfig;
use aws_sdk_rds::Client;
use aws_sdk_rds::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_rds::types::{DbCluster, DbInstance};

use super::{Arn, Database, Endpoint, Refusal};
use crate::error::{Code, Error, Result};
use crate::net::resolve;
use crate::store::aws::{Call, explain};

const INSTANCES: Call =
    Call { service: "RDS", name: "DescribeDBInstances", action: "rds:DescribeDBInstances", kms: None };
const CLUSTERS: Call = Call { service: "RDS", name: "DescribeDBClusters", action: "rds:DescribeDBClusters", kms: None };
const MODIFY_INSTANCE: Call =
    Call { service: "RDS", name: "ModifyDBInstance", action: "rds:ModifyDBInstance", kms: None };
const MODIFY_CLUSTER: Call = Call { service: "RDS", name: "ModifyDBCluster", action: "rds:ModifyDBCluster", kms: None };

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

    /// What RDS says of the instance or cluster with this ARN.
    pub(super) async fn database(&self, arn: &str) -> std::result::Result<Database, Refusal> {
        let client = self.client.get_or_init(|| Client::new(&self.config));
        let found = if cluster_name(arn).is_some() {
            let asked = client.describe_db_clusters().db_cluster_identifier(arn).send().await;
            let answer = asked.map_err(|error| refusal(CLUSTERS, arn, &error))?;
            answer.db_clusters.unwrap_or_default().into_iter().next().map(of_cluster)
        } else {
            let asked = client.describe_db_instances().db_instance_identifier(arn).send().await;
            let answer = asked.map_err(|error| refusal(INSTANCES, arn, &error))?;
            answer.db_instances.unwrap_or_default().into_iter().next().map(of_instance)
        };
        found.ok_or_else(|| unknown(arn))
    }

    /// Gives the administrator a password, at once: without that it may wait for the maintenance window. Sent twice it does
    /// what it does once, so the SDK may repeat it.
    pub(super) async fn set_password(&self, arn: &str, password: &str) -> std::result::Result<Database, Refusal> {
        let client = self.client.get_or_init(|| Client::new(&self.config));
        let found = if let Some(name) = cluster_name(arn) {
            let call = client.modify_db_cluster().db_cluster_identifier(name);
            let asked = call.master_user_password(password).apply_immediately(true).send().await;
            asked.map_err(|error| refusal(MODIFY_CLUSTER, arn, &error))?.db_cluster.map(of_cluster)
        } else {
            let call = client.modify_db_instance().db_instance_identifier(arn.rsplit(':').next().unwrap_or(arn));
            let asked = call.master_user_password(password).apply_immediately(true).send().await;
            asked.map_err(|error| refusal(MODIFY_INSTANCE, arn, &error))?.db_instance.map(of_instance)
        };
        found.ok_or_else(|| unknown(arn))
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

/// The name in the ARN of a cluster.
fn cluster_name(arn: &str) -> Option<&str> {
    Arn::parse(arn)?.resource.strip_prefix("cluster:")
}

fn of_instance(it: DbInstance) -> Database {
    let located = it.endpoint.as_ref().and_then(|at| Some((at.address.clone()?, u16::try_from(at.port?).ok()?)));
    Database {
        engine: it.engine.unwrap_or_default(),
        status: it.db_instance_status.unwrap_or_default(),
        user: it.master_username,
        password_pending: it.pending_modified_values.is_some_and(|it| it.master_user_password.is_some()),
        managed_in: it.master_user_secret.map(|it| it.secret_arn.unwrap_or_default()),
        cluster: it.db_cluster_identifier.filter(|it| !it.is_empty()),
        source: it
            .read_replica_source_db_instance_identifier
            .or(it.read_replica_source_db_cluster_identifier)
            .filter(|it| !it.is_empty()),
        tenants: it.multi_tenant.unwrap_or_default(),
        hosts: located.iter().map(|(host, _)| host.clone()).collect(),
        members: Vec::new(),
        port: located.map(|(_, port)| port),
    }
}

fn of_cluster(it: DbCluster) -> Database {
    let own = [it.endpoint, it.reader_endpoint].into_iter().flatten();
    Database {
        engine: it.engine.unwrap_or_default(),
        status: it.status.unwrap_or_default(),
        user: it.master_username,
        password_pending: it.pending_modified_values.is_some_and(|it| it.master_user_password.is_some()),
        managed_in: it.master_user_secret.map(|it| it.secret_arn.unwrap_or_default()),
        cluster: None,
        source: it.replication_source_identifier.filter(|it| !it.is_empty()),
        tenants: false,
        hosts: own.chain(it.custom_endpoints.unwrap_or_default()).collect(),
        members: it
            .db_cluster_members
            .unwrap_or_default()
            .into_iter()
            .filter_map(|it| it.db_instance_identifier)
            .collect(),
        port: it.port.and_then(|port| u16::try_from(port).ok()),
    }
}

fn unknown(arn: &str) -> Refusal {
    let error = Error::config(Code::Field, format!("RDS knows no {arn}"));
    error.hint("check that the database exists in this account and Region").into()
}

fn refusal<E>(call: Call, of: &str, error: &SdkError<E>) -> Refusal
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    // As everywhere: a refusal without a code is one all the same, and no answer is none.
    let answered = error.as_service_error();
    Refusal {
        code: answered.map(|it| it.code().unwrap_or_default().to_owned()),
        said: answered.and_then(|it| it.message()).map(str::to_owned),
        error: explain(call, of, error),
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
