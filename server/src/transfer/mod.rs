//! `seracdb import` and `seracdb export`: files into tables, and rows into files. Clients like any other: they know Flight
//! SQL through the client crate only.
//!
//! Invariants of an import:
//! 1. A file is one commit: all of its rows, or none.
//! 2. A file is committed once, whenever this process or the server ends: what is about to be committed is in the journal
//!    before, by the name of its transaction, and the server knows the ends of transactions by their names.
//! 3. Memory does not grow with the file: batches are read while others are sent.

mod coerce;
mod columns;
mod export;
mod files;
mod import;
mod infer;
mod journal;
mod nested;
mod progress;
mod sink;
mod source;
mod text;

use clap::Args;

pub(crate) use self::export::Export;
pub(crate) use self::import::Import;
use crate::shell::Connection;

/// How CSV is written.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct CsvStyle {
    /// CSV: what stands between two fields; '\t' is a tab.
    #[arg(long, value_name = "CHAR", default_value = ",", value_parser = delimiter)]
    delimiter: u8,
    /// CSV: what stands for NULL.
    #[arg(long, value_name = "TEXT", default_value = "")]
    null: String,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "\\t" => Ok(b'\t'),
        [one] if one.is_ascii() && !b"\"\r\n".contains(one) => Ok(*one),
        _ => Err("it is one ASCII character, and neither a quote nor the end of a line".to_owned()),
    }
}

/// Runs `seracdb import`.
pub(crate) fn import(connection: &Connection, import: &Import) -> Result<(), String> {
    connection.run(|client| import::run(client, connection.user.clone(), import))
}

/// Runs `seracdb export`.
pub(crate) fn export(connection: &Connection, export: &Export) -> Result<(), String> {
    connection.run(|client| export::run(client, export))
}

/// A table's name: `NAMESPACE.TABLE`, or a table of the usual namespace.
fn name_of(table: &str) -> Result<(&str, &str), String> {
    let name = table.split_once('.').unwrap_or(("default", table));
    match name.0.is_empty() || name.1.is_empty() {
        true => Err(format!("'{table}' is no table: write NAMESPACE.TABLE")),
        false => Ok(name),
    }
}

fn rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}
