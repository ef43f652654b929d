//! Users: the records, and what a commit may make of them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::grants::Grantee;
use super::{Catalog, CatalogError, CatalogRecord, CatalogWrite};

/// The number of the user of the first start, who stays as it is: there is always somebody who may do everything.
const FIRST_USER: u64 = 1;

/// A user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// Number, from 1; keys the user's rows.
    pub number: u64,
    /// Name.
    pub name: String,
    /// Role, as the engine names it.
    pub role: String,
    /// Password hash in PHC form; empty for a dropped user. In no result and no log.
    pub password_hash: String,
    /// Nanoseconds since the Unix epoch.
    pub created_at_ns: i64,
    /// When the user was dropped.
    #[serde(default)]
    pub deleted_at_ns: Option<i64>,
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What is changed of a user.
#[derive(Debug, Clone)]
pub struct UserChange {
    /// The user.
    pub name: String,
    /// The role that the user had when somebody's rights to change it were decided.
    pub role_was: String,
    /// The change.
    pub to: UserBecomes,
}

/// What a user becomes.
#[derive(Clone)]
pub enum UserBecomes {
    /// One with another password; its hash in PHC form.
    Password(String),
    /// One of another role.
    Role(String),
    /// A dropped one: its name, number and rows stay, and nobody is it again.
    Dropped {
        /// Nanoseconds since the Unix epoch.
        at_ns: i64,
    },
}

impl fmt::Debug for UserBecomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::Role(role) => write!(f, "Role({role})"),
            Self::Dropped { .. } => f.write_str("Dropped"),
        }
    }
}

impl Catalog {
    /// A user by name, dropped ones included.
    pub fn user(&self, name: &str) -> Option<&Arc<UserRecord>> {
        self.users.get(name)
    }

    /// A user by name who was not dropped.
    pub fn live_user(&self, name: &str) -> Option<&Arc<UserRecord>> {
        self.user(name).filter(|user| user.deleted_at_ns.is_none())
    }

    /// A user by number, dropped ones included.
    pub fn user_by_number(&self, number: u64) -> Option<&Arc<UserRecord>> {
        self.users_by_number.get(&number)
    }

    /// All users by name, dropped ones included.
    pub fn users(&self) -> impl Iterator<Item = &Arc<UserRecord>> {
        self.users.values()
    }

    /// Whether there is any user.
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    pub(super) fn create_user(&mut self, record: &UserRecord) -> Result<Vec<CatalogWrite>, CatalogError> {
        if self.users.contains_key(&record.name) {
            return Err(CatalogError::UserExists(record.name.clone()));
        }
        let number = self.users_by_number.keys().next_back().map_or(FIRST_USER, |last| last + 1);
        Ok(vec![self.put(CatalogRecord::User(UserRecord { number, ..record.clone() }))])
    }

    pub(super) fn change_user(&mut self, change: &UserChange) -> Result<Vec<CatalogWrite>, CatalogError> {
        let name = || change.name.clone();
        let before = self.live_user(&change.name).ok_or_else(|| CatalogError::NoUser(name()))?;
        if before.role != change.role_was {
            return Err(CatalogError::UserChanged(name()));
        }
        let mut user = UserRecord::clone(before);
        match &change.to {
            UserBecomes::Password(hash) => user.password_hash = hash.clone(),
            UserBecomes::Role(_) | UserBecomes::Dropped { .. } if user.number == FIRST_USER => {
                return Err(CatalogError::FirstUser(name()));
            }
            UserBecomes::Role(role) => user.role = role.clone(),
            UserBecomes::Dropped { at_ns } => {
                user.password_hash = String::new();
                user.deleted_at_ns = Some(*at_ns);
            }
        }
        let mut writes = match &change.to {
            UserBecomes::Dropped { .. } => {
                let gone = Grantee::User(user.number);
                self.forget_grants(|_, to| *to == gone)
            }
            _ => vec![],
        };
        writes.push(self.put(CatalogRecord::User(user)));
        Ok(writes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::CatalogChange;
    use super::super::tests::create_user;
    use super::*;

    fn create(name: &str) -> CatalogChange {
        create_user(name, "user")
    }

    fn change(name: &str, role_was: &str, to: UserBecomes) -> CatalogChange {
        CatalogChange::ChangeUser(UserChange { name: name.into(), role_was: role_was.into(), to })
    }

    fn with(names: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        names.iter().for_each(|name| drop(catalog.apply(&create(name)).unwrap()));
        catalog
    }

    #[test]
    fn user_numbers_start_at_one_and_names_are_not_reused() {
        let mut catalog = with(&["a", "b"]);
        assert_eq!(catalog.user("b").unwrap().number, 2);
        assert!(matches!(catalog.apply(&create("a")), Err(CatalogError::UserExists(_))));
        assert!(!format!("{:?}", catalog.user("a").unwrap()).contains("secret"));
        catalog.apply(&change("b", "user", UserBecomes::Dropped { at_ns: 7 })).unwrap();
        let existed = catalog.apply(&create("b")).unwrap_err();
        assert_eq!(existed, CatalogError::UserExists("b".into()));
        catalog.apply(&create("c")).unwrap();
        assert_eq!(catalog.user("c").unwrap().number, 3);
    }

    #[test]
    fn a_user_is_changed_and_dropped() {
        let mut catalog = with(&["root", "a"]);
        catalog.apply(&change("a", "user", UserBecomes::Role("admin".into()))).unwrap();
        catalog.apply(&change("a", "admin", UserBecomes::Password("other".into()))).unwrap();
        let user = catalog.user("a").unwrap();
        assert_eq!((user.role.as_str(), user.password_hash.as_str()), ("admin", "other"));
        assert_eq!(catalog.user_by_number(2), Some(user));
        catalog.apply(&change("a", "admin", UserBecomes::Dropped { at_ns: 7 })).unwrap();
        let user = catalog.user("a").unwrap();
        assert_eq!((user.deleted_at_ns, user.password_hash.as_str(), user.number), (Some(7), "", 2));
        assert!(catalog.live_user("a").is_none());
        for to in [UserBecomes::Password("x".into()), UserBecomes::Dropped { at_ns: 8 }] {
            assert_eq!(catalog.apply(&change("a", "admin", to)).unwrap_err(), CatalogError::NoUser("a".into()));
        }
    }

    #[test]
    fn who_was_given_another_role_meanwhile_is_not_changed() {
        let mut catalog = with(&["root", "a"]);
        catalog.apply(&change("a", "user", UserBecomes::Role("system".into()))).unwrap();
        for to in
            [UserBecomes::Password("x".into()), UserBecomes::Role("user".into()), UserBecomes::Dropped { at_ns: 7 }]
        {
            assert_eq!(catalog.apply(&change("a", "user", to)).unwrap_err(), CatalogError::UserChanged("a".into()));
        }
    }

    #[test]
    fn the_first_user_stays() {
        let mut catalog = with(&["root"]);
        for to in [UserBecomes::Role("user".into()), UserBecomes::Dropped { at_ns: 7 }] {
            assert_eq!(catalog.apply(&change("root", "user", to)).unwrap_err(), CatalogError::FirstUser("root".into()));
        }
        catalog.apply(&change("root", "user", UserBecomes::Password("x".into()))).unwrap();
        assert!(!format!("{:?}", UserBecomes::Password("secret".into())).contains("secret"));
    }
}
