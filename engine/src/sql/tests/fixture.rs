//! A session with tables `t`, `u` and `ns.t` in memory, and the way from text to rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int16Array, Int32Array, Int64Array, StringArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::{ScalarValue, TableReference};
use datafusion::datasource::{MemTable, TableProvider, provider_as_source};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Query;
use seracdb_storage::system_columns;

use crate::error::{EngineError, Result};
use crate::scan::external;
use crate::sql::defaults::{Writable, put_defaults};
use crate::sql::errors::from_datafusion;
use crate::sql::fit::bind_values;
use crate::sql::insert::insert_plan;
use crate::sql::params::{Bound, Typed, hints, plan_typed};
use crate::sql::planner::Planner;
use crate::sql::rewrite::same_names::plan_with_same_names;
use crate::sql::statement::Statement;
use crate::sql::{Limits, TableName, coerce, dml, parse, rewrite, rules, suggest, wildcards};

/// Hidden columns of the fixture's tables.
pub(super) const LOCATION: [&str; 1] = ["row_place"];

pub(super) struct Fixture {
    context: SessionContext,
    tables: HashMap<String, Arc<dyn TableProvider>>,
    with_deleted: bool,
    pub(super) limits: Limits,
}

impl Fixture {
    /// Tables as the provider shows them to a statement that does not mention `_deleted`.
    pub(super) fn new() -> Self {
        Self::with(false)
    }

    /// Tables as the provider shows them to one that does.
    pub(super) fn with_deleted() -> Self {
        Self::with(true)
    }

    fn with(with_deleted: bool) -> Self {
        let mut tables: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
        tables.insert(
            "t".into(),
            table(
                with_deleted,
                vec![
                    ("a", Arc::new(Int32Array::from(vec![Some(1), Some(2), None]))),
                    ("b", Arc::new(StringArray::from(vec!["x", "y", "z"]))),
                    ("s", Arc::new(Int16Array::from(vec![10, 20, 30]))),
                ],
            ),
        );
        tables.insert(
            "u".into(),
            table(
                with_deleted,
                vec![
                    ("a", Arc::new(Int32Array::from(vec![2, 3, 4]))),
                    ("c", Arc::new(StringArray::from(vec!["p", "q", "r"]))),
                ],
            ),
        );
        tables.insert("ns.t".into(), table(with_deleted, vec![("n", Arc::new(Int64Array::from(vec![7, 8, 9])))]));
        let amount = Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(38, 2).unwrap());
        tables.insert("money".into(), table(with_deleted, vec![("amount", amount)]));
        tables.insert("plain".into(), Arc::new(memory(vec![("k", Arc::new(Int32Array::from(vec![1])))])));
        let context = SessionContext::new_with_state(rules::state_builder().build());
        Self { context, tables, with_deleted, limits: Limits::default() }
    }

    /// The user columns of a table.
    pub(super) fn columns(&self, table: &TableName) -> Vec<(String, DataType)> {
        let system = |name: &str| system_columns::is_system_column(name) || LOCATION.contains(&name);
        let schema = self.tables[&table.to_string()].schema();
        let fields = schema.fields().iter().filter(|field| !system(field.name()));
        fields.map(|field| (field.name().clone(), field.data_type().clone())).collect()
    }

    /// The statement's query, planned and typed.
    pub(super) fn typed(&self, sql: &str) -> Result<Typed> {
        self.typed_statement(&parse(sql, &self.limits)?, None)
    }

    fn typed_statement(&self, statement: &Statement, bound: Option<Bound<'_>>) -> Result<Typed> {
        let columns = match statement {
            Statement::Insert(insert) => self.columns(&insert.table),
            Statement::Update(update) => self.columns(&update.table),
            _ => vec![],
        };
        let writable = Writable { user_columns: &columns, generated: &[] };
        let statement = &put_defaults(statement, &writable, |_| Ok(None))?;
        let hints = hints(statement, &columns);
        let mut values_schema = None;
        let mut targets = vec![];
        let mut query = match statement {
            Statement::Query(query) => query.as_ref().clone(),
            Statement::Insert(insert) => {
                let plan = insert_plan(insert, &writable)?;
                (values_schema, targets) = (plan.values_schema, plan.targets);
                plan.query
            }
            Statement::Update(update) => dml::update_query(update, &columns, &LOCATION, &[])?,
            Statement::Delete(delete) => dml::delete_query(delete, &LOCATION, &[], &[])?,
            other => panic!("not planned: {other:?}"),
        };
        rewrite::prepare(&mut query)?;
        if self.with_deleted {
            wildcards::leave_out_deleted(&mut query, &|name| {
                name.table != "plain" && self.tables.contains_key(&name.to_string())
            })?;
        }
        let state = self.context.state();
        let find = |name: &TableReference| {
            let known = || self.tables.keys().map(String::as_str);
            let name = match name.catalog() {
                Some(dml::TARGET_CATALOG) => &TableReference::partial(name.schema().unwrap_or_default(), name.table()),
                _ => name,
            };
            let table = self.tables.get(&name.to_string()).ok_or_else(|| {
                external(EngineError::not_found(suggest::unknown("table", &name.to_string(), known())))
            })?;
            Ok(provider_as_source(Arc::clone(table)))
        };
        let planner = Planner::new(&state, &find);
        let plan = |query: &Query| plan_typed(&planner, query, hints.clone(), values_schema.clone(), bound);
        let mut typed =
            plan_with_same_names(&query, plan, |typed| &mut typed.plan).map_err(|e| from_datafusion(e, &LOCATION))?;
        typed.plan = match statement {
            Statement::Insert(insert) => coerce::insert_projection(typed.plan, &targets, insert, &columns, &[])?,
            Statement::Update(_) => {
                let skipped = typed.plan.schema().fields().len() - columns.len();
                let user = columns.iter().map(|(name, data_type)| Some((name.as_str(), data_type)));
                let types: Vec<_> = std::iter::repeat_n(None, skipped).chain(user).collect();
                coerce::conform(typed.plan, &types)?
            }
            _ => typed.plan,
        };
        Ok(typed)
    }

    /// Types of the parameters, as text.
    pub(super) fn parameters(&self, sql: &str) -> String {
        let typed = self.typed(sql).unwrap_or_else(|e| panic!("{sql}: {}", e.message));
        typed.parameters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The rows, as a table of text.
    pub(super) fn rows(&self, sql: &str, values: Vec<ScalarValue>) -> Result<String> {
        let typed = self.typed(sql)?;
        let statement = parse(sql, &self.limits)?;
        let again = |bound: Bound<'_>| self.typed_statement(&statement, Some(bound));
        let mut batches = self.run(bind_values(&statement, &typed, values, again)?.plan)?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(Arc::new(typed.plan.schema().as_arrow().clone())));
        }
        Ok(pretty_format_batches(&batches).unwrap().to_string())
    }

    /// The rows without frame: cells joined by `,`, rows by `;`, names first.
    pub(super) fn cells(&self, sql: &str, values: Vec<ScalarValue>) -> Result<String> {
        let table = self.rows(sql, values)?;
        let rows = table.lines().filter(|line| line.starts_with('|'));
        let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(","));
        Ok(cells.collect::<Vec<_>>().join(";"))
    }

    pub(super) fn run(&self, plan: LogicalPlan) -> Result<Vec<RecordBatch>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let rows = runtime.block_on(async { self.context.execute_logical_plan(plan).await?.collect().await });
        rows.map_err(|e| from_datafusion(e, &LOCATION))
    }
}

fn table(with_deleted: bool, user: Vec<(&'static str, ArrayRef)>) -> Arc<dyn TableProvider> {
    let rows = user[0].1.len();
    let numbers = |from: i64| (from..from + rows as i64).collect::<Vec<_>>();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (LOCATION[0], Arc::new(Int64Array::from(numbers(1000)))),
        (system_columns::ID, Arc::new(Int64Array::from(numbers(1)))),
    ];
    // The hidden location is in DML's provider only; SELECT tests do without.
    if with_deleted {
        columns.remove(0);
    }
    columns.extend(user);
    columns.push((system_columns::UPDATED, Arc::new(TimestampNanosecondArray::from(numbers(100)))));
    if with_deleted {
        columns.push((system_columns::DELETED, Arc::new(BooleanArray::from(vec![false; rows]))));
    }
    Arc::new(memory(columns))
}

fn memory(columns: Vec<(&str, ArrayRef)>) -> MemTable {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
    MemTable::try_new(schema, vec![vec![batch]]).unwrap()
}
