//! Whom we trust, and how much a secret asks of a server's certificate.
//!
//! The roots are the public ones and those of Amazon RDS, compiled in as parsed anchors so that a cold start parses
//! nothing, and what the operator adds. There is no way from TLS to plaintext but a secret that says so.

mod rds_roots;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::secret::Exposed;

/// What a secret asks of the connection: PostgreSQL's `sslmode`, without the modes that fall back by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// TLS; certificate from a trusted authority, valid for the host name.
    VerifyFull,
    /// TLS; certificate from a trusted authority.
    VerifyCa,
    /// TLS with whoever answers.
    Require,
    /// Plaintext.
    Disable,
}

impl Mode {
    /// Reads `sslmode`, else `ssl` as AWS's functions know it (a boolean, or `"true"` or `"false"` in any case).
    /// Neither, or an `ssl` that AWS's functions do not know either, is [`Mode::VerifyFull`].
    ///
    /// # Errors
    /// Config, for an unknown `sslmode`, or one that contradicts `ssl`.
    pub fn of(fields: Exposed<'_>) -> Result<Self> {
        let ssl = match fields.value("ssl") {
            Some(Value::Bool(on)) => Some(*on),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Some(true),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        let mode = match fields.optional("sslmode")? {
            None if ssl == Some(false) => Self::Disable,
            None | Some("verify-full") => Self::VerifyFull,
            Some("verify-ca") => Self::VerifyCa,
            Some("require") => Self::Require,
            Some("disable") => Self::Disable,
            Some(_) => {
                return Err(Error::config(Code::Field, "field \"sslmode\" is unknown").hint(
                    "one of `verify-full`, `verify-ca`, `require`, `disable`; `prefer` and `allow` may fall back to plaintext",
                ));
            }
        };
        if ssl.is_some_and(|on| on == (mode == Self::Disable)) {
            return Err(Error::config(Code::Field, "fields \"ssl\" and \"sslmode\" contradict each other")
                .hint("remove `ssl`: `sslmode` says more"));
        }
        Ok(mode)
    }
}

/// Trusted authorities: the public ones, those of RDS, and those of a file of the operator's.
pub struct Trust {
    file: Option<PathBuf>,
    provider: Arc<CryptoProvider>,
    verify_full: OnceLock<Arc<ClientConfig>>,
}

impl Default for Trust {
    fn default() -> Self {
        let mut provider = ring::default_provider();
        // PostgreSQL knows only this curve unless it is told of others; another first guess costs a round trip.
        provider.kx_groups = vec![ring::kx_group::SECP256R1, ring::kx_group::X25519, ring::kx_group::SECP384R1];
        Self { file: None, provider: Arc::new(provider), verify_full: OnceLock::new() }
    }
}

impl Trust {
    /// Trusts the authorities in the PEM file `path` as well. It is read when a connection first needs it.
    #[must_use]
    pub fn with_file(path: PathBuf) -> Self {
        Self { file: Some(path), ..Self::default() }
    }

    fn roots(&self, extra: Option<&str>) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        roots.extend(rds_roots::RDS_ROOTS.iter().cloned());
        if let Some(path) = &self.file {
            let place = format!("the file {} named by KEYWHEEL_CA_FILE", path.display());
            let pem = std::fs::read(path).map_err(|error| {
                Error::config(Code::Environment, format!("{place} cannot be read: {}", error.kind()))
            })?;
            add(&mut roots, &pem, &place)?;
        }
        if let Some(pem) = extra {
            add(&mut roots, pem.as_bytes(), "field \"sslrootcert\"")?;
        }
        Ok(Arc::new(roots))
    }

    /// The TLS settings for [`Mode::VerifyFull`], trusting the certificates in `extra` (PEM) as well.
    ///
    /// # Errors
    /// Config, when certificates cannot be read; the message names the field or file.
    pub fn verify_full(&self, extra: Option<&str>) -> Result<Arc<ClientConfig>> {
        if let (Some(config), None) = (self.verify_full.get(), extra) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.builder()?.with_root_certificates(self.roots(extra)?).with_no_client_auth());
        if extra.is_none() {
            let _ = self.verify_full.set(config.clone());
        }
        Ok(config)
    }

    /// The TLS settings for `mode`, trusting the certificates in `extra` (PEM) as well; `None` for plaintext.
    ///
    /// # Errors
    /// Config, when certificates cannot be read; the message names the field or file.
    pub fn client(&self, mode: Mode, extra: Option<&str>) -> Result<Option<Arc<ClientConfig>>> {
        let authority = match mode {
            Mode::Disable => return Ok(None),
            Mode::VerifyFull => return self.verify_full(extra).map(Some),
            Mode::VerifyCa => {
                let builder = WebPkiServerVerifier::builder_with_provider(self.roots(extra)?, self.provider.clone());
                let unusable = |error| Error::config(Code::Tls, format!("the trusted authorities: {error}"));
                Some(builder.build().map_err(unusable)?)
            }
            Mode::Require => None,
        };
        let verifier = Arc::new(LesserVerifier { authority, provider: self.provider.clone() });
        let config = self.builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        Ok(Some(Arc::new(config)))
    }

    fn builder(&self) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
        ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::config(Code::Tls, format!("TLS cannot be set up: {error}")))
    }
}

fn add(roots: &mut RootCertStore, pem: &[u8], place: &str) -> Result<()> {
    let unusable = |what: &str| {
        Error::config(Code::Field, format!("{place} {what}"))
            .hint("certificates in PEM, from -----BEGIN CERTIFICATE----- on")
    };
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| unusable("is not valid PEM"))?;
        roots.add(certificate).map_err(|_| unusable("has a certificate that cannot be read"))?;
    }
    if roots.len() == before { Err(unusable("has no certificate")) } else { Ok(()) }
}

/// Checks less than a browser would, because the secret says so: the authority without the name (`verify-ca`), or nothing
/// (`require`). That the server holds the key of its certificate is always checked.
#[derive(Debug)]
struct LesserVerifier {
    authority: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for LesserVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, after the chain has been found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed handshake with `place` (host and port) means.
#[must_use]
pub fn handshake_error(error: &rustls::Error, place: &str) -> Error {
    let rustls::Error::InvalidCertificate(reason) = error else {
        return Error::transient(Code::Tls, format!("the TLS handshake with {place} failed: {error}"));
    };
    match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Error::transient(Code::TlsName, format!("the certificate of {place} is not valid for that name"))
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            Error::transient(Code::TlsExpired, format!("the certificate of {place} has expired or is not yet valid"))
        }
        _ => {
            Error::transient(Code::TlsTrust, format!("the certificate of {place} is not signed by a trusted authority"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn mode(fields: &str) -> Result<Mode> {
        Mode::of(Secret::parse(format!("{{{fields}}}"))?.expose())
    }

    #[test]
    fn ssl_and_sslmode() {
        for (fields, expected) in [
            ("", Mode::VerifyFull),
            (r#""ssl":true"#, Mode::VerifyFull),
            (r#""ssl":"TRUE""#, Mode::VerifyFull),
            (r#""ssl":false"#, Mode::Disable),
            (r#""ssl":"False""#, Mode::Disable),
            // To AWS's functions these are as good as absent; here absent means verified, never plaintext.
            (r#""ssl":"no""#, Mode::VerifyFull),
            (r#""ssl":0"#, Mode::VerifyFull),
            (r#""sslmode":"require","ssl":true"#, Mode::Require),
            (r#""sslmode":"verify-ca""#, Mode::VerifyCa),
            (r#""sslmode":"disable","ssl":"false""#, Mode::Disable),
        ] {
            assert_eq!(mode(fields).unwrap(), expected, "{fields}");
        }
        for fields in [
            r#""sslmode":"prefer""#,
            r#""sslmode":true"#,
            r#""sslmode":"require","ssl":false"#,
            r#""sslmode":"disable","ssl":true"#,
        ] {
            assert_eq!(mode(fields).unwrap_err().code(), Code::Field, "{fields}");
        }
    }

    #[test]
    fn the_roots_of_rds_are_there() {
        assert!(rds_roots::RDS_ROOTS.len() > 90);
        let roots = Trust::default().roots(None).unwrap();
        assert_eq!(roots.len(), rds_roots::RDS_ROOTS.len() + webpki_roots::TLS_SERVER_ROOTS.len());
    }

    #[test]
    fn unusable_certificates_name_their_place() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA";
        for (pem, expected) in [
            ("", "has no certificate"),
            ("text", "has no certificate"),
            (broken, "has a certificate that cannot be read"),
            (cut, "is not valid PEM"),
        ] {
            let error = Trust::default().client(Mode::VerifyFull, Some(pem)).err().unwrap().to_string();
            assert!(error.contains(&format!("field \"sslrootcert\" {expected}")), "{error}");
        }
        let error = Trust::with_file("/nonexistent.pem".into()).client(Mode::VerifyCa, None).err().unwrap().to_string();
        assert!(error.contains("/nonexistent.pem named by KEYWHEEL_CA_FILE cannot be read"), "{error}");
    }
}
