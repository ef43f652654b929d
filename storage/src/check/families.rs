//! What RocksDB holds beside rows, records and catalog.

use super::finding::{Faults, Invariant};
use super::opened::Highest;
use crate::audit::{self, AuditEntry};
use crate::commit_names;
use crate::error::Result;
use crate::rocks::{Family, RocksSnapshot};

/// The audit log: its numbers have no hole, and every entry can be read.
pub(super) fn check_audit(rocks: &RocksSnapshot, highest: Highest) -> Result<Faults> {
    let mut faults = Faults::default();
    let mut last = None;
    rocks.scan(Family::Audit, &[], &[], |key, json| {
        let number = match audit::number(key) {
            Ok(number) => number,
            Err(error) => {
                faults.add(Invariant::Audit, error.to_string());
                return Ok(());
            }
        };
        faults.expect(last.is_none_or(|last| number == last + 1), Invariant::Audit, || {
            format!("entry {number} follows entry {}: what is between was removed", last.unwrap_or_default())
        });
        last = Some(number);
        match AuditEntry::decode(json) {
            Ok(entry) => faults.expect(entry.at <= highest.updated.get(), Invariant::Timestamps, || {
                format!("entry {number} of the audit log is of a later time than the last commit")
            }),
            Err(error) => faults.add(Invariant::Readable, format!("entry {number}: {error}")),
        }
        Ok(())
    })?;
    Ok(faults)
}

/// The names of commits.
pub(super) fn check_names(rocks: &RocksSnapshot) -> Result<Faults> {
    let mut faults = Faults::default();
    rocks.scan(Family::Transactions, &[], &[], |key, value| {
        let is_sound = key.len() == 16 && matches!(value.len(), 8 | 16) && commit_names::owner(value).is_some();
        faults.expect(is_sound, Invariant::Readable, || "a name of a commit, or whose it was, is damaged".to_owned());
        Ok(())
    })?;
    Ok(faults)
}

/// The records of jobs, which `read` knows.
pub(super) fn check_jobs(rocks: &RocksSnapshot, read: impl Fn(&[u8]) -> Result<(), String>) -> Result<Faults> {
    let mut faults = Faults::default();
    rocks.scan(Family::Jobs, &[], &[], |key, record| {
        let number = key.try_into().map(u64::from_be_bytes);
        faults.expect(number.is_ok(), Invariant::Jobs, || "the key of a job has another length".to_owned());
        if let Err(error) = read(record) {
            faults.add(Invariant::Jobs, format!("job {}: {error}", number.unwrap_or_default()));
        }
        Ok(())
    })?;
    Ok(faults)
}

/// What is only read, because nothing else is known of it: a block that is damaged is an error of RocksDB.
pub(super) fn read_whole(rocks: &RocksSnapshot, family: Family) -> Result<()> {
    rocks.scan(family, &[], &[], |_, _| Ok(()))
}
