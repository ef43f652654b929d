"""What the system tables tell of tables, sessions and statements, and to whom; CANCEL QUERY."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.flight as flight
import pytest
import rawflight
import seracdb
from conftest import Connections, root
from test_manifests import until
from test_running import LARGE, running
from test_transactions import Raw
from testserver import Server

PASSWORD = "a quiet pass phrase"
# Computes for hours in one join.
ENDLESS = "SELECT sum(a.i % 7 + b.i) AS s FROM generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(i)"


@pytest.fixture
def people(own_server) -> Iterator[Callable[[str], seracdb.Connection]]:
    """Connections by user name: `ann` and `bob` are users, `svc` is a service, `boss` an admin."""
    with Connections(own_server) as connections:
        db = connections.open()
        for user, role in [("ann", "user"), ("bob", "user"), ("svc", "service"), ("boss", "admin")]:
            db.run(f"CREATE USER {user} WITH PASSWORD '{PASSWORD}' ROLE {role}")
        opened = {"root": db}

        def of(name: str) -> seracdb.Connection:
            if name not in opened:
                opened[name] = connections.open(name, PASSWORD)
            return opened[name]

        yield of


def one(db: seracdb.Connection, sql: str) -> dict:
    (row,) = db.query(sql).to_pylist()
    return row


def figures(db: seracdb.Connection, table: str) -> dict:
    return one(db, f"SELECT * FROM system.tables WHERE \"table\" = '{table}'")


# Tables.


def test_what_lies_in_a_table(people):
    db = people("root")
    db.run("CREATE TABLE t (n BIGINT, text TEXT)")
    empty = figures(db, "t")
    assert (empty["namespace"], empty["kind"], empty["owner"]) == ("default", "shared", "root")
    assert [empty[name] for name in ("rows", "hot_rows", "hot_bytes", "files", "versions", "masked_rows")] == [0] * 6
    assert empty["masked_share"] is None and empty["users"] is None
    db.run("INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(1, 1000)")
    db.run("UPDATE t SET n = -n WHERE n <= 100")
    hot = figures(db, "t")
    assert (hot["rows"], hot["hot_rows"], hot["versions"], hot["cold_bytes"]) == (1000, 1000, 1100, 0)
    assert 1100 * 100 < hot["hot_bytes"] < 1100 * 300
    db.run("STORAGE FLUSH TABLE t")
    db.run("DELETE FROM t WHERE n < 0")
    db.run("INSERT INTO t VALUES (1, 'one')")
    mixed = figures(db, "t")
    # 1000 rows and the 100 older versions of an archived file; a deletion hides a row and is a version.
    assert (mixed["rows"], mixed["hot_rows"], mixed["files"], mixed["archived_files"]) == (901, 1, 1, 1)
    assert (mixed["versions"], mixed["masked_rows"]) == (1000 + 100 + 101, 100)
    assert mixed["masked_share"] == pytest.approx(0.1)
    assert mixed["cold_bytes"] > 0 and mixed["archived_bytes"] > 0
    assert mixed["rows"] == one(db, "SELECT count(*) AS n FROM t")["n"]
    # All in files, and by columns that need no look at hot rows.
    db.run("STORAGE FLUSH TABLE t")
    db.run("STORAGE COMPACT TABLE t")
    assert figures(db, "t")["rows"] == 901
    active = "SELECT count(*) AS n, sum(size_bytes) AS bytes FROM system.batches WHERE status = 'active'"
    files = "SELECT files AS n, cold_bytes AS bytes FROM system.tables WHERE \"table\" = 't'"
    assert one(db, files) == one(db, active)


def test_rows_of_streams_expire(people):
    db = people("root")
    db.run("CREATE STREAM TABLE s (n BIGINT) WITH (ttl = '1s')")
    db.run("INSERT INTO s VALUES (1), (2)")
    assert figures(db, "s")["versions"] == 2
    until(lambda: figures(db, "s")["rows"] == 0, "they expire")


def test_a_user_sees_figures_of_own_rows_and_an_admin_those_of_all(people):
    db = people("root")
    db.run("CREATE USER TABLE own (n BIGINT)")
    db.run("CREATE TABLE common (n BIGINT)")
    db.run("CREATE TABLE hidden (n BIGINT)")
    db.run("CREATE TABLE writable (n BIGINT)")
    db.run("GRANT SELECT ON common TO ann")
    db.run("GRANT INSERT ON writable TO ann")
    db.run("INSERT INTO common VALUES (1), (2)")
    db.run("INSERT INTO writable VALUES (1), (2), (3)")
    people("ann").run("INSERT INTO own VALUES (1)")
    people("bob").run("INSERT INTO own VALUES (1), (2), (3), (4)")
    db.run("STORAGE FLUSH TABLE own")
    people("bob").run("INSERT INTO own VALUES (5)")
    rows = "SELECT \"table\", rows, files, users FROM system.tables ORDER BY \"table\""
    seen = {row["table"]: row for row in people("ann").query(rows).to_pylist()}
    assert set(seen) == {"common", "own", "writable"}
    assert (seen["own"]["rows"], seen["own"]["files"], seen["own"]["users"]) == (1, 1, None)
    assert seen["common"]["rows"] == 2
    # Who may not read it learns nothing of how much there is.
    assert {value for name, value in seen["writable"].items() if name != "table"} == {None}
    assert {name: value for name, value in figures(people("ann"), "writable").items() if value is not None}.keys() == {
        "namespace", "table", "kind", "owner", "created_at",
    }
    assert figures(people("bob"), "own")["rows"] == 5
    for admin in ["root", "boss"]:
        assert [figures(people(admin), "own")[name] for name in ("rows", "files", "users")] == [6, 2, 2]
    # A service owns what it creates, and has no rows of others.
    svc = people("svc")
    svc.run("CREATE USER TABLE served (n BIGINT)")
    people("ann").run("INSERT INTO served VALUES (1), (2)")
    assert figures(svc, "served")["rows"] == 0
    acting = one(svc, "EXECUTE AS USER 'ann' (SELECT rows FROM system.tables WHERE \"table\" = 'served')")
    assert acting["rows"] == 2


def test_other_sessions_temporary_tables_are_not_there(people):
    people("svc").run("CREATE TEMPORARY TABLE mine (n BIGINT)")
    people("svc").run("INSERT INTO mine VALUES (1)")
    assert figures(people("svc"), "mine")["rows"] == 1
    assert people("root").query("SELECT * FROM system.tables WHERE \"table\" = 'mine'").num_rows == 0


# The manifest cache.


def test_the_manifest_cache_as_a_table(people):
    db = people("root")
    db.run("CREATE USER TABLE own (n BIGINT)")
    for user in ["ann", "bob"]:
        people(user).run("INSERT INTO own VALUES (1)")
    db.run("STORAGE FLUSH TABLE own")
    columns = "namespace, \"table\", user_id, etag, sync_state"

    def cached(user: str) -> list[dict]:
        rows = people(user).query(f"SELECT {columns} FROM system.manifest_cache ORDER BY user_id").to_pylist()
        shown = people(user).query("SHOW MANIFEST CACHE").select(["namespace", "table", "user_id", "etag", "sync_state"])
        assert rows == sorted(shown.to_pylist(), key=lambda row: row["user_id"])
        return [row["user_id"] for row in rows]

    assert cached("root") == ["ann", "bob"]
    assert cached("ann") == ["ann"]
    assert cached("svc") == []


# Sessions.


def test_sessions_are_ones_own_and_all_of_them_an_admins(people):
    db = people("root")
    people("ann"), people("bob")
    sql = "SELECT user_id, login, peer, role, namespace FROM system.sessions ORDER BY user_id"
    of_ann = {"user_id": "ann", "login": "password", "peer": "127.0.0.1", "role": "user", "namespace": "default"}
    assert people("ann").query(sql).to_pylist() == [of_ann]
    assert [row["user_id"] for row in db.query(sql).to_pylist()] == ["ann", "bob", "root"]
    assert [row["user_id"] for row in people("boss").query(sql).to_pylist()] == ["ann", "bob", "boss", "root"]
    # Who acts for a user learns nothing of that one's sessions.
    assert people("svc").query(f"EXECUTE AS USER 'ann' ({sql.split(' ORDER')[0]})").num_rows == 0


def test_what_a_session_does(people, own_server):
    db = people("root")
    own = "SELECT * FROM system.sessions WHERE user_id = 'svc'"
    svc = people("svc")
    svc.run("CREATE NAMESPACE ns")
    svc.run("USE ns")
    before = one(svc, own)
    assert (before["namespace"], before["running"], before["transactions"]) == ("ns", 1, 0)
    svc.run("BEGIN")
    assert one(db, own)["transactions"] == 1
    svc.run("ROLLBACK")
    assert one(db, own)["last_used_at"] > before["last_used_at"] > before["opened_at"]
    # It is called as in the audit log, and its name lets nobody in.
    found = db.query("SELECT session_id FROM system.audit_log WHERE action LIKE 'CREATE NAMESPACE%'")
    assert found["session_id"].to_pylist()[-1] == before["session_id"]
    stranger = Raw(own_server)
    stranger.options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + before["session_id"].encode())])
    with pytest.raises(flight.FlightUnauthenticatedError):
        stranger.connection.get_flight_info(rawflight.statement("SELECT 1"), stranger.options)


def test_a_session_that_is_closed_is_gone(people, own_server):
    db = people("root")
    with seracdb.connect(own_server.uri, "ann", PASSWORD) as ann:
        ann.query("SELECT 1")
        assert db.query("SELECT * FROM system.sessions WHERE user_id = 'ann'").num_rows == 1
    until(lambda: db.query("SELECT * FROM system.sessions WHERE user_id = 'ann'").num_rows == 0, "it is closed")


# Statements.


def ended(db: seracdb.Connection, like: str) -> dict:
    """What is remembered of the last statement like this."""
    sql = "SELECT * FROM system.queries WHERE state <> 'running' AND statement LIKE ? AND statement NOT LIKE '%system.%'"
    found = db.query(f"{sql} ORDER BY CAST(query_id AS BIGINT)", [like]).to_pylist()
    assert found, like
    return found[-1]


def test_how_statements_have_ended(people):
    db = people("root")
    db.run("CREATE TABLE t (n BIGINT)")
    db.run("INSERT INTO t SELECT value FROM generate_series(1, 1000)")
    row = ended(db, "INSERT INTO t%")
    assert (row["state"], row["kind"], row["rows"], row["error"]) == ("completed", "update", 1000, None)
    assert row["finished_at"] >= row["started_at"] and row["memory_bytes"] is None and row["progress"] is None
    # Without its literals: they may be values of rows.
    assert row["statement"] == "INSERT INTO t SELECT value FROM generate_series(?, ?)"
    assert db.query("SELECT n FROM t WHERE n > 10 AND 'secret' <> 'other'").num_rows == 990
    row = ended(db, "SELECT n FROM t WHERE%")
    assert (row["state"], row["kind"], row["rows"]) == ("completed", "query", 990)
    assert row["statement"] == "SELECT n FROM t WHERE n > ? AND ? <> ?"
    with pytest.raises(seracdb.Error):
        db.query("SELECT 10 / (n - 5) AS x FROM t ORDER BY x")
    row = ended(db, "SELECT % / (n - %")
    assert (row["state"], row["error"], row["is_slow"]) == ("failed", "INVALID_ARGUMENT", False)
    with pytest.raises(seracdb.Error):
        db.run("CREATE TABLE t (n BIGINT)")
    row = ended(db, "CREATE TABLE t %")
    assert (row["kind"], row["state"], row["error"]) == ("change", "failed", "ALREADY_EXISTS")
    db.query("SELECT n, sum(n) OVER (ORDER BY -n) AS s FROM t ORDER BY s")
    assert ended(db, "SELECT n, sum(n)%")["memory_peak_bytes"] > 0
    db.ingest("t", pa.table({"n": [1, 2]}), "append")
    row = ended(db, "INGEST INTO %")
    assert (row["statement"], row["kind"], row["rows"]) == ("INGEST INTO default.t", "ingest", 2)
    db.run("CREATE USER eve WITH PASSWORD 'a secret of eve'")
    secret = "SELECT * FROM system.queries WHERE statement LIKE '%a secret of eve%' AND state <> 'running'"
    assert db.query(secret).num_rows == 0


def test_a_statement_whose_client_goes_is_cancelled(people, own_server):
    with rawflight.client(own_server) as client:
        stream = client.start(LARGE)
        stream.read_chunk()
        stream.cancel()
    db = people("root")
    until(lambda: running(db, "%generate_series(1, 3000000)%") == [], "it goes with its client")
    row = ended(db, "SELECT value, repeat(%")
    assert (row["state"], row["error"]) == ("cancelled", "CANCELLED")


def test_others_learn_nothing_of_what_has_ended(people):
    people("ann").query("SELECT 1 AS of_ann")
    people("bob").query("SELECT 1 AS of_bob")
    sql = "SELECT user_id, statement FROM system.queries"
    assert {row["user_id"] for row in people("ann").query(sql).to_pylist()} == {"ann"}
    assert {"ann", "bob", "root"} <= {row["user_id"] for row in people("boss").query(sql).to_pylist()}


def test_so_many_are_remembered_and_slow_ones_for_longer(tmp_path):
    variables = {
        "SERACDB_QUERIES__HISTORY_MAX": "3",
        "SERACDB_QUERIES__SLOW_MAX": "1",
        "SERACDB_QUERIES__SLOW_MILLISECONDS": "300",
    }
    with Server(tmp_path / "data", variables=variables) as server, root(server) as db, rawflight.client(server) as client:
        for name in ["first", "second"]:
            stream = client.start(LARGE.replace("filler", name))
            stream.read_chunk()
            time.sleep(0.5)  # the time in which a client reads counts
            stream.cancel()
            until(lambda: running(db, "%generate_series(1, 3000000)%") == [], "it ends")
        for n in range(5):
            db.query(f"SELECT {n} AS n")
        rows = db.query("SELECT statement, is_slow FROM system.queries WHERE state <> 'running'").to_pylist()
        slow = [row["statement"] for row in rows if row["is_slow"]]
        assert len(slow) == 1 and "AS second FROM" in slow[0] and len(rows) == 4
        assert [row["statement"] for row in rows if not row["is_slow"]][-2:] == ["SELECT ? AS n"] * 2


def test_how_far_a_scan_is(people, own_server):
    db = people("root")
    db.run("CREATE TABLE t (n BIGINT, text TEXT)")
    db.run("INSERT INTO t SELECT value, repeat('x', 100) || value FROM generate_series(1, 2000000)")
    db.run("STORAGE FLUSH TABLE t")
    with rawflight.client(own_server) as client:
        stream = client.start("SELECT n, text FROM t")
        stream.read_chunk()
        (row,) = running(db, "SELECT n, text FROM t")
        assert 0 <= row["progress"] < 100 and row["memory_bytes"] >= 0 and row["duration_ms"] >= 0
        while True:
            try:
                stream.read_chunk()
            except StopIteration:
                break
    assert ended(db, "SELECT n, text FROM t")["rows"] == 2_000_000


# CANCEL QUERY.


def number_of(db: seracdb.Connection, like: str) -> str:
    until(lambda: running(db, like), "it runs")
    return running(db, like)[0]["query_id"]


def cancelled(connection: seracdb.Connection, sql: str) -> tuple[threading.Thread, list]:
    """Runs a statement in a thread; what it raises is in the list."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            connection.query(sql)
        except BaseException as error:  # what is raised is looked at by the test
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def assert_cancelled(thread: threading.Thread, errors: list) -> None:
    thread.join(20)
    assert not thread.is_alive()
    (error,) = errors
    assert "cancelled" in str(error).lower() and "CANCEL QUERY" in str(error), error


def test_a_query_that_computes_is_cancelled(people):
    thread, errors = cancelled(people("ann"), ENDLESS)
    db = people("root")
    db.run(f"CANCEL QUERY '{number_of(db, 'SELECT sum(a.i%')}'")
    assert_cancelled(thread, errors)
    until(lambda: running(db, "SELECT sum(a.i%") == [], "it is gone")
    row = ended(db, "SELECT sum(a.i%")
    assert (row["state"], row["error"], row["user_id"]) == ("cancelled", "CANCELLED", "ann")


def test_a_result_that_is_hardly_read_is_cancelled(people, own_server):
    db = people("root")
    with rawflight.client(own_server) as client:
        stream = client.start(LARGE)
        read = stream.read_chunk().data.num_rows
        db.run(f"CANCEL QUERY {number_of(db, '%generate_series(1, 3000000)%')}")
        until(lambda: running(db, "%generate_series(1, 3000000)%") == [], "it ends though nobody reads")
        with pytest.raises(flight.FlightCancelledError, match="the query was cancelled.*CANCEL QUERY"):
            while True:
                read += stream.read_chunk().data.num_rows
        assert read < 3_000_000
    assert ended(db, "SELECT value, repeat(%")["state"] == "cancelled"


def test_an_update_is_cancelled_and_changes_nothing(people):
    db = people("root")
    db.run("CREATE TABLE t (n BIGINT)")
    db.run("INSERT INTO t VALUES (1), (2)")
    sql = f"UPDATE t SET n = ({ENDLESS})"
    with_rows = "INSERT INTO t SELECT a.value FROM generate_series(1, 100000000) a"
    giving = f"DELETE FROM t RETURNING n, ({ENDLESS})"
    likes = ["UPDATE t SET%", "INSERT INTO t SELECT a.value%", "DELETE FROM t RETURNING%"]
    for statement, like in zip([sql, with_rows, giving], likes, strict=True):
        thread, errors = cancelled(people("boss"), statement)
        db.run(f"CANCEL QUERY '{number_of(db, like)}'")
        assert_cancelled(thread, errors)
        assert ended(db, like)["state"] == "cancelled"
    assert db.query("SELECT n FROM t ORDER BY n")["n"].to_pylist() == [1, 2]


def test_an_ingest_is_cancelled_while_it_waits_for_rows(people):
    db = people("root")
    batch = pa.record_batch({"n": pa.array(range(1000), pa.int64())})
    more = threading.Event()

    def batches():
        yield batch
        more.wait(60)
        yield batch

    errors = []

    def load() -> None:
        try:
            people("boss").ingest("loaded", pa.RecordBatchReader.from_batches(batch.schema, batches()), "create")
        except seracdb.Error as error:
            errors.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        db.run(f"CANCEL QUERY '{number_of(db, 'INGEST INTO %loaded')}'")
        until(lambda: running(db, "INGEST INTO %loaded") == [], "it ends")
    finally:
        more.set()
        thread.join(60)
    assert len(errors) == 1 and "CANCEL QUERY" in str(errors[0])
    assert db.query("SELECT * FROM system.tables WHERE \"table\" = 'loaded'").num_rows == 0


def test_only_ones_own_query_and_an_admin_any(people):
    db = people("root")
    thread, errors = cancelled(people("ann"), ENDLESS)
    number = number_of(db, "SELECT sum(a.i%")
    texts = set()
    for user, wanted in [("bob", number), ("svc", number), ("bob", "999999"), ("ann", "999999"), ("root", "999999")]:
        with pytest.raises(seracdb.Error) as refused:
            people(user).run(f"CANCEL QUERY '{wanted}'")
        assert "NOT_FOUND" in str(refused.value) or "NotFound" in str(refused.value)
        texts.add(str(refused.value).replace(wanted, "?"))
    assert len(texts) == 1, "it is not said whether there is one of another"
    assert len(running(db, "SELECT sum(a.i%")) == 1
    people("boss").run(f"CANCEL QUERY '{number}'")
    assert_cancelled(thread, errors)
    with pytest.raises(seracdb.Error, match="no statement"):
        db.run(f"CANCEL QUERY '{number}'")


def test_ones_own_query_from_another_session(people, own_server):
    thread, errors = cancelled(people("ann"), ENDLESS)
    with seracdb.connect(own_server.uri, "ann", PASSWORD) as again:
        again.run(f"CANCEL QUERY '{number_of(again, 'SELECT sum(a.i%')}'")
    assert_cancelled(thread, errors)


def test_what_is_cancelled_is_named(people):
    for sql in ["CANCEL QUERY", "CANCEL QUERY x", "CANCEL QUERY NULL", "CANCEL"]:
        with pytest.raises(seracdb.Error, match="syntax error|not supported|expected"):
            people("root").run(sql)
