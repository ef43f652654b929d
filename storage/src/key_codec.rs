//! The key codec: the bytes by which values of unique columns are the same or not, as the key index keeps them.
//!
//! ```text
//! key     = value per column in order             500 bytes at most: of a longer one
//!                                                 its first 468 and the BLAKE3 hash of all of it, 32 bytes
//! value   = 0x00                                  NULL
//!         | 0x01 fixed                            of a type of one width
//!         | 0x02 u32 length, LE │ bytes           text, binary
//!
//! fixed   Boolean 1 byte, 0 or 1 · signed integers, dates, times, timestamps, durations: i64 LE · unsigned ones: u64 LE
//!         floats: f64 bits LE, with one NaN and one zero · Decimal128: i128 LE · Decimal256: 32 bytes LE
//! ```
//!
//! Rules:
//! - Equal values have equal bytes, and other values other bytes. A column keeps its bytes when its type is widened.
//! - A change of these bytes needs the index of every table to be built again. `tests` holds golden bytes.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Float64Type, Int64Type, UInt64Type, i256};
use arrow::error::ArrowError;
use bytes::Bytes;

/// Bytes that a key has at most.
pub const KEY_BYTES_MAX: usize = 500;

const HASH_BYTES: usize = 32;
const NULL: u8 = 0;
const FIXED: u8 = 1;
const VARIABLE: u8 = 2;
/// Bytes of a text that an error shows.
const SHOWN_BYTES_MAX: usize = 100;

/// A key's bytes.
pub type KeyBytes = Bytes;

/// Whether columns of a type can be unique: those whose values are one thing.
pub fn can_be_unique(data_type: &DataType) -> bool {
    kind_of(data_type).is_some()
}

/// Whether values have the same bytes as those of another type that theirs widens to.
pub fn keeps_keys(from: &DataType, to: &DataType) -> bool {
    let is_number = |kind| matches!(kind, Kind::Signed | Kind::Unsigned | Kind::Float | Kind::Bytes);
    let kinds = (kind_of(from), kind_of(to));
    // Days are not the moments that they widen to, and decimals are counted in other units.
    kinds.0 == kinds.1 && kinds.0.is_some_and(is_number) && *from != DataType::Date32
}

/// What a type's values are encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Signed,
    Unsigned,
    Float,
    Decimal128,
    Decimal256,
    Bytes,
}

fn kind_of(data_type: &DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Boolean => Kind::Boolean,
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_) => Kind::Signed,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Kind::Unsigned,
        DataType::Float32 | DataType::Float64 => Kind::Float,
        DataType::Decimal128(..) => Kind::Decimal128,
        DataType::Decimal256(..) => Kind::Decimal256,
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::FixedSizeBinary(_) => Kind::Bytes,
        _ => return None,
    })
}

/// A column as it is encoded: of the widest type of its kind.
struct Encoded {
    kind: Kind,
    values: ArrayRef,
}

impl Encoded {
    fn of(column: &ArrayRef) -> Result<Self, ArrowError> {
        let data_type = column.data_type();
        let refused = || ArrowError::InvalidArgumentError(format!("values of type {data_type} cannot be unique"));
        let kind = kind_of(data_type).ok_or_else(refused)?;
        let values = match (kind, data_type) {
            (Kind::Signed, DataType::Date32 | DataType::Time32(_)) => {
                cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?
            }
            (Kind::Signed, _) => cast(column, &DataType::Int64)?,
            (Kind::Unsigned, _) => cast(column, &DataType::UInt64)?,
            (Kind::Float, _) => cast(column, &DataType::Float64)?,
            (Kind::Bytes, _) => cast(column, &DataType::LargeBinary)?,
            _ => ArrayRef::clone(column),
        };
        Ok(Self { kind, values })
    }

    fn append(&self, row: usize, key: &mut Vec<u8>) {
        if self.values.is_null(row) {
            return key.push(NULL);
        }
        key.push(if self.kind == Kind::Bytes { VARIABLE } else { FIXED });
        match self.kind {
            Kind::Boolean => key.push(u8::from(self.values.as_boolean().value(row))),
            Kind::Signed => key.extend(self.values.as_primitive::<Int64Type>().value(row).to_le_bytes()),
            Kind::Unsigned => key.extend(self.values.as_primitive::<UInt64Type>().value(row).to_le_bytes()),
            Kind::Float => {
                let value = self.values.as_primitive::<Float64Type>().value(row);
                key.extend(one_of_each(value).to_bits().to_le_bytes());
            }
            Kind::Decimal128 => key.extend(self.values.as_primitive::<Decimal128Type>().value(row).to_le_bytes()),
            Kind::Decimal256 => key.extend(self.values.as_primitive::<Decimal256Type>().value(row).to_le_bytes()),
            Kind::Bytes => {
                let bytes = self.values.as_binary::<i64>().value(row);
                // No value has more: Arrow's texts end at 2 GiB.
                key.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
                key.extend(bytes);
            }
        }
    }
}

/// There are many NaNs and two zeros, which are equal.
fn one_of_each(value: f64) -> f64 {
    match value {
        value if value.is_nan() => f64::NAN,
        // Or -0.0.
        0.0 => 0.0,
        value => value,
    }
}

/// The keys of rows, each with these bytes before it; `None` for a row with a NULL in one of these columns unless
/// `nulls_equal`: it is like no other.
///
/// Errors: a column's type is not one that [`can_be_unique`].
pub fn encode_keys(
    before: &[u8],
    columns: &[ArrayRef],
    rows: usize,
    nulls_equal: bool,
) -> Result<Vec<Option<KeyBytes>>, ArrowError> {
    let columns = columns.iter().map(Encoded::of).collect::<Result<Vec<_>, _>>()?;
    let mut key = Vec::new();
    let encode = |row: usize| {
        if !nulls_equal && columns.iter().any(|column| column.values.is_null(row)) {
            return None;
        }
        key.clear();
        columns.iter().for_each(|column| column.append(row, &mut key));
        if key.len() >= KEY_BYTES_MAX {
            let hash = blake3::hash(&key);
            key.truncate(KEY_BYTES_MAX - HASH_BYTES);
            key.extend(hash.as_bytes());
        }
        Some([before, &key].concat().into())
    };
    Ok((0..rows).map(encode).collect())
}

/// The values of a key as an error shows them, such as `(7, 'ann')`; of a long one its beginning.
pub fn describe_key(key: &[u8], types: &[DataType]) -> String {
    let is_cut = key.len() == KEY_BYTES_MAX;
    let mut rest = if is_cut { &key[..KEY_BYTES_MAX - HASH_BYTES] } else { key };
    let mut text = String::from("(");
    for (place, data_type) in types.iter().enumerate() {
        if place > 0 {
            text.push_str(", ");
        }
        match describe_value(&mut rest, data_type) {
            Some(value) => text.push_str(&value),
            None => {
                text.push('…');
                break;
            }
        }
    }
    text.push(')');
    text
}

fn describe_value(rest: &mut &[u8], data_type: &DataType) -> Option<String> {
    let (tag, after) = rest.split_first()?;
    *rest = after;
    if *tag == NULL {
        return Some("NULL".into());
    }
    Some(match kind_of(data_type)? {
        Kind::Boolean => (take::<1>(rest)? == [1]).to_string(),
        Kind::Signed => shown(&arrow::array::Int64Array::from(vec![i64::from_le_bytes(take(rest)?)]), data_type),
        Kind::Unsigned => u64::from_le_bytes(take(rest)?).to_string(),
        Kind::Float => f64::from_bits(u64::from_le_bytes(take(rest)?)).to_string(),
        Kind::Decimal128 => {
            let values = arrow::array::Decimal128Array::from(vec![i128::from_le_bytes(take(rest)?)]);
            shown(&values.with_data_type(data_type.clone()), data_type)
        }
        Kind::Decimal256 => {
            let values = arrow::array::Decimal256Array::from(vec![i256::from_le_bytes(take(rest)?)]);
            shown(&values.with_data_type(data_type.clone()), data_type)
        }
        Kind::Bytes => {
            let length = u32::from_le_bytes(take(rest)?) as usize;
            let bytes = &rest[..length.min(rest.len()).min(SHOWN_BYTES_MAX)];
            *rest = rest.get(length..).unwrap_or_default();
            let end = if bytes.len() < length { "…" } else { "" };
            match data_type {
                DataType::Utf8 | DataType::LargeUtf8 => {
                    // The beginning may end within a character.
                    let text = String::from_utf8_lossy(bytes);
                    format!("'{}{end}'", text.trim_end_matches(char::REPLACEMENT_CHARACTER))
                }
                _ => {
                    let mut hex = String::from("X'");
                    bytes.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap_or_default());
                    format!("{hex}{end}'")
                }
            }
        }
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

/// One value as Arrow shows it.
fn shown(values: &dyn Array, data_type: &DataType) -> String {
    let as_type = match data_type {
        DataType::Date32 | DataType::Time32(_) => {
            cast(values, &DataType::Int32).and_then(|values| cast(&values, data_type))
        }
        _ => cast(values, data_type),
    };
    let text = as_type.and_then(|values| arrow::util::display::array_value_to_string(&values, 0));
    match text {
        Ok(text) if is_number(data_type) => text,
        Ok(text) => format!("'{text}'"),
        Err(_) => "?".into(),
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_decimal()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int32Array,
        Int64Array, StringArray, TimestampMicrosecondArray, UInt8Array, UInt64Array, new_null_array,
    };
    use proptest::prelude::*;

    use super::*;

    fn keys(columns: &[ArrayRef]) -> Vec<Option<KeyBytes>> {
        encode_keys(&[], columns, columns[0].len(), false).unwrap()
    }

    fn hex(key: &Option<KeyBytes>) -> String {
        key.as_ref().unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_keys() {
        for (column, expected) in [
            (Arc::new(BooleanArray::from(vec![true])) as ArrayRef, "0101"),
            (Arc::new(Int8Array::from(vec![-1])), "01ffffffffffffffff"),
            (Arc::new(Int64Array::from(vec![258])), "010201000000000000"),
            (Arc::new(Date32Array::from(vec![1])), "010100000000000000"),
            (Arc::new(TimestampMicrosecondArray::from(vec![2])), "010200000000000000"),
            (Arc::new(UInt8Array::from(vec![200])), "01c800000000000000"),
            (Arc::new(UInt64Array::from(vec![u64::MAX])), "01ffffffffffffffff"),
            (Arc::new(Float32Array::from(vec![1.5])), "01000000000000f83f"),
            (Arc::new(Float64Array::from(vec![-0.0])), "010000000000000000"),
            (Arc::new(Float64Array::from(vec![-f64::NAN])), "01000000000000f87f"),
            (
                Arc::new(Decimal128Array::from(vec![7]).with_precision_and_scale(9, 2).unwrap()),
                "0107000000000000000000000000000000",
            ),
            (Arc::new(StringArray::from(vec!["ab"])), "02020000006162"),
            (Arc::new(BinaryArray::from(vec![&[0xffu8][..]])), "0201000000ff"),
        ] {
            let data_type = column.data_type().clone();
            assert_eq!(hex(&keys(&[column])[0]), expected, "{data_type}");
        }
    }

    #[test]
    fn nulls_are_like_no_other_unless_they_are_equal() {
        let columns = [
            Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
            Arc::new(StringArray::from(vec![Some(""), Some("x")])),
        ];
        assert!(keys(&columns)[1].is_none());
        let equal = encode_keys(&[], &columns, 2, true).unwrap();
        assert_eq!(hex(&equal[1]), "00020100000078");
        assert_eq!(describe_key(equal[1].as_ref().unwrap(), &[DataType::Int32, DataType::Utf8]), "(NULL, 'x')");
    }

    #[test]
    fn long_keys_are_cut_and_stay_apart() {
        let long = "é".repeat(1000);
        let other = format!("{long}!");
        let column = Arc::new(StringArray::from(vec![long.as_str(), &other, &long])) as ArrayRef;
        let keys = keys(&[column]);
        assert!(keys.iter().all(|key| key.as_ref().unwrap().len() == KEY_BYTES_MAX));
        assert_eq!(keys[0], keys[2]);
        assert_ne!(keys[0], keys[1]);
        let shown = describe_key(keys[0].as_ref().unwrap(), &[DataType::Utf8, DataType::Int32]);
        assert!(shown.starts_with("('éé") && shown.ends_with("é…', …)"), "{shown}");
    }

    #[test]
    fn values_are_shown_as_in_sql() {
        let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        let columns = [
            Arc::new(Int32Array::from(vec![7])) as ArrayRef,
            Arc::new(StringArray::from(vec!["ann"])),
            Arc::new(Date32Array::from(vec![365])),
            Arc::new(TimestampMicrosecondArray::from(vec![1_500_000])),
            Arc::new(Decimal128Array::from(vec![-705]).with_precision_and_scale(9, 2).unwrap()),
            Arc::new(BinaryArray::from(vec![&[1u8, 0xab][..]])),
            Arc::new(BooleanArray::from(vec![false])),
            Arc::new(Float64Array::from(vec![0.5])),
        ];
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        assert_eq!(types[3], micros);
        let shown = describe_key(keys(&columns)[0].as_ref().unwrap(), &types);
        assert_eq!(shown, "(7, 'ann', '1971-01-01', '1970-01-01T00:00:01.500', -7.05, X'01ab', false, 0.5)");
    }

    #[test]
    fn what_has_parts_cannot_be_unique() {
        let list = DataType::new_list(DataType::Int32, true);
        assert!(!can_be_unique(&list));
        assert!(encode_keys(&[], &[new_null_array(&list, 1)], 1, true).is_err());
    }

    proptest! {
        /// Two rows have the same key when all of their values are equal, and only then.
        #[test]
        fn keys_are_equal_when_values_are(rows in proptest::collection::vec((any::<Option<i32>>(), "[ab\u{0}]{0,3}", 0u8..3), 1..20)) {
            let columns = [
                Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.0))) as ArrayRef,
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1))),
                Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.2))),
            ];
            let keys = encode_keys(&[], &columns, rows.len(), true).unwrap();
            for (a, left) in rows.iter().enumerate() {
                for (b, right) in rows.iter().enumerate() {
                    prop_assert_eq!(left == right, keys[a] == keys[b]);
                }
            }
        }
    }
}
