//! The row ids that filters leave: a lookup by `_id` among hot rows seeks, and does not scan.

use std::ops::RangeInclusive;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Between, Expr, Operator};
use seracdb_storage::system_columns;

/// A range that holds every `_id` for which all of these filters can be true.
pub(super) fn of(filters: &[Expr]) -> RangeInclusive<i64> {
    let (mut low, mut high) = (i64::MIN, i64::MAX);
    for filter in filters {
        let range = of_filter(filter);
        low = low.max(*range.start());
        high = high.min(*range.end());
    }
    low..=high
}

const ALL: RangeInclusive<i64> = i64::MIN..=i64::MAX;
#[expect(clippy::reversed_empty_ranges, reason = "no id is in it")]
const NONE: RangeInclusive<i64> = 1..=0;

fn of_filter(filter: &Expr) -> RangeInclusive<i64> {
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::And => {
            let (left, right) = (of_filter(&binary.left), of_filter(&binary.right));
            *left.start().max(right.start())..=*left.end().min(right.end())
        }
        Expr::BinaryExpr(binary) => match (is_id(&binary.left), literal(&binary.right)) {
            (true, Some(value)) => compared(binary.op, value),
            _ => match (literal(&binary.left), is_id(&binary.right), binary.op.swap()) {
                (Some(value), true, Some(op)) => compared(op, value),
                _ => ALL,
            },
        },
        Expr::Between(Between { expr, negated: false, low, high }) if is_id(expr) => {
            literal(low).unwrap_or(i64::MIN)..=literal(high).unwrap_or(i64::MAX)
        }
        Expr::InList(list) if !list.negated && is_id(&list.expr) => {
            let values: Option<Vec<i64>> = list.list.iter().map(literal).collect();
            match values {
                Some(values) => match (values.iter().min(), values.iter().max()) {
                    (Some(&low), Some(&high)) => low..=high,
                    _ => NONE,
                },
                None => ALL,
            }
        }
        _ => ALL,
    }
}

fn compared(op: Operator, value: i64) -> RangeInclusive<i64> {
    match op {
        Operator::Eq => value..=value,
        Operator::Lt => value.checked_sub(1).map_or(NONE, |high| i64::MIN..=high),
        Operator::LtEq => i64::MIN..=value,
        Operator::Gt => value.checked_add(1).map_or(NONE, |low| low..=i64::MAX),
        Operator::GtEq => value..=i64::MAX,
        _ => ALL,
    }
}

fn is_id(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(column) if column.name == system_columns::ID)
}

/// A BIGINT; the optimizer has brought what is compared with `_id` to that type.
fn literal(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn id() -> Expr {
        col(system_columns::ID)
    }

    #[test]
    fn narrows_to_what_can_be_true() {
        for (filters, expected) in [
            (vec![], ALL),
            (vec![id().eq(lit(5i64))], 5..=5),
            (vec![lit(5i64).lt(id())], 6..=i64::MAX),
            (vec![id().gt_eq(lit(3i64)), id().lt(lit(9i64))], 3..=8),
            (vec![id().gt(lit(3i64)).and(id().lt_eq(lit(9i64)))], 4..=9),
            (vec![id().between(lit(3i64), lit(4i64))], 3..=4),
            (vec![id().in_list(vec![lit(9i64), lit(2i64)], false)], 2..=9),
            (vec![id().in_list(vec![lit(9i64)], true)], ALL),
            (vec![id().eq(lit(5i64)).or(col("a").eq(lit(1i64)))], ALL),
            (vec![id().eq(lit(5i64)), col("a").eq(lit(1i64))], 5..=5),
            (vec![id().not_eq(lit(5i64))], ALL),
            (vec![id().lt(lit(i64::MIN))], NONE),
        ] {
            assert_eq!(of(&filters), expected, "{filters:?}");
        }
    }
}
