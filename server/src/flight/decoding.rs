//! Memory for messages of clients while they are read, of all calls together: compressed, a small message becomes a large
//! one.
//!
//! Invariant: nobody holds a part of it while waiting for a client, or a slow one would stop all others. Whoever reads waits
//! for its part, and gives it back before it asks its client for more.

use std::sync::Arc;

use arrow_flight::error::FlightError;
use seracdb_engine::{EngineError, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Messages that become no larger than this are read at once.
const FREE_BYTES: u64 = 1 << 20;

/// What is counted.
const UNIT_BYTES: u64 = 1 << 10;

/// The memory for reading messages.
#[derive(Debug, Clone)]
pub(crate) struct Decoding {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// A message's part of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Part {
    _units: Option<OwnedSemaphorePermit>,
}

impl Decoding {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let units_max = u32::try_from(bytes_max / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        let count = usize::try_from(units_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(count)), units_max }
    }

    /// Waits for the memory of a message. One that needs more than there is gets all of it, and is read alone.
    pub(crate) async fn part(&self, bytes: u64) -> Result<Part, FlightError> {
        if bytes <= FREE_BYTES {
            return Ok(Part { _units: None });
        }
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(self.units_max);
        let units = Arc::clone(&self.units).acquire_many_owned(units).await;
        let stopped = |_| {
            FlightError::ExternalError(Box::new(EngineError::new(ErrorKind::Unavailable, "the server is stopping")))
        };
        Ok(Part { _units: Some(units.map_err(stopped)?) })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn large_messages_wait_for_each_other_and_small_ones_for_none() {
        let decoding = Decoding::new(100 << 20);
        let now = |bytes: u64| decoding.part(bytes).now_or_never().map(Result::unwrap);
        let (first, second) = (now(60 << 20).unwrap(), now(40 << 20).unwrap());
        assert!(now(2 << 20).is_none());
        assert!(now(1 << 20).is_some());
        drop(second);
        assert!(now(41 << 20).is_none());
        assert!(now(40 << 20).is_some());
        // More than there is: alone.
        assert!(now(1 << 40).is_none());
        drop(first);
        assert!(now(1 << 40).is_some());
    }
}
