//! The emulator as its users meet it: the AWS SDK, the AWS CLI, plain HTTP, and a function behind the Invoke API.

#![expect(clippy::unwrap_used, reason = "tests may stop at the first surprise")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::put_secret_value::{PutSecretValueError, PutSecretValueOutput};
use aws_sdk_secretsmanager::operation::rotate_secret::builders::RotateSecretFluentBuilder;
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::types::{RotationRulesType, Tag};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use keywheel::event::Step;
use keywheel::store::memory::Payload;
use keywheel_dev::emulator::{Effect, Emulator, Fault, Options, Rotation, State, StepRun, Victim};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

const A: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const B: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
const C: &str = "cccccccc-cccc-4ccc-8ccc-cccccccccccc";
const FUNCTION: &str = "arn:aws:lambda:us-east-1:123456789012:function:wheel";

// --- Versions and labels, by the AWS SDK -----------------------------------------------------------------------------

#[tokio::test]
async fn a_secret_is_created_described_and_read() {
    let world = World::with_secret().await;
    let described = world.client.describe_secret().secret_id("app").send().await.unwrap();
    assert_eq!(described.arn(), Some("arn:aws:secretsmanager:us-east-1:123456789012:secret:app-000001"));
    assert_eq!((described.name(), described.description()), (Some("app"), Some("for tests")));
    assert_eq!(described.rotation_enabled(), None, "absent until it is configured");
    assert_eq!(described.version_ids_to_stages().unwrap()[A], ["AWSCURRENT"]);
    assert_eq!(described.tags()[0], tag("team", "ai"));
    let age = std::time::SystemTime::now().duration_since((*described.created_date().unwrap()).try_into().unwrap());
    assert!(age.unwrap() < Duration::from_mins(1), "dates are seconds since 1970");

    let again = world.client.create_secret().name("app").client_request_token(A).secret_string("one").send().await;
    assert_eq!(again.unwrap().arn(), described.arn(), "the same call again is no error");
    let other = world.client.create_secret().name("app").secret_string("other").send().await;
    assert_refused(&other, "ResourceExistsException", "already exists");

    let missing = world.client.get_secret_value().secret_id("other").send().await;
    assert_refused(&missing, "ResourceNotFoundException", "Secrets Manager can't find the specified secret.");
    let missing = world.client.get_secret_value().secret_id("app").version_stage("AWSPREVIOUS").send().await;
    assert_refused(&missing, "ResourceNotFoundException", "staging label: AWSPREVIOUS");
}

#[tokio::test]
async fn a_value_is_read_by_stage_by_id_and_by_both() {
    let world = World::with_secret().await;
    world.put(B, "two", &["AWSPENDING"]).await.unwrap();
    let get = || world.client.get_secret_value().secret_id("app");
    for (call, id, value) in [
        (get(), A, "one"),
        (get().version_stage("AWSCURRENT"), A, "one"),
        (get().version_id(B), B, "two"),
        (get().version_id(B).version_stage("AWSPENDING"), B, "two"),
        (world.client.get_secret_value().secret_id(&world.arn), A, "one"),
    ] {
        let got = call.send().await.unwrap();
        assert_eq!((got.version_id(), got.secret_string()), (Some(id), Some(value)));
        assert_eq!(got.arn(), Some(world.arn.as_str()));
    }
    let mismatch = get().version_id(A).version_stage("AWSPENDING").send().await;
    assert_refused(&mismatch, "InvalidRequestException", "not associated");
    assert_refused(&get().version_id(C).send().await, "ResourceNotFoundException", C);

    world.client.create_secret().name("key").secret_binary(Blob::new([0, 255, 7])).send().await.unwrap();
    let got = world.client.get_secret_value().secret_id("key").send().await.unwrap();
    assert_eq!(got.secret_binary().unwrap().as_ref(), [0, 255, 7]);
    assert_eq!(got.secret_string(), None);
}

#[tokio::test]
async fn a_version_never_changes_its_value() {
    let world = World::with_secret().await;
    let put = world.put(B, "two", &["AWSPENDING"]).await.unwrap();
    assert_eq!((put.version_id(), put.version_stages()), (Some(B), &["AWSPENDING".to_owned()][..]));
    world.put(B, "two", &["AWSPENDING"]).await.unwrap();
    let other = world.put(B, "three", &["AWSPENDING"]).await;
    assert_refused(&other, "ResourceExistsException", "different value");
    assert_eq!(world.value("AWSPENDING").await, "two");
    let short = world.put("short", "two", &[]).await;
    assert_refused(&short, "InvalidParameterException", "ClientRequestToken");
    let large = world.put(C, &"x".repeat(65_537), &[]).await;
    assert_refused(&large, "InvalidParameterException", "65536");
    // Without labels the new version is the current one.
    world.put(C, "three", &[]).await.unwrap();
    assert_eq!((world.value("AWSCURRENT").await, world.value("AWSPREVIOUS").await), ("three".into(), "one".into()));
}

#[tokio::test]
async fn a_label_moves_only_from_where_it_is() {
    let world = World::with_secret().await;
    world.put(B, "two", &["AWSPENDING"]).await.unwrap();
    let update = || world.client.update_secret_version_stage().secret_id("app").version_stage("AWSCURRENT");
    for (call, code) in [
        (update().move_to_version_id(B), "InvalidParameterException"),
        (update().move_to_version_id(B).remove_from_version_id(B), "InvalidParameterException"),
        (update().move_to_version_id(C).remove_from_version_id(A), "ResourceNotFoundException"),
        (update().remove_from_version_id(A), "InvalidParameterException"),
    ] {
        assert_refused(&call.send().await, code, "");
        assert_eq!(world.value("AWSCURRENT").await, "one");
    }
    update().move_to_version_id(B).remove_from_version_id(A).send().await.unwrap();
    assert_eq!(world.stages().await, [(A, "AWSPREVIOUS"), (B, "AWSCURRENT AWSPENDING")].map(owned).into());
    let pending = world.client.update_secret_version_stage().secret_id("app").version_stage("AWSPENDING");
    pending.remove_from_version_id(B).send().await.unwrap();
    assert_eq!(world.stages().await, [(A, "AWSPREVIOUS"), (B, "AWSCURRENT")].map(owned).into());
}

#[tokio::test]
async fn versions_without_label_are_listed_only_on_request() {
    let world = World::with_secret().await;
    world.put(B, "two", &[]).await.unwrap();
    world.put(C, "three", &[]).await.unwrap();
    let list = || world.client.list_secret_version_ids().secret_id("app");
    let listed = list().send().await.unwrap();
    assert_eq!(listed.versions().iter().filter_map(|it| it.version_id()).collect::<Vec<_>>(), [B, C]);

    let mut ids = Vec::new();
    let mut dates = Vec::new();
    let mut token = None;
    loop {
        let page = list().include_deprecated(true).max_results(2).set_next_token(token).send().await.unwrap();
        assert!(page.versions().len() <= 2);
        ids.extend(page.versions().iter().map(|it| (it.version_id().unwrap().to_owned(), it.version_stages().len())));
        dates.extend(page.versions().iter().map(|it| it.created_date().unwrap().as_nanos()));
        token = page.next_token().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(ids, [(A, 0), (B, 1), (C, 1)].map(|(id, labels)| (id.to_owned(), labels)));
    assert!(dates.is_sorted_by(|earlier, later| earlier < later), "{dates:?}");
    // However fast they are made, later versions have later dates.
    let service = world.emulator.service();
    for number in 0..99 {
        service.put("app", &format!("{number:032}"), Payload::Text("x".to_owned()), &[]).unwrap();
    }
    let all = service.inspect("app", |record| record.versions.iter().map(|it| it.created).collect::<Vec<_>>()).unwrap();
    assert!(all.is_sorted_by(|earlier, later| earlier < later), "{all:?}");
    assert_refused(&list().max_results(0).send().await, "InvalidParameterException", "MaxResults");
    assert_refused(&list().next_token("x").send().await, "InvalidNextTokenException", "");
}

#[tokio::test]
async fn secrets_are_listed_tagged_and_deleted() {
    let world = World::with_secret().await;
    let client = &world.client;
    client.create_secret().name("empty").send().await.unwrap();
    client.tag_resource().secret_id("app").tags(tag("keywheel:kind", "random")).send().await.unwrap();
    client.untag_resource().secret_id("app").tag_keys("team").send().await.unwrap();
    let first = client.list_secrets().max_results(1).send().await.unwrap();
    assert_eq!(first.secret_list()[0].tags(), [tag("keywheel:kind", "random")]);
    assert_eq!(first.secret_list()[0].secret_versions_to_stages().unwrap()[A], ["AWSCURRENT"]);
    let second = client.list_secrets().set_next_token(first.next_token).send().await.unwrap();
    assert_eq!(second.secret_list().iter().map(|it| it.name().unwrap()).collect::<Vec<_>>(), ["empty"]);

    client.delete_secret().secret_id("app").recovery_window_in_days(7).send().await.unwrap();
    let waiting = client.get_secret_value().secret_id("app").send().await;
    assert_refused(&waiting, "InvalidRequestException", "marked for deletion");
    assert!(client.describe_secret().secret_id("app").send().await.unwrap().deleted_date().is_some());
    assert_eq!(client.list_secrets().send().await.unwrap().secret_list().len(), 1);
    for _ in 0..2 {
        client.delete_secret().secret_id("app").force_delete_without_recovery(true).send().await.unwrap();
    }
    assert_refused(&client.describe_secret().secret_id("app").send().await, "ResourceNotFoundException", "");
    assert_refused(&client.delete_secret().secret_id("app").send().await, "ResourceNotFoundException", "");
}

// --- Requests that are wrong -----------------------------------------------------------------------------------------

#[tokio::test]
async fn wrong_requests_are_refused_by_name() {
    let world = World::with_secret().await;
    for (operation, body, code, named) in [
        ("RestoreSecret", json!({}), "UnknownOperationException", "RestoreSecret"),
        ("DescribeSecret", json!({}), "ValidationException", "secretId"),
        ("DescribeSecret", json!({"SecretId": ""}), "ValidationException", "secretId"),
        ("DescribeSecret", json!({"SecretId": 7}), "ValidationException", "secretId"),
        ("UpdateSecretVersionStage", json!({"SecretId": "app"}), "ValidationException", "versionStage"),
        ("CreateSecret", json!({"Name": "a b"}), "ValidationException", "Invalid name"),
        ("CreateSecret", json!({"Name": "b", "KmsKeyId": "k"}), "InvalidParameterException", "KmsKeyId"),
        ("CreateSecret", json!({"Name": "b", "SecretString": "", }), "InvalidParameterException", "empty"),
        (
            "CreateSecret",
            json!({"Name": "b", "SecretString": "x", "SecretBinary": "eA=="}),
            "InvalidParameterException",
            "both",
        ),
        ("CreateSecret", json!({"Name": "b", "SecretBinary": "?"}), "ValidationException", "secretBinary"),
        ("CreateSecret", json!({"Name": "b", "Tags": [{"Key": "k"}]}), "ValidationException", "tags"),
        ("PutSecretValue", json!({"SecretId": "app"}), "InvalidRequestException", "SecretString"),
        (
            "PutSecretValue",
            json!({"SecretId": "app", "SecretString": "x", "RotationToken": "r"}),
            "InvalidParameterException",
            "RotationToken",
        ),
        (
            "ListSecretVersionIds",
            json!({"SecretId": "app", "IncludeDeprecated": "yes"}),
            "ValidationException",
            "includeDeprecated",
        ),
        ("ListSecrets", json!({"Filters": []}), "InvalidParameterException", "Filters"),
        (
            "DeleteSecret",
            json!({"SecretId": "app", "RecoveryWindowInDays": 3}),
            "InvalidParameterException",
            "RecoveryWindowInDays",
        ),
        ("RotateSecret", json!({"SecretId": "app", "RotationLambdaARN": FUNCTION}), "InvalidRequestException", "URL"),
    ] {
        let (status, answer) =
            world.post(&[("X-Amz-Target", &format!("secretsmanager.{operation}"))], &body.to_string()).await;
        let message = answer["message"].as_str().or(answer["Message"].as_str()).unwrap_or_default();
        assert_eq!((status, answer["__type"].as_str()), (400, Some(code)), "{operation} {body}");
        assert!(message.contains(named), "{operation} {body}: {message}");
    }
    let described = [("X-Amz-Target", "secretsmanager.DescribeSecret")];
    assert_eq!(world.post(&described, "{").await.1["__type"], "SerializationException");
    assert_eq!(world.post(&[], "{}").await.1["__type"], "UnknownOperationException");
}

#[tokio::test]
async fn rotation_rules_are_checked() {
    let world = World::with_function(|_, _| None).await;
    let rotate = |rules: Value| {
        let body =
            json!({"SecretId": "app", "ClientRequestToken": B, "RotationLambdaARN": FUNCTION, "RotationRules": rules});
        let world = &world;
        async move { world.post(&[("X-Amz-Target", "secretsmanager.RotateSecret")], &body.to_string()).await }
    };
    for wrong in [
        json!({}),
        json!({"AutomaticallyAfterDays": 0}),
        json!({"AutomaticallyAfterDays": 1001}),
        json!({"AutomaticallyAfterDays": 1, "ScheduleExpression": "rate(1 day)"}),
        json!({"ScheduleExpression": "rate(3 hours)"}),
        json!({"ScheduleExpression": "cron(5 8 * * ? *)"}),
        json!({"ScheduleExpression": "cron(0 8 * * ?)"}),
        json!({"ScheduleExpression": "daily"}),
        json!({"ScheduleExpression": "rate(1 day)", "Duration": "3"}),
    ] {
        assert_eq!(rotate(wrong.clone()).await.1["__type"], "InvalidParameterException", "{wrong}");
    }
    let rules = json!({"ScheduleExpression": "cron(0 8 1 * ? *)", "Duration": "3h"});
    assert_eq!(rotate(rules).await.0, 200);
    world.ended(B).await;
    let rules = world.client.describe_secret().secret_id("app").send().await.unwrap().rotation_rules.unwrap();
    assert_eq!((rules.schedule_expression(), rules.duration()), (Some("cron(0 8 1 * ? *)"), Some("3h")));
}

#[tokio::test]
async fn http_is_served_in_chunks_and_on_one_connection() {
    let world = World::with_secret().await;
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: secretsmanager.DescribeSecret\r\nTransfer-Encoding: chunked\r\n\r\n";
    for _ in 0..2 {
        stream
            .write_all(format!("{head}8\r\n{{\"Secret\r\nb\r\nId\": \"app\"}}\r\n0\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut got = vec![0; 4096];
        let read = within(stream.read(&mut got)).await.unwrap();
        assert!(got[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&got[..read]));
    }
}

#[tokio::test]
async fn a_token_is_made_up_when_none_is_given() {
    let world = World::with_secret().await;
    let mut made = Vec::new();
    for _ in 0..2 {
        let body = json!({"SecretId": "app", "SecretString": "x"}).to_string();
        let (_, answer) = world.post(&[("X-Amz-Target", "secretsmanager.PutSecretValue")], &body).await;
        made.push(answer["VersionId"].as_str().unwrap().to_owned());
    }
    assert_eq!(made[0].split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert_ne!(made[0], made[1]);
}

#[tokio::test]
async fn https_is_served_with_the_given_certificate() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![certificate.cert.der().clone()], key).unwrap();
    let emulator = Emulator::start(Options { tls: Some(Arc::new(tls)), ..Options::default() }).await.unwrap();
    emulator.service().create("app", A, None).unwrap();

    let trust = TrustStore::empty().with_pem_certificate(certificate.cert.pem());
    let trust = TlsContext::builder().with_trust_store(trust).build().unwrap();
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let url = emulator.url().replace("127.0.0.1", "localhost");
    let client = client(&url, http.tls_context(trust).build_https(), 1);
    assert_eq!(within(client.describe_secret().secret_id("app").send()).await.unwrap().name(), Some("app"));
}

// --- Rotation --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_rotation_runs_the_four_steps() {
    let world = World::with_function(|_, _| None).await;
    let begun = world.rotate(B).send().await.unwrap();
    assert_eq!((begun.version_id(), begun.arn()), (Some(B), Some(world.arn.as_str())));
    let rotation = world.ended(B).await;
    assert_eq!((rotation.state, rotation.attempts), (State::Succeeded, 1));
    assert_eq!(steps(&rotation), ["1 createSecret", "1 setSecret", "1 testSecret", "1 finishSecret"]);
    assert_eq!(world.stages().await, [(A, "AWSPREVIOUS"), (B, "AWSCURRENT AWSPENDING")].map(owned).into());

    let events = world.events();
    let (path, event) = &events[0];
    assert_eq!(path, "/2015-03-31/functions/wheel/invocations");
    assert_eq!((&event["SecretId"], &event["ClientRequestToken"]), (&json!(world.arn), &json!(B)));
    assert_eq!(event["RotationToken"].as_str().map(str::len), Some(36));
    assert!(events.iter().all(|(_, it)| it["RotationToken"] == event["RotationToken"]), "one token per rotation");

    let calls: Vec<_> = world.emulator.calls().into_iter().filter(|call| call.step.is_some()).collect();
    let seen: Vec<_> =
        calls.iter().map(|call| (call.operation.as_str(), call.step.unwrap(), call.rotation_token)).collect();
    assert_eq!(
        seen,
        [
            ("PutSecretValue", Step::Create, true),
            ("DescribeSecret", Step::Set, false),
            ("GetSecretValue", Step::Test, false),
            ("DescribeSecret", Step::Finish, false),
            ("UpdateSecretVersionStage", Step::Finish, false),
        ]
    );
    assert_eq!((calls[0].version.as_deref(), calls[0].stage.as_deref()), (Some(B), Some("AWSPENDING")));
    assert_eq!((calls[2].version.as_deref(), calls[2].stage.as_deref()), (Some(B), Some("AWSPENDING")));
    assert!(calls.iter().all(|call| call.outcome.as_deref() == Some("ok")));
    assert!(calls.is_sorted_by_key(|call| call.at));

    let described = world.client.describe_secret().secret_id("app").send().await.unwrap();
    assert_eq!((described.rotation_enabled(), described.rotation_lambda_arn()), (Some(true), Some(FUNCTION)));
    assert_eq!(described.rotation_rules().unwrap().automatically_after_days(), Some(30));
    assert!(described.last_rotated_date().is_some());

    // The settings are kept, and the label on the current version does not block the next rotation.
    world.client.rotate_secret().secret_id("app").client_request_token(C).send().await.unwrap();
    assert_eq!(world.ended(C).await.state, State::Succeeded);
    assert_eq!(world.stages().await, [(B, "AWSPREVIOUS"), (C, "AWSCURRENT AWSPENDING")].map(owned).into());
    // The same call again finds it done.
    world.client.rotate_secret().secret_id("app").client_request_token(C).send().await.unwrap();
    assert_eq!(world.emulator.rotations().last().unwrap().attempts, 1);
}

#[tokio::test]
async fn a_failed_step_begins_the_rotation_again() {
    // In every way in which a function can say that it failed.
    for failure in [Failure::Status, Failure::Header, Failure::Body, Failure::Missing] {
        let world = World::with_function(move |nth, step| (nth == 2 && step == "testSecret").then_some(failure)).await;
        world.rotate(B).send().await.unwrap();
        let rotation = world.ended(B).await;
        assert_eq!((rotation.state, rotation.attempts), (State::Succeeded, 2), "{failure:?}");
        let failed = match failure {
            Failure::Header => "Unhandled: null",
            Failure::Missing => "Emulator.Status404: no such function",
            _ => "Rotation.Transient: try again",
        };
        let failed = format!("1 testSecret {failed}");
        let expected = [
            "1 createSecret",
            "1 setSecret",
            &failed,
            "2 createSecret",
            "2 setSecret",
            "2 testSecret",
            "2 finishSecret",
        ];
        assert_eq!(steps(&rotation), expected, "{failure:?}");
        assert_eq!(world.value("AWSCURRENT").await, "new");
    }
}

#[tokio::test]
async fn a_rotation_that_fails_is_begun_again_by_the_next_one() {
    let repaired = Arc::new(AtomicUsize::new(0));
    let failing = repaired.clone();
    let world = World::with_function(move |_, step| {
        (step == "setSecret" && failing.load(Ordering::SeqCst) == 0).then_some(Failure::Status)
    })
    .await;
    world.rotate(B).send().await.unwrap();
    let rotation = world.ended(B).await;
    assert_eq!((rotation.state, rotation.attempts, rotation.steps.len()), (State::Failed, 3, 6));
    assert_eq!(world.stages().await, [(A, "AWSCURRENT"), (B, "AWSPENDING")].map(owned).into());

    repaired.store(1, Ordering::SeqCst);
    let refused = world.rotate(C).rotation_rules(RotationRulesType::builder().automatically_after_days(9).build());
    let refused = refused.send().await;
    assert_refused(
        &refused,
        "InvalidRequestException",
        "A previous rotation isn't complete. That rotation will be reattempted.",
    );
    let rotation = world.ended(B).await;
    assert_eq!((rotation.state, rotation.attempts), (State::Succeeded, 4));
    assert_eq!(world.stages().await, [(A, "AWSPREVIOUS"), (B, "AWSCURRENT AWSPENDING")].map(owned).into());
    let rules = world.client.describe_secret().secret_id("app").send().await.unwrap().rotation_rules.unwrap();
    assert_eq!(rules.automatically_after_days(), Some(30), "a refused call changes no settings");
}

#[tokio::test]
async fn without_rotating_immediately_only_the_test_runs() {
    let world = World::with_function(|_, _| None).await;
    world.rotate(B).rotate_immediately(false).send().await.unwrap();
    let rotation = world.ended(B).await;
    assert_eq!((rotation.state, steps(&rotation)), (State::Succeeded, vec!["1 testSecret".to_owned()]));
    let tested = world.emulator.calls().into_iter().find(|call| call.step == Some(Step::Test)).unwrap();
    assert_eq!((tested.operation.as_str(), tested.outcome.as_deref()), ("GetSecretValue", Some("ok")));
    assert_eq!(*world.tested.lock().unwrap(), ["one"], "the pending version carries the current value");
    assert_eq!(world.stages().await, [(A, "AWSCURRENT")].map(owned).into());
    let described = world.client.describe_secret().secret_id("app").send().await.unwrap();
    assert_eq!((described.rotation_enabled(), described.last_rotated_date()), (Some(true), None));
}

#[tokio::test]
async fn a_rotation_ends_when_it_is_cancelled_or_abandoned() {
    for cancel in [true, false] {
        let world = World::with_secret().await.acting(move |client, _, event| async move {
            if event["Step"] == "setSecret" && cancel {
                client.cancel_rotate_secret().secret_id("app").send().await.unwrap();
            } else if event["Step"] == "setSecret" {
                client.put_secret_value().secret_id("app").secret_string("edited").send().await.unwrap();
            }
            None
        });
        let world = world.await;
        world.rotate(B).send().await.unwrap();
        let rotation = world.ended(B).await;
        assert_eq!((rotation.state, steps(&rotation).len()), (State::Abandoned, 2), "cancel: {cancel}");
        let current = if cancel { "one" } else { "edited" };
        assert_eq!(world.value("AWSCURRENT").await, current);
        let pending = world.stages().await.values().any(|labels| labels == "AWSPENDING");
        assert_eq!(pending, cancel, "cancelling leaves the label, abandoning takes it away");
    }
}

#[tokio::test]
async fn a_call_belongs_to_the_step_of_its_secret() {
    // Two rotations meet in different steps; each then asks for its own secret and for a third.
    let meeting = Arc::new(tokio::sync::Barrier::new(2));
    let world = World::with_secret().await.acting(move |client, _, event| {
        let meeting = meeting.clone();
        async move {
            let describe = |secret: &str| client.describe_secret().secret_id(secret).send();
            let secret = event["SecretId"].as_str().unwrap();
            let name = secret.rsplit(':').next().unwrap();
            match (name.split('-').next().unwrap(), event["Step"].as_str().unwrap()) {
                ("app", "createSecret") | ("db", "setSecret") => {
                    meeting.wait().await;
                    describe(secret).await.unwrap();
                    describe("admin").await.unwrap();
                    meeting.wait().await;
                }
                ("admin", "testSecret") => drop(describe("app").await.unwrap()),
                _ => {}
            }
            None
        }
    });
    let world = world.await;
    for other in ["db", "admin"] {
        let create = world.client.create_secret().name(other).client_request_token(A).secret_string("x");
        within(create.send()).await.unwrap();
    }
    let steps_of = |secret: &str| {
        let calls = world.emulator.calls().into_iter().filter(|call| call.operation == "DescribeSecret");
        calls.filter(|call| call.secret.as_deref().unwrap().contains(secret)).map(|call| call.step).collect::<Vec<_>>()
    };
    world.rotate(B).send().await.unwrap();
    world.rotate(B).secret_id("db").send().await.unwrap();
    world.ended(B).await;
    within(world.emulator.rotation_ended("db", B)).await;
    assert_eq!(steps_of("app"), [Some(Step::Create)]);
    assert_eq!(steps_of("db"), [Some(Step::Set)]);
    assert_eq!(steps_of("admin"), [None, None]);
    // With one rotation under way, every call is taken as its own: a function may read other secrets too.
    world.rotate(B).secret_id("admin").send().await.unwrap();
    within(world.emulator.rotation_ended("admin", B)).await;
    assert_eq!(steps_of("app").last(), Some(&Some(Step::Test)));
}

#[tokio::test]
async fn a_function_that_is_not_there_fails_the_rotation() {
    let world = World::with_secret().await;
    let refused = world.client.rotate_secret().secret_id("app").send().await;
    assert_refused(&refused, "InvalidRequestException", "URL");
    world.emulator.set_function("http://127.0.0.1:1", Some("_"));
    let refused = world.client.rotate_secret().secret_id("app").send().await;
    assert_refused(&refused, "InvalidRequestException", "No Lambda rotation function ARN");
    world.rotate(B).send().await.unwrap();
    let rotation = world.ended(B).await;
    let error = rotation.steps[0].error.as_ref().unwrap();
    assert_eq!((rotation.state, error.error_type.as_str()), (State::Failed, "Emulator.Invoke"));
    assert!(error.error_message.contains("/functions/_/invocations"), "{}", error.error_message);
}

// --- Faults ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn errors_and_throttling_strike_the_call_that_they_are_for() {
    let world = World::with_secret().await;
    let describe = || world.client.describe_secret().secret_id("app").send();
    let outage = Effect::Error { status: 500, code: "InternalServiceError".to_owned(), message: "outage".to_owned() };
    world.emulator.inject(Fault::new("DescribeSecret", 2, outage).times(2));
    world.emulator.inject(Fault::any(5, Effect::throttle()));
    assert!(describe().await.is_ok());
    assert_refused(&describe().await, "InternalServiceError", "outage");
    assert_eq!(world.value("AWSCURRENT").await, "one", "another operation is spared");
    let third = describe().await;
    assert_eq!(third.as_ref().unwrap_err().raw_response().unwrap().status().as_u16(), 500);
    assert_refused(&describe().await, "ThrottlingException", "Rate exceeded");
    assert!(describe().await.is_ok());

    world.emulator.inject(Fault::any(1, Effect::throttle()));
    world.emulator.clear_faults();
    assert!(describe().await.is_ok());
    // The SDK tries again by itself.
    world.emulator.forget_calls();
    world.emulator.inject(Fault::any(1, Effect::throttle()).times(2));
    let patient = client(world.emulator.url(), aws_smithy_http_client::Builder::new().build_http(), 3);
    assert!(within(patient.describe_secret().secret_id("app").send()).await.is_ok());
    let outcomes: Vec<_> = world.emulator.calls().into_iter().map(|call| call.outcome.unwrap()).collect();
    assert_eq!(outcomes, ["ThrottlingException", "ThrottlingException", "ok"]);
}

#[tokio::test]
async fn a_lost_request_has_no_effect_and_a_lost_response_has() {
    let world = World::with_secret().await;
    world.emulator.inject(Fault::new("PutSecretValue", 1, Effect::LostRequest));
    let lost = world.put(B, "two", &["AWSPENDING"]).await.unwrap_err();
    assert!(matches!(lost, SdkError::DispatchFailure(_)), "{lost:?}");
    assert_eq!(world.stages().await.len(), 1);
    world.emulator.inject(Fault::new("PutSecretValue", 1, Effect::LostResponse));
    let lost = world.put(B, "two", &["AWSPENDING"]).await.unwrap_err();
    assert!(matches!(lost, SdkError::DispatchFailure(_)), "{lost:?}");
    assert_eq!(world.value("AWSPENDING").await, "two");
    let puts: Vec<_> = world.emulator.calls().into_iter().filter(|call| call.operation == "PutSecretValue").collect();
    let outcomes: Vec<_> = puts.iter().map(|call| call.outcome.as_deref().unwrap()).collect();
    assert_eq!(outcomes, ["lost request", "ok, lost response"]);
}

#[tokio::test]
async fn latency_delays_the_answer_and_not_the_effect() {
    let world = World::with_secret().await;
    world.emulator.inject(Fault::new("PutSecretValue", 1, Effect::Latency(Duration::from_millis(300))));
    let begun = Instant::now();
    world.put(B, "two", &["AWSPENDING"]).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    world.emulator.inject(Fault::new("PutSecretValue", 1, Effect::Latency(Duration::from_mins(10))));
    let waits = TimeoutConfig::builder().operation_timeout(Duration::from_millis(500)).build();
    let hasty =
        world.client.put_secret_value().secret_id("app").client_request_token(C).secret_string("three").customize();
    let hasty = hasty.config_override(aws_sdk_secretsmanager::config::Builder::new().timeout_config(waits));
    assert!(matches!(within(hasty.send()).await.unwrap_err(), SdkError::TimeoutError(_)));
    assert_eq!(world.value("AWSCURRENT").await, "three");
}

#[tokio::test]
async fn a_crash_kills_after_the_effect() {
    let world = World::with_secret().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (service, list) = (world.emulator.service().clone(), seen.clone());
    let callback = move || list.lock().unwrap().push(service.inspect("app", |it| it.version(B).is_some()).unwrap());
    world.emulator.inject(Fault::new("PutSecretValue", 1, Effect::Crash(Victim::Callback(Arc::new(callback)))));
    assert!(world.put(B, "two", &["AWSPENDING"]).await.is_err());
    assert_eq!(*seen.lock().unwrap(), [true]);

    let mut victim = Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
    let fault = json!({"operation": "DescribeSecret", "fault": "crash", "pid": victim.id().unwrap()});
    assert_eq!(world.control("POST", "faults", &fault.to_string()).await.0, 200);
    assert!(world.client.describe_secret().secret_id("app").send().await.is_err());
    let status = within(victim.wait()).await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

// --- Over HTTP -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn faults_calls_and_rotations_are_reached_over_http() {
    let world = World::with_function(|nth, _| (nth == 0).then_some(Failure::Status)).await;
    for (fault, code, status) in [
        (json!({"fault": "error", "operation": "DescribeSecret"}), "InternalServiceError", 500),
        (json!({"fault": "error", "code": "AccessDeniedException", "message": "no"}), "AccessDeniedException", 400),
        (json!({"fault": "throttle"}), "ThrottlingException", 400),
    ] {
        assert_eq!(world.control("POST", "faults", &fault.to_string()).await.0, 200, "{fault}");
        let struck = world.client.describe_secret().secret_id("app").send().await;
        assert_refused(&struck, code, "");
        assert_eq!(struck.unwrap_err().raw_response().unwrap().status().as_u16(), status);
    }
    for lost in ["lost-response", "lost-request", "crash"] {
        world.control("POST", "faults", &json!({"fault": lost, "nth": 1}).to_string()).await;
        assert!(world.client.describe_secret().secret_id("app").send().await.is_err(), "{lost}");
    }
    for wrong in
        ["{", "7", "{}", r#"{"fault":"latency"}"#, r#"{"fault":"throttle","nth":0}"#, r#"{"fault":"throttle","at":1}"#]
    {
        assert_eq!(world.control("POST", "faults", wrong).await.0, 400, "{wrong}");
    }
    world.control("POST", "faults", &json!({"fault": "throttle"}).to_string()).await;
    world.control("DELETE", "faults", "").await;
    world.control("DELETE", "calls", "").await;
    world.client.describe_secret().secret_id("app").send().await.unwrap();
    let (_, calls) = world.control("GET", "calls", "").await;
    assert_eq!(calls.as_array().unwrap().len(), 1);
    assert_eq!((&calls[0]["operation"], &calls[0]["secret"]), (&json!("DescribeSecret"), &json!("app")));
    assert_eq!((&calls[0]["step"], &calls[0]["outcome"]), (&Value::Null, &json!("ok")));

    world.rotate(B).send().await.unwrap();
    world.ended(B).await;
    let (_, rotations) = world.control("GET", "rotations", "").await;
    let rotation = &rotations[0];
    assert_eq!(
        (&rotation["token"], &rotation["state"], &rotation["attempts"]),
        (&json!(B), &json!("succeeded"), &json!(2))
    );
    let first = &rotation["steps"][0];
    assert_eq!((&first["attempt"], &first["step"]), (&json!(1), &json!("createSecret")));
    assert_eq!(first["error"], json!({"errorType": "Rotation.Transient", "errorMessage": "try again"}));
    assert!(first["ms"].as_f64().unwrap() > 0.0);
    assert_eq!(world.control("GET", "else", "").await.0, 404);
}

#[tokio::test]
async fn a_rotation_is_begun_by_hand_without_a_function() {
    let world = World::with_secret().await;
    let body = json!({"SecretId": "app", "ClientRequestToken": B}).to_string();
    assert_eq!(world.control("POST", "begin-rotation", &body).await, (200, json!({"VersionId": B})));
    assert_eq!(world.stages().await, [(A, "AWSCURRENT"), (B, "AWSPENDING")].map(owned).into());
    let described = world.client.describe_secret().secret_id("app").send().await.unwrap();
    assert_eq!(described.rotation_enabled(), Some(true));
    let empty = world.client.get_secret_value().secret_id("app").version_id(B).version_stage("AWSPENDING").send().await;
    assert_refused(&empty, "ResourceNotFoundException", "");
    let body = json!({"SecretId": "app", "ClientRequestToken": C}).to_string();
    let (status, answer) = world.control("POST", "begin-rotation", &body).await;
    assert_eq!(status, 400);
    assert!(answer["message"].as_str().unwrap().starts_with("InvalidRequestException"));
}

#[tokio::test]
async fn it_stops_when_it_is_dropped() {
    let world = World::with_secret().await;
    let address = world.address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    drop(world);
    let read = within(stream.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "open connections end");
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within(refused).await;
}

// --- The program and the AWS CLI -------------------------------------------------------------------------------------

#[tokio::test]
async fn the_program_prints_its_url_logs_no_values_and_ends_on_sigterm() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_emulator"));
    program.arg("--log").stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut program = program.spawn().unwrap();
    let mut url = String::new();
    within(BufReader::new(program.stdout.take().unwrap()).read_line(&mut url)).await.unwrap();
    let client = client(url.trim(), aws_smithy_http_client::Builder::new().build_http(), 1);
    within(client.create_secret().name("app").client_request_token(A).secret_string("hush").send()).await.unwrap();
    let missing = within(client.get_secret_value().secret_id("app").version_stage("AWSPENDING").send()).await;
    assert_refused(&missing, "ResourceNotFoundException", "");
    Command::new("sh").arg("-c").arg(format!("kill -TERM {}", program.id().unwrap())).status().await.unwrap();
    let ended = within(program.wait_with_output()).await.unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let log = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(log, format!("CreateSecret app {A}: ok\nGetSecretValue app AWSPENDING: ResourceNotFoundException\n"));

    for (arguments, said) in [
        (&["--port", "1"][..], "unknown argument \"--port\""),
        (&["--listen"], "--listen needs a value"),
        (&["--listen", "here"], "--listen \"here\""),
        (&["--function-name", "_"], "--function-name needs --function-url"),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_emulator")).args(arguments).output().await.unwrap();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains(said), "{arguments:?}");
    }
}

#[tokio::test]
async fn the_aws_cli_works_unchanged() {
    let world = World::with_function(|_, _| None).await;
    let created = world.cli(&["create-secret", "--name", "cli/db", "--secret-string", "one"]).await.unwrap();
    assert_eq!(created["Name"], "cli/db");
    let described = world.cli(&["describe-secret", "--secret-id", "cli/db"]).await.unwrap();
    assert_eq!(described["VersionIdsToStages"][created["VersionId"].as_str().unwrap()], json!(["AWSCURRENT"]));
    assert!((1.7e9..1e11).contains(&described["CreatedDate"].as_f64().unwrap()), "seconds since 1970: {described}");
    let put = ["put-secret-value", "--secret-id", "cli/db", "--secret-string", "two", "--version-stages", "MINE"];
    assert_eq!(world.cli(&put).await.unwrap()["VersionStages"], json!(["MINE"]));
    let got = world.cli(&["get-secret-value", "--secret-id", "cli/db", "--version-stage", "MINE"]).await.unwrap();
    assert_eq!(got["SecretString"], "two");

    let rules = "AutomaticallyAfterDays=30";
    let rotate =
        ["rotate-secret", "--secret-id", "cli/db", "--rotation-lambda-arn", FUNCTION, "--rotation-rules", rules];
    let rotated = world.cli(&rotate).await.unwrap();
    let token = rotated["VersionId"].as_str().unwrap();
    assert_eq!(within(world.emulator.rotation_ended("cli/db", token)).await.state, State::Succeeded);
    let listed =
        world.cli(&["list-secret-version-ids", "--secret-id", "cli/db", "--include-deprecated"]).await.unwrap();
    assert_eq!(listed["Versions"].as_array().unwrap().len(), 3);
    let arn = created["ARN"].as_str().unwrap();
    let deleted = world.cli(&["delete-secret", "--secret-id", arn, "--force-delete-without-recovery"]).await.unwrap();
    assert_eq!(deleted["ARN"], arn);
    let missing = world.cli(&["get-secret-value", "--secret-id", "cli/db"]).await.unwrap_err();
    let said = "An error occurred (ResourceNotFoundException) when calling the GetSecretValue operation: \
                Secrets Manager can't find the specified secret.";
    assert!(missing.contains(said), "{missing}");
}

// --- Support ---------------------------------------------------------------------------------------------------------

/// An emulator with the secret `app`, whose version A holds "one".
struct World {
    emulator: Emulator,
    client: Client,
    arn: String,
    events: Events,
    /// What the function found in testSecret.
    tested: Arc<Mutex<Vec<String>>>,
}

impl World {
    async fn with_secret() -> Self {
        let options = Options { pause: Duration::from_millis(10), ..Options::default() };
        let emulator = Emulator::start(options).await.unwrap();
        let client = client(emulator.url(), aws_smithy_http_client::Builder::new().build_http(), 1);
        let create = client.create_secret().name("app").client_request_token(A).secret_string("one");
        let created = within(create.description("for tests").tags(tag("team", "ai")).send()).await.unwrap();
        assert_eq!(created.version_id(), Some(A));
        let arn = created.arn.unwrap();
        Self { emulator, client, arn, events: Events::default(), tested: Arc::default() }
    }

    /// With a function that rotates, unless `fail` wants its invocation with this number (from 0) to fail.
    async fn with_function(fail: impl Fn(usize, &str) -> Option<Failure> + Send + Sync + 'static) -> Self {
        let world = Self::with_secret().await;
        let tested = world.tested.clone();
        let act = move |client: Client, nth, event: Value| {
            let failure = fail(nth, event["Step"].as_str().unwrap());
            let tested = tested.clone();
            async move {
                if failure.is_none() {
                    rotate(&client, &event, &tested).await;
                }
                failure
            }
        };
        world.acting(act).await
    }

    /// With a function that does this in each invocation.
    async fn acting<F>(mut self, act: impl Fn(Client, usize, Value) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Failure>> + Send + 'static,
    {
        let function = Function::start(self.client.clone(), Arc::new(act)).await;
        self.emulator.set_function(&function.url, None);
        self.events = function.events;
        self
    }

    fn address(&self) -> SocketAddr {
        self.emulator.url().strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// The invocations of the function so far: path and event.
    fn events(&self) -> Vec<(String, Value)> {
        self.events.lock().unwrap().clone()
    }

    async fn put(
        &self,
        token: &str,
        value: &str,
        stages: &[&str],
    ) -> Result<PutSecretValueOutput, SdkError<PutSecretValueError>> {
        let call = self.client.put_secret_value().secret_id("app").client_request_token(token).secret_string(value);
        let stages = stages.iter().map(|&stage| stage.to_owned()).collect::<Vec<_>>();
        within(call.set_version_stages(Some(stages).filter(|it| !it.is_empty())).send()).await
    }

    async fn value(&self, stage: &str) -> String {
        let got = within(self.client.get_secret_value().secret_id("app").version_stage(stage).send()).await;
        got.unwrap().secret_string.unwrap()
    }

    /// The labels of each version, with spaces between.
    async fn stages(&self) -> BTreeMap<String, String> {
        let described = within(self.client.describe_secret().secret_id("app").send()).await.unwrap();
        let stages = described.version_ids_to_stages.unwrap();
        stages.into_iter().map(|(id, labels)| (id, labels.join(" "))).collect()
    }

    fn rotate(&self, token: &str) -> RotateSecretFluentBuilder {
        let rules = RotationRulesType::builder().automatically_after_days(30).build();
        let call = self.client.rotate_secret().secret_id("app").client_request_token(token);
        call.rotation_lambda_arn(FUNCTION).rotation_rules(rules)
    }

    async fn ended(&self, token: &str) -> Rotation {
        within(self.emulator.rotation_ended("app", token)).await
    }

    async fn post(&self, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        self.http("POST", "/", headers, body).await
    }

    async fn control(&self, method: &str, what: &str, body: &str) -> (u16, Value) {
        self.http(method, &format!("/_emulator/{what}"), &[], body).await
    }

    async fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer =
            within(sender.send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap())).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Runs `aws secretsmanager …`: what it prints, or what it says when it fails.
    async fn cli(&self, arguments: &[&str]) -> Result<Value, String> {
        let aws = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.venv/aws/bin/aws");
        assert!(aws.exists(), "the AWS CLI is not installed: run `make test`, which installs it");
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(aws);
        command.env_clear().env("HOME", home.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", "any")
            .env("AWS_DEFAULT_REGION", "us-east-1");
        command.args(["--endpoint-url", self.emulator.url(), "--output", "json", "secretsmanager"]).args(arguments);
        let ended = timeout(Duration::from_mins(1), command.kill_on_drop(true).output()).await.unwrap().unwrap();
        if !ended.status.success() {
            return Err(String::from_utf8(ended.stderr).unwrap());
        }
        Ok(serde_json::from_slice(&ended.stdout).unwrap())
    }
}

/// How a function says that it failed.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// As `cargo lambda watch` does.
    Status,
    /// By the header, as Lambda does.
    Header,
    /// By its answer alone.
    Body,
    /// Not at all: there is none of this name.
    Missing,
}

/// Something that serves Lambda's Invoke API.
struct Function {
    url: String,
    events: Events,
}

type Events = Arc<Mutex<Vec<(String, Value)>>>;

impl Function {
    async fn start<F>(client: Client, act: Arc<impl Fn(Client, usize, Value) -> F + Send + Sync + 'static>) -> Self
    where
        F: Future<Output = Option<Failure>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let events = Events::default();
        let noted = events.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (client, act, noted) = (client.clone(), act.clone(), noted.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (client, act, noted) = (client.clone(), act.clone(), noted.clone());
                    async move {
                        let path = request.uri().path().to_owned();
                        let event = request.into_body().collect().await?.to_bytes();
                        let event: Value = serde_json::from_slice(&event).unwrap();
                        let nth = {
                            let mut noted = noted.lock().unwrap();
                            noted.push((path, event.clone()));
                            noted.len() - 1
                        };
                        let failure = act(client, nth, event).await;
                        Ok::<_, hyper::Error>(answer(failure))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, events }
    }
}

fn answer(failure: Option<Failure>) -> Response<Full<Bytes>> {
    let error = r#"{"errorType": "Rotation.Transient", "errorMessage": "try again"}"#;
    let (response, body) = match failure {
        None => (Response::builder(), "null"),
        Some(Failure::Status) => (Response::builder().status(500), error),
        Some(Failure::Header) => (Response::builder().header("X-Amz-Function-Error", "Unhandled"), "null"),
        Some(Failure::Body) => (Response::builder(), error),
        Some(Failure::Missing) => (Response::builder().status(404), "no such function"),
    };
    response.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

/// What a rotation function does, in its shortest form.
async fn rotate(client: &Client, event: &Value, tested: &Mutex<Vec<String>>) {
    let [step, secret, token, rotation_token] =
        ["Step", "SecretId", "ClientRequestToken", "RotationToken"].map(|name| event[name].as_str().unwrap());
    match step {
        "createSecret" => {
            let put = client.put_secret_value().secret_id(secret).client_request_token(token).secret_string("new");
            put.version_stages("AWSPENDING").rotation_token(rotation_token).send().await.unwrap();
        }
        "setSecret" => {
            client.describe_secret().secret_id(secret).send().await.unwrap();
        }
        "testSecret" => {
            let get = client.get_secret_value().secret_id(secret).version_id(token).version_stage("AWSPENDING");
            let got = get.send().await.unwrap();
            tested.lock().unwrap().push(got.secret_string.unwrap());
        }
        "finishSecret" => {
            let current = client.describe_secret().secret_id(secret).send().await.unwrap();
            let mut stages = current.version_ids_to_stages.unwrap().into_iter();
            let (current, _) = stages.find(|(_, labels)| labels.iter().any(|it| it == "AWSCURRENT")).unwrap();
            let update = client.update_secret_version_stage().secret_id(secret).version_stage("AWSCURRENT");
            update.move_to_version_id(token).remove_from_version_id(current).send().await.unwrap();
        }
        other => panic!("a step {other}"),
    }
}

fn client(url: &str, http: SharedHttpClient, attempts: u32) -> Client {
    let config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("any", "any", None, None, "tests"))
        .endpoint_url(url)
        .http_client(http)
        .retry_config(
            RetryConfig::standard().with_max_attempts(attempts).with_initial_backoff(Duration::from_millis(1)),
        );
    Client::from_conf(config.build())
}

/// No wait is for ever.
async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("this takes too long")
}

fn assert_refused<T: std::fmt::Debug, E>(result: &Result<T, SdkError<E>>, code: &str, message: &str)
where
    SdkError<E>: ProvideErrorMetadata,
{
    let error = result.as_ref().expect_err("this must be refused");
    assert_eq!(error.code(), Some(code));
    assert!(error.message().unwrap_or_default().contains(message), "{:?}", error.message());
}

/// The steps of a rotation, each with its attempt and its error.
fn steps(rotation: &Rotation) -> Vec<String> {
    let error = |run: &StepRun| {
        let error = run.error.as_ref();
        error.map(|error| format!(" {}: {}", error.error_type, error.error_message)).unwrap_or_default()
    };
    rotation.steps.iter().map(|run| format!("{} {}{}", run.attempt, run.step, error(run))).collect()
}

fn owned((id, labels): (&str, &str)) -> (String, String) {
    (id.to_owned(), labels.to_owned())
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}
