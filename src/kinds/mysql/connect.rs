//! One connection to MySQL or MariaDB: bounded waits, no fall-back from TLS, and errors told apart by number.

use std::net::SocketAddr;

use mysql_async::prelude::Queryable as _;
use mysql_async::{
    ClientIdentity, Conn, DriverError, IoError, OptsBuilder, Row, ServerError, SslOpts, TlsError, Value,
};
use rustls::CertificateError;
use tokio::time::timeout;

use crate::error::{Code, Error, Result, Which};
use crate::net::{connect_error, resolve};
use crate::sql::{ANSWER_WITHIN, CONNECT_WITHIN, Login, Target, timed_out};
use crate::tls::{Mode, handshake_error};

/// Nothing here is longer; without a value the driver asks the server.
const LONGEST_PACKET: usize = 16 * 1024 * 1024;
/// Seconds that the server may keep an idle session; without a value the driver asks the server.
const IDLE_SECONDS: usize = 60;

/// What a query returned, all as text. Bytes that are none are replaced: they are only in hashes, which nobody reads.
pub(super) type Rows = Vec<Vec<Option<String>>>;

/// A session of one login. Dropping it breaks the connection.
pub(in crate::kinds) struct Session {
    connection: Conn,
    place: String,
}

/// Why a statement failed.
pub(super) enum Failure {
    /// The server said so, with this error number.
    Number(u16),
    /// There was no answer.
    Other(Error),
}

impl Session {
    /// Signs in as the user of `login` with `password`. `which` is the credential that a refusal is about.
    pub(super) async fn open(login: &Login<'_>, password: &str, which: Which) -> Result<Self> {
        let place = login.target.place();
        let opened = timeout(CONNECT_WITHIN, Self::open_unbounded(login, password, which, &place));
        opened.await.unwrap_or_else(|_| Err(timed_out(&place, CONNECT_WITHIN)))
    }

    async fn open_unbounded(login: &Login<'_>, password: &str, which: Which, place: &str) -> Result<Self> {
        let target = &login.target;
        let addresses: Vec<_> = resolve(target.at, target.port).await?.iter().map(SocketAddr::ip).collect();
        let options = OptsBuilder::default()
            .ip_or_hostname(target.host)
            .resolved_ips(Some(addresses))
            .tcp_port(target.port)
            .user(Some(target.user))
            .pass(Some(password))
            .db_name(target.database)
            .prefer_socket(false)
            .max_allowed_packet(Some(LONGEST_PACKET))
            .wait_timeout(Some(IDLE_SECONDS));
        let tls = tls(login)?;
        let mut opened = Conn::new(options.clone().ssl_opts(tls.clone())).await;
        // The driver's own way not to look at the name has no effect up to 0.37.1 (blackbeam/mysql_async#404). The name is
        // looked at last, when the chain has been found good, so one that the certificate has will do.
        if let (Mode::VerifyCa, Err(error), Some(tls)) = (login.ask.mode, &opened, tls)
            && let Some(name) = name_of_certificate(error)
        {
            let tls = tls.with_danger_tls_hostname_override(Some(name));
            opened = Conn::new(options.ssl_opts(Some(tls))).await;
        }
        let connection = opened.map_err(|error| sign_in_error(&error, target, which, place))?;
        Ok(Self { connection, place: place.to_owned() })
    }

    /// Runs one statement, and returns its rows.
    ///
    /// # Errors
    /// [`Failure`], which the caller words.
    pub(super) async fn run(&mut self, sql: &str) -> std::result::Result<Rows, Failure> {
        let place = &self.place;
        let answered = timeout(ANSWER_WITHIN, self.connection.query::<Row, _>(sql)).await;
        let rows = answered.map_err(|_| Failure::Other(timed_out(place, ANSWER_WITHIN)))?;
        let rows = rows.map_err(|error| match error {
            mysql_async::Error::Server(ServerError { code, .. }) => Failure::Number(code),
            other => Failure::Other(broken(&other, place)),
        })?;
        let text = |value| match value {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            other => Some(other.as_sql(true)),
        };
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    /// [`run`](Self::run), with errors that need no words of their own.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Rows> {
        self.run(sql).await.map_err(|failure| self.plain(failure))
    }

    /// The error of a failure that has no words of its own.
    pub(super) fn plain(&self, failure: Failure) -> Error {
        match failure {
            Failure::Number(number) => server_error(number, &self.place),
            Failure::Other(error) => error,
        }
    }

    /// Host and port, for messages.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Says goodbye, so that the server does not count an aborted connection.
    pub(super) async fn close(self) {
        // What the goodbye meets is of no interest: the work is done.
        let _ = timeout(std::time::Duration::from_secs(1), self.connection.disconnect()).await;
    }
}

fn tls(login: &Login<'_>) -> Result<Option<SslOpts>> {
    let mode = login.ask.mode;
    if mode == Mode::Disable {
        return Ok(None);
    }
    let mut options = SslOpts::default().with_danger_accept_invalid_certs(mode == Mode::Require);
    if mode != Mode::Require {
        let roots = login.trust.certificates(login.ask.roots)?;
        options = options.with_root_certs(roots.into_iter().map(|it| it.to_vec().into()).collect());
    }
    if let Some((certificate, key)) = login.ask.identity {
        let bytes = |pem: &str| pem.as_bytes().to_vec().into();
        options = options.with_client_identity(Some(ClientIdentity::new(bytes(certificate), bytes(key))));
    }
    Ok(Some(options))
}

/// The numbers are those of the reference of server error messages, MySQL's and MariaDB's; they differ where both are named.
fn sign_in_error(error: &mysql_async::Error, target: &Target<'_>, which: Which, place: &str) -> Error {
    let user = target.user;
    match error {
        mysql_async::Error::Server(ServerError { code, .. }) => match code {
            1045 | 1698 => {
                Error::rejected(which, Code::WrongPassword, format!("{place} refuses user {user:?} and the password"))
            }
            1130 => Error::rejected(which, Code::NotPermitted, format!("{place} lets no user in from this address"))
                .hint("the account's host part must match the function's address"),
            // Account locked (3118, MariaDB 4151), locked after refused sign-ins (3955, MariaDB 4166), password expired (1862).
            3118 | 4151 | 3955 | 4166 | 1862 => Error::rejected(
                which,
                Code::NotPermitted,
                format!("{place} does not let user {user:?} in (error {code})"),
            )
            .hint("the account is locked or its password has expired: `ALTER USER … ACCOUNT UNLOCK`"),
            1044 => Error::rejected(
                which,
                Code::NotPermitted,
                format!(
                    "{place} does not let user {user:?} use the database {:?}",
                    target.database.unwrap_or_default()
                ),
            )
            .hint("grant it, or take field \"dbname\" away"),
            1049 => Error::config(
                Code::Database,
                format!("{place} has no database {:?}", target.database.unwrap_or_default()),
            ),
            1040 | 1203 | 1226 => {
                Error::transient(Code::TooManyConnections, format!("{place} has no free connection for user {user:?}"))
            }
            1129 => Error::transient(Code::Unreachable, format!("{place} blocks this address after too many errors"))
                .hint("`TRUNCATE performance_schema.host_cache` or `FLUSH HOSTS` unblocks it"),
            1053 | 1077 | 1079 => Error::transient(Code::NotReady, format!("{place} is starting up or shutting down")),
            3159 => Error::config(Code::Field, format!("{place} takes no plaintext, and the secret disables TLS"))
                .hint("take `ssl` or `sslmode` out of the secret"),
            _ => server_error(*code, place),
        },
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            Error::transient(Code::TlsOff, format!("{place} offers no TLS"))
        }
        mysql_async::Error::Driver(DriverError::UnknownAuthPlugin { .. } | DriverError::CleartextPluginDisabled) => {
            // MySQL answers so for a user that does not exist, with a plugin of its choice, so as not to tell.
            let message =
                format!("user {user:?} at {place} does not exist, or signs in by a plugin that is not known here");
            Error::rejected(which, Code::NotPermitted, message).hint(
                "`mysql_native_password`, `caching_sha2_password` and `ed25519` are; `ALTER USER … IDENTIFIED WITH` changes it",
            )
        }
        mysql_async::Error::Driver(DriverError::MysqlOldPasswordDisabled) => Error::rejected(
            which,
            Code::NotPermitted,
            format!("user {user:?} at {place} has a password of the format before MySQL 4.1"),
        )
        .hint("give it a new one: `ALTER USER … IDENTIFIED BY`"),
        mysql_async::Error::Io(IoError::Io(cause)) if tls_cause(error).is_none() => connect_error(cause, place),
        other => tls_cause(other).map_or_else(|| broken(other, place), |cause| handshake_error(cause, place)),
    }
}

/// The TLS error behind a failed sign-in, if that is what it was.
fn tls_cause(error: &mysql_async::Error) -> Option<&rustls::Error> {
    match error {
        mysql_async::Error::Io(IoError::Tls(TlsError::Tls(cause))) => Some(cause),
        mysql_async::Error::Io(IoError::Io(cause)) => cause.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// A host name of the certificate that was refused for having none that was looked for.
fn name_of_certificate(error: &mysql_async::Error) -> Option<String> {
    let rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) =
        tls_cause(error)?
    else {
        return None;
    };
    // rustls writes them so, as `DnsName("*.example.com")`.
    let mut names = presented.iter().filter_map(|it| it.strip_prefix("DnsName(\"")?.strip_suffix("\")"));
    names.next().map(|name| name.replacen('*', "any", 1))
}

/// An answer of the server that has no case of its own.
pub(super) fn server_error(number: u16, place: &str) -> Error {
    match number {
        1820 => Error::rejected(
            Which::Current,
            Code::NotPermitted,
            format!("{place} wants a new password first: it has expired"),
        )
        .hint("an administrator can set it: `ALTER USER … IDENTIFIED BY`"),
        _ => Error::transient(Code::Server, format!("{place} answers with error {number}")),
    }
}

fn broken(error: &mysql_async::Error, place: &str) -> Error {
    let cause = match error {
        mysql_async::Error::Io(IoError::Io(cause)) => format!(": {}", cause.kind()),
        _ => String::new(),
    };
    Error::transient(Code::Unreachable, format!("the connection to {place} broke{cause}"))
}
