//! The function under `cargo lambda watch`: its binary behind Lambda's Invoke API, on this machine.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::server::free_port;

/// A running `cargo lambda watch`. Dropping it stops it and the function.
pub struct Watch {
    child: Child,
    port: u16,
}

/// The name of the function: that of its binary.
pub const FUNCTION: &str = "keywheel";

impl Watch {
    /// Starts it on `port`, or on a free one, with `variables` in the function's environment, its output going to `log`; returns when it listens.
    /// The function is built before, for as long as it takes, and started by the first invocation.
    ///
    /// # Errors
    /// When cargo-lambda is not installed, or does not come up in a minute.
    pub async fn start(port: Option<u16>, variables: &[(&str, String)], log: &Path) -> io::Result<Self> {
        let port = port.map_or_else(free_port, Ok)?;
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Err(io::Error::other(format!("something listens on port {port} already")));
        }
        build().await?;
        let output = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = cargo_lambda("watch")?;
        command.args(["--invoke-address", "127.0.0.1", "--ignore-changes", "--timeout", "60", "--bin", FUNCTION]);
        command.arg("--invoke-port").arg(port.to_string());
        command.env_remove("AWS_PROFILE").envs(variables.iter().map(|(name, value)| (name, value)));
        // A group of its own, so that the function stops with it.
        command.process_group(0).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let watch = Self { child: command.spawn()?, port };
        let give_up = Instant::now() + Duration::from_mins(1);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if Instant::now() > give_up {
                return Err(io::Error::other(format!("cargo lambda does not listen; see {}", log.display())));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(watch)
    }

    /// Where Lambda's Invoke API is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-TERM", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// `cargo lambda SUBCOMMAND`, from the project's own environment of tools, in the project's folder.
///
/// # Errors
/// When it is not installed.
pub fn cargo_lambda(subcommand: &str) -> io::Result<Command> {
    let root = root();
    let tools = root.join(".venv/lambda/bin");
    if !tools.join("cargo-lambda").exists() {
        return Err(io::Error::other("cargo-lambda is not installed: `make test` and `make demo` install it"));
    }
    let mut command = Command::new(tools.join("cargo-lambda"));
    let mut path = OsString::from(&tools);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command.args(["lambda", subcommand]).env("PATH", path).current_dir(root);
    forget_cargo(&mut command);
    Ok(command)
}

/// Builds the function as `cargo lambda watch` does at the first invocation, which has no patience for it.
async fn build() -> io::Result<()> {
    let mut command = Command::new("cargo");
    command.args(["build", "--quiet", "--bin", FUNCTION]).current_dir(root()).stdin(Stdio::null());
    forget_cargo(&mut command);
    let status = tokio::process::Command::from(command).status().await?;
    if status.success() { Ok(()) } else { Err(io::Error::other("the function cannot be built")) }
}

/// What cargo says of the program that it runs now would be news to the build scripts of the next, which would all run
/// again.
fn forget_cargo(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let inherited = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if inherited.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

/// Where cargo puts what it builds.
#[must_use]
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The folder of the project.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
