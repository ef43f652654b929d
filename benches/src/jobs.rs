//! Queries beside a job that flushes and merges, against the same queries alone: at full speed, and at the rate that
//! `jobs.bytes_per_second_max` leaves it.

use std::time::Duration;

use seracdb_engine::EngineConfig;

use crate::database::Database;
use crate::measure::{Line, Size, median};

/// What a job may read and write in a second when it is bounded.
const BYTES_PER_SECOND: u64 = 16 << 20;

pub(crate) async fn run(size: Size) {
    for (name, bytes_per_second_max) in [("full speed", 0), ("16 MiB/s", BYTES_PER_SECOND)] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = EngineConfig::default();
        config.jobs.bytes_per_second_max = bytes_per_second_max;
        // Only what is asked for runs.
        config.storage.flush.automatic = false;
        config.storage.compaction.automatic = false;
        let database = Database::open_with(dir.path(), config).await;
        fill(&database, "quiet", size.table_rows).await;
        database.run("STORAGE FLUSH TABLE quiet").await;
        let id = database.run("SELECT max(_id) FROM quiet").await[0];
        for (query, sql) in [
            ("point read", format!("SELECT v FROM quiet WHERE _id = {id}")),
            ("aggregate", "SELECT v, count(*) FROM quiet GROUP BY v ORDER BY 2 LIMIT 5".to_owned()),
        ] {
            compare(&database, &format!("beside a job at {name}, {query}"), &sql, size).await;
        }
    }
}

async fn fill(database: &Database, table: &str, rows: usize) {
    database.run(&format!("CREATE TABLE {table} (n BIGINT, v BIGINT, name TEXT)")).await;
    add(database, table, rows).await;
}

async fn add(database: &Database, table: &str, rows: usize) {
    let row = "value, value % 1000, 'name ' || value";
    database.run(&format!("INSERT INTO {table} SELECT {row} FROM generate_series(1, {rows})")).await;
}

async fn compare(database: &Database, label: &str, sql: &str, size: Size) {
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    fill(database, "busy", 0).await;
    for _ in 0..size.rounds {
        alone.push(database.time(sql, 10).await);
        add(database, "busy", 3 * size.table_rows).await;
        for job in ["flush", "compact"] {
            database.run(&format!("RUN JOB {job} '{{\"namespace\": \"default\", \"table\": \"busy\"}}'")).await;
        }
        beside.extend(while_jobs_run(database, sql).await);
    }
    database.run("DROP TABLE busy").await;
    Line::time(label, median(beside), median(alone), "nothing beside").print();
}

/// The times of a query as long as a job waits or runs.
async fn while_jobs_run(database: &Database, sql: &str) -> Vec<Duration> {
    let mut times = Vec::new();
    loop {
        times.push(database.time(sql, 1).await);
        let unfinished = "SELECT count(*) FROM system.jobs WHERE state IN ('queued', 'running', 'retrying')";
        if database.run(unfinished).await[0] == 0 {
            return times;
        }
    }
}
