//! Two data directories and one bucket: at any time at most one of them acknowledges.
//!
//! Each has a clock of its own that only the test moves: a process that is paused sees no time pass until it goes on.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::catalog::{CatalogChange, NamespaceRecord};
use crate::clock::ManualClock;
use crate::commit::Commit;
use crate::error::{Result, StorageError};
use crate::faulty_bucket::FaultyBucket;
use crate::ownership::Owner;
use crate::paths::OWNER_FILE;
use crate::steps::NoWait;
use crate::store::{StorageConfig, Store};
use crate::system_columns::CommitTs;

/// 2026-01-01.
const START_NS: i64 = 1_767_225_600_000_000_000;
const DAY_NS: i64 = 86_400_000_000_000;
const LEASE: Duration = Duration::from_secs(30);

/// A machine: a data directory and a clock.
struct Machine {
    dir: TempDir,
    clock: Arc<ManualClock>,
    bucket: Arc<FaultyBucket>,
}

impl Machine {
    fn new(bucket: &Arc<FaultyBucket>) -> Self {
        let clock = Arc::new(ManualClock::at_ns(START_NS));
        Self { dir: tempfile::tempdir().unwrap(), clock, bucket: Arc::clone(bucket) }
    }

    async fn open(&self, take_over: bool) -> Result<Arc<Store>> {
        let data_dir = self.dir.path().to_owned();
        let config = StorageConfig { data_dir, take_over, ..StorageConfig::default() };
        Store::open_on(&config, self.clock.clone(), Some(self.bucket.clone()), Arc::new(NoWait)).await
    }

    /// After the store of before was dropped: its threads may still be letting go of the directory.
    async fn reopen(&self) -> Result<Arc<Store>> {
        loop {
            match self.open(false).await {
                Err(StorageError::InUse(_) | StorageError::Rocks(_)) => a_moment().await,
                opened => return opened,
            }
        }
    }

    fn taking_over(self: &Arc<Self>) -> JoinHandle<Arc<Store>> {
        let me = Arc::clone(self);
        tokio::spawn(async move { me.open(true).await.unwrap() })
    }

    /// Lets time pass, once the thread that renews waits for it.
    async fn pass(&self, duration: Duration) {
        while self.clock.sleepers() < 1 {
            a_moment().await;
        }
        self.clock.advance(duration);
    }

    fn id(&self) -> String {
        let format = std::fs::read(self.dir.path().join("FORMAT")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&format).unwrap()["data_dir_id"].as_str().unwrap().to_owned()
    }
}

async fn commit(store: &Arc<Store>, name: &str) -> Result<CommitTs> {
    let namespace = NamespaceRecord { name: name.into(), created_at_ns: 0, created_by: None, comment: None };
    let catalog = vec![CatalogChange::CreateNamespace(namespace)];
    store.commit(Commit::of_catalog(store.snapshot(), catalog, vec![])).await
}

async fn owner(bucket: &Arc<FaultyBucket>) -> Owner {
    let store: Arc<dyn ObjectStore> = bucket.clone();
    serde_json::from_slice(&crate::bucket::get(&store, OWNER_FILE).await.unwrap().unwrap().bytes).unwrap()
}

/// Lets the other tasks and threads go on.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Lets time pass on one machine until it has taken over; how much that took.
async fn until_open(machine: &Machine, opening: JoinHandle<Arc<Store>>) -> (Arc<Store>, Duration) {
    let mut passed = Duration::ZERO;
    while !opening.is_finished() {
        machine.clock.advance(Duration::from_secs(1));
        passed += Duration::from_secs(1);
        a_moment().await;
    }
    (opening.await.unwrap(), passed)
}

async fn until_renewed(machine: &Machine, before: &Owner) -> Owner {
    loop {
        let now = owner(&machine.bucket).await;
        if now.renewal > before.renewal {
            return now;
        }
        a_moment().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_data_directory_is_refused_by_name() {
    let bucket = FaultyBucket::new();
    let (first, second) = (Machine::new(&bucket), Machine::new(&bucket));
    let store = first.open(false).await.unwrap();
    for _ in 0..2 {
        let error = second.open(false).await.unwrap_err();
        assert!(matches!(&error, StorageError::Owned { owner, epoch: 1, .. } if *owner == first.id()), "{error}");
        assert!(error.to_string().contains(&second.id()) && error.to_string().contains("--take-over"), "{error}");
    }
    commit(&store, "still").await.unwrap();
    store.close().await;
    // Also when the owner does not run: its rows are there.
    assert!(matches!(second.open(false).await, Err(StorageError::Owned { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_the_next_epoch_without_waiting() {
    let bucket = FaultyBucket::new();
    let machine = Machine::new(&bucket);
    for epoch in 1..4 {
        let store = machine.reopen().await.unwrap();
        let now = owner(&bucket).await;
        assert_eq!((now.epoch, now.released, now.owners.len()), (epoch, false, 1));
        commit(&store, &format!("n{epoch}")).await.unwrap();
        if epoch == 1 {
            store.close().await;
            let now = owner(&bucket).await;
            assert!(now.released);
            assert_eq!(now.updated_ceiling, store.snapshot().ts());
        }
        drop(store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_owner_is_fenced_and_acknowledges_nothing() {
    let bucket = FaultyBucket::new();
    let (first, second) = (Machine::new(&bucket), Arc::new(Machine::new(&bucket)));
    let paused = first.open(false).await.unwrap();
    let last = commit(&paused, "before").await.unwrap();
    let last_id = *paused.new_ids(10_000).last().unwrap();

    let (successor, passed) = until_open(&second, second.taking_over()).await;
    assert!(passed > LEASE, "it waited {passed:?}");
    let now = owner(&bucket).await;
    assert_eq!((now.epoch, now.data_dir_id.clone()), (2, second.id()));
    assert!(commit(&successor, "after").await.unwrap() > last);
    assert!(successor.new_ids(1)[0] > last_id);

    // It goes on, and finds its lease at an end.
    first.clock.advance(passed);
    assert!(matches!(commit(&paused, "late").await, Err(StorageError::Stopped)));
    paused.ended().await;
    assert!(matches!(commit(&paused, "later").await, Err(StorageError::Stopped)));
    paused.close().await;
    assert_eq!(owner(&bucket).await.data_dir_id, second.id());
    commit(&successor, "later still").await.unwrap();
    // Its data directory finds the new owner at the next start.
    drop(paused);
    assert!(matches!(first.reopen().await, Err(StorageError::Owned { epoch: 2, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_without_work_ends_too_once_it_is_fenced() {
    let bucket = FaultyBucket::new();
    let (first, second) = (Machine::new(&bucket), Arc::new(Machine::new(&bucket)));
    let idle = first.open(false).await.unwrap();
    let (_successor, _) = until_open(&second, second.taking_over()).await;
    // Its clock says that the lease is good for long; its renewal finds the other.
    first.pass(LEASE / 3).await;
    idle.ended().await;
    assert!(matches!(commit(&idle, "late").await, Err(StorageError::Stopped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_renews_is_not_taken_over_until_it_stops() {
    let bucket = FaultyBucket::new();
    let (first, second) = (Machine::new(&bucket), Arc::new(Machine::new(&bucket)));
    let store = first.open(false).await.unwrap();
    let opening = second.taking_over();
    for round in 0..12 {
        let before = owner(&bucket).await;
        first.pass(LEASE / 3).await;
        let renewed = until_renewed(&first, &before).await;
        assert!(renewed.updated_ceiling > before.updated_ceiling && renewed.id_ceiling > before.id_ceiling);
        second.clock.advance(LEASE / 3);
        a_moment().await;
        assert!(!opening.is_finished());
        commit(&store, &format!("n{round}")).await.unwrap();
    }
    let last = store.snapshot().ts();
    store.close().await;
    let (successor, passed) = until_open(&second, opening).await;
    assert!(passed < LEASE, "what was given back needs no waiting: {passed:?}");
    assert_eq!(owner(&bucket).await.updated_floor, last);
    assert!(commit(&successor, "next").await.unwrap() > last);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_took_over_stays_above_the_one_before_after_a_crash() {
    let bucket = FaultyBucket::new();
    let (first, second) = (Machine::new(&bucket), Arc::new(Machine::new(&bucket)));
    // The first one's clock is a day ahead.
    first.clock.set_ns(START_NS + DAY_NS);
    let paused = first.open(false).await.unwrap();
    let (last, last_id) = (commit(&paused, "before").await.unwrap(), paused.new_ids(1)[0]);
    let (successor, _) = until_open(&second, second.taking_over()).await;
    // Ends without a trace in its own data directory.
    drop(successor);
    let again = second.reopen().await.unwrap();
    assert!(again.new_ids(1)[0] > last_id);
    assert!(commit(&again, "after").await.unwrap() > last);
    assert_eq!(owner(&bucket).await.owners.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_bucket_the_lease_runs_out() {
    let bucket = FaultyBucket::new();
    let machine = Machine::new(&bucket);
    let store = machine.open(false).await.unwrap();
    bucket.set_down(true);
    machine.clock.advance(LEASE / 2);
    commit(&store, "cut off for less than a lease").await.unwrap();
    machine.clock.advance(LEASE);
    assert!(matches!(commit(&store, "for longer").await, Err(StorageError::Stopped)));
    store.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_without_an_answer_is_found_and_gone_on_from() {
    let bucket = FaultyBucket::new();
    let machine = Machine::new(&bucket);
    let store = machine.open(false).await.unwrap();
    for round in 0..6 {
        let before = owner(&bucket).await;
        bucket.put_without_answer();
        machine.pass(LEASE / 3).await;
        until_renewed(&machine, &before).await;
        commit(&store, &format!("n{round}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_put_far_ahead_stops_no_commit() {
    let bucket = FaultyBucket::new();
    let machine = Machine::new(&bucket);
    let store = machine.open(false).await.unwrap();
    let before = owner(&bucket).await;
    machine.clock.set_ns(START_NS + DAY_NS);
    let ts = commit(&store, "ahead").await.unwrap();
    assert!(ts < before.updated_ceiling || ts.get() >= START_NS + DAY_NS);
    // A renewal is sent for at once and lets timestamps follow.
    until_renewed(&machine, &before).await;
    assert!(owner(&bucket).await.updated_ceiling.get() > START_NS + DAY_NS);
    let mut names = 0..;
    while commit(&store, &format!("n{}", names.next().unwrap())).await.unwrap().get() < START_NS + DAY_NS {
        a_moment().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_data_directory_is_refused_once_the_other_has_gone_on() {
    let bucket = FaultyBucket::new();
    let (machine, copied) = (Machine::new(&bucket), Machine::new(&bucket));
    machine.open(false).await.unwrap().close().await;
    for entry in ["FORMAT", "rocksdb"] {
        let (from, to) = (machine.dir.path().join(entry), copied.dir.path());
        assert!(std::process::Command::new("cp").arg("-r").args([&from, to]).status().unwrap().success());
    }
    let store = machine.reopen().await.unwrap();
    let last = commit(&store, "after the copy").await.unwrap();
    store.close().await;
    drop(store);
    let error = copied.open(false).await.unwrap_err();
    assert!(matches!(&error, StorageError::Copied { epoch: 2, .. }), "{error}");
    let taken = copied.open(true).await.unwrap();
    assert_eq!(owner(&bucket).await.owners.len(), 2);
    assert!(commit(&taken, "on the copy").await.unwrap() > last);
    assert!(matches!(machine.reopen().await, Err(StorageError::Copied { epoch: 3, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_is_kept_while_the_catalog_of_before_is_read() {
    let bucket = FaultyBucket::new();
    let (first, second) = (Machine::new(&bucket), Arc::new(Machine::new(&bucket)));
    let store = first.open(false).await.unwrap();
    commit(&store, "app").await.unwrap();
    store.close().await;
    bucket.hold_gets(Some("catalog-e"));
    let opening = second.taking_over();
    while !bucket.holds_a_get() {
        a_moment().await;
    }
    // Twice as long as a lease.
    for _ in 0..6 {
        let before = owner(&bucket).await;
        while second.clock.sleepers() < 1 {
            a_moment().await;
        }
        second.clock.advance(LEASE / 3);
        let renewed = tokio::time::timeout(Duration::from_secs(20), until_renewed(&second, &before));
        renewed.await.expect("it is renewed meanwhile");
    }
    bucket.hold_gets(None);
    let store = opening.await.unwrap();
    assert!(store.snapshot().catalog().namespaces().any(|namespace| namespace.name == "app"));
    commit(&store, "more").await.unwrap();
    store.close().await;
}
