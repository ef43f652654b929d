"""The SQL files of slt/ through ADBC and through Arrow's JDBC driver: what the Rust client answers, they answer too."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import adbc_driver_flightsql.dbapi as flightsql
import jpype
import numpy as np
import pytest
from slt import (
    Answer,
    float_text,
    interval_text,
    list_text,
    plain_text,
    records,
    struct_text,
    table_rows,
    timestamp_text,
    wrong,
)
from testserver import ROOT_PASSWORD, Server
from tours import jdbc_driver

FILES = sorted((Path(__file__).resolve().parent.parent / "slt").glob("*.slt"))
FLIGHT_ERROR = "org.apache.arrow.driver.jdbc.shaded.org.apache.arrow.flight.FlightRuntimeException"
#: Runs one statement or query.
Run = Callable[[str], Answer]
Connect = Callable[[str], AbstractContextManager[Run]]

UNSIGNED = "the driver reads unsigned numbers as signed ones, and does not say which are which"
MILLISECONDS = "the driver cuts times of day to milliseconds"
STRUCTS = "the driver's structs are maps: without the fields that are NULL, and with dates as mere numbers"
#: Right answers that a driver does not show as they are: by driver, file and SQL, why, and what it shows instead.
UNSHOWN = {
    ("jdbc", "insert", "SELECT i8, i16, i64, u8, u16, u32, u64 FROM small"): (
        UNSIGNED,
        ["-128 -32768 -9223372036854775808 0 0 0 0", "127 32767 9223372036854775807 -1 -1 -1 -1"],
    ),
    ("jdbc", "types_numbers", "SELECT k, i8, i16, i32, i64, u8, u16, u32, u64 FROM ints ORDER BY k"): (
        UNSIGNED,
        [
            "1 -128 -32768 -2147483648 -9223372036854775808 0 0 0 0",
            "2 127 32767 2147483647 9223372036854775807 -1 -1 -1 -1",
            "3 NULL NULL NULL NULL NULL NULL NULL NULL",
            "4 0 0 0 0 1 1 1 1",
            "5 NULL 1 NULL 1 NULL 1 NULL 1",
        ],
    ),
    (
        "jdbc",
        "types_numbers",
        "SELECT max(i8), min(i16), max(i32), min(i64), max(u8), max(u16), max(u32), max(u64) FROM ints",
    ): (UNSIGNED, ["127 -32768 2147483647 -9223372036854775808 -1 -1 -1 -1"]),
    ("jdbc", "types_time", "SELECT k, d, t, t9 FROM dates ORDER BY k"): (
        MILLISECONDS,
        [
            "1 2024-02-29 12:34:56 12:34:56",
            "2 0001-01-01 00:00:00 00:00:00",
            "3 9999-12-31 23:59:59.999 23:59:59.999",
            "4 NULL NULL NULL",
            "5 1969-12-31 01:02:03.500 01:02:03.123",
            "6 2024-06-01 00:00:00.001 NULL",
        ],
    ),
    ("jdbc", "types_time", "SELECT min(d), max(d), max(t) FROM dates"): (
        MILLISECONDS,
        ["0001-01-01 9999-12-31 23:59:59.999"],
    ),
    ("jdbc", "types_nested", "SELECT k, s, o, ls FROM structs ORDER BY k"): (
        STRUCTS,
        [
            "1 {x: 1, y: one} {i: {a: 10, b: true}, l: [1, 2]} [{p: 1.5, q: 19723}]",
            "2 {} {} []",
            "3 NULL NULL NULL",
            "4 {x: 4, y: four} {i: {}, l: []} [NULL, {}]",
            "5 {x: 5, y: a, {b: c}} NULL NULL",
        ],
    ),
    ("jdbc", "types_nested", "SELECT k, s FROM structs ORDER BY k"): (
        STRUCTS,
        ["1 {x: 2, y: ONE}", "2 {}", "3 NULL", "4 NULL", "5 NULL"],
    ),
}


@contextmanager
def adbc(uri: str) -> Iterator[Run]:
    """ADBC's DBAPI; not in one transaction as it is by default."""
    login = {"username": "root", "password": ROOT_PASSWORD}
    with flightsql.connect(uri, db_kwargs=login, autocommit=True) as connection:
        yield partial(execute, connection)


def execute(connection: flightsql.Connection, sql: str) -> Answer:
    """Whatever it is: the driver finds out whether there are rows."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(sql)
            if cursor.description:
                return Answer(rows=table_rows(cursor.fetch_arrow_table()))
            return Answer(count=cursor.rowcount)
        except flightsql.Error as error:
            return Answer(error=server_message(str(error)))


def server_message(message: str) -> str:
    """The server's part: ADBC says the code before, and after it the code and the call."""
    found = re.fullmatch(r"[A-Z_]+: \[FlightSQL\] (.*) \(\w+; [^()]*\)", message, re.DOTALL)
    return found[1] if found else message


@contextmanager
def jdbc(uri: str) -> Iterator[Run]:
    """Every statement by `execute`, as DBeaver does it."""
    start_java()
    login = jpype.java.util.Properties()
    login.put("user", "root")
    login.put("password", ROOT_PASSWORD)
    url = f"jdbc:arrow-flight-sql://{uri.removeprefix('grpc://')}/?useEncryption=false"
    connection = jpype.java.sql.DriverManager.getConnection(url, login)

    def run(sql: str) -> Answer:
        statement = connection.createStatement()
        try:
            if statement.execute(sql):
                return Answer(rows=jdbc_rows(statement.getResultSet()))
            return Answer(count=int(statement.getLargeUpdateCount()))
        except jpype.java.sql.SQLException as error:
            return Answer(error=str(error.getMessage()).removeprefix(f'Error while executing SQL "{sql}": '))
        except jpype.JClass(FLIGHT_ERROR) as error:
            # Among the rows the driver lets it through as it is.
            return Answer(error=str(error.status().description()))
        finally:
            statement.close()

    try:
        yield run
    finally:
        connection.close()


def start_java() -> None:
    """One JVM for all tests: a process can have no second one."""
    if jpype.isJVMStarted():
        return
    options = ["--add-opens=java.base/java.nio=ALL-UNNAMED", "-Duser.timezone=UTC", "-Xmx512m", "-Xrs"]
    jpype.startJVM(*options, classpath=[str(jdbc_driver())])
    # As Python had them: the servers that other tests start inherit what is ignored, but not Java's handlers.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)


def jdbc_rows(result: Any) -> list[list[str]]:
    """All rows of a result as Arrow displays them."""
    columns = result.getMetaData()
    types = [columns.getColumnType(i) for i in range(1, columns.getColumnCount() + 1)]
    rows = []
    while result.next():
        rows.append([jdbc_text(result, i, kind) for i, kind in enumerate(types, 1)])
    # Of a list too: what it holds is not freed with the result that it is in.
    result.close()
    return rows


def jdbc_text(result: Any, i: int, kind: int) -> str:
    """One value of the row that `result` is at."""
    types, time = jpype.java.sql.Types, jpype.java.time
    # By their classes: of times with a zone getObject alone says "not implemented", and java.sql.Timestamp has gaps.
    if kind == types.TIMESTAMP_WITH_TIMEZONE:
        return java_text(result.getObject(i, time.Instant))
    if kind == types.TIMESTAMP:
        return java_text(result.getObject(i, time.LocalDateTime))
    value = result.getObject(i)
    if value is not None and kind == types.FLOAT:
        # The driver widens it.
        return float_text(np.float32(value))
    return java_text(value)


def java_text(value: Any) -> str:
    """A Java object as Arrow displays what it was made from."""
    java = jpype.java
    if value is None:
        return "NULL"
    if isinstance(value, java.lang.Boolean):
        return plain_text(bool(value))
    if isinstance(value, (java.lang.Float, java.lang.Double)):
        return float_text(float(value) if isinstance(value, java.lang.Double) else np.float32(value))
    if isinstance(value, java.math.BigDecimal):
        return str(value.toPlainString())
    if isinstance(value, java.time.LocalDateTime):
        seconds = value.toEpochSecond(java.time.ZoneOffset.UTC)
        return timestamp_text(int(seconds) * 10**9 + int(value.getNano()))
    if isinstance(value, java.time.Instant):
        return timestamp_text(int(value.getEpochSecond()) * 10**9 + int(value.getNano())) + "Z"
    if isinstance(value, jpype.JArray(jpype.JByte)):
        return bytes(value).hex()
    if isinstance(value, java.sql.Array):
        return list_text([item for [item] in jdbc_rows(value.getResultSet())])
    if isinstance(value, java.util.List):
        return list_text([java_text(item) for item in value])
    if isinstance(value, java.util.Map):
        return struct_text([(str(key), java_text(value.get(key))) for key in value.keySet()])
    if value.getClass().getSimpleName() == "PeriodDuration":
        period = value.getPeriod()
        return interval_text(int(period.toTotalMonths()), int(period.getDays()), int(value.getDuration().toNanos()))
    return str(value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("connect", [adbc, jdbc], ids=lambda connect: connect.__name__)
def test_file(connect: Connect, file: Path, own_server: Server, subtests: pytest.Subtests) -> None:
    unshown = {sql: why for (*at, sql), why in UNSHOWN.items() if at == [connect.__name__, file.stem]}
    failures = []
    with connect(own_server.uri) as run:
        for record in records(file):
            reason, shown = unshown.pop(record.sql, (None, record.rows))
            if said := wrong(replace(record, rows=shown), run(record.sql)):
                failures.append(f"line {record.line}: {record.sql}\n{said}")
            elif reason:
                with subtests.test():
                    pytest.skip(f"{file.name}:{record.line}: {reason}")
    assert not failures, f"{len(failures)} records of {file.name}:\n" + "\n\n".join(failures)
    assert not unshown, f"{file.name} no longer has {list(unshown)}"
