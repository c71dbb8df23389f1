//! One request of a recipe: where it may go, how it is authenticated and repeated, and what its answer means.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_smithy_types::date_time::{DateTime, Format};
use data_encoding::BASE64;
use futures_util::future::{Either, pending, select};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::recipe::Recipe;
use super::template::Context;
use super::turn::texts;
use crate::error::{Code, Error, Result, Which};
use crate::kind::Rotation;
use crate::net;
use crate::secret::{Secret, SecretText};
use crate::services::Key;
use crate::tls::{self, Ask, Mode};
use crate::wire::Stream;

/// Whoever answers with more is not what was asked.
const LONGEST_ANSWER: usize = 1 << 20;
const ANSWER_WITHIN: u64 = 10;
const TRIES: u32 = 4;
/// Before the second try; twice as long before each further one, unless the service says how long.
const PAUSE: Duration = Duration::from_millis(250);
/// How much of a service's own message an error repeats.
const LONGEST_MESSAGE: usize = 200;
/// Where services put the message of an error.
const MESSAGES: [&str; 8] = [
    "/error/message",
    "/message",
    "/error_description",
    "/detail",
    "/error",
    "/errors/0/message",
    "/errors/0/detail",
    "/msg",
];

/// Where requests may go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    /// Public addresses, by https.
    Public,
    /// Those of a private network or of this machine too, and to these also by http.
    Private,
}

/// What the requests of one step have in common.
pub(super) struct Session<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) rotation: &'a Rotation<'a>,
    /// The administrator's secret, where the recipe has one and the step needs it.
    pub(super) admin: Option<Secret>,
    network: Network,
    tls: Arc<rustls::ClientConfig>,
    /// What must not be in an error, whatever a service repeats.
    secrets: Vec<SecretText>,
    access: Mutex<Option<SecretText>>,
}

/// Where a request of the recipe stands, for messages, and whose credential it uses.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    pub(super) request: &'a Value,
    pub(super) which: Which,
}

/// An answer that is a success.
pub(super) struct Answer {
    body: SecretText,
    place: String,
}

impl Answer {
    /// # Errors
    /// Config, when it is no JSON.
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_str(self.body.expose()).map_err(|_| {
            Error::config(Code::Answer, format!("the answer of {} is no JSON", self.place)).hint(
                "check that the URL is that of the service's API; a proxy or a login page may answer in its place",
            )
        })
    }
}

/// A request that is ready to be sent, any number of times.
struct Ready {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: SecretText,
    /// Host and port.
    place: String,
    /// Whether it may be sent again when it is not known what became of it.
    repeatable: bool,
}

/// An answer, whatever it means.
struct Received {
    status: u16,
    /// As the service asks to be left alone for.
    wait: Option<Duration>,
    body: SecretText,
}

impl<'a> Session<'a> {
    /// `secrets` are texts that no error may repeat.
    ///
    /// # Errors
    /// Config, for a `network` that is none, or certificates that cannot be read.
    pub(super) fn new(
        recipe: &'a Recipe,
        rotation: &'a Rotation<'a>,
        secret: &Secret,
        admin: Option<Secret>,
        mut secrets: Vec<SecretText>,
    ) -> Result<Self> {
        let network = match rotation.setting(secret, "network")? {
            None | Some("public") => Network::Public,
            Some("private") => Network::Private,
            Some(_) => {
                return Err(Error::config(Code::Field, "field \"network\" must be `public` or `private`"));
            }
        };
        let ask = Ask::with(Mode::VerifyFull, secret.expose())?;
        let config = rotation.settings.trust.client(&ask)?;
        let tls = config.ok_or_else(|| Error::config(Code::Tls, "there is no TLS"))?;
        secrets.extend(admin.iter().flat_map(|it| texts(it.expose())));
        Ok(Self { recipe, rotation, admin, network, tls, secrets, access: Mutex::new(None) })
    }

    /// Sends a request and says what its answer means; `None` is a status of the recipe's list `already`.
    ///
    /// # Errors
    /// Config, when the recipe does not fit the secret or the answer; Rejected, when the credential is refused; Transient,
    /// when there is no answer or not for now.
    pub(super) async fn ask(&self, asked: Asked<'_>, context: &Context, already: &[u16]) -> Result<Option<Answer>> {
        let result = self.try_ask(asked, context, already).await;
        let access = self.access.lock().ok().and_then(|it| it.as_ref().map(|it| it.expose().to_owned()));
        result.map_err(|error| {
            let error = access.iter().fold(error, |error, it| error.without(it));
            self.secrets.iter().fold(error, |error, it| error.without(it.expose()))
        })
    }

    async fn try_ask(&self, asked: Asked<'_>, context: &Context, already: &[u16]) -> Result<Option<Answer>> {
        let Asked { name, request, which } = asked;
        let ready = self.prepare(asked, context).await?;
        let received = self.deliver(&ready, statuses(request, "later")).await?;
        let Received { status, body, .. } = received;
        let said = self.message(body.expose());
        let place = format!("{} {}", ready.method, ready.place);
        let success = statuses(request, "success");
        if success.contains(&status) || (success.is_empty() && (200..300).contains(&status)) {
            return Ok(Some(Answer { body, place: format!("{place} to `{name}`") }));
        }
        if already.contains(&status) {
            return Ok(None);
        }
        // The service has decided: nothing is left open.
        if name != "verify" {
            self.rotation.unchanged();
        }
        let refused = statuses(request, "refused");
        if refused.contains(&status) || (refused.is_empty() && matches!(status, 401 | 403)) {
            let code = if status == 403 { Code::NotPermitted } else { Code::WrongPassword };
            let whose = match which {
                Which::Admin => "the administrator's credential",
                Which::Current => "the credential in AWSCURRENT",
                Which::Pending => "the new credential",
            };
            let message = format!("{} refuses {whose} ({status} to `{name}`){said}", ready.place);
            return Err(Error::rejected(which, code, message));
        }
        if statuses(request, "limit").contains(&status) {
            let message = format!("{} makes no further key ({status}){said}", ready.place);
            return Err(Error::config(Code::KeyLimit, message)
                .hint("find out which of the keys there is used by nobody, and delete it"));
        }
        if (300..400).contains(&status) {
            let message = format!("{place} answers `{name}` with a redirect ({status}), which is not followed");
            return Err(Error::config(Code::Answer, message).hint("name the URL that it leads to"));
        }
        let message = format!("{place} answers `{name}` with {status}{said}");
        Err(Error::config(Code::Answer, message))
    }

    /// The request with everything in it that the recipe says.
    async fn prepare(&self, asked: Asked<'_>, context: &Context) -> Result<Ready> {
        let Asked { name, request, which } = asked;
        let templates = &self.recipe.templates;
        let wrong = |key: &str, why: String| Recipe::unusable(&format!("{name}.{key}"), &why);
        let text = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut url = templates.url(text("url"), context).map_err(|why| wrong("url", why))?;
        if let Some(query) = request.get("query").and_then(Value::as_object) {
            let pairs = self.form(query, context).map_err(|why| wrong("query", why))?;
            if !pairs.is_empty() {
                url = format!("{url}{}{pairs}", if url.contains('?') { '&' } else { '?' });
            }
        }
        let uri = self.target(&format!("{name}.url"), &url)?;
        let place = place(&uri);
        // The credential of an administrator goes where the recipe or its own secret says, and nowhere else.
        if self.admin.is_some() && name != "verify" {
            self.check_place(text("url"), &place)?;
        }
        let method =
            Method::from_bytes(text("method").as_bytes()).map_err(|error| wrong("method", error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            http::header::USER_AGENT,
            HeaderValue::from_static(concat!("keywheel/", env!("CARGO_PKG_VERSION"))),
        );
        let mut body = SecretText::from(String::new());
        if let Some(template) = request.get("json") {
            let value = templates.json(template, context).map_err(|why| wrong("json", why))?.unwrap_or_default();
            body = SecretText::from(value.to_string());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        } else if let Some(form) = request.get("form").and_then(Value::as_object) {
            body = SecretText::from(self.form(form, context).map_err(|why| wrong("form", why))?);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        for more in [self.recipe.root.get("headers"), request.get("headers")].into_iter().flatten() {
            self.headers(more, context, &mut headers).map_err(|why| wrong("headers", why))?;
        }
        let repeatable = method != Method::POST || request.get("repeat").and_then(Value::as_bool).unwrap_or_default();
        let mut ready = Ready { method, uri, headers, body, place, repeatable };
        // The administrator's credential proves nothing about the key.
        let by_admin = name == "verify" && self.recipe.root.get("admin").is_some();
        let own = if by_admin { None } else { self.recipe.root.get("auth") };
        if let Some(auth) = request.get("auth").or(own) {
            self.authenticate(auth, name, context, which, &mut ready).await?;
        }
        Ok(ready)
    }

    /// Names and values, encoded.
    fn form(&self, form: &serde_json::Map<String, Value>, context: &Context) -> std::result::Result<String, String> {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        for (key, value) in form {
            if let Some(value) = self.recipe.templates.optional(value.as_str().unwrap_or_default(), context)? {
                pairs.append_pair(key, &value);
            }
        }
        Ok(pairs.finish())
    }

    fn headers(&self, table: &Value, context: &Context, headers: &mut HeaderMap) -> std::result::Result<(), String> {
        for (name, value) in table.as_object().into_iter().flatten() {
            let Some(value) = self.recipe.templates.optional(value.as_str().unwrap_or_default(), context)? else {
                continue;
            };
            let name = HeaderName::try_from(name).map_err(|_| "that is no name of a header".to_owned())?;
            headers.insert(name, header(value)?);
        }
        Ok(())
    }

    async fn authenticate(
        &self,
        auth: &Value,
        name: &str,
        context: &Context,
        which: Which,
        ready: &mut Ready,
    ) -> Result<()> {
        let templates = &self.recipe.templates;
        let wrong = |why: String| Recipe::unusable(&format!("{name}.auth"), &why);
        let text = |template: &Value| templates.text(template.as_str().unwrap_or_default(), context).map_err(wrong);
        let Some((scheme, said)) = auth.as_object().and_then(|it| it.iter().next()) else { return Ok(()) };
        match scheme.as_str() {
            "bearer" => {
                ready.headers.insert(AUTHORIZATION, header(format!("Bearer {}", text(said)?)).map_err(wrong)?);
            }
            "basic" => {
                let parts = said.as_array().into_iter().flatten().map(text).collect::<Result<Vec<_>>>()?;
                ready.headers.insert(AUTHORIZATION, basic(&parts.join(":")).map_err(wrong)?);
            }
            "header" => self.headers(said, context, &mut ready.headers).map_err(wrong)?,
            "oauth2" => {
                let token = self.access(said, name, context, which).await?;
                ready.headers.insert(AUTHORIZATION, header(format!("Bearer {token}")).map_err(wrong)?);
            }
            _ => {
                let field = |key: &str| said.get(key).map(text).transpose();
                let (id, key) = (field("access_key_id")?, field("secret_access_key")?);
                let key = id.as_deref().zip(key.as_deref()).map(|(id, key)| Key::Pair(id, key));
                if key.is_none() && !self.recipe.trusted {
                    let why = "the function's role signs for the recipes that come with keywheel alone";
                    return Err(wrong(why.to_owned()));
                }
                let mut request = http::Request::new(ready.body.expose().as_bytes().to_vec());
                *request.method_mut() = ready.method.clone();
                *request.uri_mut() = ready.uri.clone();
                *request.headers_mut() = std::mem::take(&mut ready.headers);
                let region = field("region")?.unwrap_or_default();
                let service = field("service")?.unwrap_or_default();
                self.rotation.services.sign(&mut request, &service, &region, key).await?;
                ready.headers = std::mem::take(request.headers_mut());
            }
        }
        Ok(())
    }

    /// The access token for client credentials, fetched once in a step.
    async fn access(&self, oauth2: &Value, name: &str, context: &Context, which: Which) -> Result<String> {
        if let Some(token) = self.access.lock().ok().and_then(|it| it.as_ref().map(|it| it.expose().to_owned())) {
            return Ok(token);
        }
        let templates = &self.recipe.templates;
        let wrong = |key: &str, why: String| Recipe::unusable(&format!("{name}.auth.oauth2.{key}"), &why);
        let template = |key: &str| oauth2.get(key).and_then(Value::as_str).unwrap_or_default();
        let text = |key: &str| templates.text(template(key), context).map_err(|why| wrong(key, why));
        let url = templates.url(template("url"), context).map_err(|why| wrong("url", why))?;
        let uri = self.target(&format!("{name}.auth.oauth2.url"), &url)?;
        let place = place(&uri);
        if self.admin.is_some() && name != "verify" {
            self.check_place(template("url"), &place)?;
        }
        let (id, secret) = (text("client_id")?, text("client_secret")?);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut form = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        if template("style") == "basic" {
            headers.insert(AUTHORIZATION, basic(&format!("{id}:{secret}")).map_err(|why| wrong("client_id", why))?);
        } else {
            form.push(("client_id".to_owned(), id));
            form.push(("client_secret".to_owned(), secret));
        }
        for (key, value) in oauth2.get("form").and_then(Value::as_object).into_iter().flatten() {
            let value = templates.optional(value.as_str().unwrap_or_default(), context);
            form.extend(value.map_err(|why| wrong("form", why))?.map(|it| (key.clone(), it)));
        }
        let body = if template("style") == "json" {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Value::Object(form.into_iter().map(|(key, value)| (key, Value::String(value))).collect()).to_string()
        } else {
            form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
        };
        let ready = Ready { method: Method::POST, uri, headers, body: SecretText::from(body), place, repeatable: true };
        let Received { status, body, .. } = self.deliver(&ready, Vec::new()).await?;
        let said = self.message(body.expose());
        match status {
            200..300 => {}
            // A client that is not known is 400 or 401, by RFC 6749.
            400 | 401 | 403 => {
                let message = format!("{} refuses the client's credentials ({status}){said}", ready.place);
                return Err(Error::rejected(which, Code::WrongPassword, message));
            }
            _ => {
                let message = format!("{} gives no access token ({status}){said}", ready.place);
                return Err(Error::config(Code::Answer, message));
            }
        }
        let answer = Answer { body, place: ready.place }.json()?;
        let token = answer
            .get("access_token")
            .and_then(Value::as_str)
            .ok_or_else(|| Error::config(Code::Answer, "the token endpoint's answer has no `access_token`"))?;
        if let Ok(mut access) = self.access.lock() {
            *access = Some(SecretText::from(token.to_owned()));
        }
        Ok(token.to_owned())
    }

    /// A URL that a request may go to, as far as the URL itself tells.
    fn target(&self, key: &str, url: &str) -> Result<Uri> {
        let uri: Uri = url.parse().map_err(|_| Recipe::unusable(key, "that is no URL"))?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host().filter(|it| !it.is_empty())) else {
            return Err(Recipe::unusable(key, "the URL has no host"));
        };
        let plain = scheme == "http" && self.network == Network::Private;
        if scheme != "https" && !plain {
            let message = format!("the URL of `{key}`, at {host}, is not https");
            return Err(Error::config(Code::Address, message).hint(
                "use https; `\"network\": \"private\"` in the secret allows http to a private address or this machine",
            ));
        }
        if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
            return Err(Recipe::unusable(key, "the URL has a user name"));
        }
        Ok(uri)
    }

    fn check_place(&self, template: &str, to: &str) -> Result<()> {
        let start = template.find("://").map_or(0, |at| at + 3);
        let end = template[start..].find('/').map_or(template.len(), |at| start + at);
        let fixed = start > 0 && !template[..end].contains("{{");
        if fixed && self.recipe.trusted {
            return Ok(());
        }
        let admin = self.admin.iter().flat_map(|admin| texts(admin.expose()));
        let named = |text: SecretText| {
            let text = text.expose();
            text == to || text.parse::<Uri>().is_ok_and(|it| it.host().is_some() && place(&it) == to)
        };
        if admin.into_iter().any(named) {
            return Ok(());
        }
        Err(Error::config(Code::Admin, format!("the administrator's secret does not name {to}, and is not sent there"))
            .hint("put the service's URL into field `url` of the administrator's secret"))
    }

    /// Sends it, and again where that does no harm and there is time.
    async fn deliver(&self, ready: &Ready, later: Vec<u16>) -> Result<Received> {
        let within = Duration::from_secs(self.recipe.whole("timeout").unwrap_or(ANSWER_WITHIN));
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            let answered = timeout(within, self.once(ready)).await.unwrap_or_else(|_| {
                let message = format!("no answer from {} in {} s", ready.place, within.as_secs());
                Err(Unsent::maybe(Error::transient(Code::Timeout, message)))
            });
            let (error, harmless, wait) = match answered {
                Ok(Received { status, wait, body })
                    if later.contains(&status) || matches!(status, 408 | 425 | 429 | 500..600) =>
                {
                    let said = self.message(body.expose());
                    let code = if status == 429 { Code::Limited } else { Code::Server };
                    let error = Error::transient(code, format!("{} answers {status}{said}", ready.place));
                    // Who says when to come again has done nothing.
                    let harmless = ready.repeatable || status == 429 || (status == 503 && wait.is_some());
                    if harmless && !ready.repeatable {
                        self.rotation.unchanged();
                    }
                    (error, harmless, wait)
                }
                Ok(received) => return Ok(received),
                Err(Unsent { error, sent }) => {
                    let harmless = sent && ready.repeatable && error.is_transient();
                    (error, harmless, None)
                }
            };
            let pause_now = wait.unwrap_or(pause);
            let enough = self.rotation.left().is_none_or(|left| left > pause_now + PAUSE);
            if !harmless || tries == TRIES || !enough || wait.is_some_and(|it| it > Duration::from_mins(5)) {
                return Err(match wait {
                    Some(wait) if harmless => error.hint(format!(
                        "nothing: the service asks to be left alone for {} s; Secrets Manager tries again",
                        wait.as_secs()
                    )),
                    _ => error,
                });
            }
            self.rotation.waiting(Some(format!("{} to take requests again", ready.place)));
            sleep(pause_now).await;
            self.rotation.waiting(None);
            // What is sent again may be done.
            if !ready.repeatable {
                self.rotation.changing();
            }
            pause *= 2;
            tries += 1;
        }
    }

    /// Sends it once, over a connection of its own, which ends with it.
    async fn once(&self, ready: &Ready) -> std::result::Result<Received, Unsent> {
        let host = ready.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let plain = ready.uri.scheme_str() == Some("http");
        let addresses = self.addresses(host, &ready.place, plain).await.map_err(Unsent::surely)?;
        let stream = net::connect_to(&addresses, host, &ready.place).await.map_err(Unsent::surely)?;
        // One sort of connection, so that the client's code is there once.
        let stream: Box<dyn Stream> = if plain {
            Box::new(stream)
        } else {
            Box::new(tls::connect(Arc::clone(&self.tls), host, stream, &ready.place).await.map_err(Unsent::surely)?)
        };
        self.exchange(ready, stream).await
    }

    /// The addresses of `host`, if all of them are allowed. They are looked up once, so that what is checked is what is
    /// connected to.
    async fn addresses(&self, host: &str, place: &str, plain: bool) -> Result<Vec<SocketAddr>> {
        if let Some(address) = self.rotation.settings.hosts.get(place) {
            return Ok(vec![*address]);
        }
        let port = place.rsplit(':').next().and_then(|it| it.parse().ok()).unwrap_or(443);
        let found = net::resolve(host, port).await?;
        for address in &found {
            let ip = address.ip().to_canonical();
            let refused = if never(ip) {
                Some("link-local, a metadata service or none of a machine")
            } else if self.network == Network::Public && inside(ip) {
                Some("private")
            } else if plain && !inside(ip) {
                Some("public, and http is not encrypted")
            } else {
                None
            };
            if let Some(why) = refused {
                let message = format!("{place} is not connected to: its address {ip} is {why}");
                let error = Error::config(Code::Address, message);
                return Err(match why {
                    "private" => error.hint("`\"network\": \"private\"` in the secret allows private addresses"),
                    _ => error,
                });
            }
        }
        Ok(found)
    }

    async fn exchange(&self, ready: &Ready, stream: Box<dyn Stream>) -> std::result::Result<Received, Unsent> {
        let broken = |error: &hyper::Error| {
            let what = if error.is_parse() { "that is no HTTP" } else { "the connection broke" };
            Unsent::maybe(Error::transient(Code::Unreachable, format!("no answer from {}: {what}", ready.place)))
        };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
        let path = ready.uri.path_and_query().map_or("/", |it| it.as_str());
        let mut request = http::Request::new(Full::new(Bytes::copy_from_slice(ready.body.expose().as_bytes())));
        *request.method_mut() = ready.method.clone();
        *request.uri_mut() =
            path.parse().map_err(|_| Unsent::surely(Error::config(Code::Recipe, "that is no path")))?;
        *request.headers_mut() = ready.headers.clone();
        let authority = ready.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let authority = HeaderValue::from_str(authority)
            .map_err(|_| Unsent::surely(Error::config(Code::Recipe, "that is no host")))?;
        request.headers_mut().entry(http::header::HOST).or_insert(authority);
        let answered = async {
            let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|error| {
                if error.downcast_ref::<LengthLimitError>().is_some() {
                    let message = format!("the answer of {} is longer than a mebibyte", ready.place);
                    return Unsent::maybe(Error::config(Code::Answer, message));
                }
                let message = format!("no answer from {}: the connection broke", ready.place);
                Unsent::maybe(Error::transient(Code::Unreachable, message))
            })?;
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            Ok(Received {
                status: head.status.as_u16(),
                wait: retry_after(&head.headers),
                body: SecretText::from(text),
            })
        };
        // Whoever closes the connection may have answered before.
        let connection = async {
            let _ = connection.await;
            pending::<()>().await;
        };
        match select(std::pin::pin!(answered), std::pin::pin!(connection)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), _)) => Err(Unsent::maybe(Error::transient(Code::Unreachable, "the connection broke"))),
        }
    }

    /// What an error should repeat of a service's answer: its message, without what may be a key.
    fn message(&self, body: &str) -> String {
        let Ok(answer) = serde_json::from_str::<Value>(body) else { return String::new() };
        let own = self.recipe.root.get("message").and_then(Value::as_str);
        let found = own.into_iter().chain(MESSAGES).find_map(|pointer| answer.pointer(pointer)?.as_str());
        let Some(text) = found.filter(|text| !text.is_empty()) else { return String::new() };
        let text = self.secrets.iter().fold(text.to_owned(), |text, secret| strike(text, secret.expose()));
        let access = self.access.lock().ok().and_then(|it| it.as_ref().map(|it| it.expose().to_owned()));
        let text = access.iter().fold(text, |text, it| strike(text, it));
        format!(": \"{}\"", without_keys(&text))
    }
}

fn strike(text: String, secret: &str) -> String {
    if secret.is_empty() { text } else { text.replace(secret, "…") }
}

/// A failure before there was an answer, and whether the request may have arrived.
struct Unsent {
    error: Error,
    sent: bool,
}

impl Unsent {
    fn surely(error: Error) -> Self {
        Self { error, sent: false }
    }

    fn maybe(error: Error) -> Self {
        Self { error, sent: true }
    }
}

/// Host and port.
pub(super) fn place(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    format!("{}:{port}", uri.host().unwrap_or_default())
}

pub(super) fn statuses(request: &Value, key: &str) -> Vec<u16> {
    let list = request.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|it| it.as_u64().and_then(|it| u16::try_from(it).ok())).collect()
}

fn header(value: String) -> std::result::Result<HeaderValue, String> {
    let value = SecretText::from(value);
    let mut value = HeaderValue::from_str(value.expose()).map_err(|_| "a value cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic(credentials: &str) -> std::result::Result<HeaderValue, String> {
    header(format!("Basic {}", BASE64.encode(credentials.as_bytes())))
}

/// Seconds or a date, by RFC 9110.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = SystemTime::try_from(DateTime::from_str(text, Format::HttpDate).ok()?).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Addresses that no credential is at home at: link-local ones, among which are those of the metadata services, and what is
/// none of one machine.
fn never(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
                || ip.octets()[0] == 0
                // The metadata service of another cloud.
                || ip.octets() == [100, 100, 100, 200]
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                // EC2's metadata service by IPv6, and that of EKS Pod Identity.
                || matches!(ip, Ipv6Addr { .. } if ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
                    || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23])
        }
    }
}

/// Addresses of private networks and of this machine.
fn inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                // Shared address space, RFC 6598, and the range for benchmarks, RFC 2544.
                || (first == 100 && (64..128).contains(&second))
                || (first == 198 && (18..20).contains(&second))
                || first >= 240
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unique_local()
                // NAT64 and 6to4 lead to addresses of IPv4 that are not looked at.
                || (ip.segments()[0] == 0x64 && ip.segments()[1] == 0xff9b)
                || ip.segments()[0] == 0x2002
        }
    }
}

/// A service's message without words that look like a key or a part of one, cut short and on one line.
fn without_keys(text: &str) -> String {
    let mut told = String::new();
    let mut word = String::new();
    for it in text.chars().chain([' ']) {
        if it.is_alphanumeric() || "_-+/=.*~…".contains(it) {
            word.push(it);
            continue;
        }
        let digits = word.chars().any(|it| it.is_ascii_digit());
        let letters = word.chars().any(char::is_alphabetic);
        let upper = word.chars().any(char::is_uppercase) && word.chars().any(char::is_lowercase);
        let long = word.chars().count();
        let key = word.contains("**") || (long >= 12 && digits && letters) || (long >= 20 && upper) || long >= 40;
        told.push_str(if key { "…" } else { &word });
        word.clear();
        told.push(if it.is_control() { ' ' } else { it });
    }
    let told = told.trim_end();
    match told.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        for (address, is_never, is_inside) in [
            ("169.254.169.254", true, false),
            ("169.254.170.2", true, false),
            ("fe80::1", true, false),
            ("fd00:ec2::254", true, true),
            ("fd00:ec2::23", true, true),
            ("0.0.0.0", true, false),
            ("::", true, false),
            ("224.0.0.1", true, false),
            ("255.255.255.255", true, true),
            ("100.100.100.200", true, true),
            ("127.0.0.1", false, true),
            ("10.1.2.3", false, true),
            ("172.31.0.1", false, true),
            ("192.168.0.1", false, true),
            ("100.64.0.1", false, true),
            ("::1", false, true),
            ("fd12::1", false, true),
            ("64:ff9b::a9fe:a9fe", false, true),
            ("2002:a9fe:a9fe::", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:169.254.169.254", true, false),
            ("8.8.8.8", false, false),
            ("172.32.0.1", false, false),
            ("2606:4700::1", false, false),
        ] {
            let ip = address.parse::<IpAddr>().unwrap().to_canonical();
            assert_eq!((never(ip), inside(ip)), (is_never, is_inside), "{address}");
        }
    }

    #[test]
    fn what_looks_like_a_key_is_not_repeated() {
        for (text, expected) in [
            ("Incorrect API key provided: sk-proj-********abcd. See", "Incorrect API key provided: … See"),
            ("the key Zm9vYmFyYmF6cXV4 is bad", "the key … is bad"),
            ("quota_exceeded for service_account_keys (max 5)", "quota_exceeded for service_account_keys (max 5)"),
            ("abcdefABCDEFabcdefABCDEF", "…"),
            ("line\nbreak", "line break"),
        ] {
            assert_eq!(without_keys(text), expected);
        }
        assert_eq!(without_keys(&"ab ".repeat(200)).chars().count(), LONGEST_MESSAGE + 1);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert!(after("Fri, 31 Dec 2199 23:59:59 GMT").unwrap() > Duration::from_hours(24));
        assert_eq!(after("soon"), None);
    }
}
