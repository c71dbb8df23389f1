//! What the tests share: a secret in memory, a store that can be watched, stopped and made to fail, and a service that
//! mints keys.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

pub mod aws;
pub mod iam;
pub mod sql;
pub mod vendor;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use keywheel::error::{Code, Error, Result, Which};
use keywheel::event::Event;
use keywheel::kind::{Field, Kind, Progress, Rotation, Settings, Versions};
use keywheel::kinds::KINDS;
use keywheel::rotate::{Engine, Outcome};
use keywheel::secret::{Secret, SecretText};
use keywheel::services::{Answer, Database, Endpoint, Managed, Refusal, Request, Services};
use keywheel::store::memory::{MemoryStore, Payload, Service};
use keywheel::store::{Description, Put, Store, Version};
use serde_json::json;
use tokio::task::yield_now;

pub const FIRST: &str = "first-version-0000000000000000000000";
pub const TOKEN: &str = "second-version-000000000000000000000";
pub const THIRD: &str = "third-version-0000000000000000000000";
pub const STEPS: [&str; 4] = ["createSecret", "setSecret", "testSecret", "finishSecret"];
pub const SECRET: &str = "secret";

/// One secret in memory, as it is when Secrets Manager calls the function for the first step.
pub struct World {
    pub service: Service,
    pub settings: Settings,
    pub kinds: Vec<&'static dyn Kind>,
    pub store: Probed,
    pub services: Aws,
}

/// Secrets Manager in memory, and at most one database of RDS.
pub struct Aws {
    pub service: Service,
    pub database: Mutex<Option<(String, Endpoint)>>,
    /// Host names of a replica and its source.
    pub replica: Mutex<Option<(String, String)>>,
    /// AWS's other services: moto, or a stand-in.
    pub other: Option<keywheel::services::aws::Aws>,
}

#[async_trait]
impl Services for Aws {
    fn secret<'s>(&'s self, id: &str) -> Box<dyn Store + 's> {
        Box::new(self.service.store(id))
    }

    async fn endpoint(&self, managed: Managed<'_>) -> Result<Endpoint> {
        let (Managed::Instance(arn)
        | Managed::Cluster(arn)
        | Managed::RedshiftCluster(arn)
        | Managed::RedshiftNamespace(arn)) = managed;
        let database = self.database.lock().unwrap().clone();
        let found = database.filter(|(it, _)| it == arn).map(|(_, endpoint)| endpoint);
        found.ok_or_else(|| Error::config(Code::Admin, format!("RDS knows no endpoint of {arn}")))
    }

    async fn replicates(&self, replica: &str, source: &str) -> Result<bool> {
        let pair = self.replica.lock().unwrap().clone();
        Ok(pair.is_some_and(|(it, of)| it == replica && of == source))
    }

    async fn database(&self, arn: &str) -> std::result::Result<Database, Refusal> {
        yield_now().await;
        let answer = match &self.other {
            Some(other) => other.database(arn).await,
            None => self.service.database(arn).await,
        };
        yield_now().await;
        answer
    }

    async fn set_password(&self, arn: &str, password: &str) -> std::result::Result<Database, Refusal> {
        yield_now().await;
        let answer = match &self.other {
            Some(other) => other.set_password(arn, password).await,
            None => self.service.set_password(arn, password).await,
        };
        yield_now().await;
        answer
    }

    async fn sign(
        &self,
        request: &mut http::Request<Vec<u8>>,
        service: &str,
        region: &str,
        key: Option<keywheel::services::Key<'_>>,
    ) -> Result<()> {
        match &self.other {
            Some(other) => other.sign(request, service, region, key).await,
            None => self.service.sign(request, service, region, key).await,
        }
    }

    async fn ask(&self, request: &Request<'_>) -> std::result::Result<Answer, Refusal> {
        yield_now().await;
        let answer = match &self.other {
            Some(other) => other.ask(request).await,
            None => self.service.ask(request).await,
        };
        yield_now().await;
        answer
    }
}

impl World {
    pub fn new(value: &str) -> Self {
        Self::with_kinds(value, KINDS.to_vec())
    }

    pub fn with_kinds(value: &str, kinds: Vec<&'static dyn Kind>) -> Self {
        let service = Service::new();
        service.create(SECRET, FIRST, Some(Payload::Text(value.to_owned()))).unwrap();
        service.edit(SECRET, |record| record.rotation_function = Some("keywheel".to_owned())).unwrap();
        service.begin_rotation(SECRET, TOKEN).unwrap();
        let store = Probed::new(service.store(SECRET));
        let services =
            Aws { service: service.clone(), database: Mutex::default(), replica: Mutex::default(), other: None };
        Self { service, settings: Settings::default(), kinds, store, services }
    }

    pub fn tag(&self, key: &str, value: &str) -> &Self {
        self.service.edit(SECRET, |record| record.tags.insert(key.to_owned(), value.to_owned())).unwrap();
        self
    }

    pub async fn step(&self, step: &str) -> Result<Outcome> {
        self.step_for(step, TOKEN).await
    }

    pub async fn step_for(&self, step: &str, token: &str) -> Result<Outcome> {
        self.run(step, token).await.0
    }

    async fn run(&self, step: &str, token: &str) -> (Result<Outcome>, Progress) {
        let event = event(step, token);
        let progress = Progress::default();
        let engine = Engine {
            store: &self.store,
            services: &self.services,
            kinds: &self.kinds,
            settings: &self.settings,
            progress: &progress,
        };
        let result = engine.run(&event).await;
        (result, progress)
    }

    /// All four steps, as Secrets Manager calls them.
    pub async fn rotate(&self, token: &str) -> Result<()> {
        for step in STEPS {
            self.step_for(step, token).await?;
        }
        Ok(())
    }

    /// [`rotate`](Self::rotate), and what the log would note of its steps.
    pub async fn rotate_with_notes(&self, token: &str) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for step in STEPS {
            let (result, progress) = self.run(step, token).await;
            result?;
            notes.extend(progress.note().map(str::to_owned));
        }
        Ok(notes)
    }

    /// The value of a version by label, as text.
    pub fn value(&self, label: &str) -> Option<String> {
        match self.service.get(SECRET, None, Some(label)) {
            Ok((_, Payload::Text(text), _)) => Some(text),
            _ => None,
        }
    }

    pub fn field(&self, label: &str, field: &str) -> Option<String> {
        let value: serde_json::Value = serde_json::from_str(&self.value(label)?).ok()?;
        value[field].as_str().map(str::to_owned)
    }

    /// Every label and where it is: `AWSCURRENT=first…`.
    pub fn labels(&self) -> Vec<String> {
        let mut labels = self
            .service
            .inspect(SECRET, |record| {
                let labels = record.versions.iter().flat_map(|version| {
                    version.stages.iter().map(move |stage| format!("{stage}={}", version.id.split('-').next().unwrap()))
                });
                labels.collect::<Vec<_>>()
            })
            .unwrap();
        labels.sort();
        labels
    }

    /// Stages a value as AWSPENDING by hand.
    pub fn stage(&self, value: &str) {
        self.service.put(SECRET, TOKEN, Payload::Text(value.to_owned()), &["AWSPENDING".to_owned()]).unwrap();
    }
}

pub fn event(step: &str, token: &str) -> Event {
    Event::parse(json!({"Step": step, "SecretId": SECRET, "ClientRequestToken": token})).unwrap()
}

/// How a call is made to fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused, and nothing happened.
    Refused,
    /// The answer was lost, and it did happen.
    AnswerLost,
}

/// A store that counts its calls, pauses before and after each, and fails on demand.
pub struct Probed {
    inner: MemoryStore,
    calls: Mutex<Vec<&'static str>>,
    fault: Mutex<Option<(&'static str, Fault)>>,
}

impl Probed {
    fn new(inner: MemoryStore) -> Self {
        Self { inner, calls: Mutex::default(), fault: Mutex::default() }
    }

    pub fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    /// The next call of this name fails.
    pub fn fail(&self, name: &'static str, fault: Fault) {
        *self.fault.lock().unwrap() = Some((name, fault));
    }

    async fn call<T>(&self, name: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.calls.lock().unwrap().push(name);
        let fault = {
            let mut fault = self.fault.lock().unwrap();
            if fault.is_some_and(|(it, _)| it == name) { fault.take().map(|(_, fault)| fault) } else { None }
        };
        // A crash may strike before the effect and after it.
        yield_now().await;
        if fault == Some(Fault::Refused) {
            return Err(Error::config(Code::AccessDenied, format!("{name} is denied")));
        }
        let result = call.await;
        yield_now().await;
        if fault == Some(Fault::AnswerLost) {
            return Err(Error::transient(Code::Timeout, format!("no answer to {name}")));
        }
        result
    }
}

#[async_trait]
impl Store for Probed {
    async fn describe(&self) -> Result<Description> {
        self.call("DescribeSecret", self.inner.describe()).await
    }

    async fn get(&self, version: Version<'_>) -> Result<Option<Secret>> {
        let name = match version {
            Version::Current => "GetSecretValue(AWSCURRENT)",
            Version::Previous => "GetSecretValue(AWSPREVIOUS)",
            Version::Pending(_) => "GetSecretValue(AWSPENDING)",
            Version::Unlabelled(_) => "GetSecretValue(unlabelled)",
        };
        self.call(name, self.inner.get(version)).await
    }

    async fn put_pending(&self, token: &str, value: &Secret, rotation: Option<&SecretText>) -> Result<Put> {
        self.call("PutSecretValue", self.inner.put_pending(token, value, rotation)).await
    }

    async fn promote(&self, to: &str, from: Option<&str>) -> Result<()> {
        self.call("UpdateSecretVersionStage", self.inner.promote(to, from)).await
    }

    async fn unstage_pending(&self, token: &str) -> Result<()> {
        self.call("UpdateSecretVersionStage(AWSPENDING)", self.inner.unstage_pending(token)).await
    }

    async fn unlabelled(&self) -> Result<Vec<String>> {
        self.call("ListSecretVersionIds", self.inner.unlabelled()).await
    }
}

/// Runs a future until it has waited `points` times, and then drops it: a crash at that point. `None` is a crash.
pub struct CrashAt<F> {
    future: Pin<Box<F>>,
    points: usize,
}

impl<F: Future> CrashAt<F> {
    pub fn new(points: usize, future: F) -> Self {
        Self { future: Box::pin(future), points }
    }
}

impl<F: Future> Future for CrashAt<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.points == 0 => Poll::Ready(None),
            Poll::Pending => {
                self.points -= 1;
                Poll::Pending
            }
        }
    }
}

/// A key at [`KeyService`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    pub value: String,
}

/// A service that mints keys and lets several coexist, as model providers do.
#[derive(Clone, Default)]
pub struct KeyService {
    pub keys: Arc<Mutex<Vec<Key>>>,
    minted: Arc<Mutex<usize>>,
    /// Whether it answers.
    pub down: Arc<Mutex<bool>>,
}

impl KeyService {
    pub fn mint(&self, name: &str) -> String {
        let mut minted = self.minted.lock().unwrap();
        *minted += 1;
        let value = format!("key-{minted}");
        self.keys.lock().unwrap().push(Key { name: name.to_owned(), value: value.clone() });
        value
    }

    pub fn accepts(&self, value: &str) -> bool {
        self.keys.lock().unwrap().iter().any(|key| key.value == value)
    }

    pub fn remove(&self, wanted: impl Fn(&Key) -> bool) {
        self.keys.lock().unwrap().retain(|key| !wanted(key));
    }

    pub fn count(&self) -> usize {
        self.keys.lock().unwrap().len()
    }
}

/// The kind of the keys of a [`KeyService`].
pub struct Minted(pub KeyService);

#[async_trait]
impl Kind for Minted {
    fn names(&self) -> &'static [&'static str] {
        &["minted"]
    }

    fn summary(&self) -> &'static str {
        "a key that a service mints"
    }

    fn example(&self) -> &'static str {
        r#"{"kind":"minted","key":"key-1"}"#
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[Field::required("key", "the key")];
        FIELDS
    }

    fn rotates(&self, _: &Rotation<'_>, _: &Secret) -> Result<Vec<String>> {
        Ok(vec!["key".to_owned()])
    }

    fn mints(&self) -> bool {
        true
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        yield_now().await;
        self.0.remove(|key| key.name == rotation.token);
        yield_now().await;
        rotation.changing();
        let key = self.0.mint(rotation.token);
        yield_now().await;
        Ok(current.with(vec![("key", SecretText::from(key))]))
    }

    async fn set(&self, _: &Rotation<'_>, _: Versions<'_>) -> Result<()> {
        Ok(())
    }

    async fn test(&self, _: &Rotation<'_>, pending: &Secret) -> Result<()> {
        yield_now().await;
        if *self.0.down.lock().unwrap() {
            return Err(Error::transient(Code::Timeout, "no answer from keys:443 in 5 s"));
        }
        if self.0.accepts(pending.expose().required("key")?) {
            return Ok(());
        }
        Err(Error::rejected(Which::Pending, Code::WrongPassword, "keys:443 refuses the key"))
    }

    async fn revoke(&self, _: &Rotation<'_>, retired: &Secret) -> Result<()> {
        yield_now().await;
        let value = retired.expose().required("key")?;
        self.0.remove(|key| key.value == value);
        yield_now().await;
        Ok(())
    }
}

/// A secret whose key is minted, and the service.
pub fn minted_world() -> (World, KeyService) {
    let service = KeyService::default();
    let key = service.mint("by hand");
    let kind: &'static dyn Kind = Box::leak(Box::new(Minted(service.clone())));
    (World::with_kinds(&json!({"kind": "minted", "key": key}).to_string(), vec![kind]), service)
}
