//! Damages, each with what has to be found of it.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use roaring::RoaringBitmap;
use serde_json::{Value, json};

use super::super::Invariant;
use super::Copy;
use crate::commit_records::SequenceRecord;
use crate::delete_log::{self, MaskedRow};
use crate::delete_vector;
use crate::keys::{BatchNumber, Owner, Scope, TableId, batch_key};
use crate::rocks::Family;
use crate::row_codec::encode_tombstone;
use crate::system_columns::RowId;

/// What is done to a copy, by name, and what has to be found; nothing else may be, but what the second list says.
pub(super) type Damage = (&'static str, Invariant, &'static [Invariant], fn(&Copy));

pub(super) const DAMAGES: &[Damage] = &[
    ("a file is gone", Invariant::Files, &[], |copy| fs::remove_file(copy.file("batch-0001.parquet")).unwrap()),
    ("a byte of a file is another", Invariant::Files, &[], |copy| copy.flip("batch-0001.parquet", 60)),
    ("a file is cut off", Invariant::Files, &[], |copy| {
        let file = File::options().write(true).open(copy.file("batch-0002.parquet")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }),
    ("a file is another batch's", Invariant::Files, &[], |copy| {
        fs::copy(copy.file("batch-0001.parquet"), copy.file("batch-0002.parquet")).unwrap();
    }),
    ("a delete vector is gone", Invariant::Files, &[], |copy| fs::remove_file(copy.file("deletes-")).unwrap()),
    ("a byte of a delete vector is another", Invariant::Files, &[], |copy| copy.flip("deletes-", 9)),
    ("a delete vector leaves out another row", Invariant::FilesAlone, &[], |copy| {
        let vector: RoaringBitmap = [3].into_iter().collect();
        fs::write(copy.file("batch-0001.deletes-"), delete_vector::encode(&vector)).unwrap();
    }),
    ("a Bloom filter is gone", Invariant::Files, &[], |copy| fs::remove_file(copy.file("batch-0001.bloom")).unwrap()),
    ("a byte of a Bloom filter is another", Invariant::Filters, &[], |copy| copy.flip("batch-0001.bloom", 30)),
    ("a Bloom filter of other values", Invariant::Filters, &[], |copy| {
        let bloom = copy.record(2)["bloom"].clone();
        fs::copy(copy.file("batch-0002.bloom"), copy.file("batch-0001.bloom")).unwrap();
        copy.edit(1, |record| {
            record["bloom"]["size_bytes"] = bloom["size_bytes"].clone();
            record["bloom"]["checksum"] = bloom["checksum"].clone();
        });
        edit_manifest(copy, |manifest| manifest["batches"][0] = copy.record(1));
    }),
    ("the manifest is gone", Invariant::Manifest, &[], |copy| fs::remove_file(copy.file("manifest.json")).unwrap()),
    ("the manifest is no JSON", Invariant::Manifest, &[], |copy| fs::write(copy.file("manifest.json"), "{").unwrap()),
    ("the manifest shows another number of rows", Invariant::Manifest, &[], |copy| {
        edit_manifest(copy, |manifest| manifest["batches"][0]["row_count"] = json!(4));
    }),
    ("the manifest shows an earlier version", Invariant::Manifest, &[], |copy| {
        edit_manifest(copy, |manifest| manifest["version"] = json!(1));
    }),
    ("the manifest is another table's", Invariant::Manifest, &[], |copy| {
        edit_manifest(copy, |manifest| manifest["table_id"] = json!(77));
    }),
    ("the delete log has lost a file's entries", Invariant::VisibleOnce, &[], |copy| {
        for (key, _) in copy.log().into_iter().filter(|(key, _)| key[20..] == 1u64.to_be_bytes()) {
            copy.rocks().remove_cached(Family::DeleteLog, &key).unwrap();
        }
    }),
    ("the deletion in a file is not heeded", Invariant::DeletedStays, &[], |copy| {
        let is_tombstone = |row: &MaskedRow| row.updated == row.superseded_by;
        for (key, rows) in copy.log().into_iter().filter(|(_, rows)| rows.iter().any(is_tombstone)) {
            let others = rows.into_iter().filter(|row| !is_tombstone(row)).collect();
            copy.put(Family::DeleteLog, &key, &delete_log::encode(others));
        }
    }),
    ("the delete log leaves out a row without a successor", Invariant::VisibleOnce, &[Invariant::DeleteLog], |copy| {
        let (key, mut rows) = copy.log().remove(0);
        rows.push(MaskedRow { position: 4, ..rows[0] });
        copy.put(Family::DeleteLog, &key, &delete_log::encode(rows));
    }),
    ("the delete log names another row", Invariant::DeleteLog, &[], |copy| {
        let (key, mut rows) = copy.log().remove(0);
        rows[0].id = RowId::stored(rows[0].id.get() + 1);
        copy.put(Family::DeleteLog, &key, &delete_log::encode(rows));
    }),
    ("the delete log names a batch that there is not", Invariant::DeleteLog, &[], |copy| {
        let (mut key, rows) = copy.log().remove(0);
        key[27] = 99;
        copy.put(Family::DeleteLog, &key, &delete_log::encode(rows));
    }),
    ("an entry of the delete log is damaged", Invariant::Readable, &[], |copy| {
        copy.put(Family::DeleteLog, &copy.log()[0].0, b"entry");
    }),
    ("a row is hot and in a file", Invariant::VisibleOnce, &[], |copy| {
        let (generation, updated) = copy.newest_hot();
        copy.put_row(copy.scope, generation, copy.id(1, "max"), updated, &encode_tombstone(1));
    }),
    ("a hot row cannot be read", Invariant::Readable, &[], |copy| {
        let (generation, updated) = copy.newest_hot();
        copy.put_row(copy.scope, generation, copy.id(2, "max") + 1, updated, b"row");
    }),
    ("a hot row is cut off", Invariant::Readable, &[], |copy| {
        let (generation, updated) = copy.newest_hot();
        copy.put_row(copy.scope, generation, copy.id(2, "max") + 1, updated, &[0x10, 1, 0, 0, 0, 0, 7]);
    }),
    ("a hot row is of the future", Invariant::Timestamps, &[], |copy| {
        let (generation, updated) = copy.newest_hot();
        copy.put_row(copy.scope, generation, copy.id(2, "max") + 1, updated + 1_000_000_000, &encode_tombstone(1));
    }),
    ("a hot row is older than what is flushed", Invariant::Timestamps, &[], |copy| {
        copy.put_row(copy.scope, copy.newest_hot().0, copy.id(2, "max") + 1, 5, &encode_tombstone(1));
    }),
    ("a hot row has an id that was never given out", Invariant::Ids, &[], |copy| {
        let (generation, updated) = copy.newest_hot();
        copy.put_row(copy.scope, generation, i64::MAX, updated, &encode_tombstone(1));
    }),
    ("a hot row is of a generation that there is not", Invariant::Records, &[], |copy| {
        let (generation, updated) = copy.newest_hot();
        copy.put_row(copy.scope, generation + 5, copy.id(2, "max") + 1, updated, &encode_tombstone(1));
    }),
    ("a hot row is of no table", Invariant::Tables, &[], |copy| {
        copy.put_row(Scope::shared(TableId(77)), 1, 1, 1, &encode_tombstone(1));
    }),
    ("a user's row is in a shared table", Invariant::Owners, &[], |copy| {
        copy.put_row(Scope { owner: Owner(7), ..copy.scope }, 1, 1, 1, &encode_tombstone(1));
    }),
    ("bounds are too narrow", Invariant::Statistics, &[Invariant::Manifest], |copy| {
        copy.edit(1, |record| record["column_min_max"]["v"]["max"] = json!(4));
    }),
    ("bounds are not values", Invariant::Statistics, &[Invariant::Manifest], |copy| {
        copy.edit(1, |record| record["column_min_max"]["v"]["max"] = json!(6));
    }),
    ("the number of NULLs is another", Invariant::Statistics, &[Invariant::Manifest], |copy| {
        copy.edit(1, |record| record["column_min_max"]["v"]["null_count"] = json!(1));
    }),
    ("a record says another kind", Invariant::Footers, &[Invariant::Manifest], |copy| {
        copy.edit(2, |record| record["kind"] = json!("compact"));
    }),
    ("a record says another number of rows", Invariant::Files, &[Invariant::Manifest], |copy| {
        copy.edit(1, |record| record["row_count"] = json!(6));
    }),
    ("a record says another time", Invariant::Rows, &[Invariant::Manifest, Invariant::Footers], |copy| {
        copy.edit(1, |record| record["min_updated"] = json!(1));
    }),
    (
        "a record is gone",
        Invariant::VisibleOnce,
        &[Invariant::Manifest, Invariant::FilesAlone, Invariant::DeleteLog],
        |copy| {
            // The row of batch 1 that a tombstone of batch 2 deletes has no newer version left.
            copy.rocks().remove_cached(Family::Batches, &batch_key(copy.scope, BatchNumber(2))).unwrap();
        },
    ),
    ("a record is no JSON", Invariant::Readable, &[Invariant::Manifest], |copy| {
        copy.put(Family::Batches, &batch_key(copy.scope, BatchNumber(1)), b"{");
    }),
    ("a number would be used twice", Invariant::Records, &[], |copy| {
        copy.edit(0, |header| header["next_batch"] = json!(2))
    }),
    ("flushed rows are still hot", Invariant::Records, &[], |copy| {
        copy.edit(0, |header| header["draining"] = json!([1]))
    }),
    ("an entry of the audit log was removed", Invariant::Audit, &[], |copy| {
        copy.rocks().remove_cached(Family::Audit, &2u64.to_be_bytes()).unwrap();
    }),
    ("an entry of the audit log is no JSON", Invariant::Readable, &[], |copy| {
        copy.put(Family::Audit, &2u64.to_be_bytes(), b"{")
    }),
    ("a table is in no namespace", Invariant::Catalog, &[], |copy| {
        let key = format!("t/{}", copy.scope.table.0);
        let mut table: Value =
            serde_json::from_slice(&copy.rocks().get(Family::Catalog, key.as_bytes()).unwrap().unwrap()).unwrap();
        table["namespace"] = json!("gone");
        copy.put(Family::Catalog, key.as_bytes(), table.to_string().as_bytes());
    }),
    ("a user's record is at another's name", Invariant::Catalog, &[], |copy| {
        let user = copy.rocks().get(Family::Users, b"root").unwrap().unwrap();
        copy.put(Family::Users, b"toor", &user);
    }),
    ("a job is no JSON", Invariant::Jobs, &[], |copy| copy.put(Family::Jobs, &2u64.to_be_bytes(), b"{")),
    ("a name of a commit is cut off", Invariant::Readable, &[], |copy| {
        copy.put(Family::Transactions, b"name", b"value")
    }),
    ("the sequence is cut off", Invariant::Readable, &[], |copy| {
        copy.rocks().put_root(SequenceRecord::KEY, &[1, 2]).unwrap();
    }),
    (
        "the sequence went back",
        Invariant::Timestamps,
        &[Invariant::Ids, Invariant::Footers, Invariant::Catalog],
        |copy| {
            let zero = SequenceRecord::default().encode();
            copy.rocks().put_root(SequenceRecord::KEY, &zero).unwrap();
        },
    ),
    ("a file that nothing names is old", Invariant::Orphans, &[], |copy| {
        let orphan = copy.folder().join("batch-0009.parquet");
        fs::write(&orphan, "left").unwrap();
        let file = File::options().write(true).open(orphan).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(9)).unwrap();
    }),
];

fn edit_manifest(copy: &Copy, change: impl Fn(&mut Value)) {
    let path = copy.file("manifest.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}
