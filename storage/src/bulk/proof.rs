//! What proves that a bulk file was committed, for who has lost both records and manifest: an object beside the file.
//!
//! ```json
//! {"format_version":1,"table_id":7,"scope":"shared","batch_number":3,"updated":1795360385769744513,"epoch":0}
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Result, StorageError};
use crate::keys::{BatchNumber, TableId};
use crate::objects::Objects;
use crate::paths;
use crate::records::BatchRecord;
use crate::scope_files::ScopeFiles;
use crate::scope_place::ScopePlace;
use crate::store::Store;
use crate::system_columns::CommitTs;

/// The version that this build writes, and the highest it reads.
pub(crate) const PROOF_FORMAT: u32 = 1;

/// Says which commit a bulk file came with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// [`PROOF_FORMAT`].
    pub(crate) format_version: u32,
    /// The table.
    pub(crate) table_id: TableId,
    /// `shared`, or `user:` and the user's name.
    pub(crate) scope: String,
    /// The file's number within the scope.
    pub(crate) batch_number: BatchNumber,
    /// `_updated` of all its rows.
    pub(crate) updated: CommitTs,
    /// Of the owner of the object store.
    pub(crate) epoch: u64,
}

impl Proof {
    /// What the bytes say of a file of this scope.
    pub(crate) fn decode(bytes: &[u8], place: &ScopePlace) -> Result<Self> {
        let proof: Self = serde_json::from_slice(bytes).map_err(StorageError::damaged_json("a proof of commit"))?;
        if proof.table_id != place.scope.table || proof.scope != place.scope_name() {
            return Err(StorageError::Damaged("a proof of commit is of another table or user".into()));
        }
        match proof.format_version {
            ..=PROOF_FORMAT => Ok(proof),
            found => {
                let path = place.prefix.clone().into();
                Err(StorageError::FormatVersion { path, found, known: PROOF_FORMAT })
            }
        }
    }
}

impl Store {
    /// Writes the proofs of the bulk files among these records that no manifest shows yet.
    pub(crate) async fn prove(&self, job: &ScopeFiles, records: &[BatchRecord]) -> Result<()> {
        let new = records.iter().filter(|record| record.since.is_some_and(|since| since > job.header.exported));
        for record in new {
            let Some(updated) = record.updated_of_all() else { continue };
            let proof = Proof {
                format_version: PROOF_FORMAT,
                table_id: job.scope.table,
                scope: job.place.scope_name(),
                batch_number: record.batch_number,
                updated,
                epoch: self.objects().epoch(),
            };
            let json = serde_json::to_vec(&proof).expect("a proof has only strings as keys");
            self.objects().put(&paths::proof_of(&record.file_path), json.into(), None).await?;
        }
        Ok(())
    }
}

/// The proof of a batch file, when there is one that can be read.
pub(crate) async fn of(objects: &Objects, place: &ScopePlace, file_path: &str) -> Result<Option<Proof>> {
    let path = paths::proof_of(file_path);
    let Some(found) = objects.get(&path).await? else { return Ok(None) };
    match Proof::decode(&found.bytes, place) {
        Ok(proof) => Ok(Some(proof)),
        Err(newer @ StorageError::FormatVersion { .. }) => Err(newer),
        Err(error) => {
            tracing::warn!(file = path, %error, "ignored");
            Ok(None)
        }
    }
}
