//! The files in a scope's folder: what is named and not there, and what is there and not named.

use std::collections::BTreeSet;

use super::finding::{About, Found, Invariant};
use super::opened::Opened;
use super::records::{has_files, named_by};
use super::scope::{Batches, Place};
use crate::manifest::{check_files, grace_of, orphans};
use crate::objects::Listed;
use crate::paths;
use crate::records::BatchKind;

pub(super) fn check(opened: &Opened, place: &Place, batches: &Batches, found: &mut Found) {
    let (name, listed) = (place.name(), opened.listed_in(&place.place.prefix));
    for fault in check_files(&batches.records, &listed) {
        found.add(Invariant::Files, &name, fault.to_string());
    }
    for record in batches.records.iter().filter(|record| has_files(record)) {
        let bloom = record.bloom.as_ref().filter(|bloom| !listed.contains_key(&bloom.file_path));
        if let Some(bloom) = bloom {
            found.add(Invariant::Files, &name, format!("{} is missing", bloom.file_path));
        }
        let proof = paths::proof_of(&record.file_path);
        let is_proven = record.since.is_none_or(|since| since <= batches.header.exported);
        if record.kind == BatchKind::Bulk && is_proven && !listed.contains_key(&proof) {
            found.add(Invariant::Files, &name, format!("{proof} is missing"));
        }
    }
    let wrote = |epoch: Option<u64>| opened.wrote(epoch.unwrap_or_default());
    let orphans = orphans(&batches.records, &listed, batches.header.spared, wrote);
    let known: BTreeSet<&str> = orphans.iter().map(|(path, _)| path.as_str()).collect();
    orphans.iter().for_each(|(path, listed)| orphan(opened, &name, path, *listed, found));
    let named: BTreeSet<&str> = batches.records.iter().flat_map(named_by).collect();
    for path in listed.keys().filter(|path| !known.contains(path.as_str()) && !named.contains(path.as_str())) {
        let file = path.rsplit('/').next().unwrap_or_default();
        // Batch files that stay for a reason: of an owner before, or spared.
        if file != paths::MANIFEST_FILE && paths::epoch_of_batch_name(file).is_none() {
            found.note(About::Foreign, &name, format!("{path} is no file of SeracDB"));
        }
    }
}

/// A file that nothing names. The server removes it when it has been there for the grace period and its scope is used, or when
/// an admin runs the job 'cleanup'.
pub(super) fn orphan(opened: &Opened, place: &str, path: &str, listed: Listed, found: &mut Found) {
    // By the last commit and not by now: nobody removes anything while no server runs.
    let age_ns = opened.highest.last_commit.get().saturating_sub(listed.modified_ns);
    let what = format!("{path}, {} bytes, is named by nothing", listed.size_bytes);
    match age_ns > grace_of(path, opened.orphan_grace_ns) {
        true => found.add(
            Invariant::Orphans,
            place,
            format!("{what} for longer than the grace period: RUN JOB cleanup removes it"),
        ),
        false => found.note(About::Orphan, place, format!("{what}, and goes after the grace period")),
    }
}
