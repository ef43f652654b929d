//! `system.tables`: what lies in tables, of what a user may read; to an admin, of the rows of all users together.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{TableKind, TableRecord};
use seracdb_storage::hot::{HotCursor, Versions};
use seracdb_storage::keys::Scope;
use seracdb_storage::system_columns::CommitTs;

use crate::error::Result;
use crate::identity::Role;
use crate::rights::Object;
use crate::row_builder::{NUMBER, Rows, SHARE, TEXT, TIME, schema};
use crate::system;
use crate::tables::Tables;

/// The columns for which rows in the hot tier have to be read.
const HOT_COLUMNS: [usize; 4] = [5, 6, 7, 12];

/// Hot versions that are read at once.
const CHUNK_ROWS: usize = 8192;

pub(crate) fn tables_schema() -> SchemaRef {
    schema(&[
        ("namespace", TEXT, false),
        ("table", TEXT, false),
        ("kind", TEXT, false),
        ("owner", TEXT, false),
        ("created_at", TIME, false),
        ("rows", NUMBER, true),
        ("hot_rows", NUMBER, true),
        ("hot_bytes", NUMBER, true),
        ("cold_bytes", NUMBER, true),
        ("files", NUMBER, true),
        ("archived_files", NUMBER, true),
        ("archived_bytes", NUMBER, true),
        ("versions", NUMBER, true),
        ("masked_rows", NUMBER, true),
        ("masked_share", SHARE, true),
        ("users", NUMBER, true),
    ])
}

/// The committed tables that a user sees, with figures where the user may read. `projection`: the columns that are wanted.
pub(crate) async fn stored_tables(tables: &Arc<Tables>, projection: Option<&Vec<usize>>) -> Result<RecordBatch> {
    let reads_hot = projection.is_none_or(|wanted| HOT_COLUMNS.iter().any(|column| wanted.contains(column)));
    let tables = Arc::clone(tables);
    // It reads all that is hot.
    let read = SpawnedTask::spawn_blocking(move || read(&tables, reads_hot));
    read.join_unwind().await.map_err(|_| StorageError::Stopped)?
}

fn read(tables: &Tables, reads_hot: bool) -> Result<RecordBatch> {
    let mut rows = Rows::new(tables_schema());
    let hot = if reads_all(tables) { tables.snapshot.hot_scopes()? } else { vec![] };
    for table in tables.stored().filter(|table| tables.snapshot.catalog().table_by_id(table.id).is_some()) {
        let figures = match tables.may_read(Object::Table(table)) {
            true => Some(figures(tables, table, &hot, reads_hot)?),
            false => None,
        };
        push(&mut rows, table, figures.as_ref());
    }
    rows.finish()
}

fn reads_all(tables: &Tables) -> bool {
    tables.principal.role() >= Role::Admin
}

/// What lies in the scopes of a table.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Figures {
    hot_rows: u64,
    hot_versions: u64,
    hot_bytes: u64,
    cold_rows: u64,
    cold_bytes: u64,
    files: u64,
    archived_rows: u64,
    archived_bytes: u64,
    archived_files: u64,
    masked: u64,
    /// Users with rows of their own; `None` for a reader of own rows, and where rows are nobody's.
    users: Option<u64>,
}

fn figures(tables: &Tables, table: &TableRecord, hot: &[Scope], reads_hot: bool) -> Result<Figures> {
    let mut scopes: BTreeSet<Scope> = system::scopes(tables, table)?.into_iter().collect();
    if table.kind != TableKind::Shared {
        // They are in order.
        let first = hot.partition_point(|scope| scope.table < table.id);
        scopes.extend(hot[first..].iter().take_while(|scope| scope.table == table.id));
    }
    let mut all = Figures::default();
    if table.kind != TableKind::Shared && reads_all(tables) {
        all.users = Some(scopes.len() as u64);
    }
    let not_before = table.ttl_ns.map(|ttl| tables.expired_before(ttl));
    for scope in scopes {
        all += match of_scope(tables, scope, not_before, reads_hot) {
            // Nothing is known of it yet.
            Err(error) if is_recovering(&error) => continue,
            figures => figures?,
        };
    }
    Ok(all)
}

fn is_recovering(error: &crate::error::EngineError) -> bool {
    let cause = error.source.as_ref().and_then(|cause| cause.downcast_ref::<StorageError>());
    matches!(cause, Some(StorageError::Recovering))
}

fn of_scope(tables: &Tables, scope: Scope, not_before: Option<CommitTs>, reads_hot: bool) -> Result<Figures> {
    let view = tables.snapshot.glance(scope)?;
    let mut figures = Figures::default();
    for record in tables.snapshot.batches(scope)? {
        match record.status.is_read() {
            true => {
                figures.files += 1;
                figures.cold_rows += record.row_count;
                figures.cold_bytes += record.size_bytes;
                figures.masked += view.masks.get(&record.batch_number).map_or(0, |mask| mask.len());
            }
            false => {
                figures.archived_files += 1;
                figures.archived_rows += record.row_count;
                figures.archived_bytes += record.size_bytes;
            }
        }
    }
    if reads_hot {
        let mut cursor = HotCursor::new(scope, view.generations.clone(), Versions::All);
        let mut last = None;
        while let Some(chunk) = tables.snapshot.hot_chunk(&mut cursor, CHUNK_ROWS)? {
            figures.hot_versions += chunk.len() as u64;
            figures.hot_bytes += chunk.size_bytes() as u64;
            for (place, id) in chunk.ids.iter().enumerate() {
                // The newest version of a row comes first.
                let is_newest = last.replace(*id) != Some(*id);
                let is_kept = not_before.is_none_or(|oldest| chunk.updated[place] >= oldest.get());
                figures.hot_rows += u64::from(is_newest && is_kept && !chunk.deleted[place]);
            }
        }
    }
    Ok(figures)
}

impl AddAssign for Figures {
    fn add_assign(&mut self, more: Self) {
        self.hot_rows += more.hot_rows;
        self.hot_versions += more.hot_versions;
        self.hot_bytes += more.hot_bytes;
        self.cold_rows += more.cold_rows;
        self.cold_bytes += more.cold_bytes;
        self.files += more.files;
        self.archived_rows += more.archived_rows;
        self.archived_bytes += more.archived_bytes;
        self.archived_files += more.archived_files;
        self.masked += more.masked;
    }
}

fn push(rows: &mut Rows, table: &TableRecord, figures: Option<&Figures>) {
    rows.text(0, Some(&table.namespace));
    rows.text(1, Some(&table.name));
    rows.text(2, Some(&format!("{:?}", table.kind).to_lowercase()));
    rows.text(3, Some(&table.created_by));
    rows.time(4, Some(table.created_at_ns));
    let mut number = |column: usize, of: fn(&Figures) -> u64| {
        rows.number(column, figures.map(|figures| of(figures) as i64));
    };
    number(5, |figures| figures.hot_rows + figures.cold_rows.saturating_sub(figures.masked));
    number(6, |figures| figures.hot_rows);
    number(7, |figures| figures.hot_bytes);
    number(8, |figures| figures.cold_bytes);
    number(9, |figures| figures.files);
    number(10, |figures| figures.archived_files);
    number(11, |figures| figures.archived_bytes);
    number(12, |figures| figures.hot_versions + figures.cold_rows + figures.archived_rows);
    number(13, |figures| figures.masked);
    let share = figures.filter(|figures| figures.cold_rows > 0);
    rows.share(14, share.map(|figures| figures.masked as f64 / figures.cold_rows as f64));
    rows.number(15, figures.and_then(|figures| figures.users).map(|users| users as i64));
}
