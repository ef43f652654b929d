//! `current_user` and its kin: what they are is known when a statement is planned, for a plan is one user's, in one namespace
//! ([`crate::plans::Basis`]).

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArguments, Query, Select, SelectItem, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::sql::names::{CATALOG, quoted};

/// Who asks, and where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionValues<'a> {
    /// Whose rights count, and whose rows of user tables are read.
    pub(crate) user: &'a str,
    /// Who has logged in.
    pub(crate) session_user: &'a str,
    /// What names without a namespace mean.
    pub(crate) namespace: &'a str,
}

/// Writes the values into a query. Columns of the result are called as if they were not there: a name may be kept, and others'.
pub(crate) fn put_session_values(query: &mut Query, values: SessionValues<'_>) {
    if Visit::visit(query, &mut Find).is_break() {
        let _ = VisitMut::visit(query, &mut Put(values));
    }
}

/// Which of them an expression asks for, if any: what is kept is of no session.
pub(crate) fn session_value_in(expr: &Expr) -> Option<&'static str> {
    match expr.visit(&mut Find) {
        ControlFlow::Break(name) => Some(name),
        ControlFlow::Continue(()) => None,
    }
}

struct Find;

impl Visitor for Find {
    type Break = &'static str;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<&'static str> {
        let nobody = SessionValues { user: "", session_user: "", namespace: "" };
        match expr {
            Expr::Function(function) => match nobody.of(function) {
                Some((name, _)) => ControlFlow::Break(name),
                None => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}

impl SessionValues<'_> {
    /// A function's name and value, if it is one of these.
    fn of(self, function: &Function) -> Option<(&'static str, String)> {
        let Function { name, parameters, args, filter, null_treatment, over, within_group, .. } = function;
        let is_plain = filter.is_none() && null_treatment.is_none() && over.is_none() && within_group.is_empty();
        let ([name], FunctionArguments::None, true) = (name.0.as_slice(), parameters, is_plain) else { return None };
        let name = name.as_ident().filter(|name| name.quote_style.is_none())?.value.to_ascii_lowercase();
        let has_parentheses = match args {
            FunctionArguments::None => false,
            FunctionArguments::List(list) if list.args.is_empty() && list.clauses.is_empty() => true,
            _ => return None,
        };
        let (name, value) = match (name.as_str(), has_parentheses) {
            ("current_user", _) => ("current_user", self.user),
            ("session_user", _) => ("session_user", self.session_user),
            ("current_catalog", _) => ("current_catalog", CATALOG),
            ("current_database", true) => ("current_database", CATALOG),
            ("current_schema", true) => ("current_schema", self.namespace),
            ("version", true) => ("version", concat!("SeracDB ", env!("CARGO_PKG_VERSION"))),
            _ => return None,
        };
        Some((name, value.to_owned()))
    }
}

struct Put<'a>(SessionValues<'a>);

impl VisitorMut for Put<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            let Some(name) = session_value_in(expr) else { continue };
            let name = if matches!(expr, Expr::Function(function) if self.0.of(function).is_some()) {
                name.to_owned()
            } else {
                expr.to_string()
            };
            let expr = std::mem::replace(expr, Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias: quoted(&name) };
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some((_, value)) = self.0.of(function)
        {
            *expr = text(value);
        }
        ControlFlow::Continue(())
    }
}

fn text(value: String) -> Expr {
    Expr::value(Value::SingleQuotedString(value))
}
