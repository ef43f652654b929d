//! What is not read is never missed: files, row groups and pages are left out by bounds and Bloom filters, and the rows are
//! those of a scan of everything.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use seracdb_engine::{Engine, EngineConfig, Outcome, PruningConfig, Pushdown, Role, Session};
use tempfile::TempDir;

use crate::{on_query_threads, open_when_free};

struct Database {
    dir: TempDir,
    engine: Arc<Engine>,
    session: Session,
}

impl Database {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path(), PruningConfig::default()).await;
        engine.create_user("root", "pw", Role::System).await.unwrap();
        let session = Session::new(engine.authenticate("root", "pw").await.unwrap());
        Self { dir, engine, session }
    }

    async fn reopened(self, pruning: PruningConfig) -> Self {
        let Self { dir, engine, session } = self;
        engine.close().await.unwrap();
        drop(engine);
        let engine = open(dir.path(), pruning).await;
        Self { dir, engine, session }
    }

    async fn outcome(&self, sql: &str) -> Outcome {
        let prepared = self.engine.prepare(&self.session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        self.engine.execute(&self.session, &prepared, None).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    async fn run(&self, sql: &str) {
        match self.outcome(sql).await {
            Outcome::Changed(_) => {}
            Outcome::Rows(_) => panic!("{sql} gave rows"),
        }
    }

    /// The first column, in text.
    async fn texts(&self, sql: &str) -> Vec<String> {
        let Outcome::Rows(stream) = self.outcome(sql).await else { panic!("no rows") };
        let batches: Vec<_> = stream.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
        rows.map(|(batch, row)| array_value_to_string(batch.column(batch.num_columns() - 1), row).unwrap()).collect()
    }

    async fn ids(&self, sql: &str) -> Vec<i64> {
        let Outcome::Rows(stream) = self.outcome(sql).await else { panic!("no rows") };
        let batches: Vec<_> = stream.try_collect().await.unwrap();
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    async fn ks(&self, sql: &str) -> Vec<i32> {
        let Outcome::Rows(stream) = self.outcome(sql).await else { panic!("no rows") };
        let batches: Vec<_> = stream.try_collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let ks = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values().to_vec());
        let mut ks: Vec<i32> = ks.collect();
        ks.sort_unstable();
        ks
    }

    async fn analyzed(&self, sql: &str) -> Analyzed {
        let before = self.engine.scan_totals();
        let plan = self.texts(&format!("EXPLAIN ANALYZE {sql}")).await.join("\n");
        let totals = self.engine.scan_totals().map(|(name, _)| name);
        let totals = totals.into_iter().zip(self.engine.scan_totals().into_iter().zip(before));
        Analyzed { plan, added: totals.map(|(name, (after, before))| (name, after.1 - before.1)).collect() }
    }

    fn file(&self, table: &str, name: &str) -> PathBuf {
        self.dir.path().join("objects/default").join(table).join("shared").join(name)
    }
}

async fn open(dir: &Path, pruning: PruningConfig) -> Arc<Engine> {
    let mut config = EngineConfig { pruning, ..EngineConfig::default() };
    config.storage.data_dir = dir.to_owned();
    // A file a flush: the tests count them.
    config.storage.compaction.automatic = false;
    open_when_free(|| Engine::open(config.clone())).await
}

/// What EXPLAIN ANALYZE says, and what the statement added to the sums.
struct Analyzed {
    plan: String,
    added: Vec<(&'static str, u64)>,
}

impl Analyzed {
    /// A figure below the scan's line, which the sums must agree with.
    fn figure(&self, name: &str) -> u64 {
        let at = self.plan.find("DataSourceExec").unwrap_or_else(|| panic!("{}", self.plan));
        let line = &self.plan[at..];
        let added = self.added.iter().find(|(known, _)| *known == name).unwrap().1;
        let shown = line.split([' ', '[', ']', ',', '\n']).find_map(|part| part.strip_prefix(&format!("{name}=")));
        let shown = shown.unwrap_or_else(|| panic!("no {name} in {line}"));
        // Numbers from 1,000 on are rounded.
        if added < 1000 {
            assert_eq!(shown, added.to_string(), "{name} in {line}");
        }
        added
    }

    /// Files in all, left out and opened.
    fn files(&self) -> (u64, u64, u64) {
        (self.figure("batches_total"), self.figure("batches_skipped"), self.figure("batches_scanned"))
    }
}

/// `files` files of `rows` rows; `k` counts on, `name` is spread over all files, `file` is the file's number.
async fn load(database: &Database, table: &str, files: i64, rows: i64) {
    for file in 0..files {
        let (first, last) = (file * rows, (file + 1) * rows - 1);
        let name = format!("'name ' || (value * 7919 % {})", files * rows);
        database
            .run(&format!("INSERT INTO {table} SELECT value, {name}, {file} FROM generate_series({first}, {last})"))
            .await;
        database.run(&format!("STORAGE FLUSH TABLE {table}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_one_file_of_ten() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (k BIGINT, name TEXT, file INT)").await;
    database.run("CREATE INDEX by_name ON t (name)").await;
    load(&database, "t", 10, 10_000).await;

    let id = database.ids("SELECT _id FROM t WHERE k = 34567").await[0];
    let by_id = database.analyzed(&format!("SELECT name FROM t WHERE _id = {id}")).await;
    assert_eq!(by_id.files(), (10, 9, 1), "{}", by_id.plan);
    assert_eq!(by_id.figure("bloom_filter_false_positives"), 0, "{}", by_id.plan);
    let absent = database.analyzed(&format!("SELECT name FROM t WHERE _id = {}", id + 1)).await;
    assert!(absent.figure("batches_scanned") <= 1, "{}", absent.plan);

    // Every file's names reach from the first to the last: only the Bloom filters tell them apart.
    let by_name = database.analyzed("SELECT k FROM t WHERE name = 'name 4711'").await;
    assert!((1..=3).contains(&by_name.figure("batches_scanned")), "{}", by_name.plan);
    assert_eq!(by_name.figure("bloom_filter_tests"), 10, "{}", by_name.plan);
    let (skips, wrong) = (by_name.figure("bloom_filter_skips"), by_name.figure("bloom_filter_false_positives"));
    assert_eq!(skips + wrong + 1, 10, "{}", by_name.plan);
    assert_eq!(database.ids("SELECT count(*) FROM t WHERE name = 'name 4711'").await, [1]);
    let none = database.analyzed("SELECT k FROM t WHERE name = 'name 4711x'").await;
    assert!(none.figure("batches_scanned") <= 2, "{}", none.plan);

    let several = database.analyzed("SELECT k FROM t WHERE name IN ('name 1', 'name 2', 'name x', 'name y')").await;
    assert!((1..=4).contains(&several.figure("batches_scanned")), "{}", several.plan);
    assert_eq!(database.ids("SELECT count(*) FROM t WHERE name IN ('name 1', 'name 2', 'name x')").await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_filter_leaves_out_files() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (k BIGINT, name TEXT, file INT)").await;
    load(&database, "t", 10, 100).await;
    database.run("INSERT INTO t VALUES (5000, NULL, NULL), (5001, NULL, NULL)").await;
    database.run("STORAGE FLUSH TABLE t").await;
    let times = database.texts("SELECT max(_updated) FROM t GROUP BY file ORDER BY 1").await;
    let many = (0..150).map(|i| (i * 2 + 300).to_string()).collect::<Vec<_>>().join(", ");
    for (filter, opened) in [
        ("k = 250".to_owned(), 1),
        ("k BETWEEN 250 AND 350".into(), 2),
        ("k < 100 OR k > 4999".into(), 2),
        ("k IN (5, 10, 950)".into(), 2),
        ("k IN (5, 10, 950, 951, 952)".into(), 2),
        (format!("k IN ({many})"), 3),
        ("file IS NULL".into(), 1),
        ("file IS NOT NULL AND k > 400".into(), 6),
        ("name IS NULL AND k < 5000".into(), 0),
        ("name LIKE 'nom%'".into(), 0),
        ("name LIKE 'name 1%'".into(), 10),
        ("name NOT LIKE 'name%'".into(), 0),
        ("file <> 3".into(), 9),
        ("k > 100000".into(), 0),
        (format!("_updated > TIMESTAMP '{}'", times[7]), 3),
        (format!("_updated <= TIMESTAMP '{}'", times[1]), 2),
        (format!("_updated = TIMESTAMP '{}'", times[4]), 1),
    ] {
        let analyzed = database.analyzed(&format!("SELECT name, k FROM t WHERE {filter}")).await;
        assert_eq!(analyzed.files(), (11, 11 - opened, opened), "{filter}\n{}", analyzed.plan);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_rows_are_counted_and_files_without_rows_left_out() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (k BIGINT, name TEXT, file INT)").await;
    load(&database, "t", 3, 100).await;
    database.run("DELETE FROM t WHERE k < 110").await;
    let analyzed = database.analyzed("SELECT name FROM t").await;
    assert_eq!(analyzed.files(), (3, 1, 2), "{}", analyzed.plan);
    assert_eq!(analyzed.figure("rows_masked"), 10);
    database.run("UPDATE t SET name = 'changed' WHERE k = 250").await;
    let id = database.ids("SELECT _id FROM t WHERE k = 250").await[0];
    assert_eq!(database.texts(&format!("SELECT name FROM t WHERE _id = {id}")).await, ["changed"]);
    database.run("STORAGE FLUSH TABLE t").await;
    assert_eq!(database.texts(&format!("SELECT name FROM t WHERE _id = {id}")).await, ["changed"]);
    database.run(&format!("UPDATE t SET name = 'again' WHERE _id = {id}")).await;
    database
        .run(&format!("DELETE FROM t WHERE _id = {}", database.ids("SELECT _id FROM t WHERE k = 251").await[0]))
        .await;
    assert_eq!(database.texts(&format!("SELECT name FROM t WHERE _id = {id}")).await, ["again"]);
    assert_eq!(database.ids("SELECT count(*) FROM t").await, [189]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_among_a_hundred_files_costs_a_tenth_of_the_bytes() {
    let database = Database::new().await;
    for (table, options) in [("with", ""), ("without", " WITH (bloom_disabled = '_id, name')")] {
        database.run(&format!("CREATE TABLE {table} (k BIGINT, name TEXT, file INT){options}")).await;
        database.run(&format!("CREATE INDEX {table}_name ON {table} (name)")).await;
        load(&database, table, 100, 200).await;
    }
    let sql = |table: &str| format!("SELECT k FROM {table} WHERE name = 'name 77'");
    let without = database.analyzed(&sql("without")).await;
    assert_eq!(without.figure("bloom_filter_tests"), 0);
    // The sidecars are read once and stay in memory.
    database.analyzed(&sql("with")).await;
    let with = database.analyzed(&sql("with").replace("77", "78")).await;
    assert!(with.figure("batches_scanned") <= 8, "{}", with.plan);
    let (less, more) = (with.figure("bytes_read"), without.figure("bytes_read"));
    assert!(less * 10 <= more, "{less} bytes against {more}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_positive_costs_a_look_and_no_row() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (k BIGINT, name TEXT, file INT) WITH (bloom_fpp = 0.999)").await;
    database.run("CREATE INDEX ON t (name)").await;
    load(&database, "t", 5, 2_000).await;
    let mut wrong = 0;
    for number in 0..20 {
        let sql = format!("SELECT k FROM t WHERE name = 'name 5{number}x'");
        let analyzed = database.analyzed(&sql).await;
        let (skips, opened) = (analyzed.figure("bloom_filter_skips"), analyzed.figure("batches_scanned"));
        assert_eq!(skips + opened, 5, "{}", analyzed.plan);
        assert_eq!(analyzed.figure("bloom_filter_false_positives"), opened, "{}", analyzed.plan);
        wrong += opened;
        assert_eq!(database.ids(&sql).await, [0i64; 0]);
        assert_eq!(database.ids(&format!("SELECT count(*) FROM t WHERE name = 'name {number}'")).await, [1]);
    }
    assert!(wrong > 10, "a filter of this quality says maybe almost always, but {wrong} of 100 times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_sidecar_loses_no_row() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (k BIGINT, name TEXT, file INT)").await;
    database.run("CREATE INDEX ON t (name)").await;
    load(&database, "t", 3, 100).await;
    let sidecar = |number: u32| database.file("t", &format!("batch-000{number}.bloom"));
    std::fs::remove_file(sidecar(1)).unwrap();
    let mut bytes = std::fs::read(sidecar(2)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0);
    std::fs::write(sidecar(2), bytes).unwrap();
    for k in (0..300).step_by(7) {
        let name = format!("name {}", k * 7919 % 300);
        assert_eq!(database.ids(&format!("SELECT k FROM t WHERE name = '{name}'")).await, [k], "{name}");
    }
    let absent = database.analyzed("SELECT k FROM t WHERE name = 'name 15x'").await;
    assert_eq!((absent.figure("batches_scanned"), absent.figure("bloom_filter_tests")), (2, 1), "{}", absent.plan);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_indexes_say_what_gets_a_filter() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (k BIGINT, name TEXT, file INT) WITH (bloom_disabled = '_id,_updated')").await;
    load(&database, "t", 1, 10).await;
    assert!(!database.file("t", "batch-0001.bloom").exists());
    database.run("CREATE INDEX by_name ON t (name, k)").await;
    load(&database, "t", 1, 10).await;
    assert!(database.file("t", "batch-0002.bloom").exists());
    let both = database.analyzed("SELECT k FROM t WHERE name = 'name 3' AND k = 1000").await;
    assert_eq!(both.figure("batches_scanned"), 0, "{}", both.plan);
    database.run("DROP INDEX by_name").await;
    load(&database, "t", 1, 10).await;
    assert!(!database.file("t", "batch-0003.bloom").exists());
    // What has filters keeps them.
    let analyzed = database.analyzed("SELECT k FROM t WHERE name = 'name 3x'").await;
    assert_eq!(analyzed.figure("bloom_filter_tests"), 1, "{}", analyzed.plan);
    // Bounds rule out everything but the names between the first and the last.
    assert_eq!(database.ids("SELECT count(*) FROM t WHERE name = 'name 3'").await, [3]);
}

/// A type, values of it in its order, and whether it is text.
struct Case {
    type_name: &'static str,
    values: Vec<String>,
}

fn case(type_name: &'static str, values: &[&str]) -> Case {
    Case { type_name, values: values.iter().map(|value| (*value).to_owned()).collect() }
}

fn cases() -> Vec<Case> {
    let long = |end: &str| format!("'{}{end}'", "long text ".repeat(20));
    let ints = ["-100", "-1", "0", "7", "100"];
    let mut cases = vec![
        case("BOOLEAN", &["false", "true"]),
        case("TINYINT", &["-128", "-1", "0", "7", "127"]),
        case("SMALLINT", &["-32768", "-1", "0", "7", "32767"]),
        case("INT", &ints),
        case("BIGINT", &["-9223372036854775808", "-1", "0", "7", "9223372036854775807"]),
        case("TINYINT UNSIGNED", &["0", "1", "7", "127", "255"]),
        case("SMALLINT UNSIGNED", &["0", "1", "7", "32768", "65535"]),
        case("INT UNSIGNED", &["0", "1", "7", "2147483648", "4294967295"]),
        case("BIGINT UNSIGNED", &["0", "1", "7", "9223372036854775808", "18446744073709551615"]),
        case("REAL", &["-1.5", "CAST('-0.0' AS REAL)", "0.0", "0.1", "1e30"]),
        case("DOUBLE", &["-1.5", "CAST('-0.0' AS DOUBLE)", "0.0", "0.1", "1e300"]),
        case("DOUBLE", &["CAST('-inf' AS DOUBLE)", "-1.5", "0.0", "CAST('inf' AS DOUBLE)", "CAST('NaN' AS DOUBLE)"]),
        case("REAL", &["0.0", "CAST('NaN' AS REAL)"]),
        case("NUMERIC(9, 2)", &["-9999999.99", "-0.01", "0", "0.01", "9999999.99"]),
        case("NUMERIC(18, 4)", &["-99999999999999.9999", "-0.0001", "0", "12.5", "99999999999999.9999"]),
        case("NUMERIC(38, 10)", &["-1234567890123456789.5", "-1", "0", "1.0000000001", "1234567890123456789.5"]),
        case("NUMERIC(50, 20)", &["-1.5", "0", "0.00000000000000000001", "2.5"]),
        case("BYTEA", &["X'00'", "X'00ff'", "X'7f'", "X'80'", "X'ff'"]),
        case("DATE", &["DATE '0001-01-01'", "DATE '1969-12-31'", "DATE '2024-02-29'", "DATE '9999-12-31'"]),
        case("TIME", &["'00:00:00'", "'12:30:00.000001'", "'23:59:59.999999'"]),
    ];
    let text = ["''", "'a'", "'ab'", "'name'", "'ä'", "'😀'"].map(str::to_owned);
    let mut values = text.to_vec();
    values.splice(3..3, [long(""), long("x"), long("\u{10ffff}"), long("\u{10ffff}\u{10ffff}")]);
    cases.push(Case { type_name: "TEXT", values });
    for type_name in ["TIMESTAMP(0)", "TIMESTAMP(3)", "TIMESTAMP", "TIMESTAMP(9)", "TIMESTAMPTZ"] {
        let zone = if type_name.ends_with("TZ") { "+00:00" } else { "" };
        let stamp = |text: &str| format!("CAST('{text}{zone}' AS {type_name})");
        let values = ["1900-01-01T00:00:00", "1969-12-31T23:59:59", "2024-02-29T12:00:00", "2200-01-01T00:00:00"];
        cases.push(Case { type_name, values: values.map(stamp).to_vec() });
    }
    cases
}

impl Case {
    /// Filters that find some of the rows.
    fn filters(&self) -> Vec<String> {
        let mut filters = vec!["v IS NULL".to_owned(), "v IS NOT NULL".into(), "v IS NULL OR k = 3".into()];
        for value in &self.values {
            for operator in ["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"] {
                filters.push(format!("v {operator} {value}"));
            }
            filters.push(format!("v = {value} AND k < 20"));
            filters.push(format!("v = {value} OR k = 5"));
        }
        let (first, last) = (&self.values[0], &self.values[self.values.len() - 1]);
        filters.push(format!("v IN ({first}, {last})"));
        filters.push(format!("v NOT IN ({first}, {last})"));
        filters.push(format!("v IN ({first}, NULL)"));
        filters.push(format!("v BETWEEN {} AND {last}", self.values[1]));
        filters.push(format!("v IN ({})", vec![self.values.join(", "); 30].join(", ")));
        if self.type_name == "TEXT" {
            for pattern in ["a%", "long text%", "%x", "_", "ä%", "😀%", "", "na\\_e"] {
                filters.push(format!("v LIKE '{pattern}'"));
                filters.push(format!("v NOT LIKE '{pattern}'"));
            }
            filters.push(format!("v IN ({})", (0..150).map(|i| format!("'a{i}'")).collect::<Vec<_>>().join(", ")));
            filters
                .push(format!("v IN ('ab', {})", (0..150).map(|i| format!("'a{i}'")).collect::<Vec<_>>().join(", ")));
        }
        filters
    }

    /// Groups of rows: each becomes a file.
    fn files(&self) -> Vec<Vec<&str>> {
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        let mut files: Vec<Vec<&str>> = values.iter().map(|value| vec![*value, *value]).collect();
        files.push(values.clone());
        files.push(vec!["NULL", "NULL"]);
        files.push([&["NULL"], values.as_slice(), &["NULL"]].concat());
        files
    }
}

fn ways() -> Vec<PruningConfig> {
    let all = PruningConfig { pushdown: Pushdown::Always, ..PruningConfig::default() };
    let none = PruningConfig { bounds: false, bloom: false, page_index: false, pushdown: Pushdown::Never };
    vec![
        PruningConfig::default(),
        all,
        none,
        PruningConfig { bounds: true, ..none },
        PruningConfig { bloom: true, ..none },
        PruningConfig { bloom: true, pushdown: Pushdown::Keys, ..none },
        PruningConfig { page_index: true, ..none },
        PruningConfig { pushdown: Pushdown::Always, ..none },
    ]
}

/// Every type × bounds, Bloom filters, page index, filtering while decoding, each on and off × NaN, −0.0, NULLs, truncated
/// texts, decimals, small integers, times; also where the column had another name when half of the files were written, and where the
/// rows are read as they were before all of them were changed. The truth is what the same rows gave while they were hot.
#[test]
fn no_way_of_pruning_loses_a_row() {
    on_query_threads(every_type_in_every_way());
}

async fn every_type_in_every_way() {
    let cases = cases();
    let mut database = Database::new().await;
    let (mut expected, mut pasts) = (Vec::new(), Vec::new());
    for (number, case) in cases.iter().enumerate() {
        for (table, column) in [("cold", "v"), ("hot", "v"), ("past", "v"), ("altered", "w")] {
            database.run(&format!("CREATE TABLE {table}_{number} (k INT, {column} {})", case.type_name)).await;
            if table != "hot" {
                database.run(&format!("CREATE INDEX ON {table}_{number} ({column})")).await;
            }
        }
        let mut k = 0;
        let files = case.files();
        for (place, file) in files.iter().enumerate() {
            if place == files.len() / 2 {
                // Older files have the column under another name, and others under its.
                database.run(&format!("ALTER TABLE altered_{number} ADD COLUMN v INT DEFAULT 1")).await;
                database.run(&format!("ALTER TABLE altered_{number} RENAME COLUMN v TO other")).await;
                database.run(&format!("ALTER TABLE altered_{number} RENAME COLUMN w TO v")).await;
            }
            let mut rows = String::new();
            for value in file {
                write!(rows, "{}({k}, {value})", if rows.is_empty() { "" } else { ", " }).unwrap();
                k += 1;
            }
            database.run(&format!("INSERT INTO hot_{number} VALUES {rows}")).await;
            let w = if place < files.len() / 2 { "w" } else { "v" };
            for (table, columns) in [("cold", ""), ("past", ""), ("altered", &*format!(" (k, {w})"))] {
                database.run(&format!("INSERT INTO {table}_{number}{columns} VALUES {rows}")).await;
                database.run(&format!("STORAGE FLUSH TABLE {table}_{number}")).await;
            }
        }
        pasts.push(now_ns());
        database.run(&format!("DELETE FROM past_{number} WHERE k % 3 = 0")).await;
        database.run(&format!("UPDATE past_{number} SET v = NULL")).await;
        database.run(&format!("STORAGE FLUSH TABLE past_{number}")).await;
        database.run(&format!("STORAGE COMPACT TABLE past_{number}")).await;
        let mut answers = Vec::new();
        for filter in case.filters() {
            let answer = database.ks(&format!("SELECT k FROM hot_{number} WHERE {filter}")).await;
            answers.push((filter, answer));
        }
        let found = answers.iter().filter(|(_, ks)| !ks.is_empty()).count();
        assert!(found > 3 * case.values.len(), "{}: only {found} filters find rows", case.type_name);
        expected.push(answers);
    }
    for (number, way) in ways().into_iter().enumerate() {
        database = database.reopened(way).await;
        compare(&database, &cases, &expected, way, |number| format!("cold_{number}")).await;
        // One way is all of it, and all of it is slow.
        if number < 3 {
            compare(&database, &cases, &expected, way, |number| format!("altered_{number}")).await;
        }
        if number == 1 {
            let past = |number: usize| format!("past_{number} FOR SYSTEM_TIME AS OF {}", pasts[number]);
            compare(&database, &cases, &expected, way, past).await;
        }
        let skipped = database.engine.scan_totals().into_iter().find(|(name, _)| *name == "batches_skipped").unwrap().1;
        assert_eq!(skipped > 0, way.bounds || way.bloom, "{way:?}");
    }
    // Without the sidecars the filters in the files are asked.
    for (number, case) in cases.iter().enumerate() {
        for file in 1..=case.files().len() {
            std::fs::remove_file(database.file(&format!("cold_{number}"), &format!("batch-{file:04}.bloom"))).unwrap();
        }
    }
    for way in &ways()[..2] {
        database = database.reopened(*way).await;
        compare(&database, &cases, &expected, *way, |number| format!("cold_{number}")).await;
    }
}

fn now_ns() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
}

/// Filters, and the `k` of the rows that they find.
type Answers = Vec<(String, Vec<i32>)>;

async fn compare(
    database: &Database,
    cases: &[Case],
    expected: &[Answers],
    way: PruningConfig,
    table: impl Fn(usize) -> String,
) {
    for (number, (case, answers)) in cases.iter().zip(expected).enumerate() {
        for (filter, answer) in answers {
            let found = database.ks(&format!("SELECT k FROM {} WHERE {filter}", table(number))).await;
            assert_eq!(&found, answer, "{}: {} {filter} with {way:?}", case.type_name, table(number));
        }
    }
}
