//! Settings of connections: their encryption and their limits.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// `[server.tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// The server's certificate, and behind it those between it and its CA.
    #[schemars(example = &"/etc/seracdb/server.pem")]
    pub cert_file: Option<PathBuf>,
    /// The key of the certificate, without a passphrase.
    #[schemars(example = &"/etc/seracdb/server.key")]
    pub key_file: Option<PathBuf>,
    /// The CA of the certificates that clients have to show.
    #[schemars(example = &"/etc/seracdb/clients.pem")]
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients have to show one; goes with client_ca_file. They log in all the same.
    pub require_client_cert: bool,
}

impl TlsSection {
    /// Half of what belongs together is an error: encryption that is less than somebody believes is worse than none.
    pub(super) fn problems(&self) -> Option<Problem> {
        let lacking = |set: &str, lacking: &str, why: &str| {
            Some(Problem::lacking(&format!("server.tls.{set}"), &format!("server.tls.{lacking}"), why))
        };
        let (cert, key) = (self.cert_file.is_some(), self.key_file.is_some());
        let (ca, required) = (self.client_ca_file.is_some(), self.require_client_cert);
        match () {
            () if cert && !key => lacking("cert_file", "key_file", "the certificate and its key (--tls-key)"),
            () if key && !cert => lacking("key_file", "cert_file", "the key and its certificate (--tls-cert)"),
            () if ca && !cert => lacking("client_ca_file", "cert_file", "client certificates come with TLS"),
            () if required && !ca => {
                lacking("require_client_cert", "client_ca_file", "that is the CA of the clients' certificates")
            }
            () if ca && !required => {
                lacking("client_ca_file", "require_client_cert", "a certificate that nobody has to show proves nothing")
            }
            () => None,
        }
    }
}

/// `[limits]`, but for what the engine bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Connections at the same time; further ones are closed at once. At most half of the files that the process may
    /// open.
    #[schemars(range(min = 1))]
    pub connections_max: usize,
    /// Connections at the same time from one address, or one /64 of IPv6. Further ones are closed at once. Behind a
    /// proxy all of them come from one.
    #[schemars(range(min = 1))]
    pub connections_address_max: usize,
    /// Seconds after which a connection is asked to end; 0 for never. Calls that run end as usual, and clients connect
    /// again by themselves.
    pub connection_seconds_max: u64,
    /// Seconds that a client has for TLS and the first bytes of HTTP/2, and then for the whole message of a Handshake.
    #[schemars(range(min = 1))]
    pub handshake_seconds: u64,
    /// Seconds after which a connection on which nothing comes in is probed.
    #[schemars(range(min = 1))]
    pub keepalive_seconds: u64,
    /// Seconds that a probe may go unanswered. Then the connection is closed, and what ran for it stops.
    #[schemars(range(min = 1))]
    pub keepalive_timeout_seconds: u64,
    /// Seconds that a call may leave the server waiting for the rest of its message, or for its next one: then it fails
    /// with RESOURCE_EXHAUSTED. 0 for ever.
    pub request_idle_seconds: u64,
    /// Calls at the same time on one connection. Clients let further ones wait.
    #[schemars(range(min = 1))]
    pub streams_max: u32,
    /// Bytes of headers of one call.
    #[schemars(range(min = 1))]
    pub header_bytes_max: u32,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            connections_max: 4000,
            connections_address_max: 1000,
            connection_seconds_max: 86_400,
            handshake_seconds: 10,
            keepalive_seconds: 30,
            keepalive_timeout_seconds: 20,
            request_idle_seconds: 600,
            streams_max: 500,
            header_bytes_max: 64 << 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_tls_is_an_error_that_names_the_other_half() {
        let file = || Some(PathBuf::from("/x"));
        let said = |cert: bool, key: bool, ca: bool, required: bool| {
            let section = TlsSection {
                cert_file: file().filter(|_| cert),
                key_file: file().filter(|_| key),
                client_ca_file: file().filter(|_| ca),
                require_client_cert: required,
            };
            section.problems().map(|problem| problem.to_string())
        };
        for (cert, key, ca, required, named) in [
            (true, false, false, false, "'server.tls.key_file'"),
            (false, true, false, false, "without 'server.tls.cert_file'"),
            (false, false, true, true, "without 'server.tls.cert_file'"),
            (true, true, false, true, "without 'server.tls.client_ca_file'"),
            (false, false, false, true, "without 'server.tls.client_ca_file'"),
            (true, true, true, false, "without 'server.tls.require_client_cert'"),
        ] {
            let problem = said(cert, key, ca, required).unwrap();
            assert!(problem.contains(named), "{problem}");
        }
        for (cert, key, ca, required) in
            [(false, false, false, false), (true, true, false, false), (true, true, true, true)]
        {
            assert_eq!(said(cert, key, ca, required), None);
        }
    }
}
