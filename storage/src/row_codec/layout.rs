//! Where each column lies in a row: computed once per schema version of a table.

use super::CodecError;
use arrow::datatypes::{DataType, Field, Fields};

/// Encoding and decoding recurse once per level of nesting, so the level must not be the client's to choose.
const DEPTH_MAX: usize = 64;

/// What one NULL may occupy in a decoded array. A fixed-size list has its elements also where it is NULL, so without a
/// limit five bytes of tombstone could ask for gigabytes.
const NULL_BYTES_MAX: usize = 1 << 20;

/// The places of a table's user columns in the rows of one schema version.
#[derive(Debug)]
pub struct RowLayout {
    pub(super) schema_version: u32,
    pub(super) body: Body,
}

impl RowLayout {
    /// The layout of rows with these user columns; the system columns are not among them.
    pub fn new(schema_version: u32, fields: &Fields) -> Result<Self, CodecError> {
        Ok(Self { schema_version, body: Body::new("", fields, 0)? })
    }

    /// The schema version of the rows this layout writes and reads.
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// The number of user columns.
    pub fn column_count(&self) -> usize {
        self.body.columns.len()
    }
}

/// The columns of a row, or the fields of a struct: both are stored alike.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) columns: Vec<Column>,
    /// Parallel to `columns`.
    pub(super) places: Vec<Place>,
    /// Where the variable data begins, and so the length of everything that has a constant offset.
    pub(super) data_at: usize,
    /// Where the last end stands, if there is a variable column.
    pub(super) last_end_at: Option<usize>,
    /// A body with every column NULL, read in the place of tombstones and NULL structs.
    pub(super) all_null: Vec<u8>,
}

/// A column's place, as an offset into its body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Its value is here.
    Fixed { at: usize },
    /// The end of its bytes is here; they begin at the end `begin_at` tells, or at 0 for the first.
    Variable { end_at: usize, begin_at: Option<usize> },
}

/// A column, a field of a struct or the elements of a list.
#[derive(Debug)]
pub(super) struct Column {
    /// Its name for messages, with those of the columns around it.
    pub(super) path: String,
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
    pub(super) form: Form,
}

/// How values of a type are stored.
#[derive(Debug)]
pub(super) enum Form {
    Null,
    Boolean,
    Fixed(usize),
    Bytes,
    /// List, LargeList, and Map as a list of its entries.
    List(Box<Column>),
    FixedSizeList(Box<Column>, usize),
    Struct(Body),
}

impl Form {
    pub(super) fn fixed_width(&self) -> Option<usize> {
        match self {
            Self::Null => Some(0),
            Self::Boolean => Some(1),
            Self::Fixed(width) => Some(*width),
            Self::Bytes | Self::List(_) | Self::FixedSizeList(..) | Self::Struct(_) => None,
        }
    }

    /// A bound on what a NULL of this form occupies in an Arrow array.
    fn null_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Boolean => 1,
            Self::Fixed(width) => 1usize.saturating_add(*width),
            Self::Bytes | Self::List(_) => 9,
            Self::FixedSizeList(element, len) => element.form.null_bytes().saturating_mul(*len).saturating_add(1),
            Self::Struct(body) => body.columns.iter().fold(1, |sum: usize, c| sum.saturating_add(c.form.null_bytes())),
        }
    }
}

impl Body {
    fn new(parent: &str, fields: &Fields, depth: usize) -> Result<Self, CodecError> {
        let columns = fields
            .iter()
            .map(|field| {
                let dot = if parent.is_empty() { "" } else { "." };
                Column::new(format!("{parent}{dot}{}", field.name()), field, depth)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let nulls_len = columns.len().div_ceil(8);
        let fixed_len: usize = columns.iter().filter_map(|c| c.form.fixed_width()).sum();
        let (mut fixed_at, mut end_at) = (nulls_len, nulls_len + fixed_len);
        let mut last_end_at = None;
        let mut places = Vec::with_capacity(columns.len());
        for column in &columns {
            if let Some(width) = column.form.fixed_width() {
                places.push(Place::Fixed { at: fixed_at });
                fixed_at += width;
            } else {
                places.push(Place::Variable { end_at, begin_at: last_end_at });
                last_end_at = Some(end_at);
                end_at += 4;
            }
        }
        let mut all_null = vec![0; end_at];
        (0..columns.len()).for_each(|i| set_null(&mut all_null, i));
        Ok(Self { columns, places, data_at: end_at, last_end_at, all_null })
    }

    /// Refuses bytes that cannot be a body of these columns, in constant time. Afterwards constant offsets are inside.
    pub(super) fn check(&self, body: &[u8]) -> Result<(), &'static str> {
        if body.len() < self.data_at {
            return Err("shorter than its columns");
        }
        if has_spare_bits(body, self.columns.len()) {
            return Err("spare bits set among its NULLs");
        }
        let data_len = self.last_end_at.map_or(0, |at| read_end(body, at));
        if body.len() - self.data_at != data_len {
            return Err("another length than its last end");
        }
        Ok(())
    }
}

impl Column {
    fn new(path: String, field: &Field, depth: usize) -> Result<Self, CodecError> {
        let data_type = field.data_type().clone();
        let unsupported = |reason| {
            Err(CodecError::UnsupportedType { column: path.clone(), data_type: Box::new(data_type.clone()), reason })
        };
        if depth > DEPTH_MAX {
            return unsupported("nested more than 64 levels deep");
        }
        let form = match &data_type {
            DataType::Null => Form::Null,
            DataType::Boolean => Form::Boolean,
            DataType::FixedSizeBinary(width) => match usize::try_from(*width) {
                Ok(width) => Form::Fixed(width),
                Err(_) => return unsupported("negative width"),
            },
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => Form::Bytes,
            DataType::List(element) | DataType::LargeList(element) => Form::List(Self::element(&path, element, depth)?),
            DataType::FixedSizeList(element, len) => match usize::try_from(*len) {
                Ok(len) => Form::FixedSizeList(Self::element(&path, element, depth)?, len),
                Err(_) => return unsupported("negative length"),
            },
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 && !fields[0].is_nullable() && !entries.is_nullable() => {
                    Form::List(Self::element(&path, entries, depth)?)
                }
                _ => return unsupported("its entries must be structs of a key, never NULL, and a value"),
            },
            DataType::Struct(fields) => Form::Struct(Body::new(&path, fields, depth + 1)?),
            scalar => match scalar.primitive_width() {
                Some(width) => Form::Fixed(width),
                None => return unsupported("not a stored form, cast it first"),
            },
        };
        if form.null_bytes() > NULL_BYTES_MAX {
            return unsupported("a value of fixed size may take 1 MiB");
        }
        Ok(Self { path, data_type, nullable: field.is_nullable(), form })
    }

    fn element(path: &str, field: &Field, depth: usize) -> Result<Box<Self>, CodecError> {
        Self::new(format!("{path}[]"), field, depth + 1).map(Box::new)
    }

    pub(super) fn corrupt(&self, reason: impl ToString) -> CodecError {
        CodecError::CorruptValue { column: self.path.clone(), reason: reason.to_string() }
    }

    pub(super) fn too_large(&self, reason: &'static str) -> CodecError {
        CodecError::TooLarge { column: self.path.clone(), reason }
    }
}

pub(super) fn set_null(nulls: &mut [u8], i: usize) {
    nulls[i / 8] |= 1 << (i % 8);
}

pub(super) fn is_null(nulls: &[u8], i: usize) -> bool {
    nulls[i / 8] & 1 << (i % 8) != 0
}

/// Whether the last byte of a null bitmap for `count` values has bits set that belong to none.
pub(super) fn has_spare_bits(nulls: &[u8], count: usize) -> bool {
    !count.is_multiple_of(8) && nulls[count / 8] >> (count % 8) != 0
}

/// The end stored at an offset that is known to be inside.
pub(super) fn read_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].first_chunk().map_or(0, |end| u32::from_le_bytes(*end)) as usize
}
