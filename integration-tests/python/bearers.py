"""Calls with a bearer token, by real drivers and raw, and streams that are to end when it does."""

from __future__ import annotations

import time
from collections.abc import Callable

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow.flight as flight
import pytest
from rawflight import statement
from test_client_rules import over
from test_transactions import Raw
from testserver import Server
from wire import field, packed

# Rows without an end, as far as a test is concerned.
ENDLESS = "SELECT value FROM generate_series(1, 1000000000000)"
# What runs ends within a second; the rest is for a busy machine.
SECONDS_MAX = 2.0


def header(token: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + token.encode()


def raw(server: Server, token: str) -> Raw:
    """Without a driver, the token on each call."""
    return over(flight.FlightClient(server.uri), header(token))


def adbc(server: Server, token: str, autocommit: bool = True) -> flightsql.Connection:
    options = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    return flightsql.connect(server.uri, db_kwargs=options, autocommit=autocommit)


def rows(connection: flightsql.Connection, sql: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def whoami(server: Server, token: str) -> str:
    """The user of a token, by what runs."""
    (row,) = raw(server, token).query("SELECT user_id FROM system.queries WHERE state = 'running' AND statement LIKE '%user_id FROM%' LIMIT 1")
    return row["user_id"]


def refused(server: Server, token: str) -> str:
    """The text by which a token is refused, the same on every way."""
    with pytest.raises(flight.FlightUnauthenticatedError) as first:
        raw(server, token).query("SELECT 1")
    with pytest.raises(flightsql.Error, match="UNAUTHENTICATED|Unauthenticated"):
        with adbc(server, token) as connection:
            rows(connection, "SELECT 1")
    return str(first.value).split(". ")[0].split(" gRPC")[0]


def start(connection: Raw, sql: str = ENDLESS) -> flight.FlightStreamReader:
    """A result of which the first rows have come."""
    info = connection.connection.get_flight_info(statement(sql), connection.options)
    reader = connection.connection.do_get(info.endpoints[0].ticket, connection.options)
    assert reader.read_chunk().data.num_rows > 0
    return reader


def execute(connection: Raw, handle: bytes) -> None:
    """Plans what was prepared, as any use of it does."""
    prepared = flight.FlightDescriptor.for_command(packed("CommandPreparedStatementQuery", field(1, handle)))
    connection.connection.get_flight_info(prepared, connection.options)


def ends(reader: flight.FlightStreamReader, cause: Callable[[], object]) -> None:
    """Reads on while `cause` happens, and is told soon why there is no more."""
    cause()
    began = time.monotonic()
    with pytest.raises(flight.FlightUnauthenticatedError, match="this login has ended"):
        while time.monotonic() - began < 30:
            reader.read_chunk()
    assert time.monotonic() - began < SECONDS_MAX
