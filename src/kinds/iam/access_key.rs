//! Access keys.

use async_trait::async_trait;

use super::{Api, Credential, IAM, Profile, Proof, USERARN, USERNAME, User, asked, asked_once, field, names};
use crate::error::{Code, Error, Result};
use crate::kind::Field;
use crate::secret::{Secret, SecretText};
use crate::services::{Input, Key, Operation, Protocol, Service};

/// An IAM user's key pair.
pub(in crate::kinds) struct AccessKey;

/// The first of the names is that of the SDKs.
const IDS: &[&str] = &["AWS_ACCESS_KEY_ID", "accesskeyid"];
const KEYS: &[&str] = &["AWS_SECRET_ACCESS_KEY", "secretaccesskey"];
const CREDENTIALS: &str = "credentials";

const STS: Service = Service {
    name: "STS",
    prefix: "sts",
    signs_as: None,
    id: "STS",
    protocol: Protocol::Query("2011-06-15"),
    global: false,
};
const IDENTITY: Operation = asked(&STS, "GetCallerIdentity", "sts:GetCallerIdentity");

pub(super) const API: Api = Api {
    list: asked(&IAM, "ListAccessKeys", "iam:ListAccessKeys"),
    create: asked_once("CreateAccessKey", "iam:CreateAccessKey"),
    update: asked(&IAM, "UpdateAccessKey", "iam:UpdateAccessKey"),
    delete: asked(&IAM, "DeleteAccessKey", "iam:DeleteAccessKey"),
    last_used: Some(asked(&IAM, "GetAccessKeyLastUsed", "iam:GetAccessKeyLastUsed")),
    scope: &[],
    listed: &["ListAccessKeysResult", "AccessKeyMetadata"],
    made: &["CreateAccessKeyResult", "AccessKey"],
    id: "AccessKeyId",
    key: "SecretAccessKey",
    commands: ("list-access-keys", "delete-access-key"),
    option: "--access-key-id",
};
pub(super) const PERMISSIONS: &[&str] = &[
    "iam:ListAccessKeys",
    "iam:GetAccessKeyLastUsed",
    "iam:CreateAccessKey",
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
];

const PROFILE: Profile = Profile {
    names: &["iam-access-key"],
    summary: "the access key of an IAM user, for what cannot use a role",
    example: r#"{"kind":"iam-access-key","username":"pipeline","AWS_ACCESS_KEY_ID":"AKIA…","AWS_SECRET_ACCESS_KEY":"…"}"#,
    fields: &[
        USERNAME,
        USERARN,
        Field::optional("AWS_ACCESS_KEY_ID", "", "the key's id; `accesskeyid` where the secret has that"),
        Field::optional("AWS_SECRET_ACCESS_KEY", "", "the secret key; `secretaccesskey` where the secret has that"),
        Field::setting(
            "credentials",
            "the text of a credentials file with this key; kept up to date where the secret has it",
        ),
    ],
    permissions: PERMISSIONS,
    what: "access key",
    ids: IDS,
    keys: KEYS,
    hint: "",
    api: &API,
};

#[async_trait]
impl Credential for AccessKey {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn rotates(&self, current: &Secret) -> Vec<&'static str> {
        let file = current.expose().value(CREDENTIALS).map(|_| CREDENTIALS);
        names(current, IDS).into_iter().chain(names(current, KEYS)).chain(file).collect()
    }

    fn check(&self, _user: &User<'_>, current: &Secret) -> Result<()> {
        credentials(current).map(drop)
    }

    fn copies(&self, current: &Secret, id: &str, key: &str) -> Result<Vec<(&'static str, SecretText)>> {
        Ok(credentials(current)?.map(|file| (CREDENTIALS, file.with(id, key))).into_iter().collect())
    }

    /// STS tells anybody with a key whose it is, whatever that user may do.
    async fn sign_in(&self, user: &User<'_>, _secret: &Secret, id: &str, key: &str) -> Result<Proof> {
        let key = Some(Key::Pair(id, key));
        let refusal = match user.ask_as(&IDENTITY, Input::Form(&[]), user.home.region, key).await {
            Ok(answer) => {
                let arn = answer.text(&["GetCallerIdentityResult", "Arn"]);
                let arn =
                    arn.ok_or_else(|| Error::transient(Code::Aws, "the answer to GetCallerIdentity cannot be read"))?;
                return user.owns(PROFILE.what, id, &arn).map(|()| Proof::Valid);
            }
            Err(refusal) => refusal,
        };
        match refusal.code {
            Some(code) if code == "InvalidClientTokenId" || code == "SignatureDoesNotMatch" => {
                Ok(Proof::Refused { by: "AWS".to_owned(), early: code == "InvalidClientTokenId", code })
            }
            _ => Err(refusal.error),
        }
    }
}

/// A credentials file in which the key can be replaced.
struct File<'s> {
    text: &'s str,
    old: Option<(&'s str, &'s str)>,
}

fn credentials(current: &Secret) -> Result<Option<File<'_>>> {
    let Some(text) = current.expose().optional(CREDENTIALS)? else { return Ok(None) };
    if text.trim().is_empty() {
        return Ok(Some(File { text, old: None }));
    }
    match (field(current, IDS)?, field(current, KEYS)?) {
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
