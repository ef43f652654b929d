//! What a shell runs: SQL statements, and commands that begin with a backslash.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use seracdb_client::{Client, Kind, TableEntry};

use super::output::Printer;
use super::said;

const HELP: &str = "\
SQL ends with a semicolon and may span lines. Ctrl-C cancels it.
  \\d          tables
  \\d NS.T     columns of a table (NS may be left out for 'default')
  \\dn         namespaces
  \\timing     time of every statement, on and off
  \\q          quit";

/// The key of a column's SQL type in its field's metadata.
const TYPE_NAME: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";

/// A connection and where its results go.
pub(super) struct Shell<'a, W> {
    pub(super) client: &'a Client,
    pub(super) printer: Printer<W>,
}

impl<W: Write> Shell<'_, W> {
    /// Runs one statement or command. Breaks when it was the one to quit.
    pub(super) async fn run(&mut self, text: &str) -> Result<ControlFlow<()>, String> {
        self.printer.start();
        match text.starts_with('\\') {
            true => self.command(text).await,
            false => self.statement(text).await.map(ControlFlow::Continue),
        }
    }

    async fn statement(&mut self, sql: &str) -> Result<(), String> {
        let statement = self.client.prepare(sql).await.map_err(|error| said(&error))?;
        let result = match statement.kind() {
            Kind::Query => match statement.query().await {
                Ok(rows) => self.printer.rows(rows).await,
                Err(error) => Err(said(&error)),
            },
            Kind::Update => match statement.update().await {
                Ok(count) => self.printer.changed(count),
                Err(error) => Err(said(&error)),
            },
        };
        // Statements also end with the session; the result is what counts.
        let _ = statement.close().await;
        result
    }

    async fn command(&mut self, line: &str) -> Result<ControlFlow<()>, String> {
        let line = line.trim_end_matches(|c: char| c == ';' || c.is_whitespace());
        let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (command, argument.trim()) {
            ("\\q", _) => return Ok(ControlFlow::Break(())),
            ("\\?", _) => self.printer.say(HELP)?,
            ("\\timing", _) => {
                self.printer.timing = !self.printer.timing;
                self.printer.say(if self.printer.timing { "Timing is on." } else { "Timing is off." })?;
            }
            ("\\dn", _) => self.namespaces().await?,
            ("\\d", "") => self.tables().await?,
            ("\\d", name) => self.columns(name).await?,
            _ => return Err(format!("unknown command '{command}': \\? lists them")),
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn namespaces(&mut self) -> Result<(), String> {
        let names = self.client.namespaces().await.map_err(|error| said(&error))?;
        self.print([("namespace", strings(names.iter().map(String::as_str)))]).await
    }

    async fn tables(&mut self) -> Result<(), String> {
        let tables = self.client.tables().await.map_err(|error| said(&error))?;
        self.print([
            ("namespace", strings(tables.iter().map(|table| table.namespace.as_str()))),
            ("table", strings(tables.iter().map(|table| table.name.as_str()))),
            ("type", strings(tables.iter().map(|table| table.table_type.as_str()))),
        ])
        .await
    }

    async fn columns(&mut self, name: &str) -> Result<(), String> {
        let tables = self.client.tables().await.map_err(|error| said(&error))?;
        let (namespace, table) = name.split_once('.').unwrap_or(("default", name));
        let is_meant = |entry: &&TableEntry| entry.namespace == namespace && entry.name == table;
        let found = tables.iter().find(is_meant);
        let found = found.ok_or_else(|| format!("no table '{namespace}.{table}': \\d lists them"))?;
        let fields = found.schema.fields();
        let types: Vec<String> = fields.iter().map(|field| sql_type(field)).collect();
        let nullable: BooleanArray = fields.iter().map(|field| Some(field.is_nullable())).collect();
        self.print([
            ("column", strings(fields.iter().map(|field| field.name().as_str()))),
            ("type", strings(types.iter().map(String::as_str))),
            ("nullable", Arc::new(nullable)),
        ])
        .await
    }

    async fn print(&mut self, columns: impl IntoIterator<Item = (&'static str, ArrayRef)>) -> Result<(), String> {
        let batch = RecordBatch::try_from_iter(columns).map_err(|error| error.to_string())?;
        self.printer.batch(batch).await
    }
}

/// A column's type as SQL writes it.
pub(crate) fn sql_type(field: &Field) -> String {
    match (field.data_type(), field.metadata().get(TYPE_NAME)) {
        (DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale), _) => {
            format!("DECIMAL({precision},{scale})")
        }
        (_, Some(name)) => name.clone(),
        (other, None) => other.to_string(),
    }
}

fn strings<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}
