//! What the private servers have in common: where their programs are, whose they run as, how they start and stop.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::watch::root;

/// A program that stops when it is dropped, and when this process is killed.
pub(crate) struct Program {
    child: Child,
    /// The thread that started it lives as long as this does.
    _alive: mpsc::Sender<()>,
}

impl Program {
    /// Starts what [`as_user`] has made. Its end comes with that of the thread that starts it, not of the process, and the
    /// thread of one test ends before a server that many tests share: so it gets a thread of its own.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let (started, starting) = mpsc::channel();
        let (alive, dropped) = mpsc::channel::<()>();
        thread::Builder::new().spawn(move || {
            let _ = started.send(command.stdin(Stdio::null()).spawn());
            let _ = dropped.recv();
        })?;
        let child = starting.recv().map_err(io::Error::other)??;
        Ok(Self { child, _alive: alive })
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Program {
    /// Stops it at once; no error if it has ended already.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The path of `program`: in the folders that the environment's `variable` has, as PATH would; without it in the `usual`
/// ones, on PATH, or in that folder of `.tools` where the project keeps `package` for a user who is not root.
pub(crate) fn find(program: &str, package: &str, variable: &str, mut usual: Vec<PathBuf>) -> io::Result<PathBuf> {
    usual.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    find_apart(program, package, variable, usual)
}

/// As [`find`], but not on PATH.
pub(crate) fn find_apart(program: &str, package: &str, variable: &str, usual: Vec<PathBuf>) -> io::Result<PathBuf> {
    let folders = if let Some(folders) = std::env::var_os(variable) {
        std::env::split_paths(&folders).collect()
    } else {
        let mut folders = usual;
        folders.push(root().join(".tools").join(package).join("bin"));
        folders
    };
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.exists()).ok_or_else(|| {
        io::Error::other(format!(
            "`{program}` is not found: `make {package}` installs it; or set {variable} to its folder"
        ))
    })
}

/// `program`, which dies with the thread that starts it. Servers refuse to be root, so root runs it as `user`, which
/// Debian's package makes; `user:group` when the group has another name.
pub(crate) fn as_user(user: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        let (user, group) = user_and_group(user);
        command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups"]).current_dir("/");
    }
    command.arg("--").arg(program);
    command
}

/// Gives `path` and all that is in it to `user`, if [`as_user`] runs programs as that one.
pub(crate) fn own(user: &str, path: &Path) -> io::Result<()> {
    let (user, group) = user_and_group(user);
    if is_root() { run(Command::new("chown").arg("-R").arg(format!("{user}:{group}")).arg(path)) } else { Ok(()) }
}

fn user_and_group(user: &str) -> (&str, &str) {
    user.split_once(':').unwrap_or((user, user))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a program to its end; an error has what it wrote to stderr.
pub(crate) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = command.get_args().skip_while(|argument| *argument != OsStr::new("--")).nth(1);
    let program = program.unwrap_or(command.get_program()).to_string_lossy();
    Err(io::Error::other(format!("{program}: {}: {}", output.status, said.trim())))
}

/// `error`, with the last lines of the log that may explain it.
pub(crate) fn explained(error: &dyn std::fmt::Display, log: &Path) -> io::Error {
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    io::Error::other(format!("{error}: {}", lines[lines.len().saturating_sub(5)..].join(" | ")))
}

/// Makes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
