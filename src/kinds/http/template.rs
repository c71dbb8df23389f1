//! Templates in recipes. What is put into a URL is percent-encoded, and what is put into JSON is put there as a value, so
//! nothing in a secret can become a part of a path or a body that the recipe did not foresee.
//!
//! Errors name what is wrong and never what a value is. Copies of values inside the template engine are out of reach of
//! wiping.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use aws_smithy_types::date_time::{DateTime, Format};
use data_encoding::BASE64;
use minijinja::value::{Rest, Value as Jinja, ValueKind};
use minijinja::{AutoEscape, Environment, Error as JinjaError, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Number, Value};

/// What went wrong, without any value.
type Result<T> = std::result::Result<T, String>;

/// For one template: a recipe needs some dozens of instructions, and its author may be anybody who writes a secret.
const FUEL: u64 = 5_000;
const URL: &str = "url";

/// The engine.
pub(super) struct Templates(Environment<'static>);

/// What templates see.
pub(super) type Context = Jinja;

impl Templates {
    pub(super) fn new() -> Self {
        let mut engine = Environment::empty();
        engine.set_undefined_behavior(UndefinedBehavior::Strict);
        engine.set_fuel(Some(FUEL));
        engine.set_auto_escape_callback(
            |name| if name == URL { AutoEscape::Custom(URL.into()) } else { AutoEscape::None },
        );
        engine.set_formatter(|out, state, value| {
            let text = match value.kind() {
                ValueKind::String | ValueKind::Number => value.to_string(),
                ValueKind::Bool => value.is_true().to_string(),
                _ => return Err(JinjaError::new(ErrorKind::UndefinedError, "")),
            };
            let text = match state.auto_escape() {
                AutoEscape::None => text,
                _ if matches!(text.as_str(), "" | "." | "..") => {
                    return Err(JinjaError::new(ErrorKind::InvalidOperation, ""));
                }
                _ => percent_encoded(&text),
            };
            out.write_str(&text).map_err(JinjaError::from)
        });
        engine.add_filter("default", |value: Jinja, other: Rest<Jinja>| {
            if value.is_undefined() || value.is_none() { other.first().cloned().unwrap_or_default() } else { value }
        });
        engine.add_filter("lower", |text: String| text.to_lowercase());
        engine.add_filter("upper", |text: String| text.to_uppercase());
        engine.add_filter("replace", |text: String, from: String, to: String| text.replace(&from, &to));
        engine.add_filter("base64", |text: String| BASE64.encode(text.as_bytes()));
        engine.add_filter("int", |value: Jinja| {
            let number = value.to_string().parse::<i64>();
            number.map_err(|_| JinjaError::new(ErrorKind::InvalidOperation, ""))
        });
        engine.add_filter("join", |values: Jinja, between: String| -> std::result::Result<String, JinjaError> {
            Ok(values.try_iter()?.map(|it| it.to_string()).collect::<Vec<_>>().join(&between))
        });
        engine.add_test("defined", |value: Jinja| !value.is_undefined());
        engine.add_function("date", |days: i64| formatted(days).map(|text| text[..10].to_owned()));
        engine.add_function("timestamp", formatted);
        engine.add_function("epoch", |days: i64| in_days(days).secs());
        Self(engine)
    }

    /// Whether the text can be read as a template.
    pub(super) fn check(&self, template: &str) -> Result<()> {
        self.0.template_from_str(template).map(drop).map_err(|error| why(&error))
    }

    pub(super) fn text(&self, template: &str, context: &Context) -> Result<String> {
        self.0.render_named_str("text", template, context.clone()).map_err(|error| why(&error))
    }

    /// As [`text`](Self::text); `None` for a template that is one expression whose value is none.
    pub(super) fn optional(&self, template: &str, context: &Context) -> Result<Option<String>> {
        match self.expression(template, context)? {
            Some(value) if value.is_none() => Ok(None),
            _ => self.text(template, context).map(Some),
        }
    }

    /// A URL: what the template begins with, if that is an expression, is a URL itself; all other values are encoded.
    pub(super) fn url(&self, template: &str, context: &Context) -> Result<String> {
        let base = template.starts_with("{{").then(|| template.find("}}").map(|at| at + 2)).flatten().unwrap_or(0);
        let (base, rest) = template.split_at(base);
        let mut url = self.text(base, context)?;
        if url.contains(['?', '#', '@', '\\']) {
            return Err("the URL that it begins with must be one of a host, with a path at most".to_owned());
        }
        url.truncate(url.trim_end_matches('/').len());
        url.push_str(&self.0.render_named_str(URL, rest, context.clone()).map_err(|error| why(&error))?);
        Ok(url)
    }

    /// JSON in which every text is a template. One that is a single expression keeps the type of its value, and what it is
    /// the value of is left out if that is none.
    pub(super) fn json(&self, template: &Value, context: &Context) -> Result<Option<Value>> {
        Ok(Some(match template {
            Value::String(text) => match self.expression(text, context)? {
                Some(value) if value.is_none() => return Ok(None),
                Some(value) => from_jinja(&value)?,
                None => Value::String(self.text(text, context)?),
            },
            Value::Array(items) => {
                let items: Result<Vec<_>> = items.iter().map(|it| self.json(it, context)).collect();
                Value::Array(items?.into_iter().flatten().collect())
            }
            Value::Object(fields) => {
                let mut made = Map::new();
                for (name, field) in fields {
                    if let Some(value) = self.json(field, context)? {
                        made.insert(name.clone(), value);
                    }
                }
                Value::Object(made)
            }
            other => other.clone(),
        }))
    }

    /// The value of a template that is exactly one expression.
    fn expression(&self, template: &str, context: &Context) -> Result<Option<Jinja>> {
        let inner = template.trim().strip_prefix("{{").and_then(|it| it.strip_suffix("}}"));
        let Some(inner) = inner.filter(|it| !it.contains("{{") && !it.contains("}}")) else { return Ok(None) };
        let expression = self.0.compile_expression(inner).map_err(|error| why(&error))?;
        let value = expression.eval(context.clone()).map_err(|error| why(&error))?;
        if value.is_undefined() { Err("a value is missing".to_owned()) } else { Ok(Some(value)) }
    }
}

fn in_days(days: i64) -> DateTime {
    let now = DateTime::from(SystemTime::now()).secs();
    DateTime::from_secs(now.saturating_add(days.saturating_mul(Duration::from_hours(24).as_secs().cast_signed())))
}

fn formatted(days: i64) -> std::result::Result<String, JinjaError> {
    in_days(days).fmt(Format::DateTime).map_err(|_| JinjaError::new(ErrorKind::InvalidOperation, ""))
}

/// The kind of error alone: a detail may quote a value.
fn why(error: &JinjaError) -> String {
    match error.kind() {
        ErrorKind::UndefinedError => "a value is missing".to_owned(),
        ErrorKind::SyntaxError => match error.detail() {
            // Of the template's text, and of no value.
            Some(detail) => format!("the template cannot be read: {detail}"),
            None => "the template cannot be read".to_owned(),
        },
        ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest => {
            "the template uses a filter or function that there is none of".to_owned()
        }
        ErrorKind::OutOfFuel => "the template does too much".to_owned(),
        _ => "a value cannot be used there".to_owned(),
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The value as templates see it.
pub(super) fn to_jinja(value: &Value) -> Jinja {
    match value {
        Value::Null => Jinja::from(()),
        Value::Bool(it) => Jinja::from(*it),
        Value::Number(it) => match (it.as_i64(), it.as_f64()) {
            (Some(it), _) => Jinja::from(it),
            (None, Some(it)) => Jinja::from(it),
            (None, None) => Jinja::from(it.to_string()),
        },
        Value::String(it) => Jinja::from(it.as_str()),
        Value::Array(it) => it.iter().map(to_jinja).collect::<Vec<_>>().into(),
        Value::Object(it) => object(it.iter().map(|(name, value)| (name.clone(), to_jinja(value)))),
    }
}

/// An object of these fields.
pub(super) fn object(fields: impl IntoIterator<Item = (String, Jinja)>) -> Jinja {
    Jinja::from_pairs(fields)
}

fn from_jinja(value: &Jinja) -> Result<Value> {
    Ok(match value.kind() {
        ValueKind::None => Value::Null,
        ValueKind::Bool => Value::Bool(value.is_true()),
        ValueKind::Number => match value.as_i64() {
            Some(it) => it.into(),
            None => Value::Number(value.to_string().parse::<Number>().map_err(|_| "a value is no number".to_owned())?),
        },
        ValueKind::String => Value::String(value.to_string()),
        ValueKind::Seq => {
            let items = value.try_iter().map_err(|error| why(&error))?;
            Value::Array(items.map(|it| from_jinja(&it)).collect::<Result<_>>()?)
        }
        ValueKind::Map => {
            let mut made = Map::new();
            for name in value.try_iter().map_err(|error| why(&error))? {
                let field = value.get_item(&name).map_err(|error| why(&error))?;
                made.insert(name.to_string(), from_jinja(&field)?);
            }
            Value::Object(made)
        }
        _ => return Err("a value cannot be used there".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context() -> Context {
        object([(
            "secret".to_owned(),
            to_jinja(&json!({
                "url": "https://h.example/base/", "odd": "a/b?c=d&é\"\\", "days": 30, "none": null, "up": "..",
                "empty": "", "tags": ["a", "b"], "big": 1.5
            })),
        )])
    }

    #[test]
    fn what_is_put_into_a_url_is_encoded() {
        let templates = Templates::new();
        let url = |template| templates.url(template, &context());
        assert_eq!(
            url("{{ secret.url }}/x/{{ secret.odd }}").unwrap(),
            "https://h.example/base/x/a%2Fb%3Fc%3Dd%26%C3%A9%22%5C"
        );
        assert_eq!(
            url("https://h/{{ secret.days }}?q={{ secret.odd }}").unwrap(),
            "https://h/30?q=a%2Fb%3Fc%3Dd%26%C3%A9%22%5C"
        );
        for refused in [
            "https://h/{{ secret.up }}",
            "https://h/{{ secret.empty }}/keys",
            "https://h/{{ secret.absent }}",
            "{{ secret.odd }}/x",
            "https://h/{{ secret.tags }}",
        ] {
            assert!(url(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn values_keep_their_type_in_json() {
        let templates = Templates::new();
        let template = json!({
            "name": "x-{{ secret.odd }}", "n": "{{ secret.days * 86400 }}", "tags": "{{ secret.tags }}", "kept": [1, true],
            "left_out": "{{ secret.absent | default(none) }}", "in": ["{{ secret.none }}", "{{ secret.big }}"]
        });
        let made = templates.json(&template, &context()).unwrap().unwrap();
        assert_eq!(
            made,
            json!({"name": "x-a/b?c=d&é\"\\", "n": 2_592_000, "tags": ["a", "b"], "kept": [1, true], "in": [1.5]})
        );
    }

    #[test]
    fn errors_say_what_is_wrong_and_no_value() {
        let templates = Templates::new();
        for (template, expected) in [
            ("{{ secret.absent }}", "missing"),
            ("{{ secret.odd | int }}", "cannot be used"),
            ("{{ secret.odd + 1 }}", "cannot be used"),
            ("{{ secret.odd | nope }}", "filter or function"),
            ("{% for a in range %}", "cannot be read"),
            ("{{ secret.odd", "cannot be read"),
        ] {
            let error = templates.text(template, &context()).unwrap_err();
            assert!(error.contains(expected) && !error.contains("a/b"), "{template}: {error}");
        }
        let endless = "{% for a in secret.odd %}{% for b in secret.odd %}{% for c in secret.odd %}{% for d in secret.odd %}x{% endfor %}{% endfor %}{% endfor %}{% endfor %}";
        assert!(templates.text(endless, &context()).unwrap_err().contains("too much"));
    }

    #[test]
    fn dates_are_days_from_now() {
        let templates = Templates::new();
        let text = |template| templates.text(template, &context()).unwrap();
        let now = DateTime::from(SystemTime::now()).secs();
        let epoch: i64 = text("{{ epoch(2) }}").parse().unwrap();
        assert!((now + 2 * 86400..now + 2 * 86400 + 5).contains(&epoch));
        let timestamp = DateTime::from_str(&text("{{ timestamp(2) }}"), Format::DateTime).unwrap().secs();
        assert!((epoch..epoch + 5).contains(&timestamp));
        assert_eq!(text("{{ date(2) }}").len(), 10);
        assert_eq!(text("{{ (secret.days ~ ':x') | base64 }}"), "MzA6eA==");
    }
}
