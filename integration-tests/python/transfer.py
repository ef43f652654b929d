"""`seracdb import` and `export`, as programs of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from testserver import ROOT_PASSWORD, Server, binary

JOURNAL = ".seracdb-import"
# Until something is seen; far more than it takes.
SECONDS = 120


def environment(password: str = ROOT_PASSWORD) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SERACDB_")} | {"SERACDB_PASSWORD": password}


def command(server: Server, what: str, *args: object) -> list[str]:
    return [binary(), what, "--uri", server.uri, *map(str, args)]


def run(server: Server, what: str, *args: object, stdin: bytes = b"", cwd: Path | None = None, password: str = ROOT_PASSWORD):
    """Runs it to its end."""
    return subprocess.run(
        command(server, what, *args), input=stdin, env=environment(password), capture_output=True, timeout=600, cwd=cwd
    )


def ok(process: subprocess.CompletedProcess[bytes]) -> str:
    assert process.returncode == 0, process.stderr.decode()
    return process.stdout.decode()


def refused(process: subprocess.CompletedProcess[bytes]) -> str:
    assert process.returncode == 1, (process.returncode, process.stdout, process.stderr)
    return process.stderr.decode()


def start(server: Server, what: str, *args: object, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Starts it; the caller ends it."""
    return subprocess.Popen(
        command(server, what, *args), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
    )


def states(journal: Path) -> list[str]:
    """What a journal says, in order."""
    if not journal.exists():
        return []
    return [json.loads(line)["state"] for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], pause: float = 0.0005) -> None:
    """Waits for something that a process does, or for its end."""
    deadline = time.monotonic() + SECONDS
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(pause)  # between looks at the condition
