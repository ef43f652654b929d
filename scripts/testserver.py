"""A SeracDB server of one's own: the real binary on free ports over a data directory.

In Python: `with Server(data_dir) as server: …`, with `stop` (SIGTERM), `kill` (SIGKILL) and `start` again on the same
directory. From a shell: `testserver.py COMMAND…` runs COMMAND beside a fresh server, which it finds by SERACDB_URI,
SERACDB_USER and SERACDB_PASSWORD, and exits with the command's code. A second one, at SERACDB_TLS_URI, lets only those in
who show the client certificate in SERACDB_TLS_DIR.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT_PASSWORD = "correct horse battery staple"
START_SECONDS = 120
STOP_SECONDS = 120


def binary() -> str:
    """The server's binary: SERACDB_BIN, else the dev build."""
    default = Path(__file__).resolve().parent.parent / "target" / "debug" / "seracdb"
    path = os.environ.get("SERACDB_BIN", str(default))
    if not Path(path).is_file():
        raise FileNotFoundError(f"no server binary at {path}; set SERACDB_BIN")
    return str(Path(path).resolve())


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def make_certificates(folder: Path, *more: str) -> Path:
    """A CA in `folder`, and certificates of it for a server and a client."""
    command = [binary(), "tls", "self-signed", "--dir", str(folder), *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def tls_args(folder: Path, clients_of: Path | None = None) -> list[str]:
    """How a server is started with these certificates; `clients_of`: those whose clients alone may come in."""
    args = ["--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")]
    return args if clients_of is None else [*args, "--tls-client-ca", str(clients_of / "ca.pem")]


class Server:
    """One server process over `data_dir`. Its log goes to `data_dir` + ".log"."""

    def __init__(
        self,
        data_dir: Path | str,
        *,
        password: str | None = ROOT_PASSWORD,
        args: list[str] | None = None,
        variables: dict[str, str] | None = None,
    ):
        self.data_dir = Path(data_dir)
        self.log_path = self.data_dir.with_name(self.data_dir.name + ".log")
        self.password = password
        self.args = args or []
        self.variables = variables or {}
        # The addresses that a flag sets to a free port; others are as the settings say.
        self.free_ports = ("--listen", "--http-listen")
        self.process: subprocess.Popen[str] | None = None
        self.uri = ""
        self.http = ""

    def spawn(self) -> subprocess.Popen[str]:
        """Starts the process and does not wait for it to be ready."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("SERACDB_")}
        if self.password is not None:
            env["SERACDB_ROOT_PASSWORD"] = self.password
        env |= self.variables
        command = [binary(), "serve", "--data-dir", str(self.data_dir)]
        for flag in self.free_ports:
            if flag not in self.args:
                command += [flag, "127.0.0.1:0"]
        command += self.args
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                text=True,
                # SIGXFSZ stays ignored, as Python has it: tests that limit the size of files want the error.
                restore_signals=False,
            )

    def start(self) -> Server:
        """Starts the server and waits for its ready line."""
        self.process = self.spawn()
        lines: queue.Queue[str | None] = queue.Queue()

        def drain(stdout) -> None:
            with stdout:
                for line in stdout:
                    lines.put(line)
            lines.put(None)

        threading.Thread(target=drain, args=(self.process.stdout,), daemon=True).start()
        while True:
            line = lines.get(timeout=START_SECONDS)
            if line is None:
                raise RuntimeError(f"the server exited with {self.process.wait()}:\n{self.log()[-4000:]}")
            if found := re.search(r"seracdb ready on (grpc(?:\+tls)?://\S+)", line):
                self.uri = found.group(1)
                # Said in the log just before; the last one is this start's.
                self.http = "http://" + re.findall(r"\bhttp(?:=|\":\")([^\s\"]+)", self.log())[-1]
                return self

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """kill -9: what a crash of the process leaves behind."""
        return self._end(signal.SIGKILL)

    def restart(self) -> Server:
        self.stop()
        return self.start()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _end(self, sig: signal.Signals) -> int:
        assert self.process is not None, "not started"
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()


def main(command: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="seracdb-test-") as folder:
        tls = make_certificates(Path(folder) / "tls")
        server = Server(Path(folder) / "data")
        encrypted = Server(Path(folder) / "encrypted", args=tls_args(tls, clients_of=tls))
        with server, encrypted:
            env = os.environ | {
                "SERACDB_URI": server.uri,
                "SERACDB_USER": "root",
                "SERACDB_PASSWORD": ROOT_PASSWORD,
                "SERACDB_TLS_URI": encrypted.uri,
                "SERACDB_TLS_DIR": str(tls),
            }
            code = subprocess.run(command, env=env).returncode
            alive = server.process.poll() is None and encrypted.process.poll() is None
        if code != 0 or not alive:
            print(server.log()[-4000:], encrypted.log()[-4000:], sep="\n", file=sys.stderr)
        return code if alive else code or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
