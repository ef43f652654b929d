//! Unique keys of tables: what a statement does to them is checked here, at what the statement has read. Whether that still
//! holds when it is committed, the committer checks.
//!
//! Invariants:
//! 1. The key index of a scope is asked only when it is whole: one that was lost is made again first, from the rows.
//! 2. A statement in a transaction sees the keys that the transaction has staged.

use std::iter;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{TableRecord, UniqueRecord};
use seracdb_storage::commit::{Commit, Expected};
use seracdb_storage::key_codec::KeyBytes;
use seracdb_storage::keys::Scope;
use seracdb_storage::snapshot::Snapshot;
use seracdb_storage::spans::in_this_span;
use seracdb_storage::system_columns::{ID, RowId};
use seracdb_storage::unique::{KeyEdits, KeyWrite, Taken, UniqueKey};

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::row_versions::Writes;
use crate::scan::{Exposure, LOCATION_COLUMNS, ScopeTable};
use crate::sql::Statement;
use crate::sql::conflict::changed_columns;
use crate::sql::errors::from_datafusion;
use crate::sql::statement::MergeAction;
use crate::tables::Tables;
use crate::transaction::StagedScope;
use crate::write::user_columns;

/// How often the keys of a scope are begun again because its table was altered meanwhile.
const BEGINNINGS_MAX: usize = 10;

/// Keys above which they are looked up on a thread that may wait.
const KEYS_AT_HAND: usize = 1000;

/// What a statement sees of the key index of a scope.
#[derive(Clone)]
pub(crate) struct KeyView {
    snapshot: Arc<Snapshot>,
    staged: Option<StagedScope>,
    scope: Scope,
    /// Whether errors may tell the values of keys.
    shows_values: bool,
}

impl KeyView {
    pub(crate) fn new(snapshot: &Arc<Snapshot>, staged: Option<&StagedScope>, scope: Scope) -> Self {
        Self { snapshot: Arc::clone(snapshot), staged: staged.cloned(), scope, shows_values: true }
    }

    /// The same, whose errors tell the values of keys, or do not.
    pub(crate) fn showing_values(self, shows_values: bool) -> Self {
        Self { shows_values, ..self }
    }

    /// What a statement over these tables sees.
    pub(crate) fn of(tables: &Tables, scope: Scope) -> Self {
        Self::new(&tables.snapshot, tables.staged.as_ref().and_then(|staged| staged.scope(scope)), scope)
    }

    /// Which rows have these keys.
    pub(crate) fn find(&self, keys: &[&KeyBytes]) -> Result<Vec<Option<RowId>>, StorageError> {
        let Some(staged) = &self.staged else { return self.snapshot.find_keys(self.scope, keys) };
        let mut found: Vec<Option<Option<RowId>>> = keys.iter().map(|key| staged.key(key)).collect();
        let unknown: Vec<&KeyBytes> =
            keys.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(key, _)| *key).collect();
        let mut committed = self.snapshot.find_keys(self.scope, &unknown)?.into_iter();
        for place in found.iter_mut().filter(|found| found.is_none()) {
            *place = committed.next();
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    /// Checks what a statement does to the keys of a table, and puts what is to be committed beside its rows.
    pub(crate) async fn settle(self, table: &TableRecord, writes: &mut Writes) -> Result<()> {
        let edits = std::mem::take(&mut writes.keys);
        writes.key_writes = self.settled(table, edits).await?;
        Ok(())
    }

    /// What is to be committed of these edits.
    pub(crate) async fn settled(self, table: &TableRecord, edits: KeyEdits) -> Result<Vec<KeyWrite>> {
        if edits.is_empty() {
            return Ok(vec![]);
        }
        let (scope, shows_values) = (self.scope, self.shows_values);
        let settled = match edits.len() > KEYS_AT_HAND {
            true => tokio::task::spawn_blocking(in_this_span(move || edits.settle(|keys| self.find(keys))))
                .await
                .map_err(|_| EngineError::panicked())?,
            false => edits.settle(|keys| self.find(keys)),
        };
        match settled? {
            Ok(changes) => Ok(vec![KeyWrite { scope, changes, completes: false }]),
            Err(taken) => Err(already(table, &taken, shows_values)),
        }
    }
}

/// A row would have the key of another. `shows_values`: whether it may be told which: an UPDATE sets some columns of a key, and has
/// the others from rows that its user may have no right to read.
fn already(table: &TableRecord, taken: &Taken, shows_values: bool) -> EngineError {
    let keys = UniqueKey::of_table(table);
    let named = keys.iter().find_map(|key| Some((key, key.describe(&taken.0)?)));
    let (what, values) = match &named {
        Some((key, values)) => (kind(&key.record), if shows_values { values.as_str() } else { "these values" }),
        None => ("unique key", "these values"),
    };
    let name = format!("{}.{}", table.namespace, table.name);
    EngineError::new(
        ErrorKind::AlreadyExists,
        format!(
            "table '{name}' has a row with {values} already: that is its {what}, of which no two rows have the same"
        ),
    )
}

/// What a unique key is called.
fn kind(key: &UniqueRecord) -> &'static str {
    if key.primary { "primary key" } else { "unique key" }
}

/// The places of the columns of which a statement needs the values that rows had, to know which unique keys they lose.
pub(crate) fn old_columns(statement: &Statement, table: &TableRecord) -> Vec<usize> {
    let (keys, columns) = (UniqueKey::of_table(table), user_columns(table.schema()));
    let assigned: Vec<&str> = match statement {
        Statement::Update(update) => update.assignments.iter().map(|(name, _)| name.as_str()).collect(),
        Statement::Insert(insert) => changed_columns(insert, &columns).collect(),
        Statement::Delete(_) => columns.iter().map(|(name, _)| name.as_str()).collect(),
        Statement::Merge(merge) => {
            let mut assigned = Vec::new();
            for clause in &merge.clauses {
                match &clause.action {
                    MergeAction::Update(assignments) => {
                        assigned.extend(assignments.iter().map(|(name, _)| name.as_str()))
                    }
                    MergeAction::Delete => assigned.extend(columns.iter().map(|(name, _)| name.as_str())),
                    MergeAction::Insert { .. } | MergeAction::Nothing => {}
                }
            }
            assigned
        }
        _ => vec![],
    };
    if assigned.is_empty() {
        return vec![];
    }
    // What a generated column becomes is not known yet.
    let is_generated = |place: &usize| table.schema().columns[*place].generated.is_some();
    let is_affected = |key: &&UniqueKey| {
        key.names().iter().any(|name| assigned.contains(&name.as_str())) || key.places.iter().any(is_generated)
    };
    let mut places: Vec<usize> = keys.iter().filter(is_affected).flat_map(|key| key.places.clone()).collect();
    places.sort_unstable();
    places.dedup();
    places
}

impl Engine {
    /// The key that a commit could not have because another row has it by now; `None` when it was something else. `shows_values`:
    /// whether it may be told which.
    pub(crate) fn taken_meanwhile(
        &self,
        table: &TableRecord,
        writes: &[KeyWrite],
        shows_values: bool,
    ) -> Option<EngineError> {
        let snapshot = self.store.snapshot();
        for write in writes.iter().filter(|write| write.scope.table == table.id) {
            let wanted = || write.changes.iter().filter_map(|(key, id)| Some((key, (*id)?)));
            let keys: Vec<&KeyBytes> = wanted().map(|(key, _)| key).collect();
            let found = snapshot.find_keys(write.scope, &keys).ok()?;
            let taken = wanted().zip(found).find(|((_, id), found)| found.is_some_and(|found| found != *id));
            if let Some(((key, _), _)) = taken {
                return Some(already(table, &Taken(key.clone()), shows_values));
            }
        }
        None
    }

    /// Makes the key index of a scope again when it is lost. Says whether it was: who has read before has seen none.
    pub(crate) async fn require_keys(&self, tables: &Tables, table: &Arc<TableRecord>, scope: Scope) -> Result<bool> {
        if table.unique.is_empty() || !self.store.snapshot().keys_lost(scope)? {
            return Ok(false);
        }
        // Nobody commits rows of a table with keys without them.
        let _alone = self.turns.take(scope, true).await;
        for _ in 0..BEGINNINGS_MAX {
            let tables = Tables { snapshot: self.store.snapshot(), staged: None, ..tables.clone() };
            // Whoever goes on finds out when it is gone, or has none any more.
            let Some(table) = tables.snapshot.catalog().table_by_id(scope.table).cloned() else { return Ok(true) };
            if !self.keys_unseen(&tables, &table, scope)? || self.make_keys_again(&tables, &table, scope).await? {
                return Ok(true);
            }
        }
        Err(StorageError::Conflict.into())
    }

    /// Whether a transaction has begun before the key index of a scope was made again.
    pub(crate) fn keys_unseen(&self, tables: &Tables, table: &TableRecord, scope: Scope) -> Result<bool> {
        Ok(!table.unique.is_empty() && tables.snapshot.keys_lost(scope)?)
    }

    /// Makes them of the rows; false when the table was altered meanwhile, and may have other keys.
    async fn make_keys_again(&self, tables: &Tables, table: &Arc<TableRecord>, scope: Scope) -> Result<bool> {
        let (failed, keys) = (|error| from_datafusion(error, &LOCATION_COLUMNS), UniqueKey::of_table(table));
        let (state, started) = (self.statement_state(self.stop()), self.store.clock().monotonic());
        let is_wanted = |name: &str| keys.iter().any(|key| key.names().iter().any(|wanted| wanted == name));
        let columns = table.schema().columns.iter().map(|column| column.name.as_str());
        let read: Vec<&str> = iter::once(ID).chain(columns.filter(|name| is_wanted(name))).collect();
        let mut rows = columns_of_rows(&state, tables.rows_of(table, scope, Exposure::Visible), &read).await?;
        let mut made = 0;
        while let Some(batch) = rows.try_next().await.map_err(failed)? {
            let ids: Vec<RowId> =
                batch.column(0).as_primitive::<Int64Type>().values().iter().map(|id| RowId::stored(*id)).collect();
            let mut changes = Vec::new();
            for key in &keys {
                let columns = key.names().iter().map(|name| batch.column_by_name(name).cloned());
                let columns: Option<Vec<ArrayRef>> = columns.collect();
                let columns = columns.ok_or_else(|| EngineError::internal("a column of a unique key is not there"))?;
                let encoded = key.encode(&columns, ids.len())?;
                changes.extend(encoded.into_iter().zip(&ids).filter_map(|(key, id)| Some((key?, Some(*id)))));
            }
            made += changes.len();
            if !self.commit_keys(table, KeyWrite { scope, changes, completes: false }).await? {
                return Ok(false);
            }
        }
        if !self.commit_keys(table, KeyWrite { scope, changes: vec![], completes: true }).await? {
            return Ok(false);
        }
        let milliseconds = self.store.clock().monotonic().saturating_sub(started).as_millis();
        tracing::info!(
            table = scope.table.0,
            owner = scope.owner.0,
            keys = made,
            milliseconds,
            "unique keys made again"
        );
        Ok(true)
    }

    /// False when the table was altered or dropped.
    async fn commit_keys(&self, table: &TableRecord, keys: KeyWrite) -> Result<bool> {
        let commit = Commit {
            // After what was made before, which it must not be refused for.
            snapshot: self.store.snapshot(),
            expects: vec![Expected::of(table)],
            catalog: vec![],
            writes: vec![],
            keys: vec![keys],
            files: vec![],
            name: None,
            audit: vec![],
        };
        match self.store.commit(commit).await {
            Ok(_) => Ok(true),
            Err(StorageError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// These columns of the rows of a scope. Without a column there are only as many rows.
pub(crate) async fn columns_of_rows(
    state: &SessionState,
    rows: ScopeTable,
    columns: &[&str],
) -> Result<SendableRecordBatchStream> {
    let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
    let schema = rows.schema();
    let projection: Result<Vec<usize>, _> = columns.iter().map(|name| schema.index_of(name)).collect();
    let projection = projection.map_err(|error| failed(error.into()))?;
    let source = provider_as_source(Arc::new(rows));
    let plan = LogicalPlanBuilder::scan(TableReference::bare("rows"), source, Some(projection))
        .and_then(LogicalPlanBuilder::build)
        .map_err(failed)?;
    let plan = state.create_physical_plan(&plan).await.map_err(failed)?;
    execute_stream(plan, state.task_ctx()).map_err(failed)
}
