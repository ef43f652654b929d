//! Carries the span of a call, or of a job, to where its work goes on: what is logged there has its name, too.

use tracing::Span;

/// Work for another thread, within the span that there is here.
pub fn in_this_span<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(work)
}
