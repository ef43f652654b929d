//! `SET (a, b) = …` as one assignment for each column.
//!
//! ```text
//! (a, b) = (SELECT x, y FROM u)
//! a = (SELECT <1> FROM (SELECT x, y FROM u) AS <row> (<1>, <2>)), b = (SELECT <2> FROM (SELECT x, y FROM u) AS <row> (<1>, <2>))
//! ```
//! So a subquery is read once for each column. What might find another row each time is refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident,
    ObjectName, Query, Select, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins,
    Visit, Visitor,
};

use super::dml::{query as query_of, select};
use super::mentions::relations_of;
use super::names::{self, TableName, fold, quoted};
use super::params::each_piece;
use super::statement::Statement;
use super::validate::unsupported;
use crate::error::{EngineError, ErrorKind, Result, counted};

/// What the row of a subquery is called, and how its columns begin.
const ROW: &str = "seracdb row";

/// Columns that one subquery may set: it is read for each of them.
const SUBQUERY_COLUMNS_MAX: usize = 100;

/// Nodes of the copies that are made of the subqueries of one SET.
const COPIED_MAX: usize = 20_000;

/// Bytes of a literal that weigh as much as another node.
const LITERAL_BYTES: usize = 100;

/// Aggregates whose value is another one when rows come in another order.
const ORDERED: [&str; 5] = ["first_value", "last_value", "nth_value", "array_agg", "string_agg"];

/// Functions whose value is another one each time.
const VOLATILE: [&str; 7] =
    ["random", "rand", "uuid", "gen_random_uuid", "snowflake_id", "input_file_name", "file_row_index"];

/// The assignments that `SET (columns) = value` is, added to others. `copied`: nodes of the copies that the same SET has made.
pub(super) fn assign_tuple(
    columns: &[ObjectName],
    value: Expr,
    table: &TableName,
    alias: Option<&Ident>,
    assignments: &mut Vec<(String, Expr)>,
    copied: &mut usize,
) -> Result<()> {
    let needs_values = || EngineError::invalid("SET (a, b) = … needs as many values in parentheses");
    let values = match value {
        Expr::Tuple(values) => values,
        // (b) = (1) reads as one parenthesized expression.
        Expr::Nested(value) if columns.len() == 1 => vec![*value],
        subquery @ Expr::Subquery(_) if columns.len() == 1 => vec![subquery],
        Expr::Subquery(query) => {
            *copied = copied.saturating_add(weight(&query).saturating_mul(columns.len()));
            if *copied > COPIED_MAX {
                return Err(EngineError::new(
                    ErrorKind::ResourceExhausted,
                    "SET (a, b) = (SELECT …) reads the subquery once for each column, and it is too large for that: set fewer \
                     columns by it, or join it by FROM",
                ));
            }
            by_column(&query, columns.len())?
        }
        Expr::Function(function) => row_values(&function).ok_or_else(needs_values)?,
        _ => return Err(needs_values()),
    };
    check_count(columns.len(), values.len())?;
    for (column, value) in columns.iter().zip(values) {
        assignments.push((names::column_name(column, table, alias)?, value));
    }
    Ok(())
}

/// How much memory a query takes, in nodes.
fn weight(query: &Query) -> usize {
    struct Weight(usize);
    impl Visitor for Weight {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 += 1;
            if let Expr::Value(value) = expr {
                self.0 += value.to_string().len() / LITERAL_BYTES;
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_table_factor(&mut self, _: &TableFactor) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }
    }
    let mut found = Weight(0);
    let _ = query.visit(&mut found);
    found.0
}

fn check_count(columns: usize, values: usize) -> Result<()> {
    if columns == values {
        return Ok(());
    }
    let (columns, values) = (counted(columns, "column"), counted(values, "value"));
    Err(EngineError::invalid(format!("SET assigns {columns} but has {values}")))
}

/// The values of `ROW(x, y)`.
fn row_values(function: &Function) -> Option<Vec<Expr>> {
    let [name] = function.name.0.as_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_plain = list.duplicate_treatment.is_none()
        && list.clauses.is_empty()
        && function.filter.is_none()
        && function.null_treatment.is_none()
        && function.over.is_none()
        && function.within_group.is_empty();
    let is_row = is_plain && name.as_ident().is_some_and(|name| fold(name) == "row");
    let value = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    list.args.iter().map(value).collect::<Option<Vec<Expr>>>().filter(|_| is_row)
}

/// A subquery for each column of one.
fn by_column(query: &Query, columns: usize) -> Result<Vec<Expr>> {
    if let Some(values) = width(query) {
        check_count(columns, values)?;
    }
    if columns > SUBQUERY_COLUMNS_MAX {
        return Err(unsupported(&format!("SET of more than {SUBQUERY_COLUMNS_MAX} columns by one subquery")));
    }
    if let ControlFlow::Break(what) = query.visit(&mut Unsteady) {
        return Err(unsteady(&what));
    }
    let name = |column: usize| quoted(&format!("{ROW} {column}"));
    let names = (0..columns).map(|column| TableAliasColumnDef { name: name(column), data_type: None });
    let alias = TableAlias { explicit: true, name: quoted(ROW), columns: names.collect(), at: None };
    let subquery = |column: usize| {
        let (subquery, alias) = (Box::new(query.clone()), Some(alias.clone()));
        let relation = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
        let item = SelectItem::UnnamedExpr(Expr::Identifier(name(column)));
        let one = select(vec![item], vec![TableWithJoins { relation, joins: vec![] }], None);
        Expr::Subquery(Box::new(query_of(SetExpr::Select(Box::new(one)))))
    };
    Ok((0..columns).map(subquery).collect())
}

/// How many columns a query has, where its text tells it.
fn width(query: &Query) -> Option<usize> {
    let is_one = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    match query.body.as_ref() {
        SetExpr::Select(select) if select.projection.iter().all(is_one) => Some(select.projection.len()),
        _ => None,
    }
}

fn unsteady(what: &str) -> EngineError {
    unsupported(&format!(
        "SET (a, b) = (SELECT …) with {what}, which might be of another row for each column, (write one subquery per column)"
    ))
}

/// Refuses what [`by_column`] does once more, when WITH queries have been put into a statement.
pub(super) fn require_steady(statement: &Statement) -> Result<()> {
    let mut rows = Rows::default();
    let _ = each_piece(statement, &mut rows);
    match rows.unsteady {
        Some(what) => Err(unsteady(&what)),
        None => Ok(()),
    }
}

/// The tables and views that subqueries name which are read once for each column.
pub(crate) fn read_by_column(statement: &Statement) -> Vec<TableName> {
    let mut rows = Rows::default();
    let _ = each_piece(statement, &mut rows);
    rows.names
}

/// Refuses a view in one of them that might have another row each time it is read.
pub(crate) fn require_steady_view(query: &Query) -> Result<()> {
    match query.visit(&mut Unsteady) {
        ControlFlow::Break(what) => Err(unsteady(&format!("a view that has {what}"))),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Looks for subqueries that are read once for each column.
#[derive(Default)]
struct Rows {
    unsteady: Option<String>,
    /// What they name.
    names: Vec<TableName>,
}

impl Visitor for Rows {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Derived { subquery, alias: Some(alias), .. } if alias.name.value == ROW => {
                self.names.extend(relations_of(subquery));
                match subquery.visit(&mut Unsteady) {
                    ControlFlow::Break(what) => {
                        self.unsteady = Some(what);
                        ControlFlow::Break(())
                    }
                    ControlFlow::Continue(()) => ControlFlow::Continue(()),
                }
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Looks for what might find another row each time it is read.
struct Unsteady;

impl Visitor for Unsteady {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        match query.limit_clause.is_some() || query.fetch.is_some() {
            true => ControlFlow::Break("LIMIT".to_owned()),
            false => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        match &select.distinct {
            Some(Distinct::On(_)) => ControlFlow::Break("DISTINCT ON".to_owned()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
        let is_unordered = ORDERED.contains(&name.as_str()) && !is_ordered(function);
        match function.over.is_some() || VOLATILE.contains(&name.as_str()) || is_unordered {
            true => ControlFlow::Break(format!("{name}()")),
            false => ControlFlow::Continue(()),
        }
    }
}

fn is_ordered(aggregate: &Function) -> bool {
    let by_clause = |clause: &FunctionArgumentClause| matches!(clause, FunctionArgumentClause::OrderBy(_));
    !aggregate.within_group.is_empty()
        || matches!(&aggregate.args, FunctionArguments::List(list) if list.clauses.iter().any(by_clause))
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
