"""Cold files on an S3-compatible object store, and on a folder of their own."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
import seracdb
from moto.server import ThreadedMotoServer
from testserver import ROOT_PASSWORD, Server

BUCKET = "frozen"


@pytest.fixture
def s3(monkeypatch):
    """An S3 server with an empty bucket; its address is in the environment that servers inherit."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    moto.stop()


def run_history(server: Server) -> None:
    """Writes rows of two generations, changes both, and restarts."""
    with seracdb.connect(server.uri, "root", ROOT_PASSWORD) as db:
        db.run("CREATE NAMESPACE app")
        db.run("CREATE TABLE app.t (n BIGINT, name TEXT)")
        db.run("INSERT INTO app.t SELECT value, 'name' FROM generate_series(1, 20000)")
        db.run("STORAGE FLUSH TABLE app.t")
        assert db.run("UPDATE app.t SET name = 'new' WHERE n % 1000 = 0") == 20
        assert db.run("DELETE FROM app.t WHERE n > 19000") == 1000
        db.run("STORAGE FLUSH TABLE app.t")
    server.kill()
    server.start()
    with seracdb.connect(server.uri, "root", ROOT_PASSWORD) as db:
        found = db.query("SELECT count(*) AS rows, sum(n) AS n, count(*) FILTER (WHERE name = 'new') AS new FROM app.t")
        assert found.to_pylist() == [{"rows": 19000, "n": 19000 * 19001 // 2, "new": 19}]
        db.run("DROP TABLE app.t")


def test_rows_are_frozen_to_s3_and_read_back(s3, tmp_path):
    with Server(tmp_path / "data", args=["--object-store", f"s3://{BUCKET}/here"]) as server:
        with seracdb.connect(server.uri, "root", ROOT_PASSWORD) as db:
            db.run("CREATE TABLE kept (n BIGINT)")
            db.run("INSERT INTO kept VALUES (1), (2)")
            db.run("STORAGE FLUSH TABLE kept")

        def get(key: str) -> bytes:
            return s3.get_object(Bucket=BUCKET, Key=f"here/{key}")["Body"].read()

        manifest = json.loads(get("default/kept/shared/manifest.json"))
        assert [batch["row_count"] for batch in manifest["batches"]] == [2]
        path = manifest["batches"][0]["file_path"]
        assert len(get(path)) == manifest["batches"][0]["size_bytes"]
        run_history(server)
    assert not (tmp_path / "data" / "objects").exists()


def test_rows_are_frozen_to_a_folder(tmp_path):
    folder = tmp_path / "elsewhere"
    with Server(tmp_path / "data", args=["--object-store", folder.as_uri()]) as server:
        run_history(server)
    assert not (tmp_path / "data" / "objects").exists()


def test_a_file_of_another_data_directory_is_never_replaced(tmp_path):
    """Two data directories on one object store: the second's flush fails and loses nothing."""
    folder = tmp_path / "shared"
    args = ["--object-store", folder.as_uri()]
    for number, name in enumerate(["first", "second"]):
        with Server(tmp_path / name, args=args) as server:
            with seracdb.connect(server.uri, "root", ROOT_PASSWORD) as db:
                db.run("CREATE TABLE t (n BIGINT)")
                db.run(f"INSERT INTO t VALUES ({number})")
                if name == "first":
                    db.run("STORAGE FLUSH TABLE t")
                else:
                    with pytest.raises(seracdb.Error, match="storage failed"):
                        db.run("STORAGE FLUSH TABLE t")
                    assert "another data directory" in Path(server.log_path).read_text()
                assert db.query("SELECT n FROM t").to_pylist() == [{"n": number}]


def test_an_object_store_that_cannot_be_is_refused_at_start(tmp_path):
    server = Server(tmp_path / "data", args=["--object-store", "ftp://somewhere"])
    process = server.spawn()
    assert process.wait(timeout=60) != 0
    assert "ftp" in server.log() and "s3://" in server.log()
