//! What rows were at an earlier time, and what has become of them since.
//!
//! Of a scope, versions lie in hot rows, in the files that queries read, and, once they are superseded and flushed or merged away,
//! in archived files until their retention has ended. A version that was the newest of its row at a time is in one that was
//! archived after that time, or in one that is read still.
//!
//! Invariants:
//! 1. A time can be read as long as every file is there that was archived after it. Who reads one has it pinned, and files that it
//!    needs stay.
//! 2. Of a row exactly one version is the one of a time: the newest of commits up to it, which is none when that deletes the row.
//!    Of equal versions, of a row that was loaded in bulk and changed by one commit, the hot one counts, then the later file's.
//! 3. Whether a version is its row's first is known of every one that came after a time that can be read: the version before it, if there
//!    is one, was the newest of its row at some time since.
//! 4. What came after a time is what came after any later one before which nothing else came: of that only the later one has to be
//!    readable, if no version that came since the first is gone.
//! 5. Who reads is told how much memory that takes, in every file that is open at a time and in what is found, and may refuse it.

mod versions;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::delete_log::MaskedRow;
use crate::error::{Result, StorageError};
use crate::file_index::FileIndex;
use crate::keys::{BatchNumber, Generation, Scope, decode_delete_log_key};
use crate::objects::{Objects, blocking};
use crate::records::{BatchRecord, BatchStatus};
use crate::snapshot::{Masks, ScopeView, Snapshot};
use crate::store::Store;
use crate::system_columns::CommitTs;
use versions::{HotVersions, Source, Version};

/// What is held has to differ by so many bytes for somebody to be told again.
const TOLD_BYTES: usize = 64 << 10;

/// Which times are read, and which can be no more.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    /// Times that are read, each so many times.
    pinned: BTreeMap<CommitTs, usize>,
    /// Files that were archived up to here may be gone.
    gone: CommitTs,
}

/// A time that is read: files that it needs stay until this is dropped.
#[derive(Debug)]
pub struct PinnedTime {
    history: Arc<History>,
    at: CommitTs,
}

impl Drop for PinnedTime {
    fn drop(&mut self) {
        let mut times = self.history.0.lock();
        if let Some(count) = times.pinned.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                times.pinned.remove(&self.at);
            }
        }
    }
}

impl History {
    /// `None` when files that it needs may be gone.
    fn pin(self: &Arc<Self>, at: CommitTs) -> Option<Arc<PinnedTime>> {
        let mut times = self.0.lock();
        if at < times.gone {
            return None;
        }
        *times.pinned.entry(at).or_default() += 1;
        Some(Arc::new(PinnedTime { history: Arc::clone(self), at }))
    }

    /// Of archived files those that may be removed now: no time that is read needs them, and none will be that does.
    pub(crate) fn removable(&self, archived: Vec<BatchRecord>) -> Vec<BatchRecord> {
        let mut times = self.0.lock();
        let oldest = times.pinned.keys().next().copied();
        let is_needed = |record: &BatchRecord| oldest.is_some_and(|oldest| record.archived_at > Some(oldest));
        let removable: Vec<_> = archived.into_iter().filter(|record| !is_needed(record)).collect();
        times.gone = removable.iter().filter_map(|record| record.archived_at).fold(times.gone, CommitTs::max);
        removable
    }
}

/// Where the versions of a time lie. The masks hide all others.
#[derive(Debug, Clone)]
pub struct Past {
    /// Of hot rows the newest of commits up to the time count.
    pub view: ScopeView,
    /// Keeps the files; absent when they are those of the present.
    pub pin: Option<Arc<PinnedTime>>,
}

/// Where the versions of a span of time lie, among others; some may be there twice.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Nothing is masked.
    pub view: ScopeView,
    /// Rows that were there before, if they have a version in the span: others do not matter, and some are among them.
    pub earlier: Arc<RoaringTreemap>,
    /// Keeps the files.
    pub pin: Arc<PinnedTime>,
}

impl Store {
    /// A snapshot of all commits up to a time, none of which is still under way. `at`: not above the clock's.
    pub async fn settled(&self, snapshot: &Arc<Snapshot>, at: CommitTs) -> Result<Arc<Snapshot>> {
        match at <= snapshot.ts() {
            true => Ok(Arc::clone(snapshot)),
            false => self.committer().pass(at).await,
        }
    }

    /// What rows with these ids were after the last commit up to a time, as this snapshot knows it. Others may be among them.
    /// `held`: the commit of a snapshot that was open before and is still. `holding`: is told how many bytes are held now, and at last
    /// those of what is given, and may refuse them.
    ///
    /// Errors: [`StorageError::TooOld`], and those of `holding`.
    pub async fn past(
        &self,
        snapshot: &Arc<Snapshot>,
        held: CommitTs,
        scope: Scope,
        at: CommitTs,
        ids: RangeInclusive<i64>,
        holding: &(impl Fn(usize) -> Result<()> + Sync),
    ) -> Result<Past> {
        let view = snapshot.view(scope).await?;
        if at >= snapshot.ts() {
            return Ok(Past { view, pin: None });
        }
        let generations = view.generations;
        let pin = self.pin(snapshot, held, scope, at)?;
        let holds_some = |file: &BatchRecord| file.min_updated <= at && file.may_hold(&ids);
        let files: Vec<BatchRecord> =
            snapshot.records(scope)?.into_iter().filter(|file| needs(file, at) && holds_some(file)).collect();
        let mut sources: Vec<Source> = files.iter().cloned().map(Source::Closed).collect();
        if !files.is_empty() {
            sources.push(Source::Hot(HotVersions::new(scope, generations.clone(), ids)));
        }
        let visible = newest_until(at, sources, self.objects(), snapshot, holding).await?;
        let (mut masks, mut bytes) = (Masks::new(), 0);
        for file in &files {
            let mut mask = RoaringBitmap::new();
            mask.insert_range(0..u32::try_from(file.row_count).unwrap_or(u32::MAX));
            if let Some(visible) = visible.of_files.get(&file.batch_number) {
                mask -= visible;
            }
            bytes += mask.serialized_size();
            holding(visible.held() + bytes)?;
            masks.insert(file.batch_number, Arc::new(mask));
        }
        masks.retain(|_, mask| !mask.is_empty());
        holding(bytes)?;
        Ok(Past {
            view: ScopeView { files: Arc::new(FileIndex::new(files)), masks: Arc::new(masks), generations },
            pin: Some(pin),
        })
    }

    /// What has come to a scope after a time. `held` and `holding` as in [`Store::past`].
    ///
    /// Errors: [`StorageError::TooOld`], and those of `holding`.
    pub async fn feed(
        &self,
        snapshot: &Arc<Snapshot>,
        held: CommitTs,
        scope: Scope,
        since: CommitTs,
        holding: &(impl Fn(usize) -> Result<()> + Sync),
    ) -> Result<Feed> {
        let generations = snapshot.view(scope).await?.generations;
        let (since, pin) = match self.pin(snapshot, held, scope, since) {
            Ok(pin) => (since, pin),
            // Who follows a scope asks for what came after its last commit, however long it is quiet since.
            Err(too_old @ StorageError::TooOld { .. }) => {
                match self.quiet_until(snapshot, scope, since, &generations).await? {
                    until if until > since => (until, self.pin(snapshot, held, scope, until)?),
                    _ => return Err(too_old),
                }
            }
            Err(error) => return Err(error),
        };
        let records = snapshot.records(scope)?;
        // What was superseded in files that are read,
        let newer: HashSet<BatchNumber> =
            records.iter().filter(|file| file.min_updated > since).map(|file| file.batch_number).collect();
        let log = Arc::clone(snapshot);
        let (mut earlier, unsure) = blocking(move || superseded_after(since, &log, scope, &newer)).await?;
        for (number, rows) in unsure {
            match records.iter().find(|file| file.batch_number == number && needs(file, since)) {
                Some(file) => earlier |= self.older_than(since, file, &rows, snapshot, holding).await?,
                None => earlier.extend(rows.iter().map(|row| row.id.get() as u64)),
            }
        }
        // in files that are no more, and in hot rows.
        let archived = records.iter().filter(|file| !file.status.is_read() && needs(file, since));
        let archived = archived.filter(|file| file.min_updated <= since).cloned().map(Source::Closed);
        let hot = Source::Hot(HotVersions::new(scope, generations.clone(), i64::MIN..=i64::MAX));
        let (mut bytes, mut count) = (bytes_of(&earlier), earlier.len());
        // Measuring them takes as long as they are many.
        let (mut told, mut measured) = (0, count);
        for mut source in archived.chain([hot]) {
            while let Some(version) = source.head(self.objects(), snapshot).await? {
                if version.updated <= since.get() && earlier.insert(version.id as u64) {
                    count += 1;
                }
                if count - measured >= (measured / 4).max(1 << 12) {
                    (bytes, measured) = (bytes_of(&earlier), count);
                }
                let now = bytes + source.held();
                if now.abs_diff(told) >= TOLD_BYTES {
                    holding(now)?;
                    told = now;
                }
                source.advance();
            }
        }
        holding(bytes_of(&earlier))?;
        let files = records.into_iter().filter(|file| needs(file, since) && file.max_updated > since).collect();
        let view = ScopeView { files: Arc::new(FileIndex::new(files)), masks: Arc::default(), generations };
        Ok(Feed { view, earlier: Arc::new(earlier), pin })
    }

    /// Of these rows of a file those that were there at a time, as the file says.
    async fn older_than(
        &self,
        since: CommitTs,
        file: &BatchRecord,
        rows: &[MaskedRow],
        snapshot: &Arc<Snapshot>,
        holding: &(impl Fn(usize) -> Result<()> + Sync),
    ) -> Result<RoaringTreemap> {
        let positions: RoaringBitmap = rows.iter().map(|row| row.position).collect();
        let asked = size_of_val(rows) + positions.serialized_size();
        let mut found = RoaringTreemap::new();
        let (mut source, mut told) = (Source::Closed(file.clone()), 0);
        while let Some(version) = source.head(self.objects(), snapshot).await? {
            if told != source.held() {
                told = source.held();
                holding(asked + told)?;
            }
            let is_asked = source.position().is_some_and(|(_, position)| positions.contains(position));
            if is_asked && version.updated <= since.get() {
                found.insert(version.id as u64);
            }
            source.advance();
        }
        Ok(found)
    }

    /// The last time up to which nothing has come to a scope after this one; the same when that is not known.
    async fn quiet_until(
        &self,
        snapshot: &Arc<Snapshot>,
        scope: Scope,
        since: CommitTs,
        generations: &[Generation],
    ) -> Result<CommitTs> {
        let header = snapshot.header(scope)?.unwrap_or_default();
        let kept = self.kept();
        // Files that were archived after that stay while they are read here.
        let Some(_pinned) = self.history().pin(kept) else { return Ok(since) };
        if header.recovering || header.whole_from() > since {
            return Ok(since);
        }
        let mut next = CommitTs::stored(snapshot.ts().get().saturating_add(1));
        let mut sources = vec![Source::Hot(HotVersions::new(scope, generations.to_vec(), i64::MIN..=i64::MAX))];
        for file in snapshot.records(scope)?.into_iter().filter(|file| file.max_updated > since) {
            if file.min_updated > since {
                next = next.min(file.min_updated);
            } else if file.archived_at.is_some_and(|at| at <= kept) {
                // It may be removed at any time, and has something that came before what is kept.
                next = next.min(file.max_updated);
            } else {
                sources.push(Source::Closed(file));
            }
        }
        for mut source in sources {
            while let Some(version) = source.head(self.objects(), snapshot).await? {
                if version.updated > since.get() {
                    next = next.min(CommitTs::stored(version.updated));
                }
                source.advance();
            }
        }
        Ok(next.before())
    }

    /// From here on it is kept what rows were.
    fn kept(&self) -> CommitTs {
        let retention = i64::try_from(self.compaction().retention_seconds).unwrap_or(i64::MAX);
        CommitTs::stored(self.clock().now_ns().saturating_sub(retention.saturating_mul(1_000_000_000)))
    }

    /// Keeps what reading a time needs.
    fn pin(&self, snapshot: &Snapshot, held: CommitTs, scope: Scope, at: CommitTs) -> Result<Arc<PinnedTime>> {
        let header = snapshot.header(scope)?.unwrap_or_default();
        // What was being recovered at this snapshot has no records in it.
        let known = if header.recovering { CommitTs::stored(snapshot.ts().get() + 1) } else { header.history_from };
        // No file that was archived after an open snapshot is removed, however short the retention.
        let oldest = if at >= held { known } else { self.kept().max(known) };
        let pin = if at < oldest { None } else { self.history().pin(at) };
        pin.ok_or(StorageError::TooOld { oldest })
    }
}

/// Whether a version that was the newest of its row at a time can be in a file.
fn needs(file: &BatchRecord, at: CommitTs) -> bool {
    match file.status {
        BatchStatus::Active | BatchStatus::Compacting => true,
        BatchStatus::Archived => file.archived_at > Some(at),
        BatchStatus::Removing => false,
    }
}

/// Rows of files that were there at a time and were superseded after it. `newer`: files in which no row was there before. Besides, by
/// file, those of which the log does not tell: one that a commit has loaded in bulk and changed is in it as if it had been there just
/// before, and stays in it when its file is merged with older ones before the change is in a file.
fn superseded_after(
    since: CommitTs,
    snapshot: &Snapshot,
    scope: Scope,
    newer: &HashSet<BatchNumber>,
) -> Result<(RoaringTreemap, HashMap<BatchNumber, Vec<MaskedRow>>)> {
    let mut found = RoaringTreemap::new();
    let mut unsure: HashMap<BatchNumber, Vec<MaskedRow>> = HashMap::new();
    snapshot.visit_delete_log(scope, since, |key, rows| {
        if let Some((_, file)) = decode_delete_log_key(key).filter(|(_, file)| !newer.contains(file)) {
            for row in rows()?.into_iter().filter(|row| row.updated <= since && row.superseded_by > since) {
                match row.updated == row.superseded_by.before() {
                    true => unsure.entry(file).or_default().push(row),
                    false => _ = found.insert(row.id.get() as u64),
                }
            }
        }
        Ok(())
    })?;
    Ok((found, unsure))
}

/// Bytes of a set of rows, about: where ids are far apart, each has a container of its own.
fn bytes_of(rows: &RoaringTreemap) -> usize {
    let bytes = rows.bitmaps().map(|(_, bitmap)| {
        let found = bitmap.statistics();
        let values = found.n_bytes_array_containers + found.n_bytes_run_containers + found.n_bytes_bitset_containers;
        BITMAP_BYTES + CONTAINER_BYTES * found.n_containers as usize + values as usize
    });
    bytes.sum()
}

/// Bytes of a bitmap beside its containers, and of a container beside its values.
const BITMAP_BYTES: usize = 64;
const CONTAINER_BYTES: usize = 40;

/// The positions in files of the versions that are read.
#[derive(Default)]
struct Visible {
    of_files: HashMap<BatchNumber, RoaringBitmap>,
    count: usize,
}

impl Visible {
    fn settle(&mut self, newest: Option<Newest>) {
        if let Some(Newest { deleted: false, position: Some((file, position)), .. }) = newest {
            self.of_files.entry(file).or_default().insert(position);
            self.count += 1;
        }
    }

    /// Bytes of them, at most about.
    fn held(&self) -> usize {
        self.count * size_of::<u16>() + self.of_files.len() * (BITMAP_BYTES + CONTAINER_BYTES)
    }
}

/// The version that a source stands on. `held`: bytes of all sources.
async fn head_of(
    source: &mut Source,
    held: &mut usize,
    objects: &Objects,
    snapshot: &Arc<Snapshot>,
) -> Result<Option<Version>> {
    let before = source.held();
    let head = source.head(objects, snapshot).await?;
    *held = *held + source.held() - before;
    Ok(head)
}

/// The newest version so far of the row that is being passed.
#[derive(Clone, Copy)]
struct Newest {
    id: i64,
    /// Its time, and what counts among equal ones.
    order: (i64, u64),
    deleted: bool,
    /// Where it is, if that is in a file.
    position: Option<(BatchNumber, u32)>,
}

/// The positions in files of the newest version of each row of commits up to a time, where it is in a file and no tombstone.
async fn newest_until(
    at: CommitTs,
    mut sources: Vec<Source>,
    objects: &Objects,
    snapshot: &Arc<Snapshot>,
    holding: &(impl Fn(usize) -> Result<()> + Sync),
) -> Result<Visible> {
    let mut visible = Visible::default();
    let (mut open, mut told) = (0, 0);
    // Each source at a row before which it has none.
    let mut heads: BinaryHeap<_> =
        sources.iter().enumerate().map(|(place, source)| Reverse((source.first(), place))).collect();
    let mut newest: Option<Newest> = None;
    while let Some(Reverse((id, place))) = heads.pop() {
        let source = &mut sources[place];
        let Some(version) = head_of(source, &mut open, objects, snapshot).await? else { continue };
        let now = open + visible.held();
        if now.abs_diff(told) >= TOLD_BYTES {
            holding(now)?;
            told = now;
        }
        if version.id > id {
            heads.push(Reverse((version.id, place)));
            continue;
        }
        if newest.is_some_and(|newest| newest.id != id) {
            visible.settle(newest.take());
        }
        if version.updated <= at.get() {
            let position = source.position();
            let rank = position.map_or(u64::MAX, |(file, _)| file.0);
            let order = (version.updated, rank);
            let version = Newest { id, order, deleted: version.deleted, position };
            newest = newest.filter(|newest| newest.order >= order).or(Some(version));
        }
        source.advance();
        if let Some(version) = head_of(source, &mut open, objects, snapshot).await? {
            heads.push(Reverse((version.id, place)));
        }
    }
    visible.settle(newest);
    Ok(visible)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_table::TestDir;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_commit_has_loaded_and_changed_was_not_there_just_before() {
        let mut dir = TestDir::new();
        dir.config.compaction.fan_in = 2;
        let table = dir.table().await;
        table.insert(&[1, 2]).await;
        table.flush().await.unwrap();
        let (at, loaded) = table.load_and_change(&[3, 4], 5).await;
        // As if the flush of the change had failed.
        table.store.compact(table.scope).await.unwrap();
        let merged: Vec<u64> =
            table.records().into_iter().filter(|file| file.status.is_read()).map(|file| file.row_count).collect();
        assert_eq!((merged, table.values()), (vec![4], vec![1, 2, 4, 5]));

        let earlier = async |since: CommitTs| {
            let snapshot = table.store.snapshot();
            let feed =
                table.store.feed(&snapshot, snapshot.ts(), table.scope, since, &|_: usize| Ok(())).await.unwrap();
            Arc::unwrap_or_clone(feed.earlier)
        };
        let loaded = loaded.get() as u64;
        assert!(!earlier(at.before()).await.contains(loaded));
        assert!(!earlier(at.before().before()).await.contains(loaded));

        // One that was there just before is known to have been.
        table.delete(5).await;
        assert!(earlier(at).await.contains(loaded));
        table.insert(&[6]).await;
        table.flush().await.unwrap();
        let since = table.store.snapshot().ts();
        let others = earlier(since).await;
        table.delete(6).await;
        assert_eq!(earlier(since).await.len(), others.len() + 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_reads_the_past_is_told_what_that_takes_and_may_refuse_it() {
        let dir = TestDir::new();
        let table = dir.table().await;
        table.insert(&[1, 2]).await;
        table.flush().await.unwrap();
        let at = table.store.snapshot().ts();
        table.delete(1).await;
        let snapshot = table.store.snapshot();
        let (held, scope, ids) = (snapshot.ts(), table.scope, i64::MIN..=i64::MAX);
        let refuse = |bytes: usize| match bytes {
            0 => Ok(()),
            _ => Err(StorageError::NoMemory(format!("{bytes} bytes"))),
        };
        let past = table.store.past(&snapshot, held, scope, at, ids.clone(), &refuse).await;
        assert!(matches!(past, Err(StorageError::NoMemory(_))));
        let feed = table.store.feed(&snapshot, held, scope, at, &refuse).await;
        assert!(matches!(feed, Err(StorageError::NoMemory(_))));
        let allow = |_: usize| Ok(());
        table.store.past(&snapshot, held, scope, at, ids, &allow).await.unwrap();
    }
}
