//! `t FOR SYSTEM_TIME AS OF time` and `changes('ns.t', since [, until])`: tables with times, which are expressions without rows.
//!
//! The planner plans their times, so that parameters may be in them. What they are when a statement runs is found where its tables
//! are bound: `now()` in them is the statement's.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableSource, TableType};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{ObjectName, ObjectNamePart, Query, TableFactor, TableVersion, Visit, Visitor};
use seracdb_storage::system_columns::is_system_column;

use super::names::{TableName, fold};
use crate::error::{EngineError, Result};

/// AS OF as a function: `as_of('ns.t', time)`.
pub(crate) const AS_OF: &str = "as_of";
/// The catalog in which the planner asks for the changes of a table. No statement can name it.
pub(crate) const CHANGES_CATALOG: &str = "seracdb changes";
/// The function that gives the changes of a table.
pub(crate) const CHANGES: &str = "changes";

/// A table with times.
pub(crate) struct Timed {
    /// What the table is.
    pub source: Arc<dyn TableSource>,
    /// AS OF has one; `changes` has since, and perhaps until.
    pub times: Vec<Expr>,
    schema: SchemaRef,
}

impl Timed {
    /// A table AS OF a time: its columns may have had NULL then.
    pub(crate) fn as_of(source: Arc<dyn TableSource>, time: Expr) -> Self {
        let nullable = |field: &FieldRef| match is_system_column(field.name()) {
            true => Arc::clone(field),
            false => Arc::new(Field::clone(field).with_nullable(true)),
        };
        let schema = Arc::new(Schema::new(source.schema().fields().iter().map(nullable).collect::<Vec<_>>()));
        Self { source, times: vec![time], schema }
    }

    /// The changes of a table.
    pub(crate) fn changes(source: Arc<dyn TableSource>, times: Vec<Expr>) -> Self {
        let schema = source.schema();
        Self { source, times, schema }
    }
}

impl TableSource for Timed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }
}

/// Plans tables AS OF a time: each with its time, under the name that it has without one. The planner itself would read them as
/// they are now.
#[derive(Debug)]
pub(crate) struct AsOfTables;

impl RelationPlanner for AsOfTables {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        match relation {
            TableFactor::Table { name, alias, version: Some(TableVersion::ForSystemTimeAsOf(time)), .. } => {
                let time = context.sql_expr_to_logical_expr(time, &DFSchema::empty())?;
                let name = context.object_name_to_table_reference(name)?;
                let source = context.context_provider().get_table_source(name.clone())?;
                let plan = LogicalPlanBuilder::scan(name, Arc::new(Timed::as_of(source, time)), None)?.build()?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// What is said to a call of `changes` with other arguments.
pub(crate) fn wrong_call() -> EngineError {
    EngineError::invalid(
        "write changes('namespace.table', since), or changes('namespace.table', since, until), with the table's name as a text",
    )
}

/// What a call is asked for as, and its times. `None`: another function.
pub(crate) fn call_of<'a>(name: &str, args: &'a [Expr]) -> Option<Result<(TableReference, &'a [Expr])>> {
    let (catalog, times_max) = match name {
        AS_OF => (None, 1),
        CHANGES => (Some(CHANGES_CATALOG), 2),
        _ => return None,
    };
    let called = || {
        let [Expr::Literal(ScalarValue::Utf8(Some(text)), _), times @ ..] = args else { return Err(wrong_call()) };
        let name = TableName::of_text(text).ok_or_else(wrong_call)?;
        if times.is_empty() || times.len() > times_max {
            return Err(wrong_call());
        }
        let table = match (catalog, name.namespace) {
            (Some(catalog), namespace) => TableReference::full(catalog, namespace.unwrap_or_default(), name.table),
            (None, Some(namespace)) => TableReference::partial(namespace, name.table),
            (None, None) => TableReference::bare(name.table),
        };
        Ok((table, times))
    };
    Some(called())
}

/// Whether a function's arguments, but for the first, are times.
pub(crate) fn takes_times(function: &ObjectName) -> bool {
    matches!(function.0.as_slice(), [ObjectNamePart::Identifier(name)] if [AS_OF, CHANGES].contains(&fold(name).as_str()))
}

/// Whether a query reads a table at a time, or its changes.
pub(crate) fn mentions_time(query: &Query) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            match factor {
                TableFactor::Table { version: Some(_), .. } => ControlFlow::Break(()),
                TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. }
                    if takes_times(name) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(query, &mut Find).is_break()
}

/// Nanoseconds since 1970 of a time; `now_ns`: the statement's.
pub(crate) fn moment(time: &Expr, now_ns: i64) -> Result<i64> {
    let wrong = |why: String| EngineError::invalid(format!("a time of AS OF or changes(…): {why}"));
    let known = || -> DfResult<Expr> {
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(DFSchema::empty()))
            .with_config_options(Arc::new(ConfigOptions::default()))
            .with_query_execution_start_time(Some(chrono::DateTime::from_timestamp_nanos(now_ns)))
            .build();
        let simplifier = ExprSimplifier::new(context);
        simplifier.simplify(simplifier.coerce(time.clone(), &DFSchema::empty())?)
    };
    let Expr::Literal(value, _) = known().map_err(|error| wrong(reason(&error)))? else {
        return Err(wrong("it may not depend on rows".into()));
    };
    let of_zone = |data_type: &DataType| match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    // In UTC, whatever its zone.
    let as_time = DataType::Timestamp(TimeUnit::Nanosecond, of_zone(&value.data_type()));
    let cast = value.cast_to(&as_time).map_err(|error| match value.try_as_str() {
        Some(Some(text)) => wrong(format!("'{text}' is none, write it as '2026-01-31 12:00:00'")),
        _ => wrong(reason(&error)),
    });
    match cast? {
        ScalarValue::TimestampNanosecond(Some(ns), _) => Ok(ns),
        ScalarValue::TimestampNanosecond(None, _) => Err(wrong("it is NULL".into())),
        other => Err(wrong(format!("{other} is none"))),
    }
}

/// What a text or a value is not, without the libraries that found out.
fn reason(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::ArrowError(error, _) => error.to_string(),
        other => other.strip_backtrace(),
    };
    let known = ["Parser error: ", "Cast error: ", "Error during planning: "];
    known.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(&text).to_owned()
}
