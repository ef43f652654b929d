"""Views and comments: who sees what by them, and how they follow transactions, plans, ingests, restarts and recovery."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
import seracdb
from conftest import root
from object_stores import server_on
from test_manifests import told, until
from test_recovery import successor


def column(connection, sql: str) -> list:
    return connection.query(sql).column(0).to_pylist()


def test_a_view_over_a_user_table_shows_each_user_their_own_rows(connect, db, namespace):
    db.run(f"CREATE USER TABLE {namespace}.notes (note TEXT)")
    db.run(f"CREATE VIEW {namespace}.loud AS SELECT upper(note) AS note FROM {namespace}.notes")
    db.run(f"GRANT SELECT ON NAMESPACE {namespace} TO ROLE user")
    users = {}
    for name in ("anna", "bert"):
        db.run(f"CREATE USER {namespace}_{name} WITH PASSWORD 'long enough' ROLE user")
        users[name] = connect(f"{namespace}_{name}", "long enough")
        users[name].run(f"INSERT INTO {namespace}.notes VALUES ('of {name}')")
    for _ in ("planned", "planned before"):
        for name, user in users.items():
            assert column(user, f"SELECT note FROM {namespace}.loud") == [f"OF {name.upper()}"]
        assert column(db, f"SELECT note FROM {namespace}.loud") == []
    # What only an admin may see stays so, whoever has made the view.
    db.run(f"CREATE VIEW {namespace}.running AS SELECT user_id FROM system.queries")
    assert set(column(users["anna"], f"SELECT user_id FROM {namespace}.running")) == {f"{namespace}_anna"}


def test_who_may_not_create_views_or_comment(connect, db, namespace):
    db.run(f"CREATE USER {namespace}_user WITH PASSWORD 'long enough' ROLE user")
    db.run(f"CREATE TABLE {namespace}.t (a INT)")
    db.run(f"CREATE VIEW {namespace}.v AS SELECT a FROM {namespace}.t")
    user = connect(f"{namespace}_user", "long enough")
    for sql in (
        f"CREATE VIEW {namespace}.w AS SELECT 1 AS a",
        f"CREATE OR REPLACE VIEW {namespace}.v AS SELECT 1 AS a",
        f"DROP VIEW {namespace}.v",
        f"COMMENT ON TABLE {namespace}.t IS 'x'",
        f"COMMENT ON COLUMN {namespace}.v.a IS 'x'",
        f"COMMENT ON NAMESPACE {namespace} IS 'x'",
    ):
        with pytest.raises(seracdb.Error, match="permission denied"):
            user.run(sql)
    user.run("CREATE TEMPORARY TABLE own (x INT)")
    user.run("COMMENT ON TABLE own IS 'mine'")
    commented = "SELECT table_name FROM information_schema.tables WHERE comment IS NOT NULL AND table_name = 'own'"
    assert (column(user, commented), column(db, commented)) == (["own"], [])


def test_views_and_comments_are_transactional(connect, db, namespace):
    db.run(f"CREATE TABLE {namespace}.t (a INT)")
    other = connect()
    said = f"SELECT comment FROM information_schema.tables WHERE table_schema = '{namespace}' AND table_name = 't'"
    db.run("BEGIN")
    db.run(f"INSERT INTO {namespace}.t VALUES (1)")
    db.run(f"CREATE VIEW {namespace}.v AS SELECT a FROM {namespace}.t")
    db.run(f"COMMENT ON TABLE {namespace}.t IS 'inside'")
    assert column(db, f"SELECT a FROM {namespace}.v") == [1]
    db.run("SAVEPOINT s")
    db.run(f"CREATE OR REPLACE VIEW {namespace}.v AS SELECT a + 1 AS a FROM {namespace}.t")
    assert column(db, f"SELECT a FROM {namespace}.v") == [2]
    db.run("ROLLBACK TO s")
    assert (column(db, f"SELECT a FROM {namespace}.v"), column(db, said)) == ([1], ["inside"])
    with pytest.raises(seracdb.Error, match="unknown table"):
        other.query(f"SELECT a FROM {namespace}.v")
    assert column(other, said) == [None]
    db.run("ROLLBACK")
    with pytest.raises(seracdb.Error, match="unknown table"):
        db.query(f"SELECT a FROM {namespace}.v")
    db.run("BEGIN")
    db.run(f"CREATE VIEW {namespace}.v AS SELECT a FROM {namespace}.t")
    other.run(f"DROP TABLE {namespace}.t")
    with pytest.raises(seracdb.Error, match=f"rolled back: table '{namespace}.t' does not exist"):
        db.run("COMMIT")


def test_a_plan_that_is_kept_notices_that_a_view_has_changed(db, namespace):
    db.run(f"CREATE TABLE {namespace}.t (a INT, b INT)")
    db.run(f"INSERT INTO {namespace}.t VALUES (1, 2)")
    db.run(f"CREATE VIEW {namespace}.v AS SELECT a FROM {namespace}.t")
    db.run(f"CREATE VIEW {namespace}.over AS SELECT * FROM {namespace}.v")
    sql = f"SELECT a FROM {namespace}.over WHERE a < ?"
    for expression, expected in (("a", 1), ("b", 2), ("a + b", 3)):
        db.run(f"CREATE OR REPLACE VIEW {namespace}.v AS SELECT CAST({expression} AS INT) AS a FROM {namespace}.t")
        for _ in range(3):
            assert db.query(sql, [10]).column(0).to_pylist() == [expected]
    db.run(f"DROP VIEW {namespace}.over")
    with pytest.raises(seracdb.Error, match="unknown table"):
        db.query(sql, [10])


def test_a_view_has_the_columns_that_it_was_created_with(db, namespace):
    """Also when another table comes under the name of one that it reads."""
    def replace(**columns: list) -> None:
        db.ingest(f"{namespace}.t", pa.table(columns), mode="replace")

    replace(b=["x"], a=[1])
    db.run(f"CREATE VIEW {namespace}.v AS SELECT * FROM {namespace}.t")
    db.run(f"CREATE VIEW {namespace}.deep AS SELECT q.* FROM (SELECT * FROM {namespace}.t) AS q JOIN {namespace}.v USING (a)")
    names = ["_id", "b", "a", "_updated"]
    deep = db.query(f"SELECT * FROM {namespace}.deep").column_names
    replace(more=[True], a=[7], b=["y"])
    assert db.query(f"SELECT * FROM {namespace}.v").column_names == names
    assert db.query(f"SELECT * FROM {namespace}.deep").column_names == deep
    assert db.query(f"SELECT b, a FROM {namespace}.v").to_pylist() == [{"b": "y", "a": 7}]
    for columns, why in (
        ({"a": [1]}, r"its query now gives 3 columns, and gave 4"),
        ({"a": ["text"], "b": ["x"]}, r"its column 'a' is now of type Utf8, and was of type Int64"),
    ):
        replace(**columns)
        with pytest.raises(seracdb.Error, match=rf"the view '{namespace}\.v' no longer fits: {why}"):
            db.query(f"SELECT * FROM {namespace}.v")
    # It is listed all the same.
    listed = f"SELECT column_name FROM information_schema.columns WHERE table_schema = '{namespace}' AND table_name = 'v'"
    assert column(db, listed) == names
    replace(a=[8], b=["z"])
    assert column(db, f"SELECT a FROM {namespace}.v") == [8]


def test_nothing_is_ingested_into_a_view(db, namespace):
    db.run(f"CREATE VIEW {namespace}.v AS SELECT 1 AS a")
    for mode in ("append", "create", "replace", "create_append"):
        with pytest.raises(seracdb.Error, match=rf"'{namespace}\.v' is a view: rows go into tables"):
            db.ingest(f"{namespace}.v", pa.table({"a": [1]}), mode=mode)


def test_views_that_nest_to_the_limit_can_be_read(db, namespace):
    db.run(f"CREATE TABLE {namespace}.t (a INT)")
    db.run(f"INSERT INTO {namespace}.t VALUES (0)")
    db.run(f"CREATE VIEW {namespace}.v1 AS SELECT a + 1 AS a FROM {namespace}.t")
    for level in range(2, 33):
        db.run(f"CREATE VIEW {namespace}.v{level} AS SELECT CAST(a + 1 AS BIGINT) AS a FROM {namespace}.v{level - 1}")
    assert column(db, f"SELECT a FROM {namespace}.v32") == [32]
    with pytest.raises(seracdb.Error, match="more than 32 views that read one another"):
        db.run(f"CREATE VIEW {namespace}.v33 AS SELECT a FROM {namespace}.v32")


def test_subqueries_of_views_count_against_the_limit(db, namespace):
    """Each doubles the planner's work, wherever it stands."""
    db.run(f"CREATE TABLE {namespace}.t (a INT)")
    db.run(f"CREATE VIEW {namespace}.v0 AS SELECT a FROM {namespace}.t")
    for level in range(1, 13):
        db.run(f"CREATE VIEW {namespace}.v{level} AS SELECT a FROM {namespace}.t WHERE a IN (SELECT a FROM {namespace}.v{level - 1})")
        if level == 4:
            assert column(db, f"SELECT a FROM {namespace}.v4") == []
    with pytest.raises(seracdb.Error, match="more than 12 subqueries in the expressions of one another"):
        db.run(f"CREATE VIEW {namespace}.v13 AS SELECT a FROM {namespace}.t WHERE a IN (SELECT a FROM {namespace}.v12)")


def test_many_at_once_create_and_replace(connect, db, namespace):
    """Whoever comes first: no view reads itself, and none lacks what it reads."""
    db.run(f"CREATE TABLE {namespace}.t (a INT)")
    for name in "abc":
        db.run(f"CREATE VIEW {namespace}.{name} AS SELECT a FROM {namespace}.t")
    connections = [connect() for _ in range(3)]

    def replace(n: int) -> int:
        done = 0
        for turn in range(20):
            one, other = "abc"[(n + turn) % 3], "abc"[(n + turn * 2 + 1) % 3]
            try:
                connections[n].run(f"CREATE OR REPLACE VIEW {namespace}.{one} AS SELECT a FROM {namespace}.{other}")
                done += 1
            except seracdb.Error as error:
                assert "would read itself" in str(error), error
        return done

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(replace, range(3))) > 0
    for name in "abc":
        assert column(db, f"SELECT a FROM {namespace}.{name}") == []


def test_views_and_comments_are_there_after_a_kill(own_server):
    with root(own_server) as db:
        make(db)
    own_server.kill()
    own_server.start()
    with root(own_server) as db:
        check(db)


def test_views_and_comments_come_along_to_a_new_data_directory(shared, tmp_path):
    with server_on(tmp_path / "first", shared.url) as first:
        with root(first) as db:
            make(db)
            db.run("STORAGE FLUSH ALL")
        until(lambda: b'"loud"' in shared.read()["_seracdb/catalog-e1.json"], "the catalog is exported")
        second = successor(tmp_path, shared, first)
    with second:
        assert told(second, "goes on with the tables of the owner before")
        with root(second) as db:
            check(db)


def make(db) -> None:
    db.run("CREATE NAMESPACE app")
    db.run("CREATE TABLE app.t (a INT, b TEXT)")
    db.run("INSERT INTO app.t VALUES (1, 'one')")
    db.run("COMMENT ON TABLE app.t IS 'of t'")
    db.run("COMMENT ON COLUMN app.t.b IS 'of b'")
    db.run("COMMENT ON NAMESPACE default IS 'of default'")
    db.run("CREATE VIEW app.gone AS SELECT a FROM app.t")
    db.run("USE app")
    db.run('CREATE VIEW "Odd / name" AS SELECT upper(b) AS loud FROM t')
    db.run("COMMENT ON COLUMN \"Odd / name\".loud IS 'of the view'")
    db.run("DROP VIEW gone")


def check(db) -> None:
    assert column(db, 'SELECT loud FROM app."Odd / name"') == ["ONE"]
    comments = "SELECT comment FROM information_schema.columns WHERE comment IS NOT NULL ORDER BY 1"
    assert column(db, comments) == ["of b", "of the view"]
    assert column(db, "SELECT comment FROM information_schema.schemata WHERE comment IS NOT NULL") == ["of default"]
    assert column(db, "SELECT table_name FROM information_schema.views") == ["Odd / name"]
    with pytest.raises(seracdb.Error, match="is read by the view 'app.Odd / name'"):
        db.run("DROP TABLE app.t")
