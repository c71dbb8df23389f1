//! Turns the certificates of Amazon RDS's authorities (PEM, on standard input) into `src/tls/rds_roots.rs`.
//!
//! `make roots` runs it. The first argument says where the certificates are from.

#![expect(clippy::print_stdout, reason = "its output is the file")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Read as _;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

fn main() -> Result<(), Box<dyn Error>> {
    let provenance = std::env::args().nth(1).ok_or("usage: rds-roots PROVENANCE < certificates.pem")?;
    let mut pem = Vec::new();
    std::io::stdin().read_to_end(&mut pem)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;

    // By name and end of life, so that a refresh shows only what changed.
    let mut roots = BTreeMap::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate?;
        let parsed = Certificate::from_der(&certificate)?.tbs_certificate;
        let expires = parsed.validity.not_after.to_unix_duration();
        if expires > now {
            let name = parsed.subject.to_string();
            roots.insert((name, parsed.validity.not_after.to_string()), certificate);
        }
    }
    if roots.is_empty() {
        return Err("no certificate that is still valid".into());
    }

    println!("//! The certificates of Amazon RDS's authorities, in DER.");
    println!("//!");
    println!("//! Made by `make roots` from {provenance}; do not edit.\n");
    println!("pub(super) const RDS_ROOTS: &[&[u8]] = &[");
    for ((name, expires), certificate) in roots {
        println!("    // {name}, until {expires}");
        println!("    {},", literal(&certificate));
    }
    println!("];");
    Ok(())
}

fn literal(bytes: &[u8]) -> String {
    let mut text = String::from("b\"");
    for byte in bytes {
        match byte {
            b'"' | b'\\' => write!(text, "\\{}", char::from(*byte)),
            b' '..=b'~' => write!(text, "{}", char::from(*byte)),
            _ => write!(text, "\\x{byte:02x}"),
        }
        .unwrap_or_default();
    }
    text.push('"');
    text
}
