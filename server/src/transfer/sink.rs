//! What is exported, into a file of its format.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Type, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::files::FileFormat;
use super::{CsvStyle, nested};

/// Bytes of a row group that is being written, all of them in memory.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// A file that is being written. Errors say what is wrong, without the file's name.
pub(super) enum Sink {
    Parquet(Box<ArrowWriter<File>>),
    Csv(Box<CsvFile>),
    Arrow(Box<FileWriter<BufWriter<File>>>),
    ArrowStream(Box<StreamWriter<BufWriter<File>>>),
}

/// A CSV, and what it is of.
pub(super) struct CsvFile {
    writer: csv::Writer<BufWriter<File>>,
    style: CsvStyle,
    rows: u64,
}

impl Sink {
    /// Begins a file of rows of this schema.
    pub(super) fn new(file: File, schema: &SchemaRef, format: FileFormat, style: &CsvStyle) -> Result<Self, String> {
        Ok(match format {
            FileFormat::Parquet => {
                let properties = properties(schema)?;
                let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties)).map_err(unwritable)?;
                Self::Parquet(Box::new(writer))
            }
            FileFormat::Csv => {
                let builder = csv::WriterBuilder::new().with_header(true).with_delimiter(style.delimiter);
                let writer = builder.with_null(style.null.clone()).build(BufWriter::new(file));
                let mut csv = CsvFile { writer, style: style.clone(), rows: 0 };
                // The header line comes with the first rows, also with none.
                csv.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
                Self::Csv(Box::new(csv))
            }
            FileFormat::Arrow => Self::Arrow(Box::new(FileWriter::try_new_buffered(file, schema).map_err(unwritable)?)),
            FileFormat::ArrowStream => {
                Self::ArrowStream(Box::new(StreamWriter::try_new_buffered(file, schema).map_err(unwritable)?))
            }
        })
    }

    /// Adds rows.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), String> {
        match self {
            Self::Parquet(writer) => {
                writer.write(batch).map_err(unwritable)?;
                match writer.in_progress_size() > ROW_GROUP_BYTES {
                    true => writer.flush().map_err(unwritable),
                    false => Ok(()),
                }
            }
            Self::Csv(csv) => csv.write(batch),
            Self::Arrow(writer) => writer.write(batch).map_err(unwritable),
            Self::ArrowStream(writer) => writer.write(batch).map_err(unwritable),
        }
    }

    /// Ends the file, and has it on the disk.
    pub(super) fn finish(self) -> Result<(), String> {
        let buffered = |writer: BufWriter<File>| writer.into_inner().map_err(|error| unwritable(error.error()));
        let file = match self {
            Self::Parquet(writer) => writer.into_inner().map_err(unwritable)?,
            Self::Csv(csv) => buffered(csv.writer.into_inner())?,
            Self::Arrow(writer) => buffered(writer.into_inner().map_err(unwritable)?)?,
            Self::ArrowStream(writer) => buffered(writer.into_inner().map_err(unwritable)?)?,
        };
        file.sync_all().map_err(unwritable)
    }
}

/// Floats have no statistics: many readers do not know that NaN is in none.
fn properties(schema: &SchemaRef) -> Result<WriterProperties, String> {
    let columns = ArrowSchemaConverter::new().convert(schema).map_err(unwritable)?;
    let mut properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
    for column in columns.columns() {
        if matches!(column.physical_type(), Type::FLOAT | Type::DOUBLE) {
            properties = properties.set_column_statistics_enabled(column.path().clone(), EnabledStatistics::None);
        }
    }
    Ok(properties.build())
}

impl CsvFile {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let schema = batch.schema();
        let mut fields = Vec::with_capacity(batch.num_columns());
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (field, values) in schema.fields().iter().zip(batch.columns()) {
            let at = |row: usize| format!("column '{}', row {}", field.name(), self.rows + row as u64 + 1);
            let column = match field.data_type() {
                DataType::Duration(_) => cast(values, &DataType::Int64).map_err(unwritable)?,
                data_type if data_type.is_nested() => nested::texts(values, field)
                    .map_err(|misfit| format!("{}: {}; Parquet and Arrow can hold it", at(misfit.row), misfit.why))?,
                _ => Arc::clone(values),
            };
            if let Some(row) = self.first_like_null(&column, field)? {
                return Err(format!(
                    "{}: it cannot be told from NULL, which is '{}' in this CSV: say --null with another text",
                    at(row),
                    self.style.null
                ));
            }
            fields.push(Field::new(field.name(), column.data_type().clone(), true));
            columns.push(column);
        }
        self.rows += batch.num_rows() as u64;
        let texts = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unwritable)?;
        self.writer.write(&texts).map_err(unwritable)
    }

    /// The first row whose value is written like NULL. The empty field is only a text in a column that has no NULL.
    fn first_like_null(&self, values: &ArrayRef, field: &Field) -> Result<Option<usize>, String> {
        let null = self.style.null.as_str();
        if null.is_empty() && values.data_type() == &DataType::Utf8 {
            let texts = values.as_string::<i32>();
            let is_like = |row: &usize| field.is_nullable() && texts.is_valid(*row) && texts.value(*row).is_empty();
            return Ok((0..texts.len()).find(is_like));
        }
        if null.is_empty()
            && !matches!(values.data_type(), DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary)
        {
            // Nothing else is written as nothing.
            return Ok(None);
        }
        let formatter = ArrayFormatter::try_new(values, &FormatOptions::new()).map_err(unwritable)?;
        let is_like = |row: &usize| values.is_valid(*row) && formatter.value(*row).to_string() == null;
        Ok((0..values.len()).find(is_like))
    }
}

fn unwritable(error: impl std::fmt::Display) -> String {
    format!("cannot be written: {error}")
}
