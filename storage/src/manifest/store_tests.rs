//! A flush that dies at any of its steps, cache writes that fail, and what the cache answers without the object store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::{Manifest, SyncState};
use crate::error::StorageError;
use crate::faulty_bucket::FaultyBucket;
use crate::keys::BatchNumber;
use crate::steps::{NoWait, Pace, Step};
use crate::store::Store;
use crate::test_table::{TestDir, TestTable};

/// Never goes on after one of the steps.
#[derive(Debug)]
struct StopAt {
    step: Step,
    reached: Notify,
}

impl Pace for StopAt {
    fn reached(&self, step: Step) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if step == self.step {
                self.reached.notify_one();
                std::future::pending::<()>().await;
            }
        })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The names in the table's folder.
fn files(dir: &TestDir) -> Vec<String> {
    let listed = std::fs::read_dir(dir.objects().join("default/t/shared"));
    let mut names: Vec<String> = listed.map_or_else(
        |_| vec![],
        |listed| listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect(),
    );
    names.sort();
    names
}

async fn until(true_: impl Fn() -> bool, what: &str) {
    for _ in 0..5000 {
        if true_() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("waited in vain: {what}");
}

#[test]
fn a_flush_that_dies_at_any_step_loses_no_row_and_no_number() {
    use Step::{CacheWritten, FilePlaced, FileWritten, ManifestWritten, Published, Sealed};
    for step in [Sealed, FileWritten, FilePlaced, Published, ManifestWritten, CacheWritten] {
        let dir = TestDir::new();
        let mut seen: HashMap<BatchNumber, u32> = HashMap::new();
        for round in 0..3 {
            let stop = Arc::new(StopAt { step, reached: Notify::new() });
            let living = runtime();
            living.block_on(async {
                let table = dir.table_at(Arc::<StopAt>::clone(&stop), "t").await;
                table.insert(&[10 * round, 10 * round + 1, 10 * round + 2]).await;
                table.delete(10 * round + 1).await;
                let (store, scope) = (Arc::clone(&table.store), table.scope);
                tokio::spawn(async move { store.flush(scope).await });
                stop.reached.notified().await;
            });
            // The process dies.
            living.shutdown_timeout(Duration::from_secs(5));

            let living = runtime();
            living.block_on(async {
                let table = dir.table_at(Arc::new(NoWait), "t").await;
                let expected: Vec<i64> = (0..=round).flat_map(|round| [10 * round, 10 * round + 2]).collect();
                assert_eq!(table.values(), expected, "after {step:?}");
                if round == 1 {
                    table.flush().await.unwrap();
                    assert_eq!(table.values(), expected, "after {step:?} and a flush");
                }
                for record in table.records() {
                    let known = *seen.entry(record.batch_number).or_insert(record.checksum);
                    assert_eq!(known, record.checksum, "after {step:?} batch {} is another", record.batch_number);
                }
                let named = |table: &TestTable| {
                    let mut names: Vec<String> = table
                        .records()
                        .iter()
                        .flat_map(|record| {
                            let vector = record.deletes.as_ref().map(|deletes| deletes.path.clone());
                            let filters = record.bloom.as_ref().map(|bloom| bloom.file_path.clone());
                            [Some(record.file_path.clone()), vector, filters].into_iter().flatten()
                        })
                        .map(|path| path.rsplit('/').next().unwrap().to_owned())
                        .collect();
                    names.extend((!names.is_empty()).then(|| "manifest.json".to_owned()));
                    names.sort();
                    names
                };
                until(|| files(&dir) == named(&table), "what the flush has left is collected").await;
                if !table.records().is_empty() {
                    let manifest = table.store.manifest(&table.place()).await.unwrap().unwrap();
                    assert_eq!(manifest.batches, table.records(), "after {step:?}");
                    assert!(manifest.max_batch >= table.records().last().unwrap().batch_number);
                }
                table.store.close().await;
            });
            living.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_done_when_the_cache_holds_the_manifest() {
    let dir = TestDir::new();
    let table = dir.table().await;
    let cache = table.store.manifests().cache();
    table.insert(&[1]).await;
    cache.fail_writes.store(2, Ordering::SeqCst);
    table.flush().await.unwrap();
    let (version, path) = {
        let manifest = table.store.manifest(&table.place()).await.unwrap().unwrap();
        (manifest.version, dir.objects().join("default/t/shared/manifest.json"))
    };

    // It fails for good: the job is not done, the old entry is gone, and nothing is lost.
    table.insert(&[2]).await;
    cache.fail_writes.store(u64::MAX, Ordering::SeqCst);
    assert!(table.flush().await.is_err());
    assert!(table.store.cached_manifests([table.place()].iter()).is_empty());
    assert!(table.store.snapshot().header(table.scope).unwrap().unwrap().is_unfinished());
    assert_eq!(table.values(), [1, 2]);

    // The next one carries it through.
    cache.fail_writes.store(0, Ordering::SeqCst);
    table.flush().await.unwrap();
    let header = table.store.snapshot().header(table.scope).unwrap().unwrap();
    assert!(!header.is_unfinished());
    let written = Manifest::parse(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(table.store.manifest(&table.place()).await.unwrap().unwrap(), written);
    assert!(written.version > version);
    assert_eq!(table.values(), [1, 2]);
}

fn evict(store: &Store, dir: &TestDir) {
    let config = &dir.config.manifest_cache;
    store.evict_manifests(config.max_entries as u64, config.last_accessed_memory_window).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_asks_the_object_store_nothing() {
    let bucket = FaultyBucket::new();
    let mut dir = TestDir::new();
    dir.bucket = Some(bucket.clone());
    // A compaction would use the manifest whenever it comes to run.
    dir.config.compaction.automatic = false;
    let table = dir.table().await;
    table.insert(&[1]).await;
    table.flush().await.unwrap();
    table.store.snapshot().scope(table.scope).unwrap();
    until(|| table.store.manifests().was_looked_at(table.scope), "the first use has it looked at").await;
    let place = table.place();
    let before = table.store.manifest_cache_totals();
    bucket.set_down(true);
    let written = table.store.manifest(&place).await.unwrap().unwrap();
    assert_eq!(table.store.manifest_cache_totals().memory_hits, before.memory_hits + 1);

    // Out of memory, RocksDB has it; beyond its time the object store is asked, which does not answer.
    dir.clock.advance(Duration::from_secs(599));
    evict(&table.store, &dir);
    assert!(table.store.cached_manifests([place.clone()].iter())[0].last_accessed_ns.is_some());
    let used_since = dir.config.manifest_cache.last_accessed_memory_window + 1;
    dir.clock.advance(Duration::from_secs(used_since));
    evict(&table.store, &dir);
    let shown = table.store.cached_manifests([place.clone()].iter()).remove(0);
    assert_eq!((shown.last_accessed_ns, shown.sync_state, shown.ttl_seconds), (None, SyncState::Stale, 0));
    assert!(matches!(table.store.manifest(&place).await, Err(StorageError::ObjectStore(_))));
    assert_eq!(table.store.manifest_cache_totals().rocksdb_hits, before.rocksdb_hits + 1);
    bucket.set_down(false);
    assert_eq!(table.store.manifest(&place).await.unwrap().unwrap(), written);
    let after = table.store.manifest_cache_totals();
    assert_eq!((after.revalidated, after.misses), (before.revalidated + 1, before.misses));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_used_entries_go_and_come_back() {
    let mut dir = TestDir::new();
    dir.config.manifest_cache.max_entries = 2;
    let store = dir.open(Arc::new(NoWait)).await;
    let mut tables = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let table = TestTable::named(Arc::clone(&store), name, dir.objects()).await;
        table.insert(&[1]).await;
        table.flush().await.unwrap();
        dir.clock.advance(Duration::from_secs(1));
        tables.push(table);
    }
    let places: Vec<_> = tables.iter().map(TestTable::place).collect();
    let cached =
        || -> Vec<String> { store.cached_manifests(places.iter()).into_iter().map(|entry| entry.table).collect() };
    assert_eq!(cached(), ["a", "b", "c", "d"]);
    // The first one was used again.
    assert_eq!(tables[0].values(), [1]);
    evict(&store, &dir);
    assert_eq!(cached(), ["a", "d"]);
    let misses = store.manifest_cache_totals().misses;
    assert_eq!(tables[1].values(), [1]);
    until(|| cached() == ["a", "b", "d"], "a use brings an entry back").await;
    assert_eq!(store.manifest_cache_totals().misses, misses + 1);
}
