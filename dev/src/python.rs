//! Servers in Python for tests: a folder and a free port of their own, and plain HTTP on this machine.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::server::{Program, explained, free_port};
use crate::watch::root;

/// A running server. Dropping it stops the server and removes its folder.
pub struct PythonServer {
    program: Program,
    folder: TempDir,
    port: u16,
}

/// The token of a service of the hub that may make users and their tokens.
pub const HUB_TOKEN: &str = "token-of-a-service-of-a-private-hub";

/// The password of `admin` of an `MLflow`.
pub const MLFLOW_PASSWORD: &str = "administrator-of-a-private-mlflow";

impl PythonServer {
    /// A `JupyterHub` without proxy, users and servers; returns when its API answers, some three seconds later.
    ///
    /// # Errors
    /// When it is not installed, or does not start; the message has the end of its log.
    pub fn jupyterhub() -> io::Result<Self> {
        Self::start("jupyterhub", "/hub/api/", |command, _| {
            command.arg("-f").arg(root().join("tests/jupyterhub/config.py")).env("ADMIN_TOKEN", HUB_TOKEN);
        })
    }

    /// An `MLflow` with basic authentication; returns when it answers, some ten seconds later.
    ///
    /// # Errors
    /// As [`jupyterhub`](Self::jupyterhub).
    pub fn mlflow() -> io::Result<Self> {
        Self::start("mlflow", "/health", |command, port| {
            command.args(["server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--workers", "1"]);
            command.args(["--port", &port.to_string(), "--backend-store-uri", "sqlite:///mlflow.sqlite"]);
            command.env("MLFLOW_AUTH_CONFIG_PATH", root().join("tests/mlflow/auth.ini"));
            // Beside the file it wants this one, and that it is not its default.
            command.env("MLFLOW_AUTH_ADMIN_PASSWORD", MLFLOW_PASSWORD);
            command.env("MLFLOW_FLASK_SERVER_SECRET_KEY", "signs-sessions-of-a-private-mlflow");
        })
    }

    fn start(name: &str, ready: &str, with: impl FnOnce(&mut Command, u16)) -> io::Result<Self> {
        let program = root().join(".venv").join(name).join("bin").join(name);
        if !program.exists() {
            return Err(io::Error::other(format!("{name} is not installed: `make test` installs it")));
        }
        let folder = tempfile::Builder::new().prefix(&format!("keywheel-{name}-")).tempdir()?;
        let port = free_port()?;
        let out = fs::File::create(folder.path().join("out"))?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .current_dir(folder.path())
            .env("PORT", port.to_string());
        with(&mut command, port);
        command.stderr(out.try_clone()?).stdout(out);
        let mut server = Self { program: Program::start(command)?, folder, port };
        let give_up = Instant::now() + Duration::from_secs(90);
        while !server.ask("GET", ready, &[], &Value::Null).is_ok_and(|(status, _)| status == 200) {
            if server.program.ended()?.is_some() || Instant::now() > give_up {
                return Err(explained(&format!("{name} does not start"), &server.folder.path().join("out")));
            }
            sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks it something. Returns status and answer; `null` for what is no JSON.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> io::Result<(u16, Value)> {
        ask(self.port, method, path, headers, body)
    }
}

/// A request by plain HTTP to a port of this machine. Returns status and answer; `null` for what is no JSON.
pub(crate) fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut head = String::new();
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    // By this version there are no chunks.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n{head}content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}
