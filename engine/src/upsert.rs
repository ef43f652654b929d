//! INSERT … ON CONFLICT: rows whose unique key another row has change that row, or are left out.
//!
//! ```text
//! rows of the source ─▶ their keys ─▶ key index, of the snapshot and what is staged ─┬─▶ new: inserted
//!                                                                                    └─▶ there: `sql::conflict`'s SELECT over
//!                                                                                        these by `_id` ─▶ new versions
//! ```
//!
//! Invariants:
//! 1. No row is inserted or changed twice by one statement: DO NOTHING leaves out the later one, DO UPDATE refuses.
//! 2. Who loses a key to another commit runs again, like every statement: the row is there by then.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt64Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, lit};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast::{Query, Visit, Visitor};
use futures::TryStreamExt;
use seracdb_storage::catalog::TableRecord;
use seracdb_storage::commit::check_size;
use seracdb_storage::key_codec::KeyBytes;
use seracdb_storage::keys::Scope;
use seracdb_storage::system_columns::{ID, RowId};
use seracdb_storage::unique::UniqueKey;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::load::Load;
use crate::prepared::{Prepared, coerced, plan_query};
use crate::row_versions::{FOUND_COLUMNS, RowEncoder, Writes};
use crate::running::Run;
use crate::scan::LOCATION_COLUMNS;
use crate::sql::coerce::conform;
use crate::sql::conflict::{EXCLUDED, excluded_query, excluded_schema};
use crate::sql::dml::TARGET_CATALOG;
use crate::sql::errors::from_datafusion;
use crate::sql::params::{Bound, Typed, has_parameter, has_placeholder};
use crate::sql::statement::{ConflictAction, ConflictTarget, Insert, Statement};
use crate::tables::Tables;
use crate::unique::{KeyView, old_columns};
use crate::unpacked::unpacked_bytes_of;
use crate::views::Views;
use crate::write::{full_name, user_columns};

/// Ids that a scan is told one by one; of more it is told the range.
const IDS_LISTED_MAX: usize = 1000;

/// Plans what ON CONFLICT changes; `None` when it changes nothing. It gives what an UPDATE's plan gives.
pub(crate) fn plan(
    state: &SessionState,
    tables: &Tables,
    insert: &Insert,
    table: &TableRecord,
    hints: Vec<Option<DataType>>,
    bound: Option<Bound<'_>>,
) -> Result<Option<Typed>> {
    let columns = user_columns(table.schema());
    arbiters(insert, table)?;
    let insert = Insert { table: full_name(table), ..insert.clone() };
    let old = old_columns(&Statement::Insert(insert.clone()), table);
    let old: Vec<&str> = old.into_iter().map(|place| columns[place].0.as_str()).collect();
    let Some(mut query) = excluded_query(&insert, &columns, &LOCATION_COLUMNS, &old)? else { return Ok(None) };
    let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
    let none = Arc::new(MemTable::try_new(excluded_schema(&columns), vec![vec![]]).map_err(failed)?);
    let views = Views::of(state, tables, &mut query)?;
    let source = |name: &TableReference| match name.table() == EXCLUDED {
        true => Ok(provider_as_source(Arc::clone(&none) as _)),
        false => views.source(tables, name),
    };
    let typed = plan_query(state, tables, &source, query, hints, None, bound)?;
    let mut types = vec![None; FOUND_COLUMNS];
    types.extend(columns.iter().map(|(name, data_type)| Some((name.as_str(), data_type))));
    types.extend(old.iter().map(|_| None));
    let plan = conform(coerced(state, typed.plan)?, &types)?;
    Ok(Some(Typed { plan, ..typed }))
}

/// The types of parameters that only ON CONFLICT has, as its plan has found them.
pub(crate) fn with_types_of(
    insert: &Insert,
    mut hints: Vec<Option<DataType>>,
    conflict: Option<&Typed>,
) -> Vec<Option<DataType>> {
    for (place, hint) in hints.iter_mut().enumerate().filter(|(_, hint)| hint.is_none()) {
        if let Some(typed) = conflict
            && insert.conflict_exprs().any(|expr| has_parameter(expr, place + 1))
        {
            *hint = typed.parameters.get(place).cloned();
        }
    }
    hints
}

/// Whether rows that are bound to it may be taken together: what it does with one depends on that one alone.
pub(crate) fn takes_rows_together(insert: &Insert) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    insert.conflict_exprs().all(|expr| !has_placeholder(expr) && expr.visit(&mut Queries).is_continue())
}

/// The unique keys that an ON CONFLICT is about.
pub(crate) fn arbiters(insert: &Insert, table: &TableRecord) -> Result<Vec<UniqueKey>> {
    let (keys, name) = (UniqueKey::of_table(table), &insert.table);
    let Some(conflict) = &insert.conflict else { return Ok(vec![]) };
    if keys.is_empty() {
        return Err(EngineError::invalid(format!("ON CONFLICT: table '{name}' has neither PRIMARY KEY nor UNIQUE")));
    }
    let known = || {
        let known: Vec<String> = keys.iter().map(|key| format!("({})", key.names().join(", "))).collect();
        known.join(", ")
    };
    let primary = keys.iter().find(|key| key.record.primary);
    match &conflict.target {
        ConflictTarget::Any if conflict.action == ConflictAction::Replace && primary.is_some() => {
            Ok(primary.cloned().into_iter().collect())
        }
        ConflictTarget::Any if keys.len() > 1 && conflict.action != ConflictAction::Nothing => {
            Err(EngineError::invalid(format!(
                "ON CONFLICT: table '{name}' has several unique keys; say which one is meant, of {}",
                known()
            )))
        }
        ConflictTarget::Any => Ok(keys),
        ConflictTarget::Columns(columns) => {
            let is_it = |key: &UniqueKey| {
                let (wanted, has): (HashSet<&String>, HashSet<&String>) =
                    (columns.iter().collect(), key.names().iter().collect());
                wanted == has
            };
            match keys.iter().position(is_it) {
                Some(place) => Ok(vec![keys[place].clone()]),
                None => Err(EngineError::invalid(format!(
                    "ON CONFLICT ({}): table '{name}' has no unique key of these columns; it has {}",
                    columns.join(", "),
                    known()
                ))),
            }
        }
        ConflictTarget::Constraint(wanted) => match keys.iter().find(|key| key.record.name == *wanted) {
            Some(key) => Ok(vec![key.clone()]),
            None => Err(EngineError::not_found(format!("ON CONFLICT: table '{name}' has no unique key '{wanted}'"))),
        },
    }
}

/// What becomes of rows of the source.
#[derive(Debug, Default)]
struct Split {
    /// Rows to insert.
    new: Vec<u64>,
    /// Rows whose key a row has that is there, and that one's id.
    there: Vec<(u64, i64)>,
}

/// Tells new rows from those whose key is there.
struct Conflicts {
    keys: Vec<UniqueKey>,
    view: KeyView,
    changes: bool,
    seen: HashSet<KeyBytes>,
    hit: HashSet<i64>,
}

impl Conflicts {
    fn new(insert: &Insert, table: &TableRecord, view: KeyView) -> Result<Self> {
        let changes = insert.conflict.as_ref().is_some_and(|conflict| conflict.action != ConflictAction::Nothing);
        Ok(Self { keys: arbiters(insert, table)?, view, changes, seen: HashSet::new(), hit: HashSet::new() })
    }

    fn split(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Split> {
        let mut split = Split::default();
        let mut found: Vec<Option<RowId>> = vec![None; rows];
        let mut keys: Vec<Vec<KeyBytes>> = vec![vec![]; rows];
        for key in &self.keys {
            let encoded = key.encode_rows(columns, rows)?;
            let with_key: Vec<(usize, &KeyBytes)> =
                encoded.iter().enumerate().filter_map(|(row, key)| Some((row, key.as_ref()?))).collect();
            let wanted: Vec<&KeyBytes> = with_key.iter().map(|(_, key)| *key).collect();
            for ((row, key), id) in with_key.iter().zip(self.view.find(&wanted)?) {
                found[*row] = found[*row].or(id);
                keys[*row].push((*key).clone());
            }
        }
        for (row, (id, keys)) in found.into_iter().zip(keys).enumerate() {
            let is_twice = match id {
                Some(id) => self.changes && !self.hit.insert(id.get()),
                None => keys.iter().any(|key| self.seen.contains(key)),
            };
            if is_twice && self.changes {
                return Err(self.twice(&keys));
            }
            match id {
                Some(id) if self.changes => split.there.push((row as u64, id.get())),
                None if !is_twice => {
                    self.seen.extend(keys);
                    split.new.push(row as u64);
                }
                _ => {}
            }
        }
        Ok(split)
    }

    fn twice(&self, keys: &[KeyBytes]) -> EngineError {
        let described = keys.iter().find_map(|key| self.keys.iter().find_map(|unique| unique.describe(key)));
        EngineError::invalid(format!(
            "ON CONFLICT DO UPDATE would change a row twice: several rows of the source have {}",
            described.unwrap_or_else(|| "one key".into())
        ))
    }
}

/// Bound rows in runs of which none has a key twice: each sees what those before it have written.
pub(crate) fn runs_without_repeats(
    insert: &Insert,
    table: &TableRecord,
    columns: &[ArrayRef],
    rows: usize,
) -> Result<Vec<std::ops::Range<usize>>> {
    let mut encoded = Vec::new();
    for key in arbiters(insert, table)? {
        encoded.push(key.encode_rows(columns, rows)?);
    }
    let (mut runs, mut start, mut seen) = (Vec::new(), 0, HashSet::new());
    for row in 0..rows {
        let keys: Vec<&KeyBytes> = encoded.iter().filter_map(|keys| keys[row].as_ref()).collect();
        if keys.iter().any(|key| seen.contains(*key)) {
            runs.push(start..row);
            start = row;
            seen.clear();
        }
        seen.extend(keys);
    }
    runs.push(start..rows);
    Ok(runs)
}

/// An INSERT … ON CONFLICT under way.
pub(crate) struct Upsert<'a> {
    table: &'a TableRecord,
    scope: Scope,
    conflicts: Conflicts,
    encoder: RowEncoder<'a>,
    load: Load<'a>,
    /// New rows that are given back, all in memory; then rows that are changed.
    writes: Writes,
    excluded: Vec<RecordBatch>,
    excluded_schema: SchemaRef,
    bytes: usize,
}

impl<'a> Upsert<'a> {
    /// `writes`: none yet.
    pub(crate) fn new(
        engine: &'a Engine,
        tables: &Tables,
        insert: &'a Insert,
        table: &'a TableRecord,
        scope: Scope,
        writes: Writes,
    ) -> Result<Self> {
        Ok(Self {
            table,
            scope,
            conflicts: Conflicts::new(insert, table, KeyView::of(tables, scope))?,
            encoder: RowEncoder::new(engine, table, scope)?,
            load: Load::new(engine, table, scope)?,
            writes,
            excluded: vec![],
            excluded_schema: excluded_schema(&user_columns(table.schema())),
            bytes: 0,
        })
    }

    /// Takes rows of the source. `columns`: the user columns in order. They are checked like those that are inserted, whether their
    /// keys are there or not.
    pub(crate) async fn push(&mut self, engine: &Engine, columns: Vec<ArrayRef>, rows: usize) -> Result<()> {
        let columns = self.encoder.complete(columns, rows)?;
        let split = self.conflicts.split(&columns, rows)?;
        let some = |wanted: &UInt64Array| -> Result<Vec<ArrayRef>> {
            let taken = columns.iter().map(|column| take(column, wanted, None));
            taken.collect::<Result<_, _>>().map_err(|error| from_datafusion(error.into(), &LOCATION_COLUMNS))
        };
        if !split.new.is_empty() {
            let (count, new) = (split.new.len(), some(&UInt64Array::from(split.new))?);
            match self.writes.returned.is_some() {
                true => self.writes.insert(&self.encoder, engine.store.new_ids(count), &new)?,
                false => self.load.push(new, count).await?,
            }
        }
        if !split.there.is_empty() {
            let (places, ids): (Vec<u64>, Vec<i64>) = split.there.into_iter().unzip();
            let there = some(&UInt64Array::from(places))?;
            self.bytes += unpacked_bytes_of(&there, ids.len());
            check_size(self.bytes)?;
            let all = std::iter::once(Arc::new(Int64Array::from(ids)) as ArrayRef).chain(there).collect();
            let batch = RecordBatch::try_new(Arc::clone(&self.excluded_schema), all);
            self.excluded.push(batch.map_err(|error| from_datafusion(error.into(), &LOCATION_COLUMNS))?);
        }
        Ok(())
    }

    /// Changes the rows that are there, and gives all that is to be committed.
    pub(crate) async fn finish(
        self,
        engine: &Engine,
        tables: &Tables,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
        run: &Run,
    ) -> Result<Writes> {
        let mut writes = self.writes;
        writes.join(self.load.finish().await?)?;
        if !self.excluded.is_empty() {
            let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
            let excluded =
                concat_batches(&self.excluded_schema, &self.excluded).map_err(|error| failed(error.into()))?;
            let state = run.planning(engine.statement_state(run.stop()));
            let plan = prepared.conflict_over(&state, tables, values)?;
            let plan = over_rows(plan, excluded).map_err(failed)?;
            let physical = run.unless_stopped(state.create_physical_plan(&plan)).await?.map_err(failed)?;
            let mut rows = run.until_stopped(execute_stream(physical, run.task(&state)).map_err(failed)?);
            let old = old_columns(&prepared.statement, self.table);
            let encoder = RowEncoder::new(engine, self.table, self.scope)?.with_old(old);
            while let Some(batch) = rows.try_next().await.map_err(failed)? {
                run.count(&batch);
                writes.supersede(&encoder, batch, false)?;
            }
        }
        Ok(writes)
    }
}

/// The plan over these rows in the place of [`EXCLUDED`]; of the target only those with their ids are read.
fn over_rows(plan: LogicalPlan, excluded: RecordBatch) -> DfResult<LogicalPlan> {
    let ids: Vec<i64> = datafusion::common::cast::as_int64_array(excluded.column(0))?.values().to_vec();
    let schema: Arc<Schema> = excluded.schema();
    let rows = Arc::new(MemTable::try_new(schema, vec![vec![excluded]])?);
    let bound = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        if scan.table_name.table() == EXCLUDED {
            scan.source = provider_as_source(Arc::clone(&rows) as _);
            return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
        }
        if scan.table_name.catalog() != Some(TARGET_CATALOG) {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        }
        let id = Expr::Column(Column::new(Some(scan.table_name.clone()), ID));
        let (least, most) = (ids.iter().min().copied(), ids.iter().max().copied());
        let wanted = match ids.len() > IDS_LISTED_MAX {
            true => id.between(lit(least.unwrap_or_default()), lit(most.unwrap_or_default())),
            false => id.in_list(ids.iter().map(|id| lit(*id)).collect(), false),
        };
        let filtered = Filter::try_new(wanted, Arc::new(LogicalPlan::TableScan(scan)))?;
        Ok(Transformed::new(LogicalPlan::Filter(filtered), true, TreeNodeRecursion::Jump))
    });
    Ok(bound?.data)
}
