//! INSERT, UPDATE and DELETE of one row over Flight: hot and persisted, with and without the fsync.
//!
//! With the fsync the peer is the disk: appending as many bytes to a file and syncing it. Without it the peer is the way
//! to the server and back: `SELECT 1`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use seracdb_client::Client;
use seracdb_integration_tests::TestServer;

use crate::measure::{Line, Size, median};

/// Bytes of a row's log record, about.
const RECORD: [u8; 200] = [7; 200];

pub(crate) async fn run(size: Size) {
    for (durability, label, against) in
        [("fsync", "fsync", "append 200 B and fdatasync"), ("relaxed", "no fsync", "SELECT 1")]
    {
        let server = TestServer::start_with(&[("SERACDB_STORAGE__DURABILITY", durability)]);
        let client = server.client().await;
        for tier in ["hot", "persisted"] {
            let table = format!("t_{tier}");
            load(&client, &table, size.table_rows).await;
            let mut next = Next { ids: row_ids(&client, &table).await, tier };
            for (name, sql) in [
                ("insert", format!("INSERT INTO {table} VALUES (?, 'new')")),
                ("update", format!("UPDATE {table} SET name = 'changed' WHERE _id = ?")),
                ("delete", format!("DELETE FROM {table} WHERE _id = ?")),
            ] {
                let (mut ours, mut peer) = (Vec::new(), Vec::new());
                for _ in 0..size.rounds {
                    ours.push(statements(&client, &sql, &mut next, size.statements).await);
                    peer.push(match durability {
                        "fsync" => appends(server.data_dir(), size.statements),
                        _ => round_trips(&client, size.statements).await,
                    });
                }
                Line::time(format!("rows, {name}, {tier}, {label}"), median(ours), median(peer), against).print();
            }
        }
    }
}

async fn load(client: &Client, table: &str, rows: usize) {
    let run = async |sql: String| client.update(&sql).await.expect("a statement of the benchmark");
    run(format!("CREATE TABLE {table} (n BIGINT, name TEXT)")).await;
    run(format!("INSERT INTO {table} SELECT value, 'name' FROM generate_series(1, {rows})")).await;
    if table.ends_with("persisted") {
        run("STORAGE FLUSH ALL".into()).await;
    }
}

/// Rows that no statement has touched yet.
struct Next {
    ids: Vec<i64>,
    tier: &'static str,
}

async fn row_ids(client: &Client, table: &str) -> Vec<i64> {
    // Spread over the table, as keys are in life.
    let rows = client.query(&format!("SELECT _id FROM {table} ORDER BY md5(name || n)")).await.expect("the ids");
    let batches = rows.collect().await.expect("the ids");
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// The time of one statement.
async fn statements(client: &Client, sql: &str, next: &mut Next, count: usize) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        let id = next.ids.pop().expect("the table has more rows than the benchmark touches");
        let changed = client.update(&sql.replace('?', &id.to_string())).await;
        assert_eq!(changed.expect("a statement of the benchmark"), 1, "{} row {id}", next.tier);
    }
    start.elapsed() / count as u32
}

/// The time of one query of nothing.
async fn round_trips(client: &Client, count: usize) -> Duration {
    let start = Instant::now();
    for _ in 0..count {
        let rows = client.query("SELECT 1").await.expect("SELECT 1").collect().await;
        assert_eq!(rows.expect("its rows")[0].num_rows(), 1);
    }
    start.elapsed() / count as u32
}

/// The time of one synced append.
fn appends(folder: &Path, count: usize) -> Duration {
    let path = folder.join("appended");
    let mut file = File::create(&path).expect("a file for the peer");
    let start = Instant::now();
    for _ in 0..count {
        file.write_all(&RECORD).and_then(|()| file.sync_data()).expect("an append of the peer");
    }
    start.elapsed() / count as u32
}
