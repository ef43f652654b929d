//! Row ids a second, against what the format allows one node.

use std::time::Instant;

use seracdb_storage::clock::{Clock, SystemClock};
use seracdb_storage::system_columns::{IdSequence, NodeNumber};

use crate::measure::{Line, Size, median};

/// 4,096 ids a millisecond.
const FORMAT_LIMIT: f64 = 4_096_000.0;

pub(crate) fn run(size: Size) {
    let rate = |count: usize, take: &dyn Fn(&IdSequence)| {
        let times = (0..size.rounds).map(|_| {
            let ids = IdSequence::after(NodeNumber::of_name("bench"), 0);
            let start = Instant::now();
            take(&ids);
            start.elapsed()
        });
        count as f64 / median(times.collect()).as_secs_f64()
    };
    let one_by_one = rate(size.ids, &|ids| {
        for _ in 0..size.ids {
            std::hint::black_box(ids.next(SystemClock.now_ms()));
        }
    });
    let reserved = rate(size.ids, &|ids| {
        for _ in 0..size.ids / 1_000 {
            ids.reserve(1_000, SystemClock.now_ms()).for_each(|id| {
                std::hint::black_box(id);
            });
        }
    });
    let against = "the format's limit of one node";
    Line::rate("ids, one at a time", one_by_one, FORMAT_LIMIT, against).print();
    Line::rate("ids, a thousand at a time", reserved, FORMAT_LIMIT, against).print();
}
