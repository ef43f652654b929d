//! SHOW CREATE: the statement that makes a table or view like one that is there.

use std::fmt::Write;

use arrow::datatypes::{DataType, TimeUnit};
use seracdb_storage::catalog::{TableKind, TableRecord, ViewRecord};
use seracdb_storage::unique::UniqueKey;

use crate::error::Result;
use crate::rights::Object;
use crate::sql::TableName;
use crate::sql::names::quoted_if_needed;
use crate::tables::Tables;
use crate::temporary::is_temporary;

/// The statement of a table or view by name. A view's query is its owner's to see.
pub(crate) fn show_create(tables: &Tables, name: &TableName) -> Result<String> {
    match tables.view(name) {
        Some(view) => {
            tables.require_owner(Object::View(view), "SHOW CREATE VIEW")?;
            Ok(of_view(view))
        }
        None => Ok(of_table(tables.record(name)?)),
    }
}

fn of_view(view: &ViewRecord) -> String {
    let columns: Vec<String> = view.columns.iter().map(|column| quoted_if_needed(&column.name)).collect();
    format!("CREATE VIEW {} ({}) AS {}", full(&view.namespace, &view.name), columns.join(", "), view.query)
}

fn of_table(table: &TableRecord) -> String {
    let (kind, name) = match (is_temporary(&table.namespace), table.kind) {
        (true, _) => ("TEMPORARY TABLE", quoted_if_needed(&table.name)),
        (false, TableKind::Shared) => ("TABLE", full(&table.namespace, &table.name)),
        (false, TableKind::User) => ("USER TABLE", full(&table.namespace, &table.name)),
        (false, TableKind::Stream) => ("STREAM TABLE", full(&table.namespace, &table.name)),
    };
    let mut parts: Vec<String> = Vec::new();
    for column in &table.schema().columns {
        let mut part = format!("{} {}", quoted_if_needed(&column.name), sql_type(&column.data_type));
        if !column.nullable {
            part.push_str(" NOT NULL");
        }
        if let Some(default) = &column.default {
            let _ = write!(part, " DEFAULT {default}");
        }
        if let Some(generated) = &column.generated {
            let _ = write!(part, " GENERATED ALWAYS AS ({generated}) STORED");
        }
        parts.push(part);
    }
    for key in UniqueKey::of_table(table) {
        let columns: Vec<String> = key.names().iter().map(|name| quoted_if_needed(name)).collect();
        let what = match (key.record.primary, key.record.nulls_equal) {
            (true, _) => "PRIMARY KEY",
            (false, true) => "UNIQUE NULLS NOT DISTINCT",
            (false, false) => "UNIQUE",
        };
        parts.push(format!("CONSTRAINT {} {what} ({})", quoted_if_needed(&key.record.name), columns.join(", ")));
    }
    let checks = table.checks.iter();
    parts.extend(checks.map(|check| format!("CONSTRAINT {} CHECK ({})", quoted_if_needed(&check.name), check.expr)));
    let mut statement = format!("CREATE {kind} {name} (\n    {}\n)", parts.join(",\n    "));
    if !table.options.is_empty() {
        let option = |(key, value): (&String, &String)| format!("{key} = '{}'", value.replace('\'', "''"));
        let options: Vec<String> = table.options.iter().map(option).collect();
        let _ = write!(statement, " WITH ({})", options.join(", "));
    }
    statement
}

fn full(namespace: &str, name: &str) -> String {
    format!("{}.{}", quoted_if_needed(namespace), quoted_if_needed(name))
}

/// A type as CREATE TABLE takes it.
fn sql_type(data_type: &DataType) -> String {
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => "(0)",
        TimeUnit::Millisecond => "(3)",
        TimeUnit::Microsecond => "(6)",
        TimeUnit::Nanosecond => "(9)",
    };
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INT UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("DECIMAL({precision}, {scale})")
        }
        DataType::Utf8 | DataType::LargeUtf8 => "TEXT".into(),
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => "BYTEA".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("TIME{}", digits(unit)),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP{}", digits(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP{} WITH TIME ZONE", digits(unit)),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            format!("{}[]", sql_type(field.data_type()))
        }
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", quoted_if_needed(field.name()), sql_type(field.data_type())))
                .collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        // Only an ingest makes columns of other types: CREATE TABLE has no name for them.
        other => other.to_string(),
    }
}
