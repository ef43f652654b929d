"""What each driver says on the wire during one tour, compared with integration-tests/traces, and what must hold in it.

A driver's new release or a change of ours shows as a difference. `SERACDB_UPDATE_TRACES=1` writes the files again.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest
import seracdb
from recording_proxy import Call, Proxy, Trace
from testserver import ROOT_PASSWORD, Server
from tours import MISSING, TOURS, Raw

GOLDEN = Path(__file__).resolve().parent.parent / "traces"

# What JDBC's driver never does, so that the server has to forget by itself: it closes no session but one with options,
# and of a java.sql.Statement that is used several times only the last prepared statement.
SESSIONS_LEFT = {"jdbc": 1}
STATEMENTS_LEFT = {"jdbc": ["update by execute"]}


@dataclass
class Recorded:
    """A tour that was made."""

    driver: str
    trace: Trace

    @property
    def steps(self) -> list[tuple[str, list[Call]]]:
        return self.trace.steps

    @property
    def calls(self) -> list[Call]:
        return self.trace.calls

    def actions(self, name: str) -> list[Call]:
        return [call for call in self.calls if call.method == "DoAction" and call.what.split(" ")[0] == name]


@pytest.fixture(scope="module", params=TOURS)
def recorded(request, tmp_path_factory) -> Iterator[Recorded]:
    """One driver's tour, on a server of its own."""
    with Server(tmp_path_factory.mktemp("traced") / "data") as server, Proxy(server) as proxy:
        TOURS[request.param](proxy.uri, proxy.trace.step)
        proxy.trace.finish()
    return Recorded(request.param, proxy.trace)


def part(text: str, name: str) -> str | None:
    """The value of `name=value` in a command or an answer."""
    found = re.search(rf"(?:^| ){name}=(<[^>]*>|\S+)", text)
    return found and found[1]


def executes(call: Call) -> bool:
    """Whether a call has the server run a statement. A query runs when it is asked for, and DoGet only fetches."""
    if call.method == "DoPut":
        return not call.what.startswith("CommandPreparedStatementQuery")
    return call.method == "GetFlightInfo" and bool(re.match(r"Command(Prepared)?Statement", call.what))


def test_the_trace_is_the_golden_one(recorded):
    path = GOLDEN / f"{recorded.driver}.txt"
    text = recorded.trace.text()
    if os.environ.get("SERACDB_UPDATE_TRACES") == "1":
        path.write_text(text)
    golden = path.read_text().splitlines() if path.exists() else []
    difference = "\n".join(difflib.unified_diff(golden, text.splitlines(), path.name, "now", lineterm="", n=8))
    if difference:
        hint = "If this is as it should be: SERACDB_UPDATE_TRACES=1 writes the file again"
        pytest.fail(f"{difference}\n\n{hint}", pytrace=False)


def test_only_the_wrong_statement_fails(recorded):
    """Nothing that a driver asks for by itself is unknown to the server, and no error is an internal one."""
    failed = [(heading, call.code) for heading, calls in recorded.steps for call in calls if call.code != "OK"]
    assert failed == [("error", "NOT_FOUND")]


def test_a_login_and_then_its_token(recorded):
    assert all(call.login == ("(Basic)" if call.method == "Handshake" else "") for call in recorded.calls)


def test_an_update_runs_once(recorded):
    updates = [(heading, calls) for heading, calls in recorded.steps if heading.startswith("update")]
    assert updates
    for heading, calls in updates:
        ran = [call for call in calls if executes(call)]
        assert len(ran) == 1, f"{heading}: {[call.line for call in calls]}"
        assert sum(call.method == "DoGet" for call in calls) == (ran[0].method == "GetFlightInfo")
        # On the query path the count is a row of the result.
        assert ran[0].answer == ("rows=2" if ran[0].method == "DoPut" else "rows=1")


def test_every_count_is_known(recorded):
    puts = [call for call in recorded.calls if call.method == "DoPut" and executes(call)]
    assert puts
    assert all(int(part(call.answer, "rows") or -1) >= 0 for call in puts)


def test_statements_are_described(recorded):
    """The driver is told which path to take, and how many parameters to send."""
    prepared = recorded.actions("CreatePreparedStatement")
    assert prepared or recorded.driver == "adbc-go"
    for call in (call for call in prepared if call.code == "OK"):
        is_query = 'sql="SELECT' in call.what
        assert part(call.answer, "update") == ("false" if is_query else "true"), call.line
        assert (part(call.answer, "columns") != "0") is is_query, call.line
        assert part(call.answer, "parameters") == str(call.what.count("?")), call.line


def test_statements_are_closed(recorded):
    closed = Counter(part(call.what, "statement") for call in recorded.actions("ClosePreparedStatement"))
    assert all(times == 1 for times in closed.values()), closed
    left = [
        heading
        for heading, calls in recorded.steps
        for call in calls
        if call.what.startswith("CreatePreparedStatement") and call.code == "OK"
        if part(call.answer, "statement") not in closed
    ]
    assert left == STATEMENTS_LEFT.get(recorded.driver, [])


def test_results_are_fetched_once(recorded):
    fetched = Counter(call.what for call in recorded.calls if call.what.startswith("TicketStatementQuery"))
    asked = [call for call in recorded.calls if call.method == "GetFlightInfo" and executes(call) and call.code == "OK"]
    assert fetched.total() == len(asked) == len(fetched)


def test_transactions_end(recorded):
    """Each is ended once, except for one that is open when the session is closed."""
    begun = [part(call.answer, "transaction") for call in recorded.actions("BeginTransaction")]
    ended = [part(call.what, "transaction") for call in recorded.actions("EndTransaction")]
    assert begun == ended or begun[:-1] == ended
    assert all(begun) and len(set(begun)) == len(begun)


def test_sessions_are_closed(recorded):
    logins = sum(call.method == "Handshake" for call in recorded.calls)
    closed = recorded.actions("CloseSession")
    assert all(call.answer == "closed" for call in closed)
    assert len(closed) == logins - SESSIONS_LEFT.get(recorded.driver, 0) >= 1
    assert recorded.calls[-1] is closed[-1]


@pytest.fixture
def proxy(server) -> Iterator[Proxy]:
    with Proxy(server) as opened:
        opened.trace.step("test")
        yield opened


def test_the_proxy_passes_errors_on(server, proxy):
    """With their codes and texts: else a trace would be one of another server."""

    def refused(uri: str) -> tuple:
        with seracdb.connect(uri, "root", ROOT_PASSWORD) as db, pytest.raises(seracdb.Error) as error:
            db.query(MISSING)
        return error.value.status_code, str(error.value)

    assert refused(proxy.uri) == refused(server.uri)


def test_the_proxy_passes_rows_on(proxy, namespace):
    rows = pa.table({"x": pa.array(range(300_000), pa.int64())})
    with seracdb.connect(proxy.uri, "root", ROOT_PASSWORD) as db:
        assert db.ingest(f"{namespace}.passed_on", rows, mode="create") == 300_000
        assert db.query(f"SELECT x FROM {namespace}.passed_on ORDER BY x").combine_chunks() == rows.combine_chunks()
    proxy.trace.finish()
    assert max(call.down for call in proxy.trace.calls) > 2


def test_what_must_not_be_in_a_trace_would_be_seen(proxy):
    with flight.FlightClient(proxy.uri) as connection:
        raw = Raw(connection)
        with pytest.raises(NotImplementedError):
            raw.action("CreatePreparedSubstraitPlan", b"")
        with pytest.raises(pa.ArrowInvalid):
            raw.query("CommandStatementQuery", b"\x0a\x05SELEC")
        with raw.prepared("SELECT 1"):
            pass
    proxy.trace.finish()
    assert [call.code for call in proxy.trace.calls] == ["OK", "UNIMPLEMENTED", "INVALID_ARGUMENT", "OK", "OK"]
    assert proxy.trace.text().splitlines()[-2:] == [
        'DoAction CreatePreparedStatement sql="SELECT 1" → statement=<statement 1> columns=1 parameters=0 update=false',
        "DoAction ClosePreparedStatement statement=<statement 1>",
    ]
