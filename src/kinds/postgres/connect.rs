//! One connection to PostgreSQL: bounded waits, no fall-back from TLS, and errors told apart by code.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Target;
use crate::error::{Code, Error, Result, Which};
use crate::tls::handshake_error;

/// For name, connection, TLS and sign-in together; AWS's functions give as much to the connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// For one statement.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a client sends to ask for TLS: length 8, code 80877103 (PostgreSQL's frontend/backend protocol, `SSLRequest`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A session of one login. Dropping it breaks the connection; nothing goes on in the background.
pub(super) struct Session {
    client: Client,
    driver: Driver,
    place: String,
}

struct Driver(JoinHandle<std::result::Result<(), tokio_postgres::Error>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Signs in at `target` with `password`. `which` is the credential that a refusal is about.
    pub(super) async fn open(
        target: &Target<'_>,
        tls: Option<Arc<ClientConfig>>,
        password: &str,
        which: Which,
    ) -> Result<Self> {
        let place = target.place();
        let deadline = Instant::now() + CONNECT_WITHIN;
        let Ok(opened) = timeout_at(deadline, Self::open_unbounded(target, tls, password, which, &place)).await else {
            let seconds = CONNECT_WITHIN.as_secs();
            return Err(Error::transient(Code::Timeout, format!("no answer from {place} in {seconds} s")));
        };
        opened
    }

    async fn open_unbounded(
        target: &Target<'_>,
        tls: Option<Arc<ClientConfig>>,
        password: &str,
        which: Which,
        place: &str,
    ) -> Result<Self> {
        let mut stream = reach(target.host, target.port).await?;
        let mut config = tokio_postgres::Config::new();
        config
            .user(target.user)
            .password(password)
            .dbname(target.database)
            .application_name("keywheel")
            .ssl_mode(SslMode::Disable);
        let failed = |error: tokio_postgres::Error| sign_in_error(&error, target, which, place);
        let (client, driver) = match tls {
            None => {
                let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(failed)?;
                (client, tokio::spawn(connection))
            }
            Some(tls) => {
                ask_for_tls(&mut stream, place).await?;
                // TLS has been asked for, so the driver starts with the handshake.
                config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                let mut connector = MakeRustlsConnect::new(ClientConfig::clone(&tls));
                let connector = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, target.host)
                    .map_err(|_| host_error(target.host))?;
                let (client, connection) = config.connect_raw(stream, connector).await.map_err(failed)?;
                (client, tokio::spawn(connection))
            }
        };
        Ok(Self { client, driver: Driver(driver), place: place.to_owned() })
    }

    /// Runs statements by the simple protocol: one round trip, and nothing to prepare behind a proxy. Returns the rows.
    ///
    /// # Errors
    /// [`Failure`], which the caller words.
    pub(super) async fn run(&self, sql: &str) -> std::result::Result<Vec<Vec<Option<String>>>, Failure> {
        let Ok(answered) = timeout(ANSWER_WITHIN, self.client.simple_query(sql)).await else {
            let message = format!("no answer from {} in {} s", self.place, ANSWER_WITHIN.as_secs());
            return Err(Failure::Other(Error::transient(Code::Timeout, message)));
        };
        let messages = answered.map_err(|error| match error.code() {
            Some(state) => Failure::State(state.clone()),
            None => Failure::Other(broken(&error, &self.place)),
        })?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Says goodbye, so that the server's log has no broken connection in it.
    pub(super) async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        // What the goodbye meets is of no interest: the work is done.
        let _ = timeout(Duration::from_secs(1), &mut driver.0).await;
    }
}

/// Why a statement failed.
pub(super) enum Failure {
    /// The server said so, with this SQLSTATE.
    State(SqlState),
    /// There was no answer.
    Other(Error),
}

/// Connects to the first address of `host` that answers.
async fn reach(host: &str, port: u16) -> Result<TcpStream> {
    let place = format!("{host}:{port}");
    let addresses: Vec<_> = lookup_host((host, port))
        .await
        .map_err(|error| Error::transient(Code::Dns, format!("`{host}` does not resolve: {}", error.kind())))?
        .collect();
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small messages to and fro: waiting to fill a packet only adds time.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Error::transient(Code::Refused, format!("nothing listens at {place}"))
        }
        Some(error) => Error::transient(Code::Unreachable, format!("cannot connect to {place}: {}", error.kind())),
        None => host_error(host),
    })
}

fn host_error(host: &str) -> Error {
    Error::transient(Code::Dns, format!("`{host}` has no address"))
}

async fn ask_for_tls(stream: &mut TcpStream, place: &str) -> Result<()> {
    let mut answer = [0];
    let asked = async {
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_exact(&mut answer).await
    };
    asked.await.map_err(|error| {
        Error::transient(Code::Unreachable, format!("{place} broke the connection: {}", error.kind()))
    })?;
    match answer {
        [b'S'] => Ok(()),
        [b'N'] => Err(Error::transient(Code::TlsOff, format!("{place} offers no TLS"))),
        _ => Err(Error::transient(Code::Tls, format!("{place} does not answer as a PostgreSQL server does"))),
    }
}

fn sign_in_error(error: &tokio_postgres::Error, target: &Target<'_>, which: Which, place: &str) -> Error {
    let Some(state) = error.code() else {
        return match tls_cause(error) {
            Some(cause) => handshake_error(cause, place),
            None => broken(error, place),
        };
    };
    let user = target.user;
    match *state {
        SqlState::INVALID_PASSWORD => {
            Error::rejected(which, Code::WrongPassword, format!("{place} refuses user {user:?} and the password"))
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION | SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::rejected(which, Code::NotPermitted, format!("{place} does not let user {user:?} in"))
                .hint("check that the role has LOGIN and CONNECT, and that pg_hba.conf lets it in from the function, with or without TLS as the secret says")
        }
        SqlState::INVALID_CATALOG_NAME => {
            Error::config(Code::Database, format!("{place} has no database {:?}", target.database))
        }
        SqlState::TOO_MANY_CONNECTIONS => {
            Error::transient(Code::TooManyConnections, format!("{place} has no free connection for user {user:?}"))
        }
        SqlState::CANNOT_CONNECT_NOW | SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN => {
            Error::transient(Code::NotReady, format!("{place} is starting up or shutting down"))
        }
        _ => server_error(state, place),
    }
}

/// An answer of the server that has no case of its own.
pub(super) fn server_error(state: &SqlState, place: &str) -> Error {
    Error::transient(Code::Server, format!("{place} answers with SQLSTATE {}", state.code()))
}

fn broken(error: &tokio_postgres::Error, place: &str) -> Error {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let cause = cause.map(|cause| format!(": {}", cause.kind())).unwrap_or_default();
    Error::transient(Code::Unreachable, format!("the connection to {place} broke{cause}"))
}

/// The TLS error behind a failed sign-in, if that is what it was.
fn tls_cause(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    error.source()?.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()
}
