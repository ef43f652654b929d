//! What a plan says about the types of its parameters.
//!
//! DataFusion types `a = $1`, `$1 BETWEEN …`, `a IN ($1)`, `a LIKE $1` by itself; it leaves `SELECT $1`, `COALESCE($1, a)`,
//! CASE, function arguments, `$1 IN (a)`, `$1::int` untyped, and types `$1 = $2` as Null. Here the neighbours decide: the other
//! side, the other branches, what the function takes.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{
    Between, BinaryExpr, Case, InList, InSubquery, Like, Placeholder, SetComparison, WindowFunction,
};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::type_coercion::functions::UDFCoercionExt;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, WindowFunctionDefinition};

use super::candidates::{coerced, taken};

/// What was found so far.
struct Found<'a> {
    /// Types by parameter number (from 1).
    types: BTreeMap<usize, DataType>,
    /// The parameters whose types in the plan nobody has told.
    assumed: &'a BTreeSet<usize>,
}

/// The types that a plan tells, by parameter number (from 1). Looks through all of it, subqueries too; the first type found
/// for a parameter stands. `assumed`: the parameters that have a type in it only because there was no plan without.
pub(crate) fn infer(plan: &LogicalPlan, assumed: &BTreeSet<usize>) -> DfResult<BTreeMap<usize, DataType>> {
    let mut found = Found { types: BTreeMap::new(), assumed };
    plan.apply_with_subqueries(|node| {
        let schema = node_schema(node);
        let schema = &schema;
        match node {
            LogicalPlan::Filter(filter) => note(&mut found, &filter.predicate, Some(DataType::Boolean)),
            LogicalPlan::Limit(limit) => {
                for expr in [&limit.skip, &limit.fetch].into_iter().flatten() {
                    note(&mut found, expr, Some(DataType::Int64));
                }
            }
            LogicalPlan::Union(_) => {
                (0..node.schema().fields().len()).for_each(|place| look_branches(&mut found, node, place, None));
            }
            _ => {}
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                look(&mut found, expr, schema);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found.types)
}

/// Parameters that stand alone in a select list, or in a row of VALUES, take their type from the other branches of the
/// UNION, or from what the query is compared with.
fn look_branches(found: &mut Found<'_>, query: &LogicalPlan, place: usize, compared: Option<DataType>) {
    let (mut open, mut types) = (vec![], Vec::from_iter(compared));
    branches(found, query, place, &mut open, &mut types);
    let Some(common) = common(types) else { return };
    for expr in open {
        note(found, expr, Some(common.clone()));
    }
}

/// The parameters that give a column of a query, and the types of what else gives it.
fn branches<'a>(
    found: &Found<'_>,
    query: &'a LogicalPlan,
    place: usize,
    open: &mut Vec<&'a Expr>,
    types: &mut Vec<DataType>,
) {
    let mut one = |expr: &'a Expr, schema: &DFSchema| {
        let mut expr = expr;
        while let Expr::Alias(alias) = expr {
            expr = &alias.expr;
        }
        match is_unknown(found, expr) {
            true => open.push(expr),
            false => types.extend(known(found, expr, schema)),
        }
    };
    match query {
        LogicalPlan::Projection(projection) => {
            projection.expr.get(place).into_iter().for_each(|expr| one(expr, projection.input.schema()));
        }
        LogicalPlan::Values(values) => {
            values.values.iter().filter_map(|row| row.get(place)).for_each(|expr| one(expr, &values.schema));
        }
        LogicalPlan::Union(union) => union.inputs.iter().for_each(|input| branches(found, input, place, open, types)),
        LogicalPlan::Distinct(distinct) => branches(found, distinct.input(), place, open, types),
        other => {
            let field = other.schema().fields().get(place);
            types.extend(field.map(|field| field.data_type().clone()).filter(|data_type| !data_type.is_null()));
        }
    }
}

fn node_schema(node: &LogicalPlan) -> DFSchema {
    let inputs = node.inputs();
    match inputs.is_empty() {
        // A scan with filters refers to its own columns.
        true => node.schema().as_ref().clone(),
        false => merge_schema(&inputs),
    }
}

fn look(found: &mut Found<'_>, expr: &Expr, schema: &DFSchema) {
    match expr {
        Expr::Placeholder(Placeholder { field: Some(field), .. }) if !is_unknown(found, expr) => {
            let data_type = field.data_type().clone();
            note(found, expr, Some(data_type));
        }
        Expr::Cast(cast) => note(found, &cast.expr, Some(cast.field.data_type().clone())),
        Expr::TryCast(cast) => note(found, &cast.expr, Some(cast.field.data_type().clone())),
        Expr::Not(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner) => note(found, inner, Some(DataType::Boolean)),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            note(found, left, Some(DataType::Boolean));
            note(found, right, Some(DataType::Boolean));
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            note(found, left, Some(DataType::Utf8));
            note(found, right, Some(DataType::Utf8));
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let side = |other: &Expr| date_arithmetic(known(found, other, schema), *op);
            let (of_left, of_right) = (side(right), side(left));
            note(found, left, of_left);
            note(found, right, of_right);
        }
        Expr::Like(Like { expr, pattern, .. }) | Expr::SimilarTo(Like { expr, pattern, .. }) => {
            note(found, expr, Some(DataType::Utf8));
            note(found, pattern, Some(DataType::Utf8));
        }
        Expr::Between(Between { expr, low, high, .. }) => unify(found, &[expr, low, high], schema),
        Expr::InList(InList { expr, list, .. }) => {
            let all: Vec<&Expr> = std::iter::once(expr.as_ref()).chain(list).collect();
            unify(found, &all, schema);
        }
        Expr::InSubquery(InSubquery { expr, subquery, .. }) => {
            look_compared(found, expr, &subquery.subquery, schema);
        }
        Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
            look_compared(found, expr, &subquery.subquery, schema);
        }
        Expr::Case(case) => look_case(found, case, schema),
        Expr::ScalarFunction(function) => look_function(found, &function.args, function.func.as_ref(), schema),
        Expr::AggregateFunction(aggregate) => {
            look_function(found, &aggregate.params.args, aggregate.func.as_ref(), schema);
            if let Some(filter) = &aggregate.params.filter {
                note(found, filter, Some(DataType::Boolean));
            }
        }
        Expr::WindowFunction(window) => look_window(found, window, schema),
        _ => {}
    }
}

/// `a IN (SELECT $1)`, `$1 > ALL (SELECT a …)`.
fn look_compared(found: &mut Found<'_>, expr: &Expr, query: &LogicalPlan, schema: &DFSchema) {
    let (mut open, mut types) = (vec![], vec![]);
    branches(found, query, 0, &mut open, &mut types);
    note(found, expr, common(types));
    let compared = known(found, expr, schema);
    look_branches(found, query, 0, compared);
}

fn look_window(found: &mut Found<'_>, window: &WindowFunction, schema: &DFSchema) {
    let args = &window.params.args;
    match &window.fun {
        WindowFunctionDefinition::AggregateUDF(function) => look_function(found, args, function.as_ref(), schema),
        WindowFunctionDefinition::WindowUDF(function) => {
            // What stands for rows that are not there is like the others.
            if let ("lag" | "lead", [value, _, default]) = (function.name(), args.as_slice()) {
                unify(found, &[value, default], schema);
            }
            look_function(found, args, function.as_ref(), schema);
        }
    }
    if let Some(filter) = &window.params.filter {
        note(found, filter, Some(DataType::Boolean));
    }
}

fn look_case(found: &mut Found<'_>, case: &Case, schema: &DFSchema) {
    let whens = case.when_then_expr.iter().map(|(when, _)| when.as_ref());
    match &case.expr {
        Some(operand) => {
            let all: Vec<&Expr> = std::iter::once(operand.as_ref()).chain(whens).collect();
            unify(found, &all, schema);
        }
        None => whens.for_each(|when| note(found, when, Some(DataType::Boolean))),
    }
    let thens = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
    let all: Vec<&Expr> = thens.chain(case.else_expr.as_deref()).collect();
    unify(found, &all, schema);
}

/// Arguments of functions that want one type for all of them take it from the others, else from the signature.
fn look_function<F: UDFCoercionExt>(found: &mut Found<'_>, args: &[Expr], function: &F, schema: &DFSchema) {
    if !args.iter().any(|arg| is_unknown(found, arg)) {
        return;
    }
    if is_of_one_type(function.name()) {
        unify(found, &args.iter().collect::<Vec<_>>(), schema);
        return;
    }
    // The types the arguments would be cast to, had they none of their own.
    let known: Vec<Option<DataType>> = args.iter().map(|arg| known(found, arg, schema)).collect();
    let untyped: Vec<DataType> = known.iter().map(|known| known.clone().unwrap_or(DataType::Null)).collect();
    let coerced = coerced(function, &untyped);
    for (place, arg) in args.iter().enumerate() {
        note(found, arg, coerced.as_ref().map(|types| types[place].clone()));
    }
    if args.iter().any(|arg| is_unknown(found, arg) && !is_found(found, arg)) {
        let taken = taken(function, &known);
        for (place, arg) in args.iter().enumerate() {
            note(found, arg, taken.as_ref().map(|types| types[place].clone()));
        }
    }
}

/// Whether a function wants one type for all its arguments, whichever it is.
pub(super) fn is_of_one_type(function: &str) -> bool {
    matches!(function, "coalesce" | "nvl" | "ifnull" | "nullif" | "greatest" | "least" | "make_array")
}

/// Gives the unknown ones the type the known ones have together.
fn unify(found: &mut Found<'_>, siblings: &[&Expr], schema: &DFSchema) {
    let types = siblings.iter().filter_map(|sibling| known(found, sibling, schema)).collect();
    let Some(common) = common(types) else { return };
    for sibling in siblings {
        note(found, sibling, Some(common.clone()));
    }
}

/// The type that values of these have together.
fn common(types: Vec<DataType>) -> Option<DataType> {
    let mut types = types.into_iter();
    let first = types.next()?;
    Some(types.try_fold(first.clone(), |a, b| comparison_coercion(&a, &b)).unwrap_or(first))
}

/// `date - $1` and `timestamp + $1` want an interval as often as another date: nothing follows from the other side.
fn date_arithmetic(other: Option<DataType>, op: Operator) -> Option<DataType> {
    match other {
        Some(other) if other.is_temporal() && matches!(op, Operator::Plus | Operator::Minus) => None,
        other => other,
    }
}

fn known(found: &Found<'_>, expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    if is_unknown(found, expr) {
        return None;
    }
    expr.get_type(schema).ok().filter(|data_type| !data_type.is_null())
}

fn is_unknown(found: &Found<'_>, expr: &Expr) -> bool {
    match expr {
        Expr::Placeholder(Placeholder { field, .. }) => {
            let is_assumed = || number(expr).is_some_and(|number| found.assumed.contains(&number));
            field.as_ref().is_none_or(|f| f.data_type().is_null()) || is_assumed()
        }
        _ => false,
    }
}

fn is_found(found: &Found<'_>, expr: &Expr) -> bool {
    number(expr).is_some_and(|number| found.types.contains_key(&number))
}

/// The number of a parameter.
fn number(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Placeholder(Placeholder { id, .. }) => id.strip_prefix('$')?.parse().ok(),
        _ => None,
    }
}

/// If `expr` is a parameter without a type so far, this is its type.
fn note(found: &mut Found<'_>, expr: &Expr, data_type: Option<DataType>) {
    let (Some(number), Some(data_type)) = (number(expr), data_type) else { return };
    if !data_type.is_null() {
        found.types.entry(number).or_insert_with(|| plain(data_type));
    }
}

/// The type a client can bind: no views, no dictionaries.
fn plain(data_type: DataType) -> DataType {
    match super::types::storable(&data_type) {
        Ok(stored) => stored,
        Err(_) => data_type,
    }
}
