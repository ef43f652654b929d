//! What the store must say: every version ever acknowledged, and nothing else.

use std::collections::BTreeMap;

/// The rows that are there, with `_updated` and value.
pub(crate) type Rows = BTreeMap<i64, (i64, i64)>;

#[derive(Debug, Default, Clone)]
pub(super) struct Model {
    /// By `_id`, in the order in which they were written.
    versions: BTreeMap<i64, Vec<Version>>,
}

#[derive(Debug, Clone, Copy)]
struct Version {
    updated: i64,
    /// `None`: a tombstone.
    value: Option<i64>,
    /// Written to a file before its commit.
    is_bulk: bool,
}

impl Model {
    pub(super) fn add(&mut self, id: i64, updated: i64, value: Option<i64>) {
        self.versions.entry(id).or_default().push(Version { updated, value, is_bulk: false });
    }

    /// A row that was written to a file before its commit. What else that commit says of it comes after.
    pub(super) fn add_bulk(&mut self, id: i64, updated: i64, value: i64) {
        self.versions.entry(id).or_default().push(Version { updated, value: Some(value), is_bulk: true });
    }

    /// The rows after the commit `ts`.
    pub(super) fn rows_at(&self, ts: i64) -> Rows {
        self.rows_in_files(ts, i64::MIN)
    }

    /// The rows when every commit up to `flushed_to` is in files, and every bulk load up to `loaded_to`.
    pub(super) fn rows_in_files(&self, flushed_to: i64, loaded_to: i64) -> Rows {
        let is_there = |v: &&Version| v.updated <= flushed_to || v.is_bulk && v.updated <= loaded_to;
        let rows = self.versions.iter().filter_map(|(id, versions)| {
            // The last of equal ones.
            let newest = versions.iter().filter(is_there).max_by_key(|version| version.updated)?;
            Some((*id, (newest.updated, newest.value?)))
        });
        rows.collect()
    }

    /// Whether a row got another version after the commit `ts`.
    pub(super) fn changed_since(&self, id: i64, ts: i64) -> bool {
        self.versions.get(&id).is_some_and(|versions| versions.iter().any(|version| version.updated > ts))
    }
}
