"""What clients leave behind goes: statements, tickets, cursors, transactions, sessions."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow.flight as flight
import pytest
from conftest import root
from test_transactions import COMMIT, REFUSED, Raw
from testserver import Server
from wire import field, packed

EACH = 2_500
SOON = {
    "SERACDB_FLIGHT__PREPARED_IDLE_SECONDS": "1",
    "SERACDB_FLIGHT__TICKET_IDLE_SECONDS": "1",
    "SERACDB_AUTH__SESSION_IDLE_SECONDS": "2",
    "SERACDB_TRANSACTION__IDLE_SECONDS": "1",
    "SERACDB_FLIGHT__PREPARED_MAX": "100000",
    "SERACDB_FLIGHT__TICKETS_MAX": "100000",
}


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "data", variables=SOON) as running, root(running) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        db.run("INSERT INTO t SELECT value, repeat('x', 100) FROM generate_series(1, 20000)")
        yield running


def resident(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def handles(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def leave_behind(server: Server) -> None:
    """10,000 things in all, and the connection."""
    raw = Raw(server)
    sql = "SELECT n, text FROM t WHERE text LIKE '%x%' AND n > "
    for n in range(EACH):
        raw.act("CreatePreparedStatement", packed("ActionCreatePreparedStatementRequest", field(1, f"{sql}{n}")))
    for n in range(EACH):
        command = packed("CommandStatementQuery", field(1, f"{sql}{n}"))
        raw.connection.get_flight_info(flight.FlightDescriptor.for_command(command), raw.options)
    # A cursor: what was asked for is on its way, and nobody reads it.
    command = packed("CommandStatementQuery", field(1, f"{sql}0"))
    for _ in range(EACH):
        info = raw.connection.get_flight_info(flight.FlightDescriptor.for_command(command), raw.options)
        raw.connection.do_get(info.endpoints[0].ticket, raw.options).cancel()
    for n in range(EACH):
        raw.query(f"INSERT INTO t VALUES ({n}, 'never')", raw.begin())
    raw.connection.close()


def settled(server: Server) -> tuple[int, int]:
    """Memory and handles once what was left behind is gone."""
    time.sleep(8)
    with root(server) as db:
        assert db.query("SELECT count(*) AS n FROM t")["n"].to_pylist() == [20_000]
    return resident(server), handles(server)


def test_what_was_abandoned_comes_back(server):
    before = handles(server)
    leave_behind(server)
    memory, first = settled(server)
    assert first <= before + 8
    # The allocator keeps what was needed at most: a second time needs no more.
    for _ in range(2):
        leave_behind(server)
    again, second = settled(server)
    assert second <= before + 8
    assert again < memory * 1.15 + (16 << 20), f"{memory >> 20} MiB, and after twice as much {again >> 20} MiB"
    assert "panic" not in server.log()


def test_a_session_that_never_closes_its_statements_has_no_more_than_its_share(tmp_path):
    """What the JDBC driver does with a statement that is used again and again."""
    variables = {"SERACDB_FLIGHT__PREPARED_SESSION_MAX": "10", "SERACDB_FLIGHT__PREPARED_MAX": "30"}
    with Server(tmp_path / "data", variables=variables) as server:
        greedy, other = Raw(server), Raw(server)
        kept = other.prepare("SELECT 1 AS one")
        handles = []
        for _ in range(100):
            handles.append(greedy.prepare("SELECT 2 AS two"))
            # In use all the time.
            assert greedy.schema(handles[0]).names == ["two"]
        for handle in (handles[0], handles[-1]):
            assert greedy.schema(handle).names == ["two"]
        with pytest.raises(REFUSED, match="not found.*no such prepared statement"):
            greedy.schema(handles[50])
        assert other.schema(kept).names == ["one"]


def test_a_closed_session_leaves_no_statements(tmp_path):
    with Server(tmp_path / "data") as server:
        closed, later = Raw(server), Raw(server)
        handle = closed.prepare("SELECT 1 AS one")
        # Of the same user.
        assert later.schema(handle).names == ["one"]
        closed.act("CloseSession", b"")
        with pytest.raises(REFUSED, match="no such prepared statement"):
            later.schema(handle)


def test_a_refused_statement_takes_no_place_of_its_session(tmp_path):
    variables = {"SERACDB_FLIGHT__PREPARED_SESSION_MAX": "2", "SERACDB_FLIGHT__PREPARED_MAX": "2"}
    with Server(tmp_path / "data", variables=variables) as server:
        one, other = Raw(server), Raw(server)
        kept, others = one.prepare("SELECT 1 AS one"), other.prepare("SELECT 2 AS two")
        for _ in range(3):
            with pytest.raises(REFUSED, match="too many prepared statements"):
                one.prepare("SELECT 3 AS three")
        assert one.schema(kept).names == ["one"]
        other.act("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", field(1, others)))
        again = one.prepare("SELECT 3 AS three")
        # It has two: the next one takes the place of the first, also when there is no other.
        assert one.schema(one.prepare("SELECT 4 AS four")).names == ["four"]
        assert one.schema(again).names == ["three"]
        with pytest.raises(REFUSED, match="no such prepared statement"):
            one.schema(kept)


def test_a_session_that_is_idle_for_too_long_leaves_nothing(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_AUTH__SESSION_IDLE_SECONDS": "6"}) as server, root(server) as db:

        def files() -> list[Path]:
            return list((server.data_dir / "objects").glob("*temporary*/**/*.parquet"))

        db.run("CREATE TABLE t (n INT)")
        idle = Raw(server)
        statement, transaction = idle.prepare("SELECT 1 AS one"), idle.begin()
        idle.query("INSERT INTO t VALUES (1)", transaction)
        idle.query("CREATE TEMPORARY TABLE own (n INT)")
        idle.query("INSERT INTO own VALUES (1)")
        idle.query("STORAGE FLUSH ALL")
        assert idle.query("SELECT n FROM own") == [{"n": 1}] and len(files()) == 1
        assert Raw(server).schema(statement).names == ["one"]
        deadline = time.monotonic() + 60
        while files():
            assert time.monotonic() < deadline
            time.sleep(0.5)
            db.query("SELECT 1")
        # Of the same user.
        later = Raw(server)
        with pytest.raises(REFUSED, match="no such prepared statement"):
            later.schema(statement)
        with pytest.raises(REFUSED, match="was rolled back"):
            later.end(transaction, COMMIT)
        assert db.query("SELECT n FROM t").num_rows == 0
