//! DataFusion's SQL planner over a session's functions and the caller's tables.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::common::{DFSchemaRef, ScalarValue, TableReference, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner};
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{Query, Statement};

use super::mentions::{ALL_USERS, wrong_all_users};
use super::names::TableName;
use super::time_travel::{self, AsOfTables, Timed};
use crate::error::EngineError;
use crate::scan::external;

/// The catalog in which the planner asks for a table's rows of all users.
pub(crate) const ALL_USERS_CATALOG: &str = "seracdb all users";

/// Where the planner finds a table. An error of ours comes out as it is: [`crate::scan::external`] wraps it.
pub(crate) type Tables<'a> = dyn Fn(&TableReference) -> DfResult<Arc<dyn TableSource>> + 'a;

/// What `all_users('ns.t')` is asked for as.
fn all_users_of(args: &[Expr]) -> Result<TableReference, EngineError> {
    let [Expr::Literal(ScalarValue::Utf8(Some(text)), _)] = args else { return Err(wrong_all_users()) };
    let name = TableName::of_text(text).ok_or_else(wrong_all_users)?;
    Ok(TableReference::full(ALL_USERS_CATALOG, name.namespace.unwrap_or_default(), name.table))
}

/// Plans queries. Knows what the session has; the tables are the caller's.
pub(crate) struct Planner<'a> {
    state: &'a SessionState,
    tables: &'a Tables<'a>,
    relations: [Arc<dyn RelationPlanner>; 1],
}

impl<'a> Planner<'a> {
    /// A planner for one statement.
    pub(crate) fn new(state: &'a SessionState, tables: &'a Tables<'a>) -> Self {
        Self { state, tables, relations: [Arc::new(AsOfTables)] }
    }

    /// Plans a query. `parameters`: the types of `$1`, `$2`, … as far as known. `values_schema`: what VALUES are cast to,
    /// for INSERT.
    pub(crate) fn plan(
        &self,
        query: Query,
        parameters: Vec<Option<FieldRef>>,
        values_schema: Option<DFSchemaRef>,
    ) -> DfResult<LogicalPlan> {
        let mut options = ParserOptions::from(&self.state.config_options().sql_parser);
        // Clients and stored columns have no views.
        options.map_string_types_to_utf8view = false;
        options.enable_ident_normalization = true;
        let mut context = PlannerContext::new().with_prepare_param_data_types(parameters);
        context.set_table_schema(values_schema);
        SqlToRel::new_with_options(self, options)
            .sql_statement_to_plan_with_context(Statement::Query(Box::new(query)), &mut context)
    }
}

impl ContextProvider for Planner<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        (self.tables)(&name)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DfResult<Arc<dyn TableSource>> {
        // As it was written.
        let name = name.to_lowercase();
        if name == ALL_USERS {
            let table = all_users_of(&args).map_err(external)?;
            return (self.tables)(&table);
        }
        if let Some(call) = time_travel::call_of(&name, &args) {
            let (table, times) = call.map_err(external)?;
            let source = (self.tables)(&table)?;
            return Ok(Arc::new(match times {
                [time] if name == time_travel::AS_OF => Timed::as_of(source, time.clone()),
                times => Timed::changes(source, times.to_vec()),
            }));
        }
        let function = self
            .state
            .table_functions()
            .get(&name)
            .ok_or_else(|| plan_datafusion_err!("table function '{name}' not found"))?;
        let provider = function.create_table_provider_with_args(TableFunctionArgs::new(&args, self.state))?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
