//! How the Parquet scan reads files: through the cache of footers, and counted.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::Result as DfResult;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricValue};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::ParquetMetaData;

use super::figures::{Figure, Figures};

/// Of a scan that opens more files than this, it is not counted how many gave no row: all of a scan's metrics are looked
/// through for each.
const LOOKED_AT_MAX: u64 = 256;

/// Makes the readers of one scan.
pub(super) struct CountedReaders {
    inner: CachedParquetFileReaderFactory,
    figures: Figures,
    /// Files that Bloom filters let pass.
    passed: Arc<Mutex<HashMap<Path, Passed>>>,
    opened: Mutex<HashSet<Path>>,
}

/// A file that Bloom filters let pass.
#[derive(Default)]
struct Passed {
    /// One reader is replaced by another before the file is decoded, and partitions may share a file.
    readers: usize,
    is_counted: bool,
}

impl fmt::Debug for CountedReaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountedReaders").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl CountedReaders {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        footers: Arc<FileMetadataCache>,
        figures: Figures,
        passed: HashSet<Path>,
    ) -> Self {
        let passed = passed.into_iter().map(|path| (path, Passed::default())).collect();
        Self {
            inner: CachedParquetFileReaderFactory::new(store, footers),
            figures,
            passed: Arc::new(Mutex::new(passed)),
            opened: Mutex::default(),
        }
    }
}

impl ParquetFileReaderFactory for CountedReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> DfResult<Box<dyn AsyncFileReader + Send>> {
        let path = file.object_meta.location.clone();
        // Partitions may share a file.
        if self.opened.lock().insert(path.clone()) {
            self.figures.add(Figure::Scanned, 1);
        }
        let is_looked_at = self.figures.value(Figure::Scanned) <= LOOKED_AT_MAX;
        let reader = self.inner.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        match self.passed.lock().get_mut(&path) {
            Some(passed) if is_looked_at => passed.readers += 1,
            _ => return Ok(reader),
        }
        let (passed, figures) = (Arc::clone(&self.passed), self.figures.clone());
        Ok(Box::new(LookedAt { reader, path, passed, metrics: metrics.clone(), figures }))
    }
}

/// A reader of a file that Bloom filters let pass. When the last one is done, the scan's metrics tell whether a row has matched: such
/// a scan filters while it decodes.
struct LookedAt {
    reader: Box<dyn AsyncFileReader + Send>,
    path: Path,
    passed: Arc<Mutex<HashMap<Path, Passed>>>,
    metrics: ExecutionPlanMetricsSet,
    figures: Figures,
}

impl Drop for LookedAt {
    fn drop(&mut self) {
        let mut passed = self.passed.lock();
        let Some(file) = passed.get_mut(&self.path) else { return };
        file.readers -= 1;
        if file.readers > 0 || file.is_counted {
            return;
        }
        let of_file = |labels: &[datafusion::physical_plan::metrics::Label]| {
            labels.iter().any(|label| label.name() == "filename" && label.value() == self.path.as_ref())
        };
        let matched = self.metrics.clone_inner().iter().any(|metric| match metric.value() {
            MetricValue::Count { name, count } if name == "pushdown_rows_matched" => {
                count.value() > 0 && of_file(metric.labels())
            }
            _ => false,
        });
        if !matched {
            file.is_counted = true;
            self.figures.add(Figure::BloomFalsePositives, 1);
        }
    }
}

impl AsyncFileReader for LookedAt {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.reader.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.reader.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.reader.get_metadata(options)
    }
}

/// Counts what is read from an object store.
#[derive(Debug)]
pub(super) struct CountedStore {
    store: Arc<dyn ObjectStore>,
    figures: Figures,
}

impl CountedStore {
    pub(super) fn new(store: Arc<dyn ObjectStore>, figures: Figures) -> Self {
        Self { store, figures }
    }
}

impl fmt::Display for CountedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for CountedStore {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let is_head = options.head;
        let result = self.store.get_opts(path, options).await?;
        if !is_head {
            self.figures.add(Figure::BytesRead, result.range.end - result.range.start);
        }
        Ok(result)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        let read = self.store.get_ranges(path, ranges).await?;
        self.figures.add(Figure::BytesRead, read.iter().map(|bytes| bytes.len() as u64).sum());
        Ok(read)
    }

    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.store.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
