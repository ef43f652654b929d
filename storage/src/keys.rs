//! The keys of RocksDB: every byte that is compared, in one place.
//!
//! ```text
//! scope         table u32 BE │ owner u64 BE                                   12 bytes
//! rows          scope │ generation u32 BE │ _id i64 BE, sign flipped │ _updated i64 BE, sign flipped, inverted   32 bytes
//! delete_log    scope │ timestamp of the commit that wrote it i64 BE, sign flipped │ batch number u64 BE            28 bytes
//! keys          scope │ unique key u32 BE │ its values in the bytes of `key_codec`     value: `_id` i64 LE
//! batches       scope │ 0x00                                header of the scope
//!               scope │ 0x01 │ batch number u64 BE          one batch record
//! ```
//!
//! With `_updated` inverted the newest version of a row comes first.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::system_columns::{CommitTs, RowId};

const SIGN: u64 = 1 << 63;

/// A table's number. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

/// Whose rows: everybody's, or one user's by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(pub u64);

impl Owner {
    /// The one scope of a shared table. Users are numbered from 1.
    pub const SHARED: Self = Self(0);
}

/// The rows of one table that belong together: all of a shared table, or one user's of a user table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The table.
    pub table: TableId,
    /// Whose rows.
    pub owner: Owner,
}

/// Bytes of an encoded [`Scope`].
pub const SCOPE_LEN: usize = 12;
/// Bytes of a key in the family of rows.
pub const ROW_KEY_LEN: usize = SCOPE_LEN + 4 + 8 + 8;

/// A part of a scope's hot rows that is flushed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation that a scope starts with.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Number of a batch file within its scope, from 1. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchNumber(pub u64);

impl fmt::Display for BatchNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Scope {
    /// The shared scope of this table.
    pub fn shared(table: TableId) -> Self {
        Self { table, owner: Owner::SHARED }
    }

    /// The bytes every key of this scope starts with.
    pub fn encode(self) -> [u8; SCOPE_LEN] {
        let mut key = [0; SCOPE_LEN];
        key[..4].copy_from_slice(&self.table.0.to_be_bytes());
        key[4..].copy_from_slice(&self.owner.0.to_be_bytes());
        key
    }

    /// The scope that a key starts with; `None` when it is too short.
    pub fn decode(key: &[u8]) -> Option<Self> {
        Some(Self {
            table: TableId(u32::from_be_bytes(array(key, 0)?)),
            owner: Owner(u64::from_be_bytes(array(key, 4)?)),
        })
    }
}

/// A decoded key of the family of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKey {
    /// The scope.
    pub scope: Scope,
    /// The generation.
    pub generation: Generation,
    /// The row.
    pub id: RowId,
    /// The version.
    pub updated: CommitTs,
}

impl RowKey {
    /// The key's bytes.
    pub fn encode(&self) -> [u8; ROW_KEY_LEN] {
        let mut key = [0; ROW_KEY_LEN];
        key[..16].copy_from_slice(&generation_prefix(self.scope, self.generation));
        key[16..24].copy_from_slice(&id_bytes(self.id));
        key[24..].copy_from_slice(&(!ordered(self.updated.get())).to_be_bytes());
        key
    }

    /// The key of these bytes; `None` when they are none.
    pub fn decode(key: &[u8]) -> Option<Self> {
        if key.len() != ROW_KEY_LEN {
            return None;
        }
        Some(Self {
            scope: Scope::decode(key)?,
            generation: Generation(u32::from_be_bytes(array(key, 12)?)),
            id: RowId::stored(from_ordered(u64::from_be_bytes(array(key, 16)?))),
            updated: CommitTs::stored(from_ordered(!u64::from_be_bytes(array(key, 24)?))),
        })
    }
}

/// What every row key of a generation starts with.
pub fn generation_prefix(scope: Scope, generation: Generation) -> [u8; 16] {
    let mut key = [0; 16];
    key[..SCOPE_LEN].copy_from_slice(&scope.encode());
    key[SCOPE_LEN..].copy_from_slice(&generation.0.to_be_bytes());
    key
}

/// What every version of a row within a generation starts with.
pub fn row_prefix(scope: Scope, generation: Generation, id: RowId) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&generation_prefix(scope, generation));
    key[16..].copy_from_slice(&id_bytes(id));
    key
}

/// A row id as keys hold it.
pub fn id_bytes(id: RowId) -> [u8; 8] {
    ordered(id.get()).to_be_bytes()
}

/// The key of a delete-log entry.
pub fn delete_log_key(scope: Scope, at: CommitTs, file: BatchNumber) -> [u8; 28] {
    let mut key = [0; 28];
    key[..20].copy_from_slice(&delete_log_prefix(scope, at));
    key[20..].copy_from_slice(&file.0.to_be_bytes());
    key
}

/// What every delete-log entry of a commit starts with.
pub fn delete_log_prefix(scope: Scope, at: CommitTs) -> [u8; 20] {
    let mut key = [0; 20];
    key[..SCOPE_LEN].copy_from_slice(&scope.encode());
    key[SCOPE_LEN..].copy_from_slice(&ordered(at.get()).to_be_bytes());
    key
}

/// Commit and file of a delete-log key; `None` when it is none.
pub fn decode_delete_log_key(key: &[u8]) -> Option<(CommitTs, BatchNumber)> {
    if key.len() != 28 {
        return None;
    }
    let at = CommitTs::stored(from_ordered(u64::from_be_bytes(array(key, SCOPE_LEN)?)));
    Some((at, BatchNumber(u64::from_be_bytes(array(key, 20)?))))
}

/// The key of an entry of the key index. `key`: number of the unique key and its values.
pub fn unique_key(scope: Scope, key: &[u8]) -> Vec<u8> {
    [&scope.encode(), key].concat()
}

/// The key of a scope's header.
pub fn header_key(scope: Scope) -> [u8; 13] {
    let mut key = [0; 13];
    key[..SCOPE_LEN].copy_from_slice(&scope.encode());
    key
}

/// The key of a batch record.
pub fn batch_key(scope: Scope, number: BatchNumber) -> [u8; 21] {
    let mut key = [0; 21];
    key[..13].copy_from_slice(&batch_prefix(scope));
    key[13..].copy_from_slice(&number.0.to_be_bytes());
    key
}

/// What every batch record of a scope starts with.
pub fn batch_prefix(scope: Scope) -> [u8; 13] {
    let mut key = header_key(scope);
    key[SCOPE_LEN] = 1;
    key
}

/// The least key that does not start with `prefix`; `None` when there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn ordered(value: i64) -> u64 {
    value as u64 ^ SIGN
}

fn from_ordered(value: u64) -> i64 {
    (value ^ SIGN) as i64
}

fn array<const N: usize>(key: &[u8], at: usize) -> Option<[u8; N]> {
    key.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: i64, updated: i64) -> RowKey {
        RowKey {
            scope: Scope { table: TableId(7), owner: Owner(9) },
            generation: Generation(3),
            id: RowId::stored(id),
            updated: CommitTs::stored(updated),
        }
    }

    #[test]
    fn golden_row_key() {
        let hex: String = key(0x0102, 5).encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "00000007000000000000000900000003800000000000010 27ffffffffffffffa".replace(' ', ""));
    }

    #[test]
    fn golden_delete_log_and_batch_keys() {
        let scope = Scope { table: TableId(1), owner: Owner(2) };
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&delete_log_key(scope, CommitTs::stored(3), BatchNumber(4))),
            "00000001000000000000000280000000000000030000000000000004"
        );
        assert_eq!(hex(&header_key(scope)), "00000001000000000000000200");
        assert_eq!(hex(&batch_key(scope, BatchNumber(4))), "000000010000000000000002010000000000000004");
    }

    #[test]
    fn after_prefix_carries() {
        assert_eq!(after_prefix(&[1, 0xff]), Some(vec![2]));
        assert_eq!(after_prefix(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after_prefix(&[0xff]), None);
    }

    proptest! {
        #[test]
        fn row_keys_round_trip_and_sort_newest_first(a: (i64, i64), b: (i64, i64)) {
            let (left, right) = (key(a.0, a.1), key(b.0, b.1));
            prop_assert_eq!(RowKey::decode(&left.encode()), Some(left));
            let expected = a.0.cmp(&b.0).then(b.1.cmp(&a.1));
            prop_assert_eq!(left.encode().cmp(&right.encode()), expected);
        }
    }
}
