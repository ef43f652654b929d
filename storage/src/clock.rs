//! Wall-clock time as an argument.
//!
//! Nothing in the project asks the operating system for the time but [`SystemClock`]: everything else is handed a
//! [`Clock`], so that a test can step it, also backwards. No order is ever taken from a clock; see
//! [`crate::system_columns`].

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of wall-clock time.
pub trait Clock: Debug + Send + Sync {
    /// Nanoseconds since the Unix epoch, UTC. May repeat and may go back.
    fn now_ns(&self) -> i64;

    /// Milliseconds since the Unix epoch, UTC.
    fn now_ms(&self) -> i64 {
        self.now_ns().div_euclid(1_000_000)
    }
}

/// The operating system's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the operating system")]
    fn now_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(_) => 0,
        }
    }
}

/// A clock that stands where a test put it.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `ns` nanoseconds since the Unix epoch.
    pub fn at_ns(ns: i64) -> Self {
        Self(AtomicI64::new(ns))
    }

    /// Puts the clock to `ns`, which may lie before the time it shows.
    pub fn set_ns(&self, ns: i64) {
        self.0.store(ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}
