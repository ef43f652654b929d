//! A name for each call: in the headers and trailers of its answer, whatever that says, and with every line that is logged of it.
//!
//! A client may give it, in the same header: who calls a server through others finds the same name in all their logs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use tracing::{Instrument, error_span};
use uuid::Uuid;

/// The header.
const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of a name.
const BYTES_MAX: usize = 64;

/// The calls of Flight. Whatever else a client calls has no name in logs.
const METHODS: [&str; 10] = [
    "Handshake",
    "ListFlights",
    "GetFlightInfo",
    "PollFlightInfo",
    "GetSchema",
    "DoGet",
    "DoPut",
    "DoExchange",
    "DoAction",
    "ListActions",
];

/// Names a call: all of its work is within a span of that name.
pub(crate) async fn named(request: Request, next: Next) -> Response {
    let (name, value) = of_call(request.headers());
    // Of the highest level: with every line, whatever the filter.
    let span = error_span!("call", request_id = %name, method = method(request.uri().path()));
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(HEADER, value.clone());
    // The status of a call that fails in the middle of its answer is in the trailers.
    response.map(|body| {
        Body::new(body.map_frame(move |mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                trailers.insert(HEADER, value.clone());
            }
            frame
        }))
    })
}

/// The name that a client gives, if it can be one; else a new one.
fn of_call(headers: &HeaderMap) -> (Arc<str>, HeaderValue) {
    let given = headers.get(HEADER).filter(|value| is_usable(value.as_bytes()));
    let named = given.and_then(|value| Some((value.to_str().ok()?.into(), value.clone())));
    named.unwrap_or_else(|| {
        let name = Uuid::new_v4().simple().to_string();
        let value = HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static("-"));
        (name.into(), value)
    })
}

/// Whether logs may have it as it is.
fn is_usable(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    (1..=BYTES_MAX).contains(&name.len()) && name.iter().all(is_plain)
}

fn method(path: &str) -> &'static str {
    let called = path.strip_prefix("/arrow.flight.protocol.FlightService/");
    METHODS.into_iter().find(|known| called == Some(*known)).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_over_when_it_is_plain_and_short() {
        let of = |given: &[u8]| {
            let value = HeaderValue::from_bytes(given).unwrap();
            of_call(&HeaderMap::from_iter([(HEADER, value)])).0
        };
        let longest = "x".repeat(64);
        for name in ["a", "A-z_0.9", longest.as_str()] {
            assert_eq!(*of(name.as_bytes()), *name);
        }
        let too_long = "x".repeat(65);
        for other in ["", "a b", "a\tb", "a/b", "é", "\"a\"", too_long.as_str()] {
            let name = of(other.as_bytes());
            assert!(name.len() == 32 && is_usable(name.as_bytes()), "{other}: {name}");
        }
        assert_ne!(of_call(&HeaderMap::new()).0, of_call(&HeaderMap::new()).0);
    }

    #[test]
    fn only_known_methods_are_named() {
        assert_eq!(method("/arrow.flight.protocol.FlightService/DoGet"), "DoGet");
        for other in
            ["", "/DoGet", "/arrow.flight.protocol.FlightService/", "/arrow.flight.protocol.FlightService/Evil\n"]
        {
            assert_eq!(method(other), "other");
        }
    }
}
