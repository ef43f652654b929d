//! What errors of the catalog tell their reader: nothing of what is hidden from them.
//!
//! The catalog knows no rights. It refuses what does not fit together, and says what stands in the way; that may be another's.

use seracdb_storage::StorageError;
use seracdb_storage::catalog::{Catalog, CatalogError, Privilege, VIEW_NESTING_MAX};

use crate::error::{EngineError, ErrorKind};
use crate::identity::Principal;
use crate::rights::{Decision, Object, allows};

/// An error for a user, by what this catalog shows them.
pub(crate) fn told(reader: &Principal, catalog: &Catalog, error: EngineError) -> EngineError {
    let cause = error.source.as_ref().and_then(|cause| cause.downcast_ref::<StorageError>());
    let discreet = match cause {
        Some(StorageError::Catalog(why)) => discreet(reader, catalog, why),
        _ => None,
    };
    match discreet {
        Some(message) => EngineError { message, ..error },
        None => error,
    }
}

/// The error for a name that something has which its reader does not see: it does not say what.
pub(crate) fn taken(name: &str) -> EngineError {
    EngineError::new(ErrorKind::AlreadyExists, is_taken(name))
}

/// The text for what a hidden view reads.
pub(crate) fn is_read(what: &str, name: &str) -> String {
    format!("{what} '{name}' is read by a view of another user: that has to be dropped first, or use CASCADE")
}

/// What is said of a view that reads a column.
pub(crate) fn is_read_by_another(what: &str) -> String {
    format!("{what} is read by a view of another user: that has to be dropped first")
}

fn is_taken(name: &str) -> String {
    format!("'{name}' exists already: choose another name")
}

/// In other words, where the catalog's own would tell of something hidden.
fn discreet(reader: &Principal, catalog: &Catalog, why: &CatalogError) -> Option<String> {
    let sees = |object: Object<'_>| allows(reader, object, Privilege::Select, catalog) != Decision::Hidden;
    let view = |namespace: &str, name: &str| catalog.view(namespace, name).map(|view| sees(Object::View(view)));
    let table = |namespace: &str, name: &str| catalog.table(namespace, name).map(|table| sees(Object::Table(table)));
    match why {
        CatalogError::TableExists(namespace, name) | CatalogError::ViewExists(namespace, name) => {
            // Gone by now: nobody can tell any more.
            let seen = table(namespace, name).or_else(|| view(namespace, name)).unwrap_or(false);
            (!seen).then(|| is_taken(&format!("{namespace}.{name}")))
        }
        CatalogError::IndexExists(namespace, name) => {
            let seen = catalog.index(namespace, name).is_some_and(|table| sees(Object::Table(table)));
            (!seen).then(|| is_taken(name))
        }
        CatalogError::IsRead { what, name, view: (of, reading) } => {
            (!view(of, reading).unwrap_or(false)).then(|| is_read(what, name))
        }
        // One that is not there is the one to be created.
        CatalogError::ViewReadsItself(namespace, name) => (!view(namespace, name).unwrap_or(true))
            .then(|| "the view would read itself, by a view of another user".to_owned()),
        CatalogError::ViewsTooDeep(namespace, name) => (!view(namespace, name).unwrap_or(true)).then(|| {
            format!(
                "a view of another user would be the end of more than {VIEW_NESTING_MAX} views that read one another"
            )
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use seracdb_storage::catalog::{CatalogRecord, IndexRecord, NamespaceRecord, TableKind, TableRecord, ViewRecord};
    use seracdb_storage::keys::TableId;
    use seracdb_storage::schema::TableSchema;

    use super::*;
    use crate::identity::Role;

    /// A table with an index and a view, both of `vic`.
    fn catalog() -> Catalog {
        let namespace = NamespaceRecord { name: "n".into(), created_at_ns: 0, created_by: None, comment: None };
        let table = TableRecord {
            indexes: vec![IndexRecord { name: "i".into(), columns: vec![] }],
            created_by: "vic".into(),
            ..TableRecord::new(TableId(1), "n", "t", TableKind::Shared, TableSchema { version: 1, columns: vec![] })
        };
        let view = ViewRecord {
            namespace: "n".into(),
            name: "v".into(),
            query: "SELECT 1".into(),
            resolves_in: "n".into(),
            columns: vec![],
            reads: vec![],
            comment: None,
            column_comments: BTreeMap::new(),
            created_at_ns: 0,
            created_by: "vic".into(),
        };
        Catalog::from_records([
            CatalogRecord::Namespace(namespace),
            CatalogRecord::Table(table),
            CatalogRecord::View(view),
        ])
    }

    fn text(reader: &str, why: CatalogError) -> String {
        let reader = Principal::new(reader.to_owned(), 7, Role::Service);
        told(&reader, &catalog(), StorageError::from(why).into()).message
    }

    #[test]
    fn what_stands_in_the_way_is_named_to_who_sees_it() {
        let of = |name: &str| ("n".to_owned(), name.to_owned());
        let ((n, t), (_, v)) = (of("t"), of("v"));
        for (why, shown, hidden) in [
            (
                CatalogError::TableExists(n.clone(), t.clone()),
                "table 'n.t' exists already",
                "'n.t' exists already: choose another name",
            ),
            (
                CatalogError::ViewExists(n.clone(), v.clone()),
                "view 'n.v' exists already",
                "'n.v' exists already: choose another name",
            ),
            (
                CatalogError::IndexExists(n.clone(), "i".into()),
                "index 'i' exists already",
                "'i' exists already: choose another name",
            ),
            (
                CatalogError::IsRead { what: "table", name: "a.b".into(), view: (n.clone(), v.clone()) },
                "table 'a.b' is read by the view 'n.v': drop that first, or use CASCADE",
                "table 'a.b' is read by a view of another user: that has to be dropped first, or use CASCADE",
            ),
            (
                CatalogError::ViewReadsItself(n.clone(), v.clone()),
                "the view 'n.v' would read itself, directly or by other views",
                "the view would read itself, by a view of another user",
            ),
            (
                CatalogError::ViewsTooDeep(n.clone(), v),
                "the view 'n.v' would be the end of more than 32 views that read one another",
                "a view of another user would be the end of more than 32 views that read one another",
            ),
        ] {
            assert_eq!(text("vic", why.clone()), shown);
            assert_eq!(text("svc", why), hidden);
        }
        let own = CatalogError::ViewsTooDeep(n, "new".into());
        assert_eq!(text("svc", own.clone()), own.to_string());
        assert_eq!(text("svc", CatalogError::NoUser("x".into())), "user 'x' does not exist");
    }
}
