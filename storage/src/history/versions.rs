//! The versions of rows, in order of `_id`: of a file by position, of hot rows the newest of each row first.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::error::{Result, StorageError};
use crate::hot::{HotChunk, HotCursor, Versions};
use crate::keys::{BatchNumber, Generation, Scope};
use crate::objects::{Objects, blocking, object_path};
use crate::records::BatchRecord;
use crate::snapshot::Snapshot;
use crate::system_columns::{CommitTs, DELETED, ID, UPDATED};

const CHUNK_ROWS: usize = 8192;
/// Bytes of a version.
const VERSION_BYTES: usize = 8 + 8 + 1;

/// A version, without the user's columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    pub(super) id: i64,
    pub(super) updated: i64,
    pub(super) deleted: bool,
}

/// Versions, one after the other.
pub(super) enum Source {
    /// A file that is not read yet: many are there, and few hold the same rows.
    Closed(BatchRecord),
    File(FileVersions),
    Hot(HotVersions),
    Ended,
}

impl Source {
    /// It has no version of rows before this one.
    pub(super) fn first(&self) -> i64 {
        match self {
            Self::Closed(file) => *file.ids().start(),
            _ => i64::MIN,
        }
    }

    /// The version that it stands on; `None` at the end.
    pub(super) async fn head(&mut self, objects: &Objects, snapshot: &Arc<Snapshot>) -> Result<Option<Version>> {
        if let Self::Closed(file) = self {
            *self = Self::File(FileVersions::open(objects, file).await?);
        }
        let head = match self {
            Self::File(file) => file.head().await?,
            Self::Hot(hot) => hot.head(snapshot).await?,
            Self::Closed(_) | Self::Ended => None,
        };
        if head.is_none() {
            *self = Self::Ended;
        }
        Ok(head)
    }

    /// Goes past the version that [`Source::head`] has given.
    pub(super) fn advance(&mut self) {
        match self {
            Self::File(file) => file.advance(),
            Self::Hot(hot) => hot.advance(),
            Self::Closed(_) | Self::Ended => {}
        }
    }

    /// Bytes that it works with, about.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::File(file) => file.held,
            Self::Hot(hot) => hot.held,
            Self::Closed(_) | Self::Ended => 0,
        }
    }

    /// Where that is, if it is in a file.
    pub(super) fn position(&self) -> Option<(BatchNumber, u32)> {
        match self {
            Self::File(file) => Some((file.number, file.position + file.row as u32)),
            _ => None,
        }
    }
}

/// Those of a file.
pub(super) struct FileVersions {
    number: BatchNumber,
    /// `_updated` of all, when the file does not hold it.
    of_all: Option<i64>,
    rows: BoxStream<'static, Result<RecordBatch>>,
    batch: Option<Columns>,
    /// In the batch.
    row: usize,
    /// Position of the batch's first row.
    position: u32,
    held: usize,
}

struct Columns {
    ids: Int64Array,
    updated: Option<TimestampNanosecondArray>,
    deleted: BooleanArray,
}

impl FileVersions {
    pub(super) async fn open(objects: &Objects, file: &BatchRecord) -> Result<Self> {
        let (store, path) = (Arc::clone(objects.reader()), object_path(&file.file_path)?);
        let reader = ObjectReader { store, path, size: file.size_bytes };
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [ID, UPDATED, DELETED]);
        let held = held_while_read(builder.metadata(), &mask);
        let rows = builder.with_projection(mask).with_batch_size(CHUNK_ROWS).build()?;
        Ok(Self {
            number: file.batch_number,
            of_all: file.updated_of_all().map(CommitTs::get),
            rows: rows.map(|rows| rows.map_err(StorageError::from)).boxed(),
            batch: None,
            row: 0,
            position: 0,
            held,
        })
    }

    pub(super) async fn head(&mut self) -> Result<Option<Version>> {
        while self.batch.as_ref().is_none_or(|batch| self.row == batch.ids.len()) {
            self.position += self.row as u32;
            self.row = 0;
            let Some(rows) = self.rows.next().await else { return Ok(None) };
            self.batch = Some(Columns::of(&rows?)?);
        }
        let Some(Columns { ids, updated, deleted }) = &self.batch else { return Ok(None) };
        let of_row = updated.as_ref().map(|updated| updated.value(self.row));
        Ok(Some(Version {
            id: ids.value(self.row),
            updated: self.of_all.or(of_row).ok_or_else(damaged)?,
            deleted: deleted.is_valid(self.row) && deleted.value(self.row),
        }))
    }

    pub(super) fn advance(&mut self) {
        self.row += 1;
    }
}

impl Columns {
    fn of(rows: &RecordBatch) -> Result<Self> {
        let column = |name: &str| rows.column_by_name(name);
        Ok(Self {
            ids: column(ID).ok_or_else(damaged)?.as_primitive::<Int64Type>().clone(),
            updated: column(UPDATED).map(|column| column.as_primitive::<TimestampNanosecondType>().clone()),
            deleted: column(DELETED).ok_or_else(damaged)?.as_boolean().clone(),
        })
    }
}

/// Bytes in memory while these columns of a file are read, about: its footer, what a row group has stored of them, and some rows.
fn held_while_read(file: &ParquetMetaData, mask: &ProjectionMask) -> usize {
    let stored = file.row_groups().iter().map(|group| {
        let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        columns.map(|(_, column)| usize::try_from(column.compressed_size()).unwrap_or(0)).sum::<usize>()
    });
    let rows = usize::try_from(file.file_metadata().num_rows()).unwrap_or(0).min(CHUNK_ROWS);
    file.memory_size() + stored.max().unwrap_or(0) + rows * VERSION_BYTES
}

fn damaged() -> StorageError {
    StorageError::Damaged("a batch file without system columns".into())
}

/// Hot ones.
pub(super) struct HotVersions {
    cursor: HotCursor,
    chunk: HotChunk,
    /// In the chunk.
    row: usize,
    held: usize,
}

impl HotVersions {
    /// Of rows with these ids.
    pub(super) fn new(scope: Scope, generations: Vec<Generation>, ids: RangeInclusive<i64>) -> Self {
        let cursor = HotCursor::new(scope, generations, Versions::All).within(ids);
        Self { cursor, chunk: HotChunk::default(), row: 0, held: 0 }
    }

    pub(super) async fn head(&mut self, snapshot: &Arc<Snapshot>) -> Result<Option<Version>> {
        if self.row == self.chunk.len() {
            self.row = 0;
            let (snapshot, mut cursor) = (Arc::clone(snapshot), self.cursor.clone());
            (self.cursor, self.chunk) = blocking(move || {
                let chunk = snapshot.hot_chunk(&mut cursor, CHUNK_ROWS)?;
                Ok((cursor, chunk.unwrap_or_default()))
            })
            .await?;
            self.held = self.chunk.size_bytes();
            if self.chunk.is_empty() {
                return Ok(None);
            }
        }
        let HotChunk { ids, updated, deleted, .. } = &self.chunk;
        Ok(Some(Version { id: ids[self.row], updated: updated[self.row], deleted: deleted[self.row] }))
    }

    pub(super) fn advance(&mut self) {
        self.row += 1;
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
