//! The settings: one tree of types, loaded once at start and checked before anything is opened.
//!
//! Order, later wins: defaults, the TOML file, environment variables, flags. The variable of a setting is `SERACDB_` and its
//! path with `__` for every dot: `SERACDB_SERVER__LISTEN` is `server.listen`. What a setting is called, may be and is for
//! stands at its type (`settings.rs`); the page of settings and `seracdb config default` are made from that.
//!
//! Invariants:
//! 1. Only this folder, and `cli.rs` for it, reads the file and the environment. What is read later are files that settings
//!    name: certificates and keys.
//! 2. All mistakes are reported at once, each with where it is, what was found and what is expected (`problem.rs`).
//! 3. A setting that cannot be used keeps the server from starting.

mod auth;
mod engine;
mod flight;
mod given;
mod load;
mod logging;
mod mask;
mod problem;
mod settings;
mod show;
#[cfg(test)]
mod tests;
mod transport;

use schemars::JsonSchema;
use seracdb_engine::EngineConfig;
use serde::{Deserialize, Serialize};

pub use self::auth::AuthSection;
pub use self::flight::FlightSection;
pub use self::load::{Loaded, load};
pub use self::logging::{LogFormat, LogSection};
pub use self::problem::{ConfigError, Problem};
pub use self::show::{default_file, merged_file};
pub use self::transport::{LimitsSection, TlsSection};
use crate::transport::{WAYS_OUT, is_exposed};

/// All settings of a server.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The Flight SQL port.
    pub server: ServerSection,
    /// The HTTP port.
    pub http: HttpSection,
    /// Credentials and sessions.
    pub auth: AuthSection,
    /// What is kept for clients, and for how long.
    pub flight: FlightSection,
    /// What clients may take of connections, statements and memory.
    pub limits: LimitsSection,
    /// The engine's own settings, and those of the storage below it.
    pub engine: EngineConfig,
    /// Logging.
    pub log: LogSection,
}

/// `[server]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSection {
    /// Address and port of Flight SQL. Port 0 takes a free one; "0.0.0.0:50051" listens on all addresses, with TLS or with
    /// insecure.
    pub listen: String,
    /// Seconds that running calls get when the server is asked to stop. Then they are cut off.
    pub drain_seconds: u64,
    /// Whether Flight SQL may be served without TLS where other machines can reach it. Only behind what encrypts.
    pub insecure: bool,
    /// TLS, from 1.2 on; without a certificate there is none. Files are PEM, and are read again when they change and on
    /// SIGHUP. See security.md.
    pub tls: TlsSection,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self { listen: "127.0.0.1:50051".into(), drain_seconds: 10, insecure: false, tls: TlsSection::default() }
    }
}

/// `[http]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Address and port of /healthz, /readyz and /metrics, which everybody may ask. They tell figures of all users together,
    /// and nothing else. Port 0 takes a free one.
    pub listen: String,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".into() }
    }
}

impl ServerConfig {
    /// What is wrong with values that are each of their type, by the rules of those who use them; nothing is opened or looked
    /// up for it.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        for (key, listen) in [("server.listen", &self.server.listen), ("http.listen", &self.http.listen)] {
            let port = listen.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                found.push(Problem::value(key, listen.as_str(), "ADDRESS:PORT, as 127.0.0.1:50051"));
            }
        }
        found.extend(self.auth.problems());
        match self.server.tls.problems() {
            // Who gave half of it does not want to be without TLS.
            Some(half) => found.push(half),
            None if is_exposed(&self.server) => found.push(Problem {
                place: String::new(),
                key: "server.listen".to_owned(),
                found: format!("'{}', which other machines can reach, and no TLS", self.server.listen),
                expected: WAYS_OUT.to_owned(),
            }),
            None => {}
        }
        found.extend(self.log.problems());
        found.extend(engine::problems(&self.engine));
        found
    }
}
