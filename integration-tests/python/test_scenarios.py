"""The scenarios of clients/scenarios, through the package `seracdb`."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import seracdb
from testserver import ROOT_PASSWORD

FOLDER = Path(__file__).resolve().parents[2] / "clients" / "scenarios"
SCENARIOS = sorted(path.stem for path in FOLDER.glob("*.json"))
UTC = dt.UTC

TYPES = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "text": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}
CODES = {
    seracdb.NotFound: "NOT_FOUND",
    seracdb.AlreadyExists: "ALREADY_EXISTS",
    seracdb.InvalidArgument: "INVALID_ARGUMENT",
    seracdb.PermissionDenied: "PERMISSION_DENIED",
    seracdb.Unauthenticated: "UNAUTHENTICATED",
    seracdb.Conflict: "ABORTED",
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(server, name):
    run = Run(server.uri, "py_" + name.replace("-", "_"))
    try:
        for number, step in enumerate(scenario(name, run.namespace), 1):
            try:
                run.step(step)
            except BaseException as error:
                error.add_note(f"in step {number}: {json.dumps(step, ensure_ascii=False)}")
                raise
    finally:
        run.close()


def scenario(name: str, namespace: str) -> list[dict[str, Any]]:
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text.replace("{ns}", namespace))["steps"]


class Run:
    """One run of a scenario: its connections, by name."""

    def __init__(self, uri: str, namespace: str):
        self.uri, self.namespace = uri, namespace
        self.connections: dict[str, seracdb.Connection] = {}
        self.connect({"connect": "first"})
        self.db.run(f"CREATE NAMESPACE {namespace}")

    def step(self, step: dict[str, Any]) -> None:
        (verb,) = VERBS.keys() & step.keys()
        if "fails" not in step:
            VERBS[verb](self, step)
            return
        with pytest.raises(seracdb.Error) as failed:
            VERBS[verb](self, step)
        assert CODES.get(type(failed.value)) == step["fails"], failed.value
        assert step["says"] in str(failed.value)

    def execute(self, step) -> None:
        parameters = bound(step)
        count = self.db.run(step["execute"], parameters)
        assert count == step.get("count", count)

    def query(self, step) -> None:
        table = self.db.query(step["query"], bound(step))
        names = [[field.name, type_name(field.type)] for field in table.schema]
        # The rows are looked at here: a step that must fail has none to compare with.
        rows = [[shown(value) for value in row.values()] for row in table.to_pylist()]
        assert "fails" not in step, rows
        assert names == step["columns"]
        kinds = [kind for _, kind in step["columns"]]
        assert rows == [[shown(value_of(v, k)) for v, k in zip(row, kinds, strict=True)] for row in step["rows"]]

    def ingest(self, step) -> None:
        names, kinds = zip(*step["columns"], strict=True)
        count = self.db.ingest(step["ingest"], batch(kinds, step["rows"], names), mode=step["mode"])
        assert count == step.get("count", count)

    def begin(self, _) -> None:
        self.db.run("BEGIN")

    def commit(self, _) -> None:
        self.db.run("COMMIT")

    def rollback(self, _) -> None:
        self.db.run("ROLLBACK")

    def connect(self, step) -> None:
        name = step["connect"]
        if name in self.connections:
            self.connections.pop(name).close()
        user, password = step.get("user", "root"), step.get("password", ROOT_PASSWORD)
        db = seracdb.connect(self.uri, user, password)
        self.connections[name] = db
        db.query("SELECT 1")
        self.db = db

    def use(self, step) -> None:
        self.db = self.connections[step["as"]]

    def tables(self, step) -> None:
        assert sorted(self.objects(step["tables"])) == sorted(step["names"])

    def schema(self, step) -> None:
        namespace, _, table = step["schema"].partition(".")
        schema = self.db.adbc_get_table_schema(table, db_schema_filter=namespace)
        assert [[field.name, type_name(field.type)] for field in schema] == step["columns"]
        assert self.objects(namespace)[table] == [name for name, _ in step["columns"]]

    def objects(self, namespace: str) -> dict[str, list[str]]:
        """The tables of a namespace with their columns."""
        catalogs = self.db.adbc_get_objects(depth="all", db_schema_filter=namespace).read_all().to_pylist()
        schemas = itertools.chain.from_iterable(catalog["catalog_db_schemas"] for catalog in catalogs)
        tables = itertools.chain.from_iterable(schema["db_schema_tables"] for schema in schemas)
        return {t["table_name"]: [c["column_name"] for c in t["table_columns"]] for t in tables}

    def close(self) -> None:
        for db in self.connections.values():
            db.close()


VERBS = {
    "execute": Run.execute,
    "query": Run.query,
    "ingest": Run.ingest,
    "begin": Run.begin,
    "commit": Run.commit,
    "rollback": Run.rollback,
    "connect": Run.connect,
    "as": Run.use,
    "tables": Run.tables,
    "schema": Run.schema,
}


def bound(step: dict[str, Any]) -> pa.RecordBatch | None:
    """The parameters of a step, with the types that it says."""
    if "types" not in step:
        return None
    rows = step["batch"] if "batch" in step else [step["parameters"]]
    return batch(step["types"], rows, [str(i) for i in range(len(step["types"]))])


def batch(kinds, rows, names) -> pa.RecordBatch:
    columns = [pa.array([value_of(row[i], kind) for row in rows], arrow_type(kind)) for i, kind in enumerate(kinds)]
    return pa.record_batch(columns, names=list(names))


def arrow_type(kind: str) -> pa.DataType:
    if kind.startswith("decimal("):
        precision, scale = kind[len("decimal(") : -1].split(",")
        return pa.decimal128(int(precision), int(scale))
    return TYPES[kind]


def type_name(found: pa.DataType) -> str:
    """The scenarios' name of a type; they do not tell units of time."""
    if pa.types.is_decimal(found):
        return f"decimal({found.precision},{found.scale})"
    if pa.types.is_timestamp(found):
        return "timestamptz" if found.tz else "timestamp"
    return next((kind for kind, known in TYPES.items() if known == found), str(found))


def value_of(value: Any, kind: str) -> Any:
    """A value of a scenario as Python has it."""
    if value is None:
        return None
    if kind.startswith("decimal("):
        return Decimal(value)
    if kind == "date":
        return dt.date.fromisoformat(value)
    if kind in ("timestamp", "timestamptz"):
        return dt.datetime.fromisoformat(value)
    if kind == "binary":
        return bytes.fromhex(value)
    return float(value) if kind == "double" else value


def shown(value: Any) -> str:
    """A value as text, in which NaN equals NaN and -0.0 is not 0.0."""
    if isinstance(value, dt.datetime):
        # pandas' class for nanoseconds, and any way to say UTC.
        value = getattr(value, "to_pydatetime", lambda: value)()
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    return repr(value)
