//! COMMENT ON: what is said of namespaces, tables, views and their columns.

use seracdb_storage::catalog::{CatalogChange, CommentOn};

use crate::ddl::require;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::identity::Role;
use crate::rights::Object;
use crate::session::{Session, describes};
use crate::sql::statement::Commented;
use crate::sql::{TableName, suggest};
use crate::tables::Tables;
use crate::temporary::is_temporary;
use crate::views::view;

/// Sets or removes a comment. An empty one is none.
pub(crate) async fn comment(
    engine: &Engine,
    session: &Session,
    tables: &Tables,
    on: &Commented,
    text: Option<&str>,
) -> Result<()> {
    let is_own = match on {
        Commented::Table(name) | Commented::Column(name, _) => is_temporary(tables.namespace_of(name)),
        Commented::View(_) | Commented::Namespace(_) => false,
    };
    if !is_own {
        require(engine, session, Role::Service, "COMMENT")?;
    }
    let on = meant(tables, on)?;
    let text = text.filter(|text| !text.is_empty()).map(str::to_owned);
    let premise = tables.same_commented(&on);
    let changes = premise.into_iter().chain([CatalogChange::Comment { on, text }]).collect();
    engine.change_catalog(session, changes).await
}

fn meant(tables: &Tables, on: &Commented) -> Result<CommentOn> {
    let namespace = match on {
        Commented::Namespace(name) => name,
        Commented::Table(name) | Commented::View(name) | Commented::Column(name, _) => tables.namespace_of(name),
    };
    if describes(namespace) {
        return Err(EngineError::invalid(format!("{namespace} can only be read")));
    }
    match on {
        Commented::Namespace(name) if is_temporary(name) => {
            Err(EngineError::not_found(format!("unknown namespace '{name}'")))
        }
        Commented::Namespace(name) => {
            tables.require_namespace_owner(name, "COMMENT")?;
            Ok(CommentOn::Namespace(name.clone()))
        }
        Commented::Table(name) => {
            let table = tables.record(name)?;
            tables.require_owner(Object::Table(table), "COMMENT")?;
            Ok(CommentOn::Table(table.id))
        }
        Commented::View(name) => {
            let view = view(tables, name)?;
            tables.require_owner(Object::View(view), "COMMENT")?;
            Ok(CommentOn::View(view.namespace.clone(), view.name.clone()))
        }
        Commented::Column(name, column) => column_of(tables, name, column),
    }
}

fn column_of(tables: &Tables, name: &TableName, column: &str) -> Result<CommentOn> {
    let (schema, on) = match tables.view(name) {
        Some(view) => {
            tables.require_owner(Object::View(view), "COMMENT")?;
            let on = |id| CommentOn::ViewColumn(view.namespace.clone(), view.name.clone(), id);
            (view.schema(), view.column_id(column).map(on))
        }
        None => {
            let table = tables.record(name)?;
            tables.require_owner(Object::Table(table), "COMMENT")?;
            (table.schema().full(), table.column_id(column).map(|id| CommentOn::Column(table.id, id)))
        }
    };
    on.ok_or_else(|| {
        let known = schema.fields().iter().map(|field| field.name().as_str());
        EngineError::not_found(format!("{} (in {name})", suggest::unknown("column", column, known)))
    })
}
