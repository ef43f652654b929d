"""`seracdb check` on a data directory, as tests use it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from testserver import Server, binary


def run_check(data_dir: Path | str, *args: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SERACDB_")} | (variables or {})
    command = [binary(), "check", "--data-dir", str(data_dir), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)


def report(data_dir: Path | str, *args: str, variables: dict[str, str] | None = None) -> dict:
    """What a check says, as JSON; it could look."""
    done = run_check(data_dir, "--json", *args, variables=variables)
    assert done.returncode in (0, 1), f"exit code {done.returncode}: {done.stderr}"
    said = json.loads(done.stdout)
    assert said["clean"] == (done.returncode == 0)
    return said


def clean(data_dir: Path | str, *args: str, variables: dict[str, str] | None = None) -> dict:
    """The report of a check that finds nothing wrong."""
    said = report(data_dir, *args, variables=variables)
    assert said["clean"], json.dumps(said["findings"], indent=1)
    return said


def checked(server: Server) -> None:
    """Stops a server, and finds nothing wrong with what it leaves."""
    server.stop()
    clean(server.data_dir)
