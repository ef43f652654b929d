//! Doing a job, part by part: what is done of it stands, and to do it again does no harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use seracdb_storage::StorageError;
use seracdb_storage::catalog::{Catalog, TableKind, TableRecord};
use seracdb_storage::keys::{Owner, Scope};
use seracdb_storage::store::Store;
use seracdb_storage::system_columns::CommitTs;
use tokio_util::sync::CancellationToken;

use super::spec::{JobSpec, ManifestEvictionJob, TableJob, TablesJob};
use crate::error::{EngineError, ErrorKind, Result};

/// How far a job is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) rows: AtomicU64,
    pub(crate) files: AtomicU64,
    /// Parts of tables that are done, and those that there are.
    pub(crate) done: AtomicU64,
    pub(crate) all: AtomicU64,
}

impl Progress {
    fn begin(&self, parts: usize) {
        self.all.store(parts as u64, Ordering::Relaxed);
    }

    fn did(&self, rows: u64, files: usize) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.files.fetch_add(files as u64, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Why a job did not come to its end.
#[derive(Debug)]
pub(crate) enum Unfinished {
    /// Somebody does not want it any more, or the server stops.
    Stopped,
    /// It failed; `true`: it may succeed when it is tried again.
    Failed(String, bool),
}

impl From<EngineError> for Unfinished {
    fn from(error: EngineError) -> Self {
        let passes = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Internal | ErrorKind::Aborted);
        Self::Failed(error.message, passes)
    }
}

impl From<StorageError> for Unfinished {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Stopped => Self::Stopped,
            error => EngineError::from(error).into(),
        }
    }
}

/// One job at work.
pub(super) struct Work<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) progress: &'a Progress,
    pub(super) stop: &'a CancellationToken,
}

impl Work<'_> {
    /// Does it; gives what came of it, in words.
    pub(super) async fn run(&self, spec: &JobSpec) -> Result<String, Unfinished> {
        match spec {
            JobSpec::Flush(job) => self.flush(job).await,
            JobSpec::Compact(job) => self.compact(job).await,
            JobSpec::RebuildManifest(job) => self.rebuild_manifests(job).await,
            JobSpec::ManifestEviction(job) => self.evict(job).await,
            JobSpec::Cleanup(job) => self.clean_up(job).await,
            JobSpec::Retention(job) => self.retire(job).await,
            JobSpec::StreamExpiry(job) => self.expire(job).await,
        }
    }

    async fn flush(&self, job: &TableJob) -> Result<String, Unfinished> {
        let (table, owner) = self.table_of(job)?;
        if table.kind == TableKind::Stream {
            return Err(Unfinished::Failed("rows of a stream table are never flushed".to_owned(), false));
        }
        let hot = self.store.snapshot().hot_scopes()?;
        for scope in self.parts(hot.into_iter().filter(|scope| is_part(scope, &table, owner))) {
            let flushed = self.store.flush(scope?).await?;
            self.progress.did(flushed.rows, flushed.files);
        }
        Ok(self.summary("flushed"))
    }

    async fn compact(&self, job: &TableJob) -> Result<String, Unfinished> {
        let (table, owner) = self.table_of(job)?;
        for scope in self.parts(self.with_files(&table, owner)?.into_iter()) {
            let compacted = self.store.compact(scope?).await?;
            self.progress.did(compacted.rows, compacted.inputs);
        }
        Ok(self.summary("merged"))
    }

    async fn rebuild_manifests(&self, job: &TableJob) -> Result<String, Unfinished> {
        let (table, owner) = self.table_of(job)?;
        for scope in self.parts(self.with_files(&table, owner)?.into_iter()) {
            self.store.rebuild_manifest(scope?).await?;
            self.progress.did(0, 1);
        }
        Ok(self.summary("written again"))
    }

    async fn evict(&self, job: &ManifestEvictionJob) -> Result<String, Unfinished> {
        self.progress.begin(1);
        let (store, limits) = (Arc::clone(self.store), job.clone());
        let evicting =
            tokio::task::spawn_blocking(move || store.evict_manifests(limits.max_entries, limits.ttl_seconds));
        let evicted = evicting.await.map_err(|_| Unfinished::from(EngineError::panicked()))??;
        self.progress.did(0, evicted);
        Ok(format!("{evicted} entries evicted"))
    }

    async fn clean_up(&self, job: &TablesJob) -> Result<String, Unfinished> {
        for scope in self.parts(self.scopes_of(job)?.into_iter()) {
            self.store.clean_up_files(scope?).await?;
            self.progress.did(0, 0);
        }
        Ok(self.summary("cleaned up"))
    }

    async fn retire(&self, job: &TablesJob) -> Result<String, Unfinished> {
        if job.namespace.is_none() {
            let store = Arc::clone(self.store);
            let forgetting = tokio::task::spawn_blocking(move || store.forget_old());
            forgetting.await.map_err(|_| Unfinished::from(EngineError::panicked()))??;
        }
        for scope in self.parts(self.scopes_of(job)?.into_iter()) {
            self.store.retire_files(scope?).await?;
            self.progress.did(0, 0);
        }
        Ok(self.summary("brought within the retention"))
    }

    async fn expire(&self, job: &TablesJob) -> Result<String, Unfinished> {
        let (snapshot, now_ns) = (self.store.snapshot(), self.store.clock().now_ns());
        let hot = snapshot.hot_scopes()?;
        let due = hot.into_iter().filter_map(|scope| {
            let table = snapshot.catalog().table_by_id(scope.table).filter(|table| is_meant(table, job))?;
            Some((scope, CommitTs::stored(now_ns.saturating_sub(table.ttl_ns?))))
        });
        for part in self.parts(due) {
            let ((scope, oldest), store) = (part?, Arc::clone(self.store));
            let removing = tokio::task::spawn_blocking(move || store.remove_hot_before(scope, oldest));
            let removed = removing.await.map_err(|_| Unfinished::from(EngineError::panicked()))??;
            self.progress.did(removed, 0);
        }
        Ok(self.summary("expired"))
    }

    /// The parts that there are to do, each unless the job is to stop before.
    fn parts<T>(&self, parts: impl Iterator<Item = T>) -> impl Iterator<Item = Result<T, Unfinished>> {
        let parts: Vec<T> = parts.collect();
        self.progress.begin(parts.len());
        parts.into_iter().map(|part| if self.stop.is_cancelled() { Err(Unfinished::Stopped) } else { Ok(part) })
    }

    /// The table of a job, and whose part of it.
    fn table_of(&self, job: &TableJob) -> Result<(Arc<TableRecord>, Option<Owner>), Unfinished> {
        let snapshot = self.store.snapshot();
        let (catalog, name) = (snapshot.catalog(), format!("{}.{}", job.namespace, job.table));
        let unknown = |what: String| Unfinished::Failed(what, false);
        let table =
            catalog.table(&job.namespace, &job.table).ok_or_else(|| unknown(format!("unknown table '{name}'")))?;
        let owner = job.user_id.as_deref().map(|user| owner_of(catalog, table, user)).transpose().map_err(unknown)?;
        Ok((Arc::clone(table), owner))
    }

    fn with_files(&self, table: &TableRecord, owner: Option<Owner>) -> Result<Vec<Scope>, Unfinished> {
        let scopes = self.store.snapshot().scopes_with_files(table.id)?;
        Ok(scopes.into_iter().filter(|scope| is_part(scope, table, owner)).collect())
    }

    /// The scopes with files of these tables.
    fn scopes_of(&self, job: &TablesJob) -> Result<Vec<Scope>, Unfinished> {
        let snapshot = self.store.snapshot();
        let mut scopes = Vec::new();
        for table in snapshot.catalog().tables().filter(|table| is_meant(table, job)) {
            scopes.extend(snapshot.scopes_with_files(table.id)?);
        }
        Ok(scopes)
    }

    fn summary(&self, what: &str) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Progress { rows, files, done, .. } = self.progress;
        format!("{} parts of tables {what}: {} rows, {} files", of(done), of(rows), of(files))
    }
}

fn owner_of(catalog: &Catalog, table: &TableRecord, user: &str) -> Result<Owner, String> {
    match (table.kind, catalog.user(user)) {
        (TableKind::Shared, _) => Err("'user_id' is for tables that keep each user's rows apart".to_owned()),
        (_, Some(user)) => Ok(Owner(user.number)),
        (_, None) => Err(format!("unknown user '{user}'")),
    }
}

fn is_part(scope: &Scope, table: &TableRecord, owner: Option<Owner>) -> bool {
    scope.table == table.id && owner.is_none_or(|owner| scope.owner == owner)
}

fn is_meant(table: &TableRecord, job: &TablesJob) -> bool {
    job.namespace.as_ref().is_none_or(|namespace| *namespace == table.namespace)
        && job.table.as_ref().is_none_or(|name| *name == table.name)
}
