"""Every refusal: the right code, a text that helps, and a server that goes on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
import seracdb
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_manager import AdbcStatusCode as Code
from testserver import ROOT_PASSWORD

# {t} is a table (x BIGINT NOT NULL, label TEXT) with one row, {ns} its namespace; each text has to be in the message.
REFUSED = {
    "syntax": ("SELECT x FROM {t}\nWHERE WHERE x = 1", Code.INVALID_ARGUMENT, ["line 2, column 13"]),
    "syntax at the end": ("SELECT (1 + ", Code.INVALID_ARGUMENT, []),
    "unclosed quote": ("SELECT 'abc", Code.INVALID_ARGUMENT, ["line 1, column 8"]),
    "empty": ("  -- nothing\n", Code.INVALID_ARGUMENT, ["empty"]),
    "two statements": ("SELECT 1; SELECT 2", Code.INVALID_ARGUMENT, []),
    "unknown namespace": ("SELECT * FROM nowhere.points", Code.NOT_FOUND, ["nowhere"]),
    "unknown table": ("SELECT * FROM {ns}.pionts", Code.NOT_FOUND, ["pionts", "points"]),
    "unknown table in INSERT": ("INSERT INTO {ns}.point VALUES (1)", Code.NOT_FOUND, ["points"]),
    "unknown table in UPDATE": ("UPDATE {ns}.poits SET x = 1", Code.NOT_FOUND, ["points"]),
    "unknown table in DELETE": ("DELETE FROM {ns}.poits", Code.NOT_FOUND, ["points"]),
    "unknown table in DROP": ("DROP TABLE {ns}.poits", Code.NOT_FOUND, ["points"]),
    "unknown table in FLUSH": ("STORAGE FLUSH TABLE {ns}.poits", Code.NOT_FOUND, ["points"]),
    "unknown column": ("SELECT lable FROM {t}", Code.NOT_FOUND, ["lable", "label"]),
    "unknown column in WHERE": ("DELETE FROM {t} WHERE lable = 'a'", Code.NOT_FOUND, ["lable", "label"]),
    "unknown column in SET": ("UPDATE {t} SET lable = 'a'", Code.NOT_FOUND, ["lable", "label"]),
    "unknown column in INSERT": ("INSERT INTO {t} (x, lable) VALUES (1, 'a')", Code.NOT_FOUND, ["lable", "label"]),
    "unknown function": ("SELECT uper(label) FROM {t}", Code.INVALID_ARGUMENT, ["uper", "upper"]),
    "column twice": ("INSERT INTO {t} (x, x) VALUES (1, 2)", Code.INVALID_ARGUMENT, ["x"]),
    "too many values": ("INSERT INTO {t} (x, label) VALUES (1, 'a', 2)", Code.INVALID_ARGUMENT, []),
    "too few values": ("INSERT INTO {t} (x, label) VALUES (1)", Code.INVALID_ARGUMENT, []),
    "type of a literal": ("INSERT INTO {t} (x) VALUES ('many')", Code.INVALID_ARGUMENT, ["many"]),
    "type of an operator": ("SELECT x + DATE '2026-01-01' + label FROM {t}", Code.INVALID_ARGUMENT, []),
    "type of a cast": ("SELECT CAST(label AS BIGINT) FROM {t}", Code.INVALID_ARGUMENT, ["a"]),
    "type of SET": ("UPDATE {t} SET x = label", Code.INVALID_ARGUMENT, []),
    "type out of range": ("INSERT INTO {t} (x) VALUES (9223372036854775808)", Code.INVALID_ARGUMENT, []),
    "division by zero": ("SELECT x / (x - x) FROM {t}", Code.INVALID_ARGUMENT, ["zero"]),
    "endless string": ("SELECT length(repeat('x', 4000000000))", Code.INVALID_ARGUMENT, ["repeat"]),
    "grouping": ("SELECT label, count(*) FROM {t} GROUP BY x", Code.INVALID_ARGUMENT, ["label"]),
    "two rows in a scalar": ("SELECT (SELECT i FROM (VALUES (1), (2)) AS v(i)) FROM {t}", Code.INVALID_ARGUMENT, []),
    "_id by INSERT": (
        "INSERT INTO {t} (_id, x) VALUES (1, 1)",
        Code.INVALID_ARGUMENT,
        ["SystemColumnViolation", "_id"],
    ),
    "_updated by INSERT": (
        "INSERT INTO {t} (x, _updated) VALUES (1, now())",
        Code.INVALID_ARGUMENT,
        ["SystemColumnViolation", "_updated"],
    ),
    "_deleted by INSERT": (
        "INSERT INTO {t} (x, _deleted) VALUES (1, true)",
        Code.INVALID_ARGUMENT,
        ["SystemColumnViolation", "_deleted"],
    ),
    "_id by UPDATE": ("UPDATE {t} SET _id = 1", Code.INVALID_ARGUMENT, ["SystemColumnViolation", "_id"]),
    "_updated by UPDATE": (
        "UPDATE {t} SET label = 'b', _updated = now()",
        Code.INVALID_ARGUMENT,
        ["SystemColumnViolation", "_updated"],
    ),
    "_deleted by UPDATE": (
        "UPDATE {t} SET _deleted = true",
        Code.INVALID_ARGUMENT,
        ["SystemColumnViolation", "_deleted"],
    ),
    "_id by CREATE": ("CREATE TABLE {ns}.own (_id BIGINT)", Code.INVALID_ARGUMENT, ["SystemColumnViolation", "_id"]),
    "duplicate table": ("CREATE TABLE {t} (y TEXT)", Code.ALREADY_EXISTS, ["points"]),
    "duplicate namespace": ("CREATE NAMESPACE {ns}", Code.ALREADY_EXISTS, ["{ns}"]),
    "duplicate user": ("CREATE USER root WITH PASSWORD 'long enough' ROLE user", Code.ALREADY_EXISTS, ["root"]),
    "duplicate column": ("CREATE TABLE {ns}.twice (a INT, A INT)", Code.INVALID_ARGUMENT, ["a"]),
    "unknown role": (
        "CREATE USER someone WITH PASSWORD 'long enough' ROLE emperor",
        Code.INVALID_ARGUMENT,
        ["emperor"],
    ),
    "unknown type": ("CREATE TABLE {ns}.typed (a GLACIER)", Code.NOT_IMPLEMENTED, ["GLACIER"]),
    "unknown table option": ("CREATE TABLE {ns}.w (a INT) WITH (tlt = '10s')", Code.INVALID_ARGUMENT, ["tlt"]),
    "namespace in use": ("DROP NAMESPACE {ns}", Code.INVALID_ARGUMENT, ["{ns}"]),
    "NULL into NOT NULL": ("INSERT INTO {t} (x, label) VALUES (NULL, 'a')", Code.INVALID_ARGUMENT, ["x", "(?i)null"]),
    "nothing into NOT NULL": ("INSERT INTO {t} (label) VALUES ('a')", Code.INVALID_ARGUMENT, ["x", "(?i)null"]),
    "NULL into NOT NULL by UPDATE": ("UPDATE {t} SET x = NULL", Code.INVALID_ARGUMENT, ["x", "(?i)null"]),
    "parameter without a value": ("SELECT * FROM {t} WHERE x = ?", Code.INVALID_ARGUMENT, []),
    # What would reach files and the network, or is not there.
    "external table": ("CREATE EXTERNAL TABLE e STORED AS CSV LOCATION '/etc/passwd'", Code.NOT_IMPLEMENTED, []),
    "COPY": ("COPY {t} TO '/tmp/stolen.csv'", Code.NOT_IMPLEMENTED, ["COPY"]),
    "file as a table": ("SELECT * FROM '/etc/passwd'", Code.NOT_FOUND, []),
    "file function": ("SELECT * FROM read_csv('/etc/passwd')", Code.NOT_FOUND, ["read_csv"]),
    "serializable": ("BEGIN ISOLATION LEVEL SERIALIZABLE", Code.NOT_IMPLEMENTED, ["SERIALIZABLE"]),
    "materialized view": ("CREATE MATERIALIZED VIEW {ns}.v AS SELECT 1", Code.NOT_IMPLEMENTED, ["VIEW"]),
    "update with a limit": ("DELETE FROM {t} LIMIT 1", Code.NOT_IMPLEMENTED, ["LIMIT"]),
}
# Sizes that would take the process down. RESOURCE_EXHAUSTED has no status of its own in ADBC: it is checked by its text.
LIMITS = {
    "deep expression": "SELECT " + "(" * 10_000 + "1" + ")" * 10_000,
    "long expression": "SELECT " + " + ".join(["1"] * 100_000),
    "long statement": "SELECT '" + "x" * (17 << 20) + "'",
    "statement above the limit of messages": "SELECT '" + "x" * (70 << 20) + "'",
}


# The driver has a limit of its own.
LARGE_MESSAGES = {DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(256 << 20)}


@pytest.fixture
def points(db, namespace) -> dict[str, str]:
    db.run(f"CREATE TABLE {namespace}.points (x BIGINT NOT NULL, label TEXT)")
    db.run(f"INSERT INTO {namespace}.points (x, label) VALUES (1, 'a')")
    return {"t": f"{namespace}.points", "ns": namespace}


def unharmed(db, points) -> None:
    """The row is as it was, and the connection still works."""
    assert db.query(f"SELECT x, label, _deleted FROM {points['t']}").to_pylist() == [
        {"x": 1, "label": "a", "_deleted": False}
    ]


@pytest.mark.parametrize("name", REFUSED)
def test_refused(db, points, name):
    sql, code, texts = REFUSED[name]
    with pytest.raises(seracdb.Error) as refused:
        db.query(sql.format(**points))
    assert refused.value.status_code not in (Code.INTERNAL, Code.UNKNOWN, Code.IO), refused.value
    if code is not None:
        assert refused.value.status_code == code, refused.value
    for text in texts:
        refused.match(text.format(**points))
    unharmed(db, points)


@pytest.mark.parametrize("name", LIMITS)
def test_limits(server, db, points, name):
    with seracdb.connect(server.uri, "root", ROOT_PASSWORD, options=LARGE_MESSAGES) as patient:
        with pytest.raises(seracdb.Error, match="ResourceExhausted") as refused:
            patient.query(LIMITS[name])
    refused.match("(?i)more than|too")
    assert server.process.poll() is None
    unharmed(db, points)


def test_values_above_the_limit_of_messages(server, db, points):
    """Rows that the driver puts into one message."""
    rows = pa.table({"x": [1], "label": ["x" * (70 << 20)]})
    with seracdb.connect(server.uri, "root", ROOT_PASSWORD, options=LARGE_MESSAGES) as patient:
        for write in (
            lambda: patient.ingest(points["t"], rows),
            lambda: patient.run(f"INSERT INTO {points['t']} (x, label) VALUES (?, ?)", rows),
        ):
            with pytest.raises(seracdb.Error, match="more than 64 MiB.*ResourceExhausted"):
                write()
            unharmed(db, points)


def test_what_tools_generate_is_no_bad_input(db, points):
    """Long but flat: IN lists, OR chains and UNIONs that programs write."""
    n = 2000
    assert db.query(f"SELECT x FROM {points['t']} WHERE x IN ({', '.join(map(str, range(n)))})").num_rows == 1
    assert db.query(f"SELECT x FROM {points['t']} WHERE {' OR '.join(f'x = {i}' for i in range(n))}").num_rows == 1
    union = " UNION ALL ".join(f"SELECT {i} AS i" for i in range(200))
    assert db.query(f"SELECT count(*) AS n FROM ({union}) AS u")["n"].to_pylist() == [200]


def test_ingest_that_does_not_fit(db, points):
    for data, text in [
        (pa.table({"x": ["one"]}), "x"),
        (pa.table({"x": pa.array([None], pa.int64())}), "(?i)null"),
        (pa.table({"label": ["a"]}), "x"),
        (pa.table({"_id": [1], "x": [1]}), "SystemColumnViolation.*_id"),
    ]:
        with pytest.raises(seracdb.Error, match=text) as refused:
            db.ingest(points["t"], data)
        assert refused.value.status_code == Code.INVALID_ARGUMENT, refused.value
        unharmed(db, points)


def test_parameters_that_do_not_fit(db, points):
    for params, text in [([], "(?i)parameter"), ([1, 2], "(?i)parameter"), (["many"], "many")]:
        with pytest.raises(seracdb.Error, match=text) as refused:
            db.query(f"SELECT x FROM {points['t']} WHERE x = ?", params)
        assert refused.value.status_code == Code.INVALID_ARGUMENT, refused.value
    unharmed(db, points)


def test_rights(connect, db, points, namespace):
    """A user may not make users or tables; the text says what is missing."""
    db.run(f"CREATE USER {namespace}_user WITH PASSWORD 'long enough' ROLE user")
    user = connect(f"{namespace}_user", "long enough")
    for sql in (
        f"CREATE USER {namespace}_friend WITH PASSWORD 'long enough' ROLE system",
        f"CREATE TABLE {namespace}.mine (x INT)",
        f"DROP TABLE {points['t']}",
        "CREATE NAMESPACE theirs",
    ):
        with pytest.raises(seracdb.Error, match="(?i)permission denied|not allowed|may not|role") as refused:
            user.run(sql)
        assert refused.value.status_code == Code.UNAUTHORIZED, refused.value
    unharmed(db, points)


def test_user_tables_show_own_rows_only(connect, db, namespace):
    table = f"{namespace}.notes"
    db.run(f"CREATE USER TABLE {table} (note TEXT)")
    users = []
    for name in ("anna", "bert"):
        db.run(f"CREATE USER {namespace}_{name} WITH PASSWORD 'long enough' ROLE user")
        users.append(connect(f"{namespace}_{name}", "long enough"))
    anna, bert = users
    anna.run(f"INSERT INTO {table} (note) VALUES ('of anna')")
    bert.run(f"INSERT INTO {table} (note) VALUES ('of bert'), ('of bert too')")
    for _ in ("hot", "cold"):
        assert anna.query(f"SELECT note FROM {table}")["note"].to_pylist() == ["of anna"]
        assert bert.query(f"SELECT count(*) AS n FROM {table}")["n"].to_pylist() == [2]
        assert db.query(f"SELECT note FROM {table}").num_rows == 0
        assert anna.run(f"UPDATE {table} SET note = 'taken' WHERE note LIKE 'of bert%'") == 0
        assert db.run(f"DELETE FROM {table}") == 0
        db.run(f"STORAGE FLUSH TABLE {table}")


def test_passwords_are_in_no_message(server, db, namespace):
    with pytest.raises(seracdb.Error) as refused:
        db.run(f"CREATE USER {namespace}_x WITH PASSWORD 'very secret indeed' ROLE emperor")
    assert "very secret indeed" not in str(refused.value)
    assert "very secret indeed" not in server.log() and ROOT_PASSWORD not in server.log()


def test_bad_statements_beside_good_ones(connect, points):
    """Refusals of some sessions do not disturb others."""

    def bad(connection) -> None:
        for sql in ("SELEC", "SELECT * FROM nowhere.x", "SELECT 1 / 0", LIMITS["deep expression"]) * 5:
            with pytest.raises(seracdb.Error):
                connection.query(sql)

    def good(connection) -> None:
        for _ in range(20):
            assert connection.query(f"SELECT x FROM {points['t']}")["x"].to_pylist() == [1]

    connections = [connect() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda c: (bad if connections.index(c) % 2 else good)(c), connections))
