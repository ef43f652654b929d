//! Which types parameters get, and that binding them gives the right rows.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::fixture::Fixture;
use crate::sql::fit::bind_values;
use crate::sql::insert::plain_parameters;
use crate::sql::params::parameter_count;
use crate::sql::{Limits, Statement, parse};

fn int(value: i64) -> ScalarValue {
    ScalarValue::Int64(Some(value))
}

fn text(value: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(value.into()))
}

fn float(value: f64) -> ScalarValue {
    ScalarValue::Float64(Some(value))
}

#[test]
fn types_are_inferred() {
    let fixture = Fixture::new();
    for (sql, types) in [
        ("SELECT a FROM t", ""),
        ("SELECT a FROM t WHERE a = ? AND b > ?", "Int32, Utf8"),
        ("SELECT a FROM t WHERE a = $2 AND b > $1", "Utf8, Int32"),
        ("SELECT a FROM t WHERE b = $3", "Utf8, Utf8, Utf8"),
        ("SELECT ?", "Utf8"),
        ("SELECT ? AS x", "Utf8"),
        ("SELECT ? AS x, a FROM t", "Utf8"),
        ("SELECT x FROM (SELECT ? AS x) AS q WHERE x = 'a'", "Utf8"),
        ("SELECT $1, a FROM t WHERE a = $1", "Int32"),
        ("SELECT a FROM t WHERE $1 IS NULL OR a = $1", "Int32"),
        ("SELECT a FROM t WHERE a = $1 OR $1 IS NULL", "Int32"),
        ("SELECT a FROM t LIMIT ? OFFSET ?", "Int64, Int64"),
        ("SELECT a FROM t LIMIT ? + 1", "Int64"),
        ("SELECT a FROM t FETCH FIRST ? ROWS ONLY", "Int64"),
        ("SELECT COALESCE(?, a) FROM t", "Int32"),
        ("SELECT COALESCE(a, ?), COALESCE(?, b) FROM t", "Int32, Utf8"),
        ("SELECT NULLIF(b, ?), greatest(a, ?) FROM t", "Utf8, Int32"),
        ("SELECT CASE WHEN a > ? THEN ? ELSE b END FROM t", "Int32, Utf8"),
        ("SELECT CASE a WHEN ? THEN 1.5 ELSE ? END FROM t", "Int32, Float64"),
        ("SELECT a FROM t WHERE a IN (?, ?)", "Int32, Int32"),
        ("SELECT a FROM t WHERE ? IN (a, 3)", "Int64"),
        ("SELECT a FROM t WHERE ? IN (SELECT c FROM u)", "Utf8"),
        ("SELECT a FROM t WHERE a IN (SELECT a FROM u WHERE c = ?)", "Utf8"),
        ("SELECT a FROM t WHERE a BETWEEN ? AND ?", "Int32, Int32"),
        ("SELECT a FROM t WHERE ? BETWEEN s AND 7", "Int64"),
        ("SELECT a FROM t WHERE b LIKE ?", "Utf8"),
        ("SELECT a FROM t WHERE ? LIKE b", "Utf8"),
        ("SELECT a FROM t WHERE ?", "Boolean"),
        ("SELECT a FROM t WHERE NOT ? AND ?", "Boolean, Boolean"),
        ("SELECT ?::int, CAST(? AS BIGINT), ?::date", "Int32, Int64, Date32"),
        ("SELECT upper(?), abs(?)", "Utf8, Float64"),
        ("SELECT length(?) FROM t", "Utf8"),
        ("SELECT b || ? FROM t", "Utf8"),
        ("SELECT a + ?, ? * s FROM t", "Int32, Int16"),
        ("SELECT ? = ?", "Utf8, Utf8"),
        ("SELECT a FROM t GROUP BY a HAVING count(*) > ?", "Int64"),
        ("SELECT sum(a) FILTER (WHERE b = ?) FROM t", "Utf8"),
        ("SELECT a FROM t JOIN u USING (a) WHERE c = ?", "Utf8"),
        ("SELECT t.a FROM t JOIN u ON t.a = u.a AND u.c = ?", "Utf8"),
        ("WITH q AS (SELECT a FROM t WHERE b = ?) SELECT * FROM q WHERE a < ?", "Utf8, Int32"),
        ("SELECT a FROM t WHERE b = ? UNION ALL SELECT a FROM u WHERE a = ?", "Utf8, Int32"),
        ("SELECT _updated FROM t WHERE _updated > ?", "Timestamp(ns)"),
        ("VALUES (?, ?)", "Utf8, Utf8"),
        ("SELECT [?, ?], [?, a] FROM t", "Utf8, Utf8, Int32"),
        ("SELECT round(?, 1), floor(?), isnan(?)", "Float64, Float64, Float64"),
        ("SELECT sum(?), avg(?), min(?), bool_or(?), bit_and(?) FROM t", "Float64, Float64, Utf8, Boolean, Int64"),
        ("SELECT string_agg(b, ?), corr(a, ?) FROM t", "Utf8, Float64"),
        ("SELECT ntile(?) OVER (ORDER BY a), sum(?) OVER (ORDER BY a) FROM t", "Int64, Float64"),
        ("SELECT lag(b, ?, ?) OVER (ORDER BY a), lead(a, ?, ?) OVER (ORDER BY a) FROM t", "Int64, Utf8, Int64, Int32"),
        ("SELECT nth_value(a, ?) OVER (ORDER BY a) FROM t", "Int64"),
        ("SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN ? PRECEDING AND ? FOLLOWING) FROM t", "Int64, Int64"),
        ("SELECT value FROM generate_series(?, ?) WHERE value > ?", "Int64, Int64, Int64"),
        ("SELECT date_part(?, _updated), _updated AT TIME ZONE ? FROM t", "Utf8, Utf8"),
        ("SELECT _updated + INTERVAL ? FROM t WHERE b LIKE ? ESCAPE ?", "Utf8, Utf8, Utf8"),
        ("SELECT _updated + ?, ? + _updated FROM t", "Interval(MonthDayNano), Interval(MonthDayNano)"),
        ("SELECT a FROM t UNION ALL SELECT ?", "Int32"),
        ("SELECT ? UNION SELECT 1 UNION ALL SELECT ?", "Int64, Int64"),
        ("SELECT ? UNION SELECT ?", "Utf8, Utf8"),
        ("SELECT b, ? FROM t UNION ALL SELECT ?, a FROM t", "Int32, Utf8"),
        ("SELECT a FROM t UNION ALL VALUES (?)", "Int32"),
        ("SELECT a FROM t WHERE a IN (SELECT ?) AND a < ALL (SELECT ?)", "Int32, Int32"),
        ("SELECT a FROM t WHERE a = ANY(?)", "List(Int32)"),
        ("SELECT array_length(?), array_append(?, 2)", "List(Utf8), List(Int64)"),
        ("INSERT INTO t VALUES (?, ?, ?)", "Int32, Utf8, Int16"),
        ("INSERT INTO t (s, a) VALUES (?, ?), (?, ?)", "Int16, Int32, Int16, Int32"),
        ("INSERT INTO t (s) VALUES (? + 1)", "Int64"),
        ("INSERT INTO t (b, a) SELECT ?, a FROM u WHERE c = ?", "Utf8, Utf8"),
        ("INSERT INTO t (a) SELECT ?", "Int32"),
        ("INSERT INTO t (a) SELECT a FROM u UNION ALL SELECT ?", "Int32"),
        ("UPDATE t SET s = ?, b = upper(?) WHERE a = ?", "Int16, Utf8, Int32"),
        ("UPDATE t SET a = a + ? WHERE b IN (SELECT c FROM u WHERE u.a = ?)", "Int32, Int32"),
        ("DELETE FROM t WHERE a = ? OR b = ?", "Int32, Utf8"),
    ] {
        assert_eq!(fixture.parameters(sql), types, "{sql}");
    }
}

#[test]
fn bound_values_give_rows() {
    let fixture = Fixture::new();
    for (sql, values, expected) in [
        ("SELECT a FROM t WHERE a = ?", vec![int(2)], "a;2"),
        ("SELECT a FROM t WHERE a = ?", vec![text("2")], "a;2"),
        ("SELECT a FROM t WHERE a = ?", vec![ScalarValue::Null], "a"),
        ("SELECT b FROM t ORDER BY b LIMIT ? OFFSET ?", vec![int(1), int(1)], "b;y"),
        ("SELECT b FROM t ORDER BY b LIMIT ?", vec![ScalarValue::Int32(Some(1))], "b;x"),
        ("SELECT ? AS x", vec![text("hello")], "x;hello"),
        ("SELECT ? AS x", vec![int(5)], "x;5"),
        ("SELECT COALESCE(?, a) AS x FROM t ORDER BY x", vec![ScalarValue::Null], "x;1;2;"),
        ("SELECT COALESCE(a, ?) AS x FROM t ORDER BY x", vec![int(9)], "x;1;2;9"),
        ("SELECT a FROM t WHERE a IN (?, ?) ORDER BY a", vec![int(1), int(2)], "a;1;2"),
        ("SELECT a FROM t WHERE b LIKE ?", vec![text("x%")], "a;1"),
        ("SELECT a FROM t WHERE $1 IS NULL OR a = $1", vec![int(1)], "a;1"),
        ("SELECT ?::int + 1 AS x", vec![text("41")], "x;42"),
        ("SELECT upper(?) AS x", vec![text("up")], "x;UP"),
        ("SELECT CASE WHEN a > ? THEN ? ELSE b END AS x FROM t ORDER BY x", vec![int(1), text("big")], "x;big;x;z"),
        ("SELECT count(*) AS n FROM t WHERE b IN (SELECT b FROM t WHERE a = ?)", vec![int(1)], "n;1"),
        ("SELECT a FROM t WHERE _updated >= ?", vec![text("1970-01-01T00:00:00.000000102")], "a;"),
        ("VALUES (?, ?)", vec![int(1), text("a")], "column1,column2;1,a"),
        ("SELECT a FROM t WHERE a = ?", vec![int(1 << 40)], "a"),
        ("SELECT a FROM t WHERE a < ? ORDER BY a", vec![int(1 << 40)], "a;1;2"),
        ("SELECT a FROM t WHERE a = ?", vec![float(1.5)], "a"),
        ("SELECT a FROM t WHERE a > ?", vec![float(1.5)], "a;2"),
        ("SELECT a FROM t WHERE ? > a", vec![text("1.5")], "a;1"),
        ("SELECT a FROM t WHERE a BETWEEN ? AND ?", vec![float(1.5), float(2.5)], "a;2"),
        ("SELECT a FROM t WHERE a IN (?, ?)", vec![float(1.5), int(2)], "a;2"),
        ("SELECT a, a < ? FROM t WHERE a > ?", vec![float(1.5), int(1)], "a,t.a < $1;2,false"),
        ("SELECT CAST(? AS INT) AS x", vec![float(2.6)], "x;3"),
        ("DELETE FROM t WHERE a > ?", vec![float(1.5)], "row_place,_id,_updated;1001,2,1970-01-01T00:00:00.000000101"),
        ("SELECT [?, ?] AS x", vec![text("p"), int(1)], "x;[p, 1]"),
        ("SELECT value AS x FROM range($1, $2) WHERE value > $1", vec![int(-2), int(1)], "x;-1;0"),
        ("SELECT a FROM t WHERE a = 1 UNION ALL SELECT ? ORDER BY a", vec![int(7)], "a;1;7"),
        ("SELECT date_part(?, DATE '2020-02-01') AS x", vec![text("month")], "x;2"),
        ("SELECT sum(a) OVER (ORDER BY a ROWS ? PRECEDING) AS x FROM t WHERE a > 0 ORDER BY a", vec![int(1)], "x;1;3"),
        ("INSERT INTO t (a) SELECT value FROM generate_series(1, ?)", vec![int(2)], "a,b,s;1,,;2,,"),
        ("INSERT INTO t VALUES (?, ?, ?)", vec![int(1), text("q"), text("3")], "a,b,s;1,q,3"),
        ("INSERT INTO t (s, a) VALUES (?, ?), (?, 5)", vec![int(1), int(2), int(3)], "a,b,s;2,,1;5,,3"),
        ("INSERT INTO t (a) SELECT a + ? FROM u WHERE c = ?", vec![int(10), text("p")], "a,b,s;12,,"),
        ("DELETE FROM t WHERE a = ?", vec![int(2)], "row_place,_id,_updated;1001,2,1970-01-01T00:00:00.000000101"),
        (
            "UPDATE t SET b = ?, s = s + ? WHERE a = ?",
            vec![text("new"), int(1), int(1)],
            "row_place,_id,_updated,a,b,s;1000,1,1970-01-01T00:00:00.000000100,1,new,11",
        ),
    ] {
        let cells = fixture.cells(sql, values).unwrap_or_else(|e| panic!("{sql}: {}", e.message));
        assert_eq!(cells, expected, "{sql}");
    }
}

#[test]
fn what_cannot_be_bound() {
    let fixture = Fixture::new();
    for (sql, values, part) in [
        ("SELECT a FROM t WHERE a = ?", vec![], "has 1 parameter, but 0 values are bound"),
        ("SELECT a FROM t", vec![int(1)], "has 0 parameters, but 1 value is bound"),
        ("SELECT ?, ?", vec![int(1)], "has 2 parameters, but 1 value is bound"),
        ("SELECT a FROM t WHERE a = ?", vec![text("two")], "parameter $1 is of type Int32: "),
        ("SELECT COALESCE(?, a) FROM t", vec![int(1 << 40)], "parameter $1 is of type Int32: "),
        ("SELECT COALESCE(?, a) FROM t", vec![float(1.5)], "1.5 is not an integer"),
        ("SELECT a FROM t LIMIT ?", vec![float(1.5)], "1.5 is not an integer"),
        ("SELECT substr(b, ?) FROM t", vec![float(1.5)], "1.5 is not an integer"),
        ("SELECT value FROM range(1, ?)", vec![float(1.5)], "1.5 is not an integer"),
        (
            "SELECT a FROM t ORDER BY sum(a) OVER (ORDER BY a ROWS ? PRECEDING)",
            vec![float(1.5)],
            "1.5 is not an integer",
        ),
        ("INSERT INTO t (a) VALUES (? + 0), (?)", vec![int(1), float(1.5)], "1.5 is not an integer"),
        ("UPDATE t SET a = ?", vec![float(1.5)], "1.5 is not an integer"),
        ("UPDATE t SET a = ?", vec![int(1 << 40)], "parameter $1 is of type Int32: "),
        ("SELECT COALESCE($2, a) FROM t WHERE b = $1", vec![text("a"), float(f64::NAN)], "parameter $2"),
        (
            "SELECT a FROM t WHERE _updated > ?",
            vec![int(1)],
            "Timestamp(ns), but the bound value is of type Int64: bind a",
        ),
        (
            "SELECT a FROM t WHERE a = ?",
            vec![ScalarValue::new_list_nullable(&[], &DataType::Utf8).into_scalar()],
            "parameter $1 is of type Int32, but",
        ),
    ] {
        let error = fixture.rows(sql, values).unwrap_err();
        assert!(error.message.contains(part), "{sql}: {}", error.message);
    }
}

/// A list as a value.
trait IntoScalar {
    fn into_scalar(self) -> ScalarValue;
}

impl IntoScalar for std::sync::Arc<arrow::array::ListArray> {
    fn into_scalar(self) -> ScalarValue {
        ScalarValue::List(self)
    }
}

#[test]
fn the_schema_is_the_same_whatever_is_bound() {
    let fixture = Fixture::new();
    for sql in ["SELECT ? AS x", "SELECT COALESCE(?, a) AS x FROM t", "SELECT a FROM t WHERE a = ?", "VALUES (?)"] {
        let typed = fixture.typed(sql).unwrap();
        let statement = parse(sql, &Limits::default()).unwrap();
        for value in [int(1), text("1"), ScalarValue::Null] {
            let bound = bind_values(&statement, &typed, vec![value], |_| unreachable!()).unwrap().plan;
            let types = |plan: &datafusion::logical_expr::LogicalPlan| {
                plan.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>()
            };
            assert_eq!(types(&bound), types(&typed.plan), "{sql}");
        }
    }
}

#[test]
fn parameters_are_counted_and_plain_inserts_recognized() {
    let of = |sql: &str| parse(sql, &Limits::default()).unwrap();
    for (sql, count) in [
        ("SELECT 1", 0),
        ("SELECT $3", 3),
        ("UPDATE t SET a = ?, b = ? WHERE c = ?", 3),
        ("EXPLAIN DELETE FROM t WHERE a = ?", 1),
        ("INSERT INTO t SELECT ? FROM u LIMIT ?", 2),
        ("DELETE FROM t WHERE a = ? RETURNING a + ?", 2),
        ("DESCRIBE t", 0),
    ] {
        assert_eq!(parameter_count(&of(sql)), count, "{sql}");
    }
    for (sql, expected) in [
        ("INSERT INTO t VALUES (?, ?)", Some(vec![0, 1])),
        ("INSERT INTO t (b, a) VALUES ($2, ($1))", Some(vec![1, 0])),
        ("INSERT INTO t VALUES (?, 1)", None),
        ("INSERT INTO t VALUES ($1, $1)", None),
        ("INSERT INTO t VALUES ($2, $3)", None),
        ("INSERT INTO t VALUES (?), (?)", None),
        ("INSERT INTO t SELECT ?", None),
        ("INSERT INTO t VALUES (?) RETURNING a", Some(vec![0])),
        ("INSERT INTO t VALUES (?) RETURNING a + ?", None),
    ] {
        let Statement::Insert(insert) = of(sql) else { panic!() };
        assert_eq!(plain_parameters(&insert), expected, "{sql}");
    }
}
