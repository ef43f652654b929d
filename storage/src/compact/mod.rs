//! Compaction: files become one file, without the rows that are no longer read.
//!
//! ```text
//! choose → merge by _id → file → records (inputs archived) → manifest → after retention: records, manifest, files gone
//! ```
//!
//! Invariants:
//! 1. A row that queries read is in the output once, with its `_updated`.
//! 2. A masked row is left out only when its newer version is in a file: the manifest alone must give an answer that was
//!    once right. One whose newer version is still hot goes along, masked.
//! 3. A tombstone is left out only when no file that may hold an older version of its row is left, archived ones
//!    included: whoever reads the files without the masks must not see the row again.
//! 4. Commits that meanwhile supersede a row of an input are translated to the output by the committer.

mod choose;
mod merge;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use roaring::RoaringBitmap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::TableRecord;
use crate::commit::{LogChange, Publication};
use crate::delete_log::MaskedRow;
use crate::error::{Result, StorageError};
use crate::evolution::Evolution;
use crate::keys::{BatchNumber, Scope, decode_delete_log_key};
use crate::objects::{LocalCopy, blocking};
use crate::paths;
use crate::progress::Progress;
use crate::records::{BatchKind, BatchRecord, BatchStatus};
use crate::schema::Column;
use crate::scope_files::{ScopeFiles, Scratch};
use crate::segment::{float_columns, holds_nan};
use crate::snapshot::ScopeView;
use crate::steps::Step;
use crate::store::Store;
use crate::system_columns::CommitTs;

pub use choose::Candidate;
pub use choose::choose;
use merge::Source;

/// The fewest files of about the same size that are merged at once: one alone would be written again and again.
pub const FAN_IN_MIN: usize = 2;

/// When files are merged, and how long their inputs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompactionConfig {
    /// Whether files are merged by themselves.
    pub automatic: bool,
    /// A file is written anew when more of its rows than this are superseded or deleted, in percent.
    #[schemars(range(max = 100))]
    pub masked_percent: u8,
    /// Files smaller than this are merged, in bytes.
    pub small_file_bytes: u64,
    /// Files of about the same size that are merged at once.
    pub fan_in: usize,
    /// Bytes of files that one merge reads at most.
    pub input_bytes_max: u64,
    /// Files that one merge reads at most.
    #[schemars(range(min = 2))]
    pub input_files_max: usize,
    /// Seconds for which superseded files stay in the object store: as far back `FOR SYSTEM_TIME AS OF` and `changes` read.
    pub retention_seconds: u64,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self {
            automatic: true,
            masked_percent: 20,
            small_file_bytes: 128 << 20,
            fan_in: 4,
            input_bytes_max: 512 << 20,
            input_files_max: 64,
            retention_seconds: 24 * 3600,
        }
    }
}

/// What a compaction has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Files that queries no longer read.
    pub inputs: usize,
    /// Rows in files that took their place.
    pub rows: u64,
}

impl Store {
    /// Merges the files of a scope as long as some are worth it, and removes those whose retention has ended.
    ///
    /// Like a flush it is finished also when who waits for it goes away.
    pub async fn compact(self: &Arc<Self>, scope: Scope) -> Result<Compacted> {
        self.compact_with(scope, &Arc::default()).await
    }

    /// The same for who wants to know how far it is, or to stop it: [`StorageError::Stopped`], and the files that are not
    /// merged yet stay.
    pub async fn compact_with(self: &Arc<Self>, scope: Scope, progress: &Arc<Progress>) -> Result<Compacted> {
        let (store, progress) = (Arc::clone(self), Arc::clone(progress));
        self.to_its_end(
            async move { store.compact_now(scope, &progress).await.inspect_err(|_| store.look_again(scope)) },
        )
        .await
    }

    async fn compact_now(&self, scope: Scope, progress: &Arc<Progress>) -> Result<Compacted> {
        let lock = self.scope_lock(scope);
        let _one_at_a_time = lock.lock().await;
        self.recover_locked(scope).await?;
        let mut done = Compacted::default();
        while let Some(once) = self.compact_once(scope, progress).await? {
            progress.files.fetch_add(once.inputs as u64, Ordering::Relaxed);
            done.inputs += once.inputs;
            done.rows += once.rows;
        }
        self.remove_expired(scope).await?;
        Ok(done)
    }

    /// Whether files of a scope are worth merging, or its masked rows worth leaving out.
    pub fn is_worth_compacting(&self, scope: Scope) -> Result<bool> {
        match self.chosen(scope) {
            Err(StorageError::Conflict) => Ok(false),
            chosen => Ok(!chosen?.1.is_empty()),
        }
    }

    fn chosen(&self, scope: Scope) -> Result<(ScopeFiles, BTreeSet<BatchNumber>)> {
        let job = ScopeFiles::new(self.snapshot(), scope)?;
        if job.header.recovering {
            return Ok((job, BTreeSet::new()));
        }
        let view = job.snapshot.scope(scope)?;
        let all = job.snapshot.records(scope)?;
        let candidates = candidates(&view, &all, &job.unsettled(job.header.flushed_to)?);
        let chosen = choose(&candidates, self.compaction());
        Ok((job, chosen))
    }

    async fn compact_once(&self, scope: Scope, progress: &Arc<Progress>) -> Result<Option<Compacted>> {
        let (job, chosen) = match self.chosen(scope) {
            Err(StorageError::Conflict) => return Ok(None),
            chosen => chosen?,
        };
        if chosen.is_empty() {
            return Ok(None);
        }
        let job = Arc::new(job);
        let view = job.snapshot.scope(scope)?;
        let all = job.snapshot.records(scope)?;
        let inputs: Vec<BatchRecord> =
            view.files.iter().filter(|file| chosen.contains(&file.batch_number)).cloned().collect();
        let (number, _) = self.committer().reserve_batch(scope).await?;
        let log = job.log_of(&chosen)?;
        let others = all.into_iter().filter(|record| !chosen.contains(&record.batch_number)).collect();
        let merged = self.merge(&job, number, &inputs, log.merged, others, progress).await?;
        self.reached(Step::FileWritten).await;
        self.export_catalog().await?;
        let rows = merged.as_ref().map_or(0, |(file, _)| file.segment.row_count);
        let flushed_to = job.header.flushed_to;
        let active = match merged {
            Some((file, masked)) => Some(job.place_active(self.objects(), number, file, masked, flushed_to).await?),
            None => None,
        };
        self.reached(Step::FilePlaced).await;
        let done = Compacted { inputs: inputs.len(), rows };
        let publication = Publication {
            snapshot: Arc::clone(&job.snapshot),
            scope,
            generations: Vec::new(),
            replaced: inputs,
            active,
            archive: None,
            changed: Vec::new(),
            log: LogChange { needless: log.needless, merged: HashMap::new() },
            flushed_to,
            version: job.header.version,
        };
        self.publish(publication).await?;
        self.metrics().compacted(&done);
        let (table, owner) = (scope.table.0, scope.owner.0);
        tracing::info!(table, owner, inputs = done.inputs, rows, batch = %number, "compacted");
        Ok(Some(done))
    }

    /// Merges the inputs into a file; `None` when no row is left.
    async fn merge(
        &self,
        job: &Arc<ScopeFiles>,
        number: BatchNumber,
        inputs: &[BatchRecord],
        mut log: HashMap<BatchNumber, Vec<MaskedRow>>,
        others: Vec<BatchRecord>,
        progress: &Arc<Progress>,
    ) -> Result<Option<(Scratch, Vec<MaskedRow>)>> {
        let mut sources = Vec::with_capacity(inputs.len());
        for record in inputs {
            let name = format!("{}-{}-{number}-input-{}", job.scope.table.0, job.scope.owner.0, record.batch_number);
            let file = self.objects().fetch(&record.file_path, &name, record.size_bytes, record.checksum).await?;
            let masked = log.remove(&record.batch_number).unwrap_or_default();
            sources.push((file, masked, record.updated_of_all(), job.evolution(record)?));
        }
        let replaces = replaced_by(inputs, &others);
        let (job, objects, stopping) = (Arc::clone(job), self.objects().clone(), self.stopping());
        let progress = Arc::clone(progress);
        let with_nan = columns_with_nan(job.reader.table(), inputs);
        let input_rows = inputs.iter().map(|record| record.row_count).sum();
        blocking(move || {
            let keep = |row: &MaskedRow| {
                let tombstone = row.superseded_by == row.updated;
                match tombstone {
                    true => others.iter().any(|other| may_hold_older(other, &replaces, row)),
                    false => row.superseded_by > job.header.flushed_to,
                }
            };
            let name = number.to_string();
            let mut output = job.create(&objects, &name, BatchKind::Compact, replaces.clone(), &with_nan)?;
            let sources: Vec<(LocalCopy, Vec<MaskedRow>, Option<CommitTs>, Evolution)> = sources;
            let inputs = sources.iter().map(|(file, masked, updated, evolution)| Source {
                path: file.path(),
                masked,
                updated: *updated,
                evolution,
            });
            let mut done_rows = 0;
            let masked = merge::merge(inputs, keep, &mut output.rows, |rows, bytes| match stopping.is_cancelled() {
                true => Err(StorageError::Stopped),
                false => {
                    done_rows += rows;
                    progress.of_part(done_rows, input_rows);
                    progress.go_on(rows, bytes)
                }
            })?;
            match output.rows.row_count() {
                0 => Ok(None),
                _ => Ok(Some((output.finish(number)?, masked))),
            }
        })
        .await
    }

    /// What is said of records whose files nobody needs any more: their retention has ended, and no open snapshot reads them.
    pub(crate) fn expired(&self) -> impl Fn(&BatchRecord) -> bool + use<> {
        let retention = i64::try_from(self.compaction().retention_seconds).unwrap_or(i64::MAX);
        let now = self.clock().now_ns();
        let keep_from = CommitTs::stored(now.saturating_sub(retention.saturating_mul(1_000_000_000)));
        let oldest = self.committer().oldest_open();
        move |record| record.archived_at.is_some_and(|at| at < keep_from && at <= oldest)
    }

    /// Removes archived files whose retention has ended and that no open snapshot reads: from the manifest, from the object
    /// store, and only then from the records, so that who leaves out a tombstone thinks of a file that may be there. Gives how many.
    pub(crate) async fn remove_expired(&self, scope: Scope) -> Result<usize> {
        let snapshot = self.snapshot();
        let expired = self.expired();
        let expired = snapshot.records(scope)?.into_iter().filter(expired).collect();
        let records = self.history().removable(expired);
        if records.is_empty() {
            return Ok(0);
        }
        let removing = records.iter().map(|record| BatchRecord { status: BatchStatus::Removing, ..record.clone() });
        let without = self.committer().retire_batches(scope, removing.collect()).await?;
        self.export(&without, scope).await?;
        for record in &records {
            self.objects().remove(&record.file_path).await?;
            if let Some(bloom) = &record.bloom {
                self.objects().remove(&bloom.file_path).await?;
            }
            if record.kind == BatchKind::Bulk {
                self.objects().remove(&paths::proof_of(&record.file_path)).await?;
            }
        }
        let numbers: BTreeSet<BatchNumber> = records.iter().map(|record| record.batch_number).collect();
        let mut log = Vec::new();
        // Rows of these files that commits superseded between the writing of their successor and its publication.
        snapshot.visit_delete_log(scope, CommitTs::stored(i64::MIN), |key, _| {
            if decode_delete_log_key(key).is_some_and(|(_, file)| numbers.contains(&file)) {
                log.push(key.to_vec());
            }
            Ok(())
        })?;
        self.committer().forget_batches(scope, numbers, log).await?;
        Ok(records.len())
    }
}

/// What there is to choose from.
fn candidates(view: &ScopeView, all: &[BatchRecord], unsettled: &[(BatchNumber, RoaringBitmap)]) -> Vec<Candidate> {
    let candidate = |record: &BatchRecord| {
        let masked = view.masks.get(&record.batch_number).map_or(0, |mask| mask.len());
        let later = unsettled.iter().find(|(file, _)| *file == record.batch_number).map_or(0, |(_, rows)| rows.len());
        let needed = all.iter().any(|other| other.batch_number != record.batch_number && overlaps_older(other, record));
        let tombstones = if needed { record.tombstones } else { 0 };
        Candidate {
            number: record.batch_number,
            rows: record.row_count,
            droppable: masked.saturating_sub(later).saturating_sub(tombstones),
            size_bytes: record.size_bytes,
        }
    };
    view.files.iter().map(candidate).collect()
}

/// The batches that the output of these inputs takes the place of: also those that the inputs did, as long as their
/// files may be there.
fn replaced_by(inputs: &[BatchRecord], others: &[BatchRecord]) -> Vec<BatchNumber> {
    let there: HashSet<BatchNumber> = others.iter().map(|record| record.batch_number).collect();
    let before = inputs.iter().flat_map(|record| &record.replaces).copied().filter(|number| there.contains(number));
    let numbers: BTreeSet<BatchNumber> = inputs.iter().map(|record| record.batch_number).chain(before).collect();
    numbers.into_iter().collect()
}

/// Whether a file may hold an older version of a deleted row. Files that the output replaces are not read beside it;
/// those of older versions never are.
fn may_hold_older(file: &BatchRecord, replaced: &[BatchNumber], tombstone: &MaskedRow) -> bool {
    is_read_without_masks(file)
        && !replaced.contains(&file.batch_number)
        // As old: a row of a bulk file, deleted in its own commit.
        && file.min_updated <= tombstone.updated
        && file.ids().contains(&tombstone.id.get())
}

/// Whether a file may hold an older version of a tombstone in another.
fn overlaps_older(file: &BatchRecord, tombstones_in: &BatchRecord) -> bool {
    is_read_without_masks(file)
        && !tombstones_in.replaces.contains(&file.batch_number)
        && file.min_updated <= tombstones_in.max_updated
        && file.may_hold(&tombstones_in.ids())
}

fn is_read_without_masks(file: &BatchRecord) -> bool {
    file.kind != BatchKind::Archive
}

/// Float columns that may hold NaN: those of which an input has values and no bounds.
fn columns_with_nan(table: &TableRecord, inputs: &[BatchRecord]) -> HashSet<String> {
    let floats = float_columns(table.schema()).into_iter().map(|at| &table.schema().columns[at]);
    let is_unknown = |column: &&Column| {
        inputs.iter().any(|record| {
            let Some(schema) = table.schema_of(record.schema_version) else { return true };
            match schema.columns.iter().find(|known| known.id == column.id) {
                // Integers and decimals have none.
                Some(known) if !known.data_type.is_floating() => false,
                Some(known) => record
                    .column_min_max
                    .get(&known.name)
                    .is_none_or(|bounds| bounds.min.is_none() && bounds.null_count < record.row_count),
                None => column.initial_value().map_or(true, |value| holds_nan(&value)),
            }
        })
    };
    floats.filter(is_unknown).map(|column| column.name.clone()).collect()
}
