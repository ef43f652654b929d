//! What a plan says about the types of its parameters.
//!
//! DataFusion types `a = $1`, `$1 BETWEEN …`, `a IN ($1)`, `a LIKE $1` by itself; it leaves `SELECT $1`, `COALESCE($1, a)`,
//! CASE, function arguments, `$1 IN (a)`, `$1::int` untyped, and types `$1 = $2` as Null. Here the neighbours decide.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Case, InList, InSubquery, Like, Placeholder};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::type_coercion::functions::{UDFCoercionExt, fields_with_udf};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator};

/// The types found, by parameter number (from 1).
pub(crate) type Found = BTreeMap<usize, DataType>;

/// Looks through the whole plan, subqueries too. The first type found for a parameter stands.
pub(crate) fn infer(plan: &LogicalPlan) -> DfResult<Found> {
    let mut found = Found::new();
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
            _ => {}
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                look(&mut found, expr, schema);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

fn node_schema(node: &LogicalPlan) -> DFSchema {
    let inputs = node.inputs();
    match inputs.is_empty() {
        // A scan with filters refers to its own columns.
        true => node.schema().as_ref().clone(),
        false => merge_schema(&inputs),
    }
}

fn look(found: &mut Found, expr: &Expr, schema: &DFSchema) {
    match expr {
        Expr::Placeholder(Placeholder { field: Some(field), .. }) => {
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
            let side = |other: &Expr| date_arithmetic(known(other, schema), *op);
            note(found, left, side(right));
            note(found, right, side(left));
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
            let fields = subquery.subquery.schema().fields();
            note(found, expr, fields.first().map(|field| field.data_type().clone()));
        }
        Expr::Case(case) => look_case(found, case, schema),
        Expr::ScalarFunction(function) => look_function(found, &function.args, function.func.as_ref(), schema),
        Expr::AggregateFunction(aggregate) => {
            look_function(found, &aggregate.params.args, aggregate.func.as_ref(), schema);
            if let Some(filter) = &aggregate.params.filter {
                note(found, filter, Some(DataType::Boolean));
            }
        }
        _ => {}
    }
}

fn look_case(found: &mut Found, case: &Case, schema: &DFSchema) {
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
fn look_function<F: UDFCoercionExt>(found: &mut Found, args: &[Expr], function: &F, schema: &DFSchema) {
    if !args.iter().any(is_unknown) {
        return;
    }
    let of_one_type = matches!(
        function.name(),
        "coalesce" | "nvl" | "ifnull" | "nullif" | "greatest" | "least" | "make_array" | "array_position"
    );
    if of_one_type {
        unify(found, &args.iter().collect::<Vec<_>>(), schema);
        return;
    }
    // The types the arguments would be cast to, had they none of their own.
    let fields: Option<Vec<FieldRef>> =
        args.iter().map(|arg| Some(Field::new("arg", arg.get_type(schema).ok()?, true).into())).collect();
    let Some(coerced) = fields.and_then(|fields| fields_with_udf(&fields, function).ok()) else { return };
    for (arg, field) in args.iter().zip(coerced) {
        note(found, arg, Some(field.data_type().clone()));
    }
}

/// Gives the unknown ones the type the known ones have together.
fn unify(found: &mut Found, siblings: &[&Expr], schema: &DFSchema) {
    let mut types = siblings.iter().filter_map(|sibling| known(sibling, schema));
    let Some(first) = types.next() else { return };
    let common = types.try_fold(first.clone(), |a, b| comparison_coercion(&a, &b)).unwrap_or(first);
    for sibling in siblings {
        note(found, sibling, Some(common.clone()));
    }
}

/// `date - $1` and `timestamp + $1` want an interval as often as another date: nothing follows from the other side.
fn date_arithmetic(other: Option<DataType>, op: Operator) -> Option<DataType> {
    match other {
        Some(other) if other.is_temporal() && matches!(op, Operator::Plus | Operator::Minus) => None,
        other => other,
    }
}

fn known(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    if is_unknown(expr) {
        return None;
    }
    expr.get_type(schema).ok().filter(|data_type| !data_type.is_null())
}

fn is_unknown(expr: &Expr) -> bool {
    match expr {
        Expr::Placeholder(Placeholder { field, .. }) => field.as_ref().is_none_or(|f| f.data_type().is_null()),
        _ => false,
    }
}

/// If `expr` is a parameter without a type so far, this is its type.
fn note(found: &mut Found, expr: &Expr, data_type: Option<DataType>) {
    let (Expr::Placeholder(Placeholder { id, .. }), Some(data_type)) = (expr, data_type) else { return };
    let Some(number) = id.strip_prefix('$').and_then(|n| n.parse().ok()) else { return };
    if !data_type.is_null() {
        found.entry(number).or_insert_with(|| plain(data_type));
    }
}

/// The type a client can bind: no views, no dictionaries.
fn plain(data_type: DataType) -> DataType {
    match super::types::storable(&data_type) {
        Ok(stored) => stored,
        Err(_) => data_type,
    }
}
