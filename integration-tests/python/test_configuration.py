"""One configuration: a file, the environment and flags, checked as a whole before anything is opened."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest
import seracdb
from conftest import root
from test_manifests import until
from testserver import ROOT_PASSWORD, Server, binary

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
            "server.nod_id: found 'a', but there is no such setting, expected a setting that there is: 'server.node_id'?",
            "flush.hot_bytes_max: found 'much', expected a whole number, at least 0",
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


def test_every_part_follows_the_file(tmp_path):
    """Each section is changed once, and what it is for does as it says."""
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
        file.write_text(
            "[server]\nnode_id = 'other'\n"
            "[http]\nlisten = '127.0.0.1:0'\n"
            "[auth]\nsessions_max = 2\n"
            "[limits]\nstatement_bytes_max = 2000\n"
            "[limits.user]\ntemporary_tables_max = 1\n"
            "[flight]\ntickets_max = 1\n"
            "[transaction]\nmemory_max = 10000\n"
            "[engine]\nbulk_bytes_min = 1000\n"
            "[pruning]\nbloom = false\n"
            "[storage]\ndurability = 'relaxed'\n"
            "[flush]\nhot_bytes_max = 50000\n"
            "[compaction]\nautomatic = false\n"
            "[manifest_cache]\nttl_seconds = 7\n"
            "[log]\nfilter = 'warn'\n"
        )
        server.stop()
        server.log_path.unlink()
        started(server)
        assert server.log() == ""
        with root(server) as db:
            settings = {row["name"]: row for row in db.query("SELECT * FROM system.settings").to_pylist()}
            assert (settings["flush.hot_bytes_max"]["value"], settings["flush.hot_bytes_max"]["default"]) == ("50000", "67108864")
            assert settings["flush.hot_bytes_max"]["source"] == str(file)
            assert settings["flush.automatic"]["source"] == "default" and settings["server.listen"]["source"] == "--listen"
            for name, value in [("server.node_id", "other"), ("storage.durability", "relaxed"), ("pruning.bloom", "false"), ("compaction.automatic", "false")]:
                assert settings[name]["value"] == value
            for _ in range(130):
                # Less than what goes to files by itself.
                db.run("INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(1, 5)")
            until(lambda: db.query("SELECT * FROM system.batches").num_rows > 0, "hot rows are flushed")
            db.run("INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(1, 100)")
            assert "bulk" in db.query("SELECT kind FROM system.batches")["kind"].to_pylist()
            assert {row["ttl"] for row in db.query("SHOW MANIFEST CACHE").to_pylist()} == {7}
            with pytest.raises(seracdb.Error, match="statement"):
                db.query("SELECT '" + "x" * 3000 + "'")
            db.run("CREATE TEMPORARY TABLE one (n BIGINT)")
            with pytest.raises(seracdb.Error, match="limits.user.temporary_tables_max"):
                db.run("CREATE TEMPORARY TABLE two (n BIGINT)")
            db.run("BEGIN")
            with pytest.raises(seracdb.Error, match="transaction.memory_max"):
                db.run("UPDATE t SET text = text || 'y'")
            db.run("ROLLBACK")
            with root(server) as second:
                second.query("SELECT 1")
                with pytest.raises(seracdb.Error, match="auth.sessions_max"):
                    root(server).query("SELECT 1")
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
