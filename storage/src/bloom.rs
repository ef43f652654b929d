//! Bloom filters of batch files: does a file hold this value at all? No, or maybe.
//!
//! A file's filters are an object of their own beside it, so that no footer is opened for a file that cannot match. They are
//! a hint: when they are missing or damaged, the answer is maybe.
//!
//! ```text
//! u8   format (1)
//! u32  filters n, LE
//! n ×  column id u32 LE │ blocks b u32 LE
//! n ×  b × 32 bytes: a block, 8 × u32 LE
//! u32  CRC32 (IEEE) of all bytes before it, LE
//! ```
//! A filter is Parquet's split-block Bloom filter over the XXH64 hashes (seed 0) of the values' keys ([`key_hashes`]).

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Float64Type, Int64Type, UInt64Type};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use crate::catalog::TableRecord;
use crate::error::Result;
use crate::keys::BatchNumber;
use crate::objects::Objects;
use crate::paths;
use crate::system_columns::{self, ID_COLUMN_ID, UPDATED_COLUMN_ID};

const FORMAT: u8 = 1;
const HEAD: usize = 5;
const ENTRY: usize = 8;
const BLOCK: usize = 32;
const CHECKSUM: usize = 4;
/// 64 MiB: what a filter of more values would need, it does not get; it answers maybe more often.
const BLOCKS_MAX: usize = 2 << 20;

/// Name of the table option that says how often a filter may say maybe where no would be right.
pub const FPP_OPTION: &str = "bloom_fpp";
/// Name of the table option that lists columns without filters.
pub const DISABLED_OPTION: &str = "bloom_disabled";
/// One in a hundred.
pub const FPP_DEFAULT: f64 = 0.01;

/// Which columns of a table's files get filters, and how good they are.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterPlan {
    /// Column ids, rising.
    pub columns: Vec<u32>,
    /// The share of values not in the file for which a filter says maybe.
    pub fpp: f64,
}

impl FilterPlan {
    /// No filters.
    pub const NONE: Self = Self { columns: Vec::new(), fpp: FPP_DEFAULT };

    /// `_id`, `_updated`, the indexed and the unique columns, but for those that the table's options leave out.
    pub fn of(table: &TableRecord) -> Self {
        let disabled = table.options.get(DISABLED_OPTION).map_or("", String::as_str);
        let disabled: Vec<u32> = listed_columns(disabled).filter_map(|name| column_id(table, name)).collect();
        let indexed = table.indexes.iter().flat_map(|index| index.columns.iter().copied());
        let unique = table.unique.iter().flat_map(|key| key.columns.iter().copied());
        let mut columns: Vec<u32> =
            [ID_COLUMN_ID, UPDATED_COLUMN_ID].into_iter().chain(indexed).chain(unique).collect();
        columns.retain(|id| !disabled.contains(id));
        columns.sort_unstable();
        columns.dedup();
        let fpp = table.options.get(FPP_OPTION).and_then(|text| text.parse().ok()).filter(is_fpp);
        Self { columns, fpp: fpp.unwrap_or(FPP_DEFAULT) }
    }
}

/// Whether a filter can have this share of false answers.
pub fn is_fpp(fpp: &f64) -> bool {
    (1e-9..1.0).contains(fpp)
}

/// The names in a list of columns, as the option gives it: `'a, b'`.
pub fn listed_columns(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// The id of a column that a filter is possible for, by name.
pub fn column_id(table: &TableRecord, name: &str) -> Option<u32> {
    match name {
        system_columns::ID => Some(ID_COLUMN_ID),
        system_columns::UPDATED => Some(UPDATED_COLUMN_ID),
        _ => table.schema().columns.iter().find(|column| column.name == name).map(|column| column.id),
    }
}

/// Where a batch file's filters lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarRef {
    /// Path below the object store's root.
    pub file_path: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// The CRC32 that the object ends with.
    pub checksum: u32,
}

/// Puts a file's filters beside it, durably. For before its record is written.
pub async fn place(
    objects: &Objects,
    scope_prefix: &str,
    number: BatchNumber,
    sidecar: Option<&[u8]>,
) -> Result<Option<SidecarRef>> {
    let Some(bytes) = sidecar else { return Ok(None) };
    let file_path = format!("{scope_prefix}/{}", paths::bloom_file(number, objects.name_epoch()));
    objects.put(&file_path, bytes.to_vec().into(), None).await?;
    let checksum = bytes.last_chunk::<CHECKSUM>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    Ok(Some(SidecarRef { file_path, size_bytes: bytes.len() as u64, checksum }))
}

/// The hashes of values as filters know them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyHashes {
    /// Of all values but NULL and NaN.
    pub hashes: Vec<u64>,
    /// Whether there was a NaN: filters know none.
    pub nan: bool,
}

/// Whether filters of columns of this type are possible.
pub fn is_filterable(data_type: &DataType) -> bool {
    use DataType::{
        Boolean, Date32, Date64, Decimal128, Decimal256, Duration, Float32, Float64, Time32, Time64, Timestamp,
    };
    data_type.is_integer()
        || data_type.is_string()
        || data_type.is_binary()
        || matches!(data_type, Boolean | Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_))
        || matches!(data_type, Decimal128(..) | Decimal256(..) | Float32 | Float64)
}

/// Hashes values by their keys; `None` for a type without filters.
///
/// | Type | Key |
/// |---|---|
/// | Int, Date, Time, Timestamp, Duration | the stored number as i64 LE |
/// | UInt | u64 LE |
/// | Decimal128, Decimal256 | the unscaled integer as i128 or i256 LE |
/// | Float32, Float64 | f64 LE, −0.0 as 0.0; NaN has none |
/// | Boolean | one byte, 0 or 1 |
/// | Utf8, Binary and their kin | the bytes |
pub fn key_hashes(values: &ArrayRef) -> Option<KeyHashes> {
    let data_type = values.data_type();
    if !is_filterable(data_type) {
        return None;
    }
    let mut nan = false;
    let hashes = match data_type {
        DataType::Boolean => values.as_boolean().iter().flatten().map(|v| hash(&[u8::from(v)])).collect(),
        DataType::Decimal128(..) => {
            values.as_primitive::<Decimal128Type>().iter().flatten().map(|v| hash(&v.to_le_bytes())).collect()
        }
        DataType::Decimal256(..) => {
            values.as_primitive::<Decimal256Type>().iter().flatten().map(|v| hash(&v.to_le_bytes())).collect()
        }
        DataType::Float32 | DataType::Float64 => {
            let values = cast(values, &DataType::Float64).ok()?;
            let values = values.as_primitive::<Float64Type>();
            nan = values.iter().flatten().any(f64::is_nan);
            // The sum with 0.0 of −0.0 is 0.0, of everything else itself.
            let numbers = values.iter().flatten().filter(|v| !v.is_nan());
            numbers.map(|v| hash(&(v + 0.0).to_le_bytes())).collect()
        }
        unsigned if unsigned.is_unsigned_integer() => {
            let values = cast(values, &DataType::UInt64).ok()?;
            values.as_primitive::<UInt64Type>().iter().flatten().map(|v| hash(&v.to_le_bytes())).collect()
        }
        bytes if bytes.is_string() || bytes.is_binary() => bytes_hashes(values)?,
        _ => numbers(values)?.as_primitive::<Int64Type>().iter().flatten().map(|v| hash(&v.to_le_bytes())).collect(),
    };
    Some(KeyHashes { hashes, nan })
}

/// Integers and times as the i64 they are stored as.
fn numbers(values: &ArrayRef) -> Option<ArrayRef> {
    let narrow = match values.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(values, &DataType::Int32).ok()?,
        _ => ArrayRef::clone(values),
    };
    cast(&narrow, &DataType::Int64).ok()
}

fn bytes_hashes(values: &ArrayRef) -> Option<Vec<u64>> {
    Some(match values.data_type() {
        DataType::FixedSizeBinary(_) => values.as_fixed_size_binary().iter().flatten().map(hash).collect(),
        _ => {
            let bytes = cast(values, &DataType::LargeBinary).ok()?;
            bytes.as_binary::<i64>().iter().flatten().map(hash).collect()
        }
    })
}

fn hash(key: &[u8]) -> u64 {
    XxHash64::oneshot(0, key)
}

/// A split-block Bloom filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockFilter(Vec<[u32; 8]>);

impl BlockFilter {
    /// The smallest filter of these values that keeps to `fpp`.
    pub fn of(mut hashes: Vec<u64>, fpp: f64) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        let bits = -8.0 * hashes.len() as f64 / (1.0 - fpp.powf(1.0 / 8.0)).ln();
        let blocks = ((bits / 256.0).ceil() as usize).clamp(1, BLOCKS_MAX);
        let mut filter = Self(vec![[0; 8]; blocks]);
        for hash in hashes {
            let block = filter.block(hash);
            filter.0[block].iter_mut().zip(mask(hash)).for_each(|(word, bit)| *word |= bit);
        }
        filter
    }

    /// False: no value with this hash is among those of the filter.
    pub fn may_contain(&self, hash: u64) -> bool {
        self.0[self.block(hash)].iter().zip(mask(hash)).all(|(word, bit)| word & bit != 0)
    }

    fn block(&self, hash: u64) -> usize {
        (((hash >> 32) * self.0.len() as u64) >> 32) as usize
    }

    fn size_bytes(&self) -> usize {
        self.0.len() * BLOCK
    }
}

/// One bit in each word of a block.
fn mask(hash: u64) -> [u32; 8] {
    const SALT: [u32; 8] =
        [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];
    SALT.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

/// A file's filters by column id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileFilters(BTreeMap<u32, BlockFilter>);

/// Filters that are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Bloom filters are damaged: {0}")]
pub struct DamagedFilters(&'static str);

impl FileFilters {
    /// These filters.
    pub fn new(filters: BTreeMap<u32, BlockFilter>) -> Self {
        Self(filters)
    }

    /// The filter of a column.
    pub fn column(&self, id: u32) -> Option<&BlockFilter> {
        self.0.get(&id)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in memory, about.
    pub fn size_bytes(&self) -> usize {
        self.0.values().map(|filter| filter.size_bytes() + 64).sum()
    }

    /// The bytes of the object.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend((self.0.len() as u32).to_le_bytes());
        for (id, filter) in &self.0 {
            out.extend(id.to_le_bytes());
            out.extend((filter.0.len() as u32).to_le_bytes());
        }
        for word in self.0.values().flat_map(|filter| filter.0.iter().flatten()) {
            out.extend(word.to_le_bytes());
        }
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Reads the object that a record names.
    pub fn decode(bytes: &[u8], named: &SidecarRef) -> Result<Self, DamagedFilters> {
        if bytes.len() as u64 != named.size_bytes || bytes.len() < HEAD + CHECKSUM {
            return Err(DamagedFilters("their length is wrong"));
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
        if crc32fast::hash(body) != named.checksum || named.checksum.to_le_bytes() != checksum {
            return Err(DamagedFilters("their checksum is wrong"));
        }
        if body[0] != FORMAT {
            return Err(DamagedFilters("their format is unknown"));
        }
        let count = word(&body[1..]).ok_or(DamagedFilters("they are too short"))? as usize;
        let entries = count.checked_mul(ENTRY).and_then(|length| body[HEAD..].split_at_checked(length));
        let (entries, mut rest) = entries.ok_or(DamagedFilters("they are too short"))?;
        let mut filters = BTreeMap::new();
        for entry in entries.as_chunks::<ENTRY>().0 {
            let (id, blocks) = (word(entry).unwrap_or(0), word(&entry[4..]).unwrap_or(0) as usize);
            let split = blocks.checked_mul(BLOCK).and_then(|length| rest.split_at_checked(length));
            let (filter, after) = split.filter(|_| blocks > 0).ok_or(DamagedFilters("they are too short"))?;
            let blocks = filter.as_chunks::<BLOCK>().0.iter().map(block_of).collect();
            filters.insert(id, BlockFilter(blocks));
            rest = after;
        }
        if !rest.is_empty() {
            return Err(DamagedFilters("their length is wrong"));
        }
        Ok(Self(filters))
    }
}

fn block_of(bytes: &[u8; BLOCK]) -> [u32; 8] {
    let words = bytes.as_chunks::<4>().0;
    std::array::from_fn(|i| u32::from_le_bytes(words[i]))
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int64Array,
        StringArray, TimestampMicrosecondArray, UInt64Array,
    };
    use parquet::bloom_filter::Sbbf;

    use super::*;

    fn named(bytes: &[u8]) -> SidecarRef {
        let checksum = u32::from_le_bytes(*bytes.last_chunk().unwrap());
        SidecarRef { file_path: "f".into(), size_bytes: bytes.len() as u64, checksum }
    }

    fn hashes(values: impl Array + 'static) -> Vec<u64> {
        key_hashes(&(Arc::new(values) as ArrayRef)).unwrap().hashes
    }

    #[test]
    fn golden_sidecar() {
        let ids = BlockFilter::of(hashes(Int64Array::from(vec![1, 2, 3])), 0.01);
        let names = BlockFilter::of(hashes(StringArray::from(vec!["a"])), 0.01);
        let filters = FileFilters::new(BTreeMap::from([(1, ids), (16, names)]));
        let bytes = filters.encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN);
        assert_eq!(FileFilters::decode(&bytes, &named(&bytes)), Ok(filters));
    }

    const GOLDEN: &str = concat!(
        "01",
        "02000000",
        "0100000001000000",
        "1000000001000000",
        "0000180804000402020400020000260040004004000002884000002020090000",
        "0000040000000200020000000010000000000200000000010000000800000080",
        "07162760",
    );

    #[test]
    fn any_changed_byte_is_noticed() {
        let filter = BlockFilter::of(hashes(Int64Array::from(vec![1, 2, 3])), 0.01);
        let bytes = FileFilters::new(BTreeMap::from([(1, filter)])).encode();
        let named = named(&bytes);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(FileFilters::decode(&damaged, &named).is_err(), "byte {at}");
            assert!(FileFilters::decode(&bytes[..at], &named).is_err(), "length {at}");
        }
    }

    #[test]
    fn it_is_parquets_filter() {
        let values: Vec<i64> = (0..5000).map(|i| i * 7919).collect();
        let ours = BlockFilter::of(hashes(Int64Array::from(values.clone())), 0.01);
        let bitset: Vec<u8> = ours.0.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let theirs = Sbbf::new(&bitset);
        assert!(values.iter().all(|value| theirs.check(value)));
        let mut wrong = 0;
        for value in (0..20_000i64).map(|i| i * 7919 + 1) {
            let ours = ours.may_contain(hashes(Int64Array::from(vec![value]))[0]);
            assert_eq!(ours, theirs.check(&value), "{value}");
            wrong += usize::from(ours);
        }
        assert!((20..=500).contains(&wrong), "{wrong} of 20000 at 1 %");
    }

    #[test]
    fn what_is_in_is_never_denied() {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int8Array::from(vec![Some(-1), None, Some(127)])),
            Arc::new(UInt64Array::from(vec![u64::MAX, 0])),
            Arc::new(Float64Array::from(vec![-0.0, 1.5, f64::INFINITY])),
            Arc::new(Float32Array::from(vec![0.1, -0.0])),
            Arc::new(Decimal128Array::from(vec![i128::MAX, -1]).with_precision_and_scale(38, 2).unwrap()),
            Arc::new(Date32Array::from(vec![-1, 20_000])),
            Arc::new(TimestampMicrosecondArray::from(vec![-1, 5]).with_timezone("UTC")),
            Arc::new(BooleanArray::from(vec![true])),
            Arc::new(StringArray::from(vec!["", "ä"])),
            Arc::new(BinaryArray::from(vec![b"\xff".as_slice()])),
        ];
        for array in arrays {
            let keys = key_hashes(&array).unwrap();
            assert_eq!(keys.hashes.len(), array.len() - array.null_count(), "{:?}", array.data_type());
            let filter = BlockFilter::of(keys.hashes, 0.01);
            for row in 0..array.len() {
                let one = key_hashes(&array.slice(row, 1)).unwrap();
                assert!(one.hashes.iter().all(|hash| filter.may_contain(*hash)), "{:?} {row}", array.data_type());
            }
        }
        assert_eq!(hashes(Float64Array::from(vec![-0.0])), hashes(Float64Array::from(vec![0.0])));
        let nan = key_hashes(&(Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef)).unwrap();
        assert_eq!(nan, KeyHashes { hashes: vec![], nan: true });
        let nested: ArrayRef = Arc::new(arrow::array::StructArray::new_empty_fields(1, None));
        assert_eq!(key_hashes(&nested), None);
    }

    #[test]
    fn a_filter_of_nothing_denies_everything() {
        let filter = BlockFilter::of(vec![], 0.01);
        assert!(hashes(Int64Array::from_iter_values(0..100)).iter().all(|hash| !filter.may_contain(*hash)));
    }
}
