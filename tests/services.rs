//! Recipes against the real services that can be had here. They speak plain HTTP on this machine, which secrets must allow.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use data_encoding::BASE64;
use keywheel::error::{Class, Code, Which};
use keywheel_dev::python::{HUB_TOKEN, MLFLOW_PASSWORD, PythonServer};
use serde_json::{Value, json};
use support::aws::{Reply, StandIn};
use support::sql::{self, OLD, assert_error, failure, rotate_again, with, world_with_admin};
use support::*;

/// A server for all tests that run together. It stops with the last of them.
fn shared(
    running: &Mutex<Weak<PythonServer>>,
    start: impl FnOnce() -> std::io::Result<PythonServer>,
) -> Arc<PythonServer> {
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    running.upgrade().unwrap_or_else(|| {
        let server = Arc::new(start().unwrap());
        *running = Arc::downgrade(&server);
        server
    })
}

/// A user of a hub with one token.
struct Hub {
    server: Arc<PythonServer>,
    user: String,
    secret: Value,
    world: World,
}

impl Hub {
    fn server() -> Arc<PythonServer> {
        static HUB: Mutex<Weak<PythonServer>> = Mutex::new(Weak::new());
        shared(&HUB, PythonServer::jupyterhub)
    }

    fn new(user: &str) -> Self {
        let server = Self::server();
        let admin = json!({"token": HUB_TOKEN, "url": server.url()});
        let path = format!("/hub/api/users/{user}");
        let bearer = format!("Bearer {HUB_TOKEN}");
        let ask = |path: &str, body| server.ask("POST", path, &[("authorization", &bearer)], &body).unwrap();
        assert_eq!(ask(&path, Value::Null).0, 201);
        let (status, made) = ask(&format!("{path}/tokens"), json!({"note": "by hand"}));
        assert_eq!(status, 201, "{made}");
        let secret = json!({
            "kind": "jupyterhub", "url": server.url(), "user": user, "token": made["token"], "token_id": made["id"],
            "network": "private", "adminarn": sql::ADMIN
        });
        let world = world_with_admin(&secret, &admin);
        Self { server, user: user.to_owned(), secret, world }
    }

    fn works(&self, token: &str) -> bool {
        let bearer = format!("Bearer {token}");
        let (status, who) =
            self.server.ask("GET", "/hub/api/user", &[("authorization", &bearer)], &Value::Null).unwrap();
        status == 200 && who["name"] == self.user.as_str()
    }

    fn tokens(&self) -> usize {
        let path = format!("/hub/api/users/{}/tokens", self.user);
        let bearer = format!("Bearer {HUB_TOKEN}");
        let (_, all) = self.server.ask("GET", &path, &[("authorization", &bearer)], &Value::Null).unwrap();
        all["api_tokens"].as_array().unwrap().len()
    }

    fn token(&self, label: &str) -> String {
        self.world.field(label, "token").unwrap()
    }
}

#[tokio::test]
async fn a_hubs_tokens_overlap_until_the_next_rotation() {
    let hub = Hub::new("pipeline");
    let old = hub.token("AWSCURRENT");
    hub.world.rotate(TOKEN).await.unwrap();
    let first = hub.token("AWSCURRENT");
    assert!(hub.works(&first) && hub.works(&old));
    rotate_again(&hub.world, THIRD).await.unwrap();
    let second = hub.token("AWSCURRENT");
    assert!(hub.works(&second) && hub.works(&first) && !hub.works(&old));
    assert_eq!(hub.tokens(), 2);
}

#[tokio::test]
async fn a_crash_with_a_hub_is_healed_and_leaves_no_token() {
    let server = Hub::server();
    let mut crashes = 0;
    for step in STEPS {
        for point in 0.. {
            let hub = Hub::new(&format!("{}-{point}", step.to_lowercase()));
            let old = hub.token("AWSCURRENT");
            for earlier in STEPS.iter().take_while(|it| **it != step) {
                hub.world.step(earlier).await.unwrap();
            }
            let stopped = CrashAt::new(point, hub.world.step(step)).await.is_none();
            assert!(hub.works(&hub.token("AWSCURRENT")), "{step}, {point}");
            hub.world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
            assert!(hub.works(&hub.token("AWSCURRENT")) && hub.works(&old), "{step}, {point}");
            // A request that was on its way when its sender crashed may arrive after the next try has looked.
            let mut tokens = hub.tokens();
            if tokens == 3 {
                rotate_again(&hub.world, THIRD).await.unwrap();
                tokens = hub.tokens();
            }
            assert_eq!(tokens, 2, "{step}, {point}");
            if !stopped {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes}");
    drop(server);
}

#[tokio::test]
async fn mistakes_with_a_hub_are_told_apart() {
    let hub = Hub::new("mistakes");
    let admin = |url: &str| json!({"token": HUB_TOKEN, "url": url});
    let url = hub.server.url();
    for (secret, admin, step, class, code, named) in [
        (json!({"network": null}), admin(&url), "createSecret", Class::Config, Code::Address, "is not https"),
        (json!({"user": "nobody"}), admin(&url), "createSecret", Class::Config, Code::Answer, "404"),
        (json!({"adminarn": null}), admin(&url), "createSecret", Class::Config, Code::Field, "\"adminarn\" is missing"),
        (json!({}), json!({"url": url}), "createSecret", Class::Config, Code::Admin, "has no field \"token\""),
        (
            json!({}),
            with(&admin(&url), json!({"token": "a-wrong-token-of-the-service"})),
            "createSecret",
            Class::Rejected(Which::Admin),
            Code::NotPermitted,
            "refuses the administrator's credential",
        ),
        (
            json!({}),
            admin("http://169.254.169.254"),
            "createSecret",
            Class::Config,
            Code::Address,
            "link-local, a metadata service",
        ),
        (json!({}), admin("http://192.0.2.1"), "createSecret", Class::Config, Code::Address, "http is not encrypted"),
    ] {
        let world = world_with_admin(&with(&hub.secret, secret), &admin);
        assert_error(&failure(&world, step).await, class, code, named);
    }
    assert_eq!(hub.tokens(), 1, "nothing was made");
    // A token of somebody else.
    let other = Hub::new("somebody-else");
    let world = world_with_admin(&hub.secret, &admin(&url));
    world.stage(&with(&hub.secret, json!({"token": other.secret["token"], "token_id": "a0"})).to_string());
    let error = world.step("setSecret").await.unwrap_err();
    assert_error(&error, Class::Rejected(Which::Pending), Code::Identity, "the key is that of \"somebody-else\"");
}

/// The recipe of the hub, as a secret brings it.
fn brought() -> Value {
    let (_, _, text) = keywheel::kinds::http::RECIPES.iter().find(|(name, ..)| *name == "jupyterhub").unwrap();
    toml::from_str(text).unwrap()
}

#[tokio::test]
async fn a_secret_may_bring_its_recipe() {
    let hub = Hub::new("brought");
    let admin = json!({"token": HUB_TOKEN, "url": hub.server.url()});
    let toml = toml::to_string(&brought()).unwrap();
    for recipe in [brought(), json!(brought().to_string()), json!(toml)] {
        let secret = with(&hub.secret, json!({"kind": "http", "recipe": recipe}));
        let world = world_with_admin(&secret, &admin);
        world.rotate(TOKEN).await.unwrap();
        assert!(hub.works(&world.field("AWSCURRENT", "token").unwrap()));
    }
    // Its author is nobody who may say where the administrator's credential goes.
    let mut elsewhere = brought();
    elsewhere["create"]["url"] = json!("https://collector.example.com/tokens");
    let secret = with(&hub.secret, json!({"kind": "http", "recipe": elsewhere}));
    let error = failure(&world_with_admin(&secret, &admin), "createSecret").await;
    assert_error(&error, Class::Config, Code::Admin, "does not name collector.example.com:443");
    let mut signed = brought();
    signed["auth"] = json!({"sigv4": {"service": "secretsmanager", "region": "us-east-1"}});
    let secret = with(&hub.secret, json!({"kind": "http", "recipe": signed}));
    let error = failure(&world_with_admin(&secret, &admin), "createSecret").await;
    assert_error(&error, Class::Config, Code::Recipe, "signs for the recipes that come with keywheel alone");
    let mut wrong = brought();
    wrong["create"]["metod"] = json!("POST");
    let secret = with(&hub.secret, json!({"kind": "http", "recipe": wrong}));
    let error = failure(&world_with_admin(&secret, &admin), "createSecret").await;
    assert_error(&error, Class::Config, Code::Recipe, "`create.metod` is no key of a recipe");
}

#[tokio::test]
async fn a_parameter_may_hold_the_recipe() {
    let hub = Hub::new("parameter");
    let admin = json!({"token": HUB_TOKEN, "url": hub.server.url()});
    let secret = with(&hub.secret, json!({"kind": "http", "recipe": "ssm:/recipes/hub"}));
    let mut world = world_with_admin(&secret, &admin);
    let aws = StandIn::start(None);
    world.services.other = Some(aws.services());
    let text = toml::to_string(&brought()).unwrap();
    let parameter = json!({"Parameter": {"Name": "/recipes/hub", "Type": "String", "Value": text}}).to_string();
    aws.rule(move |_| Reply::ok(parameter.clone()));
    world.rotate(TOKEN).await.unwrap();
    assert!(hub.works(&world.field("AWSCURRENT", "token").unwrap()));
    for asked in aws.log() {
        assert_eq!(asked.headers["x-amz-target"], "AmazonSSM.GetParameter");
        assert_eq!(asked.json(), json!({"Name": "/recipes/hub", "WithDecryption": true}));
    }
    assert_eq!(aws.log().len(), 4, "once in each step");
    let world = {
        let mut world = world_with_admin(&secret, &admin);
        world.services.other = Some(aws.services());
        world
    };
    aws.rule(|_| Reply::refuse_json(400, "ParameterNotFound", ""));
    let error = failure(&world, "createSecret").await;
    assert_error(&error, Class::Config, Code::Recipe, "no parameter \"/recipes/hub\"");
    aws.rule(|_| Reply::refuse_json(400, "AccessDeniedException", "not authorized"));
    let error = failure(&world, "createSecret").await;
    assert_error(&error, Class::Config, Code::AccessDenied, "ssm:GetParameter");
}

fn mlflow() -> Arc<PythonServer> {
    static MLFLOW: Mutex<Weak<PythonServer>> = Mutex::new(Weak::new());
    shared(&MLFLOW, PythonServer::mlflow)
}

const USERS: &str = "/api/2.0/mlflow/users";

fn as_user(server: &PythonServer, user: &str, password: &str, method: &str, path: &str, body: &Value) -> u16 {
    let basic = format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()));
    server.ask(method, &format!("{USERS}/{path}"), &[("authorization", &basic)], body).unwrap().0
}

/// Two users of an `MLflow` that take turns, and their secret.
fn mlflow_world(server: &PythonServer, user: &str, changes: Value) -> World {
    for name in [user.to_owned(), format!("{user}-2")] {
        let body = json!({"username": name, "password": OLD});
        assert_eq!(as_user(server, "admin", MLFLOW_PASSWORD, "POST", "create", &body), 200);
    }
    let secret = json!({
        "kind": "mlflow-user", "url": server.url(), "username": user, "password": OLD, "network": "private",
        "alternate_username": format!("{user}-2"), "adminarn": sql::ADMIN
    });
    let admin = json!({"username": "admin", "password": MLFLOW_PASSWORD, "url": server.url()});
    world_with_admin(&with(&secret, changes), &admin)
}

fn mlflow_works(server: &PythonServer, world: &World, label: &str) -> bool {
    let (user, password) = sql::login(world, label);
    as_user(server, &user, &password, "GET", &format!("get?username={user}"), &Value::Null) == 200
}

#[tokio::test]
async fn users_of_mlflow_take_turns() {
    let server = mlflow();
    let world = mlflow_world(&server, "turns", json!({}));
    world.rotate(TOKEN).await.unwrap();
    assert_eq!(sql::login(&world, "AWSCURRENT").0, "turns-2");
    assert!(mlflow_works(&server, &world, "AWSCURRENT") && mlflow_works(&server, &world, "AWSPREVIOUS"));
    rotate_again(&world, THIRD).await.unwrap();
    assert_eq!(sql::login(&world, "AWSCURRENT").0, "turns");
    assert!(mlflow_works(&server, &world, "AWSCURRENT") && mlflow_works(&server, &world, "AWSPREVIOUS"));
    // One alone.
    let world = mlflow_world(&server, "alone", json!({"alternate_username": null}));
    world.rotate(TOKEN).await.unwrap();
    assert_eq!(sql::login(&world, "AWSCURRENT").0, "alone");
    assert!(mlflow_works(&server, &world, "AWSCURRENT") && !mlflow_works(&server, &world, "AWSPREVIOUS"));
}

#[tokio::test]
async fn a_crash_with_mlflow_is_healed() {
    let server = mlflow();
    // Every answer takes it a good part of a second, so not every point is tried: those of one request are alike.
    for (step, point) in [
        ("createSecret", 2),
        ("setSecret", 3),
        ("setSecret", 6),
        ("setSecret", 9),
        ("testSecret", 3),
        ("finishSecret", 4),
    ] {
        let world = mlflow_world(&server, &format!("{}-{point}", step.to_lowercase()), json!({}));
        for earlier in STEPS.iter().take_while(|it| **it != step) {
            world.step(earlier).await.unwrap();
        }
        assert!(CrashAt::new(point, world.step(step)).await.is_none(), "{step}, {point}: it ends before");
        assert!(mlflow_works(&server, &world, "AWSCURRENT"), "{step}, {point}");
        world.rotate(TOKEN).await.unwrap_or_else(|error| panic!("{step}, {point}: {error}"));
        assert!(mlflow_works(&server, &world, "AWSCURRENT") && mlflow_works(&server, &world, "AWSPREVIOUS"));
    }
}
