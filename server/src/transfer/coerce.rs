//! Values of a file as those of a table's column: nothing is lost, or the row is named where it would be.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{nested, text};
use crate::shell::sql_type;

/// Casts make NULL of what they cannot cast.
const SAFE: CastOptions<'static> = CastOptions { safe: true, format_options: FormatOptions::new() };

/// A value that does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    /// Its place in the batch.
    pub(super) row: usize,
    pub(super) why: String,
}

/// Whether values of a type may become those of another at all. CSV is nothing but texts, and has more meanings for them.
pub(super) fn is_assignable(from: &DataType, to: &DataType, is_csv: bool) -> bool {
    use DataType::{
        Binary, Boolean, Date32, Date64, Dictionary, Duration, LargeBinary, LargeList, LargeUtf8, List, Map, Null,
        RunEndEncoded, Struct, Time32, Time64, Timestamp, Utf8, Utf8View,
    };
    let is_utc = |zone: &Option<Arc<str>>| zone.as_ref().is_none_or(|zone| ["UTC", "+00:00", "Z"].contains(&&**zone));
    match (from, to) {
        (from, to) if from == to => true,
        (Null, _) => true,
        (Dictionary(_, values), to) => is_assignable(values, to, is_csv),
        (RunEndEncoded(_, values), to) => is_assignable(values.data_type(), to, is_csv),
        (Utf8 | LargeUtf8 | Utf8View, to) => match to {
            to if to.is_nested() || to.is_binary() || matches!(to, Duration(_)) => is_csv,
            DataType::Interval(_) => false,
            _ => true,
        },
        (from, Binary | LargeBinary | DataType::FixedSizeBinary(_)) => from.is_binary() && can_cast_types(from, to),
        (from, Utf8 | LargeUtf8) => !from.is_nested() && can_cast_types(from, to),
        (Boolean, _) | (_, Boolean) => false,
        (List(from) | LargeList(from), List(to) | LargeList(to)) => {
            is_assignable(from.data_type(), to.data_type(), false)
        }
        // Arrow would match the fields of a struct by their places.
        (Struct(from), Struct(to)) => {
            from.len() == to.len()
                && from.iter().zip(to).all(|(from, to)| {
                    from.name() == to.name() && is_assignable(from.data_type(), to.data_type(), false)
                })
        }
        (Map(from, _), Map(to, _)) => is_assignable(from.data_type(), to.data_type(), false),
        (from, to) if from.is_nested() || to.is_nested() => {
            from.is_nested() && to.is_nested() && can_cast_types(from, to)
        }
        (Timestamp(_, zone), Timestamp(_, None) | Date32 | Date64) => is_utc(zone),
        (Timestamp(..) | Date32 | Date64, Timestamp(..) | Date32 | Date64) => true,
        (Time32(_) | Time64(_), Time32(_) | Time64(_)) | (Duration(_), Duration(_)) => true,
        (from, to) => from.is_numeric() && to.is_numeric() && can_cast_types(from, to),
    }
}

/// A column as one of the table. [`is_assignable`] has said that it may be.
pub(super) fn coerce(column: &ArrayRef, to: &Field, is_csv: bool) -> Result<ArrayRef, Misfit> {
    let column = plain(column, to)?;
    let declared = to.data_type();
    match column.data_type() {
        given if given == declared => Ok(column),
        DataType::Null => Ok(new_null_array(declared, column.len())),
        DataType::Utf8 => match declared {
            declared if declared.is_nested() && is_csv => nested::parse(column.as_string(), to),
            _ => text::parse(column.as_string(), to),
        },
        // The shortest text of a float is what was meant, not the binary fraction beside it.
        DataType::Float64 if declared.is_decimal() => {
            let texts = column.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| value.to_string()));
            text::parse(&texts.collect::<StringArray>(), to)
        }
        DataType::Float32 if declared.is_decimal() => {
            let texts = column.as_primitive::<Float32Type>().iter().map(|value| value.map(|value| value.to_string()));
            text::parse(&texts.collect::<StringArray>(), to)
        }
        _ => checked(&column, to),
    }
}

/// The same values without dictionaries, run ends and views.
fn plain(column: &ArrayRef, to: &Field) -> Result<ArrayRef, Misfit> {
    let plain = match column.data_type() {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        DataType::Utf8View | DataType::LargeUtf8 if column.data_type() != to.data_type() => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        _ => return Ok(Arc::clone(column)),
    };
    let cast = cast(column, &plain).map_err(|error| Misfit { row: 0, why: error.to_string() })?;
    // A dictionary may be one of views.
    plain_again(cast, to)
}

fn plain_again(column: ArrayRef, to: &Field) -> Result<ArrayRef, Misfit> {
    match column.data_type() {
        DataType::Utf8View | DataType::BinaryView => plain(&column, to),
        _ => Ok(column),
    }
}

/// Casts, and casts back to see that nothing was lost.
fn checked(column: &ArrayRef, to: &Field) -> Result<ArrayRef, Misfit> {
    let there_and_back = |column: &ArrayRef| {
        let there = cast_with_options(column, to.data_type(), &SAFE).ok()?;
        let back = cast_with_options(&there, column.data_type(), &SAFE).ok()?;
        (back.as_ref() == column.as_ref()).then_some(there)
    };
    if let Some(cast) = there_and_back(column) {
        return Ok(cast);
    }
    let row = (0..column.len()).find(|row| there_and_back(&column.slice(*row, 1)).is_none()).unwrap_or(0);
    Err(misfit(column, row, to))
}

/// What is said of a value that its column cannot hold.
pub(super) fn misfit(column: &dyn Array, row: usize, to: &Field) -> Misfit {
    let options = FormatOptions::new().with_display_error(true);
    let value = ArrayFormatter::try_new(column, &options).map(|values| values.value(row).to_string());
    Misfit { row, why: format!("'{}' cannot be kept as {}", value.unwrap_or_default(), sql_type(to)) }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        DictionaryArray, Float64Array, Int32Array, Int64Array, ListArray, TimestampNanosecondArray, UInt64Array,
    };
    use arrow::datatypes::{Int32Type, TimeUnit};

    use super::*;

    fn to(data_type: DataType) -> Field {
        Field::new("c", data_type, true)
    }

    fn array(values: impl Array + 'static) -> ArrayRef {
        Arc::new(values)
    }

    fn row_of(values: ArrayRef, data_type: DataType) -> Option<usize> {
        assert!(is_assignable(values.data_type(), &data_type, false), "{} {data_type}", values.data_type());
        coerce(&values, &to(data_type), false).err().map(|misfit| misfit.row)
    }

    #[test]
    fn numbers_that_fit_are_kept_and_others_named() {
        for (values, data_type, row) in [
            (array(Int64Array::from(vec![Some(1), None, Some(300)])), DataType::Int16, None),
            (array(Int64Array::from(vec![Some(1), None, Some(300)])), DataType::Int8, Some(2)),
            (array(UInt64Array::from(vec![1, u64::MAX])), DataType::Int64, Some(1)),
            (array(Int64Array::from(vec![1 << 53, (1 << 53) + 1])), DataType::Float64, Some(1)),
            (array(Float64Array::from(vec![1.0, f64::NAN, 0.5])), DataType::Float32, None),
            (array(Float64Array::from(vec![0.5, 0.1])), DataType::Float32, Some(1)),
            (array(Float64Array::from(vec![2.0, 2.5])), DataType::Int32, Some(1)),
            (array(Float64Array::from(vec![1.25, 1.005])), DataType::Decimal128(10, 2), Some(1)),
            (array(Float64Array::from(vec![1.005, 1e300])), DataType::Decimal128(10, 3), Some(1)),
            (array(Float64Array::from(vec![f64::INFINITY])), DataType::Decimal128(10, 3), Some(0)),
            (array(Int64Array::from(vec![99, 100])), DataType::Decimal128(4, 2), Some(1)),
            (array(Int64Array::from(vec![7])), DataType::Utf8, None),
        ] {
            assert_eq!(row_of(values.clone(), data_type.clone()), row, "{values:?} {data_type}");
        }
    }

    #[test]
    fn times_lose_nothing() {
        let times = array(TimestampNanosecondArray::from(vec![1_000, 1_001]));
        let stamp = |unit| DataType::Timestamp(unit, None);
        assert_eq!(row_of(times.clone(), stamp(TimeUnit::Microsecond)), Some(1));
        assert_eq!(row_of(times.slice(0, 1), stamp(TimeUnit::Microsecond)), None);
        assert_eq!(row_of(times, DataType::Date32), Some(0));
        let berlin = DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into()));
        assert!(!is_assignable(&berlin, &stamp(TimeUnit::Second), false));
        assert!(is_assignable(&berlin, &DataType::Timestamp(TimeUnit::Second, Some("UTC".into())), false));
        assert!(!is_assignable(&DataType::Int64, &stamp(TimeUnit::Second), false));
    }

    #[test]
    fn dictionaries_lists_and_structs() {
        let words: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
        let texts = coerce(&array(words), &to(DataType::Utf8), false).unwrap();
        assert_eq!(texts.as_string::<i32>(), &StringArray::from(vec![Some("a"), None, Some("a")]));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), Some(vec![Some(300)])]);
        let of = |data_type| DataType::List(Arc::new(Field::new("element", data_type, true)));
        assert_eq!(row_of(array(lists.clone()), of(DataType::Int64)), None);
        assert_eq!(row_of(array(lists), of(DataType::Int8)), Some(1));
        let point = |names: [&str; 2]| {
            DataType::Struct(names.map(|name| Field::new(name, DataType::Int32, true)).to_vec().into())
        };
        assert!(is_assignable(&point(["x", "y"]), &point(["x", "y"]), false));
        assert!(!is_assignable(&point(["x", "y"]), &point(["y", "x"]), false));
        assert!(!is_assignable(&DataType::Int32, &of(DataType::Int32), false));
        assert!(!is_assignable(&DataType::Utf8, &of(DataType::Int32), false));
        assert!(!is_assignable(&DataType::Utf8, &DataType::Binary, false));
    }

    #[test]
    fn nothing_is_anything() {
        let nothing = new_null_array(&DataType::Null, 2);
        let kept = coerce(&nothing, &to(DataType::Int32), false).unwrap();
        assert_eq!(kept.as_ref(), &Int32Array::from(vec![None, None]) as &dyn Array);
    }
}
