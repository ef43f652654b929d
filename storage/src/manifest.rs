//! `manifest.json`: a scope's batch records, as anyone can read them.
//!
//! The records in RocksDB decide; the manifest is their durable export, from which a lost data directory is rebuilt.
//! [`Manifest::of`] is the only maker and [`crate::objects::Objects::put`] the only way out: whole or not at all.

use serde::{Deserialize, Serialize};

use crate::keys::{BatchNumber, TableId};
use crate::records::{BatchRecord, ScopeHeader};
use crate::system_columns::CommitTs;

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
}

impl Manifest {
    /// The manifest of these records.
    pub fn of(
        table: TableId,
        user: Option<&str>,
        header: &ScopeHeader,
        batches: Vec<BatchRecord>,
        epoch: u64,
        now_ns: i64,
    ) -> Self {
        Self {
            format_version: MANIFEST_FORMAT,
            table_id: table,
            scope: user.map_or_else(|| "shared".to_owned(), |name| format!("user:{name}")),
            version: header.version,
            epoch,
            generated_at: now_ns,
            max_batch: header.max_batch,
            flushed_to: header.flushed_to,
            batches,
        }
    }

    /// The bytes of the file.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest has only strings as keys")
    }
}
