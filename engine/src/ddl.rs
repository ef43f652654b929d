//! Statements that change the catalog, the session or the storage, and who may run them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::Field;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{
    CatalogChange, CheckRecord, NamespaceRecord, Readers, TableKind, TableRecord, UniqueRecord,
};
use seracdb_storage::key_codec::can_be_unique;
use seracdb_storage::keys::Scope;
use seracdb_storage::schema::{Column, TableSchema};

use crate::constraints::Constraints;
use crate::create_like::written_out;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::Role;
use crate::naming::check_name;
use crate::rights::{Object, denied};
use crate::session::{Session, describes};
use crate::sql::statement::{self, CheckDef, CreateTable, UniqueDef};
use crate::sql::{Statement, TableName};
use crate::table_options::ttl_ns;
use crate::tables::Tables;
use crate::temporary::is_temporary;
use crate::{alter, api_tokens, comments, drops, indexes, system_jobs, system_queries, table_options, views};

/// Runs a statement that gives neither rows nor a count.
pub(crate) async fn run(engine: &Arc<Engine>, session: &Session, statement: &Statement) -> Result<()> {
    match statement {
        Statement::CreateNamespace { name, if_not_exists } => {
            require(engine, session, Role::Service, "CREATE NAMESPACE")?;
            create_namespace(engine, session, name, *if_not_exists).await
        }
        Statement::DropNamespace { name, if_exists, cascade } => {
            require(engine, session, Role::Service, "DROP NAMESPACE")?;
            if is_temporary(name) {
                return Err(EngineError::not_found(format!("unknown namespace '{name}'")));
            }
            let tables = engine.tables_for(session, statement)?;
            tables.require_namespace_owner(name, "DROP NAMESPACE")?;
            let change = CatalogChange::DropNamespace { name: name.clone(), cascade: *cascade };
            drop_named(engine, session, vec![tables.same_namespace(name), change], *if_exists).await
        }
        Statement::CreateTable(create) => {
            if !create.temporary {
                require(engine, session, Role::Service, "CREATE TABLE")?;
            }
            create_table(engine, session, &engine.tables_for(session, statement)?, create).await
        }
        Statement::AlterTable { name, if_exists, change } => {
            alter::alter_table(engine, session, &engine.tables_for(session, statement)?, name, *if_exists, change).await
        }
        Statement::DropTable { .. } => drops::drop_all(engine, session, statement).await,
        Statement::CreateView(create) => {
            require(engine, session, Role::Service, "CREATE VIEW")?;
            views::create(engine, session, &engine.tables_for(session, statement)?, create).await
        }
        Statement::DropView { .. } => {
            require(engine, session, Role::Service, "DROP VIEW")?;
            drops::drop_all(engine, session, statement).await
        }
        Statement::Comment { on, text } => {
            comments::comment(engine, session, &engine.tables_for(session, statement)?, on, text.as_deref()).await
        }
        Statement::CreateIndex(create) => {
            require(engine, session, Role::Service, "CREATE INDEX")?;
            indexes::create_index(engine, session, &engine.tables_for(session, statement)?, create).await
        }
        Statement::DropIndex { name, if_exists } => {
            require(engine, session, Role::Service, "DROP INDEX")?;
            indexes::drop_index(engine, session, &engine.tables_for(session, statement)?, name, *if_exists).await
        }
        Statement::CreateUser { name, password, role } => {
            engine.create_user_in(session, name, &password.0, *role).await
        }
        Statement::AlterUser { name, change } => engine.alter_user(session, name, change).await,
        Statement::DropUser { name, if_exists } => {
            forgive(engine.drop_user(session, name).await, ErrorKind::NotFound, *if_exists)
        }
        Statement::Grant(grant) => engine.grant(session, &engine.tables_for(session, statement)?, grant).await,
        Statement::Revoke(grant) => engine.revoke(session, &engine.tables_for(session, statement)?, grant).await,
        Statement::DropToken { id, if_exists } => {
            api_tokens::drop_token(engine, session, &engine.tables_for(session, statement)?, id, *if_exists).await
        }
        Statement::CancelJob(id) => system_jobs::cancel_job(engine, session, id),
        Statement::CancelQuery(id) => system_queries::cancel_query(engine, session, id),
        Statement::FlushTable(name) => {
            require(engine, session, Role::Service, "STORAGE FLUSH")?;
            flush_table(engine, &engine.tables_for(session, statement)?, name).await
        }
        Statement::FlushAll => {
            require(engine, session, Role::Admin, "STORAGE FLUSH ALL")?;
            flush_scopes(engine, |_| true).await
        }
        Statement::CompactTable(name) => {
            require(engine, session, Role::Service, "STORAGE COMPACT")?;
            compact_table(engine, &engine.tables_for(session, statement)?, name).await
        }
        Statement::CheckTable(name) => {
            require(engine, session, Role::Service, "STORAGE CHECK")?;
            check_table(engine, &engine.tables_for(session, statement)?, name).await
        }
        Statement::UseNamespace(name) => session.set_namespace(engine, name),
        Statement::Set { name, value } => set(engine, session, name, value.as_deref()),
        _ => Err(EngineError::internal("the statement gives rows")),
    }
}

/// Refuses a statement that wants a higher role than the session's user has.
pub(crate) fn require(engine: &Engine, session: &Session, role: Role, what: &str) -> Result<()> {
    if engine.subject(session)?.role() >= role {
        return Ok(());
    }
    Err(denied(&format!("{what} requires the role {role} or a higher one")))
}

async fn create_namespace(engine: &Engine, session: &Session, name: &str, if_not_exists: bool) -> Result<()> {
    check_name("namespace", name)?;
    if describes(name) {
        return Err(EngineError::new(ErrorKind::AlreadyExists, format!("namespace '{name}' exists already")));
    }
    let record = NamespaceRecord {
        name: name.to_owned(),
        created_at_ns: engine.now_ns(),
        created_by: Some(engine.subject(session)?.name().to_owned()),
        comment: None,
    };
    let created = engine.change_catalog(session, vec![CatalogChange::CreateNamespace(record)]).await;
    forgive(created, ErrorKind::AlreadyExists, if_not_exists)
}

/// The table that a statement is about, which only its owner may run; `None` when it is not there and need not be.
pub(crate) fn own_table<'a>(
    engine: &Engine,
    session: &Session,
    tables: &'a Tables,
    name: &TableName,
    if_exists: bool,
    what: &str,
) -> Result<Option<&'a Arc<TableRecord>>> {
    if !is_temporary(tables.namespace_of(name)) {
        require(engine, session, Role::Service, what)?;
    }
    match tables.record(name) {
        Ok(record) => tables.require_owner(Object::Table(record), what).map(|()| Some(record)),
        Err(error) => forgive(Err(error), ErrorKind::NotFound, if_exists).map(|()| None),
    }
}

/// Drops, and removes rows and files once nobody reads them any more.
pub(crate) async fn drop_named(
    engine: &Arc<Engine>,
    session: &Session,
    changes: Vec<CatalogChange>,
    if_exists: bool,
) -> Result<()> {
    let dropped = engine.change_catalog(session, changes).await;
    if dropped.is_ok() && session.transaction().is_none() {
        engine.remove_dropped_later();
    }
    forgive(dropped, ErrorKind::NotFound, if_exists)
}

impl Engine {
    /// Removes rows and files of dropped tables once nobody reads them any more.
    pub(crate) fn remove_dropped_later(self: &Arc<Self>) {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            match store.remove_dropped().await {
                // The next start takes up what is left.
                Ok(()) | Err(StorageError::Stopped) => {}
                Err(error) => {
                    tracing::warn!(%error, "removing a dropped table failed; it is tried again at the next start")
                }
            }
        });
    }
}

pub(crate) fn forgive(result: Result<()>, kind: ErrorKind, forgiven: bool) -> Result<()> {
    match result {
        Err(error) if forgiven && error.kind == kind => Ok(()),
        other => other,
    }
}

async fn create_table(engine: &Arc<Engine>, session: &Session, tables: &Tables, create: &CreateTable) -> Result<()> {
    let create = &match &create.like {
        Some(like) => Cow::Owned(written_out(tables, create, like)?),
        None => Cow::Borrowed(create),
    };
    let (namespace, before) = match create.temporary {
        true => engine.temporary_namespace(session).map(|(name, change)| (name.to_string(), change))?,
        false => {
            let name = create.name.namespace.clone().unwrap_or_else(|| session.namespace());
            let same = tables.same_namespace(&name);
            (name, same)
        }
    };
    if !create.temporary && is_temporary(&namespace) {
        return Err(EngineError::invalid("a table of this namespace is temporary: CREATE TEMPORARY TABLE"));
    }
    let fields: Vec<Field> = create
        .columns
        .iter()
        .map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable))
        .collect();
    let (name, kind) = (&create.name.table, create.kind.into());
    let mut record = new_table(engine, session, &namespace, name, kind, &fields, &create.options)?;
    record.unique = unique_keys(&record, &create.unique)?;
    record.checks = checks(&record, &create.checks)?;
    if let Some(schema) = record.schemas.first_mut() {
        for (column, defined) in schema.columns.iter_mut().zip(&create.columns) {
            (column.default, column.generated) = (defined.default.clone(), defined.generated.clone());
        }
    }
    // What cannot be planned cannot be kept.
    Constraints::plan(&engine.state, &record)?;
    if create.temporary && !create.or_replace && tables.catalog().table(&namespace, &create.name.table).is_some() {
        let exists = format!("temporary table '{}' exists already", create.name.table);
        return forgive(
            Err(EngineError::new(ErrorKind::AlreadyExists, exists)),
            ErrorKind::AlreadyExists,
            create.if_not_exists,
        );
    }
    if create.temporary {
        engine.check_one_more_temporary(session, tables.catalog())?;
    }
    if create.or_replace
        && let Some(there) =
            tables.catalog().table(&namespace, &create.name.table).filter(|table| tables.sees(Object::Table(table)))
    {
        tables.require_owner(Object::Table(there), "CREATE OR REPLACE TABLE")?;
        let drop = CatalogChange::DropTable {
            id: there.id,
            namespace: there.namespace.clone(),
            name: there.name.clone(),
            views: Readers::Keep,
        };
        let changes = vec![before, drop, CatalogChange::CreateTable(record)];
        return drop_named(engine, session, changes, false).await;
    }
    let created = engine.change_catalog(session, vec![before, CatalogChange::CreateTable(record)]).await;
    forgive(created, ErrorKind::AlreadyExists, create.if_not_exists)
}

impl From<statement::TableKind> for TableKind {
    fn from(kind: statement::TableKind) -> Self {
        match kind {
            statement::TableKind::Shared => Self::Shared,
            statement::TableKind::User => Self::User,
            statement::TableKind::Stream => Self::Stream,
        }
    }
}

/// The unique keys of a table to be created. Those without a name get one of the table's and their columns'.
fn unique_keys(table: &TableRecord, defined: &[UniqueDef]) -> Result<Vec<UniqueRecord>> {
    let mut keys: Vec<UniqueRecord> = Vec::with_capacity(defined.len());
    let mut taken: HashSet<String> = defined.iter().filter_map(|key| key.name.clone()).collect();
    for (id, key) in (1..).zip(defined) {
        let record = unique_record(table, key, id, &taken)?;
        taken.insert(record.name.clone());
        keys.push(record);
    }
    Ok(keys)
}

/// A unique key of a table, whose columns are there. `taken`: names of other constraints.
pub(crate) fn unique_record(
    table: &TableRecord,
    key: &UniqueDef,
    id: u32,
    taken: &HashSet<String>,
) -> Result<UniqueRecord> {
    let made = || match key.primary {
        true => format!("{}_pkey", table.name),
        false => format!("{}_{}_key", table.name, key.columns.join("_")),
    };
    let name = key.name.clone().unwrap_or_else(|| {
        let free = std::iter::once(made()).chain((1..).map(|n| format!("{}{n}", made())));
        free.into_iter().find(|name| !taken.contains(name)).unwrap_or_else(made)
    });
    if key.name.is_some() {
        check_name("constraint", &name)?;
    }
    let parts = |column: &&Column| key.columns.contains(&column.name) && !can_be_unique(&column.data_type);
    if let Some(column) = table.schema().columns.iter().find(parts) {
        let (what, name, data_type) = (key.what(), &column.name, &column.data_type);
        return Err(EngineError::invalid(format!(
            "{what}: values of column '{name}' have parts ({data_type}), and cannot be a key"
        )));
    }
    let columns = key.columns.iter().filter_map(|name| table.column_id(name)).collect();
    Ok(UniqueRecord { id, name, columns, primary: key.primary, nulls_equal: key.nulls_equal })
}

/// What holds of every row of a table to be created. Those without a name get one of the table's.
fn checks(table: &TableRecord, defined: &[CheckDef]) -> Result<Vec<CheckRecord>> {
    let mut taken: HashSet<String> = table.unique.iter().map(|key| key.name.clone()).collect();
    for name in defined.iter().filter_map(|check| check.name.as_ref()) {
        if !taken.insert(name.clone()) {
            return Err(EngineError::invalid(format!("constraint '{name}' is declared twice")));
        }
    }
    let mut checks = Vec::with_capacity(defined.len());
    for check in defined {
        let record = check_record(table, check.name.clone(), &check.expr, &taken)?;
        taken.insert(record.name.clone());
        checks.push(record);
    }
    Ok(checks)
}

/// A check of a table. `taken`: names of constraints, of which one without a name gets none.
pub(crate) fn check_record(
    table: &TableRecord,
    name: Option<String>,
    expr: &str,
    taken: &HashSet<String>,
) -> Result<CheckRecord> {
    if let Some(name) = &name {
        check_name("constraint", name)?;
    }
    let made = |n: u32| match n {
        0 => format!("{}_check", table.name),
        n => format!("{}_check{n}", table.name),
    };
    let name = name.or_else(|| (0..).map(made).find(|name| !taken.contains(name))).unwrap_or_default();
    Ok(CheckRecord { name, expr: expr.to_owned() })
}

/// The record of a table to be created.
pub(crate) fn new_table(
    engine: &Engine,
    session: &Session,
    namespace: &str,
    name: &str,
    kind: TableKind,
    fields: &[Field],
    options: &BTreeMap<String, String>,
) -> Result<TableRecord> {
    check_name("table", name)?;
    if describes(namespace) {
        return Err(EngineError::invalid(format!("tables of {namespace} cannot be created")));
    }
    for field in fields {
        check_name("column", field.name())?;
    }
    let record = TableRecord {
        options: options.clone(),
        ttl_ns: ttl_ns(kind, options)?,
        created_at_ns: engine.store.clock().now_ns(),
        created_by: engine.subject(session)?.name().to_owned(),
        ..TableRecord::new(engine.store.new_table_id(), namespace, name, kind, TableSchema::first(fields))
    };
    table_options::check(&record)?;
    Ok(record)
}

async fn flush_table(engine: &Engine, tables: &Tables, name: &TableName) -> Result<()> {
    let table = tables.record(name)?;
    tables.require_owner(Object::Table(table), "STORAGE FLUSH")?;
    if table.kind == TableKind::Stream {
        return Err(EngineError::invalid(format!("'{name}' is a stream table: its rows are never flushed")));
    }
    flush_scopes(engine, |scope| scope.table == table.id).await
}

/// Flushes the scopes with hot rows that `wanted` takes; those of stream and dropped tables are left out. One that fails
/// does not keep the others from it; the first error is given at the end.
async fn flush_scopes(engine: &Engine, wanted: impl Fn(Scope) -> bool) -> Result<()> {
    let (scopes, progress) = (engine.store.snapshot().hot_scopes()?, engine.jobs.progress_of_statement());
    let mut result = Ok(());
    for scope in scopes.into_iter().filter(|scope| wanted(*scope)) {
        let kind = engine.store.snapshot().catalog().table_by_id(scope.table).map(|table| table.kind);
        if !matches!(kind, Some(TableKind::Shared | TableKind::User)) {
            continue;
        }
        match engine.store.flush_with(scope, &progress).await {
            // Dropped in between: there is nothing left to flush.
            Ok(_) | Err(StorageError::Conflict) => {}
            Err(error) if result.is_ok() => result = Err(error.into()),
            Err(error) => tracing::error!(%error, table = scope.table.0, "a further flush failed"),
        }
    }
    result
}

/// Merges the files of every scope of a table that are worth it.
async fn compact_table(engine: &Engine, tables: &Tables, name: &TableName) -> Result<()> {
    let table = tables.record(name)?;
    tables.require_owner(Object::Table(table), "STORAGE COMPACT")?;
    if table.kind == TableKind::Stream {
        return Err(EngineError::invalid(format!("'{name}' is a stream table: it has no files")));
    }
    let scopes = engine.store.snapshot().scopes_with_files(table.id)?;
    let (mut result, progress) = (Ok(()), engine.jobs.progress_of_statement());
    for scope in scopes {
        match engine.store.compact_with(scope, &progress).await {
            // A table that was dropped meanwhile has nothing to merge.
            Ok(_) | Err(StorageError::Conflict) => {}
            Err(error) if result.is_ok() => result = Err(error.into()),
            Err(error) => tracing::error!(%error, table = scope.table.0, "a further compaction failed"),
        }
    }
    result
}

/// Reads every file of a table, of all its scopes, and compares it with its checksum.
async fn check_table(engine: &Engine, tables: &Tables, name: &TableName) -> Result<()> {
    let table = tables.record(name)?;
    tables.require_owner(Object::Table(table), "STORAGE CHECK")?;
    for scope in engine.store.snapshot().scopes_with_files(table.id)? {
        match engine.store.check_files(scope).await {
            // A table that was dropped meanwhile has nothing to check.
            Ok(()) | Err(StorageError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The settings of a session. UTC is not a choice.
fn set(engine: &Engine, session: &Session, name: &str, value: Option<&str>) -> Result<()> {
    match (name, value) {
        ("schema" | "search_path", value) => {
            session.set_namespace(engine, value.unwrap_or(seracdb_storage::catalog::DEFAULT_NAMESPACE))
        }
        ("timezone" | "time zone", None) => Ok(()),
        ("timezone" | "time zone", Some(zone)) => match zone.to_ascii_uppercase().as_str() {
            "UTC" | "ETC/UTC" | "GMT" | "+00:00" | "0" => Ok(()),
            _ => Err(EngineError::invalid(format!(
                "sessions are pinned to UTC: '{zone}' cannot be set, convert in the client"
            ))),
        },
        _ => match engine.settings.iter().find(|setting| setting.name == name) {
            Some(setting) if engine.subject(session)?.role() >= Role::Admin => Err(EngineError::invalid(format!(
                "'{name}' is a setting of the server: set it in its file, or by {}, and start it again",
                setting.variable
            ))),
            _ => {
                let known = "the settings of a session are schema and timezone";
                Err(EngineError::not_found(format!("unknown setting '{name}': {known}")))
            }
        },
    }
}
