//! What can go wrong for a client, in the few kinds that a client would handle differently.
//!
//! `kind` decides the gRPC code (one mapping, in the server); `Display` is what the client reads and says what to do;
//! `source()` carries the cause and is logged once, where the error is turned into a status.

use std::error::Error as StdError;

use seracdb_storage::StorageError;
use seracdb_storage::catalog::CatalogError;
use seracdb_storage::row_codec::CodecError;

/// The kinds of failure a client can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be right as it stands: syntax, types, a system column set by hand.
    InvalidArgument,
    /// A namespace, table, column, user, handle or ticket that is not there.
    NotFound,
    /// The thing to create is there already.
    AlreadyExists,
    /// Right by itself, but not in the state that something is in: a transaction that is being committed.
    FailedPrecondition,
    /// Another commit came first; the same request may succeed when sent again.
    Aborted,
    /// No or wrong credentials.
    Unauthenticated,
    /// Known, but not allowed.
    PermissionDenied,
    /// Over a configured limit.
    ResourceExhausted,
    /// Valid SQL or a valid command that SeracDB does not have.
    Unimplemented,
    /// The server is stopping, or its storage cannot be written.
    Unavailable,
    /// Stored rows are gone or damaged.
    DataLoss,
    /// The client went away or cancelled.
    Cancelled,
    /// A bug of ours.
    Internal,
}

impl ErrorKind {
    /// Its name, as clients know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Cancelled => "CANCELLED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// An error as the engine reports it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// What kind of failure this is.
    pub kind: ErrorKind,
    /// What the client reads.
    pub message: String,
    /// The cause, for the log.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The engine's result.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

impl EngineError {
    /// An error of this kind with this text for the client.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with its cause.
    pub fn caused(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// The same, said of something.
    pub(crate) fn about(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// A request that cannot be right.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Another number of values is bound than the statement has parameters.
    pub fn parameter_count(parameters: usize, values: usize) -> Self {
        let are = if values == 1 { "is" } else { "are" };
        let (parameters, values) = (counted(parameters, "parameter"), counted(values, "value"));
        Self::invalid(format!("the statement has {parameters}, but {values} {are} bound"))
    }

    /// A statement that nobody wants any more.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the query was cancelled, by its client or by CANCEL QUERY")
    }

    /// A call that met a panic. The panic itself is in the log.
    pub fn panicked() -> Self {
        Self::internal("a bug in SeracDB stopped this call; the server goes on. Please report it with the statement")
    }
}

/// A number of things: `1 row`, `2 rows`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl From<StorageError> for EngineError {
    fn from(error: StorageError) -> Self {
        let kind = match &error {
            StorageError::InUse(_)
            | StorageError::Stopped
            | StorageError::Fenced { .. }
            | StorageError::LeaseExpired(_) => ErrorKind::Unavailable,
            StorageError::Conflict
            | StorageError::RowConflict { .. }
            | StorageError::KeyConflict { .. }
            | StorageError::ReserveUsedUp
            | StorageError::Recovering => ErrorKind::Aborted,
            StorageError::Catalog(
                CatalogError::NoNamespace(_)
                | CatalogError::NoTable(..)
                | CatalogError::NoView(..)
                | CatalogError::NoUser(_)
                | CatalogError::NoIndex(_)
                | CatalogError::NoToken(_),
            ) => ErrorKind::NotFound,
            StorageError::Catalog(
                CatalogError::NamespaceExists(_)
                | CatalogError::TableExists(..)
                | CatalogError::ViewExists(..)
                | CatalogError::IndexExists(..)
                | CatalogError::UserExists(_)
                | CatalogError::TokenExists(_),
            ) => ErrorKind::AlreadyExists,
            StorageError::Catalog(
                CatalogError::UserChanged(_)
                | CatalogError::AnotherNow(_)
                | CatalogError::TableAltered(..)
                | CatalogError::TableWritten(..),
            ) => ErrorKind::Aborted,
            StorageError::Catalog(CatalogError::FirstUser(_)) => ErrorKind::FailedPrecondition,
            StorageError::Catalog(
                CatalogError::NotEmpty(_)
                | CatalogError::Fixed(_)
                | CatalogError::IsRead { .. }
                | CatalogError::ViewReadsItself(..)
                | CatalogError::ViewsTooDeep(..),
            )
            | StorageError::ObjectStoreUrl { .. }
            | StorageError::Owned { .. }
            | StorageError::Copied { .. }
            | StorageError::Unconditional { .. }
            | StorageError::FormatVersion { .. } => ErrorKind::InvalidArgument,
            StorageError::TooLarge { .. }
            | StorageError::NoMemory(_)
            | StorageError::Codec(CodecError::TooLarge { .. }) => ErrorKind::ResourceExhausted,
            StorageError::Codec(CodecError::UnsupportedType { .. }) | StorageError::TooOld { .. } => {
                ErrorKind::InvalidArgument
            }
            StorageError::DamagedFile(_) => ErrorKind::DataLoss,
            StorageError::ObjectStore(_) => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        let message = match &error {
            // These name files of the server: they are for its log.
            StorageError::Io { .. }
            | StorageError::Damaged(_)
            | StorageError::Manifest { .. }
            | StorageError::Taken(_)
            | StorageError::Fenced { .. }
            | StorageError::LeaseExpired(_)
            | StorageError::Rocks(_)
            | StorageError::ObjectStore(_)
            | StorageError::Parquet(_) => "the storage failed; the server's log says why".to_owned(),
            StorageError::TooOld { oldest } => format!(
                "what rows were is kept since {}: that is the oldest time to read, by compaction.retention_seconds",
                time_text(oldest.get())
            ),
            other => other.to_string(),
        };
        Self::caused(kind, message, error)
    }
}

/// A time as SQL has it. `ns`: since 1970.
pub(crate) fn time_text(ns: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(ns).format("TIMESTAMP '%Y-%m-%d %H:%M:%S%.9f'").to_string()
}
