//! RocksDB: its families, its options, and a snapshot that owns its database.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator,
    DBRecoveryMode, Options, Range, ReadOptions, WriteBatch, WriteOptions, properties,
};
use self_cell::self_cell;

use crate::error::{Result, StorageError};
use crate::keys::{Scope, after_prefix};

/// The column families. The names are stored: they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Rows,
    DeleteLog,
    Keys,
    Batches,
    Catalog,
    Users,
    Audit,
    Jobs,
    ManifestCache,
    Transactions,
}

impl Family {
    pub(crate) const ALL: [Self; 10] = [
        Self::Rows,
        Self::DeleteLog,
        Self::Keys,
        Self::Batches,
        Self::Catalog,
        Self::Users,
        Self::Audit,
        Self::Jobs,
        Self::ManifestCache,
        Self::Transactions,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::DeleteLog => "delete_log",
            Self::Keys => "keys",
            Self::Batches => "batches",
            Self::Catalog => "catalog",
            Self::Users => "users",
            Self::Audit => "audit",
            Self::Jobs => "jobs",
            Self::ManifestCache => "manifest_cache",
            Self::Transactions => "transactions",
        }
    }
}

/// How much memory a database may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Blocks of its files, the indexes and filters of these included.
    pub(crate) block_cache: usize,
    /// Rows that are gathered before they become a file.
    pub(crate) write_buffer: usize,
}

impl Memory {
    /// Bytes that a family gathers before they become a file. Rows come in masses; of everything else there is little,
    /// written again and again: with as much room for each it would take hours to fill, and memory would seem to leak.
    fn write_buffer(&self, family: Family) -> usize {
        match family {
            Family::Rows => self.write_buffer,
            Family::DeleteLog => self.write_buffer.min(16 << 20),
            _ => self.write_buffer.min(4 << 20),
        }
    }
}

/// An open RocksDB.
pub(crate) struct Rocks {
    db: DB,
    cache: Cache,
    synced: WriteOptions,
    /// Whether every write is synced.
    always: bool,
}

impl std::fmt::Debug for Rocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rocks({})", self.db.path().display())
    }
}

impl Rocks {
    /// Opens or makes the database. With `sync` a write returns when it is in the fsynced WAL.
    pub(crate) fn open(path: &Path, memory: Memory, sync: bool) -> Result<Self> {
        let cache = Cache::new_lru_cache(memory.block_cache);
        let families = descriptors(&cache, memory);
        let db = DB::open_cf_descriptors(&database_options(), path, families)?;
        Ok(Self { db, cache, synced: synced_writes(), always: sync })
    }

    /// Whether the database is there, but has no such family.
    pub(crate) fn lacks(path: &Path, family: Family) -> Result<bool> {
        if !path.join("CURRENT").exists() {
            return Ok(false);
        }
        Ok(!DB::list_cf(&database_options(), path)?.iter().any(|name| name == family.name()))
    }

    /// Opens a database that is there with all families but one that it does not have. That one must not be asked for.
    pub(crate) fn open_without(path: &Path, memory: Memory, missing: Family) -> Result<Self> {
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let cache = Cache::new_lru_cache(memory.block_cache);
        let families = Family::ALL.into_iter().filter(|family| *family != missing);
        let descriptor =
            |f: Family| ColumnFamilyDescriptor::new(f.name(), family_options(&cache, memory.write_buffer(f)));
        let db = DB::open_cf_descriptors(&options, path, families.map(descriptor).collect::<Vec<_>>())?;
        Ok(Self { db, cache, synced: synced_writes(), always: true })
    }

    /// Opens the database as it is, and writes nothing to its folder. Nobody else may write to it meanwhile.
    pub(crate) fn open_to_look(path: &Path) -> Result<Self> {
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let known = DB::list_cf(&options, path)?;
        if let Some(family) = Family::ALL.iter().find(|family| !known.iter().any(|name| name == family.name())) {
            let (name, path) = (family.name(), path.display());
            return Err(StorageError::Damaged(format!(
                "{path} has no column family '{name}': it was last open in an older build; start the server on it once"
            )));
        }
        let memory = Memory { block_cache: 64 << 20, write_buffer: 4 << 20 };
        let cache = Cache::new_lru_cache(memory.block_cache);
        let families = descriptors(&cache, memory);
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false)?;
        Ok(Self { db, cache, synced: WriteOptions::default(), always: false })
    }

    pub(crate) fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family is opened with the database")
    }

    /// Writes a batch as the one commit point. With `durable` it is synced whatever the setting, and all before it.
    pub(crate) fn write(&self, batch: WriteBatch, durable: bool) -> Result<()> {
        match self.always || durable {
            true => self.db.write_opt(batch, &self.synced)?,
            false => self.db.write(batch)?,
        }
        Ok(())
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get_cf(self.family(family), key)?)
    }

    /// About the bytes that keys with this prefix take in files. What is in memory still is not counted.
    pub(crate) fn stored_bytes(&self, family: Family, prefix: &[u8]) -> u64 {
        let Some(end) = after_prefix(prefix) else { return 0 };
        self.db.get_approximate_sizes_cf(self.family(family), &[Range::new(prefix, &end)]).iter().sum()
    }

    /// Bytes of blocks of files that are in memory.
    pub(crate) fn block_cache_bytes(&self) -> u64 {
        self.cache.get_usage() as u64
    }

    /// Bytes that are gathered in memory before they become files.
    pub(crate) fn write_buffer_bytes(&self) -> u64 {
        Family::ALL.iter().map(|family| self.gathered_bytes(*family)).sum()
    }

    fn gathered_bytes(&self, family: Family) -> u64 {
        let bytes = self.db.property_int_value_cf(self.family(family), properties::CUR_SIZE_ALL_MEM_TABLES);
        bytes.ok().flatten().unwrap_or_default()
    }

    /// Writes what may be lost: it is not synced, and no snapshot orders it.
    pub(crate) fn put_cached(&self, family: Family, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_cf(self.family(family), key, value)?)
    }

    /// Removes what [`Rocks::put_cached`] has written.
    pub(crate) fn remove_cached(&self, family: Family, key: &[u8]) -> Result<()> {
        Ok(self.db.delete_cf(self.family(family), key)?)
    }

    /// Removes what may come back: it is not synced.
    pub(crate) fn remove_all(&self, family: Family, keys: &[Vec<u8>]) -> Result<()> {
        let mut batch = WriteBatch::default();
        keys.iter().for_each(|key| batch.delete_cf(self.family(family), key));
        Ok(self.db.write(batch)?)
    }

    /// A value outside of the families.
    pub(crate) fn get_root(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get(key)?)
    }

    /// Writes a value outside of the families, durably whatever the setting.
    pub(crate) fn put_root(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.put(key, value)?;
        Ok(self.db.flush_wal(true)?)
    }

    /// Calls `visit` with every key and value that starts with `prefix`, in order.
    pub(crate) fn scan_prefix(
        &self,
        family: Family,
        prefix: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(family), below(after_prefix(prefix)));
        iterator.seek(prefix);
        visit_all(iterator, visit)
    }

    /// Calls `visit` with every key and value below `end`, in order.
    pub(crate) fn scan_below(
        &self,
        family: Family,
        end: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.scan_while(family, end, |key, value| visit(key, value).map(|()| true))
    }

    /// Calls `visit` with every key and value below `end`, in order, as long as it says so.
    pub(crate) fn scan_while(
        &self,
        family: Family,
        end: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(family), below(Some(end.to_vec())));
        iterator.seek_to_first();
        while let Some((key, value)) = iterator.item() {
            if !visit(key, value)? {
                return Ok(());
            }
            iterator.next();
        }
        iterator.status().map_err(StorageError::from)
    }

    /// The highest key of a family.
    pub(crate) fn last_key(&self, family: Family) -> Result<Option<Vec<u8>>> {
        let mut iterator = self.db.raw_iterator_cf(self.family(family));
        iterator.seek_to_last();
        let last = iterator.key().map(<[u8]>::to_vec);
        iterator.status()?;
        Ok(last)
    }

    /// Syncs the log and ends background work.
    pub(crate) fn close(&self) {
        if let Err(error) = self.db.flush_wal(true) {
            tracing::error!(%error, "syncing the WAL at the end failed");
        }
        self.db.cancel_all_background_work(true);
    }
}

type DbSnapshot<'a> = rocksdb::Snapshot<'a>;

self_cell!(
    /// A RocksDB snapshot together with the database that it borrows; the snapshot is dropped first.
    pub(crate) struct RocksSnapshot {
        owner: Arc<Rocks>,

        #[covariant]
        dependent: DbSnapshot,
    }
);

impl RocksSnapshot {
    pub(crate) fn take(rocks: Arc<Rocks>) -> Self {
        Self::new(rocks, |rocks| rocks.db.snapshot())
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.borrow_dependent().get_cf(self.borrow_owner().family(family), key)?)
    }

    /// An iterator over `family` that ends before `end`.
    pub(crate) fn iterate(&self, family: Family, end: Option<Vec<u8>>) -> DBRawIterator<'_> {
        self.borrow_dependent().raw_iterator_cf_opt(self.borrow_owner().family(family), below(end))
    }

    /// The scopes that a family has keys of, in order; for families whose keys start with a scope.
    pub(crate) fn scopes(&self, family: Family, prefix: &[u8]) -> Result<Vec<Scope>> {
        let mut scopes = Vec::new();
        let mut iterator = self.iterate(family, after_prefix(prefix));
        iterator.seek(prefix);
        while let Some(key) = iterator.key() {
            let too_short = || StorageError::Damaged(format!("a key of the family '{}' is too short", family.name()));
            let scope = Scope::decode(key).ok_or_else(too_short)?;
            scopes.push(scope);
            match after_prefix(&scope.encode()) {
                Some(next) => iterator.seek(next),
                None => break,
            }
        }
        iterator.status()?;
        Ok(scopes)
    }

    /// A value outside of the families.
    pub(crate) fn get_root(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.borrow_dependent().get(key)?)
    }

    /// Calls `visit` with every key and value from `start` that is below the end of `prefix`.
    pub(crate) fn scan(
        &self,
        family: Family,
        start: &[u8],
        prefix: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut iterator = self.iterate(family, after_prefix(prefix));
        iterator.seek(start);
        visit_all(iterator, visit)
    }
}

fn visit_all(mut iterator: DBRawIterator<'_>, mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    while let Some((key, value)) = iterator.item() {
        visit(key, value)?;
        iterator.next();
    }
    iterator.status().map_err(StorageError::from)
}

fn below(end: Option<Vec<u8>>) -> ReadOptions {
    let mut options = ReadOptions::default();
    if let Some(end) = end {
        options.set_iterate_upper_bound(end);
    }
    options
}

fn synced_writes() -> WriteOptions {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    synced
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // Only a torn tail is forgiven: damage in the middle of the log is an error, not a shorter history.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_enable_pipelined_write(true);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(1 << 30);
    options.set_keep_log_file_num(4);
    options
}

fn descriptors(cache: &Cache, memory: Memory) -> [ColumnFamilyDescriptor; 10] {
    Family::ALL.map(|f| ColumnFamilyDescriptor::new(f.name(), family_options(cache, memory.write_buffer(f))))
}

fn family_options(cache: &Cache, write_buffer: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_write_buffer_size(write_buffer);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StorageConfig;

    /// Values that are written again and again do not fill the memory, however small the family.
    #[test]
    fn what_is_gathered_in_memory_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let memory = StorageConfig::default().memory();
        let rocks = Rocks::open(dir.path(), memory, false).unwrap();
        for family in Family::ALL {
            let value: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
            for _ in 0..30 {
                rocks.put_cached(family, b"key", &value).unwrap();
            }
            let gathered = || rocks.gathered_bytes(family) as usize;
            assert!(gathered() > 0);
            // Full ones become files in the background.
            let limit = 2 * memory.write_buffer(family);
            let is_so = (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                gathered() <= limit
            });
            assert!(is_so, "{family:?} has {} bytes in memory, more than {limit}", gathered());
        }
        let all: usize = Family::ALL.iter().map(|family| memory.write_buffer(*family)).sum();
        assert!(all <= 128 << 20, "{all} bytes");
    }
}
