//! The format of recipes: one table says what there is, checks a recipe, and makes the JSON schema that editors complete by.

use serde_json::{Map, Value, json};

use super::template::Templates;

/// One key of a table.
pub(super) struct Key {
    name: &'static str,
    doc: &'static str,
    required: bool,
    of: Of,
}

/// What a value may be.
pub(super) enum Of {
    Text,
    Template,
    Flag,
    /// A whole number that is not negative, up to this.
    Whole(u64),
    Choice(&'static [&'static str]),
    List(&'static Self),
    /// A table with names of the author's.
    Map(&'static Self),
    Table(&'static [Key]),
    /// A table, or several.
    Tables(&'static [Key]),
    /// A table with exactly one of its keys.
    One(&'static [Key]),
    /// This word, or else.
    Or(&'static str, &'static Self),
    /// Any JSON; texts inside are templates.
    Templates,
    /// A text or a number.
    Scalar,
    /// Any JSON.
    Anything,
}

use Of::{Anything, Choice, Flag, List, One, Or, Scalar, Table, Tables, Template, Text, Whole};

const fn may(name: &'static str, of: Of, doc: &'static str) -> Key {
    Key { name, doc, required: false, of }
}

const fn must(name: &'static str, of: Of, doc: &'static str) -> Key {
    Key { name, doc, required: true, of }
}

const STATUSES: Of = List(&Whole(599));
const POINTERS: Of = Of::Map(&Template);
const TEXTS: Of = Of::Map(&Template);

const OAUTH2: &[Key] = &[
    must("url", Template, "the token endpoint"),
    must("client_id", Template, "the client"),
    must("client_secret", Template, "its secret"),
    may("form", TEXTS, "further parameters, such as `scope`"),
    may(
        "style",
        Choice(&["form", "basic", "json"]),
        "where client and secret are sent: in a form (without it), in the header, or as JSON",
    ),
];

const SIGV4: &[Key] = &[
    must("service", Text, "the service's name in signatures"),
    must("region", Template, "the Region"),
    may(
        "access_key_id",
        Template,
        "without it, the function's role signs, which only the recipes that come with keywheel may ask for",
    ),
    may("secret_access_key", Template, "the key's secret"),
];

const AUTH: Of = Or(
    "none",
    &One(&[
        may("bearer", Template, "the header `authorization: Bearer …`"),
        may("basic", List(&Template), "user and password of basic authentication"),
        may("header", TEXTS, "headers of the service's own"),
        may("oauth2", Table(OAUTH2), "client credentials of OAuth 2: a token is fetched for every request"),
        may("sigv4", Table(SIGV4), "a signature of AWS, version 4"),
    ]),
);

macro_rules! request {
    ($($more:expr),* $(,)?) => {
        &[
            must("method", Choice(&["GET", "POST", "PUT", "PATCH", "DELETE"]), "the method"),
            must("url", Template, "values are percent-encoded, but for one at the very beginning, which is a URL itself"),
            may("query", TEXTS, "query parameters; one whose value is none is left out"),
            may("headers", TEXTS, "further headers"),
            may("json", Of::Templates, "the body as JSON; a text that is one expression keeps its type, and is left out if it is none"),
            may("form", TEXTS, "the body as a form"),
            may("auth", AUTH, "instead of the recipe's"),
            may("success", STATUSES, "the statuses of success; without it, every 2xx"),
            may("refused", STATUSES, "the statuses that mean that the credential is refused; without it, 401 and 403"),
            may("later", STATUSES, "further statuses that mean that the service cannot now; 408, 425, 429 and 5xx always do"),
            may("repeat", Flag, "whether a POST may be sent again after a lost answer; other methods always may"),
            $($more),*
        ]
    };
}

const CREATE: &[Key] = request![
    must("take", POINTERS, "which fields of the secret get what of the answer: JSON Pointers"),
    may("limit", STATUSES, "the statuses that mean that there are too many keys"),
];
const LIST: &[Key] = request![
    must("items", Template, "JSON Pointer to the list in the answer; empty if it is the answer"),
    must("id", Template, "JSON Pointer to the id in an item"),
    may("name", Template, "JSON Pointer to the name in an item"),
    may(
        "created",
        Template,
        "JSON Pointer to when it was made (RFC 3339), where keys have no names: what is not older than the rotation, and not in use, is left over from it"
    ),
    may("used", Template, "JSON Pointer to when it was last used, with `created`: one that was used is left alone"),
    may(
        "next",
        Template,
        "JSON Pointer to what `page` is for the next request; there is none if that is absent, null, false or empty"
    ),
    may("offset", Flag, "whether `page` is how many items there were so far; an empty page ends the list"),
    may(
        "match",
        POINTERS,
        "field of the secret = JSON Pointer in an item: how a key is known whose id the secret does not have"
    ),
];
const REVOKE: &[Key] = request![
    may("gone", STATUSES, "the statuses that mean that it is gone already; without it, 404 and 410"),
    may(
        "id",
        Text,
        "the field that has the key's id, in the first of several; without it, the second rotated field, or none if `list.match` finds the key"
    ),
];
const VERIFY: &[Key] = request![
    may("identity", TEXTS, "JSON Pointer = what must be there, else the key is somebody else's"),
    may("within", Whole(120), "seconds that a new key may take to be known; without it, 10"),
];
const SET: &[Key] = request![may("exists", STATUSES, "the statuses that mean that the value is there already")];
const READ: &[Key] = request![may("holds", POINTERS, "slot = JSON Pointer to the key that it holds")];

const FIELD: &[Key] = &[
    must("doc", Text, "what it is, in one line"),
    may("required", Flag, "whether a secret without it is refused"),
    may("rotated", Flag, "whether a rotation changes it; the first such is the credential itself"),
    may("number", Flag, "whether it is a number"),
    may("default", Scalar, "what templates see where it is absent"),
];

const CHOOSE: &[Key] = &[
    must(
        "characters",
        Choice(&["password", "alphanumeric", "hex", "base64url", "uuid", "name"]),
        "`password` is by the function's own rules, `name` the name of the key",
    ),
    may("length", Whole(1024), "without the prefix"),
    may("prefix", Text, "what it begins with"),
];

const ALTERNATE: &[Key] = &[
    must("field", Text, "the rotated field that alternates"),
    may("values", List(&Text), "its two values; without them, the other is in the field `alternate_…`"),
    may("required", Flag, "whether the field `alternate_…` must be there"),
];

const EXCHANGE: &[Key] = &[
    must("of", Choice(&["create", "list", "revoke", "verify", "set", "read", "oauth2"]), "which request"),
    must("request", Anything, "the request as the vendor documents it"),
    must("response", Anything, "the answer"),
    may("each", Anything, "one item of a list"),
    may("refused", Anything, "the answer to a bad credential"),
    may("missing", Anything, "the answer for what is not there"),
];

/// A whole recipe.
pub(super) const RECIPE: &[Key] = &[
    must("summary", Text, "what the credential is, in one line"),
    must(
        "class",
        Choice(&["chosen", "minted", "slots", "in-place", "staged"]),
        "who makes the value, and how many may coexist",
    ),
    may("docs", List(&Text), "the vendor's pages"),
    may("checked", Text, "the date on which the recipe was compared with them"),
    may("experimental", Text, "what could not be confirmed"),
    may("prefer", Text, "what serves better, and when to use the recipe"),
    may("limit", Whole(100_000), "how many keys may coexist at the service"),
    may("coexist", Flag, "for `chosen`: whether the value is a further key beside the old one"),
    may("key_name", Template, "the name of a new key; must end with the token, `{{ token }}`"),
    may("by_hand", Text, "for `staged`: where a person makes the key"),
    may("permissions", List(&Text), "IAM actions, for requests that the function's role signs"),
    may("headers", TEXTS, "headers of all requests"),
    may("auth", AUTH, "how all requests are authenticated; `verify` only in a recipe without `admin`"),
    may("message", Template, "JSON Pointer to the message of an error; the usual places need not be told"),
    may("timeout", Whole(60), "seconds for one request; without it, 10"),
    must("fields", Of::Map(&Table(FIELD)), "the fields of the secret, in the order of the documentation"),
    may(
        "admin",
        Of::Map(&Text),
        "the fields of the administrator's secret; without it, the secret itself authenticates",
    ),
    may("example", Of::Map(&Scalar), "a secret, for documentation and tests"),
    may("admin_example", Of::Map(&Scalar), "an administrator's secret, for tests"),
    may("choose", Of::Map(&Table(CHOOSE)), "for `chosen`: the values that are made here"),
    may("alternate", Table(ALTERNATE), "two users or slots that take turns"),
    may("create", Table(CREATE), "makes a key"),
    may("list", Table(LIST), "finds the keys that are there"),
    may("revoke", Tables(REVOKE), "withdraws a key, in one request or several"),
    may("set", Table(SET), "for `chosen`: puts the value into force"),
    may(
        "read",
        Table(READ),
        "asked before `set` or `create`, whose templates see the answer as `before`; or which slot holds which key",
    ),
    must("verify", Table(VERIFY), "signs in with the key"),
    may("exchange", Tables(EXCHANGE), "the vendor's documented example, from which a stand-in is made for the tests"),
];

/// Whether `value` is a recipe as far as keys and types tell; the message names the key.
pub(super) fn check(value: &Value, templates: &Templates) -> Result<(), String> {
    Of::check(&Table(RECIPE), value, "", templates)
}

impl Of {
    fn check(&self, value: &Value, path: &str, templates: &Templates) -> Result<(), String> {
        let wrong = |expected: &str| Err(format!("`{path}` must be {expected}, and is {}", kind(value)));
        let template = |text: &str| templates.check(text).map_err(|error| format!("`{path}`: {error}"));
        match (self, value) {
            (Self::Text, Value::String(text)) if text.is_empty() => wrong("a text that is not empty"),
            (Self::Text, Value::String(_))
            | (Self::Flag, Value::Bool(_))
            | (Self::Scalar, Value::String(_) | Value::Number(_))
            | (Self::Anything, _)
            | (Self::Templates, Value::Null | Value::Bool(_) | Value::Number(_)) => Ok(()),
            (Self::Template | Self::Templates, Value::String(text)) => template(text),
            (Self::Whole(most), Value::Number(number)) if number.as_u64().is_some_and(|it| it <= *most) => Ok(()),
            (Self::Choice(words), Value::String(text)) if words.contains(&text.as_str()) => Ok(()),
            (Self::List(of), Value::Array(items)) => {
                items.iter().enumerate().try_for_each(|(at, it)| of.check(it, &format!("{path}[{at}]"), templates))
            }
            (Self::Map(of), Value::Object(fields)) => {
                fields.iter().try_for_each(|(name, it)| of.check(it, &join(path, name), templates))
            }
            (Self::Table(keys) | Self::Tables(keys), Value::Object(fields)) => table(keys, fields, path, templates),
            (Self::Tables(keys), Value::Array(items)) if !items.is_empty() => {
                let one = |(at, it): (usize, &Value)| Table(keys).check(it, &format!("{path}[{at}]"), templates);
                items.iter().enumerate().try_for_each(one)
            }
            (Self::One(keys), Value::Object(fields)) if fields.len() == 1 => table(keys, fields, path, templates),
            (Self::One(keys), Value::Object(_)) => wrong(&format!("a table with one of {}", names(keys))),
            (Self::Or(word, _), Value::String(text)) if text == word => Ok(()),
            (Self::Or(_, of), Value::Object(_)) => of.check(value, path, templates),
            (Self::Templates, Value::Array(items)) => {
                items.iter().enumerate().try_for_each(|(at, it)| self.check(it, &format!("{path}[{at}]"), templates))
            }
            (Self::Templates, Value::Object(fields)) => {
                fields.iter().try_for_each(|(name, it)| self.check(it, &join(path, name), templates))
            }
            _ => wrong(&self.expected()),
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::Text | Self::Template => "a text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Whole(most) => format!("a whole number up to {most}"),
            Self::Choice(words) => format!("one of {}", quoted(words.iter())),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) | Self::Table(_) | Self::One(_) => "a table".to_owned(),
            Self::Tables(_) => "a table, or a list of tables".to_owned(),
            Self::Or(word, _) => format!("\"{word}\" or a table"),
            Self::Scalar => "a text or a number".to_owned(),
            Self::Templates | Self::Anything => "JSON".to_owned(),
        }
    }

    fn schema(&self) -> Value {
        match self {
            Self::Text => json!({"type": "string", "minLength": 1}),
            Self::Template => json!({"type": "string"}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Whole(most) => json!({"type": "integer", "minimum": 0, "maximum": most}),
            Self::Choice(words) => json!({"enum": words}),
            Self::List(of) => json!({"type": "array", "items": of.schema()}),
            Self::Map(of) => json!({"type": "object", "additionalProperties": of.schema()}),
            Self::Table(keys) => {
                let properties: Map<_, _> = keys
                    .iter()
                    .map(|key| {
                        let mut schema = key.of.schema();
                        schema["description"] = key.doc.into();
                        (key.name.to_owned(), schema)
                    })
                    .collect();
                let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }
            Self::Tables(keys) => {
                let one = Table(keys).schema();
                json!({"oneOf": [one.clone(), {"type": "array", "items": one, "minItems": 1}]})
            }
            Self::One(keys) => {
                let mut schema = Table(keys).schema();
                schema["minProperties"] = 1.into();
                schema["maxProperties"] = 1.into();
                schema
            }
            Self::Or(word, of) => json!({"oneOf": [{"const": word}, of.schema()]}),
            Self::Scalar => json!({"type": ["string", "number"]}),
            Self::Templates | Self::Anything => json!({}),
        }
    }
}

fn table(keys: &[Key], fields: &Map<String, Value>, path: &str, templates: &Templates) -> Result<(), String> {
    for (name, value) in fields {
        let at = join(path, name);
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            return Err(format!("`{at}` is no key of a recipe; one of {}", names(keys)));
        };
        key.of.check(value, &at, templates)?;
    }
    match keys.iter().find(|key| key.required && !fields.contains_key(key.name)) {
        Some(key) => Err(format!("`{}` is missing: {}", join(path, key.name), key.doc)),
        None => Ok(()),
    }
}

/// The JSON schema of recipes.
#[must_use]
pub fn schema() -> Value {
    let mut schema = Table(RECIPE).schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "A recipe of keywheel".into();
    schema
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn names(keys: &[Key]) -> String {
    quoted(keys.iter().map(|key| &key.name))
}

fn quoted<'a>(words: impl Iterator<Item = &'a &'static str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(text) if text.is_empty() => "empty",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}
