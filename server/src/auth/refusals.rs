//! Logins that are refused: what the server's log and the audit log have of them.
//!
//! The log has a line now and then for each reason and source, for whoever is refused can come again as often as it likes; the
//! audit log has each one that it is for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use seracdb_engine::Engine;
use tonic::Status;

use super::address;
use crate::flight::status;
use crate::lockout::Source;
use crate::metrics::ServerMetrics;
use crate::now_and_then::Counts;
use crate::queries::Queries;
use crate::refusal::{Refusal, Refused};

/// Bytes of a user's name in the log.
const NAME_BYTES_SHOWN: usize = 128;

/// What has a line of its own: source, reason, and what is not said to who was refused.
type Kind = (Source, &'static str, &'static str);

/// Says that logins were refused.
pub(super) struct Refusals {
    engine: Arc<Engine>,
    queries: Queries,
    metrics: ServerMetrics,
    said: Mutex<Counts<Kind>>,
}

impl Refusals {
    pub(super) fn new(engine: Arc<Engine>, queries: Queries, metrics: ServerMetrics) -> Self {
        Self { engine, queries, metrics, said: Mutex::default() }
    }

    /// Somebody has to wait after a wrong password.
    pub(super) fn locked_out(&self) {
        self.metrics.locked_out();
    }

    /// Refuses a login. All refusals pass here, with who it was said to be, where from, and why.
    pub(super) fn refused(&self, user: Option<&str>, peer: Option<SocketAddr>, why: Refusal) -> Refused {
        self.metrics.login_refused(why.label());
        let kind = (Source::of(peer), why.name(), why.detail());
        if let Some(unsaid) = self.said.lock().count(kind, Instant::now()) {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            // No user has a longer name, and whoever tries does not fill the log.
            let user = user.map(|user| &user[..user.floor_char_boundary(NAME_BYTES_SHOWN)]);
            tracing::info!(user, peer, why = why.name(), detail = why.detail(), unsaid, "a login was refused");
        }
        Refused::new(user, why)
    }

    /// What is said to who was refused, once the audit log has it. It gets there whether or not somebody waits for that.
    pub(super) async fn noted(&self, refused: Refused, peer: Option<SocketAddr>) -> Status {
        let Some((user, why)) = refused.entry else { return refused.status };
        let (engine, peer) = (Arc::clone(&self.engine), peer.map(address));
        let noted = async move { engine.audit_refused_login(&user, peer.as_deref(), &why).await };
        match self.queries.finish(noted).await.flatten() {
            Ok(()) => refused.status,
            Err(error) => status::from_engine(error),
        }
    }

    /// Says how many have come since the last line, of those that come no more.
    pub(super) fn sweep(&self, now: Instant) {
        for ((source, why, detail), unsaid) in self.said.lock().sweep(now) {
            tracing::info!(%source, why, detail, unsaid, "logins were refused");
        }
    }
}
