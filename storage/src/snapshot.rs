//! A snapshot: everything as of one commit.
//!
//! Invariants:
//! 1. Rows, records, delete log and catalog are all read as of `ts`, also for scopes first touched later.
//! 2. The committer takes the only snapshots, one after each group, and shares them.
//! 3. What is cached here can be rebuilt through any open snapshot.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use roaring::RoaringBitmap;

use crate::catalog::Catalog;
use crate::delete_log::{self, MaskedRow};
use crate::error::{Result, StorageError};
use crate::file_index::FileIndex;
use crate::hot::{HotChunk, HotCursor};
use crate::hot_cache::{HotCache, HotRows};
use crate::key_codec::KeyBytes;
use crate::keys::{
    BatchNumber, Generation, SCOPE_LEN, Scope, TableId, after_prefix, batch_prefix, decode_delete_log_key,
    delete_log_prefix, header_key, unique_key,
};
use crate::manifest::CachedEntry;
use crate::manifest::store::ManifestStore;
use crate::records::{BatchRecord, ScopeHeader};
use crate::recovery::Recoveries;
use crate::rocks::{Family, RocksSnapshot};
use crate::scope_place::ScopePlace;
use crate::system_columns::{CommitTs, RowId};

/// Lookups of keys before which it is asked whether there are any: a first load needs none of them.
const LOOKUPS_MANY: usize = 100;

/// Everything as of one commit.
pub struct Snapshot {
    ts: CommitTs,
    catalog: Arc<Catalog>,
    rocks: RocksSnapshot,
    cache: Arc<ScopeCache>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({})", self.ts.get())
    }
}

/// Where a scope's rows are.
#[derive(Debug, Clone)]
pub struct ScopeView {
    /// The batch files that queries read, by number.
    pub files: Arc<FileIndex>,
    /// Positions that are not to be read, by file.
    pub masks: Arc<Masks>,
    /// The generations of hot rows, oldest first.
    pub generations: Vec<Generation>,
}

/// Positions that are not to be read, by file.
pub type Masks = HashMap<BatchNumber, Arc<RoaringBitmap>>;

impl Snapshot {
    pub(crate) fn new(ts: CommitTs, catalog: Arc<Catalog>, rocks: RocksSnapshot, cache: Arc<ScopeCache>) -> Self {
        Self { ts, catalog, rocks, cache }
    }

    /// The last commit that it shows.
    pub fn ts(&self) -> CommitTs {
        self.ts
    }

    /// Namespaces, tables and users.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(crate) fn rocks(&self) -> &RocksSnapshot {
        &self.rocks
    }

    /// Where the rows of a scope are. One that is being recovered is waited for.
    pub async fn view(&self, scope: Scope) -> Result<ScopeView> {
        match self.scope(scope) {
            Err(StorageError::Recovering) => {
                self.cache.recoveries.wait_for(scope).await?;
                self.scope(scope)
            }
            view => view,
        }
    }

    /// Where the rows of a scope are; [`StorageError::Recovering`] while that is not known. Counts as a use of its manifest.
    pub fn scope(&self, scope: Scope) -> Result<ScopeView> {
        self.located(scope, || self.cache.manifests.used(scope))
    }

    /// The same for who only looks over many scopes: it is no use of their manifests.
    pub fn glance(&self, scope: Scope) -> Result<ScopeView> {
        self.located(scope, || {})
    }

    fn located(&self, scope: Scope, used: impl FnOnce()) -> Result<ScopeView> {
        let header = self.header(scope)?.unwrap_or_default();
        let (files, masks) = if header.recovering {
            self.degraded(scope)?
        } else if header.next_batch == ScopeHeader::default().next_batch {
            // No file was ever begun.
            Default::default()
        } else {
            used();
            let files = self.files(scope, header.version)?;
            let masks = self.masks(scope, &files)?;
            (files, masks)
        };
        Ok(ScopeView { files, masks, generations: header.visible_generations() })
    }

    /// What was recovered and is not committed yet, without what was superseded since.
    fn degraded(&self, scope: Scope) -> Result<(Arc<FileIndex>, Arc<Masks>)> {
        let recovered = self.cache.recoveries.get(scope).ok_or(StorageError::Recovering)?;
        let mut masks = recovered.masks.clone();
        for (file, since) in self.masks(scope, &recovered.files)?.iter() {
            *Arc::make_mut(masks.entry(*file).or_default()) |= &**since;
        }
        Ok((Arc::clone(&recovered.files), Arc::new(masks)))
    }

    /// The next at most `rows_max` row versions at a cursor; `None` at its end.
    pub fn hot_chunk(&self, cursor: &mut HotCursor, rows_max: usize) -> Result<Option<HotChunk>> {
        cursor.next_chunk(&self.rocks, rows_max)
    }

    /// The newest versions of the hot rows of a scope, when they are known.
    pub fn cached_hot_rows(&self, scope: Scope, generations: &[Generation]) -> Option<HotRows> {
        self.cache.hot.get(scope, generations, self.ts)
    }

    /// Which rows have these unique keys of a scope.
    pub fn find_keys(&self, scope: Scope, keys: &[&KeyBytes]) -> Result<Vec<Option<RowId>>> {
        if keys.len() >= LOOKUPS_MANY && !self.has_keys(scope)? {
            return Ok(vec![None; keys.len()]);
        }
        let find = |key: &&KeyBytes| match self.rocks.get(Family::Keys, &unique_key(scope, key))? {
            Some(id) => match id.as_slice().try_into() {
                Ok(id) => Ok(Some(RowId::stored(i64::from_le_bytes(id)))),
                Err(_) => Err(StorageError::Damaged("an entry of the key index is not of 8 bytes".into())),
            },
            None => Ok(None),
        };
        keys.iter().map(find).collect()
    }

    /// Whether any row of a scope has a unique key.
    fn has_keys(&self, scope: Scope) -> Result<bool> {
        let prefix = scope.encode();
        let mut iterator = self.rocks.iterate(Family::Keys, after_prefix(&prefix));
        iterator.seek(prefix);
        iterator.status()?;
        Ok(iterator.valid())
    }

    /// Whether the key index of a scope is lost, and is to be made again before it can be asked.
    pub fn keys_lost(&self, scope: Scope) -> Result<bool> {
        Ok(self.header(scope)?.is_some_and(|header| header.keys_lost))
    }

    /// Keeps what [`HotCursor`] gave of all these generations at this snapshot.
    pub fn cache_hot_rows(&self, scope: Scope, generations: Vec<Generation>, rows: HotRows) {
        self.cache.hot.put(scope, generations, self.ts, rows);
    }

    /// The most bytes of rows that are kept of one scope.
    pub fn cached_bytes_max(&self) -> usize {
        self.cache.hot.scope_bytes_max()
    }

    /// What the manifest cache holds of these scopes, now.
    pub fn cached_manifests<'a>(&self, places: impl Iterator<Item = &'a ScopePlace>) -> Vec<CachedEntry> {
        self.cache.manifests.cached(places)
    }

    /// The scopes that have rows in the hot tier, in order.
    pub fn hot_scopes(&self) -> Result<Vec<Scope>> {
        self.rocks.scopes(Family::Rows, &[])
    }

    /// The same of one table.
    pub fn hot_scopes_of(&self, table: TableId) -> Result<Vec<Scope>> {
        self.rocks.scopes(Family::Rows, &table.0.to_be_bytes())
    }

    /// The scopes whose records are to be recovered.
    pub(crate) fn scopes_to_recover(&self) -> Result<Vec<Scope>> {
        let mut scopes = Vec::new();
        self.visit_headers(|scope, header| {
            if header.recovering {
                scopes.push(scope);
            }
        })?;
        Ok(scopes)
    }

    /// The scopes of all tables that have had files.
    pub fn scopes_with_any_files(&self) -> Result<Vec<Scope>> {
        let mut scopes = Vec::new();
        self.visit_headers(|scope, header| {
            if header.version > 0 {
                scopes.push(scope);
            }
        })?;
        Ok(scopes)
    }

    /// The scopes with records that a manifest does not show yet.
    pub(crate) fn unexported_scopes(&self) -> Result<Vec<Scope>> {
        let mut scopes = Vec::new();
        self.visit_headers(|scope, header| {
            if header.is_unfinished() {
                scopes.push(scope);
            }
        })?;
        Ok(scopes)
    }

    fn visit_headers(&self, mut visit: impl FnMut(Scope, ScopeHeader)) -> Result<()> {
        self.rocks.scan(Family::Batches, &[], &[], |key, json| {
            if let Some(scope) = Scope::decode(key).filter(|scope| key == header_key(*scope)) {
                visit(scope, serde_json::from_slice(json).map_err(StorageError::damaged_json("a scope header"))?);
            }
            Ok(())
        })
    }

    /// The scopes of a table that ever had files, in order.
    pub fn scopes_with_files(&self, table: TableId) -> Result<Vec<Scope>> {
        self.rocks.scopes(Family::Batches, &table.0.to_be_bytes())
    }

    /// The scopes with a batch record of this kind, in order.
    pub(crate) fn scopes_where(&self, wanted: impl Fn(&BatchRecord) -> bool) -> Result<Vec<Scope>> {
        let mut scopes: Vec<Scope> = Vec::new();
        self.rocks.scan(Family::Batches, &[], &[], |key, json| {
            if let Some(scope) = Scope::decode(key).filter(|scope| key.starts_with(&batch_prefix(*scope)))
                && scopes.last() != Some(&scope)
                && wanted(&serde_json::from_slice(json).map_err(StorageError::damaged_json("a batch record"))?)
            {
                scopes.push(scope);
            }
            Ok(())
        })?;
        Ok(scopes)
    }

    pub(crate) fn header(&self, scope: Scope) -> Result<Option<ScopeHeader>> {
        let value = self.rocks.get(Family::Batches, &header_key(scope))?;
        value
            .map(|json| serde_json::from_slice(&json).map_err(StorageError::damaged_json("a scope header")))
            .transpose()
    }

    /// All batches of a scope, archived ones included, by number; none while they are being recovered.
    pub fn batches(&self, scope: Scope) -> Result<Vec<BatchRecord>> {
        match self.cache.recoveries.get(scope) {
            Some(recovered) if self.header(scope)?.is_some_and(|header| header.recovering) => {
                Ok(recovered.records.clone())
            }
            _ => self.records(scope),
        }
    }

    /// All batch records of a scope, archived ones included, by number.
    pub(crate) fn records(&self, scope: Scope) -> Result<Vec<BatchRecord>> {
        let prefix = batch_prefix(scope);
        let mut records = Vec::new();
        self.rocks.scan(Family::Batches, &prefix, &prefix, |_, json| {
            records.push(serde_json::from_slice(json).map_err(StorageError::damaged_json("a batch record"))?);
            Ok(())
        })?;
        Ok(records)
    }

    fn files(&self, scope: Scope, version: u64) -> Result<Arc<FileIndex>> {
        if let Some((cached, files)) = self.cache.files.lock().get(&scope)
            && *cached == version
        {
            return Ok(Arc::clone(files));
        }
        let mut files = self.records(scope)?;
        files.retain(|file| file.status.is_read());
        let files = Arc::new(FileIndex::new(files));
        self.cache.files.lock().insert(scope, (version, Arc::clone(&files)));
        Ok(files)
    }

    /// The masks of a scope: those cached for an earlier commit plus the log since, or the whole log.
    ///
    /// Every publication that takes entries away adds one, so that the newest entry tells which log it is.
    fn masks(&self, scope: Scope, files: &[BatchRecord]) -> Result<Arc<Masks>> {
        let Some(wanted) = self.last_delete(scope)? else { return Ok(Default::default()) };
        let cached = self.cache.masks.lock().get(&scope).cloned();
        let (after, mut masks) = match cached {
            Some((at, masks)) if at == wanted => return Ok(masks),
            Some((at, masks)) if at < wanted => (at, (*masks).clone()),
            _ => (CommitTs::stored(i64::MIN), Masks::new()),
        };
        let start = delete_log_prefix(scope, CommitTs::stored(after.get().saturating_add(1)));
        self.rocks.scan(Family::DeleteLog, &start, &scope.encode(), |key, entry| {
            let (_, file) = decode_delete_log_key(key)
                .ok_or_else(|| StorageError::Damaged("a delete-log key is damaged".into()))?;
            *Arc::make_mut(masks.entry(file).or_default()) |= delete_log::decode_positions(entry)?;
            Ok(())
        })?;
        masks.retain(|number, mask| !mask.is_empty() && files.binary_search_by_key(number, |f| f.batch_number).is_ok());
        let masks = Arc::new(masks);
        let mut cache = self.cache.masks.lock();
        if cache.get(&scope).is_none_or(|(at, _)| *at < wanted) {
            cache.insert(scope, (wanted, Arc::clone(&masks)));
        }
        Ok(masks)
    }

    /// Calls `visit` with the keys of a scope's delete log that were written after a commit, and what decodes the entry.
    pub(crate) fn visit_delete_log(
        &self,
        scope: Scope,
        after: CommitTs,
        mut visit: impl FnMut(&[u8], &dyn Fn() -> Result<Vec<MaskedRow>>) -> Result<()>,
    ) -> Result<()> {
        let start = delete_log_prefix(scope, CommitTs::stored(after.get().saturating_add(1)));
        self.rocks.scan(Family::DeleteLog, &start, &scope.encode(), |key, entry| {
            visit(key, &|| Ok(delete_log::decode(entry)?))
        })
    }

    /// The commit of the newest delete-log entry of a scope.
    fn last_delete(&self, scope: Scope) -> Result<Option<CommitTs>> {
        let prefix = scope.encode();
        let mut iterator = self.rocks.iterate(Family::DeleteLog, after_prefix(&prefix));
        iterator.seek_to_last();
        iterator.status()?;
        Ok(iterator.key().filter(|key| key[..SCOPE_LEN] == prefix).and_then(decode_delete_log_key).map(|(at, _)| at))
    }
}

/// What was last read of each scope. Bounded by dropping all when it has grown too large.
#[derive(Debug)]
pub(crate) struct ScopeCache {
    files: Mutex<Bounded<(u64, Arc<FileIndex>)>>,
    masks: Mutex<Bounded<(CommitTs, Arc<Masks>)>>,
    manifests: Arc<ManifestStore>,
    recoveries: Arc<Recoveries>,
    hot: HotCache,
}

impl ScopeCache {
    pub(crate) fn new(manifests: Arc<ManifestStore>, recoveries: Arc<Recoveries>, hot_bytes_max: usize) -> Self {
        let hot = HotCache::new(hot_bytes_max);
        Self { files: Mutex::default(), masks: Mutex::default(), manifests, recoveries, hot }
    }

    /// Bytes of hot rows that are kept as they were last read.
    pub(crate) fn hot_bytes(&self) -> usize {
        self.hot.bytes()
    }

    /// Notes that a commit has written rows of these scopes. To be called before a snapshot shows it.
    pub(crate) fn written(&self, scopes: impl Iterator<Item = Scope>, at: CommitTs) {
        self.hot.written(scopes, at);
    }
}

/// A map that is emptied when it is full.
#[derive(Debug)]
struct Bounded<V>(HashMap<Scope, V>);

impl<V> Default for Bounded<V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<V> Bounded<V> {
    const ENTRIES_MAX: usize = 10_000;

    fn get(&self, scope: &Scope) -> Option<&V> {
        self.0.get(scope)
    }

    fn insert(&mut self, scope: Scope, value: V) {
        if self.0.len() >= Self::ENTRIES_MAX {
            self.0.clear();
        }
        self.0.insert(scope, value);
    }
}

/// The snapshots that someone still holds.
#[derive(Debug, Default)]
pub(crate) struct OpenSnapshots(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    snapshots: VecDeque<(CommitTs, Weak<Snapshot>)>,
    /// Length at which those that are gone are taken out, also behind one that is held for long.
    purge_at: usize,
}

impl OpenSnapshots {
    pub(crate) fn push(&self, snapshot: &Arc<Snapshot>) {
        let mut open = self.0.lock();
        if open.snapshots.len() >= open.purge_at {
            open.snapshots.retain(|(_, snapshot)| snapshot.strong_count() > 0);
            open.purge_at = 64.max(2 * open.snapshots.len());
        }
        open.snapshots.push_back((snapshot.ts(), Arc::downgrade(snapshot)));
    }

    /// The commit of the oldest one.
    pub(crate) fn oldest(&self) -> Option<CommitTs> {
        let mut open = self.0.lock();
        while let Some((ts, snapshot)) = open.snapshots.front() {
            if snapshot.strong_count() > 0 {
                return Some(*ts);
            }
            open.snapshots.pop_front();
        }
        None
    }
}
