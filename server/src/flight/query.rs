//! Statements on the query path: GetFlightInfo plans, DoGet runs.
//!
//! Some clients send updates here too. Those are executed once, at GetFlightInfo, and the ticket only tells the count,
//! for a client may fetch a ticket twice or never.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket as FlightTicket};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use prost::Message;
use seracdb_engine::{Origin, Outcome, Prepared, Rows, StatementKind, TransactionId, system_columns};
use seracdb_proto::StatementTicket;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::columns::{described_with, result_schema};
use super::command::{InfoCommand, StatementId, TicketId};
use super::encode::{Compression, schema_bytes};
use super::spool::SpoolUser;
use super::stream::{DataStream, Delivery, from_batch, from_rows};
use super::tickets::Planned;
use super::update::count_of;
use super::{Flight, status};
use crate::auth::Call;

/// The columns of an update's result on the query path.
static COUNT_SCHEMA: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("rows_affected", DataType::Int64, false)])));

impl Flight {
    /// GetFlightInfo.
    pub(super) async fn flight_info(
        &self,
        call: &Call,
        descriptor: FlightDescriptor,
        client: &str,
        endpoints: usize,
    ) -> Result<FlightInfo, Status> {
        let (call, prepared, params, transaction) = match InfoCommand::decode(&descriptor)? {
            InfoCommand::Metadata(command) => {
                let now = self.metadata(call, &command, client)?;
                // The command is its own ticket: asking again gives the catalog of that moment.
                let ticket = descriptor.cmd.clone();
                return info(&now.schema(), ticket, None, descriptor, count_of(now.num_rows() as u64));
            }
            InfoCommand::Statement { sql, transaction } => {
                let call = self.within(call, transaction)?;
                let prepared = self.prepare(&call, sql).await?;
                (call, prepared, None, transaction)
            }
            InfoCommand::Prepared(id) => {
                let statement = self.statements.find(call.principal(), id, Instant::now())?;
                let call = self.within_or_next(call, statement.transaction)?;
                let prepared = self.renewed(&call, &statement).await?;
                let transaction = call.session.transaction().map(|transaction| transaction.id());
                (call, prepared, statement.bound().map(|bound| bound.rows), transaction)
            }
        };
        let call = &call;
        match prepared.kind() {
            StatementKind::Query if endpoints > 1 || prepared.runs_once() => {
                let schema = result_schema(&prepared);
                let mut tickets = self.issue_parts(call, &prepared, params, transaction, endpoints).await?.into_iter();
                let first = tickets.next().unwrap_or_default();
                let mut info = info(&schema, first, Some(self.expiration()), descriptor, -1)?;
                let one = info.endpoint[0].clone();
                let others =
                    tickets.map(|ticket| FlightEndpoint { ticket: Some(FlightTicket { ticket }), ..one.clone() });
                info.endpoint.extend(others);
                info.ordered = info.endpoint.len() == 1;
                Ok(info)
            }
            StatementKind::Query => {
                let schema = result_schema(&prepared);
                let ticket = self.issue(call, Planned::Query { prepared, params, transaction })?;
                info(&schema, ticket, Some(self.expiration()), descriptor, -1)
            }
            StatementKind::Update => {
                let count = self.changed(call, prepared, params).await?;
                let ticket = self.issue(call, Planned::Count(count))?;
                info(&COUNT_SCHEMA, ticket, Some(self.expiration()), descriptor, 1)
            }
        }
    }

    /// GetSchema: what GetFlightInfo would say, without running or keeping anything.
    pub(super) async fn schema(
        &self,
        call: &Call,
        descriptor: &FlightDescriptor,
        client: &str,
    ) -> Result<Bytes, Status> {
        let prepared = match InfoCommand::decode(descriptor)? {
            InfoCommand::Metadata(command) => return schema_bytes(&self.metadata(call, &command, client)?.schema()),
            InfoCommand::Statement { sql, transaction } => self.prepare(&self.within(call, transaction)?, sql).await?,
            InfoCommand::Prepared(id) => {
                let statement = self.statements.find(call.principal(), id, Instant::now())?;
                self.renewed(&self.within_or_next(call, statement.transaction)?, &statement).await?
            }
        };
        match prepared.kind() {
            StatementKind::Query => schema_bytes(&result_schema(&prepared)),
            StatementKind::Update => schema_bytes(&COUNT_SCHEMA),
        }
    }

    /// DoGet of a ticket.
    pub(super) async fn fetch(&self, call: Call, id: TicketId, compression: Compression) -> Result<DataStream, Status> {
        let ticket = self.tickets.fetch(call.principal(), id, Instant::now())?;
        match ticket.planned.clone() {
            Planned::Count(count) => count_stream(count),
            Planned::Part { rows, schema, transaction } => {
                let rows = rows.lock().take();
                let rows = rows.ok_or_else(|| Status::not_found("this part was fetched: send the statement again"))?;
                let call = self.fetching(call, transaction)?;
                Ok(self.deliver(call, schema, rows, ticket.cancel.clone(), compression))
            }
            // A token of its own: the end of one fetch is not that of another.
            Planned::Query { prepared, params, transaction } => {
                let call = self.fetching(call, transaction)?;
                self.rows(call, prepared, params, ticket.cancel.child_token(), compression).await
            }
        }
    }

    /// The call that fetches a ticket, in the transaction that the ticket is of. One of none stays outside of all.
    fn fetching(&self, call: Call, transaction: Option<TransactionId>) -> Result<Call, Status> {
        match transaction {
            Some(_) => self.within_or_next(&call, transaction),
            None => Ok(call),
        }
    }

    /// DoGet of a prepared statement itself, without a ticket.
    pub(super) async fn fetch_prepared(
        &self,
        call: Call,
        id: StatementId,
        compression: Compression,
    ) -> Result<DataStream, Status> {
        let statement = self.statements.find(call.principal(), id, Instant::now())?;
        if statement.prepared().kind() == StatementKind::Update {
            return Err(Status::invalid_argument("the statement is an update: execute it by DoPut"));
        }
        let call = self.within_or_next(&call, statement.transaction)?;
        let prepared = self.renewed(&call, &statement).await?;
        let params = statement.bound().map(|bound| bound.rows);
        self.rows(call, prepared, params, self.queries.token(), compression).await
    }

    /// Parses and plans one statement.
    pub(super) async fn prepare(&self, call: &Call, sql: String) -> Result<Arc<Prepared>, Status> {
        let (engine, session) = (self.engine.clone(), call.session.clone());
        let prepared = self.queries.run(async move { engine.prepare(&session, &sql).await });
        prepared.await.map_err(status::from_engine)
    }

    /// Executes a statement until `cancel` fires.
    pub(super) async fn execute(
        &self,
        call: &Call,
        prepared: Arc<Prepared>,
        params: Option<RecordBatch>,
        cancel: CancellationToken,
    ) -> Result<Outcome, Status> {
        let (engine, session) = (self.engine.until(cancel), call.session.clone());
        let outcome = self.queries.run(async move { engine.execute(&session, &prepared, params).await });
        outcome.await.map_err(status::from_engine)
    }

    async fn rows(
        &self,
        call: Call,
        prepared: Arc<Prepared>,
        params: Option<RecordBatch>,
        cancel: CancellationToken,
        compression: Compression,
    ) -> Result<DataStream, Status> {
        let schema = Arc::new(result_schema(&prepared));
        match self.execute(&call, prepared, params, cancel.clone()).await? {
            Outcome::Rows(rows) => Ok(self.deliver(call, schema, rows, cancel, compression)),
            Outcome::Changed(count) => count_stream(count_of(count)),
        }
    }

    /// A result on its way. Its session and transaction are in use, and do not end, as long as the client reads, unless the
    /// login that it rests on does.
    fn deliver(
        &self,
        call: Call,
        schema: SchemaRef,
        rows: Rows,
        cancel: CancellationToken,
        compression: Compression,
    ) -> DataStream {
        let in_use = call.session.transaction().map(|transaction| transaction.in_use());
        let (reader, spool) = (call.principal(), Arc::clone(&self.spool));
        let user = SpoolUser::new(reader.number(), reader.name());
        let ended = call.grant.ended();
        let delivery = Delivery { user, compression, spool, age_max: self.result_age_max, ended };
        // The grant too: one that nothing rests on any more is not looked at, and would not end what runs.
        from_rows(&self.queries, schema, rows.fuse(), cancel, delivery, (call.session, in_use, call.grant))
    }

    /// Tickets for the parts of a query.
    async fn issue_parts(
        &self,
        call: &Call,
        prepared: &Arc<Prepared>,
        params: Option<RecordBatch>,
        transaction: Option<TransactionId>,
        endpoints: usize,
    ) -> Result<Vec<Bytes>, Status> {
        let (cancel, schema) = (self.queries.token(), Arc::new(result_schema(prepared)));
        let (engine, session) = (self.engine.until(cancel.clone()), call.session.clone());
        let prepared = Arc::clone(prepared);
        let parts = async move { engine.execute_in_parts(&session, &prepared, params, endpoints).await };
        let parts = self.queries.run(parts).await.map_err(status::from_engine)?;
        let tickets = parts.into_iter().map(|rows| {
            let rows = Arc::new(Mutex::new(Some(rows)));
            let part = Planned::Part { rows, schema: Arc::clone(&schema), transaction };
            let id = self.tickets.issue_until(call.principal(), part, Instant::now(), cancel.child_token())?;
            Ok(ticket_bytes(id))
        });
        tickets.collect()
    }

    /// ListFlights: the tables whose name, `namespace.table`, begins with `prefix`, each with the query that reads it.
    pub(super) fn flights(&self, call: &Call, prefix: &[u8]) -> Result<Vec<FlightInfo>, Status> {
        let tables = self.listed(call)?;
        let wanted = tables.iter().filter(|table| table.table_type == "TABLE");
        let wanted =
            wanted.filter(|table| format!("{}.{}", table.namespace, table.name).as_bytes().starts_with(prefix));
        let flights = wanted.map(|table| {
            let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
            let query = format!("SELECT * FROM {}.{}", quoted(&table.namespace), quoted(&table.name));
            let command = CommandStatementQuery { query, transaction_id: None };
            // As SELECT * has them.
            let shown = table.schema.fields().iter().filter(|field| field.name() != system_columns::DELETED);
            let schema = Schema::new(shown.cloned().collect::<Vec<_>>());
            let origin = Origin { namespace: table.namespace.clone(), table: table.name.clone() };
            Ok(FlightInfo {
                schema: schema_bytes(&described_with(&schema, |_| Some(&origin)))?,
                flight_descriptor: Some(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())),
                total_records: -1,
                total_bytes: -1,
                ordered: true,
                ..Default::default()
            })
        });
        flights.collect()
    }

    /// RenewFlightEndpoint: the endpoint with its new time.
    pub(super) fn renew(&self, call: &Call, endpoint: FlightEndpoint, id: TicketId) -> Result<FlightEndpoint, Status> {
        self.tickets.touch(call.principal(), id, Instant::now())?;
        Ok(FlightEndpoint { expiration_time: Some(self.expiration()), ..endpoint })
    }

    /// When a ticket that nobody fetches from now on goes.
    fn expiration(&self) -> prost_types::Timestamp {
        let at = self.engine.now_ns().saturating_add(i64::try_from(self.ticket_idle.as_nanos()).unwrap_or(i64::MAX));
        let (seconds, nanos) = (at.div_euclid(1_000_000_000), at.rem_euclid(1_000_000_000) as i32);
        prost_types::Timestamp { seconds, nanos }
    }

    fn issue(&self, call: &Call, planned: Planned) -> Result<Bytes, Status> {
        Ok(ticket_bytes(self.tickets.issue(call.principal(), planned, Instant::now())?))
    }
}

fn ticket_bytes(id: TicketId) -> Bytes {
    let handle = StatementTicket { id: id.0.to_vec().into() }.encode_to_vec();
    TicketStatementQuery { statement_handle: handle.into() }.as_any().encode_to_vec().into()
}

fn count_stream(count: i64) -> Result<DataStream, Status> {
    let column: ArrayRef = Arc::new(Int64Array::from_value(count, 1));
    from_batch(&RecordBatch::try_new(COUNT_SCHEMA.clone(), vec![column]).map_err(status::unsendable)?)
}

/// One endpoint without a location: the result is fetched over the same connection.
fn info(
    schema: &Schema,
    ticket: Bytes,
    expiration_time: Option<prost_types::Timestamp>,
    descriptor: FlightDescriptor,
    records: i64,
) -> Result<FlightInfo, Status> {
    Ok(FlightInfo {
        schema: schema_bytes(schema)?,
        flight_descriptor: Some(descriptor),
        endpoint: vec![FlightEndpoint { ticket: Some(FlightTicket { ticket }), expiration_time, ..Default::default() }],
        total_records: records,
        total_bytes: -1,
        ordered: true,
        ..Default::default()
    })
}
