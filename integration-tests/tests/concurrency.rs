//! Many writers on the same rows, beside flushes: every statement succeeds and none is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use seracdb_client::Client;
use seracdb_integration_tests::TestServer;

async fn number(client: &Client, sql: &str) -> i64 {
    let batches = client.query(sql).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

const WRITERS: i64 = 10;
const UPDATES: i64 = 20;

/// Ten writers add to one row; a further task flushes all the time when told to.
async fn add_up(start_cold: bool, flush_meanwhile: bool) {
    let server = Arc::new(TestServer::start());
    let client = server.client().await;
    client.update("CREATE TABLE counters (name TEXT NOT NULL, n BIGINT NOT NULL)").await.unwrap();
    client.update("INSERT INTO counters VALUES ('a', 0), ('b', 0)").await.unwrap();
    if start_cold {
        client.update("STORAGE FLUSH TABLE counters").await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let flusher = flush_meanwhile.then(|| {
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        tokio::spawn(async move {
            let client = server.client().await;
            let mut flushes = 0;
            while !done.load(Ordering::Relaxed) {
                client.update("STORAGE FLUSH ALL").await.unwrap();
                flushes += 1;
            }
            assert!(flushes > 1, "no flush ran beside the updates");
        })
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let client = server.client().await;
                for _ in 0..UPDATES {
                    let changed = client.update("UPDATE counters SET n = n + 1 WHERE name = 'a'").await.unwrap();
                    assert_eq!(changed, 1);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    if let Some(flusher) = flusher {
        flusher.await.unwrap();
    }
    assert_eq!(number(&client, "SELECT n FROM counters WHERE name = 'a'").await, WRITERS * UPDATES);
    assert_eq!(number(&client, "SELECT n FROM counters WHERE name = 'b'").await, 0);
    assert_eq!(number(&client, "SELECT count(*) FROM counters").await, 2);

    let server = Arc::into_inner(server).expect("every task has ended").kill_and_restart();
    let client = server.client().await;
    assert_eq!(number(&client, "SELECT n FROM counters WHERE name = 'a'").await, WRITERS * UPDATES);
    assert_eq!(number(&client, "SELECT count(*) FROM counters").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_writers_on_one_hot_row() {
    add_up(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_writers_on_one_flushed_row() {
    add_up(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_writers_on_one_row_while_it_is_flushed() {
    add_up(true, true).await;
}

/// Readers see each commit whole: the sum over two rows that change together never differs.
#[tokio::test(flavor = "multi_thread")]
async fn readers_never_see_half_a_commit() {
    let server = Arc::new(TestServer::start());
    let client = server.client().await;
    client.update("CREATE TABLE pair (name TEXT, n BIGINT)").await.unwrap();
    client.update("INSERT INTO pair VALUES ('a', 500), ('b', 500)").await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        tokio::spawn(async move {
            let client = server.client().await;
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(number(&client, "SELECT sum(n) FROM pair").await, 1000);
                assert_eq!(number(&client, "SELECT count(*) FROM pair").await, 2);
                reads += 1;
            }
            reads
        })
    };
    for i in 0..40 {
        let move_some = "UPDATE pair SET n = CASE name WHEN 'a' THEN n - 7 ELSE n + 7 END";
        assert_eq!(client.update(move_some).await.unwrap(), 2);
        if i % 5 == 0 {
            client.update("STORAGE FLUSH TABLE pair").await.unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0);
}
