//! What a rotation costs: cold start, the four steps, memory, calls to Secrets Manager and size, next to the least that a
//! Lambda function in Rust can be; and each kind of rotation next to the others.
//!
//! `bench [RUNS]` starts the release binaries of keywheel and of the hello in turn, a fresh process each, as Lambda does.
//! It fails when a rotation fails, and not for a slow one.

#![expect(clippy::print_stdout, reason = "it shows something")]

mod scenario;
mod world;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use keywheel::event::Step;
use keywheel_dev::share::Allowance;
use keywheel_dev::watch::target;

use crate::scenario::Scenario;
use crate::world::{Run, World, has_mysql};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
    let (world, mut scenarios) = World::start().await?;
    println!();
    let single = &mut scenarios[0];
    let full = measure(&world, single, &keywheel, &hello, runs, None).await?;
    let small = measure(&world, single, &keywheel, &hello, runs, Some(SMALL)).await?;
    let coarse = measure(&world, single, &keywheel, &hello, runs, Some(SMALL_BY_100_MS)).await?;
    let kinds = measure_kinds(&world, scenarios, &keywheel, runs).await?;
    let size = Size { binary: megabytes(&keywheel)?, zip: zipped(&keywheel, world.folder())? };
    let hello_size = Size { binary: megabytes(&hello)?, zip: zipped(&hello, world.folder())? };

    println!("\nleast / median / most of {runs} runs each, keywheel and the hello in turn, every rotation checked:");
    println!(
        "a PostgreSQL login, single user, PostgreSQL and Secrets Manager over TLS; times in ms, memory (VmHWM) in MB"
    );
    show("at full speed", &full, &aws::INIT, &aws::STEPS);
    for (measured, allowance) in [(&small, SMALL), (&coarse, SMALL_BY_100_MS)] {
        let title = format!("{} after init", portions(allowance));
        show(&title, measured, &aws::INIT_AT_128_MB, &aws::STEPS_AT_128_MB);
    }
    show_kinds(&kinds, runs);
    println!("\nsize in MB                  keywheel   hello");
    println!("  binary                  {:>10.2}{:>8.2}", size.binary, hello_size.binary);
    println!("  zip                     {:>10.2}{:>8.2}", size.zip, hello_size.zip);
    println!(
        "\nAWS's own function in Python was measured on another day, at the same share of a core; ratios to it are rough."
    );
    judge(&full, &small, &coarse, &kinds, &size);
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

/// What a kind of rotation did.
struct OfKind {
    scenario: Scenario,
    runs: Vec<Run>,
}

impl OfKind {
    fn keeps_its_promise(&self) -> bool {
        let ((calls, others), promised) = (calls(&self.runs), self.scenario.promised());
        calls <= promised.0 && others <= promised.1
    }
}

async fn measure(
    world: &World,
    scenario: &mut Scenario,
    keywheel: &Path,
    hello: &Path,
    runs: usize,
    share: Option<Allowance>,
) -> Result<Measured> {
    let title = share.map_or_else(|| "at full speed".to_owned(), portions);
    let mut measured = Measured { keywheel: Vec::new(), hello: Vec::new() };
    for run in 0..=runs {
        progress(&format!("measuring {title:<46}{run:>4} of {runs}"), run == runs)?;
        let rotated = world.rotate(scenario, keywheel, share).await?;
        let greeted = world.greet(hello, share).await?;
        // The first finds cold caches, of files above all.
        if run > 0 {
            measured.keywheel.push(rotated);
            measured.hello.push(greeted);
        }
    }
    Ok(measured)
}

/// Each kind of rotation at full speed, in turn, so that the machine is the same to all.
async fn measure_kinds(world: &World, scenarios: Vec<Scenario>, keywheel: &Path, runs: usize) -> Result<Vec<OfKind>> {
    let mut measured: Vec<_> = scenarios.into_iter().map(|scenario| OfKind { scenario, runs: Vec::new() }).collect();
    for run in 0..=runs {
        progress(&format!("measuring {:<46}{run:>4} of {runs}", "each kind of rotation"), run == runs)?;
        for OfKind { scenario, runs } in &mut measured {
            let rotated = world.rotate(scenario, keywheel, None).await?;
            // The first of alternating users makes the other one, too.
            if run > 0 {
                runs.push(rotated);
            }
        }
    }
    Ok(measured)
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

#[expect(clippy::cast_precision_loss, reason = "sizes of files are far below the precision of f64")]
fn megabytes(path: &Path) -> Result<f64> {
    Ok(fs::metadata(path)?.len() as f64 / 1e6)
}

/// The size as Lambda gets it: one file, `bootstrap`, deflated. Python is there wherever the tools for Lambda are.
fn zipped(program: &Path, folder: &Path) -> Result<f64> {
    fs::copy(program, folder.join("bootstrap"))?;
    let mut zip = Command::new("python3");
    zip.args(["-m", "zipfile", "-c", "function.zip", "bootstrap"]).current_dir(folder);
    check("python3 makes the zip", zip.status()?.success())?;
    megabytes(&folder.join("function.zip"))
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

fn show_kinds(kinds: &[OfKind], runs: usize) {
    println!("\neach kind of rotation, at full speed, {runs} runs each in turn");
    println!("  {:<50}{:>27}{:>8}{:>8}{:>8}{:>8}", "", "four steps", "of CPU", "calls", "others", "memory");
    for kind in kinds {
        let (name, runs) = (kind.scenario.name, &kind.runs);
        let ([least, middle, most], (calls, others)) = (spread(runs, four_steps), calls(runs));
        let missed = if kind.keeps_its_promise() {
            String::new()
        } else {
            let (calls, others) = kind.scenario.promised();
            format!("   MISSED: at most {calls} and {others}")
        };
        let (cpu, memory) = (median(runs, |run| run.steps_cpu), spread(runs, |run| run.memory)[2]);
        println!(
            "  {name:<50}{least:>9.1}{middle:>9.1}{most:>9.1}{cpu:>8.1}{calls:>8}{others:>8}{memory:>8.1}{missed}"
        );
    }
    if !has_mysql() {
        println!("  {:<50} not measured: there is no MySQL server here", "mysql");
    }
    println!("  calls to Secrets Manager, and others to AWS, and memory: the most of all runs; CPU: the median");
}

/// The most calls of a run, to Secrets Manager and to the rest of AWS.
fn calls<'a>(runs: impl IntoIterator<Item = &'a Run>) -> (usize, usize) {
    let all = runs.into_iter().map(|run| (run.calls.iter().sum(), run.other_calls));
    all.fold((0, 0), |most: (usize, usize), (calls, others)| (most.0.max(calls), most.1.max(others)))
}

fn speedup(measured: &Measured, aws_init: &[f64; 3], aws_steps: &[f64; 3]) -> f64 {
    (aws_init[1] + aws_steps[1]) / median(&measured.keywheel, |run| run.init + four_steps(run))
}

/// What the project promises.
fn judge(full: &Measured, small: &Measured, coarse: &Measured, kinds: &[OfKind], size: &Size) {
    let all = || [full, small, coarse].into_iter();
    let runs = all().flat_map(|it| &it.keywheel).chain(kinds.iter().flat_map(|it| &it.runs));
    let memory = runs.map(|run| run.memory).fold(f64::MIN, f64::max);
    let init = all().map(|it| median(&it.keywheel, |run| run.init) / median(&it.hello, |run| run.init));
    let init = init.fold(f64::MIN, f64::max);
    let (calls, _) = calls(all().flat_map(|it| &it.keywheel));
    let faster = [small, coarse].map(|it| speedup(it, &aws::INIT_AT_128_MB, &aws::STEPS_AT_128_MB));
    let line = |met: bool, promise: &str, figure: String| {
        println!("  {:<8}{promise:<65}{figure}", if met { "met" } else { "MISSED" });
    };
    println!("\npromises");
    line(init <= 3.0, "init at most 3 times the hello's", format!("{init:.2} times"));
    line(memory <= 14.0, "peak memory at most 14 MB, whatever rotates", format!("{memory:.1} MB"));
    line(size.zip <= 5.0, "zip at most 5 MB", format!("{:.2} MB", size.zip));
    line(calls <= 11, "at most 11 calls to Secrets Manager", calls.to_string());
    let kept = kinds.iter().filter(|kind| kind.keeps_its_promise()).count();
    let promise = "every kind within its number of calls: 11, 12 or 13";
    line(kept == kinds.len(), promise, format!("{kept} of {}", kinds.len()));
    for (faster, period) in faster.iter().zip([SMALL.period, SMALL_BY_100_MS.period]) {
        let promise = format!("at 128 MB, per {} ms, at least 50 times faster than AWS's", period.as_millis());
        line(*faster >= 50.0, &promise, format!("{faster:.0} times"));
    }
}
