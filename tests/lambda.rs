//! The real binary under cargo lambda's runtime: against the local Secrets Manager, and once against moto.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::process::Output;
use std::time::Duration;

use keywheel_dev::client::{environment, sdk};
use keywheel_dev::emulator::{Effect, Emulator, Fault, Options, Rotation, State};
use keywheel_dev::moto::Moto;
use keywheel_dev::postgres::{self, Server};
use keywheel_dev::watch::{FUNCTION, Watch, cargo_lambda, root};
use serde_json::{Value, json};
use support::STEPS;
use tempfile::TempDir;
use tokio::time::timeout;

const FUNCTION_ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:keywheel";

/// The binary behind Lambda's Invoke API, with its Secrets Manager.
struct World {
    emulator: Emulator,
    watch: Watch,
    folder: TempDir,
}

impl World {
    async fn start(variables: &[(&'static str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { pause: Duration::from_millis(10), ..Options::default() };
        let emulator = Emulator::start(options).await.unwrap();
        let mut all = environment(emulator.url());
        all.extend_from_slice(variables);
        let watch = Watch::start(None, &all, &folder.path().join("log")).await.unwrap();
        emulator.set_function(&watch.url(), Some(FUNCTION));
        Self { emulator, watch, folder }
    }

    async fn create(&self, name: &str, value: &Value) {
        sdk(self.emulator.url()).create_secret().name(name).secret_string(value.to_string()).send().await.unwrap();
    }

    /// `RotateSecret`, and what became of it.
    async fn rotate(&self, name: &str) -> Rotation {
        let begun = sdk(self.emulator.url()).rotate_secret().secret_id(name).rotation_lambda_arn(FUNCTION_ARN);
        let token = begun.send().await.unwrap().version_id.unwrap();
        timeout(Duration::from_mins(5), self.emulator.rotation_ended(name, &token)).await.unwrap()
    }

    async fn value(&self, name: &str) -> Value {
        let got = sdk(self.emulator.url()).get_secret_value().secret_id(name).version_stage("AWSCURRENT");
        serde_json::from_str(&got.send().await.unwrap().secret_string.unwrap()).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// `cargo lambda invoke` with one of the files in `events/`, or another payload.
    fn invoke(&self, arguments: &[&str]) -> Output {
        let mut command = cargo_lambda("invoke").unwrap();
        command.args([FUNCTION, "--invoke-address", "127.0.0.1", "--invoke-port", &self.watch.port().to_string()]);
        command.args(arguments).output().unwrap()
    }
}

fn random() -> Value {
    json!({"kind": "random", "token": "marked-old"})
}

#[tokio::test]
async fn rotate_secret_rotates_a_postgresql_login_with_tls() {
    let server = Server::start(&postgres::Options { tls: true, ..postgres::Options::default() }).unwrap();
    server.execute("CREATE ROLE app LOGIN PASSWORD 'marked-old'").await.unwrap();
    let authority = server.folder().join("authority.pem");
    std::fs::write(&authority, server.root()).unwrap();
    // At the most talkative level, which must still name no secret.
    let variables =
        [("KEYWHEEL_CA_FILE", authority.display().to_string()), ("AWS_LAMBDA_LOG_LEVEL", "TRACE".to_owned())];
    let world = World::start(&variables).await;
    let secret = json!({"engine": "postgres", "host": "localhost", "port": server.port(), "username": "app",
        "password": "marked-old"});
    world.create("login", &secret).await;

    let mut passwords = vec!["marked-old".to_owned()];
    for round in 1..=2 {
        world.emulator.forget_calls();
        let ended = world.rotate("login").await;
        assert_eq!((ended.state, ended.attempts), (State::Succeeded, 1), "{:?}\n{}", ended.steps, world.log());
        let value = world.value("login").await;
        passwords.push(value["password"].as_str().unwrap().to_owned());
        assert_eq!(value["port"], json!(server.port()), "a number stays a number");
        for (age, password) in passwords.iter().rev().enumerate() {
            assert_eq!(server.connect("app", password).await.is_ok(), age == 0, "round {round}: password of age {age}");
        }
        let calls: Vec<_> = world.emulator.calls().into_iter().filter(|call| call.step.is_some()).collect();
        for step in STEPS {
            println!(
                "{step}: {} calls",
                calls.iter().filter(|call| call.step.map(keywheel::event::Step::as_str) == Some(step)).count()
            );
        }
        assert_eq!(calls.len(), 11, "{calls:?}");
        assert!(calls.iter().any(|call| call.operation == "PutSecretValue" && call.rotation_token));
    }

    let log = world.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let steps: Vec<Value> = lines.filter(|line| line["step"].is_string()).collect();
    assert_eq!(steps.len(), 8, "one line per invocation: {log}");
    for line in &steps {
        assert!(line["secret"].as_str().unwrap().starts_with("arn:aws:secretsmanager:"), "{line}");
        for field in ["version", "kind", "step", "outcome", "request_id"] {
            assert!(line[field].is_string(), "{field} is missing: {line}");
        }
        assert!(line["duration_ms"].is_number(), "{line}");
    }
    for password in &passwords {
        assert!(!log.contains(password.as_str()), "the function's log has a password");
    }
}

// `cargo lambda invoke` is waited for on a thread, so the emulator needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_file_runs_through_cargo_lambda_invoke() {
    let world = World::start(&[]).await;
    let event: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("events/create.json")).unwrap()).unwrap();
    let (secret, token) = (event["SecretId"].as_str().unwrap(), event["ClientRequestToken"].as_str().unwrap());
    world.create(secret, &random()).await;
    world.emulator.service().edit(secret, |record| record.rotation_function = Some(FUNCTION_ARN.to_owned())).unwrap();

    // Before a rotation has begun, every step says so, in one line and a hint.
    let refused = world.invoke(&["--data-file", "events/create.json"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{text}");
    assert!(text.contains("Rotation.Stage") && text.contains("[token]") && text.contains("hint:"), "{text}");
    let unknown = world.invoke(&["--data-ascii", r#"{"Step":"danceSecret","SecretId":"x","ClientRequestToken":"y"}"#]);
    let text = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(text.contains("Rotation.Config") && text.contains("danceSecret"), "{text}");

    world.emulator.begin_rotation(secret, token).unwrap();
    for name in ["create", "set", "test", "finish", "finish"] {
        let done = world.invoke(&["--data-file", &format!("events/{name}.json")]);
        assert!(done.status.success(), "{name}: {}\n{}", String::from_utf8_lossy(&done.stderr), world.log());
    }
    assert_ne!(world.value(secret).await, random());
}

#[tokio::test]
async fn faults_of_aws_are_ridden_out_or_told() {
    let world = World::start(&[]).await;
    world.create("token", &random()).await;
    // What AWS does now and then: the SDK tries again, and nothing shows.
    let failure = Effect::Error { status: 500, code: "InternalServiceError".into(), message: "sorry".into() };
    for (operation, effect) in [
        ("DescribeSecret", Effect::throttle()),
        ("PutSecretValue", Effect::LostResponse),
        ("GetSecretValue", failure),
        ("UpdateSecretVersionStage", Effect::LostResponse),
        ("GetSecretValue", Effect::Latency(Duration::from_millis(300))),
    ] {
        world.emulator.inject(Fault::new(operation, 1, effect.clone()));
        let ended = world.rotate("token").await;
        assert_eq!((ended.state, ended.attempts), (State::Succeeded, 1), "{operation} {effect:?}: {:?}", ended.steps);
    }
    // A missing permission: every try fails alike and names the action, and the old value stays.
    let before = world.value("token").await;
    let denied = Effect::Error { status: 400, code: "AccessDeniedException".into(), message: "no".into() };
    world.emulator.inject(Fault::new("PutSecretValue", 1, denied).times(3));
    let ended = world.rotate("token").await;
    assert_eq!((ended.state, ended.attempts), (State::Failed, 3));
    let error = ended.steps[0].error.as_ref().unwrap();
    assert_eq!(error.error_type, "Rotation.Config");
    assert!(error.error_message.contains("allow secretsmanager:PutSecretValue"), "{}", error.error_message);
    assert_eq!(world.value("token").await, before);
}

#[tokio::test]
async fn saving_a_schedule_without_rotating_tests_the_value() {
    let world = World::start(&[]).await;
    world.create("token", &random()).await;
    let client = sdk(world.emulator.url());
    let saved = client.rotate_secret().secret_id("token").rotation_lambda_arn(FUNCTION_ARN).rotate_immediately(false);
    let token = saved.send().await.unwrap().version_id.unwrap();
    let ended = timeout(Duration::from_mins(5), world.emulator.rotation_ended("token", &token)).await.unwrap();
    let steps: Vec<_> = ended.steps.iter().map(|run| run.step.as_str()).collect();
    assert_eq!((ended.state, steps), (State::Succeeded, vec!["testSecret"]), "{:?}", ended.steps);
    assert_eq!(world.value("token").await, random());
}

#[tokio::test]
async fn moto_agrees() {
    let moto = Moto::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // The variable of AWS's own rotation functions goes before AWS_ENDPOINT_URL.
    let mut variables = environment("http://127.0.0.1:1");
    variables.push(("SECRETS_MANAGER_ENDPOINT", moto.url().to_owned()));
    let watch = Watch::start(None, &variables, &log).await.unwrap();
    let token = "44444444-4444-4444-8444-444444444444";
    moto.run("tests/moto/begin_rotation.py", &["gateway", &random().to_string(), token]).unwrap();
    for step in STEPS {
        let event = json!({"Step": step, "SecretId": "gateway", "ClientRequestToken": token}).to_string();
        let mut invoke = cargo_lambda("invoke").unwrap();
        invoke.args([FUNCTION, "--invoke-address", "127.0.0.1", "--invoke-port", &watch.port().to_string()]);
        let done = invoke.args(["--data-ascii", &event]).output().unwrap();
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(done.status.success(), "{step}: {}\n{log}", String::from_utf8_lossy(&done.stderr));
    }
    let client = sdk(moto.url());
    let got = client.get_secret_value().secret_id("gateway").version_stage("AWSCURRENT").send().await.unwrap();
    assert_eq!(got.version_id(), Some(token));
    assert!(!got.secret_string().unwrap().contains("marked-old"));
    let previous = client.get_secret_value().secret_id("gateway").version_stage("AWSPREVIOUS").send().await.unwrap();
    assert!(previous.secret_string().unwrap().contains("marked-old"));
}
