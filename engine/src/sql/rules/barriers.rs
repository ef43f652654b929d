//! Filters that are pushed down meet the columns that they are about.
//!
//! DataFusion looks for a column of a filter by its name in the node below. Where that has two columns of the name, as a join of two
//! tables often has, it takes the first: of `a FULL JOIN b … WHERE a.x IS DISTINCT FROM b.x` it would compare a.x with itself
//! (like apache/datafusion#25262). And the parts of a UNION may have other names, or the same ones elsewhere.
//!
//! Here a barrier stands above such a node while filters are pushed down: none goes through, and below it all is as usual. The price: where
//! what a join reads row by row has two columns of a name, the keys of its other side do not filter it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, replace_children_if_necessary,
};

use super::physical::{Plan, Rule};

/// A rule that pushes filters down, between barriers.
#[derive(Debug)]
pub(super) struct BetweenBarriers(pub(super) Rule);

impl PhysicalOptimizerRule for BetweenBarriers {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> DfResult<Plan> {
        let placed = with_barriers(plan)?;
        let optimized = self.0.optimize(placed.data, config)?;
        if placed.transformed { without_barriers(optimized) } else { Ok(optimized) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether a name may mean another column in a child than it does in its parent.
fn misleads(parent: &Plan, child: &Plan) -> bool {
    let (schema, above) = (child.schema(), parent.schema());
    let mut names = HashSet::with_capacity(schema.fields().len());
    let is_twice = schema.fields().iter().any(|field| !names.insert(field.name()));
    let same_names =
        || schema.fields().iter().map(|field| field.name()).eq(above.fields().iter().map(|field| field.name()));
    is_twice || parent.is::<UnionExec>() && !same_names()
}

fn with_barriers(plan: Plan) -> DfResult<Transformed<Plan>> {
    plan.transform_up(|parent| {
        let children = parent.children();
        if !children.iter().any(|child| misleads(&parent, child)) {
            return Ok(Transformed::no(parent));
        }
        let placed = |child: &Plan| match misleads(&parent, child) {
            true => Arc::new(Barrier { behind: Arc::clone(child) }) as Plan,
            false => Arc::clone(child),
        };
        let children = children.into_iter().map(placed).collect();
        replace_children_if_necessary(parent, children).map(Transformed::yes)
    })
}

fn without_barriers(plan: Plan) -> DfResult<Plan> {
    let removed = plan.transform_up(|plan| match plan.downcast_ref::<Barrier>() {
        Some(barrier) => Ok(Transformed::yes(Arc::clone(&barrier.behind))),
        None => Ok(Transformed::no(plan)),
    });
    removed.data()
}

/// Takes no filter: what a node does that says nothing about filters.
#[derive(Debug)]
struct Barrier {
    behind: Plan,
}

impl DisplayAs for Barrier {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Barrier")
    }
}

impl ExecutionPlan for Barrier {
    fn name(&self) -> &'static str {
        "Barrier"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.behind.properties()
    }

    fn children(&self) -> Vec<&Plan> {
        vec![&self.behind]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Plan>) -> DfResult<Plan> {
        match <[Plan; 1]>::try_from(children) {
            Ok([behind]) => Ok(Arc::new(Self { behind })),
            Err(children) => internal_err!("a barrier with {} nodes behind it", children.len()),
        }
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        internal_err!("a barrier stays in a plan")
    }
}
