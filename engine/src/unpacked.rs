//! How large batches of clients become as plain rows: a dictionary, a view or a run names one large value many times, and a
//! column of nulls has rows for nothing.
//!
//! It takes time and memory in the order of what was sent, however its values are nested.

use arrow::array::{
    Array, ArrayRef, AsArray, ByteView, GenericListViewArray, OffsetSizeTrait, RunArray, downcast_run_end_index,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ArrowNativeType, DataType, RunEndIndexType};
use arrow::record_batch::RecordBatch;

/// Bytes that a row takes beside its values, at least: its key.
const ROW_BYTES: usize = 48;
/// Bytes of a value of variable length beside itself.
const OFFSET_BYTES: usize = 4;
/// Values whose sizes are found one by one; more of them are taken for too large.
const VALUES_MAX: usize = 1 << 26;

/// Bytes of a batch as rows, about: as if every value stood for itself. `usize::MAX` when it is not worth finding out.
pub fn unpacked_bytes(batch: &RecordBatch) -> usize {
    unpacked_bytes_of(batch.columns(), batch.num_rows())
}

/// The same of columns with `rows` rows.
pub(crate) fn unpacked_bytes_of(columns: &[ArrayRef], rows: usize) -> usize {
    let columns = columns.iter().map(|column| match Sizes::of(column) {
        Some(sizes) => sizes.between(0, rows),
        None => usize::MAX,
    });
    columns.fold(rows.saturating_mul(ROW_BYTES), usize::saturating_add)
}

/// The sizes of the values of an array.
enum Sizes {
    /// All the same.
    Same(usize),
    Small(OffsetBuffer<i32>),
    Large(OffsetBuffer<i64>),
    /// `sums[i]`: of those before the i-th.
    Sums(Vec<usize>),
}

impl Sizes {
    /// `None`: too many.
    fn of(array: &ArrayRef) -> Option<Self> {
        let data_type = array.data_type();
        if let Some(width) = data_type.primitive_width() {
            return Some(Self::Same(width));
        }
        Some(match data_type {
            // They become text.
            DataType::Null => Self::Same(OFFSET_BYTES),
            DataType::Boolean => Self::Same(1),
            DataType::FixedSizeBinary(width) => Self::Same(*width as usize),
            DataType::Utf8 => Self::Small(array.as_string::<i32>().offsets().clone()),
            DataType::Binary => Self::Small(array.as_binary::<i32>().offsets().clone()),
            DataType::LargeUtf8 => Self::Large(array.as_string::<i64>().offsets().clone()),
            DataType::LargeBinary => Self::Large(array.as_binary::<i64>().offsets().clone()),
            DataType::Utf8View => Self::of_views(array.as_string_view().views())?,
            DataType::BinaryView => Self::of_views(array.as_binary_view().views())?,
            DataType::Dictionary(..) => {
                let (keys, values) = (array.as_any_dictionary().keys(), array.as_any_dictionary().values());
                if values.is_empty() {
                    return Some(Self::Same(OFFSET_BYTES));
                }
                let (sizes, places) = (Self::of(values)?, array.as_any_dictionary().normalized_keys());
                Self::each(keys.len(), |row| match keys.is_valid(row) {
                    true => sizes.between(places[row], places[row] + 1),
                    false => OFFSET_BYTES,
                })?
            }
            DataType::RunEndEncoded(ends, _) => {
                macro_rules! of_runs {
                    ($ends:ty) => {
                        Self::of_runs(array.as_any().downcast_ref::<RunArray<$ends>>()?)?
                    };
                }
                downcast_run_end_index! {
                    ends.data_type() => (of_runs),
                    _ => return None
                }
            }
            DataType::Struct(_) => {
                let fields: Vec<Self> = array.as_struct().columns().iter().map(Self::of).collect::<Option<_>>()?;
                let of_row = |row: usize| {
                    fields.iter().fold(1, |sum: usize, sizes| sum.saturating_add(sizes.between(row, row + 1)))
                };
                match fields.iter().all(|sizes| matches!(sizes, Self::Same(_))) {
                    true => Self::Same(of_row(0)),
                    false => Self::each(array.len(), of_row)?,
                }
            }
            DataType::List(_) => Self::of_lists(array.as_list::<i32>().offsets(), array.as_list::<i32>().values())?,
            DataType::LargeList(_) => {
                Self::of_lists(array.as_list::<i64>().offsets(), array.as_list::<i64>().values())?
            }
            DataType::Map(..) => {
                let entries: ArrayRef = std::sync::Arc::new(array.as_map().entries().clone());
                Self::of_lists(array.as_map().offsets(), &entries)?
            }
            DataType::FixedSizeList(_, length) => {
                let (list, length) = (array.as_fixed_size_list(), *length as usize);
                let sizes = Self::of(list.values())?;
                Self::each(list.len(), |row| {
                    let start = list.value_offset(row) as usize;
                    sizes.between(start, start + length)
                })?
            }
            DataType::ListView(_) => Self::of_list_views::<i32>(array)?,
            DataType::LargeListView(_) => Self::of_list_views::<i64>(array)?,
            _ => Self::Same(array.get_array_memory_size().div_ceil(array.len().max(1))),
        })
    }

    /// Of the values from `start` to before `end`.
    fn between(&self, start: usize, end: usize) -> usize {
        let offsets = (end - start).saturating_mul(OFFSET_BYTES);
        match self {
            Self::Same(bytes) => (end - start).saturating_mul(*bytes),
            Self::Small(ends) => (ends[end] - ends[start]) as usize + offsets,
            Self::Large(ends) => ((ends[end] - ends[start]) as usize).saturating_add(offsets),
            Self::Sums(sums) => sums[end] - sums[start],
        }
    }

    fn each(count: usize, bytes: impl Fn(usize) -> usize) -> Option<Self> {
        if count > VALUES_MAX {
            return None;
        }
        let mut sums = Vec::with_capacity(count + 1);
        let mut sum: usize = 0;
        sums.push(sum);
        for place in 0..count {
            sum = sum.saturating_add(bytes(place));
            sums.push(sum);
        }
        Some(Self::Sums(sums))
    }

    fn of_views(views: &[u128]) -> Option<Self> {
        Self::each(views.len(), |row| ByteView::from(views[row]).length as usize + OFFSET_BYTES)
    }

    fn of_list_views<O: OffsetSizeTrait>(array: &ArrayRef) -> Option<Self> {
        let list = array.as_any().downcast_ref::<GenericListViewArray<O>>()?;
        let sizes = Self::of(list.values())?;
        let (starts, lengths) = (list.offsets(), list.sizes());
        Self::each(list.len(), |row| {
            let start = starts[row].as_usize();
            sizes.between(start, start + lengths[row].as_usize()).saturating_add(OFFSET_BYTES)
        })
    }

    fn of_lists<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, values: &ArrayRef) -> Option<Self> {
        let sizes = Self::of(values)?;
        Self::each(offsets.len() - 1, |row| {
            sizes.between(offsets[row].as_usize(), offsets[row + 1].as_usize()).saturating_add(OFFSET_BYTES)
        })
    }

    fn of_runs<R: RunEndIndexType>(runs: &RunArray<R>) -> Option<Self> {
        let (start, end) = (runs.offset(), runs.offset() + runs.len());
        if runs.len() > VALUES_MAX {
            return None;
        }
        let sizes = Self::of(runs.values())?;
        let (mut sums, mut sum, mut before) = (vec![0], 0usize, 0);
        for (place, run_end) in runs.run_ends().values().iter().enumerate() {
            let run_end = run_end.as_usize();
            let bytes = sizes.between(place, place + 1).saturating_add(OFFSET_BYTES);
            for _ in before.max(start)..run_end.min(end) {
                sum = sum.saturating_add(bytes);
                sums.push(sum);
            }
            before = run_end;
        }
        Some(Self::Sums(sums))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        DictionaryArray, FixedSizeListArray, Int32Array, Int64Array, ListArray, ListViewArray, NullArray, StringArray,
        StringViewArray, StructArray,
    };
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    fn bytes(column: ArrayRef) -> usize {
        let batch = RecordBatch::try_from_iter_with_nullable([("a", Arc::clone(&column), true)]).unwrap();
        unpacked_bytes(&batch) - ROW_BYTES * column.len()
    }

    fn item(array: &ArrayRef) -> Arc<Field> {
        Arc::new(Field::new_list_field(array.data_type().clone(), true))
    }

    /// Lists of `length` values each.
    fn lists(values: ArrayRef, length: usize) -> ArrayRef {
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, values.len() / length));
        Arc::new(ListArray::new(item(&values), offsets, values, None))
    }

    fn views(count: usize, bytes: usize) -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n("x".repeat(bytes), count)))
    }

    #[test]
    fn every_value_counts_however_often_it_is_named() {
        let long = "x".repeat(10_000);
        let dictionary: DictionaryArray<Int32Type> = std::iter::repeat_n(long.as_str(), 100).collect();
        let ends = Int32Array::from(vec![99, 100]);
        let runs = RunArray::try_new(&ends, &StringArray::from(vec![long.as_str(), "y"])).unwrap();
        for column in [views(100, 10_000), Arc::new(dictionary), Arc::new(runs.clone())] {
            let bytes = bytes(column);
            assert!((980_000..1_010_000).contains(&bytes), "{bytes}");
        }
        let tail = bytes(Arc::new(runs.slice(98, 2)));
        assert!((10_000..11_000).contains(&tail), "{tail}");
        // Two lists that are the same thousand values.
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let (starts, lengths) = (ScalarBuffer::from(vec![0, 0]), ScalarBuffer::from(vec![1000, 1000]));
        let overlapping = ListViewArray::new(item(&values), starts, lengths, values, None);
        assert_eq!(bytes(Arc::new(overlapping)), 2 * (8000 + OFFSET_BYTES));
    }

    #[test]
    fn plain_values_count_as_they_are() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        assert_eq!(bytes(Arc::clone(&numbers)), 8000);
        assert_eq!(bytes(numbers.slice(10, 100)), 800);
        assert_eq!(bytes(Arc::new(NullArray::new(1000))), 4000);
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n("abcd", 100)));
        assert_eq!(bytes(texts.slice(50, 10)), 10 * (4 + OFFSET_BYTES));
        let nested = StructArray::from(vec![(Arc::new(Field::new("n", DataType::Int64, true)), numbers)]);
        assert_eq!(bytes(Arc::new(nested)), 9000);
    }

    #[test]
    fn only_what_a_slice_holds_counts() {
        let column = lists(views(1000, 100), 10);
        let of_one = 10 * (100 + OFFSET_BYTES) + OFFSET_BYTES;
        assert_eq!(bytes(Arc::clone(&column)), 100 * of_one);
        assert_eq!(bytes(column.slice(90, 3)), 3 * of_one);
        let values = views(1000, 100);
        let fixed: ArrayRef = Arc::new(FixedSizeListArray::new(item(&values), 10, values, None));
        assert_eq!(bytes(fixed.slice(90, 3)), 3 * (of_one - OFFSET_BYTES));
    }

    #[test]
    fn nulls_are_not_the_first_value_of_a_dictionary() {
        let values = StringArray::from(vec!["x".repeat(1_000_000)]);
        let dictionary = DictionaryArray::new(Int32Array::from(vec![None::<i32>; 1000]), Arc::new(values));
        assert_eq!(bytes(Arc::new(dictionary)), 1000 * OFFSET_BYTES);
    }

    #[test]
    fn many_nested_values_are_counted_once_each() {
        // As many runs as values: looking at all values for each would not end.
        let count = 200_000;
        let ends = Int32Array::from_iter_values(1..=count);
        let runs = RunArray::try_new(&ends, lists(views(count as usize, 4), 1).as_ref()).unwrap();
        assert_eq!(bytes(Arc::new(runs)), count as usize * (4 + 3 * OFFSET_BYTES));
    }
}
