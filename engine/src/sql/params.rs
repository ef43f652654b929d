//! Parameters: how many, of which type, and binding them.
//!
//! A statement is planned up to three times: with the types the text tells ([`hints`]), then with those the plan tells
//! ([`super::infer`]), with Utf8 where nothing does. The plan with all types known is the one that is kept: its schema is
//! the schema of every execution, whatever is bound. Where only literals are planned the values are put in before
//! ([`super::in_place`]), and each execution has a plan of its own.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DFSchemaRef, ParamValues, ScalarValue, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, LimitClause, ObjectName, Query, SelectItem,
    SetExpr, Value, ValueWithSpan, Visit, Visitor,
};

use super::candidates::taken;
use super::in_place::put_in_place;
use super::infer::infer;
use super::planner::Planner;
use super::statement::{ConflictAction, Insert, InsertSource, Merge, MergeAction, OnConflict, Statement};
use crate::error::Result;

/// A query planned with the type of every parameter known.
#[derive(Debug, Clone)]
pub(crate) struct Typed {
    /// The plan, its parameters still open.
    pub plan: LogicalPlan,
    /// `$1`, `$2`, …
    pub parameters: Vec<DataType>,
    /// Whether values have to be put in before it is planned: then this plan is of none, and only its columns are right.
    pub in_place: bool,
    /// Of an INSERT … ON CONFLICT DO UPDATE: the plan that finds the rows which are there, as they become.
    pub conflict: Option<Box<LogicalPlan>>,
}

/// Values of all parameters, each of its type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub types: &'a [DataType],
    pub values: &'a [ScalarValue],
}

/// How many parameters a statement has: the highest number. One that is skipped counts, so that positions fit.
pub(crate) fn parameter_count(statement: &Statement) -> usize {
    let mut highest = Highest(0);
    let _ = each_piece(statement, &mut highest);
    highest.0
}

/// Whether a piece of a statement has this parameter, from 1.
pub(crate) fn has_parameter<V: Visit>(piece: &V, number: usize) -> bool {
    piece.visit(&mut Find(number)).is_break()
}

/// Whether no other piece of a statement than its RETURNING has this parameter, from 1.
pub(crate) fn is_of_returning(statement: &Statement, number: usize) -> bool {
    each_piece_that_writes(statement, &mut Find(number)).is_continue()
}

struct Find(usize);

impl Visitor for Find {
    type Break = ();

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        match value_number(value) == Some(self.0) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Whether a piece of a statement has a parameter.
pub(crate) fn has_placeholder<V: Visit>(piece: &V) -> bool {
    let mut highest = Highest(0);
    let _ = piece.visit(&mut highest);
    highest.0 > 0
}

/// The types the text tells: LIMIT and OFFSET, values that go into a column. `columns`: the target's user columns.
pub(crate) fn hints(statement: &Statement, columns: &[(String, DataType)]) -> Vec<Option<DataType>> {
    let mut hints = Hints { types: vec![None; parameter_count(statement)] };
    match statement {
        Statement::Explain { inner, .. } => return self::hints(inner, columns),
        Statement::Insert(insert) => hints.insert(insert, columns),
        Statement::Update(update) => hints.assignments(&update.assignments, columns),
        Statement::Merge(merge) => hints.merge(merge, columns),
        _ => {}
    }
    let _ = each_piece(statement, &mut hints);
    hints.types
}

/// Plans a query with every parameter typed. `bound`: what is put in where only literals are planned.
pub(crate) fn plan_typed(
    planner: &Planner<'_>,
    query: &Query,
    mut hints: Vec<Option<DataType>>,
    values_schema: Option<DFSchemaRef>,
    bound: Option<Bound<'_>>,
) -> DfResult<Typed> {
    if hints.is_empty() {
        let plan = planner.plan(query.clone(), vec![], values_schema)?;
        return Ok(Typed { plan, parameters: vec![], in_place: false, conflict: None });
    }
    let mut query = query.clone();
    let in_place = put_in_place(&mut query, bound.map_or(&[], |bound| bound.values));
    for (number, data_type) in &in_place {
        let hint = hints.get_mut(number - 1).filter(|hint| hint.is_none());
        hint.into_iter().for_each(|hint| *hint = Some(data_type.clone()));
    }
    if let Some(bound) = bound {
        refuse_others(&hints, bound.types)?;
        hints = bound.types.iter().cloned().map(Some).collect();
    }
    let typed = plan_open(planner, &query, hints, values_schema)?;
    Ok(Typed { in_place: !in_place.is_empty(), ..typed })
}

/// Where the text wants an integer (LIMIT, a column that is written) nothing else is taken, and rounded in silence.
fn refuse_others(hints: &[Option<DataType>], bound: &[DataType]) -> DfResult<()> {
    for (hint, bound) in hints.iter().zip(bound) {
        if let Some(hint) = hint.as_ref().filter(|hint| hint.is_integer() && *hint != bound) {
            return plan_err!("a value of type {bound} is not taken where one of type {hint} is wanted");
        }
    }
    Ok(())
}

fn plan_open(
    planner: &Planner<'_>,
    query: &Query,
    mut hints: Vec<Option<DataType>>,
    values_schema: Option<DFSchemaRef>,
) -> DfResult<Typed> {
    let plan_with = |types: &[Option<DataType>]| planner.plan(query.clone(), fields(types), values_schema.clone());
    if hints.contains(&None) {
        hints = typed_by_calls(planner, query, hints);
    }
    if !hints.contains(&None) {
        return typed(plan_with(&hints)?, &hints);
    }
    let all_text = |types: &[Option<DataType>]| -> Vec<Option<DataType>> {
        types.iter().map(|t| Some(t.clone().unwrap_or(DataType::Utf8))).collect()
    };
    // `SELECT $1 AS x` cannot be planned untyped; as text it can, and then tells nothing more.
    let found = match plan_with(&hints) {
        Ok(plan) => infer(&plan, &BTreeSet::new())?,
        Err(error) => {
            let texts = untyped_items_as_text(query, &hints);
            let assumed = (0..hints.len()).filter(|place| hints[*place] != texts[*place]).map(|place| place + 1);
            match plan_with(&texts) {
                Ok(plan) => infer(&plan, &assumed.collect())?,
                Err(_) => return typed(plan_with(&all_text(&hints)).map_err(|_| error)?, &all_text(&hints)),
            }
        }
    };
    let mut types = hints.clone();
    for (i, hint) in types.iter_mut().enumerate() {
        if hint.is_none() {
            *hint = found.get(&(i + 1)).cloned();
        }
    }
    let types = all_text(&types);
    match plan_with(&types) {
        Ok(plan) => typed(plan, &types),
        // A type guessed from a neighbour can be wrong where text, which casts to anything, is right.
        Err(error) => typed(plan_with(&all_text(&hints)).map_err(|_| error)?, &all_text(&hints)),
    }
}

fn typed(plan: LogicalPlan, types: &[Option<DataType>]) -> DfResult<Typed> {
    let parameters = types.iter().map(|t| t.clone().unwrap_or(DataType::Utf8)).collect();
    Ok(Typed { plan, parameters, in_place: false, conflict: None })
}

/// The plan with these values, each of its type, in place of its parameters.
pub(super) fn bind(plan: LogicalPlan, values: Vec<ScalarValue>) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan);
    }
    plan.with_param_values(ParamValues::from(values)).map_err(|e| super::errors::from_datafusion(e, &[]))
}

/// The number of an expression that is a parameter, in parentheses or not.
pub(crate) fn placeholder_number(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Nested(inner) => placeholder_number(inner),
        Expr::Value(value) => value_number(value),
        _ => None,
    }
}

fn value_number(value: &ValueWithSpan) -> Option<usize> {
    match &value.value {
        Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}

fn fields(types: &[Option<DataType>]) -> Vec<Option<FieldRef>> {
    types
        .iter()
        .enumerate()
        .map(|(i, t)| t.as_ref().map(|t| Field::new(format!("${}", i + 1), t.clone(), true).into()))
        .collect()
}

/// Visits all of a statement that can hold a parameter.
pub(super) fn each_piece<V: Visitor<Break = ()>>(statement: &Statement, visitor: &mut V) -> ControlFlow<()> {
    each_piece_that_writes(statement, visitor)?;
    statement.returning().unwrap_or_default().iter().try_for_each(|item| item.visit(visitor))
}

/// The same but for RETURNING.
fn each_piece_that_writes<V: Visitor<Break = ()>>(statement: &Statement, visitor: &mut V) -> ControlFlow<()> {
    match statement {
        Statement::Query(query) => query.visit(visitor),
        Statement::Explain { inner, .. } => each_piece(inner, visitor),
        Statement::Insert(insert) => {
            match &insert.source {
                InsertSource::Values(rows) => rows.visit(visitor)?,
                InsertSource::Query(query) => query.visit(visitor)?,
                InsertSource::Defaults => {}
            }
            insert.conflict_exprs().try_for_each(|expr| expr.visit(visitor))
        }
        Statement::Update(update) => {
            update.assignments.iter().try_for_each(|(_, value)| value.visit(visitor))?;
            update.from.visit(visitor)?;
            update.selection.visit(visitor)
        }
        Statement::Delete(delete) => {
            delete.using.visit(visitor)?;
            delete.selection.visit(visitor)
        }
        Statement::Merge(merge) => {
            merge.source.visit(visitor)?;
            merge.exprs().try_for_each(|expr| expr.visit(visitor))
        }
        _ => ControlFlow::Continue(()),
    }
}

struct Highest(usize);

impl Visitor for Highest {
    type Break = ();

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        self.0 = self.0.max(value_number(value).unwrap_or(0));
        ControlFlow::Continue(())
    }
}

struct Hints {
    types: Vec<Option<DataType>>,
}

impl Hints {
    /// The first hint for a parameter stands.
    fn note(&mut self, expr: &Expr, data_type: &DataType) {
        if let Some(slot) = placeholder_number(expr).and_then(|number| self.types.get_mut(number - 1)) {
            slot.get_or_insert_with(|| data_type.clone());
        }
    }

    fn insert(&mut self, insert: &Insert, columns: &[(String, DataType)]) {
        let targets: Vec<&DataType> = match insert.columns.is_empty() {
            true => columns.iter().map(|(_, data_type)| data_type).collect(),
            false => insert
                .columns
                .iter()
                .filter_map(|column| columns.iter().find(|(name, _)| name == column))
                .map(|(_, data_type)| data_type)
                .collect(),
        };
        match &insert.source {
            InsertSource::Values(rows) => {
                for row in rows {
                    row.iter().zip(&targets).for_each(|(value, data_type)| self.note(value, data_type));
                }
            }
            InsertSource::Query(query) => self.select_items(&query.body, &targets),
            InsertSource::Defaults => {}
        }
        if let Some(OnConflict { action: ConflictAction::Update { assignments, .. }, .. }) = &insert.conflict {
            self.assignments(assignments, columns);
        }
    }

    fn assignments(&mut self, assignments: &[(String, Expr)], columns: &[(String, DataType)]) {
        for (column, value) in assignments {
            if let Some((_, data_type)) = columns.iter().find(|(name, _)| name == column) {
                self.note(value, data_type);
            }
        }
    }

    fn merge(&mut self, merge: &Merge, columns: &[(String, DataType)]) {
        for clause in &merge.clauses {
            match &clause.action {
                MergeAction::Insert { columns: given, values } => {
                    let all = || columns.iter().map(|(name, _)| name.clone()).collect();
                    let given: Vec<String> = if given.is_empty() { all() } else { given.clone() };
                    let pairs = given.into_iter().zip(values.iter().flatten().cloned());
                    self.assignments(&pairs.collect::<Vec<_>>(), columns);
                }
                MergeAction::Update(assignments) => self.assignments(assignments, columns),
                MergeAction::Delete | MergeAction::Nothing => {}
            }
        }
    }

    fn select_items(&mut self, body: &SetExpr, targets: &[&DataType]) {
        match body {
            SetExpr::Select(select) => {
                for (item, data_type) in select.projection.iter().zip(targets) {
                    // After a wildcard the positions are not known.
                    let Some(expr) = item_expr(item) else { return };
                    self.note(expr, data_type);
                }
            }
            SetExpr::Values(values) => {
                for row in &values.rows {
                    row.content.iter().zip(targets).for_each(|(value, data_type)| self.note(value, data_type));
                }
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.select_items(left, targets);
                self.select_items(right, targets);
            }
            SetExpr::Query(query) => self.select_items(&query.body, targets),
            _ => {}
        }
    }
}

impl Visitor for Hints {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                let offset = offset.as_ref().map(|offset| &offset.value);
                limit.iter().chain(offset).for_each(|expr| self.note(expr, &DataType::Int64));
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                [offset, limit].into_iter().for_each(|expr| self.note(expr, &DataType::Int64));
            }
            None => {}
        }
        ControlFlow::Continue(())
    }
}

/// Types the parameters that stand alone as arguments of aggregates and window functions. Without a type most of these
/// have no plan that could tell it.
fn typed_by_calls(planner: &Planner<'_>, query: &Query, hints: Vec<Option<DataType>>) -> Vec<Option<DataType>> {
    struct Calls<'a>(&'a Planner<'a>, Hints);
    impl Visitor for Calls<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else {
                return ControlFlow::Continue(());
            };
            let args: Option<Vec<&Expr>> = list.args.iter().map(argument).collect();
            let args = args.filter(|args| args.iter().any(|arg| placeholder_number(arg).is_some()));
            for (arg, data_type) in
                args.iter().flat_map(|args| args.iter().zip(types_of_call(self.0, name, args.len())))
            {
                data_type.iter().for_each(|data_type| self.1.note(arg, data_type));
            }
            ControlFlow::Continue(())
        }
    }
    let mut calls = Calls(planner, Hints { types: hints });
    let _ = query.visit(&mut calls);
    calls.1.types
}

pub(super) fn argument(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The types that an aggregate or window function wants of its arguments, as far as it wants one.
fn types_of_call(planner: &Planner<'_>, name: &ObjectName, count: usize) -> Vec<Option<DataType>> {
    let name = name.to_string().to_ascii_lowercase();
    let known = vec![None; count];
    let wanted = |taken: Option<Vec<DataType>>| taken.into_iter().flatten().map(Some).collect();
    match (name.as_str(), planner.get_window_meta(&name), planner.get_aggregate_meta(&name)) {
        // The offset; the rest can be anything.
        ("lag" | "lead" | "nth_value", ..) => vec![None, Some(DataType::Int64)],
        (_, Some(function), _) => wanted(taken(function.as_ref(), &known)),
        (_, _, Some(function)) => wanted(taken(function.as_ref(), &known)),
        _ => vec![],
    }
}

fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// Types the parameters that stand alone in a select list as text.
fn untyped_items_as_text(query: &Query, hints: &[Option<DataType>]) -> Vec<Option<DataType>> {
    struct Items(Hints);
    impl Visitor for Items {
        type Break = ();

        fn pre_visit_select(&mut self, select: &datafusion::sql::sqlparser::ast::Select) -> ControlFlow<()> {
            for expr in select.projection.iter().filter_map(item_expr) {
                self.0.note(expr, &DataType::Utf8);
            }
            ControlFlow::Continue(())
        }
    }
    let mut items = Items(Hints { types: hints.to_vec() });
    let _ = query.visit(&mut items);
    items.0.types
}
