//! A scope's rows as a DataFusion table: batch files plus hot rows, nothing resolved while reading.
//!
//! ```text
//! scan = union( Parquet files, each without its masked positions
//!             , hot rows, the newest version of each
//!             , rows that the statement's transaction has changed, in the place of both )
//! ```
//! A row is in exactly one of the two: the commit that superseded or deleted it masked its position in its file, and a
//! generation that became a file is no longer read as hot rows. So any predicate may be pushed down.

mod changes;
mod cold;
mod everyone;
mod evolved;
mod figures;
mod hot;
mod id_range;
mod prune;
mod reader;
mod sidecars;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use parquet::arrow::RowNumber;
use seracdb_storage::StorageError;
use seracdb_storage::catalog::TableRecord;
use seracdb_storage::file_index::FileIndex;
use seracdb_storage::keys::Scope;
use seracdb_storage::snapshot::{ScopeView, Snapshot};
use seracdb_storage::store::Store;
use seracdb_storage::system_columns::{CommitTs, UPDATED};

use crate::error::{EngineError, ErrorKind};
use crate::sql::errors::from_datafusion;
use crate::transaction::StagedScope;

pub(crate) use changes::{ChangesTable, OP_COLUMN};
pub(crate) use cold::{ColdTier, OBJECTS_URL};
pub(crate) use everyone::EveryonesTable;
pub(crate) use figures::NAMES as SCAN_FIGURES;
use hot::{HotRowsExec, HotVersions};

/// Number of the batch file that a row lies in; 0 for a hot row, [`crate::transaction::STAGED_FILE`] for one that is not
/// committed.
pub(crate) const FILE_COLUMN: &str = "__serac_file";
/// Position in the batch file; the generation of a hot row.
pub(crate) const POSITION_COLUMN: &str = "__serac_position";
/// The columns that say where a row lies. No client sees them.
pub(crate) const LOCATION_COLUMNS: [&str; 2] = [FILE_COLUMN, POSITION_COLUMN];

/// Which columns a table shows to the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// What `SELECT *` gives: `_id`, the user's, `_updated`.
    Visible,
    /// Also `_deleted`.
    All,
    /// Also the location, for UPDATE and DELETE.
    Located,
}

/// Memory of a statement, for what its plan takes while it is made and holds as long as it is there: an extension of its session's
/// configuration.
pub(crate) struct PlanMemory(pub(crate) Arc<dyn MemoryPool>);

/// Counts what reading the past takes.
fn memory_of_past(state: &dyn Session) -> MemoryReservation {
    let consumer = MemoryConsumer::new("reading the past");
    match state.config().get_extension::<PlanMemory>() {
        Some(own) => consumer.register(&own.0),
        None => consumer.register(&state.runtime_env().memory_pool),
    }
}

/// What is asked whether so many bytes may be held.
fn holding(memory: &MemoryReservation) -> impl Fn(usize) -> Result<(), StorageError> + Send + Sync {
    move |bytes| {
        memory
            .try_resize(bytes)
            .map_err(|error| StorageError::NoMemory(from_datafusion(error, &LOCATION_COLUMNS).message))
    }
}

/// A time of which rows are read.
#[derive(Debug, Clone)]
pub(crate) struct AsOf {
    /// What knows what they were.
    pub(crate) store: Arc<Store>,
    /// The last commit up to it counts.
    pub(crate) at: CommitTs,
    /// Whether commits count that come while the statement begins: not in a transaction, which has one snapshot.
    pub(crate) newest: bool,
}

impl AsOf {
    /// A snapshot that has every commit up to a time. It may have rows of a later version of the table: then the statement is
    /// to begin again.
    async fn snapshot(
        &self,
        of_statement: &Arc<Snapshot>,
        table: &TableRecord,
        until: CommitTs,
    ) -> DfResult<Arc<Snapshot>> {
        if !self.newest {
            return Ok(Arc::clone(of_statement));
        }
        let snapshot = self.store.settled(of_statement, until).await.map_err(external)?;
        let now = snapshot.catalog().table_by_id(table.id);
        match now.is_some_and(|now| now.schema().version == table.schema().version) {
            true => Ok(snapshot),
            false => Err(external(EngineError::new(
                ErrorKind::Aborted,
                format!(
                    "table '{}.{}' was changed or dropped while the statement began: run the statement again",
                    table.namespace, table.name
                ),
            ))),
        }
    }
}

/// A scope as a table.
#[derive(Debug)]
pub(crate) struct ScopeTable {
    pub(crate) snapshot: Arc<Snapshot>,
    /// What the statement's transaction has changed in it; `None` outside of one.
    pub(crate) staged: Option<StagedScope>,
    pub(crate) scope: Scope,
    pub(crate) table: Arc<TableRecord>,
    /// Rows of older commits have expired.
    pub(crate) not_before: Option<CommitTs>,
    /// What knows what its rows were, when they are read as of a time.
    as_of: Option<AsOf>,
    schema: SchemaRef,
    located: SchemaRef,
}

impl ScopeTable {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        staged: Option<StagedScope>,
        scope: Scope,
        table: Arc<TableRecord>,
        not_before: Option<CommitTs>,
        exposure: Exposure,
    ) -> Self {
        let full = table.schema().full();
        let mut fields: Vec<FieldRef> = full.fields().to_vec();
        if staged.is_some() {
            // A row that is not committed has no `_updated` yet.
            let updated = fields.iter_mut().find(|field| field.name() == UPDATED);
            updated.into_iter().for_each(|field| *field = Arc::new(Field::clone(field).with_nullable(true)));
        }
        fields.extend([Arc::new(file_field()), Arc::new(position_field())]);
        let shown = match exposure {
            Exposure::Visible => full.fields().len() - 1,
            Exposure::All => full.fields().len(),
            Exposure::Located => fields.len(),
        };
        let schema = Arc::new(Schema::new(fields[..shown].to_vec()));
        let located = Arc::new(Schema::new(fields));
        Self { snapshot, staged, scope, table, not_before, as_of: None, schema, located }
    }

    /// The same as it was after the last commit up to a time: NULL was possible then where it is not now.
    pub(crate) fn read_as_of(self, time: AsOf) -> Self {
        Self { as_of: Some(time), ..self.with_nulls() }
    }

    /// The same for who reads rows that may have NULL in any column: tombstones have no values.
    fn with_nulls(mut self) -> Self {
        let nullable = |field: &FieldRef| match self.table.schema().columns.iter().any(|own| own.name == *field.name())
        {
            true => Arc::new(Field::clone(field).with_nullable(true)),
            false => Arc::clone(field),
        };
        let with = |schema: &SchemaRef| Arc::new(Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>()));
        (self.schema, self.located) = (with(&self.schema), with(&self.located));
        self
    }
}

#[async_trait]
impl TableProvider for ScopeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters are asked for to find the row ids and the files they leave; DataFusion applies them all again.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let (view, versions, memory) = match &self.as_of {
            Some(time) => {
                let snapshot = time.snapshot(&self.snapshot, &self.table, time.at).await?;
                let (held, ids, memory) = (self.snapshot.ts(), id_range::of(filters), memory_of_past(state));
                let past = {
                    let holding = holding(&memory);
                    let past = time.store.past(&snapshot, held, self.scope, time.at, ids, &holding).await;
                    past.map_err(external)?
                };
                (past.view, HotVersions::Until(snapshot, time.at, past.pin), Some(memory))
            }
            None => (self.view().await?, HotVersions::Newest, None),
        };
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let mut plans = match view.files.is_empty() {
            true => vec![],
            false => cold::scan(self, &view, &projection, filters, state, limit, memory.as_ref()).await?,
        };
        let ids = id_range::of(filters);
        let hot: Arc<dyn ExecutionPlan> = Arc::new(HotRowsExec::new(self, &view, &projection, ids, versions, memory)?);
        if plans.is_empty() {
            return Ok(hot);
        }
        plans.push(hot);
        UnionExec::try_new(plans)
    }
}

impl ScopeTable {
    /// Where its rows are, with the files that the transaction has written, without those in files that it has superseded.
    async fn view(&self) -> DfResult<ScopeView> {
        let mut view = self.snapshot.view(self.scope).await.map_err(external)?;
        let written: Vec<_> = self.staged.iter().flat_map(|staged| staged.files()).collect();
        if !written.is_empty() {
            let files = view.files.iter().chain(written.into_iter().map(|file| file.record()));
            view.files = Arc::new(FileIndex::new(files.cloned().collect()));
        }
        for (file, superseded) in self.staged.iter().flat_map(StagedScope::masks) {
            *Arc::make_mut(Arc::make_mut(&mut view.masks).entry(file).or_default()) |= superseded;
        }
        Ok(view)
    }

    /// All columns, the hidden ones included: what projections count on.
    fn located(&self) -> &SchemaRef {
        &self.located
    }
}

fn file_field() -> Field {
    Field::new(FILE_COLUMN, DataType::UInt64, false)
}

fn position_field() -> Field {
    Field::new(POSITION_COLUMN, DataType::Int64, false).with_extension_type(RowNumber)
}

/// An error of ours on its way through DataFusion.
pub(crate) fn external(error: impl Into<EngineError>) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::External(Box::new(error.into()))
}
