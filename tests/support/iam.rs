//! What the tests of IAM's kinds share: a user in moto, and AWS behind a stand-in that passes on to moto.

use std::sync::Arc;

use keywheel::services::aws::Aws;
use keywheel::services::{Answer, Input, Key, Operation, Protocol, Request, Service, Services as _};
use keywheel_dev::moto::Moto;
use serde_json::{Value, json};

use super::aws::{Asked, Reply, StandIn, services};
use super::{SECRET, TOKEN, World};

pub const USER: &str = "pipeline";
pub const ARN: &str = "arn:aws:iam::123456789012:user/apps/pipeline";

const IAM: Service = Service {
    name: "IAM",
    prefix: "iam",
    signs_as: None,
    id: "IAM",
    protocol: Protocol::Query("2010-05-08"),
    global: true,
};
const STS: Service = Service {
    name: "STS",
    prefix: "sts",
    signs_as: None,
    id: "STS",
    protocol: Protocol::Query("2011-06-15"),
    global: false,
};

/// A user in moto with one key, its secret, and AWS behind a stand-in.
pub struct Iam {
    /// moto itself, asked by the test.
    direct: Aws,
    _moto: Arc<Moto>,
    pub aws: StandIn,
    pub world: World,
    pub first: (String, String),
}

impl Iam {
    #[allow(clippy::needless_pass_by_value, reason = "json! makes one")]
    pub async fn start(extra: Value) -> Self {
        Self::on(Arc::new(Moto::start().await.unwrap()), &extra).await
    }

    pub async fn on(moto: Arc<Moto>, extra: &Value) -> Self {
        let (direct, aws) = (services(moto.url()), StandIn::start(Some(moto.url())));
        let iam = Self { direct, _moto: moto, aws, world: World::new("{}"), first: Default::default() };
        iam.run("CreateUser", &[("UserName", USER), ("Path", "/apps/")]).await;
        let first = iam.new_key().await;
        let mut secret = json!({
            "kind": "iam-access-key", "username": USER, "AWS_ACCESS_KEY_ID": first.0, "AWS_SECRET_ACCESS_KEY": first.1
        });
        secret.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        secret.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let secret = secret.to_string().replace("FIRST-ID", &first.0).replace("FIRST-KEY", &first.1);
        let mut world = World::new(&secret);
        world.services.other = Some(iam.aws.services());
        Self { world, first, ..iam }
    }

    /// Asks moto itself.
    pub async fn run(&self, name: &'static str, form: &[(&str, &str)]) -> Answer {
        self.run_as(&IAM, name, form, None).await
    }

    async fn run_as(
        &self,
        service: &'static Service,
        name: &'static str,
        form: &[(&str, &str)],
        key: Option<Key<'_>>,
    ) -> Answer {
        let operation = Operation { name, action: name, service, repeatable: false };
        let request = Request { operation: &operation, of: ARN, region: "us-east-1", input: Input::Form(form), key };
        self.direct.ask(&request).await.unwrap_or_else(|refusal| panic!("{}", refusal.error))
    }

    pub async fn new_key(&self) -> (String, String) {
        let made = self.run("CreateAccessKey", &[("UserName", USER)]).await;
        let field = |name| made.text(&["CreateAccessKeyResult", "AccessKey", name]).unwrap();
        (field("AccessKeyId"), field("SecretAccessKey"))
    }

    /// The ids of the user's active keys.
    pub async fn keys(&self) -> Vec<String> {
        let listed = self.run("ListAccessKeys", &[("UserName", USER)]).await;
        let keys = listed.items(&["ListAccessKeysResult", "AccessKeyMetadata"], "member", &["AccessKeyId", "Status"]);
        let active = keys.into_iter().filter(|key| key[1].as_deref() == Some("Active"));
        active.map(|key| key[0].clone().unwrap()).collect()
    }

    pub async fn delete(&self, id: &str) {
        self.run("DeleteAccessKey", &[("UserName", USER), ("AccessKeyId", id)]).await;
    }

    pub async fn delete_user(&self) {
        for key in self.keys().await {
            self.delete(&key).await;
        }
        self.run("DeleteUser", &[("UserName", USER)]).await;
    }

    /// Whose key it is, as STS says.
    pub async fn owner(&self, id: &str, key: &str) -> String {
        let said = self.run_as(&STS, "GetCallerIdentity", &[], Some(Key::Pair(id, key))).await;
        said.text(&["GetCallerIdentityResult", "Arn"]).unwrap()
    }

    pub fn id(&self, label: &str) -> String {
        self.world.field(label, "AWS_ACCESS_KEY_ID").unwrap()
    }

    pub fn begin(&self, token: &str) {
        self.world.service.update_stage(SECRET, "AWSPENDING", None, Some(TOKEN)).ok();
        self.world.service.begin_rotation(SECRET, token).unwrap();
    }

    /// The rule for one action; all else is passed on.
    pub fn rule(&self, action: &'static str, mut reply: impl FnMut(&Asked) -> Reply + Send + 'static) {
        self.aws.rule(move |asked| if asked.action() == action { reply(asked) } else { Reply::Pass });
    }

    pub fn asked(&self, action: &str) -> usize {
        self.aws.asked(action)
    }
}
