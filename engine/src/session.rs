//! A client's session: who it is and what it has set.

use std::sync::Arc;

use parking_lot::Mutex;
use seracdb_storage::catalog::DEFAULT_NAMESPACE;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::identity::Principal;
use crate::sql::suggest;
use crate::system::SYSTEM_SCHEMA;

/// The namespace of the tables that describe the others.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// Whether a namespace holds no tables of users, but what describes them.
pub(crate) fn describes(namespace: &str) -> bool {
    [INFORMATION_SCHEMA, SYSTEM_SCHEMA].contains(&namespace)
}

/// One client's session. Cheap to clone; clones share the settings.
#[derive(Debug, Clone)]
pub struct Session {
    principal: Principal,
    namespace: Arc<Mutex<String>>,
}

impl Session {
    /// A new session for this user.
    pub fn new(principal: Principal) -> Self {
        Self { principal, namespace: Arc::new(Mutex::new(DEFAULT_NAMESPACE.to_owned())) }
    }

    /// Whose session this is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The namespace that unqualified table names mean.
    pub fn namespace(&self) -> String {
        self.namespace.lock().clone()
    }

    /// Sets the namespace that unqualified table names mean; NotFound when there is none of this name.
    pub fn set_namespace(&self, engine: &Engine, namespace: &str) -> Result<()> {
        let snapshot = engine.store.snapshot();
        if snapshot.catalog().namespace(namespace).is_none() && !describes(namespace) {
            let known = snapshot.catalog().namespaces().map(|record| record.name.as_str());
            return Err(EngineError::not_found(suggest::unknown("namespace", namespace, known)));
        }
        *self.namespace.lock() = namespace.to_owned();
        Ok(())
    }
}
