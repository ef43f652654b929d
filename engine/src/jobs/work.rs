//! Doing a job, part by part: what is done of it stands, and to do it again does no harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use seracdb_storage::catalog::{Catalog, TableKind, TableRecord};
use seracdb_storage::keys::{Owner, Scope};
use seracdb_storage::spans::in_this_span;
use seracdb_storage::store::Store;
use seracdb_storage::{Progress, StorageError};

use super::spec::{JobSpec, ManifestEvictionJob, TableJob, TablesJob};
use crate::error::{EngineError, ErrorKind, Result};

/// Why a job did not come to its end.
#[derive(Debug)]
pub(crate) enum Unfinished {
    /// Somebody does not want it any more, or the server stops.
    Stopped,
    /// What it is for is not there.
    Unknown(String),
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
    pub(super) progress: &'a Arc<Progress>,
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
        for scope in self.parts(self.with_hot_rows(&table, owner)?.into_iter()) {
            match self.store.flush_with(scope?, self.progress).await {
                // Dropped in between: there is nothing left to flush.
                Ok(_) | Err(StorageError::Conflict) => self.did(0),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.summary("flushed"))
    }

    async fn compact(&self, job: &TableJob) -> Result<String, Unfinished> {
        let (table, owner) = self.table_of(job)?;
        for scope in self.parts(self.with_files(&table, owner)?.into_iter()) {
            match self.store.compact_with(scope?, self.progress).await {
                Ok(_) | Err(StorageError::Conflict) => self.did(0),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.summary("merged"))
    }

    async fn rebuild_manifests(&self, job: &TableJob) -> Result<String, Unfinished> {
        let (table, owner) = self.table_of(job)?;
        for scope in self.parts(self.with_files(&table, owner)?.into_iter()) {
            self.store.rebuild_manifest(scope?).await?;
            self.did(1);
        }
        Ok(self.summary("written again"))
    }

    async fn evict(&self, job: &ManifestEvictionJob) -> Result<String, Unfinished> {
        self.progress.all.store(1, Ordering::Relaxed);
        let (store, limits) = (Arc::clone(self.store), job.clone());
        let evicting = tokio::task::spawn_blocking(in_this_span(move || {
            store.evict_manifests(limits.max_entries, limits.ttl_seconds)
        }));
        let evicted = evicting.await.map_err(|_| Unfinished::from(EngineError::panicked()))??;
        self.did(evicted);
        Ok(format!("{evicted} entries evicted"))
    }

    async fn clean_up(&self, job: &TablesJob) -> Result<String, Unfinished> {
        for scope in self.parts(self.scopes_of(job)?.into_iter()) {
            self.did(self.store.clean_up_files(scope?).await?);
        }
        Ok(self.summary("cleaned up"))
    }

    async fn retire(&self, job: &TablesJob) -> Result<String, Unfinished> {
        if job.namespace.is_none() {
            let store = Arc::clone(self.store);
            let forgetting = tokio::task::spawn_blocking(in_this_span(move || store.forget_old()));
            forgetting.await.map_err(|_| Unfinished::from(EngineError::panicked()))??;
        }
        for scope in self.parts(self.to_retire(job)?.into_iter()) {
            match self.store.retire_files(scope?).await {
                Ok(files) => self.did(files),
                Err(StorageError::Conflict) => self.did(0),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.summary("brought within the retention"))
    }

    async fn expire(&self, job: &TablesJob) -> Result<String, Unfinished> {
        let (snapshot, now_ns) = (self.store.snapshot(), self.store.clock().now_ns());
        let hot = snapshot.hot_scopes()?;
        let due = hot.into_iter().filter_map(|scope| {
            let table = snapshot.catalog().table_by_id(scope.table)?;
            is_meant(snapshot.catalog(), &scope, job).then_some((scope, now_ns.saturating_sub(table.ttl_ns?)))
        });
        for part in self.parts(due) {
            let (scope, oldest_ns) = part?;
            let removed = self.store.remove_hot_before(scope, oldest_ns).await?;
            self.progress.rows.fetch_add(removed, Ordering::Relaxed);
            self.did(0);
        }
        Ok(self.summary("expired"))
    }

    /// The parts that there are to do, each unless the job is to stop before.
    fn parts<T>(&self, parts: impl Iterator<Item = T>) -> impl Iterator<Item = Result<T, Unfinished>> {
        let parts: Vec<T> = parts.collect();
        self.progress.all.store(parts.len() as u64, Ordering::Relaxed);
        parts.into_iter().map(|part| if self.progress.is_stopped() { Err(Unfinished::Stopped) } else { Ok(part) })
    }

    /// The table of a job, and whose part of it.
    fn table_of(&self, job: &TableJob) -> Result<(Arc<TableRecord>, Option<Owner>), Unfinished> {
        let snapshot = self.store.snapshot();
        let (catalog, name) = (snapshot.catalog(), format!("{}.{}", job.namespace, job.table));
        let table = catalog.table(&job.namespace, &job.table);
        let table = table.ok_or_else(|| Unfinished::Unknown(format!("unknown table '{name}'")))?;
        let owner = job.user_id.as_deref().map(|user| owner_of(catalog, table, user)).transpose()?;
        Ok((Arc::clone(table), owner))
    }

    fn did(&self, files: usize) {
        self.progress.files.fetch_add(files as u64, Ordering::Relaxed);
        self.progress.part_done();
    }

    fn with_hot_rows(&self, table: &TableRecord, owner: Option<Owner>) -> Result<Vec<Scope>, Unfinished> {
        match (table.kind, owner) {
            (TableKind::Shared, _) => Ok(vec![Scope::shared(table.id)]),
            (_, Some(owner)) => Ok(vec![Scope { table: table.id, owner }]),
            (_, None) => {
                let hot = self.store.snapshot().hot_scopes()?;
                Ok(hot.into_iter().filter(|scope| scope.table == table.id).collect())
            }
        }
    }

    fn with_files(&self, table: &TableRecord, owner: Option<Owner>) -> Result<Vec<Scope>, Unfinished> {
        let scopes = self.store.snapshot().scopes_with_files(table.id)?;
        Ok(scopes.into_iter().filter(|scope| is_part(scope, table, owner)).collect())
    }

    /// The scopes with files of these tables.
    fn scopes_of(&self, job: &TablesJob) -> Result<Vec<Scope>, Unfinished> {
        let snapshot = self.store.snapshot();
        let mut scopes = Vec::new();
        for table in snapshot.catalog().tables() {
            let with_files = snapshot.scopes_with_files(table.id)?;
            scopes.extend(with_files.into_iter().filter(|scope| is_meant(snapshot.catalog(), scope, job)));
        }
        Ok(scopes)
    }

    fn to_retire(&self, job: &TablesJob) -> Result<Vec<Scope>, Unfinished> {
        let scopes = self.store.scopes_to_retire()?;
        let snapshot = self.store.snapshot();
        Ok(scopes.into_iter().filter(|scope| is_meant(snapshot.catalog(), scope, job)).collect())
    }

    fn summary(&self, what: &str) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Progress { rows, files, done, .. } = &**self.progress;
        format!("{} parts of tables {what}: {} rows, {} files", of(done), of(rows), of(files))
    }
}

fn owner_of(catalog: &Catalog, table: &TableRecord, user: &str) -> Result<Owner, Unfinished> {
    match (table.kind, catalog.user(user)) {
        (TableKind::Shared, _) => {
            Err(Unfinished::Failed("'user_id' is for tables that keep each user's rows apart".to_owned(), false))
        }
        (_, Some(user)) => Ok(Owner(user.number)),
        (_, None) => Err(Unfinished::Unknown(format!("unknown user '{user}'"))),
    }
}

fn is_part(scope: &Scope, table: &TableRecord, owner: Option<Owner>) -> bool {
    scope.table == table.id && owner.is_none_or(|owner| scope.owner == owner)
}

fn is_meant(catalog: &Catalog, scope: &Scope, job: &TablesJob) -> bool {
    let Some(table) = catalog.table_by_id(scope.table) else { return false };
    job.namespace.as_ref().is_none_or(|namespace| *namespace == table.namespace)
        && job.table.as_ref().is_none_or(|name| *name == table.name)
        && job.user_id.as_ref().is_none_or(|user| catalog.user(user).is_some_and(|user| scope.owner.0 == user.number))
}
