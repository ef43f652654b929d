//! The hot rows of a scope as a DataFusion scan.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatchOptions, UInt64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use seracdb_storage::StorageError;
use seracdb_storage::hot::{HotChunk, HotCursor, Versions};
use seracdb_storage::row_codec::RowLayout;
use seracdb_storage::snapshot::{ScopeView, Snapshot};
use seracdb_storage::system_columns::{deleted_array, id_array, updated_array};

use super::{ScopeTable, external};

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

/// Reads the newest version of each hot row.
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
    layout: RowLayout,
    /// Places of the user columns to decode.
    decoded: Vec<usize>,
    sources: Vec<Source>,
    schema: SchemaRef,
}

impl HotRowsExec {
    /// `projection` counts on the located schema of the table.
    pub(super) fn new(
        table: &ScopeTable,
        view: &ScopeView,
        projection: &[usize],
        ids: RangeInclusive<i64>,
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
        let layout = RowLayout::new(columns.version, &columns.user_fields().into())
            .map_err(|e| external(StorageError::from(e)))?;
        let mut cursor = HotCursor::new(table.scope, view.generations.clone(), Versions::Live).within(ids);
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
        let rows = Rows { snapshot: Arc::clone(&table.snapshot), cursor, layout, decoded, sources, schema };
        Ok(Self { rows: Arc::new(rows), properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl Rows {
    fn batch(&self, chunk: HotChunk) -> DfResult<RecordBatch> {
        let user = chunk.decode(&self.layout, &self.decoded).map_err(|e| external(StorageError::from(e)))?;
        let rows = chunk.len();
        let column = |source: &Source| -> ArrayRef {
            match source {
                Source::Id => id_array(chunk.ids.clone()),
                Source::User(place) => Arc::clone(&user[*place]),
                Source::Updated => updated_array(chunk.updated.clone()),
                Source::Deleted => deleted_array(chunk.deleted.clone()),
                Source::File => Arc::new(UInt64Array::from(vec![0; rows])),
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
        let chunks = futures::stream::try_unfold(rows.cursor.clone(), move |mut cursor| {
            let (rows, metrics) = (Arc::clone(&rows), metrics.clone());
            async move {
                // A thread is taken for each chunk alone: a reader that stops reading holds none.
                let read = SpawnedTask::spawn_blocking(move || {
                    let timer = metrics.elapsed_compute().timer();
                    let chunk = rows.snapshot.hot_chunk(&mut cursor, chunk_rows).map_err(external)?;
                    let batch = chunk.map(|chunk| rows.batch(chunk)).transpose()?;
                    timer.done();
                    metrics.record_output(batch.as_ref().map_or(0, RecordBatch::num_rows));
                    Ok(batch.map(|batch| (batch, cursor)))
                });
                read.join_unwind().await.map_err(|_| external(StorageError::Stopped))?
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, chunks)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
