//! Plans of statements that come again: found by what they depend on.
//!
//! Invariants:
//! 1. A plan holds no rows, no snapshot and no catalog: its tables are names, and each execution binds them to its own
//!    ([`crate::tables::Tables::bind`]).
//! 2. A plan is used for the catalog, users and namespace that it was made for, and for no other ([`Basis`]).
//! 3. So much is kept and no more, whatever users send: plans are a hundred times as large as their text.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use seracdb_storage::catalog::CatalogIdentity;

use crate::identity::Principal;
use crate::prepared::Prepared;
use crate::tables::Tables;

/// Bytes of a statement above which its plan is not kept: such a one is hardly sent twice.
const STATEMENT_BYTES_MAX: usize = 4 << 10;
/// Bytes of all statements whose plans are kept.
const TEXT_BYTES_MAX: usize = 256 << 10;

/// What the meaning of a statement depends on, beside its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Basis {
    pub(crate) catalog: CatalogIdentity,
    pub(crate) principal: Principal,
    pub(crate) actor: Option<Principal>,
    pub(crate) namespace: String,
    /// The namespace of temporary tables. The session's own name would keep them alive.
    pub(crate) temporary: Option<String>,
    /// In a transaction the columns of a table are nullable that are not elsewhere.
    pub(crate) in_transaction: bool,
}

impl Basis {
    pub(crate) fn of(tables: &Tables) -> Self {
        Self {
            catalog: tables.catalog().identity().clone(),
            principal: tables.principal.clone(),
            actor: tables.actor.clone(),
            namespace: tables.namespace.clone(),
            temporary: tables.temporary.as_deref().map(str::to_owned),
            in_transaction: tables.staged.is_some(),
        }
    }
}

/// The statements that were prepared last.
pub(crate) struct Plans(Mutex<State>);

type Key = (String, Basis);

struct State {
    known: LruCache<Key, Arc<Prepared>>,
    text_bytes: usize,
}

impl Plans {
    pub(crate) fn new(plans_max: NonZeroUsize) -> Self {
        Self(Mutex::new(State { known: LruCache::new(plans_max), text_bytes: 0 }))
    }

    pub(crate) fn find(&self, sql: &str, basis: Basis) -> Option<Arc<Prepared>> {
        let key = Self::key(sql, basis)?;
        self.0.lock().known.get(&key).cloned()
    }

    pub(crate) fn keep(&self, sql: &str, basis: Basis, prepared: &Arc<Prepared>) {
        let Some(key) = Self::key(sql, basis) else { return };
        let mut state = self.0.lock();
        state.text_bytes += sql.len();
        if let Some(((gone, _), _)) = state.known.push(key, Arc::clone(prepared)) {
            state.text_bytes -= gone.len();
        }
        while state.text_bytes > TEXT_BYTES_MAX
            && let Some(((gone, _), _)) = state.known.pop_lru()
        {
            state.text_bytes -= gone.len();
        }
    }

    fn key(sql: &str, basis: Basis) -> Option<Key> {
        (sql.len() <= STATEMENT_BYTES_MAX).then(|| (sql.to_owned(), basis))
    }
}

impl std::fmt::Debug for Plans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plans").field("known", &self.0.lock().known.len()).finish_non_exhaustive()
    }
}
