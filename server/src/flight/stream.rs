//! Results as Flight messages, and Flight messages as batches.
//!
//! Invariants: the schema message comes first, also for empty results, and its bytes are those that GetFlightInfo
//! advertised; a message is at most 4 MiB unless a single row is larger; an error is the last item.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use seracdb_engine::{EngineError, ErrorKind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::status;
use crate::queries::{Queries, stopping};

/// gRPC's default limit of a message, which most clients keep.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes aimed at when a larger message is split; below the limit, since rows are not all of one size.
const MESSAGE_BYTES_AIM: usize = 3 << 20;

/// Messages that wait for a slow client.
const MESSAGES_WAITING_MAX: usize = 2;

/// What DoGet answers.
pub(crate) type DataStream = BoxStream<'static, Result<FlightData, Status>>;

/// A schema as an encapsulated IPC message: the form of every schema that is not in a stream.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    Ok(message.map_err(status::unsendable)?.0)
}

/// A result that is there already.
pub(crate) fn from_batch(batch: &RecordBatch) -> Result<DataStream, Status> {
    let mut encoder = Encoder::default();
    let mut messages = vec![encoder.schema(&batch.schema())];
    encoder.batch(batch.clone(), &mut messages).map_err(status::unsendable)?;
    Ok(stream::iter(messages.into_iter().map(Ok)).boxed())
}

/// A result as it is computed. The computation runs on the query runtime, a few messages ahead of the client, and
/// stops when `cancel` fires, which it does when the client goes away, or after `age_max`. `keep` lives as long as the
/// stream.
pub(crate) fn from_rows<E: std::error::Error + Send + Sync + 'static>(
    queries: &Queries,
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch, E>> + Send + 'static,
    cancel: CancellationToken,
    age_max: Duration,
    keep: impl Send + 'static,
) -> DataStream {
    let (sender, receiver) = mpsc::channel(MESSAGES_WAITING_MAX);
    let stopped = cancel.clone().drop_guard();
    let all = queries.clone();
    let task = queries.spawn(async move {
        let sent = tokio::time::timeout(age_max, send_rows(&schema, rows, &cancel, &sender)).await;
        // Before the error is sent: a client that reads no more may keep nothing.
        drop(keep);
        if let Err(status) = sent.unwrap_or_else(|_| Err(too_old(age_max))) {
            // What it computed with has to end, too.
            cancel.cancel();
            let status = if all.is_stopping() { status::from_engine(stopping()) } else { status };
            // The receiver is gone when the client is: then nobody wants the error.
            let _ = sender.send(Err(status)).await;
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

async fn send_rows<E: std::error::Error + Send + Sync + 'static>(
    schema: &Schema,
    rows: impl Stream<Item = Result<RecordBatch, E>>,
    cancel: &CancellationToken,
    sender: &mpsc::Sender<Result<FlightData, Status>>,
) -> Result<(), Status> {
    let mut rows = std::pin::pin!(rows);
    let mut encoder = Encoder::default();
    let mut messages = vec![encoder.schema(schema)];
    loop {
        for message in messages.drain(..) {
            match cancel.run_until_cancelled(sender.send(Ok(message))).await {
                None => return Err(cancelled()),
                Some(Err(_)) => return Ok(()),
                Some(Ok(())) => {}
            }
        }
        match cancel.run_until_cancelled(rows.next()).await {
            None => return Err(cancelled()),
            Some(None) => return Ok(()),
            Some(Some(batch)) => {
                let batch = batch.map_err(status::from_stream)?;
                same_types(schema, &batch)?;
                encoder.batch(batch, &mut messages).map_err(status::unsendable)?;
            }
        }
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
    Status::cancelled("the query was cancelled")
}

/// Clients read the columns with the types of the schema message, so that other types would be read as garbage.
fn same_types(schema: &Schema, batch: &RecordBatch) -> Result<(), Status> {
    let types = schema.fields().iter().map(|field| field.data_type());
    if types.eq(batch.columns().iter().map(|column| column.data_type())) {
        return Ok(());
    }
    Err(status::from_engine(EngineError::internal("a bug in SeracDB: the result does not have the planned columns")))
}

/// Batches as messages. arrow-flight's own encoder splits by the size of whole buffers, which takes slices of a large
/// batch apart into single rows, and it changes some types on the way.
struct Encoder {
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
    options: IpcWriteOptions,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
            options: IpcWriteOptions::default(),
        }
    }
}

impl Encoder {
    fn schema(&mut self, schema: &Schema) -> FlightData {
        let tracker = &mut self.dictionaries;
        self.generator.schema_to_bytes_with_dictionary_tracker(schema, tracker, &self.options).into()
    }

    /// Appends the batch's messages; splits what comes out too large and encodes the parts again.
    fn batch(&mut self, batch: RecordBatch, messages: &mut Vec<FlightData>) -> Result<(), ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut waiting = vec![batch];
        while let Some(batch) = waiting.pop() {
            let (dictionaries, data) =
                self.generator.encode(&batch, &mut self.dictionaries, &self.options, &mut self.context)?;
            messages.extend(dictionaries.into_iter().map(FlightData::from));
            let message = FlightData::from(data);
            let bytes = message.encoded_len();
            if bytes <= MESSAGE_BYTES_MAX || batch.num_rows() == 1 {
                messages.push(message);
            } else {
                waiting.extend(split(&batch, bytes.div_ceil(MESSAGE_BYTES_AIM)).into_iter().rev());
            }
        }
        Ok(())
    }
}

fn split(batch: &RecordBatch, parts: usize) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    let size = rows.div_ceil(parts.clamp(2, rows));
    (0..rows).step_by(size).map(|start| batch.slice(start, size.min(rows - start))).collect()
}

/// What a client puts: a schema and batches of it.
pub(crate) struct Incoming {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch, EngineError>>,
}

/// Reads what follows the command of a DoPut. `None`: there is no schema message at all.
pub(crate) async fn incoming(first: FlightData, rest: Streaming<FlightData>) -> Result<Option<Incoming>, Status> {
    let messages = stream::once(async { Ok(first) }).chain(rest.map_err(FlightError::from));
    // A message that only carries the descriptor has no header; the decoder would take it for a broken one.
    let messages = messages.try_filter(|message| std::future::ready(!message.data_header.is_empty()));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    // The schema is known once something after it was asked for.
    let first = batches.next().await.transpose().map_err(|error| status::from_engine(unreadable_stream(error)))?;
    let Some(schema) = batches.schema().map(Arc::clone) else {
        return Ok(None);
    };
    let first = stream::iter(first.map(Ok));
    Ok(Some(Incoming { schema, batches: first.chain(batches).map_err(unreadable_stream).boxed() }))
}

impl Incoming {
    /// All rows as one batch; refused above `bytes_max`.
    pub(crate) async fn collect(self, bytes_max: usize) -> Result<RecordBatch, Status> {
        let Self { schema, mut batches } = self;
        let mut collected = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = batches.next().await.transpose().map_err(status::from_engine)? {
            bytes += batch.get_array_memory_size();
            if bytes > bytes_max {
                return Err(Status::resource_exhausted(format!(
                    "the parameters are larger than flight.bound_bytes_max ({bytes_max} bytes): bind fewer rows at a \
                     time, or use bulk ingest"
                )));
            }
            collected.push(batch);
        }
        arrow::compute::concat_batches(&schema, &collected).map_err(status::unreadable)
    }
}

fn unreadable_stream(error: FlightError) -> EngineError {
    match error {
        FlightError::Tonic(status) if status.code() == Code::OutOfRange => {
            EngineError::new(ErrorKind::ResourceExhausted, status::too_large().message())
        }
        FlightError::Tonic(status) => EngineError::new(ErrorKind::Cancelled, status.message()),
        other => EngineError::invalid(format!("the data sent cannot be read: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    const AGE_MAX: Duration = Duration::from_secs(3600);

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
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        RecordBatch::try_from_iter([("n", numbers), ("s", Arc::new(StringArray::from(values)) as ArrayRef)]).unwrap()
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
    async fn messages_stay_below_the_limit_whatever_the_rows_look_like() {
        // One end of the batch holds nearly all bytes, so that equal parts are of unequal size.
        let values = (0..10_000).map(|row| "x".repeat(if row > 9_900 { 200_000 } else { 3 })).collect();
        let batch = strings(values);
        let mut messages = Vec::new();
        let mut encoder = Encoder::default();
        messages.push(encoder.schema(&batch.schema()));
        encoder.batch(batch.clone(), &mut messages).unwrap();
        assert!(messages.iter().all(|message| message.encoded_len() <= MESSAGE_BYTES_MAX));
        assert!(messages.len() < 50, "{} messages", messages.len());
        let (_, batches) = decode(messages).await;
        assert_eq!(arrow::compute::concat_batches(&batch.schema(), &batches).unwrap(), batch);
    }

    #[tokio::test]
    async fn a_slice_of_a_large_batch_is_one_message() {
        let batch = strings((0..100_000).map(|row| format!("{row:0100}")).collect());
        let mut messages = Vec::new();
        let mut encoder = Encoder::default();
        messages.push(encoder.schema(&batch.schema()));
        encoder.batch(batch.slice(50_000, 1000), &mut messages).unwrap();
        assert_eq!(messages.len(), 2);
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
        let stream = from_rows(&queries, schema, rows, CancellationToken::new(), AGE_MAX, ());
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
        let mut stream = from_rows(&queries, schema, rows, cancel.clone(), AGE_MAX, ());
        assert!(stream.next().await.unwrap().is_ok());
        cancel.cancel();
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), tonic::Code::Cancelled);
    }
}
