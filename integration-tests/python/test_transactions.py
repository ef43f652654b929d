"""Transactions, through the Python DBAPI as it is by default, as text, and raw."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import seracdb
from conftest import root
from test_manifests import until
from testserver import ROOT_PASSWORD, Server
from wire import field, packed, unpack

ROWS = [(k, f"row {k}") for k in range(6)]


@pytest.fixture
def tx(server):
    """A connection of root with autocommit off, as the DBAPI has it by default."""
    connection = flightsql.connect(server.uri, db_kwargs={"username": "root", "password": ROOT_PASSWORD})
    yield connection
    connection.close()


@pytest.fixture(params=["hot", "cold", "mixed"])
def table(request, db, namespace) -> str:
    """Six rows: all hot, all frozen, or half and half."""
    name = f"{namespace}.t"
    db.run(f"CREATE TABLE {name} (k BIGINT NOT NULL, v TEXT)")
    for half in (ROWS[:3], ROWS[3:]):
        db.run(f"INSERT INTO {name} VALUES " + ", ".join(f"({k}, '{v}')" for k, v in half))
        if request.param == "cold" or (request.param == "mixed" and half is not ROWS[3:] and half[0][0] == 0):
            db.run(f"STORAGE FLUSH TABLE {name}")
    return name


def rows(connection, table: str, where: str = "TRUE") -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT k, v FROM {table} WHERE {where} ORDER BY k")
        return cursor.fetchall()


def run(connection, sql: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.rowcount


def test_changes_are_seen_by_their_own_transaction_and_by_others_after_the_commit(tx, db, table):
    assert rows(tx, table) == ROWS
    assert run(tx, f"INSERT INTO {table} VALUES (10, 'new'), (11, 'newer')") == 2
    assert run(tx, f"UPDATE {table} SET v = 'changed' WHERE k IN (1, 4, 10)") == 3
    assert run(tx, f"UPDATE {table} SET v = v || ' twice' WHERE k = 1") == 1
    assert run(tx, f"DELETE FROM {table} WHERE k IN (2, 5, 11)") == 3
    mine = [(0, "row 0"), (1, "changed twice"), (3, "row 3"), (4, "changed"), (10, "changed")]
    assert rows(tx, table) == mine
    assert rows(tx, table, "v LIKE 'changed%'") == [row for row in mine if "changed" in row[1]]
    assert rows(db, table) == ROWS
    # What is not committed has no `_updated` yet, and its `_id` already.
    with tx.cursor() as cursor:
        cursor.execute(f"SELECT k, _id IS NOT NULL FROM {table} WHERE _updated IS NULL ORDER BY k")
        assert cursor.fetchall() == [(1, True), (4, True), (10, True)]
        cursor.execute(f"SELECT count(*), max(k) FROM {table}")
        assert cursor.fetchall() == [(5, 10)]
    tx.commit()
    assert rows(db, table) == mine
    assert rows(tx, table) == mine
    stamps = db.query(f"SELECT count(DISTINCT _updated) AS n FROM {table} WHERE k IN (1, 4, 10)")
    assert stamps["n"].to_pylist() == [1], "one commit, one timestamp"
    db.run(f"STORAGE FLUSH TABLE {table}")
    assert rows(db, table) == mine


def test_a_rollback_leaves_nothing(tx, db, table):
    run(tx, f"DELETE FROM {table}")
    run(tx, f"INSERT INTO {table} VALUES (7, 'x')")
    assert rows(tx, table) == [(7, "x")]
    tx.rollback()
    assert rows(tx, table) == ROWS
    assert rows(db, table) == ROWS


def test_one_snapshot_from_the_beginning_on(tx, db, table):
    assert rows(tx, table) == ROWS
    db.run(f"UPDATE {table} SET v = 'other' WHERE k = 0")
    db.run(f"DELETE FROM {table} WHERE k = 3")
    db.run(f"INSERT INTO {table} VALUES (9, 'late')")
    db.run(f"STORAGE FLUSH TABLE {table}")
    db.run(f"STORAGE COMPACT TABLE {table}")
    assert rows(tx, table) == ROWS
    # Rows that nobody else has changed, wherever they lie by now.
    run(tx, f"UPDATE {table} SET v = 'mine' WHERE k IN (1, 5)")
    tx.commit()
    expected = [(0, "other"), (1, "mine"), (2, "row 2"), (4, "row 4"), (5, "mine"), (9, "late")]
    assert rows(db, table) == expected
    db.run(f"STORAGE FLUSH TABLE {table}")
    assert rows(db, table) == expected


@pytest.mark.parametrize("theirs", ["UPDATE {} SET v = 'first' WHERE k = 1", "DELETE FROM {} WHERE k = 1"])
def test_the_first_committer_wins(tx, db, table, theirs):
    run(tx, f"INSERT INTO {table} VALUES (12, 'gone with the rest')")
    run(tx, f"UPDATE {table} SET v = 'second' WHERE k IN (1, 2)")
    key = db.query(f"SELECT _id FROM {table} WHERE k = 1")["_id"].to_pylist()[0]
    db.run(theirs.format(table))
    after = rows(db, table)
    with pytest.raises(seracdb.Error) as refused:
        tx.commit()
    assert "rolled back" in str(refused.value) and table in str(refused.value) and str(key) in str(refused.value)
    assert rows(db, table) == after


def test_a_statement_that_fails_stages_nothing_and_the_transaction_goes_on(tx, db, table):
    run(tx, f"UPDATE {table} SET v = 'kept' WHERE k = 0")
    with pytest.raises(seracdb.Error, match="NOT NULL"):
        run(tx, f"UPDATE {table} SET k = CASE WHEN k = 5 THEN NULL ELSE k END, v = 'lost'")
    with pytest.raises(seracdb.Error, match="unknown column"):
        run(tx, f"UPDATE {table} SET w = 1")
    tx.commit()
    assert rows(db, table) == [(0, "kept"), *ROWS[1:]]


def test_bound_rows_are_one_commit(db, table):
    """Also without a transaction: the third row fails, and the first two leave nothing."""
    bound = pa.table({"v": ["a", "b", "c"], "k": pa.array([1, 2, 3], pa.int64())})
    assert db.run(f"UPDATE {table} SET v = ? WHERE k = ?", bound) == 3
    changed = [(0, "row 0"), (1, "a"), (2, "b"), (3, "c"), *ROWS[4:]]
    assert rows(db, table) == changed
    stamps = db.query(f"SELECT count(DISTINCT _updated) AS n FROM {table} WHERE k IN (1, 2, 3)")
    assert stamps["n"].to_pylist() == [1]
    with pytest.raises(seracdb.Error, match="NOT NULL"):
        twice = pa.table({"n": pa.array([50, None], pa.int64()), "k": pa.array([1, 2], pa.int64())})
        db.run(f"UPDATE {table} SET k = ? WHERE k = ?", twice)
    assert rows(db, table) == changed
    # Each row sees what those before it have done.
    chain = pa.table({"v": ["x", "y", "z"], "old": ["a", "x", "y"]})
    assert db.run(f"UPDATE {table} SET v = ? WHERE v = ?", chain) == 3
    assert rows(db, table, "k = 1") == [(1, "z")]


def test_tables_are_made_and_filled_in_a_transaction(tx, db, namespace):
    data = pa.table({"x": pa.array([1, 2, 3], pa.int64())})
    name = f"{namespace}.made"

    def fill() -> None:
        with tx.cursor() as cursor:
            assert cursor.adbc_ingest("made", data, mode="create", db_schema_name=namespace) == 3
            cursor.execute(f"INSERT INTO {name} VALUES (4)")
            cursor.execute(f"UPDATE {name} SET x = x * 10 WHERE x > 2")
            cursor.execute(f"SELECT sum(x) FROM {name}")
            assert cursor.fetchall() == [(73,)]

    fill()
    with pytest.raises(seracdb.Error, match="unknown table"):
        db.query(f"SELECT * FROM {name}")
    tx.rollback()
    with pytest.raises(seracdb.Error, match="unknown table"), tx.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {name}")
    fill()
    schema = tx.adbc_get_table_schema("made", db_schema_filter=namespace)
    assert "x" in schema.names, "metadata shows what the transaction has made"
    tx.commit()
    assert sorted(db.query(f"SELECT x FROM {name}")["x"].to_pylist()) == [1, 2, 30, 40]
    db.run(f"STORAGE FLUSH TABLE {name}")
    # Replaced, and dropped, with the rest of the transaction.
    with tx.cursor() as cursor:
        cursor.adbc_ingest("made", pa.table({"y": ["a"]}), mode="replace", db_schema_name=namespace)
        cursor.execute(f"SELECT y FROM {name}")
        assert cursor.fetchall() == [("a",)]
    assert sorted(db.query(f"SELECT x FROM {name}")["x"].to_pylist()) == [1, 2, 30, 40]
    run(tx, f"DROP TABLE {name}")
    tx.commit()
    with pytest.raises(seracdb.Error, match="unknown table"):
        db.query(f"SELECT * FROM {name}")


def test_two_that_create_one_table(tx, db, namespace):
    run(tx, f"CREATE TABLE {namespace}.same (x INT)")
    run(tx, f"INSERT INTO {namespace}.same VALUES (1)")
    db.run(f"CREATE TABLE {namespace}.same (y TEXT)")
    with pytest.raises(seracdb.Error, match="rolled back.*exists already"):
        tx.commit()
    assert db.query(f"SELECT y FROM {namespace}.same").num_rows == 0


def test_a_table_that_is_dropped_meanwhile(tx, db, table):
    run(tx, f"UPDATE {table} SET v = 'x'")
    db.run(f"DROP TABLE {table}")
    with pytest.raises(seracdb.Error, match="rolled back.*dropped"):
        tx.commit()


def test_transactions_over_several_tables_are_atomic(tx, db, table, namespace):
    db.run(f"CREATE TABLE {namespace}.log (what TEXT)")
    db.run(f"CREATE USER TABLE {namespace}.own (n INT)")
    run(tx, f"INSERT INTO {namespace}.log VALUES ('update')")
    run(tx, f"INSERT INTO {namespace}.own VALUES (1)")
    run(tx, f"UPDATE {table} SET v = (SELECT max(what) FROM {namespace}.log) WHERE k = 0")
    assert rows(tx, table, "k = 0") == [(0, "update")]
    db.run(f"DELETE FROM {table} WHERE k = 0")
    with pytest.raises(seracdb.Error):
        tx.commit()
    assert db.query(f"SELECT * FROM {namespace}.log").num_rows == 0
    assert db.query(f"SELECT * FROM {namespace}.own").num_rows == 0


def test_a_prepared_statement_goes_on_in_the_next_transaction(tx, db, table):
    with tx.cursor() as cursor:
        insert = f"INSERT INTO {table} VALUES (?, ?)"
        for k in (100, 101):
            cursor.execute(insert, [k, "prepared"])
            tx.commit()
        cursor.execute(insert, [102, "prepared"])
        tx.rollback()
    assert rows(db, table, "k >= 100") == [(100, "prepared"), (101, "prepared")]


def test_closing_the_connection_rolls_back(server, db, table):
    connection = flightsql.connect(server.uri, db_kwargs={"username": "root", "password": ROOT_PASSWORD})
    run(connection, f"DELETE FROM {table}")
    connection.close()
    assert rows(db, table) == ROWS


def test_text(db, table):
    """BEGIN, SAVEPOINT and the rest, per session, on a connection in autocommit."""
    db.run("BEGIN")
    db.run(f"UPDATE {table} SET v = 'one' WHERE k = 1")
    db.run("SAVEPOINT a")
    db.run(f"DELETE FROM {table} WHERE k > 3")
    db.run("SAVEPOINT b")
    db.run(f"INSERT INTO {table} VALUES (30, 'x')")
    db.run("ROLLBACK TO SAVEPOINT b")
    assert [k for k, _ in rows(db, table)] == [0, 1, 2, 3]
    db.run("ROLLBACK TO a")
    assert [k for k, _ in rows(db, table)] == [0, 1, 2, 3, 4, 5]
    with pytest.raises(seracdb.Error, match="no such savepoint"):
        db.run("ROLLBACK TO b")
    db.run(f"DELETE FROM {table} WHERE k = 0")
    db.run("RELEASE SAVEPOINT a")
    with pytest.raises(seracdb.Error, match="no such savepoint"):
        db.run("RELEASE a")
    with pytest.raises(seracdb.Error, match="open already"):
        db.run("START TRANSACTION")
    db.run("COMMIT")
    assert rows(db, table) == [(1, "one"), *ROWS[2:]]
    for nothing in ("COMMIT", "ROLLBACK", "SAVEPOINT a"):
        with pytest.raises(seracdb.Error, match="BEGIN first"):
            db.run(nothing)
    db.run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE")
    db.run(f"DELETE FROM {table}")
    db.run("ROLLBACK WORK")
    assert rows(db, table) == [(1, "one"), *ROWS[2:]]


def test_read_only(db, table):
    db.run("BEGIN READ ONLY")
    assert rows(db, table) == ROWS
    for change in (f"DELETE FROM {table}", f"INSERT INTO {table} VALUES (1, '')", "CREATE NAMESPACE never"):
        with pytest.raises(seracdb.Error, match="READ ONLY"):
            db.run(change)
    db.run("SET TRANSACTION READ WRITE")
    db.run(f"DELETE FROM {table} WHERE k = 0")
    db.run("COMMIT")
    assert rows(db, table) == ROWS[1:]


class Raw:
    """A session that names its transactions."""

    def __init__(self, server: Server, user: str = "root", password: str = ROOT_PASSWORD):
        self.connection = flight.FlightClient(server.uri)
        self.options = flight.FlightCallOptions(headers=[self.connection.authenticate_basic_token(user, password)])

    def act(self, name: str, body: bytes) -> bytes:
        results = list(self.connection.do_action(flight.Action(name, body), self.options))
        return results[0].body.to_pybytes() if results else b""

    def begin(self) -> bytes:
        return unpack(self.act("BeginTransaction", packed("ActionBeginTransactionRequest", b"")))[1][1]

    def end(self, transaction: bytes, action: int) -> None:
        body = field(1, transaction) + field(2, action)
        self.act("EndTransaction", packed("ActionEndTransactionRequest", body))

    def savepoint(self, transaction: bytes, name: str) -> bytes:
        body = packed("ActionBeginSavepointRequest", field(1, transaction) + field(2, name))
        return unpack(self.act("BeginSavepoint", body))[1][1]

    def end_savepoint(self, savepoint: bytes, action: int) -> None:
        self.act("EndSavepoint", packed("ActionEndSavepointRequest", field(1, savepoint) + field(2, action)))

    def prepare(self, sql: str) -> bytes:
        body = packed("ActionCreatePreparedStatementRequest", field(1, sql))
        return unpack(self.act("CreatePreparedStatement", body))[1][1]

    def schema(self, statement: bytes) -> pa.Schema:
        command = packed("CommandPreparedStatementQuery", field(1, statement))
        return self.connection.get_schema(flight.FlightDescriptor.for_command(command), self.options).schema

    def query(self, sql: str, transaction: bytes = b"") -> list[dict]:
        command = packed("CommandStatementQuery", field(1, sql) + (field(2, transaction) if transaction else b""))
        info = self.connection.get_flight_info(flight.FlightDescriptor.for_command(command), self.options)
        return self.connection.do_get(info.endpoints[0].ticket, self.options).read_all().to_pylist()


COMMIT, ROLLBACK = 1, 2
RELEASE = 1
# What pyarrow makes of NOT_FOUND, ABORTED and the rest.
REFUSED = (flight.FlightError, pa.ArrowException)


def test_by_name(server, db, namespace):
    name = f"{namespace}.t"
    db.run(f"CREATE TABLE {name} (n INT)")
    raw = Raw(server)
    one, other = raw.begin(), raw.begin()
    assert one != other
    raw.query(f"INSERT INTO {name} VALUES (1)", one)
    raw.query(f"INSERT INTO {name} VALUES (2)", other)
    assert raw.query(f"SELECT n FROM {name}", one) == [{"n": 1}]
    assert raw.query(f"SELECT n FROM {name}") == [], "outside of both"
    mark = raw.savepoint(one, "mark")
    raw.query(f"DELETE FROM {name}", one)
    raw.query(f"INSERT INTO {name} VALUES (3)", one)
    raw.end_savepoint(mark, ROLLBACK)
    assert raw.query(f"SELECT n FROM {name}", one) == [{"n": 1}]
    raw.end_savepoint(mark, RELEASE)
    with pytest.raises(REFUSED, match="savepoint"):
        raw.end_savepoint(mark, RELEASE)
    raw.end(other, ROLLBACK)
    raw.end(one, COMMIT)
    assert raw.query(f"SELECT n FROM {name}") == [{"n": 1}]
    # Whoever lost the answer asks again.
    raw.end(one, COMMIT)
    raw.end(other, ROLLBACK)
    with pytest.raises(REFUSED, match="was committed"):
        raw.end(one, ROLLBACK)
    with pytest.raises(REFUSED, match="was rolled back"):
        raw.end(other, COMMIT)
    with pytest.raises(REFUSED, match="was committed"):
        raw.query(f"SELECT n FROM {name}", one)


def test_names_of_others_and_of_nobody(server, db, namespace):
    user = f"u{namespace}"
    db.run(f"CREATE USER {user} WITH PASSWORD 'a password' ROLE user")
    raw, stranger = Raw(server), Raw(server, user, "a password")
    transaction = raw.begin()
    for of, named in ((stranger, transaction), (raw, b"\x07" * 16)):
        for attempt in (
            lambda of=of, named=named: of.query("SELECT 1", named),
            lambda of=of, named=named: of.end(named, COMMIT),
            lambda of=of, named=named: of.savepoint(named, "x"),
        ):
            with pytest.raises(pa.ArrowKeyError, match="no such transaction"):
                attempt()
    for named in (b"short", b"x" * 17):
        with pytest.raises(pa.ArrowInvalid, match="no transaction id"):
            raw.end(named, COMMIT)
    with pytest.raises(pa.ArrowInvalid, match="COMMIT or ROLLBACK"):
        raw.end(transaction, 0)
    raw.end(transaction, ROLLBACK)


def test_without_use_for_too_long(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_TRANSACTION__IDLE_SECONDS": "1"}) as server:
        with root(server) as db:
            db.run("CREATE TABLE t (n INT)")
            raw = Raw(server)
            transaction = raw.begin()
            raw.query("INSERT INTO t VALUES (1)", transaction)
            db.run("BEGIN")
            db.run("INSERT INTO t VALUES (2)")
            until(lambda: "rolled back" in server.log(), "it is rolled back")
            time.sleep(1.5)
            with pytest.raises(REFUSED, match="too long without use"):
                raw.end(transaction, COMMIT)
            # Nothing stands by itself that was to be in it.
            for late in ("INSERT INTO t VALUES (3)", "CREATE TABLE u (n INT)", "SELECT n FROM t", "SAVEPOINT a", "BEGIN"):
                with pytest.raises(seracdb.Error, match="rolled back"):
                    db.run(late)
            with pytest.raises(seracdb.Error, match="rolled back"):
                db.ingest("t", pa.table({"n": pa.array([4], pa.int32())}))
            db.run("ROLLBACK")
            assert db.query("SELECT n FROM t").num_rows == 0
            db.run("BEGIN")
            db.run("INSERT INTO t VALUES (5)")
            until(lambda: server.log().count("a transaction without use") >= 3, "it is rolled back")
            with pytest.raises(seracdb.Error, match="rolled back"):
                db.run("COMMIT")
            with flightsql.connect(server.uri, db_kwargs={"username": "root", "password": ROOT_PASSWORD}) as by_driver:
                run(by_driver, "INSERT INTO t VALUES (6)")
                until(lambda: server.log().count("a transaction without use") >= 4, "it is rolled back")
                with pytest.raises(seracdb.Error, match="rolled back"), by_driver.cursor() as cursor:
                    cursor.adbc_ingest("t", pa.table({"n": pa.array([7], pa.int32())}), mode="append")
                by_driver.rollback()
                run(by_driver, "INSERT INTO t VALUES (8)")
                by_driver.commit()
            assert db.query("SELECT n FROM t")["n"].to_pylist() == [8]


def test_one_that_is_used_is_not_idle(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_TRANSACTION__IDLE_SECONDS": "4"}) as server:
        with root(server) as db:
            db.run("CREATE TABLE t (n INT)")
            db.run("BEGIN")
            for n in range(12):
                db.run(f"INSERT INTO t VALUES ({n})")
                time.sleep(1)
            db.run("COMMIT")
            assert db.query("SELECT count(*) AS n FROM t")["n"].to_pylist() == [12]


def test_more_than_may_be_staged(tmp_path):
    limit = {"SERACDB_TRANSACTION__MEMORY_MAX": str(1 << 20)}
    with Server(tmp_path / "data", variables=limit) as server, root(server) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        db.run("BEGIN")
        insert = "INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(1, 4000)"
        db.run(insert)
        with pytest.raises(seracdb.Error, match="memory_max") as refused:
            db.run(insert)
        assert "ResourceExhausted" in str(refused.value)
        assert db.query("SELECT count(*) AS n FROM t")["n"].to_pylist() == [4000]
        db.run("COMMIT")
        # What is committed is no longer counted.
        for _ in range(3):
            db.run("BEGIN")
            db.run(insert)
            db.run("ROLLBACK")
        assert db.query("SELECT count(*) AS n FROM t")["n"].to_pylist() == [4000]


def test_a_crash_leaves_whole_transactions(own_server):
    with root(own_server) as db:
        db.run("CREATE TABLE a (n BIGINT)")
        db.run("CREATE TABLE b (n BIGINT)")
        for n in range(20):
            db.run("BEGIN")
            db.run(f"INSERT INTO a VALUES ({n})")
            db.run(f"INSERT INTO b VALUES ({n})")
            if n % 3:
                db.run("COMMIT")
            else:
                db.run("ROLLBACK")
        db.run("BEGIN")
        db.run("INSERT INTO a VALUES (99)")
        own_server.kill()
    own_server.start()
    with root(own_server) as db:
        expected = [n for n in range(20) if n % 3]
        for name in "ab":
            assert db.query(f"SELECT n FROM {name} ORDER BY n")["n"].to_pylist() == expected


def test_text_needs_a_session(server, db, namespace):
    """With user and password on every call there is none: what follows a BEGIN would stand by itself."""
    credentials = base64.b64encode(f"root:{ROOT_PASSWORD}".encode())
    options = flight.FlightCallOptions(headers=[(b"authorization", b"Basic " + credentials)])
    command = flight.FlightDescriptor.for_command(packed("CommandStatementQuery", field(1, "BEGIN")))
    with flight.FlightClient(server.uri) as connection, pytest.raises(pa.ArrowInvalid, match="BEGIN needs a session"):
        connection.get_flight_info(command, options)


def test_a_statement_prepared_before_the_transaction_is_in_it(db, table):
    insert = f"INSERT INTO {table} VALUES (?, ?)"
    with db.cursor() as cursor:
        cursor.execute(insert, [200, "by itself"])
        db.adbc_connection.set_autocommit(False)
        cursor.execute(insert, [201, "undone"])
        # The DBAPI's own rollback() does nothing on a connection that was made in autocommit.
        db.adbc_connection.rollback()
        db.adbc_connection.set_autocommit(True)
    assert rows(db, table, "k >= 200") == [(200, "by itself")]


def test_what_is_prepared_outside_runs_in_the_transaction_of_the_text(server, db, namespace):
    """Also beside one that the client names: BEGIN was said of everything that names none."""
    name = f"{namespace}.t"
    db.run(f"CREATE TABLE {name} (n INT)")
    raw = Raw(server)
    named = raw.begin()
    raw.query("BEGIN")
    request = packed("ActionCreatePreparedStatementRequest", field(1, f"INSERT INTO {name} VALUES (1)"))
    handle = unpack(raw.act("CreatePreparedStatement", request))[1][1]
    command = packed("CommandPreparedStatementQuery", field(1, handle))
    raw.connection.get_flight_info(flight.FlightDescriptor.for_command(command), raw.options)
    assert raw.query(f"SELECT n FROM {name}") == [{"n": 1}]
    assert raw.query(f"SELECT n FROM {name}", named) == []
    raw.end(named, COMMIT)
    raw.query("ROLLBACK")
    assert raw.query(f"SELECT n FROM {name}") == []


def test_what_became_of_a_transaction_is_known_after_a_restart(own_server):
    """For a client whose commit was not answered, because the server died."""
    with root(own_server) as db:
        db.run("CREATE TABLE t (n INT)")
        db.run("CREATE USER other WITH PASSWORD 'a quiet pass phrase' ROLE user")
    raw = Raw(own_server)
    committed, open_ = raw.begin(), raw.begin()
    raw.query("INSERT INTO t VALUES (1)", committed)
    raw.query("INSERT INTO t VALUES (2)", open_)
    raw.end(committed, COMMIT)
    own_server.kill()
    own_server.start()
    raw, other = Raw(own_server), Raw(own_server, "other", "a quiet pass phrase")
    raw.end(committed, COMMIT)
    with pytest.raises(REFUSED, match="it was committed"):
        raw.end(committed, ROLLBACK)
    with pytest.raises(REFUSED, match="it was committed"):
        raw.query("SELECT n FROM t", committed)
    for session, transaction in ((raw, open_), (other, committed), (other, open_)):
        for action in (COMMIT, ROLLBACK):
            with pytest.raises(REFUSED, match="it was not committed, ended long ago, or is another user's"):
                session.end(transaction, action)
    assert raw.query("SELECT n FROM t") == [{"n": 1}]


def test_a_result_that_is_read_for_long_keeps_its_transaction(tmp_path):
    variables = {"SERACDB_TRANSACTION__IDLE_SECONDS": "1"}
    with Server(tmp_path / "data", variables=variables) as server:
        raw = Raw(server)
        raw.query("CREATE TABLE t (n INT)")
        transaction = raw.begin()
        raw.query("INSERT INTO t VALUES (1)", transaction)
        sql = "SELECT value, repeat('x', 100) AS filler FROM generate_series(1, 3000000)"
        command = packed("CommandStatementQuery", field(1, sql) + field(2, transaction))
        info = raw.connection.get_flight_info(flight.FlightDescriptor.for_command(command), raw.options)
        reader = raw.connection.do_get(info.endpoints[0].ticket, raw.options)
        reader.read_chunk()
        # The sweep comes every five seconds.
        time.sleep(8)
        assert raw.query("SELECT n FROM t", transaction) == [{"n": 1}]
        reader.cancel()
        time.sleep(8)
        with pytest.raises(REFUSED, match="too long without use"):
            raw.query("SELECT n FROM t", transaction)


@pytest.mark.parametrize("first", ["SET TRANSACTION READ ONLY", "SELEC 1"])
def test_only_what_reads_or_writes_fixes_the_snapshot(db, connect, namespace, first):
    db.run(f"CREATE TABLE {namespace}.t (n INT)")
    reader = connect()
    reader.run("BEGIN")
    if first == "SELEC 1":
        with pytest.raises(seracdb.Error):
            reader.run(first)
    else:
        reader.run(first)
    db.run(f"INSERT INTO {namespace}.t VALUES (1)")
    assert reader.query(f"SELECT n FROM {namespace}.t").num_rows == 1
    db.run(f"INSERT INTO {namespace}.t VALUES (2)")
    assert reader.query(f"SELECT n FROM {namespace}.t").num_rows == 1
    reader.run("ROLLBACK")


def test_while_it_is_committed_it_is_neither_open_nor_ended(own_server):
    with root(own_server) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
    raw, same = Raw(own_server), Raw(own_server)
    same.options = raw.options
    transaction = raw.begin()
    insert = "INSERT INTO t SELECT value, repeat('x', 1000) FROM generate_series(1, 60000)"
    for _ in range(4):
        raw.query(insert, transaction)
    said = []
    with ThreadPoolExecutor(4) as pool:
        commit = pool.submit(raw.end, transaction, COMMIT)
        again = None
        while not commit.done():
            with pytest.raises(REFUSED) as refused:
                for _ in range(100_000):
                    same.query("SELECT 1", transaction)
            said.append(str(refused.value))
            if again is None and "is being committed" in said[-1]:
                again = [pool.submit(Raw.end, same, transaction, action) for action in (COMMIT, ROLLBACK)]
        commit.result()
        assert again is not None, "the commit was too fast to be seen"
        # They have waited for its end.
        again[0].result()
        with pytest.raises(REFUSED, match="was committed"):
            again[1].result()
    assert all("is being committed" in text or "was committed" in text for text in said), set(said)
    assert raw.query("SELECT count(*) AS n FROM t") == [{"n": 240_000}]


def test_one_that_changed_nothing_was_committed_too(server, db, namespace):
    name = f"{namespace}.t"
    db.run(f"CREATE TABLE {name} (n INT)")
    raw = Raw(server)
    unused, reading, vain = raw.begin(), raw.begin(), raw.begin()
    raw.query(f"SELECT n FROM {name}", reading)
    raw.query(f"DELETE FROM {name}", vain)
    for transaction in (unused, reading, vain):
        raw.end(transaction, COMMIT)
    # As many more as were remembered once.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: raw.end(raw.begin(), COMMIT), range(10_100)))
    for transaction in (unused, reading, vain):
        raw.end(transaction, COMMIT)
        with pytest.raises(REFUSED, match="was committed"):
            raw.end(transaction, ROLLBACK)
