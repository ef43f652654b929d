"""Changes of namespaces, views, users, grants and tokens are decided at one time and made at another, in a transaction long
after: they are made on what they were decided for, or not at all."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import seracdb
from bearers import raw
from conftest import Connections
from testserver import Server

PASSWORD = "a quiet pass phrase"
MEANWHILE = "created anew meanwhile"
HIDDEN = "(or you have no right to it)"


class Users:
    """Connections of the users of one test, whose names begin with its namespace's."""

    def __init__(self, connect, db, namespace: str):
        self.connect, self.db, self.namespace = connect, db, namespace

    def make(self, name: str, role: str = "user") -> seracdb.Connection:
        self.db.run(f"CREATE USER {self.name(name)} WITH PASSWORD '{PASSWORD}' ROLE {role}")
        return self.again(name)

    def again(self, name: str) -> seracdb.Connection:
        return self.connect(self.name(name), PASSWORD)

    def name(self, name: str) -> str:
        return f"{self.namespace}_{name}"


@pytest.fixture
def users(connect, db, namespace) -> Users:
    return Users(connect, db, namespace)


def refused(connection, sql: str, error: type[Exception] = seracdb.Error) -> str:
    with pytest.raises(error) as why:
        connection.run(sql)
    return str(why.value)


def column(connection, sql: str) -> list:
    return connection.query(sql).column(0).to_pylist()


def test_a_grant_to_a_user_of_the_same_transaction_is_that_users(server, db, users, namespace):
    adm = users.make("adm", "admin")
    payroll = f"{namespace}.payroll"
    db.run(f"CREATE TABLE {payroll} (pay INT)")
    db.run(f"INSERT INTO {payroll} VALUES (99)")
    db.run("BEGIN")
    db.run(f"CREATE USER {users.name('alice')} WITH PASSWORD '{PASSWORD}'")
    db.run(f"GRANT SELECT, INSERT ON {payroll} TO {users.name('alice')}")
    db.run(f"REVOKE INSERT ON {payroll} FROM {users.name('alice')}")
    (token,) = db.query(f"CREATE TOKEN FOR USER {users.name('alice')}").to_pylist()
    # The next number is another's by now.
    adm.run(f"CREATE USER {users.name('mallory')} WITH PASSWORD '{PASSWORD}'")
    db.run("COMMIT")
    assert HIDDEN in refused(users.again("mallory"), f"SELECT pay FROM {payroll}", seracdb.NotFound)
    assert column(users.again("alice"), f"SELECT pay FROM {payroll}") == [99]
    refused(users.again("alice"), f"INSERT INTO {payroll} VALUES (1)", seracdb.PermissionDenied)
    assert raw(server, token["token"]).query(f"SELECT pay FROM {payroll}") == [{"pay": 99}]
    shown = db.query("SELECT grantee, privilege FROM system.grants WHERE object = ?", [payroll]).to_pylist()
    assert shown == [{"grantee": users.name("alice"), "privilege": "SELECT"}]


def test_a_grant_to_who_was_dropped_meanwhile_is_refused(db, users, namespace):
    svc = users.make("svc", "service")
    users.make("ann")
    svc.run(f"CREATE TABLE {namespace}.t (n INT)")
    svc.run("BEGIN")
    svc.run(f"GRANT SELECT ON {namespace}.t TO {users.name('ann')}")
    db.run(f"DROP USER {users.name('ann')}")
    assert "does not exist" in refused(svc, "COMMIT", seracdb.NotFound)
    # To revoke from who is gone is no reason to undo all of it.
    users.make("bob")
    svc.run(f"GRANT SELECT ON {namespace}.t TO {users.name('bob')}")
    svc.run("BEGIN")
    svc.run(f"REVOKE SELECT ON {namespace}.t FROM {users.name('bob')}")
    svc.run(f"INSERT INTO {namespace}.t VALUES (1)")
    db.run(f"DROP USER {users.name('bob')}")
    svc.run("COMMIT")
    assert column(svc, f"SELECT n FROM {namespace}.t") == [1]


def test_no_token_of_who_was_raised_meanwhile(server, db, users):
    adm = users.make("adm", "admin")
    users.make("bob")
    users.make("cat")
    adm.run("BEGIN")
    adm.query("SELECT count(*) FROM system.users")
    adm.query(f"CREATE TOKEN FOR USER {users.name('cat')}")
    for name in ("bob", "cat"):
        db.run(f"ALTER USER {users.name(name)} SET ROLE system")
    # The snapshot has the role from before.
    with pytest.raises(seracdb.PermissionDenied, match="higher role"):
        adm.query(f"CREATE TOKEN FOR USER {users.name('bob')}")
    assert "another role meanwhile" in refused(adm, "COMMIT")
    assert db.query("SELECT token_id FROM system.tokens WHERE created_by = ?", [users.name("adm")]).num_rows == 0


def test_a_token_of_who_was_raised_meanwhile_is_not_dropped(server, db, users):
    adm, bob = users.make("adm", "admin"), users.make("bob")
    one, two = (bob.query("CREATE TOKEN").to_pylist()[0] for _ in range(2))
    adm.run("BEGIN")
    adm.run(f"DROP TOKEN '{one['token_id']}'")
    db.run(f"ALTER USER {users.name('bob')} SET ROLE system")
    assert "higher role" in refused(adm, f"DROP TOKEN '{two['token_id']}'", seracdb.PermissionDenied)
    assert "another role meanwhile" in refused(adm, "COMMIT")
    for token in (one, two):
        assert raw(server, token["token"]).query("SELECT 1 AS n") == [{"n": 1}]


def test_a_token_gives_no_more_than_who_made_it_had(server, db, users):
    adm, bob = users.make("adm", "admin"), users.make("bob")
    (made,) = adm.query(f"CREATE TOKEN FOR USER {users.name('bob')}").to_pylist()
    # Nor does one that is made with it.
    (by_it,) = raw(server, made["token"]).query("CREATE TOKEN")
    (own,) = bob.query("CREATE TOKEN").to_pylist()
    role = "SELECT role FROM system.users WHERE name = '{}'".format(users.name("bob"))
    new = itertools.count()

    def creates(token: str, role: str) -> bool:
        try:
            raw(server, token).query(f"CREATE USER {users.name('new')}{next(new)} WITH PASSWORD '{PASSWORD}' ROLE {role}")
        except Exception as error:  # noqa: BLE001: pyarrow has several
            assert "permission denied" in str(error)
            return False
        return True

    for becomes, expected in (("user", []), ("admin", ["admin"]), ("system", ["admin"])):
        db.run(f"ALTER USER {users.name('bob')} SET ROLE {becomes}")
        for token in (made["token"], by_it["token"]):
            assert raw(server, token).query(role) == [{"role": becomes}]
            assert [role for role in ("admin", "system") if creates(token, role)] == expected, becomes
    # One's own has what one has by now.
    assert creates(own["token"], "system")


def test_staged_changes_of_a_namespace_are_not_made_to_anothers(db, users, namespace):
    svc, vic, pal = users.make("svc", "service"), users.make("vic", "service"), users.make("pal")
    again, x = users.again("svc"), f"{namespace}_x"
    for staged in (
        f"GRANT ALL ON NAMESPACE {x} TO {users.name('pal')}, {users.name('svc')}",
        f"REVOKE SELECT ON NAMESPACE {x} FROM ROLE user",
        f"DROP NAMESPACE {x} CASCADE",
        f"COMMENT ON NAMESPACE {x} IS 'pwned'",
        f"CREATE TABLE {x}.own_place (n INT)",
        f"CREATE VIEW {x}.own_view AS SELECT 1 AS n",
    ):
        svc.run(f"CREATE NAMESPACE {x}")
        svc.run("BEGIN")
        svc.run(staged)
        again.run(f"DROP NAMESPACE {x}")
        vic.run(f"CREATE NAMESPACE {x}")
        vic.run(f"CREATE TABLE {x}.t (n INT)")
        vic.run(f"INSERT INTO {x}.t VALUES (42)")
        told = refused(svc, "COMMIT")
        assert MEANWHILE in told and "rolled back" in told, staged
        assert column(vic, f"SELECT n FROM {x}.t") == [42]
        for other in (pal, svc):
            refused(other, f"SELECT n FROM {x}.t", seracdb.NotFound)
        shown = vic.query("SELECT table_name FROM information_schema.tables WHERE table_schema = ?", [x])
        assert shown["table_name"].to_pylist() == ["t"]
        vic.run(f"DROP NAMESPACE {x} CASCADE")


def test_staged_changes_of_a_view_are_not_made_to_anothers(db, users, namespace):
    svc, vic, pal = users.make("svc", "service"), users.make("vic", "service"), users.make("pal")
    again, v = users.again("svc"), f"{namespace}.v"
    shown = f"SELECT view_definition, comment FROM information_schema.views WHERE table_schema = '{namespace}'"
    for staged in (
        f"DROP VIEW {v}",
        f"CREATE OR REPLACE VIEW {v} AS SELECT 666 AS n",
        f"GRANT SELECT ON {v} TO {users.name('pal')}",
        f"COMMENT ON VIEW {v} IS 'pwned'",
        f"COMMENT ON COLUMN {v}.n IS 'pwned'",
    ):
        svc.run(f"CREATE VIEW {v} AS SELECT 1 AS n")
        svc.run("BEGIN")
        svc.run(staged)
        again.run(f"DROP VIEW {v}")
        vic.run(f"CREATE VIEW {v} AS SELECT 42 AS n")
        assert MEANWHILE in refused(svc, "COMMIT"), staged
        assert column(vic, f"SELECT n FROM {v}") == [42]
        refused(pal, f"SELECT n FROM {v}", seracdb.NotFound)
        assert vic.query(shown).to_pylist() == [{"view_definition": "SELECT 42 AS n", "comment": None}]
        comments = f"SELECT comment FROM information_schema.columns WHERE table_schema = '{namespace}' AND table_name = 'v'"
        assert column(vic, comments) == [None]
        vic.run(f"DROP VIEW {v}")
    # Nor is one replaced that was not there.
    svc.run("BEGIN")
    svc.run(f"CREATE OR REPLACE VIEW {v} AS SELECT 666 AS n")
    vic.run(f"CREATE VIEW {v} AS SELECT 42 AS n")
    assert MEANWHILE in refused(svc, "COMMIT")
    assert column(vic, f"SELECT n FROM {v}") == [42]


def test_what_others_do_elsewhere_is_no_reason_to_roll_back(db, users, namespace):
    svc, vic = users.make("svc", "service"), users.make("vic", "service")
    again, x, v = users.again("svc"), f"{namespace}_x", f"{namespace}.v"
    svc.run(f"CREATE NAMESPACE {x}")
    svc.run(f"CREATE VIEW {v} AS SELECT 1 AS n")
    svc.run("BEGIN")
    for sql in (
        f"GRANT SELECT ON NAMESPACE {x} TO ROLE user",
        f"COMMENT ON NAMESPACE {x} IS 'of svc'",
        f"CREATE TABLE {x}.t (n INT)",
        f"CREATE OR REPLACE VIEW {v} AS SELECT n FROM {x}.t",
        f"GRANT SELECT ON {v} TO ROLE user",
        f"COMMENT ON VIEW {v} IS 'of svc'",
        f"CREATE NAMESPACE {x}2",
        f"GRANT SELECT ON NAMESPACE {x}2 TO ROLE user",
        f"CREATE VIEW {x}2.w AS SELECT n FROM {v}",
        f"CREATE OR REPLACE VIEW {x}2.w AS SELECT n + 1 AS n FROM {v}",
        f"GRANT SELECT ON {x}2.w TO ROLE user",
        f"DROP VIEW {x}2.w",
        f"DROP NAMESPACE {x}2 CASCADE",
        f"CREATE NAMESPACE {x}2",
        f"CREATE VIEW {x}2.w AS SELECT n FROM {v}",
    ):
        svc.run(sql)
    vic.run(f"CREATE NAMESPACE {namespace}_of_vic")
    vic.run(f"CREATE VIEW {namespace}_of_vic.v AS SELECT 1 AS n")
    vic.run(f"DROP NAMESPACE {namespace}_of_vic CASCADE")
    db.run(f"CREATE USER {users.name('new')} WITH PASSWORD '{PASSWORD}'")
    db.run(f"ALTER USER {users.name('vic')} SET ROLE user")
    # The same namespace and view, with another comment, and another query.
    again.run(f"COMMENT ON NAMESPACE {x} IS 'again'")
    again.run(f"CREATE OR REPLACE VIEW {v} AS SELECT 2 AS n")
    again.run(f"CREATE TABLE {x}.other (n INT)")
    svc.run("COMMIT")
    svc.run(f"INSERT INTO {x}.t VALUES (7)")
    assert column(svc, f"SELECT n FROM {x}2.w") == [7]


def test_who_changes_themselves_goes_on(db, users, namespace):
    adm = users.make("adm", "admin")
    adm.run("BEGIN")
    adm.run(f"ALTER USER {users.name('adm')} SET ROLE service")
    adm.run(f"CREATE TABLE {namespace}.t (n INT)")
    adm.run("COMMIT")
    assert column(db, f"SELECT role FROM system.users WHERE name = '{users.name('adm')}'") == ["service"]
    assert column(db, f"SELECT n FROM {namespace}.t") == []


def test_what_was_revoked_stays_hidden_when_it_is_dropped(db, users, namespace):
    ann, owner, adm = users.make("ann"), users.make("owner", "service"), users.make("adm", "admin")
    t, v = f"{namespace}.t", f"{namespace}.v"
    owner.run(f"CREATE TABLE {t} (n INT)")
    owner.run(f"INSERT INTO {t} VALUES (7)")
    owner.run(f"CREATE VIEW {v} AS SELECT n FROM {t}")
    owner.run(f"CREATE USER TABLE {namespace}.notes (n INT)")
    for on in (t, v):
        owner.run(f"GRANT ALL ON {on} TO {users.name('ann')}")
    ann.run(f"INSERT INTO {namespace}.notes VALUES (1)")
    others = users.again("owner")
    for connection in (ann, owner, adm):
        connection.run("BEGIN")
        assert column(connection, f"SELECT n FROM {t}") == column(connection, f"SELECT n FROM {v}") == [7]
    for on in (v, t):
        others.run(f"REVOKE ALL ON {on} FROM {users.name('ann')}")
        assert HIDDEN in refused(ann, f"SELECT n FROM {on}", seracdb.NotFound)
    others.run(f"DROP VIEW {v}")
    others.run(f"DROP TABLE {t}")
    others.run(f"DROP TABLE {namespace}.notes")
    for on in (t, v):
        assert HIDDEN in refused(ann, f"SELECT n FROM {on}", seracdb.NotFound)
        for connection in (owner, adm):
            assert column(connection, f"SELECT n FROM {on}") == [7]
    # Rows of one's own nobody could revoke.
    assert column(ann, f"SELECT n FROM {namespace}.notes") == [1]
    # Nor does another of the name give the old one back.
    others.run(f"CREATE VIEW {v} AS SELECT 8 AS n")
    others.run(f"GRANT SELECT ON {v} TO {users.name('ann')}")
    assert HIDDEN in refused(ann, f"SELECT n FROM {v}", seracdb.NotFound)
    ann.run("ROLLBACK")
    assert column(ann, f"SELECT n FROM {v}") == [8]


def test_no_user_is_created_by_who_was_dropped_meanwhile(tmp_path):
    """Hashes wait for their turn: a queue of them outlives its admin."""
    with Server(tmp_path / "data") as server, Connections(server) as connections:
        db = connections.open()
        for gone in ("DROP USER adm0", "ALTER USER adm1 SET ROLE user", "ALTER USER adm2 SET ROLE service"):
            name = gone.split()[2]
            db.run(f"CREATE USER {name} WITH PASSWORD '{PASSWORD}' ROLE admin")
            opened = [connections.open(name, PASSWORD) for _ in range(24)]

            def create(place: int, opened=opened, name=name) -> None:
                try:
                    opened[place].run(f"CREATE USER {name}_{place} WITH PASSWORD '{PASSWORD}' ROLE admin")
                except seracdb.Error:
                    pass

            threads = [threading.Thread(target=create, args=(place,)) for place in range(len(opened))]
            for thread in threads:
                thread.start()
            time.sleep(0.15)
            db.run(gone)
            for thread in threads:
                thread.join()
            log = db.query("SELECT action, target FROM system.audit_log ORDER BY audit_id").to_pylist()
            (at,) = [place for place, row in enumerate(log) if row["action"] == " ".join(gone.split()[:2]) and row["target"].startswith(name)]
            assert [row["target"] for row in log[at:] if row["action"] == "CREATE USER"] == []


def test_what_stands_in_the_way_at_the_commit_is_not_named(db, users, namespace):
    svc, vic, adm = users.make("svc", "service"), users.make("vic", "service"), users.make("adm", "admin")
    t = f"{namespace}.t"
    svc.run(f"CREATE TABLE {t} (n INT)")
    svc.run(f"GRANT SELECT ON {t} TO {users.name('vic')}")
    for connection in (svc, adm):
        connection.run("BEGIN")
        connection.run(f"DROP TABLE {t}")
    vic.run(f"CREATE VIEW {namespace}.hush AS SELECT n FROM {t}")
    assert f"'{namespace}.hush'" in refused(adm, "COMMIT", seracdb.InvalidArgument)
    told = refused(svc, "COMMIT", seracdb.InvalidArgument)
    assert "read by a view of another user" in told and "hush" not in told
    # Nor in what it is taken by.
    for kind, sql in (("table", f"CREATE TABLE {namespace}.taken (n INT)"), ("view", f"CREATE VIEW {namespace}.taken AS SELECT 1 AS n")):
        svc.run("BEGIN")
        svc.run(f"CREATE TABLE {namespace}.taken (n INT)")
        vic.run(sql)
        told = refused(svc, "COMMIT", seracdb.AlreadyExists)
        assert f"'{namespace}.taken' exists already" in told and kind not in told
        vic.run(f"DROP {kind} {namespace}.taken")


def test_hidden_views_are_not_named_for_nesting_too_deep(db, users, namespace):
    svc, vic = users.make("svc", "service"), users.make("vic", "service")
    svc.run(f"CREATE VIEW {namespace}.base AS SELECT 1 AS n")
    svc.run(f"CREATE VIEW {namespace}.other AS SELECT 1 AS n")
    svc.run(f"GRANT SELECT ON {namespace}.base TO {users.name('vic')}")
    below = "base"
    for level in range(31):
        vic.run(f"CREATE VIEW {namespace}.hush{level} AS SELECT n FROM {namespace}.{below}")
        below = f"hush{level}"
    told = refused(svc, f"CREATE OR REPLACE VIEW {namespace}.base AS SELECT n FROM {namespace}.other", seracdb.InvalidArgument)
    assert "a view of another user" in told and "hush" not in told
    told = refused(vic, f"CREATE VIEW {namespace}.more AS SELECT n FROM {namespace}.{below}", seracdb.InvalidArgument)
    assert f"'{namespace}.more'" in told and "32" in told
