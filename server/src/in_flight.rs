//! The calls that run: a server that stops lets them end, and takes no new ones.
//!
//! Connections are told to go (GOAWAY) only when no call runs on them. Clients write the beginning of a call after they
//! have acknowledged the GOAWAY, if the two cross; h2 takes what follows of such a call for a broken protocol and ends the
//! connection with all calls on it. Until then a new call has a clear answer.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::flight::status::from_engine;
use crate::queries;

/// What counts the calls.
#[derive(Clone)]
pub(crate) struct InFlight {
    calls: TaskTracker,
    stop: CancellationToken,
}

impl InFlight {
    /// `stop`: after it no call is taken.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { calls: TaskTracker::new(), stop }
    }

    /// Answers a call, which runs until all of its answer was handed over or its client has gone.
    pub(crate) async fn answer(self, request: Request, next: Next) -> Response {
        // Counted before the look, so that none is between the two.
        let running = self.calls.token();
        if self.stop.is_cancelled() {
            return from_engine(queries::stopping()).into_http();
        }
        let response = next.run(request).await;
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _ = &running;
                frame
            }))
        })
    }

    /// Waits, after the stop, until no call runs.
    pub(crate) async fn ended(&self) {
        self.calls.close();
        self.calls.wait().await;
    }
}
