//! What a transaction has changed and not committed: rows and catalog, over its snapshot.
//!
//! Invariants:
//! 1. A clone is a savepoint, and what a statement reads: it costs the same however much is staged, and never changes.
//! 2. Of a row only the newest version is kept: a commit holds one version of a row.
//! 3. Each changed row remembers the version in the snapshot that it supersedes, however often it is changed.

use std::sync::Arc;

use bytes::Bytes;
use immutable_chunkmap::map::MapM as Map;
use roaring::RoaringBitmap;
use seracdb_storage::audit::AuditEntry;
use seracdb_storage::bulk::PendingFile;
use seracdb_storage::catalog::{Catalog, CatalogChange, TableRecord};
use seracdb_storage::commit::{Expected, Location, ScopeWrite, Superseded, Values};
use seracdb_storage::hot::HotChunk;
use seracdb_storage::key_codec::KeyBytes;
use seracdb_storage::keys::{BatchNumber, Scope, TableId};
use seracdb_storage::row_codec::EncodedRows;
use seracdb_storage::system_columns::{CommitTs, RowId};
use seracdb_storage::unique::KeyWrite;

use crate::error::Result;
use crate::row_versions::Writes;

/// Number of the file that a row lies in which is not committed.
pub(crate) const STAGED_FILE: u64 = u64::MAX;

/// Bytes that a changed row takes beyond its value, about.
const ROW_BYTES: usize = 120;

/// Bytes that an entry for the audit log takes, about.
const AUDIT_BYTES: usize = 500;

/// Bytes that a change of the catalog takes, about.
const CHANGE_BYTES: usize = 500;

/// Everything that is staged.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    /// The catalog as the transaction sees it.
    pub(crate) catalog: Arc<Catalog>,
    /// What has changed it, in this order.
    changes: Map<usize, Arc<CatalogChange>>,
    /// Tables written to, as they were then.
    tables: Map<TableId, Expected>,
    scopes: Map<Scope, StagedScope>,
    /// What the audit log is told when it ends, in this order.
    audit: Map<usize, Arc<AuditEntry>>,
    bytes: usize,
}

/// What is staged of one scope.
#[derive(Debug, Clone, Default)]
pub(crate) struct StagedScope {
    /// New rows, as they were inserted.
    inserted: Map<usize, Arc<Inserted>>,
    /// Newest versions of rows that were changed since: committed ones and new ones.
    changed: Map<i64, Changed>,
    /// Rows in files that are superseded.
    masks: Map<BatchNumber, Arc<RoaringBitmap>>,
    /// New rows that were too many for memory.
    files: Vec<Arc<PendingFile>>,
    /// What becomes of unique keys.
    keys: Map<KeyBytes, Option<RowId>>,
}

/// What a commit of all of it consists of.
pub(crate) struct StagedCommit {
    pub(crate) catalog: Vec<CatalogChange>,
    pub(crate) writes: Vec<ScopeWrite>,
    pub(crate) keys: Vec<KeyWrite>,
    pub(crate) files: Vec<Arc<PendingFile>>,
}

#[derive(Debug)]
struct Inserted {
    ids: Vec<RowId>,
    values: EncodedRows,
}

/// The newest version of a row.
#[derive(Debug, Clone)]
struct Changed {
    id: RowId,
    /// Its encoded columns; `None` = deleted.
    value: Option<Bytes>,
    /// What it supersedes; `None` for a row that no commit has.
    supersedes: Option<Superseded>,
}

impl Staged {
    /// Nothing, over a catalog.
    pub(crate) fn over(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            changes: Map::default(),
            tables: Map::default(),
            scopes: Map::default(),
            audit: Map::default(),
            bytes: 0,
        }
    }

    /// Whether a commit would change nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.len() == 0 && self.scopes.len() == 0 && self.audit.len() == 0
    }

    /// Keeps entries for the audit log: how the transaction ended is still to be said.
    pub(crate) fn owes(&mut self, entries: impl IntoIterator<Item = AuditEntry>) {
        for entry in entries {
            self.audit.insert_cow(self.audit.len(), Arc::new(entry));
            self.bytes += AUDIT_BYTES;
        }
    }

    /// The entries for the audit log, in the order of their statements.
    pub(crate) fn audit(&self) -> impl Iterator<Item = &AuditEntry> {
        self.audit.into_iter().map(|(_, entry)| &**entry)
    }

    /// How many there are.
    pub(crate) fn audit_len(&self) -> usize {
        self.audit.len()
    }

    /// Bytes of what is staged, about.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a table was dropped.
    pub(crate) fn drops(&self) -> bool {
        let drops = |change: &CatalogChange| {
            matches!(change, CatalogChange::DropTable { .. } | CatalogChange::DropNamespace { .. })
        };
        self.changes.into_iter().any(|(_, change)| drops(change))
    }

    /// What is staged of a scope.
    pub(crate) fn scope(&self, scope: Scope) -> Option<&StagedScope> {
        self.scopes.get(&scope)
    }

    /// The scopes of which something is staged.
    pub(crate) fn written(&self) -> impl Iterator<Item = Scope> {
        self.scopes.into_iter().map(|(scope, _)| *scope)
    }

    /// Changes the catalog.
    pub(crate) fn change(&mut self, change: CatalogChange) -> Result<()> {
        Arc::make_mut(&mut self.catalog).apply(&change).map_err(seracdb_storage::StorageError::from)?;
        if let CatalogChange::AlterTable { table, .. } = &change
            && self.tables.get(table).is_some()
            && let Some(altered) = self.catalog.table_by_id(*table)
        {
            // Tombstones, too, may be of a newer version than the rows before them.
            self.tables.insert_cow(*table, Expected::of(altered));
        }
        self.bytes += CHANGE_BYTES;
        self.changes.insert_cow(self.changes.len(), Arc::new(change));
        Ok(())
    }

    /// Adds what a statement has written to a table.
    pub(crate) fn write(&mut self, table: &TableRecord, made: Writes) {
        for file in made.files {
            self.tables.insert_cow(table.id, Expected::of(table));
            self.scopes.get_or_default_cow(file.scope()).files.push(file);
        }
        for write in made.writes.into_iter().filter(|write| !write.ids.is_empty()) {
            self.tables.insert_cow(table.id, Expected::of(table));
            self.bytes +=
                write.size_bytes() + if write.supersedes.is_empty() { 0 } else { write.ids.len() * ROW_BYTES };
            self.scopes.get_or_default_cow(write.scope).add(write);
        }
        for write in made.key_writes {
            self.bytes += write.size_bytes();
            let scope = self.scopes.get_or_default_cow(write.scope);
            for (key, id) in write.changes {
                scope.keys.insert_cow(key, id);
            }
        }
    }

    /// The tables that must still be there at the commit.
    pub(crate) fn expects(&self) -> Vec<Expected> {
        self.tables.into_iter().map(|(_, expected)| *expected).collect()
    }

    /// What is to be committed.
    pub(crate) fn to_commit(&self) -> StagedCommit {
        let catalog = self.changes.into_iter().map(|(_, change)| CatalogChange::clone(change)).collect();
        let mut commit = StagedCommit { catalog, writes: vec![], keys: vec![], files: vec![] };
        for (scope, staged) in &self.scopes {
            // What was written to a table that the transaction itself has dropped is gone with it.
            if self.catalog.table_by_id(scope.table).is_some() {
                let version = self.tables.get(&scope.table).map_or(0, |expected| expected.version);
                commit.writes.extend(staged.writes(*scope, version));
                commit.keys.extend(staged.key_write(*scope));
                commit.files.extend(staged.files.iter().cloned());
            }
        }
        commit
    }
}

impl StagedScope {
    fn add(&mut self, write: ScopeWrite) {
        let ScopeWrite { ids, values, supersedes, .. } = write;
        match values {
            Values::Rows(values) if supersedes.is_empty() => {
                self.inserted.insert_cow(self.inserted.len(), Arc::new(Inserted { ids, values }));
            }
            Values::Rows(values) => {
                for ((id, old), value) in ids.iter().zip(supersedes).zip(values.iter()) {
                    self.supersede(*id, old, Some(Bytes::copy_from_slice(value)));
                }
            }
            Values::Tombstones(_) => {
                for (id, old) in ids.iter().zip(supersedes) {
                    self.supersede(*id, old, None);
                }
            }
        }
    }

    fn supersede(&mut self, id: RowId, old: Superseded, value: Option<Bytes>) {
        if let Some(known) = self.changed.get_mut_cow(&id.get()) {
            known.value = value;
            return;
        }
        let supersedes = match old.location {
            Location::Cold(BatchNumber(STAGED_FILE), _) => None,
            Location::Cold(file, position) => {
                Arc::make_mut(self.masks.get_or_default_cow(file)).insert(position);
                Some(old)
            }
            Location::Hot(_) => Some(old),
        };
        self.changed.insert_cow(id.get(), Changed { id, value, supersedes });
    }

    /// Which row has a unique key; `None` when the transaction has not touched it.
    pub(crate) fn key(&self, key: &KeyBytes) -> Option<Option<RowId>> {
        self.keys.get(key).copied()
    }

    fn key_write(&self, scope: Scope) -> Option<KeyWrite> {
        let changes: Vec<_> = self.keys.into_iter().map(|(key, id)| (key.clone(), *id)).collect();
        (!changes.is_empty()).then_some(KeyWrite { scope, changes, completes: false })
    }

    /// The files of new rows.
    pub(crate) fn files(&self) -> &[Arc<PendingFile>] {
        &self.files
    }

    /// Whether it changes rows that are committed, or in files.
    pub(crate) fn supersedes(&self) -> bool {
        self.masks.len() > 0 || self.changed.into_iter().any(|(_, row)| row.supersedes.is_some())
    }

    /// The rows in files that are not to be read.
    pub(crate) fn masks(&self) -> impl Iterator<Item = (BatchNumber, &RoaringBitmap)> {
        self.masks.into_iter().map(|(file, mask)| (*file, &**mask))
    }

    /// Whether a row was changed: its other versions are not to be read.
    pub(crate) fn has_changed(&self, id: i64) -> bool {
        self.changed.get(&id).is_some()
    }

    /// Rows that were changed or inserted, as chunks of at most `rows_max`, but only those whose `_id` is `wanted`.
    pub(crate) fn chunks(&self, rows_max: usize, wanted: impl Fn(i64) -> bool) -> Vec<HotChunk> {
        let inserted = self.inserted.into_iter().flat_map(|(_, run)| {
            let rows = run.ids.iter().map(|id| id.get()).zip(run.values.iter());
            rows.filter(|(id, _)| !self.has_changed(*id))
        });
        let changed = self.changed.into_iter().filter_map(|(id, row)| Some((*id, row.value.as_deref()?)));
        let mut chunks: Vec<HotChunk> = Vec::new();
        for (id, value) in inserted.chain(changed).filter(|(id, _)| wanted(*id)) {
            match chunks.last_mut().filter(|chunk| chunk.len() < rows_max && !chunk.is_full()) {
                Some(chunk) => chunk.push_uncommitted(id, value),
                None => {
                    let mut chunk = HotChunk::default();
                    chunk.push_uncommitted(id, value);
                    chunks.push(chunk);
                }
            }
        }
        chunks
    }

    fn writes(&self, scope: Scope, schema_version: u32) -> Vec<ScopeWrite> {
        let live = |rows: &[(RowId, &[u8])], supersedes| ScopeWrite {
            scope,
            ids: rows.iter().map(|(id, _)| *id).collect(),
            values: Values::Rows(rows.iter().map(|(_, value)| *value).collect()),
            supersedes,
        };
        let mut writes = Vec::new();
        for (_, run) in &self.inserted {
            let rows = run.ids.iter().copied().zip(run.values.iter());
            writes.push(live(&rows.filter(|(id, _)| !self.has_changed(id.get())).collect::<Vec<_>>(), vec![]));
        }
        let (mut new, mut newer, mut superseded, mut deleted) = (vec![], vec![], vec![], vec![]);
        for (_, row) in &self.changed {
            match (&row.value, row.supersedes) {
                (Some(value), None) => new.push((row.id, &**value)),
                (Some(value), Some(old)) => {
                    newer.push((row.id, &**value));
                    superseded.push(old);
                }
                (None, Some(old)) => deleted.push((row.id, old)),
                // Inserted and deleted: no commit has it.
                (None, None) => {}
            }
        }
        writes.extend([live(&new, vec![]), live(&newer, superseded)]);
        let (ids, supersedes) = deleted.into_iter().unzip();
        writes.push(ScopeWrite { scope, ids, values: Values::Tombstones(schema_version), supersedes });
        writes.retain(|write| !write.ids.is_empty());
        writes
    }
}

/// The place of a row that is not committed.
pub(crate) fn staged_place() -> Superseded {
    Superseded { updated: CommitTs::default(), location: Location::Cold(BatchNumber(STAGED_FILE), 0) }
}
