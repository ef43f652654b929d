//! What can go wrong between Arrow arrays and stored rows.

use arrow::datatypes::DataType;

/// Why rows could not be encoded or decoded. Columns inside others are named by path: `address.city`, `tags[]`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodecError {
    /// The layout cannot be made: rows with such a column are not stored.
    #[error("column {column}: unsupported type {data_type}: {reason}")]
    UnsupportedType {
        /// The column, or the part of one, that has the type.
        column: String,
        /// The type itself.
        data_type: Box<DataType>,
        /// What about it is not supported.
        reason: &'static str,
    },
    /// The arrays to encode are not one per column.
    #[error("{found} arrays for a row of {expected} columns")]
    ColumnCount {
        /// The number of columns in the layout.
        expected: usize,
        /// The number of arrays given.
        found: usize,
    },
    /// An array to encode is not of its column's type.
    #[error("column {column}: an array of {found} where the table has {expected}")]
    ColumnType {
        /// The column.
        column: String,
        /// The type in the layout.
        expected: Box<DataType>,
        /// The array's type.
        found: Box<DataType>,
    },
    /// An array to encode has another number of rows than was announced.
    #[error("column {column}: an array of {found} values for {expected} rows")]
    ColumnLength {
        /// The column.
        column: String,
        /// The number of rows announced.
        expected: usize,
        /// The array's length.
        found: usize,
    },
    /// A NULL to encode in a column that is declared without. Stored, it could never be read into a batch again.
    #[error("column {column}: NULL in a column declared NOT NULL")]
    UnexpectedNull {
        /// The column, or the part of one.
        column: String,
    },
    /// More bytes or elements than a row, or one array of the result, can count.
    #[error("column {column}: {reason}")]
    TooLarge {
        /// The column, or the part of one, where the limit was passed.
        column: String,
        /// Which limit.
        reason: &'static str,
    },
    /// A projection names a column that the layout does not have.
    #[error("column number {index} of a row of {columns} columns")]
    Projection {
        /// The number asked for.
        index: usize,
        /// How many columns there are.
        columns: usize,
    },
    /// A stored row is of another schema version than the layout.
    #[error("a row of schema version {found} read with the layout of version {expected}")]
    SchemaVersion {
        /// The layout's version.
        expected: u32,
        /// The row's version.
        found: u32,
    },
    /// A stored row was written by a codec that this release does not have.
    #[error("row format {found} is unknown: it was written by a newer release, or the value is damaged")]
    CodecVersion {
        /// The version in the row's head.
        found: u8,
    },
    /// A stored row is damaged as a whole.
    #[error("damaged row: {reason}")]
    CorruptRow {
        /// What is wrong.
        reason: &'static str,
    },
    /// One column of a stored row is damaged.
    #[error("column {column}: damaged value: {reason}")]
    CorruptValue {
        /// The column, or the part of one.
        column: String,
        /// What is wrong.
        reason: String,
    },
}
