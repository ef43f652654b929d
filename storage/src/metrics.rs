//! Figures of the storage, for those who watch a server: counted here, named where they are registered.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::compact::Compacted;
use crate::flush::Flushed;

/// What is counted since the start. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct StorageMetrics {
    commits: Counter,
    commits_refused: Counter,
    commit_seconds: Histogram,
    group_requests: Histogram,
    flushes: Counter,
    flushed_rows: Counter,
    compactions: Counter,
    compacted_files: Counter,
    compacted_rows: Counter,
}

impl Default for StorageMetrics {
    fn default() -> Self {
        Self {
            commits: Counter::default(),
            commits_refused: Counter::default(),
            // From 0.1 ms to 3 s.
            commit_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            group_requests: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            flushes: Counter::default(),
            flushed_rows: Counter::default(),
            compactions: Counter::default(),
            compacted_files: Counter::default(),
            compacted_rows: Counter::default(),
        }
    }
}

impl StorageMetrics {
    /// A commit that was asked for at `begun` is durable, or refused.
    pub(crate) fn committed(&self, begun: Instant, is_done: bool) {
        if !is_done {
            self.commits_refused.inc();
            return;
        }
        self.commits.inc();
        self.commit_seconds.observe(seconds(begun.elapsed()));
    }

    /// So many requests were written as one batch.
    pub(crate) fn group_written(&self, requests: usize) {
        self.group_requests.observe(requests as f64);
    }

    pub(crate) fn flushed(&self, flushed: &Flushed) {
        self.flushes.inc();
        self.flushed_rows.inc_by(flushed.rows);
    }

    pub(crate) fn compacted(&self, done: &Compacted) {
        self.compactions.inc();
        self.compacted_files.inc_by(done.inputs as u64);
        self.compacted_rows.inc_by(done.rows);
    }

    /// Shows all of them.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let Self { commits, commits_refused, commit_seconds, group_requests, .. } = self.clone();
        registry.register("commits", "Commits that are durable", commits);
        registry.register("commits_refused", "Commits that conflicted with others or failed", commits_refused);
        registry.register("commit_seconds", "Time from asking for a commit to its being durable", commit_seconds);
        registry.register("commit_group_requests", "Requests that were written and synced as one", group_requests);
        let Self { flushes, flushed_rows, compactions, compacted_files, compacted_rows, .. } = self.clone();
        registry.register("flushes", "Hot rows of a table, or one user's part of it, written to files", flushes);
        registry.register("flushed_rows", "Rows that flushes wrote", flushed_rows);
        registry.register("compactions", "Merges of files", compactions);
        registry.register("compacted_files", "Files that merges read", compacted_files);
        registry.register("compacted_rows", "Rows that merges wrote", compacted_rows);
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
