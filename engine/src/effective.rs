//! Who acts, and for whom: of every statement, once, before it runs.
//!
//! Invariants:
//! 1. [`Engine::identity`] alone makes an [`EffectiveIdentity`], and asks anew each time, also for a statement that was prepared
//!    before: for another user a statement runs only when the actor is `service` or higher *now*, and the subject is there
//!    *now* and of no higher role.
//! 2. Rows, rights, defaults and limits are the subject's; a shared table is read only where the actor may read it too. The
//!    session, its transactions and its settings are the actor's.
//! 3. An identity that is another's, or that reads the rows of all users, owes an entry to the audit log
//!    ([`crate::audit::Duty`]), and so does a refusal.
//! 4. A user who is not there and one who was dropped give the same error, after the same work.

use std::collections::BTreeSet;
use std::sync::Arc;

use seracdb_storage::audit::{AuditEntry, AuditParty};

use crate::audit::{self, Duty, Ending};
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::execute::Outcome;
use crate::identity::{Principal, Role};
use crate::session::{Reach, Session};
use crate::sql::mentions::{all_users, relations};
use crate::sql::{Statement, TableName};

/// A statement's text of refusal, for who may not act for others, or not for this one.
const DENIED: &str = "Permission denied: AS USER requires service/admin role";
/// The same for a subject who is not there, or no more.
const NOBODY: &str = "Invalid user_id for AS USER operation";
/// The same for rows that belong to no user.
const SHARED: &str = "AS USER not supported for Shared tables";

/// A statement's actor and subject, and what is owed to the audit log for it.
#[must_use = "a statement runs with its identity, and is settled by it"]
pub(crate) struct EffectiveIdentity {
    /// The session as the subject has it.
    pub(crate) session: Session,
    pub(crate) duty: Duty,
}

impl EffectiveIdentity {
    /// Pays what is owed still, before the client is told of the end.
    pub(crate) async fn settle<T: Settled>(self, done: Result<T>) -> Result<T> {
        let (ending, rows) = match &done {
            Ok(done) => done.ending(),
            Err(error) => (Ending::of_error(error), None),
        };
        self.duty.settle(ending, rows).await?;
        done
    }

    /// For what comes to nothing, and is no use of the identity: a statement that was only prepared.
    fn unused(mut self) {
        self.duty.paid();
    }
}

/// What a statement gave.
pub(crate) trait Settled {
    /// How that ended, and the rows that it has written.
    fn ending(&self) -> (Ending, Option<u64>);
}

impl Settled for Outcome {
    fn ending(&self) -> (Ending, Option<u64>) {
        match self {
            Self::Rows(_) => (Ending::Allowed, None),
            Self::Changed(rows) => (Ending::Committed, Some(*rows)),
        }
    }
}

impl<T> Settled for Vec<T> {
    fn ending(&self) -> (Ending, Option<u64>) {
        (Ending::Allowed, None)
    }
}

/// For whom a statement is, as its text says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Purpose {
    /// The name after AS USER.
    pub(crate) subject: Option<String>,
    /// Whether it names the rows of all users.
    pub(crate) everyone: bool,
    /// Of a statement that the audit log may have.
    pub(crate) fingerprint: Option<Arc<str>>,
}

impl Purpose {
    /// Whether it is for another user, or reads the rows of all.
    pub(crate) fn is_audited(&self) -> bool {
        self.subject.is_some() || self.everyone
    }
}

impl Engine {
    /// Who acts and for whom, when a statement runs. A refusal is in the audit log when it is given.
    pub(crate) async fn identity(
        &self,
        session: &Session,
        statement: &Statement,
        purpose: &Purpose,
    ) -> Result<EffectiveIdentity> {
        let session = session.with_fingerprint(purpose.fingerprint.clone());
        if !purpose.is_audited() {
            return Ok(EffectiveIdentity { session, duty: Duty::none() });
        }
        let (action, target) = described(&session, statement);
        let Some(name) = &purpose.subject else {
            let session = session.reading_everyone();
            let entry = audit::entry(&session, action, target);
            return Ok(EffectiveIdentity { duty: Duty::of(entry, &self.store), session });
        };
        let acting = match self.may_act(&session, name) {
            Ok(subject) => session.acting_for(subject, reach_of(statement)),
            Err((refusal, subject)) => {
                let entry = AuditEntry { subject: Some(subject), ..audit::entry(&session, action, target) };
                audit::save(&self.store, vec![audit::ended(&entry, Ending::Denied, None)]).await?;
                return Err(refusal);
            }
        };
        let entry = audit::entry(&acting, action, target);
        Ok(EffectiveIdentity { duty: Duty::of(entry, &self.store), session: acting })
    }

    /// The user of this name, if the session may act for them now; else why not, and who was meant.
    fn may_act(&self, session: &Session, name: &str) -> Result<Principal, (EngineError, AuditParty)> {
        let subject = self.principal(name);
        let allowed = may_act_for(self.actor(session).ok().as_ref(), subject.as_ref());
        allowed
            .cloned()
            .map_err(|refusal| (refusal, subject.as_ref().map_or_else(|| audit::stranger(name), audit::party)))
    }

    /// The error for a text with AS USER that is no statement: who may not act for that user is told so, as with any other. Both
    /// are noted.
    pub(crate) async fn unread(&self, session: &Session, name: &str, sql: &str, error: EngineError) -> EngineError {
        let session = session.with_fingerprint(self.fingerprint(sql));
        let (error, subject, ending) = match self.may_act(&session, name) {
            Ok(subject) => (error, audit::party(&subject), Ending::Failed),
            Err((refusal, subject)) => (refusal, subject, Ending::Denied),
        };
        let entry = AuditEntry { subject: Some(subject), ..audit::entry(&session, "OTHER", None) };
        match audit::save(&self.store, vec![audit::ended(&entry, ending, None)]).await {
            Ok(()) => error,
            Err(unwritten) => unwritten,
        }
    }

    /// Whether what was staged for other users may still be committed: their actor may act for each of them now.
    pub(crate) fn may_still_act<'a>(
        &self,
        actor: &Principal,
        staged: impl Iterator<Item = &'a AuditEntry>,
    ) -> Result<()> {
        let subjects: BTreeSet<&str> =
            staged.filter_map(|entry| entry.subject.as_ref()).map(|subject| subject.user.as_str()).collect();
        for name in subjects {
            may_act_for(Some(actor), self.principal(name).as_ref())?;
        }
        Ok(())
    }

    /// Does something as the user that a statement is for, without running it. Only what fails is noted.
    pub(crate) async fn without_running<T>(
        &self,
        session: &Session,
        statement: &Statement,
        purpose: &Purpose,
        work: impl FnOnce(&Session) -> Result<T>,
    ) -> Result<T> {
        let identity = self.identity(session, statement, purpose).await?;
        match work(&identity.session) {
            Ok(done) => {
                identity.unused();
                Ok(done)
            }
            Err(error) => {
                identity.duty.settle(Ending::of_error(&error), None).await?;
                Err(error)
            }
        }
    }
}

/// Whether the actor may act for the subject, as both are now. `None`: not there, or dropped.
fn may_act_for<'a>(actor: Option<&Principal>, subject: Option<&'a Principal>) -> Result<&'a Principal> {
    let denied = || EngineError::new(ErrorKind::PermissionDenied, DENIED);
    let role = actor.map(Principal::role).filter(|role| *role >= Role::Service).ok_or_else(denied)?;
    let subject = subject.ok_or_else(|| EngineError::invalid(NOBODY))?;
    match subject.role() > role {
        true => Err(denied()),
        false => Ok(subject),
    }
}

/// The error for a statement of another user about a shared table.
pub(crate) fn refused_shared() -> EngineError {
    EngineError::invalid(SHARED)
}

/// A read is of the subject's own rows only. What changes rows has its target checked, and may read what both may.
fn reach_of(statement: &Statement) -> Reach {
    match statement {
        Statement::Explain { inner, .. } => reach_of(inner),
        Statement::Query(_) => Reach::OwnRows,
        _ => Reach::OwnTarget,
    }
}

/// What a statement is called in the log, and what it is about.
fn described(session: &Session, statement: &Statement) -> (&'static str, Option<String>) {
    let full = |name: &TableName| match &name.namespace {
        Some(namespace) => audit::cut(&format!("{namespace}.{}", name.table)),
        None => audit::cut(&format!("{}.{}", session.namespace(), name.table)),
    };
    let (action, changed) = match statement {
        Statement::Insert(insert) => ("INSERT", Some(&insert.table)),
        Statement::Update(update) => ("UPDATE", Some(&update.table)),
        Statement::Delete(delete) => ("DELETE", Some(&delete.table)),
        Statement::Merge(merge) => ("MERGE", Some(&merge.table)),
        Statement::Explain { inner, .. } => return ("EXPLAIN", described(session, inner).1),
        Statement::Query(_) => ("SELECT", None),
        _ => ("OTHER", None),
    };
    let mut names: Vec<String> = changed.map(full).into_iter().collect();
    // Before the tables that it reads besides, which may be more than the log has room for.
    let everyones = all_users(statement);
    names.extend(everyones.iter().map(|table| format!("all_users({})", table.as_ref().map_or("?".to_owned(), full))));
    names.extend(relations(statement).iter().map(full));
    (action, (!names.is_empty()).then(|| names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, role: Role) -> Principal {
        Principal::new(name.to_owned(), 7, role)
    }

    #[test]
    fn who_may_act_for_whom() {
        use Role::{Admin, Service, System, User};
        for actor in Role::ALL {
            for subject in Role::ALL {
                let allowed = may_act_for(Some(&user("a", actor)), Some(&user("s", subject))).is_ok();
                assert_eq!(allowed, actor >= Service && subject <= actor, "{actor} for {subject}");
            }
        }
        let text = |actor: Option<Role>, subject: Option<Role>| {
            let (actor, subject) = (actor.map(|role| user("a", role)), subject.map(|role| user("s", role)));
            may_act_for(actor.as_ref(), subject.as_ref()).unwrap_err().message
        };
        // Who may not learns nothing about who is there.
        for subject in [None, Some(User), Some(System)] {
            assert_eq!(text(Some(User), subject), DENIED);
            assert_eq!(text(None, subject), DENIED);
        }
        assert_eq!(text(Some(Service), None), NOBODY);
        assert_eq!(text(Some(Service), Some(Admin)), DENIED);
    }
}
