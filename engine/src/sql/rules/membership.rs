//! IN and EXISTS of a subquery as values: `SELECT id, id IN (SELECT …) FROM t`.
//!
//! DataFusion plans both in WHERE only. In a select list, GROUP BY and ORDER BY they become scalar subqueries that count:
//! - `EXISTS (q)` → `(SELECT count(*) > 0 FROM q)`;
//! - `x IN (q)` → true when q has x; else false when q is empty; else NULL when x or a value of q is NULL; else false.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue, Spans};
use datafusion::error::Result as DfResult;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit, when};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

/// Plans IN and EXISTS in select lists.
#[derive(Debug)]
pub(super) struct Membership;

impl AnalyzerRule for Membership {
    fn name(&self) -> &str {
        "membership_as_value"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> DfResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Sort(_) => rewrite_node(plan),
            other => Ok(Transformed::no(other)),
        })?;
        match rewritten.transformed {
            // What is compared in them has two types.
            true => TypeCoercion::new().analyze(rewritten.data, config),
            false => Ok(rewritten.data),
        }
    }
}

fn rewrite_node(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = found || expr.exists(|expr| Ok(matches!(expr, Expr::Exists(_) | Expr::InSubquery(_))))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !found {
        return Ok(Transformed::no(plan));
    }
    let names = NamePreserver::new(&plan);
    let schema = merge_schema(&plan.inputs());
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| match expr {
            Expr::Exists(exists) => exists_as_value(exists),
            Expr::InSubquery(membership) => in_as_value(membership, &schema),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(match rewritten.transformed {
            true => rewritten.update_data(|expr| name.restore(expr)),
            false => rewritten,
        })
    })?
    .map_data(LogicalPlan::recompute_schema)
}

fn exists_as_value(exists: Exists) -> DfResult<Transformed<Expr>> {
    let counted = count_rows(&exists.subquery, None)?;
    Ok(Transformed::yes(if exists.negated { counted.eq(lit(0_i64)) } else { counted.gt(lit(0_i64)) }))
}

fn in_as_value(membership: InSubquery, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let InSubquery { expr, subquery, negated } = membership;
    // An expression that refers further out would be two levels away inside of the subquery.
    if expr.contains_outer() || expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_))))? {
        return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
    }
    let (qualifier, field) = subquery.subquery.schema().qualified_field(0);
    let member = Expr::Column(Column::from((qualifier, field)));
    let outside = expr.as_ref().clone().transform_up(|expr| match &expr {
        Expr::Column(column) => {
            let (_, field) = schema.qualified_field_from_column(column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column.clone())))
        }
        _ => Ok(Transformed::no(expr)),
    })?;
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    let is_null_inside = count_rows(&subquery, Some(member.clone().is_null()))?.gt(lit(0_i64));
    let maybe = match expr.nullable(schema)? {
        true => expr.is_null().or(is_null_inside),
        false => is_null_inside,
    };
    let value = when(count_rows(&subquery, Some(member.eq(outside.data)))?.gt(lit(0_i64)), lit(!negated))
        .when(count_rows(&subquery, None)?.eq(lit(0_i64)), lit(negated))
        .when(maybe, null)
        .otherwise(lit(negated))?;
    Ok(Transformed::yes(value))
}

/// `(SELECT count(*) FROM subquery WHERE condition)`.
fn count_rows(subquery: &Subquery, condition: Option<Expr>) -> DfResult<Expr> {
    let mut plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    if let Some(condition) = condition {
        plan = plan.filter(condition)?;
    }
    let rows = count_udaf().call(vec![lit(1_i64)]).alias("rows");
    let plan = plan.aggregate(Vec::<Expr>::new(), vec![rows])?.build()?;
    let outer_ref_columns = plan.all_out_ref_exprs();
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() }))
}
