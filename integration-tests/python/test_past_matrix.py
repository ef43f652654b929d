"""What tables of every type were, hot, flushed, half and compacted, and as they were made or altered since: at each remembered time
rows are found by every kind of condition, and the changes between two times are told, as a model in Python has them; with
every way to leave out what need not be read, and with none.
"""

from __future__ import annotations

import operator
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
import seracdb
from checking import clean
from conftest import root, two_at_a_time
from testserver import Server


@dataclass(frozen=True)
class Kind:
    """A type and values of it, as SQL, in ascending order; and a narrower type that has those at some places only."""

    type: str
    values: tuple[str, ...]
    narrow: str | None = None
    few: tuple[int, ...] = ()
    #: Whether values can be compared, and indexed.
    ordered: bool = True


def longs(*ends: str) -> tuple[str, ...]:
    return tuple(f"'{'long text ' * 20}{end}'" for end in ends)


FOUR = (1, 2, 3)
KINDS = {
    "boolean": Kind("BOOLEAN", ("false", "true")),
    "tinyint": Kind("TINYINT", ("-128", "-1", "0", "7", "127")),
    "smallint": Kind("SMALLINT", ("-32768", "-128", "0", "127", "32767"), "TINYINT", FOUR),
    "int": Kind("INT", ("-2147483648", "-32768", "0", "32767", "2147483647"), "SMALLINT", FOUR),
    "bigint": Kind("BIGINT", ("-9223372036854775808", "-2147483648", "0", "2147483647", "9223372036854775807"), "INT", FOUR),
    "u8": Kind("TINYINT UNSIGNED", ("0", "1", "127", "255")),
    "u16": Kind("SMALLINT UNSIGNED", ("0", "255", "32768", "65535"), "TINYINT UNSIGNED", (0, 1)),
    "u32": Kind("INT UNSIGNED", ("0", "65535", "2147483648", "4294967295"), "SMALLINT UNSIGNED", (0, 1)),
    "u64": Kind("BIGINT UNSIGNED", ("0", "4294967295", "9223372036854775808", "18446744073709551615"), "INT UNSIGNED", (0, 1)),
    "real": Kind("REAL", ("CAST('-inf' AS REAL)", "-1.5", "0.0", "0.5", "CAST('1e30' AS REAL)", "CAST('NaN' AS REAL)")),
    "double": Kind(
        "DOUBLE",
        ("CAST('-inf' AS DOUBLE)", "-1.5", "0.0", "0.5", "1e300", "CAST('NaN' AS DOUBLE)"),
        "REAL",
        (0, 1, 2, 3, 5),
    ),
    "of_int": Kind("DOUBLE", ("-1e300", "-2147483648.0", "0.0", "7.0", "7.5"), "INT", FOUR),
    "decimal9": Kind("DECIMAL(9, 2)", ("-9999999.99", "-0.01", "0.00", "0.01", "9999999.99")),
    "decimal18": Kind("DECIMAL(18, 4)", ("-99999999999999.9999", "-9999999.99", "0.0000", "12.50", "99999999999999.9999"), "DECIMAL(9, 2)", FOUR),
    "decimal38": Kind("DECIMAL(38, 10)", ("-1234567890123456789.5", "-1.0000", "0.0000", "12.5000", "12.5000000001"), "DECIMAL(18, 4)", FOUR),
    "decimal50": Kind("DECIMAL(50, 20)", ("-1.5", "0.00", "0.00000000000000000001", "2.5"), "DECIMAL(9, 2)", (0, 1, 3)),
    "text": Kind("TEXT", ("''", "'a'", "'ab'", *longs("", "x", "\U0010ffff"), "'ä'", "'😀'")),
    "bytes": Kind("BYTEA", ("X'00'", "X'00ff'", "X'7f'", "X'80'", "X'ff'")),
    "date": Kind("DATE", ("DATE '0001-01-01'", "DATE '1969-12-31'", "DATE '2024-02-29'", "DATE '9999-12-31'")),
    "time": Kind("TIME", ("TIME '00:00:00'", "TIME '12:30:00.000001'", "TIME '23:59:59.999999'")),
    "uuid": Kind("UUID", ("'00000000-0000-0000-0000-000000000000'", "'7fffffff-0000-4000-8000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'")),
    "list": Kind("INT[]", ("[]", "[1]", "[1, 2]", "[NULL]"), ordered=False),
    "struct": Kind("STRUCT<x INT, y TEXT>", ("named_struct('x', 1, 'y', 'a')", "named_struct('x', 2, 'y', NULL)"), ordered=False),
}
for precision in ("TIMESTAMP(0)", "TIMESTAMP(3)", "TIMESTAMP", "TIMESTAMP(9)", "TIMESTAMPTZ"):
    zone = "Z" if precision.endswith("TZ") else ""
    times = ("1900-01-01T00:00:00", "1969-12-31T23:59:59", "2024-02-29T12:00:00", "2200-01-01T00:00:00")
    KINDS[precision.lower().replace("(", "").replace(")", "")] = Kind(precision, tuple(f"CAST('{at}{zone}' AS {precision})" for at in times))

STATES = ["hot", "flushed", "half", "compacted"]
SHAPES = ["made", "altered"]
Row = tuple[int | None, int | None]  # of v and w, the places of values


@dataclass
class Table:
    """A table as it is made, and the model of what it has been."""

    server: Server
    name: str
    kind: Kind
    state: str
    altered: bool
    column: str = "v"  # v's name, so far
    rows: dict[int, Row] = field(default_factory=dict)
    #: A time after each commit, and the rows.
    moments: list[tuple[int, dict[int, Row]]] = field(default_factory=list)
    #: What each commit did: the operation, `k` and the row, which a deletion does not tell.
    events: list[Counter[tuple]] = field(default_factory=list)
    steps: int = 0

    def sql(self, place: int | None) -> str:
        return "NULL" if place is None else self.kind.values[place]

    def commit(self, sql: str, rows: dict[int, Row], touched: set[int]) -> None:
        """Runs a statement that makes these the rows, and writes versions of some."""
        done = self.db.run(sql.replace("{t}", self.name).replace("{v}", self.column))
        assert done == len(touched), (sql, done)
        events: Counter[tuple] = Counter()
        for k in touched:
            op = "delete" if k not in rows else "update" if k in self.rows else "insert"
            events[(op, *((None, None, None) if op == "delete" else (k, *rows[k])))] += 1
        self.rows = rows
        self.moments.append((time.time_ns(), rows))
        self.events.append(events)
        self.settle()

    def settle(self) -> None:
        self.steps += 1
        if self.state in ("flushed", "compacted") or self.state == "half" and self.steps % 2:
            self.db.run(f"STORAGE FLUSH TABLE {self.name}")
        if self.state == "compacted" and self.steps % 4 == 0:
            self.db.run(f"STORAGE COMPACT TABLE {self.name}")

    def alter(self, change: str) -> None:
        self.db.run(f"ALTER TABLE {self.name} {change}")
        self.settle()

    # What the history is made of.

    def insert(self, first: int, places: tuple[int, ...], has_w: bool = True) -> None:
        """A row for each value, one of NULLs, and w the other way round; a w that is not given is DEFAULT."""
        pairs = [*zip([*places, None], [None, *reversed(places)], strict=True)]
        made = {first + n: (v, w if has_w else self.default) for n, (v, w) in enumerate(pairs)}
        names, values = "k, {v}", [f"({k}, {self.sql(v)}" for k, (v, _) in made.items()]
        if has_w:
            names, values = names + ", w", [f"{value}, {self.sql(w)}" for value, (_, w) in zip(values, made.values(), strict=True)]
        self.commit(f"INSERT INTO {{t}} ({names}) VALUES {', '.join(f'{value})' for value in values)}", self.rows | made, set(made))

    def update(self, where: str, holds: Callable[[int], bool], v: int | None) -> None:
        touched = {k for k in self.rows if holds(k)}
        self.commit(f"UPDATE {{t}} SET {{v}} = {self.sql(v)} WHERE {where}", self.rows | {k: (v, self.rows[k][1]) for k in touched}, touched)

    def delete(self, where: str, holds: Callable[[int], bool]) -> None:
        touched = {k for k in self.rows if holds(k)}
        self.commit(f"DELETE FROM {{t}} WHERE {where}", {k: row for k, row in self.rows.items() if k not in touched}, touched)

    @property
    def default(self) -> int | None:
        return 1 if self.altered else None

    def live(self) -> None:
        with root(self.server) as self.db:
            self.create_and_change()

    def create_and_change(self) -> None:
        """Inserts, updates and deletions; in between an altered table gets the columns that the other has from the beginning."""
        kind, every = self.kind, tuple(range(len(self.kind.values)))
        few = every
        if self.altered:
            few, self.column = kind.few or every, "older"
            self.db.run(f"CREATE TABLE {self.name} (k BIGINT, older {kind.narrow or kind.type}, w TEXT)")
        else:
            self.db.run(f"CREATE TABLE {self.name} (k BIGINT, v {kind.type}, w {kind.type})")
        if kind.ordered:
            self.db.run(f"CREATE INDEX ON {self.name} ({self.column}, k)")
        self.moments.append((time.time_ns(), {}))
        self.events.append(Counter())
        self.insert(0, few, has_w=not self.altered)
        self.insert(20, few[::-1], has_w=not self.altered)
        self.update("k % 4 = 0", lambda k: k % 4 == 0, few[-1])
        if self.altered:
            # Another column of an old name, whose rows have what it begins with.
            self.alter("RENAME COLUMN older TO v")
            self.column = "v"
        self.delete("k % 5 = 1", lambda k: k % 5 == 1)
        if self.altered:
            self.alter("DROP COLUMN w")
            self.alter(f"ADD COLUMN w {kind.type} DEFAULT {kind.values[1]}")
            self.alter(f"ALTER COLUMN w SET DEFAULT {kind.values[-1]}")
            if kind.narrow:
                self.alter(f"ALTER COLUMN v TYPE {kind.type}")
        self.insert(40, every)
        self.update("k % 4 = 2", lambda k: k % 4 == 2, None)
        self.update("k % 3 = 0", lambda k: k % 3 == 0, every[0])
        self.delete("k BETWEEN 21 AND 23", lambda k: 21 <= k <= 23)
        # Keys of rows that were deleted.
        self.insert(21 if 24 not in self.rows else 60, every)
        self.update("k >= 40", lambda k: k >= 40, every[-1])

    # What is asked.

    def condition(self, chance: random.Random) -> tuple[str, Callable[[int | None, Row], bool]]:
        """One, and whether it is true of a row."""
        place, other = (chance.randrange(len(self.kind.values)) for _ in range(2))
        low, high = min(place, other), max(place, other)
        k = chance.choice(sorted({k for _, rows in self.moments for k in rows}))
        choices: list[tuple[str, Callable[[int | None, Row], bool]]] = [
            ("v IS NULL", lambda _, row: row[0] is None),
            ("v IS NOT NULL", lambda _, row: row[0] is not None),
            ("w IS NULL AND v IS NOT NULL", lambda _, row: row[1] is None and row[0] is not None),
            (f"k = {k}", lambda found, _: found == k),
            (f"k = {k} AND v IS NOT NULL", lambda found, row: found == k and row[0] is not None),
        ]
        if self.kind.ordered:
            value, column = self.sql(place), chance.randrange(2)
            name = "vw"[column]
            sql, compare = chance.choice([("=", operator.eq), ("<>", operator.ne), ("<", operator.lt), (">=", operator.ge), (">", operator.gt), ("<=", operator.le)])
            choices += [
                (f"{name} {sql} {value}", lambda _, row: row[column] is not None and compare(row[column], place)),
                (f"{name} {sql} {value}", lambda _, row: row[column] is not None and compare(row[column], place)),
                (f"{name} = {value}", lambda _, row: row[column] == place),
                (f"{name} IN ({value}, {self.sql(other)})", lambda _, row: row[column] in (place, other)),
                (f"{name} BETWEEN {self.sql(low)} AND {self.sql(high)}", lambda _, row: row[column] is not None and low <= row[column] <= high),
                (f"v = {value} AND k = {k}", lambda found, row: row[0] == place and found == k),
                (f"v = {value} OR k = {k}", lambda found, row: row[0] == place or found == k),
                ("v = w", lambda _, row: row[0] is not None and row[0] == row[1]),
            ]
        return chance.choice(choices)


def key(value: pa.Scalar) -> object:
    """What tells a value from others."""
    return value.value if pa.types.is_timestamp(value.type) else repr(value.as_py())


class Asked:
    """One database, and the values of a type by what they are read as."""

    def __init__(self, db: seracdb.Connection, name: str, kind: Kind):
        self.db = db
        # In a table, where a value has the type of its column.
        db.run(f"DROP TABLE IF EXISTS values_{name}")
        db.run(f"CREATE TABLE values_{name} (place INT, v {kind.type})")
        db.run(f"INSERT INTO values_{name} VALUES " + ", ".join(f"({n}, {sql})" for n, sql in enumerate([*kind.values, "NULL"])))
        found = db.query(f"SELECT place, v FROM values_{name}")
        self.places = {key(value): place.as_py() for place, value in zip(found["place"], found["v"], strict=True)}
        self.nothing = len(kind.values)
        assert len(self.places) == self.nothing + 1

    def row(self, v: pa.Scalar, w: pa.Scalar) -> Row:
        v, w = self.places[key(v)], self.places[key(w)]
        return (None if v == self.nothing else v, None if w == self.nothing else w)

    def all_times(self, table: Table) -> None:
        """The whole table, as it was at each of them."""
        each = [f"SELECT {n} AS p, k, v, w FROM {table.name} FOR SYSTEM_TIME AS OF {at}" for n, (at, _) in enumerate(table.moments)]
        found = self.db.query(" UNION ALL ".join(each))
        rows: list[dict[int, Row]] = [{} for _ in each]
        for p, k, v, w in zip(*found.columns, strict=True):
            assert k.as_py() not in rows[p.as_py()], "a row is there twice"
            rows[p.as_py()][k.as_py()] = self.row(v, w)
        for n, (at, wanted) in enumerate(table.moments):
            assert rows[n] == wanted, f"{table.name} at {at}, after {n} commits"

    def conditions(self, table: Table, chance: random.Random, count: int) -> None:
        """Each at some time."""
        wanted, each = {}, []
        for n in range(count):
            at, rows = chance.choice(table.moments[1:])
            condition, holds = table.condition(chance)
            of_then = f"{table.name} FOR SYSTEM_TIME AS OF {at} WHERE {condition}"
            each.append(f"SELECT {n} AS p, k FROM {of_then}")
            wanted[n] = (of_then, sorted(k for k, row in rows.items() if holds(k, row)))
        found: dict[int, list[int]] = {n: [] for n in wanted}
        for row in self.db.query(" UNION ALL ".join(each)).to_pylist():
            found[row["p"]].append(row["k"])
        wrong = {sql: (sorted(found[n]), ks) for n, (sql, ks) in wanted.items() if sorted(found[n]) != ks}
        assert not wrong

    def all_changes(self, table: Table) -> None:
        """Since the beginning, which make the table again."""
        found = self.db.query(f"SELECT _id, k, v, w, _op, _updated FROM changes('{table.name}', {table.moments[0][0]})")
        held: dict[int, tuple[int, Row]] = {}
        by_commit: list[Counter[tuple]] = [Counter()]
        last = None
        for id_, k, v, w, op, updated in zip(*(column for column in found.columns), strict=True):
            at = updated.value
            if at != last:
                assert last is None or at > last
                by_commit.append(Counter())
                last = at
            by_commit[-1][(op.as_py(), k.as_py(), *self.row(v, w))] += 1
            if op.as_py() == "delete":
                del held[id_.as_py()]
            else:
                assert (id_.as_py() in held) == (op.as_py() == "update")
                held[id_.as_py()] = (k.as_py(), self.row(v, w))
        assert by_commit == table.events, table.name
        assert len(held) == len(table.rows) and dict(held.values()) == table.rows, table.name

    def changes(self, table: Table, chance: random.Random, count: int) -> None:
        """Those of spans, by conditions."""
        wanted, each = {}, []
        for n in range(count):
            since, until = sorted(chance.sample(range(len(table.moments)), 2))
            condition, holds = table.condition(chance)
            span = f"changes('{table.name}', {table.moments[since][0]}, {table.moments[until][0]}) WHERE {condition}"
            each.append(f"SELECT {n} AS p, k, _op FROM {span}")
            all_changes = sum(table.events[since + 1 : until + 1], Counter())
            wanted[n] = (span, Counter({(op, k): 0 for op, k, *_ in all_changes}))
            for (op, k, *row), times in all_changes.items():
                wanted[n][1][(op, k)] += times * holds(k, (row[0], row[1]))
        counted: dict[int, Counter[tuple]] = {n: Counter() for n in wanted}
        for row in self.db.query(" UNION ALL ".join(each)).to_pylist():
            counted[row["p"]][(row["_op"], row["k"])] += 1
        wrong = {span: (+counted[n], +counts) for n, (span, counts) in wanted.items() if +counted[n] != +counts}
        assert not wrong


VARIABLES = {"SERACDB_COMPACTION__AUTOMATIC": "false", "SERACDB_STORAGE__DURABILITY": "relaxed"}
WAYS = {
    "as it is": {},
    "all": {"PUSHDOWN": "always"},
    "none": {"BOUNDS": "false", "BLOOM": "false", "PAGE_INDEX": "false", "PUSHDOWN": "never"},
    "bloom filters only": {"BOUNDS": "false", "PAGE_INDEX": "false", "PUSHDOWN": "never"},
    "no bloom filters": {"BLOOM": "false"},
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory) -> Iterator[tuple[Server, list[Table]]]:
    """A server, and tables of each type, shape and state."""
    with Server(tmp_path_factory.mktemp("past") / "data", variables=VARIABLES) as server:
        tables = [
            Table(server, f"{shape}_{state}_{name}", kind, state, shape == "altered")
            for name, kind in KINDS.items()
            for shape in SHAPES
            for state in STATES
        ]
        two_at_a_time(Table.live, tables)
        yield server, tables
        server.stop()
        clean(server.data_dir)


@pytest.mark.parametrize("way", WAYS)
def test_the_past_of_every_type_is_that_of_the_model(lived, way):
    server, tables = lived
    server.variables = VARIABLES | {f"SERACDB_PRUNING__{name}": value for name, value in WAYS[way].items()}
    server.restart()

    def ask(name: str) -> None:
        with root(server) as db:
            asked = Asked(db, name, KINDS[name])
            for table in (table for table in tables if table.kind is KINDS[name]):
                chance = random.Random(f"{way} {table.name}")
                asked.conditions(table, chance, 16)
                # Conditions decide what need not be read: without any, two ways do.
                asked.changes(table, chance, 8 if way in ("as it is", "none") else 2)
                if way in ("as it is", "none"):
                    asked.all_changes(table)
                if way == "as it is":
                    asked.all_times(table)

    two_at_a_time(ask, KINDS)
