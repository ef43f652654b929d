//! Results that wait on disk for a slow client, so that nothing else does.
//!
//! A client that lets its result wait for too long would keep a snapshot alive, and with it rows and files that nobody
//! else needs. So the rest of its result is computed and put into a file, and sent from there.
//!
//! Invariants: messages leave in the order in which they came; all files together are at most [`Spool::new`]'s
//! `bytes_max`; a file has no name, so that none outlives the process.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_flight::FlightData;
use parking_lot::Mutex;
use prost::Message;
use seracdb_engine::EngineError;
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::status;

/// Where the files are, and what they may take together.
pub(crate) struct Spool {
    dir: PathBuf,
    after: Duration,
    bytes_max: u64,
    bytes: AtomicU64,
}

impl Spool {
    /// `after`: how long a client may let its result wait, all in all, before it goes to disk.
    pub(crate) fn new(dir: PathBuf, after: Duration, bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { dir, after, bytes_max, bytes: AtomicU64::new(0) })
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= self.bytes_max)
        });
        taken.is_ok()
    }
}

/// The client is gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// The way of a result to its client.
pub(crate) struct Outbox {
    client: mpsc::Sender<Result<FlightData, Status>>,
    spool: Arc<Spool>,
    /// How much longer the client may let it wait.
    patience: Duration,
    spooled: Option<Spooled>,
}

impl Outbox {
    pub(crate) fn new(client: mpsc::Sender<Result<FlightData, Status>>, spool: Arc<Spool>) -> Self {
        let patience = spool.after;
        Self { client, spool, patience, spooled: None }
    }

    /// Takes a message: sends it, or puts it behind those that wait on disk. Waits when neither is possible.
    pub(crate) async fn push(&mut self, message: FlightData) -> Result<(), Gone> {
        if self.spooled.as_ref().is_some_and(|spooled| spooled.queue.is_empty()) {
            // The client has caught up.
            self.spooled = None;
        }
        if self.spooled.is_none() {
            let started = Instant::now();
            match tokio::time::timeout(self.patience, self.client.reserve()).await {
                Ok(place) => {
                    place.map_err(|_| Gone)?.send(Ok(message));
                    self.patience = self.patience.saturating_sub(started.elapsed());
                    return Ok(());
                }
                Err(_) => self.patience = Duration::ZERO,
            }
            self.spooled = Spooled::begin(&self.spool, self.client.clone());
        }
        if self.spooled.as_mut().is_some_and(|spooled| spooled.append(&message)) {
            return Ok(());
        }
        // No room on disk: as it would be without one.
        if let Some(spooled) = self.spooled.take() {
            spooled.sent().await?;
        }
        self.client.send(Ok(message)).await.map_err(|_| Gone)
    }

    /// Waits until everything is sent.
    pub(crate) async fn finish(&mut self) -> Result<(), Gone> {
        match self.spooled.take() {
            Some(spooled) => spooled.sent().await,
            None => Ok(()),
        }
    }
}

/// What waits on disk, and the task that sends it.
struct Spooled {
    spool: Arc<Spool>,
    file: Arc<File>,
    end: u64,
    queue: Arc<Queue>,
    sender: AbortOnDropHandle<()>,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.spool.bytes.fetch_sub(self.end, Ordering::Relaxed);
    }
}

impl Spooled {
    fn begin(spool: &Arc<Spool>, client: mpsc::Sender<Result<FlightData, Status>>) -> Option<Self> {
        let file = tempfile::tempfile_in(&spool.dir).inspect_err(|error| {
            tracing::warn!(dir = %spool.dir.display(), %error, "a slow client's result cannot be put on disk");
        });
        let (file, queue) = (Arc::new(file.ok()?), Arc::new(Queue::default()));
        let sender = tokio::spawn(send(Arc::clone(&file), Arc::clone(&queue), client));
        tracing::debug!("a client reads slowly: its result goes to disk");
        Some(Self { spool: Arc::clone(spool), file, end: 0, queue, sender: AbortOnDropHandle::new(sender) })
    }

    /// False when there is no room for it.
    fn append(&mut self, message: &FlightData) -> bool {
        let bytes = message.encode_to_vec();
        let size = bytes.len() as u64;
        if !self.spool.take(size) {
            return false;
        }
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            tracing::warn!(dir = %self.spool.dir.display(), %error, "a slow client's result cannot be put on disk");
            self.spool.bytes.fetch_sub(size, Ordering::Relaxed);
            return false;
        }
        self.queue.push(Frame { at: self.end, bytes: bytes.len() });
        self.end += size;
        true
    }

    /// Waits until all of it is sent.
    async fn sent(mut self) -> Result<(), Gone> {
        self.queue.close();
        let _ = (&mut self.sender).await;
        if self.queue.is_empty() { Ok(()) } else { Err(Gone) }
    }
}

/// Places in the file that wait to be sent; one that is being sent is still among them.
#[derive(Default)]
struct Queue {
    state: Mutex<(VecDeque<Frame>, bool)>,
    changed: Notify,
}

#[derive(Clone, Copy)]
struct Frame {
    at: u64,
    bytes: usize,
}

impl Queue {
    fn push(&self, frame: Frame) {
        self.state.lock().0.push_back(frame);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.state.lock().1 = true;
        self.changed.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.state.lock().0.is_empty()
    }

    /// The first one; `None` when no more come.
    async fn first(&self) -> Option<Frame> {
        loop {
            {
                let state = self.state.lock();
                match state.0.front() {
                    Some(frame) => return Some(*frame),
                    None if state.1 => return None,
                    None => {}
                }
            }
            self.changed.notified().await;
        }
    }

    fn sent(&self) {
        self.state.lock().0.pop_front();
    }
}

async fn send(file: Arc<File>, queue: Arc<Queue>, client: mpsc::Sender<Result<FlightData, Status>>) {
    while let Some(frame) = queue.first().await {
        // First a place: what waits is to wait on disk.
        let Ok(place) = client.reserve().await else { return };
        let mut bytes = vec![0; frame.bytes];
        let read = file.read_exact_at(&mut bytes, frame.at).map_err(|error| error.to_string());
        let message = read.and_then(|()| FlightData::decode(bytes.as_slice()).map_err(|error| error.to_string()));
        match message {
            Ok(message) => place.send(Ok(message)),
            Err(error) => {
                let error = EngineError::internal(format!("a result cannot be read back from disk: {error}"));
                place.send(Err(status::from_engine(error)));
                return;
            }
        }
        queue.sent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: usize) -> FlightData {
        FlightData { data_body: vec![number as u8; 1000].into(), ..FlightData::default() }
    }

    fn outbox(bytes_max: u64) -> (Outbox, mpsc::Receiver<Result<FlightData, Status>>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (client, receiver) = mpsc::channel(2);
        let spool = Spool::new(dir.path().to_owned(), Duration::from_millis(20), bytes_max);
        (Outbox::new(client, spool), receiver, dir)
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_keeps_nothing_waiting_but_the_disk() {
        let (mut outbox, mut receiver, dir) = outbox(u64::MAX);
        for number in 0..100 {
            outbox.push(message(number)).await.unwrap();
        }
        // Without a name.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outbox.spool.bytes.load(Ordering::Relaxed) > 90_000);
        let spool = Arc::clone(&outbox.spool);
        let finished = tokio::spawn(async move { outbox.finish().await });
        for number in 0..100 {
            assert_eq!(receiver.recv().await.unwrap().unwrap(), message(number));
        }
        finished.await.unwrap().unwrap();
        assert_eq!(spool.bytes.load(Ordering::Relaxed), 0);
        assert!(receiver.recv().await.is_none());
    }

    #[tokio::test]
    async fn one_that_catches_up_is_sent_to_directly() {
        let (mut outbox, mut receiver, _dir) = outbox(u64::MAX);
        let mut expected = 0;
        for number in 0..10 {
            outbox.push(message(number)).await.unwrap();
        }
        while expected < 10 {
            assert_eq!(receiver.recv().await.unwrap().unwrap(), message(expected));
            expected += 1;
        }
        while !outbox.spooled.as_ref().unwrap().queue.is_empty() {
            tokio::task::yield_now().await;
        }
        outbox.push(message(10)).await.unwrap();
        assert!(outbox.spooled.is_none());
        assert_eq!(outbox.spool.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(receiver.recv().await.unwrap().unwrap(), message(10));
    }

    #[tokio::test]
    async fn a_full_disk_is_waited_for() {
        let (mut outbox, mut receiver, _dir) = outbox(5000);
        let pushing = tokio::spawn(async move {
            for number in 0..50 {
                outbox.push(message(number)).await.unwrap();
            }
            outbox.finish().await.unwrap();
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!pushing.is_finished());
        for number in 0..50 {
            assert_eq!(receiver.recv().await.unwrap().unwrap(), message(number));
        }
        pushing.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_it() {
        let (mut outbox, receiver, _dir) = outbox(u64::MAX);
        for number in 0..10 {
            outbox.push(message(number)).await.unwrap();
        }
        drop(receiver);
        assert!(outbox.finish().await.is_err());
        assert_eq!(outbox.spool.bytes.load(Ordering::Relaxed), 0);
    }
}
