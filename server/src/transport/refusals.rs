//! What the log says of connections that were refused: the first at once, then a line now and then, as whoever sends them
//! must not fill it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// From one line to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts refusals between two lines.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    said: Option<Instant>,
    unsaid: u64,
}

impl Refusals {
    pub(super) fn say(&self, peer: SocketAddr, reason: &dyn Display) {
        if let Some(unsaid) = self.0.lock().count(Instant::now()) {
            tracing::warn!(%peer, unsaid, "a connection was refused: {reason}");
        }
    }
}

impl Count {
    /// How many were not said before this one, which is to be said. `None`: it is not.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
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
}
