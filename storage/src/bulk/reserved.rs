//! Tables that files are written for before a commit makes them.
//!
//! The folder of such a table is marked like that of a dropped one: if nothing makes the table it is removed, also after a
//! crash. While somebody holds the [`Reservation`] it is not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::catalog::{Catalog, CatalogChange, DroppedTable, TableRecord};
use crate::commit::Commit;
use crate::error::{Result, StorageError};
use crate::keys::{BatchNumber, TableId};
use crate::store::Store;

/// The tables that are reserved now.
#[derive(Debug, Default)]
pub(crate) struct Reserved(Mutex<HashMap<TableId, Weak<Reservation>>>);

/// The right to write files for a table that is not there yet.
#[derive(Debug)]
pub(crate) struct Reservation {
    store: Weak<Store>,
    runtime: Handle,
    table: TableId,
    /// Of the next file of any of its scopes.
    next: AtomicU64,
    /// Its folder, once that is marked.
    prefix: OnceCell<String>,
}

impl Reserved {
    /// The dropped tables of the catalog that `catalog` gives, without those that may still become tables.
    pub(crate) fn dropped(&self, catalog: impl FnOnce() -> Arc<Catalog>) -> Vec<DroppedTable> {
        // A reservation ends after its commit is visible: nothing may come between.
        let reserved = self.0.lock();
        catalog().dropped().filter(|table| !reserved.contains_key(&table.id)).cloned().collect()
    }

    fn get(&self, store: &Arc<Store>, table: TableId) -> Arc<Reservation> {
        let mut reserved = self.0.lock();
        if let Some(known) = reserved.get(&table).and_then(Weak::upgrade) {
            return known;
        }
        let (store, runtime) = (Arc::downgrade(store), Handle::current());
        let new = Arc::new(Reservation { store, runtime, table, next: AtomicU64::new(1), prefix: OnceCell::new() });
        reserved.insert(table, Arc::downgrade(&new));
        new
    }
}

impl Reservation {
    pub(super) fn next_number(&self) -> BatchNumber {
        BatchNumber(self.next.fetch_add(1, Ordering::SeqCst))
    }

    pub(super) fn numbers_end(&self) -> BatchNumber {
        BatchNumber(self.next.load(Ordering::SeqCst))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(store) = self.store.upgrade() else { return };
        let mut reserved = store.reserved().0.lock();
        // There may be a new one by now.
        if reserved.get(&self.table).is_some_and(|reservation| reservation.strong_count() == 0) {
            reserved.remove(&self.table);
        }
        drop(reserved);
        self.runtime.spawn(async move {
            if let Err(error) = store.remove_dropped().await
                && !matches!(error, StorageError::Stopped)
            {
                tracing::warn!(%error, cause = ?error, "the folder of a table that was not made stays until the next start");
            }
        });
    }
}

impl Store {
    /// The reservation of a table that no commit has yet, and its folder.
    pub(super) async fn reserve(self: &Arc<Self>, table: &TableRecord) -> Result<(Arc<Reservation>, String)> {
        let reservation = self.reserved().get(self, table.id);
        let prefix = reservation.prefix.get_or_try_init(|| self.mark(table)).await?.clone();
        Ok((reservation, prefix))
    }

    async fn mark(self: &Arc<Self>, table: &TableRecord) -> Result<String> {
        let (id, namespace, name) = (table.id, table.namespace.clone(), table.name.clone());
        let commit = Commit {
            snapshot: self.snapshot(),
            expects: vec![],
            catalog: vec![CatalogChange::ReserveTable { id, namespace, name }],
            writes: vec![],
            files: vec![],
            name: None,
        };
        self.commit(commit).await?;
        let snapshot = self.snapshot();
        let marked = snapshot.catalog().dropped().find(|dropped| dropped.id == id);
        // Only the end of its reservation takes the mark away.
        Ok(marked.ok_or(StorageError::Conflict)?.prefix.clone())
    }
}
