//! Wrong passwords and how long one waits after them.
//!
//! Counted for a user's name from one source, whether there is such a user or not: nobody can lock a user out of another
//! place, and nobody learns which users there are. After so many in a row each further one doubles the wait.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use crate::config::AuthSection;

/// Bits of an IPv6 address that tell one network from another: one has all addresses in it.
const NETWORK_BITS: u32 = 64;

/// Where a login comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(Option<IpAddr>);

impl Source {
    pub(crate) fn of(peer: Option<SocketAddr>) -> Self {
        Self(peer.map(|peer| match peer.ip().to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> (128 - NETWORK_BITS) << (128 - NETWORK_BITS);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address => address,
        }))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

/// The failures of users from sources: of the last ones that there is room for.
pub(crate) struct Lockout {
    attempts: u32,
    first: Duration,
    longest: Duration,
    /// By the name's hash: names can be long.
    failures: Mutex<LruCache<(blake3::Hash, Source), Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    in_a_row: u32,
    last: Instant,
    /// No password is checked before.
    until: Instant,
}

impl Lockout {
    pub(crate) fn new(config: &AuthSection) -> Self {
        let entries = NonZeroUsize::new(config.lockout_entries_max).unwrap_or(NonZeroUsize::MIN);
        Self {
            attempts: config.lockout_attempts,
            first: Duration::from_secs(config.lockout_seconds),
            longest: Duration::from_secs(config.lockout_seconds_max),
            failures: Mutex::new(LruCache::new(entries)),
        }
    }

    /// Whether a password of this user is checked now: else how long to wait.
    pub(crate) fn admit(&self, user: &str, source: Source, now: Instant) -> Result<(), Duration> {
        let mut failures = self.failures.lock();
        match failures.get(&key(user, source)) {
            Some(known) if known.until > now => Err(known.until - now),
            _ => Ok(()),
        }
    }

    /// A wrong password; whether one has to wait after it.
    pub(crate) fn failed(&self, user: &str, source: Source, now: Instant) -> bool {
        if self.attempts == 0 {
            return false;
        }
        let mut failures = self.failures.lock();
        let known = failures.get_or_insert_mut(key(user, source), || Failures { in_a_row: 0, last: now, until: now });
        // What was long ago is forgotten.
        if now.saturating_duration_since(known.last) > self.longest.max(self.first) * 2 {
            known.in_a_row = 0;
        }
        known.in_a_row = known.in_a_row.saturating_add(1);
        known.last = now;
        let Some(further) = known.in_a_row.checked_sub(self.attempts) else { return false };
        let doubled = self.first.saturating_mul(1_u32.checked_shl(further).unwrap_or(u32::MAX));
        known.until = now + doubled.min(self.longest);
        true
    }

    /// A right password: what was before is forgotten.
    pub(crate) fn succeeded(&self, user: &str, source: Source) {
        self.failures.lock().pop(&key(user, source));
    }
}

fn key(user: &str, source: Source) -> (blake3::Hash, Source) {
    (blake3::hash(user.as_bytes()), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lockout(attempts: u32, entries: usize) -> Lockout {
        Lockout::new(&AuthSection {
            lockout_attempts: attempts,
            lockout_seconds: 2,
            lockout_seconds_max: 10,
            lockout_entries_max: entries,
            ..AuthSection::default()
        })
    }

    fn source(address: &str) -> Source {
        Source::of(Some(SocketAddr::new(address.parse().unwrap(), 1)))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_further_wrong_password_doubles_the_wait() {
        let (lockout, start) = (lockout(3, 10), Instant::now());
        let here = source("10.0.0.1");
        for _ in 0..2 {
            lockout.failed("ann", here, start);
            assert_eq!(lockout.admit("ann", here, start), Ok(()));
        }
        let mut now = start;
        for wait in [2, 4, 8, 10, 10] {
            lockout.failed("ann", here, now);
            assert_eq!(lockout.admit("ann", here, now), Err(wait * SECOND));
            assert_eq!(lockout.admit("ann", source("10.0.0.2"), now), Ok(()), "from another place");
            assert_eq!(lockout.admit("bob", here, now), Ok(()), "another user");
            now += wait * SECOND;
            assert_eq!(lockout.admit("ann", here, now), Ok(()));
        }
        lockout.succeeded("ann", here);
        lockout.failed("ann", here, now);
        assert_eq!(lockout.admit("ann", here, now), Ok(()));
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let (lockout, start, here) = (lockout(2, 10), Instant::now(), source("::1"));
        lockout.failed("ann", here, start);
        lockout.failed("ann", here, start + 30 * SECOND);
        assert_eq!(lockout.admit("ann", here, start + 30 * SECOND), Ok(()));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_last() {
        let (lockout, now) = (lockout(1, 100), Instant::now());
        for place in 0..1000 {
            lockout.failed(&format!("user{place}"), source("10.0.0.1"), now);
        }
        assert_eq!(lockout.failures.lock().len(), 100);
        assert!(lockout.admit("user999", source("10.0.0.1"), now).is_err());
    }

    #[test]
    fn none_are_counted_where_nobody_is_to_be_locked_out() {
        let (lockout, now) = (lockout(0, 10), Instant::now());
        for _ in 0..100 {
            lockout.failed("ann", source("10.0.0.1"), now);
        }
        assert_eq!(lockout.admit("ann", source("10.0.0.1"), now), Ok(()));
    }

    #[test]
    fn all_addresses_of_a_network_are_one_source() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }
}
