//! The parts of the documentation that the code knows: the kinds, their fields, and the errors.

use std::fmt::Write as _;

use keywheel::error::Code;
use keywheel::kind::Kind;
use keywheel::kinds::KINDS;
use serde_json::{Value, json};

/// The kinds as JSON, with the fields that the `SecretProviderClass` mounts: what the template's tests compare with.
#[must_use]
pub fn registry() -> Value {
    let kinds = KINDS.iter().map(|kind| {
        let mounted = kind.fields().iter().filter(|field| field.mounted);
        let fields: Vec<_> = mounted
            .map(|field| {
                let kind = if field.number { "number" } else { "string" };
                json!({"name": field.name, "required": field.required, "type": kind, "default": field.default})
            })
            .collect();
        let example: Value = serde_json::from_str(kind.example()).unwrap_or_default();
        json!({"name": name(*kind), "names": kind.names(), "fields": fields, "example": example, "permissions": kind.permissions()})
    });
    kinds.collect()
}

/// `text` with every generated part brought up to date: what stands between `<!-- generated: NAME -->` and
/// `<!-- end -->`. An unknown name leaves its part as it is.
#[must_use]
pub fn refresh(text: &str) -> String {
    let mut fresh = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!-- generated: ") {
        let Some((name, after)) = after.split_once(" -->\n") else { break };
        let Some((old, after)) = after.split_once("<!-- end -->") else { break };
        let part = match name {
            "kinds" => kinds(),
            "fields" => fields(),
            "errors" => errors(),
            _ => old.to_owned(),
        };
        let _ = write!(fresh, "{before}<!-- generated: {name} -->\n{part}<!-- end -->");
        rest = after;
    }
    fresh + rest
}

fn name(kind: &dyn Kind) -> &'static str {
    kind.names().first().copied().unwrap_or_default()
}

fn kinds() -> String {
    let mut table = String::from("| kind | selected by | what it is |\n| --- | --- | --- |\n");
    for kind in KINDS {
        let names: Vec<_> = kind.names().iter().map(|name| format!("`{name}`")).collect();
        let _ =
            writeln!(table, "| [{0}](docs/kinds.md#{0}) | {1} | {2} |", name(*kind), names.join(", "), kind.summary());
    }
    table
}

fn fields() -> String {
    let mut text = String::new();
    for kind in KINDS {
        let _ = writeln!(text, "\n### {}\n\n{}:\n", name(*kind), sentence(kind.summary()));
        let _ = writeln!(text, "```json\n{}\n```\n", kind.example());
        text.push_str("| field | default | what it is |\n| --- | --- | --- |\n");
        for field in kind.fields() {
            let default = match (field.default, field.required) {
                (Some(default), _) if !default.is_empty() => format!("`{default}`"),
                (None, true) => "required".to_owned(),
                _ => "–".to_owned(),
            };
            let _ = writeln!(text, "| `{}` | {default} | {} |", field.name, field.doc.replace('|', "\\|"));
        }
        if !kind.permissions().is_empty() {
            let actions: Vec<_> = kind.permissions().iter().map(|action| format!("`{action}`")).collect();
            let _ = writeln!(text, "\nOn the template's `ResourceArn`: {}.", actions.join(", "));
        }
    }
    text.push('\n');
    text
}

fn errors() -> String {
    let mut table = String::from("| code | what happened | what to do |\n| --- | --- | --- |\n");
    for code in Code::ALL {
        let _ = writeln!(table, "| `{}` | {} | {} |", code.as_str(), code.meaning(), sentence(code.remedy()) + ".");
    }
    table
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
