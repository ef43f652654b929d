//! The hot rows of a scope as a DataFusion scan, with what the statement's transaction has staged over them.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatchOptions, UInt64Array, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use seracdb_storage::StorageError;
use seracdb_storage::evolution::RowReader;
use seracdb_storage::history::PinnedTime;
use seracdb_storage::hot::{HotChunk, HotCursor, Versions};
use seracdb_storage::hot_cache::HotRows;
use seracdb_storage::keys::{Generation, Scope};
use seracdb_storage::snapshot::{ScopeView, Snapshot};
use seracdb_storage::system_columns::{CommitTs, deleted_array, id_array, updated_array};

use super::{ScopeTable, external};
use crate::transaction::{STAGED_FILE, StagedScope};

/// Where an output column comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Id,
    /// Place among the user columns that are decoded.
    User(usize),
    Updated,
    Deleted,
    File,
    Position,
}

/// Reads the newest version of each hot row, and those that are not committed.
#[derive(Debug)]
pub(super) struct HotRowsExec {
    rows: Arc<Rows>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

#[derive(Debug)]
struct Rows {
    snapshot: Arc<Snapshot>,
    cursor: HotCursor,
    /// Of all rows of these generations, when the scan is of all.
    whole: Option<(Scope, Vec<Generation>)>,
    staged: Option<StagedScope>,
    ids: RangeInclusive<i64>,
    reader: RowReader,
    /// Places of the user columns to decode.
    decoded: Vec<usize>,
    sources: Vec<Source>,
    schema: SchemaRef,
    /// Keeps what the statement reads of the past, in files too.
    _time: Option<Arc<PinnedTime>>,
    _held: Held,
}

/// Counts what the whole scan holds. It knows of the statement and that of its plan, so it is not shown with that.
struct Held {
    _memory: Option<MemoryReservation>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// Which versions of hot rows are read.
pub(super) enum HotVersions {
    /// Of each row the newest.
    Newest,
    /// The newest of commits up to this one, by a snapshot that has them.
    Until(Arc<Snapshot>, CommitTs, Option<Arc<PinnedTime>>),
    /// All of commits up to this one, tombstones too, by a snapshot that has them.
    All(Arc<Snapshot>, CommitTs, Arc<PinnedTime>),
}

/// How far a scan has read.
enum Reading {
    /// What the last scan of all has read.
    Known { rows: HotRows, next: usize },
    /// From RocksDB; `kept`: what was read so far, when it is to be kept.
    Stored { cursor: HotCursor, kept: Option<Vec<Arc<HotChunk>>>, bytes: usize },
}

impl HotRowsExec {
    /// `projection` counts on the located schema of the table; `memory`: counts what the whole scan holds.
    pub(super) fn new(
        table: &ScopeTable,
        view: &ScopeView,
        projection: &[usize],
        ids: RangeInclusive<i64>,
        versions: HotVersions,
        memory: Option<MemoryReservation>,
    ) -> DfResult<Self> {
        let columns = table.table.schema();
        let user_count = columns.columns.len();
        let mut decoded = Vec::new();
        let mut source = |column: usize| match column {
            0 => Source::Id,
            place if place <= user_count => {
                decoded.push(place - 1);
                Source::User(decoded.len() - 1)
            }
            place => [Source::Updated, Source::Deleted, Source::File, Source::Position][place - 1 - user_count],
        };
        let sources = projection.iter().map(|&column| source(column)).collect();
        let reader = RowReader::new(Arc::clone(&table.table)).map_err(|e| external(StorageError::from(e)))?;
        let generations = view.generations.clone();
        let (mut cursor, snapshot, time) = match versions {
            HotVersions::Newest => {
                (HotCursor::new(table.scope, generations, Versions::Live), Arc::clone(&table.snapshot), None)
            }
            HotVersions::Until(snapshot, at, time) => {
                (HotCursor::new(table.scope, generations, Versions::Live).not_after(at), snapshot, time)
            }
            HotVersions::All(snapshot, until, time) => {
                (HotCursor::new(table.scope, generations, Versions::All).not_after(until), snapshot, Some(time))
            }
        };
        cursor = cursor.within(ids.clone());
        if let Some(oldest) = table.not_before {
            cursor = cursor.not_before(oldest);
        }
        let schema = Arc::new(table.located().project(projection)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let staged = table.staged.clone();
        let is_whole = time.is_none() && table.not_before.is_none() && ids == (i64::MIN..=i64::MAX);
        let whole = is_whole.then(|| (table.scope, view.generations.clone()));
        let rows = Rows {
            snapshot,
            cursor,
            whole,
            staged,
            ids,
            reader,
            decoded,
            sources,
            schema,
            _time: time,
            _held: Held { _memory: memory },
        };
        Ok(Self { rows: Arc::new(rows), properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl Rows {
    /// Where to begin.
    fn begin(&self) -> Reading {
        let known = self.whole.as_ref().and_then(|(scope, of)| self.snapshot.cached_hot_rows(*scope, of));
        match known {
            Some(rows) => Reading::Known { rows, next: 0 },
            None => {
                Reading::Stored { cursor: self.cursor.clone(), kept: self.whole.is_some().then(Vec::new), bytes: 0 }
            }
        }
    }

    /// The next committed rows; `None` at the end. A whole scan that comes to its end is kept for the next one.
    fn next(&self, reading: &mut Reading, rows_max: usize) -> DfResult<Option<RecordBatch>> {
        let chunk = match reading {
            Reading::Known { rows, next } => {
                *next += 1;
                rows.get(*next - 1).cloned()
            }
            Reading::Stored { cursor, kept, bytes } => {
                let chunk = self.snapshot.hot_chunk(cursor, rows_max).map_err(external)?.map(Arc::new);
                match &chunk {
                    Some(chunk) => {
                        *bytes += chunk.size_bytes();
                        let may_keep = *bytes <= self.snapshot.cached_bytes_max();
                        *kept = kept.take().filter(|_| may_keep);
                        kept.iter_mut().for_each(|kept| kept.push(Arc::clone(chunk)));
                    }
                    None => {
                        if let (Some(rows), Some((scope, of))) = (kept.take(), &self.whole) {
                            self.snapshot.cache_hot_rows(*scope, of.clone(), Arc::new(rows));
                        }
                    }
                }
                chunk
            }
        };
        chunk.map(|chunk| self.committed(&chunk)).transpose()
    }

    /// Committed rows, without those that are changed.
    fn committed(&self, chunk: &HotChunk) -> DfResult<RecordBatch> {
        if let Some(staged) = &self.staged {
            let keep: Vec<bool> = chunk.ids.iter().map(|id| !staged.has_changed(*id)).collect();
            if keep.contains(&false) {
                return self.batch(&chunk.filter(&keep), true);
            }
        }
        self.batch(chunk, true)
    }

    /// The rows that are not committed.
    fn uncommitted(&self, rows_max: usize) -> DfResult<Vec<RecordBatch>> {
        let chunks = self.staged.iter().flat_map(|staged| staged.chunks(rows_max, |id| self.ids.contains(&id)));
        chunks.map(|chunk| self.batch(&chunk, false)).collect()
    }

    fn batch(&self, chunk: &HotChunk, committed: bool) -> DfResult<RecordBatch> {
        let user = chunk.decode(&self.reader, &self.decoded).map_err(external)?;
        let rows = chunk.len();
        let column = |source: &Source| -> ArrayRef {
            match source {
                Source::Id => id_array(chunk.ids.clone()),
                Source::User(place) => Arc::clone(&user[*place]),
                Source::Updated if committed => updated_array(chunk.updated.clone()),
                Source::Updated => new_null_array(updated_array(vec![]).data_type(), rows),
                Source::Deleted => deleted_array(chunk.deleted.clone()),
                Source::File => Arc::new(UInt64Array::from(vec![if committed { 0 } else { STAGED_FILE }; rows])),
                Source::Position => Arc::new(chunk.generations.iter().map(|g| i64::from(*g)).collect::<Int64Array>()),
            }
        };
        let columns = self.sources.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

impl DisplayAs for HotRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self.rows.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "HotRowsExec: projection=[{}]", names.join(", "))
    }
}

impl ExecutionPlan for HotRowsExec {
    fn name(&self) -> &'static str {
        "HotRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let rows = Arc::clone(&self.rows);
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let chunk_rows = context.session_config().batch_size();
        let schema = Arc::clone(&rows.schema);
        let (of_uncommitted, counted) = (Arc::clone(&rows), metrics.clone());
        let committed = futures::stream::try_unfold(rows.begin(), move |mut reading| {
            let (rows, metrics) = (Arc::clone(&rows), metrics.clone());
            async move {
                // A thread is taken for each chunk alone: a reader that stops reading holds none.
                let read = SpawnedTask::spawn_blocking(move || {
                    let timer = metrics.elapsed_compute().timer();
                    let batch = rows.next(&mut reading, chunk_rows)?;
                    timer.done();
                    metrics.record_output(batch.as_ref().map_or(0, RecordBatch::num_rows));
                    Ok(batch.map(|batch| (batch, reading)))
                });
                read.join_unwind().await.map_err(|_| external(StorageError::Stopped))?
            }
        });
        let uncommitted = futures::stream::once(async move {
            let batches = of_uncommitted.uncommitted(chunk_rows)?;
            counted.record_output(batches.iter().map(RecordBatch::num_rows).sum());
            Ok::<_, DataFusionError>(futures::stream::iter(batches.into_iter().map(Ok)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, committed.chain(uncommitted.try_flatten()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
