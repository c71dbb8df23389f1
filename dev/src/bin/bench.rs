//! What a rotation costs: cold start, the four steps, memory, calls to Secrets Manager and size, next to the least that a
//! Lambda function in Rust can be.
//!
//! `bench [RUNS]` starts the release binaries of keywheel and of the hello in turn, a fresh process each, as Lambda does.
//! It fails when a rotation fails, and not for a slow one.

#![expect(clippy::print_stdout, reason = "it shows something")]

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keywheel::event::Step;
use keywheel::store::memory::Payload;
use keywheel_dev::authority::Authority;
use keywheel_dev::client::environment;
use keywheel_dev::emulator::{self, Emulator};
use keywheel_dev::postgres::{self, Server};
use keywheel_dev::runtime::Runtime;
use keywheel_dev::share::{Allowance, Means, cpu_time};
use keywheel_dev::watch::target;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SECRET: &str = "keywheel/bench";
const USER: &str = "app";
const FIRST_PASSWORD: &str = "the password before";
/// For one step; none takes a hundredth of it unless something hangs.
const PATIENCE: Duration = Duration::from_mins(1);
/// Lambda gives 1769 MB a whole core, and other sizes in proportion; in portions per 20 ms, as has been observed.
const SMALL: Allowance = Allowance { share: 128.0 / 1769.0, period: Duration::from_millis(20) };
/// The same in the portions of the kernel's default. A whole short rotation may fit into one, a long one sees no difference.
const SMALL_BY_100_MS: Allowance = Allowance { period: Duration::from_millis(100), ..SMALL };

/// AWS's own function for the same secret (Python, from its public samples), measured on another day at the same share of a core:
/// least, median, most.
mod aws {
    pub(super) const INIT: [f64; 3] = [133.0, 138.0, 142.0];
    pub(super) const STEPS: [f64; 3] = [316.0, 322.0, 338.0];
    pub(super) const INIT_AT_128_MB: [f64; 3] = [135.0, 143.0, 146.0];
    pub(super) const STEPS_AT_128_MB: [f64; 3] = [3942.0, 3967.0, 4099.0];
    pub(super) const MEMORY: f64 = 53.0;
    pub(super) const CALLS: usize = 14;
}

struct World {
    emulator: Emulator,
    server: Server,
    folder: TempDir,
    rotations: u32,
    password: String,
    means: Means,
}

/// One start of a function and what it did.
#[derive(Default)]
struct Run {
    init: f64,
    init_cpu: f64,
    /// One per step; one for a hello.
    steps: Vec<f64>,
    steps_cpu: f64,
    calls: Vec<usize>,
    memory: f64,
}

fn main() -> Result<()> {
    let runs = match std::env::args().nth(1) {
        None => 20,
        Some(number) => number.parse().ok().filter(|&runs| runs > 0).ok_or("usage: bench [RUNS]")?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = bench(runs) => done,
            _ = tokio::signal::ctrl_c() => Err("stopped".into()),
        }
    })
}

async fn bench(runs: usize) -> Result<()> {
    let (keywheel, hello) = (binary("keywheel")?, binary("keywheel-hello")?);
    println!("{}", machine());
    let mut world = start().await?;
    println!();
    let full = measure(&mut world, &keywheel, &hello, runs, None).await?;
    let small = measure(&mut world, &keywheel, &hello, runs, Some(SMALL)).await?;
    let coarse = measure(&mut world, &keywheel, &hello, runs, Some(SMALL_BY_100_MS)).await?;
    let size = Size { binary: megabytes(&keywheel)?, zip: zipped(&keywheel, &world.folder)? };
    let hello_size = Size { binary: megabytes(&hello)?, zip: zipped(&hello, &world.folder)? };

    println!("\nleast / median / most of {runs} runs each, keywheel and the hello in turn, every rotation checked:");
    println!("PostgreSQL and Secrets Manager over TLS; times in ms, memory (VmHWM) in MB");
    show("at full speed", &full, &aws::INIT, &aws::STEPS);
    for (measured, allowance) in [(&small, SMALL), (&coarse, SMALL_BY_100_MS)] {
        let title = format!("{} after init", portions(allowance));
        show(&title, measured, &aws::INIT_AT_128_MB, &aws::STEPS_AT_128_MB);
    }
    println!("\nsize in MB                  keywheel   hello");
    println!("  binary                  {:>10.2}{:>8.2}", size.binary, hello_size.binary);
    println!("  zip                     {:>10.2}{:>8.2}", size.zip, hello_size.zip);
    println!(
        "\nAWS's own function in Python was measured on another day, at the same share of a core; ratios to it are rough."
    );
    judge(&full, &small, &coarse, &size);
    Ok(())
}

fn portions(allowance: Allowance) -> String {
    format!("at the share of 128 MB, per {} ms,", allowance.period.as_millis())
}

struct Size {
    binary: f64,
    zip: f64,
}

struct Measured {
    keywheel: Vec<Run>,
    hello: Vec<Run>,
}

async fn measure(
    world: &mut World,
    keywheel: &Path,
    hello: &Path,
    runs: usize,
    share: Option<Allowance>,
) -> Result<Measured> {
    let title = share.map_or_else(|| "at full speed".to_owned(), portions);
    let mut measured = Measured { keywheel: Vec::new(), hello: Vec::new() };
    for run in 0..=runs {
        progress(&format!("measuring {title:<46}{run:>4} of {runs}"), run == runs)?;
        let rotated = world.rotate(keywheel, share).await?;
        let greeted = world.greet(hello, share).await?;
        // The first finds cold caches, of files above all.
        if run > 0 {
            measured.keywheel.push(rotated);
            measured.hello.push(greeted);
        }
    }
    Ok(measured)
}

impl World {
    /// A whole rotation by a fresh process, checked.
    async fn rotate(&mut self, program: &Path, share: Option<Allowance>) -> Result<Run> {
        self.rotations += 1;
        let token = format!("11111111-0000-4000-8000-{:012}", self.rotations);
        self.emulator.begin_rotation(SECRET, &token).map_err(|refusal| refusal.message)?;
        let event = |step: Step| json!({"Step": step.as_str(), "SecretId": SECRET, "ClientRequestToken": token});
        let run = self.run(program, share, &Step::ALL.map(event)).await?;
        let (version, value, _) =
            self.emulator.service().get(SECRET, None, Some("AWSCURRENT")).map_err(|refusal| refusal.message)?;
        let Payload::Text(value) = value else { return Err("the secret is binary".into()) };
        let value: Value = serde_json::from_str(&value)?;
        let new = value["password"].as_str().unwrap_or_default().to_owned();
        check("AWSCURRENT has moved", version == token)?;
        check("the new password signs in", self.server.connect(USER, &new).await.is_ok())?;
        check("the old password is refused", self.server.connect(USER, &self.password).await.is_err())?;
        self.password = new;
        Ok(run)
    }

    async fn greet(&mut self, program: &Path, share: Option<Allowance>) -> Result<Run> {
        self.run(program, share, &[json!({})]).await
    }

    async fn run(&self, program: &Path, share: Option<Allowance>, events: &[Value]) -> Result<Run> {
        let mut runtime = Runtime::start().await?;
        let log = self.folder.path().join("function.log");
        let command = self.command(program, &runtime, &File::create(&log)?);
        let done = timeout(PATIENCE, follow(command, &mut runtime, &self.emulator, self.means, share, events)).await;
        match done {
            Ok(Ok(run)) => Ok(run),
            Ok(Err(error)) => Err(format!("{error}; its log:\n{}", fs::read_to_string(log)?).into()),
            Err(_) => Err(format!("no end in {PATIENCE:?}; its log:\n{}", fs::read_to_string(log)?).into()),
        }
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

async fn follow(
    command: Result<Command>,
    runtime: &mut Runtime,
    emulator: &Emulator,
    means: Means,
    share: Option<Allowance>,
    events: &[Value],
) -> Result<Run> {
    let started = Instant::now();
    let function = Function(command?.spawn()?);
    let pid = function.0.id();
    let ready = runtime.ready().await?;
    let before = cpu_time(pid)?;
    let mut run = Run { init: milliseconds(ready - started), init_cpu: milliseconds(before), ..Run::default() };
    let held = share.map(|allowance| means.hold(pid, allowance)).transpose()?;
    for event in events {
        emulator.forget_calls();
        let turn = runtime.invoke(event.clone(), PATIENCE).await?;
        turn.answer.map_err(|error| format!("{event} fails: {error}"))?;
        run.steps.push(milliseconds(turn.time));
        run.calls.push(emulator.calls().len());
    }
    run.steps_cpu = milliseconds(cpu_time(pid)?.saturating_sub(before));
    run.memory = peak_memory(pid)?;
    drop(function);
    drop(held);
    Ok(run)
}

/// Everything that a rotation needs, over TLS, on free ports.
async fn start() -> Result<World> {
    let folder = tempfile::Builder::new().prefix("keywheel-bench-").tempdir()?;
    let authority = Authority::new(&["localhost".to_owned(), "127.0.0.1".to_owned()], false)?;
    let emulator = step("Secrets Manager over HTTPS, emulated", async {
        let tls = Some(Arc::new(server_config(&authority)?));
        Ok(Emulator::start(emulator::Options { tls, ..emulator::Options::default() }).await?)
    })
    .await?;
    let server = step("PostgreSQL with TLS", async {
        Ok(Server::start(&postgres::Options { tls: true, ..postgres::Options::default() })?)
    })
    .await?;
    // The emulator's authority among as many public ones as a function finds on Lambda.
    fs::write(folder.path().join("authorities.pem"), authority.root.clone() + server.root())?;

    server.execute(&format!("CREATE ROLE {USER} LOGIN PASSWORD '{FIRST_PASSWORD}'")).await?;
    let value = json!({"engine": "postgres", "host": "localhost", "port": server.port(), "dbname": "postgres",
        "username": USER, "password": FIRST_PASSWORD});
    let version = "11111111-0000-4000-8000-000000000000";
    let created = emulator.service().create(SECRET, version, Some(Payload::Text(value.to_string())));
    created.map_err(|refusal| refusal.message)?;

    let means = Means::find();
    let got = means.measure(SMALL)? * 100.0;
    let by = match means {
        Means::Quota => "the kernel's quota (cpu.max)",
        Means::OldQuota => "the kernel's quota (cpu.cfs_quota_us)",
        Means::Signals => "SIGSTOP and SIGCONT, as no control group can be made",
    };
    println!("the share of 128 MB, {:.1} % of a core, by {by}: a busy loop gets {got:.1} %", SMALL.share * 100.0);
    Ok(World { emulator, server, folder, rotations: 0, password: FIRST_PASSWORD.to_owned(), means })
}

fn server_config(authority: &Authority) -> Result<rustls::ServerConfig> {
    let chain = vec![CertificateDer::from_pem_slice(authority.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(authority.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(chain, key)?)
}

async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    progress(&format!("starting {what}…"), false)?;
    let started = Instant::now();
    let done = work.await?;
    progress(&format!("started {what} in {} ms", started.elapsed().as_millis()), true)?;
    Ok(done)
}

/// One line that changes, where somebody watches.
fn progress(line: &str, last: bool) -> Result<()> {
    use std::io::IsTerminal as _;
    let mut out = std::io::stdout();
    if out.is_terminal() {
        write!(out, "\r\x1b[K{line}{}", if last { "\n" } else { "" })?;
    } else if last {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

fn check(what: &str, holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(format!("not so: {what}").into()) }
}

fn binary(name: &str) -> Result<PathBuf> {
    let path = target().join("release").join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is not built; `make bench` builds it", path.display()).into())
    }
}

/// What figures of time depend on.
fn machine() -> String {
    let mut line = format!("{} cores", std::thread::available_parallelism().map_or(1, usize::from));
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if let Some((_, model)) = cpu.lines().find(|line| line.starts_with("model name")).and_then(|it| it.split_once(':'))
    {
        let _ = write!(line, " of{model}");
    }
    if let Some(load) = fs::read_to_string("/proc/loadavg").ok().and_then(|it| it.split(' ').next().map(str::to_owned))
    {
        let _ = write!(line, ", load {load}");
    }
    line
}

/// The most memory that the process has had, in MB.
fn peak_memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files are far below the precision of f64")]
fn megabytes(path: &Path) -> Result<f64> {
    Ok(fs::metadata(path)?.len() as f64 / 1e6)
}

/// The size as Lambda gets it: one file, `bootstrap`, deflated. Python is there wherever the tools for Lambda are.
fn zipped(program: &Path, folder: &TempDir) -> Result<f64> {
    fs::copy(program, folder.path().join("bootstrap"))?;
    let mut zip = Command::new("python3");
    zip.args(["-m", "zipfile", "-c", "function.zip", "bootstrap"]).current_dir(folder.path());
    check("python3 makes the zip", zip.status()?.success())?;
    megabytes(&folder.path().join("function.zip"))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Least, median and most.
fn spread(runs: &[Run], figure: impl Fn(&Run) -> f64) -> [f64; 3] {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let median =
        if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) };
    [figures[0], median, figures[figures.len() - 1]]
}

fn median(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
    spread(runs, figure)[1]
}

fn four_steps(run: &Run) -> f64 {
    run.steps.iter().sum()
}

fn show(title: &str, measured: &Measured, aws_init: &[f64; 3], aws_steps: &[f64; 3]) {
    let line = |name: &str, [least, median, most]: [f64; 3], note: &str| {
        println!("  {name:<24}{least:>9.1}{median:>9.1}{most:>9.1}   {note}");
    };
    let keywheel = &measured.keywheel;
    println!("\n{title}");
    let cpu = |figure: f64| format!("{figure:.1} of CPU");
    line("init", spread(keywheel, |run| run.init), &cpu(median(keywheel, |run| run.init_cpu)));
    for (index, step) in Step::ALL.iter().enumerate() {
        let calls = keywheel.iter().map(|run| run.calls[index]).max().unwrap_or_default();
        line(step.as_str(), spread(keywheel, |run| run.steps[index]), &format!("{calls} calls to Secrets Manager"));
    }
    let used = median(keywheel, |run| run.steps_cpu);
    let held = median(keywheel, |run| run.steps_cpu / four_steps(run)) * 100.0;
    line("four steps", spread(keywheel, four_steps), &format!("{}, {held:.1} % of a core", cpu(used)));
    line("memory", spread(keywheel, |run| run.memory), "");
    line("hello: init", spread(&measured.hello, |run| run.init), &cpu(median(&measured.hello, |run| run.init_cpu)));
    line("hello: memory", spread(&measured.hello, |run| run.memory), "");
    line("AWS's function: init", *aws_init, "");
    line("AWS's function: steps", *aws_steps, &format!("{} calls, {} MB", aws::CALLS, aws::MEMORY));
    println!("  init and four steps: {:.0} times faster", speedup(measured, aws_init, aws_steps));
}

fn speedup(measured: &Measured, aws_init: &[f64; 3], aws_steps: &[f64; 3]) -> f64 {
    (aws_init[1] + aws_steps[1]) / median(&measured.keywheel, |run| run.init + four_steps(run))
}

/// What the project promises.
fn judge(full: &Measured, small: &Measured, coarse: &Measured, size: &Size) {
    let all = || [full, small, coarse].into_iter();
    let most = |figure: fn(&Run) -> f64| all().map(|it| spread(&it.keywheel, figure)[2]).fold(f64::MIN, f64::max);
    let init = all().map(|it| median(&it.keywheel, |run| run.init) / median(&it.hello, |run| run.init));
    let init = init.fold(f64::MIN, f64::max);
    let calls = all().flat_map(|it| &it.keywheel).map(|run| run.calls.iter().sum::<usize>()).max().unwrap_or_default();
    let faster = [small, coarse].map(|it| speedup(it, &aws::INIT_AT_128_MB, &aws::STEPS_AT_128_MB));
    let memory = most(|run| run.memory);
    let line = |met: bool, promise: &str, figure: String| {
        println!("  {:<8}{promise:<65}{figure}", if met { "met" } else { "MISSED" });
    };
    println!("\npromises");
    line(init <= 3.0, "init at most 3 times the hello's", format!("{init:.2} times"));
    line(memory <= 14.0, "peak memory at most 14 MB", format!("{memory:.1} MB"));
    line(size.zip <= 5.0, "zip at most 5 MB", format!("{:.2} MB", size.zip));
    line(calls <= 11, "at most 11 calls to Secrets Manager", calls.to_string());
    for (faster, period) in faster.iter().zip([SMALL.period, SMALL_BY_100_MS.period]) {
        let promise = format!("at 128 MB, per {} ms, at least 50 times faster than AWS's", period.as_millis());
        line(*faster >= 50.0, &promise, format!("{faster:.0} times"));
    }
}
