//! Which job runs when: decided here, from plain data and the time.
//!
//! Invariants:
//! 1. Of two jobs that touch the same part of a table one runs at a time; what is for all tables runs alone among its kind.
//! 2. No more than so many run at once, and the last place is for flushes: what makes room for writers waits for nothing else.
//! 3. A job that is waiting is there once: who asks for the same again is told of that one.
//! 4. What ran when the process ended is queued again: every job may be run again from its beginning. But one that was begun as often as
//!    a job is tried, and never ended, has failed: it may be what ends the process.
//! 5. What somebody does not want any more is not tried again, also by the next process.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::spec::{JobSpec, TableJob, TablesJob};

/// How often a job is tried.
const ATTEMPTS_MAX: u32 = 5;

/// The wait before the second try; each further one is twice as long.
const FIRST_WAIT_NS: i64 = 1_000_000_000;

/// The longest wait.
const WAIT_NS_MAX: i64 = 60_000_000_000;

/// What is said of a job that is run again after a start.
const INTERRUPTED: &str = "it ran when the server stopped, and is run again";

/// For how long the server does not ask again by itself for what has failed.
const REST_NS: i64 = 3_600_000_000_000;

/// Names a job; rises with time.
pub(crate) type JobId = u64;

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// It has not begun.
    Queued,
    /// It runs.
    Running,
    /// It has failed, and is tried again.
    Retrying,
    /// It is done.
    Completed,
    /// It has failed for good.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl JobState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    fn waits(self) -> bool {
        matches!(self, Self::Queued | Self::Retrying)
    }
}

/// A job, and what has become of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) spec: JobSpec,
    /// Who asked for it; nobody for what the server does by itself.
    pub(crate) asked_by: Option<String>,
    /// The node that has begun it last; none before.
    pub(crate) node: Option<String>,
    pub(crate) state: JobState,
    pub(crate) attempts: u32,
    pub(crate) created_ns: i64,
    pub(crate) started_ns: Option<i64>,
    pub(crate) finished_ns: Option<i64>,
    /// From when on it may run.
    pub(crate) not_before_ns: i64,
    /// What has come of it, or why it failed.
    pub(crate) message: Option<String>,
    /// Whether somebody has cancelled it while it ran.
    pub(crate) is_unwanted: bool,
}

/// All jobs that have not ended, and the last of those that have.
#[derive(Debug)]
pub(crate) struct Queue {
    jobs: BTreeMap<JobId, Job>,
    next: JobId,
    running_max: usize,
    history_max: usize,
}

/// What somebody who asks for a job is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    /// It is queued.
    New(Job),
    /// The same is waiting already. From now on it is of whoever asked, if it was nobody's.
    Waiting(Job),
}

impl Queue {
    /// Goes on with what is known of an earlier process; gives what has changed by that. `last`: the highest number that a job has
    /// had, 0 for none.
    pub(crate) fn resume(
        known: Vec<Job>,
        last: JobId,
        now_ns: i64,
        running_max: usize,
        history_max: usize,
    ) -> (Self, Vec<Job>) {
        let mut jobs: BTreeMap<JobId, Job> = known.into_iter().map(|job| (job.id, job)).collect();
        let mut changed = Vec::new();
        for job in jobs.values_mut().filter(|job| job.state == JobState::Running) {
            let (state, message) = match (job.is_unwanted, job.attempts >= ATTEMPTS_MAX) {
                (true, _) => (JobState::Cancelled, "it was cancelled, and ran when the server stopped"),
                (_, true) => (JobState::Failed, "it ran each time the server stopped, and may be why"),
                _ => (JobState::Queued, INTERRUPTED),
            };
            (job.state, job.message) = (state, Some(message.to_owned()));
            job.finished_ns = state.has_ended().then_some(now_ns);
            changed.push(job.clone());
        }
        (Self { jobs, next: last + 1, running_max: running_max.max(1), history_max }, changed)
    }

    /// Queues a job, unless the same is waiting.
    pub(crate) fn ask(&mut self, spec: JobSpec, asked_by: Option<String>, now_ns: i64) -> Asked {
        if let Some(waiting) = self.jobs.values_mut().find(|job| job.state.waits() && job.spec == spec) {
            waiting.asked_by = waiting.asked_by.take().or(asked_by);
            return Asked::Waiting(waiting.clone());
        }
        let job = Job {
            id: self.next,
            spec,
            asked_by,
            node: None,
            state: JobState::Queued,
            attempts: 0,
            created_ns: now_ns,
            started_ns: None,
            finished_ns: None,
            not_before_ns: now_ns,
            message: None,
            is_unwanted: false,
        };
        self.next += 1;
        self.jobs.insert(job.id, job.clone());
        Asked::New(job)
    }

    /// Starts the next job that may run now, on this node: those that somebody asked for first, then the oldest.
    pub(crate) fn start_next(&mut self, now_ns: i64, node: &str) -> Option<Job> {
        let running: Vec<&Job> = self.jobs.values().filter(|job| job.state == JobState::Running).collect();
        if running.len() >= self.running_max {
            return None;
        }
        let is_flush = |job: &Job| matches!(job.spec, JobSpec::Flush(_));
        let others = running.iter().filter(|job| !is_flush(job)).count();
        let is_last_place = self.running_max > 1 && others + 1 >= self.running_max;
        let may_run = |job: &&Job| {
            job.state.waits()
                && (is_flush(job) || !is_last_place)
                && job.not_before_ns <= now_ns
                && !running.iter().any(|other| touch_the_same(&job.spec, &other.spec))
        };
        let next = self.jobs.values().filter(may_run).min_by_key(|job| (job.asked_by.is_none(), job.id))?.id;
        let job = self.jobs.get_mut(&next)?;
        job.state = JobState::Running;
        job.attempts += 1;
        job.started_ns = Some(now_ns);
        job.node = Some(node.to_owned());
        Some(job.clone())
    }

    /// When the next job that waits for a time may run; `None` when none does.
    pub(crate) fn next_time(&self, now_ns: i64) -> Option<i64> {
        let waiting = self.jobs.values().filter(|job| job.state.waits() && job.not_before_ns > now_ns);
        waiting.map(|job| job.not_before_ns).min()
    }

    /// A job that ran has ended. `Err`: why it failed, and whether it may succeed when it is tried again. Gives what it is now,
    /// and jobs that are forgotten for it.
    ///
    /// `idle`: it has changed nothing. What nobody has asked for and has changed nothing is forgotten itself.
    pub(crate) fn ended(
        &mut self,
        id: JobId,
        result: Result<String, (String, bool)>,
        idle: bool,
        now_ns: i64,
    ) -> Option<(Job, Vec<JobId>)> {
        let job = self.jobs.get_mut(&id).filter(|job| job.state == JobState::Running)?;
        match result {
            Ok(message) => {
                job.state = JobState::Completed;
                job.message = Some(message);
            }
            Err((message, _)) if job.is_unwanted => {
                job.state = JobState::Cancelled;
                job.message = Some(message);
            }
            Err((message, true)) if job.attempts < ATTEMPTS_MAX => {
                job.state = JobState::Retrying;
                job.message = Some(message);
                let wait = FIRST_WAIT_NS.saturating_mul(1 << (job.attempts - 1)).min(WAIT_NS_MAX);
                job.not_before_ns = now_ns.saturating_add(wait);
            }
            Err((message, _)) => {
                job.state = JobState::Failed;
                job.message = Some(message);
            }
        }
        if job.state.has_ended() {
            job.finished_ns = Some(now_ns);
        }
        let job = job.clone();
        let mut forgotten = self.forget_oldest();
        if idle && job.asked_by.is_none() && job.state == JobState::Completed && self.jobs.remove(&id).is_some() {
            forgotten.push(id);
        }
        Some((job, forgotten))
    }

    /// Somebody does not want a job any more: one that waits ends here, one that runs is to be stopped and then says so with
    /// [`Queue::stopped`]. `None`: there is no such job.
    pub(crate) fn cancel(&mut self, id: JobId, now_ns: i64) -> Option<Job> {
        let job = self.jobs.get_mut(&id)?;
        if job.state.waits() {
            job.state = JobState::Cancelled;
            job.finished_ns = Some(now_ns);
        }
        job.is_unwanted |= job.state == JobState::Running;
        Some(job.clone())
    }

    /// A job that ran was stopped with the server: the next process runs it again, and this was no try.
    pub(crate) fn interrupted(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.get_mut(&id).filter(|job| job.state == JobState::Running && !job.is_unwanted)?;
        job.state = JobState::Queued;
        job.attempts = job.attempts.saturating_sub(1);
        job.message = Some(INTERRUPTED.to_owned());
        Some(job.clone())
    }

    /// A job that ran was stopped, because it was cancelled.
    pub(crate) fn stopped(&mut self, id: JobId, now_ns: i64) -> Option<Job> {
        let job = self.jobs.get_mut(&id).filter(|job| job.state == JobState::Running)?;
        job.state = JobState::Cancelled;
        job.finished_ns = Some(now_ns);
        Some(job.clone())
    }

    /// What waits or runs.
    pub(crate) fn busy(&self) -> HashSet<JobSpec> {
        let jobs = self.jobs.values().filter(|job| !job.state.has_ended());
        jobs.map(|job| job.spec.clone()).collect()
    }

    /// What the server has asked for by itself, and has failed not long ago.
    pub(crate) fn resting(&self, now_ns: i64) -> HashSet<JobSpec> {
        let is_recent = |job: &&Job| job.finished_ns.is_some_and(|at| now_ns.saturating_sub(at) < REST_NS);
        let failed = self.jobs.values().filter(|job| job.state == JobState::Failed && job.asked_by.is_none());
        failed.filter(is_recent).map(|job| job.spec.clone()).collect()
    }

    /// All jobs, the oldest first.
    pub(crate) fn list(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    fn forget_oldest(&mut self) -> Vec<JobId> {
        let ended: Vec<JobId> = self.jobs.values().filter(|job| job.state.has_ended()).map(|job| job.id).collect();
        let too_many = ended.len().saturating_sub(self.history_max);
        let forgotten = ended[..too_many].to_vec();
        for id in &forgotten {
            self.jobs.remove(id);
        }
        forgotten
    }
}

/// Whether two jobs must not run at the same time.
fn touch_the_same(a: &JobSpec, b: &JobSpec) -> bool {
    use JobSpec::{Cleanup, Compact, Flush, ManifestEviction, RebuildManifest, Retention, StreamExpiry};
    match (a, b) {
        (ManifestEviction(_), ManifestEviction(_)) => true,
        (ManifestEviction(_), _) | (_, ManifestEviction(_)) => false,
        (Flush(a) | Compact(a) | RebuildManifest(a), Flush(b) | Compact(b) | RebuildManifest(b)) => same_part(a, b),
        (Cleanup(all) | Retention(all) | StreamExpiry(all), Flush(one) | Compact(one) | RebuildManifest(one))
        | (Flush(one) | Compact(one) | RebuildManifest(one), Cleanup(all) | Retention(all) | StreamExpiry(all)) => {
            is_of(one, all) && all.table.is_some()
        }
        (Cleanup(_), Cleanup(_)) | (Retention(_), Retention(_)) | (StreamExpiry(_), StreamExpiry(_)) => true,
        (Cleanup(_) | Retention(_) | StreamExpiry(_), Cleanup(_) | Retention(_) | StreamExpiry(_)) => false,
    }
}

fn same_part(a: &TableJob, b: &TableJob) -> bool {
    let same_user = a.user_id.is_none() || b.user_id.is_none() || a.user_id == b.user_id;
    (&a.namespace, &a.table) == (&b.namespace, &b.table) && same_user
}

fn is_of(one: &TableJob, all: &TablesJob) -> bool {
    all.namespace.as_ref().is_none_or(|namespace| *namespace == one.namespace)
        && all.table.as_ref().is_none_or(|table| *table == one.table)
        && (all.user_id.is_none() || one.user_id.is_none() || all.user_id == one.user_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const NODE: &str = "node";

    fn flush(table: &str, user: Option<&str>) -> JobSpec {
        let user_id = user.map(str::to_owned);
        JobSpec::Flush(TableJob { namespace: "app".into(), table: table.into(), user_id })
    }

    fn compact(table: &str) -> JobSpec {
        JobSpec::Compact(TableJob { namespace: "app".into(), table: table.into(), user_id: None })
    }

    fn queue() -> Queue {
        Queue::resume(vec![], 0, 0, 2, 3).0
    }

    fn asked(queue: &mut Queue, spec: JobSpec, now: i64) -> JobId {
        match queue.ask(spec, None, now) {
            Asked::New(job) | Asked::Waiting(job) => job.id,
        }
    }

    fn started(queue: &mut Queue, now: i64) -> Option<JobId> {
        queue.start_next(now, NODE).map(|job| job.id)
    }

    #[test]
    fn one_at_a_time_on_a_part_and_no_more_than_so_many() {
        let mut queue = queue();
        let all: Vec<_> =
            [flush("t", None), compact("t"), flush("t", Some("u")), flush("other", None), flush("third", None)]
                .into_iter()
                .map(|spec| asked(&mut queue, spec, 0))
                .collect();
        assert_eq!(all, [1, 2, 3, 4, 5]);
        assert_eq!((started(&mut queue, 0), started(&mut queue, 0), started(&mut queue, 0)), (Some(1), Some(4), None));
        queue.ended(4, Ok("done".into()), false, 1);
        assert_eq!((started(&mut queue, 1), started(&mut queue, 1)), (Some(5), None));
        queue.ended(1, Ok("done".into()), false, 2);
        assert_eq!((started(&mut queue, 2), started(&mut queue, 2)), (Some(2), None));
    }

    #[test]
    fn the_last_place_is_for_a_flush() {
        let mut queue = queue();
        for table in ["a", "b"] {
            asked(&mut queue, compact(table), 0);
        }
        assert_eq!((started(&mut queue, 0), started(&mut queue, 0)), (Some(1), None));
        let flush = asked(&mut queue, flush("c", None), 0);
        assert_eq!(started(&mut queue, 0), Some(flush));
        // Who has one place only has it for all.
        let mut one = Queue::resume(vec![], 0, 0, 1, 3).0;
        asked(&mut one, compact("a"), 0);
        assert_eq!(started(&mut one, 0), Some(1));
    }

    #[test]
    fn parts_of_different_users_run_beside_each_other() {
        let mut queue = queue();
        asked(&mut queue, flush("t", Some("a")), 0);
        asked(&mut queue, flush("t", Some("b")), 0);
        assert_eq!((started(&mut queue, 0), started(&mut queue, 0)), (Some(1), Some(2)));
    }

    #[test]
    fn the_same_waits_once_and_what_is_asked_for_comes_first() {
        let mut queue = queue();
        let first = asked(&mut queue, flush("t", None), 0);
        assert_eq!(asked(&mut queue, flush("t", None), 1), first);
        let Asked::New(wanted) = queue.ask(flush("u", None), Some("root".into()), 1) else { panic!() };
        assert_eq!((started(&mut queue, 1), started(&mut queue, 1)), (Some(wanted.id), Some(first)));
        // One that runs is no reason not to queue the next: what came meanwhile is not in it.
        assert!(matches!(queue.ask(flush("t", None), None, 2), Asked::New(_)));
    }

    #[test]
    fn what_waits_is_of_the_first_who_asks_for_it() {
        let mut queue = queue();
        let own = asked(&mut queue, flush("t", None), 0);
        for (who, whose) in [(None, None), (Some("root"), Some("root")), (Some("ann"), Some("root"))] {
            let told = queue.ask(flush("t", None), who.map(str::to_owned), 1);
            let Asked::Waiting(job) = told else { panic!("{told:?}") };
            assert_eq!((job.id, job.asked_by.as_deref()), (own, whose));
        }
        // So its end is kept, whatever it has changed.
        assert_eq!(started(&mut queue, 1), Some(own));
        assert!(queue.ended(own, Ok("done".into()), true, 2).unwrap().1.is_empty());
    }

    #[test]
    fn what_was_cancelled_is_not_tried_again() {
        let mut queue = queue();
        let id = asked(&mut queue, flush("t", None), 0);
        assert_eq!(started(&mut queue, 0), Some(id));
        let job = queue.cancel(id, 1).unwrap();
        assert_eq!((job.state, job.is_unwanted), (JobState::Running, true));
        // Neither by the next process …
        let (_, changed) = Queue::resume(vec![job], id, 2, 2, 3);
        assert_eq!((changed[0].state, changed[0].finished_ns), (JobState::Cancelled, Some(2)));
        // … nor when it fails before its next step.
        let (job, _) = queue.ended(id, Err(("the store is away".into(), true)), false, 2).unwrap();
        assert_eq!((job.state, job.finished_ns), (JobState::Cancelled, Some(2)));
    }

    #[test]
    fn what_ends_the_process_again_and_again_fails() {
        let mut known = vec![];
        for attempt in 1..=ATTEMPTS_MAX {
            let mut queue = match attempt {
                1 => queue(),
                _ => Queue::resume(known, 1, 0, 2, 3).0,
            };
            assert_eq!(asked(&mut queue, compact("t"), 0), 1);
            assert_eq!(started(&mut queue, 0), Some(1));
            known = queue.list().cloned().collect();
        }
        let (queue, changed) = Queue::resume(known, 1, S, 2, 3);
        assert_eq!((changed[0].state, changed[0].finished_ns), (JobState::Failed, Some(S)));
        // Nor is it asked for again at once.
        assert_eq!(queue.resting(S + REST_NS - 1), HashSet::from([compact("t")]));
        assert_eq!(queue.resting(S + REST_NS), HashSet::new());
    }

    #[test]
    fn an_orderly_stop_is_no_try() {
        let mut queue = queue();
        let id = asked(&mut queue, compact("t"), 0);
        for _ in 0..=ATTEMPTS_MAX {
            assert_eq!(started(&mut queue, 0), Some(id));
            let job = queue.interrupted(id).unwrap();
            assert_eq!((job.state, job.attempts), (JobState::Queued, 0));
            let (next, changed) = Queue::resume(vec![job], id, 0, 2, 3);
            assert_eq!(changed, []);
            queue = next;
        }
    }

    #[test]
    fn what_fails_is_tried_again_after_longer_and_longer_waits() {
        let mut queue = queue();
        let id = asked(&mut queue, flush("t", None), 0);
        let mut now = 0;
        for wait in [1, 2, 4, 8] {
            assert_eq!(started(&mut queue, now), Some(id));
            let (job, _) = queue.ended(id, Err(("the store is away".into(), true)), false, now).unwrap();
            assert_eq!((job.state, job.not_before_ns), (JobState::Retrying, now + wait * S));
            assert_eq!(started(&mut queue, now), None);
            assert_eq!(queue.next_time(now), Some(now + wait * S));
            now += wait * S;
        }
        assert_eq!(started(&mut queue, now), Some(id));
        let (job, _) = queue.ended(id, Err(("the store is away".into(), true)), false, now).unwrap();
        assert_eq!((job.state, job.attempts, job.finished_ns), (JobState::Failed, 5, Some(now)));
        let hopeless = asked(&mut queue, flush("gone", None), now);
        assert_eq!(started(&mut queue, now), Some(hopeless));
        let (job, _) = queue.ended(hopeless, Err(("no such table".into(), false)), false, now).unwrap();
        assert_eq!((job.state, job.attempts), (JobState::Failed, 1));
    }

    #[test]
    fn one_that_waits_is_cancelled_at_once_and_one_that_runs_when_it_has_stopped() {
        let mut queue = queue();
        let (running, waiting) = (asked(&mut queue, flush("t", None), 0), asked(&mut queue, compact("t"), 0));
        started(&mut queue, 0);
        assert_eq!(queue.cancel(waiting, 1).unwrap().state, JobState::Cancelled);
        assert_eq!(queue.cancel(running, 1).unwrap().state, JobState::Running);
        assert_eq!(queue.stopped(running, 2).unwrap().state, JobState::Cancelled);
        assert_eq!(queue.ended(running, Ok("late".into()), false, 3), None);
        assert_eq!(queue.cancel(running, 4).unwrap().state, JobState::Cancelled);
        assert_eq!(queue.cancel(99, 4), None);
    }

    #[test]
    fn what_ran_is_queued_again_and_numbers_go_on() {
        let mut before = queue();
        asked(&mut before, flush("t", None), 0);
        asked(&mut before, compact("t"), 0);
        started(&mut before, 0);
        let known = before.list().cloned().collect();
        let (mut queue, changed) = Queue::resume(known, 2, 0, 2, 3);
        assert_eq!(changed.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(), [(1, JobState::Queued)]);
        assert_eq!(started(&mut queue, 5), Some(1));
        assert_eq!(queue.list().next().unwrap().attempts, 2);
        assert_eq!(asked(&mut queue, flush("x", None), 5), 3);
        // Also above those that this build cannot read.
        let mut queue = Queue::resume(vec![], 9, 0, 2, 3).0;
        assert_eq!(asked(&mut queue, flush("x", None), 5), 10);
    }

    #[test]
    fn the_last_ends_are_kept() {
        let mut queue = queue();
        for number in 0..5 {
            let id = asked(&mut queue, flush(&format!("t{number}"), None), number);
            assert_eq!(started(&mut queue, number), Some(id));
            let (_, forgotten) = queue.ended(id, Ok("done".into()), false, number).unwrap();
            assert_eq!(forgotten, if number < 3 { vec![] } else { vec![id - 3] });
        }
        assert_eq!(queue.list().map(|job| job.id).collect::<Vec<_>>(), [3, 4, 5]);
    }
    #[test]
    fn what_nobody_has_asked_for_and_has_changed_nothing_is_forgotten() {
        let mut queue = queue();
        for (idle, asked_by, stays) in [(true, None, false), (false, None, true), (true, Some("root"), true)] {
            let asked = queue.ask(flush("t", None), asked_by.map(str::to_owned), 1);
            let Asked::New(Job { id, .. }) = asked else { panic!("{asked:?}") };
            assert_eq!(started(&mut queue, 1), Some(id));
            let (_, forgotten) = queue.ended(id, Ok("done".into()), idle, 2).unwrap();
            assert_eq!(forgotten, if stays { vec![] } else { vec![id] });
            assert_eq!(queue.list().any(|job| job.id == id), stays);
        }
    }
}
