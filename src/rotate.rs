//! The protocol: guards, four steps, labels, repetition. No SDK, no driver, no environment. Read this first.
//!
//! Secrets Manager calls the function once per step, and when one fails it tries all four again with the same token. So
//! every step may meet what an earlier run of it has done, in full or in part, and ends in the same state.

use std::ops::Deref;

use crate::error::{Code, Error, Result};
use crate::event::{Event, Step};
use crate::kind::{Kind, Progress, Rotation, Settings, Versions};
use crate::kinds::{example, select};
use crate::secret::Secret;
use crate::services::Services;
use crate::store::{CURRENT, Description, PENDING, Put, Store, Version, get_written};

/// How a step ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The step did its work, or found it done.
    Done,
    /// The version is AWSCURRENT already: the rotation is over.
    AlreadyCurrent,
    /// The pending version holds no value, so the current one was tested: rotation is being configured, not run.
    TestedCurrent,
    /// Promoted on the word of testSecret: at the end the service gave no answer.
    PromotedUnasked,
}

impl Outcome {
    /// The word for the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::AlreadyCurrent => "already-current",
            Self::TestedCurrent => "tested-current",
            Self::PromotedUnasked => "promoted-unasked",
        }
    }
}

/// One invocation.
pub struct Engine<'a> {
    /// The secret.
    pub store: &'a dyn Store,
    /// AWS, for the kinds.
    pub services: &'a dyn Services,
    /// The kinds to choose from.
    pub kinds: &'a [&'a dyn Kind],
    /// The function's settings.
    pub settings: &'a Settings,
    /// What is known so far, also after the future of [`run`](Self::run) was dropped.
    pub progress: &'a Progress,
}

impl Engine<'_> {
    /// Runs one step. Every step may be run again, in any order, after a crash at any point.
    ///
    /// # Errors
    /// See [`crate::error::Class`]: each message names the field, host or label, and AWSCURRENT keeps working.
    pub async fn run(&self, event: &Event) -> Result<Outcome> {
        self.step(event).await.map_err(|error| error.with_effect(self.progress.effect()))
    }

    async fn step(&self, event: &Event) -> Result<Outcome> {
        let described = self.store.describe().await?;
        if admit(&described, &event.token)? == Admission::AlreadyCurrent {
            return Ok(Outcome::AlreadyCurrent);
        }
        let rotation = Rotation {
            token: &event.token,
            secret: &described.arn,
            tags: &described.tags,
            settings: self.settings,
            services: self.services,
            progress: self.progress,
        };
        match event.step {
            Step::Create => self.create(event, &rotation).await,
            Step::Set => self.set(&rotation).await,
            Step::Test => self.test(&rotation).await,
            Step::Finish => self.finish(&rotation, &described).await,
        }
    }

    async fn create(&self, event: &Event, rotation: &Rotation<'_>) -> Result<Outcome> {
        let current = self.current().await?;
        let kind = &*self.kind(rotation, &current).await?;
        // A chosen value costs nothing, so it is put at once and Secrets Manager says if there is one already. A minted
        // one must not be made twice, so it is looked for first.
        if kind.mints() {
            let pending = self.store.get(Version::Pending(rotation.token)).await?;
            if let Some(pending) = &pending {
                check_pair(kind, rotation, &current, pending)?;
            }
            self.withdraw_previous(kind, rotation, &current).await?;
            if let Some(pending) = &pending {
                kind.clear(rotation, &current, pending).await?;
                return Ok(Outcome::Done);
            }
        }
        let made = kind.create(rotation, &current).await.map_err(|error| with_example(kind, error))?;
        check_pair(kind, rotation, &current, &made)?;
        rotation.changing();
        match self.store.put_pending(rotation.token, &made, event.rotation_token.as_ref()).await {
            Ok(Put::Stored) => Ok(Outcome::Done),
            Ok(Put::Exists) => {
                rotation.unchanged();
                if kind.mints() {
                    kind.revoke(rotation, &made).await?;
                }
                match get_written(self.store, Version::Pending(rotation.token)).await? {
                    Some(pending) => check_pair(kind, rotation, &current, &pending).map(|()| Outcome::Done),
                    None => Err(Error::transient(
                        Code::NotVisible,
                        "the pending version has a value that cannot be read yet",
                    )),
                }
            }
            Err(error) => {
                // After a lost answer the value may be stored, and its key must live.
                if !error.is_transient() {
                    rotation.unchanged();
                    if kind.mints() && kind.revoke(rotation, &made).await.is_err() {
                        // The next try removes it; what the operator must hear of is the put.
                        return Err(error.context("the new credential is not stored and not withdrawn yet"));
                    }
                }
                Err(error)
            }
        }
    }

    async fn set(&self, rotation: &Rotation<'_>) -> Result<Outcome> {
        let pending = self.pending(rotation.token).await?.ok_or_else(|| no_value(rotation.token))?;
        let current = self.current().await?;
        let kind = &*self.kind(rotation, &current).await?;
        check_pair(kind, rotation, &current, &pending)?;
        let versions = Versions { current: &current, pending: &pending, store: self.store };
        match kind.set(rotation, versions).await {
            Ok(()) => Ok(Outcome::Done),
            // A version's value never changes, so this rotation can only fail again. Without its label it is over, and the
            // next one, by schedule or by hand, begins with a new value.
            Err(error) if error.code() == Code::PasswordPolicy && !error.is_transient() => {
                let ended = self.store.unstage_pending(rotation.token).await;
                let context =
                    if ended.is_ok() { "AWSPENDING is taken away" } else { "AWSPENDING could not be taken away" };
                Err(error.context(context))
            }
            Err(error) => Err(with_example(kind, error)),
        }
    }

    async fn test(&self, rotation: &Rotation<'_>) -> Result<Outcome> {
        // When a schedule is saved without rotating, only this step runs, on a version that may hold the current value
        // or none at all. A version without a value is never promoted, so testing the current one gives nothing away.
        let (value, outcome) = match self.pending(rotation.token).await? {
            Some(pending) => (pending, Outcome::Done),
            None => (self.current().await?, Outcome::TestedCurrent),
        };
        let kind = &*self.kind(rotation, &value).await?;
        kind.test(rotation, &value).await.map_err(|error| with_example(kind, error))?;
        Ok(outcome)
    }

    async fn finish(&self, rotation: &Rotation<'_>, described: &Description) -> Result<Outcome> {
        let pending = self.pending(rotation.token).await?.ok_or_else(|| no_value(rotation.token))?;
        let kind = &*self.kind(rotation, &pending).await?;
        // The steps may arrive in any order, so the value is tested once more. No answer is no objection: testSecret has
        // had one, and a service that is down now is down for the old credential too.
        let outcome = match kind.test(rotation, &pending).await {
            Ok(()) => Outcome::Done,
            Err(error) if error.is_transient() => {
                let _ = self
                    .progress
                    .note
                    .set(format!("promoted as testSecret proved it; now there is no answer: {}", error.message()));
                Outcome::PromotedUnasked
            }
            Err(error) => return Err(with_example(kind, error).context("not promoted")),
        };
        rotation.changing();
        if let Err(error) = self.store.promote(rotation.token, described.holder(CURRENT)).await {
            // The same step run twice at once, or an answer that was lost: look whether it is done.
            let now = self.store.describe().await;
            if !now.is_ok_and(|now| now.holds(rotation.token, CURRENT)) {
                return Err(error);
            }
        }
        if self.settings.remove_pending {
            self.store.unstage_pending(rotation.token).await?;
        }
        Ok(outcome)
    }

    async fn current(&self) -> Result<Secret> {
        self.store
            .get(Version::Current)
            .await?
            .ok_or_else(|| Error::stage(Code::NoCurrent, "no version of the secret holds AWSCURRENT with a value"))
    }

    async fn pending(&self, token: &str) -> Result<Option<Secret>> {
        get_written(self.store, Version::Pending(token)).await
    }

    async fn kind(&self, rotation: &Rotation<'_>, secret: &Secret) -> Result<Chosen<'_>> {
        let kind = select(self.kinds, rotation.tags, secret)?;
        if let Some(name) = kind.names().first() {
            // Only the first of a step's selections counts, and they are all alike.
            let _ = rotation.progress.kind.set(name);
        }
        let own = kind.of_secret(rotation, secret).await.map_err(|error| with_example(kind, error))?;
        Ok(own.map_or(Chosen::Known(kind), Chosen::Own))
    }

    /// The old credential lives until the next rotation, which is this one. Pods have had a whole period to move.
    async fn withdraw_previous(&self, kind: &dyn Kind, rotation: &Rotation<'_>, current: &Secret) -> Result<()> {
        let Some(previous) = self.store.get(Version::Previous).await? else { return Ok(()) };
        if !kind.retires(rotation, current, &previous)? {
            return Ok(());
        }
        kind.revoke(rotation, &previous).await
    }
}

/// The kind of a secret.
enum Chosen<'k> {
    /// One of the engine's.
    Known(&'k dyn Kind),
    /// The one that the secret itself describes.
    Own(Box<dyn Kind>),
}

impl<'k> Deref for Chosen<'k> {
    type Target = dyn Kind + 'k;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Known(kind) => *kind,
            Self::Own(kind) => &**kind,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Admission {
    Go,
    AlreadyCurrent,
}

/// The guards of AWS's rotation functions, in their order.
fn admit(described: &Description, token: &str) -> Result<Admission> {
    if described.rotation_enabled == Some(false) {
        return Err(Error::stage(Code::RotationOff, "rotation is not enabled for the secret").hint(format!(
            "`aws secretsmanager rotate-secret --secret-id {}` with the function and a schedule enables it",
            described.arn
        )));
    }
    if !described.stages.contains_key(token) {
        return Err(Error::stage(Code::Token, format!("the secret has no version {token}; {}", labels(described)))
            .hint("start a rotation with `aws secretsmanager rotate-secret`; a cancelled one is over"));
    }
    if described.holds(token, CURRENT) {
        return Ok(Admission::AlreadyCurrent);
    }
    if !described.holds(token, PENDING) {
        return Err(Error::stage(
            Code::NotPending,
            format!("version {token} does not hold AWSPENDING; {}", labels(described)),
        )
        .hint("another rotation has taken over, or this one was cancelled; start anew with `aws secretsmanager rotate-secret`"));
    }
    Ok(Admission::Go)
}

fn labels(described: &Description) -> String {
    let labels: Vec<_> = described
        .stages
        .iter()
        .flat_map(|(id, labels)| labels.iter().map(move |label| format!("{label} is on {id}")))
        .collect();
    if labels.is_empty() { "no version has a label".to_owned() } else { labels.join(", ") }
}

/// What is pending may differ from what is current in the rotated fields only, and must differ in one of them.
fn check_pair(kind: &dyn Kind, rotation: &Rotation<'_>, current: &Secret, pending: &Secret) -> Result<()> {
    let rotated = kind.rotates(rotation, current).map_err(|error| with_example(kind, error))?;
    let repair = format!(
        "take AWSPENDING away with `aws secretsmanager update-secret-version-stage --version-stage AWSPENDING \
         --remove-from-version-id {} --secret-id …`, then rotate anew",
        rotation.token
    );
    if let Some(field) = current.expose().difference(pending.expose(), &rotated) {
        let message = format!("AWSPENDING and AWSCURRENT differ in \"{field}\", which a rotation does not change");
        return Err(Error::config(Code::Tampered, message).hint(repair));
    }
    // The first is the credential itself; others may follow from it.
    let same = rotated.first().is_some_and(|field| current.expose().same(pending.expose(), field));
    if same {
        let message = "AWSPENDING holds the same credential as AWSCURRENT";
        return Err(Error::config(Code::Unchanged, message).hint(repair));
    }
    Ok(())
}

fn no_value(token: &str) -> Error {
    Error::stage(Code::NoValue, format!("version {token} holds AWSPENDING and no value")).hint(
        "createSecret has not succeeded for it; see its error, or start anew with `aws secretsmanager rotate-secret`",
    )
}

/// Errors of a field get the example of the kind as their hint.
fn with_example(kind: &dyn Kind, error: Error) -> Error {
    if error.code() == Code::Field { error.hint_if_none(|| example(kind)) } else { error }
}
