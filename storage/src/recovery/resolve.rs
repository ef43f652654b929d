//! The naive resolver: the newest version of each row, among files sorted by `_id`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringBitmap;

use crate::delete_log::MaskedRow;
use crate::error::{Result, StorageError};
use crate::keys::BatchNumber;
use crate::system_columns::{CommitTs, DELETED, ID, RowId, UPDATED};

/// The row versions of a file, by position. Takes 17 bytes a row.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    pub(crate) ids: Vec<i64>,
    pub(crate) updated: Vec<i64>,
    pub(crate) deleted: Vec<bool>,
}

impl Versions {
    /// Reads the system columns of a batch file. `updated`: that of all rows, of a bulk file.
    pub(crate) fn read(file: Bytes, updated: Option<CommitTs>) -> Result<Self> {
        let of_all = updated;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [ID, UPDATED, DELETED]);
        let mut versions = Self::default();
        for batch in builder.with_projection(mask).with_batch_size(64 << 10).build()? {
            let batch = batch?;
            let (ids, deleted) = match (batch.columns(), of_all) {
                ([ids, updated, deleted], None) => {
                    versions.updated.extend_from_slice(updated.as_primitive::<TimestampNanosecondType>().values());
                    (ids, deleted)
                }
                ([ids, deleted], Some(of_all)) => {
                    versions.updated.resize(versions.updated.len() + batch.num_rows(), of_all.get());
                    (ids, deleted)
                }
                _ => return Err(StorageError::Damaged("a batch file without system columns".into())),
            };
            versions.ids.extend_from_slice(ids.as_primitive::<Int64Type>().values());
            versions.deleted.extend(deleted.as_boolean().iter().map(|deleted| deleted == Some(true)));
        }
        Ok(versions)
    }

    /// The rows at these positions, superseded by a commit up to `as_of`.
    pub(crate) fn masked(&self, positions: &RoaringBitmap, as_of: CommitTs) -> Vec<MaskedRow> {
        let there = positions.iter().filter(|position| (*position as usize) < self.ids.len());
        there.map(|position| self.row(position as usize, as_of.get())).collect()
    }

    /// The row at a position, masked because of a later version; a tombstone because of itself.
    fn row(&self, at: usize, superseded_by: i64) -> MaskedRow {
        let (position, id) = (at as u32, RowId::stored(self.ids[at]));
        let updated = CommitTs::stored(self.updated[at]);
        if self.deleted[at] {
            return MaskedRow { position, id, updated, superseded_by: updated };
        }
        // A row that was loaded in bulk and changed by the same commit is as old as its successor, and no tombstone.
        let superseded_by = CommitTs::stored(superseded_by);
        MaskedRow { position, id, updated: updated.min(superseded_by.before()), superseded_by }
    }
}

/// The rows at these positions of a file that cannot be read.
pub(crate) fn masked_unseen(positions: &RoaringBitmap, as_of: CommitTs) -> Vec<MaskedRow> {
    let (id, updated) = (RowId::stored(0), CommitTs::default());
    positions.iter().map(|position| MaskedRow { position, id, updated, superseded_by: as_of }).collect()
}

/// Which rows are not to be read: all but the newest version of each, and that too when it is a tombstone.
pub(crate) fn masked(files: Vec<(BatchNumber, Arc<Versions>)>) -> HashMap<BatchNumber, Vec<MaskedRow>> {
    let mut masked: HashMap<BatchNumber, Vec<MaskedRow>> = HashMap::new();
    let mut heads: BinaryHeap<Reverse<(i64, usize, usize)>> = BinaryHeap::new();
    let head = |file: usize, at: usize| files[file].1.ids.get(at).map(|id| Reverse((*id, file, at)));
    heads.extend((0..files.len()).filter_map(|file| head(file, 0)));
    // The versions of one row: file and position.
    let mut same: Vec<(usize, usize)> = Vec::new();
    while let Some(Reverse((id, file, at))) = heads.pop() {
        heads.extend(head(file, at + 1));
        same.push((file, at));
        if heads.peek().is_some_and(|Reverse((next, ..))| *next == id) {
            continue;
        }
        let version = |&(file, at): &(usize, usize)| (files[file].1.updated[at], files[file].0);
        if let Some(&newest) = same.iter().max_by_key(|place| version(place)) {
            let superseded_by = version(&newest).0;
            for &(file, at) in &same {
                let (number, versions) = &files[file];
                if (file, at) != newest || versions.deleted[at] {
                    masked.entry(*number).or_default().push(versions.row(at, superseded_by));
                }
            }
        }
        same.clear();
    }
    masked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(number: u64, rows: &[(i64, i64, bool)]) -> (BatchNumber, Arc<Versions>) {
        let versions = Versions {
            ids: rows.iter().map(|row| row.0).collect(),
            updated: rows.iter().map(|row| row.1).collect(),
            deleted: rows.iter().map(|row| row.2).collect(),
        };
        (BatchNumber(number), Arc::new(versions))
    }

    fn positions(masked: &HashMap<BatchNumber, Vec<MaskedRow>>, file: u64) -> Vec<u32> {
        masked.get(&BatchNumber(file)).map_or(vec![], |rows| rows.iter().map(|row| row.position).collect())
    }

    #[test]
    fn the_newest_version_stays_unless_it_is_a_tombstone() {
        let files = vec![
            file(1, &[(1, 10, false), (2, 10, false), (3, 10, false)]),
            file(2, &[(2, 20, false), (3, 20, true)]),
            file(3, &[(2, 20, false), (4, 5, true)]),
        ];
        let masked = masked(files);
        assert_eq!(positions(&masked, 1), [1, 2]);
        // Of equal versions the later file's stays.
        assert_eq!(positions(&masked, 2), [0, 1]);
        assert_eq!(positions(&masked, 3), [1]);
        // Which is why the earlier one is no tombstone.
        assert!(masked[&BatchNumber(2)][0].updated < masked[&BatchNumber(2)][0].superseded_by);
        let tombstone = masked[&BatchNumber(3)][0];
        assert_eq!(tombstone.superseded_by, tombstone.updated);
        assert_eq!(masked[&BatchNumber(1)][1].superseded_by.get(), 20);
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_model(
            rows in prop::collection::vec(prop::collection::btree_map(0..20_i64, (0..9_i64, any::<bool>()), 0..12), 0..6)
        ) {
            let files: Vec<_> = rows.iter().enumerate().map(|(number, rows)| {
                let rows: Vec<_> = rows.iter().map(|(id, (updated, deleted))| (*id, *updated, *deleted)).collect();
                file(number as u64 + 1, &rows)
            }).collect();
            let mut newest = std::collections::BTreeMap::new();
            for (number, versions) in &files {
                for at in 0..versions.ids.len() {
                    let version = (versions.updated[at], *number, versions.deleted[at]);
                    let known = newest.entry(versions.ids[at]).or_insert(version);
                    *known = (*known).max(version);
                }
            }
            newest.retain(|_, version| !version.2);
            let masked = masked(files.clone());
            let mut left = std::collections::BTreeMap::new();
            for (number, versions) in &files {
                let hidden = positions(&masked, number.0);
                for at in (0..versions.ids.len()).filter(|at| !hidden.contains(&(*at as u32))) {
                    let twice = left.insert(versions.ids[at], (versions.updated[at], *number, versions.deleted[at]));
                    prop_assert!(twice.is_none());
                }
            }
            prop_assert_eq!(left, newest);
        }
    }
}
