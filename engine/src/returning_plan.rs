//! RETURNING as it is planned: over the rows that were written, and what they were joined with.
//!
//! ```text
//! UPDATE t SET a = s.v FROM s WHERE s.k = t.k RETURNING t.a, s.w
//!
//! SELECT t.a, s.w FROM t, s                                            planned, it tells that s.w is named;
//! SELECT t.<location>…, s.v AS a, s.w AS <carried> FROM t, s WHERE …   finds the rows, and carries that along;
//! SELECT t.a, s.w FROM (SELECT … FROM <rows that were written>)        is the first one again over these
//! ```
//! Invariants:
//! 1. What can be planned over the target alone is: there `*` is its columns, and a name is that of one of them. Only else the
//!    columns of others are in sight, too.
//! 2. They are those of the row of the others by which a row was written: of a row that a DELETE finds with several, of any one
//!    of them; of one that MERGE finds with none, NULL.
//! 3. Nothing but row by row: there are as many rows as were written.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, TableReference};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder, Projection};
use datafusion::sql::sqlparser::ast::{Ident, TableWithJoins};
use seracdb_storage::catalog::TableRecord;

use crate::error::{EngineError, Result};
use crate::prepared::{coerced, plan_query};
use crate::returning::Returned;
use crate::scan::LOCATION_COLUMNS;
use crate::sql::Statement;
use crate::sql::branches::each_expression;
use crate::sql::dml::{TARGET_CATALOG, returning_query};
use crate::sql::errors::from_datafusion;
use crate::sql::merge::source_in_sight;
use crate::sql::params::{Bound, Typed, has_placeholder, is_of_returning};
use crate::tables::Tables;
use crate::views::Views;
use crate::write::full_name;

/// The rows that were written, in a plan.
const WRITTEN: &str = "seracdb written";

/// What a column that is carried along is called.
pub(crate) fn carried_name(place: usize) -> String {
    format!("seracdb carried {place}")
}

/// The RETURNING of a statement that writes to this table.
#[derive(Clone, Copy)]
pub(crate) struct Returning<'a> {
    pub(crate) state: &'a SessionState,
    pub(crate) tables: &'a Tables,
    pub(crate) statement: &'a Statement,
    pub(crate) table: &'a TableRecord,
}

/// RETURNING over rows.
pub(crate) struct Planned {
    /// Its parameters: all of the statement, or none where it has none itself.
    pub(crate) typed: Typed,
    /// The columns of others than the target that it names.
    carried: Vec<Column>,
}

/// What the plan of a statement has to know of its RETURNING.
pub(crate) struct Needed {
    /// The types of parameters that are known before that plan.
    pub(crate) hints: Vec<Option<DataType>>,
    /// The columns that it is to carry along.
    pub(crate) carried: Vec<Column>,
}

impl Returning<'_> {
    /// What it needs of its statement's plan. `hints`: what the text tells of the types of parameters.
    pub(crate) fn needed(&self, mut hints: Vec<Option<DataType>>, bound: Option<Bound<'_>>) -> Result<Needed> {
        let items = self.statement.returning().unwrap_or_default();
        let is_plain = self.others().is_empty() && !items.iter().any(has_placeholder);
        let none = match is_plain {
            true => None,
            false => Returned::wanted(self.statement, self.table, self.tables.exposure, &[]),
        };
        let Some(none) = none else { return Ok(Needed { hints, carried: vec![] }) };
        let Planned { typed, carried } = self.plan(&none, &hints, bound)?;
        // Of values the types are known.
        if bound.is_none() {
            for (place, hint) in hints.iter_mut().enumerate().filter(|(_, hint)| hint.is_none()) {
                if is_of_returning(self.statement, place + 1) {
                    *hint = typed.parameters.get(place).cloned();
                }
            }
        }
        Ok(Needed { hints, carried })
    }

    /// Plans it over these rows. `types`: of the statement's parameters, as far as they are known.
    pub(crate) fn plan(
        &self,
        rows: &Returned,
        types: &[Option<DataType>],
        bound: Option<Bound<'_>>,
    ) -> Result<Planned> {
        let others = self.others();
        match self.over_target(rows, types, bound) {
            Err(_) if !others.is_empty() => self.over_all(&others, rows, types, bound),
            alone => Ok(Planned { typed: alone?, carried: vec![] }),
        }
    }

    /// What the target is joined with.
    fn others(&self) -> Vec<TableWithJoins> {
        match self.statement {
            Statement::Update(update) => update.from.clone(),
            Statement::Delete(delete) => delete.using.clone(),
            Statement::Merge(merge) => vec![TableWithJoins { relation: source_in_sight(merge), joins: vec![] }],
            _ => vec![],
        }
    }

    fn over_target(&self, rows: &Returned, types: &[Option<DataType>], bound: Option<Bound<'_>>) -> Result<Typed> {
        let typed = self.typed(&[], rows.as_table()?, types, bound)?;
        refuse_other_rows(&typed.plan)?;
        Ok(Typed { plan: coerced(self.state, typed.plan)?, ..typed })
    }

    fn over_all(
        &self,
        others: &[TableWithJoins],
        rows: &Returned,
        types: &[Option<DataType>],
        bound: Option<Bound<'_>>,
    ) -> Result<Planned> {
        let target = MemTable::try_new(rows.of_target(), vec![vec![]]).map_err(failed)?;
        let typed = self.typed(others, target, types, bound)?;
        let (plan, carried) = self.over_written(typed.plan, rows)?;
        Ok(Planned { typed: Typed { plan: coerced(self.state, plan)?, ..typed }, carried })
    }

    /// Plans it with this in the place of the target, its types not coerced yet.
    fn typed(
        &self,
        others: &[TableWithJoins],
        target: MemTable,
        types: &[Option<DataType>],
        bound: Option<Bound<'_>>,
    ) -> Result<Typed> {
        let alias: Option<&Ident> = match self.statement {
            Statement::Insert(insert) => insert.alias.as_ref(),
            Statement::Update(update) => update.alias.as_ref(),
            Statement::Delete(delete) => delete.alias.as_ref(),
            Statement::Merge(merge) => merge.alias.as_ref(),
            _ => None,
        };
        let items = self.statement.returning().unwrap_or_default();
        let mut query = returning_query(&full_name(self.table), alias, items, others);
        let types = if has_placeholder(&query) { types.to_vec() } else { vec![] };
        let views = Views::of(self.state, self.tables, &mut query)?;
        let target: Arc<dyn TableProvider> = Arc::new(target);
        let source = |name: &TableReference| match name.catalog() == Some(TARGET_CATALOG) {
            true => Ok(provider_as_source(Arc::clone(&target))),
            false => views.source(self.tables, name),
        };
        plan_query(self.state, self.tables, &source, query, types, None, bound)
    }

    /// A plan over all in sight as one over the rows that were written, with what they carry along; and which columns these are.
    fn over_written(&self, plan: LogicalPlan, rows: &Returned) -> Result<(LogicalPlan, Vec<Column>)> {
        let LogicalPlan::Projection(projection) = plan else { return Err(other_rows()) };
        match projection.input.as_ref() {
            // Columns of one name have another one above.
            LogicalPlan::Projection(_) => {
                let (input, carried) = self.over_written(Arc::unwrap_or_clone(projection.input), rows)?;
                Ok((project(projection.expr, input)?, carried))
            }
            LogicalPlan::Join(_) => {
                let named = named_columns(&LogicalPlan::Projection(projection.clone())).map_err(failed)?;
                // Types are what they are only once they are coerced.
                let typed = coerced(self.state, LogicalPlan::clone(&projection.input))?;
                let in_sight = projection.input.schema();
                let own = rows.of_target().fields().len();
                let all = in_sight.iter().zip(typed.schema().fields());
                let others = all.skip(own).filter_map(|((table, field), typed)| {
                    let field_of =
                        |field: &FieldRef| Arc::new(Field::clone(field).with_data_type(typed.data_type().clone()));
                    let column = Column::new(table.cloned(), field.name());
                    named.contains(&column).then(|| (column, field_of(field)))
                });
                let (carried, fields): (Vec<Column>, Vec<FieldRef>) = others.unzip();
                let own = in_sight.columns().into_iter().take(own).collect();
                let written = self.written(own, &carried, &fields, rows)?;
                Ok((project(projection.expr, written)?, carried))
            }
            _ => Err(other_rows()),
        }
    }

    /// The rows that were written, under the names that their columns have in sight.
    fn written(
        &self,
        own: Vec<Column>,
        carried: &[Column],
        fields: &[FieldRef],
        rows: &Returned,
    ) -> Result<LogicalPlan> {
        let table = match rows.carried() == carried.len() {
            true => rows.as_table()?,
            // Before there are any.
            false => match Returned::wanted(self.statement, self.table, self.tables.exposure, fields) {
                Some(none) if rows.carried() == 0 => none.as_table()?,
                _ => return Err(EngineError::internal("the rows of RETURNING have other columns than it names")),
            },
        };
        let written = TableReference::bare(WRITTEN);
        let column = |name: &str| Expr::Column(Column::new(Some(written.clone()), name));
        let own = own.iter().map(|own| column(&own.name).alias_qualified(own.relation.clone(), own.name.as_str()));
        let carried = carried.iter().enumerate().map(|(place, other)| {
            column(&carried_name(place)).alias_qualified(other.relation.clone(), other.name.as_str())
        });
        let items: Vec<Expr> = own.chain(carried).collect();
        let scan = LogicalPlanBuilder::scan(written.clone(), provider_as_source(Arc::new(table)), None);
        let scan = scan.and_then(LogicalPlanBuilder::build).map_err(failed)?;
        project(items, scan)
    }
}

/// The plan of [`crate::sql::dml::update_query`] or the like, not coerced yet, with these columns at its end. A row that a DELETE
/// finds with several others is there several times then.
pub(crate) fn carry(plan: LogicalPlan, columns: &[Column]) -> Result<LogicalPlan> {
    if columns.is_empty() {
        return Ok(plan);
    }
    let plan = match plan {
        LogicalPlan::Distinct(Distinct::All(rows)) => Arc::unwrap_or_clone(rows),
        plan => plan,
    };
    let LogicalPlan::Projection(Projection { mut expr, input, .. }) = plan else {
        return Err(EngineError::internal("the plan that finds rows is no projection"));
    };
    let in_sight = input.schema().columns();
    for (place, column) in columns.iter().enumerate() {
        let found = input.schema().index_of_column_by_name(column.relation.as_ref(), &column.name);
        let found = found.and_then(|found| in_sight.get(found)).cloned();
        let found = found.ok_or_else(|| {
            EngineError::internal(format!("RETURNING names {column}, which is not there where the rows are found"))
        })?;
        expr.push(Expr::Column(found).alias(carried_name(place)));
    }
    project(expr, Arc::unwrap_or_clone(input))
}

/// A plan whose last `carried` columns stand before the `after` columns that are before them.
pub(crate) fn placed(plan: LogicalPlan, carried: usize, after: usize) -> Result<LogicalPlan> {
    let mut columns = plan.schema().columns();
    if carried == 0 || columns.len() < carried + after {
        return Ok(plan);
    }
    let start = columns.len() - carried - after;
    columns[start..].rotate_left(after);
    project(columns.into_iter().map(Expr::Column).collect(), plan)
}

fn project(items: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan> {
    Projection::try_new(items, Arc::new(input)).map(LogicalPlan::Projection).map_err(failed)
}

fn failed(error: datafusion::error::DataFusionError) -> EngineError {
    from_datafusion(error, &LOCATION_COLUMNS)
}

/// The columns that a node's expressions name, and their subqueries.
fn named_columns(node: &LogicalPlan) -> DfResult<HashSet<Column>> {
    let mut found = HashSet::new();
    each_expression(node, |expr| {
        if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = expr {
            found.insert(column.clone());
        }
    })?;
    Ok(found)
}

/// Refuses what gives other rows than those that were written: aggregates, window functions, UNNEST.
fn refuse_other_rows(plan: &LogicalPlan) -> Result<()> {
    let is_row_by_row =
        matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_));
    if !is_row_by_row {
        return Err(other_rows());
    }
    plan.inputs().into_iter().try_for_each(refuse_other_rows)
}

fn other_rows() -> EngineError {
    EngineError::invalid("aggregates, window functions and UNNEST are not allowed in RETURNING: write a subquery")
}
