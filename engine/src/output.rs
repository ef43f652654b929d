//! What clients see of a result: one schema, computed once, and batches cast to it.
//!
//! Prepare, FlightInfo, GetSchema and DoGet all show the schema that [`client_schema`] gives. It holds only types that
//! every driver reads: no views, dictionaries, run-end encoding or 16-bit floats.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{ArrayRef, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::{Stream, StreamExt};
use seracdb_storage::snapshot::Snapshot;

use crate::running::{Run, Stoppable};
use crate::scan::{LOCATION_COLUMNS, external};
use crate::sql::errors::from_datafusion;

/// The schema of a result as clients see it.
pub(crate) fn client_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(|field| Arc::new(client_field(field))).collect();
    Arc::new(Schema::new(fields))
}

fn client_field(field: &Field) -> Field {
    Field::new(field.name(), client_type(field.data_type()), field.is_nullable())
}

fn client_type(data_type: &DataType) -> DataType {
    let inner = |field: &FieldRef| Arc::new(client_field(field));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        // The same moments, whatever the plan calls their zone.
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
        DataType::Dictionary(_, value) => client_type(value),
        DataType::RunEndEncoded(_, value) => client_type(value.data_type()),
        DataType::List(field) | DataType::ListView(field) => DataType::List(inner(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => DataType::LargeList(inner(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(inner(field), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect::<Fields>()),
        DataType::Map(field, sorted) => DataType::Map(inner(field), *sorted),
        other => other.clone(),
    }
}

/// A result on its way to a client: cast to the client's schema, and holding on to the snapshot whose files it reads.
pub(crate) struct ClientStream {
    rows: Stoppable,
    schema: SchemaRef,
    run: Arc<Run>,
    _snapshot: Arc<Snapshot>,
}

impl ClientStream {
    pub(crate) fn new(
        rows: SendableRecordBatchStream,
        schema: SchemaRef,
        run: Arc<Run>,
        snapshot: Arc<Snapshot>,
    ) -> Self {
        Self { rows: run.until_stopped(rows), schema, run, _snapshot: snapshot }
    }
}

impl Stream for ClientStream {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.rows.poll_next_unpin(cx);
        polled.map(|next| {
            let Some(batch) = next else {
                self.run.part_ended();
                return None;
            };
            let batch = batch.and_then(|batch| conform(&batch, &self.schema));
            batch.iter().for_each(|batch| self.run.count(batch));
            // An error in mid-stream has its kind and text like any other.
            let batch = batch.map_err(|error| from_datafusion(error, &LOCATION_COLUMNS));
            Some(self.run.noting(batch).map_err(external))
        })
    }
}

impl RecordBatchStream for ClientStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// A batch with exactly this schema.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> DfResult<RecordBatch> {
    let strict = CastOptions { safe: false, ..Default::default() };
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        cast_with_options(column, field.data_type(), &strict)
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
