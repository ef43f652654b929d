//! What the store must say: every version ever acknowledged, and nothing else.

use std::collections::BTreeMap;

/// The rows that are there, with `_updated` and value.
pub(crate) type Rows = BTreeMap<i64, (i64, i64)>;

#[derive(Debug, Default, Clone)]
pub(super) struct Model {
    /// By `_id`: `_updated`, and the value unless it is a tombstone.
    versions: BTreeMap<i64, Vec<(i64, Option<i64>)>>,
}

impl Model {
    pub(super) fn add(&mut self, id: i64, updated: i64, value: Option<i64>) {
        self.versions.entry(id).or_default().push((updated, value));
    }

    /// The rows after the commit `ts`.
    pub(super) fn rows_at(&self, ts: i64) -> Rows {
        let newest = |versions: &[(i64, Option<i64>)]| versions.iter().copied().filter(|v| v.0 <= ts).max();
        let rows = self.versions.iter().filter_map(|(id, versions)| {
            let (updated, value) = newest(versions)?;
            Some((*id, (updated, value?)))
        });
        rows.collect()
    }

    /// Whether a row got another version after the commit `ts`.
    pub(super) fn changed_since(&self, id: i64, ts: i64) -> bool {
        self.versions.get(&id).is_some_and(|versions| versions.iter().any(|version| version.0 > ts))
    }
}
