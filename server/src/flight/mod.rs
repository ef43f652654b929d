//! Flight SQL: the gRPC service.
//!
//! A newtype over Flight's own trait, for arrow-flight's `FlightSqlService` hard-codes answers that clients need
//! (GetSchema, sessions, unknown commands). Every call here: authenticate, decode once (`command.rs`, `action.rs`), and
//! one function in the file of its subject. A panic in a call ends that call.

mod action;
mod bound;
mod columns;
mod command;
mod decoding;
mod encode;
mod incoming;
mod metadata;
mod outbox;
mod patience;
mod prepared;
mod query;
mod spool;
mod sql_info;
pub(crate) mod status;
mod stream;
mod tickets;
mod transactions;
mod update;
mod xdbc_types;

use std::future::ready;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use axum::http::HeaderValue;
use axum::http::header::SET_COOKIE;
use axum::middleware::{Next, from_fn, map_request, map_response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, iter};
use seracdb_engine::Engine;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use self::command::GetCommand;
use self::decoding::Decoding;
use self::encode::Compression;
pub(crate) use self::incoming::is_reading;
use self::patience::Patience;
use self::prepared::Statements;
use self::spool::{Spool, SpoolLimits};
use self::status::guarded;
use self::stream::{DataStream, from_batch};
use self::tickets::Tickets;
use crate::auth::{Auth, Call};
use crate::config::{FlightSection, LimitsSection};
use crate::in_flight::InFlight;
use crate::queries::Queries;
use crate::refusal::Refusal;
use crate::request_id;

/// Bytes of a message that a client may send.
const RECEIVE_BYTES_MAX: usize = 64 << 20;

/// The call that gives credentials, in its message where not in its headers.
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";
const DO_ACTION: &str = "/arrow.flight.protocol.FlightService/DoAction";

/// The header by which a client asks for several endpoints, to read them at the same time.
const ENDPOINTS_HEADER: &str = "seracdb-endpoints";

/// Endpoints of a result.
const ENDPOINTS_MAX: usize = 64;

type Reply<T> = Result<Response<T>, Status>;
type ReplyStream<T> = BoxStream<'static, Result<T, Status>>;

/// The service's parts.
pub(crate) struct Flight {
    engine: Arc<Engine>,
    queries: Queries,
    auth: Auth,
    statements: Statements,
    tickets: Tickets,
    ticket_idle: Duration,
    spool: Arc<Spool>,
    result_age_max: Duration,
    decoding: Decoding,
}

impl Flight {
    pub(crate) fn new(engine: Arc<Engine>, queries: Queries, auth: Auth, config: &FlightSection) -> Self {
        let tickets = Tickets::new(queries.clone(), config);
        let limits = SpoolLimits {
            after: Duration::from_secs(config.spool_after_seconds),
            bytes_max: config.spool_bytes_max,
            user_bytes_max: config.spool_user_bytes_max,
        };
        let spool = Spool::new(engine.spill_dir().to_owned(), limits);
        let result_age_max = Duration::from_secs(config.result_seconds_max);
        let ticket_idle = Duration::from_secs(config.ticket_idle_seconds);
        let (statements, decoding) = (Statements::new(config), Decoding::new(config.decoding_bytes_max));
        Self { engine, queries, auth, statements, tickets, ticket_idle, spool, result_age_max, decoding }
    }

    /// Whose call this is. What it is handed goes with its answer, whatever that says.
    async fn authenticate<T>(&self, request: &Request<T>) -> Result<Call, Status> {
        if let Some(call) = request.extensions().get::<Call>() {
            return Ok(call.clone());
        }
        let (call, cookie) = self.auth.call(request.metadata(), request.remote_addr()).await?;
        let handed = request.extensions().get::<Handed>().zip(cookie);
        if let Some((handed, Ok(cookie))) = handed.map(|(handed, cookie)| (handed, cookie.parse())) {
            // Once for each request: there is nothing in it yet.
            let _ = handed.0.set(cookie);
        }
        Ok(call)
    }

    /// Ends what rests on a login that has ended.
    pub(crate) fn end_revoked(&self) {
        for session in self.auth.end_revoked() {
            self.statements.forget(session);
        }
        self.engine.end_revoked_transactions();
    }

    /// Forgets what clients left behind.
    pub(crate) fn sweep(&self, now: Instant) {
        self.auth.sweep(now);
        self.statements.sweep(now, |session| self.auth.is_live(session));
        self.tickets.sweep(now);
        self.engine.sweep_transactions();
        self.engine.sweep_temporary();
    }
}

/// The gRPC service over these parts.
pub(crate) fn service(flight: Arc<Flight>, limits: &LimitsSection, in_flight: InFlight) -> Routes {
    let service = FlightServiceServer::new(FlightRpc(Arc::clone(&flight))).max_decoding_message_size(RECEIVE_BYTES_MAX);
    let routes = Routes::new(service).into_axum_router();
    let known = from_fn(move |request, next| admit(Arc::clone(&flight), request, next));
    let (of_known, of_strangers) = (Patience::with_known(limits), Patience::with_strangers(limits));
    let patient = move |request: axum::extract::Request| {
        let is_known = request.extensions().get::<Call>().is_some();
        let patience = if is_known { of_known } else { of_strangers };
        ready(request.map(|body| patience::patient(body, patience)))
    };
    let counted = from_fn(move |request, next| in_flight.clone().answer(request, next));
    routes
        .layer(map_request(patient))
        .layer(known)
        .layer(counted)
        .layer(map_response(explain))
        .layer(from_fn(hand_out))
        .layer(from_fn(request_id::named))
        .into()
}

/// The cookie that a request's answer hands out.
#[derive(Clone, Default)]
struct Handed(Arc<OnceLock<HeaderValue>>);

/// Hands out the cookie of a request, with an error too: the next call is of a session then.
async fn hand_out(mut request: axum::extract::Request, next: Next) -> axum::response::Response {
    let handed = Handed::default();
    request.extensions_mut().insert(handed.clone());
    let mut response = next.run(request).await;
    if let Some(cookie) = handed.0.get() {
        response.headers_mut().append(SET_COOKIE, cookie.clone());
    }
    response
}

/// Turns a call away whose caller is unknown before its message is read: that may be large, and one of very many.
async fn admit(flight: Arc<Flight>, mut request: axum::extract::Request, next: Next) -> axum::response::Response {
    if request.uri().path() != HANDSHAKE {
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let asked = Request::from_parts(metadata, request.extensions().clone(), ());
        match guarded(flight.authenticate(&asked)).await {
            Ok(call) => drop(request.extensions_mut().insert(call)),
            // It may only want to tidy up.
            Err(status) if Refusal::is_of_ended_session(&status) && request.uri().path() == DO_ACTION => {}
            Err(status) => return status.into_http(),
        }
    }
    next.run(request).await
}

/// A request that is too large, or no message at all, is refused before it gets here, in gRPC's words.
async fn explain(response: axum::response::Response) -> axum::response::Response {
    let refused = Status::from_header_map(response.headers()).filter(|status| status.message().len() < 1000);
    match refused.filter(|status| matches!(status.code(), Code::OutOfRange | Code::Internal)) {
        Some(refused) => status::unreceived(refused).into_http(),
        None => response,
    }
}

pub(crate) struct FlightRpc(Arc<Flight>);

#[tonic::async_trait]
impl FlightService for FlightRpc {
    type HandshakeStream = ReplyStream<HandshakeResponse>;
    type ListFlightsStream = ReplyStream<FlightInfo>;
    type DoGetStream = DataStream;
    type DoPutStream = ReplyStream<PutResult>;
    type DoExchangeStream = ReplyStream<FlightData>;
    type DoActionStream = ReplyStream<arrow_flight::Result>;
    type ListActionsStream = ReplyStream<ActionType>;

    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Reply<Self::HandshakeStream> {
        guarded(async {
            let peer = request.remote_addr();
            // Before its message is read: that may never come.
            let place = self.0.auth.place(peer).await?;
            let (metadata, _, mut messages) = request.into_parts();
            // Credentials are in a header nearly always; then there need not be a message.
            let payload = match metadata.contains_key("authorization") {
                true => Bytes::new(),
                false => messages
                    .message()
                    .await
                    .map_err(status::unreceived)?
                    .map(|message| message.payload)
                    .unwrap_or_default(),
            };
            let token = self.0.auth.login(&metadata, &payload, peer, place).await?;
            let header = format!("Bearer {token}").parse();
            let header = header.map_err(|_| Status::unauthenticated("the token cannot be sent back"))?;
            let answer = HandshakeResponse { protocol_version: 0, payload: token.into() };
            let mut response = Response::new(once(answer));
            response.metadata_mut().insert("authorization", header);
            Ok(response)
        })
        .await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<FlightInfo> {
        guarded(async {
            let call = self.0.authenticate(&request).await?;
            let client = user_agent(request.metadata());
            let endpoints = endpoints_wanted(request.metadata())?;
            let info = self.0.flight_info(&call, request.into_inner(), &client, endpoints);
            Ok(Response::new(call.grant.hold(info).await?))
        })
        .await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Reply<SchemaResult> {
        guarded(async {
            let call = self.0.authenticate(&request).await?;
            let client = user_agent(request.metadata());
            let schema = call.grant.hold(self.0.schema(&call, request.get_ref(), &client)).await?;
            Ok(Response::new(SchemaResult { schema }))
        })
        .await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Reply<Self::DoGetStream> {
        guarded(async {
            let call = self.0.authenticate(&request).await?;
            let compression = Compression::wanted(request.metadata())?;
            let grant = Arc::clone(&call.grant);
            let stream = match GetCommand::decode(request.get_ref())? {
                GetCommand::Ticket(id) => grant.hold(self.0.fetch(call, id, compression)).await?,
                GetCommand::Prepared(id) => grant.hold(self.0.fetch_prepared(call, id, compression)).await?,
                GetCommand::Metadata(command) => {
                    from_batch(&self.0.metadata(&call, &command, &user_agent(request.metadata()))?)?
                }
            };
            Ok(Response::new(stream))
        })
        .await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoPutStream> {
        guarded(async {
            let call = self.0.authenticate(&request).await?;
            let app_metadata = call.grant.hold(self.0.put(&call, request.into_inner())).await?;
            Ok(Response::new(once(PutResult { app_metadata })))
        })
        .await
    }

    async fn do_action(&self, request: Request<Action>) -> Reply<Self::DoActionStream> {
        guarded(async {
            let call = match self.0.authenticate(&request).await {
                // It has gone with its session: a client that tidies up after its last statement is told of no failure.
                Err(status) if Refusal::is_of_ended_session(&status) && action::closes(request.get_ref()) => {
                    return Ok(Response::new(iter([]).boxed()));
                }
                call => call?,
            };
            let client = user_agent(request.metadata());
            let body = call.grant.hold(self.0.action(&call, request.get_ref(), &client)).await?;
            Ok(Response::new(iter(body.map(|body| Ok(arrow_flight::Result { body }))).boxed()))
        })
        .await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Reply<Self::ListActionsStream> {
        self.0.authenticate(&request).await?;
        Ok(Response::new(iter(action::actions().into_iter().map(Ok)).boxed()))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Reply<Self::ListFlightsStream> {
        guarded(async {
            let call = self.0.authenticate(&request).await?;
            let flights = self.0.flights(&call, &request.get_ref().expression)?;
            Ok(Response::new(iter(flights.into_iter().map(Ok)).boxed()))
        })
        .await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Reply<PollInfo> {
        guarded(async {
            let call = self.0.authenticate(&request).await?;
            let client = user_agent(request.metadata());
            // A query is planned at once and runs while it is fetched: there is nothing to ask for again.
            let endpoints = endpoints_wanted(request.metadata())?;
            let info = self.0.flight_info(&call, request.into_inner(), &client, endpoints);
            let info = call.grant.hold(info).await?;
            let done =
                PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None };
            Ok(Response::new(done))
        })
        .await
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Reply<Self::DoExchangeStream> {
        self.0.authenticate(&request).await?;
        Err(Status::unimplemented("DoExchange is not supported: use DoPut and DoGet"))
    }
}

fn user_agent(metadata: &MetadataMap) -> String {
    metadata.get("user-agent").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// In how many endpoints a client can read a result, as it says by `seracdb-endpoints`.
fn endpoints_wanted(metadata: &MetadataMap) -> Result<usize, Status> {
    let Some(value) = metadata.get(ENDPOINTS_HEADER) else { return Ok(1) };
    let wanted = value.to_str().ok().and_then(|value| value.parse().ok());
    wanted.filter(|wanted| (1..=ENDPOINTS_MAX).contains(wanted)).ok_or_else(|| {
        Status::invalid_argument(format!("header '{ENDPOINTS_HEADER}': give a number from 1 to {ENDPOINTS_MAX}"))
    })
}

/// Whether a user-agent is that of the JDBC driver.
fn is_java(client: &str) -> bool {
    client.contains("grpc-java")
}

fn once<T: Send + 'static>(message: T) -> ReplyStream<T> {
    iter([Ok(message)]).boxed()
}
