//! New rows of a statement on their way into a table: hot rows when they are few, files when they are many.

use arrow::array::ArrayRef;
use seracdb_storage::bulk::BulkLoad;
use seracdb_storage::catalog::{TableKind, TableRecord};
use seracdb_storage::commit::check_size;
use seracdb_storage::keys::Scope;
use seracdb_storage::unique::KeyEdits;

use crate::engine::Engine;
use crate::error::Result;
use crate::row_versions::{RowEncoder, Writes};
use crate::unpacked::unpacked_bytes_of;

/// Takes rows as they come. What was not finished leaves nothing.
pub(crate) struct Load<'a> {
    engine: &'a Engine,
    table: &'a TableRecord,
    scope: Scope,
    encoder: RowEncoder<'a>,
    /// Rows that may stay few.
    waiting: Vec<(Vec<ArrayRef>, usize)>,
    waiting_bytes: usize,
    bulk: Option<BulkLoad>,
    /// Unique keys of the rows in files.
    keys: KeyEdits,
    rows: u64,
}

impl<'a> Load<'a> {
    pub(crate) fn new(engine: &'a Engine, table: &'a TableRecord, scope: Scope) -> Result<Self> {
        let (encoder, keys) = (RowEncoder::new(engine, table, scope)?, KeyEdits::default());
        Ok(Self { engine, table, scope, encoder, waiting: vec![], waiting_bytes: 0, bulk: None, keys, rows: 0 })
    }

    /// Adds rows. `columns`: the user columns in order.
    pub(crate) async fn push(&mut self, columns: Vec<ArrayRef>, rows: usize) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        let columns = self.encoder.complete(columns, rows)?;
        self.rows += rows as u64;
        if self.bulk.is_some() {
            return self.write(columns, rows).await;
        }
        self.waiting_bytes = self.waiting_bytes.saturating_add(unpacked_bytes_of(&columns, rows));
        self.waiting.push((columns, rows));
        // Rows of streams never leave the hot tier.
        if self.table.kind != TableKind::Stream && self.waiting_bytes >= self.engine.bulk_bytes_min {
            self.bulk = Some(self.engine.store.begin_bulk_load(self.table, self.scope).await?);
            for (columns, rows) in std::mem::take(&mut self.waiting) {
                self.write(columns, rows).await?;
            }
        }
        Ok(())
    }

    /// Adds rows to files.
    async fn write(&mut self, columns: Vec<ArrayRef>, rows: usize) -> Result<()> {
        let Some(bulk) = &mut self.bulk else { return Ok(()) };
        let ids = self.engine.store.new_ids(rows);
        self.encoder.add_keys(&mut self.keys, &ids, &columns)?;
        check_size(self.keys.size_bytes())?;
        Ok(bulk.write(&ids, columns).await?)
    }

    /// Bytes of rows that wait in memory, and of keys of others.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.keys.size_bytes() + if self.bulk.is_some() { 0 } else { self.waiting_bytes }
    }

    /// What is to be committed.
    pub(crate) async fn finish(self) -> Result<Writes> {
        let mut writes = Writes::default();
        match self.bulk {
            Some(bulk) => {
                writes.add_files(bulk.finish().await?, self.rows);
                writes.keys = self.keys;
            }
            None => {
                for (columns, rows) in self.waiting {
                    writes.insert(&self.encoder, self.engine.store.new_ids(rows), &columns)?;
                }
            }
        }
        Ok(writes)
    }
}
