//! The steps of flush and compaction, for tests that stop, reorder or kill between them.

use futures::future::BoxFuture;

/// What has just been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Later commits go to the next generation.
    Sealed,
    /// The new file is complete in the scratch folder.
    FileWritten,
    /// The new file and the new delete vectors are durable; no record names them.
    FilePlaced,
    /// The records are durable.
    Published,
    /// The manifest is durable; the cache still holds the one before.
    ManifestWritten,
    /// The cache holds the manifest; the hot rows that it covers are still there.
    CacheWritten,
}

/// Decides when a flush or compaction goes on.
pub trait Pace: Send + Sync + std::fmt::Debug {
    /// Comes back when the next step may be made.
    fn reached(&self, step: Step) -> BoxFuture<'_, ()>;
}

/// Goes on at once.
#[derive(Debug, Default)]
pub struct NoWait;

impl Pace for NoWait {
    fn reached(&self, _: Step) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
