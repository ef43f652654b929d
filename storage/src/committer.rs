//! The committer: the one thread through which everything that is written goes.
//!
//! It drains its queue, lets [`CommitState`] check, assign and append each request in order, writes the group as one
//! synced batch, publishes the snapshot, and only then acknowledges.
//!
//! Invariants:
//! 1. Nothing is answered before what the answer rests on is durable and visible: a refusal too may rest on a commit of
//!    the same group.
//! 2. After a failed write nothing is answered any more: what RocksDB holds is then unknown.
//! 3. Nothing is answered without the lease on the object store: whoever owns it now may have gone on without us.
//! 4. Nothing here waits for a client, or for a lock that is held while something waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rocksdb::WriteBatch;
use tokio::sync::{mpsc, oneshot};

use crate::commit::{Commit, Publication, ScopeWrite, check_size};
use crate::commit_records::SequenceRecord;
use crate::commit_state::CommitState;
use crate::error::{Result, StorageError};
use crate::keys::{BatchNumber, Scope, TableId};
use crate::lease::Lease;
use crate::metrics::StorageMetrics;
use crate::records::BatchRecord;
use crate::recovery::Recovered;
use crate::rocks::{Rocks, RocksSnapshot};
use crate::snapshot::{OpenSnapshots, ScopeCache, Snapshot};
use crate::system_columns::CommitTs;
use crate::unique::KeyWrite;

/// Requests that may wait; further ones wait at their sender.
const QUEUE_LEN: usize = 4096;
/// Bytes after which a group takes no more requests.
const GROUP_BYTES: usize = 32 << 20;

/// What was committed: its timestamp, and a snapshot that shows it.
pub(crate) type Committed<T> = (T, Arc<Snapshot>);

enum Request {
    Commit(Commit, oneshot::Sender<Result<Committed<CommitTs>>>),
    Seal(Scope, oneshot::Sender<Result<Committed<BatchNumber>>>),
    ReserveBatch(Scope, oneshot::Sender<Result<Committed<BatchNumber>>>),
    Publish(Box<Publication>, oneshot::Sender<Result<Committed<()>>>),
    Exported(Scope, u64, oneshot::Sender<Result<Committed<()>>>),
    RetireBatches(Scope, Vec<BatchRecord>, oneshot::Sender<Result<Committed<()>>>),
    ForgetBatches(Scope, BTreeSet<BatchNumber>, Vec<Vec<u8>>, oneshot::Sender<Result<Committed<()>>>),
    ForgetTable(TableId, oneshot::Sender<Result<Committed<()>>>),
    Recovered(Scope, Arc<Recovered>, oneshot::Sender<Result<Committed<()>>>),
    /// Has all later commits come after a time.
    Pass(CommitTs, oneshot::Sender<Result<Committed<()>>>),
    /// Shows the database as it is, also when nothing is committed.
    Look(oneshot::Sender<Result<Committed<()>>>),
    /// Looks at the lease, also when nothing is committed.
    CheckLease,
    Stop,
}

impl Request {
    /// Whether objects are written or removed on the strength of it. It is synced whatever the setting: a lost tail of
    /// commits may not leave records without their files.
    fn precedes_objects(&self) -> bool {
        match self {
            Self::Commit(commit, _) => {
                !commit.catalog.is_empty() || !commit.files.is_empty() || !commit.audit.is_empty()
            }
            Self::Pass(..) | Self::Look(_) | Self::CheckLease | Self::Stop => false,
            _ => true,
        }
    }
}

/// The way to the committer thread.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: mpsc::Sender<Request>,
    published: Arc<ArcSwap<Snapshot>>,
    open: Arc<OpenSnapshots>,
    metrics: StorageMetrics,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    /// Starts the thread.
    pub(crate) fn start(
        rocks: Arc<Rocks>,
        lease: Arc<Lease>,
        state: CommitState,
        cache: Arc<ScopeCache>,
        metrics: StorageMetrics,
    ) -> Result<Self> {
        let open = Arc::new(OpenSnapshots::default());
        let first = take_snapshot(&rocks, &state, &cache, &open);
        let published = Arc::new(ArcSwap::new(first));
        lease.committed(state.last_ts());
        let (queue, requests) = mpsc::channel(QUEUE_LEN);
        let (of_run, open_by_run) = (metrics.clone(), Arc::clone(&open));
        let published_by_run = Arc::clone(&published);
        let run = Run { rocks, lease, state, cache, open: open_by_run, published: published_by_run, metrics: of_run };
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || run.until_stopped(requests))
            .map_err(StorageError::io("starting the committer thread"))?;
        Ok(Self { queue, published, open, metrics, thread: Mutex::new(Some(thread)) })
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// The oldest commit that an open snapshot shows the state after.
    pub(crate) fn oldest_open(&self) -> CommitTs {
        self.open.oldest().unwrap_or_else(|| self.snapshot().ts())
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed<CommitTs>> {
        let keys = commit.keys.iter().map(KeyWrite::size_bytes);
        check_size(commit.writes.iter().map(ScopeWrite::size_bytes).chain(keys).sum())?;
        let begun = Instant::now();
        let committed = self.ask(|reply| Request::Commit(commit, reply)).await;
        self.metrics.committed(begun, committed.is_ok());
        committed
    }

    /// A snapshot of all commits that there will ever be up to a time, which is not above the clock's.
    pub(crate) async fn pass(&self, at: CommitTs) -> Result<Arc<Snapshot>> {
        Ok(self.ask(|reply| Request::Pass(at, reply)).await?.1)
    }

    /// A snapshot without what was removed beside the commits. That of before would keep the space it has.
    pub(crate) async fn look(&self) -> Result<Arc<Snapshot>> {
        Ok(self.ask(Request::Look).await?.1)
    }

    pub(crate) async fn seal(&self, scope: Scope) -> Result<Committed<BatchNumber>> {
        self.ask(|reply| Request::Seal(scope, reply)).await
    }

    pub(crate) async fn reserve_batch(&self, scope: Scope) -> Result<Committed<BatchNumber>> {
        self.ask(|reply| Request::ReserveBatch(scope, reply)).await
    }

    pub(crate) async fn publish(&self, publication: Publication) -> Result<Arc<Snapshot>> {
        Ok(self.ask(|reply| Request::Publish(Box::new(publication), reply)).await?.1)
    }

    pub(crate) async fn exported(&self, scope: Scope, version: u64) -> Result<()> {
        self.ask(|reply| Request::Exported(scope, version, reply)).await.map(drop)
    }

    pub(crate) async fn retire_batches(&self, scope: Scope, records: Vec<BatchRecord>) -> Result<Arc<Snapshot>> {
        Ok(self.ask(|reply| Request::RetireBatches(scope, records, reply)).await?.1)
    }

    /// `log`: keys of their delete log.
    pub(crate) async fn forget_batches(
        &self,
        scope: Scope,
        numbers: BTreeSet<BatchNumber>,
        log: Vec<Vec<u8>>,
    ) -> Result<()> {
        self.ask(|reply| Request::ForgetBatches(scope, numbers, log, reply)).await.map(drop)
    }

    pub(crate) async fn forget_table(&self, table: TableId) -> Result<()> {
        self.ask(|reply| Request::ForgetTable(table, reply)).await.map(drop)
    }

    pub(crate) async fn recovered(&self, scope: Scope, recovered: Arc<Recovered>) -> Result<Arc<Snapshot>> {
        Ok(self.ask(|reply| Request::Recovered(scope, recovered, reply)).await?.1)
    }

    /// Waits until no more commits are taken: the end, or a write that failed.
    pub(crate) async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Whether no more commits are taken.
    pub(crate) fn has_ended(&self) -> bool {
        self.queue.is_closed()
    }

    /// Makes the thread look at the lease, and end when it is lost. Not for async code.
    pub(crate) fn lease_check(&self) -> impl FnOnce() + Send + 'static {
        let queue = self.queue.downgrade();
        move || {
            if let Some(queue) = queue.upgrade() {
                // Without a thread there is nothing left to end.
                let _ = queue.blocking_send(Request::CheckLease);
            }
        }
    }

    /// Ends the thread after what is queued.
    pub(crate) async fn stop(&self) {
        let _ = self.queue.send(Request::Stop).await;
        let Some(thread) = self.thread.lock().take() else { return };
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!("the committer thread ended with a panic"),
            Err(error) => tracing::error!(%error, "the committer thread could not be joined"),
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(request(reply)).await.map_err(|_| StorageError::Stopped)?;
        answer.await.map_err(|_| StorageError::Stopped)?
    }
}

/// Gives an answer, once the snapshot that shows what it rests on is there.
type Answer = Box<dyn FnOnce(&Arc<Snapshot>)>;

struct Run {
    rocks: Arc<Rocks>,
    lease: Arc<Lease>,
    state: CommitState,
    cache: Arc<ScopeCache>,
    open: Arc<OpenSnapshots>,
    published: Arc<ArcSwap<Snapshot>>,
    metrics: StorageMetrics,
}

impl Run {
    fn until_stopped(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            match self.group(first, &mut requests) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // Dropping the queue answers every waiting request with `Stopped`.
                    tracing::error!(%error, cause = ?error, "nothing more is committed or acknowledged");
                    return;
                }
            }
        }
    }

    /// One group: from the queue to the acknowledgements. False when it was told to stop.
    fn group(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) -> Result<bool> {
        if let Some(oldest) = self.open.oldest() {
            self.state.forget_before(oldest);
        }
        let mut batch = WriteBatch::default();
        let mut answers: Vec<Answer> = Vec::new();
        let mut next = Some(first);
        let mut go_on = true;
        let (mut durable, mut looks) = (false, false);
        while let Some(request) = next {
            if matches!(request, Request::Stop) {
                go_on = false;
                break;
            }
            durable |= request.precedes_objects();
            looks |= matches!(request, Request::Look(_));
            answers.push(self.stage(request, &mut batch));
            next = if batch.size_in_bytes() < GROUP_BYTES { requests.try_recv().ok() } else { None };
        }
        let writes = !batch.is_empty();
        if writes {
            batch.put(SequenceRecord::KEY, self.state.sequence().encode());
            self.rocks.write(batch, durable)?;
            self.metrics.group_written(answers.len());
            self.lease.committed(self.state.last_ts());
        }
        self.lease.check()?;
        if writes {
            self.cache.written(self.state.take_written().into_iter(), self.state.last_ts());
        }
        if writes || looks {
            self.published.store(take_snapshot(&self.rocks, &self.state, &self.cache, &self.open));
        }
        let snapshot = self.published.load_full();
        answers.into_iter().for_each(|answer| answer(&snapshot));
        Ok(go_on)
    }

    /// Appends a request to the batch, unless it is refused.
    fn stage(&mut self, request: Request, batch: &mut WriteBatch) -> Answer {
        let now = self.lease.now_ns();
        let covered = |state: &CommitState| {
            let used = state.sequence();
            self.lease.covers(used.last_updated, used.id_high_water)
        };
        match request {
            Request::Commit(commit, reply) => {
                settle(covered(&self.state).and_then(|()| self.state.commit(&commit, now, batch)), reply)
            }
            Request::Pass(at, reply) => {
                self.state.pass(at);
                settle(Ok(()), reply)
            }
            Request::Look(reply) => settle(Ok(()), reply),
            Request::Seal(scope, reply) => settle(self.state.seal(scope, batch), reply),
            Request::ReserveBatch(scope, reply) => settle(self.state.reserve_batch(scope, batch), reply),
            Request::Publish(publication, reply) => {
                settle(covered(&self.state).and_then(|()| self.state.publish(&publication, now, batch)), reply)
            }
            Request::Exported(scope, version, reply) => settle(self.state.exported(scope, version, batch), reply),
            Request::RetireBatches(scope, records, reply) => {
                settle(self.state.retire_batches(scope, &records, batch), reply)
            }
            Request::ForgetBatches(scope, numbers, log, reply) => {
                settle(self.state.forget_batches(scope, &numbers, &log, batch), reply)
            }
            Request::ForgetTable(table, reply) => settle(self.state.forget_table(table, batch), reply),
            Request::Recovered(scope, recovered, reply) => {
                settle(covered(&self.state).and_then(|()| self.state.recovered(scope, &recovered, now, batch)), reply)
            }
            Request::CheckLease | Request::Stop => Box::new(|_| {}),
        }
    }
}

fn settle<T: 'static>(staged: Result<T>, reply: oneshot::Sender<Result<Committed<T>>>) -> Answer {
    Box::new(move |snapshot| {
        // Whoever asked may be gone; what was committed stands all the same.
        let _ = reply.send(staged.map(|value| (value, Arc::clone(snapshot))));
    })
}

fn take_snapshot(
    rocks: &Arc<Rocks>,
    state: &CommitState,
    cache: &Arc<ScopeCache>,
    open: &OpenSnapshots,
) -> Arc<Snapshot> {
    let taken = RocksSnapshot::take(Arc::clone(rocks));
    let snapshot = Arc::new(Snapshot::new(state.last_ts(), Arc::clone(state.catalog()), taken, Arc::clone(cache)));
    open.push(&snapshot);
    snapshot
}
