//! The batch files of a scope, and the bounds of their columns as arrays: one value a file, for pruning among thousands.
//!
//! Invariants:
//! 1. Bounds are those of the column with this id and type. Of a file written before the column was there, or while it had
//!    another type, nothing is known.
//! 2. What is unknown is NULL. Bounds that contradict each other are unknown.
//! 3. An array is made when it is first asked for, and kept as long as the records are the same.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, UInt64Array, new_null_array};
use arrow::compute::kernels::cmp::gt;
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use parking_lot::Mutex;
use serde_json::Value;

use crate::bounds::from_json;
use crate::catalog::TableRecord;
use crate::records::{BatchRecord, ColumnBounds};
use crate::system_columns::{
    DELETED, DELETED_COLUMN_ID, FIRST_USER_COLUMN_ID, ID, ID_COLUMN_ID, UPDATED, UPDATED_COLUMN_ID,
};

/// The batch files that queries of a scope read, by number.
#[derive(Debug, Default)]
pub struct FileIndex {
    records: Vec<BatchRecord>,
    bounds: Mutex<HashMap<(u32, DataType), Arc<FileBounds>>>,
}

/// The bounds of one column, one value a file.
#[derive(Debug)]
pub struct FileBounds {
    /// At most every value.
    pub min: ArrayRef,
    /// At least every value.
    pub max: ArrayRef,
    /// Number of NULLs.
    pub null_counts: ArrayRef,
}

impl Deref for FileIndex {
    type Target = [BatchRecord];

    fn deref(&self) -> &[BatchRecord] {
        &self.records
    }
}

impl FileIndex {
    /// The index of these records.
    pub fn new(records: Vec<BatchRecord>) -> Self {
        Self { records, bounds: Mutex::default() }
    }

    /// The bounds of a column.
    pub fn bounds(&self, table: &TableRecord, column: u32, data_type: &DataType) -> Arc<FileBounds> {
        let key = (column, data_type.clone());
        if let Some(known) = self.bounds.lock().get(&key) {
            return Arc::clone(known);
        }
        let bounds = Arc::new(FileBounds::of(&self.records, table, column, data_type));
        self.bounds.lock().insert(key, Arc::clone(&bounds));
        bounds
    }

    /// Rows of each file.
    pub fn row_counts(&self) -> ArrayRef {
        Arc::new(self.records.iter().map(|record| Some(record.row_count)).collect::<UInt64Array>())
    }
}

/// The name that a column had in the file of a record; `None` when it was not there or had another type.
pub fn name_in_file<'a>(
    table: &'a TableRecord,
    record: &BatchRecord,
    column: u32,
    data_type: &DataType,
) -> Option<&'a str> {
    match column {
        ID_COLUMN_ID => Some(ID),
        UPDATED_COLUMN_ID => Some(UPDATED),
        DELETED_COLUMN_ID => Some(DELETED),
        ..FIRST_USER_COLUMN_ID => None,
        _ => {
            let schema = table.schema_of(record.schema_version)?;
            let found = schema.columns.iter().find(|known| known.id == column)?;
            (found.data_type == *data_type).then_some(found.name.as_str())
        }
    }
}

impl FileBounds {
    fn of(records: &[BatchRecord], table: &TableRecord, column: u32, data_type: &DataType) -> Self {
        let known: Vec<Option<&ColumnBounds>> = records
            .iter()
            .map(|record| record.column_min_max.get(name_in_file(table, record, column, data_type)?))
            .collect();
        let values = |bound: fn(&ColumnBounds) -> Option<&Value>| -> ArrayRef {
            let bounds: Vec<Option<&Value>> = known.iter().map(|known| known.and_then(bound)).collect();
            from_json(&bounds, data_type).unwrap_or_else(|| new_null_array(data_type, bounds.len()))
        };
        let min = with_zero(values(|known| known.min.as_ref()), -0.0);
        let max = with_zero(values(|known| known.max.as_ref()), 0.0);
        let null_counts = known.iter().map(|known| known.map(|known| known.null_count)).collect::<UInt64Array>();
        let (min, max) = contradictions_removed(min, max, data_type);
        Self { min, max, null_counts: Arc::new(null_counts) }
    }
}

/// Writers may store either zero for both.
fn with_zero(values: ArrayRef, zero: f64) -> ArrayRef {
    match values.data_type() {
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>().iter();
            Arc::new(values.map(|v| v.map(|v| if v == 0.0 { zero } else { v })).collect::<Float64Array>())
        }
        DataType::Float32 => {
            let (values, zero) = (values.as_primitive::<Float32Type>().iter(), zero as f32);
            Arc::new(values.map(|v| v.map(|v| if v == 0.0 { zero } else { v })).collect::<Float32Array>())
        }
        _ => values,
    }
}

fn contradictions_removed(min: ArrayRef, max: ArrayRef, data_type: &DataType) -> (ArrayRef, ArrayRef) {
    let unknown = || (new_null_array(data_type, min.len()), new_null_array(data_type, max.len()));
    let Ok(inverted) = gt(&min, &max) else { return unknown() };
    match (nullif(&min, &inverted), nullif(&max, &inverted)) {
        (Ok(min), Ok(max)) => (min, max),
        _ => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::{Int32Type, TimeUnit};
    use serde_json::json;

    use super::*;
    use crate::schema::{Column, TableSchema};
    use crate::test_table::table_record;

    fn column(id: u32, name: &str, data_type: DataType) -> Column {
        Column::new(id, name, data_type, true)
    }

    fn table(schemas: Vec<Vec<Column>>) -> TableRecord {
        let schemas = schemas.into_iter().zip(1..).map(|(columns, version)| TableSchema { version, columns });
        TableRecord { schemas: schemas.collect(), ..table_record() }
    }

    fn record(schema_version: u32, name: &str, min: Value, max: Value) -> BatchRecord {
        let known = |value: Value| (!value.is_null()).then_some(value);
        let bounds = ColumnBounds { min: known(min), max: known(max), null_count: 3, exact: false };
        BatchRecord {
            column_min_max: BTreeMap::from([(name.to_owned(), bounds)]),
            row_count: 7,
            schema_version,
            ..crate::records::tests::record(1, "f", 1)
        }
    }

    #[test]
    fn a_column_is_found_by_its_id_and_type() {
        let int = || DataType::Int32;
        let table = table(vec![
            vec![column(16, "a", int()), column(17, "b", int())],
            // `a` was renamed, `b` dropped and added again, `c` changed its type.
            vec![column(16, "x", int()), column(18, "b", int()), column(19, "c", DataType::Int64)],
        ]);
        let files = FileIndex::new(vec![
            record(1, "a", json!(1), json!(2)),
            record(2, "x", json!(3), json!(4)),
            record(1, "b", json!(5), json!(6)),
            record(2, "b", json!(7), json!(8)),
            record(9, "x", json!(9), json!(9)),
        ]);
        let mins = |id: u32, data_type: DataType| -> Vec<Option<i32>> {
            files.bounds(&table, id, &data_type).min.as_primitive::<Int32Type>().iter().collect()
        };
        assert_eq!(mins(16, int()), [Some(1), Some(3), None, None, None]);
        assert_eq!(mins(18, int()), [None, None, None, Some(7), None]);
        assert_eq!(files.bounds(&table, 19, &int()).min.null_count(), 5);
    }

    #[test]
    fn what_cannot_be_trusted_is_unknown() {
        let table = table(vec![vec![column(16, "a", DataType::Int32)]]);
        let files = FileIndex::new(vec![
            record(1, "a", json!(5), json!(1)),
            record(1, "a", json!("x"), json!(1)),
            record(1, "a", json!(i64::MAX), json!(1)),
            record(1, "a", Value::Null, json!(1)),
            record(1, "other", json!(1), json!(1)),
        ]);
        let bounds = files.bounds(&table, 16, &DataType::Int32);
        assert_eq!(bounds.min.null_count(), 5);
        assert!(bounds.max.is_null(0) && bounds.max.is_valid(1));
        assert!(bounds.null_counts.is_valid(0) && bounds.null_counts.is_null(4));
    }

    #[test]
    fn bounds_of_every_kind_are_read_back() {
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (data_type, text, expected) in [
            (DataType::Float64, json!(0.0), "-0.0"),
            (DataType::Decimal128(10, 2), json!("-1.50"), "-1.50"),
            (DataType::Date32, json!("2024-02-29"), "2024-02-29"),
            (
                DataType::Timestamp(TimeUnit::Nanosecond, None),
                json!("2024-01-01T00:00:00.000000001"),
                "2024-01-01T00:00:00.000000001",
            ),
            (zoned, json!("2024-01-01T01:00:00+01:00"), "2024-01-01T00:00:00Z"),
            (DataType::Binary, json!("00ff"), "00ff"),
            (DataType::Utf8, json!("ä"), "ä"),
        ] {
            let table = table(vec![vec![column(16, "a", data_type.clone())]]);
            let files = FileIndex::new(vec![record(1, "a", text.clone(), text)]);
            let bounds = files.bounds(&table, 16, &data_type);
            let shown = arrow::util::display::array_value_to_string(&bounds.min, 0).unwrap();
            assert_eq!(shown, expected, "{data_type}");
        }
    }
}
