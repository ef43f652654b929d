//! What rows were at an earlier time, and what has become of them since.
//!
//! Of a scope, versions lie in hot rows, in the files that queries read, and, once they are superseded and flushed or merged away,
//! in archived files until their retention has ended. A version that was the newest of its row at a time is in one that was
//! archived after that time, or in one that is read still.
//!
//! Invariants:
//! 1. A time can be read as long as every file is there that was archived after it. Who reads one has it pinned, and files that it
//!    needs stay.
//! 2. Of a row exactly one version is the one of a time: the newest of commits up to it, which is none when that deletes the row.
//!    Of equal versions, of a row that was loaded in bulk and changed by one commit, the hot one counts, then the later file's.
//! 3. Nothing here asks the delete log which of two versions is newer where their times can tell.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::error::{Result, StorageError};
use crate::file_index::FileIndex;
use crate::hot::{HotChunk, HotCursor, Versions};
use crate::keys::{BatchNumber, Scope, decode_delete_log_key};
use crate::objects::object_path;
use crate::records::{BatchRecord, BatchStatus};
use crate::snapshot::{Masks, ScopeView, Snapshot};
use crate::store::Store;
use crate::system_columns::{CommitTs, DELETED, ID, UPDATED};

const CHUNK_ROWS: usize = 8192;

/// Which times are read, and which can be no more.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    /// Times that are read, each so many times.
    pinned: BTreeMap<CommitTs, usize>,
    /// Files that were archived up to here may be gone.
    gone: CommitTs,
}

/// A time that is read: files that it needs stay until this is dropped.
#[derive(Debug)]
pub struct PinnedTime {
    history: Arc<History>,
    at: CommitTs,
}

impl Drop for PinnedTime {
    fn drop(&mut self) {
        let mut times = self.history.0.lock();
        if let Some(count) = times.pinned.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                times.pinned.remove(&self.at);
            }
        }
    }
}

impl History {
    /// `None` when files that it needs may be gone.
    fn pin(self: &Arc<Self>, at: CommitTs) -> Option<Arc<PinnedTime>> {
        let mut times = self.0.lock();
        if at < times.gone {
            return None;
        }
        *times.pinned.entry(at).or_default() += 1;
        Some(Arc::new(PinnedTime { history: Arc::clone(self), at }))
    }

    /// Of archived files those that may be removed now: no time that is read needs them, and none will be that does.
    pub(crate) fn removable(&self, archived: Vec<BatchRecord>) -> Vec<BatchRecord> {
        let mut times = self.0.lock();
        let oldest = times.pinned.keys().next().copied();
        let is_needed = |record: &BatchRecord| oldest.is_some_and(|oldest| record.archived_at > Some(oldest));
        let removable: Vec<_> = archived.into_iter().filter(|record| !is_needed(record)).collect();
        times.gone = removable.iter().filter_map(|record| record.archived_at).fold(times.gone, CommitTs::max);
        removable
    }
}

/// Where the versions of a time lie. The masks hide all others.
#[derive(Debug, Clone)]
pub struct Past {
    /// Of hot rows the newest of commits up to the time count.
    pub view: ScopeView,
    /// Keeps the files.
    pub pin: Arc<PinnedTime>,
}

/// Where the versions of a span of time lie, among others; some may be there twice.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Nothing is masked.
    pub view: ScopeView,
    /// Rows that were there before, as far as a version in the span could be taken for their first.
    pub earlier: Arc<RoaringTreemap>,
    /// Keeps the files.
    pub pin: Arc<PinnedTime>,
}

impl Store {
    /// A snapshot of all commits up to a time, none of which is still under way. `at`: not above the clock's.
    pub async fn settled(&self, snapshot: &Arc<Snapshot>, at: CommitTs) -> Result<Arc<Snapshot>> {
        match at <= snapshot.ts() {
            true => Ok(Arc::clone(snapshot)),
            false => self.committer().settle(at).await,
        }
    }

    /// What a scope was after the last commit up to a time, as this snapshot knows it.
    ///
    /// Errors: [`StorageError::TooOld`].
    pub async fn past(&self, snapshot: &Snapshot, scope: Scope, at: CommitTs) -> Result<Past> {
        let pin = self.pin(snapshot, scope, at).await?;
        let generations = snapshot.view(scope).await?.generations;
        let files: Vec<BatchRecord> =
            snapshot.records(scope)?.into_iter().filter(|file| needs(file, at) && file.min_updated <= at).collect();
        let mut sources = Vec::with_capacity(files.len() + 1);
        for file in &files {
            sources.push(Source::File(self.versions_of(file).await?));
        }
        if !files.is_empty() {
            let cursor = HotCursor::new(scope, generations.clone(), Versions::All);
            sources.push(Source::Hot(HotVersions { cursor, chunk: HotChunk::default() }));
        }
        let visible = newest_until(at, &mut sources, snapshot).await?;
        let mut masks = Masks::new();
        for file in &files {
            let mut mask = RoaringBitmap::new();
            mask.insert_range(0..u32::try_from(file.row_count).unwrap_or(u32::MAX));
            if let Some(visible) = visible.get(&file.batch_number) {
                mask -= visible;
            }
            masks.insert(file.batch_number, Arc::new(mask));
        }
        masks.retain(|_, mask| !mask.is_empty());
        Ok(Past {
            view: ScopeView { files: Arc::new(FileIndex::new(files)), masks: Arc::new(masks), generations },
            pin,
        })
    }

    /// What has come to a scope after a time.
    ///
    /// Errors: [`StorageError::TooOld`].
    pub async fn feed(&self, snapshot: &Snapshot, scope: Scope, since: CommitTs) -> Result<Feed> {
        let pin = self.pin(snapshot, scope, since).await?;
        let generations = snapshot.view(scope).await?.generations;
        let records = snapshot.records(scope)?;
        let mut earlier = RoaringTreemap::new();
        let mut add = |id: i64| {
            earlier.insert(id as u64);
        };
        // What was superseded in files that are read.
        snapshot.visit_delete_log(scope, since, |key, rows| {
            // Of files that are newer no row was there before.
            let is_newer = |file| records.iter().any(|known| known.batch_number == file && known.min_updated > since);
            if decode_delete_log_key(key).is_some_and(|(_, file)| !is_newer(file)) {
                let rows = rows()?.into_iter();
                rows.filter(|row| row.updated <= since && row.superseded_by > since).for_each(|row| add(row.id.get()));
            }
            Ok(())
        })?;
        // What was superseded in files that are no more, and in hot rows.
        let archived = records.iter().filter(|file| !file.status.is_read() && needs(file, since));
        for file in archived.filter(|file| file.min_updated <= since) {
            let mut versions = self.versions_of(file).await?;
            while let Some(version) = versions.head().await? {
                if version.updated <= since.get() {
                    add(version.id);
                }
                versions.advance();
            }
        }
        let cursor = HotCursor::new(scope, generations.clone(), Versions::All);
        let mut hot = HotVersions { cursor, chunk: HotChunk::default() };
        while hot.next_chunk(snapshot)? {
            let rows = hot.chunk.ids.iter().zip(&hot.chunk.updated);
            rows.filter(|(_, updated)| **updated <= since.get()).for_each(|(id, _)| add(*id));
            tokio::task::yield_now().await;
        }
        let files = records.into_iter().filter(|file| needs(file, since) && file.max_updated > since).collect();
        let view = ScopeView { files: Arc::new(FileIndex::new(files)), masks: Arc::default(), generations };
        Ok(Feed { view, earlier: Arc::new(earlier), pin })
    }

    /// Keeps what reading a time needs.
    async fn pin(&self, snapshot: &Snapshot, scope: Scope, at: CommitTs) -> Result<Arc<PinnedTime>> {
        // What is being recovered has no history yet.
        snapshot.view(scope).await?;
        let retention = i64::try_from(self.compaction().retention_seconds).unwrap_or(i64::MAX);
        let kept = CommitTs::stored(self.clock().now_ns().saturating_sub(retention.saturating_mul(1_000_000_000)));
        let header = snapshot.header(scope)?.unwrap_or_default();
        // The records that would say are not in this snapshot.
        let known = if header.recovering { CommitTs::stored(snapshot.ts().get() + 1) } else { header.history_from };
        let oldest = kept.max(known);
        let pin = if at < oldest { None } else { self.history().pin(at) };
        pin.ok_or(StorageError::TooOld { oldest })
    }

    async fn versions_of(&self, file: &BatchRecord) -> Result<FileVersions> {
        let (store, path) = (Arc::clone(self.objects().reader()), object_path(&file.file_path)?);
        let reader = ObjectReader { store, path, size: file.size_bytes };
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [ID, UPDATED, DELETED]);
        let rows = builder.with_projection(mask).with_batch_size(CHUNK_ROWS).build()?;
        Ok(FileVersions {
            number: file.batch_number,
            of_all: file.updated_of_all().map(CommitTs::get),
            rows: rows.map(|rows| rows.map_err(StorageError::from)).boxed(),
            batch: None,
            row: 0,
            position: 0,
        })
    }
}

/// Whether a version that was the newest of its row at a time can be in a file.
fn needs(file: &BatchRecord, at: CommitTs) -> bool {
    match file.status {
        BatchStatus::Active | BatchStatus::Compacting => true,
        BatchStatus::Archived => file.archived_at > Some(at),
        BatchStatus::Removing => false,
    }
}

#[derive(Debug, Clone, Copy)]
struct Version {
    id: i64,
    updated: i64,
    deleted: bool,
}

/// Versions in order of `_id`.
enum Source {
    File(FileVersions),
    Hot(HotVersions),
}

/// Those of a file, by position.
struct FileVersions {
    number: BatchNumber,
    /// `_updated` of all, when the file does not hold it.
    of_all: Option<i64>,
    rows: BoxStream<'static, Result<RecordBatch>>,
    batch: Option<Columns>,
    /// In the batch.
    row: usize,
    /// Position of the batch's first row.
    position: u32,
}

struct Columns {
    ids: Int64Array,
    updated: Option<arrow::array::TimestampNanosecondArray>,
    deleted: BooleanArray,
}

impl FileVersions {
    /// The version at the current position; `None` at the end.
    async fn head(&mut self) -> Result<Option<Version>> {
        while self.batch.as_ref().is_none_or(|batch| self.row == batch.ids.len()) {
            self.position += self.row as u32;
            self.row = 0;
            let Some(rows) = self.rows.next().await else { return Ok(None) };
            self.batch = Some(Columns::of(&rows?)?);
        }
        Ok(self.batch.as_ref().map(|batch| Version {
            id: batch.ids.value(self.row),
            updated: match (&batch.updated, self.of_all) {
                (_, Some(of_all)) => of_all,
                (Some(updated), None) => updated.value(self.row),
                (None, None) => i64::MAX,
            },
            deleted: batch.deleted.is_valid(self.row) && batch.deleted.value(self.row),
        }))
    }

    fn advance(&mut self) {
        self.row += 1;
    }
}

impl Columns {
    fn of(rows: &RecordBatch) -> Result<Self> {
        let missing = || StorageError::Damaged("a batch file without system columns".into());
        let column = |name: &str| rows.column_by_name(name);
        Ok(Self {
            ids: column(ID).ok_or_else(missing)?.as_primitive::<Int64Type>().clone(),
            updated: column(UPDATED).map(|column| column.as_primitive::<TimestampNanosecondType>().clone()),
            deleted: column(DELETED).ok_or_else(missing)?.as_boolean().clone(),
        })
    }
}

/// A file on the object store, read range by range.
struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            let read = self.store.get_range(&self.path, range).await;
            read.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            ParquetMetaDataReader::new().load_and_finish(&mut *self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

/// Hot ones, of a row the newest first.
struct HotVersions {
    cursor: HotCursor,
    chunk: HotChunk,
}

impl HotVersions {
    fn next_chunk(&mut self, snapshot: &Snapshot) -> Result<bool> {
        let chunk = snapshot.hot_chunk(&mut self.cursor, CHUNK_ROWS)?;
        self.chunk = chunk.unwrap_or_default();
        Ok(!self.chunk.is_empty())
    }
}

/// The newest version so far of the row that is being passed.
#[derive(Clone, Copy)]
struct Newest {
    /// Its time, and what counts among equal ones.
    order: (i64, u64),
    deleted: bool,
    /// Where it is, if that is in a file.
    position: Option<(BatchNumber, u32)>,
}

/// The positions in files of the newest version of each row of commits up to a time, where it is in a file and no tombstone.
async fn newest_until(
    at: CommitTs,
    sources: &mut [Source],
    snapshot: &Snapshot,
) -> Result<HashMap<BatchNumber, RoaringBitmap>> {
    let mut visible: HashMap<BatchNumber, RoaringBitmap> = HashMap::new();
    let mut hot_rows = vec![0; sources.len()];
    let mut heads: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    for (place, source) in sources.iter_mut().enumerate() {
        if let Some(version) = head(source, &mut hot_rows[place], snapshot).await? {
            heads.push(Reverse((version.id, place)));
        }
    }
    let mut newest: Option<Newest> = None;
    while let Some(Reverse((id, place))) = heads.pop() {
        let source = &mut sources[place];
        if let Some(version) = head(source, &mut hot_rows[place], snapshot).await?
            && version.updated <= at.get()
        {
            let (rank, position) = match source {
                Source::File(file) => (file.number.0, Some((file.number, file.position + file.row as u32))),
                Source::Hot(_) => (u64::MAX, None),
            };
            let version = Newest { order: (version.updated, rank), deleted: version.deleted, position };
            newest = newest.filter(|newest| newest.order >= version.order).or(Some(version));
        }
        match source {
            Source::File(file) => file.advance(),
            Source::Hot(_) => hot_rows[place] += 1,
        }
        if let Some(version) = head(source, &mut hot_rows[place], snapshot).await? {
            heads.push(Reverse((version.id, place)));
        }
        if heads.peek().is_none_or(|Reverse((next, _))| *next != id)
            && let Some(Newest { deleted: false, position: Some((file, position)), .. }) = newest.take()
        {
            visible.entry(file).or_default().insert(position);
        }
    }
    Ok(visible)
}

/// The next version of a source; `None` at its end. `row`: where a hot one stands.
async fn head(source: &mut Source, row: &mut usize, snapshot: &Snapshot) -> Result<Option<Version>> {
    match source {
        Source::File(file) => file.head().await,
        Source::Hot(hot) => {
            if *row == hot.chunk.len() {
                *row = 0;
                if !hot.next_chunk(snapshot)? {
                    return Ok(None);
                }
                tokio::task::yield_now().await;
            }
            let HotChunk { ids, updated, deleted, .. } = &hot.chunk;
            Ok(Some(Version { id: ids[*row], updated: updated[*row], deleted: deleted[*row] }))
        }
    }
}
