"""Cold files on an S3-compatible object store, and on a folder of their own."""

from __future__ import annotations

import hashlib
import json
import random

import pyarrow as pa
import seracdb
from conftest import BUCKET
from testserver import ROOT_PASSWORD, Server


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


def test_a_large_file_goes_up_in_parts(s3, tmp_path):
    """One that is too large for a single put: in parts, and only to where nothing is."""
    noise = random.Random(7)
    rows = [noise.randbytes(1 << 20) for _ in range(70)]
    schema = pa.schema([("n", pa.int64()), ("noise", pa.binary())])
    batches = [pa.record_batch([[n], [row]], schema=schema) for n, row in enumerate(rows)]
    with Server(tmp_path / "data", args=["--object-store", f"s3://{BUCKET}/here"]) as server:
        with seracdb.connect(server.uri, "root", ROOT_PASSWORD) as db:
            db.ingest("large", pa.Table.from_batches(batches), mode="create")
            db.run("STORAGE FLUSH TABLE large")
            found = db.query("SELECT n, noise FROM large ORDER BY n").to_pylist()
    assert [hashlib.sha256(row["noise"]).digest() for row in found] == [hashlib.sha256(row).digest() for row in rows]
    listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert {o["Key"].removeprefix("here/") for o in listed} == {
        "_seracdb/catalog-e1.json",
        "_seracdb/owner.json",
        "default/large/shared/batch-0001.bloom",
        "default/large/shared/batch-0001.committed",
        "default/large/shared/batch-0001.parquet",
        "default/large/shared/manifest.json",
    }
    assert max(o["Size"] for o in listed) > 64 << 20


def test_an_object_store_that_cannot_be_is_refused_at_start(tmp_path):
    server = Server(tmp_path / "data", args=["--object-store", "ftp://somewhere"])
    process = server.spawn()
    assert process.wait(timeout=60) != 0
    assert "ftp" in server.log() and "s3://" in server.log()
