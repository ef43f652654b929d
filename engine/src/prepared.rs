//! Preparing: text to a checked statement with the schemas of its result and its parameters.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Query;
use seracdb_storage::system_columns;
use tokio_util::sync::CancellationToken;

use crate::effective::Purpose;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::give_way::Stop;
use crate::listing;
use crate::origins::{Origin, origins};
use crate::output::client_schema;
use crate::plans::Basis;
use crate::returning;
use crate::scan::{Exposure, LOCATION_COLUMNS};
use crate::session::{Session, describes};
use crate::sql::errors::from_datafusion;
use crate::sql::fit::{BoundPlan, bind_values};
use crate::sql::mentions::{all_users, mentions_identifier, wrong_all_users};
use crate::sql::params::{Bound, Typed, hints, plan_typed};
use crate::sql::planner::{self, Planner};
use crate::sql::rewrite::{self, same_names::plan_with_same_names};
use crate::sql::statement::AlterUser;
use crate::sql::wildcards::leave_out_deleted;
use crate::sql::{self, Read, Statement};
use crate::tables::{Tables, reads_changes};
use crate::views::Views;
use crate::write;

/// Bytes of a statement that others see.
const SHOWN_BYTES_MAX: usize = 4096;

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
    /// Its text as others may see it: without secrets, and not too long.
    pub(crate) shown: Arc<str>,
    /// For whom it is.
    pub(crate) purpose: Purpose,
    kind: StatementKind,
    schema: SchemaRef,
    /// The tables of its columns, as far as they have one; of a SELECT only.
    origins: Vec<Option<Arc<Origin>>>,
    parameters: SchemaRef,
    /// Whether it reads changes of a table: they come in the order of their commits.
    pub(crate) in_order: bool,
    /// What was planned, and for which catalog, user and namespace.
    plan: Option<(Typed, Basis)>,
}

impl Prepared {
    /// Query or update.
    pub fn kind(&self) -> StatementKind {
        self.kind
    }

    /// Whether it changes something and gives rows of it: it is to run once, however often the rows are asked for.
    pub fn runs_once(&self) -> bool {
        matches!(self.statement, Statement::CreateToken(_) | Statement::RunJob { .. })
            || self.statement.returning().is_some()
    }

    /// The columns of the result as a client sees them; no columns for an update. Execution gives exactly this schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The table that a column of the result is of, by its place: `None` when it is computed.
    pub fn origin(&self, place: usize) -> Option<&Origin> {
        self.origins.get(place)?.as_deref()
    }

    /// One nullable field per parameter, in numeric order (`$1`, `$2`, …).
    pub fn parameters(&self) -> &SchemaRef {
        &self.parameters
    }
}

impl Engine {
    /// Parses, checks and plans one statement, unless it was planned before and means the same. `?` and `$n` are
    /// parameters.
    pub async fn prepare(&self, session: &Session, sql: &str) -> Result<Arc<Prepared>> {
        let prepared = self.prepare_text(session, sql).await;
        prepared.inspect_err(|error| self.running.metrics().refused(error.kind))
    }

    async fn prepare_text(&self, session: &Session, sql: &str) -> Result<Arc<Prepared>> {
        // A ROLLBACK works in a transaction that has ended too.
        if let Some(known) = self.basis(session).ok().and_then(|basis| self.plans.find(sql, basis)) {
            return Ok(known);
        }
        let Read { statement, subject } = sql::parse_for(sql, &self.limits);
        let statement = match (statement, subject.as_deref()) {
            (Ok(statement), _) => statement,
            (Err(error), None) => return Err(error),
            (Err(error), Some(name)) => return Err(self.unread(session, name, sql, error).await),
        };
        let shown = shown(sql, &statement);
        let everyone = !all_users(&statement).is_empty();
        let audited = subject.is_some() || everyone || !statement.is_query() && !is_planned(&statement);
        let fingerprint = audited.then(|| self.fingerprint(sql)).flatten();
        let purpose = Purpose { subject, everyone, fingerprint };
        let prepared = Arc::new(self.prepare_for(session, statement, shown, purpose).await?);
        if let Some((_, basis)) = &prepared.plan {
            // It is found by who sends it.
            let basis = Basis { principal: self.subject(session)?, actor: None, ..basis.clone() };
            self.plans.keep(sql, basis, &prepared);
        }
        Ok(prepared)
    }

    /// Prepares a statement for whom it is.
    async fn prepare_for(
        &self,
        session: &Session,
        statement: Statement,
        shown: Arc<str>,
        purpose: Purpose,
    ) -> Result<Prepared> {
        let prepared = match purpose.is_audited() {
            false => self.prepare_parsed(session, statement, shown)?,
            true => {
                let described = statement.clone();
                let work = |acting: &Session| match all_users(&described).contains(&None) {
                    // The log could not say which table it is.
                    true => Err(wrong_all_users()),
                    false => self.prepare_parsed(acting, statement, shown),
                };
                self.without_running(session, &described, &purpose, work).await?
            }
        };
        Ok(Prepared { purpose, ..prepared })
    }

    pub(crate) fn fingerprint(&self, sql: &str) -> Option<Arc<str>> {
        sql::fingerprint(sql, &self.limits).map(Arc::from)
    }

    /// Whether a text has parameters, be it a statement or not.
    pub fn has_parameters(&self, sql: &str) -> bool {
        sql::has_parameters(sql, &self.limits)
    }

    /// What a statement of this session would mean now. Fixes no snapshot: what follows may be SET TRANSACTION.
    fn basis(&self, session: &Session) -> Result<Basis> {
        let transaction = session.transaction();
        let catalog = match &transaction {
            Some(transaction) => transaction.catalog()?,
            None => Arc::clone(self.store.snapshot().catalog()),
        };
        Ok(Basis {
            catalog: catalog.identity().clone(),
            principal: self.subject(session)?,
            actor: None,
            namespace: session.namespace(),
            temporary: session.temporary().as_deref().map(str::to_owned),
            in_transaction: transaction.is_some(),
        })
    }

    /// The same statement, prepared again if the tables, the user or the namespace are no longer those it was prepared
    /// for: its columns may be others then.
    pub async fn renew(&self, session: &Session, prepared: &Arc<Prepared>) -> Result<Arc<Prepared>> {
        let Some((_, basis)) = &prepared.plan else { return Ok(Arc::clone(prepared)) };
        let now = match prepared.purpose.subject {
            None => self.basis(session)?,
            // Whether it may be for that user is asked when it runs.
            Some(_) => {
                Basis { principal: basis.principal.clone(), actor: Some(self.actor(session)?), ..self.basis(session)? }
            }
        };
        if *basis == now {
            return Ok(Arc::clone(prepared));
        }
        let (statement, shown) = (prepared.statement.clone(), Arc::clone(&prepared.shown));
        Ok(Arc::new(self.prepare_for(session, statement, shown, prepared.purpose.clone()).await?))
    }

    pub(crate) fn prepare_parsed(&self, session: &Session, statement: Statement, shown: Arc<str>) -> Result<Prepared> {
        if !is_planned(&statement) {
            let kind = kind_of(&statement);
            let (schema, parameters) = (listing::schema_of(&statement), parameter_schema(&[]));
            let (purpose, origins) = (Purpose::default(), vec![]);
            let (in_order, plan) = (false, None);
            return Ok(Prepared { statement, shown, purpose, kind, schema, origins, parameters, in_order, plan });
        }
        self.prepare_over(&self.tables_for(session, &statement)?, statement, shown)
    }

    /// Plans a statement over these tables.
    pub(crate) fn prepare_over(&self, tables: &Tables, statement: Statement, shown: Arc<str>) -> Result<Prepared> {
        let typed = plan(&self.statement_state(self.stop()), tables, &statement, None)?;
        let kind = kind_of(&statement);
        let schema = match &statement {
            Statement::Query(_) => client_schema(typed.plan.schema().as_arrow()),
            Statement::Explain { .. } => listing::explain_schema(),
            statement => returning::schema(&self.statement_state(self.stop()), tables, statement, &typed.parameters)?,
        };
        let origins = match &statement {
            Statement::Query(_) => origins(&typed.plan),
            _ => vec![],
        };
        let parameters = parameter_schema(&typed.parameters);
        let in_order = reads_changes(&typed.plan).map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))?;
        let plan = Some((typed, Basis::of(tables)));
        let purpose = Purpose::default();
        Ok(Prepared { statement, shown, purpose, kind, schema, origins, parameters, in_order, plan })
    }

    /// What a statement's names mean now, in its transaction.
    pub(crate) fn tables_for(&self, session: &Session, statement: &Statement) -> Result<Tables> {
        let exposure = match mentions_identifier(statement, system_columns::DELETED) {
            true => Exposure::All,
            false => Exposure::Visible,
        };
        let (snapshot, staged, newest) = match session.transaction() {
            Some(transaction) => {
                let (snapshot, staged) = transaction.view()?;
                (snapshot, Some(staged), Some(Arc::clone(self.store.snapshot().catalog())))
            }
            None => (self.store.snapshot(), None, None),
        };
        Ok(Tables {
            snapshot,
            staged,
            newest,
            principal: self.subject(session)?,
            actor: session.impersonated().map(|_| self.actor(session)).transpose()?,
            reach: session.reach(),
            everyone: session.reads_everyone(),
            namespace: session.namespace(),
            temporary: session.temporary(),
            exposure,
            now_ns: self.store.clock().now_ns(),
            running: Arc::clone(&self.running),
            sessions: Arc::clone(&self.sessions),
            limits: self.limits,
            settings: Arc::clone(&self.settings),
            jobs: Arc::clone(&self.jobs),
            store: Arc::clone(&self.store),
        })
    }

    /// The session state of one statement: `now()` is its time, and it knows when to stop.
    pub(crate) fn statement_state(&self, stop: CancellationToken) -> SessionState {
        let mut state = SessionState::clone(&self.state);
        state.config_mut().set_extension(Arc::new(Stop(stop)));
        let options = Arc::clone(state.config().options());
        state.execution_props_mut().mark_start_execution(options);
        state
    }
}

impl Prepared {
    /// Whether it was planned for tables like these.
    pub(crate) fn fits(&self, tables: &Tables) -> bool {
        self.plan.as_ref().is_some_and(|(_, basis)| *basis == Basis::of(tables))
    }

    /// Its plan over these tables, with these values.
    pub(crate) fn plan_over(
        &self,
        state: &SessionState,
        tables: &Tables,
        values: Vec<ScalarValue>,
    ) -> Result<BoundPlan> {
        write::require_rights(tables, &self.statement)?;
        let typed = match &self.plan {
            Some((typed, _)) if self.fits(tables) => Cow::Borrowed(typed),
            _ => Cow::Owned(plan(state, tables, &self.statement, None)?),
        };
        let again = |bound: Bound<'_>| plan(state, tables, &self.statement, Some(bound));
        let BoundPlan { plan, by_value } = bind_values(&self.statement, &typed, values, again)?;
        let plan = tables.bind(plan).map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))?;
        Ok(BoundPlan { plan, by_value })
    }

    /// The plan of what its ON CONFLICT changes, over these tables, with these values.
    pub(crate) fn conflict_over(
        &self,
        state: &SessionState,
        tables: &Tables,
        values: Vec<ScalarValue>,
    ) -> Result<LogicalPlan> {
        let typed = match &self.plan {
            Some((typed, _)) if self.fits(tables) => Cow::Borrowed(typed),
            _ => Cow::Owned(plan(state, tables, &self.statement, None)?),
        };
        let of_conflict = |typed: &Typed| {
            let none = || EngineError::internal("the statement's ON CONFLICT changes nothing");
            let plan = typed.conflict.as_deref().ok_or_else(none)?.clone();
            Ok(Typed { plan, parameters: typed.parameters.clone(), in_place: typed.in_place, conflict: None })
        };
        let again = |bound: Bound<'_>| of_conflict(&plan(state, tables, &self.statement, Some(bound))?);
        let typed = of_conflict(&typed)?;
        let BoundPlan { plan, .. } = bind_values(&self.statement, &typed, values, again)?;
        tables.bind(plan).map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))
    }
}

/// A statement's text for others to see.
fn shown(sql: &str, statement: &Statement) -> Arc<str> {
    match statement {
        Statement::CreateUser { name, .. } => format!("CREATE USER {name} …").into(),
        Statement::AlterUser { name, change: AlterUser::Password(_) } => {
            format!("ALTER USER {name} SET PASSWORD …").into()
        }
        _ if sql.len() > SHOWN_BYTES_MAX => format!("{}…", &sql[..sql.floor_char_boundary(SHOWN_BYTES_MAX)]).into(),
        _ => sql.into(),
    }
}

fn kind_of(statement: &Statement) -> StatementKind {
    if statement.is_query() { StatementKind::Query } else { StatementKind::Update }
}

fn is_planned(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Query(_)
            | Statement::Explain { .. }
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Merge(_)
    )
}

/// Plans what runs when a statement is executed, or what an EXPLAIN of it shows, with its parameters typed.
fn plan(state: &SessionState, tables: &Tables, statement: &Statement, bound: Option<Bound<'_>>) -> Result<Typed> {
    match statement {
        Statement::Query(query) => plan_select(state, tables, Query::clone(query), hints(statement, &[]), None, bound),
        Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
            write::plan(state, tables, statement, bound)
        }
        Statement::Explain { analyze, inner, .. } if !matches!(**inner, Statement::Explain { .. }) => {
            refuse_analyzed_write(*analyze, inner)?;
            plan(state, tables, inner, bound)
        }
        _ => Err(EngineError::invalid("EXPLAIN shows the plan of a SELECT, INSERT, UPDATE, DELETE or MERGE")),
    }
}

/// Plans a SELECT over the statement's tables and views.
pub(crate) fn plan_select(
    state: &SessionState,
    tables: &Tables,
    query: Query,
    hints: Vec<Option<DataType>>,
    values_schema: Option<DFSchemaRef>,
    bound: Option<Bound<'_>>,
) -> Result<Typed> {
    let typed = plan_uncoerced(state, tables, query, hints, values_schema, bound)?;
    // Types are only right once they are coerced: the branches of a UNION agree on theirs here.
    Ok(Typed { plan: coerced(state, typed.plan)?, ..typed })
}

/// The same, its types not coerced yet.
pub(crate) fn plan_uncoerced(
    state: &SessionState,
    tables: &Tables,
    mut query: Query,
    hints: Vec<Option<DataType>>,
    values_schema: Option<DFSchemaRef>,
    bound: Option<Bound<'_>>,
) -> Result<Typed> {
    let views = Views::of(state, tables, &mut query)?;
    let source = |name: &_| views.source(tables, name);
    plan_query(state, tables, &source, query, hints, values_schema, bound)
}

/// Plans a query over what `source` finds, its types not coerced yet.
pub(crate) fn plan_query(
    state: &SessionState,
    tables: &Tables,
    source: &planner::Tables<'_>,
    mut query: Query,
    hints: Vec<Option<DataType>>,
    values_schema: Option<DFSchemaRef>,
    bound: Option<Bound<'_>>,
) -> Result<Typed> {
    rewrite::put_session_values(&mut query, tables.session_values());
    // What is told apart has its full name in what is written into the query from then on.
    rewrite::tell_apart(&mut query, &|name| tables.namespace_of(name).to_owned());
    let planner = Planner::new(state, source);
    rewrite::join_by_name(&mut query, &|mut side| {
        rewrite::prepare(&mut side)?;
        let typed = plan_typed(&planner, &side, hints.clone(), None, bound);
        let plan = typed.map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))?.plan;
        Ok(plan.schema().fields().iter().map(|field| field.name().clone()).collect())
    })?;
    rewrite::prepare(&mut query)?;
    if tables.exposure == Exposure::All {
        leave_out_deleted(&mut query, &|name| {
            !name.namespace.as_deref().is_some_and(describes) && tables.record(name).is_ok()
        })?;
    }
    let plan = |query: &Query| plan_typed(&planner, query, hints.clone(), values_schema.clone(), bound);
    plan_with_same_names(&query, plan, |typed| &mut typed.plan).map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))
}

/// A plan with the types that it will have.
pub(crate) fn coerced(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let coerced = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {});
    coerced.map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))
}

fn refuse_analyzed_write(analyze: bool, inner: &Statement) -> Result<()> {
    if analyze
        && matches!(inner, Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_))
    {
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
