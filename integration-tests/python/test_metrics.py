"""The HTTP port: whether a server takes calls, and its figures."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import rawflight
import seracdb
from conftest import root
from object_stores import Folder
from test_manifests import until
from test_running import LARGE
from testserver import Server, free_port

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def get(address: str) -> tuple[int, str, str]:
    """Status, type and text of an answer."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.status, answer.headers["content-type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read().decode()


class Figures:
    """What `/metrics` says, by name and labels."""

    def __init__(self, server: Server):
        status, self.content_type, self.text = get(f"{server.http}/metrics")
        assert status == 200
        self.samples: dict[str, float] = {}
        for line in self.text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                assert name not in self.samples, "each is there once"
                self.samples[name] = float(value)
        self.types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", self.text, re.MULTILINE))

    def __getitem__(self, name: str) -> float:
        return self.samples.get(f"seracdb_{name}", 0)


def test_what_is_counted(own_server):
    with root(own_server) as db:
        db.run("CREATE TABLE t (n BIGINT)")
        before = Figures(own_server)
        assert before.content_type.startswith("text/plain; version=0.0.4")
        db.run("INSERT INTO t SELECT value FROM generate_series(1, 1000)")
        db.run("STORAGE FLUSH TABLE t")
        db.run("UPDATE t SET n = 0 WHERE n = 7")
        db.query("SELECT n FROM t WHERE n >= 0")
        db.query("SELECT n FROM t WHERE n = 9999999")
        for wrong in ["SELECT 1 / 0", "SELECT nothing FROM t"]:
            with pytest.raises(seracdb.Error):
                db.query(wrong)
        db.query("RUN JOB retention")
        until(lambda: Figures(own_server)['jobs{type="retention",state="completed"}'] == 1, "a job")
        db.run("BEGIN")
        now = Figures(own_server)
        db.run("ROLLBACK")

    def more(name: str) -> float:
        return now[name] - before[name]

    assert more('statements_total{kind="insert",outcome="OK"}') == 1
    assert more('statements_total{kind="update",outcome="OK"}') == 1
    assert more('statements_total{kind="storage",outcome="OK"}') == 1
    assert more('statements_total{kind="control",outcome="OK"}') == 1
    assert more('statements_total{kind="transaction",outcome="OK"}') == 1
    assert more('statements_total{kind="select",outcome="OK"}') == 2
    wrong = [name for name in now.samples if "INVALID_ARGUMENT" in name or "NOT_FOUND" in name]
    assert sum(now.samples[name] for name in wrong) == 2
    assert more('statement_seconds_count{kind="select"}') >= 2
    buckets = [value for name, value in now.samples.items() if "statement_seconds_bucket" in name and '"select"' in name]
    assert buckets == sorted(buckets) and buckets[-1] == now['statement_seconds_count{kind="select"}']
    assert more("rows_out_total") == 1000 and more("bytes_out_total") >= 8000
    assert more("rows_in_total") == 1001 and more("bytes_in_total") >= 8000
    assert more("commits_total") >= 2 and more("commit_seconds_count") == more("commits_total")
    assert now["commit_seconds_sum"] > 0 and now["commit_group_requests_sum"] >= now["commit_group_requests_count"] > 0
    assert (more("flushes_total"), more("flushed_rows_total")) == (1, 1000)
    assert more("scan_batches_total") >= 3 and more("scan_batches_skipped_total") >= 1
    assert more("scan_batches_scanned_total") >= 1 and more("scan_bytes_read_total") > 0
    assert more("scan_rows_masked_total") >= 1
    assert more("manifest_cache_sync_success_total") >= 1 and now["manifest_cache_sync_failure_total"] == 0
    assert now["sessions"] == 1 and now["transactions"] == 1 and now["statements_running"] == 0
    assert now["hot_bytes"] > 0
    for part in ("write_buffers", "hot_cache"):
        assert now[f'storage_memory_bytes{{part="{part}"}}'] > 0, part
    # RocksDB need not have read a file yet.
    assert 'seracdb_storage_memory_bytes{part="block_cache"}' in now.samples


def test_what_runs_is_counted_now(own_server):
    with rawflight.client(own_server) as client:
        stream = client.start(LARGE)
        stream.read_chunk()
        assert Figures(own_server)["statements_running"] == 1
        stream.cancel()
        until(lambda: Figures(own_server)["statements_running"] == 0, "it goes")
        assert Figures(own_server)['statements_total{kind="select",outcome="CANCELLED"}'] == 1


def test_refused_logins_are_counted(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_AUTH__LOCKOUT_ATTEMPTS": "2"}) as server:
        for _ in range(4):
            with pytest.raises(seracdb.Error):
                seracdb.connect(server.uri, "root", "wrong")
        figures = Figures(server)
        wrong, locked = (figures[f'logins_refused_total{{reason="{why}"}}'] for why in ("wrong_password", "locked_out"))
        assert wrong == 2 and locked >= 2
        assert figures["lockouts_total"] == 1


def test_every_figure_is_described_and_none_tells_of_anybody(own_server):
    names = ["a_user_of_note", "a_table_of_note", "a_namespace_of_note", "a_column_of_note"]
    user, table, namespace, column = names
    with root(own_server) as db:
        db.run(f"CREATE USER {user} WITH PASSWORD 'a quiet pass phrase' ROLE user")
        db.run(f"CREATE NAMESPACE {namespace}")
        db.run(f"CREATE USER TABLE {namespace}.{table} ({column} BIGINT)")
        with seracdb.connect(own_server.uri, user, "a quiet pass phrase") as connection:
            connection.run(f"INSERT INTO {namespace}.{table} VALUES (1234567)")
            connection.query(f"SELECT {column} FROM {namespace}.{table} WHERE {column} = 1234567")
        with pytest.raises(seracdb.Error):
            seracdb.connect(own_server.uri, user, "wrong")
        db.run("STORAGE FLUSH ALL")
        db.query("RUN JOB compact '" + f'{{"namespace": "{namespace}", "table": "{table}", "user_id": "{user}"}}' + "'")
        until(lambda: 'type="compact"' in Figures(own_server).text, "a job")
    figures = Figures(own_server)
    for secret in [*names, "1234567", "root", "127.0.0.1"]:
        assert secret not in figures.text
    labels = set(re.findall(r'(\w+)="', figures.text))
    assert labels == {"kind", "outcome", "le", "type", "state", "tier", "reason", "part"}
    described = re.findall(r"^\| (`[^|]+`) \| (\w+) \|", OPERATIONS.read_text(), re.MULTILINE)
    described = {
        f"seracdb_{name}": kind for shown, kind in described for name in re.findall(r"`(\w+)(?:\{[^`]*)?`", shown)
    }
    assert described == figures.types
    assert all(f"# HELP {name} " in figures.text for name in described)


def test_a_server_that_drains_is_not_ready(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_SERVER__DRAIN_SECONDS": "4"}) as server:
        assert get(f"{server.http}/readyz")[::2] == (200, "ready")
        assert get(f"{server.http}/healthz")[::2] == (200, "ok")
        with rawflight.client(server) as client:
            stream = client.start(LARGE)
            stream.read_chunk()
            stopping = threading.Thread(target=server.stop)
            address = server.http
            stopping.start()
            until(lambda: get(f"{address}/readyz")[::2] == (503, "stopping"), "it says so while it drains")
            assert get(f"{address}/healthz")[0] == 200
            stopping.join(60)


def test_a_server_that_starts_is_not_ready(tmp_path):
    store = Folder(tmp_path / "shared").url
    lease = {"SERACDB_STORAGE__LEASE_SECONDS": "4"}
    with Server(tmp_path / "a", args=["--object-store", store], variables=lease) as first:
        first.kill()
    port = free_port()
    args = ["--object-store", store, "--take-over", "--http-listen", f"127.0.0.1:{port}"]
    second = Server(tmp_path / "b", args=args, variables=lease)
    starting = threading.Thread(target=second.start)
    starting.start()

    def ask(path: str) -> tuple[int, str] | None:
        try:
            return get(f"http://127.0.0.1:{port}/{path}")[::2]
        except OSError:
            return None

    try:
        # It waits for the lease of the first one.
        until(lambda: ask("readyz") == (503, "starting"), "it says that it starts")
        assert ask("metrics")[0] == 503
        assert ask("healthz") == (200, "ok")
        until(lambda: ask("readyz") == (200, "ready"), "it is ready")
        assert "seracdb_commits_total" in ask("metrics")[1]
    finally:
        starting.join(60)
        second.stop()
