//! Signed requests to AWS's services, for calls that are too few to carry an SDK for: one of those is half of the time that
//! this crate takes to build. Credentials, endpoints and retries are as the SDK's.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_types::body::SdkBody;
use aws_smithy_xml::decode::{Document, ScopedDecoder, try_data};
use aws_types::service_config::ServiceConfigKey;
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::http::{Http, Unanswered};
use crate::store::aws::{Call, refused};

/// For one attempt.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);
const TRIES: u32 = 4;
/// Before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(200);

/// A call, and where it goes.
#[derive(Clone, Copy)]
pub(super) struct Api {
    pub(super) call: Call,
    /// The service in host names and signatures.
    pub(super) prefix: &'static str,
    /// The service in the SDK's settings, as in `AWS_ENDPOINT_URL_REDSHIFT_SERVERLESS`.
    pub(super) id: &'static str,
}

/// A Region, and the partition that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    partition: &'a str,
    region: &'a str,
}

impl<'a> Place<'a> {
    /// Where `arn` says it is.
    ///
    /// # Errors
    /// Config, when it is no ARN of a resource in a Region.
    pub(super) fn of(arn: &'a str) -> Result<Self> {
        let mut parts = arn.split(':');
        let place = (parts.next(), parts.next(), parts.nth(1));
        // They become part of a host name.
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
        };
        match place {
            (Some("arn"), Some(partition), Some(region)) if plain(partition) && plain(region) => {
                Ok(Self { partition, region })
            }
            _ => Err(Error::config(Code::Admin, format!("{arn:?} is no ARN of a resource in a Region"))
                .hint("check the tags of the administrator's secret")),
        }
    }

    /// The domain of AWS's endpoints.
    fn domain(self) -> &'static str {
        match self.partition {
            "aws-cn" => "amazonaws.com.cn",
            "aws-eusc" => "amazonaws.eu",
            "aws-iso" => "c2s.ic.gov",
            "aws-iso-b" => "sc2s.sgov.gov",
            "aws-iso-e" => "cloud.adc-e.uk",
            "aws-iso-f" => "csp.hci.ic.gov",
            _ => "amazonaws.com",
        }
    }
}

/// The client. Only for requests that do no harm when they are repeated.
pub(super) struct Signed {
    config: SdkConfig,
    http: Http,
}

impl Signed {
    pub(super) fn new(config: SdkConfig, http: Http) -> Self {
        Self { config, http }
    }

    /// A call by the protocol "AWS Query": a form goes, XML comes. `of` is what it is about, for messages.
    ///
    /// # Errors
    /// Config, when AWS refuses it; Transient, when there is no answer.
    pub(super) async fn query(
        &self,
        api: Api,
        place: Place<'_>,
        of: &str,
        version: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String> {
        let form = {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("Action", api.call.name).append_pair("Version", version).extend_pairs(parameters);
            form.finish()
        };
        let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
        self.send(api, place, of, &headers, &form, |answer| {
            (text(answer, &["Error", "Code"]), text(answer, &["Error", "Message"]))
        })
        .await
    }

    /// A call by the protocol "AWS JSON 1.1"; `target` is the service's name in it.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub(super) async fn json(&self, api: Api, place: Place<'_>, of: &str, target: &str, body: &Value) -> Result<Value> {
        let target = format!("{target}.{}", api.call.name);
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
        let body = body.to_string();
        let answer = self.send(api, place, of, &headers, &body, |answer| {
            let answer: Value = serde_json::from_str(answer).unwrap_or_default();
            let field = |name: &str| answer.get(name)?.as_str();
            // A namespace may stand before the code.
            let code = field("__type").map(|code| code.rsplit('#').next().unwrap_or(code).to_owned());
            (code, field("message").or(field("Message")).map(str::to_owned))
        });
        serde_json::from_str(&answer.await?)
            .map_err(|_| Error::transient(Code::Aws, format!("the answer to {} cannot be read", api.call.name)))
    }

    /// The text of the answer. `read` finds code and message in one that is an error. Throttling and failures of AWS are
    /// tried again.
    async fn send(
        &self,
        api: Api,
        place: Place<'_>,
        of: &str,
        headers: &[(&str, &str)],
        body: &str,
        read: fn(&str) -> (Option<String>, Option<String>),
    ) -> Result<String> {
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let answered = self.try_once(api, place, headers, body).await.and_then(|(status, answer)| {
                if status.is_success() {
                    return Ok(answer);
                }
                let (code, said) = read(&answer);
                Err(refused(api.call, of, code.as_deref(), said.as_deref(), status.as_u16()))
            });
            match answered {
                Err(error) if error.is_transient() && tries < TRIES => {}
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn try_once(
        &self,
        api: Api,
        place: Place<'_>,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<(http::StatusCode, String)> {
        let Call { service, name, .. } = api.call;
        let request = self.request(api, place, headers, body).await.map_err(|why| {
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
            };
            error.hint(Code::Aws.remedy())
        })?;
        Ok((answer.status(), String::from_utf8_lossy(answer.body()).into_owned()))
    }

    async fn request(
        &self,
        api: Api,
        place: Place<'_>,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::result::Result<http::Request<SdkBody>, String> {
        let provider = self.config.credentials_provider().ok_or("there are no credentials")?;
        let credentials = provider.provide_credentials().await.map_err(|error| error.to_string())?;
        let time = self.config.time_source().map_or_else(SystemTime::now, |source| source.now());
        let url = format!("{}/", self.endpoint(api, place).trim_end_matches('/'));
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(place.region)
            .name(api.prefix)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?;
        let signable =
            SignableRequest::new("POST", url.as_str(), headers.iter().copied(), SignableBody::Bytes(body.as_bytes()));
        let signed = sign(signable.map_err(|error| error.to_string())?, &parameters.into());
        let (instructions, _) = signed.map_err(|error| error.to_string())?.into_parts();
        let request =
            headers.iter().fold(http::Request::post(url.as_str()), |it, (name, value)| it.header(*name, *value));
        let mut request = request.body(SdkBody::from(body)).map_err(|error| error.to_string())?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }

    /// As the SDK's clients choose it: what was said in code, for this service, for all services, or AWS's.
    fn endpoint(&self, api: Api, place: Place<'_>) -> String {
        let config = &self.config;
        let own = || {
            let key = ServiceConfigKey::builder().service_id(api.id).env("AWS_ENDPOINT_URL").profile("endpoint_url");
            config.service_config()?.load_config(key.build().ok()?)
        };
        let said = if config.get_origin("endpoint_url").is_client_config() { None } else { own() };
        said.or_else(|| config.endpoint_url().map(str::to_owned)).unwrap_or_else(|| {
            let fips = if config.use_fips().unwrap_or_default() { "-fips" } else { "" };
            format!("https://{}{fips}.{}.{}", api.prefix, place.region, place.domain())
        })
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
            let place = Place::of(arn).unwrap();
            assert_eq!((place, place.domain()), (Place { partition, region }, domain));
        }
        for arn in ["", "one", "arn:aws:iam::123456789012:user/x", "arn:aws:redshift:evil.example/#:1:cluster:x"] {
            assert_eq!(Place::of(arn).unwrap_err().code(), Code::Admin, "{arn}");
        }
    }

    #[test]
    fn xml_is_read_by_path() {
        let xml =
            "<?xml version=\"1.0\"?><A xmlns=\"urn:x\"><B/><B><C> a &amp; b </C><D>1</D></B><B><C>later</C></B></A>";
        assert_eq!(text(xml, &["B", "C"]).as_deref(), Some("a & b"));
        assert_eq!(text(xml, &["B", "E"]), None);
        assert_eq!(text("no XML", &["B"]), None);
        assert_eq!(text("<A><B>", &["B", "C"]), None);
    }
}
