//! GetXdbcTypeInfo: the SQL types, for ODBC-minded clients.

use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use seracdb_engine::{EngineError, ErrorKind};
use tonic::Status;

use super::status;

/// The types, or only those of one XDBC type number.
pub(super) fn batch(data_type: Option<i32>) -> Result<RecordBatch, Status> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    types().into_iter().for_each(|info| builder.append(info));
    let batch = builder.build().and_then(|data| data.record_batch(data_type));
    batch.map_err(|error| {
        status::from_engine(EngineError::caused(ErrorKind::Internal, "the type information cannot be built", error))
    })
}

fn types() -> Vec<XdbcTypeInfo> {
    vec![
        plain("BOOLEAN", XdbcDataType::XdbcBit, 1),
        number("TINYINT", XdbcDataType::XdbcTinyint, 3),
        number("SMALLINT", XdbcDataType::XdbcSmallint, 5),
        number("INTEGER", XdbcDataType::XdbcInteger, 10),
        number("BIGINT", XdbcDataType::XdbcBigint, 19),
        XdbcTypeInfo { num_prec_radix: Some(2), ..number("REAL", XdbcDataType::XdbcReal, 24) },
        XdbcTypeInfo { num_prec_radix: Some(2), ..number("DOUBLE", XdbcDataType::XdbcDouble, 53) },
        XdbcTypeInfo {
            create_params: Some(vec!["precision".into(), "scale".into()]),
            fixed_prec_scale: true,
            minimum_scale: Some(0),
            maximum_scale: Some(38),
            ..number("DECIMAL", XdbcDataType::XdbcDecimal, 38)
        },
        XdbcTypeInfo { case_sensitive: true, ..quoted("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX, "'") },
        quoted("VARBINARY", XdbcDataType::XdbcVarbinary, i32::MAX, "X'"),
        moment("DATE", XdbcDataType::XdbcDate, 10, None),
        moment("TIME", XdbcDataType::XdbcTime, 18, Some(XdbcDatetimeSubcode::XdbcSubcodeTime)),
        moment("TIMESTAMP", XdbcDataType::XdbcTimestamp, 29, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
    ]
}

fn plain(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.into(),
        local_type_name: Some(name.into()),
        data_type,
        sql_data_type: data_type,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        ..Default::default()
    }
}

fn number(name: &str, data_type: XdbcDataType, digits: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: Some(10),
        ..plain(name, data_type, digits)
    }
}

fn quoted(name: &str, data_type: XdbcDataType, size: i32, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(prefix.into()),
        literal_suffix: Some("'".into()),
        ..plain(name, data_type, size)
    }
}

fn moment(name: &str, data_type: XdbcDataType, size: i32, subcode: Option<XdbcDatetimeSubcode>) -> XdbcTypeInfo {
    XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: subcode,
        ..quoted(name, data_type, size, &format!("{name} '"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_types_or_one() {
        assert_eq!(batch(None).unwrap().num_rows(), types().len());
        assert_eq!(batch(Some(XdbcDataType::XdbcBigint as i32)).unwrap().num_rows(), 1);
        assert_eq!(batch(Some(12345)).unwrap().num_rows(), 0);
    }
}
