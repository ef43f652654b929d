//! Rounds, medians and the table.

use std::fmt;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Rounds of each alternative.
    pub rounds: usize,
    /// Operations in a round of single-row statements.
    pub statements: usize,
    /// Ids in a round.
    pub ids: usize,
    /// Rows in the table that statements change.
    pub table_rows: usize,
    /// Batch files in the table that is pruned.
    pub files: usize,
    /// Rows in the table whose versions stay hot until there are too many.
    pub small_table_rows: usize,
    /// Versions that each row of a table gets, table by table.
    pub versions: [usize; 2],
}

impl Size {
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        statements: 300,
        ids: 20_000_000,
        table_rows: 100_000,
        files: 1_000,
        small_table_rows: 3_000,
        versions: [10, 100],
    };
    pub(crate) const SMOKE: Self = Self {
        rounds: 2,
        statements: 5,
        ids: 100_000,
        table_rows: 1_000,
        files: 20,
        small_table_rows: 100,
        versions: [2, 4],
    };
}

/// The middle one of these times.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// One line of the table.
pub(crate) struct Line {
    name: String,
    ours: f64,
    peer: f64,
    unit: &'static str,
    against: &'static str,
}

impl Line {
    pub(crate) const HEADER: &'static str =
        "benchmark                                        ours         peer   ratio  unit           against";

    /// Prints it at once: a run takes minutes.
    pub(crate) fn print(&self) {
        println!("{self}");
    }

    /// Time of one operation of ours against a peer's.
    pub(crate) fn time(name: impl Into<String>, ours: Duration, peer: Duration, against: &'static str) -> Self {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        Self { name: name.into(), ours: us(ours), peer: us(peer), unit: "µs/op", against }
    }

    /// Operations a second of ours against a peer's.
    pub(crate) fn rate(name: impl Into<String>, ours: f64, peer: f64, against: &'static str) -> Self {
        Self { name: name.into(), ours, peer, unit: "op/s", against }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.ours / self.peer;
        let Self { name, ours, peer, unit, against } = self;
        write!(f, "{name:<42} {ours:>12.1} {peer:>12.1} {ratio:>6.2}×  {unit:<13}  {against}")
    }
}
