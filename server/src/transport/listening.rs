//! Where the server listens: without TLS, and unless somebody has said that it may, only where this machine alone can reach
//! it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::files::TlsFiles;
use super::rotation::Certificates;
use crate::config::ServerSection;
use crate::lifecycle::ServeError;

const LISTEN: &str = "server.listen";

/// The way in as the settings have it, checked before anything is opened.
pub(crate) struct Entrance {
    listen: String,
    addresses: Vec<SocketAddr>,
    certificates: Option<Arc<Certificates>>,
}

/// From where a port may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exposure {
    /// From everywhere.
    Any,
    /// From this machine.
    Loopback,
}

impl Entrance {
    pub(crate) async fn check(section: &ServerSection) -> Result<Self, ServeError> {
        let certificates = TlsFiles::of(&section.tls).map(Certificates::load).transpose()?;
        let exposure = if certificates.is_some() || section.insecure { Exposure::Any } else { Exposure::Loopback };
        let addresses = resolve(&section.listen, exposure).await?;
        Ok(Self { listen: section.listen.clone(), addresses, certificates })
    }

    pub(crate) async fn listen(&self) -> Result<TcpListener, ServeError> {
        let failed = |source| ServeError::Listen { setting: LISTEN, listen: self.listen.clone(), source };
        TcpListener::bind(&self.addresses[..]).await.map_err(failed)
    }

    pub(crate) fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    /// What clients put before the address.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.certificates.is_some() { "grpc+tls" } else { "grpc" }
    }
}

/// The addresses that `listen` names. All of them have to be where `exposure` allows.
async fn resolve(listen: &str, exposure: Exposure) -> Result<Vec<SocketAddr>, ServeError> {
    let failed = |source| ServeError::Listen { setting: LISTEN, listen: listen.to_owned(), source };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen).await.map_err(failed)?.collect();
    match exposure == Exposure::Loopback && addresses.iter().any(is_reachable) {
        true => Err(ServeError::Exposed { listen: listen.to_owned() }),
        false => Ok(addresses),
    }
}

/// Whether other machines can reach it.
fn is_reachable(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_loopback_is_not_reachable() {
        for listen in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
            assert!(resolve(listen, Exposure::Loopback).await.is_ok(), "{listen}");
        }
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"] {
            let error = resolve(listen, Exposure::Loopback).await.unwrap_err();
            assert!(matches!(error, ServeError::Exposed { .. }), "{listen}: {error}");
            assert!(resolve(listen, Exposure::Any).await.is_ok(), "{listen}");
        }
    }
}
