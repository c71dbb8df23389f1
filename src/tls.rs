//! Whom we trust, and how much a secret asks of a server's certificate.
//!
//! The roots are the public ones and those of Amazon RDS, compiled in, and what the operator adds. Reading the ninety-odd
//! certificates of RDS takes a twentieth of a millisecond. There is no way from TLS to plaintext but a secret that says so.

mod rds_roots;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::{Code, Error, Result};
use crate::kind::Field;
use crate::net;
use crate::secret::Exposed;

pub(crate) const SSLMODE: Field =
    Field::setting("sslmode", "`verify-full`, `verify-ca`, `require` or `disable`").default("verify-full");
pub(crate) const SSL: Field =
    Field::setting("ssl", "as AWS's functions know it: `false` is `disable`; `true` or absent is `verify-full`");
pub(crate) const SSLROOTCERT: Field =
    Field::setting("sslrootcert", "certificates in PEM to trust beside the public ones and those of RDS");
pub(crate) const SSLCERT: Field =
    Field::setting("sslcert", "the client's certificate in PEM, where the server asks for one");
pub(crate) const SSLKEY: Field = Field::setting("sslkey", "the key of `sslcert` in PEM");
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

/// What a secret says about TLS.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// How much of the server's certificate is checked.
    pub mode: Mode,
    /// Field `sslrootcert`: certificates to trust as well, in PEM.
    pub roots: Option<&'a str>,
    /// Fields `sslcert` and `sslkey`: the client's certificates and key, in PEM.
    pub identity: Option<(&'a str, &'a str)>,
}

impl<'a> Ask<'a> {
    /// Reads `sslmode`, `ssl`, `sslrootcert`, `sslcert` and `sslkey`.
    ///
    /// # Errors
    /// Config, as [`Mode::of`], and for a client's certificate without its key or a key without a certificate.
    pub fn of(fields: Exposed<'a>) -> Result<Self> {
        Self::with(Mode::of(fields)?, fields)
    }

    /// Reads `sslrootcert`, `sslcert` and `sslkey`.
    ///
    /// # Errors
    /// Config, for a client's certificate without its key or a key without a certificate.
    pub fn with(mode: Mode, fields: Exposed<'a>) -> Result<Self> {
        let identity = match (fields.optional("sslcert")?, fields.optional("sslkey")?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => {
                return Err(Error::config(Code::Field, "one of the fields \"sslcert\" and \"sslkey\" is missing")
                    .hint("a client's certificate and its key, both in PEM, or neither"));
            }
        };
        Ok(Self { mode, roots: fields.optional("sslrootcert")?, identity })
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

    /// The certificates that are trusted beside the public authorities: those of RDS, of the operator's file, and of `extra`
    /// (PEM). For a driver that takes certificates and brings the public ones itself.
    ///
    /// # Errors
    /// Config, when certificates cannot be read; the message names the field or file.
    pub fn certificates(&self, extra: Option<&str>) -> Result<Vec<CertificateDer<'static>>> {
        let mut all: Vec<_> = rds_roots::RDS_ROOTS.iter().map(|it| CertificateDer::from_slice(it)).collect();
        if let Some(path) = &self.file {
            let place = format!("the file {} named by KEYWHEEL_CA_FILE", path.display());
            let pem = std::fs::read(path).map_err(|error| {
                Error::config(Code::Environment, format!("{place} cannot be read: {}", error.kind()))
            })?;
            all.extend(read_pem(&pem, &place)?);
        }
        if let Some(pem) = extra {
            all.extend(read_pem(pem.as_bytes(), "field \"sslrootcert\"")?);
        }
        Ok(all)
    }

    fn roots(&self, extra: Option<&str>) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for certificate in self.certificates(extra)? {
            // They have been read once; see `read_pem`.
            let _ = roots.add(certificate);
        }
        Ok(Arc::new(roots))
    }

    /// The TLS settings for [`Mode::VerifyFull`] without a client's certificate.
    ///
    /// # Errors
    /// Config, when certificates cannot be read; the message names the field or file.
    pub fn verify_full(&self) -> Result<Arc<ClientConfig>> {
        if let Some(config) = self.verify_full.get() {
            return Ok(config.clone());
        }
        let config = Arc::new(self.builder()?.with_root_certificates(self.roots(None)?).with_no_client_auth());
        Ok(self.verify_full.get_or_init(|| config).clone())
    }

    /// The TLS settings that `ask` asks for; `None` for plaintext.
    ///
    /// # Errors
    /// Config, when certificates or the key cannot be read; the message names the field or file.
    pub fn client(&self, ask: &Ask<'_>) -> Result<Option<Arc<ClientConfig>>> {
        let builder = match ask.mode {
            Mode::Disable => return Ok(None),
            Mode::VerifyFull if ask.roots.is_none() && ask.identity.is_none() => return self.verify_full().map(Some),
            Mode::VerifyFull => self.builder()?.with_root_certificates(self.roots(ask.roots)?),
            Mode::VerifyCa => {
                let roots = self.roots(ask.roots)?;
                let builder = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone());
                let unusable = |error| Error::config(Code::Tls, format!("the trusted authorities: {error}"));
                self.lesser(Some(builder.build().map_err(unusable)?))?
            }
            Mode::Require => self.lesser(None)?,
        };
        let Some((certificate, key)) = ask.identity else { return Ok(Some(Arc::new(builder.with_no_client_auth()))) };
        let certificates = read_pem(certificate.as_bytes(), "field \"sslcert\"")?;
        let unusable = || {
            Error::config(Code::Field, "field \"sslkey\" is not the private key of field \"sslcert\"")
                .hint("a key in PEM without a passphrase, from -----BEGIN PRIVATE KEY----- on")
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| unusable())?;
        builder.with_client_auth_cert(certificates, key).map(|config| Some(Arc::new(config))).map_err(|_| unusable())
    }

    fn lesser(
        &self,
        authority: Option<Arc<WebPkiServerVerifier>>,
    ) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
        let verifier = Arc::new(LesserVerifier { authority, provider: self.provider.clone() });
        Ok(self.builder()?.dangerous().with_custom_certificate_verifier(verifier))
    }

    fn builder(&self) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
        ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::config(Code::Tls, format!("TLS cannot be set up: {error}")))
    }
}

/// The certificates in `pem`, each fit to be trusted.
fn read_pem(pem: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>> {
    let unusable = |what: &str| {
        Error::config(Code::Field, format!("{place} {what}"))
            .hint("certificates in PEM, from -----BEGIN CERTIFICATE----- on")
    };
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|_| unusable("is not valid PEM"))?;
    if read.is_empty() {
        return Err(unusable("has no certificate"));
    }
    for certificate in &read {
        let readable = RootCertStore::empty().add(certificate.clone());
        readable.map_err(|_| unusable("has a certificate that cannot be read"))?;
    }
    Ok(read)
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

/// TLS over `stream` with `host`; `place` is host and port, for messages.
///
/// # Errors
/// Transient: what [`handshake_error`] says, or that the other side speaks no TLS.
pub(crate) async fn connect(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
    place: &str,
) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| net::no_address(host))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| match error.get_ref().and_then(|it| it.downcast_ref()) {
        Some(cause) => handshake_error(cause, place),
        None => Error::transient(Code::TlsOff, format!("{place} offers no TLS")),
    })
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

    fn ask(mode: Mode, roots: Option<&str>) -> Ask<'_> {
        Ask { mode, roots, identity: None }
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
            let error = Trust::default().client(&ask(Mode::VerifyFull, Some(pem))).err().unwrap().to_string();
            assert!(error.contains(&format!("field \"sslrootcert\" {expected}")), "{error}");
        }
        let error =
            Trust::with_file("/nonexistent.pem".into()).client(&ask(Mode::VerifyCa, None)).err().unwrap().to_string();
        assert!(error.contains("/nonexistent.pem named by KEYWHEEL_CA_FILE cannot be read"), "{error}");
    }
}
