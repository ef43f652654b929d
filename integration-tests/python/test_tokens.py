"""API tokens: made, shown once, used by real drivers, and worth nothing from the moment they are dropped or have expired."""

from __future__ import annotations

import itertools
import time

import adbc_driver_flightsql.dbapi as flightsql
import jpype
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import seracdb
from adbc_driver_manager import AdbcStatusCode as Code
from bearers import ENDLESS, SECONDS_MAX, adbc, ends, execute, raw, refused, rows, start, whoami
from conftest import Connections, root
from rawflight import basic, statement
from test_client_rules import java, java_rows, over
from test_transactions import COMMIT, REFUSED, Raw
from testserver import ROOT_PASSWORD, Server
from wire import field, packed

_numbers = itertools.count(1)


@pytest.fixture
def user(db) -> str:
    """A user of role user, whose password is its name."""
    name = f"holder{next(_numbers)}"
    db.run(f"CREATE USER {name} WITH PASSWORD '{name}'")
    return name


def made(db: seracdb.Connection, rest: str = "") -> dict:
    (row,) = db.query(f"CREATE TOKEN {rest}").to_pylist()
    return row


def listed(db: seracdb.Connection) -> dict[str, dict]:
    return {row["token_id"]: row for row in db.query("SELECT * FROM system.tokens").to_pylist()}


def test_a_token_is_shown_once_and_is_its_users(server, db, connect, user):
    own = connect(user, user)
    row = made(own, "'for the CI' EXPIRES IN '30 days'")
    assert list(row) == ["token_id", "token", "user_id", "expires_at"]
    assert row["user_id"] == user
    assert row["token"].startswith(f"serac_{row['token_id']}_")
    # 256 random bits.
    assert len(row["token"].split("_")[2]) == 64
    known = listed(own)[row["token_id"]]
    assert (known["name"], known["user_id"], known["created_by"]) == ("for the CI", user, user)
    assert known["last_four"] == row["token"][-4:]
    assert known["expires_at"] == row["expires_at"] and (known["expires_at"] - known["created_at"]).days == 30
    assert not any(row["token"] in str(value) for value in known.values())
    assert whoami(server, row["token"]) == user


def test_each_sees_its_own_and_admins_see_all(server, db, connect, user):
    mine, others = made(connect(user, user)), made(db)
    assert set(listed(connect(user, user))) == {mine["token_id"]}
    assert {mine["token_id"], others["token_id"]} <= set(listed(db))
    assert made(db)["token"] != made(db)["token"]


def test_adbc_and_raw_flight_come_by_it(server, db, namespace):
    db.run(f"CREATE TABLE {namespace}.t (n INT)")
    token = made(db)["token"]
    with adbc(server, token, autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {namespace}.t VALUES (?)", [1])
        assert rows(connection, f"SELECT n FROM {namespace}.t") == [(1,)]
        assert db.query(f"SELECT n FROM {namespace}.t").num_rows == 0
        connection.rollback()
        cursor.execute(f"INSERT INTO {namespace}.t VALUES (2)")
        connection.commit()
        assert cursor.adbc_ingest("t", pa.table({"n": pa.array([3], pa.int32())}), mode="append", db_schema_name=namespace) == 1
        connection.commit()
    assert db.query(f"SELECT n FROM {namespace}.t ORDER BY n").to_pydict() == {"n": [2, 3]}


def test_its_calls_are_of_one_session(server, db, namespace):
    """Which is another than that of another token, and goes on over connections."""
    db.run(f"CREATE TABLE {namespace}.t (n INT)")
    token, other = made(db)["token"], made(db)["token"]
    for sql in (f"USE {namespace}", "BEGIN", "INSERT INTO t VALUES (1)", "CREATE TEMPORARY TABLE own (n INT)"):
        raw(server, token).query(sql)
    assert raw(server, token).query("SELECT n FROM t") == [{"n": 1}]
    with pytest.raises(REFUSED):
        raw(server, other).query("SELECT n FROM t")
    assert raw(server, other).query(f"SELECT n FROM {namespace}.t") == []
    raw(server, token).query("COMMIT")
    assert raw(server, other).query(f"SELECT n FROM {namespace}.t") == [{"n": 1}]
    named = raw(server, token)
    transaction = named.begin()
    named.query("INSERT INTO t VALUES (2)", transaction)
    named.end(transaction, COMMIT)
    assert len(raw(server, other).query(f"SELECT n FROM {namespace}.t")) == 2
    # A session that is closed is opened again by the next call, as a new one.
    raw(server, token).act("CloseSession", b"")
    assert raw(server, token).query("SELECT 1 AS n") == [{"n": 1}]
    with pytest.raises(REFUSED):
        raw(server, token).query("SELECT n FROM t")


def test_jdbc_makes_one_and_comes_by_it(server, db, user):
    with java(server, user=user, password=user) as connection:
        result = connection.createStatement().executeQuery("CREATE TOKEN jdbc")
        assert result.next()
        token = str(result.getString("token"))
        assert not result.next()
    with java(server, user=None, password=None, token=token) as connection:
        found = connection.createStatement().executeQuery("SELECT user_id FROM system.queries WHERE state = 'running'")
        assert java_rows(found) == [user]
        connection.setAutoCommit(False)
        assert java_rows(connection.createStatement().executeQuery("SELECT 1")) == ["1"]
        connection.commit()
    with pytest.raises(jpype.java.sql.SQLException, match="not accepted"):
        with java(server, user=None, password=None, token=token[:-1] + ("0" if token[-1] != "0" else "1")):
            pass


def test_the_statement_runs_once_however_often_it_is_asked_for(server, db):
    connection = Raw(server)
    before = len(listed(db))
    descriptor = statement("CREATE TOKEN once")
    assert connection.connection.get_schema(descriptor, connection.options).schema.names[1] == "token"
    handle = connection.prepare("CREATE TOKEN once")
    assert handle and len(listed(db)) == before, "neither GetSchema nor prepare makes one"
    info = connection.connection.get_flight_info(descriptor, connection.options)
    assert len(listed(db)) == before + 1
    (endpoint,) = info.endpoints
    table = connection.connection.do_get(endpoint.ticket, connection.options).read_all()
    assert table.num_rows == 1 and table.schema.equals(info.schema)
    with pytest.raises(REFUSED, match="was fetched"):
        connection.connection.do_get(endpoint.ticket, connection.options).read_all()
    assert len(listed(db)) == before + 1
    # On the way of updates too, where the row is lost.
    with connection_of(server) as plain, plain.cursor() as cursor:
        cursor.executemany("CREATE TOKEN once", None)
    assert len(listed(db)) == before + 2


def connection_of(server: Server) -> flightsql.Connection:
    return flightsql.connect(server.uri, db_kwargs={"username": "root", "password": ROOT_PASSWORD}, autocommit=True)


def test_a_token_of_a_transaction_is_one_after_the_commit(server, db):
    connection = Raw(server)
    transaction = connection.begin()
    (row,) = connection.query("CREATE TOKEN", transaction)
    refused(server, row["token"])
    connection.end(transaction, COMMIT)
    assert raw(server, row["token"]).query("SELECT 1 AS n") == [{"n": 1}]
    transaction = connection.begin()
    (row,) = connection.query("CREATE TOKEN", transaction)
    connection.end(transaction, 2)
    refused(server, row["token"])
    assert row["token_id"] not in listed(db)


def test_who_may_make_and_drop_them(server, db, connect, user):
    admin = f"{user}_admin"
    db.run(f"CREATE USER {admin} WITH PASSWORD '{admin}' ROLE admin")
    own, above = connect(user, user), connect(admin, admin)
    for sql in (f"CREATE TOKEN FOR USER '{admin}'", "CREATE TOKEN FOR USER 'root'", "CREATE TOKEN FOR USER 'nobody'"):
        with pytest.raises(flightsql.Error, match="permission denied"):
            own.run(sql)
    for sql in ("CREATE TOKEN FOR USER root", "CREATE TOKEN x FOR USER 'root' EXPIRES IN 1 DAY"):
        with pytest.raises(flightsql.Error, match="higher role") as denied:
            above.run(sql)
        assert denied.value.status_code == Code.UNAUTHORIZED
    with pytest.raises(flightsql.Error, match="does not exist"):
        above.run("CREATE TOKEN FOR USER nobody")
    for_user = made(above, f"FOR USER '{user}'")
    assert (whoami(server, for_user["token"]), listed(own)[for_user["token_id"]]["created_by"]) == (user, admin)
    assert made(own, f"FOR USER {user}")["user_id"] == user
    roots = made(db)
    # A user learns nothing of those of others.
    texts = []
    for token_id in (roots["token_id"], "0000000000000000"):
        with pytest.raises(flightsql.Error) as unknown:
            own.run(f"DROP TOKEN '{token_id}'")
        texts.append(str(unknown.value).replace(token_id, "…"))
    assert texts[0] == texts[1] and "does not exist" in texts[0]
    own.run(f"DROP TOKEN IF EXISTS '{roots['token_id']}'")
    with pytest.raises(flightsql.Error, match="higher role"):
        above.run(f"DROP TOKEN '{roots['token_id']}'")
    assert raw(server, roots["token"]).query("SELECT 1 AS n") == [{"n": 1}]
    above.run(f"DROP TOKEN '{for_user['token_id']}'")
    refused(server, for_user["token"])
    # It gives its user's rights and no others.
    with pytest.raises(REFUSED, match="permission denied"):
        raw(server, made(own)["token"]).query("CREATE NAMESPACE by_token")


@pytest.mark.parametrize(
    "rest",
    ["EXPIRES '2001-01-01'", "EXPIRES 'soon'", "EXPIRES IN '0 days'", "EXPIRES IN '-1 day'", "EXPIRES IN 'a while'", "EXPIRES 30",
     "''", "FOR USER", "a b"],
)  # fmt: skip
def test_what_makes_no_token(db, rest):
    before = len(listed(db))
    with pytest.raises(flightsql.ProgrammingError) as wrong:
        db.run(f"CREATE TOKEN {rest}")
    assert wrong.value.status_code == Code.INVALID_ARGUMENT
    assert len(listed(db)) == before


def test_one_that_is_refused_says_nothing_of_why(server, db, user, connect):
    """Changed in any part, dropped, expired, or never there: the same."""
    row = made(db)
    prefix, token_id, secret = row["token"].split("_")
    texts = set()
    for place in (0, 31, 63):
        changed = "0" if secret[place] != "0" else "1"
        texts.add(refused(server, f"{prefix}_{token_id}_{secret[:place]}{changed}{secret[place + 1 :]}"))
    texts.add(refused(server, f"{prefix}_{'0' * 16}_{secret}"))
    assert raw(server, row["token"]).query("SELECT 1 AS n") == [{"n": 1}]
    db.run(f"DROP TOKEN '{token_id}'")
    texts.add(refused(server, row["token"]))
    short = made(db, "EXPIRES IN '1 second'")
    time.sleep(1.1)
    texts.add(refused(server, short["token"]))
    assert len(texts) == 1 and "not accepted" in texts.pop()
    # The log knows.
    assert "the token has expired" in server.log() and "there is no such token" in server.log()


@pytest.mark.parametrize("end", ["dropped", "expired"])
def test_what_runs_ends_with_its_token(server, db, namespace, end):
    db.run(f"CREATE TABLE {namespace}.t (n INT)")
    row = made(db, "EXPIRES IN '3 seconds'" if end == "expired" else "")
    token = row["token"]
    by_token = raw(server, token)
    by_token.query("BEGIN")
    by_token.query(f"INSERT INTO {namespace}.t VALUES (1)")
    handle = by_token.prepare("SELECT 1")
    info = by_token.connection.get_flight_info(statement("SELECT 2"), by_token.options)
    other = start(raw(server, made(db)["token"]))
    reader = start(by_token)

    def until_it_ends() -> None:
        if end == "dropped":
            db.run(f"DROP TOKEN '{row['token_id']}'")
            return
        left = row["expires_at"].timestamp() - time.time()
        assert left > 0
        time.sleep(left)

    ends(reader, until_it_ends)
    for use in (
        lambda: execute(by_token, handle),
        lambda: by_token.query("COMMIT"),
        lambda: by_token.connection.do_get(info.endpoints[0].ticket, by_token.options).read_all(),
    ):
        with pytest.raises(flight.FlightUnauthenticatedError):
            use()
    # The transaction that was open is no more, and another token's stream goes on.
    assert db.query(f"SELECT n FROM {namespace}.t").num_rows == 0
    assert other.read_chunk().data.num_rows > 0
    other.cancel()


def test_a_driver_is_told_that_its_token_has_ended(server, db):
    row = made(db)
    # Not prepared: the driver would be refused the end of that too, and keep it.
    with adbc(server, row["token"]) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(ENDLESS)
        batches = pa.RecordBatchReader.from_stream(cursor.adbc_statement.execute_query()[0])
        assert batches.read_next_batch().num_rows > 0
        db.run(f"DROP TOKEN '{row['token_id']}'")
        began = time.monotonic()
        with pytest.raises((OSError, pa.ArrowException), match="(?i)login has ended.*unauthenticated"):
            while time.monotonic() - began < 30:
                batches.read_next_batch()
        assert time.monotonic() - began < SECONDS_MAX


def test_a_load_ends_with_its_token_and_leaves_nothing(server, db, namespace):
    row = made(db)
    connection = raw(server, row["token"])
    descriptor = ingest_into(namespace)
    batch = pa.record_batch({"n": pa.array(range(1000), pa.int64())})
    writer, reader = connection.connection.do_put(descriptor, batch.schema, connection.options)
    writer.write_batch(batch)
    db.run(f"DROP TOKEN '{row['token_id']}'")
    began = time.monotonic()
    with pytest.raises(REFUSED):
        while time.monotonic() - began < 30:
            writer.write_batch(batch)
            time.sleep(0.05)
    assert time.monotonic() - began < 5
    with pytest.raises(REFUSED, match="login has ended"):
        writer.close()
    with pytest.raises(flightsql.Error):
        db.query(f"SELECT n FROM {namespace}.loaded")


def ingest_into(namespace: str) -> flight.FlightDescriptor:
    # if_not_exist = CREATE, if_exists = FAIL.
    definition = field(1, field(1, 1) + field(2, 1))
    body = definition + field(2, "loaded") + field(3, namespace)
    return flight.FlightDescriptor.for_command(packed("CommandStatementIngest", body))


def test_tokens_outlive_a_crash_and_their_secrets_are_nowhere(own_server):
    with Connections(own_server) as connections:
        db = connections.open()
        db.run("CREATE USER ann WITH PASSWORD 'ann'")
        kept, dropped = made(db, "kept FOR USER ann"), made(db, "FOR USER ann")
        db.run(f"DROP TOKEN '{dropped['token_id']}'")
    own_server.kill()
    for place in own_server.data_dir.rglob("*"):
        if place.is_file():
            content = place.read_bytes()
            assert kept["token"].split("_")[2].encode() not in content, place
            assert dropped["token"].split("_")[2].encode() not in content, place
    own_server.start()
    assert whoami(own_server, kept["token"]) == "ann"
    refused(own_server, dropped["token"])
    assert kept["token"].split("_")[2] not in own_server.log()
    with Connections(own_server) as connections:
        assert list(listed(connections.open())) == [kept["token_id"]]


def test_tokens_go_along_where_another_data_directory_goes_on(tmp_path):
    store = f"file://{tmp_path}/store"
    first = Server(tmp_path / "one", args=["--object-store", store]).start()
    with Connections(first) as connections:
        token = made(connections.open())["token"]
        connections.open().run("CREATE TABLE t (n INT)")
        connections.open().run("INSERT INTO t VALUES (1)")
        connections.open().run("STORAGE FLUSH TABLE t")
    first.stop()
    with Server(tmp_path / "two", args=["--object-store", store, "--take-over"]) as second:
        assert raw(second, token).query("SELECT n FROM t") == [{"n": 1}]


@pytest.fixture
def altered(db, user) -> str:
    """The user, with a password that was set."""
    db.run(f"ALTER USER {user} SET PASSWORD '{user}'")
    return user


@pytest.mark.parametrize("change", ["ALTER USER {} SET ROLE service", "DROP USER {}"])
def test_what_runs_ends_when_its_user_is_changed(server, db, connect, altered, change):
    by_token = raw(server, made(connect(altered, altered))["token"])
    by_password, cached = Raw(server, altered, altered), connect(altered, altered)
    streams = [start(by_token), start(by_password)]
    handle = by_password.prepare("SELECT 1")
    assert cached.query("SELECT 1 AS n").num_rows == 1
    ends(streams[0], lambda: db.run(change.format(altered)))
    ends(streams[1], lambda: None)
    with pytest.raises(flight.FlightUnauthenticatedError, match="login has ended"):
        execute(by_password, handle)
    if change.startswith("DROP"):
        for use in (lambda: by_token.query("SELECT 1"), lambda: Raw(server, altered, altered)):
            with pytest.raises(flight.FlightUnauthenticatedError):
                use()
        with pytest.raises(flightsql.Error):
            cached.query("SELECT 1")
    else:
        # By token and password one may come again, and is what one is now.
        by_token.query(f"CREATE NAMESPACE by_{altered}")


def per_call(server: Server, user: str) -> Raw:
    """User and password with each call, and no session."""
    return over(flight.FlightClient(server.uri), (b"authorization", basic(user, user)))


@pytest.mark.parametrize("change", ["ALTER USER {} SET PASSWORD 'x'", "ALTER USER {} SET ROLE service", "DROP USER {}"])
def test_a_result_of_a_call_without_a_session_ends_with_its_login(tmp_path, change):
    """Also when nothing else rests on that login: no session, and no password that is remembered."""
    with Server(tmp_path / "data", variables={"SERACDB_AUTH__PASSWORD_CACHE_SECONDS": "0"}) as server, root(server) as db:
        for name in ("ann", "bob"):
            db.run(f"CREATE USER {name} WITH PASSWORD '{name}'")
        reader, other = start(per_call(server, "ann")), start(per_call(server, "bob"))
        time.sleep(1)  # in which a login that nothing rests on is forgotten
        ends(reader, lambda: db.run(change.format("ann")))
        assert other.read_chunk().data.num_rows > 0
        other.cancel()


def test_a_result_outlives_its_session_and_ends_with_its_login(server, db, altered):
    row = made(db, f"FOR USER {altered}")
    by_token, by_password = raw(server, row["token"]), Raw(server, altered, altered)
    of_token, of_password = start(by_token), start(by_password)
    for connection in (by_token, by_password):
        connection.act("CloseSession", b"")
    time.sleep(1)  # in which a login that nothing rests on is forgotten
    for reader in (of_token, of_password):
        assert reader.read_chunk().data.num_rows > 0
    ends(of_token, lambda: db.run(f"DROP TOKEN '{row['token_id']}'"))
    ends(of_password, lambda: db.run(f"DROP USER {altered}"))


def test_sessions_end_with_the_password_and_tokens_do_not(server, db, connect, altered):
    token = made(connect(altered, altered))["token"]
    by_password = Raw(server, altered, altered)
    reader, kept = start(by_password), start(raw(server, token))
    ends(reader, lambda: db.run(f"ALTER USER {altered} SET PASSWORD 'another'"))
    assert kept.read_chunk().data.num_rows > 0
    kept.cancel()
    with pytest.raises(flight.FlightUnauthenticatedError):
        by_password.query("SELECT 1")
    # Not even for the seconds for which right passwords are remembered.
    with pytest.raises(flight.FlightUnauthenticatedError):
        Raw(server, altered, altered)
    assert Raw(server, altered, "another").query("SELECT 1 AS n") == [{"n": 1}]
    assert raw(server, token).query("SELECT 1 AS n") == [{"n": 1}]
