//! The delete vector of a batch file, as a file beside it: the positions that are not to be read.
//!
//! The delete log decides. The vector is what a manifest needs to be read without it, and holds only rows whose newer
//! version is in a file of the same manifest: a data directory that is lost takes later versions with it, and the rows
//! that they superseded come back.
//!
//! ```text
//! u8   format (1)
//! …    the positions as a roaring bitmap, in the portable serialization of the Roaring format specification
//! u32  CRC32 (IEEE) of all bytes before it, LE
//! ```

use roaring::RoaringBitmap;

use crate::error::{Result, StorageError};

const FORMAT: u8 = 1;
const CHECKSUM: usize = 4;

/// The bytes of the file.
pub fn encode(positions: &RoaringBitmap) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + positions.serialized_size() + CHECKSUM);
    out.push(FORMAT);
    positions.serialize_into(&mut out).expect("a vector takes every write");
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

/// The positions of a file.
pub fn decode(bytes: &[u8]) -> Result<RoaringBitmap> {
    let damaged = |what: &str| StorageError::Damaged(format!("a delete vector is damaged: {what}"));
    let (body, checksum) = bytes
        .split_last_chunk::<CHECKSUM>()
        .filter(|(body, _)| !body.is_empty())
        .ok_or_else(|| damaged("too short"))?;
    if crc32fast::hash(body).to_le_bytes() != *checksum {
        return Err(damaged("its checksum is wrong"));
    }
    match body.split_first() {
        Some((&FORMAT, bitmap)) => RoaringBitmap::deserialize_from(bitmap).map_err(|e| damaged(&e.to_string())),
        _ => Err(damaged("its format is unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vector() {
        let hex: String = encode(&[1, 7].into_iter().collect()).iter().map(|b| format!("{b:02x}")).collect();
        assert!(hex.starts_with("013a300000010000000000010010000000010007"), "{hex}");
    }

    #[test]
    fn round_trips_and_any_changed_byte_is_noticed() {
        for positions in [vec![], vec![0], vec![3, 70_000, u32::MAX]] {
            let bitmap: RoaringBitmap = positions.into_iter().collect();
            let bytes = encode(&bitmap);
            assert_eq!(decode(&bytes).unwrap(), bitmap);
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x04;
                assert!(decode(&damaged).is_err(), "byte {at}");
                assert!(decode(&bytes[..at]).is_err(), "length {at}");
            }
        }
    }
}
