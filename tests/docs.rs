//! What the documentation and the events say is what the code knows.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use keywheel::event::Event;
use keywheel_dev::docs::refresh;
use keywheel_dev::watch::root;

#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains("| `tls-name` |") && readme.contains("| `sslrootcert` |"), "run `make docs`");
    assert!(refresh(&readme) == readme, "the README's tables are out of date: run `make docs`");
}

#[test]
fn links_between_documents_lead_somewhere() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = std::fs::read_to_string(root().join(name)).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.starts_with("http") && !link.starts_with('#') {
                assert!(root().join(link).exists(), "{name} links to {link}");
            }
        }
    }
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
