//! Bulk loads: new rows go past the hot tier, straight into files.
//!
//! ```text
//! rows ─▶ files, placed ─▶ one commit: records, which give all rows their `_updated` ─▶ proofs, manifest ─▶ acknowledged
//!                          what cannot be exported then is tried again when the scope is looked at, and at the next start
//! ```
//! Where the commit also changes rows of a scope that it loads, that scope is flushed before the acknowledgement: who has lost
//! the data directory must not find the load without the changes.
//!
//! Invariants:
//! 1. A file that is placed and not committed is [`PendingFile`]: while somebody holds it, nobody takes it for an orphan, and
//!    when nobody does any more it is removed, unless its commit may stand.
//! 2. A bulk file holds new rows only, sorted by `_id`: they supersede nothing.
//! 3. What tells a committed bulk file from one that is not, when records and manifest are lost, is its proof.
//! 4. A commit with files holds the locks of their scopes, in order: a flush or compaction sees all of the records that it
//!    takes the place of.

mod pending;
pub(crate) mod proof;
mod reserved;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use crate::catalog::TableRecord;
use crate::commit::Commit;
use crate::error::{Result, StorageError};
use crate::keys::Scope;
use crate::objects::blocking;
use crate::records::BatchKind;
use crate::scope_files::{NewFiles, ScopeFiles, Unfinished};
use crate::scope_place::ScopePlace;
use crate::segment::{float_columns, holds_nan};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::system_columns::{CommitTs, RowId, deleted_array, id_array};

pub use pending::PendingFile;
pub(crate) use pending::PendingPaths;
use reserved::Reservation;
pub(crate) use reserved::Reserved;

/// Bytes of a bulk file, about.
const FILE_BYTES: usize = 256 << 20;
/// Rows of a bulk file, about: until it ends, each has a hash of 8 bytes in memory for every column with a filter.
const FILE_ROWS: usize = 4 << 20;

/// Rows on their way into files of one scope.
pub struct BulkLoad {
    store: Arc<Store>,
    new: Arc<NewFiles>,
    /// Of a table that no commit has yet.
    reservation: Option<Arc<Reservation>>,
    /// Float columns, by place, that have shown no NaN yet.
    floats: Vec<usize>,
    with_nan: HashSet<String>,
    current: Option<Unfinished>,
    files: Vec<Arc<PendingFile>>,
}

impl Store {
    /// Begins a bulk load of rows with these columns of a table into a scope. The table may be one that no commit has yet: its folder is reserved then.
    pub async fn begin_bulk_load(self: &Arc<Self>, table: &TableRecord, scope: Scope) -> Result<BulkLoad> {
        let known = self.snapshot().catalog().table_by_id(table.id).map(|known| known.prefix.clone());
        let (prefix, reservation) = match known {
            Some(prefix) => {
                // Until then nobody knows which numbers are free.
                self.recover(scope).await?;
                (prefix, None)
            }
            None => {
                let (reservation, prefix) = self.reserve(table).await?;
                (prefix, Some(reservation))
            }
        };
        let snapshot = self.snapshot();
        // With the columns that the rows will have, whatever becomes of the table meanwhile.
        let table = Arc::new(TableRecord { prefix, ..table.clone() });
        let place = ScopePlace::of_table(snapshot.catalog(), &table, scope)?;
        let new = NewFiles::of_table(&table, place, snapshot.ts())?;
        let floats = float_columns(new.schema());
        Ok(BulkLoad {
            store: Arc::clone(self),
            new: Arc::new(new),
            reservation,
            floats,
            with_nan: HashSet::new(),
            current: None,
            files: Vec::new(),
        })
    }

    /// Commits rows and files as one, and carries the files through to their manifests.
    pub(crate) async fn commit_with_files(self: &Arc<Self>, commit: Commit) -> Result<CommitTs> {
        let files = commit.files.clone();
        let scopes: BTreeSet<Scope> = files.iter().map(|file| file.scope()).collect();
        // Who finds the files alone must not find a row that had one of their unique keys before, and lost it in a hot one.
        let changed: HashSet<Scope> =
            commit.writes.iter().map(|write| write.scope).chain(commit.keys.iter().map(|write| write.scope)).collect();
        let mut locks = Vec::with_capacity(scopes.len());
        for scope in &scopes {
            locks.push(self.scope_lock(*scope).lock_owned().await);
        }
        // From here on it may stand, whoever is told of it.
        files.iter().for_each(|file| file.keep());
        let committed = self.committer().commit(commit).await;
        let (ts, snapshot) = committed.inspect_err(|error| {
            if !matches!(error, StorageError::Stopped) {
                files.iter().for_each(|file| file.give_up());
            }
        })?;
        self.reserved().made(scopes.iter().map(|scope| scope.table));
        for scope in scopes {
            let carried = match changed.contains(&scope) {
                true => self.export_with_changes(&snapshot, scope).await,
                false => self.export(&snapshot, scope).await,
            };
            self.carried_through(scope, carried);
        }
        Ok(ts)
    }

    async fn export_with_changes(&self, snapshot: &Arc<Snapshot>, scope: Scope) -> Result<()> {
        // The proofs first: a file of changes says that all before it is in files.
        let job = ScopeFiles::new(Arc::clone(snapshot), scope)?;
        self.prove(&job, &snapshot.records(scope)?).await?;
        self.flush_locked(scope, &Arc::default()).await.map(drop)
    }

    /// The commit stands, whatever came of its export: the next flush or start tries that again.
    fn carried_through(&self, scope: Scope, carried: Result<()>) {
        if let Err(error) = carried
            && !matches!(error, StorageError::Stopped)
        {
            let (table, owner) = (scope.table.0, scope.owner.0);
            tracing::error!(%error, cause = ?error, table, owner, "the manifest of a bulk load could not be exported");
            self.look_again(scope);
        }
    }
}

impl BulkLoad {
    /// Adds rows with new ids. `columns`: the user columns in order.
    pub async fn write(&mut self, ids: &[RowId], columns: Vec<ArrayRef>) -> Result<()> {
        let found = self.new_nan(&columns);
        if !found.is_empty() {
            // Whether a file has statistics of a column is settled when it begins.
            self.end_file().await?;
            self.floats.retain(|place| !found.contains(place));
            self.with_nan.extend(found.iter().map(|place| self.new.schema().columns[*place].name.clone()));
        }
        let mut all = vec![id_array(ids.iter().map(|id| id.get()).collect())];
        all.extend(columns);
        all.push(deleted_array(vec![false; ids.len()]));
        let mut file = match self.current.take() {
            Some(file) => file,
            None => self.begin_file()?,
        };
        let file = blocking(move || {
            let batch = RecordBatch::try_new(Arc::clone(file.rows.schema()), all)?;
            file.rows.write_batch(&batch)?;
            Ok(file)
        });
        let file = file.await?;
        let is_full = file.rows.size_bytes() >= FILE_BYTES || file.rows.row_count() >= FILE_ROWS;
        self.current = Some(file);
        match is_full {
            true => self.end_file().await,
            false => Ok(()),
        }
    }

    /// The files, for the commit.
    pub async fn finish(mut self) -> Result<Vec<Arc<PendingFile>>> {
        self.end_file().await?;
        Ok(self.files)
    }

    fn new_nan(&self, columns: &[ArrayRef]) -> Vec<usize> {
        self.floats.iter().copied().filter(|place| holds_nan(&columns[*place])).collect()
    }

    fn begin_file(&self) -> Result<Unfinished> {
        let name = self.store.pending_paths().scratch_name();
        self.new.create(self.store.objects(), &name, BatchKind::Bulk, Vec::new(), &self.with_nan)
    }

    async fn end_file(&mut self) -> Result<()> {
        let Some(file) = self.current.take() else { return Ok(()) };
        let scope = self.new.scope;
        let number = match &self.reservation {
            Some(reservation) => reservation.next_number(),
            None => self.store.committer().reserve_batch(scope).await?.0,
        };
        let file = blocking(move || file.finish(number)).await?;
        // Before it is there: from then on it could be taken for an orphan.
        let pending = self.store.pending_paths().add(&self.new.path_of(self.store.objects(), number));
        let (store, new, reservation) = (Arc::clone(&self.store), Arc::clone(&self.new), self.reservation.clone());
        // To its end also when the client goes away: only what is placed wholly can be removed wholly.
        let placed = self.store.to_its_end(async move {
            let placed = new.place(store.objects(), number, &file).await;
            let record = placed.inspect_err(|_| store.look_again(scope))?;
            Ok(Arc::new(PendingFile::new(&store, scope, record, pending, reservation)))
        });
        self.files.push(placed.await?);
        Ok(())
    }
}
