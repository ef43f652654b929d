//! `manifest.json`: a scope's batch records, as anyone can read them.
//!
//! ```text
//! records (RocksDB) ── export ──▶ manifest.json ── read ──▶ cache (memory over RocksDB) ──▶ SHOW MANIFEST
//!        ▲                              │
//!        └───────── recovery ───────────┘   when the records are lost; without the manifest from the footers
//! ```
//!
//! Invariants:
//! 1. The records in RocksDB decide. The manifest is their durable export, written whole or not at all, and is made only by
//!    [`Manifest::of`].
//! 2. `store::ManifestStore` alone reads and writes manifest files.
//! 3. `max_batch` is the highest number ever committed; a scope that has committed none has no file, and reads as 0.
//! 4. Fields that this build does not know stay as they are; a newer `format_version` is refused.

pub(crate) mod cache;
mod check;
pub(crate) mod store;
#[cfg(test)]
mod store_tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::keys::{BatchNumber, TableId};
use crate::records::{BatchRecord, ScopeHeader};
use crate::scope_place::ScopePlace;
use crate::system_columns::CommitTs;

pub use cache::{CacheConfig, CacheTotals, CachedEntry, SyncState};
pub use check::Fault;
pub(crate) use check::{check_files, grace_of, orphans};

/// The version of the format that this build writes, and the highest it reads.
pub const MANIFEST_FORMAT: u32 = 1;

/// A scope's manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format_version: u32,
    /// The table.
    pub table_id: TableId,
    /// `shared`, or `user:` and the user's name.
    pub scope: String,
    /// Version of the records.
    pub version: u64,
    /// Of the owner of the object store that wrote it; 0 when only this data directory can own it.
    #[serde(default)]
    pub epoch: u64,
    /// When it was written, in ns since the Unix epoch.
    pub generated_at: i64,
    /// The highest number ever committed; 0 when there was none.
    pub max_batch: BatchNumber,
    /// Every commit to the scope up to this one is in these batches.
    #[serde(default)]
    pub flushed_to: CommitTs,
    /// The batches by number.
    pub batches: Vec<BatchRecord>,
    /// What a newer build has added.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Manifest {
    /// The manifest of these records.
    pub fn of(
        place: &ScopePlace,
        header: &ScopeHeader,
        records: &[BatchRecord],
        epoch: u64,
        now_ns: i64,
        unknown: Map<String, Value>,
    ) -> Self {
        Self {
            format_version: MANIFEST_FORMAT,
            table_id: place.scope.table,
            scope: place.scope_name(),
            version: header.version,
            epoch,
            generated_at: now_ns,
            max_batch: header.max_batch,
            flushed_to: header.flushed_to,
            batches: check::exported(records).cloned().collect(),
            unknown,
        }
    }

    /// Reads the bytes of a file, and checks that it agrees with itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let not_json = |error: serde_json::Error| Fault::Unreadable(error.to_string());
        let Version { format_version } = serde_json::from_slice(bytes).map_err(not_json)?;
        if format_version > MANIFEST_FORMAT {
            return Err(Fault::Newer { found: format_version });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(not_json)?;
        manifest.check_itself()?;
        Ok(manifest)
    }

    /// The bytes of the file.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest has only strings as keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = r#"{
        "format_version": 1, "table_id": 7, "scope": "shared", "version": 3, "generated_at": 5, "max_batch": 2,
        "batches": [{"batch_number": 2, "file_path": "app/t/shared/batch-0002.parquet", "kind": "flush",
            "status": "active", "min_updated": 1, "max_updated": 9, "column_min_max": {"a": {"min": 0.1, "max": 18446744073709551615,
            "null_count": 0, "exact": true}}, "row_count": 3, "size_bytes": 10, "checksum": 1, "schema_version": 1,
            "colour": [1, {"deep": null}]}],
        "later": {"field": 12345678901234567890}
    }"#;

    #[test]
    fn unknown_fields_stay() {
        let manifest = Manifest::parse(WRITTEN.as_bytes()).unwrap();
        assert_eq!((manifest.epoch, manifest.batches[0].tombstones), (0, 0));
        let again: Value = serde_json::from_slice(&manifest.to_json()).unwrap();
        assert_eq!(again["later"]["field"].as_u64(), Some(12_345_678_901_234_567_890));
        assert_eq!(again["batches"][0]["colour"][1]["deep"], Value::Null);
        assert_eq!(again["batches"][0]["column_min_max"]["a"]["max"].as_u64(), Some(u64::MAX));
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn what_does_not_agree_with_itself_is_refused() {
        let fault = |from: &str, to: &str| {
            assert!(WRITTEN.contains(from), "{from}");
            Manifest::parse(WRITTEN.replacen(from, to, 1).as_bytes()).unwrap_err().to_string()
        };
        assert!(fault(r#""format_version": 1"#, r#""format_version": 2"#).contains("newer build"));
        assert!(fault(r#""max_batch": 2"#, r#""max_batch": 1"#).contains("batch 2"));
        assert!(fault(r#""min_updated": 1"#, r#""min_updated": 10"#).contains("batch 2"));
        assert!(fault(r#""version": 3,"#, "").contains("version"));
        for end in [0, 1, WRITTEN.len() / 2, WRITTEN.len() - 1] {
            assert!(Manifest::parse(&WRITTEN.as_bytes()[..end]).is_err(), "{end} bytes");
        }
    }
}
