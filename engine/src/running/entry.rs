//! A statement that runs, or has run.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::Principal;

/// How a statement came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It gives rows.
    Query,
    /// It changes rows.
    Update,
    /// A stream of rows into a table.
    Ingest,
    /// It changes what there is, or how it is stored.
    Change,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Update => "update",
            Self::Ingest => "ingest",
            Self::Change => "change",
        }
    }
}

/// How a statement has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has done all.
    Completed,
    /// It has failed with an error of this kind.
    Failed(ErrorKind),
    /// Somebody has cancelled it, or nobody waits for it any more.
    Cancelled,
}

impl Outcome {
    pub(crate) fn of_error(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Cancelled => Self::Cancelled,
            kind => Self::Failed(kind),
        }
    }

    /// The code of its error.
    pub(crate) fn error(self) -> Option<&'static str> {
        match self {
            Self::Completed => None,
            Self::Failed(kind) => Some(kind.name()),
            Self::Cancelled => Some(ErrorKind::Cancelled.name()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What begins.
pub(crate) struct Beginning {
    pub(crate) way: Way,
    /// What kind of statement it is, for figures of all together.
    pub(crate) label: &'static str,
    /// Its text, without secrets.
    pub(crate) text: Arc<str>,
}

/// A statement that runs or has run.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    /// Whose rows and rights it has.
    pub(crate) principal: Principal,
    /// Number of the user that has sent it: another one, when it acts for that one.
    pub(crate) actor: u64,
    /// The session that has sent it, by its name for others.
    pub(crate) session: Arc<str>,
    pub(crate) way: Way,
    pub(crate) label: &'static str,
    /// Its text, without secrets.
    pub(crate) text: Arc<str>,
    pub(crate) started_ns: i64,
    /// The same in time since the machine was started.
    started: Duration,
    rows: AtomicU64,
    bytes: AtomicU64,
    memory: AtomicUsize,
    memory_peak: AtomicUsize,
    /// What it runs, as long as it does.
    plan: Mutex<Option<Arc<dyn ExecutionPlan>>>,
    stop: CancellationToken,
    end: OnceLock<End>,
    /// Its text without literals, once somebody has asked for it.
    plain: OnceLock<Arc<str>>,
}

#[derive(Debug)]
struct End {
    outcome: Outcome,
    at_ns: i64,
    duration: Duration,
}

impl Entry {
    /// `started`: in ns since the Unix epoch, and since the machine was started.
    pub(super) fn new(
        number: u64,
        (principal, actor): (Principal, u64),
        session: Arc<str>,
        beginning: Beginning,
        (started_ns, started): (i64, Duration),
        stop: CancellationToken,
    ) -> Self {
        let Beginning { way, label, text } = beginning;
        Self {
            number,
            principal,
            actor,
            session,
            way,
            label,
            text,
            started_ns,
            started,
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            memory: AtomicUsize::new(0),
            memory_peak: AtomicUsize::new(0),
            plan: Mutex::default(),
            stop,
            end: OnceLock::new(),
            plain: OnceLock::new(),
        }
    }

    /// Whether a user may know of it: it is the user's own, or somebody's who acts for the user, or the user acts.
    pub(crate) fn concerns(&self, user: u64) -> bool {
        self.actor == user || self.principal.number() == user
    }

    /// Rows that it has given, written or taken so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes of those rows in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, rows: usize, bytes: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that it works with now; `None` when it has ended.
    pub(crate) fn memory(&self) -> Option<usize> {
        self.end.get().is_none().then(|| self.memory.load(Ordering::Relaxed))
    }

    /// The most that it has worked with.
    pub(crate) fn memory_peak(&self) -> usize {
        self.memory_peak.load(Ordering::Relaxed)
    }

    pub(super) fn reserved(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    pub(super) fn grew(&self, bytes: usize) {
        let now = self.memory.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.memory_peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn shrank(&self, bytes: usize) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The name of its state.
    pub(crate) fn state(&self) -> &'static str {
        self.end.get().map_or("running", |end| end.outcome.name())
    }

    /// The code of its error.
    pub(crate) fn error(&self) -> Option<&'static str> {
        self.end.get().and_then(|end| end.outcome.error())
    }

    /// When it has ended, in ns since the Unix epoch.
    pub(crate) fn finished_ns(&self) -> Option<i64> {
        self.end.get().map(|end| end.at_ns)
    }

    /// How long it has run, until now or to its end. `now`: in time since the machine was started.
    pub(crate) fn duration(&self, now: Duration) -> Duration {
        self.end.get().map_or_else(|| now.saturating_sub(self.started), |end| end.duration)
    }

    /// Notes how it has ended; gives how long it took.
    pub(super) fn ended(&self, outcome: Outcome, at_ns: i64, now: Duration) -> Duration {
        let duration = now.saturating_sub(self.started);
        let _ = self.end.set(End { outcome, at_ns, duration });
        // A plan may hold memory that is counted here.
        let plan = self.plan.lock().take();
        drop(plan);
        duration
    }

    pub(super) fn runs(&self, plan: &Arc<dyn ExecutionPlan>) {
        *self.plan.lock() = Some(Arc::clone(plan));
    }

    /// How much of the files that it scans it has read, in percent, while it runs and as far as that is known.
    pub(crate) fn progress(&self) -> Option<i64> {
        let plan = self.plan.lock().clone()?;
        let (mut read, mut all) = (0, 0);
        add_scanned(&plan, &mut read, &mut all);
        // What filters leave out while a file is decoded is not counted as read: no more than nearly all is ever said.
        (all > 0).then(|| (read.min(all) * 100 / all).min(99) as i64)
    }

    /// Its text without literals, made by `plain` the first time.
    pub(crate) fn plain_text(&self, plain: impl FnOnce(&str) -> String) -> &str {
        self.plain.get_or_init(|| plain(&self.text).into())
    }

    /// Fires when nobody wants it any more.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Ends it at its next step.
    pub(super) fn cancel(&self) -> Result<()> {
        if self.way == Way::Change {
            return Err(EngineError::new(
                ErrorKind::FailedPrecondition,
                format!("statement '{}' changes what there is or how it is stored: it is done as a whole", self.number),
            ));
        }
        self.stop.cancel();
        Ok(())
    }
}

/// Adds the rows that the scans of a plan have given, and have, where both are known.
fn add_scanned(plan: &Arc<dyn ExecutionPlan>, read: &mut usize, all: &mut usize) {
    let children = plan.children();
    if !children.is_empty() {
        return children.into_iter().for_each(|child| add_scanned(child, read, all));
    }
    let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
    let known = statistics.ok().and_then(|statistics| statistics.num_rows.get_value().copied());
    if let Some(rows) = known {
        *all += rows;
        *read += plan.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0).min(rows);
    }
}
