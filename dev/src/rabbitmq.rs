//! A private RabbitMQ with its management plugin for one test: its own folder, free ports, an `epmd` of its own.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::Value;
use tempfile::TempDir;

use crate::authority::Authority;
use crate::python::ask;
use crate::server::{Program, as_user, explained, find, free_port, own, run, write_private};

/// A running server. Dropping it stops the server and removes its folder.
pub struct RabbitMq {
    program: Program,
    folder: TempDir,
    port: u16,
    management: u16,
    /// The management API without TLS.
    plain: u16,
    epmd: u16,
    root: Option<String>,
}

/// Whose it runs as when root starts it.
const USER: &str = "rabbitmq";
/// A user with the tag `administrator`.
pub const ADMIN: &str = "root";
/// Its password.
pub const PASSWORD: &str = "administrator-of-a-private-server";

impl RabbitMq {
    /// Starts a server; returns when AMQP and the management API answer, some ten seconds later. With `tls` both speak
    /// nothing else, with a certificate for `localhost` and 127.0.0.1.
    ///
    /// # Errors
    /// When RabbitMQ is not installed, or does not start; the message has the end of its log.
    pub fn start(tls: bool) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keywheel-rabbitmq-").tempdir()?;
        let [port, management, plain, epmd, distribution] =
            [free_port()?, free_port()?, free_port()?, free_port()?, free_port()?];
        let plain = if tls { plain } else { management };
        let mut settings = vec!["loopback_users = none".to_owned(), "log.console = false".to_owned()];
        settings.extend([format!("default_user = {ADMIN}"), format!("default_pass = {PASSWORD}")]);
        settings.push(format!("management.tcp.port = {plain}\nmanagement.tcp.ip = 127.0.0.1"));
        let mut root = None;
        if tls {
            let (authority, files) = Authority::of_server(folder.path(), &[], false)?;
            for (listener, port) in [("ssl_options", None), ("management.ssl", Some(management))] {
                let path = |path: &PathBuf| path.display().to_string();
                settings.extend(port.map(|port| format!("{listener}.port = {port}\n{listener}.ip = 127.0.0.1")));
                settings.push(format!("{listener}.cacertfile = {}", path(&files.root)));
                settings.push(format!("{listener}.certfile = {}", path(&files.certificate)));
                settings.push(format!("{listener}.keyfile = {}", path(&files.key)));
            }
            settings.push(format!(
                "listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{port}\nssl_options.verify = verify_none"
            ));
            root = Some(authority.root);
        } else {
            settings.push(format!("listeners.tcp.1 = 127.0.0.1:{port}"));
        }
        write_private(&folder.path().join("rabbitmq.conf"), &(settings.join("\n") + "\n"))?;
        fs::write(folder.path().join("enabled_plugins"), "[rabbitmq_management].\n")?;
        own(USER, folder.path())?;
        let node = format!("keywheel-{port}@localhost");
        let mut command = as_user(USER, &binary("rabbitmq-server")?);
        command.envs(environment(&folder, &node, epmd)).env("RABBITMQ_DIST_PORT", distribution.to_string());
        let out = fs::File::create(folder.path().join("out"))?;
        command.stderr(out.try_clone()?).stdout(out);
        let mut server = Self { program: Program::start(command)?, folder, port, management, plain, epmd, root };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> io::Result<()> {
        let give_up = Instant::now() + Duration::from_secs(90);
        loop {
            // The listeners are opened last.
            let open = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
            let answers = || self.ask("GET", "whoami", &Value::Null).is_ok_and(|(status, _)| status == 200);
            if open(self.port) && open(self.management) && answers() {
                return Ok(());
            }
            if self.program.ended()?.is_some() || Instant::now() > give_up {
                return Err(explained(&"RabbitMQ does not start", &self.folder.path().join("out")));
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// The port of AMQP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of the management API.
    #[must_use]
    pub fn management(&self) -> u16 {
        self.management
    }

    /// The certificate of its authority, in PEM, if it speaks TLS.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// Asks the management API as the administrator; for the tests themselves, which need no TLS. Returns status and answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        self.ask_as(ADMIN, PASSWORD, method, path, body)
    }

    /// [`ask`](Self::ask) as another user.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask_as(
        &self,
        user: &str,
        password: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> io::Result<(u16, Value)> {
        let credentials = format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()));
        ask(self.plain, method, &format!("/api/{path}"), &[("authorization", &credentials)], body)
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.program.stop();
        // `epmd` is started by the node and outlives it.
        if let Ok(epmd) = binary("epmd") {
            let mut command = Command::new(epmd);
            let _ = run(command.args(["-port", &self.epmd.to_string(), "-kill"]));
        }
    }
}

fn binary(name: &str) -> io::Result<PathBuf> {
    // The program on PATH is Debian's, which wants to be root or the user of the system's server.
    find(
        name,
        "rabbitmq",
        "KEYWHEEL_RABBITMQ_BIN",
        vec![PathBuf::from("/usr/lib/rabbitmq/bin"), PathBuf::from("/usr/bin")],
    )
}

fn environment(folder: &TempDir, node: &str, epmd: u16) -> Vec<(&'static str, String)> {
    let at = |name: &str| folder.path().join(name).display().to_string();
    vec![
        ("HOME", at("")),
        ("RABBITMQ_NODENAME", node.to_owned()),
        ("RABBITMQ_BASE", at("")),
        ("RABBITMQ_MNESIA_BASE", at("mnesia")),
        ("RABBITMQ_LOG_BASE", at("log")),
        ("RABBITMQ_CONFIG_FILE", at("rabbitmq")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins")),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
        ("ERL_EPMD_PORT", epmd.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
    ]
}
