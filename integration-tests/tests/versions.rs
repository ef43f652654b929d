//! hot ∪ cold, latest version = the model: random histories against the naive `MAX(_updated)`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type, TimestampNanosecondType};
use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use seracdb_engine::{Engine, EngineConfig, Outcome, Role, Session};
use seracdb_storage::clock::ManualClock;
use tempfile::TempDir;

use crate::open_when_free;

#[derive(Debug, Clone)]
enum Step {
    /// This many new rows with this value.
    Insert(u8, i32),
    /// Rows with `k % modulus = rest` get `v + add`.
    Update {
        modulus: i32,
        rest: i32,
        add: i32,
    },
    /// Rows with this value go.
    DeleteValue(i32),
    /// Rows with `k % modulus = rest` go.
    Delete {
        modulus: i32,
        rest: i32,
    },
    Flush,
    Compact,
    /// The data directory is lost after a flush: a new one goes on, from the manifest or from the files alone.
    Lose {
        manifest_too: bool,
    },
    /// Closed and opened again, with the clock at another time.
    Reopen(i64),
    /// The clock jumps, also back.
    Clock(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..6u8, 0..4i32).prop_map(|(rows, value)| Step::Insert(rows, value)),
        4 => (1..5i32, 0..5i32, 1..3i32).prop_map(|(modulus, rest, add)| Step::Update { modulus, rest, add }),
        1 => (0..6i32).prop_map(Step::DeleteValue),
        1 => (2..6i32, 0..6i32).prop_map(|(modulus, rest)| Step::Delete { modulus, rest }),
        3 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => any::<bool>().prop_map(|manifest_too| Step::Lose { manifest_too }),
        1 => (0..2_000_000_000i64).prop_map(Step::Reopen),
        1 => (0..2_000_000_000i64).prop_map(Step::Clock),
    ]
}

/// A version as the model keeps it: every one ever written.
#[derive(Debug, Clone, Copy)]
struct Version {
    updated: i64,
    deleted: bool,
    k: i32,
    v: i32,
}

/// A row as a client sees it: `_id`, k, v, `_updated`.
type Row = (i64, i32, i32, i64);

#[derive(Default)]
struct Model(BTreeMap<i64, Vec<Version>>);

impl Model {
    fn live(&self) -> Vec<Row> {
        let latest = self.0.iter().filter_map(|(id, versions)| Some((*id, versions.iter().max_by_key(|v| v.updated)?)));
        latest.filter(|(_, version)| !version.deleted).map(|(id, v)| (id, v.k, v.v, v.updated)).collect()
    }
}

struct Database {
    dir: TempDir,
    /// The object store, which outlives data directories.
    objects: TempDir,
    clock: Arc<ManualClock>,
    /// Whether hot rows are flushed by themselves all the time.
    flushes: bool,
    /// None only between closing and opening.
    engine: Option<Arc<Engine>>,
    session: Session,
}

const START: i64 = 1_750_000_000_000_000_000;

impl Database {
    async fn new(flushes: bool) -> Self {
        let (dir, objects) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let clock = Arc::new(ManualClock::at_ns(START));
        let engine = open(&dir, &objects, &clock, flushes).await;
        engine.create_user("root", "pw", Role::System).await.unwrap();
        let session = Session::new(engine.authenticate("root", "pw").await.unwrap());
        let database = Self { dir, objects, clock, flushes, engine: Some(engine), session };
        database.run("CREATE TABLE t (k INT NOT NULL, v INT)").await;
        database
    }

    async fn reopen(&mut self) {
        self.engine.take().unwrap().close().await.unwrap();
        self.engine = Some(open(&self.dir, &self.objects, &self.clock, self.flushes).await);
    }

    async fn lose(&mut self, manifest_too: bool) {
        self.run("STORAGE FLUSH TABLE t").await;
        self.engine.take().unwrap().close().await.unwrap();
        if manifest_too {
            // There is none before the first flush.
            let _ = std::fs::remove_file(self.objects.path().join("default/t/shared/manifest.json"));
        }
        self.dir = tempfile::tempdir().unwrap();
        let engine = open(&self.dir, &self.objects, &self.clock, self.flushes).await;
        self.session = Session::new(engine.authenticate("root", "pw").await.unwrap());
        self.engine = Some(engine);
    }

    fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().unwrap()
    }

    async fn outcome(&self, sql: &str) -> Outcome {
        let prepared = self.engine().prepare(&self.session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        self.engine().execute(&self.session, &prepared, None).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn run(&self, sql: &str) -> u64 {
        match self.outcome(sql).await {
            Outcome::Changed(rows) => rows,
            Outcome::Rows(_) => panic!("{sql} gave rows"),
        }
    }

    async fn rows(&self, filter: &str) -> Vec<Row> {
        let sql = format!("SELECT _id, k, v, _updated FROM t {filter} ORDER BY _id");
        let Outcome::Rows(stream) = self.outcome(&sql).await else { panic!("no rows") };
        let batches: Vec<_> = stream.try_collect().await.unwrap();
        let mut rows = Vec::new();
        for batch in &batches {
            let id = batch.column(0).as_primitive::<Int64Type>();
            let (k, v) = (batch.column(1).as_primitive::<Int32Type>(), batch.column(2).as_primitive::<Int32Type>());
            let updated = batch.column(3).as_primitive::<TimestampNanosecondType>();
            rows.extend((0..batch.num_rows()).map(|i| (id.value(i), k.value(i), v.value(i), updated.value(i))));
        }
        rows
    }
}

async fn open(dir: &TempDir, objects: &TempDir, clock: &Arc<ManualClock>, flushes: bool) -> Arc<Engine> {
    let mut config = EngineConfig::default();
    config.storage.data_dir = dir.path().to_owned();
    config.storage.object_store = Some(format!("file://{}", objects.path().display()));
    config.storage.take_over = true;
    config.storage.compaction.retention_seconds = 0;
    if flushes {
        config.storage.flush.hot_bytes_max = 1000;
        config.storage.flush.dead_versions_max = 5;
    }
    config.storage.orphan_grace_seconds = 0;
    open_when_free(|| Engine::open_at(config.clone(), Arc::clone(clock) as _)).await
}

/// Runs a step on both, and takes the ids and timestamps of new versions over from the database after checking them.
async fn apply(database: &mut Database, model: &mut Model, next_k: &mut i32, step: &Step) {
    let before = model.live();
    let changed: Vec<(i64, Version)> = match step {
        Step::Insert(rows, value) => {
            let first = *next_k;
            *next_k += i32::from(*rows);
            let values: Vec<String> = (first..*next_k).map(|k| format!("({k}, {value})")).collect();
            assert_eq!(database.run(&format!("INSERT INTO t VALUES {}", values.join(","))).await, u64::from(*rows));
            let inserted = database.rows(&format!("WHERE k >= {first}")).await;
            let highest = model.0.keys().next_back().copied().unwrap_or(i64::MIN);
            assert!(inserted.iter().all(|row| row.0 > highest), "an id is not above every earlier one");
            inserted.iter().map(|&(id, k, v, _)| (id, Version { updated: 0, deleted: false, k, v })).collect()
        }
        Step::Update { modulus, rest, add } => {
            let sql = format!("UPDATE t SET v = v + {add} WHERE k % {modulus} = {rest}");
            let hit = before.iter().filter(|row| row.1 % modulus == *rest);
            let expected: Vec<_> =
                hit.map(|&(id, k, v, _)| (id, Version { updated: 0, deleted: false, k, v: v + add })).collect();
            assert_eq!(database.run(&sql).await, expected.len() as u64, "{sql}");
            expected
        }
        Step::DeleteValue(value) => delete(database, &before, &format!("v = {value}"), |row| row.2 == *value).await,
        Step::Delete { modulus, rest } => {
            delete(database, &before, &format!("k % {modulus} = {rest}"), |row| row.1 % modulus == *rest).await
        }
        Step::Flush => {
            database.run("STORAGE FLUSH TABLE t").await;
            vec![]
        }
        Step::Compact => {
            database.run("STORAGE COMPACT TABLE t").await;
            vec![]
        }
        Step::Lose { manifest_too } => {
            database.lose(*manifest_too).await;
            vec![]
        }
        Step::Reopen(offset) => {
            database.clock.set_ns(START + offset);
            database.reopen().await;
            vec![]
        }
        Step::Clock(offset) => {
            database.clock.set_ns(START + offset);
            vec![]
        }
    };
    take_over(database, model, changed).await;
}

async fn delete(database: &Database, before: &[Row], filter: &str, hit: impl Fn(&Row) -> bool) -> Vec<(i64, Version)> {
    let expected: Vec<_> = before
        .iter()
        .filter(|row| hit(row))
        .map(|&(id, k, v, _)| (id, Version { updated: 0, deleted: true, k, v }))
        .collect();
    assert_eq!(database.run(&format!("DELETE FROM t WHERE {filter}")).await, expected.len() as u64);
    expected
}

/// Gives changed versions the database's timestamp: one for all, above every earlier one.
async fn take_over(database: &Database, model: &mut Model, changed: Vec<(i64, Version)>) {
    let last = model.0.values().flatten().map(|version| version.updated).max().unwrap_or(i64::MIN);
    let now = database.rows("").await;
    let stamps: Vec<i64> =
        changed.iter().filter_map(|(id, _)| now.iter().find(|row| row.0 == *id)).map(|row| row.3).collect();
    assert!(stamps.windows(2).all(|pair| pair[0] == pair[1]), "one commit, several timestamps");
    let updated = stamps.first().copied().unwrap_or(last + 1);
    assert!(changed.is_empty() || updated > last, "a commit timestamp did not rise");
    for (id, version) in changed {
        model.0.entry(id).or_default().push(Version { updated, ..version });
    }
}

async fn check(database: &Database, model: &Model) {
    let live = model.live();
    assert_eq!(database.rows("").await, live);
    // A predicate on a changed column must not bring an older version back.
    for value in 0..4 {
        let expected: Vec<Row> = live.iter().filter(|row| row.2 == value).copied().collect();
        assert_eq!(database.rows(&format!("WHERE v = {value}")).await, expected, "v = {value}");
    }
    let newer: Vec<Row> = live.iter().filter(|row| row.3 > START + 1_000_000_000).copied().collect();
    let filter = "WHERE _updated > TIMESTAMP '2025-06-15T15:06:41'";
    assert_eq!(database.rows(filter).await, newer);
}

#[test]
fn every_history_reads_as_its_latest_versions() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 60, max_shrink_iters: 200, ..Config::default() });
    let histories = (any::<bool>(), prop::collection::vec(step(), 1..25));
    let result = runner.run(&histories, |(flushes, steps)| {
        runtime.block_on(async {
            let mut database = Database::new(flushes).await;
            let mut model = Model::default();
            let mut next_k = 0;
            for step in &steps {
                apply(&mut database, &mut model, &mut next_k, step).await;
                check(&database, &model).await;
            }
        });
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// One statement that changes rows of a file in many batches, hot and cold rows together.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_update_leaves_every_row_once() {
    let database = Database::new(false).await;
    database.run("INSERT INTO t SELECT value, 0 FROM generate_series(0, 29999)").await;
    database.run("STORAGE FLUSH TABLE t").await;
    database.run("INSERT INTO t SELECT value, 0 FROM generate_series(30000, 39999)").await;
    for round in 1..4 {
        assert_eq!(database.run("UPDATE t SET v = v + 1 WHERE k % 7 = 3").await, 5714);
        let rows = database.rows("").await;
        assert_eq!(rows.len(), 40_000, "round {round}");
        assert!(rows.iter().all(|row| row.2 == if row.1 % 7 == 3 { round } else { 0 }));
        if round == 2 {
            database.run("STORAGE FLUSH TABLE t").await;
        }
    }
    assert_eq!(database.run("DELETE FROM t WHERE k % 2 = 0").await, 20_000);
    assert_eq!(database.rows("").await.len(), 20_000);
    database.run("STORAGE FLUSH TABLE t").await;
    assert_eq!(database.rows("").await.len(), 20_000);
}

/// What footers and rows say when the manifest is gone too must be in the next manifest.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_or_superseded_stays_so_through_two_losses() {
    let mut database = Database::new(false).await;
    database.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").await;
    database.run("STORAGE FLUSH TABLE t").await;
    database.run("INSERT INTO t VALUES (4, 4)").await;
    database.run("DELETE FROM t WHERE k IN (2, 4)").await;
    database.run("UPDATE t SET v = 30 WHERE k = 3").await;
    let before = database.rows("").await;
    for manifest_too in [true, false, true, false, false] {
        database.lose(manifest_too).await;
        assert_eq!(database.rows("").await, before);
        // What was recovered is committed.
        database.run("STORAGE FLUSH TABLE t").await;
        assert_eq!(database.rows("").await, before);
    }
}
