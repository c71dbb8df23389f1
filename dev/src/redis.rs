//! A private Redis for one test: its own folder, free ports, nothing of the system's.

use std::io::{self, BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::authority::Authority;
use crate::server::{Program, as_user, explained, find, free_port, own, write_private};

/// A running server. Dropping it stops the server and removes its folder.
pub struct Redis {
    program: Program,
    folder: TempDir,
    port: u16,
    authority: Option<Authority>,
}

/// Whose it runs as when root starts it.
const USER: &str = "redis";
/// The password of the user `default`, who may do all.
const PASSWORD: &str = "default user of a private server";

impl Redis {
    /// Starts a server; returns when it answers. With `tls` it speaks nothing else, with a certificate for `localhost`
    /// and 127.0.0.1.
    ///
    /// # Errors
    /// When Redis is not installed, or does not start; the message has the end of its log.
    pub fn start(tls: bool) -> io::Result<Self> {
        let server = find("redis-server", "redis", "KEYWHEEL_REDIS_BIN", vec![PathBuf::from("/usr/bin")])?;
        let folder = tempfile::Builder::new().prefix("keywheel-redis-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let authority = tls.then(|| Authority::of_server(folder.path(), &[], false)).transpose()?;
        let port = free_port()?;
        let mut settings = vec![
            "bind 127.0.0.1".to_owned(),
            "save \"\"".to_owned(),
            format!("dir {}", folder.path().display()),
            format!("logfile {}", at("log").display()),
            format!("requirepass \"{PASSWORD}\""),
        ];
        if let Some((_, files)) = &authority {
            settings.extend([
                "port 0".to_owned(),
                format!("tls-port {port}"),
                format!("tls-cert-file {}", files.certificate.display()),
                format!("tls-key-file {}", files.key.display()),
                format!("tls-ca-cert-file {}", files.root.display()),
                "tls-auth-clients no".to_owned(),
                // For the tests themselves, who need no TLS.
                format!("unixsocket {}", at("socket").display()),
            ]);
        } else {
            settings.push(format!("port {port}"));
        }
        write_private(&at("redis.conf"), &(settings.join("\n") + "\n"))?;
        own(USER, folder.path())?;
        let mut command = as_user(USER, &server);
        command.arg(at("redis.conf"));
        let log = at("log");
        let program = Program::start(command)?;
        let mut redis = Self { program, folder, port, authority: authority.map(|(authority, _)| authority) };
        let give_up = Instant::now() + Duration::from_secs(20);
        while let Err(error) = redis.run(&["PING"]) {
            if redis.program.ended()?.is_some() || Instant::now() > give_up {
                return Err(explained(&error, &log));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority, in PEM, if it speaks TLS.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| authority.root.as_str())
    }

    /// Runs a command as `default`; returns the first line of the answer.
    ///
    /// # Errors
    /// When the server does not answer, or refuses; the message is its own.
    pub fn run(&self, command: &[&str]) -> io::Result<String> {
        self.run_as("default", PASSWORD, command)
    }

    /// Signs in, and runs a command.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_as(&self, user: &str, password: &str, command: &[&str]) -> io::Result<String> {
        if self.authority.is_some() {
            let stream = std::os::unix::net::UnixStream::connect(self.folder.path().join("socket"))?;
            talk(&stream.try_clone()?, stream, user, password, command)
        } else {
            let stream = TcpStream::connect(("127.0.0.1", self.port))?;
            talk(&stream.try_clone()?, stream, user, password, command)
        }
    }
}

fn talk(
    mut to: impl io::Write,
    from: impl io::Read,
    user: &str,
    password: &str,
    command: &[&str],
) -> io::Result<String> {
    let mut lines = BufReader::new(from).lines();
    let mut answer = String::new();
    for words in [["AUTH", user, password].as_slice(), command] {
        write!(to, "*{}\r\n", words.len())?;
        for word in words {
            write!(to, "${}\r\n{word}\r\n", word.len())?;
        }
        answer = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
        if let Some(refusal) = answer.strip_prefix('-') {
            return Err(io::Error::other(refusal.to_owned()));
        }
    }
    Ok(answer)
}
