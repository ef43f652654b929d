//! Which files of a scope are worth merging.
//!
//! Files with too many masked rows are written again. Otherwise files of about the same size are merged, several at a
//! time (size tiers: a row is written again once per tier, O'Neil et al., The log-structured merge-tree, 1996).

use std::collections::{BTreeMap, BTreeSet};

use super::{CompactionConfig, FAN_IN_MIN};
use crate::keys::BatchNumber;

/// A file that queries read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub number: BatchNumber,
    /// Rows, masked ones included.
    pub rows: u64,
    /// Masked rows that a compaction would leave out.
    pub droppable: u64,
    /// Length in bytes.
    pub size_bytes: u64,
}

impl Candidate {
    fn is_worn(&self, percent: u8) -> bool {
        self.droppable > 0 && u128::from(self.droppable) * 100 > u128::from(self.rows) * u128::from(percent)
    }

    /// Bytes that would be left of it, about.
    fn live_bytes(&self) -> u64 {
        let live = u128::from(self.rows.saturating_sub(self.droppable)) * u128::from(self.size_bytes);
        (live / u128::from(self.rows.max(1))) as u64
    }

    /// Sizes within a factor of 4 are about the same.
    fn tier(&self) -> u32 {
        self.live_bytes().max(SMALLEST_TIER).ilog2() / 2
    }
}

/// Below this all sizes are the same.
const SMALLEST_TIER: u64 = 64 << 10;

/// The files to merge now; none when nothing is worth it. Files come by number.
pub fn choose(files: &[Candidate], config: &CompactionConfig) -> BTreeSet<BatchNumber> {
    let worn = files.iter().filter(|file| file.is_worn(config.masked_percent));
    let chosen = first_that_fit(worn, config);
    if !chosen.is_empty() {
        return chosen.into_iter().collect();
    }
    let mut tiers: BTreeMap<u32, Vec<&Candidate>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.live_bytes() < config.small_file_bytes) {
        tiers.entry(file.tier()).or_default().push(file);
    }
    let fan_in = config.fan_in.max(FAN_IN_MIN);
    let mut merges = tiers.into_values().map(|tier| first_that_fit(tier.into_iter(), config));
    merges.find(|merge| merge.len() >= fan_in).unwrap_or_default().into_iter().collect()
}

/// The first files that are within the limits together; at least one.
fn first_that_fit<'a>(files: impl Iterator<Item = &'a Candidate>, config: &CompactionConfig) -> Vec<BatchNumber> {
    let mut bytes = 0;
    files
        .take_while(|file| {
            let first = bytes == 0;
            bytes += file.size_bytes.max(1);
            first || bytes <= config.input_bytes_max
        })
        .map(|file| file.number)
        .take(config.input_files_max.max(2))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u64, rows: u64, droppable: u64, size_bytes: u64) -> Candidate {
        Candidate { number: BatchNumber(number), rows, droppable, size_bytes }
    }

    fn chosen(files: &[Candidate]) -> Vec<u64> {
        choose(files, &CompactionConfig::default()).into_iter().map(|number| number.0).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn worn_files_come_first() {
        assert_eq!(chosen(&[file(1, 100, 20, MIB), file(2, 100, 21, MIB), file(3, 100, 100, MIB)]), [2, 3]);
        assert_eq!(chosen(&[file(1, 100, 0, MIB), file(2, 0, 0, MIB)]), [0; 0]);
    }

    #[test]
    fn small_files_of_one_size_are_merged() {
        let mut files: Vec<_> = (1..=3).map(|number| file(number, 10, 0, MIB)).collect();
        files.push(file(4, 1000, 0, 100 * MIB));
        assert_eq!(chosen(&files), [0; 0]);
        files.push(file(5, 10, 0, MIB + 5));
        assert_eq!(chosen(&files), [1, 2, 3, 5]);
    }

    #[test]
    fn large_files_are_left_alone() {
        let files: Vec<_> = (1..=9).map(|number| file(number, 1000, 10, 200 * MIB)).collect();
        assert_eq!(chosen(&files), [0; 0]);
    }

    #[test]
    fn one_compaction_reads_no_more_than_its_limit() {
        let files: Vec<_> = (1..=9).map(|number| file(number, 1000, 500, 200 * MIB)).collect();
        assert_eq!(chosen(&files), [1, 2]);
        assert_eq!(chosen(&[file(1, 1000, 500, 2000 * MIB)]), [1]);
        let many: Vec<_> = (1..=100).map(|number| file(number, 10, 0, 1000)).collect();
        assert_eq!(chosen(&many).len(), CompactionConfig::default().input_files_max);
    }
}
