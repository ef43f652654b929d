//! Bounds of a file's columns, taken from its row groups.
//!
//! A column is left out when its type has no statistics, and has no bounds when a row group with values has none (NaN).
//! Bounds are never narrower than the values, and are left out when they could not be read back as they are.

use std::collections::BTreeMap;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array,
};
use arrow::compute::{CastOptions, SortOptions, cast_with_options, filter, sort_to_indices};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, Schema, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde_json::Value;

use crate::records::ColumnBounds;
use crate::schema::from_hex;

/// The bounds by column name.
pub(crate) fn column_bounds(metadata: &ParquetMetaData, schema: &Schema) -> BTreeMap<String, ColumnBounds> {
    let parquet_schema = metadata.file_metadata().schema_descr();
    let of_column = |name: &str| -> Option<ColumnBounds> {
        let converter = StatisticsConverter::try_new(name, schema, parquet_schema).ok()?;
        let groups = metadata.row_groups();
        let mins = converter.row_group_mins(groups).ok()?;
        let maxes = converter.row_group_maxes(groups).ok()?;
        let nulls = converter.row_group_null_counts(groups).ok()?;
        if nulls.null_count() > 0 {
            return None;
        }
        // A row group of NULLs has no bounds and needs none.
        let with_values: BooleanArray =
            groups.iter().zip(nulls.values()).map(|(group, nulls)| Some(group.num_rows() as u64 != *nulls)).collect();
        let (mins, maxes) = (filter(&mins, &with_values).ok()?, filter(&maxes, &with_values).ok()?);
        let exact = converter.row_group_is_min_value_exact(groups).ok()?.false_count() == 0
            && converter.row_group_is_max_value_exact(groups).ok()?.false_count() == 0;
        Some(ColumnBounds {
            min: extreme(&mins, false),
            max: extreme(&maxes, true),
            null_count: nulls.values().iter().sum(),
            exact,
        })
    };
    schema.fields().iter().filter_map(|field| Some((field.name().clone(), of_column(field.name())?))).collect()
}

/// The bounds of a column that has this one value in every row.
pub(crate) fn constant_bounds(value: &ArrayRef) -> ColumnBounds {
    ColumnBounds { min: extreme(value, false), max: extreme(value, true), null_count: 0, exact: true }
}

/// The least or greatest of the row groups' values; `None` when any of them is unknown.
fn extreme(values: &ArrayRef, greatest: bool) -> Option<Value> {
    if values.is_empty() || values.null_count() > 0 {
        return None;
    }
    let options = SortOptions { descending: greatest, nulls_first: false };
    let first = sort_to_indices(values, Some(options), Some(1)).ok()?;
    let at = first.value(0) as usize;
    let json = to_json(values, at)?;
    let again = from_json(&[Some(&json)], values.data_type())?;
    (again.to_data() == values.slice(at, 1).to_data()).then_some(json)
}

/// Integers, floats and booleans as JSON's own; everything else as Arrow prints it.
fn to_json(values: &ArrayRef, at: usize) -> Option<Value> {
    let data_type = values.data_type();
    if data_type.is_signed_integer() {
        let value = arrow::compute::cast(&values.slice(at, 1), &DataType::Int64).ok()?;
        return Some(value.as_primitive::<Int64Type>().value(0).into());
    }
    if data_type.is_unsigned_integer() {
        let value = arrow::compute::cast(&values.slice(at, 1), &DataType::UInt64).ok()?;
        return Some(value.as_primitive::<UInt64Type>().value(0).into());
    }
    match data_type {
        DataType::Float32 => {
            serde_json::Number::from_f64(values.as_primitive::<Float32Type>().value(at).into()).map(Value::Number)
        }
        DataType::Float64 => {
            serde_json::Number::from_f64(values.as_primitive::<Float64Type>().value(at)).map(Value::Number)
        }
        DataType::Boolean => Some(values.as_boolean().value(at).into()),
        _ => {
            let formatter = ArrayFormatter::try_new(values, &FormatOptions::default()).ok()?;
            Some(formatter.value(at).try_to_string().ok()?.into())
        }
    }
}

/// Bounds as values of a column's type, NULL where there is none or it cannot be read; `None` for a type that bounds are
/// not kept of.
pub(crate) fn from_json(bounds: &[Option<&Value>], data_type: &DataType) -> Option<ArrayRef> {
    let texts = || bounds.iter().map(|bound| bound.and_then(Value::as_str));
    let plain: ArrayRef = match data_type {
        signed if signed.is_signed_integer() => {
            Arc::new(bounds.iter().map(|bound| bound.and_then(Value::as_i64)).collect::<Int64Array>())
        }
        unsigned if unsigned.is_unsigned_integer() => {
            Arc::new(bounds.iter().map(|bound| bound.and_then(Value::as_u64)).collect::<UInt64Array>())
        }
        DataType::Float32 | DataType::Float64 => {
            Arc::new(bounds.iter().map(|bound| bound.and_then(Value::as_f64)).collect::<Float64Array>())
        }
        DataType::Boolean => {
            Arc::new(bounds.iter().map(|bound| bound.and_then(Value::as_bool)).collect::<BooleanArray>())
        }
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            let bytes: Vec<Option<Vec<u8>>> = texts().map(|text| text.and_then(from_hex)).collect();
            Arc::new(bytes.iter().map(|bytes| bytes.as_deref()).collect::<BinaryArray>())
        }
        nested if nested.is_nested() => return None,
        _ => Arc::new(texts().collect::<StringArray>()),
    };
    let options = CastOptions { safe: true, ..CastOptions::default() };
    cast_with_options(&plain, data_type, &options).ok()
}
