//! A small and strict Secrets Manager for local use and tests: [`Service`] over HTTP, with faults on order.
//!
//! It speaks AWS JSON 1.1, so that the AWS CLI and the SDKs work unchanged with their endpoint set to [`Emulator::url`].
//! **No authentication is checked**: every signature is as good as none, and whoever reaches the port may do everything.
//! Let it listen on loopback only, and put no real secret into it.
//!
//! `RotateSecret` answers at once and then drives the four steps in the background, against anything that serves Lambda's
//! Invoke API (`cargo lambda watch` does). A failed step is followed by the whole rotation once more, with the same token.
//!
//! Beside Secrets Manager it serves, in JSON:
//!
//! | request | does |
//! | --- | --- |
//! | `POST /_emulator/faults` | injects a [`Fault`]: `{"operation", "nth", "times", "fault", …}`, see below |
//! | `DELETE /_emulator/faults` | takes all faults back |
//! | `GET /_emulator/calls` | lists the calls so far: see [`Call`] |
//! | `DELETE /_emulator/calls` | forgets them |
//! | `GET /_emulator/rotations` | lists the rotations: see [`Rotation`] |
//! | `POST /_emulator/begin-rotation` | `{"SecretId", "ClientRequestToken"}`: registers the version with AWSPENDING and drives nothing, for steps by hand |
//!
//! `fault` is `error` (with `code`, `status`, `message`), `throttle`, `latency` (with `ms`), `lost-response`, `lost-request`
//! or `crash` (with `pid`). Without `operation` it concerns every operation; `nth` and `times` are 1 if not given.

mod fault;
mod operations;
mod rotation;

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use keywheel::event::Step;
use keywheel::store::memory::{Refusal, Service};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use fault::{Effect, Fault, Victim};
pub use rotation::{Rotation, State, StepError, StepRun};

use fault::Faults;

/// How an [`Emulator`] runs.
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Serves HTTPS with this.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The base of the Lambda Invoke API, e.g. `http://127.0.0.1:9000`. Without it `RotateSecret` is refused.
    pub function_url: Option<String>,
    /// The name to invoke; without it the one in `RotationLambdaARN`.
    pub function_name: Option<String>,
    /// How often a rotation is tried before it has failed.
    pub attempts: u32,
    /// The pause before it is tried again.
    pub pause: Duration,
    /// Writes a line per call to stderr, without values.
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            function_url: None,
            function_name: None,
            attempts: 3,
            pause: Duration::from_secs(1),
            log: false,
        }
    }
}

/// A running emulator; it stops when it is dropped.
pub struct Emulator {
    shared: Arc<Shared>,
    url: String,
}

/// A call that has arrived, whatever became of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// E.g. `GetSecretValue`.
    pub operation: String,
    /// The secret as the call names it.
    pub secret: Option<String>,
    /// The labels that it names, with commas between.
    pub stage: Option<String>,
    /// The version that it names, be it one to make.
    pub version: Option<String>,
    /// The rotation step that was under way: of this secret, or else the only one of all.
    pub step: Option<Step>,
    /// Whether it carried a `RotationToken`.
    pub rotation_token: bool,
    /// The time since the start of the emulator.
    pub at: Duration,
    /// `ok`, the error code, or the fault that left it without an answer; `None` while it is worked on.
    pub outcome: Option<String>,
}

impl Emulator {
    /// Starts one on the runtime of the caller.
    ///
    /// # Errors
    /// Those of listening.
    pub async fn start(options: Options) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr()?);
        let name = options.function_name;
        let shared = Arc::new(Shared {
            service: Service::new(),
            function: Mutex::new(options.function_url.map(|url| Function { url, name })),
            attempts: options.attempts.max(1),
            pause: options.pause,
            log: options.log,
            started: Instant::now(),
            operation: Mutex::default(),
            faults: Mutex::default(),
            calls: Mutex::default(),
            rotations: watch::Sender::default(),
            tasks: Mutex::default(),
        });
        shared.spawn(accept(shared.clone(), listener, options.tls.map(TlsAcceptor::from)));
        Ok(Self { shared, url })
    }

    /// The endpoint, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The secrets behind it.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.shared.service
    }

    /// The calls so far, in the order of their arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).list.clone()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.shared.forget_calls();
    }

    /// Lets a call go wrong.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.faults).add(fault);
    }

    /// Takes back every fault that has not struck.
    pub fn clear_faults(&self) {
        lock(&self.shared.faults).clear();
    }

    /// The rotations, in the order of their beginning.
    #[must_use]
    pub fn rotations(&self) -> Vec<Rotation> {
        self.shared.rotations.borrow().clone()
    }

    /// Waits until the rotation of `secret` (its ARN or name) with `token` has begun and come to its end. It may never.
    pub async fn rotation_ended(&self, secret: &str, token: &str) -> Rotation {
        let mut rotations = self.shared.rotations.subscribe();
        let ended = |it: &&Rotation| it.is(secret, token) && it.state != State::Running;
        loop {
            if let Some(rotation) = rotations.borrow_and_update().iter().find(ended) {
                return rotation.clone();
            }
            // The sender lives as long as `self`.
            let _ = rotations.changed().await;
        }
    }

    /// Registers version `token` with AWSPENDING and drives nothing, for steps by hand.
    ///
    /// # Errors
    /// Those of `RotateSecret`.
    pub fn begin_rotation(&self, secret: &str, token: &str) -> Result<(), Refusal> {
        self.shared.begin_rotation(secret, token)
    }

    /// Sets the function that rotations invoke from now on.
    pub fn set_function(&self, url: &str, name: Option<&str>) {
        *lock(&self.shared.function) = Some(Function { url: url.to_owned(), name: name.map(str::to_owned) });
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        lock(&self.shared.tasks).abort_all();
    }
}

struct Shared {
    service: Service,
    function: Mutex<Option<Function>>,
    attempts: u32,
    pause: Duration,
    log: bool,
    started: Instant,
    /// Held during an operation.
    operation: Mutex<()>,
    faults: Mutex<Faults>,
    calls: Mutex<Calls>,
    rotations: watch::Sender<Vec<Rotation>>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Clone)]
struct Function {
    url: String,
    name: Option<String>,
}

#[derive(Default)]
struct Calls {
    list: Vec<Call>,
    /// How many were forgotten: the number of a call is its place among all.
    forgotten: usize,
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn forget_calls(&self) {
        let mut calls = lock(&self.calls);
        calls.forgotten += calls.list.len();
        calls.list.clear();
    }

    fn begin_rotation(&self, secret: &str, token: &str) -> Result<(), Refusal> {
        let _one_at_a_time = lock(&self.operation);
        self.service.edit(secret, |record| {
            record.rotation_function.get_or_insert_with(|| "by-hand".to_owned());
        })?;
        self.service.begin_rotation(secret, token)
    }

    /// Notes a call that has arrived; answers its number.
    fn note(&self, operation: &str, body: &Map<String, Value>) -> usize {
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let stages = body.get("VersionStages").and_then(Value::as_array);
        let stages = stages.map(|all| all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","));
        let secret = text("SecretId").or_else(|| text("Name"));
        let call = Call {
            operation: operation.to_owned(),
            step: self.step(secret.as_deref()),
            secret,
            stage: text("VersionStage").or(stages),
            version: ["VersionId", "MoveToVersionId", "RemoveFromVersionId", "ClientRequestToken"]
                .into_iter()
                .find_map(text),
            rotation_token: body.contains_key("RotationToken"),
            at: self.started.elapsed(),
            outcome: None,
        };
        let mut calls = lock(&self.calls);
        calls.list.push(call);
        calls.forgotten + calls.list.len() - 1
    }

    /// The step during which a call that names `secret` comes.
    fn step(&self, secret: Option<&str>) -> Option<Step> {
        let arn = self.service.inspect(secret?, |record| record.arn.clone()).ok();
        let rotations = self.rotations.borrow();
        let running: Vec<_> = rotations.iter().filter(|it| it.step.is_some()).collect();
        let of_secret = running.iter().find(|it| Some(&it.secret) == arn.as_ref());
        of_secret.or(running.first().filter(|_| running.len() == 1)).and_then(|it| it.step)
    }

    fn close(&self, number: usize, outcome: String) {
        let mut calls = lock(&self.calls);
        let place = number.checked_sub(calls.forgotten);
        if let Some(call) = place.and_then(|place| calls.list.get_mut(place)) {
            call.outcome = Some(outcome);
            if self.log {
                let _ = writeln!(std::io::stderr(), "{}", call.line());
            }
        }
    }
}

impl Call {
    fn line(&self) -> String {
        let named = [&self.secret, &self.stage, &self.version].into_iter().flatten();
        let named = named.fold(String::new(), |line, it| line + " " + it);
        let step = self.step.map(|step| format!(" during {step}")).unwrap_or_default();
        format!("{}{named}{step}: {}", self.operation, self.outcome.as_deref().unwrap_or("no end"))
    }

    fn to_json(&self) -> Value {
        json!({
            "operation": self.operation,
            "secret": self.secret,
            "stage": self.stage,
            "version": self.version,
            "step": self.step.map(Step::as_str),
            "rotationToken": self.rotation_token,
            "ms": milliseconds(self.at),
            "outcome": self.outcome,
        })
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        // What fails here is one connection: its client is gone, or there are too many of them.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        shared.spawn(connection(shared.clone(), stream, tls.clone()));
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, tls: Option<TlsAcceptor>) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => converse(shared, stream).await,
        Some(tls) => {
            // A client that does not trust the certificate sees the reason itself.
            if let Ok(stream) = tls.accept(stream).await {
                converse(shared, stream).await;
            }
        }
    }
}

async fn converse(shared: Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|request| answer(shared.clone(), request));
    // It ends with an error when the client goes away, and when an answer is to be lost.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Closes the connection instead of an answer.
#[derive(Debug)]
struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer is lost by a fault")
    }
}

impl std::error::Error for NoAnswer {}

type Answer = Response<Full<Bytes>>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, NoAnswer> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Err(NoAnswer) };
    let body = body.to_bytes();
    if let Some(what) = head.uri.path().strip_prefix("/_emulator/") {
        return Ok(control(&shared, &head.method, what, &body));
    }
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix("secretsmanager."));
    let Some(operation) = operation.filter(|_| head.method == Method::POST) else {
        return Ok(error(400, "UnknownOperationException", "a call is a POST with X-Amz-Target: secretsmanager.…"));
    };
    let Ok(Value::Object(body)) = serde_json::from_slice(&body) else {
        return Ok(error(400, "SerializationException", "the body is not a JSON object"));
    };
    call(&shared, operation, body).await
}

/// One call of an operation, with the faults that strike it.
async fn call(shared: &Arc<Shared>, operation: &str, body: Map<String, Value>) -> Result<Answer, NoAnswer> {
    let number = shared.note(operation, &body);
    let mut effects = lock(&shared.faults).count(operation);
    let delay = |effect: &Effect| if let Effect::Latency(time) = effect { *time } else { Duration::ZERO };
    let late: Duration = effects.iter().map(delay).sum();
    effects.retain(|effect| !matches!(effect, Effect::Latency(_)));
    // Of several faults that strike one call, the first decides.
    let effect = effects.into_iter().next();

    let (outcome, answer) = match &effect {
        Some(lost @ Effect::LostRequest) => (format!("{lost:?}"), Err(NoAnswer)),
        Some(Effect::Error { status, code, message }) => (code.clone(), Ok(error(*status, code, message))),
        _ => match operations::run(shared, operation, body) {
            Ok(answer) => ("ok".to_owned(), Ok(success(answer.as_ref()))),
            Err(refusal) => (refusal.code.to_owned(), Ok(error(400, refusal.code, &refusal.message))),
        },
    };
    if late > Duration::ZERO {
        tokio::time::sleep(late).await;
    }
    let Some(lost @ (Effect::LostResponse | Effect::Crash(_))) = effect else {
        shared.close(number, outcome);
        return answer;
    };
    shared.close(number, format!("{outcome}, {lost:?}"));
    if let Effect::Crash(victim) = lost {
        victim.kill();
    }
    Err(NoAnswer)
}

/// What is not Secrets Manager.
fn control(shared: &Arc<Shared>, method: &Method, what: &str, body: &Bytes) -> Answer {
    let parse = || serde_json::from_slice::<Value>(body).map_err(|error| error.to_string());
    let done = match (method.as_str(), what) {
        ("POST", "faults") => parse().and_then(|body| Fault::parse(&body)).map(|fault| {
            lock(&shared.faults).add(fault);
            None
        }),
        ("DELETE", "faults") => {
            lock(&shared.faults).clear();
            Ok(None)
        }
        ("GET", "calls") => Ok(Some(lock(&shared.calls).list.iter().map(Call::to_json).collect())),
        ("DELETE", "calls") => {
            shared.forget_calls();
            Ok(None)
        }
        ("GET", "rotations") => Ok(Some(shared.rotations.borrow().iter().map(Rotation::to_json).collect())),
        ("POST", "begin-rotation") => parse().and_then(|body| {
            let text = |name: &str| body[name].as_str().ok_or(format!("begin-rotation needs {name}"));
            let (secret, token) = (text("SecretId")?, text("ClientRequestToken")?);
            let begun = shared.begin_rotation(secret, token);
            begun
                .map(|()| Some(json!({"VersionId": token})))
                .map_err(|refusal| format!("{}: {}", refusal.code, refusal.message))
        }),
        _ => {
            return response(
                404,
                json!({"message": format!("the emulator has no {method} /_emulator/{what}")}).to_string(),
            );
        }
    };
    match done {
        Ok(answer) => success(answer.as_ref()),
        Err(message) => response(400, json!({"message": message}).to_string()),
    }
}

fn success(answer: Option<&Value>) -> Answer {
    response(200, answer.map(Value::to_string).unwrap_or_default())
}

/// An error in the shape of AWS JSON 1.1. The service's own errors have a `Message`, those of its framework a `message`.
fn error(status: u16, code: &str, message: &str) -> Answer {
    let framework =
        ["ValidationException", "ThrottlingException", "UnknownOperationException", "SerializationException"];
    let key = if framework.contains(&code) { "message" } else { "Message" };
    response(status, json!({"__type": code, key: message}).to_string())
}

fn response(status: u16, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("application/x-amz-json-1.1"));
    if let Ok(id) = uuid().parse() {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// For reading, so in microseconds at the finest.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The friendly name in the ARN of a secret.
fn name_of(arn: &str) -> &str {
    let name = arn.rsplit(':').next().unwrap_or(arn);
    name.rsplit_once('-').map_or(name, |(name, _)| name)
}

/// A random UUID.
fn uuid() -> String {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).expect("the operating system has randomness");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
