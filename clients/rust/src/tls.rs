//! How a connection is encrypted, and to whom.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::Uri;

use crate::error::{Error, Result};

/// What gRPC speaks.
const ALPN_H2: &[u8] = b"h2";

/// How long a server may take for TLS.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a `grpc+tls://` connection trusts and shows. Everything is optional: by default the server's certificate has to be
/// of a CA that this machine trusts, and of the name in the URI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The CA of the server's certificate as PEM, instead of those of this machine.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show to a server that wants one, as PEM. It replaces no password.
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate, as PEM.
    pub key_file: Option<PathBuf>,
    /// The name that the server's certificate is for, when it is not the one in the URI.
    pub server_name: Option<String>,
}

/// Makes encrypted connections to one server.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the files.
    pub(crate) fn connector(&self) -> Result<Connector> {
        let unusable = |error: rustls::Error| wrong(format!("the certificate to show cannot be used: {error}"));
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(self.roots()?);
        let mut config = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => {
                config.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(unusable)?
            }
            (None, None) => config.with_no_client_auth(),
            _ => return Err(wrong("a client certificate needs its key and the other way round: give both files")),
        };
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        let server_name = self.server_name.clone().map(ServerName::try_from).transpose();
        let server_name = server_name.map_err(|_| wrong("the name of the server is no name of a host"))?;
        Ok(Connector { tls: TlsConnector::from(Arc::new(config)), server_name })
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(path) => {
                for certificate in certificates(path)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| wrong(format!("{} holds no CA: {error}", path.display())))?;
                }
            }
            // What cannot be read is not trusted.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        Ok(roots)
    }
}

impl Connector {
    pub(crate) async fn connect(self, uri: Uri) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        // An address of IPv6 stands in brackets.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = match self.server_name {
            Some(name) => name,
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
        tcp.set_nodelay(true)?;
        let connecting = tokio::time::timeout(PATIENCE, self.tls.connect(name, tcp));
        let tls = connecting.await.map_err(|_| io::Error::other("the server does not answer in TLS"))??;
        match tls.get_ref().1.alpn_protocol() {
            Some(ALPN_H2) => Ok(TokioIo::new(tls)),
            _ => Err(io::Error::other("the server does not speak HTTP/2")),
        }
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, message)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("{} is broken PEM: {error}", path.display())))?;
    match found.is_empty() {
        true => Err(wrong(format!("{} holds no PEM with -----BEGIN CERTIFICATE-----", path.display()))),
        false => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| wrong(format!("{} holds no PEM with -----BEGIN PRIVATE KEY----- ({error})", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(tls: &Tls) -> String {
        let Err(error) = tls.connector() else { panic!("{tls:?} can be used") };
        assert_eq!(error.code(), Code::InvalidArgument);
        error.to_string()
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let nowhere = PathBuf::from("/nowhere/ca.pem");
        let tls = Tls { ca_file: Some(nowhere.clone()), ..Tls::default() };
        assert!(said(&tls).contains("cannot read /nowhere/ca.pem"));
        let no_pem = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let tls = Tls { ca_file: Some(no_pem), ..Tls::default() };
        assert!(said(&tls).contains("Cargo.toml holds no PEM"));
        let tls = Tls { cert_file: Some(nowhere), ..Tls::default() };
        assert!(said(&tls).contains("give both"));
        let tls = Tls { server_name: Some("no name".into()), ..Tls::default() };
        assert!(said(&tls).contains("no name of a host"));
    }
}
