"""Ten threads on one row: every update succeeds and none is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import Connections, root

THREADS = 10
INCREMENTS = 20


@pytest.mark.parametrize("tier", ["hot", "cold", "flushed on the way"])
def test_increments_of_one_row(own_server, tier):
    with root(own_server) as db, Connections(own_server) as connections:
        db.run("CREATE NAMESPACE app")
        db.run("CREATE TABLE app.counters (k BIGINT, n BIGINT)")
        db.run("INSERT INTO app.counters (k, n) VALUES (1, 0), (2, 0)")
        if tier == "cold":
            db.run("STORAGE FLUSH TABLE app.counters")
        opened = [connections.open() for _ in range(THREADS)]

        def increment(connection) -> list:
            stamps = []
            for i in range(INCREMENTS):
                assert connection.run("UPDATE app.counters SET n = n + 1 WHERE k = 1") == 1
                stamps.append(connection.query("SELECT n FROM app.counters WHERE k = 1")["n"][0].as_py())
                if tier == "flushed on the way" and i == INCREMENTS // 2:
                    connection.run("STORAGE FLUSH TABLE app.counters")
            return stamps

        with ThreadPoolExecutor(THREADS) as pool:
            seen = list(pool.map(increment, opened))
        for stamps in seen:
            # Each one reads at least its own write, and never goes back.
            assert all(a < b for a, b in zip(stamps, stamps[1:], strict=False))
        expected = [{"k": 1, "n": THREADS * INCREMENTS}, {"k": 2, "n": 0}]
        for _ in ("as it is", "cold"):
            assert db.query("SELECT k, n FROM app.counters ORDER BY k").to_pylist() == expected
            db.run("STORAGE FLUSH TABLE app.counters")


def test_inserts_beside_each_other(own_server):
    """Ids are unique and each session's are in order."""
    with root(own_server) as db, Connections(own_server) as connections:
        db.run("CREATE NAMESPACE app")
        db.run("CREATE TABLE app.log (thread BIGINT, i BIGINT)")
        opened = [connections.open() for _ in range(THREADS)]

        def insert(thread: int) -> None:
            for i in range(INCREMENTS):
                assert opened[thread].run(f"INSERT INTO app.log (thread, i) VALUES ({thread}, {i})") == 1

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(insert, range(THREADS)))
        rows = db.query("SELECT _id, thread, i, _updated FROM app.log ORDER BY _id").to_pylist()
        assert len({r["_id"] for r in rows}) == THREADS * INCREMENTS
        for thread in range(THREADS):
            mine = [r for r in rows if r["thread"] == thread]
            assert [r["i"] for r in mine] == list(range(INCREMENTS))
            assert all(a["_updated"] < b["_updated"] for a, b in zip(mine, mine[1:], strict=False))


def test_flushes_beside_updates_lose_nothing(own_server):
    """Updates that arrive while their row is being flushed survive it."""
    rows, turns = 500, 10
    with root(own_server) as db, Connections(own_server) as connections:
        db.run("CREATE NAMESPACE app")
        db.run("CREATE TABLE app.t (k BIGINT, n BIGINT)")
        db.run(f"INSERT INTO app.t (k, n) VALUES {', '.join(f'({k}, 0)' for k in range(rows))}")
        flusher, updaters = connections.open(), [connections.open() for _ in range(4)]

        def update(part: int) -> None:
            for _ in range(turns):
                assert updaters[part].run(f"UPDATE app.t SET n = n + 1 WHERE k % 4 = {part}") == rows // 4

        with ThreadPoolExecutor(5) as pool:
            running = [pool.submit(update, part) for part in range(4)]
            while not all(f.done() for f in running):
                flusher.run("STORAGE FLUSH TABLE app.t")
            for f in running:
                f.result()
        found = db.query("SELECT count(*) AS rows, count(DISTINCT k) AS ks, min(n) AS low, max(n) AS high FROM app.t")
        assert found.to_pylist() == [{"rows": rows, "ks": rows, "low": turns, "high": turns}]
