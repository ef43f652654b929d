//! What SeracDB changes in DataFusion's plans, each for an answer that would be wrong or refused without need.
//!
//! [`beside`] works while expressions are planned, [`logical`] and [`physical`] keep DataFusion's optimizer from what it does
//! wrong, and the others work on the analyzed plan: they run after DataFusion's own type coercion, so that every expression has its
//! type, and again whenever a plan is analyzed again, so each leaves what it made alone.

mod barriers;
mod beside;
mod checked;
mod checked_sum;
mod constants_right;
mod correlated;
mod logical;
mod membership;
mod no_row;
mod octet_length;
mod only_row;
mod physical;
mod ranges;
mod round_casts;
mod round_scale;
mod saturating;

use std::sync::Arc;

pub(super) use beside::{decimal as number_as_decimal, decimal_of};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::Analyzer;

/// DataFusion's defaults with SeracDB's rules.
pub(crate) fn state_builder() -> SessionStateBuilder {
    let mut builder = SessionStateBuilder::new().with_default_features();
    // The planner asks them in order, and takes the first plan it gets.
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(beside::Beside) as Arc<dyn ExprPlanner>);
    // Of two functions of one name the later stands.
    builder.scalar_functions().get_or_insert_default().push(Arc::new(octet_length::octet_length()));
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(ranges::Ranges)];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(membership::Membership));
    rules.push(Arc::new(correlated::Correlated));
    rules.push(Arc::new(no_row::NoRow));
    rules.push(Arc::new(constants_right::ConstantsRight));
    rules.push(Arc::new(round_scale::RoundScale));
    rules.push(Arc::new(round_casts::RoundCasts));
    rules.push(Arc::new(checked::CheckedArithmetic));
    builder
        .with_analyzer_rules(rules)
        .with_optimizer_rules(logical::rules())
        .with_physical_optimizer_rules(physical::rules())
}

/// Rewrites the expressions of a whole plan from the leaves up, in subqueries too; names of columns stay. `concerns`:
/// whether an expression can be one of those that `rewrite` changes: most are not, and are left as they are.
fn rewrite_expressions(
    plan: LogicalPlan,
    concerns: impl Fn(&Expr) -> bool,
    rewrite: impl Fn(Expr, &DFSchema) -> DfResult<Transformed<Expr>>,
) -> DfResult<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        let mut concerned = false;
        plan.apply_expressions(|expr| {
            concerned = expr.exists(|expr| Ok(concerns(expr)))?;
            Ok(if concerned { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        // Thousands of rows of VALUES seldom need anything.
        if !concerned {
            return Ok(Transformed::no(plan));
        }
        let schema = input_schema(&plan);
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            if !expr.exists(|expr| Ok(concerns(expr)))? {
                return Ok(Transformed::no(expr));
            }
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| rewrite(expr, &schema))?;
            Ok(match rewritten.transformed {
                true => rewritten.update_data(|expr| name.restore(expr)),
                false => rewritten,
            })
        })?;
        match plan.transformed {
            true => plan.map_data(LogicalPlan::recompute_schema),
            false => Ok(plan),
        }
    })
    .data()
}

/// What the columns in a plan's expressions refer to.
fn input_schema(plan: &LogicalPlan) -> DFSchema {
    let inputs = plan.inputs();
    match inputs.is_empty() {
        // A scan with filters refers to its own columns.
        true => plan.schema().as_ref().clone(),
        false => merge_schema(&inputs),
    }
}
