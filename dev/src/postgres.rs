//! A private PostgreSQL for one test or one demo: its own folder, a free port, nothing of the system's.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio_postgres::NoTls;

/// A running server. Dropping it stops the server and removes its folder.
pub struct Server {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    authority: Option<Authority>,
}

/// A certificate authority of our own, and one certificate of it.
pub struct Authority {
    /// The authority's certificate, in PEM.
    pub root: String,
    /// The server's certificate, in PEM.
    pub certificate: String,
    /// The server's key, in PEM.
    pub key: String,
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

impl Authority {
    /// An authority and a certificate for `names`.
    ///
    /// # Errors
    /// When a key cannot be made or a name is none.
    pub fn new(names: &[String], expired: bool) -> io::Result<Self> {
        let other = |error: rcgen::Error| io::Error::other(error);
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(DnType::CommonName, "an authority of a private server");
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().map_err(other)?).map_err(other)?;
        let mut leaf = CertificateParams::new(names).map_err(other)?;
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if expired {
            leaf.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().map_err(other)?;
        let leaf = leaf.signed_by(&key, &root).map_err(other)?;
        Ok(Self { root: root.pem(), certificate: leaf.pem(), key: key.serialize_pem() })
    }
}

impl Server {
    /// Makes and starts a server; returns when it answers.
    ///
    /// # Errors
    /// When no PostgreSQL is installed, or it does not start; the message has the end of its log.
    pub fn start(options: &Options) -> io::Result<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("keywheel-postgres-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let authority = if options.tls {
            let usual = ["localhost".to_owned(), "127.0.0.1".to_owned()];
            let names = if options.names.is_empty() { &usual } else { options.names.as_slice() };
            let authority = Authority::new(names, options.expired)?;
            fs::write(at("server.crt"), &authority.certificate)?;
            write_private(&at("server.key"), &authority.key)?;
            Some(authority)
        } else {
            None
        };
        write_private(&at("superuser"), SUPERUSER_PASSWORD)?;
        own(folder.path())?;

        let data = at("data");
        let mut init = as_user(&programs.join("initdb"));
        init.arg("-D").arg(&data).args(["-U", "postgres", "-A", "scram-sha-256", "--no-sync", "--encoding=UTF8"]);
        run(init.arg("--locale=C").arg("--pwfile").arg(at("superuser")))?;
        let port = free_port()?;
        let mut settings = vec![
            format!("port = {port}"),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{}'", folder.path().display()),
            "fsync = off".to_owned(),
        ];
        if options.tls {
            settings.push("ssl = on".to_owned());
            settings.push(format!("ssl_cert_file = '{}'", at("server.crt").display()));
            settings.push(format!("ssl_key_file = '{}'", at("server.key").display()));
        }
        settings.extend(options.settings.iter().cloned());
        append(&data.join("postgresql.conf"), &settings.join("\n"))?;
        if !options.method.is_empty() {
            // The superuser keeps its way in.
            let rules =
                format!("host all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 {}\n", options.method);
            fs::write(data.join("pg_hba.conf"), rules)?;
        }
        let server = Self { folder, programs, port, authority };
        server.control("start")?;
        Ok(server)
    }

    fn control(&self, action: &str) -> io::Result<()> {
        let mut control = as_user(&self.programs.join("pg_ctl"));
        control.arg("-D").arg(self.folder.path().join("data")).arg("-l").arg(self.log_file()).args(["-w", "-s"]);
        run(control.args(["-m", "immediate", action])).map_err(|error| {
            let log = fs::read_to_string(self.log_file()).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(5).collect();
            io::Error::other(format!("{error}: {}", end.join(" | ")))
        })
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

/// A port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The folder of `initdb` and `pg_ctl`: `KEYWHEEL_POSTGRES_BIN`, else Debian's newest, else the one on PATH.
fn programs() -> io::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("KEYWHEEL_POSTGRES_BIN") {
        return Ok(folder.into());
    }
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.sort();
    found.reverse();
    found.extend(std::env::split_paths(&path));
    // Where `make` puts one for a user who is not root.
    found.push(crate::watch::root().join(".tools/postgres/bin"));
    found
        .into_iter()
        .find(|folder| folder.join("initdb").exists())
        .ok_or_else(|| io::Error::other("PostgreSQL is not installed: `make test` and `make demo` install it"))
}

/// `initdb` refuses root, so root runs it as the user `postgres` that Debian's package makes.
fn as_user(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command.current_dir("/");
        command
    } else {
        Command::new(program)
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn own(folder: &Path) -> io::Result<()> {
    if is_root() { run(Command::new("chown").args(["-R", "postgres:postgres"]).arg(folder)) } else { Ok(()) }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = command.get_args().next().unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
    Err(io::Error::other(format!("{program}: {}: {}", output.status, said.trim())))
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    let old = fs::read_to_string(path)?;
    fs::write(path, format!("{old}\n{text}\n"))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
