//! GRANT and REVOKE.

use seracdb_storage::catalog::{CatalogChange, Given, GrantOn, GrantTo, Privilege};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::rights::Object;
use crate::session::{Session, describes};
use crate::sql::TableName;
use crate::sql::statement::{Grant, GrantedOn, GrantedTo};
use crate::tables::Tables;
use crate::temporary::is_temporary;
use crate::users::unknown_user;

/// A grant, as far as the catalog knows it.
struct Meant {
    /// What it was decided for has to be what it is on.
    premise: Option<CatalogChange>,
    on: GrantOn,
    to: Vec<GrantTo>,
    privileges: Vec<Privilege>,
}

impl Engine {
    /// Gives rights.
    pub(crate) async fn grant(&self, session: &Session, tables: &Tables, grant: &Grant) -> Result<()> {
        let Meant { premise, on, to, privileges } = meant(tables, grant, "GRANT")?;
        let given = Given { by: tables.principal.name().to_owned(), at_ns: self.now_ns() };
        let change = |to| {
            let (on, privileges, given) = (on.clone(), privileges.clone(), given.clone());
            CatalogChange::Grant { on, to, privileges, given }
        };
        self.change_catalog(session, premise.into_iter().chain(to.into_iter().map(change)).collect()).await
    }

    /// Takes rights away. What is not given is none to take; what somebody has in another way, by a role or a namespace, stays.
    pub(crate) async fn revoke(&self, session: &Session, tables: &Tables, grant: &Grant) -> Result<()> {
        let Meant { premise, on, to, privileges } = meant(tables, grant, "REVOKE")?;
        let change = |to| CatalogChange::Revoke { on: on.clone(), to, privileges: privileges.clone() };
        self.change_catalog(session, premise.into_iter().chain(to.into_iter().map(change)).collect()).await
    }
}

fn meant(tables: &Tables, grant: &Grant, statement: &str) -> Result<Meant> {
    let (on, privileges) = match &grant.on {
        GrantedOn::Namespace(name) => (namespace(tables, name, statement)?, grant.privileges.clone()),
        GrantedOn::Table(name) => table(tables, name, grant, statement)?,
    };
    let to = grant.to.iter().map(|to| grantee(tables, to)).collect::<Result<_>>()?;
    Ok(Meant { premise: tables.same_granted(&on), on, to, privileges })
}

fn namespace(tables: &Tables, name: &str, statement: &str) -> Result<GrantOn> {
    if describes(name) {
        return Err(always_readable(name));
    }
    if is_temporary(name) || tables.catalog().namespace(name).is_none() {
        return Err(EngineError::not_found(format!("unknown namespace '{name}'")));
    }
    tables.require_namespace_owner(name, statement)?;
    Ok(GrantOn::Namespace(name.to_owned()))
}

fn table(tables: &Tables, name: &TableName, grant: &Grant, statement: &str) -> Result<(GrantOn, Vec<Privilege>)> {
    let namespace = tables.namespace_of(name);
    if describes(namespace) {
        return Err(always_readable(namespace));
    }
    let object = match tables.view(name) {
        Some(view) => Object::View(view),
        None => Object::Table(tables.record(name)?),
    };
    tables.require_owner(object, statement)?;
    if is_temporary(namespace) {
        return Err(EngineError::invalid(format!("'{name}' is a temporary table: only its session sees it")));
    }
    if object.is_open() {
        return Err(EngineError::invalid(format!(
            "'{name}' is no shared table: everyone has the right to rows of their own in it"
        )));
    }
    let possible = object.privileges();
    let is_possible = |privilege: &Privilege| possible.contains(privilege);
    let privileges: Vec<Privilege> = match grant.privileges.len() == Privilege::ALL.len() {
        true => possible.to_vec(),
        false => grant.privileges.clone(),
    };
    match privileges.iter().all(is_possible) {
        true => Ok((object.grants_are_on(), privileges)),
        false => Err(EngineError::invalid(format!("view '{name}' can only be read: the one right to it is SELECT"))),
    }
}

fn grantee(tables: &Tables, to: &GrantedTo) -> Result<GrantTo> {
    match to {
        GrantedTo::Role(role) => Ok(GrantTo::Role(role.to_string())),
        GrantedTo::User(name) => {
            let user = tables.catalog().live_user(name).ok_or_else(|| unknown_user(name))?;
            Ok(GrantTo::User(user.name.clone()))
        }
    }
}

fn always_readable(namespace: &str) -> EngineError {
    EngineError::invalid(format!("{namespace} can only be read, by everyone: it shows to each what they may know"))
}
