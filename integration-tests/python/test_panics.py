"""A panic in a statement is an error of that call alone. Only a dev build has a function that panics, when asked."""

from __future__ import annotations

import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import rawflight
from adbc_driver_manager import AdbcStatusCode as Code
from conftest import root
from testserver import Server

ROWS = 1_000_000


@pytest.fixture(scope="module")
def panicky(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("panics") / "data", variables={"SERACDB_PLANTED_PANIC": "1"}) as server:
        with root(server) as db:
            db.run("CREATE NAMESPACE app")
            db.ingest("app.t", pa.table({"k": range(100)}), mode="create")
            try:
                db.query("SELECT planted_panic(false) AS p")
            except adbc_driver_manager.Error:
                pytest.skip("a release build has no planted_panic")
        yield server
        assert server.process.poll() is None


STATEMENTS = {
    "planning": "SELECT planted_panic() AS p",
    "the first batch": "SELECT planted_panic(k = 50) AS p FROM app.t",
    "a partition of its own": "SELECT k % 7, count(*) FROM app.t WHERE planted_panic(k = 50) OR k > 3 GROUP BY 1",
    "a join": "SELECT count(*) FROM app.t a JOIN app.t b ON a.k < b.k AND planted_panic(a.k = 50)",
    "UPDATE": "UPDATE app.t SET k = -1 WHERE planted_panic(k = 50) OR k < 50",
    "INSERT": "INSERT INTO app.t (k) SELECT k FROM app.t WHERE planted_panic(k = 50) OR k < 50",
    "DELETE": "DELETE FROM app.t WHERE planted_panic(k = 50) OR k < 50",
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_is_an_error_of_its_call(panicky, name):
    with root(panicky) as db, rawflight.client(panicky) as other:
        # Another connection's query runs all the while.
        running = other.start(f"SELECT i, repeat('x', 100) AS x FROM generate_series(1, {ROWS}) t(i)")
        rows = running.read_chunk().data.num_rows
        for _ in range(2):
            with pytest.raises(adbc_driver_manager.Error, match="a bug in SeracDB") as failed:
                db.query(STATEMENTS[name])
            assert failed.value.status_code == Code.INTERNAL, failed.value
            # The session goes on, and nothing of the statement is there.
            assert db.query("SELECT count(*) AS n, min(k) AS k FROM app.t").to_pylist() == [{"n": 100, "k": 0}]
        # Its scope is free.
        assert db.run("UPDATE app.t SET k = k WHERE k = 1") == 1
        rows += sum(chunk.data.num_rows for chunk in running)
        assert rows == ROWS


def test_in_the_middle_of_a_result(panicky):
    with rawflight.client(panicky) as client:
        reader = client.start(f"SELECT i, planted_panic(i = {ROWS - 1}) AS p FROM generate_series(1, {ROWS}) t(i)")
        assert reader.read_chunk().data.num_rows > 0
        with pytest.raises((flight.FlightInternalError, pa.ArrowException), match="a bug in SeracDB"):
            reader.read_all()
        assert client.start("SELECT 1 AS n").read_all().to_pylist() == [{"n": 1}]


def test_there_is_no_such_function_unless_asked_for(db):
    with pytest.raises(adbc_driver_manager.Error, match="planted_panic"):
        db.query("SELECT planted_panic(false)")
