//! The way of a result to its client: straight, or by the disk (`spool.rs`) once the client has let it wait for too long.
//!
//! Where a user's share of the disk is used up, its clients have to read: one that takes nothing for as long as it would
//! have had before the disk is told so, after the rows that it has coming.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::FlightData;
use seracdb_engine::{EngineError, ErrorKind};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use super::spool::{Room, Spool, SpoolUser, Spooled};
use super::status;

/// Why a message was not taken.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The client is gone.
    Gone,
    /// The client does not read, and its user has no more room on disk.
    ShareUsed(Status),
}

/// The way of a result to its client.
pub(crate) struct Outbox {
    client: mpsc::Sender<Result<FlightData, Status>>,
    spool: Arc<Spool>,
    /// Whose client it is.
    user: SpoolUser,
    /// How much longer the client may let it wait.
    patience: Duration,
    spooled: Option<Spooled>,
}

impl Outbox {
    pub(crate) fn new(client: mpsc::Sender<Result<FlightData, Status>>, spool: Arc<Spool>, user: SpoolUser) -> Self {
        let patience = spool.limits.after;
        Self { client, spool, user, patience, spooled: None }
    }

    /// Takes a message: sends it, or puts it behind those that wait on disk. Waits when neither is possible.
    pub(crate) async fn push(&mut self, message: FlightData) -> Result<(), Unsent> {
        if self.spooled.as_ref().is_some_and(Spooled::is_empty) {
            // The client has caught up.
            self.spooled = None;
        }
        if self.spooled.is_none() {
            let started = Instant::now();
            match timeout(self.patience, self.client.reserve()).await {
                Ok(place) => {
                    place.map_err(|_| Unsent::Gone)?.send(Ok(message));
                    self.patience = self.patience.saturating_sub(started.elapsed());
                    return Ok(());
                }
                Err(_) => self.patience = Duration::ZERO,
            }
            self.spooled = Spooled::begin(&self.spool, &self.user, self.client.clone()).await;
        }
        let room = match &mut self.spooled {
            Some(spooled) => spooled.append(&message).await,
            None => Room::None,
        };
        match room {
            Room::Given => Ok(()),
            // As it would be without a disk.
            Room::None => {
                self.finish().await?;
                self.client.send(Ok(message)).await.map_err(|_| Unsent::Gone)
            }
            Room::ShareUsed => self.send_while_it_reads(message).await,
        }
    }

    /// Sends all that waits and this message, as long as the client takes something now and then.
    async fn send_while_it_reads(&mut self, message: FlightData) -> Result<(), Unsent> {
        let after = self.spool.limits.after;
        while let Some(spooled) = &mut self.spooled {
            let before = spooled.len();
            match timeout(after, spooled.sent()).await {
                Ok(true) => self.spooled = None,
                Ok(false) => return Err(Unsent::Gone),
                Err(_) if spooled.len() < before => {}
                Err(_) => return Err(self.share_used()),
            }
        }
        match timeout(after, self.client.reserve()).await {
            Ok(place) => {
                place.map_err(|_| Unsent::Gone)?.send(Ok(message));
                Ok(())
            }
            Err(_) => Err(self.share_used()),
        }
    }

    fn share_used(&self) -> Unsent {
        let (user, limit) = (self.user.name(), self.spool.limits.user_bytes_max >> 20);
        Unsent::ShareUsed(status::from_engine(EngineError::new(
            ErrorKind::ResourceExhausted,
            format!(
                "the result was not read, and {limit} MiB of results of user '{user}' wait on disk already: read results \
                 to their end or cancel them, ask for less at a time, or raise flight.spool_user_bytes_max"
            ),
        )))
    }

    /// Waits until everything is sent.
    pub(crate) async fn finish(&mut self) -> Result<(), Unsent> {
        let Some(spooled) = &mut self.spooled else { return Ok(()) };
        let is_sent = spooled.sent().await;
        self.spooled = None;
        if is_sent { Ok(()) } else { Err(Unsent::Gone) }
    }

    /// Sends an error as the last item. What still waits on disk is given up.
    pub(crate) async fn fail(mut self, status: Status) {
        if let Some(spooled) = self.spooled.take() {
            spooled.stop().await;
        }
        // The receiver is gone when the client is: then nobody wants the error.
        let _ = self.client.send(Err(status)).await;
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::spool::SpoolLimits;
    use super::*;

    type Receiver = mpsc::Receiver<Result<FlightData, Status>>;

    fn message(number: usize) -> FlightData {
        FlightData { data_body: vec![number as u8; 1000].into(), ..FlightData::default() }
    }

    fn outbox(bytes_max: u64, user_bytes_max: u64) -> (Outbox, Receiver, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let limits = SpoolLimits { after: Duration::from_millis(50), bytes_max, user_bytes_max };
        let (outbox, receiver) = of_user(&Spool::new(dir.path().to_owned(), limits), 7);
        (outbox, receiver, dir)
    }

    fn of_user(spool: &Arc<Spool>, number: u64) -> (Outbox, Receiver) {
        let (client, receiver) = mpsc::channel(2);
        (Outbox::new(client, Arc::clone(spool), SpoolUser::new(number, &format!("user{number}"))), receiver)
    }

    async fn push_all(outbox: &mut Outbox, numbers: std::ops::Range<usize>) {
        for number in numbers {
            outbox.push(message(number)).await.unwrap();
        }
    }

    async fn expect_all(receiver: &mut Receiver, numbers: std::ops::Range<usize>) {
        for number in numbers {
            assert_eq!(receiver.recv().await.unwrap().unwrap(), message(number));
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_keeps_nothing_waiting_but_the_disk() {
        let (mut outbox, mut receiver, dir) = outbox(u64::MAX, u64::MAX);
        push_all(&mut outbox, 0..100).await;
        // Without a name.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(outbox.spool.bytes() > 90_000);
        let spool = Arc::clone(&outbox.spool);
        let finished = tokio::spawn(async move { outbox.finish().await });
        expect_all(&mut receiver, 0..100).await;
        finished.await.unwrap().unwrap();
        assert_eq!(spool.bytes(), 0);
        assert!(receiver.recv().await.is_none());
    }

    #[tokio::test]
    async fn one_that_catches_up_is_sent_to_directly() {
        let (mut outbox, mut receiver, _dir) = outbox(u64::MAX, u64::MAX);
        push_all(&mut outbox, 0..10).await;
        expect_all(&mut receiver, 0..10).await;
        while !outbox.spooled.as_ref().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        outbox.push(message(10)).await.unwrap();
        assert!(outbox.spooled.is_none());
        assert_eq!(outbox.spool.bytes(), 0);
        expect_all(&mut receiver, 10..11).await;
    }

    #[tokio::test]
    async fn a_full_disk_is_waited_for() {
        let (mut outbox, mut receiver, _dir) = outbox(5000, u64::MAX);
        let pushing = tokio::spawn(async move {
            push_all(&mut outbox, 0..50).await;
            outbox.finish().await.unwrap();
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!pushing.is_finished());
        expect_all(&mut receiver, 0..50).await;
        pushing.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_it() {
        let (mut outbox, receiver, _dir) = outbox(u64::MAX, u64::MAX);
        push_all(&mut outbox, 0..10).await;
        drop(receiver);
        assert!(outbox.finish().await.is_err());
        assert_eq!(outbox.spool.bytes(), 0);
    }

    #[tokio::test]
    async fn a_user_over_its_share_is_told_and_others_go_on() {
        let (mut greedy, mut receiver, _dir) = outbox(50_000, 5000);
        let mut pushed = 0;
        let status = loop {
            match greedy.push(message(pushed)).await {
                Ok(()) => pushed += 1,
                Err(Unsent::ShareUsed(status)) => break status,
                Err(Unsent::Gone) => panic!("it is there"),
            }
        };
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(status.message().contains("user 'user7'") && status.message().contains("flight.spool_user_bytes_max"));
        assert!((4..=6).contains(&(pushed - 2)), "{pushed}");
        let (mut other, _unread) = of_user(&greedy.spool, 8);
        push_all(&mut other, 0..6).await;
        assert!(other.spooled.is_some());
        // What was pushed is still sent, and the error comes after it.
        let told = tokio::spawn(async move {
            greedy.finish().await.unwrap();
            greedy.fail(status).await;
        });
        expect_all(&mut receiver, 0..pushed).await;
        assert_eq!(receiver.recv().await.unwrap().unwrap_err().code(), Code::ResourceExhausted);
        assert!(receiver.recv().await.is_none());
        told.await.unwrap();
    }

    #[tokio::test]
    async fn a_slow_client_over_its_share_gets_all_that_it_reads() {
        let (mut outbox, mut receiver, _dir) = outbox(50_000, 5000);
        let pushing = tokio::spawn(async move {
            push_all(&mut outbox, 0..30).await;
            outbox.finish().await.unwrap();
        });
        for number in 0..30 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            expect_all(&mut receiver, number..number + 1).await;
        }
        pushing.await.unwrap();
    }

    #[tokio::test]
    async fn after_a_failure_nothing_comes() {
        let (mut outbox, mut receiver, _dir) = outbox(u64::MAX, u64::MAX);
        push_all(&mut outbox, 0..50).await;
        let failing = tokio::spawn(outbox.fail(Status::cancelled("enough")));
        let mut last = None;
        while let Some(item) = receiver.recv().await {
            assert!(last.is_none_or(|is_error: bool| !is_error), "something after the error");
            last = Some(item.is_err());
        }
        assert_eq!(last, Some(true));
        failing.await.unwrap();
    }
}
