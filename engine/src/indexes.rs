//! CREATE INDEX and DROP INDEX.

use std::sync::Arc;

use seracdb_storage::bloom;
use seracdb_storage::catalog::{CatalogChange, IndexRecord, TableKind, TableRecord};

use crate::alter_constraints::{self, Wanted};
use crate::ddl::forgive;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::naming::check_name;
use crate::rights::Object;
use crate::session::Session;
use crate::sql::statement::{ConstraintChange, CreateIndex, UniqueDef};
use crate::sql::{TableName, suggest};
use crate::tables::Tables;

pub(crate) async fn create_index(
    engine: &Arc<Engine>,
    session: &Session,
    tables: &Tables,
    create: &CreateIndex,
) -> Result<()> {
    if let Some(nulls_equal) = create.unique {
        return create_unique(engine, session, tables, create, nulls_equal).await;
    }
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

/// Another way to write ADD [CONSTRAINT name] UNIQUE: what is made is a constraint.
async fn create_unique(
    engine: &Arc<Engine>,
    session: &Session,
    tables: &Tables,
    create: &CreateIndex,
    nulls_equal: bool,
) -> Result<()> {
    let table = tables.record(&create.table)?;
    let is_named = |name: &String| {
        table.unique.iter().any(|key| key.name == *name) || table.checks.iter().any(|check| check.name == *name)
    };
    if create.if_not_exists && create.name.as_ref().is_some_and(is_named) {
        return tables.require_owner(Object::Table(table), "CREATE INDEX");
    }
    let (name, columns) = (create.name.clone(), create.columns.clone());
    let key = ConstraintChange::Unique(UniqueDef { name, columns, primary: false, nulls_equal });
    let wanted = Wanted { name: &create.table, if_exists: false, columns: &[], constraints: &[key] };
    alter_constraints::alter(engine, session, tables, &wanted).await
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
        None => {
            let is_key = |table: &&Arc<TableRecord>| table.unique.iter().any(|key| key.name == name.table);
            let mut tables_seen =
                tables.catalog().tables_of(namespace).filter(|table| tables.sees(Object::Table(table)));
            Err(match tables_seen.find(is_key) {
                Some(table) => EngineError::invalid(format!(
                    "'{name}' is a constraint: ALTER TABLE {} DROP CONSTRAINT {} drops it",
                    table.name, name.table
                )),
                None => EngineError::not_found(format!("index '{name}' does not exist")),
            })
        }
    };
    forgive(dropped, ErrorKind::NotFound, if_exists)
}
