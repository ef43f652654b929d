//! Where queries run: a runtime of their own, so that a long computation never delays an RPC.

use std::future::Future;

use seracdb_engine::{EngineError, Result, STACK_BYTES};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// Makes the runtime for queries.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name("query").thread_stack_size(STACK_BYTES).build()
}

/// The way to run something on the query runtime. Dropping what is returned stops the work.
#[derive(Clone)]
pub(crate) struct Queries(Handle);

impl Queries {
    pub(crate) fn new(handle: Handle) -> Self {
        Self(handle)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        AbortOnDropHandle::new(self.0.spawn(future))
    }

    /// Runs to the end. A panic ends this call alone.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.spawn(future).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(bug()),
            Err(_) => Err(EngineError::new(seracdb_engine::ErrorKind::Unavailable, "the server is stopping")),
        }
    }
}

/// What a client reads when its call met a panic; the panic itself is in the log.
pub(crate) fn bug() -> EngineError {
    EngineError::internal("a bug in SeracDB stopped this call; the server goes on. Please report it with the statement")
}

#[cfg(test)]
mod tests {
    use seracdb_engine::ErrorKind;

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
