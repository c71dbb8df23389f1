//! The master user of an Amazon OpenSearch Service domain, of its internal user database.
//!
//! A user has one password, so the old one is refused as soon as the domain has the new one.

use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_types::body::SdkBody;
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::api::{Api, Asking, PASSWORD, Profile, Proof, State, arn_in, missing, unless_unreachable};
use crate::error::{Code, Error, Result, Which};
use crate::http::Http;
use crate::kind::{Field, Rotation};
use crate::password::Limits;
use crate::secret::{Secret, SecretText};
use crate::services::{Endpoint, Input, Operation, Protocol, Refusal, Service};

/// A domain's master user.
pub(super) struct Master;

const OPENSEARCH: Service = Service {
    name: "OpenSearch Service",
    prefix: "es",
    signs_as: None,
    id: "OpenSearch",
    protocol: Protocol::Rest,
    global: false,
};
const DESCRIBE: Operation =
    Operation { name: "DescribeDomain", action: "es:DescribeDomain", service: &OPENSEARCH, repeatable: true };
const UPDATE: Operation =
    Operation { name: "UpdateDomainConfig", action: "es:UpdateDomainConfig", service: &OPENSEARCH, repeatable: true };

const PROFILE: Profile = Profile {
    names: &["opensearch-master"],
    summary: "the password of the master user of an Amazon OpenSearch Service domain",
    example: r#"{"kind":"opensearch-master","domainarn":"arn:aws:es:eu-central-1:123456789012:domain/logs","username":"admin","password":"…"}"#,
    fields: &[
        Field::setting("domainarn", "ARN of the domain, in the account and Region of the secret"),
        Field::required("username", "the master user's name"),
        Field::required("password", "the password"),
        Field::optional(
            "host",
            "",
            "where to sign in, with `:port` if that is not 443; without it, the endpoint that AWS tells",
        ),
    ],
    permissions: &[DESCRIBE.action, UPDATE.action],
    bad_password: &["ValidationException"],
    busy: &["ConflictException"],
};

const LIMITS: Limits = Limits { usual: 32, shortest: 8, longest: 128, exclude: "/@\"'\\", never: "" };
/// For connection, TLS and answer together.
const SIGN_IN_WITHIN: Duration = Duration::from_secs(5);

fn path(asking: &Asking<'_>, rest: &str) -> String {
    format!("/2021-01-01/opensearch/domain/{}{rest}", asking.name())
}

#[async_trait]
impl Api for Master {
    fn profile(&self) -> &'static Profile {
        const { &PROFILE }
    }

    fn resource(&self, rotation: &Rotation<'_>, secret: &Secret) -> Result<String> {
        let fields = secret.expose();
        fields.required("username")?;
        fields.required(PASSWORD)?;
        let arn = arn_in(rotation, secret, &["domainarn"], "es", "domain", false)?;
        let name = arn.rsplit('/').next().unwrap_or_default();
        // It becomes part of a path.
        if !name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-') {
            return Err(Error::config(Code::Field, "field \"domainarn\" does not end in the name of a domain"));
        }
        Ok(arn.to_owned())
    }

    async fn look(&self, asking: &Asking<'_>) -> Result<State> {
        let asked = asking.ask(&DESCRIBE, Input::Rest(&path(asking, ""), None)).await;
        let answer = asked.map_err(|refusal| missing(refusal, &["ResourceNotFoundException"], "domainarn"))?;
        let domain = answer.json().get("DomainStatus").unwrap_or(&Value::Null);
        let flag = |path: &str| domain.pointer(path).and_then(Value::as_bool).unwrap_or_default();
        if flag("/Deleted") {
            return Err(Error::config(Code::Field, format!("{} is being deleted", asking.of))
                .hint("end the rotation of this secret, or name another domain"));
        }
        if !flag("/AdvancedSecurityOptions/Enabled") || !flag("/AdvancedSecurityOptions/InternalUserDatabaseEnabled") {
            return Err(Error::config(Code::Field, format!("{} has no internal user database", asking.of))
                .hint("its master is an IAM role, which has no password to rotate"));
        }
        let said = domain.get("DomainProcessingStatus").and_then(Value::as_str).unwrap_or("Processing");
        let text = |path: &str| domain.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let host = text("/Endpoint").or_else(|| text("/Endpoints/vpc"));
        Ok(State {
            busy: flag("/Processing").then(|| said.to_owned()),
            limits: LIMITS,
            endpoint: host.map(|host| Endpoint { host, port: 443, engine: "opensearch".to_owned() }),
        })
    }

    async fn change(
        &self,
        asking: &Asking<'_>,
        _current: Option<&str>,
        pending: &str,
    ) -> std::result::Result<(), Refusal> {
        let user = asking.secret.expose().required("username")?;
        let master = json!({"MasterUserName": user, "MasterUserPassword": pending});
        let body = json!({"AdvancedSecurityOptions": {"MasterUserOptions": master}});
        asking.ask(&UPDATE, Input::Rest(&path(asking, "/config"), Some(&body))).await.map(drop)
    }

    async fn sign_in(&self, asking: &Asking<'_>, state: &State) -> Result<Proof> {
        let fields = asking.secret.expose();
        let host = fields.filled("host")?;
        let Some(host) = host.or(state.endpoint.as_ref().map(|it| it.host.as_str())) else {
            return Ok(Proof::Told("it has no endpoint yet".to_owned()));
        };
        let user = fields.required("username")?;
        unless_unreachable(sign_in(asking, host, user, fields.required(PASSWORD)?).await)
    }
}

/// The root of the API, which every version has, and which nobody may read without a user.
async fn sign_in(asking: &Asking<'_>, host: &str, user: &str, password: &str) -> Result<()> {
    let login = SecretText::from(format!("{user}:{password}"));
    let login = SecretText::from(format!("Basic {}", BASE64.encode(login.expose().as_bytes())));
    let request = http::Request::get(format!("https://{host}/")).header("authorization", login.expose());
    let request = request.body(SdkBody::empty()).map_err(|_| {
        Error::config(Code::Field, "field \"host\" is no host name").hint("a name alone, or with `:port`")
    })?;
    let http = Http::new(&asking.rotation.settings.trust)?;
    let answer = http.send(request, SIGN_IN_WITHIN).await;
    let answer = answer.map_err(|why| why.explain(host, SIGN_IN_WITHIN))?;
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        401 => Err(Error::rejected(Which::Pending, Code::WrongPassword, format!("{host} refuses user {user:?} and its password"))
            .hint("check that `username` is the domain's master user; the domain may need a minute more, and Secrets Manager tries again")),
        403 => Err(Error::rejected(Which::Pending, Code::NotPermitted, format!("{host} does not let user {user:?} in"))
            .hint("let the domain's access policy allow requests that are not signed, as fine-grained access control wants it")),
        status => Err(Error::transient(Code::Server, format!("{host} answers with HTTP status {status}"))
            .hint("nothing, if the domain is only busy: Secrets Manager tries again")),
    }
}
