//! What a literal means beside something else.
//!
//! DataFusion gives both sides of an operator one type, and for some pairs it is the wrong one:
//! - NUMERIC beside `9999999.99`: the literal is a DOUBLE, and what is compared are NUMERIC(30, 15)s, of which neither side
//!   keeps its digits. Here the literal is the number as it is written. Beside a DOUBLE that is no literal, a NUMERIC is
//!   compared as a DOUBLE, as in PostgreSQL.
//! - A moment to which a parameter is added: an interval, and no other moment.
//! - TIMESTAMP beside a text, a DATE or a finer TIMESTAMP: both are read in nanoseconds, which begin in 1677 and end in
//!   2262. Here the text and the DATE are read in the column's unit, and where nanoseconds are compared, what is before or
//!   after them is their first or last ([`super::saturating`]).

use std::cmp::Ordering;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{BinaryExpr, Cast, Placeholder};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::saturating::in_finer_unit;

/// Digits after the point that a product may have here; with more it is left to DOUBLE.
const PRODUCT_SCALE_MAX: i8 = 20;

/// Aligns the sides of operators while they are planned.
#[derive(Debug)]
pub(super) struct Beside;

impl ExprPlanner for Beside {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let (left, right) = match op {
            BinaryOperator::Plus => added(left, right, schema),
            _ => (left, right),
        };
        let (left, right) = match op {
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => compared(left, right, schema),
            BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Multiply => computed(left, right, schema),
            _ => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// Both sides of `+`. What is added to a moment is an interval: a parameter would be of the other side's type.
fn added(left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let is_moment = |expr: &Expr| {
        let data_type = expr.get_type(schema);
        data_type
            .is_ok_and(|data_type| matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64))
    };
    let interval = |expr: Expr| match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Field::new(&id, DataType::Interval(IntervalUnit::MonthDayNano), true);
            Expr::Placeholder(Placeholder::new_with_field(id, Some(field.into())))
        }
        expr => expr,
    };
    match (is_moment(&left), is_moment(&right)) {
        (true, false) => (left, interval(right)),
        (false, true) => (interval(left), right),
        _ => (left, right),
    }
}

/// Both sides of a comparison, of types that are compared rightly.
pub(super) fn compared(left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema)) else { return (left, right) };
    match (&left_type, &right_type) {
        (a, b) if a.is_decimal() && b.is_floating() => match exact(&right) {
            Some(right) => compared(left, right, schema),
            None => (cast(left, DataType::Float64), right),
        },
        (a, b) if a.is_floating() && b.is_decimal() => swapped(compared(right, left, schema)),
        (a, b) if a.is_decimal() && b.is_decimal() => wide_enough(left, a, right, b),
        (DataType::Timestamp(..), _) => timestamps(left, &left_type, right, &right_type),
        (_, DataType::Timestamp(..)) => swapped(timestamps(right, &right_type, left, &left_type)),
        _ => (left, right),
    }
}

/// Both sides of `+`, `-` or `*`.
fn computed(left: Expr, right: Expr, schema: &DFSchema) -> (Expr, Expr) {
    let (Ok(left_type), Ok(right_type)) = (left.get_type(schema), right.get_type(schema)) else { return (left, right) };
    let fits = |decimal: &DataType, literal: &Expr| -> Option<Expr> {
        let exact = exact(literal)?;
        let (_, scale) = precision_and_scale(decimal)?;
        let (_, more) = precision_and_scale(&exact.get_type(schema).ok()?)?;
        (scale + more <= PRODUCT_SCALE_MAX).then_some(exact)
    };
    if left_type.is_decimal() && right_type.is_floating() {
        return match fits(&left_type, &right) {
            Some(right) => (left, right),
            None => (left, right),
        };
    }
    if left_type.is_floating() && right_type.is_decimal() {
        return match fits(&right_type, &left) {
            Some(left) => (left, right),
            None => (left, right),
        };
    }
    (left, right)
}

fn swapped((left, right): (Expr, Expr)) -> (Expr, Expr) {
    (right, left)
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

/// An expression of nothing but numbers (`0.06 + 0.01`) in decimals; `None` = it is no such expression.
fn exact(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(number)), metadata) => {
            Some(Expr::Literal(decimal(*number)?, metadata.clone()))
        }
        Expr::Literal(ScalarValue::Int64(Some(_)), _) => Some(expr.clone()),
        Expr::Literal(value, _) if value.data_type().is_decimal() => Some(expr.clone()),
        Expr::Negative(inner) => Some(Expr::Negative(Box::new(exact(inner)?))),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: op @ (Operator::Plus | Operator::Minus | Operator::Multiply),
            right,
        }) => {
            let (left, right) = (Box::new(exact(left)?), Box::new(exact(right)?));
            Some(Expr::BinaryExpr(BinaryExpr { left, op: *op, right }))
        }
        _ => None,
    }
}

/// The decimal that is written like this number; `None` where that has more than 38 digits.
pub(in crate::sql) fn decimal(number: f64) -> Option<ScalarValue> {
    // The shortest text that means this number: what was written, up to 15 digits at least.
    number.is_finite().then(|| decimal_of(&number.to_string()))?
}

/// The decimal that is written like this, in digits with a point or none; `None` where they are more than 38.
pub(in crate::sql) fn decimal_of(text: &str) -> Option<ScalarValue> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = i8::try_from(fraction.len()).ok().filter(|scale| *scale <= 38)?;
    let digits = format!("{whole}{fraction}");
    let unscaled: i128 = digits.parse().ok()?;
    let precision = digits.trim_start_matches(['-', '0']).len().max(fraction.len()).max(1);
    (precision <= 38).then_some(ScalarValue::Decimal128(Some(unscaled), precision as u8, scale))
}

fn precision_and_scale(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => Some((*p, *s)),
        _ => None,
    }
}

/// Decimals that have no common type of 38 digits are compared with 76. DataFusion cuts the digits before the point.
fn wide_enough(left: Expr, left_type: &DataType, right: Expr, right_type: &DataType) -> (Expr, Expr) {
    let (Some((p1, s1)), Some((p2, s2))) = (precision_and_scale(left_type), precision_and_scale(right_type)) else {
        return (left, right);
    };
    let scale = s1.max(s2);
    let whole = (i16::from(p1) - i16::from(s1)).max(i16::from(p2) - i16::from(s2));
    match u8::try_from(whole + i16::from(scale)) {
        Ok(precision @ 39..=76) => {
            let wide = DataType::Decimal256(precision, scale);
            (cast(left, wide.clone()), cast(right, wide))
        }
        _ => (left, right),
    }
}

/// A TIMESTAMP and what it is compared with.
fn timestamps(stamp: Expr, stamp_type: &DataType, other: Expr, other_type: &DataType) -> (Expr, Expr) {
    let DataType::Timestamp(unit, zone) = stamp_type else { return (stamp, other) };
    if let Some(text) = text(&other) {
        let unit = finer(*unit, unit_of_text(text));
        let read = match unit {
            // Texts reach beyond nanoseconds.
            TimeUnit::Nanosecond if unit_of_text(text) != TimeUnit::Nanosecond => TimeUnit::Microsecond,
            unit => unit,
        };
        let literal = Expr::Literal(ScalarValue::Utf8(Some(text.to_owned())), None);
        let read_type = DataType::Timestamp(read, zone.clone());
        return same_unit(stamp, stamp_type, cast(literal, read_type.clone()), &read_type);
    }
    match other_type {
        DataType::Date32 => {
            let read = if *unit == TimeUnit::Nanosecond { TimeUnit::Microsecond } else { *unit };
            let read_type = DataType::Timestamp(read, zone.clone());
            same_unit(stamp, stamp_type, cast(other, read_type.clone()), &read_type)
        }
        DataType::Timestamp(..) => same_unit(stamp, stamp_type, other, other_type),
        _ => (stamp, other),
    }
}

/// Two TIMESTAMPs, the coarser one in the unit of the other.
fn same_unit(left: Expr, left_type: &DataType, right: Expr, right_type: &DataType) -> (Expr, Expr) {
    let (DataType::Timestamp(left_unit, _), DataType::Timestamp(right_unit, right_zone)) = (left_type, right_type)
    else {
        return (left, right);
    };
    match left_unit.cmp(right_unit) {
        Ordering::Equal => (left, right),
        Ordering::Greater => swapped(same_unit(right, right_type, left, left_type)),
        // The time of the statement has microseconds in PostgreSQL: with them every time can be compared.
        Ordering::Less if is_now(&right) => {
            (left, cast(right, DataType::Timestamp(TimeUnit::Microsecond, right_zone.clone())))
        }
        Ordering::Less => (in_finer_unit(left, *right_unit), right),
    }
}

/// The text of a literal, or of a literal that is read as a TIMESTAMP.
fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        Expr::Cast(Cast { expr, field }) => match (field.data_type(), expr.as_ref()) {
            (DataType::Timestamp(unit, None), Expr::Literal(value, _)) => {
                value.try_as_str().flatten().filter(|text| unit_of_text(text) <= *unit)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The unit that holds all digits after the point of a timestamp's text.
fn unit_of_text(text: &str) -> TimeUnit {
    let fraction = text.rsplit_once('.').map_or("", |(_, fraction)| fraction);
    match fraction.bytes().take_while(u8::is_ascii_digit).count() {
        0 => TimeUnit::Second,
        1..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    a.max(b)
}

fn is_now(expr: &Expr) -> bool {
    let found = expr.exists(|expr| Ok(matches!(expr, Expr::ScalarFunction(function) if function.name() == "now")));
    found.unwrap_or(false) && !expr.any_column_refs()
}
