//! How much of a scope is hot, and what the settings say about it.
//!
//! The committer counts what it appends to a scope's active generation. After a restart a count goes on from what RocksDB's
//! files say about the size; what was superseded before is then not known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commit::{Location, ScopeWrite, Values};
use crate::keys::Generation;

/// When hot rows are flushed by themselves, and how many may wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlushConfig {
    /// Whether hot rows are flushed by themselves.
    pub automatic: bool,
    /// Bytes of hot rows, from which on a table (or one user's part of it) is flushed.
    #[schemars(range(min = 1))]
    pub hot_bytes_max: u64,
    /// Hot versions of rows that are superseded or deleted, from which on it is flushed, once they are half of all.
    #[schemars(range(min = 1))]
    pub dead_versions_max: u64,
    /// Seconds after which hot rows are flushed however few they are. 0: never, unless the table says
    /// WITH (flush_interval = '5m').
    pub interval_seconds: u64,
    /// Bytes of hot rows of all tables together, from which on the largest are flushed and writes are slowed down.
    pub total_bytes_max: u64,
    /// Bytes of hot rows of all tables together, from which on writes wait until some are flushed.
    pub backlog_bytes_max: u64,
    /// Seconds that a write waits for that before it is refused.
    pub wait_seconds: u64,
}

impl Default for FlushConfig {
    fn default() -> Self {
        Self {
            automatic: true,
            hot_bytes_max: 64 << 20,
            dead_versions_max: 16 << 10,
            interval_seconds: 0,
            total_bytes_max: 2 << 30,
            backlog_bytes_max: 4 << 30,
            wait_seconds: 30,
        }
    }
}

/// What lies in the active generation of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HotSize {
    /// Versions of rows; after a restart those since then, unless the table's options ask for more.
    pub versions: u64,
    /// Versions that are superseded, and tombstones.
    pub dead: u64,
    /// Bytes.
    pub bytes: u64,
}

impl HotSize {
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

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { versions: self.versions + other.versions, dead: self.dead + other.dead, bytes: self.bytes + other.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Superseded;
    use crate::keys::{BatchNumber, Scope, TableId};
    use crate::system_columns::{CommitTs, RowId};

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
        let grown = HotSize { versions: 5, dead: 1, bytes: 100 }.with(&write, active);
        assert_eq!(grown, HotSize { versions: 8, dead: 5, bytes: 100 + write.size_bytes() as u64 });
    }
}
