//! Does the bucket keep the conditions of writes? Asked at every start, before anything rests on it.
//!
//! A server that ignores conditions answers every write with success, and two servers would overwrite each other's
//! files without either seeing it.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{
    CopyMode, CopyOptions, Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion,
};

use crate::error::{Result, StorageError};
use crate::objects::object_path;
use crate::paths::OWN_FOLDER;

/// Refuses a bucket that ignores conditions, and says which. `name`: the bucket's, for the error.
pub(crate) async fn probe(store: &Arc<dyn ObjectStore>, name: &str) -> Result<()> {
    let own = format!("{OWN_FOLDER}/probe-{}", uuid::Uuid::new_v4());
    let (first, second) = (format!("{own}-1"), format!("{own}-2"));
    let ignored = ignored(store, &first, &second).await;
    for path in [&first, &second] {
        match store.delete(&object_path(path)?).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, object = %path, "an object of the start-up probe stays"),
        }
    }
    match ignored? {
        None => Ok(()),
        Some(ignores) => Err(StorageError::Unconditional { store: name.to_owned(), ignores: ignores.to_owned() }),
    }
}

/// What the bucket does not do.
async fn ignored(store: &Arc<dyn ObjectStore>, first: &str, second: &str) -> Result<Option<&'static str>> {
    let (one, two) = (object_path(first)?, object_path(second)?);
    let put = |bytes: &'static [u8], mode: PutMode| {
        store.put_opts(&one, PutPayload::from(Bytes::from_static(bytes)), mode.into())
    };
    let Some(created) = put(b"1", PutMode::Create).await?.e_tag else {
        return Ok(Some("gives no ETag for what it has stored"));
    };
    if !refused(put(b"2", PutMode::Create).await.map(drop))? {
        return Ok(Some("ignores If-None-Match when an object is put"));
    }
    let update = || PutMode::Update(UpdateVersion { e_tag: Some(created.clone()), version: None });
    match put(b"3", update()).await {
        Ok(_) => {}
        Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. } | StoreError::NotModified { .. }) => {
            return Ok(Some("refuses If-Match with the ETag that it gave"));
        }
        Err(error) => return Err(error.into()),
    }
    if !refused(put(b"4", update()).await.map(drop))? {
        return Ok(Some("ignores If-Match when an object is put"));
    }
    if store.get(&one).await?.bytes().await?.as_ref() != b"3" {
        return Ok(Some("stores what it has refused"));
    }
    store.put_opts(&two, PutPayload::from_static(b"5"), PutMode::Create.into()).await?;
    if !refused(store.copy_opts(&two, &one, CopyOptions::new().with_mode(CopyMode::Create)).await)? {
        return Ok(Some("ignores If-None-Match when an upload in parts is completed"));
    }
    Ok(None)
}

fn refused(answer: Result<(), StoreError>) -> Result<bool> {
    match answer {
        Ok(()) => Ok(false),
        Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. } | StoreError::NotModified { .. }) => {
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::faulty_bucket::{Condition, FaultyBucket};

    #[tokio::test]
    async fn a_store_that_ignores_a_condition_is_refused_by_its_name() {
        for (ignored, named) in [
            (Condition::Create, "If-None-Match when an object is put"),
            (Condition::Update, "If-Match when an object is put"),
            (Condition::Complete, "If-None-Match when an upload in parts"),
        ] {
            let bucket = FaultyBucket::new();
            bucket.ignore(ignored);
            let store: Arc<dyn ObjectStore> = bucket.clone();
            let error = probe(&store, "s3://here").await.unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("s3://here"), "{error}");
            let left: Vec<_> = store.list(None).try_collect().await.unwrap();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_keeps_conditions_passes_and_stays_clean() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        probe(&store, "memory").await.unwrap();
        let left: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}
