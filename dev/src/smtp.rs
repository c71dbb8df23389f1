//! An SMTP server with TLS, whose users are those of SES in a moto.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::authority::Authority;
use crate::moto::Moto;
use crate::server::free_port;
use crate::watch::root;

/// A running server; it stops when it is dropped.
pub struct Smtp {
    child: Child,
    folder: TempDir,
    port: u16,
    root: String,
}

impl Smtp {
    /// Starts one for `region`, with a certificate for `localhost`; returns when it listens.
    ///
    /// # Errors
    /// When it is not installed, or does not come up in half a minute.
    pub async fn start(moto: &Moto, region: &str) -> io::Result<Self> {
        let python = root().join(".venv/smtp/bin/python");
        if !python.exists() {
            return Err(io::Error::other("the SMTP server is not installed: `make test` installs it"));
        }
        let folder = tempfile::Builder::new().prefix("keywheel-smtp-").tempdir()?;
        let (authority, files) = Authority::of_server(folder.path(), &[], false)?;
        let port = free_port()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = Command::new(python);
        command.args(["-B", "tests/smtp/server.py", moto.url(), region, &port.to_string()]);
        command.arg(&files.certificate).arg(&files.key).arg(folder.path().join("replies"));
        command.current_dir(root()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let smtp = Self { child: command.spawn()?, folder, port, root: authority.root };
        let give_up = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if Instant::now() > give_up {
                return Err(io::Error::other(format!("the SMTP server does not listen: {}", smtp.log()?)));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(smtp)
    }

    /// Its port on `localhost`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority, in PEM.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// What it answers to the next sign-ins, whoever signs in.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn answer(&self, replies: &[&str]) -> io::Result<()> {
        fs::write(self.folder.path().join("replies"), replies.join("\n"))
    }

    /// The sign-ins so far, one a line: mechanism, user, answer; and `QUIT`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.folder.path().join("log"))
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
