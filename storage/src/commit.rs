//! What a commit is: rows, keys, files and changes of the catalog that become visible at once, or not at all; and what becomes of rows
//! in files without one. By which rules commits follow each other is in `crate::commit_state`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::audit::AuditEntry;
use crate::bulk::PendingFile;
use crate::catalog::{Catalog, CatalogChange, TableRecord};
use crate::delete_log::MaskedRow;
use crate::error::{Result, StorageError};
use crate::keys::{BatchNumber, Generation, Scope, TableId};
use crate::records::BatchRecord;
use crate::row_codec::{self, EncodedRows};
use crate::snapshot::Snapshot;
use crate::system_columns::{CommitTs, RowId};
use crate::unique::KeyWrite;

/// The most bytes of rows that one commit may have.
pub const COMMIT_BYTES_MAX: usize = 1 << 30;

/// The changes of one statement or transaction: all of them, or none.
#[derive(Debug)]
pub struct Commit {
    /// What it has read. Kept open until the commit is decided.
    pub snapshot: Arc<Snapshot>,
    /// Tables that must still be there, as its rows were made for them.
    pub expects: Vec<Expected>,
    /// Changes of the catalog, made first.
    pub catalog: Vec<CatalogChange>,
    /// Row versions by scope.
    pub writes: Vec<ScopeWrite>,
    /// What becomes of unique keys, by scope.
    pub keys: Vec<KeyWrite>,
    /// Files of new rows. To be committed by [`crate::store::Store::commit`], which holds their scopes' locks.
    pub files: Vec<Arc<PendingFile>>,
    /// What it is remembered by; `None` when nobody can ask for it.
    pub name: Option<CommitName>,
    /// What the audit log says of it. With entries it is synced, whatever the setting.
    pub audit: Vec<AuditEntry>,
}

impl Commit {
    /// Changes of the catalog alone, and what the audit log says of them.
    pub fn of_catalog(snapshot: Arc<Snapshot>, catalog: Vec<CatalogChange>, audit: Vec<AuditEntry>) -> Self {
        Self { snapshot, expects: vec![], catalog, writes: vec![], keys: vec![], files: vec![], name: None, audit }
    }
}

/// A table that rows were made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The table.
    pub table: TableId,
    /// The schema version that its rows have: those that came later can read them.
    pub version: u32,
    /// What they satisfy: less than a table asks for that has more rules.
    pub rules: u32,
}

impl Expected {
    /// What rows are made for with this record.
    pub fn of(table: &TableRecord) -> Self {
        Self { table: table.id, version: table.schema().version, rules: table.rules }
    }

    /// Whether such rows may be committed.
    pub(crate) fn is_met(&self, catalog: &Catalog) -> bool {
        catalog
            .table_by_id(self.table)
            .is_some_and(|table| table.schema().version >= self.version && table.rules <= self.rules)
    }
}

/// By what a commit is found again when its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitName {
    /// A UUID of version 7: it begins with a time, not after the commit.
    pub id: [u8; 16],
    /// Number of the user who may ask.
    pub owner: u64,
}

/// New versions of rows of one scope.
#[derive(Debug)]
pub struct ScopeWrite {
    /// The scope.
    pub scope: Scope,
    /// The rows, each once.
    pub ids: Vec<RowId>,
    /// The new versions.
    pub values: Values,
    /// The versions that they supersede, in the order of `ids`; empty for new rows.
    pub supersedes: Vec<Superseded>,
}

impl ScopeWrite {
    /// Bytes it takes in a commit, keys included.
    pub fn size_bytes(&self) -> usize {
        // A key, and what RocksDB's batch adds to it.
        const KEY_BYTES: usize = 48;
        let values = match &self.values {
            Values::Rows(rows) => rows.size_bytes(),
            Values::Tombstones(_) => self.ids.len() * row_codec::HEAD_LEN,
        };
        values + self.ids.len() * KEY_BYTES
    }
}

/// Refuses more bytes than a commit may have: before they are gathered in memory.
pub fn check_size(bytes: usize) -> Result<()> {
    match bytes > COMMIT_BYTES_MAX {
        true => Err(StorageError::TooLarge { bytes, max: COMMIT_BYTES_MAX }),
        false => Ok(()),
    }
}

/// The values of new versions.
#[derive(Debug)]
pub enum Values {
    /// Inserted or updated rows.
    Rows(EncodedRows),
    /// Deleted rows, with the schema version.
    Tombstones(u32),
}

/// A version that a commit supersedes, and where it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded {
    /// Its version.
    pub updated: CommitTs,
    /// Its place.
    pub location: Location,
}

/// Where a row version lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In RocksDB, in this generation.
    Hot(Generation),
    /// In a batch file, at this position from 0.
    Cold(BatchNumber, u32),
}

/// New files on their way to their records: a flushed generation, or files in the place of others.
#[derive(Debug)]
pub struct Publication {
    /// What was visible when the files were written. Kept open until the publication is decided.
    pub snapshot: Arc<Snapshot>,
    /// The scope.
    pub scope: Scope,
    /// The generations that the files hold.
    pub generations: Vec<Generation>,
    /// The batches whose rows the active file holds. They become archived.
    pub replaced: Vec<BatchRecord>,
    /// The file that queries read; `None` when nothing is left of what it would replace.
    pub active: Option<ActiveFile>,
    /// The record of the file of older versions.
    pub archive: Option<BatchRecord>,
    /// Records that are there and get another content: new delete vectors.
    pub changed: Vec<BatchRecord>,
    /// Changes of the delete log beyond the entry of the active file.
    pub log: LogChange,
    /// Every commit to the scope up to this one is then in files.
    pub flushed_to: CommitTs,
    /// Version of the records that the files were made from.
    pub version: u64,
}

/// Entries of the delete log that go, and those in their place.
#[derive(Debug, Default)]
pub struct LogChange {
    /// Keys of entries that are no longer needed.
    pub needless: Vec<Vec<u8>>,
    /// What they said of files that are still read.
    pub merged: HashMap<BatchNumber, Vec<MaskedRow>>,
}

/// A new file that queries read.
#[derive(Debug)]
pub struct ActiveFile {
    /// Its record.
    pub record: BatchRecord,
    /// Rows of it that must not be read, as of the publication's snapshot.
    pub masked: Vec<MaskedRow>,
    /// `_id` by position, rising.
    pub ids: Arc<Vec<i64>>,
    /// `_updated` by position.
    pub updated: Arc<Vec<i64>>,
}
