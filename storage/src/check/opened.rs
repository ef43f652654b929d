//! A data directory, opened by who only looks at it.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use super::finding::{Found, Invariant};
use crate::clock::Clock;
use crate::commit_records::SequenceRecord;
use crate::error::{Result, StorageError};
use crate::objects::{Listed, Objects};
use crate::ownership::{Owner, is_own};
use crate::rocks::{Rocks, RocksSnapshot};
use crate::store::{StorageConfig, check_format, read_format};
use crate::system_columns::CommitTs;

/// A data directory and its object store, as they are.
pub(super) struct Opened {
    pub(super) rocks: RocksSnapshot,
    pub(super) objects: Objects,
    /// Every object, by path.
    pub(super) listed: BTreeMap<String, Listed>,
    /// Who owns the object store; `None` when only this data directory can.
    pub(super) owner: Option<Owner>,
    pub(super) highest: Highest,
    pub(super) orphan_grace_ns: i64,
    /// No server runs meanwhile.
    _lock: File,
}

/// What nothing stored is above.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Highest {
    pub(super) updated: CommitTs,
    pub(super) id_tick: u64,
    pub(super) table: u32,
    /// The last commit; 0 before the first.
    pub(super) last_commit: CommitTs,
}

impl Opened {
    /// An error says why nothing can be looked at; what is wrong with what can is in `found`.
    pub(super) async fn open(config: &StorageConfig, clock: &Arc<dyn Clock>, found: &mut Found) -> Result<Self> {
        let dir = &config.data_dir;
        if !dir.join("FORMAT").exists() {
            let what = format!("{} is no data directory of SeracDB: it has no file FORMAT", dir.display());
            return Err(StorageError::io(what)(std::io::ErrorKind::NotFound.into()));
        }
        let format = read_format(dir)?;
        check_format(dir, dir.join("rocksdb/CURRENT").exists())?;
        let lock = lock(dir)?;
        let rocks = RocksSnapshot::take(Arc::new(Rocks::open_to_look(&dir.join("rocksdb"))?));
        let objects = Objects::open_to_look(config.object_store.as_deref(), &config.s3, dir, clock)?;
        let owner = match objects.is_shared() {
            true => owner_of(&objects, &format.data_dir_id, found).await?,
            false => None,
        };
        let highest = highest(&rocks, owner.as_ref(), found)?;
        let listed = objects.list("").await?;
        let orphan_grace_ns =
            i64::try_from(config.orphan_grace_seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
        Ok(Self { rocks, objects, listed, owner, highest, orphan_grace_ns, _lock: lock })
    }

    /// Whether this data directory, or one whose tables it goes on with, wrote what carries this epoch.
    pub(super) fn wrote(&self, epoch: u64) -> bool {
        match &self.owner {
            Some(owner) => epoch <= owner.epoch && is_own(&owner.owners, epoch),
            None => epoch == 0,
        }
    }

    /// The objects in a folder and below it.
    pub(super) fn listed_in(&self, folder: &str) -> BTreeMap<String, Listed> {
        let from = format!("{folder}/");
        let listed = self.listed.range(from.clone()..).take_while(|(path, _)| path.starts_with(&from));
        listed.map(|(path, listed)| (path.clone(), *listed)).collect()
    }
}

/// Keeps servers from the directory. The file is only made where no server has made it.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("LOCK");
    let opened = File::open(&path).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => File::create_new(&path),
        _ => Err(error),
    });
    let file = opened.map_err(StorageError::io(format!("opening {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(StorageError::io(format!("locking {}", path.display()))(error)),
    }
}

async fn owner_of(objects: &Objects, data_dir_id: &str, found: &mut Found) -> Result<Option<Owner>> {
    let place = "object store";
    let owner = match objects.get_owner().await? {
        Some(json) => Owner::read(&json),
        None => {
            found.add(
                Invariant::Ownership,
                place,
                "it has no owner.json: no server with this data directory has used it",
            );
            return Ok(None);
        }
    };
    match owner {
        Ok(owner) => {
            if owner.data_dir_id != data_dir_id {
                let other = &owner.data_dir_id;
                let what = format!("it belongs to the data directory {other}, not to this one, {data_dir_id}");
                found.add(Invariant::Ownership, place, what);
            }
            Ok(Some(owner))
        }
        Err(error @ StorageError::FormatVersion { .. }) => Err(error),
        Err(error) => {
            found.add(Invariant::Ownership, place, error.to_string());
            Ok(None)
        }
    }
}

fn highest(rocks: &RocksSnapshot, owner: Option<&Owner>, found: &mut Found) -> Result<Highest> {
    let sequence = match rocks.get_root(SequenceRecord::KEY)? {
        Some(bytes) => SequenceRecord::decode(&bytes).unwrap_or_else(|error| {
            found.add(Invariant::Readable, "sequence", error.to_string());
            // Nothing is known to be above it.
            SequenceRecord { last_updated: CommitTs::MAX, id_high_water: u64::MAX, max_table_id: u32::MAX }
        }),
        None => SequenceRecord::default(),
    };
    // Who has taken the store over starts above these, and keeps its own only with its first commit.
    let (updated, id_tick) = owner.map_or_else(Default::default, |owner| (owner.updated_floor, owner.id_floor));
    Ok(Highest {
        updated: sequence.last_updated.max(updated),
        id_tick: sequence.id_high_water.max(id_tick),
        table: sequence.max_table_id,
        last_commit: sequence.last_updated,
    })
}
