"""`seracdb import` and `export`: every type there and back, and every file once, whoever is killed when."""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import json
import os
import pty
import random
import subprocess
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from conftest import root
from test_types import CASES, TYPES, array, shown
from testserver import ROOT_PASSWORD, Server
from transfer import JOURNAL, command, environment, ok, refused, run, start, states, until

FORMATS = {"parquet": "parquet", "csv": "csv", "arrow": "arrow", "arrow-stream": "arrows"}

# Parquet counts no seconds.
NO_SECONDS = {
    "time32_s": pa.time32("ms"),
    "timestamp_s": pa.timestamp("ms"),
    "timestamp_s_utc": pa.timestamp("ms", "UTC"),
}

_names = itertools.count(1)


@pytest.fixture
def table(namespace) -> str:
    return f"{namespace}.t{next(_names)}"


def write(path: Path, data: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(data, path, row_group_size=1000)
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(data.column_names)
            writer.writerows(zip(*(column.to_pylist() for column in data.columns), strict=True))
    else:
        new = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
        with new(path, data.schema) as writer:
            writer.write_table(data, max_chunksize=1000)
    return path


def read(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    with pa.OSFile(str(path)) as file:
        return (pa.ipc.open_file if path.suffix == ".arrow" else pa.ipc.open_stream)(file).read_all()


def numbers(first: int, rows: int) -> pa.Table:
    return pa.table({"n": pa.array(range(first, first + rows), pa.int64()), "v": [f"value {n % 7}" for n in range(rows)]})


def count_each(db, table: str) -> dict[int, int]:
    """How often each number is there."""
    rows = db.query(f"SELECT n, count(*) AS c FROM {table} GROUP BY n").to_pylist()
    return {row["n"]: row["c"] for row in rows}


# --- there and back ---


@pytest.mark.parametrize("form", FORMATS)
def test_every_type_there_and_back(server, db, namespace, tmp_path, form):
    """A table of every type, exported, and imported into a table like it and into a new one."""
    columns = {name: array(values, given) for name, (given, values) in TYPES.items()}
    longest = max(len(column) for column in columns.values())
    padded = {n: pa.concat_arrays([c, pa.nulls(longest - len(c), c.type)]) for n, c in columns.items()}
    data = pa.table({"n": pa.array(range(longest), pa.int64()), **padded})
    db.ingest(f"{namespace}.origin", data, mode="create")
    db.run(f"STORAGE FLUSH TABLE {namespace}.origin")
    file = tmp_path / f"every.{FORMATS[form]}"
    null = ["--null", "\\N"] if form == "csv" else []
    said = ok(run(server, "export", f"{namespace}.origin", file, *null))
    assert said == f"{file}: {longest} rows exported\n"

    db.ingest(f"{namespace}.alike", data.slice(0, 0), mode="create")
    args = ["--drop-system-columns", *null]
    assert f"{longest} rows imported" in ok(run(server, "import", f"{namespace}.alike", file, *args))
    targets = ["alike"]
    if form != "csv":
        # What a CSV's columns are is guessed, and no guess is a FIXED_SIZE_LIST.
        ok(run(server, "import", "--create", f"{namespace}.created", file, *args))
        targets.append("created")
    for target in targets:
        got = db.query(f"SELECT * FROM {namespace}.{target} ORDER BY n")
        for name in data.column_names:
            wanted = data.schema.field(name).type
            if target == "created" and pa.types.is_large_list(wanted):
                wanted = pa.list_(wanted.value_type)  # how our client sends it
            assert got.schema.field(name).type == wanted, (target, name)
            assert shown(got[name].to_pylist()) == shown(data[name].to_pylist()), (target, name)


@pytest.mark.parametrize("name", CASES)
def test_every_type_by_parquet_and_arrow(server, db, namespace, tmp_path, name):
    """Also what is stored as another type, and into a new table."""
    given, values, wanted = CASES[name]
    column = array(values, given)
    expected = shown(column.cast(wanted).to_pylist())
    data = pa.table({"n": pa.array(range(len(column)), pa.int64()), "v": column})
    for suffix in ("arrow", "arrows", "parquet"):
        if suffix == "parquet" and name in ("decimal32", "decimal64", "string_view", "binary_view", "float16"):
            continue  # this pyarrow does not write them
        file = write(tmp_path / f"{name}.{suffix}", data)
        table = f"{namespace}.{name}_{suffix}"
        for args in (["--create"], ["--again"]):
            ok(run(server, "import", table, file, *args))
        got = db.query(f"SELECT v FROM {table} ORDER BY n, _id")["v"]
        if name == "large_list":
            wanted = pa.list_(wanted.value_type)  # how our client sends it
        if suffix == "parquet" and name in NO_SECONDS:
            wanted = NO_SECONDS[name]
        assert got.type == wanted
        assert shown(got.to_pylist()) == [value for value in expected for _ in range(2)], suffix


def test_a_query_is_exported_and_nothing_else(server, db, table, tmp_path):
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    db.run(f"INSERT INTO {table} VALUES (1, 'a'), (2, NULL), (3, 'c, \"d\"')")
    file = tmp_path / "out.csv"
    query = f"SELECT n, v FROM {table} WHERE n > 1 ORDER BY n"
    assert "2 rows exported" in ok(run(server, "export", "--query", query, file))
    assert list(csv.reader(io.StringIO(file.read_text()))) == [["n", "v"], ["2", ""], ["3", 'c, "d"']]
    assert "--overwrite" in refused(run(server, "export", table, file))
    assert "3 rows exported" in ok(run(server, "export", table, file, "--overwrite"))
    header = file.read_text().splitlines()[0].split(",")
    assert header == ["_id", "n", "v", "_updated"]
    for sql, text in [
        (f"DELETE FROM {table}", "only the rows of a query"),
        ("SELECT 1 AS a, 2 AS a", "two columns are called 'a'"),
        ("SELECT * FROM nowhere.nothing", "nowhere"),
        (f"SELECT 1 / (n - 3) AS q FROM {table}", "ivi"),
    ]:
        assert text in refused(run(server, "export", "--query", sql, file, "--overwrite")), sql
    assert file.read_text().splitlines()[0].split(",") == header, "a failed export leaves what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"], "and nothing beside it"
    assert db.query(f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 3}]
    # What is written is a file like any other of this user's.
    umask = os.umask(0)
    os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask


def test_csv_says_what_it_cannot_hold(server, db, table, tmp_path):
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    db.run(f"INSERT INTO {table} VALUES (1, 'x'), (2, ''), (3, NULL)")
    file = tmp_path / "out.csv"
    query = f"SELECT n, v FROM {table} ORDER BY n"
    assert "column 'v', row 2: it cannot be told from NULL" in refused(run(server, "export", "--query", query, file))
    ok(run(server, "export", "--query", query, file, "--null", "NULL", "--delimiter", ";"))
    assert file.read_text() == "n;v\n1;x\n2;\n3;NULL\n"
    ok(run(server, "import", table, file, "--null", "NULL", "--delimiter", ";"))
    assert db.query(f"SELECT n, v FROM {table} ORDER BY n, _id").to_pylist() == [
        {"n": n, "v": v} for n, v in ((1, "x"), (2, ""), (3, None)) for _ in range(2)
    ]
    # A NaN inside of a list is no JSON.
    db.ingest(f"{table}_lists", pa.table({"l": pa.array([[1.0], [float("nan")]])}), mode="create")
    other = tmp_path / "lists.csv"
    error = refused(run(server, "export", "--query", f"SELECT l FROM {table}_lists ORDER BY _id", other))
    assert "column 'l', row 2: it cannot be written as JSON" in error and "Parquet and Arrow" in error
    assert not other.exists()


# --- columns ---


def test_columns_match_by_name(server, db, table, tmp_path):
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT NOT NULL, w DOUBLE)")
    file = write(tmp_path / "a.parquet", pa.table({"v": ["x", "y"], "n": pa.array([1, 2], pa.int8())}))
    assert ok(run(server, "import", table, file)) == f"{file}: 2 rows imported\n"
    assert db.query(f"SELECT n, v, w FROM {table} ORDER BY n").to_pylist() == [
        {"n": 1, "v": "x", "w": None},
        {"n": 2, "v": "y", "w": None},
    ]
    more = write(tmp_path / "b.parquet", pa.table({"v": ["x"], "a": [1], "b": [2]}))
    error = refused(run(server, "import", table, more))
    assert f"{more}: the table has no column 'a', 'b'; it has 'n', 'v', 'w'" in error and "--ignore-extra" in error
    assert "1 row imported" in ok(run(server, "import", table, more, "--ignore-extra"))
    less = write(tmp_path / "c.parquet", pa.table({"n": [1]}))
    assert "the file lacks 'v', which the table has as NOT NULL without a DEFAULT" in refused(run(server, "import", table, less))
    system = write(tmp_path / "d.parquet", pa.table({"v": ["z"], "_id": [1], "_updated": [2], "_deleted": [True]}))
    error = refused(run(server, "import", table, system))
    assert "it has '_id', '_updated', '_deleted'" in error and "--drop-system-columns" in error
    ok(run(server, "import", table, system, "--drop-system-columns"))
    assert db.query(f"SELECT count(*) AS n FROM {table} WHERE v = 'z' AND _id > 1").to_pylist() == [{"n": 1}]


# What the server fills in, and what it makes of other columns.
FILLED = (
    "(id BIGINT PRIMARY KEY DEFAULT snowflake_id(), name TEXT, kind TEXT NOT NULL DEFAULT 'x', metres BIGINT NOT NULL, "
    "twice BIGINT NOT NULL GENERATED ALWAYS AS (metres * 2) STORED)"
)


@pytest.mark.parametrize("suffix", FORMATS.values())
def test_the_server_fills_what_the_file_lacks(server, db, table, tmp_path, suffix):
    """Defaults of columns that cannot be NULL, also of a key, and generated columns."""
    db.run(f"CREATE TABLE {table} {FILLED}")
    rows = 3000
    names = [f"peak {n}" for n in range(rows)]
    file = write(tmp_path / f"a.{suffix}", pa.table({"name": names, "metres": pa.array(range(rows), pa.int64())}))
    assert ok(run(server, "import", table, file)) == f"{file}: {rows} rows imported\n"
    got = db.query(f"SELECT * FROM {table} ORDER BY metres")
    assert got["name"].to_pylist() == names and got["kind"].to_pylist() == ["x"] * rows
    assert got["twice"].to_pylist() == [2 * n for n in range(rows)]
    ids = got["id"].to_pylist()
    assert len(set(ids)) == rows and min(ids) > 0
    # The default is for what the file lacks, and not for NULL in it.
    if suffix == "parquet":
        null = write(tmp_path / "null.parquet", pa.table({"kind": pa.array([None], pa.string()), "metres": [1]}))
        assert "column 'kind', row 1: it is NULL" in refused(run(server, "import", table, null))
    assert db.query(f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": rows}]


@pytest.mark.parametrize("suffix", FORMATS.values())
def test_a_table_with_defaults_and_generated_columns_there_and_back(server, db, namespace, tmp_path, suffix):
    for name in ("origin", "alike"):
        db.run(f"CREATE TABLE {namespace}.{name} {FILLED}")
    db.run(f"INSERT INTO {namespace}.origin (name, kind, metres) VALUES ('Eiger', 'rock', 3967), (NULL, 'ice', 4107)")
    db.run(f"INSERT INTO {namespace}.origin (name, metres) VALUES ('Hill', 12)")
    file = tmp_path / f"out.{suffix}"
    assert "3 rows exported" in ok(run(server, "export", f"{namespace}.origin", file))
    assert "3 rows imported" in ok(run(server, "import", f"{namespace}.alike", file, "--drop-system-columns"))
    origin, alike = (
        db.query(f"SELECT id, name, kind, metres, twice FROM {namespace}.{name} ORDER BY metres").to_pylist()
        for name in ("origin", "alike")
    )
    assert alike == origin and [row["twice"] for row in alike] == [24, 7934, 8214]
    # Its keys are there now: nothing of the file comes a second time.
    error = refused(run(server, "import", f"{namespace}.alike", file, "--drop-system-columns", "--again"))
    assert "has a row with (id) = " in error, error
    assert db.query(f"SELECT count(*) AS n FROM {namespace}.alike").to_pylist() == [{"n": 3}]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_has_no_default_must_be_in_the_file(server, db, table, tmp_path, suffix):
    db.run(f"CREATE TABLE {table} {FILLED}")
    # What is made of a column does not stand for it.
    file = write(tmp_path / f"a.{suffix}", pa.table({"name": ["a", "b"], "kind": ["x", "y"], "twice": [2, 4]}))
    error = refused(run(server, "import", table, file))
    assert f"{file}: the file lacks 'metres', which the table has as NOT NULL without a DEFAULT" in error, error
    assert db.query(f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 0}]
    assert states(tmp_path / JOURNAL) == []


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_values_that_do_not_fit_are_named(server, db, table, tmp_path, suffix):
    """File, column and row; and nothing of the file is imported."""
    db.run(f"CREATE TABLE {table} (i SMALLINT, d DECIMAL(6, 2), t TIMESTAMP(0), v TEXT NOT NULL)")
    good = {"i": 1, "d": Decimal("1.25"), "t": dt.datetime(2026, 1, 1, 12), "v": "x"}
    rows = 5000
    for column, value in [
        ("i", 70_000),
        ("d", Decimal("1.255")),
        ("t", dt.datetime(2026, 1, 1, 12, 0, 0, 500_000)),
        *([("v", None)] if suffix == "parquet" else []),
    ]:
        values = {name: [value_of] * rows for name, value_of in good.items()}
        values[column][4321] = value
        file = write(tmp_path / f"{column}.{suffix}", pa.table(values))
        error = refused(run(server, "import", table, file))
        assert f"{file}: column '{column}', row 4322: " in error, error
        assert db.query(f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 0}]
        assert "staged" not in states(tmp_path / JOURNAL)
    wrong = write(tmp_path / "type.parquet", pa.table({"i": [True], "v": ["x"]}))
    assert "column 'i' is SMALLINT in the table, and the file's Boolean cannot" in refused(run(server, "import", table, wrong))


def test_a_new_table_has_the_types_of_the_file(server, db, namespace, tmp_path):
    file = tmp_path / "new.csv"
    file.write_text(
        "\ufeffid,code,height,open,day,at,note\r\n"
        "1,007,1.5,true,2026-01-31,2026-01-31 10:00:00,\r\n"
        '2,008,2,FALSE,2026-02-28,2026-02-28T11:30:00.25,"two\r\nlines, ""quoted"""\r\n'
    )
    table = f"{namespace}.guessed"
    error = refused(run(server, "import", table, file))
    assert f"there is no table '{table}'" in error and "--create" in error
    ok(run(server, "import", "--create", table, file))
    got = db.query(f"SELECT * EXCLUDE (_id, _updated) FROM {table} ORDER BY id")
    assert got.schema.names == ["id", "code", "height", "open", "day", "at", "note"]
    assert [str(field.type) for field in got.schema] == [
        "int64", "string", "double", "bool", "date32[day]", "timestamp[us]", "string",
    ]  # fmt: skip
    assert got.to_pylist()[1]["note"] == 'two\r\nlines, "quoted"' and got.to_pylist()[0]["note"] is None
    later = tmp_path / "later.csv"
    later.write_text("id,code,height,open,day,at,note\nthree,9,1,true,2026-01-01,2026-01-01 00:00:00,\n")
    assert "column 'id', row 1: 'three' cannot be kept as BIGINT" in refused(run(server, "import", table, later))


def test_a_table_of_users(server, db, connect, namespace, tmp_path):
    """Rows of a USER table are those of who imports; the same file may be imported by each."""
    table = f"{namespace}.mine"
    db.run(f"CREATE USER {namespace}_ann WITH PASSWORD 'open sesame please' ROLE user")
    file = write(tmp_path / "mine.parquet", numbers(0, 10))
    ok(run(server, "import", "--create", "--kind", "user", table, file))
    assert "skipped" in ok(run(server, "import", table, file))
    ann = ["--user", f"{namespace}_ann"]
    ok(run(server, "import", *ann, table, file, password="open sesame please"))
    assert "skipped" in ok(run(server, "import", *ann, table, file, password="open sesame please"))
    assert db.query(f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 10}]
    assert db.query(f"SELECT count(*) AS n FROM all_users('{table}')").to_pylist() == [{"n": 20}]


# --- pipes and wrong files ---


def test_stdin(server, db, table):
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    args = ["import", table, "-", "--format"]
    assert ok(run(server, *args, "csv", stdin=b"n,v\n1,a\n2,\n")) == "-: 2 rows imported\n"
    data = numbers(3, 2500)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=100)
    stream = sink.getvalue().to_pybytes()
    assert ok(run(server, *args, "arrow", stdin=stream)) == "-: 2500 rows imported\n"
    # A pipe whose writer was killed gives half a stream.
    for cut in (1, 8, len(stream) // 2):
        assert refused(run(server, *args, "arrow", stdin=stream[:-cut]))
    assert "--format" in refused(run(server, "import", table, "-"))
    assert "pipe" in refused(run(server, *args, "parquet"))
    assert "twice" in refused(run(server, *args, "csv", "--create", stdin=b"n,v\n"))
    assert count_each(db, table) == dict.fromkeys(range(1, 2503), 1)


def test_wrong_files_are_said_and_leave_nothing(server, db, table, tmp_path):
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    whole = {suffix: write(tmp_path / f"whole.{suffix}", numbers(0, 5000)).read_bytes() for suffix in FORMATS.values()}
    wrong: dict[str, bytes] = {"empty.csv": b"", "ragged.csv": b"n,v\n1,a\n2\n", "latin.csv": b"n,v\n1,\xe9\n", "twice.csv": b"n,n\n1,2\n"}
    for suffix, data in whole.items():
        if suffix != "csv":
            wrong |= {f"empty.{suffix}": b"", f"half.{suffix}": data[: len(data) // 2], f"end.{suffix}": data[:-3]}
            wrong[f"noise.{suffix}"] = random.Random(7).randbytes(5000)
            damaged = bytearray(data)
            for place in range(200, len(damaged) - 200, 97):
                damaged[place] ^= 0xFF
            wrong[f"damaged.{suffix}"] = bytes(damaged)
    wrong["really.csv"] = whole["parquet"]
    for name, data in wrong.items():
        file = tmp_path / name
        file.write_bytes(data)
        error = refused(run(server, "import", table, file))
        assert f"seracdb: {file}: " in error, error
    for args, text in [
        ([table, tmp_path / "nothing.csv"], "cannot be read"),
        ([table, tmp_path], "--format"),
        ([table, tmp_path, "--format", "csv"], "no file"),
        ([table, tmp_path / "whole.csv", "--format", "parquet"], "cannot be read"),
        (["nowhere.t", tmp_path / "whole.csv"], "there is no table 'nowhere.t'"),
        (["nowhere.t", tmp_path / "whole.csv", "--create"], "nowhere"),
        (["system.jobs", tmp_path / "whole.csv", "--ignore-extra"], "'system.jobs' is no table that rows can go into"),
        ([".t", tmp_path / "whole.csv"], "NAMESPACE.TABLE"),
    ]:
        error = refused(run(server, "import", *args))
        assert text in error, (args, error)
    assert db.query(f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 0}]
    assert states(tmp_path / JOURNAL) == []


# --- once ---


def test_files_are_imported_once(server, db, namespace, tmp_path):
    table = f"{namespace}.once"
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    files = [write(tmp_path / f"{number}.parquet", numbers(100 * number, 100)) for number in range(5)]
    first = ok(run(server, "import", table, *files[:3]))
    assert first.count("100 rows imported") == 3
    second = ok(run(server, "import", table, *files))
    assert second.count("skipped: its 100 rows were imported before") == 3 and second.count("100 rows imported") == 2
    assert count_each(db, table) == dict.fromkeys(range(500), 1)
    # One that was touched or copied over itself is the same; one with other rows is not.
    files[0].touch()
    assert "skipped" in ok(run(server, "import", table, files[0]))
    write(files[0], numbers(500, 100))
    assert "has changed since" in refused(run(server, "import", table, files[0]))
    ok(run(server, "import", table, files[0], "--again"))
    assert count_each(db, table) == dict.fromkeys(range(600), 1)
    assert "skipped" in ok(run(server, "import", table, files[0]))
    # Of another table, and of one that has the name later, nothing was imported yet.
    ok(run(server, "import", "--create", f"{namespace}.other", files[0]))
    db.run(f"DROP TABLE {table}")
    assert "100 rows imported" in ok(run(server, "import", "--create", table, files[0]))
    # A copy of a file is another file, and may be meant.
    (tmp_path / "copy.parquet").write_bytes(files[0].read_bytes())
    assert "100 rows imported" in ok(run(server, "import", table, tmp_path / "copy.parquet"))
    # A journal elsewhere knows nothing of what is in this one.
    assert "skipped" in ok(run(server, "import", table, files[0], cwd=tmp_path))
    assert "100 rows imported" in ok(run(server, "import", table, files[0], "--journal", tmp_path / "mine"))
    assert "skipped" in ok(run(server, "import", table, files[0], "--journal", tmp_path / "mine"))


def test_an_answer_that_was_lost_is_asked_for(server, db, table, tmp_path):
    """The commit is acknowledged, and the client killed before it writes that down."""
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    file = write(tmp_path / "a.parquet", numbers(0, 100))
    journal = tmp_path / JOURNAL
    ok(run(server, "import", table, file))
    assert states(journal) == ["staged", "committed"]
    lines = journal.read_text().splitlines(keepends=True)
    for torn in ("", lines[1][:30]):
        journal.write_text(lines[0] + torn)
        assert "skipped" in ok(run(server, "import", table, file))
        assert states(journal) == ["staged", "committed"]
    assert count_each(db, table) == dict.fromkeys(range(100), 1)
    # Another user cannot know, and is told who can.
    entry = json.loads(lines[0]) | {"user": "somebody"}
    journal.write_text(json.dumps(entry) + "\n")
    assert "--user somebody" in refused(run(server, "import", table, file))
    # After more than a day nobody knows: the name of a transaction begins with its time.
    entry |= {"user": "root", "transaction": "0" * 32}
    journal.write_text(json.dumps(entry) + "\n")
    assert "has forgotten" in refused(run(server, "import", table, file))
    assert count_each(db, table) == dict.fromkeys(range(100), 1)
    journal.write_text("what is this\n")
    assert f"{journal}: line 1" in refused(run(server, "import", table, file))


def test_a_transaction_that_was_not_committed_is_not_taken_for_one(server, db, table, tmp_path):
    """The client is killed before it asks for the commit, and the transaction ends."""
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    file = write(tmp_path / "a.parquet", numbers(0, 100))
    ok(run(server, "import", table, file))
    journal = tmp_path / JOURNAL
    entry = json.loads(journal.read_text().splitlines()[0])
    db.run(f"DELETE FROM {table}")
    # Begun now, and never heard of.
    entry["transaction"] = entry["transaction"][:12] + "7" + "a" * 19
    journal.write_text(json.dumps(entry) + "\n")
    assert "100 rows imported" in ok(run(server, "import", table, file))
    assert states(journal) == ["staged", "undone", "staged", "committed"]
    assert count_each(db, table) == dict.fromkeys(range(100), 1)


def test_two_imports_at_once_do_not_share_a_journal(server, db, table, tmp_path):
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    file = write(tmp_path / "a.csv", numbers(0, 100_000))
    first = start(server, "import", table, file)
    until(lambda: (tmp_path / JOURNAL).exists(), first)
    second = run(server, "import", table, file)
    assert first.wait(600) == 0
    if second.returncode == 0:
        # It came after the first had ended, or before it had the journal.
        assert b"skipped" in second.stdout or b"imported" in second.stdout
    else:
        assert b"another import uses it" in second.stderr
    assert count_each(db, table) == dict.fromkeys(range(100_000), 1)


# --- whoever is killed ---

# Kills of each test. Then it may come to its end.
KILLS = 12


def wait_a_bit(process: subprocess.Popen[bytes], journal: Path, attempt: int, chance: random.Random) -> None:
    """Until a commit is asked for, and each third time for any time."""
    if attempt % 3 < 2:
        before = states(journal).count("staged")
        until(lambda: states(journal).count("staged") > before, process)
    else:
        try:
            process.wait(chance.uniform(0.05, 0.5))
        except subprocess.TimeoutExpired:
            pass


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow"])
def test_a_killed_client_is_run_again(own_server, tmp_path, suffix):
    """kill -9 at random moments and right where the commit is asked for; then every row is there once."""
    chance = random.Random(suffix)
    rows, count = 20_000, 10
    files = [write(tmp_path / f"{number}.{suffix}", numbers(rows * number, rows)) for number in range(count)]
    journal = tmp_path / JOURNAL
    killed = 0
    with root(own_server) as db:
        for attempt in range(KILLS):
            process = start(own_server, "import", "--create", "t", *files)
            wait_a_bit(process, journal, attempt, chance)
            process.kill()
            killed += process.wait() != 0
            process.communicate()
            # All or nothing of each file.
            if db.query("SELECT 1 AS one FROM information_schema.tables WHERE table_name = 't'").num_rows:
                there = count_each(db, "t")
                assert len(there) % rows == 0 and set(there.values()) <= {1}
        ok(run(own_server, "import", "--create", "t", *files))
        assert killed >= 2
        assert count_each(db, "t") == dict.fromkeys(range(rows * count), 1)


@pytest.mark.parametrize("bulk", [False, True])
def test_a_killed_server_is_started_again(tmp_path, bulk):
    """The same with kill -9 of the server, for rows that become hot ones and for those that become files."""
    variables = {"SERACDB_ENGINE__BULK_BYTES_MIN": "20000"} if bulk else {}
    chance = random.Random(bulk)
    rows, count = 10_000, 16
    data = tmp_path / "files"
    data.mkdir()
    files = [write(data / f"{number}.parquet", numbers(rows * number, rows)) for number in range(count)]
    with Server(tmp_path / "data", variables=variables) as server:
        failed = 0
        for attempt in range(KILLS):
            process = start(server, "import", "--create", "t", *files)
            wait_a_bit(process, data / JOURNAL, attempt, chance)
            server.kill()
            _, error = process.communicate(timeout=600)
            server.start()
            if process.returncode != 0:
                failed += 1
                assert error.startswith(b"seracdb: "), error
        ok(run(server, "import", "--create", "t", *files))
        assert failed >= 2
        with root(server) as db:
            assert count_each(db, "t") == dict.fromkeys(range(rows * count), 1)


# --- large files ---


def peak_bytes(server: Server, *args: object) -> int:
    """The memory that a command takes at most."""
    process = subprocess.Popen(command(server, *args), env=environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


@pytest.mark.parametrize("form", FORMATS)
def test_memory_does_not_grow_with_the_file(own_server, tmp_path, form):
    """A file of 200 MiB of values, in and out, takes hardly more than one of 2 MiB."""
    suffix = FORMATS[form]
    noise = random.Random(3)
    texts = pa.array([noise.randbytes(500).hex() for _ in range(2_000)])

    def file(name: str, times: int) -> Path:
        path = tmp_path / f"{name}.{suffix}"
        chunk = pa.table({"n": pa.array(range(len(texts)), pa.int64()), "v": texts})
        if suffix == "csv":
            with open(path, "w") as out:
                out.write("n,v\n")
                for _ in range(times):
                    out.writelines(f"{n},{v}\n" for n, v in enumerate(texts.to_pylist()))
        elif suffix == "parquet":
            with pq.ParquetWriter(path, chunk.schema, use_dictionary=False) as writer:
                writer.write_table(pa.concat_tables([chunk] * times), row_group_size=100_000)
        else:
            new = pa.ipc.new_file if suffix == "arrow" else pa.ipc.new_stream
            with new(path, chunk.schema) as writer:
                for _ in range(times):
                    writer.write_table(chunk)
        return path

    small, large = file("small", 1), file("large", 100)
    base = peak_bytes(own_server, "import", "--create", "small", small)
    peak = peak_bytes(own_server, "import", "--create", "large", large)
    assert peak < base + (64 << 20), f"{peak >> 20} MiB, and {base >> 20} MiB for a small file"
    with root(own_server) as db:
        assert db.query("SELECT count(*) AS n FROM large").to_pylist() == [{"n": 200_000}]
    out = tmp_path / f"out.{suffix}"
    base = peak_bytes(own_server, "export", "small", tmp_path / f"small-out.{suffix}")
    peak = peak_bytes(own_server, "export", "large", out)
    # A row group of Parquet is written from memory.
    assert peak < base + (160 << 20 if form == "parquet" else 64 << 20), f"{peak >> 20} MiB, and {base >> 20} MiB"
    if form != "csv":
        assert read(out).num_rows == 200_000


# --- what a person sees ---


def test_a_bar_at_a_terminal_and_lines_elsewhere(server, db, table, tmp_path):
    db.run(f"CREATE TABLE {table} (n BIGINT, v TEXT)")
    file = write(tmp_path / "bar.csv", numbers(0, 200_000))
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        command(server, "import", table, file),
        env=environment() | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    seen = b""
    while True:
        try:
            more = os.read(keyboard, 4096)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not more:
            break
        seen += more
    out = process.stdout.read()
    assert process.wait(60) == 0
    assert out.decode() == f"{file}: 200000 rows imported\n"
    assert b"%" in seen and b"rows" in seen, seen[:400]
    assert run(server, "import", table, file).stderr == b"", "no bar where nobody looks"


def test_the_password_is_in_the_environment_or_a_file(server, db, table, tmp_path):
    db.run(f"CREATE TABLE {table} (n BIGINT)")
    file = write(tmp_path / "a.csv", pa.table({"n": [1]}))
    secret = tmp_path / "secret"
    secret.write_text(ROOT_PASSWORD + "\n")
    assert refused(run(server, "import", table, file, password="wrong password here"))
    ok(run(server, "import", table, file, "--password-file", secret, password="wrong password here"))
    for what in (["import", table, str(file)], ["export", table, str(tmp_path / "out.csv")]):
        env = {k: v for k, v in environment().items() if k != "SERACDB_PASSWORD"}
        process = subprocess.run(command(server, *what), env=env, capture_output=True, timeout=60)
        assert process.returncode == 1 and b"SERACDB_PASSWORD" in process.stderr
