//! What a query computes anew each time it is asked, such as `random()`, is computed once for a row.
//!
//! DataFusion's pushdown of filters below a projection puts the projection's expressions in place of its columns: of
//! `SELECT r FROM (SELECT random() AS r FROM t) AS x WHERE r < 0.5` another number would be compared than is shown. A plan with such
//! a projection keeps its filters where they are.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

/// How DataFusion calls what pushes filters down, with what it adds for a later time.
const FILTER_PUSHDOWN: &str = "FilterPushdown";

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// DataFusion's rules for physical plans.
pub(super) fn rules() -> Vec<Rule> {
    let guarded = |rule: Rule| match rule.name().starts_with(FILTER_PUSHDOWN) {
        true => Arc::new(UnlessVolatile(rule)) as Rule,
        false => rule,
    };
    PhysicalOptimizer::new().rules.into_iter().map(guarded).collect()
}

/// A rule that leaves plans alone which compute something anew each time.
#[derive(Debug)]
struct UnlessVolatile(Rule);

impl PhysicalOptimizerRule for UnlessVolatile {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> DfResult<Arc<dyn ExecutionPlan>> {
        match is_volatile(&plan)? {
            true => Ok(plan),
            false => self.0.optimize(plan, config),
        }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn is_volatile(plan: &Arc<dyn ExecutionPlan>) -> DfResult<bool> {
    let mut found = false;
    plan.apply(|plan| {
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            for item in projection.expr() {
                found |= item.expr.exists(|expr| Ok(expr.is_volatile_node()))?;
            }
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datafusion_has_two_such_rules() {
        let guarded = rules().iter().filter(|rule| format!("{rule:?}").starts_with("UnlessVolatile")).count();
        assert_eq!(guarded, 2);
    }
}
