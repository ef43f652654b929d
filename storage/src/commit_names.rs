//! What is remembered of commits by their names, for clients whose answer was lost.
//!
//! A name begins with the time of its transaction's begin, and its value has the time of the commit, by which it is
//! forgotten: a transaction may have been open for long.

use std::time::Duration;

use crate::error::Result;
use crate::rocks::{Family, Rocks};
use crate::system_columns::CommitTs;

/// How long a commit is found by its name.
pub const COMMIT_NAMES_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Names that are removed at once.
const REMOVED_AT_ONCE: usize = 10_000;

/// The value of a name: the number of the user who may ask, and when it was committed.
pub(crate) fn encode(owner: u64, at: CommitTs) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&owner.to_be_bytes());
    value[8..].copy_from_slice(&at.get().to_be_bytes());
    value
}

/// The number of the user who may ask.
pub(crate) fn owner(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|owner| u64::from_be_bytes(*owner))
}

/// When it was committed; `None` for a value of before that was stored.
fn committed_at(value: &[u8]) -> Option<CommitTs> {
    value.get(8..)?.first_chunk().map(|at| CommitTs::stored(i64::from_be_bytes(*at)))
}

/// Whose commit has this name.
pub(crate) fn find(rocks: &Rocks, id: &[u8; 16]) -> Result<Option<u64>> {
    Ok(rocks.get(Family::Transactions, id)?.and_then(|value| owner(&value)))
}

/// Forgets the names of commits from before a time.
pub(crate) fn forget(rocks: &Rocks, now_ns: i64) -> Result<()> {
    let kept_ns = i64::try_from(COMMIT_NAMES_KEPT.as_nanos()).unwrap_or(i64::MAX);
    let before_ns = now_ns.saturating_sub(kept_ns);
    // The first six bytes of a name are its time in ms. Nothing was committed before it was begun: only those of that age are
    // looked at, and few of them are left.
    let before_ms = (before_ns / 1_000_000).max(0) as u64;
    let mut old = Vec::new();
    rocks.scan_below(Family::Transactions, &before_ms.to_be_bytes()[2..], |id, value| {
        if committed_at(value).is_none_or(|at| at.get() < before_ns) {
            old.push(id.to_vec());
        }
        if old.len() >= REMOVED_AT_ONCE {
            rocks.remove_all(Family::Transactions, &std::mem::take(&mut old))?;
        }
        Ok(())
    })?;
    rocks.remove_all(Family::Transactions, &old)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::{CatalogChange, NamespaceRecord};
    use crate::clock::Clock;
    use crate::commit::{Commit, CommitName};
    use crate::steps::NoWait;
    use crate::test_table::TestDir;

    /// A name as of a transaction that began then.
    fn name(began_ns: i64, owner: u64) -> CommitName {
        let mut id = [owner as u8; 16];
        id[..6].copy_from_slice(&((began_ns / 1_000_000) as u64).to_be_bytes()[2..]);
        CommitName { id, owner }
    }

    #[test]
    fn a_value_is_the_user_and_the_time_of_the_commit() {
        let value = encode(7, CommitTs::stored(0x0102));
        assert_eq!(value, [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((owner(&value), committed_at(&value)), (Some(7), Some(CommitTs::stored(0x0102))));
        let before = 7u64.to_be_bytes();
        assert_eq!((owner(&before), committed_at(&before)), (Some(7), None));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_commit_is_remembered_for_a_day_however_long_its_transaction_was_open() {
        let dir = TestDir::new();
        let store = dir.open(Arc::new(NoWait)).await;
        let (hour, now) = (Duration::from_secs(3600), dir.clock.now_ns());
        let day = COMMIT_NAMES_KEPT.as_nanos() as i64;
        let (long, short) = (name(now - 3 * day, 1), name(now, 2));
        for name in [long, short] {
            let record =
                NamespaceRecord { name: format!("n{}", name.owner), created_at_ns: 0, created_by: None, comment: None };
            let (snapshot, catalog) = (store.snapshot(), vec![CatalogChange::CreateNamespace(record)]);
            let commit = Commit {
                snapshot,
                expects: vec![],
                catalog,
                writes: vec![],
                keys: vec![],
                files: vec![],
                name: Some(name),
                audit: vec![],
            };
            store.commit(commit).await.unwrap();
        }
        for _ in 0..2 {
            store.forget_commit_names().unwrap();
            assert_eq!([store.committed(long.id).unwrap(), store.committed(short.id).unwrap()], [Some(1), Some(2)]);
            dir.clock.advance(23 * hour);
        }
        store.forget_commit_names().unwrap();
        assert_eq!([store.committed(long.id).unwrap(), store.committed(short.id).unwrap()], [None, None]);
        store.close().await;
    }
}
