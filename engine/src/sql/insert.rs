//! The source of an INSERT: which of its columns goes where.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Expr, Parens, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, UnaryOperator, Value, ValueWithSpan, Values,
    Visit, Visitor,
};

use super::balance::balance_set;
use super::defaults::Writable;
use super::dml::{query, require_column, select};
use super::errors::from_datafusion;
use super::names::quoted;
use super::params::{has_placeholder, placeholder_number};
use super::statement::{Insert, InsertSource};
use crate::error::{EngineError, Result, counted};

/// An INSERT's source, ready to be planned.
#[derive(Debug)]
pub(crate) struct InsertPlan {
    /// Gives the rows.
    pub query: Query,
    /// For each column of the query, the user column it goes to. User columns that are not here become NULL.
    pub targets: Vec<usize>,
    /// The targets' types, for [`super::params::Planner::values_schema`]: set when the query is VALUES.
    pub values_schema: Option<DFSchemaRef>,
}

/// Maps the source to the table's user columns. The number of VALUES is checked here, that of a SELECT's columns once it
/// is planned, by [`super::coerce::insert_projection`].
pub(crate) fn insert_plan(insert: &Insert, writable: &Writable<'_>) -> Result<InsertPlan> {
    let user_columns = writable.user_columns;
    let targets: Vec<usize> = match insert.columns.is_empty() {
        true => writable.places(),
        false => insert
            .columns
            .iter()
            .map(|column| require_column(column, user_columns, &insert.table))
            .collect::<Result<Vec<_>>>()?,
    };
    match &insert.source {
        InsertSource::Query(source) => Ok(InsertPlan { query: source.as_ref().clone(), targets, values_schema: None }),
        InsertSource::Defaults => {
            // One row, of whose columns none is a target.
            let rows = vec![vec![Expr::value(Value::Null)]];
            Ok(InsertPlan { query: values(rows), targets: vec![], values_schema: None })
        }
        InsertSource::Values(rows) => {
            for (i, row) in rows.iter().enumerate() {
                check_count(row.len(), &targets, insert, &format!("row {} of VALUES has", i + 1))?;
            }
            let schema = match has_subquery(rows) {
                true => None,
                false => Some(values_schema(&targets, user_columns)?),
            };
            let mut rows = rows.clone();
            for row in &mut rows {
                row.iter_mut().zip(&targets).for_each(|(value, &target)| exact_decimal(value, &user_columns[target].1));
            }
            let query = match schema {
                Some(_) => values(rows),
                None => union_of_rows(rows),
            };
            Ok(InsertPlan { query, targets, values_schema: schema })
        }
    }
}

/// A number that goes into a NUMERIC column is planned as its text: the planner reads `0.1` as a float, and
/// `12345678901234567890.12` as one with other digits.
pub(crate) fn exact_decimal(value: &mut Expr, target: &DataType) {
    if !target.is_decimal() {
        return;
    }
    let text = match &*value {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => number_text(expr).map(|digits| format!("-{digits}")),
        other => number_text(other),
    };
    if let Some(text) = text {
        *value = Expr::value(Value::SingleQuotedString(text));
    }
}

/// The digits of a number without an exponent.
fn number_text(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) if !digits.contains(['e', 'E']) => {
            Some(digits.replace('_', ""))
        }
        _ => None,
    }
}

/// When the source is one row of nothing but parameters, each once: the parameter (from 0) of each column of the source.
/// Bound rows are then the rows to insert, without a plan.
pub(crate) fn plain_parameters(insert: &Insert) -> Option<Vec<usize>> {
    let InsertSource::Values(rows) = &insert.source else { return None };
    let [row] = rows.as_slice() else { return None };
    // It would be another one for each of the rows.
    if insert.returning.iter().any(has_placeholder) {
        return None;
    }
    let numbers = row.iter().map(placeholder_number).collect::<Option<Vec<_>>>()?;
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.iter().copied().eq(1..=numbers.len()).then(|| numbers.iter().map(|n| n - 1).collect())
}

/// Refuses another number of values than of columns.
pub(crate) fn check_count(given: usize, targets: &[usize], insert: &Insert, what: &str) -> Result<()> {
    if given == targets.len() {
        return Ok(());
    }
    let list = match insert.columns.is_empty() {
        true => {
            let columns = counted(targets.len(), "column");
            format!("table {} has {columns} (system columns are not given)", insert.table)
        }
        false => format!("the column list has {}", targets.len()),
    };
    Err(EngineError::invalid(format!("{what} {}, but {list}", counted(given, "value"))))
}

fn values(rows: Vec<Vec<Expr>>) -> Query {
    let rows = rows
        .into_iter()
        .map(|content| Parens { opening_token: AttachedToken::empty(), content, closing_token: AttachedToken::empty() })
        .collect();
    query(SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows }))
}

fn values_schema(targets: &[usize], user_columns: &[(String, DataType)]) -> Result<DFSchemaRef> {
    let fields: Vec<Field> = targets
        .iter()
        .map(|&target| {
            let (name, data_type) = &user_columns[target];
            Field::new(name, data_type.clone(), true)
        })
        .collect();
    let schema = DFSchema::try_from(Schema::new(fields)).map_err(|e| from_datafusion(e, &[]))?;
    Ok(Arc::new(schema))
}

/// DataFusion does not run subqueries inside VALUES, and would cast VALUES inside them to the table's columns.
fn has_subquery(rows: &[Vec<Expr>]) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    rows.iter().flatten().any(|value| value.visit(&mut Find).is_break())
}

/// `SELECT … UNION ALL SELECT …`, which is `VALUES (…), (…)` with subqueries allowed.
fn union_of_rows(rows: Vec<Vec<Expr>>) -> Query {
    let selects = rows.into_iter().map(|row| {
        let items = row.into_iter().enumerate();
        let items =
            items.map(|(i, expr)| SelectItem::ExprWithAlias { expr, alias: quoted(&format!("column{}", i + 1)) });
        SetExpr::Select(Box::new(select(items.collect(), vec![], None)))
    });
    let union = selects.reduce(|left, right| SetExpr::SetOperation {
        left: Box::new(left),
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        right: Box::new(right),
    });
    let no_rows = || SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![] });
    let mut body = union.unwrap_or_else(no_rows);
    balance_set(&mut body);
    query(body)
}
