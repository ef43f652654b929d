//! `system.sessions`: the sessions that go on after a call, of a user's own; to an admin, of all.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;
use crate::identity::Role;
use crate::row_builder::{NUMBER, Rows, TEXT, TIME, schema};
use crate::tables::Tables;

pub(crate) fn sessions_schema() -> SchemaRef {
    schema(&[
        ("session_id", TEXT, false),
        ("user_id", TEXT, false),
        ("role", TEXT, false),
        ("login", TEXT, false),
        ("peer", TEXT, true),
        ("namespace", TEXT, false),
        ("opened_at", TIME, false),
        ("last_used_at", TIME, true),
        ("transactions", NUMBER, false),
        ("running", NUMBER, false),
    ])
}

/// The sessions by their names, as the audit log has them, which give no access. Who acts for a user sees none: they are no rows.
pub(crate) fn sessions(tables: &Tables) -> Result<RecordBatch> {
    let mut rows = Rows::new(sessions_schema());
    let reader = &tables.principal;
    let running = tables.running.list();
    let is_shown = |user: u64| tables.reach.is_none() && (reader.role() >= Role::Admin || user == reader.number());
    for live in tables.sessions.list().into_iter().filter(|live| is_shown(live.principal.number())) {
        let of_session = running.iter().filter(|entry| *entry.session == *live.session.id()).count();
        rows.text(0, Some(live.session.id()));
        rows.text(1, Some(live.principal.name()));
        rows.text(2, Some(&live.principal.role().to_string()));
        rows.text(3, Some(live.login));
        rows.text(4, live.peer.as_deref());
        rows.text(5, Some(&live.session.namespace()));
        rows.time(6, Some(live.opened_ns));
        rows.time(7, live.session.last_used_ns());
        rows.number(8, live.session.open_transactions() as i64);
        rows.number(9, of_session as i64);
    }
    rows.finish()
}
