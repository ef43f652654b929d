//! Long chains of one associative operator become balanced trees.
//!
//! ```text
//!       OR                  OR
//!      /  \               /    \
//!     OR   d      →      OR     OR
//!    /  \               /  \   /  \
//!   OR   c             a    b c    d
//!  /  \
//! a    b
//! ```
//! A filter with 4,000 ORs is then 12 levels deep and not 4,000. AND and OR are associative in three-valued logic, UNION and
//! UNION ALL on sets and bags; the first query of a UNION, which names the columns, stays first. Arithmetic is left alone:
//! `+` is not associative for floats nor where it overflows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Query, SetExpr, SetOperator, SetQuantifier, Value, Values, VisitMut, VisitorMut,
};

/// Balances every AND, OR, UNION and UNION ALL chain in this piece of a statement.
pub(crate) fn balance<V: VisitMut>(piece: &mut V) {
    let _ = piece.visit(&mut Balance);
}

struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    // Before the visitor goes down: it must not go down the chain.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::BinaryOp { left, op, .. } = expr else { return ControlFlow::Continue(()) };
        let op = op.clone();
        let is_chain = matches!(left.as_ref(), Expr::BinaryOp { op: inner, .. } if *inner == op);
        if is_chain && matches!(op, BinaryOperator::And | BinaryOperator::Or) {
            let terms = unchain_expr(take(expr), &op);
            *expr = join(terms, &|left, right| Expr::BinaryOp {
                left: Box::new(left),
                op: op.clone(),
                right: Box::new(right),
            })
            .unwrap_or_else(null);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        balance_set(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn balance_set(body: &mut SetExpr) {
    // Down the left spine, run by run: `a UNION ALL b UNION ALL c EXCEPT d` has a run below the EXCEPT.
    let mut body = body;
    loop {
        let SetExpr::SetOperation { left, op, set_quantifier, .. } = body else { return };
        let (op, quantifier) = (*op, *set_quantifier);
        let is_chain = matches!(left.as_ref(), SetExpr::SetOperation { op: inner, set_quantifier: q, .. }
            if *inner == op && *q == quantifier);
        if is_chain && op == SetOperator::Union && is_associative(quantifier) {
            let terms = unchain_set(std::mem::replace(body, empty_set()), op, quantifier);
            *body = join(terms, &|left, right| SetExpr::SetOperation {
                left: Box::new(left),
                op,
                set_quantifier: quantifier,
                right: Box::new(right),
            })
            .unwrap_or_else(empty_set);
        }
        let SetExpr::SetOperation { left, .. } = body else { return };
        body = left;
    }
}

fn is_associative(quantifier: SetQuantifier) -> bool {
    matches!(quantifier, SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None)
}

/// The terms of a left-deep chain of `op`, in order.
fn unchain_expr(mut expr: Expr, op: &BinaryOperator) -> Vec<Expr> {
    let mut terms = vec![];
    loop {
        match expr {
            Expr::BinaryOp { left, op: inner, right } if inner == *op => {
                terms.push(*right);
                expr = *left;
            }
            first => {
                terms.push(first);
                terms.reverse();
                return terms;
            }
        }
    }
}

fn unchain_set(mut body: SetExpr, op: SetOperator, quantifier: SetQuantifier) -> Vec<SetExpr> {
    let mut terms = vec![];
    loop {
        match body {
            SetExpr::SetOperation { left, op: inner, set_quantifier, right }
                if inner == op && set_quantifier == quantifier =>
            {
                terms.push(*right);
                body = *left;
            }
            first => {
                terms.push(first);
                terms.reverse();
                return terms;
            }
        }
    }
}

/// Joins neighbours until one is left.
fn join<T>(mut terms: Vec<T>, pair: &impl Fn(T, T) -> T) -> Option<T> {
    while terms.len() > 1 {
        let mut joined = Vec::with_capacity(terms.len().div_ceil(2));
        let mut rest = terms.into_iter();
        while let Some(left) = rest.next() {
            joined.push(match rest.next() {
                Some(right) => pair(left, right),
                None => left,
            });
        }
        terms = joined;
    }
    terms.pop()
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}

fn null() -> Expr {
    Expr::value(Value::Null)
}

fn empty_set() -> SetExpr {
    SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::dialect::SeracDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn balanced(sql: &str) -> String {
        let mut statements = Parser::parse_sql(&SeracDialect, sql).unwrap();
        balance(&mut statements);
        statements[0].to_string()
    }

    #[test]
    fn order_and_meaning_stay() {
        for sql in [
            "SELECT a OR b OR c OR d OR e",
            "SELECT a AND b AND c OR d AND e AND f OR g",
            "SELECT a + b + c - d",
            "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4",
            "SELECT 1 UNION SELECT 2 UNION SELECT 3 EXCEPT SELECT 4 EXCEPT SELECT 5",
            "SELECT * FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3) AS q WHERE a OR b OR c OR (d AND e AND f)",
        ] {
            // The AST prints a chain without parentheses whatever its shape.
            assert_eq!(balanced(sql), sql);
        }
    }

    #[test]
    fn chains_become_shallow() {
        let sql = format!("SELECT * FROM t WHERE a = 0{}", " OR a = 1".repeat(1000));
        let mut statements = Parser::parse_sql(&SeracDialect, &sql).unwrap();
        balance(&mut statements);
        let limits = super::super::limits::Limits { depth_max: 14, ..Default::default() };
        super::super::limits::check(&statements, &limits).unwrap();
    }
}
