//! API keys of Bedrock. No emulator has them: a stand-in keeps the keys of one user as IAM's model describes them, answers as
//! IAM and Bedrock do, and is held to botocore's reading and writing. None of this has run against AWS.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_smithy_types::date_time::{DateTime, Format};
use keywheel::error::{Class, Code, Error, Which};
use keywheel::store::memory::Payload;
use keywheel_dev::moto::Moto;
use serde_json::{Value, json};
use support::aws::{Asked, Reply, StandIn};
use support::*;

const USER: &str = "pipeline";
const ARN: &str = "arn:aws:iam::123456789012:user/apps/pipeline";
const MODELS: &str = "GET /foundation-models?byProvider=amazon";
const DAY: i64 = 24 * 60 * 60;

#[derive(Clone, Debug)]
struct Credential {
    id: String,
    secret: String,
    created: i64,
    expires: Option<i64>,
    active: bool,
    /// So many requests with it are refused at first.
    unknown_for: usize,
}

/// IAM with one user, and Bedrock.
struct Cloud {
    credentials: Vec<Credential>,
    made: usize,
    gone: bool,
    /// The user that Bedrock says a key is of, when it denies what the key asks for.
    denied: Option<String>,
    /// For the next key.
    unknown_for: usize,
    now: i64,
}

impl Cloud {
    fn make(&mut self, days: Option<i64>) -> Credential {
        self.made += 1;
        let (id, secret) = (format!("ACCAEXAMPLE{:09}", self.made), format!("ABSKc2VjcmV0{:09}==", self.made));
        let expires = days.map(|days| self.now + days * DAY);
        let unknown_for = std::mem::take(&mut self.unknown_for);
        let made = Credential { id, secret, created: self.now, expires, active: true, unknown_for };
        self.credentials.push(made.clone());
        made
    }

    fn answer(&mut self, asked: &Asked) -> Reply {
        if asked.action() == MODELS {
            return self.models(asked);
        }
        assert_eq!((asked.form("Version").as_deref(), asked.key_id()), (Some("2010-05-08"), Some("role")));
        if self.gone || asked.form("UserName").as_deref() != Some(USER) {
            return Reply::refuse("NoSuchEntity");
        }
        let body = match asked.action().as_str() {
            "CreateServiceSpecificCredential" => {
                assert_eq!(asked.form("ServiceName").as_deref(), Some("bedrock.amazonaws.com"));
                let days = asked.form("CredentialAgeDays").map(|days| days.parse().unwrap());
                assert!(days.is_none_or(|days| (1..=36_600).contains(&days)));
                if self.credentials.len() > 1 {
                    return Reply::refuse("LimitExceeded");
                }
                let made = self.make(days);
                let secret = format!("<ServiceCredentialSecret>{}</ServiceCredentialSecret>", made.secret);
                format!("<ServiceSpecificCredential>{}{secret}</ServiceSpecificCredential>", xml(&made))
            }
            "ListServiceSpecificCredentials" => {
                assert_eq!(asked.form("ServiceName").as_deref(), Some("bedrock.amazonaws.com"));
                let members: String =
                    self.credentials.iter().fold(String::new(), |all, it| all + "<member>" + &xml(it) + "</member>");
                format!(
                    "<ServiceSpecificCredentials>{members}</ServiceSpecificCredentials><IsTruncated>false</IsTruncated>"
                )
            }
            action @ ("UpdateServiceSpecificCredential" | "DeleteServiceSpecificCredential") => {
                let id = asked.form("ServiceSpecificCredentialId").unwrap();
                let Some(index) = self.credentials.iter().position(|it| it.id == id) else {
                    return Reply::refuse("NoSuchEntity");
                };
                if action.starts_with("Update") {
                    self.credentials[index].active = asked.form("Status").unwrap() == "Active";
                } else {
                    self.credentials.remove(index);
                }
                String::new()
            }
            other => panic!("{other} is not asked of IAM"),
        };
        let action = asked.action();
        let namespace = "xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"";
        Reply::ok(format!("<{action}Response {namespace}><{action}Result>{body}</{action}Result></{action}Response>"))
    }

    fn models(&mut self, asked: &Asked) -> Reply {
        let now = self.now;
        let given = asked.headers["authorization"].strip_prefix("Bearer ").unwrap();
        assert!(!asked.headers.contains_key("x-amz-date"));
        let found = self.credentials.iter_mut().find(|it| it.secret == given && it.active);
        let denied = "AccessDeniedException";
        match found.filter(|it| it.expires.is_none_or(|at| at > now)) {
            Some(it) if it.unknown_for == 0 => match &self.denied {
                Some(arn) => Reply::refuse_json(
                    403,
                    denied,
                    &format!(
                        "User: {arn} is not authorized to perform: bedrock:ListFoundationModels because no identity-based policy allows the bedrock:ListFoundationModels action"
                    ),
                ),
                None => Reply::ok(json!({"modelSummaries": []}).to_string()),
            },
            found => {
                if let Some(it) = found {
                    it.unknown_for -= 1;
                }
                Reply::refuse_json(403, denied, "Authentication failed: Please make sure your API Key is valid.")
            }
        }
    }
}

fn date(seconds: i64) -> String {
    DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap()
}

fn xml(it: &Credential) -> String {
    let Credential { id, created, expires, active, .. } = it;
    let status = if *active { "Active" } else { "Inactive" };
    let expires = expires.map(|at| format!("<ExpirationDate>{}</ExpirationDate>", date(at))).unwrap_or_default();
    format!(
        "<CreateDate>{}</CreateDate>{expires}<ServiceName>bedrock.amazonaws.com</ServiceName>\
         <ServiceCredentialAlias>{USER}-at-123456789012</ServiceCredentialAlias>\
         <ServiceSpecificCredentialId>{id}</ServiceSpecificCredentialId><UserName>{USER}</UserName><Status>{status}</Status>",
        date(*created)
    )
}

/// A secret with a key of the user, and AWS.
struct Bedrock {
    cloud: Arc<Mutex<Cloud>>,
    aws: StandIn,
    world: World,
    first: Credential,
}

impl Bedrock {
    #[allow(clippy::needless_pass_by_value, reason = "json! makes one")]
    fn start(extra: Value) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap();
        let mut cloud = Cloud { credentials: Vec::new(), made: 0, gone: false, denied: None, unknown_for: 0, now };
        // A month ago.
        cloud.now -= 30 * DAY;
        let first = cloud.make(None);
        cloud.now = now;
        let mut secret = json!({
            "kind": "bedrock-api-key", "username": USER, "AWS_BEARER_TOKEN_BEDROCK": first.secret, "credentialid": first.id,
            "model": "kept"
        });
        secret.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        secret.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let mut world = World::new(&secret.to_string());
        let aws = StandIn::start(None);
        world.services.other = Some(aws.services());
        let it = Self { cloud: Arc::new(Mutex::new(cloud)), aws, world, first };
        it.usual();
        it
    }

    fn cloud(&self) -> std::sync::MutexGuard<'_, Cloud> {
        self.cloud.lock().unwrap()
    }

    /// All is answered by the cloud.
    fn usual(&self) {
        let cloud = Arc::clone(&self.cloud);
        self.aws.rule(move |asked| cloud.lock().unwrap().answer(asked));
    }

    /// One action is refused with this code.
    fn refuse(&self, action: &'static str, code: &'static str) {
        let cloud = Arc::clone(&self.cloud);
        self.aws.rule(
            move |asked| {
                if asked.action() == action { Reply::refuse(code) } else { cloud.lock().unwrap().answer(asked) }
            },
        );
    }

    /// The ids of the active keys, oldest first.
    fn keys(&self) -> Vec<String> {
        self.cloud().credentials.iter().filter(|it| it.active).map(|it| it.id.clone()).collect()
    }

    fn id(&self, label: &str) -> String {
        self.world.field(label, "credentialid").unwrap()
    }

    /// Neither message nor notes may have a key.
    fn assert_silent(&self, said: &str) {
        for it in &self.cloud().credentials {
            assert!(!said.contains(&it.secret), "{said}");
        }
    }

    fn check(&self, error: &Error, class: Class, code: Code, named: &str, hint: &str) {
        assert_eq!((error.class(), error.code()), (class, code), "{error}");
        assert!(error.to_string().contains(named), "`{named}` is not in: {error}");
        assert!(error.remedy().contains(hint), "`{hint}` is not in: {error}");
        self.assert_silent(&format!("{error} {error:?}"));
    }
}

#[tokio::test]
async fn three_rotations_keep_the_old_key_until_the_next() {
    let bedrock = Bedrock::start(json!({"credentialagedays": 90}));
    let mut before = bedrock.first.id.clone();
    for (number, token) in [TOKEN, THIRD, "fourth-version-000000000000000000000"].into_iter().enumerate() {
        if number > 0 {
            bedrock.cloud().now += 30 * DAY;
            bedrock.world.service.begin_rotation(SECRET, token).unwrap();
        }
        for step in STEPS {
            bedrock.world.step_for(step, token).await.unwrap();
            let keys = bedrock.keys();
            assert!(keys.len() <= 2 && keys.contains(&bedrock.id("AWSCURRENT")), "{step}: {keys:?}");
        }
        let now = bedrock.id("AWSCURRENT");
        assert_eq!(bedrock.keys(), [before.clone(), now.clone()]);
        let made = bedrock.cloud().credentials[1].clone();
        assert_eq!(bedrock.world.field("AWSCURRENT", "AWS_BEARER_TOKEN_BEDROCK").unwrap(), made.secret);
        assert_eq!(made.expires, Some(made.created + 90 * DAY));
        assert_eq!(bedrock.world.field("AWSCURRENT", "model").unwrap(), "kept");
        before = now;
    }
    // setSecret, testSecret and finishSecret try the key; no other key is ever sent.
    assert_eq!(bedrock.aws.asked(MODELS), 9);
    let log = bedrock.aws.log();
    let ids = |action: &str| -> Vec<String> {
        log.iter()
            .filter(|it| it.action() == action)
            .map(|it| it.form("ServiceSpecificCredentialId").unwrap())
            .collect()
    };
    let deleted = ids("DeleteServiceSpecificCredential");
    assert_eq!(deleted.first(), Some(&bedrock.first.id));
    assert_eq!(deleted, ids("UpdateServiceSpecificCredential"));
    let first = |action: &str| log.iter().position(|asked| asked.action() == action).unwrap();
    assert!(first("UpdateServiceSpecificCredential") < first("DeleteServiceSpecificCredential"));
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_by_the_next_try() {
    let mut crashes = 0;
    for step in STEPS {
        for point in 0.. {
            let mut bedrock = Bedrock::start(json!({"credentialagedays": 60}));
            for earlier in STEPS.iter().take_while(|it| **it != step) {
                bedrock.world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, bedrock.world.step(step)).await.is_none();
            bedrock.world.services.other = None;
            bedrock.aws.settle().await;
            bedrock.world.services.other = Some(bedrock.aws.services());
            assert!(bedrock.keys().contains(&bedrock.first.id), "{step}, {point}");
            bedrock.world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
            assert_eq!(bedrock.keys(), [bedrock.first.id.clone(), bedrock.id("AWSCURRENT")], "{step}, {point}");
            assert_eq!(bedrock.cloud().credentials.len(), 2);
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
    for age in [json!({}), json!({"credentialagedays": "30"})] {
        let bedrock = Bedrock::start(age);
        let cloud = Arc::clone(&bedrock.cloud);
        bedrock.aws.rule(move |asked| {
            let answer = cloud.lock().unwrap().answer(asked);
            if asked.action() == "CreateServiceSpecificCredential" { Reply::Lose } else { answer }
        });
        let error = bedrock.world.step("createSecret").await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("something may have been changed"), "{error}");
        assert_eq!((bedrock.aws.asked("CreateServiceSpecificCredential"), bedrock.keys().len()), (1, 2));
        bedrock.usual();
        bedrock.world.rotate(TOKEN).await.unwrap();
        assert_eq!(bedrock.keys(), [bedrock.first.id.clone(), bedrock.id("AWSCURRENT")]);
    }
}

#[tokio::test]
async fn a_key_that_may_be_somebody_elses_is_never_deleted() {
    type Change = fn(&mut Credential);
    let cases: [(Value, Change, &str); 4] = [
        (json!({}), |it| it.created -= 2, "older than the rotation"),
        (json!({}), |it| it.expires = Some(it.created + 30 * DAY), "does not expire when"),
        (json!({"credentialagedays": 30}), |it| it.expires = None, "does not expire when"),
        (json!({"credentialagedays": 30}), |it| it.expires = Some(it.created + 32 * DAY), "does not expire when"),
    ];
    for (age, change, named) in cases {
        let bedrock = Bedrock::start(age);
        let days = bedrock.world.field("AWSCURRENT", "credentialagedays").is_some().then_some(30);
        let mut foreign = bedrock.cloud().make(days);
        change(&mut foreign);
        bedrock.cloud().credentials[1] = foreign.clone();
        let error = bedrock.world.step("createSecret").await.unwrap_err();
        bedrock.check(
            &error,
            Class::Config,
            Code::KeyLimit,
            named,
            &format!(
                "aws iam delete-service-specific-credential --user-name {USER} --service-specific-credential-id {}",
                foreign.id
            ),
        );
        assert!(error.to_string().contains("two Bedrock API keys"), "{error}");
        assert_eq!(bedrock.keys(), [bedrock.first.id.clone(), foreign.id.clone()]);
        let asked: Vec<_> = bedrock.aws.log().iter().map(Asked::action).collect();
        assert_eq!(asked, ["ListServiceSpecificCredentials"]);
        bedrock.cloud().credentials.pop();
        bedrock.world.rotate(TOKEN).await.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_key_is_left_alone_where_there_is_room_beside_it() {
    let bedrock = Bedrock::start(json!({}));
    bedrock.cloud().credentials[0].id = "ACCAOFSOMEBODYELSE00".to_owned();
    bedrock.world.rotate(TOKEN).await.unwrap();
    assert_eq!(bedrock.keys(), ["ACCAOFSOMEBODYELSE00".to_owned(), bedrock.id("AWSCURRENT")]);
}

#[tokio::test]
async fn a_first_key_is_made_for_a_secret_without_one() {
    let bedrock = Bedrock::start(json!({"AWS_BEARER_TOKEN_BEDROCK": null, "credentialid": null}));
    bedrock.cloud().credentials.clear();
    bedrock.world.rotate(TOKEN).await.unwrap();
    assert_eq!(bedrock.keys(), [bedrock.id("AWSCURRENT")]);
}

#[tokio::test]
async fn a_limit_reached_in_between_is_told() {
    let bedrock = Bedrock::start(json!({}));
    bedrock.refuse("CreateServiceSpecificCredential", "LimitExceeded");
    let error = bedrock.world.step("createSecret").await.unwrap_err();
    bedrock.check(&error, Class::Config, Code::KeyLimit, "two Bedrock API keys", "list-service-specific-credentials");
}

#[tokio::test]
async fn a_user_that_is_gone_and_a_key_deleted_by_hand() {
    let bedrock = Bedrock::start(json!({}));
    bedrock.cloud().credentials.clear();
    bedrock.world.rotate(TOKEN).await.unwrap();
    assert_eq!(bedrock.keys(), [bedrock.id("AWSCURRENT")]);
    // The user goes between the list and the new key, and altogether.
    bedrock.world.service.begin_rotation(SECRET, THIRD).unwrap();
    bedrock.refuse("CreateServiceSpecificCredential", "NoSuchEntity");
    let error = bedrock.world.step_for("createSecret", THIRD).await.unwrap_err();
    bedrock.check(&error, Class::Config, Code::Request, "NoSuchEntity", "the user exists");
    assert!(!error.to_string().contains("may have been changed"), "{error}");
    bedrock.usual();
    bedrock.cloud().gone = true;
    let error = bedrock.world.step_for("createSecret", THIRD).await.unwrap_err();
    bedrock.check(&error, Class::Config, Code::Request, "ListServiceSpecificCredentials", "the user exists");
}

#[tokio::test]
async fn a_key_is_waited_for_until_bedrock_knows_it_and_not_for_ever() {
    let bedrock = Bedrock::start(json!({}));
    bedrock.cloud().unknown_for = 3;
    bedrock.world.step("createSecret").await.unwrap();
    bedrock.world.step("setSecret").await.unwrap();
    assert_eq!(bedrock.aws.asked(MODELS), 4);
    // Somebody switches it off.
    bedrock.cloud().credentials[1].active = false;
    let pending = bedrock.id("AWSPENDING");
    for step in ["testSecret", "finishSecret"] {
        let error = bedrock.world.step(step).await.unwrap_err();
        let named = format!("Bedrock refuses the Bedrock API key {pending} of");
        bedrock.check(
            &error,
            Class::Rejected(Which::Pending),
            Code::WrongPassword,
            &named,
            "Active and has not expired",
        );
    }
    // What stands before Bedrock may answer without a code.
    bedrock.aws.rule(|_| Reply::Say(403, Vec::new(), r#"{"Message":"Authentication failed"}"#.to_owned()));
    let error = bedrock.world.step("testSecret").await.unwrap_err();
    bedrock.check(&error, Class::Rejected(Which::Pending), Code::WrongPassword, "an error without a code", "Active");
    assert_eq!(bedrock.id("AWSCURRENT"), bedrock.first.id);
    assert_eq!(bedrock.keys(), std::slice::from_ref(&bedrock.first.id));
}

#[tokio::test]
async fn what_says_nothing_of_the_key_is_no_refusal() {
    let bedrock = Bedrock::start(json!({}));
    bedrock.world.step("createSecret").await.unwrap();
    for (status, code, expected) in [
        (500, "InternalServerException", Code::Aws),
        (503, "", Code::Aws),
        (429, "ThrottlingException", Code::Throttled),
    ] {
        bedrock.aws.rule(move |_| Reply::refuse_json(status, code, "said so"));
        let error = bedrock.world.step("testSecret").await.unwrap_err();
        assert!(error.is_transient() && error.code() == expected, "{error}");
    }
    bedrock.aws.rule(|_| Reply::refuse_json(400, "ValidationException", "said so"));
    let error = bedrock.world.step("testSecret").await.unwrap_err();
    bedrock.check(&error, Class::Config, Code::Request, "ValidationException: said so", "");
}

#[tokio::test]
async fn a_denial_that_names_the_user_proves_the_key_and_is_noted() {
    let bedrock = Bedrock::start(json!({"userarn": ARN}));
    bedrock.cloud().denied = Some(ARN.to_owned());
    let notes = bedrock.world.rotate_with_notes(TOKEN).await.unwrap();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes.iter().all(|it| it.contains("known to Bedrock") && it.contains("bedrock:ListFoundationModels")));
    bedrock.assert_silent(&notes.concat());
    assert_eq!(bedrock.keys(), [bedrock.first.id.clone(), bedrock.id("AWSCURRENT")]);
    for (extra, arn) in [
        (json!({}), "arn:aws:iam::123456789012:user/apps/another"),
        (json!({}), "arn:aws:iam::210987654321:user/pipeline"),
        (json!({"userarn": ARN}), "arn:aws:iam::123456789012:user/pipeline"),
    ] {
        let bedrock = Bedrock::start(extra);
        bedrock.world.step("createSecret").await.unwrap();
        bedrock.cloud().denied = Some(arn.to_owned());
        let error = bedrock.world.step("setSecret").await.unwrap_err();
        bedrock.check(&error, Class::Rejected(Which::Pending), Code::WrongPassword, arn, "name the key's own user");
    }
    // A role is nobody's key.
    let bedrock = Bedrock::start(json!({}));
    bedrock.world.step("createSecret").await.unwrap();
    bedrock.cloud().denied = Some("arn:aws:sts::123456789012:assumed-role/x/y".to_owned());
    assert_eq!(bedrock.world.step("testSecret").await.unwrap_err().code(), Code::WrongPassword);
}

#[tokio::test]
async fn a_key_that_will_expire_too_early_is_noted() {
    // The key before is 30 days old.
    for (days, expires, noted) in [
        (59, None, Some("expires in 59 days, and the one before it is 30 days old")),
        (60, None, None),
        (90, Some(-1), Some("AWSCURRENT's key had expired")),
        (90, Some(1), None),
    ] {
        let bedrock = Bedrock::start(json!({"credentialagedays": days}));
        let now = bedrock.cloud().now;
        bedrock.cloud().credentials[0].expires = expires.map(|days| now + days * DAY);
        let notes = bedrock.world.rotate_with_notes(TOKEN).await.unwrap();
        assert_eq!(notes.len(), usize::from(noted.is_some()), "{days}: {notes:?}");
        assert!(noted.is_none_or(|noted| notes[0].contains(noted)), "{notes:?}");
    }
    let bedrock = Bedrock::start(json!({"credentialagedays": 20}));
    let notes = bedrock.world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes[0].contains("raise `credentialagedays` to 60"), "{notes:?}");
}

#[tokio::test]
async fn a_missing_permission_names_action_and_user() {
    for action in [
        "ListServiceSpecificCredentials",
        "CreateServiceSpecificCredential",
        "UpdateServiceSpecificCredential",
        "DeleteServiceSpecificCredential",
    ] {
        let bedrock = Bedrock::start(json!({}));
        let withdraws = action.starts_with('U') || action.starts_with('D');
        if withdraws {
            bedrock.world.rotate(TOKEN).await.unwrap();
            bedrock.world.service.begin_rotation(SECRET, THIRD).unwrap();
        }
        bedrock.refuse(action, "AccessDenied");
        let token = if withdraws { THIRD } else { TOKEN };
        let error = bedrock.world.step_for("createSecret", token).await.unwrap_err();
        let named = format!("{action} of arn:aws:iam::123456789012:user/{USER} ");
        bedrock.check(&error, Class::Config, Code::AccessDenied, &named, &format!("allow iam:{action} on it"));
        assert!(bedrock.keys().contains(&bedrock.id("AWSCURRENT")), "{action}");
    }
}

#[tokio::test]
async fn fields_that_cannot_be_used_are_refused_before_anything_is_asked() {
    for (extra, named) in [
        (json!({"userarn": "arn:aws:iam::210987654321:user/pipeline"}), "not in the account of the secret"),
        (json!({"userarn": "arn:aws:iam::123456789012:user/another"}), "name two users"),
        (json!({"username": null}), "field \"username\" is missing"),
        (json!({"credentialagedays": 0}), "from 1 to 36600"),
        (json!({"credentialagedays": 36_601}), "from 1 to 36600"),
        (json!({"region": "../"}), "field \"region\" is no name of a Region"),
    ] {
        let bedrock = Bedrock::start(extra);
        let error = bedrock.world.step("createSecret").await.unwrap_err();
        bedrock.check(&error, Class::Config, Code::Field, named, "");
        assert!(bedrock.aws.log().is_empty());
    }
}

#[tokio::test]
async fn the_live_key_and_those_of_other_users_are_not_withdrawn() {
    let bedrock = Bedrock::start(json!({}));
    bedrock.world.rotate(TOKEN).await.unwrap();
    let (now, key) = (bedrock.id("AWSCURRENT"), bedrock.world.field("AWSCURRENT", "AWS_BEARER_TOKEN_BEDROCK").unwrap());
    // Somebody edits the secret: AWSPREVIOUS and AWSCURRENT hold the live key.
    let edited = json!({"kind": "bedrock-api-key", "username": USER, "AWS_BEARER_TOKEN_BEDROCK": key, "credentialid": now, "note": 1});
    bedrock
        .world
        .service
        .put(
            SECRET,
            "edited-version-000000000000000000000",
            Payload::Text(edited.to_string()),
            &["AWSCURRENT".to_owned()],
        )
        .unwrap();
    bedrock.cloud().credentials.remove(0);
    bedrock.world.service.update_stage(SECRET, "AWSPENDING", None, Some(TOKEN)).unwrap();
    bedrock.world.service.begin_rotation(SECRET, THIRD).unwrap();
    bedrock.world.rotate(THIRD).await.unwrap();
    assert_eq!(bedrock.keys(), [now, bedrock.id("AWSCURRENT")]);
    assert_eq!(bedrock.aws.asked("DeleteServiceSpecificCredential"), 0);

    // Somebody puts another user into the secret: AWSPREVIOUS holds a key of whom this secret is no longer for.
    let bedrock = Bedrock::start(json!({}));
    let version = "moved-version-0000000000000000000000";
    let moved = json!({"kind": "bedrock-api-key", "username": USER, "AWS_BEARER_TOKEN_BEDROCK": "new", "credentialid": "ACCAANOTHER"});
    let payload = Payload::Text(moved.to_string());
    bedrock.world.service.put(SECRET, version, payload, &["AWSCURRENT".to_owned()]).unwrap();
    let previous = bedrock.world.value("AWSPREVIOUS").unwrap();
    assert!(previous.contains(&bedrock.first.id));
    bedrock
        .world
        .service
        .edit(SECRET, |record| {
            let version =
                record.versions.iter_mut().find(|it| it.stages.iter().any(|stage| stage == "AWSPREVIOUS")).unwrap();
            version.value = Some(Payload::Text(previous.replace(&format!("\"{USER}\""), "\"another\"")));
        })
        .unwrap();
    bedrock.world.rotate(TOKEN).await.unwrap();
    assert!(bedrock.keys().contains(&bedrock.first.id), "{:?}", bedrock.keys());
    assert_eq!(bedrock.aws.asked("DeleteServiceSpecificCredential"), 0);
}

#[tokio::test]
async fn requests_are_as_botocore_writes_them_and_it_reads_the_stand_ins_answers() {
    let bedrock = Bedrock::start(json!({"credentialagedays": 90}));
    bedrock.world.rotate(TOKEN).await.unwrap();
    bedrock.world.service.begin_rotation(SECRET, THIRD).unwrap();
    bedrock.world.rotate(THIRD).await.unwrap();
    let moto = Moto::start().await.unwrap();
    let id = json!({"UserName": USER, "ServiceSpecificCredentialId": bedrock.first.id});
    let scope = json!({"UserName": USER, "ServiceName": "bedrock.amazonaws.com"});
    for (operation, mut parameters, more) in [
        ("ListServiceSpecificCredentials", scope.clone(), json!({})),
        ("CreateServiceSpecificCredential", scope, json!({"CredentialAgeDays": 90})),
        ("UpdateServiceSpecificCredential", id.clone(), json!({"Status": "Inactive"})),
        ("DeleteServiceSpecificCredential", id, json!({})),
    ] {
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let expected = moto.run("tests/moto/serialize.py", &["iam", operation, &parameters.to_string()]).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let sent = bedrock.aws.log().into_iter().find(|asked| asked.action() == operation).unwrap();
        let form: BTreeMap<String, String> = form_urlencoded::parse(sent.body.as_bytes()).into_owned().collect();
        let expected: BTreeMap<String, String> = expected["body"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        assert_eq!(form, expected);
    }
    let models = moto
        .run("tests/moto/serialize.py", &["bedrock", "ListFoundationModels", r#"{"byProvider": "amazon"}"#])
        .unwrap();
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!((&models["method"], &models["path"]), (&json!("GET"), &json!("/foundation-models")));

    bedrock.cloud().credentials.remove(0);
    let cloud = Arc::clone(&bedrock.cloud);
    bedrock.aws.rule(move |asked| {
        // It signs with other credentials.
        let mut asked = asked.clone();
        asked.headers.insert("authorization".to_owned(), "Credential=role/".to_owned());
        cloud.lock().unwrap().answer(&asked)
    });
    let read = moto.run("tests/moto/service_specific.py", &[bedrock.aws.url(), USER]).unwrap();
    let read: Value = serde_json::from_str(&read).unwrap();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let listed = [
        "CreateDate",
        "ExpirationDate",
        "ServiceName",
        "ServiceCredentialAlias",
        "ServiceSpecificCredentialId",
        "UserName",
        "Status",
    ];
    let all =
        |value: &Value, more: &[&str]| listed.iter().chain(more).all(|name| names(value).iter().any(|it| it == name));
    assert!(all(&read["made"], &["ServiceCredentialSecret"]) && all(&read["listed"][1], &[]), "{read}");
    assert_eq!(read["listed"].as_array().unwrap().len(), 2);
    assert_eq!(bedrock.keys(), [bedrock.id("AWSCURRENT")]);
}
