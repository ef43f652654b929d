//! The client's error: what the server said, with its code.

use std::error::Error as StdError;

use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use prost::DecodeError;
use tonic::{Code, Status};

/// Why a call failed.
///
/// `Display` is the server's text, made to be shown. [`Error::code`] tells kinds apart: `Aborted` may succeed when the
/// same is sent again, `Unavailable` when the server is back, `Unauthenticated` after a new login.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    code: Code,
    message: String,
    /// The server's name for the call.
    request_id: Option<String>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The client's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), request_id: None, source: None }
    }

    pub(crate) fn caused(
        code: Code,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { code, message: message.into(), request_id: None, source: Some(source.into()) }
    }

    /// An answer that no Flight SQL server should give.
    pub(crate) fn answer(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// The gRPC code; `Unavailable` when the server could not be reached.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The name that the server's log has for the call, when a server has answered it.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let message = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        let request_id = status.metadata().get("x-request-id").and_then(|name| name.to_str().ok()).map(str::to_owned);
        let source = status.source().map(|source| source.to_string().into());
        Self { code: status.code(), message, request_id, source }
    }
}

impl From<FlightError> for Error {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => (*status).into(),
            other => Self::caused(Code::Internal, "the data received cannot be read", other),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::caused(Code::Internal, "the answer cannot be read", error)
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        Self::caused(Code::Internal, format!("Arrow data cannot be converted: {error}"), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_servers_name_for_the_call() {
        let mut status = Status::internal("a bug");
        assert_eq!(Error::from(status.clone()).request_id(), None);
        status.metadata_mut().insert("x-request-id", "call-7".parse().unwrap());
        let error = Error::from(FlightError::Tonic(Box::new(status)));
        assert_eq!((error.request_id(), error.to_string()), (Some("call-7"), "a bug".to_owned()));
    }
}
