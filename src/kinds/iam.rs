//! What IAM makes for its users: access keys, the SMTP passwords that are derived from those, and API keys of Bedrock.
//!
//! IAM makes the key, knows no names for keys, and lets a user have two. So the old key lives beside the new one until the
//! next rotation, and a key that an interrupted createSecret has left behind is known by its date alone: made since this
//! rotation began, and never used, where IAM keeps a record of that. A key of which that cannot be shown is left alone,
//! whatever it blocks.

mod access_key;
mod bedrock;
mod ses;

pub(super) use self::access_key::AccessKey;
pub(super) use self::bedrock::Bedrock;
pub(super) use self::ses::Smtp;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_smithy_types::date_time::{DateTime, Format};
use tokio::time::{Instant, sleep};

use crate::error::{Code, Error, Result, Which};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::secret::{Secret, SecretText};
use crate::services::{Answer, Arn, Input, Key, Operation, Protocol, Refusal, Request, Service};

/// A kind of key that IAM makes for a user.
pub(super) struct Iam<C>(pub(super) C);

/// What the kinds differ in.
#[async_trait]
pub(super) trait Credential: Send + Sync {
    fn profile(&self) -> &'static Profile;

    /// The fields that a rotation changes.
    fn rotates(&self, current: &Secret) -> Vec<&'static str> {
        let Profile { ids, keys, .. } = self.profile();
        names(current, ids).into_iter().chain(names(current, keys)).collect()
    }

    /// Looks at the fields of its own, before anything is asked.
    ///
    /// # Errors
    /// Config, when one of them cannot be used.
    fn check(&self, _user: &User<'_>, _current: &Secret) -> Result<()> {
        Ok(())
    }

    /// So many days a new key is to live; `None` is for ever.
    fn days(&self, _current: &Secret) -> Result<Option<u32>> {
        Ok(None)
    }

    /// What clients sign in with, of a new key.
    fn derive(&self, _user: &User<'_>, _current: &Secret, key: SecretText) -> Result<SecretText> {
        Ok(key)
    }

    /// Further fields that hold a new key.
    ///
    /// # Errors
    /// Config, when one of them cannot be used.
    fn copies(&self, _current: &Secret, _id: &str, _key: &str) -> Result<Vec<(&'static str, SecretText)>> {
        Ok(Vec::new())
    }

    /// Signs in once, as a client would.
    ///
    /// # Errors
    /// When nobody said whether the key is valid.
    async fn sign_in(&self, user: &User<'_>, secret: &Secret, id: &str, key: &str) -> Result<Proof>;
}

/// What a kind says of itself, and the operations of IAM that it is made of.
pub(super) struct Profile {
    names: &'static [&'static str],
    summary: &'static str,
    example: &'static str,
    fields: &'static [Field],
    permissions: &'static [&'static str],
    /// What is tried, in messages.
    what: &'static str,
    /// Under which names a secret may hold the key's id; the first is the usual one.
    ids: &'static [&'static str],
    /// Under which names a secret may hold what clients sign in with.
    keys: &'static [&'static str],
    /// What else to look at when the key is refused.
    hint: &'static str,
    api: &'static Api,
}

/// Some operations of IAM, alike for all that a user may have two of.
struct Api {
    /// What that is, in messages.
    what: &'static str,
    list: Operation,
    create: Operation,
    update: Operation,
    delete: Operation,
    /// When the key was used last. IAM keeps no record of that for service-specific credentials.
    last_used: Option<Operation>,
    /// Parameters of `list` and `create` beside the user.
    scope: &'static [(&'static str, &'static str)],
    /// The list in the answer to `list`.
    listed: &'static [&'static str],
    /// The key in the answer to `create`.
    made: &'static [&'static str],
    /// The name of the id, as a parameter and in answers.
    id: &'static str,
    /// The name of the key itself in the answer to `create`.
    key: &'static str,
    /// The commands of the AWS CLI that list and delete.
    commands: (&'static str, &'static str),
    /// The option of the latter for the id.
    option: &'static str,
}

/// What came of a sign-in.
pub(super) enum Proof {
    Valid,
    Refused {
        /// Who refused.
        by: String,
        /// In its own words.
        code: String,
        /// Whether that may only mean that the key is too new.
        early: bool,
    },
}

const IAM: Service = Service {
    name: "IAM",
    prefix: "iam",
    signs_as: None,
    id: "IAM",
    protocol: Protocol::Query("2010-05-08"),
    global: true,
};

const fn asked(service: &'static Service, name: &'static str, action: &'static str) -> Operation {
    Operation { name, action, service, repeatable: true }
}

/// After a lost answer there may be a key, which is lost with the answer.
const fn asked_once(name: &'static str, action: &'static str) -> Operation {
    Operation { repeatable: false, ..asked(&IAM, name, action) }
}

/// The fields that say whose key it is.
const USERNAME: Field = Field::setting("username", "the IAM user; this or `userarn` must be there");
const USERARN: Field = Field::setting(
    "userarn",
    "ARN of the IAM user, in the account of the secret; the new key must then be of exactly this user",
);

/// AWS says that a new key takes seconds to be known everywhere; 15 have been seen.
const VALID_WITHIN: Duration = Duration::from_secs(30);
/// Another host of AWS may learn of the key later than the one that setSecret asked.
const STILL_VALID_WITHIN: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
const DAY: i64 = 24 * 60 * 60;

#[async_trait]
impl<C: Credential> Kind for Iam<C> {
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

    fn rotates(&self, _rotation: &Rotation<'_>, current: &Secret) -> Result<Vec<String>> {
        Ok(self.0.rotates(current).into_iter().map(str::to_owned).collect())
    }

    fn mints(&self) -> bool {
        true
    }

    /// A key of another user was put there by hand, and one that both have under different names is in use.
    fn retires(&self, rotation: &Rotation<'_>, current: &Secret, previous: &Secret) -> Result<bool> {
        let ids = self.0.profile().ids;
        let (user, live) = (User::read(rotation, current)?, field(current, ids)?);
        let same = User::read(rotation, previous).is_ok_and(|it| it.name == user.name);
        let shared = self.0.rotates(current).into_iter().any(|field| previous.expose().same(current.expose(), field));
        Ok(same && !shared && field(previous, ids).is_ok_and(|retired| retired != live))
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        let Profile { ids, keys, api, .. } = *self.0.profile();
        let user = User::read(rotation, current)?;
        let old = field(current, ids)?;
        let days = self.0.days(current)?;
        self.0.check(&user, current)?;
        let last = self.remove_strays(&user, old, days).await?;
        let mut form = user.form(api.scope);
        let age = days.map(|days| days.to_string());
        form.extend(age.as_deref().map(|days| ("CredentialAgeDays", days)));
        rotation.changing();
        let answer = user.ask(&api.create, &form).await.map_err(|refusal| match refusal.code.as_deref() {
            Some("LimitExceeded") => {
                rotation.unchanged();
                let list = api.commands.0;
                Error::config(
                    Code::KeyLimit,
                    format!("{} has two {}s, which is as many as IAM allows", user.arn, api.what),
                )
                .hint(format!(
                    "find out with `aws iam {list}` which of them is not AWSCURRENT's, and delete it if nothing uses it"
                ))
            }
            Some("NoSuchEntity") => {
                rotation.unchanged();
                missing(refusal)
            }
            _ => refusal.into(),
        })?;
        let text = |name| answer.text(&[api.made, &[name]].concat()).filter(|it| !it.is_empty());
        let (Some(id), Some(key)) = (text(api.id), text(api.key).map(SecretText::from)) else {
            return Err(Error::transient(Code::Aws, format!("the answer to {} cannot be read", api.create.name)));
        };
        let made = Dates { created: seconds(text("CreateDate")), expires: seconds(text("ExpirationDate")) };
        if let Some(note) = last.and_then(|last| too_short_lived(last, made)) {
            rotation.note(note);
        }
        let mut changes = self.0.copies(current, &id, key.expose())?;
        let key = self.0.derive(&user, current, key)?;
        changes.extend(names(current, ids).into_iter().map(|name| (name, SecretText::from(id.clone()))));
        let copy = || SecretText::from(key.expose().to_owned());
        changes.extend(names(current, keys).into_iter().map(|name| (name, copy())));
        Ok(current.with(changes))
    }

    /// Waits until AWS knows the new key.
    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        self.accepts(&User::read(rotation, versions.pending)?, versions.pending, VALID_WITHIN).await
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        self.accepts(&User::read(rotation, pending)?, pending, STILL_VALID_WITHIN).await
    }

    async fn revoke(&self, rotation: &Rotation<'_>, retired: &Secret) -> Result<()> {
        let user = User::read(rotation, retired)?;
        match field(retired, self.0.profile().ids)? {
            Some(id) => self.delete(&user, id).await,
            None => Ok(()),
        }
    }
}

impl<C: Credential> Iam<C> {
    /// Removes what an interrupted createSecret of this rotation has left behind. Returns the dates of the current key.
    async fn remove_strays(&self, user: &User<'_>, current: Option<&str>, days: Option<u32>) -> Result<Option<Dates>> {
        let api = self.0.profile().api;
        let listed = user.ask(&api.list, &user.form(api.scope)).await.map_err(missing)?;
        let keys = listed.items(api.listed, "member", &[api.id, "CreateDate", "ExpirationDate"]);
        let full = keys.len() > 1;
        let mut last = None;
        for key in keys {
            let [Some(id), created, expires] = key.as_slice() else { continue };
            let dates = Dates { created: seconds(created.clone()), expires: seconds(expires.clone()) };
            if Some(id.as_str()) == current {
                last = Some(dates);
                continue;
            }
            match self.not_ours(user, id, dates, days).await? {
                None => self.delete(user, id).await?,
                // There may be room for the new key beside it.
                Some(_) if !full => {}
                Some(why) => {
                    let message = format!(
                        "{} has two {}s, which is as many as IAM allows, and {id} is neither AWSCURRENT's nor left over from this rotation: {why}",
                        user.arn, api.what
                    );
                    let (delete, option) = (api.commands.1, api.option);
                    return Err(Error::config(Code::KeyLimit, message).hint(format!(
                        "if nothing uses it: `aws iam {delete} --user-name {} {option} {id}`",
                        user.name
                    )));
                }
            }
        }
        Ok(last)
    }

    /// Why a key cannot be a leftover of this rotation. `None` is a proof that it is one, as good as IAM allows.
    async fn not_ours(
        &self,
        user: &User<'_>,
        id: &str,
        dates: Dates,
        days: Option<u32>,
    ) -> Result<Option<&'static str>> {
        let store = user.rotation.services.secret(user.rotation.secret);
        let began = store.created(user.rotation.token).await?;
        let began = began.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let (Some(created), Some(began)) = (dates.created, began.and_then(|at| i64::try_from(at.as_secs()).ok()))
        else {
            return Ok(Some("it is not known which of the two is older"));
        };
        if created < began {
            return Ok(Some("it is older than the rotation"));
        }
        let lives = dates.expires.map(|at| at - created);
        // To a day: IAM does not say from when it counts.
        let alike = match (lives, days) {
            (Some(lives), Some(days)) => (lives - i64::from(days) * DAY).abs() <= DAY,
            (None, None) => true,
            _ => false,
        };
        if !alike {
            return Ok(Some("it does not expire when one of this rotation would"));
        }
        let Some(last_used) = &self.0.profile().api.last_used else { return Ok(None) };
        let used = user.ask(last_used, &[("AccessKeyId", id)]).await?;
        let date = used.text(&["GetAccessKeyLastUsedResult", "AccessKeyLastUsed", "LastUsedDate"]);
        // moto and the first years of IAM write N/A.
        let used = date.is_some_and(|date| !date.is_empty() && date != "N/A");
        Ok(used.then_some("it has been used"))
    }

    /// One that is gone already, or that is another user's, is none of ours.
    async fn delete(&self, user: &User<'_>, id: &str) -> Result<()> {
        let api = self.0.profile().api;
        let key = user.form(&[(api.id, id)]);
        let inactive = user.form(&[(api.id, id), ("Status", "Inactive")]);
        user.rotation.changing();
        for (operation, form) in [(&api.update, inactive), (&api.delete, key)] {
            match user.ask(operation, &form).await {
                Err(refusal) if refusal.code.as_deref() != Some("NoSuchEntity") => return Err(refusal.into()),
                _ => {}
            }
        }
        user.rotation.unchanged();
        Ok(())
    }

    /// Whether the key in `secret` is valid and this user's, once AWS has had the time to learn of it.
    async fn accepts(&self, user: &User<'_>, secret: &Secret, within: Duration) -> Result<()> {
        let Profile { what, ids, keys, api, hint, .. } = *self.0.profile();
        let absent = |name| Error::config(Code::Field, format!("field \"{name}\" is missing"));
        let id = field(secret, ids)?.ok_or_else(|| absent(ids[0]))?;
        let key = field(secret, keys)?.ok_or_else(|| absent(keys[0]))?;
        let give_up = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.0.sign_in(user, secret, id, key).await? {
                Proof::Valid => return Ok(()),
                Proof::Refused { early: true, .. } if Instant::now() + pause < give_up => {
                    sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Proof::Refused { by, code, .. } => {
                    let message = format!("{by} refuses the {what} {id} of {} with {code}", user.arn);
                    return Err(Error::rejected(Which::Pending, Code::WrongPassword, message).hint(format!(
                        "check with `aws iam {}` that the key is there and Active{hint}; if it is gone, take AWSPENDING away and rotate anew",
                        api.commands.0
                    )));
                }
            }
        }
    }
}

/// When a key was made and when it ends, in seconds since 1970.
#[derive(Clone, Copy)]
struct Dates {
    created: Option<i64>,
    expires: Option<i64>,
}

fn seconds(date: Option<String>) -> Option<i64> {
    date.and_then(|text| DateTime::from_str(&text, Format::DateTime).ok()).map(|it| it.secs())
}

/// What to tell about a new key that may end too early. A key is current until the next rotation, and then still valid
/// until the one after that, which withdraws it: it should live for two periods.
fn too_short_lived(last: Dates, made: Dates) -> Option<String> {
    let (now, expires) = (made.created?, made.expires?);
    if last.expires.is_some_and(|last| last <= now) {
        return Some(
            "AWSCURRENT's key had expired before this rotation: rotate more often, or raise `credentialagedays`"
                .to_owned(),
        );
    }
    let (period, lives) = (now - last.created?, expires - now);
    let days = |seconds: i64| (seconds + DAY - 1) / DAY;
    (lives < 2 * period).then(|| {
        format!(
            "the new key expires in {} days, and the one before it is {} days old: rotate more often, or raise `credentialagedays` to {}, because a key is in use for up to two periods",
            days(lives),
            days(period),
            days(2 * period)
        )
    })
}

/// Those of `known` that the secret has, or the first.
fn names(secret: &Secret, known: &'static [&'static str]) -> Vec<&'static str> {
    let mut names: Vec<_> = known.iter().copied().filter(|name| secret.expose().value(name).is_some()).collect();
    if names.is_empty() {
        names.extend(known.first());
    }
    names
}

fn field<'s>(secret: &'s Secret, known: &'static [&'static str]) -> Result<Option<&'s str>> {
    let Some(name) = names(secret, known).first().copied() else { return Ok(None) };
    secret.expose().filled(name)
}

/// Whose key it is.
pub(super) struct User<'a> {
    rotation: &'a Rotation<'a>,
    name: &'a str,
    /// With the path only where the secret has it.
    arn: String,
    exact: bool,
    /// Where the secret is.
    home: Arn<'a>,
}

impl<'a> User<'a> {
    fn read(rotation: &'a Rotation<'a>, secret: &'a Secret) -> Result<Self> {
        let home = rotation.arn()?;
        let Arn { partition, account, .. } = home;
        let fields = secret.expose();
        let (name, arn, exact) = if let Some(arn) = fields.optional("userarn")? {
            let parsed = Arn::parse(arn).filter(|it| it.service == "iam" && it.region.is_empty());
            let path = parsed.and_then(|it| it.resource.strip_prefix("user/")?.rsplit('/').next());
            let Some(name) = path.filter(|name| !name.is_empty()) else {
                return Err(Error::config(Code::Field, "field \"userarn\" must be the ARN of an IAM user"));
            };
            rotation.check_account(arn)?;
            if fields.optional("username")?.is_some_and(|it| it != name) {
                return Err(Error::config(Code::Field, "fields \"username\" and \"userarn\" name two users"));
            }
            (name, arn.to_owned(), true)
        } else {
            let name = fields.required("username")?;
            (name, format!("arn:{partition}:iam::{account}:user/{name}"), false)
        };
        let plain = |it: u8| it.is_ascii_alphanumeric() || b"_+=,.@-".contains(&it);
        if name.len() > 64 || !name.bytes().all(plain) {
            return Err(Error::config(Code::Field, "field \"username\" is no name of an IAM user"));
        }
        Ok(Self { rotation, name, arn, exact, home })
    }

    /// The parameter that names the user, and `more`.
    fn form<'f>(&'f self, more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
        [&[("UserName", self.name)], more].concat()
    }

    async fn ask(&self, operation: &Operation, form: &[(&str, &str)]) -> std::result::Result<Answer, Refusal> {
        self.ask_as(operation, Input::Form(form), self.home.region, None).await
    }

    async fn ask_as(
        &self,
        operation: &Operation,
        input: Input<'_>,
        region: &str,
        key: Option<Key<'_>>,
    ) -> std::result::Result<Answer, Refusal> {
        let request = Request { operation, of: &self.arn, region, input, key };
        self.rotation.services.ask(&request).await
    }

    /// Field `region`, or the Region of the secret.
    fn region<'s>(&'s self, secret: &'s Secret) -> Result<&'s str> {
        let region = secret.expose().optional("region")?.unwrap_or(self.home.region);
        // It becomes part of a host name.
        let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
        if region.is_empty() || !region.bytes().all(plain) {
            return Err(Error::config(Code::Field, "field \"region\" is no name of a Region"));
        }
        Ok(region)
    }

    /// `arn` is whom AWS says that the key belongs to.
    fn owns(&self, what: &str, id: &str, arn: &str) -> Result<()> {
        let (account, name) = self.arn.split_once(":user/").unwrap_or_default();
        let same = arn.split_once(":user/").is_some_and(|(of, path)| {
            of == account && path.rsplit('/').next() == Some(name.rsplit('/').next().unwrap_or(name))
        });
        if arn == self.arn || (same && !self.exact) {
            return Ok(());
        }
        let message = format!("the {what} {id} is that of {arn}, and not of {}", self.arn);
        Err(Error::rejected(Which::Pending, Code::WrongPassword, message)
            .hint("name the key's own user in `username` or `userarn`"))
    }
}

/// The error for what IAM says of a user; it may be that there is none.
fn missing(refusal: Refusal) -> Error {
    if refusal.code.as_deref() == Some("NoSuchEntity") {
        return refusal
            .error
            .hint("check that the user exists in the account of the function, and is the one that the secret names");
    }
    refusal.error
}
