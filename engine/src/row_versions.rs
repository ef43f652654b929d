//! Row versions of batches: encoded, with the unique keys that they get and lose.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Int64Type, Schema, TimestampNanosecondType, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::MemoryReservation;
use seracdb_storage::StorageError;
use seracdb_storage::bulk::PendingFile;
use seracdb_storage::catalog::TableRecord;
use seracdb_storage::commit::{Location, ScopeWrite, Superseded, Values, check_size};
use seracdb_storage::keys::{BatchNumber, Generation, Scope};
use seracdb_storage::row_codec::{RowLayout, encode_rows};
use seracdb_storage::system_columns::{CommitTs, RowId};
use seracdb_storage::unique::{KeyEdits, KeyWrite, UniqueKey};

use crate::constraints::Constraints;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::returning::Returned;
use crate::scan::LOCATION_COLUMNS;
use crate::sql::errors::from_datafusion;
use crate::transaction::{STAGED_FILE, staged_place};

/// Columns before the user's in the rows that UPDATE and DELETE find: file, position, `_id`, `_updated`.
pub(crate) const FOUND_COLUMNS: usize = LOCATION_COLUMNS.len() + 2;

/// Rows of a client that are cast and encoded at once.
const ROWS_AT_ONCE: usize = 1 << 16;

/// A batch in pieces of so few rows that columns can be made for them without much memory.
pub(crate) fn pieces(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    (0..rows).step_by(ROWS_AT_ONCE).map(move |start| batch.slice(start, ROWS_AT_ONCE.min(rows - start)))
}

/// The rows of a commit: hot ones, refused as soon as they are too many for one, and those that are in files already.
#[derive(Default)]
pub(crate) struct Writes {
    pub(crate) writes: Vec<ScopeWrite>,
    pub(crate) files: Vec<Arc<PendingFile>>,
    /// What they do to unique keys, not checked yet.
    pub(crate) keys: KeyEdits,
    /// What becomes of unique keys, once that is checked.
    pub(crate) key_writes: Vec<KeyWrite>,
    /// The rows again, for RETURNING.
    pub(crate) returned: Option<Returned>,
    bytes: usize,
    rows_in_files: u64,
    /// What is gathered, as memory of a user; `None` = it is counted elsewhere.
    memory: Option<MemoryReservation>,
}

impl Writes {
    /// None yet. `returned`: where they are to be given back.
    pub(crate) fn new(returned: Option<Returned>) -> Self {
        Self { returned, ..Self::default() }
    }

    /// The same, whose rows are counted as this memory until they are committed, and refused when there is too little.
    pub(crate) fn counted_as(self, memory: MemoryReservation) -> Self {
        Self { memory: Some(memory), ..self }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows_in_files + self.writes.iter().map(|write| write.ids.len() as u64).sum::<u64>()
    }

    /// Adds new rows. `columns`: the user columns in order, as [`RowEncoder::complete`] gives them.
    pub(crate) fn insert(&mut self, encoder: &RowEncoder<'_>, ids: Vec<RowId>, columns: &[ArrayRef]) -> Result<()> {
        self.insert_carrying(encoder, ids, columns, &[])
    }

    /// The same, with what RETURNING names besides.
    pub(crate) fn insert_carrying(
        &mut self,
        encoder: &RowEncoder<'_>,
        ids: Vec<RowId>,
        columns: &[ArrayRef],
        carried: &[ArrayRef],
    ) -> Result<()> {
        encoder.add_keys(&mut self.keys, &ids, columns)?;
        if let Some(returned) = &mut self.returned {
            returned.push_new(&ids, &[columns, carried].concat())?;
        }
        self.push(encoder.insert(ids, columns)?)
    }

    /// Adds new versions of found rows: of the columns that [`RowEncoder::supersede`] takes, those that are carried along for
    /// RETURNING, and the old values of the encoder's old columns at the end.
    pub(crate) fn supersede(&mut self, encoder: &RowEncoder<'_>, found: RecordBatch, delete: bool) -> Result<()> {
        if found.num_rows() == 0 {
            return Ok(());
        }
        let found = if delete { found } else { encoder.complete_found(found)? };
        let before_old = found.num_columns() - encoder.old.len();
        if let Some(returned) = &mut self.returned {
            // A deleted row is given as it was, one that is changed as it becomes.
            let updated = delete.then(|| Arc::clone(found.column(FOUND_COLUMNS - 1)));
            let columns = &found.columns()[FOUND_COLUMNS..before_old];
            returned.push(Arc::clone(found.column(FOUND_COLUMNS - 2)), columns, updated)?;
        }
        let write = encoder.supersede(&found, delete)?;
        encoder.replace_keys(&mut self.keys, &write.ids, &found, delete, before_old)?;
        self.push(write)
    }

    fn push(&mut self, write: ScopeWrite) -> Result<()> {
        self.bytes += write.size_bytes();
        let bytes = self.bytes + self.keys.size_bytes();
        check_size(bytes)?;
        self.writes.push(write);
        let Some(memory) = &self.memory else { return Ok(()) };
        let again = self.returned.as_ref().map_or(0, Returned::size_bytes);
        memory.try_resize(bytes.saturating_add(again)).map_err(|error| from_datafusion(error, &LOCATION_COLUMNS))
    }

    /// Adds others, which give nothing back.
    pub(crate) fn join(&mut self, others: Self) -> Result<()> {
        self.keys.append(others.keys);
        self.add_files(others.files, others.rows_in_files);
        others.writes.into_iter().try_for_each(|write| self.push(write))
    }

    pub(crate) fn add_files(&mut self, files: Vec<Arc<PendingFile>>, rows: u64) {
        self.files.extend(files);
        self.rows_in_files += rows;
    }
}

/// Makes row versions of batches.
pub(crate) struct RowEncoder<'a> {
    table: &'a TableRecord,
    constraints: Arc<Constraints>,
    scope: Scope,
    layout: RowLayout,
    keys: Vec<UniqueKey>,
    /// Places of the columns of which the old values are there when rows are found, rising.
    old: Vec<usize>,
    /// Whether errors may tell what is in the rows.
    shows_values: bool,
}

impl<'a> RowEncoder<'a> {
    pub(crate) fn new(engine: &Engine, table: &'a TableRecord, scope: Scope) -> Result<Self> {
        let constraints = engine.constraints(table)?;
        let schema = table.schema();
        let layout = RowLayout::new(schema.version, &schema.user_fields().into()).map_err(StorageError::from)?;
        let keys = UniqueKey::of_table(table);
        Ok(Self { table, constraints, scope, layout, keys, old: vec![], shows_values: true })
    }

    /// The same, whose errors tell what is in the rows, or do not.
    pub(crate) fn showing_values(self, shows_values: bool) -> Self {
        Self { shows_values, ..self }
    }

    /// The same for rows that are found with the old values of these columns: unique keys of others stay as they are.
    pub(crate) fn with_old(self, old: Vec<usize>) -> Self {
        let keys = self.keys.into_iter().filter(|key| key.places.iter().all(|place| old.contains(place))).collect();
        Self { keys, old, ..self }
    }

    /// The user columns of new rows with those that are generated, checked. `columns`: in order.
    pub(crate) fn complete(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<ArrayRef>> {
        let columns = self.constraints.complete(columns, rows, self.shows_values)?;
        self.require_values(&columns)?;
        Ok(columns)
    }

    /// The same of found rows, as [`RowEncoder::supersede`] takes them.
    fn complete_found(&self, found: RecordBatch) -> Result<RecordBatch> {
        if self.constraints.is_empty() {
            return Ok(found);
        }
        let rows = found.num_rows();
        let completed = self.complete(self.new_columns(&found).to_vec(), rows)?;
        let mut columns = found.columns().to_vec();
        columns.splice(FOUND_COLUMNS..FOUND_COLUMNS + completed.len(), completed);
        let failed = |error: arrow::error::ArrowError| from_datafusion(error.into(), &LOCATION_COLUMNS);
        let fields =
            found.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
    }

    /// New rows. `columns`: the user columns in order.
    fn insert(&self, ids: Vec<RowId>, columns: &[ArrayRef]) -> Result<ScopeWrite> {
        let values = self.values(ids.len(), columns)?;
        Ok(ScopeWrite { scope: self.scope, ids, values, supersedes: vec![] })
    }

    /// The unique keys of new rows.
    pub(crate) fn add_keys(&self, edits: &mut KeyEdits, ids: &[RowId], columns: &[ArrayRef]) -> Result<()> {
        for key in &self.keys {
            edits.add(key.encode_rows(columns, ids.len())?, ids);
        }
        Ok(())
    }

    /// New versions of found rows. `found`: location, `_id`, `_updated`, then the new user columns unless they are
    /// deleted.
    fn supersede(&self, found: &RecordBatch, delete: bool) -> Result<ScopeWrite> {
        let files = found.column(0).as_primitive::<UInt64Type>();
        let positions = found.column(1).as_primitive::<Int64Type>();
        let ids = found.column(2).as_primitive::<Int64Type>();
        let updated = found.column(3).as_primitive::<TimestampNanosecondType>();
        let supersedes = (0..found.num_rows()).map(|row| {
            let location = match (files.value(row), positions.value(row) as u32) {
                (0, generation) => Location::Hot(Generation(generation)),
                (STAGED_FILE, _) => return staged_place(),
                (file, position) => Location::Cold(BatchNumber(file), position),
            };
            Superseded { updated: CommitTs::stored(updated.value(row)), location }
        });
        let values = match delete {
            true => Values::Tombstones(self.layout.schema_version()),
            false => self.values(found.num_rows(), self.new_columns(found))?,
        };
        Ok(ScopeWrite {
            scope: self.scope,
            ids: ids.values().iter().map(|id| RowId::stored(*id)).collect(),
            values,
            supersedes: supersedes.collect(),
        })
    }

    fn new_columns<'b>(&self, found: &'b RecordBatch) -> &'b [ArrayRef] {
        &found.columns()[FOUND_COLUMNS..][..self.table.schema().columns.len()]
    }

    /// What the new versions of found rows do to unique keys.
    fn replace_keys(
        &self,
        edits: &mut KeyEdits,
        ids: &[RowId],
        found: &RecordBatch,
        delete: bool,
        before: usize,
    ) -> Result<()> {
        let old = &found.columns()[before..];
        for key in &self.keys {
            let of_key = key.places.iter().filter_map(|place| self.old.iter().position(|old| old == place));
            let columns: Vec<ArrayRef> = of_key.map(|place| Arc::clone(&old[place])).collect();
            let had = key.encode(&columns, ids.len())?;
            match delete {
                true => edits.remove(had, ids),
                false => edits.replace(had, key.encode_rows(self.new_columns(found), ids.len())?, ids),
            }
        }
        Ok(())
    }

    fn values(&self, rows: usize, columns: &[ArrayRef]) -> Result<Values> {
        self.require_values(columns)?;
        Ok(Values::Rows(encode_rows(&self.layout, rows, columns).map_err(StorageError::from)?))
    }

    /// Refuses NULL where the table wants a value. `columns`: the user columns in order.
    fn require_values(&self, columns: &[ArrayRef]) -> Result<()> {
        for (column, values) in self.table.schema().columns.iter().zip(columns) {
            if !column.nullable && values.null_count() > 0 {
                return Err(EngineError::invalid(format!(
                    "column '{}' of table '{}.{}' is NOT NULL, but a value is NULL",
                    column.name, self.table.namespace, self.table.name
                )));
            }
        }
        Ok(())
    }
}
