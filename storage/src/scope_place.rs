//! A scope with its names: where its files lie, and what messages and caches call it.

use crate::catalog::{Catalog, TableRecord};
use crate::error::{Result, StorageError};
use crate::keys::Scope;
use crate::paths;

/// A scope, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopePlace {
    /// The scope.
    pub scope: Scope,
    /// Its table's namespace.
    pub namespace: String,
    /// Its table's name.
    pub table: String,
    /// Name of the owner; `None` = shared.
    pub user: Option<String>,
    /// Folder of its files.
    pub prefix: String,
}

impl ScopePlace {
    /// The place of a scope; [`StorageError::Conflict`] when its table is gone.
    pub fn of(catalog: &Catalog, scope: Scope) -> Result<Self> {
        Self::of_table(catalog, catalog.table_by_id(scope.table).ok_or(StorageError::Conflict)?, scope)
    }

    /// The place of a scope of this table, which the catalog need not have.
    pub fn of_table(catalog: &Catalog, table: &TableRecord, scope: Scope) -> Result<Self> {
        let user = match scope.owner.0 {
            0 => None,
            number => {
                let user = catalog.user_by_number(number);
                let unknown = || StorageError::Damaged(format!("rows of an unknown user {number}"));
                Some(user.ok_or_else(unknown)?.name.clone())
            }
        };
        let prefix = paths::scope_prefix(&table.prefix, user.as_deref());
        Ok(Self { scope, namespace: table.namespace.clone(), table: table.name.clone(), user, prefix })
    }

    /// `shared`, or `user:` and the user's name: how manifests and footers say it.
    pub fn scope_name(&self) -> String {
        self.user.as_ref().map_or_else(|| "shared".to_owned(), |name| format!("user:{name}"))
    }

    /// The manifest's path.
    pub fn manifest_path(&self) -> String {
        format!("{}/{}", self.prefix, paths::MANIFEST_FILE)
    }
}
