//! Signed requests to AWS's services, for calls that are too few to carry an SDK for: one of those is half of the time that
//! this crate takes to build. Credentials, endpoints and retries are as the SDK's.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_types::body::SdkBody;
use aws_smithy_xml::decode::{Document, ScopedDecoder, try_data};
use aws_types::service_config::ServiceConfigKey;
use serde_json::Value;

use super::{Answer, Arn, Input, Key, Operation, Protocol, Refusal, Request, Service, domain};
use crate::error::{Code, Error, Result};
use crate::http::{Http, Unanswered};
use crate::secret::SecretText;
use crate::store::aws::{Call, refused};

/// For one attempt.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
const TRIES: u32 = 4;
/// Before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(200);

/// A Region, and the partition that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place<'a> {
    partition: &'a str,
    region: &'a str,
}

impl<'a> Place<'a> {
    /// Where `arn` says it is; `region` is for one without.
    ///
    /// # Errors
    /// Config, when it is no ARN, or there is no Region.
    fn of(arn: &'a str, region: &'a str) -> Result<Self> {
        // They become part of a host name.
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
        };
        let place = Arn::parse(arn).map(|arn| Self {
            partition: arn.partition,
            region: if arn.region.is_empty() { region } else { arn.region },
        });
        place.filter(|it| plain(it.partition) && plain(it.region)).ok_or_else(|| {
            Error::config(Code::Field, format!("{arn:?} is no ARN of a resource in a Region"))
                .hint("the full ARN, as `arn:aws:…:eu-central-1:123456789012:…`")
        })
    }

    /// Where a service is signed for that has one endpoint in each partition.
    fn global(self) -> Self {
        let region = match self.partition {
            "aws-cn" => "cn-north-1",
            "aws-us-gov" => "us-gov-west-1",
            "aws" => "us-east-1",
            _ => self.region,
        };
        Self { region, ..self }
    }

    fn domain(self) -> &'static str {
        domain(self.partition)
    }
}

/// One request, before it is signed.
struct Sent<'a> {
    method: &'static str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
}

/// The client.
pub(super) struct Signed {
    config: SdkConfig,
    http: Http,
}

impl Signed {
    pub(super) fn new(config: SdkConfig, http: Http) -> Self {
        Self { config, http }
    }

    /// Throttling and failures of AWS are tried again, where that does no harm.
    pub(super) async fn ask(&self, request: &Request<'_>) -> std::result::Result<Answer, Refusal> {
        let Operation { name, action, service, repeatable } = *request.operation;
        let call = Call { service: service.name, name, action, kms: None };
        let place = Place::of(request.of, request.region)?;
        let target;
        let (mut method, mut path) = ("POST", "/");
        let (headers, body) = match (service.protocol, &request.input) {
            (Protocol::Query(version), Input::Form(parameters)) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("Action", name).append_pair("Version", version).extend_pairs(*parameters);
                (vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8")], form.finish())
            }
            (Protocol::Json(prefix), Input::Json(body)) => {
                target = format!("{prefix}.{name}");
                let headers = vec![("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
                (headers, body.to_string())
            }
            (Protocol::Rest, Input::Rest(at, body)) => {
                path = *at;
                if body.is_none() {
                    method = "GET";
                }
                (vec![("content-type", "application/json")], body.map(ToString::to_string).unwrap_or_default())
            }
            _ => {
                let error = Error::new(crate::error::Class::Internal, Code::Panic, "input of another protocol");
                return Err(error.into());
            }
        };
        let body = SecretText::from(body);
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let sent = Sent { method, path, headers: &headers, body: body.expose() };
            let answered = self.try_once(request, place, &sent).await;
            let refusal = match answered {
                Ok((head, answer)) if head.status.is_success() => {
                    return Ok(read(service.protocol, name, answer)?);
                }
                Ok((head, answer)) => {
                    let status = head.status;
                    let (code, said) = refusal(service.protocol, &head, answer.expose());
                    let error = refused(call, request.of, code.as_deref(), said.as_deref(), status.as_u16());
                    Refusal { code: Some(code.unwrap_or_default()), said, error }
                }
                Err(error) => error.into(),
            };
            // A service that says that it did nothing may be asked again, whatever it was.
            let harmless = repeatable || refusal.error.code() == Code::Throttled;
            if !(refusal.error.is_transient() && harmless && tries < TRIES) {
                return Err(refusal);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn try_once(
        &self,
        request: &Request<'_>,
        place: Place<'_>,
        sent: &Sent<'_>,
    ) -> Result<(http::response::Parts, SecretText)> {
        let (name, service) = (request.operation.name, request.operation.service.name);
        let request = self.signed(request, place, sent).await.map_err(|why| {
            Error::config(Code::Environment, format!("{name} cannot be sent: {why}"))
                .hint("check the credentials of the function's role, and the endpoints set for it")
        })?;
        let answer = self.http.send(request, ANSWER_WITHIN).await.map_err(|why| {
            let error = match why {
                Unanswered::Timeout => {
                    Error::transient(Code::Timeout, format!("no answer from {service} to {name} in time"))
                }
                Unanswered::Broken(cause) => {
                    Error::transient(Code::Aws, format!("{name} does not reach {service}: {cause}"))
                }
                Unanswered::Tls(cause) => {
                    Error::transient(Code::Aws, format!("{name} does not reach {service}: {cause}"))
                }
            };
            error.hint(Code::Aws.remedy())
        })?;
        let (head, body) = answer.into_parts();
        Ok((head, SecretText::from(String::from_utf8_lossy(&body).into_owned())))
    }

    async fn signed(
        &self,
        request: &Request<'_>,
        place: Place<'_>,
        sent: &Sent<'_>,
    ) -> std::result::Result<http::Request<SdkBody>, String> {
        let Sent { method, path, headers, body } = *sent;
        let service = request.operation.service;
        let place = if service.global { place.global() } else { place };
        let url = format!("{}{path}", self.endpoint(service, place).trim_end_matches('/'));
        let unsigned = http::Request::builder().method(method).uri(url.as_str());
        let unsigned = headers.iter().fold(unsigned, |it, (name, value)| it.header(*name, *value));
        let key = request.key;
        let mut request = unsigned.body(SdkBody::from(body)).map_err(|error| error.to_string())?;
        if let Some(Key::Bearer(key)) = key {
            let value = SecretText::from(format!("Bearer {key}"));
            let mut value = http::HeaderValue::from_str(value.expose()).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            request.headers_mut().insert("authorization", value);
        } else {
            let name = service.signs_as.unwrap_or(service.prefix);
            self.signature(&mut request, body.as_bytes(), name, place.region, key).await?;
        }
        Ok(request)
    }

    /// Signs a request to anything that takes AWS's signatures.
    ///
    /// # Errors
    /// Config, when there are no credentials, or the request cannot be signed.
    pub(super) async fn sign(
        &self,
        request: &mut http::Request<Vec<u8>>,
        service: &str,
        region: &str,
        key: Option<Key<'_>>,
    ) -> Result<()> {
        let body = request.body().clone();
        self.signature(request, &body, service, region, key).await.map_err(|why| {
            Error::config(Code::Environment, format!("a request to {service} cannot be signed: {why}"))
                .hint("check the credentials of the function's role")
        })
    }

    async fn signature<B>(
        &self,
        request: &mut http::Request<B>,
        body: &[u8],
        service: &str,
        region: &str,
        key: Option<Key<'_>>,
    ) -> std::result::Result<(), String> {
        let credentials = if let Some(Key::Pair(id, secret)) = key {
            Credentials::new(id, secret, None, None, "the secret")
        } else {
            let provider = self.config.credentials_provider().ok_or("there are no credentials")?;
            provider.provide_credentials().await.map_err(|error| error.to_string())?
        };
        let time = self.config.time_source().map_or_else(SystemTime::now, |source| source.now());
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(service)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?;
        let url = request.uri().to_string();
        let mut headers = Vec::new();
        for (name, value) in request.headers() {
            headers.push((name.as_str(), value.to_str().map_err(|error| error.to_string())?));
        }
        let signable =
            SignableRequest::new(request.method().as_str(), url, headers.into_iter(), SignableBody::Bytes(body));
        let signed = sign(signable.map_err(|error| error.to_string())?, &parameters.into());
        let (instructions, _) = signed.map_err(|error| error.to_string())?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }

    /// As the SDK's clients choose it: what was said in code, for this service, for all services, or AWS's.
    fn endpoint(&self, service: &Service, place: Place<'_>) -> String {
        let config = &self.config;
        let own = || {
            let key =
                ServiceConfigKey::builder().service_id(service.id).env("AWS_ENDPOINT_URL").profile("endpoint_url");
            config.service_config()?.load_config(key.build().ok()?)
        };
        let said = if config.get_origin("endpoint_url").is_client_config() { None } else { own() };
        said.or_else(|| config.endpoint_url().map(str::to_owned)).unwrap_or_else(|| {
            let fips = if config.use_fips().unwrap_or_default() { "-fips" } else { "" };
            let host = format!("{}{fips}", service.prefix);
            match (service.global, place.partition) {
                (true, "aws") => format!("https://{host}.{}", place.domain()),
                (true, "aws-us-gov") => format!("https://{}.us-gov.{}", service.prefix, place.domain()),
                _ => format!("https://{host}.{}.{}", place.region, place.domain()),
            }
        })
    }
}

fn read(protocol: Protocol, name: &str, answer: SecretText) -> Result<Answer> {
    match protocol {
        Protocol::Query(_) => Ok(Answer::Xml(answer)),
        Protocol::Json(_) | Protocol::Rest => serde_json::from_str(answer.expose())
            .map(Answer::Json)
            .map_err(|_| Error::transient(Code::Aws, format!("the answer to {name} cannot be read"))),
    }
}

/// Code and message of an answer that is an error.
fn refusal(protocol: Protocol, head: &http::response::Parts, answer: &str) -> (Option<String>, Option<String>) {
    match protocol {
        Protocol::Query(_) => (text(answer, &["Error", "Code"]), text(answer, &["Error", "Message"])),
        Protocol::Json(_) | Protocol::Rest => {
            let answer: Value = serde_json::from_str(answer).unwrap_or_default();
            let field = |name: &str| answer.get(name)?.as_str();
            let named = head.headers.get("x-amzn-errortype").and_then(|it| it.to_str().ok());
            // A namespace may stand before the code, and a link behind it.
            let code = named.or(field("__type")).or(field("code"));
            let code = code.map(|code| code.rsplit('#').next().unwrap_or(code));
            let code = code.map(|code| code.split(':').next().unwrap_or(code).to_owned());
            (code, field("message").or(field("Message")).map(str::to_owned))
        }
    }
}

/// The text of the first element at `path` below the root of an XML document.
pub(super) fn text(xml: &str, path: &[&str]) -> Option<String> {
    let mut document = Document::new(xml);
    find(&mut document.root_element().ok()?, path)
}

fn find(element: &mut ScopedDecoder<'_, '_>, path: &[&str]) -> Option<String> {
    let Some((name, rest)) = path.split_first() else {
        return try_data(element).ok().map(|text| text.trim().to_owned());
    };
    while let Some(mut child) = element.next_tag() {
        if child.start_el().matches(name)
            && let Some(found) = find(&mut child, rest)
        {
            return Some(found);
        }
    }
    None
}

/// Of every element `item` in the first element at `path`: the texts of its children `fields`.
pub(super) fn items(xml: &str, path: &[&str], item: &str, fields: &[&str]) -> Vec<Vec<Option<String>>> {
    let mut document = Document::new(xml);
    let mut found = Vec::new();
    if let Ok(mut root) = document.root_element() {
        collect(&mut root, path, item, fields, &mut found);
    }
    found
}

fn collect(
    element: &mut ScopedDecoder<'_, '_>,
    path: &[&str],
    item: &str,
    fields: &[&str],
    found: &mut Vec<Vec<Option<String>>>,
) {
    let (name, rest) = path.split_first().map_or((item, path), |(name, rest)| (*name, rest));
    while let Some(mut child) = element.next_tag() {
        if !child.start_el().matches(name) {
            continue;
        }
        if !path.is_empty() {
            collect(&mut child, rest, item, fields, found);
            continue;
        }
        let mut texts = vec![None; fields.len()];
        while let Some(mut field) = child.next_tag() {
            if let Some(index) = fields.iter().position(|it| field.start_el().matches(it)) {
                texts[index] = find(&mut field, &[]);
            }
        }
        found.push(texts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_and_partition_are_those_of_the_arn() {
        for (arn, partition, region, domain) in [
            ("arn:aws:redshift:eu-central-1:123456789012:cluster:one", "aws", "eu-central-1", "amazonaws.com"),
            ("arn:aws-cn:redshift:cn-north-1:1:cluster:one", "aws-cn", "cn-north-1", "amazonaws.com.cn"),
            (
                "arn:aws-us-gov:redshift-serverless:us-gov-west-1:1:namespace/x",
                "aws-us-gov",
                "us-gov-west-1",
                "amazonaws.com",
            ),
        ] {
            let place = Place::of(arn, "").unwrap();
            assert_eq!((place, place.domain()), (Place { partition, region }, domain));
        }
        for arn in ["", "one", "arn:aws:iam::123456789012:user/x", "arn:aws:redshift:evil.example/#:1:cluster:x"] {
            assert_eq!(Place::of(arn, "").unwrap_err().code(), Code::Field, "{arn}");
        }
        let user = Place::of("arn:aws:iam::123456789012:user/x", "eu-central-1").unwrap();
        assert_eq!((user.region, user.global().region), ("eu-central-1", "us-east-1"));
    }

    #[test]
    fn xml_is_read_by_path() {
        let xml =
            "<?xml version=\"1.0\"?><A xmlns=\"urn:x\"><B/><B><C> a &amp; b </C><D>1</D></B><B><C>later</C></B></A>";
        assert_eq!(text(xml, &["B", "C"]).as_deref(), Some("a & b"));
        assert_eq!(text(xml, &["B", "E"]), None);
        assert_eq!(text("no XML", &["B"]), None);
        assert_eq!(text("<A><B>", &["B", "C"]), None);
        let list = "<A><R><L><m><Id>1</Id><S>on</S></m><m><S>off</S></m></L></R></A>";
        let found = items(list, &["R", "L"], "m", &["Id", "S"]);
        assert_eq!(found, [vec![Some("1".to_owned()), Some("on".to_owned())], vec![None, Some("off".to_owned())]]);
        assert!(items("no XML", &["R"], "m", &["Id"]).is_empty());
    }
}
