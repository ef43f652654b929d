"""What the set-up scripts say on a machine that lacks something and cannot get it: one line, and what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TOOLS = "bash cat cut dirname env grep head id mktemp printf python3 realpath rm sed sort tail touch uname".split()


@pytest.fixture
def path(tmp_path) -> Path:
    """A folder as the only PATH, with what every machine has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    return folder


def stub(path: Path, name: str, script: str) -> None:
    (path / name).unlink(missing_ok=True)
    (path / name).write_text(f"#!/bin/bash\n{script}\n")
    (path / name).chmod(0o755)


def run(script: str, path: Path) -> tuple[int, list[str]]:
    command = [path / "bash", SCRIPTS / script]
    done = subprocess.run(command, env={"PATH": str(path), "HOME": "/nowhere"}, capture_output=True, text=True, timeout=60)
    return done.returncode, [line for line in done.stderr.splitlines() if "installing" not in line]


def test_without_a_rust_toolchain(path):
    code, said = run("setup-build.sh", path)
    assert (code, said) == (1, ["seracdb: missing: a Rust toolchain (cargo); see https://rustup.rs"])


@pytest.mark.parametrize(
    "machine, why",
    [
        ("other", "install them and try again (no apt-get on this machine)"),
        ("not root", "install them and try again (not root, and no sudo without a password)"),
        ("offline", "apt-get could not install them (offline?): E: Unable to fetch some archives"),
    ],
)
def test_without_a_compiler(path, machine, why):
    stub(path, "cargo", "exit 0")
    if machine != "other":
        stub(path, "apt-get", "echo 'E: Unable to fetch some archives'; exit 100")
    stub(path, "id", "echo 1000" if machine == "not root" else "echo 0")
    code, said = run("setup-build.sh", path)
    assert code == 1 and len(said) == 1, said
    assert said[0].startswith("seracdb: missing: ") and "g++" in said[0] and said[0].endswith(why), said
