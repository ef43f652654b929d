//! Checking a data directory that no server has open: every promise that can be looked at, looked at.
//!
//! ```text
//! RocksDB, read only ─▶ catalog ─▶ each scope ─▶ header, records ─▶ manifest ─▶ listing ─▶ every file ─┐
//!                   └─▶ audit log, jobs, …                └▶ delete log, hot rows ───────────────────────┴▶ what is read
//! ```
//!
//! Invariants:
//! 1. Nothing is changed, in the data directory or the object store, and nothing is replayed into files.
//! 2. An error says why it could not be looked; whatever was seen and is wrong is a [`Finding`].
//! 3. What a crash may leave, and the next start carries through, is a [`Note`].
//! 4. The rows are held against the resolver of `recovery/`, which knows neither delete log nor delete vectors.
//!
//! Takes 17 bytes of memory for each row of a scope.

mod catalog;
mod export;
mod families;
mod file;
mod files;
mod finding;
mod listing;
mod manifest;
mod opened;
mod records;
mod rows;
mod scope;
mod statistics;
#[cfg(test)]
pub(crate) mod tests;
mod unique;
mod visible;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use finding::{About, Finding, Invariant, Note, Progress, Report, Totals};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::error::Result;
use crate::keys::Scope;
use crate::paths::OWN_FOLDER;
use crate::rocks::Family;
use crate::store::StorageConfig;
use finding::{Faults, Found};
use opened::Opened;

/// Checks a data directory and its object store. `read_job`: whether the record of a job can be read.
///
/// Errors: there is no data directory, a server has it open, or something cannot be opened at all.
pub async fn check(
    config: &StorageConfig,
    clock: &Arc<dyn Clock>,
    progress: &Progress,
    read_job: impl Fn(&[u8]) -> Result<(), String>,
) -> Result<Report> {
    let mut found = Found::default();
    let opened = Opened::open(config, clock, &mut found).await?;
    let catalog = catalog::read(&opened.rocks, &mut found)?;
    Progress::add(&progress.tables, catalog.tables().count() as u64);
    found.add_all("catalog", catalog::check(&catalog, opened.highest));
    let rocks = &opened.rocks;
    read_part(&mut found, "audit log", || families::check_audit(rocks, opened.highest));
    read_part(&mut found, "names of commits", || families::check_names(rocks));
    read_part(&mut found, "jobs", || families::check_jobs(rocks, read_job));
    for family in [Family::Keys, Family::ManifestCache] {
        read_part(&mut found, family.name(), || families::read_whole(rocks, family).map(|()| Faults::default()));
    }
    let mut looked_at = BTreeSet::new();
    for scope in scopes(&opened, &mut found) {
        Progress::add(&progress.scopes, 1);
        match scope::check(&opened, &catalog, scope, progress, &mut found).await {
            Ok(folder) => looked_at.extend(folder),
            Err(error) if is_of_rocks(&error) => {
                let place = format!("table {}, owner {}", scope.table.0, scope.owner.0);
                found.add(Invariant::Readable, &place, with_cause(&error));
            }
            Err(error) => return Err(error),
        }
    }
    unclaimed(&opened, &catalog, &looked_at, &mut found);
    if opened.objects.is_shared() {
        export::check(&opened, &catalog, &mut found).await?;
    }
    Ok(found.report(progress.totals()))
}

/// One part of RocksDB: that it cannot be read is a finding.
fn read_part(found: &mut Found, place: &str, read: impl FnOnce() -> Result<Faults>) {
    match read() {
        Ok(faults) => found.add_all(place, faults),
        Err(error) => found.add(Invariant::Readable, place, with_cause(&error)),
    }
}

/// Every scope that anything is stored of.
fn scopes(opened: &Opened, found: &mut Found) -> BTreeSet<Scope> {
    let mut scopes = BTreeSet::new();
    for family in [Family::Rows, Family::DeleteLog, Family::Batches, Family::Keys] {
        match opened.rocks.scopes(family, &[]) {
            Ok(more) => scopes.extend(more),
            Err(error) => found.add(Invariant::Readable, family.name(), with_cause(&error)),
        }
    }
    scopes
}

/// Files in folders that no scope has. After a take-over they may be another owner's.
fn unclaimed(opened: &Opened, catalog: &Catalog, looked_at: &BTreeSet<String>, found: &mut Found) {
    if opened.owner.as_ref().is_some_and(|owner| owner.owners.len() > 1) {
        return;
    }
    let dropped: Vec<String> = catalog.dropped().map(|table| format!("{}/", table.prefix)).collect();
    let mut to_remove = 0;
    for (path, listed) in &opened.listed {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if looked_at.contains(folder) || path.starts_with(&format!("{OWN_FOLDER}/")) {
            continue;
        }
        match dropped.iter().any(|prefix| path.starts_with(prefix)) {
            true => to_remove += 1,
            false => listing::orphan(opened, "object store", path, *listed, found),
        }
    }
    if to_remove > 0 {
        let what = format!("{to_remove} files of dropped tables are still to be removed");
        found.note(About::Unfinished, "object store", what);
    }
}

fn is_of_rocks(error: &crate::error::StorageError) -> bool {
    matches!(error, crate::error::StorageError::Rocks(_) | crate::error::StorageError::Damaged(_))
}

fn with_cause(error: &crate::error::StorageError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
