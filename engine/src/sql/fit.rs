//! Bound values for the types that were announced for them.
//!
//! A value that its parameter's type has is bound as one of that type. One that the type does not have (1.234 for a
//! `NUMERIC(10, 2)`, 1.5 for an `INT`) is not made another one: the statement is planned again with the value's own type, so
//! that it is compared as the number that it is, like a literal in its place.

use std::ops::ControlFlow;

use arrow::datatypes::{DECIMAL256_MAX_PRECISION, DECIMAL256_MAX_SCALE, DataType};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Expr, Function, FunctionArguments, Visitor};

use super::coerce::{bindable, null};
use super::errors::from_datafusion;
use super::infer::is_of_one_type;
use super::params::{Bound, Typed, argument, bind, each_piece, placeholder_number};
use super::rules::{decimal_of, number_as_decimal};
use super::statement::Statement;
use crate::error::{EngineError, Result};

/// The largest number up to which a DOUBLE has all integers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A bound value, and how its parameter's type takes it.
#[derive(Debug)]
enum Fit {
    /// As one of that type.
    Declared(ScalarValue),
    /// Only as it is; and what is to be said where that will not do.
    AsItIs(ScalarValue, EngineError),
}

/// A plan with all its values.
#[derive(Debug)]
pub(crate) struct BoundPlan {
    pub plan: LogicalPlan,
    /// Whether it was planned for these values, which can change the names of its columns, and no more.
    pub by_value: bool,
}

/// A statement's plan with these values in place of its parameters. `plan`: plans it for values.
pub(crate) fn bind_values(
    statement: &Statement,
    typed: &Typed,
    values: Vec<ScalarValue>,
    plan: impl FnOnce(Bound<'_>) -> Result<Typed>,
) -> Result<BoundPlan> {
    let declared = &typed.parameters;
    if values.len() != declared.len() {
        return Err(EngineError::parameter_count(declared.len(), values.len()));
    }
    let (mut types, mut bound) = (declared.clone(), Vec::with_capacity(values.len()));
    let mut refused = None;
    for (place, (value, declared)) in values.into_iter().zip(declared).enumerate() {
        match fit(value, declared, &format!("parameter ${}", place + 1))? {
            Fit::Declared(value) => bound.push(value),
            Fit::AsItIs(_, error) if is_argument(statement, place + 1) => return Err(error),
            Fit::AsItIs(value, error) => {
                types[place] = value.data_type();
                bound.push(value);
                refused.get_or_insert(error);
            }
        }
    }
    let planned = || plan(Bound { types: &types, values: &bound });
    let plan = match refused {
        None if !typed.in_place => typed.plan.clone(),
        None => planned()?.plan,
        // Where the text or the result wants the declared type, no other will do.
        Some(error) => match planned() {
            Ok(again) if of_same_types(&again.plan, &typed.plan) => {
                return Ok(BoundPlan { plan: bind(again.plan, bound)?, by_value: true });
            }
            _ => return Err(error),
        },
    };
    Ok(BoundPlan { plan: bind(plan, bound)?, by_value: typed.in_place })
}

fn of_same_types(a: &LogicalPlan, b: &LogicalPlan) -> bool {
    let types = |plan: &LogicalPlan| plan.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    types(a) == types(b)
}

/// Whether a parameter is an argument of a function. There it would be cast to what the function takes, without a word.
fn is_argument(statement: &Statement, number: usize) -> bool {
    struct Arguments(usize);
    impl Visitor for Arguments {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else {
                return ControlFlow::Continue(());
            };
            let is_it = |arg: &Expr| placeholder_number(arg) == Some(self.0);
            match list.args.iter().filter_map(argument).any(is_it)
                && !is_of_one_type(&name.to_string().to_ascii_lowercase())
            {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    each_piece(statement, &mut Arguments(number)).is_break()
}

fn fit(value: ScalarValue, declared: &DataType, what: &str) -> Result<Fit> {
    let value = match value {
        ScalarValue::Dictionary(_, value) => *value,
        value => value,
    };
    let given = value.data_type();
    if given == *declared {
        return Ok(Fit::Declared(value));
    }
    if value.is_null() {
        return null(declared).map(Fit::Declared);
    }
    bindable(&given, declared, what, "bound value is")?;
    let shown = value.to_string();
    let value = as_number(value, declared);
    let given = value.data_type();
    let refuse = |why: String| EngineError::invalid(format!("{what} is of type {declared}{why}"));
    match value.cast_to(declared) {
        Ok(cast) if is_the_same(&value, &cast) => Ok(Fit::Declared(cast)),
        Ok(_) if declared.is_integer() => Ok(Fit::AsItIs(value, refuse(format!(": {shown} is not an integer")))),
        Ok(_) => {
            let advice = "CAST the parameter to the type that is meant";
            Ok(Fit::AsItIs(value, refuse(format!(", which does not have {shown}: {advice}"))))
        }
        Err(error) => {
            let error = refuse(format!(": {}", from_datafusion(error, &[]).message));
            // What is no number cannot be compared with one.
            if loses(&given, declared) { Ok(Fit::AsItIs(value, error)) } else { Err(error) }
        }
    }
}

/// A number for a numeric parameter, with all its digits: what is written, be it in a text or a float's shortest one.
fn as_number(value: ScalarValue, declared: &DataType) -> ScalarValue {
    let is_exact = declared.is_integer() || declared.is_decimal();
    let exact = match &value {
        ScalarValue::Float64(Some(number)) if is_exact => float(*number, &number.to_string(), declared),
        ScalarValue::Float32(Some(number)) if is_exact => float(f64::from(*number), &number.to_string(), declared),
        ScalarValue::Float16(Some(number)) if is_exact => {
            let number = f32::from(*number);
            float(f64::from(number), &number.to_string(), declared)
        }
        _ => match value.try_as_str().flatten() {
            Some(text) if is_exact => text_as_number(text.trim(), declared),
            _ => None,
        },
    };
    exact.unwrap_or(value)
}

/// `text`: the shortest one that means the number.
fn float(number: f64, text: &str, declared: &DataType) -> Option<ScalarValue> {
    let double = || ScalarValue::Float64(Some(number));
    if !number.is_finite() || declared.is_integer() && number.fract() != 0.0 && number.abs() < EXACT_MAX {
        return Some(double());
    }
    let exact = format!("{number:.0}");
    Some(decimal_of(if declared.is_integer() { &exact } else { text }).unwrap_or_else(double))
}

fn text_as_number(text: &str, declared: &DataType) -> Option<ScalarValue> {
    if declared.is_integer() && ScalarValue::from(text).cast_to(declared).is_ok() {
        return None;
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_plain =
        digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && digits.bytes().any(|b| b.is_ascii_digit());
    if is_plain {
        let text = text.strip_prefix('+').unwrap_or(text);
        return decimal_of(text).or_else(|| long_decimal(text));
    }
    // `1e3`, but no name of a number: those are for DOUBLEs.
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    number_as_decimal(number).or(Some(ScalarValue::Float64(Some(number))))
}

fn long_decimal(text: &str) -> Option<ScalarValue> {
    let scale = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scale = i8::try_from(scale).ok().filter(|scale| *scale <= DECIMAL256_MAX_SCALE)?;
    ScalarValue::from(text).cast_to(&DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale)).ok()
}

/// Whether a cast has lost nothing, of what can be lost without an error.
fn is_the_same(value: &ScalarValue, cast: &ScalarValue) -> bool {
    let (from, to) = (value.data_type(), cast.data_type());
    if to.is_floating() {
        // Floats are near what is meant, but not as far away as infinity.
        let is_finite = |value: &ScalarValue| match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(Some(number))) => number.is_finite(),
            _ => false,
        };
        return is_finite(cast) || !is_finite(value);
    }
    !loses(&from, &to) || cast.cast_to(&from).is_ok_and(|back| back == *value)
}

fn loses(from: &DataType, to: &DataType) -> bool {
    use DataType::{Boolean, Date32, Date64, LargeList, List, Time32, Time64, Timestamp};
    let is_time = |t: &DataType| matches!(t, Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..));
    match (from, to) {
        (List(from) | LargeList(from), List(to) | LargeList(to)) => loses(from.data_type(), to.data_type()),
        (from, to) if is_time(from) => is_time(to),
        (from, to) => from.is_numeric() && (to.is_numeric() && !to.is_floating() || *to == Boolean),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn bound(value: ScalarValue, declared: DataType) -> std::result::Result<ScalarValue, (ScalarValue, String)> {
        match fit(value, &declared, "it").unwrap() {
            Fit::Declared(value) => Ok(value),
            Fit::AsItIs(value, error) => Err((value, error.message)),
        }
    }

    fn float(number: f64) -> ScalarValue {
        ScalarValue::Float64(Some(number))
    }

    fn decimal(unscaled: i128, precision: u8, scale: i8) -> ScalarValue {
        ScalarValue::Decimal128(Some(unscaled), precision, scale)
    }

    #[test]
    fn a_number_is_of_the_declared_type_or_the_number_that_it_is() {
        let money = || DataType::Decimal128(10, 2);
        let int = || DataType::Int32;
        for (value, declared, expected) in [
            (float(1.1), money(), Ok(decimal(110, 10, 2))),
            (float(1.234), money(), Err(decimal(1234, 4, 3))),
            (float(-0.005), money(), Err(decimal(-5, 3, 3))),
            (float(1e300), money(), Err(float(1e300))),
            (ScalarValue::Float32(Some(1.1)), money(), Ok(decimal(110, 10, 2))),
            (ScalarValue::from("1.10"), money(), Ok(decimal(110, 10, 2))),
            (ScalarValue::from(" +1.234"), money(), Err(decimal(1234, 4, 3))),
            (ScalarValue::from("1234e-3"), money(), Err(decimal(1234, 4, 3))),
            (decimal(1230, 4, 3), money(), Ok(decimal(123, 10, 2))),
            (decimal(1234, 4, 3), money(), Err(decimal(1234, 4, 3))),
            (ScalarValue::Int64(Some(1 << 40)), money(), Err(ScalarValue::Int64(Some(1 << 40)))),
            (float(2.0), int(), Ok(ScalarValue::Int32(Some(2)))),
            (float(1.5), int(), Err(float(1.5))),
            (float(9223372036854775808.0), DataType::Int64, Err(decimal(9223372036854775808, 19, 0))),
            (ScalarValue::from("1.5"), int(), Err(decimal(15, 2, 1))),
            (ScalarValue::from("3000000000"), int(), Err(decimal(3000000000, 10, 0))),
            (ScalarValue::Int64(Some(3 << 30)), int(), Err(ScalarValue::Int64(Some(3 << 30)))),
            (ScalarValue::UInt64(Some(7)), int(), Ok(ScalarValue::Int32(Some(7)))),
            (float(0.1), DataType::Float32, Ok(ScalarValue::Float32(Some(0.1)))),
            (float(1e300), DataType::Float32, Err(float(1e300))),
            (float(f64::INFINITY), DataType::Float32, Ok(ScalarValue::Float32(Some(f32::INFINITY)))),
            (decimal(1, 1, 1), DataType::Float64, Ok(float(0.1))),
            (ScalarValue::Int64(Some(1)), DataType::Boolean, Ok(ScalarValue::Boolean(Some(true)))),
            (ScalarValue::Int64(Some(2)), DataType::Boolean, Err(ScalarValue::Int64(Some(2)))),
            (ScalarValue::Int64(Some(2)), DataType::Utf8, Ok(ScalarValue::from("2"))),
        ] {
            let found = bound(value.clone(), declared.clone());
            assert_eq!(found.map_err(|(value, _)| value), expected, "{value:?} as {declared}");
        }
    }

    #[test]
    fn a_moment_keeps_what_it_has() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let nanos = |ns| ScalarValue::TimestampNanosecond(Some(ns), None);
        assert_eq!(bound(nanos(5000), micros.clone()), Ok(ScalarValue::TimestampMicrosecond(Some(5), None)));
        assert!(bound(nanos(5001), micros).is_err());
        assert_eq!(bound(nanos(86_400_000_000_000), DataType::Date32), Ok(ScalarValue::Date32(Some(1))));
        assert!(bound(nanos(86_400_000_000_001), DataType::Date32).is_err());
    }

    #[test]
    fn a_number_is_no_moment_and_says_so() {
        for (declared, advice) in [
            (DataType::Date32, "a DATE, or a text like '2020-01-31'"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "a TIMESTAMP, or a text like '2020-01-31T12:00:00'"),
            (DataType::Time64(TimeUnit::Microsecond), "a TIME, or a text like '12:00:00'"),
        ] {
            for value in [ScalarValue::Int64(Some(1)), float(1.0), decimal(1, 1, 0)] {
                let error = fit(value, &declared, "parameter $1").unwrap_err();
                assert!(error.message.contains(advice), "{}", error.message);
            }
        }
        assert!(fit(ScalarValue::Date32(Some(1)), &DataType::Int64, "it").is_err());
    }
}
