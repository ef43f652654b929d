"""What runs: how far it is, how it is sent, and how much of it one user may have."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.flight as flight
import pytest
import rawflight
import seracdb
from conftest import Connections, root
from test_manifests import until
from test_transactions import REFUSED, Raw
from testserver import Server
from wire import field, packed

# More than what gRPC and the server hold for a client that does not read.
LARGE = "SELECT value, repeat('x', 100) AS filler FROM generate_series(1, 3000000)"


@pytest.fixture
def limited(tmp_path) -> Iterator[Server]:
    """A server on which one user has little."""
    variables = {
        "SERACDB_LIMITS__USER__QUERIES_MAX": "3",
        "SERACDB_LIMITS__USER__MEMORY_MAX": str(64 << 20),
        "SERACDB_FLIGHT__SPOOL_AFTER_SECONDS": "3600",
        # All rows are gathered.
        "SERACDB_ENGINE__BULK_BYTES_MIN": str(1 << 30),
    }
    with Server(tmp_path / "data", variables=variables) as running:
        yield running


def running(db: seracdb.Connection, like: str) -> list[dict]:
    """What `system.queries` says of statements like this one that run."""
    sql = "SELECT * FROM system.queries WHERE state = 'running' AND statement LIKE ? ORDER BY query_id"
    return db.query(sql, [like]).to_pylist()


def test_a_query_is_listed_while_its_result_is_read(server, db):
    with rawflight.client(server) as client:
        stream = client.start(LARGE)
        first = stream.read_chunk().data
        (entry,) = running(db, "%generate_series(1, 3000000)%")
        assert (entry["user_id"], entry["kind"], entry["statement"]) == ("root", "query", LARGE)
        assert first.num_rows <= entry["rows"] < 3_000_000 and entry["bytes"] > 0
        stream.cancel()
    until(lambda: running(db, "%generate_series(1, 3000000)%") == [], "it goes with its client")


def test_an_ingest_tells_how_far_it_is(db, connect, namespace):
    more = threading.Event()
    batch = pa.record_batch({"x": pa.array(range(1000), pa.int64())})

    def batches():
        yield from [batch] * 50
        assert more.wait(60)
        yield batch

    loader = connect()
    reader = pa.RecordBatchReader.from_batches(batch.schema, batches())
    loading = threading.Thread(target=loader.ingest, args=(f"{namespace}.t", reader, "create"))
    loading.start()
    try:
        shown = f"INGEST INTO {namespace}.t"
        until(lambda: [entry["rows"] for entry in running(db, shown)] == [50_000], "its rows are counted")
        assert running(db, shown)[0]["kind"] == "ingest"
    finally:
        more.set()
        loading.join()
    assert running(db, shown) == []
    assert db.query(f"SELECT count(*) FROM {namespace}.t").to_pylist() == [{"count(*)": 51_000}]


def test_others_see_neither_statements_nor_secrets(server, db, connect):
    db.run("CREATE USER watcher WITH PASSWORD 'a quiet pass phrase' ROLE user")
    with rawflight.client(server) as client:
        stream = client.start(LARGE)
        stream.read_chunk()
        watcher = connect("watcher", "a quiet pass phrase")
        assert {entry["user_id"] for entry in running(watcher, "%")} == {"watcher"}
        assert len(running(db, "%generate_series(1, 3000000)%")) == 1
        stream.cancel()


def test_a_slow_readers_result_waits_on_disk_and_holds_nothing(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_FLIGHT__SPOOL_AFTER_SECONDS": "1"}) as server:
        with root(server) as db, rawflight.client(server) as client:
            stream = client.start(LARGE)
            chunks = [stream.read_chunk().data]
            # It runs to its end, though hardly anything was read.
            until(lambda: running(db, "%generate_series(1, 3000000)%") == [], "all of it is computed")
            # What waits has no name in the folder, and is not in memory.
            assert list((server.data_dir / "spill").glob("*.tmp*")) == []
            while True:
                try:
                    chunks.append(stream.read_chunk().data)
                except StopIteration:
                    break
            values = pa.Table.from_batches(chunks).column("value").combine_chunks()
            assert values.sort().equals(pa.array(range(1, 3_000_001), pa.int64()))


def test_a_slow_reader_that_goes_leaves_nothing_on_disk(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_FLIGHT__SPOOL_AFTER_SECONDS": "1"}) as server:
        with root(server) as db, rawflight.client(server) as client:
            def open_files() -> int:
                return len(os.listdir(f"/proc/{server.process.pid}/fd"))

            before = open_files()
            for _ in range(5):
                stream = client.start(LARGE)
                stream.read_chunk()
                until(lambda: running(db, "%generate_series(1, 3000000)%") == [], "all of it is computed")
                stream.cancel()
            until(lambda: open_files() <= before + 2, "the files are closed")


def test_an_error_of_a_slow_readers_query_comes_after_its_rows(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_FLIGHT__SPOOL_AFTER_SECONDS": "1"}) as server:
        with root(server) as db, rawflight.client(server) as client:
            rows = 3_000_000
            # Only the last row cannot be divided.
            stream = client.start(
                f"SELECT 1 / ({rows} - value) AS x, value, repeat('x', 100) AS filler FROM generate_series(1, {rows})"
            )
            read = stream.read_chunk().data.num_rows
            until(lambda: running(db, "%generate_series(1, 3000000)%") == [], "it has failed")
            with pytest.raises(pa.ArrowInvalid, match="[Dd]ivi"):
                while True:
                    read += stream.read_chunk().data.num_rows
            # But for what was still computed beside it.
            assert rows * 9 // 10 <= read < rows


def test_one_user_cannot_fill_the_disk_for_slow_readers(tmp_path):
    variables = {
        "SERACDB_FLIGHT__SPOOL_AFTER_SECONDS": "1",
        "SERACDB_FLIGHT__SPOOL_BYTES_MAX": str(200 << 20),
        "SERACDB_FLIGHT__SPOOL_USER_BYTES_MAX": str(100 << 20),
    }
    with Server(tmp_path / "data", variables=variables) as server:
        with Connections(server) as connections, rawflight.client(server) as client:
            db = connections.open()
            db.run("CREATE USER other WITH PASSWORD 'a quiet pass phrase' ROLE user")
            greedy = client.start(LARGE)
            read = greedy.read_chunk().data.num_rows
            until(lambda: running(db, "%generate_series(1, 3000000)%") == [], "it is given up")
            # Another's is computed to its end meanwhile.
            headers = [(b"authorization", rawflight.basic("other", "a quiet pass phrase"))]
            options = flight.FlightCallOptions(headers=headers)
            smaller = LARGE.replace("3000000", "700000")
            info = client.connection.get_flight_info(rawflight.statement(smaller), options)
            others = client.connection.do_get(info.endpoints[0].ticket, options)
            taken = others.read_chunk().data.num_rows
            until(lambda: running(db, "%generate_series(1, 700000)%") == [], "all of it is computed")
            with pytest.raises(REFUSED, match="user 'root'.*flight.spool_user_bytes_max") as refused:
                while True:
                    read += greedy.read_chunk().data.num_rows
            assert "resource exhausted" in str(refused.value)
            assert 0 < read < 3_000_000
            assert taken + others.read_all().num_rows == 700_000


def test_who_reads_all_the_time_gets_all_whatever_the_share(tmp_path):
    variables = {
        "SERACDB_FLIGHT__SPOOL_AFTER_SECONDS": "3",
        "SERACDB_FLIGHT__SPOOL_USER_BYTES_MAX": str(1 << 20),
    }
    with Server(tmp_path / "data", variables=variables) as server, rawflight.client(server) as client:
        stream = client.start(LARGE)
        rows, chunks = 0, 0
        while rows < 3_000_000:
            rows += stream.read_chunk().data.num_rows
            chunks += 1
            if chunks % 20 == 0:
                time.sleep(0.3)  # slowly: all in all for longer than it may let the result wait


def test_a_users_statements_are_limited_and_those_of_others_go_on(limited):
    with Connections(limited) as connections, rawflight.client(limited) as client:
        db = connections.open()
        db.run("CREATE USER other WITH PASSWORD 'a quiet pass phrase' ROLE user")
        streams = [client.start(LARGE) for _ in range(3)]
        for stream in streams:
            stream.read_chunk()
        with pytest.raises(seracdb.Error, match="root.*3 statements.*limits.user.queries_max") as refused:
            db.query("SELECT 1")
        assert "RESOURCE_EXHAUSTED" in str(refused.value) or "ResourceExhausted" in str(refused.value)
        assert connections.open("other", "a quiet pass phrase").query("SELECT 1 AS one").to_pylist() == [{"one": 1}]
        # What ends something or says little goes on.
        for sql in ("BEGIN", "ROLLBACK", "USE default", "SHOW TABLES"):
            client.connection.get_flight_info(rawflight.statement(sql), client.options)
        streams[0].cancel()
        until(lambda: answers(db), "there is room again")
        for stream in streams[1:]:
            stream.cancel()


def test_who_acts_for_another_sees_what_it_runs(own_server):
    """So does the subject, and admins do; nobody else."""
    with Connections(own_server) as connections:
        db, password = connections.open(), "a quiet pass phrase"
        for user, role in [("ann", "user"), ("bob", "user"), ("svc", "service"), ("other", "service"), ("boss", "admin")]:
            db.run(f"CREATE USER {user} WITH PASSWORD '{password}' ROLE {role}")
        db.run("CREATE USER TABLE own (n BIGINT)")
        raw = Raw(own_server, "svc", password)
        long = "SELECT a.value, repeat('x', 100) AS filler FROM generate_series(1, 3000000) a WHERE 'a literal' <> ''"
        sql = f"EXECUTE AS USER 'ann' ({long} AND NOT EXISTS (SELECT 1 FROM own))"
        ticket = raw.connection.get_flight_info(rawflight.statement(sql), raw.options).endpoints[0].ticket
        stream = raw.connection.do_get(ticket, raw.options)
        stream.read_chunk()
        like = "%3000000%a literal%"
        for user in ["ann", "svc", "boss"]:
            (entry,) = running(connections.open(user, password), like)
            assert (entry["user_id"], entry["statement"]) == ("ann", sql), user
        for user in ["bob", "other"]:
            assert running(connections.open(user, password), like) == []
        # What the subject runs is not the service's.
        own = Raw(own_server, "ann", password)
        ticket = own.connection.get_flight_info(rawflight.statement(LARGE), own.options).endpoints[0].ticket
        mine = own.connection.do_get(ticket, own.options)
        mine.read_chunk()
        assert [row["statement"] for row in running(connections.open("svc", password), "%3000000%")] == [sql]
        assert len(running(connections.open("ann", password), "%3000000%")) == 2
        mine.cancel()
        stream.cancel()


def answers(db: seracdb.Connection) -> bool:
    try:
        return db.query("SELECT 1 AS one").to_pylist() == [{"one": 1}]
    except seracdb.Error:
        return False


def test_a_users_memory_is_limited(limited):
    with Connections(limited) as connections:
        db = connections.open()
        with pytest.raises(seracdb.Error, match="user 'root'.*limits.user.memory_max"):
            db.query("SELECT array_agg(value || repeat('x', 200)) FROM generate_series(1, 2000000)")
        assert db.query("SELECT count(*) AS n FROM generate_series(1, 2000000)").to_pylist() == [{"n": 2_000_000}]


@pytest.mark.parametrize("order", ["k", "k, pad", "reverse(pad)"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_sorts_of_a_user_with_little_memory_spill(tmp_path, at_once, order):
    """Each has several times what all of them may have together."""
    rows = 300_000
    sql = f"""SELECT v, k, pad FROM (
        SELECT value AS v, (value * 7919) % 1000003 AS k, repeat('x', 200) || value AS pad FROM generate_series(1, {rows})
    ) ORDER BY {order}"""

    def sort(_) -> pa.Table:
        with root(server) as db:
            return db.query(sql)

    variables = {"SERACDB_LIMITS__USER__MEMORY_MAX": str(64 << 20)}
    with Server(tmp_path / "data", variables=variables) as server, ThreadPoolExecutor(at_once) as pool:
        for result in pool.map(sort, range(at_once)):
            key = result["k" if order != "reverse(pad)" else "pad"].to_pylist()
            assert len(key) == rows
            assert key == sorted(key, key=lambda value: value[::-1] if order == "reverse(pad)" else value)


def test_what_an_ingest_gathers_is_memory_of_its_user(limited):
    with root(limited) as db:
        batch = pa.record_batch({"text": pa.array(["x" * 1000] * 1000)})
        reader = pa.RecordBatchReader.from_batches(batch.schema, (batch for _ in range(100)))
        with pytest.raises(seracdb.Error, match="user 'root'.*ingest asks for.*limits.user.memory_max"):
            db.ingest("t", reader, "create")
        for mode in ("create", "append", "append"):
            db.ingest("t", pa.Table.from_batches([batch] * 30), mode)
        assert db.query("SELECT count(*) AS n FROM t").to_pylist() == [{"n": 90_000}]


def test_what_a_change_gathers_is_memory_of_its_user(limited):
    with root(limited) as db:
        db.run("CREATE TABLE t (n BIGINT, text TEXT)")
        for _ in range(4):
            db.run("INSERT INTO t SELECT value, repeat('x', 1000) FROM generate_series(1, 20000)")
        too_much = "user 'root'.*{} asks for.*limits.user.memory_max"
        changes = [
            "UPDATE t SET n = n + 1",
            "MERGE INTO t USING (SELECT 1 AS one) AS s ON true WHEN MATCHED THEN UPDATE SET n = t.n + 1",
            # Each row twice: as it is written and as it is given.
            "UPDATE t SET n = n + 1 WHERE n <= 10000 RETURNING *",
        ]
        for sql in changes:
            with pytest.raises(seracdb.Error, match=too_much.format("a change")):
                db.run(sql)
        with pytest.raises(seracdb.Error, match=too_much.format("RETURNING")):
            db.query("INSERT INTO t SELECT value, 'x' FROM generate_series(1, 100000) RETURNING repeat(text, 1000)")
        (row,) = db.query("SELECT count(*) AS n, sum(n) AS total FROM t").to_pylist()
        assert row == {"n": 80_000, "total": 4 * 20_000 * 20_001 // 2}
        # It was given back each time.
        for _ in range(4):
            assert db.query("UPDATE t SET n = n WHERE n <= 4000 RETURNING n").num_rows == 16_000


def test_large_messages_are_read_within_the_memory_for_it(tmp_path):
    """Small as they are sent, and refused only once they are read."""
    variables = {"SERACDB_FLIGHT__BOUND_BYTES_MAX": "1000", "SERACDB_FLIGHT__DECODING_BYTES_MAX": str(200 << 20)}
    with Server(tmp_path / "data", variables=variables) as server, rawflight.client(server) as client:
        large = pa.record_batch({"$1": pa.array(["x" * (1 << 20)] * 200)})
        options = flight.FlightCallOptions(
            headers=client.headers, write_options=pa.ipc.IpcWriteOptions(compression="zstd")
        )
        raw = Raw(server)

        def bind(_) -> None:
            command = packed("CommandPreparedStatementQuery", field(1, raw.prepare("SELECT CAST(? AS TEXT)")))
            descriptor = flight.FlightDescriptor.for_command(command)
            writer, _ = client.connection.do_put(descriptor, large.schema, options)
            with pytest.raises(REFUSED, match="bound_bytes_max"):
                with writer:
                    writer.write_batch(large)

        before = peak(server)
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(bind, range(24)))
        # One at a time, and what the allocator keeps of it.
        assert peak(server) - before < 500 << 20, f"{(peak(server) - before) >> 20} MiB"


def test_parameters_that_are_bound_have_so_much_memory_together(tmp_path):
    variables = {"SERACDB_FLIGHT__BOUND_BYTES_MAX": str(3 << 20), "SERACDB_FLIGHT__BOUND_MEMORY_MAX": str(9 << 20)}
    with Server(tmp_path / "data", variables=variables) as server, rawflight.client(server) as client:
        raw = Raw(server)
        rows = pa.record_batch({"$1": pa.array(["x" * 100_000] * 25)})

        def bind(statement: bytes) -> None:
            descriptor = flight.FlightDescriptor.for_command(packed("CommandPreparedStatementQuery", field(1, statement)))
            writer, _ = raw.connection.do_put(descriptor, rows.schema, raw.options)
            with writer:
                writer.write_batch(rows)
                writer.done_writing()

        statements = [raw.prepare("SELECT CAST(? AS TEXT)") for _ in range(4)]
        for statement in statements[:3]:
            bind(statement)
        with pytest.raises(REFUSED, match="flight.bound_memory_max"):
            bind(statements[3])
        close = packed("ActionClosePreparedStatementRequest", field(1, statements[0]))
        raw.act("ClosePreparedStatement", close)
        bind(statements[3])


def peak(server: Server) -> int:
    """The most memory that it has had."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def test_a_client_that_pauses_after_a_large_message_stops_no_other(tmp_path):
    variables = {"SERACDB_FLIGHT__DECODING_BYTES_MAX": str(8 << 20)}
    with Server(tmp_path / "data", variables=variables) as server, Connections(server) as connections:
        db, slow = connections.open(), connections.open()
        db.run("CREATE TABLE t (text TEXT)")
        batch = pa.record_batch({"text": pa.array(["x" * 100_000] * 100)})
        more = threading.Event()

        def batches():
            yield batch
            assert more.wait(60)
            yield batch

        loading = threading.Thread(
            target=slow.ingest, args=("t", pa.RecordBatchReader.from_batches(batch.schema, batches()))
        )
        loading.start()
        try:
            until(lambda: [entry["rows"] for entry in running(db, "INGEST INTO %")] == [100], "the first one is read")
            for _ in range(3):
                db.ingest("t", pa.Table.from_batches([batch] * 2))
        finally:
            more.set()
            loading.join()
        assert db.query("SELECT count(*) AS n FROM t").to_pylist() == [{"n": 800}]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_results_are_compressed_for_who_asks(server, compression):
    with rawflight.client(server) as client:
        headers = [*client.headers, (b"seracdb-compression", compression.encode())]
        options = flight.FlightCallOptions(headers=headers)
        info = client.connection.get_flight_info(
            rawflight.statement("SELECT value % 10 AS v, 'text' AS t FROM generate_series(1, 100000)"), options
        )
        table = client.connection.do_get(info.endpoints[0].ticket, options).read_all()
        assert table.num_rows == 100_000 and table.schema.equals(info.schema)
        assert sorted(table.column("v").to_pylist()) == sorted(value % 10 for value in range(1, 100_001))


def test_an_unknown_compression_is_refused(server):
    with rawflight.client(server) as client:
        options = flight.FlightCallOptions(headers=[*client.headers, (b"seracdb-compression", b"gzip")])
        info = client.connection.get_flight_info(rawflight.statement("SELECT 1"), options)
        with pytest.raises(pa.ArrowInvalid, match="lz4, zstd or none"):
            client.connection.do_get(info.endpoints[0].ticket, options).read_all()


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_an_ingest_may_be_compressed(server, db, namespace, compression):
    batch = pa.record_batch({"x": pa.array(range(100_000), pa.int64()), "t": ["text"] * 100_000})
    options = field(1, 1) + field(2, 1)
    command = packed("CommandStatementIngest", field(1, options), field(2, "t"), field(3, namespace))
    with rawflight.client(server) as client:
        write = flight.FlightCallOptions(
            headers=client.headers, write_options=pa.ipc.IpcWriteOptions(compression=compression)
        )
        descriptor = flight.FlightDescriptor.for_command(command)
        writer, _ = client.connection.do_put(descriptor, batch.schema, write)
        with writer:
            writer.write_batch(batch)
    assert db.query(f"SELECT count(*) AS n, sum(x) AS s FROM {namespace}.t").to_pylist() == [
        {"n": 100_000, "s": sum(range(100_000))}
    ]


class Endpoints:
    """A result in several endpoints."""

    def __init__(self, client: rawflight.Client, sql: str, wanted: object):
        self.connection = client.connection
        self.options = flight.FlightCallOptions(
            headers=[*client.headers, (b"seracdb-endpoints", str(wanted).encode())]
        )
        self.info = self.connection.get_flight_info(rawflight.statement(sql), self.options)

    def read(self, place: int) -> pa.Table:
        table = self.connection.do_get(self.info.endpoints[place].ticket, self.options).read_all()
        assert table.schema.equals(self.info.schema, check_metadata=True)
        return table


@pytest.fixture
def numbers(db, namespace) -> str:
    """A table with cold files, hot rows, and rows that were changed and deleted."""
    name = f"{namespace}.numbers"
    db.run(f"CREATE TABLE {name} (x BIGINT)")
    for start in (1, 20_001, 40_001):
        db.run(f"INSERT INTO {name} SELECT value FROM generate_series({start}, {start + 19_999})")
        if start < 40_000:
            db.run(f"STORAGE FLUSH TABLE {name}")
    db.run(f"UPDATE {name} SET x = -x WHERE x % 10 = 0")
    db.run(f"DELETE FROM {name} WHERE x % 10 = 1")
    return name


@pytest.mark.parametrize("wanted", [1, 2, 4, 64])
def test_a_result_in_several_endpoints(server, db, numbers, wanted):
    with rawflight.client(server) as client:
        result = Endpoints(client, f"SELECT x FROM {numbers}", wanted)
        assert 1 <= len(result.info.endpoints) <= wanted
        if wanted > 1:
            assert len(result.info.endpoints) > 1
        assert result.info.ordered == (len(result.info.endpoints) == 1)
        # What is written meanwhile is in none of them.
        db.run(f"DELETE FROM {numbers} WHERE x > 0")
        if wanted == 1:
            return
        # In any order.
        parts = [result.read(place) for place in reversed(range(len(result.info.endpoints)))]
        found = sorted(pa.concat_tables(parts).column("x").to_pylist())
        assert found == sorted(-x if x % 10 == 0 else x for x in range(1, 60_001) if x % 10 != 1)


def test_parts_are_read_at_the_same_time(server, numbers):
    with rawflight.client(server) as client:
        result = Endpoints(client, f"SELECT a.x FROM {numbers} AS a JOIN {numbers} AS b ON a.x = b.x", 4)
        tables: dict[int, pa.Table] = {}
        threads = [
            threading.Thread(target=lambda place=place: tables.update({place: result.read(place)}))
            for place in range(len(result.info.endpoints))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sum(table.num_rows for table in tables.values()) == 54_000


def test_rows_in_an_order_come_in_one_endpoint(server, numbers):
    with rawflight.client(server) as client:
        result = Endpoints(client, f"SELECT x FROM {numbers} ORDER BY x", 8)
        assert len(result.info.endpoints) == 1 and result.info.ordered
        values = result.read(0).column("x").to_pylist()
        assert values == sorted(values) and len(values) == 54_000


@pytest.mark.parametrize("sql", ["SHOW TABLES", "DESCRIBE {}", "SHOW MANIFEST CACHE", "EXPLAIN SELECT x FROM {}",
                                 "EXPLAIN ANALYZE SELECT x FROM {}", "SHOW timezone"])  # fmt: skip
def test_what_is_no_query_of_rows_comes_in_one_endpoint(server, numbers, sql):
    with rawflight.client(server) as client:
        result = Endpoints(client, sql.format(numbers), 4)
        assert len(result.info.endpoints) == 1 and result.read(0).num_rows > 0


def test_a_part_is_read_once_by_its_owner_and_can_be_cancelled(server, db, connect, numbers):
    with rawflight.client(server) as client:
        result = Endpoints(client, f"SELECT x FROM {numbers}", 4)
        result.read(0)
        with pytest.raises(pa.ArrowKeyError, match="was fetched"):
            result.read(0)
        db.run("CREATE USER parts WITH PASSWORD 'a quiet pass phrase' ROLE user")
        other = flight.FlightCallOptions(
            headers=[(b"authorization", rawflight.basic("parts", "a quiet pass phrase"))]
        )
        with pytest.raises(pa.ArrowKeyError, match="no such ticket"):
            client.connection.do_get(result.info.endpoints[1].ticket, other).read_all()
        cancel = flight.Action("CancelFlightInfo", field(1, result.info.serialize()))
        assert len(list(client.connection.do_action(cancel, result.options))) == 1
        with pytest.raises(pa.ArrowKeyError, match="no such ticket"):
            result.read(1)
    until(lambda: running(db, f"SELECT x FROM {numbers}") == [], "nothing is left of it")


@pytest.mark.parametrize("wanted", ["0", "65", "many", "-1"])
def test_a_wrong_number_of_endpoints_is_refused(server, wanted):
    with rawflight.client(server) as client, pytest.raises(pa.ArrowInvalid, match="from 1 to 64"):
        Endpoints(client, "SELECT 1", wanted)


def test_an_update_has_one_endpoint_and_runs_once(server, db, numbers):
    with rawflight.client(server) as client:
        result = Endpoints(client, f"DELETE FROM {numbers} WHERE x = 2", 4)
        assert len(result.info.endpoints) == 1
        assert result.read(0).to_pylist() == [{"rows_affected": 1}]
