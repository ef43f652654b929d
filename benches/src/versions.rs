//! Reading rows of many versions: scan, aggregate and point read against the same rows at one version.
//!
//! - *flushed*: the whole table is updated and flushed, again and again;
//! - *in part*: a random tenth of the rows is updated and flushed, ten times as often;
//! - *hot*: never flushed by a statement. In the small table the versions stay hot until there are too many, and the peer is
//!   hot too; the large one has too many soon, so that its peer is a flushed one.
//!
//! Hot rows are flushed and files merged by themselves meanwhile, as the defaults have it.

use crate::database::Database;
use crate::measure::{Line, Size, median};

/// How a table gets its versions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Flushed,
    InPart,
    Hot,
}

pub(crate) async fn run(size: Size) {
    let dir = tempfile::tempdir().expect("a folder");
    let database = Database::open(dir.path()).await;
    for (name, way, rows) in [
        ("flushed", Way::Flushed, size.table_rows),
        ("in part", Way::InPart, size.table_rows),
        ("hot", Way::Hot, size.table_rows),
        ("hot, small", Way::Hot, size.small_table_rows),
    ] {
        make(&database, "once", way, rows).await;
        if rows == size.table_rows {
            database.run("STORAGE FLUSH TABLE once").await;
        }
        for versions in size.versions {
            make(&database, "many", way, rows).await;
            update(&database, way, versions).await;
            compare(&database, &format!("{name}, {versions}"), rows, size.rounds).await;
            database.run("DROP TABLE many").await;
        }
        database.run("DROP TABLE once").await;
    }
}

async fn make(database: &Database, table: &str, way: Way, rows: usize) {
    database.run(&format!("CREATE TABLE {table} (n BIGINT, v BIGINT, name TEXT)")).await;
    let row = "value, value % 1000, 'name ' || value";
    database.run(&format!("INSERT INTO {table} SELECT {row} FROM generate_series(1, {rows})")).await;
    if way != Way::Hot {
        database.run(&format!("STORAGE FLUSH TABLE {table}")).await;
    }
}

/// Gives each row about so many versions.
async fn update(database: &Database, way: Way, versions: usize) {
    let rounds = if way == Way::InPart { 10 * (versions - 1) } else { versions - 1 };
    for round in 0..rounds {
        // A tenth, another one each time.
        let filter = if way == Way::InPart { format!(" WHERE (n * 7919 + {round}) % 10 = 0") } else { String::new() };
        database.run(&format!("UPDATE many SET v = v + 1{filter}")).await;
        if way != Way::Hot {
            database.run("STORAGE FLUSH TABLE many").await;
        }
    }
}

async fn compare(database: &Database, label: &str, rows: usize, rounds: usize) {
    for (name, sql, count) in [
        ("scan", "SELECT * FROM {}", 3),
        ("aggregate", "SELECT name, sum(v) FROM {} GROUP BY name ORDER BY 2 LIMIT 5", 3),
        ("point read", "SELECT v FROM {} WHERE _id = {id}", 20),
    ] {
        let (mut many, mut once) = (Vec::new(), Vec::new());
        let mut sqls = Vec::new();
        for of in ["many", "once"] {
            let id = database.run(&format!("SELECT _id FROM {of} WHERE n = {}", rows / 2)).await[0];
            sqls.push(sql.replace("{}", of).replace("{id}", &id.to_string()));
        }
        for _ in 0..=rounds {
            many.push(database.time(&sqls[0], count).await);
            once.push(database.time(&sqls[1], count).await);
        }
        Line::time(format!("versions, {label}, {name}"), median(many), median(once), "1 version").print();
    }
}
