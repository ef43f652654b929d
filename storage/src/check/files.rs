//! Reads the files of a scope, some at a time, and checks each.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use roaring::RoaringBitmap;

use super::file::{self, Checked};
use super::finding::{Faults, Invariant, Progress};
use super::opened::Opened;
use super::records::has_files;
use super::scope::{Batches, Place};
use super::unique::{Hasher, Hashes};
use crate::bloom::FileFilters;
use crate::bulk::proof::Proof;
use crate::delete_vector;
use crate::error::Result;
use crate::keys::BatchNumber;
use crate::objects::blocking;
use crate::paths;
use crate::records::{BatchKind, BatchRecord};
use crate::recovery::Room;
use crate::recovery::resolve::Versions;

/// Files that are read at the same time.
const AT_ONCE: usize = 4;

/// What the files of a scope hold.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The row versions of each file, archived ones included.
    pub(super) versions: HashMap<BatchNumber, Arc<Versions>>,
    /// Hashes of the unique keys of each file's rows.
    pub(super) hashes: HashMap<BatchNumber, Hashes>,
    /// The delete vector of each file that has one.
    pub(super) vectors: HashMap<BatchNumber, RoaringBitmap>,
}

pub(super) struct Read {
    /// `None` when some file could not be read.
    pub(super) all: Option<Files>,
    pub(super) faults: Faults,
}

pub(super) async fn check(
    opened: &Opened,
    place: &Place,
    batches: &Batches,
    hasher: &Hasher,
    progress: &Progress,
) -> Result<Read> {
    let room = &Room::default();
    let records: Vec<BatchRecord> = batches.records.iter().filter(|record| has_files(record)).cloned().collect();
    let count = records.len();
    let vectors = records.iter().filter(|record| record.deletes.is_some()).count();
    let checked: Vec<(BatchNumber, One)> = stream::iter(records)
        .map(|record| async move {
            let number = record.batch_number;
            Ok::<_, crate::error::StorageError>((
                number,
                one(opened, place, batches, record, room, hasher, progress).await?,
            ))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let (mut files, mut faults) = (Files::default(), Faults::default());
    for (number, one) in checked {
        faults.0.extend(one.faults.0);
        files.hashes.insert(number, one.hashes);
        files.versions.extend(one.versions.map(|versions| (number, Arc::new(versions))));
        files.vectors.extend(one.vector.map(|vector| (number, vector)));
    }
    let has_faults = faults.0.iter().any(|(invariant, _)| *invariant == Invariant::Files);
    let is_whole = files.versions.len() == count && files.vectors.len() == vectors && !has_faults;
    Ok(Read { all: is_whole.then_some(files), faults })
}

#[derive(Default)]
struct One {
    versions: Option<Versions>,
    hashes: Hashes,
    vector: Option<RoaringBitmap>,
    faults: Faults,
}

async fn one(
    opened: &Opened,
    place: &Place,
    batches: &Batches,
    record: BatchRecord,
    room: &Room,
    hasher: &Hasher,
    progress: &Progress,
) -> Result<One> {
    let mut one = One::default();
    one.vector = vector(opened, &record, &mut one.faults).await?;
    let filters = filters(opened, &record, &mut one.faults).await?;
    if record.since.is_none_or(|since| since <= batches.header.exported) {
        check_proof(opened, place, &record, &mut one.faults).await?;
    }
    // One that is not there was found in the listing.
    let Some(listed) = opened.listed.get(&record.file_path) else { return Ok(one) };
    let (path, size_bytes, of, hasher) = (record.file_path.clone(), listed.size_bytes, place.clone(), hasher.clone());
    let check = move |bytes: Bytes| Ok(file::check(&bytes, &record, &of, filters.as_ref(), &hasher));
    let Checked { versions, hashes, faults } = room.read(&opened.objects, &path, size_bytes, check).await?;
    Progress::add(&progress.files, 1);
    Progress::add(&progress.bytes, size_bytes);
    Progress::add(&progress.cold_rows, versions.as_ref().map_or(0, |versions| versions.ids.len() as u64));
    one.faults.0.extend(faults.0.into_iter().map(|(invariant, what)| (invariant, format!("{path}: {what}"))));
    (one.versions, one.hashes) = (versions, hashes);
    Ok(one)
}

async fn object(opened: &Opened, path: &str) -> Result<Option<Bytes>> {
    match opened.listed.contains_key(path) {
        true => Ok(opened.objects.get(path).await?.map(|found| found.bytes)),
        false => Ok(None),
    }
}

async fn vector(opened: &Opened, record: &BatchRecord, faults: &mut Faults) -> Result<Option<RoaringBitmap>> {
    let Some(deletes) = &record.deletes else { return Ok(None) };
    let Some(bytes) = object(opened, &deletes.path).await? else { return Ok(None) };
    match blocking(move || Ok(delete_vector::decode(&bytes))).await? {
        Ok(vector) => {
            let is_as_said = vector.len() == deletes.cardinality
                && vector.max().is_none_or(|highest| u64::from(highest) < record.row_count);
            faults.expect(is_as_said, Invariant::Files, || {
                format!(
                    "{}: it has {} positions, not {}, or one behind the file's end",
                    deletes.path,
                    vector.len(),
                    deletes.cardinality
                )
            });
            Ok(Some(vector))
        }
        Err(error) => {
            faults.add(Invariant::Files, format!("{}: {error}", deletes.path));
            Ok(None)
        }
    }
}

async fn filters(opened: &Opened, record: &BatchRecord, faults: &mut Faults) -> Result<Option<FileFilters>> {
    let Some(bloom) = &record.bloom else { return Ok(None) };
    let Some(bytes) = object(opened, &bloom.file_path).await? else { return Ok(None) };
    match FileFilters::decode(&bytes, bloom) {
        Ok(filters) => Ok(Some(filters)),
        Err(error) => {
            faults.add(Invariant::Filters, format!("{}: {error}", bloom.file_path));
            Ok(None)
        }
    }
}

async fn check_proof(opened: &Opened, place: &Place, record: &BatchRecord, faults: &mut Faults) -> Result<()> {
    if record.kind != BatchKind::Bulk {
        return Ok(());
    }
    let path = paths::proof_of(&record.file_path);
    let Some(bytes) = object(opened, &path).await? else { return Ok(()) };
    match Proof::decode(&bytes, &place.place) {
        Ok(proof) => {
            let says_so = proof.batch_number == record.batch_number && Some(proof.updated) == record.updated_of_all();
            faults.expect(says_so, Invariant::Files, || format!("{path}: it proves another commit or another batch"));
        }
        Err(error) => faults.add(Invariant::Files, format!("{path}: {error}")),
    }
    Ok(())
}
