//! A private Redis for one test: its own folder, free ports, nothing of the system's.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
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
    root: Option<String>,
}

/// The files of its authority, its certificate and its key.
const CERTIFICATES: [&str; 3] = ["authority.crt", "server.crt", "server.key"];
/// Whose it runs as when root starts it.
const USER: &str = "redis";
/// The password of the user `default`, who may do all.
pub const PASSWORD: &str = "default-user-of-a-private-server";

impl Redis {
    /// Starts a server; returns when it answers. With `tls` it speaks nothing else, with a certificate for `localhost`
    /// and 127.0.0.1.
    ///
    /// # Errors
    /// When Redis is not installed, or does not start; the message has the end of its log.
    pub fn start(tls: bool) -> io::Result<Self> {
        Self::with(tls, &[])
    }

    /// [`start`](Self::start) with further lines of `redis.conf`, in which `FOLDER` is the server's own. An `aclfile` of the
    /// name `FOLDER/users.acl` is there, with the user `default`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn with(tls: bool, lines: &[&str]) -> io::Result<Self> {
        let folder = folder()?;
        let authority = tls.then(|| Authority::of_server(folder.path(), &[], false)).transpose()?;
        Self::launch(folder, authority.map(|(authority, _)| authority.root), lines)
    }

    /// A server with the certificate and the authority of another one, so that the two trust each other.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn beside(&self, lines: &[&str]) -> io::Result<Self> {
        let folder = folder()?;
        for file in CERTIFICATES {
            std::fs::copy(self.folder.path().join(file), folder.path().join(file))?;
        }
        Self::launch(folder, self.root.clone(), lines)
    }

    fn launch(folder: TempDir, root: Option<String>, lines: &[&str]) -> io::Result<Self> {
        let at = |name: &str| folder.path().join(name).display().to_string();
        let port = free_port()?;
        let mut settings = vec![
            "bind 127.0.0.1".to_owned(),
            "save \"\"".to_owned(),
            // For the tests themselves, who need no TLS.
            format!("unixsocket {}", at("socket")),
            format!("dir {}", at("")),
            format!("logfile {}", at("log")),
        ];
        settings.extend(lines.iter().map(|line| line.replace("FOLDER", &at(""))));
        if lines.iter().any(|line| line.starts_with("aclfile")) {
            let users = format!("user default on >{PASSWORD} ~* &* +@all\n");
            write_private(&folder.path().join("users.acl"), &users)?;
        } else {
            settings.push(format!("requirepass {PASSWORD}"));
        }
        if root.is_some() {
            let [authority, certificate, key] = CERTIFICATES.map(at);
            settings.extend([
                format!("port 0\ntls-port {port}\ntls-auth-clients no"),
                format!("tls-ca-cert-file {authority}\ntls-cert-file {certificate}\ntls-key-file {key}"),
            ]);
        } else {
            settings.push(format!("port {port}"));
        }
        write_private(&folder.path().join("redis.conf"), &(settings.join("\n") + "\n"))?;
        own(USER, folder.path())?;
        let program = program(&folder)?;
        let mut redis = Self { program, folder, port, root };
        redis.wait()?;
        Ok(redis)
    }

    /// Stops the server at once, as a crash would, and starts it again in its folder.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> io::Result<()> {
        self.program.stop();
        self.program = program(&self.folder)?;
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        let give_up = Instant::now() + Duration::from_secs(20);
        while let Err(error) = self.run(&["PING"]) {
            if self.program.ended()?.is_some() || Instant::now() > give_up {
                return Err(explained(&error, &self.folder.path().join("log")));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority, in PEM, if it speaks TLS.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// Runs a command as `default`; returns all texts and numbers of the answer, a line each.
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
        let mut stream = UnixStream::connect(self.folder.path().join("socket"))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        say(&mut stream, &["AUTH", user, password])?;
        hear(&mut answers)?;
        say(&mut stream, command)?;
        hear(&mut answers)
    }

    /// Waits until the answer to a command is as it should be.
    ///
    /// # Errors
    /// When that takes more than 20 seconds.
    pub fn wait_for(&self, command: &[&str], done: impl Fn(&str) -> bool) -> io::Result<()> {
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.run(command)?;
            if done(&answer) {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(io::Error::other(format!("after 20 s: {answer}")));
            }
            sleep(Duration::from_millis(20));
        }
    }
}

fn folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("keywheel-redis-").tempdir()
}

fn program(folder: &TempDir) -> io::Result<Program> {
    let server = find("redis-server", "redis", "KEYWHEEL_REDIS_BIN", vec![PathBuf::from("/usr/bin")])?;
    let mut command = as_user(USER, &server);
    command.arg(folder.path().join("redis.conf"));
    Program::start(command)
}

fn say(to: &mut UnixStream, words: &[&str]) -> io::Result<()> {
    use std::io::Write as _;
    let words: String = words.iter().flat_map(|word| [format!("${}\r\n", word.len()), format!("{word}\r\n")]).collect();
    let count = words.matches("\r\n").count() / 2;
    to.write_all(format!("*{count}\r\n{words}").as_bytes())
}

fn hear(from: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = || rest.parse::<i64>().map_err(io::Error::other);
    match kind {
        "-" => Err(io::Error::other(rest.to_owned())),
        "$" => {
            let mut text = vec![0; usize::try_from(length()? + 2).unwrap_or(2)];
            if length()? >= 0 {
                from.read_exact(&mut text)?;
            }
            Ok(String::from_utf8_lossy(&text).trim_end_matches("\r\n").to_owned())
        }
        "*" => (0..length()?).map(|_| hear(from)).collect::<io::Result<Vec<_>>>().map(|items| items.join("\n")),
        _ => Ok(rest.to_owned()),
    }
}
