//! A bucket in memory that can be told to misbehave.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// A condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Create,
    Update,
    Complete,
}

#[derive(Debug, Default)]
pub(crate) struct FaultyBucket {
    inner: InMemory,
    down: AtomicBool,
    lose_answer: AtomicBool,
    ignored: Mutex<Option<Condition>>,
    /// Gets of such paths wait.
    held: watch::Sender<Option<&'static str>>,
    holds: AtomicBool,
}

impl FaultyBucket {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether it answers nothing but errors, and does nothing.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// The next put is done and answered with an error.
    pub(crate) fn put_without_answer(&self) {
        self.lose_answer.store(true, Ordering::SeqCst);
    }

    /// Does such writes without their condition.
    pub(crate) fn ignore(&self, condition: Condition) {
        *self.ignored.lock() = Some(condition);
    }

    /// Lets gets of paths that hold this wait; `None`: no longer.
    pub(crate) fn hold_gets(&self, of: Option<&'static str>) {
        self.held.send_replace(of);
    }

    /// Whether a get is waiting, or has.
    pub(crate) fn holds_a_get(&self) -> bool {
        self.holds.load(Ordering::SeqCst)
    }

    fn up(&self) -> Result<()> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(unanswered()),
            false => Ok(()),
        }
    }

    fn ignores(&self, condition: Condition) -> bool {
        *self.ignored.lock() == Some(condition)
    }
}

fn unanswered() -> Error {
    Error::Generic { store: "faulty", source: "no answer".into() }
}

impl fmt::Display for FaultyBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyBucket")
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyBucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        self.up()?;
        let ignored = match options.mode {
            PutMode::Create => self.ignores(Condition::Create),
            PutMode::Update(_) => self.ignores(Condition::Update),
            PutMode::Overwrite => false,
        };
        if ignored {
            options.mode = PutMode::Overwrite;
        }
        let put = self.inner.put_opts(location, payload, options).await?;
        match self.lose_answer.swap(false, Ordering::SeqCst) {
            true => Err(unanswered()),
            false => Ok(put),
        }
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.up()?;
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.up()?;
        let is_held = |of: &Option<&str>| of.is_some_and(|of| location.as_ref().contains(of));
        let mut held = self.held.subscribe();
        if is_held(&held.borrow()) {
            self.holds.store(true, Ordering::SeqCst);
        }
        // The sender is this bucket.
        let _ = held.wait_for(|of| !is_held(of)).await;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.up()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, mut options: CopyOptions) -> Result<()> {
        self.up()?;
        if self.ignores(Condition::Complete) {
            options = options.with_mode(CopyMode::Overwrite);
        }
        self.inner.copy_opts(from, to, options).await
    }
}
