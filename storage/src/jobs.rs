//! What jobs are made of: their records, which mean nothing here, and the work on scopes that only the storage can do.
//!
//! All of it may be done again, and beside anything else: what must not meet on a scope takes the scope's lock.

use std::collections::HashSet;
use std::sync::Arc;

use rocksdb::WriteBatch;

use crate::catalog::{TableKind, TableRecord};
use crate::error::{Result, StorageError};
use crate::hot::{HotCursor, Versions};
use crate::hot_size::HotSize;
use crate::keys::{Generation, RowKey, Scope, generation_prefix};
use crate::objects::blocking;
use crate::rocks::{Family, Rocks};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::system_columns::CommitTs;
use crate::tally::HotScope;

/// Keys that are removed, and versions that are counted, at once.
const REMOVED_AT_ONCE: usize = 10_000;

impl Store {
    /// The records of all jobs, by number.
    pub fn jobs(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut found = Vec::new();
        self.rocks().scan_prefix(Family::Jobs, &[], |key, record| {
            let number = key.try_into().map_err(|_| StorageError::Damaged("a job's key is no number".into()))?;
            found.push((u64::from_be_bytes(number), record.to_vec()));
            Ok(())
        })?;
        Ok(found)
    }

    /// Writes a job's record. `durable`: somebody is told that it is there.
    pub fn put_job(&self, number: u64, record: &[u8], durable: bool) -> Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.rocks().family(Family::Jobs), number.to_be_bytes(), record);
        self.rocks().write(batch, durable)
    }

    /// Removes the records of jobs that ended long ago.
    pub fn remove_jobs(&self, numbers: &[u64]) -> Result<()> {
        let keys: Vec<Vec<u8>> = numbers.iter().map(|number| number.to_be_bytes().to_vec()).collect();
        self.rocks().remove_all(Family::Jobs, &keys)
    }

    /// Writes a scope's manifest again from its records; nothing for one that never had files.
    pub async fn rebuild_manifest(&self, scope: Scope) -> Result<()> {
        let lock = self.scope_lock(scope);
        let _one_at_a_time = lock.lock().await;
        self.recover_locked(scope).await?;
        let snapshot = self.snapshot();
        match snapshot.header(scope)?.is_some_and(|header| header.version > 0) {
            true => self.export(&snapshot, scope).await,
            false => Ok(()),
        }
    }

    /// Removes files of a scope that are superseded for longer than the retention; gives how many.
    pub async fn retire_files(&self, scope: Scope) -> Result<usize> {
        let lock = self.scope_lock(scope);
        let _one_at_a_time = lock.lock().await;
        self.recover_locked(scope).await?;
        self.remove_expired(scope).await
    }

    /// Looks at a scope's manifest and files wholly, and removes files that nothing names and that are older than the grace
    /// period; gives how many.
    pub async fn clean_up_files(&self, scope: Scope) -> Result<usize> {
        self.manifests().forget_look(scope);
        self.look_at(scope).await
    }

    /// Forgets names of old commits, and entries of the audit log that are older than the retention.
    pub fn forget_old(&self) -> Result<()> {
        self.recoveries().forget_before(self.committer().oldest_open());
        self.forget_commit_names()?;
        self.forget_old_audit()
    }

    /// The scopes with files that are superseded for longer than the retention.
    pub fn scopes_to_retire(&self) -> Result<Vec<Scope>> {
        self.snapshot().scopes_where(self.expired())
    }

    /// Counts what was hot before the start, beside what commits add. For once, with a snapshot of then.
    /// `versions`: tables whose versions are counted too, one by one.
    pub fn count_hot(&self, before: &Arc<Snapshot>, versions: impl Fn(&TableRecord) -> bool) -> Result<()> {
        let now = self.clock().now_ns();
        for scope in before.hot_scopes()? {
            let table = before.catalog().table_by_id(scope.table);
            let Some(table) = table.filter(|table| table.kind != TableKind::Stream) else { continue };
            let header = before.header(scope)?.unwrap_or_default();
            let stored = |generation: &Generation| {
                self.rocks().stored_bytes(Family::Rows, &generation_prefix(scope, *generation))
            };
            let versions = if versions(table) { count_versions(before, scope, header.active)? } else { 0 };
            let active = HotSize { versions, dead: 0, bytes: stored(&header.active) };
            self.tally().found(scope, now, active, header.sealed.iter().map(stored).sum());
        }
        Ok(())
    }

    /// What is hot of each scope that has hot rows.
    pub fn hot(&self) -> Vec<(Scope, HotScope)> {
        self.tally().hot()
    }

    /// Bytes of hot rows of all tables but streams.
    pub fn hot_bytes(&self) -> u64 {
        self.tally().bytes()
    }

    /// Bytes of memory that each part of the storage takes for what it keeps.
    pub fn memory(&self) -> [(&'static str, u64); 3] {
        [
            ("block_cache", self.rocks().block_cache_bytes()),
            ("write_buffers", self.rocks().write_buffer_bytes()),
            ("hot_cache", self.cache.hot_bytes() as u64),
        ]
    }

    /// Rises whenever what is hot changes.
    pub fn hot_changes(&self) -> u64 {
        self.tally().changes()
    }

    /// Scopes whose files, or which of their rows are read, have changed since this was asked.
    pub fn take_changed_files(&self) -> HashSet<Scope> {
        self.tally().take_changed_files()
    }

    /// Removes hot versions of a scope from before a time, in nanoseconds since the Unix epoch, which nobody may read any
    /// more; gives how many. Who looks afterwards does not find them.
    pub async fn remove_hot_before(self: &Arc<Self>, scope: Scope, oldest_ns: i64) -> Result<u64> {
        let store = Arc::clone(self);
        let removed = blocking(move || remove_before(store.rocks(), scope, CommitTs::stored(oldest_ns))).await?;
        if removed > 0 {
            self.committer().look().await?;
        }
        Ok(removed)
    }
}

fn remove_before(rocks: &Rocks, scope: Scope, oldest: CommitTs) -> Result<u64> {
    let (mut removed, mut keys) = (0, Vec::new());
    rocks.scan_prefix(Family::Rows, &scope.encode(), |key, _| {
        let row = RowKey::decode(key).ok_or_else(|| StorageError::Damaged("a row key is too short".into()))?;
        if row.updated < oldest {
            keys.push(key.to_vec());
        }
        if keys.len() == REMOVED_AT_ONCE {
            removed += keys.len() as u64;
            rocks.remove_all(Family::Rows, &std::mem::take(&mut keys))?;
        }
        Ok(())
    })?;
    removed += keys.len() as u64;
    rocks.remove_all(Family::Rows, &keys)?;
    Ok(removed)
}

fn count_versions(snapshot: &Arc<Snapshot>, scope: Scope, generation: Generation) -> Result<u64> {
    let (mut versions, mut cursor) = (0, HotCursor::new(scope, vec![generation], Versions::All));
    while let Some(chunk) = snapshot.hot_chunk(&mut cursor, REMOVED_AT_ONCE)? {
        versions += chunk.len() as u64;
    }
    Ok(versions)
}
