//! A number that becomes an integer is rounded, as in PostgreSQL: halves of a NUMERIC away from zero, halves of a DOUBLE
//! to the even side. Arrow's cast cuts the digits off, so that `CAST(1.7 AS INT)` would be 1.

use std::sync::{Arc, LazyLock};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, internal_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::rewrite_expressions;

/// Rounds before casts.
#[derive(Debug)]
pub(super) struct RoundCasts;

impl AnalyzerRule for RoundCasts {
    fn name(&self) -> &str {
        "round_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        rewrite_expressions(plan, concerns, round)
    }
}

fn concerns(expr: &Expr) -> bool {
    let (Expr::Cast(Cast { expr: inner, field }) | Expr::TryCast(TryCast { expr: inner, field })) = expr else {
        return false;
    };
    let is_integer_already = matches!(inner.as_ref(), Expr::Literal(value, _) if value.data_type().is_integer());
    let target = field.data_type();
    (target.is_integer() || target.is_decimal()) && !is_integer_already
}

fn round(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::Cast(Cast { expr, field }) => {
            let rounded = rounded(*expr, field.data_type(), schema)?;
            Ok(rounded.update_data(|expr| Expr::Cast(Cast { expr: Box::new(expr), field })))
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let rounded = rounded(*expr, field.data_type(), schema)?;
            Ok(rounded.update_data(|expr| Expr::TryCast(TryCast { expr: Box::new(expr), field })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The expression with no more digits after the point than `target` has.
fn rounded(expr: Expr, target: &DataType, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let scale = match target {
        target if target.is_integer() => 0,
        DataType::Decimal32(_, s)
        | DataType::Decimal64(_, s)
        | DataType::Decimal128(_, s)
        | DataType::Decimal256(_, s) => *s,
        _ => return Ok(Transformed::no(expr)),
    };
    // One digit more before the point: 9.99 is 10.0.
    let narrower = |precision: u8, from: i8| precision.saturating_sub((from - scale) as u8).saturating_add(1);
    let narrower = match expr.get_type(schema)? {
        DataType::Float32 | DataType::Float64 if target.is_integer() && !is_rounded(&expr) => {
            return Ok(Transformed::yes(ROUND.call(vec![expr])));
        }
        DataType::Decimal32(p, s) if s > scale => DataType::Decimal32(narrower(p, s), scale),
        DataType::Decimal64(p, s) if s > scale => DataType::Decimal64(narrower(p, s), scale),
        DataType::Decimal128(p, s) if s > scale => DataType::Decimal128(narrower(p, s), scale),
        DataType::Decimal256(p, s) if s > scale => DataType::Decimal256(narrower(p, s), scale),
        _ => return Ok(Transformed::no(expr)),
    };
    let narrow = Narrow { target: narrower, signature: Signature::any(1, Volatility::Immutable) };
    Ok(Transformed::yes(ScalarUDF::from(narrow).call(vec![expr])))
}

fn is_rounded(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if function.func.inner().is::<RoundHalfEven>())
}

static ROUND: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let floats = vec![DataType::Float32, DataType::Float64];
    Arc::new(RoundHalfEven { signature: Signature::uniform(1, floats, Volatility::Immutable) }.into())
});

/// The nearest whole number, of two the even one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundHalfEven {
    signature: Signature,
}

impl ScalarUDFImpl for RoundHalfEven {
    fn name(&self) -> &str {
        "round_half_even"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
        let array = args.args[0].to_array(if is_scalar { 1 } else { args.number_rows })?;
        let rounded: arrow::array::ArrayRef = match array.data_type() {
            DataType::Float32 => {
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
            }
            DataType::Float64 => {
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
            }
            other => return internal_err!("round_half_even of {other}"),
        };
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&rounded, 0)?)),
            false => Ok(ColumnarValue::Array(rounded)),
        }
    }
}

/// A NUMERIC with fewer digits after the point, rounded as Arrow's casts between them are.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Narrow {
    target: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Narrow {
    fn name(&self) -> &str {
        "narrow"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.target.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let is_nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.target.clone(), is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        args.args[0].cast_to(&self.target, None)
    }
}
