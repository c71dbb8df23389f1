//! The parts of the documentation that the code knows: the kinds, their fields, and the errors.

use std::fmt::Write as _;

use keywheel::error::Code;
use keywheel::kind::Kind;
use keywheel::kinds::KINDS;
use keywheel::kinds::http::RECIPES;
use serde_json::{Value, json};

/// The kinds as JSON, with the fields that the `SecretProviderClass` mounts: what the template's tests compare with.
#[must_use]
pub fn registry() -> Value {
    let kinds = native().map(|kind| {
        let mounted = kind.fields().iter().filter(|field| field.mounted);
        let mut fields: Vec<_> = mounted
            .map(|field| {
                let kind = if field.number { "number" } else { "string" };
                json!({"name": field.name, "required": field.required, "type": kind, "default": field.default})
            })
            .collect();
        // The recipe says which field is the credential, and the template's parameter which is mounted.
        if fields.is_empty() {
            fields.push(json!({"name": "token", "required": true, "type": "string", "default": null}));
        }
        let example: Value = serde_json::from_str(kind.example()).unwrap_or_default();
        json!({"name": name(kind), "names": kind.names(), "fields": fields, "example": example, "permissions": kind.permissions()})
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
            "recipes" => recipe_table(),
            "recipe-sections" => recipe_sections(),
            _ => old.to_owned(),
        };
        let _ = write!(fresh, "{before}<!-- generated: {name} -->\n{part}<!-- end -->");
        rest = after;
    }
    fresh + rest
}

/// The kinds that are no recipes.
fn native() -> impl Iterator<Item = &'static dyn Kind> {
    KINDS.iter().copied().filter(|kind| !RECIPES.iter().any(|(it, ..)| *it == name(*kind)))
}

fn name(kind: &dyn Kind) -> &'static str {
    kind.names().first().copied().unwrap_or_default()
}

fn kinds() -> String {
    let mut table = String::from("| kind | selected by | what it is |\n| --- | --- | --- |\n");
    for kind in native() {
        let names: Vec<_> = kind.names().iter().map(|name| format!("`{name}`")).collect();
        let _ =
            writeln!(table, "| [{0}](docs/kinds.md#{0}) | {1} | {2} |", name(kind), names.join(", "), kind.summary());
    }
    table
}

fn fields() -> String {
    let mut text = String::new();
    for kind in native() {
        let _ = writeln!(text, "\n### {}\n\n{}:\n", name(kind), sentence(kind.summary()));
        describe(kind, &mut text);
        if !kind.permissions().is_empty() {
            let actions: Vec<_> = kind.permissions().iter().map(|action| format!("`{action}`")).collect();
            let _ = writeln!(text, "\nOn the template's `ResourceArn`: {}.", actions.join(", "));
        }
    }
    text.push('\n');
    text
}

/// The example and the fields of a kind.
fn describe(kind: &dyn Kind, text: &mut String) {
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
}

/// Each kind of a recipe, and the recipe.
fn recipes() -> impl Iterator<Item = (&'static dyn Kind, Value)> {
    KINDS.iter().filter_map(|kind| {
        let (_, _, text) = RECIPES.iter().find(|(it, ..)| *it == name(*kind))?;
        Some((*kind, toml::from_str(text).unwrap_or_default()))
    })
}

fn recipe_table() -> String {
    let mut table = String::from("| kind | what it is | class | state |\n| --- | --- | --- | --- |\n");
    for (kind, recipe) in recipes() {
        let class = match recipe["class"].as_str() {
            Some("chosen") if recipe["coexist"] == true => "chosen, coexisting",
            Some("chosen") => "chosen",
            other => other.unwrap_or_default(),
        };
        let state = if recipe.get("experimental").is_some() { "experimental" } else { "" };
        let _ = writeln!(table, "| [{0}](#{0}) | {1} | {class} | {state} |", name(kind), kind.summary());
    }
    table
}

fn recipe_sections() -> String {
    let mut text = String::new();
    for (kind, recipe) in recipes() {
        let said = |key: &str| recipe[key].as_str().map(sentence);
        let _ = writeln!(text, "\n### {}\n\n{}:\n", name(kind), sentence(kind.summary()));
        describe(kind, &mut text);
        if let Some(fields) = recipe["admin"].as_object() {
            text.push_str("\nThe administrator's secret has:\n\n| field | what it is |\n| --- | --- |\n");
            for (name, doc) in fields {
                let _ = writeln!(text, "| `{name}` | {} |", doc.as_str().unwrap_or_default().replace('|', "\\|"));
            }
        }
        text.push('\n');
        if let Some(by_hand) = said("by_hand") {
            let _ = writeln!(text, "A person makes it: {by_hand}.\n");
        }
        if let Some(prefer) = said("prefer") {
            let _ = writeln!(text, "{prefer}\n");
        }
        if let Some(limit) = recipe["limit"].as_u64() {
            let _ = writeln!(text, "The service keeps {limit} of them at most.\n");
        }
        if let Some(why) = said("experimental") {
            let _ = writeln!(text, "**Experimental.** {why}\n");
        }
        if !kind.permissions().is_empty() {
            let actions: Vec<_> = kind.permissions().iter().map(|action| format!("`{action}`")).collect();
            let _ = writeln!(text, "The function's role needs {}.\n", actions.join(", "));
        }
        let docs: Vec<_> = recipe["docs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let checked = recipe["checked"].as_str().unwrap_or_default();
        let links: Vec<_> = docs.iter().map(|link| format!("<{link}>")).collect();
        let _ = writeln!(text, "Compared on {checked} with {}", links.join(", "));
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
