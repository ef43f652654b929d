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

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, SetExpr, SetOperator, SetQuantifier, Value, Values};

/// Shorter chains stay as they are. A balanced tree of a million terms has a left spine of 20, so that none is taken for a
/// chain again.
const CHAIN_MIN: usize = 21;

/// Balances the AND or OR chain that begins with this expression. To be called before anything goes down the chain.
pub(crate) fn balance_expr(expr: &mut Expr) {
    let Expr::BinaryOp { op, .. } = expr else { return };
    let op = op.clone();
    if matches!(op, BinaryOperator::And | BinaryOperator::Or) && spine(expr, &op) >= CHAIN_MIN {
        let terms = unchain_expr(std::mem::replace(expr, null()), &op);
        *expr =
            join(terms, &|left, right| Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) })
                .unwrap_or_else(null);
    }
}

/// Balances the UNION and UNION ALL chains of a query's body.
pub(crate) fn balance_set(body: &mut SetExpr) {
    // Down the left spine, run by run: `a UNION ALL b UNION ALL c EXCEPT d` has a run below the EXCEPT.
    let mut body = body;
    while let SetExpr::SetOperation { op, set_quantifier, .. } = body {
        let (op, quantifier) = (*op, *set_quantifier);
        if op == SetOperator::Union && is_associative(quantifier) && set_spine(body, op, quantifier) >= CHAIN_MIN {
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

/// Operators `op` down the left side.
fn spine(mut expr: &Expr, op: &BinaryOperator) -> usize {
    let mut length = 0;
    while let Expr::BinaryOp { left, op: inner, .. } = expr
        && inner == op
    {
        length += 1;
        expr = left;
    }
    length
}

fn set_spine(mut body: &SetExpr, op: SetOperator, quantifier: SetQuantifier) -> usize {
    let mut length = 0;
    while let SetExpr::SetOperation { left, op: inner, set_quantifier, .. } = body
        && *inner == op
        && *set_quantifier == quantifier
    {
        length += 1;
        body = left;
    }
    length
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

fn null() -> Expr {
    Expr::value(Value::Null)
}

/// VALUES without rows.
pub(super) fn empty_set() -> SetExpr {
    SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: vec![] })
}

#[cfg(test)]
mod tests {
    use crate::sql::dialect::SeracDialect;
    use crate::sql::limits::{self, Limits};
    use datafusion::sql::sqlparser::parser::Parser;

    fn balanced(sql: &str, limits: &Limits) -> String {
        let mut statements = Parser::parse_sql(&SeracDialect, sql).unwrap();
        limits::fit(&mut statements, limits).unwrap();
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
            assert_eq!(balanced(sql, &Limits::default()), sql);
        }
    }

    #[test]
    fn chains_become_shallow() {
        let limits = Limits { depth_max: 24, ..Limits::default() };
        for sql in [
            format!("SELECT * FROM t WHERE a = 0{}", " OR a = 1".repeat(1000)),
            format!("SELECT * FROM t WHERE a = 0{}", " AND (a = 1)".repeat(500)),
            format!("SELECT 1{}", " UNION ALL SELECT 2".repeat(1000)),
        ] {
            assert_eq!(balanced(&sql, &limits), sql);
        }
    }
}
