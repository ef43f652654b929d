//! Transactions and savepoints.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionEndSavepointRequest, ActionEndTransactionRequest, EndTransaction,
    ProstMessageExt,
};
use bytes::Bytes;
use futures::Stream;
use prost::Message;

use crate::client::{IngestMode, TableKind};
use crate::error::Result;
use crate::rows::Rows;
use crate::statement::Statement;
use crate::wire::Wire;

/// How a savepoint ends: arrow-flight keeps the protocol's enumeration to itself.
const RELEASE: i32 = 1;
const ROLLBACK: i32 = 2;

/// An open transaction. It ends by [`Transaction::commit`] or [`Transaction::rollback`]; one that is dropped is rolled back
/// by the server, with its session or when it was not used for too long.
#[derive(Debug)]
pub struct Transaction {
    wire: Wire,
    id: Bytes,
}

/// A point in a transaction to go back to.
#[derive(Debug, Clone)]
pub struct Savepoint(Bytes);

impl Transaction {
    pub(crate) async fn begin(wire: Wire) -> Result<Self> {
        let begun: ActionBeginTransactionResult =
            wire.ask("BeginTransaction", &ActionBeginTransactionRequest {}).await?;
        Ok(Self { wire, id: begun.transaction_id })
    }

    /// What a client names it by, also to ask again what became of it: [`Transaction::resume`].
    pub fn id(&self) -> &Bytes {
        &self.id
    }

    /// The transaction of this name. Committing again one whose answer was lost says whether it was committed.
    pub fn resume(client: &crate::Client, id: Bytes) -> Self {
        Self { wire: client.wire().clone(), id }
    }

    /// Runs a query on its snapshot and its own changes.
    pub async fn query(&self, sql: &str) -> Result<Rows> {
        self.wire.query(sql, Some(self.id.clone())).await
    }

    /// Runs an update or DDL; gives the number of rows inserted, updated or deleted.
    pub async fn update(&self, sql: &str) -> Result<u64> {
        self.wire.update(sql, Some(self.id.clone())).await
    }

    /// Plans a statement of this transaction.
    pub async fn prepare(&self, sql: &str) -> Result<Statement> {
        self.wire.prepare(sql, Some(self.id.clone())).await
    }

    /// Loads batches into a table; see [`crate::Client::ingest`].
    pub async fn ingest(
        &self,
        table: &str,
        schema: SchemaRef,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        mode: IngestMode,
    ) -> Result<u64> {
        self.ingest_creating(table, schema, batches, mode, TableKind::Shared).await
    }

    /// The same; a table that it creates is of this kind.
    pub async fn ingest_creating(
        &self,
        table: &str,
        schema: SchemaRef,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        mode: IngestMode,
        kind: TableKind,
    ) -> Result<u64> {
        self.wire.ingest(table, schema, batches, (mode, kind), Some(self.id.clone())).await
    }

    /// Sets a savepoint.
    pub async fn savepoint(&self, name: &str) -> Result<Savepoint> {
        let request = ActionBeginSavepointRequest { transaction_id: self.id.clone(), name: name.to_owned() };
        let set: ActionBeginSavepointResult = self.wire.ask("BeginSavepoint", &request).await?;
        Ok(Savepoint(set.savepoint_id))
    }

    /// Undoes what was changed since a savepoint, which stays.
    pub async fn rollback_to(&self, savepoint: &Savepoint) -> Result<()> {
        self.end_savepoint(savepoint, ROLLBACK).await
    }

    /// Forgets a savepoint; what was changed since stays.
    pub async fn release(&self, savepoint: Savepoint) -> Result<()> {
        self.end_savepoint(&savepoint, RELEASE).await
    }

    /// Makes all changes durable and visible. `Aborted` when another commit has changed a row of them first: run it again.
    pub async fn commit(self) -> Result<()> {
        self.end(EndTransaction::Commit).await
    }

    /// Undoes all changes.
    pub async fn rollback(self) -> Result<()> {
        self.end(EndTransaction::Rollback).await
    }

    async fn end(self, action: EndTransaction) -> Result<()> {
        let request = ActionEndTransactionRequest { transaction_id: self.id, action: action as i32 };
        self.wire.action("EndTransaction", request.as_any().encode_to_vec()).await?;
        Ok(())
    }

    async fn end_savepoint(&self, savepoint: &Savepoint, action: i32) -> Result<()> {
        let request = ActionEndSavepointRequest { savepoint_id: savepoint.0.clone(), action };
        self.wire.action("EndSavepoint", request.as_any().encode_to_vec()).await?;
        Ok(())
    }
}
