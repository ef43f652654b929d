//! BETWEEN and IN of a list compare like `=`, `<` and `>` do: what [`super::beside`] does for those, for them.

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::{Expr, LogicalPlan, not};
use datafusion::optimizer::AnalyzerRule;

use super::beside::compared;
use super::rewrite_expressions;

/// Comparisons that a list becomes at most.
const EQUALITIES_MAX: usize = 100;

/// Aligns the parts of BETWEEN and IN.
#[derive(Debug)]
pub(super) struct Ranges;

impl AnalyzerRule for Ranges {
    fn name(&self) -> &str {
        "ranges"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        rewrite_expressions(plan, |expr| matches!(expr, Expr::Between(_) | Expr::InList(_)), align)
    }
}

fn align(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::Between(between) => Ok(align_between(between, schema)),
        Expr::InList(list) => Ok(align_list(list, schema)),
        other => Ok(Transformed::no(other)),
    }
}

fn align_between(between: Between, schema: &DFSchema) -> Transformed<Expr> {
    let Between { expr, negated, low, high } = between.clone();
    let (for_low, low) = compared(expr.as_ref().clone(), *low, schema);
    let (for_high, high) = compared(expr.as_ref().clone(), *high, schema);
    if for_low == *expr && for_high == *expr {
        let aligned = Between { expr, negated, low: Box::new(low), high: Box::new(high) };
        return Transformed::new_transformed(Expr::Between(aligned.clone()), aligned != between);
    }
    // Twice the same value it must be.
    if expr.is_volatile() {
        return Transformed::no(Expr::Between(between));
    }
    let within = for_low.gt_eq(low).and(for_high.lt_eq(high));
    Transformed::yes(if negated { not(within) } else { within })
}

fn align_list(list: InList, schema: &DFSchema) -> Transformed<Expr> {
    let pairs = list.list.iter().map(|item| compared(list.expr.as_ref().clone(), item.clone(), schema));
    let (exprs, aligned): (Vec<Expr>, Vec<Expr>) = pairs.unzip();
    if exprs.iter().all(|expr| *expr == *list.expr) {
        let changed = aligned != list.list;
        return Transformed::new_transformed(Expr::InList(InList { list: aligned, ..list }), changed);
    }
    // One type must do for a whole list: where it does not, each is compared by itself.
    if list.expr.is_volatile() || aligned.len() > EQUALITIES_MAX {
        return Transformed::no(Expr::InList(list));
    }
    let equal = exprs.into_iter().zip(aligned).map(|(expr, item)| expr.eq(item)).reduce(Expr::or);
    match equal {
        Some(equal) => Transformed::yes(if list.negated { not(equal) } else { equal }),
        None => Transformed::no(Expr::InList(list)),
    }
}
