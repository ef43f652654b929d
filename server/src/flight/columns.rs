//! What clients are told about a column beside its Arrow type: the `ARROW:FLIGHT:SQL:*` metadata of its field.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema};
use seracdb_engine::{Origin, Prepared};

use super::command::CATALOG;

pub(crate) const TYPE_NAME: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";
pub(crate) const PRECISION: &str = "ARROW:FLIGHT:SQL:PRECISION";
pub(crate) const SCALE: &str = "ARROW:FLIGHT:SQL:SCALE";
pub(crate) const CATALOG_NAME: &str = "ARROW:FLIGHT:SQL:CATALOG_NAME";
pub(crate) const SCHEMA_NAME: &str = "ARROW:FLIGHT:SQL:SCHEMA_NAME";
pub(crate) const TABLE_NAME: &str = "ARROW:FLIGHT:SQL:TABLE_NAME";
pub(crate) const IS_AUTO_INCREMENT: &str = "ARROW:FLIGHT:SQL:IS_AUTO_INCREMENT";
pub(crate) const IS_READ_ONLY: &str = "ARROW:FLIGHT:SQL:IS_READ_ONLY";
/// Of a table: a name of its rows, which another table of its name does not have.
pub(crate) const ROWS: &str = "seracdb:rows";
/// Of a table's column: rows may come without it, also if it cannot be NULL.
pub(crate) const HAS_DEFAULT: &str = "seracdb:has_default";
/// Of tables only: in a result JDBC takes it for the column's label, and finds no column by its name.
pub(crate) const REMARKS: &str = "ARROW:FLIGHT:SQL:REMARKS";

/// The schema of a statement's result as clients see it, everywhere: prepare, FlightInfo, GetSchema and DoGet. A column
/// that is one of a table says of which.
pub(crate) fn result_schema(prepared: &Prepared) -> Schema {
    described_with(prepared.schema(), |place| prepared.origin(place))
}

/// The same of columns whose tables are known. Metadata that a field has already stays.
pub(crate) fn described_with<'a>(schema: &Schema, origin: impl Fn(usize) -> Option<&'a Origin>) -> Schema {
    let columns = schema.fields().iter().enumerate().map(|(place, field)| match origin(place) {
        Some(Origin { namespace, table }) => {
            describe(field, &[(CATALOG_NAME, CATALOG), (SCHEMA_NAME, namespace), (TABLE_NAME, table)])
        }
        None => describe(field, &[]),
    });
    Schema::new_with_metadata(columns.collect::<Vec<_>>(), schema.metadata().clone())
}

/// One column with its SQL type, and `more` of its metadata.
pub(crate) fn describe(field: &Field, more: &[(&str, &str)]) -> Field {
    let mut metadata: HashMap<String, String> =
        more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    metadata.insert(TYPE_NAME.to_owned(), type_name(field.data_type()).to_owned());
    if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) = field.data_type() {
        metadata.insert(PRECISION.to_owned(), precision.to_string());
        metadata.insert(SCALE.to_owned(), scale.to_string());
    }
    metadata.extend(field.metadata().clone());
    field.clone().with_metadata(metadata)
}

fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "DECIMAL"
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "VARBINARY",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(IntervalUnit::YearMonth) => "INTERVAL YEAR TO MONTH",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => "ARRAY",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(..) => "MAP",
        DataType::Union(..) => "UNION",
        DataType::Dictionary(_, values) => type_name(values),
        DataType::RunEndEncoded(_, values) => type_name(values.data_type()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_get_their_sql_type_and_keep_what_they_have() {
        let own = HashMap::from([(TABLE_NAME.to_owned(), "t".to_owned())]);
        let schema = Schema::new(vec![
            Field::new("d", DataType::Decimal128(10, 2), true).with_metadata(own),
            Field::new("s", DataType::Utf8, false),
        ]);
        let origin = Origin { namespace: "n".into(), table: "u".into() };
        let described = described_with(&schema, |_| Some(&origin));
        let metadata = described.field(0).metadata();
        assert_eq!((metadata[TYPE_NAME].as_str(), metadata[PRECISION].as_str()), ("DECIMAL", "10"));
        assert_eq!(metadata[TABLE_NAME], "t");
        assert_eq!(described.field(1).metadata()[TYPE_NAME], "VARCHAR");
        assert!(!described.field(1).is_nullable());
        let place = [CATALOG_NAME, SCHEMA_NAME, TABLE_NAME].map(|key| described.field(1).metadata()[key].as_str());
        assert_eq!(place, [CATALOG, "n", "u"]);
        assert!(!described_with(&schema, |_| None).field(1).metadata().contains_key(TABLE_NAME));
    }
}
