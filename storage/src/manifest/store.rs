//! The only reader and writer of manifest files, over the cache.
//!
//! Invariants:
//! 1. A manifest is written over the one that was read or written last (If-Match), or where there is none: see
//!    [`Objects::put`].
//! 2. An export is done when object store, RocksDB and memory hold the same; until then its caller tries again.
//! 3. A read that the cache answers asks the object store nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::cache::{CacheConfig, CacheTotals, CachedEntry, Entry, ManifestCache, SyncState, Touched};
use super::{Fault, Manifest};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::error::{Result, StorageError};
use crate::keys::Scope;
use crate::objects::{Found, Objects};
use crate::rocks::Rocks;
use crate::scope_place::ScopePlace;

/// After a look that failed the next one waits for so long: queries ask for one each time.
const LOOK_AGAIN_AFTER_NS: i64 = 30_000_000_000;
/// How often the cache is written before an export has failed.
const CACHE_WRITES: usize = 3;

#[derive(Debug)]
pub(crate) struct ManifestStore {
    objects: Objects,
    clock: Arc<dyn Clock>,
    cache: ManifestCache,
    /// Scopes that were used and are to be looked at; `None` when nobody looks any more.
    due: Mutex<Option<mpsc::UnboundedSender<Scope>>>,
    /// Those that are waiting for it.
    waiting: Mutex<HashSet<Scope>>,
    /// Those that were looked at wholly since the start.
    looked_at: RwLock<HashSet<Scope>>,
    /// When a look failed, of those that were not looked at since.
    failed: Mutex<HashMap<Scope, i64>>,
}

impl ManifestStore {
    /// The store, and the scopes that are to be looked at.
    pub(crate) fn new(
        objects: Objects,
        clock: Arc<dyn Clock>,
        rocks: Arc<Rocks>,
        config: CacheConfig,
    ) -> (Self, mpsc::UnboundedReceiver<Scope>) {
        let (due, receiver) = mpsc::unbounded_channel();
        let cache = ManifestCache::new(rocks, config);
        let due = Mutex::new(Some(due));
        let (waiting, looked_at, failed) = Default::default();
        (Self { objects, clock, cache, due, waiting, looked_at, failed }, receiver)
    }

    /// Notes that a scope with files is read. It is looked at in the background the first time, and when memory holds no
    /// manifest that is believed.
    pub(crate) fn used(&self, scope: Scope) {
        let now = self.clock.now_ns();
        let touched = self.cache.touch(scope, now);
        if touched == Touched::Fresh && self.looked_at.read().contains(&scope) {
            return;
        }
        let failed = self.failed.lock().get(&scope).copied();
        if failed.is_none_or(|at| !(at..at + LOOK_AGAIN_AFTER_NS).contains(&now)) {
            self.look_at(scope);
        }
    }

    /// Whether a scope is looked at for the first time.
    pub(crate) fn is_first_look(&self, scope: Scope) -> bool {
        self.looked_at.write().insert(scope)
    }

    /// The next look at a scope is a first one.
    pub(crate) fn forget_look(&self, scope: Scope) {
        self.looked_at.write().remove(&scope);
    }

    /// Has a scope looked at.
    pub(crate) fn look_at(&self, scope: Scope) {
        if let Some(due) = &*self.due.lock()
            && self.waiting.lock().insert(scope)
        {
            // Nobody listens while the store closes.
            let _ = due.send(scope);
        }
    }

    /// How a look has ended.
    pub(crate) fn looked(&self, scope: Scope, succeeded: bool) {
        let mut failed = self.failed.lock();
        match succeeded {
            true => drop(failed.remove(&scope)),
            false => drop(failed.insert(scope, self.clock.now_ns())),
        }
    }

    /// A scope is being looked at.
    pub(crate) fn is_looked_at(&self, scope: Scope) {
        self.waiting.lock().remove(&scope);
    }

    /// Ends the stream of scopes to look at.
    pub(crate) fn stop(&self) {
        self.due.lock().take();
    }

    /// A scope's manifest: from memory, else from RocksDB, else from the object store. `None` when it has none.
    pub(crate) async fn read(&self, place: &ScopePlace) -> Result<Option<Manifest>> {
        let now = self.clock.now_ns();
        let known = self.cache.get(place, now);
        if let Some(entry) = &known
            && self.cache.is_believed(entry.last_refreshed_ns, now)
        {
            tracing::debug!(manifest = entry.source_path, "manifest cache hit");
            return entry.manifest().map(Some);
        }
        self.refresh(place).await?.map(|entry| entry.manifest()).transpose()
    }

    /// Reads a scope's manifest from the object store into the cache, unless what the cache holds is what is there.
    pub(crate) async fn refresh(&self, place: &ScopePlace) -> Result<Option<Arc<Entry>>> {
        let now = self.clock.now_ns();
        let path = place.manifest_path();
        let known = self.cache.get(place, now);
        if let Some(entry) = &known
            && self.objects.etag(&path).await?.as_ref() == Some(&entry.etag)
        {
            self.cache.found_unchanged();
            tracing::debug!(manifest = path, "manifest cache: unchanged in the object store");
            let same = Entry::new(entry.json.clone(), entry.etag.clone(), path, SyncState::InSync, now);
            return self.cache.put(place, same).map(Some);
        }
        tracing::debug!(manifest = path, stale = known.is_some(), "manifest cache miss");
        self.cache.missed();
        match self.objects.get(&path).await? {
            Some(found) => self.keep(place, found).map(Some),
            None => {
                self.cache.forget(place);
                Ok(None)
            }
        }
    }

    /// Writes a manifest to the object store. [`ManifestStore::remember`] is to follow.
    pub(crate) async fn write(&self, place: &ScopePlace, manifest: &Manifest) -> Result<Found> {
        let path = place.manifest_path();
        let last = self.cache.get(place, self.clock.now_ns()).map(|entry| entry.etag.clone());
        let bytes = Bytes::from(manifest.to_json());
        let refuse = |found: &Found| match Manifest::parse(&found.bytes) {
            Err(fault @ Fault::Newer { .. }) => {
                Err(StorageError::Manifest { path: path.clone(), fault: Box::new(fault) })
            }
            _ => Ok(()),
        };
        let etag = self.objects.put_over(&path, bytes.clone(), last, refuse).await?;
        Ok(Found { bytes, etag })
    }

    /// Makes RocksDB and memory hold what was written.
    pub(crate) fn remember(&self, place: &ScopePlace, written: Found) -> Result<()> {
        let path = place.manifest_path();
        let mut tries = 0;
        loop {
            let (json, etag) = (written.bytes.clone(), written.etag.clone());
            let entry = Entry::new(json, etag, path.clone(), SyncState::InSync, self.clock.now_ns());
            tries += 1;
            match self.cache.put(place, entry) {
                Ok(_) => {
                    self.cache.synced(true);
                    tracing::info!(manifest = path, "manifest_cache_sync_success");
                    return Ok(());
                }
                Err(error) => {
                    self.cache.synced(false);
                    tracing::warn!(manifest = path, %error, tries, "manifest_cache_sync_failure");
                    if tries == CACHE_WRITES {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// What newer builds have added to the manifest that was read or written last.
    pub(crate) fn unknown_fields(&self, place: &ScopePlace) -> serde_json::Map<String, serde_json::Value> {
        let entry = self.cache.get(place, self.clock.now_ns());
        entry.and_then(|entry| entry.manifest().ok()).map(|manifest| manifest.unknown).unwrap_or_default()
    }

    /// Marks that a manifest cannot be relied on.
    pub(crate) fn distrust(&self, place: &ScopePlace) {
        let now = self.clock.now_ns();
        let Some(entry) = self.cache.get(place, now) else { return };
        let path = place.manifest_path();
        let distrusted = Entry::new(entry.json.clone(), entry.etag.clone(), path, SyncState::Error, now);
        if let Err(error) = self.cache.put(place, distrusted) {
            tracing::warn!(%error, "an entry of the manifest cache could not be marked");
        }
    }

    /// Evicts what is too much or not used; gives how many entries.
    pub(crate) fn evict(&self, catalog: &Catalog, entries_max: usize, unused_seconds: u64) -> Result<usize> {
        self.cache.evict(catalog, self.clock.now_ns(), entries_max, unused_seconds)
    }

    pub(crate) fn cached<'a>(&self, places: impl Iterator<Item = &'a ScopePlace>) -> Vec<CachedEntry> {
        self.cache.list(places, self.clock.now_ns())
    }

    pub(crate) fn totals(&self) -> CacheTotals {
        self.cache.totals()
    }

    fn keep(&self, place: &ScopePlace, found: Found) -> Result<Arc<Entry>> {
        let path = place.manifest_path();
        let faulty = |fault: Fault| StorageError::Manifest { path: path.clone(), fault: Box::new(fault) };
        Manifest::parse(&found.bytes).and_then(|manifest| manifest.check_place(place)).map_err(faulty)?;
        let entry = Entry::new(found.bytes, found.etag, path.clone(), SyncState::InSync, self.clock.now_ns());
        self.cache.put(place, entry)
    }

    #[cfg(test)]
    pub(crate) fn was_looked_at(&self, scope: Scope) -> bool {
        self.looked_at.read().contains(&scope) && !self.waiting.lock().contains(&scope)
    }

    #[cfg(test)]
    pub(crate) fn cache(&self) -> &ManifestCache {
        &self.cache
    }
}
