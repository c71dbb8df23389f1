//! Marked secrets never reach a log, an error, a Debug or a panic, at any log level.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywheel::error::{Code, Result};
use keywheel::handler::{handle, silence_panics};
use keywheel::kind::{Field, Kind, Rotation, Settings, Versions};
use keywheel::kinds::KINDS;
use keywheel::secret::{Secret, SecretText};
use keywheel::services::{Answer, Endpoint, Managed, Refusal, Request, Services};
use keywheel::store::memory::{Payload, Service};
use keywheel_dev::postgres::{Options, Server};
use serde_json::{Value, json};
use support::{FIRST, SECRET, STEPS, TOKEN};
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

/// Everything that is logged, by whomever.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let lines =
            tracing_subscriber::fmt().json().with_max_level(LevelFilter::TRACE).with_writer(move || log.clone());
        tracing::subscriber::set_default(lines.finish())
    }
}

const ROTATION_TOKEN: &str = "marked-rotation-token";

/// A secret in memory; its steps are run as Lambda would run them.
struct Function {
    service: Service,
    settings: Settings,
    kinds: Vec<&'static dyn Kind>,
}

impl Function {
    fn new(value: &str, kinds: Vec<&'static dyn Kind>) -> Self {
        let service = Service::new();
        service.create(SECRET, FIRST, Some(Payload::Text(value.to_owned()))).unwrap();
        service.edit(SECRET, |record| record.rotation_function = Some("keywheel".to_owned())).unwrap();
        service.begin_rotation(SECRET, TOKEN).unwrap();
        Self { service, settings: Settings::default(), kinds }
    }

    async fn step(&self, step: &str) -> Result<()> {
        let event =
            json!({"Step": step, "SecretId": SECRET, "ClientRequestToken": TOKEN, "RotationToken": ROTATION_TOKEN});
        self.invoke(event, &self.service).await
    }

    async fn invoke(&self, event: Value, services: &dyn Services) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        handle(event, "request", deadline, &self.settings, &self.kinds, services).await
    }

    fn values(&self) -> Vec<String> {
        let text = |payload: &Payload| match payload {
            Payload::Text(text) => text.clone(),
            Payload::Binary(_) => String::new(),
        };
        let values = self
            .service
            .inspect(SECRET, |it| it.versions.iter().filter_map(|it| it.value.as_ref()).map(text).collect());
        values.unwrap()
    }
}

fn assert_clean(texts: &[String], secrets: &[String]) {
    for text in texts {
        for secret in secrets.iter().map(String::as_str).chain(["marked", ROTATION_TOKEN]) {
            assert!(!text.contains(secret), "{secret} is in: {text}");
        }
    }
}

#[tokio::test]
async fn a_rotation_of_a_login_and_its_failures_log_no_secret() {
    let server = Server::start(&Options { tls: true, ..Options::default() }).unwrap();
    server.execute("CREATE ROLE app LOGIN PASSWORD 'marked-old'").await.unwrap();
    let log = Log::default();
    let guard = log.start();
    let right = json!({"engine": "postgres", "host": "localhost", "port": server.port(), "username": "app",
        "password": "marked-old", "sslrootcert": server.root()});
    let function = Function::new(&right.to_string(), KINDS.to_vec());
    for step in STEPS {
        function.step(step).await.unwrap();
    }
    let mut secrets: Vec<String> = function
        .values()
        .iter()
        .map(|value| serde_json::from_str::<Value>(value).unwrap()["password"].as_str().unwrap().to_owned())
        .collect();
    let mut errors = Vec::new();
    for (field, wrong) in [
        ("password", json!("marked-wrong")),
        ("password", json!(["marked"])),
        ("sslrootcert", json!("marked")),
        ("port", json!("marked")),
        ("dbname", json!(["marked"])),
        ("privileges", json!([{"marked": 1}])),
    ] {
        let mut secret = right.clone();
        secret[field] = wrong;
        let function = Function::new(&secret.to_string(), KINDS.to_vec());
        for step in STEPS {
            if let Err(error) = function.step(step).await {
                errors.extend([format!("{error}"), format!("{error:?}")]);
                break;
            }
        }
        let pending = function.values().into_iter().nth(1);
        secrets.extend(pending.map(|it| serde_json::from_str::<Value>(&it).unwrap()["password"].to_string()));
    }
    for broken in ["{\"password\": marked", "{\"engine\": \"postgres\", \"password\": \"marked\"} marked", "marked"] {
        let error = Function::new(broken, KINDS.to_vec()).step("createSecret").await.unwrap_err();
        errors.extend([format!("{error}"), format!("{error:?}")]);
    }
    drop(guard);
    assert!(errors.len() == 18 && log.text().contains("rotation step failed"));
    errors.push(log.text());
    assert_clean(&errors, &secrets);
}

/// A kind whose every fault is to quote the secret in a panic.
struct Careless;

#[async_trait]
impl Kind for Careless {
    fn names(&self) -> &'static [&'static str] {
        &["careless"]
    }

    fn summary(&self) -> &'static str {
        ""
    }

    fn example(&self) -> &'static str {
        "{}"
    }

    fn fields(&self) -> &'static [Field] {
        &[]
    }

    fn rotates(&self, _: &Rotation<'_>, _: &Secret) -> Result<Vec<String>> {
        Ok(vec!["token".to_owned()])
    }

    async fn create(&self, _: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        panic!("{}", current.expose().required("token").unwrap());
    }

    async fn set(&self, _: &Rotation<'_>, _: Versions<'_>) -> Result<()> {
        Ok(())
    }

    async fn test(&self, _: &Rotation<'_>, _: &Secret) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_is_an_error_with_its_place_and_not_its_text() {
    silence_panics();
    let log = Log::default();
    let guard = log.start();
    let function = Function::new(r#"{"kind":"careless","token":"marked-token"}"#, vec![&Careless]);
    let error = function.step("createSecret").await.unwrap_err();
    drop(guard);
    let _ = std::panic::take_hook();
    assert_eq!(error.code(), Code::Panic);
    assert_eq!(lambda_runtime::Diagnostic::from(error).error_type, "Rotation.Internal");
    let text = log.text();
    assert!(text.contains("a defect of keywheel at tests/leaks.rs:"), "{text}");
    assert_clean(&[text], &[]);
}

#[tokio::test(start_paused = true)]
async fn one_line_per_invocation_with_everything_to_look_for() {
    let log = Log::default();
    let guard = log.start();
    let function = Function::new(r#"{"kind":"random","token":"marked-token"}"#, KINDS.to_vec());
    for step in STEPS {
        function.step(step).await.unwrap();
    }
    let error = function.invoke(json!({"Step": "dance"}), &function.service).await.unwrap_err();
    assert_eq!(error.code(), Code::Event);
    drop(guard);
    let text = log.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5, "{text}");
    for (line, step) in lines.iter().zip(STEPS) {
        let fields = &line["fields"];
        assert_eq!((&fields["secret"], &fields["version"]), (&json!(SECRET), &json!(TOKEN)));
        assert_eq!((&fields["step"], &fields["kind"]), (&json!(step), &json!("random")));
        assert_eq!((&fields["outcome"], &fields["request_id"]), (&json!("done"), &json!("request")));
        assert!(fields["duration_ms"].is_number() && line["level"] == "INFO");
    }
    assert_eq!(lines[4]["level"], "ERROR");
    assert_eq!(lines[4]["fields"]["code"], "event");
    assert_clean(&[text], &[]);
}

/// An AWS that never answers.
struct Mute;

#[async_trait]
impl Services for Mute {
    fn secret<'s>(&'s self, _: &str) -> Box<dyn keywheel::store::Store + 's> {
        Box::new(Mute)
    }

    async fn endpoint(&self, _: Managed<'_>) -> Result<Endpoint> {
        std::future::pending().await
    }

    async fn replicates(&self, _: &str, _: &str) -> Result<bool> {
        std::future::pending().await
    }

    async fn ask(&self, _: &Request<'_>) -> std::result::Result<Answer, Refusal> {
        std::future::pending().await
    }
}

#[async_trait]
impl keywheel::store::Store for Mute {
    async fn describe(&self) -> Result<keywheel::store::Description> {
        std::future::pending().await
    }

    async fn get(&self, _: keywheel::store::Version<'_>) -> Result<Option<Secret>> {
        std::future::pending().await
    }

    async fn put_pending(&self, _: &str, _: &Secret, _: Option<&SecretText>) -> Result<keywheel::store::Put> {
        std::future::pending().await
    }

    async fn promote(&self, _: &str, _: Option<&str>) -> Result<()> {
        std::future::pending().await
    }

    async fn unstage_pending(&self, _: &str) -> Result<()> {
        std::future::pending().await
    }

    async fn unlabelled(&self) -> Result<Vec<String>> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_runs_out_of_time_says_so_and_whether_something_may_have_changed() {
    let function = Function::new(r#"{"kind":"random","token":"old"}"#, KINDS.to_vec());
    let event = json!({"Step": "setSecret", "SecretId": SECRET, "ClientRequestToken": TOKEN});
    let error = function.invoke(event, &Mute).await.unwrap_err();
    assert_eq!(error.code(), Code::Deadline);
    assert!(error.to_string().starts_with("[deadline] setSecret ran out of time; nothing was changed"), "{error}");
}
