//! Types for the columns of a CSV, from its first rows: those of the new table.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::source::Source;
use super::text;

/// Rows that are looked at.
const ROWS: usize = 10_000;

/// Digits that a DOUBLE keeps of every number.
const FLOAT_DIGITS: usize = 15;

/// The types of a CSV's columns: the first of them that has all values of the first rows, else TEXT.
pub(super) fn types(source: Source) -> Result<SchemaRef, String> {
    let mut first: Vec<RecordBatch> = Vec::new();
    let mut rows = 0;
    for batch in source.batches {
        let batch = batch?;
        rows += batch.num_rows();
        first.push(batch);
        if rows >= ROWS {
            break;
        }
    }
    let rows = concat_batches(&source.schema, &first).map_err(|error| error.to_string())?;
    let fields = rows.schema_ref().fields().iter().zip(rows.columns());
    let fields = fields.map(|(field, texts)| Field::new(field.name(), type_of(texts.as_string()), true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

fn type_of(texts: &StringArray) -> DataType {
    let candidates = [
        (DataType::Int64, is_number as fn(&str) -> bool),
        (DataType::Float64, |text| is_number(text) && digits(text) <= FLOAT_DIGITS),
        (DataType::Boolean, is_truth),
        (DataType::Date32, |_| true),
        (DataType::Timestamp(TimeUnit::Microsecond, None), |text| text.contains(':')),
    ];
    let has_all = |(data_type, looks_right): &(DataType, fn(&str) -> bool)| {
        texts.iter().flatten().all(looks_right) && text::parse(texts, &Field::new("", data_type.clone(), true)).is_ok()
    };
    let is_empty = texts.null_count() == texts.len();
    let found = candidates.into_iter().find(|candidate| !is_empty && has_all(candidate));
    found.map_or(DataType::Utf8, |(data_type, _)| data_type)
}

/// Whether a text is a number and not a code: 007 would lose its zeros.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let whole = unsigned.split(['.', 'e', 'E']).next().unwrap_or_default();
    !whole.is_empty() && (whole == "0" || !whole.starts_with('0'))
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn is_truth(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_type_that_has_all_values() {
        let stamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        for (texts, expected) in [
            (vec![Some("1"), None, Some("-20")], DataType::Int64),
            (vec![Some("1"), Some("2.5")], DataType::Float64),
            (vec![Some("007"), Some("1")], DataType::Utf8),
            (vec![Some("0.12345678901234567")], DataType::Utf8),
            (vec![Some("99999999999999999999")], DataType::Utf8),
            (vec![Some("true"), Some("FALSE")], DataType::Boolean),
            (vec![Some("yes")], DataType::Utf8),
            (vec![Some("2024-02-29")], DataType::Date32),
            (vec![Some("2024-02-29 10:00:00")], stamp),
            (vec![Some("2024-02-29"), Some("soon")], DataType::Utf8),
            (vec![None, None], DataType::Utf8),
            (vec![], DataType::Utf8),
        ] {
            assert_eq!(type_of(&StringArray::from(texts.clone())), expected, "{texts:?}");
        }
    }
}
