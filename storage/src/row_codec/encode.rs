//! Arrow columns into stored rows.

use super::layout::{Body, Column, Form, Place, RowLayout, set_null};
use super::{CodecError, RowHead};
use arrow::array::{Array, ArrayRef, AsArray, downcast_primitive_array};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use std::ops::Range;

/// Encoded rows in one buffer, in the order of the input.
#[derive(Debug, Default)]
pub struct EncodedRows {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl EncodedRows {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of row `i`. Panics when there are not that many rows.
    pub fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.data[start..self.ends[i]]
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// The bytes of all rows together.
    pub fn size_bytes(&self) -> usize {
        self.data.len()
    }
}

impl<'a> FromIterator<&'a [u8]> for EncodedRows {
    /// Rows that are encoded already.
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(rows: I) -> Self {
        let mut all = Self { data: Vec::new(), ends: Vec::new() };
        for row in rows {
            all.data.extend_from_slice(row);
            all.ends.push(all.data.len());
        }
        all
    }
}

/// Encodes `row_count` rows, given as one array per column of the layout. The count is an argument because a table may
/// have no user columns at all.
pub fn encode_rows(layout: &RowLayout, row_count: usize, columns: &[ArrayRef]) -> Result<EncodedRows, CodecError> {
    let inputs = row_inputs(layout, row_count, columns)?;
    let head = RowHead { schema_version: layout.schema_version, tombstone: false }.to_bytes();
    let mut rows = EncodedRows {
        data: Vec::with_capacity(row_count.saturating_mul(head.len() + layout.body.data_at)),
        ends: Vec::with_capacity(row_count),
    };
    for row in 0..row_count {
        rows.data.extend_from_slice(&head);
        write_body(&layout.body, &inputs, row, &mut rows.data)?;
        rows.ends.push(rows.data.len());
    }
    Ok(rows)
}

fn row_inputs<'a>(
    layout: &'a RowLayout,
    row_count: usize,
    arrays: &'a [ArrayRef],
) -> Result<Vec<Input<'a>>, CodecError> {
    let columns = &layout.body.columns;
    if arrays.len() != columns.len() {
        return Err(CodecError::ColumnCount { expected: columns.len(), found: arrays.len() });
    }
    columns.iter().zip(arrays).map(|(column, array)| row_input(column, row_count, array)).collect()
}

fn row_input<'a>(column: &'a Column, row_count: usize, array: &'a ArrayRef) -> Result<Input<'a>, CodecError> {
    if !same_type(&column.data_type, array.data_type()) {
        return Err(CodecError::ColumnType {
            column: column.path.clone(),
            expected: Box::new(column.data_type.clone()),
            found: Box::new(array.data_type().clone()),
        });
    }
    if array.len() != row_count {
        return Err(CodecError::ColumnLength { column: column.path.clone(), expected: row_count, found: array.len() });
    }
    Ok(Input::new(column, array.as_ref()))
}

/// Whether values of both types are the same bytes. The names and nullability inside nested types differ between
/// producers and say nothing about the values; an actual NULL is checked when it is met.
fn same_type(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) | (DataType::LargeList(a), DataType::LargeList(b)) => {
            same_type(a.data_type(), b.data_type())
        }
        (DataType::FixedSizeList(a, n), DataType::FixedSizeList(b, m)) => {
            n == m && same_type(a.data_type(), b.data_type())
        }
        (DataType::Map(a, _), DataType::Map(b, _)) => same_type(a.data_type(), b.data_type()),
        (DataType::Struct(a), DataType::Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_type(a.data_type(), b.data_type()))
        }
        _ => a == b,
    }
}

/// An array with its types resolved, so that writing a value costs no downcast.
pub(super) struct Input<'a> {
    column: &'a Column,
    nulls: Option<&'a NullBuffer>,
    pub(super) values: Values<'a>,
}

pub(super) enum Values<'a> {
    Null,
    Boolean(&'a BooleanBuffer),
    Fixed(usize, &'a [u8]),
    Bytes(Offsets<'a>, &'a [u8]),
    List(Offsets<'a>, Box<Input<'a>>),
    FixedSizeList(usize, Box<Input<'a>>),
    Struct(&'a Body, Vec<Input<'a>>),
}

#[derive(Clone, Copy)]
pub(super) enum Offsets<'a> {
    Narrow(&'a [i32]),
    Wide(&'a [i64]),
}

impl Offsets<'_> {
    pub(super) fn range(self, i: usize) -> Range<usize> {
        match self {
            Self::Narrow(offsets) => offsets[i] as usize..offsets[i + 1] as usize,
            Self::Wide(offsets) => offsets[i] as usize..offsets[i + 1] as usize,
        }
    }
}

impl<'a> Input<'a> {
    /// Resolves an array whose type is known to be the column's. Array accessors are used, not `ArrayData`: they have
    /// applied the offset of a sliced array.
    fn new(column: &'a Column, array: &'a dyn Array) -> Self {
        let values = match &column.form {
            Form::Null => Values::Null,
            Form::Boolean => Values::Boolean(array.as_boolean().values()),
            Form::Fixed(width) => Values::Fixed(*width, fixed_bytes(array)),
            Form::Bytes => byte_values(array),
            Form::List(element) => list_values(element, array),
            Form::FixedSizeList(element, len) => {
                let values = array.as_fixed_size_list().values();
                Values::FixedSizeList(*len, Box::new(Input::new(element, values.as_ref())))
            }
            Form::Struct(body) => {
                let fields = array.as_struct().columns();
                let fields = body.columns.iter().zip(fields).map(|(column, array)| Input::new(column, array.as_ref()));
                Values::Struct(body, fields.collect())
            }
        };
        Self { column, nulls: array.nulls(), values }
    }

    /// Whether value `i` is NULL, which is an error where the column is declared without.
    pub(super) fn is_null(&self, i: usize) -> Result<bool, CodecError> {
        let null = self.nulls.is_some_and(|nulls| nulls.is_null(i)) || matches!(self.values, Values::Null);
        if null && !self.column.nullable {
            return Err(CodecError::UnexpectedNull { column: self.column.path.clone() });
        }
        Ok(null)
    }

    pub(super) fn may_have_nulls(&self) -> bool {
        self.nulls.is_some() || matches!(self.values, Values::Null)
    }

    /// Writes value `i` of a fixed-width column over `out`'s zeros.
    fn write_fixed(&self, i: usize, out: &mut [u8]) {
        match &self.values {
            Values::Boolean(bits) => out[0] = u8::from(bits.value(i)),
            // Copies of a width the compiler knows are single moves; the others are calls.
            Values::Fixed(8, bytes) => out[..8].copy_from_slice(&bytes[i * 8..][..8]),
            Values::Fixed(4, bytes) => out[..4].copy_from_slice(&bytes[i * 4..][..4]),
            Values::Fixed(width, bytes) => out[..*width].copy_from_slice(&bytes[i * width..][..*width]),
            _ => {}
        }
    }

    /// `len` as an end inside a value or a row.
    pub(super) fn end(&self, len: usize) -> Result<[u8; 4], CodecError> {
        let end = u32::try_from(len).map_err(|_| self.column.too_large("more than 4 GiB in one row"))?;
        Ok(end.to_le_bytes())
    }
}

/// Writes one row, or one struct value, behind what `out` holds.
pub(super) fn write_body(body: &Body, fields: &[Input<'_>], i: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let base = out.len();
    let data_at = base + body.data_at;
    out.resize(data_at, 0);
    for (c, (field, place)) in fields.iter().zip(&body.places).enumerate() {
        let null = field.is_null(i)?;
        if null {
            set_null(&mut out[base..], c);
        }
        match *place {
            Place::Fixed { at } if !null => field.write_fixed(i, &mut out[base + at..data_at]),
            Place::Fixed { .. } => {}
            Place::Variable { end_at, .. } => {
                if !null {
                    field.write_variable(i, out)?;
                }
                let end = field.end(out.len() - data_at)?;
                out[base + end_at..][..4].copy_from_slice(&end);
            }
        }
    }
    Ok(())
}

fn fixed_bytes(array: &dyn Array) -> &[u8] {
    downcast_primitive_array!(
        array => array.values().inner().as_slice(),
        _ => array.as_fixed_size_binary().value_data(),
    )
}

fn byte_values(array: &dyn Array) -> Values<'_> {
    match array.data_type() {
        DataType::Utf8 => Values::Bytes(narrow(array.as_string().offsets()), array.as_string::<i32>().value_data()),
        DataType::LargeUtf8 => Values::Bytes(wide(array.as_string().offsets()), array.as_string::<i64>().value_data()),
        DataType::Binary => Values::Bytes(narrow(array.as_binary().offsets()), array.as_binary::<i32>().value_data()),
        _ => Values::Bytes(wide(array.as_binary().offsets()), array.as_binary::<i64>().value_data()),
    }
}

fn list_values<'a>(element: &'a Column, array: &'a dyn Array) -> Values<'a> {
    let (offsets, values): (_, &dyn Array) = match array.data_type() {
        DataType::List(_) => (narrow(array.as_list().offsets()), array.as_list::<i32>().values()),
        DataType::LargeList(_) => (wide(array.as_list().offsets()), array.as_list::<i64>().values()),
        _ => (narrow(array.as_map().offsets()), array.as_map().entries()),
    };
    Values::List(offsets, Box::new(Input::new(element, values)))
}

fn narrow(offsets: &OffsetBuffer<i32>) -> Offsets<'_> {
    Offsets::Narrow(offsets)
}

fn wide(offsets: &OffsetBuffer<i64>) -> Offsets<'_> {
    Offsets::Wide(offsets)
}
