//! What the server does by itself: decided here, from plain data and the time.
//!
//! Invariants:
//! 1. What is asked for is not asked for again while it waits or runs.
//! 2. What makes room comes first, and of that the largest.

use std::collections::HashSet;
use std::time::Duration;

use seracdb_storage::HotScope;
use seracdb_storage::hot_size::FlushConfig;

use super::spec::{JobSpec, ManifestEvictionJob, TableJob, TablesJob};

/// How far below its limit what is hot is brought, in percent: so that one flush too many is not one for each write.
const ROOM_PERCENT: u64 = 75;

/// Jobs up to which flushes are asked for at once: each of them is looked through, and written down, when one more is asked for.
/// The others are found again at a later look.
const WAITING_MAX: usize = 500;

/// How long after a start what nothing names is looked for, unless that is done more often anyway: servers that are started every day
/// do it too.
const FIRST_CLEANUP: Duration = Duration::from_secs(3600);

/// What the settings say of it.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) flush: FlushConfig,
    /// Whether files are merged.
    pub(crate) compact: bool,
    pub(crate) eviction: ManifestEvictionJob,
    pub(crate) every: Intervals,
}

/// How often what has no cause but the time is done. Zero: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    pub(crate) eviction: Duration,
    pub(crate) retention: Duration,
    pub(crate) cleanup: Duration,
    pub(crate) stream_expiry: Duration,
}

/// When each of that was asked for last, or the start; nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LastAsked {
    pub(crate) eviction_ns: i64,
    pub(crate) retention_ns: i64,
    pub(crate) cleanup_ns: i64,
    pub(crate) stream_expiry_ns: i64,
}

/// A part of a table that has hot rows, and what the table says of them.
#[derive(Debug, Clone)]
pub(crate) struct HotPart {
    pub(crate) job: TableJob,
    pub(crate) hot: HotScope,
    /// WITH (flush_rows = …).
    pub(crate) rows_max: Option<u64>,
    /// WITH (flush_interval = …).
    pub(crate) interval: Option<Duration>,
}

impl HotPart {
    fn bytes(&self) -> u64 {
        self.hot.active.bytes + self.hot.sealed_bytes
    }
}

/// What there is to decide from.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// All parts with hot rows.
    pub(crate) hot: Vec<HotPart>,
    /// Parts whose files are worth merging.
    pub(crate) worn: Vec<TableJob>,
    /// Parts where something may lie around that nothing names.
    pub(crate) to_clean_up: Vec<TableJob>,
    /// Whether there are stream tables.
    pub(crate) streams: bool,
    pub(crate) last: LastAsked,
    /// What waits or runs.
    pub(crate) busy: HashSet<JobSpec>,
}

impl Policy {
    /// The jobs to ask for now.
    pub(crate) fn next_jobs(&self, seen: &Seen, now_ns: i64) -> Vec<JobSpec> {
        let mut jobs = self.flushes(seen, now_ns);
        jobs.retain(|job| !seen.busy.contains(job));
        jobs.truncate(WAITING_MAX.saturating_sub(seen.busy.len()));
        if self.compact {
            jobs.extend(seen.worn.iter().cloned().map(JobSpec::Compact));
        }
        jobs.extend(seen.to_clean_up.iter().map(|part| JobSpec::Cleanup(part.clone().into())));
        jobs.extend(self.periodical(seen, now_ns));
        jobs.retain(|job| !seen.busy.contains(job));
        jobs
    }

    fn flushes(&self, seen: &Seen, now_ns: i64) -> Vec<JobSpec> {
        if !self.flush.automatic {
            return vec![];
        }
        let (mut due, mut others): (Vec<&HotPart>, Vec<&HotPart>) =
            seen.hot.iter().partition(|part| self.is_due(part, now_ns));
        let total: u64 = seen.hot.iter().map(HotPart::bytes).sum();
        if total > self.flush.total_bytes_max {
            let mut left = total - due.iter().map(|part| part.bytes()).sum::<u64>();
            let wanted = self.flush.total_bytes_max / 100 * ROOM_PERCENT;
            others.sort_by_key(|part| std::cmp::Reverse(part.bytes()));
            due.extend(others.into_iter().take_while(|part| {
                let is_too_much = left > wanted;
                left = left.saturating_sub(part.bytes());
                is_too_much
            }));
        }
        due.sort_by_key(|part| std::cmp::Reverse(part.bytes()));
        due.into_iter().map(|part| JobSpec::Flush(part.job.clone())).collect()
    }

    fn is_due(&self, part: &HotPart, now_ns: i64) -> bool {
        let (config, active) = (&self.flush, part.hot.active);
        let interval = part.interval.unwrap_or(Duration::from_secs(config.interval_seconds));
        let is_old = !interval.is_zero() && now_ns.saturating_sub(part.hot.since_ns) >= nanoseconds(interval);
        part.bytes() >= config.hot_bytes_max.max(1)
            || active.dead >= config.dead_versions_max.max(1) && active.dead * 2 >= active.versions
            || part.rows_max.is_some_and(|max| active.versions >= max)
            || is_old && part.bytes() > 0
    }

    fn periodical(&self, seen: &Seen, now_ns: i64) -> Vec<JobSpec> {
        let due = |every: Duration, last: i64| !every.is_zero() && now_ns.saturating_sub(last) >= nanoseconds(every);
        let (every, last, all) = (self.every, seen.last, TablesJob::default());
        let mut jobs = Vec::new();
        if due(every.eviction, last.eviction_ns) {
            jobs.push(JobSpec::ManifestEviction(self.eviction.clone()));
        }
        if due(every.retention, last.retention_ns) {
            jobs.push(JobSpec::Retention(all.clone()));
        }
        if due(every.cleanup, last.cleanup_ns) {
            jobs.push(JobSpec::Cleanup(all.clone()));
        }
        if seen.streams && due(every.stream_expiry, last.stream_expiry_ns) {
            jobs.push(JobSpec::StreamExpiry(all));
        }
        jobs
    }
}

impl LastAsked {
    /// At a start, after which everything comes in its interval, but for the first cleanup.
    pub(crate) fn at(now_ns: i64, every: &Intervals) -> Self {
        let sooner = nanoseconds(every.cleanup.saturating_sub(FIRST_CLEANUP));
        let cleanup_ns = now_ns.saturating_sub(sooner);
        Self { eviction_ns: now_ns, retention_ns: now_ns, cleanup_ns, stream_expiry_ns: now_ns }
    }

    /// With what is asked for now.
    pub(crate) fn with(mut self, job: &JobSpec, now_ns: i64) -> Self {
        match job {
            JobSpec::ManifestEviction(_) => self.eviction_ns = now_ns,
            JobSpec::Retention(_) => self.retention_ns = now_ns,
            JobSpec::Cleanup(job) if *job == TablesJob::default() => self.cleanup_ns = now_ns,
            JobSpec::StreamExpiry(_) => self.stream_expiry_ns = now_ns,
            _ => {}
        }
        self
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use seracdb_storage::hot_size::HotSize;

    use super::*;

    const S: i64 = 1_000_000_000;

    fn policy() -> Policy {
        let flush =
            FlushConfig { hot_bytes_max: 1000, dead_versions_max: 10, total_bytes_max: 4000, ..FlushConfig::default() };
        let eviction = ManifestEvictionJob { max_entries: 5, ttl_seconds: 60 };
        Policy { flush, compact: true, eviction, every: Intervals::default() }
    }

    fn part(table: &str) -> TableJob {
        TableJob { namespace: "app".into(), table: table.into(), user_id: None }
    }

    fn hot(table: &str, versions: u64, dead: u64, bytes: u64) -> HotPart {
        let hot = HotScope { active: HotSize { versions, dead, bytes }, sealed_bytes: 0, since_ns: 0 };
        HotPart { job: part(table), hot, rows_max: None, interval: None }
    }

    fn flushed(policy: &Policy, hot: Vec<HotPart>, now_ns: i64) -> Vec<String> {
        let jobs = policy.next_jobs(&Seen { hot, ..Seen::default() }, now_ns);
        let table = |job| match job {
            JobSpec::Flush(job) => job.table,
            other => panic!("{other:?}"),
        };
        jobs.into_iter().map(table).collect()
    }

    #[test]
    fn many_bytes_and_many_dead_versions_are_flushed() {
        let parts =
            vec![hot("few", 9, 0, 999), hot("bytes", 1, 0, 1000), hot("dead", 20, 10, 1), hot("live", 21, 10, 1)];
        assert_eq!(flushed(&policy(), parts, S), ["bytes", "dead"]);
        let mut interrupted = hot("sealed", 0, 0, 0);
        interrupted.hot.sealed_bytes = 1000;
        assert_eq!(flushed(&policy(), vec![interrupted], S), ["sealed"]);
        let off = Policy { flush: FlushConfig { automatic: false, ..policy().flush }, ..policy() };
        assert_eq!(flushed(&off, vec![hot("bytes", 1, 0, 9999)], S), [""; 0]);
    }

    #[test]
    fn a_table_says_how_many_rows_and_how_long() {
        let rows = |versions| HotPart { rows_max: Some(100), ..hot("rows", versions, 0, 1) };
        assert_eq!(flushed(&policy(), vec![rows(99)], S), [""; 0]);
        assert_eq!(flushed(&policy(), vec![rows(100)], S), ["rows"]);
        let age = || HotPart { interval: Some(Duration::from_secs(5)), ..hot("age", 1, 0, 1) };
        assert_eq!(flushed(&policy(), vec![age(), hot("other", 1, 0, 1)], 5 * S - 1), [""; 0]);
        assert_eq!(flushed(&policy(), vec![age(), hot("other", 1, 0, 1)], 5 * S), ["age"]);
        let all = Policy { flush: FlushConfig { interval_seconds: 9, ..policy().flush }, ..policy() };
        assert_eq!(flushed(&all, vec![age(), hot("other", 1, 0, 1), hot("empty", 0, 0, 0)], 9 * S), ["age", "other"]);
    }

    #[test]
    fn when_all_together_is_too_much_the_largest_go() {
        let parts = |sizes: &[u64]| sizes.iter().map(|size| hot(&size.to_string(), 1, 0, *size)).collect::<Vec<_>>();
        assert_eq!(flushed(&policy(), parts(&[900, 800, 700, 600, 500, 500]), S), [""; 0]);
        // 4001 are brought to 3000: 900 and 800 are enough.
        assert_eq!(flushed(&policy(), parts(&[501, 600, 700, 800, 900, 500]), S), ["900", "800"]);
        // What is due by itself is enough.
        assert_eq!(flushed(&policy(), parts(&[2000, 900, 800, 700]), S), ["2000"]);
    }

    #[test]
    fn nothing_is_asked_for_twice() {
        let busy = HashSet::from([JobSpec::Flush(part("a")), JobSpec::Compact(part("b"))]);
        let hot = vec![hot("a", 1, 0, 5000), hot("b", 1, 0, 1000)];
        let seen = Seen { hot, worn: vec![part("b"), part("c")], busy, ..Seen::default() };
        assert_eq!(policy().next_jobs(&seen, S), [JobSpec::Flush(part("b")), JobSpec::Compact(part("c"))]);
    }

    #[test]
    fn no_more_flushes_wait_than_can_be_kept_in_order() {
        let hot = (0..WAITING_MAX + 10).map(|number| hot(&number.to_string(), 1, 0, 1000)).collect();
        let mut seen = Seen { hot, worn: vec![part("worn")], ..Seen::default() };
        let jobs = policy().next_jobs(&seen, S);
        assert_eq!(jobs.len(), WAITING_MAX + 1);
        seen.busy = jobs.into_iter().collect();
        assert_eq!(policy().next_jobs(&seen, S), []);
    }

    #[test]
    fn the_first_cleanup_comes_soon_after_a_start() {
        let cleanup = |hours: u64| {
            let every = Intervals { cleanup: Duration::from_secs(hours * 3600), ..Intervals::default() };
            let (policy, last) = (Policy { every, ..policy() }, LastAsked::at(0, &every));
            let at = |hour: i64| !policy.next_jobs(&Seen { last, ..Seen::default() }, hour * 3600 * S).is_empty();
            (0..48).find(|hour| at(*hour))
        };
        assert_eq!([0, 1, 24].map(cleanup), [None, Some(1), Some(1)]);
    }

    #[test]
    fn what_the_time_brings_is_asked_for_in_intervals() {
        let seconds = Duration::from_secs;
        let every =
            Intervals { eviction: seconds(3), retention: seconds(5), cleanup: seconds(0), stream_expiry: seconds(2) };
        let policy = Policy { every, ..policy() };
        let mut seen = Seen { last: LastAsked::at(0, &every), ..Seen::default() };
        assert_eq!(policy.next_jobs(&seen, 2 * S), []);
        seen.streams = true;
        let expiry = JobSpec::StreamExpiry(TablesJob::default());
        assert_eq!(policy.next_jobs(&seen, 2 * S), vec![expiry.clone()]);
        seen.last = seen.last.with(&expiry, 2 * S);
        let eviction = JobSpec::ManifestEviction(policy.eviction.clone());
        assert_eq!(policy.next_jobs(&seen, 3 * S), vec![eviction.clone()]);
        seen.last = seen.last.with(&eviction, 3 * S);
        assert_eq!(policy.next_jobs(&seen, 5 * S), [JobSpec::Retention(TablesJob::default()), expiry]);
    }
}
