//! Figures for those who watch a server.
//!
//! No label says who, which table or what statement: each is one of few words that are known here. What is in memory anyway is
//! looked at when somebody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::engine::Engine;
use crate::error::{ErrorKind, Result};
use crate::running::{Entry, Outcome, Way};

/// Names and values.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// What is counted of statements since the start. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct StatementMetrics {
    ended: Family<Labels<2>, Counter>,
    seconds: Family<Labels<1>, Histogram, fn() -> Histogram>,
    rows_out: Counter,
    bytes_out: Counter,
    rows_in: Counter,
    bytes_in: Counter,
}

/// From 1 ms to 2 min.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

impl Default for StatementMetrics {
    fn default() -> Self {
        Self {
            ended: Family::default(),
            seconds: Family::new_with_constructor(latencies),
            rows_out: Counter::default(),
            bytes_out: Counter::default(),
            rows_in: Counter::default(),
            bytes_in: Counter::default(),
        }
    }
}

impl StatementMetrics {
    /// A statement has ended like this, after so long.
    pub(crate) fn ended(&self, entry: &Entry, outcome: Outcome, took: Duration) {
        self.count(entry.label, outcome.error().unwrap_or("OK"), took);
        let (rows, bytes) = match entry.way {
            Way::Query => (&self.rows_out, &self.bytes_out),
            Way::Update | Way::Ingest | Way::Change => (&self.rows_in, &self.bytes_in),
        };
        rows.inc_by(entry.rows());
        bytes.inc_by(entry.bytes());
    }

    /// The same of one that is not among those that run.
    pub(crate) fn light<T>(&self, label: &'static str, done: &Result<T>, took: Duration) {
        self.count(label, done.as_ref().err().map_or("OK", |error| error.kind.name()), took);
    }

    /// A statement was refused before it ran.
    pub(crate) fn refused(&self, kind: ErrorKind) {
        self.ended.get_or_create(&[("kind", "refused"), ("outcome", kind.name())]).inc();
    }

    fn count(&self, label: &'static str, outcome: &'static str, took: Duration) {
        self.ended.get_or_create(&[("kind", label), ("outcome", outcome)]).inc();
        self.seconds.get_or_create(&[("kind", label)]).observe(took.as_secs_f64());
    }

    fn register(&self, registry: &mut Registry) {
        let Self { ended, seconds, rows_out, bytes_out, rows_in, bytes_in } = self.clone();
        registry.register("statements", "Statements that have ended, by kind and error code", ended);
        registry.register("statement_seconds", "Time of statements, results being read included, by kind", seconds);
        registry.register("rows_out", "Rows of results", rows_out);
        registry.register("bytes_out", "Bytes of results in memory", bytes_out);
        registry.register("rows_in", "Rows that statements and ingests wrote or changed", rows_in);
        registry.register("bytes_in", "Bytes of those rows in memory", bytes_in);
    }
}

impl Engine {
    /// Shows all that the engine and the storage count.
    pub fn register_metrics(self: &Arc<Self>, registry: &mut Registry) {
        self.running.metrics().register(registry);
        self.store.register_metrics(registry);
        registry.register_collector(Box::new(Now(Arc::clone(self))));
    }
}

/// What is looked at when somebody asks.
#[derive(Debug)]
struct Now(Arc<Engine>);

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let engine = &self.0;
        let (running, memory) = engine.running.totals();
        let cache = engine.manifest_cache_totals();
        for (name, help, value) in [
            ("sessions", "Sessions of clients", engine.sessions.len() as u64),
            ("transactions", "Transactions that are open", engine.open_transactions() as u64),
            ("statements_running", "Statements that run, results being read included", running as u64),
            ("query_memory_bytes", "Memory that statements work with", memory as u64),
            ("hot_bytes", "Bytes of hot rows, superseded versions included, about", engine.store.hot_bytes()),
        ] {
            let gauge = ConstGauge::new(value as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, value) in engine.scan_totals() {
            let name = format!("scan_{}", name.strip_suffix("_total").unwrap_or(name));
            let counter = ConstCounter::new(value);
            let help = "Of scans of cold files, as EXPLAIN ANALYZE has it for one";
            counter.encode(encoder.encode_descriptor(&name, help, None, counter.metric_type())?)?;
        }
        for (name, help, value) in [
            ("manifest_cache_misses", "Manifests that were read from the object store", cache.misses),
            ("manifest_cache_revalidated", "Manifests that were found unchanged there", cache.revalidated),
            ("manifest_cache_sync_success", "Exported manifests that are in the cache", cache.sync_successes),
            ("manifest_cache_sync_failure", "Exported manifests that could not be cached", cache.sync_failures),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let help = "Manifests that the cache had";
        let mut hits = encoder.encode_descriptor("manifest_cache_hits", help, None, MetricType::Counter)?;
        for (tier, value) in [("memory", cache.memory_hits), ("rocksdb", cache.rocksdb_hits)] {
            ConstCounter::new(value).encode(hits.encode_family(&[("tier", tier)])?)?;
        }
        let help = "Memory that the storage keeps things in";
        let mut memory = encoder.encode_descriptor("storage_memory_bytes", help, None, MetricType::Gauge)?;
        for (part, bytes) in engine.store.memory() {
            ConstGauge::new(bytes as i64).encode(memory.encode_family(&[("part", part)])?)?;
        }
        let help = "Jobs by type and state; those that have ended as long as they are remembered";
        let mut jobs = encoder.encode_descriptor("jobs", help, None, MetricType::Gauge)?;
        for ((job_type, state), count) in self.jobs() {
            ConstGauge::new(count).encode(jobs.encode_family(&[("type", job_type), ("state", state)])?)?;
        }
        Ok(())
    }
}

impl Now {
    fn jobs(&self) -> BTreeMap<(&'static str, &'static str), i64> {
        let mut counts = BTreeMap::new();
        for (job, _) in self.0.jobs.list() {
            *counts.entry((job.spec.name(), job.state.name())).or_default() += 1;
        }
        counts
    }
}
