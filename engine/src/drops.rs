//! DROP TABLE and DROP VIEW: of one, or of several in one commit, so that all of them go or none.

use std::sync::Arc;

use seracdb_storage::catalog::{CatalogChange, TableRecord, ViewRecord};

use crate::ddl::{drop_named, forgive, own_table};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::rights::Object;
use crate::session::Session;
use crate::sql::{Statement, TableName};
use crate::tables::Tables;
use crate::views::{below, readers, view};

/// Runs a DROP TABLE or DROP VIEW. With IF EXISTS those that are there go.
pub(crate) async fn drop_all(engine: &Arc<Engine>, session: &Session, statement: &Statement) -> Result<()> {
    let mut attempts = 0;
    loop {
        let tables = engine.tables_for(session, statement)?;
        let (changes, names, if_exists) = match statement {
            Statement::DropTable { names, if_exists, cascade } => {
                (of_tables(engine, session, &tables, names, *if_exists, *cascade)?, names, *if_exists)
            }
            Statement::DropView { names, if_exists, cascade } => {
                (of_views(&tables, names, *if_exists, *cascade)?, names, *if_exists)
            }
            _ => return Err(EngineError::internal("the statement drops neither tables nor views")),
        };
        if changes.is_empty() {
            return Ok(());
        }
        attempts += 1;
        match drop_named(engine, session, changes, false).await {
            // One of them has gone meanwhile, by somebody else: the others are still to go.
            Err(error) if if_exists && error.kind == ErrorKind::NotFound && attempts <= names.len() => {}
            done => return done,
        }
    }
}

fn of_tables(
    engine: &Engine,
    session: &Session,
    tables: &Tables,
    names: &[TableName],
    if_exists: bool,
    cascade: bool,
) -> Result<Vec<CatalogChange>> {
    let mut found: Vec<&Arc<TableRecord>> = Vec::new();
    for name in names {
        let Some(record) = own_table(engine, session, tables, name, if_exists, "DROP TABLE")? else { continue };
        tables.require_no_hidden_reader(Object::Table(record), cascade)?;
        if !found.iter().any(|known| known.id == record.id) {
            found.push(record);
        }
    }
    let drop = |record: &Arc<TableRecord>| CatalogChange::DropTable {
        id: record.id,
        namespace: record.namespace.clone(),
        name: record.name.clone(),
        views: readers(cascade),
    };
    Ok(found.into_iter().map(drop).collect())
}

/// Each view goes after those of them that read it: so it is in nobody's way.
fn of_views(tables: &Tables, names: &[TableName], if_exists: bool, cascade: bool) -> Result<Vec<CatalogChange>> {
    let mut found: Vec<&Arc<ViewRecord>> = Vec::new();
    for name in names {
        match view(tables, name) {
            Ok(view) if found.iter().any(|known| Arc::ptr_eq(known, view)) => {}
            Ok(view) => {
                tables.require_owner(Object::View(view), "DROP VIEW")?;
                tables.require_no_hidden_reader(Object::View(view), cascade)?;
                found.push(view);
            }
            Err(error) => forgive(Err(error), ErrorKind::NotFound, if_exists)?,
        }
    }
    let mut changes: Vec<CatalogChange> =
        found.iter().map(|view| tables.same_view(&view.namespace, &view.name)).collect();
    while !found.is_empty() {
        let reads = |reader: &ViewRecord, view: &Arc<ViewRecord>| {
            below(tables.catalog(), reader).iter().any(|read| Arc::ptr_eq(read, view))
        };
        let is_read =
            |view: &Arc<ViewRecord>| found.iter().any(|other| !Arc::ptr_eq(other, view) && reads(other, view));
        // Views never read one another in a circle.
        let last = found.iter().position(|view| !is_read(view)).unwrap_or(0);
        let view = found.remove(last);
        changes.push(CatalogChange::DropView { namespace: view.namespace.clone(), name: view.name.clone(), cascade });
    }
    Ok(changes)
}
