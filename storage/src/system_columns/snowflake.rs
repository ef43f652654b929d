//! Row ids: Snowflakes (<https://github.com/twitter-archive/snowflake/tree/b3f6a3c6ca8e1b6847baa6ff42bf72201e2c2231>).
//!
//! ```text
//! bit  63    62 ─────────── 22   21 ──── 12   11 ───── 0
//!      0   │ ms since 2024-01-01 │   node    │  sequence │
//!              41 bits, to 2093     10 bits      12 bits
//! ```
//!
//! The state is one *tick*: the id without its node bits, `ms << 12 | sequence`. Adding one to a tick with a full
//! sequence carries into the millisecond, so that a full millisecond, and a clock that stepped back, borrow from the
//! next one without a special case.

use std::sync::atomic::{AtomicU64, Ordering};

use super::RowId;

/// 2024-01-01T00:00:00Z in milliseconds since the Unix epoch.
pub const SNOWFLAKE_EPOCH_MS: i64 = 1_704_067_200_000;

const SEQUENCE_BITS: u32 = 12;
const NODE_BITS: u32 = 10;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

/// The node part of an id, 0 to 1023.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeNumber(u16);

impl NodeNumber {
    /// CRC32 (IEEE) of the node's name, modulo 1024.
    pub fn of_name(name: &str) -> Self {
        Self((crc32fast::hash(name.as_bytes()) % (1 << NODE_BITS)) as u16)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// Gives out row ids: unique and rising, from any number of threads.
#[derive(Debug)]
pub struct IdSequence {
    node: NodeNumber,
    last_tick: AtomicU64,
}

impl IdSequence {
    /// Goes on after `high_water`, the highest tick that was made durable (0 for a new data directory). The first id
    /// lies in a later millisecond than it, so that ids rise also when the node's name has changed in between.
    pub fn after(node: NodeNumber, high_water: u64) -> Self {
        Self { node, last_tick: AtomicU64::new(high_water | SEQUENCE_MASK) }
    }

    /// The next id.
    pub fn next(&self, now_ms: i64) -> RowId {
        self.id(self.take(1, now_ms))
    }

    /// The next `count` ids, in order. They are consecutive ticks: no other caller gets one between them.
    pub fn reserve(&self, count: usize, now_ms: i64) -> impl ExactSizeIterator<Item = RowId> + '_ {
        let first = if count == 0 { 0 } else { self.take(count as u64, now_ms) };
        (0..count).map(move |i| self.id(first + i as u64))
    }

    /// The highest tick given out: what a commit makes durable.
    pub fn high_water(&self) -> u64 {
        self.last_tick.load(Ordering::Acquire)
    }

    /// Takes `count` ticks and gives the first.
    fn take(&self, count: u64, now_ms: i64) -> u64 {
        let now_tick = tick_at_ms(now_ms);
        let mut last = self.last_tick.load(Ordering::Relaxed);
        loop {
            let first = now_tick.max(last + 1);
            let taken = first + count - 1;
            match self.last_tick.compare_exchange_weak(last, taken, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return first,
                Err(seen) => last = seen,
            }
        }
    }

    fn id(&self, tick: u64) -> RowId {
        let ms = tick >> SEQUENCE_BITS;
        let id =
            (ms << (NODE_BITS + SEQUENCE_BITS)) | (u64::from(self.node.0) << SEQUENCE_BITS) | (tick & SEQUENCE_MASK);
        // 41 bits of milliseconds leave the sign bit clear until 2093.
        RowId(id as i64)
    }
}

/// The tick that a row id was made of.
pub fn tick_of(id: RowId) -> u64 {
    let id = id.0 as u64;
    (id >> (NODE_BITS + SEQUENCE_BITS) << SEQUENCE_BITS) | (id & SEQUENCE_MASK)
}

/// When an id was made, in ms since the Unix epoch; of a number that is none, what it would be.
pub fn time_ms_of(id: i64) -> i64 {
    (id >> (NODE_BITS + SEQUENCE_BITS)) + SNOWFLAKE_EPOCH_MS
}

/// The first tick of this millisecond since the Unix epoch.
fn tick_at_ms(ms: i64) -> u64 {
    ((ms - SNOWFLAKE_EPOCH_MS).max(0) as u64) << SEQUENCE_BITS
}

/// The first tick at this time, in ns since the Unix epoch.
pub fn tick_at(ns: i64) -> u64 {
    tick_at_ms(ns.div_euclid(1_000_000))
}

/// How many ticks there are in `ns` nanoseconds.
pub fn ticks_in(ns: i64) -> u64 {
    (ns.max(0) as u64 / 1_000_000) << SEQUENCE_BITS
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW: i64 = SNOWFLAKE_EPOCH_MS + 1_000;

    fn sequence() -> IdSequence {
        IdSequence::after(NodeNumber(5), 0)
    }

    #[test]
    fn has_the_documented_bits() {
        let id = sequence().next(NOW).get();
        assert_eq!(id >> 22, 1_000);
        assert_eq!((id >> 12) & 0x3ff, 5);
        assert_eq!(id & 0xfff, 0);
    }

    #[test]
    fn default_node_has_its_documented_number() {
        assert_eq!(NodeNumber::of_name("node1").get(), (crc32fast::hash(b"node1") % 1024) as u16);
        assert_ne!(NodeNumber::of_name("node1"), NodeNumber::of_name("node2"));
    }

    #[test]
    fn a_full_millisecond_borrows_from_the_next() {
        let ids = sequence();
        let all: Vec<i64> = (0..4097).map(|_| ids.next(NOW).get()).collect();
        assert!(all.is_sorted_by(|a, b| a < b));
        assert_eq!(all[4095] >> 22, 1_000);
        assert_eq!(all[4096] >> 22, 1_001);
    }

    #[test]
    fn rises_when_the_clock_steps_back_or_stands_before_the_epoch() {
        let ids = sequence();
        let all: Vec<i64> = [NOW, NOW - 500, 0, NOW + 1].map(|now| ids.next(now).get()).to_vec();
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    }

    #[test]
    fn goes_on_above_the_high_water_mark_also_with_a_lower_node() {
        let before = IdSequence::after(NodeNumber(1023), 0);
        let last = before.reserve(10, NOW).last().unwrap();
        let after = IdSequence::after(NodeNumber(0), before.high_water());
        assert!(after.next(NOW - 10_000) > last);
    }

    #[test]
    fn unique_and_ordered_under_threads() {
        let ids = sequence();
        let mut seen = HashSet::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|t| {
                    let ids = &ids;
                    scope.spawn(move || -> Vec<RowId> {
                        (0..2_000)
                            .flat_map(|i| {
                                if (t + i) % 2 == 0 { vec![ids.next(NOW)] } else { ids.reserve(3, NOW).collect() }
                            })
                            .collect()
                    })
                })
                .collect();
            for thread in threads {
                let given = thread.join().unwrap();
                assert!(given.is_sorted_by(|a, b| a < b));
                for id in given {
                    assert!(seen.insert(id), "{id} was given twice");
                }
            }
        });
    }
}
