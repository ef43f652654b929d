//! What a request's messages come in: an error when the client resets the call, or leaves it waiting for too long.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tonic::Status;

/// How much of a call's messages the server takes, and how long it waits for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long it waits for the next bytes, when it wants some; `None` for as long as it takes.
    pub(super) idle_max: Option<Duration>,
    /// Bytes of all messages together.
    pub(super) bytes_max: usize,
}

/// The same body, which fails where tonic would see its end or wait for ever.
///
/// tonic takes a request that its client resets for one that has ended: half an ingest would be a whole one. It does so with
/// every error that is CANCELLED, which none of these may be.
pub(super) fn patient(body: Body, patience: Patience) -> Body {
    Body::from_stream(chunks(body.into_data_stream(), patience))
}

fn chunks<E: std::fmt::Display>(
    body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    Patience { idle_max, bytes_max }: Patience,
) -> impl Stream<Item = Result<Bytes, Status>> {
    stream::unfold(Some((body, bytes_max)), move |state| async move {
        let (mut body, left) = state?;
        let next = match idle_max {
            Some(idle_max) => tokio::time::timeout(idle_max, body.next()).await.map_err(|_| too_slow(idle_max)),
            None => Ok(body.next().await),
        };
        match next {
            Ok(Some(Ok(bytes))) => match left.checked_sub(bytes.len()) {
                Some(left) => Some((Ok(bytes), Some((body, left)))),
                None => Some((Err(too_much(bytes_max)), None)),
            },
            Ok(Some(Err(error))) => Some((Err(Status::aborted(format!("the call was cut off: {error}"))), None)),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
}

fn too_much(bytes_max: usize) -> Status {
    Status::resource_exhausted(format!("the message is larger than the {} KiB of this call", bytes_max >> 10))
}

fn too_slow(idle_max: Duration) -> Status {
    Status::resource_exhausted(format!(
        "nothing came for {} s (server.limits.request_idle_seconds): send the next message sooner, or end the call",
        idle_max.as_secs()
    ))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tonic::Code;

    use super::*;

    async fn read(
        body: impl Stream<Item = Result<Bytes, &'static str>> + Send + 'static,
        idle_max: Option<Duration>,
    ) -> Vec<Result<Bytes, Code>> {
        let chunks = chunks(body.boxed(), Patience { idle_max, bytes_max: 3 });
        chunks.map(|chunk| chunk.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn a_body_ends_fails_takes_too_long_or_is_too_large() {
        let a = || Ok(Bytes::from_static(b"a"));
        let one = || stream::iter([Ok(Bytes::from_static(b"a"))]);
        let short = Some(Duration::from_millis(10));
        assert_eq!(read(one(), short).await, [a()]);
        assert_eq!(read(one(), None).await, [a()]);
        let reset = one().chain(stream::iter([Err("reset"), Ok(Bytes::new())]));
        assert_eq!(read(reset, short).await, [a(), Err(Code::Aborted)]);
        assert_eq!(read(one().chain(stream::pending()), short).await, [a(), Err(Code::ResourceExhausted)]);
        assert!(read(one().chain(stream::pending()), None).now_or_never().is_none());
        let many = one().chain(one()).chain(one());
        assert_eq!(read(many, None).await, [a(), a(), a()]);
        let more = one().chain(stream::iter([Ok(Bytes::from_static(b"bcd"))])).chain(one());
        assert_eq!(read(more, None).await, [a(), Err(Code::ResourceExhausted)]);
    }
}
