//! What a check says: which promise is not kept, where, and how that shows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Findings of one promise that are told one by one; further ones are counted.
const EACH_MAX: u64 = 100;

/// What has to hold of a data directory at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// See [`Invariant::promise`], as for all.
    Readable,
    /// Of the catalog.
    Catalog,
    /// Of what others need who go on with this data directory's tables.
    CatalogExport,
    /// Of who owns the object store.
    Ownership,
    /// Of rows and records without a table.
    Tables,
    /// Of whose rows are where.
    Owners,
    /// Of the records of a scope.
    Records,
    /// Of commit timestamps.
    Timestamps,
    /// Of row ids.
    Ids,
    /// Of the manifest.
    Manifest,
    /// Of batch files and what lies beside them.
    Files,
    /// Of what a file says of itself.
    Footers,
    /// Of the rows in a file.
    Rows,
    /// Of bounds.
    Statistics,
    /// Of Bloom filters.
    Filters,
    /// Of the delete log.
    DeleteLog,
    /// Of what queries read.
    VisibleOnce,
    /// Of unique keys.
    UniqueKeys,
    /// Of deleted rows.
    DeletedStays,
    /// Of what is read without RocksDB.
    FilesAlone,
    /// Of files that nothing names.
    Orphans,
    /// Of the audit log.
    Audit,
    /// Of the records of jobs.
    Jobs,
}

impl Invariant {
    /// All that are looked at.
    pub const ALL: [Self; 23] = [
        Self::Readable,
        Self::Catalog,
        Self::CatalogExport,
        Self::Ownership,
        Self::Tables,
        Self::Owners,
        Self::Records,
        Self::Timestamps,
        Self::Ids,
        Self::Manifest,
        Self::Files,
        Self::Footers,
        Self::Rows,
        Self::Statistics,
        Self::Filters,
        Self::DeleteLog,
        Self::VisibleOnce,
        Self::UniqueKeys,
        Self::DeletedStays,
        Self::FilesAlone,
        Self::Orphans,
        Self::Audit,
        Self::Jobs,
    ];

    /// What has to hold, in words.
    pub fn promise(self) -> &'static str {
        match self {
            Self::Readable => "everything stored can be read as what it is",
            Self::Catalog => "what the catalog names is there, once, and has an owner",
            Self::CatalogExport => "the exported catalog has every table with a manifest",
            Self::Ownership => "this data directory owns its object store",
            Self::Tables => "rows and records belong to a table",
            Self::Owners => "every row's owner is its scope, and a user",
            Self::Records => "batch records agree with each other, and no number is used twice",
            Self::Timestamps => "no version is above the last commit, and hot rows are newer than what is flushed",
            Self::Ids => "no row id is above the highest one given out",
            Self::Manifest => "the manifest shows the records",
            Self::Files => "every file that is named is there, with its length, checksum and number of rows",
            Self::Footers => "a file says of itself what its record says",
            Self::Rows => "the rows of a file are in order, of its schema, and as old as its record says",
            Self::Statistics => "bounds hold every value, and there are none where NaN is",
            Self::Filters => "Bloom filters hold every value",
            Self::DeleteLog => "the delete log names rows that are where it says",
            Self::VisibleOnce => "the newest version of each row is read once, and no other",
            Self::UniqueKeys => "the key index has the unique keys of all rows that are read, and no others",
            Self::DeletedStays => "no deleted row is read",
            Self::FilesAlone => "files and delete vectors alone give each row once",
            Self::Orphans => "a file that nothing names is removed after the grace period",
            Self::Audit => "the entries of the audit log have numbers without a hole",
            Self::Jobs => "records of jobs can be read",
        }
    }
}

/// A promise that is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub invariant: Invariant,
    /// Where: a scope, or a part of the data directory.
    pub place: String,
    /// How that shows.
    pub what: String,
}

/// What breaks no promise and is worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What it is about.
    pub about: About,
    /// Where.
    pub place: String,
    /// What was found.
    pub what: String,
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// Something that the next start carries through.
    Unfinished,
    /// A file that nothing names yet, or no more, and that is younger than the grace period.
    Orphan,
    /// A file that SeracDB did not write.
    Foreign,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Tables of the catalog.
    pub tables: u64,
    /// Parts of tables: shared rows, or one user's.
    pub scopes: u64,
    /// Batch files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Row versions in them.
    pub cold_rows: u64,
    /// Row versions in RocksDB.
    pub hot_rows: u64,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether there is no finding.
    pub clean: bool,
    /// Promises that are not kept.
    pub findings: Vec<Finding>,
    /// How many more there are of a kind that has very many.
    pub more: BTreeMap<Invariant, u64>,
    /// What else is worth knowing.
    pub notes: Vec<Note>,
    /// What was read.
    pub read: Totals,
}

/// How far a check is, for who waits for it.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) tables: AtomicU64,
    pub(super) scopes: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) cold_rows: AtomicU64,
    pub(super) hot_rows: AtomicU64,
}

impl Progress {
    /// What was read so far.
    pub fn totals(&self) -> Totals {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            tables: of(&self.tables),
            scopes: of(&self.scopes),
            files: of(&self.files),
            bytes: of(&self.bytes),
            cold_rows: of(&self.cold_rows),
            hot_rows: of(&self.hot_rows),
        }
    }

    pub(super) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Promises that are not kept in one place, as they are found.
#[derive(Debug, Default)]
pub(super) struct Faults(pub(super) Vec<(Invariant, String)>);

impl Faults {
    pub(super) fn add(&mut self, invariant: Invariant, what: impl Into<String>) {
        self.0.push((invariant, what.into()));
    }

    /// Says so unless it holds.
    pub(super) fn expect(&mut self, holds: bool, invariant: Invariant, what: impl FnOnce() -> String) {
        if !holds {
            self.add(invariant, what());
        }
    }
}

/// Everything that was found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    findings: Vec<Finding>,
    counts: BTreeMap<Invariant, u64>,
    notes: Vec<Note>,
}

impl Found {
    pub(super) fn add(&mut self, invariant: Invariant, place: &str, what: impl Into<String>) {
        let count = self.counts.entry(invariant).or_default();
        *count += 1;
        if *count <= EACH_MAX {
            self.findings.push(Finding { invariant, place: place.to_owned(), what: what.into() });
        }
    }

    pub(super) fn add_all(&mut self, place: &str, faults: Faults) {
        faults.0.into_iter().for_each(|(invariant, what)| self.add(invariant, place, what));
    }

    pub(super) fn note(&mut self, about: About, place: &str, what: impl Into<String>) {
        self.notes.push(Note { about, place: place.to_owned(), what: what.into() });
    }

    pub(super) fn report(mut self, read: Totals) -> Report {
        self.findings.sort_by(|a, b| (a.invariant, &a.place).cmp(&(b.invariant, &b.place)));
        let more = self.counts.into_iter().map(|(invariant, count)| (invariant, count.saturating_sub(EACH_MAX)));
        Report {
            clean: self.findings.is_empty(),
            findings: self.findings,
            more: more.filter(|(_, count)| *count > 0).collect(),
            notes: self.notes,
            read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page lists every promise, in order.
    #[test]
    fn all_are_documented() {
        let page = include_str!("../../../docs/check.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = Invariant::ALL
            .iter()
            .map(|invariant| {
                let name = serde_json::to_value(invariant).unwrap();
                format!("| `{}` | {} |", name.as_str().unwrap(), invariant.promise())
            })
            .collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn very_many_of_a_kind_are_counted() {
        let mut found = Found::default();
        for row in 0..EACH_MAX + 7 {
            found.add(Invariant::VisibleOnce, "app.t (shared)", format!("row {row}"));
        }
        found.add(Invariant::Files, "app.t (shared)", "gone");
        let report = found.report(Totals::default());
        assert!(!report.clean);
        assert_eq!(report.findings.len() as u64, EACH_MAX + 1);
        assert_eq!(report.findings[0].invariant, Invariant::Files);
        assert_eq!(report.more, BTreeMap::from([(Invariant::VisibleOnce, 7)]));
        assert!(Found::default().report(Totals::default()).clean);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["findings"][1]["invariant"], &json["more"]["visible-once"]),
            (&"visible-once".into(), &7.into())
        );
    }
}
