//! One connection to PostgreSQL: bounded waits, no fall-back from TLS, and errors told apart by code.

use std::error::Error as _;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Code, Error, Result, Which};
use crate::net::{connect, no_address};
use crate::sql::{ANSWER_WITHIN, CONNECT_WITHIN, Login, Target, timed_out};
use crate::tls::handshake_error;

/// For [`Session::change`].
const CHANGE_TRIES: usize = 3;

/// What a client sends to ask for TLS: length 8, code 80877103 (PostgreSQL's frontend/backend protocol, `SSLRequest`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Who answers. Amazon Redshift speaks the protocol, and says some things with other SQLSTATEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kinds) enum Server {
    Postgres,
    Redshift,
}

/// A session of one login. Dropping it breaks the connection; nothing goes on in the background.
pub(in crate::kinds) struct Session {
    client: Client,
    driver: Driver,
    place: String,
    answer_within: Duration,
}

struct Driver(JoinHandle<std::result::Result<(), tokio_postgres::Error>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Signs in as the user of `login` with `password`. `which` is the credential that a refusal is about.
    pub(in crate::kinds) async fn open(
        server: Server,
        login: &Login<'_>,
        password: &str,
        which: Which,
    ) -> Result<Self> {
        let place = login.target.place();
        let opened = timeout(CONNECT_WITHIN, Self::open_unbounded(server, login, password, which, &place));
        opened.await.unwrap_or_else(|_| Err(timed_out(&place, CONNECT_WITHIN)))
    }

    async fn open_unbounded(
        server: Server,
        login: &Login<'_>,
        password: &str,
        which: Which,
        place: &str,
    ) -> Result<Self> {
        let target = &login.target;
        let mut stream = connect(target.at, target.port, place).await?;
        let mut config = tokio_postgres::Config::new();
        config.user(target.user).password(password).application_name("keywheel").ssl_mode(SslMode::Disable);
        if let Some(database) = target.database {
            config.dbname(database);
        }
        let failed = |error: tokio_postgres::Error| sign_in_error(server, &error, target, which, place);
        let (client, driver) = match &login.trust.client(&login.ask)? {
            None => {
                let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(failed)?;
                (client, tokio::spawn(connection))
            }
            Some(tls) => {
                ask_for_tls(&mut stream, place).await?;
                // TLS has been asked for, so the driver starts with the handshake.
                config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                let mut connector = MakeRustlsConnect::new(ClientConfig::clone(tls));
                let connector = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut connector, target.host)
                    .map_err(|_| no_address(target.host))?;
                let (client, connection) = config.connect_raw(stream, connector).await.map_err(failed)?;
                (client, tokio::spawn(connection))
            }
        };
        Ok(Self { client, driver: Driver(driver), place: place.to_owned(), answer_within: ANSWER_WITHIN })
    }

    /// How long each message may take from here on.
    pub(in crate::kinds) fn answer_within(&mut self, limit: Duration) {
        self.answer_within = limit;
    }

    /// Runs statements by the simple protocol: one round trip, and nothing to prepare behind a proxy. Returns the rows.
    ///
    /// # Errors
    /// [`Failure`], which the caller words.
    pub(in crate::kinds) async fn run(&self, sql: &str) -> std::result::Result<Rows, Failure> {
        let Ok(answered) = timeout(self.answer_within, self.client.simple_query(sql)).await else {
            return Err(Failure::Other(timed_out(&self.place, self.answer_within)));
        };
        let messages = answered.map_err(|error| self.failure(&error))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// [`run`](Self::run) for many statements, without their rows.
    ///
    /// # Errors
    /// [`Failure`], with the index of the statement that failed.
    pub(in crate::kinds) async fn run_all(&self, statements: &[String]) -> std::result::Result<(), (usize, Failure)> {
        let mut done = 0;
        let sql = statements.join("; ");
        let running = async {
            let mut answers = pin!(self.client.simple_query_raw(&sql).await?);
            while let Some(answer) = answers.next().await {
                if let SimpleQueryMessage::CommandComplete(_) = answer? {
                    done += 1;
                }
            }
            Ok(())
        };
        let answered = timeout(self.answer_within, running).await;
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err((done, self.failure(&error))),
            Err(_) => Err((done, Failure::Other(timed_out(&self.place, self.answer_within)))),
        }
    }

    fn failure(&self, error: &tokio_postgres::Error) -> Failure {
        match error.code() {
            Some(state) => Failure::State(state.clone()),
            None => Failure::Other(broken(error, &self.place)),
        }
    }

    /// [`run`](Self::run) for a change of roles that does no harm when it is done twice. Two changes of one role at the same
    /// time are an internal error to PostgreSQL ("tuple concurrently updated"), and the later one may try again.
    pub(in crate::kinds) async fn change(&self, sql: &str) -> std::result::Result<(), Failure> {
        for _ in 0..CHANGE_TRIES {
            match self.run(sql).await {
                Err(Failure::State(SqlState::INTERNAL_ERROR)) => {}
                other => return other.map(drop),
            }
        }
        self.run(sql).await.map(drop)
    }

    /// [`run`](Self::run), with errors that need no words of their own.
    pub(in crate::kinds) async fn ask(&self, sql: &str) -> Result<Rows> {
        self.run(sql).await.map_err(|failure| self.plain(failure))
    }

    /// The error of a failure that has no words of its own.
    pub(in crate::kinds) fn plain(&self, failure: Failure) -> Error {
        match failure {
            Failure::State(state) => server_error(&state, &self.place),
            Failure::Other(error) => error,
        }
    }

    /// Host and port, for messages.
    pub(in crate::kinds) fn place(&self) -> &str {
        &self.place
    }

    /// Says goodbye, so that the server's log has no broken connection in it.
    pub(in crate::kinds) async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        // What the goodbye meets is of no interest: the work is done.
        let _ = timeout(Duration::from_secs(1), &mut driver.0).await;
    }
}

/// What a query returned, all as text.
pub(in crate::kinds) type Rows = Vec<Vec<Option<String>>>;

/// The first column of the first row.
pub(in crate::kinds) fn single(rows: &Rows) -> Option<&str> {
    rows.first()?.first()?.as_deref()
}

/// Whether the first column of the first row is true.
pub(in crate::kinds) fn is_true(rows: &Rows) -> bool {
    single(rows) == Some("t")
}

/// Why a statement failed.
pub(in crate::kinds) enum Failure {
    /// The server said so, with this SQLSTATE.
    State(SqlState),
    /// There was no answer.
    Other(Error),
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

fn sign_in_error(
    server: Server,
    error: &tokio_postgres::Error,
    target: &Target<'_>,
    which: Which,
    place: &str,
) -> Error {
    let user = target.user;
    let Some(state) = error.code() else {
        if let Some(cause) = tls_cause(error) {
            return handshake_error(cause, place);
        }
        // The driver cannot read what it is asked for.
        if io_cause(error).is_some_and(|cause| cause.kind() == std::io::ErrorKind::InvalidInput) {
            let message = format!("user {user:?} at {place} signs in in a way that is not known here");
            return Error::rejected(which, Code::NotPermitted, message).hint(match server {
                Server::Postgres => "passwords, by SCRAM-SHA-256, MD5 or in clear under TLS, are known here",
                Server::Redshift => {
                    "Redshift stores this password as SHA-256, which most drivers do not know; an administrator can set it as MD5"
                }
            });
        }
        return broken(error, place);
    };
    let refused =
        || Error::rejected(which, Code::WrongPassword, format!("{place} refuses user {user:?} and the password"));
    match *state {
        SqlState::INVALID_PASSWORD => refused(),
        // The SQLSTATE of a wrong password was made after PostgreSQL 8.0, which Redshift comes from.
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if server == Server::Redshift => refused(),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION | SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::rejected(which, Code::NotPermitted, format!("{place} does not let user {user:?} in"))
                .hint("check that the role has LOGIN and CONNECT, and that pg_hba.conf lets it in from the function, with or without TLS as the secret says")
        }
        SqlState::INVALID_CATALOG_NAME => {
            Error::config(Code::Database, format!("{place} has no database {:?}", target.database.unwrap_or_default()))
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
pub(in crate::kinds) fn server_error(state: &SqlState, place: &str) -> Error {
    Error::transient(Code::Server, format!("{place} answers with SQLSTATE {}", state.code()))
}

fn broken(error: &tokio_postgres::Error, place: &str) -> Error {
    let cause = io_cause(error).map(|cause| format!(": {}", cause.kind())).unwrap_or_default();
    Error::transient(Code::Unreachable, format!("the connection to {place} broke{cause}"))
}

/// The TLS error behind a failed sign-in, if that is what it was.
fn tls_cause(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    io_cause(error)?.get_ref()?.downcast_ref::<rustls::Error>()
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&std::io::Error> {
    error.source()?.downcast_ref::<std::io::Error>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of a sign-in to a server that answers the first message with `answer`.
    async fn answered(server: Server, answer: &[u8]) -> Error {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(answer).await.unwrap();
        let connected = tokio_postgres::Config::new().user("app").password("x").connect_raw(near, NoTls).await;
        let target = Target { host: "host", at: "host", port: 5439, database: None, user: "app" };
        sign_in_error(server, &connected.err().unwrap(), &target, Which::Current, "host:5439")
    }

    /// A message of the backend.
    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    #[tokio::test]
    async fn refusals_are_told_apart_by_who_says_them() {
        for (server, state, code) in [
            (Server::Postgres, "28P01", Code::WrongPassword),
            (Server::Postgres, "28000", Code::NotPermitted),
            (Server::Redshift, "28000", Code::WrongPassword),
            (Server::Redshift, "42501", Code::NotPermitted),
            (Server::Redshift, "3D000", Code::Database),
        ] {
            let body = format!("SFATAL\0C{state}\0Mno\0\0");
            assert_eq!(answered(server, &message(b'E', body.as_bytes())).await.code(), code, "{server:?} {state}");
        }
    }

    #[tokio::test]
    async fn a_way_to_sign_in_that_is_not_known_is_told_so() {
        // Redshift's, for passwords that it has as SHA-256: 13.
        for server in [Server::Postgres, Server::Redshift] {
            let error = answered(server, &message(b'R', &[0, 0, 0, 13, 0, 0, 0, 0])).await;
            assert_eq!(error.code(), Code::NotPermitted, "{error}");
        }
    }
}
