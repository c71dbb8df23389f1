//! A private PostgreSQL for one test or one demo: its own folder, a free port, nothing of the system's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::authority::Authority;
pub use crate::server::free_port;
use crate::server::{as_user, explained, find, own, run, write_private};

/// A running server. Dropping it stops the server and removes its folder.
pub struct Server {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    authority: Option<Authority>,
}

/// How the server is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether it speaks TLS, with a certificate for `localhost` and 127.0.0.1.
    pub tls: bool,
    /// The names of its certificate, instead of those.
    pub names: Vec<String>,
    /// Whether its certificate has expired.
    pub expired: bool,
    /// Further lines of `postgresql.conf`.
    pub settings: Vec<String>,
    /// The method of `pg_hba.conf`; empty is `scram-sha-256`.
    pub method: String,
}

/// The password of the superuser `postgres`.
pub const SUPERUSER_PASSWORD: &str = "superuser of a private server";

/// Whose it runs as when root starts it.
const USER: &str = "postgres";

impl Server {
    /// Makes and starts a server; returns when it answers.
    ///
    /// # Errors
    /// When no PostgreSQL is installed, or it does not start; the message has the end of its log.
    pub fn start(options: &Options) -> io::Result<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("keywheel-postgres-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let tls = options.tls.then(|| Authority::of_server(folder.path(), &options.names, options.expired));
        let tls = tls.transpose()?;
        write_private(&at("superuser"), SUPERUSER_PASSWORD)?;
        own(USER, folder.path())?;

        let data = at("data");
        let mut init = as_user(USER, &programs.join("initdb"));
        init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "scram-sha-256", "--no-sync", "--encoding=UTF8"]);
        run(init.arg("--locale=C").arg("--pwfile").arg(at("superuser")))?;
        let port = free_port()?;
        let mut settings = vec![
            format!("port = {port}"),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{}'", folder.path().display()),
            "fsync = off".to_owned(),
        ];
        if let Some((_, files)) = &tls {
            settings.push("ssl = on".to_owned());
            settings.push(format!("ssl_ca_file = '{}'", files.root.display()));
            settings.push(format!("ssl_cert_file = '{}'", files.certificate.display()));
            settings.push(format!("ssl_key_file = '{}'", files.key.display()));
        }
        settings.extend(options.settings.iter().cloned());
        append(&data.join("postgresql.conf"), &settings.join("\n"))?;
        if !options.method.is_empty() {
            // The superuser keeps its way in.
            let rules =
                format!("host all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 {}\n", options.method);
            fs::write(data.join("pg_hba.conf"), rules)?;
        }
        let server = Self { folder, programs, port, authority: tls.map(|(authority, _)| authority) };
        server.control("start")?;
        Ok(server)
    }

    /// Starts a replica of this server, which streams from it. Its folder is its own. The server is stopped meanwhile, and its
    /// data copied: the PostgreSQL that npm brings has no `pg_basebackup`.
    ///
    /// # Errors
    /// When the copy cannot be made, or does not start; the message has the end of its log.
    pub fn replica(&self) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keywheel-postgres-").tempdir()?;
        let data = folder.path().join("data");
        self.control("stop")?;
        let copied = run(Command::new("cp").arg("-a").arg(self.folder.path().join("data")).arg(&data));
        self.control("start")?;
        copied?;
        let port = free_port()?;
        let source = format!("host=127.0.0.1 port={} user=postgres password=''{SUPERUSER_PASSWORD}''", self.port);
        let settings = [
            format!("port = {port}"),
            format!("unix_socket_directories = '{}'", folder.path().display()),
            "listen_addresses = '*'".to_owned(),
            format!("primary_conninfo = '{source}'"),
        ];
        append(&data.join("postgresql.conf"), &settings.join("\n"))?;
        fs::write(data.join("standby.signal"), "")?;
        own(USER, folder.path())?;
        let replica = Self { folder, programs: self.programs.clone(), port, authority: None };
        replica.control("start")?;
        Ok(replica)
    }

    fn control(&self, action: &str) -> io::Result<()> {
        let mut control = as_user(USER, &self.programs.join("pg_ctl"));
        control.arg("-D").arg(self.folder.path().join("data")).arg("-l").arg(self.log_file()).args(["-w", "-s"]);
        run(control.args(["-m", "immediate", action])).map_err(|error| explained(&error, &self.log_file()))
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority, in PEM; empty without TLS.
    #[must_use]
    pub fn root(&self) -> &str {
        self.authority.as_ref().map_or("", |authority| &authority.root)
    }

    /// Its authority, whose client certificates it trusts and does not demand; none without TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Its folder, where a test may put a file that is to go with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything the server has logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.log_file())
    }

    /// Runs statements as the superuser.
    ///
    /// # Errors
    /// The server's.
    pub async fn execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let client = self.connect("postgres", SUPERUSER_PASSWORD).await?;
        client.batch_execute(sql).await
    }

    /// Signs in without TLS, by a client that has nothing to do with the product.
    ///
    /// # Errors
    /// The server's.
    pub async fn connect(&self, user: &str, password: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user(user).password(password).dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The folder goes next; a server that does not stop has no place to write to.
        let _ = self.control("stop");
    }
}

/// The folder of `initdb` and `pg_ctl`: `KEYWHEEL_POSTGRES_BIN`, else Debian's newest, else the one on PATH.
fn programs() -> io::Result<PathBuf> {
    let mut usual: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    usual.sort();
    usual.reverse();
    let mut initdb = find("initdb", "postgres", "KEYWHEEL_POSTGRES_BIN", usual)?;
    initdb.pop();
    Ok(initdb)
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    let old = fs::read_to_string(path)?;
    fs::write(path, format!("{old}\n{text}\n"))
}
