"""A tour of SeracDB on the flights that left New York in 2013. Every result is checked; a mismatch ends it with 1.

Run by `make demo`. It starts a server of its own in a temporary folder and removes it afterwards.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import seracdb
from flights import load
from testserver import ROOT_PASSWORD, Server

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
BY_CARRIER = """SELECT carrier, count(*) AS flights, avg(dep_delay) AS mean_delay, max(dep_delay) AS worst
FROM nyc.flights GROUP BY carrier ORDER BY flights DESC LIMIT 5"""
COUNT = "SELECT count(*) AS flights FROM nyc.flights"


class Mismatch(Exception):
    """An answer that is not what it has to be."""


def chapter(title: str) -> None:
    print(f"\n{BOLD}── {title} {'─' * max(0, 92 - len(title))}{PLAIN}", flush=True)


def say(text: str) -> None:
    print(text, flush=True)


def show_sql(sql: str, who: str) -> float:
    say(f"\n{BOLD}{who}>{PLAIN} " + sql.replace("\n", "\n" + " " * (len(who) + 2)))
    return time.perf_counter()


def took(started: float, what: str) -> None:
    say(f"{DIM}{what}, {(time.perf_counter() - started) * 1000:,.0f} ms{PLAIN}")


def text_of(value: object) -> str:
    if value is None:
        return "∅"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def show_table(table: pa.Table) -> None:
    rows = [[text_of(v) for v in row.values()] for row in table.to_pylist()]
    widths = [max(len(name), *(len(r[i]) for r in rows), 0) for i, name in enumerate(table.column_names)]
    right = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in table.schema]

    def line(cells: list[str]) -> str:
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)).rstrip()

    say("\n".join([line(table.column_names), "  ".join("─" * w for w in widths), *map(line, rows)]))


class Session:
    """A user's connection that shows what it does."""

    def __init__(self, server: Server, user: str, password: str):
        self.user = user
        self.db = seracdb.connect(server.uri, user, password)

    def query(self, sql: str) -> list[tuple]:
        started = show_sql(sql, self.user)
        table = self.db.query(sql)
        show_table(table)
        took(started, f"{table.num_rows} rows")
        return [tuple(row.values()) for row in table.to_pylist()]

    def explain(self, sql: str) -> str:
        """The plan as it ran, with its costs; lines cut at the terminal's usual width."""
        started = show_sql(f"EXPLAIN ANALYZE {sql}", self.user)
        plan = "\n".join(row["plan"] for row in self.db.query(f"EXPLAIN ANALYZE {sql}").to_pylist())
        for line in plan.splitlines():
            say(line if len(line) <= 160 else line[:159] + "…")
        took(started, "done")
        return plan

    def run(self, sql: str, changes: int | None = None) -> None:
        started = show_sql(sql, self.user)
        changed = self.db.run(sql)
        took(started, "done" if changes is None else f"{changed:,} rows changed")
        if changes is not None:
            expect(changed, changes)


def expect(got: object, wanted: object) -> None:
    if got != wanted:
        raise Mismatch(f"got {got!r}, but it has to be {wanted!r}")


def expected() -> duckdb.DuckDBPyConnection:
    """DuckDB with the same flights: what every answer is compared with."""
    duck = duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'; CREATE SCHEMA nyc")
    duck.register("loaded", load("flights"))
    duck.execute("CREATE TABLE nyc.flights AS SELECT * FROM loaded")
    return duck


def tour(folder: Path) -> None:
    flights = load("flights")
    duck = expected()

    def check(answer: list[tuple], sql: str) -> None:
        expect(answer, duck.execute(sql).fetchall())

    def write(session: Session, sql: str) -> None:
        session.run(sql, changes=duck.execute(sql).fetchall()[0][0])

    with Server(folder / "data") as server:
        root = Session(server, "root", ROOT_PASSWORD)

        chapter("Load 336,776 flights over ADBC")
        root.run("CREATE NAMESPACE nyc")
        started = time.perf_counter()
        say(f'\n{BOLD}python>{PLAIN} db.ingest("nyc.flights", flights, mode="create")')
        expect(root.db.ingest("nyc.flights", flights, mode="create"), 336_776)
        took(started, "336,776 rows")
        check(root.query(BY_CARRIER), BY_CARRIER)
        say("\nEach row has an id and the time of its version, kept by the server:")
        expect(len(root.query("SELECT _id, carrier, flight, dep_delay, _updated FROM nyc.flights LIMIT 3")), 3)

        chapter("Update and delete")
        write(root, "UPDATE nyc.flights SET dep_delay = dep_delay + 10\nWHERE carrier = 'UA' AND origin = 'EWR'")
        write(root, "DELETE FROM nyc.flights WHERE dep_time IS NULL")
        check(root.query(BY_CARRIER), BY_CARRIER)

        chapter("Freeze: rows become Parquet files")
        root.run("STORAGE FLUSH TABLE nyc.flights")
        files = sorted(p for p in server.data_dir.rglob("*.parquet"))
        for file in files:
            say(f"{DIM}{file.relative_to(server.data_dir)}  {file.stat().st_size / 1e6:.1f} MB{PLAIN}")
        expect(len(files) > 0, True)
        check(root.query(BY_CARRIER), BY_CARRIER)

        chapter("What a cold query costs")
        plan = root.explain("SELECT count(*), avg(distance) FROM nyc.flights WHERE month = 12")
        expect("month" in plan, True)

        chapter("Change frozen rows")
        write(
            root,
            "UPDATE nyc.flights SET dep_delay = 0\nWHERE dest IN\n    (SELECT dest FROM nyc.flights GROUP BY dest HAVING count(*) < 20)",
        )
        write(root, "DELETE FROM nyc.flights WHERE carrier = 'OO'")
        check(root.query(COUNT), COUNT)

        chapter("Two users, one table, rows of one's own")
        root.run("CREATE USER alice WITH PASSWORD 'a glacier moves' ROLE user")
        root.run("CREATE USER bob WITH PASSWORD 'a glacier melts' ROLE user")
        root.run("CREATE USER TABLE nyc.trips (flight INT, note TEXT)")
        alice = Session(server, "alice", "a glacier moves")
        bob = Session(server, "bob", "a glacier melts")
        alice.run("INSERT INTO nyc.trips (flight, note) VALUES (1545, 'window seat'), (11, 'upgrade!')", changes=2)
        bob.run("INSERT INTO nyc.trips (flight, note) VALUES (1714, 'never again')", changes=1)
        trips = "SELECT flight, note FROM nyc.trips ORDER BY flight"
        expect(alice.query(trips), [(11, "upgrade!"), (1545, "window seat")])
        expect(bob.query(trips), [(1714, "never again")])
        expect(root.query(trips), [])
        for session in (alice, bob, root):
            session.db.close()

        chapter("Restart")
        started = time.perf_counter()
        server.restart()
        took(started, "stopped and ready again")
        root = Session(server, "root", ROOT_PASSWORD)
        alice = Session(server, "alice", "a glacier moves")
        check(root.query(COUNT), COUNT)
        check(root.query(BY_CARRIER), BY_CARRIER)
        expect(alice.query(trips), [(11, "upgrade!"), (1545, "window seat")])
        for session in (alice, root):
            session.db.close()
        expect(server.stop(), 0)


def main() -> int:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="seracdb-demo-") as folder:
        try:
            tour(Path(folder))
        except Mismatch as error:
            say(f"\nMISMATCH: {error}")
            return 1
    say(f"\nEvery answer agreed with DuckDB's. {time.perf_counter() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
