//! Faults on order: which call they hit, and what happens to it.

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// One thing that goes wrong. Every fault counts the calls that it concerns by itself, from the moment it is injected.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operation it concerns, e.g. `PutSecretValue`; `None` for every operation.
    pub operation: Option<String>,
    /// The first call that it hits, from 1.
    pub nth: u32,
    /// How many calls in a row it hits.
    pub times: u32,
    /// What happens.
    pub effect: Effect,
}

/// What happens to a call.
#[derive(Clone)]
pub enum Effect {
    /// The call is refused and changes nothing.
    Error {
        /// The HTTP status.
        status: u16,
        /// The error code, e.g. `InternalServiceError`.
        code: String,
        /// The message for people.
        message: String,
    },
    /// The call takes effect at once, and its answer comes late.
    Latency(Duration),
    /// The call takes effect, and the connection is closed without an answer.
    LostResponse,
    /// The connection is closed, and nothing takes effect.
    LostRequest,
    /// The call takes effect, then somebody dies, and the connection is closed without an answer.
    Crash(Victim),
}

/// Who dies of [`Effect::Crash`].
#[derive(Clone)]
pub enum Victim {
    /// A process gets SIGKILL.
    Process(u32),
    /// Whatever this does.
    Callback(Arc<dyn Fn() + Send + Sync>),
    /// Nobody that the emulator knows of.
    Nobody,
}

impl Fault {
    /// `effect` for the `nth` call of `operation`.
    #[must_use]
    pub fn new(operation: &str, nth: u32, effect: Effect) -> Self {
        Self { operation: Some(operation.to_owned()), nth, times: 1, effect }
    }

    /// `effect` for the `nth` call of any operation.
    #[must_use]
    pub fn any(nth: u32, effect: Effect) -> Self {
        Self { operation: None, nth, times: 1, effect }
    }

    /// The same fault for `times` calls in a row; the SDKs try again by themselves.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// Reads the body of `POST /_emulator/faults`.
    pub(super) fn parse(body: &Value) -> Result<Self, String> {
        let number = |name: &str| match &body[name] {
            Value::Null => Ok(None),
            value => match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{name} must be a whole number")),
            },
        };
        let text = |name: &str| match &body[name] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(format!("{name} must be a string")),
        };
        let fields = body.as_object().ok_or("a fault is a JSON object")?;
        if let Some(unknown) = fields.keys().find(|it| !FIELDS.contains(&it.as_str())) {
            return Err(format!("a fault has no field {unknown}"));
        }
        let effect = match text("fault")?.as_deref() {
            Some("error") => {
                let code = text("code")?.unwrap_or_else(|| "InternalServiceError".to_owned());
                let status = if code == "InternalServiceError" { 500 } else { 400 };
                let status = match number("status")? {
                    None => status,
                    Some(given) => u16::try_from(given)
                        .ok()
                        .filter(|it| (400..600).contains(it))
                        .ok_or("status must be from 400 to 599")?,
                };
                Effect::Error {
                    status,
                    code,
                    message: text("message")?.unwrap_or_else(|| "An injected fault.".to_owned()),
                }
            }
            Some("throttle") => Effect::throttle(),
            Some("latency") => Effect::Latency(Duration::from_millis(number("ms")?.ok_or("latency needs ms")?.into())),
            Some("lost-response") => Effect::LostResponse,
            Some("lost-request") => Effect::LostRequest,
            Some("crash") => Effect::Crash(number("pid")?.map_or(Victim::Nobody, Victim::Process)),
            _ => return Err("fault must be error, throttle, latency, lost-response, lost-request or crash".to_owned()),
        };
        let at_least_one = |name: &str| match number(name)?.unwrap_or(1) {
            0 => Err(format!("{name} counts from 1")),
            number => Ok(number),
        };
        Ok(Self { operation: text("operation")?, nth: at_least_one("nth")?, times: at_least_one("times")?, effect })
    }
}

impl Effect {
    /// AWS's own throttling error.
    #[must_use]
    pub fn throttle() -> Self {
        Self::Error { status: 400, code: "ThrottlingException".to_owned(), message: "Rate exceeded".to_owned() }
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error { code, .. } => f.write_str(code),
            Self::Latency(time) => write!(f, "latency of {time:?}"),
            Self::LostResponse => f.write_str("lost response"),
            Self::LostRequest => f.write_str("lost request"),
            Self::Crash(_) => f.write_str("crash"),
        }
    }
}

impl Victim {
    pub(super) fn kill(&self) {
        match self {
            // The shell's own `kill`: a program of that name is not on every machine.
            Self::Process(pid) => {
                let mut kill = Command::new("sh");
                let _ = kill.arg("-c").arg(format!("kill -9 {pid}")).stderr(Stdio::null()).status();
            }
            Self::Callback(callback) => callback(),
            Self::Nobody => {}
        }
    }
}

/// The fields of a fault in JSON.
const FIELDS: [&str; 9] = ["operation", "nth", "times", "fault", "status", "code", "message", "ms", "pid"];

/// The faults that wait for their call.
#[derive(Default)]
pub(super) struct Faults(Vec<(Fault, u32)>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push((fault, 0));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts a call of `operation`, and tells what happens to it.
    pub(super) fn count(&mut self, operation: &str) -> Vec<Effect> {
        let mut due = Vec::new();
        self.0.retain_mut(|(fault, seen)| {
            if fault.operation.as_deref().is_some_and(|it| it != operation) {
                return true;
            }
            *seen += 1;
            if *seen >= fault.nth {
                due.push(fault.effect.clone());
            }
            // Until the last call that it hits.
            *seen < fault.nth.saturating_sub(1).saturating_add(fault.times)
        });
        due
    }
}
