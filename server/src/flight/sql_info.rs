//! GetSqlInfo: what the server can do, every value in the child of the union that the protocol names for its code.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity, SqlSupportedTransaction,
    SqlSupportsConvert, SqlTransactionIsolationLevel,
};
use seracdb_engine::{EngineError, ErrorKind};
use tonic::Status;

use super::{is_java, status};

const KEYWORDS: &[&str] =
    &["ANTI", "CHANGES", "EXPLAIN", "ILIKE", "LIMIT", "NAMESPACE", "OFFSET", "QUALIFY", "RETURNING", "SEMI", "STREAM"];
const NUMERIC_FUNCTIONS: &[&str] = &[
    "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cot", "degrees", "exp", "floor", "ln", "log", "log10",
    "log2", "pi", "power", "radians", "random", "round", "sign", "sin", "sqrt", "tan", "trunc",
];
const STRING_FUNCTIONS: &[&str] = &[
    "ascii",
    "btrim",
    "char_length",
    "chr",
    "concat",
    "concat_ws",
    "ends_with",
    "initcap",
    "left",
    "length",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "translate",
    "trim",
    "upper",
];
const SYSTEM_FUNCTIONS: &[&str] = &["arrow_typeof", "coalesce", "nullif", "version"];
const DATETIME_FUNCTIONS: &[&str] =
    &["current_date", "current_time", "date_bin", "date_part", "date_trunc", "from_unixtime", "now", "to_timestamp"];

/// The information, or that of some codes only. `client`: its user-agent.
pub(super) fn batch(codes: &[u32], client: &str) -> Result<RecordBatch, Status> {
    let mut builder = SqlInfoDataBuilder::new();
    server(&mut builder);
    naming(&mut builder);
    syntax(&mut builder);
    limits(&mut builder);
    transactions(&mut builder, client);
    let batch = builder.build().and_then(|data| data.record_batch(codes.iter().copied()));
    batch.map_err(|error| {
        status::from_engine(EngineError::caused(ErrorKind::Internal, "the SQL information cannot be built", error))
    })
}

fn server(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::FlightSqlServerName, "SeracDB");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0i32);
}

fn naming(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, true);
    info.append(SqlInfo::SqlDdlTable, true);
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // "Case-insensitive" is what JDBC reads as "quoted names keep their case".
    let quoted = SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive;
    info.append(SqlInfo::SqlQuotedIdentifierCase, quoted as i32);
    info.append(SqlInfo::SqlAllTablesAreSelectable, false);
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlSchemaTerm, "namespace");
    info.append(SqlInfo::SqlProcedureTerm, "procedure");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlSchemasSupportedActions, 0i32);
    info.append(SqlInfo::SqlCatalogsSupportedActions, 0i32);
}

fn syntax(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlKeywords, KEYWORDS);
    info.append(SqlInfo::SqlNumericFunctions, NUMERIC_FUNCTIONS);
    info.append(SqlInfo::SqlStringFunctions, STRING_FUNCTIONS);
    info.append(SqlInfo::SqlSystemFunctions, SYSTEM_FUNCTIONS);
    info.append(SqlInfo::SqlDatetimeFunctions, DATETIME_FUNCTIONS);
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsConvert, conversions());
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32);
    // Bitmasks from here: bit n is value n of the protocol's enumeration.
    info.append(SqlInfo::SqlSupportedGroupBy, 0b11i32);
    info.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    info.append(SqlInfo::SqlSupportedGrammar, 0b111i32);
    info.append(SqlInfo::SqlAnsi92SupportedLevel, 0b1i32);
    info.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    info.append(SqlInfo::SqlSupportedPositionedCommands, 0i32);
    info.append(SqlInfo::SqlSelectForUpdateSupported, false);
    info.append(SqlInfo::SqlStoredProceduresSupported, false);
    info.append(SqlInfo::SqlSupportedSubqueries, 0b111i32);
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    info.append(SqlInfo::SqlSupportedUnions, 0b11i32);
    info.append(SqlInfo::SqlSupportedResultSetTypes, 0b10i32);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0b10i32);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10i32);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0i32);
    info.append(SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0i32);
    info.append(SqlInfo::SqlBatchUpdatesSupported, true);
    info.append(SqlInfo::SqlNamedParametersSupported, false);
    info.append(SqlInfo::SqlLocatorsUpdateCopy, false);
    info.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

/// 0 means: no limit, or none that is known.
fn limits(info: &mut SqlInfoDataBuilder) {
    for code in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        info.append(code, 0i64);
    }
    info.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, true);
}

fn transactions(info: &mut SqlInfoDataBuilder, client: &str) {
    // The JDBC driver's commit and rollback do nothing: who relied on them would lose data in silence. BEGIN and COMMIT as
    // text work there too.
    let java = is_java(client);
    let by_driver = if java { SqlSupportedTransaction::None } else { SqlSupportedTransaction::Savepoint };
    // An int32: the Python driver warns about anything else.
    info.append(SqlInfo::FlightSqlServerTransaction, by_driver as i32);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, !java);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
    // Snapshot isolation; the protocol has no name for it.
    let level = match java {
        true => SqlTransactionIsolationLevel::SqlTransactionNone,
        false => SqlTransactionIsolationLevel::SqlTransactionRepeatableRead,
    };
    let isolation = level as i32;
    if java {
        // The protocol says int32, but the JDBC driver casts to long.
        info.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(isolation));
    } else {
        info.append(SqlInfo::SqlDefaultTransactionIsolation, isolation);
    }
    info.append(SqlInfo::SqlTransactionsSupported, !java);
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, 1i32 << isolation);
    info.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    info.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    info.append(SqlInfo::SqlSavepointsSupported, !java);
}

/// What CAST takes to what.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert::*;
    let numbers = [
        SqlConvertBigint,
        SqlConvertDecimal,
        SqlConvertFloat,
        SqlConvertInteger,
        SqlConvertNumeric,
        SqlConvertReal,
        SqlConvertSmallint,
        SqlConvertTinyint,
    ];
    let texts = [SqlConvertChar, SqlConvertVarchar];
    let moments = [SqlConvertDate, SqlConvertTime, SqlConvertTimestamp];
    let rest = [SqlConvertBit, SqlConvertVarbinary];
    let codes = |lists: &[&[SqlSupportsConvert]]| -> Vec<i32> {
        lists.iter().flat_map(|list| list.iter()).map(|convert| *convert as i32).collect()
    };
    let mut map = BTreeMap::new();
    for from in numbers {
        map.insert(from as i32, codes(&[&numbers, &texts, &[SqlConvertBit]]));
    }
    for from in texts {
        map.insert(from as i32, codes(&[&numbers, &texts, &moments, &rest]));
    }
    map.insert(SqlConvertBit as i32, codes(&[&numbers, &texts]));
    map.insert(SqlConvertDate as i32, codes(&[&texts, &[SqlConvertTimestamp]]));
    map.insert(SqlConvertTime as i32, codes(&[&texts]));
    map.insert(SqlConvertTimestamp as i32, codes(&[&texts, &moments]));
    map.insert(SqlConvertVarbinary as i32, codes(&[&texts]));
    map
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::UInt32Type;

    use super::*;

    /// The union's child that the value of a code is in.
    fn child(batch: &RecordBatch, code: SqlInfo) -> i8 {
        let codes = batch.column(0).as_primitive::<UInt32Type>();
        let row = codes.values().iter().position(|value| *value == code as u32).unwrap();
        batch.column(1).as_union().type_id(row)
    }

    #[test]
    fn values_are_in_the_child_the_protocol_names() {
        const STRING: i8 = 0;
        const BOOL: i8 = 1;
        const INT64: i8 = 2;
        const INT32: i8 = 3;
        let all = batch(&[], "grpc-go/1.0").unwrap();
        assert_eq!(child(&all, SqlInfo::FlightSqlServerName), STRING);
        assert_eq!(child(&all, SqlInfo::FlightSqlServerTransaction), INT32);
        assert_eq!(child(&all, SqlInfo::SqlMaxTableNameLength), INT64);
        assert_eq!(child(&all, SqlInfo::SqlTransactionsSupported), BOOL);
        assert_eq!(child(&all, SqlInfo::SqlSupportedUnions), INT32);
        assert_eq!(child(&all, SqlInfo::SqlDefaultTransactionIsolation), INT32);
        let java = batch(&[], "grpc-java-netty/1.65.0").unwrap();
        assert_eq!(child(&java, SqlInfo::SqlDefaultTransactionIsolation), INT64);
    }

    #[test]
    fn only_the_asked_codes_are_answered() {
        let asked = batch(&[8, 0, 99_999], "").unwrap();
        assert_eq!(asked.column(0).as_primitive::<UInt32Type>().values(), &[0, 8]);
        assert!(batch(&[], "").unwrap().num_rows() > 80);
    }

    #[test]
    fn the_union_is_sound() {
        let all = batch(&[], "").unwrap();
        all.column(1).to_data().validate_full().unwrap();
    }
}
