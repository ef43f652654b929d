//! What can go wrong in storage.

use crate::catalog::CatalogError;
use crate::delete_log::DamagedEntry;
use crate::keys::Scope;
use crate::manifest::Fault;
use crate::row_codec::CodecError;
use crate::system_columns::CommitTs;

/// An error of the storage crate. `Display` says what happened; the cause is in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has the data directory open.
    #[error("the data directory {0} is in use by another process: stop it, or choose another with --data-dir")]
    InUse(std::path::PathBuf),
    /// The data directory was written by a version that this one does not know.
    #[error("the data directory {path} has format version {found}; this build reads {known}: use a newer build")]
    FormatVersion {
        /// The data directory.
        path: std::path::PathBuf,
        /// What its format file says.
        found: u32,
        /// What this build reads and writes.
        known: u32,
    },
    /// Another commit changed one of the rows first, or changed the table.
    #[error("another commit changed the same rows or their table first: run the statement again")]
    Conflict,
    /// Another commit changed a row first.
    #[error("another commit changed row {id} first: run the statement again")]
    RowConflict {
        /// The row's scope.
        scope: Scope,
        /// Its `_id`.
        id: i64,
    },
    /// Another commit gave a unique key to a row, or took it from one, first.
    #[error("another commit has changed who has a unique key first: run the statement again")]
    KeyConflict {
        /// The key's scope.
        scope: Scope,
    },
    /// The catalog does not allow the change.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// One commit is larger than a commit may be.
    #[error("the statement changes {bytes} bytes of rows at once; at most {max} are possible: split it")]
    TooLarge {
        /// Bytes of its rows.
        bytes: usize,
        /// The most a commit may have.
        max: usize,
    },
    /// The store has stopped, or a write failed and nothing more is acknowledged.
    #[error("the store has stopped and takes no more commits")]
    Stopped,
    /// The URL of the object store cannot be used.
    #[error("object store '{url}': {reason}: use file:///folder or s3://bucket/prefix")]
    ObjectStoreUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that is to be written is there already.
    #[error("the object store already has {0}: another data directory uses it, or did; give each its own prefix")]
    Taken(String),
    /// The object store belongs to another data directory.
    #[error(
        "the object store {store} belongs to the data directory {owner} (epoch {epoch}), not to this one, {me}: give each \
         data directory its own prefix, or, when the other is gone for good, start once with --take-over"
    )]
    Owned {
        /// The object store.
        store: String,
        /// Id of its owner, as in the file FORMAT there.
        owner: String,
        /// Epoch of the owner.
        epoch: u64,
        /// Id of the data directory that was to be opened.
        me: String,
    },
    /// The object store was last written to from a copy of the data directory.
    #[error(
        "the object store {store} was last owned (epoch {epoch}) by a copy of this data directory, {me}, which has gone on \
         without it: start that one; or, when it is gone for good and what it wrote since may be lost, start once with \
         --take-over"
    )]
    Copied {
        /// The object store.
        store: String,
        /// Epoch of the owner.
        epoch: u64,
        /// Id of both data directories.
        me: String,
    },
    /// Another process has taken the object store over.
    #[error(
        "the object store {store} has another owner now, {owner}: this server has lost it and acknowledges nothing any more"
    )]
    Fenced {
        /// The object store.
        store: String,
        /// What is known of the new owner.
        owner: String,
    },
    /// A time of which the rows are no more.
    #[error("what rows were before {} (nanoseconds since 1970) is not kept", .oldest.get())]
    TooOld {
        /// The oldest time of which they are.
        oldest: CommitTs,
    },
    /// There is no memory for what a read has to hold.
    #[error("{0}")]
    NoMemory(String),
    /// The lease on the object store was not renewed in time.
    #[error(
        "the lease on the object store {0} ran out before it could be renewed: another server may own it by now, so nothing \
         is acknowledged any more; see the log for why renewing failed, and start again"
    )]
    LeaseExpired(String),
    /// Row ids or commit timestamps have reached what the lease has reserved.
    #[error("too many rows in too short a time for the lease on the object store: run the statement again")]
    ReserveUsedUp,
    /// The object store does not do what ownership rests on.
    #[error(
        "the object store {store} cannot be used: it {ignores}, so that two servers could overwrite each other; use one \
         with conditional writes, such as Amazon S3, MinIO or Cloudflare R2, or a folder"
    )]
    Unconditional {
        /// The object store.
        store: String,
        /// What it does not do.
        ignores: String,
    },
    /// A manifest cannot be relied on.
    #[error("the manifest {path} cannot be relied on: {fault}")]
    Manifest {
        /// The manifest.
        path: String,
        /// What is wrong.
        fault: Box<Fault>,
    },
    /// A batch file is not what was written.
    #[error("rows may be wrong or lost: the batch file {0} is gone or is not what was written; restore it")]
    DamagedFile(String),
    /// A scope's records are being recovered from its files.
    #[error("the table is being recovered from its files: run the statement again")]
    Recovering,
    /// Something stored is not what was written.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// RocksDB failed.
    #[error("RocksDB failed")]
    Rocks(#[from] rocksdb::Error),
    /// A file operation failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The object store failed.
    #[error("the object store failed")]
    ObjectStore(#[from] object_store::Error),
    /// Writing a Parquet file failed.
    #[error("writing Parquet failed")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow failed.
    #[error("Arrow failed")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A row could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The storage crate's result.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

impl StorageError {
    /// An I/O error with what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A stored JSON value that cannot be read.
    pub(crate) fn damaged_json(what: &str) -> impl FnOnce(serde_json::Error) -> Self {
        let what = what.to_owned();
        move |error| Self::Damaged(format!("{what}: {error}"))
    }
}

impl From<DamagedEntry> for StorageError {
    fn from(error: DamagedEntry) -> Self {
        Self::Damaged(error.to_string())
    }
}
