//! Whole objects as local files, and their removal.

use std::fs::File;
use std::io::Read;
use std::path::{Path as FsPath, PathBuf};

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tokio::io::AsyncWriteExt;

use super::{Objects, blocking, object_path};
use crate::error::{Result, StorageError};

/// An object as a local file. A file made for it goes with it.
pub(crate) struct LocalCopy {
    path: PathBuf,
    fetched: bool,
}

impl LocalCopy {
    pub(crate) fn path(&self) -> &FsPath {
        &self.path
    }
}

impl Drop for LocalCopy {
    fn drop(&mut self) {
        if self.fetched
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, file = %self.path.display(), "a scratch file stays until the next start");
        }
    }
}

impl Objects {
    /// The object `path` as a local file, checked against its length and CRC32. `name` must be unique among the
    /// scratch files.
    pub(crate) async fn fetch(&self, path: &str, name: &str, size: u64, checksum: u32) -> Result<LocalCopy> {
        let copy = match &self.local {
            Some(root) => LocalCopy { path: root.join(path), fetched: false },
            None => self.download(path, name).await?,
        };
        let (file, what) = (copy.path.clone(), path.to_owned());
        blocking(move || check(&file, &what, size, checksum)).await?;
        Ok(copy)
    }

    /// Removes an object. It need not be there.
    pub(crate) async fn remove(&self, path: &str) -> Result<()> {
        self.lease.check()?;
        match self.reader.delete(&object_path(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn download(&self, path: &str, name: &str) -> Result<LocalCopy> {
        let copy = LocalCopy { path: self.scratch.join(name), fetched: true };
        let writing = format!("writing {}", copy.path.display());
        let mut file = tokio::fs::File::create(&copy.path).await.map_err(StorageError::io(writing.clone()))?;
        let mut bytes = self.reader.get(&object_path(path)?).await?.into_stream();
        while let Some(part) = bytes.try_next().await? {
            file.write_all(&part).await.map_err(StorageError::io(writing.clone()))?;
        }
        file.flush().await.map_err(StorageError::io(writing))?;
        Ok(copy)
    }
}

/// Refuses a file that is not what its record says.
fn check(file: &FsPath, path: &str, size: u64, checksum: u32) -> Result<()> {
    let reading = format!("reading {path}");
    let mut file = File::open(file).map_err(StorageError::io(reading.clone()))?;
    let (mut hasher, mut found, mut buffer) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 20]);
    loop {
        let length = file.read(&mut buffer).map_err(StorageError::io(reading.clone()))?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        found += length as u64;
    }
    if found != size || hasher.finalize() != checksum {
        return Err(StorageError::DamagedFile(path.rsplit('/').next().unwrap_or(path).to_owned()));
    }
    Ok(())
}
