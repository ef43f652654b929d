"""What the documents show, run as printed. Only address, data directory, password and binary are a test's own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tours import tool
from testserver import ROOT_PASSWORD, START_SECONDS, STOP_SECONDS, binary, free_port

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "docs/quickstart.md"]
BUILT = "target/release/seracdb"


def blocks(document: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block below the heading "Quickstart" and up to the next of its level."""
    text = (ROOT / document).read_text()
    section = re.search(r"^(#+) Quickstart\n(.*?)(?=^\1 |\Z)", text, re.M | re.S)
    assert section, f"{document} has no section Quickstart"
    return re.findall(r"^```(\w+)\n(.*?)^```", section.group(2), re.M | re.S)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A working folder that looks like the project's: the venv and the built binary are where they should be."""
    (tmp_path / BUILT).parent.mkdir(parents=True)
    (tmp_path / BUILT).symlink_to(binary())
    for name in (".venv", "clients"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_quickstart(folder, document):
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SERACDB_", "MAKE"))}
    serve = [
        "make",
        "-C",
        str(ROOT),
        "serve",
        f"SERACDB={binary()}",
        f"ARGS=--listen 127.0.0.1:{port} --data-dir {folder}/seracdb-data",
    ]
    env["PATH"] = f"{Path(tool('go')).parent}:{env['PATH']}"
    env["SERACDB_HTTP__LISTEN"] = f"127.0.0.1:{free_port()}"
    log = folder / "server.log"
    server = None
    ran = 0
    # One shell's variables last from block to block, as in a terminal.
    exports: list[str] = []
    try:
        for language, text in blocks(document):
            text = text.replace("127.0.0.1:50051", f"127.0.0.1:{port}").replace("make ", f"make -C {ROOT} ")
            text = re.sub(rf"{BUILT} (sql|import|export)", rf"{BUILT} \1 --uri grpc://127.0.0.1:{port}", text)
            if language == "bash" and text.strip() == f"make -C {ROOT} serve":
                with open(log, "wb") as out:
                    server = subprocess.Popen(serve, env=env, stdout=out, stderr=out, start_new_session=True)
                wait_until(lambda: "seracdb ready on" in log.read_text(), server, log)
            elif language == "bash" and re.fullmatch(r"make -C \S+ (test|demo|bench)", text.strip()):
                continue  # `make test` runs this test, and the demo is a stage of its own
            elif language == "bash":
                assert server, f"{document} runs a command before `make serve`"
                exports += re.findall(r"^export .*$", text, re.M)
                run(["bash", "-euo", "pipefail", "-c", "\n".join([*exports, text])], folder, env, document, text)
                ran += 1
            elif language == "python":
                script = "\n".join([*exports, "exec .venv/bin/python -"])
                run(["bash", "-euo", "pipefail", "-c", script], folder, env, document, text, stdin=text)
                ran += 1
        assert server and ran >= 2, f"{document}: nothing to run"
    finally:
        if server:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(STOP_SECONDS)


def test_commands_for_contributors(tmp_path):
    """On a copy of the project: one of them writes into a page."""
    document = "CONTRIBUTING.md"
    text = (ROOT / document).read_text()
    for name in ["docs", "scripts", "integration-tests"]:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("target", "__pycache__", ".pytest_cache"))
    for name in [".venv", "clients", "target", "Makefile", "README.md", document]:
        (tmp_path / name).symlink_to(ROOT / name)
    env = dict(os.environ) | {"SERACDB_BIN": binary()}
    commands = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    assert len(commands) == 2
    for command in commands:
        run(["bash", "-euo", "pipefail", "-c", command], tmp_path, env, document, command)
    page = next(part for part in commands[1].split() if part.endswith(".md"))
    assert (tmp_path / page).read_text() == (ROOT / page).read_text()
    # All of them is this run, and some take an hour: that there are such.
    targets = set(re.findall(r"`make ([a-z-]+)`", text))
    assert {"test", "lint", "fmt", "bench"} <= targets
    for target in targets:
        run(["make", "-n", target], ROOT, env, document, target)


def test_python_examples(own_server, folder):
    """In order, each a program of its own. `…` stands for the password."""
    document = "clients/python/README.md"
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)
    assert programs, f"{document} has no Python"
    for text in programs:
        text = text.replace("grpc://127.0.0.1:50051", own_server.uri).replace('"…"', repr(ROOT_PASSWORD))
        run([".venv/bin/python", "-"], folder, dict(os.environ), document, text, stdin=text)


def run(command, folder, env, document, text, stdin=None) -> None:
    done = subprocess.run(command, cwd=folder, env=env, input=stdin, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{document}:\n{text}\n{done.stdout}\n{done.stderr}"


def wait_until(condition, process, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)  # between looks at the condition


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "clients").glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"
