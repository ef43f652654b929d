//! What queries leave out against what they have to: the delete log, the delete vectors and the rows themselves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::files::Files;
use super::finding::{Faults, Invariant};
use super::scope::Batches;
use crate::delete_log::MaskedRow;
use crate::error::Result;
use crate::keys::BatchNumber;
use crate::objects::blocking;
use crate::recovery::resolve::{Versions, masked};

/// Positions of a file that are told one by one.
const TOLD_MAX: usize = 10;

/// The delete log: each entry names a row that lies where it says, as old as it says.
pub(super) fn check_log(batches: &Batches, versions: &HashMap<BatchNumber, Arc<Versions>>) -> Faults {
    let mut faults = Faults::default();
    for (number, rows) in &batches.log {
        if batches.record(*number).is_none() {
            faults.add(Invariant::DeleteLog, format!("it has entries of batch {number}, which there is not"));
            continue;
        }
        let Some(versions) = versions.get(number) else { continue };
        let wrong: Vec<&MaskedRow> = rows.iter().filter(|row| !is_where_it_says(row, versions)).collect();
        for row in wrong.iter().take(TOLD_MAX) {
            let what =
                format!("row {} is not at position {} of batch {number}, or not as old as that", row.id, row.position);
            faults.add(Invariant::DeleteLog, what);
        }
        if wrong.len() > TOLD_MAX {
            faults.add(Invariant::DeleteLog, format!("and {} more rows of batch {number}", wrong.len() - TOLD_MAX));
        }
    }
    faults
}

fn is_where_it_says(row: &MaskedRow, versions: &Versions) -> bool {
    let at = row.position as usize;
    let (Some(id), Some(updated)) = (versions.ids.get(at), versions.updated.get(at)) else { return false };
    // What is known of a row of a file that was lost when its records were recovered.
    let is_unseen = row.id.get() == 0 && row.updated.get() == 0;
    // A row that was loaded and changed by one commit is as old as its successor, and counts as older.
    let is_loaded = *updated >= row.superseded_by.get() && row.updated == row.superseded_by.before();
    is_unseen || (*id == row.id.get() && (*updated == row.updated.get() || is_loaded))
}

/// Of the rows of all files that are read, and of the hot ones, exactly the newest of each that is no tombstone is read:
/// with the delete log by queries, and with the delete vectors by who has the files alone.
pub(super) async fn check(batches: &Batches, files: Files, hot: Versions) -> Result<Faults> {
    let read = batches.records.iter().filter(|record| record.status.is_read()).map(|record| record.batch_number);
    let of = |number: BatchNumber| files.versions.get(&number).map(|versions| (number, Arc::clone(versions)));
    let read: Vec<(BatchNumber, Arc<Versions>)> = read.filter_map(of).collect();
    let masks: BTreeMap<BatchNumber, RoaringBitmap> =
        read.iter().map(|(number, _)| (*number, batches.mask(*number))).collect();
    let vectors: BTreeMap<BatchNumber, RoaringBitmap> =
        read.iter().map(|(number, _)| (*number, files.vectors.get(number).cloned().unwrap_or_default())).collect();
    blocking(move || {
        let mut faults = Faults::default();
        queries(&read, hot, &masks, &mut faults);
        files_alone(&read, &vectors, &mut faults);
        Ok(faults)
    })
    .await
}

type Read = (BatchNumber, Arc<Versions>);

fn queries(read: &[Read], hot: Versions, masks: &BTreeMap<BatchNumber, RoaringBitmap>, faults: &mut Faults) {
    // Of two versions of one commit the hot one is the later.
    let hot = (BatchNumber(u64::MAX), Arc::new(hot));
    let wanted = positions(masked(read.iter().cloned().chain([hot]).collect()));
    for (number, versions) in read {
        let (wanted, found) = (wanted.get(number).cloned().unwrap_or_default(), &masks[number]);
        let missing = &wanted - found;
        let (deleted, older): (Vec<u32>, Vec<u32>) = missing.iter().partition(|at| versions.deleted[*at as usize]);
        let id = |at: &u32| versions.ids.get(*at as usize).copied().unwrap_or_default();
        tell(&deleted, faults, Invariant::DeletedStays, |at| {
            format!("the deletion of row {} in batch {number} is not heeded", id(at))
        });
        tell(&older, faults, Invariant::VisibleOnce, |at| {
            format!("row {} of batch {number} is read, and so is a newer version, or it was deleted later", id(at))
        });
        let hidden: Vec<u32> = (found - &wanted).iter().filter(|at| (*at as usize) < versions.ids.len()).collect();
        tell(&hidden, faults, Invariant::VisibleOnce, |at| {
            format!("row {} of batch {number} is left out, and there is no newer version", id(at))
        });
    }
}

fn files_alone(read: &[Read], vectors: &BTreeMap<BatchNumber, RoaringBitmap>, faults: &mut Faults) {
    let wanted = positions(masked(read.to_vec()));
    for (number, _) in read {
        let wanted = wanted.get(number).cloned().unwrap_or_default();
        faults.expect(vectors[number] == wanted, Invariant::FilesAlone, || {
            let (is, should) = (vectors[number].len(), wanted.len());
            format!("the delete vector of batch {number} leaves out {is} rows, and not the {should} that have a newer version in a file or are deleted")
        });
    }
}

fn positions(masked: HashMap<BatchNumber, Vec<MaskedRow>>) -> HashMap<BatchNumber, RoaringBitmap> {
    let positions = |rows: Vec<MaskedRow>| rows.into_iter().map(|row| row.position).collect();
    masked.into_iter().map(|(number, rows)| (number, positions(rows))).collect()
}

fn tell(at: &[u32], faults: &mut Faults, invariant: Invariant, what: impl Fn(&u32) -> String) {
    at.iter().take(TOLD_MAX).for_each(|at| faults.add(invariant, what(at)));
    if at.len() > TOLD_MAX {
        faults.add(invariant, format!("and {} more rows like that", at.len() - TOLD_MAX));
    }
}
