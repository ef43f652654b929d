//! Where cold files live: a local folder, or a bucket.
//!
//! Invariants:
//! 1. A file that [`Objects::put_file`] or [`Objects::put`] has returned from survives power failure: on local disk
//!    temporary file, fsync, rename, fsync of the folder; on a bucket the store's acknowledgement.
//! 2. A file is seen whole or not at all.
//! 3. [`Objects::put_file`] never replaces a file: one that is there belongs to another data directory.
//!
//! Reads go through [`Objects::reader`]. The local writer is our own because `object_store`'s has no fsync.

mod fetch;

use std::fs::{self, File};
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::error::{Result, StorageError};

pub(crate) use fetch::LocalCopy;

/// An object store.
#[derive(Debug, Clone)]
pub struct Objects {
    reader: Arc<dyn ObjectStore>,
    /// The root when files are local.
    local: Option<PathBuf>,
    /// Where files are built before they are put.
    scratch: PathBuf,
}

impl Objects {
    /// Opens the store at `url` (`file:///folder` or `s3://bucket/prefix`); `None` is `objects` below the data
    /// directory.
    pub fn open(url: Option<&str>, data_dir: &FsPath) -> Result<Self> {
        let scratch = data_dir.join("scratch");
        reset_folder(&scratch)?;
        let Some(url) = url else {
            return Self::local(data_dir.join("objects"), scratch);
        };
        let wrong = |reason: String| StorageError::ObjectStoreUrl { url: url.to_owned(), reason };
        let parsed = Url::parse(url).map_err(|e| wrong(e.to_string()))?;
        match parsed.scheme() {
            "file" => {
                let root = parsed.to_file_path().map_err(|()| wrong("not an absolute path".into()))?;
                Self::local(root, scratch)
            }
            "s3" => {
                let store = AmazonS3Builder::from_env().with_url(url).build()?;
                let reader: Arc<dyn ObjectStore> = match parsed.path().trim_matches('/') {
                    "" => Arc::new(store),
                    prefix => Arc::new(PrefixStore::new(store, prefix)),
                };
                Ok(Self { reader, local: None, scratch })
            }
            other => Err(wrong(format!("scheme '{other}' is unknown: use file:///folder or s3://bucket/prefix"))),
        }
    }

    fn local(root: PathBuf, scratch: PathBuf) -> Result<Self> {
        make_folder(&root)?;
        let reader = Arc::new(LocalFileSystem::new_with_prefix(&root)?);
        Ok(Self { reader, local: Some(root), scratch })
    }

    /// For reading.
    pub fn reader(&self) -> &Arc<dyn ObjectStore> {
        &self.reader
    }

    /// An empty file to build a new object in. `name` must be unique among those being built.
    pub fn scratch_file(&self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.scratch.join(name);
        let file = File::create(&path).map_err(StorageError::io(format!("creating {}", path.display())))?;
        Ok((path, file))
    }

    /// Makes the object `path` of a scratch file, durably. It must not be there.
    pub async fn put_file(&self, scratch: &FsPath, path: &str) -> Result<()> {
        let Some(root) = self.local.clone() else { return self.upload(scratch, path).await };
        let (scratch, target) = (scratch.to_owned(), root.join(path));
        let taken = StorageError::Taken(path.to_owned());
        blocking(move || {
            make_folder_below(&root, folder_of(&target)?)?;
            sync_file(&scratch)?;
            match fs::hard_link(&scratch, &target) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_beside(&scratch, &target)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(taken),
                linked => linked.map_err(StorageError::io(format!("making {}", target.display())))?,
            }
            sync_folder(folder_of(&target)?)
        })
        .await
    }

    /// Writes a small object, durably, over what may be there.
    pub async fn put(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        match &self.local {
            Some(root) => {
                let (root, target) = (root.clone(), root.join(path));
                blocking(move || {
                    let folder = folder_of(&target)?;
                    make_folder_below(&root, folder)?;
                    let temporary = target.with_extension(format!("{}.tmp", uuid::Uuid::new_v4()));
                    fs::write(&temporary, &bytes)
                        .map_err(StorageError::io(format!("writing {}", temporary.display())))?;
                    sync_file(&temporary)?;
                    fs::rename(&temporary, &target)
                        .map_err(StorageError::io(format!("making {}", target.display())))?;
                    sync_folder(folder)
                })
                .await
            }
            None => {
                self.reader.put(&object_path(path)?, bytes.into()).await?;
                Ok(())
            }
        }
    }

    /// Removes every object below `prefix`.
    pub async fn remove_below(&self, prefix: &str) -> Result<()> {
        if prefix.trim_matches('/').is_empty() {
            return Err(StorageError::Damaged("an empty prefix would remove everything".into()));
        }
        if let Some(root) = &self.local {
            let folder = root.join(prefix);
            return blocking(move || match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(StorageError::io(format!("removing {}", folder.display()))(error))
                }
                _ => Ok(()),
            })
            .await;
        }
        let paths = self.reader.list(Some(&object_path(prefix)?)).map_ok(|object| object.location);
        paths.try_for_each_concurrent(8, |path| async move { self.reader.delete(&path).await }).await?;
        Ok(())
    }

    async fn upload(&self, scratch: &FsPath, path: &str) -> Result<()> {
        if self.reader.head(&object_path(path)?).await.is_ok() {
            return Err(StorageError::Taken(path.to_owned()));
        }
        let what = format!("reading {}", scratch.display());
        let mut file = tokio::fs::File::open(scratch).await.map_err(StorageError::io(what.clone()))?;
        let mut writer = BufWriter::new(Arc::clone(&self.reader), object_path(path)?);
        tokio::io::copy(&mut file, &mut writer).await.map_err(StorageError::io(format!("uploading {path}")))?;
        writer.shutdown().await.map_err(StorageError::io(format!("uploading {path}")))
    }
}

/// A path of ours as the object store's. It is taken as it is: `Path::from` would encode the `~` of
/// [`crate::paths::table_prefix_again`].
pub fn object_path(path: &str) -> Result<Path> {
    Path::parse(path).map_err(|e| StorageError::Damaged(format!("the path {path}: {e}")))
}

/// Runs file operations where they may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StorageError::Stopped),
    }
}

/// Makes a folder and its parents, durably.
pub(crate) fn make_folder(folder: &FsPath) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(FsPath::new("."))),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(StorageError::io(format!("creating the folder {}", folder.display()))(error)),
    }
}

/// Makes a folder below `root`, durably also when a process that has died made part of it.
fn make_folder_below(root: &FsPath, folder: &FsPath) -> Result<()> {
    make_folder(folder)?;
    for made in folder.ancestors().skip(1).take_while(|made| made.starts_with(root)) {
        sync_folder(made)?;
    }
    Ok(())
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(folder: &FsPath) -> Result<()> {
    let opened = File::open(folder).and_then(|f| f.sync_all());
    opened.map_err(StorageError::io(format!("syncing the folder {}", folder.display())))
}

fn sync_file(path: &FsPath) -> Result<()> {
    let opened = File::open(path).and_then(|file| file.sync_all());
    opened.map_err(StorageError::io(format!("syncing {}", path.display())))
}

/// The object folder lies on another file system than the scratch folder: copies beside the target first.
fn copy_beside(source: &FsPath, target: &FsPath) -> Result<()> {
    let beside = target.with_extension(format!("{}.tmp", uuid::Uuid::new_v4()));
    let placed = fs::copy(source, &beside).and_then(|_| {
        File::open(&beside)?.sync_all()?;
        fs::hard_link(&beside, target)?;
        fs::remove_file(&beside)
    });
    placed.map_err(StorageError::io(format!("copying to {}", target.display())))
}

fn folder_of(target: &FsPath) -> Result<&FsPath> {
    target.parent().ok_or_else(|| StorageError::Damaged(format!("{} has no folder", target.display())))
}

/// Scratch files of a process that is gone name nothing.
fn reset_folder(folder: &FsPath) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(StorageError::io(format!("emptying {}", folder.display())))?;
    }
    make_folder(folder)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn files_are_placed_whole_and_removed_by_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(None, dir.path()).unwrap();
        let (scratch, mut file) = objects.scratch_file("a").unwrap();
        file.write_all(b"rows").unwrap();
        objects.put_file(&scratch, "app/t~2/shared/batch-0001.parquet").await.unwrap();
        objects.put("app/t~2/shared/manifest.json", b"{}".to_vec()).await.unwrap();
        objects.put("app/t~2/shared/manifest.json", b"{ }".to_vec()).await.unwrap();
        let read = |path: &'static str| {
            let reader = Arc::clone(objects.reader());
            async move { reader.get(&object_path(path).unwrap()).await?.bytes().await }
        };
        assert_eq!(read("app/t~2/shared/batch-0001.parquet").await.unwrap(), "rows");
        assert_eq!(read("app/t~2/shared/manifest.json").await.unwrap(), "{ }");
        let again = objects.put_file(&scratch, "app/t~2/shared/batch-0001.parquet").await;
        assert!(matches!(again, Err(StorageError::Taken(_))), "{again:?}");
        assert!(objects.remove_below("/").await.is_err());
        objects.remove_below("app/t~2").await.unwrap();
        objects.remove_below("app/t~2").await.unwrap();
        assert!(read("app/t~2/shared/manifest.json").await.is_err());
    }

    #[test]
    fn wrong_urls_say_what_is_possible() {
        let dir = tempfile::tempdir().unwrap();
        for url in ["ftp://x", "no url"] {
            let error = Objects::open(Some(url), dir.path()).unwrap_err().to_string();
            assert!(error.contains(url), "{error}");
        }
    }
}
