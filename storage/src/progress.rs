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
    /// Thousandths of the part at work that are done, about.
    part: AtomicU64,
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

    /// How far all of it is, in percent: 0 as long as it is not known how much there is.
    pub fn percent(&self) -> u64 {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        match of(&self.all) {
            0 => 0,
            all => ((of(&self.done) * 1000 + of(&self.part)) / (all * 10)).min(100),
        }
    }

    /// So much of the part at work is done, of about so much.
    pub(crate) fn of_part(&self, done: u64, all: u64) {
        self.part.store(done.min(all) * 1000 / all.max(1), Ordering::Relaxed);
    }

    /// A part is done.
    pub fn part_done(&self) {
        self.part.store(0, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
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
    fn percents_are_those_of_the_parts_and_of_the_one_at_work() {
        let progress = Progress::default();
        assert_eq!(progress.percent(), 0);
        progress.all.store(4, Ordering::Relaxed);
        progress.of_part(50, 100);
        assert_eq!(progress.percent(), 12);
        progress.part_done();
        assert_eq!(progress.percent(), 25);
        // More than was expected, and nothing where nothing was.
        progress.of_part(300, 100);
        assert_eq!(progress.percent(), 50);
        progress.of_part(0, 0);
        assert_eq!(progress.percent(), 25);
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
