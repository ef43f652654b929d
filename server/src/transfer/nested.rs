//! Lists, structs and maps in CSV: JSON in a field.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Field, FieldRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::writer::{EncoderOptions, make_encoder};
use serde_json::Value;

use super::coerce::{Misfit, misfit};

/// The values that JSON texts are.
pub(super) fn parse(texts: &StringArray, to: &Field) -> Result<ArrayRef, Misfit> {
    if let Some(values) = decoded(texts, to) {
        return Ok(values);
    }
    let row = (0..texts.len()).find(|row| decoded(&texts.slice(*row, 1), to).is_none()).unwrap_or(0);
    Err(misfit(texts, row, to))
}

/// `None` unless each text is one value of the type.
fn decoded(texts: &StringArray, to: &Field) -> Option<ArrayRef> {
    let field: FieldRef = Arc::new(Field::new(to.name(), to.data_type().clone(), true));
    let mut json = Vec::new();
    for text in texts {
        json.extend_from_slice(text.unwrap_or("null").as_bytes());
        json.push(b'\n');
    }
    // One more than there should be, to see whether there is one.
    let reader = ReaderBuilder::new_with_field(field).with_batch_size(texts.len() + 1).with_strict_mode(true);
    let batches: Vec<RecordBatch> = reader.build(json.as_slice()).ok()?.collect::<Result<_, _>>().ok()?;
    let values = match batches.as_slice() {
        [batch] => Arc::clone(batch.columns().first()?),
        [] => arrow::array::new_empty_array(to.data_type()),
        _ => return None,
    };
    let is_each = values.len() == texts.len() && (0..texts.len()).all(|row| values.is_null(row) == texts.is_null(row));
    (is_each && numbers_are_kept(texts, &values, to)).then_some(values)
}

/// The reader makes 1 of 1.5 where an integer is wanted.
fn numbers_are_kept(texts: &StringArray, values: &ArrayRef, to: &Field) -> bool {
    let Ok(written) = written(values, to) else { return false };
    let of = |text: &str| serde_json::from_str::<Value>(text).ok();
    let mut pairs = texts.iter().flatten().zip(written.iter().flatten());
    pairs.all(|(given, kept)| of(given).zip(of(kept)).is_some_and(|(given, kept)| agree(&given, &kept)))
}

/// Whether what stands at the same place is the same number, if it is one.
fn agree(given: &Value, kept: &Value) -> bool {
    match (given, kept) {
        (Value::Number(given), Value::Number(kept)) => given == kept || given.as_f64() == kept.as_f64(),
        (Value::Array(given), Value::Array(kept)) => given.iter().zip(kept).all(|(given, kept)| agree(given, kept)),
        (Value::Object(given), Value::Object(kept)) => {
            given.iter().all(|(key, given)| kept.get(key).is_some_and(|kept| agree(given, kept)))
        }
        _ => true,
    }
}

/// The texts that [`parse`] makes these values of. An error names the first row that has none: JSON has no NaN, for one.
pub(super) fn texts(values: &ArrayRef, field: &Field) -> Result<ArrayRef, Misfit> {
    let unwritable = |row, why: &str| Misfit { row, why: format!("it cannot be written as JSON in CSV{why}") };
    let written = written(values, field).map_err(|error| unwritable(0, &format!(": {error}")))?;
    let is_same = |written: &StringArray, values: &ArrayRef| {
        decoded(written, field).is_some_and(|read| read.as_ref() == values.as_ref())
    };
    if !is_same(&written, values) {
        let differs = |row: &usize| !is_same(&written.slice(*row, 1), &values.slice(*row, 1));
        return Err(unwritable((0..values.len()).find(differs).unwrap_or(0), ""));
    }
    Ok(Arc::new(written))
}

fn written(values: &ArrayRef, field: &Field) -> Result<StringArray, ArrowError> {
    let field: FieldRef = Arc::new(field.clone());
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, values.as_ref(), &options)?;
    let mut texts = Vec::with_capacity(values.len());
    for row in 0..values.len() {
        let mut json = Vec::new();
        if encoder.is_null(row) {
            texts.push(None);
            continue;
        }
        encoder.encode(row, &mut json);
        texts.push(Some(String::from_utf8(json).map_err(|error| ArrowError::ExternalError(error.into()))?));
    }
    Ok(StringArray::from(texts))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, ListArray, StructArray};
    use arrow::datatypes::{DataType, Int32Type};

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![None]),
        ]);
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a\n\"b\"", "", "ü", "x"]));
        let item = Arc::new(Field::new("l", lists.data_type().clone(), true));
        let structs = StructArray::from(vec![
            (item, Arc::new(lists) as ArrayRef),
            (Arc::new(Field::new("n", DataType::Utf8, true)), names),
        ]);
        let field = Field::new("s", structs.data_type().clone(), true);
        let values: ArrayRef = Arc::new(structs);
        let written = texts(&values, &field).unwrap();
        assert_eq!(parse(arrow::array::AsArray::as_string(&written), &field).unwrap().as_ref(), values.as_ref());
    }

    #[test]
    fn what_json_has_not_is_named() {
        let x: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN]));
        let structs = StructArray::from(vec![(Arc::new(Field::new("x", DataType::Float64, true)), x)]);
        let field = Field::new("s", structs.data_type().clone(), true);
        assert_eq!(texts(&(Arc::new(structs) as ArrayRef), &field).unwrap_err().row, 1);
    }

    #[test]
    fn other_texts_are_refused() {
        let list = Field::new("l", DataType::new_list(DataType::Int32, true), true);
        for wrong in ["[1", "[1] [2]", "{}", "1", "[\"a\"]", "null", "", "[1.5]"] {
            let texts = StringArray::from(vec![Some("[1]"), None, Some(wrong)]);
            assert_eq!(parse(&texts, &list).map_err(|misfit| misfit.row), Err(2), "{wrong}");
        }
    }
}
