"""Queries that compute or are read for long: others go on, and they end when nobody wants them any more."""

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.flight as flight
import pytest
import rawflight
import seracdb
from conftest import root
from testserver import ROOT_PASSWORD, Server
from watching import start, wait_until_busy, wait_until_idle

ROWS = 200_000
# Each would take hours.
ENDLESS = {
    "join with a condition": "SELECT count(*) FROM app.t a JOIN app.t b ON a.k + b.k = 7 OR a.s > b.s",
    "join that finds nothing": "SELECT count(*) FROM app.t a JOIN app.t b ON a.k + b.k < -1",
    "join by key": "SELECT count(*) FROM app.t a JOIN app.t b ON a.one = b.one AND a.k + b.k < -1",
    "cross join": "SELECT sum(a.i % 7 + b.i) FROM generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(i)",
    "update": "UPDATE app.t SET k = 0 WHERE EXISTS (SELECT 1 FROM app.t b WHERE app.t.k + b.k < -1)",
}
# More than all buffers between the server and a client hold.
LARGE = "SELECT i, repeat('x', 100) AS x FROM generate_series(1, 2000000) t(i)"


def fill(server: Server) -> None:
    with root(server) as db:
        db.run("CREATE NAMESPACE app")
        values = pa.table({"k": range(ROWS), "one": [1] * ROWS, "s": [f"s{i % 977}" for i in range(ROWS)]})
        db.ingest("app.t", values, mode="create")


@pytest.fixture
def filled(own_server) -> Server:
    fill(own_server)
    return own_server


@pytest.mark.parametrize("name", ENDLESS)
def test_others_go_on_and_it_ends_with_its_client(filled, name):
    client = start(filled, ENDLESS[name])
    try:
        wait_until_busy(filled)
        for _ in range(5):
            started = time.monotonic()
            with root(filled) as db:
                assert db.query("SELECT 1 AS n")["n"].to_pylist() == [1]
                assert db.query("SELECT count(*) AS n FROM app.t WHERE k < 10")["n"].to_pylist() == [10]
            assert time.monotonic() - started < 5
        assert client.poll() is None, "the query was to go on"
    finally:
        client.kill()
        client.wait()
    wait_until_idle(filled)


def test_several_of_them(filled):
    clients = [start(filled, sql) for sql in (*ENDLESS.values(), *ENDLESS.values())]
    try:
        wait_until_busy(filled)
        started = time.monotonic()
        with root(filled) as db:
            assert db.query("SELECT 1 AS n")["n"].to_pylist() == [1]
        assert time.monotonic() - started < 15
    finally:
        for client in clients:
            client.kill()
            client.wait()
    wait_until_idle(filled)


def test_a_result_that_is_not_read_loses_its_snapshot(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_FLIGHT__RESULT_SECONDS_MAX": "2"}) as server:
        with rawflight.client(server) as client:
            reader = client.start(LARGE)
            assert reader.read_chunk().data.num_rows > 0
            time.sleep(3)  # the reader's slowness, which is what is tested
            with pytest.raises((flight.FlightError, pa.ArrowException, OSError), match="(?i)aborted.*snapshot too old"):
                reader.read_all()
            # The session is not to blame.
            assert client.start("SELECT 1 AS n").read_all().to_pylist() == [{"n": 1}]


def test_a_result_that_is_read_in_time_ends_well(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_FLIGHT__RESULT_SECONDS_MAX": "60"}) as server:
        with seracdb.connect(server.uri, "root", ROOT_PASSWORD) as db:
            assert db.query(LARGE).num_rows == 2_000_000
