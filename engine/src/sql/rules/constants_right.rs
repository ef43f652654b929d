//! `1.5 = n` becomes `n = 1.5`, and `DATE '…' <= d` becomes `d >= DATE '…'`.
//!
//! Where filters are pushed down, DataFusion 55 takes two equalities of a column that are not written alike for a
//! contradiction: `n = 1.5 AND 1.5 = n` finds no row (apache/datafusion#24763). Its own simplifier turns them round only when
//! the constant is a literal already, and no cast of one.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::rewrite_expressions;

/// Turns comparisons of a constant with a column round.
#[derive(Debug)]
pub(super) struct ConstantsRight;

impl AnalyzerRule for ConstantsRight {
    fn name(&self) -> &str {
        "constants_right"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        rewrite_expressions(
            plan,
            |expr| matches!(expr, Expr::BinaryExpr(comparison) if is_turned(comparison)),
            |expr, _| {
                Ok(match expr {
                    Expr::BinaryExpr(comparison) if is_turned(&comparison) => {
                        let BinaryExpr { left, op, right } = comparison;
                        let op = op.swap().unwrap_or(op);
                        Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: right, op, right: left }))
                    }
                    other => Transformed::no(other),
                })
            },
        )
    }
}

fn is_turned(BinaryExpr { left, op, right }: &BinaryExpr) -> bool {
    matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
        && is_constant(left)
        && !is_constant(right)
}

/// Whether it is of no row. A subquery is not: it may be joined, and is a column then.
fn is_constant(expr: &Expr) -> bool {
    let of_row = |expr: &Expr| {
        matches!(
            expr,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::Unnest(_)
        )
    };
    // What has no source of an error has none.
    !expr.exists(|expr| Ok(of_row(expr))).unwrap_or(true)
}
