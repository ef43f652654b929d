//! Runs what the queue starts, and keeps the record of each job in the storage.
//!
//! Invariants:
//! 1. Whoever asks for a job is told of it when its record is durable.
//! 2. A record changes with each step, so that a restart goes on with what was known. How far a job is while it runs is in memory
//!    only.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use seracdb_storage::store::{StorageConfig, Store};
use seracdb_storage::{Progress, Throttle};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::automatic::Automatic;
use super::policy::{Intervals, Policy};
use super::queue::{Asked, Job, JobId, JobState, Queue};
use super::spec::{JobSpec, ManifestEvictionJob};
use super::work::{Unfinished, Work};
use crate::error::{EngineError, Result};

/// Settings of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Jobs that run at the same time. Further ones wait.
    #[schemars(range(min = 1))]
    pub running_max: usize,
    /// Jobs that have ended and are still shown.
    pub history_max: usize,
    /// Bytes that flushes and compactions read and write in a second, all together, so that queries keep their share of
    /// the disk. 0: as fast as they can.
    pub bytes_per_second_max: u64,
    /// Seconds between looks for superseded files, and entries of logs, whose time is over. 0: none.
    pub retention_interval_seconds: u64,
    /// Seconds between looks for files that nothing names; the first is an hour after the start, if not before. 0: none but where
    /// something went wrong.
    pub cleanup_interval_seconds: u64,
    /// Seconds between removals of rows of stream tables whose time is over. 0: none.
    pub stream_expiry_interval_seconds: u64,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            running_max: 2,
            history_max: 1000,
            bytes_per_second_max: 0,
            retention_interval_seconds: 300,
            cleanup_interval_seconds: 24 * 3600,
            stream_expiry_interval_seconds: 60,
        }
    }
}

/// All jobs.
pub(crate) struct Jobs {
    store: Arc<Store>,
    throttle: Option<Arc<Throttle>>,
    node: String,
    queue: Mutex<Queue>,
    running: Mutex<HashMap<JobId, Running>>,
    /// There may be something to start.
    wake: Notify,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Clone)]
struct Running {
    progress: Arc<Progress>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("running", &self.running.lock().len()).finish_non_exhaustive()
    }
}

/// A job as it is stored.
#[derive(Serialize, Deserialize)]
struct Record {
    job_type: String,
    params: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    state: JobState,
    attempts: u32,
    created_ns: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished_ns: Option<i64>,
    not_before_ns: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_unwanted: bool,
}

impl Jobs {
    /// Goes on with the jobs that the storage knows, and runs jobs until [`Jobs::stop`]: those that are asked for, and those
    /// that the settings want.
    pub(crate) fn open(store: Arc<Store>, config: &JobsConfig, storage: &StorageConfig) -> Result<Arc<Self>> {
        let records = store.jobs()?;
        let known = records.iter().filter_map(|(id, record)| decode(*id, record)).collect();
        let last = records.iter().map(|(id, _)| *id).max().unwrap_or(0);
        let now_ns = store.clock().now_ns();
        let (queue, changed) = Queue::resume(known, last, now_ns, config.running_max, config.history_max);
        for job in &changed {
            store.put_job(job.id, &encode(job), false)?;
        }
        let (queue, running) = (Mutex::new(queue), Mutex::default());
        let (wake, stopping, tasks) = (Notify::new(), CancellationToken::new(), TaskTracker::new());
        let throttle = Throttle::new(Arc::clone(store.clock()), config.bytes_per_second_max);
        let automatic = Automatic::new(Arc::clone(&store), policy(config, storage));
        let node = storage.node_id.clone();
        let jobs = Arc::new(Self { store, throttle, node, queue, running, wake, stopping, tasks });
        jobs.tasks.spawn(Arc::clone(&jobs).run());
        jobs.tasks.spawn(automatic.run(Arc::clone(&jobs)));
        Ok(jobs)
    }

    /// Queues a job; gives its number, which is that of the same job if it is waiting already.
    pub(crate) fn ask(&self, spec: JobSpec, asked_by: Option<&str>) -> Result<JobId> {
        let durable = asked_by.is_some();
        let mut queue = self.queue.lock();
        let job = match queue.ask(spec, asked_by.map(str::to_owned), self.now_ns()) {
            // Its record is there, but perhaps not durable, nor with who has asked.
            Asked::Waiting(job) if !durable => return Ok(job.id),
            Asked::Waiting(job) | Asked::New(job) => job,
        };
        self.store.put_job(job.id, &encode(&job), durable)?;
        drop(queue);
        self.wake.notify_one();
        Ok(job.id)
    }

    /// Ends a job that waits, and stops one that runs at its next step. One that has ended stays as it is.
    pub(crate) fn cancel(&self, id: JobId) -> Result<()> {
        let cancelled = self.queue.lock().cancel(id, self.now_ns());
        let job = cancelled.ok_or_else(|| EngineError::not_found(format!("unknown job '{id}': see system.jobs")))?;
        match job.state {
            JobState::Cancelled => self.store.put_job(id, &encode(&job), true)?,
            JobState::Running => {
                self.store.put_job(id, &encode(&job), true)?;
                if let Some(running) = self.running.lock().get(&id) {
                    running.stop.cancel();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// How what is no job, but flushes and merges, keeps to the rate of those that are.
    pub(crate) fn progress_of_statement(&self) -> Arc<Progress> {
        Arc::new(Progress::new(CancellationToken::new(), self.throttle.clone()))
    }

    /// The node that jobs are begun on.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// All jobs, each with how far it is if it runs.
    pub(crate) fn list(&self) -> Vec<(Job, Option<Arc<Progress>>)> {
        let running = self.running.lock().clone();
        let progress = |job: &Job| running.get(&job.id).map(|running| Arc::clone(&running.progress));
        self.queue.lock().list().map(|job| (job.clone(), progress(job))).collect()
    }

    /// What waits or runs.
    pub(super) fn busy(&self) -> HashSet<JobSpec> {
        self.queue.lock().busy()
    }

    /// What has failed, and is not to be asked for again yet.
    pub(super) fn resting(&self) -> HashSet<JobSpec> {
        self.queue.lock().resting(self.now_ns())
    }

    /// Waits; false when the jobs are to stop.
    pub(super) async fn goes_on_after(&self, wait: Duration) -> bool {
        self.stopping.run_until_cancelled(self.store.clock().sleep(wait)).await.is_some()
    }

    async fn run(self: Arc<Self>) {
        while !self.stopping.is_cancelled() {
            while let Some(job) = self.start_next() {
                let span = tracing::info_span!("job", id = job.id, job_type = job.spec.name());
                self.tasks.spawn(Arc::clone(&self).run_one(job).instrument(span));
            }
            let now = self.now_ns();
            let next = self.queue.lock().next_time(now);
            let wait =
                next.map_or(Duration::from_secs(3600), |at| Duration::from_nanos(at.saturating_sub(now).max(0) as u64));
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.store.clock().sleep(wait) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }

    /// Starts nothing more, and has what runs end at its next step: it is run again after the next start.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
    }

    /// Waits until nothing runs any more.
    pub(crate) async fn ended(&self) {
        self.tasks.wait().await;
    }

    fn start_next(&self) -> Option<Job> {
        // Until all is in its place: who cancels a job that runs must find what stops it, and write its record after this one.
        let mut queue = self.queue.lock();
        let job = queue.start_next(self.now_ns(), &self.node)?;
        let stop = self.stopping.child_token();
        let progress = Arc::new(Progress::new(stop.clone(), self.throttle.clone()));
        self.running.lock().insert(job.id, Running { progress, stop });
        self.keep(&job);
        Some(job)
    }

    async fn run_one(self: Arc<Self>, job: Job) {
        let Some(Running { progress, .. }) = self.running.lock().get(&job.id).cloned() else { return };
        let work = Work { store: &self.store, progress: &progress };
        let done = AssertUnwindSafe(work.run(&job.spec)).catch_unwind().await;
        let done = done.unwrap_or_else(|_| Err(EngineError::panicked().into()));
        let idle = progress.rows.load(Ordering::Relaxed) + progress.files.load(Ordering::Relaxed) == 0;
        let ended = {
            let (mut queue, now) = (self.queue.lock(), self.now_ns());
            match done {
                // After the next start it goes on.
                Err(Unfinished::Stopped) if self.stopping.is_cancelled() => {
                    let job = queue.interrupted(job.id).or_else(|| queue.stopped(job.id, now));
                    job.map(|job| (job, vec![]))
                }
                Err(Unfinished::Stopped) => queue.stopped(job.id, now).map(|job| (job, vec![])),
                // Nobody is to be told that there is nothing left to do.
                Err(Unfinished::Unknown(what)) if job.asked_by.is_none() => queue.ended(job.id, Ok(what), true, now),
                Err(Unfinished::Unknown(what)) => queue.ended(job.id, Err((what, false)), idle, now),
                Err(Unfinished::Failed(why, passes)) => queue.ended(job.id, Err((why, passes)), idle, now),
                Ok(message) => queue.ended(job.id, Ok(message), idle, now),
            }
        };
        self.running.lock().remove(&job.id);
        if let Some((job, forgotten)) = ended {
            self.keep(&job);
            if let Err(error) = self.store.remove_jobs(&forgotten) {
                tracing::warn!(%error, "records of old jobs could not be removed");
            }
        }
        self.wake.notify_one();
    }

    /// Writes a job's record. One that is lost shows an earlier step after a restart, from which the job is run again.
    fn keep(&self, job: &Job) {
        let (state, message) = (job.state.name(), job.message.as_deref().unwrap_or_default());
        match job.state {
            JobState::Failed | JobState::Retrying => {
                tracing::warn!(
                    job = job.id,
                    job_type = job.spec.name(),
                    state,
                    attempts = job.attempts,
                    "job: {message}"
                );
            }
            // What the server does by itself all the time is said by what does it.
            _ if job.asked_by.is_none() => {
                tracing::debug!(job = job.id, job_type = job.spec.name(), state, "job {message}");
            }
            _ => tracing::info!(job = job.id, job_type = job.spec.name(), state, "job {message}"),
        }
        if let Err(error) = self.store.put_job(job.id, &encode(job), false) {
            tracing::warn!(%error, job = job.id, "the record of a job could not be written");
        }
    }

    fn now_ns(&self) -> i64 {
        self.store.clock().now_ns()
    }
}

/// What the settings want to be done by itself.
fn policy(config: &JobsConfig, storage: &StorageConfig) -> Policy {
    let manifests = &storage.manifest_cache;
    Policy {
        flush: storage.flush.clone(),
        compact: storage.compaction.automatic,
        eviction: ManifestEvictionJob {
            max_entries: (manifests.max_entries as u64).max(1),
            ttl_seconds: manifests.last_accessed_memory_window.max(1),
        },
        every: Intervals {
            eviction: Duration::from_secs(manifests.eviction_interval_seconds.max(1)),
            retention: Duration::from_secs(config.retention_interval_seconds),
            cleanup: Duration::from_secs(config.cleanup_interval_seconds),
            stream_expiry: Duration::from_secs(config.stream_expiry_interval_seconds),
        },
    }
}

fn encode(job: &Job) -> Vec<u8> {
    let record = Record {
        job_type: job.spec.name().to_owned(),
        params: job.spec.params(),
        asked_by: job.asked_by.clone(),
        node: job.node.clone(),
        state: job.state,
        attempts: job.attempts,
        created_ns: job.created_ns,
        started_ns: job.started_ns,
        finished_ns: job.finished_ns,
        not_before_ns: job.not_before_ns,
        message: job.message.clone(),
        is_unwanted: job.is_unwanted,
    };
    serde_json::to_vec(&record).unwrap_or_default()
}

/// Whether the record of a job can be read; not whether this build knows its type.
pub(crate) fn check_record(json: &[u8]) -> Result<(), String> {
    serde_json::from_slice::<Record>(json).map(drop).map_err(|error| error.to_string())
}

/// `None` for a job that this build does not know: it is left as it is.
fn decode(id: JobId, json: &[u8]) -> Option<Job> {
    let record: Record = serde_json::from_slice(json).ok()?;
    let spec = JobSpec::parse(&record.job_type, &record.params);
    let spec = spec.inspect_err(|error| tracing::warn!(job = id, "a job is left alone: {}", error.message)).ok()?;
    let Record { asked_by, node, state, attempts, created_ns, started_ns, finished_ns, .. } = record;
    let Record { not_before_ns, message, is_unwanted, .. } = record;
    Some(Job {
        id,
        spec,
        asked_by,
        node,
        state,
        attempts,
        created_ns,
        started_ns,
        finished_ns,
        not_before_ns,
        message,
        is_unwanted,
    })
}
