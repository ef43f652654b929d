//! What the committer counts for those who decide what is to be flushed and merged.
//!
//! ```text
//! append → active grows      seal → active becomes sealed      export → nothing is sealed any more
//! ```
//!
//! Invariants:
//! 1. Only the committer counts, in the order of its commits; others look, and wait for nothing.
//! 2. The total is the sum of all scopes, active and sealed: what is not in a file yet, or not yet known to be.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::hot_size::HotSize;
use crate::keys::{Scope, TableId};

/// What is hot of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HotScope {
    /// What the next flush would take.
    pub active: HotSize,
    /// Bytes that a flush has taken and not yet brought to its end.
    pub sealed_bytes: u64,
    /// When the first of the active rows was appended, or found at a start; nanoseconds since the Unix epoch.
    pub since_ns: i64,
}

impl HotScope {
    fn bytes(&self) -> u64 {
        self.active.bytes + self.sealed_bytes
    }
}

/// Counts of all scopes that have hot rows, and the scopes whose files have changed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    hot: Mutex<HashMap<Scope, HotScope>>,
    bytes: AtomicU64,
    changes: AtomicU64,
    changed_files: Mutex<HashSet<Scope>>,
}

impl Tally {
    /// A scope's active rows have grown. `found`: what there was before anything was counted.
    pub(crate) fn grown(
        &self,
        scope: Scope,
        now_ns: i64,
        found: impl FnOnce() -> HotSize,
        grow: impl FnOnce(HotSize) -> HotSize,
    ) {
        self.change(scope, |entry| {
            let hot = match entry {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(HotScope { active: found(), ..HotScope::default() }),
            };
            if hot.active.versions == 0 {
                hot.since_ns = now_ns;
            }
            hot.active = grow(hot.active);
        });
    }

    /// Hot rows were found at a start: beside what has been counted since.
    pub(crate) fn found(&self, scope: Scope, now_ns: i64, before: HotSize, sealed_bytes: u64) {
        self.change(scope, |entry| match entry {
            // Its bytes were found then.
            Entry::Occupied(mut entry) => {
                let hot = entry.get_mut();
                hot.active = hot.active.and(HotSize { bytes: 0, ..before });
                hot.sealed_bytes += sealed_bytes;
            }
            Entry::Vacant(entry) => {
                entry.insert(HotScope { active: before, since_ns: now_ns, sealed_bytes });
            }
        });
    }

    /// The active rows of a scope are sealed.
    pub(crate) fn sealed(&self, scope: Scope) {
        self.change(scope, |entry| {
            if let Entry::Occupied(mut entry) = entry {
                let hot = entry.get_mut();
                hot.sealed_bytes += std::mem::take(&mut hot.active).bytes;
            }
        });
    }

    /// The sealed rows of a scope are in files, and gone from the hot tier.
    pub(crate) fn drained(&self, scope: Scope) {
        self.change(scope, |entry| {
            if let Entry::Occupied(mut entry) = entry {
                entry.get_mut().sealed_bytes = 0;
                if entry.get().active == HotSize::default() {
                    entry.remove();
                }
            }
        });
    }

    /// A table is gone.
    pub(crate) fn forget(&self, table: TableId) {
        let mut gone = 0;
        self.hot.lock().retain(|scope, hot| {
            let stays = scope.table != table;
            gone += if stays { 0 } else { hot.bytes() };
            stays
        });
        self.bytes.fetch_sub(gone, Ordering::Relaxed);
        self.changed_files.lock().retain(|scope| scope.table != table);
    }

    /// Which files a scope has, or which of their rows are read, has changed.
    pub(crate) fn files_changed(&self, scope: Scope) {
        self.changed_files.lock().insert(scope);
    }

    /// Scopes of which this was said since this was asked.
    pub(crate) fn take_changed_files(&self) -> HashSet<Scope> {
        std::mem::take(&mut self.changed_files.lock())
    }

    /// All scopes with hot rows.
    pub(crate) fn hot(&self) -> Vec<(Scope, HotScope)> {
        self.hot.lock().iter().map(|(scope, hot)| (*scope, *hot)).collect()
    }

    /// Bytes of a scope that a flush has taken and not yet brought to its end.
    pub(crate) fn sealed_bytes(&self, scope: Scope) -> u64 {
        self.hot.lock().get(&scope).map_or(0, |hot| hot.sealed_bytes)
    }

    /// Bytes of hot rows of all scopes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Rises whenever a count changes.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn change(&self, scope: Scope, change: impl FnOnce(Entry<'_, Scope, HotScope>)) {
        let mut hot = self.hot.lock();
        let before = hot.get(&scope).map_or(0, HotScope::bytes);
        change(hot.entry(scope));
        let after = hot.get(&scope).map_or(0, HotScope::bytes);
        // It wraps around when it shrinks.
        self.bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(versions: u64, dead: u64, bytes: u64) -> HotSize {
        HotSize { versions, dead, bytes }
    }

    fn grow(tally: &Tally, scope: Scope, now_ns: i64, by: HotSize) {
        tally.grown(scope, now_ns, HotSize::default, |before| before.and(by));
    }

    #[test]
    fn the_total_follows_rows_from_their_commit_to_their_file() {
        let tally = Tally::default();
        let (a, b) = (Scope::shared(TableId(1)), Scope::shared(TableId(2)));
        grow(&tally, a, 5, size(2, 0, 100));
        grow(&tally, b, 6, size(1, 0, 10));
        grow(&tally, a, 9, size(1, 1, 50));
        assert_eq!((tally.bytes(), tally.hot().len()), (160, 2));
        let hot: HashMap<_, _> = tally.hot().into_iter().collect();
        assert_eq!(hot[&a], HotScope { active: size(3, 1, 150), sealed_bytes: 0, since_ns: 5 });
        tally.sealed(a);
        grow(&tally, a, 20, size(1, 0, 7));
        let hot: HashMap<_, _> = tally.hot().into_iter().collect();
        assert_eq!(hot[&a], HotScope { active: size(1, 0, 7), sealed_bytes: 150, since_ns: 20 });
        assert_eq!(tally.bytes(), 167);
        tally.drained(a);
        assert_eq!(tally.bytes(), 17);
        tally.sealed(b);
        tally.drained(b);
        assert_eq!((tally.bytes(), tally.hot().len()), (7, 1));
        tally.forget(a.table);
        assert_eq!((tally.bytes(), tally.hot().len()), (0, 0));
    }

    #[test]
    fn what_is_found_at_a_start_is_counted_once() {
        let tally = Tally::default();
        let (a, b) = (Scope::shared(TableId(1)), Scope::shared(TableId(2)));
        // Written to before it is found: its bytes were asked for then.
        tally.grown(a, 5, || size(0, 0, 1000), |before| before.and(size(1, 0, 10)));
        tally.found(a, 1, size(40, 0, 1000), 0);
        tally.found(b, 1, size(0, 0, 500), 70);
        let hot: HashMap<_, _> = tally.hot().into_iter().collect();
        assert_eq!(hot[&a], HotScope { active: size(41, 0, 1010), sealed_bytes: 0, since_ns: 5 });
        assert_eq!(hot[&b], HotScope { active: size(0, 0, 500), sealed_bytes: 70, since_ns: 1 });
        assert_eq!(tally.bytes(), 1580);
    }
}
