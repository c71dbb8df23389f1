//! What a rotation may ask of AWS, beside its own secret.

#[cfg(feature = "rds")]
mod rds;
mod redshift;
mod signed;

pub mod aws;

use async_trait::async_trait;

use crate::error::Result;
use crate::store::Store;

/// The AWS services, as the engine and the kinds see them.
#[async_trait]
pub trait Services: Send + Sync {
    /// The secret with this ARN or name. Asks nothing yet.
    fn secret<'s>(&'s self, id: &str) -> Box<dyn Store + 's>;

    /// Where a database is whose administrator AWS manages.
    ///
    /// # Errors
    /// Config, when there is none with this ARN or the role may not ask; Transient, when AWS does not answer.
    async fn endpoint(&self, managed: Managed<'_>) -> Result<Endpoint>;

    /// Whether the database at the host name `replica` gets its changes from the one at `source`: a read replica of RDS, or
    /// another endpoint of the same Aurora cluster.
    ///
    /// # Errors
    /// Config, when the role may not ask; Transient, when RDS does not answer.
    async fn replicates(&self, replica: &str, source: &str) -> Result<bool>;
}

/// A database of RDS or Redshift, by its ARN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Managed<'a> {
    /// A DB instance.
    Instance(&'a str),
    /// An Aurora or Multi-AZ cluster.
    Cluster(&'a str),
    /// A provisioned cluster of Redshift.
    RedshiftCluster(&'a str),
    /// A namespace of Redshift Serverless.
    RedshiftNamespace(&'a str),
}

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// RDS's name of the engine, e.g. `aurora-postgresql`; or `redshift`.
    pub engine: String,
}
