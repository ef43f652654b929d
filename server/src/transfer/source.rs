//! What is imported, as record batches: a few rows at a time, however large the file.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::{FileReader, StreamReader};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::CsvStyle;
use super::files::FileFormat;

/// Rows of a batch, fewer where rows are wide.
const BATCH_ROWS: usize = 8192;

/// Bytes that a batch of Parquet should have.
const BATCH_BYTES: u64 = 8 << 20;

/// Rows of a batch of CSV, whose width nobody knows.
const CSV_BATCH_ROWS: usize = 1024;

/// Bytes in which the header line of a CSV has to end.
const HEAD_BYTES: u64 = 1 << 20;

/// The first bytes of an Arrow IPC file; a stream has others.
const ARROW_FILE: &[u8; 6] = b"ARROW1";

/// The last bytes of an Arrow IPC stream. The reader takes any end for the end.
const STREAM_END: u64 = 0xFFFF_FFFF_0000_0000;

/// Where rows come from.
#[derive(Debug, Clone)]
pub(super) enum Input {
    Stdin,
    File(PathBuf),
}

impl Input {
    /// How messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// Rows to import. Every error says what is wrong with the file, without its name.
pub(super) struct Source {
    pub(super) schema: SchemaRef,
    pub(super) batches: Box<dyn Iterator<Item = Result<RecordBatch, String>> + Send>,
    pub(super) reading: Reading,
}

/// How far a source has been read: in bytes, rows or batches, as its format allows.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// `None` where the end is not known.
    pub(super) total: Option<u64>,
    at: Arc<AtomicU64>,
    /// The last eight bytes.
    last: Arc<AtomicU64>,
}

impl Reading {
    fn of(total: u64) -> Self {
        Self { total: Some(total), ..Self::default() }
    }

    pub(super) fn at(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }

    fn add(&self, more: u64) {
        self.at.fetch_add(more, Ordering::Relaxed);
    }
}

/// Opens what is to be imported.
pub(super) fn open(input: &Input, format: FileFormat, style: &CsvStyle) -> Result<Source, String> {
    let path = match input {
        Input::Stdin => {
            let stdin = Counted { inner: std::io::stdin(), reading: Reading::default() };
            return match format {
                FileFormat::Csv => csv(stdin, style),
                FileFormat::Arrow | FileFormat::ArrowStream => arrow_stream(stdin),
                FileFormat::Parquet => Err("Parquet cannot be read from a pipe: name a file".to_owned()),
            };
        }
        Input::File(path) => path,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    if format == FileFormat::Parquet {
        return parquet(file);
    }
    let reading = Reading::of(file.metadata().map_err(unreadable)?.len());
    if format == FileFormat::Csv {
        return csv(Counted { inner: file, reading }, style);
    }
    let mut first = Vec::new();
    Read::by_ref(&mut file).take(ARROW_FILE.len() as u64).read_to_end(&mut first).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    match first == ARROW_FILE {
        true => arrow_file(file),
        false => arrow_stream(Counted { inner: file, reading }),
    }
}

fn parquet(file: File) -> Result<Source, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable)?;
    let metadata = builder.metadata();
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let rows = count(metadata.file_metadata().num_rows());
    let bytes: u64 = metadata.row_groups().iter().map(|group| count(group.total_byte_size())).sum();
    let row_bytes = bytes.checked_div(rows).unwrap_or(0).max(1);
    let batch_rows = usize::try_from(BATCH_BYTES / row_bytes).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS);
    let schema = Arc::clone(builder.schema());
    let reader = builder.with_batch_size(batch_rows).build().map_err(unreadable)?;
    let reading = Reading::of(rows);
    let counted = reading.clone();
    let batches = reader.map(move |batch| {
        let batch = batch.map_err(unreadable)?;
        counted.add(batch.num_rows() as u64);
        Ok(batch)
    });
    Ok(Source { schema, batches: Box::new(batches), reading })
}

fn arrow_file(file: File) -> Result<Source, String> {
    let reader = FileReader::try_new_buffered(file, None).map_err(unreadable)?;
    let (schema, reading) = (reader.schema(), Reading::of(reader.num_batches() as u64));
    let counted = reading.clone();
    let batches = reader.map(move |batch| {
        counted.add(1);
        batch.map_err(unreadable)
    });
    Ok(Source { schema, batches: Box::new(batches), reading })
}

fn arrow_stream<R: Read + Send + 'static>(reader: Counted<R>) -> Result<Source, String> {
    let reading = reader.reading.clone();
    let reader = StreamReader::try_new(BufReader::new(reader), None).map_err(unreadable)?;
    let schema = reader.schema();
    let ends = reading.clone();
    let end = std::iter::once(()).filter_map(move |()| {
        let is_whole = ends.last.load(Ordering::Relaxed) == STREAM_END;
        (!is_whole).then(|| Err("the stream breaks off: it has no end".to_owned()))
    });
    Ok(Source { schema, batches: Box::new(reader.map(|batch| batch.map_err(unreadable)).chain(end)), reading })
}

/// All columns are texts, whose types the table says.
fn csv<R: Read + Send + 'static>(mut reader: Counted<R>, style: &CsvStyle) -> Result<Source, String> {
    let reading = reader.reading.clone();
    let mut head = Vec::new();
    Read::by_ref(&mut reader).take(HEAD_BYTES).read_to_end(&mut head).map_err(unreadable)?;
    // What spreadsheets begin a file of UTF-8 with.
    if head.starts_with(b"\xEF\xBB\xBF") {
        head.drain(..3);
    }
    let format = Format::default().with_header(true).with_delimiter(style.delimiter);
    let (header, _) = format.infer_schema(head.as_slice(), Some(0)).map_err(unreadable)?;
    if header.fields().is_empty() {
        return Err("it is empty: a CSV begins with a line of the columns' names".to_owned());
    }
    let fields: Vec<Field> =
        header.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let builder = ReaderBuilder::new(Arc::clone(&schema)).with_header(true).with_delimiter(style.delimiter);
    let reader = builder.with_batch_size(CSV_BATCH_ROWS).build(Cursor::new(head).chain(reader)).map_err(unreadable)?;
    let null = style.null.clone();
    let batches = reader.map(move |batch| with_nulls(&batch.map_err(unreadable)?, &null));
    Ok(Source { schema, batches: Box::new(batches), reading })
}

/// The reader takes every empty field for NULL: with another sign for it they are empty texts.
fn with_nulls(batch: &RecordBatch, null: &str) -> Result<RecordBatch, String> {
    if null.is_empty() {
        return Ok(batch.clone());
    }
    let column = |column: &ArrayRef| -> ArrayRef {
        let texts = column.as_string::<i32>();
        let text = |row| if texts.is_null(row) { "" } else { texts.value(row) };
        Arc::new((0..texts.len()).map(|row| Some(text(row)).filter(|text| *text != null)).collect::<StringArray>())
    };
    RecordBatch::try_new(batch.schema(), batch.columns().iter().map(column).collect()).map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> String {
    format!("cannot be read: {error}")
}

/// A reader that says how far it is.
struct Counted<R> {
    inner: R,
    reading: Reading,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.reading.add(length as u64);
        let mut last = self.reading.last.load(Ordering::Relaxed);
        for byte in &buffer[length.saturating_sub(8)..length] {
            last = last << 8 | u64::from(*byte);
        }
        self.reading.last.store(last, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;
    use arrow::ipc::writer::StreamWriter;

    use super::*;

    fn counted(bytes: Vec<u8>) -> Counted<Cursor<Vec<u8>>> {
        Counted { inner: Cursor::new(bytes), reading: Reading::default() }
    }

    fn texts(csv_text: &str, null: &str) -> Vec<Vec<Option<String>>> {
        let style = CsvStyle { delimiter: b',', null: null.to_owned() };
        let source = csv(counted(csv_text.as_bytes().to_vec()), &style).unwrap();
        let mut rows = vec![];
        for batch in source.batches.map(Result::unwrap) {
            for row in 0..batch.num_rows() {
                let text = |column: &ArrayRef| {
                    let column = column.as_string::<i32>();
                    column.is_valid(row).then(|| column.value(row).to_owned())
                };
                rows.push(batch.columns().iter().map(text).collect());
            }
        }
        rows
    }

    #[test]
    fn what_stands_for_null_is_null_and_nothing_else() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts("\u{feff}a,b\n,NA\n", ""), [[None, some("NA")]]);
        assert_eq!(texts("a,b\n,NA\n", "NA"), [[some(""), None]]);
    }

    #[test]
    fn a_stream_that_breaks_off_between_two_batches_is_not_whole() {
        let column: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let read = |bytes: &[u8]| -> Result<Vec<RecordBatch>, String> {
            arrow_stream(counted(bytes.to_vec()))?.batches.collect()
        };
        assert_eq!(read(&bytes).unwrap().len(), 1);
        for cut in 1..=bytes.len() {
            assert!(read(&bytes[..bytes.len() - cut]).is_err(), "without the last {cut} bytes");
        }
    }
}
