//! What a job does: its type and its parameters.
//!
//! Parameters are JSON, as who asks for the job has written them, and are read into a type before anything is done: what is
//! missing and may be has its default, what the type does not know is passed over, and all else is refused with what
//! is expected.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{EngineError, Result};

/// A job of one of these types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum JobSpec {
    /// Hot rows become files.
    Flush(TableJob),
    /// Files become fewer, without rows that nobody reads.
    Compact(TableJob),
    /// Manifests are written again from the records.
    RebuildManifest(TableJob),
    /// The cache of manifests is brought within its limits.
    ManifestEviction(ManifestEvictionJob),
    /// Files that nothing names are removed.
    Cleanup(TablesJob),
    /// Superseded files, entries of the audit log and ends of jobs are removed whose time is over.
    Retention(TablesJob),
    /// Rows of stream tables are removed whose time is over.
    StreamExpiry(TablesJob),
}

/// Parameters of what is done to one table, or to one user's part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct TableJob {
    pub(crate) namespace: String,
    pub(crate) table: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<String>,
}

/// Parameters of what is done to all tables, those of a namespace, one, or one user's part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct TablesJob {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<String>,
}

impl From<TableJob> for TablesJob {
    fn from(TableJob { namespace, table, user_id }: TableJob) -> Self {
        Self { namespace: Some(namespace), table: Some(table), user_id }
    }
}

/// Parameters of an eviction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ManifestEvictionJob {
    /// Entries that stay; those that were not used for longest go first.
    pub(crate) max_entries: u64,
    /// Seconds without use after which an entry leaves memory.
    pub(crate) ttl_seconds: u64,
}

/// A type of job: its name in SQL, that in messages, and the shape of its parameters.
struct Type {
    name: &'static str,
    title: &'static str,
    shape: &'static str,
}

const TABLE: &str = "{namespace, table, user_id?}";
const TABLES: &str = "{namespace?, table?, user_id?}";
const EVICTION: &str = "{max_entries, ttl_seconds}";

const FLUSH: Type = Type { name: "flush", title: "FlushJob", shape: TABLE };
const COMPACT: Type = Type { name: "compact", title: "CompactJob", shape: TABLE };
const REBUILD_MANIFEST: Type = Type { name: "rebuild_manifest", title: "RebuildManifestJob", shape: TABLE };
const MANIFEST_EVICTION: Type = Type { name: "manifest_eviction", title: "ManifestEvictionJob", shape: EVICTION };
const CLEANUP: Type = Type { name: "cleanup", title: "CleanupJob", shape: TABLES };
const RETENTION: Type = Type { name: "retention", title: "RetentionJob", shape: TABLES };
const STREAM_EXPIRY: Type = Type { name: "stream_expiry", title: "StreamExpiryJob", shape: TABLES };

const TYPES: [Type; 7] = [FLUSH, COMPACT, REBUILD_MANIFEST, MANIFEST_EVICTION, CLEANUP, RETENTION, STREAM_EXPIRY];

impl JobSpec {
    /// The job of a type, with parameters as JSON.
    pub(crate) fn parse(name: &str, params: &str) -> Result<Self> {
        let spec = match name.to_ascii_lowercase().as_str() {
            "flush" => Self::Flush(read(&FLUSH, params)?),
            "compact" => Self::Compact(read(&COMPACT, params)?),
            "rebuild_manifest" => Self::RebuildManifest(read(&REBUILD_MANIFEST, params)?),
            "manifest_eviction" => Self::ManifestEviction(read(&MANIFEST_EVICTION, params)?),
            "cleanup" => Self::Cleanup(read(&CLEANUP, params)?),
            "retention" => Self::Retention(read(&RETENTION, params)?),
            "stream_expiry" => Self::StreamExpiry(read(&STREAM_EXPIRY, params)?),
            _ => {
                let known = TYPES.map(|known| known.name).join(", ");
                return Err(EngineError::invalid(format!("unknown job type '{name}': the types are {known}")));
            }
        };
        spec.validate()?;
        Ok(spec)
    }

    /// The name of its type.
    pub(crate) fn name(&self) -> &'static str {
        self.of_type().name
    }

    /// Its parameters as JSON.
    pub(crate) fn params(&self) -> String {
        let json = match self {
            Self::Flush(job) | Self::Compact(job) | Self::RebuildManifest(job) => serde_json::to_string(job),
            Self::ManifestEviction(job) => serde_json::to_string(job),
            Self::Cleanup(job) | Self::Retention(job) | Self::StreamExpiry(job) => serde_json::to_string(job),
        };
        json.unwrap_or_default()
    }

    fn of_type(&self) -> &'static Type {
        match self {
            Self::Flush(_) => &FLUSH,
            Self::Compact(_) => &COMPACT,
            Self::RebuildManifest(_) => &REBUILD_MANIFEST,
            Self::ManifestEviction(_) => &MANIFEST_EVICTION,
            Self::Cleanup(_) => &CLEANUP,
            Self::Retention(_) => &RETENTION,
            Self::StreamExpiry(_) => &STREAM_EXPIRY,
        }
    }

    fn validate(&self) -> Result<()> {
        let wrong = |why: &str| Err(refused(self.of_type(), why));
        match self {
            Self::ManifestEviction(job) if job.max_entries == 0 => wrong("'max_entries' must be at least 1"),
            Self::ManifestEviction(job) if job.ttl_seconds == 0 => wrong("'ttl_seconds' must be at least 1"),
            Self::Cleanup(job) | Self::Retention(job) | Self::StreamExpiry(job)
                if job.table.is_some() && job.namespace.is_none() =>
            {
                wrong("'table' needs its 'namespace'")
            }
            Self::Cleanup(job) | Self::Retention(job) | Self::StreamExpiry(job)
                if job.user_id.is_some() && job.table.is_none() =>
            {
                wrong("'user_id' needs its 'table'")
            }
            _ => Ok(()),
        }
    }
}

fn read<T: DeserializeOwned>(of_type: &Type, params: &str) -> Result<T> {
    // Nothing at all is no parameters.
    let params = if params.trim().is_empty() { "{}" } else { params };
    // A list would be taken for the fields in their order.
    let fields: Map<String, Value> = serde_json::from_str(params).map_err(|error| refused(of_type, &reason(&error)))?;
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let (at, why) = (error.path().to_string(), reason(error.inner()));
        match at.as_str() {
            "." => refused(of_type, &why),
            field => refused(of_type, &format!("field '{field}': {why}")),
        }
    })
}

/// serde's words, without its place in a text that is shown nowhere, and with names as ours have them.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    text.replace('`', "'")
}

fn refused(of_type: &Type, why: &str) -> EngineError {
    EngineError::invalid(format!("{}: {why} (expected {})", of_type.title, of_type.shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, params: &str) -> String {
        JobSpec::parse(name, params).unwrap_err().message
    }

    #[test]
    fn parameters_are_read_and_written() {
        for (name, params, again) in [
            ("flush", r#"{"namespace": "app", "table": "t"}"#, r#"{"namespace":"app","table":"t"}"#),
            (
                "FLUSH",
                r#"{"table": "t", "namespace": "app", "user_id": null, "rows": 3}"#,
                r#"{"namespace":"app","table":"t"}"#,
            ),
            (
                "compact",
                r#"{"namespace":"app","table":"t","user_id":"u"}"#,
                r#"{"namespace":"app","table":"t","user_id":"u"}"#,
            ),
            ("rebuild_manifest", r#"{"namespace":"app","table":"t"}"#, r#"{"namespace":"app","table":"t"}"#),
            ("manifest_eviction", r#"{"max_entries":10,"ttl_seconds":1}"#, r#"{"max_entries":10,"ttl_seconds":1}"#),
            ("cleanup", "", "{}"),
            ("cleanup", r#"{"namespace":"app"}"#, r#"{"namespace":"app"}"#),
            ("retention", "{}", "{}"),
            ("stream_expiry", r#"{"namespace":"app","table":"t"}"#, r#"{"namespace":"app","table":"t"}"#),
        ] {
            let spec = JobSpec::parse(name, params).unwrap();
            assert_eq!((spec.name(), spec.params().as_str()), (name.to_lowercase().as_str(), again));
            assert_eq!(JobSpec::parse(spec.name(), &spec.params()).unwrap(), spec);
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_what_is_expected() {
        let table = "(expected {namespace, table, user_id?})";
        assert_eq!(said("flush", "{}"), format!("FlushJob: missing field 'namespace' {table}"));
        assert_eq!(said("compact", r#"{"namespace":"a"}"#), format!("CompactJob: missing field 'table' {table}"));
        let wrong = said("flush", r#"{"namespace":"a","table":3}"#);
        assert_eq!(wrong, format!("FlushJob: field 'table': invalid type: integer '3', expected a string {table}"));
        assert!(said("flush", "[1").starts_with("FlushJob: "));
        assert!(said("retention", "[]").starts_with("RetentionJob: invalid type: sequence, expected a map"));
        assert!(said("flush", r#"{"namespace":"a","table":"t"} more"#).contains("trailing characters"));
        let eviction = "(expected {max_entries, ttl_seconds})";
        for (params, why) in [
            (r#"{"max_entries":0,"ttl_seconds":1}"#, "'max_entries' must be at least 1"),
            (r#"{"max_entries":1,"ttl_seconds":0}"#, "'ttl_seconds' must be at least 1"),
            (r#"{"max_entries":1}"#, "missing field 'ttl_seconds'"),
        ] {
            assert_eq!(said("manifest_eviction", params), format!("ManifestEvictionJob: {why} {eviction}"));
        }
        assert!(said("manifest_eviction", r#"{"max_entries":-1,"ttl_seconds":1}"#).contains("field 'max_entries'"));
        assert!(said("cleanup", r#"{"table":"t"}"#).contains("'table' needs its 'namespace'"));
        assert!(said("cleanup", r#"{"user_id":"u"}"#).contains("'user_id' needs its 'table'"));
        assert!(said("dance", "{}").contains("the types are flush, compact"));
    }
}
