//! Who may do what with tables, views, namespaces and users: decided here, from names, roles and grants alone.
//!
//! 1. Admins and above may do everything with tables, views and namespaces.
//! 2. Who has created a table, view or namespace owns it, and has every right on it. Who owns a namespace owns what is in it.
//! 3. Others have on shared tables and views what was granted on them or on their namespace: to themselves or to a role that
//!    they have, and everyone has the lower ones too.
//! 4. User and stream tables are open to everyone: each sees rows of their own there. To change the table itself is for its
//!    owner.

use seracdb_storage::catalog::{Catalog, GrantOn, Grantee, Privilege, TableKind, TableRecord, ViewRecord};

use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::{Principal, Role};

/// What somebody may do with something, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Decision {
    /// Nothing: for them it is not there.
    Hidden,
    /// Something else than what is wanted.
    Lacking,
    /// What is wanted.
    Allowed,
}

/// What has rights.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Object<'a> {
    Table(&'a TableRecord),
    View(&'a ViewRecord),
}

impl<'a> Object<'a> {
    pub(crate) fn namespace(self) -> &'a str {
        match self {
            Self::Table(table) => &table.namespace,
            Self::View(view) => &view.namespace,
        }
    }

    pub(crate) fn name(self) -> &'a str {
        match self {
            Self::Table(table) => &table.name,
            Self::View(view) => &view.name,
        }
    }

    /// The word for it.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Table(_) => "table",
            Self::View(_) => "view",
        }
    }

    fn owner(self) -> &'a str {
        match self {
            Self::Table(table) => &table.created_by,
            Self::View(view) => &view.created_by,
        }
    }

    /// Whether everyone has all rights, each on rows of their own.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Table(table) if table.kind != TableKind::Shared)
    }

    /// What grants on it are on.
    pub(crate) fn grants_are_on(self) -> GrantOn {
        match self {
            Self::Table(table) => GrantOn::Table(table.id),
            Self::View(view) => GrantOn::View(view.namespace.clone(), view.name.clone()),
        }
    }

    /// The rights that there are on it: views can only be read.
    pub(crate) fn privileges(self) -> &'static [Privilege] {
        match self {
            Self::Table(_) => &Privilege::ALL,
            Self::View(_) => &[Privilege::Select],
        }
    }

    /// The same as another catalog has it. Another one of its name is not the same.
    pub(crate) fn in_catalog(self, catalog: &Catalog) -> Option<Object<'_>> {
        match self {
            Self::Table(table) => catalog.table_by_id(table.id).map(|table| Object::Table(table)),
            Self::View(view) => {
                let now = catalog.view(&view.namespace, &view.name).filter(|now| now.made() == view.made());
                now.map(|view| Object::View(view))
            }
        }
    }
}

/// Whether a user has a right.
pub(crate) fn allows(subject: &Principal, object: Object<'_>, privilege: Privilege, catalog: &Catalog) -> Decision {
    if object.is_open() || owns(subject, object, catalog) {
        return Decision::Allowed;
    }
    if !catalog.has_grants() {
        return Decision::Hidden;
    }
    let mut decision = Decision::Hidden;
    for on in [object.grants_are_on(), GrantOn::Namespace(object.namespace().to_owned())] {
        for to in grantees(subject) {
            let Some(grant) = catalog.grant_on(on.clone(), to) else { continue };
            // A namespace's grants may be of rights that there are not on all that is in it.
            let mut held = object.privileges().iter().filter(|right| grant.privileges.contains_key(right)).peekable();
            if held.peek().is_some() {
                decision = Decision::Lacking;
            }
            if held.any(|right| *right == privilege) {
                return Decision::Allowed;
            }
        }
    }
    decision
}

/// Whether a user may drop and change it, and grant rights on it.
pub(crate) fn owns(subject: &Principal, object: Object<'_>, catalog: &Catalog) -> bool {
    object.owner() == subject.name() || owns_namespace(subject, object.namespace(), catalog)
}

/// Whether a user may drop a namespace, and grant rights on all that is in it.
pub(crate) fn owns_namespace(subject: &Principal, namespace: &str, catalog: &Catalog) -> bool {
    let created_by = || catalog.namespace(namespace)?.created_by.as_deref();
    subject.role() >= Role::Admin || created_by() == Some(subject.name())
}

/// What a user is given rights as: the user, and each role that it has.
pub(crate) fn grantees(subject: &Principal) -> impl Iterator<Item = Grantee> {
    let roles = Role::ALL.into_iter().filter(|role| *role <= subject.role());
    [Grantee::User(subject.number())].into_iter().chain(roles.map(|role| Grantee::Role(role.to_string())))
}

/// What somebody wants to do to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserAction {
    SetPassword,
    SetRole(Role),
    Drop,
}

impl UserAction {
    /// The statement.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drop => "DROP USER",
            _ => "ALTER USER",
        }
    }
}

/// Whether somebody may do that to a user of this name at all: what it is depends on the user only afterwards, so that who
/// may not learns of no user.
pub(crate) fn may_change_users(actor: &Principal, action: UserAction, name: &str) -> Result<()> {
    let own_password = action == UserAction::SetPassword && actor.name() == name;
    match actor.role() >= Role::Admin || own_password {
        true => Ok(()),
        false => Err(denied(&format!("{} requires the role {} or a higher one", action.name(), Role::Admin))),
    }
}

/// Whether somebody may do that to a user of this role.
pub(crate) fn may_change_user(actor: &Principal, action: UserAction, name: &str, role: Role) -> Result<()> {
    may_change_users(actor, action, name)?;
    if role > actor.role() {
        return Err(denied(&format!("a user of role {role} can be changed by that role only")));
    }
    match action {
        UserAction::SetRole(wanted) if wanted > actor.role() => {
            Err(denied(&format!("the role {wanted} can be given by that role only")))
        }
        UserAction::Drop if actor.name() == name => {
            Err(EngineError::new(ErrorKind::FailedPrecondition, "nobody can drop themselves: another admin can"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn denied(why: &str) -> EngineError {
    EngineError::new(ErrorKind::PermissionDenied, format!("permission denied: {why}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use seracdb_storage::catalog::{CatalogChange, Given, GrantTo, NamespaceRecord, Readers, UserRecord};
    use seracdb_storage::keys::TableId;
    use seracdb_storage::schema::TableSchema;

    use super::*;

    const USERS: [(&str, Role); 5] = [
        ("root", Role::System),
        ("ann", Role::User),
        ("svc", Role::Service),
        ("other", Role::Service),
        ("adm", Role::Admin),
    ];

    fn principal(name: &str) -> Principal {
        let place = USERS.iter().position(|(known, _)| *known == name).unwrap();
        Principal::new(name.to_owned(), place as u64 + 1, USERS[place].1)
    }

    /// `app` of svc, `pub` of nobody; in each a table of `other`, a user table of root, and a view of `other`.
    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        let mut change = |change| drop(catalog.apply(&change).unwrap());
        for (name, role) in USERS {
            change(CatalogChange::CreateUser(UserRecord {
                number: 0,
                name: name.into(),
                role: role.to_string(),
                password_hash: String::new(),
                created_at_ns: 0,
                deleted_at_ns: None,
            }));
        }
        for (place, (namespace, owner)) in [("app", Some("svc")), ("pub", None)].into_iter().enumerate() {
            change(CatalogChange::CreateNamespace(NamespaceRecord {
                name: namespace.into(),
                created_at_ns: 0,
                created_by: owner.map(str::to_owned),
                comment: None,
            }));
            for (id, name, kind, owner) in [(1, "t", TableKind::Shared, "other"), (2, "own", TableKind::User, "root")] {
                let (id, schema) = (TableId(10 * place as u32 + id), TableSchema { version: 1, columns: vec![] });
                let table = TableRecord::new(id, namespace, name, kind, schema);
                change(CatalogChange::CreateTable(TableRecord { created_by: owner.into(), ..table }));
            }
            let view = ViewRecord {
                namespace: namespace.into(),
                name: "v".into(),
                query: "SELECT 1".into(),
                resolves_in: namespace.into(),
                columns: vec![],
                reads: vec![],
                comment: None,
                column_comments: BTreeMap::new(),
                created_at_ns: 0,
                created_by: "other".into(),
            };
            change(CatalogChange::CreateView { view, replace: false });
        }
        catalog
    }

    fn object<'a>(catalog: &'a Catalog, namespace: &str, name: &str) -> Object<'a> {
        match catalog.table(namespace, name) {
            Some(table) => Object::Table(table),
            None => Object::View(catalog.view(namespace, name).unwrap()),
        }
    }

    fn grant(catalog: &mut Catalog, on: GrantOn, to: Grantee, privileges: &[Privilege]) {
        let given = Given { by: "root".into(), at_ns: 0 };
        let to = match to {
            Grantee::User(number) => GrantTo::User(catalog.user_by_number(number).unwrap().name.clone()),
            Grantee::Role(role) => GrantTo::Role(role),
        };
        catalog.apply(&CatalogChange::Grant { on, to, privileges: privileges.to_vec(), given }).unwrap();
    }

    /// What a user may do with something: S, I, U and D for the rights, `-` without one, and nothing when it is hidden.
    fn rights(catalog: &Catalog, user: &str, namespace: &str, name: &str) -> String {
        let decide = |privilege| allows(&principal(user), object(catalog, namespace, name), privilege, catalog);
        let letter = |(privilege, letter)| match decide(privilege) {
            Decision::Allowed => Some(letter),
            Decision::Lacking => Some('-'),
            Decision::Hidden => None,
        };
        Privilege::ALL.into_iter().zip("SIUD".chars()).filter_map(letter).collect()
    }

    #[test]
    fn without_grants_only_owners_and_admins_have_rights() {
        let catalog = catalog();
        for (user, expected) in [("root", "SIUD"), ("adm", "SIUD"), ("other", "SIUD"), ("svc", "SIUD"), ("ann", "")] {
            assert_eq!(rights(&catalog, user, "app", "t"), expected, "{user}");
            assert_eq!(rights(&catalog, user, "app", "v"), expected, "{user}");
            // Of a namespace that nobody owns, nobody owns what is in it by that.
            let expected = if user == "svc" { "" } else { expected };
            assert_eq!(rights(&catalog, user, "pub", "t"), expected, "{user}");
            // Everyone has rows of their own in user tables.
            assert_eq!(rights(&catalog, user, "pub", "own"), "SIUD", "{user}");
        }
        let may_drop = |user: &str| owns(&principal(user), object(&catalog, "pub", "own"), &catalog);
        assert_eq!(USERS.map(|(user, _)| may_drop(user)), [true, false, false, false, true]);
        assert!(owns_namespace(&principal("svc"), "app", &catalog));
        assert!(!owns_namespace(&principal("other"), "app", &catalog));
        assert!(!owns_namespace(&principal("svc"), "pub", &catalog));
        assert!(owns_namespace(&principal("adm"), "pub", &catalog));
    }

    #[test]
    fn grants_reach_a_user_and_the_roles_from_theirs_up() {
        let on_table = GrantOn::Table(TableId(11));
        let with = |to: Grantee, privileges: &[Privilege]| {
            let mut catalog = catalog();
            grant(&mut catalog, on_table.clone(), to, privileges);
            ["ann", "svc"].map(|user| rights(&catalog, user, "pub", "t"))
        };
        assert_eq!(with(Grantee::User(2), &[Privilege::Select]), ["S---", ""]);
        assert_eq!(with(Grantee::User(3), &[Privilege::Insert, Privilege::Delete]), ["", "-I-D"]);
        assert_eq!(with(Grantee::Role("user".into()), &[Privilege::Update]), ["--U-", "--U-"]);
        assert_eq!(with(Grantee::Role("service".into()), &Privilege::ALL), ["", "SIUD"]);
        assert_eq!(with(Grantee::Role("admin".into()), &Privilege::ALL), ["", ""]);
    }

    #[test]
    fn grants_on_a_namespace_are_on_what_is_in_it() {
        let mut catalog = catalog();
        let on = GrantOn::Namespace("pub".into());
        grant(&mut catalog, on.clone(), Grantee::User(2), &[Privilege::Insert]);
        assert_eq!(
            (rights(&catalog, "ann", "pub", "t").as_str(), rights(&catalog, "ann", "app", "t").as_str()),
            ("-I--", "")
        );
        // Nothing is inserted into a view: it stays hidden.
        assert_eq!(rights(&catalog, "ann", "pub", "v"), "");
        grant(&mut catalog, GrantOn::Table(TableId(11)), Grantee::Role("user".into()), &[Privilege::Delete]);
        assert_eq!(rights(&catalog, "ann", "pub", "t"), "-I-D");
        grant(&mut catalog, on.clone(), Grantee::User(2), &[Privilege::Select]);
        assert_eq!(rights(&catalog, "ann", "pub", "t"), "SI-D");
        assert_eq!(
            allows(&principal("ann"), object(&catalog, "pub", "v"), Privilege::Select, &catalog),
            Decision::Allowed
        );
        catalog
            .apply(&CatalogChange::Revoke { on, to: GrantTo::User("ann".into()), privileges: Privilege::ALL.to_vec() })
            .unwrap();
        assert_eq!(rights(&catalog, "ann", "pub", "t"), "---D");
    }

    #[test]
    fn a_table_of_the_same_name_has_no_grants_of_the_one_before() {
        let mut catalog = catalog();
        grant(&mut catalog, GrantOn::Table(TableId(11)), Grantee::User(2), &Privilege::ALL);
        let before = catalog.table("pub", "t").unwrap().clone();
        let (namespace, name) = ("pub".to_owned(), "t".to_owned());
        catalog.apply(&CatalogChange::DropTable { id: before.id, namespace, name, views: Readers::Keep }).unwrap();
        let again = TableRecord { id: TableId(99), ..(*before).clone() };
        catalog.apply(&CatalogChange::CreateTable(again)).unwrap();
        assert_eq!(rights(&catalog, "ann", "pub", "t"), "");
        assert!(Object::Table(&before).in_catalog(&catalog).is_none());
    }

    #[test]
    fn who_may_change_whom() {
        let may = |actor: &str, action, user: &str, role| {
            may_change_user(&principal(actor), action, user, role).map_err(|error| error.kind)
        };
        let refused = Err(ErrorKind::PermissionDenied);
        for (actor, role, expected) in [
            ("adm", Role::User, Ok(())),
            ("adm", Role::Admin, Ok(())),
            ("adm", Role::System, refused),
            ("root", Role::System, Ok(())),
            ("svc", Role::User, refused),
            ("ann", Role::User, refused),
        ] {
            for action in [UserAction::SetPassword, UserAction::SetRole(Role::User), UserAction::Drop] {
                assert_eq!(may(actor, action, "someone", role), expected, "{actor} {action:?} {role}");
            }
        }
        assert_eq!(may("adm", UserAction::SetRole(Role::System), "ann", Role::User), refused);
        assert_eq!(may("ann", UserAction::SetPassword, "ann", Role::User), Ok(()));
        assert_eq!(may("ann", UserAction::SetRole(Role::User), "ann", Role::User), refused);
        assert_eq!(may("ann", UserAction::Drop, "ann", Role::User), refused);
        assert_eq!(may("adm", UserAction::Drop, "adm", Role::Admin), Err(ErrorKind::FailedPrecondition));
        // Who may not is told the same of those that there are and of others.
        let text = |name| may_change_users(&principal("ann"), UserAction::Drop, name).unwrap_err().message;
        assert_eq!(text("svc"), text("nobody"));
    }
}
