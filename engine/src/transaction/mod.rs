//! Transactions: one snapshot from the first statement on, changes staged over it, one commit at the end.
//!
//! Invariants:
//! 1. A transaction reads its snapshot and what it has staged, whatever others commit.
//! 2. First committer wins: a commit that changes a row which another commit has changed since the snapshot is refused, and
//!    the transaction is rolled back.
//! 3. A statement that fails stages nothing, and the transaction goes on.
//! 4. It ends once: by a commit, a rollback, the end of its session, or too long without use. How it ended is remembered.
//!    While it is being committed it is neither open nor ended: who wants to end it too waits, and who wants to use it is told.
//! 5. Nothing is locked while it waits for its client. Before its first statement it has no snapshot, and holds nothing:
//!    drivers begin the next transaction as soon as one has ended.

mod known;
mod run;
mod staged;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use seracdb_storage::audit::AuditEntry;
use seracdb_storage::catalog::{Catalog, Privilege, TableRecord};
use seracdb_storage::commit::{COMMIT_BYTES_MAX, Commit, CommitName};
use seracdb_storage::snapshot::Snapshot;
use seracdb_storage::store::Store;
use seracdb_storage::{StorageError, keys::Scope};
use tracing::Instrument;

use crate::audit::{self, Ending};
use crate::audit_changes::add_what_came_since;
use crate::discretion::told;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::Principal;
use crate::rights::{Decision, Object, allows};
use crate::session::Session;

pub(crate) use known::Transactions;
use known::{Held, Known};
pub(crate) use run::run;
pub(crate) use staged::{STAGED_FILE, Staged, StagedCommit, StagedScope, staged_place};

/// Savepoints that one transaction may have.
const SAVEPOINTS_MAX: usize = 10_000;

/// Limits of transactions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TransactionConfig {
    /// Seconds without a statement after which a transaction that has begun to work is rolled back.
    pub idle_seconds: u64,
    /// Bytes of changes that all open transactions together may hold.
    pub memory_max: usize,
    /// Transactions that may be open. One user may have a quarter of them, and the last ones are for admins.
    pub open_max: usize,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self { idle_seconds: 300, memory_max: 2 << 30, open_max: 10_000 }
    }
}

/// A transaction's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 16]);

/// A savepoint's name: unlike what SQL calls it, of one savepoint only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SavepointId(pub [u8; 16]);

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it is durable.
    Committed,
    /// None of it is there.
    RolledBack,
    /// The storage failed while it was committed.
    Unknown,
}

/// An open or ended transaction.
pub struct Transaction {
    id: TransactionId,
    /// Whose it is, of the role that it was begun with.
    owner: Principal,
    store: Weak<Store>,
    /// Held by a statement that changes something, and while it ends.
    changing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// When it was last used, in time since the machine was started.
    last_used: Mutex<Duration>,
    /// Results that are being read.
    reading: AtomicUsize,
    staged_bytes: Arc<AtomicUsize>,
}

enum State {
    Open(Box<Open>),
    /// It is being committed.
    Ending,
    Ended(End),
}

#[derive(Default)]
struct Open {
    /// `None` before the first statement.
    work: Option<Work>,
    savepoints: Vec<Savepoint>,
    read_only: bool,
}

struct Work {
    snapshot: Arc<Snapshot>,
    staged: Staged,
}

struct Savepoint {
    id: SavepointId,
    name: String,
    staged: Staged,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let State::Open(open) = self.state.get_mut() {
            self.staged_bytes.fetch_sub(open.size_bytes(), Ordering::Relaxed);
            if let Some(store) = self.store.upgrade() {
                audit::save_in_background(&store, open.undone());
            }
        }
    }
}

impl Transaction {
    /// Its name.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    fn name(&self) -> CommitName {
        CommitName { id: self.id.0, owner: self.owner.number() }
    }

    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        matches!(*self.state.lock(), State::Open(_))
    }

    /// An error that says how it ended.
    pub(crate) fn require_open(&self) -> Result<()> {
        self.open(|_| Ok(()))
    }

    /// Keeps it in use while a result is read.
    pub fn in_use(self: &Arc<Self>) -> InUse {
        self.reading.fetch_add(1, Ordering::Relaxed);
        InUse(Arc::clone(self))
    }

    fn used_now(&self) {
        if let Some(store) = self.store.upgrade() {
            *self.last_used.lock() = store.clock().monotonic();
        }
    }

    fn works(&self) -> bool {
        matches!(&*self.state.lock(), State::Open(open) if open.work.is_some())
    }

    /// What its statements read.
    pub(crate) fn view(&self) -> Result<(Arc<Snapshot>, Staged)> {
        self.open(|open| {
            let work = self.work(open)?;
            Ok((Arc::clone(&work.snapshot), work.staged.clone()))
        })
    }

    /// The catalog that a statement of it would see; before the first one, that is the newest.
    pub(crate) fn catalog(&self) -> Result<Arc<Catalog>> {
        self.open(|open| match &open.work {
            Some(work) => Ok(Arc::clone(&work.staged.catalog)),
            None => Ok(Arc::clone(self.store.upgrade().ok_or(StorageError::Stopped)?.snapshot().catalog())),
        })
    }

    /// Held while something is changed: changes of one transaction come one after the other.
    pub(crate) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Refuses `what` in a transaction that only reads.
    pub(crate) fn require_writable(&self, what: &str) -> Result<()> {
        self.open(|open| match open.read_only {
            true => Err(EngineError::invalid(format!("{what} is not possible: the transaction is READ ONLY"))),
            false => Ok(()),
        })
    }

    pub(crate) fn set_read_only(&self, read_only: bool) -> Result<()> {
        self.open(|open| {
            open.read_only = read_only;
            Ok(())
        })
    }

    /// Takes over what a statement has staged. Held: [`Transaction::changing`].
    pub(crate) fn stage(&self, staged: Staged, memory_max: usize) -> Result<()> {
        self.open(|open| {
            let more = staged.size_bytes().saturating_sub(open.size_bytes());
            let all = self.staged_bytes.fetch_add(more, Ordering::Relaxed) + more;
            if more > 0 && (all > memory_max || staged.size_bytes() > COMMIT_BYTES_MAX) {
                self.staged_bytes.fetch_sub(more, Ordering::Relaxed);
                let limit = memory_max.min(COMMIT_BYTES_MAX) >> 20;
                return Err(EngineError::new(
                    ErrorKind::ResourceExhausted,
                    format!(
                        "the transaction, or all open ones together, would stage more than {limit} MiB: commit earlier, \
                         or raise transaction.memory_max"
                    ),
                ));
            }
            self.replace(open, staged)
        })
    }

    /// Sets a savepoint.
    pub fn savepoint(&self, name: &str) -> Result<SavepointId> {
        self.open(|open| {
            if open.savepoints.len() >= SAVEPOINTS_MAX {
                return Err(EngineError::new(
                    ErrorKind::ResourceExhausted,
                    format!("a transaction has at most {SAVEPOINTS_MAX} savepoints: release some"),
                ));
            }
            let staged = self.work(open)?.staged.clone();
            let id = SavepointId(uuid::Uuid::new_v4().into_bytes());
            open.savepoints.push(Savepoint { id, name: name.to_owned(), staged });
            Ok(id)
        })
    }

    /// Forgets a savepoint and those after it; what was changed since stays.
    pub fn release(&self, which: impl Fn(SavepointId, &str) -> bool) -> Result<()> {
        self.open(|open| {
            let at = open.place(which)?;
            open.savepoints.truncate(at);
            Ok(())
        })
    }

    /// Undoes what was changed since a savepoint, which stays.
    pub async fn undo_to(&self, which: impl Fn(SavepointId, &str) -> bool) -> Result<()> {
        let _nothing_changes = self.changing().await;
        let undone = self.roll_back_to(which)?;
        let store = self.store.upgrade().ok_or(StorageError::Stopped)?;
        audit::save(&store, undone).await
    }

    /// Gives what the audit log is to be told of it.
    fn roll_back_to(&self, which: impl Fn(SavepointId, &str) -> bool) -> Result<Vec<AuditEntry>> {
        self.open(|open| {
            let at = open.place(which)?;
            open.savepoints.truncate(at + 1);
            let staged = open.savepoints[at].staged.clone();
            let mut undone = open.undone();
            // What was staged before the savepoint stays: it comes first.
            undone.drain(..staged.audit_len());
            self.replace(open, staged)?;
            Ok(undone)
        })
    }

    /// What it works on, from the first time on that it is asked for.
    fn work<'a>(&self, open: &'a mut Open) -> Result<&'a mut Work> {
        if open.work.is_none() {
            let snapshot = self.store.upgrade().ok_or(StorageError::Stopped)?.snapshot();
            let staged = Staged::over(Arc::clone(snapshot.catalog()));
            open.work = Some(Work { snapshot, staged });
        }
        open.work.as_mut().ok_or_else(|| EngineError::internal("a transaction without a snapshot"))
    }

    fn replace(&self, open: &mut Open, staged: Staged) -> Result<()> {
        let less = open.size_bytes().saturating_sub(staged.size_bytes());
        self.staged_bytes.fetch_sub(less, Ordering::Relaxed);
        self.work(open)?.staged = staged;
        Ok(())
    }

    fn open<T>(&self, of: impl FnOnce(&mut Open) -> Result<T>) -> Result<T> {
        self.used_now();
        match &mut *self.state.lock() {
            State::Open(open) => of(open),
            State::Ending => Err(ending()),
            State::Ended(end) => Err(ended(*end)),
        }
    }

    /// Closes it: from now on it is `state`. Gives what was open. Held: [`Transaction::changing`].
    fn close(&self, next: State) -> Result<Box<Open>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, next) {
            State::Open(open) => {
                self.staged_bytes.fetch_sub(open.size_bytes(), Ordering::Relaxed);
                Ok(open)
            }
            before => {
                let error = match &before {
                    State::Ended(end) => ended(*end),
                    _ => ending(),
                };
                *state = before;
                Err(error)
            }
        }
    }

    fn set_ended(&self, end: End) {
        *self.state.lock() = State::Ended(end);
    }
}

/// A result of a transaction that is being read.
#[derive(Debug)]
pub struct InUse(Arc<Transaction>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.used_now();
        self.0.reading.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Open {
    fn size_bytes(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.staged.size_bytes())
    }

    /// What the audit log is to be told when all of it is undone.
    fn undone(&self) -> Vec<AuditEntry> {
        let staged = self.work.iter().flat_map(|work| work.staged.audit());
        staged.map(|entry| audit::ended(entry, Ending::RolledBack, entry.rows)).collect()
    }

    /// The newest of the savepoints that are meant.
    fn place(&self, which: impl Fn(SavepointId, &str) -> bool) -> Result<usize> {
        let found = self.savepoints.iter().rposition(|savepoint| which(savepoint.id, &savepoint.name));
        found.ok_or_else(|| EngineError::not_found("no such savepoint in this transaction"))
    }
}

fn ending() -> EngineError {
    EngineError::new(
        ErrorKind::FailedPrecondition,
        "the transaction is being committed: nothing more can be done in it. Commit it again to wait for its end, or begin \
         another",
    )
}

fn ended(end: End) -> EngineError {
    match end {
        End::Committed => EngineError::not_found("the transaction has ended: it was committed"),
        End::RolledBack => EngineError::new(
            ErrorKind::Aborted,
            "the transaction has ended: it was rolled back, by its client, a conflict or too long without use. ROLLBACK, and \
             begin another",
        ),
        End::Unknown => EngineError::new(
            ErrorKind::Unavailable,
            "the storage failed while the transaction was committed: whether it was is not known",
        ),
    }
}

impl Engine {
    /// Begins a transaction of this session's user. `outlives_session`: for a client that has no session, only calls.
    pub fn begin(&self, session: &Session, read_only: bool, outlives_session: bool) -> Result<Arc<Transaction>> {
        let open = Open { read_only, ..Open::default() };
        let transaction = Arc::new(Transaction {
            id: self.new_transaction_id(),
            owner: session.principal().clone(),
            store: Arc::downgrade(&self.store),
            changing: tokio::sync::Mutex::default(),
            state: Mutex::new(State::Open(Box::new(open))),
            last_used: Mutex::new(self.store.clock().monotonic()),
            reading: AtomicUsize::new(0),
            staged_bytes: Arc::clone(&self.transactions.staged_bytes),
        });
        let mut known = self.transactions.known.lock();
        known.require_place(session.principal().into(), self.transaction_config.open_max).map_err(|why| {
            let text = why.text("open transactions", "end some", "transaction.open_max");
            EngineError::new(ErrorKind::ResourceExhausted, text)
        })?;
        let held = Held {
            owner: transaction.owner.clone(),
            transaction: Arc::downgrade(&transaction),
            without_session: outlives_session.then(|| Arc::clone(&transaction)),
        };
        known.insert(transaction.id, held);
        Ok(transaction)
    }

    /// How many transactions are open.
    pub(crate) fn open_transactions(&self) -> usize {
        self.transactions.known.lock().open().filter(|held| held.transaction.strong_count() > 0).count()
    }

    /// A name that nobody guesses and that begins with the time, as [`CommitName`] wants it.
    fn new_transaction_id(&self) -> TransactionId {
        let ns = self.now_ns().max(0) as u64;
        let time = uuid::Timestamp::from_unix(uuid::NoContext, ns / 1_000_000_000, (ns % 1_000_000_000) as u32);
        TransactionId(uuid::Uuid::new_v7(time).into_bytes())
    }

    /// An open transaction of this session's user; NotFound for another's too, and for one that was begun with another role.
    pub fn transaction(&self, session: &Session, id: TransactionId) -> Result<Arc<Transaction>> {
        let mut known = self.transactions.known.lock();
        if let Some(held) = known.get(id).filter(|held| held.owner == *session.principal()) {
            match held.transaction.upgrade() {
                Some(transaction) => {
                    *transaction.last_used.lock() = self.store.clock().monotonic();
                    return Ok(transaction);
                }
                None => known.ended(id, End::RolledBack),
            }
        }
        drop(known);
        Err(match self.end_of(session, id)? {
            Some(end) => ended(end),
            None => EngineError::not_found(
                "no such transaction: it was not committed, ended long ago, or is another user's",
            ),
        })
    }

    /// How a transaction of this session's user ended; `None` while it has not or when that is not known. One that has
    /// committed changes is known for a day, also to the next process.
    pub fn end_of(&self, session: &Session, id: TransactionId) -> Result<Option<End>> {
        let mine = session.principal().number();
        if let Some((owner, end)) = self.transactions.known.lock().end_of(id) {
            return Ok((owner == mine).then_some(end));
        }
        let committed_by = self.store.committed(id.0)?;
        Ok((committed_by == Some(mine)).then_some(End::Committed))
    }

    /// Commits everything that is staged, or rolls it back: then the error says why. Done also when who waits for it goes
    /// away.
    pub async fn commit(self: &Arc<Self>, transaction: Arc<Transaction>) -> Result<()> {
        let (engine, committing) = (Arc::clone(self), Arc::clone(&transaction));
        let committing = async move { engine.commit_now(&committing).await };
        let committed = tokio::spawn(committing.in_current_span()).await;
        committed.map_err(|_| {
            transaction.set_ended(End::Unknown);
            self.transactions.known.lock().ended(transaction.id, End::Unknown);
            EngineError::panicked()
        })?
    }

    async fn commit_now(self: &Arc<Self>, transaction: &Transaction) -> Result<()> {
        let _nothing_changes = transaction.changing().await;
        let open = transaction.close(State::Ending)?;
        let undone = open.undone();
        let work = open.work.filter(|work| !work.staged.is_empty());
        let (changes, drops) = (work.is_some(), work.as_ref().is_some_and(|work| work.staged.drops()));
        let committed = match work {
            Some(Work { snapshot, staged }) => {
                let name = transaction.name();
                self.commit_staged(&transaction.owner, snapshot, staged, name).await
            }
            None => Ok(()),
        };
        let end = match &committed {
            Ok(()) => End::Committed,
            Err(error) if error.kind == ErrorKind::Unavailable => End::Unknown,
            Err(_) => End::RolledBack,
        };
        transaction.set_ended(end);
        match changes && end == End::Committed {
            true => self.transactions.known.lock().stored(transaction.id),
            false => self.transactions.known.lock().ended(transaction.id, end),
        }
        if end == End::RolledBack {
            audit::save(&self.store, undone).await?;
        }
        if drops && end == End::Committed {
            self.remove_dropped_later();
        }
        committed
    }

    /// Undoes everything.
    pub async fn roll_back(&self, transaction: &Transaction) -> Result<()> {
        let _nothing_changes = transaction.changing().await;
        let open = transaction.close(State::Ended(End::RolledBack))?;
        self.transactions.known.lock().ended(transaction.id, End::RolledBack);
        audit::save(&self.store, open.undone()).await
    }

    /// Rolls back transactions that were not used for too long, and forgets those whose session has ended.
    pub fn sweep_transactions(&self) {
        let now = self.store.clock().monotonic();
        let idle = Duration::from_secs(self.transaction_config.idle_seconds);
        let mut known = self.transactions.known.lock();
        known.forget_dropped();
        let open = known.open().filter_map(|held| Some((held.transaction.upgrade()?, held.without_session.is_some())));
        for (transaction, without_session) in open.collect::<Vec<_>>() {
            let is_idle = transaction.reading.load(Ordering::Relaxed) == 0
                && now.saturating_sub(*transaction.last_used.lock()) >= idle;
            // One that a statement is changing is in use, and one that has not begun to work keeps nothing, unless nobody
            // but this knows it.
            if is_idle && (without_session || transaction.works()) && self.roll_back_unused(&mut known, &transaction) {
                tracing::info!(
                    owner = transaction.owner.number(),
                    "a transaction without use for too long was rolled back"
                );
            }
        }
    }

    /// Rolls back what was begun without a session by users who were dropped since, or have another role.
    pub fn end_revoked_transactions(&self) {
        let mut known = self.transactions.known.lock();
        let held = known.open().filter_map(|held| held.without_session.clone());
        let revoked = held.filter(|transaction| self.require_still(&transaction.owner).is_err());
        for transaction in revoked.collect::<Vec<_>>() {
            // What is being changed or ended now is refused at its commit.
            self.roll_back_unused(&mut known, &transaction);
        }
    }

    /// Rolls one back, unless it is being changed or ended now; says whether it did.
    fn roll_back_unused(&self, known: &mut Known, transaction: &Transaction) -> bool {
        if transaction.changing.try_lock().is_ok()
            && let Ok(open) = transaction.close(State::Ended(End::RolledBack))
        {
            audit::save_in_background(&self.store, open.undone());
            known.ended(transaction.id, End::RolledBack);
            return true;
        }
        false
    }

    /// Refuses when a user was dropped since, or has not the role any more.
    fn require_still(&self, owner: &Principal) -> Result<()> {
        match self.not_above(owner)?.role() == owner.role() {
            true => Ok(()),
            false => Err(EngineError::new(
                ErrorKind::PermissionDenied,
                "the transaction is rolled back: its user has a lower role by now. Log in again",
            )),
        }
    }

    /// Whether a user may read a table, as rights are by now.
    fn may_read_now(&self, user: &Principal, table: &TableRecord) -> bool {
        let snapshot = self.store.snapshot();
        let now = Object::Table(table).in_catalog(snapshot.catalog());
        now.is_some_and(|now| allows(user, now, Privilege::Select, snapshot.catalog()) == Decision::Allowed)
    }

    async fn commit_staged(
        &self,
        owner: &Principal,
        snapshot: Arc<Snapshot>,
        staged: Staged,
        name: CommitName,
    ) -> Result<()> {
        // Whoever was dropped commits nothing more, nor does who has no longer the role that it was staged with.
        self.require_still(owner)?;
        self.may_still_act(owner, staged.audit())?;
        let names = Arc::clone(&staged.catalog);
        let (expects, StagedCommit { catalog, writes, keys, files }) = (staged.expects(), staged.to_commit());
        let mut audit: Vec<_> =
            staged.audit().map(|entry| audit::ended(entry, Ending::Committed, entry.rows)).collect();
        add_what_came_since(self.store.snapshot().catalog(), &catalog, &mut audit);
        drop(staged);
        self.check_staged_temporary(&catalog)?;
        let expects = expects.into_iter().filter(|expected| names.table_by_id(expected.table).is_some()).collect();
        let row = |scope: Scope, id: i64| {
            let table = names.table_by_id(scope.table);
            let name = table.map_or_else(String::new, |table| format!("{}.{}", table.namespace, table.name));
            format!("row _id = {id} of table '{name}' was changed by another commit first")
        };
        let wanted = keys.clone();
        let commit = Commit { snapshot, expects, catalog, writes, keys, files, name: Some(name), audit };
        let why = match self.store.commit(commit).await {
            Ok(_) => return Ok(()),
            Err(StorageError::RowConflict { scope, id }) => row(scope, id),
            Err(StorageError::KeyConflict { scope }) => {
                let table = names.table_by_id(scope.table);
                let may_read = table.is_some_and(|table| self.may_read_now(owner, table));
                if let Some(error) = table.and_then(|table| self.taken_meanwhile(table, &wanted, may_read)) {
                    let message = format!("the transaction is rolled back: {}", error.message);
                    return Err(EngineError::new(error.kind, message));
                }
                let name = table.map_or_else(String::new, |table| format!("{}.{}", table.namespace, table.name));
                format!(
                    "a unique key of table '{name}' that it gives to a row, or takes from one, was changed by another commit first"
                )
            }
            Err(StorageError::Conflict) => "a table that it writes to was changed or dropped meanwhile".to_owned(),
            Err(StorageError::Catalog(error)) => {
                let error =
                    told(&self.not_above(owner)?, self.store.snapshot().catalog(), StorageError::Catalog(error).into());
                let message = format!("the transaction is rolled back: {}", error.message);
                return Err(EngineError::new(error.kind, message));
            }
            Err(error) => return Err(error.into()),
        };
        Err(EngineError::new(ErrorKind::Aborted, format!("the transaction is rolled back: {why}. Run it again")))
    }
}
