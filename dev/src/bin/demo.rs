//! The main job, on this machine alone: a PostgreSQL login is rotated through Secrets Manager's four steps.
//!
//! `demo` shows it once and cleans up; `demo --keep` leaves everything running and says what to type next.

#![expect(clippy::print_stdout, reason = "it shows something")]

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::types::RotationRulesType;
use keywheel_dev::client::{environment, sdk};
use keywheel_dev::emulator::{Emulator, Options, Rotation, State};
use keywheel_dev::postgres::{self, Server};
use keywheel_dev::watch::{FUNCTION, Watch, root};
use serde_json::{Value, json};
use std::future::Future;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SECRET: &str = "keywheel/demo";
/// The secret and the token of the files in `events/`.
const BY_HAND: &str = "keywheel/by-hand";
const BY_HAND_TOKEN: &str = "11111111-2222-4333-8444-555555555555";
const OLD: &str = "the password before";

/// Everything that a rotation needs, on free ports and in one temporary folder.
struct World {
    emulator: Emulator,
    server: Server,
    _watch: Watch,
    folder: TempDir,
}

fn main() -> Result<()> {
    let keep = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--keep") => true,
        Some(_) => return Err("usage: demo [--keep]".into()),
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut stop = signal(SignalKind::terminate())?;
        tokio::select! {
            done = run(keep) => return done,
            _ = tokio::signal::ctrl_c() => {}
            _ = stop.recv() => {}
        }
        println!("\nstopped");
        Ok(())
    })
}

async fn run(keep: bool) -> Result<()> {
    let world = start(keep).await?;
    let arn = create(&world, SECRET, "app", "11111111-0000-4000-8000-000000000001").await?;
    println!("\nThe secret {SECRET} holds the login `app`: {}", shown(&world, SECRET)?);

    println!("\naws secretsmanager rotate-secret --secret-id {SECRET}");
    let token = sdk(world.emulator.url())
        .rotate_secret()
        .secret_id(SECRET)
        .rotation_lambda_arn(format!("arn:aws:lambda:us-east-1:123456789012:function:{FUNCTION}"))
        .rotation_rules(RotationRulesType::builder().automatically_after_days(30).build())
        .send()
        .await?
        .version_id
        .unwrap_or_default();
    let ended = timeout(Duration::from_mins(10), world.emulator.rotation_ended(SECRET, &token)).await?;
    show(&ended, &world);
    if ended.state != State::Succeeded {
        let log = std::fs::read_to_string(log(&world.folder))?;
        return Err(format!("the rotation has not succeeded; the function's log:\n{log}").into());
    }

    println!("\nThe secret {SECRET} now: {}", shown(&world, SECRET)?);
    let new = value(&world, SECRET)?["password"].as_str().unwrap_or_default().to_owned();
    prove("the new password signs in", world.server.connect("app", &new).await.is_ok())?;
    prove("the old password is refused", world.server.connect("app", OLD).await.is_err())?;

    println!("\nWith the SecretProviderClass that the template emits for it, pods on EKS mount the login:\n");
    println!("{}", secret_provider_class(&arn)?);
    if keep { keep_running(&world).await } else { Ok(()) }
}

async fn start(keep: bool) -> Result<World> {
    let folder = tempfile::Builder::new().prefix("keywheel-demo-").tempdir()?;
    let emulator = step("Secrets Manager, emulated", async { Ok(Emulator::start(Options::default()).await?) }).await?;
    let server = step("PostgreSQL with TLS, on a free port", async {
        Ok(Server::start(&postgres::Options { tls: true, ..postgres::Options::default() })?)
    })
    .await?;
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, server.root())?;
    let mut variables = environment(emulator.url());
    variables.push(("KEYWHEEL_CA_FILE", authority.display().to_string()));
    // `make invoke` knows it.
    let port = if keep { Some(9000) } else { None };
    let log = log(&folder);
    let watch =
        step("the function, under cargo lambda watch", async { Ok(Watch::start(port, &variables, &log).await?) })
            .await?;
    emulator.set_function(&watch.url(), Some(FUNCTION));
    Ok(World { emulator, server, _watch: watch, folder })
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("function.log")
}

async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    print!("starting {what:<40}");
    std::io::stdout().flush()?;
    let started = Instant::now();
    let done = work.await?;
    println!("{:>6} ms", started.elapsed().as_millis());
    Ok(done)
}

/// Makes a login and the secret that holds it; returns the ARN.
async fn create(world: &World, secret: &str, user: &str, version: &str) -> Result<String> {
    world.server.execute(&format!("CREATE ROLE \"{user}\" LOGIN PASSWORD '{OLD}'")).await?;
    let value = json!({"engine": "postgres", "host": "localhost", "port": world.server.port(), "dbname": "postgres",
        "username": user, "password": OLD});
    let client = sdk(world.emulator.url());
    let created = client.create_secret().name(secret).client_request_token(version).secret_string(value.to_string());
    Ok(created.send().await?.arn.unwrap_or_default())
}

fn show(ended: &Rotation, world: &World) {
    let calls = world.emulator.calls();
    let mut first = true;
    for run in &ended.steps {
        let count = calls.iter().filter(|call| call.step == Some(run.step)).count();
        let note = if first { " (with the start of the function)" } else { "" };
        first = false;
        match &run.error {
            None => println!("  {:<13}{:>6} ms  {count} calls{note}", run.step, run.time.as_millis()),
            Some(error) => println!("  {:<13} {}: {}", run.step, error.error_type, error.error_message),
        }
    }
}

fn value(world: &World, secret: &str) -> Result<Value> {
    use keywheel::store::memory::Payload;
    match world.emulator.service().get(secret, None, Some("AWSCURRENT")) {
        Ok((_, Payload::Text(text), _)) => Ok(serde_json::from_str(&text)?),
        Ok(_) => Err("the secret is binary".into()),
        Err(refusal) => Err(refusal.message.into()),
    }
}

/// The secret's value with all but the ends of the password left out.
fn shown(world: &World, secret: &str) -> Result<String> {
    let mut value = value(world, secret)?;
    let password = value["password"].as_str().unwrap_or_default();
    value["password"] = json!(format!("{}…", password.chars().take(3).collect::<String>()));
    Ok(value.to_string())
}

fn prove(what: &str, holds: bool) -> Result<()> {
    println!("  {} {what}", if holds { "yes:" } else { "NO: " });
    if holds { Ok(()) } else { Err(format!("not so: {what}").into()) }
}

/// What the template puts out for this secret, resolved as `CloudFormation` would.
fn secret_provider_class(arn: &str) -> Result<String> {
    let root = root();
    let output = Command::new(root.join(".venv/lambda/bin/python"))
        .args(["-B", "tests/template/stack.py", "SecretProviderClass", "Kind=postgres"])
        .arg(format!("SecretArn={arn}"))
        .current_dir(root)
        .output()?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(format!("the template cannot be resolved: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

async fn keep_running(world: &World) -> Result<()> {
    create(world, BY_HAND, "by_hand", "11111111-0000-4000-8000-000000000002").await?;
    let arn = format!("arn:aws:lambda:us-east-1:123456789012:function:{FUNCTION}");
    let edited = world.emulator.service().edit(BY_HAND, |record| record.rotation_function = Some(arn));
    edited.and_then(|()| world.emulator.begin_rotation(BY_HAND, BY_HAND_TOKEN)).map_err(|it| it.message)?;
    println!("Everything keeps running until Ctrl-C. In another terminal, in this folder:\n");
    println!("A whole rotation by the AWS CLI:");
    for (name, value) in environment(world.emulator.url()) {
        println!("  export {name}={value}");
    }
    println!("  .venv/aws/bin/aws secretsmanager rotate-secret --secret-id {SECRET}");
    println!("  .venv/aws/bin/aws secretsmanager describe-secret --secret-id {SECRET}");
    println!("  curl {}/_emulator/rotations\n", world.emulator.url());
    println!("Step by step, on the secret {BY_HAND}, whose rotation has begun:");
    for name in ["create", "set", "test", "finish"] {
        println!("  make invoke STEP={name}");
    }
    println!("\nThe function's log: {}", log(&world.folder).display());
    std::future::pending().await
}
