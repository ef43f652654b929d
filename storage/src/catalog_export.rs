//! `_seracdb/catalog-e{epoch}.json`: namespaces, tables, views, users with their tokens, and grants, for a data directory that goes on where another is gone.
//!
//! Invariants:
//! 1. It is written before any manifest or flushed file that rests on it: a manifest's table is always in it, and so are the columns
//!    that a file was written with.
//! 2. Each owner writes its own, named by the epoch from which on it owns the store; no one's is ever written over by
//!    another's.
//! 3. Who goes on with the tables of an owner says so in `owner.json` (`inherits`) before it writes anything, and has read
//!    them when `imported` says so, also after a crash in between.
//!
//! Only for an object store that another data directory could own.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use crate::catalog::{
    Catalog, CatalogRecord, CatalogWrite, DEFAULT_NAMESPACE, DroppedTable, GrantRecord, NamespaceRecord, TableKind,
    TableRecord, TokenRecord, UserRecord, ViewRecord,
};
use crate::commit_records::{SequenceRecord, append_catalog};
use crate::error::{Result, StorageError};
use crate::keys::{Owner, Scope, header_key};
use crate::objects::{ETag, Found, Objects};
use crate::paths;
use crate::records::ScopeHeader;
use crate::rocks::{Family, Rocks};
use crate::snapshot::Snapshot;
use crate::system_columns::CommitTs;

/// The highest version of the format that this build reads.
const CATALOG_FORMAT: u32 = 3;
/// The version of a catalog without grants: who knows none may read it.
const FORMAT_WITHOUT_GRANTS: u32 = 2;
/// The version of one without views either.
const FORMAT_WITHOUT_VIEWS: u32 = 1;

/// Tables whose folders are listed at the same time.
const LISTED_AT_ONCE: usize = 8;

/// Key of the epoch whose owner's tables were read.
const IMPORTED: &[u8] = b"imported";

/// A catalog as the object store has it.
#[derive(Debug, Serialize, Deserialize)]
struct CatalogFile {
    format_version: u32,
    /// Of the owner who wrote it.
    epoch: u64,
    /// The commit that it shows the state after.
    as_of: i64,
    /// No table had a higher number.
    max_table_id: u32,
    namespaces: Vec<NamespaceRecord>,
    tables: Vec<TableRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    views: Vec<ViewRecord>,
    users: Vec<UserRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grants: Vec<GrantRecord>,
    tokens: Vec<TokenRecord>,
    /// Folders of tables that there are or were.
    prefixes: Vec<String>,
    dropped: Vec<DroppedTable>,
}

/// What was last exported.
#[derive(Debug, Default)]
pub(crate) struct CatalogExport(tokio::sync::Mutex<Option<(Arc<Catalog>, ETag)>>);

impl CatalogExport {
    /// Exports the newest catalog, unless that is done or another data directory cannot own the store.
    pub(crate) async fn bring_up_to_date(
        &self,
        objects: &Objects,
        newest: impl Fn() -> Arc<Snapshot>,
        max_table_id: u32,
    ) -> Result<()> {
        if !objects.is_shared() {
            return Ok(());
        }
        let mut exported = self.0.lock().await;
        // Taken under the lock: what is exported never goes back.
        let snapshot = newest();
        if exported.as_ref().is_some_and(|(catalog, _)| Arc::ptr_eq(catalog, snapshot.catalog())) {
            return Ok(());
        }
        let json = CatalogFile::of(snapshot.catalog(), snapshot.ts(), objects.epoch(), max_table_id).to_json();
        let last = exported.as_ref().map(|(_, etag)| etag.clone());
        let etag = objects.put(&paths::catalog_file(objects.era()), json, last).await?;
        *exported = Some((Arc::clone(snapshot.catalog()), etag));
        Ok(())
    }
}

impl CatalogFile {
    fn of(catalog: &Catalog, as_of: CommitTs, epoch: u64, max_table_id: u32) -> Self {
        let views: Vec<ViewRecord> = catalog.views().map(|record| (**record).clone()).collect();
        let format_version = match (catalog.has_grants(), views.is_empty()) {
            (true, _) => CATALOG_FORMAT,
            (false, false) => FORMAT_WITHOUT_GRANTS,
            (false, true) => FORMAT_WITHOUT_VIEWS,
        };
        Self {
            format_version,
            epoch,
            as_of: as_of.get(),
            max_table_id,
            namespaces: catalog.namespaces().map(|record| (**record).clone()).collect(),
            tables: catalog.tables().map(|record| (**record).clone()).collect(),
            views,
            users: catalog.users().map(|record| (**record).clone()).collect(),
            grants: catalog.grants().map(|record| (**record).clone()).collect(),
            tokens: catalog.tokens().map(|record| (**record).clone()).collect(),
            prefixes: catalog.prefixes().map(str::to_owned).collect(),
            dropped: catalog.dropped().cloned().collect(),
        }
    }

    fn to_json(&self) -> Bytes {
        serde_json::to_vec_pretty(self).expect("a catalog has only strings as keys").into()
    }

    fn read(path: &str, bytes: &[u8]) -> Result<Self> {
        let file: Self = serde_json::from_slice(bytes).map_err(StorageError::damaged_json(path))?;
        if file.format_version > CATALOG_FORMAT {
            let (found, known) = (file.format_version, CATALOG_FORMAT);
            return Err(StorageError::FormatVersion { path: path.into(), found, known });
        }
        Ok(file)
    }

    fn records(self) -> Vec<CatalogRecord> {
        // The default one is always there, but what was said of it is not.
        let is_stored = |record: &NamespaceRecord| record.name != DEFAULT_NAMESPACE || record.comment.is_some();
        let namespaces = self.namespaces.into_iter().filter(is_stored);
        namespaces
            .map(CatalogRecord::Namespace)
            .chain(self.tables.into_iter().map(CatalogRecord::Table))
            .chain(self.views.into_iter().map(CatalogRecord::View))
            .chain(self.users.into_iter().map(CatalogRecord::User))
            .chain(self.grants.into_iter().map(CatalogRecord::Grant))
            .chain(self.tokens.into_iter().map(CatalogRecord::Token))
            .chain(self.prefixes.into_iter().map(CatalogRecord::Prefix))
            .chain(self.dropped.into_iter().map(CatalogRecord::Dropped))
            .collect()
    }
}

/// In what an exported catalog is not the one that it should be.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Its parts that say something else.
    pub(crate) differing: Vec<&'static str>,
    /// Folders of the tables that it lacks.
    pub(crate) tables_missing: Vec<String>,
}

/// Compares an exported catalog with the one that is to be exported.
pub(crate) fn compare(path: &str, bytes: &[u8], catalog: &Catalog) -> Result<Compared> {
    let file = CatalogFile::read(path, bytes)?;
    let now = CatalogFile::of(catalog, CommitTs::default(), file.epoch, file.max_table_id);
    // The default namespace is as old as the process that exported it.
    let of = |namespaces: &[NamespaceRecord]| {
        let others = namespaces.iter().filter(|record| record.name != DEFAULT_NAMESPACE);
        others.cloned().collect::<Vec<_>>()
    };
    let parts = [
        ("namespaces", of(&file.namespaces) != of(&now.namespaces)),
        ("tables", file.tables != now.tables),
        ("views", file.views != now.views),
        ("users", file.users != now.users),
        ("grants", file.grants != now.grants),
        ("tokens", file.tokens != now.tokens),
        ("prefixes", file.prefixes != now.prefixes),
        // One that is removed meanwhile may be removed again.
        ("dropped", !now.dropped.iter().all(|table| file.dropped.contains(table))),
    ];
    let is_missing = |table: &&TableRecord| !file.tables.iter().any(|exported| exported.id == table.id);
    Ok(Compared {
        differing: parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect(),
        tables_missing: now.tables.iter().filter(is_missing).map(|table| table.prefix.clone()).collect(),
    })
}

/// Reads the catalog of the owner before, when this one goes on with its tables and has not read them yet. Their records
/// are to be recovered.
pub(crate) async fn import(objects: &Objects, rocks: &Rocks, sequence: SequenceRecord) -> Result<()> {
    let inherited = objects.inherited_eras();
    if inherited.is_empty() {
        return Ok(());
    }
    let done = objects.era().to_le_bytes();
    if rocks.get_root(IMPORTED)?.as_deref() == Some(&done) {
        return Ok(());
    }
    let mut batch = WriteBatch::default();
    batch.put(IMPORTED, done);
    match newest_catalog(objects, &inherited).await? {
        Some((path, found)) => {
            let file = CatalogFile::read(&path, &found.bytes)?;
            let (tables, users) = (file.tables.len(), file.users.len());
            let max_table_id = sequence.max_table_id.max(file.max_table_id);
            let scopes = scopes_with_files(objects, &file).await?;
            batch.put(SequenceRecord::KEY, SequenceRecord { max_table_id, ..sequence }.encode());
            let writes: Vec<CatalogWrite> =
                file.records().into_iter().map(|record| CatalogWrite::Put(Box::new(record))).collect();
            append_catalog(rocks, &writes, &mut batch);
            for scope in &scopes {
                let header = ScopeHeader { recovering: true, keys_lost: true, ..ScopeHeader::default() };
                let json = serde_json::to_vec(&header).expect("a header has only strings as keys");
                batch.put_cf(rocks.family(Family::Batches), header_key(*scope), json);
            }
            tracing::info!(
                catalog = path,
                tables,
                users,
                scopes = scopes.len(),
                "goes on with the tables of the owner before"
            );
        }
        None => {
            tracing::warn!("the owner before has left no catalog: its tables cannot be gone on with")
        }
    }
    rocks.write(batch, true)
}

/// The catalog of the last of these owners that has written one: who went on where another was gone may have been lost before
/// it wrote its own.
async fn newest_catalog(objects: &Objects, eras: &[u64]) -> Result<Option<(String, Found)>> {
    for era in eras {
        let path = paths::catalog_file(*era);
        if let Some(found) = objects.get(&path).await? {
            return Ok(Some((path, found)));
        }
    }
    Ok(None)
}

/// The scopes whose folders there are.
async fn scopes_with_files(objects: &Objects, file: &CatalogFile) -> Result<Vec<Scope>> {
    let owners: HashMap<String, Owner> =
        file.users.iter().map(|user| (paths::user_folder(&user.name), Owner(user.number))).collect();
    let owners = &owners;
    let tables: Vec<_> = file.tables.iter().map(|table| (table.id, table.prefix.clone(), table.kind)).collect();
    let found = stream::iter(tables)
        .map(|(table, prefix, kind)| async move {
            let folders = objects.folders(&prefix).await?;
            let owner = |folder: &String| match kind {
                TableKind::Shared => (folder == paths::SHARED_FOLDER).then_some(Owner::SHARED),
                TableKind::User | TableKind::Stream => owners.get(folder).copied(),
            };
            let scope = |folder: &String| owner(folder).map(|owner| Scope { table, owner });
            Ok::<_, StorageError>(folders.iter().filter_map(scope).collect::<Vec<Scope>>())
        })
        .buffered(LISTED_AT_ONCE);
    Ok(found.try_collect::<Vec<_>>().await?.concat())
}
