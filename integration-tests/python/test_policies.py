"""What the server does by itself: jobs that nobody asks for, and writers that wait when those cannot follow."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
import seracdb
from conftest import root
from test_automatic_flush import batches
from test_manifests import until
from testserver import Server


def rows(first: int, count: int, width: int = 100) -> pa.Table:
    text = [f"{n:0{width}}" for n in range(first, first + count)]
    return pa.table({"n": pa.array(range(first, first + count), pa.int64()), "text": text})


def jobs(db, job_type: str, state: str = "completed") -> list[dict]:
    where = f"job_type = '{job_type}' AND state = '{state}' AND asked_by IS NULL"
    return db.query(f"SELECT * FROM system.jobs WHERE {where} ORDER BY created_at").to_pylist()


def number(db, sql: str) -> int:
    (row,) = db.query(sql).to_pylist()
    return row["n"]


def test_a_table_says_how_many_rows_stay_hot(tmp_path):
    with Server(tmp_path / "data") as server:
        with root(server) as db:
            db.run("CREATE TABLE t (n BIGINT, text TEXT) WITH (flush_rows = 100)")
            db.run("CREATE TABLE other (n BIGINT, text TEXT)")
            for table in ["t", "other"]:
                db.ingest(table, rows(0, 60))
            time.sleep(1.5)
            assert batches(db, "t") == 0
        # What was hot before a start counts.
        server.stop()
        server.start()
        with root(server) as db:
            for table in ["t", "other"]:
                db.ingest(table, rows(60, 60))
            until(lambda: batches(db, "t") == 1, "100 rows are flushed")
            assert number(db, "SELECT sum(row_count) AS n FROM system.batches") == 120
            (job,) = jobs(db, "flush")
            assert job["params"] == '{"namespace":"default","table":"t"}' and "120 rows" in job["message"], job
            assert [number(db, f"SELECT count(*) AS n FROM {table}") for table in ["t", "other"]] == [120, 120]


def test_a_table_says_how_long_rows_stay_hot(tmp_path):
    with Server(tmp_path / "data") as server, root(server) as db:
        db.run("CREATE USER TABLE mine (n BIGINT, text TEXT) WITH (flush_interval = '2s')")
        db.run("CREATE TABLE other (n BIGINT, text TEXT)")
        began = time.monotonic()
        for table in ["mine", "other"]:
            db.ingest(table, rows(0, 10))
        until(lambda: batches(db, "mine") == 1, "rows of 2 s are flushed")
        assert time.monotonic() - began >= 2
        assert batches(db, "other") == 0
        assert jobs(db, "flush")[0]["params"] == '{"namespace":"default","table":"mine","user_id":"root"}'


def test_the_largest_are_flushed_when_all_together_are_too_much(tmp_path):
    variables = {"SERACDB_FLUSH__TOTAL_BYTES_MAX": str(400 << 10)}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        for table, count in [("small", 300), ("large", 2000), ("larger", 3000)]:
            db.run(f"CREATE TABLE {table} (n BIGINT, text TEXT)")
            db.ingest(table, rows(0, count))
        until(lambda: batches(db, "larger") == 1, "the largest is flushed")
        until(lambda: not jobs(db, "flush", "running"), "that is all")
        assert batches(db, "small") == 0
        assert number(db, "SELECT count(*) AS n FROM larger") == 3000


def test_files_are_written_anew_when_many_of_their_rows_are_deleted(tmp_path):
    with Server(tmp_path / "data") as server, root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        db.ingest("t", rows(0, 1000))
        db.run("STORAGE FLUSH TABLE t")
        db.run("DELETE FROM t WHERE n % 10 = 0")
        db.run("STORAGE FLUSH TABLE t")
        time.sleep(1.5)
        assert jobs(db, "compact") == []
        db.run("DELETE FROM t WHERE n % 2 = 0")
        db.run("STORAGE FLUSH TABLE t")
        until(lambda: jobs(db, "compact"), "half of a file is deleted")
        assert number(db, "SELECT count(*) AS n FROM t") == 500
        assert number(db, "SELECT count(*) AS n FROM system.batches WHERE status = 'archived'") >= 1


def test_superseded_files_go_when_their_time_is_over(tmp_path):
    variables = {"SERACDB_COMPACTION__RETENTION_SECONDS": "2", "SERACDB_JOBS__RETENTION_INTERVAL_SECONDS": "1"}
    with Server(tmp_path / "data", variables=variables) as server:
        with root(server) as db:
            db.run("CREATE TABLE t (n BIGINT)")
            db.run("INSERT INTO t VALUES (1)")
            for _ in range(3):
                db.run("UPDATE t SET n = n + 1")
            db.run("STORAGE FLUSH TABLE t")
            assert batches(db, "t", "archived") == 1
        # Also those of before a start.
        server.stop()
        server.start()
        with root(server) as db:
            until(lambda: batches(db, "t", "archived") == 0, "2 s are over")
            assert "1 files" in jobs(db, "retention")[0]["message"]
            time.sleep(2.5)
            # One that found nothing to do is not kept.
            assert len(jobs(db, "retention")) == 1
            assert number(db, "SELECT n FROM t") == 4


def test_deletions_go_when_nothing_is_left_of_what_they_delete(tmp_path):
    variables = {"SERACDB_COMPACTION__RETENTION_SECONDS": "3", "SERACDB_JOBS__RETENTION_INTERVAL_SECONDS": "1"}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        db.ingest("t", rows(0, 100))
        db.run("STORAGE FLUSH TABLE t")
        db.run("DELETE FROM t")
        db.run("STORAGE FLUSH TABLE t")
        until(lambda: jobs(db, "compact"), "all rows are deleted")
        # As long as the file with the rows may be read, the deletions are needed; then no file is.
        until(lambda: number(db, "SELECT count(*) AS n FROM system.batches") == 0, "nothing is left")
        assert number(db, "SELECT count(*) AS n FROM t") == 0


def test_what_is_flushed_and_merged_by_a_statement_keeps_to_the_rate(tmp_path):
    variables = {"SERACDB_JOBS__BYTES_PER_SECOND_MAX": str(1 << 20), "SERACDB_COMPACTION__FAN_IN": "2", "SERACDB_COMPACTION__AUTOMATIC": "false"}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        for first in [0, 10_000]:
            db.ingest("t", rows(first, 10_000, 200))
            began = time.monotonic()
            db.run("STORAGE FLUSH TABLE t")
            # 2 MB, at 1 MB a second.
            assert time.monotonic() - began >= 1
        began = time.monotonic()
        db.run("STORAGE COMPACT TABLE t")
        assert time.monotonic() - began >= 2
        assert batches(db, "t") == 1


def test_rows_of_streams_go_when_their_time_is_over(tmp_path):
    variables = {"SERACDB_JOBS__STREAM_EXPIRY_INTERVAL_SECONDS": "1"}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        db.run("CREATE STREAM TABLE s (n BIGINT) WITH (ttl = '1s')")
        db.run("INSERT INTO s VALUES (1), (2), (3)")
        until(lambda: jobs(db, "stream_expiry"), "a job has removed them")
        assert "3 rows" in jobs(db, "stream_expiry")[0]["message"]
        assert number(db, "SELECT count(*) AS n FROM s") == 0


def test_a_dropped_table_is_no_failure(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_JOBS__RUNNING_MAX": "1"}) as server, root(server) as db:
        for turn in range(5):
            db.run("CREATE TABLE t (n BIGINT, text TEXT) WITH (flush_rows = 1)")
            db.ingest("t", rows(turn, 10))
            db.run("DROP TABLE t")
        time.sleep(1.5)
        assert number(db, "SELECT count(*) AS n FROM system.jobs WHERE state IN ('failed', 'retrying')") == 0


@pytest.fixture
def crowded(tmp_path):
    """A server with room for few hot rows, which does not flush by itself."""
    variables = {
        "SERACDB_FLUSH__AUTOMATIC": "false",
        "SERACDB_FLUSH__TOTAL_BYTES_MAX": str(100 << 10),
        "SERACDB_FLUSH__BACKLOG_BYTES_MAX": str(200 << 10),
        "SERACDB_FLUSH__WAIT_SECONDS": "2",
    }
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        db.ingest("t", rows(0, 2000))
        yield db


def test_writers_wait_and_are_told_why_when_nothing_is_flushed(crowded):
    writes = [
        lambda: crowded.run("INSERT INTO t VALUES (1, 'x')"),
        lambda: crowded.run("UPDATE t SET n = 0 WHERE n = 5"),
        lambda: crowded.run("DELETE FROM t WHERE n = 7"),
        lambda: crowded.ingest("t", rows(0, 1)),
    ]
    for write in writes:
        began = time.monotonic()
        with pytest.raises(seracdb.Error, match=r"hot rows wait to be flushed.*flush\.backlog_bytes_max = 204800") as caught:
            write()
        assert "STORAGE FLUSH ALL" in str(caught.value)
        assert time.monotonic() - began >= 2
    # Reading goes on, nothing of it was written, and a flush makes room.
    assert number(crowded, "SELECT count(*) AS n FROM t") == 2000
    crowded.run("STORAGE FLUSH ALL")
    began = time.monotonic()
    for write in writes:
        write()
    assert number(crowded, "SELECT count(*) AS n FROM t") == 2001
    assert time.monotonic() - began < 2


def test_writers_that_wait_go_on_when_there_is_room(tmp_path):
    """Rows come faster than they are flushed: they wait, and all of them are there."""
    variables = {
        "SERACDB_FLUSH__HOT_BYTES_MAX": str(64 << 10),
        "SERACDB_FLUSH__TOTAL_BYTES_MAX": str(128 << 10),
        "SERACDB_FLUSH__BACKLOG_BYTES_MAX": str(256 << 10),
        "SERACDB_JOBS__BYTES_PER_SECOND_MAX": str(512 << 10),
    }
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        began = time.monotonic()
        for first in range(0, 20_000, 1000):
            db.ingest("t", rows(first, 1000))
        # 2 MB and more, at half a MB a second, of which a quarter MB may wait.
        assert time.monotonic() - began >= 3
        assert number(db, "SELECT count(DISTINCT n) AS n FROM t") == 20_000
        assert jobs(db, "flush")
