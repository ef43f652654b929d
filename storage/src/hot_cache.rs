//! The newest versions of hot rows, as they were last read: whoever reads a scope again that nobody has written to need not
//! pass over its older versions.
//!
//! Invariants:
//! 1. An entry is what a snapshot shows of these generations, and is given to a snapshot only if nothing was written to the
//!    scope after the earlier of the two.
//! 2. A write is noted before a snapshot shows it.
//! 3. It is a cache: it may be emptied at any time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::hot::HotChunk;
use crate::keys::{Generation, Scope};
use crate::system_columns::CommitTs;

/// The rows of a scope, in order.
pub type HotRows = Arc<Vec<Arc<HotChunk>>>;

/// The share of the cache that one scope may take.
const SHARE: usize = 4;
/// Bytes that an entry takes beside its rows, about.
const ENTRY_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct HotCache {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_writes: HashMap<Scope, CommitTs>,
    entries: HashMap<Scope, Entry>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    generations: Vec<Generation>,
    as_of: CommitTs,
    rows: HotRows,
    bytes: usize,
    last_use: u64,
}

impl HotCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// The most bytes of rows that are kept of one scope.
    pub(crate) fn scope_bytes_max(&self) -> usize {
        self.bytes_max / SHARE
    }

    /// Bytes of the rows that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Notes that a commit has written to these scopes.
    pub(crate) fn written(&self, scopes: impl Iterator<Item = Scope>, at: CommitTs) {
        let mut state = self.state.lock();
        for scope in scopes {
            state.last_writes.insert(scope, at);
            state.remove(scope);
        }
    }

    /// What a snapshot at `ts` shows of these generations.
    pub(crate) fn get(&self, scope: Scope, generations: &[Generation], ts: CommitTs) -> Option<HotRows> {
        let mut state = self.state.lock();
        let last_write = state.last_writes.get(&scope).copied();
        state.uses += 1;
        let uses = state.uses;
        let entry = state.entries.get_mut(&scope)?;
        if entry.generations != generations || last_write.is_some_and(|at| at > entry.as_of.min(ts)) {
            return None;
        }
        entry.last_use = uses;
        Some(Arc::clone(&entry.rows))
    }

    /// Keeps what a snapshot at `as_of` shows of these generations.
    pub(crate) fn put(&self, scope: Scope, generations: Vec<Generation>, as_of: CommitTs, rows: HotRows) {
        // Who finds nothing has read little.
        if rows.is_empty() {
            return;
        }
        let bytes = ENTRY_BYTES + rows.iter().map(|chunk| chunk.size_bytes()).sum::<usize>();
        let mut state = self.state.lock();
        if bytes > self.scope_bytes_max() || state.last_writes.get(&scope).is_some_and(|at| *at > as_of) {
            return;
        }
        state.remove(scope);
        if state.bytes + bytes > self.bytes_max {
            state.make_room(self.bytes_max / 4 * 3 - bytes);
        }
        state.bytes += bytes;
        let last_use = state.uses;
        state.entries.insert(scope, Entry { generations, as_of, rows, bytes, last_use });
    }
}

impl State {
    /// Removes those that were not used for longest, many at a time: each look at all of them is for many.
    fn make_room(&mut self, bytes_max: usize) {
        let mut by_use: Vec<(u64, Scope)> =
            self.entries.iter().map(|(scope, entry)| (entry.last_use, *scope)).collect();
        by_use.sort_unstable();
        for (_, scope) in by_use {
            if self.bytes <= bytes_max {
                return;
            }
            self.remove(scope);
        }
    }

    fn remove(&mut self, scope: Scope) {
        if let Some(entry) = self.entries.remove(&scope) {
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::TableId;

    const GENERATIONS: [Generation; 1] = [Generation(1)];

    fn scope(table: u32) -> Scope {
        Scope::shared(TableId(table))
    }

    fn at(ts: i64) -> CommitTs {
        CommitTs::stored(ts)
    }

    fn rows(bytes: usize) -> HotRows {
        let mut chunk = HotChunk::default();
        chunk.push_uncommitted(1, &vec![0; bytes]);
        Arc::new(vec![Arc::new(chunk)])
    }

    fn cache(bytes_max: usize) -> HotCache {
        HotCache::new(bytes_max)
    }

    #[test]
    fn an_entry_is_for_snapshots_with_no_write_in_between() {
        let cache = cache(1 << 20);
        let is_known = |generations: &[Generation], ts| cache.get(scope(1), generations, at(ts)).is_some();
        cache.written([scope(1)].into_iter(), at(5));
        cache.put(scope(1), GENERATIONS.to_vec(), at(10), rows(10));
        assert!(is_known(&GENERATIONS, 10) && is_known(&GENERATIONS, 5) && is_known(&GENERATIONS, 99));
        assert!(!is_known(&GENERATIONS, 4), "before the write");
        assert!(!is_known(&[Generation(2)], 10) && !is_known(&[], 10), "other generations");
        assert!(cache.get(scope(2), &GENERATIONS, at(10)).is_none());
        cache.written([scope(1)].into_iter(), at(11));
        assert!(!is_known(&GENERATIONS, 10) && !is_known(&GENERATIONS, 11));
        // Who has read before the write is too late.
        cache.put(scope(1), GENERATIONS.to_vec(), at(10), rows(10));
        assert!(!is_known(&GENERATIONS, 10) && !is_known(&GENERATIONS, 12));
        cache.put(scope(1), GENERATIONS.to_vec(), at(11), rows(10));
        assert!(is_known(&GENERATIONS, 12) && !is_known(&GENERATIONS, 10));
    }

    #[test]
    fn it_never_holds_more_than_it_may() {
        let cache = cache(8_000);
        cache.put(scope(1), GENERATIONS.to_vec(), at(1), rows(2_000));
        assert!(cache.get(scope(1), &GENERATIONS, at(1)).is_none(), "more than the share of one");
        for table in 1..=20 {
            cache.put(scope(table), GENERATIONS.to_vec(), at(1), rows(800));
            assert!(cache.get(scope(1), &GENERATIONS, at(1)).is_some(), "in use");
            assert!(cache.state.lock().bytes <= 8_000);
        }
        assert!(cache.get(scope(20), &GENERATIONS, at(1)).is_some());
        assert!(cache.get(scope(3), &GENERATIONS, at(1)).is_none());
        // The same again takes the place of itself.
        let before = cache.state.lock().bytes;
        cache.put(scope(20), GENERATIONS.to_vec(), at(1), rows(800));
        assert_eq!(cache.state.lock().bytes, before);
    }
}
