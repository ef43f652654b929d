"""What Flight SQL clients need of a server, need by need: through a real driver where one shows it, else raw.

ADBC's Python package is its Go driver, which compares schemas and counts; JDBC runs in this process. What is strict and
expected to fail is a fault of ours that is known.
"""

from __future__ import annotations

import base64
import datetime as dt
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import jpype
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import rawflight
import seracdb
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_manager import AdbcStatusCode as Code
from conftest import Connections, root
from raw_grpc import Caller, basic
from rawflight import statement
from test_manifests import until
from test_slt import jdbc, start_java
from test_transactions import COMMIT, REFUSED, ROLLBACK, Raw
from testserver import ROOT_PASSWORD, Server
from wire import field, packed, parse, unpack

MESSAGE_BYTES_MAX = 4 << 20
JAVA = "grpc-java-netty/1.65.0"
BASIC = "Basic " + base64.b64encode(f"root:{ROOT_PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def tables(server) -> Iterator[str]:
    """A namespace with a table of SQL's types, one of Arrow's, and three small rows to look for."""
    with Connections(server) as connections:
        db = connections.open()
        db.run("CREATE NAMESPACE needs")
        db.run(
            "CREATE TABLE needs.t (a BIGINT NOT NULL, b INT, s TEXT NOT NULL, d DECIMAL(12,3), ts TIMESTAMP,"
            " tz TIMESTAMPTZ NOT NULL, l INT[], day DATE, clock TIME, f REAL, g DOUBLE NOT NULL, ok BOOLEAN,"
            " bytes BYTEA)"
        )
        db.run(
            "INSERT INTO needs.t VALUES (1, 2, 'x', 1.5, TIMESTAMP '2020-01-01 00:00:00', '2020-01-01T00:00:00Z',"
            " [1, 2], DATE '2020-01-01', TIME '01:02:03', 1.5, 2.5, true, X'00ff')"
        )
        db.run("CREATE VIEW needs.v AS SELECT a, d AS \"D\", arrow_cast(s, 'Utf8View') AS view, d * 2 AS twice, ts FROM needs.t")
        db.run("COMMENT ON COLUMN needs.t.a IS 'what a is'")
        db.ingest("needs.arrow", ARROW, mode="create")
        db.run("CREATE TABLE needs.p (x BIGINT, s TEXT, d DECIMAL(10,2), b BOOLEAN, day DATE, ts TIMESTAMP, f DOUBLE)")
        db.run(
            "INSERT INTO needs.p VALUES (1, 'one', 1.5, true, DATE '2020-01-01', TIMESTAMP '2020-01-01 00:00:00', 1.5),"
            " (2, 'two', 2.5, false, DATE '2021-01-01', TIMESTAMP '2021-01-01 00:00:00', 2.5),"
            " (3, NULL, NULL, NULL, NULL, NULL, NULL)"
        )
        yield "needs"


ARROW = pa.table(
    {
        "k": pa.array(["a", "b", "a"]).dictionary_encode(),
        "v": pa.array(["x", "y", "z"], pa.string_view()),
        "bv": pa.array([b"x", b"y", None], pa.binary_view()),
        "st": pa.array(
            [{"a": 1, "b": ["q"]}, None, {"a": None, "b": None}],
            pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string_view()))]),
        ),
        "m": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "half": pa.array([1.0, 2.0, None], pa.float16()),
        "d32": pa.array([Decimal("1.50"), None, Decimal("-1.50")], pa.decimal32(9, 2)),
        "zone": pa.array([1, 2, None], pa.timestamp("ms", "Europe/Zurich")),
        "pair": pa.array([[1, 2], [3, 4], None], pa.list_(pa.int32(), 2)),
        "large": pa.array([["a"], [], None], pa.large_list(pa.large_string())),
    }
)


@pytest.fixture
def raw(server) -> Iterator[Raw]:
    opened = Raw(server)
    yield opened
    opened.connection.close()


@pytest.fixture
def plain(server) -> Iterator[flightsql.Connection]:
    """The DBAPI in autocommit, without our package around it."""
    with adbc(server) as connection:
        yield connection


def adbc(server: Server, autocommit: bool = True, **options: str) -> flightsql.Connection:
    login = options or {"username": "root", "password": ROOT_PASSWORD}
    return flightsql.connect(server.uri, db_kwargs=login, autocommit=autocommit)


def rows(connection: flightsql.Connection, sql: str, values: list | None = None) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values) if values is not None else cursor.execute(sql)
        return cursor.fetchall()


def count(connection: flightsql.Connection, table: str) -> int:
    return rows(connection, f"SELECT count(*) FROM {table}")[0][0]


def over(connection: flight.FlightClient, *headers: tuple[bytes, bytes]) -> Raw:
    """Calls on this connection with these headers, and no login of its own."""
    made = object.__new__(Raw)
    made.connection, made.options = connection, flight.FlightCallOptions(headers=list(headers))
    return made


def command(name: str, *fields: bytes) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(packed(name, *fields))


def ask(raw: Raw, name: str, *fields: bytes) -> pa.Table:
    """The answer to a metadata command, by one endpoint in one batch, with the schema that was announced."""
    descriptor = command(name, *fields)
    info = raw.connection.get_flight_info(descriptor, raw.options)
    (endpoint,) = info.endpoints
    table = raw.connection.do_get(endpoint.ticket, raw.options).read_all()
    assert table.schema.equals(info.schema, check_metadata=True)
    assert table.schema.equals(raw.connection.get_schema(descriptor, raw.options).schema, check_metadata=True)
    assert info.total_records == table.num_rows
    assert len(table.to_batches()) <= 1
    return table


def prepared(raw: Raw, sql: str) -> dict[int, Any]:
    body = packed("ActionCreatePreparedStatementRequest", field(1, sql))
    return unpack(raw.act("CreatePreparedStatement", body))[1]


def schema_in(message: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(message))


def put(raw: Raw, name: str, *fields: bytes, data: pa.RecordBatch | None = None) -> dict[int, Any]:
    schema = data.schema if data is not None else pa.schema([])
    writer, reader = raw.connection.do_put(command(name, *fields), schema, raw.options)
    with writer:
        if data is not None:
            writer.write_batch(data)
        writer.done_writing()
        return parse(reader.read().to_pybytes())


@contextmanager
def java(server: Server, more: str = "", **properties: str) -> Iterator[Any]:
    """A JDBC connection with these properties; user and password unless it is told otherwise."""
    start_java()
    login = jpype.java.util.Properties()
    for name, value in ({"user": "root", "password": ROOT_PASSWORD} | properties).items():
        if value is not None:
            login.put(name, value)
    url = f"jdbc:arrow-flight-sql://{server.uri.removeprefix('grpc://')}/?useEncryption=false{more}"
    connection = jpype.java.sql.DriverManager.getConnection(url, login)
    try:
        yield connection
    finally:
        try:
            connection.close()
        except jpype.java.sql.SQLException:
            # With an option it closes its session twice, and is not pleased.
            assert "catalog" in properties or "catalog" in more


def java_rows(result: Any) -> list[str]:
    """The first column of a result, as text."""
    found = []
    while result.next():
        found.append(str(result.getObject(1)))
    result.close()
    return found


def java_query(connection: Any, sql: str, *values: Any) -> list[str]:
    prepared = connection.prepareStatement(sql)
    try:
        for place, value in enumerate(values, 1):
            prepared.setObject(place, value)
        return java_rows(prepared.executeQuery())
    finally:
        prepared.close()


# One schema, wherever a client asks for it.

SCHEMAS = {
    "columns": "SELECT * FROM needs.t",
    "columns of Arrow's types": "SELECT * FROM needs.arrow",
    "system columns": "SELECT _id, _updated, _deleted FROM needs.t",
    "expressions": "SELECT a + 1 AS x, a + b, s || 'x', -d, d * d, d / 3, g * 2, a IS NULL, a = b, NOT ok FROM needs.t",
    "aggregates": "SELECT count(*), sum(a), avg(d), min(s), max(ts), array_agg(a), count(DISTINCT b),"
    " string_agg(s, ',') FROM needs.t",
    "groups": "SELECT b, count(*), sum(d) FROM needs.t GROUP BY b",
    "grouping sets": "SELECT s, k, count(*) FROM needs.t CROSS JOIN needs.arrow GROUP BY GROUPING SETS ((s), (k))",
    "literals": "SELECT 1, 'a', NULL, 1.5, true, X'00', DATE '2020-01-01', INTERVAL '1 day', [1, 2], [NULL], []",
    "left join": "SELECT t.a, u.a, u.s FROM needs.t LEFT JOIN needs.t u ON t.a = u.b",
    "full join": "SELECT t.a, u.a FROM needs.t FULL JOIN needs.t u ON t.a = u.b",
    "union with NULL": "SELECT a FROM needs.t UNION ALL SELECT NULL",
    "union": "SELECT a FROM needs.t UNION SELECT b FROM needs.t",
    "common table": "WITH w AS (SELECT a, s FROM needs.t) SELECT * FROM w JOIN w v USING (a)",
    "subqueries": "SELECT (SELECT max(a) FROM needs.t) AS m, EXISTS (SELECT 1) AS e",
    "CASE and COALESCE": "SELECT CASE WHEN a > 1 THEN a END, COALESCE(b, 0), NULLIF(a, 1) FROM needs.t",
    "windows": "SELECT row_number() OVER (ORDER BY a), lag(a) OVER (ORDER BY a), sum(d) OVER () FROM needs.t",
    "functions of time": "SELECT now(), current_date, date_trunc('day', tz), ts - ts, ts + INTERVAL '1 day', day - day,"
    " to_timestamp('2020-01-01'), ts AT TIME ZONE 'Europe/Zurich' FROM needs.t",
    "types few can read": "SELECT arrow_cast(s, 'Utf8View'), arrow_cast(bytes, 'BinaryView'), arrow_cast(f, 'Float16'),"
    " arrow_cast(s, 'Dictionary(Int32, Utf8)'), arrow_cast(a, 'Decimal32(9, 0)'), arrow_cast(a, 'Decimal64(18, 0)'),"
    " arrow_cast([1], 'ListView(Int8)'), arrow_cast([arrow_cast(s, 'Utf8View')], 'List(Utf8View)') FROM needs.t",
    "nested": "SELECT struct(s, a), named_struct('x', arrow_cast(s, 'Utf8View')), map(['a'], [s]), unnest(l)"
    " FROM needs.t",
    "parts of nested": "SELECT m['a'], st['a'], st['b'], large, pair FROM needs.arrow",
    "dictionaries": "SELECT k, max(k), k || 'x', COALESCE(k, v), k = 'a' FROM needs.arrow GROUP BY k, v",
    "casts": "SELECT CAST(a AS TEXT), TRY_CAST(s AS INT), CAST(d AS DOUBLE), CAST(a AS DECIMAL(38, 2)) FROM needs.t",
    "no rows": "SELECT a, s, d FROM needs.t WHERE false",
    "one name twice": "SELECT a, a, s AS \"Ünï cödé\" FROM needs.t",
    "values": "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) v(x, y)",
    "views of the catalog": "SELECT * FROM information_schema.columns",
    "a view": "SELECT * FROM needs.v JOIN needs.t USING (a)",
    "EXPLAIN": "EXPLAIN SELECT 1",
    "SHOW": "SHOW TABLES",
}
# Not every client can read these.
UNREAD = ("view", "halffloat", "decimal32", "decimal64", "run_end", "dictionary")


def schemas_of(raw: Raw, sql: str) -> Iterator[tuple[str, pa.Schema]]:
    """The schema of a query by every call that tells one."""
    made = prepared(raw, sql)
    yield "prepare", schema_in(made[2])
    by_handle = command("CommandPreparedStatementQuery", field(1, bytes(made[1])))
    for path, descriptor in (("statement", statement(sql)), ("prepared", by_handle)):
        yield f"GetSchema, {path}", raw.connection.get_schema(descriptor, raw.options).schema
        info = raw.connection.get_flight_info(descriptor, raw.options)
        yield f"FlightInfo, {path}", info.schema
        table = raw.connection.do_get(info.endpoints[0].ticket, raw.options).read_all()
        yield f"DoGet, {path}", table.schema
        table.validate(full=True)
        for column, values in zip(table.schema, table.columns, strict=True):
            assert column.nullable or values.null_count == 0, column


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_the_same_wherever_it_is_told(tables, raw, name):
    """Types, nullability and metadata, by prepare, GetSchema, FlightInfo and DoGet."""
    told = dict(schemas_of(raw, SCHEMAS[name]))
    for where, schema in told.items():
        assert schema.equals(told["prepare"], check_metadata=True), f"{where}: {schema}\nprepare: {told['prepare']}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_go_is_told_the_schema_that_it_gets(tables, plain, name):
    """The Go driver refuses a result whose nullability or metadata differ from what was announced."""
    with plain.cursor() as cursor:
        announced = cursor.adbc_execute_schema(SCHEMAS[name])
        cursor.execute(SCHEMAS[name])
        assert cursor.fetch_arrow_table().schema.equals(announced, check_metadata=True)


@pytest.mark.parametrize("name", SCHEMAS)
def test_results_have_types_that_every_client_reads(tables, raw, name):
    """No views, halves, small decimals or dictionaries, not inside of others either; and each has its SQL name."""
    for column in schema_in(prepared(raw, SCHEMAS[name])[2]):
        assert not any(unread in str(column.type) for unread in UNREAD), column
        assert column.metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_jdbc_reads_them(tables, server, name):
    with jdbc(server.uri) as run:
        assert run(SCHEMAS[name]).error is None


# Updates run once, and tell how many rows they changed.

CHANGES = [
    ("INSERT INTO {} VALUES (1), (2), (3)", 3),
    ("UPDATE {} SET x = x + 1 WHERE x > 1", 2),
    ("DELETE FROM {}", 3),
]


@pytest.fixture
def numbers(db, namespace) -> str:
    db.run(f"CREATE TABLE {namespace}.n (x BIGINT)")
    return f"{namespace}.n"


def test_adbc_counts_each_change_once(plain, numbers):
    """By `execute`, with and without parameters, by `executemany`, and as a script."""
    with plain.cursor() as cursor:
        for sql, changed in CHANGES:
            cursor.execute(sql.format(numbers))
            assert cursor.rowcount == changed
        cursor.execute(f"INSERT INTO {numbers} VALUES (?)", [1])
        assert cursor.rowcount == 1
        cursor.executemany(f"INSERT INTO {numbers} VALUES (?)", [(2,), (3,)])
        assert cursor.rowcount == 2
        cursor.executescript(f"UPDATE {numbers} SET x = x * 10")
        cursor.execute("BEGIN")
        assert cursor.rowcount == 0
        cursor.execute("ROLLBACK")
    assert rows(plain, f"SELECT x FROM {numbers} ORDER BY x") == [(10,), (20,), (30,)]


def test_jdbc_counts_each_change_once(server, plain, numbers):
    with java(server) as connection:
        each = connection.createStatement()
        for sql, changed in CHANGES:
            assert each.executeUpdate(sql.format(numbers)) == changed
        insert = connection.prepareStatement(f"INSERT INTO {numbers} VALUES (?)")
        insert.setLong(1, 1)
        assert insert.executeLargeUpdate() == 1
        # The driver sends this one down the query path, and shows the count as a row.
        assert insert.execute() and java_rows(insert.getResultSet()) == ["1"]
        insert.close()
        assert each.executeUpdate("BEGIN") == each.executeUpdate("ROLLBACK") == 0
        each.close()
    assert count(plain, numbers) == 2


@pytest.mark.parametrize("path", ["statement", "prepared", "poll"])
def test_a_change_on_the_query_path_runs_when_it_is_asked_for(server, raw, plain, numbers, path):
    """The ticket only tells the count, as often as it is fetched."""
    sql = f"INSERT INTO {numbers} VALUES (1), (2)"
    handle = bytes(prepared(raw, sql)[1])
    descriptor = command("CommandPreparedStatementQuery", field(1, handle)) if path == "prepared" else statement(sql)
    assert raw.connection.get_schema(descriptor, raw.options).schema.names == ["rows_affected"]
    assert count(plain, numbers) == 0, "neither prepare nor GetSchema runs it"
    if path == "poll":
        with Caller(server) as caller:
            polled = caller.call("PollFlightInfo", field(1, 2) + field(2, descriptor.command)).message
        # Its last field is the progress, nine bytes of a number.
        info = flight.FlightInfo.deserialize(parse(polled[:-9])[1])
    else:
        info = raw.connection.get_flight_info(descriptor, raw.options)
    assert (info.total_records, count(plain, numbers)) == (1, 2)
    for _ in range(3):
        told = raw.connection.do_get(info.endpoints[0].ticket, raw.options).read_all()
        assert told.to_pylist() == [{"rows_affected": 2}]
    assert count(plain, numbers) == 2


def test_a_querys_ticket_gives_the_same_rows_again(tables, raw):
    info = raw.connection.get_flight_info(statement("SELECT x, s FROM needs.p ORDER BY x"), raw.options)
    first, second = (raw.connection.do_get(info.endpoints[0].ticket, raw.options).read_all() for _ in range(2))
    assert first.equals(second) and first.num_rows == 3


# Every statement can be prepared.

STATEMENTS = {  # whether it is an update
    "SET TIME ZONE 'UTC'": True,
    "RESET ALL": True,
    "USE needs": True,
    "BEGIN": True,
    "START TRANSACTION READ ONLY": True,
    "SET TRANSACTION READ WRITE": True,
    "COMMIT": True,
    "ROLLBACK": True,
    "SAVEPOINT a": True,
    "ROLLBACK TO a": True,
    "RELEASE SAVEPOINT a": True,
    "CREATE NAMESPACE never_made": True,
    "CREATE SCHEMA never_made": True,
    "CREATE TABLE needs.never_made (a INT)": True,
    "CREATE TEMPORARY TABLE never_made (a INT)": True,
    "CREATE INDEX never_made ON needs.t (a)": True,
    "CREATE USER never_made WITH PASSWORD 'long enough' ROLE user": True,
    "DROP TABLE needs.t": True,
    "DROP NAMESPACE needs CASCADE": True,
    "INSERT INTO needs.p (x) VALUES (1)": True,
    "UPDATE needs.p SET x = 0": True,
    "DELETE FROM needs.p": True,
    "STORAGE FLUSH TABLE needs.p": True,
    "STORAGE COMPACT TABLE needs.p": True,
    "STORAGE CHECK TABLE needs.p": True,
    "SHOW TABLES": False,
    "SHOW NAMESPACES": False,
    "SHOW ALL": False,
    "SHOW COLUMNS FROM needs.t": False,
    "DESCRIBE needs.t": False,
    "EXPLAIN SELECT 1": False,
    "EXPLAIN ANALYZE SELECT 1": False,
    "EXPLAIN UPDATE needs.p SET x = 0": False,
    "SELECT 1;": False,
    "VALUES (1)": False,
    "TABLE needs.t": False,
    "WITH w AS (SELECT 1 AS one) SELECT * FROM w": False,
}


def test_every_statement_can_be_prepared(tables, raw, plain):
    """It says whether it is an update, and is not run."""
    for sql, is_update in STATEMENTS.items():
        made = prepared(raw, sql)
        assert bool(made.get(4)) is is_update, sql
        assert (schema_in(made[2]).names == []) is is_update, sql
        assert schema_in(made[3]).names == []
        with plain.cursor() as cursor:
            assert cursor.adbc_prepare(sql) is not None, sql
    assert count(plain, "needs.p") == 3
    assert not any("never_made" in name for row in rows(plain, "SHOW TABLES") for name in row)


def test_adbc_and_jdbc_run_what_they_prepare(server, plain, namespace):
    table = f"{namespace}.walk"
    walk = ["SET TIME ZONE 'UTC'", f"USE {namespace}", f"CREATE TABLE {table} (a INT)", "BEGIN",
            f"INSERT INTO {table} VALUES (1)", "SAVEPOINT s", f"DELETE FROM {table}", "ROLLBACK TO s", "RELEASE s",
            "COMMIT", f"STORAGE FLUSH TABLE {table}", f"STORAGE COMPACT TABLE {table}",
            "SHOW TABLES", f"DESCRIBE {table}", "EXPLAIN SELECT a FROM walk",
            f"UPDATE {table} SET a = 2", f"DROP TABLE {table}"]  # fmt: skip
    for sql in walk:
        rows(plain, sql)
    with java(server) as connection:
        for sql in walk:
            step = connection.prepareStatement(sql)
            step.execute()
            step.close()


# Parameters, wherever they stand.

NOW = dt.datetime(2020, 1, 1)
# Where NULL is no value.
NOT_NULL = ("date_trunc", "date_part(?", "ROWS", "AT TIME ZONE", "INTERVAL ?", "ESCAPE", "ntile", "nth_value", "lag(", "lead(",
            "approx_percentile")  # fmt: skip
# sql → (values, types, rows)
PARAMETERS: dict[str, tuple[list, list[str], Any]] = {
    "SELECT ?": (["a"], ["string"], [("a",)]),
    "SELECT $2, $1": (["one", "two"], ["string"] * 2, [("two", "one")]),
    "SELECT $3": (["a", "b", "c"], ["string"] * 3, [("c",)]),
    "SELECT $10, $9, $1, $2, $3, $4, $5, $6, $7, $8": (
        list("abcdefghij"),
        ["string"] * 10,
        [tuple("jiabcdefgh")],
    ),
    "SELECT ? + 1": ([1], ["int64"], [(2,)]),
    "SELECT ? || ?": (["a", "b"], ["string"] * 2, [("ab",)]),
    "SELECT NOT ?": ([True], ["bool"], [(False,)]),
    "SELECT ? IS NULL": ([None], ["string"], [(True,)]),
    "SELECT x FROM needs.p WHERE x = ?": ([1], ["int64"], [(1,)]),
    "SELECT x FROM needs.p WHERE x = ? AND true": (["1"], ["int64"], [(1,)]),
    "SELECT x FROM needs.p WHERE ? = x": ([1.0], ["int64"], [(1,)]),
    "SELECT x FROM needs.p WHERE s = ?": ([None], ["string"], []),
    "SELECT x FROM needs.p WHERE s IS NOT DISTINCT FROM ?": ([None], ["string"], [(3,)]),
    "SELECT x FROM needs.p WHERE d > ?": ([Decimal("2")], ["decimal128(10, 2)"], [(2,)]),
    "SELECT x FROM needs.p WHERE f < ?": ([2], ["double"], [(1,)]),
    "SELECT x FROM needs.p WHERE b = ?": ([True], ["bool"], [(1,)]),
    "SELECT x FROM needs.p WHERE day = ?": ([dt.date(2020, 1, 1)], ["date32[day]"], [(1,)]),
    "SELECT x FROM needs.p WHERE day <= ?": (["2020-01-01"], ["date32[day]"], [(1,)]),
    "SELECT x FROM needs.p WHERE ts = ?": ([NOW], ["timestamp[us]"], [(1,)]),
    "SELECT x FROM needs.p WHERE x BETWEEN ? AND ? ORDER BY x": ([1, 2], ["int64"] * 2, [(1,), (2,)]),
    "SELECT x FROM needs.p WHERE ? BETWEEN x AND x + 1 ORDER BY x": ([2], ["int64"], [(1,), (2,)]),
    "SELECT x FROM needs.p WHERE x IN (?, ?) ORDER BY x": ([1, 3], ["int64"] * 2, [(1,), (3,)]),
    "SELECT x FROM needs.p WHERE x = 1 AND ? IN (1, 2)": ([1], ["int64"], [(1,)]),
    "SELECT x FROM needs.p WHERE x = 1 AND ? IN (SELECT x FROM needs.p)": ([1], ["int64"], [(1,)]),
    "SELECT x FROM needs.p WHERE s LIKE ?": (["o%"], ["string"], [(1,)]),
    "SELECT x FROM needs.p WHERE s ILIKE ? AND s ~ ?": (["ONE", "^o"], ["string"] * 2, [(1,)]),
    "SELECT x FROM needs.p ORDER BY x LIMIT ? OFFSET ?": ([1, 1], ["int64"] * 2, [(2,)]),
    "SELECT x FROM needs.p ORDER BY x LIMIT $1 OFFSET $1": ([1], ["int64"], [(2,)]),
    "SELECT x FROM needs.p ORDER BY x OFFSET ?": ([2], ["int64"], [(3,)]),
    "SELECT count(*) FROM (SELECT x FROM needs.p LIMIT ?)": ([None], ["int64"], [(3,)]),
    "SELECT COALESCE(?, x) FROM needs.p WHERE x = 1": ([None], ["int64"], [(1,)]),
    "SELECT COALESCE(s, ?) FROM needs.p WHERE x = 3": (["d"], ["string"], [("d",)]),
    "SELECT COALESCE(?, ?)": ([None, "b"], ["string"] * 2, [("b",)]),
    "SELECT NULLIF(x, ?) FROM needs.p WHERE x = 1": ([1], ["int64"], [(None,)]),
    "SELECT CASE WHEN x = ? THEN ? ELSE ? END FROM needs.p ORDER BY x LIMIT 2": (
        [1, "y", "n"],
        ["int64", "string", "string"],
        [("y",), ("n",)],
    ),
    "SELECT CASE ? WHEN 1 THEN 'a' ELSE 'b' END": ([1], ["int64"], [("a",)]),
    "SELECT CASE WHEN ? THEN x ELSE ? END FROM needs.p WHERE x = 1": ([False, 7], ["bool", "int64"], [(7,)]),
    "SELECT upper(?)": (["a"], ["string"], [("A",)]),
    "SELECT abs(?), power(?, 2)": ([-1, 3], ["double"] * 2, [(1.0, 9.0)]),
    "SELECT substr(s, ?, ?) FROM needs.p WHERE x = 1": ([1, 2], ["int64"] * 2, [("on",)]),
    "SELECT round(f, ?) FROM needs.p WHERE x = 1": ([0], ["int32"], [(2.0,)]),
    "SELECT date_trunc(?, ts) FROM needs.p WHERE x = 1": (["year"], ["string"], [(NOW,)]),
    "SELECT date_part('year', ?)": ([NOW], ["string"], [(2020,)]),
    "SELECT greatest(x, ?) FROM needs.p WHERE x = 1": ([2], ["int64"], [(2,)]),
    "SELECT sum(x * ?), count(?) FROM needs.p": ([2, "a"], ["int64", "string"], [(12, 3)]),
    "SELECT sum(x) FILTER (WHERE x > ?) FROM needs.p": ([1], ["int64"], [(5,)]),
    "SELECT CAST(? AS BIGINT), ?::INT": (["5", 6], ["int64", "int32"], [(5, 6)]),
    "SELECT CAST(? AS DATE), CAST(? AS DECIMAL(10, 2))": (
        ["2020-01-01", "1.5"],
        ["date32[day]", "decimal128(10, 2)"],
        [(dt.date(2020, 1, 1), Decimal("1.50"))],
    ),
    "SELECT x FROM needs.p GROUP BY x HAVING count(*) >= ? ORDER BY x * ?": (
        [1, -1],
        ["int64"] * 2,
        [(3,), (2,), (1,)],
    ),
    "SELECT a.x FROM needs.p a JOIN needs.p b ON a.x = b.x + ? ORDER BY 1": ([1], ["int64"], [(2,), (3,)]),
    "WITH w AS (SELECT x FROM needs.p WHERE x > ?) SELECT * FROM w WHERE x < ?": ([1, 3], ["int64"] * 2, [(2,)]),
    "SELECT (SELECT max(x) FROM needs.p WHERE x < ?) AS m": ([3], ["int64"], [(2,)]),
    "SELECT x FROM needs.p WHERE x = ? UNION ALL SELECT x FROM needs.p WHERE x = ?": (
        [1, 1],
        ["int64"] * 2,
        [(1,), (1,)],
    ),
    "SELECT * FROM (VALUES (?, ?)) v(a, b)": (["1", "x"], ["string"] * 2, [("1", "x")]),
    "SELECT x FROM needs.p WHERE x = $1 OR x = $1 + 1 ORDER BY x": ([1], ["int64"], [(1,), (2,)]),
    "SELECT [?, 1], array_contains([1, 2], ?)": ([2, 2], ["int64"] * 2, [([2, 1], True)]),
    "SELECT [?, ?], [[?], ['b']]": (["1", "2", "a"], ["string"] * 3, [(["1", "2"], [["a"], ["b"]])]),
    "WITH w AS (SELECT 7 AS n) SELECT [(SELECT n FROM w), ?]": ([8], ["int64"], [([7, 8],)]),
    "SELECT unnest([?, x]) FROM needs.p WHERE x = 1": ([5], ["int64"], [(5,), (1,)]),
    "SELECT round(?, 1), floor(?), trunc(?)": ([1.25, 2.5, 3.5], ["double"] * 3, [(1.3, 2.0, 3.0)]),
    "SELECT isnan(?)": ([1.5], ["double"], [(False,)]),
    "SELECT sum(?), avg(?), stddev(?), median(?) FROM needs.p": ([2, 1.5, 3, 4], ["double"] * 4, [(6.0, 1.5, 0.0, 4.0)]),
    "SELECT min(?), bool_and(?), bit_or(?) FROM needs.p": (["a", True, 4], ["string", "bool", "int64"], [("a", True, 4)]),
    "SELECT string_agg(s, ? ORDER BY s), approx_percentile_cont(x, ?) FROM needs.p": (
        ["+", 0.5],
        ["string", "double"],
        [("one+two", 2)],
    ),
    "SELECT sum(?) OVER (ORDER BY x) FROM needs.p": ([2], ["double"], [(2.0,), (4.0,), (6.0,)]),
    "SELECT ntile(?) OVER (ORDER BY x) FROM needs.p": ([3], ["int64"], [(1,), (2,), (3,)]),
    "SELECT lag(x, ?) OVER (ORDER BY x) FROM needs.p": ([1], ["int64"], [(None,), (1,), (2,)]),
    "SELECT lead(x, ?, ?) OVER (ORDER BY x) FROM needs.p": ([1, 9], ["int64"] * 2, [(2,), (3,), (9,)]),
    "SELECT lag(s, ?, ?) OVER (ORDER BY x) FROM needs.p": ([1, "z"], ["int64", "string"], [("z",), ("one",), ("two",)]),
    "SELECT nth_value(x, ?) OVER (ORDER BY x) FROM needs.p": ([2], ["int64"], [(None,), (2,), (2,)]),
    "SELECT sum(x) OVER (ORDER BY x ROWS BETWEEN ? PRECEDING AND ? FOLLOWING) FROM needs.p": (
        [1, 0],
        ["int64"] * 2,
        [(1,), (3,), (5,)],
    ),
    "SELECT sum(x) OVER w FROM needs.p WINDOW w AS (ORDER BY x ROWS ? PRECEDING)": ([1], ["int64"], [(1,), (3,), (5,)]),
    "SELECT value FROM generate_series(1, ?)": ([3], ["int64"], [(1,), (2,), (3,)]),
    "SELECT value + $2 FROM range($1, $2) WHERE value > $3": ([1, 3, 1], ["int64"] * 3, [(5,)]),
    "SELECT date_part(?, ts) FROM needs.p WHERE x = ?": (["month", 1], ["string", "int64"], [(1,)]),
    "SELECT ts AT TIME ZONE ? FROM needs.p WHERE x = 1": (
        ["Europe/Zurich"],
        ["string"],
        [(dt.datetime(2019, 12, 31, 23, tzinfo=dt.timezone.utc),)],
    ),
    "SELECT ts + INTERVAL ?, ts + INTERVAL ? DAY FROM needs.p WHERE x = 1": (
        ["1 day", "2"],
        ["string"] * 2,
        [(dt.datetime(2020, 1, 2), dt.datetime(2020, 1, 3))],
    ),
    "SELECT ts + ?, ? + ts FROM needs.p WHERE x = 1": (
        ["1 day", "1 month"],
        ["month_day_nano_interval"] * 2,
        [(dt.datetime(2020, 1, 2), dt.datetime(2020, 2, 1))],
    ),
    "SELECT x FROM needs.p WHERE s LIKE ? ESCAPE ?": (["o%", "\\"], ["string"] * 2, [(1,)]),
    "SELECT x FROM needs.p WHERE x = 3 UNION ALL SELECT ? ORDER BY x": ([4], ["int64"], [(3,), (4,)]),
    "SELECT ? AS n UNION ALL SELECT 1 UNION ALL SELECT ? ORDER BY n": ([3, 2], ["int64"] * 2, [(1,), (2,), (3,)]),
    "SELECT x FROM needs.p WHERE x IN (SELECT ?)": ([2], ["int64"], [(2,)]),
    "SELECT x FROM needs.p WHERE x > ALL (SELECT ?)": ([2], ["int64"], [(3,)]),
    "SELECT x FROM needs.p WHERE x = ANY(?) ORDER BY x": ([[1, 3]], ["list<item: int64>"], [(1,), (3,)]),
    "SELECT array_position([7, 8], ?), array_append(?, 2)": ([8, [1]], ["int64", "list<item: int64>"], [(2, [1, 2])]),
    "SELECT array_length(?)": ([["a", "b"]], ["list<item: string>"], [(2,)]),
    "EXPLAIN SELECT value FROM generate_series(1, ?) WHERE value = ?": ([3, 2], ["int64"] * 2, ...),
    # What looks like one.
    "SELECT '?' || ? || 'a''?' AS \"?\"": (["m"], ["string"], [("?ma'?",)]),
    "SELECT $$?$$, ?, '$9', $tag$ ? $2 $tag$": (["m"], ["string"], [("?", "m", "$9", " ? $2 ")]),
    "SELECT x /* ? $4 */ FROM needs.p -- ?\nWHERE x = ?": ([1], ["int64"], [(1,)]),
}


@pytest.mark.parametrize("sql", PARAMETERS)
def test_a_parameter_may_stand(tables, plain, sql):
    """Typed, nullable and in the order of their numbers; what is bound is cast."""
    values, types, expected = PARAMETERS[sql]
    with plain.cursor() as cursor:
        described = cursor.adbc_prepare(sql)
        assert [str(parameter.type) for parameter in described] == types
        assert described.names == [f"${n}" for n in range(1, len(types) + 1)]
        assert all(parameter.nullable for parameter in described)
        cursor.execute(sql, values)
        found = cursor.fetchall()
        assert found == expected or expected is ...
        if not any(text in sql for text in NOT_NULL):
            # NULL is a value of every type.
            cursor.execute(sql, [None] * len(values))
            cursor.fetchall()


@pytest.mark.parametrize("sql", ["SELECT ? + ?", "SELECT -?", "SELECT $1 + $1"])
def test_where_nothing_tells_the_type_a_cast_does(tables, plain, sql):
    with pytest.raises(flightsql.ProgrammingError) as refused:
        rows(plain, sql, [1, 2][: sql.count("?") or 1])
    assert refused.value.status_code == Code.INVALID_ARGUMENT
    cast = sql.replace("?", "CAST(? AS INT)").replace("$1", "CAST($1 AS INT)")
    assert len(rows(plain, cast, [1, 2][: sql.count("?") or 1])) == 1


INSERTS: dict[str, tuple[list, list[tuple]]] = {
    "INSERT INTO {} VALUES (?, ?, ?)": ([1, "a", 1.5], [(1, "a", Decimal("1.50"))]),
    "INSERT INTO {} (s, x) VALUES ($2, $1)": ([1, "a"], [(1, "a", None)]),
    "INSERT INTO {} (x, s) VALUES (?, ?), (?, ?)": ([1, "a", 2, None], [(1, "a", None), (2, None, None)]),
    "INSERT INTO {} (x, s, d) VALUES (? + 1, upper(?), ?)": ([1, "a", "2.5"], [(2, "A", Decimal("2.50"))]),
    "INSERT INTO {} (x, s) VALUES (CASE WHEN ? THEN ? ELSE 0 END, COALESCE(?, 'none'))": (
        [True, 5, None],
        [(5, "none", None)],
    ),
    "INSERT INTO {} (x) VALUES (CAST(? AS INT))": (["7"], [(7, None, None)]),
    "INSERT INTO {} (x) VALUES ((SELECT max(x) + ? FROM needs.p))": ([1], [(4, None, None)]),
    "INSERT INTO {} (x, s) SELECT ?, ?": ([1, "a"], [(1, "a", None)]),
    "INSERT INTO {} (x, s) SELECT x + ?, ? FROM needs.p WHERE x = ?": ([10, "h", 1], [(11, "h", None)]),
    "INSERT INTO {} (s) VALUES ('?'), (?)": (["$1"], [(None, "?", None), (None, "$1", None)]),
}


@pytest.mark.parametrize("sql", INSERTS)
def test_a_parameter_may_stand_in_an_insert(tables, db, plain, namespace, sql):
    db.run(f"CREATE TABLE {namespace}.i (x BIGINT, s TEXT, d DECIMAL(10, 2))")
    values, expected = INSERTS[sql]
    with plain.cursor() as cursor:
        cursor.execute(sql.format(f"{namespace}.i"), values)
        assert cursor.rowcount == len(expected)
    assert rows(plain, f"SELECT x, s, d FROM {namespace}.i ORDER BY x, s DESC") == expected


def test_a_parameter_may_stand_in_an_update_and_a_delete(plain, db, namespace):
    db.run(f"CREATE TABLE {namespace}.u (x BIGINT, s TEXT)")
    db.run(f"INSERT INTO {namespace}.u VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    for sql, values, changed in (
        ("UPDATE {} SET s = ?, x = x + ? WHERE x = ?", ["z", 10, 1], 1),
        ("UPDATE {} SET s = CASE WHEN x = ? THEN ? ELSE s END WHERE x IN (?, ?)", [2, "B", 2, 3], 2),
        ("UPDATE {} SET s = ? WHERE x BETWEEN $2 AND $3".replace("?", "$1"), [None, 3, 3], 1),
        ("DELETE FROM {} WHERE s LIKE ? OR x = (SELECT max(x) FROM needs.p WHERE x < ?)", ["z%", 0], 1),
    ):
        with plain.cursor() as cursor:
            cursor.execute(sql.format(f"{namespace}.u"), values)
            assert cursor.rowcount == changed, sql
    assert rows(plain, f"SELECT x, s FROM {namespace}.u ORDER BY x") == [(2, "B"), (3, None)]


WRONG = {
    "none": ("SELECT x FROM needs.p WHERE x = ?", None),
    "too few": ("SELECT $2", [1]),
    "too many": ("SELECT x FROM needs.p WHERE x = ?", [1, 2]),
    "where there is none": ("SELECT 1", [1]),
    "no number": ("SELECT x FROM needs.p WHERE x = ?", ["abc"]),
    "no integer": ("SELECT x FROM needs.p LIMIT ?", [2.5]),
    "no date, but its days": ("SELECT x FROM needs.p WHERE day = ?", [18262]),
    "no timestamp, but its ticks": ("SELECT x FROM needs.p WHERE ts = ?", [1577836800000000]),
    "no date": ("SELECT x FROM needs.p WHERE day = ?", ["soon"]),
    "no boolean": ("SELECT x FROM needs.p WHERE b = ?", ["maybe"]),
    "a list": ("SELECT x FROM needs.p WHERE x = ?", [[1, 2]]),
    "below zero": ("SELECT x FROM needs.p LIMIT ?", [-1]),
    "into a number": ("INSERT INTO needs.p (x) VALUES (?)", ["abc"]),
    "too large": ("INSERT INTO needs.p (d) VALUES (?)", ["123456789012"]),
    "two kinds": ("SELECT ?, $1", ["a"]),
    "no number of a parameter": ("SELECT $0", ["a"]),
    "two rows for a query": ("SELECT ?", pa.table({"a": [1, 2]})),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_parameters_are_refused(tables, plain, name):
    with pytest.raises(flightsql.Error) as refused:
        rows(plain, *WRONG[name])
    assert refused.value.status_code == Code.INVALID_ARGUMENT, refused.value
    assert count(plain, "needs.p") == 3


@pytest.mark.parametrize("operator", ["? 'a'", "?| ARRAY['a']", "?& ARRAY['a']", "@? '$.a'"])
def test_operators_of_json_with_question_marks_are_refused_by_name_or_place(tables, raw, operator):
    """There are none: no question mark of theirs becomes a parameter in silence."""
    with pytest.raises((pa.ArrowInvalid, pa.ArrowNotImplementedError), match="column 10|Operator"):
        prepared(raw, f"SELECT s {operator} FROM needs.p")


@pytest.mark.parametrize(("key", "found"), [("a", "1"), ("b", None)])
def test_operators_of_json_take_parameters(plain, key, found):
    assert rows(plain, """SELECT '{"a": 1}' ->> ? AS found""", [key]) == [(found,)]


def test_what_is_not_supported_is_said_beside_parameters_too(tables, plain):
    """The DBAPI takes UNIMPLEMENTED for "nothing can be prepared", and cannot bind then."""
    with pytest.raises(flightsql.ProgrammingError, match="LIMIT"):
        rows(plain, "DELETE FROM needs.p WHERE x = ? LIMIT 1", [99])
    with pytest.raises(flightsql.ProgrammingError, match="LIMIT"):
        plain.cursor().executemany("DELETE FROM needs.p WHERE x = ? LIMIT 1", [(98,), (99,)])
    # Beside none it is what it is.
    with pytest.raises(flightsql.NotSupportedError, match="LIMIT"):
        rows(plain, "DELETE FROM needs.p LIMIT 1")


@pytest.mark.parametrize(
    ("sql", "values", "text"),
    [
        ("SELECT ?", [1, 2], "has 1 parameter, but 2 values are bound"),
        ("SELECT ?, ?", [1], "has 2 parameters, but 1 value is bound"),
        ("SELECT 1", [1], "has 0 parameters, but 1 value is bound"),
        ("INSERT INTO needs.p (x) VALUES (1, ?)", [1], "has 2 values, but the column list has 1"),
    ],
)
def test_counts_are_said_as_they_are(tables, plain, sql, values, text):
    with pytest.raises(flightsql.ProgrammingError, match=text):
        rows(plain, sql, values)


def test_values_that_are_planned_change_with_each_execution(tables, plain, db, namespace):
    """Also where the name of a column tells them, and in what writes."""
    frame = "SELECT sum(x) OVER (ORDER BY x ROWS ? PRECEDING) FROM needs.p"
    with plain.cursor() as cursor:
        for offset, expected in ((0, [1, 2, 3]), (1, [1, 3, 5]), (2, [1, 3, 6])):
            cursor.execute(frame, [offset])
            assert [row[0] for row in cursor.fetchall()] == expected
        for wrong in (-1, None):
            with pytest.raises(flightsql.ProgrammingError):
                cursor.execute(frame, [wrong])
                cursor.fetchall()
        # A time zone, and no way out of its literal.
        with pytest.raises(flightsql.ProgrammingError):
            cursor.execute("SELECT ts AT TIME ZONE ? FROM needs.p", ["UTC' || s || '"])
            cursor.fetchall()
        # What a DOUBLE is for 'epoch' was announced as an INT.
        with pytest.raises(flightsql.ProgrammingError, match="write the value into the statement"):
            cursor.execute("SELECT date_part(?, ts) FROM needs.p", ["epoch"])
            cursor.fetchall()
        db.run(f"CREATE TABLE {namespace}.g (x BIGINT, n BIGINT)")
        insert = f"INSERT INTO {namespace}.g SELECT value, ? FROM generate_series(1, ?)"
        cursor.executemany(insert, [(10, 2), (20, 3)])
        assert cursor.rowcount == 5
        cursor.execute(f"UPDATE {namespace}.g SET n = n + ? WHERE x IN (SELECT value FROM range(?, ?))", [5, 2, 3])
        assert cursor.rowcount == 2
        cursor.execute(f"SELECT x, n FROM {namespace}.g ORDER BY n, x")
        assert cursor.fetchall() == [(1, 10), (2, 15), (1, 20), (3, 20), (2, 25)]


def test_jdbc_binds_parameters(tables, server):
    with java(server) as connection:
        number, date = jpype.java.lang.Long, jpype.java.sql.Date.valueOf("2020-01-01")
        for expected, sql, *values in (
            (["1"], "SELECT x FROM needs.p WHERE x = ?", number(1)),
            (["1", "2"], "SELECT x FROM needs.p WHERE x IN (?, ?) ORDER BY x", number(1), number(2)),
            (["2"], "SELECT x FROM needs.p ORDER BY x LIMIT ? OFFSET ?", number(1), number(1)),
            (["1", "2"], "SELECT x FROM needs.p WHERE x BETWEEN ? AND ? ORDER BY x", number(1), number(2)),
            (["a"], "SELECT ?", "a"),
            (["5"], "SELECT COALESCE(?, x) FROM needs.p WHERE x = 1", number(5)),
            (["y"], "SELECT CASE WHEN x = ? THEN ? ELSE 'n' END FROM needs.p WHERE x = 1", number(1), "y"),
            (["A"], "SELECT upper(?)", "a"),
            (["7"], "SELECT CAST(? AS BIGINT)", number(7)),
            (["?a"], "SELECT '?' || ?", "a"),
            (["ba"], "SELECT $2 || $1", "a", "b"),
            (["1"], "SELECT x FROM needs.p WHERE s LIKE ? AND day = ?", "o%", date),
            ([], "SELECT x FROM needs.p WHERE s = ?", None),
        ):
            assert java_query(connection, sql, *values) == expected, sql


# Binding: one handle, many executions.


def test_a_binding_answers_the_handle_that_it_was_given(tables, raw):
    """Go closes the one that came back, Java the first one: they are the same."""
    handle = bytes(prepared(raw, "SELECT x FROM needs.p WHERE x = ?")[1])
    bound = command("CommandPreparedStatementQuery", field(1, handle))
    for x in (1, 2, 1):
        reply = put(raw, "CommandPreparedStatementQuery", field(1, handle), data=pa.record_batch({"$1": [x]}))
        assert reply[1] == handle
        # What is bound stays bound.
        for _ in range(2):
            info = raw.connection.get_flight_info(bound, raw.options)
            got = raw.connection.do_get(info.endpoints[0].ticket, raw.options).read_all()
            assert got.to_pylist() == [{"x": x}]
    for _ in range(2):
        raw.act("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", field(1, handle)))
    with pytest.raises(REFUSED, match="no such prepared statement"):
        raw.connection.get_flight_info(bound, raw.options)


def test_rows_may_come_before_an_update_or_with_it(raw, server, plain, numbers):
    """Rust binds by one call and executes by another that has no schema; Go and Java do both in one."""
    handle = bytes(prepared(raw, f"INSERT INTO {numbers} VALUES (?)")[1])
    data = pa.record_batch({"x": [1, 2, 3]})
    assert put(raw, "CommandPreparedStatementUpdate", field(1, handle), data=data)[1] == 3
    assert put(raw, "CommandPreparedStatementQuery", field(1, handle), data=data)[1] == handle
    descriptor = field(1, 2) + field(2, packed("CommandPreparedStatementUpdate", field(1, handle)))
    with Caller(server) as caller:
        # FlightData with a descriptor and nothing else.
        assert parse(parse(caller.call("DoPut", [field(1, descriptor)]).message)[1]) == {1: 3}
    assert count(plain, numbers) == 6


def test_bound_rows_are_one_change(plain, numbers):
    """All or none, and the count of all."""
    with plain.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {numbers} VALUES (?)", [(n,) for n in range(100)])
        assert cursor.rowcount == 100
        cursor.executemany(f"UPDATE {numbers} SET x = x + ? WHERE x < ?", [(1000, 10), (1000, 20)])
        assert cursor.rowcount == 20
        with pytest.raises(flightsql.Error):
            cursor.executemany(f"UPDATE {numbers} SET x = 5 / ?", [(1,), (0,)])
    assert rows(plain, f"SELECT count(*), max(x) FROM {numbers}") == [(100, 1019)]


# Ingest.

LOADED = pa.table({"x": [1, 2]})


def test_ingest_modes(plain, namespace):
    def load(mode: str) -> int:
        with plain.cursor() as cursor:
            cursor.adbc_ingest("made", LOADED, mode=mode, db_schema_name=namespace, catalog_name="seracdb")
        return count(plain, f"{namespace}.made")

    with pytest.raises(flightsql.Error) as missing:
        load("append")
    assert missing.value.status_code == Code.NOT_FOUND
    assert (load("create"), load("append"), load("create_append"), load("replace")) == (2, 4, 6, 2)
    with pytest.raises(flightsql.Error) as there:
        load("create")
    assert there.value.status_code == Code.ALREADY_EXISTS


@pytest.mark.parametrize("where", [{"catalog_name": "other"}, {"db_schema_name": "nowhere"}])
def test_ingest_into_what_is_not_there(plain, where):
    with plain.cursor() as cursor, pytest.raises(flightsql.Error) as refused:
        cursor.adbc_ingest("t", LOADED, mode="create", **where)
    assert refused.value.status_code == Code.NOT_FOUND


def test_ingest_of_a_temporary_table(server, plain):
    with plain.cursor() as cursor:
        assert cursor.adbc_ingest("passing", LOADED, mode="create", temporary=True) == 2
    assert count(plain, "passing") == 2
    with adbc(server) as other, pytest.raises(flightsql.Error, match="unknown table"):
        count(other, "passing")


def test_ingest_joins_the_open_transaction(server, plain, numbers):
    """The driver names no transaction when it ingests."""
    namespace, table = numbers.split(".")
    with adbc(server, autocommit=False) as connection:
        for end, left in ((connection.rollback, 0), (connection.commit, 2)):
            with connection.cursor() as cursor:
                assert cursor.adbc_ingest(table, LOADED, mode="append", db_schema_name=namespace) == 2
                assert (count(connection, numbers), count(plain, numbers)) == (2, 0)
            end()
            assert count(plain, numbers) == left


# Facts about the server.

STRINGS = {0, 1, 2, 504, 513, 514, 529, 530, 531}
LISTS = {508, 509, 510, 511, 512}
INTS = {8, 100, 101, 503, 505, 507, 522, 525, 526, 528, 533, 534, 535, 538, 540, 562, 564, 567, 568, 569, 570, 571}
LONGS = set(range(541, 562)) - {556}
CONVERSIONS = 517
KNOWN = set(range(6)) | {8, 9, 10, 11, 100, 101} | set(range(500, 577))
CHILDREN = ["string_value", "bool_value", "bigint_value", "int32_bitmask", "string_list", "int32_to_int32_list_map"]


def facts(server: Server, agent: str | None = None, *codes: int) -> dict[int, tuple[int, Any]]:
    """By code: the child of the union that the value is in, and the value."""
    options = [("grpc.primary_user_agent", agent)] if agent else []
    with flight.FlightClient(server.uri, generic_options=options) as connection:
        raw = over(connection, connection.authenticate_basic_token("root", ROOT_PASSWORD))
        (batch,) = ask(raw, "CommandGetSqlInfo", *[field(1, code) for code in codes]).to_batches()
    values = batch.column(1)
    assert [values.type.field(n).name for n in range(6)] == CHILDREN
    return dict(zip(batch.column(0).to_pylist(), zip(values.type_codes.to_pylist(), values.to_pylist())))


def test_every_fact_is_of_the_type_that_the_protocol_names(server):
    kinds = {
        code: 0 if code in STRINGS else 2 if code in LONGS else 3 if code in INTS else 4 if code in LISTS else 1
        for code in KNOWN
    } | {CONVERSIONS: 5}
    told = facts(server)
    assert {code: kind for code, (kind, _) in told.items()} == kinds
    assert list(told) == sorted(told)
    assert all(child in range(6) for child, _ in told.values())
    # Transactions with savepoints, which the Python driver asks for before it begins one.
    assert told[8] == (3, 2) and told[563] == (1, True) and told[573] == (1, True)
    assert list(facts(server, None, 8, 0, 99_999)) == [0, 8]


def test_the_python_driver_has_nothing_to_warn_about(server, recwarn):
    with adbc(server, autocommit=False) as connection:
        assert connection.adbc_get_info()["vendor_name"] == "SeracDB"
    assert not [warning for warning in recwarn if "autocommit" in str(warning.message)]


def test_jdbc_knows_every_code_that_it_is_told(server):
    """It keeps facts by its own list of codes, and falls over one that is not on it."""
    told = facts(server, JAVA)
    start_java()
    known = jpype.JClass("org.apache.arrow.driver.jdbc.shaded.org.apache.arrow.flight.sql.impl.FlightSql$SqlInfo")
    assert [code for code in told if known.forNumber(code) is None] == []
    assert (told[562][0], told[8], told[563], told[573]) == (2, (3, 0), (1, False), (1, False))
    with java(server) as connection:
        facts_of_java = connection.getMetaData()
        assert not facts_of_java.supportsTransactions()
        assert facts_of_java.getDefaultTransactionIsolation() == 0
        assert facts_of_java.getMaxTableNameLength() == 0


# Metadata.


def names(table: pa.Table, column: str = "table_name") -> list[str]:
    return table[column].to_pylist()


def test_tables_and_their_filters(raw, db, namespace):
    for name in ("t_1", "tx1", "B"):
        db.run(f'CREATE TABLE {namespace}."{name}" (x BIGINT NOT NULL)')
    here = field(2, namespace)
    assert names(ask(raw, "CommandGetTables", here)) == ["B", "t_1", "tx1"]
    assert names(ask(raw, "CommandGetTables", here, field(3, "t_1"))) == ["t_1", "tx1"]
    assert names(ask(raw, "CommandGetTables", here, field(3, r"t\_1"))) == ["t_1"]
    assert names(ask(raw, "CommandGetTables", here, field(3, "%1"), field(1, "seracdb"))) == ["t_1", "tx1"]
    assert names(ask(raw, "CommandGetTables", here, field(4, "VIEW"))) == []
    assert names(ask(raw, "CommandGetTables", here, field(4, "TABLE"), field(4, "VIEW"))) == ["B", "t_1", "tx1"]
    # Absent: all. Empty: those without one. A catalog is no pattern.
    for nothing in (field(1, ""), field(2, ""), field(3, ""), field(1, "sera%"), field(2, namespace[:-1] + "_x")):
        assert ask(raw, "CommandGetTables", nothing).num_rows == 0, nothing
    assert ask(raw, "CommandGetTables", field(2, namespace[:2] + "%"), field(3, "tx_")).num_rows >= 1


def test_tables_have_four_or_five_columns_and_are_sorted(tables, raw):
    four = ask(raw, "CommandGetTables")
    assert four.column_names == ["catalog_name", "db_schema_name", "table_name", "table_type"]
    listed = [tuple(row.values()) for row in four.to_pylist()]
    assert listed == sorted(listed)
    five = ask(raw, "CommandGetTables", field(5, True))
    assert five.column_names == [*four.column_names, "table_schema"]
    assert five["table_schema"].null_count == 0
    assert all(schema_in(message).names for message in five["table_schema"].to_pylist())
    types = ask(raw, "CommandGetTableTypes")["table_type"].to_pylist()
    assert types == sorted(types) and set(names(four, "table_type")) <= set(types)


def test_catalogs_and_schemas_and_their_filters(tables, raw):
    assert ask(raw, "CommandGetCatalogs").to_pylist() == [{"catalog_name": "seracdb"}]
    schemas = names(ask(raw, "CommandGetDbSchemas"), "db_schema_name")
    assert schemas == sorted(schemas) and {"default", "needs"} <= set(schemas)
    assert names(ask(raw, "CommandGetDbSchemas", field(1, "seracdb"), field(2, "n__ds")), "db_schema_name") == ["needs"]
    for nothing in (field(1, ""), field(2, ""), field(1, "other")):
        assert ask(raw, "CommandGetDbSchemas", nothing).num_rows == 0


def test_two_hundred_tables_are_one_batch(raw, plain, db, namespace):
    """The Go driver looks for a table's schema in the first batch only."""
    db.run("BEGIN")
    for n in range(200):
        db.run(f"CREATE TABLE {namespace}.t{n:03} (x BIGINT, s TEXT)")
    db.run("COMMIT")
    assert ask(raw, "CommandGetTables", field(2, namespace), field(5, True)).num_rows == 200
    assert "s" in plain.adbc_get_table_schema("t199", db_schema_filter=namespace).names
    listed = plain.adbc_get_objects(depth="tables", db_schema_filter=namespace).read_all().to_pylist()
    assert len(listed[0]["catalog_db_schemas"][0]["db_schema_tables"]) == 200


def test_tables_are_listed_without_their_files(own_server):
    """The catalog is in memory: what takes a file away takes no table off the list."""
    with root(own_server) as db:
        db.run("CREATE TABLE gone (x BIGINT)")
        db.run("INSERT INTO gone VALUES (1)")
        db.run("STORAGE FLUSH TABLE gone")
    shutil.rmtree(own_server.data_dir / "objects")
    listed = ask(Raw(own_server), "CommandGetTables", field(3, "gone"), field(5, True))
    assert "x" in schema_in(listed["table_schema"][0].as_py()).names


# Keys and types.

FOREIGN = ["pk_catalog_name", "pk_db_schema_name", "pk_table_name", "pk_column_name", "fk_catalog_name",
           "fk_db_schema_name", "fk_table_name", "fk_column_name", "key_sequence", "fk_key_name", "pk_key_name",
           "update_rule", "delete_rule"]  # fmt: skip


def test_the_primary_key(tables, raw, server):
    """Without one DBeaver's grid is read-only."""
    (key,) = ask(raw, "CommandGetPrimaryKeys", field(2, "needs"), field(3, "p")).to_pylist()
    assert key.pop("key_name")
    assert key == {"catalog_name": "seracdb", "db_schema_name": "needs", "table_name": "p", "column_name": "_id",
                   "key_sequence": 1}  # fmt: skip
    assert ask(raw, "CommandGetPrimaryKeys", field(2, "needs"), field(3, "none")).num_rows == 0
    with java(server) as connection:
        keys = connection.getMetaData().getPrimaryKeys(None, "needs", "p")
        assert keys.next() and keys.getString("COLUMN_NAME") == "_id"
        keys.close()


@pytest.mark.parametrize("name", ["ExportedKeys", "ImportedKeys", "CrossReference"])
def test_foreign_keys_are_none_with_the_right_columns(tables, raw, name):
    found = ask(raw, f"CommandGet{name}", field(3, "p"), *([field(6, "t")] if name == "CrossReference" else []))
    assert (found.num_rows, found.column_names) == (0, FOREIGN)
    assert [str(t) for t in found.schema.types] == ["string"] * 8 + ["int32", "string", "string", "uint8", "uint8"]


def test_types_of_sql(raw):
    types = ask(raw, "CommandGetXdbcTypeInfo")
    assert types.num_columns == 19 and types.num_rows >= 12
    numbers = names(types, "data_type")
    assert numbers == sorted(numbers)
    assert {"BIGINT", "VARCHAR", "TIMESTAMP", "DECIMAL", "BOOLEAN"} <= set(names(types, "type_name"))
    assert names(ask(raw, "CommandGetXdbcTypeInfo", field(1, 12)), "type_name") == ["VARCHAR"]


# What is told about a column.


def about(column: pa.Field) -> dict[str, str]:
    told = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
    return {key.removeprefix("ARROW:FLIGHT:SQL:"): value for key, value in told.items()}


def test_a_tables_columns_are_described(tables, raw, server):
    listed = ask(raw, "CommandGetTables", field(2, "needs"), field(3, "t"), field(5, True))
    columns = schema_in(listed["table_schema"][0].as_py())
    d, key = about(columns.field("d")), about(columns.field("_id"))
    place = {"CATALOG_NAME": "seracdb", "SCHEMA_NAME": "needs", "TABLE_NAME": "t"}
    assert d == place | {"TYPE_NAME": "DECIMAL", "PRECISION": "12", "SCALE": "3", "IS_AUTO_INCREMENT": "0",
                         "IS_READ_ONLY": "0"}  # fmt: skip
    assert key == place | {"TYPE_NAME": "BIGINT", "IS_AUTO_INCREMENT": "1", "IS_READ_ONLY": "1"}
    with java(server) as connection:
        told = connection.getMetaData().getColumns(None, "needs", "t", "_id")
        assert told.next() and told.getString("IS_AUTOINCREMENT") == "YES"
        told.close()
        told = connection.getMetaData().getColumns(None, "needs", "t", "d")
        assert told.next()
        assert told.getString("TYPE_NAME") == "DECIMAL"
        assert (told.getInt("COLUMN_SIZE"), told.getInt("DECIMAL_DIGITS")) == (12, 3)
        told.close()


def test_a_results_columns_have_their_type(tables, raw):
    a, d = schema_in(prepared(raw, "SELECT a, d FROM needs.t")[2])
    assert about(a)["TYPE_NAME"] == "BIGINT"
    assert (about(d)["TYPE_NAME"], about(d)["PRECISION"], about(d)["SCALE"]) == ("DECIMAL", "12", "3")


T, P = ("needs", "t"), ("needs", "p")
NONE = (None, None)
ORIGINS: dict[str, list[tuple[str | None, str | None]]] = {
    "SELECT a FROM needs.t": [T],
    "SELECT _id, a AS b, \"a\" AS \"A b\" FROM seracdb.needs.t AS x": [T, T, T],
    "SELECT a + 1, -a, CAST(a AS TEXT), 1, upper(s), a FROM needs.t": [NONE] * 5 + [T],
    "SELECT a FROM needs.t WHERE b > 1 ORDER BY s LIMIT 3 OFFSET 1": [T],
    "SELECT DISTINCT s FROM needs.t": [T],
    "SELECT DISTINCT ON (s) s, a FROM needs.t ORDER BY s, a": [T, T],
    "SELECT t.a, p.x, p.s FROM needs.t LEFT JOIN needs.p ON t.a = p.x": [T, P, P],
    "SELECT p.x, t.a FROM needs.t FULL JOIN needs.p ON t.a = p.x": [P, T],
    "SELECT x, y.a FROM needs.p, needs.t AS y, needs.t AS z WHERE p.x = y.a": [P, T],
    "SELECT x, p.s FROM needs.p FULL JOIN needs.p q USING (x)": [NONE, P],
    "SELECT a FROM needs.t WHERE a IN (SELECT x FROM needs.p)": [T],
    "SELECT x FROM needs.p WHERE NOT EXISTS (SELECT 1 FROM needs.t WHERE a = x)": [P],
    "SELECT k, n FROM (SELECT a AS k, count(*) AS n FROM needs.t GROUP BY a) w": [T, NONE],
    "SELECT s, b, sum(a) FROM needs.t GROUP BY GROUPING SETS ((s), (b))": [NONE] * 3,
    "WITH w AS (SELECT a AS x FROM needs.t) SELECT w.x, p.x FROM w CROSS JOIN needs.p": [T, P],
    "SELECT a, row_number() OVER (ORDER BY a), lag(a) OVER (ORDER BY a) FROM needs.t": [T, NONE, NONE],
    "SELECT a, unnest(l), l FROM needs.t": [T, NONE, T],
    "SELECT a FROM needs.t UNION ALL SELECT x FROM needs.p": [NONE],
    "SELECT (SELECT max(x) FROM needs.p) AS m, a FROM needs.t": [NONE, T],
    "SELECT a, a FROM needs.t": [T, T],
    "SELECT k FROM needs.arrow": [("needs", "arrow")],
    "SELECT table_name FROM information_schema.tables": [("information_schema", "tables")],
    "SHOW TABLES": [NONE] * 4,
}


@pytest.mark.parametrize("sql", ORIGINS)
def test_a_results_columns_have_their_table(tables, raw, sql):
    """What a client needs that edits the rows of any query."""
    columns = schema_in(prepared(raw, sql)[2])
    told = [(about(column).get("SCHEMA_NAME"), about(column).get("TABLE_NAME")) for column in columns]
    assert told == ORIGINS[sql][: len(told)], columns.names
    catalogs = [about(column).get("CATALOG_NAME") for column in columns]
    assert catalogs == [table and "seracdb" for _, table in told]
    for where, schema in schemas_of(raw, sql):
        assert schema.equals(columns, check_metadata=True), where


def test_a_temporary_tables_columns_have_the_table_that_metadata_lists(server):
    with adbc(server) as connection:
        rows(connection, "CREATE TEMPORARY TABLE passing (x INT)")
        with connection.cursor() as cursor:
            cursor.execute("SELECT x FROM passing")
            x = about(cursor.fetch_arrow_table().schema.field("x"))
        (catalog,) = connection.adbc_get_objects(table_name_filter="passing").read_all().to_pylist()
        listed = [
            (schema["db_schema_name"], table["table_name"])
            for schema in catalog["catalog_db_schemas"]
            for table in schema["db_schema_tables"] or []
        ]
        assert listed == [(x["SCHEMA_NAME"], x["TABLE_NAME"])]


def test_jdbc_reads_the_table_of_a_column(tables, server):
    with java(server) as connection:
        query = connection.prepareStatement("SELECT a AS k, a + 1 AS n FROM needs.t")
        told = query.executeQuery().getMetaData()
        assert (told.getCatalogName(1), told.getSchemaName(1), told.getTableName(1)) == ("seracdb", "needs", "t")
        assert told.getColumnLabel(1) == "k" and not told.getTableName(2)
        query.close()


# Comments and views.


@pytest.fixture
def described(db, namespace) -> str:
    """A namespace with a table and a view, and what is said of them."""
    db.run(f"CREATE TABLE {namespace}.t (a INT NOT NULL, b TEXT)")
    db.run(f"INSERT INTO {namespace}.t VALUES (1, 'one')")
    db.run(f"CREATE VIEW {namespace}.v AS SELECT a AS x, b FROM {namespace}.t")
    for on, text in (("TABLE {}.t", "of t"), ("COLUMN {}.t.a", "of a"), ("VIEW {}.v", "of v"), ("COLUMN {}.v.b", "of v.b")):
        db.run(f"COMMENT ON {on.format(namespace)} IS '{text}'")
    return namespace


def test_a_view_is_listed_as_one_with_its_columns(described, raw):
    listed = ask(raw, "CommandGetTables", field(2, described), field(5, True)).to_pylist()
    assert [(row["table_name"], row["table_type"]) for row in listed] == [("t", "TABLE"), ("v", "VIEW")]
    assert names(ask(raw, "CommandGetTables", field(2, described), field(4, "VIEW"))) == ["v"]
    assert "VIEW" in names(ask(raw, "CommandGetTableTypes"), "table_type")
    x, b = schema_in(listed[1]["table_schema"])
    assert (x.name, x.type, x.nullable, b.name, b.type, b.nullable) == ("x", pa.int32(), False, "b", pa.string(), True)
    assert (about(x)["TABLE_NAME"], about(x)["IS_READ_ONLY"], about(x)["IS_AUTO_INCREMENT"]) == ("v", "1", "0")
    assert ask(raw, "CommandGetPrimaryKeys", field(2, described), field(3, "v")).num_rows == 0
    # What is read of it, is of it.
    told = schema_in(prepared(raw, f"SELECT q.b, q.x + 1 FROM {described}.v AS q")[2])
    assert [about(column).get("TABLE_NAME") for column in told] == ["v", None]


def test_comments_are_the_remarks_of_a_tables_columns(described, raw):
    listed = ask(raw, "CommandGetTables", field(2, described), field(5, True)).to_pylist()
    t, v = (schema_in(row["table_schema"]) for row in listed)
    assert [about(column).get("REMARKS") for column in t] == [None, "of a", None, None, None]
    assert [about(column).get("REMARKS") for column in v] == [None, "of v.b"]
    assert [schema.metadata[b"ARROW:FLIGHT:SQL:REMARKS"] for schema in (t, v)] == [b"of t", b"of v"]


def test_jdbc_shows_comments_and_views(described, server):
    with java(server) as connection:
        meta = connection.getMetaData()
        views = meta.getTables(None, described, "%", ["VIEW"])
        assert views.next() and (views.getString("TABLE_NAME"), views.getString("TABLE_TYPE")) == ("v", "VIEW")
        assert not views.next()
        views.close()
        remarks = {}
        for table in ("t", "v"):
            told = meta.getColumns(None, described, table, "%")
            while told.next():
                remarks[table, str(told.getString("COLUMN_NAME"))] = told.getString("REMARKS")
            told.close()
        said = {name: str(text) for name, text in remarks.items() if text is not None}
        assert said == {("t", "a"): "of a", ("v", "b"): "of v.b"} and len(remarks) == 7
        # It takes remarks of results for labels, and finds no column by its name then.
        result = connection.createStatement().executeQuery(f"SELECT a, b FROM {described}.t")
        columns = result.getMetaData()
        assert (columns.getColumnLabel(1), columns.getTableName(1), columns.getSchemaName(1)) == ("a", "t", described)
        assert result.next() and result.getInt("a") == 1
        result.close()
        assert java_query(connection, f"SELECT b FROM {described}.v WHERE x = ?", 1) == ["one"]


def test_adbc_shows_comments_views_and_columns(described, plain):
    listed = plain.adbc_get_objects(depth="all", db_schema_filter=described).read_all().to_pylist()
    t, v = listed[0]["catalog_db_schemas"][0]["db_schema_tables"]
    assert [(table["table_name"], table["table_type"]) for table in (t, v)] == [("t", "TABLE"), ("v", "VIEW")]
    told = [[column["column_name"] for column in table["table_columns"]] for table in (t, v)]
    assert told == [["_id", "a", "b", "_updated", "_deleted"], ["x", "b"]]
    # The driver's list of objects has neither remarks nor keys, whatever it is told; what it has of one table has the remarks.
    (a,) = [column for column in plain.adbc_get_table_schema("t", db_schema_filter=described) if column.name == "a"]
    assert about(a)["REMARKS"] == "of a"
    only = plain.adbc_get_objects(depth="tables", db_schema_filter=described, table_types_filter=["VIEW"])
    (view,) = only.read_all().to_pylist()[0]["catalog_db_schemas"][0]["db_schema_tables"]
    assert view["table_name"] == "v"
    assert plain.adbc_get_table_schema("v", db_schema_filter=described).names == ["x", "b"]
    assert {"TABLE", "VIEW"} <= set(plain.adbc_get_table_types())
    with plain.cursor() as cursor:
        cursor.adbc_prepare(f"SELECT x FROM {described}.v WHERE b = ?")
        cursor.execute(f"SELECT x FROM {described}.v WHERE b = ?", ["one"])
        assert cursor.fetchall() == [(1,)]


# Logins.


def query_of(sql: str) -> bytes:
    """A descriptor, as it is on the wire."""
    return field(1, 2) + field(2, packed("CommandStatementQuery", field(1, sql)))


def asked(caller: Caller, sql: str, metadata: tuple | None = None) -> grpc.StatusCode:
    return caller.call("GetFlightInfo", query_of(sql), metadata).code


@pytest.fixture
def bearer(server) -> str:
    with Caller(server) as caller:
        call = caller.begin("Handshake", [])
        list(call)
        return dict(call.initial_metadata())["authorization"]


LOGINS: dict[str, Callable[[str], tuple]] = {
    "bearer": lambda bearer: (("authorization", bearer),),
    "bearer, with a cookie": lambda bearer: (("authorization", bearer), ("cookie", "of=another")),
    "bearer in small letters": lambda bearer: (("authorization", bearer.replace("Bearer", "bearer")),),
    "bearer of the C++ client": lambda bearer: (("auth-token-bin", bearer.removeprefix("Bearer ").encode()),),
    "basic": lambda _: (("authorization", BASIC),),
    "basic without padding": lambda _: (("authorization", BASIC.rstrip("=")),),
}


@pytest.mark.parametrize("form", LOGINS)
def test_forms_of_logins(server, bearer, form):
    """On any call, and in a handshake, which answers a bearer token in its headers."""
    metadata = LOGINS[form](bearer)
    with Caller(server) as caller:
        assert asked(caller, "SELECT 1", metadata) is grpc.StatusCode.OK
        call = caller.begin("Handshake", [], metadata)
        (answer,) = call
        token = dict(call.initial_metadata())["authorization"]
        assert token == "Bearer " + bytes(parse(answer)[2]).decode()
        assert (token == bearer) is ("bearer" in form), "a login by token goes on with its session"
        assert asked(caller, "SELECT 1", (("authorization", token),)) is grpc.StatusCode.OK
        assert asked(caller, "SELECT 1", (("cookie", "of=another"),)) is grpc.StatusCode.UNAUTHENTICATED


def test_a_handshake_with_user_and_password_in_its_body(server):
    class Login(flight.ClientAuthHandler):
        def authenticate(self, outgoing, incoming):
            outgoing.write(flight.BasicAuth("root", ROOT_PASSWORD).serialize())
            self.token = incoming.read()

        def get_token(self):
            return self.token

    with flight.FlightClient(server.uri) as connection:
        connection.authenticate(Login())
        info = connection.get_flight_info(statement("SELECT 1 AS one"))
        assert connection.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"one": 1}]


def test_jdbc_logs_in_by_token(server, bearer):
    with java(server, user=None, password=None, token=bearer.removeprefix("Bearer ")) as connection:
        assert java_query(connection, "SELECT 42") == ["42"]


def test_one_token_is_one_session(server, raw, plain, numbers):
    """On whatever connection it comes; another login has a session of its own."""
    with flight.FlightClient(server.uri) as connection:
        twin = over(connection)
        twin.options = raw.options
        raw.query("BEGIN")
        raw.query(f"INSERT INTO {numbers} VALUES (1)")
        assert len(twin.query(f"SELECT x FROM {numbers}")) == 1
        assert count(plain, numbers) == 0
        twin.query("ROLLBACK")
        assert raw.query(f"SELECT x FROM {numbers}") == []


def test_calls_without_token_share_nothing(server, raw, numbers):
    """With user and password on each call, only a transaction's id leads to it."""
    with flight.FlightClient(server.uri) as connection:
        each = over(connection, (b"authorization", BASIC.encode()))
        transaction = each.begin()
        each.query(f"INSERT INTO {numbers} VALUES (1)", transaction)
        assert each.query(f"SELECT x FROM {numbers}") == []
        each.query(f"INSERT INTO {numbers} VALUES (2)")
        assert raw.query(f"SELECT x FROM {numbers}") == [{"x": 2}]
        each.end(transaction, ROLLBACK)
        assert each.query(f"SELECT x FROM {numbers}") == [{"x": 2}]
        for sql in ("BEGIN", "CREATE TEMPORARY TABLE t (x INT)"):
            with pytest.raises(pa.ArrowInvalid, match="session"):
                each.query(sql)


def test_a_cookie_keeps_a_session(server):
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: BASIC, DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true"}
    with adbc(server, **options) as connection:
        rows(connection, "BEGIN")
        rows(connection, "ROLLBACK")


# Headers.

ODD = {"database": "x", "schema": "needs", "ApplicationName": "DBeaver 24 – Main", "charset": "utf8", "host": "x.org",
       "content-type": "text/plain", "cookie": "a=b", "x-user": "someone", "retainCookies": "false", "accept": "x",
       "retainAuth": "false", "threadPoolSize": "2", "grpc-encoding": "gzip", "newline": "a\nb", "accented": "é❄",
       "expect": "100-continue", "origin": "x", "tls": "false", "username": "y", "auth-token": "x", "uid": "z",
       "range": "1", "trustStore": "/nowhere", "quotes": "\"';--", "percent": "%zz%00", "empty": "", "user-agent": "x",
       "autocommit": "false", "transaction": "true", "grpc-status": "5", "content-length": "5"}  # fmt: skip


def test_jdbc_may_send_whatever_is_in_its_url(server):
    """Properties that it does not know become headers."""
    many = {f"property{n}": "v" * 50 for n in range(400)}
    for properties in (ODD, many, {"long": "v" * 60_000}):
        with java(server, **properties) as connection:
            assert java_query(connection, "SELECT 42") == ["42"]
    with java(server, "&something=else&empty=&catalog=seracdb") as connection:
        assert java_query(connection, "SELECT 42") == ["42"]


def test_headers_of_64_kib(server, bearer):
    with Caller(server) as caller:
        for more in ((("x-long", "v" * 64_500),), tuple((f"x-{n}", "v" * 60) for n in range(600))):
            assert asked(caller, "SELECT 1", (("authorization", bearer), *more)) is grpc.StatusCode.OK


# Transactions.


def test_jdbc_begins_and_ends_by_text(server, plain, numbers):
    """Its own commit and rollback do nothing, which is why it is told that there are no transactions."""
    with jdbc(server.uri) as run:
        for sql in ("BEGIN", f"INSERT INTO {numbers} VALUES (1)", "SAVEPOINT a", f"INSERT INTO {numbers} VALUES (2)",
                    "ROLLBACK TO SAVEPOINT a"):  # fmt: skip
            assert run(sql).error is None
        assert count(plain, numbers) == 0
        run("COMMIT")
        assert count(plain, numbers) == 1
        run("BEGIN")
        run(f"DELETE FROM {numbers}")
        run("ROLLBACK")
    assert count(plain, numbers) == 1


def test_by_id_and_of_one_user(server, db, raw, numbers):
    db.run("CREATE USER passer_by WITH PASSWORD 'a quiet pass phrase' ROLE user")
    transaction = raw.begin()
    raw.query(f"INSERT INTO {numbers} VALUES (1)", transaction)
    with pytest.raises(pa.ArrowKeyError, match="no such transaction"):
        Raw(server, "passer_by", "a quiet pass phrase").end(transaction, COMMIT)
    savepoint = raw.savepoint(transaction, "here")
    raw.query(f"DELETE FROM {numbers}", transaction)
    raw.end_savepoint(savepoint, ROLLBACK)
    raw.end(transaction, COMMIT)
    assert raw.query(f"SELECT x FROM {numbers}") == [{"x": 1}]


# Cancelling.

LARGE = "SELECT value, repeat('x', 100) AS filler FROM generate_series(1, 40000000)"
ENDLESS = "SELECT sum(a.i % 7 + b.i) AS s FROM generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(i)"


@pytest.fixture
def runs(db) -> Callable[[str], bool]:
    """Whether a statement runs, as `system.queries` has it."""

    def look(sql: str) -> bool:
        found = db.query("SELECT count(*) AS n FROM system.queries WHERE state = 'running' AND statement = ?", [sql])
        return found["n"].to_pylist() != [0]

    return look


def test_adbc_cancels_while_it_reads(plain, runs):
    with plain.cursor() as cursor:
        cursor.execute(LARGE)
        batches = cursor.fetch_record_batch()
        batches.read_next_batch()
        assert runs(LARGE)
        cursor.adbc_cancel()
        with pytest.raises(Exception, match="(?i)cancel"):
            while True:
                batches.read_next_batch()
    until(lambda: not runs(LARGE), "the query ends")
    assert rows(plain, "SELECT 1") == [(1,)]


def test_adbc_cancels_before_the_first_row(plain, runs):
    failures: list[flightsql.Error] = []
    with plain.cursor() as cursor:

        def wait() -> None:
            try:
                cursor.execute(ENDLESS)
                cursor.fetchall()
            except flightsql.Error as error:
                failures.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        until(lambda: runs(ENDLESS), "it runs")
        cursor.adbc_cancel()
        waiting.join(20)
        assert [error.status_code for error in failures] == [Code.CANCELLED]
    until(lambda: not runs(ENDLESS), "the query ends")


def test_adbc_leaves_in_the_middle(plain, runs):
    for leave in (lambda cursor: cursor.close(), lambda cursor: cursor.execute("SELECT 1")):
        cursor = plain.cursor()
        cursor.execute(LARGE)
        cursor.fetchone()
        assert runs(LARGE)
        leave(cursor)
        until(lambda: not runs(LARGE), "the query ends")
        cursor.close()


def test_what_nobody_fetches_never_runs(raw, plain, runs):
    raw.connection.get_flight_info(statement(ENDLESS), raw.options)
    with plain.cursor() as cursor:
        cursor.adbc_execute_partitions(ENDLESS)
        assert not runs(ENDLESS)


@pytest.mark.parametrize("name", ["CancelFlightInfo", "CancelQuery"])
def test_an_action_cancels(raw, runs, name):
    info = raw.connection.get_flight_info(statement(LARGE), raw.options)
    ticket = info.endpoints[0].ticket
    reader = raw.connection.do_get(ticket, raw.options)
    reader.read_chunk()
    body = field(1, info.serialize())
    body = packed("ActionCancelQueryRequest", body) if name == "CancelQuery" else body
    answer = raw.act(name, body)
    answer = unpack(answer)[1] if name == "CancelQuery" else parse(answer)
    assert answer == {1: 1}, "cancelled"
    with pytest.raises(flight.FlightCancelledError):
        while True:
            reader.read_chunk()
    until(lambda: not runs(LARGE), "the query ends")
    with pytest.raises(pa.ArrowKeyError, match="no such ticket"):
        raw.connection.do_get(ticket, raw.options).read_all()
    with pytest.raises(pa.ArrowKeyError, match="no such statement"):
        raw.act(name, body)


# What is left behind.


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory) -> Iterator[Server]:
    """A server with little room and patience."""
    variables = {
        "SERACDB_AUTH__SESSIONS_MAX": "3",
        "SERACDB_AUTH__SESSION_IDLE_SECONDS": "4",
        "SERACDB_FLIGHT__TICKET_IDLE_SECONDS": "1",
        "SERACDB_FLIGHT__PREPARED_IDLE_SECONDS": "1",
    }
    with Server(tmp_path_factory.mktemp("forgetful") / "data", variables=variables) as running:
        yield running


def test_sessions_statements_and_tickets_end_and_logins_are_limited(forgetful):
    """A new login is refused rather than a live one ended; what nobody uses makes room."""
    first, others = Raw(forgetful), [Raw(forgetful) for _ in range(2)]
    with Caller(forgetful) as caller:
        refused = caller.call("Handshake", [])
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "auth.sessions_max" in refused.text
    handle = first.prepare("SELECT 1 AS one")
    ticket = first.connection.get_flight_info(statement("SELECT 1 AS one"), first.options).endpoints[0].ticket
    for _ in range(5):
        time.sleep(1)  # what passes without use of all but the first session
        assert first.query("SELECT 1 AS one") == [{"one": 1}]
    with pytest.raises(REFUSED, match="no such prepared statement"):
        first.schema(handle)
    with pytest.raises(REFUSED, match="no such ticket"):
        first.connection.do_get(ticket, first.options).read_all()
    for gone in others:
        with pytest.raises(flight.FlightUnauthenticatedError, match="session ended"):
            gone.query("SELECT 1")
    assert Raw(forgetful).query("SELECT 1 AS one") == [{"one": 1}]


# Sizes.


def columns(count: int, value: str) -> str:
    return ", ".join(f"{value} AS c{n}" for n in range(count))


TEXT = "repeat('x', 1000)"
WIDE = {
    "many columns": f"SELECT {columns(500, TEXT)} FROM generate_series(1, 100)",
    "many numbers": f"SELECT {columns(1000, 'value')} FROM generate_series(1, 3000)",
    "long texts": "SELECT repeat('y', 1000000) AS s FROM generate_series(1, 20)",
    "a long one among short ones": "SELECT CASE WHEN value % 1000 = 0 THEN repeat('q', 3000000) ELSE 'a' END AS s"
    " FROM generate_series(1, 6000)",
    "nested": "SELECT [value, value] AS l, named_struct('a', repeat('z', 500)) AS st FROM generate_series(1, 30000)",
    "bits": "SELECT value % 2 = 0 AS b, NULL AS n FROM generate_series(1, 1000000)",
}


@pytest.mark.parametrize("name", WIDE)
def test_no_message_is_larger_than_4_mib(server, name):
    """As it is on the wire, whatever its rows look like."""
    with Caller(server) as caller:
        info = caller.call("GetFlightInfo", query_of(WIDE[name]))
        ticket = parse(parse(info.message)[3])[1]
        sent = caller.call("DoGet", ticket)
        assert sent.code is grpc.StatusCode.OK
        assert max(map(len, sent.messages)) <= MESSAGE_BYTES_MAX


def test_adbc_reads_a_large_row_as_far_as_it_lets_itself(plain):
    """A single row is not split: 16 MiB are the driver's own limit."""
    ((text,),) = rows(plain, "SELECT repeat('y', 9000000)")
    assert len(text) == 9_000_000


def test_a_message_of_64_mib_is_taken(raw, db, numbers):
    table = numbers.replace(".n", ".big")
    db.run(f"CREATE TABLE {table} (b BYTEA)")
    options = field(1, field(1, 2) + field(2, 2))
    target = (options, field(2, "big"), field(3, table.split(".")[0]))
    taken = put(raw, "CommandStatementIngest", *target, data=pa.record_batch({"b": [b"x" * (63 << 20)]}))
    assert taken == {1: 1}
    db.run(f"DROP TABLE {table}")


# Endpoints.


@pytest.mark.parametrize("descriptor", [statement("SELECT 1"), command("CommandGetTables")], ids=["query", "metadata"])
def test_one_endpoint_in_order_where_it_was_asked_for(raw, descriptor):
    info = raw.connection.get_flight_info(descriptor, raw.options)
    (endpoint,) = info.endpoints
    assert endpoint.locations == []
    assert info.ordered
    # Of a query nobody knows how many rows it has; `ask` compares those of metadata.
    assert info.total_records == -1 or descriptor != statement("SELECT 1")


# Errors.

CODES: dict[str, tuple[str, grpc.StatusCode]] = {
    "syntax": ("SELEC", grpc.StatusCode.INVALID_ARGUMENT),
    "missing table": ("SELECT * FROM needs.none", grpc.StatusCode.NOT_FOUND),
    "missing column": ("SELECT none FROM needs.t", grpc.StatusCode.NOT_FOUND),
    "missing namespace": ("SELECT * FROM none.t", grpc.StatusCode.NOT_FOUND),
    "duplicate table": ("CREATE TABLE needs.t (a INT)", grpc.StatusCode.ALREADY_EXISTS),
    "duplicate namespace": ("CREATE NAMESPACE needs", grpc.StatusCode.ALREADY_EXISTS),
    "wrong value": ("SELECT CAST('x' AS INT)", grpc.StatusCode.INVALID_ARGUMENT),
    "division by zero": ("SELECT a / (a - a) FROM needs.t", grpc.StatusCode.INVALID_ARGUMENT),
    "wrong function": ("SELECT nothing(1)", grpc.StatusCode.INVALID_ARGUMENT),
    "over a limit": ("SELECT " + "(" * 10_000 + "1" + ")" * 10_000, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "not there yet": ("CREATE MATERIALIZED VIEW v AS SELECT 1", grpc.StatusCode.UNIMPLEMENTED),
}


def outcome(caller: Caller, sql: str) -> tuple[grpc.StatusCode, str]:
    """Of a statement that is planned, and fetched if that went well."""
    reply = caller.call("GetFlightInfo", query_of(sql))
    if reply.code is grpc.StatusCode.OK:
        reply = caller.call("DoGet", parse(parse(reply.message)[3])[1])
    return reply.code, reply.text


@pytest.mark.parametrize("name", CODES)
def test_codes_of_errors(tables, server, name):
    sql, code = CODES[name]
    with Caller(server) as caller:
        assert outcome(caller, sql)[0] is code


@pytest.mark.parametrize("sql", ["SELECT s ~ '(' FROM needs.t", "SELECT regexp_replace(s, '[', '') FROM needs.t"])
def test_a_wrong_regular_expression_is_the_clients(tables, server, sql):
    with Caller(server) as caller:
        assert outcome(caller, sql)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_wrong_argument_is_not_called_an_internal_error(tables, server):
    with Caller(server) as caller:
        assert "Internal" not in outcome(caller, "SELECT round('x', 1)")[1]


def test_the_code_of_a_conflict(server, raw, db, numbers):
    db.run(f"INSERT INTO {numbers} VALUES (1)")
    with Caller(server).login() as caller:
        begin = field(1, "BeginTransaction") + field(2, packed("ActionBeginTransactionRequest", b""))
        transaction = unpack(parse(caller.call("DoAction", begin).message)[1])[1][1]
        change = packed("CommandStatementQuery", field(1, f"UPDATE {numbers} SET x = 2"), field(2, transaction))
        assert caller.call("GetFlightInfo", field(1, 2) + field(2, change)).code is grpc.StatusCode.OK
        db.run(f"UPDATE {numbers} SET x = 3")
        end = packed("ActionEndTransactionRequest", field(1, transaction) + field(2, COMMIT))
        lost = caller.call("DoAction", field(1, "EndTransaction") + field(2, end))
        assert lost.code is grpc.StatusCode.ABORTED and numbers in lost.text


def test_the_codes_of_who_may_not(server, db):
    db.run("CREATE USER outsider WITH PASSWORD 'a quiet pass phrase' ROLE user")
    with Caller(server, basic("outsider", "a quiet pass phrase")) as caller:
        sql = "CREATE USER another WITH PASSWORD 'a quiet pass phrase' ROLE user"
        assert outcome(caller, sql)[0] is grpc.StatusCode.PERMISSION_DENIED
        assert outcome(caller, "DROP NAMESPACE needs CASCADE")[0] is grpc.StatusCode.PERMISSION_DENIED
    for metadata in ((), basic("outsider", "wrong"), (("authorization", "Bearer of nobody"),)):
        with Caller(server, metadata) as caller:
            assert outcome(caller, "SELECT 1")[0] is grpc.StatusCode.UNAUTHENTICATED


def test_who_cannot_connect_reads_what_is_missing(server):
    with pytest.raises(flightsql.Error, match="user and password") as refused:
        with flightsql.connect(server.uri, autocommit=True) as connection:
            rows(connection, "SELECT 1")
    assert refused.value.status_code == Code.UNAUTHENTICATED
    with java(server, user=None, password=None) as connection:
        with pytest.raises(jpype.java.sql.SQLException, match="user and password"):
            connection.createStatement().executeQuery("SELECT 1")


# Time zones.


def test_times_keep_their_zone_or_have_none(tables, plain, server):
    """A column with a zone is in UTC whatever zone its values came with; one without stays without."""
    with plain.cursor() as cursor:
        cursor.execute("SELECT ts, tz, max(tz), date_trunc('day', tz) FROM needs.t GROUP BY ts, tz")
        types = cursor.fetch_arrow_table().schema.types
        assert types == [pa.timestamp("us")] + [pa.timestamp("us", "UTC")] * 3
        cursor.execute("SELECT zone FROM needs.arrow")
        assert cursor.fetch_arrow_table().schema.types == [pa.timestamp("ms", "UTC")]
    with jdbc(server.uri) as run:
        assert run("SELECT ts, tz FROM needs.t").rows == [["2020-01-01T00:00:00", "2020-01-01T00:00:00Z"]]


@pytest.mark.parametrize("moment", ["now()", "to_timestamp('2020-01-01')", "TIMESTAMPTZ '2020-01-01T00:00:00+02:00'",
                                    "CAST('2020-01-01' AS TIMESTAMPTZ)", "COALESCE(tz, now())"])  # fmt: skip
def test_every_moment_is_labelled_utc(tables, raw, moment):
    (column,) = schema_in(prepared(raw, f"SELECT {moment} AS m FROM needs.t")[2])
    assert column.type.tz == "UTC"


# Options of a session.


def test_adbc_sets_and_erases_session_options(tables, plain):
    handle = plain.adbc_connection
    option = "adbc.flight.sql.session.option"
    assert handle.get_option("adbc.flight.sql.session.options") == '{"catalog":"seracdb","schema":"default"}'
    plain.adbc_current_db_schema = "needs"
    assert (plain.adbc_current_catalog, plain.adbc_current_db_schema, count(plain, "p")) == ("seracdb", "needs", 3)
    handle.set_options(**{"adbc.flight.sql.session.optionerase.schema": ""})
    assert handle.get_option(f"{option}.schema") == "default"
    rows(plain, "USE needs")
    assert handle.get_option(f"{option}.schema") == "needs"
    for name, wrong in (("schema", "invalid value"), ("catalog", "invalid value"), ("colour", "invalid name")):
        with pytest.raises(flightsql.Error, match=rf"'{name}' \({wrong}\)"):
            handle.set_options(**{f"{option}.{name}": "nowhere"})
    with pytest.raises(flightsql.Error) as unknown:
        handle.get_option(f"{option}.colour")
    assert unknown.value.status_code == Code.NOT_FOUND
    assert handle.get_option(f"{option}.schema") == "needs"


def test_each_session_option_has_an_error_of_its_own(tables, server):
    """And after the session was closed there is none of its kind."""
    with Caller(server).login() as caller:

        def act(name: str, *entries: tuple[str, bytes]) -> Any:
            body = b"".join(field(1, field(1, key) + field(2, value)) for key, value in entries)
            return caller.call("DoAction", field(1, name) + field(2, body))

        answer = act("SetSessionOptions", ("schema", field(1, "needs")), ("catalog", field(1, "x")), ("colour", b""))
        # catalog: invalid value; colour: invalid name.
        errors = parse(answer.message)[1]
        for name, code in (("catalog", 2), ("colour", 1)):
            assert field(1, field(1, name) + field(2, field(1, code))) in errors
        assert b"schema" not in bytes(errors)
        assert field(1, field(1, "schema") + field(2, field(1, "needs"))) in parse(act("GetSessionOptions").message)[1]
        assert act("CloseSession").code is grpc.StatusCode.OK
        for name in ("GetSessionOptions", "SetSessionOptions", "CloseSession"):
            assert act(name).code is grpc.StatusCode.NOT_FOUND
        assert asked(caller, "SELECT 1") is grpc.StatusCode.NOT_FOUND


def test_jdbc_sets_its_catalog(server):
    with java(server, catalog="seracdb") as connection:
        assert java_query(connection, "SELECT 42") == ["42"]
    with pytest.raises(jpype.java.sql.SQLException, match="(?i)catalog"), java(server, catalog="other"):
        pass


def test_options_need_a_session(server):
    with Caller(server) as caller:
        refused = caller.call("DoAction", field(1, "GetSessionOptions") + field(2, b""))
        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION and "Handshake" in refused.text
