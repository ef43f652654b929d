//! Batch files without their records: what their footers say, and which of them count.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::resolve::Versions;
use crate::bounds::column_bounds;
use crate::bulk::proof::Proof;
use crate::catalog::TableRecord;
use crate::error::{Result, StorageError};
use crate::keys::BatchNumber;
use crate::records::{BatchKind, BatchRecord, BatchStatus};
use crate::segment::{FOOTER_FORMAT, Footer};

/// A batch file as its footer describes it.
#[derive(Debug, Clone)]
pub(super) struct BatchFile {
    pub(super) footer: Footer,
    /// The record that it has, or would have.
    pub(super) record: BatchRecord,
    pub(super) versions: Arc<Versions>,
}

/// Which files count.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// The files to read.
    pub(super) read: Vec<BatchFile>,
    /// Older versions, and files that others took the place of.
    pub(super) archived: Vec<BatchRecord>,
    /// Paths of files that nothing proves to be committed.
    pub(super) without_proof: Vec<String>,
}

/// Reads a file; `None`, with a warning, when it is no batch file. One of a newer build is an error: it may hold the newest
/// rows. `proof`: that a bulk file was committed.
pub(super) fn read(
    path: String,
    bytes: Bytes,
    table: &TableRecord,
    proof: Option<&Proof>,
) -> Result<Option<BatchFile>> {
    match try_read(&path, bytes, table, proof) {
        Ok(file) if file.footer.format_version > FOOTER_FORMAT => {
            let (found, known) = (file.footer.format_version, FOOTER_FORMAT);
            Err(StorageError::FormatVersion { path: path.into(), found, known })
        }
        Ok(file) => Ok(Some(file)),
        Err(error) => {
            tracing::warn!(file = path, error, "ignored: no batch file");
            Ok(None)
        }
    }
}

fn try_read(path: &str, bytes: Bytes, table: &TableRecord, proof: Option<&Proof>) -> Result<BatchFile, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let metadata = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|e| text(&e))?.metadata().clone();
    let footer = Footer::read(&metadata)?;
    let schema = table.schema_of(footer.schema_version);
    let schema =
        schema.ok_or_else(|| format!("the table never had version {} of its columns", footer.schema_version))?;
    let proof = proof.filter(|proof| footer.kind == BatchKind::Bulk && proof.batch_number == footer.batch_number);
    // Without a proof nothing is read of a bulk file.
    let updated = (footer.kind == BatchKind::Bulk).then(|| proof.map(|proof| proof.updated).unwrap_or_default());
    let versions = Versions::read(bytes.clone(), updated).map_err(|e| text(&e))?;
    let record = BatchRecord {
        batch_number: footer.batch_number,
        file_path: path.to_owned(),
        kind: footer.kind,
        status: BatchStatus::Active,
        min_updated: footer.min_updated,
        max_updated: footer.max_updated,
        column_min_max: column_bounds(&metadata, &schema.file()),
        row_count: versions.ids.len() as u64,
        size_bytes: bytes.len() as u64,
        checksum: crc32fast::hash(&bytes),
        schema_version: footer.schema_version,
        replaces: footer.replaces.clone(),
        tombstones: versions.deleted.iter().filter(|deleted| **deleted).count() as u64,
        deletes: None,
        archived_at: None,
        since: None,
        // Its filters are read from the file.
        bloom: None,
        unknown: Default::default(),
    };
    let record = match proof {
        Some(proof) => record.committed_at(proof.updated, 0),
        None => record,
    };
    Ok(BatchFile { footer, record, versions: Arc::new(versions) })
}

/// Which of a scope's files are to be read.
///
/// - A flushed file counts: its rows were committed before it was written.
/// - A compacted file counts when one of its inputs is gone: inputs go only after it was committed. While all of them are
///   there, they say the same.
/// - A bulk file counts with its proof: its rows were committed with its record, which is lost.
/// - Of two files of one number the later owner's counts.
/// - What a file that counts has replaced is archived, as are files of older versions.
pub(super) fn choose(mut files: Vec<BatchFile>) -> Chosen {
    files.sort_by_key(|file| (file.footer.batch_number, std::cmp::Reverse(file.footer.epoch)));
    let mut chosen = Chosen::default();
    let mut last = None;
    files.retain(|file| {
        let is_first = last.replace(file.footer.batch_number) != Some(file.footer.batch_number);
        if !is_first {
            chosen.without_proof.push(file.record.file_path.clone());
        }
        is_first
    });
    let there: HashSet<BatchNumber> = files.iter().map(|file| file.footer.batch_number).collect();
    let counts = |file: &BatchFile| match file.footer.kind {
        BatchKind::Flush | BatchKind::Archive => true,
        BatchKind::Compact => file.footer.replaces.iter().any(|input| !there.contains(input)),
        BatchKind::Bulk => file.record.since.is_some(),
    };
    let counting = files.iter().filter(|file| counts(file));
    let replaced: HashSet<BatchNumber> = counting.flat_map(|file| file.footer.replaces.iter().copied()).collect();
    for file in files {
        if !counts(&file) {
            chosen.without_proof.push(file.record.file_path);
        } else if file.footer.kind == BatchKind::Archive || replaced.contains(&file.footer.batch_number) {
            chosen.archived.push(BatchRecord { status: BatchStatus::Archived, ..file.record });
        } else {
            chosen.read.push(file);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::TableId;
    use crate::records::tests::record;

    fn file(number: u64, kind: BatchKind, replaces: &[u64]) -> BatchFile {
        let footer = Footer {
            format_version: 1,
            table_id: TableId(1),
            scope: "shared".into(),
            batch_number: BatchNumber(number),
            kind,
            replaces: replaces.iter().map(|number| BatchNumber(*number)).collect(),
            schema_version: 1,
            min_updated: Default::default(),
            max_updated: Default::default(),
            as_of: Default::default(),
            epoch: 0,
        };
        let record = record(number, &number.to_string(), 1);
        BatchFile { footer, record, versions: Arc::default() }
    }

    /// Numbers that are read, archived and ignored.
    fn chosen(files: &[BatchFile]) -> (Vec<u64>, Vec<u64>, Vec<String>) {
        let chosen = choose(files.to_vec());
        let read = chosen.read.iter().map(|file| file.record.batch_number.0).collect();
        (read, chosen.archived.iter().map(|record| record.batch_number.0).collect(), chosen.without_proof)
    }

    #[test]
    fn a_compacted_file_counts_when_an_input_is_gone() {
        use BatchKind::{Archive, Bulk, Compact, Flush};
        let all = [file(1, Flush, &[]), file(2, Flush, &[]), file(3, Archive, &[]), file(4, Compact, &[1, 2])];
        assert_eq!(chosen(&all), (vec![1, 2], vec![3], vec!["4".into()]));
        assert_eq!(chosen(&all[1..]), (vec![4], vec![2, 3], vec![]));
        // 5 was made of 4 and 2 when 1 was gone.
        let later = [&all[1..], &[file(5, Compact, &[4, 2]), file(6, Flush, &[])]].concat();
        assert_eq!(chosen(&later), (vec![4, 6], vec![2, 3], vec!["5".into()]));
        let without_4: Vec<BatchFile> = later.into_iter().filter(|f| f.footer.batch_number.0 != 4).collect();
        assert_eq!(chosen(&without_4), (vec![5, 6], vec![2, 3], vec![]));
        let mut bulk = file(1, Bulk, &[]);
        assert_eq!(chosen(&[bulk.clone()]), (vec![], vec![], vec!["1".into()]));
        bulk.record = bulk.record.committed_at(Default::default(), 0);
        assert_eq!(chosen(&[bulk]), (vec![1], vec![], vec![]));
    }

    #[test]
    fn of_two_files_of_one_number_the_later_owners_counts() {
        let mut later = file(1, BatchKind::Flush, &[]);
        later.footer.epoch = 2;
        later.record.file_path = "1-e2".into();
        let chosen = choose(vec![file(1, BatchKind::Flush, &[]), later]);
        assert_eq!((chosen.read[0].record.file_path.as_str(), chosen.without_proof), ("1-e2", vec!["1".to_owned()]));
    }
}
