//! Flush: the hot rows of a scope become a batch file.
//!
//! ```text
//! seal (later commits go to the next generation) → files, delete vectors → records → manifest → hot rows removed
//! ```
//!
//! Invariants:
//! 1. A generation is flushed whole. The newest version of each row, tombstones included, goes to an active file, the
//!    older ones to an archived file that only time travel reads.
//! 2. Rows that were superseded while the file was written are masked in it before any snapshot shows it.
//! 3. Each step is durable before the next; a flush that died is taken up by the next one of its scope, and its file,
//!    which no record names, stays unread under a number that is not used again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::commit::{LogChange, Publication};
use crate::delete_log::MaskedRow;
use crate::error::Result;
use crate::hot::{HotChunk, HotCursor, Versions};
use crate::keys::{BatchNumber, Generation, Scope, decode_delete_log_key};
use crate::manifest::Manifest;
use crate::objects::{Objects, blocking};
use crate::progress::Progress;
use crate::records::{BatchKind, BatchRecord};
use crate::scope_files::{ScopeFiles, Scratch, Unfinished};
use crate::segment::{Segment, float_columns, holds_nan};
use crate::snapshot::Snapshot;
use crate::steps::Step;
use crate::store::Store;
use crate::system_columns::{CommitTs, RowId};

const CHUNK_ROWS: usize = 8192;
/// Entries of the delete log that one file may have before they are merged.
const LOG_ENTRIES_MAX: usize = 64;

/// What a flush has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flushed {
    /// Rows in the active file.
    pub rows: u64,
    /// Files.
    pub files: usize,
}

impl Store {
    /// Writes the hot rows of a scope to a batch file. Commits go on meanwhile.
    ///
    /// It is finished also when who waits for it goes away.
    pub async fn flush(self: &Arc<Self>, scope: Scope) -> Result<Flushed> {
        self.flush_with(scope, &Arc::default()).await
    }

    /// The same for who wants to know how far it is, or to stop it: [`crate::StorageError::Stopped`]. What is sealed by then is
    /// for the next flush.
    pub async fn flush_with(self: &Arc<Self>, scope: Scope, progress: &Arc<Progress>) -> Result<Flushed> {
        let (store, progress) = (Arc::clone(self), Arc::clone(progress));
        self.to_its_end(async move {
            // What it has placed and no record names is removed later.
            store.flush_now(scope, &progress).await.inspect_err(|_| store.look_again(scope))
        })
        .await
    }

    async fn flush_now(&self, scope: Scope, progress: &Arc<Progress>) -> Result<Flushed> {
        let lock = self.scope_lock(scope);
        let _one_at_a_time = lock.lock().await;
        self.flush_locked(scope, progress).await
    }

    /// Flushes a scope whose lock the caller holds, and exports what is not exported yet.
    pub(crate) async fn flush_locked(&self, scope: Scope, progress: &Arc<Progress>) -> Result<Flushed> {
        self.recover_locked(scope).await?;
        let snapshot = self.snapshot();
        let header = snapshot.header(scope)?.unwrap_or_default();
        let active = has_rows(&snapshot, scope, vec![header.active])?;
        if !active && header.sealed.is_empty() {
            if header.is_unfinished() {
                self.export(&snapshot, scope).await?;
            }
            return Ok(Flushed::default());
        }
        drop(snapshot);
        // What an earlier flush has sealed and not finished is flushed with the rest.
        let (number, snapshot) = match active {
            true => self.committer().seal(scope).await?,
            false => self.committer().reserve_batch(scope).await?,
        };
        self.reached(Step::Sealed).await;
        let job = Arc::new(ScopeFiles::new(snapshot, scope)?);
        let (latest, older) = self.write_files(&job, number, progress).await?;
        self.reached(Step::FileWritten).await;
        // Whoever finds a file must know the columns that it was written with.
        self.export_catalog().await?;
        let archive = match older {
            Some(older) => {
                let (number, _) = self.committer().reserve_batch(scope).await?;
                let older = blocking(move || older.finish(number)).await?;
                Some(job.place(self.objects(), number, &older).await?)
            }
            None => None,
        };
        let flushed = Flushed { rows: latest.segment.row_count, files: 1 + archive.iter().len() };
        progress.files.fetch_add(flushed.files as u64, Ordering::Relaxed);
        let publication = job.publication(self.objects(), number, latest, archive).await?;
        self.reached(Step::FilePlaced).await;
        self.publish(publication).await?;
        self.metrics().flushed(&flushed);
        tracing::info!(table = scope.table.0, owner = scope.owner.0, rows = flushed.rows, batch = %number, "flushed");
        Ok(flushed)
    }

    /// Commits a publication and carries it through to the manifest.
    pub(crate) async fn publish(&self, publication: Publication) -> Result<()> {
        let scope = publication.scope;
        let outdated = outdated_vectors(&publication);
        let published = self.committer().publish(publication).await?;
        self.reached(Step::Published).await;
        self.export(&published, scope).await?;
        for path in outdated {
            if let Err(error) = self.objects().remove(&path).await {
                tracing::warn!(%error, file = path, "an outdated delete vector stays for now");
                self.look_again(scope);
            }
        }
        Ok(())
    }

    /// Writes a scope's manifest and removes the hot rows that it covers.
    pub(crate) async fn export(&self, snapshot: &Arc<Snapshot>, scope: Scope) -> Result<()> {
        let job = ScopeFiles::new(Arc::clone(snapshot), scope)?;
        let records = snapshot.records(scope)?;
        // Whoever finds the manifest must find its table.
        self.export_catalog().await?;
        let now = self.clock().now_ns();
        let epoch = self.objects().epoch();
        let unknown = self.manifests().unknown_fields(&job.place);
        self.prove(&job, &records).await?;
        let manifest = Manifest::of(&job.place, &job.header, &records, epoch, now, unknown);
        let written = self.manifests().write(&job.place, &manifest).await?;
        self.reached(Step::ManifestWritten).await;
        self.manifests().remember(&job.place, written)?;
        self.reached(Step::CacheWritten).await;
        self.committer().exported(scope, job.header.version).await
    }

    async fn write_files(
        &self,
        job: &Arc<ScopeFiles>,
        number: BatchNumber,
        progress: &Arc<Progress>,
    ) -> Result<(Scratch, Option<Unfinished>)> {
        let (job, objects, progress) = (Arc::clone(job), self.objects().clone(), Arc::clone(progress));
        let sealed_bytes = self.tally().sealed_bytes(job.scope);
        blocking(move || job.write_sealed(&objects, number, sealed_bytes, &progress)).await
    }
}

/// The delete vectors that the manifest names until this publication is exported.
fn outdated_vectors(publication: &Publication) -> Vec<String> {
    let before = publication.snapshot.records(publication.scope).unwrap_or_default();
    let changed = publication.changed.iter().chain(&publication.replaced).map(|record| record.batch_number);
    let changed: HashSet<_> = changed.collect();
    let named = before.into_iter().filter(|record| changed.contains(&record.batch_number));
    named.filter_map(|record| record.deletes).map(|deletes| deletes.path).collect()
}

impl ScopeFiles {
    fn sealed_rows(&self) -> HotCursor {
        HotCursor::new(self.scope, self.header.sealed.clone(), Versions::All)
    }

    /// Writes the newest versions to one file and, when there are any, the older ones to another. `sealed_bytes`: how much they
    /// are, about.
    fn write_sealed(
        &self,
        objects: &Objects,
        number: BatchNumber,
        sealed_bytes: u64,
        progress: &Progress,
    ) -> Result<(Scratch, Option<Unfinished>)> {
        let with_nan = self.columns_with_nan()?;
        let name = number.to_string();
        let mut latest = self.create(objects, &name, BatchKind::Flush, Vec::new(), &with_nan)?;
        let mut older: Option<Unfinished> = None;
        let mut cursor = self.sealed_rows();
        let (mut last_id, mut done_bytes) = (None, 0);
        while let Some(chunk) = self.snapshot.hot_chunk(&mut cursor, CHUNK_ROWS)? {
            let bytes = chunk.size_bytes() as u64;
            done_bytes += bytes;
            progress.of_part(done_bytes, sealed_bytes);
            progress.go_on(chunk.len() as u64, bytes)?;
            let (newest, superseded) = chunk.split_newest(&mut last_id);
            latest.rows.write(&newest)?;
            if !superseded.is_empty() {
                let older = match &mut older {
                    Some(started) => started,
                    None => older.insert(self.create(objects, &name, BatchKind::Archive, Vec::new(), &with_nan)?),
                };
                older.rows.write(&superseded)?;
            }
        }
        Ok((latest.finish(number)?, older))
    }

    /// Names of the float columns that hold NaN in any version.
    fn columns_with_nan(&self) -> Result<HashSet<String>> {
        let mut unseen = float_columns(self.schema());
        let mut found = HashSet::new();
        let mut cursor = self.sealed_rows();
        while !unseen.is_empty() {
            let Some(chunk) = self.snapshot.hot_chunk(&mut cursor, CHUNK_ROWS)? else { break };
            let columns = chunk.decode(&self.reader, &unseen)?;
            for (place, column) in std::mem::take(&mut unseen).into_iter().zip(columns) {
                if holds_nan(&column) {
                    found.insert(self.schema().columns[place].name.clone());
                } else {
                    unseen.push(place);
                }
            }
        }
        Ok(found)
    }

    async fn publication(
        &self,
        objects: &Objects,
        number: BatchNumber,
        latest: Scratch,
        archive: Option<BatchRecord>,
    ) -> Result<Publication> {
        let flushed_to = self.header.flushed_to.max(latest.segment.max_updated);
        let tombstones = latest.segment.tombstones.iter();
        let mut masked: Vec<MaskedRow> =
            tombstones.map(|&at| masked_at(&latest.segment, at, latest.segment.updated[at as usize])).collect();
        masked.extend(self.superseded_after_seal(&latest.segment)?);
        let changed = self.renewed_vectors(objects, flushed_to, &[]).await?;
        Ok(Publication {
            snapshot: Arc::clone(&self.snapshot),
            scope: self.scope,
            generations: self.header.sealed.clone(),
            replaced: Vec::new(),
            active: Some(self.place_active(objects, number, latest, masked, flushed_to).await?),
            archive,
            changed,
            log: self.merged_log()?,
            flushed_to,
            version: self.header.version,
        })
    }

    /// Rows of the file with a newer version in a later generation, as far as this snapshot shows it.
    fn superseded_after_seal(&self, latest: &Segment) -> Result<Vec<MaskedRow>> {
        let mut masked = Vec::new();
        let mut cursor = HotCursor::new(self.scope, vec![self.header.active], Versions::All);
        while let Some(chunk) = self.snapshot.hot_chunk(&mut cursor, CHUNK_ROWS)? {
            for (id, updated) in chunk.ids.iter().zip(&chunk.updated) {
                if let Ok(at) = latest.ids.binary_search(id) {
                    masked.push(masked_at(latest, at as u32, *updated));
                }
            }
        }
        Ok(masked)
    }

    /// One entry in the place of all, for files that have too many.
    fn merged_log(&self) -> Result<LogChange> {
        let mut entries: BTreeMap<BatchNumber, usize> = BTreeMap::new();
        self.snapshot.visit_delete_log(self.scope, CommitTs::stored(i64::MIN), |key, _| {
            if let Some((_, file)) = decode_delete_log_key(key) {
                *entries.entry(file).or_default() += 1;
            }
            Ok(())
        })?;
        let many = entries.into_iter().filter(|(_, count)| *count > LOG_ENTRIES_MAX).map(|(file, _)| file);
        self.log_of(&many.collect())
    }
}

fn masked_at(segment: &Segment, position: u32, superseded_by: i64) -> MaskedRow {
    MaskedRow {
        position,
        id: RowId::stored(segment.ids[position as usize]),
        updated: CommitTs::stored(segment.updated[position as usize]),
        superseded_by: CommitTs::stored(superseded_by),
    }
}

fn has_rows(snapshot: &Arc<Snapshot>, scope: Scope, generations: Vec<Generation>) -> Result<bool> {
    let mut cursor = HotCursor::new(scope, generations, Versions::All);
    Ok(snapshot.hot_chunk(&mut cursor, 1)?.is_some())
}

impl HotChunk {
    /// Parts the newest version of each row from its older ones. `last` carries the row that the previous chunk of
    /// the same cursor ended with.
    fn split_newest(self, last: &mut Option<i64>) -> (HotChunk, HotChunk) {
        let newest: Vec<bool> = self.ids.iter().map(|&id| last.replace(id) != Some(id)).collect();
        if newest.iter().all(|&newest| newest) {
            return (self, HotChunk::default());
        }
        let older: Vec<bool> = newest.iter().map(|newest| !newest).collect();
        (self.filter(&newest), self.filter(&older))
    }
}
