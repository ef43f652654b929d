//! MERGE under way: rows of its SELECT become new rows, new versions and tombstones.

use std::collections::HashSet;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use seracdb_storage::catalog::TableRecord;
use seracdb_storage::keys::Scope;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::load::Load;
use crate::returning::Returned;
use crate::row_versions::{FOUND_COLUMNS, RowEncoder, Writes};
use crate::scan::LOCATION_COLUMNS;
use crate::sql::errors::from_datafusion;
use crate::sql::statement::{Merge, MergeAction};

/// Rows of a target that a source has changed so far: each may be changed once, or it would not be known to what.
pub(crate) struct Once<'a> {
    table: &'a TableRecord,
    statement: &'static str,
    ids: HashSet<i64>,
}

impl<'a> Once<'a> {
    pub(crate) fn new(table: &'a TableRecord, statement: &'static str) -> Self {
        Self { table, statement, ids: HashSet::new() }
    }

    /// `found`: location, `_id`, …
    pub(crate) fn check(&mut self, found: &RecordBatch) -> Result<()> {
        let ids = found.column(FOUND_COLUMNS - 2).as_primitive::<Int64Type>();
        match ids.values().iter().find(|id| !self.ids.insert(**id)) {
            Some(id) => Err(EngineError::invalid(format!(
                "{} finds several rows for one row of '{}.{}' (_id {id}): it may be changed once only",
                self.statement, self.table.namespace, self.table.name
            ))),
            None => Ok(()),
        }
    }

    /// Each of these rows that was not found before, once.
    pub(crate) fn first_of_each(&mut self, found: &RecordBatch) -> Result<RecordBatch> {
        let ids = found.column(FOUND_COLUMNS - 2).as_primitive::<Int64Type>();
        let is_first: BooleanArray = ids.values().iter().map(|id| Some(self.ids.insert(*id))).collect();
        filter_record_batch(found, &is_first).map_err(|error| from_datafusion(error.into(), &LOCATION_COLUMNS))
    }
}

/// What a MERGE has made so far.
pub(crate) struct Merged<'a> {
    merge: &'a Merge,
    new: RowEncoder<'a>,
    there: RowEncoder<'a>,
    columns: usize,
    once: Once<'a>,
    load: Load<'a>,
    writes: Writes,
}

impl<'a> Merged<'a> {
    /// `old`: the columns of which the old values are there; `writes`: none yet.
    pub(crate) fn new(
        engine: &'a Engine,
        merge: &'a Merge,
        table: &'a TableRecord,
        scope: Scope,
        old: Vec<usize>,
        writes: Writes,
    ) -> Result<Self> {
        Ok(Self {
            merge,
            new: RowEncoder::new(engine, table, scope)?,
            there: RowEncoder::new(engine, table, scope)?.with_old(old),
            columns: table.schema().columns.len(),
            once: Once::new(table, "MERGE"),
            load: Load::new(engine, table, scope)?,
            writes,
        })
    }

    /// Takes rows of [`crate::sql::merge::merge_query`].
    pub(crate) async fn push(&mut self, engine: &Engine, found: &RecordBatch) -> Result<()> {
        let failed = |error: arrow::error::ArrowError| from_datafusion(error.into(), &LOCATION_COLUMNS);
        let (which_clause, places) = (found.num_columns() - 1, (0..found.num_columns() - 1).collect::<Vec<_>>());
        let clauses = cast(found.column(which_clause), &DataType::Int64).map_err(failed)?;
        let found = found.project(&places).map_err(failed)?;
        let clause_of = |number: Option<i64>| {
            let place = usize::try_from(number?).ok()?.checked_sub(1)?;
            Some(&self.merge.clauses.get(place)?.action)
        };
        let actions = clauses.as_primitive::<Int64Type>().iter().map(clause_of).collect::<Option<Vec<&MergeAction>>>();
        // Only rows of a clause are asked for.
        let actions = actions.ok_or_else(|| EngineError::internal("MERGE: a row is of no clause"))?;
        let which = |wanted: fn(&MergeAction) -> bool| -> Result<RecordBatch> {
            let mask: BooleanArray = actions.iter().map(|action| Some(wanted(action))).collect();
            filter_record_batch(&found, &mask).map_err(failed)
        };
        let inserted = which(|action| matches!(action, MergeAction::Insert { .. }))?;
        let updated = which(|action| matches!(action, MergeAction::Update(_)))?;
        let deleted = which(|action| matches!(action, MergeAction::Delete))?;
        self.once.check(&updated)?;
        self.once.check(&deleted)?;
        self.insert(engine, &inserted).await?;
        self.writes.supersede(&self.there, updated, false)?;
        self.writes.supersede(&self.there, deleted, true)
    }

    async fn insert(&mut self, engine: &Engine, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = rows.columns()[FOUND_COLUMNS..][..self.columns].to_vec();
        match self.writes.returned.as_ref().map(Returned::carried) {
            Some(carried) => {
                let columns = self.new.complete(columns, rows.num_rows())?;
                let carried = &rows.columns()[FOUND_COLUMNS + self.columns..][..carried];
                self.writes.insert_carrying(&self.new, engine.store.new_ids(rows.num_rows()), &columns, carried)
            }
            None => self.load.push(columns, rows.num_rows()).await,
        }
    }

    /// What is to be committed.
    pub(crate) async fn finish(self) -> Result<Writes> {
        let mut writes = self.writes;
        writes.join(self.load.finish().await?)?;
        Ok(writes)
    }
}
