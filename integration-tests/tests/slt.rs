//! The SQL files of `slt/`, each run five ways: rows hot, flushed after every statement, half and half, merged after every flush, and
//! never committed.
//! The answers must not differ.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use seracdb_client::{Client, Error, Kind};
use seracdb_integration_tests::TestServer;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Record, Runner};

/// When the rows are flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Hot,
    Cold,
    Mixed,
    /// After every statement, and their files are merged.
    Merged,
    /// Never: all of it is one transaction.
    Staged,
}

/// Files that begin and end transactions themselves, or ask what was committed and when. Single records are left out by
/// `skipif staged`.
const COMMITTED: [&str; 4] = ["alter_constraints", "manifest", "system_columns", "transactions"];

struct Database {
    client: Arc<Client>,
    tier: Tier,
    updates: usize,
}

#[async_trait]
impl AsyncDB for Database {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let statement = self.client.prepare(sql).await?;
        let output = match statement.kind() {
            Kind::Query => {
                let types = statement.schema().fields().iter().map(|field| column_type(field.data_type())).collect();
                let batches = statement.query().await?.collect().await?;
                DBOutput::Rows { types, rows: batches.iter().flat_map(rows).collect() }
            }
            Kind::Update => {
                let count = statement.update().await?;
                self.updates += 1;
                let always = matches!(self.tier, Tier::Cold | Tier::Merged);
                if always || (self.tier == Tier::Mixed && self.updates.is_multiple_of(2)) {
                    self.client.update("STORAGE FLUSH ALL").await?;
                }
                if self.tier == Tier::Merged {
                    self.merge().await?;
                }
                DBOutput::StatementComplete(count)
            }
        };
        statement.close().await?;
        Ok(output)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "seracdb"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl Database {
    /// Merges the files of every table that has several.
    async fn merge(&self) -> Result<(), Error> {
        let sql = "SELECT replace(namespace, '\"', '\"\"') AS n, replace(\"table\", '\"', '\"\"') AS t FROM system.tables WHERE files > 1";
        let statement = self.client.prepare(sql).await?;
        let tables = statement.query().await?.collect().await?;
        statement.close().await?;
        for name in tables.iter().flat_map(rows) {
            self.client.update(&format!("STORAGE COMPACT TABLE \"{}\".\"{}\"", name[0], name[1])).await?;
        }
        Ok(())
    }
}

fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        data_type if data_type.is_integer() => DefaultColumnType::Integer,
        data_type if data_type.is_floating() || data_type.is_decimal() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    let value = |column: &dyn Array, formatter: &ArrayFormatter<'_>, row: usize| {
        let text = formatter.value(row).to_string();
        if text.is_empty() && !column.is_null(row) { "(empty)".to_owned() } else { text }
    };
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().zip(&columns).map(|(column, f)| value(column, f, row)).collect())
        .collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    files.sort();
    assert!(!files.is_empty());
    files
}

async fn run_all(tier: Tier) {
    let mut failures = Vec::new();
    for file in files("slt") {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if tier == Tier::Staged && COMMITTED.contains(&name.as_str()) {
            continue;
        }
        let server = TestServer::start_with(&[("SERACDB_COMPACTION__FAN_IN", "2")]);
        let client = Arc::new(server.client().await);
        if tier == Tier::Staged {
            client.update("BEGIN").await.unwrap();
        }
        let mut runner = Runner::new(|| {
            let client = Arc::clone(&client);
            async move { Ok(Database { client, tier, updates: 0 }) }
        });
        if tier == Tier::Staged {
            runner.add_label("staged");
        }
        if let Err(error) = runner.run_file_async(&file).await {
            failures.push(format!("{tier:?}: {}", error.display(false)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_on_hot_rows() {
    run_all(Tier::Hot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_on_flushed_rows() {
    run_all(Tier::Cold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_on_rows_half_hot_half_flushed() {
    run_all(Tier::Mixed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_on_merged_rows() {
    run_all(Tier::Merged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_in_a_transaction() {
    run_all(Tier::Staged).await;
}

/// What `slt/known/` says of SQL that answers otherwise than it should is still so: a query that answers right belongs among the
/// others.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_to_be_wrong_is_still_wrong() {
    let mut right = Vec::new();
    let mut queries = 0;
    for file in files("slt/known") {
        let server = TestServer::start();
        let client = Arc::new(server.client().await);
        let mut runner = Runner::new(|| {
            let client = Arc::clone(&client);
            async move { Ok(Database { client, tier: Tier::Hot, updates: 0 }) }
        });
        for record in sqllogictest::parse_file::<DefaultColumnType>(&file).unwrap() {
            let query = match &record {
                Record::Query { sql, loc, .. } => Some(format!("{loc}: {sql}")),
                _ => None,
            };
            let answered = runner.run_async(record).await;
            match query {
                None => drop(answered.unwrap()),
                Some(query) => {
                    queries += 1;
                    right.extend(answered.is_ok().then_some(query));
                }
            }
        }
    }
    assert!(queries > 0 && right.is_empty(), "no longer wrong:\n{}", right.join("\n"));
}
