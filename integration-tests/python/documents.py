"""The blocks of a page of documents, run in order on a server of the page's own.

```sql is run by the shell, ```sh by bash, ```python by Python, ```go is a program, and ```toml is checked as a file of settings. A
```text block right below one of them is what it prints at its end. A comment of HTML right above a block says what is special:

    <!-- refused: PART OF THE ERROR -->   its last statement or command fails, with this
    <!-- not run: REASON -->

and one that begins with `<!-- before` holds SQL that is run there and that readers do not see.

`PYTHONPATH=scripts documents.py PAGE` runs a page and writes what is printed into its ```text blocks.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from testserver import ROOT_PASSWORD, Server, binary, free_port
from tours import tool

ROOT = Path(__file__).resolve().parents[2]
RUN = ("sql", "sh", "python", "go", "toml")
PIECE = re.compile(
    r"^<!-- before\n(?P<before>.*?)^-->\n|(?:^<!-- (?P<marker>[^\n]*?) -->\n)?^```(?P<language>[a-z]+)\n(?P<text>.*?)^```\n"
    r"(?:\n```text\n(?P<printed>.*?)^```\n)?",
    re.M | re.S,
)
# What `seracdb` is on a page: the one that is tested, with the page's server where it means the usual one.
SHIM = """#!/bin/bash
case "$1 $*" in
    *" --uri"*) exec {binary} "$@" ;;
    sql*|import*|export*) exec {binary} "$1" --uri {uri} "${{@:2}}" ;;
    serve*) exec {binary} "$@" --http-listen 127.0.0.1:0 ;;
    *) exec {binary} "$@" ;;
esac
"""


@dataclass
class Block:
    language: str
    text: str
    marker: str
    printed: str | None
    # Of what is printed, in the page.
    span: tuple[int, int]


def blocks(page: Path) -> list[Block]:
    """What is run of a page, in order."""
    found = []
    for piece in PIECE.finditer(page.read_text()):
        if piece["before"] is not None:
            found.append(Block("sql", piece["before"], "", None, (-1, -1)))
        elif piece["language"] in RUN:
            marker = piece["marker"] or ""
            found.append(Block(piece["language"], piece["text"], marker, piece["printed"], piece.span("printed")))
    return found


class Page:
    """A page with its server and a folder to work in."""

    def __init__(self, page: Path, server: Server, folder: Path):
        self.page, self.server, self.folder = page, server, folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.ports = {"50051": server.uri.rsplit(":", 1)[1]}
        bin = folder / "bin"
        bin.mkdir()
        (bin / "seracdb").write_text(SHIM.format(binary=shlex.quote(binary()), uri=server.uri))
        (bin / "seracdb").chmod(0o755)
        (folder / ".venv").symlink_to(ROOT / ".venv")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SERACDB_", "AWS_"))}
        self.env = env | {"PATH": f"{bin}:{ROOT}/.venv/bin:{env['PATH']}", "SERACDB_PASSWORD": ROOT_PASSWORD}
        # Servers that a page starts make their first user by it.
        self.env["SERACDB_ROOT_PASSWORD"] = ROOT_PASSWORD
        # The data directory of the page's server.
        self.env["DATA"] = str(server.data_dir)

    def run(self, block: Block) -> str | None:
        """Runs a block; what it printed, or None for one that is not run."""
        marker, _, said = block.marker.partition(": ")
        if marker == "not run":
            assert said, f"{self.page.name}: a block is not run, and nobody says why:\n{block.text}"
            return None
        assert marker in ("", "refused"), f"{self.page.name}: what is '{block.marker}'?"
        done = self.done(block)
        output = done.stdout.decode() + (done.stderr.decode() if marker == "refused" else "")
        where = f"{self.page.name}:\n{block.text}\n{done.stdout.decode()}\n{done.stderr.decode()}"
        if marker == "refused":
            assert done.returncode != 0 and said in done.stderr.decode(), where
        else:
            assert done.returncode == 0, where
        # Where this test happens to work is on no page.
        return output.replace(f"{self.folder.resolve()}/", "")

    def done(self, block: Block) -> subprocess.CompletedProcess[bytes]:
        text = block.text
        for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", text))):
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.ports.setdefault(port, str(free_port()))}")
        command = ["bash", "-euo", "pipefail", "-c", text]
        stdin = None
        if block.language == "sql":
            command, stdin = ["seracdb", "sql"], text
        elif block.language == "python":
            command, stdin = [".venv/bin/python", "-"], text.replace('"…"', repr(ROOT_PASSWORD))
        elif block.language == "go":
            (self.folder / "page.go").write_text(text.replace('"…"', f'"{ROOT_PASSWORD}"'))
            # Where the driver is known.
            command = [tool("go"), "-C", str(ROOT / "clients/go"), "run", str(self.folder / "page.go")]
        elif block.language == "toml":
            (self.folder / "page.toml").write_text(text)
            command = ["seracdb", "config", "check", "--config", "page.toml"]
        # What a block starts in the background goes on after it, and must not be waited for: its output goes into files.
        out, error = self.folder / "stdout", self.folder / "stderr"
        with open(out, "wb") as stdout, open(error, "wb") as stderr:
            process = subprocess.Popen(
                [self.which(command[0]), *command[1:]],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            self.started.append(process)
            process.communicate((stdin or "").encode(), timeout=600)
        return subprocess.CompletedProcess(command, process.returncode, out.read_bytes(), error.read_bytes())

    def which(self, program: str) -> str:
        return str(self.folder / "bin" / "seracdb") if program == "seracdb" else program

    def end(self) -> None:
        for process in self.started:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass


def run(page: Path, server: Server, folder: Path, write: bool = False) -> list[Block]:
    """Runs a page; `write`: writes what is printed into it, else compares."""
    found, printed = blocks(page), {}
    running = Page(page, server, folder)
    try:
        for block in found:
            output = running.run(block)
            if block.printed is None:
                continue
            assert output is not None, f"{page.name}: what is not run prints nothing:\n{block.text}"
            lines = [line.rstrip() for line in output.strip("\n").splitlines()]
            # What only changes the catalog says nothing.
            first = next((at for at, line in enumerate(lines) if line != "0 rows changed"), 0)
            printed[block.span] = "\n".join(lines[first:]) + "\n"
            if not write:
                expected = [line.rstrip() for line in block.printed.strip("\n").splitlines()]
                assert lines[-len(expected) :] == expected, f"{page.name}:\n{block.text}\nprints\n{output}"
    finally:
        running.end()
    if write:
        text = page.read_text()
        for (start, end), new in sorted(printed.items(), reverse=True):
            text = text[:start] + new + text[end:]
        page.write_text(text)
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "data") as server:
            (Path(folder) / "work").mkdir()
            run(Path(name).resolve(), server, Path(folder) / "work", write=True)
