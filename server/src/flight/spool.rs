//! Results that wait on disk for a slow client, so that nothing else does.
//!
//! Invariants: messages leave in the order in which they came; all files together are at most [`SpoolLimits::bytes_max`], and
//! those of one user at most `user_bytes_max`; a file has no name, so that none outlives the process; whoever computes
//! never waits in a call of the system: files are read and written on threads for what blocks.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::FlightData;
use parking_lot::Mutex;
use prost::Message;
use seracdb_engine::{EngineError, in_this_span};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::status;

/// Where results wait, and how much of it there is.
#[derive(Debug, Clone)]
pub(crate) struct SpoolLimits {
    /// How long a client may let its result wait, all in all, before it goes to disk.
    pub(crate) after: Duration,
    /// Bytes of all results on disk.
    pub(crate) bytes_max: u64,
    /// Bytes of those of one user.
    pub(crate) user_bytes_max: u64,
}

/// Whose results wait.
#[derive(Debug, Clone)]
pub(crate) struct SpoolUser {
    number: u64,
    name: String,
}

impl SpoolUser {
    pub(crate) fn new(number: u64, name: &str) -> Self {
        Self { number, name: name.to_owned() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Where the files are, and who has how much of it.
pub(crate) struct Spool {
    dir: PathBuf,
    pub(crate) limits: SpoolLimits,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: u64,
    /// Of the users that have something.
    users: HashMap<u64, u64>,
}

/// What came of asking for room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    Given,
    /// There is none, for anybody or for a reason of the system.
    None,
    /// The user has its share already.
    ShareUsed,
}

impl Spool {
    pub(crate) fn new(dir: PathBuf, limits: SpoolLimits) -> Arc<Self> {
        Arc::new(Self { dir, limits, taken: Mutex::default() })
    }

    fn take(&self, user: u64, bytes: u64) -> Room {
        let mut taken = self.taken.lock();
        let used = taken.users.get(&user).copied().unwrap_or_default();
        if used.saturating_add(bytes) > self.limits.user_bytes_max {
            return Room::ShareUsed;
        }
        if taken.all.saturating_add(bytes) > self.limits.bytes_max {
            return Room::None;
        }
        taken.all += bytes;
        taken.users.insert(user, used + bytes);
        Room::Given
    }

    fn give_back(&self, user: u64, bytes: u64) {
        let mut taken = self.taken.lock();
        taken.all -= bytes;
        if let Entry::Occupied(mut used) = taken.users.entry(user) {
            *used.get_mut() -= bytes;
            if *used.get() == 0 {
                used.remove();
            }
        }
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.taken.lock().all
    }
}

/// What waits on disk, and the task that sends it.
pub(super) struct Spooled {
    spool: Arc<Spool>,
    user: u64,
    file: Arc<File>,
    end: u64,
    queue: Arc<Queue>,
    sender: AbortOnDropHandle<()>,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.spool.give_back(self.user, self.end);
    }
}

impl Spooled {
    /// `None` when there can be no file.
    pub(super) async fn begin(
        spool: &Arc<Spool>,
        user: &SpoolUser,
        client: mpsc::Sender<Result<FlightData, Status>>,
    ) -> Option<Self> {
        let dir = spool.dir.clone();
        let file = blocking(move || tempfile::tempfile_in(dir)).await.inspect_err(|error| not_on_disk(spool, error));
        let (file, queue) = (Arc::new(file.ok()?), Arc::new(Queue::default()));
        let sender = tokio::spawn(send(Arc::clone(&file), Arc::clone(&queue), client));
        tracing::debug!("a client reads slowly: its result goes to disk");
        let (spool, user) = (Arc::clone(spool), user.number);
        Some(Self { spool, user, file, end: 0, queue, sender: AbortOnDropHandle::new(sender) })
    }

    /// Puts a message behind the others, unless there is no room. Waits for the disk.
    pub(super) async fn append(&mut self, message: &FlightData) -> Room {
        let bytes = message.encode_to_vec();
        let (at, size) = (self.end, bytes.len());
        let room = self.spool.take(self.user, size as u64);
        if room != Room::Given {
            return room;
        }
        // Counted from here on, also when nobody waits for the disk any more.
        self.end += size as u64;
        let file = Arc::clone(&self.file);
        match blocking(move || file.write_all_at(&bytes, at)).await {
            Ok(()) => {
                self.queue.push(Frame { at, bytes: size });
                Room::Given
            }
            Err(error) => {
                not_on_disk(&self.spool, &error);
                self.end = at;
                self.spool.give_back(self.user, size as u64);
                Room::None
            }
        }
    }

    /// Whether the client has got all of it.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.len() == 0
    }

    /// Messages that the client has not got.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Waits until all of it is sent; false when it cannot be. May be asked again when who waits gave up before.
    pub(super) async fn sent(&mut self) -> bool {
        self.queue.close();
        let _ = (&mut self.sender).await;
        self.is_empty()
    }

    /// Sends nothing more.
    pub(super) async fn stop(mut self) {
        self.sender.abort();
        // Until then it may still be sending.
        let _ = (&mut self.sender).await;
    }
}

fn not_on_disk(spool: &Spool, error: &std::io::Error) {
    tracing::warn!(dir = %spool.dir.display(), %error, "a slow client's result cannot be put on disk");
}

/// Runs what waits for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    let done = tokio::task::spawn_blocking(in_this_span(work)).await;
    done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
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

    fn len(&self) -> usize {
        self.state.lock().0.len()
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
        match read(Arc::clone(&file), frame).await {
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

async fn read(file: Arc<File>, frame: Frame) -> std::io::Result<FlightData> {
    let bytes = blocking(move || {
        let mut bytes = vec![0; frame.bytes];
        file.read_exact_at(&mut bytes, frame.at).map(|()| bytes)
    });
    FlightData::decode(bytes.await?.as_slice()).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_a_share_and_leaves_the_rest() {
        let limits = SpoolLimits { after: Duration::ZERO, bytes_max: 100, user_bytes_max: 60 };
        let spool = Spool::new(PathBuf::new(), limits);
        assert_eq!(spool.take(1, 60), Room::Given);
        assert_eq!(spool.take(1, 1), Room::ShareUsed);
        assert_eq!(spool.take(2, 40), Room::Given);
        assert_eq!(spool.take(2, 1), Room::None);
        assert_eq!(spool.take(2, 21), Room::ShareUsed);
        spool.give_back(1, 60);
        assert_eq!(spool.take(2, 20), Room::Given);
        spool.give_back(2, 60);
        assert!(spool.bytes() == 0 && spool.taken.lock().users.is_empty());
    }
}
