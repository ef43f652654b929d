//! The settings: one serde tree, loaded once at start and validated before anything is opened.
//!
//! Order, later wins: defaults, the TOML file, environment variables, command line flags. The variable of a setting is
//! `SERACDB_` and its path with `__` for every dot: `SERACDB_SERVER__LISTEN` is `server.listen`. An unknown setting is
//! an error that names it. Only this file and `cli.rs` read files or the environment.

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Empty, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use seracdb_engine::{CacheConfig, EngineConfig, STATEMENT_DEPTH_MAX};
use serde::{Deserialize, Serialize};

use crate::jwt;
mod transport;

pub use self::transport::{LimitsSection, TlsSection};

/// All settings of a server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The Flight SQL port and where data lives.
    pub server: ServerSection,
    /// The HTTP port.
    pub http: HttpSection,
    /// Credentials and sessions.
    pub auth: AuthSection,
    /// How long and how many statements are kept for clients.
    pub flight: FlightSection,
    /// The cache of manifests.
    pub manifest_cache: CacheConfig,
    /// The engine's own settings, with those of the storage in `[engine.storage]`. `data_dir`, `object_store`,
    /// `take_over` and `node_id` come from `[server]`, `manifest_cache` from the section of its name.
    pub engine: EngineConfig,
    /// Logging.
    pub log: LogSection,
}

/// `[server]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSection {
    /// Address and port of Flight SQL. Port 0 takes any free one.
    pub listen: String,
    /// The directory of RocksDB and, unless `object_store` says otherwise, of the cold files.
    pub data_dir: PathBuf,
    /// Where cold files go: absent = below `data_dir`, else `file:///…` or `s3://bucket/prefix`.
    pub object_store: Option<String>,
    /// Whether the object store may be taken from the data directory that owns it, once that one's lease has ended. For
    /// one start, when the other is gone for good.
    #[serde(deserialize_with = "figment::util::bool_from_str_or_int")]
    pub take_over: bool,
    /// Name of this node; its hash is the node part of Snowflake ids.
    pub node_id: String,
    /// Seconds that calls in flight get to finish when the server is asked to stop.
    pub drain_seconds: u64,
    /// Whether Flight SQL may be served without TLS where others than this machine can reach it.
    #[serde(deserialize_with = "figment::util::bool_from_str_or_int")]
    pub insecure: bool,
    /// Certificates: without them there is no TLS.
    pub tls: TlsSection,
    /// What one client, and all of them together, may take of connections.
    pub limits: LimitsSection,
}

impl Default for ServerSection {
    fn default() -> Self {
        let storage = EngineConfig::default().storage;
        Self {
            listen: "127.0.0.1:50051".into(),
            data_dir: storage.data_dir,
            object_store: storage.object_store,
            take_over: storage.take_over,
            node_id: storage.node_id,
            drain_seconds: 10,
            insecure: false,
            tls: TlsSection::default(),
            limits: LimitsSection::default(),
        }
    }
}

/// `[http]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Address and port of `/healthz`. Port 0 takes any free one.
    pub listen: String,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8080".into() }
    }
}

/// `[auth]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSection {
    /// Seconds without a call after which a session ends.
    pub session_idle_seconds: u64,
    /// Sessions at the same time; further logins are refused.
    pub sessions_max: usize,
    /// Seconds for which a checked password is remembered, so that Basic credentials on every call do not cost a
    /// password hash each; 0 = not at all. One that is changed is forgotten at once.
    pub password_cache_seconds: u64,
    /// Wrong passwords of a user in a row, from one address, after which further ones have to wait; 0 = never.
    pub lockout_attempts: u32,
    /// Seconds of the first wait. Each further wrong password doubles it.
    pub lockout_seconds: u64,
    /// Seconds of the longest wait.
    pub lockout_seconds_max: u64,
    /// Users and addresses whose wrong passwords are counted: the last ones.
    pub lockout_entries_max: usize,
    /// Calls at the same time that wait for their login; further ones are refused at once.
    pub logins_max: usize,
    /// Calls at the same time from one address, or one /64 of IPv6, that wait for their login; further ones are refused at
    /// once.
    pub logins_address_max: usize,
    /// File of the public keys (JWKS) that JWTs are signed with; absent = no JWT is taken. Read again when it changes.
    pub jwks_file: Option<PathBuf>,
    /// What the claim `iss` of a JWT has to be. Needed beside `jwks_file`.
    pub jwt_issuer: Option<String>,
    /// What the claim `aud` of a JWT has to be or to hold. Needed beside `jwks_file`.
    pub jwt_audience: Option<String>,
    /// Algorithms that a JWT may be signed with, of those with a public key.
    pub jwt_algorithms: Vec<String>,
    /// The claim with the user's name.
    pub jwt_user_claim: String,
    /// The claim with a role, which can only lower that of the user; every JWT has to have it. Absent = none has one.
    pub jwt_role_claim: Option<String>,
}

impl AuthSection {
    fn validate(&self) -> Result<(), ConfigError> {
        if let Some(name) = self.jwt_algorithms.iter().find(|name| jwt::algorithm(name).is_none()) {
            return Err(ConfigError(format!(
                "setting 'auth.jwt_algorithms' has '{name}': the algorithms are RS256, RS384, RS512, PS256, PS384, PS512, \
                 ES256, ES384 and EdDSA"
            )));
        }
        if self.jwks_file.is_none() {
            return Ok(());
        }
        let is_set = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.is_empty());
        let needed = [
            ("auth.jwt_issuer", is_set(&self.jwt_issuer)),
            ("auth.jwt_audience", is_set(&self.jwt_audience)),
            ("auth.jwt_algorithms", !self.jwt_algorithms.is_empty()),
            ("auth.jwt_user_claim", !self.jwt_user_claim.is_empty()),
        ];
        match needed.iter().find(|(_, is_set)| !is_set) {
            Some((name, _)) => Err(ConfigError(format!("setting '{name}' is needed beside 'auth.jwks_file'"))),
            None => Ok(()),
        }
    }
}

impl Default for AuthSection {
    fn default() -> Self {
        Self {
            session_idle_seconds: 3600,
            sessions_max: 10_000,
            password_cache_seconds: 15,
            lockout_attempts: 10,
            lockout_seconds: 1,
            lockout_seconds_max: 900,
            lockout_entries_max: 100_000,
            logins_max: 1000,
            logins_address_max: 250,
            jwks_file: None,
            jwt_issuer: None,
            jwt_audience: None,
            jwt_algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
            jwt_user_claim: "sub".into(),
            jwt_role_claim: None,
        }
    }
}

/// `[flight]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlightSection {
    /// Seconds for which an unused ticket stays valid.
    pub ticket_idle_seconds: u64,
    /// Tickets not fetched yet at the same time; further statements are refused.
    pub tickets_max: usize,
    /// Seconds without use after which a prepared statement is forgotten.
    pub prepared_idle_seconds: u64,
    /// Prepared statements at the same time; further ones are refused.
    pub prepared_max: usize,
    /// Prepared statements of one session; beyond that, the one that it has not used for the longest time is forgotten.
    pub prepared_session_max: usize,
    /// Bytes of parameters that may be bound to one prepared statement.
    pub bound_bytes_max: usize,
    /// Bytes of parameters that may be bound to all of them together.
    pub bound_memory_max: usize,
    /// Bytes of memory for reading messages of clients, of all calls together; beyond, large messages wait for each other.
    pub decoding_bytes_max: u64,
    /// Seconds after which a result that is not read to its end is given up: as long as it lives, it keeps alive the
    /// snapshot that it reads.
    pub result_seconds_max: u64,
    /// Seconds for which a client may let a result wait, all in all, before what is left of it is computed and waits on
    /// disk.
    pub spool_after_seconds: u64,
    /// Bytes of results that may wait on disk; results that find no room there wait in memory, and keep their snapshot.
    pub spool_bytes_max: u64,
    /// Bytes of results of one user that may wait on disk. Beyond, its clients have to read: one that does not is told so.
    pub spool_user_bytes_max: u64,
}

impl Default for FlightSection {
    fn default() -> Self {
        Self {
            ticket_idle_seconds: 300,
            tickets_max: 20_000,
            prepared_idle_seconds: 3600,
            prepared_max: 20_000,
            prepared_session_max: 1000,
            bound_bytes_max: 256 << 20,
            bound_memory_max: 1 << 30,
            decoding_bytes_max: 1 << 30,
            result_seconds_max: 3600,
            spool_after_seconds: 30,
            spool_bytes_max: 8 << 30,
            spool_user_bytes_max: 4 << 30,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// What to log, in tracing's filter syntax: `info`, `warn,seracdb=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings that cannot be used; the text names the setting and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Settings of the storage that stand where people look for them, and not in its own part of the tree.
const MOVED: [(&str, &str); 5] = [
    ("data_dir", "server.data_dir"),
    ("object_store", "server.object_store"),
    ("take_over", "server.take_over"),
    ("node_id", "server.node_id"),
    ("manifest_cache", "manifest_cache"),
];

impl ServerConfig {
    /// Loads the settings. `file`: the TOML file, which has to exist when given. `variables`: the environment;
    /// names that do not start with `SERACDB_` or have no `__` are ignored. `flags`: paths of settings and values.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(file) = file {
            let text = std::fs::read_to_string(file)
                .map_err(|e| ConfigError(format!("cannot read the configuration file {}: {e}", file.display())))?;
            figment = figment.merge(Toml::string(&text));
        }
        for variable in variables.into_iter().filter_map(|(name, value)| Variable::new(name, value)) {
            figment = figment.merge(variable);
        }
        for (path, value) in flags {
            figment = figment.merge(Serialized::default(path, value));
        }
        if let Some((name, instead)) =
            MOVED.iter().find(|(name, _)| figment.contains(&format!("engine.storage.{name}")))
        {
            return Err(ConfigError(format!("setting 'engine.storage.{name}' is not used: set '{instead}'")));
        }
        let mut config: Self = figment.extract().map_err(|error| ConfigError(describe(error)))?;
        // As the variable may be set to nothing.
        config.server.object_store = config.server.object_store.filter(|url| !url.is_empty());
        config.auth.jwks_file = config.auth.jwks_file.filter(|file| !file.as_os_str().is_empty());
        config.server.tls.drop_empty();
        let storage = &mut config.engine.storage;
        storage.data_dir.clone_from(&config.server.data_dir);
        storage.object_store.clone_from(&config.server.object_store);
        storage.take_over = config.server.take_over;
        storage.node_id.clone_from(&config.server.node_id);
        storage.manifest_cache.clone_from(&config.manifest_cache);
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("engine.storage.lease_seconds", u64::from(self.engine.storage.lease_seconds)),
            ("manifest_cache.ttl_seconds", self.manifest_cache.ttl_seconds),
            ("manifest_cache.eviction_interval_seconds", self.manifest_cache.eviction_interval_seconds),
            ("manifest_cache.max_entries", self.manifest_cache.max_entries as u64),
            ("auth.session_idle_seconds", self.auth.session_idle_seconds),
            ("auth.sessions_max", self.auth.sessions_max as u64),
            ("auth.lockout_seconds", self.auth.lockout_seconds),
            ("auth.lockout_seconds_max", self.auth.lockout_seconds_max),
            ("auth.lockout_entries_max", self.auth.lockout_entries_max as u64),
            ("auth.logins_max", self.auth.logins_max as u64),
            ("auth.logins_address_max", self.auth.logins_address_max as u64),
            ("flight.ticket_idle_seconds", self.flight.ticket_idle_seconds),
            ("flight.tickets_max", self.flight.tickets_max as u64),
            ("flight.prepared_idle_seconds", self.flight.prepared_idle_seconds),
            ("flight.prepared_max", self.flight.prepared_max as u64),
            ("flight.prepared_session_max", self.flight.prepared_session_max as u64),
            ("flight.decoding_bytes_max", self.flight.decoding_bytes_max),
            ("flight.result_seconds_max", self.flight.result_seconds_max),
            ("engine.statement_depth_max", self.engine.statement_depth_max as u64),
            ("engine.user.queries_max", self.engine.user.queries_max as u64),
            ("engine.user.temporary_tables_max", self.engine.user.temporary_tables_max as u64),
        ];
        let positive = positive.into_iter().chain(self.server.limits.positive());
        if self.engine.statement_depth_max > STATEMENT_DEPTH_MAX {
            return Err(ConfigError(format!(
                "setting 'engine.statement_depth_max' is {}: at most {STATEMENT_DEPTH_MAX} fit on a thread's stack",
                self.engine.statement_depth_max
            )));
        }
        if let Some((name, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError(format!("setting '{name}' must be at least 1")));
        }
        self.auth.validate()?;
        for (name, listen) in [("server.listen", &self.server.listen), ("http.listen", &self.http.listen)] {
            let port = listen.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return Err(ConfigError(format!("setting '{name}' is '{listen}': give ADDRESS:PORT")));
            }
        }
        self.server.tls.validate()
    }
}

/// One environment variable as a source of one setting.
struct Variable {
    name: String,
    path: String,
    value: String,
}

impl Variable {
    fn new(name: String, value: String) -> Option<Self> {
        // Without a section it is no setting: SERACDB_ROOT_PASSWORD, SERACDB_PASSWORD.
        let path = name.strip_prefix("SERACDB_").filter(|path| path.contains("__"))?;
        Some(Self { path: path.to_ascii_lowercase().replace("__", "."), name, value })
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(format!("environment variable {}", self.name))
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let defaults = Value::serialize(ServerConfig::default())?;
        let value = match defaults.find_ref(&self.path) {
            Some(Value::Empty(..)) if self.value.is_empty() => Value::from(Empty::None),
            // A text stays one, whatever it looks like: the node may be called 1.
            Some(Value::String(..) | Value::Empty(..)) => Value::from(self.value.clone()),
            _ => match self.value.parse::<Value>() {
                Ok(value) => value,
                Err(never) => match never {},
            },
        };
        let nested = figment::util::nest(&self.path, value);
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

fn describe(error: figment::Error) -> String {
    let source = match &error.metadata {
        Some(metadata) if metadata.name.starts_with("environment variable") => format!(" ({})", metadata.name),
        _ => String::new(),
    };
    let path = error.path.join(".");
    match &error.kind {
        figment::error::Kind::UnknownField(name, expected) => {
            let section = path.strip_suffix(name.as_str()).unwrap_or(&path).trim_end_matches('.');
            let full = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            format!("unknown setting '{full}'{source}: known here are {}", expected.join(", "))
        }
        kind if path.is_empty() => format!("cannot read the configuration{source}: {kind}"),
        kind => format!("setting '{path}'{source}: {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<ServerConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seracdb.toml");
        std::fs::write(&file, toml).unwrap();
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let flags: Vec<_> = flags.iter().map(|(path, value)| (*path, value.to_string())).collect();
        ServerConfig::load(Some(&file), variables, &flags).map_err(|error| error.to_string())
    }

    #[test]
    fn later_sources_win() {
        let toml = "[server]\nlisten = '1.1.1.1:1'\ndata_dir = '/file'\nnode_id = 'file'";
        let variables = [("SERACDB_SERVER__LISTEN", "2.2.2.2:2"), ("SERACDB_SERVER__DATA_DIR", "/env")];
        let variables = [&variables[..], &[("SERACDB_MANIFEST_CACHE__TTL_SECONDS", "7")]].concat();
        let config = load(toml, &variables, &[("server.listen", "3.3.3.3:3")]).unwrap();
        assert_eq!(config.engine.storage.manifest_cache.ttl_seconds, 7);
        assert_eq!(config.server.listen, "3.3.3.3:3");
        assert_eq!(config.engine.storage.data_dir, Path::new("/env"));
        assert_eq!(config.engine.storage.node_id, "file");
        assert_eq!(config.http.listen, "127.0.0.1:8080");
    }

    #[test]
    fn a_take_over_is_asked_for_in_each_of_the_ways() {
        assert!(!load("", &[], &[]).unwrap().engine.storage.take_over);
        assert!(load("[server]\ntake_over = true", &[], &[]).unwrap().engine.storage.take_over);
        assert!(load("", &[("SERACDB_SERVER__TAKE_OVER", "true")], &[]).unwrap().engine.storage.take_over);
        assert!(load("", &[], &[("server.take_over", "true")]).unwrap().engine.storage.take_over);
    }

    #[test]
    fn unknown_settings_are_named() {
        let error = load("[server]\nlisten_on = 1", &[], &[]).unwrap_err();
        assert!(error.contains("unknown setting 'server.listen_on'"), "{error}");
        let error = load("", &[("SERACDB_HTTP__PORT", "1")], &[]).unwrap_err();
        assert!(error.contains("unknown setting 'http.port'"), "{error}");
        assert!(error.contains("SERACDB_HTTP__PORT"), "{error}");
        let error = load("[htpp]\nlisten = 'x:1'", &[], &[]).unwrap_err();
        assert!(error.contains("unknown setting 'htpp'"), "{error}");
    }

    #[test]
    fn wrong_values_are_named() {
        let error = load("[auth]\nsession_idle_seconds = 'soon'", &[], &[]).unwrap_err();
        assert!(error.contains("'auth.session_idle_seconds'"), "{error}");
        let error = load("[server]\nlisten = 'localhost'", &[], &[]).unwrap_err();
        assert!(error.contains("'server.listen'"), "{error}");
        let error = load("[engine.storage]\ndata_dir = '/x'", &[], &[]).unwrap_err();
        assert!(error.contains("server.data_dir"), "{error}");
        let error = load("[flight]\ntickets_max = 0", &[], &[]).unwrap_err();
        assert!(error.contains("'flight.tickets_max'"), "{error}");
        let error = load("[engine.storage]\nlease_seconds = 0", &[], &[]).unwrap_err();
        assert!(error.contains("'engine.storage.lease_seconds'"), "{error}");
        let error = load("[manifest_cache]\nttl_seconds = 0", &[], &[]).unwrap_err();
        assert!(error.contains("'manifest_cache.ttl_seconds'"), "{error}");
        let error = load("[engine.storage.manifest_cache]\nttl_seconds = 1", &[], &[]).unwrap_err();
        assert!(error.contains("set 'manifest_cache'"), "{error}");
        let error = load("[engine]\nstatement_depth_max = 501", &[], &[]).unwrap_err();
        assert!(error.contains("'engine.statement_depth_max'") && error.contains("500"), "{error}");
        let error = load("[server.limits]\nstreams_max = 0", &[], &[]).unwrap_err();
        assert!(error.contains("'server.limits.streams_max'"), "{error}");
        let error = load("[server]\ntake_over = 'perhaps'", &[], &[]).unwrap_err();
        assert!(error.contains("'server.take_over'"), "{error}");
    }

    /// Every setting's path with its default, which is empty when there is none.
    fn leaves() -> Vec<(String, Value)> {
        let mut found = vec![];
        let mut waiting = vec![(String::new(), Value::serialize(ServerConfig::default()).unwrap())];
        while let Some((path, value)) = waiting.pop() {
            match value {
                Value::Dict(_, fields) => waiting.extend(
                    fields
                        .into_iter()
                        .map(|(name, value)| (if path.is_empty() { name } else { format!("{path}.{name}") }, value)),
                ),
                value => found.push((path, value)),
            }
        }
        // These are in other sections.
        found.retain(|(path, _)| {
            let own = path.strip_prefix("engine.storage.").and_then(|path| path.split('.').next());
            !MOVED.iter().any(|(name, _)| own == Some(*name))
        });
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    fn leaf(config: &ServerConfig, path: &str) -> Value {
        Value::serialize(config).unwrap().find(path).unwrap()
    }

    /// Another value than the default, as a variable has it; for texts one that looks like a number.
    fn another(path: &str, default: &Value) -> String {
        match (path, default) {
            ("server.listen" | "http.listen", _) => "1:2".into(),
            ("log.format", _) => "json".into(),
            ("engine.storage.durability", _) => "relaxed".into(),
            ("engine.pruning.pushdown", _) => "never".into(),
            ("auth.jwt_algorithms", _) => "[\"ES384\"]".into(),
            (_, Value::Bool(_, value)) => (!value).to_string(),
            _ => "17".into(),
        }
    }

    #[test]
    fn every_setting_has_its_variable() {
        // Half of TLS is refused.
        let tls = [
            ("SERACDB_SERVER__TLS__CERT_FILE", "x"),
            ("SERACDB_SERVER__TLS__KEY_FILE", "x"),
            ("SERACDB_SERVER__TLS__CLIENT_CA_FILE", "x"),
            ("SERACDB_SERVER__TLS__REQUIRE_CLIENT_CERT", "true"),
        ];
        let leaves = leaves();
        assert!(leaves.len() > 25, "{leaves:?}");
        for (path, default) in leaves {
            let variable = format!("SERACDB_{}", path.to_uppercase().replace('.', "__"));
            let wanted = another(&path, &default);
            // What a file of keys needs beside it.
            let beside = if path == "auth.jwks_file" { "[auth]\njwt_issuer = 'i'\njwt_audience = 'a'" } else { "" };
            let others = if path.starts_with("server.tls.") { &tls[..] } else { &[] };
            let variables = [others, &[(&*variable, &*wanted)]].concat();
            let config = load(beside, &variables, &[]).unwrap();
            let found = leaf(&config, &path);
            if let Value::Array(_, items) = &found {
                assert_eq!(format!("[\"{}\"]", items[0].as_str().unwrap()), wanted, "{variable}");
                continue;
            }
            let found = match found.clone().into_string() {
                Some(text) => text,
                None => found
                    .to_num()
                    .map(|number| number.to_u128().unwrap().to_string())
                    .unwrap_or_else(|| found.to_bool().unwrap().to_string()),
            };
            assert_eq!(found, wanted, "{variable}");
        }
    }

    #[test]
    fn an_empty_object_store_is_none() {
        assert_eq!(load("", &[("SERACDB_SERVER__OBJECT_STORE", "")], &[]).unwrap().server.object_store, None);
        let toml = "[server]\nobject_store = 'file:///x'";
        assert_eq!(load(toml, &[("SERACDB_SERVER__OBJECT_STORE", "")], &[]).unwrap().engine.storage.object_store, None);
        assert_eq!(load("", &[], &[("server.object_store", "")]).unwrap().server.object_store, None);
        assert_eq!(load("[server]\nobject_store = ''", &[], &[]).unwrap().server.object_store, None);
    }

    /// The page's settings: what its TOML sets, and what it has as a comment because there is no default.
    #[test]
    fn the_page_of_settings_has_them_all_with_their_defaults() {
        let page = include_str!("../../docs/configuration.md");
        let toml = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let mut section = String::new();
        let mut said = vec![];
        for line in toml.lines() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some((name, _)) = line.split_once(" = ") {
                let name = name.strip_prefix("# ").unwrap_or(name);
                said.push(format!("{section}.{name}"));
            }
        }
        said.sort();
        let known: Vec<_> = leaves().into_iter().map(|(path, _)| path).collect();
        assert_eq!(said, known);
        // With the defaults, the file changes nothing.
        let set: ServerConfig = Figment::new().merge(Toml::string(toml)).extract().unwrap();
        assert_eq!(Value::serialize(set).unwrap(), Value::serialize(ServerConfig::default()).unwrap());
        let lines = toml.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let set = Figment::new().merge(Toml::string(&lines));
        for (path, default) in leaves() {
            let is_set = set.find_value(&path).is_ok();
            assert_eq!(is_set, !matches!(default, Value::Empty(..)), "{path}");
        }
    }

    #[test]
    fn jwts_need_all_that_makes_them_safe() {
        let complete = "jwks_file = '/k'\njwt_issuer = 'i'\njwt_audience = 'a'";
        let auth = |lines: &str| load(&format!("[auth]\n{lines}"), &[], &[]);
        assert!(auth(complete).unwrap().auth.jwks_file.is_some());
        for left_out in ["jwt_issuer", "jwt_audience"] {
            let lines: Vec<_> = complete.lines().filter(|line| !line.starts_with(left_out)).collect();
            assert!(auth(&lines.join("\n")).unwrap_err().contains(&format!("'auth.{left_out}' is needed")));
        }
        for wrong in ["none", "HS256", "RS257"] {
            let error = auth(&format!("{complete}\njwt_algorithms = ['RS256', '{wrong}']")).unwrap_err();
            assert!(error.contains(&format!("has '{wrong}'")), "{error}");
        }
        assert!(auth(&format!("{complete}\njwt_algorithms = []")).is_err());
        assert!(auth(&format!("{complete}\njwt_user_claim = ''")).is_err());
        let variables = [("SERACDB_AUTH__JWT_ALGORITHMS", "[\"ES384\"]"), ("SERACDB_AUTH__JWKS_FILE", "")];
        let config = load("", &variables, &[]).unwrap();
        assert_eq!((config.auth.jwt_algorithms, config.auth.jwks_file), (vec!["ES384".to_owned()], None));
    }

    #[test]
    fn variables_without_a_section_are_no_settings() {
        assert!(load("", &[("SERACDB_ROOT_PASSWORD", "x"), ("OTHER__LISTEN", "y")], &[]).is_ok());
    }
}
