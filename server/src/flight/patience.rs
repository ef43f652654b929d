//! What a request's messages come in: an error when the client resets the call, or leaves it waiting for too long.

use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tonic::Status;

use crate::config::LimitsSection;

/// Bytes of the messages of a call that says who it is in them: whoever sends them is nobody yet.
const STRANGERS_BYTES_MAX: usize = 64 << 10;

/// How much of a call's messages the server takes, and how long it waits for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) wait: Wait,
    /// Bytes of all messages together.
    pub(super) bytes_max: usize,
}

impl Patience {
    pub(super) fn with_known(limits: &LimitsSection) -> Self {
        let wait = match limits.request_idle_seconds {
            0 => Wait::ForEver,
            seconds => Wait::Next(Duration::from_secs(seconds)),
        };
        Self { wait, bytes_max: usize::MAX }
    }

    /// Who sends a byte now and then would have a place for as long as it likes.
    pub(super) fn with_strangers(limits: &LimitsSection) -> Self {
        Self { wait: Wait::Whole(Duration::from_secs(limits.handshake_seconds)), bytes_max: STRANGERS_BYTES_MAX }
    }
}

/// How long it waits for bytes, when it wants some.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    ForEver,
    /// For the next ones.
    Next(Duration),
    /// For all of them, from the beginning of the call.
    Whole(Duration),
}

impl Wait {
    /// What is left of it for the next bytes; `None` is for ever.
    fn left(self, since: Instant) -> Option<Duration> {
        match self {
            Self::ForEver => None,
            Self::Next(max) => Some(max),
            Self::Whole(max) => Some(max.saturating_sub(since.elapsed())),
        }
    }
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
    Patience { wait, bytes_max }: Patience,
) -> impl Stream<Item = Result<Bytes, Status>> {
    let began = Instant::now();
    stream::unfold(Some((body, bytes_max)), move |state| async move {
        let (mut body, left) = state?;
        let next = match wait.left(began) {
            Some(max) => tokio::time::timeout(max, body.next()).await.map_err(|_| too_slow(wait)),
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

fn too_slow(wait: Wait) -> Status {
    Status::resource_exhausted(match wait {
        Wait::Whole(max) => format!(
            "the message did not come within {} s (limits.handshake_seconds): send it at once, with the call",
            max.as_secs()
        ),
        Wait::Next(max) => format!(
            "nothing came for {} s (limits.request_idle_seconds): send the next message sooner, or end the call",
            max.as_secs()
        ),
        Wait::ForEver => "nothing came".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tonic::Code;

    use super::*;

    async fn read(
        body: impl Stream<Item = Result<Bytes, &'static str>> + Send + 'static,
        wait: Wait,
    ) -> Vec<Result<Bytes, Code>> {
        let chunks = chunks(body.boxed(), Patience { wait, bytes_max: 3 });
        chunks.map(|chunk| chunk.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn a_body_ends_fails_takes_too_long_or_is_too_large() {
        let a = || Ok(Bytes::from_static(b"a"));
        let one = || stream::iter([Ok(Bytes::from_static(b"a"))]);
        let short = Wait::Next(Duration::from_millis(10));
        assert_eq!(read(one(), short).await, [a()]);
        assert_eq!(read(one(), Wait::ForEver).await, [a()]);
        let reset = one().chain(stream::iter([Err("reset"), Ok(Bytes::new())]));
        assert_eq!(read(reset, short).await, [a(), Err(Code::Aborted)]);
        assert_eq!(read(one().chain(stream::pending()), short).await, [a(), Err(Code::ResourceExhausted)]);
        assert!(read(one().chain(stream::pending()), Wait::ForEver).now_or_never().is_none());
        let many = one().chain(one()).chain(one());
        assert_eq!(read(many, Wait::ForEver).await, [a(), a(), a()]);
        let more = one().chain(stream::iter([Ok(Bytes::from_static(b"bcd"))])).chain(one());
        assert_eq!(read(more, Wait::ForEver).await, [a(), Err(Code::ResourceExhausted)]);
    }

    #[tokio::test]
    async fn the_time_for_the_whole_does_not_begin_again_with_each_byte() {
        let slowly = |count| {
            stream::iter(0..count).then(|_| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(Bytes::new())
            })
        };
        let ms = Duration::from_millis;
        assert_eq!(read(slowly(10), Wait::Next(ms(150))).await, vec![Ok(Bytes::new()); 10]);
        let cut = read(slowly(1000), Wait::Whole(ms(150))).await;
        assert!(cut.len() < 10 && cut.last() == Some(&Err(Code::ResourceExhausted)), "{cut:?}");
    }
}
