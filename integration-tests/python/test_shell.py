"""`seracdb sql` in pipes and with files: what it prints and how it exits."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import subprocess

import pyarrow as pa
import pytest
from testserver import ROOT_PASSWORD, binary


@pytest.fixture
def shell(server):
    """Runs `seracdb sql ARGS…`; returns the finished process."""

    def run(*args: str, stdin: str = "", password: str = ROOT_PASSWORD) -> subprocess.CompletedProcess[bytes]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("SERACDB_")} | {"SERACDB_PASSWORD": password}
        command = [binary(), "sql", "--uri", server.uri, "--user", "root", *args]
        return subprocess.run(command, input=stdin.encode(), env=env, capture_output=True, timeout=300)

    return run


def ok(process: subprocess.CompletedProcess[bytes]) -> str:
    assert process.returncode == 0, process.stderr.decode()
    return process.stdout.decode()


@pytest.fixture
def points(db, namespace) -> str:
    db.run(f"CREATE TABLE {namespace}.points (x BIGINT, label TEXT)")
    db.run(f"INSERT INTO {namespace}.points (x, label) VALUES (1, 'a, \"b\"'), (2, NULL), (3, 'Eis ❄')")
    return f"{namespace}.points"


def test_one_statement(shell, points):
    out = ok(shell("-c", f"SELECT x, label FROM {points} ORDER BY x"))
    for text in ("x", "label", 'a, "b"', "Eis ❄"):
        assert text in out
    assert "2" in ok(shell("-c", f"UPDATE {points} SET label = 'z' WHERE x > 1"))


def test_csv(shell, points):
    out = ok(shell("--format", "csv", "-c", f"SELECT x, label FROM {points} ORDER BY x"))
    assert list(csv.reader(io.StringIO(out))) == [["x", "label"], ["1", 'a, "b"'], ["2", ""], ["3", "Eis ❄"]]


def test_json(shell, points):
    out = ok(shell("--format", "json", "-c", f"SELECT x, label FROM {points} ORDER BY x"))
    rows = json.loads(out) if out.lstrip().startswith("[") else [json.loads(line) for line in out.splitlines()]
    assert [row["x"] for row in rows] == [1, 2, 3]
    assert [row.get("label") for row in rows] == ['a, "b"', None, "Eis ❄"]


def test_arrow(shell, points):
    process = shell("--format", "arrow", "-c", f"SELECT x, label FROM {points} ORDER BY x")
    ok_bytes = process.stdout
    assert process.returncode == 0, process.stderr
    table = pa.ipc.open_stream(ok_bytes).read_all()
    assert table["x"].to_pylist() == [1, 2, 3] and table.schema.field("x").type == pa.int64()


def test_several_statements_in_a_pipe(shell, namespace):
    script = f"""
        CREATE TABLE {namespace}.piped (x BIGINT, label TEXT); -- a comment; with a semicolon
        INSERT INTO {namespace}.piped
            (x, label) VALUES (1, 'a;b');
        SELECT label FROM {namespace}.piped
    """
    assert "a;b" in ok(shell("--format", "csv", stdin=script))


def test_a_file(shell, tmp_path, namespace):
    file = tmp_path / "script.sql"
    file.write_text(f"CREATE TABLE {namespace}.filed (x BIGINT);\nINSERT INTO {namespace}.filed VALUES (41), (42);\n")
    ok(shell("-f", str(file)))
    out = ok(shell("--format", "csv", "-c", f"SELECT sum(x) AS total FROM {namespace}.filed"))
    assert out.split() == ["total", "83"]


def test_at_a_terminal(server, points, tmp_path):
    """Statements over several lines, `\\d`, an error that does not end the shell, a history."""
    terminal, inner = pty.openpty()
    shell = subprocess.Popen(
        [binary(), "sql", "--uri", server.uri],
        env={"SERACDB_PASSWORD": ROOT_PASSWORD, "HOME": str(tmp_path), "TERM": "xterm"},
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
    )
    os.close(inner)
    typed = [
        f"\\d {points}",
        "\\d",
        "SELECT x,",
        "label",
        f"FROM {points} WHERE x = 3;",
        "SELEC;",
        "SELECT 41 + 1;",
        "\\q",
    ]
    said = b""
    with os.fdopen(terminal, "r+b", buffering=0) as keyboard:
        for line in typed:
            said += read_until(keyboard, (b"seracdb> ", b"-> "))
            keyboard.write(line.encode() + b"\r")
        said += read_until(keyboard, ())
    assert shell.wait(60) == 0, said
    for text in ("_id", "_updated", "points", "Eis", "syntax error", "42"):
        assert text in said.decode(), said
    assert "SELECT 41 + 1;" in (tmp_path / ".seracdb_history").read_text()


def read_until(terminal: io.RawIOBase, prompts: tuple[bytes, ...]) -> bytes:
    """What the shell says up to one of the prompts, or up to its end."""
    said = b""
    while not any(prompt in said for prompt in prompts):
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, said
        try:
            said += terminal.read(4096)
        except OSError:  # how Linux tells that the other end is closed
            break
    return said


@pytest.mark.parametrize(
    "args,stdin",
    [
        (["-c", "SELEC 1"], ""),
        (["-c", "SELECT * FROM nowhere.nothing"], ""),
        ([], "SELECT * FROM nowhere.nothing;\n"),
        (["-f", "/does/not/exist.sql"], ""),
        (["--format", "xml", "-c", "SELECT 1"], ""),
        (["--no-such-flag"], ""),
    ],
)
def test_failure_is_on_stderr_with_a_code(shell, args, stdin):
    process = shell(*args, stdin=stdin)
    assert process.returncode not in (0, -6, 101)
    assert process.stderr.strip() and not process.stdout.strip()


def test_the_first_failure_ends_a_script(shell, namespace):
    process = shell(stdin=f"SELECT bad;\nCREATE TABLE {namespace}.not_made (x INT);\n")
    assert process.returncode != 0
    assert "not_made" not in ok(shell("-c", "SELECT table_name FROM information_schema.tables"))


def test_no_server_and_wrong_password(shell):
    process = shell("-c", "SELECT 1", password="wrong")
    assert process.returncode not in (0, 101) and b"password" in process.stderr.lower()
    process = subprocess.run(
        [binary(), "sql", "--uri", "grpc://127.0.0.1:1", "-c", "SELECT 1"],
        env={"SERACDB_PASSWORD": "x"},
        capture_output=True,
        timeout=300,
    )
    assert process.returncode not in (0, 101) and b"127.0.0.1:1" in process.stderr


def test_a_closed_pipe_is_no_panic(shell, server):
    env = os.environ | {"SERACDB_PASSWORD": ROOT_PASSWORD}
    sql = (
        "SELECT a.i FROM (VALUES "
        + ",".join(f"({i})" for i in range(2000))
        + ") AS a(i), (VALUES (1),(2),(3),(4),(5)) AS b(j)"
    )
    process = subprocess.Popen(
        [binary(), "sql", "--uri", server.uri, "--user", "root", "--format", "csv", "-c", sql],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    process.wait(120)
    assert b"panicked" not in said
