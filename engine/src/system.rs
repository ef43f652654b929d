//! The namespace `system`, and SHOW MANIFEST: what there is and what runs, of a user's own; to an admin, of all.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::Result as DfResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{Privilege, TableKind, TableRecord};
use seracdb_storage::keys::Scope;
use seracdb_storage::manifest::CachedEntry;
use seracdb_storage::records::{BatchKind, BatchRecord, BatchStatus};
use seracdb_storage::scope_place::ScopePlace;
use seracdb_storage::store::Store;

use crate::api_tokens;
use crate::audit_log::{self, AUDIT_LOG};
use crate::error::{EngineError, Result};
use crate::identity::Role;
use crate::rights::Object;
use crate::row_builder::{NUMBER, Rows, TEXT, TIME, schema};
use crate::scan::external;
use crate::sql::Statement;
use crate::system_jobs::{jobs, jobs_schema};
use crate::system_queries::{queries, queries_schema};
use crate::system_sessions::{sessions, sessions_schema};
use crate::system_tables::{stored_tables, tables_schema};
use crate::system_users::{grants, grants_schema, users, users_schema};
use crate::tables::Tables;

/// The namespace of the tables that show what the storage does.
pub(crate) const SYSTEM_SCHEMA: &str = "system";
/// Its tables.
pub(crate) const SYSTEM_TABLES: [&str; 12] =
    [AUDIT_LOG, BATCHES, GRANTS, INDEXES, JOBS, MANIFEST_CACHE, QUERIES, SESSIONS, SETTINGS, TABLES, TOKENS, USERS];

const BATCHES: &str = "batches";
const GRANTS: &str = "grants";
const INDEXES: &str = "indexes";
const JOBS: &str = "jobs";
const MANIFEST_CACHE: &str = "manifest_cache";
const QUERIES: &str = "queries";
const SESSIONS: &str = "sessions";
const SETTINGS: &str = "settings";
const TABLES: &str = "tables";
const TOKENS: &str = "tokens";
const USERS: &str = "users";

/// Those of them that are there for this user.
pub(crate) fn system_tables(tables: &Tables) -> impl Iterator<Item = &'static str> {
    let is_admin = tables.principal.role() >= Role::Admin;
    SYSTEM_TABLES.into_iter().filter(move |name| *name != AUDIT_LOG || is_admin)
}

/// A table of the namespace, made when it is read.
#[derive(Debug)]
pub(crate) struct SystemTable {
    tables: Arc<Tables>,
    name: &'static str,
}

impl SystemTable {
    /// The table of this name.
    pub(crate) fn named(tables: &Tables, name: &str) -> Option<Self> {
        let name = SYSTEM_TABLES.into_iter().find(|known| *known == name)?;
        Some(Self { tables: Arc::new(tables.clone()), name })
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        match self.name {
            AUDIT_LOG => audit_log::schema(),
            GRANTS => grants_schema(),
            INDEXES => indexes_schema(),
            TOKENS => api_tokens::listed_schema(),
            JOBS => jobs_schema(),
            MANIFEST_CACHE => cache_schema(),
            QUERIES => queries_schema(),
            SESSIONS => sessions_schema(),
            SETTINGS => settings_schema(),
            TABLES => tables_schema(),
            USERS => users_schema(),
            _ => batches_schema(),
        }
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let wants = |column: usize| projection.is_none_or(|wanted| wanted.contains(&column));
        let batch = match self.name {
            // Who may read it was asked when its name was resolved.
            AUDIT_LOG => return audit_log::table(&self.tables)?.scan(state, projection, filters, limit).await,
            GRANTS => grants(&self.tables),
            INDEXES => indexes(&self.tables),
            TOKENS => api_tokens::listed(&self.tables),
            JOBS => jobs(&self.tables),
            MANIFEST_CACHE => cache(&self.tables),
            QUERIES => queries(&self.tables, wants),
            SESSIONS => sessions(&self.tables),
            SETTINGS => settings(&self.tables),
            TABLES => stored_tables(&self.tables, projection).await,
            USERS => users(&self.tables),
            _ => all_batches(&self.tables),
        };
        MemTable::try_new(self.schema(), vec![vec![batch.map_err(external)?]])?
            .scan(state, projection, filters, limit)
            .await
    }
}

/// The columns of a SHOW MANIFEST; `None` for other statements.
pub(crate) fn schema_of(statement: &Statement) -> Option<SchemaRef> {
    match statement {
        Statement::ShowManifest(_) => Some(batches_schema()),
        Statement::ShowManifestCache => Some(cache_schema()),
        _ => None,
    }
}

/// The rows of a SHOW MANIFEST.
pub(crate) async fn show(store: &Store, tables: &Tables, statement: &Statement) -> Result<SendableRecordBatchStream> {
    let rows = match statement {
        Statement::ShowManifest(name) => {
            let table = tables.record(name)?;
            tables.require_right(Object::Table(table), Privilege::Select)?;
            manifest(store, tables, table).await?
        }
        Statement::ShowManifestCache => cache(tables)?,
        _ => return Err(EngineError::internal("the statement shows no manifest")),
    };
    let schema = rows.schema();
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(rows)]))))
}

/// The scopes of a table that this user may know of; none of one that is not committed, or whose rows they may not read.
pub(crate) fn scopes(tables: &Tables, table: &TableRecord) -> Result<Vec<Scope>> {
    if tables.snapshot.catalog().table_by_id(table.id).is_none() || !tables.may_read(Object::Table(table)) {
        return Ok(vec![]);
    }
    let own = tables.scope(table);
    match table.kind != TableKind::Shared && tables.principal.role() >= Role::Admin {
        true => Ok(tables.snapshot.scopes_with_files(table.id)?),
        false => Ok(vec![own]),
    }
}

fn places(tables: &Tables, table: &TableRecord) -> Result<Vec<ScopePlace>> {
    let place = |scope| Ok(ScopePlace::of(tables.snapshot.catalog(), scope)?);
    scopes(tables, table)?.into_iter().map(place).collect()
}

fn all_batches(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = BatchRows::new(tables);
    for table in tables.snapshot.catalog().tables().filter(|table| tables.is_visible(&table.namespace)) {
        for place in places(tables, table)? {
            let masks = match tables.snapshot.glance(place.scope) {
                // Nothing is known of it yet.
                Err(StorageError::Recovering) => continue,
                view => view?.masks,
            };
            for record in tables.snapshot.batches(place.scope)? {
                let masked = masks.get(&record.batch_number).map_or(0, |mask| mask.len());
                rows.push(&place, &record, masked);
            }
        }
    }
    rows.finish()
}

/// What CREATE INDEX has made.
fn indexes(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(indexes_schema());
    for table in tables.stored() {
        for index in &table.indexes {
            let name = |id: &u32| table.column_name(*id).unwrap_or_default();
            rows.text(0, Some(&table.namespace));
            rows.text(1, Some(&table.name));
            rows.text(2, Some(&index.name));
            rows.text(3, Some(&index.columns.iter().map(name).collect::<Vec<_>>().join(", ")));
            rows.text(4, Some("bloom"));
        }
    }
    rows.finish()
}

fn indexes_schema() -> SchemaRef {
    schema(&[
        ("namespace", TEXT, false),
        ("table", TEXT, false),
        ("index", TEXT, false),
        ("columns", TEXT, false),
        ("kind", TEXT, false),
    ])
}

/// The settings of the server, to an admin.
fn settings(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(settings_schema());
    for setting in tables.server_settings() {
        rows.text(0, Some(&setting.name));
        rows.text(1, setting.value.as_deref());
        rows.text(2, setting.default.as_deref());
        rows.text(3, Some(&setting.source));
        rows.text(4, Some(&setting.variable));
        rows.text(5, Some(&setting.description));
    }
    rows.finish()
}

fn settings_schema() -> SchemaRef {
    schema(&[
        ("name", TEXT, false),
        ("value", TEXT, true),
        ("default", TEXT, true),
        ("source", TEXT, false),
        ("variable", TEXT, false),
        ("description", TEXT, false),
    ])
}

/// What the manifests of a table say.
async fn manifest(store: &Store, tables: &Tables, table: &TableRecord) -> Result<RecordBatch> {
    let mut rows = BatchRows::new(tables);
    for place in places(tables, table)? {
        let Some(manifest) = store.manifest(&place).await? else { continue };
        for record in &manifest.batches {
            rows.push(&place, record, record.deletes.as_ref().map_or(0, |deletes| deletes.cardinality));
        }
    }
    rows.finish()
}

/// What the manifest cache holds.
fn cache(tables: &Tables) -> Result<RecordBatch> {
    let mut all = Vec::new();
    for table in tables.snapshot.catalog().tables().filter(|table| tables.is_visible(&table.namespace)) {
        all.extend(places(tables, table)?);
    }
    let entries = tables.snapshot.cached_manifests(all.iter());
    let mut rows = Rows::new(cache_schema());
    for entry in entries {
        let CachedEntry { namespace, table, user, etag, source_path, sync_state, .. } = &entry;
        rows.text(0, Some(namespace));
        rows.text(1, Some(table));
        rows.text(2, user.as_deref());
        rows.text(3, Some(etag));
        rows.time(4, Some(entry.last_refreshed_ns));
        rows.time(5, entry.last_accessed_ns);
        rows.number(6, entry.ttl_seconds);
        rows.text(7, Some(source_path));
        rows.text(8, Some(sync_state.name()));
    }
    rows.finish()
}

fn cache_schema() -> SchemaRef {
    schema(&[
        ("namespace", TEXT, false),
        ("table", TEXT, false),
        ("user_id", TEXT, true),
        ("etag", TEXT, false),
        ("last_refreshed", TIME, false),
        ("last_accessed", TIME, true),
        ("ttl", NUMBER, false),
        ("source", TEXT, false),
        ("sync_state", TEXT, false),
    ])
}

fn batches_schema() -> SchemaRef {
    schema(&[
        ("namespace", TEXT, false),
        ("table", TEXT, false),
        ("user_id", TEXT, true),
        ("batch_number", NUMBER, false),
        ("kind", TEXT, false),
        ("status", TEXT, false),
        ("file_path", TEXT, false),
        ("row_count", NUMBER, false),
        ("masked_rows", NUMBER, false),
        ("tombstones", NUMBER, false),
        ("size_bytes", NUMBER, false),
        ("min_updated", TIME, false),
        ("max_updated", TIME, false),
        ("schema_version", NUMBER, false),
        ("column_min_max", TEXT, true),
        ("deletes", TEXT, true),
    ])
}

struct BatchRows {
    rows: Rows,
    /// Name of the user who reads them.
    reader: String,
}

impl BatchRows {
    fn new(tables: &Tables) -> Self {
        Self { rows: Rows::new(batches_schema()), reader: tables.principal.name().to_owned() }
    }

    fn push(&mut self, place: &ScopePlace, record: &BatchRecord, masked: u64) {
        let kind = match record.kind {
            BatchKind::Flush => "flush",
            BatchKind::Archive => "archive",
            BatchKind::Bulk => "bulk",
            BatchKind::Compact => "compact",
        };
        let status = match record.status {
            BatchStatus::Active => "active",
            BatchStatus::Compacting => "compacting",
            BatchStatus::Archived => "archived",
            BatchStatus::Removing => "removing",
        };
        // Bounds are values, which only their owner may see.
        let bounds = (place.user.is_none() || place.user.as_deref() == Some(self.reader.as_str()))
            .then(|| serde_json::to_string(&record.column_min_max).expect("bounds have only strings as keys"));
        let rows = &mut self.rows;
        rows.text(0, Some(&place.namespace));
        rows.text(1, Some(&place.table));
        rows.text(2, place.user.as_deref());
        rows.number(3, record.batch_number.0 as i64);
        rows.text(4, Some(kind));
        rows.text(5, Some(status));
        rows.text(6, Some(&record.file_path));
        rows.number(7, record.row_count as i64);
        rows.number(8, masked as i64);
        rows.number(9, record.tombstones as i64);
        rows.number(10, record.size_bytes as i64);
        rows.time(11, Some(record.min_updated.get()));
        rows.time(12, Some(record.max_updated.get()));
        rows.number(13, i64::from(record.schema_version));
        rows.text(14, bounds.as_deref());
        rows.text(15, record.deletes.as_ref().map(|deletes| deletes.path.as_str()));
    }

    fn finish(self) -> Result<RecordBatch> {
        self.rows.finish()
    }
}
