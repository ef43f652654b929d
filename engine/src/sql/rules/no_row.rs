//! `(SELECT 1 FROM t WHERE …)` is NULL where there is no row. DataFusion takes its value for one that is never NULL when what it
//! selects is not: `IS NULL` of it is false then, and its column fails.
//!
//! Such a subquery becomes the argument of a function whose value may be NULL, and which is that value.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::utils::take_function_args;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::only_row::ONLY_ROW;

/// Has scalar subqueries without a row be NULL.
#[derive(Debug)]
pub(super) struct NoRow;

impl AnalyzerRule for NoRow {
    fn name(&self) -> &str {
        "scalar_subqueries_without_a_row"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(rewrite_node)?;
        match rewritten.transformed {
            // Above it the column may be NULL too.
            true => {
                rewritten.data.transform_up_with_subqueries(|plan| plan.recompute_schema().map(Transformed::yes)).data()
            }
            false => Ok(rewritten.data),
        }
    }
}

fn rewrite_node(plan: LogicalPlan) -> DfResult<Transformed<LogicalPlan>> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found = found
            || expr.exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(subquery) if is_never_null(subquery))))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !found {
        return Ok(Transformed::no(plan));
    }
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_down(|expr| match expr {
            // Their values may be NULL already.
            Expr::ScalarFunction(function) if function.func == *OR_NULL || function.func == *ONLY_ROW => {
                Ok(Transformed::new(Expr::ScalarFunction(function), false, TreeNodeRecursion::Jump))
            }
            Expr::ScalarSubquery(subquery) if is_never_null(&subquery) => {
                let value = OR_NULL.call(vec![Expr::ScalarSubquery(subquery)]);
                Ok(Transformed::new(value, true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(match rewritten.transformed {
            true => rewritten.update_data(|expr| name.restore(expr)),
            false => rewritten,
        })
    })
}

/// Whether DataFusion takes it for such a one, and it may be without a row.
fn is_never_null(subquery: &Subquery) -> bool {
    !subquery.subquery.schema().field(0).is_nullable() && !has_a_row(&subquery.subquery)
}

/// Whether it is certain that a plan has a row.
fn has_a_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => has_a_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_a_row(&alias.input),
        LogicalPlan::Sort(sort) => sort.fetch.is_none() && has_a_row(&sort.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(relation) => relation.produce_one_row,
        LogicalPlan::Values(_) => true,
        _ => false,
    }
}

static OR_NULL: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(OrNull { signature: Signature::any(1, Volatility::Immutable) }.into()));

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrNull {
    signature: Signature,
}

impl ScalarUDFImpl for OrNull {
    fn name(&self) -> &str {
        "or_null"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), args.arg_fields[0].data_type().clone(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [value] = take_function_args(self.name(), args.args)?;
        Ok(value)
    }
}
