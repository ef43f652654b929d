//! The HTTP port: `/healthz` and `/readyz` for load balancers and scripts, `/metrics` for Prometheus. It says nothing that is a
//! secret, so that it needs no TLS. It is there before the data is open and until it is closed.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use prometheus_client::registry::Registry;
use seracdb_engine::Engine;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Connections at the same time; others wait until one of them has ended.
const CONNECTIONS_MAX: usize = 256;

/// How long a connection may ask: each has one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the port tells of.
pub(crate) struct Watched {
    /// Fires when the server is to stop.
    stop: CancellationToken,
    /// Once calls are taken.
    serving: OnceLock<(Arc<Engine>, Registry)>,
}

impl Watched {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { stop, serving: OnceLock::new() }
    }

    /// From now on calls are taken, until the stop.
    pub(crate) fn serves(&self, engine: Arc<Engine>, registry: Registry) {
        // It is said once.
        let _ = self.serving.set((engine, registry));
    }

    /// Why no calls should be sent here.
    fn not_ready(&self) -> Option<&'static str> {
        match self.serving.get() {
            _ if self.stop.is_cancelled() => Some("stopping"),
            None => Some("starting"),
            Some((engine, _)) => engine.has_storage_ended().then_some("the storage takes no more commits"),
        }
    }
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, watched: Arc<Watched>) -> io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(async || ([(CONNECTION, "close")], "ok")))
        .route("/readyz", get(readyz))
        .route("/metrics", get(shown_metrics))
        .with_state(watched);
    let listener = Brief { listener, seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    axum::serve(listener, routes).await
}

async fn readyz(State(watched): State<Arc<Watched>>) -> Response {
    let (status, text) = match watched.not_ready() {
        None => (StatusCode::OK, "ready"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    (status, [(CONNECTION, "close")], text).into_response()
}

async fn shown_metrics(State(watched): State<Arc<Watched>>) -> Response {
    let close = (CONNECTION, "close");
    let text = watched.serving.get().and_then(|(_, registry)| metrics::text(registry).ok());
    match text {
        Some(text) => ([close, (CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, [close], "there are no figures yet").into_response(),
    }
}

/// Accepts connections that do not last.
struct Brief {
    listener: TcpListener,
    seats: Arc<Semaphore>,
}

/// A connection that nothing comes in from once its time is over.
struct BriefStream {
    tcp: TcpStream,
    end: Pin<Box<Sleep>>,
    _seat: Option<OwnedSemaphorePermit>,
}

impl Listener for Brief {
    type Io = BriefStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BriefStream, SocketAddr) {
        // It is never closed.
        let seat = Arc::clone(&self.seats).acquire_owned().await.ok();
        // Waits and tries again when it fails.
        let (tcp, peer) = Listener::accept(&mut self.listener).await;
        (BriefStream { tcp, end: Box::pin(sleep(PATIENCE)), _seat: seat }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for BriefStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Pin::new(&mut self.tcp).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for BriefStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
