//! Prepared statements: create, bind parameters, close.
//!
//! A handle belongs to the user that prepared it, not to one session, so that it works for clients that send user and
//! password on every call. Binding answers the same handle: Go closes the updated one, Java the original one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_flight::FlightData;
use arrow_flight::sql::{Any, DoPutPreparedStatementResult};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use seracdb_engine::{Prepared, Principal, StatementKind, TransactionId};
use seracdb_proto::{CREATE_PREPARED_STATEMENT_RESULT_URL, CreatePreparedStatementResult, PreparedHandle};
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::columns::described;
use super::command::StatementId;
use super::stream::{incoming, schema_bytes};
use super::{Flight, is_java};
use crate::auth::Call;
use crate::config::FlightSection;
use crate::expiring::Expiring;

/// One prepared statement and what is bound to it.
pub(crate) struct Statement {
    owner: u64,
    pub(crate) prepared: Arc<Prepared>,
    /// The transaction that it was prepared in.
    pub(crate) transaction: Option<TransactionId>,
    /// The rows bound last; they stay bound for further executions.
    bound: Mutex<Option<RecordBatch>>,
}

impl Statement {
    pub(crate) fn bound(&self) -> Option<RecordBatch> {
        self.bound.lock().clone()
    }
}

pub(crate) struct Statements {
    live: Mutex<Expiring<StatementId, Statement>>,
    bound_bytes_max: usize,
}

impl Statements {
    pub(crate) fn new(config: &FlightSection) -> Self {
        let idle = Duration::from_secs(config.prepared_idle_seconds);
        let live = Mutex::new(Expiring::new(idle, config.prepared_max));
        Self { live, bound_bytes_max: config.bound_bytes_max }
    }

    pub(crate) fn find(&self, owner: &Principal, id: StatementId, now: Instant) -> Result<Arc<Statement>, Status> {
        let found = self.live.lock().get(&id, now).filter(|statement| statement.owner == owner.number());
        found.ok_or_else(|| {
            Status::not_found("no such prepared statement: it was closed, idle for too long, or is another user's")
        })
    }

    pub(crate) fn sweep(&self, now: Instant) {
        self.live.lock().sweep(now);
    }

    fn add(
        &self,
        owner: &Principal,
        prepared: Prepared,
        transaction: Option<TransactionId>,
        now: Instant,
    ) -> Result<StatementId, Status> {
        let id = StatementId(Uuid::new_v4().into_bytes());
        let (owner, prepared) = (owner.number(), Arc::new(prepared));
        let statement = Statement { owner, prepared, transaction, bound: Mutex::new(None) };
        self.live.lock().insert(id, Arc::new(statement), now).map_err(|_| {
            Status::resource_exhausted("too many prepared statements: close some, or raise flight.prepared_max")
        })?;
        Ok(id)
    }
}

impl Flight {
    /// The `CreatePreparedStatement` action; gives the body of its result. `client`: its
    /// user-agent.
    pub(super) async fn create_prepared(
        &self,
        call: &Call,
        sql: String,
        transaction: Option<TransactionId>,
        client: &str,
    ) -> Result<Bytes, Status> {
        let prepared = self.prepare(&self.within(call, transaction)?, sql).await?;
        let is_update = prepared.kind() == StatementKind::Update;
        let dataset_schema = schema_bytes(&described(prepared.schema()))?;
        let parameter_schema = match is_java(client) {
            true => schema_bytes(&java_parameters(prepared.parameters()))?,
            false => schema_bytes(prepared.parameters())?,
        };
        let id = self.statements.add(call.principal(), prepared, transaction, Instant::now())?;
        let result = CreatePreparedStatementResult {
            prepared_statement_handle: handle(id),
            dataset_schema,
            parameter_schema,
            is_update: Some(is_update),
        };
        let url = CREATE_PREPARED_STATEMENT_RESULT_URL.to_owned();
        Ok(Any { type_url: url, value: result.encode_to_vec().into() }.encode_to_vec().into())
    }

    /// The `ClosePreparedStatement` action. Closing twice is no error: drivers do it.
    pub(super) fn close_prepared(&self, call: &Call, id: StatementId) {
        if self.statements.find(call.principal(), id, Instant::now()).is_ok() {
            self.statements.live.lock().remove(&id);
        }
    }

    /// DoPut of `CommandPreparedStatementQuery`: binds the rows that come with it.
    pub(super) async fn bind(
        &self,
        call: &Call,
        id: StatementId,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<Bytes, Status> {
        let statement = self.statements.find(call.principal(), id, Instant::now())?;
        let params = self.sent_parameters(&statement.prepared, first, rest).await?;
        *statement.bound.lock() = params;
        let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle(id)) };
        Ok(result.encode_to_vec().into())
    }

    /// The parameters that a call sends along; `None` when it sends none, or no columns, as Go and Java do for "no
    /// parameters".
    pub(super) async fn sent_parameters(
        &self,
        prepared: &Prepared,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<Option<RecordBatch>, Status> {
        let Some(sent) = incoming(first, rest).await? else { return Ok(None) };
        check_count(prepared.parameters(), &sent.schema)?;
        let rows = sent.collect(self.statements.bound_bytes_max).await?;
        Ok((rows.num_columns() > 0).then_some(rows))
    }
}

fn check_count(wanted: &SchemaRef, sent: &SchemaRef) -> Result<(), Status> {
    let (wanted, sent) = (wanted.fields().len(), sent.fields().len());
    if sent == wanted || sent == 0 {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("the statement has {wanted} parameters, but {sent} were bound")))
}

/// Parameters as the JDBC driver has to see them. It writes milliseconds (of a date: days) into whatever it was
/// promised, without scaling (arrow-java#838), so it is promised just that; binding casts to the real type.
fn java_parameters(parameters: &Schema) -> Schema {
    let fields = parameters.fields().iter().map(|field| {
        let data_type = match field.data_type() {
            DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
            DataType::Date64 => DataType::Date32,
            other => other.clone(),
        };
        Field::clone(field).with_data_type(data_type)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn handle(id: StatementId) -> Bytes {
    PreparedHandle { id: id.0.to_vec().into() }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_is_promised_the_units_it_writes() {
        let zone = || Some("UTC".into());
        for (declared, advertised) in [
            (DataType::Timestamp(TimeUnit::Second, None), DataType::Timestamp(TimeUnit::Millisecond, None)),
            (DataType::Timestamp(TimeUnit::Microsecond, zone()), DataType::Timestamp(TimeUnit::Millisecond, zone())),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), DataType::Timestamp(TimeUnit::Millisecond, None)),
            (DataType::Time32(TimeUnit::Second), DataType::Time32(TimeUnit::Millisecond)),
            (DataType::Time64(TimeUnit::Nanosecond), DataType::Time32(TimeUnit::Millisecond)),
            (DataType::Date64, DataType::Date32),
            (DataType::Date32, DataType::Date32),
            (DataType::Int64, DataType::Int64),
        ] {
            let parameters = Schema::new(vec![Field::new("$1", declared, true)]);
            assert_eq!(java_parameters(&parameters), Schema::new(vec![Field::new("$1", advertised, true)]));
        }
    }
}
