//! DoPut: updates, prepared updates, bound parameters, bulk ingest.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::sql::DoPutUpdateResult;
use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use seracdb_engine::{IngestTarget, Outcome, Prepared};
use tonic::{Status, Streaming};

use super::command::{PutCommand, StatementId};
use super::incoming::incoming;
use super::status::unreceived;
use super::{Flight, status};
use crate::auth::Call;

impl Flight {
    /// DoPut; gives the `app_metadata` of its one result.
    pub(super) async fn put(&self, call: &Call, mut messages: Streaming<FlightData>) -> Result<Bytes, Status> {
        let first = messages.message().await.map_err(unreceived)?;
        let first = first.ok_or_else(|| Status::invalid_argument("DoPut needs a message with a command"))?;
        let descriptor = first.flight_descriptor.as_ref();
        let descriptor =
            descriptor.ok_or_else(|| Status::invalid_argument("the first message of DoPut needs a descriptor"))?;
        match PutCommand::decode(descriptor)? {
            PutCommand::Update { sql, transaction } => {
                let call = &self.within(call, transaction)?;
                let prepared = self.prepare(call, sql).await?;
                Ok(update_result(self.changed(call, prepared, None).await?))
            }
            PutCommand::Bind(id) => self.bind(call, id, first, messages).await,
            PutCommand::PreparedUpdate(id) => self.prepared_update(call, id, first, messages).await,
            PutCommand::Ingest(target, transaction) => {
                self.ingest(&self.within(call, transaction)?, target, first, messages).await
            }
        }
    }

    /// Executes an update; gives the number of changed rows, −1 ("not known") for a statement that gives rows, which
    /// are dropped.
    pub(super) async fn changed(
        &self,
        call: &Call,
        prepared: Arc<Prepared>,
        params: Option<RecordBatch>,
    ) -> Result<i64, Status> {
        let cancel = self.queries.token();
        // Also when the client goes away.
        let _stopped = cancel.clone().drop_guard();
        match self.execute(call, prepared, params, cancel).await? {
            Outcome::Changed(count) => Ok(count_of(count)),
            Outcome::Rows(rows) => {
                self.drain(rows).await?;
                Ok(-1)
            }
        }
    }

    /// A prepared update with its rows in the same call (Go, Java), or with those bound before (Rust).
    async fn prepared_update(
        &self,
        call: &Call,
        id: StatementId,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<Bytes, Status> {
        let statement = self.statements.find(call.principal(), id, Instant::now())?;
        let sent = self.sent_parameters(&statement.prepared(), first, rest).await?;
        let bound = sent.or_else(|| statement.bound());
        let call = &self.within_or_next(call, statement.transaction)?;
        let prepared = self.renewed(call, &statement).await?;
        let params = bound.as_ref().map(|bound| bound.rows.clone());
        Ok(update_result(self.changed(call, prepared, params).await?))
    }

    async fn ingest(
        &self,
        call: &Call,
        target: IngestTarget,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<Bytes, Status> {
        let decoding = self.decoding.clone();
        let sent = self.queries.run(async move { Ok(incoming(first, rest, decoding).await) });
        let sent = sent.await.map_err(status::from_engine)??;
        let sent = sent.ok_or_else(|| Status::invalid_argument("ingest needs a schema message"))?;
        let cancel = self.queries.token();
        // Also when the client goes away.
        let _stopped = cancel.clone().drop_guard();
        let (engine, session) = (self.engine.until(cancel), call.session.clone());
        let loaded = self.queries.run(async move { engine.ingest(&session, target, sent.schema, sent.batches).await });
        let count = loaded.await.map_err(status::from_engine)?;
        Ok(update_result(count_of(count)))
    }

    async fn drain<E: std::error::Error + Send + Sync + 'static>(
        &self,
        rows: impl TryStreamExt<Ok = RecordBatch, Error = E> + Send + 'static,
    ) -> Result<(), Status> {
        let drained = async move { Ok(rows.try_for_each(|_| std::future::ready(Ok(()))).await) };
        self.queries.run(drained).await.map_err(status::from_engine)?.map_err(status::from_stream)
    }
}

/// A count as Flight SQL has it.
pub(super) fn count_of(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn update_result(record_count: i64) -> Bytes {
    DoPutUpdateResult { record_count }.encode_to_vec().into()
}
