//! The Bloom filters of batch files, read from their sidecars and kept in memory up to a limit.
//!
//! A sidecar that is missing or damaged means that its file may hold anything.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use seracdb_storage::bloom::{FileFilters, SidecarRef};
use seracdb_storage::objects::object_path;

/// Sidecars that are read at the same time.
const CONCURRENT_READS: usize = 16;

/// Bloom filters by file; `None` for a sidecar that cannot be used.
pub(crate) struct Sidecars {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_path: HashMap<String, Entry>,
    bytes: usize,
    /// Rises with every use.
    tick: u64,
}

struct Entry {
    checksum: u32,
    filters: Option<Arc<FileFilters>>,
    bytes: usize,
    used: u64,
}

impl std::fmt::Debug for Sidecars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sidecars").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Sidecars {
    /// Keeps at most about this many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    /// The filters of these files, in their order.
    pub(super) async fn read(
        &self,
        store: &Arc<dyn ObjectStore>,
        named: &[Option<SidecarRef>],
    ) -> Vec<Option<Arc<FileFilters>>> {
        let mut found = vec![None; named.len()];
        let mut missing = Vec::new();
        for (place, named) in named.iter().enumerate() {
            let Some(named) = named else { continue };
            match self.kept.lock().get(named) {
                Some(filters) => found[place] = filters,
                None => missing.push((place, named.clone())),
            }
        }
        let reads = missing.into_iter().map(|(place, named)| {
            let store = Arc::clone(store);
            async move { (place, fetch(&store, &named).await, named) }
        });
        let read: Vec<_> = stream::iter(reads).buffer_unordered(CONCURRENT_READS).collect().await;
        for (place, fetched, named) in read {
            found[place] = match fetched {
                Fetched::Filters(filters) => {
                    let filters = Arc::new(filters);
                    self.kept.lock().insert(named, Some(Arc::clone(&filters)), self.bytes_max);
                    Some(filters)
                }
                Fetched::Unusable => {
                    self.kept.lock().insert(named, None, self.bytes_max);
                    None
                }
                Fetched::Failed => None,
            };
        }
        found
    }
}

enum Fetched {
    Filters(FileFilters),
    /// Missing or damaged, for good.
    Unusable,
    /// Perhaps another time.
    Failed,
}

async fn fetch(store: &Arc<dyn ObjectStore>, named: &SidecarRef) -> Fetched {
    let path = match object_path(&named.file_path) {
        Ok(path) => path,
        Err(error) => {
            tracing::warn!(%error, "a file is scanned without its Bloom filters");
            return Fetched::Unusable;
        }
    };
    let read = match store.get(&path).await {
        Ok(object) => object.bytes().await,
        Err(error) => Err(error),
    };
    let (unusable, error) = match read {
        Ok(bytes) => match FileFilters::decode(&bytes, named) {
            Ok(filters) => return Fetched::Filters(filters),
            Err(error) => (true, error.to_string()),
        },
        Err(error @ object_store::Error::NotFound { .. }) => (true, error.to_string()),
        Err(error) => (false, error.to_string()),
    };
    tracing::warn!(%error, file = named.file_path, "a file is scanned without its Bloom filters");
    if unusable { Fetched::Unusable } else { Fetched::Failed }
}

impl Kept {
    fn get(&mut self, named: &SidecarRef) -> Option<Option<Arc<FileFilters>>> {
        self.tick += 1;
        let entry = self.by_path.get_mut(&named.file_path).filter(|entry| entry.checksum == named.checksum)?;
        entry.used = self.tick;
        Some(entry.filters.clone())
    }

    fn insert(&mut self, named: SidecarRef, filters: Option<Arc<FileFilters>>, bytes_max: usize) {
        // What the map takes for an entry, about.
        const ENTRY_BYTES: usize = 200;
        let bytes = ENTRY_BYTES + filters.as_ref().map_or(0, |filters| filters.size_bytes());
        if bytes > bytes_max {
            return;
        }
        let entry = Entry { checksum: named.checksum, filters, bytes, used: self.tick };
        self.bytes += bytes;
        if let Some(old) = self.by_path.insert(named.file_path, entry) {
            self.bytes -= old.bytes;
        }
        if self.bytes > bytes_max {
            self.forget_oldest(bytes_max - bytes_max / 4);
        }
    }

    /// Down to this many bytes, so that not every insert has to look for the oldest.
    fn forget_oldest(&mut self, bytes_max: usize) {
        let mut by_age: Vec<(u64, String)> =
            self.by_path.iter().map(|(path, entry)| (entry.used, path.clone())).collect();
        by_age.sort_unstable();
        for (_, path) in by_age {
            if self.bytes <= bytes_max {
                break;
            }
            self.bytes -= self.by_path.remove(&path).map_or(0, |entry| entry.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use object_store::memory::InMemory;
    use object_store::path::Path;
    use seracdb_storage::bloom::BlockFilter;

    use super::*;

    async fn put(store: &Arc<dyn ObjectStore>, path: &str, values: u64) -> SidecarRef {
        let filter = BlockFilter::of((0..values).map(|v| v << 32 | v).collect(), 0.01);
        let bytes = FileFilters::new(BTreeMap::from([(1, filter)])).encode();
        let checksum = u32::from_le_bytes(*bytes.last_chunk().unwrap());
        let size_bytes = bytes.len() as u64;
        store.put(&Path::from(path), bytes.into()).await.unwrap();
        SidecarRef { file_path: path.into(), size_bytes, checksum }
    }

    #[tokio::test]
    async fn they_are_read_once_and_the_least_used_are_forgotten() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut named = Vec::new();
        for number in 0..20 {
            named.push(Some(put(&store, &format!("{number}.bloom"), 1000).await));
        }
        let sidecars = Sidecars::new(16 << 10);
        let read = sidecars.read(&store, &named).await;
        assert!(read.iter().all(Option::is_some));
        let path = {
            let kept = sidecars.kept.lock();
            assert!(kept.bytes <= 16 << 10 && kept.by_path.len() > 4, "{} in {}", kept.bytes, kept.by_path.len());
            assert_eq!(kept.bytes, kept.by_path.values().map(|entry| entry.bytes).sum::<usize>());
            kept.by_path.keys().next().unwrap().clone()
        };
        store.delete(&Path::from(path.as_str())).await.unwrap();
        let still: Vec<_> = named.into_iter().filter(|n| n.as_ref().is_some_and(|n| n.file_path == path)).collect();
        assert!(sidecars.read(&store, &still).await[0].is_some());
    }

    #[tokio::test]
    async fn what_cannot_be_used_means_maybe() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let good = put(&store, "good", 10).await;
        let damaged = SidecarRef { checksum: good.checksum ^ 1, ..good.clone() };
        let missing = SidecarRef { file_path: "missing".into(), ..good.clone() };
        let wrong_path = SidecarRef { file_path: "a//b".into(), ..good.clone() };
        let sidecars = Sidecars::new(1 << 20);
        let read = sidecars.read(&store, &[None, Some(damaged), Some(missing), Some(wrong_path), Some(good)]).await;
        assert_eq!(read.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, false, false, true]);
    }
}
