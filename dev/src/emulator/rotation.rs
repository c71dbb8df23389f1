//! The driver: invokes the function step by step, and the whole rotation again when a step fails.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keywheel::event::Step;
use keywheel::store::memory::VersionRecord;
use keywheel::store::{CURRENT, PENDING};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{Function, Shared, lock, uuid};

/// The rotation of one version, as far as it has come.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The ARN of the secret.
    pub secret: String,
    /// The id of the version, which is the token of the rotation.
    pub token: String,
    /// Whether it is over, and how.
    pub state: State,
    /// How often it was begun with the first step.
    pub attempts: u32,
    /// The step that the function is working on.
    pub step: Option<Step>,
    /// The steps that have ended, in their order.
    pub steps: Vec<StepRun>,
    kind: &'static [Step],
}

/// The state of a [`Rotation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A step is under way, or the next one will follow.
    Running,
    /// Every step has succeeded.
    Succeeded,
    /// A step has failed in the last attempt. The next `RotateSecret` of the secret tries again.
    Failed,
    /// Somebody took AWSPENDING away or cancelled the rotation.
    Abandoned,
}

/// One step that was run.
#[derive(Clone, Debug)]
pub struct StepRun {
    /// Of which attempt, from 1.
    pub attempt: u32,
    /// Which one.
    pub step: Step,
    /// How long the function took, with the way there and back.
    pub time: Duration,
    /// Why it failed.
    pub error: Option<StepError>,
}

/// What a function answers when a step fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepError {
    /// `errorType`; `Emulator.Invoke` when no answer came, `Emulator.Status…` when one came without a type.
    pub error_type: String,
    /// `errorMessage`.
    pub error_message: String,
}

pub(super) const ALL_STEPS: &[Step] = &Step::ALL;
/// What `RotateImmediately: false` runs.
pub(super) const TEST_ONLY: &[Step] = &[Step::Test];

/// Lambda's own limit.
const LONGEST_INVOCATION: Duration = Duration::from_mins(15);

impl Rotation {
    pub(super) fn is(&self, secret: &str, token: &str) -> bool {
        self.token == token && (self.secret == secret || super::name_of(&self.secret) == secret)
    }

    pub(super) fn to_json(&self) -> Value {
        let step = |run: &StepRun| {
            let error = run.error.as_ref();
            json!({
                "attempt": run.attempt,
                "step": run.step.as_str(),
                "ms": super::milliseconds(run.time),
                "error": error.map(|error| json!({"errorType": error.error_type, "errorMessage": error.error_message})),
            })
        };
        json!({
            "secret": self.secret,
            "token": self.token,
            "state": self.state.as_str(),
            "attempts": self.attempts,
            "step": self.step.map(Step::as_str),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Whether a rotation with this token runs or has succeeded, so that the same call again has nothing to do.
pub(super) fn is_known(shared: &Shared, arn: &str, token: &str) -> bool {
    let known = |it: &Rotation| it.is(arn, token) && matches!(it.state, State::Running | State::Succeeded);
    shared.rotations.borrow().iter().any(known)
}

/// Starts an unfinished rotation once more, with its own token, unless it is running.
pub(super) fn attempt_again(shared: &Arc<Shared>, arn: &str, token: &str) {
    let found = shared.rotations.borrow().iter().find(|it| it.is(arn, token)).map(|it| (it.state, it.kind));
    if let Some((state, kind)) = found
        && state != State::Running
    {
        start(shared, arn, token, kind);
    }
}

/// Lets the function rotate in the background.
pub(super) fn start(shared: &Arc<Shared>, arn: &str, token: &str, steps: &'static [Step]) {
    shared.rotations.send_modify(|all| match all.iter_mut().find(|it| it.is(arn, token)) {
        Some(again) => again.state = State::Running,
        None => all.push(Rotation {
            secret: arn.to_owned(),
            token: token.to_owned(),
            state: State::Running,
            attempts: 0,
            step: None,
            steps: Vec::new(),
            kind: steps,
        }),
    });
    let driver =
        Driver { shared: shared.clone(), arn: arn.to_owned(), token: token.to_owned(), rotation_token: uuid(), steps };
    shared.spawn(driver.run());
}

struct Driver {
    shared: Arc<Shared>,
    arn: String,
    token: String,
    rotation_token: String,
    steps: &'static [Step],
}

impl Driver {
    async fn run(self) {
        let mut state = State::Failed;
        for attempt in 0..self.shared.attempts {
            if attempt > 0 {
                sleep(self.shared.pause).await;
            }
            state = self.attempt().await;
            if state != State::Failed {
                break;
            }
        }
        let service = &self.shared.service;
        // The secret may be gone; then there is nothing left to tidy up.
        let _ = if self.steps == TEST_ONLY {
            let stays = |version: &VersionRecord| version.id != self.token || version.stages.contains(CURRENT);
            service.edit(&self.arn, |record| record.versions.retain(stays))
        } else if state == State::Succeeded {
            service.edit(&self.arn, |record| record.rotated = Some(super::now()))
        } else {
            Ok(())
        };
        self.update(|rotation| rotation.state = state);
    }

    async fn attempt(&self) -> State {
        self.update(|rotation| rotation.attempts += 1);
        for &step in self.steps {
            if !self.goes_on() {
                return State::Abandoned;
            }
            self.update(|rotation| rotation.step = Some(step));
            let begun = Instant::now();
            let result = timeout(LONGEST_INVOCATION, self.invoke(step)).await;
            let time = begun.elapsed();
            let error = result
                .unwrap_or_else(|_| Err(unanswered("no answer within the longest time of a Lambda function")))
                .err();
            let failed = error.is_some();
            self.update(|rotation| {
                rotation.step = None;
                rotation.steps.push(StepRun { attempt: rotation.attempts, step, time, error });
            });
            if failed {
                return State::Failed;
            }
        }
        State::Succeeded
    }

    /// Whether nobody has cancelled or abandoned the rotation since the last step.
    fn goes_on(&self) -> bool {
        let holds = |labels: &BTreeSet<String>| labels.contains(PENDING) || labels.contains(CURRENT);
        let goes_on = self.shared.service.inspect(&self.arn, |record| {
            record.rotation_enabled == Some(true)
                && record.deletion.is_none()
                && record.version(&self.token).is_some_and(|version| holds(&version.stages))
        });
        goes_on.unwrap_or(false)
    }

    fn update(&self, change: impl FnOnce(&mut Rotation)) {
        self.shared.rotations.send_modify(|all| {
            if let Some(rotation) = all.iter_mut().find(|it| it.is(&self.arn, &self.token)) {
                change(rotation);
            }
        });
    }

    async fn invoke(&self, step: Step) -> Result<(), StepError> {
        let arn = self.shared.service.inspect(&self.arn, |record| record.rotation_function.clone());
        let arn = arn.ok().flatten().unwrap_or_default();
        let Some(Function { url, name }) = lock(&self.shared.function).clone() else {
            return Err(unanswered("the emulator knows no URL of a rotation function"));
        };
        let name = name.unwrap_or_else(|| function_name(&arn).to_owned());
        let event = json!({
            "Step": step.as_str(),
            "SecretId": self.arn,
            "ClientRequestToken": self.token,
            "RotationToken": self.rotation_token,
        });
        let path = format!("/2015-03-31/functions/{name}/invocations");
        let (status, failed, body) =
            post(&url, &path, event.to_string()).await.map_err(|error| unanswered(&format!("{url}{path}: {error}")))?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let (error_type, error_message) = (text("errorType"), text("errorMessage"));
        if status == 200 && failed.is_none() && error_type.is_none() && error_message.is_none() {
            return Ok(());
        }
        Err(StepError {
            error_type: error_type.or(failed).unwrap_or_else(|| format!("Emulator.Status{status}")),
            error_message: error_message.unwrap_or_else(|| String::from_utf8_lossy(&body).chars().take(300).collect()),
        })
    }
}

fn unanswered(message: &str) -> StepError {
    StepError { error_type: "Emulator.Invoke".to_owned(), error_message: message.to_owned() }
}

/// The name in `arn:aws:lambda:region:account:function:name`, which a version or alias may follow.
fn function_name(arn: &str) -> &str {
    let parts: Vec<_> = arn.split(':').collect();
    let place = if parts.get(5) == Some(&"function") { 6 } else { parts.len() - 1 };
    parts.get(place).copied().unwrap_or(arn)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Posts to the Lambda Invoke API; answers the status, the header that says that the function failed, and the body.
async fn post(url: &str, path: &str, body: String) -> Result<(u16, Option<String>, Bytes), Failure> {
    let uri: hyper::Uri = url.parse()?;
    if uri.scheme_str() != Some("http") {
        return Err("a function URL starts with http://".into());
    }
    let authority = uri.authority().ok_or("a function URL names a host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender at the latest.
    tokio::spawn(connection);
    let request = Request::post(path)
        .header("host", authority.as_str())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    let failed = answer.headers().get("x-amz-function-error");
    let failed = failed.map(|how| String::from_utf8_lossy(how.as_bytes()).into_owned());
    let status = answer.status().as_u16();
    Ok((status, failed, answer.into_body().collect().await?.to_bytes()))
}
