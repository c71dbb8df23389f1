//! A private MariaDB or MySQL for one test or one demo: its own folder, a free port, nothing of the system's.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, Row, Value};
use tempfile::TempDir;

use crate::authority::Authority;
use crate::server::{Program, as_user, explained, find, find_apart, free_port, own, run};
use crate::watch::target;

/// A running server. Dropping it stops the server and removes its folder.
pub struct Server {
    // Dropped before the folder.
    _program: Program,
    folder: TempDir,
    port: u16,
    authority: Option<Authority>,
}

/// How the server is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose server it is.
    pub flavour: Flavour,
    /// Whether it speaks TLS, with a certificate for `localhost` and 127.0.0.1.
    pub tls: bool,
    /// The names of its certificate, instead of those.
    pub names: Vec<String>,
    /// Whether its certificate has expired.
    pub expired: bool,
    /// Further lines of `my.cnf`, such as `log-bin`.
    pub settings: Vec<String>,
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavour {
    /// MariaDB, as Debian has it, or wherever `KEYWHEEL_MARIADB_BIN` says.
    #[default]
    MariaDb,
    /// Oracle's MySQL, from `.tools`, or wherever `KEYWHEEL_MYSQL_BIN` says.
    MySql,
}

/// The password of `root@localhost`, the only account there is.
pub const ROOT_PASSWORD: &str = "root of a private server";

/// What has to be the same when the data is made and when it is used, to start fast: the storage is small and not safe.
const STORAGE: &[&str] =
    &["innodb-buffer-pool-size=8M", "innodb-flush-method=nosync", "innodb-flush-log-at-trx-commit=0"];

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
        }
    }

    /// Whose it runs as when root starts it.
    fn user(self) -> &'static str {
        match self {
            Self::MariaDb => "mysql",
            // Nothing was installed that would make a user for it.
            Self::MySql => "nobody:nogroup",
        }
    }

    fn server(self) -> io::Result<PathBuf> {
        match self {
            Self::MariaDb => mariadb("mariadbd"),
            // On PATH a `mysqld` may be MariaDB's.
            Self::MySql => find_apart("mysqld", "mysql", "KEYWHEEL_MYSQL_BIN", Vec::new()),
        }
    }

    /// Further [`STORAGE`].
    fn storage(self) -> &'static [&'static str] {
        match self {
            Self::MariaDb => &["innodb-log-file-size=4M", "sync-frm=0"],
            Self::MySql => &[
                "innodb-redo-log-capacity=8M",
                "innodb-log-buffer-size=1M",
                "innodb-doublewrite=OFF",
                // The kernel has few of them, for many servers.
                "innodb-use-native-aio=OFF",
                "performance-schema=OFF",
                // Certificates in its data would turn TLS on.
                "auto-generate-certs=OFF",
            ],
        }
    }

    fn settings(self) -> &'static [&'static str] {
        match self {
            Self::MariaDb => &[],
            // The last of them is a folder of the system's.
            Self::MySql => &["mysqlx=OFF", "skip-log-bin", "secure-file-priv=NULL"],
        }
    }

    fn without_tls(self) -> &'static str {
        match self {
            Self::MariaDb => "skip-ssl",
            Self::MySql => "tls-version=",
        }
    }

    /// What says who root is, when the data is made.
    fn account(self) -> String {
        let root = format!("ALTER USER root@localhost IDENTIFIED BY '{ROOT_PASSWORD}';\n");
        match self {
            Self::MariaDb => format!("FLUSH PRIVILEGES;\n{root}"),
            Self::MySql => root,
        }
    }

    /// Makes the data, in which the statements of the file `account` have run.
    fn install(self, server: &Path, data: &Path, account: &Path, scratch: &Path) -> io::Result<()> {
        let (program, before, statements): (_, &[&str], _) = match self {
            Self::MariaDb => (
                mariadb("mariadb-install-db")?,
                &["--no-defaults", "--force", "--skip-test-db", "--auth-root-socket-user=root"],
                "extra-file",
            ),
            Self::MySql => (server.to_owned(), &["--no-defaults", "--initialize"], "init-file"),
        };
        let mut install = as_user(self.user(), &program);
        install.args(before).arg(format!("--datadir={}", data.display()));
        install.arg(format!("--{statements}={}", account.display()));
        // In a folder for temporary files that it shares, MariaDB removes those of others.
        install.arg(format!("--tmpdir={}", scratch.display()));
        run(install.args(self.all_storage().map(|setting| format!("--{setting}"))))
    }

    fn all_storage(self) -> impl Iterator<Item = &'static str> {
        STORAGE.iter().chain(self.storage()).copied()
    }
}

impl Server {
    /// Makes and starts a server; returns when it takes connections.
    ///
    /// # Errors
    /// When no such server is installed, or it does not start; the message has the end of its log.
    pub fn start(options: &Options) -> io::Result<Self> {
        let flavour = options.flavour;
        let server = flavour.server()?;
        let folder = tempfile::Builder::new().prefix(&format!("keywheel-{}-", flavour.name())).tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let tls = options.tls.then(|| Authority::of_server(folder.path(), &options.names, options.expired));
        let tls = tls.transpose()?;
        own(flavour.user(), folder.path())?;
        fill(folder.path(), flavour, &server)?;

        let port = free_port()?;
        let mut settings = vec![
            "[mysqld]".to_owned(),
            format!("port={port}"),
            "bind-address=127.0.0.1".to_owned(),
            "general-log".to_owned(),
        ];
        for (setting, name) in [
            ("datadir", "data"),
            ("general-log-file", "queries"),
            ("pid-file", "pid"),
            ("socket", "socket"),
            ("tmpdir", ""),
        ] {
            settings.push(format!("{setting}={}", at(name).display()));
        }
        settings.extend(flavour.all_storage().chain(flavour.settings().iter().copied()).map(str::to_owned));
        if let Some((_, files)) = &tls {
            settings.push(format!("ssl-ca={}", files.root.display()));
            settings.push(format!("ssl-cert={}", files.certificate.display()));
            settings.push(format!("ssl-key={}", files.key.display()));
        } else {
            settings.push(flavour.without_tls().to_owned());
        }
        settings.extend(options.settings.iter().cloned());
        fs::write(at("my.cnf"), settings.join("\n"))?;

        let log = at("errors");
        let mut command = as_user(flavour.user(), &server);
        command.arg(format!("--defaults-file={}", at("my.cnf").display()));
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut program = Program::start(command)?;
        let give_up = Instant::now() + Duration::from_mins(1);
        // Its port listens before, and would note a connection that does not sign in.
        while !fs::read_to_string(&log)?.contains("ready for connections") {
            if let Some(status) = program.ended()? {
                return Err(explained(&format!("{}: {status}", server.display()), &log));
            }
            if Instant::now() > give_up {
                return Err(explained(&format!("{} does not get ready", server.display()), &log));
            }
            sleep(Duration::from_millis(2));
        }
        Ok(Self { _program: program, folder, port, authority: tls.map(|(authority, _)| authority) })
    }

    /// The port on 127.0.0.1, which the accounts of the hosts `%`, `127.0.0.%` and `localhost` can sign in to.
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

    /// Everything the server has logged: every statement, as its general query log has it, and its errors.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn log(&self) -> io::Result<String> {
        let mut log = fs::read(self.folder.path().join("queries"))?;
        log.extend(fs::read(self.folder.path().join("errors"))?);
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// Its binary logs, one after the other.
    ///
    /// # Errors
    /// When they cannot be read, or there are none, for want of `log-bin` among the settings.
    pub fn binlog(&self) -> io::Result<Vec<u8>> {
        let files = fs::read_dir(self.folder.path().join("data"))?;
        let mut files = files.map(|file| Ok(file?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        // Aria's logs have numbers too, of eight digits.
        files.retain(|file| {
            let number = file.extension().unwrap_or_default().as_encoded_bytes();
            number.len() == 6 && number.iter().all(u8::is_ascii_digit)
        });
        if files.is_empty() {
            return Err(io::Error::other("no binary log: `log-bin` is not among the settings"));
        }
        files.sort();
        let files = files.into_iter().map(fs::read).collect::<io::Result<Vec<Vec<u8>>>>()?;
        Ok(files.concat())
    }

    /// Runs statements as root.
    ///
    /// # Errors
    /// The server's.
    pub async fn execute(&self, sql: &str) -> Result<(), mysql_async::Error> {
        let mut connection = self.connect("root", ROOT_PASSWORD).await?;
        connection.query_drop(sql).await?;
        connection.disconnect().await
    }

    /// The rows of a query of root's, as text.
    ///
    /// # Errors
    /// The server's.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, mysql_async::Error> {
        let mut connection = self.connect("root", ROOT_PASSWORD).await?;
        let rows: Vec<Row> = connection.query(sql).await?;
        connection.disconnect().await?;
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    /// Signs in without TLS, by a client that has nothing to do with the product.
    ///
    /// # Errors
    /// The server's.
    pub async fn connect(&self, user: &str, password: &str) -> Result<Conn, mysql_async::Error> {
        Conn::new(self.client().user(Some(user)).pass(Some(password))).await
    }

    /// The client of [`Self::connect`], for a test that wants more of it, such as TLS.
    #[must_use]
    pub fn client(&self) -> OptsBuilder {
        let client = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(self.port).prefer_socket(false);
        // Else it asks the server for them, and its questions are in the log.
        client.max_allowed_packet(Some(16 << 20)).wait_timeout(Some(600))
    }
}

fn mariadb(program: &str) -> io::Result<PathBuf> {
    find(program, "mariadb", "KEYWHEEL_MARIADB_BIN", vec!["/usr/sbin".into(), "/usr/bin".into()])
}

/// Makes `data` in `folder`. As that takes longer than all the rest of a start, the first server leaves a copy in the target
/// folder for the next ones.
fn fill(folder: &Path, flavour: Flavour, server: &Path) -> io::Result<()> {
    let statements = flavour.account();
    let installed = fs::metadata(server)?;
    let mut hasher = DefaultHasher::new();
    let storage: Vec<&str> = flavour.all_storage().collect();
    (server, installed.len(), installed.mtime(), storage, &statements).hash(&mut hasher);
    let templates = target().join(flavour.name());
    let template = templates.join(format!("{:016x}", hasher.finish()));
    let data = folder.join("data");
    // Much of the data is zeros.
    let copy = |from: &Path, to: &Path| run(Command::new("cp").args(["-R", "--sparse=always"]).arg(from).arg(to));
    if template.exists() {
        copy(&template, &data)?;
        return own(flavour.user(), &data);
    }
    let account = folder.join("account.sql");
    fs::write(&account, statements)?;
    flavour.install(server, &data, &account, folder)?;
    fs::create_dir_all(&templates)?;
    let unfinished = TempDir::new_in(&templates)?;
    copy(&data, &unfinished.path().join("data"))?;
    match fs::rename(unfinished.path().join("data"), &template) {
        // Another server was as fast, and has left the same.
        Err(_) if template.exists() => Ok(()),
        other => other,
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        other => Some(other.as_sql(true)),
    }
}
