//! `round(x, 2)` of a NUMERIC has two digits after the point, in the schema that a client gets too.
//!
//! The type of its result depends on the second argument, when that is a literal. Type coercion makes it a cast of a
//! literal, which is none, until the optimizer has computed it: after the client was told a schema.

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use super::rewrite_expressions;

/// Computes the number of digits while the plan is analyzed.
#[derive(Debug)]
pub(super) struct RoundScale;

impl AnalyzerRule for RoundScale {
    fn name(&self) -> &str {
        "round_scale"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        rewrite_expressions(plan, has_cast_scale, fold_scale)
    }
}

fn has_cast_scale(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) if matches!(function.name(), "round" | "trunc") => {
            matches!(function.args.get(1), Some(Expr::Cast(Cast { expr, .. })) if matches!(**expr, Expr::Literal(..)))
        }
        _ => false,
    }
}

fn fold_scale(expr: Expr, _: &DFSchema) -> DfResult<Transformed<Expr>> {
    if !has_cast_scale(&expr) {
        return Ok(Transformed::no(expr));
    }
    let Expr::ScalarFunction(mut function) = expr else { return Ok(Transformed::no(expr)) };
    let folded = match &function.args[1] {
        Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
            Expr::Literal(value, metadata) => Some(Expr::Literal(value.cast_to(field.data_type())?, metadata.clone())),
            _ => None,
        },
        _ => None,
    };
    Ok(match folded {
        Some(scale) => {
            function.args[1] = scale;
            Transformed::yes(Expr::ScalarFunction(function))
        }
        None => Transformed::no(Expr::ScalarFunction(function)),
    })
}
