//! The few calls that rotation needs of Secrets Manager, for one secret.

pub mod aws;
pub mod memory;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::error::Result;
use crate::secret::{Secret, SecretText};

/// The staging label of the value in use.
pub const CURRENT: &str = "AWSCURRENT";
/// The staging label of the value that a rotation is putting into force.
pub const PENDING: &str = "AWSPENDING";
/// The staging label of the value before the current one.
pub const PREVIOUS: &str = "AWSPREVIOUS";

/// One secret in Secrets Manager.
///
/// Errors of every call: Config for missing permissions and refused requests, Transient when nobody answered or not for now.
#[async_trait]
pub trait Store: Send + Sync {
    /// `DescribeSecret`.
    async fn describe(&self) -> Result<Description>;

    /// `GetSecretValue`; `None` when there is no such version, or it holds no value (yet).
    async fn get(&self, version: Version<'_>) -> Result<Option<Secret>>;

    /// `PutSecretValue` of `value` as version `token` with the label AWSPENDING and no other.
    ///
    /// A version's value never changes: [`Put::Exists`] when `token` already holds another one. Storing the same value
    /// again is no error. `rotation_token` is the one of the event.
    async fn put_pending(&self, token: &str, value: &Secret, rotation_token: Option<&SecretText>) -> Result<Put>;

    /// `UpdateSecretVersionStage`: moves AWSCURRENT from version `from` to `to`; AWSPREVIOUS follows by itself.
    async fn promote(&self, to: &str, from: Option<&str>) -> Result<()>;

    /// `UpdateSecretVersionStage`: takes AWSPENDING from version `token`.
    async fn unstage_pending(&self, token: &str) -> Result<()>;

    /// `ListSecretVersionIds`: versions that no label names, newest first, at most 100.
    async fn unlabelled(&self) -> Result<Vec<String>>;

    /// `ListSecretVersionIds`: when version `id` was made, if that is known.
    async fn created(&self, _id: &str) -> Result<Option<SystemTime>> {
        Ok(None)
    }
}

/// Which version to read. A stage is always named, except for versions that have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version<'a> {
    /// The one labelled AWSCURRENT.
    Current,
    /// The one labelled AWSPREVIOUS.
    Previous,
    /// The one with this id, if it is labelled AWSPENDING.
    Pending(&'a str),
    /// The one with this id, which no label names.
    Unlabelled(&'a str),
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The value is stored.
    Stored,
    /// The version already held another value, and still does.
    Exists,
}

/// What `DescribeSecret` tells a rotation.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// The full ARN.
    pub arn: String,
    /// `None` when never configured, which counts as enabled: the emulators leave it out.
    pub rotation_enabled: Option<bool>,
    /// The labels of each version that has any.
    pub stages: BTreeMap<String, Vec<String>>,
    /// The tags of the secret.
    pub tags: BTreeMap<String, String>,
}

impl Description {
    /// The version that holds `label`.
    #[must_use]
    pub fn holder(&self, label: &str) -> Option<&str> {
        self.stages.iter().find(|(_, labels)| labels.iter().any(|it| it == label)).map(|(id, _)| id.as_str())
    }

    /// Whether version `id` holds `label`.
    #[must_use]
    pub fn holds(&self, id: &str, label: &str) -> bool {
        self.stages.get(id).is_some_and(|labels| labels.iter().any(|it| it == label))
    }
}

/// How long a value that was just written may take to become readable.
const VISIBLE_WITHIN: Duration = Duration::from_secs(3);

/// Reads a version that an earlier step has written, waiting while it is not visible yet.
///
/// # Errors
/// Those of [`Store::get`].
pub(crate) async fn get_written(store: &dyn Store, version: Version<'_>) -> Result<Option<Secret>> {
    let give_up = Instant::now() + VISIBLE_WITHIN;
    let mut pause = Duration::from_millis(100);
    loop {
        if let Some(secret) = store.get(version).await? {
            return Ok(Some(secret));
        }
        if Instant::now() + pause > give_up {
            return Ok(None);
        }
        sleep(pause).await;
        pause *= 2;
    }
}
