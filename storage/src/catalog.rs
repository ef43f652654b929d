//! Namespaces, tables, views, users and grants: the records, and the pure rules by which a commit changes them.
//!
//! Invariants:
//! 1. A [`Catalog`] never changes; a change makes the next one. Every snapshot holds the one it belongs to.
//! 2. Table ids, user numbers, user names and file prefixes are never given out twice, also after a drop.
//!
//! Families `catalog` (keys `n/{namespace}`, `t/{table id}`, `v/{namespace}\0{view}`, `p/{prefix}`, `g/{table id}`,
//! `r/{what rights are on}\0{who has them}`, `k/{token id}`) and `users` (`{name}`); the values are JSON, unknown fields are ignored.

mod comments;
mod grants;
mod premises;
mod tokens;
mod users;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::keys::TableId;
use crate::paths;
use crate::schema::TableSchema;
use crate::system_columns::{
    DELETED, DELETED_COLUMN_ID, FIRST_USER_COLUMN_ID, ID, ID_COLUMN_ID, UPDATED, UPDATED_COLUMN_ID,
};

pub use comments::CommentOn;
use grants::GrantKey;
pub use grants::{Given, GrantOn, GrantRecord, GrantTo, Grantee, Privilege};
pub use premises::{Made, Premise};
pub use tokens::TokenRecord;
pub use users::{UserBecomes, UserChange, UserRecord};
pub use views::{Readers, VIEW_NESTING_MAX, ViewRead, ViewRecord};

/// The namespace that is always there.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Whose rows a table holds, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// One scope for all.
    Shared,
    /// A scope a user.
    User,
    /// A scope a user, in the hot tier only, for a time.
    Stream,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// Name.
    pub name: String,
    /// Nanoseconds since the Unix epoch.
    pub created_at_ns: i64,
    /// Name of the user who created it, and owns it; nobody's when none is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// What COMMENT ON NAMESPACE has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Number.
    pub id: TableId,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Whose rows.
    pub kind: TableKind,
    /// Where its files lie. Fixed when the table is created, by [`Catalog::apply`].
    pub prefix: String,
    /// What `WITH (…)` said.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Its indexes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<IndexRecord>,
    /// Its unique keys, the primary one among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<UniqueRecord>,
    /// What holds of every row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckRecord>,
    /// How often it was altered without another version of its columns.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub alterations: u32,
    /// Time that rows of a stream table live.
    #[serde(default)]
    pub ttl_ns: Option<i64>,
    /// What COMMENT ON TABLE has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What COMMENT ON COLUMN has said, by column id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub column_comments: BTreeMap<u32, String>,
    /// All schema versions; the last is the current one.
    pub schemas: Vec<TableSchema>,
    /// Nanoseconds since the Unix epoch.
    pub created_at_ns: i64,
    /// Name of the user who created it, and owns it: names are never reused.
    pub created_by: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl TableRecord {
    /// The current schema.
    pub fn schema(&self) -> &TableSchema {
        self.schemas.last().expect("a table is created with a schema, and schemas are only added")
    }

    /// All columns by id and name, the system's included.
    fn columns(&self) -> impl Iterator<Item = (u32, &str)> {
        let system = [(ID_COLUMN_ID, ID), (UPDATED_COLUMN_ID, UPDATED), (DELETED_COLUMN_ID, DELETED)];
        let user = self.schema().columns.iter().map(|column| (column.id, column.name.as_str()));
        system.into_iter().chain(user)
    }

    /// The id of a column.
    pub fn column_id(&self, name: &str) -> Option<u32> {
        self.columns().find(|(_, known)| *known == name).map(|(id, _)| id)
    }

    /// The name of a column.
    pub fn column_name(&self, id: u32) -> Option<&str> {
        self.columns().find(|(known, _)| *known == id).map(|(_, name)| name)
    }

    /// What was said of a column.
    pub fn column_comment(&self, name: &str) -> Option<&str> {
        self.column_comments.get(&self.column_id(name)?).map(String::as_str)
    }
}

/// Columns of which no two rows of a scope have the same values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueRecord {
    /// Its number; never reused within the table.
    pub id: u32,
    /// Name, one of its kind in the table.
    pub name: String,
    /// Column ids, in order.
    pub columns: Vec<u32>,
    /// Whether it is the primary key, of which there is at most one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub primary: bool,
    /// Whether NULL is a value like others. Else rows with a NULL in one of the columns are like no other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nulls_equal: bool,
}

/// What holds of every row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// Name, one of its kind in the table.
    pub name: String,
    /// What must not be false, as SQL over the columns' names.
    pub expr: String,
}

/// An index: files written from now on carry Bloom filters of its columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Name, one of its kind in the namespace.
    pub name: String,
    /// Column ids.
    pub columns: Vec<u32>,
}

/// A dropped table whose rows and files are still to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedTable {
    /// The table.
    pub id: TableId,
    /// Where its files lie.
    pub prefix: String,
}

/// What changes of a table. What is stored of its rows stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange {
    /// Options by name; `None` = as if it had never been said.
    Options {
        /// Those that change.
        options: BTreeMap<String, Option<String>>,
        /// Time that rows of a stream table live, by all options.
        ttl_ns: Option<i64>,
    },
    /// What a column is in new rows that are given without it.
    Default {
        /// Id of the column.
        column: u32,
        /// As SQL; `None` = NULL.
        default: Option<String>,
    },
    /// The next version of its columns. Indexes and comments of columns that are gone go too.
    Columns {
        /// The columns, with the next version's number.
        schema: TableSchema,
        /// What holds of every row, in terms of these.
        checks: Vec<CheckRecord>,
        /// How often the table had been altered otherwise when this was decided.
        alterations: u32,
    },
    /// Another name, in the same namespace.
    Name(String),
}

impl TableChange {
    /// Makes the change. A column that is not there has none.
    ///
    /// Errors: [`CatalogError::TableAltered`].
    pub fn apply(&self, table: &mut TableRecord) -> Result<(), CatalogError> {
        if let Self::Columns { schema, checks, alterations } = self {
            return next_columns(table, schema, checks, *alterations);
        }
        table.alterations += 1;
        match self {
            Self::Columns { .. } => {}
            Self::Name(name) => table.name.clone_from(name),
            Self::Options { options, ttl_ns } => {
                for (name, value) in options {
                    match value {
                        Some(value) => table.options.insert(name.clone(), value.clone()),
                        None => table.options.remove(name),
                    };
                }
                table.ttl_ns = *ttl_ns;
            }
            Self::Default { column, default } => {
                let columns = table.schemas.last_mut().map(|schema| &mut schema.columns);
                for known in columns.into_iter().flatten().filter(|known| known.id == *column) {
                    known.default.clone_from(default);
                }
            }
        }
        Ok(())
    }
}

/// What was decided on other columns than there are is not done: it would undo what has happened to them.
fn next_columns(
    table: &mut TableRecord,
    schema: &TableSchema,
    checks: &[CheckRecord],
    alterations: u32,
) -> Result<(), CatalogError> {
    let stays = |id: &u32| *id < FIRST_USER_COLUMN_ID || schema.columns.iter().any(|column| column.id == *id);
    let follows = schema.version == table.schema().version + 1 && alterations == table.alterations;
    if !follows || !table.unique.iter().flat_map(|key| &key.columns).all(stays) {
        return Err(CatalogError::TableAltered(table.namespace.clone(), table.name.clone()));
    }
    table.indexes.retain(|index| index.columns.iter().all(stays));
    table.column_comments.retain(|id, _| stays(id));
    table.checks = checks.to_vec();
    table.schemas.push(schema.clone());
    Ok(())
}

/// One change of the catalog.
#[derive(Debug, Clone)]
pub enum CatalogChange {
    /// Adds a namespace.
    CreateNamespace(NamespaceRecord),
    /// Adds a namespace unless it is there.
    EnsureNamespace(NamespaceRecord),
    /// Drops a namespace; `cascade` drops its tables too.
    DropNamespace {
        /// Name.
        name: String,
        /// Whether its tables go too.
        cascade: bool,
    },
    /// Adds a table. `id` was reserved; `prefix` is set by the change.
    CreateTable(TableRecord),
    /// Marks the folder of a table that may be created: it is removed like that of a dropped one unless the table is.
    ReserveTable {
        /// Its number, which was reserved.
        id: TableId,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Drops a table.
    DropTable {
        /// The table that is meant: another one of its name stays.
        id: TableId,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// What becomes of the views that read it.
        views: Readers,
    },
    /// Adds a view.
    CreateView {
        /// The view.
        view: ViewRecord,
        /// Whether it may take the place of another.
        replace: bool,
    },
    /// Drops a view.
    DropView {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// Whether the views that read it go too.
        cascade: bool,
    },
    /// Sets or removes a comment.
    Comment {
        /// What it is on.
        on: CommentOn,
        /// `None` = removed.
        text: Option<String>,
    },
    /// Alters a table.
    AlterTable {
        /// The table.
        table: TableId,
        /// How.
        change: TableChange,
    },
    /// Adds an index to a table.
    CreateIndex {
        /// The table.
        table: TableId,
        /// The index.
        index: IndexRecord,
    },
    /// Drops an index. The filters of files that there are stay in use.
    DropIndex {
        /// The table.
        table: TableId,
        /// Name of the index.
        name: String,
    },
    /// Adds a user. `number` is set by the change.
    CreateUser(UserRecord),
    /// Changes or drops a user.
    ChangeUser(UserChange),
    /// Gives rights.
    Grant {
        /// What they are on.
        on: GrantOn,
        /// Who gets them.
        to: GrantTo,
        /// The rights.
        privileges: Vec<Privilege>,
        /// Who gives them, and when.
        given: Given,
    },
    /// Takes rights away.
    Revoke {
        /// What they are on.
        on: GrantOn,
        /// Who has them.
        to: GrantTo,
        /// The rights.
        privileges: Vec<Privilege>,
    },
    /// Adds an API token.
    CreateToken(TokenRecord),
    /// Drops the API token of this id.
    DropToken(String),
    /// Changes nothing: what follows rests on it, and is not made where it does not hold.
    Require(Premise),
    /// Forgets a dropped table whose rows and files are gone.
    ForgetDropped(TableId),
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// The namespace is not there.
    #[error("namespace '{0}' does not exist")]
    NoNamespace(String),
    /// The table is not there.
    #[error("table '{0}.{1}' does not exist")]
    NoTable(String, String),
    /// The namespace is there.
    #[error("namespace '{0}' exists already")]
    NamespaceExists(String),
    /// The table is there.
    #[error("table '{0}.{1}' exists already")]
    TableExists(String, String),
    /// The view is not there.
    #[error("view '{0}.{1}' does not exist")]
    NoView(String, String),
    /// The view is there.
    #[error("view '{0}.{1}' exists already")]
    ViewExists(String, String),
    /// Views read what is to be dropped.
    #[error("{what} '{name}' is read by the view '{}.{}': drop that first, or use CASCADE", .view.0, .view.1)]
    IsRead {
        /// Table or view.
        what: &'static str,
        /// Its name.
        name: String,
        /// One of the views: its namespace and name.
        view: (String, String),
    },
    /// The view would be over itself.
    #[error("the view '{0}.{1}' would read itself, directly or by other views")]
    ViewReadsItself(String, String),
    /// Too many views over one another.
    #[error("the view '{0}.{1}' would be the end of more than {VIEW_NESTING_MAX} views that read one another")]
    ViewsTooDeep(String, String),
    /// The table is not what it was when its change was decided.
    #[error("table '{0}.{1}' was altered by another meanwhile: run the statement again")]
    TableAltered(String, String),
    /// The index is not there.
    #[error("index '{0}' does not exist")]
    NoIndex(String),
    /// The index is there.
    #[error("index '{1}' exists already")]
    IndexExists(String, String),
    /// The user is there, or was.
    #[error("user '{0}' exists already or existed before: user names are never reused")]
    UserExists(String),
    /// The user is not there, or was dropped.
    #[error("user '{0}' does not exist")]
    NoUser(String),
    /// The user has another role than it had when the change was allowed.
    #[error("user '{0}' was dropped or given another role meanwhile: try again")]
    UserChanged(String),
    /// The namespace or view of that name is not the one that the change was decided for.
    #[error("'{0}' was created anew meanwhile: look at what it is now, and run the statement again")]
    AnotherNow(String),
    /// The user of the first start must stay.
    #[error("user '{0}' is the first one: it can be neither dropped nor given another role")]
    FirstUser(String),
    /// The token is not there.
    #[error("token '{0}' does not exist")]
    NoToken(String),
    /// The token is there.
    #[error("token '{0}' exists already")]
    TokenExists(String),
    /// The namespace has tables.
    #[error("namespace '{0}' is not empty: drop its tables and views first, or use CASCADE")]
    NotEmpty(String),
    /// The namespace must stay.
    #[error("namespace '{0}' cannot be dropped")]
    Fixed(String),
}

/// Everything that is named, as of one commit.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    namespaces: BTreeMap<String, Arc<NamespaceRecord>>,
    tables: BTreeMap<(String, String), Arc<TableRecord>>,
    by_id: BTreeMap<TableId, Arc<TableRecord>>,
    views: BTreeMap<(String, String), Arc<ViewRecord>>,
    users: BTreeMap<String, Arc<UserRecord>>,
    users_by_number: BTreeMap<u64, Arc<UserRecord>>,
    grants: BTreeMap<GrantKey, Arc<GrantRecord>>,
    tokens: BTreeMap<String, Arc<TokenRecord>>,
    prefixes: BTreeSet<String>,
    dropped: BTreeMap<TableId, DroppedTable>,
    identity: CatalogIdentity,
}

/// Tells catalogs apart without holding them: clones have the same one until either is changed.
#[derive(Debug, Clone, Default)]
pub struct CatalogIdentity(Arc<()>);

impl PartialEq for CatalogIdentity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for CatalogIdentity {}

impl std::hash::Hash for CatalogIdentity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// A record of a catalog as it is stored.
#[derive(Debug, Clone)]
pub enum CatalogRecord {
    /// `n/{name}`
    Namespace(NamespaceRecord),
    /// `t/{id}`
    Table(TableRecord),
    /// `v/{namespace}\0{name}`
    View(ViewRecord),
    /// `p/{prefix}`
    Prefix(String),
    /// `g/{id}`
    Dropped(DroppedTable),
    /// users: `{name}`
    User(UserRecord),
    /// `r/{on}\0{to}`
    Grant(GrantRecord),
    /// `k/{id}`
    Token(TokenRecord),
}

/// What a change writes: a record, or the removal of one.
#[derive(Debug)]
pub enum CatalogWrite {
    /// Writes the record at its key.
    Put(Box<CatalogRecord>),
    /// Removes a namespace.
    RemoveNamespace(String),
    /// Removes a table.
    RemoveTable(TableId),
    /// Removes a view of a namespace.
    RemoveView(String, String),
    /// Removes a dropped table's mark.
    RemoveDropped(TableId),
    /// Removes what a user or role was given on something.
    RemoveGrant(GrantOn, Grantee),
    /// Removes an API token.
    RemoveToken(String),
}

impl Catalog {
    /// The catalog that these records make.
    pub fn from_records(records: impl IntoIterator<Item = CatalogRecord>) -> Self {
        let mut catalog = Self::default();
        for record in records {
            catalog.insert(record);
        }
        catalog
    }

    /// A namespace by name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<NamespaceRecord>> {
        self.namespaces.get(name)
    }

    /// All namespaces by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Arc<NamespaceRecord>> {
        self.namespaces.values()
    }

    /// A table by name.
    pub fn table(&self, namespace: &str, name: &str) -> Option<&Arc<TableRecord>> {
        self.tables.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// A table by number.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<TableRecord>> {
        self.by_id.get(&id)
    }

    /// All tables by namespace and name.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableRecord>> {
        self.tables.values()
    }

    /// The tables of a namespace by name.
    pub fn tables_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<TableRecord>> {
        self.tables
            .range((namespace.to_owned(), String::new())..)
            .take_while(move |((of, _), _)| of == namespace)
            .map(|(_, table)| table)
    }

    /// The table that has an index of this name.
    pub fn index<'a>(&'a self, namespace: &'a str, name: &str) -> Option<&'a Arc<TableRecord>> {
        self.tables_of(namespace).find(|table| table.indexes.iter().any(|index| index.name == name))
    }

    /// Folders of tables that there are or were.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefixes.iter().map(String::as_str)
    }

    /// Dropped tables that still have rows or files.
    pub fn dropped(&self) -> impl Iterator<Item = &DroppedTable> {
        self.dropped.values()
    }

    /// The highest table number in use or to be removed; 0 when there is none.
    pub fn max_table_id(&self) -> u32 {
        let live = self.by_id.keys().next_back().map_or(0, |id| id.0);
        let dropped = self.dropped.keys().next_back().map_or(0, |id| id.0);
        live.max(dropped)
    }

    /// Makes a change, and gives what has to be written for it. After an error `self` is as it was.
    pub fn apply(&mut self, change: &CatalogChange) -> Result<Vec<CatalogWrite>, CatalogError> {
        let writes = match change {
            CatalogChange::CreateNamespace(record) => self.create_namespace(record),
            CatalogChange::EnsureNamespace(record) => match self.namespaces.contains_key(&record.name) {
                true => Ok(vec![]),
                false => self.create_namespace(record),
            },
            CatalogChange::DropNamespace { name, cascade } => self.drop_namespace(name, *cascade),
            CatalogChange::CreateTable(record) => self.create_table(record),
            CatalogChange::ReserveTable { id, namespace, name } => Ok(self.reserve_table(*id, namespace, name)),
            CatalogChange::DropTable { id, namespace, name, views } => self.drop_table(*id, namespace, name, *views),
            CatalogChange::CreateView { view, replace } => self.create_view(view, *replace),
            CatalogChange::DropView { namespace, name, cascade } => self.drop_view(namespace, name, *cascade),
            CatalogChange::Comment { on, text } => self.comment(on, text.as_deref()),
            CatalogChange::AlterTable { table, change } => self.alter_table(*table, change),
            CatalogChange::CreateIndex { table, index } => self.create_index(*table, index),
            CatalogChange::DropIndex { table, name } => self.drop_index(*table, name),
            CatalogChange::CreateUser(record) => self.create_user(record),
            CatalogChange::ChangeUser(change) => self.change_user(change),
            CatalogChange::Grant { on, to, privileges, given } => self.grant(on, to, privileges, given),
            CatalogChange::Revoke { on, to, privileges } => Ok(self.revoke(on, to, privileges)),
            CatalogChange::CreateToken(record) => self.create_token(record),
            CatalogChange::DropToken(id) => self.drop_token(id),
            CatalogChange::Require(premise) => return self.require(premise).map(|()| vec![]),
            CatalogChange::ForgetDropped(id) => {
                self.dropped.remove(id);
                Ok(vec![CatalogWrite::RemoveDropped(*id)])
            }
        }?;
        self.identity = CatalogIdentity::default();
        Ok(writes)
    }

    /// What tells it from others.
    pub fn identity(&self) -> &CatalogIdentity {
        &self.identity
    }

    fn create_namespace(&mut self, record: &NamespaceRecord) -> Result<Vec<CatalogWrite>, CatalogError> {
        if self.namespaces.contains_key(&record.name) {
            return Err(CatalogError::NamespaceExists(record.name.clone()));
        }
        Ok(vec![self.put(CatalogRecord::Namespace(record.clone()))])
    }

    fn drop_namespace(&mut self, name: &str, cascade: bool) -> Result<Vec<CatalogWrite>, CatalogError> {
        if !self.namespaces.contains_key(name) {
            return Err(CatalogError::NoNamespace(name.to_owned()));
        }
        if name == DEFAULT_NAMESPACE {
            return Err(CatalogError::Fixed(name.to_owned()));
        }
        let tables: Vec<(TableId, String)> = self.tables_of(name).map(|table| (table.id, table.name.clone())).collect();
        if !cascade && (!tables.is_empty() || self.views_of(name).next().is_some()) {
            return Err(CatalogError::NotEmpty(name.to_owned()));
        }
        let mut writes = Vec::new();
        for (id, table) in tables {
            writes.extend(self.drop_table(id, name, &table, Readers::Drop)?);
        }
        let views: Vec<String> = self.views_of(name).map(|view| view.name.clone()).collect();
        for view in views {
            // One that reads another of them is gone with that.
            if self.view(name, &view).is_some() {
                writes.extend(self.drop_view(name, &view, true)?);
            }
        }
        self.namespaces.remove(name);
        writes.push(CatalogWrite::RemoveNamespace(name.to_owned()));
        writes.extend(self.forget_grants(|on, _| matches!(on, GrantOn::Namespace(of) if of == name)));
        Ok(writes)
    }

    fn create_table(&mut self, record: &TableRecord) -> Result<Vec<CatalogWrite>, CatalogError> {
        if !self.namespaces.contains_key(&record.namespace) {
            return Err(CatalogError::NoNamespace(record.namespace.clone()));
        }
        if self.table(&record.namespace, &record.name).is_some() {
            return Err(CatalogError::TableExists(record.namespace.clone(), record.name.clone()));
        }
        if self.view(&record.namespace, &record.name).is_some() {
            return Err(CatalogError::ViewExists(record.namespace.clone(), record.name.clone()));
        }
        let (prefix, first) = match self.dropped.remove(&record.id) {
            Some(reserved) => (reserved.prefix, CatalogWrite::RemoveDropped(record.id)),
            None => {
                let prefix = self.free_prefix(record.id, &record.namespace, &record.name);
                (prefix.clone(), self.put(CatalogRecord::Prefix(prefix)))
            }
        };
        Ok(vec![first, self.put(CatalogRecord::Table(TableRecord { prefix, ..record.clone() }))])
    }

    fn reserve_table(&mut self, id: TableId, namespace: &str, name: &str) -> Vec<CatalogWrite> {
        if self.dropped.contains_key(&id) {
            return vec![];
        }
        let prefix = self.free_prefix(id, namespace, name);
        let marked = DroppedTable { id, prefix: prefix.clone() };
        vec![self.put(CatalogRecord::Prefix(prefix)), self.put(CatalogRecord::Dropped(marked))]
    }

    fn free_prefix(&self, id: TableId, namespace: &str, name: &str) -> String {
        let mut prefix = paths::table_prefix(namespace, name);
        // More than once when another data directory has used the object store too.
        while self.prefixes.contains(&prefix) {
            prefix = paths::prefix_again(&prefix, id);
        }
        prefix
    }

    fn drop_table(
        &mut self,
        id: TableId,
        namespace: &str,
        name: &str,
        views: Readers,
    ) -> Result<Vec<CatalogWrite>, CatalogError> {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(table) = self.tables.get(&key).filter(|table| table.id == id).cloned() else {
            return Err(CatalogError::NoTable(namespace.to_owned(), name.to_owned()));
        };
        let mut writes = self.release("table", namespace, name, views)?;
        self.tables.remove(&key);
        self.by_id.remove(&table.id);
        let dropped = DroppedTable { id: table.id, prefix: table.prefix.clone() };
        writes.extend([CatalogWrite::RemoveTable(table.id), self.put(CatalogRecord::Dropped(dropped))]);
        writes.extend(self.forget_grants(|on, _| *on == GrantOn::Table(id)));
        Ok(writes)
    }

    fn alter_table(&mut self, table: TableId, change: &TableChange) -> Result<Vec<CatalogWrite>, CatalogError> {
        let Some(record) = self.by_id.get(&table) else {
            return Err(CatalogError::NoTable(String::new(), table.0.to_string()));
        };
        let before = (record.namespace.clone(), record.name.clone());
        let mut record = (**record).clone();
        change.apply(&mut record)?;
        if record.name != before.1 {
            let (namespace, name) = (record.namespace.clone(), record.name.clone());
            if self.table(&namespace, &name).is_some() {
                return Err(CatalogError::TableExists(namespace, name));
            }
            if self.view(&namespace, &name).is_some() {
                return Err(CatalogError::ViewExists(namespace, name));
            }
            // A view finds what it reads by name.
            self.release("table", &before.0, &before.1, Readers::Refuse)?;
            self.tables.remove(&before);
        }
        Ok(vec![self.put(CatalogRecord::Table(record))])
    }

    fn create_index(&mut self, table: TableId, index: &IndexRecord) -> Result<Vec<CatalogWrite>, CatalogError> {
        let Some(record) = self.by_id.get(&table).cloned() else {
            return Err(CatalogError::NoTable(String::new(), table.0.to_string()));
        };
        if self.index(&record.namespace, &index.name).is_some() {
            return Err(CatalogError::IndexExists(record.namespace.clone(), index.name.clone()));
        }
        if !index.columns.iter().all(|id| record.column_name(*id).is_some()) {
            return Err(CatalogError::TableAltered(record.namespace.clone(), record.name.clone()));
        }
        let mut record = (*record).clone();
        record.indexes.push(index.clone());
        record.indexes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(vec![self.put(CatalogRecord::Table(record))])
    }

    fn drop_index(&mut self, table: TableId, name: &str) -> Result<Vec<CatalogWrite>, CatalogError> {
        let known = |record: &&Arc<TableRecord>| record.indexes.iter().any(|index| index.name == name);
        let Some(record) = self.by_id.get(&table).filter(known) else {
            return Err(CatalogError::NoIndex(name.to_owned()));
        };
        let mut record = (**record).clone();
        record.indexes.retain(|index| index.name != name);
        Ok(vec![self.put(CatalogRecord::Table(record))])
    }

    fn put(&mut self, record: CatalogRecord) -> CatalogWrite {
        self.insert(record.clone());
        CatalogWrite::Put(Box::new(record))
    }

    fn insert(&mut self, record: CatalogRecord) {
        match record {
            CatalogRecord::Namespace(record) => {
                self.namespaces.insert(record.name.clone(), Arc::new(record));
            }
            CatalogRecord::Table(record) => {
                let record = Arc::new(record);
                self.by_id.insert(record.id, Arc::clone(&record));
                self.tables.insert((record.namespace.clone(), record.name.clone()), record);
            }
            CatalogRecord::View(record) => {
                self.views.insert((record.namespace.clone(), record.name.clone()), Arc::new(record));
            }
            CatalogRecord::Prefix(prefix) => {
                self.prefixes.insert(prefix);
            }
            CatalogRecord::Dropped(dropped) => {
                self.dropped.insert(dropped.id, dropped);
            }
            CatalogRecord::User(record) => {
                let record = Arc::new(record);
                self.users_by_number.insert(record.number, Arc::clone(&record));
                self.users.insert(record.name.clone(), record);
            }
            CatalogRecord::Grant(record) => {
                self.grants.insert((record.on.clone(), record.to.clone()), Arc::new(record));
            }
            CatalogRecord::Token(record) => {
                self.tokens.insert(record.id.clone(), Arc::new(record));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn table(id: u32, name: &str) -> CatalogChange {
        CatalogChange::CreateTable(TableRecord {
            id: TableId(id),
            namespace: "app".into(),
            name: name.into(),
            kind: TableKind::Shared,
            prefix: String::new(),
            options: BTreeMap::new(),
            indexes: vec![],
            unique: vec![],
            checks: vec![],
            alterations: 0,
            ttl_ns: None,
            comment: None,
            column_comments: BTreeMap::new(),
            schemas: vec![TableSchema { version: 1, columns: vec![] }],
            created_at_ns: 0,
            created_by: "root".into(),
        })
    }

    fn drop(name: &str) -> CatalogChange {
        CatalogChange::DropTable { id: TableId(1), namespace: "app".into(), name: name.into(), views: Readers::Refuse }
    }

    pub(super) fn app() -> Catalog {
        let mut catalog = Catalog::default();
        let namespace = NamespaceRecord { name: "app".into(), created_at_ns: 0, created_by: None, comment: None };
        catalog.apply(&CatalogChange::CreateNamespace(namespace)).unwrap();
        catalog
    }

    /// A view of namespace `app` that reads nothing.
    pub(super) fn view(name: &str) -> ViewRecord {
        ViewRecord {
            namespace: "app".into(),
            name: name.into(),
            query: "SELECT 1".into(),
            resolves_in: "app".into(),
            columns: vec![],
            reads: vec![],
            comment: None,
            column_comments: BTreeMap::new(),
            created_at_ns: 0,
            created_by: "root".into(),
        }
    }

    pub(super) fn create_user(name: &str, role: &str) -> CatalogChange {
        CatalogChange::CreateUser(UserRecord {
            number: 0,
            name: name.into(),
            role: role.into(),
            password_hash: "secret".into(),
            created_at_ns: 0,
            deleted_at_ns: None,
        })
    }

    #[test]
    fn a_change_gives_another_identity() {
        let mut catalog = app();
        let before = catalog.clone();
        assert_eq!(catalog.identity(), before.identity());
        let again = NamespaceRecord { name: "app".into(), created_at_ns: 7, created_by: None, comment: None };
        assert!(catalog.apply(&CatalogChange::CreateNamespace(again.clone())).is_err());
        assert_eq!(catalog.identity(), before.identity());
        assert!(catalog.apply(&CatalogChange::EnsureNamespace(again)).unwrap().is_empty());
        assert_eq!(catalog.namespace("app").unwrap().created_at_ns, 0);
        let other = NamespaceRecord { name: "other".into(), created_at_ns: 7, created_by: None, comment: None };
        assert_eq!(catalog.apply(&CatalogChange::EnsureNamespace(other)).unwrap().len(), 1);
        assert_ne!(catalog.identity(), before.identity());
    }

    #[test]
    fn a_table_of_a_used_name_gets_its_own_prefix() {
        let mut catalog = app();
        catalog.apply(&table(1, "t")).unwrap();
        assert_eq!(catalog.table("app", "t").unwrap().prefix, "app/t");
        catalog.apply(&drop("t")).unwrap();
        assert!(catalog.table("app", "t").is_none());
        catalog.apply(&table(2, "t")).unwrap();
        assert_eq!(catalog.table("app", "t").unwrap().prefix, "app/t~2");
        assert_eq!(catalog.dropped().map(|d| d.id.0).collect::<Vec<_>>(), [1]);
        assert_eq!(catalog.max_table_id(), 2);
    }

    #[test]
    fn a_reserved_table_has_its_prefix_when_it_comes() {
        let mut catalog = app();
        let reserve = |id| CatalogChange::ReserveTable { id: TableId(id), namespace: "app".into(), name: "t".into() };
        catalog.apply(&reserve(1)).unwrap();
        catalog.apply(&table(2, "t")).unwrap();
        assert_eq!(catalog.table("app", "t").unwrap().prefix, "app/t~2");
        // What never comes is removed like a dropped table.
        assert_eq!(catalog.dropped().map(|d| (d.id.0, d.prefix.as_str())).collect::<Vec<_>>(), [(1, "app/t")]);
        let drop = CatalogChange::DropTable {
            id: TableId(2),
            namespace: "app".into(),
            name: "t".into(),
            views: Readers::Refuse,
        };
        catalog.apply(&drop).unwrap();
        let writes = catalog.apply(&table(1, "t")).unwrap();
        assert!(matches!(writes[0], CatalogWrite::RemoveDropped(TableId(1))));
        assert_eq!(catalog.table("app", "t").unwrap().prefix, "app/t");
        assert_eq!(catalog.dropped().map(|d| d.id.0).collect::<Vec<_>>(), [2]);
        assert_eq!(catalog.apply(&reserve(3)).unwrap().len(), 2);
        assert!(catalog.apply(&reserve(3)).unwrap().is_empty());
    }

    #[test]
    fn refused_changes_leave_the_catalog_as_it_was() {
        let mut catalog = app();
        catalog.apply(&table(1, "t")).unwrap();
        assert!(matches!(catalog.apply(&table(2, "t")), Err(CatalogError::TableExists(..))));
        assert!(matches!(catalog.apply(&drop("u")), Err(CatalogError::NoTable(..))));
        let not_empty = CatalogChange::DropNamespace { name: "app".into(), cascade: false };
        assert!(matches!(catalog.apply(&not_empty), Err(CatalogError::NotEmpty(_))));
        assert_eq!(catalog.tables_of("app").count(), 1);
        catalog.apply(&CatalogChange::DropNamespace { name: "app".into(), cascade: true }).unwrap();
        assert_eq!((catalog.tables().count(), catalog.namespaces().count()), (0, 0));
    }
}
