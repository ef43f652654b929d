//! What is changed in a query's text tree before DataFusion plans it, each for an answer that would be wrong or refused
//! without need.

mod arrays;
mod column_lists;
mod literals;
mod multisets;
mod namesakes;
mod natural;
mod row_in;
pub(crate) mod same_names;
mod session_values;
mod shadowing;
mod time_patterns;
mod using;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query,
    SetExpr,
};

use crate::error::Result;
pub(crate) use namesakes::tell_apart;
pub(crate) use natural::join_by_name;
pub(crate) use session_values::{SessionValues, put_session_values, session_value_in};

/// Makes a query one that DataFusion answers rightly.
pub(crate) fn prepare(query: &mut Query) -> Result<()> {
    literals::read(query)?;
    if is_rows(query) {
        return Ok(());
    }
    arrays::as_functions(query);
    column_lists::name_items(query);
    shadowing::rename_inner(query);
    row_in::as_exists(query)?;
    using::merge_columns(query)?;
    multisets::count_rows(query)
}

/// Whether a query is the rows of an INSERT, often thousands, which have no subqueries.
fn is_rows(query: &Query) -> bool {
    query.with.is_none() && matches!(query.body.as_ref(), SetExpr::Values(_))
}

/// A call of a function.
pub(super) fn call(function: &str, args: impl IntoIterator<Item = Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
