"""pyarrow.flight without a driver: what the wire says, call by call."""

from __future__ import annotations

import base64

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from testserver import ROOT_PASSWORD
from wire import field, packed, parse, unpack


@pytest.fixture
def client(server):
    with flight.FlightClient(server.uri) as opened:
        yield opened


@pytest.fixture
def options(client) -> flight.FlightCallOptions:
    """Call options with the bearer token of a login."""
    header, token = client.authenticate_basic_token("root", ROOT_PASSWORD)
    assert header == b"authorization" and token.startswith(b"Bearer ")
    return flight.FlightCallOptions(headers=[(header, token)])


def basic(user: str, password: str, padded: bool = True) -> flight.FlightCallOptions:
    credentials = base64.b64encode(f"{user}:{password}".encode())
    if not padded:
        credentials = credentials.rstrip(b"=")
    return flight.FlightCallOptions(headers=[(b"authorization", b"Basic " + credentials)])


def statement(sql: str) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(packed("CommandStatementQuery", field(1, sql)))


def query(client, sql: str, options) -> pa.Table:
    info = client.get_flight_info(statement(sql), options)
    (endpoint,) = info.endpoints
    table = client.do_get(endpoint.ticket, options).read_all()
    assert table.schema.equals(info.schema, check_metadata=True)
    return table


def update(client, sql: str, options) -> int:
    descriptor = flight.FlightDescriptor.for_command(packed("CommandStatementUpdate", field(1, sql)))
    writer, reader = client.do_put(descriptor, pa.schema([]), options)
    with writer:
        writer.done_writing()
        return int(parse(reader.read().to_pybytes()).get(1, 0))


def test_query_with_a_bearer(client, options):
    table = query(client, "SELECT 1 AS one, 'two' AS two", options)
    assert table.to_pylist() == [{"one": 1, "two": "two"}]


@pytest.mark.parametrize("padded", [True, False])
def test_basic_on_each_call(client, padded):
    assert query(client, "SELECT 40 + 2 AS n", basic("root", ROOT_PASSWORD, padded)).to_pylist() == [{"n": 42}]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer not-a-token")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic !!!")],
        [(b"authorization", b"Basic " + base64.b64encode(b"no-colon"))],
        [(b"authorization", b"Negotiate abc")],
    ],
    ids=["none", "unknown bearer", "empty bearer", "no base64", "no colon", "other scheme"],
)
def test_no_anonymous_access(client, headers):
    options = flight.FlightCallOptions(headers=headers)
    info = packed("CommandGetTables", field(5, True))
    for call in (
        lambda: client.get_flight_info(statement("SELECT 1"), options),
        lambda: client.get_flight_info(flight.FlightDescriptor.for_command(info), options),
        lambda: client.get_schema(statement("SELECT 1"), options),
        lambda: client.do_get(flight.Ticket(b"x"), options).read_all(),
        lambda: list(client.do_action(flight.Action("CreatePreparedStatement", b""), options)),
        lambda: list(client.list_actions(options)),
        lambda: list(client.list_flights(b"", options)),
        lambda: update(client, "CREATE NAMESPACE nobody", options),
    ):
        # GetSchema's error is a bare OSError in pyarrow.
        with pytest.raises((flight.FlightUnauthenticatedError, OSError), match="(?i)unauthenticated"):
            call()


@pytest.mark.parametrize("user,password", [("root", "wrong"), ("nobody", ROOT_PASSWORD), ("root", ""), ("", "")])
def test_wrong_password(client, user, password):
    with pytest.raises(flight.FlightUnauthenticatedError) as login:
        client.authenticate_basic_token(user, password)
    with pytest.raises(flight.FlightUnauthenticatedError) as call:
        client.get_flight_info(statement("SELECT 1"), basic(user, password))
    for error in (login, call):
        assert ROOT_PASSWORD not in str(error.value)


def test_update_counts_and_get_schema(client, options, namespace):
    table = f"{namespace}.raw"
    assert update(client, f"CREATE TABLE {table} (x BIGINT, label TEXT)", options) == 0
    assert update(client, f"INSERT INTO {table} (x, label) VALUES (1, 'a'), (2, 'b'), (3, 'c')", options) == 3
    assert update(client, f"UPDATE {table} SET label = 'z' WHERE x > 1", options) == 2
    assert update(client, f"DELETE FROM {table} WHERE x = 1", options) == 1
    sql = f"SELECT x, label FROM {table} ORDER BY x"
    assert query(client, sql, options).to_pylist() == [{"x": 2, "label": "z"}, {"x": 3, "label": "z"}]
    assert client.get_schema(statement(sql), options).schema.names == ["x", "label"]


def test_dml_on_the_query_path_runs_once(client, options, namespace):
    """ODBC drivers send DML as a query: GetFlightInfo runs it, the ticket only replays the result."""
    table = f"{namespace}.once"
    update(client, f"CREATE TABLE {table} (x BIGINT)", options)
    info = client.get_flight_info(statement(f"INSERT INTO {table} VALUES (1)"), options)
    for _ in range(2):
        for endpoint in info.endpoints:
            client.do_get(endpoint.ticket, options).read_all()
    assert query(client, f"SELECT count(*) AS n FROM {table}", options).to_pylist() == [{"n": 1}]
    # The schema of a write is known without running it.
    client.get_schema(statement(f"INSERT INTO {table} VALUES (2)"), options)
    assert query(client, f"SELECT count(*) AS n FROM {table}", options).to_pylist() == [{"n": 1}]


def test_endpoints_do_not_name_the_bind_address(client, options):
    info = client.get_flight_info(statement("SELECT 1"), options)
    locations = [location.uri for endpoint in info.endpoints for location in endpoint.locations]
    assert all(uri.startswith(b"arrow-flight-reuse-connection:") for uri in locations), locations


def prepare(client, sql: str, options) -> dict[int, int | bytes]:
    body = packed("ActionCreatePreparedStatementRequest", field(1, sql))
    (result,) = client.do_action(flight.Action("CreatePreparedStatement", body), options)
    name, fields = unpack(result.body.to_pybytes())
    assert name == "ActionCreatePreparedStatementResult"
    return fields


def close(client, handle: bytes, options) -> None:
    body = packed("ActionClosePreparedStatementRequest", field(1, handle))
    list(client.do_action(flight.Action("ClosePreparedStatement", body), options))


def test_prepared_statement(client, options, namespace):
    table = f"{namespace}.prepared"
    update(client, f"CREATE TABLE {table} (x BIGINT, label TEXT)", options)

    is_update = 4
    insert = prepare(client, f"INSERT INTO {table} (x, label) VALUES (?, ?)", options)
    assert insert[is_update] == 1
    handle = bytes(insert[1])
    parameters = pa.ipc.read_schema(pa.py_buffer(insert[3]))
    assert parameters.types == [pa.int64(), pa.string()]

    rows = pa.record_batch({"x": pa.array([1, 2], pa.int64()), "label": ["a", None]})
    command = packed("CommandPreparedStatementUpdate", field(1, handle))
    for total in (2, 4):
        writer, reader = client.do_put(flight.FlightDescriptor.for_command(command), rows.schema, options)
        with writer:
            writer.write_batch(rows)
            writer.done_writing()
            assert parse(reader.read().to_pybytes())[1] == 2
        count = query(client, f"SELECT count(*) AS n FROM {table}", options)
        assert count.to_pylist() == [{"n": total}]
    close(client, handle, options)

    select = prepare(client, f"SELECT x FROM {table} WHERE label = $1", options)
    assert select.get(is_update, 0) == 0
    handle = bytes(select[1])
    assert pa.ipc.read_schema(pa.py_buffer(select[2])).names == ["x"]
    command = flight.FlightDescriptor.for_command(packed("CommandPreparedStatementQuery", field(1, handle)))
    writer, reader = client.do_put(command, pa.schema([("1", pa.string())]), options)
    with writer:
        writer.write_batch(pa.record_batch({"1": ["a"]}))
        writer.done_writing()
        # The reply names the handle to go on with: the same one, so that closing either closes both.
        assert parse(reader.read().to_pybytes())[1] == handle
    info = client.get_flight_info(command, options)
    got = client.do_get(info.endpoints[0].ticket, options).read_all()
    assert got.to_pylist() == [{"x": 1}, {"x": 1}]
    close(client, handle, options)
    with pytest.raises((flight.FlightError, pa.ArrowException, KeyError)):
        client.get_flight_info(command, options)


def test_every_statement_can_be_prepared(client, options, namespace):
    for sql in (
        f"CREATE TABLE {namespace}.p (x BIGINT)",
        f"STORAGE FLUSH TABLE {namespace}.p",
        f"DROP TABLE {namespace}.p",
        "CREATE NAMESPACE never_made",
        "EXPLAIN SELECT 1",
    ):
        if sql.startswith(("STORAGE", "DROP")):
            update(client, f"CREATE TABLE IF NOT EXISTS {namespace}.p (x BIGINT)", options)
        close(client, bytes(prepare(client, sql, options)[1]), options)
    names = query(client, "SELECT schema_name FROM information_schema.schemata", options)["schema_name"].to_pylist()
    assert namespace in names and "never_made" not in names


def test_tables_of_the_catalog(client, options, namespace):
    update(client, f"CREATE TABLE {namespace}.t_1 (x BIGINT)", options)
    update(client, f"CREATE TABLE {namespace}.tx1 (x BIGINT)", options)

    def tables(pattern: str, include_schema: bool) -> pa.Table:
        command = packed(
            "CommandGetTables", field(2, namespace), field(3, pattern), *([field(5, True)] if include_schema else [])
        )
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command), options)
        return client.do_get(info.endpoints[0].ticket, options).read_all()

    assert tables("t_1", False)["table_name"].to_pylist() == ["t_1", "tx1"]
    assert tables("%", False).column_names == ["catalog_name", "db_schema_name", "table_name", "table_type"]
    with_schema = tables(r"t\_1", True)
    assert with_schema["table_name"].to_pylist() == ["t_1"]
    assert with_schema["catalog_name"].to_pylist() == ["seracdb"]
    schema = pa.ipc.read_schema(pa.py_buffer(with_schema["table_schema"][0].as_py()))
    assert "x" in schema.names
    assert tables("none", True).num_rows == 0


def test_keys_of_a_table(client, options, namespace):
    def keys(table: str) -> list[str]:
        command = packed("CommandGetPrimaryKeys", field(2, namespace), field(3, table))
        info = client.get_flight_info(flight.FlightDescriptor.for_command(command), options)
        return client.do_get(info.endpoints[0].ticket, options).read_all()["column_name"].to_pylist()

    update(client, f"CREATE TABLE {namespace}.keyless (x BIGINT)", options)
    assert keys("keyless") == ["_id"]


def test_messages_nobody_knows(client, options):
    """Neither is an internal error; both name what they do not know."""
    unknown = flight.FlightDescriptor.for_command(field(1, "type.googleapis.com/example.Nothing") + field(2, b""))
    with pytest.raises(Exception, match="example.Nothing") as error:
        client.get_flight_info(unknown, options)
    assert not isinstance(error.value, flight.FlightInternalError)
    with pytest.raises(Exception) as garbage:
        client.get_flight_info(flight.FlightDescriptor.for_command(b"\xff\xff\xff"), options)
    assert not isinstance(garbage.value, flight.FlightInternalError)
    with pytest.raises(Exception, match="NoSuchAction") as action:
        list(client.do_action(flight.Action("NoSuchAction", b""), options))
    assert not isinstance(action.value, flight.FlightInternalError)
    with pytest.raises(Exception) as ticket:
        client.do_get(flight.Ticket(b"not a ticket"), options).read_all()
    assert not isinstance(ticket.value, flight.FlightInternalError)
    assert query(client, "SELECT 1 AS n", options).num_rows == 1


def test_large_messages(client, options, namespace):
    """Results are cut below gRPC's usual 4 MiB; a statement may be longer than that."""
    table = query(client, "SELECT repeat('x', 1000) AS s FROM generate_series(1, 20000)", options)
    assert table.num_rows == 20_000 and table["s"][19_999].as_py() == "x" * 1000
    update(client, f"CREATE TABLE {namespace}.wide (s TEXT)", options)
    wide = pa.record_batch({"s": ["y" * 6_000_000, "z"]})
    insert = prepare(client, f"INSERT INTO {namespace}.wide VALUES (?)", options)
    command = packed("CommandPreparedStatementUpdate", field(1, bytes(insert[1])))
    writer, reader = client.do_put(flight.FlightDescriptor.for_command(command), wide.schema, options)
    with writer:
        writer.write_batch(wide)
        writer.done_writing()
        assert parse(reader.read().to_pybytes())[1] == 2
    lengths = query(client, f"SELECT length(s) AS n FROM {namespace}.wide ORDER BY n", options)
    assert lengths["n"].to_pylist() == [1, 6_000_000]
    assert query(client, f"SELECT s FROM {namespace}.wide ORDER BY s", options)["s"][0].as_py() == "y" * 6_000_000


def test_headers_are_ignored(client, options):
    (authorization,) = options_headers(client)
    extra = flight.FlightCallOptions(headers=[authorization, (b"x-unknown", b"v" * 30_000), (b"user", b"someone")])
    assert query(client, "SELECT 1 AS n", extra).num_rows == 1


def options_headers(client) -> list[tuple[bytes, bytes]]:
    return [client.authenticate_basic_token("root", ROOT_PASSWORD)]
