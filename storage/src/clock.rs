//! Time as an argument.
//!
//! Nothing in the project asks the operating system for the time but [`SystemClock`]: everything else is handed a
//! [`Clock`], so that a test can step it, also backwards. No order is ever taken from a clock; see
//! [`crate::system_columns`].

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;

/// A source of wall-clock time, and of time that only goes forward.
pub trait Clock: Debug + Send + Sync {
    /// Nanoseconds since the Unix epoch, UTC. May repeat and may go back.
    fn now_ns(&self) -> i64;

    /// Milliseconds since the Unix epoch, UTC.
    fn now_ms(&self) -> i64 {
        self.now_ns().div_euclid(1_000_000)
    }

    /// Time since some start of its own. Never goes back, and goes on while the machine is suspended: what a lease is
    /// measured with.
    fn monotonic(&self) -> Duration;

    /// Returns when [`Clock::monotonic`] has gone on by this much.
    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()>;
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

    fn monotonic(&self) -> Duration {
        // Goes on while the machine is suspended, as the leases of others do.
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(since_boot).unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// A clock that stands where a test put it.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ns: AtomicI64,
    monotonic_ns: AtomicI64,
    advanced: Notify,
    sleepers: AtomicUsize,
}

impl ManualClock {
    /// A clock that stands at `ns` nanoseconds since the Unix epoch.
    pub fn at_ns(ns: i64) -> Self {
        Self { wall_ns: AtomicI64::new(ns), ..Self::default() }
    }

    /// Puts the wall clock to `ns`, which may lie before the time it shows.
    pub fn set_ns(&self, ns: i64) {
        self.wall_ns.store(ns, Ordering::SeqCst);
    }

    /// How many wait in [`Clock::sleep`].
    pub fn sleepers(&self) -> usize {
        self.sleepers.load(Ordering::SeqCst)
    }

    /// Lets time pass, on both clocks.
    pub fn advance(&self, duration: Duration) {
        let ns = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        self.wall_ns.fetch_add(ns, Ordering::SeqCst);
        self.monotonic_ns.fetch_add(ns, Ordering::SeqCst);
        self.advanced.notify_waiters();
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> i64 {
        self.wall_ns.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst).unsigned_abs())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'_, ()> {
        let until = self.monotonic() + duration;
        async move {
            let _asleep = Asleep::new(&self.sleepers);
            loop {
                // Made before the look at the time, so that no step between the two is missed.
                let advanced = self.advanced.notified();
                if self.monotonic() >= until {
                    return;
                }
                advanced.await;
            }
        }
        .boxed()
    }
}

/// Counts who sleeps, also one that is woken by something else.
struct Asleep<'a>(&'a AtomicUsize);

impl<'a> Asleep<'a> {
    fn new(sleepers: &'a AtomicUsize) -> Self {
        sleepers.fetch_add(1, Ordering::SeqCst);
        Self(sleepers)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
