//! What runs: whose it is, since when and how far; how much of it one user may have; and what has run last.
//!
//! Invariants:
//! 1. A statement runs from its execution to the end of its result, or until nobody waits for it. Then it is history.
//! 2. No user has more than [`UserLimits`] says, so that none takes all from the others.
//! 3. A user knows of statements that concern the user, running or not; an admin of all.

mod entry;
mod history;
mod pool;
mod stoppable;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;
use seracdb_storage::clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::error::{EngineError, ErrorKind, Result};
use crate::metrics::StatementMetrics;
use crate::scan::PlanMemory;
use crate::session::Session;

pub(crate) use entry::{Beginning, Entry, Outcome, Way};
use history::History;
pub use history::HistoryConfig;
use pool::{CountedPool, UserPool};
pub(crate) use stoppable::Stoppable;

/// What one user may have at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserLimits {
    /// Statements that run, results that are being read included. Further ones are refused.
    #[schemars(range(min = 1))]
    pub queries_max: usize,
    /// Bytes of memory that queries may use together before they spill, rows that an ingest has gathered included.
    #[schemars(range(min = 1))]
    pub memory_max: usize,
    /// Temporary tables, of all sessions of the user together. Further ones are refused.
    #[schemars(range(min = 1))]
    pub temporary_tables_max: usize,
}

impl Default for UserLimits {
    fn default() -> Self {
        Self { queries_max: 1000, memory_max: 2 << 30, temporary_tables_max: 1000 }
    }
}

/// All that runs, and what has ended last.
pub(crate) struct Running {
    limits: UserLimits,
    history: HistoryConfig,
    runtime: Arc<RuntimeEnv>,
    clock: Arc<dyn Clock>,
    metrics: StatementMetrics,
    state: Mutex<State>,
}

struct State {
    next: u64,
    entries: BTreeMap<u64, Arc<Entry>>,
    users: HashMap<u64, User>,
    history: History,
}

/// A user with something that runs.
struct User {
    running: usize,
    memory: Arc<dyn MemoryPool>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("entries", &self.state.lock().entries).finish_non_exhaustive()
    }
}

impl Running {
    pub(crate) fn new(
        limits: UserLimits,
        history: HistoryConfig,
        runtime: Arc<RuntimeEnv>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = State { next: 0, entries: BTreeMap::new(), users: HashMap::new(), history: History::new(history) };
        Self { limits, history, runtime, clock, metrics: StatementMetrics::default(), state: Mutex::new(state) }
    }

    /// Notes that a statement of a session begins, for its user or the one it acts for; refused when that one has too much
    /// already. `stop`: ends it.
    pub(crate) fn begin(
        self: &Arc<Self>,
        session: &Session,
        beginning: Beginning,
        stop: CancellationToken,
    ) -> Result<Run> {
        let (principal, actor) = (session.subject(), session.principal());
        let started = (self.clock.now_ns(), self.clock.monotonic());
        let mut state = self.state.lock();
        let user = state.users.entry(principal.number()).or_insert_with(|| {
            let pool = UserPool::new(principal.name(), &self.runtime.memory_pool, self.limits.memory_max);
            User { running: 0, memory: Arc::new(pool) }
        });
        if user.running >= self.limits.queries_max {
            return Err(EngineError::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "user '{}' has {} statements running, the limit: read their results to the end or cancel some, or \
                     raise limits.user.queries_max",
                    principal.name(),
                    self.limits.queries_max
                ),
            ));
        }
        user.running += 1;
        let memory = Arc::clone(&user.memory);
        state.next += 1;
        let number = state.next;
        let who = (principal.clone(), actor.number());
        let entry = Arc::new(Entry::new(number, who, session.shared_id(), beginning, started, stop));
        state.entries.insert(number, Arc::clone(&entry));
        let pool = Arc::new(CountedPool::new(memory, Arc::clone(&entry)));
        let runtime = Arc::new(RuntimeEnv { memory_pool: pool, ..RuntimeEnv::clone(&self.runtime) });
        let (parts, outcome) = (AtomicUsize::new(1), OnceLock::new());
        Ok(Run { running: Arc::clone(self), runtime, entry, parts, outcome })
    }

    /// What one user may have.
    pub(crate) fn limits(&self) -> &UserLimits {
        &self.limits
    }

    /// What is remembered of those that have ended.
    pub(crate) fn history(&self) -> &HistoryConfig {
        &self.history
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn metrics(&self) -> &StatementMetrics {
        &self.metrics
    }

    /// What runs, the oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Entry>> {
        self.state.lock().entries.values().cloned().collect()
    }

    /// The same, after what has ended and is remembered.
    pub(crate) fn list_with_ended(&self) -> Vec<Arc<Entry>> {
        let state = self.state.lock();
        state.history.list().into_iter().chain(state.entries.values().cloned()).collect()
    }

    /// How many run, and the bytes that they all work with.
    pub(crate) fn totals(&self) -> (usize, usize) {
        (self.state.lock().entries.len(), self.runtime.memory_pool.reserved())
    }

    /// Ends one that runs, at its next step. One that may not be known of is not there.
    pub(crate) fn cancel(&self, id: &str, may: impl Fn(&Entry) -> bool) -> Result<()> {
        let number = id.parse::<u64>().ok();
        let entry = number.and_then(|number| self.state.lock().entries.get(&number).cloned());
        let entry = entry.filter(|entry| may(entry)).ok_or_else(|| {
            EngineError::not_found(format!(
                "no statement '{id}' runs: it has ended, never was, or is another user's. See system.queries"
            ))
        })?;
        entry.cancel()
    }
}

/// Something that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Run {
    running: Arc<Running>,
    runtime: Arc<RuntimeEnv>,
    entry: Arc<Entry>,
    /// Parts of its result that have not come to their end.
    parts: AtomicUsize,
    /// How it ends, when that is known before it is dropped.
    outcome: OnceLock<Outcome>,
}

impl Run {
    /// Counts rows that were given, written or taken.
    pub(crate) fn count(&self, batch: &RecordBatch) {
        self.entry.count(batch.num_rows(), batch.get_array_memory_size());
    }

    /// Counts memory that is no plan's as the user's, until what is given is dropped.
    pub(crate) fn memory(&self, what: &str) -> MemoryReservation {
        MemoryConsumer::new(what).register(&self.runtime.memory_pool)
    }

    /// The state of a statement with which it is planned: what its plan holds is memory of the user, too.
    pub(crate) fn planning(&self, mut state: SessionState) -> SessionState {
        state.config_mut().set_extension(Arc::new(PlanMemory(Arc::clone(&self.runtime.memory_pool))));
        state
    }

    /// What a plan of this state runs with: its memory is that of the user.
    pub(crate) fn task(&self, state: &SessionState) -> Arc<TaskContext> {
        Arc::new(TaskContext::from(state).with_runtime(Arc::clone(&self.runtime)))
    }

    /// Notes the plan that it runs, which tells how far it is.
    pub(crate) fn runs(&self, plan: &Arc<dyn ExecutionPlan>) {
        self.entry.runs(plan);
    }

    /// Fires when nobody wants it any more.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.entry.stop().clone()
    }

    /// Rows of its plan, until it is cancelled.
    pub(crate) fn until_stopped(&self, rows: SendableRecordBatchStream) -> Stoppable {
        Stoppable::new(rows, self.entry.stop())
    }

    /// Waits for something, unless it is cancelled.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        self.entry.stop().run_until_cancelled(work).await.ok_or_else(EngineError::cancelled)
    }

    /// Its result comes in so many parts.
    pub(crate) fn has_parts(&self, parts: usize) {
        self.parts.store(parts, Ordering::Relaxed);
    }

    /// A part of its result has come to its end.
    pub(crate) fn part_ended(&self) {
        self.parts.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that it has failed, if it has.
    pub(crate) fn noting<T>(&self, done: Result<T>) -> Result<T> {
        done.inspect_err(|error| {
            // The first error is the one that the client gets.
            let _ = self.outcome.set(Outcome::of_error(error.kind));
        })
    }

    /// Notes how it has ended.
    pub(crate) fn ending<T>(&self, done: Result<T>) -> Result<T> {
        if done.is_ok() {
            self.has_parts(0);
        }
        self.noting(done)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let outcome = match self.outcome.get() {
            Some(outcome) => *outcome,
            None if std::thread::panicking() => Outcome::Failed(ErrorKind::Internal),
            None if *self.parts.get_mut() == 0 => Outcome::Completed,
            None => Outcome::Cancelled,
        };
        let clock = &self.running.clock;
        let took = self.entry.ended(outcome, clock.now_ns(), clock.monotonic());
        self.running.metrics.ended(&self.entry, outcome, took);
        let mut state = self.running.state.lock();
        state.entries.remove(&self.entry.number);
        state.history.push(&self.entry, took);
        let number = self.entry.principal.number();
        if let Some(user) = state.users.get_mut(&number) {
            user.running -= 1;
            if user.running == 0 {
                state.users.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;
    use seracdb_storage::clock::ManualClock;

    use super::*;
    use crate::identity::{Principal, Role};

    const HISTORY: HistoryConfig = HistoryConfig { history_max: 3, slow_max: 2, slow_milliseconds: 1000 };

    fn running_at(limits: UserLimits, clock: Arc<ManualClock>) -> Arc<Running> {
        let pool = Arc::new(GreedyMemoryPool::new(1000));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        Arc::new(Running::new(limits, HISTORY, runtime, clock))
    }

    fn running(limits: UserLimits) -> Arc<Running> {
        running_at(limits, Arc::new(ManualClock::at_ns(7)))
    }

    fn begin_in(running: &Arc<Running>, user: &str, number: u64, way: Way) -> Result<Run> {
        let session = Session::new(Principal::new(user.to_owned(), number, Role::User));
        let beginning = Beginning { way, label: "select", text: "SELECT 1".into() };
        running.begin(&session, beginning, CancellationToken::new())
    }

    fn begin(running: &Arc<Running>, user: &str, number: u64) -> Result<Run> {
        begin_in(running, user, number, Way::Query)
    }

    fn numbers(entries: &[Arc<Entry>]) -> Vec<u64> {
        entries.iter().map(|entry| entry.number).collect()
    }

    #[test]
    fn one_user_has_so_many_and_no_more() {
        let running = running(UserLimits { queries_max: 2, memory_max: 100, ..UserLimits::default() });
        let (first, _second) = (begin(&running, "a", 1).unwrap(), begin(&running, "a", 1).unwrap());
        let refused = begin(&running, "a", 1).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::ResourceExhausted);
        assert!(refused.message.contains("limits.user.queries_max"));
        let _of_another = begin(&running, "b", 2).unwrap();
        drop(first);
        begin(&running, "a", 1).unwrap();
        assert_eq!(numbers(&running.list()), [2, 3]);
    }

    #[test]
    fn memory_is_a_statements_a_users_and_everybodys() {
        let running = running(UserLimits { queries_max: 10, memory_max: 600, ..UserLimits::default() });
        let (a, b) = (begin(&running, "a", 1).unwrap(), begin(&running, "b", 2).unwrap());
        let again = begin(&running, "a", 1).unwrap();
        let reservation = |run: &Run| MemoryConsumer::new("sort").register(&run.runtime.memory_pool);
        let (mine, more, others) = (reservation(&a), reservation(&again), reservation(&b));
        mine.try_grow(500).unwrap();
        assert!(more.try_grow(101).unwrap_err().to_string().contains("user 'a'"));
        more.try_grow(100).unwrap();
        // What the others leave.
        assert!(others.try_grow(401).is_err());
        others.try_grow(400).unwrap();
        let memory = |run: &Run| (run.entry.memory().unwrap(), run.entry.memory_peak());
        assert_eq!((memory(&a), memory(&again), memory(&b)), ((500, 500), (100, 100), (400, 400)));
        assert_eq!(running.totals(), (3, 1000));
        drop((mine, more));
        others.try_grow(200).unwrap();
        assert_eq!((memory(&a), memory(&again), memory(&b)), ((0, 500), (0, 100), (600, 600)));
    }

    #[test]
    fn it_is_remembered_how_it_ended() {
        let running = running(UserLimits::default());
        let failed = || Err::<(), _>(EngineError::invalid("no"));
        begin(&running, "a", 1).unwrap().ending(Ok(())).unwrap();
        begin(&running, "a", 1).unwrap().ending(failed()).unwrap_err();
        drop(begin(&running, "a", 1).unwrap());
        let ended = |entries: Vec<Arc<Entry>>| -> Vec<_> {
            entries.iter().map(|entry| (entry.number, entry.state(), entry.error())).collect()
        };
        let all =
            [(1, "completed", None), (2, "failed", Some("INVALID_ARGUMENT")), (3, "cancelled", Some("CANCELLED"))];
        assert_eq!(ended(running.list_with_ended()), all);
        // In two parts, of which one is not read to its end; then in two that are. An error is one, whatever comes after it.
        let parts = |ends: usize| {
            let run = begin(&running, "a", 1).unwrap();
            run.has_parts(2);
            (0..ends).for_each(|_| run.part_ended());
            run
        };
        drop((parts(1), parts(2)));
        let late = parts(1);
        late.noting(failed()).unwrap_err();
        late.part_ended();
        drop(late);
        let states: Vec<_> = running.list_with_ended().iter().map(|entry| entry.state()).collect();
        assert_eq!(states, ["cancelled", "completed", "failed"], "the last three");
    }

    #[test]
    fn slow_ones_are_remembered_for_longer() {
        let clock = Arc::new(ManualClock::at_ns(7));
        let running = running_at(UserLimits::default(), Arc::clone(&clock));
        for slow in [true, false, true, false, true, false, false, false] {
            let run = begin(&running, "a", 1).unwrap();
            clock.advance(Duration::from_millis(if slow { 1000 } else { 999 }));
            drop(run);
        }
        let _running = begin(&running, "a", 1).unwrap();
        assert_eq!(numbers(&running.list_with_ended()), [3, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn who_may_cancel_it_and_what() {
        let running = running(UserLimits::default());
        let own = begin(&running, "a", 1).unwrap();
        let cancel = |id: &str, user: u64| running.cancel(id, |entry| entry.concerns(user));
        let not_mine = cancel("1", 2).unwrap_err();
        assert_eq!((not_mine.kind, not_mine.message), {
            let unknown = cancel("77", 1).unwrap_err();
            (ErrorKind::NotFound, unknown.message.replace("77", "1"))
        });
        for id in ["", "-1", "one", "99999999999999999999999"] {
            assert_eq!(cancel(id, 1).unwrap_err().kind, ErrorKind::NotFound);
        }
        assert!(!own.stop().is_cancelled());
        cancel("1", 1).unwrap();
        assert!(own.stop().is_cancelled());
        let _change = begin_in(&running, "a", 1, Way::Change).unwrap();
        assert_eq!(cancel("2", 1).unwrap_err().kind, ErrorKind::FailedPrecondition);
        drop(own);
        assert_eq!(cancel("1", 1).unwrap_err().kind, ErrorKind::NotFound, "it has ended");
    }
}
