//! Which names are WITH queries, at each place of a statement.
//!
//! A visitor calls [`Ctes::enter`] before and [`Ctes::leave`] after each query. It relies on the order of visits: the WITH
//! queries of a query come before everything else in it.

use datafusion::sql::sqlparser::ast::{ObjectName, ObjectNamePart, Query};

use super::names::fold;

/// The WITH queries in sight, each with what the visitor found out about it.
pub(crate) struct Ctes<T> {
    scopes: Vec<Scope<T>>,
}

/// A query that is being visited, with the names its WITH gives.
struct Scope<T> {
    names: Vec<String>,
    /// What is known of those visited so far. A WITH query sees those before it.
    known: Vec<T>,
    /// With RECURSIVE it sees all of them.
    recursive: bool,
    /// Whether this query is one of the WITH queries of the scope above.
    is_cte: bool,
}

/// A name as [`Ctes::find`] sees it.
pub(crate) enum Cte<'a, T> {
    /// A WITH query that was visited before.
    Known(&'a T),
    /// A WITH query that refers to itself or to a later one.
    Recursive,
}

impl<T> Ctes<T> {
    /// Outside of every query.
    pub(crate) fn new() -> Self {
        Self { scopes: vec![] }
    }

    /// Goes into a query.
    pub(crate) fn enter(&mut self, query: &Query) {
        let is_cte = self.scopes.last().is_some_and(|above| above.known.len() < above.names.len());
        let names = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| fold(&cte.alias.name)).collect();
        let recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        self.scopes.push(Scope { names, known: vec![], recursive, is_cte });
    }

    /// Comes out of the query entered last. When it was a WITH query `found` is kept, else given back.
    pub(crate) fn leave(&mut self, found: T) -> Option<T> {
        let was_cte = self.scopes.pop().is_some_and(|scope| scope.is_cte);
        match self.scopes.last_mut() {
            Some(above) if was_cte => {
                above.known.push(found);
                None
            }
            _ => Some(found),
        }
    }

    /// The WITH query this name means here; `None` = it is a table.
    pub(crate) fn find(&self, name: &ObjectName) -> Option<Cte<'_, T>> {
        let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
        let name = fold(name);
        self.scopes.iter().rev().find_map(|scope| {
            let at = scope.names.iter().position(|known| *known == name)?;
            match scope.known.get(at) {
                Some(known) => Some(Cte::Known(known)),
                None => scope.recursive.then_some(Cte::Recursive),
            }
        })
    }
}
