//! Bounds of a file's columns, taken from its row groups.
//!
//! A column is left out when its type has no statistics, and has no bounds when any row group has none (NaN, or NULLs
//! only). Bounds are never narrower than the values.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{SortOptions, sort_to_indices};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, Schema, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde_json::Value;

use crate::records::ColumnBounds;

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

/// The least or greatest of the row groups' values; `None` when any of them is unknown.
fn extreme(values: &ArrayRef, greatest: bool) -> Option<Value> {
    if values.is_empty() || values.null_count() > 0 {
        return None;
    }
    let options = SortOptions { descending: greatest, nulls_first: false };
    let first = sort_to_indices(values, Some(options), Some(1)).ok()?;
    to_json(values, first.value(0) as usize)
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
