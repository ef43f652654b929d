//! The transactions by name: those that are open, and how the last ones ended.
//!
//! What has committed changes is found in the storage by its name, also after the end of the process. The rest is remembered
//! here, in memory: it has changed nothing, and is not worth a write.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{End, Transaction, TransactionId};
use crate::identity::Principal;
use crate::shares::{Holder, NoPlace, Shares};

/// How many ends are remembered.
const ENDS_MAX: usize = 100_000;

/// The transactions by name.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    pub(super) known: Mutex<Known>,
    /// Bytes that all have staged.
    pub(super) staged_bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    open: HashMap<TransactionId, Held>,
    /// Of those that are open.
    shares: Shares,
    /// Owners and ends, the last ones.
    ends: HashMap<TransactionId, (u64, End)>,
    order: VecDeque<TransactionId>,
}

/// A session holds its transactions. Those begun without one are held here, until they were not used for too long.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) owner: Principal,
    pub(super) transaction: Weak<Transaction>,
    pub(super) without_session: Option<Arc<Transaction>>,
}

impl Known {
    /// Refuses who may not have another one of `max` open transactions.
    pub(super) fn require_place(&mut self, holder: Holder, max: usize) -> Result<(), NoPlace> {
        if self.shares.require_place(holder, max).is_err() {
            self.forget_dropped();
        }
        self.shares.require_place(holder, max)
    }

    pub(super) fn insert(&mut self, id: TransactionId, held: Held) {
        self.shares.take(held.owner.number());
        self.open.insert(id, held);
    }

    /// An open one.
    pub(super) fn get(&self, id: TransactionId) -> Option<&Held> {
        self.open.get(&id)
    }

    /// Those that are open.
    pub(super) fn open(&self) -> impl Iterator<Item = &Held> {
        self.open.values()
    }

    fn remove(&mut self, id: TransactionId) -> Option<Held> {
        let held = self.open.remove(&id)?;
        self.shares.give_back(held.owner.number());
        Some(held)
    }

    /// One has ended, and nobody else remembers it.
    pub(super) fn ended(&mut self, id: TransactionId, end: End) {
        let Some(held) = self.remove(id) else { return };
        if self.order.len() == ENDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ends.remove(&oldest);
        }
        self.order.push_back(id);
        self.ends.insert(id, (held.owner.number(), end));
    }

    /// One has committed changes: the storage knows.
    pub(super) fn stored(&mut self, id: TransactionId) {
        self.remove(id);
    }

    /// Whose it was and how it ended, as far as it is remembered here.
    pub(super) fn end_of(&self, id: TransactionId) -> Option<(u64, End)> {
        self.ends.get(&id).copied()
    }

    /// Those whose session has ended are rolled back.
    pub(super) fn forget_dropped(&mut self) {
        let gone = self.open.iter().filter(|(_, held)| held.transaction.strong_count() == 0).map(|(id, _)| *id);
        for id in gone.collect::<Vec<_>>() {
            self.ended(id, End::RolledBack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

    fn id(number: usize) -> TransactionId {
        TransactionId((number as u128).to_be_bytes())
    }

    fn owner() -> Principal {
        Principal::new("ann".to_owned(), 7, Role::User)
    }

    fn open(known: &mut Known, number: usize) {
        known.insert(id(number), Held { owner: owner(), transaction: Weak::new(), without_session: None });
    }

    #[test]
    fn who_has_its_share_gets_none_unless_some_of_it_are_gone() {
        let (mut known, mine) = (Known::default(), Holder { user: 7, is_admin: false });
        for number in 0..2 {
            known.require_place(mine, 8).unwrap();
            open(&mut known, number);
        }
        // Their sessions have ended: they take no place.
        known.require_place(mine, 8).unwrap();
        assert_eq!(known.open().count(), 0);
    }

    #[test]
    fn the_last_ends_are_remembered_and_those_in_the_storage_take_no_room() {
        let mut known = Known::default();
        for number in 0..ENDS_MAX {
            open(&mut known, number);
            known.ended(id(number), End::Committed);
        }
        for number in ENDS_MAX..2 * ENDS_MAX {
            open(&mut known, number);
            known.stored(id(number));
        }
        assert!(known.open.is_empty());
        assert_eq!(known.end_of(id(0)), Some((7, End::Committed)));
        assert_eq!(known.end_of(id(ENDS_MAX)), None);
        open(&mut known, 2 * ENDS_MAX);
        known.forget_dropped();
        assert_eq!(known.end_of(id(2 * ENDS_MAX)), Some((7, End::RolledBack)));
        assert_eq!(known.end_of(id(0)), None);
        assert_eq!(known.ends.len(), ENDS_MAX);
    }
}
