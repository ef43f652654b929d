//! One history: the store, what is under way in it, and what it must say.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field};
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::Rng;
use super::model::Model;
use super::reading::{self, Found};
use crate::StorageError;
use crate::catalog::{CatalogChange, DEFAULT_NAMESPACE, TableRecord};
use crate::check::tests::{report, root};
use crate::clock::ManualClock;
use crate::commit::{Commit, Expected, Location, ScopeWrite, Superseded, Values};
use crate::compact::CompactionConfig;
use crate::error::Result;
use crate::keys::{BatchNumber, Scope, TableId};
use crate::manifest::Manifest;
use crate::records::{BatchKind, BatchRecord};
use crate::recovery;
use crate::row_codec::{RowLayout, encode_rows};
use crate::schema::TableSchema;
use crate::scope_place::ScopePlace;
use crate::snapshot::Snapshot;
use crate::steps::{Pace, Step};
use crate::store::{Durability, StorageConfig, Store};
use crate::system_columns::{CommitTs, RowId};
use crate::test_table::table_record;

const START_NS: i64 = 1_750_000_000_000_000_000;
/// Of so many crashes what is left by the first is looked at: it takes longer than the rest.
const CHECKED_CRASHES: usize = 3;

/// Lets a flush or compaction make one step for each permit.
#[derive(Debug)]
struct Gate {
    permits: Semaphore,
    waiting: AtomicUsize,
}

impl Pace for Gate {
    fn reached(&self, _: Step) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.permits.acquire().await.unwrap().forget();
        })
    }
}

/// From an opening of the store to its end.
struct Life {
    runtime: Runtime,
    store: Arc<Store>,
    gate: Arc<Gate>,
    maintenance: Option<JoinHandle<Result<()>>>,
}

/// A bulk load whose commit is under way.
struct Bulk {
    file: BatchNumber,
    rows: Vec<(i64, i64)>,
    /// What the same commit says of the first rows: another value, or a tombstone.
    changed: Vec<Option<i64>>,
}

pub(super) struct World {
    rng: Rng,
    dir: TempDir,
    clock: Arc<ManualClock>,
    config: StorageConfig,
    layout: RowLayout,
    scope: Scope,
    life: Option<Life>,
    model: Model,
    held: Vec<Arc<Snapshot>>,
    /// Checksums of the files that ever had these numbers.
    files: HashMap<BatchNumber, u32>,
    bulk: Option<Bulk>,
    last_ts: i64,
    last_id: i64,
    manifest_version: u64,
    crashes: usize,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let dir = tempfile::tempdir().unwrap();
        let compaction = CompactionConfig {
            automatic: false,
            fan_in: 2 + rng.below(3) as usize,
            masked_percent: [0, 20, 60][rng.below(3) as usize],
            retention_seconds: [0, 1, 3600][rng.below(3) as usize],
            ..CompactionConfig::default()
        };
        let config = StorageConfig {
            data_dir: dir.path().join("data"),
            durability: Durability::Relaxed,
            orphan_grace_seconds: 0,
            compaction,
            ..StorageConfig::default()
        };
        let schema = TableSchema::first(&[Field::new("v", DataType::Int64, true)]);
        let layout = RowLayout::new(schema.version, &schema.user_fields().into()).unwrap();
        let clock = Arc::new(ManualClock::at_ns(START_NS));
        let life = Life::begin(&config, &clock);
        let id = life.store.new_table_id();
        let table = TableRecord { id, schemas: vec![schema], ..table_record() };
        let mut world = Self {
            rng,
            dir,
            clock,
            config,
            layout,
            scope: Scope::shared(id),
            life: Some(life),
            model: Model::default(),
            held: Vec::new(),
            files: HashMap::new(),
            bulk: None,
            last_ts: 0,
            last_id: 0,
            manifest_version: 0,
            crashes: 0,
        };
        let snapshot = world.life().store.snapshot();
        let create = Commit {
            snapshot,
            expects: vec![],
            catalog: vec![CatalogChange::CreateUser(root()), CatalogChange::CreateTable(table)],
            writes: vec![],
            keys: vec![],
            files: vec![],
            name: None,
            audit: vec![],
        };
        world.commit(create).unwrap();
        world
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().unwrap()
    }

    fn objects(&self) -> PathBuf {
        self.dir.path().join("data").join("objects")
    }

    /// One action, and a look at what it has left.
    pub(super) fn act(&mut self) {
        match self.rng.below(20) {
            0..4 => self.insert(),
            4..8 => self.change(),
            8..14 => self.advance(),
            14 | 15 => self.begin_maintenance(),
            16 | 17 => self.hold(),
            18 => {
                let jump = self.rng.below(4_000_000_000) as i64 - 1_000_000_000;
                self.clock.set_ns(self.last_ts.max(START_NS) + jump);
            }
            _ => self.crash(),
        }
        self.check();
    }

    /// Carries everything to its end.
    pub(super) fn settle(&mut self) {
        self.finish_maintenance();
        self.held.clear();
        for _ in 0..2 {
            self.start(true);
            self.finish_maintenance();
            self.start(false);
            self.finish_maintenance();
            self.check();
        }
        self.crash();
        self.check();
    }

    fn insert(&mut self) {
        let (commit, rows) = self.new_rows();
        let ts = self.commit(commit).unwrap();
        for (id, value) in rows {
            self.learned(id, ts, value);
        }
    }

    fn learned(&mut self, id: i64, updated: i64, value: i64) {
        self.model.add(id, updated, Some(value));
        self.last_id = self.last_id.max(id);
    }

    fn new_rows(&mut self) -> (Commit, Vec<(i64, i64)>) {
        let count = 1 + self.rng.below(5) as usize;
        let ids = self.life().store.new_ids(count);
        assert!(ids[0].get() > self.last_id && ids.is_sorted(), "ids rise");
        let values: Vec<i64> = (0..count).map(|_| self.rng.below(100) as i64).collect();
        let rows = ids.iter().map(|id| id.get()).zip(values.iter().copied()).collect();
        let snapshot = self.life().store.snapshot();
        (self.write(snapshot, ids, Some(values), vec![]), rows)
    }

    fn write(
        &self,
        snapshot: Arc<Snapshot>,
        ids: Vec<RowId>,
        values: Option<Vec<i64>>,
        supersedes: Vec<Superseded>,
    ) -> Commit {
        let values = match values {
            Some(values) => {
                let column: ArrayRef = Arc::new(Int64Array::from(values));
                Values::Rows(encode_rows(&self.layout, ids.len(), &[column]).unwrap())
            }
            None => Values::Tombstones(1),
        };
        let writes = vec![ScopeWrite { scope: self.scope, ids, values, supersedes }];
        Commit {
            snapshot,
            expects: vec![Expected { table: self.scope.table, version: 1, rules: 0 }],
            catalog: vec![],
            writes,
            keys: vec![],
            files: vec![],
            name: None,
            audit: vec![],
        }
    }

    /// Updates or deletes some rows, as the newest or a held snapshot shows them.
    fn change(&mut self) {
        let snapshot = match self.held.is_empty() || self.rng.one_in(2) {
            true => self.life().store.snapshot(),
            false => Arc::clone(&self.held[self.rng.below(self.held.len() as u64) as usize]),
        };
        // Few rows at times: many would nearly always be changed since a held snapshot.
        let share = [1, 2, 4, 16][self.rng.below(4) as usize];
        let found = reading::live(&snapshot, self.scope, &self.objects());
        let rows: Vec<Found> = found.into_iter().filter(|_| self.rng.one_in(share)).collect();
        if rows.is_empty() {
            return;
        }
        let since = snapshot.ts().get();
        let conflicts = rows.iter().any(|row| self.model.changed_since(row.id, since));
        let values = (!self.rng.one_in(3)).then(|| rows.iter().map(|row| row.value.unwrap() + 1).collect::<Vec<_>>());
        let ids = rows.iter().map(|row| RowId::stored(row.id)).collect();
        let supersedes =
            rows.iter().map(|row| Superseded { updated: CommitTs::stored(row.updated), location: row.location });
        let commit = self.write(snapshot, ids, values.clone(), supersedes.collect());
        match self.commit(commit) {
            Ok(ts) => {
                assert!(!conflicts, "a row was changed twice from one version");
                for (at, row) in rows.iter().enumerate() {
                    self.model.add(row.id, ts, values.as_ref().map(|values| values[at]));
                }
            }
            Err(StorageError::Conflict | StorageError::RowConflict { .. }) => {
                assert!(conflicts, "nobody else had changed these rows")
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn commit(&mut self, commit: Commit) -> Result<i64> {
        let life = self.life.as_mut().unwrap();
        let ts = life.runtime.block_on(life.store.commit(commit))?.get();
        assert!(ts > self.last_ts, "timestamps rise");
        self.last_ts = ts;
        Ok(ts)
    }

    fn hold(&mut self) {
        if self.held.len() == 4 {
            self.held.remove(0);
        }
        let snapshot = self.life().store.snapshot();
        self.held.push(snapshot);
    }

    fn begin_maintenance(&mut self) {
        if self.life().maintenance.is_none() {
            match self.rng.below(6) {
                0 | 1 => self.start(false),
                2 => self.load(),
                _ => self.start(true),
            }
        }
    }

    /// Begins the commit of a bulk load that has changed some of its rows before its end.
    fn load(&mut self) {
        let values: Vec<i64> = (0..1 + self.rng.below(5)).map(|_| self.rng.below(100) as i64).collect();
        let (scope, column) = (self.scope, Arc::new(Int64Array::from(values.clone())) as ArrayRef);
        let life = self.life();
        let (store, rows) = (Arc::clone(&life.store), values.len());
        let table = Arc::clone(store.snapshot().catalog().table_by_id(scope.table).unwrap());
        let files = life.runtime.block_on(async {
            let mut load = store.begin_bulk_load(&table, scope).await.unwrap();
            load.write(&store.new_ids(rows), vec![column]).await.unwrap();
            load.finish().await.unwrap()
        });
        let record = files[0].record().clone();
        let ids = reading::ids(&record, &self.objects());
        if self.rng.one_in(4) {
            // Given up.
            return;
        }
        let changed: Vec<_> = (0..self.rng.below(3).min(ids.len() as u64))
            .map(|_| (!self.rng.one_in(2)).then(|| self.rng.below(100) as i64))
            .collect();
        let snapshot = self.life().store.snapshot();
        let (mut writes, mut from) = (Vec::new(), 0);
        for value in &changed {
            let location = Location::Cold(record.batch_number, from);
            let supersedes = vec![Superseded { updated: CommitTs::default(), location }];
            let id = RowId::stored(ids[from as usize]);
            writes
                .extend(self.write(Arc::clone(&snapshot), vec![id], value.map(|value| vec![value]), supersedes).writes);
            from += 1;
        }
        let commit = Commit {
            snapshot,
            expects: vec![Expected { table: self.scope.table, version: 1, rules: 0 }],
            catalog: vec![],
            writes,
            keys: vec![],
            files,
            name: None,
            audit: vec![],
        };
        self.bulk = Some(Bulk { file: record.batch_number, rows: ids.into_iter().zip(values).collect(), changed });
        let life = self.life();
        let store = Arc::clone(&life.store);
        life.maintenance = Some(life.runtime.spawn(async move { store.commit(commit).await.map(drop) }));
        life.until_waiting(0);
    }

    /// Whether the bulk load under way is committed by now.
    fn learn_bulk(&mut self) {
        let Some(bulk) = self.bulk.take() else { return };
        let snapshot = self.life().store.snapshot();
        let records = snapshot.records(self.scope).unwrap();
        let Some(record) = records.iter().find(|record| record.batch_number == bulk.file) else {
            self.bulk = Some(bulk).filter(|_| self.life().maintenance.is_some());
            return;
        };
        let updated = record.min_updated.get();
        for (id, value) in &bulk.rows {
            self.model.add_bulk(*id, updated, *value);
            self.last_id = self.last_id.max(*id);
        }
        for ((id, _), value) in bulk.rows.iter().zip(bulk.changed) {
            self.model.add(*id, updated, value);
        }
        self.last_ts = self.last_ts.max(updated);
    }

    fn start(&mut self, flush: bool) {
        let scope = self.scope;
        let life = self.life();
        let store = Arc::clone(&life.store);
        life.maintenance = Some(life.runtime.spawn(async move {
            match flush {
                true => store.flush(scope).await.map(drop),
                false => store.compact(scope).await.map(drop),
            }
        }));
        life.until_waiting(0);
    }

    /// Lets what is under way make one step.
    fn advance(&mut self) {
        let life = self.life();
        if life.maintenance.is_some() {
            life.gate.permits.add_permits(1);
            let waited = life.gate.waiting.swap(0, Ordering::SeqCst);
            assert!(waited <= 1);
            life.until_waiting(0);
        }
    }

    fn finish_maintenance(&mut self) {
        while self.life().maintenance.is_some() {
            self.advance();
        }
    }

    /// The process dies, perhaps with a commit of which nobody was told.
    fn crash(&mut self) {
        let unknown = self.rng.one_in(2).then(|| self.new_rows());
        let life = self.life.take().unwrap();
        let rows = unknown.map(|(commit, rows)| {
            let store = Arc::clone(&life.store);
            life.runtime.spawn(async move { store.commit(commit).await });
            if self.rng.one_in(2) {
                life.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            }
            rows
        });
        self.held.clear();
        life.end();
        self.crashes += 1;
        if self.crashes % CHECKED_CRASHES == 1 {
            self.check_at_rest();
        }
        self.life = Some(Life::begin(&self.config, &self.clock));
        if let Some(rows) = rows {
            self.learn(&rows);
        }
    }

    /// Whether a commit of which nobody was told is there: wholly, or not at all.
    fn learn(&mut self, rows: &[(i64, i64)]) {
        let (scope, objects) = (self.scope, self.objects());
        let snapshot = self.life().store.snapshot();
        let found = reading::by_id(&reading::live(&snapshot, scope, &objects));
        let there: Vec<_> = rows.iter().filter_map(|(id, value)| Some((*id, found.get(id)?.0, *value))).collect();
        assert!(there.is_empty() || there.len() == rows.len(), "half a commit is there");
        for (id, updated, value) in there {
            assert!(updated > self.last_ts);
            self.learned(id, updated, value);
        }
        self.last_ts = self.last_ts.max(snapshot.ts().get());
    }

    /// What lies there when the process is gone keeps every promise.
    fn check_at_rest(&self) {
        let report = report(&self.config, &self.clock);
        assert!(report.clean, "{:#?}", report.findings);
    }

    /// Everything that must hold at any time.
    fn check(&mut self) {
        self.learn_bulk();
        let (scope, objects) = (self.scope, self.objects());
        let snapshot = self.life().store.snapshot();
        for snapshot in self.held.iter().chain([&snapshot]) {
            let expected = self.model.rows_at(snapshot.ts().get());
            let found = reading::live(snapshot, scope, &objects);
            assert_eq!(reading::by_id(&found), expected, "what a query at {} reads", snapshot.ts().get());
        }
        self.check_recovery(&snapshot);
        for record in snapshot.records(scope).unwrap() {
            let known = *self.files.entry(record.batch_number).or_insert(record.checksum);
            assert_eq!(known, record.checksum, "a batch number was used twice");
        }
        self.check_manifest();
    }

    /// The files alone, also those that no record names yet, say what was right once the last of them was written.
    fn check_recovery(&mut self, snapshot: &Snapshot) {
        let place = ScopePlace::of(snapshot.catalog(), self.scope).unwrap();
        let table = Arc::clone(snapshot.catalog().table_by_id(self.scope.table).unwrap());
        let objects = self.objects();
        let life = self.life.as_mut().unwrap();
        let (recovered, rows) = loop {
            let recovered = life.runtime.block_on(recovery::from_footers(life.store.objects(), &place, &table));
            // An orphan may be removed while it is read.
            let rows = recovered.as_ref().ok().and_then(|recovered| reading::recovered(recovered, &objects));
            match (recovered, rows) {
                (Ok(recovered), Some(rows)) => break (recovered, rows),
                _ => life.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await }),
            }
        };
        let committed = snapshot.header(self.scope).unwrap().unwrap_or_default();
        let is_flushed = |record: &&BatchRecord| record.kind == BatchKind::Flush;
        let newest = |records: &mut dyn Iterator<Item = &BatchRecord>| records.map(|record| record.max_updated).max();
        let flushed_to = newest(&mut recovered.records.iter().filter(is_flushed)).max(Some(committed.flushed_to));
        let loaded_to = newest(&mut recovered.records.iter()).unwrap_or_default();
        let expected = self.model.rows_in_files(flushed_to.unwrap_or_default().get(), loaded_to.get());
        assert_eq!(rows, expected, "what the footers alone show");
    }

    /// The manifest alone says what was right at its time.
    fn check_manifest(&mut self) {
        let objects = self.objects();
        let path = objects.join(DEFAULT_NAMESPACE).join("t/shared/manifest.json");
        let Ok(json) = std::fs::read(path) else { return };
        let manifest: Manifest = serde_json::from_slice(&json).unwrap();
        assert!(manifest.version >= self.manifest_version, "the manifest went back");
        self.manifest_version = manifest.version;
        let highest = manifest.batches.iter().map(|record| record.batch_number).max().unwrap_or(BatchNumber(0));
        assert!(manifest.max_batch >= highest);
        assert_eq!(manifest.table_id, TableId(self.scope.table.0));
        let loaded_to = manifest.batches.iter().map(|record| record.max_updated).max().unwrap_or_default();
        let expected = self.model.rows_in_files(manifest.flushed_to.get(), loaded_to.get());
        assert_eq!(reading::exported(&manifest, &objects), expected, "what the manifest shows");
    }
}

impl Life {
    fn begin(config: &StorageConfig, clock: &Arc<ManualClock>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // What a stop has interrupted is finished while opening, without stopping at steps.
        let gate = Arc::new(Gate { permits: Semaphore::new(1000), waiting: AtomicUsize::new(0) });
        let pace: Arc<dyn Pace> = Arc::clone(&gate) as _;
        let store = runtime.block_on(async {
            for _ in 0..2000 {
                match Store::open_on(config, Arc::clone(clock) as _, None, Arc::clone(&pace)).await {
                    Ok(store) => return store,
                    // The threads of the life before are still ending.
                    Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
            Store::open_on(config, Arc::clone(clock) as _, None, pace).await.unwrap()
        });
        let left = gate.permits.available_permits();
        gate.permits.forget_permits(left);
        gate.waiting.store(0, Ordering::SeqCst);
        Self { runtime, store, gate, maintenance: None }
    }

    /// Runs until the work under way waits for its next step, or is done.
    fn until_waiting(&mut self, waiting: usize) {
        let (gate, task) = (&self.gate, &mut self.maintenance);
        self.runtime.block_on(async {
            loop {
                match task {
                    Some(work) if work.is_finished() => {
                        let done = work.await.unwrap();
                        assert!(done.is_ok(), "{done:?}");
                        *task = None;
                        return;
                    }
                    Some(_) if gate.waiting.load(Ordering::SeqCst) > waiting => return,
                    Some(_) => tokio::time::sleep(Duration::from_micros(50)).await,
                    None => return,
                }
            }
        });
        if self.maintenance.is_none() {
            let left = self.gate.permits.available_permits();
            self.gate.permits.forget_permits(left);
        }
    }

    /// Drops everything where it stands.
    fn end(self) {
        let Self { runtime, store, gate, maintenance } = self;
        drop(maintenance);
        // Tasks end where they wait.
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop((store, gate));
    }
}
