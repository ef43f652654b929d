//! Files that are placed and not committed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::reserved::Reservation;
use crate::keys::{BatchNumber, Scope};
use crate::paths;
use crate::records::BatchRecord;
use crate::store::Store;

/// Where files of bulk loads are, until they are committed or removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct PendingPaths(Arc<Paths>);

#[derive(Debug, Default)]
struct Paths {
    stems: Mutex<HashSet<String>>,
    scratches: AtomicU64,
}

/// Keeps a file, and what belongs to it, from being taken for an orphan.
#[derive(Debug)]
pub(super) struct PendingPath {
    paths: PendingPaths,
    stem: String,
}

impl PendingPaths {
    /// A name for a scratch file that no other has.
    pub(super) fn scratch_name(&self) -> String {
        format!("bulk-{}", self.0.scratches.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn add(&self, batch_file: &str) -> PendingPath {
        let stem = paths::stem_of(batch_file).to_owned();
        self.0.stems.lock().insert(stem.clone());
        PendingPath { paths: self.clone(), stem }
    }

    /// Whether a file is one of a bulk load that is not committed.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.0.stems.lock().contains(paths::stem_of(path))
    }
}

impl Drop for PendingPath {
    fn drop(&mut self) {
        self.paths.0.stems.lock().remove(&self.stem);
    }
}

/// A file of new rows that is durable and that no record names yet. When it is dropped without a commit it is removed.
#[derive(Debug)]
pub struct PendingFile {
    store: Weak<Store>,
    runtime: Handle,
    scope: Scope,
    record: BatchRecord,
    path: Option<PendingPath>,
    reservation: Option<Arc<Reservation>>,
    is_kept: AtomicBool,
}

impl PendingFile {
    pub(super) fn new(
        store: &Arc<Store>,
        scope: Scope,
        record: BatchRecord,
        path: PendingPath,
        reservation: Option<Arc<Reservation>>,
    ) -> Self {
        let (store, runtime) = (Arc::downgrade(store), Handle::current());
        Self { store, runtime, scope, record, path: Some(path), reservation, is_kept: AtomicBool::new(false) }
    }

    /// Whose rows it holds.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Its record, which says nothing of `_updated` yet.
    pub fn record(&self) -> &BatchRecord {
        &self.record
    }

    /// A commit may stand that names it.
    pub(crate) fn keep(&self) {
        self.is_kept.store(true, Ordering::SeqCst);
    }

    /// That commit was refused.
    pub(super) fn give_up(&self) {
        self.is_kept.store(false, Ordering::SeqCst);
    }

    /// The number from which on no file of its scope was ever begun beside it.
    pub(crate) fn numbers_end(&self) -> BatchNumber {
        match &self.reservation {
            Some(reservation) => reservation.numbers_end(),
            None => BatchNumber(self.record.batch_number.0 + 1),
        }
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if self.is_kept.load(Ordering::SeqCst) {
            return;
        }
        let Some(store) = self.store.upgrade() else { return };
        let files = [Some(self.record.file_path.clone()), self.record.bloom.take().map(|bloom| bloom.file_path)];
        let (scope, path) = (self.scope, self.path.take());
        self.runtime.spawn(async move {
            for file in files.into_iter().flatten() {
                if let Err(error) = store.objects().remove(&file).await {
                    tracing::warn!(%error, file, "a file of a bulk load that was given up stays for now");
                    store.look_again(scope);
                }
            }
            drop(path);
        });
    }
}
