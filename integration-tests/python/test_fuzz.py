"""Bad bytes on every call: never an internal error, never another user's data, and the server goes on.

What is sent comes from generators with fixed seeds, so that a failure can be had again.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field as member
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from raw_grpc import Caller, Frames, Metadata, Reply, basic
from testserver import ROOT_PASSWORD, Server
from wire import PREFIX, field, packed, parse, unpack, varint

Code = grpc.StatusCode
PASSWORDS = {"alice": "the password of alice", "bob": "the password of bob"}
SECRET = "what only bob may read"
# Far more than the server needs here, and far less than a forged length may ask for.
ADDRESS_SPACE_BYTES = 8 << 30

# Protobuf, by hand.


def fields_of(data: bytes) -> list[tuple[int, int, bytes]]:
    """The fields of a message: number, wire type, and the value's bytes without its length."""
    found = []
    at = 0

    def varint_end(start: int) -> int:
        for end in range(start, min(start + 10, len(data))):
            if data[end] < 0x80:
                return end + 1
        raise ValueError("no varint")

    def number_at(start: int, end: int) -> int:
        return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data[start:end]))

    while at < len(data):
        end = varint_end(at)
        key, at = number_at(at, end), end
        kind = key & 7
        if kind == 0:
            end = varint_end(at)
        elif kind == 2:
            start = varint_end(at)
            at, end = start, start + number_at(at, start)
        else:
            end = at + {1: 8, 5: 4}.get(kind, len(data))
        if end > len(data) or key < 8:
            raise ValueError("no message")
        found.append((key >> 3, kind, data[at:end]))
        at = end
    return found


def of_fields(fields: list[tuple[int, int, bytes]]) -> bytes:
    return b"".join(
        varint(number << 3 | kind) + (varint(len(value)) if kind == 2 else b"") + value
        for number, kind, value in fields
    )


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A message with one thing wrong, at any depth."""
    try:
        fields = fields_of(data)
    except ValueError:
        fields = []
    if not fields or rng.random() < 0.25:
        return mutated_bytes(data, rng)
    place = rng.randrange(len(fields))
    number, kind, value = fields[place]
    if kind == 2 and rng.random() < 0.6:
        fields[place] = (number, kind, mutated(value, rng))
        return of_fields(fields)
    match rng.randrange(8):
        case 0:  # another wire type
            fields[place] = (number, rng.choice([0, 1, 2, 3, 4, 5, 6, 7]), value)
        case 1:  # a length that is not there
            length = rng.choice([len(value) + 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1])
            key = varint(number << 3 | 2)
            return of_fields(fields[:place]) + key + varint(length) + value + of_fields(fields[place + 1 :])
        case 2:  # repeated
            fields[place:place] = [fields[place]] * rng.choice([1, 2, 1000])
        case 3:  # another number
            fields[place] = (rng.choice([1, 2, 3, 4, 5, 1000, (1 << 29) - 1]), kind, value)
        case 4:
            fields[place] = (number, 2, b"")
        case 5:  # no UTF-8
            wrong = rng.choice([b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"a\x00b", b"\xf4\x90\x80\x80"])
            fields[place] = (number, 2, wrong)
        case 6:
            fields[place] = (number, 0, varint(rng.choice([0, 1, 2, 3, 99, (1 << 31) - 1, (1 << 64) - 1])))
        case 7:
            del fields[place]
    return of_fields(fields)


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    at = rng.randrange(len(out) + 1)
    match rng.randrange(5):
        case 0:
            return data[:at]
        case 1:
            out[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
        case 2:
            del out[at : at + rng.choice([1, 2, 8])]
        case 3:
            return rng.randbytes(rng.choice([1, 16, 200]))
        case 4:
            for _ in range(rng.choice([1, 1, 3, 8])):
                if out:
                    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def mutations(data: bytes, seed: int | str, count: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(count):
        wrong = mutated(data, rng)
        yield mutated(wrong, rng) if rng.random() < 0.2 else wrong


# Flight, by hand.


def of_command(command: bytes) -> bytes:
    """A FlightDescriptor."""
    return field(1, 2) + field(2, command)


def action(name: str, body: bytes) -> bytes:
    return field(1, name) + field(2, body)


def flight_data(descriptor: bytes | None, header: bytes = b"", body: bytes = b"", more: bytes = b"") -> bytes:
    parts = [field(1, descriptor)] if descriptor is not None else []
    return b"".join([*parts, field(2, header), field(1000, body), more])


WRAPPED: dict[str, Callable[[bytes], bytes]] = {
    "GetFlightInfo": of_command,
    "PollFlightInfo": of_command,
    "GetSchema": of_command,
    "DoGet": lambda command: field(1, command),
    "DoPut": lambda command: flight_data(of_command(command)),
    "DoExchange": lambda command: flight_data(of_command(command)),
}


@dataclass
class Live:
    """What one user has open."""

    transaction: bytes
    savepoint: bytes
    handle: bytes
    ticket: bytes
    info: bytes

    @classmethod
    def of(cls, caller: Caller, sql: str = "SELECT n FROM t WHERE n = 1") -> Live:
        begun = act(caller, "BeginTransaction", packed("ActionBeginTransactionRequest"))
        transaction = bytes(unpacked(begun)[1])
        request = packed("ActionBeginSavepointRequest", field(1, transaction), field(2, "s"))
        savepoint = bytes(unpacked(act(caller, "BeginSavepoint", request))[1])
        prepared = act(caller, "CreatePreparedStatement", packed("ActionCreatePreparedStatementRequest", field(1, sql)))
        info = caller.call("GetFlightInfo", of_command(packed("CommandStatementQuery", field(1, sql)))).message
        return cls(transaction, savepoint, bytes(unpacked(prepared)[1]), ticket_of(info), info)


def act(caller: Caller, name: str, body: bytes) -> Reply:
    return caller.call("DoAction", action(name, body))


def unpacked(reply: Reply) -> dict[int, int | bytes]:
    """The fields of an action's result."""
    return unpack(bytes(parse(reply.message)[1]))[1]


def ticket_of(info: bytes) -> bytes:
    """The bytes of the first ticket of a FlightInfo."""
    return bytes(parse(bytes(parse(bytes(parse(info)[3]))[1]))[1])


def commands(live: Live) -> dict[str, bytes]:
    """Every command and ticket of Flight SQL, valid ones."""
    names = [field(1, "seracdb"), field(2, "default"), field(3, "t")]
    pairs = [*names, field(4, "seracdb"), field(5, "default"), field(6, "t")]
    messages = {
        "CommandGetCatalogs": [],
        "CommandGetDbSchemas": names[:2],
        "CommandGetTables": [*names, field(4, "TABLE"), field(5, True)],
        "CommandGetTableTypes": [],
        "CommandGetSqlInfo": [field(1, 0), field(1, 8), field(1, 500)],
        "CommandGetXdbcTypeInfo": [field(1, 4)],
        "CommandGetPrimaryKeys": names,
        "CommandGetExportedKeys": names,
        "CommandGetImportedKeys": names,
        "CommandGetCrossReference": pairs,
        "CommandStatementQuery": [field(1, "SELECT n FROM t"), field(2, live.transaction)],
        "CommandStatementSubstraitPlan": [field(1, field(1, b"plan") + field(2, "1.0")), field(2, live.transaction)],
        "CommandStatementUpdate": [field(1, "UPDATE t SET n = 1 WHERE n = 0"), field(2, live.transaction)],
        "CommandPreparedStatementQuery": [field(1, live.handle)],
        "CommandPreparedStatementUpdate": [field(1, live.handle)],
        "CommandStatementIngest": [
            field(1, field(1, 2) + field(2, 2)),
            *[field(2, "t"), field(3, "default"), field(4, "seracdb"), field(5, False), field(6, live.transaction)],
            field(1000, field(1, "option") + field(2, "value")),
        ],
        "DoPutUpdateResult": [field(1, 1)],
    }
    made = {name: packed(name, *fields) for name, fields in messages.items()}
    made["TicketStatementQuery"] = live.ticket
    made["unknown type"] = field(1, "type.googleapis.com/example.Nothing") + field(2, b"x")
    return made


def actions(live: Live) -> dict[str, bytes]:
    """Every action, a valid one; the bodies of Flight's own are not in `Any`."""
    endpoint = field(1, field(1, live.ticket)) + field(3, field(1, 1) + field(2, 1)) + field(4, b"m")
    option = field(1, field(1, "schema") + field(2, field(1, "default")))
    plan = field(1, field(1, b"plan"))
    return {
        "CreatePreparedStatement": packed(
            "ActionCreatePreparedStatementRequest", field(1, "SELECT n FROM t"), field(2, live.transaction)
        ),
        "CreatePreparedSubstraitPlan": packed("ActionCreatePreparedSubstraitPlanRequest", plan),
        "ClosePreparedStatement": packed("ActionClosePreparedStatementRequest", field(1, live.handle)),
        "BeginTransaction": packed("ActionBeginTransactionRequest"),
        "EndTransaction": packed("ActionEndTransactionRequest", field(1, live.transaction), field(2, 2)),
        "BeginSavepoint": packed("ActionBeginSavepointRequest", field(1, live.transaction), field(2, "s")),
        "EndSavepoint": packed("ActionEndSavepointRequest", field(1, live.savepoint), field(2, 2)),
        "CancelQuery": packed("ActionCancelQueryRequest", field(1, live.info)),
        "CancelFlightInfo": field(1, live.info),
        "RenewFlightEndpoint": field(1, endpoint),
        "SetSessionOptions": option,
        "GetSessionOptions": b"",
        "CloseSession": b"",
        "NoSuchAction": b"x",
    }


# What must hold after each group.


@dataclass
class Probe:
    """Sends, and remembers the answers that nobody may get."""

    server: Server
    caller: Caller
    known: int = 0
    calls: int = 0
    codes: dict[str, int] = member(default_factory=dict)
    wrong: list[str] = member(default_factory=list)

    def send(self, label: str, method: str, messages: bytes | list[bytes], metadata: Metadata | None = None) -> Reply:
        reply = self.caller.call(method, messages, metadata)
        self.calls += 1
        self.codes[reply.code.name] = self.codes.get(reply.code.name, 0) + 1
        if trouble := self.trouble(reply):
            sent = messages if isinstance(messages, bytes) else b" | ".join(messages)
            said = f"{reply.code.name} {reply.text[:200]!r}"
            self.wrong.append(f"{method}, {label}: {trouble}: {said} for {sent[:200]!r}")
        return reply

    def trouble(self, reply: Reply) -> str | None:
        if reply.code in (Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS, Code.DEADLINE_EXCEEDED):
            return "code"
        if reply.code is Code.UNAVAILABLE:
            return "gone"
        if len(reply.text) > 4000:
            return "long text"
        if found := re.search(r"\.rs:|\.cargo/|panicked|" + re.escape(str(self.server.data_dir)), reply.text):
            return f"says {found.group()!r}"
        if any(secret in reply.text for secret in (SECRET, ROOT_PASSWORD, *PASSWORDS.values())):
            return "leak"
        if any(SECRET.encode() in message for message in reply.messages):
            return "leak"
        return None

    def finish(self) -> None:
        assert self.server.process.poll() is None, f"the server died:\n{self.server.log()[-4000:]}"
        said = self.server.log()[self.known :]
        panics = [line for line in said.splitlines() if "panic" in line]
        assert rows_of(self.caller, "SELECT 40 + 2 AS n")["n"].to_pylist() == [42]
        assert not self.wrong, f"{len(self.wrong)} of {self.calls} replies:\n" + "\n".join(self.wrong[:20])
        assert not panics, panics[:5]


def rows_of(caller: Caller, sql: str) -> pa.Table:
    """The result of a query, checked for values that point outside of it."""
    info = caller.call("GetFlightInfo", of_command(packed("CommandStatementQuery", field(1, sql)))).message
    reply = caller.call("DoGet", field(1, ticket_of(info)))
    assert reply.code is Code.OK, reply
    stream = b"".join(encapsulated(parse(message)) for message in reply.messages)
    table = pa.ipc.open_stream(stream).read_all()
    table.validate(full=True)
    return table


def encapsulated(message: dict[int, int | bytes]) -> bytes:
    """A FlightData as it is in an IPC stream."""
    header = bytes(message[2])
    padding = -len(header) % 8
    prefix = b"\xff\xff\xff\xff" + struct.pack("<i", len(header) + padding)
    return prefix + header + bytes(padding) + bytes(message.get(1000, b""))


def run(caller: Caller, sql: str) -> None:
    reply = caller.call("DoPut", [flight_data(of_command(packed("CommandStatementUpdate", field(1, sql))))])
    assert reply.code is Code.OK, reply


def prepare(caller: Caller, sql: str) -> bytes:
    """The handle of a new prepared statement."""
    request = packed("ActionCreatePreparedStatementRequest", field(1, sql))
    return bytes(unpacked(act(caller, "CreatePreparedStatement", request))[1])


def populated(server: Server) -> None:
    """Users, a table of all, and one where bob has a row that only he may see."""
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    with Caller(server) as root:
        for user, password in PASSWORDS.items():
            run(root, f"CREATE USER {user} WITH PASSWORD '{password}' ROLE user")
        run(root, "CREATE TABLE t (n BIGINT, label TEXT)")
        run(root, "INSERT INTO t VALUES (1, 'one'), (2, 'two')")
        run(root, "GRANT ALL ON t TO ROLE user")
        run(root, "CREATE USER TABLE diary (note TEXT)")
    with Caller(server, basic("bob", PASSWORDS["bob"])) as bob:
        run(bob, f"INSERT INTO diary VALUES ('{SECRET}')")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("fuzz") / "data") as server:
        populated(server)
        yield server
        assert server.process.poll() is None, f"the server died:\n{server.log()[-4000:]}"


@pytest.fixture
def mortal(tmp_path) -> Iterator[Server]:
    """A server of the test's own, for what has ended servers."""
    with Server(tmp_path / "data") as server:
        populated(server)
        yield server


@pytest.fixture
def probe(fuzzed) -> Iterator[Probe]:
    with Caller(fuzzed, basic("alice", PASSWORDS["alice"])) as caller:
        yield Probe(fuzzed, caller.login(), known=len(fuzzed.log()))


# Commands.


@pytest.mark.parametrize("method", WRAPPED)
def test_commands(probe, method):
    """Every command and ticket sent to every call, whole and broken; the message around it is a good one."""
    live = Live.of(probe.caller)
    for name, command in commands(live).items():
        probe.send(name, method, WRAPPED[method](command))
        for place, wrong in enumerate(mutations(command, f"{method} {name}", 25)):
            probe.send(f"{name} #{place}", method, WRAPPED[method](wrong))
    probe.finish()
    assert rows_of(probe.caller, "SELECT n FROM t ORDER BY n")["n"].to_pylist() == [1, 2]


def test_truncated_commands(probe):
    """Cut at every length."""
    live = Live.of(probe.caller)
    for name, command in commands(live).items():
        for length in range(len(command)):
            for method in ("GetFlightInfo", "DoGet", "DoPut"):
                if method == "GetFlightInfo" or length % 8 == 0:
                    probe.send(f"{name} of {length} bytes", method, WRAPPED[method](command[:length]))
    probe.finish()


def test_actions(probe):
    live = Live.of(probe.caller)
    for name, body in actions(live).items():
        if name != "CloseSession":
            for length in range(len(body)):
                probe.send(f"{name} of {length} bytes", "DoAction", action(name, body[:length]))
        for place, wrong in enumerate(mutations(body, name, 60)):
            with_session = None if name != "CloseSession" else basic("alice", PASSWORDS["alice"])
            probe.send(f"{name} #{place}", "DoAction", action(name, wrong), with_session)
        for other, command in {**commands(live), **actions(live)}.items():
            if name != "CloseSession":
                probe.send(f"{name} with {other}", "DoAction", action(name, command))
    for name in ("", "\0", "createpreparedstatement"):
        reply = probe.send("a strange name", "DoAction", action(name, b""))
        assert reply.code is Code.UNIMPLEMENTED
    probe.finish()


def test_listings(probe):
    for expression in (b"", b"\xff", b"default.t", b"x" * (1 << 20), bytes(range(256))):
        assert probe.send("expression", "ListFlights", field(1, expression)).code is Code.OK
    for wrong in (field(9, b"x"), b""):
        assert len(probe.send("unknown field", "ListActions", wrong).messages) == 12
    probe.finish()


def test_large_texts(probe):
    """1 MiB where a name or an id is expected."""
    live = Live.of(probe.caller)
    for text in ("x" * (1 << 20), "'" * (1 << 20), "%" * 50_000, "\\" * 50_000, "(" * (1 << 20), "\0" * (1 << 20)):
        for name, numbers in {
            # Not where a pattern is: that has a test of its own.
            "CommandGetTables": (1, 4),
            "CommandGetDbSchemas": (1,),
            "CommandGetPrimaryKeys": (1, 2, 3),
            "CommandGetCrossReference": (1, 6),
            "CommandStatementQuery": (1, 2),
        }.items():
            for number in numbers:
                command = packed(name, field(number, text))
                probe.send(f"{name} {number}", "GetFlightInfo", of_command(command))
        for number in (1, 2, 3, 6):
            fields = [field(1, field(1, 1) + field(2, 1)), field(2, text), field(number, text)]
            command = packed("CommandStatementIngest", *fields)
            probe.send(f"ingest {number}", "DoPut", [flight_data(of_command(command))])
        for name, body in {
            "BeginSavepoint": packed("ActionBeginSavepointRequest", field(1, live.transaction), field(2, text)),
            "ClosePreparedStatement": packed("ActionClosePreparedStatementRequest", field(1, text)),
            "EndTransaction": packed("ActionEndTransactionRequest", field(1, text), field(2, 1)),
            "SetSessionOptions": field(1, field(1, "schema") + field(2, field(1, text))),
            "CreatePreparedStatement": packed("ActionCreatePreparedStatementRequest", field(1, text)),
        }.items():
            probe.send(name, "DoAction", action(name, body))
    options = b"".join(field(1, field(1, f"o{n}") + field(2, field(1, "v"))) for n in range(50_000))
    probe.send("many options", "DoAction", action("SetSessionOptions", options))
    infos = b"".join(field(1, n) for n in range(100_000))
    probe.send("many SQL infos", "GetFlightInfo", of_command(packed("CommandGetSqlInfo", infos)))
    types = b"".join(field(4, "TABLE") for _ in range(100_000))
    probe.send("many table types", "GetFlightInfo", of_command(packed("CommandGetTables", types)))
    endpoints = b"".join(field(3, field(1, field(1, live.ticket))) for _ in range(50_000))
    probe.send("many endpoints", "DoAction", action("CancelFlightInfo", field(1, endpoints)))
    probe.finish()


@pytest.mark.parametrize("case", ["action", "catalog", "option", "command"])
def test_long_names_are_not_said_again(probe, case):
    name = "x" * (1 << 20)
    option = field(1000, field(1, name) + field(2, "v"))
    wanted = field(1, field(1, 1) + field(2, 1)) + field(2, "u")
    method, message = {
        "action": ("DoAction", action(name, b"")),
        "catalog": ("DoPut", flight_data(of_command(packed("CommandStatementIngest", wanted, field(4, name))))),
        "option": ("DoPut", flight_data(of_command(packed("CommandStatementIngest", wanted, option)))),
        "command": ("GetFlightInfo", of_command(field(1, PREFIX + name))),
    }[case]
    probe.send(case, method, message)
    probe.finish()


def test_long_patterns_hold_up_nobody(mortal):
    command = packed("CommandGetTables", field(3, "x" * (8 << 20)))
    callers = [Caller(mortal, basic("alice", PASSWORDS["alice"])).login() for _ in range(2 * (os.cpu_count() or 1))]
    with Caller(mortal) as root:
        root.login()
        slow = [caller.begin("GetFlightInfo", of_command(command)) for caller in callers]
        time.sleep(0.5)  # until they are there
        began = time.monotonic()
        reply = root.call("ListActions", b"", seconds=3)
        took = time.monotonic() - began
    # It would not come to an end in time by itself.
    mortal.kill()
    for call, caller in zip(slow, callers, strict=True):
        call.cancel()
        caller.close()
    assert reply.code is Code.OK and took < 2, f"{reply.code}, {took:.1f} s"


# The messages around the commands.

REQUESTS: dict[str, bytes] = {
    "ListFlights": field(1, "default.t"),
    "ListActions": b"",
    "DoAction": action("GetSessionOptions", b""),
    **{method: wrap(packed("CommandGetCatalogs")) for method, wrap in WRAPPED.items()},
}


@pytest.mark.parametrize("method", ["Handshake", "DoExchange"])
def test_messages_that_are_not_read(probe, method):
    for place, wrong in enumerate(mutations(field(2, b"payload"), method, 200)):
        probe.send(f"#{place}", method, wrong)
        probe.send(f"twice #{place}", method, [wrong, wrong])
    assert probe.send("nothing", method, []).code is not Code.INTERNAL
    probe.finish()


def test_handshakes_with_a_payload(probe):
    """User and password as C++ sends them, broken."""
    good = field(2, field(2, "alice") + field(3, PASSWORDS["alice"]))
    assert probe.send("whole", "Handshake", [good], ()).code is Code.OK
    for length in range(2, len(good) - 1):
        inner = good[2:length]
        assert probe.send("cut", "Handshake", [field(2, inner)], ()).code is Code.UNAUTHENTICATED
    probe.finish()


@pytest.mark.parametrize("method", [method for method in REQUESTS if method != "DoExchange"])
def test_messages_that_are_none(probe, method):
    message = REQUESTS[method]
    for length in range(len(message)):
        probe.send(f"{length} bytes", method, message[:length])
    for place, wrong in enumerate(mutations(message, method, 100)):
        probe.send(f"#{place}", method, wrong)
    probe.send("no message", method, [])
    probe.finish()


def test_handshake_message_that_is_none(probe):
    probe.send("garbage", "Handshake", [b"\xff\xff\xff"], ())
    probe.finish()


def test_two_messages_where_one_is_expected(probe):
    for method, message in REQUESTS.items():
        probe.send("two", method, [message, message])
        probe.send("a thousand", method, [message] * 1000)
    probe.send("unknown method", "NoSuchMethod", b"x")
    probe.finish()


# Streams of Arrow data.


def ipc(batch: pa.RecordBatch, compression: str | None = None) -> list[tuple[bytes, bytes]]:
    """Header and body of each message."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, allow_64bit=True)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    read = pa.ipc.MessageReader.open_stream(sink.getvalue())
    return [(bytes(message.metadata), bytes(message.body or b"")) for message in read]


def stream(command: bytes, parts: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The messages of a DoPut."""
    if not parts:
        return [flight_data(of_command(command))]
    first, *rest = parts
    return [flight_data(of_command(command), *first), *(flight_data(None, *part) for part in rest)]


def shapes() -> dict[str, list[tuple[bytes, bytes]]]:
    text = ["one", "x" * 40, None]
    columns = {
        "text": (pa.array([1, None, 3]), pa.array(text)),
        "views": (pa.array([1, 2, 3]), pa.array(text, pa.string_view())),
        "large": (pa.array([1, 2, 3]), pa.array(text, pa.large_string())),
        "dictionary": (pa.array([1, 2, 1]).dictionary_encode(), pa.array(text).dictionary_encode()),
        "list": (pa.array([[1], None, [2, 3]]), pa.array([["a"], [], [None]])),
        "list view": (pa.array([[1], None, [2, 3]], pa.list_view(pa.int64())), pa.array(text)),
        "fixed list": (pa.array([[1, 2], None, [2, 3]], pa.list_(pa.int64(), 2)), pa.array(text)),
        "struct": (pa.array([{"a": 1}, None, {"a": 2}]), pa.array(text)),
        "map": (pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())), pa.array(text)),
        "runs": (pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([1, 2])), pa.array(text)),
        "union": (
            pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(text)]),
            pa.array(text),
        ),
        "nulls": (pa.nulls(3), pa.array(text)),
        "decimal": (pa.array([1, 2, 3]).cast(pa.decimal128(20, 1)), pa.array([b"abc"] * 3, pa.binary(3))),
        "times": (pa.array([1, 2, 3], pa.timestamp("us", "Europe/Berlin")), pa.array([1, 2, 3], pa.time64("ns"))),
    }
    return {name: ipc(pa.record_batch({"n": n, "label": label})) for name, (n, label) in columns.items()}


NUMBERS = [-1, -8, 0, 1, 7, 1 << 20, (1 << 31) - 1, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1, -(1 << 63)]


def with_number(data: bytes, rng: random.Random) -> bytes:
    """Another number somewhere, aligned as offsets and lengths are."""
    if len(data) < 8:
        return data
    at = rng.randrange(0, len(data) - 7, 4)
    number = rng.choice(NUMBERS)
    wide = rng.random() < 0.5 or not -(1 << 31) <= number < 1 << 31
    changed = struct.pack("<q" if wide else "<i", number)
    return data[:at] + changed + data[at + len(changed) :]


def mutated_stream(parts: list[tuple[bytes, bytes]], where: str, rng: random.Random) -> list[tuple[bytes, bytes]]:
    parts = list(parts)
    place = rng.randrange(len(parts))
    header, body = parts[place]
    match where:
        case "bodies":
            place = len(parts) - 1
            header, body = parts[place]
            at = rng.randrange(len(body))
            body = with_number(body, rng) if rng.random() < 0.7 else body[:at] + rng.randbytes(1) + body[at + 1 :]
        case "headers":
            at = rng.randrange(len(header))
            other = header[:at] + rng.randbytes(1) + header[at + 1 :]
            header = with_number(header, rng) if rng.random() < 0.6 else other
        case "cut":
            if rng.random() < 0.5:
                header = header[: rng.randrange(len(header))]
            else:
                body = body[: rng.randrange(len(body) + 1)]
        case "order":
            if rng.random() < 0.4:
                del parts[place]
            elif rng.random() < 0.5:
                parts.insert(place, rng.choice(parts))
            else:
                rng.shuffle(parts)
            return parts
    parts[place] = (header, body)
    return parts


def targets(probe: Probe) -> dict[str, bytes]:
    """Each command that Arrow data comes with."""
    insert = prepare(probe.caller, "INSERT INTO t VALUES (?, ?)")
    query = prepare(probe.caller, "SELECT $1 AS a, $2 AS b")
    modes = {"append": field(1, 2) + field(2, 2), "replace": field(1, 1) + field(2, 3)}
    return {
        "append": packed("CommandStatementIngest", field(1, modes["append"]), field(2, "t")),
        "replace": packed("CommandStatementIngest", field(1, modes["replace"]), field(2, "made")),
        "update": packed("CommandPreparedStatementUpdate", field(1, insert)),
        "bind": packed("CommandPreparedStatementQuery", field(1, query)),
    }


@pytest.mark.parametrize(
    "where",
    [
        "bodies",
        "order",
        "cut",
        "headers",
    ],
)
def test_arrow_data(mortal, where):
    """Valid streams with something wrong: refused, or taken and then readable."""
    rng = random.Random(where)
    with Caller(mortal) as caller:
        probe = Probe(mortal, caller.login(), known=len(mortal.log()))
        for target, command in targets(probe).items():
            for name, parts in shapes().items():
                for place in range(12):
                    wrong = mutated_stream(parts, where, rng)
                    reply = probe.send(f"{target} of {name} #{place}", "DoPut", stream(command, wrong))
                    if mortal.process.poll() is None and target == "bind" and reply.code is Code.OK:
                        probe.send(f"use of {name} #{place}", "DoGet", field(1, command))
        probe.finish()
        for table in ("t", "made"):
            before = rows_of(caller, f"SELECT * FROM {table}")
            run(caller, f"STORAGE FLUSH TABLE {table}")
            assert rows_of(caller, f"SELECT * FROM {table}").num_rows == before.num_rows
        probe.finish()


def test_streams_without_what_is_needed(probe):
    """No schema, no batches, no columns, no descriptor, other columns."""
    probe.caller = Caller(probe.server).login()
    good = shapes()["text"]
    odd = {
        "nothing": [],
        "no schema": good[1:],
        "schema only": good[:1],
        "two schemas": [good[0], *shapes()["list"]],
        "garbage": [(b"garbage", b"")],
        "no columns": ipc(pa.RecordBatch.from_struct_array(pa.array([{}] * 3, pa.struct([])))),
        "one column": ipc(pa.record_batch({"n": [1]})),
        "three columns": ipc(pa.record_batch({"n": [1], "label": ["a"], "more": [1]})),
        "other types": ipc(pa.record_batch({"n": ["many"], "label": [[1]]})),
        "compressed": ipc(pa.record_batch({"n": [1] * 1000, "label": ["a"] * 1000}), "lz4"),
        "many columns": ipc(pa.record_batch({f"c{n}": [n] for n in range(5_000)})),
        "deep": ipc(pa.record_batch({"n": pa.array([deep(40)]), "label": ["a"]})),
        "deeper": ipc(pa.record_batch({"n": pa.nulls(1, deep_type(60)), "label": ["a"]})),
        "system column": ipc(pa.record_batch({"_id": [1], "n": [1]})),
        "a column twice": ipc(pa.RecordBatch.from_arrays([pa.array([1])] * 2, names=["n", "n"])),
    }
    for target, command in targets(probe).items():
        for name, parts in odd.items():
            probe.send(f"{target} of {name}", "DoPut", stream(command, parts))
        with_metadata = flight_data(of_command(command), more=field(3, b"m" * (1 << 20)))
        probe.send(f"{target} of metadata only", "DoPut", [with_metadata, field(3, b"m"), field(3, b"m")])
        no_command = probe.send("no command", "DoPut", [flight_data(None, *good[0]), *stream(command, good[1:])])
        assert no_command.code is Code.INVALID_ARGUMENT
        path = probe.send("a path", "DoPut", [flight_data(field(1, 1) + field(3, "t"), *good[0])])
        assert path.code is Code.INVALID_ARGUMENT
    probe.finish()
    probe.caller.close()


def deep(levels: int) -> list:
    return [deep(levels - 1)] if levels else [1]


def deep_type(levels: int) -> pa.DataType:
    return pa.list_(deep_type(levels - 1)) if levels else pa.int64()


def forged(batch: pa.RecordBatch, rows: int) -> list[tuple[bytes, bytes]]:
    """The batch, which says that it has so many rows."""
    (schema, (header, body)) = ipc(batch)
    return [schema, (header.replace(struct.pack("<q", batch.num_rows), struct.pack("<q", rows)), body)]


def runs() -> list[tuple[bytes, bytes]]:
    ends = pa.array([1 << 40], pa.int64())
    return ipc(pa.record_batch({"n": pa.RunEndEncodedArray.from_arrays(ends, pa.array([7]))}))


def views() -> list[tuple[bytes, bytes]]:
    """Twenty thousand times the same MiB."""
    buffers = pa.array(["x" * (1 << 20)], pa.string_view()).buffers()
    repeated = [None, pa.py_buffer(bytes(buffers[1])[:16] * 20_000), *buffers[2:]]
    return ipc(pa.record_batch({"label": pa.Array.from_buffers(pa.string_view(), 20_000, repeated)}))


def lying() -> list[tuple[bytes, bytes]]:
    """Compressed data that says of itself that it is a petabyte."""
    schema, (header, body) = ipc(pa.record_batch({"n": range(1000)}), "zstd")
    return [schema, (header, struct.pack("<q", 1 << 50) + body[8:])]


def dictionaries() -> list[tuple[bytes, bytes]]:
    """Sixty columns, each with a dictionary of one value of 200 MiB: a small message each."""
    value = pa.array(["x" * (200 << 20)])
    column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), value)
    return ipc(pa.record_batch({f"d{n}": column for n in range(60)}), "zstd")


BOMBS = {
    "60 dictionaries": dictionaries,
    "compressed data that lies": lying,
    "2^40 nulls": lambda: forged(pa.record_batch({"n": pa.nulls(12345)}), 1 << 40),
    "-1 nulls": lambda: forged(pa.record_batch({"n": pa.nulls(12345)}), -1),
    "2^40 equal values": runs,
    "20 GB of views": views,
    "512 MB of zeros": lambda: ipc(pa.record_batch({"n": pa.repeat(pa.scalar(0), 1 << 26)}), "zstd"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_messages_that_unpack_to_large_ones(mortal, name):
    # What they would need is more than that, and the machine is not to suffer.
    limit = 4 << 30
    resource.prlimit(mortal.process.pid, resource.RLIMIT_AS, (limit, limit))
    with Caller(mortal, basic("alice", PASSWORDS["alice"])) as alice:
        probe = Probe(mortal, alice.login(), known=len(mortal.log()))
        reply = probe.send(name, "DoPut", stream(targets(probe)["append"], BOMBS[name]()))
        assert reply.code in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED), reply
        probe.finish()


def test_nested_values_hold_up_nobody(mortal):
    """As many runs as values: of lists, whose sizes have to be found."""
    count = 300_000
    lists = pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), pa.array(["text"] * count, pa.string_view()))
    ends = pa.array(range(1, count + 1), pa.int32())
    batch = pa.record_batch({"label": pa.RunEndEncodedArray.from_arrays(ends, lists)})
    with Caller(mortal, basic("alice", PASSWORDS["alice"])) as alice, Caller(mortal) as root:
        probe = Probe(mortal, alice.login(), known=len(mortal.log()))
        root.login()
        for target in ("append", "bind"):
            # The rows do not fit: what matters is that it is soon known, and that others are answered meanwhile.
            slow = [alice.begin("DoPut", stream(targets(probe)[target], ipc(batch)), seconds=20) for _ in range(4)]
            assert root.call("ListActions", b"", seconds=5).code is Code.OK
            for call in slow:
                with contextlib.suppress(grpc.RpcError):
                    list(call)
                assert call.code() in (Code.OK, Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED), call.details()
        probe.finish()


# Streams without an end, and calls that are cut off.


def resident(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def open_files(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_streams_without_an_end(fuzzed):
    """They are refused, or the client ends them; what they took comes back."""
    schema, *batches = shapes()["text"]
    with Caller(fuzzed) as caller:
        probe = Probe(fuzzed, caller.login(), known=len(fuzzed.log()))
        commands_ = targets(probe)
        files = open_files(fuzzed)

        def endless(command: bytes, first: tuple[bytes, bytes], again: bytes) -> Iterator[bytes]:
            yield flight_data(of_command(command), *first)
            while not stopped.is_set():
                yield again

        kinds = {
            "batches": lambda command: endless(command, schema, flight_data(None, *batches[0])),
            "schemas": lambda command: endless(command, schema, flight_data(None, *schema)),
            "metadata": lambda command: endless(command, schema, field(3, b"m" * 1000)),
            "nothing": lambda command: endless(command, (b"", b""), b""),
        }
        figures = []
        for _ in range(2):
            for target in ("append", "update", "bind"):
                for kind in kinds.values():
                    stopped = threading.Event()
                    call = caller.begin("DoPut", kind(commands_[target]))
                    time.sleep(0.15)  # what it sends by then is the case
                    call.cancel()
                    stopped.set()
            update = packed("CommandStatementUpdate", field(1, "UPDATE t SET n = n WHERE n = 0"))
            stopped = threading.Event()
            reply = probe.send("after an update", "DoPut", endless(update, (b"", b""), b"x"))
            stopped.set()
            assert reply.code is Code.OK
            figures.append(resident(fuzzed))
        probe.finish()
        assert figures[1] < figures[0] * 1.5 + (64 << 20), figures
        assert open_files(fuzzed) <= files + 4


@pytest.mark.parametrize("target", ["append", "update"])
@pytest.mark.parametrize("how", ["cancelled", "connection closed"])
def test_what_is_cut_off_changes_nothing(mortal, target, how):
    schema, batch = ipc(pa.record_batch({"n": [7] * 100, "label": ["half"] * 100}))
    with Caller(mortal) as caller:
        command = targets(Probe(mortal, caller.login()))[target]
        for _ in range(30):
            gone = threading.Event()

            def half() -> Iterator[bytes]:
                yield from stream(command, [schema, batch])
                gone.wait(10)

            other = Caller(mortal, caller.metadata)
            call = other.begin("DoPut", half())
            time.sleep(0.02)  # until it is there
            call.cancel() if how == "cancelled" else other.close()
            gone.set()
            other.close()
        time.sleep(0.5)  # until the server has noticed
        assert rows_of(caller, "SELECT n FROM t ORDER BY n")["n"].to_pylist() == [1, 2]


# Headers.


def test_large_headers(fuzzed):
    """The limit is 64 KiB in all; beyond it the connection, or the call, ends without an answer of Flight."""
    token = basic("alice", PASSWORDS["alice"])
    with Caller(fuzzed, token) as caller:
        probe = Probe(fuzzed, caller, known=len(fuzzed.log()))
        wide = (*token, ("x-wide", "v" * 60_000))
        assert probe.send("60 KB", "ListActions", b"", wide).code is Code.OK
        many = (*token, *((f"x-{n}", "v") for n in range(1000)))
        assert probe.send("1000 headers", "ListActions", b"", many).code is Code.OK
        for headers in (
            [("x-wide", "v" * (1 << 20))],
            [(f"x-{n}", "v" * 100) for n in range(10_000)],
            [("authorization", "Basic " + "QQ" * (1 << 20))],
        ):
            with Frames(fuzzed) as connection:
                connection.request("ListActions", headers)
                assert connection.end() in ("reset", "goaway", "closed", "answered")
        for method in ("ListActions", "GetFlightInfo", "DoPut"):
            with Frames(fuzzed) as connection:
                connection.request(method, [])
                assert connection.end() == "answered"
        probe.finish()


def test_credentials_that_are_none(fuzzed):
    basic_ = basic("alice", PASSWORDS["alice"])[0][1]
    wrong = [
        "", " ", "Basic", "Basic ", "Bearer", "Basic " + "=" * 10, "Basic a", "Basic YWxpY2U", "Basic Og==",
        "Basic /w==", "Basic _-8=", "Basic " + "A" * 40_000, "Bearer " + "x" * 40_000, "Bearer a b c", "Digest x",
        basic_ + "x", basic_[:-4], basic_.replace(" ", ""), "Bearer " + basic_, basic_ + ", " + basic_,
    ]  # fmt: skip
    with Caller(fuzzed, basic("alice", PASSWORDS["alice"])) as caller:
        probe = Probe(fuzzed, caller, known=len(fuzzed.log()))
        for value in wrong:
            for method in ("ListActions", "GetFlightInfo", "Handshake", "DoPut", "DoExchange"):
                messages = b"" if method != "Handshake" else []
                reply = probe.send(repr(value[:50]), method, messages, (("authorization", value),))
                assert reply.code is Code.UNAUTHENTICATED, (value[:50], method, reply)
        for key in ("auth-token-bin", "authorization-bin"):
            reply = probe.send(key, "ListActions", b"", ((key, b"\xff\0" * 100),))
            assert reply.code is Code.UNAUTHENTICATED
        # Of two, only one may count, and never both in turn.
        bob = ("authorization", "Bearer of-nobody")
        replies = {probe.send("two", "ListActions", b"", two).code for two in ([bob, *caller.metadata],) * 3}
        assert replies == {Code.UNAUTHENTICATED}
        unpadded = basic_.rstrip("=")
        assert probe.send("unpadded", "ListActions", b"", (("authorization", unpadded),)).code is Code.OK
        probe.finish()


# Another user's things.


def forged_bytes(value: bytes) -> bytes:
    """The same, of a thing that does not exist."""
    return value[:-16] + bytes(byte ^ 0xA5 for byte in value[-16:])


def test_of_another_user(fuzzed):
    """bob reads the same about alice's things as about things that do not exist, and they stay as they are."""
    of_alice, of_bob = (basic(user, password) for user, password in PASSWORDS.items())
    with Caller(fuzzed, of_alice) as alice, Caller(fuzzed, of_bob) as bob:
        live = Live.of(alice.login())
        probe = Probe(fuzzed, bob.login(), known=len(fuzzed.log()))
        nobodys = Live(*map(forged_bytes, (live.transaction, live.savepoint, live.handle, live.ticket)), b"")
        # A FlightInfo ends with other fields than its ticket.
        nobodys.info = live.info.replace(live.ticket, nobodys.ticket)
        assert nobodys.info != live.info
        refused = (Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)

        def same(label: str, method: str, of: Callable[[Live], bytes | list[bytes]], codes=refused) -> None:
            theirs, none = probe.send(label, method, of(live)), probe.send(label, method, of(nobodys))
            assert theirs.code in codes, (label, method, theirs)
            assert (theirs.code, theirs.text) == (none.code, none.text), (label, method)
            assert theirs.messages == none.messages == []

        for name in ("CommandPreparedStatementQuery", "CommandPreparedStatementUpdate"):
            for method in ("GetFlightInfo", "PollFlightInfo", "GetSchema", "DoPut"):
                same(name, method, lambda of, m=method, n=name: WRAPPED[m](packed(n, field(1, of.handle))))
        same("prepared", "DoGet", lambda of: field(1, packed("CommandPreparedStatementQuery", field(1, of.handle))))
        same("ticket", "DoGet", lambda of: field(1, of.ticket))
        for name, method in (("CommandStatementQuery", "GetFlightInfo"), ("CommandStatementUpdate", "DoPut")):
            for sql in ("SELECT n FROM t", "UPDATE t SET n = 9"):
                same(
                    f"{sql} in a transaction",
                    method,
                    lambda of, m=method, n=name, s=sql: WRAPPED[m](packed(n, field(1, s), field(2, of.transaction))),
                )
        ingest = [field(1, field(1, 2) + field(2, 2)), field(2, "t")]
        same(
            "ingest in a transaction",
            "DoPut",
            lambda of: stream(packed("CommandStatementIngest", *ingest, field(6, of.transaction)), shapes()["text"]),
        )
        for name in (
            "CreatePreparedStatement",
            "EndTransaction",
            "BeginSavepoint",
            "EndSavepoint",
            "CancelQuery",
            "CancelFlightInfo",
            "RenewFlightEndpoint",
        ):
            same(name, "DoAction", lambda of, n=name: action(n, actions(of)[n]))
        same("commit", "DoAction", lambda of: action(
            "EndTransaction", packed("ActionEndTransactionRequest", field(1, of.transaction), field(2, 1))
        ))  # fmt: skip
        # Closing twice is no error, so that neither is this; it closes nothing.
        close = "ClosePreparedStatement"
        same("close", "DoAction", lambda of: action(close, actions(of)[close]), (Code.OK,))
        probe.finish()
        assert rows_of(bob, "SELECT note FROM diary")["note"].to_pylist() == [SECRET]
        assert rows_of(alice, "SELECT count(*) AS n FROM diary")["n"].to_pylist() == [0]

        # All of alice's is still there.
        assert alice.call("DoGet", field(1, live.ticket)).code is Code.OK
        prepared = packed("CommandPreparedStatementQuery", field(1, live.handle))
        assert alice.call("DoGet", field(1, prepared)).code is Code.OK
        for name in ("EndSavepoint", "CancelFlightInfo", "EndTransaction"):
            assert act(alice, name, actions(live)[name]).code is Code.OK, name


def test_forged_ids(probe):
    """Ids of every length, and random ones."""
    rng = random.Random("ids")
    for length in (*range(40), 1000):
        for value in (bytes(length), rng.randbytes(length), b"\xff" * length):
            probe.send("handle", "GetFlightInfo", of_command(packed("CommandPreparedStatementQuery", field(1, value))))
            wrapped = field(1, value)
            update = packed("CommandPreparedStatementUpdate", field(1, wrapped))
            probe.send("handle", "DoPut", flight_data(of_command(update)))
            probe.send("ticket", "DoGet", field(1, packed("TicketStatementQuery", field(1, wrapped))))
            query = packed("CommandStatementQuery", field(1, "SELECT 1"), field(2, value))
            reply = probe.send("transaction", "GetFlightInfo", of_command(query))
            assert (reply.code is Code.OK) == (length == 0)
            end = packed("ActionEndSavepointRequest", field(1, value), field(2, 1))
            probe.send("savepoint", "DoAction", action("EndSavepoint", end))
            probe.send("token", "ListActions", b"", (("authorization", "Bearer " + value.hex()),))
    probe.finish()


def test_a_message_of_64_mib(probe):
    """The limit itself; the error above it is the client's."""
    long = of_command(packed("CommandStatementQuery", field(1, "SELECT '" + "x" * (63 << 20) + "'")))
    assert probe.send("63 MiB", "GetFlightInfo", long).code is Code.RESOURCE_EXHAUSTED
    for method, wrap in WRAPPED.items():
        reply = probe.send("65 MiB", method, wrap(field(1, "x" * (65 << 20))))
        assert reply.code in (Code.RESOURCE_EXHAUSTED, Code.UNIMPLEMENTED), (method, reply)
    probe.finish()
