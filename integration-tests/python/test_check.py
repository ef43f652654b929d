"""`seracdb check`: nothing wrong in what servers leave, also when they are killed; damage is found and named."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import seracdb
from checking import clean, report, run_check
from conftest import root
from object_stores import server_on
from test_manifests import until
from test_types import CASES, array
from testserver import Server, binary

SETTINGS = {
    "SERACDB_ENGINE__BULK_BYTES_MIN": "20000",
    "SERACDB_COMPACTION__AUTOMATIC": "false",
    "SERACDB_STORAGE__ORPHAN_GRACE_SECONDS": "0",
}

def bulk(rows: int = 1000) -> pa.Table:
    numbers = range(rows)
    floats = [float("nan") if n % 10 == 0 else n / 7 for n in numbers]
    return pa.table({"n": pa.array(numbers, pa.int64()), "f": floats, "v": [f"value {n % 7}" for n in numbers]})


def fill(db: seracdb.Connection) -> None:
    """Tables of all kinds, with rows in every state."""
    db.run("CREATE NAMESPACE app")
    for user in ["ann", "bob"]:
        db.run(f"CREATE USER {user} WITH PASSWORD 'long enough' ROLE user")
    db.run("CREATE TABLE app.t (n BIGINT NOT NULL, v TEXT) WITH (bloom_fpp = '0.001')")
    db.run("CREATE INDEX by_v ON app.t (v)")
    db.run("INSERT INTO app.t SELECT value, 'one' FROM generate_series(1, 300)")
    db.run("STORAGE FLUSH TABLE app.t")
    db.run("UPDATE app.t SET v = 'two' WHERE n <= 100")
    db.run("DELETE FROM app.t WHERE n > 290")
    db.run("STORAGE FLUSH TABLE app.t")
    db.run("INSERT INTO app.t SELECT value, 'three' FROM generate_series(301, 400)")
    db.run("UPDATE app.t SET v = 'four' WHERE n <= 50 OR n > 390")
    db.run("STORAGE FLUSH TABLE app.t")
    db.run("UPDATE app.t SET v = NULL WHERE n = 7 OR n = 301")
    db.run("DELETE FROM app.t WHERE n = 8 OR n = 302")
    db.run("INSERT INTO app.t VALUES (1000, 'hot')")
    db.run("CREATE TABLE app.merged (n BIGINT, v TEXT)")
    for first in range(0, 500, 100):
        db.run(f"INSERT INTO app.merged SELECT value, 'x' FROM generate_series({first}, {first + 99})")
        db.run(f"DELETE FROM app.merged WHERE n % 3 = 0 AND n >= {first}")
        db.run("STORAGE FLUSH TABLE app.merged")
    db.run("STORAGE COMPACT TABLE app.merged")
    db.ingest("app.bulk", bulk(), mode="create")
    db.run("UPDATE app.bulk SET v = 'changed' WHERE n < 10")
    db.run("BEGIN")
    db.ingest("app.bulk", bulk(700))
    db.run("DELETE FROM app.bulk WHERE n = 5")
    db.run("UPDATE app.bulk SET v = 'at once' WHERE n = 6")
    db.run("COMMIT")
    db.run("CREATE USER TABLE app.notes (n BIGINT, v TEXT)")
    for user in ["ann", "bob"]:
        db.run(f"INSERT INTO app.notes AS USER '{user}' SELECT value, 'of {user}' FROM generate_series(1, 50)")
    db.run("STORAGE FLUSH TABLE app.notes")
    db.run("UPDATE app.notes AS USER 'ann' SET v = 'changed' WHERE n < 5")
    db.run("CREATE STREAM TABLE app.events (n BIGINT) WITH (ttl = '1h')")
    db.run("INSERT INTO app.events AS USER 'bob' VALUES (1), (2)")
    db.run("CREATE VIEW app.seen AS SELECT n FROM app.t WHERE v = 'four'")
    db.run("GRANT SELECT ON app.seen TO ann")
    db.run("COMMENT ON TABLE app.t IS 'a table'")
    db.run("CREATE TABLE app.dropped (n BIGINT)")
    db.run("INSERT INTO app.dropped VALUES (1)")
    db.run("STORAGE FLUSH TABLE app.dropped")
    db.run("DROP TABLE app.dropped")
    db.query("RUN JOB retention")
    db.run("DROP USER bob")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A data directory with everything in it, whose server was stopped."""
    with Server(tmp_path_factory.mktemp("check") / "data", variables=SETTINGS) as server:
        with root(server) as db:
            fill(db)
    return server.data_dir


@pytest.fixture
def data_dir(stopped, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(stopped, tmp_path / "data")
    return tmp_path / "data"


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_nothing_is_wrong_after_a_stop_and_nothing_is_changed(stopped):
    before = contents(stopped)
    said = clean(stopped)
    assert contents(stopped) == before
    read = said["read"]
    assert read["tables"] == 5 and read["scopes"] == 6 and read["files"] >= 9
    assert read["cold_rows"] > 2500 and read["hot_rows"] > 10
    assert said["notes"] == []
    done = run_check(stopped)
    assert done.returncode == 0
    assert re.match(r"read 5 tables in 6 parts: \d+ row versions in \d+ files of [\d.]+ KiB, \d+ in RocksDB\n", done.stdout)
    assert done.stdout.endswith("all is as it should be\n") and done.stderr == ""


# Statements whose connection is gone are not closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_wrong_after_a_kill(tmp_path):
    """Killed while two clients write, flush and merge; checked, started and killed again."""
    variables = SETTINGS | {
        "SERACDB_FLUSH__HOT_BYTES_MAX": "20000",
        "SERACDB_COMPACTION__AUTOMATIC": "true",
        "SERACDB_STORAGE__ORPHAN_GRACE_SECONDS": "3600",
    }
    server = Server(tmp_path / "data", variables=variables)
    for life in range(4):
        server.start()
        if life == 0:
            with root(server) as db:
                fill(db)
        enough = threading.Event()

        def write(first: int) -> None:
            try:
                with root(server) as db:
                    for n in range(first, first + 10_000):
                        db.run(f"INSERT INTO app.t SELECT value + {n} * 100, 'x' FROM generate_series(1000, 1099)")
                        db.run(f"UPDATE app.t SET v = 'y' WHERE n % 100 = {n % 100}")
                        if n % 5 == 0:
                            db.ingest("app.bulk", bulk())
                            db.run(f"DELETE FROM app.bulk WHERE n % 10 = {n % 7}")
                        if n % 7 == 6:
                            enough.set()
            except seracdb.Error:
                pass  # it was killed

        writers = [threading.Thread(target=write, args=((life * 2 + i) * 10_000,)) for i in range(2)]
        [writer.start() for writer in writers]
        assert enough.wait(300)
        server.kill()
        [writer.join() for writer in writers]
        clean(server.data_dir, variables=variables)


def test_bounds_and_filters_of_every_type(tmp_path):
    """Hot, flushed, merged and loaded, each with an index where there can be one."""
    with Server(tmp_path / "data", variables=SETTINGS | {"SERACDB_ENGINE__BULK_BYTES_MIN": "1"}) as server, root(server) as db:
        indexed = 0
        for name, (given, values, _) in CASES.items():
            column = array(values, given)
            data = pa.table({"n": pa.array(range(len(column)), pa.int64()), "v": column})
            db.ingest(name, data, mode="create")
            try:
                db.run(f"CREATE INDEX by_{name} ON {name} (v)")
                indexed += 1
            except seracdb.Error as error:
                assert "index" in str(error).lower(), f"{name}: {error}"
            db.ingest(name, data)
            for _ in range(2):
                db.run(f"UPDATE {name} SET n = n")
                db.run(f"STORAGE FLUSH TABLE {name}")
            db.run(f"STORAGE COMPACT TABLE {name}")
            db.run(f"UPDATE {name} SET n = n WHERE n < 2")
        assert indexed > 20
    read = clean(server.data_dir)["read"]
    assert read["tables"] == len(CASES) and read["files"] > 3 * len(CASES) and read["hot_rows"] > 2 * len(CASES)


def one(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


T = "objects/app/t/shared"

DAMAGES: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "a file is gone": ("files", "batch-0001.parquet is missing", lambda d: (d / T / "batch-0001.parquet").unlink()),
    "a byte of a file is another": ("files", "the checksum is another", lambda d: flip(d / T / "batch-0002.parquet", 100)),
    "a file is cut off": ("files", "bytes, not", lambda d: os.truncate(d / T / "batch-0003.parquet", 50)),
    "an archived file is gone": ("files", "is missing", lambda d: one(d / "objects/app/merged/shared", "batch-0001.parquet").unlink()),
    "a user's file is another user's": (
        "files",
        "user_ann/batch-0001.parquet",
        lambda d: shutil.copy(d / "objects/app/notes/user_bob/batch-0001.parquet", d / "objects/app/notes/user_ann/batch-0001.parquet"),
    ),
    "a delete vector is gone": ("files", "deletes-", lambda d: one(d / T, "*.deletes-*").unlink()),
    "a byte of a delete vector is another": ("files", "checksum", lambda d: flip(one(d / T, "*.deletes-*"), 20)),
    "a Bloom filter is gone": ("files", "batch-0001.bloom is missing", lambda d: (d / T / "batch-0001.bloom").unlink()),
    "a byte of a Bloom filter is another": ("filters", "checksum", lambda d: flip(d / T / "batch-0001.bloom", 40)),
    "the proof of a load is gone": ("files", ".committed is missing", lambda d: one(d / "objects/app/bulk/shared", "*.committed").unlink()),
    "the proof of a load is another's": (
        "files",
        "proves another commit",
        lambda d: edit(one(d / "objects/app/bulk/shared", "*.committed"), lambda proof: proof.update(updated=7)),
    ),
    "the manifest is gone": ("manifest", "there is no manifest.json", lambda d: (d / T / "manifest.json").unlink()),
    "the manifest is cut off": ("manifest", "cannot be read", lambda d: os.truncate(d / T / "manifest.json", 100)),
    "the manifest shows other rows": (
        "manifest",
        "not those of the records",
        lambda d: edit(d / T / "manifest.json", lambda m: m["batches"][0].update(row_count=1)),
    ),
    "the manifest is an older one": ("manifest", "version 1 of the records", lambda d: edit(d / T / "manifest.json", lambda m: m.update(version=1))),
    "the manifest is another user's": (
        "manifest",
        "user:bob",
        lambda d: shutil.copy(d / "objects/app/notes/user_bob/manifest.json", d / "objects/app/notes/user_ann/manifest.json"),
    ),
    "a file is left that nothing names": ("orphans", "batch-0099.parquet", lambda d: old(d / T / "batch-0099.parquet")),
    "a folder is left that no table has": ("orphans", "app/gone", lambda d: old(d / "objects/app/gone/shared/batch-0001.parquet")),
}


def old(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("left")
    os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(data_dir, damage):
    invariant, text, do = DAMAGES[damage]
    do(data_dir)
    said = report(data_dir)
    assert not said["clean"]
    assert {finding["invariant"] for finding in said["findings"]} == {invariant}, said["findings"]
    assert any(text in finding["what"] for finding in said["findings"]), said["findings"]
    done = run_check(data_dir)
    assert done.returncode == 1 and "NOT SO: " in done.stdout and text in done.stdout
    assert re.search(r"\d+ findings?\n$", done.stdout)


def test_what_was_just_left_is_a_note(data_dir):
    (data_dir / T / "batch-0099.parquet").write_text("left by a flush that died")
    (data_dir / T / "notes.txt").write_text("a user's own")
    said = clean(data_dir, variables={"SERACDB_STORAGE__ORPHAN_GRACE_SECONDS": "3600"})
    assert sorted(note["about"] for note in said["notes"]) == ["foreign", "orphan"]
    assert "note: app.t (shared): " in run_check(data_dir).stdout


def test_what_cannot_be_looked_at(own_server, tmp_path):
    done = run_check(own_server.data_dir)
    assert done.returncode == 2 and done.stdout == ""
    assert "is in use by another process" in done.stderr and done.stderr.startswith("seracdb: ")
    for folder, text in [(tmp_path / "nothing", "is no data directory of SeracDB"), (tmp_path, "is no data directory of SeracDB")]:
        done = run_check(folder)
        assert (done.returncode, done.stdout) == (2, "") and text in done.stderr
    assert not (tmp_path / "nothing").exists()
    assert run_check(own_server.data_dir, variables={"SERACDB_SERVER__LISTEN": "nowhere"}).returncode == 2
    own_server.kill()
    clean(own_server.data_dir)
    shutil.rmtree(own_server.data_dir / "objects")
    done = run_check(own_server.data_dir)
    assert done.returncode == 2 and "restore it or mount it" in done.stderr


def test_a_shared_object_store(shared, tmp_path):
    """Also after another data directory has gone on with its tables."""
    server = server_on(tmp_path / "data", shared.url, settings="[engine]\nbulk_bytes_min = 20000\n")
    with server, root(server) as db:
        fill(db)
        until(lambda: not any("/dropped/" in path for path in shared.read()), "a dropped table's files are removed")
    where = ["--object-store", shared.url]
    said = clean(server.data_dir, *where)
    assert said["read"]["files"] >= 9 and said["notes"] == []
    shutil.rmtree(server.data_dir)
    second = server_on(tmp_path / "second", shared.url, "--take-over", settings="[engine]\nbulk_bytes_min = 20000\n")
    with second, root(second) as db:
        clean_rows = db.query("SELECT count(*) AS n FROM app.t").to_pylist()
        assert clean_rows[0]["n"] > 300
        db.run("UPDATE app.t SET v = 'later' WHERE n < 100")
        db.run("STORAGE FLUSH TABLE app.t")
    clean(second.data_dir, *where)
    exported = [path for path in shared.read() if re.match(r"_seracdb/catalog-e\d+\.json", path)]
    for path in exported:
        shared.remove(path)
    assert {finding["invariant"] for finding in report(second.data_dir, *where)["findings"]} == {"catalog-export"}


def test_a_terminal_is_told_how_far_it_is(stopped):
    outer, inner = pty.openpty()
    done = subprocess.run([binary(), "check", "--data-dir", str(stopped)], stdout=subprocess.PIPE, stderr=inner, timeout=300)
    os.close(inner)
    told = os.read(outer, 1 << 16).decode()
    os.close(outer)
    assert done.returncode == 0 and re.search(r"\d+ files, .*\d+ rows read", told), told


def test_what_died_while_it_was_written_is_removed(data_dir):
    """A file has its name once it is whole; before, it has one that nobody looks for."""
    unnamed = data_dir / T / "manifest.0b0c9b5e-3f0e-4b7e-8a53-0d9f54f0a7c1.tmp"
    young = data_dir / T / "manifest.2f9c4d0a-7a55-4f0e-9d6b-6a9a2d1f8e11.tmp"
    for path in [unnamed, young]:
        old(path)
    os.utime(young)
    assert {finding["invariant"] for finding in report(data_dir)["findings"]} == {"orphans"}
    with Server(data_dir, variables=SETTINGS) as server, root(server) as db:
        db.query("RUN JOB cleanup")
        until(lambda: not unnamed.exists(), "it is removed")
        assert young.exists(), "it may be being written"
    clean(data_dir)
