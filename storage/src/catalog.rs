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
mod tables;
mod tokens;
mod users;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::keys::TableId;

pub use comments::CommentOn;
use grants::GrantKey;
pub use grants::{Given, GrantOn, GrantRecord, GrantTo, Grantee, Privilege};
pub use premises::{Made, Premise};
pub use tables::{
    CheckRecord, ConstraintChange, DroppedTable, IndexRecord, TableChange, TableKind, TableRecord, UniqueRecord,
};
pub use tokens::TokenRecord;
pub use users::{UserBecomes, UserChange, UserRecord};
pub use views::{Readers, VIEW_NESTING_MAX, ViewRead, ViewRecord};

/// The namespace that is always there.
pub const DEFAULT_NAMESPACE: &str = "default";

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
    /// Rows came or changed after those that a constraint was found to hold of.
    #[error("rows of table '{0}.{1}' were written while they were looked at: run the statement again")]
    TableWritten(String, String),
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
    use crate::schema::TableSchema;
    use crate::test_table::table_record;

    pub(super) fn table(id: u32, name: &str) -> CatalogChange {
        let schemas = vec![TableSchema { version: 1, columns: vec![] }];
        let (namespace, name) = ("app".into(), name.into());
        CatalogChange::CreateTable(TableRecord { id: TableId(id), namespace, name, schemas, ..table_record() })
    }

    pub(super) fn drop(name: &str) -> CatalogChange {
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
