//! The delete log: which rows of a batch file a commit superseded or deleted.
//!
//! One entry per (commit, file). The position is where the row was found; `_id` and `_updated` name the superseded
//! version itself, so that an entry stays true when the file is replaced by another. `superseded_by` is the version that
//! came after it, or the row's own when it is a tombstone: the entry that a flush writes for its new file holds rows
//! superseded by several commits.
//!
//! ```text
//! u8   format (1)
//! u32  rows n, LE
//! n ×  position u32 LE, rising
//! n ×  _id i64 LE
//! n ×  _updated i64 LE
//! n ×  superseded_by i64 LE
//! u32  CRC32 (IEEE) of all bytes before it, LE
//! ```

use roaring::RoaringBitmap;

use crate::system_columns::{CommitTs, RowId};

const FORMAT: u8 = 1;
const HEAD: usize = 5;
const ROW: usize = 4 + 8 + 8 + 8;
const CHECKSUM: usize = 4;

/// A row of a batch file that is no longer to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaskedRow {
    /// Position in the file, from 0.
    pub position: u32,
    /// The row.
    pub id: RowId,
    /// The version of it that the file holds.
    pub updated: CommitTs,
    /// The next version; the same one when it is a tombstone.
    pub superseded_by: CommitTs,
}

/// Encodes the entry of these rows. They are put in order of position; none may be given twice.
pub fn encode(mut rows: Vec<MaskedRow>) -> Vec<u8> {
    rows.sort_unstable();
    let mut out = Vec::with_capacity(HEAD + rows.len() * ROW + CHECKSUM);
    out.push(FORMAT);
    out.extend((rows.len() as u32).to_le_bytes());
    rows.iter().for_each(|row| out.extend(row.position.to_le_bytes()));
    rows.iter().for_each(|row| out.extend(row.id.get().to_le_bytes()));
    rows.iter().for_each(|row| out.extend(row.updated.get().to_le_bytes()));
    rows.iter().for_each(|row| out.extend(row.superseded_by.get().to_le_bytes()));
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

/// The positions of an entry.
pub fn decode_positions(entry: &[u8]) -> Result<RoaringBitmap, DamagedEntry> {
    let rows = check(entry)?;
    RoaringBitmap::from_sorted_iter(words(&entry[HEAD..HEAD + 4 * rows]).map(u32::from_le_bytes))
        .map_err(|_| DamagedEntry("its positions are not in order"))
}

/// All rows of an entry.
pub fn decode(entry: &[u8]) -> Result<Vec<MaskedRow>, DamagedEntry> {
    let rows = check(entry)?;
    let (positions, rest) = entry[HEAD..].split_at(4 * rows);
    let (ids, rest) = rest.split_at(8 * rows);
    let (updated, rest) = rest.split_at(8 * rows);
    let superseded_by = &rest[..8 * rows];
    let columns = words(positions).zip(words(ids)).zip(words(updated)).zip(words(superseded_by));
    Ok(columns
        .map(|(((position, id), updated), superseded_by)| MaskedRow {
            position: u32::from_le_bytes(position),
            id: RowId::stored(i64::from_le_bytes(id)),
            updated: CommitTs::stored(i64::from_le_bytes(updated)),
            superseded_by: CommitTs::stored(i64::from_le_bytes(superseded_by)),
        })
        .collect())
}

/// An entry that is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a delete-log entry is damaged: {0}")]
pub struct DamagedEntry(&'static str);

/// Checks length and checksum, and gives the number of rows.
fn check(entry: &[u8]) -> Result<usize, DamagedEntry> {
    let (&format, rest) = entry.split_first().ok_or(DamagedEntry("it is empty"))?;
    if format != FORMAT {
        return Err(DamagedEntry("its format is unknown"));
    }
    let rows = rest.first_chunk::<4>().ok_or(DamagedEntry("it is too short"))?;
    let rows = u32::from_le_bytes(*rows) as usize;
    if entry.len() != HEAD + rows * ROW + CHECKSUM {
        return Err(DamagedEntry("its length is wrong"));
    }
    let (body, checksum) = entry.split_at(entry.len() - CHECKSUM);
    if crc32fast::hash(body).to_le_bytes() != checksum {
        return Err(DamagedEntry("its checksum is wrong"));
    }
    Ok(rows)
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(position: u32, id: i64, updated: i64) -> MaskedRow {
        let superseded_by = CommitTs::stored(updated.wrapping_add(1));
        MaskedRow { position, id: RowId::stored(id), updated: CommitTs::stored(updated), superseded_by }
    }

    #[test]
    fn golden_entry() {
        let hex: String = encode(vec![row(7, 3, 5)]).iter().map(|b| format!("{b:02x}")).collect();
        assert!(hex.starts_with("010100000007000000030000000000000005000000000000000600000000000000"), "{hex}");
        assert_eq!(hex.len(), 2 * (HEAD + ROW + CHECKSUM));
    }

    #[test]
    fn round_trips_in_order_of_position() {
        let rows = vec![row(9, 1, 2), row(0, -4, 5), row(4_000_000_000, i64::MAX, i64::MIN)];
        let entry = encode(rows.clone());
        let mut sorted = rows;
        sorted.sort_unstable();
        assert_eq!(decode(&entry).unwrap(), sorted);
        assert_eq!(decode_positions(&entry).unwrap().iter().collect::<Vec<_>>(), [0, 9, 4_000_000_000]);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let entry = encode(vec![row(1, 2, 3), row(4, 5, 6)]);
        for at in 0..entry.len() {
            let mut damaged = entry.clone();
            damaged[at] ^= 0x10;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&entry[..at]).is_err(), "length {at}");
        }
    }
}
