//! RUN JOB, CANCEL JOB and `system.jobs`.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::execute::Rows as ResultRows;
use crate::identity::Role;
use crate::jobs::JobSpec;
use crate::row_builder::{NUMBER, Rows, TEXT, TIME, schema};
use crate::session::Session;
use crate::tables::Tables;

/// The columns of RUN JOB.
pub(crate) fn started_schema() -> SchemaRef {
    schema(&[("job_id", TEXT, false)])
}

/// RUN JOB: queues it, and gives its number.
pub(crate) fn run_job(engine: &Engine, session: &Session, job_type: &str, params: &str) -> Result<ResultRows> {
    crate::ddl::require(engine, session, Role::Admin, "RUN JOB")?;
    let spec = JobSpec::parse(job_type, params)?;
    let id = engine.jobs.ask(spec, Some(session.principal().name()))?;
    let mut rows = Rows::new(started_schema());
    rows.text(0, Some(&id.to_string()));
    let batch = rows.finish()?;
    Ok(Box::pin(RecordBatchStreamAdapter::new(batch.schema(), futures::stream::iter([Ok(batch)]))))
}

/// CANCEL JOB.
pub(crate) fn cancel_job(engine: &Engine, session: &Session, id: &str) -> Result<()> {
    crate::ddl::require(engine, session, Role::Admin, "CANCEL JOB")?;
    let number = id.parse().map_err(|_| EngineError::not_found(format!("unknown job '{id}': see system.jobs")))?;
    engine.jobs.cancel(number)
}

pub(crate) fn jobs_schema() -> SchemaRef {
    schema(&[
        ("job_id", TEXT, false),
        ("job_type", TEXT, false),
        ("params", TEXT, false),
        ("state", TEXT, false),
        ("attempts", NUMBER, false),
        ("progress", NUMBER, true),
        ("rows", NUMBER, true),
        ("bytes", NUMBER, true),
        ("files", NUMBER, true),
        ("message", TEXT, true),
        ("asked_by", TEXT, true),
        ("created_at", TIME, false),
        ("started_at", TIME, true),
        ("finished_at", TIME, true),
        ("node_id", TEXT, false),
    ])
}

/// All jobs that have not ended and the last that have, to an admin. `progress` is in percent.
pub(crate) fn jobs(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(jobs_schema());
    if tables.principal.role() < Role::Admin {
        return rows.finish();
    }
    for (job, progress) in tables.jobs.list() {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as i64;
        rows.text(0, Some(&job.id.to_string()));
        rows.text(1, Some(job.spec.name()));
        rows.text(2, Some(&job.spec.params()));
        rows.text(3, Some(job.state.name()));
        rows.number(4, i64::from(job.attempts));
        rows.number(5, progress.as_ref().map(|now| now.percent() as i64));
        rows.number(6, progress.as_ref().map(|now| of(&now.rows)));
        rows.number(7, progress.as_ref().map(|now| of(&now.bytes)));
        rows.number(8, progress.as_ref().map(|now| of(&now.files)));
        rows.text(9, job.message.as_deref());
        rows.text(10, job.asked_by.as_deref());
        rows.time(11, Some(job.created_ns));
        rows.time(12, job.started_ns);
        rows.time(13, job.finished_ns);
        rows.text(14, Some(job.node.as_deref().unwrap_or_else(|| tables.jobs.node())));
    }
    rows.finish()
}
