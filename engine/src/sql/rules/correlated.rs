//! Scalar subqueries that refer to the row outside of them, where DataFusion has no plan for them.
//!
//! `SELECT a, (SELECT v FROM other WHERE k = a) FROM t` is refused by DataFusion, since the subquery could give two rows.
//! 1. Such a subquery is aggregated to `{value: first_value(v), rows: count(*)}`, and [`super::only_row`] takes the value
//!    out of it, or fails where there are more rows: outside, so that only rows that the query looks at can fail.
//! 2. DataFusion joins a subquery with its outer rows when the reference is an equality below nothing but projections and
//!    an aggregate. Any other becomes a join here ([`domain`]): one with `k > a`, with LIMIT, with a reference in its
//!    select list.

mod domain;

use std::cell::Cell;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, not_impl_err};
use datafusion::error::Result as DfResult;
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{Aggregate, Subquery, check_subquery_expr};
use datafusion::logical_expr::{Distinct, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Sort, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::decorrelate::PullUpCorrelatedExpr;

use self::domain::{join_with_outer_rows, refers_outside};
use super::only_row::only_row;

/// Plans correlated scalar subqueries.
#[derive(Debug)]
pub(super) struct Correlated;

impl AnalyzerRule for Correlated {
    fn name(&self) -> &str {
        "correlated_scalar_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        // Each join's columns need names of their own.
        let joins = Cell::new(0);
        plan.transform_up_with_subqueries(|plan| rewrite_node(plan, &joins)).data()
    }
}

fn is_correlated(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty())
}

fn rewrite_node(plan: LogicalPlan, joins: &Cell<usize>) -> DfResult<Transformed<LogicalPlan>> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = found || expr.exists(|expr| Ok(is_correlated(expr)))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !found {
        return Ok(Transformed::no(plan));
    }
    let columns = plan.schema().columns();
    let mut input = match &plan {
        LogicalPlan::Projection(projection) => Some(projection.input.as_ref().clone()),
        LogicalPlan::Filter(filter) => Some(filter.input.as_ref().clone()),
        LogicalPlan::Aggregate(aggregate) => Some(aggregate.input.as_ref().clone()),
        LogicalPlan::Sort(sort) => Some(sort.input.as_ref().clone()),
        _ => None,
    };
    let names = NamePreserver::new(&plan);
    let node = plan.clone();
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| match expr {
            Expr::ScalarSubquery(subquery) if !subquery.outer_ref_columns.is_empty() => {
                rewrite_subquery(subquery, &node, &mut input, joins)
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(match rewritten.transformed {
            true => rewritten.update_data(|expr| name.restore(expr)),
            false => rewritten,
        })
    })?;
    if !rewritten.transformed {
        return Ok(rewritten);
    }
    let Some(input) = input else { return rewritten.map_data(LogicalPlan::recompute_schema) };
    let plan = match rewritten.data {
        LogicalPlan::Projection(projection) => LogicalPlanBuilder::from(input).project(projection.expr)?.build()?,
        LogicalPlan::Aggregate(aggregate) => {
            LogicalPlanBuilder::from(input).aggregate(aggregate.group_expr, aggregate.aggr_expr)?.build()?
        }
        LogicalPlan::Filter(filter) => {
            without_joined(LogicalPlan::Filter(Filter::try_new(filter.predicate, Arc::new(input))?), columns)?
        }
        LogicalPlan::Sort(sort) => without_joined(LogicalPlan::Sort(Sort { input: Arc::new(input), ..sort }), columns)?,
        other => other.recompute_schema()?,
    };
    Ok(Transformed::yes(plan))
}

/// The plan with these columns, without those of the subqueries' values.
fn without_joined(plan: LogicalPlan, columns: Vec<Column>) -> DfResult<LogicalPlan> {
    match plan.schema().fields().len() == columns.len() {
        true => Ok(plan),
        false => LogicalPlanBuilder::from(plan).project(columns.into_iter().map(Expr::Column))?.build(),
    }
}

/// `input`: the input of the node, to which the subquery's values are joined where that is needed.
fn rewrite_subquery(
    subquery: Subquery,
    node: &LogicalPlan,
    input: &mut Option<LogicalPlan>,
    joins: &Cell<usize>,
) -> DfResult<Transformed<Expr>> {
    let wrapped = match gives_one_row(&subquery.subquery) {
        true => None,
        false => Some(Subquery { subquery: Arc::new(first_of(&subquery.subquery)?), ..subquery.clone() }),
    };
    let unwrap = |expr: Expr| if wrapped.is_some() { only_row(expr) } else { expr };
    let single = wrapped.as_ref().unwrap_or(&subquery);
    if !can_be_planned(single, node)?
        && let Some(outer) = input.as_ref()
    {
        let joined = match is_repeatable(outer)? {
            true => join_with_outer_rows(outer, single, next(joins))?,
            false => None,
        };
        let Some((joined, value)) = joined else {
            return not_impl_err!("a subquery that refers to the row outside of it in this way: write a join");
        };
        *input = Some(joined);
        return Ok(Transformed::yes(unwrap(Expr::Column(value))));
    }
    match wrapped.clone() {
        Some(wrapped) => Ok(Transformed::yes(only_row(Expr::ScalarSubquery(wrapped)))),
        None => Ok(Transformed::no(Expr::ScalarSubquery(subquery))),
    }
}

fn next(joins: &Cell<usize>) -> usize {
    joins.set(joins.get() + 1);
    joins.get()
}

/// Whether DataFusion turns this subquery into a join, and into the right one.
fn can_be_planned(subquery: &Subquery, node: &LogicalPlan) -> DfResult<bool> {
    // Only in these does it look for subqueries.
    if !matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Filter(_)) {
        return Ok(false);
    }
    // It pulls a condition through windows, DISTINCT ON and others, which then see rows of other outer rows. That an aggregate
    // of nothing has a row it knows of the outermost one.
    let outermost = below_projections(&subquery.subquery);
    let unsafe_node = subquery.subquery.exists(|inner| {
        let is_safe = match inner {
            LogicalPlan::Aggregate(aggregate) => has_plain_groups(aggregate) || std::ptr::eq(inner, outermost),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Join(_) => true,
            _ => false,
        };
        Ok(!is_safe && refers_outside(inner)?)
    })?;
    let mut pull_up = PullUpCorrelatedExpr::new().with_need_handle_count_bug(true);
    let pulled = subquery.subquery.as_ref().clone().rewrite(&mut pull_up);
    Ok(!unsafe_node
        && pulled.is_ok()
        && pull_up.can_pull_up
        && check_subquery_expr(node, &subquery.subquery, &Expr::ScalarSubquery(subquery.clone())).is_ok())
}

fn below_projections(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Projection(projection) => below_projections(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => below_projections(&alias.input),
        other => other,
    }
}

/// Whether an aggregate has a row for each group, and none where there is nothing.
fn has_plain_groups(aggregate: &Aggregate) -> bool {
    !aggregate.group_expr.is_empty() && !aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)))
}

/// Whether DataFusion makes the right join of `EXISTS (plan)` and `IN (plan)`. It forgets OFFSET, and that an aggregate of nothing
/// has a row (apache/datafusion#25283, #24960, #25519).
pub(super) fn has_rows_as_joined(plan: &LogicalPlan) -> DfResult<bool> {
    if !refers_outside(plan)? {
        return Ok(true);
    }
    let wrong = plan.exists(|inner| {
        Ok(match inner {
            LogicalPlan::Limit(_) => true,
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Distinct(Distinct::All(_)) => false,
            LogicalPlan::Aggregate(aggregate) if has_plain_groups(aggregate) => false,
            other => refers_outside(other)?,
        })
    })?;
    Ok(!wrong)
}

/// Whether a plan gives the same rows when it runs twice.
fn is_repeatable(plan: &LogicalPlan) -> DfResult<bool> {
    let varies = plan.exists(|node| {
        let mut varies = matches!(node, LogicalPlan::Limit(_) | LogicalPlan::Distinct(Distinct::On(_)));
        node.apply_expressions(|expr| {
            varies = varies || expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(varies)
    })?;
    Ok(!varies)
}

/// Whether it is certain that a subquery has at most one row.
fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => gives_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one_row(&alias.input),
        LogicalPlan::Filter(filter) => gives_one_row(&filter.input),
        LogicalPlan::Sort(sort) => gives_one_row(&sort.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        other => other.max_rows().is_some_and(|rows| rows <= 1),
    }
}

/// `{value, rows}` of a subquery of one column.
fn first_of(plan: &LogicalPlan) -> DfResult<LogicalPlan> {
    let (qualifier, field) = plan.schema().qualified_field(0);
    let value = Expr::Column(Column::from((qualifier, field)));
    let name = field.name().clone();
    let first = first_value_udaf().call(vec![value]).alias("value");
    let rows = count_udaf().call(vec![lit(1_i64)]).alias("rows");
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    LogicalPlanBuilder::from(plan.clone())
        .aggregate(Vec::<Expr>::new(), vec![first, rows])?
        .project(vec![named_struct(vec![lit("value"), column("value"), lit("rows"), column("rows")]).alias(name)])?
        .build()
}
