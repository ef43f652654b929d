//! A client's session: who it is, what it has set, and its transactions.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use seracdb_storage::catalog::DEFAULT_NAMESPACE;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::identity::Principal;
use crate::sql::suggest;
use crate::standing::OwnPasswords;
use crate::system::SYSTEM_SCHEMA;
use crate::temporary::is_temporary;
use crate::transaction::{Transaction, TransactionId};

/// Transactions of a session above which those that were rolled back without its asking are forgotten.
const BEGUN_MAX: usize = 1000;

/// The namespace of the tables that describe the others.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// Whether a namespace holds no tables of users, but what describes them.
pub(crate) fn describes(namespace: &str) -> bool {
    [INFORMATION_SCHEMA, SYSTEM_SCHEMA].contains(&namespace)
}

/// One client's session. Cheap to clone; clones share the settings. Its transactions are rolled back when the last is gone.
#[derive(Debug, Clone)]
pub struct Session {
    principal: Principal,
    /// For whom its statements are, when that is another user, and what they reach.
    acting: Option<(Principal, Reach)>,
    /// Whether the statement that runs reads the rows of all users, and is in the audit log for it.
    reads_everyone: bool,
    /// Where its client is.
    peer: Option<Arc<str>>,
    /// By which way its statements come.
    origin: &'static str,
    /// Of the statement that runs.
    fingerprint: Option<Arc<str>>,
    shared: Arc<Shared>,
    /// The transaction that statements run in, as the client says with each.
    within: Option<Arc<Transaction>>,
    /// Whether statements run outside of every transaction.
    outside: bool,
    /// Whether it ends with the call.
    of_one_call: bool,
}

/// What a statement for another user reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only tables that keep each user's rows apart.
    OwnRows,
    /// It changes rows of such a table, and reads what that user may read; of shared tables what its actor may read, too.
    OwnTarget,
}

#[derive(Debug)]
pub(crate) struct Shared {
    /// Names the session to others; gives no access.
    id: Arc<str>,
    /// When a statement of it came last.
    last_used_ns: AtomicI64,
    namespace: Mutex<String>,
    /// The namespace of its temporary tables, once it has had one.
    temporary: OnceLock<Arc<str>>,
    /// The transaction that BEGIN has begun.
    current: Mutex<Option<Arc<Transaction>>>,
    /// Those that the client has begun and names.
    begun: Mutex<Vec<Arc<Transaction>>>,
    /// What its login goes on with.
    own_passwords: Arc<OwnPasswords>,
}

impl Session {
    /// A new session for this user.
    pub fn new(principal: Principal) -> Self {
        let namespace = Mutex::new(DEFAULT_NAMESPACE.to_owned());
        Self {
            principal,
            acting: None,
            reads_everyone: false,
            peer: None,
            origin: "sql",
            fingerprint: None,
            shared: Arc::new(Shared {
                id: uuid::Uuid::new_v4().simple().to_string().into(),
                last_used_ns: AtomicI64::new(0),
                namespace,
                temporary: OnceLock::new(),
                current: Mutex::default(),
                begun: Mutex::default(),
                own_passwords: Arc::default(),
            }),
            within: None,
            outside: false,
            of_one_call: false,
        }
    }

    /// A session that ends with the call: BEGIN makes no sense in it.
    pub fn of_one_call(principal: Principal) -> Self {
        Self { of_one_call: true, ..Self::new(principal) }
    }

    /// The same session, of a client at this address.
    pub fn from_peer(self, peer: Option<&str>) -> Self {
        Self { peer: peer.map(Arc::from), ..self }
    }

    /// The same session, for statements of a user that its own acts for. Only [`crate::effective`] may decide that.
    pub(crate) fn acting_for(&self, subject: Principal, reach: Reach) -> Self {
        Self { acting: Some((subject, reach)), ..self.clone() }
    }

    /// The same session, for a statement that reads the rows of all users. Only [`crate::effective`] may decide that.
    pub(crate) fn reading_everyone(&self) -> Self {
        Self { reads_everyone: true, ..self.clone() }
    }

    pub(crate) fn reads_everyone(&self) -> bool {
        self.reads_everyone
    }

    pub(crate) fn with_origin(&self, origin: &'static str) -> Self {
        Self { origin, ..self.clone() }
    }

    pub(crate) fn with_fingerprint(&self, fingerprint: Option<Arc<str>>) -> Self {
        Self { fingerprint, ..self.clone() }
    }

    /// The user whose rows and rights its statements have: its own, or the one that it acts for.
    pub(crate) fn subject(&self) -> &Principal {
        self.impersonated().unwrap_or(&self.principal)
    }

    /// The user that it acts for, when that is another.
    pub(crate) fn impersonated(&self) -> Option<&Principal> {
        self.acting.as_ref().map(|(subject, _)| subject)
    }

    /// What its statements reach, when they are for another user.
    pub(crate) fn reach(&self) -> Option<Reach> {
        self.acting.as_ref().map(|(_, reach)| *reach)
    }

    /// Its name for others, which gives no access.
    pub(crate) fn id(&self) -> &str {
        &self.shared.id
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.shared.id)
    }

    /// What its clones share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A statement of it has come.
    pub(crate) fn used_at(&self, now_ns: i64) {
        self.shared.last_used_ns.store(now_ns, Ordering::Relaxed);
    }

    pub(crate) fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    pub(crate) fn origin(&self) -> &'static str {
        self.origin
    }

    pub(crate) fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// The passwords that it has given its own user.
    pub(crate) fn own_passwords(&self) -> &Arc<OwnPasswords> {
        &self.shared.own_passwords
    }

    pub(crate) fn is_of_one_call(&self) -> bool {
        self.of_one_call
    }

    /// The same session, for what commits by itself whatever is begun meanwhile.
    pub(crate) fn outside(&self) -> Self {
        Self { outside: true, ..self.clone() }
    }

    /// Whether the client has several transactions and did not say which one it means.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.transaction().is_none() && self.shared.begun.lock().len() > 1
    }

    /// Whose session this is: who acts.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The same session, for statements of a transaction.
    pub fn within(&self, transaction: Arc<Transaction>) -> Self {
        Self { within: Some(transaction), ..self.clone() }
    }

    /// Whether the client says which transaction its statements are in.
    pub(crate) fn is_within(&self) -> bool {
        self.within.is_some()
    }

    /// The transaction that statements run in, also when it was rolled back meanwhile: they fail then, until the client has
    /// ended it, and never stand by themselves.
    pub fn transaction(&self) -> Option<Arc<Transaction>> {
        match self.outside {
            true => None,
            false => self.within.clone().or_else(|| self.shared.current.lock().clone()),
        }
    }

    /// Keeps a transaction that the client has begun and names with its statements.
    pub fn keep(&self, transaction: Arc<Transaction>) {
        let mut begun = self.shared.begun.lock();
        if begun.len() >= BEGUN_MAX {
            begun.retain(|known| known.is_open());
        }
        begun.push(transaction);
    }

    /// The client has ended a transaction.
    pub fn forget(&self, id: TransactionId) {
        self.shared.begun.lock().retain(|known| known.id() != id);
    }

    /// The transaction that is meant by a client that names none but has exactly one: ADBC ingests so.
    fn only_transaction(&self) -> Option<Arc<Transaction>> {
        self.transaction().or_else(|| self.only_begun())
    }

    /// The same session, in its only transaction when it has one.
    pub(crate) fn in_only_transaction(&self) -> Self {
        self.only_transaction().map_or_else(|| self.clone(), |transaction| self.within(transaction))
    }

    /// The one that the client has begun, when it has begun exactly one.
    pub fn only_begun(&self) -> Option<Arc<Transaction>> {
        let begun = self.shared.begun.lock();
        begun.first().filter(|_| begun.len() == 1).cloned()
    }

    pub(crate) fn set_current(&self, transaction: Arc<Transaction>) {
        *self.shared.current.lock() = Some(transaction);
    }

    pub(crate) fn forget_current(&self) {
        *self.shared.current.lock() = None;
    }

    /// The namespace that unqualified table names mean.
    pub fn namespace(&self) -> String {
        self.shared.namespace.lock().clone()
    }

    /// The namespace of its temporary tables, once it has had one.
    pub(crate) fn temporary(&self) -> Option<Arc<str>> {
        self.shared.temporary.get().cloned()
    }

    /// The same, named now when it has none.
    pub(crate) fn temporary_or(&self, name: impl FnOnce() -> Arc<str>) -> Arc<str> {
        Arc::clone(self.shared.temporary.get_or_init(name))
    }

    /// Sets the namespace that unqualified table names mean; NotFound when there is none of this name.
    pub fn set_namespace(&self, engine: &Engine, namespace: &str) -> Result<()> {
        let catalog = match self.only_transaction() {
            Some(transaction) => transaction.view()?.1.catalog,
            None => Arc::clone(engine.store.snapshot().catalog()),
        };
        let is_there = catalog.namespace(namespace).is_some() && !is_temporary(namespace);
        if !is_there && !describes(namespace) {
            let known = catalog.namespaces().map(|record| record.name.as_str()).filter(|name| !is_temporary(name));
            return Err(EngineError::not_found(suggest::unknown("namespace", namespace, known)));
        }
        *self.shared.namespace.lock() = namespace.to_owned();
        Ok(())
    }
}

impl Shared {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The namespace that unqualified names mean.
    pub(crate) fn namespace(&self) -> String {
        self.namespace.lock().clone()
    }

    /// When a statement of it came last, in ns since the Unix epoch; `None` when none has.
    pub(crate) fn last_used_ns(&self) -> Option<i64> {
        Some(self.last_used_ns.load(Ordering::Relaxed)).filter(|ns| *ns != 0)
    }

    /// How many open transactions it has.
    pub(crate) fn open_transactions(&self) -> usize {
        let begun = self.begun.lock().clone();
        let current = self.current.lock().clone();
        begun.iter().chain(&current).filter(|transaction| transaction.is_open()).count()
    }
}
