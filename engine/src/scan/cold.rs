//! The batch files of a scope as DataFusion's Parquet scan.
//!
//! The file list comes from the records: nothing is listed. What a file's mask hides is never read.
//!
//! ```text
//! files of the scope → not all masked → bounds → Bloom filters → opened: row groups → pages → rows
//!                      the record says          the sidecar      DataFusion's Parquet scan
//! ```
//!
//! Bulk files are a scan of their own: they have no column `_updated`, it is a partition value of each that its record says.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use chrono::DateTime;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use datafusion::physical_plan::ExecutionPlan;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use roaring::RoaringBitmap;
use seracdb_storage::objects::object_path;
use seracdb_storage::records::{BatchKind, BatchRecord};
use seracdb_storage::segment::ROW_GROUP_ROWS;
use seracdb_storage::snapshot::ScopeView;
use seracdb_storage::system_columns::CommitTs;

use crate::engine::{PruningConfig, Pushdown};
use crate::error::EngineError;

use super::evolved::EvolvedColumns;
use super::figures::{Figure, Figures, ScanTotals};
use super::prune::FileFilter;
use super::reader::{CountedReaders, CountedStore};
use super::sidecars::Sidecars;
use super::{ScopeTable, external, file_field, position_field};

/// Where the engine registers the object store.
pub(crate) const OBJECTS_URL: &str = "seracdb://objects/";

/// Files whose Bloom filters are in memory at the same time, whether they are kept or not.
const FILTERED_AT_ONCE: usize = 64;

/// What all scans of cold files share: an extension of the session's configuration.
#[derive(Debug)]
pub(crate) struct ColdTier {
    sidecars: Sidecars,
    pruning: PruningConfig,
    totals: Arc<ScanTotals>,
}

impl ColdTier {
    /// `filter_memory_max`: bytes of Bloom filters to keep.
    pub(crate) fn new(filter_memory_max: usize, pruning: PruningConfig) -> Self {
        Self { sidecars: Sidecars::new(filter_memory_max), pruning, totals: Arc::default() }
    }

    /// The figures of all scans since the start, by name.
    pub(crate) fn totals(&self) -> [(&'static str, u64); 8] {
        self.totals.values()
    }
}

/// Scans the files of a view that filters leave, in one plan or two. `projection` counts on the located schema; `memory`: counts
/// which rows of the files are read, where that is not known anyway.
pub(super) async fn scan(
    table: &ScopeTable,
    view: &ScopeView,
    projection: &[usize],
    filters: &[Expr],
    state: &dyn Session,
    limit: Option<usize>,
    memory: Option<&MemoryReservation>,
) -> DfResult<Vec<Arc<dyn ExecutionPlan>>> {
    let tier = state.config().get_extension::<ColdTier>();
    let tier = tier.ok_or_else(|| external(EngineError::internal("the session has no cold tier")))?;
    let is_bulk = |record: &BatchRecord| record.kind == BatchKind::Bulk;
    let main = Layout::of(table, projection, view.files.iter().all(is_bulk));
    let source = ParquetSource::new(main.schema(table));
    let figures = Figures::new(source.metrics(), Arc::clone(&tier.totals));
    let objects = state.runtime_env().object_store(&ObjectStoreUrl::parse(OBJECTS_URL)?)?;
    let store: Arc<dyn ObjectStore> = Arc::new(CountedStore::new(Arc::clone(&objects), figures.clone()));
    let filter = FileFilter::of(filters, &table.table, state.execution_props(), tier.pruning);
    let chosen = choose(&tier, &store, table, view, &filter, &figures).await;
    tracing::debug!(
        table = table.scope.table.0,
        batches_total = view.files.len(),
        batches_skipped = view.files.len() - chosen.len(),
        bloom_filter_tests = figures.value(Figure::BloomTests),
        bloom_filter_skips = figures.value(Figure::BloomSkips),
        "files chosen"
    );
    let evolved = EvolvedColumns::of(&table.table).map_err(external)?;
    let by_key = filter.has_keys();
    let scan = Scan { tier, view, projection, state, limit, memory, objects, evolved, by_key };
    let (of_main, bulk): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|file| main.is_bulk || !is_bulk(file.record));
    let mut plans = vec![scan.plan(source, &main, figures, &of_main)?];
    if !bulk.is_empty() {
        let layout = Layout::of(table, projection, true);
        let source = ParquetSource::new(layout.schema(table));
        let figures = Figures::new(source.metrics(), Arc::clone(&scan.tier.totals));
        plans.push(scan.plan(source, &layout, figures, &bulk)?);
    }
    Ok(plans)
}

/// What the plans of one scan share.
struct Scan<'a> {
    tier: Arc<ColdTier>,
    view: &'a ScopeView,
    projection: &'a [usize],
    state: &'a dyn Session,
    limit: Option<usize>,
    memory: Option<&'a MemoryReservation>,
    objects: Arc<dyn ObjectStore>,
    evolved: Arc<dyn PhysicalExprAdapterFactory>,
    /// Who asks for a key gets few rows: only the pages of those are decoded.
    by_key: bool,
}

/// How files of one kind hold the columns of a table: their own, partition values, virtual ones.
struct Layout {
    is_bulk: bool,
    with_location: bool,
    /// Columns of the table, system columns included and the location not.
    width: usize,
}

impl Layout {
    fn of(table: &ScopeTable, projection: &[usize], is_bulk: bool) -> Self {
        let width = table.located().fields().len() - 2;
        Self { is_bulk, with_location: projection.iter().any(|&column| column >= width), width }
    }

    /// The table as DataFusion reads it from these files.
    fn schema(&self, table: &ScopeTable) -> TableSchema {
        let located = table.located();
        let mut partition = Vec::new();
        let mut own = located.fields()[..self.width].to_vec();
        if self.is_bulk {
            own.remove(self.width - 2);
            partition.push(Arc::clone(&located.fields()[self.width - 2]));
        }
        let mut schema = TableSchema::builder(Arc::new(Schema::new(own)));
        if self.with_location {
            partition.push(Arc::new(file_field()));
            schema = schema.with_virtual_columns(vec![Arc::new(position_field())]);
        }
        schema.with_table_partition_cols(partition).build()
    }

    /// Where that has a column of the located schema.
    fn place(&self, column: usize) -> usize {
        match (self.is_bulk, self.width - column.min(self.width)) {
            // `_updated` is among the partition values, behind `_deleted`.
            (true, 2) => column + 1,
            (true, 1) => column - 1,
            _ => column,
        }
    }
}

impl Scan<'_> {
    fn plan(
        &self,
        source: ParquetSource,
        layout: &Layout,
        figures: Figures,
        chosen: &[Chosen<'_>],
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Self { tier, view, .. } = self;
        let pushdown = match tier.pruning.pushdown {
            Pushdown::Keys => self.by_key,
            Pushdown::Always => true,
            Pushdown::Never => false,
        };
        let mut files = Vec::with_capacity(chosen.len());
        let mut passed = HashSet::new();
        let (mut rows, mut masked) = (0, 0);
        for Chosen { record, tested } in chosen {
            let mask = view.masks.get(&record.batch_number).map(|mask| &**mask);
            let file = file(record, mask, layout, self.memory)?;
            // Only while decoding it is known which file a row came from.
            if *tested && pushdown {
                passed.insert(file.object_meta.location.clone());
            }
            rows += record.row_count;
            masked += mask.map_or(0, RoaringBitmap::len);
            files.push(file);
        }
        // A sidecar knows what the filter of a file's only row group does.
        let is_answered = |file: &Chosen<'_>| file.tested && file.record.row_count <= ROW_GROUP_ROWS as u64;
        let cache = self.state.runtime_env().cache_manager.get_file_metadata_cache();
        figures.add(Figure::RowsMasked, masked);
        let store = Arc::new(CountedStore::new(Arc::clone(&self.objects), figures.clone()));
        let readers = CountedReaders::new(store, cache, figures, passed);
        let mut statistics = Statistics::new_unknown(source.table_schema().table_schema());
        // Never exact: a count taken from statistics would be wrong as soon as one row is masked.
        statistics.num_rows = Precision::Inexact(rows.saturating_sub(masked) as usize);
        let source = source
            .with_table_parquet_options(self.options())
            .with_bloom_filter_on_read(tier.pruning.bloom && !chosen.iter().all(is_answered))
            .with_pushdown_filters(pushdown)
            .with_parquet_file_reader_factory(Arc::new(readers));
        let projection = self.projection.iter().map(|column| layout.place(*column)).collect();
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(OBJECTS_URL)?, Arc::new(source))
            .with_file_groups(groups(files, self.state.config().target_partitions()))
            .with_statistics(statistics)
            .with_expr_adapter(Some(Arc::clone(&self.evolved)))
            .with_projection_indices(Some(projection))?
            .with_limit(self.limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn options(&self) -> TableParquetOptions {
        let mut parquet = self.state.config_options().execution.parquet.clone();
        parquet.pruning = self.tier.pruning.bounds;
        parquet.enable_page_index = self.tier.pruning.page_index;
        TableParquetOptions { global: parquet, ..Default::default() }
    }
}

/// A file that may hold rows the filters let pass.
struct Chosen<'a> {
    record: &'a BatchRecord,
    /// Whether a Bloom filter said so.
    tested: bool,
}

/// The files that a scan has to open.
async fn choose<'a>(
    tier: &ColdTier,
    store: &Arc<dyn ObjectStore>,
    table: &ScopeTable,
    view: &'a ScopeView,
    filter: &FileFilter,
    figures: &Figures,
) -> Vec<Chosen<'a>> {
    let by_bounds = filter.by_bounds(&table.table, &view.files);
    let is_all_masked =
        |record: &BatchRecord| view.masks.get(&record.batch_number).is_some_and(|mask| mask.len() >= record.row_count);
    let possible: Vec<&BatchRecord> =
        view.files.iter().zip(by_bounds).filter(|(file, kept)| *kept && !is_all_masked(file)).map(|(f, _)| f).collect();
    let mut chosen = Vec::with_capacity(possible.len());
    if !filter.has_keys() {
        chosen.extend(possible.into_iter().map(|record| Chosen { record, tested: false }));
    } else {
        for records in possible.chunks(FILTERED_AT_ONCE) {
            let named: Vec<_> = records.iter().map(|record| record.bloom.clone()).collect();
            let filters = tier.sidecars.read(store, &named).await;
            for (record, filters) in records.iter().zip(filters) {
                let verdict = filters.map(|filters| filter.by_filters(&table.table, record, &filters));
                let tests = verdict.map_or(0, |verdict| verdict.tests);
                figures.add(Figure::BloomTests, tests);
                match verdict {
                    Some(verdict) if !verdict.may_match => figures.add(Figure::BloomSkips, 1),
                    _ => chosen.push(Chosen { record, tested: tests > 0 }),
                }
            }
        }
    }
    figures.add(Figure::Total, view.files.len() as u64);
    figures.add(Figure::Skipped, (view.files.len() - chosen.len()) as u64);
    chosen
}

/// One file as DataFusion reads it.
fn file(
    record: &BatchRecord,
    mask: Option<&RoaringBitmap>,
    layout: &Layout,
    memory: Option<&MemoryReservation>,
) -> DfResult<PartitionedFile> {
    let mut file = PartitionedFile::new_from_meta(ObjectMeta {
        location: object_path(&record.file_path).map_err(external)?,
        // Files never change: the metadata cache is to hit whenever path and size are the same.
        last_modified: DateTime::UNIX_EPOCH,
        size: record.size_bytes,
        e_tag: None,
        version: None,
    });
    let mut values = Vec::new();
    if layout.is_bulk {
        // One that is not committed yet has none.
        let updated = (record.min_updated > CommitTs::default()).then(|| record.min_updated.get());
        values.push(ScalarValue::TimestampNanosecond(updated, None));
    }
    if layout.with_location {
        values.push(ScalarValue::UInt64(Some(record.batch_number.0)));
    }
    if !values.is_empty() {
        file = file.with_partition_values(values);
    }
    Ok(match mask {
        None => file,
        Some(mask) => {
            let selection = unmasked(mask, record.row_count as usize);
            if let Some(memory) = memory {
                memory.try_grow(selection.iter().count() * size_of::<RowSelector>())?;
            }
            file.with_extension(ParquetRowSelection::new(selection))
        }
    })
}

/// The rows that a mask leaves.
fn unmasked(mask: &RoaringBitmap, row_count: usize) -> RowSelection {
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut at = 0;
    for position in mask.iter().map(|position| position as usize).take_while(|position| *position < row_count) {
        match selectors.last_mut() {
            Some(last) if last.skip && position == at => last.row_count += 1,
            _ => {
                if position > at {
                    selectors.push(RowSelector::select(position - at));
                }
                selectors.push(RowSelector::skip(1));
            }
        }
        at = position + 1;
    }
    if at < row_count {
        selectors.push(RowSelector::select(row_count - at));
    }
    RowSelection::from(selectors)
}

/// Spreads files over at most `partitions` groups of about the same size.
fn groups(files: Vec<PartitionedFile>, partitions: usize) -> Vec<FileGroup> {
    let count = partitions.clamp(1, files.len().max(1));
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![Default::default(); count];
    for file in files {
        if let Some((size, group)) = groups.iter_mut().min_by_key(|(size, _)| *size) {
            *size += file.object_meta.size;
            group.push(file);
        }
    }
    groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_leaves_out_exactly_the_masked_rows() {
        for masked in [vec![], vec![0], vec![4], vec![0, 1, 4], vec![1, 3], vec![0, 1, 2, 3, 4]] {
            let selection = unmasked(&RoaringBitmap::from_iter(masked.iter().copied()), 5);
            let mut kept = Vec::new();
            let mut at = 0;
            for selector in selection.iter() {
                if !selector.skip {
                    kept.extend(at..at + selector.row_count as u32);
                }
                at += selector.row_count as u32;
            }
            let expected: Vec<u32> = (0..5).filter(|position| !masked.contains(position)).collect();
            assert_eq!((kept, at), (expected, 5), "{masked:?}");
        }
    }
}
