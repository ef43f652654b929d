//! The audit log: what is owed to it, and how that is paid.
//!
//! Invariants:
//! 1. Whoever acts for another user, or is refused that, owes one entry: a [`Duty`]. It is paid once, and durably, before the
//!    client is told anything: by the commit of the rows that it is about, or by a write of its own.
//! 2. A statement that nobody waits for any more pays too, in the background ([`Duty`]'s drop). Whoever is about to pay has the
//!    duty, and goes on to the end without being waited for: so it is never paid twice.
//! 3. Whatever changes the catalog has its entries in the same commit ([`of_changes`] knows every kind of change).
//! 4. When an entry cannot be written the statement fails.
//! 5. Entries hold names and numbers, no literals and no secrets.

use std::sync::Arc;

use seracdb_storage::audit::{AuditEntry, AuditParty};
use seracdb_storage::commit::Commit;
use seracdb_storage::store::Store;

pub(crate) use crate::audit_changes::{ALTER_TABLE, of_changes};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::Principal;
use crate::session::Session;

/// Bytes of a name above which the log cuts it: who is refused may have sent anything.
const NAME_BYTES_MAX: usize = 256;

/// Bytes of the names of all that a statement is about, above which the log cuts them.
const TARGET_BYTES_MAX: usize = 8192;

/// What became of what an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is durable.
    Committed,
    /// It is part of an open transaction.
    Staged,
    /// It was part of a transaction, or of what a savepoint has undone.
    RolledBack,
    /// A read: the client gets rows.
    Allowed,
    /// It was refused.
    Denied,
    /// It failed.
    Failed,
    /// Nobody waited for it any more.
    Abandoned,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Staged => "staged",
            Self::RolledBack => "rolled back",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }

    /// How what ended with this error ended.
    pub(crate) fn of_error(error: &EngineError) -> Self {
        match error.kind {
            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated => Self::Denied,
            // Nothing of it was committed.
            ErrorKind::Cancelled => Self::Abandoned,
            _ => Self::Failed,
        }
    }
}

/// An entry with this ending.
pub(crate) fn ended(entry: &AuditEntry, ending: Ending, rows: Option<u64>) -> AuditEntry {
    AuditEntry { outcome: ending.name().to_owned(), rows, ..entry.clone() }
}

/// The entry of what a session does now. Its ending is still to be said.
pub(crate) fn entry(session: &Session, action: &str, target: Option<String>) -> AuditEntry {
    AuditEntry {
        at: 0,
        actor: party(session.principal()),
        subject: session.impersonated().map(party),
        origin: session.origin().to_owned(),
        action: action.to_owned(),
        target: target.map(|names| cut_to(&names, TARGET_BYTES_MAX)),
        rows: None,
        outcome: String::new(),
        session: Some(session.id().to_owned()),
        peer: session.peer().map(str::to_owned),
        fingerprint: session.fingerprint().map(str::to_owned),
    }
}

pub(crate) fn party(user: &Principal) -> AuditParty {
    AuditParty { user: cut(user.name()), role: Some(user.role().to_string()) }
}

/// A name of who may not be there.
pub(crate) fn stranger(name: &str) -> AuditParty {
    AuditParty { user: cut(name), role: None }
}

/// A name, or its beginning.
pub(crate) fn cut(name: &str) -> String {
    cut_to(name, NAME_BYTES_MAX)
}

fn cut_to(text: &str, bytes_max: usize) -> String {
    match text.len() > bytes_max {
        true => format!("{}…", &text[..text.floor_char_boundary(bytes_max)]),
        false => text.to_owned(),
    }
}

/// What a statement owes to the log: nothing, when it acts for its own user.
#[must_use = "what is owed to the audit log is to be paid"]
#[derive(Default)]
pub(crate) struct Duty(Option<Owed>);

struct Owed {
    entry: AuditEntry,
    store: Arc<Store>,
    /// Whether a transaction has it, which pays for its end.
    staged: bool,
}

impl Duty {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn of(entry: AuditEntry, store: &Arc<Store>) -> Self {
        Self(Some(Owed { entry, store: Arc::clone(store), staged: false }))
    }

    /// The entries for the commit of these rows; [`Duty::paid`] once that stands.
    pub(crate) fn of_commit(&self, rows: u64) -> Vec<AuditEntry> {
        self.0.iter().map(|owed| ended(&owed.entry, Ending::Committed, Some(rows))).collect()
    }

    /// The commit that has the entries stands.
    pub(crate) fn paid(&mut self) {
        self.0 = None;
    }

    /// What a transaction keeps of it, to say at its end how that was.
    pub(crate) fn take_over(&mut self, rows: u64) -> Option<AuditEntry> {
        let owed = self.0.as_mut()?;
        owed.staged = true;
        Some(AuditEntry { rows: Some(rows), ..owed.entry.clone() })
    }

    /// Pays what is owed still, with a write of its own, for a statement that ended like this. Nobody is told of the end before.
    pub(crate) async fn settle(mut self, ending: Ending, rows: Option<u64>) -> Result<()> {
        let Some(owed) = self.0.take() else { return Ok(()) };
        let ending = match ending {
            Ending::Committed if owed.staged => Ending::Staged,
            other => other,
        };
        save(&owed.store, vec![ended(&owed.entry, ending, rows)]).await
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if let Some(owed) = self.0.take() {
            save_in_background(&owed.store, vec![ended(&owed.entry, Ending::Abandoned, None)]);
        }
    }
}

/// Writes entries durably, by a commit of their own.
pub(crate) async fn save(store: &Arc<Store>, entries: Vec<AuditEntry>) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    // To its end also when nobody waits: what was done may be known already. It begins before the first time that this waits.
    let commit = Commit::of_catalog(store.snapshot(), vec![], entries);
    let saving = Arc::clone(store);
    let saved = store.to_its_end(async move { saving.commit(commit).await });
    saved.await.map(drop).map_err(|error| {
        let message = "the audit log could not be written: nothing is done without it. Look at the server's log";
        EngineError::caused(ErrorKind::Unavailable, message, error)
    })
}

/// The same for what nobody waits for.
pub(crate) fn save_in_background(store: &Arc<Store>, entries: Vec<AuditEntry>) {
    if entries.is_empty() {
        return;
    }
    let saving = Arc::clone(store);
    store.in_background(async move {
        if let Err(error) = save(&saving, entries).await {
            tracing::error!(%error, cause = ?error, "entries of the audit log are lost");
        }
    });
}

impl Engine {
    /// Notes a login that was refused. `reason`: in a few words, without what was sent.
    pub async fn audit_refused_login(&self, user: &str, peer: Option<&str>, reason: &str) -> Result<()> {
        let entry = AuditEntry {
            at: 0,
            actor: stranger(user),
            subject: None,
            origin: "login".to_owned(),
            action: "LOGIN".to_owned(),
            target: Some(cut(reason)),
            rows: None,
            outcome: Ending::Denied.name().to_owned(),
            session: None,
            peer: peer.map(str::to_owned),
            fingerprint: None,
        };
        save(&self.store, vec![entry]).await
    }
}
