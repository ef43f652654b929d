//! `saturating_ns(timestamp)`: a TIMESTAMP in nanoseconds for a comparison. A time before 1677 or after 2262, which has no
//! nanoseconds, is the first or the last of those that have: it is still before or after any time it is compared with.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

static SATURATING_NS: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(SaturatingNs { signature: Signature::any(1, Volatility::Immutable) }.into()));

/// The timestamp in nanoseconds.
pub(super) fn saturating_ns(timestamp: Expr) -> Expr {
    SATURATING_NS.call(vec![timestamp])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SaturatingNs {
    signature: Signature,
}

impl ScalarUDFImpl for SaturatingNs {
    fn name(&self) -> &str {
        "saturating_ns"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match &types[0] {
            DataType::Timestamp(_, zone) => Ok(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())),
            other => internal_err!("saturating_ns of {other}"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let argument = &args.arg_fields[0];
        let nanoseconds = self.return_type(&[argument.data_type().clone()])?;
        Ok(Arc::new(Field::new(self.name(), nanoseconds, argument.is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(in_ns(array)?)),
            ColumnarValue::Scalar(value) => {
                let scaled = in_ns(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&scaled, 0)?))
            }
        }
    }
}

fn in_ns(array: &ArrayRef) -> DfResult<ArrayRef> {
    let DataType::Timestamp(unit, zone) = array.data_type() else {
        return internal_err!("saturating_ns of {}", array.data_type());
    };
    let scaled = match unit {
        TimeUnit::Second => scaled::<TimestampSecondType>(array, 1_000_000_000),
        TimeUnit::Millisecond => scaled::<TimestampMillisecondType>(array, 1_000_000),
        TimeUnit::Microsecond => scaled::<TimestampMicrosecondType>(array, 1_000),
        TimeUnit::Nanosecond => return Ok(Arc::clone(array)),
    };
    Ok(Arc::new(scaled.with_timezone_opt(zone.clone())))
}

fn scaled<T: ArrowTimestampType>(array: &ArrayRef, factor: i64) -> PrimitiveArray<TimestampNanosecondType> {
    array.as_primitive::<T>().unary(|value| value.saturating_mul(factor))
}
