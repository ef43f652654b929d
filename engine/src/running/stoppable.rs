//! Rows that end with an error once nobody wants their statement any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::error::EngineError;
use crate::scan::external;

/// The rows of a plan, until its statement is cancelled.
pub(crate) struct Stoppable {
    rows: Option<SendableRecordBatchStream>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Stoppable {
    pub(super) fn new(rows: SendableRecordBatchStream, stop: &CancellationToken) -> Self {
        Self { rows: Some(rows), stopped: Box::pin(stop.clone().cancelled_owned()) }
    }
}

impl Stream for Stoppable {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.rows.is_some() && self.stopped.as_mut().poll(cx).is_ready() {
            // What computes has no reason to go on.
            self.rows = None;
            return Poll::Ready(Some(Err(external(EngineError::cancelled()))));
        }
        match &mut self.rows {
            Some(rows) => rows.poll_next_unpin(cx),
            None => Poll::Ready(None),
        }
    }
}
