"""RETURNING: INSERT, UPDATE and DELETE that give the rows they have written, through the drivers."""

from __future__ import annotations

import threading

import pytest
import seracdb
from conftest import root
from testserver import Server


@pytest.fixture
def db(server, namespace):
    with root(server) as connection:
        connection.run(f"USE {namespace}")
        connection.run("CREATE TABLE t (n BIGINT, text TEXT)")
        yield connection


def test_what_is_given_is_what_is_there(db):
    given = db.query("INSERT INTO t VALUES (1, 'one'), (2, 'two') RETURNING *")
    assert given.column_names == ["_id", "n", "text", "_updated"]
    assert sorted(given.to_pylist(), key=lambda row: row["n"]) == db.query("SELECT * FROM t ORDER BY n").to_pylist()
    (given,) = db.query("UPDATE t SET text = 'TWO' WHERE n = 2 RETURNING *").to_pylist()
    assert [given] == db.query("SELECT * FROM t WHERE n = 2").to_pylist()
    before = db.query("SELECT * FROM t WHERE n = 1").to_pylist()
    assert db.query("DELETE FROM t WHERE n = 1 RETURNING *").to_pylist() == before
    assert db.query("SELECT n FROM t")["n"].to_pylist() == [2]


def test_parameters_are_bound_and_a_statement_runs_once(db):
    for n in range(3):
        row = db.query("INSERT INTO t VALUES (?, ?) RETURNING n, text", [n, str(n)]).to_pylist()
        assert row == [{"n": n, "text": str(n)}]
    assert db.query("UPDATE t SET n = n + ? WHERE n > ? RETURNING n", [10, 1])["n"].to_pylist() == [12]
    assert db.query("DELETE FROM t WHERE n = ? RETURNING text", [12])["text"].to_pylist() == ["2"]
    assert sorted(db.query("SELECT n FROM t")["n"].to_pylist()) == [0, 1]
    # Who asks for a count only has it done all the same, and once.
    db.run("INSERT INTO t VALUES (7, 'seven') RETURNING n")
    assert db.query("SELECT count(*) AS n FROM t WHERE n = 7").to_pylist() == [{"n": 1}]


def test_each_of_many_who_count_gets_a_number_of_their_own(server, db, namespace):
    db.run("INSERT INTO t VALUES (0, 'counter')")
    threads, turns, given = 8, 25, []

    def count() -> None:
        with root(server) as own:
            for _ in range(turns):
                rows = own.query(f"UPDATE {namespace}.t SET n = n + 1 WHERE text = 'counter' RETURNING n")
                given.extend(rows["n"].to_pylist())

    running = [threading.Thread(target=count) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert sorted(given) == list(range(1, threads * turns + 1))


def test_a_transaction_gives_rows_whose_time_is_to_come(db):
    db.run("BEGIN")
    (row,) = db.query("INSERT INTO t VALUES (1, 'one') RETURNING *").to_pylist()
    assert row["_updated"] is None and row["n"] == 1
    assert db.query("UPDATE t SET n = 2 RETURNING n, _id").to_pylist() == [{"n": 2, "_id": row["_id"]}]
    db.run("ROLLBACK")
    assert db.query("SELECT * FROM t").num_rows == 0
    with pytest.raises(seracdb.Error, match="(?i)zero"):
        db.query("INSERT INTO t VALUES (0, 'x') RETURNING 1 / n")
    assert db.query("SELECT * FROM t").num_rows == 0


def test_who_is_given_rows_needs_to_read_them(tmp_path):
    with Server(tmp_path / "data") as server, root(server) as db:
        db.run("CREATE USER ann WITH PASSWORD 'long enough' ROLE user")
        db.run("CREATE USER helper WITH PASSWORD 'long enough' ROLE service")
        db.run("CREATE TABLE t (n BIGINT)")
        db.run("CREATE TABLE hidden (n BIGINT)")
        db.run("CREATE USER TABLE notes (n BIGINT)")
        db.run("GRANT INSERT, UPDATE, DELETE ON t TO ann")
        with seracdb.connect(server.uri, "ann", "long enough") as ann:
            for sql in ["INSERT INTO t VALUES (1)", "UPDATE t SET n = 1", "DELETE FROM t"]:
                with pytest.raises(seracdb.PermissionDenied, match="no right to SELECT"):
                    ann.query(f"{sql} RETURNING n")
            assert ann.run("INSERT INTO t VALUES (1)") == 1
            db.run("GRANT SELECT ON t TO ann")
            assert ann.query("INSERT INTO t VALUES (2) RETURNING n").to_pylist() == [{"n": 2}]
            with pytest.raises(seracdb.NotFound):
                ann.query("DELETE FROM t RETURNING (SELECT max(n) FROM hidden)")
            assert ann.query("SELECT * FROM t").num_rows == 2
        with seracdb.connect(server.uri, "helper", "long enough") as helper:
            rows = helper.query("INSERT INTO notes AS USER 'ann' VALUES (5) RETURNING n")
            assert rows.to_pylist() == [{"n": 5}]
            assert helper.query("SELECT * FROM notes").num_rows == 0
        where = "subject_user_id = 'ann' AND action = 'INSERT'"
        entries = db.query(f"SELECT actor_user_id, rows, outcome FROM system.audit_log WHERE {where}").to_pylist()
        assert entries == [{"actor_user_id": "helper", "rows": 1, "outcome": "committed"}]
