"""Manifests and their cache: what is damaged is noticed and mended, and answers stay right meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
import seracdb
from conftest import root
from object_stores import server_on
from testserver import Server

MANIFEST = "default/t/shared/manifest.json"
COLUMNS = "namespace table user_id etag last_refreshed last_accessed ttl source sync_state".split()
ROWS = [{"n": 1, "v": "a"}, {"n": 2, "v": "new"}, {"n": 4, "v": "d"}]


def until(true: Callable[[], object], what: str) -> None:
    """Waits for what happens in the background."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited in vain: {what}")


def fill(server: Server) -> None:
    """Three files: four rows, a new version of one of them, and a deletion."""
    with root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, v TEXT)")
        db.run("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')")
        db.run("STORAGE FLUSH TABLE t")
        db.run("UPDATE t SET v = 'new' WHERE n = 2")
        db.run("STORAGE FLUSH TABLE t")
        db.run("DELETE FROM t WHERE n = 3")
        db.run("STORAGE FLUSH TABLE t")


def rows(server: Server) -> list[dict]:
    with root(server) as db:
        return db.query("SELECT n, v FROM t ORDER BY n").to_pylist()


def cached(server: Server) -> list[dict]:
    with root(server) as db:
        return db.query("SHOW MANIFEST CACHE").to_pylist()


def told(server: Server, *words: str) -> bool:
    return any(all(word in line for word in words) for line in server.log().splitlines())


def test_the_cache_is_filled_by_flushes_and_reads_and_shown(shared, tmp_path):
    server = server_on(tmp_path / "data", shared.url, settings="[manifest_cache]\nttl_seconds = 3\n")
    with server:
        fill(server)
        assert told(server, "manifest_cache_sync_success", MANIFEST)
        with root(server) as db:
            db.run("CREATE TABLE never_flushed (n INT)")
            shown = db.query("SHOW MANIFEST CACHE")
            assert shown.column_names == COLUMNS
        (entry,) = shown.to_pylist()
        assert (entry["namespace"], entry["table"], entry["user_id"]) == ("default", "t", None)
        assert (entry["source"], entry["sync_state"]) == (MANIFEST, "in_sync")
        assert 0 < entry["ttl"] <= 3 and entry["last_accessed"] is not None

        # After its time the next query has it compared, and believed again.
        time.sleep(3.1)
        (old,) = cached(server)
        assert (old["ttl"], old["sync_state"], old["etag"]) == (0, "stale", entry["etag"])
        assert rows(server) == ROWS
        until(lambda: cached(server)[0]["sync_state"] == "in_sync", "the entry is compared with the object store")
        assert cached(server)[0]["last_refreshed"] > entry["last_refreshed"]
        assert cached(server)[0]["etag"] == entry["etag"]

        # A restart keeps the entry, and forgets when it was used.
        server.restart()
        (kept,) = cached(server)
        assert (kept["etag"], kept["last_accessed"]) == (entry["etag"], None)
        assert rows(server) == ROWS
        until(lambda: cached(server)[0]["last_accessed"] is not None, "a query brings the entry into memory")


def test_batches_are_shown_to_whom_they_belong(own_server):
    with root(own_server) as db:
        for user in ("ann", "bob"):
            db.run(f"CREATE USER {user} WITH PASSWORD 'password of {user}' ROLE user")
        db.run("CREATE USER TABLE mine (n INT)")
    connections = {user: seracdb.connect(own_server.uri, user, f"password of {user}") for user in ("ann", "bob")}
    for user, db in connections.items():
        db.run("INSERT INTO mine VALUES (1), (2)" if user == "ann" else "INSERT INTO mine VALUES (3)")
    with root(own_server) as db:
        db.run("STORAGE FLUSH TABLE mine")
        every = [("ann", 1, 2), ("bob", 1, 1)]
        for sql in ("SELECT * FROM system.batches WHERE \"table\" = 'mine'", "SHOW MANIFEST FOR mine"):
            shown = db.query(sql).to_pylist()
            assert [(b["user_id"], b["batch_number"], b["row_count"]) for b in shown] == every, sql
            assert all(b["status"] == "active" and b["kind"] == "flush" for b in shown)
            # Bounds are values of theirs.
            assert all(b["column_min_max"] is None for b in shown)
        assert len(db.query("SHOW MANIFEST CACHE").to_pylist()) == 2
    for user, db in connections.items():
        for sql in ("SELECT * FROM system.batches", "SHOW MANIFEST FOR mine", "SHOW MANIFEST CACHE"):
            shown = db.query(sql).to_pylist()
            assert {row["user_id"] for row in shown} == {user}, sql
            if user == "ann" and "CACHE" not in sql:
                bounds = json.loads(shown[0]["column_min_max"])["n"]
                assert bounds == {"exact": True, "max": 2, "min": 1, "null_count": 0}
        db.close()


def damage_of(kind: str, old: bytes, new: bytes) -> bytes | None:
    """What to put in the place of the manifest `new`, of which `old` was an earlier version; `None`: nothing."""
    changed = json.loads(new)
    match kind:
        case "missing":
            return None
        case "truncated":
            return new[: len(new) // 2]
        case "corrupt":
            return b"\x00" * len(new)
        case "empty":
            return b""
        case "stale":
            return old
        case "of another table":
            changed["table_id"] += 1
        case "another count":
            changed["batches"][0]["row_count"] += 1
        case "a batch less":
            changed["batches"].pop()
    return json.dumps(changed).encode()


DAMAGES = ["missing", "truncated", "corrupt", "empty", "stale", "of another table", "another count", "a batch less"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_manifest_is_noticed_and_written_again(shared, tmp_path, kind):
    with server_on(tmp_path / "data", shared.url) as server:
        fill(server)
        old = shared.read()[MANIFEST]
        with root(server) as db:
            db.run("INSERT INTO t VALUES (9, 'x')")
            db.run("STORAGE FLUSH TABLE t")
            db.run("DELETE FROM t WHERE n = 9")
        server.stop()
        right = shared.read()[MANIFEST]
        damaged = damage_of(kind, old, right)
        shared.remove(MANIFEST) if damaged is None else shared.write(MANIFEST, damaged)
        server.start()
        assert rows(server) == ROWS
        until(lambda: told(server, "manifest_rebuild_completed", MANIFEST), "the manifest is written again")
        assert told(server, "manifest_corruption_detected", MANIFEST) and told(server, "manifest_rebuild_started")
        mended, right = json.loads(shared.read()[MANIFEST]), json.loads(right)
        # When it was written, and by which start of the owner.
        for written in (mended, right):
            del written["generated_at"], written["epoch"]
        assert mended == right
        assert rows(server) == ROWS
        with root(server) as db:
            db.run("STORAGE FLUSH TABLE t")
        assert [entry["sync_state"] for entry in cached(server)] == ["in_sync"]
        assert rows(server) == ROWS


def test_a_manifest_of_a_newer_build_is_not_written_over(shared, tmp_path):
    with server_on(tmp_path / "data", shared.url) as server:
        fill(server)
        server.stop()
        newer = json.dumps(json.loads(shared.read()[MANIFEST]) | {"format_version": 99}).encode()
        shared.write(MANIFEST, newer)
        server.start()
        assert rows(server) == ROWS
        until(lambda: told(server, "manifest_corruption_detected", "newer build"), "the version is noticed")
        with root(server) as db:
            db.run("INSERT INTO t VALUES (5, 'e')")
            with pytest.raises(seracdb.Error):
                db.run("STORAGE FLUSH TABLE t")
        assert rows(server) == [*ROWS, {"n": 5, "v": "e"}]
        assert shared.read()[MANIFEST] == newer


def test_fields_of_newer_builds_stay(shared, tmp_path):
    with server_on(tmp_path / "data", shared.url) as server:
        fill(server)
        server.stop()
        shared.write(MANIFEST, json.dumps(json.loads(shared.read()[MANIFEST]) | {"colour": {"of": "ice"}}).encode())
        server.start()
        (before,) = cached(server)
        assert rows(server) == ROWS
        until(lambda: cached(server)[0]["etag"] != before["etag"], "the manifest is read")
        with root(server) as db:
            db.run("INSERT INTO t VALUES (5, 'e')")
            db.run("STORAGE FLUSH TABLE t")
        assert json.loads(shared.read()[MANIFEST])["colour"] == {"of": "ice"}


def test_a_lost_batch_file_is_an_error_and_not_an_empty_table(shared, tmp_path):
    with server_on(tmp_path / "data", shared.url) as server:
        fill(server)
        with root(server) as db:
            db.run("CREATE TABLE other (n INT)")
            db.run("INSERT INTO other VALUES (1)")
        server.stop()
        lost = "default/t/shared/batch-0001.parquet"
        content = shared.read()[lost]
        shared.remove(lost)
        server.start()
        with root(server) as db:
            for sql in ("SELECT n, v FROM t ORDER BY n", "UPDATE t SET v = 'x'"):
                with pytest.raises(seracdb.Error) as error:
                    db.query(sql) if sql.startswith("SELECT") else db.run(sql)
                assert "batch-0001.parquet" in str(error.value) and "restore" in str(error.value), sql
            assert db.query("SELECT n FROM other").to_pylist() == [{"n": 1}]
        until(lambda: told(server, "manifest_corruption_detected", f"{lost} is missing"), "the loss is logged")
        assert [entry["sync_state"] for entry in cached(server)] == ["error"]
        shared.write(lost, content)
        assert rows(server) == ROWS


def test_a_changed_byte_is_found_by_a_check(shared, tmp_path):
    with server_on(tmp_path / "data", shared.url) as server:
        fill(server)
        file = "default/t/shared/batch-0002.parquet"
        right = shared.read()[file]
        with root(server) as db:
            db.run("STORAGE CHECK TABLE t")
            for at in (4, len(right) // 2, len(right) - 1):
                shared.write(file, right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :])
                with pytest.raises(seracdb.Error, match="batch-0002.parquet is gone or is not what was written"):
                    db.run("STORAGE CHECK TABLE t")
            shared.remove(file)
            with pytest.raises(seracdb.Error, match="batch-0002.parquet"):
                db.run("STORAGE CHECK TABLE t")
            shared.write(file, right)
            db.run("STORAGE CHECK TABLE t")


def test_a_lost_delete_vector_is_made_again(shared, tmp_path):
    with server_on(tmp_path / "data", shared.url) as server:
        fill(server)
        server.stop()
        before = shared.read()
        vectors = [path for path in before if ".deletes-" in path]
        assert vectors
        shared.remove(vectors[0])
        server.start()
        assert rows(server) == ROWS
        until(lambda: vectors[0] in shared.read(), "the vector is written again")
        assert shared.read()[vectors[0]] == before[vectors[0]]


def test_what_no_record_names_is_removed_and_nothing_else(shared, tmp_path):
    with server_on(tmp_path / "data", shared.url) as server:
        fill(server)
        server.stop()
        folder = "default/t/shared"
        before = shared.read()
        for name in ("batch-0077.parquet", "batch-0077.bloom", "batch-0001.deletes-5", "notes.txt", "batch-x.parquet"):
            shared.write(f"{folder}/{name}", b"left over")
        server.start()
        assert rows(server) == ROWS
        kept = {*before, f"{folder}/notes.txt", f"{folder}/batch-x.parquet"}
        until(lambda: set(shared.read()) == kept, "what a dead flush has left is removed")
        with root(server) as db:
            db.run("INSERT INTO t VALUES (5, 'e')")
            db.run("STORAGE FLUSH TABLE t")
        assert rows(server) == [*ROWS, {"n": 5, "v": "e"}]


def test_a_second_writer_of_the_manifest_is_noticed(shared, tmp_path):
    """Whoever writes the manifest with a later epoch is its owner: this server writes over nothing of theirs."""
    with server_on(tmp_path / "data", shared.url) as server:
        fill(server)
        others = json.dumps(json.loads(shared.read()[MANIFEST]) | {"epoch": 7}).encode()
        shared.write(MANIFEST, others)
        with root(server) as db:
            db.run("INSERT INTO t VALUES (5, 'e')")
            with pytest.raises(seracdb.Error):
                db.run("STORAGE FLUSH TABLE t")
        assert shared.read()[MANIFEST] == others
        assert told(server, "another owner")
