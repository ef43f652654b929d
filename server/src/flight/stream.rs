//! Results on their way to clients, as they are computed.
//!
//! Invariants: the plan of a result and its snapshot are let go as soon as the last row is computed, whenever the client reads
//! it (`outbox.rs`); its session and transaction are in use until it is read, or an open transaction would be idle meanwhile.
//! An error of the query comes after the rows that it has given, and after an error comes nothing.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::FlightData;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use seracdb_engine::{EngineError, ErrorKind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::encode::{Compression, Encoder};
use super::outbox::{Outbox, Unsent};
use super::spool::{Spool, SpoolUser};
use super::status;
use crate::grants;
use crate::queries::{Queries, stopping};

/// Messages that wait for a slow client.
const MESSAGES_WAITING_MAX: usize = 2;

/// What DoGet answers.
pub(crate) type DataStream = BoxStream<'static, Result<FlightData, Status>>;

/// How a result is sent.
pub(crate) struct Delivery {
    /// To whom.
    pub(crate) user: SpoolUser,
    pub(crate) compression: Compression,
    pub(crate) spool: Arc<Spool>,
    /// A result that was not read to its end by then is given up.
    pub(crate) age_max: Duration,
    /// Fires when the login that it rests on has ended.
    pub(crate) ended: CancellationToken,
}

/// A result that is there already.
pub(crate) fn from_batch(batch: &RecordBatch) -> Result<DataStream, Status> {
    let mut encoder = Encoder::new(Compression::None)?;
    let mut messages = vec![encoder.schema(&batch.schema())];
    encoder.batch(batch.clone(), &mut messages)?;
    Ok(stream::iter(messages.into_iter().map(Ok)).boxed())
}

/// A result as it is computed. The computation runs on the query runtime, a few messages ahead of the client, and
/// stops when `cancel` fires, which it does when the client goes away. `keep` lives as long as the stream.
pub(crate) fn from_rows<E: std::error::Error + Send + Sync + 'static>(
    queries: &Queries,
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    cancel: CancellationToken,
    delivery: Delivery,
    keep: impl Send + 'static,
) -> DataStream {
    let (sender, receiver) = mpsc::channel(MESSAGES_WAITING_MAX);
    let stopped = cancel.clone().drop_guard();
    let all = queries.clone();
    let task = queries.spawn(async move {
        let Delivery { user, compression, spool, age_max, ended } = delivery;
        let mut outbox = Outbox::new(sender, spool, user);
        let sent = send_rows(&schema, rows, &cancel, compression, &mut outbox);
        let sent = async { tokio::time::timeout(age_max, sent).await.unwrap_or_else(|_| Err(too_old(age_max))) };
        let sent = ended.run_until_cancelled(sent).await.unwrap_or_else(|| Err(grants::ended()));
        // Before the error is sent: a client that reads no more may keep nothing.
        drop(keep);
        if let Err(status) = sent {
            // What it computed with has to end, too.
            cancel.cancel();
            let status = if all.is_stopping() { status::from_engine(stopping()) } else { status };
            outbox.fail(status).await;
        }
    });
    let messages = stream::unfold((receiver, Some(task), stopped), async |(mut receiver, mut task, stopped)| {
        if let Some(message) = receiver.recv().await {
            return Some((message, (receiver, task, stopped)));
        }
        match task.take()?.await {
            Err(error) if error.is_panic() => {
                Some((Err(status::from_engine(EngineError::panicked())), (receiver, None, stopped)))
            }
            Err(_) => Some((Err(status::from_engine(stopping())), (receiver, None, stopped))),
            Ok(()) => None,
        }
    });
    messages.boxed()
}

/// Sends all rows, and gives the error of the query when there is one. The plan and its snapshot are gone before the last
/// message is sent, when that has to wait on disk.
async fn send_rows<E: std::error::Error + Send + Sync + 'static>(
    schema: &Schema,
    rows: impl Stream<Item = Result<RecordBatch, E>>,
    cancel: &CancellationToken,
    compression: Compression,
    outbox: &mut Outbox,
) -> Result<(), Status> {
    let computed = AssertUnwindSafe(push_rows(schema, rows, compression, outbox)).catch_unwind();
    let computed = cancel.run_until_cancelled(computed).await.ok_or_else(cancelled)?;
    let failed = match computed.unwrap_or_else(|_| Err(status::from_engine(EngineError::panicked()))) {
        Ok(Pushed::All) => Ok(()),
        Ok(Pushed::ClientGone) => return Ok(()),
        Err(status) => Err(status),
    };
    match cancel.run_until_cancelled(outbox.finish()).await.ok_or_else(cancelled)? {
        Ok(()) => failed,
        // Nobody is there to be told.
        Err(_) => Ok(()),
    }
}

#[derive(PartialEq)]
enum Pushed {
    All,
    ClientGone,
}

async fn push_rows<E: std::error::Error + Send + Sync + 'static>(
    schema: &Schema,
    rows: impl Stream<Item = Result<RecordBatch, E>>,
    compression: Compression,
    outbox: &mut Outbox,
) -> Result<Pushed, Status> {
    let mut rows = std::pin::pin!(rows);
    let mut encoder = Encoder::new(compression)?;
    let mut messages = vec![encoder.schema(schema)];
    loop {
        for message in messages.drain(..) {
            match outbox.push(message).await {
                Ok(()) => {}
                Err(Unsent::Gone) => return Ok(Pushed::ClientGone),
                Err(Unsent::ShareUsed(status)) => return Err(status),
            }
        }
        let Some(batch) = rows.next().await else { return Ok(Pushed::All) };
        let batch = batch.map_err(status::from_stream)?;
        same_types(schema, &batch)?;
        encoder.batch(batch, &mut messages)?;
    }
}

/// Ends a result whose client reads too slowly: it pins a snapshot, and with it rows and files nobody else needs.
fn too_old(age_max: Duration) -> Status {
    let seconds = age_max.as_secs();
    status::from_engine(EngineError::new(
        ErrorKind::Aborted,
        format!(
            "snapshot too old: the result was not read to its end within flight.result_seconds_max ({seconds} s): run the \
             statement again and read faster, in parts, or raise the setting"
        ),
    ))
}

fn cancelled() -> Status {
    status::from_engine(EngineError::cancelled())
}

/// Clients read the columns with the types of the schema message, so that other types would be read as garbage.
fn same_types(schema: &Schema, batch: &RecordBatch) -> Result<(), Status> {
    let types = schema.fields().iter().map(|field| field.data_type());
    if types.eq(batch.columns().iter().map(|column| column.data_type())) {
        return Ok(());
    }
    Err(status::from_engine(EngineError::internal("a bug in SeracDB: the result does not have the planned columns")))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};
    use arrow::datatypes::{DataType, Field};
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::TryStreamExt;

    use super::super::spool::SpoolLimits;
    use super::*;

    fn delivery(dir: &tempfile::TempDir) -> Delivery {
        let limits = SpoolLimits { after: Duration::from_millis(50), bytes_max: 1 << 20, user_bytes_max: 1 << 20 };
        let spool = Spool::new(dir.path().to_owned(), limits);
        let user = SpoolUser::new(7, "ann");
        let (age_max, ended) = (Duration::from_secs(3600), CancellationToken::new());
        Delivery { user, compression: Compression::None, spool, age_max, ended }
    }

    async fn decode(messages: Vec<FlightData>) -> (SchemaRef, Vec<RecordBatch>) {
        let messages = stream::iter(messages.into_iter().map(Ok));
        let mut decoded = FlightRecordBatchStream::new_from_flight_data(messages);
        let mut batches = Vec::new();
        while let Some(batch) = decoded.next().await {
            batches.push(batch.unwrap());
        }
        (decoded.schema().unwrap().clone(), batches)
    }

    fn strings(values: Vec<String>) -> RecordBatch {
        RecordBatch::try_from_iter([("s", Arc::new(StringArray::from(values)) as ArrayRef)]).unwrap()
    }

    #[tokio::test]
    async fn an_empty_result_still_has_its_schema() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true)]);
        let stream = from_batch(&RecordBatch::new_empty(Arc::new(schema.clone()))).unwrap();
        let (decoded, batches) = decode(stream.try_collect().await.unwrap()).await;
        assert_eq!(*decoded, schema);
        assert!(batches.is_empty());
    }

    #[tokio::test]
    async fn a_panic_in_the_middle_is_the_last_item() {
        let queries = Queries::new(tokio::runtime::Handle::current());
        let batch = strings(vec!["a".into()]);
        let schema = batch.schema();
        let rows = stream::iter(0..2).map(move |index| {
            assert_eq!(index, 0, "a planted panic");
            Ok::<_, EngineError>(batch.clone())
        });
        let dir = tempfile::tempdir().unwrap();
        let stream = from_rows(&queries, schema, rows, CancellationToken::new(), delivery(&dir), ());
        let items: Vec<_> = stream.collect().await;
        assert_eq!(items.len(), 3);
        assert_eq!(items[2].as_ref().unwrap_err().code(), tonic::Code::Internal);
    }

    #[tokio::test]
    async fn cancelling_ends_a_stream_that_waits() {
        let queries = Queries::new(tokio::runtime::Handle::current());
        let schema = strings(vec![]).schema();
        let cancel = CancellationToken::new();
        let rows = stream::pending::<Result<RecordBatch, EngineError>>();
        let dir = tempfile::tempdir().unwrap();
        let mut stream = from_rows(&queries, schema, rows, cancel.clone(), delivery(&dir), ());
        assert!(stream.next().await.unwrap().is_ok());
        cancel.cancel();
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), tonic::Code::Cancelled);
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_login_that_it_rests_on() {
        let queries = Queries::new(tokio::runtime::Handle::current());
        let schema = strings(vec![]).schema();
        let dir = tempfile::tempdir().unwrap();
        let delivery = delivery(&dir);
        let (ended, cancel) = (delivery.ended.clone(), CancellationToken::new());
        let rows = stream::pending::<Result<RecordBatch, EngineError>>();
        let mut stream = from_rows(&queries, schema, rows, cancel.clone(), delivery, ());
        assert!(stream.next().await.unwrap().is_ok());
        ended.cancel();
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), tonic::Code::Unauthenticated);
        assert!(cancel.is_cancelled(), "what it computed with ends too");
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn what_a_client_does_not_read_is_let_go() {
        let queries = Queries::new(tokio::runtime::Handle::current());
        let batch = strings(vec!["a".into()]);
        let schema = batch.schema();
        let pinned = Arc::new(());
        let held = Arc::clone(&pinned);
        let rows = stream::iter(0..100).map(move |_| {
            let _snapshot = &held;
            Ok::<_, EngineError>(batch.clone())
        });
        let dir = tempfile::tempdir().unwrap();
        let mut stream = from_rows(&queries, schema, rows, CancellationToken::new(), delivery(&dir), ());
        assert!(stream.next().await.unwrap().is_ok());
        while Arc::strong_count(&pinned) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let messages: Vec<_> = stream.try_collect().await.unwrap();
        assert_eq!(messages.len(), 100);
    }

    #[tokio::test]
    async fn an_error_comes_after_the_rows_that_wait_on_disk_and_is_the_last_item() {
        for panics in [false, true] {
            let queries = Queries::new(tokio::runtime::Handle::current());
            let batch = strings(vec!["a".into()]);
            let schema = batch.schema();
            let rows = stream::iter(0..100).map(move |index| match (index, panics) {
                (99, false) => Err(EngineError::invalid("a planted error")),
                (99, true) => panic!("a planted panic"),
                _ => Ok(batch.clone()),
            });
            let dir = tempfile::tempdir().unwrap();
            let mut stream = from_rows(&queries, schema, rows, CancellationToken::new(), delivery(&dir), ());
            assert!(stream.next().await.unwrap().is_ok());
            // Until all is on disk.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let items: Vec<_> = stream.collect().await;
            assert_eq!(items.len(), 100);
            assert!(items[..99].iter().all(Result::is_ok));
            let code = if panics { tonic::Code::Internal } else { tonic::Code::InvalidArgument };
            assert_eq!(items[99].as_ref().unwrap_err().code(), code);
        }
    }
}
