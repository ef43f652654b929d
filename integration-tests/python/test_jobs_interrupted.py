"""Jobs of all types that are cancelled or killed at any moment: rows stay right, and what was asked for is done after all.

Where in a job that is, `jobs_interrupted.rs` decides; here it is left to chance, in the real process.
"""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
import seracdb
from checking import clean
from conftest import root
from test_jobs import TYPES, done, job, run
from test_manifests import until
from testserver import Server

SETTINGS = {"SERACDB_FLUSH__AUTOMATIC": "false", "SERACDB_COMPACTION__RETENTION_SECONDS": "1"}
TABLE = '{"namespace": "app", "table": "notes"}'
PARAMS = {
    **dict.fromkeys(["flush", "compact", "rebuild_manifest", "cleanup", "retention"], TABLE),
    "manifest_eviction": '{"max_entries": 1, "ttl_seconds": 1}',
    "stream_expiry": "{}",
}
USERS = ["ann", "bob", "cat"]
ROWS = 20_000


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "data", variables=SETTINGS) as running:
        with root(running) as db:
            db.run("CREATE NAMESPACE app")
            db.run("CREATE USER TABLE app.notes (n BIGINT, v BIGINT)")
            db.run("CREATE STREAM TABLE app.events (n BIGINT) WITH (ttl = '1ms')")
            for user in USERS:
                db.run(f"CREATE USER {user} WITH PASSWORD 'long enough' ROLE user")
        yield running


def make_work(db: seracdb.Connection, turn: int) -> None:
    """Something to flush, merge, retire and expire, for each user."""
    for user in USERS:
        first = turn * ROWS
        rows = f"SELECT value, value FROM generate_series({first}, {first + ROWS - 1})"
        db.run(f"INSERT INTO app.notes AS USER '{user}' {rows}")
        db.run(f"UPDATE app.notes AS USER '{user}' SET v = v + 1 WHERE n % 3 = {turn % 3}")
        db.run(f"INSERT INTO app.events AS USER '{user}' SELECT value FROM generate_series(1, 1000)")


def sums(db: seracdb.Connection) -> dict[str, dict]:
    sql = "SELECT count(*) AS n, count(DISTINCT n) AS d, sum(v) AS s FROM app.notes"
    return {user: db.query(f"EXECUTE AS USER '{user}' ({sql})").to_pylist()[0] for user in USERS}


def test_killed(server):
    chance, attempts = random.Random(5), Counter()
    for turn in range(3):
        with root(server) as db:
            make_work(db, turn)
            expected = sums(db)
            assert all(row["n"] == row["d"] == (turn + 1) * ROWS for row in expected.values())
            asked = {job_type: run(db, job_type, PARAMS[job_type]) for job_type in TYPES}
            until(lambda: any(job(db, i)["state"] == "running" for i in asked.values()) or turn > 0, "a job runs")
            time.sleep(chance.uniform(0, 0.3))
        server.kill()
        clean(server.data_dir, variables=SETTINGS)
        server.start()
        with root(server) as db:
            for job_type, job_id in asked.items():
                row = done(db, job_id)
                assert row["state"] == "completed", f"{job_type}: {row}"
                attempts[row["attempts"]] += 1
            assert sums(db) == expected
    assert attempts[2] > 0 and set(attempts) <= {1, 2}, attempts
    server.stop()
    clean(server.data_dir, variables=SETTINGS)


@pytest.mark.parametrize("job_type", TYPES)
def test_cancelled(server, job_type):
    with root(server) as db:
        make_work(db, 0)
        if job_type != "flush":
            db.run("STORAGE FLUSH TABLE app.notes")
        expected = sums(db)
        for wait in [0, 0.005, 0.02]:
            job_id = run(db, job_type, PARAMS[job_type])
            time.sleep(wait)
            db.run(f"CANCEL JOB '{job_id}'")
            # One that was nearly done comes to its end.
            assert done(db, job_id)["state"] in ["cancelled", "completed"]
            assert sums(db) == expected
        assert done(db, run(db, job_type, PARAMS[job_type]))["state"] == "completed"
        assert sums(db) == expected
    server.stop()
    clean(server.data_dir, variables=SETTINGS)


def test_one_that_runs_is_cancelled(server):
    with root(server) as db:
        make_work(db, 0)
        expected = sums(db)
        job_id = run(db, "flush", TABLE)
        until(lambda: job(db, job_id)["state"] != "queued", "it runs")
        db.run(f"CANCEL JOB '{job_id}'")
        row = done(db, job_id)
        assert row["state"] == "cancelled" and row["attempts"] == 1, row
        flushed = db.query("SELECT count(*) AS n FROM system.batches WHERE status = 'active'").to_pylist()[0]["n"]
        assert flushed < len(USERS), "no further part was begun"
        assert sums(db) == expected
