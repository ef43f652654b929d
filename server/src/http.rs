//! The HTTP port: `/healthz` for load balancers and scripts. It says nothing that is a secret, so that it needs no TLS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections at the same time; others wait until one of them has ended.
const CONNECTIONS_MAX: usize = 256;

/// How long a connection may ask: each has one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until `stop` completes.
pub(crate) async fn serve(listener: TcpListener, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let routes = Router::new().route("/healthz", get(async || ([(CONNECTION, "close")], "ok")));
    let listener = Brief { listener, seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    axum::serve(listener, routes).with_graceful_shutdown(stop).await
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
