"""Mixed statements of several clients for minutes, while flush, compaction, eviction, retention and expiry run all the time
and the server is killed now and then. In the end every acknowledged row is right, `seracdb check` finds nothing, memory is
flat, and no file is left that nothing names.

    soak.py [--seconds N] [--clients N] [--seed N] [--kills PART] [--object-store URL] [--dir FOLDER]

Each client has rows of its own in a shared table, and those of a user in a user table, so that it knows exactly what has to be
there; a statement that was under way when the server died may have happened or not, but not in part. The server is killed
in the first third only: memory is looked at in one process.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import seracdb

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from checking import clean  # noqa: E402
from testserver import ROOT_PASSWORD, Server  # noqa: E402

# Everything often, and little of it kept.
SETTINGS = {
    "SERACDB_ENGINE__BULK_BYTES_MIN": "20000",
    "SERACDB_JOBS__HISTORY_MAX": "50",
    "SERACDB_FLUSH__HOT_BYTES_MAX": "100000",
    "SERACDB_FLUSH__DEAD_VERSIONS_MAX": "300",
    "SERACDB_COMPACTION__FAN_IN": "3",
    "SERACDB_COMPACTION__RETENTION_SECONDS": "2",
    "SERACDB_MANIFEST_CACHE__MAX_ENTRIES": "3",
    "SERACDB_MANIFEST_CACHE__EVICTION_INTERVAL_SECONDS": "1",
    "SERACDB_MANIFEST_CACHE__LAST_ACCESSED_MEMORY_WINDOW": "1",
    "SERACDB_STORAGE__ORPHAN_GRACE_SECONDS": "2",
    "SERACDB_STORAGE__AUDIT_RETENTION_SECONDS": "5",
    # What is kept in memory is full soon: what still grows then is a leak.
    "SERACDB_STORAGE__HOT_CACHE_BYTES_MAX": str(4 << 20),
    "SERACDB_STORAGE__BLOCK_CACHE_BYTES_MAX": str(8 << 20),
    "SERACDB_STORAGE__WRITE_BUFFER_BYTES": str(1 << 20),
}
JOBS = {
    "flush": ['{"namespace": "app", "table": "t"}', '{"namespace": "app", "table": "notes"}'],
    "compact": ['{"namespace": "app", "table": "t"}', '{"namespace": "app", "table": "notes"}'],
    "rebuild_manifest": ['{"namespace": "app", "table": "t"}'],
    "manifest_eviction": ['{"max_entries": 1, "ttl_seconds": 1}'],
    "cleanup": ["{}"],
    "retention": ["{}"],
    "stream_expiry": ["{}"],
}
COLUMNS = "who BIGINT, k BIGINT NOT NULL, v BIGINT, f DOUBLE, text TEXT, PRIMARY KEY (who, k)"
TTL_SECONDS = 3
# Seconds that a process lives while there are kills.
KILL_EVERY = (2, 15)
# What a statement may take, and clocks may differ by.
SLACK_SECONDS = 2.0
ROWS_MAX = 1500
GROWTH_BYTES = 64 << 20
SERVICE = ("svc", "long enough")


class Failed(AssertionError):
    """Something was not as it has to be."""


@dataclass
class Figures:
    """What was done."""

    done: Counter[str] = field(default_factory=Counter)
    rss: list[tuple[float, int]] = field(default_factory=list)

    def text(self) -> str:
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()))
        thirds = " / ".join(f"{top / (1 << 20):.0f}" for top in self.thirds())
        return f"{done}; highest RSS of each third {thirds} MiB"

    def trace(self) -> str:
        """RSS over time, at twenty points."""
        step = max(1, len(self.rss) // 20)
        return "RSS in MiB: " + " ".join(f"{rss >> 20}" for _, rss in self.rss[::step])

    def thirds(self) -> list[int]:
        if not self.rss:
            return [0, 0, 0]
        first, last = self.rss[0][0], self.rss[-1][0] + 0.001
        tops = [0, 0, 0]
        for at, rss in self.rss:
            third = int((at - first) / (last - first) * 3)
            tops[third] = max(tops[third], rss)
        return tops


class Rows:
    """Rows that only one client changes, and what it knows of them."""

    def __init__(self, table: str, who: int, user: str | None, chance: random.Random):
        self.table, self.who, self.user, self.chance = table, who, user, chance
        self.known: dict[int, int] = {}
        # As they are if what was under way has happened.
        self.maybe: dict[int, int] | None = None
        self.next = 0

    @property
    def target(self) -> str:
        return self.table if self.user is None else f"{self.table} AS USER '{self.user}'"

    def read(self, db: seracdb.Connection) -> dict[int, int]:
        sql = f"SELECT k, v, text FROM {self.table} WHERE who = {self.who}"
        found = db.query(sql if self.user is None else f"EXECUTE AS USER '{self.user}' ({sql})").to_pylist()
        rows = {row["k"]: row["v"] for row in found}
        if len(rows) != len(found):
            raise Failed(f"{self.table}: a row of {self.who} is there twice")
        if any(row["text"] != text_of(row["v"]) for row in found):
            raise Failed(f"{self.table}: a row of {self.who} is of two versions")
        return rows

    def verify(self, db: seracdb.Connection) -> None:
        """What is there is what was acknowledged, with what was under way or without it."""
        found = self.read(db)
        if found != self.known and (self.maybe is None or found != self.maybe):
            missing = sorted(self.known.keys() - found.keys())[:5]
            more = sorted(found.keys() - self.known.keys())[:5]
            other = sorted(k for k in found.keys() & self.known.keys() if found[k] != self.known[k])[:5]
            unknown = "" if self.maybe is None else ", also not with what was under way"
            raise Failed(f"{self.table} of {self.who}: missing {missing}, more {more}, other {other}{unknown}")
        self.known, self.maybe = found, None

    def change(self, to: dict[int, int], act: Callable[[], object]) -> None:
        self.maybe = to
        act()
        self.known, self.maybe = to, None

    def some(self, most: int) -> list[int]:
        return self.chance.sample(sorted(self.known), min(len(self.known), self.chance.randint(1, most)))

    def new(self, most: int) -> dict[int, int]:
        keys = range(self.next, self.next + self.chance.randint(1, most))
        self.next = keys.stop
        return {k: self.chance.randrange(1 << 40) for k in keys}


def text_of(v: int) -> str:
    return f"{v} " + "x" * (v % 80)


def values(rows: Rows, new: dict[int, int]) -> str:
    return ", ".join(f"({rows.who}, {k}, {v}, NULL, '{text_of(v)}')" for k, v in new.items())


def listed(keys: list[int]) -> str:
    return ", ".join(map(str, keys))


def count(changed: int, expected: int, what: str) -> None:
    if changed != expected:
        raise Failed(f"{what} changed {changed} rows, not {expected}")


def insert(db: seracdb.Connection, rows: Rows) -> None:
    new = rows.new(40)
    sql = f"INSERT INTO {rows.target} VALUES {values(rows, new)}"
    rows.change(rows.known | new, lambda: count(db.run(sql), len(new), "INSERT"))


def update(db: seracdb.Connection, rows: Rows) -> None:
    keys, v = rows.some(30), rows.chance.randrange(1 << 40)
    where = f"who = {rows.who} AND k IN ({listed(keys) or 'NULL'})"
    sql = f"UPDATE {rows.target} SET v = {v}, text = '{text_of(v)}' WHERE {where}"
    rows.change(rows.known | dict.fromkeys(keys, v), lambda: count(db.run(sql), len(keys), "UPDATE"))


def delete(db: seracdb.Connection, rows: Rows) -> None:
    keys = rows.some(max(20, len(rows.known) - ROWS_MAX))
    sql = f"DELETE FROM {rows.target} WHERE who = {rows.who} AND k IN ({listed(keys) or 'NULL'})"
    rows.change(without(rows.known, keys), lambda: count(db.run(sql), len(keys), "DELETE"))


def delete_range(db: seracdb.Connection, rows: Rows) -> None:
    below = sorted(rows.known)[len(rows.known) // 2] if rows.known else 0
    keys = [k for k in rows.known if k < below]
    sql = f"DELETE FROM {rows.target} WHERE who = {rows.who} AND k < {below}"
    rows.change(without(rows.known, keys), lambda: count(db.run(sql), len(keys), "DELETE"))


def upsert(db: seracdb.Connection, rows: Rows) -> None:
    changed = {k: rows.chance.randrange(1 << 40) for k in [*rows.some(10), *rows.new(5)]}
    sql = f"INSERT INTO {rows.target} VALUES {values(rows, changed)} ON CONFLICT (who, k) DO UPDATE SET v = excluded.v, text = excluded.text"
    rows.change(rows.known | changed, lambda: count(db.run(sql), len(changed), "INSERT … ON CONFLICT"))


def merge(db: seracdb.Connection, rows: Rows) -> None:
    """Deletes some, changes some, and inserts some."""
    gone, changed, new, v = rows.some(10), rows.some(10), rows.new(10), rows.chance.randrange(1 << 40)
    changed = [k for k in changed if k not in gone]
    actions = [(k, "gone", v) for k in gone] + [(k, "changed", v) for k in changed] + [(k, "new", n) for k, n in new.items()]
    source = ", ".join(f"({rows.who}, {k}, '{what}', {n}, '{text_of(n)}')" for k, what, n in actions)
    sql = (
        f"MERGE INTO {rows.table} AS t USING (VALUES {source}) AS s(who, k, what, v, text) ON t.who = s.who AND t.k = s.k "
        "WHEN MATCHED AND s.what = 'gone' THEN DELETE WHEN MATCHED THEN UPDATE SET v = s.v, text = s.text "
        "WHEN NOT MATCHED THEN INSERT (who, k, v, text) VALUES (s.who, s.k, s.v, s.text)"
    )
    sql = sql if rows.user is None else f"EXECUTE AS USER '{rows.user}' ({sql})"
    after = without(rows.known, gone) | dict.fromkeys(changed, v) | new
    rows.change(after, lambda: count(db.run(sql), len(actions), "MERGE"))


def transaction(db: seracdb.Connection, rows: Rows) -> None:
    new, gone, v = rows.new(20), rows.some(10), rows.chance.randrange(1 << 40)
    changed = [k for k in [*rows.some(10), *list(new)[:5]] if k not in gone]
    after = without(rows.known | new | dict.fromkeys(changed, v), gone)
    keeps = rows.chance.random() < 0.7
    where = f"who = {rows.who} AND k IN"

    def act() -> None:
        db.run("BEGIN")
        count(db.run(f"INSERT INTO {rows.target} VALUES {values(rows, new)}"), len(new), "INSERT")
        sql = f"UPDATE {rows.target} SET v = {v}, text = '{text_of(v)}' WHERE {where} ({listed(changed) or 'NULL'})"
        count(db.run(sql), len(set(changed)), "UPDATE")
        count(db.run(f"DELETE FROM {rows.target} WHERE {where} ({listed(gone) or 'NULL'})"), len(gone), "DELETE")
        db.run("COMMIT" if keeps else "ROLLBACK")

    rows.change(after if keeps else rows.known, act)


def bulk(db: seracdb.Connection, rows: Rows) -> None:
    if rows.user is not None:
        return insert(db, rows)
    new = rows.new(900)
    floats = [math.nan if k % 10 == 0 else k / 7 for k in new]
    table = pa.table(
        {
            "who": pa.array([rows.who] * len(new), pa.int64()),
            "k": pa.array(new, pa.int64()),
            "v": pa.array(new.values(), pa.int64()),
            "f": floats,
            "text": [text_of(v) for v in new.values()],
        }
    )
    rows.change(rows.known | new, lambda: count(db.ingest(rows.table, table), len(new), "ingest"))


def loaded_and_changed(db: seracdb.Connection, rows: Rows) -> None:
    """A transaction that changes what it has loaded."""
    if rows.user is not None:
        return transaction(db, rows)
    new, v = rows.new(800), rows.chance.randrange(1 << 40)
    gone, changed = list(new)[::7], list(new)[1::7]
    after = without(rows.known | new | dict.fromkeys(changed, v), gone)
    table = pa.table({"who": [rows.who] * len(new), "k": list(new), "v": list(new.values()), "text": [text_of(v) for v in new.values()]})

    def act() -> None:
        with db.transaction():
            db.ingest(rows.table, table)
            db.run(f"DELETE FROM {rows.table} WHERE who = {rows.who} AND k IN ({listed(gone)})")
            sql = f"UPDATE {rows.table} SET v = {v}, text = '{text_of(v)}' WHERE who = {rows.who} AND k IN ({listed(changed) or 'NULL'})"
            db.run(sql)

    rows.change(after, act)


def without(rows: dict[int, int], keys: list[int]) -> dict[int, int]:
    return {k: v for k, v in rows.items() if k not in set(keys)}


def held(db: seracdb.Connection, rows: Rows) -> None:
    """A transaction sees the same for as long as it is open, also when the files that it reads were merged and their time is over."""
    sql = "SELECT count(*) AS n, sum(v % 1000) AS s, max(k) AS m FROM app.t"
    db.run("BEGIN")
    first = db.query(sql).to_pylist()
    for _ in range(3):
        time.sleep(rows.chance.uniform(0, 1))
        again = db.query(sql).to_pylist()
        if again != first:
            raise Failed(f"a transaction has seen {first} and then {again}")
    db.run("ROLLBACK")


STATEMENTS = [insert, insert, update, update, update, delete, upsert, upsert, merge, transaction, bulk, loaded_and_changed]


class Remade:
    """A table that is created with its rows, replaced and dropped, again and again."""

    def __init__(self, who: int, chance: random.Random):
        self.namespace, self.chance = f"own{who}", chance
        # What may be there: the sum of its rows, or None when there is no table.
        self.known: list[int | None] = [None]

    @property
    def table(self) -> str:
        return f"{self.namespace}.remade"

    def verify(self, db: seracdb.Connection) -> None:
        there = db.query(
            f"SELECT count(*) AS n FROM information_schema.tables WHERE table_schema = '{self.namespace}' AND table_name = 'remade'"
        )["n"].to_pylist() != [0]
        found = db.query(f"SELECT coalesce(sum(n), 0) AS s FROM {self.table}")["s"].to_pylist()[0] if there else None
        if found not in self.known:
            raise Failed(f"{self.table} is {found}, and not one of {self.known}")
        self.known = [found]

    def change(self, db: seracdb.Connection) -> None:
        now = self.known[0]
        rows = pa.table({"n": pa.array([self.chance.randrange(1000) for _ in range(self.chance.choice([3, 1500]))], pa.int64())})
        total = sum(rows["n"].to_pylist())
        if now is None:
            self.become(total, lambda: db.ingest(self.table, rows, mode="create"))
        else:
            match self.chance.choice(["replace", "append", "drop"]):
                case "replace":
                    self.become(total, lambda: db.ingest(self.table, rows, mode="replace"))
                case "append":
                    self.become(now + total, lambda: db.ingest(self.table, rows))
                case "drop":
                    self.become(None, lambda: db.run(f"DROP TABLE {self.table}"))

    def become(self, to: int | None, act: Callable[[], object]) -> None:
        self.known.append(to)
        act()
        self.known = [to]


class Events:
    """Rows of a stream table: there for their time, and not much longer."""

    def __init__(self, user: str):
        self.user = user
        self.known: dict[int, float] = {}

    def add(self, db: seracdb.Connection) -> None:
        n, before = time.monotonic_ns(), time.monotonic()
        db.run(f"INSERT INTO app.events AS USER '{self.user}' VALUES ({n}), ({n + 1})")
        self.known |= {n: before, n + 1: before}

    def verify(self, db: seracdb.Connection) -> None:
        before = time.monotonic()
        found = {row["n"] for row in db.query(f"EXECUTE AS USER '{self.user}' (SELECT n FROM app.events)").to_pylist()}
        now = time.monotonic()
        for n, at in list(self.known.items()):
            if now - at < TTL_SECONDS and n not in found:
                raise Failed(f"an event of {self.user} is gone after {now - at:.1f} s")
            if before - at > TTL_SECONDS + SLACK_SECONDS:
                if n in found:
                    raise Failed(f"an event of {self.user} is still there after {before - at:.1f} s")
                del self.known[n]


class Soak:
    """One run."""

    def __init__(self, folder: Path, seconds: float, clients: int, seed: int, kills: float = 1 / 3, store: str | None = None):
        self.folder, self.seconds, self.seed, self.kills = folder, seconds, seed, kills
        self.where = [] if store is None else ["--object-store", store]
        self.server = Server(folder / "data", variables=SETTINGS, args=self.where)
        chance = random.Random(seed)
        self.chance = chance
        self.figures = Figures()
        self.failure: BaseException | None = None
        self.ended = threading.Event()
        self.up = threading.Event()
        # Rises with every start.
        self.life = 0
        self.clients = [Client(self, who, random.Random(chance.random())) for who in range(clients)]

    def run(self) -> Figures:
        self.start()
        with self.connect("root", ROOT_PASSWORD) as db:
            self.set_up(db)
        threads = [threading.Thread(target=self.guarded, args=(work,)) for work in [c.run for c in self.clients] + [self.jobs]]
        [thread.start() for thread in threads]
        try:
            self.guarded(self.live)
        finally:
            self.ended.set()
            [thread.join() for thread in threads]
        if self.failure:
            raise self.failure
        self.guarded(self.end)
        if self.failure:
            raise self.failure
        return self.figures

    def set_up(self, db: seracdb.Connection) -> None:
        db.run("CREATE NAMESPACE app")
        db.run(f"CREATE USER {SERVICE[0]} WITH PASSWORD '{SERVICE[1]}' ROLE service")
        db.run(f"CREATE TABLE app.t ({COLUMNS})")
        db.run("CREATE INDEX by_k ON app.t (k)")
        db.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON app.t TO {SERVICE[0]}")
        db.run(f"CREATE USER TABLE app.notes ({COLUMNS})")
        db.run(f"CREATE STREAM TABLE app.events (n BIGINT) WITH (ttl = '{TTL_SECONDS}s')")
        db.run("CREATE TABLE app.counter (n BIGINT)")
        db.run("INSERT INTO app.counter VALUES (0)")
        db.run(f"GRANT SELECT, UPDATE ON app.counter TO {SERVICE[0]}")
        for client in self.clients:
            db.run(f"CREATE USER {client.user} WITH PASSWORD 'long enough' ROLE user")
        with self.connect(*SERVICE) as service:
            [service.run(f"CREATE NAMESPACE {client.remade.namespace}") for client in self.clients]

    def start(self) -> None:
        self.server.start()
        self.life += 1
        self.up.set()

    def kill(self) -> None:
        self.up.clear()
        self.server.kill()
        self.figures.done["kill"] += 1

    def live(self) -> None:
        """Kills and starts in the first third, and looks at the memory for the rest."""
        began = time.monotonic()
        kills_until, ends = began + self.seconds * self.kills, began + self.seconds
        next_kill = began + self.chance.uniform(*KILL_EVERY)
        while (now := time.monotonic()) < ends and not self.failure:
            time.sleep(min(0.5, max(0.01, ends - now)))
            self.sample()
            if next_kill < now < kills_until:
                self.kill()
                self.check()
                self.start()
                next_kill = time.monotonic() + self.chance.uniform(*KILL_EVERY)

    def sample(self) -> None:
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        self.figures.rss.append((time.monotonic(), int(resident.split()[1]) << 10))

    def check(self, grace: int = 3600) -> dict:
        """Between kills there may be files that nobody has come to remove."""
        said = clean(self.server.data_dir, *self.where, variables=SETTINGS | {"SERACDB_STORAGE__ORPHAN_GRACE_SECONDS": str(grace)})
        self.figures.done["check"] += 1
        return said

    def end(self) -> None:
        """All of it once more: as it is, after a kill, and after a stop."""
        self.verify()
        self.kill()
        self.check()
        self.start()
        self.verify()
        self.settle()
        self.server.stop()
        said = self.check(grace=2)
        left = [note for note in said["notes"] if note["about"] == "orphan"]
        if left:
            raise Failed(f"files are left that nothing names: {left}")
        _, middle, last = self.figures.thirds()
        if self.kills <= 1 / 3 and last > middle * 1.1 + GROWTH_BYTES:
            raise Failed(f"memory has grown: {self.figures.text()}")
        read = said["read"]
        self.figures.done |= {"rows in files": read["cold_rows"], "files": read["files"], "hot rows": read["hot_rows"]}

    def settle(self) -> None:
        """What is left by kills has its time, and goes. What was being written then has longer, and is made older."""
        long_ago = time.time() - 3600
        [os.utime(unnamed, (long_ago, long_ago)) for unnamed in self.folder.rglob("*.tmp")]
        with self.connect("root", ROOT_PASSWORD) as db:
            time.sleep(3)
            for _ in range(2):
                (row,) = db.query("RUN JOB cleanup").to_pylist()
                self.wait_for_job(db, row["job_id"])

    def wait_for_job(self, db: seracdb.Connection, job: str) -> None:
        for _ in range(600):
            (row,) = db.query(f"SELECT state, message FROM system.jobs WHERE job_id = '{job}'").to_pylist()
            if row["state"] == "completed":
                return
            if row["state"] in ("failed", "cancelled"):
                raise Failed(f"job {job}: {row}")
            time.sleep(0.1)
        raise Failed(f"job {job} does not end: {row}")

    def verify(self) -> None:
        with self.connect(*SERVICE) as db:
            for client in self.clients:
                client.verify(db)
            ((low, high),) = [(sum(c.counted for c in self.clients), sum(c.counted + c.uncertain for c in self.clients))]
            (n,) = db.query("SELECT n FROM app.counter")["n"].to_pylist()
            if not low <= n <= high:
                raise Failed(f"the counter is {n}, and {low} to {high} were acknowledged")
        self.figures.done["verified"] += 1

    def jobs(self) -> None:
        """Every type of job, again and again."""
        chance = random.Random(self.seed + 1)
        while not self.ended.is_set():
            life = self.alive()
            try:
                with self.connect("root", ROOT_PASSWORD) as db:
                    while not self.ended.is_set():
                        job_type = chance.choice(list(JOBS))
                        (row,) = db.query(f"RUN JOB {job_type} '{chance.choice(JOBS[job_type])}'").to_pylist()
                        if chance.random() < 0.2:
                            db.run(f"CANCEL JOB '{row['job_id']}'")
                        self.figures.done[f"job {job_type}"] += 1
                        bad = db.query("SELECT * FROM system.jobs WHERE state IN ('failed', 'retrying')").to_pylist()
                        if bad:
                            raise Failed(f"a job has failed: {bad[0]}")
                        self.ended.wait(chance.uniform(0.1, 0.6))
            except seracdb.Error as error:
                self.expect_death(life, error)

    def connect(self, user: str, password: str) -> seracdb.Connection:
        return seracdb.connect(self.server.uri, user, password)

    def alive(self) -> int:
        """Waits until a server runs; gives which it is."""
        while not self.up.wait(0.1):
            if self.ended.is_set():
                break
        return self.life

    def expect_death(self, life: int, error: BaseException) -> None:
        """An error is right only if the server has been killed."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if not self.up.is_set() or self.life > life:
                return
            time.sleep(0.05)
        raise error

    def guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001: it ends the run, and is raised there
            self.failure = self.failure or error
            self.ended.set()


class Client:
    """Runs statements, and knows what has come of them."""

    def __init__(self, soak: Soak, who: int, chance: random.Random):
        self.soak, self.chance, self.user = soak, chance, f"user{who}"
        self.rows = [Rows("app.t", who, None, chance), Rows("app.notes", who, self.user, chance)]
        self.events = Events(self.user)
        self.remade = Remade(who, chance)
        self.counted, self.uncertain = 0, 0

    def run(self) -> None:
        while not self.soak.ended.is_set():
            life = self.soak.alive()
            try:
                with self.soak.connect(*SERVICE) as db:
                    self.verify(db)
                    while not self.soak.ended.is_set():
                        self.step(db)
            except seracdb.Error as error:
                self.soak.expect_death(life, error)

    def verify(self, db: seracdb.Connection) -> None:
        [rows.verify(db) for rows in self.rows]
        self.remade.verify(db)

    def step(self, db: seracdb.Connection) -> None:
        rows, done = self.chance.choice(self.rows), self.soak.figures.done
        if len(rows.known) > ROWS_MAX:
            delete_range(db, rows)
        else:
            act = self.chance.choice(STATEMENTS)
            act(db, rows)
            done[act.__name__] += 1
        if self.chance.random() < 0.2:
            self.count(db)
            done["count"] += 1
        if self.chance.random() < 0.2:
            self.events.add(db)
            done["event"] += 1
        if self.chance.random() < 0.1:
            self.remade.change(db)
            done["remade"] += 1
        if self.chance.random() < 0.03:
            held(db, rows)
            done["held"] += 1
        if self.chance.random() < 0.15:
            rows.verify(db)
            self.events.verify(db)
            done["read"] += 1

    def count(self, db: seracdb.Connection) -> None:
        """A row that all clients change."""
        self.uncertain += 1
        count(db.run("UPDATE app.counter SET n = n + 1"), 1, "UPDATE")
        self.uncertain -= 1
        self.counted += 1


def run(folder: Path, seconds: float, clients: int = 4, seed: int = 1) -> Figures:
    """Raises what went wrong; the server's log is beside its data."""
    return Soak(folder, seconds, clients, seed).run()


def without_underflows(unraisable) -> None:
    """The driver says this of a statement whose connection is gone: nothing to tell anybody."""
    if "Underflow in closing" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def main() -> int:
    sys.unraisablehook = without_underflows
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    arguments.add_argument("--seconds", type=float, default=1200)
    arguments.add_argument("--clients", type=int, default=4)
    arguments.add_argument("--seed", type=int, default=int(time.time()))
    arguments.add_argument("--kills", type=float, default=1 / 3, help="part of the time in which the server is killed now and then")
    arguments.add_argument("--object-store", help="file:///… or s3://bucket/prefix")
    arguments.add_argument("--dir", type=Path, help="for the data; it stays")
    given = arguments.parse_args()
    folder = given.dir or Path(tempfile.mkdtemp(prefix="seracdb-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"soak: {given.seconds:.0f} s, {given.clients} clients, seed {given.seed}, in {folder}", flush=True)
    soak = Soak(folder, given.seconds, given.clients, given.seed, given.kills, given.object_store)
    try:
        figures = soak.run()
    except BaseException as error:  # noqa: BLE001: told, with what was done
        print(f"FAILED: {error!r}\n{soak.figures.text()}\nthe data and the server's log are in {folder}", flush=True)
        if soak.server.process is not None and soak.server.process.poll() is None:
            soak.server.stop()
        return 1
    print(f"passed: {figures.text()}\n{figures.trace()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
