//! What changes of the catalog were decided for, told to the commit that makes them: see [`Premise`].
//!
//! Whoever decides by a name's owner or a user's role says so here. A table needs none of it: changes have its number.

use seracdb_storage::StorageError;
use seracdb_storage::catalog::{Catalog, CatalogChange, CatalogError, CommentOn, GrantOn, Premise};
use seracdb_storage::snapshot::Snapshot;

use crate::engine::Engine;
use crate::error::Result;
use crate::session::Session;
use crate::tables::Tables;
use crate::transaction::Staged;

impl Tables {
    /// That a namespace is still the one that this statement sees.
    pub(crate) fn same_namespace(&self, name: &str) -> CatalogChange {
        let made = self.catalog().namespace(name).map(|namespace| namespace.made());
        Premise::Namespace { name: name.to_owned(), made }.into()
    }

    /// The same of a view.
    pub(crate) fn same_view(&self, namespace: &str, name: &str) -> CatalogChange {
        let made = self.catalog().view(namespace, name).map(|view| view.made());
        Premise::View { namespace: namespace.to_owned(), name: name.to_owned(), made }.into()
    }

    /// The same of what rights are given on.
    pub(crate) fn same_granted(&self, on: &GrantOn) -> Option<CatalogChange> {
        match on {
            GrantOn::Namespace(name) => Some(self.same_namespace(name)),
            GrantOn::View(namespace, name) => Some(self.same_view(namespace, name)),
            GrantOn::Table(_) => None,
        }
    }

    /// The same of what is commented on.
    pub(crate) fn same_commented(&self, on: &CommentOn) -> Option<CatalogChange> {
        match on {
            CommentOn::Namespace(name) => Some(self.same_namespace(name)),
            CommentOn::View(namespace, name) | CommentOn::ViewColumn(namespace, name, _) => {
                Some(self.same_view(namespace, name))
            }
            CommentOn::Table(_) | CommentOn::Column(..) => None,
        }
    }
}

impl Engine {
    /// That the session's user is there when changes are made, and of the role that it has now. That is no lower one than
    /// the session's: so none of them was allowed to more than the user is.
    pub(crate) fn same_actor(&self, session: &Session) -> Result<CatalogChange> {
        let now = self.living(session.principal().number())?;
        match now.role() < session.principal().role() {
            true => Err(StorageError::from(CatalogError::UserChanged(now.name().to_owned())).into()),
            false => Ok(Premise::Role { user: now.name().to_owned(), role: now.role().to_string() }.into()),
        }
    }

    /// Changes for a transaction, after that premise.
    pub(crate) fn resting_on_actor(
        &self,
        session: &Session,
        snapshot: &Snapshot,
        staged: &Staged,
        changes: Vec<CatalogChange>,
    ) -> Result<Vec<CatalogChange>> {
        let actor = |catalog: &Catalog| catalog.user_by_number(session.principal().number()).cloned();
        // Who changes themselves in the transaction: what they were is the premise of that.
        let has_changed = actor(snapshot.catalog()) != actor(&staged.catalog);
        if changes.is_empty() || has_changed {
            return Ok(changes);
        }
        Ok([self.same_actor(session)?].into_iter().chain(changes).collect())
    }
}
