//! What the documentation and the events say is what the code knows.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use keywheel::event::Event;
use keywheel_dev::docs::refresh;
use keywheel_dev::watch::root;

const COMPATIBILITY: &str = "docs/compatibility.md";
const KINDS: &str = "docs/kinds.md";
const RECIPES: &str = "docs/recipes.md";

#[test]
fn the_tables_of_the_documents_are_those_of_the_code() {
    for (name, part) in [("README.md", "| `tls-name` |"), (KINDS, "| `sslrootcert` |"), (RECIPES, "| `adminarn` |")] {
        let text = std::fs::read_to_string(root().join(name)).unwrap();
        assert!(text.contains(part), "{name}: run `make docs`");
        assert!(refresh(&text) == text, "{name} is out of date: run `make docs`");
    }
}

#[test]
fn the_schema_of_recipes_is_that_of_the_code() {
    let text = std::fs::read_to_string(root().join("docs/recipe.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema, keywheel::kinds::http::schema(), "docs/recipe.schema.json is out of date: run `make docs`");
}

#[test]
fn links_between_documents_lead_somewhere() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", COMPATIBILITY, KINDS, RECIPES] {
        let file = root().join(name);
        let text = std::fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            if link.starts_with("http") {
                continue;
            }
            let target = if path.is_empty() { file.clone() } else { file.with_file_name(path) };
            assert!(target.exists(), "{name} links to {link}");
            let has = |text: &str| text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(heading.is_empty() || has(&std::fs::read_to_string(&target).unwrap()), "{name} links to {link}");
        }
    }
}

/// What a link to a heading has after `#`.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|it| it.is_alphanumeric() || matches!(it, '-' | '_')).collect()
}

#[test]
fn every_test_that_the_promises_name_is_there() {
    let text = std::fs::read_to_string(root().join(COMPATIBILITY)).unwrap();
    let named: Vec<_> = text
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(|code| code.split_once(": "))
        .filter(|(file, _)| file.starts_with("tests/") || file.starts_with("src/"))
        .collect();
    assert!(named.len() > 100, "only {} are found", named.len());
    for (file, test) in named {
        let source = std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(has_test(&source, test), "{COMPATIBILITY} names {file}: {test}, which is not there");
    }
}

/// A function with a test's attribute, a method of a Python test case, or a name in the list of `cases!`.
fn has_test(source: &str, name: &str) -> bool {
    let mut before = "";
    let mut in_cases = false;
    for line in source.lines().map(str::trim) {
        in_cases = line.starts_with("cases!") || (in_cases && line != "}");
        let word = line.trim_start_matches("async ").trim_start_matches("fn ").trim_start_matches("def ");
        let is_test = line.starts_with("def test_") || (before.starts_with("#[") && before.contains("test"));
        if (in_cases && line == name)
            || (word != line && is_test && word.split_once('(').is_some_and(|(it, _)| it == name))
        {
            return true;
        }
        before = line;
    }
    false
}

#[test]
fn every_event_file_is_an_event() {
    let mut steps = Vec::new();
    for file in std::fs::read_dir(root().join("events")).unwrap() {
        let file = file.unwrap().path();
        let payload = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let event = Event::parse(payload).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(format!("{}Secret", file.file_stem().unwrap().display()), event.step.as_str());
        steps.push(event.step.as_str());
    }
    assert_eq!(steps.len(), 4, "{steps:?}");
}
