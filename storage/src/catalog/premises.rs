//! What a change of the catalog rests on: what it was decided for has to be there still when it is made.
//!
//! In between others commit: for as long as a transaction is open, and for a moment outside of one. What a name meant may then be
//! another's. A premise is checked in its place among the changes, on the catalog that they are made on, so what the same commit
//! has made before is there for it.

use std::sync::Arc;

use super::{Catalog, CatalogChange, CatalogError, NamespaceRecord, TableRecord, ViewRecord};
use crate::keys::TableId;

/// Tells a namespace or view from others that had its name before, or will have it. A view that is replaced stays the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    at_ns: i64,
    by: Option<String>,
}

impl NamespaceRecord {
    /// What tells it from others of its name.
    pub fn made(&self) -> Made {
        Made { at_ns: self.created_at_ns, by: self.created_by.clone() }
    }
}

impl ViewRecord {
    /// What tells it from others of its name.
    pub fn made(&self) -> Made {
        Made { at_ns: self.created_at_ns, by: Some(self.created_by.clone()) }
    }
}

/// What has to hold. Of a name that nothing has any more nothing is said: the change itself is refused, or means nobody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Premise {
    /// No other namespace has this name.
    Namespace {
        /// The name.
        name: String,
        /// The one that was meant; `None` when there was none.
        made: Option<Made>,
    },
    /// No other view has this name.
    View {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// The one that was meant; `None` when there was none.
        made: Option<Made>,
    },
    /// No other table has this name, and it has these columns.
    Columns {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// The one that was meant.
        id: TableId,
        /// Version of its columns.
        version: u32,
    },
    /// These are the views that read a table.
    Readers {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// By namespace and name.
        views: Vec<Arc<ViewRecord>>,
    },
    /// A user is there and has this role.
    Role {
        /// Name of the user.
        user: String,
        /// The role, as the engine names it.
        role: String,
    },
}

impl TableRecord {
    /// That it still is what its name means, with its columns as they are.
    pub fn same_columns(&self) -> Premise {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        Premise::Columns { namespace, name, id: self.id, version: self.schema().version }
    }
}

impl Catalog {
    /// That a table is read by the views that read it now.
    pub fn same_readers(&self, table: &TableRecord) -> Premise {
        let views = self.views_reading(&table.namespace, &table.name).cloned().collect();
        Premise::Readers { namespace: table.namespace.clone(), name: table.name.clone(), views }
    }
}

impl From<Premise> for CatalogChange {
    fn from(premise: Premise) -> Self {
        Self::Require(premise)
    }
}

impl Catalog {
    pub(super) fn require(&self, premise: &Premise) -> Result<(), CatalogError> {
        let (holds, refused) = match premise {
            Premise::Namespace { name, made } => {
                let other = self.namespace(name).is_some_and(|now| Some(now.made()) != *made);
                (!other, CatalogError::AnotherNow(name.clone()))
            }
            Premise::View { namespace, name, made } => {
                let other = self.view(namespace, name).is_some_and(|now| Some(now.made()) != *made);
                (!other, CatalogError::AnotherNow(format!("{namespace}.{name}")))
            }
            Premise::Columns { namespace, name, id, version } => {
                let other =
                    self.table(namespace, name).is_some_and(|now| now.id != *id || now.schema().version != *version);
                (!other, CatalogError::TableAltered(namespace.clone(), name.clone()))
            }
            Premise::Readers { namespace, name, views } => {
                let same = self.views_reading(namespace, name).eq(views);
                (same, CatalogError::TableAltered(namespace.clone(), name.clone()))
            }
            Premise::Role { user, role } => {
                let has = self.live_user(user).is_some_and(|now| now.role == *role);
                (has, CatalogError::UserChanged(user.clone()))
            }
        };
        if holds { Ok(()) } else { Err(refused) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{self, app};
    use super::super::{TableChange, UserBecomes, UserChange, ViewRead};
    use super::*;
    use crate::schema::TableSchema;

    fn namespace(at_ns: i64, by: &str) -> CatalogChange {
        CatalogChange::CreateNamespace(NamespaceRecord {
            name: "x".into(),
            created_at_ns: at_ns,
            created_by: Some(by.into()),
            comment: None,
        })
    }

    fn view(at_ns: i64, by: &str) -> ViewRecord {
        ViewRecord { created_at_ns: at_ns, created_by: by.into(), ..tests::view("v") }
    }

    fn create(view: ViewRecord, replace: bool) -> CatalogChange {
        CatalogChange::CreateView { view, replace }
    }

    fn holds(catalog: &Catalog, premise: &Premise) -> bool {
        let mut catalog = catalog.clone();
        let before = catalog.identity().clone();
        match catalog.apply(&premise.clone().into()) {
            Ok(writes) => {
                assert!(writes.is_empty() && *catalog.identity() == before);
                true
            }
            Err(refused) => {
                assert_eq!(refused, refusal(premise));
                false
            }
        }
    }

    fn refusal(premise: &Premise) -> CatalogError {
        match premise {
            Premise::Namespace { name, .. } => CatalogError::AnotherNow(name.clone()),
            Premise::View { namespace, name, .. } => CatalogError::AnotherNow(format!("{namespace}.{name}")),
            Premise::Columns { namespace, name, .. } | Premise::Readers { namespace, name, .. } => {
                CatalogError::TableAltered(namespace.clone(), name.clone())
            }
            Premise::Role { user, .. } => CatalogError::UserChanged(user.clone()),
        }
    }

    #[test]
    fn a_namespace_is_the_one_that_was_meant() {
        let with = |change: Option<CatalogChange>| {
            let mut catalog = app();
            change.into_iter().for_each(|change| drop(catalog.apply(&change).unwrap()));
            catalog
        };
        let (none, own) = (with(None), with(Some(namespace(1, "svc"))));
        let on = |catalog: &Catalog| Premise::Namespace {
            name: "x".into(),
            made: catalog.namespace("x").map(|namespace| namespace.made()),
        };
        for (meant, now, expected) in [
            (&own, &own, true),
            (&own, &with(Some(namespace(1, "vic"))), false),
            (&own, &with(Some(namespace(2, "svc"))), false),
            (&none, &own, false),
            // What is gone is for the change itself to miss.
            (&own, &none, true),
            (&none, &none, true),
        ] {
            assert_eq!(holds(now, &on(meant)), expected, "{:?} of {:?}", on(meant), now.namespace("x"));
        }
    }

    #[test]
    fn a_view_is_the_one_that_was_meant_also_when_it_was_replaced() {
        let mut catalog = app();
        let none = Premise::View { namespace: "app".into(), name: "v".into(), made: None };
        assert!(holds(&catalog, &none));
        catalog.apply(&create(view(1, "svc"), false)).unwrap();
        let own = Premise::View { namespace: "app".into(), name: "v".into(), made: Some(view(1, "svc").made()) };
        assert!(holds(&catalog, &own) && !holds(&catalog, &none));
        catalog.apply(&create(view(2, "root"), true)).unwrap();
        assert!(holds(&catalog, &own));
        let drop = CatalogChange::DropView { namespace: "app".into(), name: "v".into(), cascade: false };
        catalog.apply(&drop).unwrap();
        assert!(holds(&catalog, &own));
        catalog.apply(&create(view(3, "vic"), false)).unwrap();
        assert!(!holds(&catalog, &own));
    }

    #[test]
    fn a_table_has_the_columns_and_the_readers_that_were_seen() {
        let mut catalog = app();
        catalog.apply(&tests::table(1, "t")).unwrap();
        let before = catalog.table("app", "t").unwrap().clone();
        let (columns, readers) = (before.same_columns(), catalog.same_readers(&before));
        assert!(holds(&catalog, &columns) && holds(&catalog, &readers));
        let reading = |query: &str| {
            let read = ViewRead { namespace: "app".into(), name: "t".into(), columns: vec![], built_in: false };
            ViewRecord { query: query.into(), reads: vec![read], ..view(1, "svc") }
        };
        catalog.apply(&create(view(1, "svc"), false)).unwrap();
        assert!(holds(&catalog, &readers));
        catalog.apply(&create(reading("SELECT 2"), true)).unwrap();
        assert!(holds(&catalog, &columns) && !holds(&catalog, &readers));
        let readers = catalog.same_readers(&before);
        assert!(holds(&catalog, &readers));
        catalog.apply(&create(reading("SELECT 3"), true)).unwrap();
        assert!(!holds(&catalog, &readers));
        let schema = TableSchema { version: before.schema().version + 1, ..before.schema().clone() };
        let change = TableChange::Columns { schema, checks: vec![], alterations: 0 };
        catalog.apply(&CatalogChange::AlterTable { table: before.id, change }).unwrap();
        assert!(!holds(&catalog, &columns));
    }

    #[test]
    fn a_user_is_there_and_has_the_role() {
        let mut catalog = app();
        for name in ["root", "ann"] {
            catalog.apply(&tests::create_user(name, "admin")).unwrap();
        }
        let premise = |user: &str| CatalogChange::from(Premise::Role { user: user.into(), role: "admin".into() });
        let refused = |user: &str| Err(CatalogError::UserChanged(user.into()));
        let ask = |catalog: &mut Catalog, user| catalog.apply(&premise(user)).map(|writes| assert!(writes.is_empty()));
        assert_eq!(ask(&mut catalog, "ann"), Ok(()));
        assert_eq!(ask(&mut catalog, "nobody"), refused("nobody"));
        let becomes = |role_was: &str, to| {
            CatalogChange::ChangeUser(UserChange { name: "ann".into(), role_was: role_was.into(), to })
        };
        catalog.apply(&becomes("admin", UserBecomes::Role("system".into()))).unwrap();
        assert_eq!(ask(&mut catalog, "ann"), refused("ann"));
        catalog.apply(&becomes("system", UserBecomes::Role("admin".into()))).unwrap();
        assert_eq!(ask(&mut catalog, "ann"), Ok(()));
        catalog.apply(&becomes("admin", UserBecomes::Dropped { at_ns: 7 })).unwrap();
        assert_eq!(ask(&mut catalog, "ann"), refused("ann"));
    }
}
