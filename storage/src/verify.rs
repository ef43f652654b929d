//! Looking at a scope's manifest and files: when it is first used after a start, and when the cache's time is over.
//!
//! ```text
//! first use ─▶ one listing ─▶ manifest: is it what the records say?   else exported again
//!                          ─▶ batch files, delete vectors: there, with their lengths?   a vector is made again
//!                          ─▶ files that no record names: removed after a grace period
//! ```
//!
//! Invariants:
//! 1. Nobody waits for it but flush and compaction of the scope: what queries read is in the records.
//! 2. What is wrong is logged, and mended when the records can mend it. A lost batch file cannot be: queries that need
//!    it fail, and say so.

use std::sync::{Arc, Weak};

use futures::StreamExt;
use roaring::RoaringBitmap;
use tokio::sync::mpsc;

use crate::delete_vector;
use crate::error::{Result, StorageError};
use crate::keys::{Scope, decode_delete_log_key};
use crate::manifest::{Fault, check_files, grace_of, orphans};
use crate::records::BatchRecord;
use crate::recovery::{Wanted, milliseconds_since};
use crate::scope_files::ScopeFiles;
use crate::store::Store;
use crate::system_columns::CommitTs;

/// Scopes that are looked at at the same time.
const AT_ONCE: usize = 8;
/// Scopes that are recovered at the same time: each has some whole files in memory.
const RECOVERIES_AT_ONCE: usize = 2;

/// Looks at scopes as they come, until no more come or the store is gone.
pub(crate) async fn look_at_scopes(store: Weak<Store>, due: mpsc::UnboundedReceiver<Scope>) {
    let scopes = futures::stream::unfold(due, |mut due| async { Some((due.recv().await?, due)) });
    scopes
        .for_each_concurrent(AT_ONCE, |scope| {
            let store = store.upgrade();
            async move {
                let Some(store) = store.filter(|store| !store.stopping().is_cancelled()) else { return };
                let looked = store.look_at(scope).await;
                store.manifests().looked(scope, looked.is_ok());
                if let Err(error) = looked
                    && !matches!(error, StorageError::Stopped)
                {
                    let (table, owner) = (scope.table.0, scope.owner.0);
                    tracing::warn!(%error, cause = ?error, table, owner, "a manifest could not be looked at");
                }
            }
        })
        .await;
}

/// Recovers scopes as they are wanted.
pub(crate) async fn recover_scopes(store: Weak<Store>, wanted: mpsc::UnboundedReceiver<Wanted>) {
    let wanted = futures::stream::unfold(wanted, |mut wanted| async { Some((wanted.recv().await?, wanted)) });
    wanted
        .for_each_concurrent(RECOVERIES_AT_ONCE, |Wanted { scope, reply }| {
            let store = store.upgrade();
            async move {
                let Some(store) = store.filter(|store| !store.stopping().is_cancelled()) else { return };
                // Readers go on with what is known; whoever asked may be gone.
                let _ = reply.send(store.find_out(scope).await);
                if let Err(error) = store.recover(scope).await
                    && !matches!(error, StorageError::Stopped)
                {
                    let (table, owner) = (scope.table.0, scope.owner.0);
                    tracing::warn!(%error, cause = ?error, table, owner, "recovered records could not be committed");
                }
            }
        })
        .await;
}

impl Store {
    /// Reads every file that queries of a scope read, and compares it with its checksum; [`StorageError::DamagedFile`] names
    /// the first that is another.
    pub async fn check_files(&self, scope: Scope) -> Result<()> {
        let lock = self.scope_lock(scope);
        let _no_removal_meanwhile = lock.lock().await;
        self.recover_locked(scope).await?;
        let view = self.snapshot().scope(scope)?;
        for record in view.files.iter() {
            let name = format!("{}-{}-{}-check", scope.table.0, scope.owner.0, record.batch_number);
            let read = self.objects().fetch(&record.file_path, &name, record.size_bytes, record.checksum).await;
            let path = record.file_path.rsplit('/').next().unwrap_or_default();
            match read {
                Ok(_) => {}
                Err(error) if is_gone(&error) => return Err(StorageError::DamagedFile(path.to_owned())),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks at a scope: wholly the first time, later only whether its manifest has changed.
    /// Gives the number of files that were removed.
    pub(crate) async fn look_at(&self, scope: Scope) -> Result<usize> {
        let lock = self.scope_lock(scope);
        let _no_flush_meanwhile = lock.lock().await;
        self.manifests().is_looked_at(scope);
        let snapshot = self.snapshot();
        let mut job = match ScopeFiles::new(snapshot, scope) {
            Err(StorageError::Conflict) => return Ok(0),
            job => job?,
        };
        if job.header.recovering {
            return Ok(0);
        }
        if job.header.is_unfinished() {
            let snapshot = Arc::clone(&job.snapshot);
            self.export(&snapshot, scope).await?;
            job = ScopeFiles::new(self.snapshot(), scope)?;
        }
        let records = job.snapshot.records(scope)?;
        // Before the first batch is committed there is none.
        if job.header.version > 0
            && let Err(fault) = self.check_manifest(&job, &records).await?
        {
            self.mend_manifest(&job, fault).await?;
        }
        if self.manifests().is_first_look(scope) {
            let checked = self.check_listing(&job, &records).await;
            return checked.inspect_err(|_| self.manifests().forget_look(scope));
        }
        Ok(0)
    }

    /// Whether the manifest is what the records say.
    async fn check_manifest(&self, job: &ScopeFiles, records: &[BatchRecord]) -> Result<Result<(), Fault>> {
        let entry = match self.manifests().refresh(&job.place).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(Err(Fault::Missing)),
            Err(StorageError::Manifest { fault, .. }) => return Ok(Err(*fault)),
            Err(error) => return Err(error),
        };
        let checked = entry.manifest().map(|manifest| manifest.check_records(job.header.version, records));
        match checked {
            Err(StorageError::Manifest { fault, .. }) => Ok(Err(*fault)),
            checked => checked,
        }
    }

    /// Writes the manifest again from the records.
    async fn mend_manifest(&self, job: &ScopeFiles, fault: Fault) -> Result<()> {
        let manifest = job.place.manifest_path();
        tracing::warn!(manifest, reason = %fault, "manifest_corruption_detected");
        if matches!(fault, Fault::Newer { .. }) {
            self.manifests().distrust(&job.place);
            let path = manifest;
            return Err(StorageError::Manifest { path, fault: Box::new(fault) });
        }
        tracing::info!(manifest, from = "records", "manifest_rebuild_started");
        let started = self.clock().monotonic();
        self.export(&job.snapshot, job.scope).await?;
        let milliseconds = milliseconds_since(self.clock().monotonic(), started);
        tracing::info!(manifest, milliseconds, "manifest_rebuild_completed");
        Ok(())
    }

    /// Whether every file is there; and what is there that nothing names: gives how many files of it were removed.
    async fn check_listing(&self, job: &ScopeFiles, records: &[BatchRecord]) -> Result<usize> {
        let listed = self.objects().list(&job.place.prefix).await?;
        for fault in check_files(records, &listed) {
            let manifest = job.place.manifest_path();
            tracing::warn!(manifest, reason = %fault, "manifest_corruption_detected");
            match records.iter().find(|record| is_of_vector(record, &fault)) {
                Some(record) => self.mend_vector(job, record).await?,
                None => {
                    tracing::error!(reason = %fault, "a batch file is lost: restore it, or its rows stay unreadable");
                    self.manifests().distrust(&job.place);
                }
            }
        }
        let grace_ns = i64::try_from(self.orphan_grace().as_nanos()).unwrap_or(i64::MAX);
        let wrote = |epoch: Option<u64>| self.objects().wrote(epoch.unwrap_or_default());
        let mut removed = 0;
        for (path, found) in orphans(records, &listed, job.header.spared, wrote) {
            if self.pending_paths().contains(path) {
                continue;
            }
            let age_ns = self.clock().now_ns().saturating_sub(found.modified_ns);
            let grace_ns = grace_of(path, grace_ns);
            if grace_ns > 0 && age_ns < grace_ns {
                self.clean_up_at(job.scope, found.modified_ns.saturating_add(grace_ns));
                continue;
            }
            self.objects().remove(path).await?;
            removed += 1;
            tracing::info!(file = path, "removed: left by a flush or compaction that did not end");
        }
        Ok(removed)
    }

    /// Writes a delete vector again as the delete log has it.
    async fn mend_vector(&self, job: &ScopeFiles, record: &BatchRecord) -> Result<()> {
        let Some(deletes) = &record.deletes else { return Ok(()) };
        let mut positions = RoaringBitmap::new();
        job.snapshot.visit_delete_log(job.scope, CommitTs::stored(i64::MIN), |key, rows| {
            if decode_delete_log_key(key).is_some_and(|(_, file)| file == record.batch_number) {
                let settled = rows()?.into_iter().filter(|row| row.superseded_by <= deletes.as_of);
                positions.extend(settled.map(|row| row.position));
            }
            Ok(())
        })?;
        self.objects().remove(&deletes.path).await?;
        self.objects().put(&deletes.path, delete_vector::encode(&positions).into(), None).await?;
        tracing::info!(file = deletes.path, "written again from the delete log");
        Ok(())
    }
}

fn is_gone(error: &StorageError) -> bool {
    match error {
        StorageError::ObjectStore(object_store::Error::NotFound { .. }) => true,
        StorageError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn is_of_vector(record: &BatchRecord, fault: &Fault) -> bool {
    record.deletes.as_ref().is_some_and(|deletes| fault.is_of(&deletes.path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use crate::test_table::TestDir;

    #[tokio::test]
    async fn a_young_file_is_looked_for_again_when_its_time_is_over_and_not_before() {
        let mut dir = TestDir::new();
        dir.config.orphan_grace_seconds = 60;
        let table = dir.table().await;
        table.insert(&[1]).await;
        table.flush().await.unwrap();
        let batch = dir.objects().join(&table.records()[0].file_path);
        let left = batch.with_file_name("batch-0099.parquet");
        fs::copy(&batch, &left).unwrap();
        let modified = fs::metadata(&left).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let over = i64::try_from((modified + Duration::from_secs(60)).as_nanos()).unwrap();

        let store = &table.store;
        store.clean_up_later(table.scope);
        assert_eq!(store.take_to_clean_up(), [table.scope]);
        assert_eq!(store.clean_up_files(table.scope).await.unwrap(), 0);
        assert!(left.exists());
        let wait = |ns: i64| Duration::from_nanos(u64::try_from(ns).unwrap());
        dir.clock.advance(wait(over - 1 - store.clock().now_ns()));
        assert_eq!(store.take_to_clean_up(), []);
        dir.clock.advance(wait(1));
        assert_eq!(store.take_to_clean_up(), [table.scope]);
        assert_eq!(store.clean_up_files(table.scope).await.unwrap(), 1);
        assert!(!left.exists() && batch.exists());
        assert_eq!(store.take_to_clean_up(), []);
    }
}
