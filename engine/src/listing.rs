//! SHOW and DESCRIBE: small results made from the catalog.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::TableReference;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

use crate::api_tokens;
use crate::error::{EngineError, Result};
use crate::session::{INFORMATION_SCHEMA, describes};
use crate::show_create::show_create;
use crate::sql::errors::{from_arrow, from_datafusion};
use crate::sql::{Statement, TableName, suggest};
use crate::system::{self, SYSTEM_SCHEMA};
use crate::system_jobs;
use crate::tables::Tables;

/// The columns of EXPLAIN.
pub(crate) fn explain_schema() -> SchemaRef {
    text_schema(&["plan_type", "plan"])
}

/// The columns of a statement whose result does not depend on the tables; none for one without rows.
pub(crate) fn schema_of(statement: &Statement) -> SchemaRef {
    if let Some(schema) = system::schema_of(statement) {
        return schema;
    }
    if let Statement::RunJob { .. } = statement {
        return system_jobs::started_schema();
    }
    if let Statement::CreateToken(_) = statement {
        return api_tokens::created_schema();
    }
    text_schema(match statement {
        Statement::ShowTables { .. } => &["namespace", "table", "kind"],
        Statement::ShowNamespaces => &["namespace"],
        Statement::Describe(_) => &["column_name", "data_type", "is_nullable"],
        Statement::ShowCreate(_) => &["statement"],
        Statement::ShowSetting(_) => &["name", "value"],
        _ => &[],
    })
}

/// The rows of a SHOW or DESCRIBE.
pub(crate) fn rows(tables: &Tables, statement: &Statement) -> Result<SendableRecordBatchStream> {
    let rows: Vec<Vec<String>> = match statement {
        Statement::ShowTables { namespace, like } => show_tables(tables, namespace.as_deref(), like.as_deref())?,
        Statement::ShowNamespaces => namespaces(tables).into_iter().map(|name| vec![name]).collect(),
        Statement::Describe(name) => {
            let schema = described(tables, name)?;
            let nullable = |field: &Field| if field.is_nullable() { "YES" } else { "NO" }.to_owned();
            let row = |field: &Arc<Field>| vec![field.name().clone(), field.data_type().to_string(), nullable(field)];
            schema.fields().iter().map(row).collect()
        }
        Statement::ShowCreate(name) => vec![vec![show_create(tables, name)?]],
        Statement::ShowSetting(name) => settings(tables, name.as_deref())?,
        _ => return Err(EngineError::internal("the statement lists nothing")),
    };
    stream(schema_of(statement), rows)
}

/// The columns of a table or view, those of `information_schema` and `system` included.
fn described(tables: &Tables, name: &TableName) -> Result<SchemaRef> {
    match tables.namespace_of(name) {
        namespace if describes(namespace) => {
            let reference = TableReference::partial(namespace, name.table.as_str());
            Ok(tables.source(&reference).map_err(|e| from_datafusion(e, &[]))?.schema())
        }
        _ => match tables.view(name) {
            Some(view) => Ok(view.schema()),
            None => Ok(tables.record(name)?.schema().full()),
        },
    }
}

/// The namespaces by name, `information_schema` and `system` included.
pub(crate) fn namespaces(tables: &Tables) -> Vec<String> {
    let mut names: Vec<String> = tables.namespaces().map(|record| record.name.clone()).collect();
    names.extend([INFORMATION_SCHEMA, SYSTEM_SCHEMA].map(str::to_owned));
    names.sort();
    names
}

fn show_tables(tables: &Tables, namespace: Option<&str>, like: Option<&str>) -> Result<Vec<Vec<String>>> {
    if let Some(name) = namespace
        && !namespaces(tables).iter().any(|known| known == name)
    {
        let known = namespaces(tables);
        return Err(EngineError::not_found(suggest::unknown("namespace", name, known.iter().map(String::as_str))));
    }
    let stored =
        tables.stored().map(|table| (&table.namespace, &table.name, format!("{:?}", table.kind).to_lowercase()));
    let views = tables.views().map(|view| (&view.namespace, &view.name, "view".to_owned()));
    let wanted = stored
        .chain(views)
        .filter(|(of, ..)| namespace.is_none_or(|namespace| *of == namespace))
        .filter(|(_, name, _)| like.is_none_or(|pattern| matches_like(name, pattern)));
    let mut rows: Vec<Vec<String>> = wanted.map(|(of, name, kind)| vec![of.clone(), name.clone(), kind]).collect();
    rows.sort();
    Ok(rows)
}

fn settings(tables: &Tables, name: Option<&str>) -> Result<Vec<Vec<String>>> {
    let own =
        [("schema", tables.namespace.as_str()), ("timezone", "UTC"), ("server_version", env!("CARGO_PKG_VERSION"))];
    let of_server = tables.server_settings().iter();
    let of_server = of_server.map(|setting| (setting.name.as_str(), setting.value.as_deref().unwrap_or_default()));
    let all: Vec<(&str, &str)> = own.into_iter().chain(of_server).collect();
    let name = match name {
        Some("search_path") => Some("schema"),
        other => other,
    };
    let wanted: Vec<Vec<String>> = all
        .iter()
        .filter(|(known, _)| name.is_none_or(|name| name == *known))
        .map(|(known, value)| vec![(*known).to_owned(), (*value).to_owned()])
        .collect();
    match (wanted.is_empty(), name) {
        (true, Some(name)) => {
            Err(EngineError::not_found(suggest::unknown("setting", name, all.iter().map(|(known, _)| *known))))
        }
        _ => Ok(wanted),
    }
}

/// SQL's LIKE: `%` is any text, `_` any character.
pub(crate) fn matches_like(text: &str, pattern: &str) -> bool {
    let text = StringArray::from(vec![text]);
    let pattern = arrow::array::Scalar::new(StringArray::from(vec![pattern]));
    arrow::compute::kernels::comparison::like(&text, &pattern).is_ok_and(|matched| matched.value(0))
}

fn text_schema(columns: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect::<Vec<_>>()))
}

fn stream(schema: SchemaRef, rows: Vec<Vec<String>>) -> Result<SendableRecordBatchStream> {
    let column =
        |i: usize| -> ArrayRef { Arc::new(rows.iter().map(|row| Some(row[i].as_str())).collect::<StringArray>()) };
    let columns = (0..schema.fields().len()).map(column).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| from_arrow(e, &[]))?;
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)]))))
}
