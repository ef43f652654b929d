//! One batch file against its record: bytes, footer, columns, rows.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema, TimestampNanosecondType};
use bytes::Bytes;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::finding::{Faults, Invariant};
use super::scope::Place;
use super::statistics::Statistics;
use super::unique::{Hasher, Hashes};
use crate::bloom::FileFilters;
use crate::catalog::TableRecord;
use crate::error::Result;
use crate::paths;
use crate::records::{BatchKind, BatchRecord};
use crate::recovery::resolve::Versions;
use crate::schema::{Column, TableSchema};
use crate::segment::{FOOTER_FORMAT, Footer, rows_at_once};
use crate::system_columns::{CommitTs, DELETED, ID, RowId, UPDATED, tick_of};

/// Rows that are read at once, and the bytes of them: some files are checked at the same time.
const BATCH_ROWS: usize = 32 << 10;
const BATCH_BYTES: u64 = 32 << 20;

/// What a file holds; `None` when it cannot be read.
pub(super) struct Checked {
    pub(super) versions: Option<Versions>,
    /// Of their unique keys.
    pub(super) hashes: Hashes,
    pub(super) faults: Faults,
}

pub(super) fn check(
    bytes: &Bytes,
    record: &BatchRecord,
    place: &Place,
    filters: Option<&FileFilters>,
    hasher: &Hasher,
) -> Checked {
    let (mut faults, mut hashes) = (Faults::default(), Hashes::default());
    let keys = &mut |batch: &RecordBatch, schema: &TableSchema| hasher.add(&mut hashes, batch, schema);
    let versions = match read(bytes, record, place, filters, keys, &mut faults) {
        Ok(versions) => versions,
        Err(error) => {
            faults.add(Invariant::Files, format!("it cannot be read: {error}"));
            None
        }
    };
    Checked { versions, hashes, faults }
}

fn read(
    bytes: &Bytes,
    record: &BatchRecord,
    place: &Place,
    filters: Option<&FileFilters>,
    keys: &mut dyn FnMut(&RecordBatch, &TableSchema) -> Result<()>,
    faults: &mut Faults,
) -> Result<Option<Versions>> {
    // A wrong length was found in the listing.
    if bytes.len() as u64 != record.size_bytes {
        return Ok(None);
    }
    if crc32fast::hash(bytes) != record.checksum {
        faults.add(Invariant::Files, "its bytes are not those that were written: the checksum is another");
        return Ok(None);
    }
    let metadata = ArrowReaderMetadata::load(bytes, ArrowReaderOptions::default())?;
    match Footer::read(metadata.metadata()) {
        Ok(footer) => check_footer(&footer, record, place, faults),
        Err(error) => faults.add(Invariant::Footers, error),
    }
    let Some(schema) = place.table.schema_of(record.schema_version) else {
        return Ok(None);
    };
    let expected = if record.kind == BatchKind::Bulk { schema.bulk_file() } else { schema.file() };
    if !are_alike(metadata.schema(), &expected) {
        faults.add(Invariant::Rows, format!("its columns are not those of version {} of the table", schema.version));
        return Ok(None);
    }
    let mut rows = Rows::new(record, &place.table, schema);
    let mut statistics = Statistics::new(metadata.metadata(), &expected, record, filters);
    let batch_rows = rows_at_once(metadata.metadata(), BATCH_BYTES, BATCH_ROWS);
    for group in 0..metadata.metadata().num_row_groups() {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(batch_rows)
            .build()?;
        statistics.begin_group(group);
        for batch in reader {
            let batch = batch?;
            rows.add(&batch, faults);
            statistics.add(&batch);
            keys(&batch, schema)?;
        }
        statistics.end_group();
    }
    statistics.end(faults);
    Ok(Some(rows.end(place, faults)))
}

fn check_footer(footer: &Footer, record: &BatchRecord, place: &Place, faults: &mut Faults) {
    let mut expect =
        |holds: bool, what: &str| faults.expect(holds, Invariant::Footers, || format!("its footer says {what}"));
    expect(footer.format_version <= FOOTER_FORMAT, "that a newer build has written it");
    expect(footer.table_id == place.place.scope.table, "that it is of another table");
    expect(footer.scope == place.place.scope_name(), "that it is another user's, or everybody's");
    expect(footer.batch_number == record.batch_number, "another number");
    expect(footer.kind == record.kind, "another kind");
    expect(footer.replaces == record.replaces, "that it has taken the place of other batches");
    expect(footer.schema_version == record.schema_version, "another version of the table's columns");
    let times = match record.kind {
        BatchKind::Bulk => (CommitTs::default(), CommitTs::default()),
        _ => (record.min_updated, record.max_updated),
    };
    expect((footer.min_updated, footer.max_updated) == times, "that its rows are of another time");
    expect(footer.as_of <= place.highest.updated, "that it was written after the last commit");
    let name = record.file_path.rsplit('/').next().unwrap_or_default();
    let in_name = paths::epoch_of_batch_name(name).flatten();
    expect(in_name.is_none_or(|epoch| epoch == footer.epoch), "another epoch than its name");
}

/// Whether a file has these columns: by name, number and type.
fn are_alike(found: &Schema, expected: &Schema) -> bool {
    let id = |schema: &Schema, at: usize| schema.field(at).metadata().get(PARQUET_FIELD_ID_META_KEY).cloned();
    found.fields().len() == expected.fields().len()
        && found.fields().iter().zip(expected.fields()).enumerate().all(|(at, (found_field, expected_field))| {
            found_field.name() == expected_field.name()
                && found_field.data_type().equals_datatype(expected_field.data_type())
                && id(found, at) == id(expected, at)
        })
}

/// The rows of a file, as they come.
struct Rows<'a> {
    record: &'a BatchRecord,
    /// Columns without NULL.
    required: Vec<&'a str>,
    versions: Versions,
    wrong: BTreeSet<&'static str>,
    nulls: BTreeSet<String>,
}

impl<'a> Rows<'a> {
    fn new(record: &'a BatchRecord, table: &TableRecord, schema: &'a TableSchema) -> Self {
        // Older versions of rows are in files, too, from when a column that is NOT NULL now was not.
        let was_required = |column: &Column| {
            let until = table.schemas.iter().filter(|older| older.version <= schema.version);
            until.flat_map(|older| &older.columns).all(|older| older.id != column.id || !older.nullable)
        };
        let required = schema.columns.iter().filter(|column| was_required(column)).map(|column| column.name.as_str());
        let (versions, wrong, nulls) = Default::default();
        Self { record, required: required.collect(), versions, wrong, nulls }
    }

    fn add(&mut self, batch: &RecordBatch, faults: &mut Faults) {
        let (Some(ids), Some(deleted)) = (batch.column_by_name(ID), batch.column_by_name(DELETED)) else {
            faults.add(Invariant::Rows, "it has no system columns");
            return;
        };
        if ids.null_count() + deleted.null_count() > 0 {
            self.wrong.insert("a row has no id, or is neither deleted nor not");
        }
        match (batch.column_by_name(UPDATED), self.record.updated_of_all()) {
            (Some(updated), None) => {
                self.versions.updated.extend_from_slice(updated.as_primitive::<TimestampNanosecondType>().values());
            }
            (_, of_all) => {
                let (rows, of_all) = (self.versions.updated.len() + batch.num_rows(), of_all.unwrap_or_default());
                self.versions.updated.resize(rows, of_all.get());
            }
        }
        let deleted = deleted.as_boolean();
        self.versions.ids.extend_from_slice(ids.as_primitive::<Int64Type>().values());
        self.versions.deleted.extend(deleted.iter().map(|deleted| deleted == Some(true)));
        self.check_nulls(batch, deleted);
    }

    /// A tombstone has no values; other rows have those that they must have.
    fn check_nulls(&mut self, batch: &RecordBatch, deleted: &BooleanArray) {
        let tombstones = deleted.true_count();
        for name in &self.required {
            let Some(column) = batch.column_by_name(name) else { continue };
            if column.null_count() != tombstones {
                self.nulls.insert((*name).to_owned());
            }
        }
    }

    fn end(self, place: &Place, faults: &mut Faults) -> Versions {
        let Self { record, versions, wrong, nulls, .. } = self;
        let count = versions.ids.len() as u64;
        faults.expect(count == record.row_count, Invariant::Files, || {
            format!("it has {count} rows, not {}", record.row_count)
        });
        let mut expect = |holds: bool, what: &str| faults.expect(holds, Invariant::Rows, || what.to_owned());
        wrong.into_iter().for_each(|what| expect(false, what));
        for name in nulls {
            expect(false, &format!("column '{name}' is NULL where it may not be, or has values in a deleted row"));
        }
        expect(is_in_order(&versions, record.kind), "its rows are not in order of their ids, each once");
        let tombstones = versions.deleted.iter().filter(|deleted| **deleted).count() as u64;
        expect(tombstones == record.tombstones, "the number of deleted rows in it is another");
        let times = (versions.updated.iter().min().copied(), versions.updated.iter().max().copied());
        expect(
            times == (Some(record.min_updated.get()), Some(record.max_updated.get())),
            "its rows are of another time",
        );
        let highest = versions.ids.iter().map(|id| tick_of(RowId::stored(*id))).max();
        faults.expect(highest.is_none_or(|tick| tick <= place.highest.id_tick), Invariant::Ids, || {
            "it has a row id above the highest one that was given out".to_owned()
        });
        versions
    }
}

/// By id, each once; in an archive each as often as it has versions, newest first.
fn is_in_order(versions: &Versions, kind: BatchKind) -> bool {
    let keys = versions.ids.iter().zip(&versions.updated);
    let mut pairs = keys.clone().zip(keys.skip(1));
    pairs.all(|((id, updated), (next, later))| match kind {
        BatchKind::Archive => (id, std::cmp::Reverse(updated)) < (next, std::cmp::Reverse(later)),
        _ => id < next,
    })
}
