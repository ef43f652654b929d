//! DataFusion's rules for logical plans, each but where it would change an answer.
//!
//! An aggregate without GROUP BY has a row also when nothing goes into it. The pushdown of filters takes a condition without
//! columns below it, such as what is left of `1 IN (SELECT 2 …)`, and the row that it was to take away stays. Here it stays above such an
//! aggregate, and above grouping sets, of which one may be empty.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
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
    match rule.name() {
        "push_down_filter" => Arc::new(NotIntoOneRow(rule)),
        _ => rule,
    }
}

/// A rule that leaves filters above what has a row of nothing.
#[derive(Debug)]
struct NotIntoOneRow(Rule);

impl OptimizerRule for NotIntoOneRow {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        match is_filtered_row(&plan) {
            true => Ok(Transformed::no(plan)),
            false => self.0.rewrite(plan, config),
        }
    }
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
    fn datafusion_has_the_rule_that_is_guarded() {
        let guarded = rules().iter().filter(|rule| format!("{rule:?}").starts_with("NotIntoOneRow")).count();
        assert_eq!(guarded, 1);
    }
}
