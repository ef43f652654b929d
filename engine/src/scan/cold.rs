//! The batch files of a scope as DataFusion's Parquet scan.
//!
//! The file list comes from the records: nothing is listed. What a file's mask hides is never read.

use std::sync::Arc;

use chrono::DateTime;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{CachedParquetFileReaderFactory, ParquetRowSelection};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DfResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectMeta;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use roaring::RoaringBitmap;
use seracdb_storage::objects::object_path;
use seracdb_storage::records::BatchRecord;
use seracdb_storage::snapshot::ScopeView;

use super::{ScopeTable, external, file_field, position_field};

/// Where the engine registers the object store.
pub(crate) const OBJECTS_URL: &str = "seracdb://objects/";

/// Scans the files of a view. `projection` counts on the located schema.
pub(super) fn scan(
    table: &ScopeTable,
    view: &ScopeView,
    projection: &[usize],
    state: &dyn Session,
    limit: Option<usize>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let url = ObjectStoreUrl::parse(OBJECTS_URL)?;
    let with_location = projection.iter().any(|&column| column >= table.located().fields().len() - 2);
    let mut schema = TableSchema::builder(table.table.schema().full());
    if with_location {
        schema = schema
            .with_table_partition_cols(vec![Arc::new(file_field())])
            .with_virtual_columns(vec![Arc::new(position_field())]);
    }
    let store = state.runtime_env().object_store(&url)?;
    let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
    let mut parquet = state.config_options().execution.parquet.clone();
    parquet.bloom_filter_on_read = true;
    let options = datafusion::config::TableParquetOptions { global: parquet, ..Default::default() };
    let source = ParquetSource::new(schema.build())
        .with_table_parquet_options(options)
        .with_enable_page_index(true)
        .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(store, cache)));

    let mut files = Vec::with_capacity(view.files.len());
    for record in view.files.iter() {
        files.extend(file(record, view.masks.get(&record.batch_number).map(|mask| &**mask), with_location)?);
    }
    let rows: u64 = view.files.iter().map(|record| record.row_count).sum();
    let masked: u64 = view.masks.values().map(|mask| mask.len()).sum();
    let width = table.located().fields().len() - if with_location { 0 } else { 2 };
    let mut statistics = Statistics::new_unknown(&table.located().project(&(0..width).collect::<Vec<_>>())?);
    // Never exact: a count taken from statistics would be wrong as soon as one row is masked.
    statistics.num_rows = Precision::Inexact(rows.saturating_sub(masked) as usize);

    let config = FileScanConfigBuilder::new(url, Arc::new(source))
        .with_file_groups(groups(files, state.config().target_partitions()))
        .with_statistics(statistics)
        .with_projection_indices(Some(projection.to_vec()))?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// One file as DataFusion reads it; `None` when all of its rows are masked.
fn file(record: &BatchRecord, mask: Option<&RoaringBitmap>, with_location: bool) -> DfResult<Option<PartitionedFile>> {
    let mut file = PartitionedFile::new_from_meta(ObjectMeta {
        location: object_path(&record.file_path).map_err(external)?,
        // Files never change: the metadata cache is to hit whenever path and size are the same.
        last_modified: DateTime::UNIX_EPOCH,
        size: record.size_bytes,
        e_tag: None,
        version: None,
    });
    if with_location {
        file = file.with_partition_values(vec![ScalarValue::UInt64(Some(record.batch_number.0))]);
    }
    Ok(match mask {
        None => Some(file),
        Some(mask) if mask.len() >= record.row_count => None,
        Some(mask) => Some(file.with_extension(ParquetRowSelection::new(unmasked(mask, record.row_count as usize)))),
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
