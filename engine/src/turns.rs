//! Turns of statements that change rows of one scope.
//!
//! Statements run beside each other and are checked at commit; the one that lost runs again. Where many change the same
//! row, most of that work is in vain: after a conflict the scope's next statements run one after the other.
//!
//! Whoever writes rows enters the table first, and only then takes a turn. Who has to see all rows of a table at its commit, and
//! finds others written again and again, closes it: they wait at the door.
//!
//! Invariants:
//! 1. A statement that has its scope alone cannot lose to another: one that lost runs alone the next time.
//! 2. Nothing waits for a client while it holds a turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use seracdb_storage::keys::{Owner, Scope, TableId};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Statements that run alone after a conflict.
const ALONE_AFTER_CONFLICT: u32 = 32;
/// Scopes above which those that nobody uses are forgotten.
const SCOPES_MAX: usize = 1024;
/// In the place of a scope's owner, for the table as a whole: no user has this number.
const DOOR: Owner = Owner(u64::MAX);

/// The scopes in use.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Scope, Arc<ScopeTurns>>>);

#[derive(Debug, Default)]
struct ScopeTurns {
    lock: Arc<RwLock<()>>,
    /// How many of the next statements run alone.
    alone: AtomicU32,
}

/// Held while a statement reads, writes and commits.
#[derive(Debug)]
pub(crate) struct Turn {
    scope: Arc<ScopeTurns>,
    _held: Held,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
enum Held {
    BesideOthers(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Turns {
    /// Waits for a turn. `lost`: whether the statement has lost to another before.
    pub(crate) async fn take(&self, scope: Scope, lost: bool) -> Turn {
        let scope = self.scope(scope);
        let lock = Arc::clone(&scope.lock);
        let contended = scope.alone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        let held = match lost || contended {
            true => Held::Alone(lock.write_owned().await),
            false => Held::BesideOthers(lock.read_owned().await),
        };
        Turn { scope, _held: held }
    }

    /// Waits until a table is not closed. To be asked for before a turn.
    pub(crate) async fn enter(&self, table: TableId) -> Turn {
        let scope = self.scope(Scope { table, owner: DOOR });
        let held = Held::BesideOthers(Arc::clone(&scope.lock).read_owned().await);
        Turn { scope, _held: held }
    }

    /// Closes a table: waits for those that are in. Not for who holds a turn.
    pub(crate) async fn close(&self, table: TableId) -> Turn {
        let scope = self.scope(Scope { table, owner: DOOR });
        let held = Held::Alone(Arc::clone(&scope.lock).write_owned().await);
        Turn { scope, _held: held }
    }

    fn scope(&self, scope: Scope) -> Arc<ScopeTurns> {
        let mut scopes = self.0.lock();
        if scopes.len() > SCOPES_MAX {
            scopes.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        Arc::clone(scopes.entry(scope).or_default())
    }
}

impl Turn {
    /// Says that another commit came first.
    pub(crate) fn lost(self) {
        self.scope.alone.store(ALONE_AFTER_CONFLICT, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_closed_table_keeps_others_at_its_door() {
        let (turns, table) = (Turns::default(), TableId(1));
        let (one, other) = (turns.enter(table).await, turns.enter(table).await);
        assert!(timeout(SOON, turns.close(table)).await.is_err());
        drop((one, other));
        let closed = turns.close(table).await;
        assert!(timeout(SOON, turns.enter(table)).await.is_err());
        // Another table is open, and so are turns for who is in.
        drop(turns.enter(TableId(2)).await);
        drop(turns.take(Scope::shared(table), true).await);
        drop(closed);
        assert!(timeout(SOON, turns.enter(table)).await.is_ok());
    }
}
