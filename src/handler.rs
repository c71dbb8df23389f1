//! One invocation, from payload to answer: the deadline, the log line, and what becomes of a panic.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use crate::error::{Class, Code, Error, Result};
use crate::event::Event;
use crate::kind::{Kind, Progress, Settings};
use crate::rotate::{Engine, Outcome};
use crate::services::Services;

/// Kept back from Lambda's own deadline, so that a step that runs out of time can still say so.
pub const MARGIN: Duration = Duration::from_millis(500);

/// Runs one invocation and logs one line about it.
///
/// `deadline` is the end of the invocation, already less [`MARGIN`].
///
/// # Errors
/// Those of [`Engine::run`]; Config for an event that is none; Transient when the deadline is reached; Internal for a panic.
pub async fn handle(
    payload: Value,
    request_id: &str,
    deadline: Instant,
    settings: &Settings,
    kinds: &[&dyn Kind],
    services: &dyn Services,
) -> Result<()> {
    let started = Instant::now();
    let progress = Progress::until(deadline);
    let event = match Event::parse(payload) {
        Ok(event) => event,
        Err(failure) => {
            log_failure(None, request_id, &progress, started, &failure);
            return Err(failure);
        }
    };
    let store = services.secret(&event.secret_id);
    let engine = Engine { store: &*store, services, kinds, settings, progress: &progress };
    let running = AssertUnwindSafe(timeout_at(deadline, engine.run(&event))).catch_unwind();
    let result = match running.await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            let waiting = progress.waiting().map(|it| format!(", waiting for {it}")).unwrap_or_default();
            Err(Error::transient(Code::Deadline, format!("{} ran out of time{waiting}", event.step))
                .with_effect(progress.effect()))
        }
        Err(_) => Err(panicked()),
    };
    match &result {
        Ok(outcome) => log_success(&event, request_id, &progress, started, *outcome),
        Err(failure) => log_failure(Some(&event), request_id, &progress, started, failure),
    }
    result.map(drop)
}

fn log_success(event: &Event, request_id: &str, progress: &Progress, started: Instant, outcome: Outcome) {
    info!(
        secret = event.secret_id,
        version = event.token,
        kind = progress.kind(),
        step = event.step.as_str(),
        outcome = outcome.as_str(),
        note = progress.note(),
        duration_ms = milliseconds(started),
        request_id,
        "rotation step succeeded"
    );
}

fn log_failure(event: Option<&Event>, request_id: &str, progress: &Progress, started: Instant, failure: &Error) {
    error!(
        secret = event.map(|event| event.secret_id.as_str()),
        version = event.map(|event| event.token.as_str()),
        kind = progress.kind(),
        step = event.map(|event| event.step.as_str()),
        outcome = failure.class().error_type(),
        code = failure.code().as_str(),
        error = %failure,
        duration_ms = milliseconds(started),
        request_id,
        "rotation step failed"
    );
}

fn milliseconds(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

static PANICKED_AT: Mutex<Option<String>> = Mutex::new(None);

/// Makes panics quiet: the message of a panic may quote a secret, so that only its place is kept, for the error.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|location| format!("{}:{}", location.file(), location.line()));
        if let Ok(mut at) = PANICKED_AT.lock() {
            *at = place;
        }
    }));
}

fn panicked() -> Error {
    let place = PANICKED_AT.lock().ok().and_then(|mut at| at.take());
    let place = place.unwrap_or_else(|| "an unknown place".to_owned());
    Error::new(Class::Internal, Code::Panic, format!("a defect of keywheel at {place}"))
}
