//! What clients put: Flight messages as batches.
//!
//! Nothing that a message says of itself is believed: Arrow's reader would take memory for it before it looks, or panic.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::ipc::{CompressionType, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use lz4_flex::frame::FrameDecoder;
use seracdb_engine::{EngineError, ErrorKind, unpacked_bytes};
use tonic::{Code, Status, Streaming};

use super::bound::{Bound, Held};
use super::decoding::{Decoding, Part};
use super::status;

/// Bytes that the body of one message and the dictionaries of its stream may have together when they are no longer
/// compressed.
const BODY_BYTES_MAX: u64 = 256 << 20;

/// Rows that a message may have whatever its size; beyond, each takes a bit of it at least.
const ROWS_FREE: u64 = 1 << 20;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in Arrow's reader: a panic there is about what a client has sent.
pub(crate) fn is_reading() -> bool {
    READING.get()
}

/// What a client puts: a schema and batches of it.
pub(crate) struct Incoming {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: BoxStream<'static, Result<RecordBatch, EngineError>>,
}

/// Reads what follows the command of a DoPut. `None`: there is no schema message at all.
pub(crate) async fn incoming(
    first: FlightData,
    rest: Streaming<FlightData>,
    decoding: Decoding,
) -> Result<Option<Incoming>, Status> {
    let messages = stream::once(async { Ok(first) }).chain(rest.map_err(FlightError::from));
    // A message that only carries the descriptor has no header; the decoder would take it for a broken one.
    let messages = messages.try_filter(|message| std::future::ready(!message.data_header.is_empty()));
    let messages = admitted(messages.boxed(), decoding);
    let mut batches = Reader { batches: FlightRecordBatchStream::new_from_flight_data(messages), broken: false };
    // The schema is known once something after it was asked for.
    let first = batches.next().await.transpose().map_err(|error| status::from_engine(unreadable_stream(error)))?;
    let Some(schema) = batches.batches.schema().map(Arc::clone) else {
        return Ok(None);
    };
    let first = stream::iter(first.map(Ok));
    Ok(Some(Incoming { schema, batches: first.chain(batches).map_err(unreadable_stream).boxed() }))
}

/// The messages that are what they say, each once there is memory for what it becomes. It is given back when the next one is
/// asked for: then nobody has the batch any more, or has counted it elsewhere.
fn admitted(
    messages: BoxStream<'static, Result<FlightData, FlightError>>,
    decoding: Decoding,
) -> impl Stream<Item = Result<FlightData, FlightError>> + Send + 'static {
    let none: Option<Part> = None;
    stream::try_unfold((messages, Bodies::default(), none), move |(mut messages, mut bodies, before)| {
        let decoding = decoding.clone();
        async move {
            // Before waiting for the client.
            drop(before);
            let Some(message) = messages.try_next().await? else { return Ok(None) };
            let bytes = bodies.check(&message)?;
            let part = decoding.part(bytes).await?;
            Ok(Some((message, (messages, bodies, Some(part)))))
        }
    })
}

impl Incoming {
    /// All rows as one batch; refused above `bytes_max`, or when `held` gets no more memory.
    pub(crate) async fn collect(self, bytes_max: usize, mut held: Held) -> Result<Bound, Status> {
        let Self { schema, mut batches } = self;
        let mut collected = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = batches.next().await.transpose().map_err(status::from_engine)? {
            let unpacked = unpacked_bytes(&batch);
            bytes = unpacked.saturating_add(bytes);
            if bytes > bytes_max {
                return Err(Status::resource_exhausted(format!(
                    "the parameters are larger than flight.bound_bytes_max ({bytes_max} bytes): bind fewer rows at a \
                     time, or use bulk ingest"
                )));
            }
            held.grow(unpacked.max(array_bytes(&batch)))?;
            collected.push(batch);
        }
        let rows = arrow::compute::concat_batches(&schema, &collected).map_err(status::unreadable)?;
        Ok(held.of(rows))
    }
}

/// Bytes of its arrays, with dictionaries that they hardly use. Buffers that lie in one message count once.
fn array_bytes(batch: &RecordBatch) -> usize {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    batch.columns().iter().map(bytes).fold(0, usize::saturating_add)
}

fn unreadable_stream(error: FlightError) -> EngineError {
    match error {
        FlightError::Tonic(status) if status.code() == Code::OutOfRange => {
            EngineError::new(ErrorKind::ResourceExhausted, status::too_large().message())
        }
        FlightError::Tonic(status) if status.code() == Code::ResourceExhausted => {
            EngineError::new(ErrorKind::ResourceExhausted, status.message())
        }
        FlightError::Tonic(status) => EngineError::new(ErrorKind::Cancelled, status.message()),
        FlightError::ExternalError(error) if error.is::<EngineError>() => match error.downcast() {
            Ok(error) => *error,
            Err(error) => EngineError::invalid(format!("the data sent cannot be read: {error}")),
        },
        other => EngineError::invalid(format!("the data sent cannot be read: {other}")),
    }
}

/// Arrow's reader, which panics on much that no writer of Arrow makes.
struct Reader {
    batches: FlightRecordBatchStream,
    broken: bool,
}

impl Stream for Reader {
    type Item = Result<RecordBatch, FlightError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.broken {
            return Poll::Ready(None);
        }
        READING.set(true);
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.batches.poll_next_unpin(cx)));
        READING.set(false);
        polled.unwrap_or_else(|_| {
            self.broken = true;
            Poll::Ready(Some(Err(FlightError::DecodeError("it is no valid Arrow IPC".into()))))
        })
    }
}

/// The bodies of a stream: what the reader keeps of them.
#[derive(Default)]
struct Bodies {
    /// Bytes of each dictionary.
    dictionaries: HashMap<i64, u64>,
}

impl Bodies {
    /// Refuses a message whose body is not what its header says, or that makes the stream too large. Gives the bytes that it
    /// becomes.
    fn check(&mut self, message: &FlightData) -> Result<u64, FlightError> {
        let kept: u64 = self.dictionaries.values().sum();
        let bytes = body_bytes(message, BODY_BYTES_MAX.saturating_sub(kept))?;
        let header = root_as_message(&message.data_header).ok();
        if let Some(dictionary) = header.and_then(|header| header.header_as_dictionary_batch()) {
            let known = self.dictionaries.entry(dictionary.id()).or_default();
            // What takes the place of another is read before that one goes.
            *known = if dictionary.isDelta() { *known + bytes } else { bytes.max(*known) };
        }
        Ok(bytes)
    }
}

/// Bytes of a body when it is no longer compressed, at most `bytes_max`.
fn body_bytes(message: &FlightData, bytes_max: u64) -> Result<u64, FlightError> {
    let broken = |what: &str| FlightError::DecodeError(format!("a batch is broken: {what}"));
    let Ok(header) = root_as_message(&message.data_header) else { return Ok(0) };
    let dictionary = header.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let Some(batch) = header.header_as_record_batch().or(dictionary) else { return Ok(0) };
    let compression = batch.compression();
    let mut total: u64 = 0;
    for buffer in batch.buffers().iter().flatten() {
        let start = usize::try_from(buffer.offset()).map_err(|_| broken("a negative offset"))?;
        let length = usize::try_from(buffer.length()).map_err(|_| broken("a negative length"))?;
        let bytes = start.checked_add(length).and_then(|end| message.data_body.get(start..end));
        let bytes = bytes.ok_or_else(|| broken("a buffer lies outside of its body"))?;
        // A size of -1: not compressed after all.
        let said = match compression.filter(|_| length > 0) {
            Some(_) => bytes.split_first_chunk::<8>().map(|(said, data)| (i64::from_le_bytes(*said), data)),
            None => Some((-1, bytes)),
        };
        let (said, data) = said.ok_or_else(|| broken("a buffer without its size"))?;
        let size = if said == -1 { Ok(data.len() as u64) } else { u64::try_from(said) };
        let size = size.map_err(|_| broken("a negative size"))?;
        total = total.saturating_add(size);
        if total > bytes_max {
            return Err(FlightError::DecodeError(format!(
                "a batch and the dictionaries of its stream become larger than {} MiB, the limit: send smaller batches",
                BODY_BYTES_MAX >> 20
            )));
        }
        // The reader of zstd stops at the size it was told, that of LZ4 does not.
        if said != -1 && compression.is_some_and(|kind| kind.codec() == CompressionType::LZ4_FRAME) {
            let mut decoded = FrameDecoder::new(data).take(size + 1);
            let real = std::io::copy(&mut decoded, &mut std::io::sink()).map_err(|e| broken(&e.to_string()))?;
            if real != size {
                return Err(broken("a buffer has another size than it says"));
            }
        }
    }
    let rows_max = total.saturating_mul(8).max(ROWS_FREE);
    let is_possible = |rows: i64| u64::try_from(rows).is_ok_and(|rows| rows <= rows_max);
    let mut nodes = batch.nodes().into_iter().flatten();
    match is_possible(batch.length()) && nodes.all(|node| is_possible(node.length())) {
        true => Ok(total),
        false => Err(broken("it says to have more rows than it has bytes for")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::super::encode::{Compression, Encoder};
    use super::*;

    fn compressed(compression: Compression) -> FlightData {
        let column: ArrayRef = Arc::new(Int64Array::from_value(7, 10_000));
        let mut messages = vec![];
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        Encoder::new(compression).unwrap().batch(batch, &mut messages).unwrap();
        messages.remove(0)
    }

    /// The same message, its first compressed buffer saying another size.
    fn lying(mut message: FlightData, size: i64) -> FlightData {
        let header = root_as_message(&message.data_header).unwrap().header_as_record_batch().unwrap();
        let buffer = header.buffers().unwrap().iter().find(|buffer| buffer.length() > 8).unwrap();
        let mut body = message.data_body.to_vec();
        let at = buffer.offset() as usize;
        body[at..at + 8].copy_from_slice(&size.to_le_bytes());
        message.data_body = body.into();
        message
    }

    #[test]
    fn a_body_that_lies_about_its_size_is_refused() {
        for compression in [Compression::Lz4, Compression::Zstd] {
            let message = compressed(compression);
            body_bytes(&message, BODY_BYTES_MAX).unwrap();
            for size in [i64::MAX, i64::MIN, 1 << 40, -2] {
                assert!(body_bytes(&lying(message.clone(), size), BODY_BYTES_MAX).is_err(), "{compression:?} {size}");
            }
        }
        for size in [0, 1, 79_999, 80_001] {
            assert!(body_bytes(&lying(compressed(Compression::Lz4), size), BODY_BYTES_MAX).is_err(), "{size}");
        }
        body_bytes(&compressed(Compression::None), BODY_BYTES_MAX).unwrap();
    }

    #[test]
    fn a_buffer_outside_of_its_body_is_refused() {
        let mut message = compressed(Compression::Zstd);
        message.data_body = message.data_body.slice(..16);
        assert!(body_bytes(&message, BODY_BYTES_MAX).is_err());
    }
}
