//! Access keys of IAM users, against moto. It makes, limits and forgets keys as IAM does, accepts every signature and knows no
//! delay; refusals, delays and what is asked of AWS come from a stand-in, which passes the rest on to moto.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use keywheel::error::{Class, Code, Which};
use keywheel::http::Http;
use keywheel::services::aws::Aws;
use keywheel::tls::Trust;
use keywheel_dev::moto::Moto;
use serde_json::{Value, json};
use support::*;

const USER: &str = "pipeline";
const SCRIPT: &str = "tests/moto/access_keys.py";

fn aws(url: &str) -> Aws {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(url)
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("role", "role", None, None, "static")))
        .build();
    Aws::new(&config, None, Http::new(&Trust::default()).unwrap())
}

/// What the stand-in does with a request, by its body.
type Rule = Box<dyn FnMut(&str) -> Reply + Send>;

enum Reply {
    Pass,
    /// Passes the request on, and the answer is lost.
    Lose,
    Refuse(&'static str),
    Say(String),
}

fn serve(mut stream: &TcpStream, upstream: &str, rule: &Mutex<Rule>, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let lower = line.to_ascii_lowercase();
        if let Some(text) = lower.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
        if !lower.starts_with("connection:") {
            head += &line;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    log.lock().unwrap().push(body.clone());
    let reply = rule.lock().unwrap()(&body);
    let answer = match reply {
        Reply::Pass | Reply::Lose => {
            let mut to = TcpStream::connect(upstream.strip_prefix("http://")?).ok()?;
            write!(to, "{head}connection: close\r\n\r\n{body}").ok()?;
            let mut answer = Vec::new();
            to.read_to_end(&mut answer).ok()?;
            if matches!(reply, Reply::Lose) {
                return None;
            }
            answer
        }
        Reply::Say(text) => {
            format!("HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes()
        }
        Reply::Refuse(code) => {
            let text =
                format!("<ErrorResponse><Error><Code>{code}</Code><Message>said so</Message></Error></ErrorResponse>");
            format!("HTTP/1.1 403 X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes()
        }
    };
    stream.write_all(&answer).ok()
}

/// A user in moto with one key, its secret, and AWS behind a stand-in.
struct Iam {
    moto: Arc<Moto>,
    world: World,
    first: (String, String),
    rule: Arc<Mutex<Rule>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Iam {
    #[allow(clippy::needless_pass_by_value, reason = "json! makes one")]
    async fn start(extra: Value) -> Self {
        Self::on(Arc::new(Moto::start().await.unwrap()), &extra)
    }

    fn on(moto: Arc<Moto>, extra: &Value) -> Self {
        let made = moto.run(SCRIPT, &["user", USER]).unwrap();
        let (id, key) = made.trim().split_once(' ').unwrap();
        let mut secret =
            json!({"kind": "iam-access-key", "username": USER, "AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": key});
        secret.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        secret.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let secret = secret.to_string().replace("FIRST-ID", id).replace("FIRST-KEY", key);
        let first = (id.to_owned(), key.to_owned());
        let (rule, log) = (Arc::new(Mutex::new(Box::new(|_: &str| Reply::Pass) as Rule)), Arc::default());
        let url = Self::stand_in(moto.url().to_owned(), Arc::clone(&rule), Arc::clone(&log));
        let mut world = World::new(&secret);
        world.services.other = Some(aws(&url));
        Self { moto, world, first, rule, log }
    }

    fn stand_in(upstream: String, rule: Arc<Mutex<Rule>>, log: Arc<Mutex<Vec<String>>>) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (upstream, rule, log) = (upstream.clone(), Arc::clone(&rule), Arc::clone(&log));
                std::thread::spawn(move || serve(&stream.unwrap(), &upstream, &rule, &log));
            }
        });
        url
    }

    fn rule(&self, rule: impl FnMut(&str) -> Reply + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.moto.run(SCRIPT, arguments).unwrap().trim().to_owned()
    }

    /// The ids of the user's active keys.
    fn keys(&self) -> Vec<String> {
        self.run(&["list", USER]).split_whitespace().map(str::to_owned).collect()
    }

    fn id(&self, label: &str) -> String {
        self.world.field(label, "AWS_ACCESS_KEY_ID").unwrap()
    }

    fn begin(&self, token: &str) {
        self.world.service.update_stage(SECRET, "AWSPENDING", None, Some(TOKEN)).ok();
        self.world.service.begin_rotation(SECRET, token).unwrap();
    }

    fn asked(&self, action: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|body| body.starts_with(&format!("Action={action}&"))).count()
    }
}

fn says(body: &str, action: &str) -> bool {
    body.starts_with(&format!("Action={action}&"))
}

#[tokio::test]
async fn three_rotations_keep_the_old_key_until_the_next() {
    let iam = Iam::start(json!({"credentials": "[other]\nx = 1\n[default]\naws_access_key_id=FIRST-ID\naws_secret_access_key=FIRST-KEY\n"})).await;
    let mut before = iam.first.0.clone();
    for (number, token) in [TOKEN, THIRD, "fourth-version-000000000000000000000"].into_iter().enumerate() {
        if number > 0 {
            iam.world.service.begin_rotation(SECRET, token).unwrap();
        }
        for step in STEPS {
            iam.world.step_for(step, token).await.unwrap();
            let keys = iam.keys();
            assert!(keys.len() <= 2 && keys.contains(&iam.id("AWSCURRENT")), "{step}: {keys:?}");
        }
        let now = iam.id("AWSCURRENT");
        assert_ne!(now, before);
        assert_eq!(iam.keys(), [before.clone(), now.clone()]);
        let key = iam.world.field("AWSCURRENT", "AWS_SECRET_ACCESS_KEY").unwrap();
        assert_eq!(iam.run(&["use", &now, &key]), "arn:aws:iam::123456789012:user/apps/pipeline");
        assert_eq!(
            iam.world.field("AWSCURRENT", "credentials").unwrap(),
            format!("[other]\nx = 1\n[default]\naws_access_key_id={now}\naws_secret_access_key={key}\n")
        );
        before = now;
    }
    assert_eq!(iam.asked("CreateAccessKey"), 3);
    // The first key was set Inactive before it was deleted.
    let log = iam.log.lock().unwrap();
    let first = |action: &str| log.iter().position(|body| says(body, action)).unwrap();
    assert!(first("UpdateAccessKey") < first("DeleteAccessKey"));
    assert!(log[first("UpdateAccessKey")].contains(&format!("AccessKeyId={}&Status=Inactive", iam.first.0)));
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_by_the_next_try() {
    let mut crashes = 0;
    let moto = Arc::new(Moto::start().await.unwrap());
    for step in STEPS {
        for point in 0.. {
            let iam = Iam::on(Arc::clone(&moto), &json!({}));
            for earlier in STEPS.iter().take_while(|it| **it != step) {
                iam.world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, iam.world.step(step)).await.is_none();
            // What was on its way when the function died arrives.
            tokio::time::sleep(Duration::from_millis(50)).await;
            iam.world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
            let mut keys = iam.keys();
            keys.sort();
            let mut expected = [iam.first.0.clone(), iam.id("AWSCURRENT")];
            expected.sort();
            assert_eq!(keys, expected, "{step}, {point}");
            iam.run(&["delete-user", USER]);
            if !stopped {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes}");
}

#[tokio::test]
async fn a_key_whose_answer_was_lost_is_removed_by_the_next_try() {
    let iam = Iam::start(json!({})).await;
    iam.rule(|body| if says(body, "CreateAccessKey") { Reply::Lose } else { Reply::Pass });
    let error = iam.world.step("createSecret").await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("something may have been changed"), "{error}");
    assert_eq!((iam.asked("CreateAccessKey"), iam.keys().len()), (1, 2));
    iam.rule(|_| Reply::Pass);
    iam.world.rotate(TOKEN).await.unwrap();
    assert_eq!(iam.keys(), [iam.first.0.clone(), iam.id("AWSCURRENT")]);
}

#[tokio::test]
async fn a_key_that_may_be_somebody_elses_is_never_deleted() {
    for (used, named) in [(false, "older than the rotation"), (true, "it has been used")] {
        let iam = Iam::start(json!({})).await;
        let foreign = iam.run(&["key", USER]);
        let (id, _) = foreign.split_once(' ').unwrap();
        if used {
            iam.rule(|body| {
                if says(body, "GetAccessKeyLastUsed") {
                    let used = "<LastUsedDate>2026-01-01T00:00:00Z</LastUsedDate>";
                    let used = format!("<AccessKeyLastUsed>{used}</AccessKeyLastUsed>");
                    return Reply::Say(format!(
                        "<R><GetAccessKeyLastUsedResult>{used}</GetAccessKeyLastUsedResult></R>"
                    ));
                }
                Reply::Pass
            });
        } else {
            // IAM's dates have no fractions: the rotation must begin in a later second.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            iam.begin(THIRD);
        }
        let token = if used { TOKEN } else { THIRD };
        let error = iam.world.step_for("createSecret", token).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::KeyLimit), "{error}");
        assert!(error.to_string().contains(named) && error.to_string().contains(id), "{error}");
        assert!(error.remedy().contains(&format!("--user-name {USER} --access-key-id {id}")), "{error}");
        assert_eq!(iam.keys(), [iam.first.0.clone(), id.to_owned()]);
        assert_eq!(iam.asked("UpdateAccessKey") + iam.asked("DeleteAccessKey") + iam.asked("CreateAccessKey"), 0);
        iam.run(&["delete", USER, id]);
        iam.world.rotate(token).await.unwrap();
    }
}

#[tokio::test]
async fn a_limit_reached_in_between_is_told() {
    let iam = Iam::start(json!({})).await;
    iam.rule(|body| if says(body, "CreateAccessKey") { Reply::Refuse("LimitExceeded") } else { Reply::Pass });
    let error = iam.world.step("createSecret").await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::KeyLimit), "{error}");
}

#[tokio::test]
async fn a_user_that_is_gone_and_a_key_deleted_by_hand() {
    let iam = Iam::start(json!({})).await;
    iam.run(&["delete", USER, &iam.first.0]);
    iam.world.rotate(TOKEN).await.unwrap();
    assert_eq!(iam.keys(), [iam.id("AWSCURRENT")]);
    iam.run(&["delete-user", USER]);
    iam.world.service.begin_rotation(SECRET, THIRD).unwrap();
    let error = iam.world.step_for("createSecret", THIRD).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::Request), "{error}");
    assert!(error.to_string().contains("NoSuchEntity") && error.remedy().contains("the user exists"), "{error}");
}

#[tokio::test]
async fn a_key_is_waited_for_until_aws_knows_it_and_not_for_ever() {
    let iam = Iam::start(json!({})).await;
    iam.world.step("createSecret").await.unwrap();
    let mut left = 3;
    iam.rule(move |body| {
        if !says(body, "GetCallerIdentity") || left == 0 {
            return Reply::Pass;
        }
        left -= 1;
        Reply::Refuse("InvalidClientTokenId")
    });
    iam.world.step("setSecret").await.unwrap();
    assert_eq!(iam.asked("GetCallerIdentity"), 4);
    // A key that somebody sets Inactive is refused in the same words.
    for (code, steps) in [
        ("InvalidClientTokenId", ["testSecret", "finishSecret"]),
        ("SignatureDoesNotMatch", ["setSecret", "testSecret"]),
    ] {
        iam.rule(move |_| Reply::Refuse(code));
        for step in steps {
            let error = iam.world.step(step).await.unwrap_err();
            assert_eq!(
                (error.class(), error.code()),
                (Class::Rejected(Which::Pending), Code::WrongPassword),
                "{error}"
            );
            assert!(error.to_string().contains(&iam.id("AWSPENDING")), "{error}");
            let key = iam.world.field("AWSPENDING", "AWS_SECRET_ACCESS_KEY").unwrap();
            assert!(!error.to_string().contains(&key), "{error}");
        }
    }
    assert_eq!(iam.id("AWSCURRENT"), iam.first.0);
}

#[tokio::test]
async fn a_key_of_another_identity_is_refused() {
    for (extra, arn) in [
        (json!({}), "arn:aws:iam::123456789012:user/apps/another"),
        (json!({}), "arn:aws:iam::210987654321:user/pipeline"),
        (json!({"userarn": "arn:aws:iam::123456789012:user/pipeline"}), "arn:aws:iam::123456789012:user/apps/pipeline"),
    ] {
        let iam = Iam::start(extra).await;
        iam.world.step("createSecret").await.unwrap();
        iam.rule(move |_| {
            Reply::Say(format!("<R><GetCallerIdentityResult><Arn>{arn}</Arn></GetCallerIdentityResult></R>"))
        });
        let error = iam.world.step("setSecret").await.unwrap_err();
        assert_eq!(error.class(), Class::Rejected(Which::Pending), "{error}");
        assert!(error.to_string().contains(arn), "{error}");
    }
}

#[tokio::test]
async fn a_missing_permission_names_action_and_user() {
    for action in ["ListAccessKeys", "CreateAccessKey"] {
        let iam = Iam::start(json!({})).await;
        iam.rule(move |body| if says(body, action) { Reply::Refuse("AccessDenied") } else { Reply::Pass });
        let error = iam.world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::AccessDenied), "{error}");
        assert!(error.to_string().contains(&format!("{action} of arn:aws:iam::123456789012:user/{USER} ")), "{error}");
        assert!(error.remedy().contains(&format!("allow iam:{action} on it")), "{error}");
        assert_eq!(iam.keys(), std::slice::from_ref(&iam.first.0));
    }
}

#[tokio::test]
async fn fields_that_cannot_be_used_are_refused_before_anything_is_asked() {
    for (extra, named) in [
        (json!({"userarn": "arn:aws:iam::210987654321:user/pipeline"}), "not in the account of the secret"),
        (json!({"userarn": "arn:aws:iam::123456789012:role/pipeline"}), "must be the ARN of an IAM user"),
        (json!({"userarn": "arn:aws:iam::123456789012:user/another"}), "name two users"),
        (json!({"username": "a b"}), "is no name of an IAM user"),
        (json!({"username": null}), "field \"username\" is missing"),
        (json!({"credentials": "[default]"}), "does not hold the key"),
    ] {
        let iam = Iam::start(extra).await;
        let error = iam.world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::Field), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(iam.log.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_live_key_under_other_names_is_not_withdrawn() {
    let iam = Iam::start(json!({"AWS_ACCESS_KEY_ID": null, "AWS_SECRET_ACCESS_KEY": null, "accesskeyid": "FIRST-ID", "secretaccesskey": "FIRST-KEY"})).await;
    iam.world.rotate(TOKEN).await.unwrap();
    let now = iam.world.field("AWSCURRENT", "accesskeyid").unwrap();
    let key = iam.world.field("AWSCURRENT", "secretaccesskey").unwrap();
    assert_eq!((iam.world.field("AWSCURRENT", "AWS_ACCESS_KEY_ID"), iam.keys().len()), (None, 2));
    // Somebody renames the fields, and so makes AWSPREVIOUS hold the live key.
    let renamed =
        json!({"kind": "iam-access-key", "username": USER, "AWS_ACCESS_KEY_ID": now, "AWS_SECRET_ACCESS_KEY": key});
    let payload = keywheel::store::memory::Payload::Text(renamed.to_string());
    iam.world.service.put(SECRET, "renamed-version-00000000000000000000", payload, &["AWSCURRENT".to_owned()]).unwrap();
    iam.run(&["delete", USER, &iam.first.0]);
    iam.begin(THIRD);
    iam.world.rotate(THIRD).await.unwrap();
    assert_eq!(iam.keys(), [now, iam.id("AWSCURRENT")]);
}
