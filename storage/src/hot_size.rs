//! How much of a scope is hot, and from when on it is flushed by itself.
//!
//! The committer counts what it appends to a scope's active generation. After a restart a count goes on from what RocksDB's
//! files say about the size; what was superseded before is then not known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commit::{Location, ScopeWrite, Values};
use crate::keys::Generation;

/// When hot rows are flushed by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlushConfig {
    /// Whether hot rows are flushed by themselves.
    pub automatic: bool,
    /// Bytes of hot rows, from which on a table (or one user's part of it) is flushed.
    pub hot_bytes_max: u64,
    /// Hot versions of rows that are superseded or deleted, from which on it is flushed, once they are half of all.
    pub dead_versions_max: u64,
}

impl Default for FlushConfig {
    fn default() -> Self {
        Self { automatic: true, hot_bytes_max: 64 << 20, dead_versions_max: 16 << 10 }
    }
}

impl FlushConfig {
    /// Whether a scope that grew like this is to be flushed. Said once each time a limit is reached again, so that a flush
    /// that failed is tried anew.
    pub(crate) fn is_due(&self, before: HotSize, after: HotSize) -> bool {
        self.automatic
            && (after.bytes / self.hot_bytes_max.max(1) > before.bytes / self.hot_bytes_max.max(1)
                || self.times_dead(after) > self.times_dead(before))
    }

    fn times_dead(&self, size: HotSize) -> u64 {
        if size.dead * 2 >= size.versions { size.dead / self.dead_versions_max.max(1) } else { 0 }
    }
}

/// What lies in the active generation of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct HotSize {
    versions: u64,
    /// Versions that are superseded, and tombstones.
    dead: u64,
    bytes: u64,
}

impl HotSize {
    /// Of this many bytes, and nothing else known.
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// With what a write appends to generation `active`.
    pub(crate) fn with(self, write: &ScopeWrite, active: Generation) -> Self {
        let superseded = write.supersedes.iter().filter(|old| old.location == Location::Hot(active)).count();
        let tombstones = if matches!(write.values, Values::Tombstones(_)) { write.ids.len() } else { 0 };
        Self {
            versions: self.versions + write.ids.len() as u64,
            dead: self.dead + (superseded + tombstones) as u64,
            bytes: self.bytes + write.size_bytes() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Superseded;
    use crate::keys::{BatchNumber, Scope, TableId};
    use crate::system_columns::{CommitTs, RowId};

    const CONFIG: FlushConfig = FlushConfig { automatic: true, hot_bytes_max: 1000, dead_versions_max: 10 };

    fn size(versions: u64, dead: u64, bytes: u64) -> HotSize {
        HotSize { versions, dead, bytes }
    }

    #[test]
    fn due_when_a_limit_is_reached_and_each_time_it_is_reached_again() {
        let due = |before, after| CONFIG.is_due(before, after);
        assert!(!due(size(0, 0, 0), size(1, 0, 999)));
        assert!(due(size(1, 0, 999), size(2, 0, 1000)));
        assert!(!due(size(2, 0, 1000), size(3, 0, 1999)));
        assert!(due(size(3, 0, 1999), size(4, 0, 2000)));
        assert!(due(size(1, 0, 0), size(9, 0, 10_000)));
        assert!(!CONFIG.is_due(HotSize::default(), HotSize::default()));
        let off = FlushConfig { automatic: false, ..CONFIG };
        assert!(!off.is_due(size(0, 0, 0), size(99, 99, 9999)));
    }

    #[test]
    fn dead_versions_count_once_they_are_half() {
        let due = |before, after| CONFIG.is_due(before, after);
        assert!(!due(size(18, 9, 0), size(19, 9, 0)));
        assert!(due(size(18, 9, 0), size(20, 10, 0)));
        assert!(!due(size(28, 10, 0), size(29, 11, 0)));
        assert!(due(size(29, 11, 0), size(30, 15, 0)));
        // No limit divides by zero.
        let zero = FlushConfig { automatic: true, hot_bytes_max: 0, dead_versions_max: 0 };
        assert!(zero.is_due(size(0, 0, 0), size(1, 0, 1)));
    }

    #[test]
    fn what_supersedes_hot_rows_leaves_dead_ones() {
        let (active, ids) = (Generation(3), vec![RowId::stored(1), RowId::stored(2), RowId::stored(3)]);
        let old = |location| Superseded { updated: CommitTs::stored(1), location };
        let places = [Location::Hot(Generation(2)), Location::Hot(active), Location::Cold(BatchNumber(1), 0)];
        let write = ScopeWrite {
            scope: Scope::shared(TableId(1)),
            ids,
            values: Values::Tombstones(1),
            supersedes: places.map(old).to_vec(),
        };
        let grown = size(5, 1, 100).with(&write, active);
        assert_eq!(grown, size(8, 5, 100 + write.size_bytes() as u64));
    }
}
