//! INSERT, UPDATE and DELETE: run the SELECT that finds or makes the rows, encode them, commit.
//!
//! Invariants:
//! 1. A statement writes what its SELECT gives at its snapshot, all in one commit or nothing; in a transaction, at that
//!    one's snapshot over what is staged, and staged in turn.
//! 2. Outside of a transaction it never fails because of another commit: it runs again on a fresh snapshot, alone on its scope.
//! 3. Nothing waits for a client while a scope is locked: the rows are in memory before.

use std::iter::once;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{Privilege, TableRecord};
use seracdb_storage::commit::{Commit, Expected, check_size};
use seracdb_storage::keys::Scope;
use seracdb_storage::schema::TableSchema;
use seracdb_storage::system_columns::CommitTs;

use crate::audit::Duty;
use crate::constraints::Constraints;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::execute::row_values;
use crate::load::Load;
use crate::merge::{Merged, Once};
use crate::prepared::{Prepared, coerced, plan_select, plan_uncoerced};
use crate::returning::{Evaluated, Returned};
use crate::returning_plan::{Needed, Returning, carry, placed};
use crate::rights::Object;
use crate::row_versions::{FOUND_COLUMNS, RowEncoder, Writes, pieces};
use crate::running::{Run, Stoppable};
use crate::scan::LOCATION_COLUMNS;
use crate::session::{Session, describes};
use crate::sql::branches::{cast_clauses, cast_rows};
use crate::sql::coerce::{bind_column, conform, insert_projection};
use crate::sql::constraints::expression;
use crate::sql::defaults::{Writable, put_defaults};
use crate::sql::dml::{delete_query, update_query};
use crate::sql::errors::from_datafusion;
use crate::sql::insert::{insert_plan, plain_parameters};
use crate::sql::mentions::{mentions_identifier, names_a_column};
use crate::sql::merge::merge_query;
use crate::sql::params::{Bound, Typed, hints};
use crate::sql::statement::{ConflictAction, Delete, Insert, InsertSource, Merge, MergeAction, MergeClause, Update};
use crate::sql::tuples::{read_by_column, require_steady_view};
use crate::sql::{self, Limits, Statement, TableName};
use crate::tables::Tables;
use crate::transaction::{Staged, StagedCommit, Transaction};
use crate::turns::Turn;
use crate::unique::{KeyView, old_columns};
use crate::upsert::{self, Upsert};
use crate::views::below;

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
            && !takes_all_rows(&prepared.statement)
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
                let (table, scope) = target(&tables, &prepared.statement)?;
                if self.require_keys(&tables, &table, scope).await? || self.keys_unseen(&tables, &table, scope)? {
                    return Err(EngineError::new(
                        ErrorKind::Aborted,
                        "the index of the table's unique keys has just been made, after the transaction began: roll back, and run the transaction again",
                    ));
                }
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
            let (table, scope) = target(&tables, statement)?;
            let _entered = run.unless_stopped(self.turns.enter(table.id)).await?;
            self.require_keys(&tables, &table, scope).await?;
            // New rows are in nobody's way, unless they have unique keys.
            let turn = match statement {
                Statement::Insert(_) if table.unique.is_empty() => None,
                _ => Some(run.unless_stopped(self.turns.take(scope, lost)).await?),
            };
            // What was waited for may have changed what is there.
            let mut tables = Tables { snapshot: self.store.snapshot(), ..tables };
            if self.keys_unseen(&tables, &target(&tables, statement)?.0, scope)? {
                continue;
            }
            let runs = self.runs(&tables, statement, params)?;
            let written = match runs.as_slice() {
                [only] => self.write_once(&tables, duty, prepared, params, only.clone(), run).await?,
                _ => {
                    // Each row sees what those before it have written.
                    tables.staged = Some(Staged::over(Arc::clone(tables.snapshot.catalog())));
                    let (rows, _) = self.write_over(&mut tables, prepared, params, run).await?;
                    let committed = self.commit_over(&tables, duty, rows).await?;
                    committed.then_some(Written { rows, returned: None })
                }
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
        rows: Range<usize>,
        run: &Run,
    ) -> Result<Option<Written>> {
        let values = returned_values(&prepared.statement, params, rows.start)?;
        let (table, mut writes) = self.make(tables, prepared, params, rows, run).await?;
        let evaluated = match writes.returned.take() {
            Some(rows) => {
                let table = Arc::clone(&table);
                Some(Evaluated::before_commit(self, tables, prepared, table, rows, values, run).await?)
            }
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
        let runs = self.runs(tables, &prepared.statement, params)?;
        let again = match runs.len() > 1 && !prepared.fits(tables) {
            true => Some(self.prepare_over(tables, prepared.statement.clone(), Arc::clone(&prepared.shown))?),
            false => None,
        };
        let prepared = again.as_ref().unwrap_or(prepared);
        let (mut written, mut returned) = (0, None);
        for rows in runs {
            let values = returned_values(&prepared.statement, params, rows.start)?;
            let (table, mut writes) = self.make(tables, prepared, params, rows, run).await?;
            if let Some(rows) = writes.returned.take() {
                let table = Arc::clone(&table);
                let evaluating = Evaluated::before_commit(self, tables, prepared, table, rows, values, run);
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
        let StagedCommit { catalog, writes, keys, files } = staged.to_commit();
        if writes.is_empty() && files.is_empty() {
            return Ok(true);
        }
        let (snapshot, expects) = (Arc::clone(&tables.snapshot), staged.expects());
        let audit = duty.of_commit(written);
        let commit = Commit { snapshot, expects, catalog, writes, keys, files, name: None, audit };
        Ok(self.commit_unless_lost(commit, duty).await?.is_some())
    }

    /// Runs the statement with these of the bound rows, see [`runs`].
    async fn make(
        &self,
        tables: &Tables,
        prepared: &Prepared,
        params: Option<&RecordBatch>,
        rows: Range<usize>,
        run: &Run,
    ) -> Result<Made> {
        let (table, mut writes) = match (params, plain_insert(&prepared.statement)) {
            (Some(params), Some((insert, order))) => {
                let params = params.slice(rows.start, rows.len());
                self.bound_rows(tables, prepared, insert, &params, &order, run).await?
            }
            (Some(params), None) => self.rows_at(tables, prepared, row_values(params, rows.start)?, run).await?,
            (None, _) => self.rows_at(tables, prepared, vec![], run).await?,
        };
        let view = KeyView::of(tables, tables.scope(&table));
        view.showing_values(shows_values(tables, &table, &prepared.statement)).settle(&table, &mut writes).await?;
        Ok((table, writes))
    }

    /// Runs the statement at one snapshot.
    async fn rows_at(&self, tables: &Tables, prepared: &Prepared, values: Vec<ScalarValue>, run: &Run) -> Result<Made> {
        let state = run.planning(self.statement_state(run.stop()));
        let plan = prepared.plan_over(&state, tables, values.clone())?.plan;
        let translate = |e| from_datafusion(e, &LOCATION_COLUMNS);
        let physical = run.unless_stopped(state.create_physical_plan(&plan)).await?.map_err(translate)?;
        let (table, scope) = target(tables, &prepared.statement)?;
        let carried = carried_fields(&prepared.statement, &table, &physical.schema());
        run.runs(&physical);
        // What is written once its rows are there is not stopped any more.
        let mut rows = run.until_stopped(execute_stream(physical, run.task(&state)).map_err(translate)?);
        let returned = Returned::wanted(&prepared.statement, &table, tables.exposure, &carried);
        let gives_rows = returned.is_some();
        // What is gathered until the commit is the user's memory.
        let mut writes = Writes::new(returned).counted_as(run.memory("a change"));
        if let Statement::Insert(insert) = &prepared.statement
            && insert.conflict.is_some()
        {
            let mut upsert = Upsert::new(self, tables, insert, &table, scope, writes)?;
            while let Some(batch) = rows.try_next().await.map_err(translate)? {
                run.count(&batch);
                upsert.push(self, batch.columns().to_vec(), batch.num_rows()).await?;
            }
            let writes = upsert.finish(self, tables, prepared, values, run).await?;
            return Ok((table, writes));
        }
        if matches!(prepared.statement, Statement::Insert(_)) {
            if gives_rows {
                let inserted = self.inserted(&table, scope, rows, writes, run).await?;
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
        let old = old_columns(&prepared.statement, &table);
        if let Statement::Merge(merge) = &prepared.statement {
            let mut merged = Merged::new(self, merge, &table, scope, old, writes)?;
            while let Some(batch) = rows.try_next().await.map_err(translate)? {
                run.count(&batch);
                merged.push(self, &batch).await?;
            }
            let writes = merged.finish().await?;
            return Ok((table, writes));
        }
        let shows_values = shows_values(tables, &table, &prepared.statement);
        let encoder = RowEncoder::new(self, &table, scope)?.with_old(old).showing_values(shows_values);
        let deletes = matches!(prepared.statement, Statement::Delete(_));
        let mut once = match &prepared.statement {
            Statement::Update(update) if !update.from.is_empty() => Some(Once::new(&table, "UPDATE … FROM")),
            Statement::Delete(_) if !carried.is_empty() => Some(Once::new(&table, "DELETE … USING")),
            _ => None,
        };
        while let Some(mut batch) = rows.try_next().await.map_err(translate)? {
            run.count(&batch);
            match &mut once {
                Some(once) if deletes => batch = once.first_of_each(&batch)?,
                Some(once) => once.check(&batch)?,
                None => {}
            }
            writes.supersede(&encoder, batch, deletes)?;
        }
        Ok((table, writes))
    }

    /// New rows that are given back: all of them are in memory, so none goes to files at once.
    async fn inserted(
        &self,
        table: &TableRecord,
        scope: Scope,
        mut rows: Stoppable,
        mut writes: Writes,
        run: &Run,
    ) -> Result<Writes> {
        let encoder = RowEncoder::new(self, table, scope)?;
        while let Some(batch) = rows.try_next().await.map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))? {
            run.count(&batch);
            let columns = encoder.complete(batch.columns().to_vec(), batch.num_rows())?;
            writes.insert(&encoder, self.store.new_ids(batch.num_rows()), &columns)?;
        }
        Ok(writes)
    }

    /// Bound rows as they are, to be inserted. `order`: the parameter of each target column.
    async fn bound_rows(
        &self,
        tables: &Tables,
        prepared: &Prepared,
        insert: &Insert,
        params: &RecordBatch,
        order: &[usize],
        run: &Run,
    ) -> Result<Made> {
        run.count(params);
        let statement = &prepared.statement;
        let (table, scope) = target(tables, statement)?;
        // One for all rows: they have one now(). Most need none.
        let state = LazyLock::new(|| self.statement_state(run.stop()));
        let returned = Returned::wanted(statement, &table, tables.exposure, &[]);
        let mut writes = Writes::new(returned).counted_as(run.memory("a change"));
        if insert.conflict.is_some() {
            let mut upsert = Upsert::new(self, tables, insert, &table, scope, writes)?;
            for rows in pieces(params) {
                let columns = self.bound_columns(insert, &table, &rows, order, || &*state)?;
                upsert.push(self, columns, rows.num_rows()).await?;
            }
            // Of several rows none is used: see `upsert::takes_rows_together`.
            let values = if params.num_rows() == 0 { vec![] } else { row_values(params, 0)? };
            let writes = upsert.finish(self, tables, prepared, values, run).await?;
            return Ok((table, writes));
        }
        let encoder = RowEncoder::new(self, &table, scope)?;
        for rows in pieces(params) {
            let columns = self.bound_columns(insert, &table, &rows, order, || &*state)?;
            let columns = encoder.complete(columns, rows.num_rows())?;
            writes.insert(&encoder, self.store.new_ids(rows.num_rows()), &columns)?;
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
        let Writes { writes, files, key_writes: keys, .. } = made;
        if rows == 0 {
            return Ok(Some(tables.snapshot.ts()));
        }
        let commit = Commit {
            snapshot: Arc::clone(&tables.snapshot),
            expects: vec![Expected::of(table)],
            catalog: vec![],
            writes,
            keys,
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
            Err(StorageError::Conflict | StorageError::RowConflict { .. } | StorageError::KeyConflict { .. }) => {
                Ok(None)
            }
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

/// The values that the parameters of a RETURNING have, be there any. `row`: the bound row that the statement is run with.
fn returned_values(statement: &Statement, params: Option<&RecordBatch>, row: usize) -> Result<Vec<ScalarValue>> {
    match params.filter(|params| row < params.num_rows() && statement.returning().is_some()) {
        Some(params) => row_values(params, row),
        None => Ok(vec![]),
    }
}

/// The columns that rows of a statement's plan carry along for RETURNING: after the user columns.
fn carried_fields(statement: &Statement, table: &TableRecord, schema: &Schema) -> Vec<FieldRef> {
    let last = match statement {
        Statement::Update(_) | Statement::Delete(_) => 0,
        Statement::Merge(_) => 1,
        _ => return vec![],
    };
    if statement.returning().is_none() {
        return vec![];
    }
    let start = FOUND_COLUMNS + table.schema().columns.len();
    let end = schema.fields().len().saturating_sub(old_columns(statement, table).len() + last);
    schema.fields().get(start..end).map(<[FieldRef]>::to_vec).unwrap_or_default()
}

/// Whether a statement is run once for all bound rows.
fn takes_all_rows(statement: &Statement) -> bool {
    plain_insert(statement).is_some_and(|(insert, _)| insert.conflict.is_none())
}

impl Engine {
    /// The bound rows that the statement is run with at once, one run after the other.
    fn runs(&self, tables: &Tables, statement: &Statement, params: Option<&RecordBatch>) -> Result<Vec<Range<usize>>> {
        let Some(params) = params else { return Ok(once(0..1).collect()) };
        let rows = params.num_rows();
        match plain_insert(statement) {
            Some((insert, _)) if insert.conflict.is_none() => Ok(once(0..rows).collect()),
            Some((insert, order)) if rows > 1 && upsert::takes_rows_together(insert) => {
                let (table, scope) = target(tables, statement)?;
                let state = LazyLock::new(|| self.statement_state(self.stop()));
                let columns = self.bound_columns(insert, &table, params, &order, || &*state)?;
                let columns = RowEncoder::new(self, &table, scope)?.complete(columns, rows)?;
                upsert::runs_without_repeats(insert, &table, &columns, rows)
            }
            _ => Ok((0..rows).map(|row| row..row + 1).collect()),
        }
    }

    /// Bound rows as the user columns of a table. `order`: the parameter of each target column; `state`: of the statement, where
    /// a column has a DEFAULT.
    fn bound_columns<'s>(
        &self,
        insert: &Insert,
        table: &TableRecord,
        rows: &RecordBatch,
        order: &[usize],
        state: impl Fn() -> &'s SessionState,
    ) -> Result<Vec<ArrayRef>> {
        let (user_columns, constraints) = (user_columns(table.schema()), self.constraints(table)?);
        let writable = Writable { user_columns: &user_columns, generated: constraints.generated_names() };
        let targets = insert_plan(insert, &writable)?.targets;
        let columns = user_columns.iter().enumerate().map(|(i, (name, data_type))| {
            match targets.iter().position(|&target| target == i) {
                Some(_) if writable.generated.contains(name) => {
                    Err(EngineError::invalid(format!("column '{name}' is GENERATED: leave it out")))
                }
                Some(place) => bind_column(rows.column(order[place]), data_type, &format!("column '{name}'")),
                None => constraints.default_values(&state, i, rows.num_rows()),
            }
        });
        columns.collect()
    }
}

/// Refuses views of which each column of a `SET (a, b) = (SELECT …)` might be of another row.
fn require_steady_views(tables: &Tables, statement: &Statement) -> Result<()> {
    let sets = match statement {
        // Not to look at millions of values.
        Statement::Insert(insert) => insert.conflict_exprs().next().is_some(),
        Statement::Delete(_) => false,
        _ => true,
    };
    if !sets {
        return Ok(());
    }
    for name in read_by_column(statement) {
        let Some(view) = tables.view(&name) else { continue };
        for view in below(tables.catalog(), view) {
            if let Statement::Query(query) = sql::parse(&view.query, &Limits::default())? {
                require_steady_view(&query)?;
            }
        }
    }
    Ok(())
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
    let constraints = Constraints::plan(state, &table)?;
    let writable = Writable { user_columns: &columns, generated: constraints.generated_names() };
    let statement = &put_defaults(statement, &writable, |name| {
        let column = table.schema().columns.iter().find(|column| column.name == name);
        column.and_then(|column| column.default.as_deref()).map(expression).transpose()
    })?;
    require_steady_views(tables, statement)?;
    // Without a list, values are those of the columns that can be given.
    let given: Vec<(String, DataType)> = writable.places().into_iter().map(|place| columns[place].clone()).collect();
    let returning = Returning { state, tables, statement, table: &table };
    let Needed { hints, carried } = returning.needed(hints(statement, &given), bound)?;
    let old: Vec<&str> = old_columns(statement, &table).into_iter().map(|place| columns[place].0.as_str()).collect();
    let coerce = |plan| coerced(state, plan);
    match statement {
        Statement::Insert(insert) => {
            let source = insert_plan(insert, &writable)?;
            let conflict = upsert::plan(state, tables, insert, &table, hints.clone(), bound)?;
            let hints = upsert::with_types_of(insert, hints, conflict.as_ref());
            let typed = match (&insert.source, source.values_schema) {
                // Rows that are a SELECT each.
                (InsertSource::Values(_), None) => {
                    let into: Vec<_> = source.targets.iter().map(|target| &columns[*target]).collect();
                    let typed = plan_uncoerced(state, tables, source.query, hints, None, bound)?;
                    Typed { plan: coerce(cast_rows(typed.plan, &into, &coerce)?)?, ..typed }
                }
                (_, schema) => plan_select(state, tables, source.query, hints, schema, bound)?,
            };
            let plan = insert_projection(typed.plan, &source.targets, insert, &columns, constraints.defaults())?;
            let conflict = match conflict {
                Some(conflict) if conflict.parameters != typed.parameters => {
                    let hints = typed.parameters.iter().cloned().map(Some).collect();
                    upsert::plan(state, tables, insert, &table, hints, bound)?
                }
                conflict => conflict,
            };
            let in_place = typed.in_place || conflict.as_ref().is_some_and(|conflict| conflict.in_place);
            let conflict = conflict.map(|conflict| Box::new(conflict.plan));
            Ok(Typed { plan, in_place, conflict, ..typed })
        }
        Statement::Update(update) => {
            let update = Update { table: full_name(&table), ..update.clone() };
            let query = update_query(&update, &columns, &LOCATION_COLUMNS, &old)?;
            let typed = plan_uncoerced(state, tables, query, hints, None, bound)?;
            let plan = coerce(carry(typed.plan, &carried)?)?;
            let mut types = vec![None; FOUND_COLUMNS];
            types.extend(columns.iter().map(|(name, data_type)| Some((name.as_str(), data_type))));
            types.extend(vec![None; old.len() + carried.len()]);
            Ok(Typed { plan: placed(conform(plan, &types)?, carried.len(), old.len())?, ..typed })
        }
        Statement::Delete(delete) => {
            let delete = Delete { table: full_name(&table), ..delete.clone() };
            let returned: Vec<&str> = match statement.returning() {
                Some(_) => columns.iter().map(|(name, _)| name.as_str()).collect(),
                None => vec![],
            };
            let query = delete_query(&delete, &LOCATION_COLUMNS, &returned, &old)?;
            let typed = plan_uncoerced(state, tables, query, hints, None, bound)?;
            let plan = coerce(carry(typed.plan, &carried)?)?;
            Ok(Typed { plan: placed(plan, carried.len(), old.len())?, ..typed })
        }
        Statement::Merge(merge) => {
            let merge = Merge { table: full_name(&table), ..Merge::clone(merge) };
            let query = merge_query(&merge, &columns, &LOCATION_COLUMNS, &old)?;
            let typed = plan_uncoerced(state, tables, query, hints, None, bound)?;
            let plan = cast_clauses(typed.plan, FOUND_COLUMNS, &columns, &coerce)?;
            let plan = coerce(carry(plan, &carried)?)?;
            let mut types = vec![None; FOUND_COLUMNS];
            types.extend(columns.iter().map(|(name, data_type)| Some((name.as_str(), data_type))));
            // The clause of each row is last.
            let after = old.len() + 1;
            types.extend(vec![None; after + carried.len()]);
            Ok(Typed { plan: placed(conform(plan, &types)?, carried.len(), after)?, ..typed })
        }
        _ => Err(EngineError::internal("only INSERT, UPDATE, DELETE and MERGE are planned as writes")),
    }
}

/// The table that a statement writes to, and the scope of its user.
pub(crate) fn target(tables: &Tables, statement: &Statement) -> Result<(Arc<TableRecord>, Scope)> {
    let name: &TableName = match statement {
        Statement::Insert(insert) => &insert.table,
        Statement::Update(update) => &update.table,
        Statement::Delete(delete) => &delete.table,
        Statement::Merge(merge) => &merge.table,
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
        Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
            target(tables, statement).map(drop)
        }
        _ => Ok(()),
    }
}

/// The rights on its target that a statement needs. One that looks at rows before it changes them needs to read them, too:
/// else its count would tell what is in them.
fn privileges(statement: &Statement) -> Vec<Privilege> {
    let (mut needed, reads) = match statement {
        Statement::Insert(Insert { conflict: Some(conflict), .. }) => {
            let changes = conflict.action != ConflictAction::Nothing;
            (if changes { vec![Privilege::Insert, Privilege::Update] } else { vec![Privilege::Insert] }, true)
        }
        Statement::Update(update) => {
            let mut values = update.assignments.iter().map(|(_, value)| value);
            let reads = update.selection.is_some() || !update.from.is_empty() || values.any(names_a_column);
            (vec![Privilege::Update], reads)
        }
        Statement::Delete(delete) => (vec![Privilege::Delete], delete.selection.is_some() || !delete.using.is_empty()),
        Statement::Merge(merge) => {
            let needs = |clause: &MergeClause| match clause.action {
                MergeAction::Insert { .. } => Some(Privilege::Insert),
                MergeAction::Update(_) => Some(Privilege::Update),
                MergeAction::Delete => Some(Privilege::Delete),
                MergeAction::Nothing => None,
            };
            (merge.clauses.iter().filter_map(needs).collect(), true)
        }
        _ => (vec![Privilege::Insert], false),
    };
    if reads || statement.returning().is_some() {
        needed.push(Privilege::Select);
    }
    needed
}

/// Whether errors of a statement may tell what is in its rows: values of its own, or of a table that its user may read.
fn shows_values(tables: &Tables, table: &TableRecord, statement: &Statement) -> bool {
    matches!(statement, Statement::Insert(_)) || tables.may_read(Object::Table(table))
}

pub(crate) fn full_name(table: &TableRecord) -> TableName {
    TableName { namespace: Some(table.namespace.clone()), table: table.name.clone() }
}

/// Names and types of the user's columns.
pub(crate) fn user_columns(schema: &TableSchema) -> Vec<(String, DataType)> {
    schema.columns.iter().map(|column| (column.name.clone(), column.data_type.clone())).collect()
}
