//! `AwsStore`, through the AWS SDK, against the local Secrets Manager and its faults.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::net::TcpListener;

use keywheel::error::{Class, Code, Effect as Changed, Error};
use keywheel::secret::{Secret, SecretText};
use keywheel::store::aws::{AwsStore, retries, timeouts};
use keywheel::store::memory::Payload;
use keywheel::store::{Put, Store, Version};
use keywheel_dev::client::sdk;
use keywheel_dev::emulator::{Effect, Emulator, Fault, Options};
use support::{FIRST, SECRET, THIRD, TOKEN};

/// A secret in the emulator, in the middle of a rotation that has put nothing yet.
async fn emulator() -> (Emulator, aws_sdk_secretsmanager::Client) {
    let emulator = Emulator::start(Options::default()).await.unwrap();
    let service = emulator.service();
    service.create(SECRET, FIRST, Some(Payload::Text(r#"{"kind":"random","token":"marked-old"}"#.to_owned()))).unwrap();
    service.edit(SECRET, |record| record.rotation_function = Some("keywheel".to_owned())).unwrap();
    service.begin_rotation(SECRET, TOKEN).unwrap();
    let client = client(emulator.url());
    (emulator, client)
}

/// A client as the function has it, but for the pauses between attempts.
fn client(url: &str) -> aws_sdk_secretsmanager::Client {
    let quick = retries().with_initial_backoff(std::time::Duration::from_millis(1));
    let config = sdk(url).config().to_builder().retry_config(quick).timeout_config(timeouts()).build();
    aws_sdk_secretsmanager::Client::from_conf(config)
}

fn value(token: &str) -> Secret {
    Secret::parse(format!(r#"{{"kind":"random","token":"{token}"}}"#)).unwrap()
}

fn text(secret: Option<Secret>) -> String {
    secret.unwrap().expose().to_text().expose().to_owned()
}

#[tokio::test]
async fn each_call_does_what_the_store_promises() {
    let (emulator, client) = emulator().await;
    emulator
        .service()
        .edit(SECRET, |record| record.tags.insert("keywheel:kind".to_owned(), "random".to_owned()))
        .unwrap();
    let store = AwsStore::new(&client, SECRET);
    let described = store.describe().await.unwrap();
    assert!(described.arn.starts_with("arn:aws:secretsmanager:"));
    assert_eq!(described.rotation_enabled, Some(true));
    assert!(described.holds(FIRST, "AWSCURRENT") && described.holds(TOKEN, "AWSPENDING"));
    assert_eq!(described.tags["keywheel:kind"], "random");

    assert!(store.get(Version::Pending(TOKEN)).await.unwrap().is_none());
    assert!(store.get(Version::Previous).await.unwrap().is_none());
    let rotation_token = SecretText::from("marked-rotation-token-0000000000000000".to_owned());
    assert_eq!(store.put_pending(TOKEN, &value("new"), Some(&rotation_token)).await.unwrap(), Put::Stored);
    assert!(emulator.calls().last().unwrap().rotation_token);
    assert_eq!(store.put_pending(TOKEN, &value("new"), None).await.unwrap(), Put::Stored);
    assert_eq!(store.put_pending(TOKEN, &value("other"), None).await.unwrap(), Put::Exists);
    assert!(text(store.get(Version::Pending(TOKEN)).await.unwrap()).contains("\"new\""));

    // Not what the store was told of: refused, and nothing moves.
    assert_eq!(store.promote(TOKEN, Some(TOKEN)).await.unwrap_err().code(), Code::Request);
    store.promote(TOKEN, Some(FIRST)).await.unwrap();
    assert!(text(store.get(Version::Current).await.unwrap()).contains("\"new\""));
    assert!(text(store.get(Version::Previous).await.unwrap()).contains("marked-old"));
    store.unstage_pending(TOKEN).await.unwrap();

    for (number, id) in [THIRD, "fourth-version-000000000000000000000"].into_iter().enumerate() {
        store.put_pending(id, &value(&number.to_string()), None).await.unwrap();
    }
    store.unstage_pending("fourth-version-000000000000000000000").await.unwrap();
    let unlabelled = store.unlabelled().await.unwrap();
    assert_eq!(unlabelled, ["fourth-version-000000000000000000000", THIRD]);
    assert!(text(store.get(Version::Unlabelled(THIRD)).await.unwrap()).contains("\"0\""));
}

#[tokio::test]
async fn binary_and_broken_values_are_told_without_their_text() {
    let (emulator, client) = emulator().await;
    let store = AwsStore::new(&client, SECRET);
    emulator.service().put(SECRET, THIRD, Payload::Binary(b"marked".to_vec()), &[]).unwrap();
    let error = store.get(Version::Current).await.err().unwrap();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::Value));
    let fourth = "fourth-version-000000000000000000000";
    emulator.service().put(SECRET, fourth, Payload::Text("{\"a\": marked}".to_owned()), &[]).unwrap();
    let error = store.get(Version::Current).await.err().unwrap();
    assert_eq!(error.code(), Code::Value);
    assert!(!format!("{error:?}").contains("marked"), "{error}");
}

#[tokio::test]
async fn throttling_failures_and_lost_answers_are_tried_again() {
    let (emulator, client) = emulator().await;
    let store = AwsStore::new(&client, SECRET);
    let failure =
        || Effect::Error { status: 500, code: "InternalServiceError".to_owned(), message: "sorry".to_owned() };
    for effect in [Effect::throttle(), failure(), Effect::LostRequest, Effect::LostResponse] {
        emulator.inject(Fault::new("PutSecretValue", 1, effect.clone()).times(3));
        let stored = store.put_pending(TOKEN, &value("new"), None).await;
        assert_eq!(stored.unwrap(), Put::Stored, "{effect:?}");
        emulator.clear_faults();
    }
}

#[tokio::test]
async fn what_stays_broken_is_told_by_who_has_to_act() {
    let error = |status, code: &str, message: &str| Effect::Error {
        status,
        code: code.to_owned(),
        message: message.to_owned(),
    };
    let transient = Class::Transient(Changed::None);
    for (effect, class, code, named) in [
        (Effect::throttle(), transient, Code::Throttled, "ThrottlingException"),
        (error(500, "InternalServiceError", "sorry"), transient, Code::Aws, "InternalServiceError: sorry"),
        (Effect::LostRequest, transient, Code::Aws, "does not reach Secrets Manager"),
        (
            error(400, "AccessDeniedException", "User: u is not authorized"),
            Class::Config,
            Code::AccessDenied,
            "allow secretsmanager:GetSecretValue on it for the function's role; with a KMS key of your own, also kms:Decrypt",
        ),
        (error(400, "DecryptionFailure", "no key"), Class::Config, Code::Kms, "allow kms:Decrypt"),
        (error(400, "ExpiredTokenException", "old"), Class::Config, Code::AccessDenied, "ExpiredTokenException"),
        (
            error(400, "InvalidRequestException", "marked for deletion"),
            Class::Config,
            Code::Request,
            "marked for deletion",
        ),
        (error(400, "SomethingNew", "who knows"), Class::Config, Code::Request, "SomethingNew: who knows"),
    ] {
        let (emulator, client) = emulator().await;
        let store = AwsStore::new(&client, SECRET);
        emulator.inject(Fault::new("GetSecretValue", 1, effect.clone()).times(9));
        let error: Error = store.get(Version::Current).await.err().unwrap();
        assert_eq!((error.class(), error.code()), (class, code), "{effect:?}: {error}");
        let text = error.to_string();
        assert!(text.contains("GetSecretValue") && text.contains(named) && text.contains("\nhint: "), "{text}");
    }
    let (_emulator, client) = emulator().await;
    let error = AwsStore::new(&client, "no-such-secret").describe().await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::Request));
    assert!(error.to_string().contains("DescribeSecret of no-such-secret"), "{error}");
}

#[tokio::test]
async fn an_endpoint_where_nothing_listens_or_answers() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = client(&format!("http://{gone}"));
    let error = AwsStore::new(&client, SECRET).describe().await.unwrap_err();
    assert_eq!(error.code(), Code::Aws);
    assert!(error.to_string().contains("refused") && error.to_string().contains("VPC"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_never_answers_does_not_hold_the_step() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(&format!("http://{}", mute.local_addr().unwrap()));
    let started = tokio::time::Instant::now();
    let error = AwsStore::new(&client, SECRET).describe().await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Transient(Changed::None), Code::Timeout));
    assert!(started.elapsed() < std::time::Duration::from_secs(21), "{:?}", started.elapsed());
    assert!(error.to_string().contains("no answer from Secrets Manager to DescribeSecret"), "{error}");
}
