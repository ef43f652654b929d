//! Tables that files are written for before a commit makes them.
//!
//! The folder of such a table is marked like that of a dropped one: if nothing makes the table it is removed, also after a
//! crash. This process never does that: its files it removes one by one, and whether a commit whose outcome nobody knows has
//! made the table is known at the next start. So a reservation lasts until its table is there with files or was dropped, or as
//! long as the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::catalog::{Catalog, CatalogChange, DroppedTable, TableRecord};
use crate::commit::Commit;
use crate::error::{Result, StorageError};
use crate::keys::{BatchNumber, TableId};
use crate::store::Store;

/// The tables that are reserved now.
#[derive(Debug, Default)]
pub(crate) struct Reserved(Mutex<HashMap<TableId, Arc<Reservation>>>);

/// The right to write files for a table that is not there yet.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    /// Numbers that files of any of its scopes have had.
    next: AtomicU64,
    /// Its folder, once that is marked.
    prefix: OnceCell<String>,
}

impl Reserved {
    /// The dropped tables of the catalog that `catalog` gives, without those that may still become tables.
    pub(crate) fn dropped(&self, catalog: impl FnOnce() -> Arc<Catalog>) -> Vec<DroppedTable> {
        // A reservation ends after the commit that makes its table is visible: nothing may come between.
        let reserved = self.0.lock();
        catalog().dropped().filter(|table| !reserved.contains_key(&table.id)).cloned().collect()
    }

    /// These tables are there: a snapshot shows them.
    pub(super) fn made(&self, tables: impl Iterator<Item = TableId>) {
        let mut reserved = self.0.lock();
        tables.for_each(|table| drop(reserved.remove(&table)));
    }

    /// What was there and is gone comes no more, whether a load has made it or not.
    pub(crate) fn forget_dropped(&self, before: &Catalog, after: &Catalog) {
        let is_there = |catalog: &Catalog, id: &TableId| catalog.table_by_id(*id).is_some();
        self.0.lock().retain(|id, _| !is_there(before, id) || is_there(after, id));
    }

    fn get(&self, table: TableId) -> Arc<Reservation> {
        Arc::clone(self.0.lock().entry(table).or_default())
    }
}

impl Reservation {
    pub(super) fn next_number(&self) -> BatchNumber {
        BatchNumber(self.next.fetch_add(1, Ordering::SeqCst) + 1)
    }

    pub(super) fn numbers_end(&self) -> BatchNumber {
        BatchNumber(self.next.load(Ordering::SeqCst) + 1)
    }
}

impl Store {
    /// The reservation of a table that no commit has yet, and its folder.
    pub(super) async fn reserve(self: &Arc<Self>, table: &TableRecord) -> Result<(Arc<Reservation>, String)> {
        let reservation = self.reserved().get(table.id);
        let prefix = reservation.prefix.get_or_try_init(|| self.mark(table)).await?.clone();
        Ok((reservation, prefix))
    }

    async fn mark(self: &Arc<Self>, table: &TableRecord) -> Result<String> {
        let (id, namespace, name) = (table.id, table.namespace.clone(), table.name.clone());
        let reserve = CatalogChange::ReserveTable { id, namespace, name };
        self.commit(Commit::of_catalog(self.snapshot(), vec![reserve], vec![])).await?;
        let snapshot = self.snapshot();
        let marked = snapshot.catalog().dropped().find(|dropped| dropped.id == id);
        // Only the end of its reservation takes the mark away.
        Ok(marked.ok_or(StorageError::Conflict)?.prefix.clone())
    }
}
