"""Wrong passwords: counted by user and source, answered with a wait that doubles, and never telling who there is."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pytest
from conftest import root
from http2 import Line
from raw_grpc import Caller, Metadata, Reply, basic
from test_fuzz import of_command
from testserver import ROOT_PASSWORD, Server
from watching import resident_mib, threads
from wire import field, packed

WRONG = "wrong user name or password"
WAIT = "too many wrong passwords for this user from here: wait"


@pytest.fixture
def strict(tmp_path) -> Iterator[Server]:
    """Three wrong passwords, then a wait of a second and more; right ones are not remembered."""
    settings = {"LOCKOUT_ATTEMPTS": "3", "LOCKOUT_SECONDS": "1", "LOCKOUT_SECONDS_MAX": "3", "PASSWORD_CACHE_SECONDS": "0"}
    variables = {f"SERACDB_AUTH__{name}": value for name, value in settings.items()}
    with Server(tmp_path / "data", variables=variables) as server:
        with root(server) as db:
            for name in ("ann", "bob"):
                db.run(f"CREATE USER {name} WITH PASSWORD '{name}'")
        yield server


def login(server: Server | SimpleNamespace, user: str, password: str) -> Reply:
    with Caller(server, basic(user, password)) as caller:
        return caller.call("ListActions", b"")


def texts(server: Server | SimpleNamespace, user: str, password: str, times: int) -> list[str]:
    replies = [login(server, user, password) for _ in range(times)]
    assert all(reply.code is grpc.StatusCode.UNAUTHENTICATED for reply in replies)
    return [reply.text.rsplit(" wait ")[0] for reply in replies]


@contextmanager
def from_elsewhere(server: Server, address: str) -> Iterator[SimpleNamespace]:
    """The server as it is reached from another address of this machine."""
    host, port = server.uri.removeprefix("grpc://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            upstream = socket.create_connection((host, int(port)), source_address=(address, 0))
            for pair in ((client, upstream), (upstream, client)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield SimpleNamespace(uri="grpc://127.0.0.1:%d" % listener.getsockname()[1])
    finally:
        listener.close()


def test_after_so_many_wrong_passwords_one_waits_and_each_time_longer(strict):
    assert texts(strict, "ann", "wrong", 3) == [WRONG] * 3
    # The right one is not even looked at.
    reply = login(strict, "ann", "ann")
    assert (reply.code, reply.text) == (grpc.StatusCode.UNAUTHENTICATED, f"{WAIT} 1 s")
    for wait in (2, 3, 3):
        time.sleep(wait_of(login(strict, "ann", "wrong")))
        assert login(strict, "ann", "wrong").text == WRONG
        assert login(strict, "ann", "wrong").text == f"{WAIT} {wait} s"
    time.sleep(wait_of(login(strict, "ann", "ann")))
    assert login(strict, "ann", "ann").code is grpc.StatusCode.OK
    # All is forgotten.
    assert texts(strict, "ann", "wrong", 3) == [WRONG] * 3


def wait_of(reply: Reply) -> float:
    return float(reply.text.removeprefix(WAIT).removesuffix(" s")) + 0.1


def test_others_and_other_places_are_not_locked_out(strict):
    texts(strict, "ann", "wrong", 4)
    assert login(strict, "bob", "bob").code is grpc.StatusCode.OK
    with from_elsewhere(strict, "127.0.0.2") as elsewhere:
        assert login(elsewhere, "ann", "ann").code is grpc.StatusCode.OK
        assert login(strict, "ann", "ann").text.startswith(WAIT)
        # There it is counted too, for itself.
        assert texts(elsewhere, "ann", "wrong", 4) == [WRONG] * 3 + [WAIT.removesuffix(" wait")]
        with flightsql.connect(strict.uri, db_kwargs={"username": "bob", "password": "bob"}) as connection:
            connection.close()


def test_a_driver_is_told_to_wait(strict):
    texts(strict, "ann", "wrong", 3)
    with pytest.raises(flightsql.Error, match="wait . s"):
        connection = flightsql.connect(strict.uri, db_kwargs={"username": "ann", "password": "ann"}, autocommit=True)
        connection.cursor().execute("SELECT 1")


def test_an_unknown_user_is_like_a_wrong_password(strict):
    """In text, in what follows, and in time."""
    assert texts(strict, "ann", "wrong", 5) == texts(strict, "nobody", "wrong", 5)
    times: dict[str, list[float]] = {"user": [], "nobody": []}
    with root(strict) as db:
        for n in range(9):
            db.run(f"CREATE USER user{n} WITH PASSWORD 'right'")
    for n in range(9):
        for name, spent in times.items():
            began = time.perf_counter()
            assert login(strict, f"{name}{n}", "wrong").text == WRONG
            spent.append(time.perf_counter() - began)
    known, unknown = (statistics.median(spent) for spent in times.values())
    assert 0.5 < known / unknown < 2, (known, unknown)


def test_guesses_at_the_same_time_count_too(strict):
    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(lambda n: login(strict, "ann", f"guess{n}").text, range(40)))
    checked = found.count(WRONG)
    # Four are checked at the same time.
    assert 3 <= checked <= 3 + 3, found
    assert all(text == WRONG or text.startswith(WAIT) for text in found)


def test_a_client_with_the_right_password_goes_on_beside_wrong_ones(tmp_path):
    variables = {"SERACDB_AUTH__LOCKOUT_ATTEMPTS": "1", "SERACDB_AUTH__PASSWORD_CACHE_SECONDS": "60"}
    with Server(tmp_path / "data", variables=variables) as server:
        assert login(server, "root", ROOT_PASSWORD).code is grpc.StatusCode.OK
        assert texts(server, "root", "wrong", 2)[1] == WAIT.removesuffix(" wait")
        # Remembered: what is known to be right has not to wait.
        assert login(server, "root", ROOT_PASSWORD).code is grpc.StatusCode.OK


def test_it_can_be_switched_off(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_AUTH__LOCKOUT_ATTEMPTS": "0"}) as server:
        assert texts(server, "root", "wrong", 20) == [WRONG] * 20
        assert login(server, "root", ROOT_PASSWORD).code is grpc.StatusCode.OK


def test_the_log_says_who_was_refused_where_from_and_why(strict):
    texts(strict, "ann", "wrong", 4)
    with from_elsewhere(strict, "127.0.0.2") as elsewhere:
        login(elsewhere, "x" * 5000, "wrong")
    with Caller(strict, ()) as caller:
        caller.call("ListActions", b"")
    refusals = refusals_of(strict)
    # A line for each reason and source.
    assert len(refusals) == 4
    assert ["127.0.0.1:" in line for line in refusals] == [True, True, False, True]
    assert "ann" in refusals[0] and "wrong user name or password" in refusals[0]
    assert "locked out" in refusals[1] and len(refusals[2]) < 500 and "no credentials" in refusals[3]
    assert not any("wrong " in line.replace("wrong user name", "").replace("wrong passwords", "") for line in refusals)


def refusals_of(server: Server) -> list[str]:
    return [line for line in server.log().splitlines() if "a login was refused" in line]


def test_a_flood_of_refused_logins_does_not_fill_the_log(tmp_path):
    """It says now and then how many there were; the audit log has each one that came with something to check."""
    with Server(tmp_path / "data") as server, root(server) as db, Caller(server, ()) as caller:
        bearers = ["made-up"] * 500 + [f"serac_{n:016x}_{n:064x}" for n in range(200)]
        for bearer in bearers:
            assert caller.call("ListActions", b"", headers(bearer)).code is grpc.StatusCode.UNAUTHENTICATED
        assert 2 <= len(refusals_of(server)) < 10
        time.sleep(10)  # until there is another line
        caller.call("ListActions", b"", headers("made-up"))
        unsaid = [int(line.split("unsaid=")[1].split()[0]) for line in refusals_of(server) if "unknown session" in line]
        assert unsaid[0] == 0 and sum(unsaid) + len(unsaid) == 501, "none is lost"
        assert logins_audited(db) == 200


def headers(bearer: str) -> Metadata:
    return (("authorization", f"Bearer {bearer}"),)


def logins_audited(db) -> int:
    return db.query("SELECT count(*) AS n FROM system.audit_log WHERE action = 'LOGIN'")["n"][0].as_py()


def test_what_is_computed_for_calls_that_are_gone_is_limited_too(tmp_path):
    """A call is reset while its password is hashed: that goes on, and has its turn until it ends."""
    variables = {f"SERACDB_AUTH__{name}": "0" for name in ("PASSWORD_CACHE_SECONDS", "LOCKOUT_ATTEMPTS")}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        db.run("CREATE USER ann WITH PASSWORD 'ann'")
        with Caller(server, basic("ann", "ann")) as caller:
            token = caller.login().metadata
        before = threads(server), resident_mib(server)
        own_password = of_command(packed("CommandStatementQuery", field(1, "ALTER USER ann SET PASSWORD 'ann'")))

        def grown() -> tuple[int, int]:
            return threads(server) - before[0], resident_mib(server) - before[1]

        resets(server, lambda n: ("ListActions", basic(f"user{n}", "x"), b""))
        few, little = grown()
        assert few < 20 and little < 200, "checked"
        resets(server, lambda n: ("GetFlightInfo", token, own_password))
        few, little = grown()
        assert few < 20 and little < 200, "made"
        assert login(server, "root", ROOT_PASSWORD).code is grpc.StatusCode.OK


def resets(server: Server, call: Callable[[int], tuple[str, Metadata, bytes]]) -> None:
    """Calls that are reset as soon as they are under way."""
    for _ in range(6):
        try:
            with Line(server) as line:
                line.answered()
                for turn in range(12):
                    reset_four(line, 8 * turn + 1, call)
        except OSError:
            # A busy server may have enough of a connection that resets its calls.
            pass


def reset_four(line: Line, first: int, call: Callable[[int], tuple[str, Metadata, bytes]]) -> None:
    streams = [first + 2 * n for n in range(4)]
    for stream in streams:
        method, metadata, message = call(stream)
        line.begin(stream, method, metadata)
        line.message(stream, message, end=True)
    time.sleep(0.012)  # until they are computed for
    for stream in streams:
        line.reset(stream)


def test_a_guess_counts_though_its_call_is_gone(tmp_path):
    variables = {"SERACDB_AUTH__LOCKOUT_ATTEMPTS": "3", "SERACDB_AUTH__LOCKOUT_SECONDS": "60"}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db, Line(server) as line:
        db.run("CREATE USER ann WITH PASSWORD 'ann'")
        line.answered()
        for stream in range(1, 400, 2):
            line.begin(stream, "ListActions", basic("ann", "wrong"))
            time.sleep(0.02)  # until it is checked
            line.reset(stream)
            time.sleep(0.1)  # until the check has ended
            if logins_audited(db) == 3:
                break
        assert logins_audited(db) == 3
        assert login(server, "ann", "ann").text == f"{WAIT} 60 s"


# Who waits for a login.


def test_guessing_keeps_nobody_else_waiting(tmp_path):
    variables = {f"SERACDB_AUTH__{name}": "0" for name in ("PASSWORD_CACHE_SECONDS", "LOCKOUT_ATTEMPTS")}
    with Server(tmp_path / "data", variables=variables) as server, from_elsewhere(server, "127.0.0.2") as elsewhere:
        with Caller(server, ()) as caller:
            guesses = [caller.begin("ListActions", b"", basic(f"user{n}", "x"), seconds=60) for n in range(200)]
            time.sleep(0.3)  # until they are there
            began = time.monotonic()
            assert login(elsewhere, "root", ROOT_PASSWORD).code is grpc.StatusCode.OK
            assert time.monotonic() - began < 1.5
            assert sum(not guess.done() for guess in guesses) > 50, "they were to be there all the time"
            assert {guess.code() for guess in guesses} == {grpc.StatusCode.UNAUTHENTICATED}


def test_many_logins_of_one_address_at_the_same_time_wait_for_each_other(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_AUTH__PASSWORD_CACHE_SECONDS": "0"}) as server:
        assert {reply.code for reply in at_once(server, 200)} == {grpc.StatusCode.OK}


def test_logins_beyond_what_there_is_room_for_are_told_so_at_once(tmp_path):
    variables = {"SERACDB_AUTH__PASSWORD_CACHE_SECONDS": "0", "SERACDB_AUTH__LOGINS_ADDRESS_MAX": "20"}
    with Server(tmp_path / "data", variables=variables) as server:
        replies = at_once(server, 100)
        refused = [reply for reply in replies if reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED]
        assert {reply.code for reply in replies if reply not in refused} == {grpc.StatusCode.OK}
        assert 1 <= len(refused) <= 80 and "auth.logins_address_max" in refused[0].text
        assert 1 <= len(refusals_of(server)) < 5


def at_once(server: Server, count: int) -> list[Reply]:
    """Calls with a password, half of them to have a token."""
    with Caller(server) as caller, ThreadPoolExecutor(count) as pool:

        def ask(method: str) -> Reply:
            return caller.call(method, b"" if method == "ListActions" else [], seconds=90)

        return list(pool.map(ask, ["ListActions", "Handshake"] * (count // 2)))
