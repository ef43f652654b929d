//! `sum` of BIGINTs that does not fit a BIGINT is an error. DataFusion's wraps round.
//!
//! It adds up in 128 bits, so that the order of the rows makes no difference: `max, max, -max` is `max`.

use std::collections::HashSet;
use std::mem::size_of;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{ScalarValue, exec_err, internal_err};
use datafusion::error::Result as DfResult;
use datafusion::functions_aggregate::sum::{Sum, sum_udaf};
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

/// The state between partial and final aggregation.
const STATE: DataType = DataType::Decimal128(38, 0);

/// `sum` of Int64 or UInt64.
pub(super) static CHECKED_SUM: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
    let signature = Signature::uniform(1, vec![DataType::Int64, DataType::UInt64], Volatility::Immutable);
    Arc::new(CheckedSum { signature }.into())
});

/// Whether this is DataFusion's own `sum`.
pub(super) fn is_plain_sum(function: &AggregateUDF) -> bool {
    function.inner().is::<Sum>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    signature: Signature,
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        "sum"
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> DfResult<String> {
        sum_udaf().schema_name(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> DfResult<String> {
        sum_udaf().window_function_schema_name(params)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> DfResult<DataType> {
        Ok(types[0].clone())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        if args.is_distinct {
            let name = format_state_name(args.name, "sum distinct");
            return Ok(vec![Arc::new(Field::new_list(name, Field::new_list_field(STATE, true), false))]);
        }
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "sum"), STATE, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type().clone();
        Ok(match args.is_distinct {
            true => Box::new(DistinctTotal { values: HashSet::new(), data_type }),
            false => Box::new(Total { sum: 0, rows: 0, data_type }),
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Totals { sums: vec![], seen: vec![], data_type: args.return_field.data_type().clone() }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// An integer array in 128 bits.
fn widened(values: &dyn Array) -> DfResult<Box<dyn Iterator<Item = Option<i128>> + '_>> {
    Ok(match values.data_type() {
        DataType::Int64 => Box::new(values.as_primitive::<Int64Type>().iter().map(|value| value.map(i128::from))),
        DataType::UInt64 => Box::new(values.as_primitive::<UInt64Type>().iter().map(|value| value.map(i128::from))),
        other => return internal_err!("sum of {other}"),
    })
}

/// The sum of an integer array and how many values are in it.
fn add_up(values: &dyn Array) -> DfResult<(i128, u64)> {
    let sum = match values.data_type() {
        DataType::Int64 => values.as_primitive::<Int64Type>().iter().flatten().map(i128::from).sum(),
        DataType::UInt64 => values.as_primitive::<UInt64Type>().iter().flatten().map(i128::from).sum(),
        other => return internal_err!("sum of {other}"),
    };
    Ok((sum, (values.len() - values.null_count()) as u64))
}

fn result(sum: Option<i128>, data_type: &DataType) -> DfResult<ScalarValue> {
    let out_of_range = |sum: i128| exec_err!("sum is out of range of {data_type}: {sum}");
    match (data_type, sum) {
        (DataType::UInt64, None) => Ok(ScalarValue::UInt64(None)),
        (DataType::UInt64, Some(sum)) => match u64::try_from(sum) {
            Ok(sum) => Ok(ScalarValue::UInt64(Some(sum))),
            Err(_) => out_of_range(sum),
        },
        (_, None) => Ok(ScalarValue::Int64(None)),
        (_, Some(sum)) => match i64::try_from(sum) {
            Ok(sum) => Ok(ScalarValue::Int64(Some(sum))),
            Err(_) => out_of_range(sum),
        },
    }
}

/// One sum, also of a window that moves.
#[derive(Debug)]
struct Total {
    sum: i128,
    /// Values that are no NULL; of none the sum is NULL. What is merged counts as one.
    rows: u64,
    data_type: DataType,
}

impl Total {
    fn known(&self) -> Option<i128> {
        (self.rows > 0).then_some(self.sum)
    }
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let (sum, rows) = add_up(&values[0])?;
        self.sum += sum;
        self.rows += rows;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let (sum, rows) = add_up(&values[0])?;
        self.sum -= sum;
        self.rows -= rows;
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for sum in states[0].as_primitive::<Decimal128Type>().iter().flatten() {
            self.sum += sum;
            self.rows += 1;
        }
        Ok(())
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128(self.known(), 38, 0)])
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        result(self.known(), &self.data_type)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

/// A sum of different values.
#[derive(Debug)]
struct DistinctTotal {
    values: HashSet<i128>,
    data_type: DataType,
}

impl Accumulator for DistinctTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.values.extend(widened(&values[0])?.flatten());
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.values.extend(list.as_primitive::<Decimal128Type>().iter().flatten());
        }
        Ok(())
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let values: Vec<ScalarValue> =
            self.values.iter().map(|value| ScalarValue::Decimal128(Some(*value), 38, 0)).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &STATE))])
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        result((!self.values.is_empty()).then(|| self.values.iter().sum()), &self.data_type)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<i128>()
    }
}

/// A sum per group.
struct Totals {
    sums: Vec<i128>,
    seen: Vec<bool>,
    data_type: DataType,
}

impl Totals {
    fn add(
        &mut self,
        values: impl Iterator<Item = Option<i128>>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) {
        self.sums.resize(total, 0);
        self.seen.resize(total, false);
        for (row, (value, group)) in values.zip(groups).enumerate() {
            let wanted = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if let Some(value) = value.filter(|_| wanted) {
                self.sums[*group] += value;
                self.seen[*group] = true;
            }
        }
    }

    fn take(&mut self, emit: EmitTo) -> impl Iterator<Item = Option<i128>> {
        let sums = emit.take_needed(&mut self.sums);
        let seen = emit.take_needed(&mut self.seen);
        sums.into_iter().zip(seen).map(|(sum, seen)| seen.then_some(sum))
    }
}

impl GroupsAccumulator for Totals {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> DfResult<()> {
        match values[0].data_type() {
            // Not through a box: this is done for every row.
            DataType::Int64 => {
                let values = values[0].as_primitive::<Int64Type>().iter().map(|value| value.map(i128::from));
                self.add(values, groups, filter, total);
            }
            _ => self.add(widened(&values[0])?, groups, filter, total),
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> DfResult<()> {
        self.add(values[0].as_primitive::<Decimal128Type>().iter(), groups, None, total);
        Ok(())
    }

    fn state(&mut self, emit: EmitTo) -> DfResult<Vec<ArrayRef>> {
        let sums: Decimal128Array = self.take(emit).collect();
        Ok(vec![Arc::new(sums.with_data_type(STATE))])
    }

    fn evaluate(&mut self, emit: EmitTo) -> DfResult<ArrayRef> {
        let data_type = self.data_type.clone();
        let sums = self.take(emit).map(|sum| result(sum, &data_type));
        Ok(match data_type {
            DataType::UInt64 => Arc::new(
                sums.map(|sum| Ok(if let ScalarValue::UInt64(sum) = sum? { sum } else { None }))
                    .collect::<DfResult<UInt64Array>>()?,
            ),
            _ => Arc::new(
                sums.map(|sum| Ok(if let ScalarValue::Int64(sum) = sum? { sum } else { None }))
                    .collect::<DfResult<Int64Array>>()?,
            ),
        })
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        let mut rows = Self { sums: vec![], seen: vec![], data_type: self.data_type.clone() };
        let groups: Vec<usize> = (0..values[0].len()).collect();
        rows.update_batch(values, &groups, filter, groups.len())?;
        rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.sums.capacity() * size_of::<i128>() + self.seen.capacity()
    }
}
