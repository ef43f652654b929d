//! Recovery: a scope whose records are lost gets them back from its manifest, else from the footers of its files.
//!
//! ```text
//! manifest.json ──────────────────────────────┐
//! files ─ footers ─ choose ─ versions ─ resolve ┴▶ records, masks ─▶ degraded reads ─▶ committed ─▶ exported
//! ```
//!
//! A scope is to be recovered (`recovering` in its header) when a new data directory goes on with the tables of one that
//! is gone.
//!
//! Invariants:
//! 1. Reads and commits never wait for more than the reading of the scope's files: a [`Recovered`] in memory answers
//!    before it is committed. Flush and compaction wait for the commit.
//! 2. What no proof says was committed is not read: see [`files::choose`]. No file is removed or changed.
//! 3. Of the versions of a row the one with the greatest `_updated` is shown, unless it is a tombstone; of equal ones that
//!    of the higher batch number.
//! 4. Numbers go on above every number that a file's name has ever had.

mod files;
pub(crate) mod resolve;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::bulk::proof;
use crate::catalog::TableRecord;
use crate::delete_log::MaskedRow;
use crate::delete_vector;
use crate::error::{Result, StorageError};
use crate::file_index::FileIndex;
use crate::keys::{BatchNumber, Scope};
use crate::manifest::{Fault, Manifest, check_files};
use crate::objects::{Listed, Objects, blocking};
use crate::paths;
use crate::records::BatchRecord;
use crate::scope_files::ScopeFiles;
use crate::scope_place::ScopePlace;
use crate::snapshot::Masks;
use crate::store::Store;
use crate::system_columns::CommitTs;

use resolve::Versions;

/// Files that are read at the same time.
const FILES_AT_ONCE: usize = 4;

/// What was found out about a scope.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Every batch, archived ones included.
    pub(crate) records: Vec<BatchRecord>,
    /// Rows that are not to be read.
    pub(crate) masked: HashMap<BatchNumber, Vec<MaskedRow>>,
    /// No number above it was ever used.
    pub(crate) max_batch: BatchNumber,
    /// The last version in any file.
    pub(crate) flushed_to: CommitTs,
    /// Version of the manifest; 0 without one.
    pub(crate) version: u64,
    /// The files that queries read, and their masks.
    pub(crate) files: Arc<FileIndex>,
    pub(crate) masks: Masks,
}

impl Recovered {
    fn new(
        records: Vec<BatchRecord>,
        masked: HashMap<BatchNumber, Vec<MaskedRow>>,
        max_batch: BatchNumber,
        flushed_to: CommitTs,
        version: u64,
    ) -> Self {
        let active = records.iter().filter(|record| record.status.is_read()).cloned().collect();
        let mask = |rows: &Vec<MaskedRow>| Arc::new(rows.iter().map(|row| row.position).collect());
        let masks = masked.iter().map(|(file, rows)| (*file, mask(rows))).collect();
        Self { records, masked, max_batch, flushed_to, version, files: Arc::new(FileIndex::new(active)), masks }
    }
}

/// What is known of scopes that are being recovered, and the way to ask for it.
#[derive(Debug)]
pub(crate) struct Recoveries {
    known: Mutex<HashMap<Scope, Known>>,
    wanted: Mutex<Option<mpsc::UnboundedSender<Wanted>>>,
}

/// What was found out, and the commit that made records of it.
#[derive(Debug)]
struct Known {
    recovered: Arc<Recovered>,
    committed: Option<CommitTs>,
}

/// A scope to recover, and who waits for it.
pub(crate) struct Wanted {
    pub(crate) scope: Scope,
    pub(crate) reply: oneshot::Sender<Result<()>>,
}

impl Recoveries {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Wanted>) {
        let (wanted, receiver) = mpsc::unbounded_channel();
        (Self { known: Mutex::default(), wanted: Mutex::new(Some(wanted)) }, receiver)
    }

    pub(crate) fn get(&self, scope: Scope) -> Option<Arc<Recovered>> {
        self.known.lock().get(&scope).map(|known| Arc::clone(&known.recovered))
    }

    /// Waits until a scope can be read.
    pub(crate) async fn wait_for(&self, scope: Scope) -> Result<()> {
        self.want(scope).await.map_err(|_| StorageError::Stopped)?
    }

    /// Has a scope recovered.
    pub(crate) fn want(&self, scope: Scope) -> oneshot::Receiver<Result<()>> {
        let (reply, answer) = oneshot::channel();
        if let Some(wanted) = &*self.wanted.lock() {
            // Without anyone who listens the answer is that there will be none.
            let _ = wanted.send(Wanted { scope, reply });
        }
        answer
    }

    /// Ends the stream of scopes to recover.
    pub(crate) fn stop(&self) {
        self.wanted.lock().take();
    }

    fn insert(&self, scope: Scope, recovered: Arc<Recovered>) {
        self.known.lock().insert(scope, Known { recovered, committed: None });
    }

    fn committed(&self, scope: Scope, at: CommitTs) {
        if let Some(known) = self.known.lock().get_mut(&scope) {
            known.committed = Some(at);
        }
    }

    /// Forgets what every snapshot from `oldest` on has records of.
    pub(crate) fn forget_before(&self, oldest: CommitTs) {
        self.known.lock().retain(|_, known| known.committed.is_none_or(|at| at > oldest));
    }
}

impl Store {
    /// Finds out what to read of a scope that is to be recovered, unless that is known.
    pub(crate) async fn find_out(&self, scope: Scope) -> Result<()> {
        let lock = self.scope_lock(scope);
        let _one_at_a_time = lock.lock().await;
        self.find_out_locked(scope).await.map(drop)
    }

    /// Recovers a scope, unless that is done or not needed.
    pub(crate) async fn recover(&self, scope: Scope) -> Result<()> {
        let lock = self.scope_lock(scope);
        let _one_at_a_time = lock.lock().await;
        self.recover_locked(scope).await
    }

    /// The same for who holds the scope's lock.
    pub(crate) async fn recover_locked(&self, scope: Scope) -> Result<()> {
        let Some(recovered) = self.find_out_locked(scope).await? else { return Ok(()) };
        let recovered = Arc::new(self.with_vectors(scope, &recovered).await?);
        let committed = self.committer().recovered(scope, recovered).await?;
        self.recoveries().committed(scope, committed.ts());
        self.export(&committed, scope).await
    }

    /// The same with a delete vector for every file of which rows are not to be read: the manifest alone must say it too.
    async fn with_vectors(&self, scope: Scope, recovered: &Recovered) -> Result<Recovered> {
        let job = ScopeFiles::new(self.snapshot(), scope)?;
        let (mut records, flushed_to) = (recovered.records.clone(), recovered.flushed_to);
        for record in records.iter_mut().filter(|record| record.deletes.is_none()) {
            if let Some(mask) = recovered.masks.get(&record.batch_number) {
                *record = job.with_vector(self.objects(), record.clone(), mask, flushed_to).await?;
            }
        }
        let Recovered { masked, max_batch, version, .. } = recovered;
        Ok(Recovered::new(records, masked.clone(), *max_batch, flushed_to, *version))
    }

    /// What to read of a scope; `None` when it has its records, or is gone.
    async fn find_out_locked(&self, scope: Scope) -> Result<Option<Arc<Recovered>>> {
        let snapshot = self.snapshot();
        if !snapshot.header(scope)?.is_some_and(|header| header.recovering) {
            return Ok(None);
        }
        if let Some(known) = self.recoveries().get(scope) {
            return Ok(Some(known));
        }
        let job = match ScopeFiles::new(snapshot, scope) {
            Err(StorageError::Conflict) => return Ok(None),
            job => job?,
        };
        let found = Arc::new(self.find_again(&job).await?);
        self.recoveries().insert(scope, Arc::clone(&found));
        Ok(Some(found))
    }

    async fn find_again(&self, job: &ScopeFiles) -> Result<Recovered> {
        let place = &job.place;
        let reason = match self.manifests().refresh(place).await {
            Ok(Some(entry)) => match from_manifest(self.objects(), place, entry.manifest()?).await? {
                Ok(recovered) => {
                    tracing::info!(manifest = place.manifest_path(), batches = recovered.records.len(), "records read");
                    return Ok(recovered);
                }
                Err(reason) => reason,
            },
            Ok(None) => "there is no manifest.json".to_owned(),
            Err(StorageError::Manifest { fault, .. }) if !matches!(*fault, Fault::Newer { .. }) => fault.to_string(),
            Err(error) => return Err(error),
        };
        let manifest = place.manifest_path();
        tracing::warn!(manifest, reason, "manifest_corruption_detected");
        tracing::info!(manifest, from = "footers", "manifest_rebuild_started");
        let started = self.clock().monotonic();
        let recovered = from_footers(self.objects(), place, job.reader.table()).await?;
        let milliseconds = milliseconds_since(self.clock().monotonic(), started);
        tracing::info!(manifest, batches = recovered.records.len(), milliseconds, "manifest_rebuild_completed");
        Ok(recovered)
    }
}

pub(crate) fn milliseconds_since(now: Duration, started: Duration) -> u64 {
    u64::try_from(now.saturating_sub(started).as_millis()).unwrap_or(u64::MAX)
}

/// The records of a manifest, when it can be gone by; else why not. A batch file of it that is lost stays in it: queries that
/// need the file fail and name it, where without it older versions of its rows would come back.
async fn from_manifest(objects: &Objects, place: &ScopePlace, manifest: Manifest) -> Result<Result<Recovered, String>> {
    let listed = objects.list(&place.prefix).await?;
    let faults = check_files(&manifest.batches, &listed);
    let is_lost = |record: &BatchRecord| faults.iter().any(|fault| fault.is_of(&record.file_path));
    let lost: Vec<BatchNumber> =
        manifest.batches.iter().filter(|record| is_lost(record)).map(|record| record.batch_number).collect();
    if !lost.is_empty() {
        faults.iter().for_each(|fault| tracing::error!(reason = %fault, "a batch file is lost: restore it"));
    } else if let Some(fault) = faults.first() {
        return Ok(Err(fault.to_string()));
    }
    let files = listed.keys().filter(|path| path.ends_with(".parquet"));
    // Flushed, and lost before that was exported: their rows were acknowledged.
    if lost.is_empty() && highest_number(manifest.max_batch, files) > manifest.max_batch {
        return Ok(Err("there are files that it does not show yet".to_owned()));
    }
    let named: HashSet<&str> = manifest.batches.iter().map(|record| record.file_path.as_str()).collect();
    let is_unshown = |path: &&String| path.ends_with(".parquet") && !named.contains(path.as_str());
    // A bulk load may have its number long before its commit.
    if lost.is_empty() && listed.keys().filter(is_unshown).any(|path| listed.contains_key(&paths::proof_of(path))) {
        return Ok(Err("there are bulk loads that it does not show yet".to_owned()));
    }
    let with_vector = |record: &BatchRecord| Some((record.clone(), record.deletes.clone()?));
    let with_vectors: Vec<_> = manifest.batches.iter().filter_map(with_vector).collect();
    let (lost, room) = (&lost, &Room::default());
    let masked: HashMap<BatchNumber, Vec<MaskedRow>> = stream::iter(with_vectors)
        .map(|(record, deletes)| async move {
            let (number, updated) = (record.batch_number, record.updated_of_all());
            let vector = delete_vector::decode(&bytes(objects, &deletes.path).await?)?;
            if lost.contains(&number) {
                return Ok((number, resolve::masked_unseen(&vector, deletes.as_of)));
            }
            let masked = move |bytes| Ok(Versions::read(bytes, updated)?.masked(&vector, deletes.as_of));
            Ok::<_, StorageError>((number, room.read(objects, &record.file_path, record.size_bytes, masked).await?))
        })
        .buffer_unordered(FILES_AT_ONCE)
        .try_collect()
        .await?;
    let max_batch = highest_number(manifest.max_batch, listed.keys());
    Ok(Ok(Recovered::new(manifest.batches, masked, max_batch, manifest.flushed_to, manifest.version)))
}

/// The records that the files themselves prove.
pub(crate) async fn from_footers(objects: &Objects, place: &ScopePlace, table: &Arc<TableRecord>) -> Result<Recovered> {
    let listed = objects.list(&place.prefix).await?;
    let batches = listed.iter().filter(|(path, _)| path.ends_with(".parquet"));
    let batch = |(path, found): (&String, &Listed)| {
        (path.clone(), found.size_bytes, listed.contains_key(&paths::proof_of(path)))
    };
    let batches: Vec<(String, u64, bool)> = batches.map(batch).collect();
    let room = &Room::default();
    let read: Vec<Option<files::BatchFile>> = stream::iter(batches)
        .map(|(path, size_bytes, is_proven)| async move {
            let (table, name) = (Arc::clone(table), path.clone());
            let proof = if is_proven { proof::of(objects, place, &path).await? } else { None };
            room.read(objects, &path, size_bytes, move |bytes| files::read(name, bytes, &table, proof.as_ref())).await
        })
        .buffered(FILES_AT_ONCE)
        .try_collect()
        .await?;
    let ours = read.into_iter().flatten().filter(|file| {
        let is_ours = file.footer.table_id == place.scope.table && file.footer.scope == place.scope_name();
        if !is_ours {
            tracing::warn!(file = file.record.file_path, "ignored: its footer names another table or user");
        }
        is_ours
    });
    let chosen = files::choose(ours.collect());
    for file in &chosen.without_proof {
        tracing::warn!(file, "ignored: nothing proves that it was committed, and its rows are in other files");
    }
    let masked = blocking({
        let versions = chosen.read.iter().map(|file| (file.record.batch_number, file.versions.clone())).collect();
        move || Ok(resolve::masked(versions))
    });
    let masked = masked.await?;
    let flushed_to = chosen.read.iter().map(|file| file.record.max_updated).max().unwrap_or_default();
    let mut records: Vec<BatchRecord> =
        chosen.read.into_iter().map(|file| file.record).chain(chosen.archived).collect();
    records.sort_by_key(|record| record.batch_number);
    let max_batch = highest_number(BatchNumber(0), listed.keys());
    Ok(Recovered::new(records, masked, max_batch, flushed_to, 0))
}

fn highest_number<'a>(known: BatchNumber, paths: impl Iterator<Item = &'a String>) -> BatchNumber {
    let number = |path: &String| crate::paths::number_of_batch_name(path.rsplit('/').next()?);
    paths.filter_map(number).max().map_or(known, |highest| highest.max(known))
}

/// Limits how many bytes of files are in memory at the same time. A file that is larger is there alone.
pub(crate) struct Room(Semaphore);

impl Default for Room {
    fn default() -> Self {
        Self(Semaphore::new(Self::MIB as usize))
    }
}

impl Room {
    const MIB: u32 = 256;

    /// Reads a file and makes something of it.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        objects: &Objects,
        path: &str,
        size_bytes: u64,
        make: impl FnOnce(Bytes) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mib = u32::try_from(size_bytes >> 20).unwrap_or(u32::MAX).clamp(1, Self::MIB);
        let _room = self.0.acquire_many(mib).await.expect("it is never closed");
        let bytes = bytes(objects, path).await?;
        blocking(move || make(bytes)).await
    }
}

async fn bytes(objects: &Objects, path: &str) -> Result<Bytes> {
    let found = objects.get(path).await?;
    found.map(|found| found.bytes).ok_or_else(|| StorageError::Damaged(format!("{path} is gone")))
}
