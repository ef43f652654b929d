//! Grants: which rights on a shared table, a view or a namespace were given to a user or to a role.
//!
//! Invariants:
//! 1. A grant goes with what it is on, and with the user it was given to.
//! 2. A change names users, a record numbers them: a user who was created in the same commit has no number before.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, CatalogRecord, CatalogWrite};
use crate::keys::TableId;

/// A right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    /// To read rows.
    Select,
    /// To add rows.
    Insert,
    /// To change rows.
    Update,
    /// To remove rows.
    Delete,
}

impl Privilege {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Select, Self::Insert, Self::Update, Self::Delete];
}

/// What rights are given on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantOn {
    /// A table.
    Table(TableId),
    /// A view, by namespace and name.
    View(String, String),
    /// A namespace: every table and view in it.
    Namespace(String),
}

/// Whom they are given to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grantee {
    /// A user, by number.
    User(u64),
    /// A role, as the engine names it.
    Role(String),
}

/// Whom a change gives rights, or takes them from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantTo {
    /// A user, by name.
    User(String),
    /// A role, as the engine names it.
    Role(String),
}

/// Who has given a right, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Name of a user.
    pub by: String,
    /// Nanoseconds since the Unix epoch.
    pub at_ns: i64,
}

/// The rights on one thing that one user or role was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// What they are on.
    pub on: GrantOn,
    /// Who has them.
    pub to: Grantee,
    /// The rights; there is one at least.
    pub privileges: BTreeMap<Privilege, Given>,
}

/// What a grant is found by.
pub(super) type GrantKey = (GrantOn, Grantee);

impl Catalog {
    /// What one user or role was given on one thing.
    pub fn grant_on(&self, on: GrantOn, to: Grantee) -> Option<&Arc<GrantRecord>> {
        self.grants.get(&(on, to))
    }

    /// All grants.
    pub fn grants(&self) -> impl Iterator<Item = &Arc<GrantRecord>> {
        self.grants.values()
    }

    /// Whether nothing was given to anybody.
    pub fn has_grants(&self) -> bool {
        !self.grants.is_empty()
    }

    /// Gives rights. One that is there already stays as it was given.
    pub(super) fn grant(
        &mut self,
        on: &GrantOn,
        to: &GrantTo,
        privileges: &[Privilege],
        given: &Given,
    ) -> Result<Vec<CatalogWrite>, CatalogError> {
        self.require_there(on)?;
        let key = (on.clone(), self.grantee(to)?);
        let known = self.grants.get(&key).map(|record| GrantRecord::clone(record));
        let mut record = known.unwrap_or_else(|| GrantRecord { on: key.0, to: key.1, privileges: BTreeMap::new() });
        for privilege in privileges {
            record.privileges.entry(*privilege).or_insert_with(|| given.clone());
        }
        Ok(vec![self.put(CatalogRecord::Grant(record))])
    }

    /// Takes rights away. One that was not given is none to take, and from who is gone all are.
    pub(super) fn revoke(&mut self, on: &GrantOn, to: &GrantTo, privileges: &[Privilege]) -> Vec<CatalogWrite> {
        let Ok(to) = self.grantee(to) else { return vec![] };
        let key = (on.clone(), to);
        let Some(record) = self.grants.get(&key) else { return vec![] };
        let mut record = GrantRecord::clone(record);
        record.privileges.retain(|privilege, _| !privileges.contains(privilege));
        match record.privileges.is_empty() {
            true => self.forget_grants(|on, to| (on, to) == (&key.0, &key.1)),
            false => vec![self.put(CatalogRecord::Grant(record))],
        }
    }

    /// Removes the grants that are `gone`.
    pub(super) fn forget_grants(&mut self, gone: impl Fn(&GrantOn, &Grantee) -> bool) -> Vec<CatalogWrite> {
        let gone: Vec<GrantKey> = self.grants.keys().filter(|(on, to)| gone(on, to)).cloned().collect();
        gone.iter().for_each(|key| drop(self.grants.remove(key)));
        gone.into_iter().map(|(on, to)| CatalogWrite::RemoveGrant(on, to)).collect()
    }

    /// Who is meant, by what a record knows them.
    fn grantee(&self, to: &GrantTo) -> Result<Grantee, CatalogError> {
        match to {
            GrantTo::User(name) => match self.live_user(name) {
                Some(user) => Ok(Grantee::User(user.number)),
                None => Err(CatalogError::NoUser(name.clone())),
            },
            GrantTo::Role(role) => Ok(Grantee::Role(role.clone())),
        }
    }

    fn require_there(&self, on: &GrantOn) -> Result<(), CatalogError> {
        match on {
            GrantOn::Table(id) if self.table_by_id(*id).is_none() => {
                Err(CatalogError::NoTable(String::new(), id.0.to_string()))
            }
            GrantOn::View(namespace, name) if self.view(namespace, name).is_none() => {
                Err(CatalogError::NoView(namespace.clone(), name.clone()))
            }
            GrantOn::Namespace(name) if self.namespace(name).is_none() => Err(CatalogError::NoNamespace(name.clone())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{app, create_user, table, view as view_named};
    use super::super::{CatalogChange, Readers, UserBecomes, UserChange};
    use super::*;

    const TABLE: GrantOn = GrantOn::Table(TableId(1));

    fn catalog() -> Catalog {
        let mut catalog = app();
        catalog.apply(&table(1, "t")).unwrap();
        for name in ["root", "ann"] {
            catalog.apply(&create(name)).unwrap();
        }
        catalog
    }

    fn create(name: &str) -> CatalogChange {
        create_user(name, "user")
    }

    fn user(name: &str) -> GrantTo {
        GrantTo::User(name.into())
    }

    fn grant(on: GrantOn, to: GrantTo, privileges: &[Privilege], by: &str) -> CatalogChange {
        let given = Given { by: by.into(), at_ns: 5 };
        CatalogChange::Grant { on, to, privileges: privileges.to_vec(), given }
    }

    fn revoke(on: GrantOn, to: GrantTo, privileges: &[Privilege]) -> CatalogChange {
        CatalogChange::Revoke { on, to, privileges: privileges.to_vec() }
    }

    fn given(catalog: &Catalog) -> Vec<(Privilege, &str)> {
        let all = catalog.grants().flat_map(|record| &record.privileges);
        all.map(|(privilege, given)| (*privilege, given.by.as_str())).collect()
    }

    #[test]
    fn rights_are_given_and_taken() {
        let mut catalog = catalog();
        let ann = user("ann");
        catalog.apply(&grant(TABLE, ann.clone(), &[Privilege::Select], "root")).unwrap();
        catalog.apply(&grant(TABLE, ann.clone(), &[Privilege::Select, Privilege::Delete], "bob")).unwrap();
        assert_eq!(given(&catalog), [(Privilege::Select, "root"), (Privilege::Delete, "bob")]);
        catalog.apply(&revoke(TABLE, ann.clone(), &[Privilege::Select, Privilege::Update])).unwrap();
        assert_eq!(given(&catalog), [(Privilege::Delete, "bob")]);
        let role = GrantTo::Role("user".into());
        assert!(catalog.apply(&revoke(TABLE, role, &Privilege::ALL)).unwrap().is_empty());
        let writes = catalog.apply(&revoke(TABLE, ann, &Privilege::ALL)).unwrap();
        assert!(matches!(writes[..], [CatalogWrite::RemoveGrant(GrantOn::Table(TableId(1)), Grantee::User(2))]));
        assert!(!catalog.has_grants());
    }

    #[test]
    fn grants_go_with_what_they_are_on_and_with_their_users() {
        let view = GrantOn::View("app".into(), "v".into());
        let mut all = catalog();
        let record = view_named("v");
        all.apply(&CatalogChange::CreateView { view: record.clone(), replace: false }).unwrap();
        for on in [TABLE, view.clone(), GrantOn::Namespace("app".into())] {
            all.apply(&grant(on.clone(), user("ann"), &[Privilege::Select], "root")).unwrap();
            all.apply(&grant(on, GrantTo::Role("user".into()), &[Privilege::Select], "root")).unwrap();
        }
        all.apply(&CatalogChange::CreateView { view: record, replace: true }).unwrap();
        assert_eq!(all.grants().count(), 6);
        let left = |change: CatalogChange| {
            let mut catalog = all.clone();
            let writes = catalog.apply(&change).unwrap();
            let removed = writes.iter().filter(|write| matches!(write, CatalogWrite::RemoveGrant(..))).count();
            assert_eq!(removed + catalog.grants().count(), 6);
            catalog.grants().count()
        };
        let (namespace, name) = ("app".to_owned(), "t".to_owned());
        let views = Readers::Refuse;
        assert_eq!(left(CatalogChange::DropTable { id: TableId(1), namespace: namespace.clone(), name, views }), 4);
        let name = "v".to_owned();
        assert_eq!(left(CatalogChange::DropView { namespace: namespace.clone(), name, cascade: false }), 4);
        assert_eq!(left(CatalogChange::DropNamespace { name: namespace, cascade: true }), 0);
        let to = UserBecomes::Dropped { at_ns: 7 };
        let ann = UserChange { name: "ann".into(), role_was: "user".into(), to };
        assert_eq!(left(CatalogChange::ChangeUser(ann.clone())), 3);
        all.apply(&CatalogChange::ChangeUser(ann)).unwrap();
        assert!(all.apply(&revoke(TABLE, user("ann"), &Privilege::ALL)).unwrap().is_empty());
        let again = all.apply(&grant(TABLE, user("ann"), &[Privilege::Select], "root"));
        assert_eq!(again.unwrap_err(), CatalogError::NoUser("ann".into()));
    }

    #[test]
    fn what_is_staged_for_a_new_user_is_that_users_whoever_came_first() {
        let staged = [create("bob"), grant(TABLE, user("bob"), &[Privilege::Select], "root")];
        let mut seen = catalog();
        staged.iter().for_each(|change| drop(seen.apply(change).unwrap()));
        let mut newest = catalog();
        newest.apply(&create("mallory")).unwrap();
        staged.iter().for_each(|change| drop(newest.apply(change).unwrap()));
        for catalog in [seen, newest] {
            let bob = catalog.user("bob").unwrap().number;
            assert_eq!(catalog.grants().map(|record| &record.to).collect::<Vec<_>>(), [&Grantee::User(bob)]);
        }
    }

    #[test]
    fn nothing_is_given_on_what_is_not_there() {
        let mut catalog = catalog();
        for on in
            [GrantOn::Table(TableId(7)), GrantOn::View("app".into(), "t".into()), GrantOn::Namespace("other".into())]
        {
            assert!(catalog.apply(&grant(on, user("ann"), &[Privilege::Select], "root")).is_err());
        }
        let nobody = catalog.apply(&grant(TABLE, user("bob"), &[Privilege::Select], "root"));
        assert_eq!(nobody.unwrap_err(), CatalogError::NoUser("bob".into()));
    }
}
