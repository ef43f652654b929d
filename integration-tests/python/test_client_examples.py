"""The examples in clients/: they run as their READMEs say, beside a server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from testserver import ROOT_PASSWORD
from tours import PROCESS_SECONDS, tool

CLIENTS = Path(__file__).resolve().parents[2] / "clients"
ROWS = ["Jungfrau 4158", "Mönch 4107"]


@pytest.fixture
def run(server):
    """Runs a command in a folder of clients/, and gives the lines that it prints."""
    variables = {"SERACDB_URI": server.uri, "SERACDB_USER": "root", "SERACDB_PASSWORD": ROOT_PASSWORD}

    def run(folder: str, *command: str) -> list[str]:
        done = subprocess.run(
            [tool(command[0]), *command[1:]],
            cwd=CLIENTS / folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=PROCESS_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


def test_go(run, db):
    # Twice: it must not mind what it left behind.
    for _ in range(2):
        assert run("go", "go", "run", ".") == ["ingested 3", *ROWS, "updated 1", "not found"]
    run("go", "go", "vet", ".")
    assert metres(db, "go_example") == [3967, 4158, 4110]


def test_jdbc(run, db, tmp_path):
    maven = ["mvn", "-q", "-B", "-ntp", f"-DbuildDirectory={tmp_path / 'target'}", "compile", "exec:exec"]
    for _ in range(2):
        # Maven resets colours around what it runs.
        printed = [re.sub(r"\x1b\[\d*m", "", line) for line in run("jdbc", *maven)]
        assert [line for line in printed if line] == ["inserted 3", *ROWS, "updated 1", "not found"]
    assert metres(db, "jdbc_example") == [3967, 4158, 4110]


def metres(db, namespace: str) -> list[int]:
    return db.query(f"SELECT metres FROM {namespace}.peaks ORDER BY name")["metres"].to_pylist()
