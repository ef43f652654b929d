//! Results as text (or Arrow) on a stream. The formats for machines stream; the table waits for all rows, whose widths
//! it needs.

use std::io::Write;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use clap::ValueEnum;
use futures::TryStreamExt;
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
        match self.format {
            Format::Table => self.table(rows).await,
            Format::Csv => self.csv(rows).await,
            Format::Json => self.json(rows).await,
            Format::Arrow => self.arrow(rows).await,
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

    async fn table(&mut self, mut rows: Rows) -> Result<(), String> {
        // The header is that of the first batch, which there need not be.
        let mut batches = vec![RecordBatch::new_empty(rows.schema().clone())];
        while let Some(batch) = rows.try_next().await.map_err(|error| error.to_string())? {
            batches.push(batch);
        }
        self.batches(&batches)
    }

    /// Draws batches as one table, whatever the format.
    pub(super) fn batches(&mut self, batches: &[RecordBatch]) -> Result<(), String> {
        let options = FormatOptions::default().with_display_error(true).with_null("NULL");
        let table = pretty_format_batches_with_options(batches, &options).map_err(unprintable)?;
        writeln!(self.out, "{table}").map_err(unprintable)?;
        let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
        self.summary(&plural(count as u64, "row"))
    }

    async fn csv(&mut self, mut rows: Rows) -> Result<(), String> {
        let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut self.out);
        // The header line comes with the first batch, also with an empty one.
        let header = RecordBatch::new_empty(rows.schema().clone());
        writer.write(&header).map_err(unprintable)?;
        while let Some(batch) = rows.try_next().await.map_err(|error| error.to_string())? {
            writer.write(&batch).map_err(unprintable)?;
        }
        Ok(())
    }

    async fn json(&mut self, mut rows: Rows) -> Result<(), String> {
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        let mut writer = builder.build::<_, LineDelimited>(&mut self.out);
        while let Some(batch) = rows.try_next().await.map_err(|error| error.to_string())? {
            writer.write(&batch).map_err(unprintable)?;
        }
        writer.finish().map_err(unprintable)
    }

    async fn arrow(&mut self, mut rows: Rows) -> Result<(), String> {
        let mut writer = StreamWriter::try_new(&mut self.out, rows.schema()).map_err(unprintable)?;
        while let Some(batch) = rows.try_next().await.map_err(|error| error.to_string())? {
            writer.write(&batch).map_err(unprintable)?;
        }
        writer.finish().map_err(unprintable)
    }

    fn summary(&mut self, text: &str) -> Result<(), String> {
        let time = if self.timing { format!(" ({})", human(self.started.elapsed())) } else { String::new() };
        writeln!(self.out, "{text}{time}").map_err(unprintable)
    }
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
