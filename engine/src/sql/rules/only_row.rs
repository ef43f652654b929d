//! `only_row({value, rows})`: the value of a subquery that may have one row, and an error when it has more.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, StructArray, new_null_array};
use arrow::compute::{kernels::zip::zip, not};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{ScalarValue, exec_err, internal_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// `only_row`.
pub(super) static ONLY_ROW: LazyLock<Arc<ScalarUDF>> =
    LazyLock::new(|| Arc::new(OnlyRow { signature: Signature::any(1, Volatility::Immutable) }.into()));

/// The value of the argument, whose struct has the fields `value` and `rows`: how many rows it is the first of.
pub(super) fn only_row(row: Expr) -> Expr {
    ONLY_ROW.call(vec![row])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OnlyRow {
    signature: Signature,
}

impl ScalarUDFImpl for OnlyRow {
    fn name(&self) -> &str {
        "only_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match &types[0] {
            DataType::Struct(fields) if fields.len() == 2 => Ok(fields[0].data_type().clone()),
            other => internal_err!("only_row of {other}"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let value = self.return_type(&[args.arg_fields[0].data_type().clone()])?;
        Ok(Arc::new(Field::new(self.name(), value, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(rows) => Ok(ColumnarValue::Array(value(rows.as_struct())?)),
            ColumnarValue::Scalar(ScalarValue::Struct(row)) => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&value(row)?, 0)?))
            }
            ColumnarValue::Scalar(other) => internal_err!("only_row of {other}"),
        }
    }
}

fn value(rows: &StructArray) -> DfResult<ArrayRef> {
    let counts = rows.column(1).as_primitive::<Int64Type>();
    let several = (0..rows.len()).any(|row| rows.is_valid(row) && counts.is_valid(row) && counts.value(row) > 1);
    if several {
        return exec_err!("more than one row returned by a subquery used as an expression");
    }
    let values = rows.column(0);
    match rows.nulls() {
        // No row at all: an outer join found none.
        Some(nulls) if nulls.null_count() > 0 => {
            let missing = not(&arrow::array::BooleanArray::new(nulls.inner().clone(), None))?;
            Ok(zip(&missing, &arrow::array::Scalar::new(new_null_array(values.data_type(), 1)), values)?)
        }
        _ => Ok(Arc::clone(values)),
    }
}
