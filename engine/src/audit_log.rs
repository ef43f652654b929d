//! `system.audit_log`: the audit log as a table, read from the start, for admins.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;
use seracdb_storage::audit::AuditEntry;
use seracdb_storage::snapshot::Snapshot;

use crate::error::Result;
use crate::identity::Role;
use crate::rights::denied;
use crate::row_builder::{NUMBER, Rows, TEXT, TIME};
use crate::scan::external;
use crate::tables::Tables;

/// The table's name.
pub(crate) const AUDIT_LOG: &str = "audit_log";

/// Entries of one batch.
const BATCH_ROWS: usize = 4096;

/// Its columns.
pub(crate) fn schema() -> SchemaRef {
    crate::row_builder::schema(&[
        ("audit_id", NUMBER, false),
        ("at", TIME, false),
        ("actor_user_id", TEXT, false),
        ("actor_role", TEXT, true),
        ("subject_user_id", TEXT, true),
        ("subject_role", TEXT, true),
        ("origin", TEXT, false),
        ("action", TEXT, false),
        ("target", TEXT, true),
        ("rows", NUMBER, true),
        ("outcome", TEXT, false),
        ("session_id", TEXT, true),
        ("peer", TEXT, true),
        ("statement_fingerprint", TEXT, true),
    ])
}

/// Refuses it to everybody but admins.
pub(crate) fn require_admin(tables: &Tables) -> Result<()> {
    match tables.principal.role() >= Role::Admin {
        true => Ok(()),
        false => Err(denied("system.audit_log requires the role admin or a higher one")),
    }
}

/// Its rows as of a statement's snapshot.
pub(crate) fn table(tables: &Tables) -> DfResult<StreamingTable> {
    let entries = Entries { snapshot: Arc::clone(&tables.snapshot), schema: schema() };
    StreamingTable::try_new(schema(), vec![Arc::new(entries)])
}

#[derive(Debug)]
struct Entries {
    snapshot: Arc<Snapshot>,
    schema: SchemaRef,
}

impl PartitionStream for Entries {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let snapshot = Arc::clone(&self.snapshot);
        let batches = stream::try_unfold(0, move |from| {
            let read = batch(&snapshot, from).map_err(external);
            async move { read }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// The entries from a number on, and the number to go on from; `None` when there are no more.
fn batch(snapshot: &Snapshot, from: u64) -> Result<Option<(RecordBatch, u64)>> {
    let entries = snapshot.audit_entries(from, BATCH_ROWS)?;
    let Some((last, _)) = entries.last() else { return Ok(None) };
    let next = last + 1;
    let mut rows = Rows::new(schema());
    entries.iter().for_each(|(number, entry)| push(&mut rows, *number, entry));
    Ok(Some((rows.finish()?, next)))
}

fn push(rows: &mut Rows, number: u64, entry: &AuditEntry) {
    let (actor, subject) = (&entry.actor, entry.subject.as_ref());
    rows.number(0, Some(number as i64));
    rows.time(1, Some(entry.at));
    rows.text(2, Some(&actor.user));
    rows.text(3, actor.role.as_deref());
    rows.text(4, subject.map(|subject| subject.user.as_str()));
    rows.text(5, subject.and_then(|subject| subject.role.as_deref()));
    rows.text(6, Some(&entry.origin));
    rows.text(7, Some(&entry.action));
    rows.text(8, entry.target.as_deref());
    rows.number(9, entry.rows.map(|rows| rows as i64));
    rows.text(10, Some(&entry.outcome));
    rows.text(11, entry.session.as_deref());
    rows.text(12, entry.peer.as_deref());
    rows.text(13, entry.fingerprint.as_deref());
}
