"""Temporary tables: of one session, by SQL and by ingest, in transactions and outside, and gone with their session."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
import rawflight
import seracdb
from conftest import Connections, root
from test_manifests import until
from test_transactions import COMMIT, REFUSED, Raw
from testserver import ROOT_PASSWORD, Server
from wire import field, packed

DATA = pa.table({"x": [1, 2, 3]})


def rows(connection, table: str) -> list[int]:
    return connection.query(f"SELECT x FROM {table} ORDER BY x").column("x").to_pylist()


def namespaces(connection) -> list[str]:
    return connection.query("SHOW NAMESPACES").column("namespace").to_pylist()


def test_only_its_session_sees_it(db, connect):
    other = connect()
    db.run("CREATE TEMPORARY TABLE scratch (x BIGINT, label TEXT)")
    db.run("INSERT INTO scratch VALUES (1, 'one'), (2, 'two')")
    assert db.run("UPDATE scratch SET x = 3 WHERE x = 2") == 1
    assert rows(db, "scratch") == [1, 3]
    with pytest.raises(seracdb.Error, match="unknown table 'scratch'"):
        rows(other, "scratch")
    # By its full name neither.
    (own,) = [name for name in namespaces(db) if name.startswith("__serac_temporary_")]
    assert rows(db, f'"{own}".scratch') == [1, 3]
    assert own not in namespaces(other)
    for sql in (f'SELECT x FROM "{own}".scratch', f'DROP TABLE "{own}".scratch', f'INSERT INTO "{own}".scratch VALUES (1, NULL)',
                f'DROP NAMESPACE "{own}" CASCADE', f'CREATE TABLE "{own}".t (x INT)', f'USE "{own}"'):  # fmt: skip
        with pytest.raises(seracdb.Error, match="unknown namespace|unknown table|temporary"):
            other.run(sql)
    listed = "SELECT count(*) AS n FROM information_schema.tables WHERE table_name = 'scratch'"
    assert [c.query(listed).to_pylist() for c in (db, other)] == [[{"n": 1}], [{"n": 0}]]
    assert db.run("DROP TABLE scratch") == 0
    with pytest.raises(seracdb.Error, match="unknown table 'scratch'"):
        rows(db, "scratch")


def test_each_session_has_its_own(connect):
    one, other = connect(), connect()
    for connection, x in ((one, 1), (other, 2)):
        connection.run("CREATE TEMP TABLE mine (x BIGINT)")
        connection.run("INSERT INTO mine VALUES (?)", [x])
    for _ in range(2):
        assert (rows(one, "mine"), rows(other, "mine")) == ([1], [2])
    with pytest.raises(seracdb.Error, match="already exists|exists already"):
        one.run("CREATE TEMP TABLE mine (x BIGINT)")
    one.run("CREATE TEMP TABLE IF NOT EXISTS mine (x BIGINT)")


def test_it_comes_before_others_of_its_name(db, namespace):
    db.run(f"USE {namespace}")
    db.run("CREATE TABLE t (x BIGINT)")
    db.run("INSERT INTO t VALUES (1)")
    assert rows(db, "t") == [1]
    db.run("CREATE TEMPORARY TABLE t (x BIGINT)")
    assert rows(db, "t") == []
    assert rows(db, f"{namespace}.t") == [1]
    db.run("INSERT INTO t VALUES (2)")
    assert (rows(db, "t"), rows(db, f"{namespace}.t")) == ([2], [1])
    db.run("DROP TABLE t")
    assert rows(db, "t") == [1]


def test_any_user_may(db, connect):
    db.run("CREATE USER temporal WITH PASSWORD 'a quiet pass phrase' ROLE user")
    user = connect("temporal", "a quiet pass phrase")
    user.run("CREATE TEMPORARY TABLE t (x BIGINT)")
    user.run("INSERT INTO t VALUES (1)")
    assert rows(user, "t") == [1]
    user.run("DROP TABLE t")
    with pytest.raises(seracdb.Error, match="requires the role service"):
        user.run("CREATE TABLE t (x BIGINT)")


@pytest.mark.parametrize("sql", ["CREATE TEMPORARY TABLE ns.t (x INT)", "CREATE TEMPORARY USER TABLE t (x INT)"])
def test_what_is_refused(db, sql):
    with pytest.raises(seracdb.Error):
        db.run(sql)


def test_it_needs_a_session(server):
    basic = rawflight.flight.FlightCallOptions(
        headers=[(b"authorization", rawflight.basic("root", ROOT_PASSWORD))]
    )
    with rawflight.client(server) as client:
        with pytest.raises(pa.ArrowInvalid, match="needs a session"):
            client.connection.get_flight_info(rawflight.statement("CREATE TEMPORARY TABLE t (x INT)"), basic)


@pytest.mark.parametrize("autocommit", [True, False])
def test_ingest(server, db, autocommit):
    kwargs = {"username": "root", "password": ROOT_PASSWORD}
    with flightsql.connect(server.uri, db_kwargs=kwargs, autocommit=autocommit) as connection:
        with connection.cursor() as cursor:
            assert cursor.adbc_ingest("loaded", DATA, mode="create", temporary=True) == 3
            assert cursor.adbc_ingest("loaded", DATA, mode="append", temporary=True) == 3
            cursor.execute("SELECT sum(x) FROM loaded")
            assert cursor.fetchone() == (12,)
            with pytest.raises(flightsql.Error, match="exists already"):
                cursor.adbc_ingest("loaded", DATA, mode="create", temporary=True)
            assert cursor.adbc_ingest("loaded", DATA, mode="replace", temporary=True) == 3
            assert cursor.adbc_ingest("loaded", DATA, mode="create_append", temporary=True) == 3
            cursor.execute("SELECT sum(x) FROM loaded")
            assert cursor.fetchone() == (12,)
            with pytest.raises(flightsql.Error, match="in no schema"):
                cursor.adbc_ingest("loaded", DATA, mode="create", temporary=True, db_schema_name="default")
        if not autocommit:
            connection.commit()
        with pytest.raises(seracdb.Error, match="unknown table 'loaded'"):
            rows(db, "loaded")


def test_a_rollback_undoes_it(connect):
    connection = connect()
    connection.run("BEGIN")
    connection.run("CREATE TEMPORARY TABLE t (x BIGINT)")
    connection.run("INSERT INTO t VALUES (1)")
    assert rows(connection, "t") == [1]
    connection.run("ROLLBACK")
    with pytest.raises(seracdb.Error, match="unknown table 't'"):
        rows(connection, "t")
    connection.run("CREATE TEMPORARY TABLE t (x BIGINT)")
    assert rows(connection, "t") == []


def temporary_files(server) -> list[str]:
    # Unlike a glob, a walk takes folders that go meanwhile.
    walked = os.walk(server.data_dir / "objects")
    return [name for folder, _, files in walked if "temporary" in folder for name in files if name.endswith(".parquet")]


def test_it_goes_with_its_session_and_leaves_no_file(own_server):
    def all_namespaces() -> set[str]:
        # Its own session sees it: what others cannot see is counted by the folders.
        return {path.name for path in (own_server.data_dir / "objects").glob("*") if "temporary" in path.name}

    with Connections(own_server) as connections:
        connection = connections.open()
        connection.ingest("kept", DATA, "create")
        with connection.cursor() as cursor:
            cursor.adbc_ingest("loaded", DATA, mode="create", temporary=True)
        connection.run("STORAGE FLUSH ALL")
        assert rows(connection, "loaded") == [1, 2, 3]
        assert len(all_namespaces()) == 1
        assert temporary_files(own_server)
    until(lambda: not temporary_files(own_server), "its files go")
    with root(own_server) as db:
        assert rows(db, "kept") == [1, 2, 3]


def test_a_crash_leaves_none(own_server):
    lost = root(own_server)
    lost.run("CREATE TEMPORARY TABLE t (x BIGINT)")
    lost.run("INSERT INTO t VALUES (1)")
    lost.run("STORAGE FLUSH ALL")
    own_server.kill()
    own_server.start()
    until(lambda: not temporary_files(own_server), "its files go")


def test_metadata_names_its_type(server):
    with rawflight.client(server) as client:
        info = client.connection.get_flight_info(rawflight.statement("CREATE TEMPORARY TABLE t (x INT)"), client.options)
        client.connection.do_get(info.endpoints[0].ticket, client.options).read_all()
        command = packed("CommandGetTables", field(4, "LOCAL TEMPORARY"))
        info = client.connection.get_flight_info(rawflight.flight.FlightDescriptor.for_command(command), client.options)
        (table,) = client.connection.do_get(info.endpoints[0].ticket, client.options).read_all().to_pylist()
        assert (table["table_name"], table["table_type"]) == ("t", "LOCAL TEMPORARY")


def test_the_first_ones_of_a_session_may_come_at_the_same_time(db, server):
    """Each that says it is done is there."""
    for attempt in range(10):
        with rawflight.client(server) as client:

            def create(number: int) -> None:
                sql = f"CREATE TEMPORARY TABLE IF NOT EXISTS t{number} (x INT)"
                client.connection.get_flight_info(rawflight.statement(sql), client.options)

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(create, range(4)))
            for number in range(4):
                client.start(f"SELECT x FROM t{number}").read_all()


def test_two_transactions_of_a_session_may_each_make_one(server):
    raw = Raw(server)
    one, other = raw.begin(), raw.begin()
    raw.query("CREATE TEMPORARY TABLE a (x INT)", one)
    raw.query("CREATE TEMPORARY TABLE b (x INT)", other)
    raw.end(one, COMMIT)
    raw.end(other, COMMIT)
    assert raw.query("SELECT a.x FROM a JOIN b ON a.x = b.x") == []


def test_an_index_of_another_session_is_out_of_reach(db, connect):
    other = connect()
    db.run("CREATE TEMPORARY TABLE indexed (x BIGINT)")
    db.run("CREATE INDEX of_x ON indexed (x)")
    (own,) = [name for name in namespaces(db) if name.startswith("__serac_temporary_")]
    with pytest.raises(seracdb.Error, match="unknown namespace"):
        other.run(f'DROP INDEX "{own}".of_x')
    db.run("DROP INDEX of_x")


def test_a_user_has_so_many_and_no_more(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_LIMITS__USER__TEMPORARY_TABLES_MAX": "3"}) as server:
        with Connections(server) as connections:
            db, second = connections.open(), connections.open()
            db.run("CREATE USER other WITH PASSWORD 'a quiet pass phrase' ROLE user")
            for connection, name in ((db, "a"), (db, "b"), (second, "c")):
                connection.run(f"CREATE TEMPORARY TABLE {name} (x BIGINT)")
            refused = "user 'root'.*3 temporary tables.*limits.user.temporary_tables_max"
            with pytest.raises(seracdb.Error, match=refused) as error:
                db.run("CREATE TEMPORARY TABLE d (x BIGINT)")
            assert "ResourceExhausted" in str(error.value)
            with pytest.raises(seracdb.Error, match=refused), second.cursor() as cursor:
                cursor.adbc_ingest("d", DATA, mode="create", temporary=True)
            # What is there already is none more.
            db.run("CREATE TEMPORARY TABLE IF NOT EXISTS a (x BIGINT)")
            with second.cursor() as cursor:
                cursor.adbc_ingest("c", DATA, mode="replace", temporary=True)
            db.run("CREATE TABLE e (x BIGINT)")
            connections.open("other", "a quiet pass phrase").run("CREATE TEMPORARY TABLE d (x BIGINT)")
            db.run("DROP TABLE a")
            db.run("CREATE TEMPORARY TABLE d (x BIGINT)")
            second.close()
            until(lambda: succeeds(db, "CREATE TEMPORARY TABLE f (x BIGINT)"), "those of a closed session do not count")


def succeeds(connection, sql: str) -> bool:
    try:
        connection.run(sql)
    except seracdb.Error:
        return False
    return True


def test_transactions_do_not_get_around_the_limit(tmp_path):
    with Server(tmp_path / "data", variables={"SERACDB_LIMITS__USER__TEMPORARY_TABLES_MAX": "3"}) as server:
        raw, other = Raw(server), Raw(server)
        one, two = raw.begin(), other.begin()
        for name in ("a", "b"):
            raw.query(f"CREATE TEMPORARY TABLE {name} (x INT)", one)
            other.query(f"CREATE TEMPORARY TABLE {name} (x INT)", two)
        raw.query("CREATE TEMPORARY TABLE c (x INT)", one)
        with pytest.raises(REFUSED, match="3 temporary tables"):
            raw.query("CREATE TEMPORARY TABLE d (x INT)", one)
        raw.query("DROP TABLE c", one)
        raw.end(one, COMMIT)
        with pytest.raises(REFUSED, match="3 temporary tables"):
            other.end(two, COMMIT)
        with pytest.raises(REFUSED, match="was rolled back"):
            other.end(two, COMMIT)
        raw.query("CREATE TEMPORARY TABLE c (x INT)")
