//! JSON in text columns: `->`, `->>` and the functions of `datafusion-functions-json`.
//!
//! `->` gives JSON as text, as PostgreSQL's does, and not the library's union of types, which no client knows: functions that give one are
//! left out. A key that is not there, and text that is no JSON, are NULL.
//!
//! `json_extract` and `json_extract_string` are the same with all keys and places in one text, a path, which is taken apart when the
//! statement is planned.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::types::logical_string;
use datafusion::common::utils::take_function_args;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue, plan_datafusion_err, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    Coercion, ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignatureClass, Volatility,
};
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
        by_path("json_extract", udfs::json_get_json_udf()),
        by_path("json_extract_string", udfs::json_as_text_udf()),
    ]
}

/// A function with a path in place of keys and places one by one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ByPath {
    name: &'static str,
    /// Takes them one by one.
    function: Arc<ScalarUDF>,
    signature: Signature,
}

fn by_path(name: &'static str, function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let text = || Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
    let signature = Signature::coercible(vec![text(), text()], Volatility::Immutable);
    Arc::new(ByPath { name, function, signature }.into())
}

impl ByPath {
    /// The keys and places of a path.
    fn steps(&self, path: &ScalarValue) -> DfResult<Vec<ScalarValue>> {
        match path.try_as_str().flatten() {
            // Of no path there is no value.
            None => Ok(vec![ScalarValue::Utf8(None)]),
            Some(path) => steps(path).ok_or_else(|| {
                plan_datafusion_err!("{}: '{path}' is no path: write it as '$.key.\"another key\"[0]'", self.name)
            }),
        }
    }

    fn refused<T>(&self) -> DfResult<T> {
        plan_err!("{}: the path may not depend on rows: use -> or json_extract_path", self.name)
    }
}

impl ScalarUDFImpl for ByPath {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        self.function.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        self.function.return_field_from_args(args)
    }

    /// Becomes the function that takes them one by one.
    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> DfResult<ExprSimplifyResult> {
        let [json, path] = take_function_args(self.name, args)?;
        let steps = match &path {
            Expr::Literal(path, _) => Some(self.steps(path)?),
            path if path.any_column_refs() => return self.refused(),
            // A parameter, until it has its value.
            _ => None,
        };
        let Some(steps) = steps else { return Ok(ExprSimplifyResult::Original(vec![json, path])) };
        let mut args = vec![json];
        args.extend(steps.into_iter().map(|step| Expr::Literal(step, None)));
        let call = ScalarFunction::new_udf(Arc::clone(&self.function), args);
        Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let ScalarFunctionArgs { args, arg_fields, number_rows, return_field, config_options } = args;
        let [json, path] = take_function_args(self.name, args)?;
        let ColumnarValue::Scalar(path) = path else { return self.refused() };
        let (mut args, mut fields) = (vec![json], arg_fields);
        fields.truncate(1);
        for step in self.steps(&path)? {
            fields.push(Arc::new(Field::new("step", step.data_type(), true)));
            args.push(ColumnarValue::Scalar(step));
        }
        let arg_fields = fields;
        self.function.invoke_with_args(ScalarFunctionArgs {
            args,
            arg_fields,
            number_rows,
            return_field,
            config_options,
        })
    }
}

/// The keys and places of `$.key."another key"[0]`, each of which may be there any number of times. A negative place counts from the
/// end.
fn steps(path: &str) -> Option<Vec<ScalarValue>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[') {
            Some(inside) => {
                let (place, after) = inside.split_once(']')?;
                let place: i32 = place.trim().parse().ok()?;
                (ScalarValue::Int64(Some(place.into())), after)
            }
            None => {
                let (key, after) = key(rest.strip_prefix('.')?)?;
                (ScalarValue::Utf8(Some(key)), after)
            }
        };
        steps.push(step);
        rest = after;
    }
    Some(steps)
}

/// The key that a path goes on with, and what is behind it. In quotes a backslash stands before one.
fn key(path: &str) -> Option<(String, &str)> {
    let Some(quoted) = path.strip_prefix('"') else {
        let (key, after) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
        // Other databases read * as all keys.
        let is_key = !key.is_empty() && key != "*" && !key.contains('"');
        return is_key.then(|| (key.to_owned(), after));
    };
    let mut key = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((key, &quoted[at + 1..])),
            '\\' => key.push(chars.next()?.1),
            c => key.push(c),
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let shown = |path: &str| {
            let steps = steps(path)?;
            Some(steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>().join(" "))
        };
        for (path, expected) in [
            ("$", ""),
            ("$.a", "Utf8(\"a\")"),
            ("$.a.b[0]", "Utf8(\"a\") Utf8(\"b\") Int64(0)"),
            ("$[1][-2].größe", "Int64(1) Int64(-2) Utf8(\"größe\")"),
            ("$.\"a.b\"[ 3 ]", "Utf8(\"a.b\") Int64(3)"),
            (r#"$."a\"b\\c""#, r#"Utf8("a"b\c")"#),
            ("$.\"\"", "Utf8(\"\")"),
            ("$.a b", "Utf8(\"a b\")"),
        ] {
            assert_eq!(shown(path).as_deref(), Some(expected), "{path}");
        }
        for path in [
            "", "a", ".a", "/a", "$a", "$.", "$..a", "$.a.", "$[", "$[]", "$[a]", "$[*]", "$.*", "$.\"a", "$.\"a\"b",
            "$ ",
        ] {
            assert_eq!(shown(path), None, "{path}");
        }
    }
}
