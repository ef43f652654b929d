//! Prepared statements.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, ProstMessageExt,
};
use bytes::Bytes;
use futures::stream;
use prost::Message;
use seracdb_proto::CreatePreparedStatementResult;

use crate::error::Result;
use crate::rows::Rows;
use crate::wire::{Wire, record_count, schema_in};

/// What executing a statement gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows: use [`Statement::query`].
    Query,
    /// A count of changed rows: use [`Statement::update`].
    Update,
}

/// A statement that the server has planned. It serves any number of executions; call [`Statement::close`] when it is
/// no longer needed, or leave it to end with the session.
#[derive(Debug)]
pub struct Statement {
    wire: Wire,
    handle: Bytes,
    kind: Kind,
    schema: SchemaRef,
    parameters: SchemaRef,
    bound: Option<RecordBatch>,
}

impl Statement {
    pub(crate) fn new(wire: Wire, result: CreatePreparedStatementResult) -> Result<Self> {
        let schema = schema_in(result.dataset_schema)?;
        let is_update = result.is_update.unwrap_or(schema.fields().is_empty());
        Ok(Self {
            wire,
            handle: result.prepared_statement_handle,
            kind: if is_update { Kind::Update } else { Kind::Query },
            schema,
            parameters: schema_in(result.parameter_schema)?,
            bound: None,
        })
    }

    /// Query or update.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The columns of the result; none for an update.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// One field per parameter, in order (`$1`, `$2`, …).
    pub fn parameters(&self) -> &SchemaRef {
        &self.parameters
    }

    /// Sets the parameters of the next executions: columns in the order of [`Statement::parameters`]; one row for a
    /// query, any number for an update, which then runs once per row, all of them atomically.
    pub fn bind(&mut self, rows: RecordBatch) {
        self.bound = Some(rows);
    }

    /// Runs a query.
    pub async fn query(&self) -> Result<Rows> {
        let command = CommandPreparedStatementQuery { prepared_statement_handle: self.handle.clone() };
        if let Some(rows) = self.bound.clone() {
            self.wire.put_batches(&command, rows.schema(), stream::iter([Ok(rows)])).await?;
        }
        self.wire.get(&command).await
    }

    /// Runs an update; gives the number of rows inserted, updated or deleted.
    pub async fn update(&self) -> Result<u64> {
        let command = CommandPreparedStatementUpdate { prepared_statement_handle: self.handle.clone() };
        let answer = match self.bound.clone() {
            Some(rows) => self.wire.put_batches(&command, rows.schema(), stream::iter([Ok(rows)])).await?,
            None => self.wire.put(&command).await?,
        };
        record_count(&answer)
    }

    /// Frees the statement on the server.
    pub async fn close(self) -> Result<()> {
        let request = ActionClosePreparedStatementRequest { prepared_statement_handle: self.handle };
        self.wire.action("ClosePreparedStatement", request.as_any().encode_to_vec()).await?;
        Ok(())
    }
}
