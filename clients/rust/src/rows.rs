//! A query's result.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use futures::{Stream, StreamExt, TryStreamExt, ready};
use tonic::Status;

use crate::error::{Error, Result};
use crate::wire::flight_errors;

/// The rows of a query: a stream of record batches of one schema, as they come. Dropping it cancels the query.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    messages: FlightDataDecoder,
}

impl Rows {
    pub(crate) fn new(
        schema: SchemaRef,
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Self {
        Self { schema, messages: FlightDataDecoder::new(flight_errors(messages)) }
    }

    /// The columns, known before the first row.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All batches.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.try_collect().await
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let message = match ready!(self.messages.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(Error::from(error)))),
                Some(Ok(message)) => message,
            };
            if let DecodedPayload::RecordBatch(batch) = message.payload {
                return Poll::Ready(Some(Ok(batch)));
            }
        }
    }
}
