"""Statements that come again: planned once, and again as soon as they mean something else."""

from __future__ import annotations

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import rawflight
from testserver import ROOT_PASSWORD
from wire import field, packed, unpack

SQL = "SELECT * FROM t ORDER BY 1"


def rows(connection, sql: str = SQL) -> list[dict]:
    """All columns but the system's."""
    table = connection.query(sql)
    return table.drop_columns([name for name in table.column_names if name.startswith("_")]).to_pylist()


def test_the_same_text_means_the_table_that_is_there_now(db, namespace):
    db.run(f"USE {namespace}")
    for columns, values, expected in [
        ("a BIGINT", "(1)", [{"a": 1}]),
        ("b TEXT, c DOUBLE", "('x', 0.5)", [{"b": "x", "c": 0.5}]),
        ("a TEXT", "('1')", [{"a": "1"}]),
    ]:
        db.run(f"CREATE TABLE t ({columns})")
        for _ in range(3):
            assert rows(db) == []
        db.run(f"INSERT INTO t VALUES {values}")
        for _ in range(3):
            assert rows(db) == expected
        db.run("STORAGE FLUSH TABLE t")
        assert rows(db) == expected
        db.run("DROP TABLE t")


def test_the_same_text_means_each_sessions_own_table(db, connect, namespace):
    other = connect()
    db.run(f"CREATE NAMESPACE {namespace}_b")
    for connection, schema in ((db, namespace), (other, f"{namespace}_b")):
        connection.run(f"USE {schema}")
        connection.run("CREATE TABLE t (a TEXT)")
        connection.run("INSERT INTO t VALUES (?)", [schema])
    for _ in range(2):
        assert rows(db) == [{"a": namespace}]
        assert rows(other) == [{"a": f"{namespace}_b"}]
    other.run(f"USE {namespace}")
    assert rows(other) == [{"a": namespace}]
    assert other.run("UPDATE t SET a = 'changed'") == 1
    assert rows(db) == [{"a": "changed"}]


def test_the_same_text_reads_each_users_own_rows(db, connect, namespace):
    db.run(f"CREATE USER TABLE {namespace}.t (a TEXT)")
    users = []
    for name in ("ann", "ben"):
        user = f"{namespace}_{name}"
        db.run(f"CREATE USER {user} WITH PASSWORD 'a quiet pass phrase' ROLE user")
        users.append((user, connect(user, "a quiet pass phrase")))
    for _ in range(2):
        for user, connection in users:
            connection.run(f"INSERT INTO {namespace}.t VALUES (?)", [user])
    for _ in range(2):
        for user, connection in users:
            assert rows(connection, f"SELECT a FROM {namespace}.t") == [{"a": user}] * 2
    assert users[0][1].run(f"DELETE FROM {namespace}.t WHERE a LIKE '%'") == 2
    assert rows(users[1][1], f"SELECT a FROM {namespace}.t") == [{"a": users[1][0]}] * 2


def test_the_same_text_sees_what_its_transaction_has_made(db, connect, namespace):
    sql = f"SELECT a FROM {namespace}.t ORDER BY a"
    db.run(f"CREATE TABLE {namespace}.t (a BIGINT)")
    db.run(f"INSERT INTO {namespace}.t VALUES (1)")
    other = connect()
    assert rows(db, sql) == rows(other, sql) == [{"a": 1}]
    db.run("BEGIN")
    db.run(f"INSERT INTO {namespace}.t VALUES (2)")
    assert rows(db, sql) == [{"a": 1}, {"a": 2}]
    assert rows(other, sql) == [{"a": 1}]
    db.run(f"DROP TABLE {namespace}.t")
    db.run(f"CREATE TABLE {namespace}.t (a TEXT)")
    db.run(f"INSERT INTO {namespace}.t VALUES ('x')")
    assert rows(db, sql) == [{"a": "x"}]
    assert rows(other, sql) == [{"a": 1}]
    db.run("ROLLBACK")
    assert rows(db, sql) == rows(other, sql) == [{"a": 1}]


def test_now_is_the_time_of_each_execution(db):
    times = {db.query("SELECT now() AS at").to_pylist()[0]["at"] for _ in range(3)}
    assert len(times) == 3


def test_a_prepared_statement_follows_its_table(server, db, namespace):
    db.run(f"CREATE TABLE {namespace}.t (a BIGINT)")
    db.run(f"INSERT INTO {namespace}.t VALUES (1)")
    with rawflight.client(server) as client:
        statement = Prepared(client, f"SELECT * FROM {namespace}.t WHERE '1' = '1'")
        assert statement.columns() == ["_id", "a", "_updated"]
        db.run(f"DROP TABLE {namespace}.t")
        with pytest.raises(pa.ArrowKeyError, match="unknown table"):
            statement.columns()
        db.run(f"CREATE TABLE {namespace}.t (b TEXT, c TEXT)")
        assert statement.columns() == ["_id", "b", "c", "_updated"]
        db.run(f"INSERT INTO {namespace}.t VALUES ('x', 'y')")
        assert statement.columns() == ["_id", "b", "c", "_updated"]


class Prepared:
    """A prepared statement, by hand."""

    def __init__(self, client: rawflight.Client, sql: str):
        self.client = client
        action = flight.Action("CreatePreparedStatement", packed("ActionCreatePreparedStatementRequest", field(1, sql)))
        (result,) = client.connection.do_action(action, client.options)
        _, fields = unpack(result.body.to_pybytes())
        command = packed("CommandPreparedStatementQuery", field(1, bytes(fields[1])))
        self.descriptor = flight.FlightDescriptor.for_command(command)

    def columns(self) -> list[str]:
        """The names of the columns, which GetSchema, GetFlightInfo and DoGet agree on."""
        connection, options = self.client.connection, self.client.options
        schema = connection.get_schema(self.descriptor, options).schema
        info = connection.get_flight_info(self.descriptor, options)
        table = connection.do_get(info.endpoints[0].ticket, options).read_all()
        assert schema.equals(info.schema, check_metadata=True) and table.schema.equals(schema, check_metadata=True)
        return table.column_names


def test_a_cursor_of_the_dbapi_follows_its_table(server, db, namespace):
    connection = flightsql.connect(
        server.uri, db_kwargs={"username": "root", "password": ROOT_PASSWORD}, autocommit=True
    )
    with connection, connection.cursor() as cursor:
        for columns, values, row in [("a BIGINT", "(1)", (1,)), ("a TEXT", "('x')", ("x",))]:
            db.run(f"CREATE TABLE {namespace}.t ({columns})")
            db.run(f"INSERT INTO {namespace}.t VALUES {values}")
            for _ in range(2):
                cursor.execute(f"SELECT a FROM {namespace}.t")
                assert cursor.fetchall() == [row]
            db.run(f"DROP TABLE {namespace}.t")
