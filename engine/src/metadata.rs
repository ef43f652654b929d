//! What metadata commands list. Answered from the catalog in memory.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use seracdb_storage::catalog::{TableKind, TableRecord};
use seracdb_storage::schema::Column;
use seracdb_storage::system_columns;
use seracdb_storage::unique::UniqueKey;

use crate::engine::Engine;
use crate::error::Result;
use crate::information_schema::INFORMATION_TABLES;
use crate::listing;
use crate::session::{INFORMATION_SCHEMA, Session};
use crate::sql::Statement;
use crate::system::{SYSTEM_SCHEMA, SYSTEM_TABLES};
use crate::tables::Tables;
use crate::temporary::is_temporary;

/// A table as metadata commands list it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `TABLE`, `LOCAL TEMPORARY` or `VIEW`.
    pub table_type: &'static str,
    /// All columns; of a table `_id` first, then the user's, then `_updated`, `_deleted`.
    pub schema: SchemaRef,
    /// Columns of the primary key.
    pub primary_key: Vec<String>,
    /// A name of the rows that this user sees in it: of another table, also of one that has this one's name later, and for a
    /// `USER` table of another user, it is another. `None` for what holds no rows.
    pub rows: Option<String>,
    /// What was said of it.
    pub comment: Option<String>,
    /// What was said of its columns, by their names.
    pub column_comments: BTreeMap<String, String>,
    /// Names of the columns that have a DEFAULT.
    pub with_default: Vec<String>,
    /// Names of the columns that are GENERATED: no statement gives them a value.
    pub generated: Vec<String>,
}

/// A name of the rows that a user sees in a table. Ids of tables begin again in another data directory, times do not.
fn rows_of(table: &TableRecord, user: u64) -> String {
    let name = format!("{}-{:x}", table.id.0, table.created_at_ns);
    match table.kind {
        TableKind::Shared => name,
        TableKind::User | TableKind::Stream => format!("{name}-{user}"),
    }
}

/// The user's key, or `_id` where there is none.
fn primary_key(table: &TableRecord) -> Vec<String> {
    match UniqueKey::of_table(table).into_iter().find(|key| key.record.primary) {
        Some(key) => key.names().to_vec(),
        None => vec![system_columns::ID.to_owned()],
    }
}

/// The names of a table's columns of which something holds.
fn columns_where(table: &TableRecord, holds: impl Fn(&Column) -> bool) -> Vec<String> {
    table.schema().columns.iter().filter(|column| holds(column)).map(|column| column.name.clone()).collect()
}

/// The comments of a schema's columns.
fn column_comments<'a>(schema: &SchemaRef, comment: impl Fn(&str) -> Option<&'a str>) -> BTreeMap<String, String> {
    let names = schema.fields().iter().map(|field| field.name());
    names.filter_map(|name| Some((name.clone(), comment(name)?.to_owned()))).collect()
}

impl Engine {
    /// The namespaces, sorted, `information_schema` and `system` included.
    pub fn namespaces(&self, session: &Session) -> Result<Vec<String>> {
        Ok(listing::namespaces(&self.tables_listed(session)?))
    }

    /// The tables, sorted by namespace and name.
    pub fn tables(&self, session: &Session) -> Result<Vec<TableInfo>> {
        let tables = self.tables_listed(session)?;
        let stored = tables.stored().map(|table| {
            let schema = table.schema().full();
            TableInfo {
                namespace: table.namespace.clone(),
                name: table.name.clone(),
                table_type: if is_temporary(&table.namespace) { "LOCAL TEMPORARY" } else { "TABLE" },
                primary_key: primary_key(table),
                rows: Some(rows_of(table, session.principal().number())),
                comment: table.comment.clone(),
                column_comments: column_comments(&schema, |column| table.column_comment(column)),
                with_default: columns_where(table, |column| column.default.is_some()),
                generated: columns_where(table, |column| column.generated.is_some()),
                schema,
            }
        });
        let views = tables.views().map(|view| {
            let schema = view.schema();
            TableInfo {
                namespace: view.namespace.clone(),
                name: view.name.clone(),
                table_type: "VIEW",
                primary_key: vec![],
                rows: None,
                comment: view.comment.clone(),
                column_comments: column_comments(&schema, |column| view.column_comment(column)),
                with_default: vec![],
                generated: vec![],
                schema,
            }
        });
        let described = INFORMATION_TABLES.iter().map(|name| (INFORMATION_SCHEMA, *name));
        let described = described.chain(SYSTEM_TABLES.iter().map(|name| (SYSTEM_SCHEMA, *name)));
        let described = described.filter_map(|(namespace, name)| {
            let reference = datafusion::common::TableReference::partial(namespace, name);
            Some(TableInfo {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                table_type: "VIEW",
                schema: tables.source(&reference).ok()?.schema(),
                primary_key: vec![],
                rows: None,
                comment: None,
                column_comments: BTreeMap::new(),
                with_default: vec![],
                generated: vec![],
            })
        });
        let mut all: Vec<TableInfo> = stored.chain(views).chain(described).collect();
        all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(all)
    }

    /// As the client's transaction sees them, also when the client cannot say which one it is in: metadata names none.
    fn tables_listed(&self, session: &Session) -> Result<Tables> {
        self.tables_for(&session.in_only_transaction(), &Statement::ShowNamespaces)
    }
}
