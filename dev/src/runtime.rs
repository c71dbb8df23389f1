//! Lambda's Runtime API for one function on this machine, with the times at which the function calls it.
//!
//! It invokes a process that was started with `AWS_LAMBDA_RUNTIME_API` set to [`Runtime::address`], one event at a time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// A running Runtime API; it stops when it is dropped.
pub struct Runtime {
    address: SocketAddr,
    events: mpsc::UnboundedSender<Event>,
    news: mpsc::UnboundedReceiver<News>,
    invoked: u32,
    _tasks: JoinSet<()>,
}

/// What became of an invocation.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What the function answered, or the error that it reported.
    pub answer: Result<Value, Value>,
    /// From the handing over of the event to the request for the next one.
    pub time: Duration,
}

struct Event {
    id: String,
    deadline: SystemTime,
    payload: Value,
}

enum News {
    /// The function asks for an event.
    Asked(Instant),
    Answered(Result<Value, Value>),
    InitFailed(Value),
}

/// The function, on the side of the server.
struct Function {
    news: mpsc::UnboundedSender<News>,
    events: Mutex<mpsc::UnboundedReceiver<Event>>,
}

impl Runtime {
    /// Starts one on the runtime of the caller, for one process.
    ///
    /// # Errors
    /// Those of listening.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (events, to_deliver) = mpsc::unbounded_channel();
        let (report, news) = mpsc::unbounded_channel();
        let function = Arc::new(Function { news: report, events: Mutex::new(to_deliver) });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, function));
        Ok(Self { address, events, news, invoked: 0, _tasks: tasks })
    }

    /// The value of `AWS_LAMBDA_RUNTIME_API`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the function asks for its first event: the end of its init.
    ///
    /// # Errors
    /// What the function says has gone wrong with its init.
    pub async fn ready(&mut self) -> io::Result<Instant> {
        match self.news.recv().await {
            Some(News::Asked(at)) => Ok(at),
            Some(News::InitFailed(error)) => Err(io::Error::other(format!("init failed: {error}"))),
            Some(News::Answered(answer)) => Err(io::Error::other(format!("an answer before any event: {answer:?}"))),
            None => Err(io::Error::other("the Runtime API has stopped")),
        }
    }

    /// Hands over an event to the function that has asked for one, and waits until it asks for the next.
    ///
    /// # Errors
    /// When the function does not keep to the Runtime API.
    pub async fn invoke(&mut self, payload: Value, within: Duration) -> io::Result<Turn> {
        self.invoked += 1;
        let id = format!("00000000-0000-4000-8000-{:012}", self.invoked);
        let started = Instant::now();
        let _ = self.events.send(Event { id, deadline: SystemTime::now() + within, payload });
        let Some(News::Answered(answer)) = self.news.recv().await else {
            return Err(io::Error::other("the function asks for an event and owes an answer"));
        };
        let asked = self.ready().await?;
        Ok(Turn { answer, time: asked - started })
    }
}

async fn accept(listener: TcpListener, function: Arc<Function>) {
    let mut connections = JoinSet::new();
    // When listening fails, the function finds nobody, and the caller waits no longer than it wants to.
    while let Ok((stream, _)) = listener.accept().await {
        // Else an answer may wait for more to send.
        let _ = stream.set_nodelay(true);
        let function = function.clone();
        let service = service_fn(move |request| answer(function.clone(), request));
        connections.spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(function: Arc<Function>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let asked = Instant::now();
    let (head, body) = request.into_parts();
    let Some(what) = head.uri.path().strip_prefix("/2018-06-01/runtime/") else {
        return Ok(plain(StatusCode::NOT_FOUND, "no such path"));
    };
    if (head.method.as_str(), what) == ("GET", "invocation/next") {
        let _ = function.news.send(News::Asked(asked));
        return Ok(match function.events.lock().await.recv().await {
            Some(event) => deliver(&event),
            None => plain(StatusCode::GONE, "no more events"),
        });
    }
    let Ok(body) = body.collect().await else { return Ok(plain(StatusCode::BAD_REQUEST, "the body breaks off")) };
    let body = body.to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)));
    let news = match (head.method, what.rsplit('/').next()) {
        (Method::POST, Some("response")) => News::Answered(Ok(body)),
        (Method::POST, Some("error")) if what == "init/error" => News::InitFailed(body),
        (Method::POST, Some("error")) => News::Answered(Err(body)),
        _ => return Ok(plain(StatusCode::NOT_FOUND, "no such path")),
    };
    let _ = function.news.send(news);
    Ok(plain(StatusCode::ACCEPTED, r#"{"status":"OK"}"#))
}

fn deliver(event: &Event) -> Answer {
    let deadline = event.deadline.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let response = Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", &event.id)
        .header("lambda-runtime-deadline-ms", deadline.to_string())
        .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:local")
        .header("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000;Sampled=0")
        .body(Full::new(Bytes::from(event.payload.to_string())));
    response.unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "the event cannot be sent"))
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}
