//! Looks at the storage now and then, and asks for the jobs that the policy wants.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use seracdb_storage::catalog::{Catalog, TableKind, TableRecord};
use seracdb_storage::keys::{Scope, TableId};
use seracdb_storage::store::Store;

use super::policy::{HotPart, LastAsked, Policy, Seen};
use super::runner::Jobs;
use super::spec::{JobSpec, TableJob};
use crate::error::Result;
use crate::table_options::{flush_interval, flush_rows};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks at all hot rows also when there are no new ones, every so many times: some get old.
const ALL_EVERY: u32 = 10;

/// How long it looks for files worth merging at once, of what it has to look at.
const FILES_FOR: Duration = Duration::from_millis(50);

/// What it remembers between looks.
pub(super) struct Automatic {
    store: Arc<Store>,
    policy: Policy,
    last: LastAsked,
    /// The count of changes of hot rows that it has seen.
    changes: Option<u64>,
    looks: u32,
    /// Scopes whose files it has not looked at since they have changed.
    files: BTreeSet<Scope>,
    /// Scopes whose files it has asked to be merged.
    merged: HashMap<JobSpec, Scope>,
}

impl Automatic {
    pub(super) fn new(store: Arc<Store>, policy: Policy) -> Self {
        let last = LastAsked::at(store.clock().now_ns(), &policy.every);
        Self { store, policy, last, changes: None, looks: 0, files: BTreeSet::new(), merged: HashMap::new() }
    }

    /// Counts what was there before the start, then decides until the jobs are to stop.
    pub(super) async fn run(mut self, jobs: Arc<Jobs>) {
        let before = self.store.snapshot();
        let (store, compact) = (Arc::clone(&self.store), self.policy.compact);
        let counting = tokio::task::spawn_blocking(move || {
            store.count_hot(&before, |table| flush_rows(table).is_some())?;
            if compact { before.scopes_with_any_files() } else { Ok(vec![]) }
        });
        match counting.await {
            Ok(Ok(scopes)) => self.files.extend(scopes),
            Ok(Err(error)) => tracing::error!(%error, "hot rows from before the start are not counted"),
            Err(error) => tracing::error!(%error, "hot rows from before the start are not counted"),
        }
        while jobs.goes_on_after(LOOK_EVERY).await {
            let jobs = Arc::clone(&jobs);
            let looking = tokio::task::spawn_blocking(move || {
                let seen = self.look(jobs.busy(), &jobs.resting());
                if let Err(error) = self.ask(&jobs, &seen) {
                    tracing::warn!(%error, "jobs could not be asked for");
                }
                self
            });
            let Ok(itself) = looking.await else {
                tracing::error!("nothing is flushed and merged by itself any more: it ended with a panic");
                return;
            };
            self = itself;
        }
    }

    fn ask(&mut self, jobs: &Jobs, seen: &Seen) -> Result<()> {
        let now = self.store.clock().now_ns();
        for job in self.policy.next_jobs(seen, now) {
            self.last = self.last.with(&job, now);
            jobs.ask(job, None)?;
        }
        Ok(())
    }

    /// `busy`: what waits or runs; `resting`: what has failed, and is left alone for a while.
    fn look(&mut self, busy: HashSet<JobSpec>, resting: &HashSet<JobSpec>) -> Seen {
        let snapshot = self.store.snapshot();
        let catalog = snapshot.catalog();
        let worn = self.worn(&busy, resting, |scope| job_of(catalog, scope));
        let to_clean_up = self.to_clean_up(&busy, |scope| job_of(catalog, scope));
        let streams = catalog.tables().any(|table| table.kind == TableKind::Stream);
        Seen { hot: self.hot(catalog), worn, to_clean_up, streams, last: self.last, busy }
    }

    /// The parts that are to be cleaned up now. One that is being cleaned up is so once more: what it is for came later.
    fn to_clean_up(&self, busy: &HashSet<JobSpec>, job: impl Fn(Scope) -> Option<TableJob>) -> Vec<TableJob> {
        let due = self.store.take_to_clean_up().into_iter().filter_map(|scope| Some((scope, job(scope)?)));
        let (later, now): (Vec<_>, Vec<_>) =
            due.partition(|(_, job)| busy.contains(&JobSpec::Cleanup(job.clone().into())));
        later.into_iter().for_each(|(scope, _)| self.store.clean_up_later(scope));
        now.into_iter().map(|(_, job)| job).collect()
    }

    /// What is hot, unless it is what it was.
    fn hot(&mut self, catalog: &Catalog) -> Vec<HotPart> {
        let changes = self.store.hot_changes();
        self.looks = (self.looks + 1) % ALL_EVERY;
        if self.changes.replace(changes) == Some(changes) && self.looks != 0 {
            return vec![];
        }
        let mut options: HashMap<TableId, (Option<u64>, Option<Duration>)> = HashMap::new();
        let part = |(scope, hot): (Scope, _)| {
            let table = catalog.table_by_id(scope.table)?;
            let (rows_max, interval) =
                *options.entry(scope.table).or_insert_with(|| (flush_rows(table), flush_interval(table)));
            Some(HotPart { job: job_of(catalog, scope)?, hot, rows_max, interval })
        };
        self.store.hot().into_iter().filter_map(part).collect()
    }

    /// Of the parts whose files have changed those that are worth merging, as far as there is time.
    fn worn(
        &mut self,
        busy: &HashSet<JobSpec>,
        resting: &HashSet<JobSpec>,
        job: impl Fn(Scope) -> Option<TableJob>,
    ) -> Vec<TableJob> {
        let changed = self.store.take_changed_files();
        if !self.policy.compact {
            return vec![];
        }
        self.files.extend(changed);
        // What failed is as worn as before.
        let ended: Vec<(JobSpec, Scope)> = self.merged.extract_if(|job, _| !busy.contains(job)).collect();
        self.files.extend(ended.into_iter().filter(|(job, _)| resting.contains(job)).map(|(_, scope)| scope));
        let (clock, mut worn, mut later) = (Arc::clone(self.store.clock()), Vec::new(), Vec::new());
        let until = clock.monotonic() + FILES_FOR;
        while clock.monotonic() < until
            && let Some(scope) = self.files.pop_first()
        {
            let Some(job) = job(scope) else { continue };
            let merge = JobSpec::Compact(job.clone());
            if busy.contains(&JobSpec::Flush(job.clone())) || busy.contains(&merge) || resting.contains(&merge) {
                later.push(scope);
                continue;
            }
            match self.store.is_worth_compacting(scope) {
                Ok(true) => {
                    self.merged.insert(merge, scope);
                    worn.push(job);
                }
                Ok(false) => {}
                Err(error) => {
                    let (table, owner) = (scope.table.0, scope.owner.0);
                    tracing::warn!(%error, table, owner, "whether files are worth merging could not be found out");
                }
            }
        }
        self.files.extend(later);
        worn
    }
}

/// A scope by the names that it has now; `None` when its table is gone.
fn job_of(catalog: &Catalog, scope: Scope) -> Option<TableJob> {
    let table: &TableRecord = catalog.table_by_id(scope.table)?;
    let user_id = match table.kind {
        TableKind::Shared => None,
        TableKind::User | TableKind::Stream => Some(catalog.user_by_number(scope.owner.0)?.name.clone()),
    };
    Some(TableJob { namespace: table.namespace.clone(), table: table.name.clone(), user_id })
}
