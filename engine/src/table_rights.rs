//! What one statement's user may do with the tables and views that its names mean.
//!
//! Invariants:
//! 1. It is decided whenever a name is resolved, so at every execution, also of a plan that was kept.
//! 2. In a transaction rights are those that it sees, as far as they still hold outside of it: what is revoked is gone at once,
//!    whatever the snapshot. What was dropped outside has no grants any more: only its owner and admins still read it.
//! 3. What a user has no right to is told in the words for what is not there.

use seracdb_storage::catalog::{Catalog, Privilege, ViewRead, ViewRecord};

use crate::discretion::is_read;
use crate::error::{EngineError, Result};
use crate::identity::Role;
use crate::rights::{self, Decision, Object, denied};
use crate::sql::names::{TableName, sql_name};
use crate::sql::suggest;
use crate::tables::Tables;

impl Tables {
    /// Whether the statement's user has a right.
    pub(crate) fn decide(&self, object: Object<'_>, privilege: Privilege) -> Decision {
        let decide =
            |object: Object<'_>, catalog: &Catalog| rights::allows(&self.principal, object, privilege, catalog);
        let seen = decide(object, self.catalog());
        let Some(newest) = &self.newest else { return seen };
        match object.in_catalog(newest) {
            Some(now) => seen.min(decide(now, newest)),
            // What only the transaction has made, or what nobody can lose the rights to.
            None if object.in_catalog(self.snapshot.catalog()).is_none() || object.is_open() => seen,
            None if rights::owns(&self.principal, object, self.catalog()) => seen,
            None => Decision::Hidden,
        }
    }

    /// Whether the user has any right on it: to others it is not there.
    pub(crate) fn sees(&self, object: Object<'_>) -> bool {
        self.decide(object, Privilege::Select) != Decision::Hidden
    }

    /// Whether the user may read it.
    pub(crate) fn may_read(&self, object: Object<'_>) -> bool {
        self.decide(object, Privilege::Select) == Decision::Allowed
    }

    /// Whether the user may drop and change it, and grant rights on it.
    pub(crate) fn owns(&self, object: Object<'_>) -> bool {
        let owns = |object: Object<'_>, catalog: &Catalog| rights::owns(&self.principal, object, catalog);
        let now = |newest: &Catalog| object.in_catalog(newest).is_none_or(|now| owns(now, newest));
        owns(object, self.catalog()) && self.newest.as_deref().is_none_or(now)
    }

    /// Refuses what the user has no right to.
    pub(crate) fn require_right(&self, object: Object<'_>, privilege: Privilege) -> Result<()> {
        match self.decide(object, privilege) {
            Decision::Allowed => Ok(()),
            Decision::Lacking => Err(self.lacks(object, privilege)),
            Decision::Hidden => {
                let name =
                    TableName { namespace: Some(object.namespace().to_owned()), table: object.name().to_owned() };
                Err(self.unknown_table(&name))
            }
        }
    }

    fn lacks(&self, object: Object<'_>, privilege: Privilege) -> EngineError {
        let (what, namespace, name) = (object.what(), object.namespace(), object.name());
        let right = privilege_name(privilege);
        let user = self.principal.name();
        denied(&format!(
            "user '{user}' has no right to {right} on {what} '{namespace}.{name}': its owner or an admin gives it by GRANT \
             {right} ON {}.{} TO '{}'",
            sql_name(namespace),
            sql_name(name),
            user.replace('\'', "''")
        ))
    }

    /// Refuses what only owners and admins may do with a table or view.
    pub(crate) fn require_owner(&self, object: Object<'_>, statement: &str) -> Result<()> {
        if self.owns(object) {
            return Ok(());
        }
        let (what, namespace, name) = (object.what(), object.namespace(), object.name());
        Err(denied(&format!(
            "{statement}: {what} '{namespace}.{name}' is another user's; its owner or an admin can do it"
        )))
    }

    /// The same with a namespace.
    pub(crate) fn require_namespace_owner(&self, namespace: &str, statement: &str) -> Result<()> {
        let owns = |catalog: &Catalog| {
            catalog.namespace(namespace).is_none() || rights::owns_namespace(&self.principal, namespace, catalog)
        };
        match owns(self.catalog()) && self.newest.as_deref().is_none_or(owns) {
            true => Ok(()),
            false => Err(denied(&format!(
                "{statement}: namespace '{namespace}' is another user's; its owner or an admin can do it"
            ))),
        }
    }

    /// Refuses to drop, without CASCADE, what a view reads that the user does not see; the storage names the others.
    pub(crate) fn require_no_hidden_reader(&self, object: Object<'_>, cascade: bool) -> Result<()> {
        let (what, namespace, name) = (object.what(), object.namespace(), object.name());
        let reads = |view: &ViewRecord| view.reads.iter().any(|read| read.namespace == namespace && read.name == name);
        match !cascade && self.catalog().views().any(|view| reads(view) && !self.sees(Object::View(view))) {
            true => Err(EngineError::invalid(is_read(what, &format!("{namespace}.{name}")))),
            false => Ok(()),
        }
    }

    /// The error for a view that reads what its reader may not.
    pub(crate) fn require_below(&self, view: &ViewRecord) -> Result<()> {
        let may_read = |read: &ViewRead| {
            let (namespace, name) = (read.namespace.as_str(), read.name.as_str());
            let table = self.catalog().table(namespace, name).map(|table| Object::Table(table));
            let view = || self.catalog().view(namespace, name).map(|view| Object::View(view));
            table.or_else(view).is_none_or(|object| self.may_read(object))
        };
        match view.reads.iter().filter(|read| !read.built_in).all(may_read) {
            true => Ok(()),
            false => Err(denied(&format!(
                "view '{}.{}' reads what you may not: who reads a view needs SELECT on all that it reads, too",
                view.namespace, view.name
            ))),
        }
    }

    /// The error for a name that is no table's or view's, as far as the user may know, with what was probably meant.
    pub(crate) fn unknown_table(&self, name: &TableName) -> EngineError {
        let tables = self.stored().map(|table| (&table.namespace, &table.name));
        let views = self.views().map(|view| (&view.namespace, &view.name));
        let known = tables.chain(views).map(|(namespace, known)| self.shown_name(namespace, known, name));
        self.unknown("table", name, &known.collect::<Vec<String>>())
    }

    /// The same for one of these.
    pub(crate) fn unknown(&self, what: &str, name: &TableName, known: &[String]) -> EngineError {
        let known = known.iter().map(String::as_str);
        EngineError::not_found(match self.principal.role() >= Role::Admin {
            true => suggest::unknown(what, &name.to_string(), known),
            false => suggest::unknown_or_hidden(what, &name.to_string(), known),
        })
    }
}

/// The word for a right.
pub(crate) fn privilege_name(privilege: Privilege) -> &'static str {
    match privilege {
        Privilege::Select => "SELECT",
        Privilege::Insert => "INSERT",
        Privilege::Update => "UPDATE",
        Privilege::Delete => "DELETE",
    }
}
