//! Certificates and keys, from their files.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error as RustlsError, InconsistentKeys, RootCertStore, ServerConfig};

use crate::config::TlsSection;

/// What gRPC speaks.
const ALPN_H2: &[u8] = b"h2";

const CERT: &str = "server.tls.cert_file";
const KEY: &str = "server.tls.key_file";
const CLIENT_CA: &str = "server.tls.client_ca_file";

/// The files of TLS.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("setting '{setting}': {}: {problem}", path.display())]
pub struct TlsError {
    setting: &'static str,
    path: PathBuf,
    problem: String,
}

/// What tells whether a file is still the one that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<[i64; 4]>>);

impl TlsFiles {
    /// Those of the settings, which were validated; `None` without TLS.
    pub(crate) fn of(section: &TlsSection) -> Option<Self> {
        let (cert, key) = section.cert_file.clone().zip(section.key_file.clone())?;
        Some(Self { cert, key, client_ca: section.client_ca_file.clone() })
    }

    /// Reads them.
    pub(super) fn read(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let broken = |setting, path: &Path, problem: String| TlsError { setting, path: path.to_owned(), problem };
        let certs = certificates(CERT, &self.cert)?;
        let key = private_key(&self.key)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| broken(CERT, &self.cert, error.to_string()))?;
        let builder = match &self.client_ca {
            Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(certs, key).map_err(|error| match error {
            RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                broken(KEY, &self.key, format!("it is not the key of the certificate in {}", self.cert.display()))
            }
            RustlsError::InvalidCertificate(_) => {
                broken(CERT, &self.cert, format!("its first certificate cannot be read ({error})"))
            }
            error => broken(KEY, &self.key, format!("the key cannot be used ({error}): give RSA, ECDSA or Ed25519")),
        })?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(config)
    }

    /// Says so when other users of this machine can read the key.
    pub(super) fn warn_of_readers(&self) {
        if is_readable_by_all(&self.key) {
            tracing::warn!("{} can be read by every user of this machine: chmod 600 it", self.key.display());
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        let files = [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()];
        let stamp = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            let (inode, size) = (metadata.ino().cast_signed(), metadata.size().cast_signed());
            Some([inode, size, metadata.mtime(), metadata.mtime_nsec()])
        };
        Stamp(files.into_iter().flatten().map(stamp).collect())
    }
}

fn is_readable_by_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let problem =
        |error: io::Error| TlsError { setting, path: path.to_owned(), problem: format!("cannot read it: {error}") };
    std::fs::read(path).map_err(problem)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(setting, path)?;
    let problem = |problem| TlsError { setting, path: path.to_owned(), problem };
    let found: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(problem("it holds no certificate: give PEM, with -----BEGIN CERTIFICATE-----".to_owned())),
        Err(error) => Err(problem(format!("it is broken PEM: {error}"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(KEY, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let problem = match error {
            PemError::NoItemsFound => {
                "it holds no key: give PEM, with -----BEGIN PRIVATE KEY----- (or RSA or EC PRIVATE \
                                       KEY) and without a passphrase"
                    .to_owned()
            }
            error => format!("it is broken PEM: {error}"),
        };
        TlsError { setting: KEY, path: path.to_owned(), problem }
    })
}

/// Lets only those in who have a certificate of this CA.
fn verifier(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let problem = |error: String| TlsError {
        setting: CLIENT_CA,
        path: path.to_owned(),
        problem: format!("it cannot be the CA of client certificates ({error})"),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA, path)? {
        roots.add(certificate).map_err(|error| problem(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| problem(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::self_signed::{Files, Wanted};

    fn made(directory: &Path) -> TlsFiles {
        Files::make(&Wanted { hosts: vec![], days: 1, now_ns: 1_800_000_000_000_000_000 })
            .unwrap()
            .write(directory, false)
            .unwrap();
        let path = |name: &str| directory.join(name);
        TlsFiles { cert: path("server.pem"), key: path("server.key"), client_ca: Some(path("ca.pem")) }
    }

    #[test]
    fn files_that_belong_together_are_taken() {
        let directory = tempfile::tempdir().unwrap();
        let files = made(directory.path());
        assert_eq!(files.read().unwrap().alpn_protocols, [b"h2"]);
        assert!(!is_readable_by_all(&files.key));
        assert!(is_readable_by_all(&files.cert));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_what_was_expected() {
        let directory = tempfile::tempdir().unwrap();
        let files = made(directory.path());
        let other = directory.path().join("other");
        let wrong = made(&other);
        let text = directory.path().join("text");
        std::fs::write(&text, "no PEM at all").unwrap();
        let cut = directory.path().join("cut");
        std::fs::write(&cut, &std::fs::read(&files.key).unwrap()[..60]).unwrap();
        let missing = directory.path().join("missing");
        let with = |cert: &Path, key: &Path, ca: &Path| {
            let files = TlsFiles { cert: cert.to_owned(), key: key.to_owned(), client_ca: Some(ca.to_owned()) };
            files.read().err().map(|error| error.to_string()).unwrap_or_default()
        };
        let (cert, key, ca) = (&files.cert, &files.key, files.client_ca.as_ref().unwrap());
        assert_eq!(with(cert, key, ca), "");
        for (said, setting, path, expected) in [
            (with(&missing, key, ca), CERT, &missing, "cannot read it"),
            (with(cert, &missing, ca), KEY, &missing, "cannot read it"),
            (with(cert, key, &missing), CLIENT_CA, &missing, "cannot read it"),
            (with(&text, key, ca), CERT, &text, "BEGIN CERTIFICATE"),
            (with(cert, &text, ca), KEY, &text, "BEGIN PRIVATE KEY"),
            (with(cert, key, &text), CLIENT_CA, &text, "BEGIN CERTIFICATE"),
            (with(key, key, ca), CERT, key, "BEGIN CERTIFICATE"),
            (with(cert, cert, ca), KEY, cert, "BEGIN PRIVATE KEY"),
            (with(cert, &cut, ca), KEY, &cut, "broken PEM"),
            (with(cert, &wrong.key, ca), KEY, &wrong.key, "not the key of the certificate"),
        ] {
            assert!(said.contains(setting) && said.contains(&path.display().to_string()), "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_stamp_changes_with_each_file() {
        let directory = tempfile::tempdir().unwrap();
        let files = made(directory.path());
        let before = files.stamp();
        assert_eq!(files.stamp(), before);
        for path in [&files.cert, &files.key, files.client_ca.as_ref().unwrap()] {
            let before = files.stamp();
            let new = directory.path().join("new");
            std::fs::copy(path, &new).unwrap();
            std::fs::rename(&new, path).unwrap();
            assert_ne!(files.stamp(), before, "{}", path.display());
        }
        std::fs::remove_file(&files.key).unwrap();
        assert_ne!(files.stamp(), before);
    }
}
