//! Small results of text, numbers, flags and times, value by value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder, TimestampNanosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::Result;
use crate::sql::errors::from_arrow;

pub(crate) const TEXT: DataType = DataType::Utf8;
pub(crate) const NUMBER: DataType = DataType::Int64;
pub(crate) const SHARE: DataType = DataType::Float64;
pub(crate) const FLAG: DataType = DataType::Boolean;
pub(crate) const TIME: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// Columns by name, type and whether they may be NULL.
pub(crate) fn schema(columns: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, data_type, nullable): &(&str, DataType, bool)| Field::new(*name, data_type.clone(), *nullable);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// Rows on their way to a batch, value by value.
pub(crate) struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
}

enum Column {
    Text(StringBuilder),
    Number(Int64Builder),
    Share(Float64Builder),
    Flag(BooleanBuilder),
    Time(TimestampNanosecondBuilder),
}

impl Rows {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        let column = |field: &Arc<Field>| match field.data_type() {
            DataType::Int64 => Column::Number(Int64Builder::new()),
            DataType::Float64 => Column::Share(Float64Builder::new()),
            DataType::Boolean => Column::Flag(BooleanBuilder::new()),
            DataType::Timestamp(..) => Column::Time(TimestampNanosecondBuilder::new()),
            _ => Column::Text(StringBuilder::new()),
        };
        let columns = schema.fields().iter().map(column).collect();
        Self { schema, columns }
    }

    pub(crate) fn text(&mut self, column: usize, value: Option<&str>) {
        if let Column::Text(builder) = &mut self.columns[column] {
            builder.append_option(value);
        }
    }

    pub(crate) fn number(&mut self, column: usize, value: impl Into<Option<i64>>) {
        if let Column::Number(builder) = &mut self.columns[column] {
            builder.append_option(value.into());
        }
    }

    pub(crate) fn share(&mut self, column: usize, value: Option<f64>) {
        if let Column::Share(builder) = &mut self.columns[column] {
            builder.append_option(value);
        }
    }

    pub(crate) fn flag(&mut self, column: usize, value: bool) {
        if let Column::Flag(builder) = &mut self.columns[column] {
            builder.append_value(value);
        }
    }

    pub(crate) fn time(&mut self, column: usize, value: Option<i64>) {
        if let Column::Time(builder) = &mut self.columns[column] {
            builder.append_option(value);
        }
    }

    pub(crate) fn finish(self) -> Result<RecordBatch> {
        let finished = |column: Column| -> ArrayRef {
            match column {
                Column::Text(mut builder) => Arc::new(builder.finish()),
                Column::Number(mut builder) => Arc::new(builder.finish()),
                Column::Share(mut builder) => Arc::new(builder.finish()),
                Column::Flag(mut builder) => Arc::new(builder.finish()),
                Column::Time(mut builder) => Arc::new(builder.finish()),
            }
        };
        let columns = self.columns.into_iter().map(finished).collect();
        RecordBatch::try_new(self.schema, columns).map_err(|e| from_arrow(e, &[]))
    }
}
