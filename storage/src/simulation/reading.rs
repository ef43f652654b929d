//! Reading a scope in three ways: as queries do, from the manifest alone, and from all files without their masks.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringBitmap;

use super::model::Rows;
use crate::commit::Location;
use crate::delete_vector;
use crate::evolution::RowReader;
use crate::hot::{HotCursor, Versions};
use crate::keys::{Generation, Scope};
use crate::manifest::Manifest;
use crate::records::{BatchRecord, BatchStatus};
use crate::recovery::Recovered;
use crate::snapshot::Snapshot;
use crate::system_columns::updated_array;

/// A row version and where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) id: i64,
    pub(crate) updated: i64,
    pub(crate) value: Option<i64>,
    pub(crate) location: Location,
}

/// What queries read.
pub(crate) fn live(snapshot: &Snapshot, scope: Scope, objects: &Path) -> Vec<Found> {
    let view = snapshot.scope(scope).unwrap();
    let mut found = Vec::new();
    for record in view.files.iter() {
        assert!(record.status.is_read());
        let mask = view.masks.get(&record.batch_number);
        let unmasked = |row: &Found| match row.location {
            Location::Cold(_, position) => mask.is_none_or(|mask| !mask.contains(position)),
            Location::Hot(_) => true,
        };
        let rows: Vec<Found> = file(record, objects).into_iter().filter(unmasked).collect();
        assert!(rows.iter().all(|row| row.value.is_some()), "batch {} shows a tombstone", record.batch_number);
        found.extend(rows);
    }
    found.extend(hot(snapshot, scope, view.generations, Versions::Live));
    found
}

/// The rows by `_id`, each of which must be there once.
pub(crate) fn by_id(found: &[Found]) -> Rows {
    let rows: Rows = found.iter().map(|row| (row.id, (row.updated, row.value.unwrap_or(i64::MIN)))).collect();
    assert_eq!(rows.len(), found.len(), "a row is there twice");
    rows
}

/// What whoever has lost the records reads.
pub(super) fn recovered(recovered: &Recovered, objects: &Path) -> Option<Rows> {
    // Before any is read: an orphan may be removed meanwhile.
    let opened = recovered.files.iter().map(|record| Some((record, File::open(objects.join(&record.file_path)).ok()?)));
    let opened = opened.collect::<Option<Vec<_>>>()?;
    let mut found = Vec::new();
    for (record, opened) in opened {
        let mask = recovered.masks.get(&record.batch_number);
        found.extend(rows_of(record, opened).into_iter().filter(|row| match row.location {
            Location::Cold(_, position) => mask.is_none_or(|mask| !mask.contains(position)),
            Location::Hot(_) => true,
        }));
    }
    assert!(found.iter().all(|row| row.value.is_some()), "a tombstone is shown");
    Some(by_id(&found))
}

/// What the manifest and its files say; their lengths and row counts are those of the manifest.
pub(super) fn exported(manifest: &Manifest, objects: &Path) -> Rows {
    let mut found = Vec::new();
    for record in &manifest.batches {
        let rows = file(record, objects);
        assert_eq!(rows.len() as u64, record.row_count);
        assert_eq!(std::fs::metadata(objects.join(&record.file_path)).unwrap().len(), record.size_bytes);
        if record.status == BatchStatus::Archived {
            continue;
        }
        let vector = match &record.deletes {
            Some(deletes) => delete_vector::decode(&std::fs::read(objects.join(&deletes.path)).unwrap()).unwrap(),
            None => RoaringBitmap::new(),
        };
        assert_eq!(vector.len(), record.deletes.as_ref().map_or(0, |deletes| deletes.cardinality));
        found.extend(rows.into_iter().filter(|row| match row.location {
            Location::Cold(_, position) => !vector.contains(position),
            Location::Hot(_) => true,
        }));
    }
    assert!(found.iter().all(|row| row.value.is_some()), "the manifest shows a tombstone");
    by_id(&found)
}

/// The row ids of a file, by position.
pub(super) fn ids(record: &BatchRecord, objects: &Path) -> Vec<i64> {
    file(record, objects).into_iter().map(|row| row.id).collect()
}

fn file(record: &BatchRecord, objects: &Path) -> Vec<Found> {
    let path = objects.join(&record.file_path);
    rows_of(record, File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn rows_of(record: &BatchRecord, opened: File) -> Vec<Found> {
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(opened).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let of_all = record.updated_of_all().map(|of_all| updated_array(vec![of_all.get(); batch.num_rows()]));
        let (ids, values, updated, deleted) = match (batch.columns(), &of_all) {
            ([ids, values, updated, deleted], None) => (ids, values, updated, deleted),
            ([ids, values, deleted], Some(updated)) => (ids, values, updated, deleted),
            _ => panic!("the file has other columns"),
        };
        for at in 0..batch.num_rows() {
            let deleted = deleted.as_boolean().value(at);
            assert!(deleted == values.is_null(at));
            rows.push(Found {
                id: ids.as_primitive::<Int64Type>().value(at),
                updated: updated.as_primitive::<TimestampNanosecondType>().value(at),
                value: (!deleted).then(|| values.as_primitive::<Int64Type>().value(at)),
                location: Location::Cold(record.batch_number, rows.len() as u32),
            });
        }
    }
    rows
}

fn hot(snapshot: &Snapshot, scope: Scope, generations: Vec<Generation>, versions: Versions) -> Vec<Found> {
    let reader = RowReader::new(Arc::clone(snapshot.catalog().table_by_id(scope.table).unwrap())).unwrap();
    let mut rows = Vec::new();
    let mut cursor = HotCursor::new(scope, generations, versions);
    while let Some(chunk) = snapshot.hot_chunk(&mut cursor, 7).unwrap() {
        let values = chunk.decode(&reader, &[0]).unwrap();
        for at in 0..chunk.len() {
            rows.push(Found {
                id: chunk.ids[at],
                updated: chunk.updated[at],
                value: (!chunk.deleted[at]).then(|| values[0].as_primitive::<Int64Type>().value(at)),
                location: Location::Hot(Generation(chunk.generations[at])),
            });
        }
    }
    rows
}
