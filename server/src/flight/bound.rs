//! Rows that clients have bound to statements, and the memory that all of them have together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use tonic::Status;

/// The memory for bound rows, of all statements and calls.
#[derive(Debug, Clone)]
pub(crate) struct BoundMemory {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    of: BoundMemory,
    bytes: usize,
}

/// Bound rows, and the memory that they take.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) rows: RecordBatch,
    _held: Arc<Held>,
}

impl BoundMemory {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { used: Arc::default(), bytes_max }
    }

    /// Nothing of it, to begin with.
    pub(crate) fn hold(&self) -> Held {
        Held { of: self.clone(), bytes: 0 }
    }
}

impl Held {
    /// Takes more. Refused, not waited for, when there is none: it is held while clients take their time.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Status> {
        let (used, max) = (&self.of.used, self.of.bytes_max);
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= max);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| {
            Status::resource_exhausted(format!(
                "the parameters of all statements would be larger than flight.bound_memory_max ({max} bytes): close \
                 statements, bind fewer rows at a time, or use bulk ingest"
            ))
        })?;
        self.bytes += bytes;
        Ok(())
    }

    pub(crate) fn of(self, rows: RecordBatch) -> Bound {
        Bound { rows, _held: Arc::new(self) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
