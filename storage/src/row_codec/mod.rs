//! The row codec: the bytes of one row version's user columns, as RocksDB keeps them.
//!
//! The key of a hot row already says which table, scope, generation, `_id` and `_updated` it belongs to; the value
//! holds the rest, as drawn here. All integers are little-endian, nothing is aligned or padded.
//!
//! ```text
//! row       = head [ body ]                       a tombstone is a head alone: 5 bytes
//! head      = u8 header | u32 schema version      header: high nibble = codec version 1, bit 0 = tombstone, others 0
//! body      = nulls | fixed | ends | data
//!   nulls   = ceil(columns / 8) bytes             bit i % 8 of byte i / 8 set = column i is NULL; spare bits are 0
//!   fixed   = the fixed-width columns in order    zeros when NULL, so every column has a constant offset
//!   ends    = u32 per variable column in order    where its bytes end in `data`; they begin at the previous end
//!   data    = the variable columns' bytes         none when NULL; the last end is exactly the length of `data`
//!
//! fixed     Null 0 bytes (always NULL) · Boolean 1 byte, 0 or 1 · numbers, dates, times, timestamps, durations,
//!           intervals, decimals: Arrow's 1, 2, 4, 8, 16 or 32 bytes · FixedSizeBinary(w): w bytes
//! variable  Utf8, LargeUtf8, Binary, LargeBinary: the bytes
//!           Struct: a body (as above) of its fields
//!           List, LargeList: u32 count | sequence of count elements
//!           Map: a List of Struct(key, value)
//!           FixedSizeList(k): sequence of k elements
//! sequence  = nulls | fixed element × count                 of a fixed-width element type, or
//!             nulls | u32 end × count | data                of a variable one; nulls, ends and data as in a body
//! ```
//!
//! Rules:
//! - A row is read with the layout of the schema version it was written with, never with a newer one.
//! - Equal rows have equal bytes: what lies under a NULL in the input is never written. Floats keep their bits.
//! - A reader refuses what a writer never writes (spare bits, other lengths, falling ends, data under a NULL, booleans
//!   other than 0 and 1, invalid UTF-8) and allocates in proportion to the bytes it was given: a count is
//!   checked against them first.
//! - Types nest at most 64 levels, and a NULL of any type takes at most 1 MiB in Arrow (fixed-size lists).
//! - A change of these bytes is a new codec version, and the old one stays readable. `tests.rs` holds golden bytes.
//!
//! This module knows neither RocksDB nor keys, and does not follow schema changes: the caller groups rows by version.

mod decode;
mod encode;
mod error;
mod layout;
mod nested;
#[cfg(test)]
mod tests;

pub use decode::decode_rows;
pub use encode::{EncodedRows, encode_rows};
pub use error::CodecError;
pub use layout::RowLayout;

#[cfg(target_endian = "big")]
compile_error!("the row codec copies Arrow's buffers as they are, which is right on little-endian machines only");

/// The length of a row's head, and of a whole tombstone.
pub const HEAD_LEN: usize = 5;

const CODEC_VERSION: u8 = 1;
const TOMBSTONE: u8 = 0b0001;
const FLAGS: u8 = 0b1111;

/// What a row's head says, readable without its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowHead {
    /// The table's schema version the row was written with.
    pub schema_version: u32,
    /// Whether the version marks its row as deleted; it then has no columns.
    pub tombstone: bool,
}

impl RowHead {
    fn to_bytes(self) -> [u8; HEAD_LEN] {
        let [a, b, c, d] = self.schema_version.to_le_bytes();
        [CODEC_VERSION << 4 | if self.tombstone { TOMBSTONE } else { 0 }, a, b, c, d]
    }
}

/// The bytes of a row version that deletes its row.
pub fn encode_tombstone(schema_version: u32) -> [u8; HEAD_LEN] {
    RowHead { schema_version, tombstone: true }.to_bytes()
}

/// Reads a row's head: the schema version that says which layout to decode with, and whether it is a tombstone.
pub fn peek(value: &[u8]) -> Result<RowHead, CodecError> {
    let Some((&[header, a, b, c, d], body)) = value.split_first_chunk::<HEAD_LEN>() else {
        return Err(CodecError::CorruptRow { reason: "shorter than its head" });
    };
    if header >> 4 != CODEC_VERSION {
        return Err(CodecError::CodecVersion { found: header >> 4 });
    }
    if header & FLAGS & !TOMBSTONE != 0 {
        return Err(CodecError::CorruptRow { reason: "unknown flags in its head" });
    }
    let tombstone = header & TOMBSTONE != 0;
    if tombstone && !body.is_empty() {
        return Err(CodecError::CorruptRow { reason: "a tombstone with columns" });
    }
    Ok(RowHead { schema_version: u32::from_le_bytes([a, b, c, d]), tombstone })
}
