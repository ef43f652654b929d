//! The audit log: who did what for whom, one entry after the other.
//!
//! ```text
//! key    u64 BE: the entry's number
//! value  JSON of AuditEntry
//! ```
//!
//! Invariants:
//! 1. Numbers rise by one from entry to entry and are never used twice: a hole is the trace of a removal.
//! 2. An entry is in the batch of the commit that it describes, or in one of its own. Either is synced, whatever the setting.
//! 3. Nothing changes an entry. Those that are older than the retention go, oldest first; the last one stays always.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Result, StorageError};
use crate::rocks::{Family, Rocks};
use crate::snapshot::Snapshot;
use crate::system_columns::CommitTs;

/// Entries that are removed at once.
const REMOVED_AT_ONCE: usize = 10_000;

/// A user and the role it had then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditParty {
    /// Name.
    pub user: String,
    /// `user`, `service`, `admin` or `system`; absent for who could not be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// One entry. It holds no literals of statements and no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// UTC, ns: that of its commit. Set when it is written.
    pub at: i64,
    /// Who asked.
    pub actor: AuditParty,
    /// For whom, when that is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<AuditParty>,
    /// By which way it came: `sql`, `ingest`, `login`.
    pub origin: String,
    /// What was asked for: `INSERT`, `CREATE TABLE`, `LOGIN`, ….
    pub action: String,
    /// What it was about: a table, user, namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Rows written, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// `committed`, `staged`, `rolled back`, `allowed`, `denied`, `failed`, `abandoned`.
    pub outcome: String,
    /// The session, by a name that gives no access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The same for statements that differ in their literals only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl AuditEntry {
    pub(crate) fn encode(&self, at: CommitTs) -> Vec<u8> {
        let entry = Self { at: at.get(), ..self.clone() };
        serde_json::to_vec(&entry).expect("an entry has only strings as keys")
    }

    pub(crate) fn decode(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(StorageError::damaged_json("an entry of the audit log"))
    }
}

/// The number that the next entry gets.
pub(crate) fn next_number(rocks: &Rocks) -> Result<u64> {
    let last = rocks.last_key(Family::Audit)?;
    last.map_or(Ok(1), |key| Ok(number(&key)? + 1))
}

pub(crate) fn number(key: &[u8]) -> Result<u64> {
    let number = key.try_into().map(u64::from_be_bytes);
    number.map_err(|_| StorageError::Damaged("a key of the audit log has another length".into()))
}

/// Removes entries of before a time.
pub(crate) fn forget(rocks: &Rocks, now_ns: i64, kept: Duration) -> Result<()> {
    let kept_ns = i64::try_from(kept.as_nanos()).unwrap_or(i64::MAX);
    let before_ns = now_ns.saturating_sub(kept_ns);
    let Some(last) = rocks.last_key(Family::Audit)? else { return Ok(()) };
    loop {
        let mut old = Vec::new();
        rocks.scan_while(Family::Audit, &last, |key, json| {
            // One that cannot be read keeps nothing: it is as old as its neighbours.
            let is_old = AuditEntry::decode(json).map_or(true, |entry| entry.at < before_ns);
            if is_old {
                old.push(key.to_vec());
            }
            Ok(is_old && old.len() < REMOVED_AT_ONCE)
        })?;
        rocks.remove_all(Family::Audit, &old)?;
        if old.len() < REMOVED_AT_ONCE {
            return Ok(());
        }
    }
}

impl Snapshot {
    /// At most `max` entries from a number on, with their numbers.
    pub fn audit_entries(&self, from: u64, max: usize) -> Result<Vec<(u64, AuditEntry)>> {
        let mut iterator = self.rocks().iterate(Family::Audit, None);
        iterator.seek(from.to_be_bytes());
        let mut entries = Vec::new();
        while let Some((key, json)) = iterator.item().filter(|_| entries.len() < max) {
            entries.push((number(key)?, AuditEntry::decode(json)?));
            iterator.next();
        }
        iterator.status()?;
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::{CatalogChange, NamespaceRecord};
    use crate::commit::Commit;
    use crate::steps::NoWait;
    use crate::store::Store;
    use crate::test_table::TestDir;

    fn entry(action: &str) -> AuditEntry {
        AuditEntry {
            at: 0,
            actor: AuditParty { user: "ann".into(), role: Some("service".into()) },
            subject: Some(AuditParty { user: "bob".into(), role: None }),
            origin: "sql".into(),
            action: action.into(),
            target: Some("app.t".into()),
            rows: Some(3),
            outcome: "committed".into(),
            session: None,
            peer: None,
            fingerprint: None,
        }
    }

    fn of_audit(store: &Store, audit: Vec<AuditEntry>) -> Commit {
        Commit::of_catalog(store.snapshot(), vec![], audit)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn entries_are_numbered_through_restarts_and_forgotten_by_age() {
        let dir = TestDir::new();
        let store = dir.open(Arc::new(NoWait)).await;
        store.commit(of_audit(&store, vec![entry("INSERT"), entry("UPDATE")])).await.unwrap();
        let namespace = NamespaceRecord { name: "app".into(), created_at_ns: 0, created_by: None, comment: None };
        let create = CatalogChange::CreateNamespace(namespace);
        // One that is refused leaves nothing.
        let twice = Commit { catalog: vec![create.clone(), create], ..of_audit(&store, vec![entry("refused")]) };
        store.commit(twice).await.unwrap_err();
        store.close().await;
        drop(store);
        let store = dir.open(Arc::new(NoWait)).await;
        store.commit(of_audit(&store, vec![entry("DELETE")])).await.unwrap();
        let snapshot = store.snapshot();
        let found = snapshot.audit_entries(0, 10).unwrap();
        let shown: Vec<_> = found.iter().map(|(number, entry)| (*number, entry.action.as_str())).collect();
        assert_eq!(shown, [(1, "INSERT"), (2, "UPDATE"), (3, "DELETE")]);
        assert!(found[0].1.at == found[1].1.at && found[1].1.at < found[2].1.at);
        assert_eq!(found[2].1.at, snapshot.ts().get());
        assert_eq!(snapshot.audit_entries(2, 1).unwrap()[0].1, AuditEntry { at: found[1].1.at, ..entry("UPDATE") });
        store.forget_old_audit().unwrap();
        assert_eq!(store.snapshot().audit_entries(0, 10).unwrap().len(), 3);
        dir.clock.advance(Duration::from_secs(401 * 24 * 3600));
        store.forget_old_audit().unwrap();
        store.commit(of_audit(&store, vec![entry("after")])).await.unwrap();
        let found = store.snapshot().audit_entries(0, 10).unwrap();
        // The last one stays, so that its number is not used again.
        assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4]);
        store.close().await;
    }
}
