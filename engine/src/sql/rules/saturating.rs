//! `as_milliseconds`, `as_microseconds`, `as_nanoseconds`: a TIMESTAMP in a finer unit, for a comparison.
//!
//! A time before 1677 or after 2262, which has no nanoseconds, is the first or the last of those that have: it is still
//! before or after any time it is compared with. And these are no casts: the optimizer takes a cast from a column and gives
//! it to the literal beside it, whose finer digits are then lost.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

static AS_MILLISECONDS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| finer("as_milliseconds", TimeUnit::Millisecond));
static AS_MICROSECONDS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| finer("as_microseconds", TimeUnit::Microsecond));
static AS_NANOSECONDS: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| finer("as_nanoseconds", TimeUnit::Nanosecond));

fn finer(name: &'static str, unit: TimeUnit) -> Arc<ScalarUDF> {
    Arc::new(Finer { name, unit, signature: Signature::any(1, Volatility::Immutable) }.into())
}

/// The timestamp in this unit, which is finer than its own.
pub(super) fn in_finer_unit(timestamp: Expr, unit: TimeUnit) -> Expr {
    match unit {
        TimeUnit::Second => timestamp,
        TimeUnit::Millisecond => AS_MILLISECONDS.call(vec![timestamp]),
        TimeUnit::Microsecond => AS_MICROSECONDS.call(vec![timestamp]),
        TimeUnit::Nanosecond => AS_NANOSECONDS.call(vec![timestamp]),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Finer {
    name: &'static str,
    unit: TimeUnit,
    signature: Signature,
}

impl ScalarUDFImpl for Finer {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match &types[0] {
            DataType::Timestamp(_, zone) => Ok(DataType::Timestamp(self.unit, zone.clone())),
            other => internal_err!("{} of {other}", self.name),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let argument = &args.arg_fields[0];
        let data_type = self.return_type(&[argument.data_type().clone()])?;
        Ok(Arc::new(Field::new(self.name, data_type, argument.is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(self.scaled(array)?)),
            ColumnarValue::Scalar(value) => {
                let scaled = self.scaled(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&scaled, 0)?))
            }
        }
    }
}

impl Finer {
    fn scaled(&self, array: &ArrayRef) -> DfResult<ArrayRef> {
        let DataType::Timestamp(from, zone) = array.data_type() else {
            return internal_err!("{} of {}", self.name, array.data_type());
        };
        let factor = per_second(self.unit) / per_second(*from).min(per_second(self.unit));
        let values: Int64Array = match from {
            TimeUnit::Second => times::<TimestampSecondType>(array, factor),
            TimeUnit::Millisecond => times::<TimestampMillisecondType>(array, factor),
            TimeUnit::Microsecond => times::<TimestampMicrosecondType>(array, factor),
            TimeUnit::Nanosecond => return internal_err!("{} of nanoseconds", self.name),
        };
        let scaled: ArrayRef = match self.unit {
            TimeUnit::Second => return internal_err!("{} of seconds", self.name),
            TimeUnit::Millisecond => stamps::<TimestampMillisecondType>(&values, zone),
            TimeUnit::Microsecond => stamps::<TimestampMicrosecondType>(&values, zone),
            TimeUnit::Nanosecond => stamps::<TimestampNanosecondType>(&values, zone),
        };
        Ok(scaled)
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn times<T: ArrowTimestampType>(array: &ArrayRef, factor: i64) -> Int64Array {
    array.as_primitive::<T>().unary(|value| value.saturating_mul(factor))
}

fn stamps<T: ArrowTimestampType>(values: &Int64Array, zone: &Option<Arc<str>>) -> ArrayRef {
    Arc::new(values.reinterpret_cast::<T>().with_timezone_opt(zone.clone()))
}
