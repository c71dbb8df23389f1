//! Amazon RDS: where the databases are whose administrators it manages. The only file that knows its SDK.

use std::sync::OnceLock;

use aws_config::SdkConfig;
use aws_sdk_rds::Client;

use super::{Endpoint, Managed};
use crate::error::{Code, Error, Result};
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
    pub(super) async fn endpoint(&self, managed: Managed<'_>) -> Result<Endpoint> {
        let client = self.client.get_or_init(|| Client::new(&self.config));
        let (arn, found) = match managed {
            Managed::Instance(arn) => {
                let asked = client.describe_db_instances().db_instance_identifier(arn).send().await;
                let answer = asked.map_err(|error| explain(INSTANCES, arn, &error))?;
                let database = answer.db_instances.unwrap_or_default().into_iter().next();
                let endpoint = database.and_then(|it| Some((it.endpoint?, it.engine?)));
                (arn, endpoint.and_then(|(it, engine)| Some((it.address?, it.port?, engine))))
            }
            Managed::Cluster(arn) => {
                let asked = client.describe_db_clusters().db_cluster_identifier(arn).send().await;
                let answer = asked.map_err(|error| explain(CLUSTERS, arn, &error))?;
                let database = answer.db_clusters.unwrap_or_default().into_iter().next();
                (arn, database.and_then(|it| Some((it.endpoint?, it.port?, it.engine?))))
            }
        };
        let found =
            found.and_then(|(host, port, engine)| Some(Endpoint { host, port: u16::try_from(port).ok()?, engine }));
        found.ok_or_else(|| {
            Error::config(Code::Admin, format!("RDS knows no endpoint of {arn}"))
                .hint("check that the database of the administrator's secret exists and is available")
        })
    }
}
