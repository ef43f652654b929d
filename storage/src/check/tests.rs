//! What is sound has no finding; each damage is found as what it is, and only where it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

mod damages;

use super::*;
use crate::audit::{AuditEntry, AuditParty};
use crate::catalog::{CatalogChange, UserRecord};
use crate::clock::ManualClock;
use crate::commit::Commit;
use crate::delete_log::{self, MaskedRow};
use crate::error::StorageError;
use crate::keys::{BatchNumber, Generation, RowKey, batch_key, header_key};
use crate::rocks::Rocks;
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
        Rocks::open(&self.config.data_dir.join("rocksdb"), self.config.memory(), true).unwrap()
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

#[test]
fn every_damage_is_found_as_what_it_is() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let prepared = runtime.block_on(prepared());
    let mut wrong = Vec::new();
    for (name, invariant, also, damage) in damages::DAMAGES {
        let copy = Copy::of(&prepared);
        damage(&copy);
        let findings = report(&copy.config, &prepared.dir.clock).findings;
        let is_expected = |finding: &Finding| finding.invariant == *invariant || also.contains(&finding.invariant);
        if !findings.iter().any(|finding| finding.invariant == *invariant) || !findings.iter().all(is_expected) {
            wrong.push(format!("{name}: expected {invariant:?}, found {findings:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(damages::DAMAGES.len() > 40);
}

#[test]
fn the_key_index_is_held_against_the_rows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = TestDir::new();
    let scope = runtime.block_on(async {
        let table = dir.keyed_table().await;
        let create = Commit::of_catalog(table.store.snapshot(), vec![CatalogChange::CreateUser(root())], vec![]);
        table.store.commit(create).await.unwrap();
        table.insert(&[1, 2, 3]).await;
        table.flush().await.unwrap();
        table.delete(2).await;
        table.insert(&[2, 4]).await;
        table.delete(4).await;
        table.store.close().await;
        table.scope
    });
    let prepared = Prepared { scope, dir };
    let sound = report(&prepared.dir.config, &prepared.dir.clock);
    assert!(sound.clean, "{:#?}", sound.findings);
    let keys = |rocks: &Rocks| {
        let mut keys = Vec::new();
        let visit = |key: &[u8], id: &[u8]| {
            keys.push((key.to_vec(), id.to_vec()));
            Ok(())
        };
        rocks.scan_prefix(Family::Keys, &scope.encode(), visit).unwrap();
        keys
    };
    type Damage = fn(&Rocks, &[(Vec<u8>, Vec<u8>)]);
    let damages: [Damage; 4] = [
        |rocks, keys| rocks.remove_cached(Family::Keys, &keys[0].0).unwrap(),
        |rocks, keys| rocks.remove_cached(Family::Keys, &keys[1].0).unwrap(),
        |rocks, keys| rocks.put_cached(Family::Keys, &keys[1].0, &keys[2].1).unwrap(),
        |rocks, keys| rocks.put_cached(Family::Keys, &[keys[0].0.as_slice(), b"x"].concat(), &keys[0].1).unwrap(),
    ];
    for damage in damages {
        let copy = Copy::of(&prepared);
        let rocks = copy.rocks();
        let keys = keys(&rocks);
        assert_eq!(keys.len(), 3);
        damage(&rocks, &keys);
        drop(rocks);
        let found: Vec<Invariant> =
            report(&copy.config, &prepared.dir.clock).findings.iter().map(|finding| finding.invariant).collect();
        assert!(!found.is_empty() && found.iter().all(|found| *found == Invariant::UniqueKeys), "{found:?}");
    }
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
