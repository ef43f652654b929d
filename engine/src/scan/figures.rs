//! What scans of cold files skip and read: on the scan's line of EXPLAIN ANALYZE, and in total since the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricType};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Files of the scope.
    Total,
    /// Files that the plan leaves out.
    Skipped,
    /// Files that were opened.
    Scanned,
    /// Bloom filters that were asked.
    BloomTests,
    /// Files that a Bloom filter has ruled out.
    BloomSkips,
    /// Files that Bloom filters let pass, and that had no matching row.
    BloomFalsePositives,
    /// Positions that masks hide in the files of the plan.
    RowsMasked,
    /// Bytes read from the object store: of files, their footers and their sidecars.
    BytesRead,
}

/// What they are called.
pub(crate) const NAMES: [&str; 8] = [
    "batches_total",
    "batches_skipped",
    "batches_scanned",
    "bloom_filter_tests",
    "bloom_filter_skips",
    "bloom_filter_false_positives",
    "rows_masked",
    "bytes_read",
];

/// The sums over all scans.
#[derive(Debug, Default)]
pub(crate) struct ScanTotals([AtomicU64; 8]);

impl ScanTotals {
    /// Names and values.
    pub(crate) fn values(&self) -> [(&'static str, u64); 8] {
        std::array::from_fn(|i| (NAMES[i], self.0[i].load(Ordering::Relaxed)))
    }
}

/// The figures of one scan.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    counts: [Count; 8],
    totals: Arc<ScanTotals>,
}

impl Figures {
    /// Figures that are shown with these metrics and added to these sums.
    pub(super) fn new(metrics: &ExecutionPlanMetricsSet, totals: Arc<ScanTotals>) -> Self {
        let counter = |name| MetricBuilder::new(metrics).with_type(MetricType::Summary).global_counter(name);
        Self { counts: NAMES.map(counter), totals }
    }

    pub(super) fn add(&self, figure: Figure, count: u64) {
        self.counts[figure as usize].add(count as usize);
        self.totals.0[figure as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn value(&self, figure: Figure) -> u64 {
        self.counts[figure as usize].value() as u64
    }
}
