"""Each call has a name: in the headers and trailers of its answer, and in every line that is logged of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import adbc_driver_flightsql.dbapi as flightsql
import grpc
import pytest
import seracdb
from conftest import root
from raw_grpc import Caller
from rawflight import statement
from test_manifests import until
from testserver import ROOT_PASSWORD, Server, binary
from wire import parse

HEADER = "x-request-id"
NEW = re.compile("[0-9a-f]{32}")
DEBUG = {"SERACDB_LOG__FILTER": "info,seracdb=debug,seracdb_engine=debug,seracdb_storage=debug"}


def names(metadata) -> list[str]:
    return [value for key, value in metadata if key == HEADER]


def name_of(caller: Caller, sql: str, *given: str) -> tuple[grpc.StatusCode, str]:
    """How GetFlightInfo of a statement ends, and what its call is named."""
    headers = (*caller.metadata, *((HEADER, name) for name in given))
    call = caller.begin("GetFlightInfo", statement(sql).serialize(), headers)
    try:
        list(call)
    except grpc.RpcError:
        pass
    # Of a call that fails at once gRPC has one block of headers only.
    found = set(names(call.initial_metadata()) + names(call.trailing_metadata()))
    (name,) = found
    return call.code(), name


def test_each_call_has_a_name(server):
    with Caller(server) as caller:
        seen = [name_of(caller, sql) for sql in ["SELECT 1", "SELECT 1", "SELECT nothing", "SELECT 1 +"]]
    assert [code for code, _ in seen] == [
        grpc.StatusCode.OK, grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT,
    ]  # fmt: skip
    assert all(NEW.fullmatch(name) for _, name in seen) and len({name for _, name in seen}) == 4


def test_who_is_not_let_in_has_one_too(server):
    with Caller(server, metadata=(("authorization", "Bearer no-token"),)) as caller:
        code, name = name_of(caller, "SELECT 1")
    assert code is grpc.StatusCode.UNAUTHENTICATED and NEW.fullmatch(name)


@pytest.mark.parametrize("given", ["a", "job-17.step_3", "x" * 64])
def test_a_clients_own_name_is_taken_over(server, given):
    with Caller(server) as caller:
        assert name_of(caller, "SELECT nothing", given)[1] == given


@pytest.mark.parametrize("given", ["x" * 65, "two words", "a/b", '{"a":1}', "a;b"])
def test_what_is_no_plain_name_is_not(server, given):
    with Caller(server) as caller:
        assert NEW.fullmatch(name_of(caller, "SELECT nothing", given)[1])


def test_an_error_in_the_middle_of_a_result_has_it_in_the_trailers(server):
    with Caller(server) as caller:
        sql = "SELECT 1 / (100000 - value) AS x FROM generate_series(1, 200000)"
        info = parse(caller.call("GetFlightInfo", statement(sql).serialize()).message)
        ticket = bytes(parse(bytes(info[3]))[1])
        call = caller.begin("DoGet", ticket, (*caller.metadata, (HEADER, "read-it")))
        with pytest.raises(grpc.RpcError):
            list(call)
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert names(call.initial_metadata()) == names(call.trailing_metadata()) == ["read-it"]


def test_adbc_shows_it(server):
    options = {"username": "root", "password": ROOT_PASSWORD, "adbc.flight.sql.rpc.call_header.x-request-id": "mine"}
    with flightsql.connect(server.uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        for sql in ["SELECT nothing", "SELECT 1 / 0"]:
            with pytest.raises(flightsql.Error) as failed:
                cursor.execute(sql)
                cursor.fetchall()
            details = {(bytes(key, "ascii") if isinstance(key, str) else key): value for key, value in failed.value.details}
            assert details[HEADER.encode()] == b"mine"


# Logs.


@pytest.fixture(params=["text", "json"])
def logged(request, tmp_path) -> Iterator[tuple[Server, Callable[[str], list[str]]]]:
    """A server that logs much, and its lines of a call by name."""
    variables = {**DEBUG, "SERACDB_LOG__FORMAT": request.param, "SERACDB_PLANTED_PANIC": "1"}
    server = Server(tmp_path / "data", variables=variables)

    def lines(name: str) -> list[str]:
        if request.param == "text":
            return [line for line in server.log().splitlines() if f'request_id={name} ' in line]
        parsed = [json.loads(line) for line in server.log().splitlines()]
        assert all({"timestamp", "level", "fields", "target"} <= line.keys() for line in parsed)
        of_call = [line for line in parsed if line.get("span", {}).get("request_id") == name]
        assert all(line["span"]["name"] == "call" for line in of_call)
        return [f"{line['fields']['message']} {line['span']['method']} {line['level']}" for line in of_call]

    with server:
        yield server, lines


def test_lines_of_a_call_have_its_name(logged):
    server, lines = logged
    with Caller(server) as caller:
        name_of(caller, "SELECT nothing", "plan-1")
        until(lambda: any("unknown column 'nothing'" in line for line in lines("plan-1")), "the error is logged")
        assert all("GetFlightInfo" in line for line in lines("plan-1"))
        # Also where it is another thread that runs it, and another that commits.
        with root(server) as db:
            db.run("CREATE TABLE t (n BIGINT)")
            db.run("INSERT INTO t VALUES (1)")
        name_of(caller, "STORAGE FLUSH TABLE t", "flush-1")
        until(lambda: any("flushed" in line for line in lines("flush-1")), "the flush is logged")
        assert lines("plan-2") == []


def test_a_bug_is_found_by_the_name_that_its_error_has(logged):
    server, lines = logged
    command = [binary(), "sql", "--uri", server.uri, "-c", "SELECT planted_panic() AS p"]
    env = {"SERACDB_PASSWORD": ROOT_PASSWORD}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    if "a bug in SeracDB" not in done.stderr:
        pytest.skip("a release build has no planted_panic")
    name = re.search(r"\(request ([0-9a-f]{32})\)", done.stderr)[1]
    until(lambda: any("panic" in line and "ERROR" in line for line in lines(name)), "the panic is logged with it")


def test_lines_of_what_runs_beside_a_call_have_its_name(logged):
    """Parts of a plan are tasks of their own."""
    server, lines = logged
    with Caller(server) as caller, root(server) as db:
        db.run("CREATE TABLE t (n BIGINT)")
        db.run("INSERT INTO t SELECT value FROM generate_series(1, 1000)")
        sql = "SELECT n % 7 AS m, count(*) FROM t WHERE planted_panic(n = 900) GROUP BY n % 7"
        planned = caller.call("GetFlightInfo", statement(sql).serialize())
        if "Invalid function 'planted_panic'" in planned.text:
            pytest.skip("a release build has no planted_panic")
        info = parse(planned.message)
        call = caller.begin("DoGet", bytes(parse(bytes(info[3]))[1]), (*caller.metadata, (HEADER, "beside")))
        with pytest.raises(grpc.RpcError):
            list(call)
        until(lambda: any("a planted panic" in line for line in lines("beside")), "the panic is logged with it")


def test_secrets_are_in_no_line(logged):
    server, _ = logged
    with root(server) as db:
        db.run("CREATE USER ann WITH PASSWORD 'a very secret phrase' ROLE user")
        with pytest.raises(seracdb.Error):
            db.run("CREATE USER ann WITH PASSWORD 'a very secret phrase' ROLE nobody")
    assert "a very secret phrase" not in server.log() and ROOT_PASSWORD not in server.log()
