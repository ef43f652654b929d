//! Batches as Flight messages.
//!
//! Invariants: the schema message comes first, also for empty results, and its bytes are those that GetFlightInfo
//! advertised; a message is at most 4 MiB unless a single row is larger; bodies are compressed only for who asks for it.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use prost::Message;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::status;

/// gRPC's default limit of a message, which most clients keep.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes aimed at when a larger message is split; below the limit, since rows are not all of one size.
const MESSAGE_BYTES_AIM: usize = 3 << 20;

/// The header by which a client asks for compressed bodies.
const COMPRESSION_HEADER: &str = "seracdb-compression";

/// A schema as an encapsulated IPC message: the form of every schema that is not in a stream.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into();
    Ok(message.map_err(status::unsendable)?.0)
}

/// How the bodies of a result's messages are compressed: Arrow IPC's own compression, for which a client may lack the
/// library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Compression {
    /// Not at all.
    #[default]
    None,
    Lz4,
    Zstd,
}

impl Compression {
    /// What a call asks for by `seracdb-compression: lz4 | zstd | none`.
    pub(crate) fn wanted(metadata: &MetadataMap) -> Result<Self, Status> {
        let Some(value) = metadata.get(COMPRESSION_HEADER) else { return Ok(Self::None) };
        match value.as_bytes().to_ascii_lowercase().as_slice() {
            b"lz4" => Ok(Self::Lz4),
            b"zstd" => Ok(Self::Zstd),
            b"none" | b"" => Ok(Self::None),
            _ => Err(Status::invalid_argument(format!("header '{COMPRESSION_HEADER}': use lz4, zstd or none"))),
        }
    }

    fn options(self) -> Result<IpcWriteOptions, ArrowError> {
        IpcWriteOptions::default().try_with_compression(match self {
            Self::None => None,
            Self::Lz4 => Some(CompressionType::LZ4_FRAME),
            Self::Zstd => Some(CompressionType::ZSTD),
        })
    }
}

/// Batches as messages. arrow-flight's own encoder splits by the size of whole buffers, which takes slices of a large
/// batch apart into single rows, and it changes some types on the way.
pub(crate) struct Encoder {
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
    options: IpcWriteOptions,
}

impl Encoder {
    pub(crate) fn new(compression: Compression) -> Result<Self, Status> {
        Ok(Self {
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
            options: compression.options().map_err(status::unsendable)?,
        })
    }

    pub(crate) fn schema(&mut self, schema: &Schema) -> FlightData {
        let tracker = &mut self.dictionaries;
        self.generator.schema_to_bytes_with_dictionary_tracker(schema, tracker, &self.options).into()
    }

    /// Appends the batch's messages; splits what comes out too large and encodes the parts again.
    pub(crate) fn batch(&mut self, batch: RecordBatch, messages: &mut Vec<FlightData>) -> Result<(), Status> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut waiting = vec![batch];
        while let Some(batch) = waiting.pop() {
            let encoded = self.generator.encode(&batch, &mut self.dictionaries, &self.options, &mut self.context);
            let (dictionaries, data) = encoded.map_err(status::unsendable)?;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::{StreamExt, stream};

    use super::*;

    async fn decode(messages: Vec<FlightData>) -> Vec<RecordBatch> {
        let messages = stream::iter(messages.into_iter().map(Ok));
        let decoded = FlightRecordBatchStream::new_from_flight_data(messages);
        decoded.map(Result::unwrap).collect().await
    }

    fn strings(values: Vec<String>) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        RecordBatch::try_from_iter([("n", numbers), ("s", Arc::new(StringArray::from(values)) as ArrayRef)]).unwrap()
    }

    fn messages(batch: &RecordBatch, compression: Compression) -> Vec<FlightData> {
        let mut encoder = Encoder::new(compression).unwrap();
        let mut messages = vec![encoder.schema(&batch.schema())];
        encoder.batch(batch.clone(), &mut messages).unwrap();
        messages
    }

    #[tokio::test]
    async fn messages_stay_below_the_limit_whatever_the_rows_look_like() {
        // One end of the batch holds nearly all bytes, so that equal parts are of unequal size.
        let values = (0..10_000).map(|row| "x".repeat(if row > 9_900 { 200_000 } else { 3 })).collect();
        let batch = strings(values);
        let messages = messages(&batch, Compression::None);
        assert!(messages.iter().all(|message| message.encoded_len() <= MESSAGE_BYTES_MAX));
        assert!(messages.len() < 50, "{} messages", messages.len());
        let batches = decode(messages).await;
        assert_eq!(arrow::compute::concat_batches(&batch.schema(), &batches).unwrap(), batch);
    }

    #[tokio::test]
    async fn a_slice_of_a_large_batch_is_one_message() {
        let batch = strings((0..100_000).map(|row| format!("{row:0100}")).collect());
        assert_eq!(messages(&batch.slice(50_000, 1000), Compression::None).len(), 2);
    }

    #[tokio::test]
    async fn compressed_bodies_are_smaller_and_the_same() {
        let batch = strings((0..10_000).map(|row| format!("{:0100}", row % 7)).collect());
        let size = |messages: &[FlightData]| -> usize { messages.iter().map(|message| message.data_body.len()).sum() };
        let plain = size(&messages(&batch, Compression::None));
        for compression in [Compression::Lz4, Compression::Zstd] {
            let compressed = messages(&batch, compression);
            assert!(size(&compressed) < plain / 4, "{compression:?}");
            assert_eq!(decode(compressed).await, std::slice::from_ref(&batch));
        }
    }

    #[test]
    fn compression_is_for_who_asks() {
        let wanted = |value: Option<&str>| {
            let mut metadata = MetadataMap::new();
            value.map(|value| metadata.insert(COMPRESSION_HEADER, value.parse().unwrap()));
            Compression::wanted(&metadata)
        };
        assert_eq!(wanted(None).unwrap(), Compression::None);
        assert_eq!(wanted(Some("none")).unwrap(), Compression::None);
        assert_eq!(wanted(Some("LZ4")).unwrap(), Compression::Lz4);
        assert_eq!(wanted(Some("zstd")).unwrap(), Compression::Zstd);
        assert_eq!(wanted(Some("gzip")).unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
