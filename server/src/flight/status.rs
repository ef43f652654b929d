//! Errors as gRPC statuses: the one place where an error is logged and gets its code.

use std::error::Error as StdError;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use arrow::error::ArrowError;
use futures::FutureExt;
use seracdb_engine::{EngineError, ErrorKind};
use tonic::{Code, Status};

use super::RECEIVE_BYTES_MAX;

/// Bytes of a message. gRPC puts it into a header, percent-encoded; Java refuses headers above 8 KiB.
const MESSAGE_BYTES_MAX: usize = 2000;

/// How the texts of tonic begin that say that what came is no message.
const NO_MESSAGE: [&str; 4] =
    ["failed to decode Protobuf", "Missing request message", "Unexpected EOF", "protocol error"];

/// The status of an engine error; logs it.
pub(crate) fn from_engine(error: EngineError) -> Status {
    let code = code(error.kind);
    if matches!(code, Code::Internal | Code::Unavailable | Code::DataLoss) {
        tracing::error!(%code, cause = causes(&error), "{error}");
    } else {
        tracing::debug!(%code, cause = causes(&error), "{error}");
    }
    Status::new(code, shortened(error.message))
}

/// The status of an error in the middle of a result. The engine's own error is somewhere among the causes.
pub(crate) fn from_stream(error: impl StdError + Send + Sync + 'static) -> Status {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(known) = current.downcast_ref::<EngineError>() {
            return from_engine(EngineError::caused(known.kind, known.message.clone(), causes(known)));
        }
        cause = current.source();
    }
    let message = format!("the query failed: {error}");
    from_engine(EngineError::caused(ErrorKind::Internal, message, error))
}

/// The status of a message that could not be received. gRPC says OUT_OF_RANGE when it is too large, and INTERNAL when it is
/// none.
pub(crate) fn unreceived(status: Status) -> Status {
    let is_no_message = |text: &str| NO_MESSAGE.iter().any(|known| text.starts_with(known));
    match status.code() {
        Code::OutOfRange => too_large(),
        Code::Internal if is_no_message(status.message()) => unreadable(status.message()),
        _ => status,
    }
}

pub(crate) fn too_large() -> Status {
    Status::resource_exhausted(format!(
        "the message has more than {} MiB, the limit: use parameters or bulk ingest for data, and send it in several \
         messages",
        RECEIVE_BYTES_MAX >> 20
    ))
}

/// The status of data that a client sent and that cannot be read.
pub(crate) fn unreadable(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(shortened(format!("the message cannot be read: {error}")))
}

/// The status of a result that could not be made into messages.
pub(crate) fn unsendable(error: ArrowError) -> Status {
    from_engine(EngineError::caused(ErrorKind::Internal, "the result cannot be encoded as Arrow IPC", error))
}

/// Runs a call so that a panic in it is its own error only.
pub(crate) async fn guarded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Err(status)) if status.message().len() > MESSAGE_BYTES_MAX => {
            Err(Status::new(status.code(), shortened(status.message().to_owned())))
        }
        Ok(result) => result,
        Err(_) => Err(from_engine(EngineError::panicked())),
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DataLoss => Code::DataLoss,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
    }
}

fn causes(error: &EngineError) -> String {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(current) = cause {
        texts.push(current.to_string());
        cause = current.source();
    }
    texts.join(": ")
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        let codes = [
            (ErrorKind::InvalidArgument, Code::InvalidArgument),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::AlreadyExists, Code::AlreadyExists),
            (ErrorKind::FailedPrecondition, Code::FailedPrecondition),
            (ErrorKind::Aborted, Code::Aborted),
            (ErrorKind::Unauthenticated, Code::Unauthenticated),
            (ErrorKind::PermissionDenied, Code::PermissionDenied),
            (ErrorKind::ResourceExhausted, Code::ResourceExhausted),
            (ErrorKind::Unimplemented, Code::Unimplemented),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::Cancelled, Code::Cancelled),
            (ErrorKind::Internal, Code::Internal),
        ];
        for (kind, code) in codes {
            let status = from_engine(EngineError::new(kind, "no table 't'"));
            assert_eq!((status.code(), status.message()), (code, "no table 't'"));
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let status = from_engine(EngineError::invalid("é".repeat(5000)));
        assert!(status.message().len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
    }

    #[tokio::test]
    async fn a_panic_becomes_a_status() {
        let status = guarded::<()>(async { panic!("a planted one") }).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    }
}
