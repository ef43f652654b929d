//! RETURNING: what a statement gives of the rows it has written.
//!
//! Invariants:
//! 1. It is evaluated before the commit: an error of it leaves nothing written, unless only the value of `_updated` makes it
//!    fail, which is NULL by then. What shows `_updated` is evaluated once more
//!    after the commit, which decides it.
//! 2. Its subqueries see the tables as the statement did.
//! 3. Whoever cancels the statement ends it before the commit, and not after: what stands is told.
//! 4. What it gives is the user's memory until it is given.
//! 5. What rows were joined with is carried along as far as RETURNING names it: see [`crate::returning_plan`].

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, TimestampNanosecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast::{Expr, SelectItem, Visit, Visitor};
use futures::{StreamExt, TryStreamExt};
use seracdb_storage::catalog::TableRecord;
use seracdb_storage::system_columns::{self, CommitTs, RowId};

use crate::engine::Engine;
use crate::error::Result;
use crate::output::{client_schema, conform};
use crate::prepared::Prepared;
use crate::returning_plan::{Returning, carried_name};
use crate::running::Run;
use crate::scan::{Exposure, LOCATION_COLUMNS};
use crate::sql::Statement;
use crate::sql::errors::from_datafusion;
use crate::sql::fit::{BoundPlan, bind_values};
use crate::sql::names::fold;
use crate::sql::params::Bound;
use crate::tables::Tables;
use crate::unpacked::unpacked_bytes_of;
use crate::write::target;

/// Rows as they were written.
#[derive(Debug)]
pub(crate) struct Returned {
    /// `_id`, the user columns, those that are carried along, `_updated`, `_deleted` where it is asked for.
    schema: SchemaRef,
    /// The places of the columns that are carried along.
    carried: Range<usize>,
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl Returned {
    /// None yet, of this table; `None` when the statement gives only their number. `carried`: columns of what it is joined with.
    pub(crate) fn wanted(
        statement: &Statement,
        table: &TableRecord,
        exposure: Exposure,
        carried: &[FieldRef],
    ) -> Option<Self> {
        statement.returning()?;
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let mut fields = vec![Field::new(system_columns::ID, DataType::Int64, false)];
        fields.extend(table.schema().user_fields());
        let places = fields.len()..fields.len() + carried.len();
        let carried = carried.iter().enumerate();
        fields.extend(carried.map(|(place, field)| Field::new(carried_name(place), field.data_type().clone(), true)));
        fields.push(Field::new(system_columns::UPDATED, nanoseconds, true));
        if exposure != Exposure::Visible {
            fields.push(Field::new(system_columns::DELETED, DataType::Boolean, false));
        }
        Some(Self { schema: Arc::new(Schema::new(fields)), carried: places, batches: vec![], bytes: 0 })
    }

    /// How many columns are carried along.
    pub(crate) fn carried(&self) -> usize {
        self.carried.len()
    }

    /// The columns of the target.
    pub(crate) fn of_target(&self) -> SchemaRef {
        let fields = self.schema.fields().iter().enumerate().filter(|(place, _)| !self.carried.contains(place));
        Arc::new(Schema::new(fields.map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>()))
    }

    /// The rows as a table.
    pub(crate) fn as_table(&self) -> Result<MemTable> {
        let table = MemTable::try_new(Arc::clone(&self.schema), vec![self.batches.clone()]);
        table.map_err(|error| from_datafusion(error, &LOCATION_COLUMNS))
    }

    /// Bytes of the rows, about.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds rows. `columns`: the user columns in order, then those that are carried along; `updated`: `None` = their commit decides.
    pub(crate) fn push(&mut self, ids: ArrayRef, columns: &[ArrayRef], updated: Option<ArrayRef>) -> Result<()> {
        let rows = ids.len();
        self.bytes = self.bytes.saturating_add(unpacked_bytes_of(columns, rows));
        let mut all = vec![ids];
        all.extend_from_slice(columns);
        let updated_type = self.schema.field(all.len()).data_type();
        all.push(updated.unwrap_or_else(|| new_null_array(updated_type, rows)));
        if all.len() < self.schema.fields().len() {
            all.push(Arc::new(BooleanArray::from(vec![false; rows])));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), all);
        self.batches.push(batch.map_err(|error| from_datafusion(error.into(), &LOCATION_COLUMNS))?);
        Ok(())
    }

    /// Adds new rows.
    pub(crate) fn push_new(&mut self, ids: &[RowId], columns: &[ArrayRef]) -> Result<()> {
        self.push(Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| id.get()))), columns, None)
    }

    /// The commit has decided when.
    fn committed_at(&mut self, ts: CommitTs) -> Result<()> {
        let place = self.schema.index_of(system_columns::UPDATED);
        let place = place.map_err(|error| from_datafusion(error.into(), &LOCATION_COLUMNS))?;
        for batch in &mut self.batches {
            if batch.column(place).null_count() == batch.num_rows() {
                let mut columns = batch.columns().to_vec();
                columns[place] = Arc::new(TimestampNanosecondArray::from(vec![ts.get(); batch.num_rows()]));
                let made = RecordBatch::try_new(Arc::clone(&self.schema), columns);
                *batch = made.map_err(|error| from_datafusion(error.into(), &LOCATION_COLUMNS))?;
            }
        }
        Ok(())
    }
}

/// The columns of RETURNING as clients see them; none without it. `parameters`: the types of the statement's.
pub(crate) fn schema(
    state: &SessionState,
    tables: &Tables,
    statement: &Statement,
    parameters: &[DataType],
) -> Result<SchemaRef> {
    if statement.returning().is_none() {
        return Ok(Arc::new(Schema::empty()));
    }
    let (table, _) = target(tables, statement)?;
    let Some(none) = Returned::wanted(statement, &table, tables.exposure, &[]) else {
        return Ok(Arc::new(Schema::empty()));
    };
    let types: Vec<Option<DataType>> = parameters.iter().cloned().map(Some).collect();
    let planned = Returning { state, tables, statement, table: &table }.plan(&none, &types, None)?;
    Ok(client_schema(planned.typed.plan.schema().as_arrow()))
}

/// Rows of RETURNING on their way.
pub(crate) struct Evaluated {
    rows: Returned,
    table: Arc<TableRecord>,
    /// The statement's parameters.
    values: Vec<ScalarValue>,
    batches: Vec<RecordBatch>,
    memory: MemoryReservation,
}

/// How far the commit of the rows is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// It may come, or not.
    Open,
    /// It stands.
    Stands,
}

impl Evaluated {
    /// Evaluates it before the commit. `values`: of the statement's parameters.
    pub(crate) async fn before_commit(
        engine: &Engine,
        tables: &Tables,
        prepared: &Prepared,
        table: Arc<TableRecord>,
        rows: Returned,
        values: Vec<ScalarValue>,
        run: &Run,
    ) -> Result<Self> {
        let mut evaluated = Self { rows, table, values, batches: vec![], memory: run.memory("RETURNING") };
        evaluated.evaluate(engine, tables, prepared, run, Commit::Open).await?;
        Ok(evaluated)
    }

    /// What is given, now that the commit stands.
    pub(crate) async fn after_commit(
        mut self,
        engine: &Engine,
        tables: &Tables,
        prepared: &Prepared,
        ts: CommitTs,
        run: &Run,
    ) -> Result<Vec<RecordBatch>> {
        if shows_updated(prepared.statement.returning().unwrap_or_default()) {
            self.rows.committed_at(ts)?;
            self.evaluate(engine, tables, prepared, run, Commit::Stands).await?;
        }
        Ok(self.batches)
    }

    /// What is given by a statement of a transaction, whose commit is to come.
    pub(crate) fn uncommitted(self) -> Vec<RecordBatch> {
        self.batches
    }

    async fn evaluate(
        &mut self,
        engine: &Engine,
        tables: &Tables,
        prepared: &Prepared,
        run: &Run,
        commit: Commit,
    ) -> Result<()> {
        let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
        // Once the commit stands nothing ends the statement but the server's own end.
        let stop = if commit == Commit::Stands { engine.stop() } else { run.stop() };
        let state = run.planning(engine.statement_state(stop));
        let returning = Returning { state: &state, tables, statement: &prepared.statement, table: &self.table };
        let types: Vec<Option<DataType>> =
            prepared.parameters().fields().iter().map(|field| Some(field.data_type().clone())).collect();
        let typed = returning.plan(&self.rows, &types, None)?.typed;
        // It has none when no parameter stands there.
        let values = if typed.parameters.is_empty() { vec![] } else { self.values.clone() };
        let again = |bound: Bound<'_>| {
            let open = vec![None; bound.types.len()];
            returning.plan(&self.rows, &open, Some(bound)).map(|planned| planned.typed)
        };
        let BoundPlan { plan, .. } = bind_values(&prepared.statement, &typed, values, again)?;
        let plan = tables.bind(plan).map_err(failed)?;
        let planned = state.create_physical_plan(&plan);
        let plan = match commit {
            Commit::Open => run.unless_stopped(planned).await?,
            Commit::Stands => planned.await,
        };
        let rows = execute_stream(plan.map_err(failed)?, run.task(&state)).map_err(failed)?;
        let mut rows = match commit {
            Commit::Open => run.until_stopped(rows).boxed(),
            Commit::Stands => rows.boxed(),
        };
        self.batches.clear();
        self.memory.free();
        while let Some(batch) = rows.try_next().await.map_err(failed)? {
            let batch = conform(&batch, prepared.schema()).map_err(failed)?;
            let bytes = batch.get_array_memory_size();
            match commit {
                Commit::Open => self.memory.try_grow(bytes).map_err(failed)?,
                // There was as much before.
                Commit::Stands => self.memory.grow(bytes),
            }
            self.batches.push(batch);
        }
        Ok(())
    }
}

/// Whether these items may show the time of the commit.
fn shows_updated(items: &[SelectItem]) -> bool {
    struct Updated;
    impl Visitor for Updated {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let name = match expr {
                Expr::Identifier(name) => Some(name),
                Expr::CompoundIdentifier(parts) => parts.last(),
                _ => None,
            };
            match name.is_some_and(|name| fold(name) == system_columns::UPDATED) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    items.iter().any(|item| match item {
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        item => item.visit(&mut Updated).is_break(),
    })
}
