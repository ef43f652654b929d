//! What a table says of its columns' values beyond their types: DEFAULT, GENERATED ALWAYS AS, CHECK. Kept as SQL in the catalog,
//! planned once for each version of a table's columns.
//!
//! Invariants:
//! 1. A generated column and a CHECK depend on the row alone: no time, chance, subquery or other row.
//! 2. A DEFAULT depends on no row; `now()` in it is the statement's time.
//! 3. Every new version of a row has its generated columns made and its checks done before its unique keys are looked at.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::sqlparser::ast;
use parking_lot::Mutex;
use seracdb_storage::catalog::{CheckRecord, TableRecord};
use seracdb_storage::keys::TableId;
use seracdb_storage::schema::TableSchema;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::prepared::coerced;
use crate::scan::{LOCATION_COLUMNS, external};
use crate::sql::coerce::cast;
use crate::sql::constraints::{ROW, expression, one_row_of};
use crate::sql::errors::from_datafusion;
use crate::sql::insert::exact_decimal;
use crate::sql::params::plan_typed;
use crate::sql::planner::Planner;
use crate::sql::rewrite;

/// Tables above which all are planned again.
const TABLES_MAX: usize = 1000;

/// Those of one table.
#[derive(Debug)]
pub(crate) struct Constraints {
    /// By user column; cast to its type.
    defaults: Vec<Option<Expr>>,
    /// Place of the column, and what it is of the others.
    generated: Vec<(usize, Arc<dyn PhysicalExpr>)>,
    /// Name and text, and what must not be false.
    checks: Vec<(String, String, Arc<dyn PhysicalExpr>)>,
    /// Names of columns that no statement writes.
    generated_names: Vec<String>,
    table: String,
    columns: SchemaRef,
}

/// Those that are planned, by table and version of its columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConstraintCache(Arc<Mutex<Planned>>);

type Planned = HashMap<TableId, (TableSchema, Vec<CheckRecord>, Arc<Constraints>)>;

impl Engine {
    /// What a table says of its values.
    pub(crate) fn constraints(&self, table: &TableRecord) -> Result<Arc<Constraints>> {
        // By what they are made of: a version that was rolled back is not the next one of its number.
        if let Some((schema, checks, known)) = self.constraints.0.lock().get(&table.id)
            && (schema, checks) == (table.schema(), &table.checks)
        {
            return Ok(Arc::clone(known));
        }
        let planned = Arc::new(Constraints::plan(&self.state, table)?);
        let mut known = self.constraints.0.lock();
        if known.len() >= TABLES_MAX {
            known.clear();
        }
        known.insert(table.id, (table.schema().clone(), table.checks.clone(), Arc::clone(&planned)));
        Ok(planned)
    }
}

impl Constraints {
    /// Plans those of a table.
    ///
    /// Errors: an expression that is not possible there, or of another type.
    pub(crate) fn plan(state: &SessionState, table: &TableRecord) -> Result<Self> {
        let schema = table.schema();
        let columns: SchemaRef = Arc::new(Schema::new(schema.user_fields()));
        let mut made = Self {
            table: format!("{}.{}", table.namespace, table.name),
            columns: Arc::clone(&columns),
            defaults: vec![],
            generated: vec![],
            checks: vec![],
            generated_names: vec![],
        };
        let no_columns = Arc::new(Schema::empty());
        for (place, column) in schema.columns.iter().enumerate() {
            let name = &column.name;
            let default = column.default.as_ref().map(|text| {
                planned(state, &no_columns, text, To::Column(name, &column.data_type))
                    .map_err(|error| error.about(&format!("DEFAULT of column '{name}'")))
            });
            made.defaults.push(default.transpose()?);
            if let Some(text) = &column.generated {
                let of = || format!("GENERATED column '{name}'");
                let expr = planned(state, &columns, text, To::Column(name, &column.data_type));
                let expr =
                    expr.and_then(|expr| of_row_alone(&expr).map(|()| expr)).map_err(|error| error.about(&of()))?;
                let others = expr.column_refs().into_iter().map(|column| column.name.clone()).collect::<Vec<_>>();
                if let Some(other) = others
                    .iter()
                    .find(|other| schema.columns.iter().any(|c| c.name == **other && c.generated.is_some()))
                {
                    return Err(EngineError::invalid(format!("{}: column '{other}' is GENERATED too", of())));
                }
                made.generated.push((place, physical(state, &columns, expr)?));
                made.generated_names.push(name.clone());
            }
        }
        for check in &table.checks {
            let of = format!("CHECK '{}'", check.name);
            let expr = planned(state, &columns, &check.expr, To::Condition);
            let expr = expr.and_then(|expr| of_row_alone(&expr).map(|()| expr)).map_err(|error| error.about(&of))?;
            made.checks.push((check.name.clone(), check.expr.clone(), physical(state, &columns, expr)?));
        }
        Ok(made)
    }

    /// What columns are where a statement does not give them, by user column.
    pub(crate) fn defaults(&self) -> &[Option<Expr>] {
        &self.defaults
    }

    /// Names of columns that no statement writes.
    pub(crate) fn generated_names(&self) -> &[String] {
        &self.generated_names
    }

    /// A column where a statement does not give it, for so many rows. `state`: of the statement, for columns that have a DEFAULT.
    pub(crate) fn default_values<'s>(
        &self,
        state: impl FnOnce() -> &'s SessionState,
        place: usize,
        rows: usize,
    ) -> Result<ArrayRef> {
        let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
        match self.defaults.get(place).and_then(Option::as_ref) {
            Some(expr) => {
                let expr = physical(state(), &Arc::new(Schema::empty()), expr.clone())?;
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options);
                let none = none.map_err(|error| failed(error.into()))?;
                expr.evaluate(&none).and_then(|value| value.into_array(rows)).map_err(failed)
            }
            None => Ok(arrow::array::new_null_array(self.columns.field(place).data_type(), rows)),
        }
    }

    /// What a column is in rows that were there before it: one value of its type. Refuses a DEFAULT that is another in each row.
    pub(crate) fn initial_value(&self, state: &SessionState, place: usize) -> Result<ArrayRef> {
        if let Some(Some(default)) = self.defaults.get(place) {
            let refused = refuse_functions(
                default,
                |volatility| volatility == Volatility::Volatile,
                "is another value in each row: add the column without a DEFAULT, UPDATE the rows, then ALTER COLUMN … SET DEFAULT",
            );
            refused
                .map_err(|error| error.about(&format!("DEFAULT of column '{}'", self.columns.field(place).name())))?;
        }
        self.default_values(|| state, place, 1)
    }

    /// Whether new rows need nothing of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.generated.is_empty() && self.checks.is_empty()
    }

    /// New rows with their generated columns, once they are checked. `columns`: the user columns in order; `shows_values`: whether
    /// an error may tell what is in them.
    pub(crate) fn complete(
        &self,
        mut columns: Vec<ArrayRef>,
        rows: usize,
        shows_values: bool,
    ) -> Result<Vec<ArrayRef>> {
        if self.is_empty() {
            return Ok(columns);
        }
        let batch = self.batch(&columns, rows)?;
        for (place, expr) in &self.generated {
            let made = expr.evaluate(&batch).and_then(|value| value.into_array(rows));
            let name = self.columns.field(*place).name();
            let what = format!("GENERATED column '{name}'");
            columns[*place] = made.map_err(|error| not_computed(error, shows_values, &what))?;
        }
        if let Some((name, text)) = self.violated(&columns, rows, shows_values, |_| true)? {
            return Err(EngineError::invalid(format!(
                "a row of table '{}' would violate CHECK '{name}': {text}",
                self.table
            )));
        }
        Ok(columns)
    }

    /// Name and text of a check that rows do not satisfy, of those that are `asked` for by name. `columns`: the user columns in
    /// order, with those that are generated; `shows_values`: whether an error may tell what is in them.
    pub(crate) fn violated(
        &self,
        columns: &[ArrayRef],
        rows: usize,
        shows_values: bool,
        asked: impl Fn(&str) -> bool,
    ) -> Result<Option<(&str, &str)>> {
        let batch = self.batch(columns, rows)?;
        for (name, text, expr) in self.checks.iter().filter(|(name, ..)| asked(name)) {
            let holds = expr.evaluate(&batch).and_then(|value| value.into_array(rows));
            let holds = holds.map_err(|error| not_computed(error, shows_values, &format!("CHECK '{name}'")))?;
            // What is not known to be false is possible, as the standard has it.
            if holds.as_boolean().false_count() > 0 {
                return Ok(Some((name.as_str(), text.as_str())));
            }
        }
        Ok(None)
    }

    fn batch(&self, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        // NOT NULL is asked for where rows are encoded.
        let fields = self.columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema, columns.to_vec(), &options);
        batch.map_err(|error| from_datafusion(error.into(), &LOCATION_COLUMNS))
    }
}

/// What cannot be computed is told with the values that it was to be computed of.
fn not_computed(error: DataFusionError, shows_values: bool, what: &str) -> EngineError {
    let error = from_datafusion(error, &LOCATION_COLUMNS);
    if shows_values { error } else { EngineError::new(error.kind, format!("{what} cannot be computed")) }
}

/// What an expression becomes.
enum To<'a> {
    /// A value of a column of this name and type.
    Column(&'a str, &'a DataType),
    /// True or false.
    Condition,
}

/// An expression over these columns.
fn planned(state: &SessionState, columns: &SchemaRef, text: &str, to: To<'_>) -> Result<Expr> {
    let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
    let row = Arc::new(MemTable::try_new(Arc::clone(columns), vec![vec![]]).map_err(failed)?);
    let source = |name: &TableReference| match name.table() == ROW {
        true => Ok(provider_as_source(Arc::clone(&row) as _)),
        false => Err(external(EngineError::invalid("it may not read a table"))),
    };
    let planner = Planner::new(state, &source);
    let has_columns = !columns.fields().is_empty();
    let mut expr = expression(text)?;
    if let To::Column(_, data_type) = &to {
        exact_decimal(&mut expr, data_type);
    }
    // Read as in a statement. There, too, a number alone is its column's to read.
    let is_number = matches!(&expr, ast::Expr::Value(value) if matches!(value.value, ast::Value::Number(..)));
    let mut query = one_row_of(expr, has_columns);
    if !is_number {
        rewrite::prepare(&mut query)?;
    }
    let typed = plan_typed(&planner, &query, vec![], None, None).map_err(failed)?;
    let LogicalPlan::Projection(projection) = coerced(state, typed.plan)? else {
        return Err(EngineError::invalid("aggregates and window functions are not possible here"));
    };
    let expr = projection.expr[0].clone().unalias();
    if !matches!(
        &*projection.input,
        LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::SubqueryAlias(_)
    ) {
        return Err(EngineError::invalid("aggregates, window functions and subqueries are not possible here"));
    }
    if expr
        .exists(|expr| Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_))))
        .map_err(failed)?
    {
        return Err(EngineError::invalid("subqueries are not possible here"));
    }
    // By name alone: rows come from anywhere.
    let plain = projection.input.as_ref().clone();
    let expr = match to {
        To::Column(name, data_type) => cast(expr, name, data_type, &plain)?,
        To::Condition => match expr.get_type(plain.schema()).map_err(failed)? {
            DataType::Boolean => expr,
            DataType::Null => cast(expr, "", &DataType::Boolean, &plain)?,
            other => return Err(EngineError::invalid(format!("it is of type {other}, and no condition"))),
        },
    };
    unqualified(expr).map_err(failed)
}

fn unqualified(expr: Expr) -> datafusion::error::Result<Expr> {
    use datafusion::common::Column;
    use datafusion::common::tree_node::Transformed;
    let made = expr.transform(|expr| match expr {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::from_name(column.name)))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(made.data)
}

fn physical(state: &SessionState, columns: &SchemaRef, expr: Expr) -> Result<Arc<dyn PhysicalExpr>> {
    let failed = |error| from_datafusion(error, &LOCATION_COLUMNS);
    let schema = DFSchema::try_from(columns.as_ref().clone()).map_err(failed)?;
    // now(), coalesce and others are simplified to what can be evaluated.
    let simplifying = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let expr = ExprSimplifier::new(simplifying).simplify(expr).map_err(failed)?;
    state.create_physical_expr(expr, &schema).map_err(failed)
}

/// Refuses what is another value the next time.
fn of_row_alone(expr: &Expr) -> Result<()> {
    let changes = |volatility| volatility != Volatility::Immutable;
    refuse_functions(expr, changes, "is another value the next time: it is possible in a DEFAULT only")
}

/// Refuses functions that are `refused`, and says what they are.
fn refuse_functions(expr: &Expr, refused: impl Fn(Volatility) -> bool, they: &str) -> Result<()> {
    let changes = |expr: &Expr| match expr {
        Expr::ScalarFunction(call) if refused(call.func.signature().volatility) => Some(call.func.name().to_owned()),
        _ => None,
    };
    let mut found = None;
    let looked = expr.apply(|expr| {
        found = found.take().or(changes(expr));
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    looked.map_err(|error| from_datafusion(error, &LOCATION_COLUMNS))?;
    match found {
        Some(name) => Err(EngineError::invalid(format!("{name}() {they}"))),
        None => Ok(()),
    }
}
