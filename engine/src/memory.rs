//! Memory for queries, dealt out fairly: of a user's part, and of the whole.
//!
//! Like DataFusion's `FairSpillPool`, each that can spill has an equal share at most. What is otherwise is for sorts, so that
//! they spill where they would fail:
//! 1. All that can spill leave half to others: a sort that has filled its share still has to merge what it holds.
//! 2. Merges have shares too, and leave a quarter. A sort merges as many of its spilled runs at once as it has memory for, and
//!    would leave none to the step above it; with less it merges fewer at once.
//! 3. Who holds next to nothing may take one batch beyond its share: it is in memory already, and there is nothing to spill
//!    instead.

use datafusion::common::resources_datafusion_err;
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;

/// A part of the memory for queries.
#[derive(Debug)]
pub(crate) struct FairPool {
    /// Whose queries take from it, for errors.
    whose: String,
    /// The setting by which there is more.
    setting: &'static str,
    bytes_max: usize,
    used: Mutex<Used>,
}

/// What a reservation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Something that spills when it gets no more.
    Spilling,
    /// Merging the runs of a sort.
    Merging,
    /// Anything else: it fails when it gets no more.
    Other,
}

impl Use {
    fn of(consumer: &MemoryConsumer) -> Self {
        match consumer.can_spill() {
            true => Self::Spilling,
            // As DataFusion calls it.
            false if consumer.name().starts_with("ExternalSorterMerge[") => Self::Merging,
            false => Self::Other,
        }
    }
}

#[derive(Debug, Default)]
struct Used {
    spillers: usize,
    merges: usize,
    spilling: usize,
    merging: usize,
    other: usize,
}

impl Used {
    fn bytes(&self) -> usize {
        self.spilling + self.merging + self.other
    }

    /// Whether someone who holds `held` bytes may have `more`.
    fn has_room(&self, bytes_max: usize, of: Use, held: usize, more: usize) -> bool {
        let free = bytes_max.saturating_sub(self.bytes());
        if more > free {
            return false;
        }
        let dealt = bytes_max.saturating_sub(self.other);
        let (share, may_exceed) = match of {
            Use::Spilling => (dealt / 2 / self.spillers.max(1), held == 0),
            Use::Merging => {
                let share = (dealt - dealt / 4) / self.merges.max(1);
                // What was set aside for it is there from the start. And as long as much is left, it takes nothing from others.
                (share, held <= share / 4 || more <= free / 16)
            }
            Use::Other => return true,
        };
        let left_to_others = (bytes_max / 4).saturating_sub(self.other);
        may_exceed || (held.saturating_add(more) <= share && more <= free.saturating_sub(left_to_others))
    }

    fn bytes_of(&mut self, of: Use) -> &mut usize {
        match of {
            Use::Spilling => &mut self.spilling,
            Use::Merging => &mut self.merging,
            Use::Other => &mut self.other,
        }
    }
}

impl FairPool {
    pub(crate) fn new(whose: String, setting: &'static str, bytes_max: usize) -> Self {
        Self { whose, setting, bytes_max, used: Mutex::default() }
    }
}

impl std::fmt::Display for FairPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the queries of {}", self.whose)
    }
}

impl MemoryPool for FairPool {
    fn name(&self) -> &str {
        "fair"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        let mut used = self.used.lock();
        match Use::of(consumer) {
            Use::Spilling => used.spillers += 1,
            Use::Merging => used.merges += 1,
            Use::Other => {}
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut used = self.used.lock();
        match Use::of(consumer) {
            Use::Spilling => used.spillers -= 1,
            Use::Merging => used.merges -= 1,
            Use::Other => {}
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *self.used.lock().bytes_of(Use::of(reservation.consumer())) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        *self.used.lock().bytes_of(Use::of(reservation.consumer())) -= shrink;
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        let of = Use::of(reservation.consumer());
        let mut used = self.used.lock();
        if used.has_room(self.bytes_max, of, reservation.size(), additional) {
            *used.bytes_of(of) += additional;
            return Ok(());
        }
        Err(resources_datafusion_err!(
            "{self} would use more than {} MiB of memory: they use {} MiB, and {} asks for {} more bytes. Wait for others to \
             end, or raise {}",
            self.bytes_max >> 20,
            used.bytes() >> 20,
            reservation.consumer().name(),
            additional,
            self.setting
        ))
    }

    fn reserved(&self) -> usize {
        self.used.lock().bytes()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pool(bytes_max: usize) -> Arc<dyn MemoryPool> {
        Arc::new(FairPool::new("user 'a'".to_owned(), "limits.user.memory_max", bytes_max))
    }

    fn sort(pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
        MemoryConsumer::new("sort").with_can_spill(true).register(pool)
    }

    fn merge(pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
        MemoryConsumer::new("ExternalSorterMerge[0]").register(pool)
    }

    fn other(pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
        MemoryConsumer::new("SortPreservingMergeExec[0]").register(pool)
    }

    #[test]
    fn a_sort_leaves_room_for_its_merge_and_that_for_the_step_above() {
        let pool = pool(1200);
        let (sort, merge, above) = (sort(&pool), merge(&pool), other(&pool));
        sort.try_grow(600).unwrap();
        assert!(sort.try_grow(1).unwrap_err().to_string().contains("user 'a' would use more"));
        merge.try_grow(300).unwrap();
        assert!(merge.try_grow(19).is_err(), "more than a part of what is left");
        sort.free();
        merge.try_grow(600).unwrap();
        assert!(merge.try_grow(19).is_err());
        above.try_grow(300).unwrap();
        assert!(above.try_grow(1).is_err());
    }

    #[test]
    fn one_that_comes_later_takes_its_share_while_the_first_has_to_spill() {
        let pool = pool(1200);
        let first = sort(&pool);
        first.try_grow(500).unwrap();
        let second = sort(&pool);
        // Half of what is for sorts; the first has more than that by now.
        second.try_grow(100).unwrap();
        second.try_grow(200).unwrap();
        assert!(second.try_grow(1).is_err());
        assert!(first.try_grow(1).is_err());
        first.free();
        first.try_grow(200).unwrap();
        drop(first);
        second.try_grow(300).unwrap();
    }

    #[test]
    fn one_batch_is_never_too_much_while_there_is_room() {
        let pool = pool(1200);
        let sorts: Vec<_> = (0..10).map(|_| sort(&pool)).collect();
        // The share is 60.
        sorts[0].try_grow(500).unwrap();
        assert!(sorts[0].try_grow(1).is_err());
        sorts[1].try_grow(500).unwrap();
        assert!(sorts[2].try_grow(201).is_err());
        sorts[2].try_grow(100).unwrap();
        let merges: Vec<_> = (0..10).map(|_| merge(&pool)).collect();
        // Here it is 90.
        merges[0].try_grow(10).unwrap();
        merges[0].try_grow(90).unwrap();
        assert!(merges[0].try_grow(1).is_err());
        assert_eq!(pool.reserved(), 1200);
        drop((sorts, merges));
        assert_eq!(pool.reserved(), 0);
    }
}
