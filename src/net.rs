//! Names and addresses.

use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};

use crate::error::{Code, Error, Result};

/// The addresses of `host`, of which there is at least one.
///
/// # Errors
/// Transient, when the name does not resolve.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let found = lookup_host((host, port))
        .await
        .map_err(|error| Error::transient(Code::Dns, format!("`{host}` does not resolve: {}", error.kind())))?;
    let found: Vec<_> = found.collect();
    if found.is_empty() { Err(no_address(host)) } else { Ok(found) }
}

/// Connects to the first address that answers.
///
/// # Errors
/// Transient, when the name does not resolve or nobody answers.
pub(crate) async fn connect(host: &str, port: u16, place: &str) -> Result<TcpStream> {
    connect_to(&resolve(host, port).await?, host, place).await
}

/// Connects to the first of `addresses`, those of `host`, that answers.
///
/// # Errors
/// Transient, when nobody does.
pub(crate) async fn connect_to(addresses: &[SocketAddr], host: &str, place: &str) -> Result<TcpStream> {
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
    Err(last.map_or_else(|| no_address(host), |error| connect_error(&error, place)))
}

pub(crate) fn no_address(host: &str) -> Error {
    Error::transient(Code::Dns, format!("`{host}` has no address"))
}

/// Why `place` (host and port) could not be connected to.
pub(crate) fn connect_error(error: &std::io::Error, place: &str) -> Error {
    if error.kind() == std::io::ErrorKind::ConnectionRefused {
        Error::transient(Code::Refused, format!("nothing listens at {place}"))
    } else {
        Error::transient(Code::Unreachable, format!("cannot connect to {place}: {}", error.kind()))
    }
}

/// Whether two names stand for one machine: an address in common. A name that does not resolve stands for none.
pub(crate) async fn same_machine(left: &str, right: &str) -> bool {
    if left.eq_ignore_ascii_case(right) {
        return true;
    }
    let (Ok(left), Ok(right)) = tokio::join!(resolve(left, 0), resolve(right, 0)) else { return false };
    left.iter().any(|address| right.contains(address))
}
