"""A new data directory goes on with the tables of one that is gone, from what lies in the object store."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest
import seracdb
from conftest import root
from object_stores import Folder, server_on
from test_manifests import told, until
from testserver import Server


def successor(tmp_path: Path, shared, before: Server, name: str = "second") -> Server:
    """A server on an empty data directory, after the one of before is gone for good."""
    if before.process.poll() is None:
        before.kill()
    shutil.rmtree(before.data_dir)
    return server_on(tmp_path / name, shared.url, "--take-over")


def change_at_random(server: Server, shared, seed: int) -> tuple[dict[int, int], bytes]:
    """A history of one table over several files, flushed at its end; the rows that are left, and an older manifest."""
    chance = random.Random(seed)
    expected: dict[int, int] = {}
    with root(server) as db:
        db.run("CREATE NAMESPACE app")
        db.run("CREATE TABLE app.t (n BIGINT, v BIGINT)")
        for turn in range(8):
            new = {turn * 100 + n: chance.randrange(1000) for n in range(20)}
            db.run("INSERT INTO app.t VALUES " + ", ".join(f"({n}, {v})" for n, v in new.items()))
            expected |= new
            changed = chance.sample(sorted(expected), 8)
            db.run(f"UPDATE app.t SET v = v + 1 WHERE n IN ({', '.join(map(str, changed))})")
            expected |= {n: expected[n] + 1 for n in changed}
            gone = chance.sample(sorted(expected), 5)
            db.run(f"DELETE FROM app.t WHERE n IN ({', '.join(map(str, gone))})")
            for n in gone:
                del expected[n]
            db.run("STORAGE FLUSH TABLE app.t")
            if turn == 5:
                db.run("STORAGE COMPACT TABLE app.t")
            if turn == 6:
                older = shared.read()["app/t/shared/manifest.json"]
    return expected, older


def rows(server: Server) -> dict[int, int]:
    with root(server) as db:
        found = db.query("SELECT n, v FROM app.t").to_pylist()
    assert len({row["n"] for row in found}) == len(found), "a row is there twice"
    return {row["n"]: row["v"] for row in found}


@pytest.mark.parametrize("damage", ["none", "no manifest", "corrupt manifest", "older manifest", "a vector less", "no sidecars"])
def test_a_new_data_directory_goes_on(shared, tmp_path, damage):
    with server_on(tmp_path / "first", shared.url) as first:
        expected, older = change_at_random(first, shared, seed=len(damage))
        with root(first) as db:
            last_id = db.query("SELECT max(_id) AS id FROM app.t").to_pylist()[0]["id"]
        second = successor(tmp_path, shared, first)
        folder = "app/t/shared/"
        manifest = folder + "manifest.json"
        for path in [path for path in shared.read() if path.startswith(folder)]:
            is_vector, is_filter = ".deletes-" in path, path.endswith(".bloom")
            if damage == "older manifest" and path == manifest:
                shared.write(path, older)
            elif damage == "no manifest" and path == manifest:
                shared.remove(path)
            elif damage == "corrupt manifest" and path == manifest:
                shared.write(path, b"{")
            elif is_vector and damage in ("a vector less", "no sidecars") or is_filter and damage == "no sidecars":
                shared.remove(path)
    with second:
        assert rows(second) == expected
        from_footers = damage != "none"
        assert told(second, "manifest_corruption_detected", manifest) == from_footers
        assert told(second, "manifest_rebuild_completed", manifest) == from_footers
        # It goes on: changes, flushes, restarts, compactions.
        with root(second) as db:
            assert db.run("UPDATE app.t SET v = -1 WHERE n % 2 = 0") == sum(n % 2 == 0 for n in expected)
            assert db.run("DELETE FROM app.t WHERE n % 5 = 1") == sum(n % 5 == 1 for n in expected)
            db.run("INSERT INTO app.t VALUES (100000, 7)")
            assert db.query("SELECT min(_id) AS id FROM app.t WHERE n = 100000").to_pylist()[0]["id"] > last_id
        expected = {n: -1 if n % 2 == 0 else v for n, v in expected.items() if n % 5 != 1} | {100000: 7}
        assert rows(second) == expected
        second.kill()
        second.start()
        assert rows(second) == expected
        with root(second) as db:
            db.run("STORAGE FLUSH TABLE app.t")
            assert rows(second) == expected
            db.run("STORAGE COMPACT TABLE app.t")
        second.restart()
        assert rows(second) == expected
        written = json.loads(shared.read()[manifest])
        numbers = [batch["batch_number"] for batch in written["batches"]]
        assert len(set(numbers)) == len(numbers) and written["max_batch"] >= max(numbers)
        # And once more.
        third = successor(tmp_path, shared, second, "third")
    with third:
        assert rows(third) == expected


def test_users_and_their_rows_come_along(shared, tmp_path):
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            for user in ("ann", "Bob ~2"):
                db.run(f"CREATE USER \"{user}\" WITH PASSWORD 'password of {user}' ROLE user")
            db.run("CREATE USER TABLE mine (n INT)")
            db.run("CREATE TABLE \"Odd ~ name\" (n INT)")
            db.run('INSERT INTO "Odd ~ name" VALUES (5)')
            db.run("CREATE TABLE dropped (n INT)")
            db.run("DROP TABLE dropped")
            db.run("CREATE TABLE dropped (other TEXT)")
            db.run("INSERT INTO dropped VALUES ('x')")
        for number, user in enumerate(("ann", "Bob ~2")):
            with seracdb.connect(first.uri, user, f"password of {user}") as db:
                db.run(f"INSERT INTO mine VALUES ({number})")
        with root(first) as db:
            db.run("STORAGE FLUSH ALL")
            # Hot rows and what was created after the last flush: the rows are lost, the table is not.
            db.run("CREATE TABLE later (n INT)")
            db.run("INSERT INTO later VALUES (1)")
        until(lambda: b'"later"' in shared.read()["_seracdb/catalog-e1.json"], "the catalog is exported")
        assert b"password of" not in b"".join(shared.read().values())
        second = successor(tmp_path, shared, first)
    with second:
        assert told(second, "goes on with the tables of the owner before")
        for number, user in enumerate(("ann", "Bob ~2")):
            with seracdb.connect(second.uri, user, f"password of {user}") as db:
                assert db.query("SELECT n FROM mine").to_pylist() == [{"n": number}]
        with root(second) as db:
            assert db.query('SELECT n FROM "Odd ~ name"').to_pylist() == [{"n": 5}]
            assert db.query("SELECT other FROM dropped").to_pylist() == [{"other": "x"}]
            assert db.query("SELECT n FROM later").num_rows == 0
            # Numbers of tables and users go on.
            db.run("CREATE USER carl WITH PASSWORD 'password of carl' ROLE user")
            db.run("CREATE TABLE fresh (n INT)")
            db.run("INSERT INTO fresh VALUES (1)")
            db.run("GRANT SELECT ON fresh TO carl")
            db.run("STORAGE FLUSH TABLE fresh")
            db.run("DROP TABLE mine")
        with seracdb.connect(second.uri, "carl", "password of carl") as db:
            assert db.query("SELECT n FROM fresh").to_pylist() == [{"n": 1}]
        until(lambda: not any(path.startswith("default/mine/") for path in shared.read()), "the files of the dropped table go")


def test_a_lost_file_is_named_and_its_older_versions_stay_away(shared, tmp_path):
    """Without the file that superseded them, older versions of rows would look like the newest."""
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            db.run("CREATE TABLE t (n BIGINT, v TEXT)")
            db.run("INSERT INTO t VALUES (1, 'old'), (2, 'kept')")
            db.run("STORAGE FLUSH TABLE t")
            db.run("UPDATE t SET v = 'new' WHERE n = 1")
            db.run("STORAGE FLUSH TABLE t")
        second = successor(tmp_path, shared, first)
    lost = "default/t/shared/batch-0002.parquet"
    content = shared.read()[lost]
    shared.remove(lost)
    with second:
        with root(second) as db:
            for _ in range(2):
                with pytest.raises(seracdb.Error, match="batch-0002.parquet is gone"):
                    db.query("SELECT n, v FROM t")
                second.restart()
                db = root(second)
            shared.write(lost, content)
            found = db.query("SELECT n, v FROM t ORDER BY n").to_pylist()
            assert found == [{"n": 1, "v": "new"}, {"n": 2, "v": "kept"}]
            db.close()


def test_who_was_lost_before_it_wrote_is_passed_over(shared, tmp_path):
    """The one that goes on is lost itself before it has written its tables: the next one goes on from the first."""
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            db.run("CREATE TABLE t (n BIGINT)")
            db.run("INSERT INTO t VALUES (1)")
            db.run("STORAGE FLUSH TABLE t")
        second = successor(tmp_path, shared, first)
    with second:
        shared.remove("_seracdb/catalog-e2.json")
        third = successor(tmp_path, shared, second, "third")
    with third:
        with root(third) as db:
            assert db.query("SELECT n FROM t").to_pylist() == [{"n": 1}]


def test_foreign_files_are_not_read(shared, tmp_path):
    """Files of another table, or of nobody, in the folder of a table that is recovered from footers."""
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            for table, n in (("t", 1), ("u", 2)):
                db.run(f"CREATE TABLE {table} (n BIGINT)")
                db.run(f"INSERT INTO {table} VALUES ({n})")
                db.run(f"STORAGE FLUSH TABLE {table}")
        second = successor(tmp_path, shared, first)
    shared.write("default/t/shared/batch-0009.parquet", shared.read()["default/u/shared/batch-0001.parquet"])
    shared.write("default/t/shared/batch-0010.parquet", b"no Parquet")
    shared.remove("default/t/shared/manifest.json")
    with second:
        with root(second) as db:
            assert db.query("SELECT n FROM t").to_pylist() == [{"n": 1}]
            db.run("INSERT INTO t VALUES (3)")
            db.run("STORAGE FLUSH TABLE t")
            assert db.query("SELECT n FROM t ORDER BY n").to_pylist() == [{"n": 1}, {"n": 3}]
        assert told(second, "batch-0009.parquet", "another table") and told(second, "batch-0010.parquet", "no batch file")
        # They stay, and numbers go on above all that there are.
        assert {f"default/t/shared/batch-00{n}.parquet" for n in ("09", "10")} <= shared.read().keys()
        assert "default/t/shared/batch-0011-e2.parquet" in shared.read()


def test_a_hundred_files_are_recovered_in_about_a_second(tmp_path):
    """100 files of 10,000 rows without their manifest. No time is asserted: it is printed."""
    shared = Folder(tmp_path / "shared")
    # A usual lease, that its many writes do not outlive on a machine that is busy for seconds.
    with server_on(tmp_path / "first", shared.url, lease_seconds=30) as first:
        with root(first) as db:
            db.run("CREATE TABLE t (n BIGINT, text TEXT)")
            for file in range(100):
                start = file * 10_000
                db.run(f"INSERT INTO t SELECT value, 'row ' || value FROM generate_series({start}, {start + 9999})")
                db.run("STORAGE FLUSH TABLE t")
        first.stop()
        second = successor(tmp_path, shared, first)
    shared.remove("default/t/shared/manifest.json")
    with second:
        started = time.monotonic()
        with root(second) as db:
            found = db.query("SELECT count(*) AS rows, sum(n) AS n FROM t").to_pylist()
        print(f"first answer after {time.monotonic() - started:.2f} s")
        assert found == [{"rows": 1_000_000, "n": 999_999 * 500_000}]
        (line,) = [line for line in second.log().splitlines() if "manifest_rebuild_completed" in line]
        print(line)
