"""Rights on shared tables and views: none that was not given, whatever way one takes, and none that was revoked."""

from __future__ import annotations

import re
import threading
from itertools import chain

import grpc
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import seracdb
from raw_grpc import Caller, basic
from rawflight import statement
from test_manifests import until
from wire import field, packed, parse, unpack

PASSWORD = "a quiet pass phrase"
HIDDEN = "(or you have no right to it)"


class Users:
    """Users of one test, and what is told to them."""

    def __init__(self, connect, db, namespace):
        self.connect, self.db, self.namespace = connect, db, namespace

    def make(self, name: str, role: str = "user") -> seracdb.Connection:
        self.db.run(f"CREATE USER {self.name(name)} WITH PASSWORD '{PASSWORD}' ROLE {role}")
        return self.again(name)

    def again(self, name: str) -> seracdb.Connection:
        connection = self.connect(self.name(name), PASSWORD)
        connection.run(f"USE {self.namespace}")
        return connection

    def name(self, name: str) -> str:
        return f"{self.namespace}_{name}"


@pytest.fixture
def users(connect, db, namespace) -> Users:
    db.run(f"USE {namespace}")
    return Users(connect, db, namespace)


@pytest.fixture
def secret(db, users):
    """A shared table of root's with two rows, and a view over it."""
    db.run("CREATE TABLE secret (id INT, text TEXT)")
    db.run("INSERT INTO secret VALUES (1, 'one'), (2, 'two')")
    db.run("CREATE VIEW seen AS SELECT id, upper(text) AS text FROM secret")
    return f"{users.namespace}.secret"


def refused(connection, sql: str, error: type[Exception]) -> str:
    with pytest.raises(error) as why:
        connection.run(sql)
    return str(why.value)


def column(connection, sql: str) -> list:
    return connection.query(sql).column(0).to_pylist()


STATEMENTS = [
    "SELECT * FROM {t}",
    "SELECT count(*) FROM {t}",
    "SELECT min(id) FROM {t}",
    "TABLE {t}",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM {t})",
    "SELECT 1 / (id - 5) FROM {t}",
    "WITH x AS (SELECT * FROM {t}) SELECT * FROM x",
    "SELECT 1 UNION SELECT id FROM {t}",
    "SELECT a.n FROM unrelated_numbers a JOIN {t} b ON a.n = b.id",
    "SELECT (SELECT max(id) FROM {t})",
    "INSERT INTO {t} VALUES (3, 'three')",
    "INSERT INTO {t} SELECT * FROM {t}",
    "INSERT INTO unrelated_numbers SELECT id FROM {t}",
    "UPDATE {t} SET id = 1",
    "UPDATE unrelated_numbers SET n = (SELECT max(id) FROM {t})",
    "UPDATE unrelated_numbers SET n = s.id FROM {t} AS s",
    "UPDATE {t} SET id = u.n FROM unrelated_numbers AS u",
    "DELETE FROM {t}",
    "DELETE FROM unrelated_numbers USING {t} AS s WHERE s.id = n",
    "TRUNCATE {t}",
    "DELETE FROM unrelated_numbers WHERE n IN (SELECT id FROM {t})",
    "EXPLAIN SELECT * FROM {t}",
    "EXPLAIN ANALYZE SELECT * FROM {t}",
    "EXPLAIN DELETE FROM {t}",
    "DESCRIBE {t}",
    "SHOW COLUMNS FROM {t}",
    "SHOW MANIFEST FOR {t}",
]
OF_SERVICES = [
    "DROP TABLE {t}",
    "DROP VIEW {v}",
    "COMMENT ON TABLE {t} IS 'x'",
    "COMMENT ON COLUMN {t}.id IS 'x'",
    "COMMENT ON VIEW {v} IS 'x'",
    "CREATE INDEX i ON {t} (id)",
    "DROP INDEX {i}",
    "STORAGE FLUSH TABLE {t}",
    "STORAGE COMPACT TABLE {t}",
    "STORAGE CHECK TABLE {t}",
    "GRANT SELECT ON {t} TO root",
    "REVOKE SELECT ON {t} FROM root",
    "CREATE VIEW mine AS SELECT * FROM {t}",
    "CREATE VIEW mine AS SELECT * FROM {v}",
]


@pytest.mark.parametrize("role", ["user", "service"])
def test_what_one_has_no_right_to_is_not_there(db, users, secret, role):
    db.run("CREATE USER TABLE unrelated_numbers (n INT)")
    db.run("CREATE INDEX by_id ON secret (id)")
    ann = users.make("ann", role)
    statements = list(STATEMENTS) + [sql.replace("{t}", "{v}") for sql in STATEMENTS if "{t}" in sql]
    if role == "service":
        statements += OF_SERVICES
    for sql in statements:
        for prefix in ("", f"{users.namespace}."):
            def told(t: str, v: str, i: str) -> str:
                return refused(ann, sql.format(t=prefix + t, v=prefix + v, i=prefix + i), seracdb.NotFound)  # noqa: B023

            there = told("secret", "seen", "by_id")
            not_there = told("absent", "vanished", "by_none")
            for absent, present in (("absent", "secret"), ("vanished", "seen"), ("by_none", "by_id")):
                not_there = not_there.replace(absent, present)
            assert there == not_there, sql
            assert HIDDEN in there or "index" in there, there
        if role == "service" and sql.startswith(("DROP TABLE", "DROP VIEW", "DROP INDEX")):
            kind, name = sql.split()[1:]
            assert ann.run(f"DROP {kind} IF EXISTS {name.format(t='secret', v='seen', i='by_id')}") == 0
    assert column(db, "SELECT id FROM secret ORDER BY id") == [1, 2]
    assert column(db, "SELECT id FROM seen ORDER BY id") == [1, 2]


def listed(connection, namespace: str) -> set[str]:
    """The tables and views of a namespace that anything tells of."""
    objects = connection.adbc_get_objects(depth="all", db_schema_filter=namespace).read_all().to_pylist()
    schemas = chain.from_iterable(entry["catalog_db_schemas"] or [] for entry in objects)
    found = {table["table_name"] for schema in schemas for table in schema["db_schema_tables"] or []}
    for table in ("tables", "columns", "views"):
        sql = f"SELECT table_name FROM information_schema.{table} WHERE table_schema = '{namespace}'"
        found |= set(column(connection, sql))
    for table in ("batches", "indexes"):
        found |= set(column(connection, f'SELECT "table" FROM system.{table} WHERE namespace = \'{namespace}\''))
    found |= set(connection.query(f"SHOW TABLES IN {namespace}")["table"].to_pylist())
    cache = connection.query("SHOW MANIFEST CACHE").to_pylist()
    return found | {entry["table"] for entry in cache if entry["namespace"] == namespace}


def test_what_one_has_no_right_to_is_listed_nowhere(db, users, secret):
    namespace = users.namespace
    db.run("CREATE INDEX by_id ON secret (id)")
    db.run("CREATE USER TABLE own (n INT)")
    db.run("STORAGE FLUSH TABLE secret")
    everything = {"secret", "seen", "own"}
    ann, svc, adm = users.make("ann"), users.make("svc", "service"), users.make("adm", "admin")
    assert [listed(user, namespace) for user in (ann, svc, adm, db)] == [{"own"}, {"own"}, everything, everything]
    # Nor is it what was probably meant.
    assert "did you mean 'secret'" in refused(adm, "SELECT * FROM secre", seracdb.NotFound)
    assert "did you mean" not in refused(ann, "SELECT * FROM secre", seracdb.NotFound)
    db.run(f"GRANT SELECT ON secret TO {users.name('ann')}")
    assert (listed(ann, namespace), listed(svc, namespace)) == ({"own", "secret"}, {"own"})
    assert "did you mean 'secret'" in refused(ann, "SELECT * FROM secre", seracdb.NotFound)
    db.run(f"REVOKE SELECT ON secret FROM {users.name('ann')}")
    assert listed(ann, namespace) == {"own"}
    # Who may only write learns of the table, and nothing of what is in it.
    db.run(f"GRANT INSERT ON secret TO {users.name('ann')}")
    assert "secret" in listed(ann, namespace)
    assert column(ann, f"SELECT \"table\" FROM system.batches WHERE namespace = '{namespace}'") == []
    assert "no right to SELECT" in refused(ann, "SHOW MANIFEST FOR secret", seracdb.PermissionDenied)


def test_each_right_is_needed_for_what_it_is(db, users, secret):
    ann, name = users.make("ann"), users.name("ann")
    statements = {
        "SELECT": ["SELECT * FROM secret", "SELECT count(*) FROM secret", "EXPLAIN SELECT 1 FROM secret"],
        "INSERT": ["INSERT INTO secret VALUES (3, 'three')", "EXPLAIN INSERT INTO secret (id) VALUES (4)"],
        "UPDATE": ["UPDATE secret SET text = 'x'", "UPDATE secret SET text = DEFAULT, id = 7", "EXPLAIN UPDATE secret SET id = 1"],
        "DELETE": ["DELETE FROM secret", "EXPLAIN DELETE FROM secret"],
    }
    for right in statements:
        db.run(f"GRANT {right} ON TABLE secret TO '{name}'")
        for needed, texts in statements.items():
            for sql in texts:
                if needed == right:
                    ann.run(sql)
                    continue
                told = refused(ann, sql, seracdb.PermissionDenied)
                assert f"no right to {needed} on table '{secret}'" in told, told
                assert f"GRANT {needed} ON {secret} TO '{name}'" in told
        assert ann.query("DESCRIBE secret").num_rows == 5
        db.run(f"REVOKE {right} ON secret FROM {name}")
    # What the error says to do is what helps.
    db.run(f"GRANT INSERT ON secret TO {name}")
    told = refused(ann, "SELECT * FROM secret", seracdb.PermissionDenied)
    db.run(re.search(r"GRANT .* TO '[^']*'", told)[0])
    ann.query("SELECT * FROM secret")


def test_there_is_no_name_that_is_read_without_a_right(db, users, secret):
    """UPDATE and DELETE find their own target under a name that clients cannot say."""
    ann = users.make("ann")
    db.run(f"GRANT INSERT, UPDATE, DELETE ON secret TO {users.name('ann')}")
    own = f'"seracdb target".{secret}'
    for sql in (
        f"SELECT * FROM {own}",
        f"INSERT INTO secret SELECT id, text FROM {own}",
        f"UPDATE secret SET id = (SELECT max(id) FROM {own})",
        f"SELECT * FROM (SELECT * FROM {own}) AS x",
    ):
        for connection in (ann, db):
            assert "cannot be a name" in refused(connection, sql, seracdb.InvalidArgument)
    for catalog in ("view", "target", "seracdb_target", "datafusion"):
        assert "unknown catalog" in refused(ann, f'SELECT * FROM "{catalog}".{secret}', seracdb.NotFound)


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("UPDATE secret SET id = 1", False),
        ("UPDATE secret SET id = 1 + 1, text = upper('x')", False),
        ("UPDATE secret SET id = id + 1", True),
        ("UPDATE secret SET id = 1 WHERE id = 2", True),
        ("UPDATE secret SET id = 1 WHERE true", True),
        ("UPDATE secret SET text = CASE WHEN secret.id = 1 THEN 'x' ELSE 'y' END", True),
        ("UPDATE secret SET id = v.n FROM (VALUES (1)) AS v (n)", True),
        ("DELETE FROM secret", False),
        ("TRUNCATE secret", False),
        ("DELETE FROM secret USING (VALUES (1)) AS v (n)", True),
        ("DELETE FROM secret WHERE id = 1", True),
        ("DELETE FROM secret WHERE EXISTS (SELECT 1)", True),
    ],
)
def test_who_looks_at_rows_before_changing_them_needs_to_read_them(db, users, secret, sql, reads):
    ann, name = users.make("ann"), users.name("ann")
    db.run(f"GRANT UPDATE, DELETE ON secret TO {name}")
    if reads:
        assert "no right to SELECT" in refused(ann, sql, seracdb.PermissionDenied)
        assert column(db, "SELECT text FROM secret ORDER BY id") == ["one", "two"]
        db.run(f"GRANT SELECT ON secret TO {name}")
    assert ann.run(sql) > 0


def test_parameters_and_ingests_need_the_right_too(db, users, secret):
    ann, name = users.make("ann"), users.name("ann")
    rows = pa.table({"id": pa.array([5], pa.int32()), "text": ["five"]})
    insert = ("INSERT INTO secret VALUES (?, ?)", [5, "five"])
    for mode in ("append", "replace", "create", "create_append"):
        error = seracdb.NotFound if mode == "append" else seracdb.PermissionDenied
        with pytest.raises(error):
            ann.ingest(secret, rows, mode=mode)
    with pytest.raises(seracdb.NotFound):
        ann.run(*insert)
    db.run(f"GRANT SELECT ON secret TO {name}")
    for mode in ("append", "replace"):
        with pytest.raises(seracdb.PermissionDenied):
            ann.ingest(secret, rows, mode=mode)
    with pytest.raises(seracdb.PermissionDenied):
        ann.run(*insert)
    db.run(f"GRANT INSERT ON secret TO {name}")
    assert ann.ingest(secret, rows, mode="append") == 1
    assert ann.run(*insert) == 1
    svc = users.make("svc", "service")
    for mode in ("replace", "create", "create_append"):
        with pytest.raises(seracdb.AlreadyExists):
            svc.ingest(secret, rows, mode=mode)
    db.run(f"GRANT ALL ON secret TO {users.name('svc')}")
    with pytest.raises(seracdb.PermissionDenied, match="another user's"):
        svc.ingest(secret, rows, mode="replace")
    assert column(db, "SELECT id FROM secret ORDER BY id") == [1, 2, 5, 5]


def test_roles_and_namespaces(db, users, secret):
    ann, svc = users.make("ann"), users.make("svc", "service")
    sql = "SELECT id FROM secret ORDER BY id"
    for to, expected in (("user", [True, True]), ("service", [False, True]), ("admin", [False, False])):
        for on in (f"TABLE {secret}", f"NAMESPACE {users.namespace}", f"SCHEMA {users.namespace}"):
            db.run(f"GRANT SELECT ON {on} TO ROLE {to}")
            for user, allowed in zip((ann, svc), expected, strict=True):
                if allowed:
                    assert column(user, sql) == [1, 2]
                else:
                    refused(user, sql, seracdb.NotFound)
            db.run(f"REVOKE ALL ON {on} FROM ROLE {to}")
            for user in (ann, svc):
                refused(user, sql, seracdb.NotFound)
    # A namespace's grants reach tables that come later, and no other namespace.
    db.run(f"GRANT ALL PRIVILEGES ON NAMESPACE {users.namespace} TO {users.name('ann')}, ROLE service")
    db.run("CREATE TABLE later (n INT)")
    assert ann.run("INSERT INTO later VALUES (1)") == 1 and svc.run("DELETE FROM later WHERE n = 1") == 1
    assert column(ann, "SELECT id FROM seen ORDER BY id") == [1, 2]
    # Who has a right in two ways keeps it when one is revoked.
    db.run(f"GRANT SELECT ON secret TO {users.name('ann')}")
    db.run(f"REVOKE ALL ON NAMESPACE {users.namespace} FROM {users.name('ann')}")
    assert column(ann, sql) == [1, 2]
    refused(ann, "DELETE FROM secret", seracdb.PermissionDenied)


def test_owners_and_who_may_grant(db, users, connect):
    svc, other, ann, adm = (users.make(*user) for user in (("svc", "service"), ("other", "service"), ("ann",), ("adm", "admin")))
    svc.run("CREATE TABLE made (n INT)")
    svc.run("INSERT INTO made VALUES (1)")
    refused(other, "SELECT * FROM made", seracdb.NotFound)
    svc.run(f"GRANT SELECT ON made TO {users.name('other')}, {users.name('ann')}")
    assert column(other, "SELECT n FROM made") == column(ann, "SELECT n FROM made") == [1]
    for connection in (other, ann):
        for sql in (f"GRANT INSERT ON made TO {users.name('ann')}", f"REVOKE SELECT ON made FROM {users.name('ann')}"):
            assert "another user's" in refused(connection, sql, seracdb.PermissionDenied)
    for sql in ("DROP TABLE made", "COMMENT ON TABLE made IS 'x'", "COMMENT ON COLUMN made.n IS 'x'", "CREATE INDEX ON made (n)",
                "STORAGE FLUSH TABLE made", "STORAGE COMPACT TABLE made", "STORAGE CHECK TABLE made"):  # fmt: skip
        assert "another user's" in refused(other, sql, seracdb.PermissionDenied), sql
        adm.run(sql if not sql.startswith("DROP") else "COMMENT ON TABLE made IS 'of adm'")
    adm.run(f"GRANT INSERT ON made TO {users.name('ann')}")
    adm.run(f"REVOKE SELECT ON made FROM {users.name('other')}")
    assert ann.run("INSERT INTO made VALUES (2)") == 1
    refused(other, "SELECT n FROM made", seracdb.NotFound)
    # A namespace's owner owns what is in it.
    other.run(f"CREATE NAMESPACE {users.namespace}_of_other")
    svc.run(f"CREATE TABLE {users.namespace}_of_other.t (n INT)")
    other.run(f"INSERT INTO {users.namespace}_of_other.t VALUES (1)")
    other.run(f"GRANT SELECT ON NAMESPACE {users.namespace}_of_other TO ROLE user")
    assert column(ann, f"SELECT n FROM {users.namespace}_of_other.t") == [1]
    for sql in (f"DROP NAMESPACE {users.namespace}_of_other CASCADE", f"COMMENT ON NAMESPACE {users.namespace}_of_other IS 'x'",
                f"GRANT SELECT ON NAMESPACE {users.namespace}_of_other TO ROLE user"):  # fmt: skip
        assert "another user's" in refused(svc, sql, seracdb.PermissionDenied)
    other.run(f"DROP NAMESPACE {users.namespace}_of_other CASCADE")
    # User tables are open to all, and changed by their owner.
    svc.run("CREATE USER TABLE notes (note TEXT)")
    assert (ann.run("INSERT INTO notes VALUES ('of ann')"), column(ann, "SELECT note FROM notes")) == (1, ["of ann"])
    assert "no shared table" in refused(svc, f"GRANT SELECT ON notes TO {users.name('ann')}", seracdb.InvalidArgument)
    assert "another user's" in refused(other, "DROP TABLE notes", seracdb.PermissionDenied)
    svc.run("DROP TABLE notes")


def test_a_view_needs_rights_on_it_and_on_what_it_reads(db, users, secret):
    ann, name = users.make("ann"), users.name("ann")
    db.run("CREATE VIEW over AS SELECT text FROM seen WHERE id = 1")
    sql = "SELECT text FROM over"
    steps = [("over", "reads what you may not"), ("seen", "reads what you may not"), ("secret", None)]
    assert HIDDEN in refused(ann, sql, seracdb.NotFound)
    for on, told in steps:
        db.run(f"GRANT SELECT ON {on} TO {name}")
        if told:
            text = refused(ann, sql, seracdb.PermissionDenied)
            assert told in text and "secret" not in text
    assert column(ann, sql) == ["ONE"]
    for on, _ in steps:
        db.run(f"REVOKE SELECT ON {'VIEW ' if on != 'secret' else ''}{on} FROM {name}")
        text = refused(ann, sql, seracdb.Error)
        assert ("secret" in text) is False
        db.run(f"GRANT SELECT ON {on} TO {name}")
        assert column(ann, sql) == ["ONE"]
    # Who reads a view reads not how it is made.
    definition = "SELECT view_definition FROM information_schema.views WHERE table_name = 'over'"
    assert column(ann, f"{definition} AND table_schema = '{users.namespace}'") == [None]
    assert column(db, f"{definition} AND table_schema = '{users.namespace}'") == ["SELECT text FROM seen WHERE id = 1"]
    assert "can only be read" in refused(db, f"GRANT INSERT ON seen TO {name}", seracdb.InvalidArgument)
    db.run(f"GRANT ALL ON seen TO {name}")
    # Another's view is not replaced, nor is it told of.
    svc = users.make("svc", "service")
    for name in ("seen", "over"):
        assert "exists already" in refused(svc, f"CREATE OR REPLACE VIEW {name} AS SELECT 1 AS x", seracdb.AlreadyExists)
    db.run(f"GRANT SELECT ON seen TO {users.name('svc')}")
    told = refused(svc, "CREATE OR REPLACE VIEW seen AS SELECT 1 AS x", seracdb.PermissionDenied)
    assert "another user's" in told


def test_views_of_others_are_not_named_to_who_drops_what_they_read(db, users):
    svc = users.make("svc", "service")
    svc.run("CREATE TABLE made (n INT)")
    db.run("CREATE VIEW of_root AS SELECT n FROM made")
    told = refused(svc, "DROP TABLE made", seracdb.InvalidArgument)
    assert "read by a view of another user" in told and "of_root" not in told
    svc.run("CREATE VIEW own_view AS SELECT n FROM made")
    db.run("CREATE VIEW over AS SELECT n FROM own_view")
    assert "over'" not in refused(svc, "DROP VIEW own_view", seracdb.InvalidArgument)
    assert "read by the view" in refused(db, "DROP VIEW own_view", seracdb.InvalidArgument)
    svc.run("DROP TABLE made CASCADE")
    assert column(db, f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{users.namespace}'") == []


def test_a_taken_name_does_not_tell_what_has_it(db, users, secret):
    svc, namespace = users.make("svc", "service"), users.namespace
    db.run("CREATE INDEX hidden_index ON secret (id)")
    svc.run("CREATE TABLE mine (id INT)")

    def told(sql: str) -> str:
        text = refused(svc, sql, seracdb.AlreadyExists)
        return re.sub(r"secret|seen", "…", text.split("[FlightSQL] ")[1].split(" (AlreadyExists")[0])

    def texts() -> list[set[str]]:
        by_name = []
        for name in ("secret", "seen"):
            own = f"{namespace}.{name}"
            statements = [f"CREATE TABLE {own} (x INT)", f"CREATE VIEW {own} AS SELECT 1 AS x", f"CREATE OR REPLACE VIEW {own} AS SELECT 1 AS x"]
            by_name.append({told(sql) for sql in statements})
            with pytest.raises(seracdb.AlreadyExists) as why:
                svc.ingest(own, pa.table({"x": [1]}), mode="create")
            by_name[-1].add(re.sub(name, "…", str(why.value).split("] ")[-1].split(" (AlreadyExists")[0]))
        return by_name

    hidden = f"'{namespace}.…' exists already: choose another name"
    assert texts() == [{hidden}, {hidden}]
    assert told("CREATE INDEX hidden_index ON mine (id)") == "'hidden_index' exists already: choose another name"
    db.run(f"GRANT SELECT ON secret TO {users.name('svc')}")
    assert told(f"CREATE TABLE {namespace}.secret (x INT)") == f"table '{namespace}.…' exists already"
    assert told("CREATE INDEX hidden_index ON mine (id)") == "index 'hidden_index' exists already"
    db.run(f"GRANT SELECT ON seen TO {users.name('svc')}")
    assert told(f"CREATE TABLE {namespace}.seen (x INT)") == f"view '{namespace}.…' exists already"


def test_grants_go_with_their_table_and_are_shown(db, users, secret):
    ann, svc = users.make("ann"), users.make("svc", "service")
    db.run(f"GRANT SELECT, DELETE ON secret TO {users.name('ann')}")
    db.run(f"GRANT SELECT ON NAMESPACE {users.namespace} TO ROLE service")
    db.run('CREATE TABLE "Odd name" (n INT)')
    db.run('GRANT UPDATE ON "Odd name" TO ROLE user')
    shown = f"SELECT grantee, kind, object, privilege, granted_by FROM system.grants WHERE object LIKE '{users.namespace}%' ORDER BY 1, 4"
    of_ann = [(users.name("ann"), "table", secret, right, "root") for right in ("DELETE", "SELECT")]
    of_users = [("user", "table", f'{users.namespace}."Odd name"', "UPDATE", "root")]
    of_services = [("service", "namespace", users.namespace, "SELECT", "root")]

    def grants(connection) -> list[tuple]:
        return sorted(tuple(row.values()) for row in connection.query(shown).to_pylist())

    assert grants(ann) == sorted(of_ann + of_users)
    assert grants(svc) == sorted(of_users + of_services)
    assert grants(db) == sorted(of_ann + of_users + of_services)
    db.run("DROP TABLE secret CASCADE")
    db.run("CREATE TABLE secret (id INT, text TEXT)")
    assert grants(ann) == of_users
    refused(ann, "SELECT * FROM secret", seracdb.NotFound)
    db.run(f"GRANT SELECT ON secret TO {users.name('ann')}")
    db.run(f"DROP USER {users.name('ann')}")
    assert grants(db) == sorted(of_users + of_services)


def test_grants_are_transactional(db, users, secret):
    ann, name = users.make("ann"), users.name("ann")
    db.run("BEGIN")
    db.run("CREATE TABLE fresh (n INT)")
    db.run(f"GRANT SELECT ON fresh TO {name}")
    db.run(f"GRANT SELECT ON secret TO {name}")
    db.run("SAVEPOINT s")
    db.run(f"GRANT INSERT ON secret TO {name}")
    db.run("ROLLBACK TO s")
    refused(ann, "SELECT * FROM secret", seracdb.NotFound)
    db.run("COMMIT")
    assert column(ann, "SELECT id FROM secret ORDER BY id") == [1, 2] and column(ann, "SELECT n FROM fresh") == []
    refused(ann, "INSERT INTO secret VALUES (3, 'x')", seracdb.PermissionDenied)
    db.run("BEGIN")
    db.run(f"REVOKE SELECT ON secret FROM {name}")
    db.run("ROLLBACK")
    assert column(ann, "SELECT id FROM secret ORDER BY id") == [1, 2]


def test_what_is_revoked_is_gone_in_open_transactions_too(db, users, secret):
    ann, name = users.make("ann"), users.name("ann")
    db.run(f"GRANT ALL ON secret TO {name}")
    db.run(f"GRANT SELECT ON seen TO {name}")
    ann.run("BEGIN")
    assert column(ann, "SELECT id FROM secret ORDER BY id") == column(ann, "SELECT id FROM seen ORDER BY id") == [1, 2]
    db.run(f"REVOKE SELECT ON secret FROM {name}")
    for sql in ("SELECT id FROM secret ORDER BY id", "UPDATE secret SET id = id"):
        assert "no right to SELECT" in refused(ann, sql, seracdb.PermissionDenied)
    assert "reads what you may not" in refused(ann, "SELECT id FROM seen ORDER BY id", seracdb.PermissionDenied)
    db.run(f"REVOKE ALL ON secret FROM {name}")
    assert HIDDEN in refused(ann, "INSERT INTO secret VALUES (3, 'x')", seracdb.NotFound)
    assert "secret" not in listed(ann, users.namespace)
    ann.run("ROLLBACK")


def test_the_same_text_notices_that_rights_have_changed(db, users, secret):
    """Its plan is kept; it is asked again all the same."""
    ann, name = users.make("ann"), users.name("ann")
    for sql, change in (
        ("SELECT id FROM secret ORDER BY id", False),
        ("SELECT count(*) FROM seen", False),
        ("UPDATE secret SET text = text", True),
        ("INSERT INTO secret SELECT id + 2, text FROM secret WHERE id = ?", True),
    ):
        params = [1] if "?" in sql else None
        for _ in range(2):
            db.run(f"GRANT ALL ON secret TO {name}")
            db.run(f"GRANT SELECT ON seen TO {name}")
            for _ in range(3):
                ann.run(sql, params) if change else ann.query(sql, params)
            db.run(f"REVOKE ALL ON secret FROM {name}")
            for _ in range(2):
                with pytest.raises(seracdb.Error):
                    ann.run(sql, params) if change else ann.query(sql, params)


@pytest.mark.parametrize("gone", ["REVOKE ALL ON {t} FROM {u}", "DROP USER {u}", "DROP TABLE {t} CASCADE"])
def test_prepared_statements_notice_that_rights_have_changed(server, db, users, secret, gone):
    name = users.name("ann")
    users.make("ann")
    db.run(f"GRANT ALL ON secret TO {name}")
    with Caller(server, basic(name, PASSWORD)).login() as caller:
        def prepare(sql: str) -> bytes:
            reply = caller.call(
                "DoAction",
                field(1, "CreatePreparedStatement") + field(2, packed("ActionCreatePreparedStatementRequest", field(1, sql))),
            )
            _, fields = unpack(bytes(parse(reply.message)[1]))
            return packed("CommandPreparedStatementQuery", field(1, bytes(fields[1])))

        prepared = prepare(f"SELECT id FROM {secret}")
        info = field(1, 2) + field(2, prepared)
        assert caller.call("GetFlightInfo", info).code is grpc.StatusCode.OK
        assert caller.call("GetSchema", info).code is grpc.StatusCode.OK
        db.run(gone.format(t=secret, u=name))
        expected = grpc.StatusCode.UNAUTHENTICATED if "USER" in gone else grpc.StatusCode.NOT_FOUND
        for method in ("GetFlightInfo", "GetSchema"):
            reply = caller.call(method, info)
            assert reply.code is expected, reply
            assert "USER" in gone or HIDDEN in reply.text


def test_a_prepared_update_notices_that_rights_have_changed(server, db, users, secret):
    name = users.name("ann")
    users.make("ann")
    db.run(f"GRANT UPDATE ON secret TO {name}")
    with Caller(server, basic(name, PASSWORD)).login() as caller:
        request = packed("ActionCreatePreparedStatementRequest", field(1, f"UPDATE {secret} SET id = 9"))
        reply = caller.call("DoAction", field(1, "CreatePreparedStatement") + field(2, request))
        _, fields = unpack(bytes(parse(reply.message)[1]))
        update = field(1, field(1, 2) + field(2, packed("CommandPreparedStatementUpdate", field(1, bytes(fields[1])))))
        assert caller.call("DoPut", [update]).code is grpc.StatusCode.OK
        db.run("UPDATE secret SET id = 1")
        db.run(f"GRANT SELECT ON secret TO {name}")
        db.run(f"REVOKE UPDATE ON secret FROM {name}")
        assert caller.call("DoPut", [update]).code is grpc.StatusCode.PERMISSION_DENIED
        db.run(f"REVOKE SELECT ON secret FROM {name}")
        assert caller.call("DoPut", [update]).code is grpc.StatusCode.NOT_FOUND
    assert column(db, "SELECT id FROM secret") == [1, 1]


@pytest.mark.parametrize("gone", ["REVOKE INSERT ON {t} FROM {u}", "DROP USER {u}", "ALTER USER {u} SET ROLE user"])
def test_an_ingest_that_is_under_way_notices_that_rights_have_changed(db, users, secret, gone):
    ann, name = users.make("ann", "service"), users.name("ann")
    on_role = "ALTER" in gone
    db.run(f"GRANT INSERT ON secret TO {'ROLE service' if on_role else name}")
    batch = pa.record_batch({"id": pa.array([7] * 1000, pa.int32()), "text": ["x"] * 1000})
    begun, more = threading.Event(), threading.Event()
    told: list[str] = []

    def batches():
        yield batch
        begun.set()
        assert more.wait(60)
        yield batch

    def load() -> None:
        try:
            ann.ingest(secret, pa.RecordBatchReader.from_batches(batch.schema, batches()), mode="append")
        except seracdb.Error as error:
            told.append(str(error))

    loading = threading.Thread(target=load)
    loading.start()
    try:
        assert begun.wait(60)
        until(lambda: column(db, f"SELECT rows FROM system.queries WHERE statement = 'INGEST INTO {secret}'"), "it runs")
        db.run(gone.format(t=secret, u=name))
    finally:
        more.set()
        loading.join()
    assert len(told) == 1 and ("was dropped" in told[0] or HIDDEN in told[0]), told
    assert column(db, "SELECT id FROM secret ORDER BY id") == [1, 2]


def test_a_ticket_is_no_way_around(server, db, users, secret):
    """What GetFlightInfo was given before the right was revoked."""
    name = users.name("ann")
    users.make("ann")
    db.run(f"GRANT SELECT ON secret TO {name}")
    with flight.FlightClient(server.uri) as client:
        options = flight.FlightCallOptions(headers=[client.authenticate_basic_token(name, PASSWORD)])
        info = client.get_flight_info(statement(f"SELECT id FROM {secret}"), options)
        db.run(f"REVOKE SELECT ON secret FROM {name}")
        with pytest.raises((flight.FlightError, pa.ArrowException), match="no right to it"):
            client.do_get(info.endpoints[0].ticket, options).read_all()
