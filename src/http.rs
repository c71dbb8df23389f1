//! The one HTTP client of the process: connections are kept from step to step, and trust is that of [`crate::tls`].
//!
//! The AWS SDK is given it as its connector. The SDK's own parses the system's certificates, some 140, when it is built and
//! once more at the first call; here they are compiled in as anchors. Measured: 1.2 ms less of a cold start, and less in the
//! first step, which runs at the CPU share of the function's memory.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect};
use hyper_util::rt::TokioExecutor;

use crate::error::{Code, Error, Result};
use crate::store::aws::chain;
use crate::tls::{Trust, handshake_error};

/// For the connection alone; TLS and answer have the limits of who asks.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Lambda stops the process between invocations, and a connection that was idle for long may be gone without a word.
const IDLE_FOR: Duration = Duration::from_secs(20);
/// For [`Http::warm`]: a start that waits longer gains nothing.
const WARM_WITHIN: Duration = Duration::from_secs(1);
/// For [`Http::send`]: whoever answers with more is not what was asked.
const LONGEST_ANSWER: usize = 1 << 20;

/// The client. A clone shares the connections.
#[derive(Clone, Debug)]
pub struct Http(Client<HttpsConnector<connect::HttpConnector>, SdkBody>);

impl Http {
    /// A client that verifies certificates in full, by the authorities in `trust`.
    ///
    /// # Errors
    /// Config, when the operator's file of authorities cannot be read.
    pub fn new(trust: &Trust) -> Result<Self> {
        let tls = trust.verify_full()?;
        let mut tcp = connect::HttpConnector::new();
        tcp.enforce_http(false);
        // Small messages to and fro: waiting to fill a packet only adds time.
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_WITHIN));
        let builder = HttpsConnectorBuilder::new().with_tls_config(rustls::ClientConfig::clone(&tls));
        // Plain HTTP is for emulators: AWS's endpoints are all https.
        let https = builder.https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Self(Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_FOR).build(https)))
    }

    /// Opens a connection to `endpoint` for the first call to find, by a request that does nothing; `/ping` is what AWS's
    /// endpoints have for that. Whatever comes of it, the call will show.
    pub async fn warm(&self, endpoint: &str) {
        let ping = http::Request::get(format!("{}/ping", endpoint.trim_end_matches('/'))).body(SdkBody::empty());
        let Ok(ping) = ping else { return };
        let answered = tokio::time::timeout(WARM_WITHIN, self.0.request(ping)).await;
        // A connection goes back to the pool when its answer has been read; a short one has been already.
        drop(answered);
    }

    /// Sends a request, and reads the whole answer.
    ///
    /// # Errors
    /// [`Unanswered`], also when the answer is longer than a mebibyte.
    pub(crate) async fn send(
        &self,
        request: http::Request<SdkBody>,
        within: Duration,
    ) -> std::result::Result<http::Response<Vec<u8>>, Unanswered> {
        let answered = async {
            let answer = self.0.request(request).await.map_err(|error| Unanswered::of(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| Unanswered::Broken(chain(error.as_ref())))?;
            Ok(http::Response::from_parts(head, body.to_bytes().to_vec()))
        };
        tokio::time::timeout(within, answered).await.unwrap_or(Err(Unanswered::Timeout))
    }

    /// For the configuration of the SDK.
    #[must_use]
    pub fn for_sdk(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Timeout,
    /// With the causes, in words.
    Broken(String),
    /// The handshake failed.
    Tls(rustls::Error),
}

impl Unanswered {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Self::Tls(tls.clone());
            }
            // An I/O error has as its source the source of what it holds.
            let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            cause = held.map(|it| it as _).or_else(|| error.source());
        }
        Self::Broken(chain(error))
    }

    /// The error for a host that a secret names; `place` is host and port.
    pub(crate) fn explain(self, place: &str, within: Duration) -> Error {
        match self {
            Self::Timeout => {
                Error::transient(Code::Timeout, format!("no answer from {place} in {} s", within.as_secs()))
            }
            Self::Broken(cause) => Error::transient(Code::Unreachable, format!("cannot connect to {place}: {cause}")),
            Self::Tls(error) => handshake_error(&error, place),
        }
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
