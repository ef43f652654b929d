//! Writers wait when rows come faster than they can be flushed.
//!
//! Invariants:
//! 1. Nothing waits here while it holds a turn, a lock or a snapshot.
//! 2. Below `flush.total_bytes_max` nobody waits.

use std::time::Duration;

use seracdb_storage::hot_size::FlushConfig;

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};

/// The longest that a write is slowed down while there is room.
const SLOWED_MAX: Duration = Duration::from_millis(50);

/// How often a write that waits looks again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is asked of a write.
#[derive(Debug, PartialEq, Eq)]
enum Pressure {
    /// Nothing.
    None,
    /// To wait for this long.
    Slow(Duration),
    /// To wait for room.
    Full,
}

/// `hot_bytes`: of all tables.
fn pressure(hot_bytes: u64, config: &FlushConfig) -> Pressure {
    let (low, high) = (config.total_bytes_max, config.backlog_bytes_max.max(config.total_bytes_max));
    if hot_bytes > high {
        return Pressure::Full;
    }
    match hot_bytes.saturating_sub(low) {
        0 => Pressure::None,
        above => Pressure::Slow(SLOWED_MAX.mul_f64(above as f64 / (high - low) as f64)),
    }
}

impl Engine {
    /// Waits until there is room for more hot rows; ResourceExhausted when there is none for long.
    pub(crate) async fn room_for_writes(&self) -> Result<()> {
        let clock = self.store.clock();
        let until = clock.monotonic() + Duration::from_secs(self.flush.wait_seconds);
        loop {
            match pressure(self.store.hot_bytes(), &self.flush) {
                Pressure::None => return Ok(()),
                Pressure::Slow(pause) => {
                    clock.sleep(pause).await;
                    return Ok(());
                }
                Pressure::Full if clock.monotonic() >= until => return Err(self.no_room()),
                Pressure::Full => clock.sleep(LOOK_EVERY).await,
            }
        }
    }

    fn no_room(&self) -> EngineError {
        let (hot, max) = (self.store.hot_bytes(), self.flush.backlog_bytes_max);
        let what = match self.flush.automatic {
            true => "try again later; system.jobs shows what becomes of the flushes",
            false => "flush.automatic is off: STORAGE FLUSH ALL makes room",
        };
        let text =
            format!("{hot} bytes of hot rows wait to be flushed, more than flush.backlog_bytes_max = {max}: {what}");
        EngineError::new(ErrorKind::ResourceExhausted, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_slowed_down_before_they_wait() {
        let config = FlushConfig { total_bytes_max: 1000, backlog_bytes_max: 2000, ..FlushConfig::default() };
        assert_eq!(pressure(1000, &config), Pressure::None);
        assert_eq!(pressure(1500, &config), Pressure::Slow(SLOWED_MAX / 2));
        assert_eq!(pressure(2000, &config), Pressure::Slow(SLOWED_MAX));
        assert_eq!(pressure(2001, &config), Pressure::Full);
        // The other way round, the first counts.
        let config = FlushConfig { total_bytes_max: 3000, ..config };
        assert_eq!((pressure(3000, &config), pressure(3001, &config)), (Pressure::None, Pressure::Full));
    }
}
