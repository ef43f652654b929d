//! The catalog: its records can be read, and what they name is there.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Faults, Found, Invariant};
use super::opened::Highest;
use crate::catalog::{
    Catalog, CatalogRecord, DEFAULT_NAMESPACE, GrantOn, GrantRecord, Grantee, NamespaceRecord, TableKind, TableRecord,
    ViewRecord,
};
use crate::commit_records::catalog_key;
use crate::error::{Result, StorageError};
use crate::rocks::{Family, RocksSnapshot};
use crate::store::catalog_record;
use crate::system_columns::{FIRST_USER_COLUMN_ID, is_system_column};

const PLACE: &str = "catalog";

/// Reads the catalog, without what cannot be read of it.
pub(super) fn read(rocks: &RocksSnapshot, found: &mut Found) -> Result<Catalog> {
    // Always there, and therefore not stored.
    let default = NamespaceRecord { name: DEFAULT_NAMESPACE.into(), created_at_ns: 0, created_by: None, comment: None };
    let mut records = vec![CatalogRecord::Namespace(default)];
    let mut faults = Faults::default();
    let mut add = |key: &[u8], record: Result<CatalogRecord>| match record {
        Ok(record) => {
            let said = catalog_key(&record);
            faults.expect(said.as_bytes() == key, Invariant::Catalog, || {
                format!("the record at '{}' says that it is '{}'", printed(key), printed(said.as_bytes()))
            });
            records.push(record);
        }
        Err(error) => faults.add(Invariant::Readable, format!("'{}': {error}", printed(key))),
    };
    rocks.scan(Family::Catalog, &[], &[], |key, json| {
        add(key, catalog_record(key, json));
        Ok(())
    })?;
    rocks.scan(Family::Users, &[], &[], |key, json| {
        let user = serde_json::from_slice(json).map_err(StorageError::damaged_json("a user record"));
        add(key, user.map(CatalogRecord::User));
        Ok(())
    })?;
    found.add_all(PLACE, numbers_given_twice(&records));
    found.add_all(PLACE, faults);
    Ok(Catalog::from_records(records))
}

/// What a catalog, which knows one record a number and name, no longer shows.
fn numbers_given_twice(records: &[CatalogRecord]) -> Faults {
    let mut faults = Faults::default();
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for record in records {
        let (number, name) = match record {
            CatalogRecord::User(user) => (format!("user {}", user.number), &user.name),
            CatalogRecord::Table(table) => (format!("table '{}.{}'", table.namespace, table.name), &table.name),
            _ => continue,
        };
        if let Some(other) = seen.insert(number.clone(), name) {
            faults.add(Invariant::Catalog, format!("{number} is there twice: '{other}' and '{name}'"));
        }
    }
    faults
}

/// Whether what the records name is there.
pub(super) fn check(catalog: &Catalog, highest: Highest) -> Faults {
    let mut faults = Faults::default();
    let mut prefixes = BTreeSet::new();
    for table in catalog.tables() {
        check_table(catalog, table, highest, &mut faults);
        faults.expect(prefixes.insert(&table.prefix), Invariant::Catalog, || {
            format!("two tables have their files in '{}'", table.prefix)
        });
    }
    for dropped in catalog.dropped() {
        faults.expect(catalog.table_by_id(dropped.id).is_none(), Invariant::Catalog, || {
            format!("table {} is there and dropped", dropped.id.0)
        });
    }
    catalog.views().for_each(|view| check_view(catalog, view, &mut faults));
    if let Err(error) = catalog.check_views() {
        faults.add(Invariant::Catalog, error.to_string());
    }
    catalog.grants().for_each(|grant| check_grant(catalog, grant, &mut faults));
    for namespace in catalog.namespaces() {
        let of = || format!("namespace '{}'", namespace.name);
        namespace.created_by.iter().for_each(|owner| check_owner(catalog, owner, of, &mut faults));
    }
    for token in catalog.tokens() {
        check_owner(catalog, &token.user, || format!("token '{}'", token.id), &mut faults);
    }
    for user in catalog.users() {
        let is_sound = user.number > 0 && (user.deleted_at_ns.is_none() || user.password_hash.is_empty());
        faults.expect(is_sound, Invariant::Catalog, || {
            format!("user '{}' has number {}, or a password though dropped", user.name, user.number)
        });
    }
    faults
}

fn check_table(catalog: &Catalog, table: &TableRecord, highest: Highest, faults: &mut Faults) {
    let name = || format!("table '{}.{}'", table.namespace, table.name);
    let mut expect =
        |holds: bool, what: &str| faults.expect(holds, Invariant::Catalog, || format!("{} {what}", name()));
    expect(catalog.namespace(&table.namespace).is_some(), "is in a namespace that is not there");
    expect(catalog.prefixes().any(|prefix| prefix == table.prefix), "has its files where other tables may come to lie");
    expect(table.id.0 <= highest.table, "has a number above the highest one");
    expect(
        (table.kind == TableKind::Stream) == table.ttl_ns.is_some(),
        "lives for a time and is no stream, or the other way",
    );
    expect(!table.schemas.is_empty(), "has no columns");
    let versions = table.schemas.iter().map(|schema| schema.version);
    expect(versions.clone().zip(versions.skip(1)).all(|(a, b)| a < b), "has schema versions that do not rise");
    for schema in &table.schemas {
        let ids: BTreeSet<u32> = schema.columns.iter().map(|column| column.id).collect();
        let names: BTreeSet<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        let count = schema.columns.len();
        expect(ids.len() == count && names.len() == count, "has two columns of one name or number");
        expect(ids.iter().all(|id| *id >= FIRST_USER_COLUMN_ID), "has a column of a number that is the system's");
        expect(!names.iter().any(|name| is_system_column(name)), "has a column of a name that is the system's");
    }
    if let Some(schema) = table.schemas.last() {
        let indexed = table.indexes.iter().flat_map(|index| &index.columns);
        let is_there = |id: &u32| schema.columns.iter().any(|column| column.id == *id) || *id < FIRST_USER_COLUMN_ID;
        expect(indexed.into_iter().all(is_there), "has an index on a column that is not there");
    }
    check_owner(catalog, &table.created_by, name, faults);
}

fn check_view(catalog: &Catalog, view: &ViewRecord, faults: &mut Faults) {
    let name = || format!("view '{}.{}'", view.namespace, view.name);
    let mut expect =
        |holds: bool, what: String| faults.expect(holds, Invariant::Catalog, || format!("{} {what}", name()));
    expect(catalog.namespace(&view.namespace).is_some(), "is in a namespace that is not there".into());
    expect(catalog.table(&view.namespace, &view.name).is_none(), "has the name of a table".into());
    for read in view.reads.iter().filter(|read| !read.built_in) {
        let (namespace, name) = (&read.namespace, &read.name);
        let is_there = catalog.table(namespace, name).is_some() || catalog.view(namespace, name).is_some();
        expect(is_there, format!("reads '{namespace}.{name}', which is not there"));
    }
    check_owner(catalog, &view.created_by, name, faults);
}

fn check_grant(catalog: &Catalog, grant: &GrantRecord, faults: &mut Faults) {
    let on = match &grant.on {
        GrantOn::Table(id) => catalog.table_by_id(*id).is_some(),
        GrantOn::View(namespace, name) => catalog.view(namespace, name).is_some(),
        GrantOn::Namespace(name) => catalog.namespace(name).is_some(),
    };
    let to = match &grant.to {
        Grantee::User(number) => catalog.user_by_number(*number).is_some_and(|user| user.deleted_at_ns.is_none()),
        Grantee::Role(role) => !role.is_empty(),
    };
    faults.expect(on && to && !grant.privileges.is_empty(), Invariant::Catalog, || {
        format!("rights on {:?} of {:?}: one of the two is gone, or there are none", grant.on, grant.to)
    });
}

/// Names of users are never given out twice: those of dropped ones are there too.
fn check_owner(catalog: &Catalog, owner: &str, of: impl FnOnce() -> String, faults: &mut Faults) {
    faults.expect(catalog.user(owner).is_some(), Invariant::Catalog, || {
        format!("{} belongs to '{owner}', who was never a user", of())
    });
}

fn printed(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replace('\0', " ")
}
