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
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The client's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), source: None }
    }

    pub(crate) fn caused(
        code: Code,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { code, message: message.into(), source: Some(source.into()) }
    }

    /// An answer that no Flight SQL server should give.
    pub(crate) fn answer(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// The gRPC code; `Unavailable` when the server could not be reached.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let message = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        Self { code: status.code(), message, source: status.source().map(|source| source.to_string().into()) }
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
