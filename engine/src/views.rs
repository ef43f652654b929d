//! Views: the text of a query, planned wherever the view's name stands, over the statement's snapshot and for its user.
//!
//! Invariants:
//! 1. What a view's names mean is found in the namespace that it was created in, never among temporary tables.
//! 2. `*` in it means the columns that its tables had when it was created, and it shows the columns that it had itself:
//!    when they are no longer to be had, that is an error, and never other columns.
//! 3. What is in the views of a statement counts against the limits of the statement.
//! 4. Who reads a view needs the right to, and to read all that it reads: it shows nobody what they may not see without it.
//! 5. Views never read themselves, and nest so deep and no deeper: the catalog sees to it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::{Column, TableReference};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, TableType};
use datafusion::sql::sqlparser::ast::Query;
use seracdb_storage::catalog::{Catalog, CatalogChange, Privilege, Readers, ViewRead, ViewRecord};
use seracdb_storage::schema::TableSchema;
use seracdb_storage::system_columns;

use crate::ddl::forgive;
use crate::discretion::taken;
use crate::engine::Engine;
use crate::error::{EngineError, ErrorKind, Result};
use crate::naming::check_name;
use crate::output::client_schema;
use crate::prepared::{coerced, plan_query};
use crate::rights::Object;
use crate::scan::{Exposure, LOCATION_COLUMNS};
use crate::session::{Session, describes};
use crate::sql::errors::from_datafusion;
use crate::sql::limits::{Size, fit_with};
use crate::sql::mentions::{mentions_identifier, relations_of};
use crate::sql::names::CATALOG;
use crate::sql::statement::CreateView;
use crate::sql::time_travel::mentions_time;
use crate::sql::{self, Limits, Statement, TableName};
use crate::tables::Tables;
use crate::temporary::is_temporary;

/// The catalog of the name that a view's columns have in a plan. No statement can give a name of three parts.
const VIEW_CATALOG: &str = "view";

/// Namespace and name.
type ViewKey = (String, String);

/// The views that a statement reads, themselves or by others.
#[derive(Default)]
pub(crate) struct Views(HashMap<ViewKey, View>);

struct View {
    plan: LogicalPlan,
    size: Size,
}

impl Views {
    /// Those of a query, planned. Refuses a query that is too much together with them.
    pub(crate) fn of(state: &SessionState, tables: &Tables, query: &mut Query) -> Result<Self> {
        let mut views = Self::default();
        if tables.catalog().views().next().is_none() {
            return Ok(views);
        }
        let mut needed = Vec::new();
        for name in relations_of(query) {
            if let Some(view) = tables.view(&name) {
                tables.require_right(Object::View(view), Privilege::Select)?;
                collect(tables.catalog(), tables.namespace_of(&name), &name.table, &mut needed);
            }
        }
        for view in needed {
            tables.require_below(&view)?;
            let planned = views.plan(state, tables, &view)?;
            views.0.insert((view.namespace.clone(), view.name.clone()), planned);
        }
        if !views.0.is_empty() {
            views.measure(tables, query)?;
        }
        Ok(views)
    }

    /// What the planner asks for.
    pub(crate) fn source(&self, tables: &Tables, name: &TableReference) -> DfResult<Arc<dyn TableSource>> {
        let key = self.key(tables, name);
        match key.and_then(|key| self.0.get(&key)) {
            Some(view) => Ok(Arc::new(Expanded::new(view.plan.clone()))),
            None => tables.source(name),
        }
    }

    fn key(&self, tables: &Tables, name: &TableReference) -> Option<ViewKey> {
        if self.0.is_empty() || name.catalog().is_some_and(|catalog| catalog != CATALOG) {
            return None;
        }
        let name = TableName { namespace: name.schema().map(str::to_owned), table: name.table().to_owned() };
        Some((tables.namespace_of(&name).to_owned(), name.table))
    }

    fn measure(&self, tables: &Tables, query: &mut Query) -> Result<Size> {
        fit_with(query, &Limits::default(), &|name| {
            let name = TableName::parse(name).ok()?;
            let key = (tables.namespace_of(&name).to_owned(), name.table.clone());
            self.0.get(&key).map(|view| view.size)
        })
    }

    /// Plans a view whose own views are known.
    fn plan(&self, state: &SessionState, tables: &Tables, view: &ViewRecord) -> Result<View> {
        let Statement::Query(mut query) = sql::parse(&view.query, &Limits::default())? else {
            return Err(EngineError::internal(format!("view '{}.{}' is no query", view.namespace, view.name)));
        };
        let tables = inside(tables, &view.resolves_in, &query);
        let size = self.measure(&tables, &mut query)?;
        let source = |name: &TableReference| self.pinned(&tables, view, name);
        let plan = plan_query(state, &tables, &source, *query, vec![], None, None);
        let plan =
            plan.and_then(|typed| fixed(state, typed.plan, view)).map_err(|error| no_longer_fits(view, error))?;
        Ok(View { plan, size })
    }

    /// What a view's query names, with the columns that it had when the view was created, as far as they are still there.
    fn pinned(&self, tables: &Tables, view: &ViewRecord, name: &TableReference) -> DfResult<Arc<dyn TableSource>> {
        let source = self.source(tables, name)?;
        let table = TableName { namespace: name.schema().map(str::to_owned), table: name.table().to_owned() };
        let namespace = tables.namespace_of(&table);
        let Some(read) = view.reads.iter().find(|read| read.namespace == namespace && read.name == table.table) else {
            return Ok(source);
        };
        let schema = source.schema();
        let kept: Vec<usize> = read.columns.iter().filter_map(|column| schema.index_of(column).ok()).collect();
        if kept.iter().copied().eq(0..schema.fields().len()) {
            return Ok(source);
        }
        Ok(Arc::new(Expanded::new(LogicalPlanBuilder::scan(name.clone(), source, Some(kept))?.build()?)))
    }
}

/// The views below a name, each after those that it reads.
fn collect(catalog: &Catalog, namespace: &str, name: &str, found: &mut Vec<Arc<ViewRecord>>) {
    let Some(view) = catalog.view(namespace, name) else { return };
    if found.iter().any(|known| Arc::ptr_eq(known, view)) {
        return;
    }
    for read in view.reads.iter().filter(|read| !read.built_in) {
        collect(catalog, &read.namespace, &read.name, found);
    }
    found.push(Arc::clone(view));
}

/// A view, and all views that it reads, themselves or by others.
pub(crate) fn below(catalog: &Catalog, view: &ViewRecord) -> Vec<Arc<ViewRecord>> {
    let mut found = Vec::new();
    collect(catalog, &view.namespace, &view.name, &mut found);
    found
}

/// What the names in a view mean.
fn inside(tables: &Tables, namespace: &str, query: &Query) -> Tables {
    let query = Statement::Query(Box::new(query.clone()));
    let exposure = match mentions_identifier(&query, system_columns::DELETED) {
        true => Exposure::All,
        false => Exposure::Visible,
    };
    Tables { namespace: namespace.to_owned(), temporary: None, exposure, everyone: false, ..tables.clone() }
}

/// A view's plan with the columns that the view was created with.
fn fixed(state: &SessionState, plan: LogicalPlan, view: &ViewRecord) -> Result<LogicalPlan> {
    // A plan's types are only right once they are coerced. It is left as it was: the whole statement's will be.
    let now = client_schema(coerced(state, plan.clone())?.schema().as_arrow());
    if now.fields().len() != view.columns.len() {
        let (is, was) = (now.fields().len(), view.columns.len());
        return Err(EngineError::invalid(format!("its query now gives {is} columns, and gave {was}")));
    }
    let other = now.fields().iter().zip(&view.columns).find(|(now, was)| now.data_type() != &was.data_type);
    if let Some((now, was)) = other {
        let (name, is, was) = (&was.name, now.data_type(), &was.data_type);
        return Err(EngineError::invalid(format!("its column '{name}' is now of type {is}, and was of type {was}")));
    }
    named(plan, view.columns.iter().map(|column| column.name.as_str()))
        .and_then(|plan| plan.alias(TableReference::full(VIEW_CATALOG, view.namespace.as_str(), view.name.as_str())))
        .and_then(LogicalPlanBuilder::build)
        .map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))
}

/// The view that a name in a plan is.
pub(crate) fn view_of(alias: &TableReference) -> Option<(&str, &str)> {
    (alias.catalog() == Some(VIEW_CATALOG)).then(|| Some((alias.schema()?, alias.table()))).flatten()
}

fn named<'a>(plan: LogicalPlan, names: impl Iterator<Item = &'a str>) -> DfResult<LogicalPlanBuilder> {
    let columns = plan.schema().iter().map(|(table, field)| Column::new(table.cloned(), field.name()));
    let columns: Vec<Expr> = columns.zip(names).map(|(column, name)| Expr::Column(column).alias(name)).collect();
    LogicalPlanBuilder::from(plan).project(columns)
}

fn no_longer_fits(view: &ViewRecord, error: EngineError) -> EngineError {
    let kind = match error.kind {
        ErrorKind::NotFound | ErrorKind::InvalidArgument => ErrorKind::InvalidArgument,
        other => other,
    };
    let (namespace, name) = (&view.namespace, &view.name);
    EngineError { kind, message: format!("the view '{namespace}.{name}' no longer fits: {}", error.message), ..error }
}

/// A plan where the planner looks for a table.
struct Expanded {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl Expanded {
    fn new(plan: LogicalPlan) -> Self {
        let schema = Arc::new(plan.schema().as_arrow().clone());
        Self { plan, schema }
    }
}

impl TableSource for Expanded {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// CREATE VIEW.
pub(crate) async fn create(engine: &Engine, session: &Session, tables: &Tables, create: &CreateView) -> Result<()> {
    let namespace = create.name.namespace.as_deref().unwrap_or(&tables.namespace);
    check_name("view", &create.name.table)?;
    if describes(namespace) {
        return Err(EngineError::invalid(format!("views of {namespace} cannot be created")));
    }
    if is_temporary(namespace) {
        return Err(EngineError::invalid("there are no temporary views: create it in another namespace"));
    }
    if create.or_replace
        && let Some(before) = tables.catalog().view(namespace, &create.name.table)
    {
        if !tables.sees(Object::View(before)) {
            return Err(taken(&format!("{}.{}", before.namespace, before.name)));
        }
        tables.require_owner(Object::View(before), "CREATE OR REPLACE VIEW")?;
    }
    let view = new_view(engine, tables, namespace, create)?;
    let read = view.reads.iter().filter_map(|read| tables.catalog().table(&read.namespace, &read.name));
    let same_columns: Vec<CatalogChange> = read.map(|table| table.same_columns().into()).collect();
    let replaced = create.or_replace.then(|| tables.same_view(namespace, &create.name.table));
    let change = CatalogChange::CreateView { view, replace: create.or_replace };
    let changes =
        [tables.same_namespace(namespace)].into_iter().chain(same_columns).chain(replaced).chain([change]).collect();
    forgive(engine.change_catalog(session, changes).await, ErrorKind::AlreadyExists, create.if_not_exists)
}

/// The record of a view to be created.
fn new_view(engine: &Engine, tables: &Tables, namespace: &str, create: &CreateView) -> Result<ViewRecord> {
    let names = relations_of(&create.query);
    if let Some(name) = names.iter().find(|name| is_temporary(tables.namespace_of(name))) {
        return Err(EngineError::invalid(format!(
            "a view cannot read the temporary table '{name}', which goes with its session"
        )));
    }
    if mentions_time(&create.query) {
        return Err(EngineError::invalid(
            "a view cannot read a table AS OF a time, or changes(…): its times would pass",
        ));
    }
    let (state, mut query) = (engine.statement_state(engine.stop()), Query::clone(&create.query));
    let tables = inside(tables, &tables.namespace, &query);
    let views = Views::of(&state, &tables, &mut query)?;
    let reads = reads(&views, &tables, &names)?;
    let source = |name: &TableReference| views.source(&tables, name);
    let plan = plan_query(&state, &tables, &source, query, vec![], None, None)?.plan;
    let schema = client_schema(coerced(&state, plan)?.schema().as_arrow());
    let fields = column_fields(schema.fields(), &create.columns)?;
    Ok(ViewRecord {
        namespace: namespace.to_owned(),
        name: create.name.table.clone(),
        query: create.text.clone(),
        resolves_in: tables.namespace.clone(),
        columns: TableSchema::first(&fields).columns,
        reads,
        comment: None,
        column_comments: BTreeMap::new(),
        created_at_ns: engine.now_ns(),
        created_by: tables.principal.name().to_owned(),
    })
}

/// What a query reads, with the columns that it sees there.
fn reads(views: &Views, tables: &Tables, names: &[TableName]) -> Result<Vec<ViewRead>> {
    let mut reads: Vec<ViewRead> = Vec::new();
    for name in names {
        let namespace = tables.namespace_of(name);
        if reads.iter().any(|known| known.namespace == namespace && known.name == name.table) {
            continue;
        }
        let reference = match &name.namespace {
            Some(namespace) => TableReference::partial(namespace.as_str(), name.table.as_str()),
            None => TableReference::bare(name.table.as_str()),
        };
        let source = views.source(tables, &reference).map_err(|e| from_datafusion(e, &LOCATION_COLUMNS))?;
        reads.push(ViewRead {
            namespace: namespace.to_owned(),
            name: name.table.clone(),
            columns: source.schema().fields().iter().map(|field| field.name().clone()).collect(),
            built_in: describes(namespace),
        });
    }
    Ok(reads)
}

/// The columns of a view: those of its query, by their names or those that are given.
fn column_fields(fields: &[FieldRef], names: &[String]) -> Result<Vec<arrow::datatypes::Field>> {
    if !names.is_empty() && names.len() != fields.len() {
        let (named, given) = (names.len(), fields.len());
        return Err(EngineError::invalid(format!("the view names {named} columns, but its query gives {given}")));
    }
    let mut columns: Vec<arrow::datatypes::Field> = Vec::with_capacity(fields.len());
    for (i, field) in fields.iter().enumerate() {
        let name = names.get(i).unwrap_or(field.name());
        check_name("column", name)?;
        if columns.iter().any(|known| known.name() == name) {
            return Err(EngineError::invalid(format!(
                "column '{name}' is there twice: name the view's columns, CREATE VIEW name (column, …) AS …"
            )));
        }
        columns.push(field.as_ref().clone().with_name(name));
    }
    Ok(columns)
}

/// A view's record; an unknown one is NotFound with what was probably meant.
pub(crate) fn view<'a>(tables: &'a Tables, name: &TableName) -> Result<&'a Arc<ViewRecord>> {
    if let Some(view) = tables.view(name) {
        return Ok(view);
    }
    if tables.record(name).is_ok() {
        return Err(EngineError::invalid(format!("'{name}' is a table, not a view")));
    }
    let known: Vec<String> = tables.views().map(|view| tables.shown_name(&view.namespace, &view.name, name)).collect();
    Err(tables.unknown("view", name, &known))
}

/// What becomes of the views over a table that is dropped.
pub(crate) fn readers(cascade: bool) -> Readers {
    if cascade { Readers::Drop } else { Readers::Refuse }
}
