//! Users and their passwords.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use seracdb_storage::catalog::{CatalogChange, UserRecord};
use seracdb_storage::commit::Commit;

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::{Principal, Role};

/// What an unknown user's password is checked against, so that it takes as long as a known user's.
static NOBODYS_HASH: LazyLock<String> = LazyLock::new(|| hash("nobody").unwrap_or_default());

impl Engine {
    /// Whether any user exists; false only on a data directory that was just made.
    pub fn has_users(&self) -> bool {
        self.store.snapshot().catalog().has_users()
    }

    /// Creates a user without asking who wants it: for the first start. SQL's `CREATE USER` asks.
    pub async fn create_user(&self, name: &str, password: &str, role: Role) -> Result<()> {
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
        self.change_catalog(vec![CatalogChange::CreateUser(user)]).await
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

    /// Commits changes of the catalog alone.
    pub(crate) async fn change_catalog(&self, changes: Vec<CatalogChange>) -> Result<()> {
        let commit = Commit { snapshot: self.store.snapshot(), expects: vec![], catalog: changes, writes: vec![] };
        self.store.commit(commit).await?;
        Ok(())
    }
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
