//! Tests by what they promise. One binary, because each would link all of DataFusion.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use seracdb_engine::{Engine, EngineError, ErrorKind};

mod concurrency;
mod durability;
mod flight_client;
mod hidden_values;
mod jobs_interrupted;
mod parameters;
mod pruning;
mod scenarios;
mod slt;
mod tidy;
mod tls;
mod transactions;
mod versions;

/// Opens a data directory again that was closed in this process. It is free when the last holder is gone, and a task of a
/// query that has ended may be that for a moment; after some seconds it is a failure.
async fn open_when_free<F>(open: impl Fn() -> F) -> Arc<Engine>
where
    F: Future<Output = Result<Arc<Engine>, EngineError>>,
{
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match open().await {
            Err(error) if error.kind == ErrorKind::Unavailable && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

/// Runs a test that plans within this process, on threads with the stack that [`seracdb_engine::STACK_BYTES`] says is needed.
fn on_query_threads(test: impl Future<Output = ()> + Send + 'static) {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.thread_stack_size(seracdb_engine::STACK_BYTES).enable_all().build().unwrap();
    let run = runtime.spawn(test);
    runtime.block_on(run).unwrap();
}
