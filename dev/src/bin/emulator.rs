//! Runs the local Secrets Manager until it is told to stop.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use keywheel_dev::emulator::{Emulator, Options};
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
A local Secrets Manager. It prints its URL and runs until SIGINT or SIGTERM. No authentication is checked.

usage: emulator [options]

  --listen ADDRESS       address and port (default 127.0.0.1:0, a free port)
  --function-url URL     base of the Lambda Invoke API, e.g. http://127.0.0.1:9000
  --function-name NAME   name to invoke (default: the name in RotationLambdaARN)
  --attempts N           how often a rotation is tried (default 3)
  --pause-ms N           pause before it is tried again (default 1000)
  --log                  one line per call on stderr, without values
  --help                 this text";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("error: {message}\nhint: emulator --help");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listen = options.listen;
    let emulator = Emulator::start(options).await;
    let emulator =
        emulator.map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}")))?;
    println!("{}", emulator.url());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// `None` when help is asked for.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--listen" => options.listen = parse(&flag, &value()?)?,
            "--function-url" => options.function_url = Some(value()?),
            "--function-name" => options.function_name = Some(value()?),
            "--attempts" => options.attempts = parse(&flag, &value()?)?,
            "--pause-ms" => options.pause = Duration::from_millis(parse(&flag, &value()?)?),
            "--log" => options.log = true,
            "--help" => return Ok(None),
            _ => return Err(format!("unknown argument {flag:?}")),
        }
    }
    if options.function_name.is_some() && options.function_url.is_none() {
        return Err("--function-name needs --function-url".to_owned());
    }
    Ok(Some(options))
}

fn parse<T: FromStr>(flag: &str, value: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|error| format!("{flag} {value:?}: {error}"))
}
