"""RETURNING: INSERT, UPDATE and DELETE that give the rows they have written, through the drivers."""

from __future__ import annotations

import threading

import pyarrow as pa
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


def test_parameters_stand_in_it_too(db):
    row = db.query("INSERT INTO t VALUES (?, ?) RETURNING n + ? AS m, text || ?", [1, "one", 10, "!"]).to_pylist()
    assert [list(values.values()) for values in row] == [[11, "one!"]]
    db.run("INSERT INTO t VALUES (2, 'two')")
    given = db.query("UPDATE t SET n = n * $1 WHERE n >= $2 RETURNING n * $1 AS m, n > $3 AS large", [10, 2, 15])
    assert given.to_pylist() == [{"m": 200, "large": True}]
    found = "UPDATE t SET n = s.k FROM (SELECT CAST(? AS BIGINT) AS k, CAST(? AS TEXT) AS name) AS s WHERE t.text = s.name"
    given = db.query(f"{found} RETURNING t.n, s.name || ? AS name, s.k - ? AS less", [7, "two", "?", 3])
    assert given.to_pylist() == [{"n": 7, "name": "two?", "less": 4}]
    given = db.query("DELETE FROM t WHERE n = 7 RETURNING (SELECT count(*) FROM t WHERE n < ?) AS others", [5])
    assert given["others"].to_pylist() == [1]
    with pytest.raises(Exception, match="is not an integer"):
        db.query("DELETE FROM t RETURNING n + ?", [1.5])
    assert db.query("SELECT count(*) AS n FROM t")["n"].to_pylist() == [1]


#: Both take a number and a text.
UPSERT = "INSERT INTO keyed (k, text) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET text = keyed.text || excluded.text, n = keyed.n + 1 RETURNING"
MERGE = (
    "MERGE INTO keyed USING (SELECT CAST(? AS BIGINT) AS k, CAST(? AS TEXT) AS text) AS s ON s.k = keyed.k "
    "WHEN MATCHED THEN UPDATE SET text = keyed.text || s.text, n = keyed.n + 1 WHEN NOT MATCHED THEN INSERT (k, text) VALUES (s.k, s.text) RETURNING"
)


@pytest.fixture
def keyed(db):
    db.run("CREATE TABLE keyed (k BIGINT PRIMARY KEY, text TEXT, n BIGINT DEFAULT 0)")
    db.run("INSERT INTO keyed VALUES (1, 'one', 10)")
    return db


@pytest.mark.parametrize("sql", [UPSERT, MERGE], ids=["upsert", "merge"])
def test_upserts_and_merges_give_rows_of_parameters(keyed, sql):
    with keyed.cursor() as cursor:
        given = []
        # One statement, which is prepared once and bound again.
        for values in [(1, "!"), (2, "two"), (2, "?")]:
            cursor.execute(f"{sql} k, text, n", values)
            given += [tuple(row.values()) for row in cursor.fetch_arrow_table().to_pylist()]
    assert given == [(1, "one!", 11), (2, "two", 0), (2, "two?", 1)]
    (row,) = keyed.query(f"{sql} n * ? AS m, text || ? AS more", [1, ".", 100, " and more"]).to_pylist()
    assert row == {"m": 1200, "more": "one!. and more"}
    found = keyed.query("SELECT k, text, n FROM keyed ORDER BY k").to_pylist()
    assert [tuple(row.values()) for row in found] == [(1, "one!.", 12), (2, "two?", 1)]


@pytest.mark.parametrize(
    "sql",
    [UPSERT, MERGE, "INSERT INTO keyed (k, text) VALUES (? + 1, ?) RETURNING", "UPDATE keyed SET n = ? WHERE text <> ? RETURNING"],
    ids=["upsert", "merge", "insert", "update"],
)
def test_what_is_run_for_each_of_many_bound_rows_gives_none(keyed, sql):
    several = pa.record_batch({"k": [1, 2], "text": ["!", "two"]})
    for transaction in (False, True):
        if transaction:
            keyed.run("BEGIN")
        for ask in (keyed.query, keyed.run):
            with pytest.raises(seracdb.InvalidArgument, match="RETURNING gives rows of one execution: bind one row of parameters"):
                ask(f"{sql} k", several)
        assert keyed.query("SELECT k, text, n FROM keyed").to_pylist() == [{"k": 1, "text": "one", "n": 10}]
    keyed.run("ROLLBACK")
    # A plain INSERT is run once for all.
    given = keyed.query("INSERT INTO t VALUES (?, ?) RETURNING n, text", several)
    assert given.to_pylist() == [{"n": 1, "text": "!"}, {"n": 2, "text": "two"}]


def test_what_rows_were_joined_with_is_given_in_a_transaction_too(db):
    db.run("CREATE TABLE s (k BIGINT, name TEXT)")
    db.run("INSERT INTO s VALUES (1, 'a'), (2, 'b')")
    db.run("BEGIN")
    db.run("INSERT INTO t VALUES (1, 'one'), (3, 'three')")
    given = db.query(
        "MERGE INTO t USING s ON s.k = t.n WHEN MATCHED THEN UPDATE SET text = s.name "
        "WHEN NOT MATCHED THEN INSERT VALUES (s.k, 'new') RETURNING t.n, t.text, s.name, s._id > 0 AS has_id"
    )
    given = sorted(tuple(row.values()) for row in given.to_pylist())
    assert given == [(1, "a", "a", True), (2, "new", "b", True)]
    given = db.query("DELETE FROM t USING s WHERE s.k = t.n RETURNING s.name")
    assert sorted(given["name"].to_pylist()) == ["a", "b"]
    db.run("COMMIT")
    assert db.query("SELECT n FROM t")["n"].to_pylist() == [3]


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
