//! A seeded simulation of one scope: commits, flushes and compactions that stop between their steps, readers that hold
//! old snapshots, a clock that jumps, crashes at any point, against the naive `MAX(_updated)` model.
//!
//! `SERACDB_SEED=n` runs the history of one seed; a failure names its seed.

mod model;
pub(crate) mod reading;
mod world;

use world::World;

const SEEDS: u64 = 200;
const ACTIONS: usize = 60;

#[test]
fn histories_agree_with_the_model() {
    if let Some(seed) = std::env::var("SERACDB_SEED").ok().and_then(|seed| seed.parse().ok()) {
        run(seed);
        return;
    }
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    if std::panic::catch_unwind(|| run(seed)).is_err() {
                        panic!("the history of seed {seed} went wrong: SERACDB_SEED={seed} runs it alone");
                    }
                }
            });
        }
    });
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..ACTIONS {
        world.act();
    }
    world.settle();
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
