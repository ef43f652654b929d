//! Entries that clients leave behind: sessions, prepared statements, tickets.
//!
//! Invariants: never more than `max` entries; an entry somebody holds is in use and does not expire; a live entry is
//! never thrown out to make room (the new one is refused), for its owner may still need it; no user has more than its share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seracdb_engine::{Holder, NoPlace, Shares};

/// How often somebody who is refused may have all entries looked at. Who asks again and again slows nobody else down.
const LOOK: Duration = Duration::from_secs(1);

/// A map whose entries go when nobody has used them for a while. Time is an argument.
pub(crate) struct Expiring<K, V> {
    entries: HashMap<K, Entry<V>>,
    shares: Shares,
    idle: Duration,
    max: usize,
    /// When somebody who was refused had all entries looked at.
    looked: Option<Instant>,
}

struct Entry<V> {
    value: Arc<V>,
    last_used: Instant,
    /// The user whose place it takes; `None` when it takes none any more.
    user: Option<u64>,
}

impl<K: Hash + Eq, V> Expiring<K, V> {
    pub(crate) fn new(idle: Duration, max: usize) -> Self {
        Self { entries: HashMap::new(), shares: Shares::default(), idle, max, looked: None }
    }

    /// Adds an entry, unless its holder may have no further one and none that has expired makes room.
    pub(crate) fn insert(&mut self, key: K, value: Arc<V>, holder: Holder, now: Instant) -> Result<(), NoPlace> {
        if self.shares.require_place(holder, self.max).is_err() && self.may_look(now) {
            self.sweep(now);
        }
        self.shares.require_place(holder, self.max)?;
        self.shares.take(holder.user);
        self.put(key, Entry { value, last_used: now, user: Some(holder.user) });
        Ok(())
    }

    /// Adds an entry in the place of another; whether that was there.
    pub(crate) fn replace(&mut self, old: &K, key: K, value: Arc<V>, now: Instant) -> bool {
        let Some(Entry { user, .. }) = self.entries.remove(old) else { return false };
        self.put(key, Entry { value, last_used: now, user });
        true
    }

    /// Lets an entry take no place any more; whoever keeps it sees to it that such ones do not become many.
    pub(crate) fn give_back_place(&mut self, key: &K) {
        if let Some(user) = self.entries.get_mut(key).and_then(|entry| entry.user.take()) {
            self.shares.give_back(user);
        }
    }

    /// The entry, whose idle time starts again.
    pub(crate) fn get(&mut self, key: &K, now: Instant) -> Option<Arc<V>> {
        let idle = self.idle;
        let entry = self.entries.get_mut(key)?;
        if entry.expired(idle, now) {
            self.remove(key);
            return None;
        }
        entry.last_used = now;
        Some(entry.value.clone())
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let Entry { value, user, .. } = self.entries.remove(key)?;
        user.into_iter().for_each(|user| self.shares.give_back(user));
        Some(value)
    }

    /// Drops what has expired; gives how many.
    pub(crate) fn sweep(&mut self, now: Instant) -> usize {
        let before = self.entries.len();
        let Self { entries, shares, idle, .. } = self;
        entries.retain(|_, entry| {
            if entry.in_use() {
                entry.last_used = now;
            }
            let stays = !entry.expired(*idle, now);
            if !stays && let Some(user) = entry.user {
                shares.give_back(user);
            }
            stays
        });
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
        before - self.entries.len()
    }

    fn put(&mut self, key: K, entry: Entry<V>) {
        if let Some(Entry { user: Some(user), .. }) = self.entries.insert(key, entry) {
            self.shares.give_back(user);
        }
    }

    fn may_look(&mut self, now: Instant) -> bool {
        let may = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK);
        if may {
            self.looked = Some(now);
        }
        may
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
    const ROOT: Holder = Holder { user: 1, is_admin: true };
    const ANN: Holder = Holder { user: 2, is_admin: false };

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn idle_entries_go_and_used_ones_stay() {
        let start = Instant::now();
        let mut map = Expiring::new(IDLE, 10);
        map.insert("idle", Arc::new(1), ROOT, start).unwrap();
        map.insert("used", Arc::new(2), ROOT, start).unwrap();
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
        map.insert("a", Arc::new(1), ROOT, start).unwrap();
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
        map.insert("a", Arc::new(1), ROOT, start).unwrap();
        assert_eq!(map.insert("b", Arc::new(2), ROOT, at(start, 5)), Err(NoPlace::All));
        assert_eq!(map.insert("b", Arc::new(2), ROOT, at(start, 11)), Ok(()));
    }

    #[test]
    fn a_user_has_its_share_until_an_entry_goes_or_takes_no_place_any_more() {
        let start = Instant::now();
        let mut map = Expiring::new(IDLE, 8);
        for key in ["a", "b"] {
            map.insert(key, Arc::new(1), ANN, start).unwrap();
        }
        assert_eq!(map.insert("c", Arc::new(1), ANN, start), Err(NoPlace::Own(2)));
        assert!(map.replace(&"a", "c", Arc::new(2), start) && !map.contains(&"a"));
        assert!(!map.replace(&"a", "d", Arc::new(2), start) && !map.contains(&"d"));
        assert_eq!(map.insert("d", Arc::new(1), ANN, start), Err(NoPlace::Own(2)));
        map.give_back_place(&"b");
        map.insert("d", Arc::new(1), ANN, start).unwrap();
        // Its place is given back once.
        map.remove(&"b");
        map.give_back_place(&"b");
        assert_eq!(map.insert("e", Arc::new(1), ANN, start), Err(NoPlace::Own(2)));
        map.insert("e", Arc::new(1), ROOT, start).unwrap();
        map.remove(&"d");
        map.insert("d", Arc::new(1), ANN, start).unwrap();
        // The same key again takes one place.
        map.remove(&"c");
        map.insert("d", Arc::new(1), ANN, start).unwrap();
        map.insert("c", Arc::new(1), ANN, start).unwrap();
        assert_eq!(map.sweep(at(start, 11)), 3);
        map.insert("a", Arc::new(1), ANN, at(start, 11)).unwrap();
    }

    #[test]
    fn who_is_refused_again_and_again_has_entries_looked_at_now_and_then() {
        let start = Instant::now();
        let mut map = Expiring::new(Duration::from_millis(10), 4);
        map.insert("a", Arc::new(1), ANN, start).unwrap();
        assert_eq!(map.insert("b", Arc::new(1), ANN, start), Err(NoPlace::Own(1)));
        let soon = start + Duration::from_millis(500);
        assert_eq!(map.insert("b", Arc::new(1), ANN, soon), Err(NoPlace::Own(1)));
        assert_eq!(map.insert("b", Arc::new(1), ANN, at(start, 1)), Ok(()));
    }
}
