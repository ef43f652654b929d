"""Keys, checks and NOT NULL that come by ALTER TABLE: while others write, for every user, after kills, in transactions, and with the past
that a table had without them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
import seracdb
from checking import checked
from conftest import Connections, root
from object_stores import server_on
from test_manifests import until
from testserver import Server

PASSWORD = "long enough"


def rows(db: seracdb.Connection, sql: str) -> list[tuple]:
    return [tuple(row.values()) for row in db.query(sql).to_pylist()]


def constraints(db: seracdb.Connection, table: str = "t") -> list[str]:
    sql = f"SELECT constraint_name FROM information_schema.table_constraints WHERE table_name = '{table}' ORDER BY 1"
    return db.query(sql).column(0).to_pylist()


def is_nullable(db: seracdb.Connection, column: str) -> bool:
    sql = f"SELECT is_nullable FROM information_schema.columns WHERE table_name = 't' AND column_name = '{column}'"
    return rows(db, sql) == [("YES",)]


@pytest.fixture
def db(own_server):
    with root(own_server) as connection:
        yield connection


# Under concurrency: at the end the constraint is there and all rows satisfy it, or it is not there.


def beside(server: Server, write: Callable[[seracdb.Connection, int, int], object], alter: Callable[[], None]) -> list[Exception]:
    """Runs `alter` while three others write, and gives what they were refused with."""
    ended, refused = threading.Event(), []

    def go_on(who: int) -> None:
        n = 0
        with root(server) as db:
            while not ended.is_set():
                n += 1
                try:
                    write(db, who, n)
                except (seracdb.AlreadyExists, seracdb.InvalidArgument, seracdb.Conflict) as error:
                    refused.append(error)

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(go_on, who) for who in range(3)]
        try:
            time.sleep(0.2)
            alter()
            time.sleep(0.2)
        finally:
            ended.set()
        for writer in writers:
            writer.result()
    return refused


WAYS = {
    "statements": lambda db, values: db.run(f"INSERT INTO t VALUES {values}"),
    "transactions": lambda db, values: in_transaction(db, f"INSERT INTO t VALUES {values}"),
    "queries": lambda db, values: db.run(f"INSERT INTO t SELECT * FROM (VALUES {values}) AS v(k, v)"),
    "upserts of one": lambda db, values: db.run(f"MERGE INTO t USING (VALUES {values}) AS s(k, v) ON false WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.v)"),
}


def in_transaction(db: seracdb.Connection, sql: str) -> None:
    with db.transaction():
        db.run(sql)


def alone(db: seracdb.Connection, sql: str) -> None:
    db.run(sql)


@pytest.mark.parametrize("way", WAYS)
def test_a_key_that_comes_beside_writers_of_the_same_keys(own_server, db, way):
    db.run("CREATE TABLE t (k BIGINT, v BIGINT)")
    db.run("INSERT INTO t SELECT value, 0 FROM generate_series(1000000, 1020000)")
    db.run("STORAGE FLUSH TABLE t")
    added = []

    def alter() -> None:
        for n in range(6):
            try:
                db.run("ALTER TABLE t ADD CONSTRAINT one UNIQUE (k)")
                added.append(n)
                return
            except seracdb.AlreadyExists as error:
                assert "UNIQUE 'one' is not possible" in str(error)
                db.run("DELETE FROM t WHERE k < 1000")
            except seracdb.Conflict:
                pass

    # Now and then all three write the same key.
    def key(who: int, n: int) -> int:
        return 1000 + 3 * n + who if n % 8 else n // 8

    refused = beside(own_server, lambda db, who, n: WAYS[way](db, f"({key(who, n)}, {who})"), alter)
    ((count, keys),) = rows(db, "SELECT count(*), count(DISTINCT k) FROM t")
    if added:
        assert constraints(db) == ["one"] and count == keys
        taken = db.query("SELECT max(k) FROM t").column(0)[0].as_py()
        with pytest.raises(seracdb.AlreadyExists, match="has a row with"):
            db.run(f"INSERT INTO t VALUES ({taken}, 9)")
    else:
        assert constraints(db) == []
        assert not any(isinstance(error, seracdb.AlreadyExists) for error in refused)
    checked(own_server)


@pytest.mark.parametrize("way", WAYS)
def test_not_null_and_checks_that_come_beside_writers_of_null(own_server, db, way):
    db.run("CREATE TABLE t (k BIGINT, v BIGINT)")
    db.run("INSERT INTO t SELECT value, value FROM generate_series(1, 20000)")

    def alter() -> None:
        for sql in ("ALTER TABLE t ALTER COLUMN v SET NOT NULL", "ALTER TABLE t ADD CONSTRAINT low CHECK (k > 0)"):
            for _ in range(6):
                try:
                    db.run(sql)
                    break
                except seracdb.InvalidArgument:
                    db.run("DELETE FROM t WHERE v IS NULL OR k <= 0")
                except seracdb.Conflict:
                    pass

    beside(own_server, lambda db, who, n: WAYS[way](db, f"({n - 5}, {n if n % 3 else 'NULL'})"), alter)
    if not is_nullable(db, "v"):
        assert rows(db, "SELECT count(*) FROM t WHERE v IS NULL") == [(0,)]
        assert rows(db, "SELECT count(*) - count(v) FROM t") == [(0,)]
        with pytest.raises(seracdb.InvalidArgument, match="is NOT NULL"):
            db.run("INSERT INTO t VALUES (1, NULL)")
    if constraints(db) == ["low"]:
        assert rows(db, "SELECT count(*) FROM t WHERE k <= 0") == [(0,)]
        with pytest.raises(seracdb.InvalidArgument, match="CHECK 'low'"):
            db.run("INSERT INTO t VALUES (0, 1)")
    checked(own_server)


def test_a_table_that_is_written_to_all_the_time_gets_its_constraint(own_server, db):
    db.run("CREATE TABLE t (k BIGINT, v BIGINT)")
    db.run("INSERT INTO t SELECT value, value FROM generate_series(1, 100000)")

    def alter() -> None:
        db.run("ALTER TABLE t ALTER COLUMN k SET NOT NULL, ADD CHECK (v IS NULL OR v >= 0)")

    assert beside(own_server, lambda db, who, n: db.run(f"INSERT INTO t VALUES ({n}, {who})"), alter) == []
    assert not is_nullable(db, "k") and constraints(db) == ["t_check"]


NEW_COLUMNS = (
    "ALTER TABLE t ADD COLUMN e TEXT UNIQUE, ADD COLUMN n INT NOT NULL DEFAULT 1 CHECK (n > 0), ADD CONSTRAINT sum CHECK (v + n > 0)"
)


@pytest.mark.parametrize("way", [alone, in_transaction])
def test_columns_that_come_with_constraints_beside_writers(own_server, db, way):
    db.run("CREATE TABLE t (k BIGINT, v BIGINT)")
    db.run("INSERT INTO t SELECT value, value FROM generate_series(1, 20000)")
    db.run("STORAGE FLUSH TABLE t")
    written = []

    def write(one: seracdb.Connection, who: int, n: int) -> None:
        way(one, f"INSERT INTO t (k, v) VALUES ({n}, {who})")
        written.append(n)

    refused = beside(own_server, write, lambda: db.run(NEW_COLUMNS))
    # A transaction that began before is told to begin again; a statement runs again by itself.
    assert all(isinstance(error, seracdb.Conflict) for error in refused)
    assert way is in_transaction or not refused
    assert constraints(db) == ["sum", "t_check", "t_e_key"]
    (found,) = rows(db, "SELECT count(*), count(e), min(n), max(n) FROM t")
    assert found == (20000 + len(written), 0, 1, 1)
    assert rows(db, "SELECT count(*) FROM system.audit_log WHERE action = 'ALTER TABLE'") == [(1,)]
    db.run("UPDATE t SET e = 'mine' WHERE k = 20000")
    with pytest.raises(seracdb.AlreadyExists, match=r"\(e\) = \('mine'\)"):
        db.run("INSERT INTO t (k, e) VALUES (0, 'mine')")
    with pytest.raises(seracdb.InvalidArgument, match="CHECK 't_check'"):
        db.run("UPDATE t SET n = 0 WHERE k = 20000")
    with pytest.raises(seracdb.InvalidArgument, match="CHECK 'sum'"):
        db.run("INSERT INTO t (k, v) VALUES (0, -1)")
    checked(own_server)


def test_columns_that_come_with_constraints_in_a_transaction(own_server, db):
    db.run("CREATE TABLE t (k BIGINT, v BIGINT)")
    db.run("INSERT INTO t VALUES (1, 1), (2, 2)")
    db.run("BEGIN")
    db.run("INSERT INTO t VALUES (3, 3)")
    with pytest.raises(seracdb.InvalidArgument, match="outside of a transaction"):
        db.run("ALTER TABLE t ADD COLUMN e TEXT UNIQUE")
    with pytest.raises(seracdb.InvalidArgument, match="violate CHECK 't_check'"):
        db.run("ALTER TABLE t ADD COLUMN n INT DEFAULT 3 CHECK (n > v)")
    db.run("ALTER TABLE t ADD COLUMN n INT DEFAULT 4 CHECK (n > v)")
    with pytest.raises(seracdb.InvalidArgument, match="CHECK 't_check'"):
        db.run("INSERT INTO t (k, v) VALUES (4, 4)")
    db.run("INSERT INTO t (k, v) VALUES (4, 0)")
    db.run("CREATE TABLE u (a INT)")
    db.run("ALTER TABLE u ADD COLUMN k INT PRIMARY KEY")
    db.run("INSERT INTO u VALUES (1, 1)")
    db.run("COMMIT")
    own_server.kill()
    own_server.start()
    with root(own_server) as again:
        assert rows(again, "SELECT k, v, n FROM t ORDER BY k") == [(1, 1, 4), (2, 2, 4), (3, 3, 4), (4, 0, 4)]
        assert constraints(again) == ["t_check"] and constraints(again, "u") == ["u_pkey"]
        with pytest.raises(seracdb.AlreadyExists):
            again.run("INSERT INTO u VALUES (2, 1)")


# Transactions that began before.


def test_what_a_transaction_made_for_fewer_constraints_is_refused(own_server, db):
    db.run("CREATE TABLE t (k INT, v INT)")
    db.run("INSERT INTO t VALUES (1, 1), (2, 2)")
    alters = [
        "ALTER TABLE t ADD CONSTRAINT one UNIQUE (k)",
        "ALTER TABLE t ALTER COLUMN v SET NOT NULL",
        "ALTER TABLE t ADD CONSTRAINT small CHECK (k < 10)",
    ]
    writes = ["INSERT INTO t VALUES (3, 3)", "UPDATE t SET v = 7 WHERE k = 2", "DELETE FROM t WHERE k = 1"]
    with root(own_server) as other:
        for alter, write in zip(alters, writes):
            other.run("BEGIN")
            other.run(write)
            db.run(alter)
            with pytest.raises(seracdb.Conflict, match="was changed or dropped meanwhile"):
                other.run("COMMIT")
        # What asks for less is in nobody's way.
        other.run("BEGIN")
        other.run("INSERT INTO t VALUES (4, 4)")
        db.run("ALTER TABLE t DROP CONSTRAINT one")
        other.run("COMMIT")
        # Who only reads goes on with what there was.
        other.run("BEGIN")
        assert rows(other, "SELECT count(*) FROM t") == [(3,)]
        db.run("ALTER TABLE t ADD CONSTRAINT one UNIQUE (k)")
        db.run("INSERT INTO t VALUES (5, 5)")
        assert rows(other, "SELECT count(*) FROM t") == [(3,)]
        other.run("COMMIT")
    with root(own_server) as other:
        other.run("BEGIN")
        other.run("ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0)")
        db.run("INSERT INTO t VALUES (6, -6)")
        with pytest.raises(seracdb.Conflict, match="were written while they were looked at"):
            other.run("COMMIT")
    assert constraints(db) == ["one", "small"]
    assert rows(db, "SELECT k, v FROM t ORDER BY k") == [(1, 1), (2, 2), (4, 4), (5, 5), (6, -6)]
    checked(own_server)


# Users.


def test_each_users_rows_have_keys_of_their_own(own_server, db):
    for user in ("ann", "bob"):
        db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE user")
    db.run("CREATE USER TABLE notes (k INT, secret TEXT)")
    with Connections(own_server) as connections:
        ann, bob = (connections.open(user, PASSWORD) for user in ("ann", "bob"))
        ann.run("INSERT INTO notes VALUES (1, 'of ann'), (2, NULL)")
        db.run("STORAGE FLUSH TABLE notes")
        bob.run("INSERT INTO notes VALUES (1, 'hush'), (1, 'hush')")
        # Whose rows they are, and what is in them, is not told.
        for alter, kind in [
            ("ADD UNIQUE (k)", seracdb.AlreadyExists),
            ("ALTER COLUMN secret SET NOT NULL", seracdb.InvalidArgument),
            ("ADD CONSTRAINT other CHECK (secret <> 'hush')", seracdb.InvalidArgument),
        ]:
            with pytest.raises(kind) as error:
                db.run(f"ALTER TABLE notes {alter}")
            told = str(error.value).replace("secret <> 'hush'", "")
            assert not any(shown in told for shown in ("hush", "of ann", "'ann'", "bob", "(1)"))
        with pytest.raises(seracdb.PermissionDenied):
            ann.run("ALTER TABLE notes ADD UNIQUE (secret)")
        bob.run("DELETE FROM notes WHERE k = 1")
        bob.run("INSERT INTO notes VALUES (1, 'hush')")
        db.run("ALTER TABLE notes ADD CONSTRAINT one UNIQUE (k)")
        for user in (ann, bob):
            with pytest.raises(seracdb.AlreadyExists, match=r"\(k\) = \(1\) already"):
                user.run("INSERT INTO notes VALUES (1, 'again')")
            user.run("INSERT INTO notes VALUES (3, 'new')")
            assert user.run("INSERT INTO notes VALUES (3, 'newer') ON CONFLICT (k) DO UPDATE SET secret = excluded.secret") == 1
        assert rows(ann, "SELECT k, secret FROM notes ORDER BY k") == [(1, "of ann"), (2, None), (3, "newer")]
        assert rows(bob, "SELECT k, secret FROM notes ORDER BY k") == [(1, "hush"), (3, "newer")]
    checked(own_server)


# After kills, and with files of every age.


def test_constraints_survive_and_dropped_keys_leave_nothing_wrong(own_server, db):
    db.run("CREATE TABLE t (k INT, v INT)")
    db.run("INSERT INTO t VALUES (1, NULL), (2, 2)")
    db.run("STORAGE FLUSH TABLE t")
    db.run("UPDATE t SET v = 1 WHERE k = 1")
    db.run("ALTER TABLE t ADD PRIMARY KEY (k), ALTER COLUMN v SET NOT NULL, ADD CHECK (v > 0)")
    # Older versions with NULL go to files, too.
    db.run("INSERT INTO t VALUES (3, 3)")
    db.run("STORAGE FLUSH TABLE t")
    db.run("STORAGE COMPACT TABLE t")
    own_server.kill()
    own_server.start()
    with root(own_server) as db:
        with pytest.raises(seracdb.AlreadyExists):
            db.run("INSERT INTO t VALUES (3, 4)")
        with pytest.raises(seracdb.InvalidArgument):
            db.run("INSERT INTO t VALUES (4, NULL)")
        db.run("ALTER TABLE t DROP CONSTRAINT t_pkey")
        db.run("INSERT INTO t VALUES (3, 4)")
        db.run("ALTER TABLE t ADD CONSTRAINT both UNIQUE (k, v)")
        with pytest.raises(seracdb.AlreadyExists):
            db.run("INSERT INTO t VALUES (3, 4)")
        db.run("DELETE FROM t WHERE v = 4")
        db.run("INSERT INTO t VALUES (3, 4)")
    checked(own_server)
    own_server.start()
    with root(own_server) as db:
        assert constraints(db) == ["both", "t_check"]
        with pytest.raises(seracdb.AlreadyExists):
            db.run("INSERT INTO t VALUES (3, 4)")
        assert rows(db, "SELECT k, v FROM t ORDER BY k, v") == [(1, 1), (2, 2), (3, 3), (3, 4)]


@pytest.mark.parametrize("flushed", [False, True])
def test_the_past_has_the_nulls_that_there_were(own_server, db, flushed):
    db.run("CREATE TABLE t (k INT, v INT)")
    db.run("INSERT INTO t VALUES (1, NULL), (2, 2)")
    if flushed:
        db.run("STORAGE FLUSH TABLE t")
    then = rows(db, "SELECT CAST(max(_updated) AS TEXT) FROM t")[0][0].replace("T", " ")
    db.run("UPDATE t SET v = 1 WHERE v IS NULL")
    db.run("ALTER TABLE t ALTER COLUMN v SET NOT NULL")
    if flushed:
        db.run("STORAGE FLUSH TABLE t")
        db.run("STORAGE COMPACT TABLE t")
    past = f"t FOR SYSTEM_TIME AS OF TIMESTAMP '{then}'"
    assert rows(db, f"SELECT k, v FROM {past} ORDER BY k") == [(1, None), (2, 2)]
    assert rows(db, f"SELECT k FROM {past} WHERE v IS NULL") == [(1,)]
    assert rows(db, f"SELECT v, count(*) FROM {past} GROUP BY v ORDER BY v NULLS FIRST") == [(None, 1), (2, 1)]
    assert rows(db, "SELECT k, v FROM t ORDER BY k") == [(1, 1), (2, 2)]
    assert rows(db, "SELECT count(*) FROM t WHERE v IS NULL") == [(0,)]
    checked(own_server)


# Loads.


def test_loads_satisfy_what_came_before_them(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_ENGINE__BULK_BYTES_MIN": "20000"}) as server, root(server) as db:
        db.run("CREATE TABLE t (k BIGINT, v TEXT)")
        data = pa.table({"k": pa.array(range(5000), pa.int64()), "v": [f"value {n}" for n in range(5000)]})
        assert db.ingest("t", data) == 5000
        db.run("ALTER TABLE t ADD PRIMARY KEY (k), ADD CHECK (v <> 'bad')")
        with pytest.raises(seracdb.AlreadyExists):
            db.ingest("t", data)
        more = pa.table({"k": pa.array(range(5000, 9000), pa.int64()), "v": ["good"] * 3999 + ["bad"]})
        with pytest.raises(seracdb.InvalidArgument, match="t_check"):
            db.ingest("t", more)
        assert db.ingest("t", more.slice(0, 3999)) == 3999
        assert rows(db, "SELECT count(*), count(DISTINCT k) FROM t") == [(8999, 8999)]
        with pytest.raises(seracdb.AlreadyExists, match="UNIQUE 't_v_key' is not possible"):
            db.run("ALTER TABLE t ADD UNIQUE (v)")
        checked(server)


def test_who_goes_on_with_the_files_alone_finds_rows_that_satisfy_it(tmp_path):
    store = f"file://{tmp_path}/objects"
    first = server_on(tmp_path / "first", store, lease_seconds=5)
    first.start()
    with root(first) as db:
        db.run("CREATE TABLE t (k INT, v INT)")
        db.run("INSERT INTO t VALUES (1, 1), (1, 2), (2, NULL), (3, -3)")
        db.run("STORAGE FLUSH TABLE t")
        # What makes them good is hot.
        db.run("DELETE FROM t WHERE k = 1 AND v = 2")
        db.run("UPDATE t SET v = 0 WHERE v IS NULL")
        db.run("BEGIN")
        db.run("UPDATE t SET v = 3 WHERE v < 0")
        with pytest.raises(seracdb.InvalidArgument, match="COMMIT first"):
            db.run("ALTER TABLE t ADD CHECK (v >= 0)")
        db.run("COMMIT")
        db.run("ALTER TABLE t ADD UNIQUE (k), ALTER COLUMN v SET NOT NULL, ADD CHECK (v >= 0)")
        # The catalog is in the store with the next flush, if it is not yet.
        db.run("CREATE TABLE other AS SELECT 1 AS a")
        db.run("INSERT INTO other VALUES (2)")
        db.run("STORAGE FLUSH TABLE other")
    first.kill()
    second = server_on(tmp_path / "second", store, "--take-over", lease_seconds=5)
    second.start()
    try:
        with root(second) as db:
            assert rows(db, "SELECT k, v FROM t ORDER BY k") == [(1, 1), (2, 0), (3, 3)]
            assert constraints(db) == ["t_check", "t_k_key"]
            assert not is_nullable(db, "v")
            with pytest.raises(seracdb.AlreadyExists):
                db.run("INSERT INTO t VALUES (1, 5)")
    finally:
        second.stop()


def test_an_ingest_that_began_before_a_constraint_of_its_transaction_is_refused(own_server, db):
    db.run("CREATE TABLE t (k BIGINT)")
    schema = pa.schema({"k": pa.int64()})
    db.run("BEGIN")
    with root(own_server) as other:

        def batches():
            yield pa.record_batch({"k": [1]}, schema)
            until(lambda: rows(other, "SELECT rows FROM system.queries WHERE kind = 'ingest'") == [(1,)], "it has begun")
            db.run("ALTER TABLE t ADD CHECK (k > 0)")
            yield pa.record_batch({"k": [-1]}, schema)

        with pytest.raises(seracdb.Conflict, match="got a constraint during the ingest: send it again"):
            db.ingest("t", pa.RecordBatchReader.from_batches(schema, batches()))
    db.run("ROLLBACK")
    assert constraints(db) == []
    assert rows(db, "SELECT count(*) FROM t") == [(0,)]
