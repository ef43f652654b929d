//! Plans of statements that come again: found by what they depend on.
//!
//! Invariants:
//! 1. A plan holds no rows and no snapshot: its tables are names, and each execution binds them to its own
//!    ([`crate::tables::Tables::bind`]).
//! 2. A plan is used for the catalog, user and namespace that it was made for, and for no other ([`Basis`]).
//! 3. Plans of one catalog are kept, the newest that was planned with; those of catalogs before are dropped.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use seracdb_storage::catalog::Catalog;

use crate::identity::Principal;
use crate::prepared::Prepared;
use crate::tables::Tables;

/// Bytes of a statement above which its plan is not kept: such a one is hardly sent twice.
const STATEMENT_BYTES_MAX: usize = 64 << 10;

/// What the meaning of a statement depends on, beside its text.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    /// Held, so that no other catalog can come to lie at its address.
    catalog: Arc<Catalog>,
    whose: Whose,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Whose {
    principal: Principal,
    namespace: String,
    /// The namespace of temporary tables.
    temporary: Option<String>,
    /// In a transaction the columns of a table are nullable that are not elsewhere.
    in_transaction: bool,
}

impl Basis {
    pub(crate) fn of(tables: &Tables) -> Self {
        let whose = Whose {
            principal: tables.principal.clone(),
            namespace: tables.namespace.clone(),
            temporary: tables.temporary.as_deref().map(str::to_owned),
            in_transaction: tables.staged.is_some(),
        };
        Self { catalog: Arc::clone(tables.catalog()), whose }
    }

    /// Whether a statement means the same over these tables.
    pub(crate) fn fits(&self, tables: &Tables) -> bool {
        Arc::ptr_eq(&self.catalog, tables.catalog())
            && self.whose.principal == tables.principal
            && self.whose.namespace == tables.namespace
            && self.whose.temporary.as_deref() == tables.temporary.as_deref()
            && self.whose.in_transaction == tables.staged.is_some()
    }
}

/// The statements that were prepared last.
pub(crate) struct Plans(Mutex<State>);

struct State {
    catalog: Option<Arc<Catalog>>,
    known: LruCache<(String, Whose), Arc<Prepared>>,
}

impl Plans {
    pub(crate) fn new(plans_max: NonZeroUsize) -> Self {
        Self(Mutex::new(State { catalog: None, known: LruCache::new(plans_max) }))
    }

    pub(crate) fn find(&self, sql: &str, basis: &Basis) -> Option<Arc<Prepared>> {
        let mut state = self.0.lock();
        if !state.catalog.as_ref().is_some_and(|catalog| Arc::ptr_eq(catalog, &basis.catalog)) {
            return None;
        }
        state.known.get(&(sql.to_owned(), basis.whose.clone())).cloned()
    }

    /// Keeps a statement. `newest`: the catalog that is committed now; what was prepared for another is not kept.
    pub(crate) fn keep(&self, sql: &str, prepared: &Arc<Prepared>, basis: Basis, newest: &Arc<Catalog>) {
        if sql.len() > STATEMENT_BYTES_MAX || !Arc::ptr_eq(&basis.catalog, newest) {
            return;
        }
        let mut state = self.0.lock();
        if !state.catalog.as_ref().is_some_and(|catalog| Arc::ptr_eq(catalog, newest)) {
            state.known.clear();
            state.catalog = Some(basis.catalog);
        }
        state.known.put((sql.to_owned(), basis.whose), Arc::clone(prepared));
    }
}

impl std::fmt::Debug for Plans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plans").field("known", &self.0.lock().known.len()).finish_non_exhaustive()
    }
}
