"""What a client may take of connections, and that one that is slow, stuck or hostile takes nothing from others."""

from __future__ import annotations

import resource
import socket
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
import rawflight
import seracdb
from conftest import root
from http2 import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Line,
    dial,
    is_open,
)
from raw_grpc import Caller, basic, frame
from test_fuzz import ipc, of_command, stream
from test_lockout import from_elsewhere
from test_long_queries import LARGE
from testserver import ROOT_PASSWORD, Server, make_certificates, tls_args
from watching import wait_until
from wire import field, packed, parse

STUCK = 200
LIMITS = "SERACDB_LIMITS__"
REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11
BATCH = pa.record_batch({"a": [1, 2, 3]})
APPEND = packed("CommandStatementIngest", field(1, field(1, 2) + field(2, 2)), field(2, "filled"))


def limited(folder: Path, args: list[str] | None = None, **limits: int) -> Server:
    """A server with these limits."""
    variables = {LIMITS + name.upper(): str(value) for name, value in limits.items()}
    return Server(folder / "data", args=args, variables=variables)


def works(server: Server) -> None:
    with root(server) as db:
        assert db.query("SELECT 42 AS answer")["answer"].to_pylist() == [42]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls"))


# Who does not come to the point.

FIRST_BYTES = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "the first byte of TLS": b"\x16",
}


@pytest.mark.parametrize("port", ["plain", "TLS"])
def test_a_client_that_does_not_say_what_it_wants_is_dropped(tmp_path, certificates, port):
    args = tls_args(certificates) if port == "TLS" else None
    with limited(tmp_path, args, handshake_seconds=2) as server, ExitStack() as opened:
        began = time.monotonic()
        sockets = []
        for first in FIRST_BYTES.values():
            # What is wrong from its first byte on is not waited for.
            if (first[:1] == b"\x16") is (port == "TLS") or not first:
                sockets.append(opened.enter_context(dial(server)))
                sockets[-1].sendall(first)
        if port == "TLS":
            for first in (b"", PREFACE[:23]):
                sockets.append(opened.enter_context(dial(server, trust=certificates)))
                sockets[-1].sendall(first)
        else:
            sockets.append(opened.enter_context(dial(server)))
            sockets[-1].sendall(PREFACE[:23])
        for connection in sockets:
            assert connection.recv(1 << 10) == b""
        assert 1.5 < time.monotonic() - began < 15
        assert "did not say what it wants within 2 s" in server.log()


@pytest.mark.parametrize(
    "first,said",
    [(b"\x16\x03\x01\x02\x00\x01", "speaks TLS"), (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "does not speak HTTP/2")],
    ids=["TLS", "HTTP/1.1"],
)
def test_who_speaks_something_else_is_turned_away_at_once(tmp_path, first, said):
    with limited(tmp_path, handshake_seconds=60) as server:
        with dial(server) as connection:
            began = time.monotonic()
            connection.sendall(first)
            assert closed(connection)
            assert time.monotonic() - began < 5
        wait_until(lambda: said in server.log(), 10)
        works(server)


def closed(connection: socket.socket) -> bool:
    """Waits for its end."""
    try:
        while connection.recv(1 << 10):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_flood_of_them_does_not_fill_the_log(tmp_path):
    with limited(tmp_path) as server:
        for _ in range(10):
            # Somebody who looks whether it listens.
            dial(server).close()
        works(server)
        assert "a connection was refused" not in server.log()
        for _ in range(300):
            with dial(server) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert closed(connection)
        assert 1 <= server.log().count("a connection was refused") < 30
        works(server)


# How many.


def test_connections_of_one_address_are_limited(tmp_path):
    with limited(tmp_path, connections_address_max=5) as server, ExitStack() as opened:
        lines = [opened.enter_context(Line(server)) for _ in range(5)]
        for line in lines:
            assert next(line.frames()).kind == SETTINGS
        with dial(server) as sixth:
            assert closed(sixth)
        # Another address has seats of its own.
        with Line(server, source="127.0.0.2") as other:
            assert next(other.frames()).kind == SETTINGS
        wait_until(lambda: "connections_address_max" in server.log(), 10)
        lines.pop().close()
        wait_until(lambda: gets_in(server), 10)
        for line in lines:
            line.close()
        wait_until(lambda: answers(server), 10)


def test_connections_are_limited_in_all(tmp_path):
    with limited(tmp_path, connections_max=4, connections_address_max=3) as server, ExitStack() as opened:
        for source in ("127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.4"):
            line = opened.enter_context(Line(server, source=source))
            assert next(line.frames()).kind == SETTINGS
        with dial(server, source="127.0.0.5") as fifth:
            assert closed(fifth)
        wait_until(lambda: "connections_max" in server.log(), 10)
        opened.close()
        wait_until(lambda: answers(server), 10)


def gets_in(server: Server) -> bool:
    with Line(server) as line:
        return next(line.frames(), None) is not None


def answers(server: Server) -> bool:
    try:
        works(server)
        return True
    except seracdb.Error:
        return False


def test_stalled_handshakes_have_seats_too(tmp_path, certificates):
    """Or whoever never gets to the end of one would have as many as it likes."""
    with limited(tmp_path, tls_args(certificates), connections_address_max=3, handshake_seconds=60) as server:
        with ExitStack() as opened:
            for _ in range(3):
                opened.enter_context(dial(server)).sendall(b"\x16")
            time.sleep(0.5)  # until they are there
            with dial(server) as fourth:
                assert closed(fourth)


def test_more_connections_than_files_are_not_taken(tmp_path):
    """The storage needs files too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        server = limited(tmp_path, connections_max=4000)
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as opened:
        opened.push(server)
        assert "takes 200 connections" in server.log()
        lines = [opened.enter_context(dial(server)) for _ in range(300)]
        wait_until(lambda: sum(not is_open(line) for line in lines) >= 100, 20)
        for line in lines:
            line.close()
        wait_until(lambda: answers(server), 10)
        with root(server) as db:
            db.run("CREATE TABLE t (x BIGINT)")
            db.run("INSERT INTO t VALUES (1)")
            db.run("STORAGE FLUSH TABLE t")
            assert db.query("SELECT x FROM t").num_rows == 1


# What one connection may take.


def test_calls_at_a_time_on_one_connection(tmp_path):
    with limited(tmp_path, streams_max=3) as server, Line(server) as line:
        settings = next(line.frames()).payload
        told = {settings[at + 1]: int.from_bytes(settings[at + 2 : at + 6], "big") for at in range(0, len(settings), 6)}
        assert told[3] == 3
        for number in range(4):
            line.begin(2 * number + 1, "DoPut")
        reset = next(got for got in line.frames() if got.kind == RST_STREAM)
        assert reset.stream == 7 and int.from_bytes(reset.payload, "big") == REFUSED_STREAM
        # A client that keeps to it waits for its turn.
        with Caller(server) as caller:
            blocked = threading.Event()
            calls = [caller.begin("DoPut", until_set(blocked)) for _ in range(3)]
            late = caller.begin("ListActions", b"", seconds=30)
            time.sleep(1)  # in which it would have got its answer
            assert not late.done()
            blocked.set()
            assert list(late)
            for call in calls:
                call.cancel()


def until_set(event: threading.Event) -> Iterator[bytes]:
    """No message, and an end when the event is set."""
    event.wait()
    yield from ()


@pytest.mark.parametrize("method", ["GetFlightInfo", "DoGet", "DoAction", "DoPut", "ListFlights"])
def test_who_cannot_log_in_sends_no_messages(server, method):
    """The answer is there when nothing of the message is."""
    for metadata in ((), basic("root", "wrong"), (("authorization", "Bearer made-up"),)):
        with Line(server) as line:
            line.begin(1, method, metadata)
            end = next(got for got in line.frames() if got.stream == 1 and got.flags & END_STREAM)
            assert end.kind == HEADERS
    with Caller(server, ()) as caller:
        reply = caller.call("Handshake", [field(2, b"x" * (1 << 20))])
        assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED, reply


def test_a_connection_that_breaks_its_calls_ends(server):
    """Each of them costs the server more than its client."""
    with Line(server) as line:
        try:
            for number in range(1200):
                line.begin(2 * number + 1, "DoPut")
                line.socket.sendall(frame(WINDOW_UPDATE, 0, 2 * number + 1, (0x7FFFFFFF).to_bytes(4, "big")))
            ended = next(got for got in line.frames() if got.kind == GOAWAY)
            assert int.from_bytes(ended.payload[4:8], "big") == ENHANCE_YOUR_CALM
        except (BrokenPipeError, ConnectionResetError):
            # It was closed before all of them were sent, and what the server said last is lost with it.
            pass
    works(server)


def test_headers_of_a_call(tmp_path):
    with limited(tmp_path, header_bytes_max=4096) as server:
        with Caller(server) as caller:
            assert caller.call("ListActions", b"").code is grpc.StatusCode.OK
            more = (*basic("root", ROOT_PASSWORD), ("x-long", "v" * 2000))
            assert caller.call("ListActions", b"", more).code is grpc.StatusCode.OK
            too_many = (*basic("root", ROOT_PASSWORD), ("x-long", "v" * 8000))
            assert caller.call("ListActions", b"", too_many).code is not grpc.StatusCode.OK


def test_an_old_connection_is_asked_to_end(tmp_path):
    with limited(tmp_path, connection_seconds_max=2) as server:
        with Line(server) as line:
            began = time.monotonic()
            told = [got for got in line.frames() if got.kind == GOAWAY]
            assert 1.5 < time.monotonic() - began < 15
            assert told and all(int.from_bytes(got.payload[4:8], "big") == 0 for got in told), told
        # What runs goes on to its end; clients connect again and do not even notice. On a connection of its own: h2 ends one with
        # all of its calls when another is begun at the very moment at which it is asked to end.
        with (
            rawflight.client(server, own=True) as client,
            rawflight.client(server, own=True) as another,
            root(server) as db,
            Caller(server, resends=True) as caller,
        ):
            caller.login()
            reader = client.start(LARGE)
            rows = reader.read_chunk().data.num_rows
            end = time.monotonic() + 6
            while time.monotonic() < end:
                assert db.query("SELECT 1 AS one").num_rows == 1
                assert caller.call("ListActions", b"").code is grpc.StatusCode.OK
                assert another.start("SELECT 1 AS one").read_all().num_rows == 1
            rows += sum(chunk.data.num_rows for chunk in reader)
            assert rows == 2_000_000


def test_a_dead_peer_is_closed_and_one_that_lives_is_not(tmp_path):
    with limited(tmp_path, keepalive_seconds=1, keepalive_timeout_seconds=1) as server:
        began = time.monotonic()
        with Line(server) as dead:
            kinds = [got.kind for got in dead.frames(answer_pings=False)]
            assert PING in kinds
            assert 1.5 < time.monotonic() - began < 15
        with Line(server) as alive:
            pings = 0
            for got in alive.frames():
                pings += got.kind == PING and not got.flags
                if pings == 4:
                    break
            assert pings == 4


def test_a_query_of_a_dead_peer_stops(tmp_path):
    with limited(tmp_path, keepalive_seconds=1, keepalive_timeout_seconds=1) as server, root(server) as db:
        with Line(server) as dead:
            ticket = ticket_of(server, LARGE)
            dead.begin(1, "DoGet")
            dead.message(1, field(1, ticket), end=True)
            wait_until(lambda: running(db) == 1, 20)
            # It does not read, not even the probes.
            wait_until(lambda: running(db) == 0, 20)


def running(db: seracdb.Connection) -> int:
    """Statements that run, without the one that asks."""
    sql = "SELECT count(*) AS n FROM system.queries WHERE state = 'running' AND statement NOT LIKE '%system.queries%'"
    return db.query(sql)["n"][0].as_py()


def ticket_of(server: Server, sql: str) -> bytes:
    with Caller(server) as caller:
        info = parse(caller.call("GetFlightInfo", of_command(packed("CommandStatementQuery", field(1, sql)))).message)
        return bytes(parse(bytes(parse(bytes(info[3]))[1]))[1])


def test_a_call_that_stops_sending_ends(tmp_path):
    with limited(tmp_path, request_idle_seconds=1, handshake_seconds=2) as server:
        with root(server) as db:
            db.run("CREATE TABLE filled (a BIGINT)")
        messages = stream(APPEND, ipc(BATCH))

        def stops(after: int) -> Iterator[bytes]:
            yield from messages[:after]
            threading.Event().wait(20)

        with Caller(server) as caller:
            for after in range(len(messages) + 1):
                reply = caller.call("DoPut", stops(after))
                assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED, reply
                assert "request_idle_seconds" in reply.text
            # Before it has said who it is, too.
            reply = caller.call("Handshake", stops(0), ())
            assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "handshake_seconds" in reply.text
            # Slowly is not too slowly.
            assert caller.call("DoPut", slowly(messages)).code is grpc.StatusCode.OK
        for method in ("GetFlightInfo", "DoGet", "DoAction"):
            with Line(server) as line:
                line.begin(1, method)
                line.message(1, b"x" * 1000, sent=100)
                ended = next(got for got in line.frames() if got.stream == 1 and got.flags & END_STREAM)
                assert ended.kind == HEADERS
        with root(server) as db:
            assert db.query("SELECT a FROM filled").num_rows == BATCH.num_rows, "only what was sent as a whole"


def test_who_is_nobody_yet_has_so_many_seconds_for_all_it_says(tmp_path):
    """And not for each byte again."""
    with limited(tmp_path, handshake_seconds=2) as server, Line(server) as line:
        began = time.monotonic()
        line.begin(1, "Handshake", ())
        line.message(1, b"x" * 1000, sent=10)
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.5):
                line.socket.sendall(frame(DATA, 0, 1, b"x"))

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        ended = next(got for got in line.frames() if got.stream == 1 and got.flags & END_STREAM)
        stop.set()
        dripping.join()
        assert ended.kind == HEADERS and 1.5 < time.monotonic() - began < 10


def test_calls_of_nobody_have_few_places(tmp_path):
    """In all and from each address; those who have logged in need none."""
    limits = {"SERACDB_AUTH__LOGINS_MAX": "15", "SERACDB_AUTH__LOGINS_ADDRESS_MAX": "10", LIMITS + "HANDSHAKE_SECONDS": "4"}
    end = threading.Event()
    with Server(tmp_path / "data", variables=limits) as server, ExitStack() as opened:
        here = opened.enter_context(Caller(server))
        here.login()
        there, third = (
            opened.enter_context(Caller(opened.enter_context(from_elsewhere(server, f"127.0.0.{n}")))) for n in (2, 3)
        )

        def silent(caller: Caller, count: int) -> list[grpc.Call]:
            calls = [caller.begin("Handshake", until_set(end), ()) for _ in range(count)]
            time.sleep(0.5)  # until they are there
            return calls

        opened.callback(end.set)
        calls = silent(here, 10)
        for messages, metadata in ((until_set(end), ()), ([], basic("root", ROOT_PASSWORD))):
            refused = here.call("Handshake", messages, metadata)
            assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "logins_address_max" in refused.text
        refused = here.call("ListActions", b"", basic("root", "wrong"))
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "logins_address_max" in refused.text
        assert here.call("ListActions", b"").code is grpc.StatusCode.OK
        assert there.call("Handshake", []).code is grpc.StatusCode.OK
        calls += silent(there, 5)
        refused = third.call("Handshake", [])
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED and "logins_max" in refused.text
        # They have their time.
        assert all("handshake_seconds" in call.details() for call in calls if call.code())
        for caller in (here, there, third):
            assert caller.call("Handshake", [], basic("root", ROOT_PASSWORD)).code is grpc.StatusCode.OK


def slowly(messages: list[bytes]) -> Iterator[bytes]:
    for message in messages:
        time.sleep(0.5)  # less than it may take
        yield message


# Stuck clients, many of them.


def half_a_preface(server: Server, _: Path) -> socket.socket:
    connection = dial(server)
    connection.sendall(PREFACE[:10])
    return connection


def half_a_handshake(server: Server, _: Path) -> socket.socket:
    connection = dial(server)
    connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    return connection


def nothing_after_tls(server: Server, trust: Path) -> socket.socket:
    return dial(server, trust=trust)


def nothing_after_the_preface(server: Server, _: Path) -> socket.socket:
    return Line(server).socket


def half_a_message(server: Server, _: Path) -> socket.socket:
    line = Line(server)
    line.begin(1, "DoPut")
    line.message(1, b"x" * 100_000, sent=50_000)
    return line.socket


def half_an_ingest(server: Server, _: Path) -> socket.socket:
    line = Line(server)
    line.begin(1, "DoPut")
    for message in stream(APPEND, ipc(BATCH)):
        line.message(1, message)
    return line.socket


def half_a_query(server: Server, _: Path) -> socket.socket:
    line = Line(server)
    line.begin(1, "GetFlightInfo")
    line.message(1, b"x" * 10_000, sent=5_000)
    return line.socket


def a_result_unread(server: Server, _: Path) -> socket.socket:
    line = Line(server)
    ticket = ticket_of(server, "SELECT repeat('x', 1000) AS x FROM generate_series(1, 1000) t(i)")
    line.begin(1, "DoGet")
    line.message(1, field(1, ticket), end=True)
    return line.socket


STALLS: dict[Callable[[Server, Path], socket.socket], str] = {
    half_a_handshake: "TLS",
    nothing_after_tls: "TLS",
    half_a_preface: "plain",
    nothing_after_the_preface: "plain",
    half_a_message: "plain",
    half_an_ingest: "plain",
    half_a_query: "plain",
    a_result_unread: "plain",
}


@pytest.fixture(scope="module")
def patient_servers(tmp_path_factory, certificates) -> Iterator[dict[str, Server]]:
    """They wait for longer than the tests take."""
    folder = tmp_path_factory.mktemp("patient")
    limits = {"handshake_seconds": 600, "keepalive_seconds": 600}
    (folder / "tls").mkdir()
    with limited(folder, **limits) as plain, limited(folder / "tls", tls_args(certificates), **limits) as tls:
        yield {"plain": plain, "TLS": tls}


@pytest.mark.parametrize("stall", STALLS, ids=lambda stall: stall.__name__)
def test_others_work_at_their_usual_speed(patient_servers, certificates, stall):
    server = patient_servers[STALLS[stall]]
    trust = {"tls_ca": certificates / "ca.pem"} if STALLS[stall] == "TLS" else {}
    with seracdb.connect(server.uri, "root", ROOT_PASSWORD, **trust) as db, ExitStack() as opened:
        db.run("DROP TABLE IF EXISTS work")
        db.run("DROP TABLE IF EXISTS filled")
        db.run("CREATE TABLE work (a BIGINT)")
        db.run("CREATE TABLE filled (a BIGINT)")
        seconds_of_work(db)
        before = seconds_of_work(db)
        stuck = [opened.enter_context(stall(server, certificates)) for _ in range(STUCK)]
        time.sleep(1)  # until the server has come to where they stall
        during = seconds_of_work(db)
        # A new client gets in as well.
        with seracdb.connect(server.uri, "root", ROOT_PASSWORD, **trust) as other:
            assert seconds_of_work(other) < 2 * before + 0.01
        assert all(is_open(connection) for connection in stuck), "they were to be there all the time"
        assert during < 2 * before + 0.01, f"{before:.3f} s before, {during:.3f} s beside them"
        assert db.query("SELECT a FROM filled").num_rows == 0, "half an ingest is none"


def seconds_of_work(db: seracdb.Connection) -> float:
    """What a small write and a query take, mostly."""
    took = []
    for number in range(20):
        began = time.monotonic()
        db.run("INSERT INTO work VALUES (?)", [number])
        db.query("SELECT count(*) FROM work")
        took.append(time.monotonic() - began)
    return statistics.median(took)


def test_stuck_clients_of_the_http_port_go(own_server):
    host, port = own_server.http.removeprefix("http://").split(":")
    with ExitStack() as opened:
        stuck = [opened.enter_context(socket.create_connection((host, int(port)), 30)) for _ in range(300)]
        for connection in stuck:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        with urllib.request.urlopen(f"{own_server.http}/healthz", timeout=30) as answer:
            assert answer.read() == b"ok"
        wait_until(lambda: not any(is_open(connection) for connection in stuck), 60)


# Statements.


def test_statements_are_limited_in_size_and_depth(tmp_path):
    variables = {"SERACDB_LIMITS__STATEMENT_BYTES_MAX": "1000", "SERACDB_LIMITS__STATEMENT_DEPTH_MAX": "20"}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        assert db.query("SELECT " + "1 + " * 10 + "1 AS n")["n"].to_pylist() == [11]
        with pytest.raises(seracdb.ResourceExhausted, match="statement_bytes_max"):
            db.query(f"SELECT '{'x' * 1000}' AS long")
        for deep in ("SELECT " + "1 + " * 30 + "1", f"SELECT {'-(' * 25}1{')' * 25}"):
            with pytest.raises(seracdb.Error, match="too deep"):
                db.query(deep)
        assert db.query("SELECT 1 AS n").num_rows == 1
    process = Server(tmp_path / "other", variables={"SERACDB_LIMITS__STATEMENT_DEPTH_MAX": "501"})
    started = process.spawn()
    assert started.wait(60) != 0
    started.stdout.close()
    assert "limits.statement_depth_max" in process.log() and "500" in process.log()
