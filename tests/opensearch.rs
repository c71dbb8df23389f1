//! The master user of an OpenSearch Service domain. No OpenSearch runs here: the service is a stand-in that keeps its rules,
//! and the domain an HTTPS server that asks for the master's password. botocore says whether requests are well made.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use keywheel::error::{Class, Code, Which};
use keywheel::tls::Trust;
use keywheel_dev::authority::Authority;
use keywheel_dev::moto::Moto;
use keywheel_dev::server::free_port;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::aws::{Asked, Reply, StandIn};
use support::sql::{rotate_again, with};
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const OLD: &str = "the old password of a master";
const ARN: &str = "arn:aws:es:us-east-1:123456789012:domain/logs";
const DOMAIN: &str = "/2021-01-01/opensearch/domain/logs";

/// A domain, as the service and its clients see it.
struct Domain {
    password: String,
    /// Told, and not applied yet.
    next: Option<String>,
    delay: usize,
    left: usize,
    internal: bool,
    deleted: bool,
    endpoint: Option<String>,
    /// What its clients get, if not the answer that they deserve.
    status: Option<u16>,
}

impl Domain {
    fn apply(&mut self) {
        if let Some(next) = self.next.take() {
            self.password = next;
        }
    }

    fn answer(&mut self, asked: &Asked) -> Reply {
        let configure = format!("POST {DOMAIN}/config");
        match asked.action() {
            it if it == format!("GET {DOMAIN}") => {
                if self.left == 0 {
                    self.apply();
                } else {
                    self.left -= 1;
                }
            }
            it if it == configure && self.next.is_some() => {
                return Reply::refuse_json(409, "ConflictException", "a change is under way");
            }
            it if it == configure => {
                let told = asked.json()["AdvancedSecurityOptions"]["MasterUserOptions"].clone();
                assert_eq!(told["MasterUserName"], "admin");
                let password = told["MasterUserPassword"].as_str().unwrap();
                if password.contains("refuse me") {
                    return Reply::refuse_json(
                        400,
                        "ValidationException",
                        &format!("Value '{password}' is not allowed"),
                    );
                }
                (self.next, self.left) = (Some(password.to_owned()), self.delay);
                return Reply::ok(json!({"DomainConfig": {}}).to_string());
            }
            _ => return Reply::refuse_json(409, "ResourceNotFoundException", "Domain not found"),
        }
        let status = json!({
            "ARN": ARN, "Created": true, "Deleted": self.deleted, "Processing": self.next.is_some(),
            "DomainProcessingStatus": if self.next.is_some() { "Modifying" } else { "Active" },
            "AdvancedSecurityOptions": {"Enabled": true, "InternalUserDatabaseEnabled": self.internal},
            "Endpoints": self.endpoint.as_ref().map(|host| json!({"vpc": host})),
        });
        Reply::ok(json!({"DomainStatus": status}).to_string())
    }
}

/// A secret, its domain, and the service behind a stand-in.
struct Search {
    world: World,
    aws: StandIn,
    domain: Arc<Mutex<Domain>>,
    _folder: tempfile::TempDir,
}

impl Search {
    #[allow(clippy::needless_pass_by_value, reason = "json! makes one")]
    async fn start(changes: Value) -> Self {
        let authority = Authority::new(&["localhost".to_owned()], false).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authority.pem");
        std::fs::write(&file, &authority.root).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = Some(format!("localhost:{}", listener.local_addr().unwrap().port()));
        let domain = Arc::new(Mutex::new(Domain {
            password: OLD.to_owned(),
            next: None,
            delay: 0,
            left: 0,
            internal: true,
            deleted: false,
            endpoint,
            status: None,
        }));
        tokio::spawn(serve(listener, authority, Arc::clone(&domain)));
        let aws = StandIn::start(None);
        let answering = Arc::clone(&domain);
        aws.rule(move |asked| answering.lock().unwrap().answer(asked));
        let secret = json!({"kind": "opensearch-master", "domainarn": ARN, "username": "admin", "password": OLD});
        let mut world = World::new(&with(&secret, changes).to_string());
        world.services.other = Some(aws.services());
        world.settings.trust = Trust::with_file(file);
        Self { world, aws, domain, _folder: folder }
    }

    fn domain(&self, change: impl FnOnce(&mut Domain)) {
        change(&mut self.domain.lock().unwrap());
    }
}

async fn serve(listener: TcpListener, authority: Authority, domain: Arc<Mutex<Domain>>) {
    let certificate = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(authority.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls =
        TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, domain) = (tls.clone(), Arc::clone(&domain));
        tokio::spawn(async move {
            let Ok(mut stream) = tls.accept(stream).await else { return };
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { return };
                asked.push(byte);
            }
            let asked = String::from_utf8(asked).unwrap();
            assert!(asked.starts_with("GET / HTTP/1.1\r\n"), "{asked}");
            let status = {
                let domain = domain.lock().unwrap();
                let login = BASE64.encode(format!("admin:{}", domain.password).as_bytes());
                let known = asked.contains(&format!("authorization: Basic {login}\r\n"));
                domain.status.unwrap_or(if known { 200 } else { 401 })
            };
            let answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        });
    }
}

#[tokio::test]
async fn the_master_rotates_and_signs_in() {
    let search = Search::start(json!({})).await;
    search.domain(|domain| domain.delay = 2);
    let notes = search.world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let first = search.world.field("AWSCURRENT", "password").unwrap();
    assert_eq!(search.domain.lock().unwrap().password, first);
    assert_eq!(search.aws.asked(&format!("POST {DOMAIN}/config")), 1);
    rotate_again(&search.world, THIRD).await.unwrap();
    assert_ne!(search.domain.lock().unwrap().password, first);

    let moto = Moto::start().await.unwrap();
    let master = json!({"MasterUserName": "admin", "MasterUserPassword": first});
    let update = json!({"DomainName": "logs", "AdvancedSecurityOptions": {"MasterUserOptions": master}});
    for (operation, parameters) in [("DescribeDomain", json!({"DomainName": "logs"})), ("UpdateDomainConfig", update)] {
        let arguments = ["opensearch", operation, &parameters.to_string()];
        let expected: Value = serde_json::from_str(&moto.run("tests/moto/serialize.py", &arguments).unwrap()).unwrap();
        let log = search.aws.log();
        let sent = log.iter().find(|asked| asked.method == expected["method"]).unwrap();
        assert_eq!(json!(sent.path), expected["path"]);
        assert!(sent.headers["authorization"].contains("/us-east-1/es/aws4_request"));
        if operation == "UpdateDomainConfig" {
            assert_eq!(sent.json(), serde_json::from_str::<Value>(expected["body"].as_str().unwrap()).unwrap());
        }
        let url = format!("http://{}{}", sent.headers["host"], sent.path);
        let request = json!({
            "service": "es", "region": "us-east-1", "method": sent.method, "url": url, "headers": sent.headers,
            "body": sent.body, "key": ["role", "role", null],
        });
        let signature = moto.run("tests/moto/signature.py", &[&request.to_string()]).unwrap();
        assert_eq!(sent.headers["authorization"], signature.trim());
    }
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed() {
    let mut crashes = 0;
    for step in STEPS {
        for point in 0.. {
            let mut search = Search::start(json!({})).await;
            for earlier in STEPS.iter().take_while(|it| **it != step) {
                search.world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, search.world.step(step)).await.is_none();
            search.world.services.other = None;
            search.aws.settle().await;
            search.world.services.other = Some(search.aws.services());
            search.world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
            let current = search.world.field("AWSCURRENT", "password").unwrap();
            assert_eq!(search.domain.lock().unwrap().password, current, "{step}, {point}");
            if !stopped {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 15, "{crashes}");
}

#[tokio::test]
async fn what_cannot_be_rotated_is_refused_before_anything_is_staged() {
    type Change = fn(&mut Domain);
    let cases: [(Value, Change, Code, &str); 8] = [
        (json!({"domainarn": ARN.replace("123456789012", "210987654321")}), |_| (), Code::Field, "not in the account"),
        (json!({"domainarn": ARN.replace("us-east-1", "eu-west-1")}), |_| (), Code::Field, "not in the Region"),
        (json!({"domainarn": ARN.replace("logs", "../x?")}), |_| (), Code::Field, "name of a domain"),
        (json!({"domainarn": ARN.replace("logs", "other")}), |_| (), Code::Request, "ResourceNotFoundException"),
        (json!({"domainarn": null}), |_| (), Code::Field, "field \"domainarn\" is missing"),
        (json!({"username": null}), |_| (), Code::Field, "field \"username\" is missing"),
        (json!({}), |domain| domain.internal = false, Code::Field, "has no internal user database"),
        (json!({}), |domain| domain.deleted = true, Code::Field, "is being deleted"),
    ];
    for (changes, change, code, named) in cases {
        let search = Search::start(changes.clone()).await;
        search.domain(change);
        let error = search.world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, code), "{changes}: {error}");
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(search.world.value("AWSPENDING"), None);
    }
    for (method, action) in [("GET", "es:DescribeDomain"), ("POST", "es:UpdateDomainConfig")] {
        let search = Search::start(json!({})).await;
        let domain = Arc::clone(&search.domain);
        search.aws.rule(move |asked| match asked.method.as_str() {
            it if it == method => Reply::refuse_json(403, "AccessDeniedException", "no"),
            _ => domain.lock().unwrap().answer(asked),
        });
        let error = search.world.rotate(TOKEN).await.unwrap_err();
        assert_eq!(error.code(), Code::AccessDenied, "{error}");
        assert!(error.to_string().contains(ARN) && error.remedy().contains(action), "{error}");
    }
}

#[tokio::test]
async fn a_refused_password_ends_the_rotation() {
    let search = Search::start(json!({})).await;
    let secret = search.world.value("AWSCURRENT").unwrap();
    search.world.stage(&secret.replace(OLD, "please refuse me"));
    let error = search.world.step("setSecret").await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::PasswordPolicy), "{error}");
    assert_eq!(search.world.labels(), ["AWSCURRENT=first"]);
    // What it refuses, the service may repeat.
    assert!(error.to_string().contains("Value '…' is not allowed"), "{error}");
    assert!(!format!("{error:?}").contains("refuse me"), "{error}");
}

#[tokio::test]
async fn the_sign_in_tells_what_is_wrong() {
    for (status, class, code) in [
        (401, Class::Rejected(Which::Pending), Code::WrongPassword),
        (403, Class::Rejected(Which::Pending), Code::NotPermitted),
        (503, Class::Transient(keywheel::error::Effect::None), Code::Server),
    ] {
        let search = Search::start(json!({})).await;
        search.domain(|domain| domain.status = Some(status));
        let error = search.world.rotate(TOKEN).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (class, code), "{error}");
        assert_eq!(search.world.labels(), ["AWSCURRENT=first", "AWSPENDING=second"]);
    }
    // A certificate of somebody else is no lack of a way to it.
    let search = Search::start(json!({})).await;
    let untrusting = World { settings: keywheel::kind::Settings::default(), ..search.world };
    let error = untrusting.rotate(TOKEN).await.unwrap_err();
    assert_eq!(error.code(), Code::TlsTrust, "{error}");

    let nowhere = json!({"host": format!("localhost:{}", free_port().unwrap())});
    for (changes, endpoint, named) in
        [(nowhere, true, "cannot connect to localhost"), (json!({}), false, "has no endpoint yet")]
    {
        let search = Search::start(changes).await;
        if !endpoint {
            search.domain(|domain| domain.endpoint = None);
        }
        let notes = search.world.rotate_with_notes(TOKEN).await.unwrap();
        assert!(notes[0].contains("not signed in, but arn:aws:es") && notes[0].contains(named), "{notes:?}");
    }
    let search = Search::start(json!({"host": "no host"})).await;
    assert_eq!(search.world.rotate(TOKEN).await.unwrap_err().code(), Code::Field);
}
