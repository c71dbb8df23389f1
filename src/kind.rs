//! What a kind of credential is, and what it may use. To add one: one file in `kinds/`, one entry in [`crate::kinds::KINDS`].

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::error::{Code, Effect, Error, Result};
use crate::secret::{Exposed, Secret};
use crate::services::{Arn, Services};
use crate::store::{Store, Version};
use crate::{password, tls};

/// One kind of credential: how it is made, put into force, proven and withdrawn.
///
/// Each method may run more than once for one token, and after a crash of any earlier run.
#[async_trait]
pub trait Kind: Send + Sync {
    /// The values of `kind`, of the tag `keywheel:kind`, or of `engine` that select this kind; the first is its name.
    fn names(&self) -> &'static [&'static str];

    /// What it is, in one line of the documentation.
    fn summary(&self) -> &'static str;

    /// A secret value of this kind: shown by hints and docs, and the start of the conformance tests.
    fn example(&self) -> &'static str;

    /// The fields of its secrets, in the order of the documentation.
    fn fields(&self) -> &'static [Field];

    /// Whether a secret that names no kind is one of this kind all the same: AWS's function for it asks for no name.
    fn recognizes(&self, _fields: Exposed<'_>) -> bool {
        false
    }

    /// The fields a rotation changes in this secret. All others must be equal in AWSCURRENT and AWSPENDING.
    ///
    /// # Errors
    /// Config, when the secret does not say it properly.
    fn rotates(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Vec<String>>;

    /// Whether a secret of this kind may be a bare string. Its field is then named `""`.
    fn takes_bare(&self) -> bool {
        false
    }

    /// Whether [`create`](Self::create) makes the credential at a service, instead of choosing a value that
    /// [`set`](Self::set) puts into force.
    fn mints(&self) -> bool {
        false
    }

    /// The actions that the function's role needs on what the credential belongs to, for the template's `ResourceArn`.
    fn permissions(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether `previous` holds a credential that a rotation of `current` may withdraw: not where both share a rotated
    /// field, because somebody edited a note, and both hold the live one. A kind that mints says no too where it is another
    /// owner's, or the one in `current` in another form.
    ///
    /// # Errors
    /// Config, when a value does not say it properly.
    fn retires(&self, rotation: &Rotation<'_>, current: &Secret, previous: &Secret) -> Result<bool> {
        Ok(!self.rotates(rotation, current)?.iter().any(|field| previous.expose().same(current.expose(), field)))
    }

    /// A kind whose secrets say themselves how they are rotated: the kind of this one. The engine goes on with that.
    ///
    /// # Errors
    /// Config, when the secret does not say it properly; what asking for it can fail with.
    async fn of_secret(&self, _rotation: &Rotation<'_>, _secret: &Secret) -> Result<Option<Box<dyn Kind>>> {
        Ok(None)
    }

    /// createSecret: the value to stage as AWSPENDING.
    ///
    /// A kind that mints names what it makes after the token, and first removes what an earlier try for the same token
    /// has left behind. It is not called when the pending version already holds a value.
    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret>;

    /// createSecret, when the pending version already holds a value: remove what another try for the same token may have
    /// made beside it.
    async fn clear(&self, _rotation: &Rotation<'_>, _current: &Secret, _pending: &Secret) -> Result<()> {
        Ok(())
    }

    /// setSecret: make the service accept `pending`; nothing to do when it does already, completely.
    ///
    /// The engine has checked that current and pending differ in a rotated field and in no other.
    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()>;

    /// testSecret: sign in with `pending` and do the least a client would. Changes nothing.
    ///
    /// Also called by finishSecret, and with the current value when rotation is only being configured.
    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()>;

    /// Withdraw a minted credential that no label needs; one already gone is a success.
    async fn revoke(&self, _rotation: &Rotation<'_>, _retired: &Secret) -> Result<()> {
        Ok(())
    }
}

/// One field of a kind's secrets: for the documentation, the template and its tests.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its key in the JSON object.
    pub name: &'static str,
    /// What it is, in one line.
    pub doc: &'static str,
    /// Whether a secret without it is refused.
    pub required: bool,
    /// The value that counts when it is absent.
    pub default: Option<&'static str>,
    /// Whether it is a number in JSON.
    pub number: bool,
    /// Whether the `SecretProviderClass` mounts it as a file of its own.
    pub mounted: bool,
}

impl Field {
    /// A text that must be there and is mounted.
    #[must_use]
    pub const fn required(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc, required: true, default: None, number: false, mounted: true }
    }

    /// A setting of the rotation, of no interest to pods.
    #[must_use]
    pub const fn setting(name: &'static str, doc: &'static str) -> Self {
        Self { name, doc, required: false, default: None, number: false, mounted: false }
    }

    /// A text that pods may read, with the value that counts when it is absent.
    #[must_use]
    pub const fn optional(name: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self { name, doc, required: false, default: Some(default), number: false, mounted: true }
    }

    /// The same field as a number.
    #[must_use]
    pub const fn number(mut self) -> Self {
        self.number = true;
        self
    }

    /// The same field with the value that counts when it is absent.
    #[must_use]
    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }
}

/// What outlives an invocation: settings and trust, no secret.
#[derive(Default)]
pub struct Settings {
    /// The environment variables for passwords.
    pub passwords: password::Environment,
    /// Whom TLS trusts.
    pub trust: tls::Trust,
    /// Whether finishSecret takes AWSPENDING from the new current version. AWS leaves or removes it by itself.
    pub remove_pending: bool,
    /// The ARNs of the administrators' secrets that may be used; empty allows any that the role may read.
    pub admin_secrets: Vec<String>,
    /// `USERNAME_CHARACTER_LIMIT` of AWS's MySQL function, as it is written.
    pub username_limit: Option<String>,
    /// Those of AWS's function for users of ElastiCache.
    pub elasticache: ElastiCache,
    /// Addresses of hosts (`api.example.com:443`) that are used as they are, instead of asking DNS: for tests.
    pub hosts: BTreeMap<String, SocketAddr>,
}

/// The environment variables of AWS's rotation function for users of ElastiCache, as they are written.
#[derive(Default)]
pub struct ElastiCache {
    /// `SECRET_ARN`: the one secret that the function may rotate.
    pub secret: Option<String>,
    /// `USER_NAME`: the user that the secret must be for.
    pub user: Option<String>,
    /// `MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS`; without it, until the function's time is over.
    pub longest_wait: Option<String>,
    /// `WAITING_RETRY_INTERVAL_IN_SECONDS`; without it, from half a second on, longer each time.
    pub interval: Option<String>,
}

/// What the engine lends to a kind for one step.
pub struct Rotation<'a> {
    /// The `ClientRequestToken`.
    pub token: &'a str,
    /// The ARN of the secret.
    pub secret: &'a str,
    /// The tags of the secret.
    pub tags: &'a BTreeMap<String, String>,
    /// The function's settings.
    pub settings: &'a Settings,
    /// AWS, for what is not in the secret itself.
    pub services: &'a dyn Services,
    pub(crate) progress: &'a Progress,
}

impl Rotation<'_> {
    /// To be called before a request that changes something at the service: a step that fails from here on says so.
    pub fn changing(&self) {
        self.progress.changing.store(true, Ordering::Relaxed);
    }

    /// To be called when the service definitely refused the change.
    pub fn unchanged(&self) {
        self.progress.changing.store(false, Ordering::Relaxed);
    }

    /// What the log should add to a step that succeeds. The first note stands.
    pub fn note(&self, text: String) {
        let _ = self.progress.note.set(text);
    }

    /// What the step is waiting for from here on, for the error if its time runs out meanwhile; `None` when it goes on.
    pub fn waiting(&self, what: Option<String>) {
        if let Ok(mut waiting) = self.progress.waiting.lock() {
            *waiting = what;
        }
    }

    /// How much time the step has left; `None` when nobody set it a limit.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.progress.deadline.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// The parts of the secret's ARN.
    ///
    /// # Errors
    /// Config, when it is none.
    pub fn arn(&self) -> Result<Arn<'_>> {
        Arn::parse(self.secret)
            .ok_or_else(|| Error::config(Code::Request, format!("{:?} is not the ARN of a secret", self.secret)))
    }

    /// Refuses the ARN of something in another account than the secret's, where the function's role could be of no use.
    ///
    /// # Errors
    /// Config, in that case.
    pub(crate) fn check_account(&self, arn: &str) -> Result<()> {
        let own = self.arn()?;
        if Arn::parse(arn).is_some_and(|it| (it.partition, it.account) == (own.partition, own.account)) {
            return Ok(());
        }
        let message = format!("{arn} is not in the account of the secret, which is {}", own.account);
        Err(Error::config(Code::Field, message).hint(
            "keep the secret, and the function, in the account of what it belongs to: AWS is asked there and nowhere else",
        ))
    }

    /// A setting of the secret: its field `name`, or its tag `keywheel:name`.
    ///
    /// # Errors
    /// Config, when the field is no text.
    pub fn setting<'b>(&'b self, secret: &'b Secret, name: &str) -> Result<Option<&'b str>> {
        match secret.expose().optional(name)? {
            Some(text) => Ok(Some(text)),
            None => Ok(self.tags.get(&format!("keywheel:{name}")).map(String::as_str)),
        }
    }
}

/// What is known of a step while it runs, and remains known when it runs out of time.
#[derive(Default)]
pub struct Progress {
    changing: AtomicBool,
    pub(crate) kind: OnceLock<&'static str>,
    pub(crate) note: OnceLock<String>,
    waiting: Mutex<Option<String>>,
    deadline: Option<Instant>,
}

impl Progress {
    /// Of a step that has time until then.
    #[must_use]
    pub fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    /// The name of the secret's kind, once it is known.
    #[must_use]
    pub fn kind(&self) -> Option<&'static str> {
        self.kind.get().copied()
    }

    /// What the log should add to a step that succeeded.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.get().map(String::as_str)
    }

    /// What the step was waiting for when its time ran out.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        self.waiting.lock().ok()?.clone()
    }

    /// Whether something may have been changed so far.
    #[must_use]
    pub fn effect(&self) -> Effect {
        if self.changing.load(Ordering::Relaxed) { Effect::Unknown } else { Effect::None }
    }
}

/// The values that setSecret works with.
pub struct Versions<'a> {
    /// AWSCURRENT.
    pub current: &'a Secret,
    /// AWSPENDING of this rotation.
    pub pending: &'a Secret,
    pub(crate) store: &'a dyn Store,
}

impl Versions<'_> {
    /// Older values, of which one may still be in force when `current` and `pending` are both refused.
    #[must_use]
    pub fn earlier(&self) -> Earlier<'_> {
        Earlier { store: self.store, asked_previous: false, unlabelled: None }
    }
}

/// AWSPREVIOUS, then the newest versions without a label: a rotation that was cancelled after setSecret leaves the
/// service on a value that no label holds. Each is read only when asked for.
pub struct Earlier<'a> {
    store: &'a dyn Store,
    asked_previous: bool,
    unlabelled: Option<VecDeque<String>>,
}

/// So many unlabelled versions are tried: each costs a refused sign-in, and servers lock accounts after too many.
pub const MAX_UNLABELLED: usize = 4;

impl Earlier<'_> {
    /// AWSPREVIOUS alone.
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub async fn previous(&self) -> Result<Option<Secret>> {
        readable(self.store.get(Version::Previous).await)
    }

    /// The next older value and what to call it in a message. Values that cannot be read are passed over.
    ///
    /// # Errors
    /// Those of [`Store::get`] and [`Store::unlabelled`].
    pub async fn next(&mut self) -> Result<Option<(String, Secret)>> {
        if !self.asked_previous {
            self.asked_previous = true;
            if let Some(secret) = self.previous().await? {
                return Ok(Some(("AWSPREVIOUS".to_owned(), secret)));
            }
        }
        self.unlabelled().await
    }

    /// The next of the versions without a label, and what to call it in a message.
    ///
    /// # Errors
    /// Those of [`Store::get`] and [`Store::unlabelled`].
    pub async fn unlabelled(&mut self) -> Result<Option<(String, Secret)>> {
        if self.unlabelled.is_none() {
            let ids = self.store.unlabelled().await.map_err(|error| {
                error.context("the labelled versions are refused, and those without a label cannot be listed")
            })?;
            self.unlabelled = Some(ids.into_iter().take(MAX_UNLABELLED).collect());
        }
        while let Some(id) = self.unlabelled.as_mut().and_then(VecDeque::pop_front) {
            if let Some(secret) = readable(self.store.get(Version::Unlabelled(&id)).await)? {
                return Ok(Some((format!("version {id}"), secret)));
            }
        }
        Ok(None)
    }
}

fn readable(got: Result<Option<Secret>>) -> Result<Option<Secret>> {
    got.or_else(|error| if error.code() == Code::Value { Ok(None) } else { Err(error) })
}
