//! A shared token that services read from the secret itself: a gateway's API key, a webhook secret, a signing key.
//!
//! Nobody needs to be told of the new value, so setSecret has nothing to do. To let pods that still hold the old token in,
//! the secret may keep it in a second field (`previous`), and the service accept both.

use async_trait::async_trait;

use crate::error::{Code, Error, Result};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::password;
use crate::secret::{Secret, SecretText};

/// A token that we choose and the service reads.
pub(super) struct Random;

const FIELDS: &[Field] = &[
    Field::required("token", "the token; another name by `field`"),
    Field::setting("field", "the name of the field that holds the token").default("token"),
    Field::setting("previous", "the name of a field that receives the outgoing token, for services that accept both"),
    Field::setting("encoding", "`password` (the rules of the environment), `base64url` without padding, or `hex`")
        .default("password"),
    Field::setting("length", "characters of a password (1–4096), or random bytes before encoding (16–1024)")
        .default("32")
        .number(),
    Field::setting("prefix", "what the token begins with, such as `sk-`; not counted by `length`"),
];

/// What AWS's rotation functions leave out of passwords.
const EXCLUDED: &str = "/@\"'\\";

#[derive(Clone, Copy)]
enum Encoding {
    Password,
    Base64Url,
    Hex,
}

/// What the secret says of its token.
struct Plan<'a> {
    field: &'a str,
    previous: Option<&'a str>,
    encoding: Encoding,
    length: Option<usize>,
    prefix: &'a str,
}

impl<'a> Plan<'a> {
    fn read(rotation: &'a Rotation<'_>, secret: &'a Secret) -> Result<Self> {
        let fields = secret.expose();
        let field = if fields.is_bare() { "" } else { rotation.setting(secret, "field")?.unwrap_or("token") };
        let previous = rotation.setting(secret, "previous")?;
        if previous == Some(field) || (previous.is_some() && fields.is_bare()) {
            return Err(Error::config(Code::Field, "field \"previous\" must name a field other than the token's"));
        }
        let encoding = match rotation.setting(secret, "encoding")? {
            None | Some("password") => Encoding::Password,
            Some("base64url") => Encoding::Base64Url,
            Some("hex") => Encoding::Hex,
            Some(_) => {
                return Err(Error::config(Code::Field, "field \"encoding\" is unknown")
                    .hint("one of `password`, `base64url`, `hex`"));
            }
        };
        let (low, high) = match encoding {
            Encoding::Password => (1, 4096),
            // Less than 128 bits can be guessed.
            Encoding::Base64Url | Encoding::Hex => (16, 1024),
        };
        let length = match fields.number("length", low, high)? {
            Some(length) => Some(length),
            None => match rotation.tags.get("keywheel:length") {
                None => None,
                Some(text) => Some(text.parse().ok().filter(|it| (low..=high).contains(it)).ok_or_else(|| {
                    let message = format!("tag `keywheel:length` must be a whole number from {low} to {high}");
                    Error::config(Code::Field, message)
                })?),
            },
        };
        let prefix = rotation.setting(secret, "prefix")?.unwrap_or("");
        Ok(Self { field, previous, encoding, length: length.map(|it| it as usize), prefix })
    }

    fn token(&self, rotation: &Rotation<'_>) -> Result<SecretText> {
        let bytes = || password::random_bytes(self.length.unwrap_or(32));
        let text = match self.encoding {
            Encoding::Password => {
                let rules = rotation.settings.passwords.rules(EXCLUDED)?;
                match self.length {
                    Some(length) => rules.with_length(length)?,
                    None => rules,
                }
                .generate()?
            }
            Encoding::Base64Url => SecretText::from(data_encoding::BASE64URL_NOPAD.encode(&bytes()?)),
            Encoding::Hex => SecretText::from(data_encoding::HEXLOWER.encode(&bytes()?)),
        };
        Ok(SecretText::from(format!("{}{}", self.prefix, text.expose())))
    }
}

#[async_trait]
impl Kind for Random {
    fn names(&self) -> &'static [&'static str] {
        &["random"]
    }

    fn summary(&self) -> &'static str {
        "a shared token that services read from the secret: gateway or vLLM API key, webhook secret, signing key"
    }

    fn example(&self) -> &'static str {
        r#"{"kind":"random","encoding":"base64url","length":32,"prefix":"sk-","token":"sk-…"}"#
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn rotates(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Vec<String>> {
        let plan = Plan::read(rotation, current)?;
        Ok([Some(plan.field), plan.previous].into_iter().flatten().map(str::to_owned).collect())
    }

    fn takes_bare(&self) -> bool {
        true
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        let plan = Plan::read(rotation, current)?;
        let old = current.expose().required(plan.field)?;
        let mut changes = vec![(plan.field, plan.token(rotation)?)];
        if let Some(previous) = plan.previous {
            changes.push((previous, SecretText::from(old.to_owned())));
        }
        Ok(current.with(changes))
    }

    async fn set(&self, _rotation: &Rotation<'_>, _versions: Versions<'_>) -> Result<()> {
        Ok(())
    }

    /// There is nobody to ask: what can be proven is that a client finds a token where it looks.
    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        let plan = Plan::read(rotation, pending)?;
        let token = pending.expose().required(plan.field)?;
        if token.is_empty() || !token.starts_with(plan.prefix) {
            let message = format!("the token in field \"{}\" is empty or does not begin with `prefix`", plan.field);
            return Err(Error::config(Code::Field, message));
        }
        Ok(())
    }
}
