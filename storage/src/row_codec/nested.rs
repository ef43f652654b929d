//! Values inside values: lists, maps and structs, in both directions.
//!
//! Decoding is column by column at every level: the values of all rows are cut into the values one level deeper, which
//! become one array, and so on down. Cutting checks every count against the bytes that are there before it allocates.

use super::CodecError;
use super::decode::{byte_array, cells_nulls, fixed_array, null_buffer};
use super::encode::{Input, Values, write_body};
use super::layout::{Body, Column, Form, has_spare_bits, is_null, read_end, set_null};
use arrow::array::{
    ArrayRef, AsArray, BooleanBufferBuilder, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    StructArray,
};
use arrow::buffer::{MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Fields};
use std::ops::Range;
use std::sync::Arc;

impl Input<'_> {
    /// Appends value `i` of a variable column, which is not NULL.
    pub(super) fn write_variable(&self, i: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match &self.values {
            Values::Bytes(offsets, data) => out.extend_from_slice(&data[offsets.range(i)]),
            Values::List(offsets, element) => {
                let range = offsets.range(i);
                out.extend_from_slice(&self.end(range.len())?);
                element.write_sequence(range, out)?;
            }
            Values::FixedSizeList(len, element) => element.write_sequence(i * len..(i + 1) * len, out)?,
            Values::Struct(body, fields) => write_body(body, fields, i, out)?,
            Values::Null | Values::Boolean(_) | Values::Fixed(..) => {}
        }
        Ok(())
    }

    fn write_sequence(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let nulls_at = out.len();
        out.resize(nulls_at + range.len().div_ceil(8), 0);
        if self.may_have_nulls() {
            for (k, i) in range.clone().enumerate() {
                if self.is_null(i)? {
                    set_null(&mut out[nulls_at..], k);
                }
            }
        }
        match &self.values {
            Values::Null => {}
            Values::Boolean(bits) => {
                for i in range {
                    out.push(u8::from(!self.is_null(i)? && bits.value(i)));
                }
            }
            Values::Fixed(width, bytes) => self.write_fixed_sequence(range, *width, bytes, out)?,
            _ => self.write_variable_sequence(range, out)?,
        }
        Ok(())
    }

    fn write_fixed_sequence(
        &self,
        range: Range<usize>,
        width: usize,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let at = out.len();
        out.extend_from_slice(&bytes[range.start * width..range.end * width]);
        if self.may_have_nulls() {
            for (k, i) in range.enumerate() {
                if self.is_null(i)? {
                    out[at + k * width..][..width].fill(0);
                }
            }
        }
        Ok(())
    }

    fn write_variable_sequence(&self, range: Range<usize>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let ends_at = out.len();
        let data_at = ends_at + 4 * range.len();
        out.resize(data_at, 0);
        for (k, i) in range.enumerate() {
            if !self.is_null(i)? {
                self.write_variable(i, out)?;
            }
            let end = self.end(out.len() - data_at)?;
            out[ends_at + 4 * k..][..4].copy_from_slice(&end);
        }
        Ok(())
    }
}

/// The stored bytes of one variable value; `None` is NULL.
pub(super) type Cell<'a> = Option<&'a [u8]>;

/// Builds the array of a variable column.
pub(super) fn cells_array(column: &Column, cells: &[Cell<'_>]) -> Result<ArrayRef, CodecError> {
    match (&column.form, &column.data_type) {
        (Form::List(element), DataType::LargeList(_)) => list_array::<i64>(column, element, cells),
        (Form::List(element), DataType::Map(..)) => map_array(column, element, cells),
        (Form::List(element), _) => list_array::<i32>(column, element, cells),
        (Form::FixedSizeList(element, len), _) => fixed_size_list_array(column, element, *len, cells),
        (Form::Struct(body), DataType::Struct(fields)) => struct_array(column, body, fields, cells),
        _ => byte_array(column, cells),
    }
}

fn list_array<O: OffsetSizeTrait>(
    column: &Column,
    element: &Column,
    cells: &[Cell<'_>],
) -> Result<ArrayRef, CodecError> {
    let (offsets, sequences) = cut_lists::<O>(column, element, cells)?;
    let values = sequences_array(element, &sequences)?;
    let (DataType::List(field) | DataType::LargeList(field)) = &column.data_type else {
        return Err(column.corrupt("not a list"));
    };
    let list = GenericListArray::try_new(Arc::clone(field), offsets, values, cells_nulls(cells));
    Ok(Arc::new(list.map_err(|e| column.corrupt(e))?))
}

fn map_array(column: &Column, element: &Column, cells: &[Cell<'_>]) -> Result<ArrayRef, CodecError> {
    let (offsets, sequences) = cut_lists::<i32>(column, element, cells)?;
    let entries = sequences_array(element, &sequences)?;
    let DataType::Map(field, ordered) = &column.data_type else {
        return Err(column.corrupt("not a map"));
    };
    let entries = entries.as_struct().clone();
    let map = MapArray::try_new(Arc::clone(field), offsets, entries, cells_nulls(cells), *ordered);
    Ok(Arc::new(map.map_err(|e| column.corrupt(e))?))
}

fn fixed_size_list_array(
    column: &Column,
    element: &Column,
    len: usize,
    cells: &[Cell<'_>],
) -> Result<ArrayRef, CodecError> {
    let DataType::FixedSizeList(field, size) = &column.data_type else {
        return Err(column.corrupt("not a fixed-size list"));
    };
    let sequences = cells
        .iter()
        .map(|cell| cell.map_or(Ok(Sequence::Null(len)), |bytes| Sequence::cut(element, len, bytes)))
        .collect::<Result<Vec<_>, _>>()?;
    let values = sequences_array(element, &sequences)?;
    let list =
        FixedSizeListArray::try_new_with_length(Arc::clone(field), *size, values, cells_nulls(cells), cells.len());
    Ok(Arc::new(list.map_err(|e| column.corrupt(e))?))
}

fn struct_array(column: &Column, body: &Body, fields: &Fields, cells: &[Cell<'_>]) -> Result<ArrayRef, CodecError> {
    let bodies = cells
        .iter()
        .map(|cell| match cell {
            Some(bytes) => body.check(bytes).map(|()| *bytes).map_err(|reason| column.corrupt(reason)),
            None => Ok(body.all_null.as_slice()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let children = (0..fields.len()).map(|c| body.column_array(c, &bodies)).collect::<Result<_, _>>()?;
    let array = StructArray::try_new_with_length(fields.clone(), children, cells_nulls(cells), cells.len());
    Ok(Arc::new(array.map_err(|e| column.corrupt(e))?))
}

fn cut_lists<'a, O: OffsetSizeTrait>(
    column: &Column,
    element: &Column,
    cells: &[Cell<'a>],
) -> Result<(OffsetBuffer<O>, Vec<Sequence<'a>>), CodecError> {
    let mut sequences = Vec::with_capacity(cells.len());
    let mut offsets = Vec::with_capacity(cells.len() + 1);
    offsets.push(O::zero());
    let mut total = 0;
    for cell in cells {
        if let Some(bytes) = cell {
            let (count, rest) = bytes.split_first_chunk().ok_or_else(|| column.corrupt("shorter than its count"))?;
            let sequence = Sequence::cut(element, u32::from_le_bytes(*count) as usize, rest)?;
            total += sequence.len();
            sequences.push(sequence);
        }
        offsets.push(O::from_usize(total).ok_or_else(|| element.too_large("more than 2^31 elements in one array"))?);
    }
    Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), sequences))
}

/// The elements of one list.
enum Sequence<'a> {
    /// Their null bitmap, and their values or ends and data, of the right lengths.
    Stored { len: usize, nulls: &'a [u8], rest: &'a [u8] },
    /// The elements that a NULL fixed-size list has all the same.
    Null(usize),
}

impl<'a> Sequence<'a> {
    fn cut(element: &Column, len: usize, bytes: &'a [u8]) -> Result<Self, CodecError> {
        let (nulls, rest) = bytes
            .split_at_checked(len.div_ceil(8))
            .ok_or_else(|| element.corrupt("shorter than the NULLs of its count"))?;
        if has_spare_bits(nulls, len) {
            return Err(element.corrupt("spare bits set among its NULLs"));
        }
        let right_length = match element.form.fixed_width() {
            Some(width) => len.checked_mul(width) == Some(rest.len()),
            None => len.checked_mul(4).and_then(|ends| rest.len().checked_sub(ends)).is_some_and(|data| {
                let last_end = if len == 0 { 0 } else { read_end(rest, 4 * (len - 1)) };
                last_end == data
            }),
        };
        if !right_length {
            return Err(element.corrupt("another length than its count and ends"));
        }
        Ok(Self::Stored { len, nulls, rest })
    }

    fn len(&self) -> usize {
        match self {
            Self::Stored { len, .. } | Self::Null(len) => *len,
        }
    }

    fn append_fixed(&self, width: usize, out: &mut MutableBuffer) {
        match self {
            Self::Stored { rest, .. } => out.extend_from_slice(rest),
            Self::Null(len) => out.extend_zeros(len * width),
        }
    }

    fn append_cells(&self, element: &Column, out: &mut Vec<Cell<'a>>) -> Result<(), CodecError> {
        let &Self::Stored { len, nulls, rest } = self else {
            out.extend((0..self.len()).map(|_| None));
            return Ok(());
        };
        let (ends, data) = rest.split_at(4 * len);
        let mut begin = 0;
        for k in 0..len {
            let end = read_end(ends, 4 * k);
            out.push(cut_cell(element, is_null(nulls, k), data, begin..end)?);
            begin = end;
        }
        Ok(())
    }
}

/// The bytes of one variable value in the data around it.
pub(super) fn cut_cell<'a>(
    column: &Column,
    null: bool,
    data: &'a [u8],
    range: Range<usize>,
) -> Result<Cell<'a>, CodecError> {
    let bytes = data.get(range).ok_or_else(|| column.corrupt("its end lies before its begin or behind the data"))?;
    match (null, bytes.is_empty()) {
        (false, _) => Ok(Some(bytes)),
        (true, true) => Ok(None),
        (true, false) => Err(column.corrupt("data under a NULL")),
    }
}

/// Builds the array of the elements of all lists, end to end.
fn sequences_array(element: &Column, sequences: &[Sequence<'_>]) -> Result<ArrayRef, CodecError> {
    let len = sequences.iter().map(Sequence::len).sum();
    if let Some(width) = element.form.fixed_width() {
        let mut values = MutableBuffer::with_capacity(len * width);
        sequences.iter().for_each(|sequence| sequence.append_fixed(width, &mut values));
        return fixed_array(element, len, values.into(), sequences_nulls(len, sequences));
    }
    let mut cells = Vec::with_capacity(len);
    sequences.iter().try_for_each(|sequence| sequence.append_cells(element, &mut cells))?;
    cells_array(element, &cells)
}

fn sequences_nulls(len: usize, sequences: &[Sequence<'_>]) -> Option<NullBuffer> {
    let mut nulls = BooleanBufferBuilder::new(len);
    for sequence in sequences {
        match sequence {
            Sequence::Stored { len, nulls: stored, .. } => nulls.append_packed_range(0..*len, stored),
            Sequence::Null(len) => nulls.append_n(*len, true),
        }
    }
    null_buffer(!&nulls.finish())
}
