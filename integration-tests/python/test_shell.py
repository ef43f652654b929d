"""`seracdb sql` in pipes and with files: what it prints and how it exits."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import select
import subprocess
import termios

import pyarrow as pa
import pytest
from test_types import CASES, shown
from test_types import array as type_values
from testserver import ROOT_PASSWORD, binary
from watching import wait_until_busy


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


class Terminal:
    """A shell at a terminal of its own, and who types there."""

    def __init__(self, server, home, *args: str):
        keyboard, inner = pty.openpty()
        self.keyboard = os.fdopen(keyboard, "r+b", buffering=0)
        self.process = subprocess.Popen(
            [binary(), "sql", "--uri", server.uri, *args],
            env={"SERACDB_PASSWORD": ROOT_PASSWORD, "HOME": str(home), "TERM": "xterm"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            # Else Ctrl-C would reach nobody.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.said = ""

    def type(self, keys: str) -> None:
        self.keyboard.write(keys.encode())

    def read(self, *ends: str) -> str:
        """What the shell says up to one of these, or up to its end."""
        said = b""
        while not any(end.encode() in said for end in ends):
            ready, _, _ = select.select([self.keyboard], [], [], 60)
            assert ready, said
            try:
                said += self.keyboard.read(4096)
            except OSError:  # how Linux tells that the other end is closed
                break
        return said.decode()

    def run(self, *lines: str) -> str:
        """Types each line when the shell is ready for it, and quits; what was said."""
        said = ""
        for line in (*lines, "\\q"):
            said += self.read("seracdb> ", "-> ")
            self.type(f"{line}\r")
        said += self.read()
        assert self.process.wait(60) == 0, said
        return said

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        self.keyboard.close()


def test_at_a_terminal(server, points, tmp_path):
    """Statements over several lines, `\\d`, an error that does not end the shell, a history."""
    with Terminal(server, tmp_path) as terminal:
        said = terminal.run(
            f"\\d {points}", "\\d", "SELECT x,", "label", f"FROM {points} WHERE x = 3;", "SELEC;", "SELECT 41 + 1;"
        )
    for text in ("_id", "_updated", "points", "Eis", "syntax error", "42"):
        assert text in said, said
    assert "SELECT 41 + 1;" in (tmp_path / ".seracdb_history").read_text()


def test_a_second_session_recalls_the_history_of_the_first(server, tmp_path):
    with Terminal(server, tmp_path) as terminal:
        terminal.run("SELECT 40 + 2 AS first;", "SELECT 'second';")
    up = "\x1b[A"
    with Terminal(server, tmp_path) as terminal:
        # The last one was \\q.
        said = terminal.run(up * 3)
    assert "first" in said and "42" in said, said


def test_the_history_has_no_passwords(server, tmp_path):
    with Terminal(server, tmp_path) as terminal:
        terminal.run("CREATE USER terminal", "WITH PASSWORD 'xyzzy42plugh';", "alter user terminal set Password 'xyzzy43plugh';",
                     "SELECT 41 + 1;")  # fmt: skip
    history = (tmp_path / ".seracdb_history").read_text()
    assert "SELECT 41 + 1;" in history and "xyzzy" not in history


def test_timing_at_a_terminal(server, tmp_path):
    with Terminal(server, tmp_path) as terminal:
        said = terminal.run("SELECT 1;", "\\timing", "SELECT 2;", "\\timing", "SELECT 3;")
    assert "Timing is on." in said and "Timing is off." in said
    assert len(re.findall(r"1 row \([0-9.]+ m?s\)", said)) == 1, said
    assert len(re.findall(r"1 row\b", said)) == 3, said


def test_ctrl_c_cancels_the_statement_and_not_the_shell(own_server, tmp_path):
    endless = "SELECT count(*) FROM generate_series(1, 999999) a(i), generate_series(1, 999999) b(i) WHERE a.i < -b.i;"
    with Terminal(own_server, tmp_path) as terminal:
        terminal.read("seracdb> ")
        terminal.type(f"{endless}\r")
        wait_until_busy(own_server)
        terminal.type("\x03")
        # What was typed is echoed with its prompt.
        assert "cancelled" in terminal.read("cancelled")
        terminal.type("\r")
        assert "42" in terminal.run("SELECT 41 + 1;")
    # A shell that is interrupted while nothing runs goes on, too.
    with Terminal(own_server, tmp_path) as terminal:
        terminal.read("seracdb> ")
        terminal.type("SELECT 1 +\x03")
        assert "42" in terminal.run("SELECT 41 + 1;")


COMMANDS = "\\dn\n\\d {table}\nSELECT 41 + 1 AS n; \\d\n\\timing\nSELECT 43 AS n;\n\\q\nSELECT 'not reached';"


@pytest.mark.parametrize("way", ["-c", "-f", "pipe"])
def test_commands_in_scripts(shell, points, tmp_path, way):
    script = COMMANDS.format(table=points)
    match way:
        case "-c":
            out = ok(shell("-c", script))
        case "-f":
            (tmp_path / "script.sql").write_text(script)
            out = ok(shell("-f", str(tmp_path / "script.sql")))
        case _:
            out = ok(shell(stdin=script))
    for text in ("namespace", points.split(".")[0], "BIGINT", "label", "42", "43", "Timing is on."):
        assert text in out, out
    assert "not reached" not in out
    assert len(re.findall(r"1 row \([0-9.]+ m?s\)", out)) == 1, out


def test_commands_in_the_formats_for_machines(shell, points):
    rows = list(csv.DictReader(io.StringIO(ok(shell("--format", "csv", "-c", f"\\d {points}")))))
    assert [(row["column"], row["type"]) for row in rows if row["column"] in ("x", "label")] == [
        ("x", "BIGINT"),
        ("label", "VARCHAR"),
    ]
    out = ok(shell("--format", "json", "-c", "\\timing\n\\dn"))
    assert {"namespace": points.split(".")[0]} in [json.loads(line) for line in out.splitlines()]
    process = shell("-c", "\\x")
    assert process.returncode != 0 and b"\\?" in process.stderr


@pytest.fixture
def all_types(db, namespace) -> str:
    """A table with a column of every type."""
    columns = {name: type_values(values, given) for name, (given, values, _) in CASES.items()}
    rows = max(map(len, columns.values()))
    padded = {name: pa.array([*c.to_pylist(), *[None] * (rows - len(c))], c.type) for name, c in columns.items()}
    db.ingest(f"{namespace}.types", pa.table({"n": range(rows), **padded}), mode="create")
    return f"{namespace}.types"


def test_every_type_in_every_format(shell, db, all_types):
    columns = ", ".join(f'"{name}"' for name in CASES)
    sql = f"SELECT {columns} FROM {all_types} ORDER BY n"
    wanted = db.query(sql)
    table = ok(shell("-c", sql))
    assert f"{wanted.num_rows} rows" in table and "ERROR" not in table

    rows = list(csv.DictReader(io.StringIO(ok(shell("--format", "csv", "-c", sql)), newline="")))
    assert len(rows) == wanted.num_rows and list(rows[0]) == list(CASES)
    assert rows[1]["list_int"] == "[1, NULL, 3]" and rows[0]["list_int"] == "[]"
    assert rows[0]["struct"] == "{a: 1, b: x, c: 1.50}" and rows[0]["map"] == "{a: 1, b: NULL}"
    for name in ("list_int", "struct", "list_list", "map", "list_struct"):
        # As the table shows them; a NULL is empty.
        assert rows[0][name] in table and rows[-1][name] == "", name

    lines = [json.loads(line) for line in ok(shell("--format", "json", "-c", sql)).split("\n") if line]
    assert len(lines) == wanted.num_rows and list(lines[0]) == list(CASES)
    assert lines[1]["list_int"] == [1, None, 3] and lines[0]["struct"]["b"] == "x"
    assert lines[-1]["struct"] is None

    process = shell("--format", "arrow", "-c", sql)
    assert process.returncode == 0, process.stderr
    got = pa.ipc.open_stream(process.stdout).read_all()
    assert got.schema.types == wanted.schema.types
    for name in CASES:
        assert shown(got[name].to_pylist()) == shown(wanted[name].to_pylist()), name


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
