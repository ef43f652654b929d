"""gRPC without a schema: whatever bytes a test likes, to any method of the Flight service, and what comes back."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

import grpc
from testserver import ROOT_PASSWORD, Server
from wire import parse, varint

SERVICE = "/arrow.flight.protocol.FlightService/"
MESSAGE_BYTES_MAX = 256 << 20
Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass
class Reply:
    """The end of a call: its status, and the messages before it."""

    code: grpc.StatusCode
    text: str
    messages: list[bytes] = field(default_factory=list)

    @property
    def message(self) -> bytes:
        assert self.code is grpc.StatusCode.OK, self
        return self.messages[0]


def basic(user: str, password: str) -> Metadata:
    return (("authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()),)


class Caller:
    """A connection that sends one user's credentials with each call, or other headers when told to.

    `resends`: whether it sends again, as gRPC's clients do, what met a connection at its end and was not looked at.
    """

    def __init__(self, server: Server, metadata: Metadata = basic("root", ROOT_PASSWORD), resends: bool = False):
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            # A connection of its own, not one that is shared by all channels of the process.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_metadata_size", 4 << 20),
            ("grpc.enable_retries", int(resends)),
        ]
        self.channel = grpc.insecure_channel(server.uri.removeprefix("grpc://"), options)
        self.metadata = metadata
        self.one: dict[str, grpc.UnaryStreamMultiCallable] = {}
        self.many: dict[str, grpc.StreamStreamMultiCallable] = {}

    def login(self) -> Caller:
        """Goes on with a token: the calls are of one session from here on."""
        token = parse(self.call("Handshake", []).message)[2]
        self.metadata = (("authorization", "Bearer " + bytes(token).decode()),)
        return self

    def begin(
        self, method: str, messages: bytes | Iterable[bytes], metadata: Metadata | None = None, seconds: float = 30
    ) -> grpc.Call:
        """Starts a call; its answers are read from what this gives."""
        sent = self.metadata if metadata is None else metadata
        if isinstance(messages, bytes):
            if method not in self.one:
                self.one[method] = self.channel.unary_stream(SERVICE + method)
            return self.one[method](messages, metadata=sent, timeout=seconds)
        if method not in self.many:
            self.many[method] = self.channel.stream_stream(SERVICE + method)
        return self.many[method](iter(messages), metadata=sent, timeout=seconds)

    def call(
        self, method: str, messages: bytes | Iterable[bytes], metadata: Metadata | None = None, seconds: float = 30
    ) -> Reply:
        """One call to its end, with one message or several."""
        answers: list[bytes] = []
        call = self.begin(method, messages, metadata, seconds)
        try:
            answers.extend(call)
        except grpc.RpcError:
            pass
        return Reply(call.code(), call.details() or "", answers)

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return data


class Frames:
    """HTTP/2 by hand, for headers that gRPC's own client refuses to send."""

    HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 1, 3, 4, 7, 9
    FRAME_BYTES_MAX = 16 << 10

    def __init__(self, server: Server):
        host, port = server.uri.removeprefix("grpc://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(self.SETTINGS, 0, 0))

    def request(self, method: str, headers: list[tuple[str, str]]) -> None:
        """Sends the headers of a call and no message; stops when the server does not want to read on."""
        fixed = [(":method", "POST"), (":scheme", "http"), (":path", SERVICE + method), (":authority", "test")]
        fixed += [("content-type", "application/grpc"), ("te", "trailers")]
        block = b"".join(literal(name, value) for name, value in fixed + headers)
        parts = [block[at : at + self.FRAME_BYTES_MAX] for at in range(0, len(block), self.FRAME_BYTES_MAX)]
        try:
            for place, part in enumerate(parts):
                last = 4 if place == len(parts) - 1 else 0
                kind, flags = (self.CONTINUATION, last) if place else (self.HEADERS, last | 1)
                self.socket.sendall(frame(kind, flags, 1, part))
        except OSError:
            pass

    def end(self) -> str:
        """What ends the call: "reset", "goaway", "closed", or "answered"."""
        while True:
            try:
                head = self.read(9)
                payload = self.read(int.from_bytes(head[:3], "big"))
                kind, flags = head[3], head[4]
                if kind == self.SETTINGS and not flags & 1:
                    self.socket.sendall(frame(self.SETTINGS, 1, 0))
            except ConnectionError:
                return "closed"
            if kind == self.RST_STREAM:
                return "reset"
            elif kind == self.GOAWAY and int.from_bytes(payload[4:8], "big") != 0:
                return "goaway"
            elif kind in (0, self.HEADERS) and flags & 1:
                return "answered"

    def read(self, count: int) -> bytes:
        return read_exactly(self.socket, count)

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: str, value: str) -> bytes:
    """A header as HPACK has it, neither indexed nor compressed."""

    def text(data: bytes) -> bytes:
        return (bytes([len(data)]) if len(data) < 127 else b"\x7f" + varint(len(data) - 127)) + data

    return b"\0" + text(name.encode()) + text(value.encode())
