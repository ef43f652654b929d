"""AS USER: a service acts for a user, with that one's rows and rights, and every time is in the audit log."""

from __future__ import annotations

import time

import adbc_driver_flightsql.dbapi as flightsql
import pyarrow as pa
import pytest
import seracdb
from conftest import root
from impersonation import DENIED, NOBODY, PASSWORD, SHARED, audit, fill, shown
from test_manifests import until
from testserver import Server

@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "data") as running:
        fill(running)
        yield running


@pytest.fixture
def as_(server):
    """Opens connections of users."""
    opened = []

    def open_one(user: str) -> seracdb.Connection:
        connection = root(server) if user == "root" else seracdb.connect(server.uri, user, PASSWORD)
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


def notes(db: seracdb.Connection) -> list[tuple]:
    return [(row["n"], row["text"]) for row in db.query("SELECT n, text FROM app.notes ORDER BY n").to_pylist()]


def refused(db: seracdb.Connection, sql: str, text: str) -> None:
    with pytest.raises(seracdb.Error) as caught:
        db.query(sql) if sql.startswith("EXECUTE AS USER") and "SELECT" in sql else db.run(sql)
    # Verbatim, whatever the driver puts around it.
    assert text in str(caught.value)


@pytest.mark.parametrize("role", ["service", "admin"])
def test_a_service_writes_and_changes_the_rows_of_a_user(as_, role):
    service, ann, bob = as_(f"the_{role}"), as_("ann"), as_("bob")
    assert service.run("INSERT INTO app.notes AS USER 'ann' VALUES (1, 'one'), (2, 'two')") == 2
    assert service.run("INSERT INTO app.notes AS USER 'ann' (text, n) SELECT 'three', 3") == 1
    assert service.run("INSERT INTO app.notes VALUES (9, 'own')") == 1
    assert notes(ann) == [(1, "one"), (2, "two"), (3, "three")]
    assert service.run("UPDATE app.notes AS USER 'ann' SET text = 'changed' WHERE n = 1") == 1
    assert service.run("DELETE FROM app.notes AS USER 'ann' WHERE n = 2") == 1
    assert service.run("UPDATE app.notes AS USER 'ann' SET text = 'x' WHERE n = 9") == 0
    assert notes(ann) == [(1, "changed"), (3, "three")]
    assert notes(bob) == []
    assert notes(service) == [(9, "own")]
    assert service.run("INSERT INTO app.events AS USER 'ann' VALUES (5)") == 1
    assert ann.query("SELECT n FROM app.events").to_pylist() == [{"n": 5}]
    found = audit(as_("root"))
    actor = f"the_{role}"
    assert shown(found) == [
        (actor, "ann", "INSERT", "app.notes", 2, "committed"),
        (actor, "ann", "INSERT", "app.notes", 1, "committed"),
        (actor, "ann", "UPDATE", "app.notes", 1, "committed"),
        (actor, "ann", "DELETE", "app.notes", 1, "committed"),
        (actor, "ann", "UPDATE", "app.notes", 0, "committed"),
        (actor, "ann", "INSERT", "app.events", 1, "committed"),
    ]
    for row in found:
        assert (row["actor_role"], row["subject_role"], row["origin"]) == (role, "user", "sql")
        assert row["session_id"] and row["statement_fingerprint"]
    assert len({row["session_id"] for row in found}) == 1
    assert [row["audit_id"] for row in found] == sorted(row["audit_id"] for row in found)


def test_rows_of_a_user_are_changed_in_files_too(as_):
    service, ann, db = as_("the_service"), as_("ann"), as_("root")
    service.run("INSERT INTO app.notes AS USER 'ann' SELECT value, 'cold' FROM generate_series(1, 100)")
    service.run("INSERT INTO app.notes AS USER 'bob' SELECT value, 'of bob' FROM generate_series(1, 100)")
    db.run("STORAGE FLUSH TABLE app.notes")
    service.run("UPDATE app.notes AS USER 'ann' SET text = 'changed' WHERE n <= 10")
    service.run("DELETE FROM app.notes AS USER 'ann' WHERE n > 20")
    assert notes(ann) == [(n, "changed" if n <= 10 else "cold") for n in range(1, 21)]
    assert {text for _, text in notes(as_("bob"))} == {"of bob"}


def test_one_statement_for_a_user(as_):
    service, ann = as_("the_service"), as_("ann")
    assert service.run("EXECUTE AS USER 'ann' (INSERT INTO app.notes VALUES (1, 'one'))") == 1
    assert service.run("EXECUTE AS USER 'ann' (UPDATE app.notes SET text = 'two')") == 1
    assert service.query("EXECUTE AS USER 'ann' (SELECT text FROM app.notes)").to_pylist() == [{"text": "two"}]
    plan = service.query("EXECUTE AS USER 'ann' (EXPLAIN ANALYZE SELECT count(*) FROM app.notes)")
    assert "output_rows" in str(plan.to_pylist())
    assert service.run("EXECUTE AS USER 'ann' (DELETE FROM app.notes)") == 1
    assert notes(ann) == []
    assert shown(audit(as_("root"))) == [
        ("the_service", "ann", "INSERT", "app.notes", 1, "committed"),
        ("the_service", "ann", "UPDATE", "app.notes", 1, "committed"),
        ("the_service", "ann", "SELECT", "app.notes", None, "allowed"),
        ("the_service", "ann", "EXPLAIN", "app.notes", None, "allowed"),
        ("the_service", "ann", "DELETE", "app.notes", 1, "committed"),
    ]


STATEMENTS = [
    "INSERT INTO app.{table} AS USER '{user}' (n) VALUES (1)",
    "INSERT INTO app.{table} AS USER '{user}' (n) SELECT 1",
    "UPDATE app.{table} AS USER '{user}' SET n = 2 WHERE n = 1",
    "DELETE FROM app.{table} AS USER '{user}' WHERE n = 1",
    "EXECUTE AS USER '{user}' (SELECT * FROM app.{table})",
    "EXECUTE AS USER '{user}' (DELETE FROM app.{table})",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_is_refused_and_noted(as_, statement):
    db, ann, service, admin = as_("root"), as_("ann"), as_("the_service"), as_("the_admin")
    db.run(f"CREATE USER gone WITH PASSWORD '{PASSWORD}' ROLE user")
    db.run("DROP USER gone")
    before = len(audit(db))

    def on(user: str, table: str = "notes") -> str:
        return statement.format(user=user, table=table)

    refused(ann, on("bob"), DENIED)
    refused(ann, on("ann"), DENIED)
    refused(ann, on("nobody"), DENIED)
    refused(service, on("the_admin"), DENIED)
    refused(admin, on("root"), DENIED)
    refused(service, on("nobody"), NOBODY)
    refused(service, on("gone"), NOBODY)
    refused(service, on(""), NOBODY)
    refused(service, on("ANN"), NOBODY)
    refused(service, on("ann", "common"), SHARED)
    found = audit(db)[before:]
    assert [(row["actor_user_id"], row["subject_user_id"]) for row in found] == [
        ("ann", "bob"),
        ("ann", "ann"),
        ("ann", "nobody"),
        ("the_service", "the_admin"),
        ("the_admin", "root"),
        ("the_service", "nobody"),
        ("the_service", "gone"),
        ("the_service", ""),
        ("the_service", "ANN"),
        ("the_service", "ann"),
    ]
    assert [row["outcome"] for row in found[:9]] == ["denied"] * 9
    assert found[9]["outcome"] == "failed"
    assert db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist() == [{"n": 0}]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("INSERT INTO app.notes AS USER ann VALUES (1, 'x')", "a user's name in quotes"),
        ("INSERT INTO app.notes AS USER ? VALUES (1, 'x')", "a user's name in quotes"),
        ("EXECUTE AS USER 'ann' SELECT 1", "write EXECUTE AS USER 'name' (statement)"),
        ("EXECUTE AS USER 'ann' (SELECT 1; SELECT 2)", "a second statement begins"),
        ("EXECUTE AS USER 'ann' (DROP TABLE app.notes)", "AS USER is possible for a SELECT, INSERT, UPDATE, DELETE or MERGE only"),
        ("EXECUTE AS USER 'ann' (CREATE USER x WITH PASSWORD 'secret enough' ROLE admin)", "AS USER is possible"),
        ("EXECUTE AS USER 'ann' (BEGIN)", "AS USER is possible"),
        ("EXECUTE AS USER 'ann' (EXECUTE AS USER 'bob' (SELECT 1))", "EXECUTE"),
        ("EXECUTE AS USER 'ann' (DELETE FROM app.notes AS USER 'bob')", "given twice"),
    ],
)
def test_what_is_no_statement_for_a_user(as_, sql, text):
    with pytest.raises(seracdb.Error) as caught:
        as_("the_admin").run(sql)
    assert text in str(caught.value)


def test_prepared_and_in_batches(as_, server):
    service, ann, db = as_("the_service"), as_("ann"), as_("root")
    rows = pa.table({"n": pa.array(range(100), pa.int64()), "text": ["x"] * 100})
    assert service.run("INSERT INTO app.notes AS USER 'ann' (n, text) VALUES (?, ?)", rows) == 100
    changes = pa.table({"text": ["a", "b", "c"], "n": pa.array([1, 2, 3], pa.int64())})
    assert service.run("UPDATE app.notes AS USER 'ann' SET text = ? WHERE n = ?", changes) == 3
    assert notes(ann)[:5] == [(0, "x"), (1, "a"), (2, "b"), (3, "c"), (4, "x")]
    wanted = service.query("EXECUTE AS USER 'ann' (SELECT text FROM app.notes WHERE n = ?)", [2])
    assert wanted.to_pylist() == [{"text": "b"}]
    # One entry a run, with all its rows.
    assert shown(audit(db)) == [
        ("the_service", "ann", "INSERT", "app.notes", 100, "committed"),
        ("the_service", "ann", "UPDATE", "app.notes", 3, "committed"),
        ("the_service", "ann", "SELECT", "app.notes", None, "allowed"),
    ]


def test_a_prepared_statement_is_checked_each_time_it_runs(as_, server):
    db = as_("root")
    options = {"username": "the_service", "password": PASSWORD}
    with flightsql.connect(server.uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
        sql = "INSERT INTO app.notes AS USER 'ann' (n) VALUES (?)"
        cursor.adbc_prepare(sql)
        cursor.executemany(sql, [(1,), (2,)])
        db.run("DROP USER ann")
        for _ in range(2):
            with pytest.raises(flightsql.Error, match=NOBODY):
                cursor.executemany(sql, [(3,)])
    assert db.query("SELECT count(*) AS n FROM all_users('app.notes')").to_pylist() == [{"n": 2}]
    assert [row["outcome"] for row in audit(db)] == ["committed", "denied", "denied"]


def test_a_role_that_was_taken_away_is_gone(as_):
    db, service = as_("root"), as_("the_service")
    assert service.run("INSERT INTO app.notes AS USER 'ann' (n) VALUES (1)") == 1
    db.run("ALTER USER the_service SET ROLE user")
    with pytest.raises(seracdb.Error):
        service.run("INSERT INTO app.notes AS USER 'ann' (n) VALUES (1)")
    again = as_("the_service")
    refused(again, "INSERT INTO app.notes AS USER 'ann' (n) VALUES (1)", DENIED)
    assert notes(as_("ann")) == [(1, None)]


def test_in_a_transaction_it_is_staged_and_then_committed_or_rolled_back(as_):
    service, ann, db = as_("the_service"), as_("ann"), as_("root")
    service.run("BEGIN")
    service.run("INSERT INTO app.notes AS USER 'ann' VALUES (1, 'one')")
    assert service.query("EXECUTE AS USER 'ann' (SELECT n FROM app.notes)").to_pylist() == [{"n": 1}]
    service.run("SAVEPOINT s")
    service.run("INSERT INTO app.notes AS USER 'bob' VALUES (2, 'two')")
    assert shown(audit(db)) == [
        ("the_service", "ann", "INSERT", "app.notes", 1, "staged"),
        ("the_service", "ann", "SELECT", "app.notes", None, "allowed"),
        ("the_service", "bob", "INSERT", "app.notes", 1, "staged"),
    ]
    assert notes(ann) == []
    service.run("ROLLBACK TO s")
    assert shown(audit(db))[3:] == [("the_service", "bob", "INSERT", "app.notes", 1, "rolled back")]
    service.run("COMMIT")
    assert shown(audit(db))[4:] == [("the_service", "ann", "INSERT", "app.notes", 1, "committed")]
    assert (notes(ann), notes(as_("bob"))) == ([(1, "one")], [])
    service.run("BEGIN")
    service.run("DELETE FROM app.notes AS USER 'ann'")
    service.run("ROLLBACK")
    assert [row[5] for row in shown(audit(db))[5:]] == ["staged", "rolled back"]
    # Whoever goes away has rolled back too.
    leaver = as_("the_service")
    leaver.run("BEGIN")
    leaver.run("DELETE FROM app.notes AS USER 'ann'")
    leaver.close()
    until(lambda: [row[5] for row in shown(audit(db))[7:]] == ["staged", "rolled back"], "the end of the session is noted")
    assert notes(ann) == [(1, "one")]


def test_a_lost_conflict_is_noted(as_):
    service, ann, db = as_("the_service"), as_("ann"), as_("root")
    ann.run("INSERT INTO app.notes VALUES (1, 'one')")
    service.run("BEGIN")
    service.run("UPDATE app.notes AS USER 'ann' SET text = 'of the service'")
    ann.run("UPDATE app.notes SET text = 'of ann'")
    with pytest.raises(seracdb.Error, match="changed by another commit"):
        service.run("COMMIT")
    assert [row[5] for row in shown(audit(db))] == ["staged", "rolled back"]
    assert notes(ann) == [(1, "of ann")]


def test_only_admins_read_the_log_and_nobody_changes_it(as_):
    db = as_("root")
    as_("the_service").run("INSERT INTO app.notes AS USER 'ann' VALUES (1, 'a secret')")
    assert audit(as_("the_admin")) == audit(db) != []
    for user in ["ann", "the_service"]:
        with pytest.raises(seracdb.PermissionDenied, match="requires the role admin"):
            audit(as_(user))
    for sql in [
        "DELETE FROM system.audit_log",
        "UPDATE system.audit_log SET rows = 0",
        "INSERT INTO system.audit_log (audit_id) VALUES (1)",
        "DROP TABLE system.audit_log",
    ]:
        with pytest.raises(seracdb.Error):
            db.run(sql)
    text = str(audit(db, "true"))
    assert "a secret" not in text and PASSWORD not in text


def test_changes_of_tables_and_users_are_in_the_log(as_):
    db = as_("root")
    db.run("CREATE VIEW app.v AS SELECT n FROM app.common")
    db.run("COMMENT ON TABLE app.common IS 'shared'")
    db.run("DROP VIEW app.v")
    db.run("BEGIN")
    db.run("CREATE TABLE app.more (n BIGINT)")
    db.run("ROLLBACK")
    db.run("CREATE TEMPORARY TABLE mine (n BIGINT)")
    with pytest.raises(seracdb.Error):
        db.run("CREATE TABLE app.common (n BIGINT)")
    db.ingest("app.loaded", pa.table({"n": [1, 2]}), mode="create")
    names = ["actor_user_id", "action", "target", "outcome", "origin"]
    found = [tuple(row[name] for name in names) for row in audit(db, "subject_user_id IS NULL")]
    assert found[0][1:] == ("CREATE USER", "root ROLE system", "committed", "start")
    assert found[-6:] == [
        ("root", "CREATE VIEW", "app.v", "committed", "sql"),
        ("root", "COMMENT", "app.common", "committed", "sql"),
        ("root", "DROP VIEW", "app.v", "committed", "sql"),
        ("root", "CREATE TABLE", "app.more", "staged", "sql"),
        ("root", "CREATE TABLE", "app.more", "rolled back", "sql"),
        ("root", "CREATE TABLE", "app.loaded", "committed", "ingest"),
    ]
    assert ("root", "CREATE USER", "ann ROLE user", "committed", "sql") in found


def test_refused_logins_are_in_the_log_with_where_they_came_from(server, as_):
    db = as_("root")
    for user in ["ann", "nobody"]:
        with pytest.raises(seracdb.Unauthenticated):
            seracdb.connect(server.uri, user, "not the password").query("SELECT 1")
    (token,) = db.query("CREATE TOKEN mine").to_pylist()
    forged = token["token"][:-8] + ("0" * 8 if token["token"][-8:] != "0" * 8 else "1" * 8)
    options = {"adbc.flight.sql.authorization_header": f"Bearer {forged}"}
    with pytest.raises(flightsql.Error):
        with flightsql.connect(server.uri, db_kwargs=options, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    found = audit(db, "action = 'LOGIN'")
    assert {row["actor_user_id"] for row in found} >= {"ann", "nobody"} and len({row["actor_user_id"] for row in found}) == 3
    for row in found:
        assert (row["origin"], row["outcome"], row["actor_role"], row["session_id"]) == ("login", "denied", None, None)
        assert row["peer"] == "127.0.0.1"
    assert {row["target"].split(":")[0] for row in found} == {"wrong user name or password", "API token"}
    assert "not the password" not in str(found) and forged not in str(found)
    # What a session does has its client's address too.
    as_("the_service").run("INSERT INTO app.notes AS USER 'ann' VALUES (1, 'x')")
    assert [row["peer"] for row in audit(db)] == ["127.0.0.1"]


def test_current_user_is_who_it_is_done_for(as_):
    """Each of them twice: plans are kept, and each is of one user and one who acts."""
    insert = "INSERT INTO app.notes AS USER 'ann' (n, text) VALUES (1, current_user || ' by ' || session_user) RETURNING text"
    look = "SELECT current_user, session_user"
    for name in ["the_service", "the_admin"] * 2:
        db = as_(name)
        assert db.query(insert).to_pylist() == [{"text": f"ann by {name}"}]
        assert db.query(look).to_pylist() == [{"current_user": name, "session_user": name}]
    ann = as_("ann")
    assert ann.query(look).to_pylist() == [{"current_user": "ann", "session_user": "ann"}]
    assert ann.query("SELECT count(*) AS n FROM app.notes WHERE text LIKE current_user || '%'")["n"].to_pylist() == [4]
