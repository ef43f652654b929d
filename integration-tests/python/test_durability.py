"""What was acknowledged survives kill -9; what was not is wholly there or wholly absent."""

from __future__ import annotations

import resource
import threading
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
import seracdb
from conftest import root
from testserver import Server

TABLE = "app.loaded"
ROWS = 200
ROUNDS = 4


@dataclass
class Load:
    """What a client knows of its batches: acknowledged, or sent without an answer."""

    acknowledged: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)

    def next_batch(self) -> int:
        return max([*self.acknowledged, *self.unknown], default=-1) + 1


def batch_rows(batch: int) -> pa.Table:
    return pa.table(
        {
            "batch": pa.array([batch] * ROWS, pa.int64()),
            "n": pa.array(range(ROWS), pa.int64()),
            "text": [f"row {n} of batch {batch}" for n in range(ROWS)],
        }
    )


def by_ingest(db: seracdb.Connection, batch: int) -> None:
    assert db.ingest(TABLE, batch_rows(batch)) == ROWS


def by_insert(db: seracdb.Connection, batch: int) -> None:
    assert db.run(f"INSERT INTO {TABLE} (batch, n, text) VALUES (?, ?, ?)", batch_rows(batch)) == ROWS


def by_update(db: seracdb.Connection, batch: int) -> None:
    """A batch that comes in with a wrong number and is put right: the second step is the acknowledgement."""
    by_insert(db, -batch - 1)
    assert db.run(f"UPDATE {TABLE} SET batch = {batch} WHERE batch = {-batch - 1}") == ROWS


def load_until_killed(server: Server, load: Load, send, kill_after: int) -> None:
    """Sends batches until the server is gone; a second thread kills it while one is on its way."""
    enough = threading.Event()

    def killer() -> None:
        enough.wait(300)
        server.kill()

    thread = threading.Thread(target=killer)
    thread.start()
    db = root(server)
    try:
        for sent in range(100_000):
            batch = load.next_batch()
            load.unknown.append(batch)
            if sent == kill_after:
                enough.set()
            send(db, batch)
            load.unknown.remove(batch)
            load.acknowledged.append(batch)
    except seracdb.Error:
        assert enough.is_set(), f"failed before the kill:\n{server.log()[-4000:]}"
    finally:
        enough.set()
        thread.join()
        close_quietly(db)


def close_quietly(db: seracdb.Connection) -> None:
    """Closes a connection whose server is gone."""
    try:
        db.close()
    except seracdb.Error:
        pass


def flush_until(server: Server, stop: threading.Event) -> None:
    db = root(server)
    try:
        while not stop.is_set():
            db.run(f"STORAGE FLUSH TABLE {TABLE}")
    except seracdb.Error:
        pass  # the kill came first
    finally:
        close_quietly(db)


def check(server: Server, load: Load) -> list[dict]:
    with root(server) as db:
        batches = db.query(
            f"""SELECT batch, count(*) AS rows, count(DISTINCT n) AS ns, sum(n) AS total,
                count(DISTINCT text) AS texts, count(DISTINCT _id) AS ids
                FROM {TABLE} WHERE batch >= 0 GROUP BY batch ORDER BY batch"""
        ).to_pylist()
        strangers = db.query(f"SELECT count(*) AS n FROM {TABLE} WHERE text NOT LIKE 'row % of batch %'")
    whole = {"rows": ROWS, "ns": ROWS, "total": ROWS * (ROWS - 1) // 2, "texts": ROWS, "ids": ROWS}
    for found in batches:
        assert found == {"batch": found["batch"], **whole}
    present = {found["batch"] for found in batches}
    assert not set(load.acknowledged) - present, "acknowledged batches are gone"
    assert not present - set(load.acknowledged) - set(load.unknown), "batches that nobody sent"
    assert strangers["n"].to_pylist() == [0]
    return batches


@pytest.mark.parametrize("flushing", [False, True], ids=["hot", "while flushing"])
@pytest.mark.parametrize("send", [by_ingest, by_insert, by_update])
def test_kill_during_a_load(own_server, send, flushing):
    with root(own_server) as db:
        db.run("CREATE NAMESPACE app")
        db.run(f"CREATE TABLE {TABLE} (batch BIGINT NOT NULL, n BIGINT NOT NULL, text TEXT)")
    load = Load()
    for turn in range(ROUNDS):
        stop = threading.Event()
        flusher = threading.Thread(target=flush_until, args=(own_server, stop))
        if flushing:
            flusher.start()
        load_until_killed(own_server, load, send, kill_after=5 + 7 * turn)
        stop.set()
        if flushing:
            flusher.join()
        own_server.start()
        first = check(own_server, load)
        # What is there stays there, and what is absent stays absent.
        own_server.kill()
        own_server.start()
        assert check(own_server, load) == first
        present = {found["batch"] for found in first}
        load.acknowledged += [b for b in load.unknown if b in present]
    assert len(load.acknowledged) >= ROUNDS * 5
    with root(own_server) as db:
        db.run(f"STORAGE FLUSH TABLE {TABLE}")
    check(own_server, load)


def test_a_disk_that_takes_no_more_ends_the_server_and_loses_nothing(own_server):
    """After a write that failed nobody knows what the log holds: nothing more may be acknowledged."""
    with root(own_server) as db:
        db.run("CREATE NAMESPACE app")
        db.run(f"CREATE TABLE {TABLE} (batch BIGINT NOT NULL, n BIGINT NOT NULL, text TEXT)")
    load = Load()
    db = root(own_server)
    by_ingest(db, 0)
    load.acknowledged.append(0)
    _, hard = resource.prlimit(own_server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(own_server.process.pid, resource.RLIMIT_FSIZE, (512 << 10, hard))
    with pytest.raises(seracdb.Error):
        for _ in range(10_000):
            load.unknown.append(load.next_batch())
            by_ingest(db, load.unknown[-1])
            load.acknowledged.append(load.unknown.pop())
    close_quietly(db)
    assert own_server.process.wait(60) != 0
    assert "nothing more is committed or acknowledged" in own_server.log()
    assert len(load.acknowledged) > 1, "the limit came before the first batch"
    own_server.start()
    check(own_server, load)
    with root(own_server) as db:
        by_ingest(db, load.next_batch())
