//! `system.queries` and CANCEL QUERY: what runs and what has run last, of a user's own; to an admin, of all.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::engine::Engine;
use crate::error::Result;
use crate::identity::{Principal, Role};
use crate::row_builder::{FLAG, NUMBER, Rows, TEXT, TIME, schema};
use crate::running::Entry;
use crate::session::Session;
use crate::sql::without_literals;
use crate::tables::Tables;

/// Place of the statement's text among the columns.
const STATEMENT: usize = 3;

pub(crate) fn queries_schema() -> SchemaRef {
    schema(&[
        ("query_id", TEXT, false),
        ("user_id", TEXT, false),
        ("kind", TEXT, false),
        ("statement", TEXT, false),
        ("started_at", TIME, false),
        ("rows", NUMBER, false),
        ("bytes", NUMBER, false),
        ("state", TEXT, false),
        ("progress", NUMBER, true),
        ("memory_bytes", NUMBER, true),
        ("memory_peak_bytes", NUMBER, false),
        ("finished_at", TIME, true),
        ("duration_ms", NUMBER, false),
        ("is_slow", FLAG, false),
        ("error", TEXT, true),
        ("session_id", TEXT, false),
    ])
}

/// Whether somebody may know of a statement, and end it.
fn may_know(reader: &Principal, entry: &Entry) -> bool {
    reader.role() >= Role::Admin || entry.concerns(reader.number())
}

/// What has ended, as far as it is remembered, and what runs. `progress` is in percent.
pub(crate) fn queries(tables: &Tables, wants: impl Fn(usize) -> bool) -> Result<RecordBatch> {
    let mut rows = Rows::new(queries_schema());
    let running = &tables.running;
    let now = running.clock().monotonic();
    for entry in running.list_with_ended().iter().filter(|entry| may_know(&tables.principal, entry)) {
        let took = entry.duration(now);
        rows.text(0, Some(&entry.number.to_string()));
        rows.text(1, Some(entry.principal.name()));
        rows.text(2, Some(entry.way.name()));
        rows.text(STATEMENT, Some(if wants(STATEMENT) { shown_text(entry, tables) } else { "" }));
        rows.time(4, Some(entry.started_ns));
        rows.number(5, entry.rows() as i64);
        rows.number(6, entry.bytes() as i64);
        rows.text(7, Some(entry.state()));
        rows.number(8, entry.progress());
        rows.number(9, entry.memory().map(|bytes| bytes as i64));
        rows.number(10, entry.memory_peak() as i64);
        rows.time(11, entry.finished_ns());
        rows.number(12, took.as_millis() as i64);
        rows.flag(13, running.history().is_slow(took));
        rows.text(14, entry.error());
        rows.text(15, Some(&entry.session));
    }
    rows.finish()
}

/// The text of what runs, and of what has ended without its literals: it is kept for long, and they may be values of rows.
fn shown_text<'a>(entry: &'a Entry, tables: &Tables) -> &'a str {
    match entry.finished_ns() {
        None => &entry.text,
        Some(_) => entry.plain_text(|text| without_literals(text, &tables.limits)),
    }
}

/// CANCEL QUERY: whoever may know of a statement may end it.
pub(crate) fn cancel_query(engine: &Engine, session: &Session, id: &str) -> Result<()> {
    let asking = engine.subject(session)?;
    engine.running.cancel(id, |entry| may_know(&asking, entry))
}
