//! The way in: addresses, TLS, and what a connection has to be before gRPC sees it.
//!
//! Each new connection is greeted in a task of its own, so that one that stalls there stalls nobody else, and has a seat
//! from its first byte to its end.

mod connection;
mod files;
mod greeting;
mod listening;
mod rotation;
mod seats;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
pub(crate) use self::files::TlsError;
pub(crate) use self::listening::{Entrance, WAYS_OUT, is_exposed};
use self::rotation::Certificates;
use self::seats::{Seat, Seats};
use crate::config::LimitsSection;
use crate::now_and_then::Count;

/// Greeted connections that gRPC has not taken over yet.
const GREETED_MAX: usize = 64;

/// How long to wait when the system has no more of what a connection takes.
const RESPITE: Duration = Duration::from_millis(100);

/// Lets connections in.
pub(crate) struct Door {
    certificates: Option<Arc<Certificates>>,
    patience: Duration,
    seats: Arc<Seats>,
    refused: Mutex<Count>,
}

impl Door {
    pub(crate) fn new(entrance: &Entrance, limits: &LimitsSection) -> Self {
        let certificates = entrance.certificates().cloned();
        let patience = Duration::from_secs(limits.handshake_seconds);
        let seats = Seats::new(seats::within_files(limits.connections_max), limits.connections_address_max);
        Self { certificates, patience, seats: Arc::new(seats), refused: Mutex::default() }
    }

    /// The connections that come in, until `stop`, when the port is closed. The stream has no end: to tonic that would be
    /// the time to end the connections that are there.
    pub(crate) fn connections(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> impl Stream<Item = io::Result<Connection>> {
        let (greeted, connections) = mpsc::channel(GREETED_MAX);
        tokio::spawn(accept(Arc::new(self), listener, greeted, stop));
        let connections = stream::unfold(connections, async |mut connections| {
            let connection = connections.recv().await?;
            Some((Ok(connection), connections))
        });
        connections.chain(stream::pending())
    }

    async fn greet(&self, tcp: TcpStream, peer: SocketAddr, seat: Seat) -> Option<Connection> {
        // It only makes things faster.
        let _ = tcp.set_nodelay(true);
        let tls = self.certificates.as_ref().map(|certificates| certificates.current());
        match tokio::time::timeout(self.patience, greeting::greet(tcp, tls)).await {
            Ok(Ok(greeted)) => Some(Connection::new(greeted, peer, seat)),
            Ok(Err(reason)) if reason.has_gone() => {
                tracing::debug!(%peer, "{reason}");
                None
            }
            Ok(Err(reason)) => {
                self.refused(peer, &reason);
                None
            }
            Err(_) => {
                self.refused(peer, &format!("it did not say what it wants within {} s", self.patience.as_secs()));
                None
            }
        }
    }

    /// Says so in the log, now and then.
    fn refused(&self, peer: SocketAddr, reason: &dyn Display) {
        if let Some(unsaid) = self.refused.lock().count(Instant::now()) {
            tracing::warn!(%peer, unsaid, "a connection was refused: {reason}");
        }
    }
}

async fn accept(door: Arc<Door>, listener: TcpListener, greeted: mpsc::Sender<Connection>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
            () = greeted.closed() => return,
        };
        match accepted {
            Ok((tcp, peer)) => match door.seats.take(peer.ip()) {
                Ok(seat) => {
                    let (door, greeted) = (Arc::clone(&door), greeted.clone());
                    tokio::spawn(async move {
                        if let Some(connection) = door.greet(tcp, peer, seat).await {
                            // Nobody takes it when the server stops.
                            let _ = greeted.send(connection).await;
                        }
                    });
                }
                Err(full) => door.refused(peer, &full),
            },
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!("cannot take connections: {error}");
                tokio::time::sleep(RESPITE).await;
            }
        }
    }
}

/// Whether only the connection that would have come is lost.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
