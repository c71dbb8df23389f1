//! Where Redshift's databases are: provisioned clusters by moto, which looks at no signature; Serverless, which moto has not,
//! and what goes wrong, by a stand-in that gives one answer to each request. botocore says whether requests are well signed.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use keywheel::error::{Class, Code, Effect, Error};
use keywheel::http::Http;
use keywheel::services::aws::Aws;
use keywheel::services::{Endpoint, Managed, Services};
use keywheel_dev::moto::Moto;
use serde_json::{Value, json};

const CLUSTER: &str = "arn:aws:redshift:eu-central-1:123456789012:cluster:warehouse";
const NAMESPACE: &str = "arn:aws:redshift-serverless:eu-central-1:123456789012:namespace/0a1b";
const TRANSIENT: Class = Class::Transient(Effect::None);

/// The function's own Region is not that of the ARNs, which is the one that counts.
fn aws(url: &str) -> Aws {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret access key", Some("session".to_owned()), None, "static");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(url)
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    Aws::new(&config, None, Http::new(&keywheel::tls::Trust::default()).unwrap())
}

struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Gives one of `answers` (status and body) to each request, in turn, and hands out the requests at the end.
fn stand_in(answers: Vec<(u16, String)>) -> (String, JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let serve = |(status, answer): (u16, String)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim_end() {
                    "" => break,
                    line => lines.push(line.to_owned()),
                }
            }
            let headers: BTreeMap<_, _> = lines[1..]
                .iter()
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let mut body = vec![0; headers["content-length"].parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).unwrap();
            Request { line: lines[0].clone(), headers, body: String::from_utf8(body).unwrap() }
        };
        answers.into_iter().map(serve).collect()
    });
    (url, serving)
}

async fn asked(managed: Managed<'_>, answers: Vec<(u16, String)>) -> (Result<Endpoint, Error>, Vec<Request>) {
    let (url, serving) = stand_in(answers);
    let found = aws(&url).endpoint(managed).await;
    (found, serving.join().unwrap())
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (
        status,
        format!(
            "<ErrorResponse xmlns=\"urn:x\"><Error><Type>Sender</Type><Code>{code}</Code><Message>said so</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ),
    )
}

fn located(address: &str) -> (u16, String) {
    let endpoint = format!("<Endpoint><Address>{address}</Address><Port>5439</Port></Endpoint>");
    let cluster = format!("<Cluster><ClusterIdentifier>warehouse</ClusterIdentifier>{endpoint}</Cluster>");
    let result = format!("<DescribeClustersResult><Clusters>{cluster}</Clusters></DescribeClustersResult>");
    (
        200,
        format!(
            "<DescribeClustersResponse xmlns=\"http://redshift.amazonaws.com/doc/2012-12-01/\">{result}</DescribeClustersResponse>"
        ),
    )
}

#[tokio::test]
async fn a_cluster_is_found_by_its_arn_and_the_request_is_signed_as_botocore_signs_it() {
    let moto = Moto::start().await.unwrap();
    let name = moto.run("tests/moto/create_cluster.py", &[]).unwrap();
    let arn = format!("arn:aws:redshift:us-east-1:123456789012:cluster:{}", name.trim());
    let found = aws(moto.url()).endpoint(Managed::RedshiftCluster(&arn)).await.unwrap();
    assert!(found.host.starts_with("warehouse.") && found.port == 5440 && found.engine == "redshift", "{found:?}");
    let gone = arn.replace("warehouse", "another");
    let error = aws(moto.url()).endpoint(Managed::RedshiftCluster(&gone)).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::Request), "{error}");
    assert!(error.to_string().contains(&format!("DescribeClusters of {gone} fails with ClusterNotFound")), "{error}");

    let page = json!({"namespaces": [{"namespaceArn": NAMESPACE, "namespaceName": "one"}]}).to_string();
    let workgroups = json!({"workgroups": []}).to_string();
    let (_, of_cluster) = asked(Managed::RedshiftCluster(CLUSTER), vec![located("a")]).await;
    let (_, of_namespace) = asked(Managed::RedshiftNamespace(NAMESPACE), vec![(200, page), (200, workgroups)]).await;
    for (service, request) in [("redshift", &of_cluster[0]), ("redshift-serverless", &of_namespace[0])] {
        let Request { line, headers, body } = request;
        assert_eq!(line, "POST / HTTP/1.1");
        assert_eq!(headers["x-amz-security-token"], "session");
        let url = format!("http://{}/", headers["host"]);
        let request =
            json!({"service": service, "region": "eu-central-1", "url": url, "headers": headers, "body": body});
        let expected = moto.run("tests/moto/signature.py", &[&request.to_string()]).unwrap();
        assert_eq!(headers["authorization"], expected.trim());
        for signed in ["content-type", "host", "x-amz-date", "x-amz-security-token"] {
            assert!(expected.contains(signed), "{signed} is not signed: {expected}");
        }
    }
    assert_eq!(of_cluster[0].body, "Action=DescribeClusters&Version=2012-12-01&ClusterIdentifier=warehouse");
    assert_eq!(of_namespace[0].headers["x-amz-target"], "RedshiftServerless.ListNamespaces");
    assert_eq!(of_namespace[0].headers["content-type"], "application/x-amz-json-1.1");
}

#[tokio::test]
async fn a_namespace_is_found_on_a_later_page_and_its_first_workgroup_is_where_it_is() {
    let other = NAMESPACE.replace("0a1b", "2c3d");
    let answers = [
        json!({"namespaces": [{"namespaceArn": other, "namespaceName": "other"}], "nextToken": "more"}),
        json!({"namespaces": [{"namespaceArn": NAMESPACE, "namespaceName": "one"}]}),
        json!({"workgroups": [{"namespaceName": "other", "endpoint": {"address": "no", "port": 1}}], "nextToken": "more"}),
        json!({"workgroups": [
            {"namespaceName": "one", "endpoint": {"address": "one.example", "port": 5439}},
            {"namespaceName": "one", "endpoint": {"address": "second.example", "port": 5439}},
        ]}),
    ];
    let answers = answers.iter().map(|answer| (200, answer.to_string())).collect();
    let (found, requests) = asked(Managed::RedshiftNamespace(NAMESPACE), answers).await;
    let expected = Endpoint { host: "one.example".to_owned(), port: 5439, engine: "redshift".to_owned() };
    assert_eq!(found.unwrap(), expected);
    let seen: Vec<(&str, Value)> = requests
        .iter()
        .map(|it| (it.headers["x-amz-target"].as_str(), serde_json::from_str(&it.body).unwrap()))
        .collect();
    let (namespaces, workgroups) = ("RedshiftServerless.ListNamespaces", "RedshiftServerless.ListWorkgroups");
    let next = json!({"maxResults": 100, "nextToken": "more"});
    assert_eq!(
        seen,
        [
            (namespaces, json!({"maxResults": 100})),
            (namespaces, next.clone()),
            (workgroups, json!({"maxResults": 100})),
            (workgroups, next),
        ]
    );
}

#[tokio::test]
async fn refusals_are_told_apart_by_their_codes() {
    for (answer, class, code, named) in [
        (
            refusal(403, "AccessDenied"),
            Class::Config,
            Code::AccessDenied,
            "hint: allow redshift:DescribeClusters on it",
        ),
        (refusal(403, "ExpiredToken"), Class::Config, Code::AccessDenied, "hint: check the function's role"),
        (refusal(404, "ClusterNotFound"), Class::Config, Code::Request, "fails with ClusterNotFound: said so"),
        ((400, "no XML".to_owned()), Class::Config, Code::Request, "fails with an error without a code"),
        ((200, "<A/>".to_owned()), Class::Config, Code::Admin, "Redshift knows no endpoint of"),
    ] {
        let (found, _) = asked(Managed::RedshiftCluster(CLUSTER), vec![answer]).await;
        let error = found.unwrap_err();
        assert_eq!((error.class(), error.code()), (class, code), "{error}");
        assert!(error.to_string().contains(named) && error.to_string().contains(CLUSTER), "{error}");
    }
    let denied = json!({"__type": "com.amazonaws.redshiftserverless#AccessDeniedException", "message": "said so"});
    let (found, _) = asked(Managed::RedshiftNamespace(NAMESPACE), vec![(400, denied.to_string())]).await;
    let error = found.unwrap_err();
    assert_eq!(error.code(), Code::AccessDenied, "{error}");
    assert!(error.to_string().contains("allow redshift-serverless:ListNamespaces on it"), "{error}");
    for secret in ["secret access key", "session"] {
        assert!(!error.to_string().contains(secret));
    }
}

#[tokio::test]
async fn throttling_and_failures_of_aws_are_tried_again_and_not_for_ever() {
    let answers = vec![refusal(400, "Throttling"), (503, String::new()), located("warehouse.example")];
    let (found, requests) = asked(Managed::RedshiftCluster(CLUSTER), answers).await;
    assert_eq!((found.unwrap().host.as_str(), requests.len()), ("warehouse.example", 3));
    let (found, _) = asked(Managed::RedshiftCluster(CLUSTER), vec![refusal(400, "Throttling"); 4]).await;
    let error = found.unwrap_err();
    assert_eq!((error.class(), error.code()), (TRANSIENT, Code::Throttled), "{error}");
    let nobody = "http://127.0.0.1:1";
    let error = aws(nobody).endpoint(Managed::RedshiftCluster(CLUSTER)).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (TRANSIENT, Code::Aws), "{error}");
    assert!(error.to_string().contains("DescribeClusters does not reach Redshift: "), "{error}");
    let longest = (200, "x".repeat((1 << 20) + 1));
    let (found, _) = asked(Managed::RedshiftCluster(CLUSTER), vec![longest; 4]).await;
    assert_eq!(found.unwrap_err().code(), Code::Aws);
}

#[tokio::test]
async fn what_is_no_arn_is_asked_nowhere() {
    for managed in [Managed::RedshiftCluster("warehouse"), Managed::RedshiftNamespace("arn:aws:x:a.b/#:1:namespace/x")]
    {
        let error = aws("http://127.0.0.1:1").endpoint(managed).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::Field), "{error}");
    }
}
