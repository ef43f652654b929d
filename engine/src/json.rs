//! JSON in text columns: `->`, `->>` and the functions of `datafusion-functions-json`.
//!
//! `->` gives JSON as text, as PostgreSQL's does, and not the library's union of types, which no client knows: functions that give one are
//! left out. A key that is not there, and text that is no JSON, are NULL.

use std::sync::Arc;

use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ScalarUDF};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs;

/// The functions. Some have PostgreSQL's names too.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let also = |function: &ScalarUDF, name| Arc::new(function.clone().with_aliases([name]));
    vec![
        also(&udfs::json_get_json_udf(), "json_extract_path"),
        also(&udfs::json_as_text_udf(), "json_extract_path_text"),
        also(&udfs::json_length_udf(), "json_array_length"),
        udfs::json_get_bool_udf(),
        udfs::json_get_float_udf(),
        udfs::json_get_int_udf(),
        udfs::json_get_str_udf(),
        udfs::json_contains_udf(),
        udfs::json_object_keys_udf(),
    ]
}

/// Plans the operators.
#[derive(Debug)]
pub(crate) struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        let function = match &expr.op {
            BinaryOperator::Arrow => udfs::json_get_json_udf(),
            BinaryOperator::LongArrow => udfs::json_as_text_udf(),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let call = ScalarFunction::new_udf(function, vec![expr.left, expr.right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}
