"""Tables as they were, and what has become of them since: `FOR SYSTEM_TIME AS OF` and `changes(…)` against what was remembered."""

from __future__ import annotations

import datetime as dt
import random
import re
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import seracdb
from checking import checked, clean
from conftest import Connections, root
from impersonation import PASSWORD, audit, fill, shown
from object_stores import Folder, server_on
from test_alter import KINDS, Kind, answers, insert, new, run_all
from test_jobs import done
from test_jobs import run as run_job
from test_manifests import until
from test_recovery import successor
from testserver import Server

SECOND = 10**9
TOO_OLD = "that is the oldest time to read, by compaction.retention_seconds"
CREATED_LATER = "was created later"
TO_COME = "is still to come"


def stamp(at: int) -> str:
    """A time as a literal."""
    text = str(np.datetime64(at, "ns")).replace("T", " ")
    return f"TIMESTAMP '{text}'"


def tuples(table: pa.Table) -> list[tuple]:
    """Rows, with times as nanoseconds."""
    columns = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in table.columns]
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def rows(db: seracdb.Connection, sql: str, params: object = None) -> list[tuple]:
    return tuples(db.query(sql, params))


def one(db: seracdb.Connection, sql: str, params: object = None) -> object:
    ((value,),) = rows(db, sql, params)
    return value


def refused(db: seracdb.Connection, sql: str, text: str, error: type[seracdb.Error] = seracdb.InvalidArgument, params=None) -> str:
    with pytest.raises(error) as why:
        db.query(sql, params)
    assert text in str(why.value)
    return str(why.value)


@pytest.fixture
def db(own_server):
    with root(own_server) as connection:
        yield connection


# What there was is remembered, and everything is asked for again.


@dataclass(frozen=True)
class Moment:
    """What a table held after a commit: `_updated` and the columns by `_id`."""

    at: int
    rows: dict[int, tuple]


class History:
    """All that a table held, from its creation on."""

    def __init__(self, created: int):
        self.moments = [Moment(created, {})]
        #: So many nanoseconds back times are asked for.
        self.window: int | None = None

    def add(self, at: int, held: dict[int, tuple]) -> None:
        before = self.moments[-1]
        assert at > before.at
        assert all(row[0] == at for id_, row in held.items() if before.rows.get(id_) != row), "one commit, one time"
        self.moments.append(Moment(at, held))

    @property
    def times(self) -> list[int]:
        return [moment.at for moment in self.moments]

    def at(self, when: int) -> dict[int, tuple]:
        return self.moments[bisect_right(self.times, when) - 1].rows

    def changes(self, since: int, up_to: int) -> list[tuple]:
        """`_id`, the columns, `_updated`, `_op`."""
        found = []
        for before, after in pairwise(self.moments):
            if since < after.at <= up_to:
                for id_ in sorted(before.rows.keys() | after.rows.keys()):
                    old, now = before.rows.get(id_), after.rows.get(id_)
                    if now is None:
                        found.append((id_, *(None for _ in old[1:]), after.at, "delete"))
                    elif now != old:
                        found.append((id_, *now[1:], after.at, "update" if old else "insert"))
        return found

    def any_time(self, chance: random.Random) -> int:
        """That of a commit, just before it, or some time after it."""
        first = 1 if self.window is None else bisect_right(self.times, time.time_ns() - self.window)
        place = chance.randrange(min(first, len(self.moments) - 1), len(self.moments))
        at, following = self.times[place], [*self.times, self.times[-1] + 1000][place + 1]
        later = chance.choice([at, chance.randrange(at, following)])
        return later if place == 0 or self.window else chance.choice([later, at - 1])


def value(of: object) -> str:
    return "NULL" if of is None else f"'{of}'" if isinstance(of, str) else str(of)


def values(of: dict[int, tuple]) -> str:
    return ", ".join(f"({k}, {value(n)}, {value(s)})" for k, (n, s) in of.items())


class Walk:
    """Random changes of `t (k, n, s)`, in which each `k` is once, and what has to come of them."""

    def __init__(self, server: Server, seed: int, key: str):
        self.server, self.chance, self.has_key = server, random.Random(seed), bool(key)
        self.held: dict[int, tuple] = {}
        self.keys = self.marks = 0
        self.db = root(server)
        run_all(self.db, f"CREATE TABLE t (k BIGINT {key}, n BIGINT, s TEXT)", "CREATE TABLE marks (mark BIGINT)")
        if not key:
            self.db.run("CREATE INDEX by_k ON t (k)")
        self.history = History(one(self.db, "SELECT created_at FROM system.tables WHERE \"table\" = 't'"))

    # Statements. Each changes what is held.

    def number(self) -> int | None:
        return self.chance.choice([None, *range(40)])

    def text(self) -> str | None:
        return self.chance.choice([None, "", "ice", "it is snow", "❄" * 30])

    def some(self, most: int) -> list[int]:
        return self.chance.sample(sorted(self.held), min(len(self.held), self.chance.randint(1, most)))

    def fresh(self, count: int) -> list[int]:
        """Keys of no row; some were those of rows that are gone."""
        gone = [k for k in range(self.keys) if k not in self.held]
        again = self.chance.sample(gone, min(len(gone), count // 2))
        first, self.keys = self.keys, self.keys + count - len(again)
        return again + list(range(first, self.keys))

    def made(self, keys: list[int]) -> dict[int, tuple]:
        return {k: (self.number(), self.text()) for k in keys}

    def insert(self) -> str:
        made = self.made(self.fresh(self.chance.randint(1, 6)))
        self.held |= made
        return f"INSERT INTO t VALUES {values(made)}"

    def load(self) -> pa.Table:
        """So many that they are loaded in bulk."""
        made = {k: (n, f"loaded {k}") for k, (n, _) in self.made(self.fresh(60)).items()}
        self.held |= made
        numbers = pa.array([n for n, _ in made.values()], pa.int64())
        return pa.table({"k": pa.array(made, pa.int64()), "n": numbers, "s": [s for _, s in made.values()]})

    def update(self) -> str:
        keys, by = self.some(8), self.chance.randrange(4)
        if not keys:
            return self.insert()
        self.held |= {k: (n if n is None else n + by, s) for k, (n, s) in self.held.items() if k in keys}
        return f"UPDATE t SET n = n + {by} WHERE k IN ({', '.join(map(str, keys))})"

    def clear(self) -> str:
        least = self.chance.randrange(20, 60)
        self.held |= {k: (n, None) for k, (n, s) in self.held.items() if n is not None and n > least}
        return f"UPDATE t SET s = NULL WHERE n > {least}"

    def rename(self) -> str:
        """Another key for a row; and another row may get the old one."""
        keys = self.some(1)
        if not keys:
            return self.insert()
        (k,), (to,) = keys, self.fresh(1)
        self.held[to] = self.held.pop(k)
        return f"UPDATE t SET k = {to} WHERE k = {k}"

    def delete(self) -> str:
        keys = self.some(6)
        self.held = {k: row for k, row in self.held.items() if k not in keys}
        return f"DELETE FROM t WHERE k IN ({', '.join(map(str, keys or [-1]))})"

    def delete_many(self) -> str:
        part = self.chance.randrange(5)
        self.held = {k: (n, s) for k, (n, s) in self.held.items() if n is None or n % 5 != part}
        return f"DELETE FROM t WHERE n % 5 = {part}"

    def truncate(self) -> str:
        self.held = {}
        return "TRUNCATE TABLE t"

    def upsert(self) -> str:
        if not self.has_key:
            return self.merge()
        made = self.made(self.some(4) + self.fresh(2))
        for k, (n, s) in made.items():
            had = self.held[k][0] if k in self.held else 0
            self.held[k] = (None if n is None or had is None else had + n, s)
        return f"INSERT INTO t VALUES {values(made)} ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n, s = excluded.s"

    def merge(self) -> str:
        made = {k: (self.chance.randrange(9), None) for k in self.some(6) + self.fresh(2)}
        for k, (n, _) in made.items():
            if k in self.held and n % 3 == 0:
                del self.held[k]
            else:
                self.held[k] = (n, self.held[k][1] if k in self.held else "merged")
        return (
            f"MERGE INTO t USING (VALUES {values(made)}) AS v(k, n, s) ON t.k = v.k WHEN MATCHED AND v.n % 3 = 0 THEN DELETE "
            "WHEN MATCHED THEN UPDATE SET n = v.n WHEN NOT MATCHED THEN INSERT VALUES (v.k, v.n, 'merged')"
        )

    def restore(self) -> str:
        """Rows of before whose keys are free."""
        at = self.history.any_time(self.chance)
        was = {k: (n, s) for _, k, n, s in self.history.at(at).values()}
        self.held |= {k: (n, s) for k, (n, s) in was.items() if k not in self.held and n is not None and n % 4 == 0}
        return (
            f"INSERT INTO t SELECT o.k, o.n, o.s FROM t FOR SYSTEM_TIME AS OF {at} AS o "
            "WHERE o.n % 4 = 0 AND o.k NOT IN (SELECT k FROM t)"
        )

    STATEMENTS = [*[insert] * 2, *[update] * 3, clear, rename, *[delete] * 2, delete_many, *[upsert] * 2, merge, restore, load]

    def change(self) -> None:
        made = self.chance.choice(self.STATEMENTS)(self)
        if isinstance(made, pa.Table):
            assert self.db.ingest("t", made) == made.num_rows
        else:
            self.db.run(made)

    # Steps.

    def commit(self) -> None:
        if self.chance.random() < 0.03:
            self.db.run(self.truncate())
        else:
            self.change()
        self.look()

    def transaction(self) -> None:
        before = self.held
        self.held = dict(before)
        self.db.run("BEGIN")
        for _ in range(self.chance.randint(2, 5)):
            self.change()
        if self.chance.random() < 0.3:
            kept = dict(self.held)
            self.db.run("SAVEPOINT s")
            self.change()
            self.db.run("ROLLBACK TO s")
            self.held = kept
        if self.chance.random() < 0.2:
            self.db.run("ROLLBACK")
            self.held = before
            return self.look()
        self.marks += 1
        self.db.run(f"INSERT INTO marks VALUES ({self.marks})")
        self.db.run("COMMIT")
        return self.look(one(self.db, f"SELECT _updated FROM marks WHERE mark = {self.marks}"))

    def look(self, at: int | None = None) -> None:
        """Remembers what the commit has made. `at`: its time, when that is known from elsewhere."""
        found = {row[0]: row[1:] for row in rows(self.db, "SELECT _id, _updated, k, n, s FROM t")}
        assert {k: (n, s) for _, k, n, s in found.values()} == self.held and len(found) == len(self.held)
        last = self.history.moments[-1]
        if found == last.rows:
            return
        newest = max((row[0] for row in found.values()), default=0)
        if at is None and newest > last.at:
            at = newest
        if at is None:
            # Rows were deleted, and nothing else tells when.
            at = one(self.db, f"SELECT max(_updated) FROM changes('t', {last.at})")
            assert at < time.time_ns()
        self.history.add(at, found)

    def flush(self) -> None:
        self.db.run("STORAGE FLUSH TABLE t")

    def merge_files(self) -> None:
        self.db.run("STORAGE COMPACT TABLE t")

    def restart(self) -> None:
        self.again(self.server.stop)

    def kill(self) -> None:
        """In the middle of a flush or a merge."""
        job = self.chance.choice(["flush", "compact"])
        run_job(self.db, job, '{"namespace": "default", "table": "t"}')
        self.again(self.server.kill)

    def again(self, end: Callable[[], int]) -> None:
        self.db.close()
        end()
        self.server.start()
        self.db = root(self.server)

    # What is asked.

    def condition(self, was: dict[int, tuple]) -> tuple[str, Callable[[int, tuple], bool]]:
        """A condition, and the rows that it is true for."""
        id_, (updated, k, n, _) = self.chance.choice([*was.items(), (1, (self.history.times[-1], -1, 7, None))])
        n = 7 if n is None else n
        return self.chance.choice(
            [
                ("true", lambda *_: True),
                ("true", lambda *_: True),
                (f"k = {k}", lambda _, row: row[1] == k),
                (f"k = {k} AND n = {n}", lambda _, row: row[1:3] == (k, n)),
                (f"k IN ({k}, 1, 2)", lambda _, row: row[1] in (k, 1, 2)),
                (f"_id = {id_}", lambda found, _: found == id_),
                (f"_updated >= {stamp(updated)}", lambda _, row: row[0] >= updated),
                (f"_updated = {stamp(updated)}", lambda _, row: row[0] == updated),
                (f"n BETWEEN {n} AND {n + 5}", lambda _, row: row[2] is not None and n <= row[2] <= n + 5),
                ("n IS NULL", lambda _, row: row[2] is None),
                ("s IS NULL", lambda _, row: row[3] is None),
                ("s LIKE 'loaded%'", lambda _, row: (row[3] or "").startswith("loaded")),
            ]
        )

    def as_of(self, at: int) -> None:
        was = self.history.at(at)
        condition, holds = self.condition(was)
        wanted = {id_: row for id_, row in was.items() if holds(id_, row)}
        text, params = self.chance.choice([(str(at), None), (stamp(at), None), ("?", moment(at))])
        of_then = f"FROM t FOR SYSTEM_TIME AS OF {text} WHERE {condition}"
        found = rows(self.db, f"SELECT _id, _updated, k, n, s {of_then}", params)
        assert len(found) == len(wanted) and {row[0]: row[1:] for row in found} == wanted, of_then
        if self.chance.random() < 0.2:
            counted = rows(self.db, f"SELECT count(*), count(n), min(k), max(_updated) {of_then}", params)
            each = [*zip(*wanted.values(), strict=True)] or [[]] * 4
            figures = (len(wanted), sum(n is not None for n in each[2]), min(each[1], default=None), max(each[0], default=None))
            assert counted == [figures], of_then

    def changes(self, since: int, up_to: int | None) -> None:
        span = f"changes('t', {since})" if up_to is None else f"changes('t', {stamp(since)}, {up_to})"
        wanted = self.history.changes(since, self.history.times[-1] if up_to is None else up_to)
        found = rows(self.db, f"SELECT * FROM {span}")
        assert found == wanted, span

    def ask(self, share: float) -> None:
        """Of all times so many, and of the spans between them."""
        first, last = self.history.times[0], self.history.times[-1]
        for at in self.history.times[1:]:
            if self.chance.random() < share:
                self.as_of(at)
                self.as_of(max(at - 1, first))
                self.as_of(self.history.any_time(self.chance))
        for _ in range(round(share * 40)):
            self.changes(*sorted([self.history.any_time(self.chance), self.history.any_time(self.chance)]))
            self.changes(self.history.any_time(self.chance), None)
        self.changes(first, None)
        self.changes(last, None)
        self.changes(last - 1, last)


def moment(at: int) -> pa.Table:
    """A time, to be bound."""
    return pa.table({"at": pa.array([at], pa.timestamp("ns"))})


STEPS = [Walk.commit] * 9 + [Walk.transaction] * 4 + [Walk.flush] * 4 + [Walk.merge_files, Walk.restart]
KEYS = ["", "UNIQUE", "PRIMARY KEY"]


@pytest.mark.parametrize("seed", range(6))
def test_every_time_and_every_span_of_a_random_history(tmp_path, seed):
    variables = {
        "SERACDB_ENGINE__BULK_BYTES_MIN": "1000",
        "SERACDB_COMPACTION__AUTOMATIC": str(seed % 2 == 0).lower(),
        "SERACDB_COMPACTION__FAN_IN": "2",
    }
    with Server(tmp_path / "data", variables=variables) as server:
        walk = Walk(server, seed, KEYS[seed % len(KEYS)])
        for step in range(60):
            if step % 25 == 20:
                walk.kill()
            walk.chance.choice(STEPS)(walk)
            if step % 30 == 15:
                walk.ask(0.1)
        assert len(walk.history.moments) > 20
        walk.ask(0.5)
        walk.flush()
        walk.merge_files()
        walk.restart()
        walk.ask(0.2)
        walk.db.close()
        checked(server)


def test_what_is_kept_is_whole_while_older_files_go(tmp_path):
    variables = {
        "SERACDB_COMPACTION__RETENTION_SECONDS": "4",
        "SERACDB_COMPACTION__FAN_IN": "2",
        "SERACDB_ENGINE__BULK_BYTES_MIN": "1000",
    }
    with Server(tmp_path / "data", variables=variables) as server:
        walk = Walk(server, 1, "UNIQUE")
        walk.history.window = 2 * SECOND
        end = time.monotonic() + 12
        while time.monotonic() < end:
            walk.chance.choice([Walk.commit, Walk.commit, Walk.transaction, Walk.flush, Walk.merge_files])(walk)
            if walk.chance.random() < 0.2:
                assert done(walk.db, run_job(walk.db, "retention"))["state"] == "completed"
            walk.as_of(walk.history.any_time(walk.chance))
            since = walk.history.any_time(walk.chance)
            walk.changes(since, None)
            walk.changes(since, max(since, walk.history.any_time(walk.chance)))
        gone = one(walk.db, "SELECT max(batch_number) - count(*) FROM system.batches WHERE \"table\" = 't'")
        assert gone > 5, "superseded files were removed meanwhile"
        walk.db.close()
        checked(server)


@pytest.mark.parametrize("end", ["", "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t"])
def test_a_load_whose_rows_the_same_commit_changes(tmp_path, end):
    """Versions of one row with one time, in files and beside them."""
    with Server(tmp_path / "data", variables={"SERACDB_ENGINE__BULK_BYTES_MIN": "1000"}) as server, root(server) as db:
        run_all(db, "CREATE TABLE t (k BIGINT UNIQUE, s TEXT)", "INSERT INTO t VALUES (-1, 'before'), (-2, 'gone')")
        before = time.time_ns()
        with db.transaction():
            db.run("DELETE FROM t WHERE k = -2")
            db.ingest("t", pa.table({"k": range(300), "s": ["loaded"] * 300}))
            db.run("UPDATE t SET s = 'changed' WHERE k BETWEEN 0 AND 9")
            db.run("DELETE FROM t WHERE k >= 290")
            db.ingest("t", pa.table({"k": range(290, 600), "s": ["again"] * 310}))
            db.run("UPDATE t SET s = s || ' twice' WHERE k BETWEEN 5 AND 14")
            db.run("DELETE FROM t WHERE k = 599 OR k = 0")
        at = one(db, "SELECT max(_updated) FROM t")
        then = rows(db, "SELECT _id, k, s, _updated FROM t ORDER BY _id")
        kinds = {s: sum(row[2] == s for row in then) for s in {row[2] for row in then}}
        assert kinds == {"before": 1, "changed": 4, "changed twice": 5, "loaded twice": 5, "loaded": 275, "again": 309}
        if end:
            db.run(end)
        db.run("UPDATE t SET s = 'later' WHERE k % 2 = 0")
        db.run("DELETE FROM t WHERE k % 3 = 0")
        for _ in range(2):
            assert rows(db, f"SELECT _id, k, s, _updated FROM t FOR SYSTEM_TIME AS OF {at} ORDER BY _id") == then
            was = [("before",), ("gone",)]
            assert rows(db, f"SELECT s FROM t FOR SYSTEM_TIME AS OF {before} ORDER BY s") == was
            assert rows(db, f"SELECT s FROM t FOR SYSTEM_TIME AS OF {at - 1} ORDER BY s") == was
            found = rows(db, f"SELECT * FROM changes('t', {before}, {at})")
            assert found[0][1:] == (None, None, at, "delete")
            assert found[1:] == [(*row, "insert") for row in then if row[1] >= 0]
            # Just before the commit it is the same.
            assert rows(db, f"SELECT * FROM changes('t', {at - 1}, {at})") == found
            counts = f"SELECT _op, count(*), count(DISTINCT _id) FROM changes('t', {at}) GROUP BY _op ORDER BY _op"
            assert rows(db, counts) == [("delete", 199, 199), ("update", 299, 299)]
            run_all(db, "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
        checked(server)


def test_columns_that_are_not_null_are_null_where_a_row_was_deleted(db, own_server):
    db.run("CREATE TABLE t (k BIGINT PRIMARY KEY, n INT NOT NULL, s TEXT NOT NULL, l INT[] NOT NULL, x STRUCT<a INT> NOT NULL)")
    db.run("CREATE TABLE plain (n INT NOT NULL)")
    since = time.time_ns()
    run_all(
        db,
        "INSERT INTO t VALUES (1, 10, 'one', [1], named_struct('a', 1)), (2, 20, 'two', [2], named_struct('a', 2))",
        "INSERT INTO plain VALUES (1)",
        "DELETE FROM t WHERE k = 1",
        "DELETE FROM plain",
    )
    for end in ("", "STORAGE FLUSH ALL", "STORAGE COMPACT TABLE t"):
        if end:
            db.run(end)
        found = db.query(f"SELECT * FROM changes('t', {since})")
        assert [found.schema.field(name).nullable for name in ("k", "n", "s", "l", "x")] == [True] * 5
        shown = [tuple(row.values())[1:6] + (row["_op"],) for row in found.to_pylist()]
        assert shown[:2] == [(1, 10, "one", [1], {"a": 1}, "insert"), (2, 20, "two", [2], {"a": 2}, "insert")]
        assert shown[2:] == [(None, None, None, None, None, "delete")]
        assert rows(db, f"SELECT n, _op FROM changes('plain', {since})") == [(1, "insert"), (None, "delete")]
        assert rows(db, f"SELECT _op FROM changes('t', {since}) WHERE k IS NULL") == [("delete",)]
        assert rows(db, f"SELECT count(*) FROM changes('t', {since}) WHERE k IS NOT NULL AND n > 0") == [(2,)]
        assert rows(db, f"SELECT k FROM changes('t', {since}, {since})") == []
    checked(own_server)


# Who follows a table.

SMALL = {
    "SERACDB_FLUSH__HOT_BYTES_MAX": str(16 << 10),
    "SERACDB_FLUSH__DEAD_VERSIONS_MAX": "60",
    "SERACDB_ENGINE__BULK_BYTES_MIN": "4000",
    "SERACDB_COMPACTION__FAN_IN": "2",
}


@dataclass
class Follower:
    """Makes a table of DuckDB what a table is, by its changes alone. What comes twice, or is missing, fails there."""

    since: int
    seen: list[tuple] = field(default_factory=list)
    replica: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)

    def __post_init__(self) -> None:
        self.replica.execute("CREATE TABLE t (_id BIGINT PRIMARY KEY, k BIGINT, n BIGINT, s TEXT, _updated BIGINT)")

    def follow(self, server: Server, is_over: threading.Event) -> None:
        with root(server) as db:
            while not is_over.is_set():
                self.poll(db)
                time.sleep(0.01)  # others want to write
            self.poll(db)

    def poll(self, db: seracdb.Connection) -> None:
        self.replica.begin()
        changes = rows(db, f"SELECT * FROM changes('t', {self.since})")
        self.seen += changes
        for id_, k, n, s, updated, op in changes:
            # In order, and none of a commit that was seen before.
            assert updated >= self.since
            sql, params = {
                "insert": ("INSERT INTO t VALUES (?, ?, ?, ?, ?)", [id_, k, n, s, updated]),
                "update": ("UPDATE t SET k = ?, n = ?, s = ?, _updated = ? WHERE _id = ?", [k, n, s, updated, id_]),
                "delete": ("DELETE FROM t WHERE _id = ?", [id_]),
            }[op]
            (count,) = self.replica.execute(sql, params).fetchone()
            assert count == 1, f"{op} of {id_}"
            self.since = updated
        self.replica.commit()

    def rows(self) -> list[tuple]:
        return self.replica.execute("SELECT * FROM t ORDER BY _id").fetchall()


def write(server: Server, writer: int, seed: int, is_over: threading.Event) -> int:
    """Changes rows of its own and of others; gives how many versions were acknowledged."""
    chance, acknowledged, key = random.Random(seed), 0, (seed * 10 + writer) * 1_000_000
    with root(server) as db:
        while not is_over.is_set():
            key += 100
            part = f"k % 17 = {chance.randrange(17)}"
            try:
                match chance.randrange(8):
                    case 0 | 1:
                        acknowledged += db.run(f"INSERT INTO t SELECT {key} + value, value, 'of {writer}' FROM generate_series(1, 8)")
                    case 2 | 3:
                        acknowledged += db.run(f"UPDATE t SET n = n + 1, s = 'changed by {writer}' WHERE {part}")
                    case 4:
                        acknowledged += db.run(f"DELETE FROM t WHERE {part} AND n % 3 = 0")
                    case 5:
                        acknowledged += db.run(
                            f"INSERT INTO t SELECT {key} - 200 + value, value, 'twice' FROM generate_series(1, 5) "
                            "ON CONFLICT (k) DO UPDATE SET s = excluded.s || t.s"
                        )
                    case 6:
                        loaded = pa.table({"k": range(key, key + 90), "n": [5] * 90, "s": ["loaded " * 5] * 90})
                        acknowledged += db.ingest("t", loaded)
                    case 7:
                        with db.transaction():
                            count = db.run(f"INSERT INTO t VALUES ({key}, 0, NULL)")
                            count += db.run(f"UPDATE t SET n = -n WHERE {part} AND n <> 0")
                            count += db.run(f"DELETE FROM t WHERE n > 8 AND NOT ({part})")
                        acknowledged += count
            except seracdb.Conflict:
                continue
    return acknowledged


def together(seconds: float, *works: Callable[[threading.Event], object]) -> list:
    """All at the same time, so long."""
    is_over = threading.Event()
    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(work, is_over) for work in works]
        is_over.wait(seconds)  # how long it goes on
        is_over.set()
        return [work.result() for work in running]


def test_who_follows_has_what_there_is(tmp_path):
    """Also when the server is killed, or started again, in between."""
    acknowledged = 0
    with Server(tmp_path / "data", variables=SMALL) as server:
        with root(server) as db:
            db.run("CREATE TABLE t (k BIGINT UNIQUE, n BIGINT, s TEXT)")
        follower = Follower(time.time_ns())
        for turn, end in enumerate((server.kill, server.stop, server.kill)):

            def writer(number: int, turn: int = turn) -> Callable[[threading.Event], int]:
                return lambda is_over: write(server, number, turn, is_over)

            *counts, _ = together(2.5, writer(1), writer(2), writer(3), lambda is_over: follower.follow(server, is_over))
            acknowledged += sum(counts)
            end()
            server.start()
        with root(server) as db:
            follower.poll(db)
            held = rows(db, "SELECT _id, k, n, s, _updated FROM t ORDER BY _id")
            assert len(held) > 20 and follower.rows() == held
            assert len(follower.seen) == acknowledged
            assert one(db, "SELECT count(*) FROM system.batches WHERE \"table\" = 't' AND status <> 'active'") > 0, "files were merged"
            # All at once it is the same.
            created = one(db, "SELECT created_at FROM system.tables WHERE \"table\" = 't'")
            assert rows(db, f"SELECT * FROM changes('t', {created})") == follower.seen
            assert rows(db, f"SELECT * FROM changes('t', {follower.since})") == []
        checked(server)


def test_a_time_shows_whole_commits_and_never_changes(tmp_path):
    """What goes from one table to another is in one of them, at every time; and what a time has shown, it shows ever after."""
    accounts, total = 40, 40 * 2 * 1000
    a, b = (f"{table} FOR SYSTEM_TIME AS OF {{0}}" for table in ("a", "b"))
    sums = f"SELECT (SELECT sum(n) FROM {a}) + (SELECT sum(n) FROM {b})"
    shown = f"SELECT count(*), sum(n), max(_updated), sum(n * k), (SELECT sum(n * k) FROM {b}) FROM {a}"
    with Server(tmp_path / "data", variables=SMALL) as server:
        with root(server) as db:
            for table in ("a", "b"):
                db.run(f"CREATE TABLE {table} (k BIGINT, n BIGINT)")
                db.run(f"INSERT INTO {table} SELECT value, 1000 FROM generate_series(1, {accounts})")

        def transfer(seed: int) -> Callable[[threading.Event], None]:
            chance = random.Random(seed)

            def work(is_over: threading.Event) -> None:
                with root(server) as db:
                    while not is_over.is_set():
                        one_, other = chance.sample(["a", "b"], 2)
                        try:
                            with db.transaction():
                                db.run(f"UPDATE {one_} SET n = n - 3 WHERE k = {chance.randint(1, accounts)}")
                                db.run(f"UPDATE {other} SET n = n + 3 WHERE k = {chance.randint(1, accounts)}")
                        except seracdb.Conflict:
                            continue

            return work

        def read(is_over: threading.Event) -> dict[int, tuple]:
            """At the time that it is when the read is sent."""
            found = {}
            with root(server) as db:
                while not is_over.is_set():
                    at = time.time_ns()
                    (found[at],) = rows(db, shown.format(at))
                    assert one(db, sums.format(at)) == total
            return found

        *_, first, second = together(4, transfer(1), transfer(2), transfer(3), read, read)
        found = first | second
        assert len(found) > 20 and len(set(found.values())) > 10
        with root(server) as db:
            for end in ("", "STORAGE FLUSH ALL", "STORAGE COMPACT TABLE a"):
                if end:
                    db.run(end)
                again = {at: rows(db, shown.format(at))[0] for at in random.Random(1).sample(sorted(found), 20)}
                changed = {at: (found[at], now) for at, now in again.items() if found[at] != now}
                assert not changed, f"{len(changed)} of 20 times"
        checked(server)


# Every type.


@pytest.fixture(scope="module")
def matrix(tmp_path_factory) -> Iterator[tuple[seracdb.Connection, dict]]:
    """Of each type tables whose rows have all changed, and a plain one with what they were before; times by table."""
    variables = {"SERACDB_COMPACTION__AUTOMATIC": "false"}
    times = {}
    with Server(tmp_path_factory.mktemp("matrix") / "data", variables=variables) as server, root(server) as db:
        for name, kind in KINDS.items():
            for state in STATES:
                times[f"{state}_{name}"] = changed(db, f"{state}_{name}", kind, state)
        yield db, times
    clean(server.data_dir)


STATES = ["hot", "flushed", "mixed", "merged"]


def changed(db: seracdb.Connection, table: str, kind: Kind, state: str) -> int:
    """Makes a table and changes all of its rows; gives a time before."""
    flush, merge = f"STORAGE FLUSH TABLE {table}", f"STORAGE COMPACT TABLE {table}"
    first, last = kind.values[0], kind.values[-1]
    run_all(db, f"CREATE TABLE {table} (k BIGINT, note TEXT, v {kind.type}, w {kind.type})", f"CREATE INDEX ON {table} (k)")
    if kind.ordered:
        db.run(f"CREATE INDEX ON {table} (v)")
    db.run(insert(0, new(kind.values)).format(t=table))
    if state != "hot":
        db.run(flush)
    db.run(insert(10, new(kind.values[::-1])).format(t=table))
    if state == "hot":
        # Before they change: the same for all states.
        db.run(f"CREATE TABLE was_{table.removeprefix('hot_')} AS SELECT k, note, v, w FROM {table}")
    if state in ("flushed", "merged"):
        db.run(flush)
    at = time.time_ns()
    run_all(db, f"UPDATE {table} SET v = {last}, w = NULL WHERE k % 2 = 0", f"DELETE FROM {table} WHERE k % 3 = 0")
    if state in ("flushed", "merged"):
        db.run(flush)
    run_all(db, f"UPDATE {table} SET v = {first}, note = 'changed'", insert(20, new(kind.values)).format(t=table))
    if state != "hot":
        db.run(flush)
    if state == "merged":
        db.run(merge)
    return at


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", KINDS)
def test_conditions_on_every_type_find_what_they_found_then(matrix, name, state):
    db, times = matrix
    kind, table = KINDS[name], f"{state}_{name}"
    wanted = answers(db, f"was_{name}", kind, kind.values)
    found = answers(db, f"{table} FOR SYSTEM_TIME AS OF {times[table]}", kind, kind.values)
    wrong = {what: (found[what], wanted[what]) for what in wanted if found[what] != wanted[what]}
    assert not wrong
    # All that came since: what it was, and what it became.
    ops = rows(db, f"SELECT _op, count(*) AS n FROM changes('{table}', {times[table]}) GROUP BY _op ORDER BY _op")
    keys = range(len(kind.values) + 1)
    even = sum((k + first) % 2 == 0 for k in keys for first in (0, 10))
    third = sum((k + first) % 3 == 0 for k in keys for first in (0, 10))
    assert ops == [("delete", third), ("insert", len(keys)), ("update", even + 2 * len(keys) - third)]
    last = f"SELECT k, note, v, w FROM changes('{table}', {times[table]}) WHERE _op <> 'delete' AND note = 'changed' ORDER BY k"
    now = db.query(f"SELECT k, note, v, w FROM {table} WHERE note = 'changed' ORDER BY k")
    assert [repr(row) for row in db.query(last).to_pylist()] == [repr(row) for row in now.to_pylist()]


# How far back it goes.


def time_of(message: str) -> int:
    """The oldest time that a refusal names."""
    (text,) = re.findall(r"is kept since TIMESTAMP '([^']+)'", message)
    return int(np.datetime64(text, "ns").astype(np.int64))


def test_times_before_the_retention_are_refused_with_the_oldest_one(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_COMPACTION__RETENTION_SECONDS": "2"}) as server, root(server) as db:
        run_all(db, "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1)")
        at = time.time_ns()
        run_all(db, "UPDATE t SET n = 2", "STORAGE FLUSH TABLE t")
        assert rows(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {at}") == [(1,)]
        assert rows(db, f"SELECT n, _op FROM changes('t', {at})") == [(2, "update")]
        time.sleep(2.1)  # until it is too old
        for sql in (
            f"SELECT n FROM t FOR SYSTEM_TIME AS OF {at}",
            f"SELECT n FROM t JOIN t FOR SYSTEM_TIME AS OF {at} AS o USING (n)",
            f"SELECT n FROM changes('t', {at})",
            f"SELECT n FROM changes('t', {at}, now())",
            f"SELECT count(*) FROM changes('t', {at}, {at})",
        ):
            before = time.time_ns()
            oldest = time_of(refused(db, sql, TOO_OLD))
            assert before - 2 * SECOND <= oldest <= time.time_ns() - 2 * SECOND
        refused(db, "SELECT n FROM t FOR SYSTEM_TIME AS OF ?", TOO_OLD, params=moment(at))
        # What the oldest one is goes on with the clock.
        recent = time.time_ns() - SECOND
        assert rows(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {recent}") == [(2,)]
        assert rows(db, f"SELECT n FROM changes('t', {recent})") == []
        assert rows(db, "SELECT n FROM t FOR SYSTEM_TIME AS OF now() - INTERVAL '1 second'") == [(2,)]
        checked(server)


def archived(db: seracdb.Connection) -> int:
    return one(db, "SELECT archived_files FROM system.tables WHERE \"table\" = 't'")


def removed(db: seracdb.Connection) -> None:
    """Waits until no superseded file is left."""

    def all_gone() -> bool:
        assert done(db, run_job(db, "retention"))["state"] == "completed"
        return archived(db) == 0

    until(all_gone, "superseded files are removed")


def test_times_whose_files_are_gone_stay_unreadable(tmp_path):
    short, long = ({"SERACDB_COMPACTION__RETENTION_SECONDS": seconds} for seconds in ("1", "86400"))
    server = Server(tmp_path / "data", variables=short)
    with server:
        with root(server) as db:
            run_all(db, "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1), (2)", "STORAGE FLUSH TABLE t")
            old = time.time_ns()
            run_all(db, "UPDATE t SET n = n + 10", "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
            later = time.time_ns()
            assert archived(db) > 0
            removed(db)
        server.stop()
        server.variables = long
        server.start()
        with root(server) as db:
            for sql in (f"SELECT n FROM t FOR SYSTEM_TIME AS OF {old}", f"SELECT n FROM changes('t', {old})"):
                assert old < time_of(refused(db, sql, TOO_OLD)) <= later
            oldest = time_of(refused(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {old}", TOO_OLD))
            # What it names can be read.
            for at in (oldest, later):
                assert rows(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {at} ORDER BY n") == [(11,), (12,)]
                assert rows(db, f"SELECT n FROM changes('t', {at})") == []
            db.run("DELETE FROM t WHERE n = 11")
            assert rows(db, f"SELECT n, _op FROM changes('t', {oldest})") == [(None, "delete")]
        checked(server)


def test_who_follows_a_table_goes_on_however_long_it_was_quiet(tmp_path):
    variables = {"SERACDB_COMPACTION__RETENTION_SECONDS": "4", "SERACDB_COMPACTION__AUTOMATIC": "false"}
    with Server(tmp_path / "data", variables=variables) as server:
        db = root(server)
        run_all(db, "CREATE TABLE t (k INT UNIQUE, n INT)", "CREATE TABLE hot (k INT)")
        created = time.time_ns()
        run_all(db, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)", "INSERT INTO hot VALUES (1)")
        inserted = one(db, "SELECT max(_updated) FROM t")
        run_all(db, "UPDATE t SET n = n + 10 WHERE k = 1", "DELETE FROM t WHERE k = 3")
        since = one(db, f"SELECT max(_updated) FROM changes('t', {created})")
        quiet = one(db, "SELECT _updated FROM hot")
        run_all(db, "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
        assert archived(db) > 0, "older versions have files of their own"
        removed(db)
        for _ in range(2):
            assert rows(db, f"SELECT * FROM changes('t', {since})") == []
            assert rows(db, f"SELECT * FROM changes('t', {since}, now())") == []
            assert rows(db, f"SELECT * FROM changes('hot', {quiet})") == []
            # What came meanwhile is kept no more, be it there or not.
            for at in (created, inserted, since - 1):
                refused(db, f"SELECT * FROM changes('t', {at})", TOO_OLD)
            refused(db, f"SELECT * FROM changes('hot', {quiet - 1})", TOO_OLD)
            refused(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {since}", TOO_OLD)
            db.close()
            server.restart()
            db = root(server)
        run_all(db, "UPDATE t SET n = 0 WHERE k = 2", "INSERT INTO t VALUES (4, 4)", "DELETE FROM t WHERE k = 1")
        db.run("UPDATE hot SET k = 2")
        came = [(2, 0, "update"), (4, 4, "insert"), (None, None, "delete")]
        for end in ("", "STORAGE FLUSH ALL", "STORAGE COMPACT TABLE t"):
            if end:
                db.run(end)
            assert rows(db, f"SELECT k, n, _op FROM changes('t', {since})") == came
            assert rows(db, f"SELECT k, _op FROM changes('hot', {quiet})") == [(2, "update")]
        db.close()
        checked(server)


def test_now_can_be_read_with_no_retention_at_all(tmp_path):
    """A statement's own snapshot keeps what it needs, whatever is written and removed while it begins."""
    variables = {"SERACDB_COMPACTION__RETENTION_SECONDS": "0", "SERACDB_COMPACTION__AUTOMATIC": "false"}
    with Server(tmp_path / "data", variables=variables) as server:
        with root(server) as db:
            run_all(db, "CREATE TABLE t (k INT UNIQUE, n INT)", "INSERT INTO t SELECT value, 0 FROM generate_series(1, 50)")

        def change(is_over: threading.Event) -> int:
            count = 0
            with root(server) as db:
                while not is_over.is_set():
                    assert db.run("UPDATE t SET n = n + 1") == 50
                    count += 1
                    if count % 10 == 0:
                        run_all(db, "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
                        run_job(db, "retention")
            return count

        def read(is_over: threading.Event) -> int:
            count = 0
            with root(server) as db:
                while not is_over.is_set():
                    assert rows(db, "SELECT count(*), max(n) - min(n) FROM t FOR SYSTEM_TIME AS OF now()") == [(50, 0)]
                    assert one(db, "SELECT count(*) FROM changes('t', now()) WHERE n < 0") == 0
                    count += 1
            return count

        assert all(together(3, change, read, read))
        checked(server)


def test_columns_change_while_it_is_read_what_was(tmp_path):
    """A statement reads with the columns of its begin, or begins again: later rows have others."""
    with Server(tmp_path / "data") as server:
        with root(server) as db:
            run_all(db, "CREATE TABLE t (k INT UNIQUE, n INT)", "INSERT INTO t SELECT value, 0 FROM generate_series(1, 20)")

        def change(is_over: threading.Event) -> int:
            count = 0
            with root(server) as db:
                while not is_over.is_set():
                    run_all(db, f"ALTER TABLE t ADD COLUMN c{count} INT DEFAULT 7", f"UPDATE t SET n = n + 1, c{count} = {count}")
                    run_all(db, f"ALTER TABLE t DROP COLUMN c{count}", "UPDATE t SET n = n + 1")
                    count += 1
            return count

        def read(is_over: threading.Event) -> int:
            count = 0
            with root(server) as db:
                while not is_over.is_set():
                    try:
                        assert rows(db, "SELECT count(*), max(n) - min(n) FROM t FOR SYSTEM_TIME AS OF now()") == [(20, 0)]
                        assert one(db, "SELECT count(*) FROM changes('t', now() - INTERVAL '1 millisecond', now()) WHERE n < 0") == 0
                        count += 1
                    except seracdb.Conflict as why:
                        assert "was changed or dropped while the statement began" in str(why)
            return count

        assert all(together(3, change, read, read))
        checked(server)


ROWS = 200_000


def test_who_reads_a_time_keeps_its_files(tmp_path):
    """However long that takes: the retention passes, and files go only when nobody reads them."""
    variables = {"SERACDB_COMPACTION__RETENTION_SECONDS": "6", "SERACDB_COMPACTION__AUTOMATIC": "false"}
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db, root(server) as reader:
        numbers = pa.array(range(ROWS), pa.int64())
        db.run("CREATE TABLE t (n BIGINT, s TEXT)")
        assert db.ingest("t", pa.table({"n": numbers, "s": pa.array(f"{n:>200}" for n in range(ROWS))})) == ROWS
        db.run("STORAGE FLUSH TABLE t")
        at = time.time_ns()
        run_all(db, f"DELETE FROM t WHERE n >= {ROWS // 100}", "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
        assert archived(db) > 0
        batches = iter(reader.stream(f"SELECT n, s FROM t FOR SYSTEM_TIME AS OF {at}"))
        found = [next(batches)]
        until(lambda: time.time_ns() > at + 7 * SECOND, "it is too old")
        for _ in range(2):
            assert done(db, run_job(db, "retention"))["state"] == "completed"
        assert archived(db) > 0, "they are read"
        refused(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {at}", TOO_OLD)
        found.extend(batches)
        read = pa.Table.from_batches(found).sort_by("n")
        assert read["n"].combine_chunks().equals(numbers)
        assert read["s"].to_pylist() == [f"{n:>200}" for n in range(ROWS)]
        removed(db)
        refused(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {at}", TOO_OLD)
        checked(server)


# Columns that have come, gone, and been renamed since.


@pytest.mark.parametrize("state", ["hot", "flushed", "merged", "killed"])
def test_the_past_has_the_columns_of_today(tmp_path, state):
    with Server(tmp_path / "data", variables={"SERACDB_COMPACTION__AUTOMATIC": "false"}) as server:

        def settled(*statements: str, table: str = "t") -> int:
            """Gives a time after them."""
            with root(server) as db:
                run_all(db, *statements)
                if state != "hot":
                    db.run(f"STORAGE FLUSH TABLE {table}")
                if state == "merged":
                    db.run(f"STORAGE COMPACT TABLE {table}")
            if state == "killed":
                server.kill()
                server.start()
            return time.time_ns()

        created = settled("CREATE TABLE t (k INT, a TEXT, gone INT)")
        first = settled("INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20)")
        second = settled("ALTER TABLE t ADD COLUMN c INT DEFAULT 7", "UPDATE t SET a = 'eins' WHERE k = 1")
        new_default = "ALTER TABLE t ALTER COLUMN c SET DEFAULT 8"
        third = settled("ALTER TABLE t RENAME COLUMN a TO name", new_default, "DELETE FROM t WHERE k = 2")
        wider = "ALTER TABLE t ALTER COLUMN k TYPE BIGINT"
        settled("ALTER TABLE t DROP COLUMN gone", wider, "INSERT INTO t VALUES (3, 'drei', NULL)")
        fourth = settled("INSERT INTO t (k) VALUES (3000000000)", "ALTER TABLE t ADD COLUMN gone TEXT DEFAULT 'new'")
        settled("UPDATE t SET gone = 'old', c = c + 1 WHERE k = 1", "ALTER TABLE t RENAME TO u", table="u")
        with root(server) as db:
            one_, two = (1, "one", 7, "new"), (2, "two", 7, "new")
            three, big = (3, "drei", None, "new"), (3000000000, None, 8, "new")
            for at, wanted in {
                created: [],
                first: [one_, two],
                second: [(1, "eins", 7, "new"), two],
                third: [(1, "eins", 7, "new")],
                fourth: [(1, "eins", 7, "new"), three, big],
                time.time_ns(): [(1, "eins", 8, "old"), three, big],
            }.items():
                of_then = f"u FOR SYSTEM_TIME AS OF {at}"
                found = db.query(f"SELECT * EXCLUDE (_id, _updated) FROM {of_then} ORDER BY k")
                assert (found.column_names, tuples(found)) == (["k", "name", "c", "gone"], wanted)
                for condition, holds in {
                    "c = 7": lambda row: row[2] == 7,
                    "name = 'eins'": lambda row: row[1] == "eins",
                    "gone = 'new' AND k > 1": lambda row: row[3] == "new" and row[0] > 1,
                    "c IS NULL": lambda row: row[2] is None,
                    "k = 3000000000": lambda row: row[0] == 3000000000,
                }.items():
                    holding = [row[:1] for row in wanted if holds(row)]
                    assert rows(db, f"SELECT k FROM {of_then} WHERE {condition} ORDER BY k") == holding
            nothing = (None, None, None, None)
            of_all = [
                (*one_, "insert"),
                (*two, "insert"),
                (1, "eins", 7, "new", "update"),
                (*nothing, "delete"),
                (*three, "insert"),
                (*big, "insert"),
                (1, "eins", 8, "old", "update"),
            ]
            found = db.query(f"SELECT * EXCLUDE (_id, _updated) FROM changes('u', {created})")
            assert (found.column_names, tuples(found)) == (["k", "name", "c", "gone", "_op"], of_all)
            for since, passed in {first: 2, second: 3, third: 4, fourth: 6}.items():
                assert rows(db, f"SELECT k, name, c, gone, _op FROM changes('u', {since})") == of_all[passed:]
            missing = "unknown column 'a'"
            refused(db, f"SELECT a FROM u FOR SYSTEM_TIME AS OF {first}", missing, seracdb.NotFound)
            refused(db, f"SELECT a FROM changes('u', {first})", missing, seracdb.NotFound)
        checked(server)


def test_a_table_of_the_same_name_has_a_history_of_its_own(db):
    run_all(db, "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1)")
    at = time.time_ns()
    for replaced in (
        ("DROP TABLE t", "CREATE TABLE t (n TEXT)"),
        ("CREATE OR REPLACE TABLE t (x INT)",),
        ("CREATE OR REPLACE TABLE t AS SELECT 5 AS n",),
    ):
        run_all(db, *replaced)
        refused(db, f"SELECT * FROM t FOR SYSTEM_TIME AS OF {at}", CREATED_LATER)
        refused(db, f"SELECT * FROM changes('t', {at})", CREATED_LATER)
        at = time.time_ns()
    assert rows(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {at}") == [(5,)]


# Times, in all that can be said.


def test_times_in_every_form(db):
    run_all(db, "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1)")
    at = one(db, "SELECT _updated FROM t")
    run_all(db, "STORAGE FLUSH TABLE t", "UPDATE t SET n = 2")
    until(lambda: time.time_ns() // 1000 > one(db, "SELECT _updated FROM t") // 1000, "a microsecond passes")
    text = str(np.datetime64(at, "ns"))
    exact = [
        str(at),
        f"{at} + 0",
        f"({at})",
        f"CAST({at} AS BIGINT)",
        stamp(at),
        f"'{text}'",
        f"'{text}Z'",
        f"CAST('{text}' AS TIMESTAMP(9))",
        f"{stamp(at - SECOND)} + INTERVAL '1 second'",
        f"{stamp(at + 3600 * SECOND)} - INTERVAL '1 hour'",
        f"to_timestamp_nanos({at})",
        f"CASE WHEN 1 < 2 THEN {stamp(at)} END",
        f"'{str(np.datetime64(at + 2 * 3600 * SECOND, 'ns'))}+02:00'",
    ]
    for form in exact:
        assert rows(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {form}") == [(1,)], form
        assert rows(db, f"SELECT n, _op FROM changes('t', {form})") == [(2, "update")], form
        assert rows(db, f"SELECT n FROM changes('t', {form}, {form})") == [], form
    for form in (str(at - 1), stamp(at - 1), f"{stamp(at)} - INTERVAL '1 nanosecond'"):
        assert rows(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {form}") == [], form
        assert rows(db, f"SELECT n, _op FROM changes('t', {form}, {at})") == [(1, "insert")], form
    for form in ("now()", "current_timestamp", "now() - INTERVAL '1 microsecond'", "CAST(now() AS TIMESTAMP(9))"):
        assert rows(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {form}") == [(2,)], form


def test_times_that_are_none(db):
    run_all(db, "CREATE TABLE t (n INT, at TIMESTAMP)", "INSERT INTO t VALUES (1, now())")
    hour = 3600 * SECOND
    for form, text in {
        "NULL": "it is NULL",
        "CAST(NULL AS TIMESTAMP)": "it is NULL",
        "now() + INTERVAL '1 hour'": TO_COME,
        str(time.time_ns() + hour): TO_COME,
        stamp(time.time_ns() + hour): TO_COME,
        "TIMESTAMP '2262-01-01 00:00:00'": TO_COME,
        "0": CREATED_LATER,
        "-1": CREATED_LATER,
        "DATE '2020-01-01'": CREATED_LATER,
        "now() - INTERVAL '1 hour'": CREATED_LATER,
        "now() - INTERVAL '400 days'": CREATED_LATER,
        "random()": "may not depend on rows",
        "at": "may not depend on rows",
        "(SELECT max(at) FROM t)": "may not depend on rows",
        "'yesterday'": "a time of AS OF or changes(…)",
        "true": "a time of AS OF or changes(…)",
        "[1]": "a time of AS OF or changes(…)",
        "TIMESTAMP '9999-01-01 00:00:00'": "",
        "1 / 0": "",
    }.items():
        refused(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {form}", text)
        refused(db, f"SELECT n FROM changes('t', {form})", text)
        span = f"SELECT n FROM changes('t', now(), {form})"
        if text == CREATED_LATER:
            # Nothing is in such a span.
            assert rows(db, span) == [], form
        else:
            refused(db, span, text)
    for params in (pa.table({"at": pa.array([None], pa.timestamp("ns"))}), [None]):
        refused(db, "SELECT n FROM t FOR SYSTEM_TIME AS OF ?", "it is NULL", params=params)


def test_statements_are_prepared_with_times_and_run_at_others(db):
    run_all(db, "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1)")
    created = one(db, "SELECT created_at FROM system.tables WHERE \"table\" = 't'")
    times = []
    for n in range(2, 6):
        times.append(one(db, "SELECT max(_updated) FROM t"))
        db.run(f"UPDATE t SET n = {n}")
        if n == 3:
            db.run("STORAGE FLUSH TABLE t")
    times.append(one(db, "SELECT max(_updated) FROM t"))
    with db.cursor() as cursor:

        def results(sql: str, *params: object) -> list[list[tuple]]:
            cursor.adbc_prepare(sql)
            found = []
            for each in params:
                cursor.execute(sql, each)
                found.append(tuples(cursor.fetch_arrow_table()))
            return found

        as_of = "SELECT n FROM t FOR SYSTEM_TIME AS OF ?"
        assert results(as_of, *map(moment, [created, *times])) == [[], [(1,)], [(2,)], [(3,)], [(4,)], [(5,)]]
        zoned = [pa.table({"at": pa.array([at], pa.timestamp("ns", "UTC"))}) for at in times]
        assert results(as_of, *zoned) == [[(1,)], [(2,)], [(3,)], [(4,)], [(5,)]]
        # Python's times end at microseconds: here the next one.
        rounded = [dt.datetime.fromtimestamp(0) + dt.timedelta(microseconds=at // 1000 + 1) for at in times]
        offset = dt.datetime.fromtimestamp(0) - dt.datetime(1970, 1, 1)
        assert results(as_of, *([at - offset] for at in rounded)) == [[(1,)], [(2,)], [(3,)], [(4,)], [(5,)]]
        filtered = "SELECT n FROM t FOR SYSTEM_TIME AS OF $1 WHERE n > $2"
        both = [pa.table({"at": pa.array([at], pa.timestamp("ns")), "n": pa.array([3], pa.int32())}) for at in times]
        assert results(filtered, *both) == [[], [], [], [(4,)], [(5,)]]
        span = "SELECT n, _op FROM changes('t', $1, $2)"
        at_ns = pa.timestamp("ns")
        spans = [pa.table({"a": pa.array([first], at_ns), "b": pa.array([last], at_ns)}) for first, last in pairwise(times)]
        assert results(span, *spans) == [[(n, "update")] for n in range(2, 6)]
        twice = "SELECT a.n, b.n FROM t FOR SYSTEM_TIME AS OF $1 AS a, t FOR SYSTEM_TIME AS OF $1 AS b"
        assert results(twice, moment(times[1])) == [[(2, 2)]]
        before = "SELECT n FROM t FOR SYSTEM_TIME AS OF CAST(? AS TIMESTAMP(9)) - INTERVAL '1 nanosecond'"
        assert results(before, *map(moment, times)) == [[], [(1,)], [(2,)], [(3,)], [(4,)]]
        after = "SELECT n FROM changes('t', $1 - INTERVAL '1 nanosecond', $1)"
        assert results(after, *map(moment, times)) == [[(n,)] for n in range(1, 6)]
        # now() is that of each execution.
        for sql in ("SELECT n FROM t FOR SYSTEM_TIME AS OF now()", f"SELECT max(n) FROM changes('t', {created}, now())"):
            cursor.adbc_prepare(sql)
            for _ in range(3):
                expected = one(db, "SELECT n FROM t") + 1
                db.run(f"UPDATE t SET n = {expected}")
                cursor.execute(sql)
                assert cursor.fetchall() == [(expected,)]
        cursor.adbc_prepare(as_of)
        for at, text in ((time.time_ns() + 60 * SECOND, TO_COME), (created - SECOND, CREATED_LATER)):
            with pytest.raises(seracdb.InvalidArgument, match=text):
                cursor.execute(as_of, moment(at))
                cursor.fetchall()
    # Changes with times, bound many times.
    run_all(db, "CREATE TABLE copies (n INT)")
    many = pa.table({"at": pa.array(times, pa.timestamp("ns"))})
    assert db.run("INSERT INTO copies SELECT n FROM t FOR SYSTEM_TIME AS OF ?", many) == 5
    assert rows(db, "SELECT n FROM copies ORDER BY n") == [(n,) for n in range(1, 6)]


def test_in_all_that_reads_and_all_that_changes(db):
    db.run("CREATE NAMESPACE app")
    db.run("CREATE TABLE app.t (k INT PRIMARY KEY, s TEXT)")
    run_all(db, "INSERT INTO app.t VALUES (1, 'one'), (2, 'two'), (3, 'three')", "STORAGE FLUSH ALL")
    at = time.time_ns()
    db.run("UPDATE app.t SET s = upper(s) WHERE k = 1")
    run_all(db, "DELETE FROM app.t WHERE k = 2", "INSERT INTO app.t VALUES (4, 'four')")
    old, of_then = f"app.t FOR SYSTEM_TIME AS OF {at}", [(1, "one"), (2, "two"), (3, "three")]
    for sql, wanted in {
        f"SELECT k, s FROM {old} ORDER BY k": of_then,
        f"SELECT t.k, app.t.s FROM {old} ORDER BY t.k": of_then,
        f"SELECT o.k, o.s FROM {old} AS o ORDER BY 1": of_then,
        f"SELECT o.b, o.c FROM {old} o(a, b, c, d) ORDER BY 1": of_then,
        f"SELECT o.k, n.k FROM {old} AS o FULL JOIN app.t AS n USING (_id) ORDER BY coalesce(o.k, n.k)": [
            (1, 1), (2, None), (3, 3), (None, 4)
        ],
        f"SELECT o.s, n.s FROM app.t AS n JOIN {old} AS o ON n.k = o.k AND n.s <> o.s": [("one", "ONE")],
        f"SELECT k FROM app.t WHERE EXISTS (SELECT 1 FROM {old} AS o WHERE o.k = t.k) ORDER BY k": [(1,), (3,)],
        f"SELECT k FROM app.t WHERE k NOT IN (SELECT k FROM {old})": [(4,)],
        f"SELECT k, (SELECT max(o.s) FROM {old} AS o WHERE o._id = t._id) AS s FROM app.t ORDER BY k": [
            (1, "one"), (3, "three"), (4, None)
        ],
        f"WITH o AS (SELECT * FROM {old}) SELECT count(*), max(s) FROM o": [(3, "two")],
        f"SELECT s FROM {old} EXCEPT SELECT s FROM app.t ORDER BY s": [("one",), ("two",)],
        f"SELECT k, row_number() OVER (ORDER BY k DESC) AS r FROM {old} ORDER BY k": [(1, 3), (2, 2), (3, 1)],
        f"SELECT count(*) FROM {old}": [(3,)],
        f"SELECT k FROM {old} ORDER BY k DESC LIMIT 1": [(3,)],
        f"SELECT count(*) FROM (SELECT * FROM {old} LIMIT 2) AS x": [(2,)],
        f"SELECT k FROM {old} WHERE k = 2 OR s = 'ONE'": [(2,)],
        f"SELECT count(*) FROM {old} AS a, {old} AS b, app.t FOR SYSTEM_TIME AS OF now() AS c": [(27,)],
        f"SELECT _deleted, count(*) FROM {old} GROUP BY 1": [(False, 3)],
        f"SELECT count(*) FROM {old} WHERE _updated <= {stamp(at)} AND _id > 0": [(3,)],
        f"SELECT k, s, _op FROM changes('app.t', {at}) WHERE _op <> 'delete'": [(1, "ONE", "update"), (4, "four", "insert")],
        f"SELECT c._op, o.k FROM changes('app.t', {at}) AS c JOIN {old} AS o USING (_id) ORDER BY o.k": [("update", 1), ("delete", 2)],
        f"SELECT x.o FROM changes('app.t', {at}) AS x(i, k, s, u, o) WHERE x.k = 4": [("insert",)],
        f"WITH c AS (SELECT _op AS op FROM changes('app.t', {at})) SELECT op, count(*) FROM c GROUP BY op ORDER BY op": [
            ("delete", 1), ("insert", 1), ("update", 1)
        ],
        f"SELECT k FROM app.t WHERE _id IN (SELECT _id FROM changes('app.t', {at})) ORDER BY k": [(1,), (4,)],
        f"SELECT count(*) FROM changes('app.t', {at})": [(3,)],
        f"SELECT _op FROM changes('app.t', {at}) LIMIT 1": [("update",)],
        f"SELECT _op FROM changes('app.t', {at}) ORDER BY _updated DESC LIMIT 1": [("insert",)],
    }.items():
        assert rows(db, sql) == wanted, sql
    for sql in (f"SELECT k FROM {old} WHERE k = 1", f"SELECT * FROM changes('app.t', {at})"):
        assert all(db.query(f"{explain} {sql}").num_rows > 0 for explain in ("EXPLAIN", "EXPLAIN ANALYZE", "EXPLAIN VERBOSE"))
    then, now = db.query(f"SELECT * FROM {old}").schema, db.query("SELECT * FROM app.t").schema
    assert then.names == now.names and then.types == now.types
    # NULL may have been possible then.
    assert [field.name for field in then if not field.nullable] == ["_id", "_updated"]
    assert db.run(f"CREATE TABLE app.copy AS SELECT k, s FROM {old}") == 3
    assert rows(db, "SELECT k, s FROM app.copy ORDER BY k") == of_then
    assert db.run(f"INSERT INTO app.t SELECT k, s FROM {old} AS o WHERE k NOT IN (SELECT k FROM app.t)") == 1
    assert db.run(f"UPDATE app.t SET s = o.s FROM {old} AS o WHERE o.k = t.k AND o.s <> t.s") == 1
    assert db.run(f"DELETE FROM app.t WHERE k NOT IN (SELECT k FROM {old})") == 1
    assert rows(db, "SELECT k, s FROM app.t ORDER BY k") == of_then
    assert db.run(f"DELETE FROM app.copy USING changes('app.t', {at}) AS c WHERE c.k = copy.k AND c._op = 'update'") == 1
    assert db.run(f"MERGE INTO app.copy USING {old} AS o ON o.k = copy.k WHEN NOT MATCHED THEN INSERT (k) VALUES (o.k)") == 1
    assert rows(db, "SELECT k, s FROM app.copy ORDER BY k") == [(1, None), (2, "two"), (3, "three")]


def test_what_was_cannot_be_changed(db):
    """A time is for reading: a change that names one is refused, and changes nothing of today."""
    run_all(db, "CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1)")
    at = time.time_ns()
    run_all(db, "UPDATE t SET n = 2", "CREATE TABLE s (n INT)")
    for sql in (
        "UPDATE t FOR SYSTEM_TIME AS OF {} SET n = 3",
        "DELETE FROM t FOR SYSTEM_TIME AS OF {}",
        "DELETE FROM t FOR SYSTEM_TIME AS OF {} WHERE n = 2",
        "INSERT INTO t FOR SYSTEM_TIME AS OF {} VALUES (3)",
        "MERGE INTO t FOR SYSTEM_TIME AS OF {} USING s ON true WHEN NOT MATCHED BY SOURCE THEN DELETE",
        "TRUNCATE TABLE t FOR SYSTEM_TIME AS OF {}",
        "DELETE FROM changes('t', {})",
        "UPDATE changes('t', {}) SET n = 3",
        "INSERT INTO changes('t', {}) VALUES (1)",
    ):
        with pytest.raises(seracdb.Error):
            db.run(sql.format(at))
        assert rows(db, "SELECT n FROM t") == [(2,)], sql


def test_tables_of_any_name(db):
    db.run('CREATE NAMESPACE "n.s"')
    for name in ("a'b", 'a"b', "a.b", "A B", "ü", "select", "changes", "as_of", "?", "$1"):
        quoted = '"' + name.replace('"', '""') + '"'
        table = f'"n.s".{quoted}'
        run_all(db, f"CREATE TABLE {table} (n INT)", f"INSERT INTO {table} VALUES (1)")
        at = time.time_ns()
        db.run(f"UPDATE {table} SET n = 2")
        assert rows(db, f"SELECT {quoted}.n FROM {table} FOR SYSTEM_TIME AS OF {at}") == [(1,)]
        assert rows(db, f"SELECT n FROM {table} FOR SYSTEM_TIME AS OF ?", moment(at)) == [(1,)]
        text = table.replace("'", "''")
        assert rows(db, f"SELECT n, _op FROM changes('{text}', {at})") == [(2, "update")]


def test_a_column_of_the_name_of_what_a_change_did(db):
    run_all(db, "CREATE TABLE t (n INT, _op TEXT)", "INSERT INTO t VALUES (1, 'mine')")
    at = time.time_ns()
    assert rows(db, f"SELECT _op FROM t FOR SYSTEM_TIME AS OF {at}") == [("mine",)]
    refused(db, f"SELECT * FROM changes('t', {at})", "has a column _op of its own: rename that of table 't'")
    run_all(db, "ALTER TABLE t RENAME COLUMN _op TO op", "UPDATE t SET n = 2")
    assert rows(db, f"SELECT op, _op FROM changes('t', {at})") == [("mine", "update")]


# Who may read what.


def test_users_see_their_own_past_only(own_server, db):
    db.run("CREATE USER TABLE notes (n INT, s TEXT)")
    since = time.time_ns()
    for name in ("ann", "bob"):
        db.run(f"CREATE USER {name} WITH PASSWORD '{PASSWORD}' ROLE user")
    with seracdb.connect(own_server.uri, "ann", PASSWORD) as ann, seracdb.connect(own_server.uri, "bob", PASSWORD) as bob:
        ann.run("INSERT INTO notes VALUES (1, 'of ann'), (2, 'of ann')")
        bob.run("INSERT INTO notes VALUES (100, 'of bob')")
        at = time.time_ns()
        ann.run("DELETE FROM notes WHERE n = 1")
        bob.run("UPDATE notes SET n = 200")
        for end in ("", "STORAGE FLUSH TABLE notes", "STORAGE COMPACT TABLE notes"):
            if end:
                db.run(end)
            for user, old, changes in (
                (ann, [(1,), (2,)], [(1, "insert"), (2, "insert"), (None, "delete")]),
                (bob, [(100,)], [(100, "insert"), (200, "update")]),
                (db, [], []),
            ):
                assert rows(user, f"SELECT n FROM notes FOR SYSTEM_TIME AS OF {at} ORDER BY n") == old
                assert rows(user, f"SELECT n, _op FROM changes('notes', {since})") == changes
                assert one(user, f"SELECT count(*) FROM changes('notes', {since}) WHERE s LIKE '%ann%'") == (2 if user is ann else 0)


def test_the_past_wants_the_right_to_read(own_server, db):
    run_all(db, "CREATE TABLE t (n INT)", "CREATE TABLE own (n INT)", "INSERT INTO t VALUES (1)")
    db.run(f"CREATE USER ann WITH PASSWORD '{PASSWORD}'")
    at = time.time_ns()
    db.run("UPDATE t SET n = 2")
    as_of, changes = f"SELECT n FROM t FOR SYSTEM_TIME AS OF {at}", f"SELECT n FROM changes('t', {at})"
    hidden = "unknown table 't' (or you have no right to it)"
    with seracdb.connect(own_server.uri, "ann", PASSWORD) as ann, ann.cursor() as cursor:
        for sql in (as_of, changes):
            refused(ann, sql, hidden, seracdb.NotFound)
        db.run("GRANT INSERT, UPDATE, DELETE ON t TO ann")
        db.run("GRANT INSERT ON own TO ann")
        for sql in (as_of, changes, f"SELECT 1 WHERE EXISTS ({as_of})", f"EXPLAIN {as_of}", f"SELECT count(*) FROM ({changes}) AS x"):
            refused(ann, sql, "SELECT", seracdb.PermissionDenied)
        for sql in (f"INSERT INTO own {as_of}", f"INSERT INTO own {changes}", f"INSERT INTO t {as_of}"):
            with pytest.raises(seracdb.PermissionDenied):
                ann.run(sql)
        db.run("GRANT SELECT ON t TO ann")
        assert (rows(ann, as_of), rows(ann, changes)) == ([(1,)], [(2,)])
        assert ann.run(f"INSERT INTO own {as_of}") == 1
        # Also when the statement was prepared before.
        for sql in (as_of, changes):
            cursor.adbc_prepare(sql)
            db.run("REVOKE SELECT ON t FROM ann")
            with pytest.raises(seracdb.PermissionDenied):
                cursor.execute(sql)
                cursor.fetchall()
            db.run("GRANT SELECT ON t TO ann")


def test_a_service_reads_the_past_of_a_user(own_server):
    fill(own_server)
    since = time.time_ns()
    with Connections(own_server) as connections:
        service, ann, db = connections.open("the_service", PASSWORD), connections.open("ann", PASSWORD), connections.open()
        ann.run("INSERT INTO app.notes VALUES (1, 'one')")
        service.run("INSERT INTO app.notes VALUES (9, 'own')")
        at = time.time_ns()
        service.run("UPDATE app.notes AS USER 'ann' SET text = 'two'")
        was = f"app.notes FOR SYSTEM_TIME AS OF {at}"
        as_of, changes = f"SELECT n, text FROM {was}", f"SELECT text, _op FROM changes('app.notes', {since})"
        for settle in ("", "STORAGE FLUSH TABLE app.notes"):
            if settle:
                db.run(settle)
            assert rows(service, f"EXECUTE AS USER 'ann' ({as_of})") == rows(ann, as_of) == [(1, "one")]
            assert rows(service, f"EXECUTE AS USER 'ann' ({changes})") == rows(ann, changes) == [("one", "insert"), ("two", "update")]
            assert rows(service, f"EXECUTE AS USER 'bob' ({as_of})") == []
            assert rows(service, as_of) == [(9, "own")]
        restore = f"UPDATE app.notes SET text = o.text FROM {was} AS o WHERE o._id = notes._id"
        assert service.run(f"EXECUTE AS USER 'ann' ({restore})") == 1
        assert rows(ann, "SELECT n, text FROM app.notes") == [(1, "one")]
        refused(ann, f"EXECUTE AS USER 'bob' ({as_of})", "AS USER requires", seracdb.Error)
        refused(service, f"EXECUTE AS USER 'ann' (SELECT n FROM app.common FOR SYSTEM_TIME AS OF {at})", "", seracdb.Error)
        refused(service, f"EXECUTE AS USER 'ann' (SELECT n FROM changes('app.common', {at}))", "", seracdb.Error)
        log = shown(audit(db))
        assert log.count(("the_service", "ann", "SELECT", "app.notes", None, "allowed")) == 4


def test_a_transaction_sees_the_past_of_its_snapshot_and_nothing_of_its_own(own_server, db):
    run_all(db, "CREATE TABLE t (k INT, n INT)", "INSERT INTO t VALUES (1, 10), (2, 20)")
    first = time.time_ns()
    run_all(db, "UPDATE t SET n = 11 WHERE k = 1", "STORAGE FLUSH TABLE t")
    with root(own_server) as other:
        db.run("BEGIN")
        assert rows(db, "SELECT k, n FROM t ORDER BY k") == [(1, 11), (2, 20)]
        run_all(db, "UPDATE t SET n = 99 WHERE k = 1", "DELETE FROM t WHERE k = 2", "INSERT INTO t VALUES (3, 30)")
        other.run("INSERT INTO t VALUES (4, 40)")
        seen = time.time_ns()
        for at, wanted in ((first, [(1, 10), (2, 20)]), (seen, [(1, 11), (2, 20)])):
            assert rows(db, f"SELECT k, n FROM t FOR SYSTEM_TIME AS OF {at} ORDER BY k") == wanted
        assert rows(db, f"SELECT k, n, _op FROM changes('t', {first})") == [(1, 11, "update")]
        assert rows(db, f"SELECT k, n, _op FROM changes('t', {first}, {seen})") == [(1, 11, "update")]
        assert rows(other, f"SELECT k, _op FROM changes('t', {first})") == [(1, "update"), (4, "insert")]
        # What was can be written again.
        assert db.run(f"INSERT INTO t SELECT k + 100, n FROM t FOR SYSTEM_TIME AS OF {first}") == 2
        run_all(db, "SAVEPOINT s", "DELETE FROM t", "ROLLBACK TO s")
        db.run("CREATE TABLE young (n INT)")
        db.run("INSERT INTO young VALUES (1)")
        assert rows(db, "SELECT n FROM young FOR SYSTEM_TIME AS OF now()") == []
        db.run("COMMIT")
        at = one(db, "SELECT _updated FROM t WHERE k = 3")
        assert rows(db, f"SELECT k, n, _op FROM changes('t', {seen}, {at}) ORDER BY _op, k") == [
            (None, None, "delete"), (3, 30, "insert"), (101, 10, "insert"), (102, 20, "insert"), (1, 99, "update")
        ]
        assert rows(other, f"SELECT k FROM t FOR SYSTEM_TIME AS OF {at - 1} ORDER BY k") == [(1,), (2,), (4,)]
        assert rows(other, f"SELECT k FROM t FOR SYSTEM_TIME AS OF {at} ORDER BY k") == [(1,), (3,), (4,), (101,), (102,)]
        other.run("BEGIN")
        other.run("DELETE FROM t")
        other.run("ROLLBACK")
        assert rows(db, f"SELECT _op FROM changes('t', {at})") == []
        # Reading what was is no reason for a conflict.
        db.run("BEGIN")
        rows(db, f"SELECT n FROM t FOR SYSTEM_TIME AS OF {first}")
        other.run("UPDATE t SET n = 0 WHERE k = 1")
        db.run("UPDATE t SET n = 0 WHERE k = 3")
        db.run("COMMIT")


def test_rows_that_come_and_go_within_a_commit_were_never_there(db):
    run_all(db, "CREATE TABLE t (k INT UNIQUE, n INT)", "INSERT INTO t VALUES (1, 1)")
    at = one(db, "SELECT max(_updated) FROM t")
    with db.transaction():
        run_all(db, "INSERT INTO t VALUES (2, 2)", "DELETE FROM t WHERE k = 2")
        run_all(db, "UPDATE t SET n = 5 WHERE k = 1", "UPDATE t SET n = 6 WHERE k = 1")
    for end in ("", "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t"):
        if end:
            db.run(end)
        assert rows(db, f"SELECT k, n, _op FROM changes('t', {at})") == [(1, 6, "update")]


# A new machine.


def test_a_new_machine_has_no_past_but_its_own(shared, tmp_path):
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            run_all(db, "CREATE TABLE t (k INT, s TEXT)", "CREATE TABLE empty (k INT)", "INSERT INTO t VALUES (1, 'one'), (2, 'two')")
            run_all(db, "STORAGE FLUSH TABLE t")
            old = time.time_ns()
            run_all(db, "UPDATE t SET s = 'eins' WHERE k = 1", "DELETE FROM t WHERE k = 2", "STORAGE FLUSH TABLE t")
            run_all(db, "INSERT INTO t VALUES (3, 'drei')", "STORAGE FLUSH TABLE t", "STORAGE COMPACT TABLE t")
            last = one(db, "SELECT max(_updated) FROM t")
            assert rows(db, f"SELECT s FROM t FOR SYSTEM_TIME AS OF {old} ORDER BY k") == [("one",), ("two",)]
        second = successor(tmp_path, shared, first)
    with second:
        for _ in range(2):
            with root(second) as db:
                assert rows(db, "SELECT s FROM t ORDER BY k") == [("eins",), ("drei",)]
                for at in (old, last):
                    for sql in (f"SELECT s FROM t FOR SYSTEM_TIME AS OF {at}", f"SELECT s FROM changes('t', {at})"):
                        oldest = time_of(refused(db, sql, "that is the oldest time to read"))
                        assert last < oldest
                # From there on all is known.
                assert rows(db, f"SELECT s FROM t FOR SYSTEM_TIME AS OF {oldest} ORDER BY k") == [("eins",), ("drei",)]
                assert rows(db, f"SELECT s FROM changes('t', {oldest})") == []
                assert rows(db, "SELECT k FROM empty FOR SYSTEM_TIME AS OF now()") == []
            second.restart()
        with root(second) as db:
            run_all(db, "UPDATE t SET s = 'one' WHERE k = 1", "INSERT INTO t VALUES (4, 'vier')", "INSERT INTO empty VALUES (1)")
            later = one(db, "SELECT max(_updated) FROM empty")
            run_all(db, "STORAGE FLUSH ALL", "DELETE FROM t WHERE k = 3", "STORAGE COMPACT TABLE t")
            wanted = [("one", "update"), ("vier", "insert"), (None, "delete")]
            assert rows(db, f"SELECT s, _op FROM changes('t', {oldest})") == wanted
            assert rows(db, f"SELECT s, _op FROM changes('t', {later})") == wanted[2:]
            assert rows(db, f"SELECT s FROM t FOR SYSTEM_TIME AS OF {later} ORDER BY k") == [("one",), ("drei",), ("vier",)]
            assert rows(db, f"SELECT k FROM empty FOR SYSTEM_TIME AS OF {later}") == [(1,)]
            refused(db, f"SELECT s FROM t FOR SYSTEM_TIME AS OF {old}", "that is the oldest time to read")
        second.stop()
        clean(second.data_dir, "--object-store", shared.url)


def test_now_can_be_read_when_a_new_machine_has_just_begun(tmp_path):
    """Its commits have later times than its clock for a while, so that they are after all that the machine before has committed."""
    shared = Folder(tmp_path / "shared")
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            run_all(db, "CREATE TABLE t (k INT)", "INSERT INTO t VALUES (1)", "STORAGE FLUSH TABLE t")
        second = successor(tmp_path, shared, first)
    with second, root(second) as db:
        assert rows(db, "SELECT k FROM t FOR SYSTEM_TIME AS OF now()") == [(1,)]
        assert rows(db, "SELECT k FROM changes('t', now())") == []
        db.run("INSERT INTO t VALUES (2)")
        assert rows(db, "SELECT k FROM t FOR SYSTEM_TIME AS OF now() ORDER BY k") == [(1,), (2,)]
