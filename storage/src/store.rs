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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use parking_lot::Mutex;
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::catalog::{Catalog, CatalogRecord, DEFAULT_NAMESPACE, NamespaceRecord};
use crate::clock::Clock;
use crate::commit::{Commit, CommitState, SequenceRecord};
use crate::committer::Committer;
use crate::compact::CompactionConfig;
use crate::error::{Result, StorageError};
use crate::keys::{Scope, TableId};
use crate::lease::{Ceilings, Lease};
use crate::objects::{Objects, make_folder, sync_folder};
use crate::ownership::{Claimant, Ownership};
use crate::records::ScopeHeader;
use crate::renewal::Renewing;
use crate::rocks::{Family, Rocks};
use crate::snapshot::Snapshot;
use crate::steps::{NoWait, Pace, Step};
use crate::system_columns::{CommitClock, CommitTs, IdSequence, NodeNumber, RowId};

/// The format of a data directory that this build writes, and the highest it reads.
const FORMAT_VERSION: u32 = 1;

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it is in the fsynced log: it survives power failure.
    #[default]
    Fsync,
    /// When it is in the log: power failure may lose the last commits.
    Relaxed,
}

/// Settings of the storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Where RocksDB and, by default, the cold files live.
    pub data_dir: PathBuf,
    /// Where cold files go: `None` = below `data_dir`, else `file:///folder` or `s3://bucket/prefix`.
    pub object_store: Option<String>,
    /// Name of this node; its CRC32 modulo 1024 is the node part of row ids.
    pub node_id: String,
    /// When a commit is acknowledged.
    pub durability: Durability,
    /// When files are merged.
    pub compaction: CompactionConfig,
    /// How long this process may act as the owner of the object store without renewing that; a successor waits as long.
    /// Only for a store that is not below `data_dir`.
    pub lease_seconds: u32,
    /// Whether the object store may be taken from the data directory that owns it.
    pub take_over: bool,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            data_dir: "./seracdb-data".into(),
            object_store: None,
            node_id: "node1".into(),
            durability: Durability::Fsync,
            compaction: CompactionConfig::default(),
            lease_seconds: 30,
            take_over: false,
        }
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
    /// Keeps the lease on an object store that others could own.
    renewing: Option<Renewing>,
    next_table_id: Mutex<u32>,
    scope_locks: Mutex<HashMap<Scope, Arc<tokio::sync::Mutex<()>>>>,
    removing: tokio::sync::Mutex<()>,
    compaction: CompactionConfig,
    pace: Arc<dyn Pace>,
    /// Work that goes on by itself; `None` when the store is closing.
    background: Mutex<Option<JoinSet<()>>>,
    stopping: Arc<AtomicBool>,
    /// Held until the store is gone.
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format_version: u32,
    data_dir_id: String,
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
        let rocks = Arc::new(Rocks::open(&rocksdb, config.durability == Durability::Fsync)?);
        write_format(dir)?;
        let sequence = match rocks.get_root(SequenceRecord::KEY)? {
            Some(bytes) => SequenceRecord::decode(&bytes)?,
            None => SequenceRecord::default(),
        };
        let objects = match bucket {
            Some(bucket) => Objects::on_bucket(Arc::clone(&bucket), bucket, "the given bucket", dir, &clock)?,
            None => Objects::open(config.object_store.as_deref(), dir, &clock)?,
        };
        let Owned { objects, lease, ownership, above } = own(objects, config, sequence, &rocks, &clock).await?;

        let catalog = read_catalog(&rocks, clock.now_ns())?;
        let ids = Arc::new(IdSequence::after(NodeNumber::of_name(&config.node_id), above.id_tick));
        let max_table_id = sequence.max_table_id.max(catalog.max_table_id());
        let state = CommitState::new(
            Arc::clone(&rocks),
            Arc::clone(&ids),
            CommitClock::after(above.updated),
            Arc::new(catalog),
            max_table_id,
        );
        let committer = Committer::start(Arc::clone(&rocks), Arc::clone(&lease), state)?;
        let renewing = match ownership {
            Some(ownership) => {
                let ended = committer.lease_check();
                Some(Renewing::start(ownership, Arc::clone(&lease), Arc::clone(&ids), ended)?)
            }
            None => None,
        };
        let store = Arc::new(Self {
            rocks,
            objects,
            clock,
            lease,
            ids,
            committer,
            renewing,
            next_table_id: Mutex::new(max_table_id + 1),
            scope_locks: Mutex::default(),
            removing: tokio::sync::Mutex::default(),
            compaction: config.compaction.clone(),
            pace,
            background: Mutex::new(Some(JoinSet::new())),
            stopping: Arc::default(),
            _lock: lock,
        });
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
    pub async fn commit(&self, commit: Commit) -> Result<CommitTs> {
        Ok(self.committer.commit(commit).await?.0)
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
            let snapshot = self.snapshot();
            (snapshot.ts(), snapshot.catalog().dropped().cloned().collect::<Vec<_>>())
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
        self.stopping.store(true, Ordering::Relaxed);
        let background = self.background.lock().take();
        if let Some(tasks) = background {
            tasks.join_all().await;
        }
        self.committer.stop().await;
        if let Some(renewing) = &self.renewing {
            renewing.release().await;
        }
        self.rocks.close();
    }

    pub(crate) fn compaction(&self) -> &CompactionConfig {
        &self.compaction
    }

    /// Set when the store is closing.
    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// Waits until the next step of a flush or compaction may be made.
    pub(crate) async fn reached(&self, step: Step) {
        self.pace.reached(step).await;
    }

    /// Runs beside everything else, and to its end before the store is closed. Not at all when it is closing.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = self.background.lock().as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(work);
        }
    }

    pub(crate) fn committer(&self) -> &Committer {
        &self.committer
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Held while a scope is flushed.
    pub(crate) fn scope_lock(&self, scope: Scope) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.scope_locks.lock();
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(scope).or_default())
    }

    /// Takes up what was committed but not carried through: manifests that do not show their records, and dropped
    /// tables.
    async fn finish_interrupted(&self) -> Result<()> {
        self.remove_dropped().await?;
        let snapshot = self.snapshot();
        for scope in self.unexported_scopes()? {
            if snapshot.catalog().table_by_id(scope.table).is_some() {
                self.export(&snapshot, scope).await?;
            }
        }
        Ok(())
    }

    fn unexported_scopes(&self) -> Result<Vec<Scope>> {
        let mut scopes = Vec::new();
        self.rocks.scan_prefix(Family::Batches, &[], |key, json| {
            let Some(scope) = Scope::decode(key).filter(|scope| key == crate::keys::header_key(*scope)) else {
                return Ok(());
            };
            let header: ScopeHeader =
                serde_json::from_slice(json).map_err(StorageError::damaged_json("a scope header"))?;
            if header.is_unfinished() {
                scopes.push(scope);
            }
            Ok(())
        })?;
        Ok(scopes)
    }
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
    };
    let remember = |holders: &[&str]| rocks.put_root(HOLDERS, &serde_json::to_vec(holders).expect("texts can be JSON"));
    let (ownership, lease) = Ownership::take(objects.clone(), &me, last, clock, remember).await?;
    let objects = objects.under(Arc::clone(&lease));
    objects.remove_uploads().await?;
    if lease.was_taken_over() {
        // No new table gets the folder of one of another owner.
        rocks.write(used_prefixes(rocks, objects.table_folders().await?))?;
    }
    let floors = ownership.floors();
    let above = Ceilings { updated: last.updated.max(floors.updated), id_tick: last.id_tick.max(floors.id_tick) };
    Ok(Owned { objects, lease, ownership: Some(ownership), above })
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
fn check_format(dir: &Path, has_rocksdb: bool) -> Result<()> {
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

fn read_format(dir: &Path) -> Result<Format> {
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
    let default = NamespaceRecord { name: DEFAULT_NAMESPACE.into(), created_at_ns: now_ns };
    let mut records = vec![CatalogRecord::Namespace(default)];
    rocks.scan_prefix(Family::Catalog, &[], |key, json| {
        let bad = StorageError::damaged_json("a catalog record");
        records.push(match key {
            [b'n', b'/', ..] => CatalogRecord::Namespace(serde_json::from_slice(json).map_err(bad)?),
            [b't', b'/', ..] => CatalogRecord::Table(serde_json::from_slice(json).map_err(bad)?),
            [b'g', b'/', ..] => CatalogRecord::Dropped(serde_json::from_slice(json).map_err(bad)?),
            [b'p', b'/', prefix @ ..] => CatalogRecord::Prefix(String::from_utf8_lossy(prefix).into_owned()),
            _ => return Err(StorageError::Damaged("a catalog key of an unknown kind".into())),
        });
        Ok(())
    })?;
    rocks.scan_prefix(Family::Users, &[], |_, json| {
        let user = serde_json::from_slice(json).map_err(StorageError::damaged_json("a user record"))?;
        records.push(CatalogRecord::User(user));
        Ok(())
    })?;
    Ok(Catalog::from_records(records))
}
