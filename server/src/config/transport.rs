//! Settings of connections: their encryption and their limits.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[server.tls]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// The server's certificate and those between it and its CA, as PEM.
    pub cert_file: Option<PathBuf>,
    /// The key of the certificate, as PEM.
    pub key_file: Option<PathBuf>,
    /// The CA whose certificates clients have to show, as PEM.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients have to show a certificate. They log in all the same.
    #[serde(deserialize_with = "figment::util::bool_from_str_or_int")]
    pub require_client_cert: bool,
}

impl TlsSection {
    /// As a variable or a flag may be set to nothing.
    pub(super) fn drop_empty(&mut self) {
        for file in [&mut self.cert_file, &mut self.key_file, &mut self.client_ca_file] {
            *file = file.take().filter(|path| !path.as_os_str().is_empty());
        }
    }

    /// Half of what belongs together is an error: encryption that is less than somebody believes is worse than none.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let lacking = |set: &str, lacking: &str, why: &str| {
            Err(ConfigError(format!("setting 'server.tls.{set}' needs 'server.tls.{lacking}', {why}")))
        };
        let (cert, key) = (self.cert_file.is_some(), self.key_file.is_some());
        let (ca, required) = (self.client_ca_file.is_some(), self.require_client_cert);
        match () {
            () if cert && !key => lacking("cert_file", "key_file", "the certificate's key (--tls-key)"),
            () if key && !cert => lacking("key_file", "cert_file", "the key's certificate (--tls-cert)"),
            () if ca && !cert => lacking("client_ca_file", "cert_file", "as client certificates come with TLS"),
            () if required && !ca => {
                lacking("require_client_cert", "client_ca_file", "the CA of the clients' certificates")
            }
            () if ca && !required => lacking(
                "client_ca_file",
                "require_client_cert",
                "set to true: a certificate that nobody has to show proves nothing",
            ),
            () => Ok(()),
        }
    }
}

/// `[server.limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Connections at the same time; further ones are closed at once.
    pub connections_max: usize,
    /// Connections at the same time from one address, or one /64 of IPv6; further ones are closed at once.
    pub connections_address_max: usize,
    /// Seconds after which a connection is asked to end: calls that run end as usual, further ones are for a new
    /// connection, which clients make by themselves. 0 = never.
    pub connection_seconds_max: u64,
    /// Seconds that a client has for TLS and for the first bytes of HTTP/2, and then for the whole message of a Handshake.
    pub handshake_seconds: u64,
    /// Seconds after which a connection on which nothing comes in is probed, so that a client that vanished is noticed.
    pub keepalive_seconds: u64,
    /// Seconds that a probe may go unanswered before the connection is closed.
    pub keepalive_timeout_seconds: u64,
    /// Seconds that a call may leave the server waiting for the rest of its message, or for its next one. 0 = for ever.
    pub request_idle_seconds: u64,
    /// Calls at the same time on one connection; clients let further ones wait.
    pub streams_max: u32,
    /// Bytes of headers of one call. JDBC copies unknown properties of its URL into headers.
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

impl LimitsSection {
    /// The settings that must not be 0.
    pub(super) fn positive(&self) -> [(&'static str, u64); 7] {
        [
            ("server.limits.connections_max", self.connections_max as u64),
            ("server.limits.connections_address_max", self.connections_address_max as u64),
            ("server.limits.handshake_seconds", self.handshake_seconds),
            ("server.limits.keepalive_seconds", self.keepalive_seconds),
            ("server.limits.keepalive_timeout_seconds", self.keepalive_timeout_seconds),
            ("server.limits.streams_max", u64::from(self.streams_max)),
            ("server.limits.header_bytes_max", u64::from(self.header_bytes_max)),
        ]
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
            section.validate().map_err(|error| error.to_string())
        };
        for (cert, key, ca, required, named) in [
            (true, false, false, false, "'server.tls.key_file'"),
            (false, true, false, false, "needs 'server.tls.cert_file'"),
            (false, false, true, true, "needs 'server.tls.cert_file'"),
            (true, true, false, true, "needs 'server.tls.client_ca_file'"),
            (false, false, false, true, "needs 'server.tls.client_ca_file'"),
            (true, true, true, false, "needs 'server.tls.require_client_cert'"),
        ] {
            let error = said(cert, key, ca, required).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        for (cert, key, ca, required) in
            [(false, false, false, false), (true, true, false, false), (true, true, true, true)]
        {
            assert_eq!(said(cert, key, ca, required), Ok(()));
        }
    }
}
