"""ALTER TABLE of columns: what rows and files of every age show of them, under load, after kills, for every user, in transactions, in
statements that were prepared before, and on a new machine."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pytest
import seracdb
from checking import checked, clean
from conftest import Connections, root, two_at_a_time
from object_stores import server_on
from test_manifests import told, until
from test_recovery import successor
from testserver import Server

SETTINGS = {"SERACDB_COMPACTION__AUTOMATIC": "false", "SERACDB_ENGINE__BULK_BYTES_MIN": "20000"}
PASSWORD = "long enough"
T = TypeVar("T")


def rows(db: seracdb.Connection, sql: str) -> list[tuple]:
    return [tuple(row.values()) for row in db.query(sql).to_pylist()]


def column(db: seracdb.Connection, sql: str) -> list:
    return db.query(sql).column(0).to_pylist()


def run_all(db: seracdb.Connection, *statements: str) -> None:
    for statement in statements:
        db.run(statement)


def refused(db: seracdb.Connection, sql: str, match: str) -> str:
    with pytest.raises(seracdb.Error, match=match) as error:
        db.run(sql)
    return str(error.value)


def user_columns(db: seracdb.Connection, table: str = "t") -> list[str]:
    names = column(db, f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' ORDER BY ordinal_position")
    return [name for name in names if name not in ("_id", "_updated", "_deleted")]


@pytest.fixture
def db(own_server):
    with root(own_server) as connection:
        yield connection


# Every type, in every state, against a table that had the columns from the beginning.


@dataclass(frozen=True)
class Kind:
    """A type and some of its values, as SQL, in ascending order. The second one is the DEFAULT."""

    type: str
    values: tuple[str, ...]
    wider: str | None = None
    #: The same values as the wider type has them, and one that it alone has.
    widened: tuple[str, ...] = ()
    #: Whether values can be compared, and indexed.
    ordered: bool = True
    more: tuple[str, ...] = ()


def number(kind: str, values: tuple[str, ...], wider: str | None = None, beyond: str = "") -> Kind:
    return Kind(kind, values, wider, (*values, beyond) if wider else ())


I32 = ("-2147483648", "0", "2147483647")
KINDS: dict[str, Kind] = {
    "boolean": Kind("BOOLEAN", ("false", "true")),
    "tinyint": number("TINYINT", ("-128", "0", "127"), "SMALLINT", "128"),
    "smallint": number("SMALLINT", ("-32768", "0", "32767"), "INT", "32768"),
    "int": number("INT", I32, "BIGINT", "2147483648"),
    "int_float": number("INT", I32, "DOUBLE", "0.5"),
    "int_decimal": number("INT", I32, "DECIMAL(12, 2)", "0.25"),
    "bigint": number("BIGINT", ("-9223372036854775807", "0", "9223372036854775807"), "DECIMAL(20, 1)", "0.5"),
    "real": number("REAL", ("-1.5", "0.0", "0.5"), "DOUBLE", "0.1"),
    "double": number("DOUBLE", ("-1.5", "0.0", "1e300", "CAST('NaN' AS DOUBLE)")),
    "decimal": number("DECIMAL(9, 2)", ("-1.25", "0", "9999999.99"), "DECIMAL(20, 5)", "0.00001"),
    "decimal256": number("DECIMAL(10, 2)", ("-1.25", "0", "99.99"), "DECIMAL(50, 10)", "0.0000000001"),
    "text": Kind("TEXT", ("''", "'ice'", "'it''s'", "'Gletscherspalte ❄ 氷'")),
    "bytes": Kind("BYTEA", ("X'00'", "X'01ff'", "X'ff'")),
    "date": Kind(
        "DATE",
        ("DATE '0001-01-01'", "DATE '1970-01-01'", "DATE '9999-12-31'"),
        "TIMESTAMP(3)",
        ("'0001-01-01 00:00:00'", "'1970-01-01 00:00:00'", "'9999-12-31 00:00:00'", "'2024-01-01 12:34:56.789'"),
    ),
    "timestamp": Kind("TIMESTAMP", ("'1969-12-31 23:59:59.999999'", "'1970-01-01 00:00:00'", "'2038-01-20 00:00:00'")),
    "zoned": Kind("TIMESTAMPTZ", ("'1969-12-31T23:59:59Z'", "'1970-01-01T00:00:00Z'", "'2038-01-20T00:00:00Z'")),
    "time": Kind("TIME", ("TIME '00:00:00'", "TIME '12:34:56'", "TIME '23:59:59'")),
    "list": Kind("INT[]", ("[1]", "[1, 2]", "[3]"), ordered=False, more=("array_has(v, 2)", "k = 0 AND array_has(v, 2)", "v[1] = 1")),
    "struct": Kind(
        "STRUCT<x INT, y TEXT>",
        ("named_struct('x', 1, 'y', 'a')", "named_struct('x', 2, 'y', 'b')"),
        ordered=False,
        more=("v.x = 1", "v.y = 'b'", "k = 0 AND v.x = 1", "k = 0 AND v.x = 2", "k IN (1, 3) AND v.y = 'b'", "v.x IS NULL"),
    ),
}


@dataclass(frozen=True)
class Made:
    """Statements that make a table with ALTER TABLE, and those that make the same without; values and type in the end."""

    altered: list[str]
    built: list[str]
    values: tuple[str, ...]


def create(columns: str) -> list[str]:
    # Who asks for a key has conditions evaluated while files are decoded.
    return [f"CREATE TABLE {{t}} (k BIGINT, note TEXT, {columns})", "CREATE INDEX {t}_k ON {t} (k)"]


def indexed(kind: Kind, name: str = "v") -> list[str]:
    return [f"CREATE INDEX {{t}}_v ON {{t}} ({name})"] if kind.ordered else []


def insert(first: int, pairs: list[tuple[str, str]], names: str = "v, w") -> str:
    values = ", ".join(f"({first + n}, 'row {first + n}', {v}, {w})" for n, (v, w) in enumerate(pairs))
    return f"INSERT INTO {{t}} (k, note, {names}) VALUES {values}"


def old(values: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(values[n % len(values)], "NULL" if n % 2 else values[-1]) for n in range(5)]


def new(values: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(value, values[-1 - n]) for n, value in enumerate(values)] + [("NULL", "NULL")]


def later(values: tuple[str, ...]) -> list[str]:
    """Changes of old and new rows."""
    return [
        insert(10, new(values)),
        f"UPDATE {{t}} SET v = {values[-1]} WHERE k = 1",
        "UPDATE {t} SET v = NULL WHERE k = 2",
        "UPDATE {t} SET note = 'changed' WHERE k = 3",
        "DELETE FROM {t} WHERE k = 4",
        "UPDATE {t} SET w = v WHERE k = 10",
    ]


def added(kind: Kind) -> Made:
    values = kind.values
    altered = [
        "CREATE TABLE {t} (k BIGINT, note TEXT)",
        "CREATE INDEX {t}_k ON {t} (k)",
        "INSERT INTO {t} VALUES " + ", ".join(f"({k}, 'row {k}')" for k in range(5)),
        f"ALTER TABLE {{t}} ADD COLUMN v {kind.type} DEFAULT {values[1]}",
        f"ALTER TABLE {{t}} ADD COLUMN w {kind.type}",
        *indexed(kind),
        f"ALTER TABLE {{t}} ALTER COLUMN v SET DEFAULT {values[-1]}",
        "INSERT INTO {t} (k, note) VALUES (30, 'row 30')",
        *later(values),
    ]
    return Made(altered, added_built(kind), values)


def added_built(kind: Kind) -> list[str]:
    values = kind.values
    start = [*create(f"v {kind.type}, w {kind.type}"), *indexed(kind)]
    return [*start, insert(0, [(values[1], "NULL")] * 5), insert(30, [(values[-1], "NULL")]), *later(values)]


def renamed(kind: Kind) -> Made:
    """Two columns that swap their names."""
    built = [*create(f"v {kind.type}, w {kind.type}"), *indexed(kind), insert(0, old(kind.values)), *later(kind.values)]
    altered = [
        *create(f"w {kind.type}, v {kind.type}"),
        *indexed(kind, "w"),
        insert(0, old(kind.values), "w, v"),
        "ALTER TABLE {t} RENAME COLUMN v TO between_them",
        "ALTER TABLE {t} RENAME COLUMN w TO v",
        "ALTER TABLE {t} RENAME COLUMN between_them TO w",
        *later(kind.values),
    ]
    return Made(altered, built, kind.values)


def widened(kind: Kind) -> Made | None:
    if kind.wider is None:
        return None
    of_old = old(kind.widened[: len(kind.values)])
    built = [*create(f"v {kind.wider}, w {kind.wider}"), *indexed(kind), insert(0, of_old), *later(kind.widened)]
    altered = [
        *create(f"v {kind.type}, w {kind.type}"),
        *indexed(kind),
        insert(0, old(kind.values)),
        f"ALTER TABLE {{t}} ALTER COLUMN v TYPE {kind.wider}, ALTER COLUMN w SET DATA TYPE {kind.wider}",
        *later(kind.widened),
    ]
    return Made(altered, built, kind.widened)


def added_again(kind: Kind) -> Made:
    """Names of columns that were dropped, of other types too."""
    altered = [
        *create(f"v {kind.type}, w TEXT"),
        *indexed(kind),
        insert(0, [(value, "'old'") for value, _ in old(kind.values)]),
        "ALTER TABLE {t} DROP COLUMN v, DROP COLUMN w",
        f"ALTER TABLE {{t}} ADD COLUMN w {kind.type}, ADD COLUMN v {kind.type} DEFAULT {kind.values[1]}",
        *indexed(kind),
        f"ALTER TABLE {{t}} ALTER COLUMN v SET DEFAULT {kind.values[-1]}",
        "INSERT INTO {t} (k, note) VALUES (30, 'row 30')",
        *later(kind.values),
    ]
    return Made(altered, added_built(kind), kind.values)


def conditions(kind: Kind, values: tuple[str, ...]) -> list[str]:
    first, second = values[:2]
    found = ["v IS NULL", "v IS NOT NULL", "w IS NULL", "v IS NULL AND w IS NOT NULL", "k = 0", "note = 'changed'", *kind.more]
    if kind.ordered:
        found += [f"v {op} {value}" for value in values for op in ("=", "<", ">=", "<>")]
        found += [f"w = {value}" for value in values]
        found += [f"v IN ({', '.join(values)})", f"v NOT IN ({first}, {second})", f"v BETWEEN {first} AND {second}"]
        found += [f"v = {first} OR k = 3", f"k = 0 AND v = {second}", f"k IN (0, 1, 10) AND v <> {second}", "v = w", "v < w"]
    return found


def answers(db: seracdb.Connection, table: str, kind: Kind, values: tuple[str, ...]) -> dict[str, object]:
    """The whole table, and the rows of each condition and order."""
    found = whole(db, table)
    each = [f"SELECT {n} AS p, array_agg(k ORDER BY k) AS ks FROM {table} WHERE {c}" for n, c in enumerate(conditions(kind, values))]
    wanted = dict(enumerate(conditions(kind, values)))
    if kind.ordered:
        for order in ("v, k", "v DESC, k"):
            least = f"SELECT k FROM {table} WHERE v IS NOT NULL ORDER BY {order} LIMIT 3"
            for what, sql in ((order, f"{table}"), (f"{order} LIMIT 3", f"({least}) AS s")):
                of = order if what == order else "k"
                each.append(f"SELECT {len(wanted)} AS p, array_agg(k ORDER BY {of}) AS ks FROM {sql}")
                wanted[len(wanted)] = what
    return found | {wanted[row["p"]]: row["ks"] for row in db.query(" UNION ALL ".join(each)).to_pylist()}


def whole(db: seracdb.Connection, table: str) -> dict[str, object]:
    found = db.query(f"SELECT k, note, v, w FROM {table} ORDER BY k")
    return {"rows": [repr(row) for row in found.to_pylist()], "types": [str(found.schema.field(name).type) for name in ("v", "w")]}


OPERATIONS: dict[str, Callable[[Kind], Made | None]] = {
    "added": added,
    "renamed": renamed,
    "widened": widened,
    "added again": added_again,
}


@pytest.mark.parametrize(
    ("operation", "pushdown"), [*((operation, "keys") for operation in OPERATIONS), ("renamed", "always"), ("widened", "always")]
)
def test_every_type_in_every_state(tmp_path, operation, pushdown):
    """Of each three tables: built with the columns, altered with all rows hot, and altered with a flush after every step."""
    made = {name: (kind, OPERATIONS[operation](kind)) for name, kind in KINDS.items()}
    made = {name: (kind, steps) for name, (kind, steps) in made.items() if steps}
    server = Server(tmp_path / "data", variables=SETTINGS | {"SERACDB_PRUNING__PUSHDOWN": pushdown})
    expected = {}

    def build(name: str) -> None:
        kind, steps = made[name]
        with root(server) as db:
            run_all(db, *(step.replace("{t}", f"built_{name}") for step in steps.built))
            expected[name] = answers(db, f"built_{name}", kind, steps.values)
            run_all(db, *(step.replace("{t}", f"hot_{name}") for step in steps.altered))
            for step in steps.altered:
                db.run(step.replace("{t}", f"cold_{name}"))
                db.run(f"STORAGE FLUSH TABLE cold_{name}")

    def check(state: str, only_rows: bool = False) -> None:
        def one(name: str) -> None:
            kind, steps = made[name]
            with root(server) as db:
                for table in (f"hot_{name}", f"cold_{name}"):
                    found = whole(db, table) if only_rows else answers(db, table, kind, steps.values)
                    wrong = {what: (shown, expected[name][what]) for what, shown in found.items() if shown != expected[name][what]}
                    assert not wrong, f"{table}, {state}: {wrong}"

        two_at_a_time(one, made)

    def change(name: str) -> None:
        kind, steps = made[name]
        with root(server) as db:
            for sql in ("UPDATE {t} SET note = 'last' WHERE v IS NOT NULL", "DELETE FROM {t} WHERE w IS NULL AND k < 10"):
                assert len({db.run(sql.replace("{t}", f"{of}_{name}")) for of in ("built", "hot", "cold")}) == 1, (name, sql)
            expected[name] = answers(db, f"built_{name}", kind, steps.values)

    with server:
        two_at_a_time(build, made)
        for name, (kind, steps) in made.items():
            if kind.ordered and "added" in operation:
                assert {0, 3} <= set(expected[name][f"v = {steps.values[1]}"]), "rows that were there have the DEFAULT"
        check("as made")
        with root(server) as db:
            db.run("STORAGE FLUSH ALL")
        check("flushed", only_rows=True)
        server.kill()
        server.start()
        check("killed")
        with root(server) as db:
            for name in made:
                run_all(db, f"STORAGE COMPACT TABLE hot_{name}", f"STORAGE COMPACT TABLE cold_{name}")
        check("merged")
        server.restart()
        check("started again", only_rows=True)
        two_at_a_time(change, made)
        check("changed")
    checked(server)


# Under load.

ROUNDS = 30
WRITERS = 4
ALTERER = 9
#: What the table is called in turn.
NAMES = ("t", "renamed")


@dataclass
class Acknowledged:
    """What a writer knows of its rows: by key what is in `v`, and in columns by their number."""

    rows: dict[int, dict[str | int, int]] = field(default_factory=dict)
    #: By key what may be in `given`: the DEFAULTs that there were while the row was written.
    given: dict[int, list[int | None]] = field(default_factory=dict)
    keys: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    gone: int = 0

    def add(self, k: int, v: int, given: list[int | None]) -> None:
        self.rows[k] = {"v": v}
        self.given[k] = given
        self.keys.append(k)


class Load:
    """Writers, and one who alters and renames the table under them. A column is `c7` when it comes, and `d7` later."""

    def __init__(self, server: Server):
        self.server = server
        self.done = threading.Event()
        self.newest = -1
        self.renamed = 0
        #: How often the table was called otherwise when a statement came.
        self.missed = 0
        #: What the DEFAULT of `given` has been, and which of these is in force; a later one may be already.
        self.defaults: list[int | None] = [None]
        self.in_force = 0
        self.writers = [Acknowledged() for _ in range(WRITERS)]
        #: Keys whose rows were there when `filled` was filled.
        self.before_fill: set[int] = set()

    def named(self, sql: str, run: Callable[[str], T]) -> T:
        """Runs a statement that has {t} for the table's name; by the other one when it is not called so any more."""
        for turn in range(self.renamed, self.renamed + 100):
            try:
                return run(sql.replace("{t}", NAMES[turn % 2]))
            except seracdb.NotFound as error:
                if "unknown table" not in str(error):
                    raise
                self.missed += 1
        raise AssertionError(f"the table has neither name: {sql}")

    def run(self, db: seracdb.Connection, sql: str, params: list | None = None) -> int:
        return self.named(sql, lambda named: db.run(named, params))

    def write(self, who: int) -> None:
        chance, mine = random.Random(who), self.writers[who]
        with root(self.server) as db:
            for n in range(1_000_000):
                if self.done.is_set():
                    return
                k, v, first = who * 1_000_000 + n, chance.randrange(1000), self.in_force
                assert self.run(db, f"INSERT INTO {{t}} (k, who, v) VALUES ({k}, {who}, {v})") == 1
                mine.add(k, v, self.defaults[first:])
                k, v = chance.choice(mine.keys), chance.randrange(1000)
                if n % 3 == 0:
                    assert self.run(db, f"UPDATE {{t}} SET v = {v} WHERE k = {k}") == 1
                    mine.rows[k]["v"] = v
                if n % 2 == 0 and self.newest >= 0:
                    self.write_column(db, chance, mine, k, v)
                if n % 7 == 0:
                    # As a prepared statement with parameters.
                    assert self.run(db, "UPDATE {t} SET v = ? WHERE k = ?", [v, k]) == 1
                    mine.rows[k]["v"] = v

    def write_column(self, db: seracdb.Connection, chance: random.Random, mine: Acknowledged, k: int, v: int) -> None:
        number = max(0, self.newest - chance.randrange(4))
        name = f"{chance.choice('cd')}{number}"
        try:
            assert self.run(db, f"UPDATE {{t}} SET {name} = {v} WHERE k = {k}") == 1
            mine.rows[k][number] = v
        except seracdb.Error as error:
            assert "column" in str(error) and name in str(error), error
            mine.gone += 1

    def write_transactions(self, who: int) -> None:
        chance, mine = random.Random(who), self.writers[who]
        with root(self.server) as db:
            for n in range(0, 1_000_000, 2):
                if self.done.is_set():
                    return
                one, two, v, first = who * 1_000_000 + n, who * 1_000_000 + n + 1, chance.randrange(1000), self.in_force
                try:
                    with db.transaction():
                        self.run(db, f"INSERT INTO {{t}} (k, who, v) VALUES ({one}, {who}, {v})")
                        self.run(db, f"INSERT INTO {{t}} (k, who, v) VALUES ({two}, {who}, 0)")
                        assert self.run(db, f"UPDATE {{t}} SET v = v + 1 WHERE k IN ({one}, {two})") == 2
                except seracdb.Conflict:
                    mine.refused |= {one, two}
                    continue
                mine.add(one, v + 1, self.defaults[first:])
                mine.add(two, 1, self.defaults[first:])

    def read(self) -> None:
        """Rows become more, and none is there twice."""
        last = 0
        with root(self.server) as db:
            while not self.done.is_set():
                sql = "SELECT count(*), count(DISTINCT k) FROM {t} WHERE who < 9 AND v >= 0"
                [(count, keys)] = self.named(sql, lambda named: rows(db, named))
                assert count == keys and count >= last
                last = count

    def alter(self) -> None:
        try:
            with root(self.server) as db:
                self.run(db, f"INSERT INTO {{t}} (k, who, v) SELECT value, {ALTERER}, 1 FROM generate_series(-50, -1)")
                for n in range(ROUNDS):
                    self.round(db, n)
        finally:
            self.done.set()

    def round(self, db: seracdb.Connection, n: int) -> None:
        self.run(db, f"ALTER TABLE {{t}} ADD COLUMN c{n} INT DEFAULT {n}")
        self.newest = n
        assert self.run(db, f"UPDATE {{t}} SET c{n} = c{n} + 1000 WHERE who = {ALTERER} AND k % 2 = 0") == 25
        self.rename(db)
        self.set_default(db, None if n % 3 == 1 else n)
        if n % 2 == 0:
            self.run(db, "STORAGE FLUSH TABLE {t}")
        self.run(db, f"ALTER TABLE {{t}} RENAME COLUMN c{n} TO d{n}")
        self.run(db, f"ALTER TABLE {{t}} ALTER COLUMN d{n} TYPE BIGINT")
        assert self.run(db, f"UPDATE {{t}} SET d{n} = d{n} + 5000000000 WHERE who = {ALTERER} AND k % 2 <> 0") == 25
        self.run(db, "ALTER TABLE {t} RESET (flush_rows)" if n % 2 == 0 else f"ALTER TABLE {{t}} SET (flush_rows = {100 + n})")
        self.rename(db)
        if n >= 3:
            self.run(db, f"ALTER TABLE {{t}} DROP COLUMN d{n - 3}")
        if n % 5 == 0:
            self.run(db, f"ALTER TABLE {{t}} DROP COLUMN IF EXISTS again, ADD COLUMN again INT DEFAULT {n}")
        if n == 7:
            self.run(db, "ALTER TABLE {t} ALTER COLUMN v TYPE BIGINT")
        if n == ROUNDS // 2:
            self.fill(db)
        if n == 20:
            self.run(db, "ALTER TABLE {t} ALTER COLUMN v TYPE DECIMAL(20, 1)")
        self.run(db, "STORAGE FLUSH TABLE {t}")
        if n % 3 == 2:
            self.run(db, "STORAGE COMPACT TABLE {t}")

    def rename(self, db: seracdb.Connection) -> None:
        self.run(db, f"ALTER TABLE {{t}} RENAME TO {NAMES[(self.renamed + 1) % 2]}")
        self.renamed += 1

    def set_default(self, db: seracdb.Connection, value: int | None) -> None:
        self.defaults.append(value)
        self.run(db, f"ALTER TABLE {{t}} ALTER COLUMN given {'DROP DEFAULT' if value is None else f'SET DEFAULT {value}'}")
        self.in_force += 1

    def fill(self, db: seracdb.Connection) -> None:
        self.before_fill = {k for writer in self.writers for k in list(writer.rows)}
        self.run(db, "ALTER TABLE {t} ADD COLUMN filled BIGINT DEFAULT 0")
        assert self.run(db, "UPDATE {t} SET filled = k") >= len(self.before_fill)

    def check(self) -> None:
        with root(self.server) as db:
            columns = user_columns(db)
            assert columns[:4] == ["k", "who", "v", "given"]
            kept = [n for n in range(ROUNDS - 3, ROUNDS)]
            assert sorted(columns[4:]) == sorted(["again", "filled", *(f"d{n}" for n in kept)])
            found = {row["k"]: row for row in db.query(f"SELECT {', '.join(columns)} FROM t").to_pylist()}
            assert db.query("SELECT count(*) AS n FROM t")["n"].to_pylist() == [len(found)], "a row is there twice"
            (shown,) = column(db, "SHOW CREATE TABLE t")
        assert shown.endswith(f"WITH (flush_rows = '{100 + ROUNDS - 1}')")
        mine = {k for k in found if k >= 0}
        acknowledged = {k for writer in self.writers for k in writer.rows}
        assert acknowledged == mine, "rows that were acknowledged, and no others"
        assert not mine & {k for writer in self.writers for k in writer.refused}
        for writer in self.writers:
            for k, wrote in writer.rows.items():
                row = found[k]
                assert row["v"] == wrote["v"], (row, wrote)
                assert row["given"] in writer.given[k], (row, writer.given[k])
                assert {n: row[f"d{n}"] for n in kept} == {n: wrote.get(n, n) for n in kept}, (row, wrote)
        for k in range(-50, 0):
            more = 1000 if k % 2 == 0 else 5_000_000_000
            assert {n: found[k][f"d{n}"] for n in kept} == {n: n + more for n in kept}, found[k]
            assert found[k]["given"] is None
        assert len({row["given"] for row in found.values()}) > ROUNDS // 2, "rows have the DEFAULTs of their time"
        for k, row in found.items():
            assert row["again"] == (ROUNDS - 1) // 5 * 5, row
            assert row["filled"] == k or row["filled"] == 0 and k not in self.before_fill, row


def test_columns_change_under_load(tmp_path):
    variables = {"SERACDB_COMPACTION__AUTOMATIC": "true", "SERACDB_FLUSH__HOT_BYTES_MAX": "100000"}
    with Server(tmp_path / "data", variables=variables) as server:
        with root(server) as db:
            db.run("CREATE TABLE t (k BIGINT PRIMARY KEY, who INT, v INT, given INT)")
        load = Load(server)
        with ThreadPoolExecutor(WRITERS + 2) as pool:
            running = [pool.submit(load.write, who) for who in range(WRITERS - 1)]
            running += [pool.submit(load.write_transactions, WRITERS - 1), pool.submit(load.read), pool.submit(load.alter)]
            for one in running:
                one.result()
        assert all(len(writer.rows) > ROUNDS for writer in load.writers)
        assert sum(writer.gone for writer in load.writers) > 0, "no writer met a column that was gone"
        assert load.missed > 0, "nobody met a name that was gone"
        load.check()
        server.kill()
        server.start()
        load.check()
        with root(server) as db:
            run_all(db, "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
        load.check()
    clean(server.data_dir, variables=variables)


# Names that are used again, deleted rows, and what is durable.


def test_a_name_that_is_used_again_never_shows_what_was_there_before(tmp_path):
    """Rows of inserts, updates and large loads, of six columns of one name after each other."""
    with Server(tmp_path / "data", variables=SETTINGS) as server:
        with root(server) as db:
            db.run("CREATE TABLE t (k BIGINT, x TEXT)")
            db.run("CREATE INDEX by_x ON t (x)")
            db.run("INSERT INTO t VALUES (1, 'first'), (2, 'first')")
        expected: dict[int, object] = {1: "first", 2: "first"}
        generations = [
            ("INT DEFAULT 1", 1, pa.int32(), 10),
            ("TEXT", None, pa.string(), "second"),
            ("BIGINT DEFAULT 2", 2, pa.int64(), 20),
            ("TEXT DEFAULT 'd'", "d", pa.string(), "third"),
            ("DOUBLE", None, pa.float64(), 0.5),
        ]

        def check() -> None:
            with root(server) as db:
                found = {row["k"]: row["x"] for row in db.query("SELECT k, x FROM t").to_pylist()}
                assert found == expected
                for value in set(expected.values()) - {None}:
                    shown = f"'{value}'" if isinstance(value, str) else str(value)
                    wanted = sorted(k for k, x in expected.items() if x == value)
                    assert column(db, f"SELECT k FROM t WHERE x = {shown} ORDER BY k") == wanted
                wanted = sorted(k for k, x in expected.items() if x is None)
                assert column(db, "SELECT k FROM t WHERE x IS NULL ORDER BY k") == wanted

        for turn, (declared, default, of_type, value) in enumerate(generations):
            check()
            with root(server) as db:
                db.run(["STORAGE FLUSH TABLE t", "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t"][turn % 3])
                db.run("ALTER TABLE t DROP COLUMN x")
                assert column(db, "SELECT index FROM system.indexes WHERE \"table\" = 't'") == []
                if turn == 1:
                    # A while without it.
                    db.run("INSERT INTO t VALUES (500)")
                    db.run("STORAGE FLUSH TABLE t")
                    expected[500] = None
                db.run(f"ALTER TABLE t ADD COLUMN x {declared}")
                db.run("CREATE INDEX by_x ON t (x)")
                expected = dict.fromkeys(expected, default)
            check()
            if turn % 2:
                server.kill()
                server.start()
            else:
                server.restart()
            check()
            with root(server) as db:
                shown = f"'{value}'" if isinstance(value, str) else str(value)
                k = 10_000 * (turn + 1)
                db.run(f"INSERT INTO t (k, x) VALUES ({k}, {shown})")
                assert db.run(f"UPDATE t SET x = {shown} WHERE k IN (1, {k - 10_000})") == (1 if turn == 0 else 2)
                expected |= {1: value, k: value}
                if turn:
                    expected[k - 10_000] = value
                loaded = range(k + 1, k + 3001)
                values = pa.array([value] * len(loaded), of_type)
                assert db.ingest("t", pa.table({"k": pa.array(loaded, pa.int64()), "x": values})) == len(loaded)
                expected |= dict.fromkeys(loaded, value)
        check()
        with root(server) as db:
            run_all(db, "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
        check()
    checked(server)


@pytest.mark.parametrize("flushed", [0, 1, 2, 3])
def test_rows_that_were_deleted_before_a_column_came(own_server, db, flushed):
    """What is left of a deleted row has no value in any column, also where none may be NULL."""
    db.run("CREATE TABLE t (k INT NOT NULL, v TEXT NOT NULL)")
    steps = [
        "INSERT INTO t SELECT value, 'v' FROM generate_series(1, 10)",
        "DELETE FROM t WHERE k <= 3",
        "ALTER TABLE t ADD COLUMN n INT NOT NULL DEFAULT 5, ADD COLUMN s STRUCT<x INT>",
        "DELETE FROM t WHERE k = 4",
    ]
    for place, step in enumerate(steps):
        db.run(step)
        if place == flushed or place == 0:
            db.run("STORAGE FLUSH TABLE t")
    for settle in ("STORAGE FLUSH TABLE t", "STORAGE CHECK TABLE t", "STORAGE COMPACT TABLE t", "STORAGE CHECK TABLE t"):
        db.run(settle)
        assert rows(db, "SELECT count(*), sum(n), min(k), count(s) FROM t WHERE n = 5") == [(6, 30, 5, 0)]
    db.run("ALTER TABLE t ALTER COLUMN n TYPE BIGINT")
    db.run("DELETE FROM t WHERE k = 5")
    db.run("STORAGE FLUSH TABLE t")
    checked(own_server)
    own_server.start()
    with root(own_server) as again:
        assert rows(again, "SELECT count(*), sum(n) FROM t") == [(5, 25)]
        again.run("STORAGE COMPACT TABLE t")
    checked(own_server)


def test_what_was_altered_is_so_after_a_kill(own_server):
    """Each change right before one."""
    steps = [
        ("INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y')", ["k", "a", "b"], [(1, 10, "x"), (2, 20, "y")]),
        ("ALTER TABLE t ADD COLUMN c INT NOT NULL DEFAULT 3", ["k", "a", "b", "c"], [(1, 10, "x", 3), (2, 20, "y", 3)]),
        ("ALTER TABLE t RENAME COLUMN a TO z", ["k", "z", "b", "c"], [(1, 10, "x", 3), (2, 20, "y", 3)]),
        ("ALTER TABLE t DROP COLUMN b", ["k", "z", "c"], [(1, 10, 3), (2, 20, 3)]),
        ("UPDATE t SET c = 4 WHERE k = 1", ["k", "z", "c"], [(1, 10, 4), (2, 20, 3)]),
        ("ALTER TABLE t ALTER COLUMN z TYPE BIGINT", ["k", "z", "c"], [(1, 10, 4), (2, 20, 3)]),
        ("ALTER TABLE t ALTER COLUMN c DROP NOT NULL", ["k", "z", "c"], [(1, 10, 4), (2, 20, 3)]),
        ("INSERT INTO t VALUES (3, 5000000000, NULL)", ["k", "z", "c"], [(1, 10, 4), (2, 20, 3), (3, 5_000_000_000, None)]),
        ("ALTER TABLE t ADD b TEXT", ["k", "z", "c", "b"], [(1, 10, 4, None), (2, 20, 3, None), (3, 5_000_000_000, None, None)]),
    ]
    with root(own_server) as db:
        db.run("CREATE TABLE t (k INT PRIMARY KEY, a INT, b TEXT)")
    for step, columns, wanted in steps:
        with root(own_server) as db:
            db.run(step)
            own_server.kill()
        own_server.start()
        with root(own_server) as db:
            assert user_columns(db) == columns, step
            assert rows(db, f"SELECT {', '.join(columns)} FROM t ORDER BY k") == wanted, step
    with root(own_server) as db:
        db.run("ALTER TABLE t RENAME TO u")
        db.run("CREATE TABLE t (other TEXT)")
        db.run("INSERT INTO t VALUES ('other')")
        own_server.kill()
    own_server.start()
    with root(own_server) as db:
        assert column(db, "SELECT other FROM t") == ["other"]
        assert column(db, "SELECT k FROM u ORDER BY k") == [1, 2, 3]
        with pytest.raises(seracdb.AlreadyExists):
            db.run("INSERT INTO u (k) VALUES (1)")
    checked(own_server)


# In files a column of the table is another's name, or a part of a value is asked for.


@pytest.mark.parametrize("pushdown", ["keys", "always", "never"])
def test_old_files_under_other_names(tmp_path, pushdown):
    with Server(tmp_path / "data", variables=SETTINGS | {"SERACDB_PRUNING__PUSHDOWN": pushdown}) as server, root(server) as db:
        db.run("CREATE TABLE t (k INT PRIMARY KEY, a BYTEA, b TEXT, s STRUCT<x INT, y TEXT> NOT NULL, l INT[])")
        db.run("INSERT INTO t VALUES (1, X'ff00', 'x', named_struct('x', 1, 'y', 'a'), [1]), (2, X'00', 'y', named_struct('x', 2, 'y', 'b'), [2])")
        db.run("STORAGE FLUSH TABLE t")
        db.run("ALTER TABLE t ALTER COLUMN s DROP NOT NULL")

        def parts(s: str, li: str) -> None:
            for condition, wanted in {
                f"k = 1 AND {s}.x = 1": [1],
                f"k = 1 AND {s}.x = 2": [],
                f"k = 1 AND {s}.y = 'b'": [],
                f"k IN (1, 2) AND {s}.x > 1": [2],
                f"k = 2 AND array_has({li}, 1)": [],
                f"k = 2 AND array_has({li}, 2)": [2],
                f"k = 1 AND {li} IS NULL": [],
                f"k = 1 AND {s} IS NULL": [],
                f"{s}.x = 1": [1],
            }.items():
                assert column(db, f"SELECT k FROM t WHERE {condition} ORDER BY k") == wanted, condition

        parts("s", "l")
        # Text under the name of bytes would be read as such in old files.
        run_all(db, "ALTER TABLE t RENAME a TO bytes")
        with pytest.raises(seracdb.Error, match="has bytes and was called 'a'"):
            db.run("ALTER TABLE t RENAME b TO a")
        run_all(db, "ALTER TABLE t RENAME s TO l2", "ALTER TABLE t RENAME l TO s", "ALTER TABLE t RENAME l2 TO l")
        parts("l", "s")
        assert rows(db, "SELECT k, b, bytes FROM t ORDER BY k") == [(1, "x", b"\xff\x00"), (2, "y", b"\x00")]
        assert column(db, "SELECT k FROM t WHERE bytes = X'ff00'") == [1]
        assert db.run("UPDATE t SET l = NULL WHERE k = 1 AND l.x = 2") == 0
        assert db.run("DELETE FROM t WHERE k = 2 AND l.y = 'a'") == 0
        run_all(db, "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
        parts("l", "s")
    clean(server.data_dir)


# Users and streams.


def test_every_users_rows_get_the_columns(own_server, db):
    for user in ("ann", "bob"):
        db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE user")
    db.run("CREATE USER TABLE notes (k INT, text TEXT)")
    with Connections(own_server) as connections:
        ann, bob = (connections.open(user, PASSWORD) for user in ("ann", "bob"))
        ann.run("INSERT INTO notes VALUES (1, 'of ann')")
        bob.run("INSERT INTO notes VALUES (1, 'of bob'), (2, 'of bob')")
        db.run("STORAGE FLUSH TABLE notes")
        bob.run("INSERT INTO notes VALUES (3, 'of bob')")
        with pytest.raises(seracdb.PermissionDenied):
            ann.run("ALTER TABLE notes ADD COLUMN mine INT")
        db.run("ALTER TABLE notes ADD COLUMN stars INT DEFAULT 5")
        ann.run("UPDATE notes SET stars = 1")
        bob.run("INSERT INTO notes VALUES (4, 'of bob', 2)")
        assert rows(ann, "SELECT k, text, stars FROM notes") == [(1, "of ann", 1)]
        assert rows(bob, "SELECT k, stars FROM notes ORDER BY k") == [(1, 5), (2, 5), (3, 5), (4, 2)]
        db.run("ALTER TABLE notes RENAME COLUMN text TO body")
        db.run("ALTER TABLE notes ALTER COLUMN stars TYPE BIGINT")
        db.run("STORAGE FLUSH TABLE notes")
        assert column(bob, "SELECT k FROM notes WHERE stars = 5 AND body = 'of bob' ORDER BY k") == [1, 2, 3]
        db.run("ALTER TABLE notes DROP COLUMN body")
        db.run("ALTER TABLE notes ADD COLUMN body TEXT")
        assert db.run("INSERT INTO notes AS USER 'ann' VALUES (2, 5000000000, 'by root')") == 1
        assert rows(ann, "SELECT k, stars, body FROM notes ORDER BY k") == [(1, 1, None), (2, 5_000_000_000, "by root")]
        assert rows(bob, "SELECT count(*), count(body) FROM notes") == [(4, 0)]
        assert db.query("SELECT * FROM notes").num_rows == 0
        # One who comes now.
        db.run(f"CREATE USER cat WITH PASSWORD '{PASSWORD}' ROLE user")
        cat = connections.open("cat", PASSWORD)
        cat.run("INSERT INTO notes (k) VALUES (7)")
        assert rows(cat, "SELECT k, stars, body FROM notes") == [(7, 5, None)]
        db.run("ALTER TABLE notes RENAME TO papers")
        assert rows(cat, "SELECT k, stars FROM papers") == [(7, 5)]
        with pytest.raises(seracdb.NotFound):
            ann.query("SELECT * FROM notes")
    own_server.kill()
    own_server.start()
    with root(own_server) as again, seracdb.connect(own_server.uri, "bob", PASSWORD) as bob:
        assert rows(bob, "SELECT k, stars, body FROM papers ORDER BY k") == [(1, 5, None), (2, 5, None), (3, 5, None), (4, 2, None)]
        run_all(again, "STORAGE FLUSH TABLE papers", "STORAGE COMPACT TABLE papers")
        assert rows(bob, "SELECT count(*), sum(stars) FROM papers WHERE body IS NULL") == [(4, 17)]
    checked(own_server)


def test_streams_get_the_columns(own_server, db):
    db.run("CREATE STREAM TABLE events (k INT, what TEXT) WITH (ttl = '1h')")
    db.run("INSERT INTO events VALUES (1, 'a'), (2, 'b')")
    db.run("ALTER TABLE events ADD COLUMN n INT DEFAULT 3, ADD COLUMN at TIMESTAMP DEFAULT now()")
    db.run("ALTER TABLE events RENAME what TO kind")
    db.run("INSERT INTO events (k, kind, n) VALUES (3, 'c', 9)")
    db.run("ALTER TABLE events ALTER n TYPE DOUBLE")
    db.run("ALTER TABLE events SET (ttl = '2h')")
    wanted = [(1, "a", 3.0), (2, "b", 3.0), (3, "c", 9.0)]
    assert rows(db, "SELECT k, kind, n FROM events ORDER BY k") == wanted
    assert rows(db, "SELECT count(DISTINCT at) FROM events WHERE k < 3") == [(1,)]
    own_server.kill()
    own_server.start()
    with root(own_server) as again:
        assert rows(again, "SELECT k, kind, n FROM events ORDER BY k") == wanted
        again.run("ALTER TABLE events DROP COLUMN kind")
        again.query("RUN JOB stream_expiry")
        assert rows(again, "SELECT k, n FROM events WHERE n = 3 ORDER BY k") == [(1, 3.0), (2, 3.0)]
    checked(own_server)


# Transactions.


@pytest.fixture(params=["hot", "cold"])
def table(request, db) -> str:
    db.run("CREATE TABLE t (k INT, n INT)")
    db.run("INSERT INTO t VALUES (1, 10), (2, 20)")
    if request.param == "cold":
        db.run("STORAGE FLUSH TABLE t")
    return "t"


def test_a_transaction_sees_its_own_columns_and_others_see_them_at_its_end(own_server, db, table):
    with root(own_server) as other:
        for end in ("ROLLBACK", "COMMIT"):
            db.run("BEGIN")
            db.run("INSERT INTO t VALUES (3, 30)")
            db.run("UPDATE t SET n = 11 WHERE k = 1")
            db.run("ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'c'")
            db.run("INSERT INTO t VALUES (4, 40, 'four')")
            assert db.run("UPDATE t SET c = c || '!' WHERE n > 25") == 2
            db.run("ALTER TABLE t RENAME COLUMN n TO m")
            db.run("ALTER TABLE t ALTER COLUMN m TYPE BIGINT")
            db.run("INSERT INTO t (k, m) VALUES (5, 5000000000)")
            db.run("DELETE FROM t WHERE k = 2")
            wanted = [(1, 11, "c"), (3, 30, "c!"), (4, 40, "four!"), (5, 5_000_000_000, "c")]
            assert rows(db, "SELECT k, m, c FROM t ORDER BY k") == wanted
            assert column(db, "SELECT k FROM t WHERE c = 'c' AND m > 10 ORDER BY k") == [1, 5]
            assert user_columns(db) == ["k", "m", "c"]
            assert rows(other, "SELECT k, n FROM t ORDER BY k") == [(1, 10), (2, 20)]
            assert user_columns(other) == ["k", "n"]
            db.run(end)
            if end == "ROLLBACK":
                assert rows(db, "SELECT k, n FROM t ORDER BY k") == [(1, 10), (2, 20)]
                assert user_columns(db) == ["k", "n"]
                refused(db, "UPDATE t SET c = 'x'", "column")
        for connection in (db, other):
            assert rows(connection, "SELECT k, m, c FROM t ORDER BY k") == wanted
        db.run("STORAGE FLUSH TABLE t")
        assert rows(other, "SELECT k, m, c FROM t ORDER BY k") == wanted
    checked(own_server)
    own_server.start()
    with root(own_server) as again:
        assert rows(again, "SELECT k, m, c FROM t ORDER BY k") == wanted


def test_a_savepoint_undoes_an_alter(db, table):
    db.run("BEGIN")
    db.run("ALTER TABLE t ADD COLUMN a INT DEFAULT 1")
    db.run("INSERT INTO t VALUES (3, 30, 3)")
    db.run("SAVEPOINT s")
    db.run("ALTER TABLE t DROP COLUMN a, ADD COLUMN b TEXT DEFAULT 'b'")
    db.run("INSERT INTO t VALUES (4, 40, 'x')")
    assert rows(db, "SELECT k, b FROM t ORDER BY k") == [(1, "b"), (2, "b"), (3, "b"), (4, "x")]
    db.run("ROLLBACK TO s")
    assert rows(db, "SELECT k, a FROM t ORDER BY k") == [(1, 1), (2, 1), (3, 3)]
    # A column of the same place and version as the one that was undone.
    db.run("ALTER TABLE t ADD COLUMN d INT DEFAULT 7")
    db.run("INSERT INTO t (k) VALUES (5)")
    wanted = [(1, 1, 7), (2, 1, 7), (3, 3, 7), (5, 1, 7)]
    assert rows(db, "SELECT k, a, d FROM t ORDER BY k") == wanted
    db.run("COMMIT")
    for settle in ("STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t"):
        assert rows(db, "SELECT k, a, d FROM t ORDER BY k") == wanted
        db.run(settle)
    assert rows(db, "SELECT k, a, d FROM t ORDER BY k") == wanted


@pytest.mark.parametrize(
    ("undone", "done", "wanted"),
    [
        ("ADD COLUMN c INT DEFAULT 1", "ADD COLUMN c INT DEFAULT 2", 2),
        ("ADD COLUMN c INT DEFAULT 1", "ADD COLUMN c TEXT DEFAULT 'two'", "two"),
        ("ADD COLUMN x TEXT DEFAULT 'x'", "ADD COLUMN c INT", None),
        ("ALTER COLUMN c SET DEFAULT 1", "ALTER COLUMN c SET DEFAULT 2", 2),
        ("ALTER COLUMN c SET DEFAULT 1", "ALTER COLUMN c DROP DEFAULT", None),
    ],
)
def test_nothing_is_left_of_an_alter_that_was_rolled_back(db, undone, done, wanted):
    """Neither its DEFAULT, nor what was planned or found out with it."""
    db.run("CREATE TABLE t (k INT, n INT)" if "ADD" in undone else "CREATE TABLE t (k INT, n INT, c INT DEFAULT 9)")
    db.run("INSERT INTO t (k) VALUES (1)")
    db.run("STORAGE FLUSH TABLE t")
    db.run("BEGIN")
    db.run(f"ALTER TABLE t {undone}")
    db.run("INSERT INTO t (k) VALUES (2)")
    db.query("SELECT * FROM t WHERE k = 2")
    db.run("ROLLBACK")
    db.run(f"ALTER TABLE t {done}")
    db.run("INSERT INTO t (k) VALUES (3)")
    assert rows(db, "SELECT k, c FROM t WHERE k > 1") == [(3, wanted)]
    cursor = db.cursor()
    cursor.executemany("INSERT INTO t (k) VALUES (?)", pa.record_batch({"k": pa.array([4, 5], pa.int32())}))
    cursor.close()
    assert db.ingest("t", pa.table({"k": pa.array([6], pa.int32())})) == 1
    assert rows(db, "SELECT k, c FROM t WHERE k > 1 ORDER BY k") == [(k, wanted) for k in (3, 4, 5, 6)]


def test_of_two_who_alter_one_table_the_first_to_commit_wins(own_server, db, table):
    with root(own_server) as other:
        for connection, name in ((db, "a"), (other, "b")):
            connection.run("BEGIN")
            connection.run(f"ALTER TABLE t ADD COLUMN {name} INT DEFAULT 1")
            connection.run("INSERT INTO t VALUES (3, 30, 3)")
        db.run("COMMIT")
        with pytest.raises(seracdb.Conflict, match="rolled back"):
            other.run("COMMIT")
        assert user_columns(other) == ["k", "n", "a"]
        assert rows(other, "SELECT k, n, a FROM t ORDER BY k") == [(1, 10, 1), (2, 20, 1), (3, 30, 3)]
        # Again it works.
        with other.transaction():
            other.run("ALTER TABLE t ADD COLUMN b INT DEFAULT 1")
            other.run("UPDATE t SET b = 2 WHERE k = 3")
        assert rows(db, "SELECT k, a, b FROM t ORDER BY k") == [(1, 1, 1), (2, 1, 1), (3, 3, 2)]


def test_many_alter_at_once(own_server, db):
    """Outside of transactions: each column comes, whoever has to run again."""
    db.run("CREATE TABLE t (k INT)")
    db.run("INSERT INTO t VALUES (1)")

    def alter(who: int) -> int:
        again = 0
        with root(own_server) as connection:
            for n in range(10):
                while True:
                    try:
                        connection.run(f"ALTER TABLE t ADD COLUMN c{who}_{n} INT DEFAULT {n}")
                        break
                    except seracdb.Conflict:
                        again += 1
        return again

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(alter, range(4)))
    names = user_columns(db)
    assert sorted(names) == sorted(["k", *(f"c{who}_{n}" for who in range(4) for n in range(10))])
    (row,) = db.query(f"SELECT {', '.join(names)} FROM t").to_pylist()
    assert all(value == int(name.split("_")[1]) for name, value in row.items() if name != "k")
    checked(own_server)


ALTERS = {
    "ADD COLUMN c INT DEFAULT 5": (["k", "n", "c"], lambda k, n: (k, n, 5)),
    "ADD COLUMN c INT NOT NULL DEFAULT 5": (["k", "n", "c"], lambda k, n: (k, n, 5)),
    "ALTER COLUMN n TYPE BIGINT": (["k", "n"], lambda k, n: (k, n)),
    "RENAME COLUMN n TO m": (["k", "m"], lambda k, n: (k, n)),
    "DROP COLUMN n": (["k"], lambda k, n: (k,)),
    "DROP COLUMN n, ADD COLUMN n INT DEFAULT 0": (["k", "n"], lambda k, n: (k, 0)),
}


@pytest.mark.parametrize("alter", ALTERS)
def test_a_transaction_that_has_written_when_another_alters(own_server, db, table, alter):
    columns, shown = ALTERS[alter]
    with root(own_server) as other:
        db.run("BEGIN")
        db.run("INSERT INTO t VALUES (3, 30)")
        db.run("UPDATE t SET n = 11 WHERE k = 1")
        other.run(f"ALTER TABLE t {alter}")
        # Its snapshot is that of before.
        before = [(1, 11), (2, 20), (3, 30)]
        assert rows(db, "SELECT k, n FROM t ORDER BY k") == before
        assert user_columns(db) == ["k", "n"]
        assert user_columns(other) == columns
        db.run("DELETE FROM t WHERE k = 2")
        # What it wrote with the columns of before is read like other rows of that time.
        db.run("COMMIT")
        there = [(1, 11), (3, 30)]
        for settle in ("STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t", "STORAGE CHECK TABLE t"):
            for connection in (db, other):
                assert rows(connection, f"SELECT {', '.join(columns)} FROM t ORDER BY k") == [shown(*row) for row in there]
            db.run(settle)
        # And goes on.
        with db.transaction():
            assert db.run("DELETE FROM t WHERE k = 1") == 1
        assert column(other, "SELECT k FROM t ORDER BY k") == [k for k, _ in there[1:]]
    checked(own_server)


def test_a_transaction_reads_the_columns_that_there_were(own_server, db, table):
    """Also when rows and files are written anew meanwhile."""
    with root(own_server) as other:
        db.run("BEGIN")
        assert rows(db, "SELECT k, n FROM t ORDER BY k") == [(1, 10), (2, 20)]
        for n, alter in enumerate(["ADD COLUMN c INT DEFAULT 5", "RENAME COLUMN n TO m", "ALTER COLUMN m TYPE BIGINT", "DROP COLUMN m", "ADD COLUMN n TEXT"]):
            other.run(f"ALTER TABLE t {alter}")
            other.run(f"INSERT INTO t (k) VALUES ({100 + n})")
            run_all(other, "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
            assert rows(db, "SELECT k, n FROM t ORDER BY k") == [(1, 10), (2, 20)], alter
            assert column(db, "SELECT k FROM t WHERE n = 20") == [2], alter
        other.run("ALTER TABLE t RENAME TO u")
        other.run("CREATE TABLE t (x INT)")
        assert rows(db, "SELECT k, n FROM t ORDER BY k") == [(1, 10), (2, 20)]
        db.run("COMMIT")
        assert rows(db, "SELECT k, n FROM u WHERE k < 100 ORDER BY k") == [(1, None), (2, None)]
        assert db.query("SELECT x FROM t").num_rows == 0


@pytest.mark.parametrize(
    "what",
    [
        "CREATE INDEX i ON t (c)",
        "COMMENT ON COLUMN t.c IS 'x'",
        "ALTER TABLE t ALTER COLUMN c SET DEFAULT 5",
        "CREATE VIEW v AS SELECT c FROM t",
        "UPDATE t SET c = 5 WHERE k = 1",
    ],
)
def test_a_transaction_needs_a_column_that_another_drops(own_server, db, what):
    """Refused or not: what is there after it is whole, and can be dropped."""
    db.run("CREATE TABLE t (k INT, c INT)")
    db.run("INSERT INTO t VALUES (1, 1), (2, 2)")
    db.run("STORAGE FLUSH TABLE t")
    with root(own_server) as other:
        db.run("BEGIN")
        db.run(what)
        other.run("ALTER TABLE t DROP COLUMN c")
        try:
            db.run("COMMIT")
        except seracdb.Error as error:
            assert "rolled back" in str(error), error
        db.run("INSERT INTO t VALUES (3)")
        assert column(db, "SELECT k FROM t ORDER BY k") == [1, 2, 3]
        db.query("SELECT * FROM system.indexes")
        db.query("SELECT * FROM information_schema.columns WHERE table_name IN ('t', 'v')")
        db.query("SHOW CREATE TABLE t")
        try:
            db.query("SELECT * FROM v")
        except seracdb.Error as error:
            assert "unknown table" in str(error) or "no longer fits" in str(error), error
        run_all(db, "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t", "DROP VIEW IF EXISTS v", "DROP INDEX IF EXISTS i")
        db.run("ALTER TABLE t ADD COLUMN c INT")
        db.run("INSERT INTO t (k) VALUES (4)")
        assert rows(db, "SELECT k, c FROM t ORDER BY k") == [(k, None) for k in (1, 2, 3, 4)]
    own_server.kill()
    own_server.start()
    with root(own_server) as again:
        assert rows(again, "SELECT k, c FROM t ORDER BY k") == [(k, None) for k in (1, 2, 3, 4)]
    checked(own_server)


def test_a_large_load_before_and_after_an_alter_in_one_transaction(tmp_path):
    def data(first: int, **more: pa.Array) -> pa.Table:
        return pa.table({"k": pa.array(range(first, first + 1000), pa.int64()), "v": ["a text of some length"] * 1000, **more})

    with Server(tmp_path / "data", variables=SETTINGS) as server:
        with root(server) as db:
            db.run("CREATE TABLE t (k BIGINT, v TEXT)")
            db.ingest("t", data(0))
            db.run("BEGIN")
            db.ingest("t", data(1000))
            db.run("ALTER TABLE t ADD COLUMN n INT DEFAULT 7")
            db.ingest("t", data(2000))
            db.ingest("t", data(3000, n=pa.array([8] * 1000, pa.int32())))
            db.run("UPDATE t SET n = 9 WHERE k % 1000 = 0")
            db.run("ALTER TABLE t RENAME COLUMN v TO w")
            db.run("DELETE FROM t WHERE k % 1000 = 1")
            wanted = [(7, 3 * 998), (8, 998), (9, 4)]
            assert rows(db, "SELECT n, count(*) FROM t GROUP BY n ORDER BY n") == wanted
            db.run("COMMIT")
            assert rows(db, "SELECT n, count(*) FROM t GROUP BY n ORDER BY n") == wanted
        server.kill()
        server.start()
        with root(server) as db:
            for settle in ("STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t"):
                assert rows(db, "SELECT n, count(*), count(w) FROM t GROUP BY n ORDER BY n") == [(n, c, c) for n, c in wanted]
                assert rows(db, "SELECT count(*) FROM t WHERE n = 7 AND k < 1000") == [(998,)]
                db.run(settle)
            assert rows(db, "SELECT count(*) FROM t WHERE n = 7") == [(wanted[0][1],)]
    checked(server)


# Statements that were prepared before.


def test_prepared_statements_go_on(own_server, db):
    db.run("CREATE TABLE t (k INT, n INT)")
    select, named, insert_, positional, update = (db.cursor() for _ in range(5))
    by_star = db.cursor()
    with root(own_server) as other:

        def found(sql: str = "SELECT k, n FROM t WHERE k >= ? ORDER BY k", cursor=select, of: tuple = (0,)) -> list[tuple]:
            cursor.execute(sql, of)
            return cursor.fetchall()

        def put(k: int, n: int) -> None:
            insert_.executemany("INSERT INTO t (k, n) VALUES (?, ?)", [(k, n)])

        def change(k: int, n: int) -> int:
            update.executemany("UPDATE t SET n = ? WHERE k = ?", [(n, k)])
            return update.rowcount

        def star() -> list[str]:
            by_star.execute("SELECT * FROM t")
            return [name for name in by_star.fetch_arrow_table().column_names if not name.startswith("_")]

        put(1, 10)
        positional.executemany("INSERT INTO t VALUES (?, ?)", [(2, 20)])
        assert found() == [(1, 10), (2, 20)] and change(1, 11) == 1 and star() == ["k", "n"]
        other.run("ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'c'")
        put(3, 30)
        assert found() == [(1, 11), (2, 20), (3, 30)] and change(2, 21) == 1 and star() == ["k", "n", "c"]
        # It says no longer what each column is.
        with pytest.raises(seracdb.Error, match=r"(?i)column|value"):
            positional.executemany("INSERT INTO t VALUES (?, ?)", [(9, 90)])
        assert found("SELECT c FROM t WHERE k = ?", named, (3,)) == [("c",)]
        other.run("ALTER TABLE t ALTER COLUMN n TYPE BIGINT")
        put(4, 5_000_000_000)
        assert change(3, 6_000_000_000) == 1
        assert found() == [(1, 11), (2, 21), (3, 6_000_000_000), (4, 5_000_000_000)]
        other.run("ALTER TABLE t RENAME COLUMN c TO d")
        assert len(found()) == 4 and star() == ["k", "n", "d"]
        with pytest.raises(seracdb.Error, match="column 'c'"):
            found("SELECT c FROM t WHERE k = ?", named, (3,))
        other.run("ALTER TABLE t RENAME COLUMN d TO c")
        assert found("SELECT c FROM t WHERE k = ?", named, (3,)) == [("c",)]
        other.run("ALTER TABLE t DROP COLUMN n")
        for attempt in (lambda: put(5, 50), found, lambda: change(1, 1)):
            with pytest.raises(seracdb.Error, match="column 'n'"):
                attempt()
        assert star() == ["k", "c"]
        other.run("ALTER TABLE t ADD COLUMN n INT DEFAULT 0")
        put(5, 50)
        assert found() == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 50)] and change(1, 1) == 1
        other.run("ALTER TABLE t RENAME TO u")
        with pytest.raises(seracdb.Error, match="unknown table"):
            found()
        other.run("CREATE TABLE t (n TEXT, k BIGINT)")
        other.run("INSERT INTO t VALUES ('other', 1)")
        assert found() == [(1, "other")]
    for cursor in (select, named, insert_, positional, update, by_star):
        cursor.close()


def test_many_bound_rows_after_an_alter(own_server, db):
    db.run("CREATE TABLE t (k INT PRIMARY KEY, n INT)")
    cursor = db.cursor()
    upsert = "INSERT INTO t (k, n) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n"
    cursor.executemany(upsert, pa.record_batch({"k": pa.array([1, 2, 1], pa.int32()), "n": pa.array([1, 2, 3], pa.int32())}))
    with root(own_server) as other:
        other.run("ALTER TABLE t ADD COLUMN c INT DEFAULT 7")
        other.run("ALTER TABLE t ALTER COLUMN n TYPE BIGINT, ALTER COLUMN k TYPE BIGINT")
    cursor.executemany(upsert, pa.record_batch({"k": [1, 3, 5_000_000_000], "n": [10, 5_000_000_000, 0]}))
    assert rows(db, "SELECT k, n, c FROM t ORDER BY k") == [(1, 14, 7), (2, 2, 7), (3, 5_000_000_000, 7), (5_000_000_000, 0, 7)]
    cursor.close()
    checked(own_server)


# What describes tables, ingests, rights, views.


def test_what_describes_tables_shows_the_columns_that_there_are(own_server, db):
    db.run("CREATE TABLE t (k INT PRIMARY KEY, a INT NOT NULL, b TEXT DEFAULT 'b', c DATE, e INT, CHECK (a > 0))")
    db.run("COMMENT ON COLUMN t.a IS 'of a'")
    db.run("COMMENT ON COLUMN t.c IS 'of c'")
    for alter in [
        "ADD COLUMN d DECIMAL(9, 2) NOT NULL DEFAULT 1.5",
        "RENAME COLUMN a TO amount",
        "ALTER COLUMN amount DROP NOT NULL",
        "ALTER COLUMN e TYPE BIGINT",
        "DROP COLUMN c",
        "ADD COLUMN c INT[]",
        'RENAME COLUMN b TO "B b"',
    ]:
        db.run(f"ALTER TABLE t {alter}")
    described = rows(db, "DESCRIBE t")
    assert described[1:-2] == [
        ("k", "Int32", "NO"),
        ("amount", "Int32", "YES"),
        ("B b", "Utf8", "YES"),
        ("e", "Int64", "YES"),
        ("d", "Decimal128(9, 2)", "NO"),
        ("c", "List(Int32)", "YES"),
    ]
    schema = db.adbc_get_table_schema("t", db_schema_filter="default")
    assert [name for name in schema.names if not name.startswith("_")] == ["k", "amount", "B b", "e", "d", "c"]
    assert schema.field("e").type == pa.int64() and schema.field("d").type == pa.decimal128(9, 2)
    assert rows(db, "SELECT column_name, comment FROM information_schema.columns WHERE table_name = 't' AND comment IS NOT NULL") == [
        ("amount", "of a")
    ]
    (shown,) = column(db, "SHOW CREATE TABLE t")
    db.run("ALTER TABLE t RENAME TO before")
    db.run(shown)
    assert rows(db, "DESCRIBE t") == described
    assert column(db, "SHOW CREATE TABLE t") == [shown]
    for table in ("before", "t"):
        db.run(f"INSERT INTO {table} (k, amount, e) VALUES (1, 5, 5000000000)")
        refused(db, f"INSERT INTO {table} (k, amount) VALUES (2, 0)", "CHECK")
        (row,) = rows(db, f'SELECT k, amount, "B b", e, CAST(d AS TEXT), c FROM {table}')
        assert row == (1, 5, "b", 5_000_000_000, "1.50", None)


def test_ingests_after_an_alter(tmp_path):
    with Server(tmp_path / "data", variables=SETTINGS) as server, root(server) as db:
        for count in (10, 2000):
            name = f"t{count}"

            def data(first: int, count: int = count, **more: list) -> pa.Table:
                numbers = pa.array(range(first, first + count), pa.int32())
                return pa.table({"k": numbers, "filler": ["some text to make it large"] * count, **more})

            db.ingest(name, data(0), mode="create")
            db.run(f"ALTER TABLE {name} ADD COLUMN c TEXT DEFAULT 'c', ADD COLUMN at TIMESTAMP DEFAULT now()")
            db.ingest(name, data(10_000))
            db.ingest(name, data(20_000, c=["given"] * count))
            db.run(f"ALTER TABLE {name} ALTER COLUMN k TYPE BIGINT")
            db.ingest(name, data(30_000))
            db.run(f"ALTER TABLE {name} RENAME COLUMN c TO d")
            with pytest.raises(seracdb.Error, match="column"):
                db.ingest(name, data(40_000, c=["given"] * count))
            db.ingest(name, data(40_000, d=["late"] * count))
            wanted = [("c", 3 * count), ("given", count), ("late", count)]
            for settle in ("STORAGE FLUSH ALL", f"STORAGE COMPACT TABLE {name}"):
                assert rows(db, f"SELECT d, count(*) FROM {name} GROUP BY d ORDER BY d") == wanted
                assert rows(db, f"SELECT count(*) FROM {name} WHERE d = 'c' AND k < 10000") == [(count,)]
                assert rows(db, f"SELECT count(DISTINCT at) FROM {name} WHERE k < 10000") == [(1,)]
                db.run(settle)
            assert rows(db, f"SELECT d, count(*) FROM {name} GROUP BY d ORDER BY d") == wanted
            db.ingest(name, pa.table({"only": [1]}), mode="replace")
            assert column(db, f"SELECT only FROM {name}") == [1]
    clean(server.data_dir)


def test_rights_stay_with_the_table(own_server, db):
    db.run(f"CREATE USER ann WITH PASSWORD '{PASSWORD}' ROLE user")
    db.run("CREATE TABLE t (k INT, secret TEXT)")
    db.run("INSERT INTO t VALUES (1, 'x')")
    db.run("GRANT SELECT, INSERT ON t TO ann")
    with seracdb.connect(own_server.uri, "ann", PASSWORD) as ann:
        for alter in (
            "ADD COLUMN c INT",
            "DROP COLUMN k",
            "DROP COLUMN IF EXISTS nothing",
            "RENAME COLUMN k TO c",
            "ALTER COLUMN k TYPE BIGINT",
            "ALTER COLUMN k DROP NOT NULL",
            "RENAME TO u",
        ):
            with pytest.raises(seracdb.PermissionDenied):
                ann.run(f"ALTER TABLE t {alter}")
        db.run("ALTER TABLE t ADD COLUMN c INT DEFAULT 4")
        assert rows(ann, "SELECT k, c FROM t") == [(1, 4)]
        assert ann.run("INSERT INTO t VALUES (2, 'y', 5)") == 1
        db.run("ALTER TABLE t RENAME TO u")
        assert rows(ann, "SELECT k, c FROM u ORDER BY k") == [(1, 4), (2, 5)]
        db.run("CREATE TABLE t (k INT)")
        # What she may do with one of its name before, she may not with this one.
        with pytest.raises(seracdb.Error, match="unknown table"):
            ann.query("SELECT k FROM t")
        db.run("DROP TABLE t")
        db.run("ALTER TABLE u RENAME TO t")
        assert rows(ann, "SELECT k, c FROM t ORDER BY k") == [(1, 4), (2, 5)]


def test_views_over_tables_that_are_altered(own_server, db):
    run_all(db, "CREATE TABLE t (a INT, b TEXT, c INT)", "INSERT INTO t VALUES (1, 'x', 2)", "STORAGE FLUSH TABLE t")
    db.run("CREATE VIEW v AS SELECT a, upper(b) AS big FROM t")
    db.run("CREATE VIEW over AS SELECT big FROM v")
    for alter in ("DROP COLUMN a", "DROP COLUMN b", "RENAME COLUMN b TO z", "RENAME TO u"):
        refused(db, f"ALTER TABLE t {alter}", "is read by the view 'default.v'")
    db.run("ALTER TABLE t DROP COLUMN c, ADD COLUMN d INT DEFAULT 3")
    db.run("CREATE VIEW all_of_it AS SELECT * FROM t")
    refused(db, "ALTER TABLE t DROP COLUMN d", "is read by the view 'default.all_of_it'")
    refused(db, "ALTER TABLE t RENAME COLUMN d TO e", "is read by the view 'default.all_of_it'")
    for n in range(3):
        db.run(f"ALTER TABLE t ADD COLUMN more{n} TEXT DEFAULT 'more'")
        assert db.query("SELECT * FROM all_of_it").column_names == ["_id", "a", "b", "d", "_updated"]
    # Names that a view has of another table are not taken by what comes.
    run_all(db, "CREATE TABLE other (x INT, late INT)", "INSERT INTO other VALUES (1, 9)")
    db.run("CREATE VIEW joined AS SELECT t.a, late FROM t JOIN other ON t.a = other.x")
    db.run("ALTER TABLE t ADD COLUMN late INT DEFAULT 1")
    assert rows(db, "SELECT a, late FROM joined") == [(1, 9)]
    own_server.kill()
    own_server.start()
    with root(own_server) as again:
        assert rows(again, "SELECT a, big FROM v") == [(1, "X")]
        assert rows(again, "SELECT big FROM over") == [("X",)]
        assert rows(again, "SELECT a, b, d FROM all_of_it") == [(1, "x", 3)]
        assert rows(again, "SELECT a, late FROM joined") == [(1, 9)]
        run_all(again, *(f"DROP VIEW {name}" for name in ("over", "v", "all_of_it", "joined")))
        run_all(again, "ALTER TABLE t RENAME COLUMN b TO z", "ALTER TABLE t RENAME TO u")
        assert rows(again, "SELECT a, z, d, more2, late FROM u") == [(1, "x", 3, "more", 1)]


def test_keys_of_columns_that_were_altered(own_server, db):
    """The key index is the same; it holds before and after a restart."""
    db.run("CREATE TABLE t (k INT PRIMARY KEY, f REAL UNIQUE, u TEXT UNIQUE)")
    db.run("INSERT INTO t SELECT value, value + 0.5, 'u' || value FROM generate_series(1, 500)")
    db.run("STORAGE FLUSH TABLE t")
    db.run("INSERT INTO t SELECT value, value + 0.5, 'u' || value FROM generate_series(501, 600)")
    db.run("DELETE FROM t WHERE k = 7")
    db.run("ALTER TABLE t ALTER COLUMN k TYPE BIGINT, ALTER COLUMN f TYPE DOUBLE")
    db.run("ALTER TABLE t RENAME COLUMN u TO email")
    db.run("ALTER TABLE t ADD COLUMN n INT DEFAULT 1")

    def check(connection: seracdb.Connection, free: int) -> None:
        for values in ("(1, -1, 'new')", "(600, -1, 'new')", "(-1, 1.5, 'new')", "(-1, 600.5, 'new')", "(-1, -1, 'u1')", "(-1, -1, 'u600')"):
            with pytest.raises(seracdb.AlreadyExists):
                connection.run(f"INSERT INTO t (k, f, email) VALUES {values}")
        assert connection.run(f"INSERT INTO t VALUES ({free}, {free} + 0.1, 'free{free}', 2)") == 1
        upsert = "INSERT INTO t (k, n) SELECT value, 10 FROM generate_series(599, 600) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n"
        assert connection.run(upsert) == 2

    check(db, 5_000_000_000)
    db.run("STORAGE FLUSH TABLE t")
    check(db, 7)
    db.run("STORAGE COMPACT TABLE t")
    own_server.kill()
    own_server.start()
    with root(own_server) as again:
        check(again, 8_000_000_000)
        assert rows(again, "SELECT count(*), count(DISTINCT k), sum(n) FROM t") == [(602, 602, 599 + 3 * 2 + 3 * 10 * 2)]
    checked(own_server)


# On a new machine.


@pytest.mark.parametrize("damage", ["none", "no manifest", "no sidecars"])
def test_a_new_data_directory_reads_tables_that_were_altered(shared, tmp_path, damage):
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            db.run(f"CREATE USER ann WITH PASSWORD '{PASSWORD}' ROLE user")
            db.run("CREATE USER TABLE notes (k INT, text TEXT)")
            db.run("INSERT INTO notes AS USER 'ann' VALUES (1, 'one')")
            db.run("CREATE TABLE t (k INT PRIMARY KEY, a INT, b TEXT, x TEXT)")
            steps = [
                "INSERT INTO t VALUES (1, 10, 'one', 'old'), (2, 20, 'two', 'old'), (3, 30, 'three', 'old')",
                "ALTER TABLE t ADD COLUMN c INT NOT NULL DEFAULT 100",
                "INSERT INTO t VALUES (4, 40, 'four', 'old', 400)",
                "DELETE FROM t WHERE k = 3",
                "ALTER TABLE t RENAME COLUMN a TO amount",
                "UPDATE t SET amount = 21 WHERE k = 2",
                "ALTER TABLE t ALTER COLUMN amount TYPE BIGINT, ALTER COLUMN k TYPE BIGINT",
                "INSERT INTO t VALUES (5000000000, 5000000000, 'five', 'old', 500)",
                "ALTER TABLE t DROP COLUMN x, ADD COLUMN x TEXT DEFAULT 'new'",
                "INSERT INTO t (k, amount) VALUES (6, 60)",
                "ALTER TABLE notes ADD COLUMN n INT DEFAULT 7",
                "ALTER TABLE notes RENAME TO papers",
                "ALTER TABLE t ADD COLUMN at TIMESTAMP DEFAULT now()",
                "CREATE INDEX by_x ON t (x)",
                "ALTER TABLE t RENAME TO renamed",
            ]
            for step in steps:
                db.run(step)
                db.run("STORAGE FLUSH ALL")
            columns = "k, amount, b, c, x"
            wanted = rows(db, f"SELECT {columns} FROM renamed ORDER BY k")
            assert wanted == [
                (1, 10, "one", 100, "new"),
                (2, 21, "two", 100, "new"),
                (4, 40, "four", 400, "new"),
                (6, 60, None, 100, "new"),
                (5_000_000_000, 5_000_000_000, "five", 500, "new"),
            ]
            moment = column(db, "SELECT DISTINCT at FROM renamed")
            assert len(moment) == 1
            # Not flushed after the last ALTER: rows of before have its column on the new machine, too.
            db.run("ALTER TABLE renamed ADD COLUMN last_one INT DEFAULT 1")
        until(lambda: b'"last_one"' in shared.read()["_seracdb/catalog-e1.json"], "the catalog is exported")
        second = successor(tmp_path, shared, first)
        folder = "default/t/shared/"
        for path in [path for path in shared.read() if path.startswith(folder)]:
            if damage == "no manifest" and path.endswith("manifest.json"):
                shared.remove(path)
            elif damage == "no sidecars" and (path.endswith(".bloom") or ".deletes-" in path):
                shared.remove(path)
    with second:
        with root(second) as db:
            assert rows(db, f"SELECT {columns} FROM renamed ORDER BY k") == wanted
            assert told(second, "manifest_rebuild_completed") == (damage != "none")
            assert column(db, "SELECT DISTINCT at FROM renamed") == moment
            assert rows(db, "SELECT count(*), sum(last_one) FROM renamed") == [(5, 5)]
            assert column(db, "SELECT k FROM renamed WHERE x = 'old'") == []
            assert column(db, "SELECT k FROM renamed WHERE amount = 21 OR c = 400 ORDER BY k") == [2, 4]
            with pytest.raises(seracdb.AlreadyExists):
                db.run("INSERT INTO renamed (k) VALUES (5000000000)")
            # It goes on.
            db.run("ALTER TABLE renamed ADD COLUMN y INT DEFAULT 9, DROP COLUMN b")
            db.run("INSERT INTO renamed (k, y) VALUES (7, 1)")
            assert db.run("UPDATE renamed SET c = 0 WHERE y = 9 AND k < 3") == 2
            db.run("CREATE TABLE t (other INT)")
            db.run("INSERT INTO t VALUES (1)")
            db.run("STORAGE FLUSH ALL")
            later = rows(db, "SELECT k, amount, c, x, y FROM renamed ORDER BY k")
            assert later[:2] == [(1, 10, 0, "new", 9), (2, 21, 0, "new", 9)] and later[4] == (7, None, 100, "new", 1)
            db.run("STORAGE COMPACT TABLE renamed")
        second.restart()
        with root(second) as db:
            assert rows(db, "SELECT k, amount, c, x, y FROM renamed ORDER BY k") == later
            assert column(db, "SELECT other FROM t") == [1]
        with seracdb.connect(second.uri, "ann", PASSWORD) as ann:
            assert rows(ann, "SELECT k, text, n FROM papers") == [(1, "one", 7)]
        second.stop()
        clean(second.data_dir, "--object-store", shared.url)
