//! Entries that clients leave behind: sessions, prepared statements, tickets.
//!
//! Invariants: never more than `max` entries; an entry somebody holds is in use and does not expire; a live entry is
//! never thrown out to make room (the new one is refused), for its owner may still need it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A map whose entries go when nobody has used them for a while. Time is an argument.
pub(crate) struct Expiring<K, V> {
    entries: HashMap<K, Entry<V>>,
    idle: Duration,
    max: usize,
}

struct Entry<V> {
    value: Arc<V>,
    last_used: Instant,
}

/// The map is at its limit and nothing in it has expired.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<K: Hash + Eq, V> Expiring<K, V> {
    pub(crate) fn new(idle: Duration, max: usize) -> Self {
        Self { entries: HashMap::new(), idle, max }
    }

    pub(crate) fn insert(&mut self, key: K, value: Arc<V>, now: Instant) -> Result<(), Full> {
        if self.entries.len() >= self.max {
            self.sweep(now);
        }
        if self.entries.len() >= self.max {
            return Err(Full);
        }
        self.entries.insert(key, Entry { value, last_used: now });
        Ok(())
    }

    /// The entry, whose idle time starts again.
    pub(crate) fn get(&mut self, key: &K, now: Instant) -> Option<Arc<V>> {
        let idle = self.idle;
        let entry = self.entries.get_mut(key)?;
        if entry.expired(idle, now) {
            self.entries.remove(key);
            return None;
        }
        entry.last_used = now;
        Some(entry.value.clone())
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        self.entries.remove(key).map(|entry| entry.value)
    }

    /// Drops what has expired; gives how many.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        let before = self.entries.len();
        let idle = self.idle;
        self.entries.retain(|_, entry| {
            if entry.in_use() {
                entry.last_used = now;
            }
            !entry.expired(idle, now)
        });
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
        before - self.entries.len()
    }
}

impl<V> Entry<V> {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.value) > 1
    }

    fn expired(&self, idle: Duration, now: Instant) -> bool {
        !self.in_use() && now.saturating_duration_since(self.last_used) > idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn idle_entries_go_and_used_ones_stay() {
        let start = Instant::now();
        let mut map = Expiring::new(IDLE, 10);
        map.insert("idle", Arc::new(1), start).unwrap();
        map.insert("used", Arc::new(2), start).unwrap();
        assert!(map.get(&"used", at(start, 8)).is_some());
        assert_eq!(map.sweep(at(start, 12)), 1);
        assert!(map.get(&"idle", at(start, 12)).is_none());
        assert!(map.get(&"used", at(start, 12)).is_some());
        assert!(map.get(&"used", at(start, 30)).is_none());
    }

    #[test]
    fn what_somebody_holds_does_not_expire() {
        let start = Instant::now();
        let mut map = Expiring::new(IDLE, 10);
        map.insert("a", Arc::new(1), start).unwrap();
        let held = map.get(&"a", start).unwrap();
        assert_eq!(map.sweep(at(start, 100)), 0);
        drop(held);
        assert_eq!(map.sweep(at(start, 105)), 0, "idle time starts when the holder lets go");
        assert_eq!(map.sweep(at(start, 111)), 1);
    }

    #[test]
    fn a_full_map_refuses_unless_something_expired() {
        let start = Instant::now();
        let mut map = Expiring::new(IDLE, 1);
        map.insert("a", Arc::new(1), start).unwrap();
        assert_eq!(map.insert("b", Arc::new(2), at(start, 5)), Err(Full));
        assert_eq!(map.insert("b", Arc::new(2), at(start, 11)), Ok(()));
    }
}
