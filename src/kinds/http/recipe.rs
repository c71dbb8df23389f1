//! A recipe that has been read and checked, and what it says.

use serde_json::{Map, Value};

use super::format;
use super::template::{Context, Templates, object, to_jinja};
use crate::error::{Code, Error, Result};
use crate::secret::Exposed;

/// The name of a new key, unless the recipe says another: whose it is, and of which rotation.
const KEY_NAME: &str = "keywheel-{{ owner }}-{{ token }}";

/// Who makes the value, and what becomes of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
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
pub(super) struct Described {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) required: bool,
    pub(super) rotated: bool,
    pub(super) number: bool,
    pub(super) default: Option<Value>,
}

/// A recipe that has been checked.
pub(super) struct Recipe {
    pub(super) root: Value,
    pub(super) templates: Templates,
    pub(super) class: Class,
    pub(super) fields: Vec<Described>,
    /// Whether it came with this program. The author of any other is the author of a secret.
    pub(super) trusted: bool,
}

impl Recipe {
    pub(super) fn read(text: &str, trusted: bool) -> std::result::Result<Self, String> {
        let root = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |at| text[..at.start].lines().count().max(1));
            // The text may be a secret's, and the message quotes it.
            format!("line {line} is not TOML")
        })?;
        Self::of(root, trusted)
    }

    /// # Errors
    /// What is wrong, with the key.
    pub(super) fn of(root: Value, trusted: bool) -> std::result::Result<Self, String> {
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
    pub(super) fn consistent(&self) -> std::result::Result<(), String> {
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

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.root.get(key)?.as_str()
    }

    pub(super) fn whole(&self, key: &str) -> Option<u64> {
        self.root.get(key)?.as_u64()
    }

    pub(super) fn coexists(&self) -> bool {
        self.root.get("coexist").and_then(Value::as_bool).unwrap_or_default()
    }

    pub(super) fn key_name(&self) -> &str {
        self.text("key_name").unwrap_or(KEY_NAME)
    }

    pub(super) fn rotated(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|field| field.rotated).map(|field| field.name.as_str())
    }

    /// The field that is the credential.
    pub(super) fn credential(&self) -> &str {
        self.rotated().next().unwrap_or_default()
    }

    pub(super) fn alternate(&self, key: &str) -> Option<&str> {
        self.root.get("alternate")?.get(key)?.as_str()
    }

    /// The fixed slots.
    pub(super) fn slots(&self) -> Option<Vec<&str>> {
        let values = self.root.get("alternate")?.get("values")?.as_array()?;
        Some(values.iter().filter_map(Value::as_str).collect())
    }

    /// The name of the field that has the other user, where it is not one of two fixed ones.
    pub(super) fn other(&self) -> Option<String> {
        if self.slots().is_some() { None } else { self.alternate("field").map(|field| format!("alternate_{field}")) }
    }

    pub(super) fn revokes(&self) -> Vec<&Value> {
        match self.root.get("revoke") {
            Some(Value::Array(all)) => all.iter().collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        }
    }

    /// The field that has a key's id.
    pub(super) fn id_field(&self) -> Option<&str> {
        let said = self.revokes().first()?.get("id").and_then(Value::as_str);
        match said {
            Some(said) => self.rotated().find(|it| *it == said),
            None if self.matches().is_some() => None,
            None => self.rotated().nth(1),
        }
    }

    /// By which fields a key is found in a list.
    pub(super) fn matches(&self) -> Option<&Map<String, Value>> {
        self.root.get("list")?.get("match")?.as_object()
    }

    /// The error for a recipe that does not fit; `key` says where in it.
    pub(super) fn unusable(key: &str, why: &str) -> Error {
        Error::config(Code::Recipe, format!("`{key}` of the recipe cannot be used: {why}"))
            .hint("compare the fields of the secret, and of the administrator's, with those that the recipe uses")
    }

    /// What templates see: fields, and defaults for those that are absent.
    pub(super) fn seen(&self, secret: Exposed<'_>) -> Context {
        let defaults = self.fields.iter().filter(|field| secret.value(&field.name).is_none());
        let defaults = defaults.filter_map(|field| Some((field.name.clone(), to_jinja(field.default.as_ref()?))));
        let fields = secret.names().filter_map(|name| Some((name.to_owned(), to_jinja(secret.value(name)?))));
        object(fields.chain(defaults))
    }

    /// Fields are there and of their types. Where it is used, `alternate_…` too.
    pub(super) fn check(&self, secret: Exposed<'_>) -> Result<()> {
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

/// A number or a text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
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
}
