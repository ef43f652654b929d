//! What the family `batches` holds: a header per scope and a record per batch file.
//!
//! Invariants:
//! 1. A Parquet file means nothing until a record names it.
//! 2. `max_batch` is the highest number ever committed; `next_batch` is above every number ever handed to a writer.
//!    Neither goes back, so that no number is used twice, also after a crash between file and record.
//! 3. `version` rises with every change of the records; `exported` is the version that `manifest.json` shows durably.
//! 4. Rows of a generation in `draining` are covered by a record; they are removed only when that record is exported.
//!
//! The values are JSON. A batch record keeps fields that this build does not know; the header's are ignored.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::bloom::SidecarRef;
use crate::bounds::constant_bounds;
use crate::keys::{BatchNumber, Generation};
use crate::system_columns::{CommitTs, ID, UPDATED, updated_array};

/// The state of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeHeader {
    /// The generation that commits write to.
    pub active: Generation,
    /// Generations that take no more rows and are not flushed yet, oldest first.
    pub sealed: Vec<Generation>,
    /// Flushed generations whose rows are still in RocksDB.
    pub draining: Vec<Generation>,
    /// The number that the next writer of a file gets.
    pub next_batch: BatchNumber,
    /// The highest number that a record ever had; 0 when there was none.
    pub max_batch: BatchNumber,
    /// Version of the records, from 0.
    pub version: u64,
    /// Version of the records that the manifest shows.
    pub exported: u64,
    /// Every commit to this scope up to this one is in files.
    #[serde(default)]
    pub flushed_to: CommitTs,
    /// The records are lost and are still to be recovered; see `recovery/`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovering: bool,
    /// The key index is lost, and is still to be made again from the rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keys_lost: bool,
    /// Files up to this number that no record names were there before the records were recovered: they may be all that is
    /// left of something, and stay.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spared: BatchNumber,
    /// What rows were before this is not known any more: files that said it are gone, or their records were lost.
    #[serde(default, skip_serializing_if = "is_the_beginning")]
    pub history_from: CommitTs,
    /// Versions up to this one are gone with their files, and none that came later. Absent: all up to `history_from` may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_to: Option<CommitTs>,
}

fn is_the_beginning(at: &CommitTs) -> bool {
    *at == CommitTs::default()
}

fn is_zero(number: &BatchNumber) -> bool {
    number.0 == 0
}

impl Default for ScopeHeader {
    fn default() -> Self {
        Self {
            active: Generation::FIRST,
            sealed: Vec::new(),
            draining: Vec::new(),
            next_batch: BatchNumber(1),
            max_batch: BatchNumber(0),
            version: 0,
            exported: 0,
            flushed_to: CommitTs::default(),
            recovering: false,
            keys_lost: false,
            spared: BatchNumber(0),
            history_from: CommitTs::default(),
            gone_to: None,
        }
    }
}

impl ScopeHeader {
    /// Whether the manifest does not show all records, or rows that it covers are still there.
    pub fn is_unfinished(&self) -> bool {
        self.exported != self.version || !self.draining.is_empty()
    }

    /// Every version that came after this one is there.
    pub(crate) fn whole_from(&self) -> CommitTs {
        self.gone_to.unwrap_or(self.history_from)
    }

    /// The generations that readers see, oldest first.
    pub fn visible_generations(&self) -> Vec<Generation> {
        self.sealed.iter().copied().chain([self.active]).collect()
    }
}

/// How a batch file came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchKind {
    /// Latest versions of a flushed generation.
    Flush,
    /// Older versions of a flushed generation, for time travel.
    Archive,
    /// New rows of one commit that bypassed the hot tier. It has no column `_updated`: the record's `min_updated`, which
    /// is its `max_updated`, is that of all rows.
    Bulk,
    /// Rows of other batches, merged.
    Compact,
}

/// Who reads a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchStatus {
    /// Every query.
    Active,
    /// Every query; about to be replaced.
    Compacting,
    /// Time travel only.
    Archived,
    /// Nobody; its file may still be there. No manifest names it.
    Removing,
}

impl BatchStatus {
    /// Whether queries read it.
    pub fn is_read(self) -> bool {
        matches!(self, Self::Active | Self::Compacting)
    }
}

/// Bounds of a column's values in one batch, as JSON values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnBounds {
    /// At most every value; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<serde_json::Value>,
    /// At least every value; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<serde_json::Value>,
    /// Number of NULLs.
    pub null_count: u64,
    /// Whether min and max are values of the column, not just bounds.
    pub exact: bool,
}

/// One batch file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Number within the scope.
    pub batch_number: BatchNumber,
    /// Path below the object store's root.
    pub file_path: String,
    /// How it came to be.
    pub kind: BatchKind,
    /// Who reads it.
    pub status: BatchStatus,
    /// Oldest version in it.
    pub min_updated: CommitTs,
    /// Newest version in it.
    pub max_updated: CommitTs,
    /// Bounds by column name.
    pub column_min_max: BTreeMap<String, ColumnBounds>,
    /// Rows, tombstones included.
    pub row_count: u64,
    /// Length of the file in bytes.
    pub size_bytes: u64,
    /// CRC32 (IEEE) of the file's bytes.
    pub checksum: u32,
    /// Version of the table's schema that it was written with.
    pub schema_version: u32,
    /// Batches whose rows it took over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<BatchNumber>,
    /// Rows that are tombstones.
    #[serde(default)]
    pub tombstones: u64,
    /// The rows that a newer version in another file of the same manifest hides; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletes: Option<DeletesRef>,
    /// The commit that put another file in its place; absent while queries read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<CommitTs>,
    /// Of a bulk file: the version of the records that it came with. Its proof is there when a manifest shows that version,
    /// or when this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Its Bloom filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bloom: Option<SidecarRef>,
    /// What a newer build has added: it stays.
    #[serde(flatten)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// Names the delete vector of a batch: a file in the format of [`crate::delete_vector`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletesRef {
    /// Path below the object store's root.
    pub path: String,
    /// Number of hidden rows.
    pub cardinality: u64,
    /// Every version up to this commit is considered.
    pub as_of: CommitTs,
    /// Length of the file in bytes.
    pub size_bytes: u64,
}

impl BatchRecord {
    /// The record of a bulk file when it is committed: `_updated` of all rows is `ts`. `since`: the version of the records
    /// that it comes with.
    pub(crate) fn committed_at(mut self, ts: CommitTs, since: u64) -> Self {
        self.column_min_max.insert(UPDATED.to_owned(), constant_bounds(&updated_array(vec![ts.get()])));
        Self { min_updated: ts, max_updated: ts, since: Some(since), ..self }
    }

    /// A range that holds every `_id` in it; all of them when none is known.
    pub fn ids(&self) -> RangeInclusive<i64> {
        let bounds = self.column_min_max.get(ID);
        let known = |bound: Option<&serde_json::Value>| bound.and_then(serde_json::Value::as_i64);
        let low = known(bounds.and_then(|bounds| bounds.min.as_ref())).unwrap_or(i64::MIN);
        let high = known(bounds.and_then(|bounds| bounds.max.as_ref())).unwrap_or(i64::MAX);
        low..=high
    }

    /// Whether rows with these ids can be in it.
    pub fn may_hold(&self, ids: &RangeInclusive<i64>) -> bool {
        let own = self.ids();
        own.start() <= ids.end() && ids.start() <= own.end()
    }

    /// `_updated` of all rows, when the file itself does not hold it.
    pub fn updated_of_all(&self) -> Option<CommitTs> {
        (self.kind == BatchKind::Bulk).then_some(self.min_updated)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn bounds_of_floats_come_back_as_they_were(bits: u64) {
            let float = f64::from_bits(bits);
            let bound = float.is_finite().then(|| serde_json::json!(float));
            let bounds = ColumnBounds { min: bound.clone(), max: bound, null_count: 0, exact: true };
            let json = serde_json::to_string(&bounds).unwrap();
            proptest::prop_assert_eq!(serde_json::from_str::<ColumnBounds>(&json).unwrap(), bounds);
        }
    }

    /// The record of an active file.
    pub(crate) fn record(number: u64, file_path: &str, size_bytes: u64) -> BatchRecord {
        BatchRecord {
            batch_number: BatchNumber(number),
            file_path: file_path.into(),
            kind: BatchKind::Flush,
            status: BatchStatus::Active,
            min_updated: CommitTs::stored(1),
            max_updated: CommitTs::stored(2),
            column_min_max: BTreeMap::new(),
            row_count: 1,
            size_bytes,
            checksum: 0,
            schema_version: 1,
            replaces: vec![],
            tombstones: 0,
            deletes: None,
            archived_at: None,
            since: None,
            bloom: None,
            unknown: Default::default(),
        }
    }
}
