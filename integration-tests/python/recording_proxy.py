"""A gRPC proxy between a driver and the server that passes every byte on and writes down one line per call."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from rpc_lines import Speller
from testserver import Server

SERVICE = "/arrow.flight.protocol.FlightService/"
# Of a connection, and not of what is said on it.
HOP_HEADERS = ("user-agent", "grpc-accept-encoding", "accept-encoding", "te", "content-type")
QUIET_SECONDS = 60
# A call without a deadline has one at the end of time.
NO_DEADLINE_SECONDS = 1e9
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass
class Call:
    """One call: what was asked and what came of it."""

    method: str
    login: str
    what: str = ""
    answer: str = ""
    up: int = 0
    down: int = 0
    code: str = "OK"

    @property
    def line(self) -> str:
        asked = " ".join(part for part in (self.method, self.login, self.what) if part)
        # Who puts may send nothing but the command, and gets one answer: what counts is what was sent besides.
        count = f"↑{self.up}" if self.method == "DoPut" else f"↓{self.down}" if self.method == "DoGet" else ""
        got = " ".join(part for part in (count, self.answer, self.code if self.code != "OK" else "") if part)
        return f"{asked} → {got}" if got else asked


@dataclass
class Trace:
    """The calls of one tour, in the order in which they began, under the headings of its steps."""

    steps: list[tuple[str, list[Call]]] = field(default_factory=list)
    speller: Speller = field(default_factory=Speller)
    running: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def step(self, heading: str) -> None:
        """What comes from here on belongs to `heading`, but for calls that still end in the background."""
        self.finish()
        with self.changed:
            self.steps.append((heading, []))

    def finish(self) -> None:
        """Waits for the calls that still run."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.running == 0, QUIET_SECONDS):
                raise TimeoutError(f"calls still run:\n{self.text()}")

    def begin(self, call: Call) -> None:
        with self.changed:
            self.running += 1
            self.steps[-1][1].append(call)

    def end(self) -> None:
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    @property
    def calls(self) -> list[Call]:
        return [call for _, calls in self.steps for call in calls]

    def text(self) -> str:
        lines: list[str] = []
        for heading, calls in self.steps:
            lines += [f"== {heading}", *(call.line for call in calls), ""]
        return "\n".join(lines)


def login(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """By what a call proves who it is, where that is not the usual token."""
    kinds = [str(value).partition(" ")[0] for name, value in metadata if name == "authorization"]
    return "" if kinds == ["Bearer"] else f"({', '.join(kinds) or 'no login'})"


class Proxy:
    """Listens on a port of its own and forwards to `server`; `trace` is what it has seen."""

    def __init__(self, server: Server):
        self.target = server.uri.removeprefix("grpc://")
        self.channels: dict[str, grpc.Channel] = {}
        self.trace = Trace()
        self.lock = threading.Lock()
        self.grpc = grpc.server(ThreadPoolExecutor(max_workers=32), [self], options=OPTIONS)
        self.uri = f"grpc://127.0.0.1:{self.grpc.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Proxy:
        self.grpc.start()
        return self

    def __exit__(self, *_) -> None:
        self.grpc.stop(grace=None).wait()
        for channel in self.channels.values():
            channel.close()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """What grpcio asks for each call. On the wire all four kinds of methods are streams of messages."""
        method = details.method.removeprefix(SERVICE)
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: self.forward(method, requests, context))

    def channel(self, user_agent: str) -> grpc.Channel:
        """A connection to the server that names the same client: some answers depend on it."""
        with self.lock:
            if user_agent not in self.channels:
                options = [*OPTIONS, ("grpc.primary_user_agent", user_agent), ("grpc.enable_retries", 0)]
                self.channels[user_agent] = grpc.insecure_channel(self.target, options)
            return self.channels[user_agent]

    def forward(self, method: str, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        call = Call(method, login(context.invocation_metadata()))
        self.trace.begin(call)
        try:
            yield from self.pass_on(call, requests, context)
        finally:
            self.trace.end()

    def pass_on(self, call: Call, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        def sent() -> Iterator[bytes]:
            try:
                for message in requests:
                    if call.up == 0:
                        call.what = self.trace.speller.request(call.method, message)
                    call.up += 1
                    yield message
            except grpc.RpcError:
                # The client has hung up. Ending quietly instead would tell the server that all has been sent.
                upstream.cancel()

        metadata = context.invocation_metadata()
        agent = next((value for name, value in metadata if name == "user-agent"), "")
        kept = [(name, value) for name, value in metadata if name not in HOP_HEADERS]
        seconds = context.time_remaining()
        method = self.channel(agent).stream_stream(SERVICE + call.method)
        upstream = method(sent(), metadata=kept, timeout=seconds if seconds < NO_DEADLINE_SECONDS else None)
        context.add_callback(upstream.cancel)
        try:
            context.send_initial_metadata(upstream.initial_metadata())
            for message in upstream:
                if call.down == 0:
                    call.answer = self.trace.speller.answer(call.method, call.what, message)
                call.down += 1
                yield message
        except grpc.RpcError:
            pass
        code = upstream.code()
        context.set_trailing_metadata(upstream.trailing_metadata())
        context.set_code(code)
        context.set_details(upstream.details() or "")
        # A client that has what it wanted may hang up before the end: that is a race, and no answer.
        if code is not grpc.StatusCode.CANCELLED or context.is_active():
            call.code = code.name
