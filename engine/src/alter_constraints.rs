//! ALTER TABLE that asks more or less of a table's rows: keys, checks and NOT NULL.
//!
//! ```text
//! rows of every scope, as of a snapshot ─▶ all satisfy it? ─▶ commit, resting on that snapshot ─▶ key index made of the rows
//!        ▲                                                        │ rows were written since
//!        └────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! 1. A constraint is there only when all rows of all scopes satisfy it: those that came while they were looked at are looked at
//!    again, and those that were made for fewer constraints are refused at their commit (`storage/src/commit_state.rs`).
//! 2. What does not hold says which constraint and which columns, and no value: rows may be another user's.
//! 3. Who goes on with the files alone, on another machine, finds rows that satisfy it: what hot rows have made good is in files before
//!    the constraint is there.
//! 4. The number of a unique key is never another's: what the index has of one that was dropped is nobody's.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::TryStreamExt;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{
    CatalogChange, CatalogError, CheckRecord, ConstraintChange as StoredChange, TableChange, TableKind, TableRecord,
    UniqueRecord,
};
use seracdb_storage::key_codec::KeyBytes;
use seracdb_storage::keys::{Owner, Scope};
use seracdb_storage::unique::UniqueKey;

use crate::alter::{VERSIONS_MAX, altered, changed_columns, checked, too_many_versions};
use crate::constraints::Constraints;
use crate::ddl::{check_record, own_table, unique_record};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::naming::check_name;
use crate::scan::{Exposure, LOCATION_COLUMNS};
use crate::session::Session;
use crate::sql::TableName;
use crate::sql::constraints::{expression, names_column};
use crate::sql::dml::require_column;
use crate::sql::errors::from_datafusion;
use crate::sql::statement::{ColumnChange, ConstraintChange, UniqueDef};
use crate::tables::Tables;
use crate::transaction::{Staged, StagedScope, Transaction};
use crate::unique::columns_of_rows;
use crate::write::user_columns;

/// How often rows are looked at while others write, before the table is closed to them.
const LOOKS_BESIDE_OTHERS: usize = 2;
/// How often in all. Transactions commit to a closed table, too.
const LOOKS_MAX: usize = 10;
/// How long is waited for those that are in before the table is closed: others wait behind it.
const CLOSING_MAX: Duration = Duration::from_secs(5);
/// Bytes that a key takes while it is looked whether there is another like it, about.
const SEEN_BYTES: usize = 40;

/// What an ALTER TABLE wants that changes constraints.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a TableName,
    pub(crate) if_exists: bool,
    /// Columns change first.
    pub(crate) columns: &'a [ColumnChange],
    /// But for those that come with a column.
    pub(crate) constraints: &'a [ConstraintChange],
}

impl Wanted<'_> {
    /// A table with its columns as they are to be, what makes it so, and the constraints that it is to have.
    fn with_columns(
        &self,
        engine: &Engine,
        tables: &Tables,
        table: Arc<TableRecord>,
    ) -> Result<(Arc<TableRecord>, Vec<CatalogChange>, Vec<ConstraintChange>)> {
        let (change, mut constraints) = changed_columns(engine, tables, self.name, &table, self.columns)?;
        constraints.extend(self.constraints.iter().cloned());
        match change {
            None => Ok((table, vec![], constraints)),
            Some(change) => {
                let (altered, changes) = checked(engine, tables, &table, change)?;
                Ok((Arc::new(altered), changes, constraints))
            }
        }
    }
}

/// ALTER TABLE … ADD constraint, DROP CONSTRAINT, ALTER COLUMN … SET NOT NULL, and columns that come with constraints.
pub(crate) async fn alter(engine: &Arc<Engine>, session: &Session, tables: &Tables, wanted: &Wanted<'_>) -> Result<()> {
    if let Some(transaction) = session.transaction() {
        return alter_in(engine, session, &transaction, tables, wanted).await;
    }
    let Wanted { name, if_exists, .. } = *wanted;
    let (mut tables, mut closed) = (tables.clone(), None);
    for look in 1..=LOOKS_MAX {
        let Some(table) = own_table(engine, session, &tables, name, if_exists, "ALTER TABLE")?.cloned() else {
            return Ok(());
        };
        let (table, mut changes, constraints) = wanted.with_columns(engine, &tables, table)?;
        let mut scopes = None;
        match Next::of(&table, name).changed(&constraints)? {
            None if changes.is_empty() => return Ok(()),
            None => {}
            Some(next) => {
                let change = next.verified(engine, &tables).await?;
                settle_files(engine, &table, change.verified.as_deref()).await?;
                scopes = if change.adds_key(&table) { change.verified.clone() } else { None };
                changes.push(CatalogChange::AlterTable { table: table.id, change: TableChange::Constraints(change) });
            }
        }
        match engine.change_catalog_seen(session, Arc::clone(&tables.snapshot), changes).await {
            Ok(()) => {
                drop(closed);
                make_keys(engine, &tables, &scopes.unwrap_or_default()).await;
                return Ok(());
            }
            Err(error) if !is_written_meanwhile(&error) => return Err(error),
            Err(_) => {}
        }
        if look >= LOOKS_BESIDE_OTHERS && closed.is_none() {
            closed = tokio::time::timeout(CLOSING_MAX, engine.turns.close(table.id)).await.ok();
        }
        tables = Tables { snapshot: engine.store.snapshot(), ..tables };
    }
    Err(EngineError::new(
        ErrorKind::Aborted,
        format!("table '{name}' was written to again and again while its rows were looked at: try again"),
    ))
}

/// The same in a transaction: its commit is refused when others have written to the table since it began.
async fn alter_in(
    engine: &Arc<Engine>,
    session: &Session,
    transaction: &Transaction,
    tables: &Tables,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let Wanted { name, if_exists, .. } = *wanted;
    let _alone = transaction.changing().await;
    let (snapshot, staged) = transaction.view()?;
    let tables = Tables { snapshot, staged: Some(staged), ..tables.clone() };
    let Some(table) = own_table(engine, session, &tables, name, if_exists, "ALTER TABLE")?.cloned() else {
        return Ok(());
    };
    let (table, mut changes, constraints) = wanted.with_columns(engine, &tables, table)?;
    match Next::of(&table, name).changed(&constraints)? {
        None if changes.is_empty() => return Ok(()),
        None => {}
        Some(next) => {
            if next.adds_key() {
                require_new_and_empty(&tables, &table)?;
            }
            let change = next.verified(engine, &tables).await?;
            require_settled(engine, &tables, &table, change.verified.as_deref())?;
            settle_files(engine, &table, change.verified.as_deref()).await?;
            changes.push(CatalogChange::AlterTable { table: table.id, change: TableChange::Constraints(change) });
        }
    }
    engine.stage_catalog(session, transaction, changes).await
}

/// Flushes what hot rows say of rows in files, where another machine could go on with those alone: it would find the rows as they
/// were, which need not satisfy the constraint.
async fn settle_files(engine: &Engine, table: &TableRecord, verified: Option<&[Scope]>) -> Result<()> {
    if table.kind == TableKind::Stream || !engine.store.can_be_taken_over() {
        return Ok(());
    }
    let with_files = engine.store.snapshot().scopes_with_files(table.id)?;
    for scope in verified.unwrap_or_default().iter().filter(|scope| with_files.binary_search(scope).is_ok()) {
        engine.store.flush(*scope).await?;
    }
    Ok(())
}

/// What a transaction has changed itself can be in no file before its commit.
fn require_settled(engine: &Engine, tables: &Tables, table: &TableRecord, verified: Option<&[Scope]>) -> Result<()> {
    let supersedes = |scope: &Scope| {
        tables.staged.as_ref().and_then(|staged| staged.scope(*scope)).is_some_and(StagedScope::supersedes)
    };
    match engine.store.can_be_taken_over() && verified.unwrap_or_default().iter().any(supersedes) {
        true => Err(EngineError::invalid(format!(
            "this transaction has changed rows of table '{}.{}' which the constraint is about: COMMIT first, and ALTER TABLE then",
            table.namespace, table.name
        ))),
        false => Ok(()),
    }
}

/// A transaction has no index of keys that rows have which are there already.
fn require_new_and_empty(tables: &Tables, table: &TableRecord) -> Result<()> {
    let is_new = tables.snapshot.catalog().table_by_id(table.id).is_none();
    let has_rows = tables.staged.iter().flat_map(Staged::written).any(|scope| scope.table == table.id);
    match is_new && !has_rows {
        true => Ok(()),
        false => Err(EngineError::invalid(format!(
            "a key is added to table '{}.{}' outside of a transaction, or in the one that creates the table, before its rows",
            table.namespace, table.name
        ))),
    }
}

fn is_written_meanwhile(error: &EngineError) -> bool {
    let cause = error.source.as_ref().and_then(|cause| cause.downcast_ref::<StorageError>());
    matches!(cause, Some(StorageError::Catalog(CatalogError::TableWritten(..))))
}

/// Makes the index of new keys, so that the next writers need not.
async fn make_keys(engine: &Engine, tables: &Tables, scopes: &[Scope]) {
    for scope in scopes {
        let snapshot = engine.store.snapshot();
        let Some(table) = snapshot.catalog().table_by_id(scope.table) else { return };
        if let Err(error) = engine.require_keys(tables, table, *scope).await {
            tracing::warn!(%error, table = scope.table.0, owner = scope.owner.0, "unique keys are left to the next writer");
        }
    }
}

/// What a table's rows are to satisfy, while it is made.
struct Next<'a> {
    table: &'a Arc<TableRecord>,
    /// As the statement calls it.
    name: &'a TableName,
    unique: Vec<UniqueRecord>,
    checks: Vec<CheckRecord>,
    not_null: Vec<u32>,
    next_key_id: u32,
}

impl<'a> Next<'a> {
    fn of(table: &'a Arc<TableRecord>, name: &'a TableName) -> Self {
        let (unique, checks) = (table.unique.clone(), table.checks.clone());
        Self { table, name, unique, checks, not_null: vec![], next_key_id: table.next_key_id() }
    }

    /// The same once it is changed; `None` when nothing is another than before.
    fn changed(mut self, changes: &[ConstraintChange]) -> Result<Option<Self>> {
        for change in changes {
            match change {
                ConstraintChange::Check(check) => {
                    let name = check.name.clone();
                    let record = check_record(self.table, name, &check.expr, &self.taken(check.name.as_deref())?)?;
                    self.checks.push(record);
                }
                ConstraintChange::Unique(key) => self.add_key(key)?,
                ConstraintChange::NotNull(column) => {
                    let place = require_column(column, &user_columns(self.table.schema()), self.name)?;
                    self.require_value(self.table.schema().columns[place].id);
                }
                ConstraintChange::Drop { name, if_exists } => self.drop(name, *if_exists)?,
                ConstraintChange::Rename { name, to } => self.rename(name, to)?,
            }
        }
        if !self.not_null.is_empty() && self.table.schemas.len() >= VERSIONS_MAX {
            return Err(too_many_versions());
        }
        let is_same = self.unique == self.table.unique && self.checks == self.table.checks && self.not_null.is_empty();
        Ok((!is_same).then_some(self))
    }

    /// The names that constraints have. Refuses the one that another is to have.
    fn taken(&self, wanted: Option<&str>) -> Result<HashSet<String>> {
        let names = self.unique.iter().map(|key| &key.name).chain(self.checks.iter().map(|check| &check.name));
        let names: HashSet<String> = names.cloned().collect();
        match wanted.filter(|wanted| names.contains(*wanted)) {
            Some(there) => {
                let exists = format!("constraint '{there}' of table '{}' exists already", self.name);
                Err(EngineError::new(ErrorKind::AlreadyExists, exists))
            }
            None => Ok(names),
        }
    }

    fn add_key(&mut self, key: &UniqueDef) -> Result<()> {
        let what = key.what();
        if self.table.kind == TableKind::Stream {
            return Err(EngineError::invalid(format!(
                "'{}' is a stream table, whose rows go by themselves: it has no {what}",
                self.name
            )));
        }
        if let Some(there) = self.unique.iter().find(|there| key.primary && there.primary) {
            return Err(EngineError::invalid(format!(
                "table '{}' has the PRIMARY KEY '{}' already, and one is the most: write UNIQUE",
                self.name, there.name
            )));
        }
        let columns = user_columns(self.table.schema());
        for column in &key.columns {
            require_column(column, &columns, self.name)?;
        }
        let record = unique_record(self.table, key, self.next_key_id, &self.taken(key.name.as_deref())?)?;
        self.next_key_id += 1;
        if record.primary {
            record.columns.iter().for_each(|column| self.require_value(*column));
        }
        self.unique.push(record);
        Ok(())
    }

    /// Has a column NOT NULL.
    fn require_value(&mut self, id: u32) {
        let may_be_null = self.table.schema().columns.iter().any(|column| column.id == id && column.nullable);
        if may_be_null && !self.not_null.contains(&id) {
            self.not_null.push(id);
        }
    }

    /// What was a PRIMARY KEY leaves its columns NOT NULL.
    fn drop(&mut self, name: &str, if_exists: bool) -> Result<()> {
        let before = self.unique.len() + self.checks.len();
        self.unique.retain(|key| key.name != name);
        self.checks.retain(|check| check.name != name);
        match before == self.unique.len() + self.checks.len() && !if_exists {
            true => Err(self.unknown(name)),
            false => Ok(()),
        }
    }

    fn unknown(&self, name: &str) -> EngineError {
        EngineError::not_found(format!("constraint '{name}' of table '{}' does not exist", self.name))
    }

    /// What a constraint asks for, and which it is, stays.
    fn rename(&mut self, name: &str, to: &str) -> Result<()> {
        check_name("constraint", to)?;
        let taken = self.taken((name != to).then_some(to))?;
        if !taken.contains(name) {
            return Err(self.unknown(name));
        }
        let names = self.unique.iter_mut().map(|key| &mut key.name);
        let mut names = names.chain(self.checks.iter_mut().map(|check| &mut check.name));
        if let Some(known) = names.find(|known| *known == name) {
            to.clone_into(known);
        }
        Ok(())
    }

    /// The unique keys that are new.
    fn keys(&self) -> impl Iterator<Item = &UniqueRecord> {
        self.unique.iter().filter(|key| self.table.unique.iter().all(|known| known.id != key.id))
    }

    fn adds_key(&self) -> bool {
        self.keys().next().is_some()
    }

    /// The checks that are new, whatever they are called.
    fn new_checks(&self) -> Vec<CheckRecord> {
        let is_known = |check: &CheckRecord| self.table.checks.iter().any(|known| known.expr == check.expr);
        self.checks.iter().filter(|check| !is_known(check)).cloned().collect()
    }

    /// The change, once all rows are found to satisfy it.
    async fn verified(self, engine: &Engine, tables: &Tables) -> Result<StoredChange> {
        let (table, keys, checks) = (self.table, self.keys().cloned().collect(), self.new_checks());
        let Self { unique, checks: all_checks, not_null, .. } = self;
        let (version, alterations) = (table.schema().version, table.alterations);
        let mut change = StoredChange { unique, checks: all_checks, not_null, version, alterations, verified: None };
        // What cannot be planned cannot be kept.
        let after = altered(table, &TableChange::Constraints(change.clone()))?;
        let constraints = Constraints::plan(&engine.state, &after)?;
        let asked =
            Asked { table, constraints, checks, keys: keys_of(&after, keys), not_null: change.not_null.clone() };
        if !asked.is_empty() {
            let scopes = scopes_of(tables, table)?;
            for scope in &scopes {
                asked.require_of(engine, tables, *scope).await?;
            }
            change.verified = Some(scopes);
        }
        Ok(change)
    }
}

/// These of a table's unique keys.
fn keys_of(table: &TableRecord, wanted: Vec<UniqueRecord>) -> Vec<UniqueKey> {
    UniqueKey::of_table(table).into_iter().filter(|key| wanted.contains(&key.record)).collect()
}

/// The scopes of a table that have rows, for who sees these tables.
fn scopes_of(tables: &Tables, table: &TableRecord) -> Result<Vec<Scope>> {
    let of_table = |scope: &Scope| scope.table == table.id;
    let mut scopes: Vec<Scope> = tables.snapshot.hot_scopes_of(table.id)?;
    scopes.extend(tables.snapshot.scopes_with_files(table.id)?);
    scopes.extend(tables.staged.iter().flat_map(Staged::written).filter(of_table));
    scopes.sort_unstable();
    scopes.dedup();
    Ok(scopes)
}

/// What is asked of rows that are there already.
struct Asked<'a> {
    table: &'a Arc<TableRecord>,
    /// Of the table as it is to be.
    constraints: Constraints,
    checks: Vec<CheckRecord>,
    keys: Vec<UniqueKey>,
    /// Ids of columns.
    not_null: Vec<u32>,
}

impl Asked<'_> {
    fn is_empty(&self) -> bool {
        self.checks.is_empty() && self.keys.is_empty() && self.not_null.is_empty()
    }

    /// Refuses when a row of a scope does not satisfy it.
    async fn require_of(&self, engine: &Engine, tables: &Tables, scope: Scope) -> Result<()> {
        let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
        let state = engine.statement_state(engine.stop());
        // Rows that have expired are there again once they live longer.
        let table = Arc::new(TableRecord { ttl_ns: None, ..TableRecord::clone(self.table) });
        let mut rows = columns_of_rows(&state, tables.rows_of(&table, scope, Exposure::Visible), &self.read()?).await?;
        let memory = MemoryConsumer::new("a constraint").register(&state.runtime_env().memory_pool);
        let mut seen: Vec<Seen> = self.keys.iter().map(|_| Seen::default()).collect();
        while let Some(batch) = rows.try_next().await.map_err(failed)? {
            if engine.stop().is_cancelled() {
                return Err(EngineError::cancelled());
            }
            self.require_of_rows(&batch, scope, &mut seen, &memory)?;
        }
        Ok(())
    }

    /// The names of the columns that it is about.
    fn read(&self) -> Result<Vec<&str>> {
        let checks = self.checks.iter().map(|check| expression(&check.expr)).collect::<Result<Vec<_>>>()?;
        let is_read = |id: u32, name: &str| {
            self.not_null.contains(&id)
                || self.keys.iter().any(|key| key.record.columns.contains(&id))
                || checks.iter().any(|check| names_column(check, name))
        };
        let columns = self.table.schema().columns.iter();
        Ok(columns.filter(|column| is_read(column.id, &column.name)).map(|column| column.name.as_str()).collect())
    }

    fn require_of_rows(
        &self,
        batch: &RecordBatch,
        scope: Scope,
        seen: &mut [Seen],
        memory: &MemoryReservation,
    ) -> Result<()> {
        let (rows, table) = (batch.num_rows(), format!("{}.{}", self.table.namespace, self.table.name));
        let columns: Vec<ArrayRef> = self.table.schema().columns.iter().map(|column| of_batch(batch, column)).collect();
        for (column, values) in self.table.schema().columns.iter().zip(&columns) {
            if self.not_null.contains(&column.id) && values.null_count() > 0 {
                return Err(EngineError::invalid(format!(
                    "column '{}' of table '{table}' cannot be NOT NULL: there are rows with NULL",
                    column.name
                )));
            }
        }
        let is_new = |name: &str| self.checks.iter().any(|check| check.name == name);
        if let Some((name, text)) = self.constraints.violated(&columns, rows, false, is_new)? {
            return Err(EngineError::invalid(format!("rows of table '{table}' violate CHECK '{name}': {text}")));
        }
        for (key, seen) in self.keys.iter().zip(seen.iter_mut()) {
            if !seen.add(&key.encode_rows(&columns, rows)?) {
                let what = if key.record.primary { "PRIMARY KEY" } else { "UNIQUE" };
                let whose = if scope.owner == Owner::SHARED { "rows" } else { "rows of one user" };
                return Err(EngineError::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "{what} '{}' is not possible: table '{table}' has {whose} with the same values of ({})",
                        key.record.name,
                        key.names().join(", ")
                    ),
                ));
            }
        }
        let held: usize = seen.iter().map(|seen| seen.keys.len() * SEEN_BYTES).sum();
        memory.try_resize(held).map_err(|error| from_datafusion(error, &LOCATION_COLUMNS))
    }
}

/// A column of rows; one that was not read is NULL.
fn of_batch(batch: &RecordBatch, column: &seracdb_storage::schema::Column) -> ArrayRef {
    match batch.column_by_name(&column.name) {
        Some(values) => Arc::clone(values),
        None => new_null_array(&column.data_type, batch.num_rows()),
    }
}

/// Keys that were seen, as two hashes of them with secrets of their own: nobody finds two keys that have both alike.
#[derive(Default)]
struct Seen {
    keys: HashSet<(u64, u64)>,
    secrets: (RandomState, RandomState),
}

impl Seen {
    /// Adds the keys of rows; false when one was there. Rows without a key are like no other.
    fn add(&mut self, keys: &[Option<KeyBytes>]) -> bool {
        let (first, second) = &self.secrets;
        let hashes = keys.iter().flatten().map(|key| (first.hash_one(&**key), second.hash_one(&**key)));
        for hash in hashes {
            if !self.keys.insert(hash) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use seracdb_storage::keys::TableId;
    use seracdb_storage::schema::{Column, TableSchema};

    use super::*;
    use crate::sql::statement::CheckDef;

    fn table(kind: TableKind) -> Arc<TableRecord> {
        let columns = vec![
            Column::new(16, "a", DataType::Int32, true),
            Column::new(17, "b", DataType::Int32, false),
            Column::new(18, "c", DataType::Int32, true),
        ];
        let table = TableRecord::new(TableId(1), "n", "t", kind, TableSchema { version: 1, columns });
        Arc::new(TableRecord { keys_dropped: 4, ..table })
    }

    fn key(name: Option<&str>, columns: &[&str], primary: bool) -> ConstraintChange {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        ConstraintChange::Unique(UniqueDef { name: name.map(str::to_owned), columns, primary, nulls_equal: false })
    }

    fn check(name: Option<&str>) -> ConstraintChange {
        ConstraintChange::Check(CheckDef { name: name.map(str::to_owned), expr: "a > 0".into() })
    }

    fn rename(name: &str, to: &str) -> ConstraintChange {
        ConstraintChange::Rename { name: name.into(), to: to.into() }
    }

    fn drop_of(name: &str, if_exists: bool) -> ConstraintChange {
        ConstraintChange::Drop { name: name.into(), if_exists }
    }

    /// Names of keys and checks, and ids of columns; `None` = nothing changes.
    fn changed(changes: &[ConstraintChange]) -> Result<Option<(Vec<String>, Vec<u32>)>> {
        let (table, name) = (table(TableKind::Shared), TableName { namespace: None, table: "t".into() });
        let next = Next::of(&table, &name).changed(changes)?;
        Ok(next.map(|next| {
            let keys = next.unique.iter().map(|key| format!("{} {}", key.id, key.name));
            (keys.chain(next.checks.iter().map(|check| check.name.clone())).collect(), next.not_null)
        }))
    }

    #[test]
    fn constraints_have_names_and_numbers_of_their_own() {
        let changes = [key(None, &["a", "b"], true), key(None, &["a"], false), key(None, &["a"], false), check(None)];
        let (names, not_null) = changed(&changes).unwrap().unwrap();
        assert_eq!(names, ["5 t_pkey", "6 t_a_key", "7 t_a_key1", "t_check"]);
        // What is NOT NULL already needs no other version of the columns.
        assert_eq!(not_null, [16]);
        let dropped = [key(Some("k"), &["a"], false), drop_of("k", false), key(Some("k"), &["c"], false)];
        assert_eq!(changed(&dropped).unwrap().unwrap().0, ["6 k"]);
        let renamed = [key(Some("k"), &["a"], false), check(Some("c")), rename("k", "l"), rename("c", "k")];
        assert_eq!(changed(&renamed).unwrap().unwrap().0, ["5 l", "k"]);
    }

    #[test]
    fn what_changes_nothing_is_none() {
        assert_eq!(changed(&[ConstraintChange::NotNull("b".into())]).unwrap(), None);
        assert_eq!(changed(&[drop_of("nothing", true)]).unwrap(), None);
        assert_eq!(changed(&[check(Some("x")), drop_of("x", false)]).unwrap(), None);
        assert_eq!(changed(&[check(Some("x")), rename("x", "x"), drop_of("x", false)]).unwrap(), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (changes, kind) in [
            (vec![drop_of("nothing", false)], ErrorKind::NotFound),
            (vec![ConstraintChange::NotNull("x".into())], ErrorKind::NotFound),
            (vec![key(None, &["x"], false)], ErrorKind::NotFound),
            (vec![check(Some("x")), key(Some("x"), &["a"], false)], ErrorKind::AlreadyExists),
            (vec![key(None, &["a"], true), key(None, &["b"], true)], ErrorKind::InvalidArgument),
            (vec![check(Some("x")), rename("y", "z")], ErrorKind::NotFound),
            (vec![check(Some("x")), key(Some("y"), &["a"], false), rename("y", "x")], ErrorKind::AlreadyExists),
            (vec![check(Some("x")), rename("x", "")], ErrorKind::InvalidArgument),
        ] {
            assert_eq!(changed(&changes).unwrap_err().kind, kind, "{changes:?}");
        }
        let (stream, name) = (table(TableKind::Stream), TableName { namespace: None, table: "t".into() });
        assert!(Next::of(&stream, &name).changed(&[key(None, &["a"], false)]).is_err());
    }

    #[test]
    fn keys_are_seen_once() {
        let key = |n: u8| Some(KeyBytes::copy_from_slice(&[n]));
        let mut seen = Seen::default();
        assert!(seen.add(&[key(1), None, key(2), None]));
        assert!(seen.add(&[key(3)]));
        assert!(!seen.add(&[None, key(2)]));
    }
}
