"""Sessions of clients that send user and password with each call and keep cookies."""

from __future__ import annotations

import time
from collections.abc import Iterator

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from adbc_driver_flightsql import DatabaseOptions
from conftest import root
from raw_grpc import Caller, Metadata, basic
from test_transactions import REFUSED, Raw
from testserver import ROOT_PASSWORD, Server
from wire import field, packed, parse

NAME = "seracdb-session"
PASSWORD = "a quiet pass phrase"
BASIC = basic("root", ROOT_PASSWORD)
LOADED = pa.table({"x": [1, 2]})


def keeps_cookies(server: Server, autocommit: bool) -> flightsql.Connection:
    """The DBAPI with user and password on each call and no login."""
    options = {
        DatabaseOptions.AUTHORIZATION_HEADER.value: BASIC[0][1],
        DatabaseOptions.WITH_COOKIE_MIDDLEWARE.value: "true",
    }
    return flightsql.connect(server.uri, db_kwargs=options, autocommit=autocommit)


def run(connection: flightsql.Connection, sql: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


class Browser:
    """Calls with these headers, and with the cookie of the answer before."""

    def __init__(self, caller: Caller, headers: Metadata = BASIC):
        self.caller, self.headers = caller, headers
        self.cookie = self.handed = ""

    def call(self, method: str, message: bytes, *more: tuple[str, str]) -> tuple[grpc.StatusCode, str]:
        cookie = [("cookie", f"theme=dark; {self.cookie}")] if self.cookie else []
        call = self.caller.begin(method, message, (*self.headers, *cookie, *more))
        self.answers = []
        try:
            self.answers.extend(call)
        except grpc.RpcError:
            pass
        headers = dict(call.initial_metadata() or ()) | dict(call.trailing_metadata() or ())
        self.handed = headers.get("set-cookie", "")
        if self.handed:
            assert self.handed.startswith(NAME + "=")
            assert {"HttpOnly", "SameSite=Strict"} <= set(self.handed.split("; "))
            self.cookie = self.handed.split(";")[0]
        return call.code(), call.details() or ""

    def query(self, sql: str, *more: tuple[str, str]) -> grpc.StatusCode:
        """Plans a query and, if it is an update, runs it."""
        return self.call("GetFlightInfo", field(1, 2) + field(2, packed("CommandStatementQuery", field(1, sql))), *more)[0]

    def count(self, table: str, *more: tuple[str, str]) -> int:
        assert self.query(f"SELECT 1 FROM {table}", *more) is grpc.StatusCode.OK
        ticket = parse(parse(self.answers[0])[3])[1]
        self.call("DoGet", ticket, *more)
        # A schema, and a batch when there are rows; its header has their number.
        return sum(pa.ipc.read_message(message_of(data)).type == "record batch" for data in self.answers)

    def act(self, name: str, body: bytes = b"") -> grpc.StatusCode:
        return self.call("DoAction", field(1, name) + field(2, body))[0]


def message_of(flight_data: bytes) -> bytes:
    """A FlightData as a message of a stream."""
    parts = parse(flight_data)
    header = bytes(parts[2])
    header += b"\0" * (-len(header) % 8)
    return b"\xff\xff\xff\xff" + len(header).to_bytes(4, "little") + header + bytes(parts.get(1000, b""))


@pytest.fixture
def caller(server) -> Iterator[Caller]:
    with Caller(server) as caller:
        yield caller


@pytest.fixture
def numbers(db, namespace) -> str:
    db.run(f"CREATE TABLE {namespace}.n (x BIGINT)")
    return f"{namespace}.n"


def test_a_driver_that_keeps_cookies_has_a_session(server, db, numbers):
    namespace, table = numbers.split(".")
    with keeps_cookies(server, True) as connection, keeps_cookies(server, True) as other:
        run(connection, f"USE {namespace}")
        run(connection, "BEGIN")
        run(connection, "INSERT INTO n VALUES (1)")
        with connection.cursor() as cursor:
            assert cursor.adbc_ingest(table, LOADED, mode="append", db_schema_name=namespace) == 2
        run(connection, "CREATE TEMPORARY TABLE passing (x INT)")
        assert run(connection, "SELECT count(*) FROM n") == [(3,)]
        assert run(other, f"SELECT count(*) FROM {numbers}") == [(0,)]
        run(connection, "ROLLBACK")
        assert run(connection, "SELECT count(*) FROM n") == [(0,)]
        with pytest.raises(flightsql.Error, match="unknown table"):
            run(other, "SELECT * FROM n")
    assert db.query(f"SELECT * FROM {numbers}").num_rows == 0


def test_ingest_joins_the_open_transaction_of_a_cookies_session(server, db, numbers):
    namespace, table = numbers.split(".")
    with keeps_cookies(server, False) as connection:
        for end, left in ((connection.rollback, 0), (connection.commit, 2)):
            with connection.cursor() as cursor:
                assert cursor.adbc_ingest(table, LOADED, mode="append", db_schema_name=namespace) == 2
            assert db.query(f"SELECT * FROM {numbers}").num_rows == 0
            assert run(connection, f"SELECT count(*) FROM {numbers}") == [(2,)]
            end()
            assert db.query(f"SELECT * FROM {numbers}").num_rows == left


def test_a_transaction_begun_by_the_call_that_was_handed_the_cookie_is_the_sessions(server, db, numbers):
    """An ingest names none: it would stand by itself else."""

    class Keep(flight.ClientMiddleware):
        cookie = ""

        def received_headers(self, headers):
            for value in headers.get("set-cookie", []):
                Keep.cookie = value.split(";")[0]

        def sending_headers(self):
            return {"authorization": BASIC[0][1]} | ({"cookie": Keep.cookie} if Keep.cookie else {})

    class Factory(flight.ClientMiddlewareFactory):
        def start_call(self, info):
            return Keep()

    with flight.FlightClient(server.uri, middleware=[Factory()]) as connection:
        raw = object.__new__(Raw)
        raw.connection, raw.options = connection, flight.FlightCallOptions()
        transaction = raw.begin()
        namespace, table = numbers.split(".")
        target = field(2, table) + field(3, namespace)
        modes = field(1, field(1, 1) + field(2, 2))
        descriptor = flight.FlightDescriptor.for_command(packed("CommandStatementIngest", modes, target))
        writer, reader = connection.do_put(descriptor, LOADED.schema)
        with writer:
            writer.write_table(LOADED)
            writer.done_writing()
            assert parse(reader.read().to_pybytes()) == {1: 2}
        assert db.query(f"SELECT * FROM {numbers}").num_rows == 0
        raw.end(transaction, 1)
        assert db.query(f"SELECT * FROM {numbers}").num_rows == 2
        with pytest.raises(REFUSED, match="committed"):
            raw.query("SELECT 1", transaction)


def test_an_error_hands_out_a_cookie_too(caller):
    browser = Browser(caller)
    assert browser.query("BEGIN") is grpc.StatusCode.INVALID_ARGUMENT
    assert browser.handed
    assert browser.query("BEGIN") is grpc.StatusCode.OK
    assert not browser.handed, "one is enough"
    assert browser.query("ROLLBACK") is grpc.StatusCode.OK


def test_a_cookie_is_no_login(server, caller):
    browser = Browser(caller)
    browser.query("SELECT 1")
    cookie, value = ("cookie", browser.cookie), browser.cookie.split("=", 1)[1]
    browser.query("BEGIN")
    for headers in (
        (cookie,),
        (*basic("root", "wrong"), cookie),
        (*basic("nobody", ROOT_PASSWORD), cookie),
        (("authorization", f"Bearer {value}"),),
        (("authorization", f"Bearer {value}"), cookie),
    ):
        other = Browser(caller, headers)
        assert other.query("SELECT 1") is grpc.StatusCode.UNAUTHENTICATED
        assert not other.handed
    assert browser.query("ROLLBACK") is grpc.StatusCode.OK


def test_a_cookie_is_of_one_user(server, db, caller, numbers):
    db.run(f"CREATE USER second WITH PASSWORD '{PASSWORD}' ROLE service")
    db.run(f"GRANT SELECT ON {numbers} TO second")
    mine, theirs = Browser(caller), Browser(caller, basic("second", PASSWORD))
    mine.query("SELECT 1")
    mine.query("BEGIN")
    mine.query(f"INSERT INTO {numbers} VALUES (1)")
    theirs.cookie = mine.cookie
    assert theirs.count(numbers) == 0
    assert theirs.cookie != mine.cookie, "one of its own was handed out"
    assert (mine.count(numbers), mine.handed) == (1, "")
    assert theirs.query("BEGIN") is grpc.StatusCode.OK
    assert mine.query("ROLLBACK") is grpc.StatusCode.OK


@pytest.mark.parametrize("forged", ["x", "", "A" * 75, '"quoted"', "%00", "A" * 10_000])
def test_another_cookie_of_that_name_is_ignored(caller, forged):
    browser = Browser(caller)
    browser.cookie = f"{NAME}={forged}"
    assert browser.query("SELECT 1") is grpc.StatusCode.OK
    assert browser.handed
    assert browser.query("BEGIN") is grpc.StatusCode.OK
    assert browser.query("ROLLBACK") is grpc.StatusCode.OK


def test_a_token_comes_before_a_cookie(server, caller, numbers):
    browser = Browser(caller)
    browser.query("SELECT 1")
    browser.query("BEGIN")
    browser.query(f"INSERT INTO {numbers} VALUES (1)")
    with Caller(server).login() as logged_in:
        both = Browser(logged_in, logged_in.metadata)
        both.cookie = browser.cookie
        assert (both.count(numbers), both.handed) == (0, "")
    assert browser.count(numbers) == 1
    browser.query("ROLLBACK")


def test_a_session_is_closed_and_begun_again(caller, numbers):
    browser = Browser(caller)
    browser.query("SELECT 1")
    browser.query("BEGIN")
    browser.query(f"INSERT INTO {numbers} VALUES (1)")
    before = browser.cookie
    assert browser.act("GetSessionOptions") is grpc.StatusCode.OK
    assert browser.act("CloseSession") is grpc.StatusCode.OK
    assert browser.cookie == before
    assert browser.count(numbers) == 0, "what it had begun is gone"
    assert browser.cookie != before, "a closed session is not opened again"
    assert browser.query("ROLLBACK") is grpc.StatusCode.INVALID_ARGUMENT
    assert browser.query("BEGIN") is grpc.StatusCode.OK
    browser.query("ROLLBACK")


def test_calls_of_one_new_cookie_at_the_same_time_are_of_one_session(server, caller, numbers):
    browser = Browser(caller)
    browser.query("SELECT 1")
    wanted = (*BASIC, ("cookie", browser.cookie))
    message = field(1, 2) + field(2, packed("CommandStatementQuery", field(1, "BEGIN")))
    calls = [caller.begin("GetFlightInfo", message, wanted) for _ in range(8)]
    codes = []
    for call in calls:
        try:
            list(call)
        except grpc.RpcError:
            pass
        codes.append(call.code())
    assert codes.count(grpc.StatusCode.OK) == 1, codes
    assert browser.query("ROLLBACK") is grpc.StatusCode.OK


def test_clients_that_ignore_cookies_have_no_sessions(tmp_path):
    config = tmp_path / "seracdb.toml"
    config.write_text("[auth]\nsessions_max = 2\nsession_idle_seconds = 1\n")
    with Server(tmp_path / "data", args=["--config", str(config)]) as server, Caller(server) as caller:
        for _ in range(50):
            assert Browser(caller).query("SELECT 1") is grpc.StatusCode.OK
        one, two, three = Browser(caller), Browser(caller), Browser(caller)
        for browser in (one, two, three):
            browser.query("SELECT 1")
        assert one.query("BEGIN") is two.query("BEGIN") is grpc.StatusCode.OK
        # No live session makes room for another.
        assert three.query("SELECT 1") is grpc.StatusCode.RESOURCE_EXHAUSTED
        # One whose session has ended is not one that was never used.
        before = one.cookie
        time.sleep(3)
        assert one.query("SELECT 1") is grpc.StatusCode.OK
        assert one.handed and one.cookie != before
        assert one.query("BEGIN") is grpc.StatusCode.OK
        with root(server) as logged_in:
            assert logged_in.query("SELECT 1 AS one").num_rows == 1
