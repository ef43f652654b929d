//! Values into columns: casts that lose nothing, or say what is wrong.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::can_cast_types;
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit,
};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};

use seracdb_storage::system_columns;

use super::errors::{from_arrow, from_datafusion};
use super::insert::check_count;
use super::statement::{Insert, InsertSource};
use super::wildcards::is_of_wildcards;
use crate::error::{EngineError, Result};

/// The rows to insert: every user column in order, cast to its type; columns the source does not give have their default, or are NULL.
/// A source whose columns are those of wildcards does not give SeracDB's own: the new rows have others.
pub(crate) fn insert_projection(
    source: LogicalPlan,
    targets: &[usize],
    insert: &Insert,
    user_columns: &[(String, DataType)],
    defaults: &[Option<Expr>],
) -> Result<LogicalPlan> {
    let all = source.schema().columns();
    let columns: Vec<Column> = match &insert.source {
        InsertSource::Defaults => vec![],
        InsertSource::Query(query) if is_of_wildcards(&query.body) => without_own(&source, &all)?,
        _ => all.clone(),
    };
    check_count(columns.len(), targets, insert, "the query gives").map_err(|error| {
        let has_own = all.iter().any(|column| system_columns::is_system_column(&column.name));
        let advice = match (has_own, columns.len() == all.len()) {
            (false, _) => return error,
            (true, false) => "SELECT * leaves system columns out here; list the columns",
            (true, true) => "SELECT * gives system columns too; list the columns",
        };
        EngineError { message: format!("{}: {advice}", error.message), ..error }
    })?;
    check_values(&source)?;
    let mut items = Vec::with_capacity(user_columns.len());
    for (i, (name, data_type)) in user_columns.iter().enumerate() {
        let expr = match targets.iter().position(|&target| target == i) {
            Some(place) => cast(Expr::Column(columns[place].clone()), name, data_type, &source)?,
            None => match defaults.get(i).cloned().flatten() {
                Some(default) => default,
                None => Expr::Literal(null(data_type)?, None),
            },
        };
        items.push(expr.alias(name));
    }
    project(source, items)
}

/// The columns of a query that are not called like SeracDB's own.
fn without_own(source: &LogicalPlan, columns: &[Column]) -> Result<Vec<Column>> {
    let mut others = Vec::with_capacity(columns.len());
    for (place, column) in columns.iter().enumerate() {
        match system_columns::is_system_column(&column.name) {
            false => others.push(column.clone()),
            true if has_another(source, place, false) => {
                return Err(EngineError::invalid(format!(
                    "the queries of a set operation do not all have a system column in place {}: list the columns",
                    place + 1
                )));
            }
            true => {}
        }
    }
    Ok(others)
}

/// Whether one of the queries of a UNION, whose columns are called as those of the first, has another column in the place of a
/// system column: its values would be lost. `in_union`: whether the plan is one of these queries.
fn has_another(plan: &LogicalPlan, place: usize, in_union: bool) -> bool {
    let is_own = |name: &str| system_columns::is_system_column(name);
    match plan {
        LogicalPlan::Union(union) => union.inputs.iter().any(|query| has_another(query, place, true)),
        LogicalPlan::Distinct(Distinct::All(input)) => has_another(input, place, in_union),
        LogicalPlan::Sort(sort) => has_another(&sort.input, place, in_union),
        LogicalPlan::Limit(limit) => has_another(&limit.input, place, in_union),
        LogicalPlan::Projection(projection) if in_union => match uncast(&projection.expr[place]) {
            Expr::Column(column) => !is_own(&column.name),
            _ => true,
        },
        plan => in_union && !is_own(plan.schema().field(place).name()),
    }
}

fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => uncast(&alias.expr),
        Expr::Cast(cast) => uncast(&cast.expr),
        other => other,
    }
}

/// The columns of this plan by position, cast to these types, under these names. `None` = left as it is.
pub(crate) fn conform(source: LogicalPlan, types: &[Option<(&str, &DataType)>]) -> Result<LogicalPlan> {
    let mut items = Vec::with_capacity(types.len());
    for (column, target) in source.schema().columns().into_iter().zip(types) {
        let expr = Expr::Column(column);
        items.push(match target {
            Some((name, data_type)) => cast(expr, name, data_type, &source)?.alias(*name),
            None => expr,
        });
    }
    project(source, items)
}

fn project(source: LogicalPlan, items: Vec<Expr>) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(source)
        .project(items)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|e| from_datafusion(e, &[]))
}

pub(crate) fn cast(expr: Expr, name: &str, to: &DataType, source: &LogicalPlan) -> Result<Expr> {
    let schema = source.schema().as_ref();
    let from = expr.get_type(schema).map_err(|e| from_datafusion(e, &[]))?;
    if from == *to {
        return Ok(expr);
    }
    let mismatch = || mismatch(name, to, &from);
    if !is_assignable(&from, to) {
        return Err(mismatch());
    }
    expr.cast_to(to, schema).map_err(|_| mismatch())
}

/// The same for an expression whose types are not coerced yet. `from`: the type that it will have then.
pub(super) fn cast_from(expr: Expr, from: &DataType, name: &str, to: &DataType) -> Result<Expr> {
    if from == to {
        return Ok(expr);
    }
    if let Expr::Literal(ScalarValue::Null, _) = expr {
        return Ok(Expr::Literal(null(to)?, None));
    }
    // The fields of structs find each other by name.
    let are_structs = matches!((from, to), (DataType::Struct(_), DataType::Struct(_)));
    match is_assignable(from, to) && (are_structs || can_cast_types(from, to)) {
        true => Ok(Expr::Cast(Cast::new(Box::new(expr), to.clone()))),
        false => Err(mismatch(name, to, from)),
    }
}

fn mismatch(column: &str, to: &DataType, from: &DataType) -> EngineError {
    EngineError::invalid(format!("column '{column}' is of type {to}, but the value is of type {from}"))
}

/// Arrow casts what no SQL database would: a value to the list of it, a date to the number of its days.
fn is_assignable(from: &DataType, to: &DataType) -> bool {
    let is_list = |data_type: &DataType| {
        use DataType::{FixedSizeList, LargeList, LargeListView, List, ListView};
        matches!(data_type, List(_) | LargeList(_) | FixedSizeList(..) | ListView(_) | LargeListView(_))
    };
    if is_list(to) && !is_list(from) {
        return from.is_null();
    }
    if let (DataType::List(from) | DataType::LargeList(from), DataType::List(to)) = (from, to) {
        return is_assignable(from.data_type(), to.data_type());
    }
    !(from.is_temporal() && to.is_numeric() || from.is_numeric() && to.is_temporal())
}

/// The planner casts VALUES to the columns by itself.
fn check_values(source: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Values(values) = source else { return Ok(()) };
    let none = DFSchema::empty();
    for row in &values.values {
        for (value, field) in row.iter().zip(values.schema.fields()) {
            if let Expr::Cast(cast) = value
                && let Ok(from) = cast.expr.get_type(&none)
                && !is_assignable(&from, cast.field.data_type())
            {
                return Err(mismatch(field.name(), cast.field.data_type(), &from));
            }
        }
    }
    Ok(())
}

pub(super) fn null(data_type: &DataType) -> Result<ScalarValue> {
    ScalarValue::try_from(data_type).map_err(|e| from_datafusion(e, &[]))
}

/// Refuses what cannot be bound for this type. `verb`: "bound value is", "bound values are".
pub(crate) fn bindable(given: &DataType, declared: &DataType, what: &str, verb: &str) -> Result<()> {
    let given = match given {
        DataType::Dictionary(_, values) => values,
        given => given,
    };
    let refused = |advice: &str| {
        Err(EngineError::invalid(format!("{what} is of type {declared}, but the {verb} of type {given}{advice}")))
    };
    match is_assignable(given, declared) {
        true if can_cast_types(given, declared) => Ok(()),
        false if given.is_numeric() => refused(match declared {
            DataType::Date32 | DataType::Date64 => ": bind a DATE, or a text like '2020-01-31'",
            DataType::Timestamp(..) => ": bind a TIMESTAMP, or a text like '2020-01-31T12:00:00'",
            DataType::Time32(_) | DataType::Time64(_) => ": bind a TIME, or a text like '12:00:00'",
            DataType::Interval(_) | DataType::Duration(_) => ": bind an INTERVAL, or a text like '2 days'",
            _ => "",
        }),
        _ => refused(""),
    }
}

/// Refuses values that their own type does not have: clients send them as they please.
fn check_range(column: &dyn Array, what: &str) -> Result<()> {
    let outside =
        |value: String| EngineError::invalid(format!("{what}: {value} is no value of {}", column.data_type()));
    let in_day = |values: &mut dyn Iterator<Item = Option<i64>>, day: i64| {
        let wrong = values.flatten().find(|value| !(0..day).contains(value));
        wrong.map_or(Ok(()), |value| Err(outside(value.to_string())))
    };
    match column.data_type() {
        DataType::Decimal128(precision, _) => column
            .as_primitive::<Decimal128Type>()
            .validate_decimal_precision(*precision)
            .map_err(|e| from_arrow(e, &[])),
        DataType::Decimal256(precision, _) => column
            .as_primitive::<Decimal256Type>()
            .validate_decimal_precision(*precision)
            .map_err(|e| from_arrow(e, &[])),
        DataType::Time32(TimeUnit::Second) => {
            in_day(&mut column.as_primitive::<Time32SecondType>().iter().map(|v| v.map(i64::from)), 86_400)
        }
        DataType::Time32(_) => {
            in_day(&mut column.as_primitive::<Time32MillisecondType>().iter().map(|v| v.map(i64::from)), 86_400_000)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            in_day(&mut column.as_primitive::<Time64MicrosecondType>().iter(), 86_400_000_000)
        }
        DataType::Time64(_) => in_day(&mut column.as_primitive::<Time64NanosecondType>().iter(), 86_400_000_000_000),
        data_type if data_type.is_nested() => {
            let children = column.to_data().child_data().to_vec();
            children.into_iter().try_for_each(|child| check_range(&arrow::array::make_array(child), what))
        }
        _ => Ok(()),
    }
}

/// A bound column as its declared type, for what is inserted. A number that does not fit an integer is an error, not another
/// number; one for a NUMERIC is rounded, like a literal.
pub(crate) fn bind_column(
    column: &Arc<dyn arrow::array::Array>,
    declared: &DataType,
    what: &str,
) -> Result<Arc<dyn arrow::array::Array>> {
    let given = column.data_type();
    check_range(column.as_ref(), what)?;
    if given == declared {
        return Ok(Arc::clone(column));
    }
    bindable(given, declared, what, "bound values are")?;
    let column = &as_written(column, declared);
    let given = column.data_type();
    let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
    let cast = |from: &Arc<dyn arrow::array::Array>, to: &DataType| {
        arrow::compute::cast_with_options(from, to, &strict).map_err(|e| {
            let cause = from_arrow(e, &[]);
            EngineError::invalid(format!("{what} is of type {declared}: {}", cause.message))
        })
    };
    let bound = cast(column, declared)?;
    if declared.is_integer()
        && (given.is_floating() || given.is_decimal())
        && cast(&bound, given)?.as_ref() != column.as_ref()
    {
        return Err(EngineError::invalid(format!(
            "{what} is of type {declared}, but not all bound values are integers"
        )));
    }
    Ok(bound)
}

/// Floats for a NUMERIC as their shortest texts: 1.005 is meant, and not the binary fraction that is next to it.
fn as_written(column: &Arc<dyn Array>, declared: &DataType) -> Arc<dyn Array> {
    let texts: StringArray = match column.data_type() {
        _ if !declared.is_decimal() => return Arc::clone(column),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().map(|v| v.map(|v| v.to_string())).collect(),
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().map(|v| v.map(|v| v.to_string())).collect(),
        _ => return Arc::clone(column),
    };
    Arc::new(texts)
}
