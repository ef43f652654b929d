//! `WHERE (a, b) IN (SELECT x, y FROM u)`: DataFusion has IN for one column.
//!
//! As a condition that has to be true it is `EXISTS (SELECT 1 FROM (SELECT x, y FROM u) AS row(c1, c2) WHERE c1 = a AND c2
//! = b)`. Elsewhere (below NOT, or as a value) it could be NULL, which EXISTS never is: there it stays refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, Query, Select, SetExpr, Statement, TableFactor};
use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};
use datafusion::sql::sqlparser::parser::Parser;

use crate::error::{EngineError, Result};
use crate::sql::dialect::SeracDialect;

/// Rewrites each such condition of a query.
pub(super) fn as_exists(query: &mut Query) -> Result<()> {
    match query.visit(&mut AsExists) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct AsExists;

impl VisitorMut for AsExists {
    type Break = EngineError;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<EngineError> {
        match select.selection.as_mut().map_or(Ok(()), rewrite) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// A condition, and the parts of an AND.
fn rewrite(condition: &mut Expr) -> Result<()> {
    match condition {
        Expr::Nested(inner) => rewrite(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            rewrite(left)?;
            rewrite(right)
        }
        Expr::InSubquery { expr, subquery, negated: false } => {
            let Expr::Tuple(values) = expr.as_mut() else { return Ok(()) };
            *condition = exists(std::mem::take(values), subquery)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn exists(values: Vec<Expr>, subquery: &Query) -> Result<Expr> {
    let columns: Vec<String> = (1..=values.len()).map(|i| format!("__column_{i}")).collect();
    let text = format!("SELECT 1 FROM (SELECT 1) AS __row ({})", columns.join(", "));
    let parsed = Parser::parse_sql(&SeracDialect, &text).map_err(|e| EngineError::internal(format!("{text}: {e}")))?;
    let Some(Statement::Query(mut query)) = parsed.into_iter().next() else {
        return Err(EngineError::internal(format!("{text}: no query")));
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        if let TableFactor::Derived { subquery: inside, .. } = &mut select.from[0].relation {
            **inside = subquery.clone();
        }
        let equal = columns.into_iter().zip(values).map(|(column, value)| Expr::BinaryOp {
            left: Box::new(Expr::CompoundIdentifier(vec![Ident::new("__row"), Ident::new(column)])),
            op: BinaryOperator::Eq,
            right: Box::new(Expr::Nested(Box::new(value))),
        });
        select.selection = equal.reduce(|left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        });
    }
    Ok(Expr::Exists { subquery: query, negated: false })
}
