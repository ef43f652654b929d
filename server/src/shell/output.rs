//! Results as text (or Arrow) on a stream. The formats for machines stream; the table waits for all rows, whose widths
//! it needs.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_options;
use clap::ValueEnum;
use futures::{Stream, TryStreamExt, stream};
use seracdb_client::Rows;

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A drawn table with the number of rows.
    Table,
    /// Comma separated, with a header line.
    Csv,
    /// One JSON object per row and line.
    Json,
    /// An Arrow IPC stream per query.
    Arrow,
}

/// A result on its way to the printer.
trait Batches: Stream<Item = Result<RecordBatch, String>> + Unpin {}

impl<S: Stream<Item = Result<RecordBatch, String>> + Unpin> Batches for S {}

/// How the table shows a value.
const TABLE_CELLS: FormatOptions<'static> = FormatOptions::new().with_display_error(true).with_null("NULL");

/// Prints results to `out`.
pub(super) struct Printer<W> {
    format: Format,
    out: W,
    /// Whether the table format tells how long a statement took.
    pub(super) timing: bool,
    started: Instant,
}

impl<W: Write> Printer<W> {
    pub(super) fn new(format: Format, out: W) -> Self {
        Self { format, out, timing: false, started: Instant::now() }
    }

    /// Timing starts here.
    pub(super) fn start(&mut self) {
        self.started = Instant::now();
    }

    /// Prints a query's rows.
    pub(super) async fn rows(&mut self, rows: Rows) -> Result<(), String> {
        let schema = rows.schema().clone();
        self.stream(schema, rows.map_err(|error| super::said(&error))).await
    }

    /// Prints rows that are there.
    pub(super) async fn batch(&mut self, batch: RecordBatch) -> Result<(), String> {
        self.stream(batch.schema(), stream::iter([Ok(batch)])).await
    }

    /// Tells a person something; formats for machines get nothing.
    pub(super) fn say(&mut self, text: &str) -> Result<(), String> {
        match self.format {
            Format::Table => writeln!(self.out, "{text}").map_err(unprintable),
            _ => Ok(()),
        }
    }

    async fn stream(&mut self, schema: SchemaRef, rows: impl Batches) -> Result<(), String> {
        match self.format {
            Format::Table => self.table(schema, rows).await,
            Format::Csv => self.csv(schema, rows).await,
            Format::Json => self.json(rows).await,
            Format::Arrow => self.arrow(schema, rows).await,
        }?;
        self.out.flush().map_err(unprintable)
    }

    /// Tells how many rows an update changed; formats for machines get nothing.
    pub(super) fn changed(&mut self, count: u64) -> Result<(), String> {
        if self.format != Format::Table {
            return Ok(());
        }
        self.summary(&format!("{} changed", plural(count, "row")))
    }

    async fn table(&mut self, schema: SchemaRef, mut rows: impl Batches) -> Result<(), String> {
        // The header is that of the first batch, which there need not be.
        let mut batches = vec![RecordBatch::new_empty(schema)];
        while let Some(batch) = rows.try_next().await? {
            batches.push(batch);
        }
        let table = pretty_format_batches_with_options(&batches, &TABLE_CELLS).map_err(unprintable)?;
        writeln!(self.out, "{table}").map_err(unprintable)?;
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        self.summary(&plural(count as u64, "row"))
    }

    async fn csv(&mut self, schema: SchemaRef, mut rows: impl Batches) -> Result<(), String> {
        let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut self.out);
        // The header line comes with the first batch, also with an empty one.
        writer.write(&nested_as_text(&RecordBatch::new_empty(schema))?).map_err(unprintable)?;
        while let Some(batch) = rows.try_next().await? {
            writer.write(&nested_as_text(&batch)?).map_err(unprintable)?;
        }
        Ok(())
    }

    async fn json(&mut self, mut rows: impl Batches) -> Result<(), String> {
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, LineDelimited>(&mut self.out);
        while let Some(batch) = rows.try_next().await? {
            writer.write(&batch).map_err(unprintable)?;
        }
        writer.finish().map_err(unprintable)
    }

    async fn arrow(&mut self, schema: SchemaRef, mut rows: impl Batches) -> Result<(), String> {
        let mut writer = StreamWriter::try_new(&mut self.out, &schema).map_err(unprintable)?;
        while let Some(batch) = rows.try_next().await? {
            writer.write(&batch).map_err(unprintable)?;
        }
        writer.finish().map_err(unprintable)
    }

    fn summary(&mut self, text: &str) -> Result<(), String> {
        let time = if self.timing { format!(" ({})", human(self.started.elapsed())) } else { String::new() };
        writeln!(self.out, "{text}{time}").map_err(unprintable)
    }
}

/// The same rows with lists, structs and maps as texts: CSV has nothing for them.
fn nested_as_text(batch: &RecordBatch) -> Result<RecordBatch, String> {
    let mut fields = batch.schema().fields().to_vec();
    let mut columns = batch.columns().to_vec();
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        if field.data_type().is_nested() {
            *field = Arc::new(Field::new(field.name(), DataType::Utf8, true));
            *column = Arc::new(texts(column).map_err(unprintable)?);
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(unprintable)
}

fn texts(values: &dyn Array) -> Result<StringArray, ArrowError> {
    let formatter = ArrayFormatter::try_new(values, &TABLE_CELLS)?;
    Ok((0..values.len()).map(|row| values.is_valid(row).then(|| formatter.value(row).to_string())).collect())
}

fn plural(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn human(time: Duration) -> String {
    if time.as_secs() > 0 {
        format!("{:.2} s", time.as_secs_f64())
    } else {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    }
}

fn unprintable(error: impl std::fmt::Display) -> String {
    format!("cannot print the result: {error}")
}
