//! Keeps the lease on the object store: a thread of its own, so that no query keeps it from renewing in time.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{Result, StorageError};
use crate::lease::{Ceilings, Lease};
use crate::ownership::{Ownership, Renewal};
use crate::system_columns::IdSequence;

/// Renewals in the time of a lease.
const RENEWALS: u32 = 3;
/// Further tries, when one has failed, in the time of a lease.
const RETRIES: u32 = 15;

/// The thread that renews. It ends with this, without giving the store back.
#[derive(Debug)]
pub(crate) struct Renewing {
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Renewing {
    /// Starts it. `ended` is called once when the lease is lost.
    pub(crate) fn start(
        ownership: Ownership,
        lease: Arc<Lease>,
        ids: Arc<IdSequence>,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StorageError::io("starting the runtime that renews the lease"))?;
        let (stop, stopped) = oneshot::channel();
        let keeping = Keeping { ownership, lease, ids };
        let thread = std::thread::Builder::new()
            .name("lease".into())
            .spawn(move || {
                if !runtime.block_on(keeping.until(stopped)) {
                    ended();
                }
            })
            .map_err(StorageError::io("starting the thread that renews the lease"))?;
        Ok(Self { stop: Mutex::new(Some(stop)), thread: Mutex::new(Some(thread)) })
    }

    /// Gives the object store back, once nothing is committed any more.
    pub(crate) async fn release(&self) {
        if let Some(stop) = self.stop.lock().take() {
            let _ = stop.send(());
        }
        let Some(thread) = self.thread.lock().take() else { return };
        if let Ok(Err(_)) = tokio::task::spawn_blocking(move || thread.join()).await {
            tracing::error!("the thread that renews the lease ended with a panic");
        }
    }
}

struct Keeping {
    ownership: Ownership,
    lease: Arc<Lease>,
    ids: Arc<IdSequence>,
}

impl Keeping {
    /// Renews until it is told to stop, or the lease is lost: then false.
    async fn until(mut self, mut stopped: oneshot::Receiver<()>) -> bool {
        let clock = Arc::clone(self.lease.clock());
        let length = self.ownership.lease();
        let mut pause = length / RENEWALS;
        loop {
            tokio::select! {
                told = &mut stopped => {
                    // Dropped, it ends as a crash would: whoever opens the directory next goes on.
                    if told.is_ok() {
                        self.release().await;
                    }
                    return true;
                }
                () = clock.sleep(pause) => {}
                () = self.lease.wanted() => {}
            }
            let used = self.used();
            // A try may not outlast the next one: an answer that comes late is found by reading back.
            let renewed = tokio::time::timeout(length / RENEWALS, self.ownership.renew(used)).await;
            pause = match renewed {
                Ok(Ok(Renewal::Until(until, ceilings))) => {
                    self.lease.renewed(until, ceilings);
                    length / RENEWALS
                }
                Ok(Ok(Renewal::Lost(owner))) => {
                    tracing::error!(owner, "the object store has another owner now");
                    self.lease.fenced(owner);
                    return false;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, cause = ?error, "the lease on the object store could not be renewed");
                    length / RETRIES
                }
                Err(_) => {
                    tracing::warn!("the object store does not answer: the lease on it could not be renewed");
                    Duration::ZERO
                }
            };
            if self.lease.check().is_err() {
                return false;
            }
        }
    }

    async fn release(&mut self) {
        // First here: a successor may go on at once.
        self.lease.end();
        let used = self.used();
        let patience = self.ownership.lease() / RENEWALS;
        match tokio::time::timeout(patience, self.ownership.release(used)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the object store was not given back: a successor waits a lease"),
            Err(_) => tracing::warn!("the object store was not given back: a successor waits a lease"),
        }
    }

    fn used(&self) -> Ceilings {
        Ceilings { updated: self.lease.last_updated(), id_tick: self.ids.high_water() }
    }
}
