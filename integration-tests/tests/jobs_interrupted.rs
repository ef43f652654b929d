//! Jobs that are cancelled or killed in the middle, at each step that they make: what is done of them stands, nothing is lost,
//! and they are run again to their end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use seracdb_engine::check::{Progress, check};
use seracdb_engine::{Clock, Engine, EngineConfig, Outcome, Role, Session, SystemClock};
use seracdb_storage::steps::{Pace, Step};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

const USERS: [&str; 2] = ["ann", "bob"];
const TABLE: &str = r#"{"namespace": "app", "table": "notes"}"#;

/// Where work stops.
#[derive(Debug)]
struct Gate {
    closed_at: watch::Sender<Option<Step>>,
    waiting: AtomicUsize,
}

impl Gate {
    fn open() -> Arc<Self> {
        Arc::new(Self { closed_at: watch::channel(None).0, waiting: AtomicUsize::new(0) })
    }
}

impl Pace for Gate {
    fn reached(&self, step: Step) -> BoxFuture<'_, ()> {
        let mut closed_at = self.closed_at.subscribe();
        Box::pin(async move {
            if *closed_at.borrow() == Some(step) {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                // Nobody opens it any more when the process is gone.
                let _ = closed_at.wait_for(|closed| *closed != Some(step)).await;
            }
        })
    }
}

/// A database in a process that can be killed.
struct Life {
    runtime: Runtime,
    engine: Arc<Engine>,
    session: Session,
    gate: Arc<Gate>,
}

/// How long superseded files stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Superseded {
    Stay,
    Go,
}

fn config(dir: &Path, superseded: Superseded) -> EngineConfig {
    let mut config = EngineConfig::default();
    config.storage.data_dir = dir.join("data");
    config.storage.flush.automatic = false;
    config.storage.compaction.automatic = false;
    config.storage.compaction.fan_in = 2;
    config.storage.compaction.retention_seconds = if superseded == Superseded::Go { 0 } else { 3600 };
    config.storage.orphan_grace_seconds = 0;
    config
}

impl Life {
    /// `blocking`: threads for work on files.
    fn begin(dir: &Path, superseded: Superseded, blocking: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(blocking)
            .thread_stack_size(seracdb_engine::STACK_BYTES)
            .enable_all()
            .build()
            .unwrap();
        let gate = Gate::open();
        let engine = runtime.block_on(async {
            let mut tries = 0;
            loop {
                let (clock, pace): (Arc<dyn Clock>, Arc<dyn Pace>) = (Arc::new(SystemClock), Arc::clone(&gate) as _);
                match Engine::open_paced(config(dir, superseded), clock, pace).await {
                    Ok(engine) => return engine,
                    // The threads of the life before are still ending.
                    Err(error) if tries == 2000 => panic!("{}", error.message),
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
                tries += 1;
            }
        });
        let session = runtime.block_on(async {
            if !engine.has_users() {
                engine.create_user("root", "pw", Role::System).await.unwrap();
            }
            Session::new(engine.authenticate("root", "pw").await.unwrap())
        });
        Self { runtime, engine, session, gate }
    }

    fn outcome(&self, sql: &str) -> Vec<Vec<String>> {
        self.runtime.block_on(async {
            let prepared = self.engine.prepare(&self.session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            let outcome = self.engine.execute(&self.session, &prepared, None).await;
            let Outcome::Rows(rows) = outcome.unwrap_or_else(|e| panic!("{sql}: {e}")) else { return vec![] };
            let batches: Vec<_> = rows.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
            rows.map(|(batch, row)| {
                batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap()).collect()
            })
            .collect()
        })
    }

    fn run(&self, sql: &str) {
        self.outcome(sql);
    }

    /// Asks for a job, and gives its number.
    fn ask(&self, job_type: &str, params: &str) -> String {
        self.outcome(&format!("RUN JOB {job_type} '{params}'"))[0][0].clone()
    }

    /// State, attempts and message of a job.
    fn job(&self, id: &str) -> (String, String, String) {
        let sql = format!("SELECT state, attempts, coalesce(message, '') FROM system.jobs WHERE job_id = '{id}'");
        let row = self.outcome(&sql).remove(0);
        (row[0].clone(), row[1].clone(), row[2].clone())
    }

    fn ended(&self, id: &str) -> (String, String, String) {
        self.until(|| ["completed", "failed", "cancelled"].contains(&self.job(id).0.as_str()));
        self.job(id)
    }

    fn until(&self, is_so: impl Fn() -> bool) {
        for _ in 0..6000 {
            if is_so() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("waited in vain; jobs: {:?}", self.outcome("SELECT * FROM system.jobs"));
    }

    fn rows(&self, user: &str) -> BTreeSet<(String, String)> {
        let rows = self.outcome(&format!("EXECUTE AS USER '{user}' (SELECT n, v FROM app.notes)"));
        let set: BTreeSet<(String, String)> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        assert_eq!(set.len(), rows.len(), "a row is there twice");
        set
    }

    /// The process dies where it stands.
    fn kill(self) {
        let Self { runtime, engine, session, gate } = self;
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop((session, engine, gate));
    }

    fn stop(self) {
        self.runtime.block_on(self.engine.close()).unwrap();
        self.kill();
    }
}

/// Nothing is wrong with what lies there.
fn assert_sound(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut tries = 0;
    let report = loop {
        match runtime.block_on(check(&config(dir, Superseded::Stay), &Progress::default())) {
            Ok(report) => break report,
            Err(error) if tries == 2000 => panic!("{error}"),
            // The threads of the life before are still ending.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        tries += 1;
    };
    assert!(report.clean, "{:#?}", report.findings);
}

/// A job, and what there is to do for it, for ann and for bob.
struct Case {
    job_type: &'static str,
    steps: &'static [Step],
    prepare: fn(&Life),
    /// What is done to the files when nobody looks.
    damage: fn(&Path),
}

fn nothing(_: &Path) {}

const CASES: [Case; 5] = [
    Case {
        job_type: "flush",
        steps: &[
            Step::Sealed,
            Step::FileWritten,
            Step::FilePlaced,
            Step::Published,
            Step::ManifestWritten,
            Step::CacheWritten,
        ],
        prepare: |_| {},
        damage: nothing,
    },
    Case {
        job_type: "compact",
        steps: &[Step::FileWritten, Step::FilePlaced, Step::Published, Step::ManifestWritten, Step::CacheWritten],
        prepare: |life| {
            life.run("STORAGE FLUSH TABLE app.notes");
            change(life);
            life.run("STORAGE FLUSH TABLE app.notes");
        },
        damage: nothing,
    },
    Case {
        job_type: "rebuild_manifest",
        steps: &[Step::ManifestWritten, Step::CacheWritten],
        prepare: |life| life.run("STORAGE FLUSH TABLE app.notes"),
        damage: nothing,
    },
    Case {
        job_type: "cleanup",
        steps: &[Step::ManifestWritten, Step::CacheWritten],
        prepare: |life| life.run("STORAGE FLUSH TABLE app.notes"),
        damage: |dir| {
            for user in USERS {
                std::fs::remove_file(folder(dir, user).join("manifest.json")).unwrap();
                std::fs::write(orphan(dir, user), "left by a flush that died").unwrap();
            }
        },
    },
    Case {
        job_type: "retention",
        steps: &[Step::ManifestWritten, Step::CacheWritten],
        prepare: |life| {
            life.run("STORAGE FLUSH TABLE app.notes");
            change(life);
            life.run("STORAGE FLUSH TABLE app.notes");
            life.run("STORAGE COMPACT TABLE app.notes");
        },
        damage: nothing,
    },
];

fn folder(dir: &Path, user: &str) -> PathBuf {
    dir.join(format!("data/objects/app/notes/user_{user}"))
}

fn orphan(dir: &Path, user: &str) -> PathBuf {
    folder(dir, user).join("batch-0099.parquet")
}

fn change(life: &Life) {
    for user in USERS {
        life.run(&format!("UPDATE app.notes AS USER '{user}' SET v = 'changed' WHERE n < 20"));
        life.run(&format!("DELETE FROM app.notes AS USER '{user}' WHERE n > 90"));
    }
}

/// A data directory with the work of a case, and what each user's rows are.
fn prepared(case: &Case, superseded: Superseded) -> (TempDir, Vec<BTreeSet<(String, String)>>) {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path(), superseded, 16);
    life.run("CREATE NAMESPACE app");
    life.run("CREATE USER TABLE app.notes (n BIGINT, v TEXT)");
    for user in USERS {
        life.run(&format!("CREATE USER {user} WITH PASSWORD 'long enough' ROLE user"));
        life.run(&format!(
            "INSERT INTO app.notes AS USER '{user}' SELECT value, '{user}' FROM generate_series(1, 100)"
        ));
    }
    (case.prepare)(&life);
    let rows = USERS.map(|user| life.rows(user)).to_vec();
    life.stop();
    (case.damage)(dir.path());
    (dir, rows)
}

/// Begins a job and stops it at a step; gives its number.
fn begin(life: &Life, case: &Case, step: Step) -> String {
    life.gate.closed_at.send_replace(Some(step));
    let id = life.ask(case.job_type, TABLE);
    life.until(|| life.gate.waiting.load(Ordering::SeqCst) > 0);
    assert_eq!(life.job(&id).0, "running", "{} at {step:?}", case.job_type);
    id
}

fn assert_rows(life: &Life, rows: &[BTreeSet<(String, String)>], what: &str) {
    for (user, rows) in USERS.iter().zip(rows) {
        assert_eq!(life.rows(user), *rows, "{what}: the rows of {user}");
    }
}

/// What a job has done when it is done.
fn assert_done(life: &Life, case: &Case, dir: &Path) {
    let of = |what: &str| -> u64 { life.outcome(what)[0][0].parse().unwrap() };
    match case.job_type {
        "flush" => assert_eq!(of("SELECT count(*) FROM system.batches WHERE status = 'active'"), 2),
        "compact" => assert_eq!(of("SELECT count(*) FROM system.batches WHERE status = 'active'"), 2),
        "cleanup" => assert!(USERS.iter().all(|user| !orphan(dir, user).exists())),
        "retention" => assert_eq!(of("SELECT count(*) FROM system.batches WHERE status <> 'active'"), 0),
        _ => {}
    }
    assert!(USERS.iter().all(|user| folder(dir, user).join("manifest.json").exists()), "{}", case.job_type);
}

#[test]
fn a_job_that_is_cancelled_ends_at_its_next_part_and_can_be_run_again() {
    for case in &CASES {
        for &step in case.steps {
            let what = format!("{} cancelled at {step:?}", case.job_type);
            let (dir, rows) = prepared(case, Superseded::Stay);
            let life = Life::begin(dir.path(), Superseded::Go, 16);
            let id = begin(&life, case, step);
            life.run(&format!("CANCEL JOB '{id}'"));
            assert_eq!(life.job(&id).0, "running", "{what}: it ends when its part does");
            life.gate.closed_at.send_replace(None);
            let (state, attempts, _) = life.ended(&id);
            assert_eq!((state.as_str(), attempts.as_str()), ("cancelled", "1"), "{what}");
            assert_eq!(life.gate.waiting.load(Ordering::SeqCst), 1, "{what}: the second part was begun");
            assert_rows(&life, &rows, &what);
            let (state, ..) = life.ended(&life.ask(case.job_type, TABLE));
            assert_eq!(state, "completed", "{what}");
            assert_done(&life, case, dir.path());
            assert_rows(&life, &rows, &what);
            life.stop();
            assert_sound(dir.path());
        }
    }
}

#[test]
fn a_job_that_ran_when_the_process_died_is_run_again_to_its_end() {
    for case in &CASES {
        for &step in case.steps {
            let what = format!("{} killed at {step:?}", case.job_type);
            let (dir, rows) = prepared(case, Superseded::Stay);
            let life = Life::begin(dir.path(), Superseded::Go, 16);
            let id = begin(&life, case, step);
            life.kill();
            if case.job_type != "cleanup" {
                // Which is there for what is not sound.
                assert_sound_but_for_orphans(dir.path());
            }
            let life = Life::begin(dir.path(), Superseded::Go, 16);
            let (state, attempts, message) = life.ended(&id);
            assert_eq!((state.as_str(), attempts.as_str()), ("completed", "2"), "{what}: {message}");
            assert_done(&life, case, dir.path());
            assert_rows(&life, &rows, &what);
            life.stop();
            // What the first try has left goes when it is looked for.
            let life = Life::begin(dir.path(), Superseded::Go, 16);
            assert_eq!(life.ended(&life.ask("cleanup", "{}")).0, "completed");
            assert_rows(&life, &rows, &what);
            life.stop();
            assert_sound(dir.path());
        }
    }
}

/// After a kill there may be files that nothing names, for as long as nobody has looked.
fn assert_sound_but_for_orphans(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut config = config(dir, Superseded::Stay);
    config.storage.orphan_grace_seconds = 3600;
    let mut tries = 0;
    loop {
        match runtime.block_on(check(&config, &Progress::default())) {
            Ok(report) => return assert!(report.clean, "{:#?}", report.findings),
            Err(error) if tries == 2000 => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        tries += 1;
    }
}

/// Takes the only thread for work on files, until something is sent.
fn block(life: &Life) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel();
    // Whoever is gone has released it.
    life.runtime.spawn_blocking(move || released.recv().is_ok());
    release
}

/// Kills what runs a job, which is then run again and completed.
fn killed_and_run_again(dir: &Path, life: Life, blocked: mpsc::Sender<()>, id: &str) -> Life {
    std::thread::spawn(move || {
        // The runtime waits for its threads for a while only.
        std::thread::sleep(Duration::from_millis(200));
        drop(blocked);
    });
    life.kill();
    let life = Life::begin(dir, Superseded::Go, 16);
    let (state, attempts, _) = life.ended(id);
    assert_eq!((state.as_str(), attempts.as_str()), ("completed", "2"));
    life
}

/// A data directory with a stream table of two users' rows whose time is over.
fn expired() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::begin(dir.path(), Superseded::Go, 16);
    life.run("CREATE NAMESPACE app");
    life.run("CREATE STREAM TABLE app.events (n BIGINT) WITH (ttl = '1ms')");
    for user in USERS {
        life.run(&format!("CREATE USER {user} WITH PASSWORD 'long enough' ROLE user"));
        life.run(&format!("INSERT INTO app.events AS USER '{user}' SELECT value FROM generate_series(1, 100)"));
    }
    life.stop();
    dir
}

fn hot_rows(dir: &Path) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let progress = Progress::default();
    for _ in 0..2000 {
        match runtime.block_on(check(&config(dir, Superseded::Go), &progress)) {
            Ok(report) => {
                assert!(report.clean, "{:#?}", report.findings);
                return report.read.hot_rows;
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    panic!("the directory stays in use");
}

#[test]
fn an_expiry_that_is_cancelled_or_killed() {
    let dir = expired();
    let life = Life::begin(dir.path(), Superseded::Go, 1);
    let blocked = block(&life);
    let id = life.ask("stream_expiry", "{}");
    life.until(|| life.job(&id).0 == "running");
    life.run(&format!("CANCEL JOB '{id}'"));
    drop(blocked);
    assert_eq!(life.ended(&id).0, "cancelled");
    life.stop();
    assert_eq!(hot_rows(dir.path()), 100, "the part that was begun is done, and the other is not");

    let life = Life::begin(dir.path(), Superseded::Go, 1);
    let blocked = block(&life);
    let id = life.ask("stream_expiry", "{}");
    life.until(|| life.job(&id).0 == "running");
    let life = killed_and_run_again(dir.path(), life, blocked, &id);
    life.stop();
    assert_eq!(hot_rows(dir.path()), 0);
}

#[test]
fn an_eviction_that_is_cancelled_or_killed() {
    let (dir, rows) = prepared(&CASES[2], Superseded::Stay);
    let params = r#"{"max_entries": 1, "ttl_seconds": 1}"#;
    let life = Life::begin(dir.path(), Superseded::Go, 1);
    let blocked = block(&life);
    let id = life.ask("manifest_eviction", params);
    life.until(|| life.job(&id).0 == "running");
    life.run(&format!("CANCEL JOB '{id}'"));
    drop(blocked);
    // It has one part only, and that was begun.
    assert_eq!(life.ended(&id).0, "completed");

    let blocked = block(&life);
    let id = life.ask("manifest_eviction", params);
    life.until(|| life.job(&id).0 == "running");
    let life = killed_and_run_again(dir.path(), life, blocked, &id);
    assert_rows(&life, &rows, "after an eviction");
    life.stop();
    assert_sound(dir.path());
}

#[test]
fn a_job_that_waits_is_cancelled_at_once() {
    let (dir, rows) = prepared(&CASES[0], Superseded::Stay);
    let life = Life::begin(dir.path(), Superseded::Go, 16);
    let running = begin(&life, &CASES[0], Step::Sealed);
    // Each touches what the flush holds.
    for case in &CASES[1..] {
        let waiting = life.ask(case.job_type, TABLE);
        assert_eq!(life.job(&waiting).0, "queued", "{}", case.job_type);
        life.run(&format!("CANCEL JOB '{waiting}'"));
        assert_eq!(life.job(&waiting).0, "cancelled", "{}", case.job_type);
    }
    life.gate.closed_at.send_replace(None);
    assert_eq!(life.ended(&running).0, "completed");
    assert_rows(&life, &rows, "after jobs that never ran");
    life.stop();
    assert_sound(dir.path());
}
