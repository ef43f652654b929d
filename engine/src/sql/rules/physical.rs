//! DataFusion's rules for physical plans, each but where it would change an answer.
//!
//! - What a query computes anew each time it is asked, such as `random()`, is computed once for a row. The pushdown of filters
//!   below a projection puts the projection's expressions in place of its columns: of
//!   `SELECT r FROM (SELECT random() AS r FROM t) AS x WHERE r < 0.5` another number would be compared than is shown. A plan with
//!   such a projection keeps its filters where they are. In others [`super::barriers`] stand.
//! - Below `ORDER BY … LIMIT`, groups that are not among the first are not made, also those that a window function
//!   in between looks at: `SELECT g, count(*) OVER () FROM t GROUP BY g ORDER BY g LIMIT 1` would count one group
//!   (apache/datafusion#25066). A plan with a window over groups makes all of them.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use super::barriers::BetweenBarriers;

pub(super) type Plan = Arc<dyn ExecutionPlan>;
pub(super) type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// DataFusion's rules for physical plans.
pub(super) fn rules() -> Vec<Rule> {
    PhysicalOptimizer::new().rules.into_iter().map(guarded).collect()
}

fn guarded(rule: Rule) -> Rule {
    match rule.name() {
        // There are two, the other for a later time.
        name if name.starts_with("FilterPushdown") => {
            Arc::new(Guarded { rule: Arc::new(BetweenBarriers(rule)), spares: is_volatile })
        }
        "LimitAggregation" => Arc::new(Guarded { rule, spares: has_window_over_groups }),
        _ => rule,
    }
}

/// A rule, and the plans that it leaves alone.
#[derive(Debug)]
struct Guarded {
    rule: Rule,
    spares: fn(&Plan) -> bool,
}

impl PhysicalOptimizerRule for Guarded {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> DfResult<Plan> {
        match (self.spares)(&plan) {
            true => Ok(plan),
            false => self.rule.optimize(plan, config),
        }
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

fn is_volatile(plan: &Plan) -> bool {
    has(plan, |plan| {
        let Some(projection) = plan.downcast_ref::<ProjectionExec>() else { return false };
        let mut exprs = projection.expr().iter().map(|item| &item.expr);
        exprs.any(|expr| expr.exists(|expr| Ok(expr.is_volatile_node())).unwrap_or(true))
    })
}

fn has_window_over_groups(plan: &Plan) -> bool {
    has(plan, |plan| {
        let is_window = plan.is::<WindowAggExec>() || plan.is::<BoundedWindowAggExec>();
        is_window && has(plan, |below| below.is::<AggregateExec>())
    })
}

/// Whether one of the nodes of a plan is so.
fn has(plan: &Plan, is_so: impl Fn(&Plan) -> bool) -> bool {
    let mut found = false;
    let walked = plan.apply(|plan| {
        found = is_so(plan);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || walked.is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datafusion_has_the_rules_that_are_guarded() {
        let guarded: Vec<_> =
            rules().iter().filter(|rule| format!("{rule:?}").starts_with("Guarded")).cloned().collect();
        assert_eq!(guarded.len(), 3, "{guarded:?}");
    }
}
