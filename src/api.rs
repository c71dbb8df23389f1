//! Passwords that a service of AWS is told by its API: the four steps, shared by kinds that differ in the calls alone.
//!
//! The API takes a password and never shows one, so nothing tells whether the pending one is in force: setSecret sends it
//! again, which does no harm. The change is asynchronous. A step waits until the service has applied it, or until its time
//! is over, and the next try goes on waiting.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::error::{Code, Error, Result};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::password::Limits;
use crate::secret::{Exposed, Secret, SecretText};
use crate::services::{Answer, Arn, Endpoint, Input, Operation, Refusal, Request};

/// The field that is rotated.
pub(crate) const PASSWORD: &str = "password";

/// How often a service is asked whether it has applied a change: at first, and later on.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What a kind says of itself, and what its passwords may be.
pub(crate) struct Profile {
    pub(crate) names: &'static [&'static str],
    pub(crate) summary: &'static str,
    pub(crate) example: &'static str,
    pub(crate) fields: &'static [Field],
    pub(crate) permissions: &'static [&'static str],
    /// The codes by which the service refuses a password, when all else in the request is known to be good.
    pub(crate) bad_password: &'static [&'static str],
    /// The codes that say that another change is under way.
    pub(crate) busy: &'static [&'static str],
}

/// What a service says of whom a password belongs to.
pub(crate) struct State {
    /// What it is doing, if it is not ready; the service's own word.
    pub(crate) busy: Option<String>,
    /// What its passwords may be.
    pub(crate) limits: Limits,
    /// Where to sign in, where the service says it.
    pub(crate) endpoint: Option<Endpoint>,
}

/// Whether a password was proven.
pub(crate) enum Proof {
    /// By a sign-in.
    SignedIn,
    /// By the service's word alone, and why.
    Told(String),
}

/// A service that keeps passwords.
#[async_trait]
pub(crate) trait Api: Send + Sync {
    fn profile(&self) -> &'static Profile;

    /// The ARN of what the secret names, in the secret's own account.
    ///
    /// # Errors
    /// Config, when the fields name nothing, or something elsewhere.
    fn resource(&self, rotation: &Rotation<'_>, secret: &Secret) -> Result<String>;

    /// Asks the service for it.
    ///
    /// # Errors
    /// Config, when it is not there, is not as the secret says, or its password is not ours to change.
    async fn look(&self, asking: &Asking<'_>) -> Result<State>;

    /// Tells the service the pending password. `current` is for services that let the old one live.
    async fn change(
        &self,
        asking: &Asking<'_>,
        current: Option<&str>,
        pending: &str,
    ) -> std::result::Result<(), Refusal>;

    /// Tries the password of the secret, where that is possible.
    ///
    /// # Errors
    /// Rejected, when it is refused.
    async fn sign_in(&self, asking: &Asking<'_>, state: &State) -> Result<Proof>;

    /// Whether the service lets AWSCURRENT's password live beside the pending one.
    fn keeps_current(&self) -> bool {
        false
    }

    /// Whether a secret that names no kind is one of this kind all the same.
    fn recognizes(&self, _fields: Exposed<'_>) -> bool {
        false
    }

    /// How long to wait for the service at most, and how long between two questions, where the function's settings say.
    fn patience(&self, _rotation: &Rotation<'_>) -> Result<(Option<Duration>, Option<Duration>)> {
        Ok((None, None))
    }
}

/// What a step asks a service about.
pub(crate) struct Asking<'a> {
    pub(crate) rotation: &'a Rotation<'a>,
    pub(crate) secret: &'a Secret,
    /// The ARN of what it is about.
    pub(crate) of: String,
}

impl Asking<'_> {
    /// Asks the service of the ARN, in the Region of the ARN.
    pub(crate) async fn ask(&self, operation: &Operation, input: Input<'_>) -> std::result::Result<Answer, Refusal> {
        let request = Request { operation, of: &self.of, region: "", input, key: None };
        self.rotation.services.ask(&request).await
    }

    /// The last part of the ARN: the resource's own name.
    pub(crate) fn name(&self) -> &str {
        self.of.rsplit([':', '/']).next().unwrap_or_default()
    }

    /// The secret's user name must be the one that the service knows, where it has one.
    pub(crate) fn check_user(&self, known: Option<&str>) -> Result<()> {
        let said = self.secret.expose().optional("username")?;
        match (said, known) {
            (Some(said), Some(known)) if said != known => {
                let message = format!("field \"username\" is {said:?}, and the user of {} is {known:?}", self.of);
                Err(Error::config(Code::Field, message).hint("name the user whose password it is"))
            }
            _ => Ok(()),
        }
    }
}

fn is(refusal: &Refusal, codes: &[&str]) -> bool {
    refusal.code.as_deref().is_some_and(|code| codes.contains(&code))
}

/// The error for what a service says of something that is not there.
pub(crate) fn missing(refusal: Refusal, codes: &[&str], field: &str) -> Error {
    if is(&refusal, codes) {
        return refusal
            .error
            .hint(format!("check that field \"{field}\" names one that exists in this account and Region"));
    }
    refusal.error
}

/// The ARN in the first of `fields` that is there: of `service`, in the account of the secret, and in its Region unless
/// `anywhere`.
pub(crate) fn arn_in<'s>(
    rotation: &Rotation<'_>,
    secret: &'s Secret,
    fields: &[&str],
    service: &str,
    kind: &str,
    anywhere: bool,
) -> Result<&'s str> {
    let values = secret.expose();
    let mut found = None;
    for name in fields {
        if let Some(text) = values.optional(name)? {
            found = Some((*name, text));
            break;
        }
    }
    let name = fields.first().copied().unwrap_or_default();
    let (name, text) = found.ok_or_else(|| Error::config(Code::Field, format!("field \"{name}\" is missing")))?;
    let resource = Arn::parse(text).filter(|arn| arn.service == service);
    let resource = resource.filter(|arn| {
        arn.resource.strip_prefix(kind).is_some_and(|rest| rest.len() > 1 && rest.starts_with([':', '/']))
    });
    let arn = resource.ok_or_else(|| {
        Error::config(Code::Field, format!("field \"{name}\" must be an ARN as `arn:aws:{service}:…:{kind}…`"))
    })?;
    rotation.check_account(text)?;
    let own = rotation.arn()?;
    if !anywhere && arn.region != own.region {
        let message = format!("{text} is not in the Region of the secret, which is {}", own.region);
        return Err(Error::config(Code::Field, message)
            .hint("keep the secret, and the function, in the Region of what it belongs to"));
    }
    Ok(text)
}

/// A kind whose password is told by an API.
pub(crate) struct ByApi<A>(pub(crate) A);

impl<A: Api> ByApi<A> {
    fn asking<'a>(&self, rotation: &'a Rotation<'a>, secret: &'a Secret) -> Result<Asking<'a>> {
        Ok(Asking { rotation, secret, of: self.0.resource(rotation, secret)? })
    }

    /// Waits until the service has nothing under way.
    async fn settled(&self, asking: &Asking<'_>) -> Result<State> {
        let (longest, interval) = self.0.patience(asking.rotation)?;
        let give_up = longest.map(|longest| Instant::now() + longest);
        let mut pause = interval.unwrap_or(FIRST_PAUSE);
        loop {
            let state = self.0.look(asking).await?;
            let Some(busy) = &state.busy else {
                asking.rotation.waiting(None);
                return Ok(state);
            };
            let waiting = format!("{} to be ready; it is `{busy}`", asking.of);
            if give_up.is_some_and(|end| Instant::now() + pause > end) {
                return Err(Error::transient(Code::NotReady, format!("waited too long for {waiting}"))
                    .hint("nothing, if it gets ready: Secrets Manager tries again; else see what keeps it busy"));
            }
            asking.rotation.waiting(Some(waiting));
            sleep(pause).await;
            pause = interval.unwrap_or_else(|| LONGEST_PAUSE.min(pause * 2));
        }
    }

    fn refused(&self, asking: &Asking<'_>, refusal: Refusal) -> Error {
        let profile = self.0.profile();
        if is(&refusal, profile.busy) {
            let message = format!("{} is being changed by somebody else", asking.of);
            return Error::transient(Code::NotReady, message).hint("nothing: Secrets Manager tries again");
        }
        if is(&refusal, profile.bad_password) {
            let message = format!("the new password is refused: {}", refusal.error.message());
            return Error::config(Code::PasswordPolicy, message);
        }
        refusal.error
    }
}

#[async_trait]
impl<A: Api> Kind for ByApi<A> {
    fn names(&self) -> &'static [&'static str] {
        self.0.profile().names
    }

    fn summary(&self) -> &'static str {
        self.0.profile().summary
    }

    fn example(&self) -> &'static str {
        self.0.profile().example
    }

    fn fields(&self) -> &'static [Field] {
        self.0.profile().fields
    }

    fn permissions(&self) -> &'static [&'static str] {
        self.0.profile().permissions
    }

    fn recognizes(&self, fields: Exposed<'_>) -> bool {
        self.0.recognizes(fields)
    }

    fn rotates(&self, _rotation: &Rotation<'_>, _current: &Secret) -> Result<Vec<String>> {
        Ok(vec![PASSWORD.to_owned()])
    }

    /// Looks first, so that a secret that can never rotate fails before anything is staged.
    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        current.expose().optional(PASSWORD)?;
        let state = self.0.look(&self.asking(rotation, current)?).await?;
        let password = rotation.settings.passwords.rules_within(&state.limits)?.generate()?;
        Ok(current.with(vec![(PASSWORD, password)]))
    }

    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        let asking = self.asking(rotation, versions.pending)?;
        let pending = versions.pending.expose().required(PASSWORD)?;
        let limits = self.settled(&asking).await?.limits;
        let mut current = versions.current.expose().filled(PASSWORD)?;
        if self.0.keeps_current() && current.is_some_and(|text| !limits.allow(text)) {
            // One that the service takes from nobody is not in force, and would only make it refuse the new one too.
            current = None;
            rotation.note("AWSCURRENT's password is none that the service takes, and is not kept in force".to_owned());
        }
        rotation.changing();
        let mut changed = self.0.change(&asking, current, pending).await;
        // Another change is under way: perhaps this very one, whose answer was lost.
        if changed.as_ref().is_err_and(|refusal| is(refusal, self.0.profile().busy)) {
            self.settled(&asking).await?;
            changed = self.0.change(&asking, current, pending).await;
        }
        if let Err(refusal) = changed {
            if refusal.code.is_some() && !refusal.error.is_transient() {
                rotation.unchanged();
            }
            let error = self.refused(&asking, refusal).without(pending);
            return Err(current.into_iter().fold(error, Error::without));
        }
        self.settled(&asking).await.map(drop)
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        let asking = self.asking(rotation, pending)?;
        let state = self.settled(&asking).await?;
        if pending.expose().optional(PASSWORD)?.is_none_or(str::is_empty) {
            rotation.note("there is no password yet".to_owned());
            return Ok(());
        }
        if let Proof::Told(why) = self.0.sign_in(&asking, &state).await? {
            rotation.note(format!("not signed in, but {} is ready: {why}", asking.of));
        }
        Ok(())
    }
}

/// The secret as a login at the place that the service tells, for the kind of its engine: an alias in `host` is not in the
/// certificate, and a name that fails would come out when the password is changed already. The sign-in is this user's alone,
/// whatever strategy the secret has for that kind.
pub(crate) fn login_at(secret: &Secret, endpoint: Option<&Endpoint>) -> Secret {
    let mut changes = vec![("strategy", SecretText::from("single-user".to_owned()))];
    if let Some(endpoint) = endpoint {
        changes.push(("host", SecretText::from(endpoint.host.clone())));
        changes.push(("port", SecretText::from(endpoint.port.to_string())));
    }
    secret.with(changes)
}

/// What a failed sign-in says: that there was no way to the server proves nothing, and all else counts.
pub(crate) fn unless_unreachable(signed_in: Result<()>) -> Result<Proof> {
    match signed_in {
        Ok(()) => Ok(Proof::SignedIn),
        Err(error) if matches!(error.code(), Code::Dns | Code::Refused | Code::Unreachable | Code::Timeout) => {
            Ok(Proof::Told(error.message().to_owned()))
        }
        Err(error) => Err(error),
    }
}
