//! Temporary tables: of one session, and gone with it.
//!
//! They are tables like others in a namespace that only their session sees, and that unqualified names mean first. It is
//! made with the first of them. What a crash leaves of them is dropped at the next start.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{CatalogChange, NamespaceRecord};
use seracdb_storage::commit::Commit;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::session::Session;
use crate::tables::Tables;

/// How their namespaces begin. No user can make one that does.
const PREFIX: &str = "__serac_temporary_";

/// Whether a namespace is of temporary tables.
pub(crate) fn is_temporary(namespace: &str) -> bool {
    namespace.starts_with(PREFIX)
}

/// Namespaces that were made, and whether their sessions still live.
#[derive(Debug, Default)]
pub(crate) struct TemporaryNamespaces(Mutex<Vec<(String, Weak<str>)>>);

impl Engine {
    /// The namespace of a session's temporary tables, and the change that makes it when it is not there.
    pub(crate) fn temporary_namespace(
        &self,
        session: &Session,
        tables: &Tables,
    ) -> Result<(Arc<str>, Option<CatalogChange>)> {
        if session.is_of_one_call() {
            return Err(EngineError::invalid(
                "a temporary table needs a session: log in by Handshake and send its bearer token with every call",
            ));
        }
        let namespace = session.temporary_or(|| {
            let name: Arc<str> = format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()).into();
            self.temporary.0.lock().push((name.to_string(), Arc::downgrade(&name)));
            name
        });
        let is_there = tables.catalog().namespace(&namespace).is_some();
        let created_at_ns = self.now_ns();
        let create = || CatalogChange::CreateNamespace(NamespaceRecord { name: namespace.to_string(), created_at_ns });
        let change = (!is_there).then(create);
        Ok((namespace, change))
    }

    /// Drops the temporary tables of sessions that have ended.
    pub fn sweep_temporary(self: &Arc<Self>) {
        let mut gone = vec![];
        self.temporary.0.lock().retain(|(name, session)| {
            let lives = session.strong_count() > 0;
            gone.extend((!lives).then(|| name.clone()));
            lives
        });
        if !gone.is_empty() {
            let engine = Arc::clone(self);
            tokio::spawn(async move { engine.drop_temporary(gone).await });
        }
    }

    /// Drops what a process before has left.
    pub(crate) async fn drop_left_temporary(self: &Arc<Self>) {
        let snapshot = self.store.snapshot();
        let names = snapshot.catalog().namespaces().map(|namespace| namespace.name.clone());
        let left: Vec<String> = names.filter(|name| is_temporary(name)).collect();
        drop(snapshot);
        self.drop_temporary(left).await;
    }

    async fn drop_temporary(self: &Arc<Self>, namespaces: Vec<String>) {
        for name in namespaces {
            let snapshot = self.store.snapshot();
            // One that was made in a transaction alone that was rolled back never was.
            if snapshot.catalog().namespace(&name).is_none() {
                continue;
            }
            let catalog = vec![CatalogChange::DropNamespace { name, cascade: true }];
            match self.store.commit(Commit { snapshot, expects: vec![], catalog, writes: vec![], name: None }).await {
                Ok(_) => self.remove_dropped_later(),
                Err(StorageError::Stopped) => return,
                Err(error) => tracing::warn!(%error, "temporary tables could not be dropped"),
            }
        }
    }
}
