//! Secret values: read through `expose` alone, wiped on drop, never printed.
//!
//! [`Secret`] and [`SecretText`] have no `Debug`, `Display`, `Clone` or `Serialize`, so a secret cannot slip into a log.
//! `grep expose` lists every place that sees one. Copies inside the AWS SDK and the database drivers are out of reach.

use serde_json::{Map, Value};
use zeroize::Zeroize;

use crate::error::{Code, Error, Result};

/// A text that is wiped on drop.
pub struct SecretText(String);

impl SecretText {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The value of one version of a secret: a JSON object with all its fields, types and their order, or a bare string.
pub struct Secret(Document);

enum Document {
    Object(Map<String, Value>),
    Bare(SecretText),
}

impl Secret {
    /// Reads a `SecretString`. What does not begin with `{` is a bare string.
    ///
    /// # Errors
    /// Config, when the text begins as a JSON object and is none. The message has line and column, not the text.
    pub fn parse(text: String) -> Result<Self> {
        let text = SecretText(text);
        if !text.0.trim_start().starts_with('{') {
            return Ok(Self(Document::Bare(text)));
        }
        serde_json::from_str(&text.0).map(|fields| Self(Document::Object(fields))).map_err(|error| {
            // serde's own message may quote the value.
            Error::config(
                Code::Value,
                format!("the secret value is not valid JSON at line {} column {}", error.line(), error.column()),
            )
            .hint("put the value again as a JSON object")
        })
    }

    /// The only way to what is inside.
    #[must_use]
    pub fn expose(&self) -> Exposed<'_> {
        Exposed(&self.0)
    }

    /// A copy in which `changes` replace or add fields. A bare string is replaced by the change named `""`.
    #[must_use]
    pub fn with(&self, changes: Vec<(&str, SecretText)>) -> Self {
        match &self.0 {
            Document::Object(fields) => {
                let mut fields = fields.clone();
                for (name, text) in changes {
                    if let Some(Value::String(old)) = fields.get_mut(name) {
                        old.zeroize();
                    }
                    fields.insert(name.to_owned(), Value::String(text.expose().to_owned()));
                }
                Self(Document::Object(fields))
            }
            Document::Bare(old) => {
                let text = changes.into_iter().find(|(name, _)| name.is_empty()).map(|(_, text)| text);
                Self(Document::Bare(text.unwrap_or_else(|| SecretText(old.0.clone()))))
            }
        }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        if let Document::Object(fields) = &mut self.0 {
            fields.values_mut().for_each(wipe);
        }
    }
}

/// Wipes every text in it.
pub(crate) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A view into a [`Secret`].
#[derive(Clone, Copy)]
pub struct Exposed<'a>(&'a Document);

impl<'a> Exposed<'a> {
    /// Whether this is a bare string.
    #[must_use]
    pub fn is_bare(self) -> bool {
        matches!(self.0, Document::Bare(_))
    }

    /// A field of any type; `None` when absent, `null` or a bare string. The name `""` is the bare string's.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a Value> {
        match self.0 {
            Document::Object(fields) => fields.get(name).filter(|value| !value.is_null()),
            Document::Bare(_) => None,
        }
    }

    /// A text that may be absent.
    ///
    /// # Errors
    /// Config, when the field is there and no string.
    pub fn optional(self, name: &str) -> Result<Option<&'a str>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, "a string", other)),
        }
    }

    /// A text that is there and not empty.
    ///
    /// # Errors
    /// Config, when the field is there and no string.
    pub fn filled(self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.optional(name)?.filter(|text| !text.is_empty()))
    }

    /// A text that must be there and not empty. The name `""` is the bare string itself.
    ///
    /// # Errors
    /// Config, when the field is missing, empty or no string.
    pub fn required(self, name: &str) -> Result<&'a str> {
        if let (Document::Bare(text), "") = (self.0, name) {
            return Ok(text.expose());
        }
        match self.optional(name)? {
            Some("") => Err(Error::config(Code::Field, format!("field \"{name}\" is empty"))),
            Some(text) => Ok(text),
            None => Err(Error::config(Code::Field, format!("field \"{name}\" is missing"))),
        }
    }

    /// A whole number between `low` and `high`, as JSON number or as text with digits, as AWS's functions take it.
    ///
    /// # Errors
    /// Config, when the field is there and no such number.
    pub fn number(self, name: &str, low: u32, high: u32) -> Result<Option<u32>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let parsed = match value {
            // 5432.0 is the same number, and languages without whole numbers write it so.
            Value::Number(number) => number.to_string().trim_end_matches(".0").parse::<u32>().ok(),
            Value::String(text) => text.trim().parse::<u32>().ok(),
            other => return Err(wrong_type(name, "a number", other)),
        };
        match parsed {
            Some(number) if (low..=high).contains(&number) => Ok(Some(number)),
            _ => {
                Err(Error::config(Code::Field, format!("field \"{name}\" must be a whole number from {low} to {high}")))
            }
        }
    }

    /// The names of the fields, in order.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        let fields = match self.0 {
            Document::Object(fields) => Some(fields.keys().map(String::as_str)),
            Document::Bare(_) => None,
        };
        fields.into_iter().flatten()
    }

    /// The first field in which `self` and `other` differ, other than `allowed`; `None` if they are alike.
    /// A bare string counts as the field `""`; an object and a bare string differ in `(the whole value)`.
    #[must_use]
    pub fn difference(self, other: Exposed<'_>, allowed: &[String]) -> Option<String> {
        let allowed = |name: &str| allowed.iter().any(|field| field == name);
        match (self.0, other.0) {
            (Document::Object(left), Document::Object(right)) => left
                .keys()
                .chain(right.keys())
                .find(|name| !allowed(name) && left.get(*name) != right.get(*name))
                .cloned(),
            (Document::Bare(left), Document::Bare(right)) => {
                (!allowed("") && left.0 != right.0).then(|| "(the whole value)".to_owned())
            }
            _ => Some("(the whole value)".to_owned()),
        }
    }

    /// Whether `self` and `other` hold the same text in the field.
    #[must_use]
    pub fn same(self, other: Exposed<'_>, name: &str) -> bool {
        match (self.0, other.0) {
            (Document::Object(left), Document::Object(right)) => left.get(name) == right.get(name),
            (Document::Bare(left), Document::Bare(right)) => left.0 == right.0,
            _ => false,
        }
    }

    /// The `SecretString` to store.
    #[must_use]
    pub fn to_text(self) -> SecretText {
        match self.0 {
            Document::Object(fields) => {
                // Room for the usual secret at once: growing would leave copies behind.
                let mut text = Vec::with_capacity(16 * 1024);
                match serde_json::to_writer(&mut text, fields) {
                    Ok(()) => SecretText(String::from_utf8(text).unwrap_or_default()),
                    // Maps with text keys always serialise.
                    Err(_) => SecretText(String::new()),
                }
            }
            Document::Bare(text) => SecretText(text.0.clone()),
        }
    }
}

fn wrong_type(name: &str, expected: &str, found: &Value) -> Error {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Error::config(Code::Field, format!("field \"{name}\" must be {expected}, and is {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(Secret: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(SecretText: std::fmt::Debug, std::fmt::Display, Clone, serde::Serialize);
    assert_not_impl_any!(Exposed<'_>: std::fmt::Debug, std::fmt::Display, serde::Serialize);

    fn secret(text: &str) -> Secret {
        Secret::parse(text.to_owned()).unwrap()
    }

    #[test]
    fn unknown_fields_types_order_and_digits_survive() {
        let text = r#"{"z":1,"password":"old","port":5432,"big":123456789012345678901234567890,"f":1.10,"n":null,"o":{"b":[true],"a":1e400}}"#;
        let changed = secret(text).with(vec![("password", SecretText::from("new".to_owned()))]);
        let expected = text.replace("\"old\"", "\"new\"").replace("1e400", "1e+400");
        assert_eq!(changed.expose().to_text().expose(), expected);
    }

    #[test]
    fn broken_json_gives_the_place_and_not_the_text() {
        let error = Secret::parse("{\"password\": \"marked-value\" oops".to_owned()).err().unwrap().to_string();
        assert!(error.contains("line 1 column") && !error.contains("marked"), "{error}");
    }

    #[test]
    fn fields_are_typed() {
        let secret = secret(r#"{"host":"h","empty":"","port":"5432","bad":"54x","list":[1],"frac":1.5,"null":null}"#);
        let fields = secret.expose();
        assert_eq!(fields.required("host").unwrap(), "h");
        assert_eq!(fields.number("port", 1, 65535).unwrap(), Some(5432));
        assert_eq!(fields.number("absent", 1, 65535).unwrap(), None);
        assert_eq!(fields.optional("null").unwrap(), None);
        for (result, expected) in [
            (fields.required("absent").map(drop), "field \"absent\" is missing"),
            (fields.required("null").map(drop), "field \"null\" is missing"),
            (fields.required("empty").map(drop), "field \"empty\" is empty"),
            (fields.required("list").map(drop), "field \"list\" must be a string, and is an array"),
            (fields.number("bad", 1, 65535).map(drop), "field \"bad\" must be a whole number from 1 to 65535"),
            (fields.number("frac", 1, 65535).map(drop), "field \"frac\" must be a whole number"),
            (fields.number("port", 1, 80).map(drop), "field \"port\" must be a whole number from 1 to 80"),
            (fields.number("list", 1, 80).map(drop), "field \"list\" must be a number, and is an array"),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn difference_names_the_field() {
        let left = secret(r#"{"host":"a","password":"p"}"#);
        let allowed = ["password".to_owned()];
        for (right, expected) in [
            (r#"{"password":"q","host":"a"}"#, None),
            (r#"{"host":"b","password":"p"}"#, Some("host")),
            (r#"{"host":"a","password":"p","x":1}"#, Some("x")),
            (r#"{"password":"p"}"#, Some("host")),
            ("bare", Some("(the whole value)")),
        ] {
            let right = secret(right);
            assert_eq!(left.expose().difference(right.expose(), &allowed).as_deref(), expected);
        }
        assert_eq!(secret("a").expose().difference(secret("b").expose(), &[String::new()]), None);
    }
}
