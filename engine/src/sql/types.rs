//! Types of columns: what SQL calls them, and what may be stored.
//!
//! | SQL | Arrow |
//! |---|---|
//! | BOOLEAN | Boolean |
//! | TINYINT, SMALLINT, INT, BIGINT (and INT2, INT4, INT8), each also UNSIGNED | Int8 … Int64, UInt8 … UInt64 |
//! | REAL, FLOAT(1…24); DOUBLE PRECISION, FLOAT | Float32; Float64 |
//! | NUMERIC(p, s); without p: NUMERIC(38, 10) | Decimal128, above 38 digits Decimal256 |
//! | TEXT, VARCHAR(n), CHAR(n), UUID (n is not enforced; a UUID is its text, so that it compares with literals) | Utf8 |
//! | JSON, JSONB (their text as it was written; whether it is JSON is not looked at) | Utf8 |
//! | BYTEA, BINARY, VARBINARY, BLOB | Binary |
//! | DATE | Date32 |
//! | TIME(p) | Time64(µs), above 6 digits (ns) |
//! | TIMESTAMP(p); without p: 6 | Timestamp(s, ms, µs or ns: the coarsest that holds p digits) |
//! | TIMESTAMP WITH TIME ZONE, TIMESTAMPTZ | the same, in UTC |
//! | type[] (a size is not enforced), `ARRAY<type>` | List |
//! | STRUCT<name type, …> | Struct |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType as SqlType, ExactNumberInfo, StructField, TimezoneInfo,
};
use seracdb_storage::system_columns;

use super::names::fold;
use super::validate::unsupported;
use crate::error::{EngineError, ErrorKind, Result};

/// Levels a nested type may have: what the row codec stores.
const DEPTH_MAX: usize = 64;

/// The Arrow type of a SQL type, one that can be stored.
pub(crate) fn column_type(sql: &SqlType) -> Result<DataType> {
    storable(&arrow_type(sql, 0)?)
}

fn arrow_type(sql: &SqlType, depth: usize) -> Result<DataType> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    Ok(match sql {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(_) => DataType::Int8,
        SqlType::SmallInt(_) | SqlType::Int2(_) | SqlType::Int16 => DataType::Int16,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) | SqlType::Int32 => DataType::Int32,
        SqlType::BigInt(_) | SqlType::Int8(_) | SqlType::Int64 => DataType::Int64,
        SqlType::TinyIntUnsigned(_) | SqlType::UTinyInt | SqlType::UInt8 => DataType::UInt8,
        SqlType::SmallIntUnsigned(_) | SqlType::Int2Unsigned(_) | SqlType::USmallInt | SqlType::UInt16 => {
            DataType::UInt16
        }
        SqlType::IntUnsigned(_) | SqlType::IntegerUnsigned(_) | SqlType::Int4Unsigned(_) | SqlType::UInt32 => {
            DataType::UInt32
        }
        SqlType::BigIntUnsigned(_) | SqlType::Int8Unsigned(_) | SqlType::UBigInt | SqlType::UInt64 => DataType::UInt64,
        SqlType::Real | SqlType::Float4 | SqlType::Float32 => DataType::Float32,
        SqlType::Float(ExactNumberInfo::Precision(1..=24)) => DataType::Float32,
        SqlType::Float(ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53))
        | SqlType::Double(ExactNumberInfo::None)
        | SqlType::DoublePrecision
        | SqlType::Float8
        | SqlType::Float64 => DataType::Float64,
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => decimal(info)?,
        SqlType::Text | SqlType::Uuid | SqlType::String(_) | SqlType::JSON | SqlType::JSONB => DataType::Utf8,
        SqlType::Varchar(_) | SqlType::CharacterVarying(_) | SqlType::CharVarying(_) | SqlType::Nvarchar(_) => {
            DataType::Utf8
        }
        SqlType::Char(_) | SqlType::Character(_) => DataType::Utf8,
        SqlType::Bytea | SqlType::Binary(_) | SqlType::Varbinary(_) | SqlType::Blob(_) | SqlType::Bytes(_) => {
            DataType::Binary
        }
        SqlType::Date | SqlType::Date32 => DataType::Date32,
        SqlType::Time(digits, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => match digits {
            None | Some(0..=6) => DataType::Time64(TimeUnit::Microsecond),
            Some(7..=9) => DataType::Time64(TimeUnit::Nanosecond),
            Some(_) => return Err(too_fine(sql)),
        },
        SqlType::Timestamp(digits, zone) => {
            let zone = matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone).then(|| "UTC".into());
            DataType::Timestamp(time_unit(*digits, sql)?, zone)
        }
        SqlType::TimestampNtz(digits) | SqlType::Datetime(digits) => {
            DataType::Timestamp(time_unit(*digits, sql)?, None)
        }
        SqlType::Interval { .. } => DataType::Interval(IntervalUnit::MonthDayNano),
        SqlType::Array(ArrayElemTypeDef::AngleBracket(element))
        | SqlType::Array(ArrayElemTypeDef::SquareBracket(element, _))
        | SqlType::Array(ArrayElemTypeDef::Parenthesis(element)) => {
            DataType::List(Arc::new(Field::new_list_field(arrow_type(element, depth + 1)?, true)))
        }
        SqlType::Struct(fields, _) => struct_type(fields, depth + 1)?,
        SqlType::Custom(name, _) if is_serial(&name.to_string()) => {
            return Err(no_sequences(&format!("type {name}")));
        }
        _ => return Err(unsupported(&format!("type {sql}"))),
    })
}

/// Makes the type of a cast one that DataFusion's planner reads as what a column of the type is. JSON is its text. What the planner
/// reads so by itself stays as it is, and so does what is no type of a column.
pub(crate) fn of_cast(sql: &mut SqlType) {
    let meant = match sql {
        SqlType::Array(
            ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::Parenthesis(element),
        ) => return of_cast(element),
        SqlType::Struct(fields, _) => return fields.iter_mut().for_each(|field| of_cast(&mut field.field_type)),
        SqlType::Int16 => SqlType::SmallInt(None),
        SqlType::Int32 => SqlType::Int(None),
        SqlType::Int64 => SqlType::BigInt(None),
        SqlType::UTinyInt | SqlType::UInt8 => SqlType::TinyIntUnsigned(None),
        SqlType::USmallInt | SqlType::UInt16 => SqlType::SmallIntUnsigned(None),
        SqlType::UInt32 => SqlType::IntUnsigned(None),
        SqlType::UBigInt | SqlType::UInt64 => SqlType::BigIntUnsigned(None),
        SqlType::Float32 => SqlType::Real,
        SqlType::Float(ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53)) | SqlType::Float64 => {
            SqlType::DoublePrecision
        }
        SqlType::Dec(info) => SqlType::Decimal(*info),
        SqlType::Uuid | SqlType::JSON | SqlType::JSONB | SqlType::Nvarchar(_) => SqlType::Text,
        SqlType::CharacterVarying(_) | SqlType::CharVarying(_) | SqlType::Character(_) => SqlType::Text,
        SqlType::Binary(_) | SqlType::Varbinary(_) | SqlType::Blob(_) | SqlType::Bytes(_) => SqlType::Bytea,
        SqlType::Date32 => SqlType::Date,
        SqlType::TimestampNtz(digits) | SqlType::Datetime(digits) => SqlType::Timestamp(*digits, TimezoneInfo::None),
        _ => return,
    };
    *sql = meant;
}

/// The refusal of what numbers rows in other databases.
pub(super) fn no_sequences(what: &str) -> EngineError {
    let EngineError { kind, message, source } = unsupported(what);
    let message = format!("{message}: write BIGINT DEFAULT snowflake_id(), which gives each row a number of its own");
    EngineError { kind, message, source }
}

fn is_serial(name: &str) -> bool {
    matches!(
        name.to_ascii_lowercase().as_str(),
        "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" | "serial2"
    )
}

fn decimal(info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(p @ 1..=38), Ok(s @ 0..)) if s as u8 <= p => Ok(DataType::Decimal128(p, s)),
        (Ok(p @ 39..=76), Ok(s @ 0..)) if s as u8 <= p => Ok(DataType::Decimal256(p, s)),
        _ => Err(EngineError::invalid(format!(
            "NUMERIC({precision}, {scale}): the precision goes from 1 to 76, the scale from 0 to the precision"
        ))),
    }
}

fn time_unit(digits: Option<u64>, sql: &SqlType) -> Result<TimeUnit> {
    Ok(match digits {
        Some(0) => TimeUnit::Second,
        Some(1..=3) => TimeUnit::Millisecond,
        None | Some(4..=6) => TimeUnit::Microsecond,
        Some(7..=9) => TimeUnit::Nanosecond,
        Some(_) => return Err(too_fine(sql)),
    })
}

fn too_deep() -> EngineError {
    EngineError::invalid(format!("a type nested more than {DEPTH_MAX} levels deep cannot be stored"))
}

fn too_fine(sql: &SqlType) -> EngineError {
    EngineError::invalid(format!("{sql}: the precision goes from 0 to 9"))
}

fn struct_type(fields: &[StructField], depth: usize) -> Result<DataType> {
    let fields = fields
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let name = field.field_name.as_ref().map_or_else(|| format!("c{i}"), fold);
            Ok(Field::new(name, arrow_type(&field.field_type, depth)?, true))
        })
        .collect::<Result<Fields>>()?;
    Ok(DataType::Struct(fields))
}

/// The type a column of this type is stored as: views, dictionaries, run ends and the narrow decimals and floats that
/// clients cannot read become the plain type of the same values; NULLs of no type become text. A type that cannot be
/// stored is an error. Values are cast with Arrow's cast; none is lost by it.
pub(crate) fn storable(data_type: &DataType) -> Result<DataType> {
    storable_at(data_type, 0)
}

fn storable_at(data_type: &DataType, depth: usize) -> Result<DataType> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    let element = |field: &FieldRef| -> Result<FieldRef> {
        let inner = storable_at(field.data_type(), depth + 1)?;
        Ok(Arc::new(Field::new_list_field(inner, field.is_nullable())))
    };
    Ok(match data_type {
        DataType::Null | DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *precision == 0 || *scale < 0 || *scale as u8 > *precision =>
        {
            return Err(EngineError::invalid(format!(
                "DECIMAL({precision}, {scale}) is no type: 0 <= scale <= precision"
            )));
        }
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Dictionary(_, value) => storable_at(value, depth)?,
        DataType::RunEndEncoded(_, values) => storable_at(values.data_type(), depth)?,
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
        DataType::List(field) | DataType::ListView(field) => DataType::List(element(field)?),
        DataType::LargeList(field) | DataType::LargeListView(field) => DataType::LargeList(element(field)?),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(element(field)?, *size),
        DataType::Struct(fields) => DataType::Struct(storable_fields(fields, depth)?),
        DataType::Map(entries, sorted) => {
            let DataType::Struct(fields) = entries.data_type() else { return Err(not_storable(data_type)) };
            let entry = DataType::Struct(storable_fields(fields, depth + 1)?);
            DataType::Map(Arc::new(Field::new(entries.name(), entry, entries.is_nullable())), *sorted)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) | DataType::Union(..) => return Err(not_storable(data_type)),
        plain => plain.clone(),
    })
}

fn storable_fields(fields: &Fields, depth: usize) -> Result<Fields> {
    if fields.is_empty() {
        return Err(EngineError::invalid("a STRUCT without fields cannot be stored"));
    }
    let mut names = std::collections::HashSet::new();
    fields
        .iter()
        .map(|field| {
            if !names.insert(field.name()) {
                return Err(EngineError::invalid(format!("a STRUCT has two fields named '{}'", field.name())));
            }
            Ok(Field::new(field.name(), storable_at(field.data_type(), depth + 1)?, field.is_nullable()))
        })
        .collect()
}

fn not_storable(data_type: &DataType) -> EngineError {
    let what = match data_type {
        DataType::Interval(_) => {
            "a column of type INTERVAL (Parquet has none: store a number of seconds or days)".into()
        }
        DataType::Union(..) => "a column of a union type".into(),
        other => format!("a column of type {other}"),
    };
    EngineError::new(ErrorKind::Unimplemented, format!("{what} cannot be stored yet"))
}

/// Refuses to write a system column.
pub(crate) fn refuse_system_column(column: &str) -> Result<()> {
    if system_columns::is_system_column(column) {
        return Err(EngineError::invalid(format!(
            "SystemColumnViolation: column \"{column}\" is assigned by SeracDB: leave it out"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::dialect::SeracDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn of(sql: &str) -> Result<DataType> {
        let mut parser = Parser::new(&SeracDialect).try_with_sql(sql).unwrap();
        let parsed = parser.parse_data_type().unwrap_or_else(|e| panic!("{sql}: {e}"));
        column_type(&parsed)
    }

    #[test]
    fn names_of_types() {
        let list = |t| DataType::List(Arc::new(Field::new_list_field(t, true)));
        let stamp = |unit| DataType::Timestamp(unit, None);
        let zoned = |unit| DataType::Timestamp(unit, Some("UTC".into()));
        for (sql, expected) in [
            ("BOOLEAN", DataType::Boolean),
            ("bool", DataType::Boolean),
            ("TINYINT", DataType::Int8),
            ("SMALLINT", DataType::Int16),
            ("INT", DataType::Int32),
            ("INTEGER", DataType::Int32),
            ("INT8", DataType::Int64),
            ("BIGINT", DataType::Int64),
            ("TINYINT UNSIGNED", DataType::UInt8),
            ("SMALLINT UNSIGNED", DataType::UInt16),
            ("INT UNSIGNED", DataType::UInt32),
            ("BIGINT UNSIGNED", DataType::UInt64),
            ("REAL", DataType::Float32),
            ("FLOAT(10)", DataType::Float32),
            ("FLOAT", DataType::Float64),
            ("DOUBLE", DataType::Float64),
            ("DOUBLE PRECISION", DataType::Float64),
            ("NUMERIC", DataType::Decimal128(38, 10)),
            ("NUMERIC(10)", DataType::Decimal128(10, 0)),
            ("DECIMAL(10, 2)", DataType::Decimal128(10, 2)),
            ("NUMERIC(50, 20)", DataType::Decimal256(50, 20)),
            ("TEXT", DataType::Utf8),
            ("VARCHAR", DataType::Utf8),
            ("VARCHAR(10)", DataType::Utf8),
            ("CHARACTER VARYING(10)", DataType::Utf8),
            ("CHAR(3)", DataType::Utf8),
            ("STRING", DataType::Utf8),
            ("UUID", DataType::Utf8),
            ("JSON", DataType::Utf8),
            ("JSONB[]", list(DataType::Utf8)),
            ("BYTEA", DataType::Binary),
            ("BLOB", DataType::Binary),
            ("DATE", DataType::Date32),
            ("TIME", DataType::Time64(TimeUnit::Microsecond)),
            ("TIMESTAMP", stamp(TimeUnit::Microsecond)),
            ("TIMESTAMP(0)", stamp(TimeUnit::Second)),
            ("TIMESTAMP(3)", stamp(TimeUnit::Millisecond)),
            ("TIMESTAMP(9)", stamp(TimeUnit::Nanosecond)),
            ("TIMESTAMPTZ", zoned(TimeUnit::Microsecond)),
            ("TIMESTAMP(9) WITH TIME ZONE", zoned(TimeUnit::Nanosecond)),
            ("INT[]", list(DataType::Int32)),
            ("TEXT[3]", list(DataType::Utf8)),
            ("INT[][]", list(list(DataType::Int32))),
            ("ARRAY<BIGINT>", list(DataType::Int64)),
            (
                "STRUCT<a INT, \"B\" VARCHAR>",
                DataType::Struct(Fields::from(vec![
                    Field::new("a", DataType::Int32, true),
                    Field::new("B", DataType::Utf8, true),
                ])),
            ),
        ] {
            assert_eq!(of(sql).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn types_there_are_not() {
        for (sql, part) in [
            ("NUMERIC(0)", "the precision goes from 1 to 76"),
            ("NUMERIC(300, 2)", "the precision goes from 1 to 76"),
            ("NUMERIC(5, 6)", "the precision goes from 1 to 76"),
            ("TIMESTAMP(12)", "the precision goes from 0 to 9"),
            ("INTERVAL", "INTERVAL (Parquet has none"),
            ("BIGSERIAL", "BIGINT DEFAULT snowflake_id()"),
            ("geometry", "type geometry is not supported"),
            ("STRUCT<a INT, a INT>", "two fields named 'a'"),
            ("TIME WITH TIME ZONE", "not supported"),
        ] {
            let error = of(sql).unwrap_err();
            assert!(error.message.contains(part), "{sql}: {}", error.message);
        }
    }

    #[test]
    fn what_is_stored() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8View));
        let list = DataType::List(Arc::new(Field::new("element", dictionary.clone(), false)));
        for (given, expected) in [
            (DataType::Utf8View, DataType::Utf8),
            (DataType::LargeUtf8, DataType::LargeUtf8),
            (DataType::Null, DataType::Utf8),
            (DataType::Float16, DataType::Float32),
            (DataType::Decimal64(10, 2), DataType::Decimal128(10, 2)),
            (dictionary, DataType::Utf8),
            (list, DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, false)))),
            (
                DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())),
                DataType::Timestamp(TimeUnit::Second, Some("UTC".into())),
            ),
            (DataType::Duration(TimeUnit::Second), DataType::Duration(TimeUnit::Second)),
        ] {
            assert_eq!(storable(&given).unwrap(), expected, "{given}");
            assert!(arrow::compute::can_cast_types(&given, &expected), "{given}");
        }
        let deep = (0..100).fold(DataType::Int8, |inner, _| DataType::new_list(inner, true));
        for refused in [DataType::Interval(IntervalUnit::MonthDayNano), DataType::Struct(Fields::empty()), deep] {
            storable(&refused).unwrap_err();
        }
    }

    #[test]
    fn system_columns_are_ours() {
        for column in [system_columns::ID, system_columns::UPDATED, system_columns::DELETED] {
            let error = refuse_system_column(column).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument);
            assert!(error.message.starts_with(&format!("SystemColumnViolation: column \"{column}\"")));
        }
        refuse_system_column("id").unwrap();
    }
}
