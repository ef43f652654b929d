//! Prepared statements: create, bind parameters, close.
//!
//! A handle belongs to the user that prepared it, not to one session, so that it works for clients that send user and
//! password on every call. Binding answers the same handle: Go closes the updated one, Java the original one.
//!
//! A session's statements are forgotten with it, whether it is closed or idle for too long. It has so many and no more; then the one that it has not used for the longest time
//! goes, for the JDBC driver forgets to close those that it has prepared for a statement that is used again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_flight::FlightData;
use arrow_flight::sql::{Any, DoPutPreparedStatementResult};
use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use prost::Message;
use seracdb_engine::{EngineError, Holder, Prepared, Principal, StatementKind, TransactionId};
use seracdb_proto::{CREATE_PREPARED_STATEMENT_RESULT_URL, CreatePreparedStatementResult, PreparedHandle};
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

use super::bound::{Bound, BoundMemory};
use super::columns::result_schema;
use super::command::StatementId;
use super::encode::schema_bytes;
use super::incoming::incoming;
use super::{Flight, is_java, status};
use crate::auth::Call;
use crate::config::FlightSection;
use crate::expiring::Expiring;
use crate::sessions::TokenKey;

/// One prepared statement and what is bound to it.
pub(crate) struct Statement {
    owner: u64,
    /// The session it goes with.
    session: Option<TokenKey>,
    /// As it was prepared last: again, when its tables have changed.
    prepared: Mutex<Arc<Prepared>>,
    /// The transaction that it was prepared in.
    pub(crate) transaction: Option<TransactionId>,
    /// The rows bound last; they stay bound for further executions.
    bound: Mutex<Option<Bound>>,
}

impl Statement {
    pub(crate) fn prepared(&self) -> Arc<Prepared> {
        Arc::clone(&self.prepared.lock())
    }

    pub(crate) fn bound(&self) -> Option<Bound> {
        self.bound.lock().clone()
    }
}

pub(crate) struct Statements {
    state: Mutex<State>,
    session_max: usize,
    bound_bytes_max: usize,
    bound_memory: BoundMemory,
}

struct State {
    live: Expiring<StatementId, Statement>,
    /// Those of each session, by when they were used.
    of_sessions: HashMap<TokenKey, LruCache<StatementId, ()>>,
}

impl State {
    fn remove(&mut self, id: StatementId) {
        if let Some(session) = self.live.remove(&id).and_then(|statement| statement.session)
            && let Some(own) = self.of_sessions.get_mut(&session)
        {
            own.pop(&id);
        }
    }

    /// Adds one, in the place of another when its session has `session_max` already. Refused, it has changed nothing.
    fn insert(
        &mut self,
        id: StatementId,
        statement: Statement,
        holder: Holder,
        session_max: usize,
        now: Instant,
    ) -> Result<(), Status> {
        let (session, statement) = (statement.session, Arc::new(statement));
        let own = session.and_then(|session| self.of_sessions.get_mut(&session));
        let oldest = own.filter(|own| own.len() >= session_max).and_then(LruCache::pop_lru);
        if !oldest.is_some_and(|(oldest, ())| self.live.replace(&oldest, id, Arc::clone(&statement), now)) {
            self.live.insert(id, statement, holder, now).map_err(|why| {
                Status::resource_exhausted(why.text("prepared statements", "close some", "flight.prepared_max"))
            })?;
        }
        if let Some(session) = session {
            self.of_sessions.entry(session).or_insert_with(LruCache::unbounded).put(id, ());
        }
        Ok(())
    }
}

impl Statements {
    pub(crate) fn new(config: &FlightSection) -> Self {
        let idle = Duration::from_secs(config.prepared_idle_seconds);
        let live = Expiring::new(idle, config.prepared_max);
        let state = Mutex::new(State { live, of_sessions: HashMap::new() });
        let bound_memory = BoundMemory::new(config.bound_memory_max);
        let (session_max, bound_bytes_max) = (config.prepared_session_max, config.bound_bytes_max);
        Self { state, session_max, bound_bytes_max, bound_memory }
    }

    pub(crate) fn find(&self, owner: &Principal, id: StatementId, now: Instant) -> Result<Arc<Statement>, Status> {
        let mut state = self.state.lock();
        let found = state.live.get(&id, now).filter(|statement| statement.owner == owner.number());
        if let Some(session) = found.as_ref().and_then(|statement| statement.session)
            && let Some(own) = state.of_sessions.get_mut(&session)
        {
            own.promote(&id);
        }
        found.ok_or_else(|| {
            Status::not_found("no such prepared statement: it was closed, idle for too long, or is another user's")
        })
    }

    /// Forgets what was idle for too long, and the statements of sessions that are not live any more.
    pub(crate) fn sweep(&self, now: Instant, is_live: impl Fn(&TokenKey) -> bool) {
        let State { live, of_sessions } = &mut *self.state.lock();
        live.sweep(now);
        of_sessions.retain(|session, own| {
            let ends = !is_live(session);
            let gone = own.iter().map(|(id, ())| *id).filter(|id| ends || !live.contains(id)).collect::<Vec<_>>();
            for id in gone {
                own.pop(&id);
                live.remove(&id);
            }
            !own.is_empty()
        });
    }

    /// Forgets the statements of a session.
    pub(crate) fn forget(&self, session: TokenKey) {
        let mut state = self.state.lock();
        for (id, ()) in state.of_sessions.remove(&session).into_iter().flatten() {
            state.live.remove(&id);
        }
    }

    fn add(
        &self,
        call: &Call,
        prepared: Arc<Prepared>,
        transaction: Option<TransactionId>,
        now: Instant,
    ) -> Result<StatementId, Status> {
        let id = StatementId(Uuid::new_v4().into_bytes());
        let (owner, prepared) = (call.principal().number(), Mutex::new(prepared));
        let statement = Statement { owner, session: call.token, prepared, transaction, bound: Mutex::new(None) };
        self.state.lock().insert(id, statement, call.principal().into(), self.session_max, now)?;
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
        let has_parameters = self.engine.has_parameters(&sql);
        let prepared = self.prepare(&self.within(call, transaction)?, sql).await;
        let prepared = prepared.map_err(|status| if has_parameters { refused(status) } else { status })?;
        let is_update = prepared.kind() == StatementKind::Update;
        let dataset_schema = schema_bytes(&result_schema(&prepared))?;
        let parameter_schema = match is_java(client) {
            true => schema_bytes(&java_parameters(prepared.parameters()))?,
            false => schema_bytes(prepared.parameters())?,
        };
        let id = self.statements.add(call, prepared, transaction, Instant::now())?;
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
            self.statements.state.lock().remove(id);
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
        let params = self.sent_parameters(&statement.prepared(), first, rest).await?;
        *statement.bound.lock() = params;
        let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle(id)) };
        Ok(result.encode_to_vec().into())
    }

    /// A prepared statement as it is to be executed now.
    pub(super) async fn renewed(&self, call: &Call, statement: &Statement) -> Result<Arc<Prepared>, Status> {
        let (engine, session, before) = (self.engine.clone(), call.session.clone(), statement.prepared());
        let renewed = self.queries.run(async move { engine.renew(&session, &before).await });
        let renewed = renewed.await.map_err(status::from_engine)?;
        *statement.prepared.lock() = Arc::clone(&renewed);
        Ok(renewed)
    }

    /// The parameters that a call sends along; `None` when it sends none, or no columns, as Go and Java do for "no
    /// parameters".
    pub(super) async fn sent_parameters(
        &self,
        prepared: &Prepared,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<Option<Bound>, Status> {
        let (wanted, bytes_max) = (Arc::clone(prepared.parameters()), self.statements.bound_bytes_max);
        let (decoding, held) = (self.decoding.clone(), self.statements.bound_memory.hold());
        let received = async move {
            let Some(sent) = incoming(first, rest, decoding).await? else { return Ok(None) };
            check_count(&wanted, &sent.schema)?;
            let bound = sent.collect(bytes_max, held).await?;
            Ok((bound.rows.num_columns() > 0).then_some(bound))
        };
        // What a client sends may take long to read.
        self.queries.run(async move { Ok(received.await) }).await.map_err(status::from_engine)?
    }
}

/// Python's DBAPI takes UNIMPLEMENTED here for a server that prepares nothing, and has no word for the user when it then cannot
/// bind: a statement that cannot be prepared is a wrong one.
fn refused(status: Status) -> Status {
    match status.code() {
        Code::Unimplemented => Status::invalid_argument(status.message()),
        _ => status,
    }
}

fn check_count(wanted: &SchemaRef, sent: &SchemaRef) -> Result<(), Status> {
    let (wanted, sent) = (wanted.fields().len(), sent.fields().len());
    if sent == wanted || sent == 0 {
        return Ok(());
    }
    Err(status::from_engine(EngineError::parameter_count(wanted, sent)))
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
    fn what_is_not_supported_is_a_wrong_statement_where_it_is_prepared() {
        let status = refused(Status::unimplemented("LIMIT is not supported"));
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "LIMIT is not supported"));
        assert_eq!(refused(Status::not_found("x")).code(), Code::NotFound);
    }

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
