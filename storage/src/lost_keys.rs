//! A key index that is lost while the rest of its data directory is there: the family was dropped, or was in no copy of it.
//!
//! Made anew it would be empty, and say of every key that it is free. So before it is made, every scope with unique keys is marked:
//! its keys are made again from its rows before they are asked for (`keys_lost` of its header).
//!
//! Invariant: the marks are durable before the family is there again. Whoever is killed in between finds it missing once more.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rocksdb::WriteBatch;

use crate::catalog::TableRecord;
use crate::error::{Result, StorageError};
use crate::keys::{Scope, header_key};
use crate::records::ScopeHeader;
use crate::rocks::{Family, Memory, Rocks, RocksSnapshot};

/// Marks the scopes of a database whose key index is not there. To be called before the database is opened.
pub(crate) fn mark(path: &Path, memory: Memory) -> Result<()> {
    if !Rocks::lacks(path, Family::Keys)? {
        return Ok(());
    }
    for other in Family::ALL.into_iter().filter(|family| *family != Family::Keys) {
        // One of a build that knew no keys.
        if Rocks::lacks(path, other)? {
            return Ok(());
        }
    }
    let rocks = Arc::new(Rocks::open_without(path, memory, Family::Keys)?);
    let (marked, batch) = marks(&rocks)?;
    if marked > 0 {
        rocks.write(batch, true)?;
        tracing::warn!(scopes = marked, "the index of unique keys was lost: it is made again from the rows");
    }
    rocks.close();
    Ok(())
}

/// How many scopes are marked, and what marks them.
fn marks(rocks: &Arc<Rocks>) -> Result<(usize, WriteBatch)> {
    let mut tables = Vec::new();
    rocks.scan_prefix(Family::Catalog, b"t/", |_, json| {
        let table: TableRecord = serde_json::from_slice(json).map_err(StorageError::damaged_json("a table"))?;
        if !table.unique.is_empty() {
            tables.push(table.id);
        }
        Ok(())
    })?;
    let (snapshot, mut batch) = (RocksSnapshot::take(Arc::clone(rocks)), WriteBatch::default());
    let mut marked = 0;
    for table in tables {
        let prefix = table.0.to_be_bytes();
        let mut scopes: BTreeSet<Scope> = snapshot.scopes(Family::Rows, &prefix)?.into_iter().collect();
        scopes.extend(snapshot.scopes(Family::Batches, &prefix)?);
        for scope in scopes {
            let mut header: ScopeHeader = match snapshot.get(Family::Batches, &header_key(scope))? {
                Some(json) => serde_json::from_slice(&json).map_err(StorageError::damaged_json("a scope header"))?,
                None => ScopeHeader::default(),
            };
            header.keys_lost = true;
            let json = serde_json::to_vec(&header).expect("a header has only strings as keys");
            batch.put_cf(rocks.family(Family::Batches), header_key(scope), json);
            marked += 1;
        }
    }
    Ok((marked, batch))
}

#[cfg(test)]
mod tests {
    use rocksdb::{DB, Options};

    use super::*;
    use crate::steps::NoWait;
    use crate::test_table::TestDir;

    /// Drops the family from a database that is closed.
    fn drop_keys(path: &Path) {
        for _ in 0..2000 {
            let options = Options::default();
            let names = DB::list_cf(&options, path).unwrap();
            // The store of before may still be letting go of it.
            if let Ok(mut db) = DB::open_cf(&options, path, names) {
                db.drop_cf(Family::Keys.name()).unwrap();
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        panic!("the database stays open");
    }

    #[tokio::test]
    async fn a_lost_key_index_is_to_be_made_again() {
        let dir = TestDir::new();
        let path = dir.config.data_dir.join("rocksdb");
        for flushed in [false, true] {
            let table = dir.keyed_table().await;
            let scope = table.scope;
            table.insert(&[i64::from(flushed), 10 + i64::from(flushed)]).await;
            if flushed {
                table.flush().await.unwrap();
            }
            // Without unique keys there is nothing to be lost.
            let other = TestDir::new();
            let plain = other.table().await;
            plain.insert(&[1]).await;
            assert!(!plain.store.snapshot().keys_lost(plain.scope).unwrap());
            plain.store.close().await;
            table.store.close().await;
            drop(table);
            drop_keys(&path);
            let store = dir.open(Arc::new(NoWait)).await;
            assert!(store.snapshot().keys_lost(scope).unwrap());
            store.close().await;
            drop(store);
            // It stays so until it is whole, also when the family is there again.
            let store = dir.open(Arc::new(NoWait)).await;
            assert!(store.snapshot().keys_lost(scope).unwrap());
            store.close().await;
        }
    }
}
