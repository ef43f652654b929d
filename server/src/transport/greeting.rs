//! The first bytes of a connection: TLS, and what HTTP/2 begins with.
//!
//! The HTTP/2 library waits for them without an end, and has no words for who speaks something else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What each connection of HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// HTTP/2 for "no": empty SETTINGS, and GOAWAY with PROTOCOL_ERROR.
const FAREWELL: &[u8; 26] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";

/// How long a client has for taking it, and how much of what it has sent is read meanwhile.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);
const FAREWELL_READ_MAX: u64 = 64 << 10;

/// Bytes in and out, in the clear or not.
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that speaks HTTP/2, and what was read of it.
pub(super) struct Greeted {
    pub(super) io: Io,
    pub(super) start: Bytes,
}

/// Why a connection is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwelcome {
    #[error("it ended before it said what it wants: {0}")]
    Ended(#[from] io::Error),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("it speaks TLS, and this port does not (server.tls)")]
    UnexpectedTls,
    #[error("it does not speak HTTP/2")]
    NoHttp2,
}

impl Unwelcome {
    /// Whether the client has only gone, as who looks whether somebody listens here does.
    pub(super) fn has_gone(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self {
            Self::Ended(error) | Self::Tls(error) => {
                matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
            }
            Self::UnexpectedTls | Self::NoHttp2 => false,
        }
    }
}

/// Waits for the first bytes; as long as it takes.
pub(super) async fn greet(mut tcp: TcpStream, tls: Option<Arc<ServerConfig>>) -> Result<Greeted, Unwelcome> {
    let Some(config) = tls else {
        return match preface(&mut tcp).await {
            Ok(start) => Ok(Greeted { io: Io::Plain(tcp), start }),
            Err(reason) => {
                turn_away(&mut tcp).await;
                Err(reason)
            }
        };
    };
    let mut tls = TlsAcceptor::from(config).accept(tcp).await.map_err(Unwelcome::Tls)?;
    let start = preface(&mut tls).await?;
    Ok(Greeted { io: Io::Tls(Box::new(tls)), start })
}

/// Says that here is no TLS, in what a client that wants some takes for a plain answer: its error names the mistake then,
/// and not a network that fails.
async fn turn_away(tcp: &mut TcpStream) {
    let said = async {
        tcp.write_all(FAREWELL).await?;
        tcp.shutdown().await?;
        // What is not read when the connection is dropped would take the answer with it.
        tokio::io::copy(&mut tcp.take(FAREWELL_READ_MAX), &mut tokio::io::sink()).await
    };
    // Whoever does not take it has gone, or has had time enough.
    let _ = tokio::time::timeout(FAREWELL_PATIENCE, said).await;
}

async fn preface(from: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, Unwelcome> {
    let mut start = [0; PREFACE.len()];
    let mut read = 0;
    while read < start.len() {
        let more = from.read(&mut start[read..]).await?;
        if more == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        read += more;
        check(&start[..read])?;
    }
    Ok(Bytes::copy_from_slice(&start))
}

/// Whether a connection may begin like this.
fn check(start: &[u8]) -> Result<(), Unwelcome> {
    match start {
        start if PREFACE.starts_with(start) => Ok(()),
        [TLS_HANDSHAKE, ..] => Err(Unwelcome::UnexpectedTls),
        _ => Err(Unwelcome::NoHttp2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for length in 0..=PREFACE.len() {
            assert!(check(&PREFACE[..length]).is_ok());
        }
        assert!(matches!(check(&[0x16, 3, 1]), Err(Unwelcome::UnexpectedTls)));
        assert!(matches!(check(b"GET / HTTP/1.1"), Err(Unwelcome::NoHttp2)));
        assert!(matches!(check(b"PRI * HTTP/2.1"), Err(Unwelcome::NoHttp2)));
    }

    #[tokio::test]
    async fn what_comes_in_pieces_is_read() {
        let mut pieces = in_pieces();
        assert_eq!(preface(&mut pieces).await.unwrap(), &PREFACE[..]);
        let mut rest = Vec::new();
        pieces.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"more");
        assert!(matches!(preface(&mut &PREFACE[..10]).await, Err(Unwelcome::Ended(_))));
    }

    fn in_pieces() -> impl AsyncRead + Unpin {
        (&PREFACE[..3]).chain(&PREFACE[3..]).chain(&b"more"[..])
    }
}
