//! Rows that were written with older versions of a table's columns, read as those of the newest.
//!
//! Invariants:
//! 1. A column is found by its id, whatever it is called. Rows that were written before it was there have its initial value.
//! 2. A type only becomes wider: no value changes, and none is refused.
//! 3. Nothing that is stored changes: rows and files keep the version they were written with until they are written anew.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{cast, interleave, take};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use arrow::error::ArrowError;

use crate::catalog::TableRecord;
use crate::error::Result;
use crate::row_codec::{self, CodecError, RowLayout, decode_rows, encode_rows, peek};
use crate::schema::{Column, TableSchema, from_hex};

/// Whether every value of a type is also one of another, with the same meaning.
pub fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, Date32, Decimal128, Decimal256, Float16, Float32, Float64, LargeBinary, LargeUtf8, Timestamp, Utf8,
    };
    if let (Some(from), Some(to)) = (Integer::of(from), Integer::of(to)) {
        return match (from.signed, to.signed) {
            (true, false) => false,
            (false, true) => from.bits < to.bits,
            _ => from.bits <= to.bits,
        };
    }
    match (from, to) {
        (Float16, Float32 | Float64) | (Float32, Float64) | (Utf8, LargeUtf8) | (Binary, LargeBinary) => true,
        // Of shorter units 64 bits have too few for every day.
        (Date32, Timestamp(unit, None)) => matches!(unit, TimeUnit::Second | TimeUnit::Millisecond),
        (Decimal128(precision, scale), Decimal128(to_precision, to_scale) | Decimal256(to_precision, to_scale)) => {
            has_room(i16::from(*precision) - i16::from(*scale), i16::from(*scale), *to_precision, *to_scale)
        }
        (Decimal256(precision, scale), Decimal256(to_precision, to_scale)) => {
            has_room(i16::from(*precision) - i16::from(*scale), i16::from(*scale), *to_precision, *to_scale)
        }
        (from, to) => Integer::of(from).is_some_and(|integer| match to {
            Float32 => integer.bits <= 16,
            Float64 => integer.bits <= 32,
            Decimal128(precision, scale) | Decimal256(precision, scale) => {
                has_room(integer.digits(), 0, *precision, *scale)
            }
            _ => false,
        }),
    }
}

/// Whether a decimal type has so many digits before and after the point.
fn has_room(before: i16, after: i16, precision: u8, scale: i8) -> bool {
    i16::from(precision) - i16::from(scale) >= before && i16::from(scale) >= after
}

struct Integer {
    signed: bool,
    bits: u32,
}

impl Integer {
    fn of(data_type: &DataType) -> Option<Self> {
        let (signed, bits) = match data_type {
            DataType::Int8 => (true, 8),
            DataType::Int16 => (true, 16),
            DataType::Int32 => (true, 32),
            DataType::Int64 => (true, 64),
            DataType::UInt8 => (false, 8),
            DataType::UInt16 => (false, 16),
            DataType::UInt32 => (false, 32),
            DataType::UInt64 => (false, 64),
            _ => return None,
        };
        Some(Self { signed, bits })
    }

    /// Decimal digits of its greatest value.
    fn digits(&self) -> i16 {
        match (self.bits, self.signed) {
            (8, _) => 3,
            (16, _) => 5,
            (32, _) => 10,
            (_, true) => 19,
            (_, false) => 20,
        }
    }
}

impl Column {
    /// What it is in rows that were written before it was there: one value of its type, NULL unless it was given another.
    pub fn initial_value(&self) -> Result<ArrayRef> {
        let Some(hex) = &self.initial else { return Ok(new_null_array(&self.data_type, 1)) };
        let damaged = || CodecError::CorruptValue { column: self.name.clone(), reason: "not hex".into() };
        let row = from_hex(hex).ok_or_else(damaged)?;
        Ok(decode_rows(&self.alone()?, &[&row], &[0])?.remove(0))
    }

    /// The same with this value there, which is one of its type.
    pub fn with_initial(mut self, value: &ArrayRef) -> Result<Self> {
        let row = encode_rows(&self.alone()?, 1, std::slice::from_ref(value))?;
        let hex = || row.get(0).iter().map(|byte| format!("{byte:02x}")).collect();
        self.initial = (!value.is_null(0)).then(hex);
        Ok(self)
    }

    /// The same with a type that its own widens to.
    pub fn widened(self, to: &DataType) -> Result<Self> {
        let initial = cast(&self.initial_value()?, to)?;
        Self { data_type: to.clone(), ..self }.with_initial(&initial)
    }

    /// Rows of it and nothing else.
    fn alone(&self) -> Result<RowLayout, CodecError> {
        RowLayout::new(0, &Fields::from(vec![Field::new(&self.name, self.data_type.clone(), true)]))
    }
}

/// How the columns of one version of a table become those of another.
#[derive(Debug)]
pub struct Evolution {
    /// By place in the other.
    columns: Vec<Evolved>,
}

#[derive(Debug)]
struct Evolved {
    data_type: DataType,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The column at this place.
    Place(usize),
    /// This one value in every row.
    Value(ArrayRef),
}

impl Evolution {
    /// Errors: an initial value is damaged.
    pub fn between(from: &TableSchema, to: &TableSchema) -> Result<Self> {
        let evolved = |column: &Column| -> Result<Evolved> {
            let source = match from.columns.iter().position(|old| old.id == column.id) {
                Some(place) => Source::Place(place),
                None => Source::Value(column.initial_value()?),
            };
            Ok(Evolved { data_type: column.data_type.clone(), source })
        };
        Ok(Self { columns: to.columns.iter().map(evolved).collect::<Result<_>>()? })
    }

    /// Where the column at a place comes from; `None` = nowhere.
    fn place(&self, column: usize) -> Option<usize> {
        match self.columns[column].source {
            Source::Place(place) => Some(place),
            Source::Value(_) => None,
        }
    }

    /// The column at a place. `read` gives a column of the older version by its place; `deleted` says which of the rows are tombstones,
    /// which have no values.
    pub fn column(
        &self,
        column: usize,
        rows: usize,
        read: impl FnOnce(usize) -> ArrayRef,
        deleted: impl Fn(usize) -> bool,
    ) -> Result<ArrayRef, ArrowError> {
        let Evolved { data_type, source } = &self.columns[column];
        match source {
            Source::Place(place) => {
                let read = read(*place);
                if read.data_type() == data_type { Ok(read) } else { cast(&read, data_type) }
            }
            Source::Value(value) if value.is_null(0) => Ok(new_null_array(data_type, rows)),
            Source::Value(value) => {
                let of_row = |row| (!deleted(row)).then_some(0);
                take(value, &(0..rows).map(of_row).collect::<UInt32Array>(), None)
            }
        }
    }
}

/// Reads stored rows of every version of a table's columns as those of the newest.
#[derive(Debug)]
pub struct RowReader {
    table: Arc<TableRecord>,
    newest: RowLayout,
    /// By version; made when a row of one is met.
    older: OnceLock<BTreeMap<u32, Older>>,
}

#[derive(Debug)]
struct Older {
    layout: RowLayout,
    evolution: Evolution,
}

impl RowReader {
    /// Errors: a column's type is not one of stored rows.
    pub fn new(table: Arc<TableRecord>) -> Result<Self, CodecError> {
        let newest = layout(table.schema())?;
        Ok(Self { table, newest, older: OnceLock::new() })
    }

    /// The table.
    pub fn table(&self) -> &Arc<TableRecord> {
        &self.table
    }

    /// The number of user columns.
    pub fn column_count(&self) -> usize {
        self.newest.column_count()
    }

    /// The columns of `projection`, in its order. Tombstones among them are NULL in every column.
    pub fn decode(&self, rows: &[&[u8]], projection: &[usize]) -> Result<Vec<ArrayRef>> {
        if self.table.schemas.len() == 1 {
            return Ok(decode_rows(&self.newest, rows, projection)?);
        }
        let mut versions: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, row) in rows.iter().enumerate() {
            versions.entry(peek(row)?.schema_version).or_default().push(at);
        }
        if versions.len() <= 1 {
            let version = versions.keys().next().copied().unwrap_or_else(|| self.newest.schema_version());
            return self.decode_version(version, rows, projection);
        }
        let mut parts = Vec::with_capacity(versions.len());
        let mut places = vec![(0, 0); rows.len()];
        for (part, (version, at)) in versions.into_iter().enumerate() {
            at.iter().enumerate().for_each(|(place, at)| places[*at] = (part, place));
            let rows: Vec<&[u8]> = at.into_iter().map(|at| rows[at]).collect();
            parts.push(self.decode_version(version, &rows, projection)?);
        }
        let together = |column: usize| {
            let parts: Vec<&dyn Array> = parts.iter().map(|columns| columns[column].as_ref()).collect();
            Ok(interleave(&parts, &places)?)
        };
        (0..projection.len()).map(together).collect()
    }

    /// The same of rows of one version.
    fn decode_version(&self, version: u32, rows: &[&[u8]], projection: &[usize]) -> Result<Vec<ArrayRef>> {
        if version == self.newest.schema_version() {
            return Ok(decode_rows(&self.newest, rows, projection)?);
        }
        let unknown = || CodecError::SchemaVersion { expected: self.newest.schema_version(), found: version };
        let Older { layout, evolution } = self.older()?.get(&version).ok_or_else(unknown)?;
        let places: Vec<usize> = projection.iter().filter_map(|column| evolution.place(*column)).collect();
        let mut read = decode_rows(layout, rows, &places)?.into_iter();
        let none = || new_null_array(&DataType::Null, rows.len());
        let deleted = rows.iter().map(|row| peek(row).map(|head| head.tombstone)).collect::<Result<Vec<_>, _>>()?;
        let mut column = |column: &usize| {
            let read = |_| read.next().unwrap_or_else(none);
            Ok(evolution.column(*column, rows.len(), read, |row| deleted[row])?)
        };
        projection.iter().map(&mut column).collect()
    }

    fn older(&self) -> Result<&BTreeMap<u32, Older>> {
        if let Some(known) = self.older.get() {
            return Ok(known);
        }
        let newest = self.table.schema();
        let older = |schema: &TableSchema| -> Result<(u32, Older)> {
            let evolution = Evolution::between(schema, newest)?;
            Ok((schema.version, Older { layout: layout(schema)?, evolution }))
        };
        let all = self.table.schemas.iter().map(older).collect::<Result<_>>()?;
        Ok(self.older.get_or_init(|| all))
    }
}

fn layout(schema: &TableSchema) -> Result<RowLayout, CodecError> {
    row_codec::RowLayout::new(schema.version, &schema.user_fields().into())
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Float64Type, Int32Type, Int64Type};

    use super::*;
    use crate::test_table::table_record;

    fn int(id: u32, name: &str) -> Column {
        Column::new(id, name, DataType::Int32, true)
    }

    fn table(versions: Vec<Vec<Column>>) -> Arc<TableRecord> {
        let versions = versions.into_iter().zip(1..);
        let schemas = versions.map(|(columns, version)| TableSchema { version, columns }).collect();
        Arc::new(TableRecord { schemas, ..table_record() })
    }

    fn rows(table: &TableRecord, version: usize, columns: &[ArrayRef]) -> Vec<Vec<u8>> {
        let rows = encode_rows(&layout(&table.schemas[version - 1]).unwrap(), columns[0].len(), columns).unwrap();
        rows.iter().map(<[u8]>::to_vec).collect()
    }

    fn ints(values: &[i32]) -> ArrayRef {
        Arc::new(Int32Array::from(values.to_vec()))
    }

    #[test]
    fn rows_of_all_versions_are_read_as_the_newest() {
        let seven: ArrayRef = Arc::new(Int32Array::from(vec![7]));
        let added = Column::new(18, "c", DataType::Int32, false).with_initial(&seven).unwrap();
        let table = table(vec![
            vec![int(16, "a"), int(17, "b")],
            // b goes, another b comes, a has another name, c has an initial value.
            vec![int(16, "x"), added.clone(), int(19, "b")],
            vec![
                int(16, "x").widened(&DataType::Int64).unwrap(),
                added.widened(&DataType::Float64).unwrap(),
                int(19, "b"),
            ],
        ]);
        let stored = [
            rows(
                &table,
                3,
                &[Arc::new(Int64Array::from(vec![1 << 40])), Arc::new(Float64Array::from(vec![0.5])), ints(&[3])],
            ),
            rows(&table, 1, &[ints(&[10, 11]), ints(&[-1, -2])]),
            rows(&table, 2, &[ints(&[20]), ints(&[21]), ints(&[22])]),
            rows(&table, 1, &[ints(&[12]), ints(&[-3])]),
        ]
        .concat();
        let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
        let reader = RowReader::new(Arc::clone(&table)).unwrap();
        let read = reader.decode(&stored, &[2, 0, 1]).unwrap();
        let b: Vec<Option<i32>> = read[0].as_primitive::<Int32Type>().iter().collect();
        assert_eq!(b, [Some(3), None, None, Some(22), None]);
        assert_eq!(read[1].as_primitive::<Int64Type>().values(), &[1 << 40, 10, 11, 20, 12]);
        assert_eq!(read[2].as_primitive::<Float64Type>().values(), &[0.5, 7.0, 7.0, 21.0, 7.0]);
        // Of one older version alone, and of none.
        assert_eq!(reader.decode(&stored[1..3], &[0]).unwrap()[0].as_primitive::<Int64Type>().values(), &[10, 11]);
        assert_eq!(reader.decode(&[], &[0, 1, 2]).unwrap()[1].len(), 0);
    }

    #[test]
    fn a_version_that_the_table_never_had_is_an_error() {
        let table = table(vec![vec![int(16, "a")], vec![int(16, "b")]]);
        let mut stored = rows(&table, 1, &[ints(&[1])]);
        stored[0][1] = 9;
        let read = RowReader::new(table).unwrap().decode(&[&stored[0]], &[0]);
        assert!(read.unwrap_err().to_string().contains('9'));
    }

    #[test]
    fn an_initial_value_survives_json_and_wider_types() {
        let text = Column::new(16, "s", DataType::Utf8, true);
        let text = text.with_initial(&(Arc::new(StringArray::from(vec!["né"])) as ArrayRef)).unwrap();
        let read: Column = serde_json::from_str(&serde_json::to_string(&text).unwrap()).unwrap();
        assert_eq!(read, text);
        assert_eq!(read.initial_value().unwrap().as_string::<i32>().value(0), "né");
        let wide = int(17, "n").with_initial(&ints(&[5])).unwrap().widened(&DataType::Decimal128(12, 2)).unwrap();
        assert_eq!(wide.initial_value().unwrap().as_any().downcast_ref::<Decimal128Array>().unwrap().value(0), 500);
        assert_eq!(int(18, "z").initial_value().unwrap().null_count(), 1);
    }

    /// What arrow's cast, which refuses what does not fit, says of the extremes of every type.
    #[test]
    fn types_widen_where_every_value_comes_back() {
        use DataType::*;
        let all = [
            Int8,
            Int16,
            Int32,
            Int64,
            UInt8,
            UInt16,
            UInt32,
            UInt64,
            Float32,
            Float64,
            Decimal128(5, 2),
            Decimal128(10, 0),
            Decimal128(19, 0),
            Decimal128(20, 2),
            Decimal256(40, 5),
        ];
        let extremes = |data_type: &DataType| -> ArrayRef {
            let texts = match data_type {
                Int8 => ["-128", "127"],
                Int16 => ["-32768", "32767"],
                Int32 => ["-2147483648", "2147483647"],
                Int64 => ["-9223372036854775808", "9223372036854775807"],
                UInt8 => ["0", "255"],
                UInt16 => ["0", "65535"],
                UInt32 => ["0", "4294967295"],
                UInt64 => ["0", "18446744073709551615"],
                Float32 => ["-3.4028235e38", "0.1"],
                Float64 => ["-1.7976931348623157e308", "0.1"],
                Decimal128(5, 2) => ["-999.99", "999.99"],
                Decimal128(10, 0) => ["-9999999999", "9999999999"],
                Decimal128(19, 0) => ["-9999999999999999999", "9999999999999999999"],
                Decimal128(20, 2) => ["-999999999999999999.99", "999999999999999999.99"],
                _ => ["-99999999999999999999999999999999999.99999", "99999999999999999999999999999999999.99999"],
            };
            cast(&(Arc::new(StringArray::from(texts.to_vec())) as ArrayRef), data_type).unwrap()
        };
        for from in &all {
            for to in all.iter().filter(|to| *to != from) {
                let values = extremes(from);
                let there = cast(&values, to).unwrap();
                let same = there.null_count() == 0 && *cast(&there, from).unwrap() == *values;
                if widens(from, to) {
                    assert!(same, "{from} to {to} changes {values:?} to {there:?}");
                }
            }
        }
        let wider = [
            (Int8, Int64),
            (UInt32, Int64),
            (Int32, Float64),
            (Int64, Decimal128(19, 0)),
            (Date32, Timestamp(TimeUnit::Millisecond, None)),
        ];
        wider.iter().for_each(|(from, to)| assert!(widens(from, to), "{from} to {to}"));
        let narrower = [
            (Int64, Float64),
            (Int32, Float32),
            (Int64, UInt64),
            (UInt64, Int64),
            (Utf8, Int32),
            (Float64, Float32),
            (Decimal128(10, 2), Decimal128(10, 4)),
            (Timestamp(TimeUnit::Microsecond, None), Date32),
            (Int64, Utf8),
            (Date32, Timestamp(TimeUnit::Microsecond, None)),
        ];
        narrower.iter().for_each(|(from, to)| assert!(!widens(from, to), "{from} to {to}"));
    }
}
