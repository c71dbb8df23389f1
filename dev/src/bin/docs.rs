//! `docs registry` prints the kinds as JSON, `docs schema` the JSON schema of recipes; `docs refresh FILE…` brings the generated parts of files up to date.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;

use keywheel_dev::docs::{refresh, registry};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("registry") => println!("{:#}", registry()),
        Some("schema") => println!("{:#}", keywheel::kinds::http::schema()),
        Some("refresh") => {
            for file in arguments {
                let text = std::fs::read_to_string(&file)?;
                std::fs::write(&file, refresh(&text))?;
            }
        }
        _ => return Err("usage: docs registry | docs schema | docs refresh FILE…".into()),
    }
    Ok(())
}
