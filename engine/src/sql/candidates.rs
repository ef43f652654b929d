//! Which types a function takes, where nothing but the function tells the type of a parameter.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::logical_expr::type_coercion::functions::{UDFCoercionExt, fields_with_udf};

/// The types of a call's arguments as the function takes them. `known`: those that are known. `None` where text is taken, which
/// every other value can be read from, and where nothing is.
pub(super) fn taken<F: UDFCoercionExt>(function: &F, known: &[Option<DataType>]) -> Option<Vec<DataType>> {
    if coerced(function, &filled(known, &DataType::Utf8)).is_some() {
        return None;
    }
    let simple = [DataType::Float64, DataType::Int64, DataType::Boolean];
    let mut candidates = simple.to_vec();
    for sibling in known.iter().flatten() {
        let list = |item: &DataType| DataType::List(Arc::new(Field::new_list_field(item.clone(), true)));
        candidates.push(if matches!(sibling, DataType::List(_)) { sibling.clone() } else { list(sibling) });
    }
    candidates.push(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))));
    candidates.iter().find_map(|candidate| coerced(function, &filled(known, candidate)))
}

/// The types that a call's arguments are cast to; `None` when the function does not take them.
pub(super) fn coerced<F: UDFCoercionExt>(function: &F, types: &[DataType]) -> Option<Vec<DataType>> {
    let fields: Vec<FieldRef> = types.iter().map(|t| Field::new("arg", t.clone(), true).into()).collect();
    let coerced = fields_with_udf(&fields, function).ok()?;
    Some(coerced.iter().map(|field| field.data_type().clone()).collect())
}

fn filled(known: &[Option<DataType>], unknown: &DataType) -> Vec<DataType> {
    known.iter().map(|known| known.clone().unwrap_or_else(|| unknown.clone())).collect()
}
