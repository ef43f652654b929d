//! CREATE INDEX and DROP INDEX.

use seracdb_storage::bloom;
use seracdb_storage::catalog::{CatalogChange, IndexRecord, TableKind, TableRecord};

use crate::ddl::forgive;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::naming::check_name;
use crate::rights::Object;
use crate::session::Session;
use crate::sql::statement::CreateIndex;
use crate::sql::{TableName, suggest};
use crate::tables::Tables;

pub(crate) async fn create_index(
    engine: &Engine,
    session: &Session,
    tables: &Tables,
    create: &CreateIndex,
) -> Result<()> {
    let table = tables.record(&create.table)?;
    tables.require_owner(Object::Table(table), "CREATE INDEX")?;
    if table.kind == TableKind::Stream {
        return Err(EngineError::invalid(format!(
            "'{}' is a stream table: its rows are never in files, which an index is for",
            create.table
        )));
    }
    let columns = create.columns.iter().map(|column| indexed_column(table, column)).collect::<Result<Vec<u32>>>()?;
    let name = create.name.clone().unwrap_or_else(|| format!("{}_{}_idx", table.name, create.columns.join("_")));
    check_name("index", &name)?;
    let index = IndexRecord { name, columns };
    let created = engine.change_catalog(session, vec![CatalogChange::CreateIndex { table: table.id, index }]).await;
    forgive(created, ErrorKind::AlreadyExists, create.if_not_exists)
}

/// The id of a column that an index is possible of.
fn indexed_column(table: &TableRecord, name: &str) -> Result<u32> {
    let schema = table.schema().full();
    let known = schema.fields().iter().map(|field| field.name().as_str());
    let Some(id) = bloom::column_id(table, name) else {
        return Err(EngineError::not_found(suggest::unknown("column", name, known)));
    };
    match schema.field_with_name(name) {
        Ok(field) if bloom::is_filterable(field.data_type()) => Ok(id),
        Ok(field) => Err(EngineError::invalid(format!(
            "column '{name}' of type {} cannot be indexed: only its elements can be compared",
            field.data_type()
        ))),
        Err(error) => Err(EngineError::internal(error.to_string())),
    }
}

pub(crate) async fn drop_index(
    engine: &Engine,
    session: &Session,
    tables: &Tables,
    name: &TableName,
    if_exists: bool,
) -> Result<()> {
    if let Some(hidden) = name.namespace.as_deref().filter(|namespace| !tables.is_visible(namespace)) {
        return Err(EngineError::not_found(format!("unknown namespace '{hidden}'")));
    }
    let temporary = tables.temporary.as_deref().filter(|own| tables.catalog().index(own, &name.table).is_some());
    let namespace = name.namespace.as_deref().or(temporary).unwrap_or(&tables.namespace);
    let table = tables.catalog().index(namespace, &name.table);
    let dropped = match table.filter(|table| tables.sees(Object::Table(table))) {
        Some(table) => {
            tables.require_owner(Object::Table(table), "DROP INDEX")?;
            let change = CatalogChange::DropIndex { table: table.id, name: name.table.clone() };
            engine.change_catalog(session, vec![change]).await
        }
        None => Err(EngineError::not_found(format!("index '{name}' does not exist"))),
    };
    forgive(dropped, ErrorKind::NotFound, if_exists)
}
