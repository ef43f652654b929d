//! Bounds and Bloom filters of a file against its values: those of the record, and those of each row group in the footer.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, BooleanArray, Datum, RecordBatch, Scalar};
use arrow::compute::kernels::cmp::{eq, gt, lt};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;

use super::finding::{Faults, Invariant};
use crate::bloom::{BlockFilter, FileFilters, key_hashes};
use crate::bounds::from_json;
use crate::records::{BatchRecord, ColumnBounds};

/// The bounds and filters of a file's columns, on its way through the rows.
pub(super) struct Statistics<'a>(Vec<Column<'a>>);

struct Column<'a> {
    name: &'a str,
    filter: Option<&'a BlockFilter>,
    /// Of the record.
    whole: Option<Bounds>,
    /// Of the footer, one for each row group.
    groups: Vec<Bounds>,
    group: usize,
    /// What was wrong, each once.
    wrong: BTreeSet<String>,
    in_filter: bool,
}

/// Bounds, and what was seen of the values.
struct Bounds {
    of: &'static str,
    min: Option<ArrayRef>,
    max: Option<ArrayRef>,
    nulls: Option<u64>,
    seen_nulls: u64,
    /// Whether the bounds are said to be values; then whether they were seen.
    is_exact: bool,
    has_values: bool,
    seen_min: bool,
    seen_max: bool,
}

impl<'a> Statistics<'a> {
    /// `schema`: that of the file.
    pub(super) fn new(
        metadata: &ParquetMetaData,
        schema: &'a SchemaRef,
        record: &'a BatchRecord,
        filters: Option<&'a FileFilters>,
    ) -> Self {
        let column = |field: &'a FieldRef| {
            let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY).and_then(|id| id.parse().ok());
            let bounds = record.column_min_max.get(field.name());
            Column {
                name: field.name(),
                filter: filters.zip(id).and_then(|(filters, id)| filters.column(id)),
                whole: bounds.map(|bounds| Bounds::of_record(bounds, field.data_type())),
                groups: of_groups(metadata, schema, field.name()),
                group: 0,
                wrong: BTreeSet::new(),
                in_filter: true,
            }
        };
        Self(schema.fields().iter().map(column).collect())
    }

    pub(super) fn begin_group(&mut self, group: usize) {
        self.0.iter_mut().for_each(|column| column.group = group);
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) {
        for (column, values) in self.0.iter_mut().zip(batch.columns()) {
            column.add(values);
        }
    }

    pub(super) fn end_group(&mut self) {
        for column in &mut self.0 {
            let group = column.group;
            if let Some(bounds) = column.groups.get(group) {
                bounds.end(&mut column.wrong);
            }
        }
    }

    pub(super) fn end(self, faults: &mut Faults) {
        for mut column in self.0 {
            if let Some(bounds) = &column.whole {
                bounds.end(&mut column.wrong);
            }
            for what in column.wrong {
                faults.add(Invariant::Statistics, format!("column '{}': {what}", column.name));
            }
            faults.expect(column.in_filter, Invariant::Filters, || {
                format!("the Bloom filter of column '{}' denies a value that is there", column.name)
            });
        }
    }
}

impl Column<'_> {
    fn add(&mut self, values: &ArrayRef) {
        let group = self.groups.get_mut(self.group);
        for bounds in self.whole.iter_mut().chain(group) {
            bounds.add(values, &mut self.wrong);
        }
        if let Some(filter) = self.filter
            && let Some(keys) = key_hashes(values)
        {
            self.in_filter &= keys.hashes.iter().all(|hash| filter.may_contain(*hash));
        }
    }
}

impl Bounds {
    fn of_record(bounds: &ColumnBounds, data_type: &DataType) -> Self {
        let both = from_json(&[bounds.min.as_ref(), bounds.max.as_ref()], data_type);
        let at = |at: usize| both.as_ref().filter(|both| both.is_valid(at)).map(|both| both.slice(at, 1));
        // Of the two zeros either may stand for the other.
        let is_exact = bounds.exact && !data_type.is_floating();
        Self { is_exact, ..Self::new("the record's", at(0), at(1), Some(bounds.null_count)) }
    }

    fn new(of: &'static str, min: Option<ArrayRef>, max: Option<ArrayRef>, nulls: Option<u64>) -> Self {
        let (seen_nulls, is_exact, has_values, seen_min, seen_max) = Default::default();
        Self { of, min, max, nulls, seen_nulls, is_exact, has_values, seen_min, seen_max }
    }

    fn add(&mut self, values: &ArrayRef, wrong: &mut BTreeSet<String>) {
        let nulls = values.logical_null_count();
        self.seen_nulls += nulls as u64;
        self.has_values |= nulls < values.len();
        let of = self.of;
        match (any(values, lt, self.min.as_ref()), any(values, gt, self.max.as_ref())) {
            (Ok(false), Ok(false)) => {}
            (Err(error), _) | (_, Err(error)) => {
                wrong.insert(format!("{of} bounds cannot be compared with its values: {error}"));
            }
            _ => {
                wrong.insert(format!("a value is outside of {of} bounds"));
            }
        }
        if self.is_exact {
            self.seen_min |= any(values, eq, self.min.as_ref()).unwrap_or(true);
            self.seen_max |= any(values, eq, self.max.as_ref()).unwrap_or(true);
        }
    }

    fn end(&self, wrong: &mut BTreeSet<String>) {
        if self.nulls.is_some_and(|nulls| nulls != self.seen_nulls) {
            wrong.insert(format!("{} number of NULLs is another", self.of));
        }
        let is_seen = |bound: &Option<ArrayRef>, seen| bound.is_none() || seen;
        if self.is_exact && self.has_values && !(is_seen(&self.min, self.seen_min) && is_seen(&self.max, self.seen_max))
        {
            wrong.insert(format!("{} bounds are said to be values, and are none", self.of));
        }
    }
}

type Compare = fn(&dyn Datum, &dyn Datum) -> Result<BooleanArray, ArrowError>;

/// Whether any value is so to a bound. Floats are compared in their total order, in which NaN is outside of any bounds.
fn any(values: &ArrayRef, compare: Compare, bound: Option<&ArrayRef>) -> Result<bool, ArrowError> {
    let Some(bound) = bound else { return Ok(false) };
    Ok(compare(values, &Scalar::new(ArrayRef::clone(bound)))?.true_count() > 0)
}

/// What the footer says of a column; nothing where it has no statistics.
fn of_groups(metadata: &ParquetMetaData, schema: &SchemaRef, name: &str) -> Vec<Bounds> {
    let parquet_schema = metadata.file_metadata().schema_descr();
    let Ok(converter) = StatisticsConverter::try_new(name, schema, parquet_schema) else { return Vec::new() };
    let groups = metadata.row_groups();
    let (Ok(mins), Ok(maxes)) = (converter.row_group_mins(groups), converter.row_group_maxes(groups)) else {
        return Vec::new();
    };
    let nulls = converter.row_group_null_counts(groups).ok();
    let at = |bounds: &ArrayRef, group: usize| bounds.is_valid(group).then(|| bounds.slice(group, 1));
    let nulls = |group: usize| nulls.as_ref().filter(|nulls| nulls.is_valid(group)).map(|nulls| nulls.value(group));
    let of = "the footer's";
    (0..groups.len()).map(|group| Bounds::new(of, at(&mins, group), at(&maxes, group), nulls(group))).collect()
}
