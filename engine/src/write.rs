//! INSERT, UPDATE and DELETE: run the SELECT that finds or makes the rows, encode them, commit.
//!
//! Invariants:
//! 1. A statement writes what its SELECT gives at its snapshot, all in one commit or nothing; in a transaction, at that
//!    one's snapshot over what is staged, and staged in turn.
//! 2. Outside of a transaction it never fails because of another commit: it runs again on a fresh snapshot, alone on its scope.
//! 3. Nothing waits for a client while a scope is locked: the rows are in memory before.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;
use seracdb_storage::StorageError;
use seracdb_storage::bulk::PendingFile;
use seracdb_storage::catalog::{Privilege, TableRecord};
use seracdb_storage::commit::{Commit, Location, ScopeWrite, Superseded, Values, check_size};
use seracdb_storage::keys::{BatchNumber, Generation, Scope};
use seracdb_storage::row_codec::{RowLayout, encode_rows};
use seracdb_storage::schema::TableSchema;
use seracdb_storage::system_columns::{CommitTs, RowId};

use crate::audit::Duty;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::execute::row_values;
use crate::load::Load;
use crate::prepared::{Prepared, plan_select};
use crate::returning::{Evaluated, Returned};
use crate::rights::Object;
use crate::running::{Run, Stoppable};
use crate::scan::LOCATION_COLUMNS;
use crate::session::{Session, describes};
use crate::sql::coerce::{bind_column, conform, insert_projection};
use crate::sql::dml::{delete_query, update_query};
use crate::sql::errors::from_datafusion;
use crate::sql::insert::{insert_plan, plain_parameters};
use crate::sql::mentions::{mentions_identifier, names_a_column};
use crate::sql::params::{Bound, Typed, hints};
use crate::sql::statement::{Delete, Insert, Update};
use crate::sql::{Statement, TableName};
use crate::tables::Tables;
use crate::transaction::{STAGED_FILE, Staged, StagedCommit, Transaction, staged_place};
use crate::turns::Turn;

/// Columns before the user's in the rows that UPDATE and DELETE find: file, position, `_id`, `_updated`.
const FOUND_COLUMNS: usize = LOCATION_COLUMNS.len() + 2;

/// Rows of a client that are cast and encoded at once.
const ROWS_AT_ONCE: usize = 1 << 16;

/// What a statement has written.
#[derive(Debug)]
pub(crate) struct Written {
    /// How many rows.
    pub(crate) rows: u64,
    /// What RETURNING gives of them.
    pub(crate) returned: Option<Vec<RecordBatch>>,
}

/// What a statement has made for a table.
type Made = (Arc<TableRecord>, Writes);

impl Engine {
    /// Runs an INSERT, UPDATE or DELETE, once per bound row; gives the number of rows written. All of it is committed as one,
    /// or staged in the session's transaction.
    pub(crate) async fn write(
        &self,
        session: &Session,
        duty: &mut Duty,
        prepared: &Prepared,
        params: Option<&RecordBatch>,
        run: &Run,
    ) -> Result<Written> {
        if prepared.statement.returning().is_some()
            && plain_insert(&prepared.statement).is_none()
            && params.is_some_and(|rows| rows.num_rows() != 1)
        {
            return Err(EngineError::invalid("RETURNING gives rows of one execution: bind one row of parameters"));
        }
        self.room_for_writes().await?;
        match session.transaction() {
            Some(transaction) => {
                let _alone = transaction.changing().await;
                transaction.require_writable("INSERT, UPDATE or DELETE")?;
                // Of this transaction, whatever the session goes on to meanwhile.
                let mut tables = self.tables_for(&session.within(Arc::clone(&transaction)), &prepared.statement)?;
                let (rows, returned) = self.write_over(&mut tables, prepared, params, run).await?;
                if let Some(mut staged) = tables.staged {
                    staged.owes(duty.take_over(rows));
                    self.stage(&transaction, staged)?;
                }
                Ok(Written { rows, returned: returned.map(Evaluated::uncommitted) })
            }
            None => self.write_and_commit(&session.outside(), duty, prepared, params, run).await,
        }
    }

    /// Runs the statement until its commit stands.
    async fn write_and_commit(
        &self,
        session: &Session,
        duty: &mut Duty,
        prepared: &Prepared,
        params: Option<&RecordBatch>,
        run: &Run,
    ) -> Result<Written> {
        let statement = &prepared.statement;
        let mut lost = false;
        loop {
            let tables = self.tables_for(session, statement)?;
            // New rows are in nobody's way.
            let turn = match statement {
                Statement::Insert(_) => None,
                _ => Some(run.unless_stopped(self.turns.take(target(&tables, statement)?.1, lost)).await?),
            };
            // What was waited for may have changed what is there.
            let mut tables = Tables { snapshot: self.store.snapshot(), ..tables };
            let written = match params {
                Some(rows) if rows.num_rows() != 1 && plain_insert(statement).is_none() => {
                    // Each row sees what those before it have written.
                    tables.staged = Some(Staged::over(Arc::clone(tables.snapshot.catalog())));
                    let (rows, _) = self.write_over(&mut tables, prepared, params, run).await?;
                    let committed = self.commit_over(&tables, duty, rows).await?;
                    committed.then_some(Written { rows, returned: None })
                }
                _ => self.write_once(&tables, duty, prepared, params, run).await?,
            };
            if let Some(written) = written {
                return Ok(written);
            }
            lost = true;
            turn.into_iter().for_each(Turn::lost);
        }
    }

    /// Runs the statement once and commits; `None` when another commit came first.
    async fn write_once(
        &self,
        tables: &Tables,
        duty: &mut Duty,
        prepared: &Prepared,
        params: Option<&RecordBatch>,
        run: &Run,
    ) -> Result<Option<Written>> {
        let (table, mut writes) = self.make(tables, prepared, params, 0, run).await?;
        let evaluated = match writes.returned.take() {
            Some(rows) => Some(Evaluated::before_commit(self, tables, prepared, Arc::clone(&table), rows, run).await?),
            None => None,
        };
        let rows = writes.rows();
        let Some(ts) = self.commit_rows(tables, &table, writes, duty).await? else { return Ok(None) };
        let returned = match evaluated {
            Some(evaluated) => Some(evaluated.after_commit(self, tables, prepared, ts, run).await?),
            None => None,
        };
        Ok(Some(Written { rows, returned }))
    }

    /// Runs the statement once per bound row, staging what it writes. Only what runs once gives rows.
    async fn write_over(
        &self,
        tables: &mut Tables,
        prepared: &Prepared,
        params: Option<&RecordBatch>,
        run: &Run,
    ) -> Result<(u64, Option<Evaluated>)> {
        let times = match params {
            Some(rows) if plain_insert(&prepared.statement).is_none() => rows.num_rows(),
            _ => 1,
        };
        let again = match times > 1 && !prepared.fits(tables) {
            true => Some(self.prepare_over(tables, prepared.statement.clone(), Arc::clone(&prepared.shown))?),
            false => None,
        };
        let prepared = again.as_ref().unwrap_or(prepared);
        let (mut written, mut returned) = (0, None);
        for row in 0..times {
            let (table, mut writes) = self.make(tables, prepared, params, row, run).await?;
            if let Some(rows) = writes.returned.take() {
                let evaluating = Evaluated::before_commit(self, tables, prepared, Arc::clone(&table), rows, run);
                returned = Some(evaluating.await?);
            }
            written += writes.rows();
            if let Some(staged) = &mut tables.staged {
                staged.write(&table, writes);
                check_size(staged.size_bytes())?;
            }
        }
        Ok((written, returned))
    }

    async fn commit_over(&self, tables: &Tables, duty: &mut Duty, written: u64) -> Result<bool> {
        let Some(staged) = &tables.staged else { return Ok(true) };
        let StagedCommit { catalog, writes, files } = staged.to_commit();
        if writes.is_empty() && files.is_empty() {
            return Ok(true);
        }
        let (snapshot, expects) = (Arc::clone(&tables.snapshot), staged.expects());
        let audit = duty.of_commit(written);
        let commit = Commit { snapshot, expects, catalog, writes, files, name: None, audit };
        Ok(self.commit_unless_lost(commit, duty).await?.is_some())
    }

    /// Runs the statement with one of the bound rows: with all of them when it is an INSERT of nothing else.
    async fn make(
        &self,
        tables: &Tables,
        prepared: &Prepared,
        params: Option<&RecordBatch>,
        row: usize,
        run: &Run,
    ) -> Result<Made> {
        let Some(rows) = params else { return self.rows_at(tables, prepared, vec![], run).await };
        match plain_insert(&prepared.statement) {
            Some((insert, order)) => self.bound_rows(tables, &prepared.statement, insert, rows, &order, run),
            None => self.rows_at(tables, prepared, row_values(rows, row)?, run).await,
        }
    }

    /// Runs the statement at one snapshot.
    async fn rows_at(&self, tables: &Tables, prepared: &Prepared, values: Vec<ScalarValue>, run: &Run) -> Result<Made> {
        let state = self.statement_state(run.stop());
        let plan = prepared.plan_over(&state, tables, values)?.plan;
        let translate = |e| from_datafusion(e, &LOCATION_COLUMNS);
        let physical = run.unless_stopped(state.create_physical_plan(&plan)).await?.map_err(translate)?;
        let (table, scope) = target(tables, &prepared.statement)?;
        run.runs(&physical);
        // What is written once its rows are there is not stopped any more.
        let mut rows = run.until_stopped(execute_stream(physical, run.task(&state)).map_err(translate)?);
        let mut returned = Returned::wanted(&prepared.statement, &table, tables.exposure);
        if matches!(prepared.statement, Statement::Insert(_)) {
            if let Some(returned) = returned {
                let inserted = self.inserted(&table, scope, rows, returned, run).await?;
                return Ok((table, inserted));
            }
            let mut load = Load::new(self, &table, scope)?;
            while let Some(batch) = rows.try_next().await.map_err(translate)? {
                run.count(&batch);
                load.push(batch.columns().to_vec(), batch.num_rows()).await?;
            }
            let writes = load.finish().await?;
            return Ok((table, writes));
        }
        let encoder = RowEncoder::new(&table, scope)?;
        let deletes = matches!(prepared.statement, Statement::Delete(_));
        let mut once = match &prepared.statement {
            Statement::Update(update) if !update.from.is_empty() => Some(Once::new(&table)),
            _ => None,
        };
        let mut writes = Writes::default();
        while let Some(batch) = rows.try_next().await.map_err(translate)? {
            run.count(&batch);
            if let Some(once) = &mut once {
                once.check(&batch)?;
            }
            if let Some(returned) = &mut returned {
                // A deleted row is given as it was, one that is changed as it becomes.
                let updated = deletes.then(|| Arc::clone(batch.column(FOUND_COLUMNS - 1)));
                let columns = &batch.columns()[FOUND_COLUMNS..];
                returned.push(Arc::clone(batch.column(FOUND_COLUMNS - 2)), columns, updated)?;
            }
            writes.push(encoder.supersede(&batch, deletes)?)?;
        }
        drop(rows);
        writes.returned = returned;
        Ok((table, writes))
    }

    /// New rows that are given back: all of them are in memory, so none goes to files at once.
    async fn inserted(
        &self,
        table: &TableRecord,
        scope: Scope,
        mut rows: Stoppable,
        mut returned: Returned,
        run: &Run,
    ) -> Result<Writes> {
        let (encoder, mut writes) = (RowEncoder::new(table, scope)?, Writes::default());
        while let Some(batch) = rows.try_next().await.map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))? {
            run.count(&batch);
            let ids = self.store.new_ids(batch.num_rows());
            encoder.require_values(batch.columns())?;
            returned.push_new(&ids, batch.columns())?;
            writes.push(encoder.insert(ids, batch.columns())?)?;
        }
        writes.returned = Some(returned);
        Ok(writes)
    }

    /// Bound rows as they are, to be inserted. `order`: the parameter of each target column.
    fn bound_rows(
        &self,
        tables: &Tables,
        statement: &Statement,
        insert: &Insert,
        params: &RecordBatch,
        order: &[usize],
        run: &Run,
    ) -> Result<Made> {
        run.count(params);
        let (table, scope) = target(tables, statement)?;
        let user_columns = user_columns(table.schema());
        let targets = insert_plan(insert, &user_columns)?.targets;
        let encoder = RowEncoder::new(&table, scope)?;
        let mut writes = Writes { returned: Returned::wanted(statement, &table, tables.exposure), ..Writes::default() };
        for rows in pieces(params) {
            let columns = user_columns.iter().enumerate().map(|(i, (name, data_type))| {
                match targets.iter().position(|&target| target == i) {
                    Some(place) => bind_column(rows.column(order[place]), data_type, &format!("column '{name}'")),
                    None => Ok(arrow::array::new_null_array(data_type, rows.num_rows())),
                }
            });
            let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
            let ids = self.store.new_ids(rows.num_rows());
            if let Some(returned) = &mut writes.returned {
                encoder.require_values(&columns)?;
                returned.push_new(&ids, &columns)?;
            }
            writes.push(encoder.insert(ids, &columns)?)?;
        }
        Ok((table, writes))
    }

    /// Commits encoded rows; `None` when another commit came first.
    async fn commit_rows(
        &self,
        tables: &Tables,
        table: &TableRecord,
        made: Writes,
        duty: &mut Duty,
    ) -> Result<Option<CommitTs>> {
        let rows = made.rows();
        let Writes { writes, files, .. } = made;
        if rows == 0 {
            return Ok(Some(tables.snapshot.ts()));
        }
        let commit = Commit {
            snapshot: Arc::clone(&tables.snapshot),
            expects: vec![(table.id, table.schema().version)],
            catalog: vec![],
            writes,
            files,
            name: None,
            audit: duty.of_commit(rows),
        };
        self.commit_unless_lost(commit, duty).await
    }

    /// Commits; `None` when another commit came first.
    async fn commit_unless_lost(&self, commit: Commit, duty: &mut Duty) -> Result<Option<CommitTs>> {
        let committed = match duty.is_none() {
            true => self.store.commit(commit).await,
            false => {
                // Who is told that it stands or not has the duty, also when nobody waits for the statement any more.
                let (store, mut owed) = (Arc::clone(&self.store), std::mem::take(duty));
                let committing = async move {
                    let committed = store.commit(commit).await;
                    if committed.is_ok() {
                        owed.paid();
                    }
                    Ok((committed, owed))
                };
                let (committed, left) = self.store.to_its_end(committing).await?;
                *duty = left;
                committed
            }
        };
        match committed {
            Ok(ts) => Ok(Some(ts)),
            Err(StorageError::Conflict | StorageError::RowConflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over what is staged in a transaction, if it is not too much.
    pub(crate) fn stage(&self, transaction: &Transaction, staged: Staged) -> Result<()> {
        transaction.stage(staged, self.transaction_config.memory_max)
    }
}

/// An INSERT of nothing but parameters, and the parameter of each of its columns.
fn plain_insert(statement: &Statement) -> Option<(&Insert, Vec<usize>)> {
    match statement {
        Statement::Insert(insert) => plain_parameters(insert).map(|order| (insert, order)),
        _ => None,
    }
}

/// A batch in pieces of so few rows that columns can be made for them without much memory.
pub(crate) fn pieces(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    (0..rows).step_by(ROWS_AT_ONCE).map(move |start| batch.slice(start, ROWS_AT_ONCE.min(rows - start)))
}

/// The rows of a commit: hot ones, refused as soon as they are too many for one, and those that are in files already.
#[derive(Default)]
pub(crate) struct Writes {
    pub(crate) writes: Vec<ScopeWrite>,
    pub(crate) files: Vec<Arc<PendingFile>>,
    /// The rows again, for RETURNING.
    returned: Option<Returned>,
    bytes: usize,
    rows_in_files: u64,
}

impl Writes {
    pub(crate) fn rows(&self) -> u64 {
        self.rows_in_files + self.writes.iter().map(|write| write.ids.len() as u64).sum::<u64>()
    }

    pub(crate) fn push(&mut self, write: ScopeWrite) -> Result<()> {
        self.bytes += write.size_bytes();
        check_size(self.bytes)?;
        self.writes.push(write);
        Ok(())
    }

    pub(crate) fn add_files(&mut self, files: Vec<Arc<PendingFile>>, rows: u64) {
        self.files.extend(files);
        self.rows_in_files += rows;
    }
}

/// Plans the SELECT of an INSERT, UPDATE or DELETE. It gives the user columns; for UPDATE and DELETE after location, `_id`
/// and `_updated`.
pub(crate) fn plan(
    state: &SessionState,
    tables: &Tables,
    statement: &Statement,
    bound: Option<Bound<'_>>,
) -> Result<Typed> {
    let (table, _) = target(tables, statement)?;
    let columns = user_columns(table.schema());
    for hidden in LOCATION_COLUMNS {
        if mentions_identifier(statement, hidden) {
            return Err(EngineError::not_found(format!("unknown column '{hidden}'")));
        }
    }
    let hints = hints(statement, &columns);
    match statement {
        Statement::Insert(insert) => {
            let source = insert_plan(insert, &columns)?;
            let typed = plan_select(state, tables, source.query, hints, source.values_schema, bound)?;
            let plan = insert_projection(typed.plan, &source.targets, insert, &columns)?;
            Ok(Typed { plan, ..typed })
        }
        Statement::Update(update) => {
            let update = Update { table: full_name(&table), ..update.clone() };
            let query = update_query(&update, &columns, &LOCATION_COLUMNS)?;
            let typed = plan_select(state, tables, query, hints, None, bound)?;
            let mut types = vec![None; FOUND_COLUMNS];
            types.extend(columns.iter().map(|(name, data_type)| Some((name.as_str(), data_type))));
            Ok(Typed { plan: conform(typed.plan, &types)?, ..typed })
        }
        Statement::Delete(delete) => {
            let delete = Delete { table: full_name(&table), ..delete.clone() };
            let returned: Vec<&str> = match statement.returning() {
                Some(_) => columns.iter().map(|(name, _)| name.as_str()).collect(),
                None => vec![],
            };
            plan_select(state, tables, delete_query(&delete, &LOCATION_COLUMNS, &returned)?, hints, None, bound)
        }
        _ => Err(EngineError::internal("only INSERT, UPDATE and DELETE are planned as writes")),
    }
}

/// The table that a statement writes to, and the scope of its user.
pub(crate) fn target(tables: &Tables, statement: &Statement) -> Result<(Arc<TableRecord>, Scope)> {
    let name: &TableName = match statement {
        Statement::Insert(insert) => &insert.table,
        Statement::Update(update) => &update.table,
        Statement::Delete(delete) => &delete.table,
        _ => return Err(EngineError::internal("the statement writes to no table")),
    };
    let namespace = tables.namespace_of(name);
    if describes(namespace) {
        return Err(EngineError::invalid(format!("tables of {namespace} can only be read")));
    }
    if tables.view(name).is_some() {
        return Err(EngineError::invalid(format!(
            "view '{name}' can only be read: INSERT, UPDATE and DELETE change tables"
        )));
    }
    if tables.reach.is_some() {
        tables.refuse_shared(name)?;
    }
    let table = Arc::clone(tables.record(name)?);
    for privilege in privileges(statement) {
        tables.require_right(Object::Table(&table), privilege)?;
    }
    let scope = tables.scope(&table);
    Ok((table, scope))
}

/// Refuses an INSERT, UPDATE or DELETE, or an EXPLAIN of one, that the user has no right to.
pub(crate) fn require_rights(tables: &Tables, statement: &Statement) -> Result<()> {
    match statement {
        Statement::Explain { inner, .. } => require_rights(tables, inner),
        Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => target(tables, statement).map(drop),
        _ => Ok(()),
    }
}

/// The rights on its target that a statement needs. One that looks at rows before it changes them needs to read them, too:
/// else its count would tell what is in them.
fn privileges(statement: &Statement) -> impl Iterator<Item = Privilege> {
    let (privilege, reads) = match statement {
        Statement::Update(update) => {
            let mut values = update.assignments.iter().map(|(_, value)| value);
            (Privilege::Update, update.selection.is_some() || !update.from.is_empty() || values.any(names_a_column))
        }
        Statement::Delete(delete) => (Privilege::Delete, delete.selection.is_some() || !delete.using.is_empty()),
        _ => (Privilege::Insert, false),
    };
    [privilege].into_iter().chain((reads || statement.returning().is_some()).then_some(Privilege::Select))
}

/// Rows of a target that a source has changed so far: each may be changed once, or it would not be known to what.
struct Once<'a> {
    table: &'a TableRecord,
    ids: HashSet<i64>,
}

impl<'a> Once<'a> {
    fn new(table: &'a TableRecord) -> Self {
        Self { table, ids: HashSet::new() }
    }

    /// `found`: location, `_id`, …
    fn check(&mut self, found: &RecordBatch) -> Result<()> {
        let ids = found.column(2).as_primitive::<Int64Type>();
        match ids.values().iter().find(|id| !self.ids.insert(**id)) {
            Some(id) => Err(EngineError::invalid(format!(
                "UPDATE … FROM finds several rows for one row of '{}.{}' (_id {id}): it may be changed once only",
                self.table.namespace, self.table.name
            ))),
            None => Ok(()),
        }
    }
}

pub(crate) fn full_name(table: &TableRecord) -> TableName {
    TableName { namespace: Some(table.namespace.clone()), table: table.name.clone() }
}

/// Names and types of the user's columns.
pub(crate) fn user_columns(schema: &TableSchema) -> Vec<(String, DataType)> {
    schema.columns.iter().map(|column| (column.name.clone(), column.data_type.clone())).collect()
}

/// Makes row versions of batches.
pub(crate) struct RowEncoder<'a> {
    table: &'a TableRecord,
    scope: Scope,
    layout: RowLayout,
}

impl<'a> RowEncoder<'a> {
    pub(crate) fn new(table: &'a TableRecord, scope: Scope) -> Result<Self> {
        let schema = table.schema();
        let layout = RowLayout::new(schema.version, &schema.user_fields().into()).map_err(StorageError::from)?;
        Ok(Self { table, scope, layout })
    }

    /// New rows. `columns`: the user columns in order.
    pub(crate) fn insert(&self, ids: Vec<RowId>, columns: &[ArrayRef]) -> Result<ScopeWrite> {
        let values = self.values(ids.len(), columns)?;
        Ok(ScopeWrite { scope: self.scope, ids, values, supersedes: vec![] })
    }

    /// New versions of found rows. `found`: location, `_id`, `_updated`, then the new user columns unless they are
    /// deleted.
    fn supersede(&self, found: &RecordBatch, delete: bool) -> Result<ScopeWrite> {
        let files = found.column(0).as_primitive::<UInt64Type>();
        let positions = found.column(1).as_primitive::<Int64Type>();
        let ids = found.column(2).as_primitive::<Int64Type>();
        let updated = found.column(3).as_primitive::<TimestampNanosecondType>();
        let supersedes = (0..found.num_rows()).map(|row| {
            let location = match (files.value(row), positions.value(row) as u32) {
                (0, generation) => Location::Hot(Generation(generation)),
                (STAGED_FILE, _) => return staged_place(),
                (file, position) => Location::Cold(BatchNumber(file), position),
            };
            Superseded { updated: CommitTs::stored(updated.value(row)), location }
        });
        let values = match delete {
            true => Values::Tombstones(self.layout.schema_version()),
            false => self.values(found.num_rows(), &found.columns()[FOUND_COLUMNS..])?,
        };
        Ok(ScopeWrite {
            scope: self.scope,
            ids: ids.values().iter().map(|id| RowId::stored(*id)).collect(),
            values,
            supersedes: supersedes.collect(),
        })
    }

    fn values(&self, rows: usize, columns: &[ArrayRef]) -> Result<Values> {
        self.require_values(columns)?;
        Ok(Values::Rows(encode_rows(&self.layout, rows, columns).map_err(StorageError::from)?))
    }

    /// Refuses NULL where the table wants a value. `columns`: the user columns in order.
    pub(crate) fn require_values(&self, columns: &[ArrayRef]) -> Result<()> {
        for (column, values) in self.table.schema().columns.iter().zip(columns) {
            if !column.nullable && values.null_count() > 0 {
                return Err(EngineError::invalid(format!(
                    "column '{}' of table '{}.{}' is NOT NULL, but a value is NULL",
                    column.name, self.table.namespace, self.table.name
                )));
            }
        }
        Ok(())
    }
}
