//! Flush: the hot rows of a scope become a batch file.
//!
//! ```text
//! seal (later commits go to the next generation) → file → record → manifest → hot rows removed
//! ```
//!
//! Invariants:
//! 1. A generation is flushed whole. The newest version of each row, tombstones included, goes to an active file, the
//!    older ones to an archived file that only time travel reads.
//! 2. Rows that were superseded while the file was written are masked in it before any snapshot shows it.
//! 3. Each step is durable before the next; a flush that died is taken up by the next one of its scope, and its file,
//!    which no record names, stays unread under a number that is not used again.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::commit::Publication;
use crate::delete_log::MaskedRow;
use crate::error::{Result, StorageError};
use crate::hot::{HotChunk, HotCursor, Versions};
use crate::keys::{BatchNumber, Generation, Scope};
use crate::manifest::Manifest;
use crate::objects::{Objects, blocking};
use crate::paths;
use crate::records::{BatchKind, BatchRecord, BatchStatus, ScopeHeader};
use crate::row_codec::RowLayout;
use crate::schema::TableSchema;
use crate::segment::{Footer, Segment, SegmentWriter, float_columns, holds_nan};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::system_columns::{CommitTs, RowId};

const CHUNK_ROWS: usize = 8192;

/// What a flush has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flushed {
    /// Rows in the active file.
    pub rows: u64,
    /// Files.
    pub files: usize,
}

/// What a flush knows of its scope.
struct FlushJob {
    snapshot: Arc<Snapshot>,
    scope: Scope,
    schema: TableSchema,
    layout: Arc<RowLayout>,
    /// Name of the owner; `None` = shared.
    user: Option<String>,
    /// Folder of the scope.
    prefix: String,
    header: ScopeHeader,
}

impl Store {
    /// Writes the hot rows of a scope to a batch file. Commits go on meanwhile.
    ///
    /// It is a task of its own: who waits for it may go away, and it is finished all the same.
    pub async fn flush(self: &Arc<Self>, scope: Scope) -> Result<Flushed> {
        let store = Arc::clone(self);
        match tokio::spawn(async move { store.flush_now(scope).await }).await {
            Ok(flushed) => flushed,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StorageError::Stopped),
        }
    }

    async fn flush_now(&self, scope: Scope) -> Result<Flushed> {
        let lock = self.scope_lock(scope);
        let _one_at_a_time = lock.lock().await;
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
        let job = Arc::new(FlushJob::new(snapshot, scope)?);
        let (latest, older) = self.write_files(&job, number).await?;
        let mut records = vec![job.place(self.objects(), number, BatchKind::Flush, &latest).await?];
        if let Some(older) = older {
            let (number, _) = self.committer().reserve_batch(scope).await?;
            records.push(job.place(self.objects(), number, BatchKind::Archive, &older).await?);
        }
        let flushed = Flushed { rows: latest.segment.row_count, files: records.len() };
        let publication = job.publication(records, latest.segment)?;
        let published = self.committer().publish(publication).await?;
        self.export(&published, scope).await?;
        tracing::info!(table = scope.table.0, owner = scope.owner.0, rows = flushed.rows, batch = %number, "flushed");
        Ok(flushed)
    }

    /// Writes a scope's manifest and removes the hot rows that it covers.
    pub(crate) async fn export(&self, snapshot: &Arc<Snapshot>, scope: Scope) -> Result<()> {
        let job = FlushJob::new(Arc::clone(snapshot), scope)?;
        let records = snapshot.records(scope)?;
        let now = self.clock().now_ns();
        let epoch = self.objects().epoch();
        let manifest = Manifest::of(scope.table, job.user.as_deref(), &job.header, records, epoch, now);
        self.objects().put(&format!("{}/{}", job.prefix, paths::MANIFEST_FILE), manifest.to_json()).await?;
        self.committer().exported(scope, job.header.version).await
    }

    async fn write_files(&self, job: &Arc<FlushJob>, number: BatchNumber) -> Result<(Scratch, Option<Scratch>)> {
        let (job, objects) = (Arc::clone(job), self.objects().clone());
        blocking(move || job.write_files(&objects, number)).await
    }
}

/// A file that is being built. It is removed with this, placed or not.
struct ScratchFile(PathBuf);

impl Drop for ScratchFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, file = %self.0.display(), "a scratch file stays until the next start");
        }
    }
}

/// A finished file that is not placed yet.
struct Scratch {
    file: ScratchFile,
    segment: Segment,
}

impl FlushJob {
    fn new(snapshot: Arc<Snapshot>, scope: Scope) -> Result<Self> {
        let catalog = Arc::clone(snapshot.catalog());
        // A table that was dropped meanwhile has nothing to flush.
        let table = catalog.table_by_id(scope.table).ok_or(StorageError::Conflict)?;
        let user = match scope.owner.0 {
            0 => None,
            number => {
                let user = catalog.user_by_number(number);
                Some(
                    user.ok_or_else(|| StorageError::Damaged(format!("rows of an unknown user {number}")))?
                        .name
                        .clone(),
                )
            }
        };
        let schema = table.schema().clone();
        let layout = Arc::new(RowLayout::new(schema.version, &schema.user_fields().into())?);
        let prefix = paths::scope_prefix(&table.prefix, user.as_deref());
        let header = snapshot.header(scope)?.unwrap_or_default();
        Ok(Self { snapshot, scope, schema, layout, user, prefix, header })
    }

    fn cursor(&self) -> HotCursor {
        HotCursor::new(self.scope, self.header.sealed.clone(), Versions::All)
    }

    /// Writes the newest versions to one file and, when there are any, the older ones to another.
    fn write_files(&self, objects: &Objects, number: BatchNumber) -> Result<(Scratch, Option<Scratch>)> {
        let with_nan = self.columns_with_nan()?;
        let create = |kind: BatchKind| -> Result<(ScratchFile, SegmentWriter)> {
            let name = format!("{}-{}-{number}-{kind:?}", self.scope.table.0, self.scope.owner.0);
            let (path, file) = objects.scratch_file(&name)?;
            let scratch = ScratchFile(path);
            let footer = self.footer(number, kind, objects.epoch());
            let writer = SegmentWriter::create(file, &self.schema, Arc::clone(&self.layout), footer, &with_nan)?;
            Ok((scratch, writer))
        };
        let (latest_file, mut latest) = create(BatchKind::Flush)?;
        let mut older: Option<(ScratchFile, SegmentWriter)> = None;
        let mut cursor = self.cursor();
        let mut last_id = None;
        while let Some(chunk) = self.snapshot.hot_chunk(&mut cursor, CHUNK_ROWS)? {
            let (newest, superseded) = chunk.split_newest(&mut last_id);
            latest.write(&newest)?;
            if !superseded.is_empty() {
                let (_, writer) = match &mut older {
                    Some(started) => started,
                    None => older.insert(create(BatchKind::Archive)?),
                };
                writer.write(&superseded)?;
            }
        }
        let finish =
            |(file, writer): (ScratchFile, SegmentWriter)| writer.finish().map(|segment| Scratch { file, segment });
        Ok((finish((latest_file, latest))?, older.map(finish).transpose()?))
    }

    /// Names of the float columns that hold NaN in any version.
    fn columns_with_nan(&self) -> Result<HashSet<String>> {
        let mut unseen = float_columns(&self.schema);
        let mut found = HashSet::new();
        let mut cursor = self.cursor();
        while !unseen.is_empty() {
            let Some(chunk) = self.snapshot.hot_chunk(&mut cursor, CHUNK_ROWS)? else { break };
            let columns = chunk.decode(&self.layout, &unseen)?;
            for (place, column) in std::mem::take(&mut unseen).into_iter().zip(columns) {
                if holds_nan(&column) {
                    found.insert(self.schema.columns[place].name.clone());
                } else {
                    unseen.push(place);
                }
            }
        }
        Ok(found)
    }

    fn footer(&self, number: BatchNumber, kind: BatchKind, epoch: u64) -> Footer {
        Footer {
            format_version: 1,
            table_id: self.scope.table,
            scope: self.user.as_ref().map_or_else(|| "shared".to_owned(), |name| format!("user:{name}")),
            batch_number: number,
            kind,
            replaces: Vec::new(),
            schema_version: self.schema.version,
            // Known when the rows are written.
            min_updated: CommitTs::default(),
            max_updated: CommitTs::default(),
            as_of: self.snapshot.ts(),
            epoch,
        }
    }

    /// Makes a finished file durable at its place, and gives its record.
    async fn place(
        &self,
        objects: &Objects,
        number: BatchNumber,
        kind: BatchKind,
        file: &Scratch,
    ) -> Result<BatchRecord> {
        let path = format!("{}/{}", self.prefix, paths::batch_file(number, objects.name_epoch()));
        objects.put_file(&file.file.0, &path).await?;
        let segment = &file.segment;
        Ok(BatchRecord {
            batch_number: number,
            file_path: path,
            kind,
            status: if kind == BatchKind::Archive { BatchStatus::Archived } else { BatchStatus::Active },
            min_updated: segment.min_updated,
            max_updated: segment.max_updated,
            column_min_max: segment.bounds.clone(),
            row_count: segment.row_count,
            size_bytes: segment.size_bytes,
            checksum: segment.checksum,
            schema_version: self.schema.version,
            replaces: Vec::new(),
        })
    }

    fn publication(&self, records: Vec<BatchRecord>, latest: Segment) -> Result<Publication> {
        let tombstones = latest.tombstones.iter();
        let mut masked: Vec<MaskedRow> =
            tombstones.map(|&at| masked_at(&latest, at, latest.updated[at as usize])).collect();
        masked.extend(self.superseded_after_seal(&latest)?);
        Ok(Publication {
            snapshot: Arc::clone(&self.snapshot),
            scope: self.scope,
            generations: self.header.sealed.clone(),
            records,
            masked,
            ids: Arc::new(latest.ids),
            updated: Arc::new(latest.updated),
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
