//! How large batches of clients become as plain rows: a dictionary, a view or a run names one large value many times, and a
//! column of nulls has rows for nothing.

use arrow::array::{Array, AsArray, LargeListViewArray, ListViewArray, RunArray, downcast_run_end_index};
use arrow::datatypes::{DataType, RunEndIndexType};
use arrow::record_batch::RecordBatch;

/// Bytes that a row takes beside its values, at least: its key.
const ROW_BYTES: usize = 48;

/// Bytes of a batch as rows, about. Not less than what they take in memory when every value stands for itself.
pub fn unpacked_bytes(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter().map(|column| column_bytes(column));
    columns.fold(batch.num_rows().saturating_mul(ROW_BYTES), usize::saturating_add)
}

fn column_bytes(column: &dyn Array) -> usize {
    let rows = column.len();
    // The low half of a view is the length of its value.
    let of_views = |views: &[u128]| views.iter().map(|view| *view as u32 as usize).sum::<usize>() + 4 * rows;
    match column.data_type() {
        // They become text.
        DataType::Null => 4 * rows,
        DataType::Utf8View => of_views(column.as_string_view().views()),
        DataType::BinaryView => of_views(column.as_binary_view().views()),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            if dictionary.values().is_empty() {
                return 4 * rows;
            }
            let sizes = each_bytes(dictionary.values());
            dictionary.normalized_keys().into_iter().map(|key| sizes.get(key).copied().unwrap_or_default() + 4).sum()
        }
        DataType::RunEndEncoded(ends, _) => {
            macro_rules! runs {
                ($ends:ty) => {
                    column.as_any().downcast_ref::<RunArray<$ends>>().map_or(0, runs_bytes)
                };
            }
            downcast_run_end_index! {
                ends.data_type() => (runs),
                _ => 0
            }
        }
        DataType::Struct(_) => {
            column.as_struct().columns().iter().map(|child| column_bytes(child)).fold(rows, usize::saturating_add)
        }
        DataType::ListView(_) => column
            .as_any()
            .downcast_ref::<ListViewArray>()
            .map_or(0, |list| elements_bytes(list.sizes().iter().map(|size| *size as usize), list.values())),
        DataType::LargeListView(_) => column
            .as_any()
            .downcast_ref::<LargeListViewArray>()
            .map_or(0, |list| elements_bytes(list.sizes().iter().map(|size| *size as usize), list.values())),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Map(..) => {
            let children = column.to_data().child_data().to_vec();
            let children = children.into_iter().map(|child| column_bytes(&arrow::array::make_array(child)));
            children.fold(8 * rows, usize::saturating_add)
        }
        _ => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    }
}

fn each_bytes(values: &dyn Array) -> Vec<usize> {
    (0..values.len()).map(|place| column_bytes(&values.slice(place, 1))).collect()
}

fn runs_bytes<R: RunEndIndexType>(runs: &RunArray<R>) -> usize {
    let (start, end) = (runs.offset(), runs.offset() + runs.len());
    let mut before = 0;
    let ends = runs.run_ends().values().iter().zip(each_bytes(runs.values()));
    ends.map(|(run_end, bytes)| {
        let run_end = num_end(*run_end);
        let rows = run_end.min(end).saturating_sub(before.max(start));
        before = run_end;
        rows.saturating_mul(bytes + 4)
    })
    .fold(0, usize::saturating_add)
}

fn num_end(end: impl arrow::datatypes::ArrowNativeType) -> usize {
    end.as_usize()
}

/// Of lists that may overlap: those that do so much are taken for too large.
fn elements_bytes(sizes: impl Iterator<Item = usize>, values: &dyn Array) -> usize {
    match sizes.fold(0, usize::saturating_add) > values.len().saturating_mul(2) {
        true => usize::MAX,
        false => column_bytes(values).saturating_mul(2),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, DictionaryArray, Int32Array, Int64Array, NullArray, StringArray, StringViewArray, StructArray,
    };
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    fn bytes(column: ArrayRef) -> usize {
        let batch = RecordBatch::try_from_iter_with_nullable([("a", Arc::clone(&column), true)]).unwrap();
        unpacked_bytes(&batch) - ROW_BYTES * column.len()
    }

    #[test]
    fn every_value_counts_however_often_it_is_named() {
        let long = "x".repeat(10_000);
        let views = StringViewArray::from_iter_values(std::iter::repeat_n(&long, 100));
        let dictionary: DictionaryArray<Int32Type> = std::iter::repeat_n(long.as_str(), 100).collect();
        let ends = Int32Array::from(vec![99, 100]);
        let runs = RunArray::try_new(&ends, &StringArray::from(vec![long.as_str(), "y"])).unwrap();
        for column in [Arc::new(views) as ArrayRef, Arc::new(dictionary), Arc::new(runs.clone())] {
            let bytes = bytes(column);
            assert!((980_000..1_010_000).contains(&bytes), "{bytes}");
        }
        let tail = bytes(Arc::new(runs.slice(98, 2)));
        assert!((10_000..11_000).contains(&tail), "{tail}");
    }

    #[test]
    fn plain_values_count_as_they_are() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        assert_eq!(bytes(Arc::clone(&numbers)), 8000);
        assert_eq!(bytes(numbers.slice(10, 100)), 800);
        assert_eq!(bytes(Arc::new(NullArray::new(1000))), 4000);
        let nested = StructArray::from(vec![(Arc::new(Field::new("n", DataType::Int64, true)), numbers)]);
        assert!((8000..10_000).contains(&bytes(Arc::new(nested))));
    }
}
