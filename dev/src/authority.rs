//! A certificate authority of our own, for servers and their clients.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::server::write_private;

/// An authority, and one certificate of it for a server.
pub struct Authority {
    /// The authority's certificate, in PEM.
    pub root: String,
    /// The server's certificate, in PEM.
    pub certificate: String,
    /// The server's key, in PEM.
    pub key: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Where a server finds what it needs of an [`Authority`].
pub(crate) struct Files {
    pub(crate) root: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// An authority and a certificate for `names`.
    ///
    /// # Errors
    /// When a key cannot be made or a name is none.
    pub fn new(names: &[String], expired: bool) -> io::Result<Self> {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(DnType::CommonName, "an authority of a private server");
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(root, key).map_err(io::Error::other)?;
        let mut leaf = CertificateParams::new(names).map_err(io::Error::other)?;
        if expired {
            leaf.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let (certificate, key) = issue(leaf, ExtendedKeyUsagePurpose::ServerAuth, &issuer)?;
        Ok(Self { root: issuer.pem(), certificate, key, issuer })
    }

    /// An authority for a server, in files of `folder`. Without names, its certificate is for `localhost` and 127.0.0.1.
    pub(crate) fn of_server(folder: &Path, names: &[String], expired: bool) -> io::Result<(Self, Files)> {
        let usual = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let authority = Self::new(if names.is_empty() { &usual } else { names }, expired)?;
        let at = |name: &str| folder.join(name);
        let files = Files { root: at("authority.crt"), certificate: at("server.crt"), key: at("server.key") };
        fs::write(&files.root, &authority.root)?;
        fs::write(&files.certificate, &authority.certificate)?;
        write_private(&files.key, &authority.key)?;
        Ok((authority, files))
    }

    /// A certificate for a client, with `name` as its common name, and its key, in PEM.
    ///
    /// # Errors
    /// When a key cannot be made.
    pub fn client(&self, name: &str) -> io::Result<(String, String)> {
        let mut client = CertificateParams::default();
        client.distinguished_name.push(DnType::CommonName, name);
        issue(client, ExtendedKeyUsagePurpose::ClientAuth, &self.issuer)
    }
}

fn issue(
    mut leaf: CertificateParams,
    usage: ExtendedKeyUsagePurpose,
    issuer: &CertifiedIssuer<'_, KeyPair>,
) -> io::Result<(String, String)> {
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.extended_key_usages = vec![usage];
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let leaf = leaf.signed_by(&key, issuer).map_err(io::Error::other)?;
    Ok((leaf.pem(), key.serialize_pem()))
}
