//! Users of Amazon ElastiCache (Redis OSS and Valkey) and of Amazon MemoryDB. Each may have two passwords, so the old one
//! stays valid until the next rotation.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::api::{Api, Asking, PASSWORD, Profile, Proof, State, arn_in, missing, unless_unreachable};
use crate::error::{Code, Error, Result, Which};
use crate::kind::{Field, Rotation};
use crate::password::Limits;
use crate::resp::{PORT, Session};
use crate::secret::{Exposed, Secret};
use crate::services::{Answer, Input, Operation, Protocol, Refusal, Service};
use crate::tls::{Ask, SSL, SSLCERT, SSLKEY, SSLMODE, SSLROOTCERT};
use crate::wire::Place;

/// The kind of either service.
pub(super) struct Cache(pub(super) &'static Flavour);

/// What the two services differ in.
pub(super) struct Flavour {
    profile: Profile,
    /// The service in ARNs.
    service: &'static str,
    describe: Operation,
    change: Operation,
    usual: usize,
    /// Whether a user in another Region is taken, as AWS's function takes it.
    anywhere: bool,
}

const fn operation(service: &'static Service, name: &'static str, action: &'static str) -> Operation {
    Operation { name, action, service, repeatable: true }
}

const ELASTICACHE_API: Service = Service {
    name: "ElastiCache",
    prefix: "elasticache",
    signs_as: None,
    id: "ElastiCache",
    protocol: Protocol::Query("2015-02-02"),
    global: false,
};
const MEMORYDB_API: Service = Service {
    name: "MemoryDB",
    prefix: "memory-db",
    signs_as: Some("memorydb"),
    id: "MemoryDB",
    protocol: Protocol::Json("AmazonMemoryDB"),
    global: false,
};

const FIELDS: &[Field] = &[
    Field::setting("user_arn", "ARN of the user, in the account of the secret; `userarn` is the same"),
    Field::required("username", "the user's name, with which clients sign in"),
    Field::optional("password", "", "the password; the first rotation makes one where there is none"),
    Field::optional("host", "", "an endpoint of a cache that has the user: with it, each new password is tried there"),
    Field::optional("port", "6379", "its port").number(),
    SSLMODE,
    SSL,
    SSLROOTCERT,
    SSLCERT,
    SSLKEY,
];

pub(super) const ELASTICACHE: Flavour = Flavour {
    profile: Profile {
        names: &["elasticache-user"],
        summary: "the password of a user of Amazon ElastiCache; the old one stays valid until the next rotation",
        example: r#"{"kind":"elasticache-user","user_arn":"arn:aws:elasticache:eu-central-1:123456789012:user:app","username":"app","password":"…"}"#,
        fields: FIELDS,
        permissions: &["elasticache:DescribeUsers", "elasticache:ModifyUser"],
        bad_password: &["InvalidParameterValue"],
        busy: &["InvalidUserState"],
    },
    service: "elasticache",
    describe: operation(&ELASTICACHE_API, "DescribeUsers", "elasticache:DescribeUsers"),
    change: operation(&ELASTICACHE_API, "ModifyUser", "elasticache:ModifyUser"),
    usual: 20,
    anywhere: true,
};

pub(super) const MEMORYDB: Flavour = Flavour {
    profile: Profile {
        names: &["memorydb-user"],
        summary: "the password of a user of Amazon MemoryDB; the old one stays valid until the next rotation",
        example: r#"{"kind":"memorydb-user","user_arn":"arn:aws:memorydb:eu-central-1:123456789012:user/app","username":"app","password":"…"}"#,
        fields: FIELDS,
        permissions: &["memorydb:DescribeUsers", "memorydb:UpdateUser"],
        bad_password: &["InvalidParameterValueException"],
        busy: &["InvalidUserStateFault"],
    },
    service: "memorydb",
    describe: operation(&MEMORYDB_API, "DescribeUsers", "memorydb:DescribeUsers"),
    change: operation(&MEMORYDB_API, "UpdateUser", "memorydb:UpdateUser"),
    usual: 32,
    anywhere: false,
};

/// What a service says of a user.
struct User {
    name: Option<String>,
    status: Option<String>,
    authentication: Option<String>,
}

impl User {
    fn read(answer: &Answer) -> Option<Self> {
        if let Some(user) = answer.json().pointer("/Users/0") {
            let text = |path: &str| user.pointer(path).and_then(Value::as_str).map(str::to_owned);
            return Some(Self {
                name: text("/Name"),
                status: text("/Status"),
                authentication: text("/Authentication/Type"),
            });
        }
        let text = |path: &[&str]| answer.text(&[&["DescribeUsersResult", "Users", "member"], path].concat());
        let status = Some(text(&["Status"])?);
        Some(Self { name: text(&["UserName"]), status, authentication: text(&["Authentication", "Type"]) })
    }
}

#[async_trait]
impl Api for Cache {
    fn profile(&self) -> &'static Profile {
        &self.0.profile
    }

    fn keeps_current(&self) -> bool {
        true
    }

    /// AWS's secrets for ElastiCache name neither kind nor engine.
    fn recognizes(&self, fields: Exposed<'_>) -> bool {
        let arn = fields.value("user_arn").and_then(Value::as_str).and_then(crate::services::Arn::parse);
        arn.is_some_and(|arn| arn.service == self.0.service)
    }

    fn patience(&self, rotation: &Rotation<'_>) -> Result<(Option<Duration>, Option<Duration>)> {
        let settings = &rotation.settings.elasticache;
        let seconds = |name: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => text.trim().parse().map(|it| Some(Duration::from_secs(it))).map_err(|_| {
                Error::config(Code::Environment, format!("{name} is {text:?}, which is no number of seconds"))
            }),
        };
        Ok((
            seconds("MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS", &settings.longest_wait)?,
            seconds("WAITING_RETRY_INTERVAL_IN_SECONDS", &settings.interval)?,
        ))
    }

    fn resource(&self, rotation: &Rotation<'_>, secret: &Secret) -> Result<String> {
        let settings = &rotation.settings.elasticache;
        if let Some(only) = settings.secret.as_deref().filter(|it| *it != rotation.secret) {
            let message = format!("the function is for the secret {only} alone, by SECRET_ARN");
            return Err(Error::config(Code::Environment, message).hint("unset SECRET_ARN, or name this secret in it"));
        }
        let fields = secret.expose();
        let user = fields.required("username")?;
        fields.number("port", 1, 65_535)?;
        Ask::of(fields)?;
        if let Some(only) = settings.user.as_deref().filter(|it| *it != user) {
            let message =
                format!("field \"username\" is {user:?}, and the function is for {only:?} alone, by USER_NAME");
            return Err(Error::config(Code::Environment, message).hint("unset USER_NAME, or name this user in it"));
        }
        let Flavour { service, anywhere, .. } = *self.0;
        arn_in(rotation, secret, &["user_arn", "userarn"], service, "user", anywhere).map(str::to_owned)
    }

    async fn look(&self, asking: &Asking<'_>) -> Result<State> {
        let name = asking.name();
        let json = json!({"UserName": name});
        let form = [("UserId", name)];
        let input = match self.0.describe.service.protocol {
            Protocol::Query(_) => Input::Form(&form),
            _ => Input::Json(&json),
        };
        let asked = asking.ask(&self.0.describe, input).await;
        let answer = asked.map_err(|refusal| missing(refusal, &["UserNotFound", "UserNotFoundFault"], "user_arn"))?;
        let user = User::read(&answer).ok_or_else(|| {
            Error::config(Code::Field, format!("{} has no user {name:?}", self.0.describe.service.name))
                .hint("check field \"user_arn\"")
        })?;
        asking.check_user(user.name.as_deref())?;
        if user.authentication.as_deref() == Some("iam") {
            return Err(Error::config(Code::Field, format!("{} signs in by IAM and has no password", asking.of)).hint(
                "there is nothing to rotate; or give the user a password with the authentication type `password`",
            ));
        }
        let status = user.status.unwrap_or_default();
        if status == "deleting" {
            return Err(Error::config(Code::Field, format!("{} is being deleted", asking.of))
                .hint("end the rotation of this secret, or name another user"));
        }
        Ok(State {
            busy: Some(status).filter(|it| it != "active"),
            limits: Limits { usual: self.0.usual, shortest: 16, longest: 128, exclude: "/@\"'\\", never: "" },
            endpoint: None,
        })
    }

    /// Exactly two: the pending one, and AWSCURRENT's, whoever may have set others meanwhile.
    async fn change(
        &self,
        asking: &Asking<'_>,
        current: Option<&str>,
        pending: &str,
    ) -> std::result::Result<(), Refusal> {
        let name = asking.name();
        let passwords = [Some(pending), current.filter(|it| *it != pending)];
        let json;
        let mut form = vec![("UserId", name)];
        let input = if let Protocol::Query(_) = self.0.change.service.protocol {
            let names = ["Passwords.member.1", "Passwords.member.2"];
            form.extend(names.into_iter().zip(passwords).filter_map(|(name, it)| Some((name, it?))));
            Input::Form(&form)
        } else {
            let passwords: Vec<&str> = passwords.into_iter().flatten().collect();
            json = json!({"UserName": name, "AuthenticationMode": {"Type": "password", "Passwords": passwords}});
            Input::Json(&json)
        };
        asking.ask(&self.0.change, input).await.map(drop)
    }

    async fn sign_in(&self, asking: &Asking<'_>, _state: &State) -> Result<Proof> {
        let fields = asking.secret.expose();
        let Some(host) = fields.filled("host")? else {
            return Ok(Proof::Told("the secret has no field \"host\"".to_owned()));
        };
        let place = Place { host, ..Place::of(fields, PORT, &asking.rotation.settings.trust)? };
        let signed_in = async {
            let mut session = Session::open(&place).await?;
            session.sign_in(fields.required("username")?, fields.required(PASSWORD)?, Which::Pending).await
        };
        unless_unreachable(signed_in.await)
    }
}
