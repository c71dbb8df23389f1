//! What a rotation may ask of AWS, beside its own secret.

#[cfg(feature = "rds")]
mod rds;
pub(crate) mod redshift;
mod signed;

pub mod aws;

use async_trait::async_trait;

use crate::error::{Code, Error, Result};
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

    /// What RDS says of the instance or cluster with this ARN.
    ///
    /// # Errors
    /// [`Refusal`], as [`ask`](Self::ask).
    async fn database(&self, arn: &str) -> std::result::Result<Database, Refusal> {
        Err(without_rds(arn))
    }

    /// Gives the administrator of the instance or cluster a password, at once, and returns what RDS says of it then.
    ///
    /// # Errors
    /// [`Refusal`], as [`ask`](Self::ask).
    async fn set_password(&self, arn: &str, _password: &str) -> std::result::Result<Database, Refusal> {
        Err(without_rds(arn))
    }

    /// Signs a request to `service` in `region` with AWS's signature, by `key` or else by the function's role.
    ///
    /// # Errors
    /// Config, when there are no credentials, or the request cannot be signed.
    async fn sign(
        &self,
        _request: &mut http::Request<Vec<u8>>,
        service: &str,
        _region: &str,
        _key: Option<Key<'_>>,
    ) -> Result<()> {
        Err(Error::config(Code::Environment, format!("nothing here signs requests to {service}")))
    }

    /// Asks an AWS service that has no method of its own here.
    ///
    /// # Errors
    /// [`Refusal`], whose code is the service's; none if there was no answer.
    async fn ask(&self, request: &Request<'_>) -> std::result::Result<Answer, Refusal>;
}

/// An operation of a service, and how it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its name in the service's API, such as `CreateAccessKey`.
    pub name: &'static str,
    /// The permission that it needs.
    pub action: &'static str,
    /// Its service.
    pub service: &'static Service,
    /// Whether it may be asked again when there was no answer.
    pub repeatable: bool,
}

/// The parts of an ARN, the name that AWS gives a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    /// `aws`, or that of another partition.
    pub partition: &'a str,
    /// Such as `secretsmanager`.
    pub service: &'a str,
    /// Empty for what belongs to no Region.
    pub region: &'a str,
    /// Twelve digits.
    pub account: &'a str,
    /// All the rest, such as `user:name`.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// `None` for what is no ARN.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        if next()? != "arn" {
            return None;
        }
        Some(Self { partition: next()?, service: next()?, region: next()?, account: next()?, resource: next()? })
    }
}

/// The domain of AWS's endpoints in a partition.
pub(crate) fn domain(partition: &str) -> &'static str {
    match partition {
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        "aws-iso" => "c2s.ic.gov",
        "aws-iso-b" => "sc2s.sgov.gov",
        "aws-iso-e" => "cloud.adc-e.uk",
        "aws-iso-f" => "csp.hci.ic.gov",
        _ => "amazonaws.com",
    }
}

/// A service of AWS.
#[derive(Debug)]
pub struct Service {
    /// Its name in messages.
    pub name: &'static str,
    /// Its name in host names, and in signatures unless `signs_as` says another.
    pub prefix: &'static str,
    /// Its name in signatures, where that is another.
    pub signs_as: Option<&'static str>,
    /// Its name in the SDK's settings, as in `AWS_ENDPOINT_URL_REDSHIFT_SERVERLESS`.
    pub id: &'static str,
    /// Its protocol.
    pub protocol: Protocol,
    /// Whether it has one endpoint for all Regions of a partition, as IAM has.
    pub global: bool,
}

/// How a service is spoken to.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// "AWS Query" with this version: a form goes, XML comes.
    Query(&'static str),
    /// "AWS JSON 1.1" with this name of the service.
    Json(&'static str),
    /// "AWS REST JSON": method and path say what is asked, JSON comes.
    Rest,
}

/// One signed request.
pub struct Request<'a> {
    /// What is asked.
    pub operation: &'a Operation,
    /// The ARN of what it is about, for partition and Region, and for messages. With a global service it may have no Region.
    pub of: &'a str,
    /// The Region where the ARN has none.
    pub region: &'a str,
    /// The parameters, in the form of the service's protocol.
    pub input: Input<'a>,
    /// What to ask with, instead of the function's role.
    pub key: Option<Key<'a>>,
}

/// A credential to ask with.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    /// An access key id and its secret, which signs the request.
    Pair(&'a str, &'a str),
    /// A key that is sent as it is.
    Bearer(&'a str),
}

/// The parameters of a request.
pub enum Input<'a> {
    /// For [`Protocol::Query`]: names and values.
    Form(&'a [(&'a str, &'a str)]),
    /// For [`Protocol::Json`].
    Json(&'a serde_json::Value),
    /// For [`Protocol::Rest`]: the path, and the body of a POST; a GET has none.
    Rest(&'a str, Option<&'a serde_json::Value>),
}

/// What a service answered.
pub enum Answer {
    /// By [`Protocol::Query`].
    Xml(crate::secret::SecretText),
    /// By [`Protocol::Json`] or [`Protocol::Rest`].
    Json(serde_json::Value),
}

/// Why a service did not do what it was asked.
pub struct Refusal {
    /// The service's own code, such as `LimitExceeded`; `None` if there was no answer.
    pub code: Option<String>,
    /// The service's own sentence, if it has one.
    pub said: Option<String>,
    /// The same in our words.
    pub error: Error,
}

impl Answer {
    /// The text of the first element at `path` below the root of an XML answer.
    #[must_use]
    pub fn text(&self, path: &[&str]) -> Option<String> {
        match self {
            Self::Xml(xml) => signed::text(xml.expose(), path),
            Self::Json(_) => None,
        }
    }

    /// The texts of `field` in every `item` of the list at `path` below the root of an XML answer.
    #[must_use]
    pub fn items(&self, path: &[&str], item: &str, fields: &[&str]) -> Vec<Vec<Option<String>>> {
        match self {
            Self::Xml(xml) => signed::items(xml.expose(), path, item, fields),
            Self::Json(_) => Vec::new(),
        }
    }

    /// A JSON answer; `null` for XML.
    #[must_use]
    pub fn json(&self) -> &serde_json::Value {
        const NONE: &serde_json::Value = &serde_json::Value::Null;
        match self {
            Self::Json(value) => value,
            Self::Xml(_) => NONE,
        }
    }
}

/// What failed without an answer of the service.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { code: None, said: None, error }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
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

/// What RDS says of a database: an instance or a cluster, by any of its engines.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// RDS's name of the engine, e.g. `aurora-postgresql`.
    pub engine: String,
    /// RDS's word for what it is doing, e.g. `available`.
    pub status: String,
    /// The administrator's name.
    pub user: Option<String>,
    /// Whether a new password is not yet in force.
    pub password_pending: bool,
    /// The ARN of the secret in which RDS manages the password itself.
    pub managed_in: Option<String>,
    /// The cluster that an instance is a member of.
    pub cluster: Option<String>,
    /// What it replicates, passwords included.
    pub source: Option<String>,
    /// Whether it holds tenant databases, each with an administrator of its own.
    pub tenants: bool,
    /// Its host names; that of the writer is the first.
    pub hosts: Vec<String>,
    /// The instances of a cluster.
    pub members: Vec<String>,
    /// The port of all its host names.
    pub port: Option<u16>,
}

/// The refusal of everything that cannot ask RDS.
fn without_rds(arn: &str) -> Refusal {
    Error::config(Code::Request, format!("there is no RDS here to ask for {arn}")).into()
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
