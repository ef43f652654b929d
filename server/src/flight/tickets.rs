//! Tickets: what GetFlightInfo planned or did, for DoGet to fetch.
//!
//! A ticket belongs to the user that got it, as long as the user's role is the same. It may be fetched again while it lives: a query then runs again, the
//! count of an update is only told again. A ticket nobody fetches goes after a while; fetched ones are kept for
//! repeated fetches only as long as there is room, so that a busy client never meets the limit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use seracdb_engine::{Prepared, Principal, Rows, TransactionId};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::command::TicketId;
use crate::config::FlightSection;
use crate::expiring::Expiring;
use crate::queries::Queries;

/// Fetched tickets that are kept for another fetch.
const FETCHED_MAX: usize = 256;

/// What a ticket gives.
#[derive(Clone)]
pub(crate) enum Planned {
    /// Runs a query, in this transaction. `params`: its one row of parameters.
    Query { prepared: Arc<Prepared>, params: Option<RecordBatch>, transaction: Option<TransactionId> },
    /// Gives a part of a query's rows, once.
    Part { rows: Arc<Mutex<Option<Rows>>>, schema: SchemaRef, transaction: Option<TransactionId> },
    /// Tells how many rows an executed update changed.
    Count(i64),
}

pub(crate) struct Ticket {
    /// With the role that it was issued to: what runs already runs with the rights of that.
    owner: Principal,
    pub(crate) planned: Planned,
    /// Fires when the client cancels, or when the server stops; running fetches stop.
    pub(crate) cancel: CancellationToken,
}

pub(crate) struct Tickets {
    state: Mutex<State>,
    queries: Queries,
}

struct State {
    live: Expiring<TicketId, Ticket>,
    fetched: VecDeque<TicketId>,
}

impl Tickets {
    pub(crate) fn new(queries: Queries, config: &FlightSection) -> Self {
        let idle = Duration::from_secs(config.ticket_idle_seconds);
        let live = Expiring::new(idle, config.tickets_max);
        Self { state: Mutex::new(State { live, fetched: VecDeque::new() }), queries }
    }

    pub(crate) fn issue(&self, owner: &Principal, planned: Planned, now: Instant) -> Result<TicketId, Status> {
        self.issue_until(owner, planned, now, self.queries.token())
    }

    /// The same for something that runs already, until `cancel` fires.
    pub(crate) fn issue_until(
        &self,
        owner: &Principal,
        planned: Planned,
        now: Instant,
        cancel: CancellationToken,
    ) -> Result<TicketId, Status> {
        let id = TicketId(Uuid::new_v4().into_bytes());
        let ticket = Ticket { owner: owner.clone(), planned, cancel };
        self.state.lock().live.insert(id, Arc::new(ticket), owner.into(), now).map_err(|why| {
            let (things, remedy) = ("statements that wait to be fetched", "fetch or cancel some");
            Status::resource_exhausted(why.text(things, remedy, "flight.tickets_max"))
        })?;
        Ok(id)
    }

    pub(crate) fn fetch(&self, owner: &Principal, id: TicketId, now: Instant) -> Result<Arc<Ticket>, Status> {
        let mut state = self.state.lock();
        let found = state.live.get(&id, now).filter(|ticket| ticket.owner == *owner);
        let ticket = found.ok_or_else(no_ticket)?;
        if !state.fetched.contains(&id) {
            state.fetched.push_back(id);
            state.live.give_back_place(&id);
        }
        if state.fetched.len() > FETCHED_MAX
            && let Some(oldest) = state.fetched.pop_front()
        {
            state.live.remove(&oldest);
        }
        Ok(ticket)
    }

    /// Has a ticket's idle time start again.
    pub(crate) fn touch(&self, owner: &Principal, id: TicketId, now: Instant) -> Result<(), Status> {
        let found = self.state.lock().live.get(&id, now).filter(|ticket| ticket.owner == *owner);
        found.map(drop).ok_or_else(no_ticket)
    }

    /// Cancels what the ticket stands for; whether there was such a ticket.
    pub(crate) fn cancel(&self, owner: &Principal, id: TicketId, now: Instant) -> bool {
        let mut state = self.state.lock();
        let found = state.live.get(&id, now).filter(|ticket| ticket.owner == *owner);
        let Some(ticket) = found else { return false };
        ticket.cancel.cancel();
        state.live.remove(&id);
        true
    }

    pub(crate) fn sweep(&self, now: Instant) {
        self.state.lock().live.sweep(now);
    }
}

fn no_ticket() -> Status {
    Status::not_found("no such ticket: it ended, was cancelled or is another user's. Send the statement again")
}
