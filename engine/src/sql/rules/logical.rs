//! DataFusion's rules for logical plans, each but where it would change an answer.
//!
//! - An aggregate without GROUP BY has a row also when nothing goes into it. The pushdown of filters takes a condition without
//!   columns below it, such as what is left of `1 IN (SELECT 2 …)`, and the row that it was to take away stays. Here it stays above
//!   such an aggregate, and above grouping sets, of which one may be empty.
//! - Columns that a join compares with IS NOT DISTINCT FROM are its keys, and NULL is NULL for all of them. A condition `a.x = b.x`
//!   that comes to the join later becomes a key, too, and true of NULLs. Here it stays a condition.

use std::sync::Arc;

use datafusion::common::NullEquality;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Aggregate, Expr, Filter, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{Optimizer, OptimizerConfig, OptimizerRule};

type Rule = Arc<dyn OptimizerRule + Send + Sync>;

/// DataFusion's rules for logical plans.
pub(super) fn rules() -> Vec<Rule> {
    Optimizer::new().rules.into_iter().map(guarded).collect()
}

fn guarded(rule: Rule) -> Rule {
    let spares: fn(&LogicalPlan) -> bool = match rule.name() {
        "push_down_filter" => is_filtered_row,
        "extract_equijoin_predicate" => takes_null_for_equal,
        // It goes through the plan by itself.
        "eliminate_cross_join" => |plan| plan.exists(|node| Ok(takes_null_for_equal(node))).unwrap_or(true),
        _ => return rule,
    };
    Arc::new(Guarded { rule, spares })
}

/// A rule, and what it leaves alone.
#[derive(Debug)]
struct Guarded {
    rule: Rule,
    spares: fn(&LogicalPlan) -> bool,
}

impl OptimizerRule for Guarded {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        match (self.spares)(&plan) {
            true => Ok(Transformed::no(plan)),
            false => self.rule.rewrite(plan, config),
        }
    }
}

fn takes_null_for_equal(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull)
}

/// Whether it is a filter, or several, of what has a row of nothing.
fn is_filtered_row(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Filter(Filter { input, .. }) = plan else { return false };
    match input.as_ref() {
        LogicalPlan::Aggregate(Aggregate { group_expr, .. }) => {
            group_expr.is_empty() || group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)))
        }
        below => is_filtered_row(below),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datafusion_has_the_rules_that_are_guarded() {
        let guarded: Vec<_> = rules().into_iter().filter(|rule| format!("{rule:?}").starts_with("Guarded")).collect();
        let node_by_node: Vec<_> = guarded.iter().map(|rule| (rule.name(), rule.apply_order().is_some())).collect();
        let expected =
            [("extract_equijoin_predicate", true), ("eliminate_cross_join", false), ("push_down_filter", true)];
        assert_eq!(node_by_node, expected);
    }
}
