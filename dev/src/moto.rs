//! moto, an independent idea of AWS: a second opinion on Secrets Manager, and an RDS.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::client::environment;
use crate::server::free_port;
use crate::watch::root;

/// A running moto server; it stops when it is dropped.
pub struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    /// Starts one on a free port; returns when it listens.
    ///
    /// # Errors
    /// When moto is not installed, or does not come up in a minute.
    pub async fn start() -> io::Result<Self> {
        let port = free_port()?;
        let mut command = tool("moto_server")?;
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let moto = Self { child: command.spawn()?, url: format!("http://127.0.0.1:{port}") };
        let give_up = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if Instant::now() > give_up {
                return Err(io::Error::other("moto does not listen"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(moto)
    }

    /// The endpoint of all its services.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs a Python script of the project with the endpoint and `arguments`; returns what it prints.
    ///
    /// # Errors
    /// When it fails; the message has what it wrote to stderr.
    pub fn run(&self, script: &str, arguments: &[&str]) -> io::Result<String> {
        let mut command = tool("python")?;
        command.args(["-B", script, &self.url]).args(arguments).envs(environment(&self.url)).current_dir(root());
        let output = command.output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tool(name: &str) -> io::Result<Command> {
    let path = root().join(".venv/aws/bin").join(name);
    if path.exists() {
        Ok(Command::new(path))
    } else {
        Err(io::Error::other("moto is not installed: `make test` installs it"))
    }
}
