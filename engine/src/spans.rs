//! Carries the span of a call, or of a job, to the tasks that DataFusion starts for it.

use std::any::Any;

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::FutureExt;
use futures::future::BoxFuture;
use seracdb_storage::spans::in_this_span;
use tracing::Instrument;

/// From now on the tasks that DataFusion starts run within the span of who starts them.
pub(crate) fn carry_to_tasks() {
    // It is for the whole process: another engine may have done so.
    let _ = set_join_set_tracer(&Spans);
}

struct Spans;

type Erased = Box<dyn Any + Send>;

impl JoinSetTracer for Spans {
    fn trace_future(&self, future: BoxFuture<'static, Erased>) -> BoxFuture<'static, Erased> {
        future.in_current_span().boxed()
    }

    fn trace_block(&self, work: Box<dyn FnOnce() -> Erased + Send>) -> Box<dyn FnOnce() -> Erased + Send> {
        Box::new(in_this_span(work))
    }
}
