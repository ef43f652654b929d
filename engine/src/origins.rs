//! Of which table a result's column is: what a client needs that lets its user edit the rows of any query.
//!
//! A column is a table's as long as it is passed on as it is: by another name, filtered, sorted, joined, grouped by. What is
//! computed is no table's, and neither is what comes from both sides of a UNION. A view counts as a table.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use crate::tables::table_of;
use crate::views::view_of;

/// The table or view that a column of a result is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub table: String,
}

/// The origins of a plan's columns, where they have one.
pub(crate) fn origins(plan: &LogicalPlan) -> Vec<Option<Arc<Origin>>> {
    let mut known: Vec<Arc<Origin>> = Vec::new();
    let mut shared = |origin: Origin| match known.iter().find(|known| ***known == origin) {
        Some(known) => Arc::clone(known),
        None => {
            known.push(Arc::new(origin));
            Arc::clone(&known[known.len() - 1])
        }
    };
    (0..plan.schema().fields().len()).map(|place| origin(plan, place).map(&mut shared)).collect()
}

fn origin(plan: &LogicalPlan, place: usize) -> Option<Origin> {
    let (mut plan, mut place) = (plan, place);
    loop {
        let read = match plan {
            LogicalPlan::TableScan(scan) => Some(table_of(scan.source.as_ref())?),
            LogicalPlan::SubqueryAlias(alias) => view_of(&alias.alias),
            _ => None,
        };
        if let Some((namespace, table)) = read {
            return Some(Origin { namespace: namespace.to_owned(), table: table.to_owned() });
        }
        (plan, place) = passed_on(plan, place)?;
    }
}

/// The input, and the place in it, of a column that is passed on as it is.
fn passed_on(plan: &LogicalPlan, place: usize) -> Option<(&LogicalPlan, usize)> {
    match plan {
        LogicalPlan::Filter(filter) => Some((&filter.input, place)),
        LogicalPlan::Sort(sort) => Some((&sort.input, place)),
        LogicalPlan::Limit(limit) => Some((&limit.input, place)),
        LogicalPlan::Repartition(repartition) => Some((&repartition.input, place)),
        LogicalPlan::SubqueryAlias(alias) => Some((&alias.input, place)),
        LogicalPlan::Subquery(subquery) => Some((&subquery.subquery, place)),
        LogicalPlan::Distinct(Distinct::All(input)) => Some((input, place)),
        LogicalPlan::Distinct(Distinct::On(distinct)) => column(distinct.select_expr.get(place)?, &distinct.input),
        LogicalPlan::Projection(projection) => column(projection.expr.get(place)?, &projection.input),
        // After the groups come aggregates. A grouping set has NULLs of its own.
        LogicalPlan::Aggregate(aggregate) => column(aggregate.group_expr.get(place)?, &aggregate.input),
        // After its input's columns come its own.
        LogicalPlan::Window(window) => (place < width(&window.input)).then_some((&*window.input, place)),
        LogicalPlan::Unnest(unnest) => {
            let place = *unnest.dependency_indices.get(place)?;
            let is_taken_apart = unnest.struct_type_columns.contains(&place)
                || unnest.list_type_columns.iter().any(|(list, _)| *list == place);
            (!is_taken_apart).then_some((&*unnest.input, place))
        }
        LogicalPlan::Join(join) => {
            let left = match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => 0,
                _ => width(&join.left),
            };
            let right = match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => 0,
                _ => width(&join.right),
            };
            match place.checked_sub(left) {
                None => Some((&*join.left, place)),
                Some(place) => (place < right).then_some((&*join.right, place)),
            }
        }
        _ => None,
    }
}

fn width(plan: &LogicalPlan) -> usize {
    plan.schema().fields().len()
}

/// The place of what is nothing but a column of the input.
fn column<'a>(expr: &Expr, input: &'a LogicalPlan) -> Option<(&'a LogicalPlan, usize)> {
    let mut expr = expr;
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    match expr {
        Expr::Column(column) => Some((input, input.schema().maybe_index_of_column(column)?)),
        _ => None,
    }
}
