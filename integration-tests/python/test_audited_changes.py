"""What the audit log says of changes of tables, views and namespaces: all that went, and nothing of temporary tables."""

from __future__ import annotations

import pytest
import seracdb

PASSWORD = "a quiet pass phrase"


@pytest.fixture
def two(connect, db, namespace) -> tuple[seracdb.Connection, seracdb.Connection]:
    """Two services: `svc`, and `vic`, who has a namespace of the name `{namespace}_w`."""

    def make(name: str) -> seracdb.Connection:
        db.run(f"CREATE USER {namespace}_{name} WITH PASSWORD '{PASSWORD}' ROLE service")
        return connect(f"{namespace}_{name}", PASSWORD)

    svc, vic = make("svc"), make("vic")
    svc.run(f"CREATE NAMESPACE {namespace}_x")
    vic.run(f"CREATE NAMESPACE {namespace}_w")
    return svc, vic


def logged(db, namespace: str, outcome: str = "committed") -> list[tuple[str, str]]:
    """What `svc` has dropped, in order, without what the names begin with."""
    rows = db.query(
        "SELECT action, target FROM system.audit_log WHERE actor_user_id = ? AND outcome = ? AND action LIKE 'DROP%' ORDER BY audit_id",
        [f"{namespace}_svc", outcome],
    ).to_pylist()
    return [(row["action"], row["target"].replace(f"{namespace}_", "")) for row in rows]


def fill(svc, vic, namespace: str) -> None:
    svc.run(f"CREATE TABLE {namespace}_x.t (n INT)")
    svc.run(f"GRANT SELECT ON {namespace}_x.t TO {namespace}_vic")
    vic.run(f"CREATE VIEW {namespace}_w.v AS SELECT n FROM {namespace}_x.t")
    vic.run(f"CREATE VIEW {namespace}_w.over AS SELECT n FROM {namespace}_w.v")


def test_all_that_goes_along_is_logged(db, namespace, two):
    svc, vic = two
    fill(svc, vic, namespace)
    svc.run(f"CREATE TABLE {namespace}_x.other (n INT)")
    svc.run(f"CREATE VIEW {namespace}_x.own AS SELECT n FROM {namespace}_x.other")
    svc.run(f"DROP NAMESPACE {namespace}_x CASCADE")
    (named, *along) = logged(db, namespace)
    assert named == ("DROP NAMESPACE", "x")
    assert sorted(along) == [
        ("DROP TABLE", "x.other"), ("DROP TABLE", "x.t"), ("DROP VIEW", "w.over"), ("DROP VIEW", "w.v"), ("DROP VIEW", "x.own")
    ]  # fmt: skip


def test_a_table_and_a_view_take_views_along(db, namespace, two):
    svc, vic = two
    fill(svc, vic, namespace)
    svc.run(f"CREATE VIEW {namespace}_x.base AS SELECT 1 AS n")
    svc.run(f"CREATE VIEW {namespace}_x.top AS SELECT n FROM {namespace}_x.base")
    svc.run(f"DROP VIEW {namespace}_x.base CASCADE")
    assert logged(db, namespace) == [("DROP VIEW", "x.base"), ("DROP VIEW", "x.top")]
    svc.run(f"DROP TABLE {namespace}_x.t CASCADE")
    assert sorted(logged(db, namespace)[2:]) == [("DROP TABLE", "x.t"), ("DROP VIEW", "w.over"), ("DROP VIEW", "w.v")]


def test_so_is_what_goes_along_at_the_commit(db, namespace, two):
    svc, vic = two
    svc.run(f"CREATE TABLE {namespace}_x.t (n INT)")
    svc.run(f"CREATE TABLE {namespace}_x.early (n INT)")
    svc.run(f"GRANT SELECT ON {namespace}_x.t TO {namespace}_vic")
    vic.run(f"CREATE VIEW {namespace}_w.early AS SELECT n FROM {namespace}_x.t")
    for end, outcome in (("ROLLBACK", "rolled back"), ("COMMIT", "committed")):
        svc.run("BEGIN")
        svc.run(f"DROP NAMESPACE {namespace}_x CASCADE")
        assert len(logged(db, namespace, "staged")) == (4 if end == "ROLLBACK" else 8)
        if end == "COMMIT":
            vic.run(f"CREATE VIEW {namespace}_w.late AS SELECT n FROM {namespace}_x.t")
            vic.run(f"CREATE TABLE {namespace}_x.late (n INT)")
        svc.run(end)
        gone = logged(db, namespace, outcome)
        expected = [("DROP NAMESPACE", "x"), ("DROP TABLE", "x.early"), ("DROP TABLE", "x.t"), ("DROP VIEW", "w.early")]
        late = [("DROP TABLE", "x.late"), ("DROP VIEW", "w.late")] if end == "COMMIT" else []
        assert sorted(gone) == sorted(expected + late)
    assert vic.query(f"SELECT table_name FROM information_schema.views WHERE table_schema = '{namespace}_w'").num_rows == 0


def test_nothing_of_temporary_tables(db, namespace, two):
    svc, _ = two
    svc.run(f"CREATE TABLE {namespace}_x.t (n INT)")
    for table in ("tt", f"{namespace}_x.t"):
        if table == "tt":
            svc.run("CREATE TEMPORARY TABLE tt (n INT)")
        for sql in (
            f"COMMENT ON TABLE {table} IS 'x'",
            f"COMMENT ON COLUMN {table}.n IS 'x'",
            f"CREATE INDEX i ON {table} (n)",
            f"DROP INDEX {'i' if table == 'tt' else f'{namespace}_x.i'}",
            f"DROP TABLE {table}",
        ):
            svc.run(sql)
    rows = db.query(
        "SELECT action, target FROM system.audit_log WHERE actor_user_id = ? ORDER BY audit_id", [f"{namespace}_svc"]
    ).to_pylist()
    t = f"{namespace}_x.t"
    assert [(row["action"], row["target"]) for row in rows] == [
        ("CREATE NAMESPACE", f"{namespace}_x"),
        ("CREATE TABLE", t),
        ("COMMENT", t),
        ("COMMENT", f"column 16 of {t}"),
        ("CREATE INDEX", f"i ON {t}"),
        ("DROP INDEX", f"i ON {t}"),
        ("DROP TABLE", t),
    ]
