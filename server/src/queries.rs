//! Where queries run: a runtime of their own, so that a long computation never delays an RPC.
//!
//! A plan gives its thread back often, but not everything that computes for long does: there are more threads than
//! cores, so that some are left for short statements. What runs can be told to stop in two ways: its task is dropped,
//! which takes effect where it yields, and its token fires, which joins look at while they compute.

use std::future::Future;

use seracdb_engine::{EngineError, ErrorKind, Result, STACK_BYTES};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Threads per core.
const THREADS_PER_CORE: usize = 2;

/// Makes the runtime for queries.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    let threads = THREADS_PER_CORE * std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().thread_name("query").thread_stack_size(STACK_BYTES).build()
}

/// The way to run something on the query runtime, as a part of the call that is handled now. Dropping what is returned stops
/// the work, but for [`Queries::finish`].
#[derive(Clone)]
pub(crate) struct Queries {
    runtime: Handle,
    stopping: CancellationToken,
}

impl Queries {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, stopping: CancellationToken::new() }
    }

    /// A token that fires when all that runs is to stop.
    pub(crate) fn token(&self) -> CancellationToken {
        self.stopping.child_token()
    }

    /// Stops all that runs.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.runtime.spawn(future.in_current_span()))
    }

    /// Runs to the end, also when nobody waits for that any more. A panic ends this call alone.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        match self.runtime.spawn(future.in_current_span()).await {
            Ok(result) => Ok(result),
            Err(error) if error.is_panic() => Err(EngineError::panicked()),
            Err(_) => Err(stopping()),
        }
    }

    /// Runs to the end, unless what is returned is dropped. A panic ends this call alone.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.spawn(future).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(EngineError::panicked()),
            Err(_) => Err(stopping()),
        }
    }
}

/// What a client reads when its call was cut off by the end of the server.
pub(crate) fn stopping() -> EngineError {
    EngineError::new(ErrorKind::Unavailable, "the server is stopping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_call() {
        let runtime = runtime().unwrap();
        let queries = Queries::new(runtime.handle().clone());
        let failed = runtime.block_on(queries.run::<()>(async { panic!("a planted one") }));
        assert_eq!(failed.unwrap_err().kind, ErrorKind::Internal);
        assert_eq!(runtime.block_on(queries.run(async { Ok(1) })).unwrap(), 1);
    }
}
