//! Values of which several meet in one column: those of the clauses of a MERGE, those of the rows of VALUES.
//!
//! DataFusion finds one type for all branches of a CASE, and for all inputs of a UNION: a BIGINT beside a DOUBLE becomes a DOUBLE,
//! with other digits, before it is cast to its column. Here each value is cast to the column's type by itself, before that.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Projection, Union};

use super::coerce::cast_from;
use super::errors::from_datafusion;
use crate::error::{EngineError, Result};

/// A column that values go into: its name and type.
type Target = (String, DataType);

/// Gives a plan the types that it will have.
pub(crate) type Coerce<'a> = dyn Fn(LogicalPlan) -> Result<LogicalPlan> + 'a;

/// The plan of [`super::merge::merge_query`], not coerced yet, with the value of each clause cast to its column.
/// `first`: the place of the first of the columns.
pub(crate) fn cast_clauses(
    plan: LogicalPlan,
    first: usize,
    columns: &[Target],
    coerce: &Coerce<'_>,
) -> Result<LogicalPlan> {
    let no_cases = || EngineError::internal("the plan of a MERGE has no CASE for a column");
    let LogicalPlan::Projection(projection) = plan else { return Err(no_cases()) };
    let (mut items, input) = (projection.expr, projection.input);
    let Some(Expr::Case(clause)) = items.last_mut().map(value_of) else { return Err(no_cases()) };
    let conditions = clause.when_then_expr.iter().map(|(condition, _)| Expr::clone(condition));
    refuse_volatile(conditions.collect(), &input)?;
    let mut values: Vec<(&mut Expr, &Target)> = vec![];
    for (item, column) in items.iter_mut().skip(first).zip(columns) {
        let Expr::Case(case) = value_of(item) else { return Err(no_cases()) };
        values.extend(case.when_then_expr.iter_mut().map(|(_, value)| (value.as_mut(), column)));
    }
    cast_each(values, &input, coerce)?;
    project(items, input)
}

/// The plan of rows of VALUES that are planned as SELECTs, not coerced yet, with the values of each cast to their columns.
pub(crate) fn cast_rows(plan: LogicalPlan, targets: &[&Target], coerce: &Coerce<'_>) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Union(union) => {
            let inputs = union.inputs.into_iter().map(Arc::unwrap_or_clone);
            let rows = inputs.map(|rows| cast_rows(rows, targets, coerce).map(Arc::new)).collect::<Result<Vec<_>>>()?;
            Union::try_new_with_loose_types(rows).map(LogicalPlan::Union).map_err(failed)
        }
        LogicalPlan::Projection(projection) => {
            let (mut items, input) = (projection.expr, projection.input);
            let values = items.iter_mut().map(value_of).zip(targets.iter().copied()).collect();
            cast_each(values, &input, coerce)?;
            project(items, input)
        }
        _ => Err(EngineError::internal("a row of VALUES is planned as something else than a SELECT")),
    }
}

/// What an item is, without its name.
fn value_of(item: &mut Expr) -> &mut Expr {
    match item {
        Expr::Alias(alias) => alias.expr.as_mut(),
        value => value,
    }
}

/// Casts values, of expressions over `input`.
fn cast_each(values: Vec<(&mut Expr, &Target)>, input: &Arc<LogicalPlan>, coerce: &Coerce<'_>) -> Result<()> {
    let open = values.iter().map(|(value, _)| &**value).filter(|value| !is_typed(value));
    let open: Vec<Expr> =
        open.enumerate().map(|(place, value)| value.clone().alias(format!("seracdb value {place}"))).collect();
    let coerced = match open.is_empty() {
        true => None,
        false => Some(coerce(project(open, Arc::clone(input))?)?),
    };
    let schema: &DFSchema = input.schema();
    let mut types =
        coerced.iter().flat_map(|plan| plan.schema().fields().iter()).map(|field| field.data_type().clone());
    for (value, (name, to)) in values {
        let from = match is_typed(value) {
            true => value.get_type(schema).map_err(failed)?,
            false => types.next().ok_or_else(|| EngineError::internal("a value has no type"))?,
        };
        *value = cast_from(std::mem::take(value), &from, name, to)?;
    }
    Ok(())
}

/// Whether a value says its type by itself. What a CASE, coalesce() and others give is known only once they are coerced.
fn is_typed(value: &Expr) -> bool {
    matches!(value, Expr::Literal(..) | Expr::Column(_) | Expr::Cast(_) | Expr::TryCast(_) | Expr::Placeholder(_))
}

/// Refuses conditions that are others each time: they are asked once for each column.
fn refuse_volatile(conditions: Vec<Expr>, input: &Arc<LogicalPlan>) -> Result<()> {
    let named = conditions.into_iter().enumerate().map(|(place, condition)| condition.alias(format!("when {place}")));
    match volatile_function(&project(named.collect(), Arc::clone(input))?).map_err(failed)? {
        Some(name) => Err(EngineError::invalid(format!(
            "MERGE: {name}() is another value each time, and WHEN … AND asks several times for each row: compute it in the source, \
             USING (SELECT …, {name}() AS r …) AS s"
        ))),
        None => Ok(()),
    }
}

/// The name of a function in a node's expressions, or their subqueries, that is another value each time.
fn volatile_function(node: &LogicalPlan) -> DfResult<Option<String>> {
    let mut found = None;
    each_expression(node, |expr| {
        if let Expr::ScalarFunction(call) = expr
            && expr.is_volatile_node()
        {
            found = Some(call.func.name().to_owned());
        }
    })?;
    Ok(found)
}

/// Looks at all expressions of a node, those in one another and in its subqueries too, but not at those below it.
pub(crate) fn each_expression(node: &LogicalPlan, mut look: impl FnMut(&Expr)) -> DfResult<()> {
    let mut of_node = |node: &LogicalPlan| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                look(expr);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    };
    of_node(node)?;
    node.apply_subqueries(|subquery| subquery.apply_with_subqueries(&mut of_node))?;
    Ok(())
}

fn project(items: Vec<Expr>, input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
    Projection::try_new(items, input).map(LogicalPlan::Projection).map_err(failed)
}

fn failed(error: datafusion::error::DataFusionError) -> EngineError {
    from_datafusion(error, &[])
}
