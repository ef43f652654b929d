//! Reading rows of many versions: scan, aggregate and point read against the same rows at one version.
//!
//! - *flushed*: the whole table is updated and flushed, again and again;
//! - *hot*: flushed once, then updated again and again, unflushed;
//! - *in part*: a random tenth of the rows is updated and flushed, ten times as often.
//!
//! Files are merged by themselves meanwhile, as the defaults have it.

use seracdb_engine::PruningConfig;

use crate::database::Database;
use crate::measure::{Line, Size, median};

const WAYS: [&str; 3] = ["flushed", "hot", "in part"];

pub(crate) async fn run(size: Size) -> Vec<Line> {
    let dir = tempfile::tempdir().expect("a folder");
    let database = Database::open(dir.path(), PruningConfig::default()).await;
    let mut lines = Vec::new();
    make(&database, "once", size.table_rows).await;
    for way in WAYS {
        for versions in size.versions {
            let table = format!("t_{}_{versions}", way.replace(' ', "_"));
            make(&database, &table, size.table_rows).await;
            update(&database, &table, way, versions).await;
            lines.extend(compare(&database, &table, &format!("{way}, {versions}"), size).await);
            database.run(&format!("DROP TABLE {table}")).await;
        }
    }
    lines
}

async fn make(database: &Database, table: &str, rows: usize) {
    database.run(&format!("CREATE TABLE {table} (n BIGINT, v BIGINT, name TEXT)")).await;
    let row = "value, value % 1000, 'name ' || value";
    database.run(&format!("INSERT INTO {table} SELECT {row} FROM generate_series(1, {rows})")).await;
    database.run(&format!("STORAGE FLUSH TABLE {table}")).await;
}

/// Gives each row about so many versions.
async fn update(database: &Database, table: &str, way: &str, versions: usize) {
    let (rounds, part) = if way == "in part" { (10 * (versions - 1), true) } else { (versions - 1, false) };
    for round in 0..rounds {
        // A tenth, another one each time.
        let filter = if part { format!(" WHERE (n * 7919 + {round}) % 10 = 0") } else { String::new() };
        database.run(&format!("UPDATE {table} SET v = v + 1{filter}")).await;
        if way != "hot" {
            database.run(&format!("STORAGE FLUSH TABLE {table}")).await;
        }
    }
}

async fn compare(database: &Database, table: &str, label: &str, size: Size) -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, sql, count) in [
        ("scan", "SELECT * FROM {}", 3),
        ("aggregate", "SELECT name, sum(v) FROM {} GROUP BY name ORDER BY 2 LIMIT 5", 3),
        ("point read", "SELECT v FROM {} WHERE _id = {id}", 20),
    ] {
        let (mut many, mut once) = (Vec::new(), Vec::new());
        let mut sqls = Vec::new();
        for of in [table, "once"] {
            let middle = size.table_rows / 2;
            let id = database.run(&format!("SELECT _id FROM {of} WHERE n = {middle}")).await[0];
            sqls.push(sql.replace("{}", of).replace("{id}", &id.to_string()));
        }
        for _ in 0..=size.rounds {
            many.push(database.time(&sqls[0], count).await);
            once.push(database.time(&sqls[1], count).await);
        }
        lines.push(Line::time(format!("versions, {label}, {name}"), median(many), median(once), "1 version"));
    }
    lines
}
