"""One configuration: a file, the environment and flags, checked as a whole before anything is opened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
import urllib.request
from pathlib import Path

import pytest
import seracdb
from conftest import root
from test_cold_reads import figures
from test_manifests import until
from testserver import ROOT_PASSWORD, Server, binary, free_port, make_certificates

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SERACDB_")} | variables
    return subprocess.run([binary(), *args], capture_output=True, text=True, timeout=60, env=env)


def written(folder: Path, text: str) -> str:
    path = folder / "seracdb.toml"
    path.write_text(text)
    return str(path)


FIVE = """
[server]
listen = "everywhere"
nod_id = "a"
[flush]
hot_bytes_max = "much"
[limits]
statement_depth_max = 501
[log]
format = "xml"
"""


@pytest.mark.parametrize("command", [["config", "check"], ["config", "show"], ["serve", "--data-dir", "{data}"]])
def test_five_mistakes_are_five_lines_and_nothing_is_opened(tmp_path, command):
    file, data = written(tmp_path, FIVE), tmp_path / "data"
    done = run(*[part.format(data=data) for part in command], "--config", file)
    assert done.returncode == 1 and done.stdout == ""
    first, *lines = done.stderr.strip().splitlines()
    assert first == "seracdb: the settings have 5 mistakes:"
    assert sorted(lines) == sorted(
        f"  {file}: {said}"
        for said in [
            "server.listen: found 'everywhere', expected ADDRESS:PORT, as 127.0.0.1:50051",
            "server.nod_id: found a value, but there is no such setting, expected a setting that there is: 'server.node_id'?",
            "flush.hot_bytes_max: found 'much', expected a whole number, at least 1",
            "limits.statement_depth_max: found 501, expected a whole number from 1 to 500",
            'log.format: found \'xml\', expected "text" or "json"',
        ]
    )
    assert not data.exists()


def test_mistakes_of_the_environment_and_of_flags_are_said_beside_those_of_the_file(tmp_path):
    file = written(tmp_path, "[http]\nlisten = 5")
    variables = {"SERACDB_AUTH__SESSIONS_MAX": "0", "SERACDB_STORAGE__NOTHING": "1", "SERACDB_ROOT_PASSWORD": "x"}
    done = run("config", "check", "--config", file, "--listen", "here", **variables)
    assert done.returncode == 1
    places = {line.strip().split(": ")[0] for line in done.stderr.splitlines()[1:]}
    assert places == {file, "SERACDB_AUTH__SESSIONS_MAX", "SERACDB_STORAGE__NOTHING", "--listen"}
    one = run("config", "check", "--config", str(tmp_path / "none.toml"))
    assert one.returncode == 1 and "none.toml: the file: found" in one.stderr
    broken = run("config", "check", "--config", written(tmp_path, "[http]\nlisten = 'x:1'\nand so on"))
    assert broken.returncode == 1 and "seracdb.toml: line 3: found what is no TOML" in broken.stderr


def mistakes(*args: str, **variables: str) -> str:
    """What `config check` says of settings that cannot be used."""
    done = run("config", "check", *args, **variables)
    assert done.returncode == 1 and done.stdout == "", done
    return done.stderr


@pytest.mark.parametrize(
    "text,args,variables",
    [
        ("[auth]\nroot_password = 'geheim'", [], {}),
        ("[storage]\naws_secret_access_key = 'geheim'", [], {}),
        ("", [], {"SERACDB_AUTH__ROOT_PASSWORD": "geheim"}),
        ("", [], {"SERACDB_AUTH_ROOT_PASSWORD": "geheim"}),
        ("", ["--object-store", "ftp://key:geheim@x"], {}),
        ("[server]\nobject_store = ['s3://key:geheim@bucket']", [], {}),
    ],
)
def test_a_mistake_tells_no_secret(tmp_path, text, args, variables):
    said = mistakes("--config", written(tmp_path, text), *args, **variables)
    assert "geheim" not in said
    if args or "object_store" in text:
        assert "server.object_store: found" in said and "***@" in said
    else:
        assert "found a value, but there is no such setting" in said


def test_a_variable_with_one_underscore_is_told_how_it_is_written():
    said = mistakes(SERACDB_FLUSH_HOT_BYTES_MAX="1", SERACDB_LIMITS_USER_QUERIES_MAX="1", SERACDB_SERVER_COLOUR="red")
    first, *lines = said.strip().splitlines()
    assert first == "seracdb: the settings have 3 mistakes:"
    for name, meant in {
        "SERACDB_FLUSH_HOT_BYTES_MAX": "SERACDB_FLUSH__HOT_BYTES_MAX",
        "SERACDB_LIMITS_USER_QUERIES_MAX": "SERACDB_LIMITS__USER__QUERIES_MAX",
        "SERACDB_SERVER_COLOUR": "a setting of one of the sections",
    }.items():
        (line,) = [line for line in lines if line.startswith(f"  {name}: ")]
        assert f"there is no such setting, expected {meant}" in line
    # What other programs of the project read, and what Kubernetes tells every container, is none.
    others = ["ROOT_PASSWORD", "PASSWORD", "URI", "USER", "BIN", "PLANTED_PANIC", "TLS_DIR", "SERVER_SERVICE_HOST"]
    done = run("config", "check", **{f"SERACDB_{name}": "x" for name in others})
    assert (done.returncode, done.stdout) == (0, "the settings can be used\n"), done


UNUSABLE = """
[server]
listen = "0.0.0.0:50051"
object_store = "ftp://x"
[compaction]
fan_in = 1
[flush]
total_bytes_max = 100
backlog_bytes_max = 99
"""


def test_values_that_cannot_be_used_are_said_before_a_start(tmp_path):
    file = written(tmp_path, UNUSABLE)
    first, *lines = mistakes("--config", file).strip().splitlines()
    assert first == "seracdb: the settings have 4 mistakes:"
    for start, end in [
        ("server.listen: found '0.0.0.0:50051', which other machines can reach, and no TLS", "when something else encrypts"),
        ("server.object_store: found 'ftp://x'", "(scheme 'ftp' is unknown)"),
        ("compaction.fan_in: found 1", "at least 2"),
        ("flush.backlog_bytes_max: found 99", "at least flush.total_bytes_max, which is 100"),
    ]:
        (line,) = [line for line in lines if line.startswith(f"  {file}: {start}, expected ")]
        assert line.endswith(end)
    # Flags win before anything is looked at.
    flags = ["--listen", "127.0.0.1:0", "--object-store", "file:///x"]
    variables = {"SERACDB_COMPACTION__FAN_IN": "2", "SERACDB_FLUSH__BACKLOG_BYTES_MAX": "100"}
    done = run("config", "check", "--config", file, *flags, **variables)
    assert (done.returncode, done.stdout) == (0, "the settings can be used\n"), done


def test_the_example_file_is_the_page_and_can_be_used(tmp_path):
    made = run("config", "default").stdout
    assert f"```toml\n{made}```" in PAGE.read_text()
    done = run("config", "check", "--config", written(tmp_path, made))
    assert (done.returncode, done.stdout) == (0, "the settings can be used\n")
    assert len(tomllib.loads(made)) >= 13


def test_what_holds_is_shown_with_where_it_comes_from(tmp_path):
    file = written(tmp_path, "[flush]\nhot_bytes_max = 5\n[server]\nobject_store = 's3://key:secret@bucket/x'")
    variables = {"SERACDB_FLUSH__DEAD_VERSIONS_MAX": "7", "SERACDB_HTTP__LISTEN": "127.0.0.1:1"}
    shown = run("config", "show", "--config", file, "--http-listen", "127.0.0.1:2", **variables).stdout
    for line in [
        f"hot_bytes_max = 5  # {file}",
        "dead_versions_max = 7  # SERACDB_FLUSH__DEAD_VERSIONS_MAX",
        'listen = "127.0.0.1:2"  # --http-listen',
        "automatic = true  # default",
        f'object_store = "s3://***@bucket/x"  # {file}',
    ]:
        assert line in shown.splitlines(), shown
    assert "secret" not in shown
    # It is a file again, with the same values.
    flush = tomllib.loads(shown)["flush"]
    assert flush | {"automatic": True, "hot_bytes_max": 5, "dead_versions_max": 7} == flush


def started(server: Server) -> None:
    """Starts a server whose log may be of another form, or silent."""
    server.process = server.spawn()
    server.uri = server.process.stdout.readline().split()[-1]


def sections(text: str) -> set[str]:
    return {line for line in text.splitlines() if line.startswith("[")}


SOUGHT = "SELECT * FROM cold WHERE text = 'text 7'"


def test_every_part_follows_the_file(tmp_path):
    """Each section is changed once, and what it is for does as it says."""
    tls, http = make_certificates(tmp_path / "tls"), f"127.0.0.1:{free_port()}"
    file = Path(written(tmp_path, "[log]\nformat = 'json'\n"))
    server = Server(tmp_path / "data", args=["--config", str(file)])
    started(server)
    try:
        lines = [json.loads(line) for line in server.log().splitlines()]
        assert any(line["fields"]["message"] == "ready" for line in lines)
        with root(server) as db:
            db.run("CREATE TABLE t (n BIGINT, text TEXT)")
            db.run("INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(1, 1000)")
            assert db.query("SELECT * FROM system.batches").num_rows == 0
            db.run("CREATE TABLE cold (n BIGINT, text TEXT)")
            db.run("CREATE INDEX cold_text ON cold (text)")
            db.run("INSERT INTO cold SELECT value, 'text ' || (value * 7919 % 1000) FROM generate_series(1, 1000)")
            db.run("STORAGE FLUSH TABLE cold")
            assert figures(db, SOUGHT)["bloom_filter_tests"] > 0
        file.write_text(
            "[server]\nnode_id = 'other'\n"
            f"[server.tls]\ncert_file = '{tls / 'server.pem'}'\nkey_file = '{tls / 'server.key'}'\n"
            f"[http]\nlisten = '{http}'\n"
            "[auth]\nsessions_max = 2\n"
            "[limits]\nstatement_bytes_max = 2000\n"
            "[limits.user]\ntemporary_tables_max = 1\n"
            "[queries]\nhistory_max = 3\nslow_max = 1\n"
            "[flight]\ntickets_max = 1\n"
            "[transaction]\nmemory_max = 10000\n"
            "[engine]\nbulk_bytes_min = 1000\n"
            "[pruning]\nbloom = false\n"
            "[storage]\ndurability = 'relaxed'\norphan_grace_seconds = 0\n"
            "[flush]\nhot_bytes_max = 50000\n"
            "[compaction]\nautomatic = false\n"
            "[jobs]\nhistory_max = 2\n"
            "[manifest_cache]\nttl_seconds = 7\n"
            "[log]\nfilter = 'warn'\n"
        )
        assert sections(file.read_text()) == sections(run("config", "default").stdout)
        server.stop()
        server.log_path.unlink()
        server.free_ports = ("--listen",)
        started(server)
        assert server.log() == "" and server.uri.startswith("grpc+tls://")
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=10) as ready:
            assert ready.status == 200

        def login() -> seracdb.Connection:
            return seracdb.connect(server.uri, "root", ROOT_PASSWORD, tls_ca=tls / "ca.pem")

        with login() as db:
            settings = {row["name"]: row for row in db.query("SELECT * FROM system.settings").to_pylist()}
            assert (settings["flush.hot_bytes_max"]["value"], settings["flush.hot_bytes_max"]["default"]) == ("50000", "67108864")
            assert settings["flush.hot_bytes_max"]["source"] == str(file)
            assert settings["flush.automatic"]["source"] == "default" and settings["server.listen"]["source"] == "--listen"
            assert settings["storage.durability"]["value"] == "relaxed"
            assert figures(db, SOUGHT)["bloom_filter_tests"] == 0
            # Nobody merges a file of which all rows are superseded.
            db.run("UPDATE cold SET n = n + 1")
            db.run("STORAGE FLUSH TABLE cold")
            # A file that nothing names goes at once.
            folder = server.data_dir / "objects/default/cold/shared"
            shutil.copyfile(next(folder.glob("batch-*.parquet")), folder / "batch-0099.parquet")
            db.query("RUN JOB cleanup")
            until(lambda: not (folder / "batch-0099.parquet").exists(), "it is cleaned up")
            for _ in range(130):
                # Less than what goes to files by itself.
                db.run("INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(1, 5)")
            until(lambda: db.query("SELECT * FROM system.batches").num_rows > 0, "hot rows are flushed")
            db.run("INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(1, 100)")
            assert "bulk" in db.query("SELECT kind FROM system.batches")["kind"].to_pylist()
            assert {row["ttl"] for row in db.query("SHOW MANIFEST CACHE").to_pylist() if row["table"] == "t"} == {7}
            assert db.query("SELECT * FROM system.queries WHERE state <> 'running'").num_rows in (3, 4)
            unfinished = "SELECT * FROM system.jobs WHERE finished_at IS NULL"
            for _ in range(4):
                db.query("RUN JOB retention")
                until(lambda: db.query(unfinished).num_rows == 0, "the job ends")
            ended = db.query("SELECT * FROM system.jobs WHERE finished_at IS NOT NULL").to_pylist()
            # One fewer when a job that found nothing to do has come and gone since.
            assert len(ended) in (1, 2) and {job["node_id"] for job in ended} == {"other"}
            masked = "SELECT * FROM system.batches WHERE \"table\" = 'cold' AND masked_rows = 1000 AND status = 'active'"
            assert db.query(masked).num_rows == 1
            with pytest.raises(seracdb.Error, match="statement"):
                db.query("SELECT '" + "x" * 3000 + "'")
            db.run("CREATE TEMPORARY TABLE one (n BIGINT)")
            with pytest.raises(seracdb.Error, match="limits.user.temporary_tables_max"):
                db.run("CREATE TEMPORARY TABLE two (n BIGINT)")
            db.run("BEGIN")
            with pytest.raises(seracdb.Error, match="transaction.memory_max"):
                db.run("UPDATE t SET text = text || 'y'")
            db.run("ROLLBACK")
            with login() as second:
                second.query("SELECT 1")
                with pytest.raises(seracdb.Error, match="auth.sessions_max"):
                    login().query("SELECT 1")
    finally:
        server.stop()


def test_settings_are_shown_to_admins_and_set_by_nobody(server, db, namespace):
    assert db.query("SHOW flush.hot_bytes_max").to_pylist() == [{"name": "flush.hot_bytes_max", "value": "67108864"}]
    assert {"schema", "timezone", "server.listen"} <= set(db.query("SHOW ALL")["name"].to_pylist())
    with pytest.raises(seracdb.Error, match="SERACDB_FLUSH__HOT_BYTES_MAX"):
        db.run("SET flush.hot_bytes_max = 5")
    db.run(f"CREATE USER {namespace}_ann WITH PASSWORD 'long enough' ROLE service")
    with seracdb.connect(server.uri, f"{namespace}_ann", "long enough") as ann:
        assert ann.query("SELECT * FROM system.settings").num_rows == 0
        assert set(ann.query("SHOW ALL")["name"].to_pylist()) == {"schema", "timezone", "server_version"}
        for sql in ["SHOW flush.hot_bytes_max", "SET flush.hot_bytes_max = 5"]:
            with pytest.raises(seracdb.Error, match="unknown setting"):
                ann.query(sql) if sql.startswith("SHOW") else ann.run(sql)
    assert ROOT_PASSWORD not in str(db.query("SELECT * FROM system.settings").to_pylist())
