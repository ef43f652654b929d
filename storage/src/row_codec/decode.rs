//! Stored rows into Arrow columns.

use super::layout::{Body, Column, Form, Place, RowLayout, is_null, read_end};
use super::nested::{Cell, cells_array, cut_cell};
use super::{CodecError, HEAD_LEN, peek};
use arrow::array::{ArrayData, ArrayRef, BooleanArray, FixedSizeBinaryArray, GenericByteArray, NullArray, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, BinaryType, ByteArrayType, DataType, LargeBinaryType, LargeUtf8Type, Utf8Type,
};
use std::sync::Arc;

/// Decodes the columns of `projection`, in its order, from rows of the layout's schema version. Tombstones among them
/// are NULL in every column. Columns outside the projection are not looked at.
pub fn decode_rows(layout: &RowLayout, values: &[&[u8]], projection: &[usize]) -> Result<Vec<ArrayRef>, CodecError> {
    let columns = layout.column_count();
    if let Some(&index) = projection.iter().find(|&&index| index >= columns) {
        return Err(CodecError::Projection { index, columns });
    }
    let bodies = values.iter().map(|value| row_body(layout, value)).collect::<Result<Vec<_>, _>>()?;
    projection.iter().map(|&index| layout.body.column_array(index, &bodies)).collect()
}

fn row_body<'a>(layout: &'a RowLayout, value: &'a [u8]) -> Result<&'a [u8], CodecError> {
    let head = peek(value)?;
    if head.schema_version != layout.schema_version {
        return Err(CodecError::SchemaVersion { expected: layout.schema_version, found: head.schema_version });
    }
    if head.tombstone {
        return Ok(&layout.body.all_null);
    }
    let body = &value[HEAD_LEN..];
    layout.body.check(body).map_err(|reason| CodecError::CorruptRow { reason })?;
    Ok(body)
}

impl Body {
    /// Builds the array of column `c` from bodies that have passed `check`.
    pub(super) fn column_array(&self, c: usize, bodies: &[&[u8]]) -> Result<ArrayRef, CodecError> {
        let column = &self.columns[c];
        match self.places[c] {
            Place::Fixed { at } => {
                let width = column.form.fixed_width().unwrap_or(0);
                let nulls = null_buffer(BooleanBuffer::collect_bool(bodies.len(), |i| !is_null(bodies[i], c)));
                fixed_array(column, bodies.len(), gather(bodies, at, width), nulls)
            }
            Place::Variable { end_at, begin_at } => {
                let cells = bodies.iter().map(|body| {
                    let begin = begin_at.map_or(0, |at| read_end(body, at));
                    cut_cell(column, is_null(body, c), &body[self.data_at..], begin..read_end(body, end_at))
                });
                cells_array(column, &cells.collect::<Result<Vec<_>, _>>()?)
            }
        }
    }
}

/// The `width` bytes at the same offset of every body.
fn gather(bodies: &[&[u8]], at: usize, width: usize) -> Buffer {
    match width {
        1 => gather_width::<1>(bodies, at),
        2 => gather_width::<2>(bodies, at),
        4 => gather_width::<4>(bodies, at),
        8 => gather_width::<8>(bodies, at),
        16 => gather_width::<16>(bodies, at),
        32 => gather_width::<32>(bodies, at),
        _ => {
            let mut out = MutableBuffer::with_capacity(bodies.len() * width);
            bodies.iter().for_each(|body| out.extend_from_slice(&body[at..at + width]));
            out.into()
        }
    }
}

/// `gather` for a width the compiler knows, so that a copy is a single move.
fn gather_width<const W: usize>(bodies: &[&[u8]], at: usize) -> Buffer {
    // Arrow's own buffer rather than a Vec of bytes: it is aligned for every native type.
    let mut out = MutableBuffer::from_len_zeroed(bodies.len() * W);
    for (slot, body) in out.as_slice_mut().chunks_exact_mut(W).zip(bodies) {
        slot.copy_from_slice(&body[at..at + W]);
    }
    out.into()
}

/// The array of `len` fixed-width values from their bytes end to end.
pub(super) fn fixed_array(
    column: &Column,
    len: usize,
    values: Buffer,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, CodecError> {
    match (&column.form, &column.data_type) {
        (Form::Null, _) => Ok(Arc::new(NullArray::new(len))),
        (Form::Boolean, _) => {
            if values.iter().any(|&byte| byte > 1) {
                return Err(column.corrupt("a boolean other than 0 and 1"));
            }
            let bits = BooleanBuffer::collect_bool(len, |i| values[i] == 1);
            Ok(Arc::new(BooleanArray::new(bits, nulls)))
        }
        (_, DataType::FixedSizeBinary(width)) => {
            let array = FixedSizeBinaryArray::try_new_with_len(*width, values, nulls, len);
            Ok(Arc::new(array.map_err(|e| column.corrupt(e))?))
        }
        (_, data_type) => {
            let data = ArrayData::builder(data_type.clone()).len(len).add_buffer(values).nulls(nulls).build();
            Ok(make_array(data.map_err(|e| column.corrupt(e))?))
        }
    }
}

/// The array of strings or binaries.
pub(super) fn byte_array(column: &Column, cells: &[Cell<'_>]) -> Result<ArrayRef, CodecError> {
    match column.data_type {
        DataType::Utf8 => typed_byte_array::<Utf8Type>(column, cells),
        DataType::LargeUtf8 => typed_byte_array::<LargeUtf8Type>(column, cells),
        DataType::Binary => typed_byte_array::<BinaryType>(column, cells),
        _ => typed_byte_array::<LargeBinaryType>(column, cells),
    }
}

fn typed_byte_array<T: ByteArrayType>(column: &Column, cells: &[Cell<'_>]) -> Result<ArrayRef, CodecError> {
    let total = cells.iter().flatten().map(|bytes| bytes.len()).sum();
    if T::Offset::from_usize(total).is_none() {
        return Err(column.too_large("more than 2 GiB in one array"));
    }
    let mut data = Vec::with_capacity(total);
    let mut offsets = Vec::with_capacity(cells.len() + 1);
    offsets.push(T::Offset::usize_as(0));
    for cell in cells {
        data.extend_from_slice(cell.unwrap_or_default());
        offsets.push(T::Offset::usize_as(data.len()));
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let array = GenericByteArray::<T>::try_new(offsets, Buffer::from_vec(data), cells_nulls(cells));
    Ok(Arc::new(array.map_err(|e| column.corrupt(e))?))
}

pub(super) fn cells_nulls(cells: &[Cell<'_>]) -> Option<NullBuffer> {
    null_buffer(BooleanBuffer::collect_bool(cells.len(), |i| cells[i].is_some()))
}

/// Arrow's kernels are fastest on an array that says it has no NULLs by having no buffer for them.
pub(super) fn null_buffer(valid: BooleanBuffer) -> Option<NullBuffer> {
    Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)
}
