"""Users: what is changed of them, by whom, and what their sessions notice of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pyarrow.flight as flight
import pytest
import seracdb
from bearers import ends, start
from conftest import Connections, root
from object_stores import server_on
from raw_grpc import Caller, Metadata, Reply
from raw_grpc import basic as grpc_basic
from rawflight import basic, statement
from test_fuzz import of_command
from test_manifests import told, until
from test_recovery import successor
from test_transactions import COMMIT, Raw
from testserver import ROOT_PASSWORD, Server
from wire import field, packed

PASSWORD = "a quiet pass phrase"
DENIED = "permission denied: "


@pytest.fixture
def user(connect, db, namespace):
    """Makes a user, and gives a connection."""

    def make(name: str, role: str = "user") -> seracdb.Connection:
        db.run(f"CREATE USER {namespace}_{name} WITH PASSWORD '{PASSWORD}' ROLE {role}")
        return connect(f"{namespace}_{name}", PASSWORD)

    return make


def refused(connection, sql: str, error: type[Exception] = seracdb.PermissionDenied) -> str:
    """The text that a statement is refused with."""
    with pytest.raises(error) as why:
        connection.run(sql)
    return str(why.value)


def logs_in(server: Server, name: str, password: str) -> bool:
    try:
        seracdb.connect(server.uri, name, password).close()
    except seracdb.Unauthenticated as error:
        assert "wrong user name or password" in str(error)
        return False
    return True


def test_a_password_is_changed_by_its_user_and_by_admins(server, connect, db, user, namespace):
    ann, adm, svc = user("ann"), user("adm", "admin"), user("svc", "service")
    name = f"{namespace}_ann"
    assert ann.run(f"ALTER USER {name} SET PASSWORD 'of her own'") == 0
    assert logs_in(server, name, "of her own") and not logs_in(server, name, PASSWORD)
    adm.run(f"ALTER USER '{name}' SET PASSWORD 'given'")
    assert logs_in(server, name, "given") and not logs_in(server, name, "of her own")
    # What was logged in with the old one has ended.
    assert "login has ended" in refused(ann, "SELECT 1", seracdb.Unauthenticated)
    for other in (connect(name, "given"), svc):
        assert DENIED in refused(other, f"ALTER USER {namespace}_adm SET PASSWORD 'x'")
    assert "by that role only" in refused(adm, "ALTER USER root SET PASSWORD 'x'")
    assert logs_in(server, "root", ROOT_PASSWORD)
    for sql in (f"ALTER USER {namespace}_nobody SET PASSWORD 'x'", f"ALTER USER {namespace}_nobody SET ROLE user"):
        assert "does not exist" in refused(adm, sql, seracdb.NotFound)
    assert "must not be empty" in refused(adm, f"ALTER USER {name} SET PASSWORD ''", seracdb.InvalidArgument)
    long = "x" * 1025
    assert "at most 1024 bytes" in refused(adm, f"ALTER USER {name} SET PASSWORD '{long}'", seracdb.InvalidArgument)


def test_who_gives_themselves_another_password_goes_on(server, connect, db, user, namespace):
    """With the session that does it; what else was logged in with the old one ends."""
    name = f"{namespace}_ann"
    ann, other = user("ann"), connect(name, PASSWORD)
    named = Raw(server, name, PASSWORD)
    reader, others = start(named), start(Raw(server, name, PASSWORD))
    assert other.query("SELECT 1 AS n").num_rows == 1
    ends(others, lambda: named.query(f"ALTER USER {name} SET PASSWORD 'first'"))
    for connection in (ann, other):
        assert "login has ended" in refused(connection, "SELECT 1", seracdb.Unauthenticated)
    for password in ("second", "third"):
        named.query(f"ALTER USER {name} SET PASSWORD '{password}'")
        assert logs_in(server, name, password) and not logs_in(server, name, "first")
    transaction = named.begin()
    named.query(f"ALTER USER {name} SET PASSWORD 'fourth'", transaction)
    assert logs_in(server, name, "third")
    named.end(transaction, COMMIT)
    assert logs_in(server, name, "fourth")
    time.sleep(1)  # in which what has ended is ended
    assert reader.read_chunk().data.num_rows > 0
    assert named.query("SELECT 1 AS n") == [{"n": 1}]
    # Not with one that somebody else gives them, or with another role.
    ends(reader, lambda: db.run(f"ALTER USER {name} SET PASSWORD 'given'"))
    again = connect(name, "given")
    again.run(f"ALTER USER {name} SET PASSWORD 'mine'")
    db.run(f"ALTER USER {name} SET ROLE service")
    assert "login has ended" in refused(again, "SELECT 1", seracdb.Unauthenticated)


@contextmanager
def others_call(server: Server, metadata: Metadata) -> Iterator[None]:
    """Calls all the time by the same login, each of which asks whether it stands."""
    done = threading.Event()

    def call() -> None:
        with Caller(server, metadata) as caller:
            while not done.is_set():
                caller.call("ListActions", b"")

    calling = [threading.Thread(target=call) for _ in range(2)]
    for thread in calling:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in calling:
            thread.join()


def test_a_change_that_ends_logins_is_answered(server, db, namespace):
    """Whatever it is that its own login ends with."""
    name = f"{namespace}_adm"
    db.run(f"CREATE USER {name} WITH PASSWORD '0' ROLE admin")
    with Caller(server, grpc_basic(name, "0")) as caller:
        caller.login()
        with others_call(server, caller.metadata):
            for n in range(1, 31):
                assert altered(caller, f"ALTER USER {name} SET PASSWORD '{n}'").code is grpc.StatusCode.OK
    with Caller(server, grpc_basic(name, "30")) as caller:
        # Without a session, too.
        assert altered(caller, f"ALTER USER {name} SET PASSWORD '31'").code is grpc.StatusCode.OK
    for _ in range(10):
        with Caller(server, grpc_basic(name, "31")) as caller:
            caller.login()
            with others_call(server, caller.metadata):
                assert altered(caller, f"ALTER USER {name} SET ROLE user").code is grpc.StatusCode.OK
                assert altered(caller, "SELECT 1").code is grpc.StatusCode.UNAUTHENTICATED
        db.run(f"ALTER USER {name} SET ROLE admin")


def altered(caller: Caller, sql: str) -> Reply:
    return caller.call("GetFlightInfo", of_command(packed("CommandStatementQuery", field(1, sql))))


def test_no_one_gives_or_takes_a_role_above_their_own(db, connect, user, namespace):
    adm, other, svc, ann = user("adm", "admin"), user("other", "admin"), user("svc", "service"), user("ann")
    db.run(f"CREATE USER {namespace}_sys WITH PASSWORD '{PASSWORD}' ROLE system")
    for connection, sql in (
        (adm, f"CREATE USER {namespace}_new WITH PASSWORD 'x' ROLE system"),
        (adm, f"ALTER USER {namespace}_ann SET ROLE system"),
        (adm, f"ALTER USER {namespace}_adm SET ROLE system"),
        (adm, f"ALTER USER {namespace}_sys SET ROLE user"),
        (adm, f"DROP USER {namespace}_sys"),
        (svc, f"ALTER USER {namespace}_ann SET ROLE user"),
        (svc, f"CREATE USER {namespace}_new WITH PASSWORD 'x'"),
        (svc, f"DROP USER {namespace}_ann"),
        (ann, f"ALTER USER {namespace}_ann SET ROLE service"),
        (ann, f"DROP USER {namespace}_ann"),
    ):
        assert DENIED in refused(connection, sql), sql
    adm.run(f"ALTER USER {namespace}_ann SET ROLE admin")
    adm.run(f"ALTER USER {namespace}_other SET ROLE user")
    assert "login has ended" in refused(other, f"ALTER USER {namespace}_ann SET ROLE user", seracdb.Unauthenticated)
    again = connect(f"{namespace}_other", PASSWORD)
    assert DENIED in refused(again, f"ALTER USER {namespace}_ann SET ROLE user")
    roles = dict(db.query("SELECT name, role FROM system.users WHERE name LIKE ?", [f"{namespace}%"]).to_pandas().values)
    assert roles == {
        f"{namespace}_{name}": role
        for name, role in (("adm", "admin"), ("other", "user"), ("svc", "service"), ("ann", "admin"), ("sys", "system"))
    }


def test_who_may_not_change_users_learns_of_none(user, namespace):
    ann = user("ann")
    for sql in ("ALTER USER {} SET PASSWORD 'x'", "ALTER USER {} SET ROLE user", "DROP USER {}", "DROP USER IF EXISTS {}"):
        there, not_there = (refused(ann, sql.format(name)) for name in ("root", "nobody_at_all"))
        assert there == not_there and DENIED in there


def test_a_dropped_user_is_gone_at_once_and_for_good(server, db, user, namespace):
    db.run(f"CREATE USER TABLE {namespace}.notes (note TEXT)")
    ann, name = user("ann"), f"{namespace}_ann"
    ann.run(f"INSERT INTO {namespace}.notes VALUES ('of ann')")
    prepared = ann.cursor()
    prepared.adbc_prepare(f"SELECT note FROM {namespace}.notes")
    ann.run("BEGIN")
    ann.run(f"INSERT INTO {namespace}.notes VALUES ('never committed')")
    db.run(f"DROP USER {name}")
    for sql in ("SELECT 1", f"SELECT note FROM {namespace}.notes", f"DELETE FROM {namespace}.notes", "SHOW TABLES",
                f"ALTER USER {name} SET PASSWORD 'x'", "COMMIT", "SET schema = 'default'"):  # fmt: skip
        assert "login has ended" in refused(ann, sql, seracdb.Unauthenticated), sql
    with pytest.raises(seracdb.Unauthenticated):
        prepared.execute(f"SELECT note FROM {namespace}.notes")
        prepared.fetchall()
    prepared.close()
    with pytest.raises(seracdb.Error):
        ann.adbc_get_objects(depth="tables").read_all()
    assert not logs_in(server, name, PASSWORD)
    # The name is taken for ever, in the words for one that is there.
    again = refused(db, f"CREATE USER {name} WITH PASSWORD '{PASSWORD}'", seracdb.AlreadyExists)
    taken = refused(db, f"CREATE USER root WITH PASSWORD '{PASSWORD}'", seracdb.AlreadyExists)
    assert again.replace(name, "root") == taken
    assert "does not exist" in refused(db, f"DROP USER {name}", seracdb.NotFound)
    assert "does not exist" in refused(db, f"ALTER USER {name} SET ROLE user", seracdb.NotFound)
    assert db.run(f"DROP USER IF EXISTS {name}") == 0
    shown = db.query("SELECT role, created_at < dropped_at AS later FROM system.users WHERE name = ?", [name])
    assert shown.to_pylist() == [{"role": "user", "later": True}]


def test_root_stays_and_nobody_drops_themselves(db, connect, user, namespace):
    db.run(f"CREATE USER {namespace}_sys WITH PASSWORD '{PASSWORD}' ROLE system")
    other = connect(f"{namespace}_sys", PASSWORD)
    for sql in ("DROP USER root", "ALTER USER root SET ROLE admin", "ALTER USER root SET ROLE system"):
        assert "is the first one" in refused(other, sql, seracdb.Error)
    for connection, name in ((db, "root"), (other, f"{namespace}_sys"), (user("adm", "admin"), f"{namespace}_adm")):
        assert "nobody can drop themselves" in refused(connection, f"DROP USER {name}", seracdb.Error)


def test_a_login_has_the_role_that_its_user_has_now(db, connect, user, namespace):
    ann, name = user("ann"), f"{namespace}_ann"

    def becomes(role: str) -> seracdb.Connection:
        db.run(f"ALTER USER {name} SET ROLE {role}")
        assert "login has ended" in refused(ann, "SELECT 1", seracdb.Unauthenticated)
        return connect(name, PASSWORD)

    sql = f"CREATE TABLE {namespace}.t (a INT)"
    assert DENIED in refused(ann, sql)
    ann = becomes("service")
    ann.run(sql)
    ann = becomes("user")
    assert DENIED in refused(ann, f"CREATE TABLE {namespace}.u (a INT)")
    # What one has created stays one's own.
    ann.run(f"INSERT INTO {namespace}.t VALUES (1)")
    assert ann.query("SELECT count(*) AS n FROM system.users").to_pylist() == [{"n": 1}]
    ann = becomes("admin")
    assert ann.query("SELECT count(*) AS n FROM system.users").to_pylist()[0]["n"] > 1



def test_changes_of_users_are_transactional(server, db, user, namespace):
    user("ann")
    name = f"{namespace}_ann"
    db.run("BEGIN")
    db.run(f"CREATE USER {namespace}_new WITH PASSWORD 'new'")
    db.run(f"ALTER USER {namespace}_new SET ROLE service")
    db.run(f"DROP USER {name}")
    assert "does not exist" in refused(db, f"DROP USER {name}", seracdb.NotFound)
    db.run("ROLLBACK")
    assert logs_in(server, name, PASSWORD) and not logs_in(server, f"{namespace}_new", "new")
    db.run("BEGIN")
    db.run(f"CREATE USER {namespace}_new WITH PASSWORD 'new'")
    db.run(f"ALTER USER {namespace}_new SET ROLE service")
    db.run("COMMIT")
    shown = db.query("SELECT role FROM system.users WHERE name = ?", [f"{namespace}_new"]).to_pylist()
    assert shown == [{"role": "service"}] and logs_in(server, f"{namespace}_new", "new")


def test_who_was_given_another_role_meanwhile_is_not_changed(db, connect, user, namespace):
    adm = user("adm", "admin")
    user("ann")
    adm.run("BEGIN")
    adm.run(f"DROP USER {namespace}_ann")
    db.run(f"ALTER USER {namespace}_ann SET ROLE system")
    assert "another role meanwhile" in refused(adm, "COMMIT", seracdb.Error)
    assert connect(f"{namespace}_ann", PASSWORD).query("SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_the_users_are_shown_without_secrets(db, user, namespace):
    ann, adm = user("ann"), user("adm", "admin")
    columns = ["name", "role", "created_at", "dropped_at"]
    for connection, names in ((ann, {f"{namespace}_ann"}), (user("svc", "service"), {f"{namespace}_svc"})):
        table = connection.query("SELECT * FROM system.users")
        assert (table.column_names, set(table["name"].to_pylist())) == (columns, names)
    for connection in (adm, db):
        names = set(connection.query("SELECT name FROM system.users")["name"].to_pylist())
        assert names >= {"root", f"{namespace}_ann", f"{namespace}_adm", f"{namespace}_svc"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "1 to 128 bytes"),
        ("x" * 129, "1 to 128 bytes"),
        ("a:b", "cannot contain ':'"),
        ("a\nb", "not seen"),
        ("a\u202eb", "not seen"),
        ("\ufeffa", "not seen"),
        ("Zoe\u0308", "normal form C"),
        ("\u212b", "normal form C"),
    ],
)
def test_names_that_are_none(db, name, why):
    text = refused(db, f"CREATE USER '{name}' WITH PASSWORD 'x'", seracdb.InvalidArgument)
    assert why in text and name not in text.replace("''", "") or not name


def test_names_in_other_letters_are_of_others(server, db, namespace):
    db.run(f"CREATE USER TABLE {namespace}.notes (note TEXT)")
    names = [f"{namespace}_{name}" for name in ("zoe", "Zoe", "zoë", "../zoe", "z oe", "zoe'; AS USER 'root", "%2e%2e")]
    with Connections(server) as connections:
        opened = []
        for name in names:
            quoted = name.replace("'", "''")
            db.run(f"CREATE USER '{quoted}' WITH PASSWORD '{PASSWORD}'")
            opened.append(connections.open(name, PASSWORD))
            opened[-1].run(f"INSERT INTO {namespace}.notes VALUES (?)", [name])
        for _ in ("hot", "cold"):
            for name, connection in zip(names, opened, strict=True):
                assert connection.query(f"SELECT note FROM {namespace}.notes")["note"].to_pylist() == [name]
            db.run(f"STORAGE FLUSH TABLE {namespace}.notes")


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE USER {ns}_x WITH PASSWORD 'hunter''s {secret}' ROLE emperor",
        "CREATE USER {ns}_x WITH PASSWORD 'a'{secret}'b'",
        "CREATE USER {ns}_x WITH PASSWORD 'a' '{secret}'",
        "CREATE USER {ns}_x WITH PASSWORD 'a'; {secret}",
        "CREATE USER {ns}_x WITH PASSWORD {secret}",
        "ALTER USER root SET PASSWORD {secret}",
        "ALTER USER root SET PASSWORD '{secret}' {secret}",
        "ALTER USER root SET PASSWORD 'a'{secret}'b'",
        "ALTER USER root SET '{secret}'",
        "ALTER USER root '{secret}'",
        "ALTER USER root SET PASSWORD '{secret}",
        "ALTER USER nobody SET PASSWORD '{secret}'",
        "EXPLAIN ALTER USER root SET PASSWORD '{secret}'",
    ],
)
def test_passwords_are_in_no_error_and_no_log(server, db, namespace, sql):
    secret = "xyzzy42plugh"
    assert secret not in refused(db, sql.format(ns=namespace, secret=secret), seracdb.Error)
    assert secret not in server.log()


def test_running_changes_are_shown_without_passwords(db, connect, user, namespace):
    user("ann")
    # Another's password: who changes their own has to log in again.
    other, seen = connect(), set()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            other.run(f"ALTER USER {namespace}_ann SET PASSWORD 'xyzzy42plugh'")

    changing = threading.Thread(target=change)
    changing.start()
    try:
        def shown() -> bool:
            seen.update(db.query("SELECT statement FROM system.queries WHERE kind = 'change' AND state = 'running'")["statement"].to_pylist())
            return any("ALTER USER" in text for text in seen)

        until(shown, "one is seen")
    finally:
        stop.set()
        changing.join()
    assert {text for text in seen if "ALTER USER" in text} == {f"ALTER USER {namespace}_ann SET PASSWORD …"}


def test_basic_credentials_of_a_dropped_user_are_refused(server, db, namespace):
    """Also those that were checked a moment before."""
    name = f"{namespace}_ann"
    db.run(f"CREATE USER {name} WITH PASSWORD '{PASSWORD}'")
    options = flight.FlightCallOptions(headers=[(b"authorization", basic(name, PASSWORD))])
    with flight.FlightClient(server.uri) as client:
        info = client.get_flight_info(statement("SELECT 1 AS one"), options)
        assert client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist() == [{"one": 1}]
        db.run(f"DROP USER {name}")
        with pytest.raises(flight.FlightUnauthenticatedError):
            client.get_flight_info(statement("SELECT 1 AS one"), options)


def test_users_and_grants_survive(tmp_path, shared):
    """A restart, a crash, and the loss of the data directory."""
    with server_on(tmp_path / "first", shared.url, "--take-over") as first:
        with root(first) as db:
            for name in ("ann", "gone", "svc"):
                db.run(f"CREATE USER {name} WITH PASSWORD '{PASSWORD}'")
            db.run("ALTER USER svc SET ROLE service")
            db.run("ALTER USER ann SET PASSWORD 'another'")
            db.run("DROP USER gone")
            with seracdb.connect(first.uri, "svc", PASSWORD) as svc:
                svc.run("CREATE NAMESPACE app")
                svc.run("CREATE TABLE app.t (a INT)")
                svc.run("CREATE TABLE app.u (a INT)")
                svc.run("INSERT INTO app.t VALUES (1)")
                svc.run("GRANT SELECT, INSERT ON app.t TO ann")
                svc.run("GRANT DELETE ON app.u TO ROLE user")
                svc.run("REVOKE INSERT ON app.t FROM ann")
            db.run("STORAGE FLUSH ALL")
        until(lambda: b'"delete"' in shared.read()["_seracdb/catalog-e1.json"], "the catalog is exported")
        # A build that knows no grants refuses it, rather than to go on without them.
        assert json.loads(shared.read()["_seracdb/catalog-e1.json"])["format_version"] == 3
        survived(first)
        first.restart()
        survived(first)
        first.kill()
        first.start()
        survived(first)
        second = successor(tmp_path, shared, first)
    with second:
        assert told(second, "goes on with the tables of the owner before")
        survived(second)


def survived(server: Server) -> None:
    assert not logs_in(server, "gone", PASSWORD) and not logs_in(server, "ann", PASSWORD)
    with seracdb.connect(server.uri, "ann", "another") as ann:
        assert ann.query("SELECT a FROM app.t").to_pylist() == [{"a": 1}]
        refused(ann, "INSERT INTO app.t VALUES (2)")
        assert ann.run("DELETE FROM app.u") == 0
        grants = ann.query("SELECT grantee, kind, object, privilege, granted_by FROM system.grants ORDER BY object")
        assert [tuple(grant.values()) for grant in grants.to_pylist()] == [
            ("ann", "table", "app.t", "SELECT", "svc"),
            ("user", "table", "app.u", "DELETE", "svc"),
        ]
    with seracdb.connect(server.uri, "svc", PASSWORD) as svc:
        svc.run("COMMENT ON NAMESPACE app IS 'of svc'")
        svc.run("COMMENT ON TABLE app.t IS 'of svc'")
    with root(server) as db:
        refused(db, f"CREATE USER gone WITH PASSWORD '{PASSWORD}'", seracdb.AlreadyExists)
