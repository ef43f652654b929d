"""Every Arrow type goes in by ingest, and comes out the same hot and cold."""

import datetime as dt
import math
from decimal import Decimal

import pyarrow as pa
import pytest
import seracdb

UTC = dt.UTC
I64 = 2**63

# name → (type, values); a NULL is added to each.
TYPES: dict[str, tuple[pa.DataType, list]] = {
    "bool": (pa.bool_(), [True, False]),
    "int8": (pa.int8(), [-128, 0, 127]),
    "int16": (pa.int16(), [-(2**15), 0, 2**15 - 1]),
    "int32": (pa.int32(), [-(2**31), 0, 2**31 - 1]),
    "int64": (pa.int64(), [-I64, 0, I64 - 1]),
    "uint8": (pa.uint8(), [0, 255]),
    "uint16": (pa.uint16(), [0, 2**16 - 1]),
    "uint32": (pa.uint32(), [0, 2**32 - 1]),
    "uint64": (pa.uint64(), [0, 2**64 - 1]),
    "float32": (pa.float32(), [-0.0, 1.5, math.inf, -math.inf, math.nan]),
    "float64": (pa.float64(), [-0.0, 5e-324, 1.7976931348623157e308, math.inf, math.nan]),
    # A constant and a NaN: Parquet statistics cannot tell them from a constant column.
    "float64_nan": (pa.float64(), [1.0, math.nan, 1.0]),
    "utf8": (pa.string(), ["", "snow", "Gletscherspalte ❄ 氷", "a\x00b", "x" * 10_000]),
    "large_utf8": (pa.large_string(), ["", "ice"]),
    "large_binary": (pa.large_binary(), [b"", b"ice"]),
    "binary": (pa.binary(), [b"", b"\x00\xff", b"x" * 10_000]),
    "fixed_size_binary": (pa.binary(3), [b"\x00\x00\x00", b"abc"]),
    "date32": (pa.date32(), [dt.date(1, 1, 1), dt.date(1970, 1, 1), dt.date(9999, 12, 31)]),
    "date64": (pa.date64(), [dt.date(1970, 1, 1), dt.date(2038, 1, 20)]),
    "time32_s": (pa.time32("s"), [dt.time(0, 0, 0), dt.time(23, 59, 59)]),
    "time32_ms": (pa.time32("ms"), [dt.time(0, 0, 0, 1000), dt.time(23, 59, 59, 999000)]),
    "time64_us": (pa.time64("us"), [dt.time(0, 0, 0, 1), dt.time(23, 59, 59, 999999)]),
    "time64_ns": (pa.time64("ns"), [0, 1, 86_399_999_999_999]),
    **{
        f"timestamp_{unit}{suffix}": (pa.timestamp(unit, zone), [-1, 0, 1_700_000_000])
        for unit in ("s", "ms", "us", "ns")
        for suffix, zone in (("", None), ("_utc", "UTC"))
    },
    **{f"duration_{unit}": (pa.duration(unit), [-1, 0, 1_700_000]) for unit in ("s", "ms", "us", "ns")},
    "decimal_9_2": (pa.decimal128(9, 2), [Decimal("-1234567.89"), Decimal("0.00"), Decimal("9999999.99")]),
    "decimal_38_10": (pa.decimal128(38, 10), [Decimal("-1234567890123456789012345678.0123456789"), Decimal("0.1")]),
    "decimal_38_0": (pa.decimal128(38, 0), [Decimal(10**38 - 1), Decimal(-(10**38 - 1))]),
    "decimal256": (pa.decimal256(76, 5), [Decimal(10**70), Decimal("-0.00001")]),
    "list_int": (pa.list_(pa.int64()), [[], [1, None, 3], [-I64]]),
    "large_list": (pa.large_list(pa.int64()), [[], [1, None]]),
    "list_text": (pa.list_(pa.string()), [["a", None, ""], []]),
    "list_list": (pa.list_(pa.list_(pa.int32())), [[[1], [], None], []]),
    "fixed_size_list": (pa.list_(pa.float32(), 3), [[1.0, 2.0, 3.0], [0.0, None, -1.0]]),
    "struct": (
        pa.struct([("a", pa.int64()), ("b", pa.string()), ("c", pa.decimal128(10, 2))]),
        [{"a": 1, "b": "x", "c": Decimal("1.50")}, {"a": None, "b": None, "c": None}],
    ),
    "list_struct": (
        pa.list_(pa.struct([("at", pa.timestamp("us", "UTC")), ("tags", pa.list_(pa.string()))])),
        [[{"at": dt.datetime(2026, 1, 1, tzinfo=UTC), "tags": ["a", None]}, None], []],
    ),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1), ("b", None)], []]),
}

# Types that not every client can read come back as the plain type of the same values.
READ_AS: dict[str, tuple[pa.DataType, list, pa.DataType]] = {
    "utf8_view": (pa.string_view(), ["", "a string longer than twelve bytes"], pa.string()),
    "binary_view": (pa.binary_view(), [b"", b"some bytes longer than twelve bytes"], pa.binary()),
    "float16": (pa.float16(), [1.5, -2.0], pa.float32()),
    "decimal32": (pa.decimal32(9, 2), [Decimal("1234567.89"), Decimal("-0.01")], pa.decimal128(9, 2)),
    "decimal64": (pa.decimal64(18, 2), [Decimal("1.50"), Decimal("-0.01")], pa.decimal128(18, 2)),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["a", "b", "a"], pa.string()),
    "timestamp_zone": (pa.timestamp("us", "America/New_York"), [0, 1_700_000_000_000_000], pa.timestamp("us", "UTC")),
}

CASES = {name: (given, values, given) for name, (given, values) in TYPES.items()} | READ_AS


def array(values: list, given: pa.DataType) -> pa.Array:
    """The values and a NULL."""
    if pa.types.is_dictionary(given):
        return pa.array([*values, None], given.value_type).cast(given)
    return pa.array([*values, None], given)


def shown(values: list) -> list[str]:
    """Values as text, in which NaN equals NaN and -0.0 is not 0.0."""
    return [repr(value) for value in values]


@pytest.mark.parametrize("name", CASES)
def test_round_trip(db, namespace, name):
    given, values, wanted = CASES[name]
    table = f"{namespace}.{name}"
    column = array(values, given)
    data = pa.table({"n": pa.array(range(len(column)), pa.int64()), "v": column})
    expected = shown(column.cast(wanted).to_pylist())

    db.ingest(table, data, mode="create")
    for tier in ("hot", "cold", "cold and updated"):
        got = db.query(f"SELECT n, v FROM {table} ORDER BY n")
        assert got.schema.field("v").type == wanted, tier
        assert shown(got["v"].to_pylist()) == expected, tier
        assert db.query(f"SELECT count(*) AS n FROM {table} WHERE v IS NULL")["n"].to_pylist() == [1], tier
        if tier == "hot":
            db.run(f"STORAGE FLUSH TABLE {table}")
        else:
            # New versions over the cold ones: the value passes through UPDATE, too.
            assert db.run(f"UPDATE {table} SET n = n") == len(column)


@pytest.mark.parametrize("name", TYPES)
def test_parameters(db, namespace, name):
    """The same values as bound parameters."""
    given, values = TYPES[name]
    table = f"{namespace}.{name}"
    column = array(values, given)
    data = pa.table({"n": pa.array(range(len(column)), pa.int64()), "v": column})
    db.ingest(table, data.slice(0, 0), mode="create")
    assert db.run(f"INSERT INTO {table} (n, v) VALUES (?, ?)", data) == len(column)
    got = db.query(f"SELECT n, v FROM {table} ORDER BY n")
    assert shown(got["v"].to_pylist()) == shown(column.to_pylist())


def test_all_types_in_one_table(db, namespace):
    """Values of one row do not run into each other, and an absent column is NULL."""
    fields = {name: pa.array([values[0], None, values[-1]], given) for name, (given, values) in TYPES.items()}
    data = pa.table({"n": pa.array([0, 1, 2], pa.int64()), **fields})
    table = f"{namespace}.every"
    db.ingest(table, data, mode="create")
    db.run(f"INSERT INTO {table} (n) VALUES (3)")
    for _ in ("hot", "cold"):
        got = db.query(f"SELECT * FROM {table} ORDER BY n")
        for name in fields:
            assert shown(got[name].to_pylist()) == shown([*fields[name].to_pylist(), None]), name
        db.run(f"STORAGE FLUSH TABLE {table}")


def test_what_cannot_be_stored_is_said(db, namespace):
    """Parquet has no intervals."""
    data = pa.table({"v": pa.array([pa.MonthDayNano([1, 2, 3])])})
    with pytest.raises(seracdb.NotSupportedError, match="INTERVAL"):
        db.ingest(f"{namespace}.t", data, mode="create")
    nothing = pa.table({"n": [1], "v": pa.nulls(1)})
    assert db.ingest(f"{namespace}.t", nothing, mode="create") == 1
    assert db.query(f"SELECT v FROM {namespace}.t").to_pylist() == [{"v": None}]


# SQL type → (literal, what Python reads)
SQL_TYPES = {
    "BOOLEAN": ("true", True),
    "SMALLINT": ("-32768", -32768),
    "INT": ("2147483647", 2**31 - 1),
    "INTEGER": ("7", 7),
    "BIGINT": ("9223372036854775807", I64 - 1),
    "REAL": ("1.5", 1.5),
    "DOUBLE PRECISION": ("0.1", 0.1),
    "DOUBLE": ("0.1", 0.1),
    "NUMERIC(12,3)": ("123.456", Decimal("123.456")),
    "DECIMAL(38,10)": ("0.0000000001", Decimal("0.0000000001")),
    "TEXT": ("'it''s'", "it's"),
    "VARCHAR": ("'v'", "v"),
    "VARCHAR(10)": ("'v'", "v"),
    "DATE": ("DATE '2026-02-28'", dt.date(2026, 2, 28)),
    "TIMESTAMP": ("TIMESTAMP '2026-02-28 12:34:56.789'", dt.datetime(2026, 2, 28, 12, 34, 56, 789000)),
    "TIMESTAMP WITH TIME ZONE": ("'2026-02-28T12:00:00+02:00'", dt.datetime(2026, 2, 28, 10, tzinfo=UTC)),
    "TIMESTAMPTZ": ("'2026-02-28T12:00:00Z'", dt.datetime(2026, 2, 28, 12, tzinfo=UTC)),
    "BYTEA": ("X'00ff'", b"\x00\xff"),
}


@pytest.mark.parametrize("sql_type", SQL_TYPES)
def test_sql_types(db, namespace, sql_type):
    literal, value = SQL_TYPES[sql_type]
    table = f"{namespace}.declared"
    db.run(f"CREATE TABLE {table} (v {sql_type})")
    assert db.run(f"INSERT INTO {table} (v) VALUES ({literal})") == 1
    for _ in ("hot", "cold"):
        got = db.query(f"SELECT v FROM {table}")["v"]
        assert getattr(got[0].as_py(), "to_pydatetime", got[0].as_py)() == value
        db.run(f"STORAGE FLUSH TABLE {table}")
