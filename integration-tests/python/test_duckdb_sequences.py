"""A thousand generated sequences of statements, run here and in DuckDB: the same counts, the same rows, the same refusals. Columns
come, go and change meanwhile; here rows are flushed and files merged in between.

What the two mean differently is not generated: an UPDATE of a key (DuckDB checks it row by row), integer division, a row that
breaks a CHECK and a key at once (it is refused here, as in PostgreSQL; in DuckDB ON CONFLICT comes first), and what is sorted
by nothing.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter

import duckdb
import pytest
import seracdb
from testserver import ROOT_PASSWORD, Server

SEQUENCES = 1000
# Tests of so many sequences each: what fails is found again by its number.
PER_TEST = 100
STATEMENTS = 14
COLUMNS = "k BIGINT PRIMARY KEY, a BIGINT, b TEXT, c DOUBLE, d DATE"
WITH_RULES = "k BIGINT PRIMARY KEY, a BIGINT DEFAULT 5, b TEXT DEFAULT 'none', c DOUBLE CHECK (c < 1e9), d DATE, CHECK (a IS NULL OR a <> 7)"
TEXTS = ["", "x", "ab", "Zürich", "it''s", "%_"]


class Generator:
    """Statements over a table of five columns, and of those that it adds: numbers e0, e1, …, texts f0, f1, …"""

    def __init__(self, seed: int):
        self.chance = random.Random(seed)
        self.table = f"t{seed}"
        self.has_rules = self.chance.random() < 0.5
        self.added: list[str] = []
        self.names = itertools.count()
        self.obeys = False

    def create(self) -> str:
        return f"CREATE TABLE {self.table} ({WITH_RULES if self.has_rules else COLUMNS})"

    def statement(self) -> str:
        kinds = [self.insert, self.insert, self.insert_select, self.update, self.update, self.delete, self.upsert, self.upsert, self.select, self.select]
        return self.chance.choice([*kinds, self.alter])()

    def columns(self) -> str:
        return ", ".join([*"kabcd", *self.added])

    def alter(self) -> str:
        """One that is not refused."""
        choices = [lambda: self.add(f"e{next(self.names)}", "INT"), lambda: self.add(f"f{next(self.names)}", "TEXT")]
        if self.added:
            choices = choices[: 2 if len(self.added) < 3 else 0] + [self.drop, self.rename, self.widen]
        if self.has_rules:
            choices += [lambda: "ALTER COLUMN a SET DEFAULT 3", lambda: "ALTER COLUMN a DROP DEFAULT", lambda: "ALTER COLUMN d SET DEFAULT DATE '2024-02-29'"]
        return f"ALTER TABLE {self.table} {self.chance.choice(choices)()}"

    def add(self, name: str, data_type: str) -> str:
        default = f" DEFAULT {self.value(name)}" if self.chance.random() < 0.6 else ""
        self.added.append(name)
        return f"ADD COLUMN {name} {data_type}{default}"

    def drop(self) -> str:
        return f"DROP COLUMN {self.added.pop(self.chance.randrange(len(self.added)))}"

    def rename(self) -> str:
        place = self.chance.randrange(len(self.added))
        before = self.added[place]
        self.added[place] = f"{before[0]}{next(self.names)}"
        return f"RENAME COLUMN {before} TO {self.added[place]}"

    def widen(self) -> str:
        column = self.chance.choice(self.added)
        return f"ALTER COLUMN {column} TYPE {'BIGINT' if column.startswith('e') else 'TEXT'}"

    def value(self, column: str) -> str:
        if column != "k" and self.chance.random() < 0.15:
            return "NULL"
        match column[0]:
            case "k":
                return str(self.chance.randrange(30))
            case "a":
                number = self.chance.choice([0, 1, -1, 7, self.chance.randrange(-1000, 1000), 1 << 40])
                return "8" if self.obeys and number == 7 else str(number)
            case "b":
                return f"'{self.chance.choice(TEXTS)}'"
            case "e":
                return str(self.chance.choice([0, 9, self.chance.randrange(-100, 100)]))
            case "f":
                return f"'{self.chance.choice(TEXTS)}'"
            case "c":
                return str(self.chance.choice([0.0, 0.5, -2.25, 1e8 if self.obeys else 1e10, self.chance.randrange(-100, 100) / 4]))
            case _:
                return f"DATE '2024-{self.chance.randrange(1, 13):02}-{self.chance.randrange(1, 29):02}'"

    def row(self, k: int | None = None) -> str:
        key = self.value("k") if k is None else str(k)
        return f"({', '.join([key, *map(self.given, ['a', 'b', 'c', 'd', *self.added])])})"

    def given(self, column: str) -> str:
        """A value of a row that is inserted."""
        return "DEFAULT" if self.has_rules and self.chance.random() < 0.1 else self.value(column)

    def rows(self, distinct: bool) -> str:
        """Distinct ones are for ON CONFLICT: they break no CHECK."""
        self.obeys = distinct and self.has_rules
        count = self.chance.randint(1, 6)
        if distinct:
            return ", ".join(self.row(k) for k in self.chance.sample(range(30), count))
        return ", ".join(self.row() for _ in range(count))

    def condition(self, of: str = "") -> str:
        simple = [
            lambda: f"{of}k {self.chance.choice(['=', '<', '>=', '<>'])} {self.value('k')}",
            lambda: f"{of}a {self.chance.choice(['=', '<', '>', '<>'])} {self.value('a')}",
            lambda: f"{of}b {self.chance.choice(['=', '<', '>='])} {self.value('b')}",
            lambda: f"{of}c {self.chance.choice(['<', '>='])} {self.value('c')}",
            lambda: f"{of}d BETWEEN {self.value('d')} AND {self.value('d')}",
            lambda: f"{of}{self.chance.choice('abcd')} IS {self.chance.choice(['', 'NOT '])}NULL",
            lambda: f"{of}k IN ({', '.join(self.value('k') for _ in range(3))})",
            lambda: f"{of}a IN ({', '.join(self.value('a') for _ in range(3))})",
            lambda: f"{of}b LIKE '{self.chance.choice(['%', 'x%', '_b', '%t%'])}'",
            lambda: f"{of}k IN (SELECT k FROM {self.table} WHERE a > {self.value('a')})",
            lambda: f"{of}a = (SELECT max(a) FROM {self.table})",
        ]
        condition = self.chance.choice(simple)()
        match self.chance.randrange(5):
            case 0:
                return f"({condition}) AND {self.chance.choice(simple)()}"
            case 1:
                return f"({condition}) OR {self.chance.choice(simple)()}"
            case 2:
                return f"NOT ({condition})"
            case _:
                return condition

    def where(self) -> str:
        return f" WHERE {self.condition()}" if self.chance.random() < 0.9 else ""

    def assignment(self, of: str = "", excluded: bool = False) -> str:
        choices = [
            lambda: f"a = {of}a + {self.chance.randrange(5)}",
            lambda: f"a = {self.value('a')}",
            lambda: f"b = {of}b || 'x'",
            lambda: f"b = upper({of}b)",
            lambda: f"c = {of}c * 0.5",
            lambda: f"c = {of}a + 0.25",
            lambda: f"d = {self.value('d')}",
            lambda: f"a = CASE WHEN {of}a > 0 THEN {of}k ELSE NULL END",
            lambda: f"b = coalesce({of}b, 'none')",
        ]
        for column in self.added:
            choices.append(lambda column=column: f"{column} = {self.value(column)}")
            if column.startswith("e"):
                choices.append(lambda column=column: f"{column} = {of}{column} + 1")
        if self.has_rules and not excluded:
            choices.append(lambda: "a = DEFAULT")
        if excluded:
            choices += [
                lambda: "a = excluded.a",
                lambda: f"a = {of}a + excluded.a",
                lambda: f"b = coalesce(excluded.b, {of}b)",
                lambda: "c = excluded.c",
                lambda: f"d = CASE WHEN excluded.d > {of}d THEN excluded.d ELSE {of}d END",
            ]
        by_column = {}
        for _ in range(self.chance.randint(1, 3)):
            assigned = self.chance.choice(choices)()
            by_column[assigned.split(" = ")[0]] = assigned
        return ", ".join(by_column.values())

    def insert(self) -> str:
        if self.chance.random() < 0.3:
            columns = self.chance.sample(["a", "b", "c", "d", *self.added], self.chance.randint(1, 3))
            return f"INSERT INTO {self.table} (k, {', '.join(columns)}) VALUES ({self.value('k')}, {', '.join(map(self.given, columns))})"
        return f"INSERT INTO {self.table} VALUES {self.rows(distinct=False)}"

    def insert_select(self) -> str:
        return (
            f"INSERT INTO {self.table} SELECT k + {self.chance.choice([1, 30, 60, 100])}, {self.columns()[3:]} FROM {self.table} "
            f"WHERE k < 60 AND ({self.condition()})"
        )

    def update(self) -> str:
        return f"UPDATE {self.table} SET {self.assignment()}{self.where()}"

    def delete(self) -> str:
        return f"DELETE FROM {self.table}{self.where()}"

    def upsert(self) -> str:
        rows = self.rows(distinct=True)
        self.obeys = False
        insert = f"INSERT INTO {self.table} VALUES {rows}"
        match self.chance.randrange(5):
            case 0:
                return f"{insert} ON CONFLICT DO NOTHING"
            case 1:
                return f"INSERT OR REPLACE INTO {self.table} VALUES {rows}"
            case _:
                of = f"{self.table}."
                where = f" WHERE {self.condition(of)}" if self.chance.random() < 0.4 else ""
                # DuckDB has no subqueries there.
                where = "" if "SELECT" in where else where
                return f"{insert} ON CONFLICT (k) DO UPDATE SET {self.assignment(of, excluded=True)}{where}"

    def select(self) -> str:
        return self.chance.choice(
            [
                lambda: f"SELECT {self.columns()} FROM {self.table}{self.where()}",
                lambda: f"SELECT count(*), count(a), sum(a), min(b), max(d) FROM {self.table}{self.where()}",
                lambda: f"SELECT b, count(*), sum(c) FROM {self.table}{self.where()} GROUP BY b",
                lambda: f"SELECT x.k, y.a FROM {self.table} x JOIN {self.table} y ON x.k = y.k + 1 WHERE {self.condition('x.')}",
                lambda: f"SELECT x.k, y.k FROM {self.table} x LEFT JOIN {self.table} y ON x.b = y.b AND x.k < y.k",
                lambda: f"SELECT DISTINCT a FROM {self.table}{self.where()}",
                lambda: f"SELECT k FROM {self.table}{self.where()} ORDER BY k DESC LIMIT {self.chance.randrange(5)}",
            ]
        )()


def outcome(run, refused: type[Exception] | tuple[type[Exception], ...]) -> object:
    try:
        return run()
    except refused:
        return "refused"


def sorted_rows(rows: list[tuple]) -> list[tuple]:
    return sorted(rows, key=lambda row: [(value is not None, str(value)) for value in row])


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("sequences") / "data") as server, seracdb.connect(server.uri, "root", ROOT_PASSWORD) as db:
        yield db


@pytest.mark.parametrize("first", range(0, SEQUENCES, PER_TEST))
def test_a_sequence_ends_as_it_does_in_duckdb(database, first):
    done: Counter[str] = Counter()
    with duckdb.connect() as peer:
        for seed in range(first, first + PER_TEST):
            one_sequence(database, peer, Generator(seed), done)
    # What all refuse says little.
    print(done)
    assert done["refused"] < sum(done.values()) / 4 and done["changed"] > sum(done.values()) / 4, done


def one_sequence(db: seracdb.Connection, peer: duckdb.DuckDBPyConnection, generator: Generator, done: Counter[str]) -> None:
    table, create = generator.table, generator.create()
    db.run(create)
    peer.execute(create)
    said = [create]
    for step in range(STATEMENTS + 1):
        sql = generator.statement() if step else f"INSERT INTO {table} VALUES {generator.rows(distinct=True)}"
        said.append(sql)
        if sql.startswith("SELECT"):
            ours = outcome(lambda: [tuple(row.values()) for row in named(db.query(sql)).to_pylist()], seracdb.Error)
            theirs = outcome(lambda: peer.execute(sql).fetchall(), duckdb.Error)
            ours, theirs = (sorted_rows(rows) if isinstance(rows, list) else rows for rows in (ours, theirs))
        elif sql.startswith("ALTER"):
            # Neither refuses it: what comes after relies on it.
            db.run(sql)
            peer.execute(sql)
            ours = theirs = "altered"
        else:
            ours = outcome(lambda: db.run(sql), seracdb.Error)
            theirs = outcome(lambda: peer.execute(sql).fetchall()[0][0], duckdb.Error)
        done[ours if isinstance(ours, str) else "changed" if isinstance(ours, int) and ours > 0 else "empty" if not ours else "read"] += 1
        assert ours == theirs, "\n".join([*said, f"here {ours}, in DuckDB {theirs}"])
        match generator.chance.randrange(8):
            case 0:
                db.run(f"STORAGE FLUSH TABLE {table}")
            case 1:
                db.run(f"STORAGE COMPACT TABLE {table}")
    sql = f"SELECT {generator.columns()} FROM {table}"
    ours = sorted_rows([tuple(row.values()) for row in db.query(sql).to_pylist()])
    assert ours == sorted_rows(peer.execute(sql).fetchall()), "\n".join(said)
    db.run(f"DROP TABLE {table}")
    peer.execute(f"DROP TABLE {table}")


def named(table):
    """Columns of one name would be one in a dictionary."""
    return table.rename_columns([f"{place}" for place in range(table.num_columns)])
