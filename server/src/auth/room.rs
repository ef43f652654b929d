//! Where calls wait of which nobody knows yet whose they are.
//!
//! There are so many in all and from each source, and no more; those beyond are turned away at once, with what they have sent.
//! Each source has a queue of its own for the checks of passwords, which take turns: whoever guesses has others wait for no
//! more than the checks of its own that run.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::config::AuthSection;
use crate::lockout::Source;

/// Passwords that are checked at the same time. A check takes tens of megabytes and a core on purpose: without a limit,
/// guessing would take all of them.
const CHECKS_MAX: usize = 4;

/// The same, of one source.
const SOURCE_CHECKS_MAX: usize = 2;

/// The places of calls that wait for a login.
#[derive(Debug)]
pub(super) struct Room {
    max: usize,
    source_max: usize,
    checks: Arc<Semaphore>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    sources: HashMap<Source, Corner>,
}

/// What one source has of it.
#[derive(Debug)]
struct Corner {
    taken: usize,
    checks: Arc<Semaphore>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// There are as many calls as there may be.
    All(usize),
    /// There are as many from this source.
    Source(usize),
}

impl Crowded {
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::All(_) => "auth.logins_max",
            Self::Source(_) => "auth.logins_address_max",
        }
    }
}

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (max, of_whom) = match self {
            Self::All(max) => (max, ""),
            Self::Source(max) => (max, " from your address"),
        };
        write!(f, "{max} calls{of_whom} wait for their login already ({}): try again later", self.setting())
    }
}

/// A call's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    source: Source,
    checks: Arc<Semaphore>,
}

/// The turn of a check. It is to be kept until the check has ended, whether or not its call waits for that.
#[derive(Debug)]
pub(super) struct Turn {
    _of_source: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    /// Or its source would have another queue.
    _place: Place,
}

impl Room {
    pub(super) fn new(config: &AuthSection) -> Arc<Self> {
        Arc::new(Self {
            max: config.logins_max,
            source_max: config.logins_address_max,
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            taken: Mutex::default(),
        })
    }

    pub(super) fn enter(self: &Arc<Self>, source: Source) -> Result<Place, Crowded> {
        let mut taken = self.taken.lock();
        if taken.all >= self.max {
            return Err(Crowded::All(self.max));
        }
        let corner = taken
            .sources
            .entry(source)
            .or_insert_with(|| Corner { taken: 0, checks: Arc::new(Semaphore::new(SOURCE_CHECKS_MAX)) });
        if corner.taken >= self.source_max {
            return Err(Crowded::Source(self.source_max));
        }
        corner.taken += 1;
        let checks = Arc::clone(&corner.checks);
        taken.all += 1;
        Ok(Place { room: Arc::clone(self), source, checks })
    }
}

impl Place {
    /// Waits until a password may be checked.
    pub(super) async fn turn(self) -> Result<Turn, AcquireError> {
        // Its source's first: no source has more than its turns in the queue of all.
        let of_source = Arc::clone(&self.checks).acquire_owned().await?;
        let of_all = Arc::clone(&self.room.checks).acquire_owned().await?;
        Ok(Turn { _of_source: of_source, _of_all: of_all, _place: self })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(corner) = taken.sources.get_mut(&self.source) {
            corner.taken = corner.taken.saturating_sub(1);
            if corner.taken == 0 {
                taken.sources.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use futures::FutureExt;

    use super::*;

    fn room(max: usize, source_max: usize) -> Arc<Room> {
        Room::new(&AuthSection { logins_max: max, logins_address_max: source_max, ..AuthSection::default() })
    }

    fn source(last: u8) -> Source {
        Source::of(Some(SocketAddr::from(([10, 0, 0, last], 1))))
    }

    #[test]
    fn places_are_few_in_all_and_for_each_source() {
        let room = room(3, 2);
        let first = room.enter(source(1)).unwrap();
        let _second = room.enter(source(1)).unwrap();
        assert_eq!(room.enter(source(1)).unwrap_err(), Crowded::Source(2));
        let third = room.enter(source(2)).unwrap();
        assert_eq!(room.enter(source(3)).unwrap_err(), Crowded::All(3));
        drop(first);
        drop(room.enter(source(1)).unwrap());
        drop(third);
        let taken = room.taken.lock();
        assert_eq!((taken.all, taken.sources.len()), (1, 1), "nothing is kept of who has left");
    }

    #[test]
    fn a_source_with_many_calls_has_others_wait_for_its_turns_alone() {
        let room = room(1000, 500);
        let turn = |last| room.enter(source(last)).unwrap().turn().now_or_never();
        let mut guessing: Vec<_> = (0..100).map(|_| Box::pin(room.enter(source(1)).unwrap().turn())).collect();
        let mut running: Vec<_> = guessing.iter_mut().filter_map(|turn| turn.now_or_never()).collect();
        assert_eq!(running.len(), SOURCE_CHECKS_MAX);
        let _others = (turn(2).unwrap(), turn(3).unwrap());
        assert!(turn(4).is_none(), "there are so many in all");
        let mut waiting = Box::pin(room.enter(source(4)).unwrap().turn());
        assert!((&mut waiting).now_or_never().is_none());
        drop(running.pop());
        assert!(waiting.now_or_never().is_some(), "it is the next one");
    }

    #[test]
    fn who_goes_while_it_waits_leaves_the_queue() {
        let room = room(10, 10);
        let running: Vec<_> = (0..2).map(|_| room.enter(source(1)).unwrap().turn().now_or_never().unwrap()).collect();
        let waiting = Box::pin(room.enter(source(1)).unwrap().turn());
        assert_eq!(room.taken.lock().all, 3);
        drop(waiting);
        assert_eq!(room.taken.lock().all, 2);
        drop(running);
        assert!(room.taken.lock().sources.is_empty());
    }
}
