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

/// What makes a port that other machines can reach acceptable.
pub(crate) const WAYS_OUT: &str = "a certificate (--tls-cert, --tls-key; `seracdb tls self-signed` makes one for trying out), an address of this \
     machine alone, as 127.0.0.1, or --insecure (server.insecure = true) when something else encrypts";

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

impl Exposure {
    fn of(section: &ServerSection) -> Self {
        if TlsFiles::of(&section.tls).is_some() || section.insecure { Self::Any } else { Self::Loopback }
    }

    fn refuses(self, addresses: &[SocketAddr]) -> bool {
        self == Self::Loopback && addresses.iter().any(is_reachable)
    }
}

/// Whether the port would be refused because other machines can reach it. Of a name it is not said: it is looked up when
/// the port is opened.
pub(crate) fn is_exposed(section: &ServerSection) -> bool {
    let address = section.listen.parse::<SocketAddr>();
    address.is_ok_and(|address| Exposure::of(section).refuses(&[address]))
}

impl Entrance {
    pub(crate) async fn check(section: &ServerSection) -> Result<Self, ServeError> {
        let certificates = TlsFiles::of(&section.tls).map(Certificates::load).transpose()?;
        let addresses = resolve(&section.listen, Exposure::of(section)).await?;
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
    match exposure.refuses(&addresses) {
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
    use crate::config::TlsSection;

    fn listening(listen: &str) -> ServerSection {
        ServerSection { listen: listen.to_owned(), ..ServerSection::default() }
    }

    #[test]
    fn an_address_is_refused_before_it_is_opened_and_a_name_is_not() {
        for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"] {
            assert!(is_exposed(&listening(listen)), "{listen}");
            assert!(!is_exposed(&ServerSection { insecure: true, ..listening(listen) }), "{listen}");
            let tls = TlsSection {
                cert_file: Some("server.pem".into()),
                key_file: Some("server.key".into()),
                ..TlsSection::default()
            };
            assert!(!is_exposed(&ServerSection { tls, ..listening(listen) }), "{listen}");
        }
        for listen in ["127.0.0.1:1", "[::1]:1", "localhost:1", "db.example:1", "nonsense"] {
            assert!(!is_exposed(&listening(listen)), "{listen}");
        }
    }

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
