//! `system.users` and `system.grants`: to an admin all of them, to others what concerns them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use seracdb_storage::catalog::{GrantOn, GrantRecord, Grantee, TableRecord, ViewRecord};

use crate::error::Result;
use crate::identity::Role;
use crate::rights::{Object, grantees, owns_namespace};
use crate::row_builder::{Rows, TEXT, TIME, schema};
use crate::sql::names::sql_name;
use crate::table_rights::privilege_name;
use crate::tables::Tables;

pub(crate) fn users_schema() -> SchemaRef {
    schema(&[("name", TEXT, false), ("role", TEXT, false), ("created_at", TIME, false), ("dropped_at", TIME, true)])
}

/// The users, dropped ones included: neither hashes nor numbers.
pub(crate) fn users(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(users_schema());
    let reader = &tables.principal;
    let all = reader.role() >= Role::Admin;
    for user in tables.catalog().users().filter(|user| all || user.number == reader.number()) {
        rows.text(0, Some(&user.name));
        rows.text(1, Some(&user.role));
        rows.time(2, Some(user.created_at_ns));
        rows.time(3, user.deleted_at_ns);
    }
    rows.finish()
}

pub(crate) fn grants_schema() -> SchemaRef {
    schema(&[
        ("grantee", TEXT, false),
        ("grantee_kind", TEXT, false),
        ("kind", TEXT, false),
        ("object", TEXT, false),
        ("privilege", TEXT, false),
        ("granted_by", TEXT, false),
        ("granted_at", TIME, false),
    ])
}

/// A row for each right that was given: those that the reader has, and those on what the reader owns.
pub(crate) fn grants(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(grants_schema());
    let mine: Vec<Grantee> = grantees(&tables.principal).collect();
    for grant in tables.catalog().grants() {
        let Some(on) = GrantedOn::of(tables, &grant.on) else { continue };
        let (grantee, grantee_kind) = match &grant.to {
            Grantee::Role(role) => (role.as_str(), "role"),
            Grantee::User(number) => match tables.catalog().user_by_number(*number) {
                Some(user) => (user.name.as_str(), "user"),
                None => continue,
            },
        };
        if mine.contains(&grant.to) || on.is_owned(tables) {
            push(&mut rows, grant, grantee, grantee_kind, on);
        }
    }
    rows.finish()
}

fn push(rows: &mut Rows, grant: &GrantRecord, grantee: &str, grantee_kind: &str, on: GrantedOn<'_>) {
    for (privilege, given) in &grant.privileges {
        rows.text(0, Some(grantee));
        rows.text(1, Some(grantee_kind));
        rows.text(2, Some(on.kind()));
        rows.text(3, Some(&on.name()));
        rows.text(4, Some(privilege_name(*privilege)));
        rows.text(5, Some(&given.by));
        rows.time(6, Some(given.at_ns));
    }
}

/// What rights are on.
#[derive(Clone, Copy)]
enum GrantedOn<'a> {
    Object(Object<'a>),
    Namespace(&'a str),
}

impl<'a> GrantedOn<'a> {
    fn of(tables: &'a Tables, on: &'a GrantOn) -> Option<Self> {
        let table = |table: &'a TableRecord| Self::Object(Object::Table(table));
        let view = |view: &'a ViewRecord| Self::Object(Object::View(view));
        match on {
            GrantOn::Table(id) => tables.catalog().table_by_id(*id).map(|found| table(found)),
            GrantOn::View(namespace, name) => tables.catalog().view(namespace, name).map(|found| view(found)),
            GrantOn::Namespace(name) => Some(Self::Namespace(name)),
        }
    }

    fn is_owned(self, tables: &Tables) -> bool {
        match self {
            Self::Object(object) => tables.owns(object),
            Self::Namespace(name) => owns_namespace(&tables.principal, name, tables.catalog()),
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Object(object) => object.what(),
            Self::Namespace(_) => "namespace",
        }
    }

    /// As GRANT wants it.
    fn name(self) -> String {
        match self {
            Self::Object(object) => format!("{}.{}", sql_name(object.namespace()), sql_name(object.name())),
            Self::Namespace(name) => sql_name(name),
        }
    }
}
