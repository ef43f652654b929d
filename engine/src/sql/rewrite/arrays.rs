//! `[$1, (SELECT …)]`: DataFusion plans what stands in brackets as if nothing were around it, and knows the types of no
//! parameters and no WITH there. `make_array` of the same is planned like every other function.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut};

use super::call;

/// Makes functions of the arrays that need their surroundings.
pub(super) fn as_functions(query: &mut Query) {
    let _ = query.visit(&mut Rewrite);
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Array(array) = expr
            && array.elem.visit(&mut NeedsSurroundings).is_break()
        {
            *expr = call("make_array", std::mem::take(&mut array.elem));
        }
        ControlFlow::Continue(())
    }
}

struct NeedsSurroundings;

impl Visitor for NeedsSurroundings {
    type Break = ();

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        match value.value {
            Value::Placeholder(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}
