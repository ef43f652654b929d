//! New rows of a statement on their way into a table: hot rows when they are few, files when they are many.

use arrow::array::ArrayRef;
use seracdb_storage::bulk::BulkLoad;
use seracdb_storage::catalog::{TableKind, TableRecord};
use seracdb_storage::keys::Scope;

use crate::engine::Engine;
use crate::error::Result;
use crate::unpacked::unpacked_bytes_of;
use crate::write::{RowEncoder, Writes};

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
    rows: u64,
}

impl<'a> Load<'a> {
    pub(crate) fn new(engine: &'a Engine, table: &'a TableRecord, scope: Scope) -> Result<Self> {
        let encoder = RowEncoder::new(table, scope)?;
        Ok(Self { engine, table, scope, encoder, waiting: vec![], waiting_bytes: 0, bulk: None, rows: 0 })
    }

    /// Adds rows. `columns`: the user columns in order.
    pub(crate) async fn push(&mut self, columns: Vec<ArrayRef>, rows: usize) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        self.encoder.require_values(&columns)?;
        self.rows += rows as u64;
        if let Some(bulk) = &mut self.bulk {
            return Ok(bulk.write(columns, rows).await?);
        }
        self.waiting_bytes = self.waiting_bytes.saturating_add(unpacked_bytes_of(&columns, rows));
        self.waiting.push((columns, rows));
        // Rows of streams never leave the hot tier.
        if self.table.kind != TableKind::Stream && self.waiting_bytes >= self.engine.bulk_bytes_min {
            let mut bulk = self.engine.store.begin_bulk_load(self.table, self.scope).await?;
            for (columns, rows) in std::mem::take(&mut self.waiting) {
                bulk.write(columns, rows).await?;
            }
            self.bulk = Some(bulk);
        }
        Ok(())
    }

    /// Bytes of rows that wait in memory.
    pub(crate) fn waiting_bytes(&self) -> usize {
        if self.bulk.is_some() { 0 } else { self.waiting_bytes }
    }

    /// What is to be committed.
    pub(crate) async fn finish(self) -> Result<Writes> {
        let mut writes = Writes::default();
        match self.bulk {
            Some(bulk) => writes.add_files(bulk.finish().await?, self.rows),
            None => {
                for (columns, rows) in self.waiting {
                    writes.push(self.encoder.insert(self.engine.store.new_ids(rows), &columns)?)?;
                }
            }
        }
        Ok(writes)
    }
}
