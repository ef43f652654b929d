//! The store: a data directory and an object store, opened as one.
//!
//! ```text
//! data directory
//! ├── LOCK           held by the process that has it open
//! ├── FORMAT         {"format_version": 1, "data_dir_id": "…"}
//! ├── rocksdb/       hot rows, records, catalog
//! ├── objects/       cold files, unless they are elsewhere
//! └── scratch/       files being built; emptied at start
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use object_store::ObjectStore;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rocksdb::WriteBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::audit;
use crate::bulk::{PendingPaths, Reserved};
use crate::catalog::{Catalog, CatalogRecord, DEFAULT_NAMESPACE, NamespaceRecord};
use crate::catalog_export::{CatalogExport, import};
use crate::clock::Clock;
use crate::commit::Commit;
use crate::commit_names;
use crate::commit_records::SequenceRecord;
use crate::commit_state::CommitState;
use crate::committer::Committer;
use crate::compact::CompactionConfig;
use crate::error::{Result, StorageError};
use crate::history::History;
use crate::hot_size::FlushConfig;
use crate::keys::{Scope, TableId};
use crate::lease::{Ceilings, Lease};
use crate::lost_keys;
use crate::manifest::store::ManifestStore;
use crate::manifest::{CacheConfig, CacheTotals, CachedEntry, Manifest};
use crate::metrics::StorageMetrics;
use crate::objects::{Objects, make_folder, sync_folder};
use crate::ownership::{Claimant, Ownership};
use crate::recovery::Recoveries;
use crate::renewal::Renewing;
use crate::rocks::{Family, Memory, Rocks};
use crate::s3_access::S3Access;
use crate::scope_place::ScopePlace;
use crate::snapshot::{ScopeCache, Snapshot};
use crate::steps::{NoWait, Pace, Step};
use crate::system_columns::{CommitClock, CommitTs, IdSequence, NodeNumber, RowId};
use crate::tally::Tally;
use crate::verify::{look_at_scopes, recover_scopes};

/// The format of a data directory that this build writes, and the highest it reads.
const FORMAT_VERSION: u32 = 1;

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it is in the fsynced log: it survives power failure.
    #[default]
    Fsync,
    /// When it is in the log: power failure may lose the last commits.
    Relaxed,
}

/// Settings of the storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// The directory of RocksDB and, unless object_store says otherwise, of the cold files.
    pub data_dir: PathBuf,
    /// Where cold files go: "file:///folder" or "s3://bucket/prefix".
    #[schemars(example = &"s3://bucket/prefix")]
    pub object_store: Option<String>,
    /// What its client is told if it is S3; not a setting, but what the environment has for all programs.
    #[serde(skip)]
    pub s3: S3Access,
    /// The name of this node. Its hash is a part of each _id.
    pub node_id: String,
    /// When a commit is acknowledged. "fsync": once its log is synced to the disk; it survives a power failure.
    /// "relaxed": once it is written to the log; it survives the end of the process, but a power failure or a crash of
    /// the system may lose the commits of the last moments, although they were acknowledged.
    pub durability: Durability,
    /// Bytes of hot rows that are kept in memory as they were last read.
    pub hot_cache_bytes_max: usize,
    /// Bytes of RocksDB's files, their indexes and filters included, that are kept in memory.
    #[schemars(range(min = 1))]
    pub block_cache_bytes_max: usize,
    /// Bytes of hot rows that RocksDB gathers in memory before they become a file of its own; there may be twice as many
    /// while it writes one. Everything else that it gathers takes up to 48 MiB, or twice as many.
    #[schemars(range(min = 1))]
    pub write_buffer_bytes: usize,
    /// When hot rows are flushed by themselves.
    pub flush: FlushConfig,
    /// When files are merged.
    pub compaction: CompactionConfig,
    /// What is known of manifests without asking the object store.
    pub manifest_cache: CacheConfig,
    /// Seconds after which a file that nothing names is removed: what a flush or compaction left behind when it died.
    pub orphan_grace_seconds: u64,
    /// Seconds after which entries of the audit log are removed; 400 days.
    pub audit_retention_seconds: u64,
    /// Seconds that this server may act as the owner of its object store without renewing that. A successor waits as
    /// long.
    #[schemars(range(min = 1))]
    pub lease_seconds: u32,
    /// Takes the object store from the data directory that owns it, once that one's lease has ended. For one start.
    pub take_over: bool,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            data_dir: "./seracdb-data".into(),
            object_store: None,
            s3: S3Access::default(),
            node_id: "node1".into(),
            durability: Durability::Fsync,
            hot_cache_bytes_max: 64 << 20,
            block_cache_bytes_max: 256 << 20,
            write_buffer_bytes: 64 << 20,
            flush: FlushConfig::default(),
            compaction: CompactionConfig::default(),
            manifest_cache: CacheConfig::default(),
            orphan_grace_seconds: 3600,
            audit_retention_seconds: 400 * 24 * 3600,
            lease_seconds: 30,
            take_over: false,
        }
    }
}

impl StorageConfig {
    /// Why nothing can be stored where `object_store` says. Nothing is opened to find out.
    pub fn object_store_refusal(&self) -> Option<String> {
        crate::objects::refusal(self.object_store.as_deref()?)
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory { block_cache: self.block_cache_bytes_max, write_buffer: self.write_buffer_bytes }
    }
}

/// An open data directory.
#[derive(Debug)]
pub struct Store {
    rocks: Arc<Rocks>,
    objects: Objects,
    clock: Arc<dyn Clock>,
    lease: Arc<Lease>,
    ids: Arc<IdSequence>,
    committer: Committer,
    manifests: Arc<ManifestStore>,
    recoveries: Arc<Recoveries>,
    /// Scopes of which something may lie around that nothing names, each with when it may be removed: nanoseconds since 1970.
    to_clean_up: Mutex<HashMap<Scope, i64>>,
    tally: Arc<Tally>,
    pub(crate) cache: Arc<ScopeCache>,
    pending_paths: PendingPaths,
    reserved: Reserved,
    catalog_export: CatalogExport,
    audit_kept: Duration,
    orphan_grace: Duration,
    /// Keeps the lease on an object store that others could own.
    renewing: Option<Renewing>,
    next_table_id: Mutex<u32>,
    scope_locks: Mutex<HashMap<Scope, Arc<tokio::sync::Mutex<()>>>>,
    removing: tokio::sync::Mutex<()>,
    history: Arc<History>,
    compaction: CompactionConfig,
    metrics: StorageMetrics,
    pace: Arc<dyn Pace>,
    /// Work that goes on by itself; `None` when the store is closing.
    background: Mutex<Option<JoinSet<()>>>,
    stopping: CancellationToken,
    /// Held until the store is gone.
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Format {
    format_version: u32,
    pub(crate) data_dir_id: String,
}

impl Store {
    /// Opens a data directory, making it when it is not there, and finishes what a stop has interrupted.
    pub async fn open(config: &StorageConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        Self::open_on(config, clock, None, Arc::new(NoWait)).await
    }

    /// The same with cold files on a bucket that is open already, as tests have one in memory, and with the pace at which
    /// flushes and compactions make their steps.
    pub async fn open_on(
        config: &StorageConfig,
        clock: Arc<dyn Clock>,
        bucket: Option<Arc<dyn ObjectStore>>,
        pace: Arc<dyn Pace>,
    ) -> Result<Arc<Self>> {
        let dir = &config.data_dir;
        make_folder(dir)?;
        let lock = lock(dir)?;
        let rocksdb = dir.join("rocksdb");
        check_format(dir, rocksdb.join("CURRENT").exists())?;
        make_folder(&rocksdb)?;
        lost_keys::mark(&rocksdb, config.memory())?;
        let rocks = Arc::new(Rocks::open(&rocksdb, config.memory(), config.durability == Durability::Fsync)?);
        write_format(dir)?;
        let sequence = read_sequence(&rocks)?;
        let objects = match bucket {
            Some(bucket) => Objects::on_bucket(Arc::clone(&bucket), bucket, "the given bucket", dir, &clock)?,
            None => Objects::open(config.object_store.as_deref(), &config.s3, dir, &clock)?,
        };
        let Owned { objects, lease, ownership, above } = own(objects, config, sequence, &rocks, &clock).await?;
        let ids = Arc::new(IdSequence::after(NodeNumber::of_name(&config.node_id), above.id_tick));
        // From here on it is kept: what is read now may take longer than a lease.
        let (committer_starts, started) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let ended = move || started.recv().map_or((), |check_lease| check_lease());
        let renewing = ownership
            .map(|ownership| Renewing::start(ownership, Arc::clone(&lease), Arc::clone(&ids), ended))
            .transpose()?;
        import(&objects, &rocks, sequence).await?;
        let sequence = read_sequence(&rocks)?;

        let catalog = read_catalog(&rocks, clock.now_ns())?;
        let max_table_id = sequence.max_table_id.max(catalog.max_table_id());
        let tally = Arc::new(Tally::default());
        let state = CommitState::new(
            Arc::clone(&rocks),
            Arc::clone(&ids),
            CommitClock::after(above.updated),
            Arc::new(catalog),
            max_table_id,
            Arc::clone(&tally),
            audit::next_number(&rocks)?,
        );
        let (manifests, due) =
            ManifestStore::new(objects.clone(), Arc::clone(&clock), Arc::clone(&rocks), config.manifest_cache.clone());
        let (recoveries, wanted) = Recoveries::new();
        let (manifests, recoveries) = (Arc::new(manifests), Arc::new(recoveries));
        let cache = ScopeCache::new(Arc::clone(&manifests), Arc::clone(&recoveries), config.hot_cache_bytes_max);
        let cache = Arc::new(cache);
        let metrics = StorageMetrics::default();
        let committer =
            Committer::start(Arc::clone(&rocks), Arc::clone(&lease), state, Arc::clone(&cache), metrics.clone())?;
        // Without a lease to keep nobody listens.
        let _ = committer_starts.send(Box::new(committer.lease_check()));
        let store = Arc::new(Self {
            rocks,
            objects,
            clock,
            lease,
            ids,
            committer,
            manifests,
            recoveries,
            to_clean_up: Mutex::default(),
            tally,
            cache,
            pending_paths: PendingPaths::default(),
            reserved: Reserved::default(),
            catalog_export: CatalogExport::default(),
            audit_kept: Duration::from_secs(config.audit_retention_seconds),
            orphan_grace: Duration::from_secs(config.orphan_grace_seconds),
            renewing,
            next_table_id: Mutex::new(max_table_id + 1),
            scope_locks: Mutex::default(),
            removing: tokio::sync::Mutex::default(),
            history: Arc::default(),
            compaction: config.compaction.clone(),
            metrics,
            pace,
            background: Mutex::new(Some(JoinSet::new())),
            stopping: CancellationToken::new(),
            _lock: lock,
        });
        store.in_background(look_at_scopes(Arc::downgrade(&store), due));
        store.in_background(recover_scopes(Arc::downgrade(&store), wanted));
        if let Err(error) = store.finish_interrupted().await {
            // Everything can be read and written; the next flush or start tries again.
            tracing::error!(%error, cause = ?error, "what the last stop has interrupted could not be finished");
        }
        Ok(store)
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.committer.snapshot()
    }

    /// Commits. When it returns, the commit is durable and in [`Store::snapshot`].
    pub async fn commit(self: &Arc<Self>, commit: Commit) -> Result<CommitTs> {
        let changes_catalog = !commit.catalog.is_empty();
        let before = Arc::clone(commit.snapshot.catalog());
        let ts = match commit.files.is_empty() {
            true => self.committer.commit(commit).await?.0,
            false => {
                let store = Arc::clone(self);
                self.to_its_end(async move { store.commit_with_files(commit).await }).await?
            }
        };
        if changes_catalog {
            self.reserved.forget_dropped(&before, self.snapshot().catalog());
        }
        if changes_catalog && self.objects.is_shared() {
            let store = Arc::clone(self);
            self.in_background(async move {
                if let Err(error) = store.export_catalog().await {
                    // The next flush or change tries again.
                    tracing::warn!(%error, cause = ?error, "the catalog could not be exported");
                }
            });
        }
        Ok(ts)
    }

    /// Who owns the commit of this name; `None` when there was none, or not within the last
    /// [`commit_names::COMMIT_NAMES_KEPT`] before the last clean-up.
    pub fn committed(&self, id: [u8; 16]) -> Result<Option<u64>> {
        commit_names::find(&self.rocks, &id)
    }

    /// Forgets the names of old commits.
    pub(crate) fn forget_commit_names(&self) -> Result<()> {
        commit_names::forget(&self.rocks, self.clock.now_ns())
    }

    /// Forgets entries of the audit log that are older than the retention.
    pub(crate) fn forget_old_audit(&self) -> Result<()> {
        audit::forget(&self.rocks, self.clock.now_ns(), self.audit_kept)
    }

    /// What the manifest cache holds of these scopes.
    pub fn cached_manifests<'a>(&self, places: impl Iterator<Item = &'a ScopePlace>) -> Vec<CachedEntry> {
        self.manifests.cached(places)
    }

    /// How often the manifest cache was asked, and what it took to answer.
    pub fn manifest_cache_totals(&self) -> CacheTotals {
        self.manifests.totals()
    }

    /// The manifest of a scope; `None` when it never had files.
    pub async fn manifest(&self, place: &ScopePlace) -> Result<Option<Manifest>> {
        self.manifests.read(place).await
    }

    /// New row ids, in order.
    pub fn new_ids(&self, count: usize) -> Vec<RowId> {
        self.ids.reserve(count, self.lease.now_ns().div_euclid(1_000_000)).collect()
    }

    /// A number for a table to be created.
    pub fn new_table_id(&self) -> TableId {
        let mut next = self.next_table_id.lock();
        let id = TableId(*next);
        *next += 1;
        id
    }

    /// For reading batch files.
    pub fn object_reader(&self) -> &Arc<dyn ObjectStore> {
        self.objects.reader()
    }

    /// The clock that it was opened with.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Removes rows and files of the tables that are dropped now, once no snapshot shows them any more.
    pub async fn remove_dropped(&self) -> Result<()> {
        let _one_at_a_time = self.removing.lock().await;
        let (dropped_by, dropped) = {
            let dropped = self.reserved.dropped(|| Arc::clone(self.snapshot().catalog()));
            (self.snapshot().ts(), dropped)
        };
        while self.committer.oldest_open() < dropped_by {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for table in dropped {
            self.objects.remove_below(&table.prefix).await?;
            self.committer.forget_table(table.id).await?;
        }
        Ok(())
    }

    /// Waits until the store takes no more commits: it was closed, a write failed and what is durable is unknown, or the
    /// object store has another owner.
    pub async fn ended(&self) {
        self.committer.ended().await;
    }

    /// Whether the store takes no more commits.
    pub fn has_ended(&self) -> bool {
        self.committer.has_ended()
    }

    /// Ends: what is queued is committed, then the object store is given back and RocksDB is closed. Files that are being
    /// merged are left as they were.
    pub async fn close(&self) {
        self.stopping.cancel();
        self.manifests.stop();
        self.recoveries.stop();
        let background = self.background.lock().take();
        if let Some(mut tasks) = background {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "work in the background ended with a panic");
                }
            }
        }
        self.committer.stop().await;
        if let Some(renewing) = &self.renewing {
            renewing.release().await;
        }
        self.rocks.close();
    }

    pub(crate) fn history(&self) -> &Arc<History> {
        &self.history
    }

    pub(crate) fn compaction(&self) -> &CompactionConfig {
        &self.compaction
    }

    /// Cancelled when the store is closing.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Waits until the next step of a flush or compaction may be made.
    pub(crate) async fn reached(&self, step: Step) {
        self.pace.reached(step).await;
    }

    /// Runs work to its end: also when who waits for it goes away, and before the store is closed. A panic is the caller's.
    pub async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let to_its_end = async move {
            // Nobody may be waiting.
            let _ = reply.send(AssertUnwindSafe(work).catch_unwind().await);
        };
        self.in_background(to_its_end.in_current_span());
        match answer.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(StorageError::Stopped),
        }
    }

    /// Runs beside everything else, and to its end before the store is closed. Not at all when it is closing.
    pub fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = self.background.lock().as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(work);
        }
    }

    /// Brings the manifest cache within these limits; gives how many entries were evicted.
    pub fn evict_manifests(&self, entries_max: u64, unused_seconds: u64) -> Result<usize> {
        self.manifests.evict(
            self.snapshot().catalog(),
            usize::try_from(entries_max).unwrap_or(usize::MAX),
            unused_seconds,
        )
    }

    pub(crate) fn rocks(&self) -> &Rocks {
        &self.rocks
    }

    pub(crate) fn metrics(&self) -> &StorageMetrics {
        &self.metrics
    }

    /// Shows what was counted since the start.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    pub(crate) fn manifests(&self) -> &ManifestStore {
        &self.manifests
    }

    pub(crate) fn recoveries(&self) -> &Recoveries {
        &self.recoveries
    }

    pub(crate) fn pending_paths(&self) -> &PendingPaths {
        &self.pending_paths
    }

    pub(crate) fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    pub(crate) fn orphan_grace(&self) -> Duration {
        self.orphan_grace
    }

    /// Has a scope looked at wholly once more, when it is cleaned up next.
    pub(crate) fn look_again(&self, scope: Scope) {
        self.manifests.forget_look(scope);
        self.clean_up_later(scope);
    }

    /// Has a scope cleaned up once more.
    pub fn clean_up_later(&self, scope: Scope) {
        self.clean_up_at(scope, self.clock.now_ns());
    }

    /// Has a scope cleaned up from a time on, or when it is to be already if that is before.
    pub(crate) fn clean_up_at(&self, scope: Scope, at_ns: i64) {
        let mut all = self.to_clean_up.lock();
        let due = all.entry(scope).or_insert(at_ns);
        *due = at_ns.min(*due);
    }

    /// Scopes to be cleaned up by now, because something went wrong there since this was asked.
    pub fn take_to_clean_up(&self) -> Vec<Scope> {
        let now = self.clock.now_ns();
        self.to_clean_up.lock().extract_if(|_, due| *due <= now).map(|(scope, _)| scope).collect()
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Writes what a data directory needs that goes on where this one is gone.
    pub(crate) async fn export_catalog(&self) -> Result<()> {
        let max_table_id = self.next_table_id.lock().saturating_sub(1);
        self.catalog_export.bring_up_to_date(&self.objects, || self.snapshot(), max_table_id).await
    }

    pub(crate) fn committer(&self) -> &Committer {
        &self.committer
    }

    /// Whether another data directory could go on with what is in the object store alone.
    pub fn can_be_taken_over(&self) -> bool {
        self.objects.is_shared()
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Held while files of a scope are made, merged, removed or looked at.
    pub(crate) fn scope_lock(&self, scope: Scope) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.scope_locks.lock();
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(scope).or_default())
    }

    /// Takes up what was committed but not carried through: manifests that do not show their records, and dropped
    /// tables.
    async fn finish_interrupted(self: &Arc<Self>) -> Result<()> {
        let store = Arc::clone(self);
        self.in_background(async move {
            if let Err(error) = store.remove_dropped().await {
                tracing::warn!(%error, cause = ?error, "a dropped table's files could not be removed");
            }
        });
        let snapshot = self.snapshot();
        self.export_catalog().await?;
        for scope in snapshot.unexported_scopes()? {
            if snapshot.catalog().table_by_id(scope.table).is_some()
                && let Err(error) = self.export(&snapshot, scope).await
            {
                let (table, owner) = (scope.table.0, scope.owner.0);
                tracing::error!(%error, cause = ?error, table, owner, "a manifest could not be exported");
            }
        }
        for scope in snapshot.scopes_to_recover()? {
            self.recoveries.want(scope);
        }
        Ok(())
    }
}

fn read_sequence(rocks: &Rocks) -> Result<SequenceRecord> {
    let stored = rocks.get_root(SequenceRecord::KEY)?;
    stored.map_or_else(|| Ok(SequenceRecord::default()), |bytes| SequenceRecord::decode(&bytes))
}

/// Key of the processes that may have written what is found of the object store's owner.
const HOLDERS: &[u8] = b"holders";

/// An object store, and the right to write to it.
struct Owned {
    objects: Objects,
    lease: Arc<Lease>,
    /// Of a store that another data directory could own.
    ownership: Option<Ownership>,
    /// What commits and row ids must be above.
    above: Ceilings,
}

/// Becomes the owner of the object store, unless it is nobody else's anyway.
async fn own(
    objects: Objects,
    config: &StorageConfig,
    sequence: SequenceRecord,
    rocks: &Rocks,
    clock: &Arc<dyn Clock>,
) -> Result<Owned> {
    let last = Ceilings { updated: sequence.last_updated, id_tick: sequence.id_high_water };
    if !objects.is_shared() {
        let lease = Arc::new(Lease::unlimited(Arc::clone(clock)));
        return Ok(Owned { objects, lease, ownership: None, above: last });
    }
    objects.probe().await?;
    let me = Claimant {
        data_dir_id: read_format(&config.data_dir)?.data_dir_id,
        holder: uuid::Uuid::new_v4().to_string(),
        holders_before: match rocks.get_root(HOLDERS)? {
            Some(json) => serde_json::from_slice(&json).map_err(StorageError::damaged_json("the holders"))?,
            None => Vec::new(),
        },
        lease: Duration::from_secs(config.lease_seconds.max(1).into()),
        take_over: config.take_over,
        is_new: is_new(rocks)?,
    };
    let remember = |holders: &[&str]| rocks.put_root(HOLDERS, &serde_json::to_vec(holders).expect("texts can be JSON"));
    let (ownership, lease) = Ownership::take(objects.clone(), &me, last, clock, remember).await?;
    let objects = objects.under(Arc::clone(&lease));
    objects.remove_uploads().await?;
    if lease.was_taken_over() {
        // No new table gets the folder of one of another owner.
        rocks.write(used_prefixes(rocks, objects.table_folders().await?), true)?;
    }
    let floors = ownership.floors();
    let above = Ceilings { updated: last.updated.max(floors.updated), id_tick: last.id_tick.max(floors.id_tick) };
    Ok(Owned { objects, lease, ownership: Some(ownership), above })
}

/// Whether there is neither user nor table.
fn is_new(rocks: &Rocks) -> Result<bool> {
    let mut found = false;
    for family in [Family::Users, Family::Catalog] {
        rocks.scan_prefix(family, &[], |_, _| {
            found = true;
            Ok(())
        })?;
    }
    Ok(!found)
}

fn used_prefixes(rocks: &Rocks, prefixes: Vec<String>) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for prefix in prefixes {
        batch.put_cf(rocks.family(Family::Catalog), format!("p/{prefix}"), b"{}");
    }
    batch
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let what = format!("opening {}", path.display());
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(StorageError::io(what))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(StorageError::io(format!("locking {}", path.display()))(error)),
    }
}

/// Refuses a data directory of a newer format, and one of which a part is missing: it would look empty.
pub(crate) fn check_format(dir: &Path, has_rocksdb: bool) -> Result<()> {
    match read_format(dir) {
        Ok(format) => {
            if format.format_version > FORMAT_VERSION {
                let (found, known) = (format.format_version, FORMAT_VERSION);
                return Err(StorageError::FormatVersion { path: dir.to_owned(), found, known });
            }
            if !has_rocksdb {
                return Err(StorageError::Damaged(format!("{} has lost its folder rocksdb", dir.display())));
            }
            Ok(())
        }
        Err(StorageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub(crate) fn read_format(dir: &Path) -> Result<Format> {
    let path = dir.join("FORMAT");
    let json = std::fs::read(&path).map_err(StorageError::io(format!("reading {}", path.display())))?;
    serde_json::from_slice(&json).map_err(StorageError::damaged_json("FORMAT"))
}

/// Marks a new data directory, once its RocksDB is there.
fn write_format(dir: &Path) -> Result<()> {
    let path = dir.join("FORMAT");
    if path.exists() {
        return Ok(());
    }
    let format = Format { format_version: FORMAT_VERSION, data_dir_id: uuid::Uuid::new_v4().to_string() };
    let json = serde_json::to_vec(&format).expect("a format has only strings as keys");
    let temporary = dir.join("FORMAT.tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&json)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    });
    written.map_err(StorageError::io(format!("writing {}", path.display())))?;
    sync_folder(dir)
}

fn read_catalog(rocks: &Rocks, now_ns: i64) -> Result<Catalog> {
    // Always there, and therefore not stored.
    let default =
        NamespaceRecord { name: DEFAULT_NAMESPACE.into(), created_at_ns: now_ns, created_by: None, comment: None };
    let mut records = vec![CatalogRecord::Namespace(default)];
    rocks.scan_prefix(Family::Catalog, &[], |key, json| {
        records.push(catalog_record(key, json)?);
        Ok(())
    })?;
    rocks.scan_prefix(Family::Users, &[], |_, json| {
        let user = serde_json::from_slice(json).map_err(StorageError::damaged_json("a user record"))?;
        records.push(CatalogRecord::User(user));
        Ok(())
    })?;
    Ok(Catalog::from_records(records))
}

/// A record of the family `catalog`.
pub(crate) fn catalog_record(key: &[u8], json: &[u8]) -> Result<CatalogRecord> {
    let bad = StorageError::damaged_json("a catalog record");
    Ok(match key {
        [b'n', b'/', ..] => CatalogRecord::Namespace(serde_json::from_slice(json).map_err(bad)?),
        [b't', b'/', ..] => CatalogRecord::Table(serde_json::from_slice(json).map_err(bad)?),
        [b'v', b'/', ..] => CatalogRecord::View(serde_json::from_slice(json).map_err(bad)?),
        [b'k', b'/', ..] => CatalogRecord::Token(serde_json::from_slice(json).map_err(bad)?),
        [b'g', b'/', ..] => CatalogRecord::Dropped(serde_json::from_slice(json).map_err(bad)?),
        [b'r', b'/', ..] => CatalogRecord::Grant(serde_json::from_slice(json).map_err(bad)?),
        [b'p', b'/', prefix @ ..] => CatalogRecord::Prefix(String::from_utf8_lossy(prefix).into_owned()),
        _ => return Err(StorageError::Damaged("a catalog key of an unknown kind".into())),
    })
}
