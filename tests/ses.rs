//! SMTP passwords of SES. The access keys are moto's, and the sign-ins go to a real SMTP server over TLS, which computes by
//! itself, as AWS documents it, what the passwords of moto's keys are.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use keywheel::error::{Class, Code, Error, Which};
use keywheel::tls::Trust;
use keywheel_dev::moto::Moto;
use keywheel_dev::server::free_port;
use keywheel_dev::smtp::Smtp;
use serde_json::{Value, json};
use support::aws::Reply;
use support::iam::{Iam, USER};
use support::*;
use tempfile::NamedTempFile;

/// Not that of the secret.
const REGION: &str = "eu-central-1";

/// A user with an SMTP password, and the server.
struct Mail {
    moto: Arc<Moto>,
    smtp: Smtp,
    authority: NamedTempFile,
}

impl Mail {
    async fn start() -> Self {
        let moto = Arc::new(Moto::start().await.unwrap());
        let smtp = Smtp::start(&moto, REGION).await.unwrap();
        let mut authority = NamedTempFile::new().unwrap();
        authority.write_all(smtp.root().as_bytes()).unwrap();
        Self { moto, smtp, authority }
    }

    async fn user(&self, extra: Value) -> Iam {
        let mut fields = json!({
            "kind": "ses-smtp", "AWS_ACCESS_KEY_ID": null, "AWS_SECRET_ACCESS_KEY": null, "SMTP_USERNAME": "FIRST-ID",
            "SMTP_PASSWORD": "by hand", "region": REGION, "host": "localhost", "port": self.smtp.port(), "from": "a@b.c"
        });
        fields.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let mut iam = Iam::on(Arc::clone(&self.moto), &fields).await;
        iam.world.settings.trust = Trust::with_file(self.authority.path().to_owned());
        iam
    }

    /// The lines of the server's log about this user.
    fn sign_ins(&self, id: &str) -> Vec<String> {
        let log = self.smtp.log().unwrap();
        log.lines().filter(|line| line.split(' ').nth(1) == Some(id)).map(str::to_owned).collect()
    }
}

fn id(iam: &Iam, label: &str) -> String {
    iam.world.field(label, "SMTP_USERNAME").unwrap()
}

/// No message may have what clients sign in with, or the key that it is made of.
fn assert_silent(iam: &Iam, error: &Error) {
    let password = iam.world.field("AWSPENDING", "SMTP_PASSWORD").unwrap();
    let said = format!("{error} {error:?}");
    assert!(!said.contains(&password) && !said.contains(&iam.first.1), "{said}");
}

#[tokio::test]
async fn two_rotations_sign_in_at_a_real_server_and_store_no_access_key() {
    let mail = Mail::start().await;
    let iam = mail.user(json!({})).await;
    let mut before = iam.first.0.clone();
    for token in [TOKEN, THIRD] {
        iam.begin(token);
        for step in STEPS {
            iam.world.step_for(step, token).await.unwrap();
            assert!(iam.keys().await.contains(&id(&iam, "AWSCURRENT")), "{step}");
        }
        let now = id(&iam, "AWSCURRENT");
        assert_eq!(iam.keys().await, [before, now.clone()]);
        let password = iam.world.field("AWSCURRENT", "SMTP_PASSWORD").unwrap();
        assert_eq!((password.len(), password.starts_with('B')), (44, true));
        // setSecret, testSecret and finishSecret sign in.
        assert_eq!(mail.sign_ins(&now), vec![format!("PLAIN {now} 235"); 3]);
        let value: Value = serde_json::from_str(&iam.world.value("AWSCURRENT").unwrap()).unwrap();
        let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["kind", "username", "SMTP_USERNAME", "SMTP_PASSWORD", "region", "host", "port", "from"]);
        before = now;
    }
    assert_eq!(mail.smtp.log().unwrap().matches("QUIT").count(), 6);
    assert_eq!((iam.asked("CreateAccessKey"), iam.asked("DeleteAccessKey")), (2, 1));
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_by_the_next_try() {
    let mail = Mail::start().await;
    let mut crashes = 0;
    for step in STEPS {
        for point in 0.. {
            let mut iam = mail.user(json!({})).await;
            for earlier in STEPS.iter().take_while(|it| **it != step) {
                iam.world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, iam.world.step(step)).await.is_none();
            iam.world.services.other = None;
            iam.aws.settle().await;
            iam.world.services.other = Some(iam.aws.services());
            iam.world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
            let mut keys = iam.keys().await;
            keys.sort();
            let mut expected = [iam.first.0.clone(), id(&iam, "AWSCURRENT")];
            expected.sort();
            assert_eq!(keys, expected, "{step}, {point}");
            iam.delete_user().await;
            if !stopped {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 30, "{crashes}");
}

#[tokio::test]
async fn names_that_other_programs_have_are_kept() {
    let mail = Mail::start().await;
    let iam = mail
        .user(json!({"SMTP_USERNAME": null, "SMTP_PASSWORD": null, "SMTP_USER": "FIRST-ID", "SMTP_PASS": "by hand"}))
        .await;
    iam.world.rotate(TOKEN).await.unwrap();
    let now = iam.world.field("AWSCURRENT", "SMTP_USER").unwrap();
    assert_eq!(mail.sign_ins(&now).len(), 3);
    assert_eq!(iam.world.field("AWSCURRENT", "SMTP_USERNAME"), None);
    assert_ne!(iam.world.field("AWSCURRENT", "SMTP_PASS").unwrap(), "by hand");
}

#[tokio::test]
async fn a_password_is_waited_for_and_not_for_ever() {
    let mail = Mail::start().await;
    let iam = mail.user(json!({})).await;
    iam.world.step("createSecret").await.unwrap();
    let pending = id(&iam, "AWSPENDING");
    mail.smtp.answer(&["535 not yet"; 3]).unwrap();
    iam.world.step("setSecret").await.unwrap();
    let sign_ins = mail.sign_ins(&pending);
    assert_eq!(sign_ins.len(), 4, "{sign_ins:?}");
    assert!(sign_ins[2].ends_with("535 not yet") && sign_ins[3].ends_with("235"), "{sign_ins:?}");
    // Somebody switches the key off.
    iam.run("UpdateAccessKey", &[("UserName", USER), ("AccessKeyId", &pending), ("Status", "Inactive")]).await;
    let error = iam.world.step("testSecret").await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Rejected(Which::Pending), Code::WrongPassword), "{error}");
    let told = format!("localhost:{} refuses the SMTP password of the access key {pending} of arn:", mail.smtp.port());
    assert!(error.to_string().contains(&told) && error.to_string().contains("with 535"), "{error}");
    assert!(error.remedy().contains("list-access-keys") && error.remedy().contains("`region`"), "{error}");
    assert_silent(&iam, &error);
    assert_eq!(iam.world.step("finishSecret").await.unwrap_err().code(), Code::WrongPassword);
    assert_eq!(id(&iam, "AWSCURRENT"), iam.first.0);
}

#[tokio::test]
async fn a_password_of_another_region_is_refused() {
    let mail = Mail::start().await;
    let iam = mail.user(json!({"region": null})).await;
    iam.world.step("createSecret").await.unwrap();
    assert_eq!(iam.world.step("testSecret").await.unwrap_err().code(), Code::WrongPassword);
}

#[tokio::test]
async fn a_server_that_is_busy_or_out_of_reach_has_refused_nothing() {
    let mail = Mail::start().await;
    let iam = mail.user(json!({})).await;
    iam.world.step("createSecret").await.unwrap();
    for reply in ["454 4.7.0 temporary authentication failure", "421 too many", "538 encryption wanted"] {
        mail.smtp.answer(&[reply]).unwrap();
        let error = iam.world.step("setSecret").await.unwrap_err();
        assert!(error.is_transient() && error.code() == Code::Server, "{error}");
        assert!(error.to_string().contains(&format!("answers AUTH with {}", &reply[..3])), "{error}");
        assert_silent(&iam, &error);
    }
    iam.delete_user().await;
    let nobody = free_port().unwrap();
    for (extra, code, named, hint) in [
        (json!({"port": nobody}), Code::Refused, "nothing listens at localhost", "host"),
        (json!({"host": "smtp.invalid"}), Code::Dns, "`smtp.invalid` does not resolve", "DNS in the function's VPC"),
        (json!({"host": "127.0.0.2"}), Code::Refused, "127.0.0.2", "host"),
    ] {
        let iam = mail.user(extra).await;
        iam.world.step("createSecret").await.unwrap();
        let error = iam.world.step("setSecret").await.unwrap_err();
        assert!(error.is_transient() && error.code() == code, "{error}");
        assert!(error.to_string().contains(named) && error.remedy().contains(hint), "{error}");
        assert_silent(&iam, &error);
        iam.delete_user().await;
    }
    // Without `host` it is the endpoint of SES in the Region, which no test reaches.
    let mut iam = mail.user(json!({"host": null, "region": "xx-nowhere-1"})).await;
    iam.world.settings.trust = Trust::default();
    iam.world.step("createSecret").await.unwrap();
    let error = iam.world.step("setSecret").await.unwrap_err();
    assert!(error.to_string().contains("email-smtp.xx-nowhere-1.amazonaws.com"), "{error}");
    assert_eq!(error.code(), Code::Dns);
}

#[tokio::test]
async fn the_certificate_is_verified_in_full() {
    let mail = Mail::start().await;
    let mut iam = mail.user(json!({})).await;
    iam.world.step("createSecret").await.unwrap();
    iam.world.settings.trust = Trust::default();
    let error = iam.world.step("setSecret").await.unwrap_err();
    assert_eq!(error.code(), Code::TlsTrust, "{error}");
    let other = NamedTempFile::new().unwrap();
    let names = ["another.example.com".to_owned()];
    let authority = keywheel_dev::authority::Authority::new(&names, false).unwrap();
    std::fs::write(other.path(), &authority.root).unwrap();
    iam.world.settings.trust = Trust::with_file(other.path().to_owned());
    assert_eq!(iam.world.step("setSecret").await.unwrap_err().code(), Code::TlsTrust);
    assert_eq!(mail.smtp.log().unwrap(), "");
}

#[tokio::test]
async fn a_silent_server_and_one_without_tls_are_told_apart_from_a_refusal() {
    let mail = Mail::start().await;
    for (greeting, code) in [(Some("220 in clear\r\n"), Code::Tls), (None, Code::Timeout)] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let iam = mail.user(json!({"port": listener.local_addr().unwrap().port()})).await;
        iam.world.step("createSecret").await.unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            if let Some(greeting) = greeting {
                stream.write_all(greeting.as_bytes()).unwrap();
            }
            let _ = stream.read_to_end(&mut Vec::new());
        });
        if greeting.is_none() {
            tokio::time::pause();
        }
        let error = iam.world.step("setSecret").await.unwrap_err();
        if greeting.is_none() {
            tokio::time::resume();
            assert!(error.remedy().contains("interface endpoint `email-smtp`"), "{error}");
        }
        assert!(error.is_transient() && error.code() == code, "{error}");
        iam.delete_user().await;
    }
}

#[tokio::test]
async fn fields_that_cannot_be_used_are_refused_before_anything_is_asked() {
    let mail = Mail::start().await;
    for (extra, named) in [
        (json!({"region": "EU/../"}), "field \"region\" is no name of a Region"),
        (json!({"region": ""}), "field \"region\" is no name of a Region"),
        (json!({"port": 0}), "field \"port\" must be a whole number"),
        (json!({"host": 7}), "field \"host\" must be a string"),
        (json!({"userarn": "arn:aws:iam::210987654321:user/pipeline"}), "not in the account of the secret"),
    ] {
        let iam = mail.user(extra).await;
        let error = iam.world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::Field), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(iam.aws.log().is_empty());
        iam.delete_user().await;
    }
}

#[tokio::test]
async fn a_limit_and_a_missing_permission_are_those_of_access_keys() {
    let mail = Mail::start().await;
    let iam = mail.user(json!({})).await;
    iam.rule("CreateAccessKey", |_| Reply::refuse("AccessDenied"));
    let error = iam.world.step("createSecret").await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::AccessDenied), "{error}");
    assert!(error.remedy().contains("allow iam:CreateAccessKey on it"), "{error}");
    iam.rule("CreateAccessKey", |_| Reply::refuse("LimitExceeded"));
    let error = iam.world.step("createSecret").await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::KeyLimit), "{error}");
    assert!(error.to_string().contains("two access keys"), "{error}");
}
