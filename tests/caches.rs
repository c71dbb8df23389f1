//! Users of ElastiCache and MemoryDB: the services by a stand-in that keeps their rules and gives what it is told to a real
//! Redis; botocore says whether requests are well made, and moto whether MemoryDB's are understood.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keywheel::error::{Class, Code, Effect, Error, Which};
use keywheel_dev::moto::Moto;
use keywheel_dev::redis::Redis;
use keywheel_dev::server::free_port;
use serde_json::{Value, json};
use support::aws::{Asked, Reply, StandIn};
use support::sql::{rotate_again, with};
use support::*;
use tokio::time::Instant;

const OLD: &str = "the old password of a cache";
const ELASTICACHE: &str = "arn:aws:elasticache:us-east-1:123456789012:user:app-id";
const MEMORYDB: &str = "arn:aws:memorydb:us-east-1:123456789012:user/app-id";

/// One user, as the service knows it.
struct User {
    name: String,
    status: &'static str,
    authentication: &'static str,
    passwords: Vec<String>,
    /// Told, and not applied yet.
    next: Option<Vec<String>>,
    /// So often it is asked about before a change is applied.
    delay: usize,
    left: usize,
    redis: Option<Arc<Redis>>,
}

impl User {
    fn apply(&mut self) {
        if let Some(passwords) = self.next.take() {
            let hashes: Vec<_> = passwords.iter().map(|it| format!(">{it}")).collect();
            let mut command = vec!["ACL", "SETUSER", "app", "on", "resetpass"];
            command.extend(hashes.iter().map(String::as_str));
            if let Some(redis) = &self.redis {
                redis.run(&command).unwrap();
            }
            (self.passwords, self.status) = (passwords, "active");
        }
    }

    fn answer(&mut self, asked: &Asked) -> Reply {
        let json = asked.headers.contains_key("x-amz-target");
        let refuse = |code: &str| {
            if json { Reply::refuse_json(400, code, "said so") } else { Reply::refuse(code.trim_end_matches("Fault")) }
        };
        let id = asked.form("UserId").or_else(|| asked.json()["UserName"].as_str().map(str::to_owned)).unwrap();
        if id != "app-id" {
            return refuse("UserNotFoundFault");
        }
        match asked.action().as_str() {
            "DescribeUsers" => {
                if self.left == 0 {
                    self.apply();
                } else {
                    self.left -= 1;
                }
            }
            "ModifyUser" | "UpdateUser" => {
                if self.status != "active" {
                    return refuse("InvalidUserStateFault");
                }
                let form: Vec<_> = (1..4).map_while(|index| asked.form(&format!("Passwords.member.{index}"))).collect();
                let told: Option<Vec<String>> =
                    serde_json::from_value(asked.json()["AuthenticationMode"]["Passwords"].clone()).ok();
                let passwords = told.unwrap_or(form);
                if passwords.is_empty()
                    || passwords.len() > 2
                    || passwords.iter().any(|it| !(16..=128).contains(&it.len()))
                {
                    return if json {
                        refuse("InvalidParameterValueException")
                    } else {
                        refuse("InvalidParameterValue")
                    };
                }
                (self.next, self.status, self.left) = (Some(passwords), "modifying", self.delay);
            }
            other => panic!("{other}"),
        }
        let (name, status, kind, count) = (&self.name, self.status, self.authentication, self.passwords.len());
        if json {
            let authentication = json!({"Type": kind, "PasswordCount": count});
            let user = json!({"Name": name, "Status": status, "Authentication": authentication, "ARN": MEMORYDB});
            return Reply::ok(json!({"Users": [user], "User": user}).to_string());
        }
        let authentication =
            format!("<Authentication><Type>{kind}</Type><PasswordCount>{count}</PasswordCount></Authentication>");
        let user =
            format!("<UserId>app-id</UserId><UserName>{name}</UserName><Status>{status}</Status>{authentication}");
        Reply::ok(match asked.action().as_str() {
            "DescribeUsers" => {
                format!("<R><DescribeUsersResult><Users><member>{user}</member></Users></DescribeUsersResult></R>")
            }
            _ => format!("<R><ModifyUserResult>{user}</ModifyUserResult></R>"),
        })
    }
}

/// A secret, its user, and the service behind a stand-in.
struct Cache {
    world: World,
    aws: StandIn,
    user: Arc<Mutex<User>>,
}

impl Cache {
    fn start(secret: &Value, redis: Option<Arc<Redis>>) -> Self {
        let user = Arc::new(Mutex::new(User {
            name: "app".to_owned(),
            status: "active",
            authentication: "password",
            passwords: vec![OLD.to_owned()],
            next: None,
            delay: 1,
            left: 0,
            redis,
        }));
        let aws = StandIn::start(None);
        let answering = Arc::clone(&user);
        aws.rule(move |asked| answering.lock().unwrap().answer(asked));
        let mut world = World::new(&secret.to_string());
        world.services.other = Some(aws.services());
        world.settings.elasticache.interval = Some("0".to_owned());
        Self { world, aws, user }
    }

    fn user(&self, change: impl FnOnce(&mut User)) {
        change(&mut self.user.lock().unwrap());
    }

    /// The password of a label.
    fn password(&self, label: &str) -> String {
        self.world.field(label, "password").unwrap()
    }
}

fn secret(arn: &str) -> Value {
    let kind = if arn == MEMORYDB { "memorydb-user" } else { "elasticache-user" };
    json!({"kind": kind, "user_arn": arn, "username": "app", "password": OLD})
}

/// A Redis that has the user, and what a secret says of it.
fn redis(tls: bool) -> (Arc<Redis>, Value) {
    let redis = Redis::start(tls).unwrap();
    redis.run(&["ACL", "SETUSER", "app", "on", &format!(">{OLD}"), "~*", "+@all"]).unwrap();
    let place = json!({"host": "localhost", "port": redis.port(), "sslrootcert": redis.root()});
    (Arc::new(redis), place)
}

fn works(redis: &Redis, password: &str) -> bool {
    redis.run_as("app", password, &["PING"]).is_ok()
}

#[tokio::test]
async fn a_secret_of_awss_function_rotates_unchanged_and_two_passwords_live() {
    for tls in [true, false] {
        let (redis, place) = redis(tls);
        let mode = json!({"sslmode": if tls { "verify-full" } else { "disable" }});
        // AWS's secrets name no kind, and may have no password at first.
        let mut awss = with(&with(&secret(ELASTICACHE), place), mode);
        for field in ["kind", "password"] {
            awss.as_object_mut().unwrap().remove(field);
        }
        let cache = Cache::start(&awss, Some(Arc::clone(&redis)));
        let notes = cache.world.rotate_with_notes(TOKEN).await.unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        let first = cache.password("AWSCURRENT");
        assert_eq!(first.len(), 20, "AWS's length");
        assert!(works(&redis, &first) && !works(&redis, OLD));
        rotate_again(&cache.world, THIRD).await.unwrap();
        let second = cache.password("AWSCURRENT");
        assert_eq!(cache.password("AWSPREVIOUS"), first);
        assert!(works(&redis, &second) && works(&redis, &first));
        rotate_again(&cache.world, support::sql::FOURTH).await.unwrap();
        let third = cache.password("AWSCURRENT");
        assert!(works(&redis, &third) && works(&redis, &second) && !works(&redis, &first));
        let kept: Value = serde_json::from_str(&cache.world.value("AWSCURRENT").unwrap()).unwrap();
        assert_eq!(kept, with(&awss, json!({"password": third})));
    }
}

#[tokio::test]
async fn a_crash_at_any_point_is_healed_and_awscurrent_always_works() {
    let (redis, place) = redis(true);
    for arn in [ELASTICACHE, MEMORYDB] {
        let mut crashes = 0;
        for step in STEPS {
            for point in 0.. {
                redis.run(&["ACL", "SETUSER", "app", "resetpass", &format!(">{OLD}")]).unwrap();
                let mut cache = Cache::start(&with(&secret(arn), place.clone()), Some(Arc::clone(&redis)));
                for earlier in STEPS.iter().take_while(|it| **it != step) {
                    cache.world.step(earlier).await.unwrap();
                }
                let stopped = CrashAt::new(point, cache.world.step(step)).await.is_none();
                // The function's connections die with it. What was on its way arrives.
                cache.world.services.other = None;
                cache.aws.settle().await;
                cache.user(User::apply);
                assert!(works(&redis, &cache.password("AWSCURRENT")), "{step}, {point}");
                cache.world.services.other = Some(cache.aws.services());
                cache.world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
                for label in ["AWSCURRENT", "AWSPREVIOUS"] {
                    assert!(works(&redis, &cache.password(label)), "{step}, {point}: {label}");
                }
                assert_eq!(cache.password("AWSPREVIOUS"), OLD);
                if !stopped {
                    break;
                }
                crashes += 1;
            }
        }
        assert!(crashes > 15, "{crashes}");
    }
}

#[tokio::test]
async fn requests_are_as_botocore_writes_them_and_moto_understands_those_of_memorydb() {
    let moto = Moto::start().await.unwrap();
    for (arn, service, describe, change) in [
        (ELASTICACHE, "elasticache", json!({"UserId": "app-id"}), "ModifyUser"),
        (MEMORYDB, "memorydb", json!({"UserName": "app-id"}), "UpdateUser"),
    ] {
        let cache = Cache::start(&secret(arn), None);
        let notes = cache.world.rotate_with_notes(TOKEN).await.unwrap();
        assert_eq!(cache.world.store.calls().len(), 11);
        assert!(notes[0].contains("not signed in") && notes[0].contains("no field \"host\""), "{notes:?}");
        let passwords = json!([cache.password("AWSCURRENT"), OLD]);
        let changed = match service {
            "elasticache" => json!({"UserId": "app-id", "Passwords": passwords}),
            _ => json!({"UserName": "app-id", "AuthenticationMode": {"Type": "password", "Passwords": passwords}}),
        };
        for (operation, parameters) in [("DescribeUsers", describe), (change, changed)] {
            let expected = moto.run("tests/moto/serialize.py", &[service, operation, &parameters.to_string()]).unwrap();
            let expected: Value = serde_json::from_str(&expected).unwrap();
            let log = cache.aws.log();
            let sent = log.iter().find(|asked| asked.action() == operation).unwrap();
            assert_eq!((sent.method.as_str(), sent.path.as_str()), ("POST", "/"));
            if service == "elasticache" {
                let form: BTreeMap<String, String> =
                    form_urlencoded::parse(sent.body.as_bytes()).into_owned().collect();
                assert_eq!(json!(form), expected["body"]);
            } else {
                assert_eq!(sent.json(), serde_json::from_str::<Value>(expected["body"].as_str().unwrap()).unwrap());
                assert_eq!(expected["target"], sent.headers["x-amz-target"]);
            }
            let scope = format!("/us-east-1/{service}/aws4_request");
            assert!(sent.headers["authorization"].contains(&scope), "{}", sent.headers["authorization"]);
        }
        // Asked once each where nothing needs waiting, and once more while the change is under way.
        assert_eq!((cache.aws.asked("DescribeUsers"), cache.aws.asked(change)), (6, 1));
    }

    let count = || moto.run("tests/moto/memorydb_user.py", &["count"]).unwrap();
    moto.run("tests/moto/memorydb_user.py", &["create", OLD]).unwrap();
    assert_eq!(count().trim(), "1");
    let mut world = World::new(&secret(MEMORYDB).to_string().replace("\"app\"", "\"app-id\""));
    world.services.other = Some(support::aws::services(moto.url()));
    world.rotate(TOKEN).await.unwrap();
    assert_eq!(count().trim(), "2");
}

#[tokio::test]
async fn what_cannot_be_rotated_is_refused_before_anything_is_staged() {
    let field = (Class::Config, Code::Field);
    for (changes, class, named) in [
        (
            json!({"user_arn": ELASTICACHE.replace("123456789012", "210987654321")}),
            field,
            "not in the account of the secret",
        ),
        (
            json!({"user_arn": ELASTICACHE.replace(":user:", ":cluster:")}),
            field,
            "must be an ARN as `arn:aws:elasticache:",
        ),
        (json!({"user_arn": MEMORYDB}), field, "must be an ARN as `arn:aws:elasticache:"),
        (json!({"user_arn": "app"}), field, "must be an ARN"),
        (json!({"user_arn": null}), field, "field \"user_arn\" is missing"),
        (json!({"user_arn": ELASTICACHE.replace("app-id", "another")}), (Class::Config, Code::Request), "UserNotFound"),
        (json!({"username": "another"}), field, "the user of arn:aws:elasticache"),
        (json!({"port": 0}), field, "field \"port\""),
        (json!({"sslmode": "prefer"}), field, "sslmode"),
        (
            json!({"kind": "memorydb-user", "user_arn": MEMORYDB.replace("us-east-1", "eu-west-1")}),
            field,
            "not in the Region",
        ),
    ] {
        let cache = Cache::start(&with(&secret(ELASTICACHE), changes.clone()), None);
        let error = cache.world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), class, "{changes}: {error}");
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(cache.world.value("AWSPENDING"), None);
    }
    // AWS's function takes a user in another Region.
    let cache = Cache::start(
        &with(&secret(ELASTICACHE), json!({"user_arn": ELASTICACHE.replace("us-east-1", "eu-west-1")})),
        None,
    );
    cache.world.rotate(TOKEN).await.unwrap();
    assert!(cache.aws.log()[0].headers["authorization"].contains("/eu-west-1/elasticache/"));

    for (authentication, status, named) in
        [("iam", "active", "signs in by IAM"), ("password", "deleting", "is being deleted")]
    {
        let cache = Cache::start(&secret(MEMORYDB), None);
        cache.user(|user| (user.authentication, user.status) = (authentication, status));
        let error = cache.world.step("createSecret").await.unwrap_err();
        assert_eq!((error.class(), error.code()), field, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    for (action, permission) in
        [("DescribeUsers", "elasticache:DescribeUsers"), ("ModifyUser", "elasticache:ModifyUser")]
    {
        let cache = Cache::start(&secret(ELASTICACHE), None);
        let user = Arc::clone(&cache.user);
        cache.aws.rule(move |asked| {
            if asked.action() == action { Reply::refuse("AccessDenied") } else { user.lock().unwrap().answer(asked) }
        });
        let error = cache.world.rotate(TOKEN).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::AccessDenied), "{error}");
        assert!(error.to_string().contains(ELASTICACHE) && error.remedy().contains(permission), "{error}");
    }
}

#[tokio::test]
async fn the_environment_of_awss_function_counts() {
    type Change = fn(&mut keywheel::kind::ElastiCache);
    let cases: [(Change, &str); 4] = [
        (
            |it| it.secret = Some("arn:aws:secretsmanager:us-east-1:123456789012:secret:another-AbCdEf".to_owned()),
            "by SECRET_ARN",
        ),
        (|it| it.user = Some("another".to_owned()), "by USER_NAME"),
        (|it| it.longest_wait = Some("long".to_owned()), "MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS is \"long\""),
        (|it| it.interval = Some("-1".to_owned()), "WAITING_RETRY_INTERVAL_IN_SECONDS is \"-1\""),
    ];
    for (change, named) in cases {
        let mut cache = Cache::start(&secret(ELASTICACHE), None);
        change(&mut cache.world.settings.elasticache);
        let error = cache.world.rotate(TOKEN).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (Class::Config, Code::Environment), "{error}");
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(cache.aws.asked("ModifyUser"), 0);
    }
    let mut cache = Cache::start(&secret(ELASTICACHE), None);
    cache.world.settings.elasticache.user = Some("app".to_owned());
    cache.world.settings.passwords =
        keywheel::password::Environment::read(|name| (name == "PASSWORD_LENGTH").then(|| "8".to_owned()));
    let error = cache.world.step("createSecret").await.unwrap_err();
    assert!(error.to_string().contains("PASSWORD_LENGTH is 8, and the service takes from 16 to 128"), "{error}");
    cache.world.settings.passwords =
        keywheel::password::Environment::read(|name| (name == "PASSWORD_LENGTH").then(|| "64".to_owned()));
    cache.world.rotate(TOKEN).await.unwrap();
    assert_eq!(cache.password("AWSCURRENT").len(), 64);
}

#[tokio::test]
async fn a_change_that_takes_long_is_waited_for_and_told() {
    // Given up when the variable says so.
    let mut cache = Cache::start(&secret(ELASTICACHE), None);
    cache.user(|user| user.delay = usize::MAX);
    cache.world.settings.elasticache.longest_wait = Some("0".to_owned());
    cache.world.settings.elasticache.interval = Some("1".to_owned());
    cache.world.step("createSecret").await.unwrap();
    let error = cache.world.step("setSecret").await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Transient(Effect::Unknown), Code::NotReady), "{error}");
    assert!(error.to_string().contains(&format!("{ELASTICACHE} to be ready; it is `modifying`")), "{error}");
    // Without it, at the end of the function's time.
    cache.world.settings.elasticache.longest_wait = None;
    cache.world.settings.elasticache.interval = Some("0".to_owned());
    let event = json!({"Step": "setSecret", "SecretId": SECRET, "ClientRequestToken": TOKEN});
    let deadline = Instant::now() + Duration::from_millis(300);
    let World { settings, kinds, services, .. } = &cache.world;
    let error = keywheel::handler::handle(event, "request", deadline, settings, kinds, services).await.unwrap_err();
    assert_eq!(error.code(), Code::Deadline, "{error}");
    assert!(
        error.to_string().contains("waiting for arn:aws:elasticache") && error.to_string().contains("`modifying`"),
        "{error}"
    );
    // The next try goes on.
    cache.user(|user| (user.delay, user.left) = (0, 2));
    cache.world.rotate(TOKEN).await.unwrap();
    assert_eq!(cache.user.lock().unwrap().passwords, [cache.password("AWSCURRENT"), OLD.to_owned()]);
}

#[tokio::test]
async fn a_lost_answer_and_somebody_elses_change_are_outwaited() {
    for lost in [true, false] {
        let cache = Cache::start(&secret(MEMORYDB), None);
        let user = Arc::clone(&cache.user);
        let mut first = true;
        cache.aws.rule(move |asked| {
            let mut user = user.lock().unwrap();
            if asked.action() == "UpdateUser" && std::mem::take(&mut first) {
                if lost {
                    user.answer(asked);
                    return Reply::Lose;
                }
                user.next = Some(vec!["somebody else's password".to_owned()]);
                (user.status, user.left) = ("modifying", 1);
            }
            user.answer(asked)
        });
        cache.world.rotate(TOKEN).await.unwrap();
        assert_eq!(cache.user.lock().unwrap().passwords, [cache.password("AWSCURRENT"), OLD.to_owned()], "{lost}");
    }
}

#[tokio::test]
async fn a_refused_password_ends_the_rotation_and_an_impossible_old_one_is_left_out() {
    let cache = Cache::start(&secret(ELASTICACHE), None);
    let user = Arc::clone(&cache.user);
    cache.aws.rule(move |asked| match asked.action().as_str() {
        "ModifyUser" => Reply::refuse("InvalidParameterValue"),
        _ => user.lock().unwrap().answer(asked),
    });
    let error = cache.world.rotate(TOKEN).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Config, Code::PasswordPolicy), "{error}");
    assert_eq!(cache.world.labels(), ["AWSCURRENT=first"]);

    let cache = Cache::start(&with(&secret(ELASTICACHE), json!({"password": "short"})), None);
    let notes = cache.world.rotate_with_notes(TOKEN).await.unwrap();
    assert!(notes[0].contains("none that the service takes"), "{notes:?}");
    assert_eq!(cache.user.lock().unwrap().passwords, [cache.password("AWSCURRENT")]);
}

async fn tested(place: Value, spoil: impl FnOnce(&Cache)) -> Result<Vec<String>, Error> {
    let cache = Cache::start(&with(&secret(ELASTICACHE), place), None);
    cache.world.step("createSecret").await.unwrap();
    cache.world.step("setSecret").await.unwrap();
    spoil(&cache);
    let tested = cache.world.rotate_with_notes(TOKEN).await;
    for secret in [OLD.to_owned(), cache.world.field("AWSPENDING", "password").unwrap_or_else(|| "-".repeat(99))] {
        assert!(!format!("{tested:?}").contains(&secret), "{tested:?}");
    }
    tested
}

#[tokio::test]
async fn the_sign_in_tells_what_is_wrong() {
    // The user's group does not belong to this cache, so its passwords never get there.
    let (redis, place) = redis(true);
    let error = tested(place.clone(), |_| ()).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (Class::Rejected(Which::Pending), Code::WrongPassword), "{error}");
    assert!(error.to_string().contains(&format!("localhost:{} refuses user \"app\"", redis.port())), "{error}");

    let error = tested(with(&place, json!({"sslrootcert": null})), |_| ()).await.unwrap_err();
    assert_eq!(error.code(), Code::TlsTrust, "{error}");
    let error = tested(with(&place, json!({"sslmode": "disable"})), |_| ()).await.unwrap_err();
    assert_eq!(error.code(), Code::Server, "{error}");
    let (_plain, plain) = self::redis(false);
    let error = tested(plain, |_| ()).await.unwrap_err();
    assert_eq!(error.code(), Code::TlsOff, "{error}");
    assert!(error.remedy().contains("\"sslmode\": \"disable\""), "{error}");
    // No way to the cache: the service's word must do, and the log says so.
    for nowhere in [json!({"port": free_port().unwrap()}), json!({"host": "no.invalid"})] {
        let notes = tested(with(&place, nowhere), |_| ()).await.unwrap();
        assert!(notes.iter().any(|note| note.contains("not signed in, but arn:aws:elasticache")), "{notes:?}");
    }
}
