//! What can be wrong with a manifest and the files it names, decided without reading anything.

use std::collections::{BTreeMap, HashSet};

use super::{MANIFEST_FORMAT, Manifest};
use crate::keys::{BatchNumber, TableId};
use crate::objects::Listed;
use crate::paths;
use crate::records::{BatchKind, BatchRecord, BatchStatus};
use crate::scope_place::ScopePlace;

/// Why a manifest, or a file that it names, cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is none.
    #[error("there is no manifest.json")]
    Missing,
    /// It is no manifest.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It was written by a build that knows more.
    #[error("its format version is {found}, and this build reads {MANIFEST_FORMAT}: use a newer build")]
    Newer {
        /// What it says.
        found: u32,
    },
    /// It is another scope's.
    #[error("it is the manifest of the scope '{scope}' of table {table}", table = table.0)]
    OfAnother {
        /// The table that it names.
        table: TableId,
        /// The scope that it names.
        scope: String,
    },
    /// A batch contradicts the rest of it.
    #[error("its entry of batch {0} contradicts the rest")]
    Contradiction(BatchNumber),
    /// It does not show the records.
    #[error("it shows version {found} of the records, not {expected}")]
    Outdated {
        /// What it shows.
        found: u64,
        /// What it should show.
        expected: u64,
    },
    /// It shows other records under the same version.
    #[error("its batches are not those of the records")]
    Differs,
    /// A file is not there.
    #[error("{0} is missing")]
    FileMissing(String),
    /// A file is not as long as it was.
    #[error("{path} has {found} bytes, not {expected}")]
    FileLength {
        /// The file.
        path: String,
        /// Its length.
        found: u64,
        /// What it should be.
        expected: u64,
    },
}

impl Fault {
    /// Whether it is about this file.
    pub(crate) fn is_of(&self, file: &str) -> bool {
        matches!(self, Self::FileMissing(path) | Self::FileLength { path, .. } if path == file)
    }
}

impl Manifest {
    /// Whether its parts agree with each other.
    pub(super) fn check_itself(&self) -> Result<(), Fault> {
        let mut last = BatchNumber(0);
        for batch in &self.batches {
            let in_order = last < batch.batch_number && batch.batch_number <= self.max_batch;
            if !in_order || batch.min_updated > batch.max_updated || batch.file_path.is_empty() {
                return Err(Fault::Contradiction(batch.batch_number));
            }
            last = batch.batch_number;
        }
        Ok(())
    }

    /// Whether it is this scope's.
    pub(crate) fn check_place(&self, place: &ScopePlace) -> Result<(), Fault> {
        if self.table_id == place.scope.table && self.scope == place.scope_name() {
            return Ok(());
        }
        Err(Fault::OfAnother { table: self.table_id, scope: self.scope.clone() })
    }

    /// Whether it shows these records, of this version.
    pub(crate) fn check_records(&self, version: u64, records: &[BatchRecord]) -> Result<(), Fault> {
        if self.version != version {
            return Err(Fault::Outdated { found: self.version, expected: version });
        }
        match self.batches.iter().eq(exported(records)) {
            true => Ok(()),
            false => Err(Fault::Differs),
        }
    }
}

/// The records that a manifest shows.
pub(super) fn exported(records: &[BatchRecord]) -> impl Iterator<Item = &BatchRecord> {
    records.iter().filter(|record| record.status != BatchStatus::Removing)
}

/// What is wrong with the batch files and delete vectors of these records.
pub(crate) fn check_files(records: &[BatchRecord], listed: &BTreeMap<String, Listed>) -> Vec<Fault> {
    let vectors = exported(records).filter_map(|record| record.deletes.as_ref()).map(|d| (&d.path, d.size_bytes));
    let files = exported(records).map(|record| (&record.file_path, record.size_bytes)).chain(vectors);
    let fault = |(path, expected): (&String, u64)| match listed.get(path) {
        None => Some(Fault::FileMissing(path.clone())),
        Some(&Listed { size_bytes: found, .. }) if found != expected => {
            Some(Fault::FileLength { path: path.clone(), found, expected })
        }
        Some(_) => None,
    };
    files.filter_map(fault).collect()
}

/// What no record names: left by a flush or compaction that died between file and record. Files up to the number `spared`
/// stay, see [`crate::records::ScopeHeader`]. `wrote`: whether this data directory gave out names of this epoch; what
/// another owner wrote is not ours to judge.
pub(crate) fn orphans<'a>(
    records: &[BatchRecord],
    listed: &'a BTreeMap<String, Listed>,
    spared: BatchNumber,
    wrote: impl Fn(Option<u64>) -> bool,
) -> Vec<(&'a String, Listed)> {
    let named: HashSet<&str> = records
        .iter()
        .flat_map(|record| {
            let vector = record.deletes.as_ref().map(|deletes| deletes.path.as_str());
            let filters = record.bloom.as_ref().map(|bloom| bloom.file_path.as_str());
            [Some(record.file_path.as_str()), vector, filters].into_iter().flatten()
        })
        .collect();
    let proofs: HashSet<String> = records
        .iter()
        .filter(|record| record.kind == BatchKind::Bulk)
        .map(|record| paths::proof_of(&record.file_path))
        .collect();
    let is_orphan = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_batch = !named.contains(path.as_str())
            && !proofs.contains(path)
            && paths::number_of_batch_name(name).is_some_and(|number| number > spared)
            && paths::epoch_of_batch_name(name).is_some_and(&wrote);
        // What was being written when its process died; a folder is never another owner's.
        is_batch || paths::is_temporary(name)
    };
    listed.iter().filter(|(path, _)| is_orphan(path)).map(|(path, listed)| (path, *listed)).collect()
}

/// How long an orphan stays. One that is being written is not named yet.
pub(crate) fn grace_of(path: &str, grace_ns: i64) -> i64 {
    const WRITTEN_IN_NS: i64 = 60_000_000_000;
    match paths::is_temporary(path.rsplit('/').next().unwrap_or_default()) {
        true => grace_ns.max(WRITTEN_IN_NS),
        false => grace_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::record;

    fn listed(names: &[(&str, u64)]) -> BTreeMap<String, Listed> {
        let listed = |size_bytes| Listed { size_bytes, modified_ns: 0 };
        names.iter().map(|(name, size)| ((*name).to_owned(), listed(*size))).collect()
    }

    #[test]
    fn files_are_there_with_their_lengths() {
        let records = [record(1, "s/batch-0001.parquet", 10), record(2, "s/batch-0002.parquet", 20)];
        let all = [("s/batch-0001.parquet", 10), ("s/batch-0002.parquet", 20), ("s/batch-0003.parquet", 1)];
        assert_eq!(check_files(&records, &listed(&all)), []);
        let faults = check_files(&records, &listed(&[("s/batch-0001.parquet", 11)]));
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["s/batch-0001.parquet has 11 bytes, not 10", "s/batch-0002.parquet is missing"]);
    }

    #[test]
    fn only_our_batches_that_no_record_names_are_orphans() {
        let records = [BatchRecord { kind: BatchKind::Bulk, ..record(1, "s/batch-0001.parquet", 10) }];
        let all = listed(&[
            ("s/manifest.json", 1),
            ("s/batch-0001.parquet", 10),
            ("s/batch-0002.parquet", 10),
            ("s/batch-0002.bloom", 10),
            ("s/batch-0001.deletes-17", 10),
            ("s/batch-0003-e4.parquet", 10),
            ("s/batch-0003-e5.parquet", 10),
            ("s/batch-0001.committed", 10),
            ("s/batch-0002.committed", 10),
            ("s/notes.txt", 10),
            ("s/manifest.0b0c9b5e-3f0e-4b7e-8a53-0d9f54f0a7c1.tmp", 10),
            ("s/batch-old.parquet", 10),
        ]);
        let orphans = |wrote: fn(Option<u64>) -> bool| -> Vec<&str> {
            orphans(&records, &all, BatchNumber(0), wrote).into_iter().map(|(path, _)| path.as_str()).collect()
        };
        let unfinished = "s/manifest.0b0c9b5e-3f0e-4b7e-8a53-0d9f54f0a7c1.tmp";
        assert_eq!(super::orphans(&records, &all, BatchNumber(3), |_| true).len(), 1);
        assert_eq!(orphans(|epoch| epoch == Some(5)), ["s/batch-0003-e5.parquet", unfinished]);
        assert_eq!(
            orphans(|epoch| epoch.is_none()),
            [
                "s/batch-0001.deletes-17",
                "s/batch-0002.bloom",
                "s/batch-0002.committed",
                "s/batch-0002.parquet",
                unfinished
            ]
        );
        assert_eq!((grace_of(unfinished, 5), grace_of("s/batch-0002.parquet", 5)), (60_000_000_000, 5));
    }
}
