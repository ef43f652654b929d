"""Hot rows are flushed by themselves when there are many: nothing is lost, and queries see what they saw."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest
import seracdb
from conftest import root
from test_manifests import until
from testserver import Server

SMALL = {
    "SERACDB_FLUSH__HOT_BYTES_MAX": str(64 << 10),
    "SERACDB_FLUSH__DEAD_VERSIONS_MAX": "50",
}
ROWS = 100


@pytest.fixture
def small(tmp_path):
    """A server that takes few hot rows for many."""
    with Server(tmp_path / "data", variables=SMALL) as server:
        yield server


def batches(db: seracdb.Connection, table: str, status: str = "active") -> int:
    where = f"\"table\" = '{table}' AND status = '{status}'"
    return db.query(f"SELECT count(*) AS n FROM system.batches WHERE {where}")["n"].to_pylist()[0]


def rows(first: int) -> pa.Table:
    return pa.table({"n": pa.array(range(first, first + ROWS), pa.int64()), "text": ["x" * 50] * ROWS})


def test_bytes(small):
    with root(small) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        for first in range(0, 30 * ROWS, ROWS):
            db.ingest("t", rows(first))
            if first % (7 * ROWS) == 0:
                seen = db.query("SELECT count(*) AS n, count(DISTINCT n) AS d, max(n) AS m FROM t").to_pylist()
                assert seen == [{"n": first + ROWS, "d": first + ROWS, "m": first + ROWS - 1}]
        until(lambda: batches(db, "t") >= 1, "a batch without STORAGE FLUSH")
        everything = {"n": 30 * ROWS, "s": sum(range(30 * ROWS))}
        assert db.query("SELECT count(*) AS n, sum(n) AS s FROM t").to_pylist() == [everything]
    small.kill()
    small.start()
    with root(small) as db:
        assert db.query("SELECT count(*) AS n, sum(n) AS s FROM t").to_pylist() == [everything]
        assert batches(db, "t") >= 1


def test_versions_that_nobody_reads(small):
    with root(small) as db:
        db.run("CREATE TABLE counter (n BIGINT)")
        db.run("INSERT INTO counter VALUES (0), (1000)")
        for _ in range(60):
            db.run("UPDATE counter SET n = n + 1 WHERE n < 1000")
        until(lambda: batches(db, "counter", "archived") >= 1, "the older versions are in a file of their own")
        assert db.query("SELECT n FROM counter ORDER BY n")["n"].to_pylist() == [60, 1000]
        # Rows that come and go.
        db.run("CREATE TABLE queue (n BIGINT)")
        for n in range(60):
            db.run(f"INSERT INTO queue VALUES ({n})")
            db.run("DELETE FROM queue")
        assert db.query("SELECT * FROM queue").num_rows == 0
        until(lambda: batches(db, "queue", "archived") >= 1, "deleted rows are flushed too")
        assert db.query("SELECT * FROM queue").num_rows == 0


def test_writers_go_on_meanwhile(small):
    """Each thread counts in rows of its own and in one that all share."""
    threads, turns = 4, 60
    with root(small) as db:
        db.run("CREATE TABLE counts (name TEXT, n BIGINT)")
        for name in ["all", *(f"thread {at}" for at in range(threads))]:
            db.run(f"INSERT INTO counts VALUES ('{name}', 0)")

    def count(name: str) -> None:
        with root(small) as db:
            for _ in range(turns):
                assert db.run(f"UPDATE counts SET n = n + 1 WHERE name IN ('all', '{name}')") == 2

    writers = [threading.Thread(target=count, args=(f"thread {at}",)) for at in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with root(small) as db:
        counted = {row["name"]: row["n"] for row in db.query("SELECT name, n FROM counts").to_pylist()}
        assert counted == {"all": threads * turns, **{f"thread {at}": turns for at in range(threads)}}
        until(lambda: batches(db, "counts") >= 1, "it was flushed meanwhile")
        assert counted["all"] == db.query("SELECT n FROM counts WHERE name = 'all'")["n"].to_pylist()[0]


def test_streams_stay_hot_and_it_can_be_turned_off(small, tmp_path):
    with root(small) as db:
        db.run("CREATE STREAM TABLE s (n BIGINT, text TEXT) WITH (ttl = '1h')")
        db.run("CREATE USER TABLE mine (n BIGINT, text TEXT)")
        for first in range(0, 15 * ROWS, ROWS):
            db.ingest("s", rows(first))
            db.ingest("mine", rows(first))
        until(lambda: batches(db, "mine") >= 1, "a scope of a user is flushed")
        assert batches(db, "s") == 0
        assert db.query("SELECT count(*) AS n FROM s")["n"].to_pylist() == [15 * ROWS]
    off = SMALL | {"SERACDB_FLUSH__AUTOMATIC": "false"}
    with Server(tmp_path / "other", variables=off) as server, root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        for first in range(0, 15 * ROWS, ROWS):
            db.ingest("t", rows(first))
        assert batches(db, "t") == 0
