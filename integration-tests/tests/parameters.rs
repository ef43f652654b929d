//! Parameters of what writes: each has the type of the column that it goes into, and keeps its digits on the way.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use seracdb_client::Client;
use seracdb_integration_tests::TestServer;

async fn types(client: &Client, sql: &str) -> Vec<DataType> {
    let statement = client.prepare(sql).await.unwrap();
    let types = statement.parameters().fields().iter().map(|field| field.data_type().clone()).collect();
    statement.close().await.unwrap();
    types
}

#[tokio::test(flavor = "multi_thread")]
async fn the_types_are_those_of_the_columns_that_can_be_given() {
    let server = TestServer::start();
    let client = server.client().await;
    client
        .update(
            "CREATE TABLE g (twice DOUBLE GENERATED ALWAYS AS (k * 2.0) STORED, k INT PRIMARY KEY, s TEXT, n BIGINT)",
        )
        .await
        .unwrap();
    for sql in [
        "INSERT INTO g VALUES (?, ?, ?)",
        "INSERT INTO g VALUES (?, ?, ?), (1, (SELECT 'a'), 2)",
        "INSERT INTO g SELECT ?, ?, ?",
        "INSERT INTO g (k, s, n) VALUES (?, ?, ?)",
        "MERGE INTO g USING (VALUES (1)) AS v(k) ON g.k = v.k WHEN NOT MATCHED THEN INSERT VALUES (?, ?, ?)",
        "MERGE INTO g USING (VALUES (1)) AS v(k) ON g.k = v.k WHEN MATCHED THEN UPDATE SET k = ?, s = ?, n = ? WHEN NOT MATCHED THEN INSERT (k) VALUES (1.5)",
    ] {
        assert_eq!(types(&client, sql).await, [DataType::Int32, DataType::Utf8, DataType::Int64], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_value_of_a_merge_keeps_its_digits_beside_a_double() {
    let server = TestServer::start();
    let client = server.client().await;
    client.update("CREATE TABLE m (k INT PRIMARY KEY, n BIGINT)").await.unwrap();
    client.update("INSERT INTO m VALUES (1, 0), (2, 0)").await.unwrap();
    let sql = "MERGE INTO m USING (VALUES (1), (2)) AS v(k) ON m.k = v.k WHEN MATCHED AND v.k = 1 THEN UPDATE SET n = ? WHEN MATCHED THEN UPDATE SET n = 1e3";
    let mut statement = client.prepare(sql).await.unwrap();
    let value: ArrayRef = Arc::new(Int64Array::from(vec![9_007_199_254_740_993]));
    statement.bind(RecordBatch::try_from_iter([("$1", value)]).unwrap());
    assert_eq!(statement.update().await.unwrap(), 2);
    statement.close().await.unwrap();
    let rows = client.query("SELECT n FROM m ORDER BY k").await.unwrap().collect().await.unwrap();
    let rows: Vec<i64> =
        rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(rows, [9_007_199_254_740_993, 1000]);
}
