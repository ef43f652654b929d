//! Tables: the records, and the rules by which they come, change and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, CatalogRecord, CatalogWrite, GrantOn, Readers};
use crate::bloom::{DISABLED_OPTION, listed_columns};
use crate::keys::{Scope, TableId};
use crate::paths;
use crate::schema::TableSchema;
use crate::system_columns::{
    DELETED, DELETED_COLUMN_ID, FIRST_USER_COLUMN_ID, ID, ID_COLUMN_ID, UPDATED, UPDATED_COLUMN_ID,
};

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
    /// How often more was asked of its rows than before: another key, check or NOT NULL.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rules: u32,
    /// The highest number that a unique key had which was dropped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keys_dropped: u32,
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
    /// A table of nothing but columns, whose owner is `root` since the beginning of time: the others are said besides.
    pub fn new(id: TableId, namespace: &str, name: &str, kind: TableKind, schema: TableSchema) -> Self {
        Self {
            id,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind,
            prefix: String::new(),
            options: BTreeMap::new(),
            indexes: vec![],
            unique: vec![],
            checks: vec![],
            alterations: 0,
            rules: 0,
            keys_dropped: 0,
            ttl_ns: None,
            comment: None,
            column_comments: BTreeMap::new(),
            schemas: vec![schema],
            created_at_ns: 0,
            created_by: "root".to_owned(),
        }
    }

    /// The current schema.
    pub fn schema(&self) -> &TableSchema {
        self.schemas.last().expect("a table is created with a schema, and schemas are only added")
    }

    /// One of its schemas.
    pub fn schema_of(&self, version: u32) -> Option<&TableSchema> {
        self.schemas.iter().find(|schema| schema.version == version)
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

    /// The number of the next unique key.
    pub fn next_key_id(&self) -> u32 {
        self.unique.iter().map(|key| key.id).fold(self.keys_dropped, u32::max) + 1
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
    /// Other keys and checks, and columns that are NOT NULL.
    Constraints(ConstraintChange),
    /// Another name, in the same namespace.
    Name(String),
}

/// What rows have to satisfy from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstraintChange {
    /// All unique keys. A new one has [`TableRecord::next_key_id`], or one above.
    pub unique: Vec<UniqueRecord>,
    /// What holds of every row.
    pub checks: Vec<CheckRecord>,
    /// Ids of columns that may have NULL, and may not any more.
    pub not_null: Vec<u32>,
    /// The version of the columns that this was decided on.
    pub version: u32,
    /// How often the table had been altered otherwise.
    pub alterations: u32,
    /// The scopes with rows, which all satisfy it as of the commit's snapshot. `None`: nothing is asked that was not before.
    pub verified: Option<Vec<Scope>>,
}

impl ConstraintChange {
    /// Whether there is a unique key that the table does not have.
    pub fn adds_key(&self, table: &TableRecord) -> bool {
        self.unique.iter().any(|key| table.unique.iter().all(|known| known.id != key.id))
    }
}

impl TableChange {
    /// Makes the change. A column that is not there has none.
    ///
    /// Errors: [`CatalogError::TableAltered`].
    pub fn apply(&self, table: &mut TableRecord) -> Result<(), CatalogError> {
        match self {
            Self::Columns { schema, checks, alterations } => {
                return next_columns(table, schema, checks, *alterations);
            }
            Self::Constraints(change) => return next_constraints(table, change),
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
        table.alterations += 1;
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
    let unfiltered = table
        .options
        .get(DISABLED_OPTION)
        .map(|list| listed_columns(list).filter_map(|name| table.column_id(name)).filter(stays).collect::<Vec<u32>>());
    table.indexes.retain(|index| index.columns.iter().all(stays));
    table.column_comments.retain(|id, _| stays(id));
    table.checks = checks.to_vec();
    table.schemas.push(schema.clone());
    // The one option that names columns follows them.
    if let Some(columns) = unfiltered {
        let names: Vec<&str> = columns.iter().filter_map(|id| table.column_name(*id)).collect();
        match names.join(", ") {
            none if none.is_empty() => table.options.remove(DISABLED_OPTION),
            list => table.options.insert(DISABLED_OPTION.to_owned(), list),
        };
    }
    Ok(())
}

/// The same for constraints: those of others would be undone.
fn next_constraints(table: &mut TableRecord, change: &ConstraintChange) -> Result<(), CatalogError> {
    let ConstraintChange { unique, checks, not_null, version, alterations, verified } = change;
    if *version != table.schema().version || *alterations != table.alterations {
        return Err(CatalogError::TableAltered(table.namespace.clone(), table.name.clone()));
    }
    let is_gone = |key: &&UniqueRecord| unique.iter().all(|stays| stays.id != key.id);
    table.keys_dropped = table.unique.iter().filter(is_gone).map(|key| key.id).fold(table.keys_dropped, u32::max);
    table.unique.clone_from(unique);
    table.checks.clone_from(checks);
    table.rules += u32::from(verified.is_some());
    if not_null.is_empty() {
        table.alterations += 1;
        return Ok(());
    }
    let mut schema = table.schema().clone();
    schema.version += 1;
    for column in schema.columns.iter_mut().filter(|column| not_null.contains(&column.id)) {
        column.nullable = false;
    }
    table.schemas.push(schema);
    Ok(())
}

impl Catalog {
    pub(super) fn create_table(&mut self, record: &TableRecord) -> Result<Vec<CatalogWrite>, CatalogError> {
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

    pub(super) fn reserve_table(&mut self, id: TableId, namespace: &str, name: &str) -> Vec<CatalogWrite> {
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

    pub(super) fn drop_table(
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

    pub(super) fn alter_table(
        &mut self,
        table: TableId,
        change: &TableChange,
    ) -> Result<Vec<CatalogWrite>, CatalogError> {
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

    pub(super) fn create_index(
        &mut self,
        table: TableId,
        index: &IndexRecord,
    ) -> Result<Vec<CatalogWrite>, CatalogError> {
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

    pub(super) fn drop_index(&mut self, table: TableId, name: &str) -> Result<Vec<CatalogWrite>, CatalogError> {
        let known = |record: &&Arc<TableRecord>| record.indexes.iter().any(|index| index.name == name);
        let Some(record) = self.by_id.get(&table).filter(known) else {
            return Err(CatalogError::NoIndex(name.to_owned()));
        };
        let mut record = (**record).clone();
        record.indexes.retain(|index| index.name != name);
        Ok(vec![self.put(CatalogRecord::Table(record))])
    }
}

#[cfg(test)]
mod tests {
    use super::super::CatalogChange;
    use arrow::datatypes::DataType;

    use super::super::tests::{app, drop, table};
    use super::*;
    use crate::schema::Column;

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

    /// A table of one version, altered as it is told.
    fn altered(changes: &[TableChange]) -> Result<TableRecord, CatalogError> {
        let CatalogChange::CreateTable(mut record) = table(1, "t") else { panic!() };
        changes.iter().try_for_each(|change| change.apply(&mut record)).map(|()| record)
    }

    #[test]
    fn columns_that_were_decided_on_others_are_refused() {
        let columns = |version, alterations| TableChange::Columns {
            schema: TableSchema { version, columns: vec![] },
            checks: vec![],
            alterations,
        };
        let other = || TableChange::Name("u".into());
        assert_eq!(altered(&[columns(2, 0), columns(3, 0)]).unwrap().schema().version, 3);
        assert_eq!(altered(&[other(), columns(2, 1)]).unwrap().name, "u");
        for refused in [&[columns(2, 0), columns(2, 0)], &[other(), columns(2, 0)], &[columns(1, 0), columns(2, 0)]] {
            assert!(matches!(altered(refused), Err(CatalogError::TableAltered(..))), "{refused:?}");
        }
    }

    #[test]
    fn constraints_are_of_the_columns_that_they_were_decided_on() {
        let key = |id| UniqueRecord { id, name: format!("k{id}"), columns: vec![], primary: false, nulls_equal: false };
        let change = |unique: &[u32], not_null: &[u32], version, alterations, verified: bool| {
            TableChange::Constraints(ConstraintChange {
                unique: unique.iter().map(|id| key(*id)).collect(),
                checks: vec![],
                not_null: not_null.to_vec(),
                version,
                alterations,
                verified: verified.then(Vec::new),
            })
        };
        let added = change(&[1, 2], &[], 1, 0, true);
        let table = altered(std::slice::from_ref(&added)).unwrap();
        assert_eq!((table.rules, table.alterations, table.keys_dropped, table.next_key_id()), (1, 1, 0, 3));
        // The number of a key that is gone is never another's.
        let dropped = change(&[1], &[], 1, 1, false);
        let table = altered(&[added.clone(), dropped.clone()]).unwrap();
        assert_eq!((table.rules, table.alterations, table.keys_dropped, table.next_key_id()), (1, 2, 2, 3));
        // NOT NULL is of another version of the columns.
        let columns = TableChange::Columns {
            schema: TableSchema {
                version: 2,
                columns: [16, 17].map(|id| Column::new(id, format!("c{id}"), DataType::Int32, true)).to_vec(),
            },
            checks: vec![],
            alterations: 0,
        };
        let table = altered(&[columns, change(&[1], &[17], 2, 0, true)]).unwrap();
        assert_eq!((table.rules, table.alterations, table.schema().version), (1, 0, 3));
        assert_eq!(table.schema().columns.iter().map(|column| column.nullable).collect::<Vec<_>>(), [true, false]);
        assert!(table.schema_of(2).unwrap().columns.iter().all(|column| column.nullable));
        for refused in [&[added.clone(), added.clone()][..], &[dropped], &[change(&[], &[], 2, 0, false)]] {
            assert!(matches!(altered(refused), Err(CatalogError::TableAltered(..))), "{refused:?}");
        }
    }

    #[test]
    fn the_option_that_names_columns_follows_them() {
        let column = |id, name: &str| Column::new(id, name, DataType::Int32, true);
        let columns = |version, alterations, columns| TableChange::Columns {
            schema: TableSchema { version, columns },
            checks: vec![],
            alterations,
        };
        let (a, b) = (FIRST_USER_COLUMN_ID, FIRST_USER_COLUMN_ID + 1);
        let unfiltered = BTreeMap::from([(DISABLED_OPTION.to_owned(), Some("b,_updated, a".to_owned()))]);
        let begun = [
            columns(2, 0, vec![column(a, "a"), column(b, "b")]),
            TableChange::Options { options: unfiltered, ttl_ns: None },
        ];
        let option = |changes: &[TableChange]| {
            let table = altered(&[&begun[..], changes].concat()).unwrap();
            table.options.get(DISABLED_OPTION).cloned()
        };
        // Another column of the old name is another one.
        let renamed = columns(3, 1, vec![column(a, "x"), column(b, "b"), column(b + 1, "a")]);
        assert_eq!(option(std::slice::from_ref(&renamed)).as_deref(), Some("b, _updated, x"));
        let dropped = columns(4, 1, vec![column(b + 1, "a")]);
        assert_eq!(option(&[renamed, dropped]).as_deref(), Some("_updated"));
    }

    #[test]
    fn a_table_is_found_by_its_new_name_and_no_more_by_the_old() {
        let mut catalog = app();
        [table(1, "t"), table(2, "u")].iter().for_each(|change| assert!(catalog.apply(change).is_ok()));
        let rename = |to: &str| CatalogChange::AlterTable { table: TableId(1), change: TableChange::Name(to.into()) };
        assert!(matches!(catalog.apply(&rename("u")), Err(CatalogError::TableExists(..))));
        assert!(catalog.table("app", "t").is_some());
        catalog.apply(&rename("v")).unwrap();
        assert!(catalog.table("app", "t").is_none());
        assert_eq!(catalog.table("app", "v").map(|table| table.id), Some(TableId(1)));
        // Its files stay where they are, and another of its name has others.
        catalog.apply(&table(3, "t")).unwrap();
        assert_ne!(catalog.table("app", "t").unwrap().prefix, catalog.table("app", "v").unwrap().prefix);
    }
}
