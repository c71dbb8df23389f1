//! Connections to servers whose protocols are spoken here.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::error::{Code, Error, Result};
use crate::net;
use crate::secret::Exposed;
use crate::tls::{self, Ask, Trust};

/// For name and connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// For TLS.
const SHAKEN_WITHIN: Duration = Duration::from_secs(3);
const PLAINTEXT: &str = "turn on TLS at the server; `\"sslmode\": \"disable\"` in the secret allows plaintext";

/// A connection, with TLS or without.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a server is, and how to speak to it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) ask: Ask<'a>,
    pub(crate) trust: &'a Trust,
}

impl<'a> Place<'a> {
    /// From the fields `host`, `port` and those of TLS; without `port` it is `usual`.
    ///
    /// # Errors
    /// Config, when one of them is missing or cannot be used.
    pub(crate) fn of(fields: Exposed<'a>, usual: u16, trust: &'a Trust) -> Result<Self> {
        let port = fields.number("port", 1, 65_535)?.and_then(|port| u16::try_from(port).ok());
        Ok(Self { host: fields.required("host")?, port: port.unwrap_or(usual), ask: Ask::of(fields)?, trust })
    }

    /// Host and port, for messages.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Connects, with TLS as the place asks for it. Dropping it breaks it.
///
/// # Errors
/// Transient, when there is no way to it (Dns, Refused, Unreachable, Timeout), or what is there does not speak as it should.
pub(crate) async fn open(at: &Place<'_>) -> Result<Box<dyn Stream>> {
    let place = at.name();
    let late =
        |code, what| Error::transient(code, format!("{place} does not answer{what} in {} s", CONNECT_WITHIN.as_secs()));
    let config = at.trust.client(&at.ask)?;
    let connected = timeout(CONNECT_WITHIN, net::connect(at.host, at.port, &place)).await;
    let stream = connected.unwrap_or_else(|_| Err(late(Code::Timeout, "")))?;
    let stream: Box<dyn Stream> = match config {
        None => Box::new(stream),
        Some(config) => {
            // A server without TLS may wait for the rest of what it takes for a command.
            let shaken = timeout(SHAKEN_WITHIN, tls::connect(config, at.host, stream, &place)).await;
            let shaken = shaken.unwrap_or_else(|_| Err(late(Code::TlsOff, " in TLS")));
            Box::new(shaken.map_err(|error| match error.code() {
                Code::TlsOff => error.hint(PLAINTEXT),
                _ => error,
            })?)
        }
    };
    Ok(stream)
}
