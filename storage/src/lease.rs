//! The right to acknowledge: a lease on the object store, as the committer and every write to the store see it.
//!
//! Invariants:
//! 1. Nothing is acknowledged, and nothing written to the object store, after the deadline of the last renewal that is
//!    known to have succeeded. The deadline counts from before that renewal was sent, on a monotonic clock.
//! 2. No commit gets an `_updated` or `_id` above the ceilings that `owner.json` holds durably: who takes over starts
//!    above them.
//! 3. Asking costs an atomic load: no network is waited for between a commit and its acknowledgement.
//!
//! A store below the data directory has no other owner than the process that holds the directory's LOCK: its lease does
//! not end.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::{Result, StorageError};
use crate::ownership::{Era, is_own};
use crate::system_columns::{CommitTs, tick_at, ticks_in};

/// A lease on an object store.
#[derive(Debug)]
pub struct Lease {
    clock: Arc<dyn Clock>,
    /// The object store, for messages.
    store: String,
    epoch: u64,
    /// Who has owned the store since which epoch; empty when only this data directory can.
    eras: Vec<Era>,
    /// On the clock's monotonic time.
    deadline_ns: AtomicI64,
    updated_ceiling: AtomicI64,
    id_ceiling: AtomicU64,
    /// The last commit, for the next ceilings.
    last_updated: AtomicI64,
    /// Why it has ended, when that is not for lack of renewal.
    fenced_by: Mutex<Option<String>>,
    /// Wakes who renews, before its time.
    wanted: Notify,
}

/// What is durably reserved for the holder of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// The highest `_updated`.
    pub updated: CommitTs,
    /// The highest tick of row ids.
    pub id_tick: u64,
}

impl Ceilings {
    /// No limit.
    pub const NONE: Self = Self { updated: CommitTs::MAX, id_tick: u64::MAX };
}

impl Lease {
    /// The lease of a store that nobody else can own.
    pub fn unlimited(clock: Arc<dyn Clock>) -> Self {
        Self::new(clock, String::new(), 0, Vec::new(), i64::MAX, Ceilings::NONE)
    }

    /// A lease that was just taken.
    pub(crate) fn taken(
        clock: Arc<dyn Clock>,
        store: String,
        epoch: u64,
        eras: Vec<Era>,
        until: Duration,
        ceilings: Ceilings,
    ) -> Self {
        Self::new(clock, store, epoch, eras, as_ns(until), ceilings)
    }

    fn new(
        clock: Arc<dyn Clock>,
        store: String,
        epoch: u64,
        eras: Vec<Era>,
        deadline_ns: i64,
        ceilings: Ceilings,
    ) -> Self {
        Self {
            clock,
            store,
            epoch,
            eras,
            deadline_ns: AtomicI64::new(deadline_ns),
            updated_ceiling: AtomicI64::new(ceilings.updated.get()),
            id_ceiling: AtomicU64::new(ceilings.id_tick),
            last_updated: AtomicI64::new(0),
            fenced_by: Mutex::new(None),
            wanted: Notify::new(),
        }
    }

    /// Fails when the lease has ended: then nothing may be acknowledged or written to the object store.
    pub fn check(&self) -> Result<()> {
        let deadline = self.deadline_ns.load(Ordering::Acquire);
        if deadline == i64::MAX || as_ns(self.clock.monotonic()) < deadline {
            return Ok(());
        }
        match &*self.fenced_by.lock() {
            Some(owner) => Err(StorageError::Fenced { store: self.store.clone(), owner: owner.clone() }),
            None => Err(StorageError::LeaseExpired(self.store.clone())),
        }
    }

    /// The epoch of this ownership; 0 when only this data directory can own the store.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What the names of batch files carry: the epoch, once there was a take-over.
    pub fn name_epoch(&self) -> Option<u64> {
        self.was_taken_over().then_some(self.epoch)
    }

    /// Whether the store may hold files of another data directory.
    pub(crate) fn was_taken_over(&self) -> bool {
        self.eras.len() > 1
    }

    /// The epoch from which on this data directory owns the store.
    pub(crate) fn era(&self) -> u64 {
        self.eras.last().map_or(0, |era| era.from_epoch)
    }

    /// The epochs from which on those owned the store whose tables this one goes on with, the last of them first.
    pub(crate) fn inherited_eras(&self) -> Vec<u64> {
        let pairs = self.eras.windows(2).rev().take_while(|pair| pair[1].inherits);
        pairs.map(|pair| pair[0].from_epoch).collect()
    }

    /// Whether what says that it was written in `epoch` was written by this data directory, or by one whose tables it goes
    /// on with.
    pub(crate) fn wrote(&self, epoch: u64) -> bool {
        epoch <= self.epoch && is_own(&self.eras, epoch)
    }

    /// The wall clock for new timestamps and ids. When it was put so far ahead that it is above the ceiling, 0: they go on
    /// one by one until more is reserved.
    pub(crate) fn now_ns(&self) -> i64 {
        let now = self.clock.now_ns();
        if now < self.updated_ceiling.load(Ordering::Acquire) {
            return now;
        }
        self.wanted.notify_one();
        0
    }

    /// Refuses when the next timestamp, or an id given out, is not reserved; and has more reserved.
    pub(crate) fn covers(&self, last_updated: CommitTs, id_tick: u64) -> Result<()> {
        let updated = self.updated_ceiling.load(Ordering::Acquire);
        if last_updated.get() < updated && id_tick <= self.id_ceiling.load(Ordering::Acquire) {
            return Ok(());
        }
        self.wanted.notify_one();
        Err(StorageError::ReserveUsedUp)
    }

    /// Tells of the last commit.
    pub(crate) fn committed(&self, last_updated: CommitTs) {
        self.last_updated.store(last_updated.get(), Ordering::Release);
    }

    pub(crate) fn last_updated(&self) -> CommitTs {
        CommitTs::stored(self.last_updated.load(Ordering::Acquire))
    }

    /// A renewal is durable.
    pub(crate) fn renewed(&self, until: Duration, ceilings: Ceilings) {
        self.updated_ceiling.store(ceilings.updated.get(), Ordering::Release);
        self.id_ceiling.store(ceilings.id_tick, Ordering::Release);
        self.deadline_ns.fetch_max(as_ns(until), Ordering::AcqRel);
    }

    /// Someone else owns the store.
    pub(crate) fn fenced(&self, owner: String) {
        *self.fenced_by.lock() = Some(owner);
        self.deadline_ns.store(i64::MIN, Ordering::Release);
    }

    /// It is given back: nothing is acknowledged or written any more.
    pub(crate) fn end(&self) {
        self.fenced("whoever comes next: this server has given it back".into());
    }

    /// Returns when a renewal is wanted before its time.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

/// What to reserve for a lease of this length: so much that it is not used up before several renewals have failed.
pub(crate) fn ahead(now_ns: i64, last_updated: CommitTs, id_tick: u64, lease: Duration) -> Ceilings {
    const LEASES: i64 = 4;
    let reserve = as_ns(lease).saturating_mul(LEASES);
    let updated = now_ns.max(last_updated.get()).saturating_add(reserve);
    let id_tick = tick_at(now_ns).max(id_tick).saturating_add(ticks_in(reserve));
    Ceilings { updated: CommitTs::stored(updated), id_tick }
}

fn as_ns(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn lease(clock: &Arc<ManualClock>) -> Lease {
        let ceilings = Ceilings { updated: CommitTs::stored(100), id_tick: 50 };
        let eras = vec![Era { from_epoch: 1, data_dir_id: "a".into(), inherits: false }];
        Lease::taken(
            Arc::clone(clock) as Arc<dyn Clock>,
            "s3://here".into(),
            1,
            eras,
            Duration::from_secs(30),
            ceilings,
        )
    }

    #[test]
    fn ends_at_its_deadline_unless_it_is_renewed() {
        let clock = Arc::new(ManualClock::default());
        let lease = lease(&clock);
        clock.advance(Duration::from_secs(29));
        lease.check().unwrap();
        lease.renewed(Duration::from_secs(40), Ceilings::NONE);
        clock.advance(Duration::from_secs(10));
        lease.check().unwrap();
        clock.advance(Duration::from_secs(1));
        let error = lease.check().unwrap_err();
        assert!(matches!(&error, StorageError::LeaseExpired(store) if store == "s3://here"), "{error}");
    }

    #[test]
    fn ends_at_once_when_someone_else_owns_the_store() {
        let lease = lease(&Arc::new(ManualClock::default()));
        lease.fenced("b".into());
        let error = lease.check().unwrap_err();
        assert!(matches!(&error, StorageError::Fenced { owner, .. } if owner == "b"), "{error}");
    }

    #[test]
    fn gives_out_nothing_above_its_ceilings() {
        let clock = Arc::new(ManualClock::at_ns(70));
        let lease = lease(&clock);
        assert_eq!(lease.now_ns(), 70);
        clock.set_ns(1_000);
        assert_eq!(lease.now_ns(), 0);
        lease.covers(CommitTs::stored(99), 50).unwrap();
        assert!(matches!(lease.covers(CommitTs::stored(100), 50), Err(StorageError::ReserveUsedUp)));
        assert!(matches!(lease.covers(CommitTs::stored(99), 51), Err(StorageError::ReserveUsedUp)));
        lease.renewed(Duration::from_secs(40), Ceilings { updated: CommitTs::stored(200), id_tick: 60 });
        lease.covers(CommitTs::stored(100), 51).unwrap();
    }

    #[test]
    fn reserves_for_several_leases_ahead_of_clock_and_use() {
        let second = Duration::from_secs(1);
        let now = (crate::system_columns::SNOWFLAKE_EPOCH_MS + 5) * 1_000_000;
        let from_clock = ahead(now, CommitTs::stored(1), 1, second);
        assert_eq!((from_clock.updated.get(), from_clock.id_tick), (now + 4_000_000_000, (5 << 12) + (4_000 << 12)));
        let from_use = ahead(now, CommitTs::stored(now + 7), 6 << 12, second);
        assert_eq!((from_use.updated.get(), from_use.id_tick), (now + 4_000_000_007, (6 << 12) + (4_000 << 12)));
    }

    #[test]
    fn a_store_of_ones_own_has_no_end_and_no_ceiling() {
        let clock = Arc::new(ManualClock::at_ns(7));
        let lease = Lease::unlimited(Arc::clone(&clock) as Arc<dyn Clock>);
        clock.advance(Duration::from_secs(1 << 30));
        lease.check().unwrap();
        lease.covers(CommitTs::stored(i64::MAX - 1), u64::MAX).unwrap();
        assert_eq!((lease.epoch(), lease.name_epoch(), lease.wrote(0)), (0, None, true));
    }
}
