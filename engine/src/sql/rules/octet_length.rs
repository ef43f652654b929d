//! `octet_length` of a BYTEA too. DataFusion's is of texts only.

use arrow::compute::kernels::length::length;
use arrow::datatypes::DataType;
use datafusion::common::types::{logical_binary, logical_string};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    Coercion, ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    TypeSignatureClass, Volatility,
};

/// The function, in place of DataFusion's.
pub(super) fn octet_length() -> ScalarUDF {
    let of = |class| TypeSignature::Coercible(vec![Coercion::new_exact(class)]);
    let text = of(TypeSignatureClass::Native(logical_string()));
    let bytes = of(TypeSignatureClass::Native(logical_binary()));
    OctetLength { signature: Signature::one_of(vec![text, bytes], Volatility::Immutable) }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OctetLength {
    signature: Signature,
}

impl ScalarUDFImpl for OctetLength {
    fn name(&self) -> &str {
        "octet_length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        match &types[0] {
            DataType::LargeUtf8 | DataType::LargeBinary => Ok(DataType::Int64),
            DataType::Utf8 | DataType::Utf8View | DataType::Binary | DataType::BinaryView | DataType::Null => {
                Ok(DataType::Int32)
            }
            other => plan_err!("octet_length is of a TEXT or BYTEA, not of {other}"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(length(values.as_ref())?)),
            ColumnarValue::Scalar(value) => {
                let lengths = length(value.to_array()?.as_ref())?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?))
            }
        }
    }
}
