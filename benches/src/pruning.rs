//! Finding the files of a query among many: by time, by key and by an indexed value.
//!
//! Planned only (EXPLAIN), the peer is the same plan over one file: what lies between them is the pruning. Run, the peer is
//! the same query on the same files with nothing pruned.

use std::path::Path;
use std::time::Duration;

use seracdb_engine::{EngineConfig, PruningConfig, Pushdown};

use crate::database::Database;
use crate::measure::{Line, Size, median};

const ROWS_A_FILE: usize = 100;
const NOTHING: PruningConfig =
    PruningConfig { bounds: false, bloom: false, page_index: false, pushdown: Pushdown::Never };

/// Without compaction: the files are to stay as many as they are.
async fn open(dir: &Path, pruning: PruningConfig) -> Database {
    let mut config = EngineConfig { pruning, ..EngineConfig::default() };
    config.storage.compaction.automatic = false;
    Database::open_with(dir, config).await
}

async fn load(database: &Database, table: &str, files: usize) {
    database.run(&format!("CREATE TABLE {table} (k BIGINT, name TEXT)")).await;
    database.run(&format!("CREATE INDEX {table}_name ON {table} (name)")).await;
    let rows = files * ROWS_A_FILE;
    for first in (0..rows).step_by(ROWS_A_FILE) {
        let last = first + ROWS_A_FILE - 1;
        let name = format!("'name ' || (value * 7919 % {rows})");
        database.run(&format!("INSERT INTO {table} SELECT value, {name} FROM generate_series({first}, {last})")).await;
        database.run(&format!("STORAGE FLUSH TABLE {table}")).await;
    }
}

pub(crate) async fn run(size: Size) {
    let dir = tempfile::tempdir().expect("a folder");
    let database = open(dir.path(), PruningConfig::default()).await;
    load(&database, "many", size.files).await;
    load(&database, "one", 1).await;
    let middle = size.files * ROWS_A_FILE / 2;
    let id = database.run(&format!("SELECT _id FROM many WHERE k = {middle}")).await[0];
    let since = format!("(SELECT max(_updated) FROM many WHERE k = {})", size.files * ROWS_A_FILE - 1);
    let since = database.run(&format!("SELECT CAST({since} AS BIGINT)")).await[0];
    let queries = [
        ("time range", format!("_updated >= to_timestamp_nanos({since})")),
        ("key", format!("_id = {id}")),
        ("indexed value", "name = 'name 5x'".to_owned()),
    ];
    let sql = |table: &str, filter: &str| format!("SELECT k FROM {table} WHERE {filter}");

    for (name, filter) in &queries {
        let (mut many, mut one) = (Vec::new(), Vec::new());
        for _ in 0..=size.rounds {
            many.push(database.time(&format!("EXPLAIN {}", sql("many", filter)), 20).await);
            one.push(database.time(&format!("EXPLAIN {}", sql("one", filter)), 20).await);
        }
        let (many, one) = (median(many), median(one));
        Line::time(format!("pruning, {name}, planned"), many, one, "planned over one file").print();
        if *name == "indexed value" {
            let each = many.saturating_sub(one) / size.files as u32;
            Line::time("pruning, a file's Bloom test", each, Duration::from_micros(10), "aim").print();
        }
    }
    let mut ours = vec![Vec::new(); queries.len()];
    for _ in 0..size.rounds {
        for (times, (_, filter)) in ours.iter_mut().zip(&queries) {
            times.push(database.time(&sql("many", filter), 5).await);
        }
    }
    database.engine.close().await.expect("the engine closes");
    drop(database);
    let database = open(dir.path(), NOTHING).await;
    for ((name, filter), ours) in queries.iter().zip(ours) {
        let mut peer = Vec::new();
        for _ in 0..size.rounds.min(3) {
            peer.push(database.time(&sql("many", filter), 1).await);
        }
        Line::time(format!("pruning, {name}, run"), median(ours), median(peer), "without pruning").print();
    }
}
