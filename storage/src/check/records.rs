//! The header and the batch records of a scope: whether they agree with each other. Nothing is read here.

use std::collections::BTreeSet;

use super::finding::{Faults, Invariant};
use super::opened::Highest;
use super::scope::Place;
use crate::keys::{BatchNumber, Generation};
use crate::paths;
use crate::records::{BatchKind, BatchRecord, BatchStatus, ScopeHeader};

pub(super) fn check_header(header: &ScopeHeader, highest: Highest) -> Faults {
    let mut faults = Faults::default();
    let mut expect = |holds: bool, what: &str| faults.expect(holds, Invariant::Records, || what.to_owned());
    expect(
        header.exported <= header.version,
        "the manifest is said to show a later version of the records than there is",
    );
    expect(header.max_batch < header.next_batch, "the next batch would get a number that was used");
    let closed: Vec<Generation> = header.sealed.iter().chain(&header.draining).copied().collect();
    let distinct: BTreeSet<Generation> = closed.iter().copied().collect();
    expect(distinct.len() == closed.len(), "a generation of hot rows is closed twice");
    expect(
        closed.iter().all(|closed| *closed < header.active),
        "a closed generation of hot rows is not before the open one",
    );
    let is_covered = header.draining.is_empty() || header.exported < header.version;
    expect(is_covered, "flushed rows are still hot although the manifest shows their file");
    faults.expect(header.flushed_to <= highest.updated, Invariant::Timestamps, || {
        "more is said to be flushed than was committed".to_owned()
    });
    faults
}

pub(super) fn check_records(header: &ScopeHeader, records: &[BatchRecord], place: &Place, highest: Highest) -> Faults {
    let mut faults = Faults::default();
    let read: BTreeSet<BatchNumber> =
        records.iter().filter(|record| record.status.is_read()).map(|record| record.batch_number).collect();
    for record in records {
        check_record(record, header, place, &mut faults);
        let again =
            record.status.is_read().then(|| record.replaces.iter().find(|number| read.contains(number))).flatten();
        faults.expect(again.is_none(), Invariant::Records, || {
            let (number, again) = (record.batch_number, again.copied().unwrap_or_default());
            format!("batch {number} has taken the place of batch {again}, and both are read")
        });
        let newest =
            [Some(record.max_updated), record.archived_at, record.deletes.as_ref().map(|deletes| deletes.as_of)];
        let newest = newest.into_iter().flatten().max().unwrap_or_default();
        faults.expect(newest <= highest.updated, Invariant::Timestamps, || {
            format!("the record of batch {} is of a later time than the last commit", record.batch_number)
        });
    }
    faults
}

fn check_record(record: &BatchRecord, header: &ScopeHeader, place: &Place, faults: &mut Faults) {
    let number = record.batch_number;
    let mut expect =
        |holds: bool, what: &str| faults.expect(holds, Invariant::Records, || format!("batch {number} {what}"));
    expect(number <= header.max_batch, "is above the highest number that was given out");
    expect(record.min_updated <= record.max_updated, "has its oldest version after its newest");
    expect(record.kind != BatchKind::Bulk || record.min_updated == record.max_updated, "was loaded at two times");
    expect(record.replaces.iter().all(|replaced| *replaced < number), "has taken the place of a later one");
    expect(record.status.is_read() == record.archived_at.is_none(), "is read and archived, or neither");
    expect(record.kind != BatchKind::Archive || !record.status.is_read(), "is of older versions, and is read");
    expect(record.since.is_none_or(|since| since <= header.version), "came with a version that there was not yet");
    expect(place.table.schema_of(record.schema_version).is_some(), "has no schema");
    let settled = record.deletes.as_ref().is_none_or(|deletes| deletes.as_of <= header.flushed_to);
    expect(settled, "has a delete vector of a later time than what is flushed");
    let is_in_place = |path: &str| {
        let name = path.strip_prefix(&place.place.prefix).and_then(|name| name.strip_prefix('/'));
        name.and_then(paths::number_of_batch_name) == Some(number)
    };
    let named = named_by(record);
    expect(named.iter().all(|path| is_in_place(path)), "has a file in a place that is not its own");
}

/// The paths that a record names.
pub(super) fn named_by(record: &BatchRecord) -> Vec<&str> {
    let vector = record.deletes.as_ref().map(|deletes| deletes.path.as_str());
    let bloom = record.bloom.as_ref().map(|bloom| bloom.file_path.as_str());
    [Some(record.file_path.as_str()), vector, bloom].into_iter().flatten().collect()
}

/// Whether the files of a record have to be there.
pub(super) fn has_files(record: &BatchRecord) -> bool {
    record.status != BatchStatus::Removing
}
