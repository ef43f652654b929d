"""What queries of frozen rows open and read: in a folder and in a bucket."""

from __future__ import annotations

import re

import pytest
import seracdb
from conftest import root
from object_stores import server_on

FILES = 10
ROWS = 1_000


@pytest.fixture
def loaded(shared, tmp_path):
    """A server, and a connection: table `t` with ten files, of 1,000 rows each."""
    with server_on(tmp_path / "data", shared.url) as server, root(server) as db:
        db.run("CREATE TABLE t (k BIGINT, name TEXT)")
        db.run("CREATE INDEX t_name ON t (name)")
        for first in range(0, FILES * ROWS, ROWS):
            series = f"generate_series({first}, {first + ROWS - 1})"
            # Each file's names range over all.
            db.run(f"INSERT INTO t SELECT value, 'name ' || (value * 7919 % {FILES * ROWS}) FROM {series}")
            db.run("STORAGE FLUSH TABLE t")
        yield server, db


UNITS = {"": 1, "K": 1_000, "M": 1_000_000, "KB": 1 << 10, "MB": 1 << 20}


def figures(db: seracdb.Connection, sql: str) -> dict[str, float]:
    """What EXPLAIN ANALYZE says of the scan. Numbers from 1,000 on are rounded."""
    plan = "\n".join(line for column in db.query(f"EXPLAIN ANALYZE {sql}").columns for line in column.to_pylist())
    shown = re.findall(r"(\w+)=([\d.]+)(?: ([KM]B?))?(?:[,\]]|$)", plan, re.MULTILINE)
    found = {name: float(value) * UNITS[unit] for name, value, unit in shown}
    assert {"batches_total", "batches_skipped", "batches_scanned", "bloom_filter_tests", "bytes_read"} <= set(found), plan
    return found


def ks(db: seracdb.Connection, where: str) -> list[int]:
    return db.query(f"SELECT k FROM t WHERE {where} ORDER BY k")["k"].to_pylist()


def test_a_key_opens_one_file_and_reads_a_tenth(loaded):
    _, db = loaded
    key = db.query("SELECT _id FROM t WHERE k = 5500")["_id"].to_pylist()[0]
    found = figures(db, f"SELECT * FROM t WHERE _id = {key}")
    assert (found["batches_total"], found["batches_skipped"], found["batches_scanned"]) == (FILES, FILES - 1, 1)
    assert ks(db, f"_id = {key}") == [5500]
    assert figures(db, f"SELECT * FROM t WHERE _id = {key + 1}")["batches_scanned"] <= 1
    every = figures(db, "SELECT * FROM t")
    assert every["batches_scanned"] == FILES
    assert found["bytes_read"] * 8 < every["bytes_read"]


def test_an_indexed_value_is_found_by_bloom_filters(loaded):
    _, db = loaded
    found = figures(db, f"SELECT * FROM t WHERE name = 'name {7919 * 3}'")
    # Names go as far as 9999: none is so, and text compares otherwise than numbers.
    assert found["batches_scanned"] <= 1 and found["bloom_filter_tests"] > 0
    assert ks(db, "name = 'name 7919'") == [1]
    assert figures(db, "SELECT * FROM t WHERE name = 'name 7919'")["batches_scanned"] <= 2


def test_masked_rows_stay_away_through_compaction_and_restart(loaded):
    server, db = loaded
    changed = db.query("SELECT _id FROM t WHERE k = 42")["_id"].to_pylist()[0]
    db.run("UPDATE t SET name = 'changed' WHERE k % 3 = 0")
    db.run("DELETE FROM t WHERE k % 3 = 1")
    kept = [k for k in range(FILES * ROWS) if k % 3 != 1]
    third = [k for k in kept if k % 3 == 0]

    def check() -> None:
        assert ks(db, "TRUE") == kept
        assert ks(db, "name = 'changed'") == third
        assert ks(db, f"_id = {changed}") == [42]
        assert db.query("SELECT count(*) AS n, sum(k) AS s FROM t").to_pylist() == [{"n": len(kept), "s": sum(kept)}]

    check()
    masked = FILES * ROWS - len([k for k in kept if k % 3 == 2])
    assert figures(db, "SELECT * FROM t")["rows_masked"] == pytest.approx(masked, abs=10)
    db.run("STORAGE FLUSH TABLE t")
    check()
    db.run("STORAGE COMPACT TABLE t")
    check()
    after = figures(db, "SELECT * FROM t")
    assert after["batches_total"] < FILES
    # Tombstones stay as long as there are files, archived ones included, that hold what they delete.
    assert after["rows_masked"] == pytest.approx(FILES * ROWS - len(kept), abs=10)
    server.restart()
    with root(server) as again:
        assert again.query("SELECT count(*) AS n, sum(k) AS s FROM t").to_pylist() == [{"n": len(kept), "s": sum(kept)}]
        again.run("STORAGE CHECK TABLE t")
