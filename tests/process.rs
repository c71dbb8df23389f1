//! The real binary as a process that Lambda starts and kills: crashes between calls, and deadlines.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keywheel::store::memory::Payload;
use keywheel_dev::client::environment;
use keywheel_dev::emulator::{Effect, Emulator, Fault, Options, Victim};
use keywheel_dev::postgres::{self, Server};
use keywheel_dev::runtime::Runtime;
use serde_json::{Value, json};
use support::{FIRST, STEPS, TOKEN};
use tokio::time::timeout;

/// One process of the function, and the Runtime API that it asks for events.
struct Function {
    child: Child,
    runtime: Runtime,
}

impl Function {
    async fn start(emulator: &Emulator) -> Self {
        let mut runtime = Runtime::start().await.unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keywheel"))
            .env_clear()
            .envs(environment(emulator.url()))
            .env("AWS_LAMBDA_RUNTIME_API", runtime.address().to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "keywheel")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "keywheel")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "keywheel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        timeout(Duration::from_secs(20), runtime.ready()).await.unwrap().unwrap();
        Self { child, runtime }
    }

    /// Runs one step; `None` when the process died of it.
    async fn step(&mut self, step: &str, secret: &str, within: Duration) -> Option<Result<Value, Value>> {
        let event = json!({"Step": step, "SecretId": secret, "ClientRequestToken": TOKEN});
        let child = &mut self.child;
        tokio::select! {
            turn = self.runtime.invoke(event, within) => Some(turn.unwrap().answer),
            () = died(child) => None,
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn died(child: &mut Child) {
    while child.try_wait().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn emulator_with(name: &str, secret: &Value) -> Emulator {
    let emulator = Emulator::start(Options::default()).await.unwrap();
    add(&emulator, name, secret);
    emulator
}

fn add(emulator: &Emulator, name: &str, secret: &Value) {
    let service = emulator.service();
    service.create(name, FIRST, Some(Payload::Text(secret.to_string()))).unwrap();
    service.edit(name, |record| record.rotation_function = Some("keywheel".to_owned())).unwrap();
    service.begin_rotation(name, TOKEN).unwrap();
}

#[tokio::test]
async fn a_process_killed_after_any_call_is_healed_by_the_next_try() {
    const LONG: Duration = Duration::from_secs(20);
    let server = Server::start(&postgres::Options::default()).unwrap();
    let emulator = Emulator::start(Options::default()).await.unwrap();
    let mut killed = 0;
    for call in 1.. {
        let user = format!("user_{call}");
        server.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD 'old'")).await.unwrap();
        let secret = json!({"engine": "postgres", "host": "localhost", "port": server.port(), "username": user,
            "password": "old", "ssl": false});
        add(&emulator, &user, &secret);
        let mut function = Function::start(&emulator).await;
        emulator.inject(Fault::any(call, Effect::Crash(Victim::Process(function.child.id()))));
        let mut died = false;
        for step in STEPS {
            let Some(answer) = function.step(step, &user, LONG).await else {
                died = true;
                break;
            };
            answer.unwrap();
        }
        emulator.clear_faults();
        if died {
            killed += 1;
            // Lambda starts another process, and Secrets Manager runs all four steps again with the same token.
            function = Function::start(&emulator).await;
            for step in STEPS {
                let answer = function.step(step, &user, LONG).await.expect("alive");
                answer.unwrap_or_else(|error| panic!("killed after call {call}: {step}: {error}"));
            }
        }
        let (version, value, _) = emulator.service().get(&user, None, Some("AWSCURRENT")).unwrap();
        let Payload::Text(value) = value else { panic!("binary") };
        let value: Value = serde_json::from_str(&value).unwrap();
        assert_eq!(version, TOKEN);
        assert!(server.connect(&user, value["password"].as_str().unwrap()).await.is_ok(), "killed after call {call}");
        if !died {
            break;
        }
    }
    assert_eq!(killed, 11, "one crash after each call of a rotation");
}

#[tokio::test]
async fn the_deadline_of_lambda_is_kept_and_told() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let secret = json!({"engine": "postgres", "host": "127.0.0.1", "port": mute.local_addr().unwrap().port(),
        "username": "app", "password": "old"});
    let emulator = emulator_with("login", &secret).await;
    let mut function = Function::start(&emulator).await;
    let within = Duration::from_secs(2);
    function.step("createSecret", "login", within).await.unwrap().unwrap();
    let started = Instant::now();
    let error = function.step("setSecret", "login", within).await.unwrap().unwrap_err();
    assert!(started.elapsed() < within, "the answer came after Lambda's deadline");
    assert_eq!(error["errorType"], "Rotation.Transient", "{error}");
    let message = error["errorMessage"].as_str().unwrap();
    assert!(message.starts_with("[deadline] setSecret ran out of time; nothing was changed"), "{message}");
    // The process lives and goes on.
    let error = function.step("finishSecret", "login", Duration::from_secs(20)).await.unwrap();
    assert!(error.is_ok(), "no answer from the service is no objection: {error:?}");
}
