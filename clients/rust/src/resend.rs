//! Requests that meet a connection at its end are sent again.
//!
//! A server may end a connection at any time, by age for one. What a client had queued for it, or had sent behind the
//! server's goodbye, fails although the server never looked at it. gRPC's other clients send it again by themselves
//! ("transparent retries", <https://github.com/grpc/proposal/blob/master/A6-client-retries.md>); tonic does not.
//!
//! Invariant: a request is sent again only if the server cannot have begun what it asks for, by any sending so far: nothing of
//! its message was given to that sending, or the server said that it has not processed the stream. What was given is
//! remembered to be given again.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Error};
use tower::{Service, ServiceExt};

/// How often one request is sent again: the next connection may end just so too, a fourth one hardly.
const RESENDS_MAX: usize = 3;

/// Bytes of a request that are remembered. Larger ones, which are those of loads, are sent once.
const REMEMBERED_BYTES_MAX: usize = 1 << 20;

/// A channel that sends again what was not begun.
#[derive(Debug, Clone)]
pub(crate) struct Resending(pub(crate) Channel);

impl Service<Request<Body>> for Resending {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    /// Whether there is a connection is asked for each sending.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.0.clone();
        let (head, body) = request.into_parts();
        let original = Original::new(body);
        Box::pin(async move {
            for _ in 0..RESENDS_MAX {
                let request = Request::from_parts(head.clone(), Body::new(Original::copy(&original)));
                match channel.clone().oneshot(request).await {
                    Err(error) if Original::may_be_sent_again(&original, &error) => {}
                    answer => return answer,
                }
            }
            channel.oneshot(Request::from_parts(head, Body::new(Original::copy(&original)))).await
        })
    }
}

/// Whether the server said that it did not look at the request (RFC 9113, 6.8 and 8.7). `h2` gives the goodbye of the other
/// side to those streams only that are behind the last one that the goodbye names.
fn was_not_processed(error: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            let behind = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            return error.is_remote() && (refused || behind);
        }
        cause = error.source();
    }
    false
}

/// A request's body, and what of it was given away.
#[derive(Debug)]
struct Original {
    rest: Body,
    /// What was given, in order; nothing once it is too large to remember.
    given: Vec<Bytes>,
    given_bytes: usize,
    is_forgotten: bool,
    /// The number of copies made; only the last one is fed.
    copies: usize,
    /// Whether the last copy was given something. What earlier ones were given, the server is known not to have begun.
    last_was_fed: bool,
}

impl Original {
    fn new(body: Body) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            rest: body,
            given: Vec::new(),
            given_bytes: 0,
            is_forgotten: false,
            copies: 0,
            last_was_fed: false,
        }))
    }

    fn copy(original: &Arc<Mutex<Self>>) -> Copied {
        let mut locked = original.lock().unwrap_or_else(PoisonError::into_inner);
        locked.copies += 1;
        locked.last_was_fed = false;
        Copied { original: original.clone(), number: locked.copies, given: 0 }
    }

    fn may_be_sent_again(original: &Mutex<Self>, error: &Error) -> bool {
        let original = original.lock().unwrap_or_else(PoisonError::into_inner);
        !original.is_forgotten && (!original.last_was_fed || was_not_processed(error))
    }

    fn remember(&mut self, data: Option<&Bytes>) {
        match data {
            Some(data) if !self.is_forgotten && self.given_bytes + data.len() <= REMEMBERED_BYTES_MAX => {
                self.given_bytes += data.len();
                self.given.push(data.clone());
            }
            _ => {
                self.is_forgotten = true;
                self.given = Vec::new();
                self.given_bytes = 0;
            }
        }
    }
}

/// The body of one sending: what earlier ones gave, then the rest.
#[derive(Debug)]
struct Copied {
    original: Arc<Mutex<Original>>,
    number: usize,
    given: usize,
}

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let shared = self.original.clone();
        let mut original = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if original.copies != self.number {
            // Not an end, which would say that this was all.
            return Poll::Ready(Some(Err(Status::cancelled("sent again on another connection"))));
        }
        if let Some(data) = original.given.get(self.given).cloned() {
            self.given += 1;
            original.last_was_fed = true;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = ready!(Pin::new(&mut original.rest).poll_frame(cx));
        original.last_was_fed = true;
        if let Some(Ok(frame)) = &frame {
            original.remember(frame.data_ref());
            self.given = original.given.len();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let original = self.original.lock().unwrap_or_else(PoisonError::into_inner);
        self.given == original.given.len() && original.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body::Body as _;

    use super::*;

    fn original(parts: &[Bytes]) -> Arc<Mutex<Original>> {
        let frames = parts.iter().cloned().map(|part| Ok::<_, Status>(Frame::data(part)));
        Original::new(Body::new(http_body_util::StreamBody::new(stream::iter(frames.collect::<Vec<_>>()))))
    }

    fn next(copy: &mut Copied) -> Option<Result<Bytes, Status>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(frame) = Pin::new(copy).poll_frame(&mut cx) else { panic!("it has all there is") };
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[test]
    fn each_sending_gives_the_whole() {
        let parts = ["a", "b", "c"].map(Bytes::from);
        let original = original(&parts);
        for taken in 0..=parts.len() {
            let mut copy = Original::copy(&original);
            for part in &parts[..taken] {
                assert_eq!(next(&mut copy).unwrap().unwrap(), part);
            }
            let mut later = Original::copy(&original);
            assert!(next(&mut copy).unwrap().is_err(), "what is given up does not end as if it were all");
            for part in &parts {
                assert_eq!(next(&mut later).unwrap().unwrap(), part);
            }
            assert!(next(&mut later).is_none());
        }
    }

    #[test]
    fn a_sending_that_was_given_nothing_is_made_up_for_whatever_earlier_ones_were_given() {
        // An error that says nothing of what the server has done, as that of a connection that closed is.
        let closed = tonic::transport::Endpoint::from_shared("not a URI").unwrap_err();
        let original = original(&["a", "b"].map(Bytes::from));
        let mut first = Original::copy(&original);
        assert!(Original::may_be_sent_again(&original, &closed), "nothing was given yet");
        next(&mut first).unwrap().unwrap();
        assert!(!Original::may_be_sent_again(&original, &closed), "the server may have begun it");
        // The server said that it has not begun that one, and the next waited for a connection that closed before its turn.
        let mut second = Original::copy(&original);
        assert!(Original::may_be_sent_again(&original, &closed), "nothing was given to this one");
        next(&mut second).unwrap().unwrap();
        assert!(!Original::may_be_sent_again(&original, &closed), "the server may have begun this one");
    }

    #[test]
    fn what_is_large_is_not_remembered() {
        let half = Bytes::from(vec![0; REMEMBERED_BYTES_MAX / 2]);
        let original = original(&[half.clone(), half.clone(), half]);
        let mut copy = Original::copy(&original);
        for (forgotten, bytes) in [(false, REMEMBERED_BYTES_MAX / 2), (false, REMEMBERED_BYTES_MAX), (true, 0)] {
            assert!(next(&mut copy).unwrap().is_ok());
            let original = original.lock().unwrap();
            assert_eq!((original.is_forgotten, original.given_bytes), (forgotten, bytes));
        }
        assert!(next(&mut copy).is_none());
    }
}
