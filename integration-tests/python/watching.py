"""What a server does that is busy: clients of their own processes, its CPU time, waiting for something to be so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from testserver import ROOT_PASSWORD, Server


def start(server: Server, sql: str) -> subprocess.Popen:
    """A client of its own, that can be killed."""
    program = "import sys, seracdb\nwith seracdb.connect(*sys.argv[1:4]) as db: db.query(sys.argv[4])"
    command = [sys.executable, "-c", program, server.uri, "root", ROOT_PASSWORD, sql]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu_seconds(server: Server) -> float:
    with open(f"/proc/{server.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads(server: Server) -> int:
    return status(server, "Threads")


def resident_mib(server: Server) -> int:
    return status(server, "VmRSS") >> 10


def status(server: Server, name: str) -> int:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)[1])


def wait_until_busy(server: Server) -> None:
    before = cpu_seconds(server)
    wait_until(lambda: cpu_seconds(server) - before > 1.5)


def wait_until_idle(server: Server) -> None:
    """A second in which it computes next to nothing."""

    def idle() -> bool:
        before = cpu_seconds(server)
        time.sleep(1)  # what is measured
        return cpu_seconds(server) - before < 0.2

    wait_until(idle)


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between looks at the condition
