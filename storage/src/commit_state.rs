//! The rules by which commits follow each other: check, assign, append.
//!
//! `CommitState` decides; `crate::committer` acts. No disk is read here for a commit whose scopes are known, and
//! nothing waits.
//!
//! Invariants:
//! 1. All rows of a commit share one `_updated`; a commit holds at most one version of a row. `_updated` rises strictly
//!    from commit to commit.
//! 2. A commit that supersedes a row is refused when another commit superseded that row after its snapshot: first
//!    committer wins.
//!    The same goes for unique keys: whoever touches one that another commit touched after its snapshot is refused.
//! 3. A superseded version that lies in a file gets its bit in the delete log with the commit that supersedes it. When
//!    the generation or file it was read from became another file in between, the bit goes to that file.
//! 4. A constraint is added on the strength of rows as of its commit's snapshot: it is refused when others were written since. And
//!    who has made rows for fewer constraints than there are is refused, so that both are never there.
//! 5. What an open snapshot may still be compared with is kept: `recent` and `moved` reach back to the oldest one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use roaring::RoaringTreemap;
use rocksdb::WriteBatch;

use crate::bulk::PendingFile;
use crate::catalog::{Catalog, CatalogChange, CatalogError, TableChange, TableKind};
use crate::commit::{ActiveFile, Commit, Location, Publication, ScopeWrite, Values};
use crate::commit_names;
use crate::commit_records::{SequenceRecord, append_catalog, append_record, to_json};
use crate::delete_log::{self, MaskedRow};
use crate::error::{Result, StorageError};
use crate::hot_size::HotSize;
use crate::keys::{
    BatchNumber, Generation, RowKey, Scope, TableId, after_prefix, batch_key, delete_log_key, generation_prefix,
    header_key, unique_key,
};
use crate::records::{BatchRecord, BatchStatus, ScopeHeader};
use crate::recovery::Recovered;
use crate::rocks::{Family, Rocks};
use crate::row_codec;
use crate::system_columns::{CommitClock, CommitTs, IdSequence, RowId};
use crate::tally::Tally;
use crate::touched_keys::{TouchedKeys, Touching};
use crate::unique::KeyWrite;

/// Rows that became rows of another file, for commits that read them where they were.
#[derive(Debug)]
struct Moved {
    at: CommitTs,
    scope: Scope,
    generations: Vec<Generation>,
    files: Vec<BatchNumber>,
    to: BatchNumber,
    ids: Arc<Vec<i64>>,
}

impl Moved {
    fn takes(&self, location: Location) -> bool {
        match location {
            Location::Hot(generation) => self.generations.contains(&generation),
            Location::Cold(file, _) => self.files.contains(&file),
        }
    }
}

/// Rows superseded by a commit, and the unique keys that it touched.
#[derive(Debug)]
struct RecentCommit {
    ts: CommitTs,
    superseded: Vec<(Scope, RoaringTreemap)>,
    keys: TouchedKeys,
}

/// What the committer knows.
#[derive(Debug)]
pub(crate) struct CommitState {
    rocks: Arc<Rocks>,
    ids: Arc<IdSequence>,
    clock: CommitClock,
    catalog: Arc<Catalog>,
    max_table_id: u32,
    headers: HashMap<Scope, ScopeHeader>,
    tally: Arc<Tally>,
    /// Scopes that were written to, since that was last asked.
    written: Vec<Scope>,
    /// The last commit of rows of a table, since the start.
    last_written: HashMap<TableId, CommitTs>,
    recent: VecDeque<RecentCommit>,
    moved: VecDeque<Moved>,
    next_audit: u64,
    touched: Touching,
}

impl CommitState {
    pub(crate) fn new(
        rocks: Arc<Rocks>,
        ids: Arc<IdSequence>,
        clock: CommitClock,
        catalog: Arc<Catalog>,
        max_table_id: u32,
        tally: Arc<Tally>,
        next_audit: u64,
    ) -> Self {
        Self {
            rocks,
            ids,
            clock,
            catalog,
            max_table_id,
            headers: HashMap::new(),
            tally,
            written: Vec::new(),
            last_written: HashMap::new(),
            recent: VecDeque::new(),
            moved: VecDeque::new(),
            next_audit,
            touched: Touching::default(),
        }
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Has all later commits come after a time.
    pub(crate) fn pass(&mut self, at: CommitTs) {
        self.clock.pass(at);
    }

    pub(crate) fn last_ts(&self) -> CommitTs {
        self.clock.last()
    }

    /// What must be durable with every group so that ids and timestamps go on above it.
    pub(crate) fn sequence(&self) -> SequenceRecord {
        SequenceRecord {
            last_updated: self.clock.last(),
            id_high_water: self.ids.high_water(),
            max_table_id: self.max_table_id,
        }
    }

    /// Forgets what no snapshot from `oldest` on can be compared with.
    pub(crate) fn forget_before(&mut self, oldest: CommitTs) {
        while self.recent.front().is_some_and(|commit| commit.ts <= oldest) {
            self.recent.pop_front();
        }
        while self.moved.front().is_some_and(|moved| moved.at <= oldest) {
            self.moved.pop_front();
        }
    }

    /// Checks a commit, gives it its timestamp and appends it to the batch. After an error nothing has changed.
    pub(crate) fn commit(&mut self, commit: &Commit, now_ns: i64, batch: &mut WriteBatch) -> Result<CommitTs> {
        let superseded = superseded_ids(&commit.writes);
        if let Some((scope, id)) = self.conflict(commit.snapshot.ts(), &superseded) {
            return Err(StorageError::RowConflict { scope, id });
        }
        let touched = self.touched.of(&commit.keys);
        if let Some(scope) = self.key_conflict(commit.snapshot.ts(), &touched) {
            return Err(StorageError::KeyConflict { scope });
        }
        let mut catalog = Arc::clone(&self.catalog);
        let (mut catalog_writes, mut without_keys) = (Vec::new(), Vec::new());
        for change in &commit.catalog {
            without_keys.extend(self.scopes_without_keys(change, &catalog, commit.snapshot.ts())?);
            catalog_writes.extend(Arc::make_mut(&mut catalog).apply(change)?);
        }
        if !commit.expects.iter().all(|expected| expected.is_met(&catalog)) {
            return Err(StorageError::Conflict);
        }
        let of_keys = commit.keys.iter().filter(|write| write.completes).map(|write| write.scope);
        let of_files = commit.files.iter().map(|file| file.scope());
        let of_rows = commit.writes.iter().map(|write| write.scope).chain(of_files);
        for scope in of_rows.clone().chain(of_keys).chain(without_keys.iter().copied()) {
            self.load_header(scope)?;
        }
        if !commit.files.iter().all(|file| is_in_its_place(&catalog, file)) {
            return Err(StorageError::Conflict);
        }
        let superseding = self.clock.peek(now_ns);
        let masked = self.places_in_files(commit, superseding)?;
        let ts = self.clock.next(now_ns);
        append_catalog(&self.rocks, &catalog_writes, batch);
        self.max_table_id = self.max_table_id.max(catalog.max_table_id());
        self.catalog = catalog;
        for write in &commit.writes {
            self.append_rows(write, ts, batch);
            self.count(write, now_ns);
            self.written.push(write.scope);
        }
        for write in &commit.keys {
            self.append_keys(write, batch);
        }
        for scope in without_keys {
            self.headers.get_mut(&scope).expect("it was loaded before").keys_lost = true;
            self.append_header(scope, batch);
        }
        self.last_written.extend(of_rows.map(|scope| (scope.table, ts)));
        self.append_files(&commit.files, ts, batch);
        for ((scope, file), rows) in masked {
            let key = delete_log_key(scope, ts, file);
            batch.put_cf(self.rocks.family(Family::DeleteLog), key, delete_log::encode(rows));
            self.tally.files_changed(scope);
        }
        if !superseded.is_empty() || !touched.is_empty() {
            self.recent.push_back(RecentCommit { ts, superseded, keys: touched });
        }
        if let Some(name) = &commit.name {
            batch.put_cf(self.rocks.family(Family::Transactions), name.id, commit_names::encode(name.owner, ts));
        }
        for entry in &commit.audit {
            batch.put_cf(self.rocks.family(Family::Audit), self.next_audit.to_be_bytes(), entry.encode(ts));
            self.next_audit += 1;
        }
        Ok(ts)
    }

    /// The scopes whose key index is not whole any more when a table gets another key by this change. `since`: what the
    /// change was decided on.
    fn scopes_without_keys(&self, change: &CatalogChange, before: &Catalog, since: CommitTs) -> Result<Vec<Scope>> {
        let CatalogChange::AlterTable { table, change: TableChange::Constraints(change) } = change else {
            return Ok(vec![]);
        };
        let (Some(record), Some(verified)) = (before.table_by_id(*table), &change.verified) else { return Ok(vec![]) };
        if self.last_written.get(table).is_some_and(|at| *at > since) {
            return Err(CatalogError::TableWritten(record.namespace.clone(), record.name.clone()).into());
        }
        Ok(if change.adds_key(record) { verified.clone() } else { vec![] })
    }

    /// Scopes of which rows were written since this was asked.
    pub(crate) fn take_written(&mut self) -> Vec<Scope> {
        std::mem::take(&mut self.written)
    }

    /// Ends the active generation of a scope and hands out the number of the file it becomes.
    pub(crate) fn seal(&mut self, scope: Scope, batch: &mut WriteBatch) -> Result<BatchNumber> {
        let number = self.reserve_batch(scope, batch)?;
        let header = self.load_header(scope)?;
        header.sealed.push(header.active);
        header.active = header.active.next();
        self.tally.sealed(scope);
        self.append_header(scope, batch);
        Ok(number)
    }

    /// Hands out the next file number of a scope.
    pub(crate) fn reserve_batch(&mut self, scope: Scope, batch: &mut WriteBatch) -> Result<BatchNumber> {
        self.table_is_there(scope)?;
        let header = self.load_header(scope)?;
        let number = header.next_batch;
        header.next_batch = BatchNumber(number.0 + 1);
        self.append_header(scope, batch);
        Ok(number)
    }

    /// Makes new files count, and the generations and files that they hold not. Commits since the publication's snapshot
    /// are translated to positions of the new file.
    pub(crate) fn publish(&mut self, publication: &Publication, now_ns: i64, batch: &mut WriteBatch) -> Result<()> {
        let scope = publication.scope;
        self.table_is_there(scope)?;
        // Whoever wrote these files did not see the last change: they hold rows that others hold too.
        if self.load_header(scope)?.version != publication.version {
            return Err(StorageError::Conflict);
        }
        let ts = self.clock.next(now_ns);
        self.append_log(publication, ts, batch);
        for record in &publication.replaced {
            let archived =
                BatchRecord { status: BatchStatus::Archived, archived_at: Some(ts), deletes: None, ..record.clone() };
            append_record(&self.rocks, scope, &archived, batch);
        }
        let archive = publication.archive.iter().map(|record| BatchRecord { archived_at: Some(ts), ..record.clone() });
        let archive = archive.collect::<Vec<_>>();
        let added = publication.active.iter().map(|active| &active.record).chain(&archive);
        for record in added.clone().chain(&publication.changed) {
            append_record(&self.rocks, scope, record, batch);
        }
        let header = self.load_header(scope)?;
        header.sealed.retain(|generation| !publication.generations.contains(generation));
        header.draining.extend(&publication.generations);
        header.max_batch = added.map(|record| record.batch_number).fold(header.max_batch, Ord::max);
        header.flushed_to = header.flushed_to.max(publication.flushed_to);
        header.version += 1;
        if let Some(active) = &publication.active {
            self.moved.push_back(Moved {
                at: ts,
                scope,
                generations: publication.generations.clone(),
                files: publication.replaced.iter().map(|record| record.batch_number).collect(),
                to: active.record.batch_number,
                ids: Arc::clone(&active.ids),
            });
        }
        self.tally.files_changed(scope);
        self.append_header(scope, batch);
        Ok(())
    }

    /// The delete log of a publication: the rows of its file that are not to be read, and what is merged or needless.
    fn append_log(&self, publication: &Publication, ts: CommitTs, batch: &mut WriteBatch) {
        let log = self.rocks.family(Family::DeleteLog);
        let scope = publication.scope;
        publication.log.needless.iter().for_each(|key| batch.delete_cf(log, key));
        for (file, rows) in &publication.log.merged {
            batch.put_cf(log, delete_log_key(scope, ts, *file), delete_log::encode(rows.clone()));
        }
        let mut masked = Vec::new();
        if let Some(active) = &publication.active {
            masked.extend_from_slice(&active.masked);
            masked.extend(self.superseded_since(publication, active));
        }
        // A row superseded twice is masked by the first.
        masked.sort_unstable();
        masked.dedup_by_key(|row| row.position);
        // Readers tell by the newest entry which log they have seen: one is written whenever others go.
        let files = publication.active.iter().map(|active| &active.record).chain(&publication.replaced);
        if let Some(file) = files.map(|record| record.batch_number).next()
            && !(masked.is_empty() && publication.log.needless.is_empty() && publication.replaced.is_empty())
        {
            batch.put_cf(log, delete_log_key(scope, ts, file), delete_log::encode(masked));
        }
    }

    /// Takes archived batches, in their last state, out of what the next manifest shows.
    pub(crate) fn retire_batches(
        &mut self,
        scope: Scope,
        records: &[BatchRecord],
        batch: &mut WriteBatch,
    ) -> Result<()> {
        self.table_is_there(scope)?;
        let header = self.load_header(scope)?;
        header.version += 1;
        let newest = records.iter().map(|record| record.max_updated);
        header.gone_to = Some(newest.fold(header.whole_from(), CommitTs::max));
        let archived = records.iter().filter_map(|record| record.archived_at);
        header.history_from = archived.fold(header.history_from, CommitTs::max);
        records.iter().for_each(|record| append_record(&self.rocks, scope, record, batch));
        self.append_header(scope, batch);
        Ok(())
    }

    /// Forgets retired batches whose files are gone. `log`: keys of their delete log.
    pub(crate) fn forget_batches(
        &self,
        scope: Scope,
        numbers: &BTreeSet<BatchNumber>,
        log: &[Vec<u8>],
        batch: &mut WriteBatch,
    ) -> Result<()> {
        self.table_is_there(scope)?;
        let (batches, delete_log) = (self.rocks.family(Family::Batches), self.rocks.family(Family::DeleteLog));
        numbers.iter().for_each(|number| batch.delete_cf(batches, batch_key(scope, *number)));
        log.iter().for_each(|key| batch.delete_cf(delete_log, key));
        // A tombstone may have been kept because of them.
        self.tally.files_changed(scope);
        Ok(())
    }

    /// Gives a scope its records back. What commits meanwhile superseded stands in the delete log already.
    pub(crate) fn recovered(
        &mut self,
        scope: Scope,
        recovered: &Recovered,
        now_ns: i64,
        batch: &mut WriteBatch,
    ) -> Result<()> {
        self.table_is_there(scope)?;
        if !self.load_header(scope)?.recovering {
            return Ok(());
        }
        let ts = self.clock.next(now_ns);
        for record in &recovered.records {
            let archived_at = match record.status {
                BatchStatus::Archived => Some(record.archived_at.unwrap_or(ts)),
                _ => None,
            };
            // Its proof is there.
            let since = None;
            append_record(&self.rocks, scope, &BatchRecord { archived_at, since, ..record.clone() }, batch);
        }
        for (file, rows) in &recovered.masked {
            let key = delete_log_key(scope, ts, *file);
            batch.put_cf(self.rocks.family(Family::DeleteLog), key, delete_log::encode(rows.clone()));
        }
        let header = self.load_header(scope)?;
        header.recovering = false;
        header.history_from = ts;
        header.gone_to = None;
        header.spared = header.spared.max(recovered.max_batch);
        header.max_batch = header.max_batch.max(recovered.max_batch);
        header.next_batch = header.next_batch.max(BatchNumber(recovered.max_batch.0 + 1));
        header.flushed_to = header.flushed_to.max(recovered.flushed_to);
        header.version = header.version.max(recovered.version) + 1;
        self.append_header(scope, batch);
        Ok(())
    }

    /// After the manifest has been exported: removes the rows that it covers.
    pub(crate) fn exported(&mut self, scope: Scope, version: u64, batch: &mut WriteBatch) -> Result<()> {
        self.table_is_there(scope)?;
        let header = self.load_header(scope)?;
        header.exported = header.exported.max(version);
        // Files of a later version are not in this manifest; their generations wait for theirs.
        if header.exported == header.version {
            let is_drained = header.sealed.is_empty();
            for generation in std::mem::take(&mut header.draining) {
                let start = generation_prefix(scope, generation).to_vec();
                if let Some(end) = after_prefix(&start) {
                    batch.delete_range_cf(self.rocks.family(Family::Rows), start, end);
                }
            }
            if is_drained {
                self.tally.drained(scope);
            }
        }
        self.append_header(scope, batch);
        Ok(())
    }

    /// Removes everything that RocksDB holds of a dropped table.
    pub(crate) fn forget_table(&mut self, table: TableId, batch: &mut WriteBatch) -> Result<()> {
        if self.catalog.table_by_id(table).is_some() {
            // Only a mark of what is gone is taken away with all that belongs to it.
            return Err(StorageError::Conflict);
        }
        let start = table.0.to_be_bytes().to_vec();
        if let Some(end) = after_prefix(&start) {
            for family in [Family::Rows, Family::DeleteLog, Family::Keys, Family::Batches] {
                batch.delete_range_cf(self.rocks.family(family), start.clone(), end.clone());
            }
        }
        self.headers.retain(|scope, _| scope.table != table);
        self.last_written.remove(&table);
        self.tally.forget(table);
        let mut catalog = (*self.catalog).clone();
        let writes = catalog.apply(&CatalogChange::ForgetDropped(table))?;
        append_catalog(&self.rocks, &writes, batch);
        self.catalog = Arc::new(catalog);
        Ok(())
    }

    /// Refuses what would leave traces of a table that is gone.
    fn table_is_there(&self, scope: Scope) -> Result<()> {
        self.catalog.table_by_id(scope.table).map(drop).ok_or(StorageError::Conflict)
    }

    /// A row that a commit after `since` has superseded too.
    fn conflict(&self, since: CommitTs, superseded: &[(Scope, RoaringTreemap)]) -> Option<(Scope, i64)> {
        let mut newer = self.recent.iter().rev().take_while(|commit| commit.ts > since);
        newer.find_map(|commit| {
            let pairs = commit.superseded.iter().flat_map(|theirs| superseded.iter().map(move |ours| (theirs, ours)));
            let mut same = pairs.filter(|(theirs, ours)| theirs.0 == ours.0 && !theirs.1.is_disjoint(&ours.1));
            same.find_map(|(theirs, ours)| Some((ours.0, (&theirs.1 & &ours.1).min()? as i64)))
        })
    }

    /// A scope of which a commit after `since` has touched one of these keys too.
    fn key_conflict(&self, since: CommitTs, touched: &TouchedKeys) -> Option<Scope> {
        let mut newer = self.recent.iter().rev().take_while(|commit| commit.ts > since);
        newer.find_map(|commit| commit.keys.meets(touched))
    }

    /// Rows of the publication's file that commits after its snapshot superseded.
    fn superseded_since(&self, publication: &Publication, file: &ActiveFile) -> Vec<MaskedRow> {
        let since = publication.snapshot.ts();
        let newer = self.recent.iter().rev().take_while(|commit| commit.ts > since);
        newer
            .flat_map(|commit| commit.superseded.iter().map(|(scope, ids)| (commit.ts, scope, ids)))
            .filter(|(_, scope, _)| **scope == publication.scope)
            .flat_map(|(ts, _, ids)| ids.iter().map(move |id| (ts, id)))
            .filter_map(|(ts, id)| {
                let position = file.ids.binary_search(&(id as i64)).ok()?;
                Some(MaskedRow {
                    position: position as u32,
                    id: RowId::stored(id as i64),
                    updated: CommitTs::stored(file.updated[position]),
                    superseded_by: ts,
                })
            })
            .collect()
    }

    fn append_rows(&self, write: &ScopeWrite, ts: CommitTs, batch: &mut WriteBatch) {
        let rows = self.rocks.family(Family::Rows);
        let generation = self.headers[&write.scope].active;
        let key = |id: RowId| RowKey { scope: write.scope, generation, id, updated: ts }.encode();
        match &write.values {
            Values::Rows(values) => {
                write.ids.iter().zip(values.iter()).for_each(|(id, value)| batch.put_cf(rows, key(*id), value));
            }
            Values::Tombstones(schema_version) => {
                let value = row_codec::encode_tombstone(*schema_version);
                write.ids.iter().for_each(|id| batch.put_cf(rows, key(*id), value));
            }
        }
    }

    fn append_keys(&mut self, write: &KeyWrite, batch: &mut WriteBatch) {
        let family = self.rocks.family(Family::Keys);
        for (key, id) in &write.changes {
            let key = unique_key(write.scope, key);
            match id {
                Some(id) => batch.put_cf(family, key, id.get().to_le_bytes()),
                None => batch.delete_cf(family, key),
            }
        }
        if write.completes {
            self.headers.get_mut(&write.scope).expect("it was loaded before").keys_lost = false;
            self.append_header(write.scope, batch);
        }
    }

    /// Appends the records of new files: all their rows get this commit's `_updated`.
    fn append_files(&mut self, files: &[Arc<PendingFile>], ts: CommitTs, batch: &mut WriteBatch) {
        let scopes: BTreeSet<Scope> = files.iter().map(|file| file.scope()).collect();
        for scope in scopes {
            let header = self.headers.get_mut(&scope).expect("it was loaded before");
            header.version += 1;
            self.tally.files_changed(scope);
            for file in files.iter().filter(|file| file.scope() == scope) {
                header.next_batch = header.next_batch.max(file.numbers_end());
                header.max_batch = header.max_batch.max(file.record().batch_number);
                let record = file.record().clone().committed_at(ts, header.version);
                append_record(&self.rocks, scope, &record, batch);
            }
            self.append_header(scope, batch);
        }
    }

    /// Counts what a write has appended. Streams are never flushed.
    fn count(&self, write: &ScopeWrite, now_ns: i64) {
        let scope = write.scope;
        if self.catalog.table_by_id(scope.table).is_none_or(|table| table.kind == TableKind::Stream) {
            return;
        }
        let active = self.headers[&scope].active;
        let found = || HotSize {
            bytes: self.rocks.stored_bytes(Family::Rows, &generation_prefix(scope, active)),
            ..HotSize::default()
        };
        self.tally.grown(scope, now_ns, found, |before| before.with(write, active));
    }

    /// The superseded rows that lie in files, by file: a file gets one entry a commit, however many writes hit it.
    fn places_in_files(
        &self,
        commit: &Commit,
        superseded_by: CommitTs,
    ) -> Result<HashMap<(Scope, BatchNumber), Vec<MaskedRow>>> {
        let read_at = commit.snapshot.ts();
        let mut by_file: HashMap<_, Vec<MaskedRow>> = HashMap::new();
        for write in &commit.writes {
            let own = commit.files.iter().filter(|file| file.scope() == write.scope);
            let own: Vec<BatchNumber> = own.map(|file| file.record().batch_number).collect();
            // What moved before it was read was read where it is.
            let moved: Vec<&Moved> =
                self.moved.iter().filter(|moved| moved.scope == write.scope && moved.at > read_at).collect();
            for (&id, old) in write.ids.iter().zip(&write.supersedes) {
                if let Some((file, position)) = place_in_file(&moved, id, old.location)? {
                    // A row that the transaction has loaded and then changed was there before its commit, in a way; a
                    // row that supersedes itself would be a tombstone.
                    let updated = if own.contains(&file) { superseded_by.before() } else { old.updated };
                    let row = MaskedRow { position, id, updated, superseded_by };
                    by_file.entry((write.scope, file)).or_default().push(row);
                }
            }
        }
        Ok(by_file)
    }

    fn append_header(&self, scope: Scope, batch: &mut WriteBatch) {
        let header = &self.headers[&scope];
        batch.put_cf(self.rocks.family(Family::Batches), header_key(scope), to_json(header));
    }

    fn load_header(&mut self, scope: Scope) -> Result<&mut ScopeHeader> {
        use std::collections::hash_map::Entry;
        match self.headers.entry(scope) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let header = match self.rocks.get(Family::Batches, &header_key(scope))? {
                    Some(json) => {
                        serde_json::from_slice(&json).map_err(StorageError::damaged_json("a scope header"))?
                    }
                    None => ScopeHeader::default(),
                };
                Ok(entry.insert(header))
            }
        }
    }
}

/// Whether a file lies where its table has its files.
fn is_in_its_place(catalog: &Catalog, file: &PendingFile) -> bool {
    let folder = catalog.table_by_id(file.scope().table).map(|table| &table.prefix);
    folder
        .and_then(|folder| file.record().file_path.strip_prefix(folder.as_str()))
        .is_some_and(|rest| rest.starts_with('/'))
}

/// The file and position of a version that was read at `location`; `None` when it is hot still. Moves are in order:
/// one pass follows a row from generation to file to compacted file.
fn place_in_file(moved: &[&Moved], id: RowId, location: Location) -> Result<Option<(BatchNumber, u32)>> {
    let mut location = location;
    for moved in moved {
        if moved.takes(location) {
            let position = moved.ids.binary_search(&id.get()).map_err(|_| {
                StorageError::Damaged(format!("row {id} is not in the file its generation or file became"))
            })?;
            location = Location::Cold(moved.to, position as u32);
        }
    }
    Ok(match location {
        Location::Cold(file, position) => Some((file, position)),
        Location::Hot(_) => None,
    })
}

/// The rows that writes supersede, by scope. New rows are in nobody's way.
fn superseded_ids(writes: &[ScopeWrite]) -> Vec<(Scope, RoaringTreemap)> {
    let mut by_scope: Vec<(Scope, RoaringTreemap)> = Vec::new();
    for write in writes.iter().filter(|write| !write.supersedes.is_empty()) {
        let ids = write.ids.iter().map(|id| id.get() as u64);
        match by_scope.iter_mut().find(|(scope, _)| *scope == write.scope) {
            Some((_, known)) => known.extend(ids),
            None => by_scope.push((write.scope, ids.collect())),
        }
    }
    by_scope
}
