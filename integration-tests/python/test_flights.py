"""The 336,776 flights that left New York in 2013: loaded, updated, deleted and flushed, and every answer as DuckDB's."""

from __future__ import annotations

import pytest
from conftest import root
from flights import CREATE_FLIGHTS, FLIGHTS, OTHERS, Both, load

INSERT = "INSERT INTO {table} ({columns}) VALUES ({marks})"
BATCH_ROWS = 20_000
BY_SQL_ROWS = 5_000


def literal(value) -> str:
    if value is None:
        return "NULL"
    return repr(value) if isinstance(value, (int, float)) else "'" + str(value).replace("'", "''") + "'"


def load_by_ingest(db, table: str) -> None:
    assert db.ingest(table, load("flights"), mode="create") == len(load("flights"))


def load_by_insert(db, table: str) -> None:
    """The first rows as literals, the rest as batches of bound parameters."""
    flights = load("flights")
    db.run(CREATE_FLIGHTS.format(table=table))
    columns = ", ".join(FLIGHTS.names)
    for start in range(0, BY_SQL_ROWS, 500):
        rows = flights.slice(start, 500).to_pylist()
        values = ", ".join("(" + ", ".join(literal(v) for v in row.values()) + ")" for row in rows)
        assert db.run(f"INSERT INTO {table} ({columns}) VALUES {values}") == 500
    insert = INSERT.format(table=table, columns=columns, marks=", ".join("?" * len(FLIGHTS)))
    rest = flights.slice(BY_SQL_ROWS)
    for start in range(0, len(rest), BATCH_ROWS):
        batch = rest.slice(start, BATCH_ROWS)
        assert db.run(insert, batch) == len(batch)


@pytest.mark.parametrize("loader", [load_by_ingest, load_by_insert])
def test_flights(own_server, loader):
    with root(own_server) as db:
        db.run("CREATE NAMESPACE nyc")
        loader(db, "nyc.flights")
        for name in OTHERS:
            db.ingest(f"nyc.{name}", load(name), mode="create")
        both = Both.open(db, {name: f"nyc.{name}" for name in ("flights", *OTHERS)})

        # hot
        both.compare_all()
        both.write("UPDATE {flights} SET dep_delay = dep_delay + 5, arr_delay = arr_delay + 5 WHERE carrier = 'UA'")
        assert both.write("DELETE FROM {flights} WHERE dep_time IS NULL") == 8255
        both.compare_all()

        # cold
        db.run("STORAGE FLUSH ALL")
        both.compare_all()

        # mixed: newer versions of cold rows, tombstones over them, new rows beside them
        both.write(
            """UPDATE {flights} SET arr_delay = 0, tailnum = 'N' || flight
               WHERE dest IN (SELECT faa FROM {airports} WHERE alt > 4000)"""
        )
        both.write(
            """DELETE FROM {flights} AS f WHERE EXISTS (SELECT 1 FROM {weather} w WHERE w.origin = f.origin
               AND w.time_hour = f.time_hour AND w.wind_gust > 45)"""
        )
        both.write(
            """INSERT INTO {flights} (year, month, day, carrier, flight, origin, dest, sched_dep_time, distance)
               SELECT 2014, month, day, carrier, flight, origin, dest, sched_dep_time, distance FROM {flights}
               WHERE month = 2 AND day = 28"""
        )
        both.write("UPDATE {airports} SET alt = alt + 1 WHERE tz = -5")
        both.compare_all()

        # versions of the same rows in two files
        db.run("STORAGE FLUSH TABLE nyc.flights")
        both.compare_all()
        both.write("UPDATE {flights} SET dep_delay = dep_delay - 5 WHERE carrier = 'UA' AND month <= 3")
        both.write("DELETE FROM {flights} WHERE year = 2014 AND carrier IN ('AA', 'DL')")

    own_server.kill()
    own_server.start()
    with root(own_server) as db:
        both.serac = db
        both.compare_all()
        both.write("DELETE FROM {flights}")
        assert db.query("SELECT count(*) AS n FROM nyc.flights")["n"].to_pylist() == [0]
        db.run("STORAGE FLUSH TABLE nyc.flights")
        assert db.query("SELECT count(*) AS n FROM nyc.flights")["n"].to_pylist() == [0]
