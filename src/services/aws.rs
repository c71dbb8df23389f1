//! The AWS services themselves: clients that are built once and lent to every rotation.

use async_trait::async_trait;
use aws_config::SdkConfig;

use super::{Endpoint, Managed, Services};
use crate::error::Result;
use crate::store::Store;
use crate::store::aws::AwsStore;

/// AWS, by its SDK.
pub struct Aws {
    secrets: aws_sdk_secretsmanager::Client,
    #[cfg(feature = "rds")]
    rds: super::rds::Rds,
}

impl Aws {
    /// `endpoint` goes before what `config` says of Secrets Manager's; AWS's own rotation functions are told so of another.
    #[must_use]
    pub fn new(config: &SdkConfig, endpoint: Option<String>) -> Self {
        let mut secrets = aws_sdk_secretsmanager::config::Builder::from(config);
        if endpoint.is_some() {
            secrets.set_endpoint_url(endpoint);
        }
        Self {
            secrets: aws_sdk_secretsmanager::Client::from_conf(secrets.build()),
            #[cfg(feature = "rds")]
            rds: super::rds::Rds::new(config.clone()),
        }
    }
}

#[async_trait]
impl Services for Aws {
    fn secret<'s>(&'s self, id: &str) -> Box<dyn Store + 's> {
        Box::new(AwsStore::new(&self.secrets, id))
    }

    #[cfg(feature = "rds")]
    async fn endpoint(&self, managed: Managed<'_>) -> Result<Endpoint> {
        self.rds.endpoint(managed).await
    }

    #[cfg(not(feature = "rds"))]
    async fn endpoint(&self, _managed: Managed<'_>) -> Result<Endpoint> {
        use crate::error::{Code, Error};
        Err(Error::config(Code::Admin, "this build cannot ask RDS where a database is")
            .hint("build with the feature `rds`"))
    }
}
