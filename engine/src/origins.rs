//! Of which table a column of a result is.

use datafusion::logical_expr::{Distinct, Expr, JoinType, LogicalPlan};

use crate::tables::table_of;
use crate::views::view_of;

/// A table or view that a column of a result is taken from as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnOrigin {
    /// Namespace of the table or view.
    pub namespace: String,
    /// Its name.
    pub table: String,
}

/// Where the columns of a plan are from; `None` for one that is computed.
pub(crate) fn origins(plan: &LogicalPlan) -> Vec<Option<ColumnOrigin>> {
    (0..plan.schema().fields().len()).map(|column| origin(plan, column)).collect()
}

fn origin(mut plan: &LogicalPlan, mut column: usize) -> Option<ColumnOrigin> {
    loop {
        (plan, column) = match plan {
            LogicalPlan::TableScan(scan) => {
                let (namespace, table) = table_of(scan.source.as_ref())?;
                return Some(ColumnOrigin { namespace: namespace.to_owned(), table: table.to_owned() });
            }
            LogicalPlan::SubqueryAlias(alias) => match view_of(&alias.alias) {
                Some((namespace, table)) => {
                    return Some(ColumnOrigin { namespace: namespace.to_owned(), table: table.to_owned() });
                }
                None => (alias.input.as_ref(), column),
            },
            LogicalPlan::Projection(projection) => {
                (projection.input.as_ref(), input_column(&projection.input, projection.expr.get(column)?)?)
            }
            LogicalPlan::Filter(filter) => (filter.input.as_ref(), column),
            LogicalPlan::Sort(sort) => (sort.input.as_ref(), column),
            LogicalPlan::Limit(limit) => (limit.input.as_ref(), column),
            LogicalPlan::Distinct(Distinct::All(input)) => (input.as_ref(), column),
            // What it adds comes last.
            LogicalPlan::Window(window) if column < window.input.schema().fields().len() => {
                (window.input.as_ref(), column)
            }
            LogicalPlan::Aggregate(aggregate) => {
                let group = aggregate.group_expr.get(column)?;
                (aggregate.input.as_ref(), input_column(&aggregate.input, group)?)
            }
            LogicalPlan::Join(join) => match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (join.right.as_ref(), column),
                _ => match column.checked_sub(join.left.schema().fields().len()) {
                    None => (join.left.as_ref(), column),
                    Some(column) => (join.right.as_ref(), column),
                },
            },
            _ => return None,
        };
        // A mark is of neither side.
        if column >= plan.schema().fields().len() {
            return None;
        }
    }
}

/// The column of a plan that an expression is, under whatever name.
fn input_column(input: &LogicalPlan, expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => input_column(input, &alias.expr),
        Expr::Column(column) => input.schema().maybe_index_of_column(column),
        _ => None,
    }
}
