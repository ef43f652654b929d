//! Preparing: text to a checked statement with the schemas of its result and its parameters.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchemaRef;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::Query;
use seracdb_storage::system_columns;

use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::give_way::Stop;
use crate::listing;
use crate::output::client_schema;
use crate::scan::{Exposure, LOCATION_COLUMNS};
use crate::session::{Session, describes};
use crate::sql::errors::from_datafusion;
use crate::sql::mentions::mentions_identifier;
use crate::sql::params::{Typed, hints, plan_typed};
use crate::sql::planner::Planner;
use crate::sql::rewrite::{self, same_names::plan_with_same_names};
use crate::sql::wildcards::leave_out_deleted;
use crate::sql::{self, Statement};
use crate::tables::Tables;
use crate::write;

/// What running a statement does, known without running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Gives rows: SELECT, VALUES, EXPLAIN, SHOW, DESCRIBE.
    Query,
    /// Changes rows, the catalog or the session, and gives a count.
    Update,
}

/// A statement parsed and checked once; can be executed many times, each time on what is then there.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) statement: Statement,
    kind: StatementKind,
    schema: SchemaRef,
    parameters: SchemaRef,
}

impl Prepared {
    /// Query or update.
    pub fn kind(&self) -> StatementKind {
        self.kind
    }

    /// The columns of the result as a client sees them; no columns for an update. Execution gives exactly this schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// One nullable field per parameter, in numeric order (`$1`, `$2`, …).
    pub fn parameters(&self) -> &SchemaRef {
        &self.parameters
    }
}

impl Engine {
    /// Parses, checks and plans one statement. `?` and `$n` are parameters.
    pub async fn prepare(&self, session: &Session, sql: &str) -> Result<Prepared> {
        let statement = sql::parse(sql, &self.limits)?;
        // Not for a ROLLBACK: it works in a transaction that has ended too.
        let tables = || self.tables_for(session, &statement);
        let state = self.statement_state();
        let (schema, parameters) = match &statement {
            Statement::Query(query) => {
                let typed = plan_query(&state, &tables()?, &statement, query)?;
                (client_schema(typed.plan.schema().as_arrow()), typed.parameters)
            }
            Statement::Explain { analyze, inner, .. } => {
                refuse_analyzed_write(*analyze, inner)?;
                let parameters = self.plan_explained(&state, &tables()?, inner)?.parameters;
                (listing::explain_schema(), parameters)
            }
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                (Arc::new(Schema::empty()), write::plan(&state, &tables()?, &statement)?.typed.parameters)
            }
            other => (listing::schema_of(other), vec![]),
        };
        let kind = if statement.is_query() { StatementKind::Query } else { StatementKind::Update };
        Ok(Prepared { statement, kind, schema, parameters: parameter_schema(&parameters) })
    }

    /// The plan that an EXPLAIN shows.
    pub(crate) fn plan_explained(&self, state: &SessionState, tables: &Tables, inner: &Statement) -> Result<Typed> {
        match inner {
            Statement::Query(query) => plan_query(state, tables, inner, query),
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
                Ok(write::plan(state, tables, inner)?.typed)
            }
            _ => Err(EngineError::invalid("EXPLAIN shows the plan of a SELECT, INSERT, UPDATE or DELETE")),
        }
    }

    /// What a statement's names mean now, in its transaction.
    pub(crate) fn tables_for(&self, session: &Session, statement: &Statement) -> Result<Tables> {
        let exposure = match mentions_identifier(statement, system_columns::DELETED) {
            true => Exposure::All,
            false => Exposure::Visible,
        };
        let (snapshot, staged) = match session.transaction() {
            Some(transaction) => transaction.view().map(|(snapshot, staged)| (snapshot, Some(staged)))?,
            None => (self.store.snapshot(), None),
        };
        Ok(Tables {
            snapshot,
            staged,
            principal: session.principal().clone(),
            namespace: session.namespace(),
            exposure,
            now_ns: self.store.clock().now_ns(),
        })
    }

    /// The session state of one statement: `now()` is its time, and it knows when to stop.
    pub(crate) fn statement_state(&self) -> SessionState {
        let mut state = SessionState::clone(&self.state);
        state.config_mut().set_extension(Arc::new(Stop(self.stop.clone())));
        let options = Arc::clone(state.config().options());
        state.execution_props_mut().mark_start_execution(options);
        state
    }
}

/// Plans a query with its parameters typed.
pub(crate) fn plan_query(state: &SessionState, tables: &Tables, statement: &Statement, query: &Query) -> Result<Typed> {
    plan_select(state, tables, query.clone(), hints(statement, &[]), None)
}

/// Plans a SELECT over the statement's tables.
pub(crate) fn plan_select(
    state: &SessionState,
    tables: &Tables,
    mut query: Query,
    hints: Vec<Option<DataType>>,
    values_schema: Option<DFSchemaRef>,
) -> Result<Typed> {
    rewrite::prepare(&mut query)?;
    if tables.exposure == Exposure::All {
        leave_out_deleted(&mut query, &|name| {
            !name.namespace.as_deref().is_some_and(describes) && tables.record(name).is_ok()
        })?;
    }
    let source = |name: &_| tables.source(name);
    let planner = Planner::new(state, &source);
    let translate = |e| from_datafusion(e, &LOCATION_COLUMNS);
    let plan = |query: &Query| plan_typed(&planner, query, hints.clone(), values_schema.clone());
    let typed = plan_with_same_names(&query, plan, |typed| &mut typed.plan).map_err(translate)?;
    // Types are only right once they are coerced: the branches of a UNION agree on theirs here.
    let plan = state.analyzer().execute_and_check(typed.plan, state.config_options(), |_, _| {}).map_err(translate)?;
    Ok(Typed { plan, ..typed })
}

fn refuse_analyzed_write(analyze: bool, inner: &Statement) -> Result<()> {
    if analyze && !inner.is_query() {
        return Err(EngineError::new(
            ErrorKind::Unimplemented,
            "EXPLAIN ANALYZE runs its statement: it is possible for a SELECT only. Use EXPLAIN",
        ));
    }
    Ok(())
}

fn parameter_schema(parameters: &[DataType]) -> SchemaRef {
    let fields = parameters.iter().enumerate().map(|(i, t)| Field::new(format!("${}", i + 1), t.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
