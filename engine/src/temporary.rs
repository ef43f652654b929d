//! Temporary tables: of one session, and gone with it.
//!
//! They are tables like others in a namespace that only their session sees, and that unqualified names mean first. It is
//! made with the first of them. What no living session has is dropped by a sweep, also what a crash has left.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::{Catalog, CatalogChange, NamespaceRecord};
use seracdb_storage::commit::Commit;

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::session::Session;

/// How their namespaces begin. No user can make one that does.
const PREFIX: &str = "__serac_temporary_";

/// Whether a namespace is of temporary tables.
pub(crate) fn is_temporary(namespace: &str) -> bool {
    namespace.starts_with(PREFIX)
}

/// The namespaces whose sessions may still live.
#[derive(Debug, Default)]
pub(crate) struct TemporaryNamespaces(Mutex<Vec<Weak<str>>>);

impl TemporaryNamespaces {
    /// Those whose sessions live.
    fn live(&self) -> HashSet<Arc<str>> {
        let mut known = self.0.lock();
        known.retain(|session| session.strong_count() > 0);
        known.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Engine {
    /// The namespace of a session's temporary tables, and the change that makes it when it is not there.
    pub(crate) fn temporary_namespace(&self, session: &Session) -> Result<(Arc<str>, CatalogChange)> {
        if session.is_of_one_call() {
            return Err(EngineError::invalid(
                "a temporary table needs a session: log in by Handshake and send its bearer token with every call, or \
                 keep cookies",
            ));
        }
        let name = session.temporary_or(|| {
            let name: Arc<str> = format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()).into();
            self.temporary.0.lock().push(Arc::downgrade(&name));
            name
        });
        let record =
            NamespaceRecord { name: name.to_string(), created_at_ns: self.now_ns(), created_by: None, comment: None };
        Ok((name, CatalogChange::EnsureNamespace(record)))
    }

    /// Refuses one more temporary table of a session's user than there may be, beside those of this catalog.
    pub(crate) fn check_one_more_temporary(&self, session: &Session, catalog: &Catalog) -> Result<()> {
        self.check_temporary(catalog, session.principal().name(), 1)
    }

    /// The same for what a transaction has made, at its end: others of the user may have made some meanwhile.
    pub(crate) fn check_staged_temporary(&self, changes: &[CatalogChange]) -> Result<()> {
        let (mut made, mut dropped, mut user) = (0, 0, None);
        for change in changes {
            match change {
                CatalogChange::CreateTable(table) if is_temporary(&table.namespace) => {
                    made += 1;
                    user = Some(&table.created_by);
                }
                CatalogChange::DropTable { namespace, .. } if is_temporary(namespace) => dropped += 1,
                _ => {}
            }
        }
        match user.filter(|_| made > dropped) {
            Some(user) => self.check_temporary(self.store.snapshot().catalog(), user, made - dropped),
            None => Ok(()),
        }
    }

    fn check_temporary(&self, catalog: &Catalog, user: &str, more: usize) -> Result<()> {
        let max = self.running.limits().temporary_tables_max;
        let live = self.temporary.live();
        let all = live.iter().flat_map(|namespace| catalog.tables_of(namespace));
        let count = all.filter(|table| table.created_by == user).count();
        if count + more <= max {
            return Ok(());
        }
        Err(EngineError::new(
            ErrorKind::ResourceExhausted,
            format!(
                "user '{user}' would have more than {max} temporary tables: drop some or close sessions, or raise \
                 limits.user.temporary_tables_max"
            ),
        ))
    }

    /// Drops the temporary tables of sessions that have ended, those of a process before included.
    pub fn sweep_temporary(self: &Arc<Self>) {
        let snapshot = self.store.snapshot();
        let live = self.temporary.live();
        let names = snapshot.catalog().namespaces().map(|namespace| namespace.name.as_str());
        let gone = names.filter(|name| is_temporary(name) && !live.contains(*name));
        let catalog: Vec<_> =
            gone.map(|name| CatalogChange::DropNamespace { name: name.to_owned(), cascade: true }).collect();
        if catalog.is_empty() {
            return;
        }
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            // What was there for one session only is nobody's business.
            let commit = Commit::of_catalog(snapshot, catalog, vec![]);
            match engine.store.commit(commit).await {
                Ok(_) => engine.remove_dropped_later(),
                Err(StorageError::Stopped) => {}
                // The next sweep tries again.
                Err(error) => tracing::warn!(%error, "temporary tables could not be dropped"),
            }
        });
    }
}
