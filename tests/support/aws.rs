//! A stand-in for AWS at HTTP level: it answers each request by a rule, or passes it on to a server such as moto.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use keywheel::http::Http;
use keywheel::services::aws::Aws;
use keywheel::tls::Trust;
use serde_json::Value;

/// AWS, all of it at `url`, with the credentials of a role.
pub fn services(url: &str) -> Aws {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(url)
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("role", "role", None, None, "static")))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Aws::new(&config, None, Http::new(&Trust::default()).unwrap())
}

/// A request, as it was sent.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    head: String,
}

impl Asked {
    /// What is asked: `Action` of the form, the last part of `x-amz-target`, or method and path.
    pub fn action(&self) -> String {
        let target = self.headers.get("x-amz-target").and_then(|it| it.rsplit('.').next()).map(str::to_owned);
        self.form("Action").or(target).unwrap_or_else(|| format!("{} {}", self.method, self.path))
    }

    /// A parameter of the form.
    pub fn form(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.body.as_bytes()).find(|(it, _)| it == name).map(|(_, value)| value.into_owned())
    }

    /// The body; `null` if it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The access key id that the request is signed with.
    pub fn key_id(&self) -> Option<&str> {
        self.headers.get("authorization")?.split_once("Credential=")?.1.split('/').next()
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It is passed on, and the answer too.
    Pass,
    /// The connection breaks: the answer is lost. What is passed on with an upstream has happened all the same.
    Lose,
    /// Status, headers and body.
    Say(u16, Vec<(&'static str, String)>, String),
}

impl Reply {
    /// An answer that is all right.
    pub fn ok(body: impl Into<String>) -> Self {
        Self::Say(200, Vec::new(), body.into())
    }

    /// A refusal as the query protocol has it.
    pub fn refuse(code: &str) -> Self {
        let error = format!("<Error><Code>{code}</Code><Message>said so</Message></Error>");
        Self::Say(403, Vec::new(), format!("<ErrorResponse>{error}</ErrorResponse>"))
    }

    /// A refusal as the JSON protocols have it.
    pub fn refuse_json(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"__type": code, "message": message}).to_string();
        Self::Say(status, vec![("x-amzn-errortype", format!("{code}:http://internal.amazon.com/"))], body)
    }
}

type Rule = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// The stand-in. It serves until the process ends.
pub struct StandIn {
    url: String,
    inner: Arc<Inner>,
}

struct Inner {
    upstream: Option<String>,
    rule: Mutex<Rule>,
    log: Mutex<Vec<Asked>>,
    open: AtomicUsize,
}

impl StandIn {
    /// One that passes everything on to `upstream`; without one, a rule must answer.
    pub fn start(upstream: Option<&str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let upstream = upstream.map(|url| url.strip_prefix("http://").unwrap().to_owned());
        let pass: Rule = Box::new(|_| Reply::Pass);
        let inner = Inner { upstream, rule: Mutex::new(pass), log: Mutex::default(), open: AtomicUsize::new(0) };
        let inner = Arc::new(inner);
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let inner = Arc::clone(&serving);
                inner.open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    inner.serve(&stream.unwrap());
                    inner.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { url, inner }
    }

    /// One that gives these answers in turn.
    pub fn with_answers(answers: Vec<Reply>) -> Self {
        let stand_in = Self::start(None);
        let mut answers = answers.into_iter();
        stand_in
            .rule(move |asked| answers.next().unwrap_or_else(|| panic!("no answer is left for {}", asked.action())));
        stand_in
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// AWS behind this stand-in.
    pub fn services(&self) -> Aws {
        services(&self.url)
    }

    /// By what requests are answered from now on.
    pub fn rule(&self, rule: impl FnMut(&Asked) -> Reply + Send + 'static) {
        *self.inner.rule.lock().unwrap() = Box::new(rule);
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Asked> {
        self.inner.log.lock().unwrap().clone()
    }

    /// How often this was asked.
    pub fn asked(&self, action: &str) -> usize {
        self.log().iter().filter(|asked| asked.action() == action).count()
    }

    /// Waits until what was on its way has arrived and is done. The clients of [`services`](Self::services) must be gone.
    pub async fn settle(&self) {
        // Connections are accepted in the order in which they were made.
        let mut last = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        last.shutdown(Shutdown::Write).unwrap();
        last.read_to_end(&mut Vec::new()).unwrap();
        while self.inner.open.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Inner {
    /// One request, if one comes.
    fn serve(&self, mut stream: &TcpStream) -> Option<()> {
        let asked = read(stream)?;
        self.log.lock().unwrap().push(asked.clone());
        let reply = self.rule.lock().unwrap()(&asked);
        let answer = match reply {
            Reply::Say(status, headers, body) => {
                let length = body.len();
                let mut answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n");
                for (name, value) in headers {
                    answer.extend([name, ": ", &value, "\r\n"]);
                }
                format!("{answer}\r\n{body}").into_bytes()
            }
            Reply::Pass | Reply::Lose => {
                let passed = self.upstream.as_ref().and_then(|upstream| pass(upstream, &asked));
                if matches!(reply, Reply::Lose) {
                    return None;
                }
                passed?
            }
        };
        stream.write_all(&answer).ok()
    }
}

/// One request, if one comes.
pub(super) fn read(stream: impl Read) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut asked = Asked::default();
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    asked.head.clone_from(&line);
    let mut words = line.split(' ');
    (asked.method, asked.path) = (words.next()?.to_owned(), words.next()?.to_owned());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let name = name.to_ascii_lowercase();
        if name != "connection" {
            asked.head += &line;
        }
        asked.headers.insert(name, value.to_owned());
    }
    let mut body = vec![0; asked.headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?];
    reader.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8(body).ok()?;
    Some(asked)
}

fn pass(upstream: &str, asked: &Asked) -> Option<Vec<u8>> {
    let mut to = TcpStream::connect(upstream).ok()?;
    write!(to, "{}connection: close\r\n\r\n{}", asked.head, asked.body).ok()?;
    let mut answer = Vec::new();
    to.read_to_end(&mut answer).ok()?;
    Some(answer)
}
