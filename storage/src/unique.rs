//! Unique keys: what a statement does to the key index of a scope, and whether it may.
//!
//! ```text
//! statement ─▶ keys removed, keys added ─▶ settle, by what its snapshot (and its transaction) has ─▶ changes ─▶ commit:
//!              refused if another commit touched one of these keys since the snapshot ─▶ key → _id in the same batch
//! ```
//!
//! Invariants:
//! 1. The index of a scope says of each key which visible row has it, as of every commit: rows and index change in one batch.
//! 2. What a statement adds is checked after the whole of it: keys that it removes itself are free.
//! 3. Whoever has touched a key that another commit touched after its snapshot runs again: what it saw of the key holds no more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use crate::catalog::{TableRecord, UniqueRecord};
use crate::error::Result;
use crate::key_codec::{KeyBytes, describe_key, encode_keys};
use crate::keys::Scope;
use crate::system_columns::RowId;

/// Bytes that a key takes while it is gathered, beyond its own.
const ENTRY_BYTES: usize = 64;

/// One of a table's unique keys, for the rows of its current columns.
#[derive(Debug, Clone)]
pub struct UniqueKey {
    /// What the catalog has.
    pub record: UniqueRecord,
    /// The places of its columns among the user's.
    pub places: Vec<usize>,
    types: Vec<DataType>,
    names: Vec<String>,
}

impl UniqueKey {
    /// The unique keys of a table, in order.
    pub fn of_table(table: &TableRecord) -> Vec<Self> {
        let columns = &table.schema().columns;
        let key = |record: &UniqueRecord| {
            let place = |id: &u32| columns.iter().position(|column| column.id == *id);
            let places: Vec<usize> = record.columns.iter().filter_map(place).collect();
            let types = places.iter().map(|place| columns[*place].data_type.clone()).collect();
            let names = places.iter().map(|place| columns[*place].name.clone()).collect();
            Self { record: record.clone(), places, types, names }
        };
        table.unique.iter().map(key).collect()
    }

    /// The names of its columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The keys of rows. `columns`: the key's own, in its order. A row with a NULL has none, unless NULLs are equal.
    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Option<KeyBytes>>> {
        Ok(encode_keys(&self.record.id.to_be_bytes(), columns, rows, self.record.nulls_equal)?)
    }

    /// The same of all user columns.
    pub fn encode_rows(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Option<KeyBytes>>> {
        let own: Vec<ArrayRef> = self.places.iter().map(|place| ArrayRef::clone(&columns[*place])).collect();
        self.encode(&own, rows)
    }

    /// A key as an error shows it, such as `(k, name) = (7, 'ann')`; `None` when it is another one's.
    pub fn describe(&self, key: &[u8]) -> Option<String> {
        let values = key.strip_prefix(&self.record.id.to_be_bytes())?;
        Some(format!("({}) = {}", self.names.join(", "), describe_key(values, &self.types)))
    }
}

/// What becomes of a key: the row that has it, or none.
pub type KeyChange = (KeyBytes, Option<RowId>);

/// The changes of a scope's keys in a commit.
#[derive(Debug, Clone)]
pub struct KeyWrite {
    /// The scope.
    pub scope: Scope,
    /// Each key once.
    pub changes: Vec<KeyChange>,
    /// Whether the index of the scope is whole with these.
    pub completes: bool,
}

impl KeyWrite {
    /// Bytes it takes in a commit.
    pub fn size_bytes(&self) -> usize {
        self.changes.iter().map(|(key, _)| key.len() + ENTRY_BYTES).sum()
    }
}

/// What a statement does to keys of a scope.
#[derive(Debug, Clone, Default)]
pub struct KeyEdits {
    removed: Vec<(KeyBytes, RowId)>,
    added: Vec<(KeyBytes, RowId)>,
    bytes: usize,
}

/// A key that a row has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken(pub KeyBytes);

impl KeyEdits {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.removed.len() + self.added.len()
    }

    /// Bytes of all keys, about.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds others.
    pub fn append(&mut self, others: Self) {
        self.removed.extend(others.removed);
        self.added.extend(others.added);
        self.bytes += others.bytes;
    }

    /// Rows get these keys.
    pub fn add(&mut self, keys: Vec<Option<KeyBytes>>, ids: &[RowId]) {
        Self::push(&mut self.added, &mut self.bytes, keys.into_iter().zip(ids.iter().copied()));
    }

    /// Rows lose these keys.
    pub fn remove(&mut self, keys: Vec<Option<KeyBytes>>, ids: &[RowId]) {
        Self::push(&mut self.removed, &mut self.bytes, keys.into_iter().zip(ids.iter().copied()));
    }

    /// Rows have other keys than before, or the same.
    pub fn replace(&mut self, old: Vec<Option<KeyBytes>>, new: Vec<Option<KeyBytes>>, ids: &[RowId]) {
        let changed = old.into_iter().zip(new).zip(ids).filter(|((old, new), _)| old != new);
        for ((old, new), id) in changed {
            Self::push(&mut self.removed, &mut self.bytes, [(old, *id)].into_iter());
            Self::push(&mut self.added, &mut self.bytes, [(new, *id)].into_iter());
        }
    }

    fn push(to: &mut Vec<(KeyBytes, RowId)>, bytes: &mut usize, keys: impl Iterator<Item = (Option<KeyBytes>, RowId)>) {
        for (key, id) in keys {
            let Some(key) = key else { continue };
            *bytes += key.len() + ENTRY_BYTES;
            to.push((key, id));
        }
    }

    /// The changes, each key once: removals first, then additions. `find`: which rows have these keys before the statement.
    ///
    /// Errors: those of `find`. [`Taken`]: a key would be that of two rows.
    pub fn settle(
        self,
        find: impl FnOnce(&[&KeyBytes]) -> Result<Vec<Option<RowId>>>,
    ) -> Result<Result<Vec<KeyChange>, Taken>> {
        let unseen: Vec<&KeyBytes> = {
            let removed: std::collections::HashSet<&KeyBytes> = self.removed.iter().map(|(key, _)| key).collect();
            self.added.iter().map(|(key, _)| key).filter(|key| !removed.contains(key)).collect()
        };
        if let Some(taken) = find(&unseen)?.iter().position(Option::is_some) {
            return Ok(Err(Taken(unseen[taken].clone())));
        }
        let mut changes: HashMap<KeyBytes, Option<RowId>> =
            self.removed.into_iter().map(|(key, _)| (key, None)).collect();
        changes.reserve(self.added.len());
        for (key, id) in self.added {
            match changes.entry(key) {
                Entry::Occupied(entry) if entry.get().is_some() => return Ok(Err(Taken(entry.key().clone()))),
                Entry::Occupied(mut entry) => drop(entry.insert(Some(id))),
                Entry::Vacant(entry) => drop(entry.insert(Some(id))),
            }
        }
        Ok(Ok(changes.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> KeyBytes {
        KeyBytes::copy_from_slice(&[n])
    }

    proptest! {
        /// A statement that gives rows other keys may do what leaves no two rows with one.
        #[test]
        fn what_settles_is_what_leaves_keys_unique(
            before in proptest::collection::btree_map(0u8..8, 0i64..100, 0..6),
            to in proptest::collection::btree_map(0i64..100, proptest::option::of(0u8..8), 0..6),
        ) {
            // Rows by id, each with one key.
            let mut rows: BTreeMap<i64, u8> = BTreeMap::new();
            let mut index: BTreeMap<u8, i64> = BTreeMap::new();
            for (k, id) in before {
                if rows.insert(id, k).is_none() { index.insert(k, id); }
            }
            index.retain(|k, id| rows[id] == *k);
            rows.retain(|id, k| index.get(k) == Some(id));

            let mut edits = KeyEdits::default();
            let mut after = rows.clone();
            for (id, new) in &to {
                let old = rows.get(id).map(|k| key(*k));
                edits.replace(vec![old], vec![new.map(key)], &[RowId::stored(*id)]);
                match new {
                    Some(new) => drop(after.insert(*id, *new)),
                    None => drop(after.remove(id)),
                }
            }
            let found = |keys: &[&KeyBytes]| Ok(keys.iter().map(|k| index.get(&k[0]).map(|id| RowId::stored(*id))).collect());
            let settled = edits.settle(found).unwrap();
            let mut wanted: BTreeMap<u8, i64> = BTreeMap::new();
            let is_unique = after.iter().all(|(id, k)| wanted.insert(*k, *id).is_none());
            prop_assert_eq!(settled.is_ok(), is_unique);
            if let Ok(changes) = settled {
                for (k, id) in changes {
                    match id {
                        Some(id) => drop(index.insert(k[0], id.get())),
                        None => drop(index.remove(&k[0])),
                    }
                }
                prop_assert_eq!(index, wanted);
            }
        }
    }
}
