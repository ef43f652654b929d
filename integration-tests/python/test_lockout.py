"""Wrong passwords: counted by user and source, answered with a wait that doubles, and never telling who there is."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pytest
from conftest import root
from raw_grpc import Caller, Reply, basic
from testserver import ROOT_PASSWORD, Server

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
    login(strict, "x" * 5000, "wrong")
    with Caller(strict, ()) as caller:
        caller.call("ListActions", b"")
    refusals = [line for line in strict.log().splitlines() if "a login was refused" in line]
    assert len(refusals) == 6
    assert all("127.0.0.1:" in line for line in refusals)
    assert "ann" in refusals[0] and "wrong user name or password" in refusals[0]
    assert "locked out" in refusals[3] and len(refusals[4]) < 500 and "no credentials" in refusals[5]
    assert not any("wrong " in line.replace("wrong user name", "").replace("wrong passwords", "") for line in refusals)
