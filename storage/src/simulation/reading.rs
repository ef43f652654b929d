//! Reading a scope in three ways: as queries do, from the manifest alone, and from all files without their masks.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringBitmap;

use super::model::Rows;
use crate::commit::Location;
use crate::delete_vector;
use crate::hot::{HotCursor, Versions};
use crate::keys::{Generation, Scope};
use crate::manifest::Manifest;
use crate::records::{BatchKind, BatchRecord, BatchStatus};
use crate::row_codec::RowLayout;
use crate::snapshot::Snapshot;

/// A row version and where it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) id: i64,
    pub(super) updated: i64,
    pub(super) value: Option<i64>,
    pub(super) location: Location,
}

/// What queries read.
pub(super) fn live(snapshot: &Snapshot, scope: Scope, layout: &RowLayout, objects: &Path) -> Vec<Found> {
    let view = snapshot.scope(scope).unwrap();
    let mut found = Vec::new();
    for record in view.files.iter() {
        assert_ne!(record.status, BatchStatus::Archived);
        let mask = view.masks.get(&record.batch_number);
        let unmasked = |row: &Found| match row.location {
            Location::Cold(_, position) => mask.is_none_or(|mask| !mask.contains(position)),
            Location::Hot(_) => true,
        };
        let rows: Vec<Found> = file(record, objects).into_iter().filter(unmasked).collect();
        assert!(rows.iter().all(|row| row.value.is_some()), "batch {} shows a tombstone", record.batch_number);
        found.extend(rows);
    }
    found.extend(hot(snapshot, scope, view.generations, Versions::Live, layout));
    found
}

/// The rows by `_id`, each of which must be there once.
pub(super) fn by_id(found: &[Found]) -> Rows {
    let rows: Rows = found.iter().map(|row| (row.id, (row.updated, row.value.unwrap_or(i64::MIN)))).collect();
    assert_eq!(rows.len(), found.len(), "a row is there twice");
    rows
}

/// The newest version of each row in all files that nothing has replaced, and among the hot rows.
pub(super) fn resolved(snapshot: &Snapshot, scope: Scope, layout: &RowLayout, objects: &Path) -> Rows {
    let records = snapshot.records(scope).unwrap();
    let read: Vec<&BatchRecord> = records.iter().filter(|record| record.kind != BatchKind::Archive).collect();
    let replaced: HashSet<_> = read.iter().flat_map(|record| &record.replaces).collect();
    let files = read.iter().filter(|record| !replaced.contains(&record.batch_number));
    let mut versions: Vec<Found> = files.flat_map(|record| file(record, objects)).collect();
    let generations = snapshot.scope(scope).unwrap().generations;
    versions.extend(hot(snapshot, scope, generations, Versions::All, layout));
    let mut newest: BTreeMap<i64, Found> = BTreeMap::new();
    for version in versions {
        let known = newest.entry(version.id).or_insert(version);
        if version.updated > known.updated {
            *known = version;
        }
    }
    newest.into_values().filter_map(|row| Some((row.id, (row.updated, row.value?)))).collect()
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

fn file(record: &BatchRecord, objects: &Path) -> Vec<Found> {
    let path = objects.join(&record.file_path);
    let opened = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(opened).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let [ids, values, updated, deleted] = batch.columns() else { panic!("the file has other columns") };
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

fn hot(
    snapshot: &Snapshot,
    scope: Scope,
    generations: Vec<Generation>,
    versions: Versions,
    layout: &RowLayout,
) -> Vec<Found> {
    let mut rows = Vec::new();
    let mut cursor = HotCursor::new(scope, generations, versions);
    while let Some(chunk) = snapshot.hot_chunk(&mut cursor, 7).unwrap() {
        let values = chunk.decode(layout, &[0]).unwrap();
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
