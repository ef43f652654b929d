//! What commits write besides rows: the records of the catalog, of batches, and of the sequence. Their bytes are in `docs/formats.md`.

use rocksdb::WriteBatch;

use crate::catalog::{CatalogRecord, CatalogWrite, GrantOn, Grantee};
use crate::error::{Result, StorageError};
use crate::keys::{Scope, batch_key};
use crate::records::BatchRecord;
use crate::rocks::{Family, Rocks};
use crate::system_columns::CommitTs;

/// No name has a NUL in it.
fn view_key(namespace: &str, name: &str) -> String {
    format!("v/{namespace}\0{name}")
}

fn grant_key(on: &GrantOn, to: &Grantee) -> String {
    let on = match on {
        GrantOn::Table(id) => format!("t{}", id.0),
        GrantOn::View(namespace, name) => format!("v{namespace}\0{name}"),
        GrantOn::Namespace(name) => format!("n{name}"),
    };
    match to {
        Grantee::User(number) => format!("r/{on}\0u{number}"),
        Grantee::Role(role) => format!("r/{on}\0r{role}"),
    }
}

/// The key of a record: a user's in the family `users`, every other in `catalog`.
pub(crate) fn catalog_key(record: &CatalogRecord) -> String {
    match record {
        CatalogRecord::User(record) => record.name.clone(),
        CatalogRecord::Namespace(record) => format!("n/{}", record.name),
        CatalogRecord::Table(record) => format!("t/{}", record.id.0),
        CatalogRecord::View(record) => view_key(&record.namespace, &record.name),
        CatalogRecord::Prefix(prefix) => format!("p/{prefix}"),
        CatalogRecord::Dropped(record) => format!("g/{}", record.id.0),
        CatalogRecord::Grant(record) => grant_key(&record.on, &record.to),
        CatalogRecord::Token(record) => format!("k/{}", record.id),
    }
}

fn catalog_json(record: &CatalogRecord) -> Vec<u8> {
    match record {
        CatalogRecord::User(record) => to_json(record),
        CatalogRecord::Namespace(record) => to_json(record),
        CatalogRecord::Table(record) => to_json(record),
        CatalogRecord::View(record) => to_json(record),
        CatalogRecord::Prefix(_) => b"{}".to_vec(),
        CatalogRecord::Dropped(record) => to_json(record),
        CatalogRecord::Grant(record) => to_json(record),
        CatalogRecord::Token(record) => to_json(record),
    }
}

pub(crate) fn append_catalog(rocks: &Rocks, writes: &[CatalogWrite], batch: &mut WriteBatch) {
    let (catalog, users) = (rocks.family(Family::Catalog), rocks.family(Family::Users));
    for write in writes {
        match write {
            CatalogWrite::Put(record) => {
                let family = if matches!(**record, CatalogRecord::User(_)) { users } else { catalog };
                batch.put_cf(family, catalog_key(record), catalog_json(record));
            }
            CatalogWrite::RemoveNamespace(name) => batch.delete_cf(catalog, format!("n/{name}")),
            CatalogWrite::RemoveTable(id) => batch.delete_cf(catalog, format!("t/{}", id.0)),
            CatalogWrite::RemoveView(namespace, name) => batch.delete_cf(catalog, view_key(namespace, name)),
            CatalogWrite::RemoveDropped(id) => batch.delete_cf(catalog, format!("g/{}", id.0)),
            CatalogWrite::RemoveGrant(on, to) => batch.delete_cf(catalog, grant_key(on, to)),
            CatalogWrite::RemoveToken(id) => batch.delete_cf(catalog, format!("k/{id}")),
        }
    }
}

/// Puts the record of a batch.
pub(crate) fn append_record(rocks: &Rocks, scope: Scope, record: &BatchRecord, batch: &mut WriteBatch) {
    batch.put_cf(rocks.family(Family::Batches), batch_key(scope, record.batch_number), to_json(record));
}

pub(crate) fn to_json(record: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have only strings as keys")
}

/// What ids and timestamps go on above, written with every group.
///
/// ```text
/// u8 format (1) │ i64 last `_updated`, LE │ u64 last tick of the row ids, LE │ u32 highest table number, LE
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SequenceRecord {
    pub(crate) last_updated: CommitTs,
    pub(crate) id_high_water: u64,
    pub(crate) max_table_id: u32,
}

impl SequenceRecord {
    pub(crate) const KEY: &'static [u8] = b"sequence";
    const FORMAT: u8 = 1;

    pub(crate) fn encode(&self) -> [u8; 21] {
        let mut bytes = [0; 21];
        bytes[0] = Self::FORMAT;
        bytes[1..9].copy_from_slice(&self.last_updated.get().to_le_bytes());
        bytes[9..17].copy_from_slice(&self.id_high_water.to_le_bytes());
        bytes[17..].copy_from_slice(&self.max_table_id.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let fields = || -> Option<Self> {
            let (&format, rest) = bytes.split_first()?;
            let (updated, rest) = rest.split_first_chunk::<8>()?;
            let (ids, tables) = rest.split_first_chunk::<8>()?;
            (format == Self::FORMAT).then_some(Self {
                last_updated: CommitTs::stored(i64::from_le_bytes(*updated)),
                id_high_water: u64::from_le_bytes(*ids),
                max_table_id: u32::from_le_bytes(tables.try_into().ok()?),
            })
        };
        fields().ok_or_else(|| StorageError::Damaged("the sequence record is not of a known format".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::TableId;

    #[test]
    fn golden_keys_of_grants() {
        let (ann, user) = (Grantee::User(2), Grantee::Role("user".into()));
        assert_eq!(grant_key(&GrantOn::Table(TableId(7)), &ann), "r/t7\0u2");
        assert_eq!(grant_key(&GrantOn::View("app".into(), "v".into()), &user), "r/vapp\0v\0ruser");
        assert_eq!(grant_key(&GrantOn::Namespace("app".into()), &ann), "r/napp\0u2");
    }

    #[test]
    fn golden_sequence_record() {
        let record = SequenceRecord { last_updated: CommitTs::stored(2), id_high_water: 3, max_table_id: 4 };
        let hex: String = record.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "010200000000000000030000000000000004000000");
        assert_eq!(SequenceRecord::decode(&record.encode()).unwrap(), record);
        assert!(SequenceRecord::decode(&[1, 2]).is_err());
    }
}
