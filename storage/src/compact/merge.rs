//! Merges batch files by `_id`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::delete_log::MaskedRow;
use crate::error::{Result, StorageError};
use crate::evolution::Evolution;
use crate::segment::{SegmentWriter, rows_at_once};
use crate::system_columns::{CommitTs, DELETED, ID, UPDATED, updated_array};

/// Rows that are written at once.
const CHUNK_ROWS: usize = 8192;

/// Bytes of rows that are in memory at a time, of all inputs together and of what is written next, however large the rows are.
const MEMORY_BYTES: u64 = 128 << 20;

/// A file to merge.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    /// Its masked rows, in order of position.
    pub(super) masked: &'a [MaskedRow],
    /// `_updated` of all rows, when the file does not hold it.
    pub(super) updated: Option<CommitTs>,
    /// How its columns become those of the output.
    pub(super) evolution: &'a Evolution,
}

/// Writes the rows of the inputs, each with its masked rows in order of position, to `output`. Of the masked rows only
/// those go along that `keep` takes; they are given back with their new positions. `go_on` is told of rows and bytes, and may end it.
pub(super) fn merge<'a>(
    inputs: impl Iterator<Item = Source<'a>>,
    keep: impl Fn(&MaskedRow) -> bool,
    output: &mut SegmentWriter,
    mut go_on: impl FnMut(u64, u64) -> Result<()>,
) -> Result<Vec<MaskedRow>> {
    let schema = Arc::clone(output.schema());
    let opened = inputs.map(|source| Ok((open(source.path)?, source))).collect::<Result<Vec<_>>>()?;
    let bytes_each = MEMORY_BYTES / (opened.len() as u64 + 1);
    let rows_each = opened.iter().map(|(file, _)| rows_at_once(file.metadata(), bytes_each, CHUNK_ROWS));
    let chunk_rows = rows_each.min().unwrap_or(CHUNK_ROWS);
    let opened = opened.into_iter().map(|(file, source)| Input::new(file, source, &schema, chunk_rows));
    let mut inputs: Vec<Input<'a>> = opened.collect::<Result<_>>()?;
    let mut heads = BinaryHeap::new();
    for (at, input) in inputs.iter_mut().enumerate() {
        if input.load(&keep)? {
            heads.push(Reverse((input.id(), at)));
        }
    }
    let mut masked = Vec::new();
    let mut taken: Vec<(usize, usize)> = Vec::with_capacity(chunk_rows);
    while let Some(Reverse((_, at))) = heads.pop() {
        let input = &mut inputs[at];
        taken.push((at, input.row));
        if let Some(row) = input.masked_here() {
            masked.push(MaskedRow { position: (output.row_count() + taken.len() - 1) as u32, ..row });
        }
        input.row += 1;
        let exhausted = input.row == input.batch.num_rows();
        if exhausted || taken.len() == chunk_rows {
            let bytes = write(&inputs, &taken, output)?;
            go_on(taken.len() as u64, bytes)?;
            taken.clear();
        }
        if !exhausted || inputs[at].load(&keep)? {
            heads.push(Reverse((inputs[at].id(), at)));
        }
    }
    Ok(masked)
}

/// Gives the bytes of the rows.
fn write(inputs: &[Input<'_>], taken: &[(usize, usize)], output: &mut SegmentWriter) -> Result<u64> {
    let batches: Vec<&RecordBatch> = inputs.iter().map(|input| &input.batch).collect();
    let rows = interleave_record_batch(&batches, taken)?;
    output.write_batch(&rows)?;
    Ok(rows.get_array_memory_size() as u64)
}

/// A file that is being read.
struct Input<'a> {
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    /// Rows that go along.
    batch: RecordBatch,
    /// The masked ones among them, with their places in the batch, not yet passed.
    kept: std::vec::IntoIter<(usize, MaskedRow)>,
    next_kept: Option<(usize, MaskedRow)>,
    row: usize,
    /// Position of the first row that is not read yet.
    position: u32,
    /// Masked rows from that position on.
    masked: &'a [MaskedRow],
    /// `_updated` of all rows, when the file does not hold it.
    updated: Option<CommitTs>,
    evolution: &'a Evolution,
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(StorageError::io(format!("reading {}", path.display())))?;
    Ok(ParquetRecordBatchReaderBuilder::try_new(file)?)
}

impl<'a> Input<'a> {
    fn new(
        file: ParquetRecordBatchReaderBuilder<File>,
        source: Source<'a>,
        schema: &SchemaRef,
        chunk_rows: usize,
    ) -> Result<Self> {
        let Source { masked, updated, evolution, .. } = source;
        let reader = file.with_batch_size(chunk_rows).build()?;
        Ok(Self {
            reader,
            schema: Arc::clone(schema),
            batch: RecordBatch::new_empty(Arc::clone(schema)),
            kept: Vec::new().into_iter(),
            next_kept: None,
            row: 0,
            position: 0,
            masked,
            updated,
            evolution,
        })
    }

    /// Reads on to the next rows that go along; false at the end.
    fn load(&mut self, keep: &impl Fn(&MaskedRow) -> bool) -> Result<bool> {
        self.row = 0;
        self.batch = RecordBatch::new_empty(Arc::clone(&self.schema));
        while self.batch.num_rows() == 0 {
            let Some(read) = self.reader.next() else { return Ok(false) };
            let read = conform(&read?, &self.schema, self.evolution, self.updated)?;
            let (from, rows) = (self.position, read.num_rows());
            self.position += rows as u32;
            let (here, later) = self.masked.split_at(self.masked.partition_point(|row| row.position < self.position));
            self.masked = later;
            let mut goes = vec![true; rows];
            let mut kept = Vec::new();
            let mut left_out = 0;
            for row in here {
                let place = (row.position - from) as usize;
                match keep(row) {
                    true => kept.push((place - left_out, *row)),
                    false => {
                        goes[place] = false;
                        left_out += 1;
                    }
                }
            }
            self.batch = if left_out == 0 { read } else { filter_record_batch(&read, &BooleanArray::from(goes))? };
            self.kept = kept.into_iter();
            self.next_kept = self.kept.next();
        }
        Ok(true)
    }

    fn id(&self) -> i64 {
        self.batch.column(0).as_primitive::<Int64Type>().value(self.row)
    }

    /// The masked row at the current place.
    fn masked_here(&mut self) -> Option<MaskedRow> {
        match self.next_kept {
            Some((place, row)) if place == self.row => {
                self.next_kept = self.kept.next();
                Some(row)
            }
            _ => None,
        }
    }
}

/// The rows with the columns of the table as it is now. In every file the user's come after `_id`.
fn conform(
    batch: &RecordBatch,
    schema: &SchemaRef,
    evolution: &Evolution,
    updated: Option<CommitTs>,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let own = |name: &str| {
        let missing = || StorageError::Damaged(format!("a batch file has no column '{name}'"));
        batch.column_by_name(name).cloned().ok_or_else(missing)
    };
    let deleted = own(DELETED)?;
    let deleted = deleted.as_boolean();
    let column = |(place, field): (usize, &Arc<arrow::datatypes::Field>)| -> Result<ArrayRef> {
        match (field.name().as_str(), updated) {
            (UPDATED, Some(updated)) => Ok(updated_array(vec![updated.get(); rows])),
            (name @ (ID | UPDATED | DELETED), _) => own(name),
            _ => {
                let read = |old: usize| Arc::clone(batch.column(old + 1));
                Ok(evolution.column(place - 1, rows, read, |row| deleted.value(row))?)
            }
        }
    };
    let columns = schema.fields().iter().enumerate().map(column).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
