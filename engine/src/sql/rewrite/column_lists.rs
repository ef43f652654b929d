//! `(SELECT k, k FROM t) AS x (a, b)` and `WITH x (a, b) AS (SELECT k, k FROM t)`: what is selected twice, and has two names.
//!
//! DataFusion wants the items of a select list to differ in their names, though nobody sees those here. An item that is written like
//! one before gets a name of ours.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr, TableAlias, TableFactor, VisitMut, VisitorMut};

use crate::sql::names::quoted;

/// Names the items of queries whose columns have names of their own.
pub(super) fn name_items(query: &mut Query) {
    let _ = query.visit(&mut Rewrite);
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            name_twins(&mut cte.query.body, &cte.alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = table {
            name_twins(&mut subquery.body, alias);
        }
        ControlFlow::Continue(())
    }
}

/// Of a UNION the first SELECT gives the names.
fn name_twins(body: &mut SetExpr, alias: &TableAlias) {
    match body {
        SetExpr::Select(select) if select.projection.len() == alias.columns.len() => {
            let mut seen = HashSet::new();
            for (position, item) in select.projection.iter_mut().enumerate() {
                let SelectItem::UnnamedExpr(expr) = item else { continue };
                if !seen.insert(expr.to_string()) {
                    let alias = quoted(&format!("__twin_{position}"));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        SetExpr::SetOperation { left, .. } => name_twins(left, alias),
        SetExpr::Query(query) => name_twins(&mut query.body, alias),
        _ => {}
    }
}
