//! The manifest cache: what manifests say, in memory over the RocksDB family `manifest_cache`.
//!
//! Invariants:
//! 1. An entry holds the whole file as it was read or written, with its ETag. Memory and family hold the same entry, or
//!    the one that holds none is filled from the other.
//! 2. An entry is believed for `ttl_seconds` after `last_refreshed`; then its ETag is compared with the store's.
//! 3. `last_accessed` is in memory only: a read writes nothing.
//! 4. It is a cache: whatever is missing or damaged in it is read again. Its writes are not synced.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Manifest;
use crate::catalog::Catalog;
use crate::error::{Result, StorageError};
use crate::keys::Scope;
use crate::objects::ETag;
use crate::paths;
use crate::rocks::{Family, Rocks};
use crate::scope_place::ScopePlace;

/// Settings of the manifest cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Seconds for which an entry is believed; then its ETag is compared with the object store's.
    #[schemars(range(min = 1))]
    pub ttl_seconds: u64,
    /// Seconds between two clean-ups.
    #[schemars(range(min = 1))]
    pub eviction_interval_seconds: u64,
    /// Entries that are kept; those that were not used for longest go first.
    #[schemars(range(min = 1))]
    pub max_entries: usize,
    /// Seconds without use after which an entry leaves memory. It stays in RocksDB.
    #[schemars(range(min = 1))]
    pub last_accessed_memory_window: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { ttl_seconds: 600, eviction_interval_seconds: 300, max_entries: 50_000, last_accessed_memory_window: 600 }
    }
}

/// Whether an entry is what the object store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// It was when it was last looked at, and that is not too long ago.
    InSync,
    /// That is too long ago.
    Stale,
    /// What the object store holds cannot be relied on, or belongs to another owner.
    Error,
}

impl SyncState {
    /// As results show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Stale => "stale",
            Self::Error => "error",
        }
    }
}

/// How often the cache was asked, and what it took to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheTotals {
    /// Answered from memory.
    pub memory_hits: u64,
    /// Answered from RocksDB.
    pub rocksdb_hits: u64,
    /// Read from the object store.
    pub misses: u64,
    /// Found unchanged in the object store after their time.
    pub revalidated: u64,
    /// Manifests that were exported, and are in the cache as they are in the object store.
    pub sync_successes: u64,
    /// Times that an exported manifest could not be written to the cache.
    pub sync_failures: u64,
}

/// An entry, as results show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedEntry {
    /// The namespace of its table.
    pub namespace: String,
    /// The table.
    pub table: String,
    /// The user whose rows it is about; `None` = shared.
    pub user: Option<String>,
    /// Its ETag.
    pub etag: String,
    /// When it was last known to be what the object store holds, in ns since the Unix epoch.
    pub last_refreshed_ns: i64,
    /// When it was last used since the start; `None` when it was not, or is not in memory.
    pub last_accessed_ns: Option<i64>,
    /// Seconds for which it will be believed.
    pub ttl_seconds: i64,
    /// Path of the manifest below the object store's root.
    pub source_path: String,
    /// Whether it can be believed.
    pub sync_state: SyncState,
}

/// An entry as the family holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    manifest_json: String,
    etag: String,
    last_refreshed: i64,
    source_path: String,
    sync_state: SyncState,
}

/// An entry in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) json: Bytes,
    pub(crate) etag: ETag,
    pub(crate) last_refreshed_ns: i64,
    pub(crate) source_path: String,
    pub(crate) state: SyncState,
    last_accessed_ns: AtomicI64,
}

impl Entry {
    /// What was just read or written.
    pub(crate) fn new(json: Bytes, etag: ETag, source_path: String, state: SyncState, now_ns: i64) -> Self {
        Self { json, etag, last_refreshed_ns: now_ns, source_path, state, last_accessed_ns: AtomicI64::new(now_ns) }
    }

    /// The manifest that it holds.
    pub(crate) fn manifest(&self) -> Result<Manifest> {
        Manifest::parse(&self.json)
            .map_err(|fault| StorageError::Manifest { path: self.source_path.clone(), fault: Box::new(fault) })
    }
}

/// What memory knows of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touched {
    /// An entry that is believed.
    Fresh,
    /// Nothing, or an entry whose time is over.
    Due,
}

#[derive(Debug)]
pub(crate) struct ManifestCache {
    rocks: Arc<Rocks>,
    config: CacheConfig,
    memory: RwLock<HashMap<Scope, Arc<Entry>>>,
    memory_hits: AtomicU64,
    rocksdb_hits: AtomicU64,
    misses: AtomicU64,
    revalidated: AtomicU64,
    sync_successes: AtomicU64,
    sync_failures: AtomicU64,
    /// Writes to the family that are to fail.
    #[cfg(test)]
    pub(crate) fail_writes: AtomicU64,
}

impl ManifestCache {
    pub(crate) fn new(rocks: Arc<Rocks>, config: CacheConfig) -> Self {
        Self {
            rocks,
            config,
            memory: RwLock::default(),
            memory_hits: AtomicU64::new(0),
            rocksdb_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            revalidated: AtomicU64::new(0),
            sync_successes: AtomicU64::new(0),
            sync_failures: AtomicU64::new(0),
            #[cfg(test)]
            fail_writes: AtomicU64::new(0),
        }
    }

    /// Notes a use. No disk is read.
    pub(crate) fn touch(&self, scope: Scope, now_ns: i64) -> Touched {
        let Some(entry) = self.memory.read().get(&scope).cloned() else { return Touched::Due };
        entry.last_accessed_ns.store(now_ns, Ordering::Relaxed);
        if !self.is_believed(entry.last_refreshed_ns, now_ns) {
            return Touched::Due;
        }
        self.memory_hits.fetch_add(1, Ordering::Relaxed);
        Touched::Fresh
    }

    /// The entry of a scope, from memory or else from the family, however old.
    pub(crate) fn get(&self, place: &ScopePlace, now_ns: i64) -> Option<Arc<Entry>> {
        if let Some(entry) = self.memory.read().get(&place.scope) {
            entry.last_accessed_ns.store(now_ns, Ordering::Relaxed);
            self.memory_hits.fetch_add(1, Ordering::Relaxed);
            return Some(Arc::clone(entry));
        }
        let entry = Arc::new(self.restored(place, now_ns)?);
        self.rocksdb_hits.fetch_add(1, Ordering::Relaxed);
        self.memory.write().insert(place.scope, Arc::clone(&entry));
        Some(entry)
    }

    /// Whether an entry of this age need not be compared with the object store.
    pub(crate) fn is_believed(&self, last_refreshed_ns: i64, now_ns: i64) -> bool {
        self.seconds_left(last_refreshed_ns, now_ns) > 0
    }

    /// Puts an entry into family and memory; memory keeps none that the family does not.
    pub(crate) fn put(&self, place: &ScopePlace, entry: Entry) -> Result<Arc<Entry>> {
        let stored = Stored {
            manifest_json: String::from_utf8_lossy(&entry.json).into_owned(),
            etag: entry.etag.0.clone(),
            last_refreshed: entry.last_refreshed_ns,
            source_path: entry.source_path.clone(),
            sync_state: entry.state,
        };
        let json = serde_json::to_vec(&stored).expect("an entry has only strings as keys");
        if let Err(error) = self.write(&key(place), &json) {
            self.forget(place);
            return Err(error);
        }
        let entry = Arc::new(entry);
        self.memory.write().insert(place.scope, Arc::clone(&entry));
        Ok(entry)
    }

    /// Drops an entry: what comes next reads the object store.
    pub(crate) fn forget(&self, place: &ScopePlace) {
        self.memory.write().remove(&place.scope);
        if let Err(error) = self.rocks.remove_cached(Family::ManifestCache, &key(place)) {
            tracing::warn!(%error, manifest = place.manifest_path(), "an entry of the manifest cache stays");
        }
    }

    pub(crate) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn found_unchanged(&self) {
        self.revalidated.fetch_add(1, Ordering::Relaxed);
    }

    /// An exported manifest is in the cache, or is not.
    pub(crate) fn synced(&self, succeeded: bool) {
        let counter = if succeeded { &self.sync_successes } else { &self.sync_failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> CacheTotals {
        CacheTotals {
            memory_hits: self.memory_hits.load(Ordering::Relaxed),
            rocksdb_hits: self.rocksdb_hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            revalidated: self.revalidated.load(Ordering::Relaxed),
            sync_successes: self.sync_successes.load(Ordering::Relaxed),
            sync_failures: self.sync_failures.load(Ordering::Relaxed),
        }
    }

    /// The entries of these scopes that there are, in their order.
    pub(crate) fn list<'a>(&self, places: impl Iterator<Item = &'a ScopePlace>, now_ns: i64) -> Vec<CachedEntry> {
        let shown = |place: &ScopePlace| {
            let in_memory = self.memory.read().get(&place.scope).cloned();
            let last_accessed_ns = in_memory.as_ref().map(|entry| entry.last_accessed_ns.load(Ordering::Relaxed));
            let entry = in_memory.or_else(|| self.restored(place, now_ns).map(Arc::new))?;
            let ttl_seconds = self.seconds_left(entry.last_refreshed_ns, now_ns);
            let sync_state = match entry.state {
                SyncState::InSync if ttl_seconds == 0 => SyncState::Stale,
                state => state,
            };
            Some(CachedEntry {
                namespace: place.namespace.clone(),
                table: place.table.clone(),
                user: place.user.clone(),
                etag: entry.etag.0.clone(),
                last_refreshed_ns: entry.last_refreshed_ns,
                last_accessed_ns,
                ttl_seconds,
                source_path: entry.source_path.clone(),
                sync_state,
            })
        };
        places.filter_map(shown).collect()
    }

    /// Takes out of memory what was not used for a while; forgets entries of tables that are gone and, above `entries_max`,
    /// those that were not used for longest. Gives how many entries have left the family or memory.
    pub(crate) fn evict(
        &self,
        catalog: &Catalog,
        now_ns: i64,
        entries_max: usize,
        unused_seconds: u64,
    ) -> Result<usize> {
        let mut by_use: Vec<(i64, Scope)> = self
            .memory
            .read()
            .iter()
            .map(|(scope, entry)| (entry.last_accessed_ns.load(Ordering::Relaxed), *scope))
            .collect();
        by_use.sort_unstable();
        let too_many = by_use.len().saturating_sub(entries_max);
        let oldest = now_ns.saturating_sub(seconds_as_ns(unused_seconds));
        let (mut in_use, before) = (HashSet::new(), by_use.len());
        for (at, (last_accessed, scope)) in by_use.into_iter().enumerate() {
            match ScopePlace::of(catalog, scope) {
                Ok(place) if at < too_many => self.forget(&place),
                Ok(place) if last_accessed >= oldest => drop(in_use.insert(key(&place))),
                _ => drop(self.memory.write().remove(&scope)),
            }
        }
        let left_memory = before - in_use.len();
        Ok(left_memory.max(self.evict_stored(catalog, &in_use, entries_max)?))
    }

    /// Of the family's entries, those of tables that are gone, and those beyond `max_entries` that memory does not hold.
    fn evict_stored(&self, catalog: &Catalog, in_use: &HashSet<Vec<u8>>, entries_max: usize) -> Result<usize> {
        let tables: HashSet<Vec<u8>> = catalog.tables().map(|table| table_key(&table.namespace, &table.name)).collect();
        let is_known = |key: &[u8]| {
            let end = key.iter().rposition(|byte| *byte == b':').map_or(0, |at| at + 1);
            tables.contains(&key[..end])
        };
        let (mut gone, mut unused, mut known) = (Vec::new(), Vec::new(), 0_usize);
        self.rocks.scan_prefix(Family::ManifestCache, &[], |key, _| {
            match is_known(key) {
                false => gone.push(key.to_vec()),
                true => {
                    known += 1;
                    if !in_use.contains(key) {
                        unused.push(key.to_vec());
                    }
                }
            }
            Ok(())
        })?;
        unused.truncate(known.saturating_sub(entries_max));
        let evicted = gone.len() + unused.len();
        for key in gone.into_iter().chain(unused) {
            self.rocks.remove_cached(Family::ManifestCache, &key)?;
        }
        if evicted > 0 {
            tracing::debug!(evicted, "entries of the manifest cache evicted");
        }
        Ok(evicted)
    }

    fn restored(&self, place: &ScopePlace, now_ns: i64) -> Option<Entry> {
        let json = self.rocks.get(Family::ManifestCache, &key(place)).ok()??;
        let stored: Stored = serde_json::from_slice(&json).ok()?;
        // A table of this name that was dropped had its files elsewhere.
        if stored.source_path != place.manifest_path() {
            return None;
        }
        let etag = ETag(stored.etag);
        let entry = Entry::new(stored.manifest_json.into(), etag, stored.source_path, stored.sync_state, now_ns);
        Some(Entry { last_refreshed_ns: stored.last_refreshed, ..entry })
    }

    fn seconds_left(&self, last_refreshed_ns: i64, now_ns: i64) -> i64 {
        let age = now_ns.saturating_sub(last_refreshed_ns);
        let left = seconds_as_ns(self.config.ttl_seconds).saturating_sub(age);
        // Ahead of its time: the clock was put back.
        let ahead = age < 0;
        if ahead { 0 } else { (left.max(0).saturating_add(999_999_999)) / 1_000_000_000 }
    }

    fn write(&self, key: &[u8], json: &[u8]) -> Result<()> {
        #[cfg(test)]
        if self.fail_writes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(StorageError::Damaged("a test lets this write fail".into()));
        }
        self.rocks.put_cached(Family::ManifestCache, key, json)
    }
}

/// `{namespace}:{table}:{user_id}`, the last part empty for shared rows; encoded like paths, so that no `:` is a name's.
fn key(place: &ScopePlace) -> Vec<u8> {
    let mut key = table_key(&place.namespace, &place.table);
    key.extend(place.user.as_deref().map(paths::segment).unwrap_or_default().into_bytes());
    key
}

fn table_key(namespace: &str, table: &str) -> Vec<u8> {
    format!("{}:{}:", paths::segment(namespace), paths::segment(table)).into_bytes()
}

fn seconds_as_ns(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000)
}
