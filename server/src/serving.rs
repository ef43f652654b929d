//! The Flight SQL port: serves until a stop, lets the calls end that run, hangs up.

use std::sync::Arc;
use std::time::Duration;

use seracdb_engine::EngineError;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::config::LimitsSection;
use crate::flight::{self, Flight};
use crate::in_flight::InFlight;
use crate::lifecycle::ServeError;
use crate::queries::Queries;
use crate::transport::Door;

/// Bytes a client may send ahead, per call and per connection: the protocol's 64 KiB would throttle bulk loads.
const CALL_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Calls that a connection may break by what it sends. Then it ends.
const STREAM_ERRORS_MAX: usize = 1024;

/// How long calls that are cut off have for telling their clients.
const FAREWELL: Duration = Duration::from_secs(1);

type Served = Result<(), tonic::transport::Error>;

/// The port, open.
pub(crate) struct Serving {
    served: JoinHandle<Served>,
    in_flight: InFlight,
    /// Ends the connections, each when the calls on it have ended.
    hang_up: CancellationToken,
    stop: CancellationToken,
}

impl Serving {
    /// Takes connections and calls until `stop`.
    pub(crate) fn begin(
        listener: TcpListener,
        door: Door,
        flight: Arc<Flight>,
        limits: &LimitsSection,
        stop: CancellationToken,
    ) -> Self {
        let (in_flight, hang_up) = (InFlight::new(stop.clone()), CancellationToken::new());
        let connections = door.connections(listener, stop.clone());
        let router = server(limits).add_routes(flight::service(flight, limits, in_flight.clone()));
        let served = router.serve_with_incoming_shutdown(connections, hang_up.clone().cancelled_owned());
        Self { served: tokio::spawn(served), in_flight, hang_up, stop }
    }

    /// Waits for the end of the service: after a stop, calls in flight get `patience`.
    pub(crate) async fn drain(mut self, queries: &Queries, patience: Duration) -> Result<(), ServeError> {
        tokio::select! {
            ended = &mut self.served => return result(ended),
            () = self.stop.cancelled() => {}
        }
        let mut end = Instant::now() + patience;
        if timeout_at(end, self.in_flight.ended()).await.is_err() {
            tracing::warn!("calls still in flight after {} s: they are cut off", patience.as_secs());
            queries.stop();
            end = Instant::now() + FAREWELL;
        }
        self.hang_up.cancel();
        match timeout_at(end, &mut self.served).await {
            Ok(ended) => result(ended),
            // Of a client that does not read, or is not there any more.
            Err(_) => {
                self.served.abort();
                Ok(())
            }
        }
    }
}

fn server(limits: &LimitsSection) -> Server {
    let server = Server::builder()
        .http2_max_header_list_size(limits.header_bytes_max)
        .max_concurrent_streams(limits.streams_max)
        // tonic would switch HTTP/2's own limit off.
        .http2_max_local_error_reset_streams(Some(STREAM_ERRORS_MAX))
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(limits.keepalive_seconds)))
        .http2_keepalive_timeout(Some(Duration::from_secs(limits.keepalive_timeout_seconds)));
    match limits.connection_seconds_max {
        0 => server,
        // Without a time for the rest: calls that run have limits of their own.
        seconds => server.max_connection_age(Duration::from_secs(seconds)),
    }
}

fn result(ended: Result<Served, JoinError>) -> Result<(), ServeError> {
    Ok(ended.map_err(|_| EngineError::panicked())??)
}
