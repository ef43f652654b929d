//! Integer arithmetic that leaves its type is an error, as in PostgreSQL.
//!
//! DataFusion's `+`, `-` and `*` wrap round, and its constant folding cannot be told otherwise. So an operation that could
//! overflow becomes a function of ours; one that cannot (an INT plus a BIGINT literal) stays as it is, and with it the
//! optimizer's rules for it. `sum` of BIGINTs is exchanged by [`super::checked_sum`].

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{AggregateFunction, BinaryExpr, Cast};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

use super::checked_sum::{CHECKED_SUM, is_plain_sum};
use super::rewrite_expressions;

/// Levels of an expression that are looked at to find out how large its values can be.
const LEVELS_MAX: usize = 8;

/// A sum of values of this many bits overflows after 2^23 rows of nothing but the largest: those are checked.
const SUM_BITS_MAX: u32 = 40;

/// Exchanges integer arithmetic that could overflow.
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> DfResult<LogicalPlan> {
        rewrite_expressions(plan, concerns, check)
    }
}

fn concerns(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => function(*op).is_some(),
        Expr::Negative(_) => true,
        Expr::AggregateFunction(aggregate) => is_plain_sum(&aggregate.func),
        Expr::WindowFunction(window) => {
            matches!(&window.fun, WindowFunctionDefinition::AggregateUDF(func) if is_plain_sum(func))
        }
        _ => false,
    }
}

fn check(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let checked = match function(op) {
                Some(checked) if can_overflow(&left, op, &right, schema) => checked,
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            Ok(Transformed::yes(checked.call(vec![*left, *right])))
        }
        Expr::Negative(inner) => match inner.get_type(schema)?.is_signed_integer() {
            true => Ok(Transformed::yes(NEGATE.call(vec![*inner]))),
            false => Ok(Transformed::no(Expr::Negative(inner))),
        },
        Expr::AggregateFunction(mut aggregate) if is_wide_sum(&aggregate, schema) => {
            aggregate.func = Arc::clone(&CHECKED_SUM);
            Ok(Transformed::yes(Expr::AggregateFunction(aggregate)))
        }
        Expr::WindowFunction(mut window) => match &window.fun {
            WindowFunctionDefinition::AggregateUDF(func)
                if is_plain_sum(func) && !window.params.distinct && is_wide(&window.params.args, schema) =>
            {
                window.fun = WindowFunctionDefinition::AggregateUDF(Arc::clone(&CHECKED_SUM));
                Ok(Transformed::yes(Expr::WindowFunction(window)))
            }
            _ => Ok(Transformed::no(Expr::WindowFunction(window))),
        },
        other => Ok(Transformed::no(other)),
    }
}

fn is_wide_sum(aggregate: &AggregateFunction, schema: &DFSchema) -> bool {
    is_plain_sum(&aggregate.func) && is_wide(&aggregate.params.args, schema)
}

fn is_wide(args: &[Expr], schema: &DFSchema) -> bool {
    let [arg] = args else { return false };
    let is_long = matches!(arg.get_type(schema), Ok(DataType::Int64 | DataType::UInt64));
    is_long && bits(arg, schema, LEVELS_MAX).is_some_and(|bits| bits > SUM_BITS_MAX)
}

fn can_overflow(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> bool {
    let (Ok(data_type), Ok(other)) = (left.get_type(schema), right.get_type(schema)) else { return false };
    let Some(room) = type_bits(&data_type) else { return false };
    if data_type != other {
        return false;
    }
    // The difference of unsigned numbers may be negative, whatever their size.
    if data_type.is_unsigned_integer() && op == Operator::Minus {
        return true;
    }
    let (Some(left), Some(right)) = (bits(left, schema, LEVELS_MAX), bits(right, schema, LEVELS_MAX)) else {
        return true;
    };
    result_bits(left, op, right) > room
}

fn result_bits(left: u32, op: Operator, right: u32) -> u32 {
    match op {
        Operator::Multiply => left + right,
        _ => left.max(right) + 1,
    }
}

/// The bits, without the sign's, that the values of an integer expression have at most; `None` = it is no integer.
fn bits(expr: &Expr, schema: &DFSchema, levels: usize) -> Option<u32> {
    let of_type = || type_bits(&expr.get_type(schema).ok()?);
    if levels == 0 {
        return of_type();
    }
    let found = match expr {
        Expr::Literal(value, _) => literal_bits(value),
        Expr::Alias(alias) => bits(&alias.expr, schema, levels - 1),
        Expr::Cast(Cast { expr, .. }) => bits(expr, schema, levels - 1),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if function(*op).is_some() => {
            let (left, right) = (bits(left, schema, levels - 1)?, bits(right, schema, levels - 1)?);
            Some(result_bits(left, *op, right))
        }
        _ => None,
    };
    let of_type = of_type()?;
    Some(found.map_or(of_type, |found| found.min(of_type)))
}

fn literal_bits(value: &ScalarValue) -> Option<u32> {
    let magnitude = match value {
        ScalarValue::Int8(Some(n)) => u64::from(n.unsigned_abs()),
        ScalarValue::Int16(Some(n)) => u64::from(n.unsigned_abs()),
        ScalarValue::Int32(Some(n)) => u64::from(n.unsigned_abs()),
        ScalarValue::Int64(Some(n)) => n.unsigned_abs(),
        ScalarValue::UInt8(Some(n)) => u64::from(*n),
        ScalarValue::UInt16(Some(n)) => u64::from(*n),
        ScalarValue::UInt32(Some(n)) => u64::from(*n),
        ScalarValue::UInt64(Some(n)) => *n,
        _ => return None,
    };
    Some(u64::BITS - magnitude.leading_zeros())
}

fn type_bits(data_type: &DataType) -> Option<u32> {
    Some(match data_type {
        DataType::Int8 => 7,
        DataType::UInt8 => 8,
        DataType::Int16 => 15,
        DataType::UInt16 => 16,
        DataType::Int32 => 31,
        DataType::UInt32 => 32,
        DataType::Int64 => 63,
        DataType::UInt64 => 64,
        _ => return None,
    })
}

fn function(op: Operator) -> Option<&'static Arc<ScalarUDF>> {
    match op {
        Operator::Plus => Some(&ADD),
        Operator::Minus => Some(&SUBTRACT),
        Operator::Multiply => Some(&MULTIPLY),
        _ => None,
    }
}

static ADD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| checked("checked_add", "+", 2));
static SUBTRACT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| checked("checked_subtract", "-", 2));
static MULTIPLY: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| checked("checked_multiply", "*", 2));
static NEGATE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| checked("checked_negate", "-", 1));

fn checked(name: &'static str, sign: &'static str, operands: usize) -> Arc<ScalarUDF> {
    Arc::new(Checked { name, sign, signature: Signature::any(operands, Volatility::Immutable) }.into())
}

/// An operation on integers of one type that is an error where its result is not of that type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    name: &'static str,
    sign: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        self.name
    }

    /// A result's column is called what it would be called without this rule.
    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        Ok(match args {
            [left, right] => format!("{} {} {}", left.schema_name(), self.sign, right.schema_name()),
            [only] => format!("({} {})", self.sign, only.schema_name()),
            _ => self.name.to_owned(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name, args.arg_fields[0].data_type().clone(), nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match (self.name, args.args.as_slice()) {
            ("checked_add", [left, right]) => apply(left, right, numeric::add),
            ("checked_subtract", [left, right]) => apply(left, right, numeric::sub),
            ("checked_multiply", [left, right]) => apply(left, right, numeric::mul),
            (_, [ColumnarValue::Array(array)]) => Ok(ColumnarValue::Array(numeric::neg(array)?)),
            (_, [ColumnarValue::Scalar(value)]) => {
                let negated: ArrayRef = numeric::neg(value.to_scalar()?.get().0)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&negated, 0)?))
            }
            (name, _) => internal_err!("{name} of {} arguments", args.args.len()),
        }
    }
}
