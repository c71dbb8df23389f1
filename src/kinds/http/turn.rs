//! One step with one recipe: the requests that every class is made of.

use std::time::Duration;

use aws_smithy_types::date_time::{DateTime, Format};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::recipe::{Recipe, scalar};
use super::send::{Asked, Session, statuses};
use super::template::{Context, object, to_jinja};
use crate::admin;
use crate::error::{Class as Failure, Code, Error, Result, Which};
use crate::kind::Rotation;
use crate::password::random_bytes;
use crate::secret::{Exposed, Secret, SecretText};

/// How long a new key may take to be known, unless the recipe says so.
const KNOWN_WITHIN: u64 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// A list that goes on after so many pages is not read to its end.
const PAGES: usize = 50;

/// One step with one recipe.
pub(super) struct Turn<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) session: Session<'a>,
}

/// One key in a list.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) name: String,
    /// Seconds since 1970.
    pub(super) created: Option<i64>,
    pub(super) used: bool,
    pub(super) item: Value,
}

impl<'a> Turn<'a> {
    /// For requests with the recipe's own authentication.
    pub(super) async fn new(recipe: &'a Recipe, rotation: &'a Rotation<'a>, secrets: &[&Secret]) -> Result<Self> {
        let [secret, ..] = secrets else { return Err(Error::new(Failure::Internal, Code::Panic, "no secret")) };
        let mut found = None;
        if let Some(fields) = recipe.root.get("admin").and_then(Value::as_object) {
            let arn = admin::named(secret)?.ok_or_else(|| {
                Error::config(Code::Field, "field \"adminarn\" is missing")
                    .hint("the ARN of the secret of an administrator, who makes and withdraws the keys")
            })?;
            let admin = admin::value(rotation, arn).await?;
            for (name, doc) in fields {
                if admin.expose().value(name).and_then(scalar).is_none() {
                    let message = format!("the administrator's secret has no field \"{name}\"");
                    let doc = doc.as_str().unwrap_or_default();
                    return Err(Error::config(Code::Admin, message).hint(format!("put it there: {doc}")));
                }
            }
            found = Some(admin);
        }
        Self::with(recipe, rotation, secrets, found)
    }

    /// For requests with the secret's own key.
    pub(super) fn with(
        recipe: &'a Recipe,
        rotation: &'a Rotation<'a>,
        secrets: &[&Secret],
        admin: Option<Secret>,
    ) -> Result<Self> {
        let [secret, ..] = secrets else { return Err(Error::new(Failure::Internal, Code::Panic, "no secret")) };
        let rotated = |secret: &Secret| {
            let fields = recipe.rotated().filter_map(|name| secret.expose().value(name)?.as_str().map(str::to_owned));
            fields.filter(|it| it.len() >= 8).map(SecretText::from).collect::<Vec<_>>()
        };
        let hidden = secrets.iter().flat_map(|it| rotated(it)).collect();
        Ok(Self { recipe, session: Session::new(recipe, rotation, secret, admin, hidden)? })
    }

    pub(super) fn rotation(&self) -> &'a Rotation<'a> {
        self.session.rotation
    }

    /// Whose credential requests with the recipe's own authentication use.
    pub(super) fn which(&self) -> Which {
        if self.session.admin.is_some() { Which::Admin } else { Which::Current }
    }

    /// What the templates of a request about `secret` see.
    pub(super) fn context(&self, secret: &Secret, more: Vec<(&str, Context)>) -> Result<Context> {
        let rotation = self.rotation();
        let owner = HEXLOWER.encode(&digest(&SHA256, rotation.secret.as_bytes()).as_ref()[..4]);
        let mut all = vec![
            ("secret".to_owned(), self.recipe.seen(secret.expose())),
            ("owner".to_owned(), Context::from(owner)),
            ("token".to_owned(), Context::from(rotation.token)),
        ];
        if let Some(admin) = &self.session.admin {
            let fields = admin.expose();
            let fields = fields.names().filter_map(|name| Some((name.to_owned(), to_jinja(fields.value(name)?))));
            all.push(("admin".to_owned(), object(fields)));
        }
        let name = self.recipe.templates.text(self.recipe.key_name(), &object(all.clone()));
        let name = name.map_err(|why| Recipe::unusable("key_name", &why))?;
        all.push(("key_name".to_owned(), Context::from(name)));
        all.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Ok(object(all))
    }

    pub(super) fn key_name(&self, secret: &Secret) -> Result<String> {
        let name = self.recipe.templates.text("{{ key_name }}", &self.context(secret, Vec::new())?);
        name.map_err(|why| Recipe::unusable("key_name", &why))
    }

    /// The values that `create` or another request gives the fields of the secret.
    pub(super) fn take(&self, answer: &Value, request: &Value, context: &Context) -> Result<Vec<(String, SecretText)>> {
        let table = request.get("take").and_then(Value::as_object);
        table
            .into_iter()
            .flatten()
            .map(|(field, pointer)| {
                let found = self.at(answer, "create.take", pointer, context)?.and_then(scalar).ok_or_else(|| {
                    let message = format!("the answer to `create` has nothing for field \"{field}\"");
                    Error::config(Code::Answer, message)
                        .hint("compare `create.take` of the recipe with the service's answer")
                })?;
                Ok((field.clone(), SecretText::from(found)))
            })
            .collect()
    }

    /// What a JSON Pointer finds; it is a template.
    pub(super) fn at<'v>(
        &self,
        value: &'v Value,
        key: &str,
        pointer: &Value,
        context: &Context,
    ) -> Result<Option<&'v Value>> {
        let pointer = self.recipe.templates.text(pointer.as_str().unwrap_or_default(), context);
        let pointer = pointer.map_err(|why| Recipe::unusable(key, &why))?;
        Ok(value.pointer(&pointer))
    }

    /// The keys that the service has, as far as the recipe can list them.
    pub(super) async fn listed(&self, secret: &Secret) -> Result<Option<Vec<Listed>>> {
        let Some(request) = self.recipe.root.get("list") else { return Ok(None) };
        let mut all = Vec::new();
        let mut page = Context::from(());
        for _ in 0..PAGES {
            let context = self.context(secret, vec![("page", page)])?;
            let asked = Asked { name: "list", request, which: self.which() };
            let Some(answer) = self.session.ask(asked, &context, &[]).await? else { break };
            let answer = answer.json()?;
            let items = self.at(&answer, "list.items", &request["items"], &context)?;
            let Some(items) = items.and_then(Value::as_array) else {
                // Some leave an empty list out.
                if items.is_none_or(Value::is_null) && answer.is_object() && request["items"] != "" {
                    break;
                }
                let message = "the answer to `list` has no list where the recipe says";
                return Err(Error::config(Code::Answer, message).hint("compare `list.items` with the service's answer"));
            };
            for item in items {
                let text = |key: &str| match request.get(key) {
                    Some(pointer) => Ok::<_, Error>(self.at(item, "list", pointer, &context)?.and_then(scalar)),
                    None => Ok(None),
                };
                let Some(id) = text("id")? else { continue };
                let created = text("created")?.and_then(|it| DateTime::from_str(&it, Format::DateTimeWithOffset).ok());
                all.push(Listed {
                    id,
                    name: text("name")?.unwrap_or_default(),
                    created: created.map(|it| it.secs()),
                    used: text("used")?.is_some(),
                    item: item.clone(),
                });
            }
            if request.get("offset").and_then(Value::as_bool).unwrap_or_default() {
                if items.is_empty() {
                    break;
                }
                page = Context::from(all.len());
                continue;
            }
            let next = request.get("next").map(|next| self.at(&answer, "list.next", next, &context)).transpose()?;
            match next.flatten().and_then(scalar) {
                Some(next) => page = Context::from(next),
                None => break,
            }
        }
        Ok(Some(all))
    }

    /// The id of the key in `secret`, where that is known.
    pub(super) fn id_of(&self, secret: &Secret, listed: Option<&[Listed]>) -> Result<Option<String>> {
        if let Some(id) = self.recipe.id_field().and_then(|field| secret.expose().value(field)).and_then(scalar) {
            return Ok(Some(id));
        }
        let Some(rules) = self.recipe.matches() else { return Ok(None) };
        let context = self.context(secret, Vec::new())?;
        for key in listed.unwrap_or_default() {
            let mut alike = !rules.is_empty();
            for (field, pointer) in rules {
                let there = self.at(&key.item, "list.match", pointer, &context)?.and_then(scalar);
                alike &= there.is_some() && there == secret.expose().value(field).and_then(scalar);
            }
            if alike {
                return Ok(Some(key.id.clone()));
            }
        }
        Ok(None)
    }

    /// Removes the keys that rotations of this secret have left behind: they bear its mark, and neither AWSCURRENT nor
    /// `pending` holds them. Where the list does not show the key in use, its ids cannot be compared, and only what an
    /// earlier try of this very rotation has made is removed.
    pub(super) async fn sweep(&self, current: &Secret, pending: Option<&Secret>) -> Result<()> {
        let Some(listed) = self.listed(current).await? else { return Ok(()) };
        let name = self.key_name(current)?;
        let mark = name.strip_suffix(self.rotation().token).unwrap_or(&name).to_owned();
        let mut used = Vec::new();
        let mut known = true;
        for secret in [Some(current), pending].into_iter().flatten() {
            let id = self.id_of(secret, Some(&listed))?;
            known &= id.as_ref().is_some_and(|id| listed.iter().any(|it| it.id == *id));
            used.extend(id);
        }
        for key in listed.iter().filter(|key| !used.contains(&key.id)) {
            let ours = if self.recipe.root["list"].get("name").is_none() {
                known && self.made_by_this_rotation(key).await?
            } else if known {
                key.name.starts_with(&mark)
            } else {
                pending.is_none() && key.name == name
            };
            if ours {
                self.withdraw(current, &key.id).await?;
            }
        }
        Ok(())
    }

    /// Whether a key without a name is one that an earlier try of this rotation has made, as far as dates can tell.
    pub(super) async fn made_by_this_rotation(&self, key: &Listed) -> Result<bool> {
        let store = self.rotation().services.secret(self.rotation().secret);
        let began = store.created(self.rotation().token).await?.map(|at| DateTime::from(at).secs());
        Ok(!key.used && key.created.zip(began).is_some_and(|(created, began)| created >= began))
    }

    /// Withdraws the key with this id; `secret` is the one it belongs to, or AWSCURRENT.
    pub(super) async fn withdraw(&self, secret: &Secret, id: &str) -> Result<()> {
        let all = self.recipe.revokes();
        let several = all.len() > 1;
        self.rotation().changing();
        for (at, request) in all.into_iter().enumerate() {
            let context = self.context(secret, vec![("id", Context::from(id))])?;
            let name = if several { format!("revoke[{at}]") } else { "revoke".to_owned() };
            let mut gone = statuses(request, "gone");
            if gone.is_empty() {
                gone = vec![404, 410];
            }
            self.session.ask(Asked { name: &name, request, which: self.which() }, &context, &gone).await?;
        }
        self.rotation().unchanged();
        Ok(())
    }

    /// Signs in once with the key in `secret`.
    pub(super) async fn verify(&self, secret: &Secret, which: Which) -> Result<()> {
        let request = &self.recipe.root["verify"];
        let context = self.context(secret, Vec::new())?;
        let answer = self.session.ask(Asked { name: "verify", request, which }, &context, &[]).await?;
        let (Some(answer), Some(identity)) = (answer, request.get("identity").and_then(Value::as_object)) else {
            return Ok(());
        };
        let answer = answer.json()?;
        for (pointer, template) in identity {
            let expected = self.recipe.templates.text(template.as_str().unwrap_or_default(), &context);
            let expected = expected.map_err(|why| Recipe::unusable("verify.identity", &why))?;
            let pointer = Value::from(pointer.as_str());
            let found = self.at(&answer, "verify.identity", &pointer, &context)?.and_then(scalar);
            if found.as_deref() != Some(expected.as_str()) {
                let found = found.unwrap_or_else(|| "nothing".to_owned());
                let message = format!("the key is that of {found:?} at {pointer}, and the secret's is {expected:?}");
                return Err(Error::rejected(which, Code::Identity, message));
            }
        }
        Ok(())
    }

    /// Signs in until the service knows the key.
    pub(super) async fn known(&self, secret: &Secret, within: Duration) -> Result<()> {
        let give_up = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.verify(secret, Which::Pending).await {
                Err(error) if error.is_rejected() && Instant::now() + pause < give_up => {
                    self.rotation().waiting(Some("the service to know the new key".to_owned()));
                    sleep(pause).await;
                    self.rotation().waiting(None);
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                result => return result,
            }
        }
    }

    pub(super) fn within(&self) -> Duration {
        let said = self.recipe.root["verify"].get("within").and_then(Value::as_u64);
        Duration::from_secs(said.unwrap_or(KNOWN_WITHIN))
    }

    /// The slot or user whose turn it is, and what becomes of the field for the other one.
    pub(super) async fn turned(&self, current: &Secret) -> Result<Vec<(String, SecretText)>> {
        let Some(field) = self.recipe.alternate("field") else { return Ok(Vec::new()) };
        let fields = current.expose();
        let own = SecretText::from;
        if let Some(other) = self.recipe.other() {
            let Some(next) = fields.filled(&other)? else { return Ok(Vec::new()) };
            let now = fields.required(field)?.to_owned();
            return Ok(vec![(field.to_owned(), own(next.to_owned())), (other, own(now))]);
        }
        let slots = self.recipe.slots().unwrap_or_default();
        let used = match self.recipe.root.get("read").filter(|read| read.get("holds").is_some()) {
            Some(read) => self.slot_in_use(current, read).await?,
            None => fields.required(field)?.to_owned(),
        };
        let Some(next) = slots.iter().find(|slot| **slot != used).filter(|_| slots.contains(&used.as_str())) else {
            let slots = slots.join("` or `");
            return Err(Error::config(Code::Field, format!("field \"{field}\" must be `{slots}`")));
        };
        Ok(vec![(field.to_owned(), own((*next).to_owned()))])
    }

    /// What `read` tells, for templates.
    pub(super) async fn before(&self, secret: &Secret, read: &Value, more: Vec<(&str, Context)>) -> Result<Context> {
        let context = self.context(secret, more)?;
        let asked = Asked { name: "read", request: read, which: self.which() };
        let before = self.session.ask(asked, &context, &[]).await?;
        Ok(to_jinja(&before.map(|it| it.json()).transpose()?.unwrap_or_default()))
    }

    pub(super) async fn slot_in_use(&self, current: &Secret, read: &Value) -> Result<String> {
        let context = self.context(current, Vec::new())?;
        let asked = Asked { name: "read", request: read, which: self.which() };
        let answer = self.session.ask(asked, &context, &[]).await?;
        let answer = answer.map(|it| it.json()).transpose()?.unwrap_or_default();
        let key = current.expose().value(self.recipe.credential()).and_then(scalar);
        for (slot, pointer) in read["holds"].as_object().into_iter().flatten() {
            let holds = self.at(&answer, "read.holds", pointer, &context)?.and_then(scalar);
            if holds.is_some() && holds == key {
                return Ok(slot.clone());
            }
        }
        let message = "the service's slots hold other keys than AWSCURRENT's, so none of them is known to be free";
        Err(Error::rejected(Which::Current, Code::WrongPassword, message)
            .hint("put the key that clients use, and its slot, into the secret"))
    }

    /// A value for each field that `choose` names.
    pub(super) fn chosen(&self, secret: &Secret) -> Result<Vec<(String, SecretText)>> {
        let table = self.recipe.root.get("choose").and_then(Value::as_object);
        table
            .into_iter()
            .flatten()
            .map(|(field, rule)| {
                let characters = rule.get("characters").and_then(Value::as_str).unwrap_or_default();
                let length = rule.get("length").and_then(Value::as_u64).and_then(|it| usize::try_from(it).ok());
                let value = match characters {
                    "password" => {
                        let rules = self.rotation().settings.passwords.rules(EXCLUDED)?;
                        let rules = match length {
                            Some(length) => rules.with_length(length)?,
                            None => rules,
                        };
                        rules.generate()?
                    }
                    "name" => SecretText::from(self.key_name(secret)?),
                    "uuid" => uuid()?,
                    "hex" => SecretText::from(HEXLOWER.encode(&random_bytes(length.unwrap_or(64).div_ceil(2))?)),
                    "base64url" => SecretText::from(BASE64URL_NOPAD.encode(&random_bytes(length.unwrap_or(43))?)),
                    _ => alphanumeric(length.unwrap_or(43))?,
                };
                let cut = match (characters, length) {
                    ("hex" | "base64url", Some(length)) => value.expose().get(..length).unwrap_or(value.expose()),
                    _ => value.expose(),
                };
                let prefix = rule.get("prefix").and_then(Value::as_str).unwrap_or_default();
                Ok((field.clone(), SecretText::from(format!("{prefix}{cut}"))))
            })
            .collect()
    }
}

/// Texts of a secret, to be kept out of errors; what is too short to be a credential is not.
pub(super) fn texts(secret: Exposed<'_>) -> Vec<SecretText> {
    let values = secret.names().filter_map(|name| secret.value(name)?.as_str());
    values.filter(|it| it.len() >= 8).map(|it| SecretText::from(it.to_owned())).collect()
}

/// Besides what AWS's functions leave out, what has a meaning in a URL.
pub(super) const EXCLUDED: &str = "/@\"'\\:#?%";

pub(super) fn alphanumeric(length: usize) -> Result<SecretText> {
    let mut made = String::with_capacity(length);
    while made.len() < length {
        // Those that do not fill the alphabet evenly are left out.
        let bytes = random_bytes(length * 2)?;
        let letters = bytes.iter().map(|it| it & 0x7f).filter(u8::is_ascii_alphanumeric).map(char::from);
        made.extend(letters.take(length - made.len()));
    }
    Ok(SecretText::from(made))
}

/// Version 4 of RFC 9562.
pub(super) fn uuid() -> Result<SecretText> {
    let mut bytes = random_bytes(16)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    Ok(SecretText::from([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_chosen_as_the_recipe_says() {
        let uuid = uuid().unwrap();
        let parts: Vec<_> = uuid.expose().split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(uuid.expose().as_bytes()[14] == b'4' && b"89ab".contains(&uuid.expose().as_bytes()[19]));
        let text = alphanumeric(500).unwrap();
        assert!(text.expose().len() == 500 && text.expose().bytes().all(|it| it.is_ascii_alphanumeric()));
    }
}
