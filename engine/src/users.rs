//! Users and their passwords: who is who now, and what changes them.
//!
//! A user's name is its id, and what it owns has that name on it: names are compared byte by byte, letter case included, and are
//! never given out twice. A dropped user's rows stay where they are, and nobody reads them.

use std::sync::{Arc, LazyLock};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use seracdb_storage::StorageError;
use seracdb_storage::audit::AuditEntry;
use seracdb_storage::catalog::{CatalogChange, CatalogError, UserBecomes, UserChange, UserRecord};
use seracdb_storage::commit::Commit;
use seracdb_storage::snapshot::Snapshot;
use seracdb_storage::spans::in_this_span;
use tokio::sync::Semaphore;

use crate::audit::{self, ALTER_TABLE, Ending};
use crate::ddl::require;
use crate::discretion::told;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::identity::{Principal, Role};
use crate::naming::refuse_ambiguous;
use crate::rights::{UserAction, denied, may_change_user, may_change_users};
use crate::session::Session;
use crate::sql::statement::AlterUser;
use crate::transaction::{Staged, Transaction};

/// Bytes of the longest password: clients send it in a header, which has no room for much more.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Hashes that are made at the same time: each takes tens of megabytes and a core on purpose, and everyone may set their own
/// password. One that has begun is made to its end, whether or not somebody waits for it.
static HASHING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(2)));

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
        self.commit_catalog(&session, self.store.snapshot(), vec![change]).await
    }

    /// The same for a session's user, in its transaction.
    pub(crate) async fn create_user_in(&self, session: &Session, name: &str, password: &str, role: Role) -> Result<()> {
        self.may_create_user(session, role)?;
        let change = self.new_user(name, password, role).await?;
        // A hash takes its time, and waits for its turn before.
        self.may_create_user(session, role)?;
        self.change_catalog(session, vec![change]).await
    }

    fn may_create_user(&self, session: &Session, role: Role) -> Result<()> {
        require(self, session, Role::Admin, "CREATE USER")?;
        match role > self.subject(session)?.role() {
            true => Err(denied(&format!("a user of role {role} can be created by that role only"))),
            false => Ok(()),
        }
    }

    /// ALTER USER.
    pub(crate) async fn alter_user(&self, session: &Session, name: &str, change: &AlterUser) -> Result<()> {
        let (action, to) = match change {
            AlterUser::Role(role) => (UserAction::SetRole(*role), UserBecomes::Role(role.to_string())),
            AlterUser::Password(password) => {
                // Who may not learns of it before a hash is made.
                let user = self.changeable(session, UserAction::SetPassword, name)?;
                let hash = password_hash(&password.0).await?;
                if user.number == session.principal().number() {
                    session.own_passwords().add(&hash);
                }
                (UserAction::SetPassword, UserBecomes::Password(hash))
            }
        };
        self.change_user(session, action, name, to).await
    }

    /// DROP USER: the name stays taken, and the number.
    pub(crate) async fn drop_user(&self, session: &Session, name: &str) -> Result<()> {
        let to = UserBecomes::Dropped { at_ns: self.now_ns() };
        self.change_user(session, UserAction::Drop, name, to).await
    }

    async fn change_user(&self, session: &Session, action: UserAction, name: &str, to: UserBecomes) -> Result<()> {
        let role_was = self.changeable(session, action, name)?.role.clone();
        let change = UserChange { name: name.to_owned(), role_was, to };
        self.change_catalog(session, vec![CatalogChange::ChangeUser(change)]).await
    }

    /// A user, if the session's may do that to it.
    fn changeable(&self, session: &Session, action: UserAction, name: &str) -> Result<Arc<UserRecord>> {
        let actor = self.subject(session)?;
        may_change_users(&actor, action, name)?;
        let catalog = match session.transaction() {
            Some(transaction) => transaction.catalog()?,
            None => Arc::clone(self.store.snapshot().catalog()),
        };
        let user = catalog.live_user(name).ok_or_else(|| unknown_user(name))?;
        may_change_user(&actor, action, name, user.role.parse()?)?;
        Ok(Arc::clone(user))
    }

    async fn new_user(&self, name: &str, password: &str, role: Role) -> Result<CatalogChange> {
        if name.is_empty() || name.len() > 128 {
            return Err(EngineError::invalid("a user name must have 1 to 128 bytes"));
        }
        if name.contains(':') {
            return Err(EngineError::invalid("a user name cannot contain ':': Basic credentials end the name there"));
        }
        refuse_ambiguous("user", name)?;
        let password_hash = password_hash(password).await?;
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
    /// `Unauthenticated` text and about the same time. What has begun is computed to its end: whoever limits how many there are
    /// has to wait for that.
    pub async fn authenticate(&self, name: &str, password: &str) -> Result<Principal> {
        let snapshot = self.store.snapshot();
        let user = snapshot.catalog().live_user(name).cloned();
        let expected = user.as_ref().map(|user| user.password_hash.clone());
        let password = password.to_owned();
        let right = off_the_async_threads(move || verify(&password, expected.as_deref())).await?;
        match user {
            Some(user) if right => Ok(Principal::new(user.name.clone(), user.number, user.role.parse()?)),
            _ => Err(EngineError::new(ErrorKind::Unauthenticated, "wrong user name or password")),
        }
    }

    /// What a user's password is checked against now: for keys of what was checked before, and for no result and no log.
    pub fn password_hash(&self, name: &str) -> Option<String> {
        Some(self.store.snapshot().catalog().live_user(name)?.password_hash.clone())
    }

    /// A user as it is now, without a password; `None` when it is not there or was dropped.
    pub fn principal(&self, name: &str) -> Option<Principal> {
        let snapshot = self.store.snapshot();
        let user = snapshot.catalog().live_user(name)?;
        Some(Principal::new(user.name.clone(), user.number, user.role.parse().ok()?))
    }

    /// The user whose rights count for what a session does, as it is now, and nobody once it was dropped.
    pub(crate) fn subject(&self, session: &Session) -> Result<Principal> {
        match session.impersonated() {
            Some(subject) => self.not_above(subject),
            None => self.actor(session),
        }
    }

    /// Whose session it is, as it is now: of the role that it has by now, or of the lower one that it has logged in with.
    pub(crate) fn actor(&self, session: &Session) -> Result<Principal> {
        session.used_at(self.now_ns());
        self.not_above(session.principal())
    }

    /// A user as it is now, of no higher role than it was given.
    pub(crate) fn not_above(&self, given: &Principal) -> Result<Principal> {
        let now = self.living(given.number())?;
        let role = now.role().min(given.role());
        Ok(Principal::new(now.name().to_owned(), now.number(), role))
    }

    /// A user by number, as it is now, unless it was dropped.
    pub(crate) fn living(&self, number: u64) -> Result<Principal> {
        let snapshot = self.store.snapshot();
        let user = snapshot.catalog().user_by_number(number).filter(|user| user.deleted_at_ns.is_none());
        let user = user.ok_or_else(|| {
            EngineError::new(
                ErrorKind::Unauthenticated,
                "this login has ended: its user was dropped. Log in as another",
            )
        })?;
        Ok(Principal::new(user.name.clone(), number, user.role.parse()?))
    }

    /// Changes the catalog: in the session's transaction, else by a commit.
    pub(crate) async fn change_catalog(&self, session: &Session, changes: Vec<CatalogChange>) -> Result<()> {
        let Some(transaction) = session.transaction() else {
            return self.change_catalog_seen(session, self.store.snapshot(), changes).await;
        };
        let _alone = transaction.changing().await;
        self.stage_catalog(session, &transaction, changes).await
    }

    /// Changes the catalog in a transaction, which nothing else changes meanwhile.
    pub(crate) async fn stage_catalog(
        &self,
        session: &Session,
        transaction: &Transaction,
        changes: Vec<CatalogChange>,
    ) -> Result<()> {
        transaction.require_writable("a change of tables, namespaces or users")?;
        let (snapshot, mut staged) = transaction.view()?;
        let changes = self.resting_on_actor(session, &snapshot, &staged, changes)?;
        let entries = staged_changes(session, &mut staged, changes)?;
        self.stage(transaction, staged)?;
        audit::save(&self.store, entries).await
    }

    /// Changes the catalog by a commit that rests on what this snapshot shows.
    pub(crate) async fn change_catalog_seen(
        &self,
        session: &Session,
        snapshot: Arc<Snapshot>,
        changes: Vec<CatalogChange>,
    ) -> Result<()> {
        let premise = self.same_actor(session)?;
        self.commit_catalog(session, snapshot, [premise].into_iter().chain(changes).collect()).await
    }

    async fn commit_catalog(
        &self,
        session: &Session,
        snapshot: Arc<Snapshot>,
        changes: Vec<CatalogChange>,
    ) -> Result<()> {
        let audit = audit::of_changes(session, snapshot.catalog(), &changes);
        match self.store.commit(Commit::of_catalog(snapshot, changes, audit)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(told(session.principal(), self.store.snapshot().catalog(), error.into())),
        }
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
        if let Err(error) = staged.change(change) {
            return Err(told(session.principal(), &staged.catalog, error));
        }
    }
    entries
        .dedup_by(|next, last| next.action == ALTER_TABLE && next.action == last.action && next.target == last.target);
    staged.owes(entries.iter().cloned());
    Ok(entries.iter().map(|entry| audit::ended(entry, Ending::Staged, None)).collect())
}

/// The error for a user who is not there, or no more.
pub(crate) fn unknown_user(name: &str) -> EngineError {
    StorageError::from(CatalogError::NoUser(name.to_owned())).into()
}

async fn password_hash(password: &str) -> Result<String> {
    if password.is_empty() {
        return Err(EngineError::invalid("a password must not be empty"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(EngineError::invalid(format!("a password has at most {PASSWORD_BYTES_MAX} bytes")));
    }
    let turn = Arc::clone(&HASHING).acquire_owned().await;
    let turn = turn.map_err(|e| EngineError::caused(ErrorKind::Internal, "password hash", e))?;
    let password = password.to_owned();
    let hashed = move || {
        let _until_it_is_made = turn;
        hash(&password)
    };
    off_the_async_threads(hashed).await?
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
    let done = tokio::task::spawn_blocking(in_this_span(work)).await;
    done.map_err(|e| EngineError::caused(ErrorKind::Internal, "password check", e))
}
