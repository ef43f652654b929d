//! Executing: a prepared statement on the newest snapshot, with its parameters bound.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::{ExplainFormat, ExplainOption, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::metrics::MetricType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream, execute_stream_partitioned};
use futures::{FutureExt, StreamExt};

use crate::api_tokens;
use crate::audit::Duty;
use crate::ddl;
use crate::effective::{EffectiveIdentity, Settled};
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::explain::{Detail, readable};
use crate::listing;
use crate::output::{ClientStream, client_schema};
use crate::prepared::Prepared;
use crate::running::{Beginning, Run, Way};
use crate::scan::LOCATION_COLUMNS;
use crate::session::Session;
use crate::sql::errors::from_datafusion;
use crate::sql::fit::BoundPlan;
use crate::sql::statement::TransactionStatement;
use crate::sql::{Statement, TableName};
use crate::system;
use crate::system_jobs;
use crate::tables::Tables;
use crate::transaction;
use crate::write::Written;

/// Rows of a result, batch by batch.
pub type Rows = SendableRecordBatchStream;

/// What an execution gave.
pub enum Outcome {
    /// Rows of a query, of schema [`Prepared::schema`].
    Rows(Rows),
    /// Rows inserted, updated or deleted; 0 for other statements.
    Changed(u64),
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(_) => f.write_str("Rows"),
            Self::Changed(rows) => write!(f, "Changed({rows})"),
        }
    }
}

impl Engine {
    /// Runs a prepared statement. `params`: the bound rows (columns in the order of [`Prepared::parameters`], cast as
    /// needed). A query wants exactly one row. An INSERT, UPDATE or DELETE runs once for each row, each seeing what those before
    /// have written, and commits all as one; it gives the sum.
    pub async fn execute(
        self: &Arc<Self>,
        session: &Session,
        prepared: &Prepared,
        params: Option<RecordBatch>,
    ) -> Result<Outcome> {
        let mut identity = self.identity(session, &prepared.statement, &prepared.purpose).await?;
        let run = AssertUnwindSafe(self.run(&identity.session, &mut identity.duty, prepared, params));
        let done = run.catch_unwind().await;
        settled(identity, done).await
    }

    async fn run(
        self: &Arc<Self>,
        session: &Session,
        duty: &mut Duty,
        prepared: &Prepared,
        params: Option<RecordBatch>,
    ) -> Result<Outcome> {
        let params = check_params(prepared, params)?;
        let statement = &prepared.statement;
        if !matches!(statement, Statement::Transaction(TransactionStatement::Rollback)) {
            // Gone is who was dropped, whatever sessions are left.
            self.subject(session)?;
        }
        match statement {
            Statement::Query(_) | Statement::Explain { .. } => {
                let (values, run) =
                    (single_row(params.as_ref())?, Arc::new(self.begin_run(session, prepared, Way::Query)?));
                run.noting(self.query(session, prepared, values, &run).await).map(Outcome::Rows)
            }
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
                let run = self.begin_run(session, prepared, Way::Update)?;
                let written = self.write(session, duty, prepared, params.as_ref(), &run).await;
                Ok(given(prepared, run.ending(written)?))
            }
            Statement::CreateTableAs(create) => {
                let run = self.begin_run(session, prepared, Way::Ingest)?;
                run.ending(self.create_table_as(session, create, &run).await).map(Outcome::Changed)
            }
            Statement::CreateToken(create) => {
                let run = self.begin_run(session, prepared, Way::Change)?;
                let tables = self.tables_for(session, statement)?;
                run.ending(api_tokens::create(self, session, &tables, create).await).map(Outcome::Rows)
            }
            light if is_light(light) => {
                let (clock, begun) = (self.running.clock(), self.running.clock().monotonic());
                let done = self.run_light(session, light).await;
                self.running.metrics().light(light.label(), &done, clock.monotonic().saturating_sub(begun));
                done
            }
            other => {
                let run = self.begin_run(session, prepared, Way::Change)?;
                run.ending(ddl::run(self, session, other).await).map(|()| Outcome::Changed(0))
            }
        }
    }

    /// Notes that a statement begins.
    fn begin_run(&self, session: &Session, prepared: &Prepared, way: Way) -> Result<Run> {
        let (label, text) = (prepared.statement.label(), Arc::clone(&prepared.shown));
        self.running.begin(session, Beginning { way, label, text }, self.stop())
    }

    /// What says little, or ends what runs: a user may always do that, whatever runs already.
    async fn run_light(self: &Arc<Self>, session: &Session, statement: &Statement) -> Result<Outcome> {
        match statement {
            Statement::ShowTables { .. }
            | Statement::ShowNamespaces
            | Statement::Describe(_)
            | Statement::ShowCreate(_)
            | Statement::ShowSetting(_) => {
                let tables = self.tables_for(session, statement)?;
                listing::rows(&tables, statement).map(Outcome::Rows)
            }
            Statement::ShowManifest(_) | Statement::ShowManifestCache => {
                let tables = self.tables_for(session, statement)?;
                system::show(&self.store, &tables, statement).await.map(Outcome::Rows)
            }
            Statement::RunJob { job_type, params } => {
                system_jobs::run_job(self, session, job_type, params).map(Outcome::Rows)
            }
            Statement::Transaction(statement) => {
                transaction::run(self, session, statement).await.map(|()| Outcome::Changed(0))
            }
            other => ddl::run(self, session, other).await.map(|()| Outcome::Changed(0)),
        }
    }

    /// Runs a query in parts, of which each has some of the rows and any may be read before the others: as many as asked for,
    /// or fewer, and one when the rows are in an order. Each part can be read once. All see the same snapshot, which lives as
    /// long as they do.
    pub async fn execute_in_parts(
        self: &Arc<Self>,
        session: &Session,
        prepared: &Prepared,
        params: Option<RecordBatch>,
        parts_max: usize,
    ) -> Result<Vec<Rows>> {
        if !matches!(prepared.statement, Statement::Query(_)) {
            return match self.execute(session, prepared, params).await? {
                Outcome::Rows(rows) => Ok(vec![rows]),
                Outcome::Changed(_) => Err(EngineError::internal("only what gives rows has parts")),
            };
        }
        let identity = self.identity(session, &prepared.statement, &prepared.purpose).await?;
        let done = AssertUnwindSafe(self.query_in_parts(&identity.session, prepared, params, parts_max));
        let done = done.catch_unwind().await;
        settled(identity, done).await
    }

    async fn query_in_parts(
        &self,
        session: &Session,
        prepared: &Prepared,
        params: Option<RecordBatch>,
        parts_max: usize,
    ) -> Result<Vec<Rows>> {
        let params = check_params(prepared, params)?;
        let run = Arc::new(self.begin_run(session, prepared, Way::Query)?);
        run.noting(self.start_in_parts(session, prepared, params, parts_max, &run).await)
    }

    async fn start_in_parts(
        &self,
        session: &Session,
        prepared: &Prepared,
        params: Option<RecordBatch>,
        parts_max: usize,
        run: &Arc<Run>,
    ) -> Result<Vec<Rows>> {
        let tables = self.tables_for(session, &prepared.statement)?;
        let mut state = run.planning(self.statement_state(run.stop()));
        state.config_mut().options_mut().execution.target_partitions = parts_max;
        let schema = prepared.schema();
        let plan = prepared.plan_over(&state, &tables, single_row(params.as_ref())?)?;
        let plan = physical(&state, &plan, prepared, run).await?;
        let streams = execute_stream_partitioned(plan, run.task(&state));
        let streams = streams.map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))?;
        run.has_parts(streams.len());
        let mut parts: Vec<Vec<ClientStream>> = Vec::new();
        parts.resize_with(streams.len().clamp(1, parts_max), Vec::new);
        for (place, rows) in streams.into_iter().enumerate() {
            let rows = ClientStream::new(rows, Arc::clone(schema), Arc::clone(run), Arc::clone(&tables.snapshot));
            parts[place % parts_max].push(rows);
        }
        let merged = parts.into_iter().map(|part| -> Rows {
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), futures::stream::select_all(part)))
        });
        Ok(merged.collect())
    }

    async fn query(
        &self,
        session: &Session,
        prepared: &Prepared,
        values: Vec<ScalarValue>,
        run: &Arc<Run>,
    ) -> Result<Rows> {
        let tables = self.tables_for(session, &prepared.statement)?;
        let mut state = run.planning(self.statement_state(run.stop()));
        let mut plan = prepared.plan_over(&state, &tables, values)?;
        let Statement::Explain { analyze, verbose, format, .. } = &prepared.statement else {
            return start(&state, &tables, plan, prepared, run).await;
        };
        let format = explain_format(format.as_deref())?;
        let detail = match !verbose && format == ExplainFormat::Indent {
            true => Detail::Brief,
            false => Detail::All,
        };
        if detail == Detail::Brief {
            state.config_mut().options_mut().explain.analyze_level = MetricType::Summary;
        }
        plan.plan = explain(plan.plan, *analyze, *verbose, format)?;
        let rows = start(&state, &tables, plan, prepared, run).await?;
        let rows = rows.map(move |batch| readable(&batch?, detail));
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(prepared.schema()), rows)))
    }

    /// Rows of a whole table, for reading it without SQL text.
    pub async fn read_table(self: &Arc<Self>, session: &Session, namespace: &str, table: &str) -> Result<Rows> {
        let name = TableName { namespace: Some(namespace.to_owned()), table: table.to_owned() };
        let query = crate::sql::dml::select_all(&name);
        let shown = format!("TABLE {name}").into();
        let prepared = self.prepare_parsed(session, Statement::Query(Box::new(query)), shown)?;
        match self.execute(session, &prepared, None).await? {
            Outcome::Rows(rows) => Ok(rows),
            Outcome::Changed(_) => Err(EngineError::internal("a query gave no rows")),
        }
    }
}

/// What a client gets of what was written.
fn given(prepared: &Prepared, written: Written) -> Outcome {
    let Written { rows, returned } = written;
    match returned {
        Some(batches) => {
            let rows = futures::stream::iter(batches.into_iter().map(Ok));
            Outcome::Rows(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(prepared.schema()), rows)))
        }
        None => Outcome::Changed(rows),
    }
}

/// Settles what a statement owes, before its client is told of its end: also when that is a panic, which goes on then.
async fn settled<T: Settled>(identity: EffectiveIdentity, done: std::thread::Result<Result<T>>) -> Result<T> {
    match done {
        Ok(done) => identity.settle(done).await,
        Err(panic) => {
            // The log says itself when it could not be written.
            let _ = identity.settle::<T>(Err(EngineError::panicked())).await;
            std::panic::resume_unwind(panic)
        }
    }
}

/// Plans physically and starts the plan; the snapshot lives as long as the stream.
async fn start(
    state: &SessionState,
    tables: &Tables,
    plan: BoundPlan,
    prepared: &Prepared,
    run: &Arc<Run>,
) -> Result<Rows> {
    let (plan, schema) = (physical(state, &plan, prepared, run).await?, prepared.schema());
    let rows = execute_stream(plan, run.task(state)).map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))?;
    Ok(Box::pin(ClientStream::new(rows, Arc::clone(schema), Arc::clone(run), Arc::clone(&tables.snapshot))))
}

/// Plans physically what has the columns that were prepared.
async fn physical(
    state: &SessionState,
    plan: &BoundPlan,
    prepared: &Prepared,
    run: &Run,
) -> Result<Arc<dyn ExecutionPlan>> {
    let BoundPlan { plan, by_value } = plan;
    let (schema, planned) = (prepared.schema(), client_schema(plan.schema().as_arrow()));
    let same = |(a, b): (&FieldRef, &FieldRef)| (*by_value || a.name() == b.name()) && a.data_type() == b.data_type();
    if planned.fields().len() != schema.fields().len() || !planned.fields().iter().zip(schema.fields()).all(same) {
        return Err(EngineError::invalid(match by_value {
            true => "a parameter's value decides of which type the result is: write the value into the statement",
            false => "the tables of this statement have changed: prepare it again",
        }));
    }
    let mut state = Cow::Borrowed(state);
    if prepared.in_order {
        // Spread over threads they would be in no order.
        state.to_mut().config_mut().options_mut().execution.target_partitions = 1;
    }
    let plan = run.unless_stopped(state.create_physical_plan(plan)).await?;
    let plan = plan.map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))?;
    run.runs(&plan);
    Ok(plan)
}

fn is_light(statement: &Statement) -> bool {
    matches!(statement.label(), "show" | "set" | "transaction" | "control")
}

fn explain_format(name: Option<&str>) -> Result<ExplainFormat> {
    match name {
        Some(name) => name.parse().map_err(|e: DataFusionError| EngineError::invalid(e.to_string())),
        None => Ok(ExplainFormat::Indent),
    }
}

fn explain(plan: LogicalPlan, analyze: bool, verbose: bool, format: ExplainFormat) -> Result<LogicalPlan> {
    let options = ExplainOption::default().with_analyze(analyze).with_verbose(verbose).with_format(format);
    LogicalPlanBuilder::from(plan)
        .explain_option_format(options)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))
}

/// The bound rows, when they fit the parameters in number.
fn check_params(prepared: &Prepared, params: Option<RecordBatch>) -> Result<Option<RecordBatch>> {
    let wanted = prepared.parameters().fields().len();
    let given = params.as_ref().map_or(0, RecordBatch::num_columns);
    if wanted != given {
        return Err(EngineError::parameter_count(wanted, given));
    }
    Ok(params.filter(|_| wanted > 0))
}

fn single_row(params: Option<&RecordBatch>) -> Result<Vec<ScalarValue>> {
    match params {
        None => Ok(vec![]),
        Some(rows) if rows.num_rows() == 1 => row_values(rows, 0),
        Some(rows) => {
            Err(EngineError::invalid(format!("a query wants one row of parameters, but {} are bound", rows.num_rows())))
        }
    }
}

/// The values of one bound row.
pub(crate) fn row_values(rows: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>> {
    let values = rows.columns().iter().map(|column| ScalarValue::try_from_array(column, row));
    values.collect::<Result<_, _>>().map_err(|e| from_datafusion(e, &[]))
}
