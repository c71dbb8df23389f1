//! What the functions run in: AWS as far as they need it, the servers, and one fresh process after another.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keywheel_dev::authority::Authority;
use keywheel_dev::client::environment;
use keywheel_dev::emulator::{self, Emulator};
use keywheel_dev::rds::Rds;
use keywheel_dev::runtime::Runtime;
use keywheel_dev::share::{Allowance, Means, cpu_time};
use keywheel_dev::watch::root;
use keywheel_dev::{mysql, postgres};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::scenario::{Database, Scenario, Users};
use crate::{Result, SMALL, milliseconds, step};

/// For one step; none takes a hundredth of it unless something hangs.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct World {
    emulator: Emulator,
    rds: Rds,
    folder: TempDir,
    means: Means,
}

/// One start of a function and what it did.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) init: f64,
    pub(crate) init_cpu: f64,
    /// One per step; one for a hello.
    pub(crate) steps: Vec<f64>,
    pub(crate) steps_cpu: f64,
    /// To Secrets Manager, as many as steps.
    pub(crate) calls: Vec<usize>,
    /// To the rest of AWS.
    pub(crate) other_calls: usize,
    pub(crate) memory: f64,
}

impl World {
    /// Everything that rotations need, over TLS, on free ports; and the kinds of rotation, the simplest of a database first.
    pub(crate) async fn start() -> Result<(Self, Vec<Scenario>)> {
        let folder = tempfile::Builder::new().prefix("keywheel-bench-").tempdir()?;
        let authority = Authority::new(&["localhost".to_owned(), "127.0.0.1".to_owned()], false)?;
        let tls = Arc::new(server_config(&authority)?);
        let emulator = step("Secrets Manager over HTTPS, emulated", async {
            Ok(Emulator::start(emulator::Options { tls: Some(tls.clone()), ..emulator::Options::default() }).await?)
        })
        .await?;
        let postgres = step("PostgreSQL with TLS", async {
            let options = postgres::Options { tls: true, ..postgres::Options::default() };
            Ok(Rc::new(Database::Postgres(postgres::Server::start(&options)?)))
        })
        .await?;
        let mariadb = step("MariaDB with TLS", async {
            let options = mysql::Options { tls: true, ..mysql::Options::default() };
            Ok(Rc::new(Database::MariaDb(mysql::Server::start(&options)?)))
        })
        .await?;
        let mut mysql = None;
        if has_mysql() {
            let started = step("MySQL with TLS", async {
                let flavour = mysql::Flavour::MySql;
                let options = mysql::Options { flavour, tls: true, ..mysql::Options::default() };
                Ok(Rc::new(Database::MySql(mysql::Server::start(&options)?)))
            });
            mysql = Some(started.await?);
        }
        let rds = Rds::start(tls, postgres.engine(), postgres.port()).await?;
        // Among as many public authorities as a function finds on Lambda.
        let mut authorities = authority.root;
        authorities.extend([&postgres, &mariadb].into_iter().chain(&mysql).map(|database| database.root()));
        fs::write(folder.path().join("authorities.pem"), authorities)?;

        let mut kinds = vec![
            ("postgres, single user", Some((&postgres, Users::One))),
            ("postgres, alternating users", Some((&postgres, Users::Two))),
            ("postgres, alternating users, administrator of RDS", Some((&postgres, Users::TwoOfRds))),
            ("mariadb, single user", Some((&mariadb, Users::One))),
            ("mariadb, alternating users", Some((&mariadb, Users::Two))),
        ];
        if let Some(mysql) = &mysql {
            kinds.extend([
                ("mysql, single user", Some((mysql, Users::One))),
                ("mysql, dual password", Some((mysql, Users::OneKeepingTheOld))),
                ("mysql, alternating users", Some((mysql, Users::Two))),
            ]);
        }
        kinds.push(("random", None));
        let mut scenarios = Vec::new();
        for (name, login) in kinds {
            let user = format!("app{}", scenarios.len());
            scenarios.push(Scenario::new(&emulator, name, &user, login).await?);
        }

        let means = Means::find();
        let got = means.measure(SMALL)? * 100.0;
        let by = match means {
            Means::Quota => "the kernel's quota (cpu.max)",
            Means::OldQuota => "the kernel's quota (cpu.cfs_quota_us)",
            Means::Signals => "SIGSTOP and SIGCONT, as no control group can be made",
        };
        println!("the share of 128 MB, {:.1} % of a core, by {by}: a busy loop gets {got:.1} %", SMALL.share * 100.0);
        Ok((Self { emulator, rds, folder, means }, scenarios))
    }

    /// Where files may be made that go with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A whole rotation by a fresh process, checked.
    pub(crate) async fn rotate(
        &self,
        scenario: &mut Scenario,
        program: &Path,
        share: Option<Allowance>,
    ) -> Result<Run> {
        let events = scenario.begin(&self.emulator)?;
        let run = self.run(program, share, &events).await.map_err(|error| format!("{}: {error}", scenario.name))?;
        scenario.check(&self.emulator).await?;
        Ok(run)
    }

    pub(crate) async fn greet(&self, program: &Path, share: Option<Allowance>) -> Result<Run> {
        self.run(program, share, &[json!({})]).await
    }

    async fn run(&self, program: &Path, share: Option<Allowance>, events: &[Value]) -> Result<Run> {
        let mut runtime = Runtime::start().await?;
        let log = self.folder.path().join("function.log");
        let command = self.command(program, &runtime, &File::create(&log)?);
        let done = timeout(PATIENCE, self.follow(command, &mut runtime, share, events)).await;
        match done {
            Ok(Ok(run)) => Ok(run),
            Ok(Err(error)) => Err(format!("{error}; its log:\n{}", fs::read_to_string(log)?).into()),
            Err(_) => Err(format!("no end in {PATIENCE:?}; its log:\n{}", fs::read_to_string(log)?).into()),
        }
    }

    async fn follow(
        &self,
        command: Result<Command>,
        runtime: &mut Runtime,
        share: Option<Allowance>,
        events: &[Value],
    ) -> Result<Run> {
        let started = Instant::now();
        let function = Function(command?.spawn()?);
        let pid = function.0.id();
        let ready = runtime.ready().await?;
        let before = cpu_time(pid)?;
        let mut run = Run { init: milliseconds(ready - started), init_cpu: milliseconds(before), ..Run::default() };
        let held = share.map(|allowance| self.means.hold(pid, allowance)).transpose()?;
        let other_calls = self.rds.calls();
        for event in events {
            self.emulator.forget_calls();
            let turn = runtime.invoke(event.clone(), PATIENCE).await?;
            turn.answer.map_err(|error| format!("{event} fails: {error}"))?;
            run.steps.push(milliseconds(turn.time));
            run.calls.push(self.emulator.calls().len());
        }
        run.other_calls = self.rds.calls() - other_calls;
        run.steps_cpu = milliseconds(cpu_time(pid)?.saturating_sub(before));
        run.memory = peak_memory(pid)?;
        drop(function);
        drop(held);
        Ok(run)
    }

    /// The environment that Lambda gives, and what a test of TLS needs.
    fn command(&self, program: &Path, runtime: &Runtime, log: &File) -> Result<Command> {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", runtime.address().to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", "keywheel")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/keywheel")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "bench")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("LANG", "en_US.UTF-8")
            .env("TZ", ":UTC")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(environment(&self.emulator.url().replace("127.0.0.1", "localhost")))
            .env("AWS_ENDPOINT_URL_RDS", self.rds.url().replace("127.0.0.1", "localhost"))
            .env("KEYWHEEL_CA_FILE", at("authorities.pem"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?);
        Ok(command)
    }
}

/// Ends the function whatever happens.
struct Function(Child);

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not every machine has one, and `make test` installs it where it can be had.
pub(crate) fn has_mysql() -> bool {
    std::env::var_os("KEYWHEEL_MYSQL_BIN").is_some() || root().join(".tools/mysql/bin/mysqld").exists()
}

fn server_config(authority: &Authority) -> Result<rustls::ServerConfig> {
    let chain = vec![CertificateDer::from_pem_slice(authority.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(authority.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(chain, key)?)
}

/// The most memory that the process has had, in MB.
fn peak_memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
