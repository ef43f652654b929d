//! Statements that have ended: the last ones, and the last slow ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;

/// Which statements that have ended are still shown in system.queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Statements that have ended and are still shown: the last ones, of all users together.
    pub history_max: usize,
    /// The same of slow ones, however many others have come since.
    pub slow_max: usize,
    /// Milliseconds from which on a statement is a slow one. The time in which its client reads its result counts.
    pub slow_milliseconds: u64,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { history_max: 1000, slow_max: 200, slow_milliseconds: 1000 }
    }
}

impl HistoryConfig {
    /// Whether a statement that has taken so long is a slow one.
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        took >= Duration::from_millis(self.slow_milliseconds)
    }
}

/// Those that are still shown.
#[derive(Debug)]
pub(super) struct History {
    config: HistoryConfig,
    last: VecDeque<Arc<Entry>>,
    slow: VecDeque<Arc<Entry>>,
}

impl History {
    pub(super) fn new(config: HistoryConfig) -> Self {
        Self { config, last: VecDeque::new(), slow: VecDeque::new() }
    }

    /// Takes one that has ended, after so long.
    pub(super) fn push(&mut self, entry: &Arc<Entry>, took: Duration) {
        keep(&mut self.last, entry, self.config.history_max);
        if self.config.is_slow(took) {
            keep(&mut self.slow, entry, self.config.slow_max);
        }
    }

    /// Each once, the oldest first.
    pub(super) fn list(&self) -> Vec<Arc<Entry>> {
        let all: BTreeMap<u64, &Arc<Entry>> =
            self.slow.iter().chain(&self.last).map(|entry| (entry.number, entry)).collect();
        all.into_values().cloned().collect()
    }
}

fn keep(entries: &mut VecDeque<Arc<Entry>>, entry: &Arc<Entry>, max: usize) {
    if max == 0 {
        return;
    }
    while entries.len() >= max {
        entries.pop_front();
    }
    entries.push_back(Arc::clone(entry));
}
