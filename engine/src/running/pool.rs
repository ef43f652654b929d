//! Memory of statements: each takes of its user's part, which is a part of the whole.

use std::fmt;
use std::sync::Arc;

use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use super::entry::Entry;
use crate::memory::FairPool;

/// The part of the memory for queries that one user may have, dealt out fairly among what the user runs. What is taken of it
/// is taken of the whole too.
#[derive(Debug)]
pub(super) struct UserPool {
    own: FairPool,
    all: Arc<dyn MemoryPool>,
}

impl UserPool {
    pub(super) fn new(user: &str, all: &Arc<dyn MemoryPool>, bytes_max: usize) -> Self {
        let own = FairPool::new(format!("user '{user}'"), "limits.user.memory_max", bytes_max);
        Self { own, all: Arc::clone(all) }
    }
}

impl fmt::Display for UserPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.own, self.all)
    }
}

impl MemoryPool for UserPool {
    fn name(&self) -> &str {
        "user"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
        self.all.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
        self.all.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        self.own.try_grow(reservation, additional)?;
        self.all.try_grow(reservation, additional).inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

/// What one statement takes of its user's part, counted.
#[derive(Debug)]
pub(super) struct CountedPool {
    user: Arc<dyn MemoryPool>,
    entry: Arc<Entry>,
}

impl CountedPool {
    pub(super) fn new(user: Arc<dyn MemoryPool>, entry: Arc<Entry>) -> Self {
        Self { user, entry }
    }
}

impl fmt::Display for CountedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.user.fmt(f)
    }
}

impl MemoryPool for CountedPool {
    fn name(&self) -> &str {
        "statement"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.user.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.user.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.user.grow(reservation, additional);
        self.entry.grew(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.user.shrink(reservation, shrink);
        self.entry.shrank(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        self.user.try_grow(reservation, additional)?;
        self.entry.grew(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.entry.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.user.memory_limit()
    }
}
