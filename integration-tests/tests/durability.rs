//! What was acknowledged is there after the server was killed; what was not is wholly there or wholly absent.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use seracdb_client::{Client, IngestMode};
use seracdb_integration_tests::TestServer;

async fn numbers(client: &Client, sql: &str) -> Vec<i64> {
    let batches = client.query(sql).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_hot_rows_survive_a_kill() {
    const ROWS: i64 = 1_000_000;
    let server = TestServer::start();
    let client = server.client().await;
    let batches = (0..ROWS).step_by(50_000).map(|first| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + 50_000));
        let names: ArrayRef =
            Arc::new(StringArray::from_iter_values((first..first + 50_000).map(|i| format!("row {i}"))));
        Ok(RecordBatch::try_from_iter([("i", ids), ("name", names)]).unwrap())
    });
    let schema = Schema::new(vec![Field::new("i", DataType::Int64, false), Field::new("name", DataType::Utf8, false)]);
    let stream = futures::stream::iter(batches);
    let loaded = client.ingest("big", Arc::new(schema), stream, IngestMode::Create).await.unwrap();
    assert_eq!(loaded, ROWS as u64);

    let server = server.kill_and_restart();
    let client = server.client().await;
    assert_eq!(numbers(&client, "SELECT count(*) FROM big").await, [ROWS]);
    assert_eq!(numbers(&client, "SELECT sum(i) FROM big").await, [ROWS * (ROWS - 1) / 2]);
    assert_eq!(client.update("UPDATE big SET name = 'changed' WHERE i = 777777").await.unwrap(), 1);
    assert_eq!(numbers(&client, "SELECT i FROM big WHERE name = 'changed'").await, [777_777]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_timestamps_rise_over_restarts() {
    let mut server = TestServer::start();
    server.client().await.update("CREATE TABLE t (n BIGINT)").await.unwrap();
    for round in 0..4 {
        let client = server.client().await;
        client.update(&format!("INSERT INTO t VALUES ({round}), ({round})")).await.unwrap();
        if round == 1 {
            client.update("STORAGE FLUSH TABLE t").await.unwrap();
        }
        server = if round % 2 == 0 { server.kill_and_restart() } else { server.stop_and_restart() };
    }
    let client = server.client().await;
    let by_id = numbers(&client, "SELECT n FROM t ORDER BY _id").await;
    assert_eq!(by_id, [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(numbers(&client, "SELECT count(DISTINCT _id) FROM t").await, [8]);
    assert_eq!(numbers(&client, "SELECT count(DISTINCT _updated) FROM t").await, [4]);
    assert_eq!(numbers(&client, "SELECT n FROM t ORDER BY _updated, _id").await, by_id);
}

/// A dropped table's rows and files go; a new one of its name starts empty, also after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_stays_dropped() {
    let server = TestServer::start();
    let client = server.client().await;
    for sql in
        ["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (1)", "STORAGE FLUSH TABLE t", "INSERT INTO t VALUES (2)"]
    {
        client.update(sql).await.unwrap();
    }
    client.update("DROP TABLE t").await.unwrap();
    client.update("CREATE TABLE t (n BIGINT)").await.unwrap();
    client.update("INSERT INTO t VALUES (3)").await.unwrap();
    client.update("STORAGE FLUSH TABLE t").await.unwrap();
    let server = server.kill_and_restart();
    let client = server.client().await;
    assert_eq!(numbers(&client, "SELECT n FROM t").await, [3]);
    let objects = server.data_dir().join("objects/default");
    assert!(!objects.join("t").exists(), "the files of the dropped table are still there");
    assert!(objects.join("t~2/shared/batch-0001.parquet").exists());
}
