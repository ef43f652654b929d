"""The package `seracdb`: what it adds to ADBC's driver."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from urllib.parse import quote, urlsplit

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
import seracdb
from adbc_driver_manager import dbapi
from conftest import root
from seracdb import _feed
from seracdb._address import resolve
from testserver import ROOT_PASSWORD

ROOT = Path(__file__).resolve().parents[2]
POINTS = pa.table({"x": pa.array([1, 2, 3], pa.int64()), "label": pa.array(["a", None, "ç"], pa.string())})
PROGRESS_ROWS = 200_000


@pytest.fixture
def points(db, namespace) -> str:
    table = f"{namespace}.points"
    db.ingest(table, POINTS, mode="create")
    return table


def rows(db, table: str) -> list[tuple]:
    return [tuple(row.values()) for row in db.query(f"SELECT x, label FROM {table} ORDER BY x").to_pylist()]


# Connecting


@pytest.fixture
def no_variables(monkeypatch):
    for name in ("SERACDB_URI", "SERACDB_USER", "SERACDB_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


ADDRESSES = {
    None: ("grpc://127.0.0.1:50051", None, None, None),
    "grpc://host": ("grpc://host:50051", None, None, None),
    "grpc://alice:secret@host:9/app": ("grpc://host:9", "alice", "secret", "app"),
    "grpc://alice:secret@host:9/app/": ("grpc://host:9", "alice", "secret", "app"),
    "grpc://alice@host/": ("grpc://host:50051", "alice", None, None),
    "grpc+tls://a%40b:p%3A%2F%20%E2%9D%84@host/my%20app": ("grpc+tls://host:50051", "a@b", "p:/ ❄", "my app"),
    "grpc+tcp://[::1]:9/app": ("grpc+tcp://[::1]:9", None, None, "app"),
    "grpc://u:p@[::1]": ("grpc://[::1]:50051", "u", "p", None),
}


@pytest.mark.parametrize("uri", ADDRESSES)
def test_addresses(no_variables, uri):
    found = resolve(uri)
    assert (found.uri, found.user, found.password, found.namespace) == ADDRESSES[uri]


NO_ADDRESSES = ["host:50051", "http://u:hush@host", "grpc://", "grpc://u:hush@/app", "grpc://host/?a=hush"]


@pytest.mark.parametrize("uri", NO_ADDRESSES)
def test_what_is_no_address_is_said_without_the_password(no_variables, uri):
    with pytest.raises(ValueError, match="grpc://") as refused:
        resolve(uri)
    assert "hush" not in str(refused.value)


def test_arguments_go_before_the_uri_and_that_before_the_environment(no_variables, monkeypatch):
    monkeypatch.setenv("SERACDB_URI", "grpc://env:50051/there")
    monkeypatch.setenv("SERACDB_USER", "erin")
    monkeypatch.setenv("SERACDB_PASSWORD", "env")
    assert resolve() == resolve("grpc://erin:env@env:50051/there")
    assert resolve("grpc://ursula:uri@host") == resolve("grpc://host", "ursula", "uri")
    assert resolve("grpc://ursula:uri@host/app", "arno", "", "other") == resolve("grpc://arno:@host/other")
    assert "hush" not in repr(resolve("grpc://u:hush@host"))


def test_a_uri_says_everything(server, db, namespace, no_variables, monkeypatch):
    host = urlsplit(server.uri).netloc
    uri = f"grpc://root:{quote(ROOT_PASSWORD)}@{host}/{namespace}"
    with seracdb.connect(uri) as here:
        here.run("CREATE TABLE mine (x INT)")
        assert here.ingest("mine", pa.table({"x": pa.array([1], pa.int32())})) == 1
    assert db.query(f"SELECT x FROM {namespace}.mine")["x"].to_pylist() == [1]
    monkeypatch.setenv("SERACDB_URI", uri)
    with seracdb.connect() as here, here.adbc_clone() as other:
        assert isinstance(other, seracdb.Connection)
        assert here.query("SELECT x FROM mine").num_rows == 1
    with seracdb.connect(namespace="default", autocommit=False) as here, pytest.raises(seracdb.NotFound):
        here.query("SELECT x FROM mine")


def test_connections_that_fail(server, no_variables):
    with pytest.raises(seracdb.NotFound, match="unknown namespace 'nowhere'"):
        seracdb.connect(server.uri + "/nowhere", "root", ROOT_PASSWORD)
    with pytest.raises(seracdb.Unavailable, match="refused"), seracdb.connect("grpc://127.0.0.1:1", "root", "x") as db:
        db.query("SELECT 1")
    plain = server.uri.replace("grpc://", "grpc+tls://")
    with pytest.raises(seracdb.Unavailable, match="(?i)tls"), seracdb.connect(plain, "root", ROOT_PASSWORD) as db:
        db.query("SELECT 1")


# Rows out


def test_frames_come_out(db, points):
    sql = f"SELECT x, label FROM {points} WHERE x >= ? ORDER BY x"
    assert db.query(sql, [1]).to_pydict() == POINTS.to_pydict()
    frame = db.query_df(sql, [2])
    assert isinstance(frame, pd.DataFrame) and frame["x"].tolist() == [2, 3]
    assert frame["label"].isna().tolist() == [True, False]
    polars = db.query_pl(sql, [2])
    assert polars.to_dict(as_series=False) == {"x": [2, 3], "label": [None, "ç"]}
    assert polars.schema == {"x": pl.Int64, "label": pl.String}
    for empty in (db.query_df(sql, [9]), db.query_pl(sql, [9])):
        assert list(empty.columns) == ["x", "label"] and len(empty) == 0
    with db.cursor() as cursor:
        cursor.execute(sql, [1])
        assert cursor.fetch_polars().height == 3
        cursor.execute(sql, [1])
        assert len(cursor.fetch_df()) == 3


def test_a_stream_comes_batch_by_batch(db, namespace):
    table = f"{namespace}.many"
    db.ingest(table, pa.table({"n": range(300_000)}), mode="create")
    reader = db.stream(f"SELECT n FROM {table} WHERE n >= ?", [100])
    assert reader.schema.names == ["n"]
    # The connection is free for other statements meanwhile.
    sizes = []
    for batch in reader:
        sizes.append(batch.num_rows)
        assert db.query("SELECT 1").num_rows == 1
    assert len(sizes) > 1 and sum(sizes) == 299_900
    # It goes on to whatever reads Arrow streams.
    assert pl.DataFrame(db.stream(f"SELECT n FROM {table}")).height == 300_000
    assert db.ingest(f"{namespace}.copy", db.stream(f"SELECT n FROM {table}"), mode="create") == 300_000
    assert db.stream("SELECT 1 AS n WHERE FALSE").read_all().num_rows == 0


def test_a_stream_that_is_dropped_stops_its_query(db, namespace):
    table = f"{namespace}.many"
    db.ingest(table, pa.table({"n": range(100_000)}), mode="create")
    for _ in range(20):
        reader = db.stream(f"SELECT a.n FROM {table} a, {table} b")
        next(iter(reader))
        del reader
    assert db.query("SELECT 1").num_rows == 1


# Rows in


def sources() -> dict[str, object]:
    table = POINTS
    return {
        "table": table,
        "batch": table.to_batches()[0],
        "reader": table.to_reader(),
        "batches": table.to_batches(max_chunksize=1),
        "generator of batches": (batch for batch in table.to_batches(max_chunksize=1)),
        "generator of tables": (table.slice(i, 1) for i in range(3)),
        "pandas": table.to_pandas(),
        "pandas with another index": table.to_pandas().set_index(pd.Index([7, 8, 9], name="i")),
        "pandas in chunks": (table.to_pandas().iloc[i : i + 1] for i in (0, 2, 1)),
        "polars": pl.from_arrow(table),
        "polars, lazy": pl.from_arrow(table).lazy(),
        "dataset": pyarrow.dataset.dataset(table),
        "empty batches between": [table.slice(0, 0), table, table.slice(3)],
    }


@pytest.mark.parametrize("source", sources())
@pytest.mark.parametrize("mode", ["create", "append"])
def test_ingest_takes(db, namespace, source, mode):
    table = f"{namespace}.t"
    if mode == "append":
        db.run(f"CREATE TABLE {table} (label TEXT, x BIGINT NOT NULL)")
    assert db.ingest(table, sources()[source], mode=mode) == 3
    assert rows(db, table) == [(1, "a"), (2, None), (3, "ç")]


@pytest.mark.parametrize("nothing", [POINTS.slice(0, 0), POINTS.schema.empty_table().to_reader(), [POINTS.slice(3)]])
def test_ingest_of_no_rows(db, namespace, nothing):
    assert db.ingest(f"{namespace}.t", nothing, mode="create") == 0
    assert rows(db, f"{namespace}.t") == []


def test_what_cannot_be_ingested_is_said(db, points):
    for nonsense in (5, "text", {"x": [1]}):
        with pytest.raises(TypeError, match=type(nonsense).__name__):
            db.ingest(points, nonsense)
    with pytest.raises(ValueError, match="empty iterable"):
        db.ingest(points, iter([]))
    with pytest.raises(ValueError, match="mode"):
        db.ingest(points, POINTS, mode="sometimes")
    assert len(rows(db, points)) == 3
    with pytest.raises(pa.ArrowInvalid, match="no number"):
        db.ingest(points, [POINTS, pa.table({"x": ["no number"], "label": ["b"]})])


def test_a_batch_larger_than_a_message_is_cut(db, namespace):
    """The driver sends each batch as one message, and refuses more than 16 MiB."""
    table = f"{namespace}.large"
    assert db.ingest(table, pa.table({"n": range(3_000_000)}), mode="create") == 3_000_000
    wide = pa.table({"n": [0, 1], "v": ["x" * (20 << 20)] * 2})
    assert db.ingest(f"{namespace}.wide", wide, mode="create") == 2
    lengths = [len(v.as_py()) for batch in db.stream(f"SELECT v FROM {namespace}.wide") for v in batch["v"]]
    assert lengths == [20 << 20] * 2


def test_progress_by_a_function(db, namespace):
    seen: list[tuple[int, int]] = []
    data = pa.table({"n": range(PROGRESS_ROWS)})
    db.ingest(f"{namespace}.t", data, mode="create", progress=lambda *told: seen.append(told))
    assert len(seen) > 2 and seen == sorted(seen)
    assert seen[-1] == (PROGRESS_ROWS, data.nbytes)


def test_progress_by_tqdm(db, namespace, capsys, monkeypatch):
    db.ingest(f"{namespace}.t", pd.DataFrame({"n": range(PROGRESS_ROWS)}), mode="create", progress=True)
    assert f"{namespace}.t: 100%" in capsys.readouterr().err
    db.ingest(f"{namespace}.t", (POINTS.select([0]).rename_columns(["n"]) for _ in range(2)), progress=True)
    assert "6.00" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.warns(UserWarning, match="seracdb\\[progress\\]"):
        assert db.ingest(f"{namespace}.t", pa.table({"n": [1]}), progress=True) == 1


def failing(batches: int):
    for _ in range(batches):
        yield POINTS
    raise RuntimeError("the source broke")


def test_the_exception_of_a_source_is_the_callers(db, points):
    with pytest.raises(RuntimeError, match="the source broke"):
        db.ingest(points, failing(0))
    with pytest.raises(RuntimeError, match="the source broke"):
        db.ingest(points, failing(2))
    with pytest.raises(ZeroDivisionError):
        db.ingest(points, POINTS, progress=lambda rows, size: rows / 0)
    # And that of the server is the server's, also when it comes before the end of the source.
    with pytest.raises(seracdb.NotFound, match="colour"):
        db.ingest(points, (pa.table({"colour": ["red"] * 1000}) for _ in range(2000)))


def test_a_source_that_fails_leaves_nothing(db, points):
    for n in range(60):
        with pytest.raises(RuntimeError):
            db.ingest(points, failing(n % 4))
    assert len(rows(db, points)) == 3


# Transactions


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_transaction_commits_or_leaves_nothing(server, db, points, autocommit):
    before = rows(db, points)
    with seracdb.connect(server.uri, "root", ROOT_PASSWORD, autocommit=autocommit) as ours:
        with pytest.raises(ZeroDivisionError), ours.transaction():
            ours.run(f"DELETE FROM {points}")
            ours.ingest(points, POINTS)
            ours.ingest(f"{points}2", POINTS, mode="create")
            assert len(rows(ours, points)) == 3
            raise ZeroDivisionError
        assert rows(db, points) == before
        with pytest.raises(seracdb.NotFound):
            db.query(f"SELECT * FROM {points}2")
        with ours.transaction() as same:
            assert same is ours
            ours.run(f"DELETE FROM {points} WHERE x = 1")
            ours.ingest(points, POINTS.slice(1, 1))
            assert rows(db, points) == before
        assert [x for x, _ in rows(db, points)] == [2, 2, 3]


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_transaction_within_another_is_a_savepoint(server, db, points, autocommit):
    with seracdb.connect(server.uri, "root", ROOT_PASSWORD, autocommit=autocommit) as ours:
        with ours.transaction():
            ours.run(f"INSERT INTO {points} VALUES (4, 'outer')")
            with pytest.raises(seracdb.InvalidArgument), ours.transaction():
                ours.run(f"INSERT INTO {points} VALUES (5, 'lost')")
                with ours.transaction():
                    ours.run(f"INSERT INTO {points} VALUES (6, 'lost, too')")
                ours.run("SELEC")
            with ours.transaction():
                ours.run(f"INSERT INTO {points} VALUES (7, 'inner')")
            assert len(rows(db, points)) == 3
        assert [x for x, _ in rows(db, points)] == [1, 2, 3, 4, 7]


def test_a_conflict_is_said_at_the_end_and_the_transaction_can_run_again(db, connect, points):
    other = connect()
    with pytest.raises(seracdb.Conflict, match="rolled back") as lost, db.transaction():
        db.run(f"UPDATE {points} SET label = 'mine' WHERE x = 1")
        other.run(f"UPDATE {points} SET label = 'theirs' WHERE x = 1")
    assert isinstance(lost.value, seracdb.OperationalError)
    assert lost.value.status_code == seracdb.AdbcStatusCode.UNKNOWN
    assert rows(db, points)[0] == (1, "theirs")
    with db.transaction():
        db.run(f"UPDATE {points} SET label = 'mine' WHERE x = 1")
    assert rows(other, points)[0] == (1, "mine")


# Errors

ERRORS = {
    "SELECT * FROM nowhere.nothing": (seracdb.NotFound, "NOT_FOUND"),
    "CREATE TABLE {points} (x INT)": (seracdb.AlreadyExists, "ALREADY_EXISTS"),
    "SELEC": (seracdb.InvalidArgument, "INVALID_ARGUMENT"),
    "INSERT INTO {points} VALUES (1, 2, 3)": (seracdb.InvalidArgument, "INVALID_ARGUMENT"),
}


@pytest.mark.parametrize("sql", ERRORS)
def test_errors_have_closer_classes(db, points, sql):
    wanted, status = ERRORS[sql]
    sql = sql.format(points=points)

    def by_cursor(name: str, *more):
        with db.cursor() as cursor:
            getattr(cursor, name)(sql, *more)

    ways = [db.query, db.query_df, db.query_pl, db.stream, db.run, db.execute]
    ways += [lambda sql, name=name: by_cursor(name) for name in ("execute", "executescript", "adbc_prepare")]
    ways.append(lambda _: by_cursor("executemany", None))
    # CREATE TABLE is prepared without a complaint.
    for way in ways[:-2] + ways[-1:] if status == "ALREADY_EXISTS" else ways:
        with pytest.raises(wanted) as refused:
            way(sql)
        assert isinstance(refused.value, dbapi.ProgrammingError)
        assert refused.value.status_code == seracdb.AdbcStatusCode[status]
        assert refused.value.__suppress_context__


def test_errors_while_rows_are_read(db, namespace):
    """The error comes with the batches, through readers that know nothing of ADBC."""
    table = f"{namespace}.t"
    db.ingest(table, pa.table({"n": range(200_000)}), mode="create")
    sql = f"SELECT 1 / (n - 199999) AS q FROM {table}"
    with pytest.raises(seracdb.InvalidArgument, match="division by zero"):
        for _ in db.stream(sql):
            pass
    for fetch in ("fetchall", "fetch_arrow_table", "fetch_df", "fetch_polars", "fetchallarrow"):
        with db.cursor() as cursor, pytest.raises(seracdb.InvalidArgument, match="division by zero") as refused:
            cursor.execute(sql)
            getattr(cursor, fetch)()
        assert refused.value.status_code == seracdb.AdbcStatusCode.INVALID_ARGUMENT
    with db.cursor() as cursor, pytest.raises(seracdb.InvalidArgument):
        cursor.execute(sql)
        cursor.fetch_record_batch().read_all()
    with db.cursor() as cursor, pytest.raises(seracdb.InvalidArgument):
        cursor.execute(sql)
        list(cursor)


def test_who_may_do_what(server, db, namespace, points):
    db.run(f"CREATE USER {namespace}_ann WITH PASSWORD 'secret'")
    with seracdb.connect(server.uri, f"{namespace}_ann", "secret") as ann:
        with pytest.raises(seracdb.PermissionDenied) as refused:
            ann.run("CREATE NAMESPACE other")
        assert refused.value.status_code == seracdb.AdbcStatusCode.UNAUTHORIZED
    with pytest.raises(seracdb.Unauthenticated) as wrong, seracdb.connect(server.uri, "root", "wrong") as nobody:
        nobody.query("SELECT 1")
    assert wrong.value.status_code == seracdb.AdbcStatusCode.UNAUTHENTICATED


def test_a_limit_of_the_server(db):
    """A statement may have 16 MiB."""
    with pytest.raises(seracdb.ResourceExhausted) as refused:
        db.query("SELECT '" + "x" * (17 << 20) + "'")
    assert isinstance(refused.value, seracdb.OperationalError)


def test_a_server_that_is_gone(own_server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        db = root(own_server)
        db.query("SELECT 1")
        own_server.kill()
        with pytest.raises(seracdb.Unavailable):
            db.query("SELECT 1")
        with pytest.raises(seracdb.Unavailable), db.transaction():
            pass
        db.close()


def test_the_package_works_without_what_is_optional(server):
    """In a process where pandas, polars and tqdm cannot be imported."""
    program = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("pandas", "polars", "tqdm"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import pyarrow as pa, seracdb
with seracdb.connect() as db:
    db.ingest("without_optional", pa.table({"x": [1]}), mode="replace", progress=True)
    assert db.query("SELECT x FROM without_optional").num_rows == 1
    for way in (db.query_df, db.query_pl):
        try:
            way("SELECT 1")
        except ImportError:
            continue
        raise SystemExit(f"{way} worked")
"""
    env = os.environ | {"SERACDB_URI": server.uri, "SERACDB_USER": "root", "SERACDB_PASSWORD": ROOT_PASSWORD}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "seracdb[progress]" in done.stderr


def test_every_example_of_the_readme_runs(own_server):
    """In order, each a program of its own. `…` stands for the password."""
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / "clients/python/README.md").read_text(), re.M | re.S)
    assert len(programs) >= 5
    for program in programs:
        program = program.replace("grpc://127.0.0.1:50051", own_server.uri).replace('"…"', repr(ROOT_PASSWORD))
        done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{program}\n{done.stderr}"


def test_the_package_says_its_types():
    assert (Path(seracdb.__file__).parent / "py.typed").exists()
    assert set(seracdb.__all__) <= set(dir(seracdb))
    assert _feed.BATCH_BYTES < 16 << 20
