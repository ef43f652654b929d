"""Large loads go past the hot tier, into files: with the same answers, in transactions too, all or nothing."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
import seracdb
from conftest import root
from object_stores import server_on
from test_manifests import until
from test_recovery import successor
from testserver import ROOT_PASSWORD, Server

BULK = "[engine]\nbulk_bytes_min = 20000\n"
ROWS = 1000


@pytest.fixture
def server(tmp_path):
    """A server that takes few rows for many."""
    with Server(tmp_path / "data", variables={"SERACDB_ENGINE__BULK_BYTES_MIN": "20000"}) as running:
        yield running


@pytest.fixture
def db(server):
    with root(server) as connection:
        yield connection


def data(first: int = 0, rows: int = ROWS) -> pa.Table:
    numbers = range(first, first + rows)
    return pa.table({"n": pa.array(numbers, pa.int64()), "v": [f"value {n % 7}" for n in numbers]})


def load(db: seracdb.Connection, table: str, rows: object, mode: str = "create") -> int:
    return db.ingest(table, rows, mode=mode)


def kinds(db: seracdb.Connection, table: str = "t") -> dict[str, int]:
    """Rows in active files, by the kind of file."""
    sql = f"SELECT kind, sum(row_count) AS n FROM system.batches WHERE \"table\" = '{table}' AND status = 'active' GROUP BY kind"
    return {row["kind"]: row["n"] for row in db.query(sql).to_pylist()}


def contents(db: seracdb.Connection, table: str = "t") -> dict[int, str]:
    found = db.query(f"SELECT n, v FROM {table}").to_pylist()
    assert len({row["n"] for row in found}) == len(found), "a row is there twice"
    return {row["n"]: row["v"] for row in found}


def expected(*loads: pa.Table) -> dict[int, str]:
    return {row["n"]: row["v"] for load in loads for row in load.to_pylist()}


def one(db: seracdb.Connection, sql: str):
    (row,) = db.query(sql).to_pylist()
    (value,) = row.values()
    return value


def files_of(server: Server) -> list[str]:
    objects = server.data_dir / "objects"
    return sorted(str(f.relative_to(objects)) for f in objects.rglob("*") if f.is_file() and "_seracdb" not in f.parts)


def scratch_of(server: Server) -> list[Path]:
    return [f for f in server.data_dir.rglob("*bulk-*") if f.is_file()]


def test_few_rows_stay_hot_and_many_go_to_files(db):
    assert load(db, "few", data(rows=10)) == 10
    assert kinds(db, "few") == {}
    assert load(db, "t", data()) == ROWS
    assert kinds(db) == {"bulk": ROWS}
    assert contents(db) == expected(data())
    assert one(db, "SELECT count(DISTINCT _id) AS n FROM t") == ROWS
    assert one(db, "SELECT count(DISTINCT _updated) AS n FROM t") == 1


def test_the_many_rows_of_a_query_go_to_files_with_the_table_made_of_them(db):
    assert db.run("CREATE TABLE few AS SELECT value AS n, 'value ' || value % 7 AS v FROM generate_series(0, 9)") == 10
    assert kinds(db, "few") == {}
    made = f"SELECT value AS n, 'value ' || value % 7 AS v FROM generate_series(0, {ROWS - 1})"
    for statement in ("CREATE TABLE t", "CREATE OR REPLACE TABLE t"):
        assert db.run(f"{statement} AS {made}") == ROWS
        assert kinds(db) == {"bulk": ROWS}
        assert contents(db) == expected(data())
    with pytest.raises(seracdb.Error, match="division by zero"):
        db.run(f"CREATE TABLE bad AS SELECT 1 / (value - {ROWS - 1}) AS n, repeat('x', 100) AS v FROM generate_series(0, {ROWS})")
    with pytest.raises(seracdb.Error, match="unknown table"):
        db.query("SELECT * FROM bad")


def test_all_rows_have_the_time_of_their_commit(db):
    db.run("CREATE TABLE t (n BIGINT, v TEXT)")
    db.run("INSERT INTO t VALUES (-1, 'before')")
    load(db, "t", data(), mode="append")
    db.run("INSERT INTO t VALUES (-2, 'after')")
    load(db, "t", data(ROWS), mode="append")
    order = db.query("SELECT min(n) AS first, count(*) AS n FROM t GROUP BY _updated ORDER BY _updated").to_pylist()
    assert [(row["first"], row["n"]) for row in order] == [(-1, 1), (0, ROWS), (-2, 1), (ROWS, ROWS)]
    last = "(SELECT max(_updated) FROM t)"
    for where, count in {
        f"_updated = {last}": ROWS,
        f"_updated < {last}": ROWS + 2,
        f"_updated >= {last} AND n = {ROWS + 5}": 1,
        f"_updated >= {last} AND n = 5": 0,
        "_updated IS NULL": 0,
        "NOT _deleted AND _updated IS NOT NULL": 2 * ROWS + 2,
    }.items():
        assert one(db, f"SELECT count(*) AS n FROM t WHERE {where}") == count, where
    stamp = one(db, "SELECT CAST(max(_updated) AS TEXT) AS u FROM t")
    assert one(db, f"SELECT count(*) AS n FROM t WHERE _updated = TIMESTAMP '{stamp}'") == ROWS
    # By the bounds that the commit has set, files are left out.
    plan = str(db.query(f"EXPLAIN ANALYZE SELECT n FROM t WHERE _updated < TIMESTAMP '{stamp}'").to_pylist())
    assert "batches_skipped=1" in plan, plan
    columns = db.query("SELECT * FROM t WHERE n = 3").column_names
    assert columns == ["_id", "n", "v", "_updated"]


@pytest.mark.parametrize("settle", ["", "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t"])
def test_rows_in_files_are_changed_like_others(db, server, settle):
    load(db, "t", data())
    before = one(db, "SELECT min(_updated) AS u FROM t")
    assert db.run("UPDATE t SET v = 'changed' WHERE n < 10") == 10
    assert db.run("DELETE FROM t WHERE n >= 990") == 10
    if settle:
        db.run(settle)
    wanted = {n: "changed" if n < 10 else v for n, v in expected(data()).items() if n < 990}
    assert contents(db) == wanted
    assert one(db, "SELECT min(_updated) AS u FROM t") == before
    assert one(db, "SELECT count(DISTINCT _updated) AS n FROM t") == 2
    server.restart()
    with root(server) as again:
        assert contents(again) == wanted


def test_small_files_are_merged_with_their_times(db):
    for first in range(0, 6 * ROWS, ROWS):
        load(db, "t", data(first), mode="create_append")
    times = db.query("SELECT n, _updated FROM t ORDER BY n").to_pylist()
    until(lambda: kinds(db).get("compact", 0) > 0, "files are merged")
    db.run("STORAGE COMPACT TABLE t")
    assert db.query("SELECT n, _updated FROM t ORDER BY n").to_pylist() == times
    assert contents(db) == expected(*(data(first) for first in range(0, 6 * ROWS, ROWS)))


def test_insert_select(db):
    load(db, "s", data())
    db.run("CREATE TABLE t (n BIGINT, v TEXT NOT NULL)")
    assert db.run("INSERT INTO t SELECT n, v FROM s") == ROWS
    assert kinds(db) == {"bulk": ROWS}
    assert db.run("INSERT INTO t (v, n) SELECT v, n + 1000 FROM t") == ROWS
    assert contents(db) == expected(data()) | {n + 1000: v for n, v in expected(data()).items()}
    with pytest.raises(seracdb.Error, match="NOT NULL"):
        db.run("INSERT INTO t SELECT n, CASE WHEN n = 999 THEN NULL ELSE v END FROM s")
    assert one(db, "SELECT count(*) AS n FROM t") == 2 * ROWS


def test_user_tables_keep_to_their_users(db, server):
    db.run("CREATE USER TABLE t (n BIGINT, v TEXT)")
    db.run("CREATE USER ann WITH PASSWORD 'a long enough password' ROLE user")
    with seracdb.connect(server.uri, "ann", "a long enough password") as ann:
        load(ann, "t", data(), mode="append")
        assert contents(db) == {}
        assert contents(ann) == expected(data())
    assert any(name.startswith("default/t/user_ann/batch-0001") for name in files_of(server))


def test_not_a_number_is_found_in_whichever_row_it_is(db):
    schema = pa.schema([("n", pa.int64()), ("x", pa.float64()), ("y", pa.float32())])

    def batch(first: int, x: float, y: float) -> pa.RecordBatch:
        numbers = list(range(first, first + ROWS))
        return pa.record_batch([numbers, [float(n) for n in numbers[:-1]] + [x], [1.0] * (ROWS - 1) + [y]], schema=schema)

    batches = [batch(0, 1.0, 2.0), batch(ROWS, math.nan, 2.0), batch(2 * ROWS, 1.0, math.nan), batch(3 * ROWS, 1.0, 1.0)]
    load(db, "t", pa.RecordBatchReader.from_batches(schema, batches))
    assert one(db, "SELECT count(*) AS n FROM system.batches WHERE \"table\" = 't'") == 3
    found = db.query("SELECT n, x, y FROM t ORDER BY n")
    assert str(found) == str(pa.Table.from_batches(batches).combine_chunks()) or found.equals(
        pa.Table.from_batches(batches).combine_chunks()
    )
    assert one(db, "SELECT count(*) AS n FROM t WHERE isnan(x)") == 1
    assert one(db, "SELECT count(*) AS n FROM t WHERE isnan(y)") == 1
    assert one(db, f"SELECT count(*) AS n FROM t WHERE x >= {2 * ROWS}") == 2 * (ROWS - 1) + 1


# In transactions.


def test_a_transaction_reads_and_changes_what_it_has_loaded(db, connect_to, server):
    other = connect_to()
    db.run("BEGIN")
    load(db, "t", data())
    load(db, "t", data(ROWS), mode="append")
    assert contents(db) == expected(data(), data(ROWS))
    assert one(db, "SELECT count(*) AS n FROM t WHERE _updated IS NULL") == 2 * ROWS
    assert db.run("UPDATE t SET v = 'once' WHERE n < 20") == 20
    assert db.run("UPDATE t SET v = 'twice' WHERE n < 10") == 10
    assert db.run("DELETE FROM t WHERE n BETWEEN 5 AND 15") == 11
    assert db.run("INSERT INTO t VALUES (-1, 'new')") == 1
    wanted = expected(data(), data(ROWS)) | {n: "twice" if n < 10 else "once" for n in range(20)} | {-1: "new"}
    wanted = {n: v for n, v in wanted.items() if not 5 <= n <= 15}
    assert contents(db) == wanted
    with pytest.raises(seracdb.Error, match="unknown table"):
        contents(other)
    db.run("COMMIT")
    assert contents(other) == wanted
    assert one(other, "SELECT count(DISTINCT _updated) AS n FROM t") == 1
    for settle in ("STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t"):
        other.run(settle)
        assert contents(other) == wanted, settle
    server.restart()
    with root(server) as again:
        assert contents(again) == wanted


@pytest.mark.parametrize("made", ["by the load", "by a statement", "before"])
def test_a_rollback_leaves_nothing(db, server, made):
    if made == "before":
        db.run("CREATE TABLE t (n BIGINT, v TEXT)")
    db.run("BEGIN")
    if made == "by a statement":
        db.run("CREATE TABLE t (n BIGINT, v TEXT)")
    load(db, "t", data(), mode="create_append")
    assert any(name.endswith(".parquet") for name in files_of(server))
    db.run("ROLLBACK")
    until(lambda: files_of(server) == [] and not scratch_of(server), "files are removed")
    # What comes next has the plain names again, or ones of its own.
    load(db, "t", data(), mode="create_append")
    assert contents(db) == expected(data())
    server.restart()
    with root(server) as again:
        assert contents(again) == expected(data())


def test_a_savepoint_undoes_a_load(db, server):
    db.run("BEGIN")
    load(db, "t", data())
    db.run("SAVEPOINT s")
    load(db, "t", data(ROWS), mode="append")
    db.run("UPDATE t SET v = 'x' WHERE n < 5")
    db.run("ROLLBACK TO s")
    assert contents(db) == expected(data())
    load(db, "t", data(2 * ROWS), mode="append")
    db.run("COMMIT")
    assert contents(db) == expected(data(), data(2 * ROWS))
    until(lambda: len([name for name in files_of(server) if name.endswith(".parquet")]) == 2, "the file is removed")
    db.run("INSERT INTO t VALUES (-1, 'x')")
    db.run("STORAGE FLUSH TABLE t")
    assert contents(db) == expected(data(), data(2 * ROWS)) | {-1: "x"}


def load_in_vain(db: seracdb.Connection, table: str, undone: bool) -> None:
    """A load into a table of the open transaction that comes to nothing: undone by a savepoint, or refused."""
    db.run("SAVEPOINT s")
    if undone:
        load(db, table, data(), "append")
        db.run("ROLLBACK TO s")
        return
    holes = pa.table({"n": data().column("n"), "v": pa.array(["x"] * (ROWS - 1) + [None])})
    with pytest.raises(seracdb.Error, match="NOT NULL"):
        load(db, table, pa.concat_tables([data(ROWS), holes]), "append")


@pytest.mark.parametrize("first", ["undone", "refused", "refused, and no other"])
def test_a_table_whose_first_load_failed_keeps_what_comes_then(db, server, connect_to, first):
    reader = connect_to()
    db.run("BEGIN")
    db.run("CREATE TABLE t (n BIGINT, v TEXT NOT NULL)")
    load_in_vain(db, "t", undone=first == "undone")
    if first != "refused, and no other":
        load(db, "t", data(), "append")
    db.run("COMMIT")
    if first == "refused, and no other":
        db.run("INSERT INTO t VALUES (-1, 'hot')")
        db.run("STORAGE FLUSH TABLE t")
        load(db, "t", data(), "append")
    found = contents(db)
    assert found.items() >= expected(data()).items()
    # A table that is dropped has others' files removed too.
    db.run("CREATE TABLE other (n BIGINT)")
    db.run("DROP TABLE other")
    reader.query("SELECT 1")
    time.sleep(0.5)
    assert contents(db) == found
    server.restart()
    with root(server) as again:
        assert contents(again) == found


def test_replace(db, server):
    load(db, "t", data())
    load(db, "t", data(ROWS), mode="replace")
    assert contents(db) == expected(data(ROWS))
    with pytest.raises(seracdb.Error, match="exists already"):
        load(db, "t", data())
    assert contents(db) == expected(data(ROWS))
    until(lambda: len([name for name in files_of(server) if name.endswith(".parquet")]) == 1, "old files are removed")


def test_the_dbapi_loads_in_its_transaction(server):
    options = {"username": "root", "password": ROOT_PASSWORD}
    with flightsql.connect(server.uri, db_kwargs=options) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("t", data(), mode="create")
        cursor.execute("UPDATE t SET v = 'x' WHERE n = 1")
        connection.rollback()
        cursor.adbc_ingest("t", data(), mode="create")
        cursor.execute("UPDATE t SET v = 'x' WHERE n = 1")
        connection.commit()
    with root(server) as db:
        assert contents(db) == expected(data()) | {1: "x"}


@pytest.fixture
def connect_to(server):
    opened = []

    def connect():
        opened.append(root(server))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


# All or nothing.


def failing(rows: int = ROWS):
    schema = data().schema
    yield from data(rows=rows).to_batches()
    raise RuntimeError("the client has a fault")
    yield schema


def test_an_aborted_stream_leaves_nothing(db, server):
    for table, mode in (("t", "create"), ("there", "append")):
        if mode == "append":
            db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
        with pytest.raises(Exception, match="fault"):
            load(db, table, pa.RecordBatchReader.from_batches(data().schema, failing()), mode=mode)
    until(lambda: files_of(server) == [] and not scratch_of(server), "files are removed")
    with pytest.raises(seracdb.Error, match="unknown table"):
        contents(db)
    assert contents(db, "there") == {}
    # A value that does not fit, after others have gone to the file.
    late = [data().to_batches()[0], data(ROWS).to_batches()[0]]
    db.run("CREATE TABLE small (n SMALLINT, v TEXT)")
    late.append(pa.record_batch([pa.array([1 << 40], pa.int64()), pa.array(["x"])], schema=data().schema))
    with pytest.raises(seracdb.Error, match="n"):
        load(db, "small", pa.RecordBatchReader.from_batches(data().schema, late), mode="append")
    assert contents(db, "small") == {}
    until(lambda: files_of(server) == [] and not scratch_of(server), "files are removed")


def test_after_a_kill_a_load_is_there_wholly_or_not_at_all(tmp_path):
    variables = {"SERACDB_ENGINE__BULK_BYTES_MIN": "20000", "SERACDB_STORAGE__ORPHAN_GRACE_SECONDS": "0"}
    with Server(tmp_path / "data", variables=variables) as server:
        with root(server) as db:
            db.run("CREATE TABLE t (n BIGINT, v TEXT)")
        acknowledged: list[int] = []

        def send(worker: int) -> None:
            try:
                with root(server) as db:
                    for turn in range(1000):
                        first = (worker * 1000 + turn) * ROWS
                        load(db, "t", data(first), mode="append")
                        acknowledged.append(first)
            except Exception:  # the server is killed
                return

        for seconds in (0.8, 1.7, 1.1):
            base = len(acknowledged)
            workers = [threading.Thread(target=send, args=(base * 10 + worker,)) for worker in range(3)]
            [worker.start() for worker in workers]
            time.sleep(seconds)
            server.kill()
            [worker.join() for worker in workers]
            server.start()
            with root(server) as db:
                found = contents(db)
                lost = [first for first in acknowledged if any(first + n not in found for n in range(ROWS))]
                assert not lost
                assert len(found) % ROWS == 0, "half a load is there"
                db.run("STORAGE COMPACT TABLE t")
                assert contents(db) == found
        assert len(acknowledged) > 3


def test_of_two_that_create_a_table_one_does(server):
    results: list[str] = []

    def create(first: int) -> None:
        with root(server) as db:
            try:
                load(db, "t", data(first))
                results.append(f"made {first}")
            except seracdb.Error as error:
                results.append(type(error).__name__)

    workers = [threading.Thread(target=create, args=(first * ROWS,)) for first in range(4)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    (made,) = [result for result in results if result.startswith("made")]
    with root(server) as db:
        assert contents(db) == expected(data(int(made.removeprefix("made "))))
    until(lambda: len([name for name in files_of(server) if name.endswith(".parquet")]) == 1, "the others' are removed")
    server.restart()
    with root(server) as db:
        assert contents(db) == expected(data(int(made.removeprefix("made "))))


def test_loads_beside_flushes_and_compactions(server):
    with root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, v TEXT)")
    done = threading.Event()
    faults: list[Exception] = []

    def keep(work) -> None:
        with root(server) as db:
            turn = 0
            while not done.is_set():
                try:
                    work(db, turn)
                except Exception as error:
                    faults.append(error)
                    return
                turn += 1

    def small(db, turn: int) -> None:
        db.run(f"INSERT INTO t VALUES ({-turn - 1}, 'small')")

    background = [small, lambda db, _: db.run("STORAGE FLUSH TABLE t"), lambda db, _: db.run("STORAGE COMPACT TABLE t")]
    workers = [threading.Thread(target=keep, args=(work,)) for work in background]
    [worker.start() for worker in workers]
    with root(server) as db:
        for turn in range(20):
            load(db, "t", data(turn * ROWS), mode="append")
            assert one(db, "SELECT count(*) AS n FROM t WHERE n >= 0") == (turn + 1) * ROWS
            db.run(f"UPDATE t SET v = 'changed' WHERE n = {turn * ROWS + 3}")
        done.set()
        [worker.join() for worker in workers]
        assert not faults, faults
        found = {n: v for n, v in contents(db).items() if n >= 0}
        changed = {turn * ROWS + 3: "changed" for turn in range(20)}
        assert found == expected(data(0, 20 * ROWS)) | changed


@pytest.mark.parametrize("damage", ["none", "no manifest", "corrupt manifest"])
def test_a_new_data_directory_reads_them(shared, tmp_path, damage):
    with server_on(tmp_path / "first", shared.url, settings=BULK) as before, root(before) as db:
        db.run("CREATE NAMESPACE app")
        load(db, "app.t", data())
        db.run("UPDATE app.t SET v = 'changed' WHERE n < 10")
        db.run("STORAGE FLUSH TABLE app.t")
        load(db, "app.t", data(ROWS), mode="append")
        times = db.query("SELECT n, _updated FROM app.t ORDER BY n").to_pylist()
    manifest = "app/t/shared/manifest.json"
    if damage == "no manifest":
        shared.remove(manifest)
    if damage == "corrupt manifest":
        shared.write(manifest, b"{")
    with successor(tmp_path, shared, before) as server, root(server) as db:
        wanted = expected(data(), data(ROWS)) | {n: "changed" for n in range(10)}
        assert contents(db, "app.t") == wanted
        assert db.query("SELECT n, _updated FROM app.t ORDER BY n").to_pylist() == times
        db.run("STORAGE FLUSH TABLE app.t")
        db.run("STORAGE COMPACT TABLE app.t")
        assert contents(db, "app.t") == wanted
        assert db.query("SELECT n, _updated FROM app.t ORDER BY n").to_pylist() == times


@pytest.mark.parametrize("first", ["undone", "refused"])
def test_a_table_that_came_after_a_failed_load_leaves_nothing_when_it_is_dropped(db, server, first):
    before = files_of(server)
    db.run("CREATE NAMESPACE app")
    db.run("BEGIN")
    db.run("CREATE TABLE app.t (n BIGINT, v TEXT NOT NULL)")
    load_in_vain(db, "app.t", undone=first == "undone")
    db.run("COMMIT")
    db.run("INSERT INTO app.t VALUES (-1, 'hot')")
    db.run("STORAGE FLUSH TABLE app.t")
    assert files_of(server) != before
    db.run("DROP NAMESPACE app CASCADE")
    until(lambda: files_of(server) == before, "the files of the dropped table are removed")


@pytest.mark.parametrize("damage", ["none", "no manifest"])
def test_a_load_is_never_found_without_what_its_transaction_changed(shared, tmp_path, damage):
    with server_on(tmp_path / "first", shared.url, settings=BULK) as before, root(before) as db:
        db.run("CREATE NAMESPACE app")
        db.run("BEGIN")
        load(db, "app.t", data())
        db.run("UPDATE app.t SET v = 'changed' WHERE n < 300")
        db.run("DELETE FROM app.t WHERE n BETWEEN 300 AND 399")
        db.run("COMMIT")
        before.kill()
    if damage == "no manifest":
        shared.remove("app/t/shared/manifest.json")
    with successor(tmp_path, shared, before) as server, root(server) as db:
        wanted = {n: "changed" if n < 300 else v for n, v in expected(data()).items() if n >= 400 or n < 300}
        assert contents(db, "app.t") == wanted


@pytest.mark.parametrize("damage", ["none", "no manifest"])
def test_rows_that_their_own_transaction_changed_stay_changed(shared, tmp_path, damage):
    """Through two losses of the data directory, with files merged between."""
    wanted = {n: "changed" if n < 300 else v for n, v in expected(data()).items() if n >= 400 or n < 300}
    with server_on(tmp_path / "first", shared.url, settings=BULK) as before, root(before) as db:
        db.run("CREATE NAMESPACE app")
        db.run("BEGIN")
        load(db, "app.t", data())
        db.run("UPDATE app.t SET v = 'changed' WHERE n < 300")
        db.run("DELETE FROM app.t WHERE n BETWEEN 300 AND 399")
        db.run("COMMIT")
        db.run("STORAGE FLUSH TABLE app.t")
    for name in ("second", "third"):
        if damage == "no manifest":
            shared.remove("app/t/shared/manifest.json")
        before = successor(tmp_path, shared, before, name)
        with before as server, root(server) as db:
            assert contents(db, "app.t") == wanted
            db.run("STORAGE COMPACT TABLE app.t")
            assert contents(db, "app.t") == wanted


def test_a_load_with_an_earlier_number_than_the_manifest_shows_is_found(shared, tmp_path):
    manifest = "app/t/shared/manifest.json"
    with server_on(tmp_path / "first", shared.url, settings=BULK) as before, root(before) as db, root(before) as other:
        db.run("CREATE NAMESPACE app")
        db.run("CREATE TABLE app.t (n BIGINT, v TEXT)")
        db.run("BEGIN")
        load(db, "app.t", data(), "append")
        other.run("INSERT INTO app.t VALUES (-1, 'hot')")
        other.run("STORAGE FLUSH TABLE app.t")
        older = shared.read()[manifest]
        db.run("COMMIT")
    shared.write(manifest, older)
    with successor(tmp_path, shared, before) as server, root(server) as db:
        assert contents(db, "app.t") == expected(data()) | {-1: "hot"}


def test_what_is_not_proven_is_not_read(shared, tmp_path):
    with server_on(tmp_path / "first", shared.url, settings=BULK) as before, root(before) as db:
        db.run("CREATE NAMESPACE app")
        load(db, "app.t", data())
        load(db, "app.t", data(ROWS), mode="append")
    shared.remove("app/t/shared/manifest.json")
    (proof,) = [path for path in shared.read() if path.endswith("batch-0002.committed")]
    shared.remove(proof)
    with successor(tmp_path, shared, before) as server, root(server) as db:
        assert contents(db, "app.t") == expected(data())
        assert "nothing proves that it was committed" in server.log()
