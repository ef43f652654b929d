//! New files of one scope: built in a scratch file, placed durably, described by a record.

use std::collections::{BTreeSet, HashSet};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::bloom::{self, FilterPlan};
use crate::catalog::{Catalog, TableRecord};
use crate::commit::{ActiveFile, LogChange};
use crate::delete_log::MaskedRow;
use crate::delete_vector;
use crate::error::{Result, StorageError};
use crate::evolution::{Evolution, RowReader};
use crate::keys::{BatchNumber, Scope, decode_delete_log_key};
use crate::objects::Objects;
use crate::paths;
use crate::records::{BatchKind, BatchRecord, BatchStatus, DeletesRef, ScopeHeader};
use crate::schema::TableSchema;
use crate::scope_place::ScopePlace;
use crate::segment::{FOOTER_FORMAT, Footer, Segment, SegmentWriter};
use crate::snapshot::Snapshot;
use crate::system_columns::CommitTs;

/// A scope as of a snapshot, for who writes files of it.
pub(crate) struct ScopeFiles {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) header: ScopeHeader,
    new: NewFiles,
}

impl Deref for ScopeFiles {
    type Target = NewFiles;

    fn deref(&self) -> &NewFiles {
        &self.new
    }
}

/// What the files of a scope are made by.
pub(crate) struct NewFiles {
    pub(crate) scope: Scope,
    filters: FilterPlan,
    pub(crate) reader: Arc<RowReader>,
    pub(crate) place: ScopePlace,
    /// The last commit that is visible while they are written.
    as_of: CommitTs,
}

/// A file that is being built. It is removed with this, placed or not.
pub(crate) struct ScratchFile(PathBuf);

impl Drop for ScratchFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, file = %self.0.display(), "a scratch file stays until the next start");
        }
    }
}

/// A file that takes rows.
pub(crate) struct Unfinished {
    file: ScratchFile,
    kind: BatchKind,
    replaces: Vec<BatchNumber>,
    pub(crate) rows: SegmentWriter,
}

/// A finished file that is not placed yet.
pub(crate) struct Scratch {
    file: ScratchFile,
    kind: BatchKind,
    replaces: Vec<BatchNumber>,
    pub(crate) segment: Segment,
}

impl Unfinished {
    /// `number`: the batch that it becomes.
    pub(crate) fn finish(self, number: BatchNumber) -> Result<Scratch> {
        let segment = self.rows.finish(number)?;
        Ok(Scratch { file: self.file, kind: self.kind, replaces: self.replaces, segment })
    }
}

impl NewFiles {
    pub(crate) fn new(catalog: &Catalog, scope: Scope, as_of: CommitTs) -> Result<Self> {
        // A table that was dropped meanwhile has nothing to write.
        let table = catalog.table_by_id(scope.table).ok_or(StorageError::Conflict)?;
        Self::of_table(table, ScopePlace::of(catalog, scope)?, as_of)
    }

    /// The same for a table that the catalog need not have.
    pub(crate) fn of_table(table: &Arc<TableRecord>, place: ScopePlace, as_of: CommitTs) -> Result<Self> {
        let reader = Arc::new(RowReader::new(Arc::clone(table))?);
        Ok(Self { scope: place.scope, filters: FilterPlan::of(table), reader, place, as_of })
    }

    /// The columns of the files.
    pub(crate) fn schema(&self) -> &TableSchema {
        self.reader.table().schema()
    }

    /// How the columns of a file become those of the table now.
    pub(crate) fn evolution(&self, file: &BatchRecord) -> Result<Evolution> {
        let table = self.reader.table();
        let known = table.schema_of(file.schema_version);
        let unknown =
            || StorageError::Damaged(format!("the table had no version {} of its columns", file.schema_version));
        Evolution::between(known.ok_or_else(unknown)?, table.schema())
    }

    /// Where a file of this number comes to lie.
    pub(crate) fn path_of(&self, objects: &Objects, number: BatchNumber) -> String {
        format!("{}/{}", self.place.prefix, paths::batch_file(number, objects.name_epoch()))
    }

    /// Starts a file. `name` tells it from other scratch files of its kind and scope; `with_nan`: names of the float columns that will hold NaN.
    pub(crate) fn create(
        &self,
        objects: &Objects,
        name: &str,
        kind: BatchKind,
        replaces: Vec<BatchNumber>,
        with_nan: &HashSet<String>,
    ) -> Result<Unfinished> {
        let name = format!("{}-{}-{name}-{kind:?}", self.scope.table.0, self.scope.owner.0);
        let (path, file) = objects.scratch_file(&name)?;
        let scratch = ScratchFile(path);
        let footer = self.footer(kind, replaces.clone(), objects.epoch());
        let rows = SegmentWriter::create(file, Arc::clone(&self.reader), footer, with_nan, &self.filters)?;
        Ok(Unfinished { file: scratch, kind, replaces, rows })
    }

    fn footer(&self, kind: BatchKind, replaces: Vec<BatchNumber>, epoch: u64) -> Footer {
        Footer {
            format_version: FOOTER_FORMAT,
            table_id: self.scope.table,
            scope: self.place.scope_name(),
            kind,
            replaces,
            schema_version: self.schema().version,
            // Known when the rows are written.
            batch_number: BatchNumber(0),
            min_updated: CommitTs::default(),
            max_updated: CommitTs::default(),
            as_of: self.as_of,
            epoch,
        }
    }

    /// Makes a finished file durable at its place, and gives its record.
    pub(crate) async fn place(&self, objects: &Objects, number: BatchNumber, file: &Scratch) -> Result<BatchRecord> {
        let path = self.path_of(objects, number);
        objects.put_file(&file.file.0, &path).await?;
        let segment = &file.segment;
        let bloom = bloom::place(objects, &self.place.prefix, number, segment.sidecar.as_deref()).await?;
        Ok(BatchRecord {
            batch_number: number,
            file_path: path,
            kind: file.kind,
            status: if file.kind == BatchKind::Archive { BatchStatus::Archived } else { BatchStatus::Active },
            min_updated: segment.min_updated,
            max_updated: segment.max_updated,
            column_min_max: segment.bounds.clone(),
            row_count: segment.row_count,
            size_bytes: segment.size_bytes,
            checksum: segment.checksum,
            schema_version: self.schema().version,
            replaces: file.replaces.clone(),
            tombstones: segment.tombstones.len() as u64,
            deletes: None,
            archived_at: None,
            since: None,
            bloom,
            unknown: Default::default(),
        })
    }
}

impl ScopeFiles {
    pub(crate) fn new(snapshot: Arc<Snapshot>, scope: Scope) -> Result<Self> {
        let new = NewFiles::new(snapshot.catalog(), scope, snapshot.ts())?;
        let header = snapshot.header(scope)?.unwrap_or_default();
        Ok(Self { snapshot, header, new })
    }

    /// Places a file that queries are to read, with its delete vector. `flushed_to`: the last commit that is in files
    /// when it counts.
    pub(crate) async fn place_active(
        &self,
        objects: &Objects,
        number: BatchNumber,
        file: Scratch,
        masked: Vec<MaskedRow>,
        flushed_to: CommitTs,
    ) -> Result<ActiveFile> {
        let record = self.place(objects, number, &file).await?;
        let settled = masked.iter().filter(|row| row.superseded_by <= flushed_to).map(|row| row.position).collect();
        let record = self.with_vector(objects, record, &settled, flushed_to).await?;
        let Segment { ids, updated, .. } = file.segment;
        Ok(ActiveFile { record, masked, ids: Arc::new(ids), updated: Arc::new(updated) })
    }

    /// The records of files whose delete vector is to hold more when every commit up to `flushed_to` is in files. The
    /// vectors are written; the old ones are still there.
    pub(crate) async fn renewed_vectors(
        &self,
        objects: &Objects,
        flushed_to: CommitTs,
        without: &[BatchNumber],
    ) -> Result<Vec<BatchRecord>> {
        let view = self.snapshot.scope(self.scope)?;
        let unsettled = self.unsettled(flushed_to)?;
        let mut renewed = Vec::new();
        for record in view.files.iter().filter(|record| !without.contains(&record.batch_number)) {
            let Some(mask) = view.masks.get(&record.batch_number) else { continue };
            let settled = match unsettled.iter().find(|(file, _)| *file == record.batch_number) {
                Some((_, later)) => &**mask - later,
                None => (**mask).clone(),
            };
            if record.deletes.as_ref().map_or(0, |deletes| deletes.cardinality) != settled.len() {
                renewed.push(self.with_vector(objects, record.clone(), &settled, flushed_to).await?);
            }
        }
        Ok(renewed)
    }

    /// Positions, by file, whose newer version is not in a file when every commit up to `flushed_to` is.
    pub(crate) fn unsettled(&self, flushed_to: CommitTs) -> Result<Vec<(BatchNumber, RoaringBitmap)>> {
        let mut unsettled: Vec<(BatchNumber, RoaringBitmap)> = Vec::new();
        // An entry is never written before the commits that it is about.
        self.snapshot.visit_delete_log(self.scope, flushed_to, |key, rows| {
            let Some((_, file)) = decode_delete_log_key(key) else { return Ok(()) };
            let later = rows()?.into_iter().filter(|row| row.superseded_by > flushed_to).map(|row| row.position);
            match unsettled.iter_mut().find(|(known, _)| *known == file) {
                Some((_, positions)) => positions.extend(later),
                None => unsettled.push((file, later.collect())),
            }
            Ok(())
        })?;
        Ok(unsettled)
    }

    /// What the delete log says of these files, an entry each, and the keys of all entries that say so.
    pub(crate) fn log_of(&self, files: &BTreeSet<BatchNumber>) -> Result<LogChange> {
        let mut log = LogChange::default();
        if files.is_empty() {
            return Ok(log);
        }
        self.snapshot.visit_delete_log(self.scope, CommitTs::stored(i64::MIN), |key, rows| {
            if let Some((_, file)) = decode_delete_log_key(key).filter(|(_, file)| files.contains(file)) {
                log.merged.entry(file).or_default().extend(rows()?);
                log.needless.push(key.to_vec());
            }
            Ok(())
        })?;
        for rows in log.merged.values_mut() {
            rows.sort_unstable();
            rows.dedup_by_key(|row| row.position);
        }
        Ok(log)
    }

    /// A record with the delete vector of these positions, which is written.
    pub(crate) async fn with_vector(
        &self,
        objects: &Objects,
        record: BatchRecord,
        positions: &RoaringBitmap,
        as_of: CommitTs,
    ) -> Result<BatchRecord> {
        if positions.is_empty() {
            return Ok(record);
        }
        let path =
            format!("{}/{}", self.place.prefix, paths::vector_file(record.batch_number, as_of, objects.name_epoch()));
        let bytes = delete_vector::encode(positions);
        let size_bytes = bytes.len() as u64;
        objects.put(&path, bytes.into(), None).await?;
        Ok(BatchRecord {
            deletes: Some(DeletesRef { path, cardinality: positions.len(), as_of, size_bytes }),
            ..record
        })
    }
}
