//! Credentials of anything with an HTTP API, by recipes: data that say how a key is made, found, proven and withdrawn.
//!
//! A recipe names one of five classes, by who makes the value and how many values may be valid at a time; what follows from
//! the class is here, once. The recipes in `recipes/` are compiled in and are kinds of their own; a secret of kind `http`
//! brings its own.

mod format;
mod rabbitmq;
mod send;
mod template;

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_types::date_time::{DateTime, Format};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

pub use self::format::schema;
pub(super) use self::rabbitmq::RabbitMq;
use self::send::{Asked, Session, statuses};
use self::template::{Context, Templates, object, to_jinja};
use crate::admin;
use crate::error::{Class as Failure, Code, Error, Result, Which};
use crate::kind::{Field, Kind, Rotation, Versions};
use crate::password::random_bytes;
use crate::secret::{Exposed, Secret, SecretText, wipe};
use crate::services::{Input, Operation, Protocol, Request, Service};
use crate::tls::SSLROOTCERT;

/// Name, names and text of every recipe that is compiled in, without the examples that its file ends with.
pub const RECIPES: &[(&str, &[&str], &str)] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// The name of a new key, unless the recipe says another: whose it is, and of which rotation.
const KEY_NAME: &str = "keywheel-{{ owner }}-{{ token }}";
/// How long a new key may take to be known, unless the recipe says so.
const KNOWN_WITHIN: u64 = 3;
/// Another host of the service may learn of the key later than the one that setSecret asked.
const STILL_KNOWN_WITHIN: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// A list that goes on after so many pages is not read to its end.
const PAGES: usize = 50;

/// Who makes the value, and what becomes of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The value is chosen here, and sent to the service as often as need be.
    Chosen,
    /// The service makes keys, and several may coexist.
    Minted,
    /// There are two fixed slots; the one that AWSCURRENT does not use gets a new key.
    Slots,
    /// The service makes a new key, and the old one dies at that moment.
    InPlace,
    /// A person makes the key.
    Staged,
}

/// One field, as a recipe describes it.
struct Described {
    name: String,
    doc: String,
    required: bool,
    rotated: bool,
    number: bool,
    default: Option<Value>,
}

/// A recipe that has been checked.
pub(super) struct Recipe {
    root: Value,
    templates: Templates,
    class: Class,
    fields: Vec<Described>,
    /// Whether it came with this program. The author of any other is the author of a secret.
    trusted: bool,
}

/// The compiled-in recipe of this name; or the one that a secret brought.
pub(super) struct Provider {
    names: &'static [&'static str],
    text: &'static str,
    recipe: OnceLock<Recipe>,
    told: OnceLock<Told>,
}

/// What documentation and hints are made of. Built when it is first asked for, and then kept.
struct Told {
    summary: &'static str,
    example: &'static str,
    fields: &'static [Field],
    permissions: &'static [&'static str],
}

/// The kinds of the compiled-in recipes.
pub(super) fn providers() -> impl Iterator<Item = &'static dyn Kind> {
    RECIPES.iter().map(|(_, names, text)| {
        let provider: &'static Provider =
            Box::leak(Box::new(Provider { names, text, recipe: OnceLock::new(), told: OnceLock::new() }));
        provider as &dyn Kind
    })
}

impl Recipe {
    fn read(text: &str, trusted: bool) -> std::result::Result<Self, String> {
        let root = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |at| text[..at.start].lines().count().max(1));
            // The text may be a secret's, and the message quotes it.
            format!("line {line} is not TOML")
        })?;
        Self::of(root, trusted)
    }

    /// # Errors
    /// What is wrong, with the key.
    fn of(root: Value, trusted: bool) -> std::result::Result<Self, String> {
        let templates = Templates::new();
        format::check(&root, &templates)?;
        let class = match root["class"].as_str() {
            Some("chosen") => Class::Chosen,
            Some("minted") => Class::Minted,
            Some("slots") => Class::Slots,
            Some("in-place") => Class::InPlace,
            _ => Class::Staged,
        };
        let fields = root["fields"].as_object().into_iter().flatten().map(|(name, field)| {
            let flag = |key: &str| field.get(key).and_then(Value::as_bool).unwrap_or_default();
            Described {
                name: name.clone(),
                doc: field["doc"].as_str().unwrap_or_default().to_owned(),
                required: flag("required"),
                rotated: flag("rotated"),
                number: flag("number"),
                default: field.get("default").cloned(),
            }
        });
        let fields = fields.collect();
        let recipe = Self { root, templates, class, fields, trusted };
        recipe.consistent()?;
        Ok(recipe)
    }

    /// What the parts of a recipe must have to do with each other.
    fn consistent(&self) -> std::result::Result<(), String> {
        let has = |key: &str| self.root.get(key).is_some();
        let need = |key: &str| {
            if has(key) { Ok(()) } else { Err(format!("`{key}` is missing, which the class wants")) }
        };
        match self.class {
            Class::Minted | Class::InPlace => need("create")?,
            Class::Slots => need("create").and_then(|()| need("alternate"))?,
            Class::Chosen => need("choose").and_then(|()| need("set"))?,
            Class::Staged => need("by_hand")?,
        }
        if self.class == Class::Minted || self.coexists() {
            need("revoke")?;
        }
        let rotated: Vec<&str> = self.rotated().collect();
        let Some(first) = rotated.first() else { return Err("`fields` has none with `rotated`".to_owned()) };
        if self.fields.iter().any(|field| ["kind", "adminarn", "masterarn", "network"].contains(&field.name.as_str())) {
            return Err(
                "`fields` has one that every secret may have: `kind`, `adminarn`, `masterarn` or `network`".to_owned()
            );
        }
        let made: Vec<&String> = ["create", "choose"]
            .iter()
            .filter_map(|key| self.root.get(key))
            .flat_map(|table| {
                table.get("take").unwrap_or(table).as_object().into_iter().flatten().map(|(name, _)| name)
            })
            .collect();
        if matches!(self.class, Class::Minted | Class::InPlace | Class::Slots) || self.class == Class::Chosen {
            let table = if self.class == Class::Chosen { "choose" } else { "create.take" };
            if !made.iter().any(|it| it == first) {
                return Err(format!("`{table}` does not give `{first}`, the first rotated field"));
            }
            if let Some(odd) = made.iter().find(|name| !rotated.contains(&name.as_str())) {
                return Err(format!("`{table}.{odd}` is no field with `rotated`"));
            }
        }
        if let Some(field) = self.alternate("field")
            && !rotated.contains(&field)
        {
            return Err("`alternate.field` is no field with `rotated`".to_owned());
        }
        if self.class == Class::Slots && self.slots().is_some_and(|it| it.len() != 2) {
            return Err("`alternate.values` must be two".to_owned());
        }
        if has("revoke") && self.id_field().is_none() && self.matches().is_none() {
            return Err("`revoke.id` must name a rotated field, unless `list.match` finds the key".to_owned());
        }
        // Without anything before it every key would be taken for one of ours.
        if self.key_name().strip_suffix("{{ token }}").is_none_or(str::is_empty) {
            return Err("`key_name` must end with `{{ token }}`, and begin with something else".to_owned());
        }
        if let Some(list) = self.root.get("list")
            && list.get("name").is_none()
            && list.get("created").is_none()
        {
            return Err("`list.name` or `list.created` is missing: by it leftovers are known".to_owned());
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.root.get(key)?.as_str()
    }

    fn whole(&self, key: &str) -> Option<u64> {
        self.root.get(key)?.as_u64()
    }

    fn coexists(&self) -> bool {
        self.root.get("coexist").and_then(Value::as_bool).unwrap_or_default()
    }

    fn key_name(&self) -> &str {
        self.text("key_name").unwrap_or(KEY_NAME)
    }

    fn rotated(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|field| field.rotated).map(|field| field.name.as_str())
    }

    /// The field that is the credential.
    fn credential(&self) -> &str {
        self.rotated().next().unwrap_or_default()
    }

    fn alternate(&self, key: &str) -> Option<&str> {
        self.root.get("alternate")?.get(key)?.as_str()
    }

    /// The fixed slots.
    fn slots(&self) -> Option<Vec<&str>> {
        let values = self.root.get("alternate")?.get("values")?.as_array()?;
        Some(values.iter().filter_map(Value::as_str).collect())
    }

    /// The name of the field that has the other user, where it is not one of two fixed ones.
    fn other(&self) -> Option<String> {
        if self.slots().is_some() { None } else { self.alternate("field").map(|field| format!("alternate_{field}")) }
    }

    fn revokes(&self) -> Vec<&Value> {
        match self.root.get("revoke") {
            Some(Value::Array(all)) => all.iter().collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        }
    }

    /// The field that has a key's id.
    fn id_field(&self) -> Option<&str> {
        let said = self.revokes().first()?.get("id").and_then(Value::as_str);
        match said {
            Some(said) => self.rotated().find(|it| *it == said),
            None if self.matches().is_some() => None,
            None => self.rotated().nth(1),
        }
    }

    /// By which fields a key is found in a list.
    fn matches(&self) -> Option<&Map<String, Value>> {
        self.root.get("list")?.get("match")?.as_object()
    }

    /// The error for a recipe that does not fit; `key` says where in it.
    fn unusable(key: &str, why: &str) -> Error {
        Error::config(Code::Recipe, format!("`{key}` of the recipe cannot be used: {why}"))
            .hint("compare the fields of the secret, and of the administrator's, with those that the recipe uses")
    }

    /// What templates see: fields, and defaults for those that are absent.
    fn seen(&self, secret: Exposed<'_>) -> Context {
        let defaults = self.fields.iter().filter(|field| secret.value(&field.name).is_none());
        let defaults = defaults.filter_map(|field| Some((field.name.clone(), to_jinja(field.default.as_ref()?))));
        let fields = secret.names().filter_map(|name| Some((name.to_owned(), to_jinja(secret.value(name)?))));
        object(fields.chain(defaults))
    }

    /// Fields are there and of their types. Where it is used, `alternate_…` too.
    fn check(&self, secret: Exposed<'_>) -> Result<()> {
        let credential = self.credential();
        for field in &self.fields {
            let name = &field.name;
            if field.number {
                secret.number(name, 0, 10_000_000)?;
            } else if !secret.value(name).is_some_and(Value::is_number) {
                secret.optional(name)?;
            }
            let needed = field.required || name == credential;
            if needed && !secret.value(name).is_some_and(Value::is_number) {
                secret.required(name)?;
            }
        }
        if let Some(other) = self.other() {
            let must = self.root["alternate"].get("required").and_then(Value::as_bool).unwrap_or_default();
            match secret.filled(&other)? {
                None if must => return secret.required(&other).map(drop),
                Some(other_user)
                    if Some(other_user) == secret.optional(self.alternate("field").unwrap_or_default())? =>
                {
                    return Err(Error::config(Code::Field, format!("field \"{other}\" names the same one")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Texts of a secret, to be kept out of errors; what is too short to be a credential is not.
fn texts(secret: Exposed<'_>) -> Vec<SecretText> {
    let values = secret.names().filter_map(|name| secret.value(name)?.as_str());
    values.filter(|it| it.len() >= 8).map(|it| SecretText::from(it.to_owned())).collect()
}

/// A number or a text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// One step with one recipe.
struct Turn<'a> {
    recipe: &'a Recipe,
    session: Session<'a>,
}

/// One key in a list.
struct Listed {
    id: String,
    name: String,
    /// Seconds since 1970.
    created: Option<i64>,
    used: bool,
    item: Value,
}

impl<'a> Turn<'a> {
    /// For requests with the recipe's own authentication.
    async fn new(recipe: &'a Recipe, rotation: &'a Rotation<'a>, secrets: &[&Secret]) -> Result<Self> {
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
    fn with(
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

    fn rotation(&self) -> &'a Rotation<'a> {
        self.session.rotation
    }

    /// Whose credential requests with the recipe's own authentication use.
    fn which(&self) -> Which {
        if self.session.admin.is_some() { Which::Admin } else { Which::Current }
    }

    /// What the templates of a request about `secret` see.
    fn context(&self, secret: &Secret, more: Vec<(&str, Context)>) -> Result<Context> {
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

    fn key_name(&self, secret: &Secret) -> Result<String> {
        let name = self.recipe.templates.text("{{ key_name }}", &self.context(secret, Vec::new())?);
        name.map_err(|why| Recipe::unusable("key_name", &why))
    }

    /// The values that `create` or another request gives the fields of the secret.
    fn take(&self, answer: &Value, request: &Value, context: &Context) -> Result<Vec<(String, SecretText)>> {
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
    fn at<'v>(&self, value: &'v Value, key: &str, pointer: &Value, context: &Context) -> Result<Option<&'v Value>> {
        let pointer = self.recipe.templates.text(pointer.as_str().unwrap_or_default(), context);
        let pointer = pointer.map_err(|why| Recipe::unusable(key, &why))?;
        Ok(value.pointer(&pointer))
    }

    /// The keys that the service has, as far as the recipe can list them.
    async fn listed(&self, secret: &Secret) -> Result<Option<Vec<Listed>>> {
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
    fn id_of(&self, secret: &Secret, listed: Option<&[Listed]>) -> Result<Option<String>> {
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
    async fn sweep(&self, current: &Secret, pending: Option<&Secret>) -> Result<()> {
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
    async fn made_by_this_rotation(&self, key: &Listed) -> Result<bool> {
        let store = self.rotation().services.secret(self.rotation().secret);
        let began = store.created(self.rotation().token).await?.map(|at| DateTime::from(at).secs());
        Ok(!key.used && key.created.zip(began).is_some_and(|(created, began)| created >= began))
    }

    /// Withdraws the key with this id; `secret` is the one it belongs to, or AWSCURRENT.
    async fn withdraw(&self, secret: &Secret, id: &str) -> Result<()> {
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
    async fn verify(&self, secret: &Secret, which: Which) -> Result<()> {
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
    async fn known(&self, secret: &Secret, within: Duration) -> Result<()> {
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

    fn within(&self) -> Duration {
        let said = self.recipe.root["verify"].get("within").and_then(Value::as_u64);
        Duration::from_secs(said.unwrap_or(KNOWN_WITHIN))
    }

    /// The slot or user whose turn it is, and what becomes of the field for the other one.
    async fn turned(&self, current: &Secret) -> Result<Vec<(String, SecretText)>> {
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
    async fn before(&self, secret: &Secret, read: &Value, more: Vec<(&str, Context)>) -> Result<Context> {
        let context = self.context(secret, more)?;
        let asked = Asked { name: "read", request: read, which: self.which() };
        let before = self.session.ask(asked, &context, &[]).await?;
        Ok(to_jinja(&before.map(|it| it.json()).transpose()?.unwrap_or_default()))
    }

    async fn slot_in_use(&self, current: &Secret, read: &Value) -> Result<String> {
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
    fn chosen(&self, secret: &Secret) -> Result<Vec<(String, SecretText)>> {
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

/// Besides what AWS's functions leave out, what has a meaning in a URL.
const EXCLUDED: &str = "/@\"'\\:#?%";

fn alphanumeric(length: usize) -> Result<SecretText> {
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
fn uuid() -> Result<SecretText> {
    let mut bytes = random_bytes(16)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    Ok(SecretText::from([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")))
}

fn changed(secret: &Secret, changes: &[(String, SecretText)]) -> Secret {
    let changes = changes.iter().map(|(name, text)| (name.as_str(), SecretText::from(text.expose().to_owned())));
    secret.with(changes.collect())
}

impl Recipe {
    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        self.check(current.expose())?;
        match self.class {
            Class::Chosen => {
                let turn = if self.coexists() {
                    let turn = Turn::new(self, rotation, &[current]).await?;
                    turn.sweep(current, None).await?;
                    turn
                } else {
                    // What setSecret will want is missed before anything is staged.
                    if self.root.get("admin").is_some() {
                        admin::named(current)?
                            .ok_or_else(|| Error::config(Code::Field, "field \"adminarn\" is missing"))?;
                    }
                    Turn::with(self, rotation, &[current], None)?
                };
                let turned = changed(current, &turn.turned(current).await?);
                Ok(changed(&turned, &turn.chosen(&turned)?))
            }
            Class::Minted => {
                let turn = Turn::new(self, rotation, &[current]).await?;
                turn.sweep(current, None).await?;
                self.minted(&turn, current).await
            }
            Class::Slots => {
                let turn = Turn::new(self, rotation, &[current]).await?;
                let turned = changed(current, &turn.turned(current).await?);
                self.minted(&turn, &turned).await
            }
            Class::InPlace => {
                let turn = Turn::new(self, rotation, &[current]).await?;
                // A key that is dead already must not be used to make another: some services take that for a theft, and
                // revoke what the first use has made.
                turn.verify(current, Which::Current).await.map_err(|error| {
                    if !error.is_rejected() { return error }
                    error.hint("an earlier rotation may have lost the service's answer, and the new key with it: make a key by hand and put it into the secret")
                })?;
                self.minted(&turn, current).await
            }
            Class::Staged => {
                let message = format!("a person makes this key: {}", self.text("by_hand").unwrap_or_default());
                Err(Error::config(Code::ByHand, message).hint(format!(
                    "stage it, with all fields of the secret: `aws secretsmanager put-secret-value --secret-id {} --client-request-token {} --version-stages AWSPENDING --secret-string file://…`; the next try of this rotation goes on with it",
                    rotation.secret, rotation.token
                )))
            }
        }
    }

    async fn minted(&self, turn: &Turn<'_>, secret: &Secret) -> Result<Secret> {
        let request = &self.root["create"];
        // Where `read` does not tell the slots, it tells what the new key is to be like.
        let before = match self.root.get("read").filter(|read| read.get("holds").is_none()) {
            Some(read) => vec![("before", turn.before(secret, read, Vec::new()).await?)],
            None => Vec::new(),
        };
        let context = turn.context(secret, before)?;
        turn.rotation().changing();
        let asked = Asked { name: "create", request, which: turn.which() };
        let answer = turn.session.ask(asked, &context, &[]).await?;
        let mut answer = answer.map(|it| it.json()).transpose()?.unwrap_or_default();
        let taken = turn.take(&answer, request, &context);
        wipe(&mut answer);
        Ok(changed(secret, &taken?))
    }

    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        let Versions { current, pending, .. } = versions;
        self.check(pending.expose())?;
        if self.class != Class::Chosen {
            let turn = Turn::with(self, rotation, &[pending], None)?;
            return turn.known(pending, turn.within()).await;
        }
        let turn = Turn::new(self, rotation, &[pending, current]).await?;
        let mut more = vec![("current", self.seen(current.expose()))];
        if let Some(read) = self.root.get("read") {
            let before = turn.before(pending, read, more.clone()).await?;
            more.push(("before", before));
        }
        let request = &self.root["set"];
        let context = turn.context(pending, more)?;
        rotation.changing();
        let asked = Asked { name: "set", request, which: turn.which() };
        match turn.session.ask(asked, &context, &statuses(request, "exists")).await {
            // Who changes its own password has done so already, if the new one works.
            Err(error) if error.is_rejected() && turn.which() == Which::Current => {
                turn.verify(pending, Which::Pending).await.map_err(|_| error)
            }
            // A further key may be there from an earlier try, and not every service has a status for that.
            Err(error) if self.coexists() && !error.is_rejected() => {
                turn.verify(pending, Which::Pending).await.map_err(|_| error)
            }
            Err(error) => Err(error),
            Ok(_) => turn.known(pending, turn.within()).await,
        }
    }

    async fn revoke(&self, rotation: &Rotation<'_>, retired: &Secret) -> Result<()> {
        if self.revokes().is_empty() {
            return Ok(());
        }
        let turn = Turn::new(self, rotation, &[retired]).await?;
        let mut id = turn.id_of(retired, None)?;
        if id.is_none() {
            let listed = turn.listed(retired).await?;
            id = turn.id_of(retired, listed.as_deref())?;
        }
        if let Some(id) = id {
            return turn.withdraw(retired, &id).await;
        }
        let why = match self.id_field() {
            Some(field) => format!("its secret has no \"{field}\""),
            None => "the service's list does not have it".to_owned(),
        };
        rotation.note(format!("the key before this one is not withdrawn: {why}"));
        Ok(())
    }

    /// Whether two values of the secret are for keys of the same owner at the same service.
    fn same_owner(&self, left: Exposed<'_>, right: Exposed<'_>) -> bool {
        let rotated = |name: &str| self.rotated().any(|it| it == name) || self.other().as_deref() == Some(name);
        self.fields.iter().filter(|field| !rotated(&field.name)).all(|field| left.same(right, &field.name))
    }
}

impl Provider {
    /// # Errors
    /// Internal: the recipes that come with the program are tested.
    fn recipe(&self) -> Result<&Recipe> {
        if self.recipe.get().is_none() {
            let recipe = Recipe::read(self.text, true).map_err(|why| {
                let name = self.names.first().unwrap_or(&"");
                Error::new(Failure::Internal, Code::Recipe, format!("the recipe {name} cannot be used: {why}"))
            })?;
            let _ = self.recipe.set(recipe);
        }
        self.recipe.get().ok_or_else(|| Error::new(Failure::Internal, Code::Recipe, "there is no recipe"))
    }

    fn told(&self) -> &Told {
        self.told.get_or_init(|| match self.recipe() {
            Ok(recipe) => Told::of(recipe, self.names.first().copied().unwrap_or_default()),
            Err(_) => Told { summary: "", example: "{}", fields: &[], permissions: &[] },
        })
    }
}

fn kept(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

impl Told {
    fn of(recipe: &Recipe, name: &str) -> Self {
        let credential = recipe.credential();
        let mut fields: Vec<Field> = Vec::new();
        for described in &recipe.fields {
            let required = described.required || described.name == credential;
            let default = described.default.as_ref().and_then(scalar);
            let mut field = if required {
                Field::required(kept(&described.name), kept(&described.doc))
            } else {
                Field::setting(kept(&described.name), kept(&described.doc))
            };
            field.mounted = required || described.rotated;
            field.number = described.number;
            field.default = default.as_deref().map(kept);
            fields.push(field);
        }
        if let Some(other) = recipe.other() {
            let doc =
                "the other of two that take turns; without it there is one, whose old credential ends with the change";
            fields.push(Field::setting(kept(&other), doc));
        }
        let mut example = Map::new();
        example.insert("kind".to_owned(), name.into());
        example.extend(recipe.root.get("example").and_then(Value::as_object).cloned().unwrap_or_default());
        if recipe.root.get("admin").is_some() {
            fields.push(Field::setting("adminarn", "ARN of the secret of an administrator; also `masterarn`"));
            example.insert(
                "adminarn".to_owned(),
                json!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:admin-AbCdEf"),
            );
        }
        fields.extend([NETWORK, SSLROOTCERT]);
        let permissions = recipe.root.get("permissions").and_then(Value::as_array);
        let permissions: Vec<_> = permissions.into_iter().flatten().filter_map(Value::as_str).map(kept).collect();
        Self {
            summary: kept(recipe.text("summary").unwrap_or_default()),
            example: kept(&Value::Object(example).to_string()),
            fields: Box::leak(fields.into_boxed_slice()),
            permissions: Box::leak(permissions.into_boxed_slice()),
        }
    }
}

const NETWORK: Field =
    Field::setting("network", "`public` (the default), or `private`, which allows private addresses, and http to them");

#[async_trait]
impl Kind for Provider {
    fn names(&self) -> &'static [&'static str] {
        self.names
    }

    fn summary(&self) -> &'static str {
        self.told().summary
    }

    fn example(&self) -> &'static str {
        self.told().example
    }

    fn fields(&self) -> &'static [Field] {
        self.told().fields
    }

    fn permissions(&self) -> &'static [&'static str] {
        self.told().permissions
    }

    fn rotates(&self, _rotation: &Rotation<'_>, _current: &Secret) -> Result<Vec<String>> {
        let recipe = self.recipe()?;
        Ok(recipe.rotated().map(str::to_owned).chain(recipe.other()).collect())
    }

    fn mints(&self) -> bool {
        self.recipe().is_ok_and(|recipe| recipe.class != Class::Chosen || recipe.coexists())
    }

    /// A key of another owner was put there by hand, and one that both hold is in use.
    fn retires(&self, _rotation: &Rotation<'_>, current: &Secret, previous: &Secret) -> Result<bool> {
        let recipe = self.recipe()?;
        let (current, previous) = (current.expose(), previous.expose());
        let shared = |name: &str| current.value(name).is_some() && current.same(previous, name);
        let id = recipe.id_field().is_some_and(shared);
        Ok(!id && !shared(recipe.credential()) && recipe.same_owner(current, previous))
    }

    async fn create(&self, rotation: &Rotation<'_>, current: &Secret) -> Result<Secret> {
        self.recipe()?.create(rotation, current).await
    }

    async fn clear(&self, rotation: &Rotation<'_>, current: &Secret, pending: &Secret) -> Result<()> {
        let recipe = self.recipe()?;
        if recipe.class != Class::Minted && !recipe.coexists() {
            return Ok(());
        }
        Turn::new(recipe, rotation, &[current, pending]).await?.sweep(current, Some(pending)).await
    }

    async fn set(&self, rotation: &Rotation<'_>, versions: Versions<'_>) -> Result<()> {
        self.recipe()?.set(rotation, versions).await
    }

    async fn test(&self, rotation: &Rotation<'_>, pending: &Secret) -> Result<()> {
        let recipe = self.recipe()?;
        recipe.check(pending.expose())?;
        let turn = Turn::with(recipe, rotation, &[pending], None)?;
        turn.known(pending, turn.within().min(STILL_KNOWN_WITHIN)).await
    }

    async fn revoke(&self, rotation: &Rotation<'_>, retired: &Secret) -> Result<()> {
        self.recipe()?.revoke(rotation, retired).await
    }
}

/// A secret that brings its own recipe.
pub(super) struct Own;

const RECIPE: &str = "recipe";

const SSM: Service = Service {
    name: "Systems Manager",
    prefix: "ssm",
    signs_as: None,
    id: "SSM",
    protocol: Protocol::Json("AmazonSSM"),
    global: false,
};
const GET_PARAMETER: Operation =
    Operation { name: "GetParameter", action: "ssm:GetParameter", service: &SSM, repeatable: true };

#[async_trait]
impl Kind for Own {
    fn names(&self) -> &'static [&'static str] {
        &["http"]
    }

    fn summary(&self) -> &'static str {
        "the key of any HTTP API, by a recipe that the secret brings or names"
    }

    fn example(&self) -> &'static str {
        r#"{"kind":"http","recipe":"ssm:/keywheel/recipes/gateway","token":"…","token_id":"…","adminarn":"arn:aws:secretsmanager:…"}"#
    }

    fn fields(&self) -> &'static [Field] {
        const FIELDS: &[Field] = &[
            Field {
                mounted: false,
                ..Field::required(
                    RECIPE,
                    "the recipe: an object, a text in TOML, or `ssm:` and the name of a parameter that holds either",
                )
            },
            Field::setting("token", "the credential, under the name that the recipe's `fields` give it"),
            Field::setting("token_id", "as `token`; and whatever else the recipe's `fields` name"),
            Field::setting(
                "adminarn",
                "ARN of the secret of an administrator, if the recipe has `admin`; also `masterarn`",
            ),
            NETWORK,
            SSLROOTCERT,
        ];
        FIELDS
    }

    fn mints(&self) -> bool {
        true
    }

    /// What the recipes that come with keywheel ask for too: the template has one entry for all.
    fn permissions(&self) -> &'static [&'static str] {
        &[
            "ssm:GetParameter",
            "grafana:ListWorkspaceServiceAccountTokens",
            "grafana:CreateWorkspaceServiceAccountToken",
            "grafana:DeleteWorkspaceServiceAccountToken",
        ]
    }

    async fn of_secret(&self, rotation: &Rotation<'_>, secret: &Secret) -> Result<Option<Box<dyn Kind>>> {
        let fields = secret.expose();
        let fetched;
        let read = match fields.value(RECIPE) {
            Some(Value::Object(recipe)) => Recipe::of(Value::Object(recipe.clone()), false),
            Some(Value::String(text)) if text.starts_with("ssm:") => {
                fetched = parameter(rotation, &text["ssm:".len()..]).await?;
                written(fetched.expose())
            }
            _ => written(fields.required(RECIPE)?),
        };
        let recipe = read.map_err(|why| {
            Error::config(Code::Recipe, format!("the recipe cannot be used: {why}"))
                .hint("docs/recipes.md has the format, and its schema lets an editor check it")
        })?;
        let provider =
            Provider { names: self.names(), text: "", recipe: OnceLock::from(recipe), told: OnceLock::new() };
        Ok(Some(Box::new(provider)))
    }

    fn rotates(&self, _rotation: &Rotation<'_>, _current: &Secret) -> Result<Vec<String>> {
        Err(unread())
    }

    async fn create(&self, _rotation: &Rotation<'_>, _current: &Secret) -> Result<Secret> {
        Err(unread())
    }

    async fn set(&self, _rotation: &Rotation<'_>, _versions: Versions<'_>) -> Result<()> {
        Err(unread())
    }

    async fn test(&self, _rotation: &Rotation<'_>, _pending: &Secret) -> Result<()> {
        Err(unread())
    }
}

/// The engine asks [`Own::of_secret`] first.
fn unread() -> Error {
    Error::new(Failure::Internal, Code::Recipe, "the recipe has not been read")
}

/// A recipe as text: JSON or TOML.
fn written(text: &str) -> std::result::Result<Recipe, String> {
    if text.trim_start().starts_with('{') {
        let root = serde_json::from_str(text).map_err(|error| format!("line {} is not JSON", error.line()))?;
        return Recipe::of(root, false);
    }
    Recipe::read(text, false)
}

async fn parameter(rotation: &Rotation<'_>, name: &str) -> Result<SecretText> {
    let own = rotation.arn()?;
    let of = if name.starts_with("arn:") {
        rotation.check_account(name)?;
        name.to_owned()
    } else {
        format!("arn:{}:ssm:{}:{}:parameter/{}", own.partition, own.region, own.account, name.trim_start_matches('/'))
    };
    let input = json!({"Name": name, "WithDecryption": true});
    let request =
        Request { operation: &GET_PARAMETER, of: &of, region: own.region, input: Input::Json(&input), key: None };
    let answer = rotation.services.ask(&request).await.map_err(|refusal| {
        if refusal.code.as_deref() == Some("ParameterNotFound") {
            return Error::config(Code::Recipe, format!("there is no parameter {name:?} with the recipe"))
                .hint("put the recipe there with `aws ssm put-parameter`, or mend field \"recipe\"");
        }
        refusal.error
    })?;
    let text = answer.json().pointer("/Parameter/Value").and_then(Value::as_str);
    text.map(|it| SecretText::from(it.to_owned()))
        .ok_or_else(|| Error::transient(Code::Aws, "the answer to GetParameter cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
summary = "a key"
class = "minted"
auth = { bearer = "{{ admin.token }}" }
[fields]
key = { doc = "the key", rotated = true }
key_id = { doc = "its id", rotated = true }
[admin]
token = "a token that may make keys"
[create]
method = "POST"
url = "https://api.example.com/keys"
json = { name = "{{ key_name }}" }
take = { key = "/key", key_id = "/id" }
[revoke]
method = "DELETE"
url = "https://api.example.com/keys/{{ id }}"
[verify]
method = "GET"
url = "https://api.example.com/me"
auth = { bearer = "{{ secret.key }}" }
"#;

    #[test]
    fn a_mistake_is_named_with_its_key_and_what_is_expected() {
        assert!(Recipe::read(GOOD, false).is_ok());
        for (right, wrong, expected) in [
            ("class = \"minted\"", "class = \"mined\"", "`class` must be one of `chosen`, `minted`"),
            ("class = \"minted\"", "", "`class` is missing"),
            ("class = \"minted\"", "class = \"slots\"", "`alternate` is missing, which the class wants"),
            ("class = \"minted\"", "class = \"chosen\"", "`choose` is missing"),
            ("class = \"minted\"", "class = \"staged\"", "`by_hand` is missing"),
            ("summary = \"a key\"", "summary = \"\"", "`summary` must be a text that is not empty, and is empty"),
            ("summary = \"a key\"", "summary = 7", "`summary` must be a text, and is a number"),
            ("summary = \"a key\"", "colour = 7", "`colour` is no key of a recipe; one of `summary`, `class`"),
            ("method = \"POST\"", "method = \"BREW\"", "`create.method` must be one of `GET`"),
            ("method = \"POST\"", "method = \"POST\"\nbody = 1", "`create.body` is no key of a recipe"),
            ("method = \"POST\"", "", "`create.method` is missing: the method"),
            ("/keys/{{ id }}", "/keys/{{ id }", "`revoke.url`: the template cannot be read"),
            ("{{ key_name }}", "{{ key_name | }}", "`create.json.name`: the template cannot be read"),
            ("{{ admin.token }}", "{{ admin.token", "`auth.bearer`: the template cannot be read"),
            (
                "bearer = \"{{ admin.token }}\"",
                "bearer = \"x\", basic = [\"a\", \"b\"]",
                "`auth` must be a table with one of `bearer`",
            ),
            ("bearer = \"{{ admin.token }}\"", "token = \"x\"", "`auth.token` is no key"),
            ("key_id = \"/id\"", "other = \"/id\"", "`create.take.other` is no field with `rotated`"),
            ("key = \"/key\", ", "", "`create.take` does not give `key`, the first rotated field"),
            ("rotated = true }\nkey_id", "rotated = 1 }\nkey_id", "`fields.key.rotated` must be true or false"),
            ("[verify]", "[verify]\nwithin = 1000", "`verify.within` must be a whole number up to 120"),
            ("[verify]", "[verify]\nsuccess = [\"x\"]", "`verify.success[0]` must be a whole number"),
            ("class = \"minted\"", "class = \"minted\"\nkey_name = \"x\"", "`key_name` must end with"),
            ("class = \"minted\"", "class = minted", "line 3 is not TOML"),
        ] {
            assert!(GOOD.contains(right), "{right}");
            let error = Recipe::read(&GOOD.replacen(right, wrong, 1), false).err().unwrap_or_default();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }

    #[test]
    fn values_are_chosen_as_the_recipe_says() {
        let uuid = uuid().unwrap();
        let parts: Vec<_> = uuid.expose().split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(uuid.expose().as_bytes()[14] == b'4' && b"89ab".contains(&uuid.expose().as_bytes()[19]));
        let text = alphanumeric(500).unwrap();
        assert!(text.expose().len() == 500 && text.expose().bytes().all(|it| it.is_ascii_alphanumeric()));
    }

    #[test]
    fn every_recipe_can_be_read() {
        for (name, _, text) in RECIPES {
            let recipe = Recipe::read(text, true).unwrap_or_else(|why| panic!("{name}: {why}"));
            let permissions = recipe.root.get("permissions").and_then(Value::as_array).into_iter().flatten();
            for action in permissions.filter_map(Value::as_str) {
                assert!(Own.permissions().contains(&action), "{name}: {action}, which the template does not give");
            }
            for key in ["docs", "checked", "example", "prefer"] {
                assert!(recipe.root.get(key).is_some(), "{name} has no `{key}`");
            }
            let file = format!("{}/src/kinds/http/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let whole: Value = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
            assert!(whole["exchange"].is_array() && recipe.root.get("exchange").is_none(), "{name}");
            let recipes = Recipe::of(whole, true).map(drop);
            assert!(recipes.is_ok(), "{name}: {recipes:?}");
        }
    }
}
