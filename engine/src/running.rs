//! What runs now: whose it is, since when and how far; and how much of it one user may have.
//!
//! Invariants:
//! 1. A statement is here from its execution to the end of its result, or until nobody waits for it.
//! 2. No user has more than [`UserLimits`] says, so that none takes all from the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use parking_lot::Mutex;

use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::Principal;
use crate::memory::FairPool;

/// What one user may have at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserLimits {
    /// Statements that run, results that are being read included. Further ones are refused.
    #[schemars(range(min = 1))]
    pub queries_max: usize,
    /// Bytes of memory that queries may use together before they spill, rows that an ingest has gathered included.
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

/// How a statement came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It gives rows.
    Query,
    /// It changes something.
    Update,
    /// A stream of rows into a table.
    Ingest,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Update => "update",
            Self::Ingest => "ingest",
        }
    }
}

/// A statement that runs.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    /// Whose rows and rights it has.
    pub(crate) principal: Principal,
    /// Number of the user that has sent it: another one, when it acts for that one.
    pub(crate) actor: u64,
    pub(crate) way: Way,
    /// Its text, without secrets.
    pub(crate) text: Arc<str>,
    pub(crate) started_ns: i64,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Entry {
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
}

/// All that runs.
pub(crate) struct Running {
    limits: UserLimits,
    runtime: Arc<RuntimeEnv>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    entries: BTreeMap<u64, Arc<Entry>>,
    users: HashMap<u64, User>,
}

/// A user with something that runs.
struct User {
    running: usize,
    /// The engine's, but for the memory.
    runtime: Arc<RuntimeEnv>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("entries", &self.state.lock().entries).finish_non_exhaustive()
    }
}

impl Running {
    pub(crate) fn new(limits: UserLimits, runtime: Arc<RuntimeEnv>) -> Self {
        Self { limits, runtime, state: Mutex::default() }
    }

    /// Notes that something begins, of an actor for a user, who is mostly the same; refused when the user has too much already.
    pub(crate) fn begin(
        self: &Arc<Self>,
        (actor, principal): (&Principal, &Principal),
        way: Way,
        text: Arc<str>,
        started_ns: i64,
    ) -> Result<Run> {
        let mut state = self.state.lock();
        let user = state.users.entry(principal.number()).or_insert_with(|| {
            let pool = UserPool::new(principal.name(), &self.runtime.memory_pool, self.limits.memory_max);
            let runtime = RuntimeEnv { memory_pool: Arc::new(pool), ..RuntimeEnv::clone(&self.runtime) };
            User { running: 0, runtime: Arc::new(runtime) }
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
        let runtime = Arc::clone(&user.runtime);
        state.next += 1;
        let number = state.next;
        let (principal, actor) = (principal.clone(), actor.number());
        let (rows, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let entry = Arc::new(Entry { number, principal, actor, way, text, started_ns, rows, bytes });
        state.entries.insert(number, Arc::clone(&entry));
        Ok(Run { running: Arc::clone(self), runtime, entry })
    }

    /// What one user may have.
    pub(crate) fn limits(&self) -> &UserLimits {
        &self.limits
    }

    /// What runs, the oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Entry>> {
        self.state.lock().entries.values().cloned().collect()
    }
}

/// Something that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Run {
    running: Arc<Running>,
    runtime: Arc<RuntimeEnv>,
    entry: Arc<Entry>,
}

impl Run {
    /// Counts rows that were given, written or taken.
    pub(crate) fn count(&self, batch: &RecordBatch) {
        self.entry.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        self.entry.bytes.fetch_add(batch.get_array_memory_size() as u64, Ordering::Relaxed);
    }

    /// Counts memory that is no plan's as the user's, until what is given is dropped.
    pub(crate) fn memory(&self, what: &str) -> MemoryReservation {
        MemoryConsumer::new(what).register(&self.runtime.memory_pool)
    }

    /// What a plan of this state runs with: its memory is that of the user.
    pub(crate) fn task(&self, state: &SessionState) -> Arc<TaskContext> {
        Arc::new(TaskContext::from(state).with_runtime(Arc::clone(&self.runtime)))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut state = self.running.state.lock();
        state.entries.remove(&self.entry.number);
        let number = self.entry.principal.number();
        if let Some(user) = state.users.get_mut(&number) {
            user.running -= 1;
            if user.running == 0 {
                state.users.remove(&number);
            }
        }
    }
}

/// The part of the memory for queries that one user may have, dealt out fairly among what the user runs. What is taken of it
/// is taken of the whole too.
#[derive(Debug)]
struct UserPool {
    own: FairPool,
    all: Arc<dyn MemoryPool>,
}

impl UserPool {
    fn new(user: &str, all: &Arc<dyn MemoryPool>, bytes_max: usize) -> Self {
        let own = FairPool::new(format!("user '{user}'"), "limits.user.memory_max", bytes_max);
        Self { own, all: Arc::clone(all) }
    }
}

impl std::fmt::Display for UserPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.own, self.all)
    }
}

impl MemoryPool for UserPool {
    fn name(&self) -> &str {
        "user"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
        self.all.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
        self.all.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.all.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        self.own.try_grow(reservation, additional)?;
        self.all.try_grow(reservation, additional).inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer};
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;
    use crate::identity::Role;

    fn running(limits: UserLimits) -> Arc<Running> {
        let pool = Arc::new(GreedyMemoryPool::new(1000));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        Arc::new(Running::new(limits, runtime))
    }

    fn begin(running: &Arc<Running>, user: &str, number: u64) -> Result<Run> {
        let user = Principal::new(user.to_owned(), number, Role::User);
        running.begin((&user, &user), Way::Query, "SELECT 1".into(), 7)
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
        assert_eq!(running.list().iter().map(|entry| entry.number).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn memory_is_a_users_and_everybodys() {
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
        drop((mine, more));
        others.try_grow(200).unwrap();
        assert_eq!(a.runtime.memory_pool.reserved(), 0);
        assert_eq!(b.runtime.memory_pool.reserved(), 600);
    }
}
