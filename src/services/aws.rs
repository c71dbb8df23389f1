//! The AWS services themselves: clients that are built once and lent to every rotation.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_secretsmanager::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use futures_util::FutureExt as _;

#[cfg(feature = "rds")]
use super::Database;
use super::signed::Signed;
use super::{Answer, Endpoint, Key, Managed, Refusal, Request, Services, redshift};
use crate::error::Result;
use crate::http::Http;
use crate::store::Store;
use crate::store::aws::AwsStore;

/// AWS, by its SDK.
pub struct Aws {
    endpoint: Option<String>,
    secrets: aws_sdk_secretsmanager::Client,
    signed: Signed,
    #[cfg(feature = "rds")]
    rds: super::rds::Rds,
}

impl Aws {
    /// `endpoint` goes before what `config` says of Secrets Manager's; AWS's own rotation functions are told so of another.
    /// `http` is for what is asked without the SDK.
    #[must_use]
    pub fn new(config: &SdkConfig, endpoint: Option<String>, http: Http) -> Self {
        let mut secrets = aws_sdk_secretsmanager::config::Builder::from(config);
        if endpoint.is_some() {
            secrets.set_endpoint_url(endpoint.clone());
        }
        Self {
            endpoint,
            secrets: aws_sdk_secretsmanager::Client::from_conf(secrets.build()),
            signed: Signed::new(config.clone(), http),
            #[cfg(feature = "rds")]
            rds: super::rds::Rds::new(config.clone()),
        }
    }

    /// Where Secrets Manager will be asked, as far as that can be said before asking.
    #[must_use]
    pub fn secrets_endpoint(&self, config: &SdkConfig) -> Option<String> {
        if let Some(endpoint) = self.endpoint.as_deref().or(config.endpoint_url()) {
            return Some(endpoint.to_owned());
        }
        let parameters = Params::builder()
            .set_region(config.region().map(|region| region.as_ref().to_owned()))
            .use_fips(config.use_fips().unwrap_or_default())
            .use_dual_stack(config.use_dual_stack().unwrap_or_default());
        // It answers at once: its rules are compiled in.
        let found = DefaultResolver::new().resolve_endpoint(&parameters.build().ok()?).now_or_never()?;
        Some(found.ok()?.url().to_owned())
    }
}

#[async_trait]
impl Services for Aws {
    fn secret<'s>(&'s self, id: &str) -> Box<dyn Store + 's> {
        Box::new(AwsStore::new(&self.secrets, id))
    }

    async fn endpoint(&self, managed: Managed<'_>) -> Result<Endpoint> {
        match managed {
            Managed::RedshiftCluster(arn) => redshift::cluster(&self.signed, arn).await,
            Managed::RedshiftNamespace(arn) => redshift::namespace(&self.signed, arn).await,
            #[cfg(feature = "rds")]
            Managed::Instance(arn) => self.rds.instance(arn).await,
            #[cfg(feature = "rds")]
            Managed::Cluster(arn) => self.rds.cluster(arn).await,
            #[cfg(not(feature = "rds"))]
            Managed::Instance(_) | Managed::Cluster(_) => without_rds(&format!("where the database {managed:?} is")),
        }
    }

    async fn replicates(&self, replica: &str, source: &str) -> Result<bool> {
        #[cfg(feature = "rds")]
        return self.rds.replicates(replica, source).await;
        #[cfg(not(feature = "rds"))]
        without_rds(&format!("whether {replica} is a replica of {source}"))
    }

    #[cfg(feature = "rds")]
    async fn database(&self, arn: &str) -> std::result::Result<Database, Refusal> {
        self.rds.database(arn).await
    }

    #[cfg(feature = "rds")]
    async fn set_password(&self, arn: &str, password: &str) -> std::result::Result<Database, Refusal> {
        self.rds.set_password(arn, password).await
    }

    async fn sign(
        &self,
        request: &mut http::Request<Vec<u8>>,
        service: &str,
        region: &str,
        key: Option<Key<'_>>,
    ) -> Result<()> {
        self.signed.sign(request, service, region, key).await
    }

    async fn ask(&self, request: &Request<'_>) -> std::result::Result<Answer, Refusal> {
        self.signed.ask(request).await
    }
}

#[cfg(not(feature = "rds"))]
fn without_rds<T>(what: &str) -> Result<T> {
    use crate::error::{Code, Error};
    Err(Error::config(Code::Admin, format!("this build cannot ask RDS {what}")).hint("build with the feature `rds`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_config::{BehaviorVersion, Region};

    #[test]
    fn the_endpoint_is_that_of_the_region_unless_another_is_named() {
        let config = |region: &'static str| {
            SdkConfig::builder().behavior_version(BehaviorVersion::latest()).region(Region::new(region)).build()
        };
        for (region, expected) in [
            ("eu-central-1", "https://secretsmanager.eu-central-1.amazonaws.com"),
            ("cn-north-1", "https://secretsmanager.cn-north-1.amazonaws.com.cn"),
        ] {
            let config = config(region);
            let http = Http::new(&crate::tls::Trust::default()).unwrap();
            assert_eq!(Aws::new(&config, None, http).secrets_endpoint(&config).as_deref(), Some(expected));
        }
        let config = config("us-east-1");
        let http = Http::new(&crate::tls::Trust::default()).unwrap();
        let aws = Aws::new(&config, Some("http://127.0.0.1:1".to_owned()), http);
        assert_eq!(aws.secrets_endpoint(&config).as_deref(), Some("http://127.0.0.1:1"));
    }
}
