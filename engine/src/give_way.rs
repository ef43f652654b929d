//! Running plans give way: to other statements, and to the wish that they stop.
//!
//! DataFusion's plans yield where batches come from, not where rows are multiplied: a join may compute for hours on one
//! batch of its input. The worker thread it runs on then serves nobody else, and the plan cannot be dropped. So in every
//! plan each join
//! 1. counts the batches it gives as work, after some of which its task yields ([`CooperativeExec`]);
//! 2. has a filter, which is evaluated for a few thousand pairs at a time, that looks whether the result is still
//!    wanted, and now and then hands the worker's other tasks to another thread ([`GivingWay`]).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::{ColumnarValue, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, HashJoinExecBuilder, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;

use crate::error::EngineError;
use crate::scan::external;

/// Evaluations of a join's filter, of some thousand pairs each, for one that other tasks need not wait for. Prime, so
/// that no number of partitions in step falls into a rhythm where always the same one has it.
const EVALUATIONS_PER_WAY: u32 = 31;

/// Fires when nobody wants the statement's result any more. In the session configuration of each statement.
#[derive(Debug, Default)]
pub(crate) struct Stop(pub CancellationToken);

/// DataFusion's planner, with joins that give way.
#[derive(Debug)]
pub(crate) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let plan = DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await?;
        let stop = session.config().get_extension::<Stop>().unwrap_or_default();
        plan.transform_up(|plan| joins_give_way(plan, &stop.0)).data()
    }
}

fn joins_give_way(
    plan: Arc<dyn ExecutionPlan>,
    stop: &CancellationToken,
) -> DfResult<Transformed<Arc<dyn ExecutionPlan>>> {
    let join: Arc<dyn ExecutionPlan> = if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        let filter = join.filter().map(|filter| giving_way(filter, stop));
        Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?)
    } else if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let filter = join.filter().map(|filter| giving_way(filter, stop));
        HashJoinExecBuilder::from(join).with_filter(filter).build_exec()?
    } else if plan.is::<CrossJoinExec>() || plan.is::<SortMergeJoinExec>() {
        plan
    } else {
        return Ok(Transformed::no(plan));
    };
    Ok(Transformed::yes(Arc::new(CooperativeExec::new(join))))
}

fn giving_way(filter: &JoinFilter, stop: &CancellationToken) -> JoinFilter {
    let expression = GivingWay { inner: Arc::clone(filter.expression()), stop: stop.clone(), evaluations: 0.into() };
    JoinFilter::new(Arc::new(expression), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// An expression that fails once its statement is to stop, and that does not hold up the tasks of its thread.
#[derive(Debug)]
struct GivingWay {
    inner: Arc<dyn PhysicalExpr>,
    stop: CancellationToken,
    evaluations: AtomicU32,
}

impl PhysicalExpr for GivingWay {
    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        if self.stop.is_cancelled() {
            return Err(external(EngineError::cancelled()));
        }
        // Not the first one: most joins are done before.
        let is_turn = self.evaluations.fetch_add(1, Ordering::Relaxed) % EVALUATIONS_PER_WAY == EVALUATIONS_PER_WAY - 1;
        match is_turn && has_other_threads() {
            true => tokio::task::block_in_place(|| self.inner.evaluate(batch)),
            false => self.inner.evaluate(batch),
        }
    }

    fn data_type(&self, schema: &Schema) -> DfResult<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DfResult<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> DfResult<FieldRef> {
        self.inner.return_field(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self { inner: children.swap_remove(0), stop: self.stop.clone(), evaluations: 0.into() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

impl fmt::Display for GivingWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

// Two are the same when what they evaluate is.
impl PartialEq for GivingWay {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for GivingWay {}

impl Hash for GivingWay {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

fn has_other_threads() -> bool {
    Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}
