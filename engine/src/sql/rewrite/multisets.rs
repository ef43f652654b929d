//! INTERSECT ALL and EXCEPT ALL keep duplicates: of m and n equal rows min(m, n), and max(0, m - n). DataFusion plans both
//! as joins that do not count.
//!
//! Here equal rows are numbered on both sides, so that no two are equal any more, and the plain forms do:
//! ```text
//! l INTERSECT ALL r
//! SELECT c1 AS a FROM (
//!     SELECT c1, row_number() OVER (PARTITION BY c1) AS n FROM (l) AS "left"(c1)
//!     INTERSECT
//!     SELECT c1, row_number() OVER (PARTITION BY c1) AS n FROM (r) AS "right"(c1)
//! )
//! ```

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement, TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::error::{EngineError, Result};
use crate::sql::balance::empty_set;
use crate::sql::dialect::SeracDialect;
use crate::sql::dml;
use crate::sql::names::fold;
use crate::sql::validate::unsupported;

/// Rewrites each INTERSECT ALL and EXCEPT ALL of a query.
pub(super) fn count_rows(query: &mut Query) -> Result<()> {
    match query.visit(&mut CountRows) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct CountRows;

impl VisitorMut for CountRows {
    type Break = EngineError;

    /// After what is inside of it.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<EngineError> {
        match rewrite(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn rewrite(body: &mut SetExpr) -> Result<()> {
    let SetExpr::SetOperation { op, set_quantifier, left, right } = body else { return Ok(()) };
    rewrite(left)?;
    rewrite(right)?;
    if !matches!(op, SetOperator::Intersect | SetOperator::Except) {
        return Ok(());
    }
    match set_quantifier {
        SetQuantifier::All => {}
        SetQuantifier::AllByName | SetQuantifier::ByName | SetQuantifier::DistinctByName => {
            return Err(unsupported(&format!("{op} BY NAME")));
        }
        SetQuantifier::Distinct | SetQuantifier::None => return Ok(()),
    }
    let Some(names) = output_names(left) else {
        return Err(unsupported(&format!("{op} ALL of SELECT * (list the columns)")));
    };
    let mut counted = template(*op, &names)?;
    let taken = |side: &mut Box<SetExpr>| Some(Box::new(dml::query(std::mem::replace(side.as_mut(), empty_set()))));
    let mut fill = Fill { left: taken(left), right: taken(right) };
    let _ = counted.visit(&mut fill);
    *body = *counted.body;
    Ok(())
}

/// The names of a query's columns; `None` = a wildcard hides them.
fn output_names(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => select.projection.iter().map(item_name).collect(),
        SetExpr::Values(values) => {
            let row = values.rows.first()?;
            Some((1..=row.content.len()).map(|i| format!("column{i}")).collect())
        }
        SetExpr::SetOperation { left, .. } => output_names(left),
        SetExpr::Query(query) => output_names(&query.body),
        _ => None,
    }
}

fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(fold(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(fold),
        SelectItem::UnnamedExpr(expr) => Some(expr.to_string()),
        _ => None,
    }
}

fn template(op: SetOperator, names: &[String]) -> Result<Query> {
    let columns = (1..=names.len()).map(|i| format!("c{i}")).collect::<Vec<_>>().join(", ");
    let items = names.iter().enumerate().map(|(i, name)| format!("c{} AS \"{}\"", i + 1, name.replace('"', "\"\"")));
    let items = items.collect::<Vec<_>>().join(", ");
    let side = |name: &str| {
        format!(
            "SELECT {columns}, row_number() OVER (PARTITION BY {columns}) AS n FROM (SELECT 1) AS \"{name}\" ({columns})"
        )
    };
    let text = format!("SELECT {items} FROM ({} {op} {}) AS counted", side(LEFT), side(RIGHT));
    let parsed = Parser::parse_sql(&SeracDialect, &text).map_err(|e| EngineError::internal(format!("{text}: {e}")))?;
    match parsed.into_iter().next() {
        Some(Statement::Query(query)) => Ok(*query),
        _ => Err(EngineError::internal(format!("{text}: no query"))),
    }
}

const LEFT: &str = "left side";
const RIGHT: &str = "right side";

/// Puts the two sides into the template.
struct Fill {
    left: Option<Box<Query>>,
    right: Option<Box<Query>>,
}

impl VisitorMut for Fill {
    type Break = ();

    /// Not before what is inside: a side may have such sides itself.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor {
            let side = match alias.name.value.as_str() {
                LEFT => self.left.take(),
                RIGHT => self.right.take(),
                _ => None,
            };
            if let Some(side) = side {
                *subquery = side;
            }
        }
        ControlFlow::Continue(())
    }
}
