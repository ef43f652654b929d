"""Many writers of one key at the same time, in every way that a row comes to have it: one of them has it, and all others are told."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pyarrow as pa
import pytest
import seracdb
from checking import clean
from conftest import Connections, root
from testserver import Server

WRITERS = 8
KEYS = 5
PASSWORD = "long enough"
_names = count(1)

Write = Callable[[seracdb.Connection, int, int], object]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Server]:
    """A server for all of these tests, on which loads of some rows are files; at the end nothing is wrong with it."""
    variables = {"SERACDB_ENGINE__BULK_BYTES_MIN": "2000"}
    with Server(tmp_path_factory.mktemp("races") / "data", variables=variables) as server:
        with root(server) as db:
            for user in ("ann", "bob"):
                db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE user")
        yield server
        server.stop()
        clean(server.data_dir, variables=variables)


@pytest.fixture
def writers(served) -> Iterator[list[seracdb.Connection]]:
    with Connections(served) as connections:
        yield [connections.open() for _ in range(WRITERS)]


@pytest.fixture
def db(writers) -> seracdb.Connection:
    return writers[0]


@pytest.fixture
def t() -> str:
    """The name of a table."""
    return f"t{next(_names)}"


def race(writers: list[seracdb.Connection], write: Write, keys: range = range(KEYS)) -> dict[int, list[tuple[int, object]]]:
    """All write each key at the same time. By key, of each writer what came of it: a result or what it was told."""
    barrier = threading.Barrier(len(writers), timeout=120)

    def work(who: int) -> list[object]:
        came = []
        try:
            for k in keys:
                barrier.wait()
                try:
                    came.append(write(writers[who], k, who))
                except seracdb.AlreadyExists as error:
                    came.append(error)
        except BaseException:
            barrier.abort()
            raise
        return came

    with ThreadPoolExecutor(len(writers)) as pool:
        running = [pool.submit(work, who) for who in range(len(writers))]
        # What went wrong, and not that the others could not go on.
        failed = [error for one in running if (error := one.exception()) and not isinstance(error, threading.BrokenBarrierError)]
        if failed:
            raise failed[0]
    came = [one.result() for one in running]
    return {k: [(who, came[who][n]) for who in range(len(writers))] for n, k in enumerate(keys)}


def one_wins(outcomes: list[tuple[int, object]], told: str) -> int:
    """Who it was. The others were refused and told what stands there."""
    won = [who for who, came in outcomes if not isinstance(came, Exception)]
    assert len(won) == 1, outcomes
    assert all(re.search(told, str(came)) for _, came in outcomes if isinstance(came, Exception)), (told, outcomes)
    return won[0]


def rows(db: seracdb.Connection, sql: str) -> list[tuple]:
    return [tuple(row.values()) for row in db.query(sql).to_pylist()]


def already(t: str, columns: str, values: str) -> str:
    return rf"\btable 'default\.{t}' has a row with \({columns}\) = \({re.escape(values)}\) already"


# Ways to declare a key: the columns, those that the key has, their values for a number, and those as a refusal shows them.
SHAPES: dict[str, tuple[str, str, str, str]] = {
    "primary": ("k BIGINT PRIMARY KEY", "k", "{k}", "{k}"),
    "composite": ("a TEXT, k BIGINT, PRIMARY KEY (k, a)", "k, a", "{k}, 'of {k}'", "{k}, 'of {k}'"),
    "unique": ("k TEXT UNIQUE", "k", "'{k}'", "'{k}'"),
    "nulls are one": ("k BIGINT, a TEXT, UNIQUE NULLS NOT DISTINCT (a, k)", "a, k", "NULL, {k}", "NULL, {k}"),
    "generated": ("g BIGINT, k BIGINT GENERATED ALWAYS AS (g + 1) STORED UNIQUE", "g", "{k}", "{k}"),
}


def shaped(shape: str, t: str, k: int) -> tuple[str, str, str]:
    """The key's columns and its values in SQL, and what is said of it."""
    _, columns, values, shown = SHAPES[shape]
    told = already(t, "k", str(k + 1)) if shape == "generated" else already(t, columns, shown.format(k=k))
    return columns, values.format(k=k), told


def create(db: seracdb.Connection, t: str, shape: str, kind: str = "") -> None:
    db.run(f"CREATE {kind} TABLE {t} ({SHAPES[shape][0]}, who BIGINT)")


def place(shape: str, t: str, k: int) -> str:
    """A condition for the row of this key."""
    columns, values, _ = shaped(shape, t, k)
    return " AND ".join(f"({c.strip()} IS NOT DISTINCT FROM {v.strip()})" for c, v in zip(columns.split(","), values.split(","), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_one_of_many_inserts_wins(writers, db, t, shape):
    create(db, t, shape)

    def insert(writer: seracdb.Connection, k: int, who: int) -> int:
        if who == 0 and k % 3 == 0:
            writer.run(f"STORAGE FLUSH TABLE {t}")
        columns, values, _ = shaped(shape, t, k)
        return writer.run(f"INSERT INTO {t} ({columns}, who) VALUES ({values}, {who})")

    came = race(writers, insert)
    won = {k: one_wins(outcomes, shaped(shape, t, k)[2]) for k, outcomes in came.items()}
    for _ in range(2):
        assert rows(db, f"SELECT count(*) FROM {t}") == [(KEYS,)]
        for k, who in won.items():
            assert rows(db, f"SELECT who FROM {t} WHERE {place(shape, t, k)}") == [(who,)]
        db.run(f"STORAGE FLUSH TABLE {t}")


@pytest.mark.parametrize(
    ("shape", "away", "state"),
    [
        ("primary", "deleted", "hot"),
        ("primary", "updated", "hot"),
        ("primary", "deleted", "flushed"),
        ("composite", "updated", "flushed"),
        ("composite", "overwritten and deleted", "flushed"),
        ("nulls are one", "deleted", "flushed"),
        ("nulls are one", "overwritten and deleted", "hot"),
    ],
)
def test_one_of_many_gets_a_key_that_becomes_free(writers, db, t, shape, away, state):
    """The row that has it goes while all others try to insert one. Who is refused tries again, until another of them has it."""
    create(db, t, shape)
    for k in range(KEYS):
        columns, values, _ = shaped(shape, t, k)
        db.run(f"INSERT INTO {t} ({columns}, who) VALUES ({values}, -1)")
    if state == "flushed":
        db.run(f"STORAGE FLUSH TABLE {t}")

    def write(writer: seracdb.Connection, k: int, who: int) -> object:
        columns, values, told = shaped(shape, t, k)
        where = place(shape, t, k)
        if who == 0:
            if away == "overwritten and deleted":
                assert writer.run(f"UPDATE {t} SET who = -2 WHERE {where}") == 1
            # The old row only: another's may be there by then.
            gone = f"UPDATE {t} SET k = k + 1000 WHERE" if away == "updated" else f"DELETE FROM {t} WHERE"
            assert writer.run(f"{gone} who < 0 AND {where}") == 1
            return None
        for _ in range(1000):
            try:
                return writer.run(f"INSERT INTO {t} ({columns}, who) VALUES ({values}, {who})")
            except seracdb.AlreadyExists as error:
                assert re.search(told, str(error)), (told, str(error))
                if any(found >= 0 for (found,) in rows(writer, f"SELECT who FROM {t} WHERE {where}")):
                    raise
        raise AssertionError("nobody has it")

    came = race(writers, write)
    for k, outcomes in came.items():
        who = one_wins(outcomes[1:], shaped(shape, t, k)[2])
        assert rows(db, f"SELECT who FROM {t} WHERE {place(shape, t, k)}") == [(who,)]
    kept = KEYS if away == "updated" else 0
    assert rows(db, f"SELECT count(*), count(*) FILTER (WHERE who < 0) FROM {t}") == [(KEYS + kept, kept)]


def test_one_of_many_rows_is_moved_to_a_key(writers, db, t):
    """Each row has a writer who wants to give it the same key."""
    db.run(f"CREATE TABLE {t} (k BIGINT PRIMARY KEY, who BIGINT)")
    db.run(f"INSERT INTO {t} SELECT 1000 + value, value FROM generate_series(0, {WRITERS - 1})")

    def move(writer: seracdb.Connection, k: int, who: int) -> int:
        if who == 0 and k % 3 == 0:
            writer.run(f"STORAGE FLUSH TABLE {t}")
        return writer.run(f"UPDATE {t} SET k = {k} WHERE who = {who}")

    for k, outcomes in race(writers, move).items():
        one_wins(outcomes, already(t, "k", str(k)))
    held = rows(db, f"SELECT count(*), count(DISTINCT k), count(DISTINCT who) FROM {t}")
    assert held == [(WRITERS, WRITERS, WRITERS)]


@pytest.mark.parametrize("columns", ["k BIGINT UNIQUE", "k BIGINT, a BIGINT DEFAULT 1, UNIQUE (a, k)"])
def test_nulls_are_in_nobodys_way(writers, db, t, columns):
    db.run(f"CREATE TABLE {t} ({columns}, who BIGINT)")

    def insert(writer: seracdb.Connection, k: int, who: int) -> int:
        if who == 0 and k == KEYS // 2:
            writer.run(f"STORAGE FLUSH TABLE {t}")
        return writer.run(f"INSERT INTO {t} (k, who) VALUES (NULL, {who})")

    came = race(writers, insert)
    assert all(count == 1 for outcomes in came.values() for _, count in outcomes)
    held = rows(db, f"SELECT who, count(*) FROM {t} WHERE k IS NULL GROUP BY who ORDER BY who")
    assert held == [(who, KEYS) for who in range(WRITERS)]


@pytest.mark.parametrize("state", ["hot", "flushed"])
@pytest.mark.parametrize("way", ["by themselves", "as user"])
def test_each_user_has_the_key_once(served, db, t, way, state):
    db.run(f"CREATE USER TABLE {t} (k BIGINT PRIMARY KEY, who BIGINT)")
    users = ["ann", "bob"] * (WRITERS // 2)
    with Connections(served) as connections:
        if way == "by themselves":
            sessions = [connections.open(user, PASSWORD) for user in users]
            inserts = [f"INSERT INTO {t}"] * WRITERS
        else:
            sessions = [connections.open() for _ in users]
            inserts = [f"INSERT INTO {t} AS USER '{user}'" for user in users]

        def insert(session: seracdb.Connection, k: int, who: int) -> int:
            if state == "flushed" and who == 0:
                db.run(f"STORAGE FLUSH TABLE {t}")
            return session.run(f"{inserts[who]} VALUES ({k}, {who})")

        came = race(sessions, insert)
        for user in ("ann", "bob"):
            won = {}
            for k, outcomes in came.items():
                of_user = [(who, came) for who, came in outcomes if users[who] == user]
                won[k] = one_wins(of_user, already(t, "k", str(k)))
            held = rows(db, f"EXECUTE AS USER '{user}' (SELECT k, who FROM {t} ORDER BY k)")
            assert held == sorted(won.items())


def test_one_of_many_that_do_nothing_inserts(writers, db, t):
    db.run(f"CREATE TABLE {t} (k BIGINT PRIMARY KEY, who BIGINT)")

    def insert(writer: seracdb.Connection, k: int, who: int) -> int:
        if who == 0 and k % 3 == 0:
            writer.run(f"STORAGE FLUSH TABLE {t}")
        return writer.run(f"INSERT INTO {t} VALUES ({k}, {who}) ON CONFLICT DO NOTHING")

    for k, outcomes in race(writers, insert).items():
        assert sorted(count for _, count in outcomes) == [0] * (WRITERS - 1) + [1]
        (won,) = [who for who, count in outcomes if count]
        assert rows(db, f"SELECT who FROM {t} WHERE k = {k}") == [(won,)]
    assert rows(db, f"SELECT count(*) FROM {t}") == [(KEYS,)]


UPSERTS = {
    "on conflict": "INSERT INTO {t} ({columns}, n, changes) VALUES ({values}, {n}, 1) "
    "ON CONFLICT ({columns}) DO UPDATE SET n = {t}.n + excluded.n, changes = {t}.changes + 1",
    "merge": "MERGE INTO {t} USING (SELECT {n} AS m) AS s ON {where} "
    "WHEN MATCHED THEN UPDATE SET n = {t}.n + s.m, changes = {t}.changes + 1 "
    "WHEN NOT MATCHED THEN INSERT ({columns}, n, changes) VALUES ({values}, s.m, 1)",
}


@pytest.mark.parametrize("shape", ["primary", "composite", "nulls are one"])
@pytest.mark.parametrize("way", UPSERTS)
def test_upserts_of_a_key_add_up(writers, db, t, way, shape):
    """The first to come inserts it, all others change it: none is lost and none is done twice."""
    db.run(f"CREATE TABLE {t} ({SHAPES[shape][0]}, n BIGINT, changes BIGINT)")

    def upsert(writer: seracdb.Connection, k: int, who: int) -> int:
        if who == 0 and k % 3 == 0:
            writer.run(f"STORAGE FLUSH TABLE {t}")
        # Twice: the second time it is there.
        columns, values, _ = shaped(shape, t, k)
        where = place(shape, t, k)
        for n in (10**who, 2 * 10**who):
            assert writer.run(UPSERTS[way].format(t=t, columns=columns, values=values, where=where, n=n)) == 1
        return 2

    race(writers, upsert)
    total = sum(3 * 10**who for who in range(WRITERS))
    for _ in range(2):
        assert rows(db, f"SELECT k, n, changes FROM {t} WHERE n <> {total} OR changes <> {2 * WRITERS}") == []
        assert rows(db, f"SELECT count(*), count(DISTINCT k) FROM {t}") == [(KEYS, KEYS)]
        db.run(f"STORAGE FLUSH TABLE {t}")


def test_upserts_of_users_add_up_by_user(served, db, t):
    db.run(f"CREATE USER TABLE {t} (k BIGINT PRIMARY KEY, n BIGINT)")
    users = ["ann", "bob"] * (WRITERS // 2)
    with Connections(served) as connections:

        def upsert(session: seracdb.Connection, k: int, who: int) -> int:
            if who == 0 and k % 3 == 0:
                db.run(f"STORAGE FLUSH TABLE {t}")
            return session.run(f"INSERT INTO {t} VALUES ({k}, {10**who}) ON CONFLICT (k) DO UPDATE SET n = {t}.n + excluded.n")

        race([connections.open(user, PASSWORD) for user in users], upsert)
    for user in ("ann", "bob"):
        total = sum(10**who for who in range(WRITERS) if users[who] == user)
        assert rows(db, f"EXECUTE AS USER '{user}' (SELECT k, n FROM {t} ORDER BY k)") == [(k, total) for k in range(KEYS)]


@pytest.mark.parametrize("size", [5, 200])
def test_one_of_many_loads_with_a_common_key_is_there_and_whole(writers, db, t, size):
    """Few rows, which are hot, and many, which are a file. All but one key are each load's own."""
    db.run(f"CREATE TABLE {t} (k BIGINT PRIMARY KEY, who BIGINT, text TEXT)")

    def load(writer: seracdb.Connection, k: int, who: int) -> int:
        own = range(1_000_000 * (who + 1) + k * size, 1_000_000 * (who + 1) + (k + 1) * size - 1)
        # It is the first, the last, or between.
        keys = [*own[: k * 10], k, *own[k * 10 :]]
        return writer.ingest(t, pa.table({"k": pa.array(keys, pa.int64()), "who": [who] * size, "text": ["ice and snow"] * size}))

    won = {k: one_wins(outcomes, already(t, "k", str(k))) for k, outcomes in race(writers, load).items()}
    if size == 200:
        assert rows(db, f"SELECT count(*) > 0 FROM system.batches WHERE \"table\" = '{t}' AND kind = 'bulk'") == [(True,)]
    for _ in range(2):
        assert rows(db, f"SELECT k, who FROM {t} WHERE k < {KEYS} ORDER BY k") == sorted(won.items())
        assert rows(db, f"SELECT count(*), count(DISTINCT k) FROM {t}") == [(KEYS * size, KEYS * size)]
        held = rows(db, f"SELECT who, count(*) FROM {t} GROUP BY who ORDER BY who")
        wins = list(won.values())
        assert held == [(who, size * wins.count(who)) for who in sorted(set(wins))]
        db.run(f"STORAGE FLUSH TABLE {t}")


def test_one_of_many_transactions_with_a_common_key_is_there_and_whole(writers, db, t):
    """The key is taken while all of them run: all but one are told when they write it, or at the end."""
    db.run(f"CREATE TABLE {t} (k BIGINT PRIMARY KEY, who BIGINT)")
    db.run(f"CREATE TABLE of_{t} (k BIGINT, who BIGINT)")

    def transact(writer: seracdb.Connection, k: int, who: int) -> int:
        with writer.transaction():
            writer.run(f"INSERT INTO of_{t} VALUES ({k}, {who})")
            return writer.run(f"INSERT INTO {t} VALUES ({k}, {who})")

    won = {}
    for k, outcomes in race(writers, transact).items():
        winners = [who for who, came in outcomes if not isinstance(came, Exception)]
        assert len(winners) == 1, outcomes
        assert all(f"table 'default.{t}' has a row with (k) = ({k}) already" in str(came) for who, came in outcomes if who != winners[0])
        won[k] = winners[0]
    for table in (t, f"of_{t}"):
        assert rows(db, f"SELECT k, who FROM {table} ORDER BY k") == sorted(won.items())


def test_every_way_at_once(writers, db, t):
    """Inserts, upserts, merges, loads, updates and deletions of few keys: what is acknowledged adds up, by key."""
    db.run(f"CREATE TABLE {t} (k BIGINT PRIMARY KEY, n BIGINT, changes BIGINT)")
    ledger: list[dict[int, int]] = [{} for _ in range(WRITERS)]

    def write(writer: seracdb.Connection, turn: int, who: int) -> None:
        k, n, mine = (turn * 3 + who) % 4, turn * 100 + who + 1, ledger[who]
        try:
            match (who + turn) % 6:
                case 0:
                    gained = n * writer.run(f"INSERT INTO {t} (k, n) VALUES ({k}, {n})")
                case 1 | 2:
                    sql = UPSERTS["on conflict" if turn % 2 else "merge"]
                    gained = n * writer.run(sql.format(t=t, columns="k", values=k, where=f"k = {k}", n=n))
                case 3:
                    gained = n * writer.ingest(t, pa.table({"k": pa.array([k], pa.int64()), "n": pa.array([n], pa.int64())}))
                case 4:
                    gained = -sum(row["n"] for row in writer.query(f"DELETE FROM {t} WHERE k = {k} RETURNING n").to_pylist())
                case _:
                    gained = n * writer.run(f"UPDATE {t} SET n = n + {n} WHERE k = {k}")
        except seracdb.AlreadyExists as error:
            assert f"table 'default.{t}' has a row with (k) = ({k}) already" in str(error)
            return
        mine[k] = mine.get(k, 0) + gained
        if who == 0 and turn % 5 == 0:
            writer.run(f"STORAGE FLUSH TABLE {t}")

    race(writers, write, range(20))
    held = dict(rows(db, f"SELECT k, n FROM {t}"))
    assert rows(db, f"SELECT count(*) FROM {t}") == [(len(held),)]
    assert {k: held.get(k, 0) for k in range(4)} == {k: sum(mine.get(k, 0) for mine in ledger) for k in range(4)}
