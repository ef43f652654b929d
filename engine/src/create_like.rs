//! CREATE TABLE … LIKE: the columns of another table, as it is now.

use seracdb_storage::catalog::{Privilege, TableRecord};

use crate::error::{EngineError, ErrorKind, Result};
use crate::rights::Object;
use crate::sql::statement::{CheckDef, ColumnDef, CreateTable, Like, TableKind, UniqueDef};
use crate::tables::Tables;

/// The same statement with the columns written out.
pub(crate) fn written_out(tables: &Tables, create: &CreateTable, like: &Like) -> Result<CreateTable> {
    if tables.view(&like.table).is_some() {
        return Err(EngineError::invalid(format!(
            "'{}' is a view: write CREATE TABLE … AS SELECT … LIMIT 0",
            like.table
        )));
    }
    let table = tables.record(&like.table)?;
    tables.require_right(Object::Table(table), Privilege::Select)?;
    let columns = table.schema().columns.iter().map(|column| ColumnDef {
        name: column.name.clone(),
        data_type: column.data_type.clone(),
        nullable: column.nullable,
        default: column.default.clone().filter(|_| like.defaults),
        generated: column.generated.clone().filter(|_| like.generated),
    });
    let checks = table.checks.iter().filter(|_| like.checks);
    let checks = checks.map(|check| CheckDef { name: Some(check.name.clone()), expr: check.expr.clone() });
    let unique = if like.keys { keys(table) } else { vec![] };
    if create.kind == TableKind::Stream
        && let Some(key) = unique.first()
    {
        let message = format!("{} in a stream table, whose rows go by themselves, is not supported", key.what());
        return Err(EngineError::new(ErrorKind::Unimplemented, message));
    }
    Ok(CreateTable { like: None, columns: columns.collect(), checks: checks.collect(), unique, ..create.clone() })
}

/// The keys of a table. They get names of the new one's.
fn keys(table: &TableRecord) -> Vec<UniqueDef> {
    let name = |id: &u32| {
        let column = table.schema().columns.iter().find(|column| column.id == *id);
        column.map(|column| column.name.clone())
    };
    let key = table.unique.iter().map(|key| UniqueDef {
        name: None,
        columns: key.columns.iter().filter_map(name).collect(),
        primary: key.primary,
        nulls_equal: key.nulls_equal,
    });
    key.collect()
}
