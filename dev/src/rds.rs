//! As much of Amazon RDS as a rotation asks for: one DB instance, whatever it is asked. moto knows more, and starts slowly.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A running RDS; it stops when it is dropped.
pub struct Rds {
    url: String,
    calls: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Rds {
    /// Starts one that serves HTTPS on a free port, on the runtime of the caller. Its instance of `engine` is at `localhost`
    /// and `port`.
    ///
    /// # Errors
    /// Those of listening.
    pub async fn start(tls: Arc<rustls::ServerConfig>, engine: &str, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("https://{}", listener.local_addr()?);
        let calls = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls.into(), Bytes::from(instance(engine, port)), calls.clone()));
        Ok(Self { url, calls, _tasks: tasks })
    }

    /// The endpoint, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many calls have arrived.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, answer: Bytes, calls: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    // When listening fails, whoever asks finds nobody and says so.
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(converse(stream, tls.clone(), answer.clone(), calls.clone()));
    }
}

async fn converse(stream: TcpStream, tls: TlsAcceptor, answer: Bytes, calls: Arc<AtomicUsize>) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(move |_: Request<Incoming>| {
        calls.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(Full::new(answer.clone()));
        response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("text/xml"));
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The answer of `DescribeDBInstances`, with the fields that a rotation looks at.
fn instance(engine: &str, port: u16) -> String {
    format!(
        "<DescribeDBInstancesResponse xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\"><DescribeDBInstancesResult>\
         <DBInstances><DBInstance><DBInstanceIdentifier>one</DBInstanceIdentifier><Engine>{engine}</Engine>\
         <Endpoint><Address>localhost</Address><Port>{port}</Port></Endpoint></DBInstance></DBInstances>\
         </DescribeDBInstancesResult></DescribeDBInstancesResponse>"
    )
}
