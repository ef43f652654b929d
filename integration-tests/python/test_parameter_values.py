"""Bound values that their parameter's announced type does not have: they are compared as what they are, like literals."""

from __future__ import annotations

import datetime as dt
import operator
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
from adbc_driver_manager import AdbcStatusCode as Code
from conftest import Connections
from test_client_rules import adbc, command, prepared, put, rows
from test_transactions import Raw
from wire import field

BIG = 9007199254740993
# Column → its values, by the row's number; None is in every column.
VALUES: dict[str, list[Any]] = {
    "d": [Decimal("1.22"), Decimal("1.23"), Decimal("1.24"), Decimal("-1.24"), Decimal("99999999.99"), None],
    "n": [1, 2, -1, 2147483647, -2147483648, None],
    "b": [1, 2, BIG, 2**63 - 1, -(2**63), None],
}
BOUND: dict[str, list[Any]] = {
    "d": [
        1.234, 1.23, 1.2300000000000002, -1.2399, 1e300, 1e-30, float("inf"), 123456789012,
        "1.234", "1.230", " 1.2350", "1234e-3", "0.00000000000000000000000000000000000000001",
        Decimal("1.2345678901234567890123"), Decimal("1.230"), Decimal("99999999.991"), Decimal("1e20"),
    ],
    "n": [1.5, 1.0, -1.5, 3e9, 1e300, 2147483648, -2147483649, 2**63 - 1, "1.5", "3000000000", Decimal("1.5"), Decimal("2.0")],
    "b": [1.5, 9007199254740992.0, 9223372036854775808.0, "1.5", "9223372036854775808", Decimal("9007199254740992.5"), Decimal(2**63)],
}  # fmt: skip
CASES = [(column, value) for column, values in BOUND.items() for value in values]
COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.fixture(scope="module", params=["hot", "cold"])
def table(request, server) -> Iterator[str]:
    name = f"bound_{request.param}"
    with Connections(server) as connections:
        db = connections.open()
        db.run(f"CREATE NAMESPACE {name}")
        db.run(f"CREATE TABLE {name}.t (k BIGINT, d DECIMAL(10, 2), n INT, b BIGINT, hit BOOLEAN)")
        numbers = [pa.array(range(6), pa.int64()), pa.array(VALUES["d"], pa.decimal128(10, 2))]
        numbers += [pa.array(VALUES["n"], pa.int32()), pa.array(VALUES["b"], pa.int64())]
        db.ingest(f"{name}.t", pa.table(dict(zip(("k", "d", "n", "b"), numbers, strict=True))), mode="append")
        if request.param == "cold":
            db.run(f"STORAGE FLUSH TABLE {name}.t")
        yield f"{name}.t"


@pytest.fixture
def plain(server) -> Iterator[flightsql.Connection]:
    with adbc(server) as connection:
        yield connection


def number(column: str, value: Any) -> Fraction | float:
    """What is meant: beside a NUMERIC a float is what is written, its shortest text."""
    if value == float("inf"):
        return value
    if isinstance(value, float):
        return Fraction(repr(value)) if column == "d" else Fraction(value)
    return Fraction(value.strip()) if isinstance(value, str) else Fraction(value)


def keys(column: str, wanted: Callable[[Any], bool]) -> list[tuple[int]]:
    return [(k,) for k, value in enumerate(VALUES[column]) if value is not None and wanted(Fraction(value))]


@pytest.mark.parametrize(("column", "value"), CASES)
def test_a_bound_number_is_compared_as_the_number_that_it_is(table, plain, column, value):
    meant = number(column, value)
    select = f"SELECT k FROM {table} WHERE {{}} ORDER BY k"
    for sign, compare in COMPARED.items():
        assert rows(plain, select.format(f"{column} {sign} ?"), [value]) == keys(column, lambda v: compare(v, meant))
        assert rows(plain, select.format(f"? {sign} {column}"), [value]) == keys(column, lambda v: compare(meant, v))
    for sql, values, wanted in (
        (f"{column} BETWEEN ? AND ?", [value, value], lambda v: v == meant),
        (f"{column} BETWEEN -2 AND ?", [value], lambda v: -2 <= v <= meant),
        (f"? BETWEEN {column} AND {column}", [value], lambda v: v == meant),
        (f"{column} NOT BETWEEN ? AND ?", [value, value], lambda v: v != meant),
        (f"{column} IN (?)", [value], lambda v: v == meant),
        (f"{column} IN (?, ?, 1)", [value, 2], lambda v: v in (meant, 1, 2)),
        (f"{column} NOT IN (1, ?)", [value], lambda v: v not in (meant, 1)),
        (f"NOT {column} < ?", [value], lambda v: v >= meant),
        (f"k < 9 AND {column} > ? OR {column} = ?", [value, value], lambda v: v >= meant),
    ):
        assert rows(plain, select.format(sql), values) == keys(column, wanted), sql


@pytest.mark.parametrize(("column", "value"), CASES)
def test_in_an_update_and_a_delete_too(table, server, column, value):
    meant = number(column, value)
    above, equal = keys(column, lambda v: v > meant), keys(column, lambda v: v == meant)
    with adbc(server, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET hit = true WHERE {column} > ?", [value])
        assert cursor.rowcount == len(above)
        cursor.execute(f"SELECT k FROM {table} WHERE hit ORDER BY k")
        assert cursor.fetchall() == above
        cursor.execute(f"DELETE FROM {table} WHERE ? = {column}", [value])
        assert cursor.rowcount == len(equal)
        # Row by row: values that have a type of their own, and one that has the announced one.
        cursor.executemany(f"DELETE FROM {table} WHERE {column} > ?", [(value,), (value,)])
        assert cursor.rowcount == len(above)
        connection.rollback()


def test_a_literal_gives_the_same(table, plain):
    for value in ("1.234", "1.2300000000000002", "1e300", "-1.2399"):
        for sign in COMPARED:
            literal = rows(plain, f"SELECT k FROM {table} WHERE d {sign} {value} ORDER BY k")
            assert rows(plain, f"SELECT k FROM {table} WHERE d {sign} ? ORDER BY k", [float(value)]) == literal


def test_values_of_both_kinds_take_turns_on_one_handle(table, server):
    raw = Raw(server)
    handle = bytes(prepared(raw, f"SELECT k, d > ? AS above FROM {table} WHERE d > ? ORDER BY k")[1])
    bound = command("CommandPreparedStatementQuery", field(1, handle))
    for value, expected in (
        (pa.array([Decimal("1.23")], pa.decimal128(10, 2)), [2, 4]),
        (pa.array([Decimal("1.234")], pa.decimal128(4, 3)), [2, 4]),
        (pa.array([1.225]), [1, 2, 4]),
        (pa.array(["1.23"]), [2, 4]),
        (pa.array(["1.235"]).dictionary_encode(), [2, 4]),
        (pa.array([1], pa.int8()), [0, 1, 2, 4]),
    ):
        data = pa.record_batch({"$1": value, "$2": value})
        put(raw, "CommandPreparedStatementQuery", field(1, handle), data=data)
        info = raw.connection.get_flight_info(bound, raw.options)
        got = raw.connection.do_get(info.endpoints[0].ticket, raw.options).read_all()
        assert got.to_pydict() == {"k": expected, "above": [True] * len(expected)}
        assert info.schema == got.schema
    raw.connection.close()


@pytest.mark.parametrize("value", [1.005, "1.005", Decimal("1.005"), 1.0049999999999999, -2.675, Decimal("0.0050")])
def test_what_goes_into_a_numeric_column_is_rounded_like_a_literal(plain, db, namespace, value):
    db.run(f"CREATE TABLE {namespace}.m (k INT, d DECIMAL(10, 2))")
    literal = str(value) if not isinstance(value, float) else repr(value)
    db.run(f"INSERT INTO {namespace}.m VALUES (0, {literal})")
    (expected,) = rows(plain, f"SELECT d FROM {namespace}.m")
    for k, sql in enumerate(
        ("INSERT INTO {}.m VALUES ({}, ?)", "INSERT INTO {}.m (d) VALUES (?)", "INSERT INTO {}.m SELECT {}, ?")
    ):
        rows(plain, sql.format(namespace, k + 1), [value])
    for sql in (f"UPDATE {namespace}.m SET d = ? WHERE k = 0", f"UPDATE {namespace}.m SET d = ? WHERE d < 1000"):
        rows(plain, sql, [value])
        assert set(rows(plain, f"SELECT d FROM {namespace}.m")) == {expected}


@pytest.mark.parametrize("value", [Decimal("100000000.00"), 1e9, "123456789.1"])
def test_what_is_too_large_for_a_numeric_column_is_refused(plain, db, namespace, value):
    db.run(f"CREATE TABLE {namespace}.m (k INT, d DECIMAL(10, 2))")
    db.run(f"INSERT INTO {namespace}.m VALUES (0, 1)")
    for sql in ("INSERT INTO {}.m VALUES (1, ?)", "INSERT INTO {}.m (d) VALUES (?)", "UPDATE {}.m SET d = ?"):
        with pytest.raises(flightsql.Error) as refused:
            rows(plain, sql.format(namespace), [value])
        assert refused.value.status_code == Code.INVALID_ARGUMENT
    assert rows(plain, f"SELECT d FROM {namespace}.m") == [(Decimal("1.00"),)]


@pytest.mark.parametrize(
    ("sql", "value", "text"),
    [
        ("SELECT k FROM {} LIMIT ?", 1.5, "1.5 is not an integer"),
        ("SELECT COALESCE(?, n) FROM {}", 1.5, "1.5 is not an integer"),
        ("SELECT COALESCE(?, d) FROM {}", 1.234, "does not have 1.234: CAST the parameter"),
        ("SELECT substr('abc', ?)", 1.5, "1.5 is not an integer"),
        ("SELECT value FROM generate_series(1, ?)", 1.5, "1.5 is not an integer"),
        ("UPDATE {} SET n = ?", 1.5, "1.5 is not an integer"),
        ("UPDATE {} SET n = ?", 2**40, "is of type Int32"),
        ("INSERT INTO {} (n) VALUES (?)", 1.5, "not all bound values are integers"),
        ("INSERT INTO {} (n) VALUES (?)", 2**40, "is of type Int32"),
        ("SELECT k FROM {} WHERE hit = ?", 2, "is of type Boolean"),
        ("SELECT k FROM {} WHERE d > ?", "many", "is of type Decimal128"),
    ],
)
def test_where_no_other_type_will_do_it_is_said(table, plain, sql, value, text):
    with pytest.raises(flightsql.Error, match=text) as refused:
        rows(plain, sql.format(table), [value])
    assert refused.value.status_code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("value", "expected"), [(1.5, (2,)), ("2.6", (3,)), (Decimal("2.5"), (3,)), (2, (2,)), (None, (None,))]
)
def test_a_cast_of_a_parameter_is_that_of_a_literal(plain, value, expected):
    assert rows(plain, "SELECT CAST(? AS INT)", [value]) == [expected]


MOMENTS = {
    "day": ("DATE", "2020-01-31", dt.date(2020, 1, 31), "a DATE, or a text like '2020-01-31'"),
    "ts": ("TIMESTAMP", "2020-01-31T12:00:00.5", dt.datetime(2020, 1, 31, 12, 0, 0, 500000), "a TIMESTAMP, or a text"),
    "tz": (
        "TIMESTAMPTZ",
        "2020-01-31T12:00:00Z",
        dt.datetime(2020, 1, 31, 12, tzinfo=dt.timezone.utc),
        "a TIMESTAMP, or a text",
    ),
    "clock": ("TIME", "12:00:01", dt.time(12, 0, 1), "a TIME, or a text like '12:00:00'"),
}


@pytest.mark.parametrize("column", MOMENTS)
def test_a_number_is_no_moment(plain, db, namespace, column):
    kind, text, value, advice = MOMENTS[column]
    db.run(f"CREATE TABLE {namespace}.m ({column} {kind})")
    into = f"INSERT INTO {namespace}.m VALUES (?)"
    for good in (text, value, None):
        rows(plain, into, [good])
    for good in (text, value):
        assert rows(plain, f"SELECT {column} FROM {namespace}.m WHERE {column} = ?", [good]) == [(value,)] * 2
    for bad in (18292, 18292.0, Decimal(18292)):
        for sql in (
            into,
            f"INSERT INTO {namespace}.m SELECT ?",
            f"SELECT {column} FROM {namespace}.m WHERE {column} = ?",
            f"SELECT {column} FROM {namespace}.m WHERE ? < {column}",
            f"UPDATE {namespace}.m SET {column} = ?",
            f"DELETE FROM {namespace}.m WHERE {column} <= ?",
            f"SELECT CAST(? AS {kind})",
        ):
            with pytest.raises(flightsql.Error, match=advice) as refused:
                rows(plain, sql, [bad])
            assert refused.value.status_code == Code.INVALID_ARGUMENT
    with pytest.raises(flightsql.Error, match=advice):
        db.ingest(f"{namespace}.m", pa.table({column: pa.array([1], pa.int64())}), mode="append")
    assert rows(plain, f"SELECT count(*), count({column}) FROM {namespace}.m") == [(3, 2)]
    # Nor is a moment a number.
    with pytest.raises(flightsql.Error) as refused:
        rows(plain, f"SELECT 1 FROM {namespace}.m WHERE 1 = CAST(? AS BIGINT)", [value])
    assert refused.value.status_code == Code.INVALID_ARGUMENT


def test_a_moment_is_compared_with_all_its_digits(plain, db, namespace):
    db.run(f"CREATE TABLE {namespace}.m (k INT, ts TIMESTAMP(0), day DATE)")
    db.run(f"INSERT INTO {namespace}.m VALUES (1, '2020-01-31 12:00:00', '2020-01-31')")
    at = dt.datetime(2020, 1, 31, 12)
    later = at + dt.timedelta(microseconds=1)
    for column, value, sign, found in (
        ("ts", at, "=", True),
        ("ts", later, "=", False),
        ("ts", later, "<", True),
        ("ts", later, ">=", False),
        ("day", dt.datetime(2020, 1, 31), "=", True),
        ("day", at, "=", False),
        ("day", at, "<", True),
    ):
        expected = [(1,)] if found else []
        assert rows(plain, f"SELECT k FROM {namespace}.m WHERE {column} {sign} ?", [value]) == expected, (column, sign)
