//! Functions of SeracDB's own: `snowflake_id()` and `snowflake_timestamp(id)`; and PostgreSQL's name of `uuid()`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::utils::take_function_args;
use datafusion::error::Result as DfResult;
use datafusion::functions::string;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use seracdb_storage::StorageError;
use seracdb_storage::store::Store;
use seracdb_storage::system_columns::time_ms_of;

use crate::scan::external;

/// All of them.
pub(crate) fn functions(store: &Arc<Store>) -> [Arc<ScalarUDF>; 3] {
    let id = SnowflakeId { store: Arc::downgrade(store), signature: Signature::nullary(Volatility::Volatile) };
    let exact = TypeSignature::Exact(vec![DataType::Int64]);
    let time = SnowflakeTimestamp { signature: Signature::new(exact, Volatility::Immutable) };
    let uuid = string::uuid().as_ref().clone().with_aliases(["gen_random_uuid"]);
    [Arc::new(id.into()), Arc::new(time.into()), Arc::new(uuid)]
}

/// `snowflake_id()`: a number that no `_id` and no other call has, above those before.
struct SnowflakeId {
    /// A plan that somebody keeps holds no data directory.
    store: Weak<Store>,
    signature: Signature,
}

impl fmt::Debug for SnowflakeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnowflakeId")
    }
}

// There is one of each store.
impl PartialEq for SnowflakeId {
    fn eq(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.store, &other.store)
    }
}

impl Eq for SnowflakeId {}

impl Hash for SnowflakeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for SnowflakeId {
    fn name(&self) -> &str {
        "snowflake_id"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let store = self.store.upgrade().ok_or_else(|| external(StorageError::Stopped))?;
        let ids = store.new_ids(args.number_rows).into_iter().map(|id| id.get());
        Ok(ColumnarValue::Array(Arc::new(Int64Array::from_iter_values(ids))))
    }
}

/// `snowflake_timestamp(id)`: when an `_id` was made, to the millisecond, in UTC.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SnowflakeTimestamp {
    signature: Signature,
}

impl ScalarUDFImpl for SnowflakeTimestamp {
    fn name(&self) -> &str {
        "snowflake_timestamp"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Millisecond, None))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let [ids] = take_function_args(self.name(), args.args)?;
        let is_scalar = matches!(ids, ColumnarValue::Scalar(_));
        let ids = ids.into_array(if is_scalar { 1 } else { rows })?;
        let times: TimestampMillisecondArray =
            ids.as_primitive::<Int64Type>().iter().map(|id| id.map(time_ms_of)).collect();
        let times: ArrayRef = Arc::new(times);
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&times, 0)?),
            false => ColumnarValue::Array(times),
        })
    }
}
