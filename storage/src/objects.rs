//! Where cold files live: a local folder, or a bucket.
//!
//! Invariants:
//! 1. A file that [`Objects::put_file`] or [`Objects::put`] has returned from survives power failure: on local disk
//!    temporary file, fsync, rename, fsync of the folder; on a bucket the store's acknowledgement.
//! 2. A file is seen whole or not at all.
//! 3. [`Objects::put_file`] never replaces a file, and [`Objects::put`] only what this data directory wrote: what else
//!    is there belongs to another one. Both hold also when another process writes at the same moment.
//! 4. Nothing is written or removed without the lease; see [`crate::lease`].
//!
//! Reads go through [`Objects::reader`]. The local writer is our own because `object_store`'s has no fsync and no
//! conditional replacement.

mod fetch;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut, S3CopyIfNotExists};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use serde::Deserialize;
use url::Url;

use crate::bucket;
use crate::clock::Clock;
use crate::error::{Result, StorageError};
use crate::lease::Lease;
use crate::paths::{MANIFEST_FILE, OWN_FOLDER, OWNER_FILE, UPLOADS_FOLDER};
use crate::probe::probe;
use crate::s3_access::S3Access;
use crate::spans::in_this_span;

pub(crate) use fetch::LocalCopy;

/// An object store.
#[derive(Debug, Clone)]
pub struct Objects {
    reader: Arc<dyn ObjectStore>,
    /// A client of its own for the owner's record, with connections that no query keeps busy.
    for_owner: Arc<dyn ObjectStore>,
    /// The root when files are local.
    local: Option<PathBuf>,
    /// Whether another data directory could use it too.
    shared: bool,
    /// What messages call it.
    name: String,
    /// Where files are built before they are put.
    scratch: PathBuf,
    lease: Arc<Lease>,
}

/// What tells one content of an object from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// An object as it was read.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its content.
    pub bytes: Bytes,
    /// The content's ETag.
    pub etag: ETag,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its length.
    pub size_bytes: u64,
    /// When it was written, by the store's clock, in ns since the Unix epoch.
    pub modified_ns: i64,
}

/// What came of a conditional write.
#[derive(Debug, Clone)]
pub enum Put {
    /// It is there, under this ETag.
    Done(ETag),
    /// Something else is there, or nothing although something was expected.
    Refused(Option<Found>),
}

/// Where an object store is.
enum Place {
    Folder { root: PathBuf, shared: bool },
    Bucket { url: String, prefix: String },
}

impl Place {
    fn of(url: Option<&str>, data_dir: &FsPath) -> Result<Self> {
        let Some(url) = url else {
            return Ok(Self::Folder { root: data_dir.join("objects"), shared: false });
        };
        Self::named(url).map_err(|reason| StorageError::ObjectStoreUrl { url: url.to_owned(), reason })
    }

    /// What a URL names, or why it names nothing.
    fn named(url: &str) -> std::result::Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| error.to_string())?;
        match parsed.scheme() {
            "file" => {
                let root = parsed.to_file_path().map_err(|()| "not an absolute path".to_owned())?;
                Ok(Self::Folder { root, shared: true })
            }
            "s3" if parsed.host_str().is_none_or(str::is_empty) => Err("it names no bucket".to_owned()),
            "s3" => Ok(Self::Bucket { url: url.to_owned(), prefix: parsed.path().trim_matches('/').to_owned() }),
            other => Err(format!("scheme '{other}' is unknown")),
        }
    }
}

/// Why no store can be opened at this URL, as far as that can be said without opening one.
pub(crate) fn refusal(url: &str) -> Option<String> {
    Place::named(url).err()
}

impl Objects {
    /// Opens the store at `url` (`file:///folder` or `s3://bucket/prefix`); `None` is `objects` below the data
    /// directory, which nobody else uses.
    pub fn open(url: Option<&str>, access: &S3Access, data_dir: &FsPath, clock: &Arc<dyn Clock>) -> Result<Self> {
        let place = Place::of(url, data_dir)?;
        if let Place::Folder { root, .. } = &place {
            make_folder(root)?;
        }
        Self::at(place, access, scratch(data_dir)?, clock)
    }

    /// The same for who only reads: nothing is made or changed, also not in the data directory.
    pub(crate) fn open_to_look(
        url: Option<&str>,
        access: &S3Access,
        data_dir: &FsPath,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let place = Place::of(url, data_dir)?;
        if let Place::Folder { root, .. } = &place
            && !root.is_dir()
        {
            let what = format!("the folder of cold files, {}, is not there: restore it or mount it", root.display());
            return Err(StorageError::io(what)(io::ErrorKind::NotFound.into()));
        }
        Self::at(place, access, PathBuf::new(), clock)
    }

    fn at(place: Place, access: &S3Access, scratch: PathBuf, clock: &Arc<dyn Clock>) -> Result<Self> {
        match place {
            Place::Folder { root, shared } => Self::local(root, shared, scratch, clock),
            Place::Bucket { url, prefix } => {
                let reader = s3(&url, &prefix, access, RetryConfig::default())?;
                // Renewing must not outlast the lease.
                let quick =
                    RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() };
                let for_owner = s3(&url, &prefix, access, quick)?;
                Ok(Self::bucket(reader, for_owner, url, scratch, clock))
            }
        }
    }

    /// A bucket that is open already, as tests have one in memory.
    pub fn on_bucket(
        reader: Arc<dyn ObjectStore>,
        for_owner: Arc<dyn ObjectStore>,
        name: &str,
        data_dir: &FsPath,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        Ok(Self::bucket(reader, for_owner, name.to_owned(), scratch(data_dir)?, clock))
    }

    fn bucket(
        reader: Arc<dyn ObjectStore>,
        for_owner: Arc<dyn ObjectStore>,
        name: String,
        scratch: PathBuf,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let lease = Arc::new(Lease::unlimited(Arc::clone(clock)));
        Self { reader, for_owner, local: None, shared: true, name, scratch, lease }
    }

    fn local(root: PathBuf, shared: bool, scratch: PathBuf, clock: &Arc<dyn Clock>) -> Result<Self> {
        let reader: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&root)?);
        Ok(Self {
            for_owner: Arc::clone(&reader),
            reader,
            name: root.display().to_string(),
            local: Some(root),
            shared,
            scratch,
            lease: Arc::new(Lease::unlimited(Arc::clone(clock))),
        })
    }

    /// Refuses a bucket that ignores the conditions of writes.
    pub(crate) async fn probe(&self) -> Result<()> {
        match self.local {
            Some(_) => Ok(()),
            None => probe(&self.for_owner, &self.name).await,
        }
    }

    /// The same store, under this lease.
    pub(crate) fn under(self, lease: Arc<Lease>) -> Self {
        Self { lease, ..self }
    }

    /// Whether another data directory could use it too, so that it needs an owner.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The epoch of its ownership, for footers and manifests; 0 when only this data directory can own it.
    pub fn epoch(&self) -> u64 {
        self.lease.epoch()
    }

    /// What the names of batch files carry: the epoch, once there was a take-over.
    pub fn name_epoch(&self) -> Option<u64> {
        self.lease.name_epoch()
    }

    /// The epoch from which on this data directory owns the store.
    pub(crate) fn era(&self) -> u64 {
        self.lease.era()
    }

    /// The epochs from which on those owned the store whose tables this one goes on with, the last of them first.
    pub(crate) fn inherited_eras(&self) -> Vec<u64> {
        self.lease.inherited_eras()
    }

    /// Whether what was written in `epoch` is this data directory's.
    pub(crate) fn wrote(&self, epoch: u64) -> bool {
        self.lease.wrote(epoch)
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
        self.lease.check()?;
        let Some(root) = self.local.clone() else {
            return bucket::create_file(&self.reader, scratch, path, bucket::WHOLE_BYTES_MAX).await;
        };
        let (scratch, target) = (scratch.to_owned(), root.join(path));
        let path = path.to_owned();
        blocking(move || {
            make_folder_below(&root, folder_of(&target)?)?;
            sync_file(&scratch)?;
            let linked = match fs::hard_link(&scratch, &target) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_beside(&scratch, &target),
                linked => linked,
            };
            match linked {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(StorageError::Taken(path)),
                linked => linked.map_err(StorageError::io(format!("making {}", target.display())))?,
            }
            sync_folder(folder_of(&target)?)
        })
        .await
    }

    /// Writes a small object, durably, over the one that was written or read `last`, or that this data directory wrote
    /// before. Its `epoch` says whose it is: another's is [`StorageError::Taken`], and that of a later owner
    /// [`StorageError::Fenced`].
    pub async fn put(&self, path: &str, bytes: Bytes, last: Option<ETag>) -> Result<ETag> {
        self.put_over(path, bytes, last, |_| Ok(())).await
    }

    /// The same, unless `refuse` has something against what is there.
    pub(crate) async fn put_over(
        &self,
        path: &str,
        bytes: Bytes,
        last: Option<ETag>,
        refuse: impl Fn(&Found) -> Result<()>,
    ) -> Result<ETag> {
        const TRIES: usize = 3;
        let mut last = last;
        for _ in 0..TRIES {
            last = match self.put_if(path, bytes.clone(), last.as_ref()).await? {
                Put::Done(etag) => return Ok(etag),
                Put::Refused(None) => None,
                Put::Refused(Some(found)) => match refuse(&found).map(|()| epoch_of(&found))? {
                    Some(epoch) if self.lease.wrote(epoch) => Some(found.etag),
                    // What nobody can read is nobody's: no other owner has a folder of ours.
                    None => Some(found.etag),
                    Some(later) if later > self.epoch() => {
                        let (store, owner) = (self.name.clone(), format!("that of epoch {later}"));
                        return Err(StorageError::Fenced { store, owner });
                    }
                    _ => break,
                },
            };
        }
        Err(StorageError::Taken(path.to_owned()))
    }

    /// Puts a small object, durably, over that of the ETag `last`, or where there is none.
    pub async fn put_if(&self, path: &str, bytes: Bytes, last: Option<&ETag>) -> Result<Put> {
        self.lease.check()?;
        self.put_through(&self.reader, path, bytes, last).await
    }

    /// What is at a path.
    pub async fn get(&self, path: &str) -> Result<Option<Found>> {
        self.get_through(&self.reader, path).await
    }

    /// The ETag of what is at a path.
    pub(crate) async fn etag(&self, path: &str) -> Result<Option<ETag>> {
        match &self.local {
            // Its ETag is a hash of its bytes.
            Some(_) => Ok(self.get(path).await?.map(|found| found.etag)),
            None => bucket::etag_at(&self.reader, path).await,
        }
    }

    /// The objects in and below a folder, by path.
    pub(crate) async fn list(&self, folder: &str) -> Result<BTreeMap<String, Listed>> {
        let objects = self.reader.list(Some(&object_path(folder)?)).map_ok(|object| {
            let modified_ns = object.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
            (object.location.to_string(), Listed { size_bytes: object.size, modified_ns })
        });
        Ok(objects.try_collect().await?)
    }

    /// The names of the folders in a folder.
    pub(crate) async fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let found = self.reader.list_with_delimiter(Some(&object_path(folder)?)).await?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// Who owns the store.
    pub(crate) async fn get_owner(&self) -> Result<Option<Found>> {
        self.get_through(&self.for_owner, OWNER_FILE).await
    }

    /// Writes who owns the store: the one write that needs no lease.
    pub(crate) async fn put_owner(&self, bytes: Bytes, last: Option<&ETag>) -> Result<Put> {
        self.put_through(&self.for_owner, OWNER_FILE, bytes, last).await
    }

    /// Removes every object below `prefix`. After a take-over, folders whose manifest is another's stay.
    pub async fn remove_below(&self, prefix: &str) -> Result<()> {
        if prefix.trim_matches('/').is_empty() {
            return Err(StorageError::Damaged("an empty prefix would remove everything".into()));
        }
        self.lease.check()?;
        match &self.local {
            Some(root) if !self.lease.was_taken_over() => {
                let folder = root.join(prefix);
                blocking(move || match fs::remove_dir_all(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(StorageError::io(format!("removing {}", folder.display()))(error))
                    }
                    _ => Ok(()),
                })
                .await
            }
            _ => self.remove_objects(prefix).await,
        }
    }

    async fn remove_objects(&self, prefix: &str) -> Result<()> {
        let kept = if self.lease.was_taken_over() { self.folders_of_others(prefix).await? } else { HashSet::new() };
        let paths = self.reader.list(Some(&object_path(prefix)?)).map_ok(|object| object.location);
        let kept = &kept;
        let remove = |path: Path| async move {
            // There may be many.
            self.lease.check()?;
            match path.as_ref().rsplit_once('/') {
                Some((folder, _)) if kept.contains(folder) => Ok(()),
                _ => Ok(self.reader.delete(&path).await?),
            }
        };
        paths.map_err(StorageError::from).try_for_each_concurrent(8, remove).await
    }

    async fn folders_of_others(&self, prefix: &str) -> Result<HashSet<String>> {
        let mut folders = HashSet::new();
        let mut listed = self.reader.list(Some(&object_path(prefix)?));
        while let Some(object) = listed.next().await {
            let path = object?.location.to_string();
            let Some((folder, MANIFEST_FILE)) = path.rsplit_once('/') else { continue };
            let is_ours = |found: &Found| self.lease.wrote(epoch_of(found).unwrap_or(0));
            if self.get(&path).await?.is_some_and(|found| !is_ours(&found)) {
                tracing::warn!(folder, "kept: it belongs to the data directory that owned the object store before");
                folders.insert(folder.to_owned());
            }
        }
        Ok(folders)
    }

    /// Removes what an owner before has left of uploads.
    pub(crate) async fn remove_uploads(&self) -> Result<()> {
        match self.local {
            Some(_) => Ok(()),
            None => self.remove_below(UPLOADS_FOLDER).await,
        }
    }

    /// The folders `{namespace}/{table}` that there are.
    pub(crate) async fn table_folders(&self) -> Result<Vec<String>> {
        let mut tables = Vec::new();
        for namespace in self.reader.list_with_delimiter(None).await?.common_prefixes {
            if namespace.as_ref() != OWN_FOLDER {
                let below = self.reader.list_with_delimiter(Some(&namespace)).await?;
                tables.extend(below.common_prefixes.into_iter().map(|table| table.to_string()));
            }
        }
        Ok(tables)
    }

    async fn put_through(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &str,
        bytes: Bytes,
        last: Option<&ETag>,
    ) -> Result<Put> {
        let Some(root) = self.local.clone() else { return bucket::put_if(store, path, bytes, last).await };
        let (path, last, shared) = (path.to_owned(), last.cloned(), self.shared);
        blocking(move || {
            // Between the look at what is there and the write nobody else writes.
            let _locked = if shared { Some(lock_folder(&root)?) } else { None };
            put_local(&root, &root.join(path), &bytes, last.as_ref())
        })
        .await
    }

    async fn get_through(&self, store: &Arc<dyn ObjectStore>, path: &str) -> Result<Option<Found>> {
        let Some(root) = &self.local else { return bucket::get(store, path).await };
        let target = root.join(path);
        blocking(move || get_local(&target)).await
    }
}

/// The epoch in which an object of ours in JSON was written; `None` when it cannot be read.
fn epoch_of(written: &Found) -> Option<u64> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default)]
        epoch: u64,
    }
    serde_json::from_slice(&written.bytes).ok().map(|written: Written| written.epoch)
}

fn s3(url: &str, prefix: &str, access: &S3Access, retry: RetryConfig) -> Result<Arc<dyn ObjectStore>> {
    let store = access
        .tell(AmazonS3Builder::new())
        .with_url(url)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
        .with_retry(retry)
        .build()?;
    Ok(match prefix {
        "" => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    })
}

fn get_local(target: &FsPath) -> Result<Option<Found>> {
    match fs::read(target) {
        Ok(bytes) => Ok(Some(Found { etag: etag_of(&bytes), bytes: bytes.into() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageError::io(format!("reading {}", target.display()))(error)),
    }
}

fn put_local(root: &FsPath, target: &FsPath, bytes: &Bytes, last: Option<&ETag>) -> Result<Put> {
    let found = get_local(target)?;
    if let Some(same) = found.as_ref().filter(|found| found.bytes == *bytes) {
        return Ok(Put::Done(same.etag.clone()));
    }
    if found.as_ref().map(|found| &found.etag) != last {
        return Ok(Put::Refused(found));
    }
    let folder = folder_of(target)?;
    make_folder_below(root, folder)?;
    let temporary = target.with_extension(format!("{}.tmp", uuid::Uuid::new_v4()));
    fs::write(&temporary, bytes).map_err(StorageError::io(format!("writing {}", temporary.display())))?;
    sync_file(&temporary)?;
    fs::rename(&temporary, target).map_err(StorageError::io(format!("making {}", target.display())))?;
    sync_folder(folder)?;
    Ok(Put::Done(etag_of(bytes)))
}

fn etag_of(bytes: &[u8]) -> ETag {
    ETag(blake3::hash(bytes).to_hex().to_string())
}

/// Waits until no other process writes to the folder.
fn lock_folder(root: &FsPath) -> Result<File> {
    let folder = root.join(OWN_FOLDER);
    make_folder_below(root, &folder)?;
    let path = folder.join("LOCK");
    let locking = || StorageError::io(format!("locking {}", path.display()));
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(locking())?;
    file.lock().map_err(locking())?;
    Ok(file)
}

/// A path of ours as the object store's. It is taken as it is: `Path::from` would encode the `~` of
/// [`crate::paths::prefix_again`].
pub fn object_path(path: &str) -> Result<Path> {
    Path::parse(path).map_err(|e| StorageError::Damaged(format!("the path {path}: {e}")))
}

/// Runs file operations where they may block. What is logged there is of the span here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(in_this_span(work)).await {
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
fn copy_beside(source: &FsPath, target: &FsPath) -> io::Result<()> {
    let beside = target.with_extension(format!("{}.tmp", uuid::Uuid::new_v4()));
    let placed = fs::copy(source, &beside).and_then(|_| {
        File::open(&beside)?.sync_all()?;
        fs::hard_link(&beside, target)
    });
    // Placed or not, nothing refers to it.
    let _ = fs::remove_file(&beside);
    placed
}

fn folder_of(target: &FsPath) -> Result<&FsPath> {
    target.parent().ok_or_else(|| StorageError::Damaged(format!("{} has no folder", target.display())))
}

/// The folder of files being built, emptied: those of a process that is gone name nothing.
fn scratch(data_dir: &FsPath) -> Result<PathBuf> {
    let folder = data_dir.join("scratch");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(StorageError::io(format!("emptying {}", folder.display())))?;
    }
    make_folder(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use object_store::memory::InMemory;

    use super::*;
    use crate::clock::ManualClock;
    use crate::lease::Ceilings;
    use crate::ownership::Era;

    fn clock() -> Arc<dyn Clock> {
        Arc::new(ManualClock::default())
    }

    async fn read(objects: &Objects, path: &str) -> Option<Bytes> {
        objects.get(path).await.unwrap().map(|found| found.bytes)
    }

    /// A lease of the first owner, or of "b" after a take-over at epoch 2.
    fn lease(epoch: u64) -> Arc<Lease> {
        let era = |from_epoch, id: &str| Era { from_epoch, data_dir_id: id.into(), inherits: false };
        let eras = [era(1, "a"), era(2, "b")][..epoch.min(2) as usize].to_vec();
        let until = Duration::from_secs(30);
        Arc::new(Lease::taken(clock(), "here".into(), epoch, eras, until, Ceilings::NONE))
    }

    #[tokio::test]
    async fn files_are_placed_whole_and_removed_by_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        for objects in [
            Objects::open(None, &S3Access::default(), dir.path(), &clock()).unwrap(),
            Objects::on_bucket(memory.clone(), memory, "memory", dir.path(), &clock()).unwrap(),
        ] {
            let (scratch, mut file) = objects.scratch_file("a").unwrap();
            file.write_all(b"rows").unwrap();
            objects.put_file(&scratch, "app/t~2/shared/batch-0001.parquet").await.unwrap();
            objects.put("app/t~2/shared/manifest.json", Bytes::from_static(b"{}"), None).await.unwrap();
            objects.put("app/t~2/shared/manifest.json", Bytes::from_static(b"{ }"), None).await.unwrap();
            assert_eq!(read(&objects, "app/t~2/shared/batch-0001.parquet").await.unwrap(), "rows");
            assert_eq!(read(&objects, "app/t~2/shared/manifest.json").await.unwrap(), "{ }");
            let (others, mut file) = objects.scratch_file("b").unwrap();
            file.write_all(b"ROWS").unwrap();
            let again = objects.put_file(&others, "app/t~2/shared/batch-0001.parquet").await;
            assert!(matches!(again, Err(StorageError::Taken(_))), "{again:?}");
            assert!(objects.remove_below("/").await.is_err());
            objects.remove_below("app/t~2").await.unwrap();
            objects.remove_below("app/t~2").await.unwrap();
            assert!(read(&objects, "app/t~2/shared/manifest.json").await.is_none());
        }
    }

    #[test]
    fn a_copy_to_another_file_system_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target.parquet"));
        fs::write(&source, "rows").unwrap();
        copy_beside(&source, &target).unwrap();
        fs::write(&source, "others").unwrap();
        assert_eq!(copy_beside(&source, &target).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"rows");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "a temporary file stays");
    }

    #[tokio::test]
    async fn a_manifest_of_another_owner_is_neither_replaced_nor_removed() {
        let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let url = Url::from_directory_path(folder.path()).unwrap().to_string();
        for store in [
            Objects::open(Some(&url), &S3Access::default(), dir.path(), &clock()).unwrap(),
            Objects::on_bucket(memory.clone(), memory, "memory", dir.path(), &clock()).unwrap(),
        ] {
            let (first, second) = (store.clone().under(lease(1)), store.clone().under(lease(2)));
            first.put("app/t/shared/manifest.json", Bytes::from_static(br#"{"epoch": 1}"#), None).await.unwrap();
            // What knows no ETag, as after a restart, finds its own.
            first
                .put("app/t/shared/manifest.json", Bytes::from_static(br#"{"epoch": 1, "version": 2}"#), None)
                .await
                .unwrap();
            let taken = second.put("app/t/shared/manifest.json", Bytes::from_static(br#"{"epoch": 2}"#), None).await;
            assert!(matches!(taken, Err(StorageError::Taken(_))), "{taken:?}");
            second.put("app/t/user_b/manifest.json", Bytes::from_static(br#"{"epoch": 2}"#), None).await.unwrap();
            // Nor does the first replace what its successor wrote.
            let fenced = first.put("app/t/user_b/manifest.json", Bytes::from_static(br#"{"epoch": 1}"#), None).await;
            assert!(matches!(fenced, Err(StorageError::Fenced { .. })), "{fenced:?}");
            assert_eq!(second.table_folders().await.unwrap(), ["app/t"]);
            second.remove_below("app/t").await.unwrap();
            assert!(read(&second, "app/t/shared/manifest.json").await.is_some());
            assert!(read(&second, "app/t/user_b/manifest.json").await.is_none());
        }
    }

    #[tokio::test]
    async fn nothing_is_written_without_the_lease() {
        let dir = tempfile::tempdir().unwrap();
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let objects = Objects::on_bucket(memory.clone(), memory, "memory", dir.path(), &clock()).unwrap();
        let lease = lease(1);
        let objects = objects.under(Arc::clone(&lease));
        objects.put("app/t/shared/manifest.json", Bytes::from_static(b"{}"), None).await.unwrap();
        lease.fenced("someone".into());
        let (scratch, _) = objects.scratch_file("a").unwrap();
        let refused = [
            objects.put("app/t/shared/manifest.json", Bytes::from_static(b"{ }"), None).await.map(drop),
            objects.put_file(&scratch, "app/t/shared/batch-0001.parquet").await,
            objects.remove_below("app/t").await,
        ];
        for refused in refused {
            assert!(matches!(&refused, Err(StorageError::Fenced { owner, .. }) if owner == "someone"), "{refused:?}");
        }
        assert_eq!(read(&objects, "app/t/shared/manifest.json").await.unwrap(), "{}");
    }

    #[test]
    fn wrong_urls_say_what_is_possible() {
        let dir = tempfile::tempdir().unwrap();
        for url in ["ftp://x", "no url", "s3://", "s3:///prefix", "s3:bucket", "file://host/folder"] {
            let error = Objects::open(Some(url), &S3Access::default(), dir.path(), &clock()).unwrap_err().to_string();
            assert!(error.contains(url) && error.contains("s3://bucket/prefix"), "{error}");
            assert!(error.contains(&refusal(url).unwrap()), "{error}");
        }
        for url in ["file:///folder", "s3://bucket", "s3://bucket/prefix"] {
            assert_eq!(refusal(url), None, "{url}");
        }
    }
}
