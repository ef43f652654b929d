"""WITH RECURSIVE that has no end ends when it is told to, when its client goes, or for want of memory; the server goes on."""

from __future__ import annotations

import pytest
import rawflight
import seracdb
from conftest import root
from test_manifests import until
from test_running import running
from test_seen import assert_cancelled, cancelled, number_of
from testserver import Server

#: One row with each step.
COUNTS = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT {} FROM n"
#: Twice as many rows with each step.
DOUBLES = "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT n.i + d.i FROM n, (VALUES (0), (1)) AS d (i)) SELECT count(*) FROM n"
#: All rows of before are remembered.
DISTINCT = "WITH RECURSIVE n AS (SELECT 1 AS i, '' AS s UNION SELECT i + 1, repeat('x', 10000) || i FROM n) SELECT count(*) FROM n"


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_LIMITS__USER__MEMORY_MAX": str(32 << 20)}) as running:
        yield running


def test_one_that_computes_is_cancelled(server):
    with root(server) as db, root(server) as other:
        thread, errors = cancelled(other, COUNTS.format("count(*)"))
        db.run(f"CANCEL QUERY '{number_of(db, 'WITH RECURSIVE n%')}'")
        assert_cancelled(thread, errors)
        until(lambda: running(db, "WITH RECURSIVE n%") == [], "it is gone")


def test_one_that_changes_rows_is_cancelled_and_changes_none(server):
    with root(server) as db, root(server) as other:
        db.run("CREATE TABLE t (n BIGINT)")
        thread, errors = cancelled(other, f"INSERT INTO t SELECT s.c FROM ({COUNTS.format('count(*) AS c')}) AS s")
        db.run(f"CANCEL QUERY '{number_of(db, 'INSERT INTO t%')}'")
        assert_cancelled(thread, errors)
        assert db.query("SELECT n FROM t").num_rows == 0


def test_one_whose_client_goes_ends(server):
    with root(server) as db, rawflight.client(server) as client:
        stream = client.start(COUNTS.format("i"))
        assert stream.read_chunk().data.num_rows > 0
        stream.cancel()
        until(lambda: running(db, "WITH RECURSIVE n%") == [], "it goes with its client")


@pytest.mark.parametrize("sql", [DOUBLES, DISTINCT], ids=["doubles", "distinct"])
def test_one_that_grows_ends_for_want_of_memory(server, sql):
    with root(server) as db:
        with pytest.raises(seracdb.Error, match="limits.user.memory_max"):
            db.query(sql)
        # What it had is free again.
        assert db.query(COUNTS.format("i") + " LIMIT 3")["i"].to_pylist() == [1, 2, 3]
