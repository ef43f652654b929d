//! `planted_panic`: a function that tests have in unoptimized builds, to see what a panic leaves standing.
//!
//! `planted_panic()` panics where it is planned, `planted_panic(condition)` where a row with a true condition comes by.

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

pub(crate) fn planted_panic() -> ScalarUDF {
    let arguments = vec![TypeSignature::Nullary, TypeSignature::Exact(vec![DataType::Boolean])];
    // Volatile, so that it is not evaluated before there are rows.
    PlantedPanic { signature: Signature::one_of(arguments, Volatility::Volatile) }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PlantedPanic {
    signature: Signature,
}

impl ScalarUDFImpl for PlantedPanic {
    fn name(&self) -> &str {
        "planted_panic"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        assert!(!types.is_empty(), "a planted panic, where the statement is planned");
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(condition) = args.args.first() else { return exec_err!("planted_panic wants a condition") };
        let rows = condition.to_array(args.number_rows)?;
        assert!(!rows.as_boolean().has_true(), "a planted panic, in the middle of a plan");
        Ok(ColumnarValue::Array(rows))
    }
}
