//! The stored bytes themselves, and that any rows come back from them and any damage is refused.

use super::*;
use arrow::array::*;
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

fn layout_of(fields: &Fields) -> RowLayout {
    RowLayout::new(7, fields).unwrap()
}

fn decode_all(layout: &RowLayout, values: &[&[u8]]) -> Result<Vec<ArrayRef>, CodecError> {
    decode_rows(layout, values, &(0..layout.column_count()).collect::<Vec<_>>())
}

/// Rows that come back must be equal, and encode to the same bytes again: equality alone forgives what is under a NULL.
fn assert_round_trip(fields: &Fields, columns: &[ArrayRef]) {
    let layout = layout_of(fields);
    let rows = encode_rows(&layout, columns[0].len(), columns).unwrap();
    let values = rows.iter().collect::<Vec<_>>();
    let decoded = decode_all(&layout, &values).unwrap();
    for (column, back) in columns.iter().zip(&decoded) {
        assert_eq!(column, back);
        back.to_data().validate_full().unwrap();
    }
    let again = encode_rows(&layout, values.len(), &decoded).unwrap();
    assert!(rows.iter().eq(again.iter()));
}

fn round_trip_one(array: ArrayRef) {
    assert_round_trip(&Fields::from(vec![Field::new("c", array.data_type().clone(), true)]), &[array]);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// ---- the bytes ----

/// Every kind of place: fixed, boolean, null, string, binary, list, struct, map, fixed-size list; nine columns and so
/// two bytes of NULLs.
fn golden_fields() -> Fields {
    let point = Fields::from(vec![Field::new("x", DataType::Int16, true), Field::new("label", DataType::Utf8, true)]);
    Fields::from(vec![
        Field::new("n", DataType::Int32, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("price", DataType::Decimal128(10, 2), true),
        Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
        Field::new("point", DataType::Struct(point), true),
        Field::new("nothing", DataType::Null, true),
        Field::new("pair", DataType::new_fixed_size_list(DataType::UInt16, 2, true), true),
        Field::new("counts", golden_map().data_type().clone(), true),
    ])
}

fn golden_map() -> MapArray {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int8Builder::new());
    map.keys().append_value("k");
    map.values().append_value(-1);
    map.append(true).unwrap();
    map.append(false).unwrap();
    map.finish()
}

fn golden_columns() -> Vec<ArrayRef> {
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("a"), None, Some("bc")]);
    tags.append_null();
    let mut pair = FixedSizeListBuilder::new(UInt16Builder::new(), 2);
    pair.values().append_value(0x0102);
    pair.values().append_null();
    pair.append(true);
    pair.values().append_nulls(2);
    pair.append(false);
    let point = StructArray::new(
        match golden_fields()[5].data_type() {
            DataType::Struct(fields) => fields.clone(),
            _ => Fields::empty(),
        },
        vec![Arc::new(Int16Array::from(vec![-2, 9])), Arc::new(StringArray::from(vec!["here", "garbage"]))],
        Some(NullBuffer::from(vec![true, false])),
    );
    vec![
        Arc::new(Int32Array::from(vec![Some(0x01020304), None])),
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(StringArray::from(vec![Some("é"), None])),
        Arc::new(Decimal128Array::from(vec![Some(-1), None]).with_precision_and_scale(10, 2).unwrap()),
        Arc::new(tags.finish()),
        Arc::new(point),
        Arc::new(NullArray::new(2)),
        Arc::new(pair.finish()),
        Arc::new(golden_map()),
    ]
}

/// These bytes are on disks. If the test fails, the change needs a new codec version, not new bytes here.
#[test]
fn the_stored_bytes_are_as_drawn() {
    let layout = RowLayout::new(0x0a0b0c0d, &golden_fields()).unwrap();
    let rows = encode_rows(&layout, 2, &golden_columns()).unwrap();
    let full = [
        "10 0d0c0b0a",                                    // head
        "4000",                                           // NULLs: `nothing` is one
        "04030201 01 ffffffffffffffffffffffffffffffff",   // n, ok, price
        "02000000 16000000 21000000 26000000 36000000",   // ends of name, tags, point, pair, counts
        "c3a9",                                           // name
        "03000000 02 01000000 01000000 03000000 61 6263", // tags: count, NULLs, ends, data
        "00 feff 04000000 68657265",                      // point: NULLs, x, end of label, label
        "02 0201 0000",                                   // pair: NULLs, elements
        "01000000 00 07000000 00 ff 01000000 6b", // counts: count, NULLs, end, its entry: NULLs, value, end, key
    ];
    assert_eq!(hex(rows.get(0)), full.concat().replace(' ', ""));
    let nulls = ["10 0d0c0b0a", "ff01", &"00".repeat(21), &"00000000".repeat(5)];
    assert_eq!(hex(rows.get(1)), nulls.concat().replace(' ', ""));
    assert_eq!(hex(&encode_tombstone(0x0a0b0c0d)), "110d0c0b0a");
    assert_round_trip(&golden_fields(), &golden_columns());
}

/// The example of docs/formats.md.
#[test]
fn the_documented_example_is_true() {
    let list = ListArray::from_iter_primitive::<Int16Type, _, _>([Some(vec![Some(7), None])]);
    let columns: [ArrayRef; 3] =
        [Arc::new(Int32Array::from(vec![1])), Arc::new(StringArray::from(vec!["hi"])), Arc::new(list)];
    let fields = columns.iter().map(|column| Field::new("c", column.data_type().clone(), true)).collect::<Fields>();
    let rows = encode_rows(&RowLayout::new(3, &fields).unwrap(), 1, &columns).unwrap();
    let documented = "10 03000000 00 01000000 02000000 0b000000 6869 02000000 02 0700 0000";
    assert_eq!(hex(rows.get(0)), documented.replace(' ', ""));
}

#[test]
fn the_head_is_read_without_a_layout() {
    assert_eq!(peek(&encode_tombstone(9)), Ok(RowHead { schema_version: 9, tombstone: true }));
    let rows = encode_rows(&layout_of(&golden_fields()), 2, &golden_columns()).unwrap();
    assert_eq!(peek(rows.get(0)), Ok(RowHead { schema_version: 7, tombstone: false }));
    assert_eq!(peek(&[0x20, 0, 0, 0, 0]), Err(CodecError::CodecVersion { found: 2 }));
    for damaged in [&[][..], &[0x10, 0, 0, 0], &[0x12, 0, 0, 0, 0], &[0x18, 0, 0, 0, 0], &[0x11, 0, 0, 0, 0, 0]] {
        assert!(matches!(peek(damaged), Err(CodecError::CorruptRow { .. })), "{damaged:?}");
    }
}

// ---- values ----

#[test]
fn floats_keep_their_bits() {
    let bits = [0x7ff8_0000_dead_beef, 0xfff0_0000_0000_0001, 0x8000_0000_0000_0000, 0];
    let floats: Float64Array = bits.iter().map(|&bits| Some(f64::from_bits(bits))).collect();
    let fields = Fields::from(vec![Field::new("f", DataType::Float64, true)]);
    let rows = encode_rows(&layout_of(&fields), 4, &[Arc::new(floats)]).unwrap();
    let back = decode_all(&layout_of(&fields), &rows.iter().collect::<Vec<_>>()).unwrap();
    let back = back[0].as_primitive::<Float64Type>().values().iter().map(|f| f.to_bits()).collect::<Vec<_>>();
    assert_eq!(back, bits);
}

#[test]
fn tombstones_are_null_in_every_column() {
    let layout = layout_of(&golden_fields());
    let rows = encode_rows(&layout, 2, &golden_columns()).unwrap();
    let tombstone = encode_tombstone(7);
    let decoded = decode_all(&layout, &[&tombstone, rows.get(0), &tombstone]).unwrap();
    for (column, back) in golden_columns().iter().zip(&decoded) {
        assert_eq!(&back.slice(1, 1), &column.slice(0, 1));
        assert_eq!(back.logical_null_count(), if back.data_type().is_null() { 3 } else { 2 });
    }
}

#[test]
fn only_the_projection_is_decoded_in_its_order() {
    let layout = layout_of(&golden_fields());
    let rows = encode_rows(&layout, 2, &golden_columns()).unwrap();
    let values = rows.iter().collect::<Vec<_>>();
    let decoded = decode_rows(&layout, &values, &[4, 0, 4]).unwrap();
    assert_eq!(decoded, [4, 0, 4].map(|i| Arc::clone(&golden_columns()[i])));
    assert_eq!(decode_rows(&layout, &values, &[9]), Err(CodecError::Projection { index: 9, columns: 9 }));
    assert_eq!(decode_rows(&layout, &values, &[]), Ok(vec![]));
}

#[test]
fn no_rows_and_no_columns() {
    let layout = layout_of(&golden_fields());
    let empty = golden_columns().iter().map(|column| column.slice(1, 0)).collect::<Vec<_>>();
    let rows = encode_rows(&layout, 0, &empty).unwrap();
    assert!(rows.is_empty());
    assert_eq!(decode_all(&layout, &[]).unwrap(), empty);

    let layout = layout_of(&Fields::empty());
    let rows = encode_rows(&layout, 2, &[]).unwrap();
    assert_eq!(rows.iter().map(hex).collect::<Vec<_>>(), ["1007000000", "1007000000"]);
    assert_eq!(decode_all(&layout, &[rows.get(0), &encode_tombstone(7)]), Ok(vec![]));
    assert!(decode_all(&layout, &[&[0x10, 7, 0, 0, 0, 0]]).is_err());
}

#[test]
fn degenerate_types_keep_their_row_count() {
    let nulls = || Some(NullBuffer::from(vec![true, false, true]));
    let none = Arc::new(Field::new_list_field(DataType::Int64, true));
    let no_elements = || Arc::new(Int64Array::from(Vec::<i64>::new()));
    round_trip_one(Arc::new(StructArray::new_empty_fields(3, nulls())));
    round_trip_one(Arc::new(FixedSizeListArray::new(Arc::clone(&none), 0, no_elements(), nulls())));
    round_trip_one(Arc::new(FixedSizeListArray::try_new_with_length(none, 0, no_elements(), None, 3).unwrap()));
    let no_bytes = || Buffer::from_vec(Vec::<u8>::new());
    round_trip_one(Arc::new(FixedSizeBinaryArray::new(0, no_bytes(), nulls())));
    round_trip_one(Arc::new(FixedSizeBinaryArray::try_new_with_len(0, no_bytes(), None, 3).unwrap()));
}

#[test]
fn rows_of_another_schema_version_are_refused() {
    let rows = encode_rows(&layout_of(&golden_fields()), 2, &golden_columns()).unwrap();
    let newer = RowLayout::new(8, &golden_fields()).unwrap();
    let error = Err(CodecError::SchemaVersion { expected: 8, found: 7 });
    assert_eq!(decode_rows(&newer, &[rows.get(0)], &[0]), error);
    assert_eq!(decode_rows(&newer, &[&encode_tombstone(7)], &[0]), error);
}

// ---- refusals ----

#[test]
fn types_that_are_not_stored_are_named() {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let element = Arc::new(Field::new_list_field(DataType::Int8, true));
    let deep = (0..100).fold(DataType::Int8, |inner, _| DataType::new_list(inner, true));
    for unsupported in [
        DataType::Utf8View,
        DataType::BinaryView,
        DataType::ListView(element),
        dictionary,
        deep,
        DataType::FixedSizeBinary(-1),
        DataType::FixedSizeBinary(i32::MAX),
        DataType::new_fixed_size_list(DataType::Null, i32::MAX, true),
        DataType::new_fixed_size_list(DataType::new_fixed_size_list(DataType::Int64, 1000, true), 1000, true),
    ] {
        let inner = Fields::from(vec![Field::new("inner", unsupported, true)]);
        let fields = Fields::from(vec![Field::new("outer", DataType::Struct(inner), true)]);
        let error = RowLayout::new(1, &fields).unwrap_err().to_string();
        assert!(error.starts_with("column outer.inner") && error.contains("unsupported type"), "{error}");
    }
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let fields = Fields::from(vec![Field::new("c", DataType::Int32, true)]);
    let encode = |columns: &[ArrayRef]| encode_rows(&layout_of(&fields), 2, columns).unwrap_err().to_string();
    assert_eq!(encode(&[]), "0 arrays for a row of 1 columns");
    assert_eq!(encode(&[Arc::new(Int32Array::from(vec![1]))]), "column c: an array of 1 values for 2 rows");
    let wide = encode(&[Arc::new(Int64Array::from(vec![1, 2]))]);
    assert_eq!(wide, "column c: an array of Int64 where the table has Int32");
}

/// The type of an array does not vouch for the table's NOT NULL, at any depth.
#[test]
fn a_null_where_none_is_declared_is_refused() {
    let array = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let encode = |top: bool, inside: bool, array: &ListArray| {
        let fields = Fields::from(vec![Field::new("c", DataType::new_list(DataType::Int32, inside), top)]);
        encode_rows(&layout_of(&fields), array.len(), &[Arc::new(array.clone())])
    };
    assert!(encode(true, true, &array).is_ok());
    let refused = |column: &str| CodecError::UnexpectedNull { column: column.to_owned() };
    assert_eq!(encode(false, true, &array).unwrap_err(), refused("c"));
    assert_eq!(encode(true, false, &array).unwrap_err(), refused("c[]"));
    assert!(encode(true, false, &array.slice(1, 1)).is_ok());
}

/// A NULL parent may hide a NULL in a field declared without; neither is stored, and both come back.
#[test]
fn what_a_null_parent_hides_is_not_stored() {
    let fields = Fields::from(vec![Field::new("a", DataType::Int32, false), Field::new("b", DataType::Utf8, false)]);
    let structs = |a: Option<i32>, b: Option<&str>| {
        let children: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(vec![Some(1), a])), Arc::new(StringArray::from(vec![Some("x"), b]))];
        StructArray::new(fields.clone(), children, Some(NullBuffer::from(vec![true, false])))
    };
    let layout = one_column(structs(None, None).data_type().clone());
    let hidden = encode_rows(&layout, 2, &[Arc::new(structs(Some(5), Some("garbage")))]).unwrap();
    let masked = encode_rows(&layout, 2, &[Arc::new(structs(None, None))]).unwrap();
    assert_eq!(hex(hidden.get(1)), "10070000000100000000");
    assert!(hidden.iter().eq(masked.iter()));
    round_trip_one(Arc::new(structs(None, Some("garbage"))));
}

/// Equal rows have equal bytes, whatever lies under the NULLs of a column or of a list's elements.
#[test]
fn values_under_nulls_are_not_stored() {
    let under = |bit: bool, byte: i8, string: &str| -> Vec<ArrayRef> {
        let nulls = || Some(NullBuffer::from(vec![true, false]));
        let columns: [ArrayRef; 3] = [
            Arc::new(BooleanArray::new(BooleanBuffer::from(vec![true, bit]), nulls())),
            Arc::new(Int8Array::new(vec![1, byte].into(), nulls())),
            byte_array::<Utf8Type>(vec!["x", string], nulls()),
        ];
        let lists = columns.clone().map(|values| -> ArrayRef {
            let element = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            Arc::new(ListArray::new(element, OffsetBuffer::from_lengths([0, 2]), values, None))
        });
        columns.into_iter().chain(lists).collect()
    };
    let (zeros, garbage) = (under(false, 0, ""), under(true, 9, "garbage"));
    let fields = zeros.iter().map(|column| Field::new("c", column.data_type().clone(), true)).collect::<Fields>();
    let (zeros, garbage) =
        [zeros, garbage].map(|columns| encode_rows(&layout_of(&fields), 2, &columns).unwrap()).into();
    assert!(zeros.iter().eq(garbage.iter()));
}

fn one_column(data_type: DataType) -> RowLayout {
    layout_of(&Fields::from(vec![Field::new("c", data_type, true)]))
}

fn decode_body(layout: &RowLayout, body: &[u8]) -> Result<Vec<ArrayRef>, CodecError> {
    decode_all(layout, &[&[&[0x10, 7, 0, 0, 0], body].concat()])
}

#[test]
fn damage_is_told_by_column() {
    let told = |data_type: DataType, body: &[u8]| decode_body(&one_column(data_type), body).unwrap_err().to_string();
    assert_eq!(told(DataType::Boolean, &[0, 2]), "column c: damaged value: a boolean other than 0 and 1");
    assert!(told(DataType::Utf8, &[0, 1, 0, 0, 0, 0xff]).starts_with("column c: damaged value: "));
    assert_eq!(told(DataType::Utf8, &[1, 1, 0, 0, 0, b'a']), "column c: damaged value: data under a NULL");
    assert_eq!(told(DataType::Utf8, &[2, 0, 0, 0, 0]), "damaged row: spare bits set among its NULLs");
    assert_eq!(told(DataType::Utf8, &[0, 2, 0, 0, 0, b'a']), "damaged row: another length than its last end");
    assert_eq!(told(DataType::Int64, &[0; 8]), "damaged row: shorter than its columns");
    assert_eq!(told(DataType::Int64, &[0; 10]), "damaged row: another length than its last end");
}

#[test]
fn damage_inside_lists_is_refused() {
    let list =
        |nulls: u8, elements: &[u8]| [&[0, 5 + elements.len() as u8, 0, 0, 0, 1, 0, 0, 0, nulls], elements].concat();
    let numbers = one_column(DataType::new_list(DataType::Int8, true));
    assert!(decode_body(&numbers, &list(0, &[7])).is_ok());
    assert!(decode_body(&numbers, &list(2, &[7])).is_err(), "spare bits");
    assert!(decode_body(&numbers, &list(0, &[7, 7])).is_err(), "more elements than counted");
    assert!(decode_body(&numbers, &list(0, &[])).is_err(), "fewer elements than counted");
    let strings = one_column(DataType::new_list(DataType::Utf8, true));
    assert!(decode_body(&strings, &list(0, &[1, 0, 0, 0, b'x'])).is_ok());
    assert!(decode_body(&strings, &list(0, &[1, 0, 0, 0, b'x', b'y'])).is_err(), "bytes behind the last end");
    assert!(decode_body(&strings, &list(1, &[1, 0, 0, 0, b'x'])).is_err(), "data under a NULL");
    let bools = one_column(DataType::new_list(DataType::Boolean, true));
    assert!(decode_body(&bools, &list(0, &[2])).is_err(), "neither 0 nor 1");
}

/// A character cut in two by the border between rows is valid only when the rows are taken together.
#[test]
fn a_split_character_is_refused() {
    let layout = one_column(DataType::Utf8);
    let half = |byte| vec![0x10, 7, 0, 0, 0, 0, 1, 0, 0, 0, byte];
    assert!(decode_all(&layout, &[&half(0xc3), &half(0xa9)]).is_err());
}

#[test]
fn a_count_is_checked_before_anything_is_allocated() {
    let counted = |rest: &[u8]| [&[0][..], &(4 + rest.len() as u32).to_le_bytes(), &[0xff; 4], rest].concat();
    let empty = DataType::Struct(Fields::empty());
    for element in [DataType::Null, DataType::Int64, DataType::Utf8, DataType::FixedSizeBinary(0), empty] {
        let layout = one_column(DataType::new_list(element, true));
        assert!(decode_body(&layout, &counted(&[])).is_err());
        assert!(decode_body(&layout, &counted(&[0; 64])).is_err());
    }
}

#[test]
fn falling_ends_are_refused() {
    let fields = Fields::from(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Utf8, true)]);
    let layout = layout_of(&fields);
    let body = |first: u8| [0, first, 0, 0, 0, 1, 0, 0, 0, b'x'];
    assert!(decode_body(&layout, &body(1)).is_ok());
    assert!(decode_body(&layout, &body(2)).is_err());
    assert!(decode_body(&layout, &body(255)).is_err());
    let strings = one_column(DataType::new_list(DataType::Utf8, true));
    let list = |first: u8| [0, 14, 0, 0, 0, 2, 0, 0, 0, 0, first, 0, 0, 0, 1, 0, 0, 0, b'x'];
    assert!(decode_body(&strings, &list(1)).is_ok());
    assert!(decode_body(&strings, &list(2)).is_err());
}

// ---- random schemas and rows ----

/// A small generator seeded by proptest, which shrinks the schema and the row count around it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn nulls(&mut self, nullable: bool, len: usize) -> Option<NullBuffer> {
        let share = self.below(4);
        (nullable && share > 0).then(|| NullBuffer::from_iter((0..len).map(|_| self.below(4) >= share)))
    }

    /// Lengths are random also where a value is NULL, and the first offset need not be 0.
    fn offsets<O: OffsetSizeTrait>(&mut self, len: usize) -> OffsetBuffer<O> {
        let mut at = self.below(3);
        let mut offsets = vec![O::usize_as(at)];
        for _ in 0..len {
            at += self.below(4);
            offsets.push(O::usize_as(at));
        }
        OffsetBuffer::new(ScalarBuffer::from(offsets))
    }

    fn string(&mut self) -> String {
        (0..self.below(5)).map(|_| ['a', 'Z', '0', 'é', '水', '🏔'][self.below(6)]).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(9)).map(|_| self.next() as u8).collect()
    }

    /// An array that is a slice out of a longer one, with values under its NULLs.
    fn array(&mut self, field: &Field, len: usize) -> ArrayRef {
        let (before, after) = (self.below(10), self.below(3));
        self.whole_array(field, before + len + after).slice(before, len)
    }

    fn whole_array(&mut self, field: &Field, len: usize) -> ArrayRef {
        let nulls = self.nulls(field.is_nullable(), len);
        match field.data_type() {
            DataType::Null => Arc::new(NullArray::new(len)),
            DataType::Boolean => Arc::new(BooleanArray::new(self.bools(len), nulls)),
            DataType::Utf8 => byte_array::<Utf8Type>((0..len).map(|_| self.string()).collect(), nulls),
            DataType::LargeUtf8 => byte_array::<LargeUtf8Type>((0..len).map(|_| self.string()).collect(), nulls),
            DataType::Binary => byte_array::<BinaryType>((0..len).map(|_| self.bytes()).collect(), nulls),
            DataType::LargeBinary => byte_array::<LargeBinaryType>((0..len).map(|_| self.bytes()).collect(), nulls),
            DataType::FixedSizeBinary(width) => {
                let values = self.raw(len * *width as usize);
                Arc::new(FixedSizeBinaryArray::try_new_with_len(*width, values, nulls, len).unwrap())
            }
            DataType::List(element) => self.list::<i32>(element, len, nulls),
            DataType::LargeList(element) => self.list::<i64>(element, len, nulls),
            DataType::FixedSizeList(element, size) => {
                let values = self.array(element, len * *size as usize);
                let element = Arc::clone(element);
                Arc::new(FixedSizeListArray::try_new_with_length(element, *size, values, nulls, len).unwrap())
            }
            DataType::Struct(fields) => Arc::new(self.structs(fields, len, nulls)),
            DataType::Map(entries, ordered) => {
                let offsets = self.offsets::<i32>(len);
                let values = self.array(entries, offsets[len] as usize + 2).as_struct().clone();
                Arc::new(MapArray::new(Arc::clone(entries), offsets, values, nulls, *ordered))
            }
            primitive => {
                let values = self.raw(len * primitive.primitive_width().unwrap());
                let data = ArrayData::builder(primitive.clone()).len(len).add_buffer(values).nulls(nulls);
                make_array(data.align_buffers(true).build().unwrap())
            }
        }
    }

    fn bools(&mut self, len: usize) -> BooleanBuffer {
        BooleanBuffer::collect_bool(len, |_| self.next() & 1 == 1)
    }

    fn raw(&mut self, len: usize) -> Buffer {
        Buffer::from_vec((0..len).map(|_| self.next() as u8).collect::<Vec<_>>())
    }

    fn list<O: OffsetSizeTrait>(&mut self, element: &FieldRef, len: usize, nulls: Option<NullBuffer>) -> ArrayRef {
        let offsets = self.offsets::<O>(len);
        let values = self.array(element, offsets[len].as_usize() + 2);
        Arc::new(GenericListArray::new(Arc::clone(element), offsets, values, nulls))
    }

    fn structs(&mut self, fields: &Fields, len: usize, nulls: Option<NullBuffer>) -> StructArray {
        let children = fields.iter().map(|field| self.array(field, len)).collect();
        StructArray::try_new_with_length(fields.clone(), children, nulls, len).unwrap()
    }
}

fn byte_array<T: ByteArrayType>(values: Vec<impl AsRef<T::Native>>, nulls: Option<NullBuffer>) -> ArrayRef {
    let array = GenericByteArray::<T>::from_iter_values(values);
    let (offsets, data, _) = array.into_parts();
    Arc::new(GenericByteArray::<T>::new(offsets, data, nulls))
}

fn scalar_types() -> Vec<DataType> {
    use arrow::datatypes::IntervalUnit::{DayTime, MonthDayNano, YearMonth};
    use arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let mut types = vec![
        DataType::Null,
        DataType::Boolean,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal32(9, 2),
        DataType::Decimal64(18, -2),
        DataType::Decimal128(38, 10),
        DataType::Decimal256(76, 0),
        DataType::Date32,
        DataType::Date64,
        DataType::Time32(Second),
        DataType::Time32(Millisecond),
        DataType::Time64(Microsecond),
        DataType::Time64(Nanosecond),
        DataType::Timestamp(Nanosecond, Some("UTC".into())),
        DataType::Timestamp(Millisecond, Some("+02:00".into())),
        DataType::Interval(YearMonth),
        DataType::Interval(DayTime),
        DataType::Interval(MonthDayNano),
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::FixedSizeBinary(0),
        DataType::FixedSizeBinary(3),
        DataType::FixedSizeBinary(16),
    ];
    types.extend(INTEGERS);
    for unit in [Second, Millisecond, Microsecond, Nanosecond] {
        types.extend([DataType::Timestamp(unit, None), DataType::Duration(unit)]);
    }
    types
}

const INTEGERS: [DataType; 8] = [
    DataType::Int8,
    DataType::Int16,
    DataType::Int32,
    DataType::Int64,
    DataType::UInt8,
    DataType::UInt16,
    DataType::UInt32,
    DataType::UInt64,
];

/// A column whose type nests up to four levels. A Null column is always nullable: it can hold nothing else.
fn any_field() -> impl Strategy<Value = Field> {
    let scalar = (proptest::sample::select(scalar_types()), any::<bool>())
        .prop_map(|(data_type, nullable)| Field::new("s", data_type.clone(), nullable || data_type.is_null()));
    scalar.prop_recursive(4, 16, 4, |inner| {
        let nested = prop_oneof![
            inner.clone().prop_map(|element| DataType::List(Arc::new(element))),
            inner.clone().prop_map(|element| DataType::LargeList(Arc::new(element))),
            (inner.clone(), 0..4).prop_map(|(element, size)| DataType::FixedSizeList(Arc::new(element), size)),
            vec(inner.clone(), 0..4).prop_map(|fields| DataType::Struct(fields.into())),
            (inner.clone(), inner, any::<bool>()).prop_map(|(key, value, ordered)| map_type(key, value, ordered)),
        ];
        (nested, any::<bool>()).prop_map(|(data_type, nullable)| Field::new("n", data_type, nullable))
    })
}

fn map_type(key: Field, value: Field, ordered: bool) -> DataType {
    let key =
        if key.data_type().is_null() { Field::new("key", DataType::Utf8, false) } else { key.with_nullable(false) };
    let entries = DataType::Struct(vec![key, value].into());
    DataType::Map(Arc::new(Field::new("entries", entries, false)), ordered)
}

fn any_rows() -> impl Strategy<Value = (Fields, Vec<ArrayRef>)> {
    (vec(any_field(), 1..12), 0..20usize, any::<u64>()).prop_map(|(fields, len, seed)| {
        let mut random = Random(seed);
        let columns = fields.iter().map(|field| random.array(field, len)).collect();
        (Fields::from(fields), columns)
    })
}

#[test]
fn every_scalar_type_comes_back() {
    for (seed, data_type) in scalar_types().into_iter().enumerate() {
        let field = Field::new("c", data_type, true);
        round_trip_one(Random(seed as u64).array(&field, 100));
    }
}

proptest! {
    #[test]
    fn any_rows_come_back((fields, columns) in any_rows()) {
        assert_round_trip(&fields, &columns);
    }

    /// Damage may go unnoticed where any bytes are a value, but it never panics and never gives an invalid array.
    #[test]
    fn damaged_rows_never_panic((fields, columns) in any_rows(), seed in any::<u64>()) {
        let layout = layout_of(&fields);
        let rows = encode_rows(&layout, columns[0].len(), &columns).unwrap();
        let mut random = Random(seed);
        for row in rows.iter().flat_map(|row| [row; 8]) {
            let mut damaged = row.to_vec();
            for _ in 0..=random.below(3) {
                damage(&mut damaged, &mut random);
            }
            for array in decode_all(&layout, &[&damaged, row]).into_iter().flatten() {
                array.to_data().validate_full().unwrap();
            }
        }
    }

    #[test]
    fn any_bytes_never_panic(fields in vec(any_field(), 1..4), body in vec(any::<u8>(), 0..100)) {
        let _ = decode_body(&layout_of(&fields.into()), &body);
    }
}

/// One edit of the bytes behind the head; small values are likely, as counts and ends that almost fit are.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = HEAD_LEN + random.below(bytes.len() - HEAD_LEN + 1);
    let byte = if random.below(2) == 0 { random.below(6) as u8 } else { random.next() as u8 };
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, byte),
        _ if at == bytes.len() => {}
        2 => drop(bytes.remove(at)),
        3 => bytes[at] ^= 1 << random.below(8),
        4 => bytes[at] = bytes[at].wrapping_add(1),
        _ => bytes[at] = byte,
    }
}
