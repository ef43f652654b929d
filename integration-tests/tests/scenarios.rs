//! The scenarios of clients/scenarios, through the Rust client.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use futures::stream;
use seracdb_client::{Client, Code, IngestMode, Result};
use seracdb_integration_tests::{PASSWORD, TestServer};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario() {
    let server = TestServer::start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/scenarios");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let namespace = format!("rust_{}", name.replace('-', "_"));
        let text = fs::read_to_string(&file).unwrap().replace("{ns}", &namespace);
        let scenario: Value = serde_json::from_str(&text).unwrap();
        let mut run = Run::start(&server, &namespace).await;
        for (number, step) in list(&scenario["steps"]).iter().enumerate() {
            // Shown when the step fails.
            println!("{name}, step {}: {step}", number + 1);
            run.check(step).await;
        }
        run.close().await;
    }
}

/// One run of a scenario: its connections, by name.
struct Run<'a> {
    server: &'a TestServer,
    clients: HashMap<String, Client>,
    now: String,
}

impl<'a> Run<'a> {
    async fn start(server: &'a TestServer, namespace: &str) -> Self {
        let mut run = Self { server, clients: HashMap::new(), now: String::new() };
        run.connect("first", &Value::Null).await.unwrap();
        run.client().update(&format!("CREATE NAMESPACE {namespace}")).await.unwrap();
        run
    }

    fn client(&self) -> &Client {
        &self.clients[self.now.as_str()]
    }

    /// Runs a step and looks whether it does what the scenario says, or fails as it says.
    async fn check(&mut self, step: &Value) {
        let done = self.step(step).await;
        let Some(code) = step["fails"].as_str() else { return done.unwrap() };
        let error = done.expect_err("the step must fail");
        assert_eq!(code_name(error.code()), code, "{error}");
        assert!(error.to_string().contains(word(&step["says"])), "{error}");
    }

    async fn step(&mut self, step: &Value) -> Result<()> {
        if let Some(sql) = step["query"].as_str() {
            self.query(sql, step).await
        } else if let Some(name) = step["connect"].as_str() {
            self.connect(name, step).await
        } else if let Some(name) = step["as"].as_str() {
            self.now = name.to_owned();
            Ok(())
        } else if let Some(namespace) = step["tables"].as_str() {
            self.tables(namespace, step).await
        } else if let Some(table) = step["schema"].as_str() {
            self.schema(table, step).await
        } else {
            let changed = self.change(step).await?;
            if let Some(count) = step["count"].as_u64() {
                assert_eq!(changed, count);
            }
            Ok(())
        }
    }

    /// What gives a number of rows.
    async fn change(&self, step: &Value) -> Result<u64> {
        let client = self.client();
        for (key, sql) in [("begin", "BEGIN"), ("commit", "COMMIT"), ("rollback", "ROLLBACK")] {
            if step[key] == true {
                return client.update(sql).await;
            }
        }
        if let Some(table) = step["ingest"].as_str() {
            let batch = batch_of(&columns(step), list(&step["rows"]));
            return client.ingest(table, batch.schema(), stream::iter([Ok(batch)]), mode(word(&step["mode"]))).await;
        }
        let sql = word(&step["execute"]);
        let Some(parameters) = bound(step) else { return client.update(sql).await };
        let mut statement = client.prepare(sql).await?;
        statement.bind(parameters);
        let changed = statement.update().await?;
        statement.close().await?;
        Ok(changed)
    }

    async fn query(&self, sql: &str, step: &Value) -> Result<()> {
        let rows = match bound(step) {
            None => self.client().query(sql).await?,
            Some(parameters) => {
                let mut statement = self.client().prepare(sql).await?;
                statement.bind(parameters);
                statement.query().await?
            }
        };
        let schema = Arc::clone(rows.schema());
        let batches = rows.collect().await?;
        if step["fails"].is_string() {
            return Ok(());
        }
        let columns = columns(step);
        assert_eq!(columns_of(&schema), columns);
        let found = concat_batches(&schema, &batches).unwrap();
        let wanted = batch_of(&columns, list(&step["rows"]));
        assert_eq!(found.num_rows(), wanted.num_rows());
        for (found, wanted) in found.columns().iter().zip(wanted.columns()) {
            // The scenarios do not tell units of time.
            assert_eq!(&cast(found, wanted.data_type()).unwrap(), wanted);
        }
        Ok(())
    }

    async fn connect(&mut self, name: &str, step: &Value) -> Result<()> {
        if let Some(old) = self.clients.remove(name) {
            old.close().await?;
        }
        let user = step["user"].as_str().unwrap_or("root");
        let password = step["password"].as_str().unwrap_or(PASSWORD);
        let client = Client::connect(self.server.uri(), user, password).await?;
        client.query("SELECT 1").await?.collect().await?;
        self.clients.insert(name.to_owned(), client);
        self.now = name.to_owned();
        Ok(())
    }

    async fn tables(&self, namespace: &str, step: &Value) -> Result<()> {
        let tables = self.client().tables().await?;
        let found: Vec<&str> =
            tables.iter().filter(|table| table.namespace == namespace).map(|table| table.name.as_str()).collect();
        let wanted: Vec<&str> = list(&step["names"]).iter().map(word).collect();
        assert_eq!(found, wanted);
        Ok(())
    }

    async fn schema(&self, table: &str, step: &Value) -> Result<()> {
        let tables = self.client().tables().await?;
        let found = tables.iter().find(|entry| format!("{}.{}", entry.namespace, entry.name) == table).unwrap();
        assert_eq!(columns_of(&found.schema), columns(step));
        Ok(())
    }

    async fn close(self) {
        for client in self.clients.into_values() {
            client.close().await.unwrap();
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Names and types.
fn columns(step: &Value) -> Vec<(String, String)> {
    let pair = |column: &Value| (word(&column[0]).to_owned(), word(&column[1]).to_owned());
    list(&step["columns"]).iter().map(pair).collect()
}

fn columns_of(schema: &Schema) -> Vec<(String, String)> {
    schema.fields().iter().map(|field| (field.name().clone(), type_name(field.data_type()))).collect()
}

/// The parameters, with the types that the step says.
fn bound(step: &Value) -> Option<RecordBatch> {
    let types = step["types"].as_array()?;
    let columns: Vec<(String, String)> =
        types.iter().enumerate().map(|(index, kind)| (format!("${}", index + 1), word(kind).to_owned())).collect();
    Some(match step["batch"].as_array() {
        Some(rows) => batch_of(&columns, rows),
        None => batch_of(&columns, std::slice::from_ref(&step["parameters"])),
    })
}

fn batch_of(columns: &[(String, String)], rows: &[Value]) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, kind)| Field::new(name, data_type(kind), true)).collect();
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .enumerate()
        .map(|(index, (_, kind))| array_of(kind, rows.iter().map(|row| &row[index])))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// Arrow reads the text of each value as its type.
fn array_of<'a>(kind: &str, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    let texts: Vec<Option<String>> = values
        .map(|value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
        .collect();
    if kind == "binary" {
        return Arc::new(texts.iter().map(|text| text.as_deref().map(bytes_of)).collect::<BinaryArray>());
    }
    let strict = CastOptions { safe: false, ..Default::default() };
    cast_with_options(&StringArray::from(texts), &data_type(kind), &strict).unwrap()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn data_type(kind: &str) -> DataType {
    match kind {
        "boolean" => DataType::Boolean,
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "double" => DataType::Float64,
        "text" => DataType::Utf8,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        decimal => {
            let digits = decimal.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (precision, scale) = digits.split_once(',').unwrap();
            DataType::Decimal128(precision.parse().unwrap(), scale.parse().unwrap())
        }
    }
}

fn type_name(found: &DataType) -> String {
    match found {
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        other => {
            let known = ["boolean", "int", "bigint", "double", "text", "binary", "date"];
            known.into_iter().find(|kind| data_type(kind) == *other).map_or(other.to_string(), str::to_owned)
        }
    }
}

fn mode(name: &str) -> IngestMode {
    match name {
        "create" => IngestMode::Create,
        "append" => IngestMode::Append,
        "replace" => IngestMode::Replace,
        "create_append" => IngestMode::CreateAppend,
        other => panic!("unknown mode {other}"),
    }
}

/// `NotFound` → `NOT_FOUND`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}
