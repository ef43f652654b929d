//! Literals that DataFusion reads as something else than is written.
//!
//! - A number with more digits than a DOUBLE holds is a DOUBLE with others: it becomes a cast of its text to NUMERIC. One
//!   that a DOUBLE does hold stays a DOUBLE, until it meets a NUMERIC ([`crate::sql::rules`]).
//! - TIMESTAMP without a precision is one in nanoseconds, which ends in 2262: it is TIMESTAMP(6), as in CREATE TABLE, unless
//!   the literal has more digits. A precision in between is the next one that there is.
//! - The type of a cast is what a column of it would be: FLOAT is a DOUBLE, a UUID its text ([`of_cast`]).
//! - TIME is in nanoseconds too, and could not be compared with a column: it is TIME(6), unless the literal has more digits.
//! - `U&'…'` has no plan; the parser has read its escapes already.
//! - PostgreSQL's patterns of times become strftime's ([`super::time_patterns`]).

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Query, SetExpr, TimezoneInfo, TypedString, Value, ValueWithSpan,
    VisitMut, VisitorMut,
};

use super::{call, time_patterns};
use crate::error::{EngineError, Result};
use crate::sql::types::of_cast;

/// Digits a NUMERIC has at most.
const DIGITS_MAX: usize = 76;

/// Makes every literal what is written.
pub(super) fn read(query: &mut Query) -> Result<()> {
    // The rows of an INSERT are cast to its columns: their numbers are read there.
    let rows = match query.body.as_mut() {
        SetExpr::Values(values) => std::mem::take(&mut values.rows),
        _ => vec![],
    };
    let mut read = query.visit(&mut Read);
    if let SetExpr::Values(values) = query.body.as_mut() {
        values.rows = rows;
        for value in values.rows.iter_mut().flat_map(|row| row.content.iter_mut()) {
            if read.is_continue() && !matches!(value, Expr::Value(ValueWithSpan { value: Value::Number(..), .. })) {
                read = value.visit(&mut Read);
            }
        }
    }
    match read {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Read;

impl VisitorMut for Read {
    type Break = EngineError;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<EngineError> {
        match expr {
            Expr::Value(ValueWithSpan { value: Value::Number(digits, _), .. }) => {
                if let Some(exact) = long_number(digits) {
                    *expr = exact;
                }
            }
            Expr::Value(ValueWithSpan { value, .. }) => {
                if let Value::UnicodeStringLiteral(text) = value {
                    *value = Value::SingleQuotedString(std::mem::take(text));
                }
            }
            Expr::TypedString(TypedString { data_type, value, .. }) => {
                of_cast(data_type);
                set_precision(data_type, text(value));
            }
            Expr::Cast { data_type, expr, .. } => {
                of_cast(data_type);
                let literal = match expr.as_ref() {
                    Expr::Value(value) => text(value),
                    _ => None,
                };
                set_precision(data_type, literal);
            }
            Expr::Function(function) => {
                if let Err(error) = time_patterns::translate(function) {
                    return ControlFlow::Break(error);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<EngineError> {
        let (data_type, literal) = match expr {
            Expr::TypedString(TypedString { data_type, value, .. }) => (data_type, text(value)),
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, data_type, expr, .. } => match &**expr {
                Expr::Value(value) => (data_type, text(value)),
                _ => (data_type, None),
            },
            _ => return ControlFlow::Continue(()),
        };
        if let DataType::Time(digits @ Some(7..=9), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) = data_type {
            *digits = None;
        } else if let DataType::Time(None | Some(0..=6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) = data_type
            && literal.is_none_or(|text| fraction_digits(text) <= 6)
        {
            *data_type = DataType::Time(None, TimezoneInfo::None);
            let time = std::mem::replace(expr, Expr::value(Value::Null));
            *expr = call("arrow_cast", [time, Expr::value(Value::SingleQuotedString("Time64(µs)".to_owned()))]);
        }
        ControlFlow::Continue(())
    }
}

/// Digits after the point of a literal's seconds.
fn fraction_digits(text: &str) -> usize {
    let fraction = text.rsplit_once('.').map_or("", |(_, fraction)| fraction);
    fraction.bytes().take_while(u8::is_ascii_digit).count()
}

fn text(value: &ValueWithSpan) -> Option<&str> {
    match &value.value {
        Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

fn set_precision(data_type: &mut DataType, literal: Option<&str>) {
    let DataType::Timestamp(precision, _) = data_type else { return };
    *precision = match *precision {
        None => {
            let digits = literal.map_or(0, fraction_digits);
            Some(if digits > 6 { 9 } else { 6 })
        }
        Some(1 | 2) => Some(3),
        Some(4 | 5) => Some(6),
        Some(7 | 8) => Some(9),
        given => given,
    };
}

/// The number as a NUMERIC, when no DOUBLE is written like it.
fn long_number(digits: &str) -> Option<Expr> {
    if digits.contains(['e', 'E']) {
        return None;
    }
    let digits = digits.replace('_', "");
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let whole = whole.trim_start_matches('0');
    let is_integer = !digits.contains('.');
    if is_integer && digits.parse::<u64>().is_ok() {
        return None;
    }
    // What a DOUBLE is written like has no zeros at the end.
    let shortest = digits.parse::<f64>().ok()?.to_string();
    let (near_whole, near_fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    if !is_integer && near_whole.trim_start_matches('0') == whole && near_fraction == fraction.trim_end_matches('0') {
        return None;
    }
    let precision = whole.len() + fraction.len();
    if precision > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let info = ExactNumberInfo::PrecisionAndScale(precision.max(1) as u64, fraction.len() as i64);
    Some(Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::value(Value::SingleQuotedString(digits.clone()))),
        data_type: DataType::Decimal(info),
        array: false,
        format: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::dialect::SeracDialect;
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::parser::Parser;

    fn after(expr: &str) -> String {
        let mut statements = Parser::parse_sql(&SeracDialect, &format!("SELECT {expr}")).unwrap();
        let Statement::Query(query) = &mut statements[0] else { panic!("{expr}") };
        read(query).unwrap();
        query.to_string().trim_start_matches("SELECT ").to_owned()
    }

    #[test]
    fn numbers_keep_their_digits() {
        for same in [
            "1",
            "0.1",
            "1.50",
            "3.141592653589793",
            "9223372036854775808",
            "18446744073709551615",
            "1e308",
            "1.5e400",
            ".5",
        ] {
            assert_eq!(after(same), same);
        }
        for (written, read) in [
            ("1234567890123456789.0123456789", "CAST('1234567890123456789.0123456789' AS DECIMAL(29,10))"),
            ("18446744073709551616", "CAST('18446744073709551616' AS DECIMAL(20,0))"),
            ("-0.12345678901234567890", "-CAST('0.12345678901234567890' AS DECIMAL(20,20))"),
            (
                "0.00000000000000000012345678901234567890",
                "CAST('0.00000000000000000012345678901234567890' AS DECIMAL(38,38))",
            ),
        ] {
            assert_eq!(after(written), read);
        }
        let too_long = format!("1.{}", "1".repeat(80));
        assert_eq!(after(&too_long), too_long);
    }

    #[test]
    fn casts_have_the_types_of_columns() {
        for (written, read) in [
            ("a::uuid", "a::TEXT"),
            ("UUID 'x'", "TEXT 'x'"),
            ("CAST(a AS CHARACTER VARYING(10))", "CAST(a AS TEXT)"),
            ("TRY_CAST(a AS CHARACTER(3))", "TRY_CAST(a AS TEXT)"),
            ("a::json", "a::TEXT"),
            ("a::JSONB", "a::TEXT"),
            ("a::varchar(10)", "a::VARCHAR(10)"),
            ("CAST(a AS BINARY)", "CAST(a AS BYTEA)"),
            ("CAST(a AS VARBINARY(10))", "CAST(a AS BYTEA)"),
            ("a::blob", "a::BYTEA"),
            ("CAST(a AS DATETIME)", "CAST(a AS TIMESTAMP(6))"),
            ("CAST(a AS DATETIME(3))", "CAST(a AS TIMESTAMP(3))"),
            ("CAST(a AS DEC(10, 2))", "CAST(a AS DECIMAL(10,2))"),
            ("a::FLOAT", "a::DOUBLE PRECISION"),
            ("a::FLOAT(30)", "a::DOUBLE PRECISION"),
            ("a::FLOAT(24)", "a::FLOAT(24)"),
            ("a::REAL", "a::REAL"),
            ("a::uuid[]", "a::TEXT[]"),
            ("a::FLOAT[][]", "a::DOUBLE PRECISION[][]"),
            ("CAST(a AS STRUCT<x FLOAT, y JSON>)", "CAST(a AS STRUCT<x DOUBLE PRECISION, y TEXT>)"),
        ] {
            assert_eq!(after(written), read);
        }
    }

    #[test]
    fn timestamps_have_microseconds() {
        for (written, read) in [
            ("TIMESTAMP '9999-12-31'", "TIMESTAMP(6) '9999-12-31'"),
            ("TIMESTAMP '2024-01-01 00:00:00.1234567'", "TIMESTAMP(9) '2024-01-01 00:00:00.1234567'"),
            ("CAST(a AS TIMESTAMP)", "CAST(a AS TIMESTAMP(6))"),
            ("a::TIMESTAMP(9)", "a::TIMESTAMP(9)"),
            ("a::TIMESTAMP(2)", "a::TIMESTAMP(3)"),
            ("DATE '2024-01-01'", "DATE '2024-01-01'"),
            ("U&'\\00e4'", "'ä'"),
            ("TIME '12:00:00'", "arrow_cast(TIME '12:00:00', 'Time64(µs)')"),
            ("TIME '12:00:00.1234567'", "TIME '12:00:00.1234567'"),
            ("a::TIME(3)", "arrow_cast(a::TIME, 'Time64(µs)')"),
            ("a::TIME(9)", "a::TIME"),
        ] {
            assert_eq!(after(written), read);
        }
    }
}
