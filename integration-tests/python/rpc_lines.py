"""What a call of Flight SQL says, as text: its command and the answer, without what differs from run to run."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from wire import PREFIX, fields, parse, read_varint

TEXT, FLAG, NUMBER, NUMBERS, END, DEFINITION = "text", "flag", "number", "numbers", "end", "definition"
# Opaque bytes are numbered by their first appearance, under these names.
STATEMENT, TRANSACTION, TICKET, SAVEPOINT = "statement", "transaction", "ticket", "savepoint"

TABLE = {1: ("catalog", TEXT), 2: ("schema", TEXT), 3: ("table", TEXT)}
# The fields of each message by number: what they are called in a trace, and of which kind they are.
FIELDS: dict[str, dict[int, tuple[str, str]]] = {
    "CommandStatementQuery": {1: ("sql", TEXT), 2: ("transaction", TRANSACTION)},
    "CommandStatementUpdate": {1: ("sql", TEXT), 2: ("transaction", TRANSACTION)},
    "CommandPreparedStatementQuery": {1: ("statement", STATEMENT)},
    "CommandPreparedStatementUpdate": {1: ("statement", STATEMENT)},
    "CommandStatementIngest": {
        1: ("mode", DEFINITION),
        2: ("table", TEXT),
        3: ("schema", TEXT),
        4: ("catalog", TEXT),
        5: ("temporary", FLAG),
        6: ("transaction", TRANSACTION),
    },
    "CommandGetCatalogs": {},
    "CommandGetDbSchemas": {1: ("catalog", TEXT), 2: ("schema_pattern", TEXT)},
    "CommandGetTables": {
        1: ("catalog", TEXT),
        2: ("schema_pattern", TEXT),
        3: ("table_pattern", TEXT),
        4: ("type", TEXT),
        5: ("include_schema", FLAG),
    },
    "CommandGetTableTypes": {},
    "CommandGetSqlInfo": {1: ("codes", NUMBERS)},
    "CommandGetXdbcTypeInfo": {1: ("type", NUMBER)},
    "CommandGetPrimaryKeys": TABLE,
    "CommandGetExportedKeys": TABLE,
    "CommandGetImportedKeys": TABLE,
    "CommandGetCrossReference": {
        **{number: (f"primary_{name}", kind) for number, (name, kind) in TABLE.items()},
        **{number + 3: (f"foreign_{name}", kind) for number, (name, kind) in TABLE.items()},
    },
    "TicketStatementQuery": {1: ("ticket", TICKET)},
    "ActionCreatePreparedStatementRequest": {1: ("sql", TEXT), 2: ("transaction", TRANSACTION)},
    "ActionClosePreparedStatementRequest": {1: ("statement", STATEMENT)},
    "ActionBeginTransactionRequest": {},
    "ActionEndTransactionRequest": {1: ("transaction", TRANSACTION), 2: ("action", END)},
    "ActionBeginSavepointRequest": {1: ("transaction", TRANSACTION), 2: ("name", TEXT)},
    "ActionEndSavepointRequest": {1: ("savepoint", SAVEPOINT), 2: ("action", END)},
}
ENDS = {
    "ActionEndTransactionRequest": ["?", "COMMIT", "ROLLBACK"],
    "ActionEndSavepointRequest": ["?", "RELEASE", "ROLLBACK"],
}
# Of ingest, by what happens to a missing table and to one that is there.
INGEST_MODES = {(1, 1): "create", (2, 2): "append", (1, 2): "create_append", (1, 3): "replace"}


def numbers(data: bytes) -> Iterator[int]:
    """A packed list of numbers."""
    at = 0
    while at < len(data):
        value, at = read_varint(data, at)
        yield value


def signed(value: int | bytes | None) -> int:
    """An int64, which protobuf sends as an unsigned one; an absent field is 0."""
    number = int(value or 0)
    return number - (1 << 64) if number >> 63 else number


class Speller:
    """Spells the calls of one trace: the same bytes get the same number in all of them."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[bytes, int]] = {}

    def opaque(self, kind: str, data: bytes) -> str:
        seen = self.numbers.setdefault(kind, {})
        return f"<{kind} {seen.setdefault(data, len(seen) + 1)}>"

    def request(self, method: str, message: bytes) -> str:
        """The first message of a call."""
        parts = parse(message)
        if method == "DoAction":
            return self.action(bytes(parts[1]).decode(), bytes(parts.get(2, b"")))
        if method == "DoGet":
            return self.command(bytes(parts.get(1, b"")))
        if method in ("GetFlightInfo", "GetSchema", "PollFlightInfo"):
            return self.command(bytes(parts.get(2, b"")))
        if method == "DoPut":
            return self.command(bytes(parse(bytes(parts.get(1, b""))).get(2, b"")))
        return ""

    def action(self, name: str, body: bytes) -> str:
        if name in ("SetSessionOptions", "CloseSession", "GetSessionOptions"):
            return " ".join([name, *(session_option(bytes(entry)) for _, entry in fields(body))])
        return self.command(body).replace(f"Action{name}Request", name) if body else name

    def command(self, data: bytes) -> str:
        """A Flight SQL message in `Any`. What is not known here is named, so that a new driver's news are seen."""
        parts = parse(data)
        name = bytes(parts.get(1, b"(no command)")).decode().removeprefix(PREFIX)
        known = FIELDS.get(name, {})
        values = [(known.get(n, (f"field{n}", "")), value) for n, value in fields(bytes(parts.get(2, b"")))]
        return " ".join([name, *(f"{field}={self.value(name, kind, value)}" for (field, kind), value in values)])

    def value(self, message: str, kind: str, value: int | bytes) -> str:
        if kind in (STATEMENT, TRANSACTION, SAVEPOINT, TICKET):
            return self.opaque(kind, bytes(value)) if value else "none"
        if kind == TEXT:
            return f'"{bytes(value).decode()}"'
        if kind == FLAG:
            return str(bool(value)).lower()
        if kind == END:
            return ENDS[message][int(value)]
        if kind == DEFINITION:
            options = parse(bytes(value))
            return INGEST_MODES.get((int(options.get(1, 0)), int(options.get(2, 0))), "?")
        if kind == NUMBERS:
            return str([value] if isinstance(value, int) else list(numbers(value)))
        return str(value) if kind == NUMBER else "?"

    def answer(self, method: str, what: str, message: bytes) -> str:
        """What the first answer says."""
        parts = parse(message)
        if method in ("GetFlightInfo", "PollFlightInfo"):
            info = parse(bytes(parts.get(1, b""))) if method == "PollFlightInfo" else parts
            return f"rows={signed(info.get(4))}"
        if method == "GetSchema":
            return f"columns={columns(bytes(parts.get(1, b'')))}"
        if method == "DoPut":
            return self.put_result(bytes(parts.get(1, b"")))
        if method == "DoAction":
            return self.action_result(what.partition(" ")[0], bytes(parts.get(1, b"")))
        return ""

    def put_result(self, data: bytes) -> str:
        value = parse(data).get(1, 0)
        return f"rows={signed(value)}" if isinstance(value, int) else f"statement={self.opaque(STATEMENT, value)}"

    def action_result(self, name: str, body: bytes) -> str:
        if name == "CreatePreparedStatement":
            parts = parse(bytes(parse(body).get(2, b"")))
            shapes = f"columns={columns(bytes(parts.get(2, b'')))} parameters={columns(bytes(parts.get(3, b'')))}"
            update = {0: "false", 1: "true", None: "unknown"}[parts.get(4)]
            return f"statement={self.opaque(STATEMENT, bytes(parts[1]))} {shapes} update={update}"
        if name in ("BeginTransaction", "BeginSavepoint"):
            kind = TRANSACTION if name == "BeginTransaction" else SAVEPOINT
            return f"{kind}={self.opaque(kind, bytes(parse(bytes(parse(body).get(2, b'')))[1]))}"
        if name == "GetSessionOptions":
            return " ".join(sorted(session_option(bytes(entry)) for _, entry in fields(body)))
        if name == "SetSessionOptions":
            return " ".join(f"refused={bytes(parse(bytes(entry))[1]).decode()}" for _, entry in fields(body))
        if name == "CloseSession":
            return {1: "closed", 2: "closing", 3: "not closeable"}[int(parse(body).get(1, 0))]
        return ""


def session_option(entry: bytes) -> str:
    """An entry of the map of options: its name and its text, or that it is to be unset."""
    parts = parse(entry)
    value = parse(bytes(parts.get(2, b"")))
    return f"{bytes(parts[1]).decode()}=" + (f'"{bytes(value[1]).decode()}"' if 1 in value else "unset")


def columns(message: bytes) -> int:
    """How many columns a schema has that is sent as an IPC message."""
    return len(pa.ipc.read_schema(pa.py_buffer(message))) if message else 0
