//! A table of one BIGINT column in a store of its own, for tests of the storage.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field};
use object_store::ObjectStore;
use tempfile::TempDir;

use crate::catalog::{CatalogChange, DEFAULT_NAMESPACE, TableKind, TableRecord, UniqueRecord};
use crate::clock::ManualClock;
use crate::commit::{Commit, Expected, Location, ScopeWrite, Superseded, Values};
use crate::error::Result;
use crate::keys::{Scope, TableId};
use crate::records::BatchRecord;
use crate::row_codec::{RowLayout, encode_rows};
use crate::schema::TableSchema;
use crate::scope_place::ScopePlace;
use crate::simulation::reading;
use crate::steps::{NoWait, Pace};
use crate::store::{StorageConfig, Store};
use crate::system_columns::{CommitTs, RowId};
use crate::unique::{KeyEdits, KeyWrite, UniqueKey};

/// 2026-01-01.
const START_NS: i64 = 1_767_225_600_000_000_000;

/// A data directory that stores are opened on.
pub(crate) struct TestDir {
    dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) config: StorageConfig,
    pub(crate) bucket: Option<Arc<dyn ObjectStore>>,
}

/// A table in an open store.
pub(crate) struct TestTable {
    pub(crate) store: Arc<Store>,
    pub(crate) scope: Scope,
    layout: RowLayout,
    objects: PathBuf,
}

impl TestDir {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = StorageConfig { data_dir: dir.path().join("data"), ..StorageConfig::default() };
        config.compaction.automatic = false;
        config.orphan_grace_seconds = 0;
        Self { dir, clock: Arc::new(ManualClock::at_ns(START_NS)), config, bucket: None }
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.dir.path().join("data/objects")
    }

    /// Opens the store; the one of before may still be letting go of the directory.
    pub(crate) async fn open(&self, pace: Arc<dyn Pace>) -> Arc<Store> {
        let mut tries = 0;
        loop {
            tries += 1;
            let clock = Arc::clone(&self.clock);
            match Store::open_on(&self.config, clock, self.bucket.clone(), Arc::clone(&pace)).await {
                Ok(store) => return store,
                Err(error) if tries == 2000 => panic!("{error}: {error:?}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            }
        }
    }

    /// The table `t`, made when it is not there.
    pub(crate) async fn table(&self) -> TestTable {
        self.table_at(Arc::new(NoWait), "t").await
    }

    /// The same with `v` unique.
    pub(crate) async fn keyed_table(&self) -> TestTable {
        let key = UniqueRecord { id: 1, name: "by_v".into(), columns: vec![16], primary: false, nulls_equal: false };
        TestTable::with_keys(self.open(Arc::new(NoWait)).await, "t", self.objects(), vec![key]).await
    }

    pub(crate) async fn table_at(&self, pace: Arc<dyn Pace>, name: &str) -> TestTable {
        let store = self.open(pace).await;
        TestTable::named(store, name, self.objects()).await
    }
}

/// A shared table without columns.
pub(crate) fn table_record() -> TableRecord {
    let schema = TableSchema { version: 1, columns: vec![] };
    TableRecord { schemas: vec![], ..TableRecord::new(TableId(1), DEFAULT_NAMESPACE, "t", TableKind::Shared, schema) }
}

impl TestTable {
    pub(crate) async fn named(store: Arc<Store>, name: &str, objects: PathBuf) -> Self {
        Self::with_keys(store, name, objects, vec![]).await
    }

    async fn with_keys(store: Arc<Store>, name: &str, objects: PathBuf, unique: Vec<UniqueRecord>) -> Self {
        let schema = TableSchema::first(&[Field::new("v", DataType::Int64, true)]);
        let layout = RowLayout::new(schema.version, &schema.user_fields().into()).unwrap();
        let known = store.snapshot().catalog().table(DEFAULT_NAMESPACE, name).map(|table| table.id);
        let id = match known {
            Some(id) => id,
            None => {
                let schemas = vec![schema];
                let table =
                    TableRecord { id: store.new_table_id(), name: name.into(), unique, schemas, ..table_record() };
                let (id, snapshot) = (table.id, store.snapshot());
                let catalog = vec![CatalogChange::CreateTable(table)];
                store.commit(Commit::of_catalog(snapshot, catalog, vec![])).await.unwrap();
                id
            }
        };
        Self { store, scope: Scope::shared(id), layout, objects }
    }

    pub(crate) fn place(&self) -> ScopePlace {
        ScopePlace::of(self.store.snapshot().catalog(), self.scope).unwrap()
    }

    pub(crate) fn records(&self) -> Vec<BatchRecord> {
        self.store.snapshot().batches(self.scope).unwrap()
    }

    /// The values that are there, in order.
    pub(crate) fn values(&self) -> Vec<i64> {
        let found = reading::live(&self.store.snapshot(), self.scope, &self.objects);
        let mut values: Vec<i64> = reading::by_id(&found).into_values().map(|(_, value)| value).collect();
        values.sort_unstable();
        values
    }

    pub(crate) async fn insert(&self, values: &[i64]) {
        let ids = self.store.new_ids(values.len());
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let mut edits = KeyEdits::default();
        for key in self.unique_keys() {
            edits.add(key.encode_rows(&[Arc::clone(&column)], ids.len()).unwrap(), &ids);
        }
        let values = Values::Rows(encode_rows(&self.layout, ids.len(), &[column]).unwrap());
        self.commit(ids, values, vec![], edits).await.unwrap();
    }

    fn unique_keys(&self) -> Vec<UniqueKey> {
        UniqueKey::of_table(self.store.snapshot().catalog().table_by_id(self.scope.table).unwrap())
    }

    /// Deletes the rows of a value.
    pub(crate) async fn delete(&self, value: i64) {
        let found = reading::live(&self.store.snapshot(), self.scope, &self.objects);
        let found: Vec<_> = found.into_iter().filter(|row| row.value == Some(value)).collect();
        let ids: Vec<RowId> = found.iter().map(|row| RowId::stored(row.id)).collect();
        let mut edits = KeyEdits::default();
        for key in self.unique_keys() {
            let column: ArrayRef = Arc::new(Int64Array::from(vec![value; ids.len()]));
            edits.remove(key.encode_rows(&[column], ids.len()).unwrap(), &ids);
        }
        let superseded =
            |row: &reading::Found| Superseded { updated: CommitTs::stored(row.updated), location: row.location };
        let supersedes = found.iter().map(superseded).collect();
        self.commit(ids, Values::Tombstones(1), supersedes, edits).await.unwrap();
    }

    /// Loads rows of these values in bulk, and makes the first one `changed` in the same commit, which nobody flushes. Gives the
    /// commit, and that row.
    pub(crate) async fn load_and_change(&self, values: &[i64], changed: i64) -> (CommitTs, RowId) {
        let snapshot = self.store.snapshot();
        let record = snapshot.catalog().table_by_id(self.scope.table).unwrap();
        let mut load = self.store.begin_bulk_load(record, self.scope).await.unwrap();
        let ids = self.store.new_ids(values.len());
        load.write(&ids, vec![Arc::new(Int64Array::from(values.to_vec()))]).await.unwrap();
        let files = load.finish().await.unwrap();
        files.iter().for_each(|file| file.keep());
        let location = Location::Cold(files[0].record().batch_number, 0);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![changed]));
        let write = ScopeWrite {
            scope: self.scope,
            ids: vec![ids[0]],
            values: Values::Rows(encode_rows(&self.layout, 1, &[column]).unwrap()),
            supersedes: vec![Superseded { updated: CommitTs::default(), location }],
        };
        let commit = Commit {
            snapshot: self.store.snapshot(),
            expects: vec![Expected::of(record)],
            catalog: vec![],
            writes: vec![write],
            keys: vec![],
            files,
            name: None,
            audit: vec![],
        };
        let (at, _) = self.store.committer().commit(commit).await.unwrap();
        (at, ids[0])
    }

    /// Inserts a value that was made for the table with so many rules, without its unique keys.
    pub(crate) async fn write_for(&self, value: i64, rules: u32) -> Result<CommitTs> {
        let ids = self.store.new_ids(1);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        let values = Values::Rows(encode_rows(&self.layout, 1, &[column]).unwrap());
        let writes = vec![ScopeWrite { scope: self.scope, ids, values, supersedes: vec![] }];
        let expects = vec![Expected { table: self.scope.table, version: 1, rules }];
        let of_catalog = Commit::of_catalog(self.store.snapshot(), vec![], vec![]);
        self.store.commit(Commit { expects, writes, ..of_catalog }).await
    }

    pub(crate) async fn flush(&self) -> Result<()> {
        self.store.flush(self.scope).await.map(drop)
    }

    async fn commit(
        &self,
        ids: Vec<RowId>,
        values: Values,
        supersedes: Vec<Superseded>,
        edits: KeyEdits,
    ) -> Result<CommitTs> {
        let writes = vec![ScopeWrite { scope: self.scope, ids, values, supersedes }];
        let snapshot = self.store.snapshot();
        let expects =
            snapshot.catalog().table_by_id(self.scope.table).map(|table| Expected::of(table)).into_iter().collect();
        let changes = edits.settle(|keys| snapshot.find_keys(self.scope, keys))?.expect("no value is there twice");
        let keys = vec![KeyWrite { scope: self.scope, changes, completes: false }];
        self.store
            .commit(Commit {
                snapshot,
                expects,
                catalog: vec![],
                writes,
                keys,
                files: vec![],
                name: None,
                audit: vec![],
            })
            .await
    }
}
