"""EXPLAIN and EXPLAIN ANALYZE for people: in the shell, on tables with cold and hot rows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
import seracdb
from conftest import root
from testserver import ROOT_PASSWORD, Server, binary

OURS = re.compile(r"__serac|seracdb target|seracdb all users|\.parquet|/t/|shared/")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Iterator[tuple[Server, seracdb.Connection]]:
    """`t`: two files of 10,000 rows, one row changed since, one hot row; `own`: the same in the rows of a user."""
    variables = {"SERACDB_COMPACTION__AUTOMATIC": "false"}
    with Server(tmp_path_factory.mktemp("explain") / "data", variables=variables) as server, root(server) as db:
        for table, kind in [("t", ""), ("own", "USER")]:
            db.run(f"CREATE {kind} TABLE {table} (n BIGINT, text TEXT)")
            for start in (1, 20_001):
                series = f"generate_series({start}, {start + 9_999})"
                db.run(f"INSERT INTO {table} SELECT value, 'text ' || value FROM {series}")
                db.run(f"STORAGE FLUSH TABLE {table}")
            db.run(f"UPDATE {table} SET text = 'changed' WHERE n = 5")
            db.run(f"INSERT INTO {table} VALUES (50000, 'hot')")
        yield server, db


def shown(server: Server, sql: str) -> str:
    command = [binary(), "sql", "--uri", server.uri, "-c", sql]
    done = subprocess.run(command, env={"SERACDB_PASSWORD": ROOT_PASSWORD}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def plan(db: seracdb.Connection, sql: str) -> str:
    return "\n".join(db.query(sql).column("plan").to_pylist())


@pytest.mark.parametrize("table", ["t", "own"])
def test_a_key_opens_one_file_and_the_plan_says_so(loaded, table):
    server, _ = loaded
    text = shown(server, f"EXPLAIN ANALYZE SELECT text FROM {table} WHERE n = 25000")
    assert not OURS.search(text), text
    lines = [line.strip("| ").strip() for line in text.splitlines()]
    at = next(place for place, line in enumerate(lines) if line.startswith("DataSourceExec"))
    assert lines[at] == "DataSourceExec: files=1, projection=[text], predicate=n@1 = 25000"
    figures = " ".join(lines[at + 1 : at + 8])
    for figure in ["output_rows=1", "batches_total=2", "batches_skipped=1", "batches_scanned=1", "rows_masked=0"]:
        assert re.search(rf"\b{figure}\b", figures), text
    assert "HotRowsExec: projection=[n, text]" in text
    # No line is wider than a screen, and nothing that says nothing is there.
    assert max(map(len, text.splitlines())) <= 140, text
    for noise in ["=0.0 B", "spill", "0 total", "=1ns", "file_open_errors", "metrics=["]:
        assert noise not in text, noise


def test_all_is_there_for_who_asks(loaded):
    _, db = loaded
    text = plan(db, "EXPLAIN ANALYZE VERBOSE SELECT text FROM t WHERE n = 25000")
    for detail in ["pruning_predicate=", "required_guarantees=", "file_open_errors=0", "batches_total=2", ".parquet"]:
        assert detail in text, text


def test_rows_that_are_masked_and_bloom_filters(loaded):
    _, db = loaded
    text = plan(db, "EXPLAIN ANALYZE SELECT count(*) FROM t WHERE n < 100")
    assert "rows_masked=1" in text and "batches_scanned=1" in text, text
    key = db.query("SELECT _id FROM t WHERE n = 7")["_id"][0].as_py()
    text = plan(db, f"EXPLAIN ANALYZE SELECT n FROM t WHERE _id = {key}")
    assert "batches_scanned=1" in text and "batches_skipped=1" in text, text


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN DELETE FROM t WHERE n = 3",
        "EXPLAIN UPDATE t SET text = 'x' WHERE n = 3",
        "EXPLAIN SELECT t.n FROM t JOIN own ON t.n = own.n",
        "EXPLAIN SELECT count(*) FROM all_users('own')",
        "EXPLAIN ANALYZE SELECT count(*) FROM all_users('own')",
        "EXPLAIN ANALYZE SELECT t.n, count(*) FROM t JOIN own ON t.n = own.n GROUP BY t.n ORDER BY 2 LIMIT 3",
        "EXPLAIN INSERT INTO t SELECT n, text FROM own",
    ],
)
def test_names_that_are_ours_are_in_no_plan(loaded, sql):
    _, db = loaded
    assert not OURS.search(plan(db, sql)), plan(db, sql)


@pytest.mark.parametrize("form", ["tree", "pgjson", "graphviz"])
def test_other_forms(loaded, form):
    _, db = loaded
    text = plan(db, f"EXPLAIN FORMAT {form} DELETE FROM t WHERE n = 3")
    assert "__serac" not in text and "seracdb target" not in text, text


def test_what_the_statement_says_stays(loaded):
    _, db = loaded
    text = plan(db, "EXPLAIN ANALYZE SELECT n FROM t WHERE text = 'a, b], metrics=[c'")
    assert "a, b], metrics=[c" in text, text
