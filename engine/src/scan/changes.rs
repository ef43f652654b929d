//! `changes('ns.t', since [, until])`: the versions of a table's rows that commits have written in a span of time, in the order of
//! the commits, each with what it did.
//!
//! ```text
//! files and hot rows, all versions → those of the span → by row, oldest first → _op, each version once → by commit
//! ```
//!
//! Invariants:
//! 1. A version is there once, wherever it lies meanwhile, and however often.
//! 2. A row's first version is its insert, a tombstone its delete, all others are updates.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{SortOptions, filter_record_batch, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimestampNanosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType, col, lit};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;
use roaring::RoaringTreemap;
use seracdb_storage::catalog::TableRecord;
use seracdb_storage::system_columns::{CommitTs, ID, UPDATED, id_field, updated_field};

use super::hot::{HotRowsExec, HotVersions};
use super::{AsOf, ScopeTable, cold, external, holding, memory_of_past};

/// The column that says what a version did: `insert`, `update` or `delete`.
pub(crate) const OP_COLUMN: &str = "_op";

/// The changes of a scope.
#[derive(Debug)]
pub(crate) struct ChangesTable {
    /// With all columns.
    rows: ScopeTable,
    since: AsOf,
    until: CommitTs,
    schema: SchemaRef,
}

impl ChangesTable {
    /// Those of commits after `since`, up to `until`.
    pub(crate) fn new(rows: ScopeTable, since: AsOf, until: CommitTs) -> Self {
        let schema = Self::schema_of(&rows.table);
        Self { rows: rows.with_nulls(), since, until, schema }
    }

    /// `_id`, the user's columns, which are NULL where a row is deleted, `_updated`, `_op`.
    pub(crate) fn schema_of(table: &TableRecord) -> SchemaRef {
        let nullable = |field: Field| field.with_nullable(true);
        let own = table.schema().user_fields().into_iter().map(nullable);
        let last = [updated_field(), Field::new(OP_COLUMN, DataType::Utf8, false)];
        Arc::new(Schema::new(std::iter::once(id_field()).chain(own).chain(last).collect::<Vec<_>>()))
    }

    /// All versions of the span, among which some are twice. Their columns are those of the table at these places, `_id`,
    /// `_updated`, `_deleted` and the file.
    async fn versions(
        &self,
        own: &[usize],
        state: &dyn Session,
    ) -> DfResult<(Arc<dyn ExecutionPlan>, Arc<RoaringTreemap>)> {
        let memory = memory_of_past(state);
        let AsOf { store, at: since, .. } = &self.since;
        let snapshot = self.since.snapshot(&self.rows.snapshot, &self.rows.table, self.until).await?;
        let held = self.rows.snapshot.ts();
        let feed = store.feed(&snapshot, held, self.rows.scope, *since, &holding(&memory)).await.map_err(external)?;
        let width = self.rows.located().fields().len();
        let system = [0, width - 4, width - 3, width - 2];
        let projection: Vec<usize> = own.iter().copied().chain(system).collect();
        let time = |at: CommitTs| lit(ScalarValue::TimestampNanosecond(Some(at.get()), None));
        let span = col(UPDATED).gt(time(*since)).and(col(UPDATED).lt_eq(time(self.until)));
        let mut plans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !feed.view.files.is_empty() {
            let filters = [span.clone()];
            plans = cold::scan(&self.rows, &feed.view, &projection, &filters, state, None, Some(&memory)).await?;
        }
        let all = HotVersions::All(snapshot, self.until, feed.pin);
        let ids = i64::MIN..=i64::MAX;
        plans.push(Arc::new(HotRowsExec::new(&self.rows, &feed.view, &projection, ids, all, Some(memory))?));
        let all: Arc<dyn ExecutionPlan> = match plans.len() {
            1 => plans.remove(0),
            _ => UnionExec::try_new(plans)?,
        };
        let schema = DFSchema::try_from(all.schema().as_ref().clone())?;
        let span = state.create_physical_expr(span, &schema)?;
        Ok((Arc::new(FilterExec::try_new(span, all)?), feed.earlier))
    }
}

#[async_trait]
impl TableProvider for ChangesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let count = self.schema.fields().len();
        let wanted = projection.cloned().unwrap_or_else(|| (0..count).collect());
        // Of the user's columns those that are asked for: they are behind `_id` here as there.
        let own: Vec<usize> = wanted.iter().copied().filter(|place| (1..count - 2).contains(place)).collect();
        let (versions, earlier) = self.versions(&own, state).await?;
        let alone: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(versions));
        let schema = alone.schema();
        let by_row = sorted(alone, order_by_row(&schema, own.len())?)?;
        let with_op: Arc<dyn ExecutionPlan> = Arc::new(ChangesExec::new(by_row, own.len(), earlier));
        let place = |name: &str| -> DfResult<Arc<dyn PhysicalExpr>> {
            Ok(Arc::new(Column::new_with_schema(name, &with_op.schema())?))
        };
        let by_commit = LexOrdering::new([ascending(place(UPDATED)?), ascending(place(ID)?)]);
        let in_order = sorted(Arc::clone(&with_op), by_commit)?;
        let columns = wanted.iter().map(|column| {
            let name = self.schema.field(*column).name();
            Ok((place(name)?, name.clone()))
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<DfResult<Vec<_>>>()?, in_order)?))
    }
}

fn ascending(expr: Arc<dyn PhysicalExpr>) -> PhysicalSortExpr {
    PhysicalSortExpr::new(expr, SortOptions { descending: false, nulls_first: false })
}

fn descending(expr: Arc<dyn PhysicalExpr>) -> PhysicalSortExpr {
    PhysicalSortExpr::new(expr, SortOptions { descending: true, nulls_first: false })
}

fn sorted(input: Arc<dyn ExecutionPlan>, order: Option<LexOrdering>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let none = || external(crate::error::EngineError::internal("an order of no columns"));
    Ok(Arc::new(SortExec::new(order.ok_or_else(none)?, input)))
}

/// By row, oldest first. Of equal versions, of a row that was loaded in bulk and changed by one commit, the hot one comes first,
/// then that of the later file.
fn order_by_row(schema: &SchemaRef, own: usize) -> DfResult<Option<LexOrdering>> {
    let at = |place: usize| -> Arc<dyn PhysicalExpr> { Arc::new(Column::new(schema.field(place).name(), place)) };
    let (id, updated, file) = (at(own), at(own + 1), at(own + 3));
    let hot = Arc::new(Literal::new(ScalarValue::UInt64(Some(0))));
    let is_hot = Arc::new(BinaryExpr::new(Arc::clone(&file), datafusion::logical_expr::Operator::Eq, hot));
    Ok(LexOrdering::new([ascending(id), ascending(updated), descending(is_hot), descending(file)]))
}

/// Gives each version once, with what it did. Its input is sorted by [`order_by_row`].
#[derive(Debug)]
struct ChangesExec {
    input: Arc<dyn ExecutionPlan>,
    /// How many columns are the user's.
    own: usize,
    /// Rows that were there before the span.
    earlier: Arc<RoaringTreemap>,
    properties: Arc<PlanProperties>,
}

impl ChangesExec {
    fn new(input: Arc<dyn ExecutionPlan>, own: usize, earlier: Arc<RoaringTreemap>) -> Self {
        let input_schema = input.schema();
        let mut fields: Vec<FieldRef> = input_schema.fields()[..own]
            .iter()
            .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)))
            .chain(input_schema.fields()[own..own + 2].iter().cloned())
            .collect();
        fields.push(Arc::new(Field::new(OP_COLUMN, DataType::Utf8, false)));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(Schema::new(fields))),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, own, earlier, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ChangesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ChangesExec")
    }
}

impl ExecutionPlan for ChangesExec {
    fn name(&self) -> &'static str {
        "ChangesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![order_by_row(&self.input.schema(), self.own).ok().flatten().map(OrderingRequirements::from)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.remove(0), self.own, Arc::clone(&self.earlier))))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let schema = self.schema();
        let mut passing =
            Passing { own: self.own, earlier: Arc::clone(&self.earlier), last: None, schema: self.schema() };
        let changes = rows.map(move |rows| passing.changes(&rows?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, changes)))
    }
}

/// What is known of the rows that have passed.
struct Passing {
    own: usize,
    earlier: Arc<RoaringTreemap>,
    /// `_id` and version of the last one.
    last: Option<(i64, i64)>,
    schema: SchemaRef,
}

impl Passing {
    fn changes(&mut self, rows: &RecordBatch) -> DfResult<RecordBatch> {
        let [own @ .., ids, updated, deleted, _file] = rows.columns() else {
            return Err(external(crate::error::EngineError::internal("versions without system columns")));
        };
        let deleted = deleted.as_boolean();
        let (id, version) = (ids.as_primitive::<Int64Type>(), updated.as_primitive::<TimestampNanosecondType>());
        let mut once = Vec::with_capacity(rows.num_rows());
        let mut ops = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let this = (id.value(row), version.value(row));
            let is_known = self.last.is_some_and(|(last, _)| last == this.0) || self.earlier.contains(this.0 as u64);
            // What one commit has loaded in bulk and deleted was never there.
            once.push(self.last != Some(this) && (is_known || !deleted.value(row)));
            ops.push(match (deleted.value(row), is_known) {
                (true, _) => "delete",
                (false, true) => "update",
                (false, false) => "insert",
            });
            self.last = Some(this);
        }
        let gone = BooleanArray::from_iter(deleted.iter().map(|deleted| Some(deleted == Some(true))));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.own + 3);
        for column in own {
            // Of tombstones nothing is known but which row is gone.
            columns.push(if gone.true_count() == 0 { Arc::clone(column) } else { nullif(column, &gone)? });
        }
        columns.extend([Arc::clone(ids), Arc::clone(updated), Arc::new(StringArray::from(ops)) as ArrayRef]);
        let all = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        Ok(if once.contains(&false) { filter_record_batch(&all, &BooleanArray::from(once))? } else { all })
    }
}
