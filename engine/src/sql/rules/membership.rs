//! IN, ANY, ALL and EXISTS of a subquery, where DataFusion has no plan for them, or a wrong one.
//!
//! It plans them in WHERE only. In a select list, GROUP BY and ORDER BY they become scalar subqueries that count:
//! - `EXISTS (q)` → `(SELECT count(*) > 0 FROM q)`;
//! - `x IN (q)` → true when q has x; else false when q is empty; else NULL when x or a value of q is NULL; else false;
//! - `x < ANY (q)` → true when it is for one of q; else NULL when it is for one; else false. ALL likewise.
//!
//! In WHERE, DataFusion 55 takes `IN` for false where it is NULL, unless it is `column NOT IN (q)` of all rows alike, alone or with
//! AND (apache/datafusion#25340, #25347, #25336, #25480). That is the same for `IN` alone, and with AND and OR. Any other
//! - `x NOT IN (q)` that has to be true is `NOT EXISTS (SELECT 1 FROM q AS q (y) WHERE (y = x) IS NOT FALSE)`;
//! - `IN` below NOT, IS NULL, CASE and others is `= ANY`, of which DataFusion makes what it is.
//!
//! EXISTS and IN of a subquery that refers to the row outside in a way that DataFusion takes for another
//! ([`has_rows_as_joined`]) become values there, too.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue, Spans, internal_err};
use datafusion::error::Result as DfResult;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::{FetchType, SkipType, Subquery};
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr, lit,
    when,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;

use super::correlated::has_rows_as_joined;

/// Plans IN, ANY, ALL and EXISTS.
#[derive(Debug)]
pub(super) struct Membership;

impl AnalyzerRule for Membership {
    fn name(&self) -> &str {
        "membership_as_value"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> DfResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Sort(_) => rewrite_node(plan),
            LogicalPlan::Filter(filter) => rewrite_filter(filter),
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
        let is_one = |expr: &Expr| matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_));
        found = found || expr.exists(|expr| Ok(is_one(expr)))?;
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
            Expr::SetComparison(comparison) => comparison_as_value(comparison, &schema),
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
    if !can_be_inside(&expr)? {
        return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
    }
    let (member, outside) = (member_of(&subquery), seen_from_inside(&expr, schema)?);
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    let is_null_inside = count_rows(&subquery, Some(member.clone().is_null()))?.gt(lit(0_i64));
    let maybe = match expr.nullable(schema)? {
        true => expr.is_null().or(is_null_inside),
        false => is_null_inside,
    };
    let value = when(count_rows(&subquery, Some(member.eq(outside)))?.gt(lit(0_i64)), lit(!negated))
        .when(count_rows(&subquery, None)?.eq(lit(0_i64)), lit(negated))
        .when(maybe, null)
        .otherwise(lit(negated))?;
    Ok(Transformed::yes(value))
}

/// Whether an expression means the same within a subquery. One that refers further out would be two levels away there.
fn can_be_inside(expr: &Expr) -> DfResult<bool> {
    Ok(!expr.contains_outer() && !expr.exists(|expr| Ok(is_subquery(expr)))?)
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))
}

/// The column of a subquery that has one.
fn member_of(subquery: &Subquery) -> Expr {
    let (qualifier, field) = subquery.subquery.schema().qualified_field(0);
    Expr::Column(Column::from((qualifier, field)))
}

/// An expression of the row outside, within a subquery.
fn seen_from_inside(expr: &Expr, schema: &DFSchema) -> DfResult<Expr> {
    let outside = expr.clone().transform_up(|expr| match &expr {
        Expr::Column(column) => {
            let (_, field) = schema.qualified_field_from_column(column)?;
            Ok(Transformed::yes(Expr::OuterReferenceColumn(Arc::clone(field), column.clone())))
        }
        _ => Ok(Transformed::no(expr)),
    });
    outside.data()
}

fn comparison_as_value(comparison: SetComparison, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let SetComparison { expr, subquery, op, quantifier } = comparison;
    if !can_be_inside(&expr)? {
        return Ok(Transformed::no(Expr::SetComparison(SetComparison { expr, subquery, op, quantifier })));
    }
    let compared = binary_expr(seen_from_inside(&expr, schema)?, op, member_of(&subquery));
    let (decides, decided) = match quantifier {
        SetQuantifier::Any => (compared.clone().is_true(), true),
        SetQuantifier::All => (compared.clone().is_false(), false),
    };
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    let value = when(count_rows(&subquery, Some(decides))?.gt(lit(0_i64)), lit(decided))
        .when(count_rows(&subquery, Some(compared.is_null()))?.gt(lit(0_i64)), null)
        .otherwise(lit(!decided))?;
    Ok(Transformed::yes(value))
}

/// Has a condition be NULL where it is.
fn rewrite_filter(filter: Filter) -> DfResult<Transformed<LogicalPlan>> {
    if !filter.predicate.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_) | Expr::Exists(_))))? {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let schema = Arc::clone(filter.input.schema());
    let Transformed { data: predicate, mut transformed, .. } =
        filter.predicate.clone().transform_up(|expr| match expr {
            Expr::Exists(exists) => counted_exists(exists),
            Expr::InSubquery(membership) if !has_rows_as_joined(&membership.subquery.subquery)? => {
                in_as_value(membership, &schema)
            }
            other => Ok(Transformed::no(other)),
        })?;
    let mut parts = Vec::new();
    for part in split_conjunction_owned(predicate) {
        let part = part_of_condition(part, &schema)?;
        transformed |= part.transformed;
        parts.push(part.data);
    }
    match conjunction(parts).filter(|_| transformed) {
        Some(predicate) => Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?))),
        None => Ok(Transformed::no(LogicalPlan::Filter(filter))),
    }
}

/// EXISTS that DataFusion would plan wrongly as what it counts.
fn counted_exists(exists: Exists) -> DfResult<Transformed<Expr>> {
    let plan = &exists.subquery.subquery;
    let any_row = any_row_of(plan)?;
    let is_as_written = std::ptr::eq(any_row, plan.as_ref());
    let subquery = subquery_of(any_row.clone());
    match has_rows_as_joined(&subquery.subquery)? {
        true if is_as_written => Ok(Transformed::no(Expr::Exists(exists))),
        true => Ok(Transformed::yes(Expr::Exists(Exists { subquery, ..exists }))),
        false => exists_as_value(Exists { subquery, ..exists }),
    }
}

/// What has a row when a plan has one, whichever it is and how many there are.
fn any_row_of(plan: &LogicalPlan) -> DfResult<&LogicalPlan> {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => any_row_of(&sort.input),
        LogicalPlan::Limit(limit) => match (limit.get_skip_type()?, limit.get_fetch_type()?) {
            (SkipType::Literal(0), FetchType::Literal(None | Some(1..))) => any_row_of(&limit.input),
            _ => Ok(plan),
        },
        // As long as they are columns of its own, DataFusion drops them itself.
        LogicalPlan::Projection(projection) if projection.expr.iter().any(Expr::contains_outer) => {
            any_row_of(&projection.input)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => any_row_of(input),
        _ => Ok(plan),
    }
}

fn subquery_of(plan: LogicalPlan) -> Subquery {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: Spans::new() }
}

/// A part of an AND, which has to be true.
fn part_of_condition(part: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    match part {
        Expr::Not(inner) if matches!(*inner, Expr::InSubquery(_)) => {
            let Expr::InSubquery(membership) = *inner else { return internal_err!("it was IN") };
            let negated = InSubquery { negated: !membership.negated, ..membership };
            let part = part_of_condition(Expr::InSubquery(negated), schema)?;
            Ok(Transformed::yes(part.data))
        }
        Expr::InSubquery(membership) if membership.negated && !is_planned_rightly(&membership) => {
            no_row_matches(membership, schema)
        }
        Expr::InSubquery(_) => Ok(Transformed::no(part)),
        part if is_positive(&part)? => Ok(Transformed::no(part)),
        part => part.transform_up(|expr| match expr {
            Expr::InSubquery(membership) if can_be_inside(&membership.expr)? => {
                let InSubquery { expr, subquery, negated } = membership;
                let (op, quantifier) = match negated {
                    false => (Operator::Eq, SetQuantifier::Any),
                    true => (Operator::NotEq, SetQuantifier::All),
                };
                Ok(Transformed::yes(Expr::SetComparison(SetComparison { expr, subquery, op, quantifier })))
            }
            other => Ok(Transformed::no(other)),
        }),
    }
}

/// Whether DataFusion's join for NOT IN knows NULL: it compares one column of each side, and sees all rows of the other.
fn is_planned_rightly(membership: &InSubquery) -> bool {
    membership.subquery.outer_ref_columns.is_empty() && membership.expr.any_column_refs()
}

/// Whether false in the place of NULL makes no difference for whether a condition is true.
fn is_positive(condition: &Expr) -> DfResult<bool> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            Ok(is_positive(left)? && is_positive(right)?)
        }
        Expr::InSubquery(membership) => {
            Ok(!membership.negated && !membership.expr.exists(|expr| Ok(is_subquery(expr)))?)
        }
        other => Ok(!other.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_))))?),
    }
}

/// `x NOT IN (q)` where it has to be true: no row of q is x, or could be.
fn no_row_matches(membership: InSubquery, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let InSubquery { expr, subquery, negated } = membership;
    if !can_be_inside(&expr)? {
        return Ok(Transformed::no(Expr::InSubquery(InSubquery { expr, subquery, negated })));
    }
    let equal = member_of(&subquery).eq(seen_from_inside(&expr, schema)?);
    let may_be_null = expr.nullable(schema)? || subquery.subquery.schema().field(0).is_nullable();
    let matches = if may_be_null { equal.is_not_false() } else { equal };
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).filter(matches)?.build()?;
    Ok(Transformed::yes(Expr::Exists(Exists { subquery: subquery_of(plan), negated: true })))
}

/// `(SELECT count(*) FROM subquery WHERE condition)`.
fn count_rows(subquery: &Subquery, condition: Option<Expr>) -> DfResult<Expr> {
    let mut plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    if let Some(condition) = condition {
        plan = plan.filter(condition)?;
    }
    let rows = count_udaf().call(vec![lit(1_i64)]).alias("rows");
    let plan = plan.aggregate(Vec::<Expr>::new(), vec![rows])?.build()?;
    Ok(Expr::ScalarSubquery(subquery_of(plan)))
}
