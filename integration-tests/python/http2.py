"""HTTP/2 frame by frame, for clients that no library would be: ones that stall, never read, or go on for ever."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raw_grpc import SERVICE, Metadata, basic, frame, literal, read_exactly
from testserver import ROOT_PASSWORD, Server

# Why a call is reset: its client wants it no more.
CANCEL = 8

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
ROOT = basic("root", ROOT_PASSWORD)
DATA_BYTES_MAX = 16 << 10


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def dial(server: Server, source: str = "127.0.0.1", trust: Path | None = None, seconds: float = 30) -> socket.socket:
    """A connection on which nothing was said but, with `trust`, TLS."""
    host, port = server.uri.rpartition("//")[2].split(":")
    plain = socket.create_connection((host, int(port)), timeout=seconds, source_address=(source, 0))
    if trust is None:
        return plain
    context = ssl.create_default_context(cafile=str(trust / "ca.pem"))
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(plain, server_hostname=host)


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not closed it."""
    connection.setblocking(False)
    try:
        while True:
            if not connection.recv(1 << 16):
                return False
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


class Line:
    """A connection that speaks HTTP/2."""

    def __init__(self, server: Server, **how):
        self.socket = dial(server, **how)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def begin(self, stream: int, method: str, metadata: Metadata = ROOT) -> None:
        """The headers of a call."""
        fixed = [(":method", "POST"), (":scheme", "http"), (":path", SERVICE + method), (":authority", "test")]
        fixed += [("content-type", "application/grpc"), ("te", "trailers")]
        block = b"".join(literal(name, str(value)) for name, value in [*fixed, *metadata])
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, block))

    def message(self, stream: int, message: bytes, *, sent: int | None = None, end: bool = False) -> None:
        """A message of the call, or only so many bytes of it."""
        data = (b"\0" + len(message).to_bytes(4, "big") + message)[:sent]
        for at in range(0, len(data), DATA_BYTES_MAX):
            self.socket.sendall(frame(DATA, 0, stream, data[at : at + DATA_BYTES_MAX]))
        if end:
            self.socket.sendall(frame(DATA, END_STREAM, stream))

    def reset(self, stream: int) -> None:
        """Ends a call whose answer is of no interest."""
        self.socket.sendall(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))

    def answered(self) -> None:
        """Reads what the server says, for nobody, as long as the connection is there."""

        def read() -> None:
            try:
                for _ in self.frames():
                    pass
            except OSError:
                pass

        threading.Thread(target=read, daemon=True).start()

    def frames(self, answer_pings: bool = True) -> Iterator[Frame]:
        """What the server says, until it closes the connection."""
        while True:
            try:
                head = self.read(9)
                payload = self.read(int.from_bytes(head[:3], "big"))
            except ConnectionError:
                return
            got = Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)
            if answer_pings and got.kind in (SETTINGS, PING) and not got.flags & ACK:
                self.socket.sendall(frame(got.kind, ACK, 0, payload if got.kind == PING else b""))
            yield got

    def read(self, count: int) -> bytes:
        return read_exactly(self.socket, count)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_) -> None:
        self.close()
