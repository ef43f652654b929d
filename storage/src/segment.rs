//! Writing batch files.
//!
//! Invariants:
//! 1. Rows come sorted by `_id`, each `_id` once (an archive: by `_id`, newest first). The footer says so.
//! 2. A float column that holds NaN has no statistics in the footer: readers take a column whose minimum is its
//!    maximum for a constant, and statistics do not count NaN.
//! 3. A column of the filter plan has a Bloom filter in the sidecar and, where readers hash its type as we do, in the file.
//! 4. The footer's `seracdb` entry proves what the file belongs to.
//! 5. A bulk file has no `_updated`: its rows get theirs with the commit that its record comes with, after it is written.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, Int64Type, SchemaRef, TimestampNanosecondType,
};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, ParquetMetaData, RowGroupMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::bloom::{BlockFilter, FileFilters, FilterPlan, is_filterable, key_hashes};
use crate::bounds::column_bounds;
use crate::error::{Result, StorageError};
use crate::evolution::RowReader;
use crate::hot::HotChunk;
use crate::keys::{BatchNumber, TableId};
use crate::records::{BatchKind, ColumnBounds};
use crate::schema::TableSchema;
use crate::system_columns::{CommitTs, deleted_array, id_array, updated_array};

/// Key of our entry among the footer's key-value metadata.
pub const FOOTER_KEY: &str = "seracdb";

/// The version of that entry that this build writes, and the highest it reads.
pub const FOOTER_FORMAT: u32 = 1;

/// Rows of a row group; the last one of a file may have fewer.
pub const ROW_GROUP_ROWS: usize = 128 * 1024;

/// What a batch file says of itself, as JSON in its footer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Version of this entry, [`FOOTER_FORMAT`].
    pub format_version: u32,
    /// The table.
    pub table_id: TableId,
    /// `shared`, or `user:` and the user's name.
    pub scope: String,
    /// Number within the scope.
    pub batch_number: BatchNumber,
    /// How it came to be.
    pub kind: BatchKind,
    /// Batches whose rows it took over.
    pub replaces: Vec<BatchNumber>,
    /// Version of the table's schema.
    pub schema_version: u32,
    /// Oldest version in it.
    pub min_updated: CommitTs,
    /// Newest version in it.
    pub max_updated: CommitTs,
    /// The last commit that was visible when it was written.
    pub as_of: CommitTs,
    /// Of the owner of the object store; 0 when only this data directory can own it.
    pub epoch: u64,
}

impl Footer {
    /// What the file of this metadata says of itself; `Err`: why it is no batch file.
    pub(crate) fn read(metadata: &ParquetMetaData) -> Result<Self, String> {
        let entries = metadata.file_metadata().key_value_metadata();
        let entry = entries.and_then(|entries| entries.iter().find(|entry| entry.key == FOOTER_KEY));
        let entry = entry.and_then(|entry| entry.value.as_ref()).ok_or("its footer has no entry of SeracDB")?;
        serde_json::from_str(entry).map_err(|error| error.to_string())
    }
}

/// A finished file.
#[derive(Debug)]
pub struct Segment {
    /// Rows.
    pub row_count: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// CRC32 (IEEE) of the bytes.
    pub checksum: u32,
    /// Oldest version.
    pub min_updated: CommitTs,
    /// Newest version.
    pub max_updated: CommitTs,
    /// Bounds by column name.
    pub bounds: BTreeMap<String, ColumnBounds>,
    /// The sidecar with its Bloom filters; `None` when it has none.
    pub sidecar: Option<Vec<u8>>,
    /// `_id` by position; of a bulk file none.
    pub ids: Vec<i64>,
    /// `_updated` by position; of a bulk file none.
    pub updated: Vec<i64>,
    /// Positions of tombstones.
    pub tombstones: Vec<u32>,
}

/// Writes one batch file.
pub struct SegmentWriter {
    schema: SchemaRef,
    reader: Arc<RowReader>,
    writer: ArrowWriter<Checksummed<BufWriter<File>>>,
    footer: Footer,
    rows: usize,
    ids: Vec<i64>,
    updated: Vec<i64>,
    tombstones: Vec<u32>,
    filtered: Vec<FilteredColumn>,
    fpp: f64,
}

/// A column on its way to its Bloom filter.
struct FilteredColumn {
    id: u32,
    /// Place in the file.
    place: usize,
    hashes: Vec<u64>,
}

impl SegmentWriter {
    /// Starts a file. `with_nan`: names of the float columns that will hold NaN. An archive gets no filters: no query reads
    /// it by key.
    pub fn create(
        file: File,
        reader: Arc<RowReader>,
        footer: Footer,
        with_nan: &HashSet<String>,
        filters: &FilterPlan,
    ) -> Result<Self> {
        let schema = reader.table().schema();
        let arrow_schema = match footer.kind {
            BatchKind::Bulk => schema.bulk_file(),
            _ => schema.file(),
        };
        let filtered = match footer.kind {
            BatchKind::Archive => Vec::new(),
            _ => filtered_columns(&arrow_schema, filters),
        };
        let properties = properties(&arrow_schema, with_nan, &filtered, filters.fpp)?;
        let sink = Checksummed::new(BufWriter::with_capacity(1 << 20, file));
        let writer = ArrowWriter::try_new(sink, Arc::clone(&arrow_schema), Some(properties))?;
        Ok(Self {
            schema: arrow_schema,
            reader,
            writer,
            footer,
            rows: 0,
            ids: vec![],
            updated: vec![],
            tombstones: vec![],
            filtered,
            fpp: filters.fpp,
        })
    }

    /// Adds rows.
    pub fn write(&mut self, rows: &HotChunk) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let projection: Vec<usize> = (0..self.reader.column_count()).collect();
        let mut columns = vec![id_array(rows.ids.clone())];
        columns.extend(rows.decode(&self.reader, &projection)?);
        columns.extend([updated_array(rows.updated.clone()), deleted_array(rows.deleted.clone())]);
        self.write_batch(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Adds rows of the file's own schema.
    pub fn write_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.filtered.iter_mut().for_each(|column| column.add(batch.column(column.place)));
        self.writer.write(batch)?;
        let first = self.rows;
        self.rows += batch.num_rows();
        if self.footer.kind == BatchKind::Bulk {
            return Ok(());
        }
        let [.., updated, deleted] = batch.columns() else {
            return Err(StorageError::Damaged("a batch without system columns".into()));
        };
        let tombstones = deleted.as_boolean().iter().enumerate().filter(|(_, deleted)| *deleted == Some(true));
        self.tombstones.extend(tombstones.map(|(i, _)| (first + i) as u32));
        self.ids.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        self.updated.extend_from_slice(updated.as_primitive::<TimestampNanosecondType>().values());
        Ok(())
    }

    /// The schema of the file.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of rows so far.
    pub fn row_count(&self) -> usize {
        self.rows
    }

    /// Bytes of the file so far, about.
    pub fn size_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Ends the file. It is written but not yet durable.
    /// `number`: the batch that it becomes.
    pub fn finish(mut self, number: BatchNumber) -> Result<Segment> {
        if u32::try_from(self.rows).is_err() {
            return Err(StorageError::Damaged("a batch file would have more than 2^32 rows".into()));
        }
        let updated = |extreme: Option<i64>| CommitTs::stored(extreme.unwrap_or_default());
        let min_updated = updated(self.updated.iter().copied().min());
        let max_updated = updated(self.updated.iter().copied().max());
        let footer = Footer { batch_number: number, min_updated, max_updated, ..self.footer };
        let entry = serde_json::to_string(&footer).expect("a footer has only strings as keys");
        self.writer.append_key_value_metadata(KeyValue::new(FOOTER_KEY.to_owned(), entry));
        let metadata: ParquetMetaData = self.writer.finish()?;
        let bounds = column_bounds(&metadata, &self.schema);
        let (size_bytes, checksum) =
            self.writer.inner_mut().finish().map_err(StorageError::io("writing a batch file"))?;
        Ok(Segment {
            row_count: self.rows as u64,
            size_bytes,
            checksum,
            min_updated,
            max_updated,
            bounds,
            sidecar: sidecar(self.filtered, self.fpp),
            ids: self.ids,
            updated: self.updated,
            tombstones: self.tombstones,
        })
    }
}

impl FilteredColumn {
    fn add(&mut self, values: &ArrayRef) {
        if let Some(keys) = key_hashes(values) {
            // Many columns repeat a value from row to row, `_updated` above all.
            keys.hashes.into_iter().for_each(|hash| {
                if self.hashes.last() != Some(&hash) {
                    self.hashes.push(hash);
                }
            });
        }
    }
}

/// The columns of the plan that filters are possible for.
fn filtered_columns(schema: &SchemaRef, plan: &FilterPlan) -> Vec<FilteredColumn> {
    let columns = schema.fields().iter().enumerate().filter_map(|(place, field)| {
        let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()?;
        let wanted = plan.columns.contains(&id) && is_filterable(field.data_type());
        wanted.then(|| FilteredColumn { id, place, hashes: Vec::new() })
    });
    columns.collect()
}

fn sidecar(columns: Vec<FilteredColumn>, fpp: f64) -> Option<Vec<u8>> {
    let filters = columns.into_iter().map(|column| (column.id, BlockFilter::of(column.hashes, fpp)));
    let filters = FileFilters::new(filters.collect());
    (!filters.is_empty()).then(|| filters.encode())
}

/// Whether readers of Parquet hash a literal of this type as the file's writer does. Small integers and decimals are
/// stored as something else, and floats have two zeros.
fn hashed_alike(data_type: &DataType) -> bool {
    use DataType::{Binary, Int32, Int64, LargeBinary, LargeUtf8, Timestamp, UInt32, UInt64, Utf8};
    matches!(data_type, Int32 | Int64 | UInt32 | UInt64 | Utf8 | LargeUtf8 | Binary | LargeBinary | Timestamp(..))
}

/// The places of the float columns of a schema, nested ones left out: those never get statistics.
pub fn float_columns(schema: &TableSchema) -> Vec<usize> {
    let floats = schema.columns.iter().enumerate().filter(|(_, column)| column.data_type.is_floating());
    floats.map(|(i, _)| i).collect()
}

/// Whether a float column holds NaN.
pub fn holds_nan(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float16 => column.as_primitive::<Float16Type>().iter().flatten().any(|v| v.is_nan()),
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
        _ => false,
    }
}

fn properties(
    schema: &SchemaRef,
    with_nan: &HashSet<String>,
    filtered: &[FilteredColumn],
    fpp: f64,
) -> Result<WriterProperties> {
    // The first leaf is `_id`.
    let sorting = SortingColumn { column_idx: 0, descending: false, nulls_first: false };
    let mut builder = WriterProperties::builder()
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_sorting_columns(Some(vec![sorting]));
    let leaves = ArrowSchemaConverter::new().convert(schema)?;
    for leaf in leaves.columns() {
        let path = leaf.path();
        if path.parts().len() > 1 || with_nan.contains(&path.parts()[0]) {
            builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        }
    }
    for field in filtered.iter().map(|column| schema.field(column.place)) {
        if hashed_alike(field.data_type()) {
            let path = ColumnPath::new(vec![field.name().clone()]);
            builder =
                builder.set_column_bloom_filter_enabled(path.clone(), true).set_column_bloom_filter_fpp(path, fpp);
        }
    }
    Ok(builder.build())
}

/// Counts and checksums what goes through.
struct Checksummed<W> {
    inner: W,
    hasher: crc32fast::Hasher,
    size: u64,
}

impl<W: Write> Checksummed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: crc32fast::Hasher::new(), size: 0 }
    }

    /// Size and checksum of what went through.
    fn finish(&mut self) -> io::Result<(u64, u32)> {
        self.inner.flush()?;
        Ok((self.size, self.hasher.clone().finalize()))
    }
}

impl<W: Write> Write for Checksummed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// How many rows of a file to read at once, so that they take about so many bytes, however large its values are.
pub(crate) fn rows_at_once(file: &ParquetMetaData, bytes_max: u64, rows_max: usize) -> usize {
    // A value that repeats is there once, and takes its bytes for each row when it is read.
    let of_column = |column: &ColumnChunkMetaData| {
        column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or(0))
    };
    let of_row = |group: &RowGroupMetaData| {
        let bytes: i64 = group.columns().iter().map(of_column).sum();
        bytes.checked_div(group.num_rows()).unwrap_or(0)
    };
    let row_bytes = file.row_groups().iter().map(of_row).max().unwrap_or(0);
    let rows = bytes_max / u64::try_from(row_bytes).unwrap_or(0).max(1);
    usize::try_from(rows).unwrap_or(rows_max).clamp(1, rows_max)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field, Schema};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

    use super::*;

    #[test]
    fn of_large_values_few_rows_are_read_at_once() {
        let rows_of = |texts: Vec<String>| {
            let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true)]));
            let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(texts))]).unwrap();
            let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
            writer.write(&rows).unwrap();
            let file = Bytes::from(writer.into_inner().unwrap());
            let file = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).unwrap();
            rows_at_once(file.metadata(), 1 << 20, 8192)
        };
        // Also of one that is there once in the file.
        let same = rows_of(vec!["x".repeat(10_000); 500]);
        assert!((90..=110).contains(&same), "{same}");
        let different = rows_of((0..500).map(|number| format!("{number:010000}")).collect());
        assert!((90..=110).contains(&different), "{different}");
        assert_eq!(rows_of(vec!["x".repeat(2 << 20); 3]), 1);
        assert_eq!(rows_of(vec![String::new(); 10_000]), 8192);
        assert_eq!(rows_of(vec![]), 8192);
    }
}
