//! Conditional writes to a bucket.
//!
//! Invariants:
//! 1. Nothing is written over what the writer has not seen: an object is created where there is none (If-None-Match), or
//!    replaces the one of a known ETag (If-Match).
//! 2. A write whose acknowledgement was lost counts as done: what is there is read back and compared before a refusal,
//!    or an error without an answer, is taken for one.
//!
//! A file above [`WHOLE_BYTES_MAX`] goes up in parts, to a name of its own, and is then copied to its place by the store
//! itself: `object_store` completes an upload under a condition only in that copy.

use std::io::Read;
use std::path::Path as FsPath;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion, WriteMultipart,
};

use crate::error::{Result, StorageError};
use crate::objects::{ETag, Found, Put, blocking, object_path};
use crate::paths;

/// Files up to this size are put in one request, from memory.
pub(crate) const WHOLE_BYTES_MAX: u64 = 64 << 20;
const PART_BYTES: usize = 16 << 20;
const PARTS_AT_ONCE: usize = 4;
/// How often a write is tried again that was refused although nothing is there: two that met in the store.
const TRIES: usize = 4;

type Store = Arc<dyn ObjectStore>;

/// Puts an object over that of the ETag `last`, or where there is none.
pub(crate) async fn put_if(store: &Store, path: &str, bytes: Bytes, last: Option<&ETag>) -> Result<Put> {
    let location = object_path(path)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let mode = match last {
            None => PutMode::Create,
            Some(ETag(etag)) => PutMode::Update(UpdateVersion { e_tag: Some(etag.clone()), version: None }),
        };
        let put = store.put_opts(&location, PutPayload::from(bytes.clone()), PutOptions::from(mode)).await;
        let error = match put {
            Ok(put) => return Ok(Put::Done(etag(path, put.e_tag)?)),
            Err(error) => error,
        };
        match get(store, path).await {
            Ok(Some(found)) if found.bytes == bytes => return Ok(Put::Done(found.etag)),
            Ok(None) if is_refusal(&error) && last.is_none() && tries < TRIES => {}
            Ok(found) if is_refusal(&error) => return Ok(Put::Refused(found)),
            // Without an answer, and not there: the error of the write is what counts.
            _ => return Err(error.into()),
        }
    }
}

/// What is at a path.
pub(crate) async fn get(store: &Store, path: &str) -> Result<Option<Found>> {
    let got = match store.get(&object_path(path)?).await {
        Ok(got) => got,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let etag = etag(path, got.meta.e_tag.clone())?;
    Ok(Some(Found { bytes: got.bytes().await?, etag }))
}

/// The ETag of what is at a path.
pub(crate) async fn etag_at(store: &Store, path: &str) -> Result<Option<ETag>> {
    match store.head(&object_path(path)?).await {
        Ok(meta) => etag(path, meta.e_tag).map(Some),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes the object `path` of a file. When another one is there, that is [`StorageError::Taken`].
pub(crate) async fn create_file(store: &Store, file: &FsPath, path: &str, whole_bytes_max: u64) -> Result<()> {
    let location = object_path(path)?;
    let reading = |file: &FsPath| StorageError::io(format!("reading {}", file.display()));
    let size = std::fs::metadata(file).map_err(reading(file))?.len();
    let mut tries = 0;
    loop {
        tries += 1;
        let created = if size <= whole_bytes_max {
            let bytes = tokio::fs::read(file).await.map_err(reading(file))?;
            store.put_opts(&location, bytes.into(), PutMode::Create.into()).await.map(drop)
        } else {
            create_in_parts(store, file, &location).await?
        };
        let Err(error) = created else { return Ok(()) };
        match holds(store, &location, file, size).await {
            Ok(Some(true)) => return Ok(()),
            Ok(Some(false)) => return Err(StorageError::Taken(path.to_owned())),
            Ok(None) if is_refusal(&error) && tries < TRIES => {}
            _ => return Err(error.into()),
        }
    }
}

/// Uploads to a name of its own, and lets the store copy it to its place unless that is taken. The outer error is one
/// that has nothing to do with the place.
async fn create_in_parts(store: &Store, file: &FsPath, location: &Path) -> Result<Result<(), StoreError>> {
    let uploaded = object_path(&format!("{}/{}", paths::UPLOADS_FOLDER, uuid::Uuid::new_v4()))?;
    upload_parts(store, file, &uploaded).await?;
    let copied = store.copy_opts(&uploaded, location, CopyOptions::new().with_mode(CopyMode::Create)).await;
    if let Err(error) = store.delete(&uploaded).await {
        tracing::warn!(%error, object = %uploaded, "an upload stays until the next start");
    }
    Ok(copied)
}

async fn upload_parts(store: &Store, file: &FsPath, to: &Path) -> Result<()> {
    let reading = || StorageError::io(format!("reading {}", file.display()));
    let mut source = std::fs::File::open(file).map_err(reading())?;
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(to).await?, PART_BYTES);
    loop {
        let read = blocking(move || {
            let mut part = Vec::with_capacity(PART_BYTES);
            let read = source.by_ref().take(PART_BYTES as u64).read_to_end(&mut part);
            read.map_err(StorageError::io("reading a batch file")).map(|_| (source, part))
        });
        let sent = async {
            let (source, part) = read.await?;
            upload.wait_for_capacity(PARTS_AT_ONCE).await?;
            Ok::<_, StorageError>((source, part))
        };
        match sent.await {
            Ok((_, part)) if part.is_empty() => break,
            Ok((rest, part)) => {
                upload.put(part.into());
                source = rest;
            }
            Err(error) => {
                let _ = upload.abort().await;
                return Err(error);
            }
        }
    }
    upload.finish().await?;
    Ok(())
}

/// Whether the object holds the same bytes as the file; `None` when there is none.
async fn holds(store: &Store, location: &Path, file: &FsPath, size: u64) -> Result<Option<bool>> {
    let got = match store.get(location).await {
        Ok(got) if got.meta.size != size => return Ok(Some(false)),
        Ok(got) => got,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let add = |mut sum: crc32fast::Hasher, bytes: Bytes| async move {
        sum.update(&bytes);
        Ok(sum)
    };
    let there = got.into_stream().try_fold(crc32fast::Hasher::new(), add).await?.finalize();
    let file = file.to_owned();
    let here = blocking(move || {
        let mut sum = crc32fast::Hasher::new();
        let mut source = std::fs::File::open(&file).map_err(StorageError::io("reading a batch file"))?;
        let mut bytes = vec![0; 1 << 20];
        loop {
            match source.read(&mut bytes).map_err(StorageError::io("reading a batch file"))? {
                0 => return Ok(sum.finalize()),
                read => sum.update(&bytes[..read]),
            }
        }
    });
    Ok(Some(here.await? == there))
}

/// Whether the store has looked at the condition and said no. S3 says 409 when two writes meet.
fn is_refusal(error: &StoreError) -> bool {
    matches!(error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotModified { .. })
}

fn etag(path: &str, etag: Option<String>) -> Result<ETag> {
    let none = || StorageError::Damaged(format!("the object store gives no ETag for {path}"));
    etag.map(ETag).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::faulty_bucket::FaultyBucket;

    fn store() -> Store {
        Arc::new(InMemory::new())
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[tokio::test]
    async fn replaces_only_what_it_has_seen() {
        let store = store();
        let Put::Done(first) = put_if(&store, "m", "1".into(), None).await.unwrap() else { panic!() };
        let Put::Done(second) = put_if(&store, "m", "2".into(), Some(&first)).await.unwrap() else { panic!() };
        for last in [None, Some(&first)] {
            let Put::Refused(Some(found)) = put_if(&store, "m", "3".into(), last).await.unwrap() else { panic!() };
            assert_eq!((found.bytes.as_ref(), &found.etag), (b"2".as_slice(), &second));
        }
        assert!(matches!(put_if(&store, "other", "3".into(), Some(&first)).await.unwrap(), Put::Refused(None)));
    }

    #[tokio::test]
    async fn a_lost_acknowledgement_is_found_by_reading_back() {
        let store = store();
        let Put::Done(first) = put_if(&store, "m", "1".into(), None).await.unwrap() else { panic!() };
        let Put::Done(second) = put_if(&store, "m", "2".into(), Some(&first)).await.unwrap() else { panic!() };
        // The same write again, as after an answer that never came.
        let Put::Done(again) = put_if(&store, "m", "2".into(), Some(&first)).await.unwrap() else { panic!() };
        assert_eq!(again, second);
        let rows = file(b"rows");
        create_file(&store, rows.path(), "b", WHOLE_BYTES_MAX).await.unwrap();
        create_file(&store, rows.path(), "b", WHOLE_BYTES_MAX).await.unwrap();
        let others = file(b"ROWS");
        let taken = create_file(&store, others.path(), "b", WHOLE_BYTES_MAX).await;
        assert!(matches!(taken, Err(StorageError::Taken(_))), "{taken:?}");
    }

    #[tokio::test]
    async fn an_error_without_an_answer_is_looked_into() {
        let bucket = FaultyBucket::new();
        let store: Store = bucket.clone();
        let rows = file(b"rows");
        bucket.put_without_answer();
        create_file(&store, rows.path(), "b", WHOLE_BYTES_MAX).await.unwrap();
        bucket.put_without_answer();
        let Put::Done(etag) = put_if(&store, "m", "1".into(), None).await.unwrap() else { panic!() };
        bucket.put_without_answer();
        let Put::Done(_) = put_if(&store, "m", "2".into(), Some(&etag)).await.unwrap() else { panic!() };
        assert_eq!(get(&store, "m").await.unwrap().unwrap().bytes, "2");
        bucket.set_down(true);
        assert!(put_if(&store, "m", "3".into(), None).await.is_err());
        assert!(create_file(&store, rows.path(), "c", WHOLE_BYTES_MAX).await.is_err());
        bucket.set_down(false);
        assert!(get(&store, "c").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_large_file_is_created_in_parts_and_replaces_nothing() {
        let store = store();
        let bytes: Vec<u8> = (0..PART_BYTES + 12345).map(|i| (i / 1000) as u8).collect();
        let large = file(&bytes);
        create_file(&store, large.path(), "b", 10).await.unwrap();
        assert_eq!(get(&store, "b").await.unwrap().unwrap().bytes, bytes);
        create_file(&store, large.path(), "b", 10).await.unwrap();
        let other = file(&bytes[1..]);
        let taken = create_file(&store, other.path(), "b", 10).await;
        assert!(matches!(taken, Err(StorageError::Taken(_))), "{taken:?}");
        let left: Vec<_> = store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        assert_eq!(left, ["b"]);
    }
}
