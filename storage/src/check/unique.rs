//! The key index of a scope against its rows: every row that is read has its unique keys there, and nothing else is.
//!
//! Of each key only a hash is kept. Where two keys have one hash, something wrong may be passed over.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use super::finding::{Faults, Invariant};
use super::rows::CHUNK_ROWS;
use super::scope::{Batches, Place};
use crate::error::Result;
use crate::evolution::RowReader;
use crate::hot::{HotCursor, Versions as HotVersions};
use crate::keys::{BatchNumber, SCOPE_LEN};
use crate::recovery::resolve::Versions;
use crate::rocks::{Family, RocksSnapshot};
use crate::schema::TableSchema;
use crate::unique::UniqueKey;

/// Keys that are told one by one.
const TOLD_MAX: usize = 10;

/// Hashes of the keys of rows: of each unique key those of all rows of a file, by position; `None` = no key.
pub(super) type Hashes = Vec<Vec<Option<u64>>>;

/// Makes hashes that can be compared.
#[derive(Debug, Clone, Default)]
pub(super) struct Hasher {
    keys: Vec<UniqueKey>,
    state: RandomState,
}

impl Hasher {
    pub(super) fn of(place: &Place) -> Self {
        Self { keys: UniqueKey::of_table(&place.table), state: RandomState::new() }
    }

    /// Adds the rows of a batch with the columns of a file of this schema.
    pub(super) fn add(&self, hashes: &mut Hashes, batch: &RecordBatch, schema: &TableSchema) -> Result<()> {
        hashes.resize(self.keys.len(), vec![]);
        for (key, hashes) in self.keys.iter().zip(hashes) {
            let name = |id: &u32| schema.columns.iter().find(|column| column.id == *id).map(|column| &column.name);
            let columns = key.record.columns.iter().map(|id| batch.column_by_name(name(id)?).cloned());
            // Columns that came later are NULL in all rows.
            let Some(columns) = columns.collect::<Option<Vec<ArrayRef>>>() else {
                hashes.resize(hashes.len() + batch.num_rows(), None);
                continue;
            };
            let keys = key.encode(&columns, batch.num_rows())?;
            hashes.extend(keys.into_iter().map(|key| key.map(|key| self.state.hash_one(&*key))));
        }
        Ok(())
    }
}

/// What the index says, and what the rows say: by number of the unique key, hash and `_id`.
type Entries = BTreeMap<(u32, u64, i64), bool>;

/// Checks the index of a scope. `files`: the row versions of files, and the hashes of their keys.
pub(super) fn check(
    rocks: &RocksSnapshot,
    place: &Place,
    batches: &Batches,
    files: &HashMap<BatchNumber, (Arc<Versions>, Hashes)>,
    hasher: &Hasher,
) -> Result<Faults> {
    let mut faults = Faults::default();
    let mut entries = read_index(rocks, place, hasher, &mut faults)?;
    let mut missing = Vec::new();
    let mut row = |number: u32, hash: u64, id: i64| match entries.get_mut(&(number, hash, id)) {
        Some(seen) => *seen = true,
        None => missing.push((number, id)),
    };
    let numbers: Vec<u32> = hasher.keys.iter().map(|key| key.record.id).collect();
    for record in batches.records.iter().filter(|record| record.status.is_read()) {
        let Some((versions, hashes)) = files.get(&record.batch_number) else { continue };
        let mask = batches.mask(record.batch_number);
        for (number, hashes) in numbers.iter().zip(hashes) {
            for (position, hash) in hashes.iter().enumerate() {
                if let Some(hash) = hash.filter(|_| !versions.deleted[position] && !mask.contains(position as u32)) {
                    row(*number, hash, versions.ids[position]);
                }
            }
        }
    }
    hot_rows(rocks, place, batches, hasher, &mut row)?;
    let name = |number: u32| {
        let key = hasher.keys.iter().find(|key| key.record.id == number);
        key.map_or_else(|| number.to_string(), |key| key.record.name.clone())
    };
    let of_missing = missing.iter().map(|(number, id)| format!("'{}' does not have row {id}", name(*number)));
    let stale = entries.iter().filter(|(_, seen)| !**seen);
    let of_stale = stale
        .map(|((number, _, id), _)| format!("'{}' says that row {id} has a key that it does not have", name(*number)));
    let told: Vec<String> = of_missing.chain(of_stale).collect();
    let more = told.len().saturating_sub(TOLD_MAX);
    told.into_iter().take(TOLD_MAX).for_each(|what| faults.add(Invariant::UniqueKeys, what));
    if more > 0 {
        faults.add(Invariant::UniqueKeys, format!("and {more} more like that"));
    }
    Ok(faults)
}

fn read_index(rocks: &RocksSnapshot, place: &Place, hasher: &Hasher, faults: &mut Faults) -> Result<Entries> {
    let (mut entries, prefix) = (Entries::new(), place.place.scope.encode());
    rocks.scan(Family::Keys, &prefix, &prefix, |key, id| {
        let key = &key[SCOPE_LEN..];
        match (key.first_chunk::<4>(), id.try_into()) {
            (Some(number), Ok(id)) => {
                let number = u32::from_be_bytes(*number);
                // What is left of a key that was dropped goes with the table: nobody looks for it.
                if number <= place.table.keys_dropped && hasher.keys.iter().all(|key| key.record.id != number) {
                    return Ok(());
                }
                entries.insert((number, hasher.state.hash_one(key), i64::from_le_bytes(id)), false);
            }
            _ => faults.add(Invariant::Readable, "an entry of the key index has another length"),
        }
        Ok(())
    })?;
    Ok(entries)
}

fn hot_rows(
    rocks: &RocksSnapshot,
    place: &Place,
    batches: &Batches,
    hasher: &Hasher,
    row: &mut impl FnMut(u32, u64, i64),
) -> Result<()> {
    let Ok(reader) = RowReader::new(Arc::clone(&place.table)) else { return Ok(()) };
    let all: Vec<usize> = (0..reader.column_count()).collect();
    let mut cursor = HotCursor::new(place.place.scope, batches.header.visible_generations(), HotVersions::Live);
    while let Some(chunk) = cursor.next_chunk(rocks, CHUNK_ROWS)? {
        let columns = chunk.decode(&reader, &all)?;
        for key in &hasher.keys {
            for (id, key_bytes) in chunk.ids.iter().zip(key.encode_rows(&columns, chunk.len())?) {
                if let Some(key_bytes) = key_bytes {
                    row(key.record.id, hasher.state.hash_one(&*key_bytes), *id);
                }
            }
        }
    }
    Ok(())
}
