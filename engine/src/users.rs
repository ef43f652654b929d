//! Users and their passwords.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use seracdb_storage::audit::AuditEntry;
use seracdb_storage::catalog::{CatalogChange, UserRecord};
use seracdb_storage::commit::Commit;

use crate::audit::{self, Ending};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::{Principal, Role};
use crate::session::Session;
use crate::transaction::Staged;

/// What an unknown user's password is checked against, so that it takes as long as a known user's.
static NOBODYS_HASH: LazyLock<String> = LazyLock::new(|| hash("nobody").unwrap_or_default());

impl Engine {
    /// Whether any user exists; false only on a data directory that was just made.
    pub fn has_users(&self) -> bool {
        self.store.snapshot().catalog().has_users()
    }

    /// Creates a user without asking who wants it: for the first start. SQL's `CREATE USER` asks.
    pub async fn create_user(&self, name: &str, password: &str, role: Role) -> Result<()> {
        let change = self.new_user(name, password, role).await?;
        let session = Session::new(Principal::new(name.to_owned(), 0, role)).with_origin("start");
        self.commit_catalog(&session, vec![change]).await
    }

    /// The same in a session's transaction.
    pub(crate) async fn create_user_in(&self, session: &Session, name: &str, password: &str, role: Role) -> Result<()> {
        let change = self.new_user(name, password, role).await?;
        self.change_catalog(session, vec![change]).await
    }

    async fn new_user(&self, name: &str, password: &str, role: Role) -> Result<CatalogChange> {
        if name.is_empty() || name.len() > 128 {
            return Err(EngineError::invalid("a user name must have 1 to 128 bytes"));
        }
        if name.contains(':') {
            return Err(EngineError::invalid("a user name cannot contain ':': Basic credentials end the name there"));
        }
        if password.is_empty() {
            return Err(EngineError::invalid("a password must not be empty"));
        }
        let password = password.to_owned();
        let password_hash = off_the_async_threads(move || hash(&password)).await??;
        let user = UserRecord {
            number: 0,
            name: name.to_owned(),
            role: role.to_string(),
            password_hash,
            created_at_ns: self.store.clock().now_ns(),
            deleted_at_ns: None,
        };
        Ok(CatalogChange::CreateUser(user))
    }

    /// Checks a password (argon2id, off the async threads). Unknown user and wrong password: the same
    /// `Unauthenticated` text and about the same time.
    pub async fn authenticate(&self, name: &str, password: &str) -> Result<Principal> {
        let snapshot = self.store.snapshot();
        let user = snapshot.catalog().user(name).filter(|user| user.deleted_at_ns.is_none()).cloned();
        let expected = user.as_ref().map(|user| user.password_hash.clone());
        let password = password.to_owned();
        let right = off_the_async_threads(move || verify(&password, expected.as_deref())).await?;
        match user {
            Some(user) if right => Ok(Principal::new(user.name.clone(), user.number, user.role.parse()?)),
            _ => Err(EngineError::new(ErrorKind::Unauthenticated, "wrong user name or password")),
        }
    }

    /// A user as it is now, without a password; `None` when it is not there or was dropped.
    pub fn principal(&self, name: &str) -> Option<Principal> {
        let snapshot = self.store.snapshot();
        let user = snapshot.catalog().user(name).filter(|user| user.deleted_at_ns.is_none())?;
        Some(Principal::new(user.name.clone(), user.number, user.role.parse().ok()?))
    }

    /// Changes the catalog: in the session's transaction, else by a commit.
    pub(crate) async fn change_catalog(&self, session: &Session, changes: Vec<CatalogChange>) -> Result<()> {
        let Some(transaction) = session.transaction() else { return self.commit_catalog(session, changes).await };
        let _alone = transaction.changing().await;
        transaction.require_writable("a change of tables, namespaces or users")?;
        let (_, mut staged) = transaction.view()?;
        let entries = staged_changes(session, &mut staged, changes)?;
        self.stage(&transaction, staged)?;
        audit::save(&self.store, entries).await
    }

    async fn commit_catalog(&self, session: &Session, changes: Vec<CatalogChange>) -> Result<()> {
        let snapshot = self.store.snapshot();
        let audit = audit::of_changes(session, snapshot.catalog(), &changes);
        self.store.commit(Commit::of_catalog(snapshot, changes, audit)).await?;
        Ok(())
    }
}

/// Stages changes of the catalog; gives what the audit log is told of them now. What it is told at the end is staged too.
pub(crate) fn staged_changes(
    session: &Session,
    staged: &mut Staged,
    changes: Vec<CatalogChange>,
) -> Result<Vec<AuditEntry>> {
    let mut entries = Vec::new();
    for change in changes {
        entries.extend(audit::of_changes(session, &staged.catalog, std::slice::from_ref(&change)));
        staged.change(change)?;
    }
    staged.owes(entries.iter().cloned());
    Ok(entries.iter().map(|entry| audit::ended(entry, Ending::Staged, None)).collect())
}

fn hash(password: &str) -> Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|e| EngineError::internal(format!("hashing a password: {e}")))
}

fn verify(password: &str, expected: Option<&str>) -> bool {
    let Ok(hash) = PasswordHash::new(expected.unwrap_or(&NOBODYS_HASH)) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok() && expected.is_some()
}

async fn off_the_async_threads<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| EngineError::caused(ErrorKind::Internal, "password check", e))
}
