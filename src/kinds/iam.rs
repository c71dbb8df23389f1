//! The access key of an IAM user.
//!
//! IAM makes the key, knows no names for keys, and lets a user have two. So the old key lives beside the new one until the
//! next rotation, and a key that an interrupted createSecret has left behind is known by its date alone: made since this
//! rotation began, and never used. A key of which that cannot be shown is left alone, whatever it blocks.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_smithy_types::date_time::{DateTime, Format};
use tokio::time::{Instant, sleep};

use crate::error::{Code, Error, Result, Which};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::secret::{Secret, SecretText};
use crate::services::{Answer, Input, Operation, Protocol, Refusal, Request, Service};

/// An IAM user's key pair.
pub(super) struct AccessKey;

const FIELDS: &[Field] = &[
    Field::setting("username", "the IAM user; this or `userarn` must be there"),
    Field::setting(
        "userarn",
        "ARN of the IAM user, in the account of the secret; the new key must then be of exactly this user",
    ),
    Field::optional("AWS_ACCESS_KEY_ID", "", "the key's id; `accesskeyid` where the secret has that"),
    Field::optional("AWS_SECRET_ACCESS_KEY", "", "the secret key; `secretaccesskey` where the secret has that"),
    Field::setting(
        "credentials",
        "the text of a credentials file with this key; kept up to date where the secret has it",
    ),
];

/// Under which names a secret may hold the key; the first is that of the SDKs.
const IDS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "accesskeyid"];
const SECRETS: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "secretaccesskey"];
const CREDENTIALS: &str = "credentials";

const IAM: Service = Service {
    name: "IAM",
    prefix: "iam",
    signs_as: None,
    id: "IAM",
    protocol: Protocol::Query("2010-05-08"),
    global: true,
};
const STS: Service = Service {
    name: "STS",
    prefix: "sts",
    signs_as: None,
    id: "STS",
    protocol: Protocol::Query("2011-06-15"),
    global: false,
};
const LIST: Operation = asked(&IAM, "ListAccessKeys", "iam:ListAccessKeys");
const LAST_USED: Operation = asked(&IAM, "GetAccessKeyLastUsed", "iam:GetAccessKeyLastUsed");
const UPDATE: Operation = asked(&IAM, "UpdateAccessKey", "iam:UpdateAccessKey");
const DELETE: Operation = asked(&IAM, "DeleteAccessKey", "iam:DeleteAccessKey");
const IDENTITY: Operation = asked(&STS, "GetCallerIdentity", "sts:GetCallerIdentity");
/// After a lost answer there may be a key, of which the secret half is lost with the answer.
const CREATE: Operation = Operation { repeatable: false, ..asked(&IAM, "CreateAccessKey", "iam:CreateAccessKey") };

const fn asked(service: &'static Service, name: &'static str, action: &'static str) -> Operation {
    Operation { name, action, service, repeatable: true }
}

/// AWS says that a new key takes seconds to be known everywhere; 15 have been seen.
const VALID_WITHIN: Duration = Duration::from_secs(30);
/// Another host of AWS may learn of the key later than the one that setSecret asked.
const STILL_VALID_WITHIN: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

#[async_trait]
impl Kind for AccessKey {
    fn names(&self) -> &'static [&'static str] {
        &["iam-access-key"]
    }

    fn summary(&self) -> &'static str {
        "the access key of an IAM user, for what cannot use a role"
    }

    fn example(&self) -> &'static str {
        r#"{"kind":"iam-access-key","username":"pipeline","AWS_ACCESS_KEY_ID":"AKIA…","AWS_SECRET_ACCESS_KEY":"…"}"#
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn permissions(&self) -> &'static [&'static str] {
        const ACTIONS: &[&str] = &[LIST.action, LAST_USED.action, CREATE.action, UPDATE.action, DELETE.action];
        ACTIONS
    }

    fn rotates(&self, _rotation: &Rotation<'_>, current: &Secret) -> Result<Vec<String>> {
        let file = current.expose().value(CREDENTIALS).map(|_| CREDENTIALS);
        let names = names(current, IDS).into_iter().chain(names(current, SECRETS)).chain(file);
        Ok(names.map(str::to_owned).collect())
    }

    fn mints(&self) -> bool {
        true
    }

    /// A key of another user was put there by hand, and one that both have under different names is in use.
    fn retires(&self, rotation: &Rotation<'_>, current: &Secret, previous: &Secret) -> Result<bool> {
        let (user, live) = (User::read(rotation, current)?, key_id(current)?);
        let same = User::read(rotation, previous).is_ok_and(|it| it.name == user.name);
        Ok(same && key_id(previous).is_ok_and(|retired| retired != live))
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        let user = User::read(rotation, current)?;
        let old = key_id(current)?;
        let file = credentials(current)?;
        user.remove_strays(old).await?;
        rotation.changing();
        let made = user.ask(&CREATE, &[("UserName", user.name)], None).await;
        let answer = made.map_err(|refusal| match refusal.code.as_deref() {
            Some("LimitExceeded") => {
                rotation.unchanged();
                Error::config(Code::KeyLimit, format!("{} has two access keys, which is as many as IAM allows", user.arn))
                    .hint("find out with `aws iam list-access-keys` which of them is not AWSCURRENT's, and delete it if nothing uses it")
            }
            Some("NoSuchEntity") => {
                rotation.unchanged();
                missing(refusal)
            }
            _ => refusal.into(),
        })?;
        let field = |name| answer.text(&["CreateAccessKeyResult", "AccessKey", name]).filter(|it| !it.is_empty());
        let (Some(id), Some(secret)) = (field("AccessKeyId"), field("SecretAccessKey").map(SecretText::from)) else {
            return Err(Error::transient(Code::Aws, "the answer to CreateAccessKey cannot be read"));
        };
        let mut changes = Vec::new();
        if let Some(file) = file {
            changes.push((CREDENTIALS, file.with(&id, secret.expose())));
        }
        changes.extend(names(current, IDS).into_iter().map(|name| (name, SecretText::from(id.clone()))));
        let copy = || SecretText::from(secret.expose().to_owned());
        changes.extend(names(current, SECRETS).into_iter().map(|name| (name, copy())));
        Ok(current.with(changes))
    }

    /// Waits until AWS knows the new key.
    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        User::read(rotation, versions.pending)?.accepts(versions.pending, VALID_WITHIN).await
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        User::read(rotation, pending)?.accepts(pending, STILL_VALID_WITHIN).await
    }

    async fn revoke(&self, rotation: &Rotation<'_>, retired: &Secret) -> Result<()> {
        let user = User::read(rotation, retired)?;
        match key_id(retired)? {
            Some(id) => user.delete(id).await,
            None => Ok(()),
        }
    }
}

/// Those of `known` that the secret has, or the first.
fn names(secret: &Secret, known: [&'static str; 2]) -> Vec<&'static str> {
    let mut names: Vec<_> = known.into_iter().filter(|name| secret.expose().value(name).is_some()).collect();
    if names.is_empty() {
        names.push(known[0]);
    }
    names
}

fn field<'s>(secret: &'s Secret, known: [&'static str; 2]) -> Result<Option<&'s str>> {
    let name = names(secret, known)[0];
    Ok(secret.expose().optional(name)?.filter(|text| !text.is_empty()))
}

fn key_id(secret: &Secret) -> Result<Option<&str>> {
    field(secret, IDS)
}

/// A credentials file in which the key can be replaced.
struct File<'s> {
    text: &'s str,
    old: Option<(&'s str, &'s str)>,
}

fn credentials(secret: &Secret) -> Result<Option<File<'_>>> {
    let Some(text) = secret.expose().optional(CREDENTIALS)? else { return Ok(None) };
    if text.trim().is_empty() {
        return Ok(Some(File { text, old: None }));
    }
    match (key_id(secret)?, field(secret, SECRETS)?) {
        (Some(id), Some(key)) if text.contains(id) && text.contains(key) => {
            Ok(Some(File { text, old: Some((id, key)) }))
        }
        _ => Err(Error::config(Code::Field, "field \"credentials\" does not hold the key of the secret")
            .hint("put the key into it, or make it empty to have it written")),
    }
}

impl File<'_> {
    /// Other profiles and settings stay.
    fn with(&self, id: &str, key: &str) -> SecretText {
        SecretText::from(match self.old {
            Some((old_id, old_key)) => {
                let text = SecretText::from(self.text.replace(old_key, key));
                text.expose().replace(old_id, id)
            }
            None => format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {key}\n"),
        })
    }
}

/// Whose key it is.
struct User<'a> {
    rotation: &'a Rotation<'a>,
    name: &'a str,
    /// With the path only where the secret has it.
    arn: String,
    exact: bool,
    region: &'a str,
}

impl<'a> User<'a> {
    fn read(rotation: &'a Rotation<'a>, secret: &'a Secret) -> Result<Self> {
        let of_secret: Vec<&str> = rotation.secret.split(':').collect();
        let &["arn", partition, _, region, account, ..] = of_secret.as_slice() else {
            return Err(Error::config(Code::Request, format!("{:?} is not the ARN of a secret", rotation.secret)));
        };
        let fields = secret.expose();
        let (name, arn, exact) = if let Some(arn) = fields.optional("userarn")? {
            let parts: Vec<&str> = arn.splitn(6, ':').collect();
            let name = match parts.as_slice() {
                ["arn", _, "iam", "", _, user] if user.starts_with("user/") => user.rsplit('/').next(),
                _ => None,
            };
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                return Err(Error::config(Code::Field, "field \"userarn\" must be the ARN of an IAM user"));
            };
            if (parts[1], parts[4]) != (partition, account) {
                let message = format!("{arn} is not in the account of the secret, which is {account}");
                return Err(Error::config(Code::Field, message)
                    .hint("keep the secret, and the function, in the account of the user: IAM is asked there and nowhere else"));
            }
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
        Ok(Self { rotation, name, arn, exact, region })
    }

    async fn ask(
        &self,
        operation: &Operation,
        form: &[(&str, &str)],
        key: Option<(&str, &str)>,
    ) -> std::result::Result<Answer, Refusal> {
        let request = Request { operation, of: &self.arn, region: self.region, input: Input::Form(form), key };
        self.rotation.services.ask(&request).await
    }

    /// Removes what an interrupted createSecret of this rotation has left behind.
    async fn remove_strays(&self, current: Option<&str>) -> Result<()> {
        let listed = self.ask(&LIST, &[("UserName", self.name)], None).await;
        let listed = listed.map_err(missing)?;
        let fields = ["AccessKeyId", "CreateDate"];
        let keys = listed.items(&["ListAccessKeysResult", "AccessKeyMetadata"], "member", &fields);
        let full = keys.len() > 1;
        for key in keys {
            let [Some(id), created] = key.as_slice() else { continue };
            if Some(id.as_str()) == current {
                continue;
            }
            match self.not_ours(id, created.as_deref()).await? {
                None => self.delete(id).await?,
                // There may be room for the new key beside it.
                Some(_) if !full => {}
                Some(why) => {
                    let message = format!(
                        "{} has two access keys, which is as many as IAM allows, and {id} is neither AWSCURRENT's nor left over from this rotation: {why}",
                        self.arn
                    );
                    return Err(Error::config(Code::KeyLimit, message).hint(format!(
                        "if nothing uses it: `aws iam delete-access-key --user-name {} --access-key-id {id}`",
                        self.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// Why a key cannot be a leftover of this rotation. `None` is a proof that it is one, as good as IAM allows.
    async fn not_ours(&self, id: &str, created: Option<&str>) -> Result<Option<&'static str>> {
        let created = created.and_then(|text| DateTime::from_str(text, Format::DateTime).ok()).map(|it| it.secs());
        let store = self.rotation.services.secret(self.rotation.secret);
        let began = store.created(self.rotation.token).await?;
        let began = began.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let (Some(created), Some(began)) = (created, began.and_then(|at| i64::try_from(at.as_secs()).ok())) else {
            return Ok(Some("it is not known which of the two is older"));
        };
        if created < began {
            return Ok(Some("it is older than the rotation"));
        }
        match self.ask(&LAST_USED, &[("AccessKeyId", id)], None).await {
            Ok(used) => {
                let date = used.text(&["GetAccessKeyLastUsedResult", "AccessKeyLastUsed", "LastUsedDate"]);
                // moto and the first years of IAM write N/A.
                let used = date.is_some_and(|date| !date.is_empty() && date != "N/A");
                Ok(used.then_some("it has been used"))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// One that is gone already, or that is another user's, is none of ours.
    async fn delete(&self, id: &str) -> Result<()> {
        let key = [("UserName", self.name), ("AccessKeyId", id)];
        let inactive = [key[0], key[1], ("Status", "Inactive")];
        self.rotation.changing();
        for (operation, form) in [(&UPDATE, inactive.as_slice()), (&DELETE, key.as_slice())] {
            match self.ask(operation, form, None).await {
                Err(refusal) if refusal.code.as_deref() != Some("NoSuchEntity") => return Err(refusal.into()),
                _ => {}
            }
        }
        self.rotation.unchanged();
        Ok(())
    }

    /// Whether the key in `secret` is valid and this user's, once AWS has had the time to learn of it.
    async fn accepts(&self, secret: &Secret, within: Duration) -> Result<()> {
        let absent = |name| Error::config(Code::Field, format!("field \"{name}\" is missing"));
        let id = key_id(secret)?.ok_or_else(|| absent(IDS[0]))?;
        let key = field(secret, SECRETS)?.ok_or_else(|| absent(SECRETS[0]))?;
        let give_up = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            let refusal = match self.ask(&IDENTITY, &[], Some((id, key))).await {
                Ok(answer) => return self.is_named_in(&answer, id),
                Err(refusal) => refusal,
            };
            match refusal.code.as_deref() {
                Some("InvalidClientTokenId") if Instant::now() + pause < give_up => {
                    sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Some("InvalidClientTokenId" | "SignatureDoesNotMatch") => {
                    let code = refusal.code.unwrap_or_default();
                    let message = format!("AWS refuses the access key {id} of {} with {code}", self.arn);
                    return Err(Error::rejected(Which::Pending, Code::WrongPassword, message).hint(
                        "check with `aws iam list-access-keys` that the key is there and Active; if it is gone, take AWSPENDING away and rotate anew",
                    ));
                }
                _ => return Err(refusal.into()),
            }
        }
    }

    fn is_named_in(&self, answer: &Answer, id: &str) -> Result<()> {
        let Some(arn) = answer.text(&["GetCallerIdentityResult", "Arn"]) else {
            return Err(Error::transient(Code::Aws, "the answer to GetCallerIdentity cannot be read"));
        };
        let (account, name) = self.arn.split_once(":user/").unwrap_or_default();
        let same = arn.split_once(":user/").is_some_and(|(of, path)| {
            of == account && path.rsplit('/').next() == Some(name.rsplit('/').next().unwrap_or(name))
        });
        if arn == self.arn || (same && !self.exact) {
            return Ok(());
        }
        let message = format!("the access key {id} is that of {arn}, and not of {}", self.arn);
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
