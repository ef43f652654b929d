//! Who owns an object store: `_seracdb/owner.json`, written under conditions only.
//!
//! ```text
//! nobody ──────────────▶ epoch 1 │ same data directory ─▶ epoch + 1 │ another one ─▶ refused
//!                                │                                  │   with --take-over: epoch + 1, once the other
//!                                │                                  │   has released it or not renewed for a lease
//! ```
//!
//! Invariants:
//! 1. Each write of `owner.json` replaces the one that the writer has read, so that owners follow each other without a
//!    gap, and who was replaced finds out at its next renewal.
//! 2. No clock of another machine is trusted: who takes over watches the object stay the same for a whole lease on its
//!    own monotonic clock. The owner's lease counts from before its renewal was sent, so it has ended by then.
//! 3. Who takes over starts above both ceilings of the one before, and stays above them after any restart: the floors.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::{Result, StorageError};
use crate::lease::{Ceilings, Lease, ahead};
use crate::objects::{ETag, Found, Objects, Put};
use crate::paths::OWNER_FILE;
use crate::system_columns::CommitTs;

/// The version of the format that this build writes, and the highest it reads.
pub const OWNER_FORMAT: u32 = 1;
/// How much longer than the lease an owner is watched, in parts of the lease: clocks run at slightly other speeds.
const PATIENCE_PART: u32 = 10;
/// How often an owner is looked at while it is watched, in parts of the lease.
const LOOKS: u32 = 10;

/// The owner of an object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// [`OWNER_FORMAT`].
    pub format_version: u32,
    /// The data directory, as its file FORMAT names it.
    pub data_dir_id: String,
    /// Rises with every start of an owner.
    pub epoch: u64,
    /// The process: a new one at every start.
    pub holder: String,
    /// Rises with every write, so that who watches sees it.
    pub renewal: u64,
    /// How long after a write the owner may act on it.
    pub lease_ms: u64,
    /// Whether the owner has stopped and acts no more.
    pub released: bool,
    /// No commit of the owner is above it.
    pub updated_ceiling: CommitTs,
    /// No row id of the owner has a tick above it.
    pub id_ceiling: u64,
    /// Every commit of the owner is above it.
    pub updated_floor: CommitTs,
    /// Every row id of the owner has a tick above it.
    pub id_floor: u64,
    /// Who has owned the store, oldest first; the last one does.
    pub owners: Vec<Era>,
}

/// From which epoch on a data directory has owned the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Era {
    /// The first epoch.
    pub from_epoch: u64,
    /// The data directory.
    pub data_dir_id: String,
    /// Whether it goes on with the tables of the owner before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherits: bool,
}

/// Whether what was written in `epoch` belongs to the last owner: its own, and that of those whose tables it goes on with.
/// What carries no epoch is of the first owner.
pub(crate) fn is_own(eras: &[Era], epoch: u64) -> bool {
    let Some((now, before)) = eras.split_last() else { return true };
    let writer = eras.iter().rposition(|era| era.from_epoch <= epoch).unwrap_or(0);
    if eras[writer].data_dir_id == now.data_dir_id {
        return true;
    }
    now.inherits && writer < before.len() && is_own(before, epoch)
}

/// Who wants to own an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The data directory.
    pub data_dir_id: String,
    /// The process.
    pub holder: String,
    /// Processes that had this data directory open, and may have left the store as it is found.
    pub holders_before: Vec<String>,
    /// How long its lease will be.
    pub lease: Duration,
    /// Whether it may take the store from another data directory.
    pub take_over: bool,
    /// Whether it has no tables of its own, and goes on with those of whom it takes the store from.
    pub is_new: bool,
}

/// What to do about what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Become the owner, with the ceilings still to be set.
    Own(Owner),
    /// Look again; when it is the same for this long from now, [`Step::Own`].
    Watch(Duration),
    /// It belongs to another data directory, or to a copy of this one.
    Refuse,
}

/// Decides what a start does about the owner it found, which has been the same for `unchanged`.
pub(crate) fn decide(found: Option<&Owner>, me: &Claimant, unchanged: Duration) -> Step {
    let Some(found) = found else { return Step::Own(me.first()) };
    if found.data_dir_id == me.data_dir_id && me.holders_before.contains(&found.holder) {
        // Its LOCK says that no other process has the directory open. A copy would not know who came after it.
        return Step::Own(Owner {
            epoch: found.epoch + 1,
            owners: found.owners.clone(),
            updated_floor: found.updated_floor,
            id_floor: found.id_floor,
            updated_ceiling: found.updated_ceiling,
            id_ceiling: found.id_ceiling,
            ..me.first()
        });
    }
    if !me.take_over {
        return Step::Refuse;
    }
    let lease = Duration::from_millis(found.lease_ms).max(me.lease);
    let patience = lease + lease / PATIENCE_PART;
    if !found.released && unchanged < patience {
        return Step::Watch(patience - unchanged);
    }
    let mut owners = found.owners.clone();
    owners.push(Era { from_epoch: found.epoch + 1, data_dir_id: me.data_dir_id.clone(), inherits: me.is_new });
    Step::Own(Owner {
        epoch: found.epoch + 1,
        owners,
        updated_floor: found.updated_ceiling,
        id_floor: found.id_ceiling,
        updated_ceiling: found.updated_ceiling,
        id_ceiling: found.id_ceiling,
        ..me.first()
    })
}

impl Claimant {
    fn refused(&self, store: &str, found: Option<&Owner>) -> StorageError {
        let (store, me) = (store.to_owned(), self.data_dir_id.clone());
        let (owner, epoch) = found.map_or((String::new(), 0), |owner| (owner.data_dir_id.clone(), owner.epoch));
        match owner == me {
            true => StorageError::Copied { store, epoch, me },
            false => StorageError::Owned { store, owner, epoch, me },
        }
    }

    /// The owner that it becomes of a store without one.
    fn first(&self) -> Owner {
        Owner {
            format_version: OWNER_FORMAT,
            data_dir_id: self.data_dir_id.clone(),
            epoch: 1,
            holder: self.holder.clone(),
            renewal: 0,
            lease_ms: u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX),
            released: false,
            updated_ceiling: CommitTs::default(),
            id_ceiling: 0,
            updated_floor: CommitTs::default(),
            id_floor: 0,
            owners: vec![Era { from_epoch: 1, data_dir_id: self.data_dir_id.clone(), inherits: false }],
        }
    }
}

impl Owner {
    fn ceilings(&self) -> Ceilings {
        Ceilings { updated: self.updated_ceiling, id_tick: self.id_ceiling }
    }

    /// Neither goes back while the store is owned.
    fn raise(&mut self, to: Ceilings) {
        self.updated_ceiling = self.updated_ceiling.max(to.updated);
        self.id_ceiling = self.id_ceiling.max(to.id_tick);
    }

    fn to_json(&self) -> Bytes {
        serde_json::to_vec_pretty(self).expect("an owner has only strings as keys").into()
    }

    pub(crate) fn read(found: &Found) -> Result<Self> {
        let owner: Self = serde_json::from_slice(&found.bytes).map_err(StorageError::damaged_json(OWNER_FILE))?;
        if owner.format_version > OWNER_FORMAT {
            let path = OWNER_FILE.into();
            return Err(StorageError::FormatVersion { path, found: owner.format_version, known: OWNER_FORMAT });
        }
        Ok(owner)
    }
}

/// An owned object store: what is needed to stay its owner.
#[derive(Debug)]
pub(crate) struct Ownership {
    objects: Objects,
    clock: Arc<dyn Clock>,
    /// As it was last written.
    owner: Owner,
    etag: ETag,
    /// Of the last try to write.
    renewal: u64,
    lease: Duration,
}

/// What came of a renewal.
#[derive(Debug)]
pub(crate) enum Renewal {
    /// Owner until then, with these ceilings.
    Until(Duration, Ceilings),
    /// Someone else is.
    Lost(String),
}

impl Ownership {
    /// Becomes the owner, waiting for another's lease to end when it may be taken over. `remember` makes durable what a
    /// later start of this data directory gets as [`Claimant::holders_before`].
    pub(crate) async fn take(
        objects: Objects,
        me: &Claimant,
        last: Ceilings,
        clock: &Arc<dyn Clock>,
        remember: impl Fn(&[&str]) -> Result<()>,
    ) -> Result<(Self, Arc<Lease>)> {
        let mut seen: Option<(Option<ETag>, Duration)> = None;
        loop {
            let found = objects.get_owner().await?;
            let now = clock.monotonic();
            let etag = found.as_ref().map(|found| found.etag.clone());
            let since = match &seen {
                Some((same, since)) if *same == etag => *since,
                _ => now,
            };
            seen = Some((etag.clone(), since));
            let owner = found.as_ref().map(Owner::read).transpose()?;
            match decide(owner.as_ref(), me, now.saturating_sub(since)) {
                Step::Own(next) => {
                    // Before the write: after a crash in between either may be found.
                    let before = owner.as_ref().map_or("", |owner| &owner.holder);
                    remember(&[before, &next.holder])?;
                    if let Some(taken) = Self::own(&objects, next, etag, me.lease, last, clock).await? {
                        return Ok(taken);
                    }
                }
                Step::Watch(still) => {
                    tracing::warn!(
                        store = objects.name(),
                        owner = owner.map(|owner| owner.data_dir_id),
                        seconds = still.as_secs(),
                        "taking over: waiting for the lease of the owner to end"
                    );
                    clock.sleep(still.min(me.lease / LOOKS)).await;
                }
                Step::Refuse => return Err(me.refused(objects.name(), owner.as_ref())),
            }
        }
    }

    /// Writes the new owner; `None` when another was quicker.
    async fn own(
        objects: &Objects,
        mut owner: Owner,
        over: Option<ETag>,
        lease: Duration,
        last: Ceilings,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<(Self, Arc<Lease>)>> {
        owner.raise(ahead(
            clock.now_ns(),
            last.updated.max(owner.updated_floor),
            last.id_tick.max(owner.id_floor),
            lease,
        ));
        let sent = clock.monotonic();
        let Put::Done(etag) = objects.put_owner(owner.to_json(), over.as_ref()).await? else { return Ok(None) };
        tracing::info!(store = objects.name(), epoch = owner.epoch, "owns the object store");
        let held = Lease::taken(
            Arc::clone(clock),
            objects.name().to_owned(),
            owner.epoch,
            owner.owners.clone(),
            sent + lease,
            owner.ceilings(),
        );
        let ownership = Self { objects: objects.clone(), clock: Arc::clone(clock), owner, etag, renewal: 0, lease };
        Ok(Some((ownership, Arc::new(held))))
    }

    /// What every commit and id of this ownership is above.
    pub(crate) fn floors(&self) -> Ceilings {
        Ceilings { updated: self.owner.updated_floor, id_tick: self.owner.id_floor }
    }

    /// The length of its lease.
    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// Renews the lease and raises the ceilings above what was used. An error: unknown, to be tried again.
    pub(crate) async fn renew(&mut self, used: Ceilings) -> Result<Renewal> {
        let mut next = self.next();
        next.raise(ahead(self.clock.now_ns(), used.updated, used.id_tick, self.lease));
        self.write(next).await
    }

    /// Gives the store back: the next owner need not wait. `used`: what was used at last.
    pub(crate) async fn release(&mut self, used: Ceilings) -> Result<Renewal> {
        let mut next = Owner { released: true, ..self.next() };
        next.updated_ceiling = used.updated.max(next.updated_floor);
        next.id_ceiling = used.id_tick.max(next.id_floor);
        self.write(next).await
    }

    /// What to write next. No two writes are equal: one found in the store that looks like this one would be taken for
    /// it, and the lease counted from the later of the two.
    fn next(&mut self) -> Owner {
        self.renewal += 1;
        Owner { renewal: self.renewal, ..self.owner.clone() }
    }

    async fn write(&mut self, next: Owner) -> Result<Renewal> {
        // Twice: what is there may be a write of ours whose acknowledgement was lost, over which to go on.
        for _ in 0..2 {
            let sent = self.clock.monotonic();
            match self.objects.put_owner(next.to_json(), Some(&self.etag)).await? {
                Put::Done(etag) => {
                    self.etag = etag;
                    self.owner = next;
                    return Ok(Renewal::Until(sent + self.lease, self.owner.ceilings()));
                }
                Put::Refused(None) => return Ok(Renewal::Lost(format!("unknown: {OWNER_FILE} was removed"))),
                Put::Refused(Some(found)) => {
                    let there = Owner::read(&found)?;
                    if there.holder != self.owner.holder {
                        let (owner, epoch) = (there.data_dir_id, there.epoch);
                        return Ok(Renewal::Lost(format!("the data directory {owner} (epoch {epoch})")));
                    }
                    self.etag = found.etag;
                }
            }
        }
        Err(StorageError::Damaged(format!("{OWNER_FILE} changes under its owner")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn me(id: &str, take_over: bool) -> Claimant {
        let holder = format!("a process of {id}");
        let holders_before = vec![holder.clone()];
        Claimant { data_dir_id: id.into(), holders_before, holder, lease: LEASE, take_over, is_new: false }
    }

    fn owner(id: &str, epoch: u64) -> Owner {
        Owner { epoch, updated_ceiling: CommitTs::stored(500), id_ceiling: 70, ..me(id, false).first() }
    }

    fn owned(step: Step) -> Owner {
        match step {
            Step::Own(owner) => owner,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_store_of_nobody_is_taken() {
        let mine = owned(decide(None, &me("a", false), Duration::ZERO));
        assert_eq!((mine.epoch, mine.updated_floor.get(), mine.owners.len()), (1, 0, 1));
    }

    #[test]
    fn the_same_data_directory_goes_on_at_once() {
        let found = Owner { updated_floor: CommitTs::stored(9), ..owner("a", 4) };
        for take_over in [false, true] {
            let mine = owned(decide(Some(&found), &me("a", take_over), Duration::ZERO));
            assert_eq!((mine.epoch, mine.updated_floor.get(), mine.updated_ceiling.get()), (5, 9, 500));
            assert_eq!(mine.owners, found.owners);
            assert!(!mine.released);
        }
    }

    #[test]
    fn another_one_is_refused_whatever_the_owner_does() {
        for released in [false, true] {
            let found = Owner { released, ..owner("a", 4) };
            assert_eq!(decide(Some(&found), &me("b", false), 10 * LEASE), Step::Refuse);
        }
    }

    #[test]
    fn a_copy_of_the_data_directory_is_another_one() {
        let found = Owner { released: true, holder: "a process on the copy".into(), ..owner("a", 4) };
        assert_eq!(decide(Some(&found), &me("a", false), 10 * LEASE), Step::Refuse);
        let error = me("a", false).refused("s3://here", Some(&found)).to_string();
        assert!(error.contains("copy") && error.contains("s3://here"), "{error}");
        let mine = owned(decide(Some(&found), &me("a", true), Duration::ZERO));
        assert_eq!((mine.epoch, mine.updated_floor.get(), mine.owners.len()), (5, 500, 2));
    }

    #[test]
    fn who_takes_over_waits_for_a_lease_and_starts_above_the_ceilings() {
        let found = owner("a", 4);
        assert_eq!(decide(Some(&found), &me("b", true), Duration::ZERO), Step::Watch(Duration::from_secs(33)));
        assert_eq!(decide(Some(&found), &me("b", true), LEASE), Step::Watch(Duration::from_secs(3)));
        let mine = owned(decide(Some(&found), &me("b", true), Duration::from_secs(33)));
        assert_eq!((mine.epoch, mine.updated_floor.get(), mine.id_floor), (5, 500, 70));
        assert_eq!(mine.owners.last().unwrap(), &Era { from_epoch: 5, data_dir_id: "b".into(), inherits: false });
        let new = Claimant { is_new: true, ..me("b", true) };
        assert!(owned(decide(Some(&found), &new, Duration::from_secs(33))).owners[1].inherits);
        // The longer lease of the two counts.
        let found = Owner { lease_ms: 60_000, ..found };
        assert_eq!(decide(Some(&found), &me("b", true), LEASE), Step::Watch(Duration::from_secs(36)));
        let released = Owner { released: true, ..found };
        assert_eq!(owned(decide(Some(&released), &me("b", true), Duration::ZERO)).epoch, 5);
    }

    #[test]
    fn epochs_tell_who_wrote() {
        let era = |from_epoch, id: &str, inherits| Era { from_epoch, data_dir_id: id.into(), inherits };
        let own = |eras: &[Era]| [0, 1, 3, 4, 5, 6, 9].map(|epoch| u8::from(is_own(eras, epoch)));
        assert_eq!(own(&[era(1, "a", false), era(4, "b", false), era(6, "a", false)]), [1, 1, 1, 0, 0, 1, 1]);
        assert_eq!(own(&[era(1, "a", false), era(4, "b", false), era(6, "c", true)]), [0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(own(&[era(1, "a", false), era(4, "b", true), era(6, "c", true)]), [1; 7]);
        assert!(is_own(&[], 3));
    }

    #[test]
    fn golden_owner() {
        let json = String::from_utf8(owner("a", 4).to_json().to_vec()).unwrap();
        let expected = r#"{
  "format_version": 1,
  "data_dir_id": "a",
  "epoch": 4,
  "holder": "a process of a",
  "renewal": 0,
  "lease_ms": 30000,
  "released": false,
  "updated_ceiling": 500,
  "id_ceiling": 70,
  "updated_floor": 0,
  "id_floor": 0,
  "owners": [
    {
      "from_epoch": 1,
      "data_dir_id": "a"
    }
  ]
}"#;
        assert_eq!(json, expected);
    }
}
