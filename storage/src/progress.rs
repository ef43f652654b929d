//! How far long work is, whether it is still wanted, and how fast it may go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Result, StorageError};

/// The longest that work pauses at once, so that it notices when it is to end.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How far some work is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Rows written.
    pub rows: AtomicU64,
    /// Bytes read and written for them, about.
    pub bytes: AtomicU64,
    /// Files made or done away with.
    pub files: AtomicU64,
    /// Parts of tables that are done.
    pub done: AtomicU64,
    /// Parts of tables that there are.
    pub all: AtomicU64,
    stop: CancellationToken,
    throttle: Option<Arc<Throttle>>,
}

impl Progress {
    /// Of work that ends when `stop` is cancelled, and goes no faster than `throttle` lets it.
    pub fn new(stop: CancellationToken, throttle: Option<Arc<Throttle>>) -> Self {
        Self { stop, throttle, ..Self::default() }
    }

    /// Whether the work is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Some more is done; [`StorageError::Stopped`] when that is enough. May pause: not for async code.
    pub(crate) fn go_on(&self, rows: u64, bytes: u64) -> Result<()> {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut pause = self.throttle.as_ref().map_or(Duration::ZERO, |throttle| throttle.pause_after(bytes));
        while !self.is_stopped() && !pause.is_zero() {
            let now = pause.min(PAUSE_MAX);
            std::thread::sleep(now);
            pause -= now;
        }
        match self.is_stopped() {
            true => Err(StorageError::Stopped),
            false => Ok(()),
        }
    }
}

/// Keeps the work of several to a rate.
#[derive(Debug)]
pub struct Throttle {
    clock: Arc<dyn Clock>,
    bytes_per_second: u64,
    /// When what was done would be done at that rate, on the clock's monotonic time.
    done_at: Mutex<Duration>,
}

impl Throttle {
    /// `None` for no limit: 0 bytes.
    pub fn new(clock: Arc<dyn Clock>, bytes_per_second: u64) -> Option<Arc<Self>> {
        (bytes_per_second > 0).then(|| Arc::new(Self { clock, bytes_per_second, done_at: Mutex::default() }))
    }

    /// How long to wait after so many bytes.
    fn pause_after(&self, bytes: u64) -> Duration {
        let now = self.clock.monotonic();
        let mut done_at = self.done_at.lock();
        *done_at = (*done_at).max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        done_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_rate_is_kept_by_all_together_and_not_made_up_for() {
        let clock = Arc::new(ManualClock::at_ns(0));
        let throttle = Throttle::new(Arc::clone(&clock) as Arc<dyn Clock>, 1000).unwrap();
        assert_eq!(throttle.pause_after(500), Duration::from_millis(500));
        assert_eq!(throttle.pause_after(500), Duration::from_secs(1));
        clock.advance(Duration::from_secs(60));
        assert_eq!(throttle.pause_after(100), Duration::from_millis(100));
        assert!(Throttle::new(clock, 0).is_none());
    }

    #[test]
    fn work_that_is_not_wanted_ends() {
        let stop = CancellationToken::new();
        let progress = Progress::new(stop.clone(), None);
        progress.go_on(3, 10).unwrap();
        stop.cancel();
        assert!(matches!(progress.go_on(1, 1), Err(StorageError::Stopped)));
        assert_eq!((progress.rows.into_inner(), progress.bytes.into_inner()), (4, 11));
    }
}
