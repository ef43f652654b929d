//! Transactions of many writers at once, while rows are flushed and files merged: no history may show more than snapshot
//! isolation allows. The checks are those of Jepsen's bank and list-append workloads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use seracdb_client::Client;
use seracdb_integration_tests::TestServer;

const WRITERS: usize = 8;
const TURNS: usize = 25;

/// A generator of numbers that look random, with its seed in its name: splitmix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// A server that flushes and merges all the time.
fn busy_server() -> Arc<TestServer> {
    Arc::new(TestServer::start_with(&[
        ("SERACDB_FLUSH__DEAD_VERSIONS_MAX", "20"),
        ("SERACDB_COMPACTION__MASKED_PERCENT", "5"),
        ("SERACDB_COMPACTION__FAN_IN", "2"),
    ]))
}

/// Flushes and merges until it is told to stop.
fn flushing(
    server: &Arc<TestServer>,
    tables: &'static [&'static str],
) -> (Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let (stop, server) = (Arc::new(AtomicBool::new(false)), Arc::clone(server));
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let client = server.client().await;
        while !stopped.load(Ordering::Relaxed) {
            for table in tables {
                client.update(&format!("STORAGE FLUSH TABLE {table}")).await.unwrap();
                client.update(&format!("STORAGE COMPACT TABLE {table}")).await.unwrap();
            }
        }
    });
    (stop, task)
}

async fn numbers(client: &Client, sql: &str) -> Vec<Vec<i64>> {
    let batches = client.query(sql).await.unwrap().collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            rows.push(batch.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(row)).collect());
        }
    }
    rows
}

/// Money goes from one account to another, over two tables: no snapshot may see more or less of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_sum_of_all_accounts_never_changes() {
    const ACCOUNTS: u64 = 6;
    const TOTAL: i64 = 2 * ACCOUNTS as i64 * 100;
    let server = busy_server();
    let client = server.client().await;
    for table in ["a", "b"] {
        client.update(&format!("CREATE TABLE {table} (id BIGINT, money BIGINT)")).await.unwrap();
        client
            .update(&format!("INSERT INTO {table} SELECT value, 100 FROM generate_series(1, {ACCOUNTS})"))
            .await
            .unwrap();
    }
    let (stop, flusher) = flushing(&server, &["a", "b"]);
    let (committed, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (server, committed, refused) = (Arc::clone(&server), Arc::clone(&committed), Arc::clone(&refused));
            tokio::spawn(async move {
                let client = server.client().await;
                let mut random = Numbers(writer as u64);
                for _ in 0..TURNS {
                    client.update("BEGIN").await.unwrap();
                    let (from, to) = if random.below(2) == 0 { ("a", "b") } else { ("b", "a") };
                    let (payer, payee) = (1 + random.below(ACCOUNTS), 1 + random.below(ACCOUNTS));
                    let amount = 1 + random.below(20) as i64;
                    let sql = "SELECT (SELECT sum(money) FROM a), (SELECT sum(money) FROM b)";
                    let seen = numbers(&client, sql).await;
                    assert_eq!(seen[0].iter().sum::<i64>(), TOTAL, "writer {writer}");
                    for (table, id, change) in [(from, payer, -amount), (to, payee, amount)] {
                        let sql = format!("UPDATE {table} SET money = money + {change} WHERE id = {id}");
                        assert_eq!(client.update(&sql).await.unwrap(), 1);
                    }
                    let seen = numbers(&client, sql).await;
                    assert_eq!(seen[0].iter().sum::<i64>(), TOTAL, "writer {writer}, its own changes included");
                    match client.update("COMMIT").await {
                        Ok(_) => committed.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            assert!(error.to_string().contains("rolled back"), "{error}");
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    flusher.await.unwrap();
    let (committed, refused) = (committed.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!("{committed} transfers committed, {refused} refused");
    assert!(committed > 0);
    let seen = numbers(&client, "SELECT (SELECT sum(money) FROM a), (SELECT sum(money) FROM b)").await;
    assert_eq!(seen[0].iter().sum::<i64>(), TOTAL);
    let rows = numbers(&client, "SELECT count(*), count(DISTINCT id) FROM a").await;
    assert_eq!(rows, [[ACCOUNTS as i64, ACCOUNTS as i64]]);
}

/// Each transaction reads some lists and appends to others. What was read tells in which order the appends came: every read
/// must be a prefix of the final list, no committed append may be lost or doubled, and of two transactions that appended to
/// the same list the later must have read what the earlier wrote.
#[tokio::test(flavor = "multi_thread")]
async fn no_append_is_lost_and_every_read_is_a_prefix() {
    const LISTS: u64 = 4;
    let server = busy_server();
    let client = server.client().await;
    for table in ["x", "y"] {
        client.update(&format!("CREATE TABLE {table} (k BIGINT, items TEXT)")).await.unwrap();
        client.update(&format!("INSERT INTO {table} SELECT value, '' FROM generate_series(1, {LISTS})")).await.unwrap();
    }
    let (stop, flusher) = flushing(&server, &["x", "y"]);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { append(&server.client().await, writer, LISTS).await })
        })
        .collect();
    let mut history = Vec::new();
    for writer in writers {
        history.extend(writer.await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    flusher.await.unwrap();
    let mut lists: HashMap<(&str, i64), Vec<u64>> = HashMap::new();
    for table in ["x", "y"] {
        for (k, items) in read(&client, table).await {
            lists.insert((table, k), items);
        }
    }
    let committed = history.iter().filter(|transaction| transaction.committed).count();
    println!("{committed} of {} transactions committed", history.len());
    assert!(committed > WRITERS);
    for transaction in &history {
        for (list, seen) in &transaction.reads {
            assert!(lists[list].starts_with(seen), "{list:?}: {seen:?} is no prefix of {:?}", lists[list]);
        }
        for (list, item) in &transaction.appends {
            let times = lists[list].iter().filter(|known| *known == item).count();
            assert_eq!(times, usize::from(transaction.committed), "item {item} of {list:?}");
            if transaction.committed {
                // First committer wins: nobody else appended between its snapshot and its commit.
                let place = lists[list].iter().position(|known| known == item).unwrap();
                let before: Vec<u64> = transaction.reads[list].clone();
                let own =
                    transaction.appends.iter().filter(|(of, own)| of == list && lists[list][..place].contains(own));
                assert_eq!(place, before.len() + own.count(), "item {item} of {list:?}");
            }
        }
    }
}

struct Appended {
    reads: BTreeMap<(&'static str, i64), Vec<u64>>,
    appends: Vec<((&'static str, i64), u64)>,
    committed: bool,
}

async fn append(client: &Client, writer: usize, lists: u64) -> Vec<Appended> {
    let mut random = Numbers(1000 + writer as u64);
    let mut history = Vec::new();
    for turn in 0..TURNS {
        client.update("BEGIN").await.unwrap();
        let mut reads = BTreeMap::new();
        for table in ["x", "y"] {
            reads.extend(read(client, table).await.into_iter().map(|(k, items)| ((table, k), items)));
        }
        let mut appends = Vec::new();
        for nth in 0..1 + random.below(3) {
            let table = if random.below(2) == 0 { "x" } else { "y" };
            let k = 1 + random.below(lists) as i64;
            let item = (writer * 10_000 + turn * 10) as u64 + nth;
            let sql = format!("UPDATE {table} SET items = items || ',{item}' WHERE k = {k}");
            assert_eq!(client.update(&sql).await.unwrap(), 1);
            appends.push(((table, k), item));
        }
        if random.below(8) == 0 {
            client.update("ROLLBACK").await.unwrap();
            history.push(Appended { reads, appends, committed: false });
            continue;
        }
        let committed = match client.update("COMMIT").await {
            Ok(_) => true,
            Err(error) => {
                assert!(error.to_string().contains("rolled back"), "{error}");
                false
            }
        };
        history.push(Appended { reads, appends, committed });
    }
    history
}

async fn read(client: &Client, table: &str) -> Vec<(i64, Vec<u64>)> {
    let batches = client.query(&format!("SELECT k, items FROM {table}")).await.unwrap().collect().await.unwrap();
    let mut lists = Vec::new();
    for batch in &batches {
        let (ks, items) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
        for row in 0..batch.num_rows() {
            let items = items.value(row).split(',').filter(|item| !item.is_empty());
            lists.push((ks.value(row), items.map(|item| item.parse().unwrap()).collect()));
        }
    }
    lists
}
