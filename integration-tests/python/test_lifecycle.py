"""Starting, stopping and starting again."""

from __future__ import annotations

import shutil
import stat
import threading
import time
import urllib.request

import pyarrow as pa
import pyarrow.flight as flight
import pytest
import rawflight
import seracdb
from conftest import root
from http2 import END_STREAM, GOAWAY, HEADERS, WINDOW_UPDATE, Frame, Line
from raw_grpc import frame
from test_long_queries import ENDLESS, LARGE
from test_long_queries import fill as fill_for_endless
from testserver import ROOT_PASSWORD, Server
from watching import start, wait_until, wait_until_busy

N = 2000


def fill(db: seracdb.Connection, tier: str) -> list[dict]:
    """A table with its rows hot, cold or both, some updated and some deleted; returns what a query finds."""
    db.run("CREATE NAMESPACE app")
    db.ingest("app.t", pa.table({"k": range(N), "v": [f"v{i}" for i in range(N)]}), mode="create")
    if tier != "hot":
        db.run("STORAGE FLUSH TABLE app.t")
    if tier != "cold":
        db.run("UPDATE app.t SET v = 'updated' WHERE k < 100")
        db.run("DELETE FROM app.t WHERE k BETWEEN 50 AND 149")
        db.run("INSERT INTO app.t (k, v) VALUES (-1, 'late')")
    return found(db)


def found(db: seracdb.Connection) -> list[dict]:
    return db.query("SELECT * FROM app.t ORDER BY k").to_pylist()


@pytest.mark.parametrize("tier", ["hot", "cold", "mixed"])
@pytest.mark.parametrize("end", [Server.stop, Server.kill], ids=["SIGTERM", "SIGKILL"])
def test_restart(own_server, tier, end):
    with root(own_server) as db:
        before = fill(db, tier)
    for _ in range(2):
        code = end(own_server)
        assert code == (0 if end is Server.stop else -9)
        own_server.start()
        with root(own_server) as db:
            assert found(db) == before
    with root(own_server) as db:
        # The server goes on where it was: ids and versions only grow.
        db.run("INSERT INTO app.t (k, v) VALUES (-2, 'after')")
        db.run("UPDATE app.t SET v = 'again' WHERE k = 0")
        rows = {r["k"]: r for r in found(db)}
        assert rows[-2]["_id"] > max(r["_id"] for r in before)
        assert rows[0]["_updated"] > max(r["_updated"] for r in before)
        assert len(rows) == len(before) + 1
        # The same answer once all is cold.
        after = found(db)
        db.run("STORAGE FLUSH TABLE app.t")
        assert found(db) == after


def test_restart_with_a_million_hot_rows(tmp_path):
    rows = 1_000_000
    step = 100_000
    own_server = Server(tmp_path / "data", variables={"SERACDB_FLUSH__AUTOMATIC": "false"})
    with own_server, root(own_server) as db:
        db.run("CREATE NAMESPACE app")
        db.run("CREATE TABLE app.many (k BIGINT, v TEXT)")
        insert = "INSERT INTO app.many (k, v) VALUES (?, ?)"
        for start in range(0, rows, step):
            values = range(start, start + step)
            assert db.run(insert, pa.table({"k": values, "v": [f"value {i}" for i in values]})) == step
        assert db.query("SELECT * FROM system.batches").num_rows == 0, "all of them are hot"
        own_server.kill()
    with own_server, root(own_server) as db:
        got = db.query("SELECT count(*) AS n, sum(k) AS s, count(DISTINCT v) AS v FROM app.many").to_pylist()
        assert got == [{"n": rows, "s": rows * (rows - 1) // 2, "v": rows}]


def test_a_second_server_on_the_directory_is_refused(own_server):
    started = time.monotonic()
    second = Server(own_server.data_dir).spawn()
    try:
        code = second.wait(60)
        seconds = time.monotonic() - started
    finally:
        second.kill()
        second.communicate()
    assert code not in (0, -9)
    assert seconds < 2
    said = own_server.log().splitlines()[-1]
    assert str(own_server.data_dir) in said and "another" in said.lower(), said
    with root(own_server) as db:
        assert db.query("SELECT 1 AS n").num_rows == 1


def test_a_port_in_use_is_named(own_server, tmp_path):
    taken = own_server.uri.removeprefix("grpc://")
    other = Server(tmp_path / "other", args=["--listen", taken])
    process = other.spawn()
    assert process.wait(30) not in (0, None)
    process.stdout.close()
    assert taken in other.log()


def test_sigterm_ends_cleanly(own_server):
    with root(own_server) as db:
        db.run("CREATE NAMESPACE app")
    assert own_server.stop() == 0
    assert "panicked" not in own_server.log()


@pytest.mark.parametrize("name", ENDLESS)
def test_a_stop_cuts_off_what_computes(tmp_path, name):
    with Server(tmp_path / "data", variables={"SERACDB_SERVER__DRAIN_SECONDS": "1"}) as server:
        fill_for_endless(server)
        client = start(server, ENDLESS[name])
        wait_until_busy(server)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 15
        assert "cut off" in server.log()
        assert client.wait(60) != 0


def test_a_stop_lets_a_call_end_and_takes_no_new_ones(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_SERVER__DRAIN_SECONDS": "60"}) as server:
        with rawflight.client(server) as client:
            reader = client.start(LARGE)
            rows = reader.read_chunk().data.num_rows
            server.process.terminate()
            wait_until(lambda: "asked to stop" in server.log())
            with pytest.raises((flight.FlightError, OSError)):
                with rawflight.client(server):
                    pass
            with pytest.raises(flight.FlightUnavailableError, match="the server is stopping"):
                client.start("SELECT 1")
            rows += sum(chunk.data.num_rows for chunk in reader)
            assert rows == 2_000_000
        assert server.process.wait(60) == 0
        assert "cut off" not in server.log()


def test_a_call_that_crosses_the_stop_breaks_none_that_runs(tmp_path):
    """A client that is told to end its connection may have begun a call that is still to be written, and its windows."""
    with Server(tmp_path / "data", variables={"SERACDB_SERVER__DRAIN_SECONDS": "60"}) as server, Line(server) as line:
        said: list[Frame] = []

        def ended(stream: int) -> bool:
            return any(got.kind == HEADERS and got.stream == stream and got.flags & END_STREAM for got in said)

        reader = threading.Thread(target=lambda: said.extend(line.frames()), daemon=True)
        reader.start()
        line.begin(1, "DoPut")
        line.begin(3, "ListActions")
        line.message(3, b"", end=True)
        wait_until(lambda: ended(3))
        server.process.terminate()
        wait_until(lambda: "asked to stop" in server.log())
        time.sleep(1)  # in which the connection would be told to end, and acknowledge that
        line.begin(5, "ListActions")
        line.socket.sendall(frame(WINDOW_UPDATE, 0, 5, (1 << 16).to_bytes(4, "big")))
        line.message(5, b"", end=True)
        wait_until(lambda: ended(5))
        assert not ended(1) and server.process.poll() is None
        line.message(1, b"", end=True)
        wait_until(lambda: ended(1))
        assert server.process.wait(30) == 0
        reader.join()
        farewells = [int.from_bytes(got.payload[4:8], "big") for got in said if got.kind == GOAWAY]
        assert farewells and not any(farewells), farewells
        assert "cut off" not in server.log()


def test_a_stop_cuts_off_a_result_that_is_not_read(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_SERVER__DRAIN_SECONDS": "1"}) as server:
        with rawflight.client(server) as client:
            reader = client.start(LARGE)
            reader.read_chunk()
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 15
            assert "cut off" in server.log()
            with pytest.raises((flight.FlightError, pa.ArrowException, OSError)):
                reader.read_all()


def test_healthz(own_server):
    with urllib.request.urlopen(f"{own_server.http}/healthz", timeout=30) as answer:
        assert answer.status == 200


def test_a_password_is_made_up_when_none_is_given(tmp_path):
    with Server(tmp_path / "data", password=None) as server:
        file = server.data_dir / "root-password"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        password = file.read_text().strip()
        assert len(password) >= 16
        assert str(file) in server.log() and password not in server.log()
        with seracdb.connect(server.uri, "root", password) as db:
            assert db.query("SELECT 1 AS n").num_rows == 1
        # It is made once; later starts keep it, and a variable does not replace it.
        server.password = "another one"
        server.restart()
        assert file.read_text().strip() == password
        with seracdb.connect(server.uri, "root", password) as db:
            assert db.query("SELECT 1 AS n").num_rows == 1


def test_the_given_password_is_not_written_down(own_server):
    assert not (own_server.data_dir / "root-password").exists()
    assert ROOT_PASSWORD not in own_server.log()
    needle = ROOT_PASSWORD.encode()
    own_server.stop()
    for file in own_server.data_dir.rglob("*"):
        assert not file.is_file() or needle not in file.read_bytes(), file


@pytest.mark.parametrize(
    "args,names",
    [
        (["--listen", "nonsense"], "nonsense"),
        (["--config", "/does/not/exist.toml"], "/does/not/exist.toml"),
        (["--object-store", "gopher://x"], "gopher"),
    ],
    ids=["listen", "config", "object store"],
)
def test_settings_that_cannot_work_are_named(tmp_path, args, names):
    server = Server(tmp_path / "data", args=args)
    process = server.spawn()
    assert process.wait(60) != 0
    process.stdout.close()
    assert names in server.log()


def test_a_data_directory_that_has_lost_a_part_is_refused(tmp_path):
    """It would look like an empty one."""
    with Server(tmp_path / "data"):
        pass
    shutil.rmtree(tmp_path / "data" / "rocksdb")
    server = Server(tmp_path / "data")
    assert server.spawn().wait(timeout=60) != 0
    assert "lost its folder rocksdb" in server.log()
