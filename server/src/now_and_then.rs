//! Lines of the log of what comes as often as somebody likes: the first at once, then one now and then with how many there
//! were, as whoever sends it must not fill the log.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// From one line to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// Kinds that are told from one another at a time.
const KINDS_MAX: usize = 1000;

/// Counts what comes between two lines.
#[derive(Debug, Default)]
pub(crate) struct Count {
    said: Option<Instant>,
    unsaid: u64,
}

impl Count {
    /// How many were not said before this one, which is to be said. `None`: it is not.
    pub(crate) fn count(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// Whether none came for a while: what goes on is said when it goes on.
    fn is_over(&self, now: Instant) -> bool {
        self.said.is_none_or(|said| now.saturating_duration_since(said) >= 2 * PAUSE)
    }
}

/// Counts of several kinds, each with lines of its own.
#[derive(Debug)]
pub(crate) struct Counts<K> {
    kinds: HashMap<K, Count>,
    /// Those of all kinds that there is no room for.
    others: Count,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { kinds: HashMap::new(), others: Count::default() }
    }
}

impl<K: Hash + Eq> Counts<K> {
    /// See [`Count::count`].
    pub(crate) fn count(&mut self, kind: K, now: Instant) -> Option<u64> {
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            return self.others.count(now);
        }
        self.kinds.entry(kind).or_default().count(now)
    }

    /// Forgets the kinds that are over; gives how many of them were not said yet, where there are some.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<(K, u64)> {
        let over = self.kinds.extract_if(|_, count| count.is_over(now));
        over.map(|(kind, count)| (kind, count.unsaid)).filter(|(_, unsaid)| *unsaid > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line() {
        let start = Instant::now();
        let mut count = Count::default();
        assert_eq!(count.count(start), Some(0));
        assert!((0..500).all(|_| count.count(start + PAUSE / 2).is_none()));
        assert_eq!(count.count(start + PAUSE), Some(500));
        assert_eq!(count.count(start + 2 * PAUSE), Some(0));
    }

    #[test]
    fn each_kind_has_its_lines_and_none_is_lost() {
        let start = Instant::now();
        let mut counts = Counts::default();
        assert_eq!((counts.count("a", start), counts.count("b", start)), (Some(0), Some(0)));
        assert_eq!((counts.count("a", start), counts.count("a", start)), (None, None));
        assert_eq!(counts.sweep(start + PAUSE), []);
        assert_eq!(counts.sweep(start + 2 * PAUSE), [("a", 2)]);
        assert!(counts.kinds.is_empty());
    }

    #[test]
    fn kinds_without_end_share_their_lines() {
        let start = Instant::now();
        let mut counts = Counts::default();
        let said = (0..10 * KINDS_MAX).filter(|kind| counts.count(*kind, start).is_some()).count();
        assert_eq!(said, KINDS_MAX + 1);
        assert_eq!(counts.kinds.len(), KINDS_MAX);
    }
}
