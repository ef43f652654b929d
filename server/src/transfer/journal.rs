//! What has become of files: written beside them, a line of JSON for each step, synced before the next one.
//!
//! An entry `staged` is there before the commit that it names is asked for. So a file without one was never committed, and of
//! one with it the server knows, by the name of its transaction.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::Identity;

/// What the journal beside a file is called.
pub(super) const JOURNAL: &str = ".seracdb-import";

/// What is known of one import of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) state: State,
    #[serde(flatten)]
    pub(super) file: Identity,
    /// Where the rows go, as it was written.
    pub(super) table: String,
    /// The server's name of the table's rows: those of another table have another one.
    pub(super) rows_of: String,
    pub(super) rows: u64,
    /// Who asked: nobody else can ask for the transaction's end.
    pub(super) user: String,
    /// The transaction's name, in hexadecimal.
    pub(super) transaction: String,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// All rows are at the server, which is about to be asked for the commit.
    Staged,
    /// They are in the table.
    Committed,
    /// None of them is.
    Undone,
}

/// What is to be done with a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan<'a> {
    Import,
    /// Its rows are in the table.
    Done(&'a Entry),
    /// The server is asked what has become of this.
    Ask(&'a Entry),
}

/// The journal of the files in a folder; nobody else's as long as it is held.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) path: PathBuf,
    file: File,
    entries: Vec<Entry>,
}

impl Journal {
    /// Opens a journal, or begins one.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}: name another journal with --journal", path.display());
        let is_new = !path.exists();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("{}: another import uses it: wait for its end", path.display()));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if is_new {
            sync_folder(path).map_err(failed)?;
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        // A line that was being written when its process ended says nothing.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(failed)?;
            file.seek(SeekFrom::End(0)).map_err(failed)?;
        }
        let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let entries = (1..).zip(lines).map(|(number, line)| {
            serde_json::from_slice(line).map_err(|error| format!("{}: line {number}: {error}", path.display()))
        });
        Ok(Self { path: path.to_owned(), file, entries: entries.collect::<Result<_, _>>()? })
    }

    /// Adds an entry; when this returns it is durable.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: cannot be written: {error}", self.path.display());
        let mut line = serde_json::to_vec(&entry).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.entries.push(entry);
        Ok(())
    }

    /// What is to be done with a file. `rows_of`: the server's name of the table's rows, where the table is there.
    /// `is_known`: whether the server was asked for this one already.
    pub(super) fn plan(
        &self,
        path: &Path,
        table: &str,
        rows_of: Option<&str>,
        is_known: impl Fn(&Entry) -> bool,
    ) -> Plan<'_> {
        plan(&self.entries, path, table, rows_of, is_known)
    }
}

fn plan<'a>(
    entries: &'a [Entry],
    path: &Path,
    table: &str,
    rows_of: Option<&str>,
    is_known: impl Fn(&Entry) -> bool,
) -> Plan<'a> {
    let of_file = entries.iter().enumerate().filter(|(_, entry)| entry.file.path == path);
    let mut done = None;
    for (place, entry) in of_file {
        let goes_on = entries[place + 1..].iter().any(|later| later.transaction == entry.transaction);
        match entry.state {
            State::Committed if rows_of == Some(entry.rows_of.as_str()) => done = Some(entry),
            // A table that is not there may be the one that this is about to make.
            State::Staged
                if !goes_on
                    && !is_known(entry)
                    && rows_of.map_or(entry.table == table, |rows_of| rows_of == entry.rows_of) =>
            {
                return Plan::Ask(entry);
            }
            _ => {}
        }
    }
    done.map_or(Plan::Import, Plan::Done)
}

/// Makes a new file's name durable.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: State, path: &str, rows_of: &str, transaction: &str) -> Entry {
        Entry {
            state,
            file: Identity { path: path.into(), size: 4, modified_ns: 7, checksum: "c".into() },
            table: "app.t".into(),
            rows_of: rows_of.into(),
            rows: 2,
            user: "ann".into(),
            transaction: transaction.into(),
        }
    }

    #[test]
    fn what_is_written_is_there_again_but_for_a_line_that_breaks_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(JOURNAL);
        let entries = [entry(State::Staged, "/a", "t", "1"), entry(State::Committed, "/a", "t", "1")];
        let mut journal = Journal::open(&path).unwrap();
        for entry in &entries {
            journal.add(entry.clone()).unwrap();
        }
        assert!(Journal::open(&path).unwrap_err().contains("another import uses it"));
        drop(journal);
        let written = std::fs::read(&path).unwrap();
        let first = written.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for length in first..written.len() {
            std::fs::write(&path, &written[..length]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(journal.entries, &entries[..1], "{length} bytes");
            journal.add(entries[1].clone()).unwrap();
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), written, "{length} bytes");
        }
        std::fs::write(&path, "no journal\n").unwrap();
        assert!(Journal::open(&path).unwrap_err().contains("line 1"));
    }

    #[test]
    fn a_file_is_imported_once_into_each_table() {
        let staged = entry(State::Staged, "/a", "t", "1");
        let committed = Entry { state: State::Committed, ..staged.clone() };
        let undone = Entry { state: State::Undone, ..staged.clone() };
        let of = |entries: &[Entry], path: &str, rows_of: Option<&str>| {
            format!("{:?}", plan(entries, Path::new(path), "app.t", rows_of, |_| false))
        };
        let [import, done, ask] =
            [Plan::Import, Plan::Done(&committed), Plan::Ask(&staged)].map(|plan| format!("{plan:?}"));
        let both = [staged.clone(), committed.clone()];
        assert_eq!(of(&[], "/a", Some("t")), import);
        assert_eq!(of(&both, "/a", Some("t")), done);
        // Another file, another table, one of the same name made later, and none at all.
        assert_eq!(of(&both, "/b", Some("t")), import);
        assert_eq!(of(&both, "/a", Some("u")), import);
        assert_eq!(of(&both, "/a", None), import);
        assert_eq!(of(std::slice::from_ref(&staged), "/a", Some("t")), ask);
        assert_eq!(of(std::slice::from_ref(&staged), "/a", None), ask);
        assert_eq!(of(std::slice::from_ref(&staged), "/a", Some("u")), import);
        assert_eq!(of(&[staged.clone(), undone.clone()], "/a", Some("t")), import);
        let again = Entry { transaction: "2".into(), ..staged.clone() };
        let asks = [staged, undone, again.clone()];
        assert_eq!(of(&asks, "/a", Some("t")), format!("{:?}", Plan::Ask(&again)));
        assert_eq!(plan(&asks, Path::new("/a"), "app.t", Some("t"), |_| true), Plan::Import);
    }
}
