"""Rows of stream tables live for as long as their table says, to the nanosecond, wherever they are read; then they are removed,
and were never in a file.

A statement has a time between that when it is sent and that when its answer is there. What it must have are the rows whose `_updated` is
not further back from the later one than their time to live, and what it may have those that are not further back from the
earlier one. However slow the machine is, the times are right.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import seracdb
from checking import checked
from conftest import root
from impersonation import PASSWORD, fill
from test_jobs import done
from test_jobs import run as run_job
from test_manifests import until
from testserver import Server

SECOND = 10**9
TTL = 2 * SECOND  # of the streams here, if nothing else is said
#: Nothing removes rows but the tests.
BY_HAND = {"SERACDB_JOBS__STREAM_EXPIRY_INTERVAL_SECONDS": "0"}


@dataclass
class Read:
    """What a statement found between two times."""

    sent: int
    answered: int
    #: By `n` the `_updated`.
    rows: dict[int, int]

    def checked(self, written: dict[int, int], ttl: int = TTL) -> Read:
        """Exactly the rows are there whose time is not over."""
        assert all(written[n] == updated for n, updated in self.rows.items())
        may, must = alive(written, self.sent, ttl), alive(written, self.answered, ttl)
        seen = set(self.rows)
        ages = {n: (self.sent - written[n], self.answered - written[n]) for n in (seen - may) | (must - seen)}
        assert must <= seen <= may, f"nanoseconds since they were written: {ages}"
        return self


def look(db: seracdb.Connection, query: str = "SELECT n, _updated FROM s") -> Read:
    sent = time.time_ns()
    found = db.query(query)
    answered = time.time_ns()
    times = found["_updated"].cast(pa.timestamp("ns")).cast(pa.int64()).to_pylist()
    read = Read(sent, answered, dict(zip(found["n"].to_pylist(), times, strict=True)))
    assert len(read.rows) == found.num_rows, "a row is there twice"
    return read


def alive(written: dict[int, int], at: int, ttl: int = TTL) -> set[int]:
    return {n for n, updated in written.items() if updated >= at - ttl}


def watch(read: Callable[[], Read], written: dict[int, int], ttl: int = TTL) -> int:
    """Reads until all are gone. Gives how often some were there."""
    some, end = 0, time.monotonic() + 120
    while time.monotonic() < end:
        found = read().checked(written, ttl)
        some += bool(found.rows)
        if found.sent > max(written.values()) + ttl:
            assert not found.rows
            return some
    raise AssertionError("rows never expire")


def insert(db: seracdb.Connection, numbers: range) -> dict[int, int]:
    """One statement for each; gives their times, or those of the rows that are still there."""
    for n in numbers:
        assert db.run(f"INSERT INTO s (n) VALUES ({n})") == 1
    return look(db).rows


def end_in(db: seracdb.Connection, table: str, written: dict[int, int], seconds: int) -> int:
    """Gives the rows of a table so long from now; gives their time to live."""
    ms = (time.time_ns() - min(written.values())) // 10**6 + seconds * 1000
    db.run(f"ALTER TABLE {table} SET (ttl = '{ms}ms')")
    return ms * 10**6


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "data", variables=BY_HAND) as running:
        yield running


def stream(db: seracdb.Connection, ttl: str = "2s") -> None:
    db.run(f"CREATE STREAM TABLE s (n BIGINT, text TEXT) WITH (ttl = '{ttl}')")


def test_a_row_is_there_until_its_time_is_over_and_not_after(server):
    with root(server) as db:
        stream(db)
        # Some expire while others come.
        written = insert(db, range(20))
        time.sleep(0.3)  # so that they do not all go at once
        db.run("INSERT INTO s (n) SELECT value FROM generate_series(100, 149)")
        written |= look(db).rows
        assert len({written[n] for n in written if n >= 100}) == 1, "one commit, one time"
        assert watch(lambda: look(db), written) > 0
        checked(server)


def test_a_change_lets_a_row_live_on_and_one_that_expired_cannot_be_changed(server):
    with root(server) as db:
        stream(db)
        first = insert(db, range(4))
        assert db.run("UPDATE s SET text = 'again' WHERE n = 2") == 1
        written = first | look(db).rows
        assert written[2] > first[2]
        watch(lambda: look(db), written)
        for sql in ("UPDATE s SET n = n + 1", "DELETE FROM s", "DELETE FROM s WHERE n = 2", "INSERT INTO s SELECT * EXCLUDE (_id, _updated) FROM s"):
            assert db.run(sql) == 0, sql
        assert db.query("UPDATE s SET n = 0 RETURNING n").num_rows == 0
        assert db.run("MERGE INTO s USING (VALUES (2)) AS v (n) ON s.n = v.n WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (n) VALUES (-1)") == 1
        assert set(look(db).rows) <= {-1}
        checked(server)


#: Each gives how many rows it finds.
READS = {
    "count": "SELECT (SELECT count(*) FROM s) AS found",
    "count of a column": "SELECT (SELECT count(n) FROM s) AS found",
    "count by a condition": "SELECT (SELECT count(*) FROM s WHERE n >= 0 AND text IS NULL) AS found",
    "sum": "SELECT (SELECT coalesce(sum(1), 0) FROM s) AS found",
    "count of distinct": "SELECT (SELECT count(DISTINCT _id) FROM s) AS found",
    "join": "SELECT (SELECT count(*) FROM common AS c JOIN s ON c.n = s.n) AS found",
    "semi join": "SELECT (SELECT count(*) FROM common WHERE n IN (SELECT n FROM s)) AS found",
    "anti join": "SELECT (SELECT 30 - count(*) FROM common AS c WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.n = c.n)) AS found",
    "self join": "SELECT (SELECT count(*) FROM s AS a JOIN s AS b USING (_id)) AS found",
    "union": "SELECT (SELECT count(*) FROM (SELECT n FROM s UNION SELECT n FROM s) AS u) AS found",
    "order and limit": "SELECT (SELECT count(*) FROM (SELECT n FROM s ORDER BY n DESC LIMIT 1000) AS u) AS found",
    "view": "SELECT (SELECT count(*) FROM v) AS found",
    "with": "WITH w AS (SELECT n FROM s) SELECT (SELECT count(*) FROM w) AS found",
    "by id": "SELECT (SELECT count(*) FROM s WHERE _id IN (SELECT id FROM ids)) AS found",
    "by time": "SELECT (SELECT count(*) FROM s WHERE _updated <= now()) AS found",
}


@pytest.mark.parametrize("restart", ["", "stopped", "killed"])
def test_what_expired_is_in_nothing_that_reads(server, restart):
    with root(server) as db:
        stream(db, "1h")
        db.run("CREATE TABLE common (n BIGINT)")
        db.run("INSERT INTO common SELECT value FROM generate_series(0, 29)")
        db.run("STORAGE FLUSH TABLE common")
        db.run("CREATE VIEW v AS SELECT n FROM s")
        written = insert(db, range(30))
        db.run("CREATE TABLE ids AS SELECT _id AS id FROM s")
        # Some of the rows have another version: the time of the newest counts.
        db.run("UPDATE s SET n = n WHERE n % 3 = 0")
        written |= look(db).rows
        assert len(written) == 30
        ttl = end_in(db, "s", written, 2)
    if restart:
        server.stop() if restart == "stopped" else server.kill()
        server.start()
    with root(server) as db:
        counted, end = 0, time.monotonic() + 120
        while True:
            for what, sql in READS.items():
                sent = time.time_ns()
                n = db.query(sql)["found"][0].as_py()
                least, most = (len(alive(written, at, ttl)) for at in (time.time_ns(), sent))
                assert least <= n <= most, what
                counted += n > 0
            if sent > max(written.values()) + ttl:
                break
            assert time.monotonic() < end
        # A slow machine starts too late for the rows.
        assert counted > 0 or restart
        # Nor after another start, with nothing removed yet.
        db.close()
        server.kill()
        server.start()
    with root(server) as db:
        assert [db.query(sql)["found"][0].as_py() for sql in READS.values()] == [0] * len(READS)
        checked(server)


def test_each_user_has_rows_of_their_own_until_they_expire(server):
    """By themselves, by AS USER, and with the rows of all users."""
    fill(server)
    with root(server) as db:
        db.run("CREATE STREAM TABLE app.s (n BIGINT) WITH (ttl = '1h')")
        with seracdb.connect(server.uri, "ann", PASSWORD) as ann, seracdb.connect(server.uri, "the_service", PASSWORD) as service:
            for n in range(10):
                assert service.run(f"INSERT INTO app.s AS USER '{'ann' if n % 2 else 'bob'}' VALUES ({n})") == 1
            of = "SELECT n, _updated FROM app.s"
            ways = {
                "ann": lambda: look(ann, of),
                "as ann": lambda: look(service, f"EXECUTE AS USER 'ann' ({of})"),
                "as bob": lambda: look(service, f"EXECUTE AS USER 'bob' ({of})"),
                "all": lambda: look(db, "SELECT n, _updated FROM all_users('app.s')"),
            }
            written = ways["all"]().rows
            assert len(written) == 10
            ttl = end_in(db, "app.s", written, 1)
            for what, read in ways.items():
                mine = {n: at for n, at in written.items() if what == "all" or (n % 2 == 0) == (what == "as bob")}
                watch(read, mine, ttl) if what == "all" else read().checked(mine, ttl)
            for what, read in ways.items():
                assert not read().rows, what
            assert service.run("DELETE FROM app.s AS USER 'ann' WHERE n > 0") == 0
            assert service.run("UPDATE app.s AS USER 'bob' SET n = 1") == 0
        checked(server)


def test_another_time_to_live_counts_for_the_rows_that_there_are(server):
    with root(server) as db:
        stream(db, "1h")
        written = insert(db, range(5))
        watch(lambda: look(db), written, end_in(db, "s", written, 1))
        checked(server)


def files(data_dir: Path) -> list[str]:
    return sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*.parquet"))


def versions(db: seracdb.Connection, table: str = "s") -> int:
    """All that is stored of a table, as of the last commit."""
    db.run("INSERT INTO clock VALUES (1)")
    return db.query(f"SELECT versions FROM system.tables WHERE \"table\" = '{table}'")["versions"][0].as_py()


def test_the_job_removes_what_expired_and_nothing_else_and_there_is_never_a_file(tmp_path):
    """Loads that elsewhere would be files at once, and so many rows that elsewhere they would be flushed."""
    variables = BY_HAND | {"SERACDB_ENGINE__BULK_BYTES_MIN": "1000", "SERACDB_FLUSH__HOT_BYTES_MAX": "20000"}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db:
        stream(db, "1h")
        db.run("CREATE TABLE clock (n INT)")
        db.run("CREATE STREAM TABLE kept (n BIGINT, text TEXT) WITH (ttl = '1h')")
        load = pa.table({"n": range(2000), "text": ["snow and ice"] * 2000})
        for table in ("s", "kept"):
            assert db.ingest(table, load) == 2000
            assert db.run(f"INSERT INTO {table} SELECT value, 'more of it' FROM generate_series(2000, 2999)") == 1000
            assert db.run(f"UPDATE {table} SET text = 'changed' WHERE n < 100") == 100
            assert db.run(f"DELETE FROM {table} WHERE n >= 2900") == 100
        for sql in ("STORAGE FLUSH TABLE s", "STORAGE COMPACT TABLE s"):
            with pytest.raises(seracdb.Error, match="is a stream table"):
                db.run(sql)
        db.run("STORAGE FLUSH ALL")
        db.run("ALTER TABLE s SET (ttl = '1ms')")
        until(lambda: not look(db).rows, "they expire")
        # Unseen, and still there.
        assert (versions(db), versions(db, "kept")) == (3200, 3200)
        kept = 3200
        assert "3200 rows, 0 files" in done(db, run_job(db, "stream_expiry"))["message"]
        assert (versions(db), versions(db, "kept")) == (0, kept)
        assert db.query("SELECT count(*) AS n FROM kept")["n"].to_pylist() == [2900]
        assert "0 rows" in done(db, run_job(db, "stream_expiry"))["message"], "it found them all"
        assert db.query("SELECT count(*) AS n FROM system.batches")["n"].to_pylist() == [0]
        assert files(server.data_dir) == []
        # An ordinary table would have had some.
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        db.ingest("t", load)
        assert files(server.data_dir) != []
        db.run("DROP TABLE t")
        server.restart()
        with root(server) as again:
            assert (versions(again), versions(again, "kept")) == (0, kept)
            assert again.query("SELECT count(*) AS n FROM kept WHERE text = 'changed'")["n"].to_pylist() == [100]
            assert [name for name in files(server.data_dir) if "kept" in name or "/s/" in name] == []
        checked(server)


def test_removing_goes_on_beside_writers_and_takes_only_what_expired(server):
    """The job runs all the time while rows are written and changed: each row is there for its time, and each is gone after it."""
    with root(server) as db:
        stream(db)
        db.run("CREATE TABLE clock (n INT)")
        written, n, end = {}, 0, time.monotonic() + 4
        while time.monotonic() < end:
            n += 1
            assert db.run(f"INSERT INTO s (n) VALUES ({n})") == 1
            if n % 3 == 0:
                db.run(f"UPDATE s SET text = 'changed' WHERE n BETWEEN {n - 2} AND {n}")
            if n % 5 == 0:
                assert done(db, run_job(db, "stream_expiry"))["state"] == "completed"
            found = look(db)
            written |= found.rows
            found.checked(written)
        assert len(written) > len(look(db).rows), "some have expired"
        watch(lambda: look(db), written)
        done(db, run_job(db, "stream_expiry"))
        assert versions(db) == 0
        checked(server)


def test_what_the_job_removed_is_not_counted(tmp_path):
    with Server(tmp_path / "data", variables=BY_HAND) as running, root(running) as db:
        stream(db, "100ms")
        db.run("INSERT INTO s (n) VALUES (1), (2)")
        until(lambda: db.query("SELECT n FROM s").num_rows == 0, "they expire")
        assert "2 rows" in done(db, run_job(db, "stream_expiry"))["message"]
        assert db.query("SELECT versions FROM system.tables WHERE \"table\" = 's'")["versions"].to_pylist() == [0]


def test_rows_that_expired_and_could_live_again_count_for_a_constraint(tmp_path):
    with Server(tmp_path / "data", variables=BY_HAND) as running, root(running) as db:
        stream(db, "100ms")
        db.run("INSERT INTO s (n) VALUES (1), (NULL)")
        until(lambda: db.query("SELECT n FROM s").num_rows == 0, "they expire")
        with pytest.raises(seracdb.InvalidArgument, match="rows with NULL"):
            db.run("ALTER TABLE s ALTER COLUMN n SET NOT NULL")
        done(db, run_job(db, "stream_expiry"))
        db.run("ALTER TABLE s ALTER COLUMN n SET NOT NULL")
        db.run("ALTER TABLE s SET (ttl = '1d')")
        assert db.query("SELECT n FROM s").num_rows == 0
