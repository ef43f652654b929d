//! The shell at a terminal: statements over several lines, history, backslash commands.

use std::io::Stdout;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use seracdb_client::{Client, TableEntry};

use super::execute;
use super::output::{Format, Printer};
use super::statements::split;

const HELP: &str = "\
SQL ends with a semicolon and may span lines. Ctrl-C cancels it.
  \\d          tables
  \\d NS.T     columns of a table (NS may be left out for 'default')
  \\dn         namespaces
  \\timing     time of every statement, on and off
  \\q          quit";

/// The key of a column's SQL type in its field's metadata.
const TYPE_NAME: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";

struct Shell<'a> {
    client: &'a Client,
    printer: Printer<Stdout>,
}

/// Reads and runs until the end of input. `history`: a file to remember lines in.
pub(super) async fn run(client: &Client, format: Format, history: Option<PathBuf>) -> Result<(), String> {
    let mut editor = DefaultEditor::new().map_err(|error| format!("cannot use the terminal: {error}"))?;
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    println!("SeracDB {}. \\? for help.", env!("CARGO_PKG_VERSION"));
    let mut shell = Shell { client, printer: Printer::new(format, std::io::stdout()) };
    let mut text = String::new();
    loop {
        match editor.readline(if text.is_empty() { "seracdb> " } else { "      -> " }) {
            Ok(line) if text.is_empty() && line.trim_start().starts_with('\\') => {
                remember(&mut editor, history.as_deref(), line.trim());
                match shell.backslash(line.trim()).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(message) => eprintln!("{message}"),
                }
            }
            Ok(line) => {
                text.push_str(&line);
                text.push('\n');
                if split(&text).complete {
                    remember(&mut editor, history.as_deref(), text.trim());
                    shell.statements(&text).await;
                    text.clear();
                }
            }
            Err(ReadlineError::Interrupted) => text.clear(),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(format!("cannot read the terminal: {error}")),
        }
    }
}

fn remember(editor: &mut DefaultEditor, history: Option<&Path>, text: &str) {
    if text.is_empty() {
        return;
    }
    // A history that cannot be written is no reason to stop.
    let _ = editor.add_history_entry(text);
    if let Some(file) = history {
        let _ = editor.save_history(file);
    }
}

impl Shell<'_> {
    /// Runs the statements of a text; an error ends the text, not the shell.
    async fn statements(&mut self, text: &str) {
        for statement in split(text).statements {
            let result = tokio::select! {
                result = execute(self.client, statement, &mut self.printer) => result,
                // Dropping the call is what cancels it on the server.
                _ = tokio::signal::ctrl_c() => Err("cancelled".to_owned()),
            };
            if let Err(message) = result {
                eprintln!("{message}");
                return;
            }
        }
    }

    /// Runs a backslash command; whether it is the one to quit.
    async fn backslash(&mut self, line: &str) -> Result<bool, String> {
        let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim().trim_end_matches(';');
        self.printer.start();
        match (command, argument) {
            ("\\q", _) => return Ok(true),
            ("\\?", _) => println!("{HELP}"),
            ("\\timing", _) => {
                self.printer.timing = !self.printer.timing;
                println!("Timing is {}.", if self.printer.timing { "on" } else { "off" });
            }
            ("\\dn", _) => {
                let names = self.client.namespaces().await.map_err(|error| error.to_string())?;
                self.print([("namespace", strings(names.iter().map(String::as_str)))])?;
            }
            ("\\d", "") => {
                let tables = self.client.tables().await.map_err(|error| error.to_string())?;
                self.print([
                    ("namespace", strings(tables.iter().map(|table| table.namespace.as_str()))),
                    ("table", strings(tables.iter().map(|table| table.name.as_str()))),
                    ("type", strings(tables.iter().map(|table| table.table_type.as_str()))),
                ])?;
            }
            ("\\d", name) => {
                let tables = self.client.tables().await.map_err(|error| error.to_string())?;
                let (namespace, table) = name.split_once('.').unwrap_or(("default", name));
                let found = tables.iter().find(|entry| entry.namespace == namespace && entry.name == table);
                self.columns(found.ok_or_else(|| format!("no table '{namespace}.{table}': \\d lists them"))?)?;
            }
            _ => return Err(format!("unknown command '{command}': \\? lists them")),
        }
        Ok(false)
    }

    fn columns(&mut self, table: &TableEntry) -> Result<(), String> {
        let fields = table.schema.fields();
        let types: Vec<String> = fields.iter().map(|field| sql_type(field)).collect();
        let nullable: BooleanArray = fields.iter().map(|field| Some(field.is_nullable())).collect();
        self.print([
            ("column", strings(fields.iter().map(|field| field.name().as_str()))),
            ("type", strings(types.iter().map(String::as_str))),
            ("nullable", Arc::new(nullable)),
        ])
    }

    fn print(&mut self, columns: impl IntoIterator<Item = (&'static str, ArrayRef)>) -> Result<(), String> {
        let batch = RecordBatch::try_from_iter(columns).map_err(|error| error.to_string())?;
        self.printer.batches(&[batch])
    }
}

/// A column's type as SQL writes it.
fn sql_type(field: &Field) -> String {
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
