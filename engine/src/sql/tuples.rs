//! `SET (a, b) = …` as one assignment for each column.
//!
//! Of `(SELECT x, y FROM u)` each column gets its own subquery: `a = (SELECT x FROM u)`, `b = (SELECT y FROM u)`. That is the same only
//! where each of them finds the same row, and gives one row where the whole does; what might not is refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, Query, Select,
    SelectItem, SetExpr, Visit, Visitor,
};

use super::names::{self, TableName, fold};
use super::validate::unsupported;
use crate::error::{EngineError, Result, counted};

/// Columns that one subquery may set: it is read for each of them.
const SUBQUERY_COLUMNS_MAX: usize = 100;

/// Functions whose value is another one each time.
const VOLATILE: [&str; 7] =
    ["random", "rand", "uuid", "gen_random_uuid", "snowflake_id", "input_file_name", "file_row_index"];

/// The assignments that `SET (columns) = value` is, added to others.
pub(super) fn assign_tuple(
    columns: &[ObjectName],
    value: Expr,
    table: &TableName,
    alias: Option<&Ident>,
    assignments: &mut Vec<(String, Expr)>,
) -> Result<()> {
    let needs_values = || EngineError::invalid("SET (a, b) = … needs as many values in parentheses");
    let values = match value {
        Expr::Tuple(values) => values,
        // (b) = (1) reads as one parenthesized expression.
        Expr::Nested(value) if columns.len() == 1 => vec![*value],
        subquery @ Expr::Subquery(_) if columns.len() == 1 => vec![subquery],
        Expr::Subquery(query) => by_column(&query)?,
        Expr::Function(function) => row_values(&function).ok_or_else(needs_values)?,
        _ => return Err(needs_values()),
    };
    if values.len() != columns.len() {
        return Err(EngineError::invalid(format!(
            "SET assigns {} but has {}",
            counted(columns.len(), "column"),
            counted(values.len(), "value")
        )));
    }
    for (column, value) in columns.iter().zip(values) {
        assignments.push((names::column_name(column, table, alias)?, value));
    }
    Ok(())
}

/// The values of `ROW(x, y)`.
fn row_values(function: &Function) -> Option<Vec<Expr>> {
    let [name] = function.name.0.as_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_row = name.as_ident().is_some_and(|name| fold(name) == "row");
    let value = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    list.args.iter().map(value).collect::<Option<Vec<Expr>>>().filter(|_| is_row)
}

/// A subquery for each column of one.
fn by_column(query: &Query) -> Result<Vec<Expr>> {
    let refused =
        |why: &str| Err(unsupported(&format!("SET (a, b) = (SELECT …) {why} (write one subquery per column)")));
    let SetExpr::Select(select) = query.body.as_ref() else { return refused("of anything but one SELECT") };
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return refused("with LIMIT, which might keep another row for each column,");
    }
    if !is_plain(select) {
        return refused("with DISTINCT, GROUP BY, HAVING or QUALIFY");
    }
    if let ControlFlow::Break(function) = query.visit(&mut FindVolatile) {
        return refused(&format!("with {function}(), which is another value for each column,"));
    }
    if select.projection.len() > SUBQUERY_COLUMNS_MAX {
        return refused(&format!("of more than {SUBQUERY_COLUMNS_MAX} columns"));
    }
    let mut subqueries = Vec::with_capacity(select.projection.len());
    for item in &select.projection {
        if !matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }) {
            return refused("with *");
        }
        let select = Select { projection: vec![item.clone()], ..Select::clone(select) };
        // Of one row the order says nothing, and it may name an item that is not there any more.
        let subquery = Query { body: Box::new(SetExpr::Select(Box::new(select))), order_by: None, ..query.clone() };
        subqueries.push(Expr::Subquery(Box::new(subquery)));
    }
    Ok(subqueries)
}

/// Whether each item of a SELECT is the same without the others.
fn is_plain(select: &Select) -> bool {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty());
    select.distinct.is_none() && select.top.is_none() && !grouped && select.having.is_none() && select.qualify.is_none()
}

struct FindVolatile;

impl Visitor for FindVolatile {
    type Break = String;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        let name = match expr {
            Expr::Function(function) => function.name.0.last().and_then(|part| part.as_ident()).map(fold),
            _ => None,
        };
        match name.filter(|name| VOLATILE.contains(&name.as_str())) {
            Some(name) => ControlFlow::Break(name),
            None => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::Volatility;

    use super::*;
    use crate::sql::rules;

    #[test]
    fn every_volatile_function_is_known() {
        let state = rules::state_builder().build();
        for (name, function) in state.scalar_functions() {
            let is_volatile = function.signature().volatility == Volatility::Volatile;
            assert!(!is_volatile || VOLATILE.contains(&name.as_str()), "{name}");
        }
    }
}
