//! Files into a table: each of them one ingest in a transaction of its own, whose name is in the journal before it is committed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use clap::{Args, ValueEnum};
use futures::stream;
use seracdb_client::{Client, Code, Error, IngestMode, TableEntry, TableKind, Transaction};
use tokio::sync::mpsc;

use super::columns::{Columns, LeaveOut};
use super::files::{FileFormat, Identity, format_of};
use super::journal::{Entry, JOURNAL, Journal, Plan, State};
use super::progress::Progress;
use super::source::{Input, Source, open};
use super::{CsvStyle, infer, name_of, rows};

/// Batches that wait to be sent.
const BATCHES_WAITING: usize = 2;

/// How long a server is asked for the end of a transaction: it forgets it a day after its commit.
const REMEMBERED_MS: i64 = 23 * 3600 * 1000;

/// What is imported, and how.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Import {
    /// Table that the rows go to: NAMESPACE.TABLE.
    table: String,
    /// Files of Parquet, CSV or Arrow IPC; '-' is stdin. Each is one commit, and is not imported a second time.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What is in the files, when their names do not say it.
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// Creates the table from the file's columns, if it is missing.
    #[arg(long)]
    create: bool,
    /// Whose rows the table holds that is created.
    #[arg(long, value_enum, default_value = "shared", requires = "create")]
    kind: Kind,
    /// Leaves out columns that the table does not have.
    #[arg(long)]
    ignore_extra: bool,
    /// Leaves out _id, _updated and _deleted: the server assigns new ones.
    #[arg(long)]
    drop_system_columns: bool,
    /// Imports files once more that were imported already.
    #[arg(long)]
    again: bool,
    /// Where it is noted what was imported, instead of .seracdb-import in the file's folder.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    csv: CsvStyle,
}

/// Whose rows a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One set of rows for all who have a right to it.
    Shared,
    /// A set of rows per user.
    User,
}

/// Imports all files, in order. The first error ends it.
pub(super) async fn run(client: Client, user: String, import: &Import) -> Result<(), String> {
    name_of(&import.table)?;
    let mut importer = Importer { client, user, import, journals: HashMap::new(), asked: HashSet::new() };
    for file in &import.files {
        let said = importer.file(file).await.map_err(|error| format!("{}: {error}", file.display()))?;
        println!("{}: {said}", file.display());
    }
    Ok(())
}

struct Importer<'a> {
    client: Client,
    user: String,
    import: &'a Import,
    /// By their paths.
    journals: HashMap<PathBuf, Journal>,
    /// Transactions that were not committed, or not to the table that is there.
    asked: HashSet<String>,
}

/// Rows that are at the server.
struct Loaded {
    transaction: Transaction,
    rows: u64,
    /// The server's name of the rows of their table.
    rows_of: String,
}

impl Importer<'_> {
    /// Imports one file, or finds that it was imported; gives what is to be said of it.
    async fn file(&mut self, file: &Path) -> Result<String, String> {
        if file == Path::new("-") {
            return self.stdin().await;
        }
        let format = format_of(file, self.import.format)?;
        let path = file.canonicalize().map_err(|error| format!("cannot be read: {error}"))?;
        let journal = match &self.import.journal {
            Some(journal) => journal.clone(),
            None => path.with_file_name(JOURNAL),
        };
        if !self.journals.contains_key(&journal) {
            self.journals.insert(journal.clone(), Journal::open(&journal)?);
        }
        if !self.import.again
            && let Some(done) = self.done(&path, &journal).await?
        {
            return Ok(done);
        }
        let identity = Identity::of(&path)?;
        let loaded = self.load(Input::File(path), format).await?;
        if !identity.looks_the_same()? {
            let _ = loaded.transaction.rollback().await;
            return Err("it was changed while it was read: nothing of it was imported".to_owned());
        }
        let entry = Entry {
            state: State::Staged,
            file: identity,
            table: self.import.table.clone(),
            rows_of: loaded.rows_of,
            rows: loaded.rows,
            user: self.user.clone(),
            transaction: hex(loaded.transaction.id()),
        };
        self.add(&journal, &entry, State::Staged)?;
        match loaded.transaction.commit().await {
            Ok(()) => self.add(&journal, &entry, State::Committed)?,
            Err(error) if is_undone(&error) => {
                self.add(&journal, &entry, State::Undone)?;
                return Err(error.to_string());
            }
            Err(error) => {
                return Err(format!(
                    "whether it was imported is not known ({error}): the same command finds out, once the server is there"
                ));
            }
        }
        Ok(format!("{} imported", rows(entry.rows)))
    }

    async fn stdin(&self) -> Result<String, String> {
        let format = self.import.format.ok_or("what comes from stdin? Say --format")?;
        if self.import.create && format == FileFormat::Csv {
            return Err(
                "the types of a CSV are found by reading it twice: create the table first, or name a file".into()
            );
        }
        let loaded = self.load(Input::Stdin, format).await?;
        match loaded.transaction.commit().await {
            Ok(()) => Ok(format!("{} imported", rows(loaded.rows))),
            Err(error) if is_undone(&error) => Err(error.to_string()),
            Err(error) => Err(format!("whether it was imported is not known ({error}): look before you send it again")),
        }
    }

    fn journal(&mut self, path: &Path) -> Result<&mut Journal, String> {
        self.journals.get_mut(path).ok_or_else(|| format!("{}: it is not open", path.display()))
    }

    fn add(&mut self, journal: &Path, entry: &Entry, state: State) -> Result<(), String> {
        self.journal(journal)?.add(Entry { state, ..entry.clone() })
    }

    /// What is to be said of a file whose rows are in the table; `None` when they are not.
    async fn done(&mut self, path: &Path, journal: &Path) -> Result<Option<String>, String> {
        loop {
            let table = self.table().await?;
            let rows_of = table.as_ref().and_then(rows_of);
            let asked = self.asked.clone();
            let table = self.import.table.clone();
            let journal_path = journal.display().to_string();
            let is_known = |entry: &Entry| asked.contains(&entry.transaction);
            match self.journal(journal)?.plan(path, &table, rows_of.as_deref(), is_known) {
                Plan::Import => return Ok(None),
                Plan::Done(entry) if entry.file.is_unchanged()? => {
                    let count = rows(entry.rows);
                    return Ok(Some(format!("skipped: its {count} were imported before, says {journal_path}")));
                }
                Plan::Done(_) => {
                    return Err(format!(
                        "it was imported before, says {journal_path}, and has changed since: --again imports all of it"
                    ));
                }
                Plan::Ask(entry) => {
                    let entry = entry.clone();
                    self.ask(journal, &entry, rows_of.is_some()).await?;
                }
            }
        }
    }

    /// Finds out what has become of a transaction whose commit was about to be asked for: by asking for it again. The server
    /// says of one that was committed that it was, waits for one that is being committed, and commits one that is open.
    /// `is_theirs`: whether the table that is there is the one of the entry.
    async fn ask(&mut self, journal: &Path, entry: &Entry, is_theirs: bool) -> Result<(), String> {
        if entry.user != self.user {
            return Err(format!(
                "its import was interrupted: who asked for it has to ask again, --user {}. --again imports it in any case",
                entry.user
            ));
        }
        let id = from_hex(&entry.transaction).ok_or_else(|| format!("{}: it is broken", journal.display()))?;
        let end = Transaction::resume(&self.client, id.to_vec().into()).commit().await;
        self.asked.insert(entry.transaction.clone());
        match end {
            Ok(()) => self.add(journal, entry, State::Committed),
            Err(error) if is_undone(&error) => {
                if error.code() == Code::NotFound && is_theirs && is_forgotten(&id, self.now_ms().await?) {
                    return Err(
                        "its import was interrupted, and the server has forgotten how that ended: look whether its rows are \
                         there. --again imports it in any case"
                            .to_owned(),
                    );
                }
                // It may be of another server, which knows more, when there is no such table here.
                if is_theirs { self.add(journal, entry, State::Undone) } else { Ok(()) }
            }
            Err(error) => Err(format!("the server does not say how its interrupted import ended: {error}")),
        }
    }

    /// Sends all rows into a transaction, which is left open.
    async fn load(&self, input: Input, format: FileFormat) -> Result<Loaded, String> {
        let table = self.table().await?;
        if table.is_none() && !self.import.create {
            return Err(format!("there is no table '{}': create it, or say --create", self.import.table));
        }
        if table.as_ref().is_some_and(|table| table.rows().is_none()) {
            return Err(self.no_table());
        }
        let (source, columns) = self.opened(&input, format, table).await?;
        let transaction = self.client.begin().await.map_err(|error| error.to_string())?;
        let loaded = match self.send(&transaction, &input, source, columns).await {
            Ok(rows) => self.in_transaction().await.map(|rows_of| (rows, rows_of)),
            Err(error) => Err(error),
        };
        match loaded {
            Ok((rows, rows_of)) => Ok(Loaded { transaction, rows, rows_of }),
            Err(error) => {
                // It also ends with the session.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    /// Opens what is imported and matches its columns with the table's.
    async fn opened(
        &self,
        input: &Input,
        format: FileFormat,
        table: Option<TableEntry>,
    ) -> Result<(Source, Columns), String> {
        let (input, style) = (input.clone(), self.import.csv.clone());
        let leave_out = LeaveOut { extra: self.import.ignore_extra, system: self.import.drop_system_columns };
        let is_csv = format == FileFormat::Csv;
        let opening = move || {
            let source = open(&input, format, &style)?;
            let columns = match table {
                Some(table) => Columns::into_table(&source.schema, &table, leave_out, is_csv)?,
                None => {
                    let types: SchemaRef = match is_csv {
                        true => infer::types(open(&input, format, &style)?)?,
                        false => Arc::clone(&source.schema),
                    };
                    Columns::of_new_table(&source.schema, &types, leave_out, is_csv)?
                }
            };
            Ok((source, if style.null.is_empty() { columns.with_empty_for_null() } else { columns }))
        };
        reading(tokio::task::spawn_blocking(opening)).await
    }

    /// Reads and sends at the same time; gives the number of rows.
    async fn send(
        &self,
        transaction: &Transaction,
        input: &Input,
        source: Source,
        columns: Columns,
    ) -> Result<u64, String> {
        let schema = Arc::clone(&columns.schema);
        let (sender, mut receiver) = mpsc::channel(BATCHES_WAITING);
        let progress = Progress::new(&input.name(), source.reading.total);
        let shown = progress.clone();
        let read = reading(tokio::task::spawn_blocking(move || feed(source, columns, &sender, &shown)));
        let batches = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let mode = if self.import.create { IngestMode::CreateAppend } else { IngestMode::Append };
        let kind = match self.import.kind {
            Kind::Shared => TableKind::Shared,
            Kind::User => TableKind::User,
        };
        let sent = transaction.ingest_creating(&self.import.table, schema, batches, mode, kind).await;
        let read = read.await;
        progress.end();
        // What is wrong with the file is why it was not sent.
        let (read, sent) = (read?, sent.map_err(|error| error.to_string())?);
        match read == sent {
            true => Ok(sent),
            false => Err(format!("it has {}, and the server took {}: nothing was imported", rows(read), rows(sent))),
        }
    }

    /// The server's name of the rows of the table that the open transaction sees.
    async fn in_transaction(&self) -> Result<String, String> {
        let table = self.table().await?;
        table.as_ref().and_then(rows_of).ok_or_else(|| self.no_table())
    }

    fn no_table(&self) -> String {
        format!("'{}' is no table that rows can go into", self.import.table)
    }

    async fn table(&self) -> Result<Option<TableEntry>, String> {
        let (namespace, name) = name_of(&self.import.table)?;
        let tables = self.client.tables().await.map_err(|error| error.to_string())?;
        Ok(tables.into_iter().find(|table| table.namespace == namespace && table.name == name))
    }

    /// The server's time.
    async fn now_ms(&self) -> Result<i64, String> {
        let query = "SELECT CAST(date_part('epoch', now()) * 1000 AS BIGINT) AS ms";
        let rows = self.client.query(query).await.map_err(|error| error.to_string())?;
        let batches = rows.collect().await.map_err(|error| error.to_string())?;
        let column = batches.first().and_then(|batch| batch.columns().first());
        let time = column.and_then(|column| column.as_primitive_opt::<Int64Type>()).filter(|times| !times.is_empty());
        time.map(|times| times.value(0)).ok_or_else(|| "the server does not say what time it is".to_owned())
    }
}

/// Reads all rows and hands them on; gives their number. Ends early when nobody wants them any more.
fn feed(
    source: Source,
    mut columns: Columns,
    sender: &mpsc::Sender<Result<RecordBatch, Error>>,
    progress: &Progress,
) -> Result<u64, String> {
    for batch in source.batches {
        let sent = batch.and_then(|batch| columns.next(&batch));
        let sent = sent.inspect_err(|error| {
            // An end would look like that of the file.
            let _ = sender.blocking_send(Err(ArrowError::ComputeError(error.clone()).into()));
        })?;
        progress.reached(source.reading.at(), columns.rows());
        if sender.blocking_send(Ok(sent)).is_err() {
            break;
        }
    }
    Ok(columns.rows())
}

/// The end of a task that reads a file. Readers of formats panic on some files that no writer makes.
async fn reading<T>(task: tokio::task::JoinHandle<Result<T, String>>) -> Result<T, String> {
    task.await.unwrap_or_else(|error| Err(format!("cannot be read: it is damaged ({error})")))
}

fn rows_of(table: &TableEntry) -> Option<String> {
    table.rows().map(str::to_owned)
}

/// Whether an error at a commit says that nothing was committed.
fn is_undone(error: &Error) -> bool {
    matches!(error.code(), Code::NotFound | Code::Aborted | Code::AlreadyExists)
}

/// Whether a server may have forgotten a transaction's commit. Its name begins with the time of its begin.
fn is_forgotten(id: &[u8; 16], now_ms: i64) -> bool {
    let begun_ms = id[..6].iter().fold(0, |ms, byte| ms << 8 | i64::from(*byte));
    now_ms.saturating_sub(begun_ms) > REMEMBERED_MS
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_transactions_are_kept_as_text() {
        let id = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255];
        assert_eq!(hex(&id), "000102030405060708090a0b0c0d0eff");
        assert_eq!(from_hex(&hex(&id)), Some(id));
        for text in ["", "00", "xx0102030405060708090a0b0c0d0eff"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_server_says_of_a_transaction_counts_for_a_day() {
        let begun_ms: i64 = 1_800_000_000_000;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&begun_ms.to_be_bytes()[2..]);
        let hour = 3600 * 1000;
        assert!(!is_forgotten(&id, begun_ms));
        assert!(!is_forgotten(&id, begun_ms + 23 * hour));
        assert!(is_forgotten(&id, begun_ms + 23 * hour + 1));
    }
}
