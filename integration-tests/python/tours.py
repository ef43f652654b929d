"""The same tour through each driver: what a user does between connecting and closing, step by step.

A tour gets the address to connect to, and a function that it calls with the name of each step before it does it. It
fails when an answer is wrong: what is recorded must be what works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import seracdb
from testserver import ROOT_PASSWORD, binary
from wire import field, packed, unpack

TESTS = Path(__file__).resolve().parent.parent
JDBC_DRIVER = "flight-sql-jdbc-driver-18.3.0.jar"
PROCESS_SECONDS = 300

Step = Callable[[str], None]
Tour = Callable[[str, Step], None]

CREATE = "CREATE TABLE tour.points (x BIGINT NOT NULL, label TEXT)"
INSERT = "INSERT INTO tour.points (x, label) VALUES (?, ?)"
SELECT = "SELECT x, label FROM tour.points WHERE x >= ? ORDER BY x"
UPDATE = "UPDATE tour.points SET label = 'z' WHERE x > 1"
COUNT = "SELECT count(*) AS n FROM tour.points"
MISSING = "SELECT * FROM tour.pionts"
MORE = pa.table({"x": pa.array([10, 11], pa.int64()), "label": ["j", "k"]})


def adbc(uri: str, step: Step) -> None:
    """ADBC's DBAPI as it is by default: always in a transaction."""
    step("connect")
    with flightsql.connect(uri, db_kwargs={"username": "root", "password": ROOT_PASSWORD}) as connection:
        with connection.cursor() as cursor:
            step("create table")
            cursor.execute("CREATE NAMESPACE tour")
            cursor.execute(CREATE)
            connection.commit()
            step("insert with parameters")
            cursor.execute(INSERT, [1, "a"])
            assert cursor.rowcount == 1
            cursor.executemany(INSERT, [(2, "b"), (3, "c")])
            assert cursor.rowcount == 2
            step("query with parameters")
            cursor.execute(SELECT, [2])
            assert cursor.fetchall() == [(2, "b"), (3, "c")]
            step("update")
            cursor.execute(UPDATE)
            assert cursor.rowcount == 2
            step("ingest")
            assert cursor.adbc_ingest("points", MORE, mode="append", db_schema_name="tour") == 2
            connection.commit()
            adbc_metadata(connection, step)
            step("error")
            with pytest.raises(flightsql.ProgrammingError, match="pionts"):
                cursor.execute(MISSING)
            step("transaction")
            connection.rollback()
            cursor.execute("INSERT INTO tour.points (x) VALUES (20)")
            connection.rollback()
            cursor.execute(COUNT)
            assert cursor.fetchall() == [(5,)]
            connection.commit()
        adbc_session(connection, step)
        step("close")


def adbc_metadata(connection: flightsql.Connection, step: Step) -> None:
    step("catalogs, schemas, tables, columns")
    listed = connection.adbc_get_objects(depth="all", db_schema_filter="tour").read_all().to_pylist()
    (schema,) = listed[0]["catalog_db_schemas"]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["points"]
    step("schema of a table")
    assert "label" in connection.adbc_get_table_schema("points", db_schema_filter="tour").names
    step("table types")
    assert "TABLE" in connection.adbc_get_table_types()
    step("about the server")
    assert connection.adbc_get_info()["vendor_name"] == "SeracDB"


def adbc_session(connection: flightsql.Connection, step: Step) -> None:
    step("session options")
    connection.adbc_current_db_schema = "tour"
    assert (connection.adbc_current_catalog, connection.adbc_current_db_schema) == ("seracdb", "tour")


def client(uri: str, step: Step) -> None:
    """The package of clients/python: each statement by itself, and updates on the update path."""
    step("connect")
    with seracdb.connect(uri, "root", ROOT_PASSWORD) as db:
        step("create table")
        db.run("CREATE NAMESPACE tour")
        db.run(CREATE)
        step("insert with parameters")
        assert db.run(INSERT, [1, "a"]) == 1
        assert db.run(INSERT, pa.table({"x": [2, 3], "label": ["b", "c"]})) == 2
        step("query with parameters")
        assert db.query(SELECT, [2]).num_rows == 2
        step("update")
        assert db.run(UPDATE) == 2
        step("ingest")
        assert db.ingest("tour.more", MORE, mode="create") == 2
        step("error")
        with pytest.raises(seracdb.ProgrammingError, match="pionts"):
            db.query(MISSING)
        step("transaction")
        db.run("BEGIN")
        db.run("INSERT INTO tour.points (x) VALUES (20)")
        db.run("ROLLBACK")
        assert db.query(COUNT).to_pylist() == [{"n": 3}]
        step("close")


class Raw:
    """Flight SQL by hand on pyarrow's connection."""

    def __init__(self, connection: flight.FlightClient):
        self.connection = connection
        self.options = flight.FlightCallOptions(headers=[connection.authenticate_basic_token("root", ROOT_PASSWORD)])

    def query(self, name: str, *fields: bytes) -> pa.Table:
        descriptor = flight.FlightDescriptor.for_command(packed(name, *fields))
        (endpoint,) = self.connection.get_flight_info(descriptor, self.options).endpoints
        return self.connection.do_get(endpoint.ticket, self.options).read_all()

    def put(self, rows: pa.Table | None, name: str, *fields: bytes) -> bytes:
        descriptor = flight.FlightDescriptor.for_command(packed(name, *fields))
        writer, reader = self.connection.do_put(descriptor, rows.schema if rows else pa.schema([]), self.options)
        with writer:
            if rows:
                writer.write_table(rows)
            writer.done_writing()
            return reader.read().to_pybytes()

    def action(self, name: str, body: bytes) -> bytes:
        results = list(self.connection.do_action(flight.Action(name, body), self.options))
        return results[0].body.to_pybytes() if results else b""

    @contextmanager
    def prepared(self, sql: str) -> Iterator[bytes]:
        body = self.action("CreatePreparedStatement", packed("ActionCreatePreparedStatementRequest", field(1, sql)))
        handle = field(1, bytes(unpack(body)[1][1]))
        yield handle
        self.action("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", handle))

    def begin(self) -> bytes:
        body = self.action("BeginTransaction", packed("ActionBeginTransactionRequest"))
        return bytes(unpack(body)[1][1])

    def end(self, transaction: bytes, action: int) -> None:
        self.action("EndTransaction", packed("ActionEndTransactionRequest", field(1, transaction), field(2, action)))


def pyarrow(uri: str, step: Step) -> None:
    """pyarrow.flight without a driver, with most of the commands that there are."""
    step("connect")
    with flight.FlightClient(uri) as connection:
        raw = Raw(connection)
        step("create table")
        raw.put(None, "CommandStatementUpdate", field(1, "CREATE NAMESPACE tour"))
        raw.put(None, "CommandStatementUpdate", field(1, CREATE))
        pyarrow_statements(raw, step)
        step("ingest")
        options = field(1, 2) + field(2, 2)
        raw.put(MORE, "CommandStatementIngest", field(1, options), field(2, "points"), field(3, "tour"))
        pyarrow_metadata(raw, step)
        step("error")
        with pytest.raises(pa.ArrowKeyError, match="pionts"):
            raw.query("CommandStatementQuery", field(1, MISSING))
        pyarrow_transaction(raw, step)
        step("session options")
        raw.action("SetSessionOptions", field(1, field(1, "schema") + field(2, field(1, "tour"))))
        assert b"tour" in raw.action("GetSessionOptions", b"")
        step("close")
        raw.action("CloseSession", b"")


def pyarrow_statements(raw: Raw, step: Step) -> None:
    step("insert with parameters")
    with raw.prepared(INSERT) as insert:
        raw.put(pa.table({"x": [1, 2, 3], "label": ["a", "b", "c"]}), "CommandPreparedStatementUpdate", insert)
    step("query with parameters")
    with raw.prepared(SELECT) as select:
        raw.put(pa.table({"x": [2]}), "CommandPreparedStatementQuery", select)
        assert raw.query("CommandPreparedStatementQuery", select).num_rows == 2
    step("update")
    raw.put(None, "CommandStatementUpdate", field(1, UPDATE))
    step("update on the query path")
    assert raw.query("CommandStatementQuery", field(1, UPDATE)).num_rows == 1


def pyarrow_metadata(raw: Raw, step: Step) -> None:
    table = (field(2, "tour"), field(3, "points"))
    for heading, command, *fields in [
        ("catalogs", "CommandGetCatalogs"),
        ("schemas", "CommandGetDbSchemas", field(2, "tour")),
        ("tables", "CommandGetTables", *table),
        ("columns", "CommandGetTables", *table, field(5, True)),
        ("table types", "CommandGetTableTypes"),
        ("primary key", "CommandGetPrimaryKeys", *table),
        ("foreign keys", "CommandGetImportedKeys", *table),
        ("types", "CommandGetXdbcTypeInfo"),
        ("about the server", "CommandGetSqlInfo", field(1, b"\x00\x08")),
    ]:
        step(heading)
        assert (raw.query(command, *fields).num_rows > 0) is (heading != "foreign keys"), heading


def pyarrow_transaction(raw: Raw, step: Step) -> None:
    step("transaction")
    for action, rows in [(2, 5), (1, 6)]:
        transaction = raw.begin()
        sql = "INSERT INTO tour.points (x) VALUES (20)"
        raw.put(None, "CommandStatementUpdate", field(1, sql), field(2, transaction))
        raw.end(transaction, action)
        assert raw.query("CommandStatementQuery", field(1, COUNT)).to_pylist() == [{"n": rows}]


def shell(uri: str, step: Step) -> None:
    """The Rust client as `seracdb sql` uses it: one session per command."""

    def run(heading: str, script: str, code: int = 0) -> str:
        step(heading)
        command = [binary(), "sql", "--uri", uri, "--user", "root", "--format", "csv", "-c", script]
        variables = os.environ | {"SERACDB_PASSWORD": ROOT_PASSWORD}
        ran = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PROCESS_SECONDS)
        assert ran.returncode == code, ran.stderr
        return ran.stdout + ran.stderr

    run("create table", f"CREATE NAMESPACE tour; {CREATE}")
    run("insert", "INSERT INTO tour.points (x, label) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    assert "2,b" in run("query", "SELECT x, label FROM tour.points ORDER BY x")
    run("update", UPDATE)
    assert "tour" in run("schemas", "\\dn")
    assert "points" in run("tables", "\\d")
    assert "label" in run("columns", "\\d tour.points")
    assert "pionts" in run("error", MISSING, code=1)
    insert = "INSERT INTO tour.points (x) VALUES (20)"
    assert "\n3\n" in run("transaction", f"BEGIN; {insert}; ROLLBACK; {COUNT}")


def go(uri: str, step: Step) -> None:
    """ADBC's Go driver; the tour is integration-tests/go/tour."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "tour")
        build = [tool("go"), "build", "-o", program, "./tour"]
        subprocess.run(build, cwd=TESTS / "go", check=True, timeout=PROCESS_SECONDS)
        follow([program], uri, step)


def jdbc(uri: str, step: Step) -> None:
    """Arrow's JDBC driver; the tour is integration-tests/jdbc/tour."""
    source = TESTS / "jdbc" / "tour" / "Tour.java"
    java = [tool("java"), "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp", str(jdbc_driver()), str(source)]
    follow(java, uri, step)


def jdbc_driver() -> Path:
    """The driver's jar, from Maven's registry."""
    folder = TESTS / "jdbc" / "target" / "driver"
    if not (folder / JDBC_DRIVER).exists():
        artifact = "org.apache.arrow:flight-sql-jdbc-driver:18.3.0"
        copy = ["dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
        subprocess.run([tool("mvn"), "-B", "-q", *copy], cwd=TESTS / "jdbc", check=True, timeout=PROCESS_SECONDS)
    return folder / JDBC_DRIVER


def tool(name: str) -> str:
    """A program on PATH, or in the venv that runs this."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    found = shutil.which(name, path=path)
    assert found, f"{name} is missing: make setup installs it"
    return found


def follow(command: list[str], uri: str, step: Step) -> None:
    """Runs a tour in a process of its own: it prints each step's name and waits for a line before it goes on."""
    variables = os.environ | {"SERACDB_URI": uri, "SERACDB_USER": "root", "SERACDB_PASSWORD": ROOT_PASSWORD}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=variables, **pipes) as process, expiring(process):
        assert process.stdin and process.stdout
        for line in process.stdout:
            step(line.strip())
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0, f"the tour ended with {process.returncode}; its errors are above"


@contextmanager
def expiring(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kills a process that hangs."""
    timer = threading.Timer(PROCESS_SECONDS, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


TOURS: dict[str, Tour] = {
    "adbc-python": adbc,
    "seracdb-python": client,
    "adbc-go": go,
    "jdbc": jdbc,
    "pyarrow-flight": pyarrow,
    "rust-shell": shell,
}
