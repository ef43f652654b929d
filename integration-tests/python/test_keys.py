"""Unique keys under concurrency, in transactions and bulk loads, after restarts and on a new machine; upserts that many send."""

from __future__ import annotations

import random
import re
import shutil
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
import seracdb
from checking import clean
from object_stores import server_on
from test_check import contents
from test_manifests import told
from test_recovery import successor
from testserver import ROOT_PASSWORD, Server

ALREADY = "has a row with"
PASSWORD = "long enough"


def root(server: Server) -> seracdb.Connection:
    return seracdb.connect(server.uri, "root", ROOT_PASSWORD)


def refused(db: seracdb.Connection, sql: str) -> str:
    with pytest.raises(seracdb.AlreadyExists) as error:
        db.run(sql)
    return str(error.value)


def checked(server: Server) -> None:
    server.stop()
    clean(server.data_dir)


@pytest.fixture
def db(own_server):
    with root(own_server) as db:
        yield db


def test_of_two_writers_of_one_key_exactly_one_wins(own_server):
    with root(own_server) as db:
        db.run("CREATE TABLE t (k BIGINT PRIMARY KEY, who BIGINT)")
    barrier = threading.Barrier(4)

    def write(who: int) -> list[int]:
        won = []
        with root(own_server) as db:
            for k in range(60):
                barrier.wait()
                try:
                    assert db.run(f"INSERT INTO t VALUES ({k}, {who})") == 1
                    won.append(k)
                except seracdb.AlreadyExists as error:
                    assert f"table 'default.t' {ALREADY} (k) = ({k}) already" in str(error)
        return won

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(write, range(4)))
    assert sorted(k for keys in won for k in keys) == list(range(60))
    with root(own_server) as db:
        rows = db.query("SELECT k, who FROM t ORDER BY k").to_pylist()
    assert [row["k"] for row in rows] == list(range(60))
    assert all(row["k"] in won[row["who"]] for row in rows)


def test_upserts_of_many_end_with_the_sum_that_was_acknowledged(own_server):
    with root(own_server) as db:
        db.run("CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT)")

    def upsert(seed: int) -> int:
        chance, done = random.Random(seed), 0
        with root(own_server) as db:
            for i in range(60):
                k, n = chance.randrange(100), chance.randrange(1000)
                changed = db.run(f"INSERT INTO t VALUES ({k}, {n}) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n")
                assert changed == 1
                done += n
                if seed == 0 and i % 20 == 0:
                    db.run("STORAGE FLUSH TABLE t")
        return done

    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(upsert, range(8)))
    with root(own_server) as db:
        (row,) = db.query("SELECT sum(n) AS s, count(*) AS rows, count(DISTINCT k) AS keys FROM t").to_pylist()
    assert (row["s"], row["rows"]) == (total, row["keys"])
    checked(own_server)


def test_a_transaction_sees_its_own_keys_and_loses_to_who_commits_first(own_server):
    with root(own_server) as one, root(own_server) as two:
        one.run("CREATE TABLE t (k INT PRIMARY KEY, n INT)")
        one.run("INSERT INTO t VALUES (1, 0), (2, 0)")
        one.run("BEGIN")
        one.run("INSERT INTO t VALUES (3, 0)")
        assert f"{ALREADY} (k) = (3) already" in refused(one, "INSERT INTO t VALUES (3, 1)")
        one.run("DELETE FROM t WHERE k = 1")
        one.run("INSERT INTO t VALUES (1, 1)")
        one.run("SAVEPOINT s")
        one.run("UPDATE t SET k = 5 WHERE k = 3")
        one.run("INSERT INTO t VALUES (3, 3)")
        one.run("ROLLBACK TO s")
        refused(one, "INSERT INTO t VALUES (3, 3)")
        one.run("INSERT INTO t VALUES (5, 5)")
        assert two.run("INSERT INTO t VALUES (4, 0)") == 1
        one.run("COMMIT")
        rows = one.query("SELECT k, n FROM t ORDER BY k").to_pylist()
        assert [(row["k"], row["n"]) for row in rows] == [(1, 1), (2, 0), (3, 0), (4, 0), (5, 5)]

        one.run("BEGIN")
        one.run("INSERT INTO t VALUES (6, 1)")
        two.run("INSERT INTO t VALUES (6, 2)")
        message = refused(one, "COMMIT")
        assert "the transaction is rolled back" in message and f"{ALREADY} (k) = (6) already" in message

        # What it saw of a key is no longer so, but the key is free.
        one.run("BEGIN")
        one.run("INSERT INTO t VALUES (7, 1)")
        two.run("INSERT INTO t VALUES (7, 2)")
        two.run("DELETE FROM t WHERE k = 7")
        with pytest.raises(seracdb.Conflict, match="a unique key of table 'default.t'"):
            one.run("COMMIT")
        checked(own_server)


def test_bulk_loads_are_held_to_keys(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_ENGINE__BULK_BYTES_MIN": "100000"}) as server:
        with root(server) as db:
            load_and_change(db)
        checked(server)


def load_and_change(db: seracdb.Connection) -> None:
    db.run("CREATE TABLE t (k BIGINT PRIMARY KEY, text TEXT)")
    rows = 50_000
    table = pa.table({"k": range(rows), "text": ["x" * 40] * rows})
    assert db.ingest("t", table) == rows
    assert db.query("SELECT count(*) AS n FROM system.batches WHERE \"table\" = 't' AND kind = 'bulk'")["n"].to_pylist()[0] > 0
    with pytest.raises(seracdb.AlreadyExists, match=f"= .{rows - 1}."):
        db.ingest("t", table.slice(rows - 1))
    twice = pa.table({"k": [rows, rows], "text": ["a", "b"]})
    with pytest.raises(seracdb.AlreadyExists):
        db.ingest("t", twice)
    refused(db, f"INSERT INTO t SELECT value, repeat('y', 40) FROM generate_series({rows - 1}, {2 * rows})")
    assert db.query("SELECT count(*) AS n, count(DISTINCT k) AS d FROM t").to_pylist() == [{"n": rows, "d": rows}]
    # Half are there, and change.
    changed = db.run(
        f"INSERT INTO t SELECT value, 'new' FROM generate_series({rows // 2}, {rows + rows // 2 - 1}) "
        "ON CONFLICT (k) DO UPDATE SET text = excluded.text"
    )
    assert changed == rows
    found = db.query("SELECT text, count(*) AS n FROM t GROUP BY text ORDER BY n").to_pylist()
    assert sorted(row["n"] for row in found) == [rows // 2, rows]
    with db.transaction():
        db.ingest("t", pa.table({"k": range(2 * rows, 3 * rows), "text": ["x" * 40] * rows}))
        refused(db, f"INSERT INTO t VALUES ({2 * rows}, '')")
        db.run(f"DELETE FROM t WHERE k = {2 * rows}")
        assert db.run(f"INSERT INTO t VALUES ({2 * rows}, '')") == 1


def test_keys_are_there_after_a_restart_and_a_kill(own_server):
    with root(own_server) as db:
        db.run("CREATE TABLE t (k INT PRIMARY KEY, u TEXT UNIQUE)")
        db.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        db.run("STORAGE FLUSH TABLE t")
        db.run("UPDATE t SET u = 'c' WHERE k = 2")
    own_server.kill()
    own_server.start()
    with root(own_server) as db:
        refused(db, "INSERT INTO t VALUES (1, 'x')")
        refused(db, "INSERT INTO t VALUES (3, 'c')")
        assert db.run("INSERT INTO t VALUES (3, 'b')") == 1
    checked(own_server)


def test_a_new_machine_makes_the_keys_again(tmp_path):
    store = f"file://{tmp_path}/objects"
    settings = {"SERACDB_STORAGE__LEASE_SECONDS": "2"}
    first = Server(tmp_path / "first", variables=settings, args=["--object-store", store])
    first.start()
    with root(first) as db:
        db.run("CREATE TABLE t (k INT PRIMARY KEY, u TEXT UNIQUE, n INT)")
        db.run("CREATE TABLE nulls (u TEXT UNIQUE)")
        db.run("INSERT INTO nulls VALUES (NULL), (NULL)")
        db.run("INSERT INTO t SELECT value, 'u' || value, 0 FROM generate_series(1, 5000)")
        db.run("DELETE FROM t WHERE k = 7")
        db.run("UPDATE t SET u = 'other' WHERE k = 8")
        db.run("STORAGE FLUSH ALL")
    first.kill()
    second = Server(tmp_path / "second", variables=settings, args=["--object-store", store, "--take-over"])
    second.start()
    try:
        with root(second) as db:
            db.run("BEGIN")
            db.query("SELECT count(*) FROM t")
            with pytest.raises(seracdb.Conflict, match="run the transaction again"):
                db.run("INSERT INTO t VALUES (1, 'x', 0)")
            db.run("ROLLBACK")
            refused(db, "INSERT INTO t VALUES (1, 'x', 0)")
            refused(db, "INSERT INTO t VALUES (9999, 'other', 0)")
            assert db.run("INSERT INTO t VALUES (7, 'u7', 0), (9999, 'u8', 0)") == 2
            assert db.run("INSERT INTO t VALUES (1, '', 0), (6000, '', 0) ON CONFLICT (k) DO UPDATE SET n = 1") == 2
            assert db.query("SELECT count(*) AS n FROM t WHERE n = 1")["n"].to_pylist() == [1]
            assert db.run("INSERT INTO nulls VALUES (NULL), ('a')") == 2
            refused(db, "INSERT INTO nulls VALUES ('a')")
    finally:
        second.stop()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def lose_keys(data_dir: Path) -> None:
    """Drops the key index as RocksDB does: by a record at the end of its manifest that says so of the family's number."""
    folder = data_dir / "rocksdb"
    manifest = folder / (folder / "CURRENT").read_text().strip()
    family, added, dropped = b"\xc8\x01", b"\xc9\x01\x04keys", b"\xca\x01"
    (number,) = re.findall(re.escape(family) + b"(.)" + added, manifest.read_bytes(), re.DOTALL)
    edit = family + number + dropped
    crc = crc32c(b"\x01" + edit)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    with manifest.open("ab") as file:
        file.write(struct.pack("<IHB", masked, len(edit), 1) + edit)


@pytest.mark.parametrize("index", ["copied", "lost"])
def test_a_copy_of_a_data_directory_has_its_keys(own_server, tmp_path, index):
    """Those of hot rows and of rows in files, also when their index is in no copy; what is copied stays as it is."""
    shown = "SELECT k, u FROM t ORDER BY k"
    with root(own_server) as db:
        db.run("CREATE TABLE t (k INT PRIMARY KEY, u TEXT UNIQUE)")
        db.run("INSERT INTO t VALUES (1, 'in a file'), (2, 'deleted'), (3, 'moved')")
        db.run("STORAGE FLUSH TABLE t")
        db.run("DELETE FROM t WHERE k = 2")
        db.run("UPDATE t SET k = 30 WHERE k = 3")
        db.run("INSERT INTO t VALUES (4, 'hot')")
        db.run("CREATE USER TABLE notes (k INT PRIMARY KEY)")
        for n, user in enumerate(("ann", "bob")):
            db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE user")
            db.run(f"INSERT INTO notes AS USER '{user}' VALUES ({n})")
        before = db.query(shown)
    own_server.stop()
    files = contents(own_server.data_dir)
    shutil.copytree(own_server.data_dir, tmp_path / "copy")
    if index == "lost":
        lose_keys(tmp_path / "copy")
    with Server(tmp_path / "copy") as copy:
        assert told(copy, "the index of unique keys was lost") == (index == "lost")
        for free in (5, 6):
            with root(copy) as db:
                for values, key in {
                    "(1, 'new')": "(k) = (1)",
                    "(-1, 'in a file')": "(u) = ('in a file')",
                    "(4, 'new')": "(k) = (4)",
                    "(-1, 'hot')": "(u) = ('hot')",
                    "(30, 'new')": "(k) = (30)",
                    "(-1, 'moved')": "(u) = ('moved')",
                }.items():
                    assert f"table 'default.t' {ALREADY} {key} already" in refused(db, f"INSERT INTO t VALUES {values}")
                assert db.run(f"INSERT INTO t VALUES ({free}, 'new {free}')") == 1
                refused(db, "INSERT INTO notes AS USER 'ann' VALUES (0)")
            copy.kill()
            copy.start()
        with root(copy) as db:
            assert db.run("INSERT INTO t VALUES (2, 'deleted'), (3, 'free')") == 2
            assert db.run("INSERT INTO notes AS USER 'ann' VALUES (1)") == 1
            # His are asked for the first time, after kills.
            refused(db, "INSERT INTO notes AS USER 'bob' VALUES (1)")
            assert db.run("INSERT INTO notes AS USER 'bob' VALUES (0)") == 1
            assert db.query("SELECT k FROM t ORDER BY k")["k"].to_pylist() == [1, 2, 3, 4, 5, 6, 30]
        checked(copy)
    assert contents(own_server.data_dir) == files
    own_server.start()
    with root(own_server) as db:
        assert db.query(shown) == before
        assert db.run("INSERT INTO t VALUES (5, 'new 5')") == 1


@pytest.mark.parametrize("first_asked", ["by themselves", "as user"])
def test_a_new_machine_makes_the_keys_of_each_user_again(shared, tmp_path, first_asked):
    """Each user's at the first write of theirs: what another has is in nobody's way, neither before nor after."""
    users = ("ann", "bob", "cid")
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            db.run("CREATE USER TABLE notes (k INT PRIMARY KEY, u TEXT UNIQUE, n INT)")
            for user in users:
                db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE user")
            for n, user in enumerate(users[:2]):
                db.run(f"INSERT INTO notes AS USER '{user}' SELECT value, 'u' || value, {n} FROM generate_series(1, 2000)")
                db.run(f"DELETE FROM notes AS USER '{user}' WHERE k = {7 + n}")
                db.run(f"UPDATE notes AS USER '{user}' SET u = 'of {user}' WHERE k = {17 + n}")
            db.run("STORAGE FLUSH TABLE notes")
            # In another file, and merged with it.
            for n, user in enumerate(users[:2]):
                db.run(f"UPDATE notes AS USER '{user}' SET k = {5000 + n} WHERE k = {27 + n}")
            db.run("STORAGE FLUSH TABLE notes")
            db.run("STORAGE COMPACT TABLE notes")
        second = successor(tmp_path, shared, first)
    with second:
        with root(second) as db:
            sessions = {user: seracdb.connect(second.uri, user, PASSWORD) for user in users}
            try:
                for n, user in enumerate(users[:2]):
                    session, by = (sessions[user], "") if first_asked == "by themselves" else (db, f" AS USER '{user}'")
                    check_keys(session, f"INSERT INTO notes{by}", user, users[1 - n], n)
                # Who had no rows has no keys.
                assert sessions["cid"].run("INSERT INTO notes VALUES (1, 'u1', 2), (5000, 'of ann', 2)") == 2
                refused(sessions["cid"], "INSERT INTO notes VALUES (5000, 'x', 2)")
            finally:
                for session in sessions.values():
                    session.close()
            second.restart()
        with root(second) as db:
            for n, user in enumerate(users[:2]):
                assert f"{ALREADY} (k) = (9999) already" in refused(db, f"INSERT INTO notes AS USER '{user}' VALUES (9999, 'new', 0)")
                found = db.query(f"EXECUTE AS USER '{user}' (SELECT count(*) AS c, count(DISTINCT k) AS k, count(DISTINCT u) AS u FROM notes)")
                assert found.to_pylist() == [{"c": 2003, "k": 2003, "u": 2003}]
        second.stop()
        clean(second.data_dir, "--object-store", shared.url)


def check_keys(session: seracdb.Connection, into: str, user: str, other: str, n: int) -> None:
    """Those of 2,000 rows of which one was deleted, one has another text, and one another number."""
    told = f"table 'default.notes' {ALREADY}"
    assert f"{told} (k) = (1) already" in refused(session, f"{into} VALUES (1, 'x', 0)")
    assert f"{told} (u) = ('of {user}') already" in refused(session, f"{into} VALUES (9998, 'of {user}', 0)")
    assert f"{told} (k) = ({5000 + n}) already" in refused(session, f"{into} VALUES ({5000 + n}, 'x', 0)")
    assert f"{told} (u) = ('u{27 + n}') already" in refused(session, f"{into} VALUES (9998, 'u{27 + n}', 0)")
    # What went is free, and so is what the other has.
    assert session.run(f"{into} VALUES ({7 + n}, 'u{7 + n}', 0), ({27 + n}, 'of {other}', 0), (9999, 'u{17 + n}', 0), (9997, 'new', 0)") == 4
    assert session.run(f"{into} VALUES (2, '', 9), (9997, '', 9) ON CONFLICT (k) DO UPDATE SET n = excluded.n") == 2


def test_bound_rows_are_upserted_one_after_the_other(own_server, db):
    db.run("CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT)")
    cursor = db.cursor()
    keys = [1, 2, 3, 1, 2, 1, 9]
    rows = pa.record_batch({"k": keys, "n": [1] * len(keys)})
    sql = "INSERT INTO t VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n"
    cursor.executemany(sql, rows)
    found = {row["k"]: row["n"] for row in db.query("SELECT k, n FROM t").to_pylist()}
    assert found == {1: 3, 2: 2, 3: 1, 9: 1}
    # A parameter of the change itself.
    sql = "INSERT INTO t VALUES (?, 0) ON CONFLICT (k) DO UPDATE SET n = t.n + ?"
    cursor.executemany(sql, pa.record_batch({"k": [1, 1, 2, 10], "more": [10, 10, 5, 7]}))
    found = {row["k"]: row["n"] for row in db.query("SELECT k, n FROM t").to_pylist()}
    assert found == {1: 23, 2: 7, 3: 1, 9: 1, 10: 0}
    cursor.executemany("INSERT INTO t VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
    assert db.query("SELECT sum(n) AS s FROM t")["s"].to_pylist() == [32]
    cursor.executemany(
        "MERGE INTO t USING (SELECT CAST($1 AS BIGINT) AS k, CAST($2 AS BIGINT) AS n) AS s ON t.k = s.k "
        "WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.n)",
        pa.record_batch({"k": [1, 11, 11], "n": [0, 1, 2]}),
    )
    found = {row["k"]: row["n"] for row in db.query("SELECT k, n FROM t WHERE k IN (1, 11)").to_pylist()}
    assert found == {1: 0, 11: 2}
    cursor.close()


def test_bound_values_of_other_types_beside_a_default(db):
    db.run("CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT DEFAULT 7)")
    db.run("INSERT INTO t VALUES (1, 1), (2, 2)")
    cursor = db.cursor()
    sql = "INSERT INTO t VALUES (?, 0) ON CONFLICT (k) DO UPDATE SET n = DEFAULT WHERE t.n < ?"
    cursor.executemany(sql, pa.record_batch({"k": [1, 2], "below": [1.5, 1.5]}))
    assert db.query("SELECT n FROM t ORDER BY k")["n"].to_pylist() == [7, 2]
    cursor.close()


def test_all_bound_rows_have_one_now(db):
    db.run("CREATE TABLE t (n BIGINT, at TIMESTAMP DEFAULT now())")
    cursor = db.cursor()
    # More than are taken at once.
    cursor.executemany("INSERT INTO t (n) VALUES (?)", pa.record_batch({"n": list(range(150_000))}))
    found = db.query("SELECT count(*) AS rows, count(DISTINCT at) AS times FROM t WHERE at IS NOT NULL")
    assert found.to_pylist() == [{"rows": 150_000, "times": 1}]
    cursor.close()


def test_users_have_keys_of_their_own(own_server, db):
    db.run("CREATE USER TABLE notes (k INT PRIMARY KEY, n INT)")
    for name in ("ann", "bob"):
        db.run(f"CREATE USER {name} WITH PASSWORD 'long enough' ROLE user")
        assert db.run(f"INSERT INTO notes AS USER '{name}' VALUES (1, 0)") == 1
    refused(db, "INSERT INTO notes AS USER 'ann' VALUES (1, 0)")
    assert db.run("INSERT INTO notes AS USER 'bob' VALUES (1, 5) ON CONFLICT (k) DO UPDATE SET n = excluded.n") == 1
    merge = "MERGE INTO notes USING (SELECT 1 AS k) AS s ON notes.k = s.k WHEN MATCHED THEN UPDATE SET n = notes.n + 1"
    assert db.run(f"EXECUTE AS USER 'bob' ({merge})") == 1
    found = {name: db.query(f"EXECUTE AS USER '{name}' (SELECT n FROM notes)")["n"].to_pylist() for name in ("ann", "bob")}
    assert found == {"ann": [0], "bob": [6]}
    log = db.query("SELECT action FROM system.audit_log WHERE action = 'MERGE'")
    assert log.num_rows == 1


def test_rights_of_upserts_and_merges(own_server, db):
    db.run("CREATE TABLE t (k INT PRIMARY KEY, n INT)")
    db.run("CREATE USER ann WITH PASSWORD 'long enough' ROLE user")
    upsert = "INSERT INTO t VALUES (1, 1) ON CONFLICT (k) DO UPDATE SET n = 2"
    nothing = "INSERT INTO t VALUES (1, 1) ON CONFLICT DO NOTHING"
    merge = "MERGE INTO t USING (SELECT 1 AS k) AS s ON t.k = s.k WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1, 1)"
    with seracdb.connect(own_server.uri, "ann", "long enough") as ann:
        for rights, allowed in [
            ("INSERT", []),
            ("SELECT", [nothing]),
            ("UPDATE", [nothing, upsert]),
            ("DELETE", [nothing, upsert, merge]),
        ]:
            db.run(f"GRANT {rights} ON t TO ann")
            for sql in (nothing, upsert, merge):
                if sql in allowed:
                    ann.run(sql)
                else:
                    with pytest.raises(seracdb.PermissionDenied):
                        ann.run(sql)


def test_what_describes_tables_knows_their_keys(own_server, db):
    db.run("CREATE TABLE t (a INT, b TEXT, c INT UNIQUE, CONSTRAINT pair PRIMARY KEY (b, a))")
    nullable = db.query(
        "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = 't' AND column_name IN ('a', 'b', 'c') "
        "ORDER BY column_name"
    ).to_pylist()
    assert [row["is_nullable"] for row in nullable] == ["NO", "NO", "YES"]
    constraints = db.query(
        "SELECT constraint_name, constraint_type FROM information_schema.table_constraints WHERE table_name = 't' ORDER BY 1"
    ).to_pylist()
    assert constraints == [
        {"constraint_name": "pair", "constraint_type": "PRIMARY KEY"},
        {"constraint_name": "t_c_key", "constraint_type": "UNIQUE"},
    ]
    usage = db.query(
        "SELECT constraint_name, column_name, ordinal_position FROM information_schema.key_column_usage WHERE table_name = 't' "
        "ORDER BY 1, 3"
    ).to_pylist()
    assert [tuple(row.values()) for row in usage] == [("pair", "b", 1), ("pair", "a", 2), ("t_c_key", "c", 1)]


def test_bound_rows_with_keys_of_generated_columns(own_server, db):
    db.run("CREATE TABLE t (name TEXT DEFAULT 'none', n BIGINT CHECK (n >= 0), low TEXT GENERATED ALWAYS AS (lower(name)) STORED PRIMARY KEY)")
    cursor = db.cursor()
    rows = pa.record_batch({"name": ["A", "b", "a", "B", "c"], "n": [1, 2, 3, 4, 5]})
    cursor.executemany("INSERT INTO t VALUES (?, ?) ON CONFLICT (low) DO UPDATE SET n = t.n + excluded.n", rows)
    assert {row["low"]: row["n"] for row in db.query("SELECT low, n FROM t").to_pylist()} == {"a": 4, "b": 6, "c": 5}
    cursor.executemany("INSERT INTO t (n) VALUES (?)", pa.record_batch({"n": [9]}))
    with pytest.raises(seracdb.InvalidArgument, match="would violate CHECK"):
        cursor.executemany("INSERT INTO t VALUES (?, ?)", pa.record_batch({"name": ["x", "y"], "n": [1, -1]}))
    with pytest.raises(seracdb.AlreadyExists):
        db.ingest("t", pa.table({"n": [1]}))
    with pytest.raises(seracdb.InvalidArgument, match="would violate CHECK"):
        db.ingest("t", pa.table({"name": ["z"], "n": [-5]}))
    with pytest.raises(seracdb.InvalidArgument, match="column 'low' is GENERATED: leave it out"):
        db.ingest("t", pa.table({"name": ["z"], "n": [5], "low": ["z"]}))
    assert db.ingest("t", pa.table({"name": ["Z"], "n": [5]})) == 1
    found = db.query("SELECT name, low FROM t WHERE n IN (5, 9) ORDER BY low").to_pylist()
    assert [(row["name"], row["low"]) for row in found] == [("c", "c"), ("none", "none"), ("Z", "z")]
    cursor.close()


def test_functions_that_are_simplified_first_in_defaults_checks_and_generated_columns(db):
    db.run(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT CHECK (coalesce(n, 1) > 0 AND nvl(n, 1) < 100), day DATE DEFAULT current_date, "
        "at TIMESTAMP DEFAULT now(), big BIGINT DEFAULT coalesce(NULL, 8), m BIGINT GENERATED ALWAYS AS (coalesce(n, -1)) STORED)"
    )
    cursor = db.cursor()
    db.run("INSERT INTO t (k, n) VALUES (1, 5), (2, NULL)")
    cursor.executemany("INSERT INTO t (k, n) VALUES (?, ?)", pa.record_batch({"k": [3, 4], "n": [6, None]}))
    assert db.ingest("t", pa.table({"k": [5, 6], "n": pa.array([7, None], pa.int64())})) == 2
    with pytest.raises(seracdb.InvalidArgument, match="would violate CHECK"):
        db.run("INSERT INTO t (k, n) VALUES (9, 0)")
    with pytest.raises(seracdb.InvalidArgument, match="would violate CHECK"):
        cursor.executemany("INSERT INTO t (k, n) VALUES (?, ?)", pa.record_batch({"k": [9], "n": [100]}))
    db.run("UPDATE t SET n = n + 1, big = DEFAULT, at = DEFAULT, day = DEFAULT WHERE k = 5")
    found = db.query("SELECT k, m, big, at IS NOT NULL AND day = CAST(at AS DATE) AS timely FROM t ORDER BY k").to_pylist()
    assert [(row["k"], row["m"]) for row in found] == [(1, 5), (2, -1), (3, 6), (4, -1), (5, 8), (6, -1)]
    assert all(row["big"] == 8 and row["timely"] for row in found)
    cursor.close()
