//! What is sound has no finding; each damage is found as what it is, and only where it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use roaring::RoaringBitmap;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::audit::{AuditEntry, AuditParty};
use crate::catalog::{CatalogChange, UserRecord};
use crate::clock::ManualClock;
use crate::commit::Commit;
use crate::delete_log::{self, MaskedRow};
use crate::delete_vector;
use crate::error::StorageError;
use crate::keys::{BatchNumber, Generation, Owner, RowKey, TableId, batch_key, header_key};
use crate::rocks::Rocks;
use crate::row_codec::encode_tombstone;
use crate::steps::NoWait;
use crate::system_columns::{CommitTs, RowId};
use crate::test_table::{TestDir, TestTable};

/// The user who owns what tests make.
pub(crate) fn root() -> UserRecord {
    UserRecord {
        number: 0,
        name: "root".into(),
        role: "system".into(),
        password_hash: "hash".into(),
        created_at_ns: 0,
        deleted_at_ns: None,
    }
}

/// What a check says, once nobody has the directory open any more.
pub(crate) fn report(config: &StorageConfig, clock: &Arc<ManualClock>) -> Report {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut tries = 0;
    loop {
        tries += 1;
        let is_job = |json: &[u8]| serde_json::from_slice::<Value>(json).map(drop).map_err(|e| e.to_string());
        match runtime.block_on(check(config, &clock, &Progress::default(), is_job)) {
            // In a test a process does not die: its threads may still be at work.
            Err(StorageError::InUse(_) | StorageError::Rocks(_)) if tries < 2000 => {
                std::thread::sleep(Duration::from_millis(2))
            }
            report => return report.unwrap(),
        }
    }
}

/// A data directory with a table: batch 1 with ids masked by batch 2, batch 2 with a tombstone, hot rows, a hot tombstone of a
/// row of batch 2, and three entries in the audit log.
struct Prepared {
    dir: TestDir,
    scope: Scope,
}

async fn prepared() -> Prepared {
    let dir = TestDir::new();
    let table = dir.table().await;
    let entry = AuditEntry {
        at: 0,
        actor: AuditParty { user: "root".into(), role: None },
        subject: None,
        origin: "sql".into(),
        action: "TEST".into(),
        target: None,
        rows: None,
        outcome: "committed".into(),
        session: None,
        peer: None,
        fingerprint: None,
    };
    let changes = vec![CatalogChange::CreateUser(root())];
    let commit = Commit::of_catalog(table.store.snapshot(), changes, vec![entry.clone(), entry.clone(), entry]);
    table.store.commit(commit).await.unwrap();
    table.insert(&[1, 2, 3, 4, 5]).await;
    table.flush().await.unwrap();
    table.delete(2).await;
    table.insert(&[6, 7, 8]).await;
    table.flush().await.unwrap();
    table.delete(7).await;
    table.insert(&[9, 10]).await;
    table.store.put_job(1, b"{}", true).unwrap();
    table.store.close().await;
    Prepared { scope: table.scope, dir }
}

/// A copy of it, to be damaged.
struct Copy {
    _dir: TempDir,
    config: StorageConfig,
    scope: Scope,
}

impl Copy {
    fn of(prepared: &Prepared) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        copy_folder(&prepared.dir.config.data_dir, &data_dir);
        let config = StorageConfig { data_dir, ..prepared.dir.config.clone() };
        Self { _dir: dir, config, scope: prepared.scope }
    }

    fn rocks(&self) -> Rocks {
        Rocks::open(&self.config.data_dir.join("rocksdb"), true).unwrap()
    }

    fn put(&self, family: Family, key: &[u8], value: &[u8]) {
        self.rocks().put_cached(family, key, value).unwrap();
    }

    /// Changes the record of a batch, or with number 0 the header.
    fn edit(&self, number: u64, change: impl Fn(&mut Value)) {
        let (rocks, scope) = (self.rocks(), self.scope);
        let key = match number {
            0 => header_key(scope).to_vec(),
            number => batch_key(scope, BatchNumber(number)).to_vec(),
        };
        let mut record = serde_json::from_slice(&rocks.get(Family::Batches, &key).unwrap().unwrap()).unwrap();
        change(&mut record);
        rocks.put_cached(Family::Batches, &key, record.to_string().as_bytes()).unwrap();
    }

    fn record(&self, number: u64) -> Value {
        let json = self.rocks().get(Family::Batches, &batch_key(self.scope, BatchNumber(number))).unwrap();
        serde_json::from_slice(&json.unwrap()).unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.config.data_dir.join("objects/default/t/shared")
    }

    fn file(&self, ends_with: &str) -> PathBuf {
        let files = fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.to_str().unwrap().contains(ends_with)).expect(ends_with)
    }

    fn flip(&self, file: &str, at: usize) {
        let path = self.file(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }

    /// The delete log, by key.
    fn log(&self) -> Vec<(Vec<u8>, Vec<MaskedRow>)> {
        let mut log = Vec::new();
        self.rocks()
            .scan_prefix(Family::DeleteLog, &self.scope.encode(), |key, entry| {
                log.push((key.to_vec(), delete_log::decode(entry).unwrap()));
                Ok(())
            })
            .unwrap();
        log
    }

    /// The ids of a file's rows.
    fn id(&self, number: u64, bound: &str) -> i64 {
        self.record(number)["column_min_max"][crate::system_columns::ID][bound].as_i64().unwrap()
    }

    fn put_row(&self, scope: Scope, generation: u32, id: i64, updated: i64, value: &[u8]) {
        let (id, updated) = (RowId::stored(id), CommitTs::stored(updated));
        let key = RowKey { scope, generation: Generation(generation), id, updated }.encode();
        self.put(Family::Rows, &key, value);
    }

    /// The generation and time of the newest hot row.
    fn newest_hot(&self) -> (u32, i64) {
        let mut newest = (0, 0);
        self.rocks()
            .scan_prefix(Family::Rows, &self.scope.encode(), |key, _| {
                let key = RowKey::decode(key).unwrap();
                newest = newest.max((key.generation.0, key.updated.get()));
                Ok(())
            })
            .unwrap();
        newest
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

/// Every file below a folder, with its content.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_sound_has_no_finding_and_is_not_changed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let prepared = runtime.block_on(prepared());
    let before = contents(&prepared.dir.config.data_dir);
    let report = report(&prepared.dir.config, &prepared.dir.clock);
    assert!(report.clean, "{:#?}", report.findings);
    assert_eq!(report.notes, []);
    let Totals { tables, scopes, files, cold_rows, hot_rows, bytes } = report.read;
    assert_eq!((tables, scopes, files, cold_rows, hot_rows), (1, 1, 2, 9, 3));
    assert!(bytes > 1000);
    let after = contents(&prepared.dir.config.data_dir);
    assert!(before == after, "a check has changed the data directory");
}

#[test]
fn a_directory_that_is_open_or_is_none_is_not_looked_at() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = TestDir::new();
    let look = || {
        let clock: Arc<dyn Clock> = Arc::clone(&dir.clock) as _;
        runtime.block_on(check(&dir.config, &clock, &Progress::default(), |_| Ok(()))).map(drop)
    };
    let error = look().unwrap_err();
    assert!(error.to_string().contains("no data directory of SeracDB"), "{error}");
    assert!(!dir.config.data_dir.exists());
    let store = runtime.block_on(dir.open(Arc::new(NoWait)));
    assert!(matches!(look(), Err(StorageError::InUse(_))));
    runtime.block_on(store.close());
    drop(store);
    assert!(report(&dir.config, &dir.clock).clean);
    fs::remove_dir_all(dir.objects()).unwrap();
    let error = look().unwrap_err();
    assert!(error.to_string().contains("is not there: restore it or mount it"), "{error}");
}

/// What is done to a copy, by name, and what has to be found; nothing else may be, but what the second list says.
type Damage = (&'static str, Invariant, &'static [Invariant], fn(&Copy));

const DAMAGES: &[Damage] = &[
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
        copy.rocks().put_root(crate::commit::SequenceRecord::KEY, &[1, 2]).unwrap();
    }),
    (
        "the sequence went back",
        Invariant::Timestamps,
        &[Invariant::Ids, Invariant::Footers, Invariant::Catalog],
        |copy| {
            let zero = crate::commit::SequenceRecord::default().encode();
            copy.rocks().put_root(crate::commit::SequenceRecord::KEY, &zero).unwrap();
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

#[test]
fn every_damage_is_found_as_what_it_is() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let prepared = runtime.block_on(prepared());
    let mut wrong = Vec::new();
    for (name, invariant, also, damage) in DAMAGES {
        let copy = Copy::of(&prepared);
        damage(&copy);
        let findings = report(&copy.config, &prepared.dir.clock).findings;
        let is_expected = |finding: &Finding| finding.invariant == *invariant || also.contains(&finding.invariant);
        if !findings.iter().any(|finding| finding.invariant == *invariant) || !findings.iter().all(is_expected) {
            wrong.push(format!("{name}: expected {invariant:?}, found {findings:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(DAMAGES.len() > 40);
}

#[test]
fn what_a_crash_may_leave_is_a_note() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let prepared = runtime.block_on(prepared());
    let copy = Copy::of(&prepared);
    fs::write(copy.folder().join("batch-0009.parquet"), "left").unwrap();
    fs::write(copy.folder().join("manifest.0b0c9b5e-3f0e-4b7e-8a53-0d9f54f0a7c1.tmp"), "left").unwrap();
    fs::write(copy.folder().join("notes.txt"), "a user's").unwrap();
    copy.edit(0, |header| header["version"] = json!(header["version"].as_u64().unwrap() + 1));
    let report = report(&copy.config, &prepared.dir.clock);
    assert!(report.clean, "{:#?}", report.findings);
    let mut about: Vec<About> = report.notes.iter().map(|note| note.about).collect();
    about.sort_by_key(|about| format!("{about:?}"));
    assert_eq!(about, [About::Foreign, About::Orphan, About::Orphan, About::Unfinished]);
}

#[tokio::test]
async fn the_exported_catalog_of_a_shared_store_is_looked_at() {
    let mut dir = TestDir::new();
    let shared = tempfile::tempdir().unwrap();
    dir.config.object_store = Some(url::Url::from_directory_path(shared.path()).unwrap().to_string());
    let store = dir.open(Arc::new(NoWait)).await;
    let create = Commit::of_catalog(store.snapshot(), vec![CatalogChange::CreateUser(root())], vec![]);
    store.commit(create).await.unwrap();
    let table = TestTable::named(Arc::clone(&store), "t", shared.path().to_owned()).await;
    table.insert(&[1, 2]).await;
    table.flush().await.unwrap();
    store.close().await;
    drop((table, store));
    let of = |config: &StorageConfig| {
        let (config, clock) = (config.clone(), Arc::clone(&dir.clock));
        std::thread::spawn(move || report(&config, &clock)).join().unwrap()
    };
    let sound = of(&dir.config);
    assert!(sound.clean && sound.notes.is_empty(), "{sound:#?}");
    let path = shared.path().join("_seracdb/catalog-e1.json");
    let exported: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let edited = |part: &str| {
        let mut edited = exported.clone();
        edited[part] = json!([]);
        fs::write(&path, edited.to_string()).unwrap();
        of(&dir.config)
    };
    assert_eq!(edited("users").notes[0].about, About::Unfinished);
    assert_eq!(edited("tables").findings[0].invariant, Invariant::CatalogExport);
    fs::remove_file(&path).unwrap();
    assert_eq!(of(&dir.config).findings[0].invariant, Invariant::CatalogExport);
    let owner = shared.path().join("_seracdb/owner.json");
    let text = fs::read_to_string(&owner).unwrap();
    let mut other: Value = serde_json::from_str(&text).unwrap();
    other["data_dir_id"] = json!("another");
    fs::write(&owner, other.to_string()).unwrap();
    assert!(of(&dir.config).findings.iter().any(|finding| finding.invariant == Invariant::Ownership));
}
