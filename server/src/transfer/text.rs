//! Texts as values of a column. Arrow rounds and cuts off what does not fit: here that is an error.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, TimeUnit};
use arrow::util::display::FormatOptions;

use super::coerce::{Misfit, misfit};

/// Casts make NULL of what they cannot read.
const SAFE: CastOptions<'static> = CastOptions { safe: true, format_options: FormatOptions::new() };

/// Exponents of decimals go no further: no column holds more digits.
const EXPONENT_MAX: i32 = 400;

/// The values that texts are. Bytes are written in hexadecimal, and spans of time as their number of units.
pub(super) fn parse(texts: &StringArray, to: &Field) -> Result<ArrayRef, Misfit> {
    let declared = to.data_type();
    let values = match declared {
        declared if declared.is_decimal() => decimals(texts, to)?,
        declared if declared.is_binary() => cast(&bytes(texts, to)?, declared, texts, to)?,
        DataType::Duration(_) => cast(&cast(texts, &DataType::Int64, texts, to)?, declared, texts, to)?,
        declared => cast(texts, declared, texts, to)?,
    };
    let cut_off = |row: &usize| texts.is_valid(*row) && !is_exact(texts.value(*row), &values, *row);
    match (0..texts.len()).find(cut_off) {
        Some(row) => Err(misfit(texts, row, to)),
        None => Ok(values),
    }
}

/// Casts; a value that becomes NULL is none of the type.
fn cast(from: &dyn Array, to_type: &DataType, texts: &StringArray, to: &Field) -> Result<ArrayRef, Misfit> {
    let cast = cast_with_options(from, to_type, &SAFE).map_err(|_| misfit(texts, 0, to))?;
    match (0..texts.len()).find(|row| from.is_valid(*row) && cast.is_null(*row)) {
        Some(row) => Err(misfit(texts, row, to)),
        None => Ok(cast),
    }
}

fn decimals(texts: &StringArray, to: &Field) -> Result<ArrayRef, Misfit> {
    let scale = match to.data_type() {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => usize::try_from(*scale).unwrap_or(0),
        _ => 0,
    };
    let mut plain = Vec::with_capacity(texts.len());
    for row in 0..texts.len() {
        if texts.is_null(row) {
            plain.push(None);
            continue;
        }
        let number = plain_number(texts.value(row));
        let fits = |number: &String| number.split_once('.').map_or(0, |(_, fraction)| fraction.len()) <= scale;
        plain.push(Some(number.filter(fits).ok_or_else(|| misfit(texts, row, to))?));
    }
    cast(&StringArray::from(plain), to.data_type(), texts, to)
}

/// A number without exponent and without zeros that say nothing; `None` for what is none.
fn plain_number(text: &str) -> Option<String> {
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) || exponent.abs() > EXPONENT_MAX {
        return None;
    }
    // Where the point is: so many digits stand before it.
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let before = usize::try_from(point.max(0)).ok()?;
    let zeros = usize::try_from((-point).max(0)).ok()?;
    let digits = ["0".repeat(zeros), digits].concat();
    let digits = format!("{digits:0<before$}");
    let (whole, fraction) = digits.split_at(before);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

fn bytes(texts: &StringArray, to: &Field) -> Result<BinaryArray, Misfit> {
    let mut values = Vec::with_capacity(texts.len());
    for row in 0..texts.len() {
        let value = texts.is_valid(row).then(|| from_hex(texts.value(row)).ok_or_else(|| misfit(texts, row, to)));
        values.push(value.transpose()?);
    }
    Ok(values.iter().map(Option::as_deref).collect())
}

/// Bytes as `0aff`, or as PostgreSQL writes them: `\x0aff`.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .strip_prefix("\\x")
        .unwrap_or(text)
        .bytes()
        .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Whether a value says all that its text does.
fn is_exact(text: &str, values: &ArrayRef, row: usize) -> bool {
    let is_finite = |value: f64| value.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit());
    match values.data_type() {
        DataType::Float32 => is_finite(values.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => is_finite(values.as_primitive::<Float64Type>().value(row)),
        DataType::Date32 => !text.contains(':'),
        DataType::Time32(unit) | DataType::Time64(unit) => fraction(text) <= digits(*unit),
        DataType::Timestamp(unit, zone) => fraction(text) <= digits(*unit) && (zone.is_some() || is_without_zone(text)),
        _ => true,
    }
}

/// Digits of a second that are not zero.
fn fraction(text: &str) -> usize {
    let after = text.split_once('.').map_or("", |(_, after)| after);
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    after[..end].trim_end_matches('0').len()
}

fn digits(unit: TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// Whether what a text says of a zone is nothing, or UTC.
fn is_without_zone(text: &str) -> bool {
    // After the date, which may have minus signs of its own.
    let time = text.split_once(':').map_or("", |(_, time)| time);
    let zone = time.trim_start_matches(|c: char| c.is_ascii_digit() || ":. ".contains(c));
    matches!(zone, "" | "Z" | "z" | "UTC" | "+00" | "+0000" | "+00:00" | "-00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, data_type: DataType) -> Result<String, String> {
        let values = parse(&StringArray::from(vec![text]), &Field::new("c", data_type, true));
        let values = values.map_err(|misfit| misfit.why)?;
        Ok(arrow::util::display::array_value_to_string(&values, 0).unwrap())
    }

    #[test]
    fn numbers_without_exponent_and_idle_zeros() {
        for (text, plain) in [
            ("007.50", "7.5"),
            ("-0.10", "-0.1"),
            ("+12", "12"),
            ("1.5e3", "1500"),
            ("1e-3", "0.001"),
            ("123.45E-2", "1.2345"),
            (".5", "0.5"),
            ("0", "0"),
        ] {
            assert_eq!(plain_number(text).as_deref(), Some(plain), "{text}");
        }
        for text in ["", "-", ".", "1.2.3", "abc", "1e", "1e9999", "0x1", "NaN", "1 "] {
            assert_eq!(plain_number(text), None, "{text}");
        }
    }

    #[test]
    fn what_fits_is_read() {
        let stamp = |unit| DataType::Timestamp(unit, None);
        for (text, data_type, value) in [
            ("-12", DataType::Int8, "-12"),
            ("1.50", DataType::Decimal128(4, 1), "1.5"),
            ("1e2", DataType::Decimal256(50, 2), "100.00"),
            ("true", DataType::Boolean, "true"),
            ("0aFF", DataType::Binary, "0aff"),
            ("\\x0aff", DataType::FixedSizeBinary(2), "0aff"),
            ("2024-02-29", DataType::Date32, "2024-02-29"),
            ("12:30:00.500000000", DataType::Time32(TimeUnit::Millisecond), "12:30:00.500"),
            ("2024-02-29 12:00:00.120", stamp(TimeUnit::Millisecond), "2024-02-29T12:00:00.120"),
            ("2024-02-29T12:00:00Z", stamp(TimeUnit::Second), "2024-02-29T12:00:00"),
            ("inf", DataType::Float32, "inf"),
            ("-7", DataType::Duration(TimeUnit::Second), "-PT7S"),
        ] {
            assert_eq!(read(text, data_type.clone()).as_deref(), Ok(value), "{text} {data_type}");
        }
    }

    #[test]
    fn what_would_be_cut_off_is_refused() {
        let stamp = |unit| DataType::Timestamp(unit, None);
        for (text, data_type) in [
            ("1.5", DataType::Int32),
            ("128", DataType::Int8),
            ("", DataType::Int32),
            ("1.25", DataType::Decimal128(4, 1)),
            ("1000", DataType::Decimal128(4, 1)),
            ("1e39", DataType::Float32),
            ("1e400", DataType::Float64),
            ("abc", DataType::Binary),
            ("0aff", DataType::FixedSizeBinary(3)),
            ("2024-02-30", DataType::Date32),
            ("2024-02-29 10:00:00", DataType::Date32),
            ("12:30:00.0001", DataType::Time32(TimeUnit::Millisecond)),
            ("2024-02-29 12:00:00.1", stamp(TimeUnit::Second)),
            ("2024-02-29 12:00:00+02:00", stamp(TimeUnit::Second)),
            ("maybe", DataType::Boolean),
        ] {
            let refused = read(text, data_type.clone()).unwrap_err();
            assert!(refused.starts_with(&format!("'{text}' cannot be kept as ")), "{text} {data_type}: {refused}");
        }
    }
}
