//! Secrets Manager's versions and labels in memory, with the service's own rules.
//!
//! [`Service`] holds any number of secrets and knows what the service refuses; the local emulator serves it over HTTP.
//! [`MemoryStore`] is one of its secrets as a [`Store`], for tests and for trying a kind without AWS.
//!
//! The rules (a label sits on one version, a version's value never changes, AWSPREVIOUS follows AWSCURRENT, …) are those of
//! the Secrets Manager API reference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::{CURRENT, Description, PENDING, PREVIOUS, Put, Store, Version};
use crate::error::{Code, Error, Result};
use crate::secret::{Secret, SecretText};
use crate::services::{self, Endpoint, Managed, Request, Services};

/// Secrets Manager in memory. A clone is another handle to the same secrets.
#[derive(Clone, Default)]
pub struct Service {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    secrets: Vec<Record>,
    /// How many secrets were ever made.
    made: u64,
    /// The time of the last write.
    time: u64,
}

/// One secret with all its versions.
pub struct Record {
    /// The friendly name.
    pub name: String,
    /// The full ARN.
    pub arn: String,
    /// What `DescribeSecret` shows as description.
    pub description: Option<String>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
    /// Whether rotation is on; `None` when it never was configured.
    pub rotation_enabled: Option<bool>,
    /// The rotation function.
    pub rotation_function: Option<String>,
    /// `RotationRules` as they were given, in JSON.
    pub rotation_rules: Option<serde_json::Value>,
    /// When it was made; like all times here in milliseconds since 1970.
    pub created: u64,
    /// When a value, a label or a setting was last changed.
    pub changed: u64,
    /// When a rotation last succeeded.
    pub rotated: Option<u64>,
    /// When it will be gone; until then most calls are refused.
    pub deletion: Option<u64>,
    /// The versions, oldest first.
    pub versions: Vec<VersionRecord>,
}

/// One version of a secret.
pub struct VersionRecord {
    /// The version id, which is the client request token that made it.
    pub id: String,
    /// `None` for the empty version that `RotateSecret` makes.
    pub value: Option<Payload>,
    /// Its labels.
    pub stages: BTreeSet<String>,
    /// When it was made; no two versions share a time.
    pub created: u64,
}

/// What a version holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// `SecretString`.
    Text(String),
    /// `SecretBinary`.
    Binary(Vec<u8>),
}

/// A refusal with the service's error code, e.g. `ResourceNotFoundException`.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error code.
    pub code: &'static str,
    /// The message for people.
    pub message: String,
}

type Answer<T> = std::result::Result<T, Refusal>;

fn refuse<T>(code: &'static str, message: impl Into<String>) -> Answer<T> {
    Err(Refusal { code, message: message.into() })
}

const NOT_FOUND: &str = "ResourceNotFoundException";
const INVALID_REQUEST: &str = "InvalidRequestException";
const INVALID_PARAMETER: &str = "InvalidParameterException";
const EXISTS: &str = "ResourceExistsException";

impl Record {
    /// The version that holds `label`.
    #[must_use]
    pub fn holder(&self, label: &str) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.stages.contains(label))
    }

    /// The version with this id.
    #[must_use]
    pub fn version(&self, id: &str) -> Option<&VersionRecord> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// The version of a rotation that has begun and not come to its end: it holds AWSPENDING, and not AWSCURRENT.
    #[must_use]
    pub fn unfinished_rotation(&self) -> Option<&VersionRecord> {
        self.holder(PENDING).filter(|pending| !pending.stages.contains(CURRENT))
    }

    fn version_mut(&mut self, id: &str) -> Option<&mut VersionRecord> {
        self.versions.iter_mut().find(|version| version.id == id)
    }

    fn unlabel(&mut self, label: &str) {
        for version in &mut self.versions {
            version.stages.remove(label);
        }
    }

    /// Moves `label` to `to`; the version that loses AWSCURRENT becomes AWSPREVIOUS.
    fn label(&mut self, label: &str, to: &str) {
        let from = self.holder(label).map(|version| version.id.clone());
        if from.as_deref() == Some(to) {
            return;
        }
        self.unlabel(label);
        if let (CURRENT, Some(from)) = (label, from) {
            self.unlabel(PREVIOUS);
            if let Some(old) = self.version_mut(&from) {
                old.stages.insert(PREVIOUS.to_owned());
            }
        }
        if let Some(version) = self.version_mut(to) {
            if label == CURRENT {
                version.stages.remove(PREVIOUS);
            }
            version.stages.insert(label.to_owned());
        }
    }
}

impl State {
    fn find(&mut self, id: &str) -> Answer<&mut Record> {
        // By name, by ARN, or by ARN without the six random characters.
        match self.secrets.iter_mut().find(|it| it.name == id || it.arn == id || it.arn[..it.arn.len() - 7] == *id) {
            Some(record) => Ok(record),
            None => refuse(NOT_FOUND, "Secrets Manager can't find the specified secret."),
        }
    }

    /// A secret that does not wait for its deletion.
    fn live(&mut self, id: &str) -> Answer<&mut Record> {
        let record = self.find(id)?;
        if record.deletion.is_some() {
            return refuse(
                INVALID_REQUEST,
                "You can't perform this operation on the secret because it was marked for deletion.",
            );
        }
        Ok(record)
    }

    /// A secret that is to be changed.
    fn change(&mut self, id: &str) -> Answer<&mut Record> {
        let now = self.tick();
        let record = self.live(id)?;
        record.changed = now;
        Ok(record)
    }

    /// The time, later than at the last call: what is made later sorts later.
    fn tick(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.time = u64::try_from(now).unwrap_or(u64::MAX).max(self.time + 1);
        self.time
    }

    fn add_version(&mut self, secret: &str, id: &str, value: Option<Payload>) -> Answer<()> {
        let created = self.tick();
        let record = self.find(secret)?;
        record.versions.push(VersionRecord { id: id.to_owned(), value, stages: BTreeSet::new(), created });
        Ok(())
    }
}

impl Service {
    /// No secrets.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `read` on one secret, even if it waits for its deletion.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn inspect<T>(&self, secret: &str, read: impl FnOnce(&Record) -> T) -> Answer<T> {
        self.state().find(secret).map(|record| read(record))
    }

    /// Runs `read` on every secret, in the order of creation.
    pub fn inspect_all<T>(&self, read: impl FnMut(&Record) -> T) -> Vec<T> {
        self.state().secrets.iter().map(read).collect()
    }

    /// Changes what is not versioned: tags, rotation settings, description.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `InvalidRequestException` when it waits for its deletion.
    pub fn edit<T>(&self, secret: &str, change: impl FnOnce(&mut Record) -> T) -> Answer<T> {
        self.state().change(secret).map(change)
    }

    /// `CreateSecret`; returns the ARN. Without a value the secret has no version. The same call again is no error.
    ///
    /// # Errors
    /// `ResourceExistsException`, `InvalidParameterException`; `InvalidRequestException` when a secret of this name waits for
    /// its deletion.
    pub fn create(&self, name: &str, token: &str, value: Option<Payload>) -> Answer<String> {
        check_token(token)?;
        check_size(value.as_ref())?;
        let mut state = self.state();
        if let Ok(existing) = state.find(name) {
            if existing.deletion.is_some() {
                return refuse(
                    INVALID_REQUEST,
                    "You can't create this secret because a secret with this name is already scheduled for deletion.",
                );
            }
            if value.is_some() && existing.version(token).is_some_and(|version| version.value == value) {
                return Ok(existing.arn.clone());
            }
            return refuse(EXISTS, format!("The operation failed because the secret {name} already exists."));
        }
        let now = state.tick();
        state.made += 1;
        // Six characters from the count of secrets: as good as random for telling ARNs apart.
        let arn = format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}-{:06}", state.made);
        state.secrets.push(Record {
            name: name.to_owned(),
            arn: arn.clone(),
            description: None,
            tags: BTreeMap::new(),
            rotation_enabled: None,
            rotation_function: None,
            rotation_rules: None,
            created: now,
            changed: now,
            rotated: None,
            deletion: None,
            versions: Vec::new(),
        });
        if value.is_some() {
            state.add_version(name, token, value)?;
            state.find(name)?.label(CURRENT, token);
        }
        Ok(arn)
    }

    /// `DeleteSecret` without a recovery window.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn delete(&self, secret: &str) -> Answer<String> {
        let mut state = self.state();
        let arn = state.find(secret)?.arn.clone();
        state.secrets.retain(|it| it.arn != arn);
        Ok(arn)
    }

    /// `DeleteSecret` with a recovery window, which ends at the time `at`.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `InvalidRequestException` when it waits for its deletion already.
    pub fn schedule_deletion(&self, secret: &str, at: u64) -> Answer<()> {
        self.edit(secret, |record| record.deletion = Some(at))
    }

    /// `GetSecretValue`: the version's id, value and labels. Neither id nor stage means AWSCURRENT.
    ///
    /// # Errors
    /// `ResourceNotFoundException`; `InvalidRequestException` when id and stage name different versions.
    pub fn get(
        &self,
        secret: &str,
        id: Option<&str>,
        stage: Option<&str>,
    ) -> Answer<(String, Payload, BTreeSet<String>)> {
        let mut state = self.state();
        let record = state.live(secret)?;
        let (version, what) = match (id, stage) {
            (Some(id), stage) => {
                let version = record.version(id);
                if let (Some(version), Some(stage)) = (version, stage)
                    && !version.stages.contains(stage)
                {
                    return refuse(
                        INVALID_REQUEST,
                        "You provided a VersionStage that is not associated to the provided VersionId.",
                    );
                }
                (version, format!("VersionId: {id}"))
            }
            (None, stage) => {
                let stage = stage.unwrap_or(CURRENT);
                (record.holder(stage), format!("staging label: {stage}"))
            }
        };
        match version.and_then(|version| version.value.clone().map(|value| (version, value))) {
            Some((version, value)) => Ok((version.id.clone(), value, version.stages.clone())),
            None => refuse(NOT_FOUND, format!("Secrets Manager can't find the specified secret value for {what}")),
        }
    }

    /// `PutSecretValue`. Without labels it moves AWSCURRENT, and abandons a rotation that is under way. The same call again
    /// changes nothing, not even labels.
    ///
    /// # Errors
    /// `ResourceExistsException` when the version holds another value; `InvalidParameterException`.
    pub fn put(&self, secret: &str, token: &str, value: Payload, stages: &[String]) -> Answer<()> {
        check_token(token)?;
        check_size(Some(&value))?;
        let mut state = self.state();
        let record = state.change(secret)?;
        match record.version_mut(token) {
            Some(version) => match &version.value {
                Some(old) if *old == value => return Ok(()),
                Some(_) => {
                    return refuse(
                        EXISTS,
                        "You can't use ClientRequestToken that was already used to create another version with a different value.",
                    );
                }
                None => version.value = Some(value),
            },
            None => state.add_version(secret, token, Some(value))?,
        }
        let record = state.find(secret)?;
        if stages.is_empty() {
            if record.unfinished_rotation().is_some_and(|pending| pending.id != token) {
                record.unlabel(PENDING);
            }
            record.label(CURRENT, token);
        }
        for stage in stages {
            record.label(stage, token);
        }
        Ok(())
    }

    /// `UpdateSecretVersionStage`.
    ///
    /// # Errors
    /// `ResourceNotFoundException` for an unknown version; `InvalidParameterException` when the label sits elsewhere than
    /// `from` says, or AWSCURRENT would go nowhere.
    pub fn update_stage(&self, secret: &str, stage: &str, to: Option<&str>, from: Option<&str>) -> Answer<String> {
        let mut state = self.state();
        let record = state.change(secret)?;
        if let Some(unknown) = to.into_iter().chain(from).find(|id| record.version(id).is_none()) {
            return refuse(NOT_FOUND, format!("Secrets Manager can't find the specified secret version: {unknown}."));
        }
        let holder = record.holder(stage).map(|version| version.id.clone());
        if holder.as_deref() != from && (from.is_some() || (holder.is_some() && holder.as_deref() != to)) {
            let holder = holder.as_deref().unwrap_or("no version");
            return refuse(
                INVALID_PARAMETER,
                format!(
                    "The parameter RemoveFromVersionId can't be {}. Staging label {stage} is currently attached to {holder}.",
                    from.unwrap_or("empty")
                ),
            );
        }
        match to {
            Some(to) => record.label(stage, to),
            None if stage == CURRENT => {
                return refuse(
                    INVALID_PARAMETER,
                    "You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed.",
                );
            }
            None => record.unlabel(stage),
        }
        Ok(record.arn.clone())
    }

    /// The start of `RotateSecret`: version `token` gets AWSPENDING, without a value.
    ///
    /// # Errors
    /// `InvalidRequestException` when an earlier rotation is not complete, or no function is configured.
    pub fn begin_rotation(&self, secret: &str, token: &str) -> Answer<()> {
        check_token(token)?;
        let mut state = self.state();
        let record = state.change(secret)?;
        if record.rotation_function.is_none() {
            return refuse(INVALID_REQUEST, "No Lambda rotation function ARN is associated with this secret.");
        }
        if record.versions.is_empty() {
            return refuse(INVALID_REQUEST, "You can't rotate a secret that has no value.");
        }
        if record.unfinished_rotation().is_some_and(|pending| pending.id != token) {
            return refuse(INVALID_REQUEST, "A previous rotation isn't complete. That rotation will be reattempted.");
        }
        record.rotation_enabled = Some(true);
        if record.version(token).is_none() {
            state.add_version(secret, token, None)?;
        }
        state.find(secret)?.label(PENDING, token);
        Ok(())
    }

    /// `CancelRotateSecret`: rotation is off; AWSPENDING stays where it is.
    ///
    /// # Errors
    /// `ResourceNotFoundException`.
    pub fn cancel_rotation(&self, secret: &str) -> Answer<Option<String>> {
        let mut state = self.state();
        let record = state.change(secret)?;
        record.rotation_enabled = Some(false);
        Ok(record.holder(PENDING).map(|version| version.id.clone()))
    }

    /// One of the secrets as a [`Store`].
    #[must_use]
    pub fn store(&self, secret: &str) -> MemoryStore {
        MemoryStore { service: self.clone(), secret: secret.to_owned() }
    }
}

fn check_token(token: &str) -> Answer<()> {
    if (32..=64).contains(&token.len()) {
        return Ok(());
    }
    refuse(INVALID_PARAMETER, "Invalid length for parameter ClientRequestToken, valid min length: 32, max: 64.")
}

fn check_size(value: Option<&Payload>) -> Answer<()> {
    let length = match value {
        Some(Payload::Text(text)) => text.len(),
        Some(Payload::Binary(bytes)) => bytes.len(),
        None => return Ok(()),
    };
    match length {
        0 => refuse(INVALID_PARAMETER, "The secret value is empty."),
        1..=65_536 => Ok(()),
        _ => refuse(INVALID_PARAMETER, "The secret value is longer than 65536 bytes."),
    }
}

/// One secret of a [`Service`].
pub struct MemoryStore {
    service: Service,
    secret: String,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::config(Code::Request, format!("{}: {}", refusal.code, refusal.message))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn describe(&self) -> Result<Description> {
        Ok(self.service.inspect(&self.secret, |record| Description {
            arn: record.arn.clone(),
            rotation_enabled: record.rotation_enabled,
            stages: record
                .versions
                .iter()
                .filter(|version| !version.stages.is_empty())
                .map(|version| (version.id.clone(), version.stages.iter().cloned().collect()))
                .collect(),
            tags: record.tags.clone(),
        })?)
    }

    async fn get(&self, version: Version<'_>) -> Result<Option<Secret>> {
        let (id, stage) = match version {
            Version::Current => (None, Some(CURRENT)),
            Version::Previous => (None, Some(PREVIOUS)),
            Version::Pending(id) => (Some(id), Some(PENDING)),
            Version::Unlabelled(id) => (Some(id), None),
        };
        match self.service.get(&self.secret, id, stage) {
            Ok((_, Payload::Text(text), _)) => Secret::parse(text).map(Some),
            Ok((_, Payload::Binary(_), _)) => Err(binary_value()),
            Err(refusal) if refusal.code == NOT_FOUND => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn put_pending(&self, token: &str, value: &Secret, _: Option<&SecretText>) -> Result<Put> {
        let value = Payload::Text(value.expose().to_text().expose().to_owned());
        match self.service.put(&self.secret, token, value, &[PENDING.to_owned()]) {
            Ok(()) => Ok(Put::Stored),
            Err(refusal) if refusal.code == EXISTS => Ok(Put::Exists),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn promote(&self, to: &str, from: Option<&str>) -> Result<()> {
        self.service.update_stage(&self.secret, CURRENT, Some(to), from).map(drop).map_err(Error::from)
    }

    async fn unstage_pending(&self, token: &str) -> Result<()> {
        self.service.update_stage(&self.secret, PENDING, None, Some(token)).map(drop).map_err(Error::from)
    }

    async fn unlabelled(&self) -> Result<Vec<String>> {
        Ok(self.service.inspect(&self.secret, |record| {
            let unlabelled = record.versions.iter().rev().filter(|version| version.stages.is_empty());
            unlabelled.map(|version| version.id.clone()).collect()
        })?)
    }

    async fn created(&self, id: &str) -> Result<Option<SystemTime>> {
        Ok(self.service.inspect(&self.secret, |record| {
            let version = record.versions.iter().find(|version| version.id == id);
            version.map(|version| UNIX_EPOCH + Duration::from_millis(version.created))
        })?)
    }
}

/// Secrets Manager alone: there are no databases.
#[async_trait]
impl Services for Service {
    fn secret<'s>(&'s self, id: &str) -> Box<dyn Store + 's> {
        Box::new(self.store(id))
    }

    async fn endpoint(&self, managed: Managed<'_>) -> Result<Endpoint> {
        Err(Error::config(Code::Admin, format!("there is no database {managed:?} in memory")))
    }

    async fn replicates(&self, _replica: &str, _source: &str) -> Result<bool> {
        Ok(false)
    }

    async fn ask(&self, request: &Request<'_>) -> std::result::Result<services::Answer, services::Refusal> {
        let error = Error::config(Code::Request, format!("there is no {} in memory", request.operation.service.name));
        Err(error.into())
    }
}

/// The error for a `SecretBinary`.
pub(super) fn binary_value() -> Error {
    Error::config(Code::Value, "the secret value is binary (SecretBinary)")
        .hint("store it as SecretString; AWS's rotation functions do not read binary values either")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccc";

    fn text(value: &str) -> Payload {
        Payload::Text(value.to_owned())
    }

    fn service() -> Service {
        let service = Service::new();
        service.create("s", A, Some(text("1"))).unwrap();
        service.edit("s", |record| record.rotation_function = Some("f".to_owned())).unwrap();
        service
    }

    fn labels(service: &Service, id: &str) -> Vec<String> {
        service.inspect("s", |it| it.version(id).unwrap().stages.iter().cloned().collect()).unwrap()
    }

    #[test]
    fn a_rotation_makes_an_empty_pending_version_and_previous_follows() {
        let service = service();
        service.begin_rotation("s", B).unwrap();
        assert_eq!(service.get("s", Some(B), Some(PENDING)).err().unwrap().code, NOT_FOUND);
        service.put("s", B, text("2"), &[PENDING.to_owned()]).unwrap();
        assert_eq!(service.put("s", B, text("3"), &[PENDING.to_owned()]).unwrap_err().code, EXISTS);
        service.put("s", B, text("2"), &[PENDING.to_owned()]).unwrap();
        assert_eq!(service.begin_rotation("s", C).unwrap_err().code, INVALID_REQUEST);
        service.update_stage("s", CURRENT, Some(B), Some(A)).unwrap();
        assert_eq!(labels(&service, A), [PREVIOUS]);
        assert_eq!(labels(&service, B), [CURRENT, PENDING]);
        // The normal end state does not block the next rotation.
        service.begin_rotation("s", C).unwrap();
        assert_eq!(labels(&service, B), [CURRENT]);
    }

    #[test]
    fn moving_a_label_needs_to_know_where_it_is() {
        let service = service();
        service.put("s", B, text("2"), &[PENDING.to_owned()]).unwrap();
        for from in [None, Some(B)] {
            let refusal = service.update_stage("s", CURRENT, Some(B), from).unwrap_err();
            assert_eq!(refusal.code, INVALID_PARAMETER);
        }
        assert_eq!(service.update_stage("s", CURRENT, Some(C), Some(A)).unwrap_err().code, NOT_FOUND);
        assert_eq!(service.update_stage("s", CURRENT, None, Some(A)).unwrap_err().code, INVALID_PARAMETER);
        assert_eq!(labels(&service, A), [CURRENT]);
    }

    #[test]
    fn a_plain_put_abandons_the_rotation() {
        let service = service();
        service.begin_rotation("s", B).unwrap();
        service.put("s", C, text("edited"), &[]).unwrap();
        assert_eq!(labels(&service, C), [CURRENT]);
        assert_eq!(labels(&service, A), [PREVIOUS]);
        assert!(labels(&service, B).is_empty());
    }

    #[test]
    fn the_same_call_again_changes_nothing() {
        let service = service();
        assert!(service.create("s", A, Some(text("1"))).is_ok());
        assert_eq!(service.create("s", A, Some(text("2"))).unwrap_err().code, EXISTS);
        service.put("s", B, text("2"), &[PENDING.to_owned()]).unwrap();
        service.update_stage("s", PENDING, None, Some(B)).unwrap();
        service.put("s", B, text("2"), &[PENDING.to_owned()]).unwrap();
        assert!(labels(&service, B).is_empty());
    }

    #[test]
    fn a_secret_that_waits_for_its_deletion_is_described_and_not_used() {
        let service = service();
        service.schedule_deletion("s", 1).unwrap();
        assert_eq!(service.get("s", None, None).err().unwrap().code, INVALID_REQUEST);
        assert_eq!(service.put("s", B, text("2"), &[]).unwrap_err().code, INVALID_REQUEST);
        assert_eq!(service.begin_rotation("s", B).unwrap_err().code, INVALID_REQUEST);
        assert_eq!(service.create("s", A, Some(text("1"))).unwrap_err().code, INVALID_REQUEST);
        assert_eq!(service.inspect("s", |record| record.deletion), Ok(Some(1)));
        service.delete("s").unwrap();
        assert_eq!(service.inspect("s", |_| ()).unwrap_err().code, NOT_FOUND);
    }

    #[test]
    fn id_and_stage_must_name_one_version() {
        let service = service();
        assert_eq!(service.get("s", Some(A), Some(PENDING)).err().unwrap().code, INVALID_REQUEST);
        assert_eq!(service.get("s", None, Some(PENDING)).err().unwrap().code, NOT_FOUND);
        assert_eq!(service.get("s", None, None).ok().unwrap().0, A);
    }
}
